# SPDX-License-Identifier: Apache-2.0
"""Automated quality control: numbers, limits and sentences."""

from dataclasses import dataclass, replace

import numpy as np

from ctpprep.perfusion.symmetry import OTHER_SIDE, SIDES
from ctpprep.perfusion.vessels import curve_features

STATUS = ('pass', 'warn', 'fail')
# volumes settle this many widths of the VOF after contrast arrives, by a linear model of 59 scans
# (Kasasbeh et al., Stroke 2016;47:2966, doi:10.1161/STROKEAHA.116.014177); in half of them 33 s
# of scan were enough, in nine of ten 53 s, in all 69 s, with arrival at about 10 s
VOF_WIDTHS = 1.6
# flow of an infarct, fresh or old; microangiopathy, which lowers the flow of white matter on both
# sides, has next to no tissue below it (decision 0018)
LOW_FLOW = 0.2
# smaller cores differ by less than they are wrong, mL
LEAST_CORE_ML = 10.0
# the mirrored reference is air where the homologue lies outside the slab
OUTSIDE_HU = -500.0
# checks whose doubt means that there is no healthy side to compare with
BILATERAL = ('healthy_side_hypoperfusion', 'healthy_side_low_flow')


@dataclass(frozen=True)
class Check:
    """One check: what is measured, in which unit, and where doubt and failure begin.

    Attributes
    ----------
    name, title, unit, meaning : str
        Name of the column, and the same in words.
    warn, fail : float
        Limits; with `low_is_bad` the figure is compared the other way round.
    low_is_bad : bool
    advice : str
        What a reader should do when the check does not pass.
    """

    name: str
    title: str
    unit: str
    meaning: str
    warn: float
    fail: float
    low_is_bad: bool
    advice: str


