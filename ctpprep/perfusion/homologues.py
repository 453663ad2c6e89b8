# SPDX-License-Identifier: Apache-2.0
"""Contralateral homologues: register the mirrored reference image and assess the result.

The caller supplies the registration algorithm (`Registration`). This module decides which images
are registered, from which initial transforms, and whether the result is reliable.
"""

import functools
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from ctpprep.perfusion import alignment, brain, grid, symmetry

AIR_HU = -1000.0
# means "outside the slab" in images that cannot contain NaN
FAR_MM = 1e6
# initial transforms: an affine step before the warp helps where the plane is a poor initialization,
# but drifts elsewhere; an affine step from the centres of mass handles heads rotated beyond the search
# range of the plane
STARTS = ('plane', 'plane and affine', 'centres of mass')
# margin of the brain in the registered images: air costs time, mm
MARGIN_MM = 12.0
# value of the interpolated brain mask from which a homologue is in the brain
IN_BRAIN = 0.5


class Registration(Protocol):
    """Interface of the nonrigid registration that the search for homologues uses."""

    def apply_matrix(
        self, array: np.ndarray, affine: np.ndarray, matrix: np.ndarray, outside: float
    ) -> np.ndarray:
        """Resample an image by a (4, 4) matrix from points of the result to points of the image."""

    def align(
        self, fixed: tuple, moving: tuple, matrix: np.ndarray | None = None
    ) -> np.ndarray | None:
        """Find an affine transform of two images, each an (array, affine), or None if that fails.

        It starts at a (4, 4) matrix, or where the centres of mass coincide.
        """

    def register(
        self, fixed: tuple, moving: tuple, start: str, matrix: np.ndarray
    ) -> dict[str, Any] | None:
        """Register two images, each an (array, affine), from the matrix of one of `STARTS`.

        Returns the transforms ``mirror_to_reference`` and ``reference_to_mirror``, or None if the
        registration fails.
        """

    def apply(
        self, array: np.ndarray, affine: np.ndarray, transform: Any, outside: float = 0.0
    ) -> np.ndarray:
        """Resample an image by a transform on its own grid."""


@dataclass(frozen=True)
class Attempt:
    """Result of the mirror registration from one initial transform.

    Attributes
    ----------
    start : str
    transforms : dict
        From `Registration.register`.
    homologues : (X, Y, Z, 3) array
        Patient coordinates of the homologue of each voxel, mm RAS; NaN outside the slab.
    homologue_reference : (X, Y, Z) array
        The mirrored reference image, registered to the reference, HU.
    similarity, folding : float
    misalignment : alignment.Misalignment or None
        Estimated distance between found and true homologues; None for a mirrored perfusion map.
    score : float
        Larger for a better transform: the distance in mm with a negative sign, or the similarity.
    """

    start: str
    transforms: dict
    homologues: np.ndarray
    homologue_reference: np.ndarray
    similarity: float
    folding: float
    misalignment: alignment.Misalignment | None
    score: float


@dataclass(frozen=True)
class MirrorRegistration:
    """The best mirror registration of a series.

    Attributes
    ----------
    best : Attempt or None
        None if the registration failed from every initial transform.
    reflected : (X, Y, Z) array
        The reference reflected across the plane of symmetry, before the warp, HU.
    plane : tuple of (3,) arrays
        Point and unit normal of the plane of symmetry, mm RAS.
    measured : dict
        ``mirror_distance_mm`` and its ``mirror_distance_error_mm``, ``mirror_distances_mm`` (by
        region), ``mirror_similarity``, ``mirror_folding``, ``mirror_start``, ``mirror_attempts``,
        ``withheld`` (why the local maps are withheld; '' if they are not), ``hemisphere_rule`` and,
        if they are withheld, ``hemisphere_plane``.
    """

    best: Attempt | None
    reflected: np.ndarray
    plane: tuple
    measured: dict

    def misaligned(self, most_mm):
        """Return the voxels whose homologues are off by more than a distance; None if unknown."""
        if self.best is None or self.best.misalignment is None:
            return None
        with np.errstate(invalid='ignore'):
            return self.best.misalignment.distance_mm > most_mm

    @property
    def transforms(self):
        """Transforms of the best attempt; empty if local maps are withheld."""
        return {} if self.best is None or self.measured['withheld'] else self.best.transforms


