# SPDX-License-Identifier: Apache-2.0
"""Motion, masks and bolus of a series, as arrays."""

import numpy as np
import pytest
from nibabel.affines import apply_affine
from scipy import ndimage

from ctpprep.exceptions import BolusError, PerfusionError
from ctpprep.perfusion import brain, preprocessing
from ctpprep.perfusion.overrides import SuppliedCurves, SuppliedMask
from ctpprep.perfusion.preprocessing import AIR_HU
from ctpprep.phantom import frame_affine
from ctpprep.settings import MethodSettings

METHOD = MethodSettings()


# -- motion


def test_without_transforms_nothing_moves(toy_head):
    ctp, affine, _ = toy_head
    corrected = preprocessing.correct_motion(ctp, affine, METHOD)
    np.testing.assert_array_equal(corrected.ctp, ctp)
    assert not corrected.resampled
    assert (corrected.weights == 1).all()
    for name in (*preprocessing.COLUMNS, 'framewise_displacement', 'displacement'):
        assert not corrected.confounds[name].any(), name


@pytest.fixture(scope='module')
def moved_head(toy_head):
    """Head that is one voxel further right (+x) in frame 3, corrected by the true transforms."""
    ctp, affine, _ = toy_head
    moved = ctp[..., :6].copy()
    moved[..., 3] = np.roll(moved[..., 3], 1, axis=0)
    transforms = np.tile(np.eye(4), (6, 1, 1))
    transforms[3, 0, 3] = 4.0
    return preprocessing.correct_motion(moved, affine, METHOD, transforms)


def test_moved_frame_is_brought_back(moved_head, toy_head):
    frame = moved_head.ctp[..., 3]
    np.testing.assert_allclose(frame[:-1], toy_head[0][:-1, ..., 3], atol=1e-2)
    assert np.isnan(frame[-1]).all()  # missing, and not air


def test_motion_is_listed_in_mm(moved_head):
    confounds = moved_head.confounds
    np.testing.assert_allclose(confounds['trans_x'], [0, 0, 0, 4, 0, 0], atol=1e-4)
    np.testing.assert_allclose(confounds['framewise_displacement'], [0, 0, 0, 4, 4, 0], atol=1e-4)


def test_frame_that_remains_displaced_is_rejected(toy_head):
    ctp, affine, _ = toy_head
    ctp = ctp.copy()
    ctp[..., 5] = np.roll(ctp[..., 5], 4, axis=1)
    corrected = preprocessing.correct_motion(ctp, affine, METHOD)
    assert np.flatnonzero(corrected.weights == 0).tolist() == [5]


@pytest.fixture(scope='module')
def dome():
    """Skull that narrows upwards, so that motion along every axis is visible; no bolus."""
    size = np.array([4.0, 4.0, 6.0])
    affine = np.diag([*size, 1.0])
    affine[:3, 3] = -86, -102, 0
    index = np.stack(np.meshgrid(*map(np.arange, (44, 52, 10)), indexing='ij'), axis=-1)
    x, y, z = np.moveaxis(index * size + affine[:3, 3], -1, 0)
    radius = np.sqrt(np.square(x / 80) + np.square(y / 95) + np.square(z / 130))
    still = np.interp(radius, [0.86, 0.91, 0.97, 1.02], [35, 900, 900, -1000])
    noise = np.random.default_rng(0).normal(0, 4, (*radius.shape, 12))
    return np.round(still[..., None] + noise).astype(np.int16), affine


def estimate_and_correct(ctp, affine, threads=1):
    transforms, reference = preprocessing.estimate_motion(ctp, affine, METHOD, threads)
    return preprocessing.correct_motion(ctp, affine, METHOD, transforms, reference, threads)


def blur(ctp, frame):
    """Mix two poses of the head in one frame."""
    ctp = ctp.copy()
    ctp[..., frame] = (ctp[..., frame] + np.roll(ctp[..., frame], 3, axis=1)) // 2
    return ctp


def test_head_that_has_not_moved_is_not_resampled(dome):
    ctp, affine = dome
    corrected = estimate_and_correct(ctp, affine)
    assert (corrected.reference_frame, corrected.resampled) == (0, False)
    np.testing.assert_array_equal(corrected.ctp, ctp)
    displacement = corrected.confounds['displacement'][1:]
    assert ((displacement > 1e-6) & (displacement < 0.05)).all()
    np.testing.assert_array_equal(corrected.transforms, np.tile(np.eye(4), (12, 1, 1)))


