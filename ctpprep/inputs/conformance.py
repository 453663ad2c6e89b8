# SPDX-License-Identifier: Apache-2.0
"""Names and folders that do not follow BIDS: what is only reported, and what is refused."""

import fnmatch
import os
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from ctpprep.exceptions import SeriesError
from ctpprep.inputs.labels import join_labels
from ctpprep.io.bids import NIFTI, entities, session_dir
from ctpprep.io.files import read_object

# folders that BIDS allows beside those of participants
KNOWN_FOLDERS = ('code', 'derivatives', 'docs', 'logs', 'phenotype', 'sourcedata', 'stimuli')
# folders whose files are not raw data
NESTED = {'derivatives', 'sourcedata'}
# extensions of images, in lower case, that a series may have been written with instead of NIfTI
OTHER_FORMATS = (
    'img', 'img.gz', 'mgz', 'mgh', 'nrrd', 'nhdr', 'mha', 'mhd', 'mnc', 'mnc.gz', 'dcm', 'ima',
    'nii.bz2', 'nii.xz', 'nii.zst', 'nii.zip',
)  # fmt: skip
MOST_SHOWN = 4  # files in a message
MOST_FOLDERS = 200  # limit of the search, which must be fast in any dataset
# file systems allow 255 bytes; outputs, while they are being written, have up to 105 more
MAX_PREFIX = 150


def check_dataset(bids_dir: Path, participants: Sequence[str]) -> list[str]:
    """Check the description and the file names of a dataset, which takes almost no time.

    Parameters
    ----------
    bids_dir : Path
    participants : sequence of str
        Labels without 'sub-' of those whose folders are checked.

    Returns
    -------
    list of str
        Deviations from BIDS, one sentence each. None of them prevents processing.
    """
    deviations = []
    description = bids_dir / 'dataset_description.json'
    try:
        if not description.exists():
            raise SeriesError('there is no dataset_description.json')
        content = read_object(description, SeriesError, description.name)
        missing = [name for name in ('Name', 'BIDSVersion') if name not in content]
        if missing:
            raise SeriesError(f'dataset_description.json has no {" and no ".join(missing)}')
    except SeriesError as deviation:
        deviations.append(str(deviation))
    for label in participants:
        pattern = rf'sub-{re.escape(label)}(_[a-z]+-[a-zA-Z0-9+]+)*_[a-zA-Z0-9]+\.nii(\.gz)?'
        paths = sorted((bids_dir / f'sub-{label}').rglob('*.nii*'))
        nested = [
            str(path.relative_to(bids_dir))
            for path in paths
            if NESTED & set(path.relative_to(bids_dir).parts[:-1])
        ]
        if nested:
            deviations.append(
                f'sub-{label}: {join_labels(nested, "")}: skipped; derivatives and source data belong '
                'beside the folders of participants'
            )
        names = [path.name for path in paths if not re.fullmatch(pattern, path.name)]
        if names:
            deviations.append(f'sub-{label}: {join_labels(names, "")}: not a BIDS file name')
    return deviations


def describe_skipped(bids_dir: Path) -> str:
    """Name the folders that contain images but are skipped, since their names lack 'sub-'.

    Only the first folders and files are examined, two levels deep. Folders in `.bidsignore`,
    folders that BIDS defines and nested datasets are left out.

    Parameters
    ----------
    bids_dir : Path

    Returns
    -------
    str
        A sentence; '' if there is no such folder.
    """
    ignore = bids_dir / '.bidsignore'
    lines = ignore.read_text(errors='replace').splitlines() if ignore.is_file() else []
    patterns = [line.strip().strip('/').removesuffix('/**') for line in lines]
    folders = (
        path
        for path in sorted(bids_dir.iterdir())
        if not path.name.startswith(('sub-', '.'))
        and path.name not in KNOWN_FOLDERS
        and not any(fnmatch.fnmatchcase(path.name, pattern) for pattern in patterns)
        and path.is_dir()
    )
    with_images = (folder for folder in islice(folders, MOST_FOLDERS) if _contains_images(folder))
    names = list(islice((folder.name for folder in with_images), 6))
    shown = ', '.join(names[:5]) + (' and others' if len(names) > 5 else '')
    return f'{shown}: skipped; the folder of a participant is named sub-<label>' if names else ''


