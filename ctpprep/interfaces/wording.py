# SPDX-License-Identifier: Apache-2.0
"""The wording of the quality checks in tables, sidecars and reports."""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from ctpprep.perfusion.quality import BILATERAL, CHECKS, Verdict, judge, worst


class Wording(NamedTuple):
    """The wording of a check.

    Attributes
    ----------
    title : str
    meaning : str
        The measure.
    advice : str
        Consequence or recommended action if the check is not passed.
    finding : str
        What was found, with ``{}`` for the measure, and what it concerns: the reason of a verdict.
    """

    title: str
    meaning: str
    advice: str
    finding: str


#: Words of the grades, wherever a person reads them.
GRADE_WORDS = {'pass': 'passes', 'warn': 'warns', 'fail': 'fails'}
UNITS = {check.name: check.unit for check in CHECKS}
WORDING = {
    'displacement_max': Wording(
        'Head motion',
        'largest mean displacement of the head, over usable frames',
        'look at the corrected series for motion within frames',
        'the head moves by up to {}: the maps may be blurred',
    ),
    'frames_rejected': Wording(
        'Frames rejected for motion',
        'fraction of frames rejected for motion',
        'the curves have gaps; look at the motion figure',
        '{} of the frames are rejected for motion: the curves have gaps',
    ),
    'noise_raw': Wording(
        'Noise of the series',
        'noise of a voxel before denoising',
        'low flow is overestimated and lesions look ragged',
        'the noise of the series is {}: low flow is overestimated and lesions look ragged',
    ),
    'noise_denoised': Wording(
        'Noise after denoising',
        'noise of the denoised curves of tissue',
        'the curve of a core (1 to 2 HU) is lost in noise: low flow is overestimated',
        'noise after denoising is {}: low flow in a core is overestimated',
    ),
    'contrast_to_noise': Wording(
        'Contrast to noise',
        'peak of the mean tissue curve over denoised noise',
        'the maps are dominated by noise',
        'tissue enhances by only {} times its noise: the maps are dominated by noise',
    ),
    'baseline_frames': Wording(
        'Frames before contrast',
        'frames before contrast arrives',
        'the baseline is uncertain; start the scan earlier',
        'contrast arrives after only {}: the baseline is uncertain',
    ),
    'arrival': Wording(
        'Arrival of contrast',
        'arrival of contrast after the start of the scan',
        'the bolus comes late (heart failure, or a scan started early): what is left of '
        'the scan may be too short',
        'contrast arrives {} after the start of the scan: the rest of the scan may be too short',
    ),
    'scan_after_peak': Wording(
        'Scan after the peak of the AIF',
        'end of the scan after the peak of the AIF',
        'curves of slow tissue may be truncated: core is overestimated, CBV and MTT are '
        'underestimated (60 to 70 s of scan are advised)',
        'the scan ends {} after the peak of the AIF: core may be overestimated, CBV and MTT '
        'underestimated',
    ),
    'scan_reserve': Wording(
        'Length of the scan for this bolus',
        'end of the scan after arrival plus 1.6 times the width of the VOF',
        'a bolus this wide needs a longer scan: core is overestimated, CBV and MTT are underestimated',
        'the scan is too short for a bolus this wide (reserve {}): core may be overestimated, CBV and '
        'MTT underestimated',
    ),
    'vof_end': Wording(
        'VOF at the end of the scan',
        'height of the VOF at the end of the scan, relative to its peak',
        'the scan ends before the bolus has left: core is overestimated, CBV and MTT are underestimated',
        'the VOF has {} of its peak at the end of the scan: core may be overestimated, CBV and MTT '
        'underestimated',
    ),
    'vof_width': Wording(
        'Width of the VOF',
        'full width of the VOF at half of its peak, or up to the scan end',
        'a wide bolus (low cardiac output?) makes Tmax and MTT uncertain',
        'the VOF is {} wide: Tmax and MTT are uncertain',
    ),
    'aif_peak': Wording(
        'Peak of the AIF',
        'peak of the AIF',
        'the bolus is weak or the artery partial-volumed: absolute CBF and CBV are overestimated',
        'the AIF rises by only {}: absolute CBF and CBV are overestimated',
    ),
    'aif_width': Wording(
        'Width of the AIF',
        'full width of the AIF at half of its peak',
        'a wide bolus (low cardiac output?) makes Tmax and MTT uncertain',
        'the AIF is {} wide: Tmax and MTT are uncertain',
    ),
    'aif_area': Wording(
        'Area of the AIF',
        'area of the AIF over that of the VOF',
        'if low, the artery is partial-volumed and absolute CBF and CBV are overestimated; if high, one of '
        'the curves is not that of a vessel: look at both',
        'the area of the AIF is {} times that of the VOF: absolute CBF and CBV are uncertain',
    ),
    'aif_likeness': Wording(
        'Supplied AIF',
        'correlation of a supplied AIF with the one that is found without it',
        'the arteries of this series have another bolus: check that the AIF is of this participant and '
        'scan, in HU above baseline, and not that of a vein',
        'the supplied AIF has a correlation of {} with that of this series: it may be of another scan',
    ),
    'aif_explained': Wording(
        'Shape of the AIF',
        'fraction of the AIF that the passage of one bolus explains',
        'this curve is not that of an artery (motion, bone or tissue): all maps are wrong; supply an '
        'AIF or its voxels (--aif-file)',
        'one bolus explains only {} of the AIF: it may not be an artery, and all maps may be wrong',
    ),
    'aif_over_tissue': Wording(
        'AIF over tissue',
        'peak of the AIF over that of the mean tissue curve',
        'the voxels of the AIF are largely tissue, so it is too wide and all maps are uncertain; '
        'supply an AIF or its voxels (--aif-file)',
        'the AIF peaks at only {} times the tissue curve: it is partly tissue, and all maps are uncertain',
    ),
    'aif_before': Wording(
        'AIF before the bolus',
        'root mean square of the AIF before its upslope, relative to its peak',
        'the baseline contains contrast, or the artery moves: all maps are wrong; give the time of '
        'arrival (--bolus-arrival) or supply an AIF',
        'before the bolus the AIF varies by {} of its peak: its baseline and all maps may be wrong',
    ),
    'aif_undershoot': Wording(
        'AIF below its baseline',
        'depth to which the AIF falls below its baseline after the peak, relative to the peak',
        'blood never falls below its density before contrast: the artery moves, or the baseline '
        'contains contrast',
        'the AIF falls {} of its peak below its baseline: the artery moves, or the baseline contains '
        'contrast',
    ),
    'tissue_lag': Wording(
        'Tissue after the AIF',
        'time from the upslope of the AIF to that of the mean tissue curve',
        'tissue enhances before its artery: the AIF is from a late artery, a vein or another clock',
        'tissue enhances before the AIF (lag {}): the AIF is late, venous or on another clock',
    ),
    'vof_lag': Wording(
        'VOF after the AIF',
        'time from the peak of the AIF to that of the VOF',
        'the vein enhances with or before the artery: one of the two curves is wrong',
        'the VOF peaks with or before the AIF (lag {}): one of the two curves is wrong',
    ),
    'drift': Wording(
        'Drift of density',
        'change of density over the scan that remains after correction, where nothing enhances',
        'the density of the whole image changes over the scan: late tissue and core are wrong',
        'density drifts by {} over the scan: late tissue and core may be wrong',
    ),
    'brain_density': Wording(
        'Density of brain',
        'most frequent density of brain before contrast',
        'brain of this density is unusual: check the rescale slope and intercept, and, if it is high, '
        'whether contrast was given before',
        'the density of brain is {} before contrast: check the density scale and earlier contrast',
    ),
    'hyperdense': Wording(
        'Hyperdense, without contrast',
        'dense brain that does not enhance, excluded from tissue',
        'a haematoma, or calcification? It is neither core nor reference',
        '{} of dense brain do not enhance: a haematoma or calcification is neither core nor reference',
    ),
    'metal': Wording(
        'Metal',
        'metal in or near the brain (2500 HU and more); nothing within 10 mm of it is treated as tissue',
        'streaks of a clip, coil or electrode reach farther than the excluded margin: look at the slices '
        'that the sidecar of the reference image names',
        'there are {} of metal in or near the brain: streaks may distort the maps',
    ),
    'mask_outline': Wording(
        'Supplied brain mask',
        'fraction of the outline of a supplied brain mask that is at least 4 mm too far out for this skull',
        'the mask may be of another participant or space, or leave out part of the brain: look at its '
        'outline',
        '{} of the outline of the supplied brain mask is too far out: it may be of another head',
    ),
    'contrast_before': Wording(
        'Vessels before the bolus',
        'density of the voxels of AIF or VOF in the reference image above that of brain',
        'blood is denser than it can be: contrast of an earlier injection (CT angiography?) is still '
        'there, or the vessels contain bone; CSF and hyperdense brain are less certain',
        'vessels are {} denser than brain before the bolus: contrast of an earlier injection may remain',
    ),
    'vein_behind_artery': Wording(
        'Vein behind the artery',
        'distance by which the voxels of the VOF are behind those of the AIF',
        'the vein is in front of the artery: the head may be turned by 180 degrees or written from back '
        'to front, so that left and right are exchanged; look for the nose',
        'the vein is not behind the artery ({}): left and right may be exchanged',
    ),
    'skull_gap': Wording(
        'Gap in the skull',
        'longest part of the brain surface in a slice without bone outside it',
        'bone is missing (craniectomy?): scalp may be segmented as brain without flow; check the '
        'brain mask, or supply one (--brain-mask)',
        'bone is missing over {}: scalp may be segmented as brain without flow',
    ),
    'core_missed': Wording(
        'Missed core',
        'fraction of a core with 15 % of normal flow that is estimated above the threshold',
        'noise, a wide bolus or sparse frames raise low flow: core is underestimated',
        '{} of a core would be missed with this noise and bolus: core is underestimated',
    ),
    'coverage': Wording(
        'Coverage',
        'extent of tissue from feet to head',
        'a lesion outside the slab is not seen',
        'the slab contains only {} of tissue: a lesion outside it is not seen',
    ),
    'coverage_asymmetry': Wording(
        'Coverage: asymmetry',
        'largest fraction of the tissue of a hemisphere whose homologue is outside the slab',
        'the head is tilted: near the first and last slices read the global map',
        '{} of the tissue of a hemisphere has its homologue outside the slab: read the global map there',
    ),
    'brain_asymmetry': Wording(
        'Brain: asymmetry',
        'difference of tissue volume between the hemispheres, relative to their mean, where both are '
        'in the slab',
        'one side has lost tissue or is swollen, or the midline was missed: homologues are uncertain,'
        ' look at the mirror figure',
        'the tissue volume of the hemispheres differs by {}: homologues are uncertain',
    ),
    'normal_tissue': Wording(
        'Normally perfused tissue',
        'fraction of tissue within the limit of normal Tmax',
        'little tissue is normally perfused (heart failure, carotid stenosis, a wrong AIF?): the '
        'global reference, and with it the core, is doubtful',
        'only {} of tissue has a normal Tmax: the global reference, and with it the core, is doubtful',
    ),
    'healthy_side_tmax': Wording(
        'Unaffected side: median Tmax',
        'median Tmax of the unaffected hemisphere',
        'all tissue is late (heart failure, carotid stenosis, an AIF from an early artery?): '
        'hypoperfusion is overestimated',
        'median Tmax of the unaffected side is {}: hypoperfusion is overestimated',
    ),
    'tmax_at_zero': Wording(
        'Tissue with a Tmax of 0',
        'fraction of tissue whose Tmax is 0',
        'the AIF arrives later than tissue (an artery behind a stenosis?): Tmax and hypoperfusion are'
        ' underestimated',
        '{} of tissue has a Tmax of 0: hypoperfusion is underestimated',
    ),
    'reference_density': Wording(
        'Image that was mirrored',
        '1 if the mirrored image is a CT, 0 if it is a perfusion map',
        'lesions are visible in the registered image: look at the mirror figure, and prefer the '
        'global map',
        'a perfusion map was mirrored instead of a CT: prefer the global map',
    ),
    'mirror_distance': Wording(
        'Mirror registration: distance',
        'estimated distance between found and true homologues, median over the brain',
        'homologues are uncertain: read the global map',
        'homologues are off by about {}: read the global map',
    ),
    'mirror_similarity': Wording(
        'Mirror registration: similarity',
        'correlation of a perfusion map with its mirror image, if there is no CT',
        'homologues are uncertain: read the global map',
        'a map has a correlation of only {} with its mirror image: read the global map',
    ),
    'mirror_folding': Wording(
        'Mirror registration: folding',
        'fraction of the brain in which the mirror registration folds or changes volume fivefold',
        'homologues are uncertain: read the global map',
        'the mirror registration is distorted in {} of the brain: read the global map',
    ),
    'unassessable': Wording(
        'Tissue without a homologue',
        'fraction of tissue without a homologue to divide by',
        'the local map is incomplete: read the global map there',
        '{} of tissue has no homologue: read the global map there',
    ),
    'healthy_side_hypoperfusion': Wording(
        'Unaffected side: hypoperfusion',
        'fraction of the unaffected hemisphere with Tmax above the threshold',
        'both hemispheres may be diseased: local normalization is unreliable, read the global map',
        '{} of the unaffected hemisphere is hypoperfused: both may be diseased, read the global map',
    ),
    'healthy_side_low_flow': Wording(
        'Unaffected side: low flow',
        'fraction of the unaffected hemisphere with global rCBF below 0.2, cleaned like core',
        'both hemispheres may be diseased (an old infarct?): local normalization is unreliable, read '
        'the global map',
        '{} of the unaffected hemisphere has low flow: both may be diseased, read the global map',
    ),
    'old_infarct': Wording(
        'Unaffected side: old infarct',
        'tissue of the unaffected hemisphere with low flow that is as light as CSF',
        'an old infarct? Read the global map opposite to it',
        '{} of the unaffected side may be an old infarct: read the global map opposite to it',
    ),
    'side_confidence': Wording(
        'Affected side: confidence',
        'confidence in the affected side',
        'the hemispheres hardly differ: check the side, or use --affected-side both',
        'the hemispheres hardly differ (confidence {}): check the affected side',
    ),
    'core_disagreement': Wording(
        'Global against local core: difference',
        'difference of global and local core',
        'look at both maps; consider microangiopathy and old infarcts',
        'global and local core differ by {}: look at both maps',
    ),
    'core_disagreement_share': Wording(
        'Global against local core: relative difference',
        'difference of global and local core, relative to the larger one, from 10 mL',
        'one map shows most of the core, the other does not: look at both',
        'global and local core differ by {} of the larger one: look at both maps',
    ),
    'core_hypodense': Wording(
        'Core: hypodense tissue',
        'hypodense tissue in the core, global or local',
        'this density is too low for an early infarct: part of the core may be old',
        '{} of the core are too hypodense for an early infarct: part of it may be old',
    ),
    'map_likeness': Wording(
        'Precomputed maps on the CT',
        'correlation of precomputed maps with the brain in the CT beside them',
        'maps and CT show different brains, or are not in the same space: check that both are of this '
        'participant, or remove the CT',
        'maps and CT have a correlation of only {}: they may be of different heads',
    ),
    'missing_values': Wording(
        'Missing values',
        'fraction of tissue in which a map is not a number',
        'the computation of a map failed there; volumes are too small',
        'a map has no value in {} of tissue: volumes are too small',
    ),
    'values_outside': Wording(
        'Values outside tissue',
        'fraction of the values of a map outside tissue, where it is 0 by definition',
        'a map was shifted, mirrored or exchanged',
        '{} of the values of a map are outside tissue: it may have been shifted or exchanged',
    ),
    'reference_median': Wording(
        'Global map: reference',
        'median of the global map over its own reference tissue, 1 by definition',
        'the global map is not relative to its reference: all cores are wrong',
        'the median of the global map in its reference is {}, not 1: all cores are wrong',
    ),
    'relative_to_flow': Wording(
        'Global map against CBF',
        'difference between CBF and global rCBF times its reference, relative to the median CBF',
        'the global map does not match the map of CBF',
        'the global map differs from CBF by {}: all cores may be wrong',
    ),
    'flow_volume_time': Wording(
        'CBF, CBV and MTT',
        'difference between CBV and CBF times MTT, relative to CBV, in the worse hemisphere',
        'one of the maps does not match the others',
        'CBV differs from CBF times MTT by {}: one of the maps is wrong',
    ),
    'relative_to_homologue': Wording(
        'Local map against the homologues',
        'difference between the local map and rCBF over that of the homologue',
        'the local map does not match the global map or the homologues',
        'the local map differs from rCBF over that of the homologue by {}: the local core may be wrong',
    ),
    'local_median': Wording(
        'Local map: normal tissue',
        'median of the local map over normally perfused tissue',
        'the hemispheres differ even in normal tissue, or the local map is wrong',
        'the median of the local map in normal tissue is {}: the local core may be wrong',
    ),
    'reference_cbf': Wording(
        'CBF of the reference',
        'median CBF of the global reference tissue',
        'the AIF is too low or too high, or the map is not CBF; relative maps may be right',
        'CBF of the reference is {}: the AIF may be wrong, or the map is not CBF',
    ),
    'reference_mtt': Wording(
        'MTT of the reference',
        'median MTT of the global reference tissue',
        'normal tissue has 3 to 6 s: CBF or CBV is wrong',
        'MTT of the reference is {}, normal are 3 to 6 s: CBF or CBV is wrong',
    ),
    'flow_spread': Wording(
        'Grey against white matter',
        'difference of the quartiles of rCBF in the reference tissue',
        'grey matter has two to three times the flow of white matter: this is not a map of flow',
        'the quartiles of rCBF differ by {}: this may not be a map of flow',
    ),
    'flow_structure': Wording(
        'Fine structure of rCBF',
        'fraction of the variance of rCBF finer than about 10 mm',
        'the map was smoothed: small cores vanish, and borders are shifted',
        'only {} of the variance of rCBF is fine: the map was smoothed, and small cores vanish',
    ),
    'flow_asymmetry': Wording(
        'Flow of normal tissue: asymmetry',
        'difference of rCBF between normally perfused tissue of the hemispheres, relative to the mean',
        'one side is scaled differently, or is diseased without delay',
        'flow of normal tissue differs by {} between the hemispheres: cores may be wrong',
    ),
    'tmax_spread': Wording(
        'Spread of Tmax',
        'difference of the 10th and 90th percentiles of Tmax',
        'Tmax hardly varies: it was not measured',
        'Tmax varies by only {}: it was not measured, and hypoperfusion is wrong',
    ),
    'tmax_structure': Wording(
        'Fine structure of Tmax',
        'fraction of the variance of Tmax finer than about 10 mm',
        'the map was smoothed: the borders of hypoperfusion are lost',
        'only {} of the variance of Tmax is fine: the borders of hypoperfusion are lost',
    ),
    'peak_per_delay': Wording(
        'Delay by TTP against Tmax',
        'delay of late tissue relative to the other side, by TTP over that by Tmax',
        'Tmax is scaled, in another unit, or noise: hypoperfusion is wrong',
        'the delay by TTP is {} times that by Tmax: hypoperfusion may be wrong',
    ),
    'peak_after_delay': Wording(
        'Peak of tissue after its artery',
        'TTP minus Tmax and minus the peak time of the AIF, unaffected side',
        'tissue peaks after its delayed artery by less than its transit: Tmax or the AIF is wrong',
        'tissue peaks {} after its delayed artery: Tmax or the AIF is wrong',
    ),
    'slice_step': Wording(
        'Tmax from slice to slice',
        'largest difference of Tmax or arrival between neighbouring slices, unaffected side',
        'the times of some slices are wrong: hypoperfusion is wrong in them',
        'times differ by {} between neighbouring slices: hypoperfusion is wrong there',
    ),
    'frame_order': Wording(
        'Order of the frames',
        'roughness of the curves in the smoothest other order of frames, relative to this order',
        'frames are in the wrong order, or one of them is not of this bolus: all maps are wrong',
        'another order of frames has {} times the roughness of this one: all maps may be wrong',
    ),
    'tissue_unexplained': Wording(
        'Tissue that the AIF cannot explain',
        'part of the first pass of normal tissue that the AIF cannot explain',
        'the AIF is too wide, or not that of this tissue: all maps are wrong',
        'the AIF does not explain {} of the first pass of tissue: all maps may be wrong',
    ),
    'sector_filled': Wording(
        'Brain in the skull',
        'fraction of the inside of the skull that is brain, in its emptiest sector',
        'the brain mask misses a part of the brain, and lesions in it',
        'brain fills only {} of a sector of the skull: lesions there may be missed',
    ),
    'tissue_of_brain': Wording(
        'Tissue in the brain',
        'fraction of the brain that is tissue',
        'the tissue mask misses a large part of the brain',
        'only {} of the brain is tissue: lesions may be missed',
    ),
    'tissue_outside': Wording(
        'Tissue outside the brain',
        'fraction of tissue outside the brain mask, of which it is a part',
        'one of the masks was shifted or exchanged',
        '{} of tissue is outside the brain mask: a mask was shifted or exchanged',
    ),
    'side_of_patient': Wording(
        'Hemispheres: left and right',
        'fraction of the hemispheres on their side of the patient',
        'the hemispheres are mislabelled: the affected side may be wrong',
        'only {} of the hemispheres is on its side of the patient: the affected side may be wrong',
    ),
    'homologues_return': Wording(
        'Homologues: there and back',
        'distance of the homologue of a homologue from the voxel itself',
        'homologues are wrong: read the global map',
        'the homologue of a homologue is {} from the voxel itself: read the global map',
    ),
    'homologues_crossing': Wording(
        'Homologues: other side',
        'fraction of tissue whose homologue is in the other hemisphere',
        'homologues are wrong: read the global map',
        'only {} of homologues are in the other hemisphere: read the global map',
    ),
    'lesion_outside': Wording(
        'Lesion outside tissue',
        'lesion outside tissue or outside the segmented side',
        'a lesion is in an impossible place: do not use the volumes',
        '{} of a lesion are outside tissue or the segmented side: do not use the volumes',
    ),
    'lesion_agreement': Wording(
        'Lesions against their maps',
        'lowest Dice of a lesion with its segmentation repeated from the map',
        'a lesion does not match its map: do not use the volumes',
        'a lesion has a Dice of only {} with its map: do not use the volumes',
    ),
    'hypoperfusion_repeat': Wording(
        'Hypoperfusion: repeatability',
        'Dice of the hypoperfusions with the noise of the curves added and subtracted',
        'noise determines much of the hypoperfusion: its volume is uncertain',
        'added and subtracted noise leaves a Dice of only {}: the volume of hypoperfusion is uncertain',
    ),
}


