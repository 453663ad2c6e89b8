# SPDX-License-Identifier: Apache-2.0
"""The working grid: voxels averaged in blocks to reduce memory and noise."""

import numpy as np
from scipy import sparse

# in plane, blocks of whole voxels are at least this fraction of the largest size
LEAST_WHOLE = 0.75


def block_factors(voxel_size_mm, sample_times, in_plane_mm, slice_mm):
    """Choose how many voxels are averaged along each axis.

    Blocks are as large as possible within the stated sizes: arteries lose height in larger ones.
    In plane, blocks of whole voxels may be far smaller (0.96 mm would stay 0.96 mm, since 1.92 mm is
    above 1.8 mm, at four times the cost); blocks of the stated size then also contain parts of voxels.
    Slices that were acquired at different times are never averaged, and slices are never divided.

    Parameters
    ----------
    voxel_size_mm : (3,) sequence of float
        Size of the acquired voxels, mm.
    sample_times : (Z, T) array
        Acquisition time of each slice in each frame, s.
    in_plane_mm, slice_mm : float
        Largest sizes, mm.

    Returns
    -------
    (3,) tuple of float
        Whole numbers are int.

    Examples
    --------
    >>> block_factors((0.43, 0.43, 0.5), np.zeros((320, 1)), 1.8, 5.0)
    (4, 4, 10)
    >>> block_factors((0.96, 0.96, 5.0), np.zeros((20, 1)), 1.8, 5.0)
    (1.875, 1.875, 1)
    >>> block_factors((1.72, 1.72, 5.0), np.zeros((20, 1)), 1.8, 5.0)
    (1, 1, 1)
    """
    in_plane = [_in_plane_factor(size, in_plane_mm) for size in voxel_size_mm[:2]]
    times = np.asarray(sample_times, dtype=float)
    for through in range(int(np.floor(slice_mm * 1.001 / voxel_size_mm[2])), 1, -1):
        whole = len(times) // through * through
        blocks = times[:whole].reshape(-1, through, times.shape[1])
        if len(blocks) and np.ptp(blocks, axis=1).max() < 1e-3:
            return (*in_plane, through)
    return (*in_plane, 1)


def _in_plane_factor(size, most_mm):
    # tolerance for rounding in the header: 4 voxels of 0.45 mm must fit into 1.8 mm
    whole = max(1, int(np.floor(most_mm * 1.001 / size)))
    return whole if whole * size >= LEAST_WHOLE * most_mm else float(most_mm / size)


def count_blocks(n_voxels, factor):
    """Return the number of complete blocks along an axis.

    Parameters
    ----------
    n_voxels : int
    factor : float
        Block size, voxels.

    Returns
    -------
    int

    Examples
    --------
    >>> count_blocks(9, 2), count_blocks(9, 1.5)
    (4, 6)
    """
    return int(n_voxels / factor + 1e-6)


def average_blocks(volume, factors):
    """Average blocks of voxels.

    A voxel that is partly in a block counts in part. Voxels beyond the last complete block of an axis
    are dropped.

    Parameters
    ----------
    volume : (X, Y, Z) array
        One frame.
    factors : (3,) sequence of float
        Block size in voxels.

    Returns
    -------
    (X / fx, Y / fy, Z / fz) array of float32
        Sizes are rounded down.

    Examples
    --------
    >>> average_blocks(np.arange(8.0).reshape(2, 2, 2), (2, 2, 1)).ravel()
    array([3., 4.], dtype=float32)
    >>> average_blocks(np.array([0.0, 3, 6]).reshape(3, 1, 1), (1.5, 1, 1)).ravel()
    array([1., 5.], dtype=float32)
    """
    total = np.asarray(volume)
    # sums of strided views, slices first: ten times as fast as a mean over reshaped axes, and voxels
    # are converted to float only when they are added
    for axis in (2, 1, 0):
        if (factor := factors[axis]) == 1:
            continue
        if not float(factor).is_integer():
            total = _sum_parts(total, axis, factor)
            continue
        factor = int(factor)
        whole = total.shape[axis] // factor * factor
        parts = [
            total[(slice(None),) * axis + (slice(start, whole, factor),)]
            for start in range(factor)
        ]
        total = np.add(parts[0], parts[1], dtype=np.float32)
        for part in parts[2:]:
            total += part
    return np.divide(total, np.float32(np.prod(factors)), dtype=np.float32)


