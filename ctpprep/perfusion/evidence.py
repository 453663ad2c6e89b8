# SPDX-License-Identifier: Apache-2.0
"""What a series shows where no bolus, vessel, brain or tissue was found in it."""

import contextlib
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ctpprep.perfusion import bolus, bolus_fit, brain, grid, overrides
from ctpprep.perfusion.motion import HEAD_HU
from ctpprep.perfusion.preprocessing import AIR_HU, find_search_region

# number of voxels whose curves are shown: as many as a bolus needs; and of those that are compared
MOST_CANDIDATES, MOST_FITTED = bolus.LEAST_VOXELS, 500
SEARCH_REGION = 'search region'


@dataclass(frozen=True)
class Evidence:
    """Curves and images of a series, for a reader who has to find out why it failed.

    Attributes
    ----------
    times : (T,) array
        Frame times, s.
    usable : (T,) array of bool
        False for frames rejected for motion.
    region : str
        Name of the region of the curves: the search region, or what was found of it.
    mean : (T,) array
        Mean curve of the region, HU; NaN where no voxel has a value.
    candidates : (N, T) array
        Curves of the region that rise most like a bolus, the best first, HU.
    image : (X, Y, Z) array
        Mean of the usable frames, HU.
    marked : (X, Y, Z) array of bool
        Voxels of the candidates.
    outlines : dict of str to (X, Y, Z) array of bool
        The region by its name, and brain or tissue if they were found.
    voxel_size_mm : (3,) array
    """

    times: np.ndarray
    usable: np.ndarray
    region: str
    mean: np.ndarray
    candidates: np.ndarray
    image: np.ndarray
    marked: np.ndarray
    outlines: dict[str, np.ndarray]
    voxel_size_mm: np.ndarray


def gather_evidence(
    ctp, sample_times, affine, settings, weights=None, brain_mask=None, damage=None, masks=None
):  # fmt: skip
    """Collect what a series shows, whatever is missing in it.

    It never raises an exception, as it is called while another one is handled. It takes less time
    than `preprocessing.make_masks`.

    Parameters
    ----------
    ctp : (X, Y, Z, T) array
        Corrected series, HU; NaN where a voxel is outside the field of view.
    sample_times : (T,) or (Z, T) array
        Acquisition times, s; slices run from feet to head.
    affine : (4, 4) array
    settings : MethodSettings
        Uses the branch ``masks``.
    weights : (T,) array, optional
        0 for rejected frames; 1 by default.
    brain_mask : overrides.SuppliedMask, optional
    damage : (X, Y, Z) array, optional
        Change of each voxel by motion, HU; voxels that rise less are not candidates.
    masks : Masks, optional
        Of a series whose masks were found: ``intracranial`` and ``tissue`` are used.

    Returns
    -------
    Evidence or None
        None if there are not even times and images.
    """
    try:
        with np.errstate(all='ignore'):
            times = grid.times_by_slice(sample_times, ctp.shape[2]).mean(axis=0)
            usable = _usable_frames(weights, ctp.shape[3])
            image, seen = _average(ctp, usable)
            if masks is None:
                first = _average(ctp, usable & (np.cumsum(usable) <= 2))[0]
                images = (image, first, seen)
                outlines, searched = _find_region(*images, affine, settings.masks, brain_mask)
            else:
                outlines = {SEARCH_REGION: masks.intracranial, 'tissue': masks.tissue}
                searched = masks.intracranial
            mean, candidates, marked = _measure_curves(ctp, searched, usable, times, image, damage)
    except Exception:  # the error of the stage is what matters
        return None
    size = np.array(grid.voxel_size_mm(affine))
    region = next(iter(outlines))
    return Evidence(times, usable, region, mean, candidates, image, marked, outlines, size)


def _usable_frames(weights, n_frames):
    """Return the frames that were not rejected; all if none is left."""
    usable = np.ones(n_frames, dtype=bool) if weights is None else np.asarray(weights) > 0
    return usable if usable.any() else np.ones(n_frames, dtype=bool)


