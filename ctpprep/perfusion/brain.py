# SPDX-License-Identifier: Apache-2.0
"""Masks of head, brain, vessels, CSF and tissue in a slab.

The slab is open at top and bottom, so the skull is closed only within slices. The brain is the
region inside the ring of bone, including sulci and ventricles, without the outer rim of CSF.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ctpprep.exceptions import PerfusionError
from ctpprep.perfusion.denoising import smooth_within, smoothing_weight

# densities of brain, CSF and enhancing vessels in the time average, with any calibration, HU
SOFT_HU = (-30.0, 125.0)
# a brain mask smaller than this fraction of the head has failed
LEAST_SHARE = 0.15
# density of brain is at most the first; without the rescale intercept it is higher by the second
BRAIN_HU, UNSCALED_HU = 80.0, 1024.0
# fractions of the image: least with the density of brain, most with that density unscaled
LEAST_BRAIN, MOST_SHIFTED = 0.01, 0.05
# the levels of a series are measured at this distance from bone, mm, after smoothing in plane, mm
LEVEL_DEPTH_MM, LEVEL_SIGMA_MM = 8.0, 1.2
# CSF is at least this much less dense than brain (less is fresh core, or a voxel that is half CSF), and
# forms at least this fraction of the depth; if it does not, it is assumed to be less dense than brain
# by the last number, HU
LEAST_CONTRAST_HU, LEAST_CSF_SHARE, USUAL_CONTRAST_HU = 16.0, 0.002, 26.0
# distance from brain of the CSF that is measured, mm
LEAST_CSF_DEPTH_MM = 3.5
# CSF cannot be less dense than brain by more, HU
MOST_CONTRAST_HU = 40.0
# gaps in the skull: density of thin bone, HU, its distance from the surface of the brain, mm, and the
# least area of the brain in a slice, mm2
GAP_BONE_HU, GAP_REACH_MM, GAP_AREA_MM2 = 150.0, 25.0, 3000.0
# a gap is measured over this height, mm
GAP_HEIGHT_MM = 30.0
# rays beside a gap that are not used
EDGE_RAYS = 5
# gaps that are closed: least length and distance from the centre, mm, and least fraction of rays that
# meet bone
LEAST_GAP_MM, LEAST_RADIUS_MM, LEAST_CLOSED = 30.0, 30.0, 0.5
# a head without skull: densities of tissue and of bone, HU, and the largest fraction of bone
STRIPPED_BONE_HU, STRIPPED_BONE_SHARE = (10.0, 250.0), 0.02
# its brain is denser than a background near 0 HU by at least the first, HU, in this fraction of both;
# the edge of the brain is denser than the background by the last, HU
STRIPPED_BRAIN_HU, STRIPPED_BRAIN_SHARE, STRIPPED_EDGE_HU = 15.0, 0.05, 10.0
# usual median density of brain without contrast, HU
USUAL_BRAIN_HU = 31.0
# width of the Gaussian that smooths histograms of density, HU
LEVEL_WIDTH_HU = 1.5
# voxels that are nearly all tissue: fraction of the way from CSF to brain
MOSTLY_TISSUE = 0.73
# limits of the density of the surrounding tissue relative to brain, HU: beam hardening raises it, and
# oedema lowers it, which does not make it CSF
TISSUE_RANGE_HU = (-10.0, 2.0)
# tissue may be less dense than its surroundings by this much: white matter next to grey matter
LIGHTER_HU = 2.0
# sigma of the surroundings, mm, and rounds of their estimate
AROUND_MM, AROUND_ROUNDS = 5.0, 3
# least tissue fraction: dividing by less would amplify noise without bound
LEAST_TISSUE = 0.5
# blood outside of vessels, calcification: denser than brain, HU, in its middle and at its border, with at
# most these fractions of the enhancement of tissue, mm over which that is averaged, and distance of the
# border from the middle, mm; smaller ones are left, mL
HYPERDENSE_HU, HYPERDENSE_SHARE = (25.0, 15.0), (0.25, 1.0)
ENHANCEMENT_SIGMA_MM, HYPERDENSE_REACH_MM, LEAST_HYPERDENSE_ML = 3.0, 6.0, 1.0
# density that bone does not have, HU, distance to the inside of the skull up to which it matters, mm, and
# least connected volume, below which it may be noise or ringing at dense bone, mL
METAL_HU, METAL_REACH_MM, LEAST_METAL_ML = 2500.0, 12.0, 0.03
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
        mm; 0 outside the mask. The edge of the image is not a border.
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
    """Check that a volume can be a CT of a head in HU.

    Parameters
    ----------
    volume : (X, Y, Z) array
        HU.

    Raises
    ------
    PerfusionError
        If all voxels are equal, if hardly any has the density of brain, or if many have that density
        without the rescale intercept.
    """
    low, high = float(volume.min()), float(volume.max())
    if low == high:
        raise PerfusionError(
            f'density: every voxel is {low:g} HU, need a CT of a head with air, brain and bone; '
            'check the file'
        )
    brain = np.mean((volume > 0) & (volume < BRAIN_HU))
    shifted = np.mean((volume > UNSCALED_HU) & (volume < UNSCALED_HU + BRAIN_HU))
    if shifted > MOST_SHIFTED:
        raise PerfusionError(
            f'density: {shifted:.1%} of the voxels have {UNSCALED_HU:g} to {UNSCALED_HU + BRAIN_HU:g} HU, '
            f'need at most {MOST_SHIFTED:.0%}; check the rescale intercept'
        )
    if brain < LEAST_BRAIN:
        raise PerfusionError(
            f'density: {brain:.1%} of the voxels have 0 to {BRAIN_HU:g} HU, as brain has, need at least '
            f'{LEAST_BRAIN:.0%}; check the rescale intercept'
        )


@dataclass(frozen=True)
class Levels:
    """Densities that the series itself shows: calibration differs between scanners by 20 HU.

    Attributes
    ----------
    brain, csf : float
        Most frequent density of brain, and median of CSF away from brain, HU.
    """

    brain: float
    csf: float

    def between(self, share):
        """Return the density at a fraction of the way from CSF to brain, HU."""
        return self.csf + share * (self.brain - self.csf)


def density_levels(image, inside, voxel_size_mm):
    """Measure the densities of brain and CSF.

    Parameters
    ----------
    image : (X, Y, Z) array
        HU.
    inside : (X, Y, Z) array of bool
        Brain and CSF, or the region inside the skull.
    voxel_size_mm : (3,) sequence of float

    Returns
    -------
    Levels
        Without ventricles or wide sulci, CSF is assumed to be 26 HU less dense than brain.

    Examples
    --------
    >>> image = np.full((30, 30, 2), 43.0); image[10:15, 10:20] = 12.0
    >>> levels = density_levels(image, np.ones(image.shape, bool), (2, 2, 5))
    >>> round(levels.brain), round(levels.csf)
    (43, 12)
    """
    sigma = [LEVEL_SIGMA_MM / voxel_size_mm[0], LEVEL_SIGMA_MM / voxel_size_mm[1], 0]
    smooth = smooth_within(np.clip(np.nan_to_num(image), -100, 200), inside, sigma)
    deep = inside & (distance_in_plane(inside, voxel_size_mm) > LEVEL_DEPTH_MM)
    values = smooth[deep if deep.any() else inside]
    level = _most_frequent(values)
    # voxels at the border of a ventricle are partly brain
    low = inside & (smooth < level - LEAST_CONTRAST_HU) & (smooth > level - MOST_CONTRAST_HU)
    middle = smooth[deep & (distance_in_plane(low, voxel_size_mm) > LEAST_CSF_DEPTH_MM)]
    csf = level - USUAL_CONTRAST_HU
    if middle.size and middle.size >= LEAST_CSF_SHARE * values.size:
        csf = float(np.median(middle))
    return Levels(level, csf)


def at_usual_level(image, brain_mask):
    """Add a constant to an image, so that brain has the density for which fixed windows are meant.

    Parameters
    ----------
    image : (X, Y, Z) array
        HU.
    brain_mask : (X, Y, Z) array of bool

    Returns
    -------
    (X, Y, Z) array
        HU, with a median of 31 HU in the brain.
    """
    values = np.asarray(image)[brain_mask]
    values = values[np.isfinite(values)]
    return image - (np.median(values) - USUAL_BRAIN_HU) if values.size else image


def _most_frequent(values):
    """Return the mode of densities, HU."""
    edges = np.arange(np.floor(values.min()) - 5, np.ceil(values.max()) + 6, 0.25)
    counts, _ = np.histogram(values, edges)
    smooth = ndimage.gaussian_filter1d(counts.astype(float), LEVEL_WIDTH_HU / 0.25)
    top = int(np.argmax(smooth))
    return float(edges[top] + 0.125)


def inside_skull(baseline, voxel_size_mm, bone_hu, neck_mm=5.0):
    """Find the region inside the ring of bone.

    Parameters
    ----------
    baseline : (X, Y, Z) array
        Reference image without contrast, HU.
    voxel_size_mm : (3,) sequence of float
    bone_hu : float
        Density above which a voxel is bone, HU.
    neck_mm : float
        Openings of the skull narrower than twice this distance are closed.

    Returns
    -------
    (X, Y, Z) array of bool

    Raises
    ------
    PerfusionError
        If there is no large region of soft tissue within bone.
    """
    sigma = [1.0 / voxel_size_mm[0], 1.0 / voxel_size_mm[1], 0]
    smooth = ndimage.gaussian_filter(baseline, sigma)
    if is_stripped(smooth):
        return _inside_stripped(smooth, voxel_size_mm, neck_mm)
    head = fill_in_plane(ndimage.binary_opening(smooth > -200, IN_PLANE, iterations=2))
    bone = smooth > bone_hu
    soft = head & ~bone & (smooth > SOFT_HU[0])
    deep = largest(distance_in_plane(soft, voxel_size_mm) > neck_mm)
    # grow back to the bone, but not through the openings that the erosion closed
    reach = _distance_outside(deep, voxel_size_mm) <= neck_mm
    inside = _close_gaps(fill_in_plane(soft & reach), bone, voxel_size_mm[:2])
    if inside.sum() < LEAST_SHARE * max(head.sum(), 1):
        raise PerfusionError(
            f'brain mask: {inside.sum()} of {head.sum()} voxels of the head are inside bone, need at '
            f'least {LEAST_SHARE:.0%}; check that the series is in HU, or supply a --brain-mask'
        )
    return inside


def skull_gap(image, brain_mask, voxel_size_mm):
    """Measure the longest part of the surface of the brain that has no bone outside of it.

    Rays run outward in each slice from the centre of the brain. A ray has bone if it meets any beyond
    the surface of the brain, within the thickness of subdural space, dura and skull.

    Parameters
    ----------
    image : (X, Y, Z) array
        Reference image without contrast, HU.
    brain_mask : (X, Y, Z) array of bool
    voxel_size_mm : (3,) sequence of float

    Returns
    -------
    float or None
        Length that the gap has or exceeds over 30 mm of slices, mm: orbits and foramina are open in
        fewer slices. None for a series without skull.
    """
    if is_stripped(image):
        return None
    gaps = []
    bone = ndimage.maximum_filter(image, (3, 3, 1)) > GAP_BONE_HU
    for z in np.flatnonzero(
        brain_mask.sum(axis=(0, 1)) * np.prod(voxel_size_mm[:2]) > GAP_AREA_MM2
    ):
        gaps.append(_gap_in_slice(bone[..., z], brain_mask[..., z], voxel_size_mm[:2]))
    if not gaps:
        return 0.0
    count = min(len(gaps), int(np.ceil(GAP_HEIGHT_MM / voxel_size_mm[2])))
    return float(np.sort(gaps)[-count])


def _gap_in_slice(bone, brain_mask, size):
    """Return the length of the longest run of rays without bone, mm."""
    rays = _Rays(brain_mask, size)
    on_brain, on_bone = (array[rays.voxels] for array in (brain_mask, bone))
    surface = np.where(on_brain, rays.distances, 0).max(axis=1)
    outside = (rays.distances > surface[:, None] - 3) & (
        rays.distances < surface[:, None] + GAP_REACH_MM
    )
    lengths = _run_lengths(~(on_bone & outside).any(axis=1), surface)
    return float(lengths.max(initial=0))


def _close_gaps(inside, bone, size):
    """Remove scalp from the inside of the skull where bone is missing.

    In each slice, the inner surface of the bone is interpolated over gaps, by its distance from the
    centre: a missing piece of skull was about as far away as its neighbours.
    """
    closed = inside.copy()
    for z in np.flatnonzero(inside.any(axis=(0, 1))):
        rays = _Rays(inside[..., z], size)
        on_bone = bone[..., z][rays.voxels] & (rays.distances > LEAST_RADIUS_MM)
        known = on_bone.any(axis=1)
        radius = np.where(known, rays.distances[np.argmax(on_bone, axis=1)], np.nan)
        if known.mean() < LEAST_CLOSED:
            continue
        # the edges of a gap are oblique: rays meet them farther out than the inner surface
        sure = ~ndimage.binary_dilation(np.tile(~known, 3), iterations=EDGE_RAYS)[
            len(known) : 2 * len(known)
        ]
        if not sure.any():
            continue
        radius = np.interp(
            np.arange(len(known)), np.flatnonzero(sure), radius[sure], period=len(known)
        )
        gaps = _run_lengths(~sure, radius) > LEAST_GAP_MM
        if gaps.any():
            index, distance = rays.of_voxels(inside.shape[:2])
            closed[..., z] &= ~gaps[index] | (distance < radius[index])
    return closed


class _Rays:
    """Rays from the centre of a region of a slice, every 2 degrees.

    Attributes
    ----------
    distances : (N,) array
        Along a ray, mm.
    voxels : tuple of two (180, N) arrays of int
        Voxels along each ray; those at the edge of the image are repeated.
    """

    def __init__(self, region, size):
        self.centre, self.size = np.argwhere(region).mean(axis=0), np.asarray(size, dtype=float)
        self.distances = np.arange(0, 160.0, 1.0)
        angles = np.radians(np.arange(0, 360, 2))
        self.voxels = tuple(
            np.clip(
                np.round(self.centre[i] + np.outer(wave, self.distances) / size[i]).astype(int),
                0,
                region.shape[i] - 1,
            )
            for i, wave in enumerate((np.cos(angles), np.sin(angles)))
        )

    def of_voxels(self, shape):
        """Return the ray and the distance of each voxel of the slice."""
        x, y = (
            (np.arange(n) - middle) * width
            for n, middle, width in zip(shape, self.centre, self.size, strict=True)
        )
        angle = np.degrees(np.arctan2(y[None, :], x[:, None])) % 360
        return np.round(angle / 2).astype(int) % 180, np.hypot(x[:, None], y[None, :])


def _run_lengths(missing, radius):
    """Return, for each ray, the length of the run of missing rays to which it belongs, mm."""
    arcs = np.where(missing, radius, 0) * 2 * np.pi / len(missing)
    if missing.all():
        return np.full(len(missing), arcs.sum())
    start = int(np.argmin(missing))
    labels, count = ndimage.label(np.roll(missing, -start))
    totals = ndimage.sum_labels(np.roll(arcs, -start), labels, np.arange(count + 1))
    totals[0] = 0
    return np.roll(totals[labels], start)


def is_stripped(image):
    """Return whether the skull has been removed from a CT of the head.

    Parameters
    ----------
    image : (X, Y, Z) array
        HU.

    Returns
    -------
    bool
        Whether hardly any of the voxels with the density of tissue or bone is bone.

    Examples
    --------
    >>> image = np.zeros((20, 20, 2)); image[5:15, 5:15] = 33.0
    >>> is_stripped(image)
    True
    """
    solid = np.count_nonzero(image > STRIPPED_BONE_HU[0])
    bone = np.count_nonzero(image > STRIPPED_BONE_HU[1])
    return bool(bone < STRIPPED_BONE_SHARE * solid)


def stripped_levels(image):
    """Find the densities of brain and of what surrounds it in a series without skull.

    Parameters
    ----------
    image : (X, Y, Z) array
        HU.

    Returns
    -------
    brain, outside : float
        Most frequent density of brain, and that of the background, HU; of a background darker than
        CSF, the density 40 HU below the brain.

    Examples
    --------
    >>> image = np.full((20, 20, 2), -1024.0); image[5:15, 5:15] = 33.0
    >>> [round(level) for level in stripped_levels(image)]
    [33, -7]
    """
    solid = image[image > -200]
    background = _most_frequent(solid)
    denser = solid > background + STRIPPED_BRAIN_HU
    # the most frequent is brain if the background is air, or if the image is cropped to the brain
    if denser.mean() < STRIPPED_BRAIN_SHARE:
        level, background = background, float(np.percentile(image, 1))
    else:
        level = _most_frequent(solid[denser])
    return level, max(background, level - MOST_CONTRAST_HU)


def _inside_stripped(smooth, voxel_size_mm, closing_mm):
    """Find the brain of a series without skull: what is denser than the background."""
    _, background = stripped_levels(smooth)
    # a background of 0 HU is not darker than CSF, which is closed and filled
    dense = smooth > background + STRIPPED_EDGE_HU
    if not dense.any():
        raise PerfusionError(
            f'brain mask: no skull, and 0 voxels are {STRIPPED_EDGE_HU:g} HU denser than the background '
            f'({background:.0f} HU), need a brain; check that the series is in HU, or supply a --brain-mask'
        )
    brain = largest(ndimage.binary_opening(dense, IN_PLANE))
    return fill_in_plane(close_in_plane(brain, voxel_size_mm, closing_mm))


def _distance_outside(mask, voxel_size_mm):
    """Return each voxel's in-plane distance to a mask, mm; infinite in slices without mask."""
    distance = np.full(mask.shape, np.inf)
    for z in np.flatnonzero(mask.any(axis=(0, 1))):
        distance[..., z] = ndimage.distance_transform_edt(~mask[..., z], voxel_size_mm[:2])
    return distance


