# SPDX-License-Identifier: Apache-2.0
"""From files to files: the working grid, the corrected series, the masks."""

import json
import re
from pathlib import Path

import nibabel as nb
import numpy as np
import pandas as pd
import pytest
from ctpprep.interfaces.overrides import LoadCorrected
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform
from scipy import ndimage

from ctpprep.exceptions import BolusError, PerfusionError
from ctpprep.interfaces.preprocessing import (
    AIR_HU,
    CorrectMotion,
    EstimateMotion,
    MakeMasks,
    PrepareSeries,
    frame_weights,
)
from ctpprep.io import nifti
from ctpprep.perfusion import brain
from ctpprep.phantom import frame_affine
from ctpprep.settings import MethodSettings

METHOD = MethodSettings()
AXES = ['RAS', 'LAS', 'LPS', 'LPI']
OBLIQUE = frame_affine(np.array([3.0, -5, 8, 0.1, 0.15, 0.3]), np.zeros(3))


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(ctp, affine, axes='RAS', name='ctp.nii.gz'):
    """Write canonical voxels in another voxel order."""
    order = ornt_transform(axcodes2ornt('RAS'), axcodes2ornt(axes))
    image = nb.Nifti1Image(
        nb.orientations.apply_orientation(ctp, order),
        affine @ inv_ornt_aff(order, ctp.shape[:3]),
    )
    nb.save(image, name)
    return str(Path(name).absolute())


def prepare(path, sample_times, in_plane=1.8, through=5.0):
    return PrepareSeries(
        ctp=path, sample_times=np.asarray(sample_times, float).tolist(),
        working_in_plane_mm=in_plane, working_slice_mm=through,
    ).run().outputs  # fmt: skip


def estimate(working, threads=1):
    return EstimateMotion(
        ctp_working=working, num_threads=threads, motion_grid_mm=METHOD.motion.motion_grid_mm,
        motion_window_hu=METHOD.motion.motion_window_hu,
        motion_smoothing_mm=list(METHOD.motion.motion_smoothing_mm),
        motion_reject_similarity=METHOD.motion.motion_reject_similarity,
    ).run().outputs  # fmt: skip


def correct(working, times, transforms=None, reference=0, threads=1):
    given = {'transforms': transforms} if transforms else {}
    return CorrectMotion(
        ctp_working=working, sample_times=times, reference_frame=reference, num_threads=threads,
        motion_reject_similarity=METHOD.motion.motion_reject_similarity,
        motion_skip_mm=METHOD.motion.motion_skip_mm, **given,
    ).run().outputs  # fmt: skip


def make_masks(corrected, times, **supplied):
    return MakeMasks(
        ctp_corrected=corrected.ctp_corrected, confounds=corrected.confounds, sample_times=times,
        **METHOD.stage('masks'), **supplied,
    ).run().outputs  # fmt: skip


def no_delay(times, n_slices):
    return np.tile(times, (n_slices, 1))


# -- working grid


@pytest.mark.parametrize('axes', AXES)
def test_a_coarse_series_keeps_its_voxels_order_and_affine(toy_head, axes):
    ctp, affine, times = toy_head
    raw = write(ctp, affine, axes)
    found = prepare(raw, no_delay(times, 6))
    assert found.factors == (1, 1, 1)
    image, source = nb.load(found.ctp_working), nb.load(raw)
    np.testing.assert_array_equal(image.get_fdata(), source.get_fdata())
    np.testing.assert_allclose(image.affine, source.affine, atol=1e-5)


@pytest.fixture(scope='module')
def fine():
    """Make a field that rises along patient x, y and z, on a fine grid; values are coordinates."""
    affine = np.diag([0.9, 0.9, 1.25, 1.0])
    affine[:3, 3] = -20, -30, -10
    index = np.stack(np.meshgrid(*map(np.arange, (32, 36, 12)), indexing='ij'), axis=-1)
    return index * np.array([0.9, 0.9, 1.25]) + affine[:3, 3], affine


