# SPDX-License-Identifier: Apache-2.0
"""What the first frames of a series show before anything is computed: units, window, size, axes.

A series in other units, in a display window or with wrong voxel sizes fails late or, worse, gives
plausible maps. Two frames are enough to notice most of it, and the cause can still be named.
"""

from dataclasses import dataclass

import numpy as np

from ctpprep.exceptions import PerfusionError
from ctpprep.perfusion import brain
from ctpprep.perfusion.grid import average_blocks

# frames are averaged in plane to about this voxel size, mm
COARSE_MM = 3.5
# a frame with fewer voxels shows no head, and is left to the later stages
LEAST_VOXELS = 4000
# fractions of voxels: most that are infinite, or NaN between numbers (NaN around the head is padding)
MOST_BROKEN = 0.01
# fraction of voxels with exactly the highest value from which they are clipped, and the density from
# which that does no harm: arteries are below, and bone needs no more, HU
CLIPPED_SHARE, HARMLESS_HU = 0.004, 600.0
# largest step between densities, HU: noise of a few HU must blur it, or tissue that rises by 5 HU does not
# change; steps are measured where brain and arteries are
MOST_STEP_HU, STEP_SEARCH_HU = 5.0, (-50.0, 150.0)
# int16 that was read as uint16
LARGEST_INT16 = 32767
# densities that are searched for air, HU, its least fraction of the frame, and its plausible median
AIR_SEARCH_HU, LEAST_AIR, AIR_HU = (-1500.0, -300.0), 0.02, (-1100.0, -860.0)
# densities of brain with any calibration, HU
BRAIN_HU = (6.0, 68.0)
# size of the inside of the skull: largest height, mm, and area of a slice, cm2, and the area from which
# a slice counts; a slab of some height from the vertex down has at least a cap of a sphere, of which
# this fraction is required
MOST_HEIGHT_MM, MOST_AREA_CM2, COUNTED_CM2 = 180.0, 330.0, 15.0
SPHERE_MM, LEAST_CAP = 65.0, 0.85
# slices are in another order if at least two of them are more like a slice elsewhere than like their
# neighbours by this factor (decision 0054); fewer slices are not compared
LEAST_STRANGENESS, LEAST_SLICES = 0.7, 6
# slices with less than this fraction of the largest cross-section of the head are not compared
LEAST_HEAD = 0.2
# the axis of time is another one if neighbours along that are more alike by this factor
LEAST_CHANGE = 0.6


@dataclass(frozen=True)
class Findings:
    """What is unusual in a frame, but no reason to refuse the series.

    Attributes
    ----------
    n_slices : int
    n_broken : int
        Number of isolated voxels that are NaN or infinite.
    broken_slices, empty_slices, repeated_slices : tuple of int
        Slices with such voxels, slices of one value, and slices equal to the one before; from 0 on, in
        the order of the array.
    """

    n_slices: int
    n_broken: int
    broken_slices: tuple[int, ...]
    empty_slices: tuple[int, ...]
    repeated_slices: tuple[int, ...]


def check_frame(frame, voxel_size_mm, *, bone_hu):
    """Check that a frame can be a CT of a head in HU with these voxel sizes.

    Parameters
    ----------
    frame : (X, Y, Z) array
        First frame as stored, without averaging, HU.
    voxel_size_mm : (3,) sequence of float
    bone_hu : float
        Density above which a voxel is bone, HU.

    Returns
    -------
    Findings

    Raises
    ------
    PerfusionError
        With the cause: values that are not numbers, a display window, unsigned or shifted or scaled
        densities, another modality, or a head of impossible size.
    """
    empty, repeated = find_bad_slices(frame)
    n_broken, broken = _find_broken(frame)
    findings = Findings(frame.shape[2], n_broken, broken, empty, repeated)
    if frame.size < LEAST_VOXELS:
        return findings
    if np.nanmin(frame) == np.nanmax(frame):
        brain.check_density(frame)  # raises the error
    if len(empty) >= frame.shape[2] / 2 or len(repeated) == frame.shape[2] - 1 > 0:
        raise PerfusionError(
            f'slices: of {frame.shape[2]} slices of the first frame, {len(empty)} contain a single value '
            f'and {len(repeated)} repeat the one before; convert the series again'
        )
    _check_range(frame)
    coarse, size = coarse_frame(frame, voxel_size_mm)
    coarse = np.delete(coarse, empty, axis=2)
    _check_air(coarse)
    brain.check_density(coarse)
    _check_background(coarse)
    _check_brain(coarse, size, bone_hu)
    _check_order(coarse, np.delete(np.arange(frame.shape[2]), empty))
    return findings


def check_axes(first, second):
    """Check that time is the last axis: neighbours in time are more alike than neighbours in space.

    Parameters
    ----------
    first, second : (X, Y, Z) array
        The first two frames, averaged in plane by `coarse_frame`.

    Raises
    ------
    PerfusionError
        If neighbours along an axis of space are more alike.
    """
    if min(first.shape) < 2 or first.size < 100:
        return
    low, high = -1000.0, 1500.0
    first, second = np.clip(first, low, high), np.clip(second, low, high)
    in_time = np.abs(second - first).mean()
    for axis, name in enumerate(('first', 'second', 'third')):
        in_space = np.abs(np.diff(first, axis=axis)).mean()
        if 0 < in_space < LEAST_CHANGE * in_time:
            raise PerfusionError(
                f'axes: values change by {in_time:.3g} HU between frames, but only by '
                f'{in_space:.3g} HU along the {name} axis, which must be time; '
                'reorder the axes to x, y, z, time'
            )