CHECKS = (
    Check('displacement_max', 'Head motion', 'mm',
          'largest mean displacement of the head, over usable frames', 5.0, 15.0, False,
          'look at the corrected series for motion within frames'),
    Check('frames_rejected', 'Frames rejected for motion', 'fraction',
          'share of frames rejected for motion', 0.05, 0.3, False,
          'the curves have gaps; look at the motion figure'),
    Check('noise_raw', 'Noise of the series', 'HU',
          'noise of a voxel before denoising', 10.0, 20.0, False,
          'low flow reads too high and lesions look ragged'),
    Check('noise_denoised', 'Noise after denoising', 'HU',
          'noise of the denoised curves of tissue', 1.0, 2.0, False,
          'the curve of a core, 1 to 2 HU high, drowns in noise: low flow reads too high'),
    Check('contrast_to_noise', 'Contrast to noise', 'ratio',
          'peak of the mean tissue curve over denoised noise',
          4.0, 2.0, True, 'the maps are dominated by noise'),
    Check('baseline_frames', 'Frames before contrast', 'frames',
          'frames before contrast arrives', 3.0, 1.0, True,
          'the baseline is uncertain; start the scan earlier'),
    Check('arrival', 'Arrival of contrast', 's',
          'arrival of contrast after the start of the scan', 20.0, 30.0, False,
          'the bolus comes late (heart failure, or a scan started early): what is left of the scan '
          'may be too short'),
    Check('scan_after_peak', 'Scan after the peak of the AIF', 's',
          'end of the scan after the peak of the AIF', 35.0, 18.0, True,
          'curves of slow tissue may be cut: core is then over-read, CBV and MTT read low; 60 to '
          '70 s of scan are advised'),
    Check('scan_reserve', 'Length of the scan for this bolus', 's',
          'end of the scan after arrival plus 1.6 times the width of the VOF', 0.0, -10.0, True,
          'a bolus this wide needs a longer scan: core is over-read, CBV and MTT read low'),
    Check('vof_end', 'VOF at the end of the scan', 'fraction',
          'height of the VOF at the end of the scan, relative to its peak',
          0.5, 0.8, False,
          'the scan ends before the bolus has left: core is over-read, CBV and MTT read low'),
    Check('vof_width', 'Width of the VOF', 's',
          'full width of the VOF at half of its peak, or up to the scan end',
          20.0, 30.0, False, 'a wide bolus (low cardiac output?) makes Tmax and MTT uncertain'),
    Check('aif_peak', 'Peak of the AIF', 'HU', 'peak of the AIF', 80.0, 40.0, True,
          'the bolus is weak or the artery partial-volumed: absolute CBF and CBV read high'),
    Check('aif_width', 'Width of the AIF', 's',
          'full width of the AIF at half of its peak', 14.0, 20.0, False,
          'a wide bolus (low cardiac output?) makes Tmax and MTT uncertain'),
    Check('aif_area', 'Area of the AIF', 'ratio',
          'area of the AIF over that of the VOF', 0.5, 0.2, True,
          'the artery is partial-volumed: absolute CBF and CBV read high, relative maps do not '
          'change'),
    Check('coverage', 'Coverage', 'mm', 'extent of tissue from feet to head', 50.0, 20.0, True,
          'a lesion outside the slab is not seen'),
    Check('coverage_asymmetry', 'Coverage: asymmetry', 'fraction',
          'greatest share of the tissue of a hemisphere whose homologue lies outside of the slab',
          0.1, 0.3, False,
          'the head lies tilted: near the first and last slices read the global map'),
    Check('brain_asymmetry', 'Brain: asymmetry', 'fraction',
          'difference of the tissue of both hemispheres, as far as both are in the slab, over their '
          'mean', 0.1, 0.25, False,
          'one side has lost tissue or is swollen, or the midline was missed: homologues are '
          'uncertain, look at the mirror figure'),
    Check('normal_tissue', 'Normally perfused tissue', 'fraction',
          'share of tissue within the limit of normal Tmax', 0.5, 0.25,
          True, 'little tissue is normally perfused (heart failure, carotid stenosis, a wrong AIF?):'
          ' the global reference, and with it the core, is doubtful'),
    Check('healthy_side_tmax', 'Unaffected side: median Tmax', 's',
          'median Tmax of the unaffected hemisphere', 4.0, 6.0, False,
          'all tissue is late (heart failure, carotid stenosis, an AIF from an early artery?): '
          'hypoperfusion is over-read'),
    Check('tmax_at_zero', 'Tissue with a Tmax of 0', 'fraction',
          'share of tissue whose Tmax is 0', 0.1, 0.3, False,
          'the AIF comes later than tissue (an artery behind a stenosis?): Tmax and hypoperfusion '
          'read low'),
    Check('reference_density', 'Mirrored image: CT (1) or perfusion map (0)', 'ratio',
          'the mirrored image is a CT (1), or a perfusion map in its stead (0)', 1.0, 0.0, True,
          'lesions are in the image that is registered: look at the mirror figure, and prefer the '
          'global map'),
    Check('mirror_similarity', 'Mirror registration: similarity', 'correlation',
          'agreement of brain with its mirrored self', 0.68, 0.56,
          True, 'homologues are uncertain: read the global map'),
    Check('mirror_folding', 'Mirror registration: folding', 'fraction',
          'share of the brain in which the mirror registration folds or changes volume fivefold',
          0.002, 0.01, False, 'homologues are uncertain: read the global map'),
    Check('unassessable', 'Tissue without a homologue', 'fraction',
          'share of tissue without a homologue to divide by', 0.1, 0.3,
          False, 'the local map is incomplete: read the global map there'),
    Check('healthy_side_hypoperfusion', 'Unaffected side: hypoperfusion', 'fraction',
          'share of the unaffected hemisphere with Tmax above the threshold', 0.05, 0.1, False,
          'both hemispheres may be diseased: local normalization is unreliable, read the global '
          'map'),
    Check('healthy_side_low_flow', 'Unaffected side: low flow', 'fraction',
          'share of the unaffected hemisphere with global rCBF below 0.2', 0.005, 0.01, False,
          'both hemispheres may be diseased (an old infarct?): local normalization is unreliable, '
          'read the global map'),
    Check('side_confidence', 'Affected side: confidence', 'ratio',
          'confidence in the affected side', 0.1, 0.0, True,
          'the hemispheres hardly differ: check the side, or use --affected-side both'),
    Check('core_disagreement', 'Global against local core: difference', 'mL',
          'difference of global and local core', 15.0, 50.0, False,
          'global and local core disagree: look at both maps, think of microangiopathy and of old '
          'infarcts'),
    Check('core_disagreement_share', 'Global against local core: relative difference', 'fraction',
          'difference of global and local core over the larger one, if that has 10 mL', 0.5, 0.8,
          False, 'one map shows most of the core, the other does not: look at both'),
    Check('core_hypodense', 'Core: hypodense tissue', 'mL',
          'hypodense tissue in the core, global or local', 1.0, 10.0, False,
          'so low a density is no early infarct: part of the core may be an old one'),
)  # fmt: skip