def brain_masks(average, baseline, voxel_size_mm, *, bone_hu, csf_level, sulcus_mm=5.0):
    """Find the brain, including sulci and ventricles, without the outer rim of CSF.

    Parameters
    ----------
    average : (X, Y, Z) array
        Time average of the corrected series, HU: less noisy than a single frame, and with more
        contrast between tissue and CSF, since tissue enhances.
    baseline : (X, Y, Z) array
        Reference image without contrast, HU.
    voxel_size_mm : (3,) sequence of float
    bone_hu : float
        HU.
    csf_level : float
        Density below which a voxel is CSF, as a fraction of the way from CSF to brain.
    sulcus_mm : float
        Sulci narrower than twice this distance belong to the brain.

    Returns
    -------
    brain_mask, inside : (X, Y, Z) arrays of bool
        The brain, and the region inside the skull.
    """
    inside = inside_skull(baseline, voxel_size_mm, bone_hu)
    sigma = [0.8 / voxel_size_mm[0], 0.8 / voxel_size_mm[1], 0]
    smooth = ndimage.gaussian_filter(average, sigma)
    csf_hu = density_levels(average, inside, voxel_size_mm).between(csf_level)
    parenchyma = inside & (smooth > csf_hu) & (smooth < SOFT_HU[1])
    # remove specks and strands of meninges without eroding the cortex
    parenchyma = largest(ndimage.binary_opening(parenchyma, IN_PLANE))
    closed = close_in_plane(parenchyma, voxel_size_mm, sulcus_mm)
    return fill_in_plane(closed) & inside, inside