@dataclass(frozen=True)
class Homologues:
    """Hemisphere and homologue of each voxel.

    Attributes
    ----------
    hemispheres : (X, Y, Z) array of int
        1 left, 2 right, 0 outside the brain.
    tissue_share : (X, Y, Z) array or None
        Tissue fraction at the homologue; None without a transform.
    """

    hemispheres: np.ndarray
    tissue_share: np.ndarray | None


def mirror_by_plane(plane, shape, affine):
    """Compute the transform that aligns the mirrored image by a plane of symmetry.

    Parameters
    ----------
    plane : tuple of (3,) arrays
        Point and unit normal, mm RAS.
    shape : (3,) tuple of int
        Shape of the grid on which the image was flipped.
    affine : (4, 4) array

    Returns
    -------
    (4, 4) array
        Points of the reference to points of the mirrored image, mm RAS; rigid.
    """
    point, normal = plane
    reflection, flip = np.eye(4), np.diag([-1.0, 1, 1, 1])
    reflection[:3] = np.column_stack(
        [np.eye(3) - 2 * np.outer(normal, normal), 2 * (point @ normal) * normal]
    )
    flip[0, 3] = shape[0] - 1
    return affine @ flip @ np.linalg.inv(affine) @ reflection


def window_image(image, affine, window, in_plane_mm):
    """Clip an image to a window, shift its lower end to 0, and average it in plane.

    Parameters
    ----------
    image : (X, Y, Z) array
        HU; NaN is set to the lower end.
    affine : (4, 4) array
    window : tuple of float
        HU.
    in_plane_mm : float
        In-plane voxel size of the result, mm.

    Returns
    -------
    array : (X', Y', Z) array
    affine : (4, 4) array
    """
    factors = [max(1, round(in_plane_mm / size)) for size in grid.voxel_size_mm(affine)[:2]]
    shifted = np.clip(np.nan_to_num(image, nan=window[0]), *window) - window[0]
    coarse = grid.average_blocks(shifted, (*factors, 1))
    return coarse, grid.block_affine(affine, (*factors, 1))


def register_mirror(reference, brain_mask, affine, settings, registration, by_density=True):
    """Register the mirrored reference image to the reference and assess the result.

    The first initial transform is the plane of symmetry. If a shift of the mirrored brain would then
    improve the match by much, another is tried: that which brings the mirrored brain closest to the
    brain before any warp, if it is closer than the plane. The result with the least estimated distance
    between found and true homologues among those that do not fold is used (`alignment`). Only the
    brain is registered, at the densities of soft tissue and on a coarse grid, so that skull and
    vessels cannot distort the warp; local maps are smoothed later, so that a finer grid would gain
    nothing.

    Parameters
    ----------
    reference : (X, Y, Z) array
        HU, or a perfusion map instead of a CT.
    brain_mask : (X, Y, Z) array of bool
    affine : (4, 4) array
        Voxel to patient RAS, mm.
    settings : MethodSettings
        Uses the branch ``symmetry``.
    registration : Registration
    by_density : bool
        Whether the reference is in HU; a perfusion map is less similar to its mirror image.

    Returns
    -------
    MirrorRegistration
    """
    method = settings.symmetry
    search = _Search(reference, brain_mask, affine, method, registration, by_density)
    good_enough = -method.mirror_retry_mm if by_density else method.map_retry_similarity
    best, n_tried = search.attempt('plane'), 1
    if best is None or best.score < good_enough:
        for start in search.closer_starts(than_plane=best is not None):
            attempt, n_tried = search.attempt(start), n_tried + 1
            if attempt is not None:
                best = attempt if best is None or attempt.score > best.score else best
                break
    withheld = _withheld_reason(best, method)
    measured = {
        'mirror_similarity': best.similarity if best else 0.0,
        'mirror_folding': best.folding if best else 1.0,
        **_distances(best, brain_mask),
        'mirror_start': best.start if best else None,
        'mirror_attempts': n_tried,
        'withheld': withheld,
        'hemisphere_rule': 'plane of symmetry' if withheld else 'homologues',
    }
    if withheld:
        point, normal = search.plane
        measured['hemisphere_plane'] = {
            'point_mm': np.round(point, 2).tolist(), 'normal': np.round(normal, 4).tolist()
        }  # fmt: skip
    return MirrorRegistration(best, search.reflected('plane'), search.plane, measured)