def test_one_moved_frame_is_a_reason_to_resample(dome):
    ctp, affine = dome
    ctp = ctp.copy()
    ctp[..., 7] = np.roll(ctp[..., 7], 1, axis=0)
    assert estimate_and_correct(ctp, affine).resampled


def test_rejected_frame_is_no_reason_to_resample(dome):
    ctp = blur(dome[0], 7)
    corrected = estimate_and_correct(ctp, dome[1])
    assert np.flatnonzero(corrected.weights == 0).tolist() == [7]
    assert not corrected.resampled
    np.testing.assert_array_equal(corrected.ctp, ctp)


def test_blurred_first_frame_is_not_the_reference(dome):
    corrected = estimate_and_correct(blur(dome[0], 0), dome[1])
    assert corrected.reference_frame == 1
    assert np.flatnonzero(corrected.weights == 0).tolist() == [0]
    assert corrected.confounds['displacement'][1] == 0
    assert corrected.confounds['displacement'][2:].max() < 0.05


def test_empty_first_frame_is_not_the_reference(dome):
    ctp = dome[0].copy()
    ctp[..., 0] = AIR_HU
    corrected = estimate_and_correct(ctp, dome[1])
    assert corrected.reference_frame == 1
    assert np.flatnonzero(corrected.weights == 0).tolist() == [0]


def test_number_of_threads_changes_no_voxel(dome):
    ctp = dome[0].copy()
    ctp[..., 9:] = np.roll(ctp[..., 9:], 1, axis=1)
    one, four = (estimate_and_correct(ctp, dome[1], threads).ctp for threads in (1, 4))
    np.testing.assert_array_equal(one, four)


OBLIQUE = frame_affine(np.array([3.0, -5, 8, 0.1, 0.2, 0.3]), np.zeros(3))


@pytest.mark.parametrize('turn', [np.eye(4), OBLIQUE], ids=['straight', 'oblique'])
def test_motion_of_2_mm_and_2_degrees_is_found(symmetric_head, turn):
    affine = turn @ symmetric_head.affine
    poses = [np.eye(4)] + [
        frame_affine(np.array(row), np.zeros(3))
        for row in ([2.0, 0, 0, 0, 0, 0], [0, -1.2, 1.6, 0, 0, np.radians(2)])
    ]
    frames = [symmetric_head.draw(pose, affine)[0] for pose in poses]
    # the bolus must not be taken for motion
    frames[1] += np.where((frames[1] > 15) & (frames[1] < 100), 20, 0)
    method = MethodSettings.of(motion_reject_similarity=0.5)
    transforms, _ = preprocessing.estimate_motion(np.stack(frames, axis=-1), affine, method)
    np.testing.assert_array_equal(transforms[0], np.eye(4))
    points = np.random.default_rng(0).uniform(-1, 1, (200, 3)) * (50, 60, 30)
    for pose, transform in zip(poses[1:], transforms[1:], strict=True):
        error = apply_affine(pose, points) - apply_affine(transform, points)
        # a voxel measures 3 x 3 x 6 mm, its skull is drawn without partial volume
        assert np.linalg.norm(error, axis=1).mean() < 0.3


# -- series corrected by other software


def test_voxels_that_a_corrected_series_lacks_are_missing(toy_head):
    ctp = toy_head[0].copy()
    ctp[..., 5, 7] = AIR_HU  # the uppermost slice in one frame
    corrected = preprocessing.accept_corrected(ctp, toy_head[1], METHOD)
    head = (ctp[..., 0] > -200)[..., 5]
    assert np.isnan(corrected.ctp[..., 5, 7][head]).all()
    np.testing.assert_array_equal(corrected.ctp[..., :5, :], ctp[..., :5, :])
    assert (corrected.weights == 1).all()


def test_motion_of_a_corrected_series_is_not_known(toy_head):
    corrected = preprocessing.accept_corrected(*toy_head[:2], METHOD)
    for name in (*preprocessing.COLUMNS, 'framewise_displacement', 'displacement'):
        assert np.isnan(corrected.confounds[name]).all(), name


def test_frame_of_a_corrected_series_with_a_displaced_skull_is_rejected(toy_head):
    ctp = toy_head[0].copy()
    ctp[..., 9] = np.roll(ctp[..., 9], 6, axis=1)
    corrected = preprocessing.accept_corrected(ctp, toy_head[1], METHOD)
    assert np.flatnonzero(corrected.weights == 0).tolist() == [9]