def with_unit(figure, unit):
    """Format a measure with its unit; fractions in percent.

    Parameters
    ----------
    figure : float
    unit : str

    Returns
    -------
    str

    Examples
    --------
    >>> with_unit(0.0464, 'fraction'), with_unit(12.345, 'mL'), with_unit(0.8, 'correlation')
    ('4.64 %', '12.3 mL', '0.8')
    >>> with_unit(1.0, 'frames')
    '1 frame'
    """
    if unit == 'fraction':
        return f'{100 * figure:.3g} %'
    if unit == 'frames' and figure == 1:
        return '1 frame'
    return f'{figure:.3g}' if unit in ('ratio', 'correlation') else f'{figure:.3g} {unit}'


def describe(check, figure, status):
    """Describe the result of one check in a sentence.

    Parameters
    ----------
    check : Check
    figure : float or None
    status : str
        From `judge`.

    Returns
    -------
    str
    """
    wording = WORDING[check.name]
    if status == 'n/a':
        return f'{wording.meaning}: not available'
    shown = f'{wording.meaning}: {with_unit(figure, check.unit)}'
    expected = describe_bounds(check, status == 'fail')
    return f'{shown} ({expected} expected)' + ('' if status == 'pass' else f'; {wording.advice}')


def explain_verdict(
    verdict: Verdict, withheld: str = '', figures: Mapping[str, float] = MappingProxyType({})
) -> str:
    """Explain a verdict in one line: what the first deciding check found, and how many more there are.

    Parameters
    ----------
    verdict : Verdict
    withheld : str
        Why there is no local map, '' if there is one.
    figures : mapping of str to float
        Measures by the names of their checks.

    Returns
    -------
    str

    Examples
    --------
    >>> verdict = Verdict('look first', (), ('aif_peak', 'noise_raw'))
    >>> explain_verdict(verdict, figures={'aif_peak': 61.3})
    'The AIF rises by only 61.3 HU: absolute CBF and CBV are overestimated. 1 more check warns.'
    """
    if not verdict.deciding:
        if withheld:
            return f'There is no local map: {withheld}.'
        return (
            'No check warns or fails.'
            if verdict.word == 'usable'
            else 'No check could be computed.'
        )
    failed = bool(verdict.doubtful)
    first, *others = verdict.deciding
    reason = describe_finding(first, figures.get(first), 'fail' if failed else 'warn')
    if others:
        reason += f' {count_checks(len(others), "fail" if failed else "warn", "more ")}.'
    if verdict.word == 'look first' and failed:
        reason += ' Do not use the local core.'
    return reason