def _withheld_reason(best, method):
    """Return why local maps are withheld; empty if they are not."""
    if best is None:
        return symmetry.withheld_reason(None, method.mirror_most_folding)
    limits = (
        {'similarity': best.similarity, 'least_similarity': method.map_least_similarity}
        if best.misalignment is None
        else {'distance_mm': best.misalignment.median_mm, 'most_mm': method.mirror_most_mm}
    )
    return symmetry.withheld_reason(best.folding, method.mirror_most_folding, **limits)


def _distances(best, brain_mask):
    """Return the estimated distances over the brain and in its regions, mm."""
    if best is None or best.misalignment is None:
        return {}
    misalignment = best.misalignment
    regions = alignment.by_region(misalignment.distance_mm, brain_mask)
    return {
        'mirror_distance_mm': round(min(misalignment.median_mm, FAR_MM), 2),
        'mirror_distance_error_mm': round(min(misalignment.error_mm, FAR_MM), 2),
        'mirror_distances_mm': regions,
    }


class _Search:
    """Images, plane and initial transforms of one mirror registration."""

    def __init__(self, reference, brain_mask, affine, method, registration, by_density):
        self.reference, self.brain, self.affine = reference, brain_mask, affine
        self.method, self.registration = method, registration
        self.by_density = by_density
        # the windows are fixed, but scanners are not
        self.compared = brain.at_usual_level(reference, brain_mask) if by_density else reference
        self.plane = symmetry.find_symmetry_plane(self.compared, affine, brain_mask)
        self.matrix = functools.cache(self._matrix)
        self.reflected = functools.cache(self._reflected)
        self.closeness = functools.cache(self._closeness)
        self.images = tuple(
            self._windowed(image, mask)
            for image, mask in (
                (self.compared, self.brain),
                (symmetry.mirror(self.compared), symmetry.mirror(self.brain)),
            )
        )

    def _matrix(self, start):
        """Return an initial transform, (4, 4); None if it is not found."""
        if start == 'centres of mass':
            return self.registration.align(*self.images)
        plane = mirror_by_plane(self.plane, self.brain.shape, self.affine)
        return plane if start == 'plane' else self.registration.align(*self.images, plane)

    def _reflected(self, start):
        """Return the mirrored reference image, aligned by an initial transform, HU."""
        return self.registration.apply_matrix(
            symmetry.mirror(self.reference), self.affine, self.matrix(start), AIR_HU
        )

    def _closeness(self, start):
        """Return the score of an initial transform without warp, in the unit of `Attempt.score`."""
        size, reflected = grid.voxel_size_mm(self.affine), self.reflected(start)
        if self.by_density:
            return -alignment.estimate_misalignment(
                self.reference, reflected, self.brain, size
            ).median_mm
        in_brain = self.registration.apply_matrix(
            symmetry.mirror(self.brain.astype(np.float32)), self.affine, self.matrix(start), 0.0
        )
        return symmetry.mirror_similarity(
            self.reference, reflected, self.brain, in_brain > IN_BRAIN, size
        )

    def closer_starts(self, than_plane):
        """Return the other starts, the closest first; if asked for, only those closer than the plane."""
        starts = [start for start in STARTS[1:] if self.matrix(start) is not None]
        if than_plane:
            starts = [s for s in starts if self.closeness(s) > self.closeness('plane')]
        return sorted(starts, key=self.closeness, reverse=True)

    def attempt(self, start):
        """Register from one initial transform and measure the result; None if it fails."""
        transforms = self.registration.register(*self.images, start, self.matrix(start))
        return None if transforms is None else self._measure(start, transforms)

    def _windowed(self, image, mask):
        low, high = self.method.mirror_window_hu
        coarse = window_image(
            np.where(mask, image, low), self.affine, (low, high), self.method.mirror_grid_mm
        )
        return grid.crop_in_plane(*coarse, MARGIN_MM)

    def _measure(self, start, transforms):
        """Compute homologues by a transform, and the similarity of brain and mirrored brain."""
        brain_mask, affine = self.brain, self.affine

        def home(array, outside=0.0):
            return self.registration.apply(
                symmetry.mirror(array), affine, transforms['mirror_to_reference'], outside
            )

        # the warped coordinates of the mirrored grid are the coordinates of the homologues
        coordinates = symmetry.world_coordinates(brain_mask.shape, affine)
        homologues = np.stack([home(coordinates[..., i], FAR_MM) for i in range(3)], axis=-1)
        homologues[(homologues > FAR_MM / 2).any(axis=-1)] = np.nan
        homologue_reference = home(self.reference, AIR_HU)
        homologue_brain = home(brain_mask.astype(np.float32)) > IN_BRAIN
        similarity = symmetry.mirror_similarity(
            self.compared, home(self.compared, AIR_HU), brain_mask, homologue_brain,
            grid.voxel_size_mm(affine),
        )  # fmt: skip
        misalignment = None
        if self.by_density:
            misalignment = alignment.estimate_misalignment(
                self.reference, homologue_reference, brain_mask, grid.voxel_size_mm(affine)
            )
        if not symmetry.swaps_sides(coordinates, homologues, brain_mask):
            similarity = 0.0
            misalignment = misalignment and replace(misalignment, median_mm=np.inf)
        folding = symmetry.folding(homologues, affine, brain_mask)
        score = similarity if misalignment is None else -misalignment.median_mm
        # a transform that folds ranks below all that do not
        if folding > self.method.mirror_most_folding:
            score = -FAR_MM * (1 + folding)
        return Attempt(
            start, transforms, homologues, homologue_reference, similarity, folding, misalignment,
            score,
        )  # fmt: skip


