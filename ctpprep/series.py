# SPDX-License-Identifier: Apache-2.0
"""One CT perfusion series, found and validated.

`find_series` looks a BIDS dataset through and returns one `CTPSeries` for each series that can be
used and one `FailedSeries`, with the reason, for each that cannot. Only headers and sidecars are
read; nothing here loads voxels.
"""

import dataclasses
import logging
import math
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from ctpprep.dataset import (
    DatasetIndex,
    FailedSeries,
    SuppliedFile,
    bids_uri,
    check_complete,
    check_geometry,
    check_name,
    entities,
    fail,
    finished_participants,
    listed,
    open_nifti,
    read_filters,
    read_sidecar,
    refuse_twins,
    select_participants,
    select_runs,
    select_sessions,
    session_dir,
    workflow_name,
)
from ctpprep.exceptions import SeriesError, TimingError, UsageError
from ctpprep.ready_maps import PATTERNS as MAP_PATTERNS
from ctpprep.ready_maps import ReadyMaps, find_maps, map_images
from ctpprep.settings import RunSettings

logger = logging.getLogger(__name__)

MIN_FRAMES = 10
INTERVAL_RANGE = (0.1, 10.0)  # s; the protocols in use take a frame every 0.5 to 4 s
TIME_UNITS = {'sec': 1.0, 'msec': 1e-3, 'usec': 1e-6}
PATTERNS = '*_ctp.nii.gz, *_acq-ctp_ct.nii.gz'


@dataclass(frozen=True)
class CTPSeries:
    """A CT perfusion series that can be processed.

    Attributes
    ----------
    path : Path
        The 4D NIfTI file.
    prefix : str
        Its name without the suffix, such as 'sub-01_ses-1_run-2'.
    participant, session : str, str or None
        Labels without 'sub-' and 'ses-'.
    out_subdir : str
        Folder of its derivatives, such as 'sub-01/ses-1/ct'.
    uri : str
        BIDS URI, such as 'bids:raw:sub-01/ct/sub-01_ctp.nii.gz'.
    frame_times : tuple of float
        Start of each of the T frames in s, on the clock of the source.
    sample_times : tuple of tuple of float
        (Z, T) acquisition times in s; row 0 is the most inferior slice.
    timing_source : str
        Where the times come from, such as 'RepetitionTime + SliceTiming'.
    sidecar : dict
        Metadata of the series, inherited values included.
    ncct : Path or None
        Non-contrast CT of the same session.
    supplied : dict of str to SuppliedFile
        Files of the user in place of a step, by the name of what the step puts out.
    shape : tuple of int
        (X, Y, Z) of the file; slices are last.
    voxel_size_mm : tuple of float
        Of the file, mm.
    """

    path: Path
    prefix: str
    participant: str
    session: str | None
    out_subdir: str
    uri: str
    frame_times: tuple[float, ...]
    sample_times: tuple[tuple[float, ...], ...]
    timing_source: str
    sidecar: dict[str, Any]
    ncct: Path | None = None
    supplied: dict[str, SuppliedFile] = dataclasses.field(default_factory=dict)
    shape: tuple[int, ...] = ()
    voxel_size_mm: tuple[float, ...] = ()

    @property
    def workflow_name(self) -> str:
        """Name of the series' workflow, such as 'sub_01_ses_1_wf'."""
        return workflow_name(self.prefix)

    @property
    def source(self) -> SuppliedFile:
        """The series that is read: the raw one, or a corrected one that replaces it."""
        return self.supplied.get('ctp_corrected', SuppliedFile(self.path, self.uri))


# what can be processed
Series = CTPSeries | ReadyMaps


