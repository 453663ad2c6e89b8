# SPDX-License-Identifier: Apache-2.0
"""Denoising of tissue curves without letting vessels, skull or CSF leak in.

Smoothing over a mask that holds tissue only (normalized convolution; Wack et al., BMC Med Imaging
2014;14:28, doi:10.1186/1471-2342-14-28), then a low-rank model of the curves: all tissue curves of
one sampling pattern are combinations of a few temporal components.
"""

import numpy as np
from scipy import linalg, ndimage

# smoothing needs this share of its Gaussian within pure tissue
LEAST_WEIGHT = 0.01


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
    centre = curves[:, good].mean(axis=0)
    centred = curves[:, good] - centre
    covariance = (centred.T @ centred).astype(np.float64)
    last = len(good) - 1
    _, components = linalg.eigh(covariance, subset_by_index=[last - rank + 1, last])
    components = components.astype(np.float32)
    kept = curves.copy()
    kept[:, good] = centred @ components @ components.T + centre
    return kept


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
        Standard deviation, HU; 0 with fewer than two usable baseline frames.
    """
    use = np.flatnonzero(np.asarray(weights)[:n_baseline] > 0)
    if len(use) < 2:
        return np.zeros(len(curves), dtype=np.float32)
    return curves[:, use].std(axis=1, ddof=1).astype(np.float32)
