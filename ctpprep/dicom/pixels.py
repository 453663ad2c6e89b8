# SPDX-License-Identifier: Apache-2.0
"""Densities of DICOM images in HU."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ctpprep.dicom.scan import Image, open_source
from ctpprep.exceptions import SeriesError

AIR_HU = -1024
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
        (columns, rows) array of float32

        Raises
        ------
        SeriesError
            When the pixels cannot be decoded.
        """
        stored = self.read_stored(image)
        hu = stored * np.float32(image.slope) + np.float32(image.intercept)
        hu = np.maximum(hu, AIR_HU, dtype=np.float32)
        if image.padding is not None:
            low, high = image.padding
            # 0 and 65536: a padding value that was read with the wrong sign
            stored = stored.astype(np.int32)
            padding = np.logical_or.reduce(
                [
                    (stored >= low + shift) & (stored <= high + shift)
                    for shift in (0, 65536, -65536)
                ]
            )
            if TISSUE_HU[0] < low * image.slope + image.intercept < TISSUE_HU[1]:
                padding = _at_border(padding)
            hu[padding] = AIR_HU
        return hu.T

    def read_stored(self, image: Image) -> np.ndarray:
        """Read the stored values of an image, (rows, columns)."""
        source = image.source
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
    whole = all(image.slope.is_integer() and image.intercept.is_integer() for image in images)
    return np.dtype('<i2' if whole else '<f4')
