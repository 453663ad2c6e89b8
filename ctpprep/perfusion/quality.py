# SPDX-License-Identifier: Apache-2.0
"""Automated quality control: measures and limits."""

from dataclasses import dataclass, replace

import numpy as np

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
# checks that, if not passed, mean that there is no healthy side for comparison
BILATERAL = ('healthy_side_hypoperfusion', 'healthy_side_low_flow')


@dataclass(frozen=True)
class Check:
    """One check: its measure, unit, and limits of warning and failure.

    Attributes
    ----------
    name, unit : str
    warn, fail : float
        Limits: upper ones, or lower ones with `low_is_bad`.
    low_is_bad : bool
    """

    name: str
    unit: str
    warn: float
    fail: float
    low_is_bad: bool


CHECKS = (
    Check('displacement_max', 'mm', 5.0, 15.0, False),
    Check('frames_rejected', 'fraction', 0.05, 0.3, False),
    Check('noise_raw', 'HU', 10.0, 20.0, False),
    Check('noise_denoised', 'HU', 1.0, 2.0, False),
    Check('contrast_to_noise', 'ratio', 4.0, 2.0, True),
    Check('baseline_frames', 'frames', 3.0, 1.0, True),
    Check('arrival', 's', 20.0, 30.0, False),
    Check('scan_after_peak', 's', 35.0, 18.0, True),
    Check('scan_reserve', 's', 0.0, -10.0, True),
    Check('vof_end', 'fraction', 0.5, 0.8, False),
    Check('vof_width', 's', 24.0, 40.0, False),
    Check('aif_peak', 'HU', 80.0, 40.0, True),
    Check('aif_width', 's', 16.0, 28.0, False),
    Check('aif_area', 'ratio', 0.5, 0.2, True),
    Check('aif_explained', 'fraction', 0.95, 0.9, True),
    Check('aif_over_tissue', 'ratio', 10.0, 6.0, True),
    Check('aif_before', 'fraction', 0.06, 0.12, False),
    Check('aif_undershoot', 'fraction', 0.1, 0.25, False),
    Check('tissue_lag', 's', 0.0, -1.0, True),
    Check('vof_lag', 's', 0.5, -0.5, True),
    Check('drift', 'HU', 1.0, 3.0, False),
    Check('brain_density', 'HU', 20.0, 0.0, True),
    Check('brain_density_high', 'HU', 46.0, 70.0, False),
    Check('skull_gap', 'mm', 20.0, 90.0, False),
    Check('core_floor', 'ratio', 0.27, 0.3, False),
    Check('coverage', 'mm', 50.0, 20.0, True),
    Check('coverage_asymmetry', 'fraction', 0.1, 0.3, False),
    Check('brain_asymmetry', 'fraction', 0.1, 0.25, False),
    Check('normal_tissue', 'fraction', 0.5, 0.25, True),
    Check('healthy_side_tmax', 's', 4.0, 6.0, False),
    Check('tmax_at_zero', 'fraction', 0.1, 0.3, False),
    Check('reference_density', 'ratio', 1.0, 0.0, True),
    Check('mirror_distance', 'mm', 3.0, 5.0, False),
    Check('mirror_similarity', 'correlation', 0.6, 0.45, True),
    Check('mirror_folding', 'fraction', 0.002, 0.01, False),
    Check('unassessable', 'fraction', 0.1, 0.3, False),
    Check('healthy_side_hypoperfusion', 'fraction', 0.05, 0.1, False),
    Check('healthy_side_low_flow', 'fraction', 0.005, 0.01, False),
    Check('side_confidence', 'ratio', 0.1, 0.0, True),
    Check('core_disagreement', 'mL', 15.0, 50.0, False),
    Check('core_disagreement_share', 'fraction', 0.5, 0.8, False),
    Check('core_hypodense', 'mL', 1.0, 10.0, False),
)  # fmt: skip


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
    if figure is None or not np.isfinite(figure):
        return 'n/a'
    sign = -1.0 if check.low_is_bad else 1.0
    doubtful = sign * figure > sign * check.warn
    failed = sign * figure > sign * check.fail
    return STATUS[int(doubtful) + int(doubtful and failed)]


def worst(grades):
    """Return the worst grade, ignoring checks that do not apply.

    Examples
    --------
    >>> worst(['pass', 'warn', 'n/a'])
    'warn'
    """
    return max((grade for grade in grades if grade in STATUS), key=STATUS.index, default=STATUS[0])


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


def density_figures(reference, brain_mask, voxel_size_mm):
    """Measure the density of brain and the gap in the skull around it.

    Parameters
    ----------
    reference : (X, Y, Z) array
        Reference image without contrast, HU.
    brain_mask : (X, Y, Z) array of bool
    voxel_size_mm : (3,) sequence of float

    Returns
    -------
    dict
        ``brain_density`` and ``brain_density_high``, HU; ``skull_gap``, mm, None for a series without
        skull.
    """
    if not brain_mask.any():
        return {}
    level = brain.density_levels(reference, brain_mask, voxel_size_mm).brain
    return {
        'brain_density': level,
        'brain_density_high': level,
        'skull_gap': brain.skull_gap(reference, brain_mask, voxel_size_mm),
    }


def noise_figures(deconvolution, cbf_reference):
    """Collect the noise, and what a core reads in spite of noise and regularization.

    Parameters
    ----------
    deconvolution : dict
        ``measured`` of `estimation.Maps`.
    cbf_reference : float
        CBF of the global reference, mL/100 g/min.

    Returns
    -------
    dict
        ``noise_raw`` and ``noise_denoised``, HU, and ``core_floor``: the relative flow that tissue with
        15 % of normal flow reads after regularization, plus one standard deviation of noise; None if
        one of them is unknown.
    """
    reading, noise = (deconvolution.get(name) for name in ('core_reading', 'cbf_noise'))
    known = reading is not None and noise is not None and cbf_reference > 0
    return {
        'noise_raw': deconvolution.get('noise_raw_hu'),
        'noise_denoised': deconvolution.get('noise_denoised_hu'),
        'core_floor': reading + noise / cbf_reference if known else None,
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
    tmax, rcbf_global, tissue_mask, hemispheres, voxel_size_mm, normalization, mirror, settings,
    homologue_reference=None, unassessable=None,
):  # fmt: skip
    """Measure maps, coverage, affected side and homologues.

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