def checks_of(mirror_least_similarity, mirror_most_folding):
    """List the checks with the limits at which local maps are withheld as those of failure.

    Parameters
    ----------
    mirror_least_similarity, mirror_most_folding : float

    Returns
    -------
    tuple of Check
    """
    limits = {'mirror_similarity': mirror_least_similarity, 'mirror_folding': mirror_most_folding}
    return tuple(
        replace(check, fail=limit, warn=(max if check.low_is_bad else min)(check.warn, limit))
        if (limit := limits.get(check.name)) is not None
        else check
        for check in CHECKS
    )


def judge(check, figure):
    """Grade one figure.

    Parameters
    ----------
    check : Check
    figure : float or None
        None where it does not apply.

    Returns
    -------
    status : str
        'pass', 'warn', 'fail' or 'n/a'.
    sentence : str

    Examples
    --------
    >>> (check,) = (each for each in CHECKS if each.name == 'baseline_frames')
    >>> judge(check, 2.0)[0], judge(check, 8.0)[0]
    ('warn', 'pass')
    """
    if figure is None or not np.isfinite(figure):
        return 'n/a', f'{check.meaning}: not available'
    sign = -1.0 if check.low_is_bad else 1.0
    bad = sign * figure > sign * check.warn
    worse = sign * figure > sign * check.fail
    status = STATUS[int(bad) + int(bad and worse)]
    limit = check.fail if status == 'fail' else check.warn
    way = 'at least' if check.low_is_bad else 'at most'
    shown = f'{check.meaning}: {with_unit(figure, check.unit)}'
    expected = f'{way} {with_unit(limit, check.unit)} expected'
    return status, f'{shown} ({expected})' + ('' if status == 'pass' else f'; {check.advice}')


def with_unit(figure, unit):
    """Write a figure for a reader: fractions in percent.

    Examples
    --------
    >>> with_unit(0.0464, 'fraction'), with_unit(12.345, 'mL'), with_unit(0.8, 'correlation')
    ('4.64 %', '12.3 mL', '0.8')
    """
    if unit == 'fraction':
        return f'{100 * figure:.3g} %'
    return f'{figure:.3g}' if unit in ('ratio', 'correlation') else f'{figure:.3g} {unit}'


def grade(figures, checks=CHECKS):
    """Grade all figures as one row.

    Parameters
    ----------
    figures : dict
        Name of a check to its figure; checks without one are 'n/a'.
    checks : sequence of Check, optional

    Returns
    -------
    dict
        ``<check>``, ``<check>_status``, ``<check>_sentence`` for every check, and ``status``, the
        worst of them; ``caution``, a sentence where no healthy side is left for local
        normalization, else None.
    """
    row, worst, bilateral = {}, 0, []
    for check in checks:
        figure = figures.get(check.name)
        status, sentence = judge(check, figure)
        row[check.name] = None if status == 'n/a' else float(figure)
        row[f'{check.name}_status'] = status
        row[f'{check.name}_sentence'] = sentence
        worst = max(worst, STATUS.index(status) if status in STATUS else 0)
        if check.name in BILATERAL and status in ('warn', 'fail'):
            bilateral.append(f'{check.meaning}: {with_unit(figure, check.unit)}')
    caution = (
        f'both hemispheres may be diseased ({"; ".join(bilateral)}): local normalization is '
        'unreliable, the global map must be read'
    )
    return {'status': STATUS[worst], 'caution': caution if bilateral else None} | row


