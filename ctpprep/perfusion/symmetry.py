# SPDX-License-Identifier: Apache-2.0
"""Left and right: mirroring, hemispheres by homologues, and the affected side."""

import functools
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy import ndimage

from ctpprep.perfusion import grid
from ctpprep.perfusion.denoising import smooth_within

LEFT, RIGHT = 1, 2
# start of the reason why there are no local maps
WITHHELD = 'withheld: '
# densities of brain and CSF
SOFT_TISSUE_HU = (0.0, 60.0)
# least overlap of brain and mirrored brain: voxels, fraction of the brain
LEAST_OVERLAP, LEAST_OVERLAP_SHARE = 100, 0.3
# largest plausible factor of local volume between the hemispheres
MOST_VOLUME_CHANGE = 5.0
# similarity compares density smoothed by the first minus density smoothed by the second
SIMILARITY_SIGMAS_MM = (2.0, 15.0)
# search for the plane of symmetry: in-plane grid and smoothing; range of yaw and roll in degrees, and
# of shift in mm
PLANE_BLOCK_MM, PLANE_SIGMA_MM, LOCAL_MEAN_MM = 5.0, 4.0, 8.0
PLANE_REACH = (25.0, 25.0, 12.0)
# number of points that are compared before the refinement
SEARCH_POINTS = 1500
SIDES = {'left': LEFT, 'right': RIGHT}
OTHER_SIDE = {'left': 'right', 'right': 'left'}
# smaller differences of median Tmax also occur between healthy hemispheres, s
CLEAR_S = 0.5
# hypoperfusion determines the side if it covers this fraction of the tissue of a hemisphere, and is
# this many times as large as on the other side
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
    """Find the hemisphere of each voxel from the position of its homologue.

    The border runs where voxels are their own homologues, so it follows a tilted or bent midline.

    Parameters
    ----------
    coordinates : (X, Y, Z, 3) array
        Patient coordinates of the voxels, mm RAS.
    homologues : (X, Y, Z, 3) array
        Patient coordinates of their homologues, mm RAS; NaN where unknown.
    brain_mask : (X, Y, Z) array of bool

    Returns
    -------
    (X, Y, Z) array of uint8
        1 left, 2 right, 0 outside the brain.
    """
    known = np.isfinite(homologues).all(axis=-1)
    right = coordinates[..., 0] >= homologues[..., 0]
    if known.any() and not known.all():
        # where the homologue is outside the slab, use the side of the nearest voxel that has one
        nearest = ndimage.distance_transform_edt(
            ~known, return_distances=False, return_indices=True
        )
        right = right[tuple(nearest)]
    return np.where(brain_mask, np.where(right, RIGHT, LEFT), 0).astype(np.uint8)


