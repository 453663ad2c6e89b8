# SPDX-License-Identifier: Apache-2.0
"""Read the acquisition time of every slice of every frame of a series."""

import re
import statistics
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from ctpprep.exceptions import SeriesError, TimingError, UsageError
from ctpprep.io.files import read_text
from ctpprep.io.headers import read_header
from ctpprep.settings import RunSettings

INTERVAL_RANGE = (0.1, 10.0)  # s; protocols acquire a frame every 0.5 to 4 s
UNITS = ('hu', 'hounsfield', 'hounsfield unit', 'hounsfield units')
# fields that decide how a series is read, which a misspelling would hide
FIELDS = (
    'RepetitionTime', 'VolumeTiming', 'FrameTimesStart', 'SliceTiming', 'SliceAcquisitionTimes',
    'SliceEncodingDirection',
)  # fmt: skip
# the header gives no more than a default, as nibabel and SPM write it
DEFAULT_INTERVAL = 1.0  # s
# two sources agree within this fraction of the interval
SAME_INTERVAL = 0.05
# a series that begins later is on a clock, such as seconds of the day, and not relative to anything
LATEST_START = 1000.0  # s
# largest time, also on a clock that starts in 1970
MAX_TIME = 1e11  # s


def read_series_timing(
    path: Path,
    sidecar: dict[str, Any],
    command_times: tuple[str, Any] | None,
    affine_from: str = 'agree',
) -> tuple[tuple[float, ...], tuple[tuple[float, ...], ...], str]:
    """Check the header of a 4D series and read its acquisition times.

    Parameters
    ----------
    path : Path
    sidecar : dict
    command_times : tuple, optional
        As for `read_timing`.
    affine_from : str
        As for `read_header`.

    Returns
    -------
    frame_times, sample_times, source : tuple, tuple of tuple, str
        As from `read_timing`, but slices run from inferior to superior.

    Raises
    ------
    SeriesError
        When the header, the units or the times cannot be used.
    """
    shape, affine, header_interval = read_header(path, affine_from)
    _refuse_misspelled(sidecar)
    _check_modality(sidecar)
    units = sidecar.get('Units')
    if units is not None and str(units).strip().casefold() not in UNITS:
        raise SeriesError(f'Units is "{units}" in the sidecar, need Hounsfield units ("HU")')
    frame_times, sample_times, source = read_timing(
        sidecar, shape[3], shape[2], header_interval, command_times
    )
    if affine[2][2] < 0:  # the third voxel axis points to inferior
        sample_times = sample_times[::-1]
    return frame_times, sample_times, source


def _refuse_misspelled(sidecar: dict[str, Any]) -> None:
    """Raise `SeriesError` if a field would be read but for capitals, blanks or separators."""
    plain = {field.casefold(): field for field in FIELDS}
    for name, value in sidecar.items():
        field = plain.get(re.sub(r'[\s_-]', '', name).casefold())
        if field is not None and field not in sidecar and value is not None:
            raise SeriesError(f'the sidecar contains "{name}", need the name "{field}"')


def _check_modality(sidecar: dict[str, Any]) -> None:
    """Raise `SeriesError` if the sidecar is that of another modality."""
    modality = sidecar.get('Modality')
    if modality is not None and str(modality).strip().upper() != 'CT':
        raise SeriesError(f'Modality is "{modality}" in the sidecar, need "CT"')
    if sidecar.get('MagneticFieldStrength') not in (None, 0):
        raise SeriesError(
            'the sidecar contains MagneticFieldStrength, as of MR, need a CT perfusion series'
        )


def read_command_times(run: RunSettings) -> tuple[str, Any] | None:
    """Read the times from the command line, and check what applies to every series.

    Parameters
    ----------
    run : RunSettings

    Returns
    -------
    tuple or None
        Name of the option, and an interval or a list of times in s.

    Raises
    ------
    UsageError
        When the file cannot be read or the interval is implausible.
    """
    if run.frame_times is not None:
        text = read_text(Path(run.frame_times), UsageError, f'--frame-times {run.frame_times}')
        try:
            return '--frame-times', [float(word) for word in re.split(r'[\s,;]+', text.strip())]
        except ValueError as error:
            raise UsageError(
                f'--frame-times {run.frame_times} cannot be read ({error}); the file must contain '
                'the time of each frame in s, separated by spaces, commas or line breaks'
            ) from error
    if run.frame_interval is None:
        return None
    low, high = INTERVAL_RANGE
    if not low <= run.frame_interval <= high:
        raise UsageError(
            f'--frame-interval must be between {low:g} and {high:g} s, got {run.frame_interval:g}'
            + _hint_ms(run.frame_interval)
        )
    return '--frame-interval', run.frame_interval