@pytest.mark.parametrize('pose', [np.eye(4), OBLIQUE], ids=['straight', 'oblique'])
@pytest.mark.parametrize('axes', AXES)
def test_averaged_voxels_lie_where_their_values_say(fine, axes, pose):
    where, affine = fine
    where, affine = nb.affines.apply_affine(pose, where), pose @ affine
    found = prepare(write(where.astype(np.float32), affine, axes), no_delay([0, 1, 2], 12))
    assert found.factors == (2, 2, 4)
    image = nb.load(found.ctp_working)
    assert nb.aff2axcodes(image.affine) == tuple(axes)
    index = np.stack(np.meshgrid(*map(np.arange, image.shape[:3]), indexing='ij'), axis=-1)
    at = nb.affines.apply_affine(image.affine, index)
    np.testing.assert_allclose(at, image.get_fdata(), atol=1e-3)


def test_a_matrix_of_512_and_thin_slices_are_averaged():
    ctp = np.zeros((512, 512, 10, 3), np.int16)
    ctp[256:, :, :, 1] = 40
    ctp[..., 5:, 2] = 80
    affine = np.diag([0.45, 0.45, 1.0, 1.0])
    found = prepare(write(ctp, affine), no_delay([0, 2, 4], 10))
    image = nb.load(found.ctp_working)
    assert image.shape == (128, 128, 2, 3)
    np.testing.assert_allclose(image.header.get_zooms()[:3], (1.8, 1.8, 5.0), rtol=1e-5)
    np.testing.assert_allclose(image.affine[:3, 3], (0.675, 0.675, 2.0), atol=1e-5)
    voxels = image.get_fdata()
    assert np.unique(voxels[:64, ..., 1]) == 0
    assert np.unique(voxels[64:, ..., 1]) == 40
    assert np.unique(voxels[:, :, 1, 2]) == 80
    assert np.load(found.sample_times).shape == (2, 3)


@pytest.mark.parametrize('axes', ['RAS', 'LPI'])
def test_slices_of_different_times_are_not_averaged(axes):
    """Slice times are listed feet to head, whatever the order in the file."""
    ctp = np.zeros((4, 4, 8, 3), np.float32)
    ctp[..., 4:, :] = 100
    samples = np.tile([0.0, 2, 4], (8, 1))
    samples[4:] += 1
    found = prepare(write(ctp, np.diag([1.8, 1.8, 1.25, 1.0]), axes), samples)
    assert found.factors == (1, 1, 4)
    np.testing.assert_array_equal(np.load(found.sample_times), [[0, 2, 4], [1, 3, 5]])
    voxels, _ = nifti.load(found.ctp_working)
    assert voxels[..., 0, :].max() == 0
    assert voxels[..., 1, :].min() == 100
    samples[1] += 0.5
    assert prepare(write(ctp, np.diag([1.8, 1.8, 1.25, 1.0]), axes), samples).factors[2] == 1


@pytest.mark.parametrize('axes', ['RAS', 'LPI'])
def test_how_many_slices_are_read_at_once_does_not_show(axes, monkeypatch):
    ctp = np.random.default_rng(0).integers(-100, 100, (8, 8, 11, 3), dtype=np.int16)
    raw = write(ctp, np.diag([0.9, 0.9, 2.5, 1.0]), axes)
    whole = nb.load(prepare(raw, no_delay([0, 2, 4], 11)).ctp_working).get_fdata()
    monkeypatch.setattr('ctpprep.interfaces.preprocessing.SLAB_VOXELS', 1)
    in_slabs = nb.load(prepare(raw, no_delay([0, 2, 4], 11)).ctp_working).get_fdata()
    assert whole.shape == (4, 4, 5, 3)
    np.testing.assert_array_equal(in_slabs, whole)


def test_padding_and_nan_become_air():
    ctp = np.full((4, 4, 4, 3), 40, np.float32)
    ctp[0], ctp[1] = -3024, np.nan
    found = prepare(write(ctp, np.diag([2.0, 2, 5, 1])), no_delay([0, 2, 4], 4))
    voxels = nb.load(found.ctp_working).get_fdata()
    assert np.unique(voxels[:2]) == -1024
    assert np.unique(voxels[2:]) == 40


