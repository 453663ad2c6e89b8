# SPDX-License-Identifier: Apache-2.0
"""Files keep the user's voxel order, arrays are canonical, and no voxel moves in the patient."""

import nibabel as nb
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform

from ctpprep.exceptions import SeriesError
from ctpprep.io import nifti

SHAPE = (5, 4, 3)
OBLIQUE = np.array([[1.6, 0.5, 0.1, -40], [-0.5, 1.6, 0.3, -30], [0, -0.2, 5, 10], [0, 0, 0, 1]])
TURNED = np.array([[0, -0.2, 5, 10], [1.6, 0.5, 0.1, -40], [-0.5, -1.6, 0.3, 30], [0, 0, 0, 1.0]])


def affine_of(codes):
    """Return the affine of a grid of 2 x 2 x 5 mm with certain axes."""
    ornt = ornt_transform(axcodes2ornt('RAS'), axcodes2ornt(codes))
    return np.diag([2.0, 2.0, 5.0, 1.0]) @ inv_ornt_aff(ornt, SHAPE)


AFFINES = {codes: affine_of(codes) for codes in ('RAS', 'LAS', 'LPS', 'LIP', 'PIR')}
AFFINES |= {'oblique': OBLIQUE, 'turned': TURNED}


@pytest.fixture(params=AFFINES.values(), ids=AFFINES)
def stored(request, tmp_path):
    """Write a file of distinct voxel values; return its path, voxels and affine."""
    voxels = np.arange(60, dtype=np.float32).reshape(SHAPE)
    image = nb.Nifti1Image(voxels, request.param)
    image.set_qform(request.param, 2)
    image.set_sform(request.param, 3)
    path = tmp_path / 'stored.nii.gz'
    nb.save(image, path)
    return path, voxels, request.param


def locate(voxels, affine):
    """Return the patient coordinates of every value."""
    indices = np.argwhere(np.ones(voxels.shape[:3], bool))
    points = nb.affines.apply_affine(affine, indices)
    return {
        float(voxels[tuple(index)]): tuple(np.round(point, 3) + 0)
        for index, point in zip(indices, points, strict=True)
    }


def test_every_voxel_keeps_its_patient_coordinates(stored):
    path, voxels, affine = stored
    array, canonical = nifti.load(path)
    assert locate(array, canonical) == locate(voxels, affine)


def test_axes_in_memory_are_canonical(stored):
    _, affine = nifti.load(stored[0])
    assert nb.aff2axcodes(affine) == ('R', 'A', 'S')


def test_saving_a_loaded_image_reproduces_the_file(stored, tmp_path):
    path, voxels, affine = stored
    written = nb.load(nifti.save(*nifti.load(path), tmp_path / 'again.nii', like=path))
    np.testing.assert_array_equal(written.get_fdata(), voxels)
    np.testing.assert_allclose(written.affine, affine, atol=1e-5)
    assert (int(written.header['qform_code']), int(written.header['sform_code'])) == (2, 3)


def test_a_coarser_grid_keeps_the_voxel_order(stored, tmp_path):
    path, _, affine = stored
    array, canonical = nifti.load(path)
    coarse = canonical @ np.diag([2.0, 2, 1, 1])
    part = array[::2, ::2]
    written = nb.load(nifti.save(part, coarse, tmp_path / 'coarse.nii', like=path))
    assert nb.aff2axcodes(written.affine) == nb.aff2axcodes(affine)
    assert locate(written.get_fdata(), written.affine) == locate(part, coarse)


def test_time_remains_the_last_axis(stored, tmp_path):
    path, *_ = stored
    array, affine = nifti.load(path)
    series = np.stack([array, array + 50, array + 100, array + 150], axis=-1)
    written = nifti.save(
        series, affine, tmp_path / 'series.nii', like=path, times_s=[0, 1.41, 2.82, 6]
    )
    reloaded, _ = nifti.load(written)
    np.testing.assert_array_equal(reloaded, series)
    header = nb.load(written).header
    assert header['pixdim'][4] == pytest.approx(1.41)
    assert header.get_xyzt_units() == ('mm', 'sec')


def test_masks_are_stored_as_bytes_and_maps_as_single_floats(stored, tmp_path):
    path, *_ = stored
    array, affine = nifti.load(path)
    mask = nifti.save(array > 20, affine, tmp_path / 'mask.nii', like=path)
    assert nb.load(mask).get_data_dtype() == np.uint8
    np.testing.assert_array_equal(nifti.load_mask(mask), array > 20)
    maps = nifti.save(array.astype(np.float64), affine, tmp_path / 'map.nii', like=path)
    assert nb.load(maps).get_data_dtype() == np.float32


@pytest.mark.parametrize('codes', ['RAS', 'LPS'])
def test_uncompressed_series_is_memory_mapped(tmp_path, codes):
    path = tmp_path / 'series.nii'
    nb.save(nb.Nifti1Image(np.zeros((*SHAPE, 2), np.float32), affine_of(codes)), path)
    array, _ = nifti.load(path, dtype=None)
    while array.base is not None and not isinstance(array, np.memmap):
        array = array.base
    assert isinstance(array, np.memmap)


def test_missing_form_codes_are_set(tmp_path):
    image = nb.Nifti1Image(np.zeros(SHAPE, np.float32), None)
    image.header['pixdim'][1:4] = 2, 2, 5
    nb.save(image, tmp_path / 'bare.nii')
    array, affine = nifti.load(tmp_path / 'bare.nii')
    written = nb.load(nifti.save(array, affine, tmp_path / 'out.nii', like=tmp_path / 'bare.nii'))
    assert int(written.header['qform_code']) == int(written.header['sform_code']) == 1


@pytest.mark.parametrize('affine', AFFINES.values(), ids=AFFINES)
def test_voxel_size_is_independent_of_the_orientation(affine):
    expected = np.linalg.norm(affine[:3, :3], axis=0)
    assert nifti.voxel_size_mm(affine) == pytest.approx(tuple(expected))


def test_damaged_volume_is_refused(tmp_path):
    path = tmp_path / 'sub-1_ncct.nii.gz'
    nb.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.eye(4)).to_filename(path)
    content = bytearray(path.read_bytes())
    content[-6] ^= 1
    path.write_bytes(content)
    with pytest.raises(SeriesError, match=r'^sub-1_ncct\.nii\.gz: .* gzip trailer \(CRC'):
        nifti.load(path)


def test_volume_of_four_dimensions_is_read(tmp_path):
    nb.Nifti1Image(np.zeros((3, 4, 5, 1)), np.eye(4)).to_filename(tmp_path / 'a.nii')
    assert nifti.load(tmp_path / 'a.nii')[0].shape == (3, 4, 5)


def test_labels_above_255_are_kept(tmp_path):
    labels = np.zeros((3, 3, 3), np.int64)
    labels[1, 1, 1] = 1012
    path = nifti.save(
        labels, np.eye(4), tmp_path / 'labels.nii', nb.Nifti1Image(labels.astype('i2'), np.eye(4))
    )
    assert np.asarray(nb.load(path).dataobj).max() == 1012
