# SPDX-License-Identifier: Apache-2.0
"""Denoising of tissue curves without contamination by vessels, skull or CSF.

Three methods: smoothing over a mask of tissue only (normalized convolution; Wack et al., BMC Med
Imaging 2014;14:28, doi:10.1186/1471-2342-14-28); a low-rank model, in which all tissue curves of
one sampling pattern are combinations of a few temporal components; and an average over voxels of
similar density and similar curve, which preserves the borders of cortex and lesions (a bilateral
filter on time profiles; Mendrik et al., Phys Med Biol 2011;56:3857).
"""

from concurrent.futures import ThreadPoolExecutor
from itertools import product

import numpy as np
from scipy import linalg, ndimage

# least fraction of the smoothing Gaussian that must overlap pure tissue
LEAST_WEIGHT = 0.01
# radius of the average over similar voxels, in sigma
REACH = 2.0
# least total weight of similar neighbours, relative to that of the voxel itself
LEAST_SIMILAR = 0.3
# sums are split into this many parts, added in order
PARTS = 8
# beside the weight of a voxel itself, those below exp(-60) do not matter; products with them would be
# denormal numbers, which are slow
MOST_UNLIKE = np.float32(60.0)
# voxels that are averaged at once: 64 kB per volume; in smaller blocks the calls themselves take longer
BLOCK = 16384
# the strongest components (shape and delay) are averaged from the noisy scores in the second pass;
# the others are mostly noise, so their first average is averaged again
FINE_COMPONENTS = 3
# the second pass compares less noisy curves; weak components tolerate larger differences
SECOND_TOLERANCE, WEAK_TOLERANCE, WEAK_DENSITY_TOLERANCE = 0.8, 1.2, 16.0


def smooth_within(volume, mask, sigma_voxels, weight=None):
    """Smooth a volume within a mask.

    Parameters
    ----------
    volume : (X, Y, Z) array
        Values; those outside the mask are ignored.
    mask : (X, Y, Z) array of bool
        Voxels that are averaged.
    sigma_voxels : (3,) sequence of float
        Sigma of the Gaussian along each axis, voxels; 0 for no smoothing along an axis.
    weight : (X, Y, Z) array, optional
        The smoothed mask, if it has already been computed.

    Returns
    -------
    (X, Y, Z) array of float32
        Smoothed values inside the mask, 0 outside.

    Examples
    --------
    A constant remains constant up to the border of the mask:

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
    """Smooth tissue curves frame by frame, averaging curves of pure tissue only.

    Parameters
    ----------
    curves : (V, T) array
        Enhancement of the voxels of `tissue_mask`, HU; missing samples (NaN) are treated as 0.
    tissue_mask : (X, Y, Z) array of bool
        Voxels whose smoothed curves are returned.
    pure_mask : (X, Y, Z) array of bool
        Those whose curves are not contaminated by vessels or bone.
    sigma_voxels : (3,) sequence of float

    Returns
    -------
    (V, T) array of float32
        A voxel without pure tissue nearby takes the smoothed curve of the nearest voxel that has
        some; if no voxel has any, the curves are returned unchanged.
    """
    box = next(iter(ndimage.find_objects((tissue_mask | pure_mask).astype(np.uint8))), ...)
    tissue_mask, pure_mask = tissue_mask[box], pure_mask[box]
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
    """Smooth curves separately for each sampling pattern, whose slices share their sample times.

    Parameters
    ----------
    curves : (V, T) array
        Enhancement of the voxels of `mask`, HU.
    mask, source : (X, Y, Z) arrays of bool
        Voxels whose smoothed curves are returned, and voxels that are averaged.
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
    """Reduce curves to the few temporal components that explain most of their variance.

    Parameters
    ----------
    curves : (V, T) array
        Tissue curves of one sampling pattern, HU.
    rank : int
        Number of components kept, in addition to the mean curve.
    weights : (T,) array
        0 for rejected frames, which do not contribute to the components.

    Returns
    -------
    (V, T) array of float32
        Rejected frames are returned unchanged.

    Notes
    -----
    The components are eigenvectors of the T x T covariance, so the cost is of order V T^2, and no
    array of the size of the curves is decomposed.

    Examples
    --------
    Curves that combine two shapes are unchanged at rank 2:

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
    """Compute the mean curve and the temporal components that explain most of the variance.

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
        Orthonormal; the strongest is last.
    """
    centre = curves.mean(axis=0)
    centred = curves - centre
    covariance = (centred.T @ centred).astype(np.float64)
    last = len(centre) - 1
    _, components = linalg.eigh(covariance, subset_by_index=[max(last - rank + 1, 0), last])
    return centre, components.astype(np.float32)


def noise_directions(components, most, seed=0):
    """Find temporal directions in which tissue curves contain only noise.

    They are orthogonal to the components of the curves and to a constant: subtracting the baseline
    adds the noise of the baseline to the constant.

    Parameters
    ----------
    components : (T, rank) array
        As from `temporal_components`.
    most : int
        Largest number of directions.
    seed : int
        Seed of the random rotation of all such directions, so that any subset is representative.

    Returns
    -------
    (T, K) array of float32
        Orthonormal; fewer than `most` if the curves have too few frames, and none if T is at most
        rank + 1.

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
    """List half of the offsets within the radius of a Gaussian, with their weights.

    Parameters
    ----------
    sigma_voxels : (3,) sequence of float
        Sigma along each axis, voxels; 0 for no neighbours along an axis.

    Returns
    -------
    list of ((3,) tuple of int, float)
        One of each pair of opposite offsets, without the voxel itself.

    Examples
    --------
    >>> [offset for offset, _ in neighbours((0.5, 0, 0.5))]
    [(0, 0, 1), (1, 0, 0)]
    """
    reach = [int(np.floor(REACH * sigma)) for sigma in sigma_voxels]
    offsets = []
    for offset in product(*(range(-n, n + 1) for n in reach)):
        square = sum((d / s) ** 2 for d, s in zip(offset, sigma_voxels, strict=True) if d)
        if offset > (0, 0, 0) and square <= REACH**2:
            offsets.append((offset, np.float32(np.exp(-0.5 * square))))
    return offsets


