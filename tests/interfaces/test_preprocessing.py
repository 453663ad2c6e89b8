# SPDX-License-Identifier: Apache-2.0
"""From the file of a series to those of the working grid, the corrected series and the masks."""

import json
import re
from pathlib import Path

import nibabel as nb
import numpy as np
import pandas as pd
import pytest
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform

from ctpprep.interfaces.preprocessing import (
    CorrectMotion,
    EstimateMotion,
    LoadCorrected,
    MakeMasks,
    PrepareSeries,
    frame_weights,
)
from ctpprep.io import nifti
from ctpprep.perfusion import grid
from ctpprep.perfusion.preprocessing import AIR_HU
from ctpprep.phantom import frame_affine
from ctpprep.settings import MethodSettings

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


def prepare(path, sample_times, **changed):
    return PrepareSeries(
        ctp=path, sample_times=np.asarray(sample_times, float).tolist(),
        settings=MethodSettings.of(**changed).as_dict('grid'),
    ).run().outputs  # fmt: skip


def estimate(working, **changed):
    settings = MethodSettings.of(**changed).as_dict('motion')
    return EstimateMotion(ctp_working=working, settings=settings).run().outputs


def correct(working, transforms=None, reference=0, **changed):
    supplied = {'transforms': transforms} if transforms else {}
    return CorrectMotion(
        ctp_working=working.ctp_working, sample_times=working.sample_times,
        reference_frame=reference, settings=MethodSettings.of(**changed).as_dict('motion', 'masks'),
        **supplied,
    ).run().outputs  # fmt: skip


def load_corrected(working):
    return LoadCorrected(
        ctp_working=working.ctp_working, sample_times=working.sample_times,
        settings=MethodSettings().as_dict('motion', 'masks'),
    ).run().outputs  # fmt: skip


def make_masks(corrected, times, supplied=(), **changed):
    return MakeMasks(
        ctp_corrected=corrected.ctp_corrected, confounds=corrected.confounds, sample_times=times,
        damage=corrected.damage,
        settings=MethodSettings.of(**changed).as_dict('masks'), **dict(supplied),
    ).run().outputs  # fmt: skip


def no_delay(times, n_slices):
    return np.tile(times, (n_slices, 1))


def read_json(path):
    return json.loads(Path(path).read_text())


def facts(corrected):
    """Return what was done to the frames, without the drift."""
    return {name: v for name, v in read_json(corrected.motion).items() if name != 'drift'}


# -- working grid


@pytest.mark.parametrize('axes', AXES)
def test_coarse_series_keeps_voxels_order_and_affine(toy_head, axes):
    ctp, affine, times = toy_head
    raw = write(ctp, affine, axes)
    working = prepare(raw, no_delay(times, 6))
    assert working.factors == (1, 1, 1)
    image, source = nb.load(working.ctp_working), nb.load(raw)
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
def test_averaged_voxels_are_at_the_place_of_their_values(fine, axes, pose):
    where, affine = fine
    where, affine = nb.affines.apply_affine(pose, where), pose @ affine
    working = prepare(write(where.astype(np.float32), affine, axes), no_delay([0, 1, 2], 12))
    assert working.factors == (2, 2, 4)
    image = nb.load(working.ctp_working)
    assert nb.aff2axcodes(image.affine) == tuple(axes)
    index = np.stack(np.meshgrid(*map(np.arange, image.shape[:3]), indexing='ij'), axis=-1)
    at = nb.affines.apply_affine(image.affine, index)
    np.testing.assert_allclose(at, image.get_fdata(), atol=1e-3)


@pytest.mark.parametrize('axes', [*AXES, 'SPL', 'AIR'])
def test_parts_of_voxels_are_averaged_from_disk_as_in_memory(axes):
    ctp = np.random.default_rng(0).integers(-100, 100, (31, 29, 8, 3), dtype=np.int16)
    affine = np.diag([0.96, 1.0, 5.0, 1.0])
    working = prepare(write(ctp, affine, axes), no_delay([0, 1, 2], 8))
    factors = (1.8 / 0.96, 1.8, 1)
    np.testing.assert_allclose(working.factors, factors, rtol=1e-6)
    voxels, found = nifti.load(working.ctp_working)
    expected = np.stack([grid.average_blocks(ctp[..., t], factors) for t in range(3)], axis=-1)
    np.testing.assert_allclose(voxels, expected, atol=1e-4)
    np.testing.assert_allclose(found, grid.block_affine(affine, factors), atol=1e-4)


