# SPDX-License-Identifier: Apache-2.0
"""Masks and arterial curves that a user supplies: brought to our grid, and checked before use."""

from dataclasses import dataclass

import numpy as np

from ctpprep.exceptions import PerfusionError, VesselError
from ctpprep.perfusion.motion import HEAD_HU
from ctpprep.perfusion.vessels import LEAST_SNR, curve_features

# a mask with less than this share of its voxels on the head is in another space
LEAST_ON_HEAD = 0.5
# before contrast arrives an AIF above its baseline stays within this share of its peak
QUIET_SHARE = 0.2
# an AIF that rises this much before or after the arteries has other times, s
CLOCK_S = 8.0
# a user may know an artery that is too partial-volumed for the automatic search, which asks for 4
LEAST_OVER_TISSUE = 2.0


@dataclass(frozen=True)
class SuppliedMask:
    """A mask that a user supplies, on any grid of the same space.

    Attributes
    ----------
    voxels : (X, Y, Z) array of bool
    affine : (4, 4) array
        Voxel to patient RAS, mm.
    name : str
        Name of its file, for messages.
    """

    voxels: np.ndarray
    affine: np.ndarray
    name: str


@dataclass(frozen=True)
class SuppliedCurves:
    """An AIF that a user supplies, and perhaps a VOF.

    Attributes
    ----------
    times, aif : (M,) arrays
        s on the clock of the series, and HU above baseline.
    vof : (M,) array, optional
    name : str
        Name of the file, for messages.
    """

    times: np.ndarray
    aif: np.ndarray
    vof: np.ndarray | None
    name: str


def place_mask(mask, density, affine, few_voxels=False):
    """Bring a supplied mask to the grid of a series and check that it lies on the head.

    Parameters
    ----------
    mask : SuppliedMask
    density : (X, Y, Z) array
        A still image of the series, HU.
    affine : (4, 4) array
        Of that image.
    few_voxels : bool
        Whether the mask may consist of voxels finer than the grid, none of which may be lost.

    Returns
    -------
    (X, Y, Z) array of bool

    Raises
    ------
    PerfusionError
        If the mask is empty or lies elsewhere than the head.
    """
    resample = voxels_on_grid if few_voxels else mask_on_grid
    on_grid = resample(mask.voxels, mask.affine, density.shape, affine)
    check_mask(mask.voxels, on_grid, density, mask.name)
    return on_grid


def mask_on_grid(mask, affine, shape, grid_affine):
    """Resample a mask to another grid: each voxel takes the nearest one.

    Parameters
    ----------
    mask : (X, Y, Z) array of bool
    affine : (4, 4) array
        Voxel to patient coordinates of the mask, mm.
    shape : (3,) tuple of int
    grid_affine : (4, 4) array
        The grid that is wanted.

    Returns
    -------
    array of bool
        Of `shape`; False outside of the mask's own grid.

    Examples
    --------
    >>> fine = np.array([0, 0, 1, 1], bool).reshape(4, 1, 1)
    >>> mask_on_grid(fine, np.diag([1, 1, 1, 1]), (2, 1, 1), np.diag([2, 1, 1, 1])).ravel()
    array([False,  True])
    """
    there = _nearest(np.indices(shape).reshape(3, -1), grid_affine, affine)
    inside = _within(there, mask.shape)
    found = np.zeros(there.shape[1], dtype=bool)
    found[inside] = mask[tuple(there[:, inside])]
    return found.reshape(shape)


def voxels_on_grid(mask, affine, shape, grid_affine):
    """Mark the voxels of another grid that hold the voxels of a mask.

    A few fine voxels in an artery need not include the centre of a coarse one: `mask_on_grid`
    could lose them.

    Parameters
    ----------
    mask, affine, shape, grid_affine
        As for `mask_on_grid`.

    Returns
    -------
    array of bool
        Of `shape`.

    Examples
    --------
    >>> fine = np.array([0, 1, 0, 0], bool).reshape(4, 1, 1)
    >>> voxels_on_grid(fine, np.diag([1, 1, 1, 1]), (2, 1, 1), np.diag([2, 1, 1, 1])).ravel()
    array([ True, False])
    """
    there = _nearest(np.argwhere(mask).T, affine, grid_affine)
    found = np.zeros(shape, dtype=bool)
    found[tuple(there[:, _within(there, shape)])] = True
    return found


def _nearest(voxels, affine, grid_affine):
    """Give the voxels of a grid that are nearest to those of another one, (3, N)."""
    matrix = np.linalg.inv(np.asarray(grid_affine, dtype=float)) @ affine
    # halves go down alike: a hair less than a half keeps ties from depending on rounding
    return np.floor(matrix[:3, :3] @ voxels + matrix[:3, 3:] + 0.5 - 1e-6).astype(int)


