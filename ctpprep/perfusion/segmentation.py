# SPDX-License-Identifier: Apache-2.0
"""Core, hypoperfusion and mismatch by threshold, opening, closing and removal of artefacts.

Source: Rau et al., AJNR 2024;45:277, doi:10.3174/ajnr.A8111. The core threshold of 30 % is not
validated for locally normalized maps.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ctpprep.perfusion.brain import close_in_plane, distance_in_plane, fill_in_plane
from ctpprep.perfusion.denoising import smooth_within
from ctpprep.perfusion.symmetry import SIDES

# voxels that share a face, an edge or a corner are connected
CONNECTED = np.ones((3, 3, 3), bool)
# sulci narrower than twice this distance are inside the surface of the brain, mm
SULCUS_MM = 5.0
# density expected at the homologue, relative to the median of tissue, HU
EXPECTED_RANGE_HU = (-5.0, 2.0)
# largest fraction of the slab that its end slices may be
MOST_ENDS = 1 / 3


@dataclass(frozen=True)
class Border:
    """Regions in which lesions are often artefacts of partial volume, bone or motion.

    Attributes
    ----------
    surface : (X, Y, Z) array of bool
        Near the outer surface of the brain.
    ends : (X, Y, Z) array of bool
        Near the first or the last slice that contains tissue.
    """

    surface: np.ndarray
    ends: np.ndarray


@dataclass(frozen=True)
class Lesion:
    """A segmented lesion, and the artefacts removed from it.

    Attributes
    ----------
    mask : (X, Y, Z) array of bool
        The lesion.
    specks, rims : (X, Y, Z) arrays of bool
        Artefacts that were removed.
    unrestricted : (X, Y, Z) array of bool
        The lesion before it was restricted to hypoperfusion.
    """

    mask: np.ndarray
    specks: np.ndarray
    rims: np.ndarray
    unrestricted: np.ndarray


def ellipsoid(radius_mm, voxel_size_mm):
    """Return the structuring element of a ball on an anisotropic grid.

    Parameters
    ----------
    radius_mm : float
        Radius, mm.
    voxel_size_mm : (3,) sequence of float

    Returns
    -------
    (A, B, C) array of bool
        Voxels whose centre is within the radius; a single voxel if the radius is below the spacing.

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
    """Open a mask to remove specks, then close it to fill gaps.

    Parameters
    ----------
    mask : (X, Y, Z) array of bool
    within : (X, Y, Z) array of bool
        Voxels that the result may include: tissue of the side.
    voxel_size_mm : (3,) sequence of float
    opening_mm, closing_mm : float
        Radii, mm.
    fill : bool
        Whether to fill holes within each slice.

    Returns
    -------
    (X, Y, Z) array of bool
    """
    opened = _open(mask, ellipsoid(opening_mm, voxel_size_mm))
    result = np.zeros_like(within)
    if not opened.any():
        return result
    # closing stays within the box of the mask
    box = ndimage.find_objects(opened.astype(np.uint8))[0]
    reach = ellipsoid(closing_mm, voxel_size_mm)
    # a margin keeps the erosion of the closing from removing the first and last slice
    margin = [(n, n) for n in reach.shape]
    closed = ndimage.binary_closing(np.pad(opened[box], margin), reach)
    closed = closed[tuple(slice(n, -n) for n in reach.shape)]
    result[box] = (fill_in_plane(closed) if fill else closed) & within[box]
    return result