def test_matrix_of_512_and_thin_slices_are_averaged():
    ctp = np.zeros((512, 512, 10, 3), np.int16)
    ctp[256:, :, :, 1] = 40
    ctp[..., 5:, 2] = 80
    affine = np.diag([0.45, 0.45, 1.0, 1.0])
    working = prepare(write(ctp, affine), no_delay([0, 2, 4], 10))
    image = nb.load(working.ctp_working)
    assert image.shape == (128, 128, 2, 3)
    np.testing.assert_allclose(image.header.get_zooms()[:3], (1.8, 1.8, 5.0), rtol=1e-5)
    np.testing.assert_allclose(image.affine[:3, 3], (0.675, 0.675, 2.0), atol=1e-5)
    voxels = image.get_fdata()
    assert np.unique(voxels[:64, ..., 1]) == 0
    assert np.unique(voxels[64:, ..., 1]) == 40
    assert np.unique(voxels[:, :, 1, 2]) == 80
    assert np.load(working.sample_times).shape == (2, 3)


@pytest.mark.parametrize('axes', ['RAS', 'LPI'])
def test_slices_of_different_times_are_not_averaged(axes):
    """Slice times are listed feet to head, whatever the order in the file."""
    ctp = np.zeros((4, 4, 8, 3), np.float32)
    ctp[..., 4:, :] = 100
    samples = np.tile([0.0, 2, 4], (8, 1))
    samples[4:] += 1
    working = prepare(write(ctp, np.diag([1.8, 1.8, 1.25, 1.0]), axes), samples)
    assert working.factors == (1, 1, 4)
    np.testing.assert_array_equal(np.load(working.sample_times), [[0, 2, 4], [1, 3, 5]])
    voxels, _ = nifti.load(working.ctp_working)
    assert voxels[..., 0, :].max() == 0
    assert voxels[..., 1, :].min() == 100
    samples[1] += 0.5
    assert prepare(write(ctp, np.diag([1.8, 1.8, 1.25, 1.0]), axes), samples).factors[2] == 1


@pytest.mark.parametrize('axes', ['RAS', 'LPI'])
def test_number_of_slices_read_at_once_changes_no_voxel(axes, monkeypatch):
    ctp = np.random.default_rng(0).integers(-100, 100, (8, 8, 11, 3), dtype=np.int16)
    raw = write(ctp, np.diag([0.9, 0.9, 2.5, 1.0]), axes)
    whole = nb.load(prepare(raw, no_delay([0, 2, 4], 11)).ctp_working).get_fdata()
    monkeypatch.setattr('ctpprep.interfaces.blocks.SLAB_VOXELS', 1)
    in_slabs = nb.load(prepare(raw, no_delay([0, 2, 4], 11)).ctp_working).get_fdata()
    assert whole.shape == (4, 4, 5, 3)
    np.testing.assert_array_equal(in_slabs, whole)


def test_padding_and_nan_become_air():
    ctp = np.full((4, 4, 4, 3), 40, np.float32)
    ctp[0], ctp[1] = -3024, np.nan
    working = prepare(write(ctp, np.diag([2.0, 2, 5, 1])), no_delay([0, 2, 4], 4))
    voxels = nb.load(working.ctp_working).get_fdata()
    assert np.unique(voxels[:2]) == -1024
    assert np.unique(voxels[2:]) == 40


def test_scaled_integers_are_read_in_hu():
    image = nb.Nifti1Image(np.full((4, 4, 4, 3), 1064, np.int16), np.diag([2.0, 2, 5, 1]))
    image.header.set_slope_inter(1, -1024)
    nb.save(image, 'ctp.nii.gz')
    working = prepare(str(Path('ctp.nii.gz').absolute()), no_delay([0, 2, 4], 4))
    assert np.unique(nb.load(working.ctp_working).get_fdata()) == 40


# -- timing of the working series


def prepare_timing(sample_times, slice_step_mm=5.0):
    ctp = np.zeros((4, 4, len(sample_times), 3), np.int16)
    affine = np.diag([2.0, 2, slice_step_mm, 1])
    return read_json(prepare(write(ctp, affine), sample_times).timing)


def test_slices_of_equal_times_have_times_of_volumes():
    assert prepare_timing(no_delay([5.0, 7, 10], 6)) == {'VolumeTiming': [5, 7, 10]}


