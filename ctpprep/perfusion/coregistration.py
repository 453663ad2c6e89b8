# SPDX-License-Identifier: Apache-2.0
"""Is left in a series or in maps also left in the CT beside them, and is it the same head?

A mirrored series contradicts nothing in its own file. Beside the non-contrast CT (NCCT) of the session it
does, as far as the head is not symmetric: after registration, the mirror image of the series then fits
better than the series. Precomputed maps have no skull, but an outline, ventricles and sulci.
"""

from typing import NamedTuple

import numpy as np
from scipy import ndimage, optimize
from scipy.spatial.transform import Rotation

from ctpprep.exceptions import PerfusionError
from ctpprep.perfusion import brain, grid, symmetry

# the mirror image leaves less of the variance unexplained by this factor: 4 to 14 in a real head and a
# phantom that are mirrored, 1.3 in a symmetric template; the second must fit by the first limit, and the
# other by the second, since otherwise its registration has failed
LEAST_RATIO, LEAST_FIT, LEAST_OTHER_FIT = 2.0, 0.9, 0.6
# fewer common voxels are not compared
LEAST_SEEN = 1000
# in place of a correlation, where maps and CT hardly overlap or do not vary
NOT_COVERED = -1.0

# maps and CT are compared on blocks of about this size in plane and through it, mm
BLOCK_MM, BLOCK_THROUGH_MM = 3.5, 4.0
# they are compared inside the skull and this far around it, where maps have no values, mm
AROUND_MM = 8.0
# flow or volume of blood from which a voxel is treated as tissue in full, relative to the median: more is a
# matter of grey matter, vessels and lesions, which the CT does not show
FULL_SHARE = 0.7
# densities beyond those of CSF and brain that are not noise of either, HU
BEYOND_HU = 15.0
# how far maps may be from the CT whose space they are in: they are moved until they fit best, mm, degrees
REACH = np.array([15.0, 15.0, 15.0, 3.0, 3.0, 3.0])
# before maps are refused as mirrored: a patient who moved between the scans, mm, degrees; and the turns
# about the long axis from which this is searched, degrees
WIDE_REACH, WIDE_TURNS = np.array([20.0, 20.0, 20.0, 15.0, 15.0, 20.0]), (-12.0, -6.0, 6.0, 12.0)
# steps of the first simplex, mm and degrees
FIRST_STEPS = (4.0, 4.0, 3.0, 2.0, 2.0, 2.0)
# points that are compared, and fewest of them that the maps must cover
MOST_POINTS, LEAST_COVERED = 5000, 0.3
# maps with values in more of what is farther from the skull than any misalignment have no outline
FAR_MM, MOST_FAR = 25.0, 0.1
# the mirror image of maps fits at least so well, and leaves less of the variance unexplained by this
# factor (decision 0048)
LEAST_FIT_OF_MAPS, LEAST_RATIO_OF_MAPS = 0.6, 1.08


def likeness(placed, ncct, head):
    """Correlate the densities of a registered image with those of the NCCT.

    Parameters
    ----------
    placed : (X, Y, Z) array
        Reference image on the grid of the NCCT, both in the same window; NaN outside its field of view.
    ncct : (X, Y, Z) array
    head : (X, Y, Z) array of bool

    Returns
    -------
    float
        Pearson correlation in the head; NaN if hardly any of it is in both images.
    """
    seen = head & np.isfinite(placed)
    if np.count_nonzero(seen) < LEAST_SEEN or not np.ptp(placed[seen]) or not np.ptp(ncct[seen]):
        return float('nan')
    return float(np.corrcoef(placed[seen], ncct[seen])[0, 1])


def fits_clearly_better(first, second):
    """Return whether one correlation with the NCCT leaves much less unexplained than another.

    Parameters
    ----------
    first, second : float
        From `likeness`; NaN is never clear.

    Returns
    -------
    bool
    """
    return bool(first >= LEAST_FIT and 1 - second > LEAST_RATIO * (1 - first))


def check_ncct(volume, name):
    """Check that an image can be a non-contrast CT in HU, before the series is registered to it.

    Parameters
    ----------
    volume : (X, Y, Z) array
        HU.
    name : str
        File name, for messages.

    Raises
    ------
    PerfusionError
        As `brain.check_density`.

    Examples
    --------
    >>> check_ncct(np.zeros((4, 4, 4)), 'ncct.nii')
    Traceback (most recent call last):
    ...
    ctpprep.exceptions.PerfusionError: ncct.nii: density: every voxel is 0 HU, need a CT of a head ...
    """
    try:
        brain.check_density(volume)
    except PerfusionError as error:
        raise PerfusionError(f'{name}: {error}') from error


