# SPDX-License-Identifier: Apache-2.0
"""Sheared series are straightened by shifts in plane."""

import nibabel as nb
import numpy as np
import pytest

from ctpprep.interfaces.blocks import RawSeries
from ctpprep.io import nifti
from ctpprep.io.shear import AIR_HU, describe_shear, shear_deg, straight_grid, straighten

# voxels of 1 x 1 x 5 mm; each slice is moved by 2 and by -1 voxels
SHIFT = (2, -1)
STRAIGHT = np.diag([-1.0, 1.0, 5.0, 1.0])
SHEARED = STRAIGHT.copy()
SHEARED[:2, 2] = STRAIGHT[:2, :2] @ SHIFT


@pytest.fixture
def sheared():
    voxels = np.random.default_rng(0).integers(0, 100, (6, 7, 4, 12)).astype(np.int16)
    return nb.Nifti1Image(voxels, SHEARED)


def test_every_voxel_stays_where_it_was(sheared):
    image = straighten(sheared)
    voxels = np.asarray(image.dataobj)
    assert image.shape == (6 + 3 * 2, 7 + 3 * 1, 4, 12)
    assert shear_deg(image.affine) == 0
    for index in np.ndindex(*sheared.shape[:3]):
        position = nb.affines.apply_affine(sheared.affine, index)
        target = nb.affines.apply_affine(np.linalg.inv(image.affine), position)
        np.testing.assert_allclose(target, np.round(target), atol=1e-9)
        target = tuple(np.round(target).astype(int))
        np.testing.assert_array_equal(voxels[target], sheared.dataobj[index])


def test_what_is_outside_is_air(sheared):
    voxels = np.asarray(straighten(sheared).dataobj)
    assert np.count_nonzero(voxels != AIR_HU) == np.prod(sheared.shape)


def test_parts_are_those_of_the_whole(sheared):
    proxy = straighten(sheared).dataobj
    whole = np.asarray(proxy)
    for index in (
        np.s_[:, :, 1:3, 5],
        np.s_[:, :, :, 0],
        np.s_[..., 3],
        np.s_[2, 3],
        np.s_[:, :, 2],
    ):
        np.testing.assert_array_equal(proxy[index], whole[index])


def test_slices_without_shear_are_left_alone(sheared):
    image = nb.Nifti1Image(np.asarray(sheared.dataobj), STRAIGHT)
    assert straighten(image) is image
    assert describe_shear(STRAIGHT) == {}


@pytest.mark.parametrize('degrees', [-25.0, 8.0, 30.0])
def test_tilt_is_removed_within_half_a_voxel(degrees):
    tilt = np.deg2rad(degrees)
    affine = np.eye(4)
    affine[:3, :3] = np.c_[
        [-0.45, 0, 0], 0.45 * np.array([0, np.cos(tilt), np.sin(tilt)]), [0, 0, 5.0]
    ]
    offsets, _, straight = straight_grid(affine, 20)
    assert straight[:3, 2] @ straight[:3, 2] == pytest.approx((5 * np.cos(tilt)) ** 2)
    for z, offset in enumerate(offsets):
        apart = affine @ [0, 0, z, 1] - straight @ [*offset, z, 1]
        assert np.abs(np.linalg.lstsq(affine[:3, :2], apart[:3], rcond=None)[0]).max() <= 0.5001


@pytest.mark.parametrize('flip', [False, True])
@pytest.mark.parametrize('suffix', ['nii', 'nii.gz'])
def test_a_series_is_read_straight(sheared, tmp_path, suffix, flip):
    if flip:
        sheared = sheared.slicer[:, :, ::-1]
    path = tmp_path / f'sub-01_ctp.{suffix}'
    nb.save(sheared, path)
    series = RawSeries(path)
    working, _ = series.average_blocks((1, 1, 1))
    expected = nb.as_closest_canonical(straighten(sheared))
    np.testing.assert_array_equal(working, np.asarray(expected.dataobj))
    np.testing.assert_allclose(series.affine, expected.affine)
    assert 'sheared by 24.1 degrees' in series.notes['ShearCorrection']
    np.testing.assert_array_equal(nifti.load(path, straight=True)[0], working)


def test_an_empty_slice_stays_a_slice_of_one_value(sheared):
    voxels = np.asarray(sheared.dataobj)
    voxels[:, :, 2] = 0
    proxy = straighten(nb.Nifti1Image(voxels, SHEARED)).dataobj
    assert np.ptp(proxy[:, :, 2, 4]) == 0