def find_series(run: RunSettings) -> list[Series | FailedSeries]:
    """Find and validate the CT perfusion series of a dataset, and maps made elsewhere.

    A session with a series is processed from it. Perfusion maps count where there is no series, or
    where `RunSettings.entry` asks for them.

    Parameters
    ----------
    run : RunSettings
        Where to look, and which participants and sessions are wanted.

    Returns
    -------
    list of CTPSeries, ReadyMaps and FailedSeries
        In the order of their names. A wanted participant without any series counts as failed; with
        `RunSettings.reports_only` each is wanted, since the outputs may outlive the series.

    Raises
    ------
    UsageError
        When the folder, a label or an option is wrong, or when there is no series at all and no
        participant was named.
    """
    outputs = finished_participants(run.output_dir) if run.reports_only else []
    participants = select_participants(run.bids_dir, run.participant_label, outputs)
    command_times = read_command_times(run)
    database = run.bids_database_dir
    if run.dry_run and database is not None and not database.exists():
        database = None  # nothing is written
    index = DatasetIndex(run.bids_dir, participants, database, read_filters(run.bids_filter_file))
    images = _series_images(index) if run.entry != 'maps' else []
    maps = map_images(index) if run.entry != 'series' else []
    named = select_sessions(images + maps, run.session_label)
    chosen = set(select_runs(named, run.run_label))
    images = [path for path in images if path in chosen]
    having_series = {session_dir(path, run.bids_dir) for path in images}
    having_maps = {session_dir(path, run.bids_dir) for path in chosen.difference(images)}
    for home in sorted(having_series & having_maps):
        logger.info(
            '%s has a series and perfusion maps: the series is processed; --entry maps takes the '
            'maps', home.relative_to(run.bids_dir),
        )  # fmt: skip
    found: list[Series | FailedSeries] = []
    for prefix, paths in _by_prefix(images).items():
        try:
            refuse_twins(paths, run.bids_dir)
            found.append(_read_series(prefix, paths[0], index, command_times))
        except SeriesError as error:
            found.append(fail(prefix, paths[0], run.bids_dir, error))
    found += find_maps(index, sorted(having_maps - having_series), beside_series=bool(images))
    if not found and not run.participant_label and not run.reports_only:
        raise UsageError(
            f'no CT perfusion series in {run.bids_dir} for {listed(participants, "sub-")}; '
            f'looked for {PATTERNS} in sub-<label>/[ses-<label>/] and its folders ct and perf, '
            f'and for maps made elsewhere ({MAP_PATTERNS})'
            + ('; --bids-filter-file leaves none' if run.bids_filter_file else '')
        )
    found.sort(key=lambda each: each.prefix)
    having = {each.participant for each in found}
    for label in sorted(set(participants) - having):
        if run.participant_label or run.reports_only:
            found.append(
                FailedSeries(
                    f'sub-{label}',
                    label,
                    None,
                    f'sub-{label} has no CT perfusion series ({PATTERNS}) and no maps '
                    f'({MAP_PATTERNS})'
                    + ('; --bids-filter-file leaves none' if run.bids_filter_file else ''),
                    absent=True,
                )
            )
        else:
            logger.info('sub-%s has no CT perfusion series and is left out', label)
    return found


def _series_images(index: DatasetIndex) -> list[Path]:
    images = index.images(suffix='ctp') + index.images(suffix='ct', acquisition='ctp')
    images = index.select('ctp', images)
    return [path for path in images if not {'space', 'desc'} & entities(path).keys()]


def _by_prefix(images: list[Path]) -> dict[str, list[Path]]:
    """Group images by the prefix their outputs will have; `acq-ctp` only tells the modality."""
    groups = defaultdict(list)
    for path in images:
        prefix = path.name.partition('.')[0].rpartition('_')[0]
        if entities(path)['suffix'] == 'ct':
            prefix = prefix.replace('_acq-ctp', '', 1)
        groups[prefix].append(path)
    return dict(sorted(groups.items()))


def _read_series(
    prefix: str, path: Path, index: DatasetIndex, command_times: tuple[str, Any] | None
) -> CTPSeries:
    """Read and validate one series; the file's name leads every message."""
    home = check_name(prefix, path, index.bids_dir)
    name, labels = path.relative_to(index.bids_dir), entities(path)
    try:
        sidecar = read_sidecar(path, index.sidecars)
        frame_times, sample_times, source = read_times_of(path, sidecar, command_times)
    except SeriesError as error:
        raise type(error)(f'{name}: {error}') from error
    if source == 'pixdim[4]' and frame_times[1] == 1:
        logger.warning(
            '%s: the frame interval of 1 s stands in the NIfTI header only, where 1 may just be a '
            'filler; give --frame-interval if it is another',
            name,
        )
    same_session = index.select('ncct', index.of_session(home, suffix='ncct'))
    same_name = [each for each in same_session if each.name.startswith(f'{prefix}_ncct')]
    image = open_nifti(path)
    return CTPSeries(
        path=path,
        prefix=prefix,
        participant=labels['sub'],
        session=labels.get('ses'),
        out_subdir=(home.relative_to(index.bids_dir) / 'ct').as_posix(),
        uri=bids_uri('raw', name),
        frame_times=frame_times,
        sample_times=sample_times,
        timing_source=source,
        sidecar=sidecar,
        ncct=next(iter(same_name + same_session), None),
        shape=image.shape[:3],
        voxel_size_mm=tuple(math.hypot(*column) for column in image.affine[:3, :3].T.tolist()),
    )


