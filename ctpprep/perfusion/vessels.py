# SPDX-License-Identifier: Apache-2.0
"""The arterial input function (AIF) and the venous output function (VOF), found automatically.

An artery's curve is high, early, narrow and smooth; a sinus fills seconds later, and its area is
nearly free of partial volume.
"""

from dataclasses import dataclass, replace

import numpy as np

from ctpprep.exceptions import VesselError

# arterial candidates peak within this many seconds of the earliest
EARLY_S = 3.0
# no bolus passes faster than this
LEAST_WIDTH_S = 2.5
# height after the bolus, relative to the peak, by which arteries differ
TAIL_SPREAD = 0.05
# correlation of a curve with the shape of a vessel that lends it its height
LEAST_ALIKE = 0.95
# an artery-like curve: peak over noise, peak over tissue
LEAST_SNR = 6.0
LEAST_OVER_TISSUE = 4.0


@dataclass(frozen=True)
class Features:
    """Shape of enhancement curves, one value a curve.

    Attributes
    ----------
    peak : (V,) array
        HU.
    peak_time, arrival, width : (V,) arrays
        s; arrival at a fifth and width at half of the peak.
    area : (V,) array
        HU s.
    roughness : (V,) array
        Mean absolute second difference relative to the peak.
    tail : (V,) array
        Mean of the last fifth of the samples relative to the peak.
    """

    peak: np.ndarray
    peak_time: np.ndarray
    arrival: np.ndarray
    width: np.ndarray
    area: np.ndarray
    roughness: np.ndarray
    tail: np.ndarray


