# SPDX-License-Identifier: Apache-2.0
"""Masks on an open slab: head, brain, vessels, CSF and tissue.

The slab ends at top and bottom, so the skull is closed only within slices. The brain is what lies
inside the ring of bone, with sulci and ventricles, without the outer rim of CSF.
"""

import numpy as np
from scipy import ndimage

from ctpprep.exceptions import PerfusionError
from ctpprep.perfusion.denoising import smooth_within, smoothing_weight

# densities of brain, CSF and enhancing vessels at the time average, HU
SOFT_HU = (-15.0, 110.0)
# a brain smaller than this share of the head is a failed mask
LEAST_SHARE = 0.15
# brain is less dense than this; of a series without its rescale intercept it is denser by UNSCALED_HU
BRAIN_HU, UNSCALED_HU = 80.0, 1024.0
# shares of the image: a head holds more of brain, and bone less of such a narrow range
LEAST_BRAIN, MOST_SHIFTED = 0.01, 0.05
# density of CSF, and of voxels that are nearly all tissue, HU
CSF_HU, MOSTLY_TISSUE_HU = 5.0, 24.0
# tissue around a voxel is no lighter or denser than this, HU, whatever the beam hardening
TISSUE_HU = (26.0, 33.0)
# lower density than that of the tissue around by this much is still tissue: white beside grey matter
LIGHTER_HU = 2.0
# sigma of "around", mm
AROUND_MM = 5.0
# a voxel with less tissue is not corrected further: noise would grow without bound
LEAST_TISSUE = 0.5
# a voxel and its four neighbours in the slice
IN_PLANE = ndimage.generate_binary_structure(3, 1) & (np.arange(3) == 1)


def largest(mask):
    """Return the largest connected component of a mask.

    Parameters
    ----------
    mask : (X, Y, Z) array of bool

    Returns
    -------
    (X, Y, Z) array of bool
    """
    labels, count = ndimage.label(mask)
    if count == 0:
        return np.zeros_like(mask)
    return labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])


def distance_in_plane(mask, voxel_size_mm):
    """Measure each voxel's distance to the nearest voxel outside a mask, slice by slice.

    Parameters
    ----------
    mask : (X, Y, Z) array of bool
    voxel_size_mm : (3,) sequence of float

    Returns
    -------
    (X, Y, Z) array
        mm; 0 outside. The edge of the image is no border.
    """
    distance = np.zeros(mask.shape)
    for z in range(mask.shape[2]):
        distance[..., z] = ndimage.distance_transform_edt(mask[..., z], voxel_size_mm[:2])
    return distance


def fill_in_plane(mask):
    """Fill the holes of a mask in each slice.

    Parameters
    ----------
    mask : (X, Y, Z) array of bool

    Returns
    -------
    (X, Y, Z) array of bool
    """
    return np.stack(
        [ndimage.binary_fill_holes(mask[..., z]) for z in range(mask.shape[2])], axis=-1
    )


def check_density(volume):
    """Refuse what cannot be a head in HU, before something else is blamed.

    Parameters
    ----------
    volume : (X, Y, Z) array
        HU.

    Raises
    ------
    PerfusionError
        If all voxels are the same, none is as dense as brain, or many are as dense as brain whose
        rescale intercept is missing.
    """
    low, high = float(volume.min()), float(volume.max())
    if low == high:
        raise PerfusionError(
            f'density: every voxel is {low:g} HU; a CT of a head, with air, brain and bone, is needed'
        )
    brain = np.mean((volume > 0) & (volume < BRAIN_HU))
    shifted = np.mean((volume > UNSCALED_HU) & (volume < UNSCALED_HU + BRAIN_HU))
    if brain < LEAST_BRAIN or shifted > MOST_SHIFTED:
        raise PerfusionError(
            f'density: {brain:.1%} of the voxels lie between 0 and {BRAIN_HU:g} HU as brain does, and '
            f'{shifted:.1%} between {UNSCALED_HU:g} and {UNSCALED_HU + BRAIN_HU:g} HU; at least '
            f'{LEAST_BRAIN:.0%} and at most {MOST_SHIFTED:.0%} are needed; are these HU, with the '
            'rescale intercept applied?'
        )


