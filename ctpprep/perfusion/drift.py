# SPDX-License-Identifier: Apache-2.0
"""Drift of density over the scan, measured where or while nothing enhances: air, bone, early brain."""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from ctpprep.exceptions import PerfusionError
from ctpprep.perfusion import bolus_fit, brain

# air around the head: density, HU, and distance from the head, mm; scanners pad with constants
AIR_HU, AIR_DISTANCE_MM = (-1020.0, -900.0), 10.0
# density of bone, HU
BONE_HU = 300.0
# distance of brain from bone, mm; least number of frames before contrast, and their distance from its
# onset, s
BRAIN_DEPTH_MM, LEAST_FRAMES, BEFORE_ONSET_S = 8.0, 4, 1.5
# least number of voxels of a material
LEAST_VOXELS = 100
# drift is corrected from this amount, HU, if the early drift of brain is this fraction of that of air or
# bone, or differs by at most this amount, HU
LEAST_DRIFT_HU, BRAIN_SHARE, MOST_DIFFERENCE_HU = 0.5, (0.4, 2.0), 0.8


@dataclass(frozen=True)
class Drift:
    """Drift of density from the start to the end of the scan.

    Attributes
    ----------
    materials : dict of str to float
        Drift of ``air``; of ``brain`` in the frames before contrast, extrapolated to the whole scan;
        and of ``bone``, whose mean density motion would change, if no frame was resampled; HU.
    corrected_hu : float
        Drift that is to be subtracted; 0 if it is too small or if the materials disagree.
    left_hu : float or None
        Largest drift that was not subtracted, HU, of brain the part that is certain; None if no material
        could be measured.
    """

    materials: dict[str, float]
    corrected_hu: float
    left_hu: float | None


def measure_drift(ctp, times, weights, voxel_size_mm, bone_hu, resampled, acquired=None):
    """Measure the drift of a corrected series.

    Parameters
    ----------
    ctp : (X, Y, Z, T) array
        Corrected series, HU; NaN where a voxel is outside the field of view.
    times : (T,) array
        Frame times, s.
    weights : (T,) array
        0 for rejected frames.
    voxel_size_mm : (3,) sequence of float
    bone_hu : float
        Density above which a voxel is bone, for the region inside the skull, HU.
    resampled : bool
        Whether the head moved.
    acquired : (X, Y, Z, T) array, optional
        Series before motion correction, in which air is measured; `ctp` by default. Head holder and
        padding stay with the scanner, so that motion correction moves them into the air, whose mean
        density then changes.

    Returns
    -------
    Drift
        The drift is the slope of a robust line through the mean density of a material, times the
        duration of the scan. The drift of air (else bone) is corrected if brain drifts alike before
        contrast arrives.
    """
    usable = np.flatnonzero(np.asarray(weights) > 0)
    times, duration = np.asarray(times)[usable], float(np.ptp(times))
    image = _first_image(ctp, usable)
    still = ctp if acquired is None else acquired
    air = _find_air(still, usable, voxel_size_mm)
    materials = {'air': _slope(times, _mean_curve(still, air, usable))}
    if not resampled:
        materials['bone'] = _slope(times, _mean_curve(ctp, image > BONE_HU, usable))
    materials['brain'], certain = _early_slope(
        times, _mean_curve(ctp, _deep_brain(image, voxel_size_mm, bone_hu), usable)
    )
    materials = {name: slope * duration for name, slope in materials.items() if slope is not None}
    confirmed = _confirmed(materials)
    corrected = confirmed if confirmed is not None and abs(confirmed) >= LEAST_DRIFT_HU else 0.0
    # a few frames before contrast determine little of the whole scan: of brain, the certain part
    left = (
        max(map(abs, (materials | {'brain': certain * duration}).values())) if materials else None
    )
    if confirmed is not None:
        left = abs(confirmed - corrected)
    return Drift({name: round(drift, 3) for name, drift in materials.items()}, corrected, left)


def subtract_drift(ctp, times, drift_hu):
    """Subtract a linear drift from a series in place.

    Parameters
    ----------
    ctp : (X, Y, Z, T) array of float32
        HU.
    times : (T,) array
        s.
    drift_hu : float
        From the start to the end of the scan, HU.
    """
    share = (np.asarray(times) - times[0]) / np.ptp(times)
    for frame, part in enumerate(share):
        ctp[..., frame] -= np.float32(part * drift_hu)


def _first_image(ctp, usable):
    mean = np.mean([ctp[..., frame] for frame in usable[:3]], axis=0)
    return np.nan_to_num(mean, nan=-1024.0).astype(np.float32)


def _find_air(ctp, usable, voxel_size_mm):
    """Find air far from the head, into which nothing moves during the scan."""
    image = _first_image(ctp, usable)
    distance = brain.distance_in_plane(image < -200, voxel_size_mm)
    air = (image > AIR_HU[0]) & (image < AIR_HU[1]) & (distance > AIR_DISTANCE_MM)
    for frame in usable:
        air &= ~(ctp[..., frame] > AIR_HU[1])
    return air


def _deep_brain(image, voxel_size_mm, bone_hu):
    try:
        inside = brain.inside_skull(image, voxel_size_mm, bone_hu)
    except PerfusionError:
        return np.zeros(image.shape, dtype=bool)
    return inside & (brain.distance_in_plane(inside, voxel_size_mm) > BRAIN_DEPTH_MM)


def _mean_curve(ctp, mask, usable):
    """Return the mean density of a material in the usable frames; None if there is too little."""
    curves = np.stack([ctp[..., frame][mask] for frame in usable]).astype(np.float32, copy=False)
    # constants are padding; NaN is outside the field of view
    kept = np.ptp(curves, axis=0) > 0
    if np.count_nonzero(kept) < LEAST_VOXELS:
        return None
    return curves[:, kept].mean(axis=1, dtype=float)


def _slope(times, curve):
    """Return the Theil-Sen slope, which single frames cannot change; None without a curve."""
    if curve is None:
        return None
    first, second = np.triu_indices(len(times), 1)
    return float(np.median((curve[second] - curve[first]) / (times[second] - times[first])))


def _early_slope(times, curve):
    """Return the slope before contrast, and the part of it that is certain.

    That is the end of the 95 % interval of the slope that is nearer to 0, or 0 if the interval
    contains 0. With too few frames, the slope is None.
    """
    if curve is None:
        return None, 0.0
    onset = bolus_fit.fit_bolus(curve[None], times).onset[0]
    early = times < onset - BEFORE_ONSET_S
    if early.sum() < LEAST_FRAMES:
        return None, 0.0
    line = stats.theilslopes(curve[early], times[early], 0.95)
    certain = max(line.low_slope, 0.0) + min(line.high_slope, 0.0)
    return float(line.slope), float(certain)


def _confirmed(materials):
    """Return the drift of air or bone over the whole scan, if brain also shows it before contrast."""
    known = [materials[name] for name in ('air', 'bone') if name in materials]
    if not known or 'brain' not in materials:
        return None
    drift, early = known[0], materials['brain']
    low, high = sorted(share * drift for share in BRAIN_SHARE)
    agree = low <= early <= high or abs(early - drift) <= MOST_DIFFERENCE_HU
    return drift if agree else None