def read_timing(
    sidecar: dict[str, Any],
    n_frames: int,
    n_slices: int,
    header_interval: float | None = None,
    command_times: tuple[str, Any] | None = None,
) -> tuple[tuple[float, ...], tuple[tuple[float, ...], ...], str]:
    """Find the acquisition time of every slice of every frame.

    The first available source is used: the command line, SliceAcquisitionTimes, VolumeTiming,
    FrameTimesStart, RepetitionTime, pixdim[4]. SliceTiming is added to each of them, except to
    SliceAcquisitionTimes, which includes it.

    Parameters
    ----------
    sidecar : dict
        Metadata of the series.
    n_frames, n_slices : int
        Size of the series, which the times must match.
    header_interval : float, optional
        pixdim[4] in s.
    command_times : tuple, optional
        Name of the option and its value: an interval or a list of times in s.

    Returns
    -------
    frame_times : tuple of float
        (T,) s.
    sample_times : tuple of tuple of float
        (Z, T) s, one row per slice, in the order of the file.
    source : str
        Where the times come from.

    Raises
    ------
    TimingError
        When there are no times or they are implausible.

    Examples
    --------
    >>> frames, samples, source = read_timing(
    ...     {'RepetitionTime': 2.0, 'SliceTiming': [0.0, 1.0]}, n_frames=10, n_slices=2)
    >>> samples[1][:3], source
    ((1.0, 3.0, 5.0), 'RepetitionTime + SliceTiming')
    """
    sidecar = {field: value for field, value in sidecar.items() if value is not None}
    if command_times is None and 'SliceAcquisitionTimes' in sidecar:
        samples = _slice_acquisition_times(sidecar, n_frames, n_slices)
        frames = tuple(min(column) for column in zip(*samples, strict=True))
        _check_frame_times(frames, 'SliceAcquisitionTimes')
        start = _clock_start(frames, 'SliceAcquisitionTimes')
        samples = tuple(tuple(round(t - start, 9) for t in times) for times in samples)
        frames = tuple(round(t - start, 9) for t in frames)
        _refuse_contradictions(frames, 'SliceAcquisitionTimes', sidecar, header_interval)
        return frames, samples, 'SliceAcquisitionTimes'
    field, value = _frame_source(sidecar, header_interval, command_times)
    if field in ('RepetitionTime', '--frame-interval', 'pixdim[4]'):
        interval = _numbers([value], 1, field, 'one number')[0]
        _check_interval(interval, interval, field)
        frames = tuple(round(frame * interval, 9) for frame in range(n_frames))
    else:
        frames = _numbers(value, n_frames, field, f'one time for each of the {n_frames} frames')
    _check_frame_times(frames, field)
    start = _clock_start(frames, field)
    frames = tuple(round(t - start, 9) for t in frames)
    if not field.startswith('--'):
        _refuse_contradictions(frames, field, sidecar, header_interval)
    if 'SliceTiming' not in sidecar:
        return frames, (frames,) * n_slices, field
    offsets = _slice_timing(sidecar, n_slices, frames)
    samples = tuple(tuple(round(t + offset, 9) for t in frames) for offset in offsets)
    return frames, samples, f'{field} + SliceTiming'