def describe_finding(name: str, figure: float | None, status: str) -> str:
    """Describe in one sentence what a check found and what it concerns.

    Parameters
    ----------
    name : str
        Of the check.
    figure : float or None
        Its measure.
    status : {'warn', 'fail'}
        Used where the check or its measure is unknown.

    Returns
    -------
    str
    """
    wording = WORDING.get(name)
    if wording is None:
        return f'The check {name} {GRADE_WORDS[status]}.'
    if figure is None:
        return f'{wording.title} {GRADE_WORDS[status]}: {wording.advice}.'
    finding = wording.finding.format(with_unit(figure, UNITS[name]))
    return f'{finding[:1].upper()}{finding[1:]}.'


def count_checks(count: int, status: str, more: str = '') -> str:
    """State how many checks have a grade.

    Examples
    --------
    >>> count_checks(1, 'warn'), count_checks(2, 'fail', 'more ')
    ('1 check warns', '2 more checks fail')
    """
    return (
        f'{count} {more}check {GRADE_WORDS[status]}'
        if count == 1
        else f'{count} {more}checks {status}'
    )


def describe_bounds(check, failed=False):
    """Describe the limits of a check: those of failure if it failed, else those of warning.

    Examples
    --------
    >>> from ctpprep.perfusion.quality import Check
    >>> describe_bounds(Check('brain_density', 'HU', low=(20.0, 0.0), high=(46.0, 70.0)))
    'at least 20 HU and at most 46 HU'
    """
    bounds = (('at least', check.low), ('at most', check.high))
    return ' and '.join(
        f'{word} {with_unit(limits[failed], check.unit)}'
        for word, limits in bounds
        if limits and math.isfinite(limits[failed])
    )


