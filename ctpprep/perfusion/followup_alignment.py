# SPDX-License-Identifier: Apache-2.0
"""Alignment of the MR image of a follow-up lesion with the CT, and how good it is.

The image is registered rigidly and then by an affine transform, by mutual information in the head. Two
figures judge the result where the perfusion series is: the overlap of the brain in both images, and
whether mutual information would gain by a shift.
"""

import numpy as np
from scipy import ndimage

from ctpprep.exceptions import PerfusionError
from ctpprep.perfusion.brain import inside_skull, largest
from ctpprep.perfusion.grid import voxel_size_mm
from ctpprep.perfusion.homologues import window_image

# densities that are registered: soft tissue; bone is above and set to 0, so that it is as dark as in MR
CT_HU = (-1024.0, 3000.0)
SOFT_HU = (-20.0, 100.0)
# around the brain, so that its outline is registered as well
AROUND_MM = 12.0
# shifts and turns by which the alignment is judged
SHIFTS_MM = (6.0, 12.0)
TURNS_DEG = (8.0,)
HISTOGRAM_BINS = 32
# share of the brightest voxels that are clipped: vessels, artefacts and lesions
BRIGHTEST = 0.995


def align_image(
    fixed, image, reference, brain_mask, ncct_matrix, register, settings, by_density=True
):
    """Register an MR image to a CT and judge the result.

    Parameters
    ----------
    fixed : tuple of (X, Y, Z) array and (4, 4) array
        Non-contrast CT, or the reference image itself, HU.
    image : tuple of (A, B, C) array and (4, 4) array
        MR image, any unit.
    reference : tuple of (X, Y, Z) array and (4, 4) array
        Reference image of the series, HU.
    brain_mask : (X, Y, Z) array of bool
        On the grid of the reference.
    ncct_matrix : (4, 4) array or None
        From points of the CT to points of the reference, mm RAS; None if they are the same.
    register : callable
        ``register(fixed, moving, mask=mask)`` returns a matrix from points of the fixed to points of
        the moving image, or None.
    settings : MethodSettings
        Uses the branches ``followup`` and ``masks``.
    by_density : bool
        Whether the reference is a CT.

    Returns
    -------
    dict
        ``matrix`` from points of the reference to points of the image (None if it failed), ``overlap``,
        ``similarity``, and ``left_out``: why the image is not aligned, '' if it is.
    """
    method = settings.followup
    if not by_density:
        return _failed('there is no CT to which its image can be registered')
    ct, ct_affine = window_image(*fixed, CT_HU, method.followup_mm)
    ct = ct + CT_HU[0]
    try:
        inside = inside_skull(ct, voxel_size_mm(ct_affine), settings.masks.bone_hu)
    except PerfusionError:
        return _failed('no brain was found in the CT to which its image can be registered')
    around = _dilate(inside, ct_affine, AROUND_MM)
    soft = np.where(ct > SOFT_HU[1], SOFT_HU[0], ct)
    target = np.clip(soft, *SOFT_HU) - SOFT_HU[0], ct_affine
    moving = window_image(clip_brightest(image[0]), image[1], (0.0, 1.0), method.followup_mm)
    registered = register(target, moving, mask=around.astype(np.float32))
    if registered is None:
        return _failed('the registration of its image to the CT failed')
    matrix = registered if ncct_matrix is None else registered @ np.linalg.inv(ncct_matrix)
    overlap, similarity = judge_alignment(image, reference, brain_mask, matrix)
    reasons = []
    if overlap < method.followup_least_overlap:
        reasons.append(
            f'overlap of the brain {overlap:.2f}, need {method.followup_least_overlap:g}'
        )
    if similarity < method.followup_least_similarity:
        reasons.append(
            f'mutual information {similarity:.2f} of that after a shift or turn, need '
            f'{method.followup_least_similarity:g}'
        )
    left_out = f'its image is not aligned with the CT ({"; ".join(reasons)})' if reasons else ''
    return {
        'matrix': np.asarray(matrix).tolist(), 'overlap': overlap, 'similarity': similarity,
        'left_out': left_out,
    }  # fmt: skip


def _failed(reason):
    return {'matrix': None, 'overlap': None, 'similarity': None, 'left_out': reason}


