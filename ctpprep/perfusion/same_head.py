# SPDX-License-Identifier: Apache-2.0
"""Is what the user supplies of this head? Brain masks, excluded regions and corrected series."""

import numpy as np
from scipy import ndimage

from ctpprep.exceptions import PerfusionError
from ctpprep.perfusion import brain, grid, motion
from ctpprep.perfusion.motion import HEAD_HU
from ctpprep.perfusion.precomputed import on_grid

# a brain mask is inside the skull, with at least the first fraction of itself, and covers at least the
# second of the brain
LEAST_IN_SKULL, LEAST_OF_BRAIN = 0.8, 0.2
# the outline of a mask of the whole brain runs along the skull; what is farther out than its median by
# this may be of another head (decision 0048), mm
PROTRUSION_MM = 4.0
# least part inside the skull of a mask of old lesions or surgery, which may reach into scalp and bone
LEAST_EXCLUDED_INSIDE = 0.05
# a shorter outline is not compared, voxels
LEAST_OUTLINE = 50
# least correlation of the skulls of one head after rigid registration (decision 0041): at least 0.956 in
# heads moved by up to 15 mm and 10 degrees, at most 0.902 between different heads
LEAST_SAME_SKULL = 0.93
# density outside an image, HU
AIR_HU = -1024.0


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


def protrusion(mask, inside, voxel_size_mm):
    """Measure the part of the outline of a brain mask that is too far out for this skull.

    Masks of the whole brain differ in their distance to the skull, but hardly from place to place. Those
    that follow sulci, leave out a subdural haematoma, or bulge through a craniectomy also do.

    Parameters
    ----------
    mask, inside : (X, Y, Z) arrays of bool
        The mask, and the inside of the skull.
    voxel_size_mm : (3,) sequence of float

    Returns
    -------
    float
        Fraction of the outline that is by 4 mm farther out, in its slice, than the median; NaN without an
        outline.

    Examples
    --------
    >>> inside = np.zeros((40, 40, 4), bool); inside[5:35, 5:35] = True
    >>> mask = np.zeros_like(inside); mask[8:32, 8:32] = True
    >>> protrusion(mask, inside, (3, 3, 5)), round(protrusion(np.roll(mask, 3, axis=0), inside, (3, 3, 5)), 2)
    (0.0, 0.28)
    """
    whole = brain.fill_in_plane(mask)
    outline = whole & ~ndimage.binary_erosion(whole, brain.IN_PLANE)
    outline &= inside.any(axis=(0, 1))
    if np.count_nonzero(outline) < LEAST_OUTLINE:
        return float('nan')
    depth = brain.distance_in_plane(inside, voxel_size_mm)
    depth = depth - brain.distance_in_plane(~inside, voxel_size_mm)
    depths = depth[outline]
    return float((depths < np.median(depths) - PROTRUSION_MM).mean())


def check_inside(region, inside, name):
    """Check that a supplied mask of old lesions or surgery is in the head, and not beside the brain.

    Parameters
    ----------
    region, inside : (X, Y, Z) arrays of bool
        The mask on the grid of the series, and the inside of the skull.
    name : str
        File name, for messages.

    Raises
    ------
    PerfusionError
        If less than a twentieth of the mask is inside the skull, in slices that show the brain.
    """
    shown = region & inside.any(axis=(0, 1))
    share = float(inside[shown].mean()) if shown.any() else 1.0
    if share < LEAST_EXCLUDED_INSIDE:
        raise PerfusionError(
            f'{name}: {share:.0%} of its voxels are inside the skull, need at least '
            f'{LEAST_EXCLUDED_INSIDE:.0%}; check that it is of this participant and in the space of '
            'this series'
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