def tabulate_checks(figures, checks):
    """Grade all measures and tabulate them as one row.

    Parameters
    ----------
    figures : dict
        Measures by the names of their checks; checks without a measure are 'n/a'.
    checks : sequence of Check

    Returns
    -------
    dict
        ``<check>``, ``<check>_status`` and ``<check>_sentence`` for every check; ``status``, the worst
        grade; ``caution``, a sentence if there is no healthy side for local normalization, else
        None.
    """
    row, grades, bilateral = {}, [], []
    for check in checks:
        figure = figures.get(check.name)
        status = judge(check, figure)
        grades.append(status)
        row[check.name] = None if status == 'n/a' else float(figure)
        row[f'{check.name}_status'] = status
        row[f'{check.name}_sentence'] = describe(check, figure, status)
        if check.name in BILATERAL and status in ('warn', 'fail'):
            meaning = WORDING[check.name].meaning
            bilateral.append(f'{meaning}: {with_unit(figure, check.unit)}')
    caution = (
        f'both hemispheres may be diseased ({"; ".join(bilateral)}): local normalization is '
        'unreliable; read the global map'
    )
    return {'status': worst(grades), 'caution': caution if bilateral else None} | row


def describe_limits(checks):
    """Describe the columns of checks for a sidecar.

    Parameters
    ----------
    checks : sequence of Check

    Returns
    -------
    dict of dict
    """
    return {
        check.name: {
            'LongName': WORDING[check.name].title,
            'Description': WORDING[check.name].meaning,
            'Units': check.unit,
            **{
                f'{grade}{side}': limits[i]
                for side, limits in (('Below', check.low), ('Above', check.high))
                for i, grade in enumerate(('Warn', 'Fail'))
                if limits and math.isfinite(limits[i])
            },
        }
        for check in checks
    }
