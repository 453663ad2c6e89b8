# SPDX-License-Identifier: Apache-2.0
"""The bolus: arrival of contrast, baseline before it, and enhancement above baseline."""

import numpy as np
from scipy import ndimage

from ctpprep.exceptions import BolusError
from ctpprep.perfusion import bolus_fit, vessels

# densities of blood and tissue before contrast, relative to brain, HU
SOFT_RANGE_HU = (-55.0, 80.0)
# a vessel rises by at least this many times the noise, and this many times the damage by motion
LEAST_SNR, LEAST_OVER_DAMAGE = 4.0, 5.0
# fraction of voxels that is fitted, and least number of them that must be shaped like a bolus
FITTED_SHARE, LEAST_VOXELS = 0.03, 12
# least fraction of a curve that a bolus explains: 0.96 and more in arteries, 0.75 and less in bone
LEAST_EXPLAINED = 0.85
# the earliest of the higher half are arteries: quantile of the onset, and its range, s
EARLY_QUANTILE, SAME_ONSET_S = 0.05, 1.0
# contrast has arrived when the arteries reach this fraction of their peak
ARRIVAL_SHARE = 0.08


def first_pass(ctp, mask, weights, times, damage=None):
    """Average the curves of the arteries: the earliest of the curves that are shaped like a bolus.

    Parameters
    ----------
    ctp : (X, Y, Z, T) array
        Corrected series, HU.
    mask : (X, Y, Z) array of bool
        Voxels to search: soft tissue and vessels inside the skull.
    weights : (T,) array
        0 for rejected frames.
    times : (T,) array
        Frame times, s.
    damage : (X, Y, Z) array, optional
        Change of each voxel by motion, HU.

    Returns
    -------
    (T,) array
        Median HU curve; rejected frames are interpolated. The mean curve of all voxels if fewer than
        12 voxels are shaped like a bolus: brain enhances less than vessels, but has less noise.

    Raises
    ------
    BolusError
        If the mean curve is not shaped like a bolus, either, or if the mask is empty.
    """
    if not mask.any():
        raise BolusError(
            'no contrast bolus: 0 voxels inside the skull are in the field of view of every usable frame, '
            'need at least one; check coverage and motion, or supply a --brain-mask'
        )
    times = np.asarray(times, dtype=float)
    curves = np.asarray(ctp[mask], dtype=np.float32)
    good = np.asarray(weights) > 0
    frames = np.arange(len(good))
    usable = curves[:, good]
    noise = 1.4826 / np.sqrt(2) * float(np.median(np.abs(np.diff(usable, axis=1))))
    # three-frame means, so that a single noisy frame does not select a voxel
    smooth = ndimage.uniform_filter1d(usable, 3, axis=-1, mode='nearest')
    third = max(1, smooth.shape[1] // 3)
    start = np.median(smooth[:, :third], axis=-1)
    rise = smooth.max(axis=-1) - start
    changed = 0.0 if damage is None else damage[mask]
    likely = np.flatnonzero((rise > LEAST_SNR * noise) & (rise > LEAST_OVER_DAMAGE * changed))
    # a wide bolus that the scan cuts explains a late step, so bone that moved in is excluded first
    likely = likely[~vessels.step_like(usable[likely] - start[likely, None])]
    most = max(LEAST_VOXELS, int(FITTED_SHARE * len(curves)))
    likely = likely[np.argsort(rise[likely], kind='stable')[::-1][:most]]
    fit = bolus_fit.fit_bolus(usable[likely], times[good])
    like = (fit.explained > LEAST_EXPLAINED) & (fit.height > LEAST_SNR * noise)
    if np.count_nonzero(like) < LEAST_VOXELS:
        curve = _mean_bolus(usable, times[good], np.count_nonzero(like))
    else:
        onset, height = fit.onset[like], fit.height[like]
        earliest = np.quantile(onset[height >= np.median(height)], EARLY_QUANTILE)
        curve = np.median(usable[likely[like][np.abs(onset - earliest) <= SAME_ONSET_S]], axis=0)
    return np.interp(frames, frames[good], curve)


def _mean_bolus(curves, times, n_like):
    """Return the mean curve if it is shaped like a bolus."""
    mean = curves.mean(axis=0)
    fit = bolus_fit.fit_bolus(mean[None], times)
    if fit.explained[0] < LEAST_EXPLAINED:
        raise BolusError(
            f'no contrast bolus: {n_like} curves have its shape, need {LEAST_VOXELS}, and a bolus '
            f'explains {fit.explained[0]:.0%} of the mean curve, need {LEAST_EXPLAINED:.0%}; check '
            'the times, or supply --bolus-arrival or --aif-file'
        )
    return mean


def is_soft(image, brain_hu):
    """Find voxels with a density that tissue or blood can have before contrast.

    Parameters
    ----------
    image : (...) array
        Without contrast, HU.
    brain_hu : float
        Density of brain in this series, HU.

    Returns
    -------
    (...) array of bool
    """
    low, high = np.add(SOFT_RANGE_HU, brain_hu)
    return (image > low) & (image < high)


def check_baseline(n_baseline, n_frames, arrival_s):
    """Check a bolus arrival given by the user.

    Parameters
    ----------
    n_baseline, n_frames : int
        Frames before that time, and all frames.
    arrival_s : float
        After the start of the scan, s.

    Raises
    ------
    BolusError
        If no frame is before it, or fewer than three are after it.
    """
    if n_baseline < 1 or n_frames - n_baseline < 3:
        raise BolusError(
            f'bolus arrival: {n_baseline} of {n_frames} frames are before {arrival_s:g} s, need at least '
            'one before and three after it; check --bolus-arrival'
        )


def find_arrival(curve, times):
    """Find the frames before contrast arrives.

    Parameters
    ----------
    curve : (T,) array
        First-pass curve of the arteries, HU.
    times : (T,) array
        Frame times, s.

    Returns
    -------
    n_baseline : int
        Number of frames before arrival.
    arrival : float
        Arrival time, s: start of the upslope.

    Raises
    ------
    BolusError
        If the curve does not rise above its noise, or rises before the second frame.

    Examples
    --------
    >>> n, arrival = find_arrival(np.array([40, 40, 40, 80, 240, 120, 60.0]), np.arange(7) * 2.0)
    >>> n, round(arrival, 1)
    (2, 4.8)
    """
    curve = np.asarray(curve, dtype=float)
    times = np.asarray(times, dtype=float)
    peak = int(np.argmax(curve))
    before = curve[: peak + 1]
    # the lowest third of the frames before the peak is certainly baseline
    floor = np.sort(before)[: max(2, len(before) // 3)]
    height = curve[peak] - floor.mean()
    noise = max(np.std(np.diff(curve[: max(3, peak // 2)])) / np.sqrt(2), 0.1)
    if peak < 2 or height < max(10.0, 6 * noise):
        raise BolusError(
            f'no contrast bolus: the vessels rise by {height:.0f} HU at frame {peak}, need at least '
            f'{max(10.0, 6 * noise):.0f} HU after two frames without contrast; check the injection, or '
            'supply --bolus-arrival or --aif-file'
        )
    level = floor.mean() + max(ARRIVAL_SHARE * height, 2.5 * noise)
    rising = peak - int(np.argmax(before[::-1] < level))
    share = (level - curve[rising]) / (curve[rising + 1] - curve[rising])
    arrival = times[rising] + share * (times[rising + 1] - times[rising])
    # the frame just below the level may already contain contrast
    n_baseline = rising + 1 if share > 0.5 else rising
    if n_baseline < 1:
        raise BolusError(
            'no baseline: the first frame already contains contrast, need at least one frame before it '
            'arrives; check the start of the scan, or supply a later --bolus-arrival'
        )
    return n_baseline, float(arrival)


def baseline(ctp, n_baseline, weights):
    """Average the frames before contrast arrives.

    Parameters
    ----------
    ctp : (..., T) array
        Corrected series, HU; NaN where a voxel left the field of view.
    n_baseline : int
        Number of frames before arrival.
    weights : (T,) array
        0 for rejected frames.

    Returns
    -------
    (...) array
        Baseline, HU; NaN where the voxel is missing in all baseline frames.
    """
    use = np.flatnonzero(np.asarray(weights)[:n_baseline] > 0)
    if use.size == 0:
        raise BolusError(
            f'no baseline: all of the first {n_baseline} frames were rejected for motion, need at least '
            'one before contrast arrives; check the series, or lower --motion-reject-similarity'
        )
    # frame by frame: copies of the series take most of the time
    total = np.zeros(ctp.shape[:-1])
    count = np.zeros(ctp.shape[:-1], dtype=np.int16)
    for frame in use:
        values = np.asarray(ctp[..., frame])
        seen = np.isfinite(values)
        total += np.where(seen, values, 0)
        count += seen
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)


def enhancement(ctp, mask, n_baseline, weights):
    """Return the enhancement curves of the voxels of a mask.

    Parameters
    ----------
    ctp : (X, Y, Z, T) array
        Corrected series, HU.
    mask : (X, Y, Z) array of bool
    n_baseline : int
        Number of frames before arrival.
    weights : (T,) array
        0 for rejected frames.

    Returns
    -------
    (V, T) array of float32
        HU above baseline.
    """
    curves = np.asarray(ctp[mask], dtype=np.float32)
    return curves - baseline(curves, n_baseline, weights)[:, None]


def find_missing(ctp, weights):
    """Count the usable frames in which each voxel is outside the field of view.

    Parameters
    ----------
    ctp : (X, Y, Z, T) array
        Corrected series, HU; NaN where a voxel left the field of view.
    weights : (T,) array
        0 for rejected frames.

    Returns
    -------
    (X, Y, Z) array of int
        Number of usable frames in which the voxel is missing.
    """
    missing = np.zeros(ctp.shape[:3], dtype=np.int16)
    for frame in np.flatnonzero(np.asarray(weights) > 0):
        missing += ~np.isfinite(ctp[..., frame])
    return missing


def peak_enhancement(ctp, baseline_hu, mask, weights):
    """Compute the peak enhancement of each voxel, as a mean of three frames.

    Parameters
    ----------
    ctp : (X, Y, Z, T) array
        Corrected series, HU; NaN where a voxel left the field of view.
    baseline_hu : (X, Y, Z) array
        HU.
    mask : (X, Y, Z) array of bool
        Voxels to compute.
    weights : (T,) array
        0 for rejected frames.

    Returns
    -------
    (X, Y, Z) array of float32
        HU; 0 outside the mask.
    """
    curves = ctp[mask][:, np.asarray(weights) > 0]
    # missing frames are set to the baseline
    curves = np.where(np.isfinite(curves), curves, baseline_hu[mask][:, None])
    smooth = ndimage.uniform_filter1d(curves, 3, axis=-1, mode='nearest')
    peak = np.zeros(mask.shape, dtype=np.float32)
    peak[mask] = smooth.max(axis=-1) - baseline_hu[mask]
    return peak