def close_in_plane(mask, voxel_size_mm, radius_mm):
    """Close a mask with a disc in each slice, by distance transforms, exact for any voxel size.

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
        Region inside the skull.
    parenchyma : (X, Y, Z) array of bool
        Voxels whose median peak enhancement is that of brain.
    vessel_ratio : float
        Threshold relative to that median.

    Returns
    -------
    (X, Y, Z) array of bool
    """
    return inside & (peak > vessel_ratio * np.median(peak[parenchyma]))


def tissue_masks(average, brain_mask, vessels, csf, inside, seen, voxel_size_mm, bone_margin_mm):
    """Find tissue, and the part of it not contaminated by vessels or bone.

    Parameters
    ----------
    average : (X, Y, Z) array
        Time average of the corrected series, HU.
    brain_mask, vessels, csf, inside : (X, Y, Z) arrays of bool
        From the other functions of this module.
    seen : (X, Y, Z) array of bool
        Voxels inside the field of view of every usable frame.
    voxel_size_mm : (3,) sequence of float
    bone_margin_mm : float
        Distance from bone within which motion may bring bone into a voxel, mm.

    Returns
    -------
    tissue_mask : (X, Y, Z) array of bool
        Brain without vessels and CSF: the voxels of maps and volumes.
    pure_mask : (X, Y, Z) array of bool
        Tissue away from vessels and bone: the source of denoising.
    """
    tissue = brain_mask & seen & ~vessels & ~csf & (average < SOFT_HU[1])
    off_vessels = tissue & ~ndimage.binary_dilation(vessels, IN_PLANE)
    return tissue, off_vessels & (distance_in_plane(inside, voxel_size_mm) > bone_margin_mm)


