# SPDX-License-Identifier: Apache-2.0
"""The arterial input function (AIF) and the venous output function (VOF), found automatically.

The curve of an artery is high, early, narrow and smooth. A sinus fills seconds later, and its area is
hardly affected by partial volume.
"""

from dataclasses import dataclass, replace

import numpy as np

from ctpprep.exceptions import VesselError
from ctpprep.perfusion import bolus_fit

# arterial candidates arrive within this time of the earliest, s
EARLY_S = 3.0
# least width of a bolus, s
LEAST_WIDTH_S = 2.5
# spread of arteries in height after the bolus, relative to the peak
TAIL_SPREAD = 0.05
# least correlation with the shape of a vessel for a curve to determine its height
LEAST_ALIKE = 0.95
# artery-like curve: least peak relative to noise and relative to tissue
LEAST_SNR = 6.0
LEAST_OVER_TISSUE = 4.0
# largest width of a bolus: the widest of 93 clinical ones was 27.7 s, and smoothing widens it, s
MOST_WIDTH_S = 34.0
# least fraction of the curve of a vessel that a bolus explains, and a fraction that leaves no doubt
LEAST_EXPLAINED, SURELY_EXPLAINED = 0.88, 0.98
# least number of candidates
LEAST_CANDIDATES = 3
# a vessel rises by at least this many times the change that motion causes in its voxel
LEAST_OVER_DAMAGE = 5.0


@dataclass(frozen=True)
class Features:
    """Shape of enhancement curves, one value per curve.

    Attributes
    ----------
    peak : (V,) array
        HU.
    peak_time, arrival, width : (V,) arrays
        s; arrival at a fifth of the peak, width at half of it.
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
    >>> shape = curve_features(np.array([[0.0, 0, 10, 20, 10, 0]]), np.arange(6) * 2.0)
    >>> [round(float(time[0]), 1) for time in (shape.peak_time, shape.width, shape.arrival)]
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
    """Return when each curve last rises above and first falls below a fraction of its peak."""
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
class Tissue:
    """The mean tissue curve, with which arteries are compared.

    Attributes
    ----------
    peak : float
        Median peak enhancement of tissue, HU.
    arrival : float
        Time at which mean tissue reaches a fifth of its peak, s.
    """

    peak: float
    arrival: float


@dataclass(frozen=True)
class Vessel:
    """The curve of a vessel, with its times and voxels.

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
    """Find curves that jump and remain high because the head moved and bone entered the voxel.

    A vessel fills over several frames, or its curve falls again.

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


def find_aif(
    curves, smooth, times, pattern, tissue, noise, *, aif_voxels, damage=0.0
):  # fmt: skip
    """Find the arterial input function.

    Parameters
    ----------
    curves : (V, T) array
        Enhancement of the candidates (voxels inside the skull) in usable frames, HU.
    smooth : (V, T) array
        The same, also smoothed through plane: the voxels are selected by these curves. When the head
        moves, a vessel that crosses thick slices keeps its height. A vessel within a slice does not,
        and without this smoothing could be selected for its height before the motion.
    times : (G, T) array
        Sampling patterns, s.
    pattern : (V,) array of int
        Sampling pattern of each candidate.
    tissue : Tissue
    noise : float
        Noise of a single smoothed curve, HU.
    aif_voxels : int
        Number of voxels averaged.
    damage : (V,) array
        Change of each candidate by motion, HU; infinite for candidates that are not soft tissue.

    Returns
    -------
    Vessel

    Raises
    ------
    VesselError
        If no curve is artery-like; a tissue curve is never used instead.
    """
    features = curve_features(smooth_in_time(smooth), times[pattern])
    least = max(LEAST_SNR * noise, LEAST_OVER_TISSUE * tissue.peak)
    scan_end = times[pattern][:, -1]
    first = times[pattern][:, 0]
    falls = (features.width < MOST_WIDTH_S) & (features.peak_time < scan_end - 3)
    # a curve that is high from the first frame, or in a single frame, is not a bolus
    falls &= (features.arrival > first) & (features.width > LEAST_WIDTH_S)
    like = (features.peak > least) & falls & ~step_like(smooth)
    explained = explained_by_bolus(
        smooth, times, pattern, like & _undamaged(features, damage), noise
    )
    high, like = like, like & (explained > LEAST_EXPLAINED)
    if like.sum() < LEAST_CANDIDATES:
        raise VesselError(
            f'no artery-like curve for the AIF: {high.sum()} voxels rise by {least:.0f} HU and fall again, '
            f'{like.sum()} like a bolus, need at least {LEAST_CANDIDATES}; check the bolus, or supply '
            '--aif-file'
        )
    # blood reaches arteries before tissue, and veins after it: where the slab shows few arteries, veins
    # are the majority
    first_filled = like & (features.arrival < tissue.arrival)
    like = first_filled if first_filled.sum() >= LEAST_CANDIDATES else like
    strong = like & (features.peak >= np.quantile(features.peak[like], 0.5))
    earliest = np.quantile(features.arrival[strong], 0.05)
    late = np.maximum(features.arrival - earliest, 0)
    early = like & (late < EARLY_S)
    # motion shifts all later samples of a curve; after the bolus, arteries have similar heights
    odd = (features.tail - np.median(features.tail[early])) / TAIL_SPREAD
    # in a short scan, the remainder of the bolus reflects the time of arrival, not motion
    passed = np.median(features.peak_time[early]) + 1.5 * np.median(features.width[early])
    n_tail = max(1, times.shape[1] // 5)
    odd = odd if times[:, -n_tail].min() > passed else np.zeros_like(odd)
    score = np.where(
        early,
        features.peak
        / np.maximum(features.width, 0.1)
        * np.exp(-0.5 * (late**2 + odd**2))
        / (1 + 5 * features.roughness)
        * _certainty(explained),
        0.0,
    )
    return _average_best(curves, smooth, times, pattern, score, aif_voxels)


def explained_by_bolus(curves, times, pattern, candidates, noise=0.0):
    """Compute the fraction of each curve, apart from its noise, that a bolus explains.

    Parameters
    ----------
    curves : (V, T) array
        HU.
    times : (G, T) array
        Sampling patterns, s.
    pattern : (V,) array of int
    candidates : (V,) array of bool
        Curves that are fitted.
    noise : float
        Noise of a single curve, HU.

    Returns
    -------
    (V,) array
        0 for curves that are not fitted.
    """
    explained = np.zeros(len(curves))
    for group in range(len(times)):
        rows = np.flatnonzero(candidates & (pattern == group))
        if rows.size:
            fitted = bolus_fit.fit_bolus(curves[rows], times[group]).explained
            spread = np.var(curves[rows], axis=1)
            left = np.maximum((1 - fitted) * spread - noise**2, 0)
            explained[rows] = 1 - left / np.maximum(spread - noise**2, 1e-6)
    return np.clip(explained, 0, 1)


def _undamaged(features, damage):
    return features.peak > LEAST_OVER_DAMAGE * np.asarray(damage)


def find_vof(curves, smooth, times, pattern, aif, *, aif_voxels, noise=0.0, damage=0.0):
    """Find the venous output function: the largest area that fills after the arteries.

    Parameters
    ----------
    curves, smooth, times, pattern : arrays
        As for `find_aif`.
    aif : Vessel
        The arterial input function.
    aif_voxels : int
        Number of voxels averaged.
    noise : float
        Noise of a single smoothed curve, HU.
    damage : (V,) array
        As for `find_aif`.

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
    # a vein drains the arterial bolus, so a curve with less than a third of its area is tissue
    large = (features.area > artery.area[0] / 3) & (features.peak > artery.peak[0] / 5)
    like = after & large & ~step_like(smooth) & _undamaged(features, damage)
    explained = explained_by_bolus(smooth, times, pattern, like, noise)
    like &= explained > LEAST_EXPLAINED
    if like.sum() < 3:
        raise VesselError(
            f'no vein-like curve for the VOF: {like.sum()} voxels enhance late with a third of the AIF area, '
            'need at least 3; check the bolus, or supply vof in --aif-file'
        )
    # motion that brings more of a sinus into a voxel makes its area large, but its shape odd
    score = np.where(like, features.area * _certainty(explained), 0.0)
    return _average_best(curves, smooth, times, pattern, score, aif_voxels)