def test_scaled_integers_are_read_in_hu():
    image = nb.Nifti1Image(np.full((4, 4, 4, 3), 1064, np.int16), np.diag([2.0, 2, 5, 1]))
    image.header.set_slope_inter(1, -1024)
    nb.save(image, 'ctp.nii.gz')
    found = prepare(str(Path('ctp.nii.gz').absolute()), no_delay([0, 2, 4], 4))
    assert np.unique(nb.load(found.ctp_working).get_fdata()) == 40


# -- motion


def test_without_transforms_nothing_moves(toy_head):
    ctp, affine, times = toy_head
    working = prepare(write(ctp, affine, 'LPS'), no_delay(times, 6))
    found = correct(working.ctp_working, working.sample_times)
    voxels, _ = nifti.load(found.ctp_corrected)
    np.testing.assert_array_equal(voxels, ctp)
    table = pd.read_csv(found.confounds, sep='\t')
    assert not table.loc[:, 'trans_x':'displacement'].to_numpy().any()
    np.testing.assert_array_equal(frame_weights(found.confounds), 1)


def moved_head(toy_head, axes):
    """Move the head by one voxel to the right (+x) in frame 3."""
    ctp, affine, times = toy_head
    ctp = ctp[..., :6].copy()
    ctp[..., 3] = np.roll(ctp[..., 3], 1, axis=0)
    matrices = np.tile(np.eye(4), (6, 1, 1))
    matrices[3, 0, 3] = 4.0
    np.save('transforms.npy', matrices)
    working = prepare(write(ctp, affine, axes), no_delay(times[:6], 6))
    return correct(
        working.ctp_working, working.sample_times, str(Path('transforms.npy').absolute())
    )


@pytest.mark.parametrize('axes', ['RAS', 'LPS'])
def test_a_moved_frame_comes_back(toy_head, axes):
    found = moved_head(toy_head, axes)
    voxels, _ = nifti.load(found.ctp_corrected)
    np.testing.assert_allclose(voxels[:-1, ..., 3], toy_head[0][:-1, ..., 3], atol=1e-2)
    assert np.isnan(voxels[-1, ..., 3]).all()  # missing, not air


def test_motion_stands_in_the_table_in_its_unit(toy_head):
    table = pd.read_csv(moved_head(toy_head, 'LPS').confounds, sep='\t')
    np.testing.assert_allclose(table['trans_x'], [0, 0, 0, 4, 0, 0], atol=1e-4)
    np.testing.assert_allclose(table['framewise_displacement'], [0, 0, 0, 4, 4, 0], atol=1e-4)


def test_a_frame_that_stays_displaced_is_rejected(toy_head):
    ctp, affine, times = toy_head
    ctp = ctp.copy()
    ctp[..., 5] = np.roll(ctp[..., 5], 4, axis=1)
    working = prepare(write(ctp, affine), no_delay(times, 6))
    found = correct(working.ctp_working, working.sample_times)
    assert np.flatnonzero(frame_weights(found.confounds) == 0).tolist() == [5]


@pytest.fixture(scope='module')
def dome():
    """Draw a skull that narrows upwards, so that motion along every axis shows; no bolus."""
    size = np.array([4.0, 4.0, 6.0])
    affine = np.diag([*size, 1.0])
    affine[:3, 3] = -86, -102, 0
    index = np.stack(np.meshgrid(*map(np.arange, (44, 52, 10)), indexing='ij'), axis=-1)
    x, y, z = np.moveaxis(index * size + affine[:3, 3], -1, 0)
    radius = np.sqrt(np.square(x / 80) + np.square(y / 95) + np.square(z / 130))
    still = np.interp(radius, [0.86, 0.91, 0.97, 1.02], [35, 900, 900, -1000])
    noise = np.random.default_rng(0).normal(0, 4, (*radius.shape, 12))
    return np.round(still[..., None] + noise).astype(np.int16), affine, 2.0 * np.arange(12)


def find_and_correct(ctp, affine, times, threads=1):
    """Run the two nodes on the motion of a series."""
    working = prepare(write(ctp, affine), no_delay(times, ctp.shape[2]))
    found = estimate(working.ctp_working, threads)
    corrected = correct(
        working.ctp_working, working.sample_times, found.transforms, found.reference_frame, threads
    )
    return corrected, json.loads(Path(corrected.motion).read_text())


