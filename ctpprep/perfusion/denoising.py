# SPDX-License-Identifier: Apache-2.0
"""Denoising of tissue curves without letting vessels, skull or CSF leak in.

Smoothing over a mask that holds tissue only (normalized convolution; Wack et al., BMC Med Imaging
2014;14:28, doi:10.1186/1471-2342-14-28), a low-rank model of the curves (all tissue curves of one
sampling pattern are combinations of a few temporal components), and an average over voxels of
similar density and similar curve, which keeps the borders of cortex and lesions (a bilateral filter
on time profiles; Mendrik et al., Phys Med Biol 2011;56:3857).
"""

from concurrent.futures import ThreadPoolExecutor
from itertools import product

import numpy as np
from scipy import linalg, ndimage

# smoothing needs this share of its Gaussian within pure tissue
LEAST_WEIGHT = 0.01
# the average over similar voxels reaches this many sigma
REACH = 2.0
# and needs similar neighbours that weigh together as much as this share of the voxel itself
LEAST_SIMILAR = 0.3
# a sum has this many parts, added in order, whatever the number of threads
PARTS = 8
# components that shape most curves, and those of delay, are averaged afresh in the second pass;
# the rest carry mostly noise and are averaged again
FINE_COMPONENTS = 3
# the second pass compares curves with less noise, the weak components tolerate more
SECOND_TOLERANCE, WEAK_TOLERANCE, WEAK_DENSITY_TOLERANCE = 0.8, 1.2, 16.0


def smooth_within(volume, mask, sigma_voxels, weight=None):
    """Smooth a volume over the voxels of a mask only.

    Parameters
    ----------
    volume : (X, Y, Z) array
        Values; those outside the mask are not looked at.
    mask : (X, Y, Z) array of bool
        Voxels that count.
    sigma_voxels : (3,) sequence of float
        Sigma of the Gaussian along each axis, voxels; 0 leaves an axis alone.
    weight : (X, Y, Z) array, optional
        The smoothed mask, when it is known already.

    Returns
    -------
    (X, Y, Z) array of float32
        Smoothed values inside the mask, 0 outside.

    Examples
    --------
    A constant stays constant up to the mask's border:

    >>> mask = np.zeros((5, 5, 1), bool); mask[1:4, 1:4] = True
    >>> np.ptp(smooth_within(np.full((5, 5, 1), 7.0), mask, (1, 1, 0))[mask]) < 1e-5
    np.True_
    """
    inside = np.where(mask, volume, 0).astype(np.float32)
    if weight is None:
        weight = smoothing_weight(mask, sigma_voxels)
    total = ndimage.gaussian_filter(inside, sigma_voxels, mode='constant', truncate=3.0)
    return np.divide(total, weight, out=np.zeros_like(total), where=mask)


def smoothing_weight(mask, sigma_voxels):
    """Return the smoothed mask that `smooth_within` divides by.

    Parameters
    ----------
    mask : (X, Y, Z) array of bool
    sigma_voxels : (3,) sequence of float

    Returns
    -------
    (X, Y, Z) array of float32
    """
    return ndimage.gaussian_filter(
        mask.astype(np.float32), sigma_voxels, mode='constant', truncate=3.0
    )


def smooth_curves(curves, tissue_mask, pure_mask, sigma_voxels):
    """Smooth tissue curves, frame by frame, with the curves of pure tissue only.

    Parameters
    ----------
    curves : (V, T) array
        Enhancement of the voxels of `tissue_mask`, HU; missing samples (NaN) count as 0.
    tissue_mask : (X, Y, Z) array of bool
        Where smoothed curves are wanted.
    pure_mask : (X, Y, Z) array of bool
        Part of it whose curves are free of vessels and bone.
    sigma_voxels : (3,) sequence of float

    Returns
    -------
    (V, T) array of float32
        A voxel without pure tissue in reach takes the smoothed curve of the nearest that has it;
        without any the curves come back as they are.
    """
    weight = smoothing_weight(pure_mask, sigma_voxels)
    reached = tissue_mask & (weight > LEAST_WEIGHT)
    if not reached.any():
        return np.nan_to_num(np.asarray(curves, dtype=np.float32))
    nearest = ndimage.distance_transform_edt(
        ~reached, return_distances=False, return_indices=True
    )[:, tissue_mask]
    volume = np.zeros(tissue_mask.shape, dtype=np.float32)
    smooth = np.empty(curves.shape, dtype=np.float32)
    for frame in range(curves.shape[1]):
        volume[tissue_mask] = np.nan_to_num(curves[:, frame])
        inside = np.where(pure_mask, volume, 0)
        total = ndimage.gaussian_filter(inside, sigma_voxels, mode='constant', truncate=3.0)
        mean = np.divide(total, weight, out=np.zeros_like(total), where=reached)
        smooth[:, frame] = mean[tuple(nearest)]
    return smooth


