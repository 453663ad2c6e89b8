# SPDX-License-Identifier: Apache-2.0
"""Core, hypoperfusion and mismatch by threshold, opening, closing and removal of what is no lesion.

Source: Rau et al., AJNR 2024;45:277, doi:10.3174/ajnr.A8111. A core of 30 % is not validated for
locally normalized maps.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ctpprep.perfusion.brain import TISSUE_HU, close_in_plane, distance_in_plane, fill_in_plane
from ctpprep.perfusion.denoising import smooth_within
from ctpprep.perfusion.symmetry import SIDES

# voxels that share a face, an edge or a corner belong together
CONNECTED = np.ones((3, 3, 3), bool)
# sulci narrower than twice this lie within the surface of the brain, mm
SULCUS_MM = 5.0
# where the end slices make more than this share of the slab, they are the slab and no ends
MOST_ENDS = 1 / 3


@dataclass(frozen=True)
class Border:
    """Where lesions are often artefacts of partial volume, bone and motion.

    Attributes
    ----------
    surface : (X, Y, Z) array of bool
        Near the outer surface of the brain.
    ends : (X, Y, Z) array of bool
        Near the first or the last slice with tissue.
    """

    surface: np.ndarray
    ends: np.ndarray


@dataclass(frozen=True)
class Lesion:
    """A segmented lesion, and what was found besides and is no part of it.

    Attributes
    ----------
    mask : (X, Y, Z) array of bool
        The lesion.
    specks, rims : (X, Y, Z) arrays of bool
        What was removed.
    unrestricted : (X, Y, Z) array of bool
        The lesion before it was restricted to another one.
    """

    mask: np.ndarray
    specks: np.ndarray
    rims: np.ndarray
    unrestricted: np.ndarray


def ellipsoid(radius_mm, voxel_size_mm):
    """Make the structuring element of a ball on an anisotropic grid.

    Parameters
    ----------
    radius_mm : float
        Radius, mm.
    voxel_size_mm : (3,) sequence of float

    Returns
    -------
    (A, B, C) array of bool
        Voxels whose centre lies within the radius; a single voxel when it is below the spacing.

    Examples
    --------
    >>> ellipsoid(2.0, (2, 2, 5)).sum()
    np.int64(5)
    """
    reach = [int(np.floor(radius_mm / size + 1e-6)) for size in voxel_size_mm]
    axes = np.meshgrid(
        *(np.arange(-n, n + 1) * size for n, size in zip(reach, voxel_size_mm, strict=True)),
        indexing='ij',
    )
    return sum(axis**2 for axis in axes) <= radius_mm**2 + 1e-6


def open_close(mask, within, voxel_size_mm, *, opening_mm, closing_mm, fill=False):
    """Remove specks by opening, then fill gaps by closing.

    Parameters
    ----------
    mask : (X, Y, Z) array of bool
    within : (X, Y, Z) array of bool
        Voxels that closing may fill: tissue of the side.
    voxel_size_mm : (3,) sequence of float
    opening_mm, closing_mm : float
        Radii, mm.
    fill : bool
        Whether what the result encloses in a slice belongs to it.

    Returns
    -------
    (X, Y, Z) array of bool
    """
    opened = _open(mask, ellipsoid(opening_mm, voxel_size_mm))
    reach = ellipsoid(closing_mm, voxel_size_mm)
    # closing erodes from the array's edge: a margin keeps it from eating the first and last slice
    margin = [(n, n) for n in reach.shape]
    closed = ndimage.binary_closing(np.pad(opened, margin), reach)
    inner = tuple(slice(n, -n) for n in reach.shape)
    found = closed[inner]
    return (fill_in_plane(found) if fill else found) & within


def _open(mask, element):
    """Open a mask that goes on beyond the slab as it is in its first and last slice."""
    margin = [(n // 2, n // 2) for n in element.shape]
    opened = ndimage.binary_opening(np.pad(mask, margin, mode='edge'), element)
    return opened[
        tuple(
            slice(n // 2, n // 2 + size) for n, size in zip(element.shape, mask.shape, strict=True)
        )
    ]


def within_side(tissue_mask, hemisphere, side):
    """Restrict tissue to a hemisphere.

    Parameters
    ----------
    tissue_mask : (X, Y, Z) array of bool
    hemisphere : (X, Y, Z) array
        1 left, 2 right.
    side : {'left', 'right', 'both'}

    Returns
    -------
    (X, Y, Z) array of bool
    """
    if side == 'both':
        return tissue_mask & (hemisphere > 0)
    return tissue_mask & (hemisphere == SIDES[side])


def find_border(tissue_mask, voxel_size_mm, rim_mm):
    """Find the tissue near the outer surface of the brain and near the ends of the slab.

    Parameters
    ----------
    tissue_mask : (X, Y, Z) array of bool
        Of both hemispheres; its holes and sulci are no surface.
    voxel_size_mm : (3,) sequence of float
    rim_mm : float
        Depth of the border, mm; 0 for none.

    Returns
    -------
    Border
        Voxels whose centre is nearer than `rim_mm` to the face of the nearest voxel outside, in the
        slice or along the slices. Slices of twice that thickness are too thick to be a rim.

    Examples
    --------
    >>> border = find_border(np.ones((9, 9, 9), bool), (2, 2, 5), 5)
    >>> np.flatnonzero(border.ends.any(axis=(0, 1)))
    array([0, 8])
    """
    surface, ends = (np.zeros(tissue_mask.shape, bool) for _ in range(2))
    slices = np.flatnonzero(tissue_mask.any(axis=(0, 1)))
    if rim_mm <= 0 or not slices.size:
        return Border(surface, ends)
    slab = slice(slices[0], slices[-1] + 1)
    brain = fill_in_plane(close_in_plane(tissue_mask[..., slab], voxel_size_mm, SULCUS_MM))
    depth = distance_in_plane(brain, voxel_size_mm) - min(voxel_size_mm[:2]) / 2
    count = int(np.ceil(rim_mm / voxel_size_mm[2] - 0.5 - 1e-6))
    # the slab goes on beyond its ends: only what lies above or below within it is a surface
    covered = ndimage.binary_erosion(brain, np.ones((1, 1, 2 * count + 1), bool), border_value=1)
    surface[..., slab] = brain & ((depth < rim_mm) | ~covered)
    if count and 2 * count <= MOST_ENDS * brain.shape[2]:
        brain[..., count:-count] = False
        ends[..., slab] = brain
    return Border(surface, ends)


def find_artefacts(
    mask,
    border,
    voxel_size_mm,
    *,
    least_lesion_ml,
    rim_deep_share,
    slab_end_ml,
    hypoperfusion=None,
):
    """Find the specks and rims of a mask, by connected component.

    A speck is smaller than a lesion has to be. A rim lies along the border: what lies deeper is a
    small share of it and no lesion by itself, and less than `slab_end_ml` lies in the end slices off
    the surface. What meets hypoperfusion is no rim: an infarct of the cortex within slow tissue stays.

    Parameters
    ----------
    mask : (X, Y, Z) array of bool
    border : Border
    voxel_size_mm : (3,) sequence of float
    least_lesion_ml : float
        Smallest lesion, mL; 0 keeps all specks.
    rim_deep_share : float
        Share of a component below the border from which it is no rim.
    slab_end_ml : float
        Smallest lesion that is believed if it lies in the end slices alone, mL.
    hypoperfusion : (X, Y, Z) array of bool, optional

    Returns
    -------
    specks, rims : (X, Y, Z) arrays of bool
    """
    labels, count = ndimage.label(mask, CONNECTED)
    if count == 0:
        return np.zeros_like(mask), np.zeros_like(mask)
    voxel_ml = np.prod(np.asarray(voxel_size_mm, dtype=float)) / 1000

    def ml(where):
        return np.bincount(labels[where], minlength=count + 1) * voxel_ml

    whole, deep = ml(mask), ml(mask & ~border.surface & ~border.ends)
    speck = whole < least_lesion_ml
    rim = ~speck & (deep < rim_deep_share * whole)
    rim &= (deep == 0) | (deep < least_lesion_ml)
    rim &= ml(mask & border.ends & ~border.surface) < slab_end_ml
    if hypoperfusion is not None:
        rim &= ml(mask & hypoperfusion) == 0
    speck[0] = rim[0] = False
    return speck[labels], rim[labels]


def segment(
    candidate, within, voxel_size_mm, border, *, opening_mm, closing_mm, least_lesion_ml,
    rim_deep_share, slab_end_ml, fill=False, hypoperfusion=None, restrict=False,
):  # fmt: skip
    """Make a lesion of thresholded tissue: open, close, remove specks and rims, restrict.

    Some milliseconds on a box around a hemisphere: crop all arrays alike, after `find_border`.

    Parameters
    ----------
    candidate : (X, Y, Z) array of bool
        What passes the threshold.
    within : (X, Y, Z) array of bool
        Assessable tissue of the affected side.
    voxel_size_mm : (3,) sequence of float
    border : Border
    opening_mm, closing_mm : float
        mm.
    least_lesion_ml, rim_deep_share, slab_end_ml : float
        As in `find_artefacts`.
    fill : bool
        Whether what the lesion encloses in a slice belongs to it.
    hypoperfusion : (X, Y, Z) array of bool, optional
        What meets it is no rim.
    restrict : bool
        Whether the lesion ends where hypoperfusion ends; what that leaves is not cleaned again.

    Returns
    -------
    Lesion
    """
    found = open_close(
        candidate & within, within, voxel_size_mm, opening_mm=opening_mm, closing_mm=closing_mm,
        fill=fill,
    )  # fmt: skip
    specks, rims = find_artefacts(
        found, border, voxel_size_mm, least_lesion_ml=least_lesion_ml,
        rim_deep_share=rim_deep_share, slab_end_ml=slab_end_ml, hypoperfusion=hypoperfusion,
    )  # fmt: skip
    lesion = found & ~specks & ~rims
    return Lesion(lesion & hypoperfusion if restrict else lesion, specks, rims, lesion)


def segment_core(
    relative, within, voxel_size_mm, border, *, core_rcbf, hypoperfusion,
    core_within_hypoperfusion, **cleaning,
):  # fmt: skip
    """Segment the infarct core: relative CBF below a fraction.

    Parameters
    ----------
    relative : (X, Y, Z) array
        Relative CBF, global or local, fraction.
    within : (X, Y, Z) array of bool
        Assessable tissue of the affected side.
    voxel_size_mm : (3,) sequence of float
    border : Border
    core_rcbf : float
        Threshold, fraction.
    hypoperfusion : (X, Y, Z) array of bool
    core_within_hypoperfusion : bool
        Whether core is restricted to hypoperfusion; not so in the paper.
    **cleaning
        ``opening_mm``, ``closing_mm``, ``least_lesion_ml``, ``rim_deep_share`` and
        ``slab_end_ml`` of `segment`.

    Returns
    -------
    Lesion
    """
    return segment(
        relative < core_rcbf, within, voxel_size_mm, border, hypoperfusion=hypoperfusion,
        restrict=core_within_hypoperfusion, **cleaning,
    )  # fmt: skip


def segment_hypoperfusion(tmax, within, voxel_size_mm, border, *, hypoperfusion_tmax, **cleaning):
    """Segment hypoperfusion: Tmax above a number of seconds.

    Tissue that hypoperfusion encloses in its slice belongs to it: where hardly any contrast arrives,
    the residue function is noise and its maximum may lie anywhere.

    Parameters
    ----------
    tmax : (X, Y, Z) array
        s; never normalized.
    within : (X, Y, Z) array of bool
        Tissue of the affected side.
    voxel_size_mm : (3,) sequence of float
    border : Border
    hypoperfusion_tmax : float
        Threshold, s.
    **cleaning
        ``opening_mm``, ``closing_mm``, ``least_lesion_ml``, ``rim_deep_share`` and
        ``slab_end_ml`` of `segment`.

    Returns
    -------
    Lesion
    """
    return segment(tmax > hypoperfusion_tmax, within, voxel_size_mm, border, fill=True, **cleaning)


def segment_mismatch(hypoperfusion, core):
    """Return hypoperfused tissue that is not core.

    Parameters
    ----------
    hypoperfusion, core : (X, Y, Z) arrays of bool

    Returns
    -------
    (X, Y, Z) array of bool
    """
    return hypoperfusion & ~core


def find_hypodense(
    reference, tissue_mask, voxel_size_mm, homologue_reference=None, homologue_tissue=None,
    *, hypodense_hu, hypodense_sigma_mm,
):  # fmt: skip
    """Find tissue that is far less dense than its homologue: an old infarct, not an early one.

    Densities are smoothed over tissue within the slice. A homologue counts as no lighter and no denser
    than tissue is (26 to 33 HU); where there is none, the middle of that range stands in.

    Parameters
    ----------
    reference : (X, Y, Z) array
        Reference image without contrast, HU.
    tissue_mask : (X, Y, Z) array of bool
        Without CSF: the cavity of an old infarct is not in it.
    voxel_size_mm : (3,) sequence of float
    homologue_reference, homologue_tissue : (X, Y, Z) arrays, optional
        The reference image at each voxel's homologue, HU, and the share of tissue there.
    hypodense_hu : float
        Least difference, HU. Fresh core is 2 to 5 HU lighter, old infarcts are near CSF.
    hypodense_sigma_mm : float
        Sigma of the smoothing, mm.

    Returns
    -------
    (X, Y, Z) array of bool

    Examples
    --------
    >>> reference = np.full((9, 9, 2), 31.0); reference[:4] = 18.0
    >>> mask = np.ones(reference.shape, bool)
    >>> found = find_hypodense(reference, mask, (2, 2, 5), hypodense_hu=8, hypodense_sigma_mm=0)
    >>> np.flatnonzero(found.any(axis=(1, 2)))
    array([0, 1, 2, 3])
    """
    sigma = [hypodense_sigma_mm / size for size in voxel_size_mm[:2]] + [0.0]
    expected = np.full(reference.shape, np.mean(TISSUE_HU), dtype=np.float32)
    if homologue_reference is not None and homologue_tissue is not None:
        known = homologue_tissue > 0.5
        smooth = smooth_within(homologue_reference, known, sigma)
        expected[known] = np.clip(smooth[known], *TISSUE_HU)
    return tissue_mask & (smooth_within(reference, tissue_mask, sigma) < expected - hypodense_hu)