def check_side(own, mirrored, name):
    """Refuse a series whose mirror image fits the NCCT clearly better.

    Parameters
    ----------
    own, mirrored : float
        Correlation of the series, and of its mirror image, with the NCCT, by `likeness`.
    name : str
        File name of the NCCT, for messages.

    Raises
    ------
    PerfusionError

    Examples
    --------
    >>> check_side(0.979, 0.910, 'ncct.nii')
    >>> check_side(0.910, 0.979, 'ncct.nii')
    Traceback (most recent call last):
    ...
    ctpprep.exceptions.PerfusionError: ncct.nii: the mirror image of the series fits it better ...
    """
    if fits_clearly_better(mirrored, own) and own >= LEAST_OTHER_FIT:
        raise PerfusionError(
            f'{name}: the mirror image of the series fits it better (correlation {mirrored:.3f}) than the '
            f'series ({own:.3f}); one is mirrored: check both affines (--affine-from sform or qform), or '
            'remove that CT'
        )


class MapLikeness(NamedTuple):
    """How well perfusion maps fit a CT.

    Attributes
    ----------
    own, mirrored : float
        Pearson correlation of the maps, and of their mirror image, with the tissue in the CT.
    turned : float
        That of the maps if they may be turned as far as a patient moves between two scans; computed
        only if the mirror image seems to fit better.
    """

    own: float
    mirrored: float
    turned: float = NOT_COVERED

    @property
    def seems_mirrored(self):
        """Whether the mirror image fits clearly better."""
        own = max(self.own, self.turned)
        worse = 1 - own > LEAST_RATIO_OF_MAPS * (1 - self.mirrored)
        return self.mirrored >= LEAST_FIT_OF_MAPS and worse


def compare_maps(blood, density, affine, bone_hu):
    """Compare perfusion maps, and their mirror image, with the brain in a CT of the same space.

    Blood is where tissue is: both show the outline of the brain, ventricles and sulci. Where a map
    has at least 0.7 of its median, it is like tissue in the CT; low flow below that is a lesion or CSF. The
    maps are moved rigidly by up to 15 mm and 3 degrees, so that a small error of their alignment does not
    matter. Their mirror image is that of their array. If it fits better, the maps may be turned by up to
    20 degrees: a symmetric head that lies askew also fits its mirror image better if the patient moved.

    Parameters
    ----------
    blood : (X, Y, Z) array
        CBV, or CBF; NaN or 0 where there is no value.
    density : (X, Y, Z) array
        CT on the same grid, HU.
    affine : (4, 4) array
        Voxel to patient RAS, mm.
    bone_hu : float
        Density above which a voxel is bone, HU.

    Returns
    -------
    MapLikeness or None
        None if there is no brain inside bone, or if the maps have values all around the brain.

    Notes
    -----
    Takes about a second.
    """
    size = grid.voxel_size_mm(affine)
    blocks = [max(1, round(BLOCK_MM / length)) for length in size[:2]]
    blocks.append(max(1, int(BLOCK_THROUGH_MM / size[2])))
    coarse = grid.block_affine(affine, blocks)
    size = grid.voxel_size_mm(coarse)
    ct = grid.average_blocks(np.asarray(density, np.float32), blocks)
    values = np.nan_to_num(blood)
    full = np.clip(values / np.median(values[values > 0]), 0, FULL_SHARE) / FULL_SHARE
    filled = grid.average_blocks(full.astype(np.float32), blocks)
    try:
        inside = brain.inside_skull(ct, size, bone_hu)
        levels = brain.density_levels(ct, inside, size)
    except PerfusionError:
        return None
    distance = _distance_outside(inside, size)
    far = distance > FAR_MM
    if np.count_nonzero(filled[far] > 0.5) > MOST_FAR * np.count_nonzero(far):
        return None
    pairs = _Pairs(ct, inside, levels, distance < AROUND_MM, filled, coarse)
    likeness = MapLikeness(pairs.fit(mirrored=False), pairs.fit(mirrored=True))
    if likeness.seems_mirrored:
        turned = [pairs.fit(mirrored=False, reach=WIDE_REACH, turn=turn) for turn in WIDE_TURNS]
        likeness = likeness._replace(turned=max(turned))
    known = min(likeness.own, likeness.mirrored) > NOT_COVERED
    return likeness if known and np.isfinite(likeness).all() else None


