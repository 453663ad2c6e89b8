# SPDX-License-Identifier: Apache-2.0
"""How sure the core is: from the noise of the curves to a probability and an interval.

CBF is a linear function of the curve once it is known where the residue function is greatest. So
the noise that denoising leaves in the curves is carried on to CBF, to relative CBF and to the core
without deconvolving again. What is told is the effect of noise alone: not of the threshold, of the
AIF, of regularization, of smoothing or of the registration.
"""

import numpy as np
from scipy import ndimage, special

from ctpprep.perfusion.deconvolution import residue_peak
from ctpprep.perfusion.denoising import smooth_within
from ctpprep.perfusion.maps import CHUNK

# sigma of the smoothing of the noise map: it rests on a few samples in each voxel
NOISE_SIGMA_MM = 4.0
COVERAGE = 0.95
# draws of noise, with both signs, from which its effect on a maximum is estimated
EXCESS_PAIRS = 8


def residue_noise(times, operator, samples, weights, n_baseline, components=None):
    """Carry the noise of curves on to the maxima of their residue functions.

    Parameters
    ----------
    times : (V,) array
        Where the maximum of each residue function lies, s.
    operator : Operator
    samples : (V, K) array
        Independent samples of the noise of each curve in one direction among frames, HU.
    weights : (T,) array
        0 for rejected frames.
    n_baseline : int
        Frames before contrast, whose mean was subtracted from each curve.
    components : (T', rank) array, optional
        Temporal components, among the usable frames, that denoising has kept; all by default.

    Returns
    -------
    (V, K) array of float32
        Samples of the noise of the maxima, 1/s.

    Notes
    -----
    White noise of covariance ``I`` becomes ``M M^T`` when the mean of the baseline is subtracted, and
    ``C = Q Q^T M M^T Q Q^T`` when the components ``Q`` are kept. A maximum is a row ``p`` of the
    operator times the curve, so its variance is ``p^T C p``. Two voxels whose maxima lie at different times
    see different parts of the noise; here they share it, which makes sums over voxels noisier than
    they are, by some percent.
    """
    gain = np.linalg.norm(_loading(operator, weights, n_baseline, components), axis=1)
    return (samples * np.interp(times, operator.tau, gain)[:, None]).astype(np.float32)


def _loading(operator, weights, n_baseline, components):
    """Return the (N, T') matrix that turns white noise of the usable frames into that of `k`."""
    good = np.flatnonzero(np.asarray(weights) > 0)
    before = good < n_baseline
    noise = np.eye(len(good))
    if before.any():
        noise -= before / before.sum()
    rows = operator.matrix[:, good]
    if components is not None:
        noise, rows = components.T @ noise, rows @ components
    return rows @ noise


def peak_excess(curves, noise, operator, weights, n_baseline, components=None):
    """Estimate by how much noise raises the maxima of residue functions.

    Parameters
    ----------
    curves : (V, T) array
        Denoised curves, HU.
    noise : (V,) array
        Standard deviation of their noise in one direction among frames, HU.
    operator : Operator
    weights : (T,) array
        0 for rejected frames.
    n_baseline : int
        Frames before contrast, whose mean was subtracted from each curve.
    components : (T', rank) array, optional
        Temporal components, among the usable frames, that denoising has kept; all by default.

    Returns
    -------
    (V,) array of float32
        1/s. To be subtracted from the maxima.

    Notes
    -----
    Parametric bootstrap of a bias (Efron 1979, doi:10.1214/aos/1176344552): by as much as
    the maximum grows, on the mean, when the noise is added once more, by so much it has grown already. Noise
    is drawn in pairs of opposite sign, the same for all voxels, from a fixed seed. What it does is
    larger the flatter `k` is: slow, low flow reads too high. Too small where noise has made a flat
    `k` peaked already.
    """
    loading = _loading(operator, weights, n_baseline, components)
    half = np.random.default_rng(0).standard_normal((EXCESS_PAIRS, loading.shape[1])) @ loading.T
    draws = np.concatenate([half, -half]).astype(np.float32)
    matrix = operator.matrix.T.astype(np.float32)
    excess = np.zeros(len(curves), dtype=np.float32)
    for start in range(0, len(curves), CHUNK):
        part = slice(start, start + CHUNK)
        residue = np.asarray(curves[part], dtype=np.float32) @ matrix
        spread = np.asarray(noise[part], dtype=np.float32)[:, None]
        raised = sum(residue_peak(residue + spread * each, operator.tau)[0] for each in draws)
        excess[part] = raised / len(draws) - residue_peak(residue, operator.tau)[0]
    return excess


