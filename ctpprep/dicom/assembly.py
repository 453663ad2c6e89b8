# SPDX-License-Identifier: Apache-2.0
"""Frames x slices of a perfusion series, and what is missing or exists twice."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from ctpprep.dicom.geometry import Stack, group_positions, stack_slices
from ctpprep.dicom.timing import choose_clock, find_gaps
from ctpprep.exceptions import SeriesError
from ctpprep.io.headers import MIN_FRAMES

# slices with different times within a frame, s
SAME_TIME_S = 0.0005
# a position with more missing frames than this is not aligned by trying which ones
MOST_MISSING = 3


@dataclass(frozen=True)
class Assembly:
    """A series of frames x slices.

    Attributes
    ----------
    images : list of list of Image
        One list per frame; slices from feet to head.
    times : (T, Z) array
        s since the first image; None for a single frame.
    rule : str
        Tag of the times.
    stack : Stack
    notes : list of str
        What was dropped or shifted, one clause each.
    """

    images: list[list[Any]]
    times: np.ndarray | None
    rule: str
    stack: Stack
    notes: list[str]

    @property
    def per_slice(self) -> bool:
        """Whether slices of a frame have different times."""
        return self.times is not None and bool(np.ptp(self.times, axis=1).max() > SAME_TIME_S)

    @property
    def frame_times(self) -> np.ndarray:
        """Start of each frame, s."""
        assert self.times is not None
        return self.times.min(axis=1)


def assemble_series(
    images: Sequence[Any], thickness: float | None, interval: float | None, same_pixels: Any
) -> Assembly:
    """Order the images of a perfusion series by time and position.

    Parameters
    ----------
    images : sequence of Image
    thickness : float or None
        mm.
    interval : float or None
        For series whose headers contain an order but no times, s.
    same_pixels : callable
        As for `choose_clock`.

    Returns
    -------
    Assembly

    Raises
    ------
    SeriesError
        When there are no times, slices are missing or not equally far apart, or frames too few.
    """
    by_position = group_positions(images)
    clock, timed = choose_clock(by_position, interval, same_pixels)
    notes = list(clock.notes)
    frames, times = _fill_frames(timed)
    frames, times = _drop_incomplete(frames, times, notes)
    if len(frames) < MIN_FRAMES:
        raise SeriesError(
            f'the series has {len(frames)} complete frames, need at least {MIN_FRAMES}'
        )
    stack = stack_slices([list(column) for column in zip(*frames, strict=True)], thickness)
    _note_tilt(stack, notes)
    if clock.interval is not None:
        times = times * clock.interval
    times = np.round(times - times.min(), 6)
    notes += find_gaps(times.min(axis=1).tolist())
    return Assembly(frames, times, clock.rule, stack, notes)


def assemble_volume(images: Sequence[Any], thickness: float | None) -> Assembly:
    """Order the images of a single volume, such as a non-contrast CT.

    Raises
    ------
    SeriesError
        When a position has several images, or slices are not equally far apart.
    """
    by_position = group_positions(images)
    if max(map(len, by_position)) > 1:
        raise SeriesError('some slices exist more than once')
    stack = stack_slices(by_position, thickness)
    notes: list[str] = []
    _note_tilt(stack, notes)
    return Assembly([[images[0] for images in by_position]], None, '', stack, notes)


def _note_tilt(stack: Stack, notes: list[str]) -> None:
    if stack.tilt_deg:
        notes.append(
            f'slices were shifted in plane by whole pixels (tilt of {stack.tilt_deg:.1f} degrees) and '
            'surrounded by air'
        )


def _fill_frames(timed: list[list[tuple[float, Any]]]) -> tuple[list[list[Any]], np.ndarray]:
    """Assign the images of each position to frames; None and NaN where there is none."""
    n_frames, n_slices = max(map(len, timed)), len(timed)
    frames: list[list[Any]] = [[None] * n_slices for _ in range(n_frames)]
    times = np.full((n_frames, n_slices), np.nan)
    complete = [z for z, pairs in enumerate(timed) if len(pairs) == n_frames]
    for z, pairs in enumerate(timed):
        reference = timed[min((abs(other - z), other) for other in complete)[1]]
        for frame, (time, image) in zip(
            _align([t for t, _ in pairs], [t for t, _ in reference]), pairs, strict=True
        ):
            frames[frame][z], times[frame, z] = image, time
    return frames, times


def _align(times: list[float], reference: list[float]) -> list[int]:
    """Find the frames of a position that has fewer images than its neighbour.

    The frames are those whose times differ from the neighbour's most evenly; of equal ones the first.

    Examples
    --------
    >>> _align([0.1, 2.1, 3.1], [0.0, 1.0, 2.0, 3.0])
    [0, 2, 3]
    >>> _align([0.1, 1.1, 2.1], [0.0, 1.0, 2.0, 3.0])
    [0, 1, 2]
    """
    n, total = len(times), len(reference)
    if n == total or total - n > MOST_MISSING:
        return list(range(n))
    expected = np.array(reference)
    candidates = [list(kept) for kept in combinations(range(total), n)]
    spreads = [
        round(float(np.abs(np.diff(np.array(times) - expected[kept])).sum()), 6)
        + round(float(np.abs(np.array(times) - expected[kept]).mean()), 6) * 1e-3
        for kept in candidates
    ]
    return candidates[int(np.argmin(spreads))]


def _drop_incomplete(
    frames: list[list[Any]], times: np.ndarray, notes: list[str]
) -> tuple[list[list[Any]], np.ndarray]:
    """Drop an incomplete first or last frame; refuse other missing images."""
    missing = np.isnan(times)
    n_frames, n_slices = missing.shape
    last, first = n_frames, 0
    if missing[-1].any():
        last -= 1
    if missing[0].any() and last > 1:
        first += 1
    within = np.argwhere(missing[first:last])
    if within.size:
        frame, z = within[0] + [first, 0]
        others = f' and {len(within) - 1} more' if len(within) > 1 else ''
        raise SeriesError(
            f'frame {frame + 1} of {n_frames} has no image of slice {z + 1} of {n_slices}{others}; export '
            'the series again'
        )
    for frame in [0] * first + [n_frames - 1] * (n_frames - last):
        n_present = n_slices - int(missing[frame].sum())
        notes.append(
            f'frame {frame + 1} of {n_frames} has {n_present} of {n_slices} slices and was dropped'
        )
    return frames[first:last], times[first:last]
