# SPDX-License-Identifier: Apache-2.0
"""Find the acquisition time of every image in its header.

Vendors write it in different tags, and the same tag means the start of the series for one and the
rotation of the image for another. So a rule is used only if it separates all images of each
position and their times span a plausible scan.
"""

import re
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from typing import Any

from ctpprep.exceptions import TimingError

# in the order of trust
RULES = (
    'FrameReferenceDateTime', 'FrameAcquisitionDateTime', 'AcquisitionTime', 'MidScanTime',
    'ContentTime',
)  # fmt: skip
# these state an order, but no time
ORDERS = ('TemporalPositionIndex', 'TemporalPositionIdentifier', 'InstanceNumber')
SPAN_S = (10.0, 300.0)
DAY_S = 86400.0
# fraction of distinct times from which equal ones are single images that exist twice
MOSTLY_DISTINCT = 0.8
# an interval that is longer than both neighbours by this factor may contain a lost frame
GAP = 1.7
SAME_S = 1e-4


@dataclass(frozen=True)
class Clock:
    """How the images of a series are timed.

    Attributes
    ----------
    rule : str
        Tag of the times or, without times, of the order.
    interval : float or None
        Interval that the user states for a series with an order alone, s.
    notes : tuple of str
    """

    rule: str
    interval: float | None = None
    notes: tuple[str, ...] = ()


def read_times(
    dataset: Any, frame_times: dict[str, Any], ge_start: Any = None, ge_mid_scan: Any = None
) -> dict[str, float]:
    """Read the times of an image by all rules.

    Parameters
    ----------
    dataset : pydicom.Dataset
    frame_times : dict
        Date and time of a frame of an Enhanced object by keyword.
    ge_start, ge_mid_scan : pydicom.DataElement, optional
        (0023,1070) and (0019,1024), perhaps of the VR UN.

    Returns
    -------
    dict of str to float
        s on a clock that does not end at midnight if there is a date.
    """
    times = {name: parse_datetime(value) for name, value in frame_times.items()}
    acquired = parse_time(dataset.get('AcquisitionDate'), dataset.get('AcquisitionTime'))
    times['AcquisitionTime'] = (
        acquired if acquired is not None else parse_datetime(dataset.get('AcquisitionDateTime'))
    )
    start, middle = parse_double(ge_start), parse_double(ge_mid_scan)
    if start is not None and middle is not None:
        times['MidScanTime'] = start + middle
    times['ContentTime'] = parse_time(dataset.get('ContentDate'), dataset.get('ContentTime'))
    return {name: value for name, value in times.items() if value is not None}


def parse_time(day: Any, time: Any) -> float | None:
    """Convert DA and TM to seconds.

    Examples
    --------
    >>> parse_time('20240301', '000001.5') - parse_time('20240229', '235959')
    2.5
    >>> parse_time(None, '10:00'), parse_time(None, 'noon')
    (36000.0, None)
    """
    match = re.fullmatch(r'(\d\d):?(\d\d)?:?(\d\d(?:\.\d*)?)?', str(time or '').strip())
    if match is None:
        return None
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    days = 0
    digits = re.sub(r'\D', '', str(day or ''))
    if len(digits) == 8:
        try:
            days = date(int(digits[:4]), int(digits[4:6]), int(digits[6:])).toordinal()
        except ValueError:
            days = 0
    return DAY_S * days + 3600 * hours + 60 * minutes + seconds


def parse_datetime(value: Any) -> float | None:
    """Convert DT to seconds; the offset from UTC is that of all images and is left out.

    Examples
    --------
    >>> parse_datetime('20240301000001.25+0100') == parse_time('20240301', '000001.25')
    True
    """
    match = re.fullmatch(r'(\d{8})(\d{2,6}(?:\.\d*)?)(?:[+-]\d{4})?', str(value or '').strip())
    return parse_time(match[1], match[2]) if match else None


def parse_double(element: Any) -> float | None:
    """Convert a private number, also if its VR is unknown and its bytes are those of a double."""
    value = getattr(element, 'value', element)
    if isinstance(value, bytes):
        if len(value) == 8:
            return float(struct.unpack('<d', value)[0])
        value = value.decode('ascii', 'replace').strip(' \0')
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def parse_integer(value: Any) -> int:
    """Convert a private integer, also if its VR is unknown.

    Examples
    --------
    >>> parse_integer(36), parse_integer(bytes([36, 0])), parse_integer(b'36')
    (36, 36, 36)
    """
    if isinstance(value, bytes):
        text = value.strip(b' \0')
        return int(text) if text.isdigit() and len(text) > 1 else int.from_bytes(value, 'little')
    return int(value)


