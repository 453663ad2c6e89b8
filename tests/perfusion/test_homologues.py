# SPDX-License-Identifier: Apache-2.0
"""The search for homologues, with registrations of known quality instead of ANTs."""

import dataclasses

import numpy as np
import pytest
from scipy import ndimage

from ctpprep.perfusion import alignment, homologues, symmetry
from ctpprep.perfusion.homologues import FAR_MM, STARTS
from ctpprep.settings import MethodSettings

SHAPE, SIZE = (40, 48, 8), (4.0, 4.0, 8.0)
AFFINE = np.diag([*SIZE, 1.0])
AFFINE[:3, 3] = -(np.array(SHAPE) - 1) / 2 * SIZE
METHOD = MethodSettings()


def translation(x_mm):
    """Return the matrix of a shift from left to right."""
    matrix = np.eye(4)
    matrix[0, 3] = x_mm
    return matrix


class Shift:
    """Stands in for a registration: its transforms are shifts in voxels, one per start.

    None means that nothing is found. The map that is found from one of the starts `folds_at` folds.
    The plane is off by `plane_mm`; the affine steps that start from it, and from the centres of mass,
    are off by `affine_mm`, and find nothing where that is None.
    """

    def __init__(self, *shifts, folds_at=(), plane_mm=8.0, affine_mm=(0.0, 0.0)):
        self.shifts, self.folds_at = iter(shifts), folds_at
        self.plane_mm, self.affine_mm = plane_mm, dict(zip(STARTS[1:], affine_mm, strict=True))
        self.starts, self.aligned = [], []

    def align(self, fixed, moving, matrix=None):
        start = STARTS[2] if matrix is None else STARTS[1]
        self.aligned.append(start)
        off = self.affine_mm[start]
        return None if off is None else translation(off - self.plane_mm)

    def apply_matrix(self, array, affine, matrix, outside):
        voxels = np.linalg.inv(affine) @ matrix @ translation(self.plane_mm) @ affine
        return ndimage.affine_transform(
            array, voxels[:3, :3], voxels[:3, 3], order=1, cval=outside
        ).astype(np.float32)

    def register(self, fixed, moving, start, matrix):
        self.starts.append(start)
        self.images = fixed, moving
        shift = next(self.shifts)
        return shift and {'mirror_to_reference': shift, 'reference_to_mirror': 'inverse'}

    def apply(self, array, affine, transform, outside=0.0):
        result = ndimage.shift(array, transform, order=1, cval=outside).astype(np.float32)
        if outside == FAR_MM and self.starts[-1] in self.folds_at:
            result[:, ::2] = result[:, ::-2].copy()  # coordinates front to back out of order
        return result


@pytest.fixture(scope='module')
def head():
    """Brain with a symmetric texture, and the mask of its voxels."""
    noise = np.random.default_rng(0).normal(size=SHAPE)
    texture = ndimage.gaussian_filter(noise + noise[::-1], (1.5, 1.5, 0.7))
    x, y, z = np.moveaxis(symmetry.world_coordinates(SHAPE, AFFINE), -1, 0)
    brain = (x / 65) ** 2 + (y / 80) ** 2 + (z / 90) ** 2 < 1
    reference = np.where(brain, 33 + 5 * texture / texture.std(), -1000.0)
    return reference.astype(np.float32), brain


