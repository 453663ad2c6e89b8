# SPDX-License-Identifier: Apache-2.0
"""Left and right: mirroring, hemispheres from homologues, and the affected side."""

from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy import ndimage

from ctpprep.perfusion import grid
from ctpprep.perfusion.denoising import smooth_within

LEFT, RIGHT = 1, 2
# how the reason begins for which there are no local maps
WITHHELD = 'withheld: '
# densities of brain and CSF
SOFT_TISSUE_HU = (0.0, 60.0)
# fewer voxels of brain in both images, or less of the brain, are no overlap
LEAST_OVERLAP, LEAST_OVERLAP_SHARE = 100, 0.3
# no pair of hemispheres differs by more than this factor in local volume
MOST_VOLUME_CHANGE = 5.0
# what is compared by similarity: density smoothed by the first, less that smoothed by the second
SIMILARITY_SIGMAS_MM = (2.0, 15.0)
# the plane of symmetry: grid and smoothing on which it is looked for, in plane, and how far: yaw and
# roll in degrees, shift in mm
PLANE_BLOCK_MM, PLANE_SIGMA_MM, LOCAL_MEAN_MM = 5.0, 4.0, 8.0
PLANE_REACH = (25.0, 25.0, 12.0)
SIDES = {'left': LEFT, 'right': RIGHT}
OTHER_SIDE = {'left': 'right', 'right': 'left'}
# medians that differ by less tell nothing: so much lies between healthy hemispheres, s
CLEAR_S = 0.5
# hypoperfusion that covers this share of the tissue of a hemisphere, and is so many times as large
# as on the other side, names the side
LEAST_SLOW_SHARE, TIMES_LARGER = 0.01, 2.0


def mirror(volume):
    """Flip a volume left-right on its own grid.

    Parameters
    ----------
    volume : (X, Y, Z, ...) array
        First axis left to right.

    Returns
    -------
    (X, Y, Z, ...) array

    Examples
    --------
    >>> mirror(np.arange(3))
    array([2, 1, 0])
    """
    return np.flip(volume, axis=0)


def world_coordinates(shape, affine):
    """Return the patient coordinates of every voxel.

    Parameters
    ----------
    shape : (3,) tuple of int
    affine : (4, 4) array

    Returns
    -------
    (X, Y, Z, 3) array of float32
        mm, RAS.

    Examples
    --------
    >>> world_coordinates((2, 1, 1), np.diag([3, 3, 5, 1]))[1, 0, 0]
    array([3., 0., 0.], dtype=float32)
    """
    grids = np.meshgrid(*(np.arange(size) for size in shape[:3]), indexing='ij')
    voxels = np.stack(grids, axis=-1).astype(np.float64)
    affine = np.asarray(affine, dtype=np.float64)
    return (voxels @ affine[:3, :3].T + affine[:3, 3]).astype(np.float32)


def hemispheres(coordinates, homologues, brain_mask):
    """Tell each voxel's hemisphere from where its homologue lies.

    The border is where a voxel is its own homologue, so it follows a tilted or bent midline.

    Parameters
    ----------
    coordinates : (X, Y, Z, 3) array
        Patient coordinates of the voxels, mm RAS.
    homologues : (X, Y, Z, 3) array
        Patient coordinates of their homologues, mm RAS; NaN where they are unknown.
    brain_mask : (X, Y, Z) array of bool

    Returns
    -------
    (X, Y, Z) array of uint8
        1 left, 2 right, 0 outside the brain.
    """
    known = np.isfinite(homologues).all(axis=-1)
    right = coordinates[..., 0] >= homologues[..., 0]
    if known.any() and not known.all():
        # a homologue beyond the slab: the side of the nearest voxel that has one
        nearest = ndimage.distance_transform_edt(
            ~known, return_distances=False, return_indices=True
        )
        right = right[tuple(nearest)]
    return np.where(brain_mask, np.where(right, RIGHT, LEFT), 0).astype(np.uint8)


