# SPDX-License-Identifier: Apache-2.0
"""Registrations with ANTs find what was planted, in the coordinates of the patient."""

from types import SimpleNamespace

import nibabel as nb
import numpy as np
import pytest
from scipy import ndimage

from ctpprep import registration
from ctpprep.io.transforms import write_rigid_transforms
from ctpprep.perfusion import homologues, symmetry
from ctpprep.phantom import frame_affine
from ctpprep.settings import MethodSettings

SHAPE = (60, 70, 12)
OBLIQUE = frame_affine(np.array([3.0, -5, 8, 0.1, 0.2, 0.3]), np.zeros(3))
TILTED = frame_affine(np.array([6.0, 0, 0, 0, 0, np.radians(6)]), np.zeros(3))
TO_LPS = (-1, -1, 1)
SEED = 1


@pytest.fixture(scope='session')
def ants():
    """Return antspyx, which takes seconds to import."""
    import ants

    return ants


# -- conventions


@pytest.mark.parametrize('turn', [np.eye(4), OBLIQUE], ids=['straight', 'oblique'])
def test_ants_places_each_voxel_as_nibabel_does(ants, symmetric_head, turn):
    affine = turn @ symmetric_head.affine
    image = registration.to_ants(np.zeros(SHAPE), affine)
    for index in ((0, 0, 0), (7, 3, 2), (59, 69, 11)):
        lps = ants.transform_index_to_physical_point(image, index)
        np.testing.assert_allclose(
            np.array(lps) * TO_LPS, nb.affines.apply_affine(affine, index), atol=1e-3
        )


def test_coarse_image_is_at_the_place_of_the_fine_one(ants, symmetric_head):
    affine = OBLIQUE @ symmetric_head.affine
    fine = symmetry.world_coordinates(SHAPE, affine)[..., 0]
    coarse = registration.to_ants(*homologues.window_image(fine, affine, (-60.0, 60.0), 6.0))
    assert coarse.shape == (30, 35, 12)
    for index in ((8, 20, 3), (20, 9, 7)):
        x = -ants.transform_index_to_physical_point(coarse, index)[0]
        assert coarse.numpy()[index] == pytest.approx(x + 60, abs=1e-2)


def test_affine_transform_is_read_as_it_was_written(ants, tmp_path):
    matrix = OBLIQUE @ np.diag([1.1, 0.9, 1.0, 1.0])
    registration.write_affine(matrix, tmp_path / 'matrix.mat')
    np.testing.assert_allclose(
        registration.read_affine(tmp_path / 'matrix.mat'), matrix, atol=1e-4
    )


def test_affine_step_finds_shift_and_turn(symmetric_head, tmp_path):
    fixed, moving = (
        homologues.window_image(
            symmetric_head.draw(pose)[0], symmetric_head.affine, (0.0, 60.0), 3.0
        )
        for pose in (TILTED, None)
    )
    matrix = registration.MirrorSyN(tmp_path, SEED).align(fixed, moving)
    corners = np.array([[50.0, 0, 0], [0, 60, 0], [-50, 0, 10]])
    found, expected = (
        nb.affines.apply_affine(m, corners) for m in (matrix, np.linalg.inv(TILTED))
    )
    np.testing.assert_allclose(found, expected, atol=4.0)


@pytest.mark.parametrize('row', [[1.0, 2, 3, 0.05, 0.1, -0.07], [0, -2, 1, -0.05, 0, 0.07]])
@pytest.mark.parametrize('kind', ['matrix', 'frames'])
def test_ants_reads_transforms_as_they_were_written(ants, tmp_path, row, kind):
    transform = frame_affine(np.array(row), np.zeros(3))
    if kind == 'matrix':
        path = tmp_path / 'matrix.mat'
        registration.write_affine(transform, path)
    else:
        path = write_rigid_transforms([transform], tmp_path / 'frame.txt')
    point = np.array([10.0, -20, 30])
    moved = ants.read_transform(str(path)).apply_to_point((point * TO_LPS).tolist())
    np.testing.assert_allclose(np.array(moved) * TO_LPS, (transform @ [*point, 1])[:3], atol=1e-4)


def test_points_outside_the_image_get_the_value_for_outside(symmetric_head, tmp_path):
    matrix = np.eye(4)
    matrix[0, 3] = 30.0  # the result at x is the image at x + 30 mm
    image = registration.MirrorSyN(tmp_path, SEED).apply_matrix(
        symmetry.world_coordinates(SHAPE, symmetric_head.affine)[..., 0], symmetric_head.affine,
        matrix, -1000.0,
    )  # fmt: skip
    assert (image[-9:] == -1000).all()
    assert image[20, 30, 5] == pytest.approx(symmetric_head.affine[0, 3] + 3 * 20 + 30, abs=1e-2)


# -- mirror