@pytest.fixture(scope='module', autouse=True)
def _the_plane_of_an_image_is_found_once():
    """Most tests register the same head, and the search for its plane is their slowest part."""
    search, found = symmetry.find_symmetry_plane, {}

    def find(image, affine, brain_mask):
        key = image.tobytes(), affine.tobytes(), brain_mask.tobytes()
        if key not in found:
            found[key] = search(image, affine, brain_mask)
        return found[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(symmetry, 'find_symmetry_plane', find)
        yield


def register(head, registration, by_density=True, **changed):
    reference, brain = head
    return homologues.register_mirror(
        reference, brain, AFFINE, MethodSettings.of(**changed), registration, by_density
    )


NONE, SMALL, LARGE = (0, 0, 0), (0.3, 0, 0), (1.2, 0, 0)


# -- starts


def test_good_registration_is_not_repeated(head):
    measured = register(head, Shift(NONE)).measured
    assert (measured['mirror_attempts'], measured['mirror_start']) == (1, 'plane')
    assert measured['mirror_similarity'] > 0.9
    assert measured['withheld'] == ''
    assert measured['hemisphere_rule'] == 'homologues'


def test_poor_registration_is_tried_from_the_closest_other_start(head):
    registration = Shift(LARGE, LARGE, affine_mm=(4.0, 0.0))
    assert register(head, registration).measured['mirror_attempts'] == 2
    assert registration.starts == ['plane', 'centres of mass']


def test_start_whose_registration_fails_is_followed_by_the_next(head):
    registration = Shift(None, None, SMALL)
    assert register(head, registration).measured['mirror_attempts'] == 3
    assert registration.starts == list(STARTS)


def test_start_that_is_no_closer_than_the_plane_is_not_tried(head):
    registration = Shift(LARGE, SMALL, plane_mm=4.0, affine_mm=(8.0, 0.0))
    measured = register(head, registration, mirror_retry_mm=0.0).measured
    assert registration.aligned == list(STARTS[1:])
    assert registration.starts == ['plane', 'centres of mass']
    assert measured['mirror_attempts'] == 2


def test_start_whose_affine_step_fails_is_not_tried(head):
    registration = Shift(LARGE, affine_mm=(None, None))
    assert register(head, registration).measured['mirror_attempts'] == 1


def test_affine_steps_are_not_computed_for_a_good_registration(head):
    registration = Shift(NONE)
    register(head, registration)
    assert registration.aligned == []


def test_better_registration_from_another_start_is_used(head):
    measured = register(head, Shift(LARGE, NONE)).measured
    assert (measured['mirror_attempts'], measured['mirror_start']) == (2, 'plane and affine')


def test_registration_with_the_least_distance_is_the_result(head):
    mirror = register(head, Shift(LARGE, SMALL, LARGE), mirror_retry_mm=0.0)
    assert mirror.measured['mirror_start'] == mirror.best.start == 'plane and affine'
    assert mirror.measured['mirror_similarity'] == mirror.best.similarity
    assert mirror.measured['mirror_distance_mm'] == pytest.approx(
        mirror.best.misalignment.median_mm, abs=0.01
    )


def test_registration_that_folds_is_worse_than_one_that_does_not(head):
    mirror = register(head, Shift(NONE, SMALL, LARGE, folds_at=['plane']), mirror_retry_mm=0.0)
    assert mirror.measured['mirror_start'] == 'plane and affine'
    assert mirror.measured['withheld'] == ''


def test_map_is_tried_from_starts_that_are_more_similar(head):
    registration = Shift(LARGE, SMALL, plane_mm=4.0, affine_mm=(8.0, 0.0))
    register(head, registration, by_density=False, map_retry_similarity=1.0)
    assert registration.starts == ['plane', 'centres of mass']


def test_only_the_windowed_brain_is_registered(head):
    reference, brain = head
    registration = Shift(NONE)
    bone = np.where(~brain, 900.0, reference)
    register((bone, brain), registration, mirror_window_hu=(10.0, 50.0))
    for image, _ in registration.images:
        assert image.min() == 0
        assert image.max() <= 40
    assert not registration.images[0][0][0].any()  # outside the brain


# -- judgement


def test_registration_below_the_limit_is_withheld_and_a_plane_remains(head):
    mirror = register(head, Shift(LARGE, LARGE, LARGE), mirror_most_mm=1.0)
    assert mirror.measured['withheld'].startswith('withheld: homologues are off by about')
    assert mirror.measured['hemisphere_rule'] == 'plane of symmetry'
    assert mirror.transforms == {}
    assert mirror.best.transforms  # it is still shown
    assert mirror.measured['hemisphere_plane']['normal'][0] > 0.99


def test_registration_that_folds_is_withheld(head):
    mirror = register(head, Shift(NONE, NONE, NONE, folds_at=STARTS))
    assert mirror.measured['mirror_folding'] > METHOD.symmetry.mirror_most_folding
    assert mirror.measured['withheld'] != ''


def test_registration_that_does_not_swap_sides_has_no_similarity(head):
    class Straight(Shift):
        def apply(self, array, affine, transform, outside=0.0):
            return symmetry.mirror(array)

    assert register(head, Straight(NONE, NONE, NONE)).measured['mirror_similarity'] == 0


def test_densities_are_judged_by_distance_and_a_map_by_similarity(head):
    limits = {'mirror_most_mm': 1.0, 'map_least_similarity': 0.0}
    of_densities, of_map = (
        register(head, Shift(LARGE, LARGE, LARGE), by_density, **limits)
        for by_density in (True, False)
    )
    assert of_densities.measured['withheld']
    assert not of_map.measured['withheld']


def test_where_nothing_is_found_a_plane_remains(head):
    mirror = register(head, Shift(None, None, None))
    measured = mirror.measured
    assert mirror.best is None
    assert mirror.transforms == {}
    assert 'could not be registered' in measured['withheld']
    assert (measured['mirror_similarity'], measured['mirror_folding']) == (0, 1)
    assert measured['mirror_start'] is None
    assert measured['hemisphere_plane']['normal'][0] > 0.99
    assert mirror.reflected.shape == SHAPE


# -- homologues


def test_homologues_are_coordinates_and_nan_outside_the_slab(head):
    mirror = register(head, Shift(NONE))
    where = symmetry.world_coordinates(SHAPE, AFFINE)
    np.testing.assert_allclose(mirror.best.homologues, where[::-1], atol=1e-3)
    shifted = register(head, Shift((2, 0, 0)), mirror_retry_mm=50.0).best.homologues
    assert np.isnan(shifted[:2]).all()
    assert np.isfinite(shifted[2:]).all()


def find(head, transform, plane=None):
    brain = head[1]
    tissue = brain.copy()
    tissue[:10] = False
    where = symmetry.world_coordinates(SHAPE, AFFINE)
    return homologues.find_homologues(
        brain, tissue, AFFINE, Shift(), where[::-1], transform, plane
    ), tissue


def test_hemispheres_and_share_of_tissue_are_those_of_the_homologues(head):
    result, tissue = find(head, NONE)
    right = symmetry.world_coordinates(SHAPE, AFFINE)[..., 0] > 0
    expected = np.where(right, symmetry.RIGHT, symmetry.LEFT) * head[1]
    np.testing.assert_array_equal(result.hemispheres, expected)
    np.testing.assert_array_equal(result.tissue_share, tissue[::-1])


def test_misaligned_voxels_have_no_tissue_at_their_homologue(head):
    brain = head[1]
    misaligned = np.zeros_like(brain)
    misaligned[:, 30:] = True
    where = symmetry.world_coordinates(SHAPE, AFFINE)
    result = homologues.find_homologues(
        brain, brain, AFFINE, Shift(), where[::-1], NONE, None, misaligned
    )
    assert not result.tissue_share[misaligned].any()
    assert (result.tissue_share[brain & ~misaligned] == 1).all()


def test_regions_are_misaligned_beyond_the_limit_and_never_where_unknown(head):
    distance = np.full(SHAPE, 3.0, np.float32)
    distance[:, :20], distance[:, 40:] = 9.0, np.nan
    mirror = register(head, Shift(NONE))
    best = dataclasses.replace(
        mirror.best, misalignment=alignment.Misalignment(distance, 3.0, 1.0)
    )
    misaligned = dataclasses.replace(mirror, best=best).misaligned(8.0)
    assert misaligned[:, :20].all()
    assert not misaligned[:, 20:].any()
    assert dataclasses.replace(mirror, best=None).misaligned(8.0) is None


def test_mirrored_map_has_no_distance(head):
    """Its lesions would be taken for distance."""
    mirror = register(head, Shift(NONE), by_density=False)
    assert mirror.best.misalignment is None
    assert mirror.misaligned(8.0) is None
    assert 'mirror_distance_mm' not in mirror.measured


def test_without_a_transform_the_plane_divides_the_hemispheres(head):
    result, _ = find(head, None, ([8.0, 0, 0], [1.0, 0, 0]))
    right = symmetry.world_coordinates(SHAPE, AFFINE)[..., 0] > 8
    expected = np.where(right, symmetry.RIGHT, symmetry.LEFT) * head[1]
    np.testing.assert_array_equal(result.hemispheres, expected)
    assert result.tissue_share is None


def test_mirrored_map_has_the_value_of_the_other_side(head):
    x = symmetry.world_coordinates(SHAPE, AFFINE)[..., 0]
    np.testing.assert_allclose(homologues.mirror_map(x, AFFINE, Shift(), NONE), -x, atol=1e-4)


# -- geometry


def test_mirror_by_a_plane_brings_points_to_their_reflection():
    """A point of the reference is where the flipped image shows its reflection."""
    normal = np.array([0.96, 0.28, 0.0])
    point = np.array([3.0, -4.0, 2.0])
    matrix = homologues.mirror_by_plane((point, normal), SHAPE, AFFINE)
    where = np.array([20.0, 10.0, -5.0])
    reflected = where - 2 * ((where - point) @ normal) * normal
    index = np.linalg.inv(AFFINE) @ [*reflected, 1]
    index[0] = SHAPE[0] - 1 - index[0]  # voxel of the flipped image
    np.testing.assert_allclose(matrix @ [*where, 1], AFFINE @ index, atol=1e-9)
    assert np.linalg.det(matrix[:3, :3]) == pytest.approx(1)


def test_windowed_image_is_coarser_in_plane_and_0_where_nothing_is_known():
    fine = symmetry.world_coordinates(SHAPE, AFFINE)[..., 0].copy()
    fine[:2] = np.nan
    coarse, affine = homologues.window_image(fine, AFFINE, (-60.0, 60.0), 8.0)
    assert coarse.shape == (20, 24, 8)
    assert not coarse[0].any()
    for index in ((5, 20, 3), (12, 9, 7)):
        assert coarse[index] == pytest.approx((affine @ [*index, 1])[0] + 60)