def find_symmetry_plane(image, affine, brain_mask):
    """Find the plane across which the brain is most like its own reflection.

    A plane has three parameters, a rigid transform six and an affine one twelve, so a lesion or a
    bent midline distorts a plane least. Density above its local mean (8 mm) is compared, so that
    sulci and ventricles matter, but not a difference in density between the sides. All planes
    within 20 degrees and 10 mm of the centre of the brain are tried in steps of 5 degrees and 5 mm,
    on blocks of about 5 mm; the best is refined by the simplex method.

    Parameters
    ----------
    image : (X, Y, Z) array
        Reference image, HU.
    affine : (4, 4) array
    brain_mask : (X, Y, Z) array of bool

    Returns
    -------
    point, normal : (3,) arrays
        A point of the plane, mm RAS, and its unit normal, which points to the right.

    Notes
    -----
    Takes half a second. If hardly any of the mask remains on the coarse blocks, the plane is the
    sagittal plane through its centre.
    """
    from scipy.optimize import minimize

    sizes = np.linalg.norm(np.asarray(affine, dtype=float)[:3, :3], axis=0)
    blocks = (*(max(1, round(PLANE_BLOCK_MM / size)) for size in sizes[:2]), 1)
    coarse_affine = grid.block_affine(affine, blocks)
    to_voxels = np.linalg.inv(coarse_affine)
    shown = np.where(brain_mask, np.clip(np.nan_to_num(image), *SOFT_TISSUE_HU), 0.0)
    density, share = (grid.average_blocks(volume, blocks) for volume in (shown, brain_mask * 1.0))
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
    middle, values, top = points.mean(axis=0), contrast[brain], brain.shape[2] - 1

    def plane(yaw, roll, shift):
        slopes = np.array([1.0, np.tan(np.radians(yaw)), np.tan(np.radians(roll))])
        normal = slopes / np.linalg.norm(slopes)
        return middle + shift * normal, normal

    def unlikeness(parameters, step=1):
        if (np.abs(parameters) > PLANE_REACH).any():
            return 1.0
        point, normal = plane(*parameters)
        reflected_points = reflect(points[::step], point, normal)
        x, y, z = (reflected_points @ to_voxels[:3, :3].T + to_voxels[:3, 3]).T
        seen = (z >= -0.5) & (z <= top + 0.5)  # outside the slab nothing can be compared
        if seen.sum() < LEAST_OVERLAP:
            return 1.0
        at, own = np.stack([x, y, np.clip(z, 0, top)])[:, seen], values[::step][seen]
        reflected = ndimage.map_coordinates(contrast, at, order=1, mode='constant')
        if not (np.ptp(reflected) and np.ptp(own)):
            return 1.0
        return -np.corrcoef(own, reflected)[0, 1]

    # the search over the grid needs only some of the points
    sparse = functools.partial(unlikeness, step=max(1, len(points) // SEARCH_POINTS))

    angles, shifts = np.arange(-20.0, 21, 5), np.arange(-10.0, 11, 5)
    start = np.array(min(product(angles, angles, shifts), key=sparse))
    simplex = start + np.vstack([np.zeros(3), 3 * np.eye(3)])
    optimum = minimize(
        unlikeness, start, method='Nelder-Mead',
        options={'initial_simplex': simplex, 'xatol': 0.05, 'fatol': 1e-5, 'maxiter': 200},
    )  # fmt: skip
    return plane(*optimum.x)


def reflect(points, point, normal):
    """Reflect points across a plane.

    Parameters
    ----------
    points : (..., 3) array
        mm.
    point, normal : (3,) arrays
        A point of the plane and its unit normal.

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
    """Divide the brain by a plane; for brains whose mirror registration failed.

    Parameters
    ----------
    coordinates : (X, Y, Z, 3) array
        Patient coordinates of the voxels, mm RAS.
    point, normal : (3,) sequences of float
        A point of the plane and its normal, which points to the right.
    brain_mask : (X, Y, Z) array of bool

    Returns
    -------
    (X, Y, Z) array of uint8
        1 left, 2 right, 0 outside the brain.
    """
    right = (coordinates - np.asarray(point)) @ np.asarray(normal) >= 0
    return np.where(brain_mask, np.where(right, RIGHT, LEFT), 0).astype(np.uint8)


def swaps_sides(coordinates, homologues, brain_mask):
    """Return whether voxels and homologues are mainly left and right of one another.

    Parameters
    ----------
    coordinates, homologues : (X, Y, Z, 3) arrays
        Patient coordinates of the voxels and of their homologues, mm RAS; NaN where unknown.
    brain_mask : (X, Y, Z) array of bool

    Returns
    -------
    bool
        False if they are mainly apart along another axis, or if no homologue is known.
    """
    apart = (coordinates - homologues)[brain_mask & np.isfinite(homologues).all(axis=-1)]
    across, *others = (apart.astype(float) ** 2).sum(axis=0)
    return bool(across > sum(others))


def mirror_similarity(reference, homologue_reference, brain_mask, homologue_brain, voxel_size_mm):
    """Correlate the brain with the mirrored brain.

    Both images are clipped to the densities of soft tissue and smoothed within the brain by 2 mm in
    plane, since noise would lower the correlation and the outline of the brain would raise it. Since
    a lesion lowers it even where the homologues are correct, density above its local mean (15 mm in
    plane) is compared, which reflects mainly sulci and ventricles.

    Parameters
    ----------
    reference, homologue_reference : (X, Y, Z) arrays
        Reference image, and the mirrored one registered to it, HU.
    brain_mask, homologue_brain : (X, Y, Z) arrays of bool
        Brain in each of them.
    voxel_size_mm : (3,) sequence of float

    Returns
    -------
    float
        Pearson correlation; 0 if less than 30 % of the brain or fewer than 100 voxels overlap, or if
        either image has no contrast.
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
    # a contrast at the level of rounding errors cannot be compared
    if min(np.std(contrasts, axis=1)) < 1e-3:
        return 0.0
    return float(np.corrcoef(contrasts)[0, 1])


def volume_change(homologues, affine):
    """Compute the volume change of each voxel by the mirror registration (Jacobian determinant).

    Parameters
    ----------
    homologues : (X, Y, Z, 3) array
        Patient coordinates of each voxel's homologue, mm RAS; NaN where unknown.
    affine : (4, 4) array

    Returns
    -------
    (X, Y, Z) array
        Volume at the homologue over volume of the voxel, by central differences; 1 for a rigid
        mirror, 0 or less where the transform folds, NaN where a neighbour is unknown.

    Examples
    --------
    >>> where = world_coordinates((4, 4, 4), np.diag([2, 2, 5, 1]))
    >>> volume_change(where * (-1, 0.5, 1), np.diag([2, 2, 5, 1]))[1, 1, 1]
    np.float64(0.5)
    """
    columns = [
        np.gradient(homologues, axis=axis)
        if homologues.shape[axis] > 1
        else np.broadcast_to(affine[:3, axis], homologues.shape)  # a single voxel has no gradient
        for axis in range(3)
    ]
    jacobian = np.stack(columns, axis=-1).astype(np.float64)
    volume = np.linalg.det(np.asarray(affine, dtype=float)[:3, :3])
    with np.errstate(invalid='ignore'):  # where a neighbour is unknown
        # the determinant of a reflection is negative
        return -np.linalg.det(jacobian) / volume


def folding(homologues, affine, mask):
    """Measure the fraction of a mask in which the mirror registration is not plausible.

    That is where it folds, or changes volume by more than a factor of 5.

    Parameters
    ----------
    homologues : (X, Y, Z, 3) array
        Patient coordinates of each voxel's homologue, mm RAS; NaN where unknown.
    affine : (4, 4) array
    mask : (X, Y, Z) array of bool

    Returns
    -------
    float
        Fraction of the voxels whose homologue is known; 1 if there are none.
    """
    change = volume_change(homologues, affine)[mask]
    change = change[np.isfinite(change)]
    if not change.size:
        return 1.0
    return float(1 - np.mean((change > 1 / MOST_VOLUME_CHANGE) & (change < MOST_VOLUME_CHANGE)))


def withheld_reason(folded, most_folding, *, distance_mm=None, most_mm=None, similarity=None,
                    least_similarity=None):  # fmt: skip
    """Assess a mirror registration, by distance or, of a mirrored perfusion map, by similarity.

    Parameters
    ----------
    folded : float or None
        Result of `folding`, fraction of the brain; None if the registration failed.
    most_folding : float
        Limit.
    distance_mm, most_mm : float, optional
        Estimated distance between found and true homologues, and its limit, mm.
    similarity, least_similarity : float, optional
        Correlation of brain and mirrored brain, and its limit.

    Returns
    -------
    str
        Why the local maps are withheld; empty if they are not.

    Examples
    --------
    >>> withheld_reason(0.0, 0.05, distance_mm=1.2, most_mm=5.0)
    ''
    >>> withheld_reason(0.0, 0.05, distance_mm=6.31, most_mm=5.0)
    'withheld: homologues are off by about 6.3 mm (at most 5 mm allowed)'
    """
    if folded is None:
        return f'{WITHHELD}the mirrored brain could not be registered to the brain'
    if distance_mm is not None and not distance_mm <= most_mm:
        return f'{WITHHELD}homologues are off by about {distance_mm:.1f} mm (at most {most_mm:g} mm allowed)'
    if similarity is not None and not similarity >= least_similarity:
        return (
            f'{WITHHELD}the mirrored map does not match the map (correlation {similarity:.2f}, '
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
    """The affected hemisphere, the rule that determined it, and the confidence in it.

    Attributes
    ----------
    side : str
        'left' or 'right'.
    tmax_left, tmax_right : float
        Median Tmax of each hemisphere, s.
    confidence : float or None
        None for a side chosen by the user; else 0 to 1. By the medians: how often, in random pairs,
        the voxel of the affected side has the longer Tmax, scaled so that chance is 0. By
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

    A lesion in less than half of a hemisphere hardly changes its median. If the medians differ by
    less than 0.5 s, the affected hemisphere is therefore the one with at least twice the hypoperfused
    tissue of the other, provided that this is at least 1 % of its tissue; otherwise the medians
    decide.

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
        With confidence 0 if the medians decide, but hypoperfusion is on the other side.

    Examples
    --------
    >>> tmax = np.array([1.0, 2, 3, 6, 7, 8])
    >>> affected_side(tmax, np.array([2, 2, 2, 1, 1, 1]), np.ones(6, bool), hypoperfusion_tmax=6)
    AffectedSide(side='left', tmax_left=7.0, tmax_right=2.0, confidence=1.0, rule='median')
    """
    both = {name: tmax[tissue_mask & (hemisphere == label)] for name, label in SIDES.items()}
    medians = {
        name: float(np.median(values)) if values.size else 0.0 for name, values in both.items()
    }
    side = 'left' if medians['left'] > medians['right'] else 'right'
    left_right = (medians['left'], medians['right'])
    if not all(values.size for values in both.values()):
        return AffectedSide(side, *left_right, 0.0)
    slow = {name: np.count_nonzero(values > hypoperfusion_tmax) for name, values in both.items()}
    more, less = sorted(slow, key=slow.__getitem__, reverse=True)
    clear = (
        slow[more] >= LEAST_SLOW_SHARE * both[more].size
        and slow[more] >= TIMES_LARGER * slow[less]
    )
    if clear and abs(medians['left'] - medians['right']) < CLEAR_S:
        sure = (slow[more] - slow[less]) / (slow[more] + slow[less])
        return AffectedSide(more, *left_right, round(float(sure), 4), 'hypoperfusion')
    if clear and more != side:
        return AffectedSide(side, *left_right, 0.0)
    # takes half a second to import, so not at start-up
    from scipy.stats import rankdata

    ranks = rankdata(np.concatenate([both['left'], both['right']]))
    sizes = both['left'].size, both['right'].size
    pairs = ranks[: sizes[0]].sum() - sizes[0] * (sizes[0] + 1) / 2
    left_longer = 2 * pairs / (sizes[0] * sizes[1]) - 1
    sure = left_longer if side == 'left' else -left_longer
    return AffectedSide(side, *left_right, round(float(np.clip(sure, 0, 1)), 4))