def smooth_by_pattern(curves, mask, source, slice_pattern, sigma_voxels):
    """Smooth curves among slices of one sampling pattern: other slices have other sample times.

    Parameters
    ----------
    curves : (V, T) array
        Enhancement of the voxels of `mask`, HU.
    mask, source : (X, Y, Z) arrays of bool
        Where curves are wanted, and the voxels they are averaged over.
    slice_pattern : (Z,) array of int
    sigma_voxels : (3,) sequence of float

    Returns
    -------
    (V, T) array
    """
    smooth = np.empty_like(curves)
    for group in np.unique(slice_pattern):
        slices = np.flatnonzero(slice_pattern == group)
        within = mask & (slice_pattern == group)
        part = np.s_[..., slices[0] : slices[-1] + 1]
        smooth[within[mask]] = smooth_curves(
            curves[within[mask]], within[part], (source & within)[part], sigma_voxels
        )
    return smooth


def low_rank(curves, rank, weights):
    """Keep the few temporal components that explain most of a set of curves.

    Parameters
    ----------
    curves : (V, T) array
        Tissue curves of one sampling pattern, HU.
    rank : int
        Number of components kept, besides the mean curve.
    weights : (T,) array
        0 for rejected frames, which neither shape the components nor come back.

    Returns
    -------
    (V, T) array of float32
        Rejected frames are returned as they came.

    Notes
    -----
    Components are eigenvectors of the T x T covariance: the cost grows with V T^2 and no array of
    the size of the curves is decomposed.

    Examples
    --------
    Curves of two shapes pass through unchanged:

    >>> shapes = np.array([[0.0, 1, 2, 1], [0, 0, 1, 2]])
    >>> curves = np.array([[1.0, 0], [0, 1], [2, 1], [1, 3]]) @ shapes
    >>> np.allclose(low_rank(curves, 2, np.ones(4)), curves, atol=1e-5)
    True
    """
    curves = np.asarray(curves, dtype=np.float32)
    good = np.flatnonzero(np.asarray(weights) > 0)
    if rank >= min(len(good), len(curves)):
        return curves.copy()
    centre, components = temporal_components(curves[:, good], rank)
    centred = curves[:, good] - centre
    kept = curves.copy()
    kept[:, good] = centred @ components @ components.T + centre
    return kept


def temporal_components(curves, rank):
    """Find the mean curve and the temporal components that explain most of the rest.

    Parameters
    ----------
    curves : (V, T) array
        Tissue curves of one sampling pattern, HU.
    rank : int
        Number of components.

    Returns
    -------
    centre : (T,) array of float32
        Mean curve, HU.
    components : (T, rank) array of float32
        Orthonormal; the one that explains most comes last.
    """
    centre = curves.mean(axis=0)
    centred = curves - centre
    covariance = (centred.T @ centred).astype(np.float64)
    last = len(centre) - 1
    _, components = linalg.eigh(covariance, subset_by_index=[max(last - rank + 1, 0), last])
    return centre, components.astype(np.float32)


def noise_directions(components, most, seed=0):
    """Find temporal directions in which tissue curves hold noise alone.

    They are at right angles to the components that shape the curves and to a constant, which the
    subtraction of the baseline fills with noise of its own.

    Parameters
    ----------
    components : (T, rank) array
        As from `temporal_components`.
    most : int
        Number of directions that are wanted.
    seed : int
        Of the rotation that mixes all such directions, so that any few stand for all.

    Returns
    -------
    (T, K) array of float32
        Orthonormal; fewer than `most` if the curves have too few frames, none if T is rank + 1 or
        less.

    Examples
    --------
    >>> directions = noise_directions(np.eye(6)[:, :2], most=8)
    >>> directions.shape, bool(np.abs(directions.sum(axis=0)).max() < 1e-6)
    ((6, 3), True)
    """
    n_frames = len(components)
    shaped = np.column_stack([np.ones(n_frames), components])
    nothing_else = linalg.null_space(shaped.T)
    mixing = np.random.default_rng(seed).standard_normal((nothing_else.shape[1],) * 2)
    rotation = linalg.qr(mixing)[0] if mixing.size else mixing
    return (nothing_else @ rotation)[:, :most].astype(np.float32)


