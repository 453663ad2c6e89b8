# SPDX-License-Identifier: Apache-2.0
"""The bolus: arrival of contrast, baseline before it, and enhancement above baseline."""

import numpy as np
from scipy import ndimage

from ctpprep.exceptions import BolusError

# the fraction of voxels that enhance most represents arteries and veins
VESSEL_SHARE = 0.01
# a vessel is filled at this fraction of its peak; this fraction of vessels, the earliest, are arteries
FILLED_SHARE = 0.3
EARLY_SHARE = 0.15
# contrast has arrived when the arteries reach this fraction of their peak
ARRIVAL_SHARE = 0.08


def first_pass(ctp, mask, weights):
    """Average the curves of the arteries: the earliest of the voxels that enhance most.

    Parameters
    ----------
    ctp : (X, Y, Z, T) array
        Corrected series, HU.
    mask : (X, Y, Z) array of bool
        Voxels to search: inside the skull.
    weights : (T,) array
        0 for rejected frames.

    Returns
    -------
    (T,) array
        Mean HU curve; rejected frames are interpolated.
    """
    curves = np.asarray(ctp[mask], dtype=np.float32)
    good = np.asarray(weights) > 0
    # three-frame means, so that a single noisy frame does not select a voxel
    smooth = ndimage.uniform_filter1d(curves[:, good], 3, axis=-1, mode='nearest')
    third = max(1, smooth.shape[1] // 3)
    start, end = (np.median(part, axis=-1) for part in (smooth[:, :third], smooth[:, -third:]))
    # contrast washes out again; bone that motion moves into the voxel remains
    rise = smooth.max(axis=-1) - np.maximum(start, end)
    chosen = np.flatnonzero(rise >= np.quantile(rise, 1 - VESSEL_SHARE))
    # veins enhance most, but late: the baseline ends when the first artery fills
    filled = smooth[chosen] > (start + FILLED_SHARE * rise)[chosen, None]
    onset = np.argmax(filled, axis=1)
    curve = curves[chosen[onset <= np.quantile(onset, EARLY_SHARE)]].mean(axis=0)
    frames = np.arange(len(good))
    return np.interp(frames, frames[good], curve[good])


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
            f'no contrast bolus: the vessels rise by {height:.0f} HU at frame {peak}, need a rise of at '
            f'least {max(10.0, 6 * noise):.0f} HU after two frames without contrast; check the '
            'injection and the start of the scan'
        )
    level = floor.mean() + max(ARRIVAL_SHARE * height, 2.5 * noise)
    rising = peak - int(np.argmax(before[::-1] < level))
    share = (level - curve[rising]) / (curve[rising + 1] - curve[rising])
    arrival = times[rising] + share * (times[rising + 1] - times[rising])
    # the frame just below the level may already contain contrast
    n_baseline = rising + 1 if share > 0.5 else rising
    if n_baseline < 1:
        raise BolusError(
            'no baseline: the first frame already contains contrast, need at least one frame before '
            'it arrives; check the start of the scan'
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
    frames = np.stack([ctp[..., frame] for frame in use], axis=-1).astype(np.float32)
    seen = np.isfinite(frames)
    count = seen.sum(axis=-1)
    total = np.where(seen, frames, 0).sum(axis=-1)
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