# -- masks


def make_masks(toy_head, brain_mask=None, ctp=None, exclude=None):
    original, affine, times = toy_head
    ctp = original.astype(np.float32) if ctp is None else ctp
    return preprocessing.make_masks(
        ctp, times[: ctp.shape[3]], affine, METHOD, brain_mask=brain_mask,
        exclude=exclude,
    )  # fmt: skip


@pytest.fixture(scope='module')
def masks(toy_head):
    return make_masks(toy_head)


def test_reference_is_the_mean_before_contrast(masks, toy_head):
    # the arteries fill from 5 s on; the frame at 4 s may be left out as too near
    assert masks.n_baseline in (2, 3)
    assert 4 < masks.arrival_s < 8
    np.testing.assert_allclose(
        masks.reference, toy_head[0][..., : masks.n_baseline].mean(axis=-1), atol=1e-3
    )


def test_arrival_and_duration_are_measured_from_the_first_frame(masks, toy_head):
    ctp, affine, times = toy_head
    late = preprocessing.make_masks(ctp.astype(np.float32), times + 100, affine, METHOD)
    assert late.arrival_s == pytest.approx(masks.arrival_s)
    assert late.scan_duration_s == masks.scan_duration_s == 34


def test_tissue_is_brain_without_vessels_and_csf(masks):
    assert not (masks.tissue & (masks.vessels | masks.csf)).any()
    assert not (masks.csf & masks.vessels).any()
    assert not (masks.tissue & ~masks.brain).any()
    assert not (masks.pure & ~masks.tissue).any()
    for name in ('brain', 'vessels', 'csf', 'tissue', 'pure', 'intracranial'):
        assert getattr(masks, name).any(), name


def test_brain_extends_to_the_bone(masks, toy_head):
    bone = (toy_head[0][..., 0] > 500).any(axis=2)
    inside = ndimage.binary_fill_holes(bone) & ~bone
    assert not (masks.brain & bone[..., None]).any()
    assert (masks.brain.sum(axis=(0, 1)) > 0.9 * inside.sum()).all()


def test_ventricles_are_csf_and_not_tissue(masks):
    assert masks.csf[19, 26].all()  # 10 mm left of the middle
    assert not masks.tissue[19, 26].any()


def test_metal_is_measured_and_what_is_near_is_neither_tissue_nor_searched(masks, toy_head):
    ctp = toy_head[0].astype(np.float32)
    ctp[14, 30, 2:4] = 3071
    clipped = make_masks(toy_head, ctp=ctp)
    assert np.argwhere(clipped.metal).tolist() == [[14, 30, 2], [14, 30, 3]]
    assert not masks.metal.any()
    near = np.linalg.norm((np.indices(ctp.shape[:3]).T - (14, 30, 2)) * (4, 4, 8), axis=-1).T <= 10
    assert masks.tissue[near].any()
    assert not (clipped.tissue | clipped.intracranial)[near].any()
    assert (clipped.tissue == masks.tissue).mean() > 0.99


def test_voxel_that_left_the_field_of_view_is_not_tissue(toy_head):
    ctp = toy_head[0].astype(np.float32)
    ctp[..., 5, 7] = np.nan  # the uppermost slice in one frame
    masks = make_masks(toy_head, ctp=ctp)
    assert not masks.tissue[..., 5].any()
    assert masks.tissue[..., 4].any()
    assert masks.brain[..., 4].any()
    assert np.isfinite(masks.reference).all()


def test_series_without_contrast_is_refused(toy_head):
    with pytest.raises(BolusError, match='no contrast bolus'):
        make_masks(toy_head, ctp=toy_head[0][..., [0, 1, 2] * 4].astype(np.float32))


# -- arrival given by the user


@pytest.fixture(scope='module')
def without_bolus(toy_head):
    """Series whose vessels do not enhance, so that no arrival can be found."""
    ctp, affine, times = toy_head
    return ctp[..., [0, 1, 2] * 6].astype(np.float32), times, affine


def test_arrival_of_the_user_needs_no_bolus(without_bolus):
    masks = preprocessing.make_masks(*without_bolus, MethodSettings.of(bolus_arrival=9.0))
    assert masks.arrival_s == 9
    assert masks.n_baseline == 5  # frames at 0, 2, 4, 6 and 8 s