def _frame_source(
    sidecar: dict[str, Any], header_interval: float | None, command_times: tuple[str, Any] | None
) -> tuple[str, Any]:
    """Choose the source of the frame times."""
    if command_times is not None:
        return command_times
    if 'VolumeTiming' in sidecar and 'RepetitionTime' in sidecar:
        raise TimingError(
            'the sidecar, with what it inherits, contains both VolumeTiming and RepetitionTime, which '
            'BIDS does not allow; keep VolumeTiming if the frame intervals vary, RepetitionTime if '
            'they are constant'
        )
    # dcm2niix writes the mean of varying intervals as RepetitionTime, so FrameTimesStart precedes it
    for field in ('VolumeTiming', 'FrameTimesStart', 'RepetitionTime'):
        if field in sidecar:
            return field, sidecar[field]
    if header_interval == DEFAULT_INTERVAL:
        raise TimingError(
            'no acquisition times in the sidecar, and pixdim[4] of the NIfTI header is 1 s, a default of '
            'many programs; add RepetitionTime, or confirm it with --frame-interval 1'
        )
    if header_interval is not None:
        return 'pixdim[4]', header_interval
    raise TimingError(
        'no acquisition times, neither in the sidecar nor in the NIfTI header; add '
        'RepetitionTime, VolumeTiming or FrameTimesStart to the sidecar, or use '
        '--frame-interval SECONDS'
    )


def _numbers(value: Any, length: int, field: str, needed: str) -> tuple[float, ...]:
    """Check that a value is a list of finite numbers of the needed length."""
    if not isinstance(value, list | tuple) or len(value) != length:
        actual = f'{len(value)} values' if isinstance(value, list | tuple) else repr(value)
        raise TimingError(f'{field} has {actual}, need {needed}, in s')
    for number in value:
        is_number = isinstance(number, int | float) and not isinstance(number, bool)
        if not is_number or not abs(number) <= MAX_TIME:
            shown = (
                repr(number) if len(str(number)) < 30 else f'a number of {len(str(number))} digits'
            )
            raise TimingError(f'{field} contains {shown}, need numbers in s')
    return tuple(float(number) for number in value)


