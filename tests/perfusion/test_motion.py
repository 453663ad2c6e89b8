# SPDX-License-Identifier: Apache-2.0
"""Motion parameters, displacement, weights and resampling."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ctpprep.perfusion import motion, preprocessing
from ctpprep.phantom import frame_affine
from ctpprep.settings import MethodSettings

CENTRE = np.array([5.0, -20.0, 30.0])
AFFINE = np.array([[-2.0, 0, 0, 40], [0, -2, 0, 30], [0, 0, 5, -25], [0, 0, 0, 1]])
POINTS = np.random.default_rng(0).normal(0, 40, (50, 3))


def shift(x=0.0, y=0.0, z=0.0):
    moved = np.eye(4)
    moved[:3, 3] = x, y, z
    return moved


def test_parameters_are_those_the_transform_was_made_of():
    planted = np.array([[1.0, -2, 3, 0.05, -0.1, 0.2], [0, 0, 0, 0.3, 0.2, -0.1], [0] * 6])
    transforms = [frame_affine(row, CENTRE) for row in planted]
    np.testing.assert_allclose(motion.rigid_parameters(transforms, CENTRE), planted, atol=1e-12)


def test_a_rotation_about_the_centre_is_no_translation():
    transform = frame_affine(np.array([0, 0, 0, 0.1, 0.2, 0.3]), CENTRE)
    np.testing.assert_allclose(motion.rigid_parameters([transform], CENTRE)[0, :3], 0, atol=1e-12)


def test_displacement_is_the_mean_distance_of_the_points():
    transform = frame_affine(np.array([1.0, 2, 0, 0.1, 0, 0.2]), CENTRE)
    by_hand = [np.linalg.norm((transform @ [*point, 1])[:3] - point) for point in POINTS]
    assert motion.displacement([transform], POINTS)[0] == pytest.approx(np.mean(by_hand))


def test_a_lasting_jump_counts_in_one_frame():
    transforms = [shift(), shift(), shift(3.0), shift(3.0)]
    np.testing.assert_allclose(
        motion.framewise_displacement(transforms, POINTS), [0, 0, 3, 0], atol=1e-12
    )


def test_framewise_displacement_is_measured_between_the_two_poses():
    first, second = (
        frame_affine(np.array(row), CENTRE)
        for row in ([1.0, 2, 3, 0.2, 0.1, 0], [-1.0, 0, 2, 0, 0.3, 0.1])
    )
    homogeneous = np.c_[POINTS, np.ones(len(POINTS))]
    by_hand = np.linalg.norm((homogeneous @ (second - first).T)[:, :3], axis=1).mean()
    found = motion.framewise_displacement([np.eye(4), first, second], POINTS)[2]
    assert found == pytest.approx(by_hand)


def test_a_frame_without_motion_is_returned_untouched():
    frame = np.random.default_rng(0).normal(size=(6, 5, 4)).astype(np.float32)
    np.testing.assert_array_equal(motion.resample_frame(frame, AFFINE, np.eye(4)), frame)


def test_a_moved_head_is_brought_back_to_frame_0():
    # the same smooth density, seen before and after the head moved
    index = np.stack(np.meshgrid(*map(np.arange, (40, 30, 12)), indexing='ij'), axis=-1)
    where = index @ AFFINE[:3, :3].T + AFFINE[:3, 3]
    transform = frame_affine(np.array([3.0, -2, 1, 0.02, 0.03, 0.1]), np.zeros(3))
    inverse = np.linalg.inv(transform)

    def density(points):
        x, y, z = np.moveaxis(points, -1, 0)
        return 40 + 20 * np.sin(x / 15) * np.cos(y / 18 + z / 30)

    moved = density(where @ inverse[:3, :3].T + inverse[:3, 3])
    back = motion.resample_frame(moved, AFFINE, transform)
    seen = np.isfinite(back)
    assert seen.mean() > 0.7
    assert np.percentile(np.abs(back - density(where))[seen], 95) < 0.7
    assert np.percentile(np.abs(moved - density(where)), 95) > 4


def test_what_left_the_field_of_view_is_missing_and_not_air():
    frame = np.full((4, 4, 6), 40.0)
    # the head rose by two slices: its two lowest are now the frame's third and fourth
    back = motion.resample_frame(frame, AFFINE, shift(z=10.0))
    assert np.isnan(back[:, :, 4:]).all()
    np.testing.assert_allclose(back[:, :, :4], 40)


def test_nothing_is_missing_within_half_a_voxel():
    back = motion.resample_frame(np.full((4, 4, 6), 40.0), AFFINE, shift(x=0.9, z=2.4))
    np.testing.assert_allclose(back, 40)


def skull():
    rng = np.random.default_rng(0)
    volume = 40 + rng.normal(0, 3, (30, 30, 5))
    volume[5:7] = volume[23:25] = 800
    return volume


def test_the_bolus_leaves_the_similarity_of_skulls_alone():
    before, head = skull(), np.ones((30, 30, 5), bool)
    after = np.where(before < 100, before + 50, before)
    assert motion.skull_similarity(after, before, head) == pytest.approx(1)


def test_a_misplaced_skull_is_less_similar():
    before, head = skull(), np.ones((30, 30, 5), bool)
    assert motion.skull_similarity(np.roll(before, 1, axis=0), before, head) < 0.7


def test_missing_voxels_are_not_compared():
    before, head = skull(), np.ones((30, 30, 5), bool)
    after = before.copy()
    after[:, :, 4] = np.nan
    assert motion.skull_similarity(after, before, head) == pytest.approx(1)


@pytest.mark.parametrize(('lost', 'usable'), [(2, True), (3, False)])
def test_a_frame_that_lost_most_of_the_head_is_not_usable(lost, usable):
    """What is left may well look alike."""
    before, head = skull(), np.ones((30, 30, 5), bool)
    after = before.copy()
    after[:, :, 5 - lost :] = np.nan
    assert np.isfinite(motion.skull_similarity(after, before, head)) == usable


def test_a_frame_without_a_similarity_is_rejected():
    np.testing.assert_array_equal(motion.frame_weights([0.9, 0.89, np.nan], 0.9), [1, 0, 0])


def test_planted_motion_is_found_in_spite_of_contrast(head):
    first = np.asarray(head.ctp[..., 0], dtype=np.float32)
    planted = np.eye(4)
    planted[:3, :3] = Rotation.from_euler('xyz', (2, -1, 3), degrees=True).as_matrix()
    planted[:3, 3] = (1.5, -2.0, 1.0)
    moved = motion.resample_frame(first, head.affine, np.linalg.inv(planted), order=3)
    moved = np.nan_to_num(moved, nan=-1000.0)
    moved[(moved > 20) & (moved < 80)] += 15
    found = register(first, moved, head.affine)
    brain = np.argwhere(head.truth['brain'])[::50]
    points = brain @ head.affine[:3, :3].T + head.affine[:3, 3]
    assert motion.displacement([found @ np.linalg.inv(planted)], points)[0] < 0.4


def moved_by(frame, affine, degrees, shift_mm):
    """Move the head of a frame: as sharp as the scan of a moved head, but for the open ends."""
    planted = np.eye(4)
    planted[:3, :3] = Rotation.from_euler('xyz', degrees, degrees=True).as_matrix()
    planted[:3, 3] = shift_mm
    moved = motion.resample_frame(frame, affine, np.linalg.inv(planted), order=3)
    return np.nan_to_num(moved, nan=-1000.0), planted


@pytest.mark.parametrize('degrees', [(6, 0, 0), (0, 6, 0), (0, 0, 6)])
def test_a_large_jump_at_the_peak_of_the_bolus_is_found(head, degrees):
    first = np.asarray(head.ctp[..., 0], dtype=np.float32)
    vessels = head.truth['vessel'] > 0.5
    peak = head.ctp[vessels].mean(axis=0).argmax()
    assert head.ctp[..., peak][vessels].mean() > first[vessels].mean() + 50
    frame = np.asarray(head.ctp[..., peak], dtype=np.float32)
    moved, planted = moved_by(frame, head.affine, degrees, (2.0, -1.0, 1.0))
    found = register(first, moved, head.affine)
    brain = np.argwhere(head.truth['brain'])[::50]
    points = brain @ head.affine[:3, :3].T + head.affine[:3, 3]
    assert motion.displacement([planted], points)[0] > 3
    assert motion.displacement([found @ np.linalg.inv(planted)], points)[0] < 0.3


def test_a_jump_is_found_in_a_thin_slab(head):
    first = np.asarray(head.ctp[..., 0], dtype=np.float32)
    moved, planted = moved_by(first, head.affine, (2, 0, -2), (2.0, 0.0, 1.0))
    slab = slice(3, 7)  # 24 mm
    assert head.affine[2, 2] == 6
    affine = head.affine.copy()
    affine[:3, 3] += 3 * affine[:3, 2]
    found = register(first[..., slab], moved[..., slab], affine)
    brain = np.argwhere(head.truth['brain'][..., slab])[::20]
    points = brain @ affine[:3, :3].T + affine[:3, 3]
    assert motion.displacement([found @ np.linalg.inv(planted)], points)[0] < 0.6


def register(fixed, moving, affine):
    fixed, moving = (np.clip(image, -500, 1500) for image in (fixed, moving))
    return motion.register_rigid(motion.RigidTarget(fixed, affine, (6, 3)), moving)


def test_two_poses_in_one_frame_are_less_alike_than_a_moved_head(head):
    """Interpolation blurs, too: the limit lies between its blur and that of the patient."""
    first, second = (np.asarray(head.ctp[..., frame], dtype=np.float32) for frame in (0, 1))
    moved, _ = moved_by(second, head.affine, (4, -3, 4), (4.0, -4.0, 3.0))
    similarity = []
    for frame in (moved, (first + moved) / 2):
        back = motion.resample_frame(frame, head.affine, register(first, frame, head.affine))
        similarity.append(motion.skull_similarity(back, first, first > -200))
    limit = MethodSettings().motion.motion_reject_similarity
    np.testing.assert_array_equal(motion.frame_weights(similarity, limit), [1, 0])


def test_frame_0_is_the_reference_although_some_frames_are_bad():
    def compare(reference, others):
        return [0.98 if frame % 3 else 0.2 for frame in others]

    assert motion.find_reference(27, compare, 0.95) == 0


@pytest.mark.parametrize('bad', [{0}, {0, 1}, {0, 1, 2, 11}])
def test_the_reference_is_the_first_frame_that_most_others_match(bad):
    def compare(reference, others):
        return [0.3 if {reference, frame} & bad else 0.98 for frame in others]

    assert motion.find_reference(20, compare, 0.95) == min(set(range(20)) - bad)


def test_without_a_usable_frame_the_reference_is_frame_0():
    assert motion.find_reference(20, lambda frame, others: [0.1] * len(others), 0.95) == 0


@pytest.mark.parametrize('blank', ['fixed', 'moving'])
def test_a_frame_without_a_head_is_left_alone(head, blank):
    images = dict.fromkeys(('fixed', 'moving'), np.asarray(head.ctp[..., 0], dtype=np.float32))
    images[blank] = np.full(head.ctp.shape[:3], -1000, np.float32)
    assert np.isfinite(register(images['fixed'], images['moving'], head.affine)).all()
    assert np.isnan(motion.skull_similarity(*images.values(), np.ones(head.ctp.shape[:3], bool)))


def test_an_image_does_not_move_against_itself(head):
    image = np.asarray(head.ctp[..., 0], dtype=np.float32)
    found = register(image, image, head.affine)
    np.testing.assert_allclose(found, np.eye(4), atol=1e-4)


# -- damage by interpolation


@pytest.fixture(scope='module')
def slab():
    """Head with a ring of bone in four of eight thick slices, and frames in two poses."""
    affine = np.diag([3.0, 3.0, 6.0, 1.0])
    affine[:3, 3] = -30 * 3, -30 * 3, -3.5 * 6
    x, y = np.ogrid[-30:31, -30:31]
    radius = np.repeat((3 * np.hypot(x, y))[..., None], 8, axis=2)
    head = np.select([radius < 66, radius < 75, radius < 84], [35.0, 900.0, 35.0], -1000.0)
    head[:, :, :4][(radius < 75)[:, :, :4] & (radius > 48)[:, :, :4]] = 900  # skull base
    return head.astype(np.float32), affine


def damage_of(slab, transform, weights=None):
    """Damage of a series of twelve frames, the last six of which are moved."""
    head, affine = slab
    transforms = np.tile(np.eye(4), (12, 1, 1))
    transforms[6:] = transform
    shown = motion.resample_frame(head, affine, np.linalg.inv(transform))
    brought_back = motion.resample_frame(
        np.where(np.isfinite(shown), shown, head), affine, transform
    )
    corrected = np.stack([head] * 6 + [brought_back] * 6, axis=-1)
    weights = np.ones(12) if weights is None else weights
    damage = motion.measure_damage(corrected, affine, transforms, weights)
    return damage, np.abs(brought_back - head)


def test_without_motion_there_is_no_damage(slab):
    damage, _ = damage_of(slab, np.eye(4))
    assert not damage.any()


def test_motion_damages_what_lies_beside_bone(slab):
    """Through plane, bone of the skull base leaks into the slice above it."""
    damage, real = damage_of(slab, shift(z=3.0))
    beside, away = (slice(9, 12), 30, slice(3, 5)), (30, 30, slice(1, 7))
    assert slab[0][30, 30, 0] == 35
    assert damage[beside].max() > 50
    assert damage[away].max() == 0
    inner = damage[:, :, 1:-1] < motion.EXTRAPOLATED_HU
    changed = real[:, :, 1:-1][inner] > 100
    # the error of half of the frames, as a root mean square
    assert (damage[:, :, 1:-1][inner][changed] > 20).mean() > 0.9


def test_larger_motion_damages_more(slab):
    small, large = (damage_of(slab, shift(x=mm))[0].sum() for mm in (0.5, 1.5))
    assert 0 < small < large


def test_end_slice_that_leaves_the_slab_is_extrapolated(slab):
    damage, _ = damage_of(slab, shift(z=3.0))
    assert (damage[:, :, -1] == motion.EXTRAPOLATED_HU).all()
    assert damage[30, 30, 0] == 0
    tilted = frame_affine(np.array([0, 0, 0, 0.0, 0.1, 0.0]), np.zeros(3))
    both = damage_of(slab, tilted)[0] == motion.EXTRAPOLATED_HU
    # one side leaves at the top, the other at the bottom
    assert both[[2, -3], 30][:, [0, -1]].sum() == 2


def test_rejected_frames_damage_nothing(slab):
    weights = np.repeat([1.0, 0.0], 6)
    assert not damage_of(slab, shift(z=3.0), weights)[0].any()


# -- series without skull


def outline(background, moved=0, enhancement=0.0):
    """Similarity of a disc of brain to a moved and enhanced one, on a background."""
    rng = np.random.default_rng(0)
    x, y = np.ogrid[-30:31, -30:31]
    disc = np.repeat((np.hypot(x, y) < 20)[..., None], 4, axis=2)
    first, second = (
        np.where(disc, hu + rng.normal(0, 4, disc.shape), background)
        for hu in (33.0, 33.0 + enhancement)
    )
    second = np.roll(second, moved, axis=0)
    window = preprocessing.outline_window(first)
    return motion.outline_similarity(second, first, first > motion.HEAD_HU, window)


@pytest.mark.parametrize('background', [0.0, -1024.0])
def test_outline_shows_motion_but_neither_noise_nor_contrast(background):
    assert outline(background, enhancement=8.0) > 0.97
    assert outline(background, moved=6) < 0.9


def test_outline_that_left_the_field_of_view_is_unknown():
    reference = np.full((10, 10, 2), 33.0)
    reference[:2] = 0
    frame = reference.copy()
    frame[4:] = np.nan
    assert np.isnan(motion.outline_similarity(frame, reference, reference > 20, (0, 16)))