def find_homologues(
    brain_mask, tissue_mask, affine, registration, homologues, transform, plane, misaligned=None
):  # fmt: skip
    """Find the hemisphere of each voxel and the tissue fraction at its homologue.

    Parameters
    ----------
    brain_mask, tissue_mask : (X, Y, Z) arrays of bool
    affine : (4, 4) array
    registration : Registration
    homologues : (X, Y, Z, 3) array or None
        Patient coordinates of the homologues, mm RAS.
    transform : object or None
        Mirror to reference; if None, the plane divides the hemispheres.
    plane : tuple of (3,) sequences or None
        Point and normal of that plane, mm RAS.
    misaligned : (X, Y, Z) array of bool, optional
        Voxels whose homologues are not used, as if they contained no tissue.

    Returns
    -------
    Homologues
    """
    coordinates = symmetry.world_coordinates(brain_mask.shape, affine)
    if transform is None:
        sides = symmetry.hemispheres_by_plane(coordinates, *plane, brain_mask)
        return Homologues(sides, None)
    share = registration.apply(symmetry.mirror(tissue_mask.astype(np.float32)), affine, transform)
    if misaligned is not None:
        share = np.where(misaligned, np.float32(0), share)
    return Homologues(symmetry.hemispheres(coordinates, homologues, brain_mask), share)


def mirror_map(values, affine, registration, transform):
    """Return a map at the contralateral homologue of each voxel.

    Parameters
    ----------
    values : (X, Y, Z) array
    affine : (4, 4) array
    registration : Registration
    transform : object
        Mirror to reference.

    Returns
    -------
    (X, Y, Z) array
        Linear interpolation.
    """
    return registration.apply(symmetry.mirror(values), affine, transform)