def hyperdense_mask(reference, enhancement, tissue_mask, brain_mask, level, voxel_size_mm):
    """Find what is denser than brain and does not enhance: haematoma or calcification.

    It has no flow and would be core. A core is less dense than brain, and a vessel enhances.

    Parameters
    ----------
    reference : (X, Y, Z) array
        Without contrast, HU.
    enhancement : (X, Y, Z) array
        Mean over the scan, HU.
    tissue_mask, brain_mask : (X, Y, Z) arrays of bool
    level : float
        Density of brain, HU.
    voxel_size_mm : (3,) sequence of float

    Returns
    -------
    (X, Y, Z) array of bool
        Part of the tissue, in pieces of at least 1 mL.
    """
    size = np.asarray(voxel_size_mm, dtype=float)
    density = smooth_within(reference, brain_mask, [*(1.5 / size[:2]), 0])
    enhanced = smooth_within(enhancement, brain_mask, ENHANCEMENT_SIGMA_MM / size)
    usual = float(np.median(enhanced[tissue_mask])) if tissue_mask.any() else 0.0
    middle, border = (
        tissue_mask & (density > level + dense) & (enhanced < share * usual)
        for dense, share in zip(HYPERDENSE_HU, HYPERDENSE_SHARE, strict=True)
    )
    labels, count = ndimage.label(ndimage.binary_opening(middle, IN_PLANE))
    if count == 0:
        return np.zeros_like(tissue_mask)
    volumes = np.bincount(labels.ravel()) * np.prod(size) / 1000
    large = volumes >= LEAST_HYPERDENSE_ML
    large[0] = False
    middle = large[labels]
    if not middle.any():
        return middle
    near = ndimage.distance_transform_edt(~middle, size) <= HYPERDENSE_REACH_MM
    return middle | (border & near)