def _within(voxels, shape):
    return np.all((voxels >= 0) & (voxels < np.reshape(shape, (3, 1))), axis=0)


def check_mask(mask, on_grid, density, name):
    """Refuse a mask that is empty or lies elsewhere than the head.

    Parameters
    ----------
    mask : array of bool
        As supplied.
    on_grid : (X, Y, Z) array of bool
        On the grid of the series.
    density : (X, Y, Z) array
        A still image of the series, HU.
    name : str
        Of the file, for messages.

    Raises
    ------
    PerfusionError
    """
    if not mask.any():
        raise PerfusionError(f'{name} is empty; voxels above 0 are needed')
    share = float((density[on_grid] > HEAD_HU).mean()) if on_grid.any() else 0.0
    if share < LEAST_ON_HEAD:
        raise PerfusionError(
            f'{name}: {share:.0%} of its voxels lie on the head of the series, at least '
            f'{LEAST_ON_HEAD:.0%} are needed; is it in the space of this series (its frame 0)?'
        )


def check_aif(times, aif, arrival, scan, interval, name):
    """Refuse an AIF that does not fit the bolus of the series.

    Parameters
    ----------
    times, aif : (M,) arrays
        s on the clock of the series, and HU above baseline.
    arrival : float
        When contrast arrives in the series, s.
    scan : (float, float)
        First and last sample time of the series, s.
    interval : float
        Typical time between frames, s; the AIF may begin and end that much too short.
    name : str
        Of the file, for messages.

    Raises
    ------
    VesselError
        When the times do not reach from the arrival of contrast to the end of the scan, when the
        curve does not rise from 0 and fall again, or rises at another time than the arteries.
    """
    first, last = float(times[0]), float(times[-1])
    if first > arrival + interval or last < scan[1] - 2 * interval:
        raise VesselError(
            f'{name}: time runs from {first:g} to {last:g} s; needed are the arrival of contrast '
            f'at {arrival:.1f} s and the rest of the scan, which lasts from {scan[0]:g} to '
            f'{scan[1]:g} s (clock of the series)'
        )
    top, peak = int(np.argmax(aif)), float(np.max(aif))
    if peak <= 0 or top in (0, len(aif) - 1):
        raise VesselError(
            f'{name}: aif is greatest ({peak:g} HU) in row {top + 1} of {len(aif)}; a curve above '
            '0 that rises and falls again is needed'
        )
    before = aif[times < arrival - interval]
    start = float(np.median(before)) if before.size else 0.0
    if abs(start) > QUIET_SHARE * peak:
        raise VesselError(
            f'{name}: aif is {start:.0f} HU before contrast arrives, and {peak:.0f} HU at its '
            'peak; HU above baseline are needed, 0 before the arrival'
        )
    rise = float(curve_features(np.asarray(aif)[None], times).arrival[0])
    if abs(rise - arrival) > CLOCK_S:
        raise VesselError(
            f'{name}: aif rises at {rise:.1f} s, but the arteries of the series at {arrival:.1f} '
            f's; times on the clock of the series are needed, within {CLOCK_S:g} s'
        )


def check_rise(curve, noise, tissue_peak, n_voxels, name):
    """Refuse AIF voxels whose mean curve does not rise out of noise and tissue.

    Parameters
    ----------
    curve : (T,) array
        Their mean, HU above baseline.
    noise : float
        Of a single curve, HU.
    tissue_peak : float
        Median peak enhancement of tissue, HU.
    n_voxels : int
    name : str
        Of the file, for messages.

    Raises
    ------
    VesselError
    """
    least = max(LEAST_SNR * noise, LEAST_OVER_TISSUE * tissue_peak)
    if (peak := float(np.max(curve))) < least:
        raise VesselError(
            f'{name}: the mean curve of its {n_voxels} voxels rises by {peak:.0f} HU, at least '
            f'{least:.0f} HU are needed; do they lie in an artery?'
        )


def crop_to_scan(times, curve, scan):
    """Cut a curve to the time of the scan, with samples at its ends.

    The areas of AIF and tissue are compared: both must end with the scan.

    Parameters
    ----------
    times, curve : (M,) arrays
        s and HU.
    scan : (float, float)
        First and last sample time of the series, s.

    Returns
    -------
    times, curve : arrays

    Examples
    --------
    >>> crop_to_scan(np.array([0.0, 2, 4, 6]), np.array([0.0, 2, 4, 6]), (1.0, 5.0))
    (array([1., 2., 4., 5.]), array([1., 2., 4., 5.]))
    """
    start, end = max(scan[0], times[0]), min(scan[1], times[-1])
    inner = times[(times > start) & (times < end)]
    kept = np.concatenate([[start], inner, [end]])
    return kept, np.interp(kept, times, curve)
