# SPDX-License-Identifier: Apache-2.0
"""Series with a sheared affine, as of a tilted gantry: their slices are shifted in plane.

With a tilted gantry the table moves obliquely to the slices, so the stack of slices is sheared. Shifts
by whole voxels straighten it: they change no density and add no correlation of noise, and place a
voxel with an error of at most half a voxel in plane. The matrix grows, so that nothing is cut off.
"""

import math
from typing import Any

import numpy as np

# axes that are closer to perpendicular are rounded headers
MAX_SHEAR_DEG = 1.0
AIR_HU = -1024


def shear_deg(affine: Any) -> float:
    """Return the angle between the third voxel axis and the normal of the slices.

    Parameters
    ----------
    affine : (4, 4) array

    Returns
    -------
    float
        Degrees.

    Examples
    --------
    >>> affine = np.diag([1.0, 1.0, 5.0, 1.0])
    >>> affine[1, 2] = 5.0
    >>> round(shear_deg(affine), 6)
    45.0
    """
    first, second, third = np.asarray(affine, dtype=float)[:3, :3].T
    normal = np.cross(first, second)
    cosine = abs(normal @ third) / np.linalg.norm(normal) / np.linalg.norm(third)
    return math.degrees(math.acos(min(1.0, cosine)))


def straight_grid(affine: Any, n_slices: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the shifts that straighten a sheared stack of slices.

    Parameters
    ----------
    affine : (4, 4) array
        Of the sheared stack, mm.
    n_slices : int

    Returns
    -------
    offsets : (Z, 2) array of int
        First and second index of the first voxel of each slice in the straight matrix.
    growth : (2,) array of int
        Voxels that the matrix gains along its first and second axis.
    affine : (4, 4) array
        Of the straight matrix; its third axis is the normal of the slices.

    Examples
    --------
    >>> affine = np.diag([1.0, 1.0, 5.0, 1.0])
    >>> affine[1, 2] = -2.0
    >>> offsets, growth, straight = straight_grid(affine, 3)
    >>> offsets.tolist(), growth.tolist(), straight[1].tolist()
    ([[0, 4], [0, 2], [0, 0]], [0, 4], [0.0, 1.0, 0.0, -4.0])
    """
    straight = np.array(affine, dtype=float)
    in_plane, step = straight[:3, :2], straight[:3, 2]
    normal = np.cross(*in_plane.T)
    normal /= np.linalg.norm(normal)
    along = (normal @ step) * normal
    shift = np.linalg.lstsq(in_plane, step - along, rcond=None)[0]  # voxels per slice
    shifts = np.round(np.arange(n_slices)[:, None] * shift).astype(int)
    lowest = shifts.min(axis=0)
    straight[:3, 2] = along
    straight[:3, 3] += in_plane @ lowest
    return shifts - lowest, np.ptp(shifts, axis=0), straight


def straighten(image: Any) -> Any:
    """Return an image without shear; its voxels are read and shifted when they are indexed.

    Parameters
    ----------
    image : nibabel.Nifti1Pair
        3D or 4D.

    Returns
    -------
    nibabel.Nifti1Pair
        The image itself, if its slices are not sheared.
    """
    import nibabel as nb

    if shear_deg(image.affine) <= MAX_SHEAR_DEG:
        return image
    proxy = _ShiftedSlices(image)
    header = image.header.copy()
    header.set_data_shape(proxy.shape)
    straight = nb.Nifti1Image(proxy, proxy.affine, header)
    for name in ('sform', 'qform'):
        getattr(straight, f'set_{name}')(proxy.affine, code=int(header[f'{name}_code']))
    return straight


def describe_shear(affine: Any) -> dict[str, Any]:
    """Return the sidecar field that states the correction; empty without shear.

    Parameters
    ----------
    affine : (4, 4) array
        Of the sheared file, mm.

    Returns
    -------
    dict
    """
    if (degrees := shear_deg(affine)) <= MAX_SHEAR_DEG:
        return {}
    largest = float(np.linalg.norm(np.asarray(affine)[:3, :2], axis=0).max()) / 2
    return {
        'ShearCorrection': f'slices were shifted in plane by whole voxels (sheared by {degrees:.1f} '
        f'degrees, as by gantry tilt; error at most {largest:.2g} mm along an axis) and surrounded by '
        f'air ({AIR_HU} HU)'
    }


class _ShiftedSlices:
    """Voxels of an image with every slice shifted in plane, read when they are indexed."""

    def __init__(self, image):
        self._image = image
        self._offsets, growth, self.affine = straight_grid(image.affine, image.shape[2])
        size = [int(n + more) for n, more in zip(image.shape, growth, strict=False)]
        self.shape = (*size, *image.shape[2:])
        self.ndim = len(self.shape)
        self.dtype = np.dtype(np.float32)

    def __getitem__(self, index):
        index = index if isinstance(index, tuple) else (index,)
        whole = (slice(None), slice(None))
        if index[:2] != whole or not isinstance((*index, slice(None))[2], slice):
            return np.asarray(self)[index]
        index = (*index, *[slice(None)] * (self.ndim - len(index)))
        stored = np.asarray(self._image.dataobj[index])
        shifted = np.full((*self.shape[:2], *stored.shape[2:]), AIR_HU, dtype=self.dtype)
        for z, (x, y) in enumerate(self._offsets[index[2]]):
            slices = stored[:, :, z]
            if slices.size and slices.min() == slices.max():
                shifted[:, :, z] = slices.flat[0]  # an empty slice must be noticed as such
            else:
                shifted[x : x + stored.shape[0], y : y + stored.shape[1], z] = slices
        return shifted

    def __array__(self, dtype=None, copy=None):
        voxels = self[(slice(None),) * self.ndim]
        return voxels if dtype is None else voxels.astype(dtype)
