# SPDX-License-Identifier: Apache-2.0
"""Registration to a template of a head whose place in it is known."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ctpprep.io.templates import find_template, load_template
from ctpprep.perfusion import resampling, template, template_start
from ctpprep.phantom.geometry import draw_shape
from ctpprep.registration import TemplateSyN
from ctpprep.settings import TemplateSettings

SETTINGS = TemplateSettings()
SEED = 1


@pytest.fixture(scope='module')
def target():
    return template.Template(*load_template(find_template('MNI152NLin2009aSym')), 'sym')


@pytest.fixture(scope='module')
def patient(head):
    """The small head of the tests, and the template coordinates of its voxels."""
    shape = draw_shape(head.settings, np.random.default_rng(head.settings.seed).spawn(1)[0])
    index = np.indices(head.ctp.shape[:3]).reshape(3, -1)
    points = head.affine[:3, :3] @ index + head.affine[:3, 3:]
    truth = shape.to_template(points).T.reshape(*head.ctp.shape[:3], 3)
    ct = template.Head(
        head.ctp[..., :4].mean(axis=-1), head.truth['brain'], head.truth['core'], head.affine
    )
    return ct, truth


def align(patient, target, folder):
    ct, truth = patient
    folder.mkdir(exist_ok=True)
    sides = np.where(truth[..., 0] > 0, 2, 1)
    return template.register_template(ct, ct, sides, target, SETTINGS, TemplateSyN(folder, SEED))


@pytest.fixture(scope='module')
def aligned(patient, target, tmp_path_factory):
    return align(patient, target, tmp_path_factory.mktemp('template'))


def test_voxels_are_found_within_4_mm_of_their_place(aligned, patient, head):
    error = np.linalg.norm(aligned.coordinates - patient[1], axis=-1)[head.truth['tissue'] > 0.5]
    assert np.median(error) < 4
    assert np.percentile(error, 90) < 8
    assert aligned.measured['template_failure'] == ''


def test_voxels_of_a_large_lesion_are_found_as_well(aligned, patient, head):
    lesion = head.truth['core'] | head.truth['penumbra']
    assert np.median(np.linalg.norm(aligned.coordinates - patient[1], axis=-1)[lesion]) < 4


def test_a_second_registration_is_the_same(aligned, patient, target, tmp_path):
    again = align(patient, target, tmp_path / 'again')
    np.testing.assert_array_equal(again.coordinates, aligned.coordinates)


def test_both_transforms_lead_there_and_back(aligned, patient, target, head):
    shape, affine = target.brain.shape, target.affine
    back = TemplateSyN('', SEED).map_points(
        shape, affine, aligned.transforms['reference_to_template'],
        (head.ctp.shape[:3], head.affine),
    )  # fmt: skip
    index = np.indices(head.ctp.shape[:3])
    points = (
        np.moveaxis(np.einsum('ij,jxyz->ixyz', head.affine[:3, :3], index), 0, -1)
        + head.affine[:3, 3]
    )
    inner = head.truth['brain'].copy()
    inner[..., [0, -1]] = False
    returned = np.stack(
        [
            resampling.sample(np.nan_to_num(back[..., axis]), affine, aligned.coordinates, 1)
            for axis in range(3)
        ],
        axis=-1,
    )
    distance = np.linalg.norm(returned - points, axis=-1)[inner]
    assert np.median(distance) < 0.5


def judge(coordinates, patient, target):
    ct, truth = patient
    sides = np.where(truth[..., 0] > 0, 2, 1)
    measured = template.judge(coordinates, ct, sides, target)
    return measured, template._failure(measured, SETTINGS)


def test_a_flipped_head_is_refused(patient, target):
    measured, failure = judge(patient[1] * [-1, 1, 1], patient, target)
    assert measured['template_overlap'] > 0.9  # the template is symmetric: overlap cannot see it
    assert measured['template_sides'] < 0.01
    assert 'same side' in failure


@pytest.mark.parametrize('shift', [(0, 20, 0), (20, 0, 0), (0, 0, 25), (0, 0, -25)])
def test_a_misplaced_head_is_refused(patient, target, shift):
    _, failure = judge(patient[1] + shift, patient, target)
    assert failure


def test_a_transform_that_folds_is_refused(patient, target):
    folded = patient[1].copy()
    folded[..., 1] = np.abs(folded[..., 1] + 17) - 17  # the back of the brain on its front
    measured, _ = judge(folded, patient, target)
    assert measured['template_folding'] > 0.3


def test_the_start_of_a_turned_and_shifted_slab_is_found(target):
    """Slices of the template itself, in another pose and size."""
    turn = Rotation.from_euler('xyz', (8, -10, 12), degrees=True).as_matrix() * 1.05
    shape, affine = (64, 64, 8), np.diag([3.4, 3.4, 5.0, 1.0])
    index = np.indices(shape).reshape(3, -1)
    points = affine[:3, :3] @ index
    truth = (turn @ (points - [[110], [110], [20]])).T + [0, -17, 25]
    drawn = resampling.sample(target.draw(), target.affine, truth, 1).reshape(shape)
    start = template_start.find_start(drawn, affine, np.ones(shape, bool), target)
    inside = drawn.ravel() > 0
    placed = (start[:3, :3] @ points + start[:3, 3:]).T
    assert np.linalg.norm(placed - truth, axis=1)[inside].mean() < 3


def test_maps_are_interpolated_over_tissue_alone():
    values, tissue = np.full((4, 4, 4), 50.0), np.zeros((4, 4, 4), bool)
    tissue[:2] = True
    values[~tissue] = 0
    places = np.array([[0.5, 1, 1], [1.4, 1, 1], [1.6, 1, 1], [np.nan, 1, 1]])
    np.testing.assert_allclose(
        resampling.sample_map(values, tissue, np.eye(4), places), [50, 50, 0, 0]
    )


def test_an_ncct_in_another_pose_is_placed_in_the_coordinates_of_the_series(head):
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler('z', 10, degrees=True).as_matrix()
    turn[:3, 3] = 5, -8, 30
    ncct = head.ctp[..., :4].mean(axis=-1)
    placed = template.head_from_ncct(
        ncct, turn @ head.affine, np.linalg.inv(turn), head.truth['core'], head.affine, 130.0, 0.43
    )
    np.testing.assert_allclose(placed.affine, head.affine, atol=1e-9)
    np.testing.assert_array_equal(placed.lesion_mask, head.truth['core'])
    assert (placed.brain_mask & head.truth['brain']).sum() > 0.9 * head.truth['brain'].sum()
