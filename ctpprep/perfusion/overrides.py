# SPDX-License-Identifier: Apache-2.0
"""User overrides: masks and arterial curves, resampled to the working grid and checked."""

from dataclasses import dataclass

import numpy as np

from ctpprep.exceptions import PerfusionError, VesselError
from ctpprep.perfusion import grid, motion
from ctpprep.perfusion.motion import HEAD_HU
from ctpprep.perfusion.precomputed import on_grid
from ctpprep.perfusion.vessels import LEAST_SNR, curve_features

# a mask with a smaller fraction of its voxels on the head is in another space
LEAST_ON_HEAD = 0.5
# a brain mask is inside the skull, with at least the first fraction of itself, and covers at least the
# second of the brain
LEAST_IN_SKULL, LEAST_OF_BRAIN = 0.8, 0.2
# least correlation of the skulls of one head after rigid registration (decision 0041): at least 0.956 in
# heads moved by up to 15 mm and 10 degrees, at most 0.902 between different heads
LEAST_SAME_SKULL = 0.93
# density outside an image, HU
AIR_HU = -1024.0
# largest fraction of its peak that a baseline-corrected AIF may have before contrast arrives
QUIET_SHARE = 0.2
# an AIF that rises this much earlier or later than the arteries uses another clock, s
CLOCK_S = 8.0
# a user may choose an artery with more partial volume than the automatic search allows (4)
LEAST_OVER_TISSUE = 2.0


@dataclass(frozen=True)
class SuppliedMask:
    """A mask supplied by the user, on any grid of the same space.

    Attributes
    ----------
    voxels : (X, Y, Z) array of bool
    affine : (4, 4) array
        Voxel to patient RAS, mm.
    name : str
        File name, for messages.
    """

    voxels: np.ndarray
    affine: np.ndarray
    name: str


@dataclass(frozen=True)
class SuppliedCurves:
    """An AIF supplied by the user, optionally with a VOF.

    Attributes
    ----------
    times, aif : (M,) arrays
        Times on the clock of the series, s, and enhancement, HU.
    vof : (M,) array, optional
    name : str
        File name, for messages.
    """

    times: np.ndarray
    aif: np.ndarray
    vof: np.ndarray | None
    name: str


def place_mask(mask, density, affine, few_voxels=False):
    """Resample a supplied mask to the grid of a series and check that it is on the head.

    Parameters
    ----------
    mask : SuppliedMask
    density : (X, Y, Z) array
        Frame or mean image of the series, HU.
    affine : (4, 4) array
        Affine of that image.
    few_voxels : bool
        Whether the mask may consist of a few voxels finer than the grid, all of which are retained.

    Returns
    -------
    (X, Y, Z) array of bool

    Raises
    ------
    PerfusionError
        If the mask is empty or not on the head.
    """
    resample = voxels_on_grid if few_voxels else mask_on_grid
    on_grid = resample(mask.voxels, mask.affine, density.shape, affine)
    check_mask(mask.voxels, on_grid, density, mask.name)
    return on_grid


def mask_on_grid(mask, affine, shape, grid_affine):
    """Resample a mask to another grid by nearest neighbour.

    Parameters
    ----------
    mask : (X, Y, Z) array of bool
    affine : (4, 4) array
        Voxel to patient coordinates of the mask, mm.
    shape : (3,) tuple of int
    grid_affine : (4, 4) array
        Affine of the target grid.

    Returns
    -------
    array of bool
        Of `shape`; False outside the grid of the mask.

    Examples
    --------
    >>> fine = np.array([0, 0, 1, 1], bool).reshape(4, 1, 1)
    >>> mask_on_grid(fine, np.diag([1, 1, 1, 1]), (2, 1, 1), np.diag([2, 1, 1, 1])).ravel()
    array([False,  True])
    """
    sources = _nearest(np.indices(shape).reshape(3, -1), grid_affine, affine)
    inside = _within(sources, mask.shape)
    resampled = np.zeros(sources.shape[1], dtype=bool)
    resampled[inside] = mask[tuple(sources[:, inside])]
    return resampled.reshape(shape)