def test_slices_of_different_times_have_times_of_their_own():
    samples = np.tile([5.0, 7, 9], (4, 1))
    samples[2:] += 0.5
    assert prepare_timing(samples) == {
        'SliceAcquisitionTimes': [[5, 5, 5.5, 5.5], [7, 7, 7.5, 7.5], [9, 9, 9.5, 9.5]]
    }


def test_times_of_slices_are_in_the_order_of_the_file():
    feet_to_head = np.array([[5.0, 7, 9], [5.5, 7.5, 9.5]])
    assert prepare_timing(feet_to_head, slice_step_mm=-5.0) == {
        'SliceAcquisitionTimes': [[5.5, 5], [7.5, 7], [9.5, 9]]
    }


# -- motion


@pytest.mark.parametrize('axes', ['RAS', 'LPS'])
def test_moved_frame_is_brought_back_in_any_voxel_order(toy_head, axes):
    """The head is one voxel further right (+x) in frame 3."""
    ctp, affine, times = toy_head
    moved = ctp[..., :6].copy()
    moved[..., 3] = np.roll(moved[..., 3], 1, axis=0)
    transforms = np.tile(np.eye(4), (6, 1, 1))
    transforms[3, 0, 3] = 4.0
    np.save('transforms.npy', transforms)
    corrected = correct(
        prepare(write(moved, affine, axes), no_delay(times[:6], 6)), 'transforms.npy'
    )
    voxels, _ = nifti.load(corrected.ctp_corrected)
    np.testing.assert_allclose(voxels[:-1, ..., 3], ctp[:-1, ..., 3], atol=1e-2)
    assert np.isnan(voxels[-1, ..., 3]).all()  # missing, and not air
    table = pd.read_csv(corrected.confounds, sep='\t')
    np.testing.assert_allclose(table['trans_x'], [0, 0, 0, 4, 0, 0], atol=1e-4)
    assert facts(corrected) == {'reference_frame': 0, 'frames_resampled': True}


def test_estimated_motion_is_passed_on_as_transforms_and_reference(toy_head):
    ctp, affine, times = toy_head
    ctp = ctp[..., :4].copy()
    ctp[..., 0] = AIR_HU
    motion = estimate(prepare(write(ctp, affine), no_delay(times[:4], 6)).ctp_working)
    assert motion.reference_frame == 1
    assert np.load(motion.transforms).shape == (4, 4, 4)
    np.testing.assert_array_equal(np.load(motion.transforms)[1], np.eye(4))


def test_frames_that_were_not_resampled_have_identities_as_transforms(toy_head):
    ctp, affine, times = toy_head
    corrected = correct(prepare(write(ctp, affine, 'LPS'), no_delay(times, 6)), reference=2)
    np.testing.assert_array_equal(nifti.load(corrected.ctp_corrected)[0], ctp)
    assert facts(corrected) == {'reference_frame': 2, 'frames_resampled': False}
    parameters = re.findall('(?m)^Parameters: (.+)', Path(corrected.frame_transforms).read_text())
    assert parameters == ['1 0 0 0 1 0 0 0 1 0 0 0'] * 18


def test_frames_are_rejected_by_the_limit_of_the_settings(toy_head):
    ctp, affine, times = toy_head
    ctp = ctp.copy()
    ctp[..., 5] = np.roll(ctp[..., 5], 4, axis=1)
    working = prepare(write(ctp, affine), no_delay(times, 6))
    weights = frame_weights(correct(working).confounds)
    assert np.flatnonzero(weights == 0).tolist() == [5]
    assert frame_weights(correct(working, motion_reject_similarity=0.0).confounds).all()


@pytest.mark.parametrize('axes', ['RAS', 'LPI'])
def test_corrected_series_of_other_software_is_accepted_in_any_voxel_order(toy_head, axes):
    ctp, affine, times = toy_head
    ctp = ctp.copy()
    ctp[..., 5, 7] = AIR_HU  # the uppermost slice in one frame
    corrected = load_corrected(prepare(write(ctp, affine, axes), no_delay(times, 6)))
    voxels, _ = nifti.load(corrected.ctp_corrected)
    assert np.isnan(voxels[..., 5, 7][(ctp[..., 0] > -200)[..., 5]]).all()
    np.testing.assert_array_equal(voxels[..., :5, :], ctp[..., :5, :])
    table = pd.read_csv(corrected.confounds, sep='\t')
    assert table['displacement'].isna().all()
    assert (table['weight'] == 1).all()


