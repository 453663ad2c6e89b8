# SPDX-License-Identifier: Apache-2.0
"""Find DICOM files below a folder, and which study each belongs to."""

import functools
import io
import os
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ctpprep.exceptions import UsageError

# never images; opening them costs time, or shows a DICOMDIR, which only lists the files beside it
OTHER_SUFFIXES = {'.json', '.txt', '.tsv', '.csv', '.xml', '.pdf', '.html', '.jpg', '.png', '.nii'}
OTHER_SUFFIXES |= {'.gz', '.exe', '.dll', '.md', '.inf', '.ini'}
UID = re.compile(r'[0-9.]{3,64}')
# headers that a process reads before it returns
FILES_PER_TASK = 500


def find_files(source: Path) -> Iterator[tuple[str, str]]:
    """List the files that may be DICOM, also without suffix and in zip archives.

    Parameters
    ----------
    source : Path
        Folder, or one file.

    Yields
    ------
    path, member : str
        `member` is the name in a zip archive, or ''.
    """
    if not source.exists():
        raise UsageError(f'{source} does not exist')
    paths = [source] if source.is_file() else sorted(source.rglob('*'))
    for path in paths:
        if path.suffix.lower() in OTHER_SUFFIXES or path.name.startswith('.'):
            continue
        if not path.is_file() or path.name.upper() == 'DICOMDIR':
            continue
        if path.suffix.lower() == '.zip':
            with zipfile.ZipFile(path) as archive:
                for name in sorted(archive.namelist()):
                    base = name.rpartition('/')[2]
                    if base and base.upper() != 'DICOMDIR' and not base.startswith('.'):
                        yield str(path), name
        else:
            yield str(path), ''


def open_source(path: str, member: str = '') -> Any:
    """Open a file, or a member of a zip archive, for pydicom."""
    if not member:
        return open(path, 'rb')
    status = os.stat(path)
    return io.BytesIO(_open_archive(path, status.st_mtime_ns, status.st_size).read(member))


@functools.lru_cache(maxsize=1)
def _open_archive(path: str, *version: int) -> zipfile.ZipFile:
    """Keep the latest archive open: reading the list of its members takes as long as the list."""
    return zipfile.ZipFile(path)


def read_study_key(path: str, member: str) -> tuple[str, str] | None:
    """Read PatientID and StudyInstanceUID, which takes little time.

    Returns
    -------
    tuple of str or None
        None if the file is not DICOM, or does not contain an image.
    """
    from pydicom.filereader import read_partial

    try:
        with open_source(path, member) as stream:
            dataset = read_partial(
                stream, stop_when=lambda tag, vr, length: tag > 0x0020000E, force=True
            )
    except Exception:  # whatever pydicom raises for other files
        return None
    study = str(dataset.get('StudyInstanceUID', ''))
    if not UID.fullmatch(study) or 'Modality' not in dataset:
        return None
    return str(dataset.get('PatientID', '') or dataset.get('PatientName', '')), study


def group_by_study(source: Path, nprocs: int = 1) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """List the files of each study.

    Parameters
    ----------
    source : Path
    nprocs : int
        Processes that read headers.

    Returns
    -------
    dict of (patient, study UID) to list of (path, member)
    """
    studies: dict[tuple[str, str], list[tuple[str, str]]] = {}
    files = list(find_files(source))
    for file, key in zip(files, _read_study_keys(files, nprocs), strict=True):
        if key is not None:
            studies.setdefault(key, []).append(file)
    return dict(sorted(studies.items()))


def _read_study_keys(
    files: list[tuple[str, str]], nprocs: int
) -> Iterator[tuple[str, str] | None]:
    """Read the study of each file, by several processes if there are many."""
    if nprocs <= 1 or len(files) < 2 * FILES_PER_TASK:
        for file in files:
            yield read_study_key(*file)
        return
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(nprocs, get_context('spawn')) as pool:
        yield from pool.map(read_study_key, *zip(*files, strict=True), chunksize=FILES_PER_TASK)