def healthy_side_share(diseased, tissue_mask, hemisphere, affected):
    """Measure how much of the unaffected side is diseased.

    Parameters
    ----------
    diseased : (X, Y, Z) array of bool
    tissue_mask : (X, Y, Z) array of bool
    hemisphere : (X, Y, Z) array
        1 left, 2 right.
    affected : {'left', 'right'}

    Returns
    -------
    float
        Share of the tissue of the other hemisphere; NaN if that has none.
    """
    tissue = tissue_mask & (hemisphere == SIDES[OTHER_SIDE[affected]])
    return float(diseased[tissue].mean()) if tissue.any() else float('nan')


def asymmetry(tissue_mask, hemisphere, mirrored):
    """Compare what the slab holds of both hemispheres.

    A tilted head lies deeper in the slab on one side than on the other. So the brain is compared only
    where its homologue is in the slab too; what is not is a figure of its own.

    Parameters
    ----------
    tissue_mask : (X, Y, Z) array of bool
    hemisphere : (X, Y, Z) array
        1 left, 2 right.
    mirrored : (X, Y, Z) array of bool
        Voxels whose homologue lies in the slab.

    Returns
    -------
    dict
        ``brain_asymmetry`` and ``coverage_asymmetry``, fractions; NaN if a hemisphere is missing.

    Examples
    --------
    Three voxels left, two right; the homologue of one on the left is outside of the slab:

    >>> found = asymmetry(np.ones(5, bool), np.array([1, 1, 1, 2, 2]), np.arange(5) > 0)
    >>> found['brain_asymmetry'], round(found['coverage_asymmetry'], 2)
    (0.0, 0.33)
    """
    both = [tissue_mask & (hemisphere == label) for label in SIDES.values()]
    shared = [float(np.count_nonzero(each & mirrored)) for each in both]
    if not all(shared):
        return dict.fromkeys(('brain_asymmetry', 'coverage_asymmetry'), float('nan'))
    outside = [1 - part / np.count_nonzero(each) for part, each in zip(shared, both, strict=True)]
    return {
        'brain_asymmetry': abs(shared[0] - shared[1]) / (sum(shared) / 2),
        'coverage_asymmetry': float(max(outside)),
    }


def core_figures(core_global_ml, core_local_ml):
    """Compare the core of both normalizations.

    Parameters
    ----------
    core_global_ml, core_local_ml : float
        mL; NaN where there is none.

    Returns
    -------
    dict
        ``core_disagreement``, mL, and ``core_disagreement_share`` of the larger core; the share
        is None where neither core has 10 mL.

    Examples
    --------
    >>> core_figures(40.0, 10.0), core_figures(4.0, 0.0)['core_disagreement_share']
    ({'core_disagreement': 30.0, 'core_disagreement_share': 0.75}, None)
    """
    difference, larger = abs(core_global_ml - core_local_ml), max(core_global_ml, core_local_ml)
    share = difference / larger if larger >= LEAST_CORE_ML else None
    return {'core_disagreement': difference, 'core_disagreement_share': share}