def _sum_parts(volume, axis, factor):
    """Sum voxels and parts of voxels in blocks along an axis."""
    n_voxels = volume.shape[axis]
    edges = factor * np.arange(count_blocks(n_voxels, factor) + 1)[:, None]
    voxels = np.arange(n_voxels)
    # length of each voxel in each block
    overlap = np.minimum(edges[1:], voxels + 1) - np.maximum(edges[:-1], voxels)
    weights = sparse.csr_array(np.maximum(overlap, 0).astype(np.float32))
    moved = np.moveaxis(volume, axis, 0)
    sums = weights @ moved.reshape(n_voxels, -1).astype(np.float32, copy=False)
    return np.moveaxis(sums.reshape(-1, *moved.shape[1:]), 0, axis)


def block_affine(affine, factors):
    """Return the affine of a grid of averaged blocks.

    Parameters
    ----------
    affine : (4, 4) array
        Voxel to patient coordinates, mm.
    factors : (3,) sequence of float
        Block size in voxels.

    Returns
    -------
    (4, 4) array

    Examples
    --------
    >>> block_affine(np.eye(4), (2, 2, 1))[:, 3]
    array([0.5, 0.5, 0. , 1. ])
    """
    factors = np.asarray(factors, dtype=float)
    centre = np.diag([*factors, 1.0])
    centre[:3, 3] = (factors - 1) / 2
    return np.asarray(affine, dtype=float) @ centre


def times_of_blocks(times, factors, shape):
    """Return the sample times of averaged slices, which were acquired together.

    Parameters
    ----------
    times : (Z, T) array
        s.
    factors : (3,) sequence of float
        Block size, voxels; whole through plane.
    shape : sequence of int
        Shape of the averaged series.

    Returns
    -------
    (Z', T) array

    Examples
    --------
    >>> times_of_blocks(np.array([[0, 2], [0, 2], [1, 3], [1, 3]]), (1, 1, 2), (9, 9, 2)).tolist()
    [[0, 2], [1, 3]]
    """
    return times[: shape[2] * factors[2] : factors[2]]


def voxel_size_mm(affine):
    """Return the voxel size of an affine.

    Parameters
    ----------
    affine : (4, 4) array

    Returns
    -------
    (3,) tuple of float
        mm.

    Examples
    --------
    >>> voxel_size_mm(np.diag([2, 2, 5, 1]))
    (2.0, 2.0, 5.0)
    """
    columns = np.asarray(affine, dtype=float)[:3, :3]
    return tuple(float(size) for size in np.sqrt(np.sum(columns**2, axis=0)))


def crop_in_plane(image, affine, margin_mm):
    """Crop an image in plane to what is not 0, and a margin.

    Parameters
    ----------
    image : (X, Y, Z) array
    affine : (4, 4) array
    margin_mm : float

    Returns
    -------
    array : (X', Y', Z) array
    affine : (4, 4) array

    Examples
    --------
    >>> image = np.zeros((9, 9, 2)); image[4, 5] = 1.0
    >>> cropped, affine = crop_in_plane(image, np.diag([2, 2, 5, 1]), 3.0)
    >>> cropped.shape, affine[:3, 3]
    ((5, 5, 2), array([4., 6., 0.]))
    """
    box = [slice(None)] * 3
    for axis, size in enumerate(voxel_size_mm(affine)[:2]):
        shown = np.flatnonzero(image.any(axis=(1 - axis, 2)))
        margin = int(np.ceil(margin_mm / size))
        if shown.size:
            box[axis] = slice(max(0, shown[0] - margin), shown[-1] + margin + 1)
    affine = np.array(affine, dtype=float)
    affine[:3, 3] += affine[:3, :3] @ [part.start or 0 for part in box]
    return image[tuple(box)], affine


def times_by_slice(times, n_slices):
    """Return the acquisition time of every slice of every frame.

    Parameters
    ----------
    times : (T,) or (Z, T) array
        s; one-dimensional if all slices of a frame are acquired at once.
    n_slices : int

    Returns
    -------
    (Z, T) array of float

    Examples
    --------
    >>> times_by_slice([0, 2], 3).shape
    (3, 2)
    """
    times = np.asarray(times, dtype=float)
    return np.broadcast_to(times, (n_slices, times.shape[-1])) if times.ndim == 1 else times


def sampling_patterns(sample_times):
    """Group slices that share their acquisition times.

    Parameters
    ----------
    sample_times : (Z, T) array
        Acquisition time of each slice in each frame, s.

    Returns
    -------
    times : (G, T) array
        The distinct sampling patterns, s.
    pattern : (Z,) array of int
        Pattern of each slice.

    Examples
    --------
    >>> times, pattern = sampling_patterns([[0, 2], [1, 3], [0, 2]])
    >>> pattern
    array([0, 1, 0])
    """
    times, pattern = np.unique(
        np.round(np.asarray(sample_times, dtype=float), 4), axis=0, return_inverse=True
    )
    return times, pattern.ravel()
