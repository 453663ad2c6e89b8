# SPDX-License-Identifier: Apache-2.0
"""Automated quality control: measures and limits."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy import special

from ctpprep.perfusion import bolus_fit, brain
from ctpprep.perfusion.symmetry import OTHER_SIDE, SIDES
from ctpprep.perfusion.vessels import curve_features

STATUS = ('pass', 'warn', 'fail')
# lesion volumes stabilize this many VOF widths after arrival, by a linear model of 59 scans
# (Kasasbeh et al., Stroke 2016;47:2966, doi:10.1161/STROKEAHA.116.014177); with arrival at about
# 10 s, 33 s of scan were sufficient in half of them, 53 s in nine of ten, 69 s in all
VOF_WIDTHS = 1.6
# relative flow of an infarct, acute or old; microangiopathy lowers the flow of white matter in both
# hemispheres, but hardly any tissue falls below this (decision 0018)
LOW_FLOW = 0.2
# differences between smaller cores are within their error, mL
LEAST_CORE_ML = 10.0
# the mirrored reference is air where the homologue is outside the slab
OUTSIDE_HU = -500.0
# two arteries of a head fill within this time of one another, and step of the search for it, s
MOST_SHIFT_S, SHIFT_STEP_S = 2.0, 0.25
# checks that, if not passed, mean that there is no healthy side for comparison
BILATERAL = ('healthy_side_hypoperfusion', 'healthy_side_low_flow')
# results of a series, and the checks that concern some of them only; all others concern all
RESULTS = ('core_global', 'core_local', 'hypoperfusion')
_LOCAL = (
    'mirror_distance', 'mirror_similarity', 'mirror_folding', 'unassessable',
    'relative_to_homologue', 'local_median', 'homologues_return', 'homologues_crossing',
    *BILATERAL, 'old_infarct',
)  # fmt: skip
_CORES = (
    'core_missed', 'core_hypodense', 'core_disagreement', 'core_disagreement_share',
    'reference_density', 'reference_median', 'reference_cbf', 'relative_to_flow', 'flow_spread',
    'flow_structure', 'flow_asymmetry',
)  # fmt: skip
_TMAX = (
    'healthy_side_tmax', 'tmax_at_zero', 'tmax_spread', 'tmax_structure', 'peak_per_delay',
    'peak_after_delay', 'hypoperfusion_repeat',
)  # fmt: skip
CONCERNED = {
    **dict.fromkeys(_LOCAL, ('core_local',)),
    **dict.fromkeys(_CORES, ('core_global', 'core_local')),
    **dict.fromkeys(_TMAX, ('hypoperfusion',)),
}


@dataclass(frozen=True)
class Check:
    """One check: its measure, unit, and limits of warning and failure.

    Attributes
    ----------
    name, unit : str
    low, high : tuple of two float, or None
        Limits of warning and of failure, below and above which the figure is bad; infinite if the
        check cannot fail.
    """

    name: str
    unit: str
    low: tuple[float, float] | None = None
    high: tuple[float, float] | None = None


# those of the invariants are derived in `invariants` and measured in decision 0038
CHECKS = (
    Check('displacement_max', 'mm', high=(5.0, 15.0)),
    Check('frames_rejected', 'fraction', high=(0.05, 0.3)),
    Check('noise_raw', 'HU', high=(10.0, 20.0)),
    Check('noise_denoised', 'HU', high=(1.0, 2.0)),
    Check('contrast_to_noise', 'ratio', low=(4.0, 2.0)),
    Check('baseline_frames', 'frames', low=(3.0, 1.0)),
    Check('arrival', 's', high=(20.0, 30.0)),
    Check('scan_after_peak', 's', low=(35.0, 18.0)),
    Check('scan_reserve', 's', low=(0.0, -10.0)),
    Check('vof_end', 'fraction', high=(0.5, 0.8)),
    Check('vof_width', 's', high=(24.0, 40.0)),
    Check('aif_peak', 'HU', low=(80.0, 40.0)),
    Check('aif_width', 's', high=(16.0, 28.0)),
    Check('aif_area', 'ratio', low=(0.5, 0.2), high=(1.1, 1.5)),
    Check('aif_likeness', 'correlation', low=(0.97, -math.inf)),
    Check('aif_explained', 'fraction', low=(0.95, 0.9)),
    Check('aif_over_tissue', 'ratio', low=(10.0, 6.0)),
    Check('aif_before', 'fraction', high=(0.06, 0.12)),
    Check('aif_undershoot', 'fraction', high=(0.1, 0.25)),
    Check('tissue_lag', 's', low=(0.0, -1.0)),
    Check('vof_lag', 's', low=(0.5, -0.5)),
    Check('drift', 'HU', high=(1.0, 3.0)),
    Check('brain_density', 'HU', low=(20.0, 0.0), high=(46.0, 70.0)),
    Check('hyperdense', 'mL', high=(2.0, math.inf)),
    Check('metal', 'mL', high=(0.0, math.inf)),
    Check('mask_outline', 'fraction', high=(0.1, math.inf)),
    Check('contrast_before', 'HU', high=(38.0, math.inf)),
    Check('vein_behind_artery', 'mm', low=(0.0, -math.inf)),
    Check('skull_gap', 'mm', high=(20.0, 90.0)),
    Check('core_missed', 'fraction', high=(0.2, 0.5)),
    Check('coverage', 'mm', low=(50.0, 20.0)),
    Check('coverage_asymmetry', 'fraction', high=(0.1, 0.3)),
    Check('brain_asymmetry', 'fraction', high=(0.1, 0.25)),
    Check('normal_tissue', 'fraction', low=(0.5, 0.25)),
    Check('healthy_side_tmax', 's', high=(4.0, 6.0)),
    Check('tmax_at_zero', 'fraction', high=(0.1, 0.3)),
    Check('reference_density', 'ratio', low=(1.0, 0.0)),
    Check('mirror_distance', 'mm', high=(3.0, 5.0)),
    Check('mirror_similarity', 'correlation', low=(0.6, 0.45)),
    Check('mirror_folding', 'fraction', high=(0.002, 0.01)),
    Check('unassessable', 'fraction', high=(0.1, 0.3)),
    Check('healthy_side_hypoperfusion', 'fraction', high=(0.05, 0.1)),
    Check('healthy_side_low_flow', 'fraction', high=(0.005, 0.03)),
    Check('old_infarct', 'mL', high=(0.5, math.inf)),
    Check('side_confidence', 'ratio', low=(0.1, 0.0)),
    Check('core_disagreement', 'mL', high=(15.0, 50.0)),
    Check('core_disagreement_share', 'fraction', high=(0.5, 0.8)),
    Check('core_hypodense', 'mL', high=(1.0, math.inf)),
    Check('map_likeness', 'correlation', low=(0.65, 0.6)),
    Check('missing_values', 'fraction', high=(0.001, 0.01)),
    Check('values_outside', 'fraction', high=(0.002, 0.01)),
    Check('reference_median', 'ratio', low=(0.98, 0.9), high=(1.02, 1.1)),
    Check('relative_to_flow', 'fraction', high=(0.01, 0.05)),
    Check('flow_volume_time', 'fraction', high=(0.05, 0.2)),
    Check('relative_to_homologue', 'fraction', high=(0.04, 0.08)),
    Check('local_median', 'ratio', low=(0.85, 0.7), high=(1.3, 1.6)),
    Check('reference_cbf', 'mL/100 g/min', low=(20.0, 10.0), high=(150.0, 400.0)),
    Check('reference_mtt', 's', low=(2.5, 1.5), high=(8.0, 14.0)),
    Check('flow_spread', 'ratio', low=(0.3, 0.22), high=(1.0, 2.0)),
    Check('flow_structure', 'fraction', low=(0.06, 0.03)),
    Check('flow_asymmetry', 'fraction', high=(0.25, 0.35)),
    Check('tmax_spread', 's', low=(0.5, 0.2)),
    Check('tmax_structure', 'fraction', low=(0.015, 0.008)),
    Check('peak_per_delay', 'ratio', low=(0.75, 0.6), high=(1.6, 1.9)),
    Check('peak_after_delay', 's', low=(0.5, -0.5), high=(6.0, 9.0)),
    Check('slice_step', 's', high=(1.3, 2.0)),
    Check('frame_order', 'ratio', low=(0.9, 0.7)),
    Check('tissue_unexplained', 'fraction', high=(0.004, 0.006)),
    Check('sector_filled', 'fraction', low=(0.8, 0.65)),
    Check('tissue_of_brain', 'fraction', low=(0.65, 0.45)),
    Check('tissue_outside', 'fraction', high=(0.005, 0.02)),
    Check('side_of_patient', 'fraction', low=(0.9, 0.7)),
    Check('homologues_return', 'mm', high=(3.0, 6.0)),
    Check('homologues_crossing', 'fraction', low=(0.95, 0.8)),
    Check('lesion_outside', 'mL', high=(0.01, 0.1)),
    Check('lesion_agreement', 'ratio', low=(0.99, 0.95)),
    Check('hypoperfusion_repeat', 'ratio', low=(0.8, 0.7)),
)


def checks_of(symmetry):
    """List the checks; those of the mirror registration fail at the limits of withholding.

    Parameters
    ----------
    symmetry : settings.SymmetrySettings

    Returns
    -------
    tuple of Check
    """
    limits = {
        'mirror_distance': symmetry.mirror_most_mm,
        'mirror_similarity': symmetry.map_least_similarity,
        'mirror_folding': symmetry.mirror_most_folding,
    }
    return tuple(
        _fail_at(check, limit) if (limit := limits.get(check.name)) is not None else check
        for check in CHECKS
    )


def _fail_at(check, limit):
    """Move the limit of failure of a check with one limit, and that of warning if it is beyond."""
    if check.low:
        return replace(check, low=(max(check.low[0], limit), limit))
    return replace(check, high=(min(check.high[0], limit), limit))


def judge(check, figure):
    """Grade one figure.

    Parameters
    ----------
    check : Check
    figure : float or None
        None if it does not apply.

    Returns
    -------
    str
        'pass', 'warn', 'fail' or 'n/a'.

    Examples
    --------
    >>> (check,) = (check for check in CHECKS if check.name == 'baseline_frames')
    >>> judge(check, 2.0), judge(check, 8.0), judge(check, None)
    ('warn', 'pass', 'n/a')
    """
    limits = crossed(check, figure)
    if limits is None:
        return 'n/a'
    return STATUS[sum(limits)]


def crossed(check, figure):
    """Return whether a figure is beyond the limits of warning and of failure.

    Parameters
    ----------
    check : Check
    figure : float or None

    Returns
    -------
    tuple of two bool, or None
        None if the figure does not apply.
    """
    if figure is None or not np.isfinite(figure):
        return None
    below, above = check.low or (-np.inf, -np.inf), check.high or (np.inf, np.inf)
    doubtful = figure < below[0] or figure > above[0]
    return doubtful, doubtful and (figure < below[1] or figure > above[1])


def worst(grades):
    """Return the worst grade, ignoring checks that do not apply.

    Examples
    --------
    >>> worst(['pass', 'warn', 'n/a'])
    'warn'
    """
    return max((grade for grade in grades if grade in STATUS), key=STATUS.index, default=STATUS[0])


class Verdict(NamedTuple):
    """The checks of a series reduced to one word.

    Attributes
    ----------
    word : {'usable', 'look first', 'do not use'}
        'do not use' if a failed check concerns the global core or the hypoperfusion; 'look first'
        if it concerns the local core alone, if any check warns, or if no check has a grade.
    doubtful : tuple of str
        Those of `RESULTS` that a failed check concerns.
    deciding : tuple of str
        Names of the checks with the worst grade that decided, in the order of `CHECKS`.
    """

    word: str
    doubtful: tuple[str, ...]
    deciding: tuple[str, ...]


def conclude(grades: Mapping[str, str], withheld: bool = False) -> Verdict:
    """Reduce the grades of all checks to one verdict.

    Parameters
    ----------
    grades : mapping of str to str
        'pass', 'warn', 'fail' or 'n/a' by the name of the check; checks that are not in `CONCERNED`
        concern all results.
    withheld : bool
        Whether there is no local map.

    Returns
    -------
    Verdict

    Examples
    --------
    >>> conclude({'aif_explained': 'pass', 'mirror_distance': 'fail'})
    Verdict(word='look first', doubtful=('core_local',), deciding=('mirror_distance',))
    """
    failed = [name for name, grade in grades.items() if grade == 'fail']
    concerned = {name: CONCERNED.get(name, RESULTS) for name in failed}
    doubtful = tuple(one for one in RESULTS if any(one in ones for ones in concerned.values()))
    grave = [name for name, ones in concerned.items() if set(ones) != {'core_local'}]
    if grave:
        return Verdict('do not use', doubtful, tuple(grave))
    deciding = failed or [name for name, grade in grades.items() if grade == 'warn']
    graded = any(grade in STATUS for grade in grades.values())
    word = 'look first' if deciding or withheld or not graded else 'usable'
    return Verdict(word, doubtful, tuple(deciding))


def healthy_side_share(diseased, tissue_mask, hemisphere, affected):
    """Compute the diseased fraction of the unaffected hemisphere.

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
        Fraction of the tissue of the unaffected hemisphere; NaN if it contains no tissue.
    """
    tissue = tissue_mask & (hemisphere == SIDES[OTHER_SIDE[affected]])
    return float(diseased[tissue].mean()) if tissue.any() else float('nan')


def asymmetry(tissue_mask, hemisphere, mirrored):
    """Compare the tissue of both hemispheres within the slab.

    The slab covers the two sides of a tilted head differently. Tissue is therefore compared only
    where its homologue is also in the slab; the rest is measured separately.

    Parameters
    ----------
    tissue_mask : (X, Y, Z) array of bool
    hemisphere : (X, Y, Z) array
        1 left, 2 right.
    mirrored : (X, Y, Z) array of bool
        Voxels whose homologue is in the slab.

    Returns
    -------
    dict
        ``brain_asymmetry`` and ``coverage_asymmetry``, fractions; NaN if a hemisphere is missing.

    Examples
    --------
    Three voxels left, two right; the homologue of one on the left is outside the slab:

    >>> figures = asymmetry(np.ones(5, bool), np.array([1, 1, 1, 2, 2]), np.arange(5) > 0)
    >>> figures['brain_asymmetry'], round(figures['coverage_asymmetry'], 2)
    (0.0, 0.33)
    """
    both = [tissue_mask & (hemisphere == label) for label in SIDES.values()]
    shared = [float(np.count_nonzero(side & mirrored)) for side in both]
    if not all(shared):
        return dict.fromkeys(('brain_asymmetry', 'coverage_asymmetry'), float('nan'))
    outside = [1 - part / np.count_nonzero(side) for part, side in zip(shared, both, strict=True)]
    return {
        'brain_asymmetry': abs(shared[0] - shared[1]) / (sum(shared) / 2),
        'coverage_asymmetry': float(max(outside)),
    }


def core_figures(core_global_ml, core_local_ml):
    """Compare the cores of both normalizations.

    Parameters
    ----------
    core_global_ml, core_local_ml : float
        mL; NaN if there is none.

    Returns
    -------
    dict
        ``core_disagreement``, mL, and ``core_disagreement_share``, the same as a fraction of the
        larger core; None if neither core reaches 10 mL.

    Examples
    --------
    >>> core_figures(40.0, 10.0), core_figures(4.0, 0.0)['core_disagreement_share']
    ({'core_disagreement': 30.0, 'core_disagreement_share': 0.75}, None)
    """
    difference, larger = abs(core_global_ml - core_local_ml), max(core_global_ml, core_local_ml)
    share = difference / larger if larger >= LEAST_CORE_ML else None
    return {'core_disagreement': difference, 'core_disagreement_share': share}


def curve_figures(times, aif, vof, tissue, noise_denoised, arrival, duration):
    """Measure AIF and VOF, and whether the scan covers the whole bolus.

    Parameters
    ----------
    times, aif, vof, tissue : (T,) arrays
        s and HU; the VOF is NaN if there is none.
    noise_denoised : float or None
        Noise of the denoised tissue curves, HU.
    arrival, duration : float or None
        Arrival of contrast and end of the scan, from the start of the scan, s.

    Returns
    -------
    dict
        Measures by their names in `CHECKS`; those that need a VOF are absent without one. A positive
        ``scan_reserve`` is also absent if the VOF is truncated above half of its peak.
    """
    times, aif = np.asarray(times, dtype=float), np.asarray(aif, dtype=float)
    artery = curve_features(aif[None], times)
    fit = bolus_fit.fit_bolus(aif[None], times)
    before = aif[times < fit.onset[0]]
    after = aif[int(np.argmax(aif)) :]
    figures = {
        'aif_over_tissue': float(artery.peak[0] / np.max(tissue)) if np.max(tissue) > 0 else None,
        'aif_explained': float(fit.explained[0]),
        'aif_before': float(np.sqrt(np.mean(before**2)) / artery.peak[0]) if before.size else None,
        'aif_undershoot': float(max(0.0, -after.min()) / artery.peak[0]),
        'tissue_lag': _rise(tissue, times) - _rise(aif, times),
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
            'vof_lag': float(vein.peak_time[0] - artery.peak_time[0]),
            'aif_area': float(np.trapezoid(aif, times) / np.trapezoid(vof, times)),
        }
        if arrival is not None:
            reserve = float(duration - arrival - VOF_WIDTHS * width)
            # a VOF that ends above half of its peak is wider than measured: a reserve is uncertain
            if reserve < 0 or vof[-1] < 0.5 * np.max(vof):
                figures['scan_reserve'] = reserve
    return figures


def curve_likeness(times, curve, other):
    """Correlate two curves of arteries, after shifting one of them by up to 2 s.

    All arteries of a head carry the same bolus, apart from its height and a delay of a second or two.

    Parameters
    ----------
    times, curve, other : (T,) arrays
        s and HU.

    Returns
    -------
    float
        Largest Pearson correlation.

    Examples
    --------
    >>> times = np.arange(20.0); curve = np.exp(-((times - 8) ** 2) / 8)
    >>> round(curve_likeness(times, 3 * np.roll(curve, 1), curve), 2)
    1.0
    """
    times = np.asarray(times, dtype=float)
    best = -1.0
    for shift in np.arange(-MOST_SHIFT_S, MOST_SHIFT_S + 1e-9, SHIFT_STEP_S):
        common = (times - shift >= times[0]) & (times - shift <= times[-1])
        moved = np.interp(times[common] - shift, times, other)
        own = np.asarray(curve)[common]
        if np.ptp(moved) and np.ptp(own):
            best = max(best, float(np.corrcoef(own, moved)[0, 1]))
    return best


def _rise(curve, times):
    """Return when a curve first reaches a quarter of its peak for good, s."""
    curve = np.asarray(curve, dtype=float)
    top = int(np.argmax(curve))
    level = 0.25 * curve[top]
    low = np.flatnonzero(curve[: top + 1] < level)
    if not low.size:
        return float(times[0])
    last = low[-1]
    share = (level - curve[last]) / (curve[last + 1] - curve[last])
    return float(times[last] + share * (times[last + 1] - times[last]))


def drift_figures(drift):
    """Return the drift of density that was not corrected.

    Parameters
    ----------
    drift : dict or None
        Attributes of `drift.Drift`.

    Returns
    -------
    dict
        ``drift``, HU; None if it could not be measured.
    """
    return {'drift': None if not drift else drift['left_hu']}


def density_figures(reference, brain_mask, voxel_size_mm, vessel_masks=()):
    """Measure the density of brain and of vessels, and the gap in the skull around the brain.

    Parameters
    ----------
    reference : (X, Y, Z) array
        Reference image without contrast, HU.
    brain_mask : (X, Y, Z) array of bool
    voxel_size_mm : (3,) sequence of float
    vessel_masks : sequence of (X, Y, Z) array of bool
        Voxels of AIF and VOF.

    Returns
    -------
    dict
        ``brain_density``, HU; ``contrast_before``, by how much the densest of these vessels is denser
        than brain, HU, None without any; and ``skull_gap``, mm, None for a series without skull.
    """
    if not brain_mask.any():
        return {}
    level = brain.density_levels(reference, brain_mask, voxel_size_mm).brain
    blood = [float(np.median(reference[mask])) for mask in vessel_masks if mask.any()]
    return {
        'brain_density': level,
        'contrast_before': max(blood) - level if blood else None,
        'skull_gap': brain.skull_gap(reference, brain_mask, voxel_size_mm),
    }


def noise_figures(deconvolution, cbf_reference, core_rcbf):
    """Collect the noise, and how much of a core reads as something else because of it.

    Tissue with 15 % of normal flow reads ``core_reading`` in the estimate, with the noise of
    relative CBF. If that is at the threshold, half of the voxels of such a core are above it, as of
    tissue that has the flow of the threshold.

    Parameters
    ----------
    deconvolution : dict
        ``measured`` of `estimation.Maps`.
    cbf_reference : float
        CBF of the global reference, mL/100 g/min.
    core_rcbf : float
        Threshold of the core, fraction.

    Returns
    -------
    dict
        ``noise_raw`` and ``noise_denoised``, HU, and ``core_missed``, the share of the voxels of a core
        that read above the threshold; None if one of them is unknown.

    Examples
    --------
    >>> measured = {'core_reading': 0.2, 'cbf_noise': 5.0}
    >>> round(noise_figures(measured, 50.0, 0.3)['core_missed'], 2)
    0.16
    """
    reading, noise = (deconvolution.get(name) for name in ('core_reading', 'cbf_noise'))
    known = reading is not None and noise is not None and cbf_reference > 0
    missed = None
    if known:
        above = reading - core_rcbf
        missed = float(special.ndtr(above / max(noise / cbf_reference, 1e-6)))
    return {
        'noise_raw': deconvolution.get('noise_raw_hu'),
        'noise_denoised': deconvolution.get('noise_denoised_hu'),
        'core_missed': missed,
    }


def motion_figures(displacement, weights):
    """Measure motion.

    Parameters
    ----------
    displacement : (T,) array
        Displacement relative to the reference frame, mm.
    weights : (T,) array
        0 for rejected frames, whose displacement is meaningless.

    Returns
    -------
    dict
        ``displacement_max`` and ``frames_rejected``.
    """
    rejected = np.asarray(weights) == 0
    # maximum over known values
    usable = np.asarray(displacement, dtype=float)[~rejected]
    known = usable[np.isfinite(usable)]
    return {
        'displacement_max': known.max() if known.size else np.nan,
        'frames_rejected': rejected.mean(),
    }


def map_figures(
    tmax, tissue_mask, hemispheres, voxel_size_mm, normalization, mirror, settings,
    homologue_reference=None, unassessable=None,
):  # fmt: skip
    """Measure maps, coverage, affected side and homologues.

    Parameters
    ----------
    tmax : (X, Y, Z) array
        s.
    tissue_mask : (X, Y, Z) array of bool
    hemispheres : (X, Y, Z) array
        1 left, 2 right.
    voxel_size_mm : (3,) sequence of float
    normalization, mirror : dict
        ``measured`` of `GlobalNormalization` and of `MirrorRegistration`.
    settings : MethodSettings
        Uses the branch ``lesion``.
    homologue_reference : (X, Y, Z) array, optional
        The mirrored reference, registered to the reference, HU.
    unassessable : (X, Y, Z) array of bool, optional
        None if local maps are withheld.

    Returns
    -------
    dict
    """
    figures, affected = {}, normalization['affected_side']
    if homologue_reference is not None and not mirror['withheld']:
        figures |= asymmetry(tissue_mask, hemispheres, homologue_reference > OUTSIDE_HU)
    figures['healthy_side_hypoperfusion'] = healthy_side_share(
        tmax > settings.lesion.hypoperfusion_tmax, tissue_mask, hemispheres, affected
    )
    slices = np.count_nonzero(tissue_mask.any(axis=(0, 1)))
    return figures | {
        'coverage': slices * voxel_size_mm[2],
        'normal_tissue': normalization['normal_share'],
        'mirror_distance': mirror.get('mirror_distance_mm'),
        # lesions lower it; where a distance is known it adds nothing
        'mirror_similarity': None
        if 'mirror_distance_mm' in mirror
        else mirror['mirror_similarity'],
        'mirror_folding': mirror['mirror_folding'],
        'unassessable': None if unassessable is None else unassessable.sum() / tissue_mask.sum(),
        'side_confidence': normalization['side_confidence'],
        'tmax_at_zero': (tmax[tissue_mask] == 0).mean(),
        'healthy_side_tmax': normalization[f'tmax_{OTHER_SIDE[affected]}_s'],
    }