def neighbours(sigma_voxels):
    """List half of the offsets of a Gaussian's reach, and their weights.

    Parameters
    ----------
    sigma_voxels : (3,) sequence of float
        Sigma along each axis, voxels; 0 leaves an axis alone.

    Returns
    -------
    list of ((3,) tuple of int, float)
        Of each offset and its opposite, one; without the voxel itself.

    Examples
    --------
    >>> [offset for offset, _ in neighbours((0.5, 0, 0.5))]
    [(0, 0, 1), (1, 0, 0)]
    """
    reach = [int(np.floor(REACH * sigma)) for sigma in sigma_voxels]
    found = []
    for offset in product(*(range(-n, n + 1) for n in reach)):
        square = sum((d / s) ** 2 for d, s in zip(offset, sigma_voxels, strict=True) if d)
        if offset > (0, 0, 0) and square <= REACH**2:
            found.append((offset, np.float32(np.exp(-0.5 * square))))
    return found


def average_similar(values, guides, source, sigma_voxels, num_threads=1):
    """Average each voxel with its neighbours, those most whose guides are like its own.

    The weight of a neighbour is a Gaussian of its distance times a Gaussian of the difference of
    the guides.

    Parameters
    ----------
    values : (K, X, Y, Z) array
        What is averaged.
    guides : (F, X, Y, Z) array
        What is compared, in units of the difference that is tolerated (one sigma).
    source : (X, Y, Z) array of bool
        Voxels that count.
    sigma_voxels : (3,) sequence of float
        Sigma along each axis, voxels; the average reaches two sigma.
    num_threads : int
        The result is the same for any number.

    Returns
    -------
    average : (K, X, Y, Z) array of float32
        0 where no voxel counts.
    weight : (X, Y, Z) array of float32
        Sum of the weights: 1 for a voxel that finds only itself.

    Notes
    -----
    Weights are symmetric, so each pair of voxels is compared once.
    """
    guides = np.asarray(guides, dtype=np.float32)
    weight = source.astype(np.float32)
    values = np.where(source, values, 0).astype(np.float32)
    # a neighbour that is farther away than the box is wide does not exist
    offsets = [
        (offset, near)
        for offset, near in neighbours(sigma_voxels)
        if all(abs(d) < size for d, size in zip(offset, weight.shape, strict=True))
    ]

    def add_up(part):
        total, share = np.zeros_like(values), np.zeros_like(weight)
        for offset, near in part:
            here, there = _overlap(weight.shape, offset)
            apart = guides[:, *here] - guides[:, *there]
            alike = np.exp(-0.5 * np.einsum('fxyz,fxyz->xyz', apart, apart)) * near
            total[:, *here] += alike * values[:, *there]
            total[:, *there] += alike * values[:, *here]
            share[here] += alike * weight[there]
            share[there] += alike * weight[here]
        return total, share

    total, share = values.copy(), weight.copy()
    with ThreadPoolExecutor(num_threads) as pool:
        for more, more_share in pool.map(add_up, (offsets[i::PARTS] for i in range(PARTS))):
            total += more
            share += more_share
    return np.divide(total, share, out=np.zeros_like(total), where=share > 0), share


def _overlap(shape, offset):
    """Return the slices of the voxels that have a neighbour at an offset, and of those neighbours."""
    here = tuple(
        slice(max(0, -d), size - max(0, d)) for size, d in zip(shape, offset, strict=True)
    )
    there = tuple(
        slice(max(0, d), size + min(0, d)) for size, d in zip(shape, offset, strict=True)
    )
    return here, there