def noise_map(fields, tissue_mask, voxel_size_mm):
    """Estimate the noise of each voxel from samples of it.

    Parameters
    ----------
    fields : (X, Y, Z, K) array
        Samples of the noise of a map, in its units.
    tissue_mask : (X, Y, Z) array of bool
    voxel_size_mm : (3,) sequence of float

    Returns
    -------
    (X, Y, Z) array of float32
        Standard deviation: root of the mean square over the samples and, smoothed, over tissue near
        by (sigma 4 mm); 0 outside tissue.
    """
    sigma = NOISE_SIGMA_MM / np.asarray(voxel_size_mm, dtype=float)
    return np.sqrt(smooth_within(np.square(fields).mean(axis=-1), tissue_mask, sigma))


def probability_below(threshold, values, noise):
    """Tell how probable it is that a voxel, without its noise, lies below a threshold.

    Parameters
    ----------
    threshold : float
    values, noise : arrays
        A map and its standard deviation, in the units of the threshold.

    Returns
    -------
    array of float32
        Normal noise, no prior: 0.5 at the threshold; 0 or 1 without noise.

    Examples
    --------
    >>> probability_below(0.3, np.array([0.3, 0.1, 0.5]), np.array([0.1, 0.1, 0.0])).round(3)
    array([0.5  , 0.977, 0.   ], dtype=float32)
    """
    apart = threshold - np.asarray(values, dtype=float)
    with np.errstate(divide='ignore', invalid='ignore'):
        sure = special.ndtr(apart / noise)
    return np.where(noise > 0, sure, apart > 0).astype(np.float32)


def noisy_volumes(measure, values, fields, n_draws, seed):
    """Measure a volume again and again with more noise of the same kind.

    Parameters
    ----------
    measure : callable
        Takes a map, returns a volume.
    values : (X, Y, Z) array
    fields : (X, Y, Z, K) array
        Samples of its noise, in its units.
    n_draws : int
    seed : int

    Returns
    -------
    (n_draws,) array
        Each of the map plus a random mixture of the samples, whose weights have the sum of squares 1:
        it has their size and their smoothness.
    """
    weights = np.random.default_rng(seed).standard_normal((n_draws, fields.shape[-1]))
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    return np.array([measure(values + fields @ each) for each in weights.astype(np.float32)])


def interval(volume, draws, widening):
    """Give the 95 % interval of a volume.

    Parameters
    ----------
    volume : float
        As segmented, mL.
    draws : (N,) array
        Volumes of `noisy_volumes`, mL.
    widening : float
        Factor on the spread of the draws, which alone is too sure.

    Returns
    -------
    list of float
        Both limits, mL, not below 0: the distance of the 2.5th and the 97.5th percentile of the draws
        from their mean, widened and laid around the volume; stretched to hold these percentiles, and
        with them a core that more noise makes appear or vanish.

    Examples
    --------
    >>> interval(10.0, np.linspace(9, 11, 201), 2.0)
    [8.1, 11.9]
    >>> interval(3.0, np.zeros(100), 2.0)
    [0.0, 3.0]
    """
    tail = 50 * (1 - COVERAGE)
    percentiles = np.percentile(draws, [tail, 100 - tail])
    spread = volume + widening * (percentiles - np.mean(draws))
    low = max(min(spread[0], percentiles[0], volume), 0.0)
    high = max(spread[1], percentiles[1], volume)
    return [round(float(low), 4), round(float(high), 4)]


def scale_noise(noise, relative_global, relative):
    """Divide the noise of a globally normalized map as the map itself was divided.

    Parameters
    ----------
    noise : (X, Y, Z, K) array
        Samples of the noise of the global map, fraction.
    relative_global, relative : (X, Y, Z) arrays
        The global map, and the global or the local one, fractions.

    Returns
    -------
    (X, Y, Z, K) array
        The divisor is smooth, so its own noise is left out, and where the maps are 0 it is that of the
        nearest voxel.
    """
    known = (relative_global > 0) & (relative > 0)
    if not known.any():
        return noise
    divided = np.divide(relative, relative_global, out=np.ones_like(relative), where=known)
    nearest = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
    return noise * divided[tuple(nearest)][..., None]


def reach(threshold, values, noise, within):
    """Find the box that holds every voxel that noise may bring below a threshold.

    Parameters
    ----------
    threshold : float
    values, noise : (X, Y, Z) arrays
        A map and its standard deviation.
    within : (X, Y, Z) array of bool
        Voxels that count.

    Returns
    -------
    tuple of slice
        Voxels within five standard deviations, and a margin of five voxels for opening and closing;
        a single voxel if there is none.
    """
    near = within & (values < threshold + 5 * noise)
    found = ndimage.find_objects(near.astype(np.uint8))
    box = found[0] if found else (slice(0, 1),) * values.ndim
    return tuple(
        slice(max(0, each.start - 5), min(size, each.stop + 5))
        for each, size in zip(box, values.shape, strict=True)
    )