def metal_mask(reference, inside, voxel_size_mm):
    """Find metal in or near the brain: clips, coils, electrodes, plates.

    Parameters
    ----------
    reference : (X, Y, Z) array
        HU.
    inside : (X, Y, Z) array of bool
        Inside of the skull.
    voxel_size_mm : (3,) sequence of float

    Returns
    -------
    (X, Y, Z) array of bool
        Voxels of at least 2500 HU, which bone does not have, within 12 mm of the inside of the skull in
        their slice; dental fillings are farther away.

    Examples
    --------
    >>> reference = np.full((9, 9, 1), 35.0); reference[4, 4:6] = reference[0, 0] = 3000
    >>> int(metal_mask(reference, np.ones((9, 9, 1), bool), (2, 2, 5)).sum())
    2
    """
    dense = np.nan_to_num(reference) >= METAL_HU
    if not dense.any():
        return dense
    labels, _ = ndimage.label(dense, np.ones((3, 3, 3)))
    large = np.bincount(labels.ravel()) * np.prod(voxel_size_mm) / 1000 >= LEAST_METAL_ML
    large[0] = False
    return large[labels] & near_in_plane(inside, voxel_size_mm, METAL_REACH_MM)


def near_in_plane(mask, voxel_size_mm, distance_mm):
    """Widen a mask by a distance in each slice.

    Parameters
    ----------
    mask : (X, Y, Z) array of bool
    voxel_size_mm : (3,) sequence of float
    distance_mm : float

    Returns
    -------
    (X, Y, Z) array of bool
        Slices without the mask remain empty.
    """
    near = distance_in_plane(~mask, voxel_size_mm) <= distance_mm
    return near & mask.any(axis=(0, 1))


