# SPDX-License-Identifier: Apache-2.0
"""Read and compare the voxel grids of precomputed maps, from their headers."""

import math
from pathlib import Path
from typing import Any

from ctpprep.exceptions import SeriesError
from ctpprep.io.headers import (
    check_complete,
    check_dimensions,
    check_geometry,
    check_gzip,
    open_nifti,
)

# grids whose corners differ by less are the same, mm
SAME_MM = 0.01

Grid = tuple[tuple[int, ...], Any]


def read_grid(path: Path, has_units: bool, affine_from: str = 'agree') -> Grid:
    """Check the header of a map and read its grid.

    Parameters
    ----------
    path : Path
        NIfTI file.
    has_units : bool
        Whether its sidecar gives units; without, 8-bit values are taken for the grey levels of a
        picture.
    affine_from : str
        As for `headers.place_image`.

    Returns
    -------
    shape : tuple of int
        (X, Y, Z) of axes to the right, anterior and superior.
    affine : (4, 4) array
        mm.

    Raises
    ------
    SeriesError
        When the file is damaged, is not a 3D image of numbers, or is sheared or not axial.
    """
    import nibabel as nb

    image = open_nifti(path)
    check_dimensions(image, 3, '3D map')
    dtype = image.get_data_dtype()
    if dtype.kind == 'V':
        raise SeriesError(
            'the image is an RGB picture, need a map of numbers; export the map itself'
        )
    if dtype.kind not in 'iuf':
        raise SeriesError(f'voxels are of type {dtype}, need real numbers')
    if dtype.kind in 'iu' and dtype.itemsize == 1 and not has_units:
        raise SeriesError(
            'voxels are 8-bit grey levels without units, need a map of numbers; export the map '
            'itself, or add its Units to the sidecar'
        )
    check_complete(path, image)
    check_gzip(path)
    check_geometry(image, affine_from)
    order = nb.io_orientation(image.affine)
    sizes = dict(zip(order[:, 0].astype(int).tolist(), image.shape[:3], strict=True))
    affine = image.affine @ nb.orientations.inv_ornt_aff(order, image.shape[:3])
    return tuple(sizes[axis] for axis in range(3)), affine


def same_grid(first: Grid, second: Grid) -> bool:
    """Return whether two grids have the same voxels, within 0.01 mm."""
    import numpy as np

    corners = np.array([[x, y, z, 1] for x in (0, 1) for y in (0, 1) for z in (0, 1)], dtype=float)
    corners[:, :3] *= first[0]
    distances = (np.asarray(first[1]) - np.asarray(second[1])) @ corners.T
    return first[0] == second[0] and float(abs(distances).max()) < SAME_MM


def describe_grid(grid: Grid) -> str:
    """Format a grid as '64 x 64 x 10 voxels of 3.4 x 3.4 x 8 mm from (-107, -107, -36) mm'."""
    shape, affine = grid
    sizes = [math.hypot(*column) for column in affine[:3, :3].T.tolist()]
    first = ', '.join(f'{value:.4g}' for value in affine[:3, 3].tolist())
    return (
        f'{" x ".join(map(str, shape))} voxels of {" x ".join(f"{s:.3g}" for s in sizes)} mm '
        f'from ({first}) mm'
    )