def _open(mask, element):
    """Open a mask as if its first and last slice continued beyond the slab."""
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
        Tissue of both hemispheres; its holes and sulci are not part of the surface.
    voxel_size_mm : (3,) sequence of float
    rim_mm : float
        Depth of the border, mm; 0 for none.

    Returns
    -------
    Border
        Voxels whose centre is nearer than `rim_mm` to the face of the nearest voxel outside, in plane
        or through plane. If slices are at least twice
        as thick as `rim_mm`, there are no end slices.

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
    # the brain continues beyond the slab: only surfaces above or below within the slab are real
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

    A speck is smaller than the smallest lesion. A rim is a component along the border: its deeper
    part is a small fraction of it and too small for a lesion, and its part in the end slices away
    from the surface is smaller than `slab_end_ml`. A component that overlaps hypoperfusion is never
    removed as a rim, so that a cortical infarct within hypoperfusion is retained.

    Parameters
    ----------
    mask : (X, Y, Z) array of bool
    border : Border
    voxel_size_mm : (3,) sequence of float
    least_lesion_ml : float
        Volume of the smallest lesion, mL; 0 keeps all specks.
    rim_deep_share : float
        Fraction of a component deeper than the border from which it is not a rim.
    slab_end_ml : float
        Volume in the end slices from which a component is not a rim, mL.
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
    """Segment a lesion from thresholded tissue: open, close, remove specks and rims, restrict.

    Takes a few milliseconds for a box around a hemisphere: for repeated calls, crop all arrays to the
    same box after `find_border`.

    Parameters
    ----------
    candidate : (X, Y, Z) array of bool
        Voxels that pass the threshold.
    within : (X, Y, Z) array of bool
        Assessable tissue of the affected side.
    voxel_size_mm : (3,) sequence of float
    border : Border
    opening_mm, closing_mm : float
        mm.
    least_lesion_ml, rim_deep_share, slab_end_ml : float
        As in `find_artefacts`.
    fill : bool
        Whether to fill holes within each slice.
    hypoperfusion : (X, Y, Z) array of bool, optional
        Components that overlap it are not removed as rims.
    restrict : bool
        Whether to restrict the lesion to hypoperfusion; the result is not cleaned again.

    Returns
    -------
    Lesion
    """
    cleaned = open_close(
        candidate & within, within, voxel_size_mm, opening_mm=opening_mm, closing_mm=closing_mm,
        fill=fill,
    )  # fmt: skip
    specks, rims = find_artefacts(
        cleaned, border, voxel_size_mm, least_lesion_ml=least_lesion_ml,
        rim_deep_share=rim_deep_share, slab_end_ml=slab_end_ml, hypoperfusion=hypoperfusion,
    )  # fmt: skip
    lesion = cleaned & ~specks & ~rims
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
        Whether to restrict core to hypoperfusion, unlike the paper.
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
    """Segment hypoperfusion: Tmax above a threshold.

    Holes within each slice are filled: where hardly any contrast arrives, the residue function is
    noise and the time of its maximum is arbitrary.

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


def join_core(hypoperfusion, core):
    """Add the core that borders on hypoperfusion to it.

    Where hardly any contrast arrives, Tmax is not determined: within an infarct it is that of noise
    or of contrast nearby, often near 0 s, although no tissue is perfused worse.

    Parameters
    ----------
    hypoperfusion, core : (X, Y, Z) arrays of bool

    Returns
    -------
    (X, Y, Z) array of bool
        Core that does not border on hypoperfusion is not added: it may be low flow of another cause.

    Examples
    --------
    >>> hypoperfusion = np.zeros((8, 1, 1), bool); hypoperfusion[:3] = True
    >>> core = np.zeros((8, 1, 1), bool); core[[2, 3, 4, 6, 7]] = True
    >>> np.flatnonzero(join_core(hypoperfusion, core))
    array([0, 1, 2, 3, 4])
    """
    labels, _ = ndimage.label(hypoperfusion | core, CONNECTED)
    met = np.unique(labels[hypoperfusion])
    return hypoperfusion | np.isin(labels, met[met > 0])


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

    Densities are smoothed in plane within tissue. The density of the homologue is limited to that of
    tissue (26 to 33 HU); without a homologue, the middle of that range is used.

    Parameters
    ----------
    reference : (X, Y, Z) array
        Reference image without contrast, HU.
    tissue_mask : (X, Y, Z) array of bool
        Tissue without CSF, so that the cavity of an old infarct is excluded.
    voxel_size_mm : (3,) sequence of float
    homologue_reference, homologue_tissue : (X, Y, Z) arrays, optional
        The reference image at the homologue of each voxel, HU, and the tissue fraction there.
    hypodense_hu : float
        Least difference, HU. Acute core is 2 to 5 HU less dense, old infarcts are close to CSF.
    hypodense_sigma_mm : float
        Sigma of the smoothing, mm.

    Returns
    -------
    (X, Y, Z) array of bool

    Examples
    --------
    >>> reference = np.full((9, 9, 2), 31.0); reference[:4] = 18.0
    >>> mask = np.ones(reference.shape, bool)
    >>> hypodense = find_hypodense(reference, mask, (2, 2, 5), hypodense_hu=8, hypodense_sigma_mm=0)
    >>> np.flatnonzero(hypodense.any(axis=(1, 2)))
    array([0, 1, 2, 3])
    """
    sigma = [hypodense_sigma_mm / size for size in voxel_size_mm[:2]] + [0.0]
    level = float(np.median(reference[tissue_mask])) if tissue_mask.any() else 0.0
    least, most = np.add(EXPECTED_RANGE_HU, level)
    expected = np.full(reference.shape, (least + most) / 2, dtype=np.float32)
    if homologue_reference is not None and homologue_tissue is not None:
        known = homologue_tissue > 0.5
        smooth = smooth_within(homologue_reference, known, sigma)
        expected[known] = np.clip(smooth[known], least, most)
    return tissue_mask & (smooth_within(reference, tissue_mask, sigma) < expected - hypodense_hu)