def csf_mask(average, brain_mask, voxel_size_mm, levels, csf_level):
    """Find CSF in sulci and ventricles by its density in the time average.

    Parameters
    ----------
    average : (X, Y, Z) array
        Time average of the corrected series, HU.
    brain_mask : (X, Y, Z) array of bool
    voxel_size_mm : (3,) sequence of float
    levels : Levels
        Of the time average.
    csf_level : float
        Density below which a voxel is CSF, as a fraction of the way from CSF to the brain around it:
        in a fresh infarct, whose oedema makes it less dense, CSF must also be less dense.

    Returns
    -------
    (X, Y, Z) array of bool
    """
    sigma = [0.8 / voxel_size_mm[0], 0.8 / voxel_size_mm[1], 0]
    smooth = ndimage.gaussian_filter(average, sigma)
    around = _density_around(smooth, brain_mask, voxel_size_mm, levels, csf_level)
    return brain_mask & (smooth < levels.csf + csf_level * (around - levels.csf))


def _density_around(smooth, region, voxel_size_mm, levels, share):
    """Return the density of tissue around each voxel, HU.

    Tissue is what is denser than a fraction of the way from CSF to the tissue around it; since this
    depends on the result, it is repeated.
    """
    size = np.asarray(voxel_size_mm, dtype=float)
    around = np.full(smooth.shape, levels.brain, dtype=np.float32)
    for _ in range(AROUND_ROUNDS):
        tissue = region & (smooth > levels.csf + share * (around - levels.csf))
        weight = smoothing_weight(tissue, AROUND_MM / size)
        total = ndimage.gaussian_filter(
            np.where(tissue, smooth, 0), AROUND_MM / size, mode='constant', truncate=3.0
        )
        mean = np.divide(total, weight, out=around.copy(), where=weight > 1e-3)
        around = np.clip(mean, *np.add(TISSUE_RANGE_HU, levels.brain)).astype(np.float32)
    return around