def average_similar(values, guides, source, sigma_voxels, num_threads=1):
    """Average each voxel with its neighbours, weighted by the similarity of their guides.

    The weight of a neighbour is a Gaussian of its distance times a Gaussian of the difference
    between the guides.

    Parameters
    ----------
    values : (K, X, Y, Z) array
        Values to average.
    guides : (F, X, Y, Z) array
        Features to compare, in units of the tolerated difference (one sigma).
    source : (X, Y, Z) array of bool
        Voxels that are averaged.
    sigma_voxels : (3,) sequence of float
        Sigma along each axis, voxels; the average extends to two sigma.
    num_threads : int
        The result is the same for any number.

    Returns
    -------
    average : (K, X, Y, Z) array of float32
        0 where no voxel contributes.
    weight : (X, Y, Z) array of float32
        Sum of the weights: 1 for a voxel without similar neighbours.

    Notes
    -----
    The volumes are padded and flattened, so that a neighbour is equally far away in memory for all
    voxels, and averaged in blocks that fit into the cache of a processor.
    """
    shape = source.shape
    # offsets larger than the box have no neighbours
    offsets = [
        (offset, near)
        for offset, near in neighbours(sigma_voxels)
        if all(abs(d) < size for d, size in zip(offset, shape, strict=True))
    ]
    x, y, z = np.abs([(0, 0, 0), *(offset for offset, _ in offsets)]).max(axis=0)
    margins = ((0, 0), (x + 1, x + 1), (0, y), (0, z))
    # the weights are averaged like the values
    padded = np.pad(np.concatenate([np.where(source, values, 0), source[None]]), margins)
    _, n_rows, n_columns, n_slices = padded.shape
    strides = n_columns * n_slices, n_slices, 1
    shifts = [(int(np.dot(offset, strides)), near) for offset, near in offsets]
    values = padded.reshape(len(padded), -1).astype(np.float32)
    guides = np.pad(guides, margins).reshape(len(guides), -1).astype(np.float32)
    limit = np.where(values[-1] > 0, MOST_UNLIKE, np.float32(np.inf))
    sums = np.zeros_like(values)
    end = (n_rows - x - 1) * strides[0]

    def add_up(start):
        block = slice(start, min(start + BLOCK, end))
        sums[:, block] = values[:, block]
        for part in range(PARTS):
            total = np.zeros_like(sums[:, block])
            for shift, near in shifts[part::PARTS]:
                for step in (shift, -shift):
                    others = slice(block.start + step, block.stop + step)
                    apart = guides[:, block] - guides[:, others]
                    unlike = 0.5 * np.einsum('fn,fn->n', apart, apart)
                    alike = np.exp(-np.minimum(unlike, limit[block])) * near
                    total += alike * values[:, others]
            sums[:, block] += total

    with ThreadPoolExecutor(num_threads) as pool:
        list(pool.map(add_up, range((x + 1) * strides[0], end, BLOCK)))
    sums = sums.reshape(padded.shape)[:, x + 1 : n_rows - x - 1, : shape[1], : shape[2]]
    total, share = sums[:-1], np.ascontiguousarray(sums[-1])
    return np.divide(total, share, out=np.zeros_like(total), where=share > 0), share