def clip_brightest(image):
    """Scale an MR image to 0 to 1, negative values and the brightest 0.5 % of the head clipped.

    Examples
    --------
    >>> clip_brightest(np.array([[[-1.0, 0.0, 5.0, 10.0]]])).max()
    np.float64(1.0)
    """
    image = np.clip(np.nan_to_num(np.asarray(image, float)), 0, None)
    if not image.any():
        return image
    top = np.quantile(image[image > 0], BRIGHTEST)
    return np.clip(image / top, 0, 1)


def judge_alignment(image, reference, brain_mask, matrix):
    """Judge how well an MR image lies on the reference image of a series.

    Parameters
    ----------
    image : tuple of (A, B, C) array and (4, 4) array
    reference : tuple of (X, Y, Z) array and (4, 4) array
        HU.
    brain_mask : (X, Y, Z) array of bool
    matrix : (4, 4) array
        From points of the reference to points of the image, mm RAS.

    Returns
    -------
    overlap : float
        Dice coefficient of the brain mask and the foreground of the image around it.
    similarity : float
        Normalized mutual information (less 1) in and around the brain, relative to the greatest of
        the same after shifts along and turns about the axes of the grid, at most 1.
    """
    voxels, affine = reference
    on_grid = _resample(clip_brightest(image[0]), image[1], matrix, voxels.shape, affine)
    around = _dilate(brain_mask, affine, AROUND_MM)
    foreground = largest(on_grid > _dark_limit(on_grid[around]))
    foreground = ndimage.binary_fill_holes(foreground, np.ones((3, 3, 1))) & around
    both = np.count_nonzero(foreground & brain_mask)
    total = np.count_nonzero(foreground) + np.count_nonzero(brain_mask)
    overlap = 2 * both / total if total else 0.0
    density = np.clip(voxels, *SOFT_HU)
    at_rest = _mutual_information(density, on_grid, around)
    moved = [
        _mutual_information(density, move(on_grid, affine, axis, sign * size), around)
        for axis in range(3)
        for move, sizes in ((_shift, SHIFTS_MM), (_turn, TURNS_DEG))
        for size in sizes
        for sign in (-1, 1)
    ]
    best = max(at_rest, *moved)
    return round(float(overlap), 4), round(float(at_rest / best) if best > 0 else 0.0, 4)


def _dark_limit(values):
    """Return the value that separates air and bone from brain: a quarter of the bright median."""
    bright = values[values > 0]
    return np.median(bright) / 4 if bright.size else np.inf


def _mutual_information(first, second, mask):
    """Return the normalized mutual information of two images in a mask, less 1."""
    joint, _, _ = np.histogram2d(first[mask], second[mask], bins=HISTOGRAM_BINS)
    joint = joint / joint.sum()

    def entropy(shares):
        shares = shares[shares > 0]
        return -(shares * np.log(shares)).sum()

    together = entropy(joint.ravel())
    return (entropy(joint.sum(0)) + entropy(joint.sum(1))) / together - 1 if together else 0.0


def _shift(image, affine, axis, distance_mm):
    """Shift an image along an axis of the grid by the nearest number of voxels, at least one."""
    size = voxel_size_mm(affine)[axis]
    steps = int(np.sign(distance_mm) * max(1, round(abs(distance_mm) / size)))
    return ndimage.shift(image, [steps * (i == axis) for i in range(3)], order=0)


def _turn(image, affine, axis, angle_deg):
    """Turn an image about the centre of the grid."""
    angle = np.radians(angle_deg)
    first, second = (other for other in range(3) if other != axis)
    turn = np.eye(3)
    turn[first, first] = turn[second, second] = np.cos(angle)
    turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
    linear = affine[:3, :3]
    to_voxel = np.linalg.inv(linear) @ turn @ linear
    centre = (np.array(image.shape) - 1) / 2
    return ndimage.affine_transform(image, to_voxel, centre - to_voxel @ centre, order=1)


def _resample(image, image_affine, matrix, shape, affine):
    to_voxel = np.linalg.inv(image_affine) @ matrix @ affine
    return ndimage.affine_transform(
        image, to_voxel[:3, :3], to_voxel[:3, 3], tuple(shape), order=1
    )


def _dilate(mask, affine, distance_mm):
    """Add what is within a distance of a mask in plane."""
    size = voxel_size_mm(affine)
    outside = [
        ndimage.distance_transform_edt(~mask[..., z], sampling=size[:2])
        if mask[..., z].any()
        else np.full(mask.shape[:2], np.inf)
        for z in range(mask.shape[2])
    ]
    return np.stack(outside, axis=-1) <= distance_mm
