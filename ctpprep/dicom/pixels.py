# SPDX-License-Identifier: Apache-2.0
"""Densities of DICOM images in HU."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ctpprep.dicom.files import open_source
from ctpprep.dicom.scan import Image
from ctpprep.exceptions import SeriesError

AIR_HU = -1024
# densities of int16; bone and metal are below
LARGEST_HU = 32767
# a padding value of such a density is also found in the head
TISSUE_HU = (-900.0, 3100.0)


class PixelReader:
    """Read images; the pixels of a file with many frames stay in memory until another is read."""

    def __init__(self) -> None:
        self._key: tuple[str, str] | None = None
        self._pixels: Any = None

    def read(self, image: Image) -> np.ndarray:
        """Read an image in HU; padding, and what is below, becomes air.

        Parameters
        ----------
        image : Image

        Returns
        -------
        (columns, rows) array of int16 or float32
            Integers if slope and intercept are; they end at `LARGEST_HU`.

        Raises
        ------
        SeriesError
            When the pixels cannot be decoded.
        """
        stored = self.read_stored(image)
        if is_whole(image):
            hu = _to_whole_hu(stored, int(image.slope), int(image.intercept))
        else:
            hu = stored * np.float32(image.slope) + np.float32(image.intercept)
            hu = np.maximum(hu, AIR_HU, dtype=np.float32)
        if image.padding is not None and (ranges := _padding_ranges(image, stored.dtype)):
            wide = stored.astype(np.int32)
            padding = np.logical_or.reduce(
                [(wide >= low) & (wide <= high) for low, high in ranges]
            )
            if TISSUE_HU[0] < image.padding[0] * image.slope + image.intercept < TISSUE_HU[1]:
                padding = _at_border(padding)
            hu[padding] = AIR_HU
        return hu.T

    def read_stored(self, image: Image) -> np.ndarray:
        """Read the stored values of an image, (rows, columns)."""
        source = image.source
        if source.native is not None and (pixels := _read_native(image)) is not None:
            return pixels
        key = (source.path, source.member)
        if key != self._key:
            self._pixels, self._key = _decode(*key), key
        pixels = self._pixels if source.frame is None else self._frame(source.frame)
        if source.tile is not None:
            row, column = source.tile
            pixels = pixels[row : row + image.shape[0], column : column + image.shape[1]]
        if pixels.shape != image.shape:
            raise SeriesError(
                f'an image has {pixels.shape[0]} x {pixels.shape[1]} pixels, its header states '
                f'{image.shape[0]} x {image.shape[1]}'
            )
        return pixels

    def _frame(self, frame: int) -> np.ndarray:
        return self._pixels[frame] if self._pixels.ndim == 3 else self._pixels

    def same(self, first: Image, second: Image) -> bool:
        """Return whether two images have the same pixels."""
        return np.array_equal(self.read_stored(first).copy(), self.read_stored(second))


def _to_whole_hu(stored: np.ndarray, slope: int, intercept: int) -> np.ndarray:
    """Convert stored values to HU between those of air and `LARGEST_HU`, int16."""
    limits = np.iinfo(stored.dtype)
    low, high = AIR_HU - intercept, LARGEST_HU - intercept
    if slope == 1 and stored.dtype.itemsize == 2 and low <= limits.max and high >= limits.min:
        # what is left fits into 16 bits, whose sums are right modulo 65536: no wider copy is needed
        clipped = np.clip(stored, max(low, limits.min), min(high, limits.max)).view(np.uint16)
        return (clipped + np.uint16(intercept % 65536)).view(np.int16)
    wide = stored.astype(np.int64) * slope + intercept
    return np.clip(wide, AIR_HU, LARGEST_HU).astype(np.int16)


def _read_native(image: Image) -> np.ndarray | None:
    """Read uncompressed pixels; None if the file is too short, or cannot be opened."""
    source = image.source
    assert source.native is not None
    dtype = np.dtype(source.native.dtype)
    n_pixels = image.shape[0] * image.shape[1]
    offset = source.native.offset + (source.frame or 0) * n_pixels * dtype.itemsize
    try:
        pixels = np.fromfile(source.path, dtype, n_pixels, offset=offset)
    except OSError:
        return None
    if pixels.size < n_pixels:
        return None
    if source.native.unused_bits:
        pixels <<= source.native.unused_bits
        pixels >>= source.native.unused_bits
    return pixels.reshape(image.shape)


def _padding_ranges(image: Image, dtype: np.dtype) -> list[tuple[int, int]]:
    """Ranges of stored values that are padding, and would not become air as they are.

    A padding value may have been read with the wrong sign: then it is 65536 away.
    """
    assert image.padding is not None
    limits = np.iinfo(dtype)
    ranges = [
        (low + shift, high + shift)
        for low, high in [image.padding]
        for shift in (0, 65536, -65536)
    ]
    return [
        (low, high)
        for low, high in ranges
        if high >= limits.min
        and low <= limits.max
        and max(low * image.slope, high * image.slope) + image.intercept > AIR_HU
    ]


def _at_border(mask: np.ndarray) -> np.ndarray:
    """Keep the parts of a mask that reach the border of the image: tissue may have the same value."""
    from scipy import ndimage

    parts, _ = ndimage.label(mask)
    border = np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]])
    return mask & np.isin(parts, border)


def _decode(path: str, member: str) -> np.ndarray:
    import pydicom

    try:
        with open_source(path, member) as stream:
            return pydicom.dcmread(stream, force=True).pixel_array
    except Exception as error:  # of pydicom and of the libraries that decompress
        name = (member or path).rpartition('/')[2]
        message = ' '.join(str(error).split())[:200]
        raise SeriesError(
            f'the pixels of {name} cannot be decoded ({message}); for compressed images install '
            'ctpprep[dicom]'
        ) from error


def stored_type(images: Sequence[Image]) -> np.dtype:
    """Return the type that stores all images exactly: int16 if slope and intercept are integers."""
    return np.dtype('<i2' if all(map(is_whole, images)) else '<f4')


def is_whole(image: Image) -> bool:
    """Return whether densities of an image are whole numbers."""
    return image.slope.is_integer() and image.intercept.is_integer()