def denoise_by_similarity(
    curves, smooth, tissue_mask, pure_mask, density, weights, sigma_voxels, *, centre, components,
    tolerance_hu, density_tolerance_hu, directions=None, num_threads=1,
):  # fmt: skip
    """Average the temporal components of tissue curves over similar voxels.

    Curves are expressed as scores of a few temporal components. The scores are averaged over voxels
    of similar density and similar (smoothed) curve, and then a second time, guided by the result of
    the first pass.

    Parameters
    ----------
    curves : (V, T) array
        Enhancement of the voxels of `tissue_mask` of one sampling pattern, HU, not smoothed.
    smooth : (V, T) array
        The same from `smooth_curves`: the first guide, and the result for voxels without similar
        neighbours.
    tissue_mask, pure_mask : (X, Y, Z) arrays of bool
        Voxels whose curves are returned, and those not contaminated by vessels or bone.
    density : (X, Y, Z) array
        Time average of the series, HU: it distinguishes grey matter, white matter and CSF.
    weights : (T,) array
        0 for rejected frames, which are returned unchanged.
    sigma_voxels : (3,) sequence of float
        Sigma of the average, voxels.
    centre, components : (T',) and (T', rank) arrays
        `temporal_components` of the smoothed curves over the usable frames.
    tolerance_hu, density_tolerance_hu : float
        Difference of scores and of densities at which a neighbour has the weight ``exp(-1/2)``,
        HU.
    directions : (T', K) array, optional
        `noise_directions` over the usable frames.
    num_threads : int

    Returns
    -------
    kept : (V, T) array of float32
        HU.
    noise : (V, K) array of float32
        Scores of `directions`, averaged in the same way as the strong components: samples of the
        noise that remains in each of these after averaging, HU.

    Notes
    -----
    Where all voxels are alike, this reduces to plain smoothing. A voxel without similar neighbours
    gets its smoothed curve, reduced to the components; with `sigma_voxels` of 0, all voxels do.
    Cost: a few hundred shifts of a box around the tissue in each pass.
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
    # lonely: without similar neighbours, whatever its own weight
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
    denoised = np.concatenate([fine, weak])
    denoised[:, lonely] = guide[:, lonely]
    kept = np.array(curves, dtype=np.float32)
    kept[:, good] = denoised[:, inside].T @ components.T + centre
    return kept, np.ascontiguousarray(noise[:, inside].T)


def curve_noise(curves, weights, n_baseline):
    """Estimate the noise of each curve from the frames before contrast arrives.

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
        Standard deviation, HU. With fewer than two usable baseline frames it is estimated from the
        median difference of successive frames, which the bolus hardly affects.
    """
    weights = np.asarray(weights)
    use = np.flatnonzero(weights[:n_baseline] > 0)
    if len(use) < 2:
        steps = np.abs(np.diff(curves[:, weights > 0], axis=1))
        return (1.4826 / np.sqrt(2) * np.median(steps, axis=1)).astype(np.float32)
    return curves[:, use].std(axis=1, ddof=1).astype(np.float32)