def _check_units(sidecar: dict[str, Any]) -> None:
    units = sidecar.get('Units', 'HU')
    if units not in ('HU', 'hu', 'Hounsfield', 'hounsfield unit'):
        raise SeriesError(f'Units is "{units}"; ctpprep needs Hounsfield units, "HU"')


def read_times_of(
    path: Path, sidecar: dict[str, Any], command_times: tuple[str, Any] | None
) -> tuple[tuple[float, ...], tuple[tuple[float, ...], ...], str]:
    """Check the file of a 4D series and find its times.

    Parameters
    ----------
    path : Path
    sidecar : dict
    command_times : tuple, optional
        As for `read_timing`.

    Returns
    -------
    frame_times, sample_times, source : tuple, tuple of tuple, str
        As of `read_timing`, but slices run from feet to head.
    """
    shape, affine, header_interval = read_header(path)
    _check_units(sidecar)
    frame_times, sample_times, source = read_timing(
        sidecar, shape[3], shape[2], header_interval, command_times
    )
    if affine[2][2] < 0:  # the third voxel axis points to the feet
        sample_times = sample_times[::-1]
    return frame_times, sample_times, source


# -- header


def read_header(path: Path) -> tuple[tuple[int, ...], list[list[float]], float | None]:
    """Read and check the header of a 4D CT series.

    Parameters
    ----------
    path : Path
        NIfTI file.

    Returns
    -------
    shape : tuple of int
        (X, Y, Z, T).
    affine : list of list of float
        4 x 4, in mm.
    frame_interval : float or None
        pixdim[4] in s, if it is positive and has a unit of time.

    Raises
    ------
    SeriesError
        When the file is damaged or its geometry cannot be used.
    """
    image = open_nifti(path)
    if len(image.shape) != 4:
        shape = ' x '.join(map(str, image.shape))
        raise SeriesError(f'{len(image.shape)}D ({shape}); a 4D series (x, y, z, time) is needed')
    if image.shape[3] < MIN_FRAMES:
        raise SeriesError(f'{image.shape[3]} frames; at least {MIN_FRAMES} are needed')
    if image.get_data_dtype().kind not in 'iuf':
        raise SeriesError(f'voxels of type {image.get_data_dtype()}; real numbers are needed')
    check_complete(path, image)
    check_geometry(image)
    zoom, unit = image.header['pixdim'][4], image.header.get_xyzt_units()[1]
    known = zoom > 0 and math.isfinite(zoom) and unit in TIME_UNITS
    interval = round(float(zoom) * TIME_UNITS[unit], 6) if known else None
    return image.shape, image.affine.tolist(), interval


# -- timing


def read_command_times(run: RunSettings) -> tuple[str, Any] | None:
    """Read the times given on the command line, checking what holds for every series."""
    if run.frame_times is not None:
        try:
            text = Path(run.frame_times).read_text(encoding='utf-8')
            return '--frame-times', [float(word) for word in re.split(r'[\s,;]+', text.strip())]
        except (OSError, ValueError) as error:
            raise UsageError(
                f'--frame-times {run.frame_times} cannot be read ({error}); it needs the time of '
                'each frame in s, separated by spaces, commas or line ends'
            ) from error
    if run.frame_interval is None:
        return None
    low, high = INTERVAL_RANGE
    if not low <= run.frame_interval <= high:
        raise UsageError(
            f'--frame-interval is between {low:g} and {high:g} s, got {run.frame_interval:g}'
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

    The first source wins: the command line, SliceAcquisitionTimes, VolumeTiming, FrameTimesStart,
    RepetitionTime, pixdim[4]. SliceTiming adds to all but SliceAcquisitionTimes, which holds it.

    Parameters
    ----------
    sidecar : dict
        Metadata of the series.
    n_frames, n_slices : int
        What the times must fit.
    header_interval : float, optional
        pixdim[4] in s.
    command_times : tuple, optional
        Name of the option and its value: an interval or a list of times in s.

    Returns
    -------
    frame_times : tuple of float
        (T,) s.
    sample_times : tuple of tuple of float
        (Z, T) s, one row for each slice in the order of the file.
    source : str
        Where the times come from.

    Raises
    ------
    TimingError
        When there are no times or when they cannot be true.

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
        return frames, samples, 'SliceAcquisitionTimes'
    field, value = _frame_source(sidecar, header_interval, command_times)
    if field in ('RepetitionTime', '--frame-interval', 'pixdim[4]'):
        interval = _numbers([value], 1, field, 'one number')[0]
        frames = tuple(round(frame * interval, 9) for frame in range(n_frames))
    else:
        frames = _numbers(value, n_frames, field, f'one time for each of {n_frames} frames')
    _check_frame_times(frames, field)
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
            'the sidecar has VolumeTiming and RepetitionTime, which exclude each other in BIDS; '
            'keep VolumeTiming for uneven and RepetitionTime for even frames'
        )
    # dcm2niix writes the mean of uneven intervals as RepetitionTime: FrameTimesStart is the truth
    for field in ('VolumeTiming', 'FrameTimesStart', 'RepetitionTime'):
        if field in sidecar:
            return field, sidecar[field]
    if header_interval is not None:
        return 'pixdim[4]', header_interval
    raise TimingError(
        'no acquisition times: VolumeTiming, FrameTimesStart or RepetitionTime is needed in the '
        'sidecar (the NIfTI header has none either); give --frame-interval SECONDS'
    )


