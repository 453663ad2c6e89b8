# SPDX-License-Identifier: Apache-2.0
"""Scalar fields on regular grids of template space, read by trilinear interpolation."""

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage

# grid of the random fields: it encloses the template's head
ORIGIN = (-120.0, -160.0, -90.0)  # template mm
SPACING = 4.0  # mm


@dataclass(frozen=True)
class Fields:
    """K named fields on one regular grid, interpolated together.

    All fields share the search for the eight corners, which is about four times faster than K
    calls of `scipy.ndimage.map_coordinates`.

    Attributes
    ----------
    values : (nx, ny, nz, K) float32 array
    names : tuple of K str
    origin : (3,) array
        Position of the first voxel, template mm.
    spacing : float
        mm.
    """

    values: np.ndarray
    names: tuple[str, ...]
    origin: np.ndarray
    spacing: float

    def __call__(self, points: np.ndarray) -> dict[str, np.ndarray]:
        """Interpolate linearly.

        Parameters
        ----------
        points : (3, N) array
            Template mm; outside the grid the value of its border is returned.

        Returns
        -------
        dict of (N,) float32 arrays
        """
        shape = np.array(self.values.shape[:3])
        index = ((points - self.origin[:, None]) / self.spacing).astype(np.float32)
        index = np.clip(index, 0, shape[:, None] - 1.001)
        low = index.astype(np.int32)
        high_weight = (index - low).astype(np.float32)
        low_weight = 1 - high_weight
        strides = (shape[1] * shape[2], shape[2], 1)
        corner = low[0] * strides[0] + low[1] * strides[1] + low[2]
        table = self.values.reshape(-1, len(self.names))
        total = np.zeros((points.shape[1], len(self.names)), np.float32)
        for offsets in product((0, 1), repeat=3):
            wx, wy, wz = (
                (high_weight if up else low_weight)[axis] for axis, up in enumerate(offsets)
            )
            step = sum(up * stride for up, stride in zip(offsets, strides, strict=True))
            total += (wx * wy * wz)[:, None] * table.take(corner + step, axis=0)
        return dict(zip(self.names, np.ascontiguousarray(total.T), strict=True))


def stack_fields(origin: ArrayLike, spacing: float, **fields: np.ndarray) -> Fields:
    """Combine (nx, ny, nz) arrays on one grid; each keyword is the name of its field."""
    values = np.stack([np.asarray(field, np.float32) for field in fields.values()], axis=-1)
    # Contiguous, or every interpolation would copy the whole grid.
    return Fields(np.ascontiguousarray(values), tuple(fields), np.asarray(origin, float), spacing)


def draw_smooth_field(rng: np.random.Generator, width_mm: float) -> np.ndarray:
    """Draw a random field of mean 0 and SD 1 on the grid around the template's head."""
    white = rng.standard_normal((61, 73, 56))
    smooth = ndimage.gaussian_filter(white, width_mm / SPACING, mode='wrap')
    return (smooth - smooth.mean()) / smooth.std()


def symmetrize(values: np.ndarray) -> np.ndarray:
    """Average with the mirror image along the first axis, so that homologues agree exactly."""
    return np.ascontiguousarray(values + values[::-1]) / 2


def smooth_step(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Rise smoothly from 0 at `low` to 1 at `high`.

    >>> smooth_step(np.array([0.0, 1.5, 9.0]), 1, 2)
    array([0. , 0.5, 1. ])
    """
    x = np.clip((values - low) / (high - low), 0, 1)
    return x * x * (3 - 2 * x)