def tissue_share(density, tissue_mask, pure_mask, voxel_size_mm):
    """Estimate the tissue fraction of each voxel from its density; the rest is CSF.

    Parameters
    ----------
    density : (X, Y, Z) array
        Density without contrast, HU, with little noise.
    tissue_mask, pure_mask : (X, Y, Z) arrays of bool
        As returned by `tissue_masks`.
    voxel_size_mm : (3,) sequence of float

    Returns
    -------
    (X, Y, Z) array of float32
        ``(HU - CSF) / (HU of the surrounding tissue - 2 - CSF)``, limited to 0.5 to 1; 1 outside
        tissue.

    Notes
    -----
    CSF has no flow, so the curve of a voxel that is half CSF is half that of its tissue. The densities
    of CSF and brain are those of the series itself (`density_levels`). Tissue that is less dense than
    its surroundings by more than 2 HU is mistaken for a mixture with CSF: the border of early oedema
    in part (inside, it also lowers the density of the surroundings), old infarcts completely.

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
    levels = density_levels(density, fill_in_plane(tissue_mask), size)
    around = _density_around(smooth, pure_mask, size, levels, MOSTLY_TISSUE)
    reference = around - LIGHTER_HU
    share = np.clip(
        (smooth - levels.csf) / np.maximum(reference - levels.csf, 1.0), LEAST_TISSUE, 1.0
    )
    return np.where(tissue_mask, share, 1.0).astype(np.float32)