def test_corrected_series_keeps_the_time_between_frames(toy_head):
    ctp, affine, times = toy_head
    corrected = correct(prepare(write(ctp, affine), no_delay(times, 6)))
    header = nb.load(corrected.ctp_corrected).header
    assert header['pixdim'][4] == 2.0
    assert header.get_xyzt_units() == ('mm', 'sec')


# -- masks


@pytest.fixture(scope='module')
def masks(toy_head, tmp_path_factory):
    """Masks of the toy head in two voxel orders."""
    outputs = {}
    with pytest.MonkeyPatch.context() as patch:
        for axes in ('RAS', 'LPS'):
            patch.chdir(tmp_path_factory.mktemp(axes))
            ctp, affine, times = toy_head
            working = prepare(write(ctp, affine, axes), no_delay(times, 6))
            outputs[axes] = make_masks(correct(working), working.sample_times)
    return outputs


NAMES = (
    'reference', 'brain_mask', 'intracranial_mask', 'vessel_mask', 'csf_mask', 'tissue_mask',
    'pure_mask',
)  # fmt: skip


@pytest.mark.parametrize('name', NAMES)
def test_mask_of_the_patient_is_the_same_in_any_voxel_order(masks, name):
    (first, affine), (second, other) = (
        nifti.load(getattr(masks[axes], name)) for axes in ('RAS', 'LPS')
    )
    assert first.any()
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(affine, other, atol=1e-5)


def test_bolus_is_written_beside_the_masks(masks):
    bolus = read_json(masks['RAS'].bolus)
    assert bolus['n_baseline'] in (2, 3)
    assert 4 < bolus['arrival_s'] < 8
    assert bolus['scan_duration_s'] == 34


def test_supplied_aif_is_read_as_curves_or_as_its_voxels(toy_head):
    ctp, affine, times = toy_head
    flat = ctp[..., [0, 1, 2] * 6].copy()
    rise = np.clip((times - 9) / 4, 0, None)
    aif = 300 * (rise * np.exp(1 - rise)) ** 2
    pd.DataFrame({'time': times, 'aif': aif}).to_csv('aif.tsv', sep='\t', index=False)
    voxels = np.zeros(ctp.shape[:3], np.uint8)
    voxels[28:30, 34:36, 2] = 1
    flat[voxels > 0] += aif.astype(np.int16)
    working = prepare(write(flat, affine), no_delay(times, 6))
    corrected = correct(working)
    for supplied in (
        {'supplied_curves': str(Path('aif.tsv').absolute())},
        {'supplied_aif_mask': write(voxels, affine, 'LPI', 'aif.nii.gz')},
    ):
        bolus = read_json(make_masks(corrected, working.sample_times, supplied).bolus)
        assert bolus['arrival_s'] == pytest.approx(9.5, abs=1)


def test_drift_and_damage_of_a_series_are_written(toy_head):
    ctp, affine, times = toy_head
    corrected = correct(prepare(write(ctp, affine), no_delay(times, 6)))
    assert {'materials', 'corrected_hu', 'left_hu'} == set(read_json(corrected.motion)['drift'])
    damage, _ = nifti.load(corrected.damage)
    assert damage.shape == ctp.shape[:3]
    assert not damage.any()


def test_settings_of_the_stage_are_applied_to_the_masks(masks, toy_head):
    ctp, affine, times = toy_head
    working = prepare(write(ctp, affine), no_delay(times, 6))
    narrow = make_masks(correct(working), working.sample_times, bone_margin_mm=10.0)
    wide, narrow = (nifti.load_mask(found.intracranial_mask) for found in (masks['RAS'], narrow))
    assert not (narrow & ~wide).any()
    assert 0 < narrow.sum() < 0.9 * wide.sum()


@pytest.mark.parametrize('axes', ['RAS', 'LPI'])
def test_supplied_brain_mask_is_read_in_any_voxel_order(masks, toy_head, axes):
    ctp, affine, times = toy_head
    working = prepare(write(ctp, affine), no_delay(times, 6))
    mask = nifti.load_mask(masks['RAS'].brain_mask).copy()
    mask[:, 30:40] = False
    path = write(mask.astype(np.uint8), affine, axes, 'mask.nii.gz')
    supplied = make_masks(correct(working), working.sample_times, {'supplied_brain_mask': path})
    np.testing.assert_array_equal(nifti.load_mask(supplied.brain_mask), mask)