def _certainty(explained):
    """Return a weight from the fraction of a curve that a bolus explains."""
    share = (explained - LEAST_EXPLAINED) / (SURELY_EXPLAINED - LEAST_EXPLAINED)
    return np.clip(share, 0.05, 1.0)


def _average_best(curves, smooth, times, pattern, score, n_voxels):
    """Average the best candidates of one sampling pattern that agree with one another."""
    best = [np.sort(score[pattern == group])[-n_voxels:].sum() for group in range(len(times))]
    group = int(np.argmax(best))
    ranked = np.argsort(np.where(pattern == group, score, 0.0), kind='stable')[::-1]
    pool = ranked[: 3 * n_voxels]
    # at least three, but only candidates
    worthy = score[pool] > 0.5 * score[ranked[0]]
    worthy[:3] = score[pool[:3]] > 0
    pool = pool[worthy]
    shapes = smooth[pool] / np.linalg.norm(smooth[pool], axis=1, keepdims=True)
    agreement = shapes @ np.median(shapes, axis=0)
    voxels = np.sort(pool[np.argsort(agreement, kind='stable')[::-1][:n_voxels]])
    return Vessel(curves[voxels].mean(axis=0), times[group], voxels)


def restore_height(vessel, curves):
    """Scale a vessel curve to the height of unsmoothed curves of the same shape.

    Smoothing reduces the noise of the shape but also the height of the curve, and the voxels with
    the most typical shape are not those with the least partial volume. If the AIF is too low, CBF and
    CBV are overestimated.

    Parameters
    ----------
    vessel : Vessel
        Mean curve of smoothed candidates.
    curves : (V, T) array
        Unsmoothed curves of all candidates of the same sampling pattern, HU.

    Returns
    -------
    Vessel
        The same shape, scaled to the mean height of the highest curves that fit it (r >= 0.95), as
        many as the vessel has voxels. Unchanged if there are fewer.

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