def _numbers(value: Any, length: int, field: str, needed: str) -> tuple[float, ...]:
    """Check a list of finite numbers."""
    if not isinstance(value, list | tuple) or len(value) != length:
        found = f'{len(value)} values' if isinstance(value, list | tuple) else repr(value)
        raise TimingError(f'{field} has {found}; {needed} is needed, in s')
    for each in value:
        number = isinstance(each, int | float) and not isinstance(each, bool)
        if not number or not math.isfinite(each):
            raise TimingError(f'{field} holds {each!r}, which is not a number of seconds')
    return tuple(float(each) for each in value)


def _check_frame_times(times: Sequence[float], field: str) -> None:
    """Refuse times that do not increase or whose interval no protocol has."""
    intervals = [late - early for early, late in pairwise(times)]
    if min(intervals) <= 0:
        frame = next(i for i, interval in enumerate(intervals) if interval <= 0)
        raise TimingError(
            f'{field} must increase from frame to frame, but frame {frame + 2} is at '
            f'{times[frame + 1]:g} s after frame {frame + 1} at {times[frame]:g} s'
        )
    low, high = INTERVAL_RANGE
    typical = sorted(intervals)[len(intervals) // 2]
    if min(intervals) < low - 1e-6 or typical > high:
        wrong = typical if typical > high else min(intervals)
        raise TimingError(
            f'{field} gives frames {wrong:g} s apart; {low:g} to {high:g} s are plausible'
            + _hint_ms(wrong)
        )


def _hint_ms(interval: float) -> str:
    return f'; write {interval:g} ms as {interval / 1000:g}' if interval >= 100 else ''


def _slice_timing(
    sidecar: dict[str, Any], n_slices: int, frames: Sequence[float]
) -> tuple[float, ...]:
    """Return SliceTiming in the order of the file's slices."""
    needed = f'one time for each of {n_slices} slices'
    offsets = _numbers(sidecar['SliceTiming'], n_slices, 'SliceTiming', needed)
    if min(offsets) < 0:
        raise TimingError(f'SliceTiming holds {min(offsets):g} s; it counts from the frame start')
    interval = min(late - early for early, late in pairwise(frames))
    if max(offsets) > interval + 1e-6:
        raise TimingError(
            f'SliceTiming reaches {max(offsets):g} s, longer than a frame of {interval:g} s'
            + _hint_ms(max(offsets))
        )
    return offsets[::-1] if _reversed_slices(sidecar) else offsets


def _slice_acquisition_times(
    sidecar: dict[str, Any], n_frames: int, n_slices: int
) -> tuple[tuple[float, ...], ...]:
    """Return SliceAcquisitionTimes (frames x slices) as slices x frames."""
    field = 'SliceAcquisitionTimes'
    value = sidecar[field]
    if not isinstance(value, list) or len(value) != n_frames:
        found = f'{len(value)} rows' if isinstance(value, list) else repr(value)
        raise TimingError(f'{field} has {found}; one row for each of {n_frames} frames is needed')
    needed = f'a row with one time for each of {n_slices} slices'
    rows = [_numbers(row, n_slices, field, needed) for row in value]
    slices = tuple(zip(*rows, strict=True))
    for times in slices:
        _check_frame_times(times, field)
    return slices[::-1] if _reversed_slices(sidecar) else slices


def _reversed_slices(sidecar: dict[str, Any]) -> bool:
    """Tell whether slice times are listed from the last slice of the file to the first."""
    direction = sidecar.get('SliceEncodingDirection', 'k')
    if direction not in ('k', 'k-'):
        raise TimingError(
            f'SliceEncodingDirection is {direction!r}; "k" or "k-" (third voxel axis) is needed'
        )
    return direction == 'k-'