def inside_skull(baseline, voxel_size_mm, bone_hu, neck_mm=5.0):
    """Find what lies inside the ring of bone.

    Parameters
    ----------
    baseline : (X, Y, Z) array
        Reference image without contrast, HU.
    voxel_size_mm : (3,) sequence of float
    bone_hu : float
        Density above which a voxel is bone, HU.
    neck_mm : float
        Openings of the skull narrower than twice this are closed.

    Returns
    -------
    (X, Y, Z) array of bool

    Raises
    ------
    PerfusionError
        If no large soft region lies within bone.
    """
    sigma = [1.0 / voxel_size_mm[0], 1.0 / voxel_size_mm[1], 0]
    smooth = ndimage.gaussian_filter(baseline, sigma)
    head = fill_in_plane(ndimage.binary_opening(smooth > -200, iterations=2))
    bone = smooth > bone_hu
    soft = head & ~bone & (smooth > SOFT_HU[0])
    deep = largest(distance_in_plane(soft, voxel_size_mm) > neck_mm)
    # back to the bone, but not through the openings that the erosion closed
    reach = _distance_outside(deep, voxel_size_mm) <= neck_mm
    inside = fill_in_plane(soft & reach)
    if inside.sum() < LEAST_SHARE * max(head.sum(), 1):
        raise PerfusionError(
            f'brain mask: {inside.sum()} of {head.sum()} voxels of the head lie inside bone, at '
            f'least {LEAST_SHARE:.0%} are needed; is the series in HU, and does it show a head?'
        )
    return inside


def _distance_outside(mask, voxel_size_mm):
    """Return each voxel's in-plane distance to a mask, mm; infinite in slices without it."""
    distance = np.full(mask.shape, np.inf)
    for z in np.flatnonzero(mask.any(axis=(0, 1))):
        distance[..., z] = ndimage.distance_transform_edt(~mask[..., z], voxel_size_mm[:2])
    return distance


def brain_masks(average, baseline, voxel_size_mm, *, bone_hu, csf_hu, sulcus_mm=5.0):
    """Find the brain, with sulci and ventricles, without the outer rim of CSF.

    Parameters
    ----------
    average : (X, Y, Z) array
        Time average of the corrected series, HU: less noise than one frame, and tissue stands out
        from CSF by its enhancement.
    baseline : (X, Y, Z) array
        Reference image without contrast, HU.
    voxel_size_mm : (3,) sequence of float
    bone_hu, csf_hu : float
        HU.
    sulcus_mm : float
        Sulci narrower than twice this belong to the brain.

    Returns
    -------
    brain_mask, inside : (X, Y, Z) arrays of bool
        The brain, and all that lies inside the skull.
    """
    inside = inside_skull(baseline, voxel_size_mm, bone_hu)
    sigma = [0.8 / voxel_size_mm[0], 0.8 / voxel_size_mm[1], 0]
    smooth = ndimage.gaussian_filter(average, sigma)
    parenchyma = inside & (smooth > csf_hu) & (smooth < SOFT_HU[1])
    # specks and shreds of meninges come off, the cortex stays whole
    parenchyma = largest(ndimage.binary_opening(parenchyma, IN_PLANE))
    closed = close_in_plane(parenchyma, voxel_size_mm, sulcus_mm)
    return fill_in_plane(closed) & inside, inside


def close_in_plane(mask, voxel_size_mm, radius_mm):
    """Close a mask with a disc in each slice, by distances (exact for any voxel size).

    Parameters
    ----------
    mask : (X, Y, Z) array of bool
    voxel_size_mm : (3,) sequence of float
    radius_mm : float
        mm.

    Returns
    -------
    (X, Y, Z) array of bool
    """
    closed = np.zeros_like(mask)
    margin = [(int(np.ceil(radius_mm / size)) + 1,) * 2 for size in voxel_size_mm[:2]]
    inner = tuple(slice(low, -high) for low, high in margin)
    for z in np.flatnonzero(mask.any(axis=(0, 1))):
        padded = np.pad(mask[..., z], margin)
        grown = ndimage.distance_transform_edt(~padded, voxel_size_mm[:2]) <= radius_mm
        shrunk = ndimage.distance_transform_edt(grown, voxel_size_mm[:2]) > radius_mm
        closed[..., z] = shrunk[inner]
    return closed