def test_arrival_of_the_user_is_after_the_first_frame(toy_head):
    ctp, affine, times = toy_head
    method = MethodSettings.of(bolus_arrival=5.0)
    masks = preprocessing.make_masks(ctp.astype(np.float32), times + 100, affine, method)
    assert (masks.arrival_s, masks.n_baseline) == (5, 3)


@pytest.mark.parametrize('arrival', [33.0, 90.0])
def test_arrival_of_the_user_is_within_the_scan(without_bolus, arrival):
    method = MethodSettings.of(bolus_arrival=arrival)
    with pytest.raises(BolusError, match='check --bolus-arrival'):
        preprocessing.make_masks(*without_bolus, method)


def test_contrast_arrives_with_a_supplied_curve(without_bolus):
    times = np.arange(0, 36, 0.5)
    rise = np.clip((times - 9) / 4, 0, None)
    aif = SuppliedCurves(times, 300 * (rise * np.exp(1 - rise)) ** 2, None, 'aif.tsv')
    masks = preprocessing.make_masks(*without_bolus, METHOD, aif=aif)
    assert masks.arrival_s == pytest.approx(9.5, abs=1)
    assert masks.n_baseline in (4, 5)


def test_contrast_arrives_with_supplied_voxels(without_bolus, artery):
    """Four voxels are too few for a search."""
    ctp, times, affine = without_bolus
    ctp = ctp.copy()
    voxels = np.zeros(ctp.shape[:3], bool)
    voxels[28:30, 34:36, 2] = True
    ctp[voxels] += artery(times, arrival=9).astype(np.float32)
    masks = preprocessing.make_masks(
        ctp, times, affine, METHOD, aif=SuppliedMask(voxels, affine, 'aif.nii.gz')
    )
    assert masks.arrival_s == pytest.approx(9.5, abs=1)


def test_arrival_of_the_user_precedes_a_supplied_curve(without_bolus):
    times = np.arange(0, 36, 0.5)
    flat = SuppliedCurves(times, np.zeros(times.size), None, 'aif.tsv')
    method = MethodSettings.of(bolus_arrival=9.0)
    assert preprocessing.make_masks(*without_bolus, method, aif=flat).arrival_s == 9


# -- motion and drift reach the masks


def test_damaged_tissue_feeds_no_denoising_but_stays_in_the_maps(masks, toy_head):
    ctp, affine, times = toy_head
    damage = np.zeros(ctp.shape[:3], np.float32)
    damage[:, :20] = 50
    damaged = preprocessing.make_masks(
        ctp.astype(np.float32), times, affine, METHOD, damage=damage
    )
    np.testing.assert_array_equal(damaged.tissue, masks.tissue)
    np.testing.assert_array_equal(damaged.pure, masks.pure & (damage == 0))


def test_series_that_is_damaged_everywhere_is_still_denoised(masks, toy_head):
    ctp, affine, times = toy_head
    damage = np.full(ctp.shape[:3], 3.0, np.float32)
    damaged = preprocessing.make_masks(
        ctp.astype(np.float32), times, affine, METHOD, damage=damage
    )
    np.testing.assert_array_equal(damaged.pure, masks.pure)


def test_drift_of_a_series_is_subtracted(toy_head):
    ctp, affine, times = toy_head
    # contrast arrives later, so that brain shows the drift before it
    still = ctp[..., :1] + np.random.default_rng(0).normal(0, 1, (*ctp.shape[:3], 8))
    ctp = np.concatenate([still, ctp], axis=-1).astype(np.float32)
    times = 2.0 * np.arange(ctp.shape[3])
    part = 5 * times / times[-1]
    corrected = preprocessing.correct_motion(
        ctp + part.astype(np.float32), affine, METHOD, frame_times=times
    )
    assert corrected.drift.corrected_hu == pytest.approx(5, abs=0.3)
    np.testing.assert_allclose(corrected.ctp, ctp, atol=0.4)


# -- series without skull


@pytest.mark.parametrize('background', [0, -1024])
def test_stripped_series_keeps_its_frames_and_its_brain(toy_head, background):
    ctp, affine, times = toy_head
    head = ctp[..., :3].mean(axis=-1)
    brain_voxels = (head > 0) & (head < 100)
    stripped = np.where(brain_voxels[..., None], ctp, background).astype(np.float32)
    corrected = estimate_and_correct(stripped, affine)
    assert (corrected.weights == 1).all()
    masks = preprocessing.make_masks(corrected.ctp, times, affine, METHOD)
    assert masks.brain[brain_voxels].mean() > 0.85
    assert masks.brain[~brain_voxels].mean() < 0.01
    assert masks.tissue.any()
    assert 4 < masks.arrival_s < 8


