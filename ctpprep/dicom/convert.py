# SPDX-License-Identifier: Apache-2.0
"""Convert one study: its perfusion series, non-contrast CT and angiography."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ctpprep import __version__
from ctpprep.dicom.assembly import Assembly, assemble_series, assemble_volume
from ctpprep.dicom.nifti import read_frame, write_series
from ctpprep.dicom.pixels import PixelReader
from ctpprep.dicom.scan import read_study
from ctpprep.dicom.sidecar import describe_series
from ctpprep.dicom.study import Group, plan_study
from ctpprep.exceptions import CtpprepError, SeriesError, explain
from ctpprep.inputs.timing import read_timing
from ctpprep.io.files import write_json

# a volume that is not a perfusion series is left out if it cannot be used; the study has not failed
OPTIONAL = ('ncct', 'cta')


@dataclass
class Line:
    """What happened to a series, for the terminal.

    Attributes
    ----------
    series : str
        Number and description.
    what : str
        Kind, frames x slices and interval.
    notes : list of str
        Side effects.
    verdict : str
        'ok', 'unchanged', 'skipped: ...' or 'FAILED: ...'.
    files : dict
        Name of the file in BIDS, and the UIDs it was made of.
    """

    series: str
    what: str = ''
    notes: list[str] = field(default_factory=list)
    verdict: str = 'ok'
    files: dict[str, Any] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """Whether the series should have been converted, but could not."""
        return self.verdict.startswith('FAILED')

    def __str__(self) -> str:
        parts = [part for part in (self.what, *self.notes) if part]
        return f'{self.series}: {"; ".join(parts)}{": " if parts else ""}{self.verdict}'


@dataclass(frozen=True)
class Request:
    """What is converted, and how.

    Attributes
    ----------
    bids_dir : Path
    participant, session : str, str or None
    interval : float or None
        For series without times, s.
    dry_run : bool
    bone_hu : float
        As for the early checks of ctpprep.
    earlier : dict
        Files of an earlier call by name, with a digest of their source.
    """

    bids_dir: Path
    participant: str
    session: str | None
    interval: float | None
    dry_run: bool
    bone_hu: float
    earlier: dict[str, Any]

    @property
    def prefix(self) -> str:
        """Start of the file names."""
        session = f'_ses-{self.session}' if self.session else ''
        return f'sub-{self.participant}{session}'

    @property
    def folder(self) -> Path:
        """Folder of the files."""
        return self.bids_dir.joinpath(*self.prefix.split('_'), 'ct')


def convert_study(files: Sequence[tuple[str, str]], request: Request) -> list[Line]:
    """Convert a study.

    Parameters
    ----------
    files : sequence of (path, member)
    request : Request

    Returns
    -------
    list of Line
        One per series or group of series.
    """
    try:
        scanned, n_copies = read_study(list(files))
    except Exception as error:  # of pydicom, for what no check foresees
        return [Line(f'{len(files)} files', verdict=f'FAILED: {explain(error)}')]
    groups = plan_study(scanned)
    n_runs = sum(group.kind == 'ctp' for group in groups)
    if not n_runs:
        return [*_describe_others(groups)]
    lines, run = [], 0
    for group in groups:
        line = Line(group.name)
        lines.append(line)
        if not group.kind:
            line.verdict = f'skipped: {group.reason}'
            continue
        suffix = group.kind
        if group.kind == 'ctp':
            run += 1
            suffix = f'run-{run}_ctp' if n_runs > 1 else 'ctp'
        try:
            _convert_group(group, request, f'{request.prefix}_{suffix}', line)
        except Exception as error:  # also of libraries: the other series go on
            word = (
                'skipped'
                if group.kind in OPTIONAL and isinstance(error, CtpprepError)
                else 'FAILED'
            )
            line.verdict = f'{word}: {explain(error)}'
    if n_copies and lines:
        lines[0].notes.append(f'{n_copies} files of the study are copies of others')
    return lines


def _describe_others(groups: Sequence[Group]) -> Iterator[Line]:
    """Describe a study without perfusion; it has failed unless its scans are of another kind."""
    for group in groups:
        reason = group.reason or f'{group.kind}, but the study has no perfusion series'
        yield Line(group.name, verdict=f'skipped: {reason}')
    if groups and not any(group.kind for group in groups):
        yield Line('study', verdict='FAILED: no perfusion series')


def _convert_group(group: Group, request: Request, stem: str, line: Line) -> None:
    """Check and write one series."""
    line.what = group.kind
    line.notes += group.notes
    if str(group.header.get('BurnedInAnnotation', '')).upper() == 'YES':
        raise SeriesError(
            'BurnedInAnnotation is YES: its pixels may contain the name of the patient; remove the text'
        )
    reader = PixelReader()
    thickness = group.header.get('SliceThickness')
    if group.kind == 'ctp':
        assembly = assemble_series(group.images, thickness, request.interval, reader.same)
    else:
        assembly = assemble_volume(group.images, thickness)
    line.what, line.notes = describe(group.kind, assembly), line.notes + assembly.notes
    sidecar = describe_series(group.header, assembly, assembly.notes)
    check_early(assembly, sidecar, reader, request.bone_hu)
    source = hashlib.sha256(
        '\n'.join(
            [__version__, repr(sidecar), *sorted(image.uid for image in group.images)]
        ).encode()
    ).hexdigest()
    image, text = (request.folder / f'{stem}.{suffix}' for suffix in ('nii.gz', 'json'))
    line.files[image.name] = {
        'digest': source,
        'SourceDicom': {
            'StudyInstanceUID': group.series[0].study_uid,
            'FrameOfReferenceUID': group.header.get('FrameOfReferenceUID'),
            'SeriesInstanceUID': [series.uid for series in group.series],
            'n_slices': assembly.stack.shape[2],
            'SOPInstanceUID': list(
                dict.fromkeys(i.uid for frame in assembly.images for i in frame)
            ),
        },
    }
    unchanged = request.earlier.get(image.name, {}).get('digest') == source
    if unchanged and image.exists() and text.exists():
        line.verdict = 'unchanged'
    elif not request.dry_run:
        write_series(assembly, image, reader)
        write_json(sidecar, text)


def describe(kind: str, assembly: Assembly) -> str:
    """Describe a series: kind, size, and when it was acquired."""
    n_slices = assembly.stack.shape[2]
    if assembly.times is None:
        return f'{kind}, {n_slices} slices'
    import numpy as np

    intervals = np.diff(assembly.frame_times)
    low, high = float(intervals.min()), float(intervals.max())
    even = f'every {low:.4g} s' if high - low < 0.01 else f'every {low:.3g} to {high:.3g} s'
    slices = ', each slice with its own time' if assembly.per_slice else ''
    return f'{kind}, {len(assembly.images)} frames x {n_slices} slices, {even}{slices} ({assembly.rule})'


def check_early(
    assembly: Assembly, sidecar: dict[str, Any], reader: PixelReader, bone_hu: float
) -> None:
    """Run the checks of ctpprep that precede a run, so that what converts also runs.

    Raises
    ------
    CtpprepError
    """
    from ctpprep.perfusion.first_frame import check_axes, check_frame, coarse_frame

    if assembly.times is None:
        return
    n_frames, n_slices = assembly.times.shape
    read_timing(sidecar, n_frames, n_slices)
    in_plane = assembly.images[0][0].spacing
    heights = assembly.stack.affine[:3, 2]
    size = (in_plane[1], in_plane[0], float((heights @ heights) ** 0.5))
    frame = read_frame(assembly, 0, reader)
    check_frame(frame, size, bone_hu=bone_hu)
    first = coarse_frame(frame, size)[0]
    check_axes(first, coarse_frame(read_frame(assembly, 1, reader), size)[0])