def curve_features(curves, times):
    """Measure the shape of enhancement curves.

    Parameters
    ----------
    curves : (V, T) array
        Enhancement, HU.
    times : (V, T) or (T,) array
        Sample times, s.

    Returns
    -------
    Features

    Examples
    --------
    >>> found = curve_features(np.array([[0.0, 0, 10, 20, 10, 0]]), np.arange(6) * 2.0)
    >>> [round(float(each[0]), 1) for each in (found.peak_time, found.width, found.arrival)]
    [6.0, 4.0, 2.8]
    """
    curves = np.asarray(curves, dtype=float)
    times = np.broadcast_to(np.asarray(times, dtype=float), curves.shape)
    rows = np.arange(len(curves))
    top = np.argmax(curves, axis=1)
    peak = curves[rows, top]
    steps = np.gradient(times, axis=1)
    bend = np.abs(np.diff(curves, 2, axis=1)).mean(axis=1)
    rise, fall = _crossings(curves, times, top, 0.5)
    return Features(
        peak=peak,
        peak_time=times[rows, top],
        arrival=_crossings(curves, times, top, 0.2)[0],
        width=fall - rise,
        area=(curves * steps).sum(axis=1),
        roughness=bend / np.maximum(peak, 1e-6),
        tail=curves[:, -max(1, curves.shape[1] // 5) :].mean(axis=1) / np.maximum(peak, 1e-6),
    )


def _crossings(curves, times, top, share):
    """Return when each curve last rises through and first falls below a share of its peak."""
    rows, frames = np.arange(len(curves)), np.arange(curves.shape[1])
    level = share * curves[rows, top]
    below = curves < level[:, None]
    before = np.where(below & (frames < top[:, None]), frames, 0).max(axis=1)
    after = np.where(below & (frames > top[:, None]), frames, frames[-1]).min(axis=1)

    def between(first, second):
        low, high = curves[rows, first], curves[rows, second]
        share = np.divide(level - low, high - low, out=np.zeros_like(low), where=high != low)
        span = times[rows, second] - times[rows, first]
        return times[rows, first] + np.clip(share, 0, 1) * span

    rising = between(before, np.minimum(before + 1, frames[-1]))
    falling = between(np.maximum(after - 1, 0), after)
    return rising, falling


@dataclass(frozen=True)
class Vessel:
    """A vessel's curve and where it was taken.

    Attributes
    ----------
    curve : (T,) array
        Enhancement, HU.
    times : (T,) array
        True acquisition times of its slices, s.
    voxels : (N,) array of int
        Indices of its voxels among the candidates.
    """

    curve: np.ndarray
    times: np.ndarray
    voxels: np.ndarray


def step_like(curves):
    """Tell curves that jump and stay up: the head moved and bone came in.

    A vessel fills over several frames, or comes down again.

    Parameters
    ----------
    curves : (V, T) array
        Enhancement, HU.

    Returns
    -------
    (V,) array of bool

    Examples
    --------
    >>> step_like(np.array([[0.0, 0, 9, 9, 9], [0, 5, 9, 5, 2], [0, 3, 6, 8, 9]]))
    array([ True, False, False])
    """
    peak = np.maximum(curves.max(axis=1), 1e-6)
    jump = np.diff(curves, axis=1)
    start = np.argmax(jump, axis=1) + 1
    after = np.arange(curves.shape[1]) >= start[:, None]
    level = np.where(after, curves, 0).sum(axis=1) / after.sum(axis=1)
    return (jump.max(axis=1) > 0.5 * peak) & (level > 0.6 * peak)


def smooth_in_time(curves):
    """Average each sample with its neighbours, weights 1 2 1.

    Parameters
    ----------
    curves : (V, T) array

    Returns
    -------
    (V, T) array
    """
    padded = np.pad(curves, [(0, 0), (1, 1)], mode='edge')
    return 0.25 * padded[:, :-2] + 0.5 * padded[:, 1:-1] + 0.25 * padded[:, 2:]


def find_aif(curves, smooth, times, pattern, tissue_peak, noise, *, aif_voxels):
    """Find the arterial input function.

    Parameters
    ----------
    curves : (V, T) array
        Enhancement of the candidates: voxels inside the skull, usable frames, HU.
    smooth : (V, T) array
        The same, smoothed through plane as well: by these the voxels are chosen. A vessel that lies
        across thick slices keeps its height there when the head moves; one that runs along a slice
        does not, and would be chosen for standing high before the movement.
    times : (G, T) array
        Sampling patterns, s.
    pattern : (V,) array of int
        Sampling pattern of each candidate.
    tissue_peak : float
        Median peak enhancement of tissue, HU.
    noise : float
        Noise of a single smooth curve, HU.
    aif_voxels : int
        Number of voxels averaged.

    Returns
    -------
    Vessel

    Raises
    ------
    VesselError
        If no curve is artery-like: a tissue curve is never taken instead.
    """
    features = curve_features(smooth_in_time(smooth), times[pattern])
    least = max(LEAST_SNR * noise, LEAST_OVER_TISSUE * tissue_peak)
    scan_end = times[pattern][:, -1]
    first = times[pattern][:, 0]
    falls = (features.width < 14.0) & (features.peak_time < scan_end - 3)
    # what is bright from the first frame, or in one frame only, is no passing bolus
    falls &= (features.arrival > first) & (features.width > LEAST_WIDTH_S)
    like = (features.peak > least) & falls & ~step_like(smooth)
    if like.sum() < 3:
        raise VesselError(
            f'no artery-like curve: {like.sum()} voxels rise by more than {least:.0f} HU and fall '
            'again within the scan, at least 3 are needed'
        )
    strong = like & (features.peak >= np.quantile(features.peak[like], 0.5))
    earliest = np.quantile(features.arrival[strong], 0.05)
    late = np.maximum(features.arrival - earliest, 0)
    early = like & (late < EARLY_S)
    # a head that moves lifts or lowers a curve from then on: after the bolus arteries are alike
    odd = (features.tail - np.median(features.tail[early])) / TAIL_SPREAD
    # in a short scan what is left of the bolus would tell arrival, not motion
    passed = np.median(features.peak_time[early]) + 1.5 * np.median(features.width[early])
    n_tail = max(1, times.shape[1] // 5)
    odd = odd if times[:, -n_tail].min() > passed else np.zeros_like(odd)
    score = np.where(
        early,
        features.peak
        / np.maximum(features.width, 0.1)
        * np.exp(-0.5 * (late**2 + odd**2))
        / (1 + 5 * features.roughness),
        0.0,
    )
    return _average_best(curves, smooth, times, pattern, score, aif_voxels)


def find_vof(curves, smooth, times, pattern, aif, *, aif_voxels):
    """Find the venous output function: the largest area that fills after the arteries.

    Parameters
    ----------
    curves, smooth, times, pattern : arrays
        As for `find_aif`.
    aif : Vessel
        The arterial input function.
    aif_voxels : int
        Number of voxels averaged.

    Returns
    -------
    Vessel

    Raises
    ------
    VesselError
        If no large curve follows the AIF.
    """
    features = curve_features(smooth_in_time(smooth), times[pattern])
    artery = curve_features(smooth_in_time(aif.curve[None]), aif.times)
    after = features.arrival > artery.arrival[0] + 1.5
    # the vein drains what the artery brought: less than a third of its area is tissue
    large = (features.area > artery.area[0] / 3) & (features.peak > artery.peak[0] / 5)
    like = after & large & ~step_like(smooth)
    if like.sum() < 3:
        raise VesselError(
            f'no vein-like curve: {like.sum()} voxels fill after the artery with a third of its '
            'area, at least 3 are needed'
        )
    area = np.where(like, features.area, 0.0)
    return _average_best(curves, smooth, times, pattern, area, aif_voxels)


def _average_best(curves, smooth, times, pattern, score, n_voxels):
    """Average the best candidates of one sampling pattern that agree with one another."""
    best = [np.sort(score[pattern == group])[-n_voxels:].sum() for group in range(len(times))]
    group = int(np.argmax(best))
    ranked = np.argsort(np.where(pattern == group, score, 0.0), kind='stable')[::-1]
    pool = ranked[: 3 * n_voxels]
    # never fewer than three, but none that is not a candidate at all
    worthy = score[pool] > 0.5 * score[ranked[0]]
    worthy[:3] = score[pool[:3]] > 0
    pool = pool[worthy]
    shapes = smooth[pool] / np.linalg.norm(smooth[pool], axis=1, keepdims=True)
    agreement = shapes @ np.median(shapes, axis=0)
    voxels = np.sort(pool[np.argsort(agreement, kind='stable')[::-1][:n_voxels]])
    return Vessel(curves[voxels].mean(axis=0), times[group], voxels)


def restore_height(vessel, curves):
    """Give a vessel's curve the height that vessels of its shape have without smoothing.

    Smoothing takes noise from the shape, and spreads the vessel over its neighbours; and the voxels
    with the truest shape are not those with the least partial volume. A low AIF makes flow and
    volume read too high.

    Parameters
    ----------
    vessel : Vessel
        With the curve of smoothed candidates.
    curves : (V, T) array
        Candidates of the same sampling pattern that are not smoothed, HU.

    Returns
    -------
    Vessel
        The same shape, as high as the mean of as many voxels as it has: those which the shape fits
        (r >= 0.95) with the greatest height. Without so many its own height stays.

    Examples
    --------
    >>> low = Vessel(np.array([0.0, 2, 1]), np.arange(3.0), np.array([1]))
    >>> restore_height(low, np.array([[9.0, 9, 9], [0, 4, 2], [0, 8, 4]])).curve
    array([0., 8., 4.])
    """
    curves = np.asarray(curves, dtype=float)
    shape = vessel.curve - vessel.curve.mean()
    centred = curves - curves.mean(axis=1, keepdims=True)
    product = centred @ shape
    alike = product >= LEAST_ALIKE * np.linalg.norm(shape) * np.linalg.norm(centred, axis=1)
    alike &= product > 0
    if alike.sum() < max(1, len(vessel.voxels)):
        return vessel
    heights = np.sort(product[alike] / (shape @ shape))
    return replace(vessel, curve=vessel.curve * heights[-max(1, len(vessel.voxels)) :].mean())


def scale_to_vof(aif, aif_area, vof_area):
    """Scale the AIF to the area of the VOF, against partial volume.

    Parameters
    ----------
    aif : (T,) array
        HU.
    aif_area, vof_area : float
        Areas over the scan, HU s.

    Returns
    -------
    (T,) array
        HU; never smaller than before: a larger artery has no partial volume to correct.

    Notes
    -----
    Disputed: in most patients the carotid's area is larger than the sinus's.

    Examples
    --------
    >>> scale_to_vof(np.array([0.0, 10.0]), 100.0, 150.0)
    array([ 0., 15.])
    """
    return np.asarray(aif) * max(1.0, vof_area / aif_area)