def find_symmetry_plane(image, affine, brain_mask):
    """Find the plane across which the brain is most like its own reflection.

    A plane has three numbers where a rigid map has six and an affine one twelve, so a lesion or
    the bend of a midline can turn it less. What is compared is density above its local mean (8 mm):
    sulci and ventricles, and not that one side is darker. All planes within 20 degrees and 10 mm of
    the middle of the brain are tried in steps of 5 degrees and 5 mm, on blocks of about 5 mm; the
    best one is refined by a simplex.

    Parameters
    ----------
    image : (X, Y, Z) array
        Reference image, HU.
    affine : (4, 4) array
    brain_mask : (X, Y, Z) array of bool

    Returns
    -------
    point, normal : (3,) arrays
        A point of the plane, mm RAS, and its unit normal, to the right.

    Notes
    -----
    Takes half a second. A mask of which hardly anything is left on coarse blocks is divided
    through its middle.
    """
    from scipy.optimize import minimize

    sizes = np.linalg.norm(np.asarray(affine, dtype=float)[:3, :3], axis=0)
    blocks = (*(max(1, round(PLANE_BLOCK_MM / size)) for size in sizes[:2]), 1)
    coarse_affine = grid.block_affine(affine, blocks)
    to_voxels = np.linalg.inv(coarse_affine)
    shown = np.where(brain_mask, np.clip(np.nan_to_num(image), *SOFT_TISSUE_HU), 0.0)
    density, share = (grid.average_blocks(each, blocks) for each in (shown, brain_mask * 1.0))
    brain = share > 0.5
    if brain.sum() < LEAST_OVERLAP:
        where = world_coordinates(brain_mask.shape, affine)[brain_mask]
        return where.mean(axis=0, dtype=float), np.array([1.0, 0.0, 0.0])

    def smooth(array, sigma_mm):
        sigma = (*(sigma_mm / (sizes[:2] * blocks[:2])), 0.0)
        return ndimage.gaussian_filter(array, sigma, mode='constant')

    local_mean = smooth(density, LOCAL_MEAN_MM) / np.maximum(smooth(share, LOCAL_MEAN_MM), 1e-3)
    contrast = smooth(density - local_mean * share, PLANE_SIGMA_MM)
    points = world_coordinates(brain.shape, coarse_affine)[brain].astype(float)
    middle, here, top = points.mean(axis=0), contrast[brain], brain.shape[2] - 1

    def plane(yaw, roll, shift):
        slopes = np.array([1.0, np.tan(np.radians(yaw)), np.tan(np.radians(roll))])
        normal = slopes / np.linalg.norm(slopes)
        return middle + shift * normal, normal

    def unlikeness(parameters):
        if (np.abs(parameters) > PLANE_REACH).any():
            return 1.0
        point, normal = plane(*parameters)
        x, y, z = (reflect(points, point, normal) @ to_voxels[:3, :3].T + to_voxels[:3, 3]).T
        seen = (z >= -0.5) & (z <= top + 0.5)  # beyond the slab nothing can be compared
        if seen.sum() < LEAST_OVERLAP:
            return 1.0
        at = np.stack([x, y, np.clip(z, 0, top)])[:, seen]
        there = ndimage.map_coordinates(contrast, at, order=1, mode='constant')
        if not (np.ptp(there) and np.ptp(here[seen])):
            return 1.0
        return -np.corrcoef(here[seen], there)[0, 1]

    angles, shifts = np.arange(-20.0, 21, 5), np.arange(-10.0, 11, 5)
    start = np.array(min(product(angles, angles, shifts), key=unlikeness))
    simplex = start + np.vstack([np.zeros(3), 3 * np.eye(3)])
    found = minimize(
        unlikeness, start, method='Nelder-Mead',
        options={'initial_simplex': simplex, 'xatol': 0.05, 'fatol': 1e-5, 'maxiter': 200},
    )  # fmt: skip
    return plane(*found.x)


def reflect(points, point, normal):
    """Reflect points across a plane.

    Parameters
    ----------
    points : (..., 3) array
        mm.
    point, normal : (3,) arrays
        Of the plane; the normal has unit length.

    Returns
    -------
    (..., 3) array

    Examples
    --------
    >>> reflect(np.array([5.0, 1, 2]), np.array([2.0, 0, 0]), np.array([1.0, 0, 0]))
    array([-1.,  1.,  2.])
    """
    return points - 2 * ((points - point) @ normal)[..., None] * normal


def hemispheres_by_plane(coordinates, point, normal, brain_mask):
    """Divide the brain by a plane, where homologues cannot be trusted.

    Parameters
    ----------
    coordinates : (X, Y, Z, 3) array
        Patient coordinates of the voxels, mm RAS.
    point, normal : (3,) sequences of float
        Of the plane; the normal shows to the right.
    brain_mask : (X, Y, Z) array of bool

    Returns
    -------
    (X, Y, Z) array of uint8
        1 left, 2 right, 0 outside the brain.
    """
    right = (coordinates - np.asarray(point)) @ np.asarray(normal) >= 0
    return np.where(brain_mask, np.where(right, RIGHT, LEFT), 0).astype(np.uint8)


