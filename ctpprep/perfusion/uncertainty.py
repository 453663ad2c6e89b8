# SPDX-License-Identifier: Apache-2.0
"""Uncertainty of the core: from noise and shared error to a probability and an interval.

For a fixed time of the maximum of the residue function, CBF is a linear function of the curve, and so
is, near the truth, a posterior mean. The noise that denoising leaves in the curves can therefore be
propagated to CBF, relative CBF and core without another deconvolution. What noise does not explain
(arterial input, residue function, mixture of tissues, reference) is an error of relative CBF that all
voxels of a head share; its size is that found in simulated heads.
"""

import numpy as np
from scipy import ndimage, special

from ctpprep.perfusion.deconvolution import residue_peak
from ctpprep.perfusion.denoising import smooth_within
from ctpprep.perfusion.maps import CHUNK

# sigma of the smoothing of the noise map, which is estimated from a few samples per voxel
NOISE_SIGMA_MM = 4.0
COVERAGE = 0.95
# half of an interval of that coverage, in standard deviations
HALF_INTERVAL = float(special.ndtri((1 + COVERAGE) / 2))
# pairs of noise draws of opposite sign, from which the bias of a maximum is estimated
EXCESS_PAIRS = 8


def residue_noise(times, operator, samples, weights, n_baseline, components=None):
    """Propagate the noise of curves to the maxima of their residue functions.

    Parameters
    ----------
    times : (V,) array
        Time of the maximum of each residue function, s.
    operator : Operator
    samples : (V, K) array
        Independent samples of the noise of each curve in one temporal direction, HU.
    weights : (T,) array
        0 for rejected frames.
    n_baseline : int
        Number of frames before contrast, whose mean was subtracted from each curve.
    components : (T', rank) array, optional
        Temporal components, over the usable frames, that denoising kept; all by default.

    Returns
    -------
    (V, K) array of float32
        Samples of the noise of the maxima, 1/s.

    Notes
    -----
    White noise of covariance ``I`` becomes ``M M^T`` when the mean of the baseline is subtracted, and
    ``C = Q Q^T M M^T Q Q^T`` when only the components ``Q`` are kept. A maximum is a row ``p`` of the
    operator times the curve, so its variance is ``p^T C p``. Voxels whose maxima are at different
    times depend on different parts of the noise. The samples treat it as shared, which overestimates
    the noise of sums over voxels by a few percent.
    """
    gain = np.linalg.norm(_loading(operator, weights, n_baseline, components), axis=1)
    return (samples * np.interp(times, operator.tau, gain)[:, None]).astype(np.float32)