def test_a_head_that_did_not_move_is_not_resampled(dome):
    found, facts = find_and_correct(*dome)
    assert facts == {'reference_frame': 0, 'frames_resampled': False}
    np.testing.assert_array_equal(nifti.load(found.ctp_corrected)[0], dome[0])
    assert pd.read_csv(found.confounds, sep='\t')['displacement'][1:].between(1e-6, 0.05).all()
    parameters = re.findall('(?m)^Parameters: (.+)', Path(found.frame_transforms).read_text())
    assert set(parameters) == {'1 0 0 0 1 0 0 0 1 0 0 0'}


def test_one_moved_frame_is_enough_to_resample(dome):
    ctp, affine, times = dome
    ctp = ctp.copy()
    ctp[..., 7] = np.roll(ctp[..., 7], 1, axis=0)
    _, facts = find_and_correct(ctp, affine, times)
    assert facts['frames_resampled']


def test_a_rejected_frame_is_no_reason_to_resample(dome):
    ctp, affine, times = dome
    ctp = ctp.copy()
    ctp[..., 7] = (ctp[..., 7] + np.roll(ctp[..., 7], 3, axis=1)) // 2
    found, facts = find_and_correct(ctp, affine, times)
    np.testing.assert_array_equal(np.flatnonzero(frame_weights(found.confounds) == 0), [7])
    assert not facts['frames_resampled']
    np.testing.assert_array_equal(nifti.load(found.ctp_corrected)[0], ctp)


def test_a_blurred_frame_0_is_not_the_reference(dome):
    ctp, affine, times = dome
    ctp = ctp.copy()
    ctp[..., 0] = (ctp[..., 0] + np.roll(ctp[..., 0], 3, axis=1)) // 2
    found, facts = find_and_correct(ctp, affine, times)
    assert facts['reference_frame'] == 1
    np.testing.assert_array_equal(np.flatnonzero(frame_weights(found.confounds) == 0), [0])
    table = pd.read_csv(found.confounds, sep='\t')
    assert table['displacement'][1] == 0
    assert table['displacement'][2:].max() < 0.05


def test_an_empty_frame_0_is_not_the_reference(dome):
    ctp, affine, times = dome
    ctp = ctp.copy()
    ctp[..., 0] = -1024
    found, facts = find_and_correct(ctp, affine, times)
    assert facts['reference_frame'] == 1
    np.testing.assert_array_equal(np.flatnonzero(frame_weights(found.confounds) == 0), [0])


def test_threads_change_no_bit(dome):
    ctp, affine, times = dome
    ctp = ctp.copy()
    ctp[..., 9:] = np.roll(ctp[..., 9:], 1, axis=1)
    one, four = (
        nifti.load(find_and_correct(ctp, affine, times, threads)[0].ctp_corrected)[0]
        for threads in (1, 4)
    )
    np.testing.assert_array_equal(one, four)


# -- masks