def _check_frame_times(times: Sequence[float], field: str) -> None:
    """Raise `TimingError` if times do not increase or their intervals are implausible."""
    intervals = [late - early for early, late in pairwise(times)]
    if min(intervals) <= 0:
        frame = next(i for i, interval in enumerate(intervals) if interval <= 0)
        raise TimingError(
            f'{field} must increase from frame to frame, but frame {frame + 1} is at '
            f'{times[frame]:g} s and frame {frame + 2} at {times[frame + 1]:g} s'
        )
    _check_interval(min(intervals), sorted(intervals)[len(intervals) // 2], field)


def _clock_start(times: Sequence[float], field: str) -> float:
    """Return the start of a series on a clock, s, which is subtracted; 0 for relative times."""
    if abs(times[0]) < LATEST_START:
        return 0.0
    seconds = [3600 * (t // 10000) + 60 * (t % 10000 // 100) + t % 100 for t in times]
    written, actual = (
        max(late - early for early, late in pairwise(values)) for values in (times, seconds)
    )
    if all(t % 10000 < 6000 and t % 100 < 60 for t in times) and 0 < actual <= written - 40:
        raise TimingError(
            f'{field} jumps by {written:g} s, as times of day written hhmmss do at a full minute; '
            'write seconds'
        )
    return times[0]


def _refuse_contradictions(
    times: Sequence[float], field: str, sidecar: dict[str, Any], header_interval: float | None
) -> None:
    """Raise `TimingError` if any other source of the sidecar or the header gives other times."""
    _refuse_contradiction(times, field, 'pixdim[4] of the header', header_interval)
    if field != 'RepetitionTime' and 'RepetitionTime' in sidecar:
        (interval,) = _numbers([sidecar['RepetitionTime']], 1, 'RepetitionTime', 'one number')
        _refuse_contradiction(times, field, 'RepetitionTime', interval)
    for other in ('VolumeTiming', 'FrameTimesStart'):
        if other != field and other in sidecar:
            needed = f'one time for each of the {len(times)} frames'
            listed = _numbers(sidecar[other], len(times), other, needed)
            apart = [one - two for one, two in zip(times, listed, strict=True)]
            # a frame may be dated by any of its slices
            usual = statistics.median(late - early for early, late in pairwise(times))
            if max(apart) - min(apart) > usual:
                raise TimingError(
                    f'{field} and {other} differ by up to {max(apart) - min(apart):.3g} s from the '
                    'first frame to the last; correct one of them, or choose with --frame-interval '
                    'SECONDS or --frame-times FILE'
                )


def _refuse_contradiction(
    times: Sequence[float], field: str, other: str, interval: float | None
) -> None:
    """Raise `TimingError` if another source gives another interval; a default is ignored."""
    low, high = INTERVAL_RANGE
    if interval is None or interval == DEFAULT_INTERVAL or not low <= interval <= high:
        return
    intervals = [late - early for early, late in pairwise(times)]
    least, most = min(intervals) * (1 - SAME_INTERVAL), max(intervals) * (1 + SAME_INTERVAL)
    if not least <= interval <= most:
        median = sorted(intervals)[len(intervals) // 2]
        raise TimingError(
            f'{field} gives a frame interval of {median:g} s, but {other} {interval:g} s; correct '
            'one of them, or choose with --frame-interval SECONDS or --frame-times FILE'
        )


def _check_interval(shortest: float, median: float, field: str) -> None:
    """Raise `TimingError` if no protocol has such frame intervals."""
    low, high = INTERVAL_RANGE
    if shortest < low - 1e-6 or median > high:
        interval = median if median > high else shortest
        raise TimingError(
            f'{field} gives a frame interval of {interval:g} s, must be {low:g} to {high:g} s'
            + _hint_ms(interval)
        )


def _hint_ms(interval: float) -> str:
    return f'; write {interval:g} ms as {interval / 1000:g}' if interval >= 100 else ''


def _slice_timing(
    sidecar: dict[str, Any], n_slices: int, frames: Sequence[float]
) -> tuple[float, ...]:
    """Return SliceTiming in the order of the file's slices."""
    needed = f'one time for each of the {n_slices} slices'
    offsets = _numbers(sidecar['SliceTiming'], n_slices, 'SliceTiming', needed)
    if min(offsets) < 0:
        raise TimingError(
            f'SliceTiming contains {min(offsets):g} s; times from the start of the frame cannot be '
            'negative'
        )
    interval = min(late - early for early, late in pairwise(frames))
    if max(offsets) > interval + 1e-6:
        raise TimingError(
            f'SliceTiming contains {max(offsets):g} s, must be at most the frame interval '
            f'({interval:g} s)' + _hint_ms(max(offsets))
        )
    return offsets[::-1] if _reversed_slices(sidecar) else offsets


def _slice_acquisition_times(
    sidecar: dict[str, Any], n_frames: int, n_slices: int
) -> tuple[tuple[float, ...], ...]:
    """Return SliceAcquisitionTimes (frames x slices) as slices x frames."""
    field = 'SliceAcquisitionTimes'
    value = sidecar[field]
    if not isinstance(value, list) or len(value) != n_frames:
        actual = f'{len(value)} rows' if isinstance(value, list) else repr(value)
        raise TimingError(f'{field} has {actual}, need one row for each of the {n_frames} frames')
    needed = f'rows with one time for each of the {n_slices} slices'
    rows = [_numbers(row, n_slices, field, needed) for row in value]
    slices = tuple(zip(*rows, strict=True))
    for times in slices:
        _check_frame_times(times, field)
    for frame, row in enumerate(rows):
        # a slice is not acquired again before the frame is complete
        after = rows[frame + 1] if frame + 1 < n_frames else rows[frame - 1]
        interval = max(abs(one - two) for one, two in zip(row, after, strict=True))
        if max(row) - min(row) > interval + 1e-6:
            raise TimingError(
                f'{field} gives slices of frame {frame + 1} that are {max(row) - min(row):g} s apart, '
                f'must be at most the frame interval ({interval:g} s)'
            )
    return slices[::-1] if _reversed_slices(sidecar) else slices


def _reversed_slices(sidecar: dict[str, Any]) -> bool:
    """Return whether slice times are listed from the last slice of the file to the first."""
    direction = sidecar.get('SliceEncodingDirection', 'k')
    if direction not in ('k', 'k-'):
        raise TimingError(
            f'SliceEncodingDirection is {direction!r}, need "k" or "k-" (third voxel axis)'
        )
    return direction == 'k-'
