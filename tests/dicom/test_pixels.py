# SPDX-License-Identifier: Apache-2.0
"""Pixels read straight from the file are those of pydicom, and densities those of a slow computation."""

import numpy as np
import pytest

pydicom = pytest.importorskip('pydicom', reason='needs the extra ctpprep[dicom]')

from ctpprep.dicom import pixels  # noqa: E402
from ctpprep.dicom.scan import read_study  # noqa: E402
from tests.dicom import generator as g  # noqa: E402


def store(values, bits, signed, **tags):
    """Write an image with any stored values, unused bits included."""
    ds = g.image(g.Scan(n_frames=1, n_slices=1), 0, 0)
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = bits, bits - 1, int(signed)
    ds.Rows, ds.Columns = values.shape
    ds.PixelData = values.astype('<u2').tobytes()
    for name, value in tags.items():
        setattr(ds, name, value)
    return ds


def read(folder, ds):
    (path,) = g.write([ds], folder).iterdir()
    (series,), _ = read_study([(str(path), '')])
    return path, series.images[0]


def slow_hu(stored, image):
    """HU as the standard defines them, one rule after the other."""
    hu = stored.astype(float) * image.slope + image.intercept
    if image.padding:
        hu[stored == image.padding[0]] = -1024
    return np.clip(hu, -1024, 32767 if image.slope.is_integer() else None).T


@pytest.mark.parametrize('bits', [12, 15, 16])
@pytest.mark.parametrize('signed', [False, True])
@pytest.mark.parametrize(
    'tags',
    [
        {'RescaleIntercept': -1024},
        {'RescaleIntercept': 0},
        {'RescaleIntercept': -8192},
        {'RescaleIntercept': 40000},
        {'RescaleSlope': 2},
        {'RescaleSlope': 0.5},
        {'PixelPaddingValue': 2047},
    ],
    ids=str,
)
def test_densities_are_those_of_pydicom(bits, signed, tags, tmp_path):
    values = np.random.default_rng(0).integers(0, 65536, (12, 10))
    path, image = read(tmp_path, store(values, bits, signed, **tags))
    assert image.source.native is not None
    stored = pydicom.dcmread(path).pixel_array
    np.testing.assert_array_equal(pixels.PixelReader().read_stored(image), stored)
    hu = pixels.PixelReader().read(image)
    assert hu.dtype == (np.float32 if image.slope == 0.5 else np.int16)
    np.testing.assert_array_equal(hu, slow_hu(stored, image))


def test_a_file_that_is_cut_off_is_named(tmp_path):
    path, image = read(tmp_path, store(np.zeros((12, 10), int), 16, True))
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(pixels.SeriesError, match='cannot be decoded'):
        pixels.PixelReader().read(image)


def test_frames_of_one_object_are_read_one_by_one(tmp_path, monkeypatch):
    scan = g.Scan()
    (path,) = g.write(g.enhanced(scan, True), tmp_path).iterdir()
    (series,), _ = read_study([(str(path), '')])
    monkeypatch.setattr(pixels, '_decode', None)  # which would read them all
    expected = np.moveaxis(scan.hu, (3, 2), (0, 1)).reshape(-1, *scan.hu.shape[:2])
    for image, hu in zip(series.images, expected, strict=True):
        np.testing.assert_array_equal(pixels.PixelReader().read(image), hu)