def test_motion_of_a_stripped_series_is_found(symmetric_head):
    poses = [np.eye(4), frame_affine(np.array([3.0, -2, 0, 0, 0, 0.03]), np.zeros(3))]
    frames = [np.where(inside, image, 0) for image, inside in map(symmetric_head.draw, poses)]
    transforms, _ = preprocessing.estimate_motion(
        np.stack(frames, axis=-1), symmetric_head.affine, METHOD
    )
    points = np.random.default_rng(0).uniform(-1, 1, (200, 3)) * (50, 60, 30)
    error = apply_affine(poses[1], points) - apply_affine(transforms[1], points)
    assert np.linalg.norm(error, axis=1).mean() < 1.0


def test_contrast_of_a_stripped_series_is_not_taken_for_motion(symmetric_head):
    image, inside = symmetric_head.draw(np.eye(4))
    frames = [np.where(inside, image + enhancement, 0) for enhancement in (0, 0, 10)]
    transforms, _ = preprocessing.estimate_motion(
        np.stack(frames, axis=-1), symmetric_head.affine, METHOD
    )
    points = np.random.default_rng(0).uniform(-1, 1, (200, 3)) * (50, 60, 30)
    error = apply_affine(transforms[2], points) - points
    assert np.linalg.norm(error, axis=1).mean() < 0.2


# -- supplied brain masks


def supply(mask, affine):
    return SuppliedMask(mask, affine, 'mask.nii.gz')


def test_supplied_brain_mask_bounds_the_tissue(masks, toy_head):
    """Also with a hole, which our mask would fill."""
    mask = masks.brain.copy()
    mask[:, 30:40] = False
    supplied = make_masks(toy_head, supply(mask, toy_head[1]))
    np.testing.assert_array_equal(supplied.brain, mask)
    assert supplied.tissue.any()
    assert not (supplied.tissue & ~mask).any()
    # vessels are still sought outside of the mask: there is the sinus at the back
    assert supplied.intracranial.sum() > 0.5 * masks.brain.sum()


def test_supplied_brain_mask_is_enough_where_no_brain_is_found(toy_head, monkeypatch):
    def fail(*args, **kwargs):
        raise PerfusionError('no skull')

    monkeypatch.setattr(brain, 'brain_masks', fail)
    with pytest.raises(PerfusionError, match='no skull'):
        make_masks(toy_head)
    mask = (toy_head[0][..., 0] > 0) & (toy_head[0][..., 0] < 100)
    supplied = make_masks(toy_head, supply(mask, toy_head[1]))
    np.testing.assert_array_equal(supplied.brain, mask)
    assert supplied.tissue.any()


def test_error_of_a_mask_of_another_space_names_the_file(toy_head):
    away = toy_head[1].copy()
    away[0, 3] += 500
    with pytest.raises(PerfusionError, match=r'mask.nii.gz: 0% of its voxels are on the head'):
        make_masks(toy_head, supply(np.ones(toy_head[0].shape[:3], bool), away))


def test_excluded_voxels_are_brain_but_not_tissue(masks, toy_head):
    lesion = np.zeros(masks.brain.shape, bool)
    lesion[:, 30:40] = True
    excluded = make_masks(toy_head, exclude=supply(lesion, toy_head[1]))
    np.testing.assert_array_equal(excluded.brain, masks.brain)
    np.testing.assert_array_equal(excluded.tissue, masks.tissue & ~lesion)
    assert not (excluded.pure & lesion).any()


def test_brain_mask_beside_the_skull_is_refused(masks, toy_head):
    shifted = np.roll(masks.brain, masks.brain.shape[0] // 3, axis=0)
    with pytest.raises(PerfusionError, match=r'inside the skull.* check its affine'):
        make_masks(toy_head, supply(shifted, toy_head[1]))


def test_brain_mask_of_a_few_voxels_is_refused(masks, toy_head):
    few = masks.brain & (np.indices(masks.brain.shape)[0] < masks.brain.shape[0] // 3)
    few[..., : few.shape[2] // 2] = False
    with pytest.raises(PerfusionError, match=r'covers .* of the brain'):
        make_masks(toy_head, supply(few, toy_head[1]))