def denoise_by_similarity(
    curves, smooth, tissue_mask, pure_mask, density, weights, sigma_voxels, *, centre, components,
    tolerance_hu, density_tolerance_hu, directions=None, num_threads=1,
):  # fmt: skip
    """Average the temporal components of tissue curves over similar voxels.

    Curves become scores of a few temporal components. Scores are averaged over voxels of similar
    density and similar (smoothed) curve; then once more, now guided by what the first pass found.

    Parameters
    ----------
    curves : (V, T) array
        Enhancement of the voxels of `tissue_mask` of one sampling pattern, HU, not smoothed.
    smooth : (V, T) array
        The same from `smooth_curves`: the first guide, and what a voxel without similar ones gets.
    tissue_mask, pure_mask : (X, Y, Z) arrays of bool
        Where curves are wanted, and where they are free of vessels and bone.
    density : (X, Y, Z) array
        Time average of the series, HU: it tells grey from white matter and CSF.
    weights : (T,) array
        0 for rejected frames, which come back as they were.
    sigma_voxels : (3,) sequence of float
        Sigma of the average, voxels.
    centre, components : (T',) and (T', rank) arrays
        `temporal_components` of the smoothed curves among the usable frames.
    tolerance_hu, density_tolerance_hu : float
        Difference of scores and of densities at which a neighbour counts ``exp(-1/2)``, HU.
    directions : (T', K) array, optional
        `noise_directions` among the usable frames.
    num_threads : int

    Returns
    -------
    kept : (V, T) array of float32
        HU.
    noise : (V, K) array of float32
        Scores of `directions`, averaged as those of the strong components are: samples of the noise
        that the average leaves in each of these, HU.

    Notes
    -----
    Fails towards plain smoothing where every voxel looks alike. A voxel that looks like no other gets
    its smoothed curve, reduced to the components; with a reach of 0 all do. Cost: some hundred shifts
    of a box around the tissue, for each pass.
    """
    good = np.flatnonzero(np.asarray(weights) > 0)
    box = ndimage.find_objects(tissue_mask.astype(np.uint8))[0]
    inside, source = tissue_mask[box], pure_mask[box]
    # the strongest first
    components = np.ascontiguousarray(components[:, ::-1])

    def scores(of, along):
        volume = np.zeros((along.shape[1], *inside.shape), dtype=np.float32)
        volume[:, inside] = ((np.asarray(of, np.float32)[:, good] - centre) @ along).T
        return volume

    def average(values, guide, tolerance, density_tolerance):
        guides = np.concatenate([density[box][None] / density_tolerance, guide[:2] / tolerance])
        return average_similar(values, guides, source, sigma_voxels, num_threads)

    if directions is None:
        directions = np.zeros((len(good), 0), dtype=np.float32)
    noisy, guide = scores(curves, components), scores(smooth, components)
    first, weight = average(noisy, guide, tolerance_hu, density_tolerance_hu)
    # its own weight does not make a voxel less lonely
    lonely = inside & (weight - source < LEAST_SIMILAR)
    first[:, lonely] = guide[:, lonely]
    strong = noisy[:FINE_COMPONENTS]
    averaged, _ = average(
        np.concatenate([strong, scores(curves, directions)]), first,
        SECOND_TOLERANCE * tolerance_hu, density_tolerance_hu,
    )  # fmt: skip
    fine, noise = averaged[: len(strong)], averaged[len(strong) :]
    noise[:, lonely] = scores(smooth, directions)[:, lonely]
    weak, _ = average(
        first[FINE_COMPONENTS:], first, WEAK_TOLERANCE * tolerance_hu,
        WEAK_DENSITY_TOLERANCE * density_tolerance_hu,
    )  # fmt: skip
    found = np.concatenate([fine, weak])
    found[:, lonely] = guide[:, lonely]
    kept = np.array(curves, dtype=np.float32)
    kept[:, good] = found[:, inside].T @ components.T + centre
    return kept, np.ascontiguousarray(noise[:, inside].T)


def curve_noise(curves, weights, n_baseline):
    """Estimate the noise of each curve from the frames before contrast.

    Parameters
    ----------
    curves : (V, T) array
        Enhancement, HU.
    weights : (T,) array
        Frame weights.
    n_baseline : int
        Number of frames before arrival.

    Returns
    -------
    (V,) array of float32
        Standard deviation, HU. With fewer than two usable baseline frames it comes from the
        differences of neighbouring frames (their median, which the bolus hardly moves).
    """
    weights = np.asarray(weights)
    use = np.flatnonzero(weights[:n_baseline] > 0)
    if len(use) < 2:
        steps = np.abs(np.diff(curves[:, weights > 0], axis=1))
        return (1.4826 / np.sqrt(2) * np.median(steps, axis=1)).astype(np.float32)
    return curves[:, use].std(axis=1, ddof=1).astype(np.float32)