def _loading(operator, weights, n_baseline, components):
    """Return the (N, T') matrix from white noise of the usable frames to the noise of `k`."""
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
    """Estimate the positive bias of the maxima of residue functions by noise.

    Parameters
    ----------
    curves : (V, T) array
        Denoised curves, HU.
    noise : (V,) array
        Standard deviation of their noise in one temporal direction, HU.
    operator : Operator
    weights : (T,) array
        0 for rejected frames.
    n_baseline : int
        Number of frames before contrast, whose mean was subtracted from each curve.
    components : (T', rank) array, optional
        Temporal components, over the usable frames, that denoising kept; all by default.

    Returns
    -------
    (V,) array of float32
        Bias to subtract from the maxima, 1/s.

    Notes
    -----
    Parametric bootstrap of a bias (Efron 1979, doi:10.1214/aos/1176344552): the mean increase of the
    maximum when the noise is added once more estimates the increase that the noise has already
    caused. Noise is drawn in pairs of opposite sign, the same for all voxels, from a fixed seed. The
    bias grows with the flatness of `k`, so low flow with a long transit time is overestimated most.
    The estimate is too small where noise has already turned a flat `k` into a peaked one.
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
        raised = sum(residue_peak(residue + spread * draw, operator.tau)[0] for draw in draws)
        excess[part] = raised / len(draws) - residue_peak(residue, operator.tau)[0]
    return excess


def noise_map(fields, tissue_mask, voxel_size_mm):
    """Estimate the noise of each voxel from samples.

    Parameters
    ----------
    fields : (X, Y, Z, K) array
        Samples of the noise of a map, in its units.
    tissue_mask : (X, Y, Z) array of bool
    voxel_size_mm : (3,) sequence of float

    Returns
    -------
    (X, Y, Z) array of float32
        Standard deviation: root mean square over the samples and over nearby tissue (Gaussian of
        sigma 4 mm); 0 outside tissue.
    """
    sigma = NOISE_SIGMA_MM / np.asarray(voxel_size_mm, dtype=float)
    return np.sqrt(smooth_within(np.square(fields).mean(axis=-1), tissue_mask, sigma))


def probability_below(threshold, values, noise):
    """Compute the probability that a voxel without noise would be below a threshold.

    Parameters
    ----------
    threshold : float
    values, noise : arrays
        A map and its standard deviation, in the units of the threshold.

    Returns
    -------
    array of float32
        For normal noise and a flat prior: 0.5 at the threshold; 0 or 1 without noise.

    Examples
    --------
    >>> probability_below(0.3, np.array([0.3, 0.1, 0.5]), np.array([0.1, 0.1, 0.0])).round(3)
    array([0.5  , 0.977, 0.   ], dtype=float32)
    """
    apart = threshold - np.asarray(values, dtype=float)
    with np.errstate(divide='ignore', invalid='ignore'):
        sure = special.ndtr(apart / noise)
    return np.where(noise > 0, sure, apart > 0).astype(np.float32)


def noisy_volumes(measure, values, fields, n_draws, seed, shared=0.0):
    """Measure a volume repeatedly with added error of the same kind.

    Parameters
    ----------
    measure : callable
        Maps an array to a volume.
    values : (X, Y, Z) array
    fields : (X, Y, Z, K) array
        Samples of its noise, in the units of `values`.
    n_draws : int
    seed : int
    shared : float
        Standard deviation of the error that all voxels of a head share, in the units of `values`.

    Returns
    -------
    (n_draws,) array
        Volume of the map plus a random linear combination of the samples, plus a random constant.
        The squares of the weights sum to 1, so the combination has the size and smoothness of the
        samples.
    """
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal((n_draws, fields.shape[-1]))
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    constants = np.float32(shared) * rng.standard_normal(n_draws).astype(np.float32)
    return np.array([
        measure(values + fields @ draw + constant)
        for draw, constant in zip(weights.astype(np.float32), constants, strict=True)
    ])  # fmt: skip


def interval(volume, draws):
    """Compute the 95 % interval of a volume.

    Parameters
    ----------
    volume : float
        As segmented, mL.
    draws : (N,) array
        Volumes from `noisy_volumes`, mL.

    Returns
    -------
    list of float
        The 2.5th and the 97.5th percentile of the draws, mL, extended to include the volume.

    Examples
    --------
    >>> interval(10.0, np.linspace(9, 11, 201))
    [9.05, 10.95]
    >>> interval(3.0, np.zeros(100))
    [0.0, 3.0]
    """
    tail = 50 * (1 - COVERAGE)
    low, high = np.percentile(draws, [tail, 100 - tail])
    return [round(float(min(low, volume)), 4), round(float(max(high, volume)), 4)]


def scale_noise(noise, relative_global, relative):
    """Scale the noise of the global map to the noise of the global or local map.

    Parameters
    ----------
    noise : (X, Y, Z, K) array
        Samples of the noise of the global map, fraction.
    relative_global, relative : (X, Y, Z) arrays
        The global map, and the global or the local one, fractions.

    Returns
    -------
    (X, Y, Z, K) array
        Noise of `relative`, fraction. The noise of the smooth divisor is neglected; where the maps
        are 0, the divisor of the nearest voxel is used.
    """
    known = (relative_global > 0) & (relative > 0)
    if not known.any():
        return noise
    divided = np.divide(relative, relative_global, out=np.ones_like(relative), where=known)
    nearest = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
    return noise * divided[tuple(nearest)][..., None]


def reach(threshold, values, noise, within):
    """Find the box around all voxels that noise may bring below a threshold.

    Parameters
    ----------
    threshold : float
    values, noise : (X, Y, Z) arrays
        A map and its standard deviation.
    within : (X, Y, Z) array of bool
        Voxels to include.

    Returns
    -------
    tuple of slice
        Box around voxels within five standard deviations of the threshold, with a margin of five
        voxels for opening and closing; a single voxel if there are none.
    """
    near = within & (values < threshold + 5 * noise)
    boxes = ndimage.find_objects(near.astype(np.uint8))
    box = boxes[0] if boxes else (slice(0, 1),) * values.ndim
    return tuple(
        slice(max(0, extent.start - 5), min(size, extent.stop + 5))
        for extent, size in zip(box, values.shape, strict=True)
    )