def slice_strangeness(frame):
    """Compare each slice with its neighbours and with all other slices.

    Parameters
    ----------
    frame : (X, Y, Z) array
        Averaged in plane by `coarse_frame`, HU.

    Returns
    -------
    (Z,) array
        Mean difference from the most similar slice that is not a neighbour, relative to that from the
        most similar neighbour. In the order of the anatomy it is at least about 1. Slices above and below
        the largest are not compared: a head may be as large there. Infinite in slices with hardly any
        head, which are all alike.

    Examples
    --------
    >>> slices = np.array([0, 1, 2, 3, 4, 5])
    >>> slice_strangeness(np.tile(slices, (2, 2, 1))).tolist()
    [2.0, 2.0, 2.0, 2.0, 2.0, 2.0]
    >>> slice_strangeness(np.tile(slices[[0, 4, 2, 3, 1, 5]], (2, 2, 1))).round(1).tolist()
    [0.2, 0.5, 1.0, 1.0, 0.5, 0.2]
    """
    outside = AIR_SEARCH_HU[1]
    slices = np.moveaxis(np.clip(frame, outside, 1500.0), 2, 0).reshape(frame.shape[2], -1)
    area = np.count_nonzero(slices > outside, axis=1)
    head = area > LEAST_HEAD * area.max()
    apart = np.stack([np.abs(slices - one).mean(axis=1) for one in slices])
    steps = np.abs(np.subtract.outer(np.arange(len(slices)), np.arange(len(slices))))
    side = np.sign(np.arange(len(slices)) - np.argmax(area))
    together = np.multiply.outer(side, side) >= 0
    neighbour = np.where(steps == 1, apart, np.inf).min(axis=1)
    other = np.where((steps > 1) & together & head, apart, np.inf).min(axis=1)
    return np.where(head, other / np.maximum(neighbour, 1e-9), np.inf)


def find_bad_slices(frame):
    """Find slices that contain a single value, and slices that repeat the one before.

    Parameters
    ----------
    frame : (X, Y, Z) array

    Returns
    -------
    empty, repeated : tuple of int
        Indices of slices.

    Examples
    --------
    >>> frame = np.arange(24.0).reshape(2, 3, 4)
    >>> frame[..., 1] = 0
    >>> frame[..., 3] = frame[..., 2]
    >>> find_bad_slices(frame)
    ((1,), (3,))
    """
    n_slices = frame.shape[2]
    empty = [z for z in range(n_slices) if np.ptp(frame[..., z]) == 0]
    repeated = [
        z
        for z in range(1, n_slices)
        if z not in empty and np.array_equal(frame[..., z], frame[..., z - 1])
    ]
    return tuple(empty), tuple(repeated)


def coarse_frame(frame, voxel_size_mm):
    """Average a frame in plane to about 3.5 mm, slice by slice; NaN and infinite voxels become air.

    Parameters
    ----------
    frame : (X, Y, Z) array
    voxel_size_mm : (3,) sequence of float

    Returns
    -------
    coarse : (X', Y', Z) array of float32
    voxel_size_mm : (3,) tuple of float
    """
    factors = [max(1, int(COARSE_MM / size)) for size in voxel_size_mm[:2]]
    factors = [min(factor, n) for factor, n in zip(factors, frame.shape, strict=False)]
    slices = []
    for z in range(frame.shape[2]):
        values = np.asarray(frame[..., z : z + 1], dtype=np.float32)
        values = np.nan_to_num(values, nan=-1024.0, posinf=-1024.0, neginf=-1024.0)
        slices.append(average_blocks(np.clip(values, -32768, 65535), (*factors, 1)))
    size = (voxel_size_mm[0] * factors[0], voxel_size_mm[1] * factors[1], voxel_size_mm[2])
    return np.concatenate(slices, axis=2), size


def _find_broken(frame):
    """Count isolated voxels that are not numbers, and list their slices; refuse many of them."""
    if frame.dtype.kind != 'f':
        return 0, ()
    finite = np.isfinite(frame)
    if not finite.any():
        raise PerfusionError('values: no voxel of the first frame is a number; convert it again')
    infinite = np.isinf(frame)
    if infinite.mean() > MOST_BROKEN:
        raise PerfusionError(
            f'values: {infinite.mean():.1%} of the voxels are infinite, need at most '
            f'{MOST_BROKEN:.0%}; convert the series again'
        )
    isolated = ~finite
    isolated[1:-1] &= finite[:-2] & finite[2:]
    isolated[[0, -1]] = False
    if isolated.mean() > MOST_BROKEN:
        raise PerfusionError(
            f'values: {isolated.mean():.1%} of the voxels are NaN between numbers, need at most '
            f'{MOST_BROKEN:.0%}; convert the series again'
        )
    broken = isolated | infinite
    return int(broken.sum()), tuple(np.flatnonzero(broken.any(axis=(0, 1))).tolist())