def swaps_sides(coordinates, homologues, brain_mask):
    """Tell whether homologues lie left and right of one another, and not above or in front.

    Parameters
    ----------
    coordinates, homologues : (X, Y, Z, 3) arrays
        Patient coordinates of the voxels and of their homologues, mm RAS; NaN where unknown.
    brain_mask : (X, Y, Z) array of bool

    Returns
    -------
    bool
        False also if no homologue is known.
    """
    apart = (coordinates - homologues)[brain_mask & np.isfinite(homologues).all(axis=-1)]
    across, *others = (apart.astype(float) ** 2).sum(axis=0)
    return bool(across > sum(others))


def mirror_similarity(reference, homologue_reference, brain_mask, homologue_brain, voxel_size_mm):
    """Correlate the brain with its mirrored self.

    Noise would lower the figure and the outline of the brain raise it: both images are smoothed
    over brain by 2 mm in plane, at the densities of soft tissue. A lesion lowers it though the
    homologues are right: what counts is density above its local mean (15 mm in plane), which sulci
    and ventricles shape.

    Parameters
    ----------
    reference, homologue_reference : (X, Y, Z) arrays
        Reference image, and the mirrored one brought home, HU.
    brain_mask, homologue_brain : (X, Y, Z) arrays of bool
        Brain in either.
    voxel_size_mm : (3,) sequence of float

    Returns
    -------
    float
        Pearson correlation; 0 if less than 30 % of the brain, or less than 100 voxels, meet brain, or if
        either has no contrast.
    """
    both = brain_mask & homologue_brain
    if both.sum() < max(LEAST_OVERLAP, LEAST_OVERLAP_SHARE * brain_mask.sum()):
        return 0.0
    fine, wide = (
        (mm / voxel_size_mm[0], mm / voxel_size_mm[1], 0.0) for mm in SIMILARITY_SIGMAS_MM
    )
    contrasts = []
    for image in (reference, homologue_reference):
        density = np.clip(image, *SOFT_TISSUE_HU)
        contrasts.append(
            (smooth_within(density, both, fine) - smooth_within(density, both, wide))[both]
        )
    # below rounding there is nothing to compare
    if min(np.std(contrasts, axis=1)) < 1e-3:
        return 0.0
    return float(np.corrcoef(contrasts)[0, 1])


def volume_change(homologues, affine):
    """Compute by how much the mirror registration stretches each voxel: the Jacobian determinant.

    Parameters
    ----------
    homologues : (X, Y, Z, 3) array
        Patient coordinates of each voxel's homologue, mm RAS; NaN where they are unknown.
    affine : (4, 4) array

    Returns
    -------
    (X, Y, Z) array
        Volume at the homologue over volume of the voxel, by central differences; 1 for a rigid
        mirror, 0 or less where the map folds over itself, NaN where a neighbour is unknown.

    Examples
    --------
    >>> where = world_coordinates((4, 4, 4), np.diag([2, 2, 5, 1]))
    >>> volume_change(where * (-1, 0.5, 1), np.diag([2, 2, 5, 1]))[1, 1, 1]
    np.float64(0.5)
    """
    columns = [
        np.gradient(homologues, axis=axis)
        if homologues.shape[axis] > 1
        else np.broadcast_to(affine[:3, axis], homologues.shape)  # one voxel has no slope
        for axis in range(3)
    ]
    jacobian = np.stack(columns, axis=-1).astype(np.float64)
    volume = np.linalg.det(np.asarray(affine, dtype=float)[:3, :3])
    with np.errstate(invalid='ignore'):  # where a neighbour is unknown
        # a mirror turns right hands into left ones: its determinant is negative
        return -np.linalg.det(jacobian) / volume


def folding(homologues, affine, mask):
    """Measure the share of a mask in which the mirror registration is no map of a brain.

    That is where it folds over itself, or changes volume by more than a factor of 5.

    Parameters
    ----------
    homologues : (X, Y, Z, 3) array
        Patient coordinates of each voxel's homologue, mm RAS; NaN where they are unknown.
    affine : (4, 4) array
    mask : (X, Y, Z) array of bool

    Returns
    -------
    float
        Share of the voxels whose homologue is known; 1 if there is none.
    """
    change = volume_change(homologues, affine)[mask]
    change = change[np.isfinite(change)]
    if not change.size:
        return 1.0
    return float(1 - np.mean((change > 1 / MOST_VOLUME_CHANGE) & (change < MOST_VOLUME_CHANGE)))


