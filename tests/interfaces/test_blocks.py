# SPDX-License-Identifier: Apache-2.0
"""Reading of a raw series: damaged files, voxels that are not finite, empty slices, the affine."""

import nibabel as nb
import numpy as np
import pytest

from ctpprep.exceptions import SeriesError
from ctpprep.interfaces.blocks import RawSeries

AFFINE = np.diag([-2.0, 2.0, 5.0, 1.0])


@pytest.fixture
def ctp():
    return np.random.default_rng(4).normal(30, 3, (12, 10, 6, 10)).astype(np.float32)


def write(path, ctp):
    nb.Nifti1Image(ctp, AFFINE).to_filename(path)
    return path


def read(path, factors=(1, 1, 1), **options):
    return RawSeries(path, **options).average_blocks(factors)


@pytest.mark.parametrize('position', [-2, -6, 20_000])
def test_damaged_gzip_is_refused_at_its_end(tmp_path, ctp, position):
    path = write(tmp_path / 'sub-1_ctp.nii.gz', ctp)
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    with pytest.raises(SeriesError, match=r'^sub-1_ctp\.nii\.gz: the file is damaged'):
        read(path)


def test_compressed_and_plain_files_are_read_alike(tmp_path, ctp):
    plain, packed = (read(write(tmp_path / f'a.nii{ending}', ctp)) for ending in ('', '.gz'))
    np.testing.assert_array_equal(plain[0], packed[0])
    np.testing.assert_array_equal(plain[0], ctp[::-1])


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_isolated_voxels_are_filled_from_their_slice(tmp_path, ctp, value):
    ctp[6, 5, 3, 2] = value
    working, _ = read(write(tmp_path / 'a.nii', ctp))
    neighbours = np.delete(ctp[5:8, 4:7, 3, 2].ravel(), 4)
    assert working[5, 5, 3, 2] == pytest.approx(neighbours.mean(), abs=1e-3)


def test_padding_of_nan_is_air(tmp_path, ctp):
    ctp[:5] = np.nan
    working, _ = read(write(tmp_path / 'a.nii', ctp))
    assert (working[-4:] == -1024).all()


@pytest.mark.parametrize('factor', [1, 2])
def test_empty_slice_is_interpolated_and_listed(tmp_path, ctp, factor):
    ctp[:, :, 2] = -1024
    working, empty_slices = read(write(tmp_path / 'a.nii', ctp), (1, 1, factor))
    assert empty_slices == [2 // factor]
    assert working.min() > 0


def test_empty_slices_at_the_ends_are_padding(tmp_path, ctp):
    ctp[:, :, [0, 5]] = -1024
    working, empty_slices = read(write(tmp_path / 'a.nii', ctp))
    assert empty_slices == []
    assert (working[..., [0, 5], :] == -1024).all()


def test_user_chooses_the_affine(tmp_path, ctp):
    image = nb.Nifti1Image(ctp, AFFINE)
    image.header.set_qform(AFFINE @ np.diag([-1, 1, 1, 1]), 1)
    image.header.set_sform(AFFINE, 1)
    path = tmp_path / 'a.nii'
    path.write_bytes(image.header.binaryblock + b'\0' * 4 + ctp.tobytes(order='F'))
    sform, qform = (read(path, affine_from=name)[0] for name in ('sform', 'qform'))
    np.testing.assert_array_equal(sform, qform[::-1])