def _check_range(frame):
    """Refuse unsigned densities and display windows."""
    finite = frame[np.isfinite(frame)] if frame.dtype.kind == 'f' else frame
    wrapped = np.mean(finite > LARGEST_INT16)
    if wrapped > MOST_BROKEN:
        raise PerfusionError(
            f'density: {wrapped:.0%} of the voxels are above {LARGEST_INT16} HU, as negative densities '
            'are in unsigned numbers; correct the data type in the header to int16'
        )
    low, high = STEP_SEARCH_HU
    levels = np.unique(finite[(finite >= low) & (finite <= high)])
    step = float(np.diff(levels).min()) if len(levels) > 2 else 0.0
    if step > MOST_STEP_HU:
        raise PerfusionError(
            f'density: the values have steps of {step:.3g} HU, need at most {MOST_STEP_HU:g}, as CT has '
            'steps of 1 HU; export the original densities'
        )
    low, high = float(finite.min()), float(finite.max())
    clipped = np.mean(finite == high)
    if low < high < HARMLESS_HU and clipped > CLIPPED_SHARE:
        raise PerfusionError(
            f'density: {clipped:.1%} of the voxels have exactly the highest value, so the densities are '
            f'clipped at {high:g} HU, as in a display window; export the original densities'
        )


def _check_air(coarse):
    """Refuse densities that are scaled: air has -1000 HU."""
    low, high = AIR_SEARCH_HU
    air = coarse[(coarse > low) & (coarse < high)]
    if air.size < LEAST_AIR * coarse.size:
        return
    median = float(np.median(air))
    if not AIR_HU[0] <= median <= AIR_HU[1]:
        raise PerfusionError(
            f'density: air has {median:.0f} HU, need about -1000 ({AIR_HU[0]:g} to {AIR_HU[1]:g}), so '
            f'the values are about {median / -1000:.2g} x HU; check the rescale slope and intercept'
        )


def _check_background(coarse):
    """Refuse values without air, except those of a skull-stripped series."""
    low, high = AIR_SEARCH_HU
    has_air = np.mean((coarse > low) & (coarse < high)) > LEAST_AIR / 2
    if has_air or brain.is_stripped(coarse):
        return
    low, high = np.percentile(coarse, (1, 99))
    raise PerfusionError(
        f'density: the values ({low:.3g} to {high:.3g}) contain no air (-1000 HU) and are not those of '
        'a skull-stripped CT; check that they are HU, not MR or a map'
    )


def _check_order(coarse, kept):
    """Refuse slices that are not in the order of the anatomy, whose neighbours are alike.

    `kept` are the indices of the slices in the file. Without a skull, slices of the brain are too alike.
    """
    if coarse.shape[2] < LEAST_SLICES or brain.is_stripped(coarse):
        return
    strange = kept[slice_strangeness(coarse) < LEAST_STRANGENESS]
    if len(strange) > 1:
        numbers = ', '.join(str(z + 1) for z in strange[:6]) + (' ...' if len(strange) > 6 else '')
        raise PerfusionError(
            f'order: slices {numbers} are more like other slices than like their '
            'neighbours, so slices are exchanged; convert the series again'
        )


def _check_brain(coarse, size, bone_hu):
    """Refuse a brain of impossible density or size, where a skull shows what is inside."""
    if brain.is_stripped(coarse):
        return
    try:
        inside = brain.inside_skull(coarse, size, bone_hu)
        levels = brain.density_levels(coarse, inside, size)
    except (PerfusionError, ValueError, IndexError):
        return  # too little is visible; the later stages decide
    areas = inside.sum(axis=(0, 1)) * size[0] * size[1] / 100
    height = float(np.count_nonzero(areas > COUNTED_CM2) * size[2])
    if height > MOST_HEIGHT_MM or areas.max() > MOST_AREA_CM2:
        raise PerfusionError(
            f'size: the brain is {height:.0f} mm tall and its largest slice has {areas.max():.0f} cm2, '
            f'need at most {MOST_HEIGHT_MM:g} mm and {MOST_AREA_CM2:g} cm2; check the voxel size in the '
            'header'
        )
    depth = min(height, SPHERE_MM)
    least = LEAST_CAP * np.pi * (2 * SPHERE_MM * depth - depth**2) / 100
    if 0 < areas.max() < least:
        raise PerfusionError(
            f'size: the largest slice of the brain has {areas.max():.0f} cm2, need at least '
            f'{least:.0f} in a slab of {height:.0f} mm; check the voxel size in the header'
        )
    if areas.max() >= COUNTED_CM2 and not BRAIN_HU[0] <= levels.brain <= BRAIN_HU[1]:
        raise PerfusionError(
            f'density: brain has {levels.brain:.0f} HU, need {BRAIN_HU[0]:g} to {BRAIN_HU[1]:g}; check '
            'that the values are HU, with the right rescale slope and intercept'
        )