def withheld_reason(similarity, folded, *, least_similarity, most_folding):
    """Judge a mirror registration.

    Parameters
    ----------
    similarity : float or None
        Of brain and mirrored brain, correlation; None if there is no registration.
    folded : float or None
        Share of the brain that `folding` finds.
    least_similarity, most_folding : float
        Limits.

    Returns
    -------
    str
        Why the local maps are withheld; empty if the registration is trusted.

    Examples
    --------
    >>> withheld_reason(0.8, 0.0, least_similarity=0.6, most_folding=0.05)
    ''
    >>> withheld_reason(0.31, 0.0, least_similarity=0.6, most_folding=0.05)
    'withheld: the mirrored brain does not match the brain (correlation 0.31, at least 0.6 needed)'
    """
    if similarity is None:
        return f'{WITHHELD}the mirrored brain could not be registered to the brain'
    if not similarity >= least_similarity:
        return (
            f'{WITHHELD}the mirrored brain does not match the brain (correlation {similarity:.2f}, '
            f'at least {least_similarity:g} needed)'
        )
    if folded > most_folding:
        return (
            f'{WITHHELD}the mirror registration folds over itself or tears in {folded:.1%} of the '
            f'brain (at most {most_folding:.1%} allowed)'
        )
    return ''


@dataclass(frozen=True)
class AffectedSide:
    """Which hemisphere is affected, by which rule, and how sure that is.

    Attributes
    ----------
    side : str
        'left' or 'right'.
    tmax_left, tmax_right : float
        Median Tmax of each hemisphere, s.
    confidence : float or None
        None for a side that the user named; else 0 to 1. By the medians: how often a random voxel of
        the affected side has the longer Tmax of a random pair, scaled so that chance is 0. By
        hypoperfusion: the difference of its volumes over their sum.
    rule : {'median', 'hypoperfusion', 'asked for'}
    """

    side: str
    tmax_left: float
    tmax_right: float
    confidence: float | None
    rule: str = 'median'


def affected_side(tmax, hemisphere, tissue_mask, *, hypoperfusion_tmax):
    """Find the affected hemisphere: the one with the greater median Tmax (Rau et al. 2024).

    A lesion in less than half of a hemisphere hardly moves its median. So where the medians differ
    by less than 0.5 s, the hemisphere with at least twice the hypoperfused tissue of the other is the
    affected one, if that tissue is 1 % of the hemisphere or more; without it the medians decide all the
    same.

    Parameters
    ----------
    tmax : (X, Y, Z) array
        s.
    hemisphere : (X, Y, Z) array
        1 left, 2 right.
    tissue_mask : (X, Y, Z) array of bool
    hypoperfusion_tmax : float
        Tmax above which tissue is hypoperfused, s.

    Returns
    -------
    AffectedSide
        With confidence 0 if the medians decide against the hypoperfusion.

    Examples
    --------
    >>> tmax = np.array([1.0, 2, 3, 6, 7, 8])
    >>> affected_side(tmax, np.array([2, 2, 2, 1, 1, 1]), np.ones(6, bool), hypoperfusion_tmax=6)
    AffectedSide(side='left', tmax_left=7.0, tmax_right=2.0, confidence=1.0, rule='median')
    """
    both = {name: tmax[tissue_mask & (hemisphere == label)] for name, label in SIDES.items()}
    medians = {name: float(np.median(each)) if each.size else 0.0 for name, each in both.items()}
    side = 'left' if medians['left'] > medians['right'] else 'right'
    found = (medians['left'], medians['right'])
    if not all(each.size for each in both.values()):
        return AffectedSide(side, *found, 0.0)
    slow = {name: np.count_nonzero(each > hypoperfusion_tmax) for name, each in both.items()}
    more, less = sorted(slow, key=slow.__getitem__, reverse=True)
    telling = (
        slow[more] >= LEAST_SLOW_SHARE * both[more].size
        and slow[more] >= TIMES_LARGER * slow[less]
    )
    if telling and abs(medians['left'] - medians['right']) < CLEAR_S:
        sure = (slow[more] - slow[less]) / (slow[more] + slow[less])
        return AffectedSide(more, *found, round(float(sure), 4), 'hypoperfusion')
    if telling and more != side:
        return AffectedSide(side, *found, 0.0)
    # takes half a second to import, which start-up need not pay
    from scipy.stats import rankdata

    ranks = rankdata(np.concatenate([both['left'], both['right']]))
    sizes = both['left'].size, both['right'].size
    pairs = ranks[: sizes[0]].sum() - sizes[0] * (sizes[0] + 1) / 2
    left_longer = 2 * pairs / (sizes[0] * sizes[1]) - 1
    sure = left_longer if side == 'left' else -left_longer
    return AffectedSide(side, *found, round(float(np.clip(sure, 0, 1)), 4))