def curve_figures(times, aif, vof, tissue, noise_denoised, arrival, duration):
    """Measure the vessels' curves and whether the scan held the whole bolus.

    Parameters
    ----------
    times, aif, vof, tissue : (T,) arrays
        s and HU; a VOF of NaN is none.
    noise_denoised : float or None
        Noise of the denoised tissue curves, HU.
    arrival, duration : float or None
        Arrival of contrast and end of the scan after its start, s.

    Returns
    -------
    dict
        Figures named as in `CHECKS`; those that need a VOF are absent without one, and so is a
        reserve that a VOF cut above half of its peak would seem to leave.
    """
    times = np.asarray(times, dtype=float)
    artery = curve_features(np.asarray(aif)[None], times)
    figures = {
        'aif_peak': float(artery.peak[0]),
        'aif_width': float(artery.width[0]),
        'scan_after_peak': float(times[-1] - artery.peak_time[0]),
        'contrast_to_noise': float(np.max(tissue) / noise_denoised) if noise_denoised else None,
    }
    if np.isfinite(vof).all():
        vein = curve_features(np.asarray(vof)[None], times)
        width = float(vein.width[0])
        figures |= {
            'vof_end': float(np.mean(vof[-2:]) / np.max(vof)),
            'vof_width': width,
            'aif_area': float(np.trapezoid(aif, times) / np.trapezoid(vof, times)),
        }
        if arrival is not None:
            reserve = float(duration - arrival - VOF_WIDTHS * width)
            # a VOF still above half of its peak is wider than was seen: no reserve can be promised
            if reserve < 0 or vof[-1] < 0.5 * np.max(vof):
                figures['scan_reserve'] = reserve
    return figures


def motion_figures(displacement, weights):
    """Measure motion.

    Parameters
    ----------
    displacement : (T,) array
        mm against the reference frame.
    weights : (T,) array
        0 for rejected frames, whose displacement means nothing.

    Returns
    -------
    dict
        ``displacement_max`` and ``frames_rejected``.
    """
    rejected = np.asarray(weights) == 0
    # the greatest of those that are known
    usable = np.asarray(displacement, dtype=float)[~rejected]
    known = usable[np.isfinite(usable)]
    return {
        'displacement_max': known.max() if known.size else np.nan,
        'frames_rejected': rejected.mean(),
    }


def map_figures(
    tmax, rcbf_global, tissue_mask, hemispheres, voxel_size_mm, normalization, mirror, settings,
    homologue_reference=None, unassessable=None,
):  # fmt: skip
    """Measure maps, coverage, side and homologues.

    Parameters
    ----------
    tmax, rcbf_global : (X, Y, Z) arrays
        s, fraction.
    tissue_mask : (X, Y, Z) array of bool
    hemispheres : (X, Y, Z) array
        1 left, 2 right.
    voxel_size_mm : (3,) sequence of float
    normalization, mirror : dict
        ``measured`` of `GlobalNormalization` and of `MirrorRegistration`.
    settings : MethodSettings
        Branch ``lesion``.
    homologue_reference : (X, Y, Z) array, optional
        The mirrored reference, brought home, HU.
    unassessable : (X, Y, Z) array of bool, optional
        Absent if local maps were withheld.

    Returns
    -------
    dict
    """
    figures, affected = {}, normalization['affected_side']
    if homologue_reference is not None and not mirror['withheld']:
        figures |= asymmetry(tissue_mask, hemispheres, homologue_reference > OUTSIDE_HU)
    diseased = {
        'healthy_side_hypoperfusion': tmax > settings.lesion.hypoperfusion_tmax,
        'healthy_side_low_flow': rcbf_global < LOW_FLOW,
    }
    for name, mask in diseased.items():
        figures[name] = healthy_side_share(mask, tissue_mask, hemispheres, affected)
    slices = np.count_nonzero(tissue_mask.any(axis=(0, 1)))
    return figures | {
        'coverage': slices * voxel_size_mm[2],
        'normal_tissue': normalization['normal_share'],
        'mirror_similarity': mirror['mirror_similarity'],
        'mirror_folding': mirror['mirror_folding'],
        'unassessable': None if unassessable is None else unassessable.sum() / tissue_mask.sum(),
        'side_confidence': normalization['side_confidence'],
        'tmax_at_zero': (tmax[tissue_mask] == 0).mean(),
        'healthy_side_tmax': normalization[f'tmax_{OTHER_SIDE[affected]}_s'],
    }