def vessel_mask(peak, inside, parenchyma, vessel_ratio):
    """Find vessels: voxels that enhance far more than brain.

    Parameters
    ----------
    peak : (X, Y, Z) array
        Peak enhancement, HU.
    inside : (X, Y, Z) array of bool
        What lies inside the skull.
    parenchyma : (X, Y, Z) array of bool
        Voxels whose median is the enhancement of brain.
    vessel_ratio : float
        Limit relative to that median.

    Returns
    -------
    (X, Y, Z) array of bool
    """
    return inside & (peak > vessel_ratio * np.median(peak[parenchyma]))


def tissue_masks(average, brain_mask, vessels, csf, inside, seen, voxel_size_mm, bone_margin_mm):
    """Find tissue, and the part of it whose curves are free of vessels and bone.

    Parameters
    ----------
    average : (X, Y, Z) array
        Time average of the corrected series, HU.
    brain_mask, vessels, csf, inside : (X, Y, Z) arrays of bool
        As found by the other functions of this module.
    seen : (X, Y, Z) array of bool
        Voxels inside the field of view of every usable frame.
    voxel_size_mm : (3,) sequence of float
    bone_margin_mm : float
        Distance from bone within which moving bone may leak into a curve, mm.

    Returns
    -------
    tissue_mask : (X, Y, Z) array of bool
        Brain without vessels and CSF: where maps and volumes are given.
    pure_mask : (X, Y, Z) array of bool
        Tissue off vessels and bone: where denoising takes its curves from.
    """
    tissue = brain_mask & seen & ~vessels & ~csf & (average < SOFT_HU[1])
    off_vessels = tissue & ~ndimage.binary_dilation(vessels, IN_PLANE)
    return tissue, off_vessels & (distance_in_plane(inside, voxel_size_mm) > bone_margin_mm)


def csf_mask(average, brain_mask, voxel_size_mm, csf_hu):
    """Find CSF in sulci and ventricles by its density in the time average.

    Parameters
    ----------
    average : (X, Y, Z) array
        Time average of the corrected series, HU.
    brain_mask : (X, Y, Z) array of bool
    voxel_size_mm : (3,) sequence of float
    csf_hu : float
        Density below which a voxel is CSF, HU.

    Returns
    -------
    (X, Y, Z) array of bool
    """
    sigma = [0.8 / voxel_size_mm[0], 0.8 / voxel_size_mm[1], 0]
    return brain_mask & (ndimage.gaussian_filter(average, sigma) < csf_hu)


def tissue_share(density, tissue_mask, pure_mask, voxel_size_mm):
    """Estimate how much of each voxel is tissue, and not CSF, from its density.

    Parameters
    ----------
    density : (X, Y, Z) array
        Density without contrast, HU, of little noise.
    tissue_mask, pure_mask : (X, Y, Z) arrays of bool
        As returned by `tissue_masks`.
    voxel_size_mm : (3,) sequence of float

    Returns
    -------
    (X, Y, Z) array of float32
        ``(HU - 5) / (HU of the tissue around - 2 - 5)`` between 0.5 and 1; 1 outside tissue.

    Notes
    -----
    CSF has no flow, so a voxel that is half CSF has half the curve of its tissue. Tissue lighter than
    its surroundings by more than 2 HU passes for a mixture with CSF: fresh oedema in part (which
    lowers the surroundings, too), old infarcts in full.

    Examples
    --------
    >>> density = np.full((9, 9, 3), 33.0); density[4, 4, 1] = 18.0
    >>> mask = np.ones(density.shape, bool)
    >>> share = tissue_share(density, mask, mask, (20, 20, 20))
    >>> float(share[0, 0, 0]), round(float(share[4, 4, 1]), 2)
    (1.0, 0.5)
    """
    size = np.asarray(voxel_size_mm, dtype=float)
    smooth = smooth_within(density, tissue_mask, [0.6 / size[0], 0.6 / size[1], 0])
    mostly = pure_mask & (smooth > MOSTLY_TISSUE_HU)
    weight = smoothing_weight(mostly, AROUND_MM / size)
    total = ndimage.gaussian_filter(
        np.where(mostly, smooth, 0), AROUND_MM / size, mode='constant', truncate=3.0
    )
    around = np.divide(total, weight, out=np.full_like(total, TISSUE_HU[0]), where=weight > 1e-3)
    reference = np.clip(around, *TISSUE_HU) - LIGHTER_HU
    share = np.clip((smooth - CSF_HU) / (reference - CSF_HU), LEAST_TISSUE, 1.0)
    return np.where(tissue_mask, share, 1.0).astype(np.float32)