def mirror(head, folder, **changed):
    """Register the mirrored head, shifted by 6 mm and turned by 6 degrees."""
    reference, brain = head.draw(TILTED)
    syn = registration.MirrorSyN(folder, SEED)
    method = MethodSettings.of(**changed)
    return homologues.register_mirror(reference, brain, head.affine, method, syn)


@pytest.fixture(scope='module')
def tilted(symmetric_head, tmp_path_factory):
    folder = tmp_path_factory.mktemp('tilted')
    result = mirror(symmetric_head, folder)
    where = symmetry.world_coordinates(SHAPE, symmetric_head.affine)
    in_head = nb.affines.apply_affine(np.linalg.inv(TILTED), where)
    brain = symmetric_head.draw(TILTED)[1]
    return SimpleNamespace(
        result=result, folder=folder, brain=brain, where=where,
        seen=brain & np.isfinite(result.best.homologues).all(axis=-1),
        truth=nb.affines.apply_affine(TILTED, in_head * (-1, 1, 1)),
    )  # fmt: skip


def test_homologues_are_where_the_other_side_is(tilted):
    error = np.linalg.norm(tilted.result.best.homologues - tilted.truth, axis=-1)[tilted.seen]
    measured = tilted.result.measured
    assert tilted.seen.sum() > 0.9 * tilted.brain.sum()
    assert measured['mirror_similarity'] > 0.7
    assert measured['mirror_folding'] < 0.001
    assert measured['withheld'] == ''
    assert np.median(error) < 3.0
    assert np.percentile(error, 90) < 6.0


def test_inverse_brings_a_homologue_back(tilted, symmetric_head):
    y, affine, transforms = tilted.where[..., 1], symmetric_head.affine, tilted.result.transforms
    there = registration.apply_transform(y, affine, transforms['reference_to_mirror'])
    back = registration.apply_transform(there, affine, transforms['mirror_to_reference'])
    inner = ndimage.binary_erosion(tilted.brain, iterations=3)
    assert np.abs(back - y)[inner].mean() < 0.5


@pytest.fixture(scope='module')
def again(symmetric_head, tmp_path_factory):
    """The same registration in another folder."""
    folder = tmp_path_factory.mktemp('again')
    return SimpleNamespace(result=mirror(symmetric_head, folder), folder=folder)


def test_every_start_leads_to_the_homologues(tilted, symmetric_head, tmp_path):
    reference, brain = symmetric_head.draw(TILTED)
    search = homologues._Search(
        reference, brain, symmetric_head.affine, MethodSettings().symmetry,
        registration.MirrorSyN(tmp_path, SEED), True,
    )  # fmt: skip
    for start in homologues.STARTS:
        error = np.linalg.norm(search.attempt(start).homologues - tilted.truth, axis=-1)
        assert np.nanmedian(error[brain]) < 3.0, start


def test_two_registrations_are_identical(tilted, again, symmetric_head):
    for name in ('mirror_to_reference', 'reference_to_mirror'):
        first, second = (
            [
                registration.apply_transform(
                    tilted.where[..., axis], symmetric_head.affine,
                    made.folder / 'plane' / f'{name}.h5', outside=1e6,
                )
                for axis in range(3)
            ]
            for made in (tilted, again)
        )  # fmt: skip
        np.testing.assert_array_equal(first, second)


def test_error_of_itk_is_a_registration_without_result(
    ants, symmetric_head, tmp_path, monkeypatch
):
    def fail(*args, **kwargs):
        raise RuntimeError('no overlap')

    monkeypatch.setattr(ants, 'registration', fail)
    measured = mirror(symmetric_head, tmp_path).measured
    assert measured['mirror_attempts'] == 1
    assert 'could not be registered' in measured['withheld']


# -- rigid


def test_rigid_registration_finds_shift_and_turn(symmetric_head, tmp_path):
    pose = frame_affine(np.array([8.0, -6, 3, 0, 0.05, np.radians(6)]), np.zeros(3))
    affine = symmetric_head.affine
    fixed, moving = (
        homologues.window_image(symmetric_head.draw(p)[0], affine, (-200.0, 300.0), 3.0)
        for p in (pose, None)
    )
    path = tmp_path / 'rigid.txt'
    registration.register_rigid(fixed, moving, SEED, tmp_path, path)
    where = symmetry.world_coordinates(SHAPE, affine)
    # a point of the fixed image shows what is at pose^-1 of it in the moving one
    expected = nb.affines.apply_affine(np.linalg.inv(pose), where)
    inner = np.zeros(SHAPE, bool)
    inner[8:-8, 8:-8, 2:-2] = symmetric_head.draw(pose)[1][8:-8, 8:-8, 2:-2]
    for axis in range(3):
        home = registration.apply_transform(where[..., axis], affine, path, outside=1e6)
        assert np.median(np.abs(home - expected[..., axis])[inner]) < 1.0