def check_maps(likeness, name):
    """Refuse maps whose mirror image fits the CT clearly better, and describe the comparison.

    Parameters
    ----------
    likeness : MapLikeness
    name : str
        File name of the CT, for messages.

    Returns
    -------
    str
        Sentence with both values.

    Raises
    ------
    PerfusionError

    Examples
    --------
    >>> check_maps(MapLikeness(0.85, 0.79), 'ncct.nii')
    'the maps fit ncct.nii with a correlation of 0.850, their mirror image with 0.790'
    >>> check_maps(MapLikeness(0.79, 0.85), 'ncct.nii')
    Traceback (most recent call last):
    ...
    ctpprep.exceptions.PerfusionError: ncct.nii: the mirror image of the maps fits it better ...
    """
    own, mirrored = likeness.own, likeness.mirrored
    if likeness.seems_mirrored:
        raise PerfusionError(
            f'{name}: the mirror image of the maps fits it better (correlation {mirrored:.3f}) than the '
            f'maps ({own:.3f}); one is mirrored: check both affines (--affine-from sform or qform), or '
            'remove that CT'
        )
    doubt = '; the head is too symmetric for its sides to be compared'
    return (
        f'the maps fit {name} with a correlation of {own:.3f}, their mirror image with {mirrored:.3f}'
        + (doubt if 1 - mirrored < LEAST_RATIO_OF_MAPS * (1 - own) else '')
    )


def _distance_outside(mask, voxel_size_mm):
    """Return the distance to a mask in its slice, mm; infinite in slices without it."""
    distance = np.full(mask.shape, np.inf)
    for z in np.flatnonzero(mask.any(axis=(0, 1))):
        distance[..., z] = ndimage.distance_transform_edt(
            ~mask[..., z], sampling=voxel_size_mm[:2]
        )
    return distance


class _Pairs:
    """The tissue in a CT and the values of maps at the same points, after moving the maps."""

    def __init__(self, ct, inside, levels, around, filled, affine):
        smooth = ndimage.gaussian_filter(
            np.clip(ct, levels.csf - BEYOND_HU, levels.brain + BEYOND_HU), (0.5, 0.5, 0)
        )
        tissue = np.clip((smooth - levels.csf) / (levels.brain - levels.csf), -0.2, 1.2)
        points = symmetry.world_coordinates(ct.shape, affine)[around].astype(float)
        step = max(1, len(points) // MOST_POINTS)
        self.points, self.tissue = points[::step], np.where(inside, tissue, 0.0)[around][::step]
        self.centre = points.mean(axis=0)
        self.filled, self.inverse = filled, np.linalg.inv(affine)

    def fit(self, mirrored, reach=REACH, turn=0.0):
        """Return the best correlation within a reach, searched from a turn about the long axis."""

        def unlikeness(pose):
            within = np.clip(pose, -reach, reach)
            return np.abs(pose - within).sum() - self._correlate(within, mirrored)

        start = np.array([0.0, 0.0, 0.0, 0.0, 0.0, turn])
        simplex = start + np.vstack([np.zeros(6), np.diag(FIRST_STEPS)])
        best = optimize.minimize(
            unlikeness, start, method='Nelder-Mead',
            options={'initial_simplex': simplex, 'xatol': 0.1, 'fatol': 1e-4, 'maxiter': 300},
        )  # fmt: skip
        return -float(best.fun)

    def _correlate(self, pose, mirrored):
        points = self.points - self.centre
        if mirrored:
            points = points * (-1, 1, 1)
        turn = Rotation.from_euler('xyz', pose[3:], degrees=True).as_matrix()
        points = points @ turn.T + self.centre + pose[:3]
        x, y, z = (points @ self.inverse[:3, :3].T + self.inverse[:3, 3]).T
        top = self.filled.shape[2] - 1
        seen = (z >= -0.5) & (z <= top + 0.5)
        if np.count_nonzero(seen) < LEAST_COVERED * len(points):
            return NOT_COVERED
        at = np.stack([x, y, np.clip(z, 0, top)])[:, seen]
        values = ndimage.map_coordinates(self.filled, at, order=1)
        if not (np.ptp(values) and np.ptp(self.tissue[seen])):
            return NOT_COVERED
        return float(np.corrcoef(values, self.tissue[seen])[0, 1])