def unwrap_midnight(times: Sequence[float]) -> list[float]:
    """Add a day to the times after midnight, if the dates do not.

    Examples
    --------
    >>> unwrap_midnight([86399.0, 0.5, 2.0])
    [86399.0, 86400.5, 86402.0]
    """
    low, high = min(times), max(times)
    if not DAY_S / 2 < high - low < DAY_S:
        return list(times)
    return [time + DAY_S if time - low < DAY_S / 2 else time for time in times]


def choose_clock(
    by_position: Sequence[Sequence[Any]], interval: float | None, same_pixels: Any
) -> tuple[Clock, list[list[tuple[float, Any]]]]:
    """Choose the first rule that gives all images of each position their own time.

    Parameters
    ----------
    by_position : sequence of sequence of Image
        Images of each slice position.
    interval : float or None
        Frame interval for series without times, s.
    same_pixels : callable
        Whether two images have the same pixels; of images that exist twice, one is kept.

    Returns
    -------
    clock : Clock
    timed : list of list of (float, Image)
        Of each position, sorted; s, or the number of the frame if there is an order alone.

    Raises
    ------
    TimingError
        With what each rule lacks.
    """
    reasons = []
    n_frames = max(len(images) for images in by_position)
    low, high = SPAN_S
    for rule in (*RULES, *ORDERS):
        if any(rule not in _values(image) for images in by_position for image in images):
            continue
        numbers = [_values(image)[rule] for images in by_position for image in images]
        unwrapped = iter(unwrap_midnight(numbers) if rule in RULES else numbers)
        timed = [
            sorted(((next(unwrapped), image) for image in images), key=lambda pair: pair[0])
            for images in by_position
        ]
        timed, n_copies, reason = _drop_copies(timed, same_pixels)
        notes = [f'{n_copies} images that exist twice were dropped'] if n_copies else []
        if reason:
            reasons.append(f'{rule} {reason}')
            continue
        if rule in RULES:
            span = max(pairs[-1][0] - pairs[0][0] for pairs in timed)
            if low <= span <= high or n_frames == 1:
                return Clock(rule, None, tuple(notes)), timed
            reasons.append(f'{rule} spans {span:.4g} s')
        elif interval is not None:
            counted = [[(float(i), pair[1]) for i, pair in enumerate(pairs)] for pairs in timed]
            notes.append(
                f'frames are ordered by {rule}, {interval:g} s apart as stated by the user'
            )
            return Clock(rule, interval, tuple(notes)), counted
        else:
            reasons.append(f'{rule} gives an order only')
    shown = '; '.join(reasons) or 'no time and no order in the header'
    raise TimingError(
        f'no times that distinguish all images of a position and span {low:g} to {high:g} s ({shown}); '
        'state the interval with --frame-interval SECONDS'
    )


def _values(image: Any) -> dict[str, float]:
    return image.times | image.order


def _drop_copies(timed, same_pixels):
    """Drop images that exist twice; explain why the others of equal time are not separated."""
    n_copies, kept_of_all = 0, []
    for z, pairs in enumerate(timed):
        kept: list[Any] = []
        counts = Counter(round(time, 4) for time, _ in pairs)
        if len(counts) < MOSTLY_DISTINCT * len(pairs):
            return timed, 0, f'is equal for {max(counts.values())} of {len(pairs)} images'
        for time, image in pairs:
            if kept and time - kept[-1][0] < SAME_S:
                if not same_pixels(kept[-1][1], image):
                    return timed, 0, (
                        f'is equal for two different images of slice {z + 1} of {len(timed)}'
                    )  # fmt: skip
                n_copies += 1
            else:
                kept.append((time, image))
        kept_of_all.append(kept)
    return kept_of_all, n_copies, ''


def find_gaps(times: Sequence[float]) -> list[str]:
    """Name intervals in which a frame may have been lost.

    Parameters
    ----------
    times : sequence of float
        Of the frames, s.

    Returns
    -------
    list of str

    Examples
    --------
    >>> find_gaps([0.0, 1.5, 3.0, 6.0, 7.5])
    ['3 s between frames 3 and 4, but 1.5 s around them: a frame may be missing']
    """
    intervals = [late - early for early, late in pairwise(times)]
    gaps = []
    for i, interval in enumerate(intervals):
        around = max(intervals[max(i - 1, 0) : i] + intervals[i + 1 : i + 2], default=interval)
        if interval > GAP * around and 0 < i < len(intervals) - 1:
            gaps.append(
                f'{interval:.3g} s between frames {i + 1} and {i + 2}, but {around:.3g} s around them: '
                'a frame may be missing'
            )
    return gaps