@pytest.fixture(scope='module')
def masked(toy_head, tmp_path_factory):
    """Find the masks of the toy head in two voxel orders."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        for axes in ('RAS', 'LPS'):
            patch.chdir(tmp_path_factory.mktemp(axes))
            ctp, affine, times = toy_head
            working = prepare(write(ctp, affine, axes), no_delay(times, 6))
            corrected = correct(working.ctp_working, working.sample_times)
            found[axes] = make_masks(corrected, working.sample_times)
    return found


NAMES = ('reference', 'brain_mask', 'intracranial_mask', 'vessel_mask', 'csf_mask', 'tissue_mask')


@pytest.mark.parametrize('name', NAMES)
def test_voxel_order_changes_no_mask_in_the_patient(masked, name):
    (first, affine), (second, other) = (
        nifti.load(getattr(masked[axes], name)) for axes in ('RAS', 'LPS')
    )
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(affine, other, atol=1e-5)


def test_reference_is_the_mean_before_contrast(masked, toy_head):
    facts = json.loads(Path(masked['RAS'].bolus).read_text())
    # the arteries fill from 5 s on; the frame at 4 s may be left out as too near
    assert facts['n_baseline'] in (2, 3)
    assert 4 < facts['arrival_s'] < 8
    reference, _ = nifti.load(masked['RAS'].reference)
    np.testing.assert_allclose(
        reference, toy_head[0][..., : facts['n_baseline']].mean(axis=-1), atol=1e-3
    )


def test_masks_part_the_brain(masked):
    brain, vessels, csf, tissue, inside = (
        nifti.load_mask(getattr(masked['RAS'], f'{name}_mask'))
        for name in ('brain', 'vessel', 'csf', 'tissue', 'intracranial')
    )
    assert not (tissue & (vessels | csf)).any()
    assert not (csf & vessels).any()
    assert not (tissue & ~brain).any()
    for mask in (brain, vessels, csf, tissue, inside):
        assert mask.any()


def test_brain_mask_ends_at_the_bone(masked, toy_head):
    brain_mask = nifti.load_mask(masked['RAS'].brain_mask)
    bone = (toy_head[0][..., 0] > 500).any(axis=2)
    inside = ndimage.binary_fill_holes(bone) & ~bone
    for z in range(brain_mask.shape[2]):
        assert not (brain_mask[..., z] & bone).any()
        assert brain_mask[..., z].sum() > 0.9 * inside.sum()


def test_ventricles_are_csf_and_not_tissue(masked):
    csf = nifti.load_mask(masked['RAS'].csf_mask)
    tissue = nifti.load_mask(masked['RAS'].tissue_mask)
    assert csf[19, 26].all()  # 10 mm left of the middle
    assert not tissue[19, 26].any()


def test_a_voxel_that_left_the_field_of_view_is_no_tissue(toy_head):
    ctp, affine, times = toy_head
    working = prepare(write(ctp, affine), no_delay(times, 6))
    corrected = correct(working.ctp_working, working.sample_times)
    image = nb.load(corrected.ctp_corrected)
    voxels = image.get_fdata(dtype=np.float32)
    voxels[..., 5, 7] = np.nan  # the uppermost slice in one frame
    nb.save(nb.Nifti1Image(voxels, image.affine), 'gap.nii')
    corrected.ctp_corrected = str(Path('gap.nii').absolute())
    found = make_masks(corrected, working.sample_times)
    assert not nifti.load_mask(found.tissue_mask)[..., 5].any()
    assert nifti.load_mask(found.tissue_mask)[..., 4].any()
    assert nifti.load_mask(found.brain_mask)[..., 4].any()
    assert np.isfinite(nifti.load(found.reference)[0]).all()


def test_a_series_without_contrast_is_refused(toy_head):
    ctp, affine, _ = toy_head
    working = prepare(
        write(ctp[..., [0, 1, 2] * 4], affine), no_delay(2.0 * np.arange(12), 6)
    )  # fmt: skip
    corrected = correct(working.ctp_working, working.sample_times)
    with pytest.raises(BolusError, match='no contrast bolus'):
        make_masks(corrected, working.sample_times)


# -- times of the working series


def test_even_slices_are_timed_as_volumes_on_the_clock_of_the_series():
    ctp = np.zeros((4, 4, 6, 3), np.int16)
    found = prepare(write(ctp, np.diag([2.0, 2, 5, 1])), no_delay([5.0, 7, 10], 6))
    assert json.loads(Path(found.timing).read_text()) == {'VolumeTiming': [5, 7, 10]}


def test_slices_of_different_times_are_timed_one_by_one():
    ctp = np.zeros((4, 4, 4, 3), np.int16)
    samples = np.tile([5.0, 7, 9], (4, 1))
    samples[2:] += 0.5
    found = prepare(write(ctp, np.diag([2.0, 2, 5, 1])), samples)
    times = json.loads(Path(found.timing).read_text())
    assert times == {
        'SliceAcquisitionTimes': [[5, 5, 5.5, 5.5], [7, 7, 7.5, 7.5], [9, 9, 9.5, 9.5]]
    }


# -- supplied


def test_a_supplied_brain_mask_bounds_the_tissue(toy_head):
    """Also in another voxel order, and with a hole that ours would fill."""
    ctp, affine, times = toy_head
    working = prepare(write(ctp, affine), no_delay(times, 6))
    corrected = correct(working.ctp_working, working.sample_times)
    own = nifti.load_mask(make_masks(corrected, working.sample_times).brain_mask)
    mask = own.copy()
    mask[:, 30:40] = False
    path = write(mask.astype(np.uint8), affine, 'LPI', 'mask.nii.gz')
    found = make_masks(corrected, working.sample_times, supplied_brain_mask=path)
    np.testing.assert_array_equal(nifti.load_mask(found.brain_mask), mask)
    tissue = nifti.load_mask(found.tissue_mask)
    assert tissue.any()
    assert not (tissue & ~mask).any()
    # the sinus at the back lies outside of the mask's brain but is still looked at
    assert nifti.load_mask(found.intracranial_mask).sum() > 0.5 * own.sum()


def test_a_supplied_brain_mask_serves_where_ours_fails(toy_head, monkeypatch):
    def fail(*args, **kwargs):
        raise PerfusionError('no skull')

    ctp, affine, times = toy_head
    working = prepare(write(ctp, affine), no_delay(times, 6))
    corrected = correct(working.ctp_working, working.sample_times)
    mask = (ctp[..., 0] > 0) & (ctp[..., 0] < 100)
    path = write(mask.astype(np.uint8), affine, name='mask.nii.gz')
    monkeypatch.setattr(brain, 'brain_masks', fail)
    with pytest.raises(PerfusionError, match='no skull'):
        make_masks(corrected, working.sample_times)
    found = make_masks(corrected, working.sample_times, supplied_brain_mask=path)
    np.testing.assert_array_equal(nifti.load_mask(found.brain_mask), mask)
    assert nifti.load_mask(found.tissue_mask).any()


def test_a_supplied_brain_mask_of_another_space_is_refused_by_name(toy_head):
    ctp, affine, times = toy_head
    working = prepare(write(ctp, affine), no_delay(times, 6))
    corrected = correct(working.ctp_working, working.sample_times)
    away = affine.copy()
    away[0, 3] += 500
    path = write(np.ones(ctp.shape[:3], np.uint8), away, name='mask.nii.gz')
    with pytest.raises(PerfusionError, match=r'mask.nii.gz: 0% of its voxels are on the head'):
        make_masks(corrected, working.sample_times, supplied_brain_mask=path)


@pytest.mark.parametrize('axes', ['RAS', 'LPI'])
def test_a_supplied_corrected_series_is_taken_with_what_was_not_seen(toy_head, axes):
    ctp, affine, times = toy_head
    ctp = ctp.copy()
    ctp[..., 5, 7] = AIR_HU  # the uppermost slice in one frame
    working = prepare(write(ctp, affine, axes), no_delay(times, 6))
    found = LoadCorrected(
        ctp_working=working.ctp_working, sample_times=working.sample_times,
        motion_reject_similarity=0.9,
    ).run().outputs  # fmt: skip
    voxels, _ = nifti.load(found.ctp_corrected)
    head = (ctp[..., 0] > -200)[..., 5]
    assert np.isnan(voxels[..., 5, 7][head]).all()
    assert np.isfinite(voxels[..., :5, :]).all()
    np.testing.assert_array_equal(voxels[..., :5, :], ctp[..., :5, :])
    table = pd.read_csv(found.confounds, sep='\t')
    assert table['displacement'].isna().all()
    assert (table['weight'] == 1).all()


def test_a_frame_of_a_supplied_series_whose_skull_is_elsewhere_gets_no_weight(toy_head):
    ctp, affine, times = toy_head
    ctp = ctp.copy()
    ctp[..., 9] = np.roll(ctp[..., 9], 6, axis=1)
    working = prepare(write(ctp, affine), no_delay(times, 6))
    found = LoadCorrected(
        ctp_working=working.ctp_working, sample_times=working.sample_times,
        motion_reject_similarity=0.9,
    ).run().outputs  # fmt: skip
    assert np.flatnonzero(frame_weights(found.confounds) == 0).tolist() == [9]


def test_times_of_slices_are_listed_in_the_order_of_the_file():
    ctp = np.zeros((4, 4, 2, 3), np.int16)
    feet_to_head = np.array([[5.0, 7, 9], [5.5, 7.5, 9.5]])
    found = prepare(write(ctp, np.diag([2.0, 2, -5, 1])), feet_to_head)
    times = json.loads(Path(found.timing).read_text())
    assert times == {'SliceAcquisitionTimes': [[5.5, 5], [7.5, 7], [9.5, 9]]}
