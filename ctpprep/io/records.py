# SPDX-License-Identifier: Apache-2.0
"""Status files of participants: state of each series, and the digests of its complete outputs.

A series is complete when its record, which is written last, lists all its files and they still have
their digests. Without a record, as in outputs of earlier versions, nothing is known about the files.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ctpprep.exceptions import CtpprepError
from ctpprep.io.files import digest, read_object


def status_path(output_dir: Path, participant: str) -> Path:
    """Return the path of the status file of a participant.

    Examples
    --------
    >>> status_path(Path('out'), '01').as_posix()
    'out/logs/sub-01_status.json'
    """
    return output_dir / 'logs' / f'sub-{participant}_status.json'


def read_entries(path: Path) -> dict[str, dict[str, Any]]:
    """Read the entries of a status file by the prefix of the series; none if it cannot be read."""
    try:
        entries = read_object(path, CtpprepError)['Series']
        return {entry['Series']: entry for entry in entries}
    except (CtpprepError, KeyError, TypeError):
        return {}


def make_record(paths: Iterable[Path], output_dir: Path) -> dict[str, str]:
    """Compute the digest of every file that exists.

    Parameters
    ----------
    paths : iterable of Path
    output_dir : Path

    Returns
    -------
    dict of str to str
        SHA-256 by the path relative to the output folder.
    """
    return {
        path.relative_to(output_dir).as_posix(): digest(path)
        for path in sorted(paths)
        if path.is_file()
    }


def find_change(record: dict[str, str], output_dir: Path, ending: str = '') -> str:
    """Describe the first file of a record that is missing or has changed.

    Parameters
    ----------
    record : dict of str to str
        From `make_record`.
    output_dir : Path
    ending : str
        Only files with this ending are read, to save time; of the others, the existence is checked.

    Returns
    -------
    str
        '' if all files are as they were.
    """
    for name, expected in record.items():
        path = output_dir / name
        if not path.is_file():
            return f'{path.name} is gone'
        if name.endswith(ending) and digest(path) != expected:
            return f'{path.name} has changed since its run'
    return ''