def _average(ctp, frames):
    """Return the mean of some frames, and where all of them have a value."""
    total = np.zeros(ctp.shape[:3])
    count = np.zeros(ctp.shape[:3], dtype=int)
    for frame in np.flatnonzero(frames):
        finite = np.isfinite(ctp[..., frame])
        total += np.where(finite, ctp[..., frame], 0)
        count += finite
    mean = np.where(count > 0, total / np.maximum(count, 1), AIR_HU)
    return mean.astype(np.float32), count == np.count_nonzero(frames)


def _find_region(image, first, seen, affine, method, supplied):
    """Return the masks to outline, the region first, and the voxels whose curves are taken.

    The region is that of the search for a bolus, or the next larger one that is not empty.
    """
    size = grid.voxel_size_mm(affine)
    brain_mask = inside = np.zeros(image.shape, dtype=bool)
    with contextlib.suppress(Exception):  # there may be no brain
        brain_mask, inside = brain.brain_masks(
            image, first, size, bone_hu=method.bone_hu, csf_level=method.csf_level
        )
    with contextlib.suppress(Exception):  # or no mask, or one that does not match
        brain_mask = overrides.place_mask(supplied, first, affine)
        inside = inside | brain_mask
    deep = searched = np.zeros(image.shape, dtype=bool)
    if inside.any():
        levels = brain.density_levels(image, inside, size)
        deep, searched = find_search_region(
            first, inside, seen, levels, size, method.bone_margin_mm
        )
    head = image > HEAD_HU
    soft = head & (image > brain.SOFT_HU[0]) & (image < brain.SOFT_HU[1])
    regions = (
        (SEARCH_REGION, deep, searched), ('inside of the skull', inside, inside),
        ('soft tissue of the head', soft, soft), ('head', head, head),
        ('image', np.ones_like(head), np.ones_like(head)),
    )  # fmt: skip
    name, outline, voxels = next(region for region in regions if region[2].any())
    return {name: outline} | ({'brain': brain_mask} if brain_mask.any() else {}), voxels


def _measure_curves(ctp, region, usable, times, image, damage):
    """Return the mean curve of a region, its candidates, and the voxels of these."""
    curves = np.asarray(ctp[region], dtype=np.float32)
    finite = np.isfinite(curves)
    curves = np.where(finite, curves, image[region][:, None])
    total = np.where(finite, curves, 0).sum(axis=0, dtype=float)
    mean = np.where(finite.any(axis=0), total / np.maximum(finite.sum(axis=0), 1), np.nan)
    # as in `bolus.first_pass`: the mean of three frames, above the first third of the scan
    smooth = ndimage.uniform_filter1d(curves[:, usable], 3, axis=-1, mode='nearest')
    rise = smooth.max(axis=-1) - np.median(smooth[:, : max(1, smooth.shape[1] // 3)], axis=-1)
    if damage is not None:
        moved = rise <= bolus.LEAST_OVER_DAMAGE * damage[region]
        rise = np.where(moved, 0, rise)
    highest = np.argsort(-rise, kind='stable')
    highest = highest[
        : max(MOST_CANDIDATES, min(MOST_FITTED, int(bolus.FITTED_SHARE * len(rise))))
    ]
    with contextlib.suppress(Exception):  # too few frames to fit
        explained = bolus_fit.fit_bolus(curves[highest][:, usable], times[usable]).explained
        explained = np.clip(np.nan_to_num(explained), 0, 1)
        alike = rise[highest] * explained
        # a jump by motion is often higher than an artery
        highest = highest[np.lexsort((-alike, explained <= bolus.LEAST_EXPLAINED))]
    highest = highest[:MOST_CANDIDATES]
    marked = np.zeros(region.shape, dtype=bool)
    marked[tuple(np.argwhere(region)[highest].T)] = True
    return mean, curves[highest], marked
