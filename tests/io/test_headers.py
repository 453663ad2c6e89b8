# SPDX-License-Identifier: Apache-2.0
"""Headers of NIfTI files: which are accepted, and what the errors say about the others."""

import gzip
import os

import nibabel as nb
import numpy as np
import pytest

from ctpprep.exceptions import SeriesError
from ctpprep.io.headers import check_volume, read_header

LAS = np.diag([-2.0, 2.0, 5.0, 1.0])


def write_series(path, shape=(4, 4, 3, 12), affine=LAS, interval=0.0, unit='sec'):
    voxels = np.random.default_rng(1).integers(0, 100, shape).astype(np.int16)
    image = nb.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units('mm', unit)
    if len(shape) == 4:
        image.header['pixdim'][4] = interval
    image.to_filename(path)
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'sub-01_ctp.nii.gz'


def test_truncated_gzip_is_refused(path):
    write_series(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(SeriesError, match=r'truncated .*; copy or convert it again'):
        read_header(path)


def test_error_of_a_truncated_gzip_contains_the_decompressed_size(path):
    voxels = np.random.default_rng(0).integers(-1000, 1000, (32, 32, 4, 12)).astype(np.int16)
    nb.Nifti1Image(voxels, np.diag([-2, 2, 5, 1])).to_filename(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(
        SeriesError, match=r'truncated \([345]\d{4} bytes after decompression, the '
    ):
        read_header(path)


def test_truncated_plain_file_is_refused(tmp_path):
    path = write_series(tmp_path / 'sub-01_ctp.nii')
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(SeriesError, match=r'truncated \(1484 bytes, the header requires 1504\)'):
        read_header(path)


def test_gzip_file_of_two_members_is_read(path):
    plain = gzip.decompress(write_series(path).read_bytes())
    path.write_bytes(gzip.compress(plain[:900]) + gzip.compress(plain[900:]))
    assert read_header(path)[0] == (4, 4, 3, 12)


@pytest.mark.parametrize('content', [b'', b'not an image', b'\x1f\x8b\x08\x00'])
def test_unreadable_file_is_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(SeriesError, match='not a readable NIfTI file'):
        read_header(path)


@pytest.mark.parametrize(
    ('shape', 'message'),
    [
        ((4, 4, 36), r'the image is 3D \(4 x 4 x 36\), need a 4D series'),
        ((4, 4, 3, 9), 'the series has 9 frames, need at least 10'),
    ],
)
def test_wrong_shape_is_refused(path, shape, message):
    with pytest.raises(SeriesError, match=message):
        read_header(write_series(path, shape=shape))


def test_gantry_tilt_in_the_affine_is_accepted_up_to_a_limit(path):
    sheared = LAS.copy()
    sheared[1, 2] = 5 * np.tan(np.deg2rad(15))
    read_header(write_series(path, affine=sheared))
    sheared[1, 2] = 5 * np.tan(np.deg2rad(50))
    with pytest.raises(SeriesError, match=r'sheared by 50\.0 degrees .* at most 40; correct'):
        read_header(write_series(path, affine=sheared))


def test_rows_that_are_not_perpendicular_to_columns_are_refused(path):
    skewed = LAS.copy()
    skewed[0, 1] = 0.5
    with pytest.raises(SeriesError, match=r'rows and columns of the slices are .* perpendicular'):
        read_header(write_series(path, affine=skewed))


def test_a_qform_that_cannot_express_shear_is_no_contradiction(path):
    sheared = LAS.copy()
    sheared[1, 2] = 5 * np.tan(np.deg2rad(20))
    image = nb.Nifti1Image(np.zeros((4, 4, 36, 12), np.int16), sheared)
    image.set_sform(sheared, 1)
    image.set_qform(sheared, 1, strip_shears=True)
    nb.save(image, path)
    read_header(path)


def test_tilted_slices_are_accepted_and_coronal_slices_refused(path):
    def rotated(degrees):
        c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
        return np.array([[1, 0, 0, 0], [0, c, -s, 0], [0, s, c, 0], [0, 0, 0, 1]]) @ LAS

    read_header(write_series(path, affine=rotated(25)))
    with pytest.raises(SeriesError, match=r'axes LSP.*, need axial'):
        read_header(write_series(path, affine=rotated(90)))


def test_file_without_orientation_is_refused(path):
    image = nb.Nifti1Image(np.zeros((4, 4, 3, 12), np.int16), None)
    image.to_filename(path)
    with pytest.raises(
        SeriesError, match=r'no orientation.*left and right cannot be distinguished'
    ):
        read_header(path)


@pytest.mark.parametrize(
    ('unit', 'interval', 'expected'),
    [('sec', 1.5, 1.5), ('msec', 1500, 1.5), ('unknown', 1.5, None), ('sec', 0, None)],
)
def test_frame_interval_of_the_header_needs_a_unit(path, unit, interval, expected):
    assert read_header(write_series(path, interval=interval, unit=unit))[2] == expected


# -- two affines


def write_forms(path, sform, qform=LAS, sform_code=1):
    image = nb.Nifti1Image(np.zeros((40, 40, 10, 12), np.int16), LAS)
    image.header.set_qform(qform, 1)
    image.header.set_sform(sform, sform_code)
    with nb.openers.Opener(path, 'wb') as stream:
        stream.write(image.header.binaryblock + b'\0' * 4 + image.dataobj.tobytes())
    return path


@pytest.mark.parametrize('factors', [(-1, 1, 1), (2, 2, 2), (1, 1, -1), (1.1, 1, 1)])
def test_contradicting_affines_are_refused_with_both(path, factors):
    write_forms(path, np.diag([*factors, 1.0]) @ LAS)
    with pytest.raises(SeriesError, match=r'sform: axes .*; qform: axes LAS.*--affine-from'):
        read_header(path)


def test_volume_with_contradicting_affines_is_refused_unless_one_is_chosen(tmp_path):
    image = nb.Nifti1Image(np.zeros((40, 40, 10), np.uint8), LAS)
    image.set_qform(np.diag([-1.0, 1, 1, 1]) @ LAS, 1)
    image.to_filename(path := tmp_path / 'mask.nii')
    with pytest.raises(
        SeriesError, match=r'mask.nii: .*sform: axes L.*qform: axes R.*--affine-from'
    ):
        check_volume(path, 'mask')
    for affine_from in ('sform', 'qform'):
        check_volume(path, 'mask', affine_from)


def test_affines_within_a_voxel_are_accepted(path):
    moved = LAS.copy()
    moved[:3, 3] = 1.0
    assert read_header(write_forms(path, moved))[1] == moved.tolist()


def test_user_chooses_an_affine(path):
    write_forms(path, np.diag([-1.0, 1, 1, 1]) @ LAS)
    x_steps = {name: read_header(path, name)[1][0][0] for name in ('sform', 'qform')}
    assert x_steps == {'sform': 2.0, 'qform': -2.0}


def test_file_that_is_not_regular_is_refused(tmp_path):
    os.mkfifo(tmp_path / 'sub-01_ctp.nii')
    with pytest.raises(SeriesError, match='is a named pipe, need a regular file'):
        read_header(tmp_path / 'sub-01_ctp.nii')
