# SPDX-License-Identifier: Apache-2.0
"""Stack the slices of a series: order, distance, and shifts in plane for a tilted gantry."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ctpprep.exceptions import SeriesError
from ctpprep.io.headers import MAX_TILT_DEG
from ctpprep.io.shear import MAX_SHEAR_DEG

# slices that are closer along the normal are one position
SAME_POSITION_MM = 0.25
# distances of slices may differ by this fraction, and by rounding, mm
UNEVEN, ROUNDING_MM = 0.02, 0.06
TO_RAS = np.array([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class Stack:
    """The straight matrix of a series, from feet to head.

    Attributes
    ----------
    shape : (int, int, int)
        Columns, rows and slices.
    affine : (4, 4) array
        mm RAS.
    offsets : (Z, 2) array of int
        Column and row of the first pixel of each slice.
    tilt_deg : float
        Angle between the stack and the normal of its slices; 0 if nothing was shifted.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    offsets: np.ndarray
    tilt_deg: float


def normal_of(orientation: Sequence[float]) -> np.ndarray:
    """Return the normal of a slice, towards the head, LPS."""
    along_row, along_column = np.reshape(orientation, (2, 3))
    normal = np.cross(along_row, along_column)
    normal = normal / np.linalg.norm(normal)
    return normal if normal[2] >= 0 else -normal


def is_axial(orientation: Sequence[float]) -> bool:
    """Return whether slices are at most 40 degrees from the axial plane."""
    return float(normal_of(orientation)[2]) >= math.cos(math.radians(MAX_TILT_DEG))


def group_positions(images: Sequence[Any]) -> list[list[Any]]:
    """Group images by their position along the normal, from feet to head.

    Parameters
    ----------
    images : sequence of Image
        Of one orientation.

    Returns
    -------
    list of list of Image
    """
    normal = normal_of(images[0].orientation)
    heights = np.array([image.position for image in images]) @ normal
    groups: list[list[Any]] = []
    last = -math.inf
    for i in np.argsort(heights, kind='stable'):
        if heights[i] - last > SAME_POSITION_MM:
            groups.append([])
        groups[-1].append(images[i])
        last = heights[i]
    return groups


def stack_slices(by_position: Sequence[Sequence[Any]], thickness: float | None) -> Stack:
    """Find the straight matrix that contains all slices.

    Parameters
    ----------
    by_position : sequence of sequence of Image
        From `group_positions`.
    thickness : float or None
        Of a slice, mm: the distance, if there is a single slice.

    Returns
    -------
    Stack

    Raises
    ------
    SeriesError
        When slices are not equally far apart, or not at the same place in all frames.
    """
    first = by_position[0][0]
    along_row, along_column = np.reshape(first.orientation, (2, 3))
    normal = normal_of(first.orientation)
    between_rows, between_columns = first.spacing
    positions = np.array([images[0].position for images in by_position])
    _check_table(by_position, min(first.spacing))
    heights = positions @ normal
    distance = _slice_distance(heights, thickness)
    in_plane = np.stack([along_row * between_columns, along_column * between_rows], axis=1)
    across = positions - positions[0] - np.outer(heights - heights[0], normal)
    shifts = across @ np.linalg.pinv(in_plane).T
    rise = heights[-1] - heights[0]
    tilt = math.degrees(math.atan2(float(np.linalg.norm(across[-1])), rise)) if rise else 0.0
    moved = np.abs(shifts).max() > 0.5 if tilt <= MAX_SHEAR_DEG else True
    whole = np.round(shifts).astype(int) if moved else np.zeros_like(shifts, dtype=int)
    lowest = whole.min(axis=0)
    growth = np.ptp(whole, axis=0)
    affine = np.eye(4)
    affine[:3, :2] = in_plane
    affine[:3, 2] = normal * distance
    affine[:3, 3] = positions[0] + in_plane @ lowest
    affine[:3] *= TO_RAS[:, None]
    rows, columns = first.shape
    return Stack(
        (columns + int(growth[0]), rows + int(growth[1]), len(positions)),
        affine,
        whole - lowest,
        tilt if moved else 0.0,
    )


def _slice_distance(heights: np.ndarray, thickness: float | None) -> float:
    """Return the distance of slices; refuse uneven ones."""
    if len(heights) == 1:
        if not thickness:
            raise SeriesError('a single slice without SliceThickness')
        return thickness
    steps = np.diff(heights)
    distance = float(np.sort(steps)[(len(steps) - 1) // 2])
    wrong = np.abs(steps - distance) > max(UNEVEN * distance, ROUNDING_MM)
    if wrong.any():
        z = int(np.argmax(wrong))
        raise SeriesError(
            f'slices {z + 1} and {z + 2} of {len(heights)} are {steps[z]:.4g} mm apart, the others '
            f'{distance:.4g} mm; ctpprep needs equal distances: a slice is missing, or export a '
            'reconstruction with equal distances'
        )
    return float((heights[-1] - heights[0]) / (len(heights) - 1))


def _check_table(by_position: Sequence[Sequence[Any]], pixel: float) -> None:
    """Refuse slices that are elsewhere in plane in some frames."""
    for z, images in enumerate(by_position):
        moved = np.ptp([image.position for image in images], axis=0).max()
        if moved > max(pixel, 2 * SAME_POSITION_MM):
            raise SeriesError(
                f'slice {z + 1} of {len(by_position)} is up to {moved:.3g} mm apart in different frames; '
                'export a reconstruction with one field of view'
            )