def voxels_on_grid(mask, affine, shape, grid_affine):
    """Mark the voxels of another grid that contain voxels of a mask.

    A few fine voxels in an artery need not include the centre of a coarse voxel, so that
    `mask_on_grid` could lose them.

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
    targets = _nearest(np.argwhere(mask).T, affine, grid_affine)
    resampled = np.zeros(shape, dtype=bool)
    resampled[tuple(targets[:, _within(targets, shape)])] = True
    return resampled


def _nearest(voxels, affine, grid_affine):
    """Return the voxels of a grid that are nearest to those of another, (3, N)."""
    matrix = np.linalg.inv(np.asarray(grid_affine, dtype=float)) @ affine
    # slightly less than 0.5, so that ties round down whatever the rounding error
    return np.floor(matrix[:3, :3] @ voxels + matrix[:3, 3:] + 0.5 - 1e-6).astype(int)


def _within(voxels, shape):
    return np.all((voxels >= 0) & (voxels < np.reshape(shape, (3, 1))), axis=0)


def check_mask(mask, on_grid, density, name):
    """Check that a mask is not empty and is on the head.

    Parameters
    ----------
    mask : array of bool
        As supplied.
    on_grid : (X, Y, Z) array of bool
        On the grid of the series.
    density : (X, Y, Z) array
        Frame or mean image of the series, HU.
    name : str
        File name, for messages.

    Raises
    ------
    PerfusionError
        If the mask is empty, or if less than half of its voxels are on the head.
    """
    if not mask.any():
        raise PerfusionError(f'{name}: the mask is empty, need voxels above 0; check the file')
    share = float((density[on_grid] > HEAD_HU).mean()) if on_grid.any() else 0.0
    if share < LEAST_ON_HEAD:
        raise PerfusionError(
            f'{name}: {share:.0%} of its voxels are on the head of the series, need at least '
            f'{LEAST_ON_HEAD:.0%}; check that it is in the space of this series (its frame 0)'
        )


def check_brain(mask, brain_mask, inside, name):
    """Compare a supplied brain mask with the skull and with the brain that is found without it.

    Parameters
    ----------
    mask : (X, Y, Z) array of bool
        On the grid of the series.
    brain_mask, inside : (X, Y, Z) arrays of bool
        The brain that is found, and the inside of the skull.
    name : str
        File name, for messages.

    Raises
    ------
    PerfusionError
        If more than a fifth of the mask is outside the skull, or if it covers less than a fifth of the
        brain.
    """
    within = float(inside[mask].mean())
    covered = float(mask[brain_mask].mean()) if brain_mask.any() else 1.0
    if within < LEAST_IN_SKULL or covered < LEAST_OF_BRAIN:
        raise PerfusionError(
            f'{name}: {within:.0%} of the mask is inside the skull, and it covers {covered:.0%} of the '
            f'brain, need at least {LEAST_IN_SKULL:.0%} and {LEAST_OF_BRAIN:.0%}; check its affine and '
            'participant'
        )


def check_same_head(corrected, affine, raw, raw_affine, settings, name):
    """Check that a supplied motion-corrected series is of the same head as the raw one.

    Bone neither enhances nor changes from frame to frame. The raw frame is registered rigidly to the
    corrected one, unless their skulls agree already.

    Parameters
    ----------
    corrected : (X, Y, Z) array
        First frame, HU.
    affine : (4, 4) array
        Voxel to patient RAS, mm.
    raw : (X, Y, Z, T) array
        A few frames, since one of them may be the one to whose pose the others were moved, HU.
    raw_affine : (4, 4) array
    settings : MethodSettings
        Uses the branch ``motion``.
    name : str
        File name of the corrected series, for messages.

    Raises
    ------
    PerfusionError
        If the skulls correlate by less than 0.93 where both images show them. A head without skull is
        not compared.
    """
    method, bone = settings.motion, motion.BONE_HU[0]
    if not ((corrected > bone).any() and (raw > bone).any()):
        return
    similarity, head, seen = 0.0, corrected > HEAD_HU, _without_filler(corrected)
    for frame in np.moveaxis(raw, -1, 0):
        moving = on_grid(frame, raw_affine, corrected.shape, affine, AIR_HU)
        agreement = motion.skull_similarity(_without_filler(moving), seen, head)
        if not agreement >= LEAST_SAME_SKULL:
            aligned = _without_filler(_align(moving, corrected, affine, method))
            agreement = motion.skull_similarity(aligned, seen, head)
        similarity = float(np.fmax(similarity, agreement))
        if similarity >= LEAST_SAME_SKULL:
            return
    raise PerfusionError(
        f'{name}: its skull and that of the raw series correlate by {similarity:.3f} after '
        f'registration, need at least {LEAST_SAME_SKULL}; check that both are of the same participant '
        'and scan'
    )


def _without_filler(image):
    """Replace the filler outside of a field of view by NaN: tools that correct motion write -1024 or 0.

    Voxels of the head with exactly 0 HU are few and never bone; the skulls are compared without them.
    """
    return np.where((image > AIR_HU) & (image != 0), image, np.nan)


def _align(moving, fixed, affine, method):
    """Register an image rigidly to another one on the same grid, and resample it."""
    in_plane = grid.voxel_size_mm(affine)[:2]
    factors = [max(1, round(method.motion_grid_mm / size)) for size in in_plane] + [1]
    coarse = [
        grid.average_blocks(np.clip(image, *method.motion_window_hu), factors)
        for image in (fixed, moving)
    ]
    target = motion.RigidTarget(
        coarse[0], grid.block_affine(affine, factors), method.motion_smoothing_mm
    )
    return motion.resample_frame(moving, affine, motion.register_rigid(target, coarse[1]))


def check_aif(times, aif, arrival, scan, interval, name):
    """Check that a supplied AIF matches the bolus of the series.

    Parameters
    ----------
    times, aif : (M,) arrays
        Times on the clock of the series, s, and enhancement, HU.
    arrival : float
        Arrival of contrast in the series, s.
    scan : (float, float)
        First and last sample time of the series, s.
    interval : float
        Typical time between frames, s: tolerance of the start and the end of the AIF.
    name : str
        File name, for messages.

    Raises
    ------
    VesselError
        If the times do not cover the arrival of contrast to the end of the scan, if the curve does
        not rise from 0 and fall again, or if it rises at another time than the arteries.
    """
    first, last = float(times[0]), float(times[-1])
    if first > arrival + interval or last < scan[1] - 2 * interval:
        raise VesselError(
            f'{name}: time runs from {first:g} to {last:g} s, need the scan ({scan[0]:g} to {scan[1]:g} s) '
            f'from the arrival of contrast at {arrival:.1f} s on; use the clock of the series'
        )
    top, peak = int(np.argmax(aif)), float(np.max(aif))
    if peak <= 0 or top in (0, len(aif) - 1):
        raise VesselError(
            f'{name}: aif has its maximum ({peak:g} HU) in row {top + 1} of {len(aif)}, need a curve '
            'above 0 that rises and falls again; check the column aif'
        )
    before = aif[times < arrival - interval]
    start = float(np.median(before)) if before.size else 0.0
    if abs(start) > QUIET_SHARE * peak:
        raise VesselError(
            f'{name}: aif is {start:.0f} HU before contrast arrives and {peak:.0f} HU at its peak, '
            'need HU above baseline, about 0 before arrival; subtract the baseline'
        )
    rise = float(curve_features(np.asarray(aif)[None], times).arrival[0])
    if abs(rise - arrival) > CLOCK_S:
        raise VesselError(
            f'{name}: aif rises at {rise:.1f} s, the arteries of the series at {arrival:.1f} s, '
            f'need a difference of at most {CLOCK_S:g} s; use the clock of the series'
        )


def check_rise(curve, noise, tissue_peak, n_voxels, name):
    """Check that the mean curve of supplied AIF voxels rises above noise and tissue.

    Parameters
    ----------
    curve : (T,) array
        Mean curve of the voxels, HU above baseline.
    noise : float
        Noise of a single curve, HU.
    tissue_peak : float
        Median peak enhancement of tissue, HU.
    n_voxels : int
    name : str
        File name, for messages.

    Raises
    ------
    VesselError
        If the peak is too low relative to noise or tissue.
    """
    least = max(LEAST_SNR * noise, LEAST_OVER_TISSUE * tissue_peak)
    if (peak := float(np.max(curve))) < least:
        raise VesselError(
            f'{name}: the mean curve of its {n_voxels} voxels rises by {peak:.0f} HU, need at least '
            f'{least:.0f} HU; check that they are in an artery'
        )


def crop_to_scan(times, curve, scan):
    """Crop a curve to the duration of the scan, with samples at both ends.

    CBV is a ratio of the areas of tissue curve and AIF, so both must end with the scan.

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
