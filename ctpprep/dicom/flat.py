# SPDX-License-Identifier: Apache-2.0
"""A folder of NIfTI files, with the sidecars of a converter, as a BIDS dataset."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ctpprep.dicom.convert import Line
from ctpprep.dicom.labels import Labels
from ctpprep.dicom.nifti import copy_clean
from ctpprep.dicom.sidecar import filter_sidecar
from ctpprep.dicom.study import ANGIOGRAPHY, NATIVE
from ctpprep.exceptions import SeriesError, UsageError, explain
from ctpprep.inputs.frames import check_image, warn
from ctpprep.inputs.timing import read_series_timing
from ctpprep.io.bids import NIFTI
from ctpprep.io.files import digest, read_object, write_json
from ctpprep.io.headers import MIN_FRAMES, check_volume, open_nifti
from ctpprep.settings import MethodSettings

# words that name a kind of scan, and not a person, in file names such as pat07_ctp.nii.gz
KIND = re.compile(
    r'(?:^|[_\-. ])(4d|ctp|perfusion|perf|pct|ncct|nect|native?|plain|cta|angio|run-?\d+|ct)'
    r'(?=$|[_\-. ])',
    re.IGNORECASE,
)


def find_nifti(source: Path) -> list[Path]:
    """List the NIfTI files below a folder.

    Parameters
    ----------
    source : Path

    Returns
    -------
    list of Path
    """
    paths = [source] if source.is_file() else sorted(source.rglob('*'))
    return [path for path in paths if path.name.endswith(NIFTI) and path.is_file()]


def convert_flat(
    source: Path,
    images: Sequence[Path],
    bids_dir: Path,
    labels: Labels,
    interval: float | None,
    dry_run: bool,
) -> Iterator[tuple[str, list[Line]]]:
    """Copy NIfTI files to a BIDS dataset.

    Files whose names differ only in words for the kind of scan (ctp, ncct, cta, ...) are one study.

    Parameters
    ----------
    source : Path
    images : sequence of Path
    bids_dir : Path
    labels : Labels
    interval : float or None
        Written as RepetitionTime where a series has no times, s.
    dry_run : bool

    Yields
    ------
    title : str
        Start of the names of the files of a study.
    lines : list of Line
    """
    root = source if source.is_dir() else source.parent
    studies: dict[str, list[Path]] = {}
    for path in images:
        if not path.is_relative_to(bids_dir):
            studies.setdefault(study_name(path.relative_to(root)), []).append(path)
    for name, paths in studies.items():
        relative = [path.relative_to(root).as_posix() for path in paths]
        try:
            participant, session = _labels_of(labels, name, relative)
            labels.reserve(f'nifti:{name}', participant, session)
        except UsageError as error:
            yield name, [Line(relative[0], verdict=f'FAILED: {error}')]
            continue
        prefix = f'sub-{participant}' + (f'_ses-{session}' if session else '')
        taken: set[str] = set()
        lines = [_convert(path, bids_dir, prefix, interval, dry_run, taken) for path in paths]
        if all(line.verdict.startswith('skipped') for line in lines):
            lines.append(Line('study', verdict='FAILED: no perfusion series and no volume'))
        if not dry_run:
            files = {k: v for line in lines if not line.failed for k, v in line.files.items()}
            labels.record(f'nifti:{name}', participant, session, files=files)
        yield prefix, lines


def study_name(path: Path) -> str:
    """Return what the names of the files of a study have in common.

    Examples
    --------
    >>> study_name(Path('a/pat07_CTP.nii.gz')), study_name(Path('a/pat07_ncct.nii'))
    ('a/pat07', 'a/pat07')
    >>> study_name(Path('pat07/ctp.nii.gz'))
    'pat07'
    """
    stem = path.name.removesuffix('.gz').removesuffix('.nii')
    stem = KIND.sub('', stem).strip('_-. ')
    return (path.parent / stem).as_posix() if stem else path.parent.as_posix()


def _labels_of(labels: Labels, name: str, paths: Sequence[str]) -> tuple[str, str | None]:
    """Look the labels up by each path, then by the name of the study."""
    table = labels._rows
    key = next(
        (key for path in paths for key in (path, path.rpartition('/')[2]) if key in table), name
    )
    if labels._pattern is not None:
        key = next((path for path in paths if labels._pattern.search(path)), key)
    return labels.of_study(key, f'nifti:{name}')


def _convert(
    path: Path,
    bids_dir: Path,
    prefix: str,
    interval: float | None,
    dry_run: bool,
    taken: set[str],
) -> Line:
    """Check one file and copy it."""
    line = Line(path.name)
    try:
        sidecar_path = path.with_name(path.name.removesuffix('.gz').removesuffix('.nii') + '.json')
        sidecar = read_object(sidecar_path, SeriesError) if sidecar_path.exists() else {}
        kind = _kind(path, sidecar)
        if not kind:
            line.verdict = (
                f'skipped: neither a series of {MIN_FRAMES} frames or more nor named ncct or cta'
            )
            return line
        sidecar = filter_sidecar(sidecar) | {'Modality': 'CT', 'Units': sidecar.get('Units', 'HU')}
        line.what = kind
        if kind == 'ctp':
            line.what = _check(path, sidecar, interval, line.notes)
        else:
            check_volume(path, kind)
        target = bids_dir.joinpath(*prefix.split('_'), 'ct', f'{prefix}_{kind}.nii.gz')
        if target.name in taken:
            raise SeriesError(
                f'a second file of the same study would be {target.name}; give it labels of its own '
                'with --labels'
            )
        taken.add(target.name)
        line.files[target.name] = {'digest': digest(path), 'source': path.name}
        if not dry_run:
            text = target.with_name(target.name.replace('.nii.gz', '.json'))
            if not _is_current(target, path):
                copy_clean(path, target)
            write_json(sidecar, text)
    except Exception as error:  # also of libraries: the other files go on
        line.verdict = f'FAILED: {explain(error)}'
    return line


def _is_current(target: Path, source: Path) -> bool:
    return target.exists() and target.stat().st_mtime > source.stat().st_mtime


def _check(path: Path, sidecar: dict[str, Any], interval: float | None, notes: list[str]) -> str:
    """Check header and times as ctpprep does; an interval that the user states replaces theirs."""
    shape = open_nifti(path).shape
    if interval is not None:
        for name in ('VolumeTiming', 'FrameTimesStart', 'SliceAcquisitionTimes'):
            sidecar.pop(name, None)
        sidecar['RepetitionTime'] = interval
        notes.append(f'{interval:g} s between frames as stated by the user')
    option = None if interval is None else ('--frame-interval', interval)
    _, times, rule = read_series_timing(path, sidecar, option)
    spacing = np.diff(times[0])
    if rule == 'pixdim[4]':
        sidecar['RepetitionTime'] = round(float(spacing[0]), 6)
    if len(set(times)) == 1:
        notes.append('no slice times: all slices of a frame are taken as simultaneous')
    every = f', every {spacing[0]:g} s' if np.ptp(spacing) < 1e-3 else ''
    warn(path.name, check_image(path, MethodSettings().masks.bone_hu))
    slices = ', each slice with its own time' if len(set(times)) > 1 else ''
    return f'ctp, {shape[3]} frames x {shape[2]} slices{every}{slices} ({rule})'


def _kind(path: Path, sidecar: dict[str, Any]) -> str:
    """Return 'ctp' for a 4D series, 'ncct' or 'cta' for a volume of such a name; '' otherwise."""
    shape = open_nifti(path).shape
    if len(shape) > 3 and shape[3] >= MIN_FRAMES:
        return 'ctp'
    text = f'{path.name} {sidecar.get("SeriesDescription", "")} {sidecar.get("ProtocolName", "")}'
    text = re.sub(r'[_.]', ' ', text)
    if ANGIOGRAPHY.search(text):
        return 'cta'
    return 'ncct' if NATIVE.search(text) else ''