def _contains_images(folder: Path) -> bool:
    """Return whether the first files of a folder and its subfolders include a NIfTI file."""
    paths = list(islice(folder.iterdir(), MOST_FOLDERS))
    if any(path.name.startswith('sub-') and path.is_dir() for path in paths):
        return False
    nested = (path for parent in paths if parent.is_dir() for path in parent.glob('*'))
    return any(path.name.endswith(NIFTI) for path in [*paths, *islice(nested, MOST_FOLDERS)])


def check_name(prefix: str, path: Path, bids_dir: Path) -> Path:
    """Check that name and folder of a file follow BIDS.

    Parameters
    ----------
    prefix : str
        Name without suffix and extension.
    path, bids_dir : Path

    Returns
    -------
    Path
        Folder of its session.

    Raises
    ------
    SeriesError
        When the name is not a BIDS name, or is that of another folder.
    """
    name = path.relative_to(bids_dir)
    if not re.fullmatch(r'sub-[a-zA-Z0-9+]+(_[a-z]+-[a-zA-Z0-9+]+)*', prefix):
        raise SeriesError(
            f'{name}: the file name does not follow BIDS; rename it to '
            f'sub-<label>[_ses-<label>][_run-<index>]_{entities(path)["suffix"]}, with only '
            'letters and digits in the labels'
        )
    if len(prefix) > MAX_PREFIX:
        raise SeriesError(
            f'{name}: the file name is too long ({len(prefix)} characters before the suffix, need at '
            f'most {MAX_PREFIX}), outputs would have no valid names; shorten its labels'
        )
    folder = session_dir(path, bids_dir)
    sessions = [part for part in name.parts[1:-1] if part.startswith('ses-')]
    if folder not in path.parents or sessions != list(folder.relative_to(bids_dir).parts[1:]):
        raise SeriesError(
            f'{name}: by its name, the file belongs in {folder.relative_to(bids_dir)}; move or '
            'rename it'
        )
    return folder


def find_lookalike(
    bids_dir: Path, participant: str, sessions: Sequence[str] = (), runs: Sequence[str] = ()
) -> str:
    """Describe a file that would be a CT perfusion series, but for its format or its spelling.

    Parameters
    ----------
    bids_dir : Path
    participant : str
        Label, without 'sub-', of a participant without a series.
    sessions, runs : sequence of str
        Requested labels with or without 'ses-' and 'run-'; empty for all.

    Returns
    -------
    str
        A sentence; '' if there is none.
    """
    sessions = [label.removeprefix('ses-') for label in sessions]
    runs = [label.removeprefix('run-').lstrip('0') for label in runs]
    for path in sorted(_paths_below(bids_dir / f'sub-{participant}')):
        stem, _, extension = path.name.partition('.')
        start, _, suffix = stem.rpartition('_')
        labels = entities(path)
        if not start or suffix.casefold() != 'ctp' or {'space', 'desc'} & labels.keys():
            continue
        if sessions and labels.get('ses') not in sessions:
            continue
        if runs and labels.get('run', '').lstrip('0') not in runs:
            continue
        needed = f'{start}_ctp.nii.gz'
        name = path.relative_to(bids_dir)
        is_nifti = f'.{extension}'.casefold() in NIFTI
        if path.is_dir() and (is_nifti or extension.casefold() in ('', *OTHER_FORMATS)):
            return f'{name} is a folder, need a file {needed}; convert the series to NIfTI'
        if is_nifti and not (suffix == 'ctp' and path.name.endswith(NIFTI)):
            return f'{name} is skipped because of its name, need {needed}; rename it'
        if extension.casefold() in OTHER_FORMATS:
            return (
                f'{name} is skipped because of its format (.{extension}), need {needed}; convert the '
                'series to NIfTI'
            )
    return ''


def _paths_below(folder: Path) -> Iterator[Path]:
    """List the files and folders of a participant, except those that are not raw data."""
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in NESTED and not name.startswith('.')]
        yield from (Path(parent, name) for name in (*folders, *files))


def refuse_duplicates(paths: Sequence[Path], bids_dir: Path) -> None:
    """Raise `SeriesError` if more than one file has the same outputs."""
    if len(paths) > 1:
        names = ' and '.join(str(path.relative_to(bids_dir)) for path in paths[:MOST_SHOWN])
        if len(paths) > MOST_SHOWN:
            names += f' and {len(paths) - MOST_SHOWN} more files'
        raise SeriesError(
            f'{names} would write the same outputs; remove one of them or distinguish them by '
            'run-<index>'
        )
