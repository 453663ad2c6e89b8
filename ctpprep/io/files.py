# SPDX-License-Identifier: Apache-2.0
"""Read JSON objects, hash files, write them atomically, remove leftovers, lock."""

import contextlib
import fcntl
import hashlib
import json
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ctpprep.exceptions import CtpprepError

PARTIAL = '.partial-'  # prefix of files that are being written
ABANDONED = 3600.0  # s after which such a file is a leftover


def read_object(path: Path, error: type[CtpprepError], name: str = '') -> dict[str, Any]:
    """Read a JSON file that contains an object.

    Parameters
    ----------
    path : Path
    error : type
        Class of the error to raise.
    name : str
        Name of the file in the error message; its path by default.

    Returns
    -------
    dict

    Raises
    ------
    CtpprepError
        Of the class `error`, when the file cannot be read or contains something else.
    """
    name = name or str(path)
    try:
        content = json.loads(path.read_text(encoding='utf-8-sig'))
    except (OSError, ValueError) as reason:
        raise error(f'{name} cannot be read as JSON ({reason})') from reason
    if not isinstance(content, dict):
        raise error(
            f'{name} contains a JSON {type(content).__name__}, need an object: {{"Field": value}}'
        )
    return content


def absolute(path: Path) -> Path:
    """Make a user's path absolute and resolve each '..' to the parent of a symlink's target."""
    path = path.expanduser().absolute()
    while '..' in path.parts:
        up = path.parts.index('..')
        path = Path(*path.parts[:up]).resolve().parent.joinpath(*path.parts[up + 1 :])
    return path


def digest(path: Path) -> str:
    """Compute the SHA-256 of a file."""
    with path.open('rb') as content:
        return hashlib.file_digest(content, 'sha256').hexdigest()


def write_atomically(write: Callable[..., object], path: Path) -> None:
    """Write a file to a temporary path and move it to its final path in one step.

    Parameters
    ----------
    write : callable
        Called with the temporary path, which has the same extension.
    path : Path
        Final path; its folder is created.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # not the process id, which several hosts can have in common
    partial = path.with_name(f'{PARTIAL}{uuid.uuid4().hex}-{path.name}')
    try:
        write(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(content: dict[str, Any], path: Path) -> None:
    """Write a JSON file atomically.

    Parameters
    ----------
    content : dict
    path : Path
    """
    text = json.dumps(content, indent=2) + '\n'
    write_atomically(lambda partial: partial.write_text(text), path)


def remove_older(paths: Iterable[Path], since: float) -> list[Path]:
    """Remove the files that were last modified before a run.

    Parameters
    ----------
    paths : iterable of Path
        Files that may not exist.
    since : float
        Start of the run, s since the epoch.

    Returns
    -------
    list of Path
        The removed files.
    """
    older = [path for path in paths if path.is_file() and path.stat().st_mtime < since]
    for path in older:
        path.unlink(missing_ok=True)
    return older


def remove_partials(output_dir: Path, participants: Iterable[str]) -> None:
    """Remove the partially written files of killed runs.

    Parameters
    ----------
    output_dir : Path
    participants : iterable of str
        Labels without 'sub-' whose files no other call is writing. Of the files that all calls
        write, only those older than an hour are removed.
    """
    own = [
        path
        for label in participants
        for path in (
            *(output_dir / f'sub-{label}').rglob(f'{PARTIAL}*'),
            *output_dir.glob(f'{PARTIAL}*-sub-{label}.html'),
        )
    ]
    shared = [
        path for inner in ('', 'logs', 'prov') for path in (output_dir / inner).glob(f'{PARTIAL}*')
    ]
    for path in own:
        path.unlink(missing_ok=True)
    remove_older(shared, time.time() - ABANDONED)


@contextlib.contextmanager
def file_lock(folder: Path, name: str) -> Iterator[None]:
    """Make other calls wait while this one writes.

    Parameters
    ----------
    folder : Path
        Output folder. ``logs/<name>.lock`` is created in it, if missing, and locked, since NFS does
        not lock folders. It is not removed: another call may wait for it.
    name : str
    """
    # The package filelock needs write access to an existing lock file. Where the file system has no
    # locks, it raises an error or relies on the existence of the file, which outlives a killed run.
    logs = folder / 'logs'
    logs.mkdir(exist_ok=True)
    lock = logs / f'{name}.lock'
    try:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError:  # another user's file; local file systems lock it read-only as well
        if not lock.exists():
            raise
        handle = os.open(lock, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # no locks in this file system
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
