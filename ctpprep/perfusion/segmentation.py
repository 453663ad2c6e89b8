# SPDX-License-Identifier: Apache-2.0
"""Core, hypoperfusion and mismatch by threshold, opening and closing.

Source: Rau et al., AJNR 2024;45:277, doi:10.3174/ajnr.A8111. A core of 30 % is not validated for
locally normalized maps.
"""

import numpy as np
from scipy import ndimage

from ctpprep.perfusion.brain import fill_in_plane
from ctpprep.perfusion.symmetry import SIDES


def ellipsoid(radius_mm, voxel_size_mm):
    """Make the structuring element of a ball on an anisotropic grid.

    Parameters
    ----------
    radius_mm : float
        Radius, mm.
    voxel_size_mm : (3,) sequence of float

    Returns
    -------
    (A, B, C) array of bool
        Voxels whose centre lies within the radius; a single voxel when it is below the spacing.

    Examples
    --------
    >>> ellipsoid(2.0, (2, 2, 5)).sum()
    np.int64(5)
    """
    reach = [int(np.floor(radius_mm / size + 1e-6)) for size in voxel_size_mm]
    axes = np.meshgrid(
        *(np.arange(-n, n + 1) * size for n, size in zip(reach, voxel_size_mm, strict=True)),
        indexing='ij',
    )
    return sum(axis**2 for axis in axes) <= radius_mm**2 + 1e-6


def open_close(mask, within, voxel_size_mm, *, opening_mm, closing_mm, fill=False):
    """Remove specks by opening, then fill gaps by closing.

    Parameters
    ----------
    mask : (X, Y, Z) array of bool
    within : (X, Y, Z) array of bool
        Voxels that closing may fill: tissue of the side.
    voxel_size_mm : (3,) sequence of float
    opening_mm, closing_mm : float
        Radii, mm.
    fill : bool
        Whether what the result encloses in a slice belongs to it.

    Returns
    -------
    (X, Y, Z) array of bool
    """
    opened = _open(mask, ellipsoid(opening_mm, voxel_size_mm))
    reach = ellipsoid(closing_mm, voxel_size_mm)
    # closing erodes from the array's edge: a margin keeps it from eating the first and last slice
    margin = [(n, n) for n in reach.shape]
    closed = ndimage.binary_closing(np.pad(opened, margin), reach)
    inner = tuple(slice(n, -n) for n in reach.shape)
    found = closed[inner]
    return (fill_in_plane(found) if fill else found) & within


def _open(mask, element):
    """Open a mask that goes on beyond the slab as it is in its first and last slice."""
    margin = [(n // 2, n // 2) for n in element.shape]
    opened = ndimage.binary_opening(np.pad(mask, margin, mode='edge'), element)
    return opened[
        tuple(
            slice(n // 2, n // 2 + size) for n, size in zip(element.shape, mask.shape, strict=True)
        )
    ]


def within_side(tissue_mask, hemisphere, side):
    """Restrict tissue to a hemisphere.

    Parameters
    ----------
    tissue_mask : (X, Y, Z) array of bool
    hemisphere : (X, Y, Z) array
        1 left, 2 right.
    side : {'left', 'right', 'both'}

    Returns
    -------
    (X, Y, Z) array of bool
    """
    if side == 'both':
        return tissue_mask & (hemisphere > 0)
    return tissue_mask & (hemisphere == SIDES[side])


def segment_core(relative, within, voxel_size_mm, *, core_rcbf, opening_mm, closing_mm):
    """Segment the infarct core: relative CBF below a fraction.

    Parameters
    ----------
    relative : (X, Y, Z) array
        Relative CBF, global or local, fraction.
    within : (X, Y, Z) array of bool
        Assessable tissue of the affected side.
    voxel_size_mm : (3,) sequence of float
    core_rcbf : float
        Threshold, fraction.
    opening_mm, closing_mm : float
        mm.

    Returns
    -------
    (X, Y, Z) array of bool
    """
    return open_close(
        within & (relative < core_rcbf), within, voxel_size_mm,
        opening_mm=opening_mm, closing_mm=closing_mm,
    )  # fmt: skip


def segment_hypoperfusion(
    tmax, within, voxel_size_mm, *, hypoperfusion_tmax, opening_mm, closing_mm
):
    """Segment hypoperfusion: Tmax above a number of seconds.

    Tissue that hypoperfusion encloses in its slice belongs to it: where hardly any contrast arrives,
    the residue function is noise and its maximum may lie anywhere.

    Parameters
    ----------
    tmax : (X, Y, Z) array
        s; never normalized.
    within : (X, Y, Z) array of bool
        Tissue of the affected side.
    voxel_size_mm : (3,) sequence of float
    hypoperfusion_tmax : float
        Threshold, s.
    opening_mm, closing_mm : float
        mm.

    Returns
    -------
    (X, Y, Z) array of bool
    """
    return open_close(
        within & (tmax > hypoperfusion_tmax), within, voxel_size_mm,
        opening_mm=opening_mm, closing_mm=closing_mm, fill=True,
    )  # fmt: skip


def segment_mismatch(hypoperfusion, core):
    """Return hypoperfused tissue that is not core.

    Parameters
    ----------
    hypoperfusion, core : (X, Y, Z) arrays of bool

    Returns
    -------
    (X, Y, Z) array of bool
    """
    return hypoperfusion & ~core
