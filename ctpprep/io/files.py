# SPDX-License-Identifier: Apache-2.0
"""Files: read JSON objects, hash contents, write atomically, lock."""

import contextlib
import fcntl
import hashlib
import json
import os
import time
import uuid
from pathlib import Path
from typing import Any

from ctpprep.exceptions import CtpprepError


def read_object(path: Path, error: type[CtpprepError], what: str = '') -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Parameters
    ----------
    path : Path
    error : type
        Raised, with one sentence, where that is not possible.
    what : str
        How the sentence names the file; its path by default.

    Returns
    -------
    dict
    """
    what = what or str(path)
    try:
        content = json.loads(path.read_text(encoding='utf-8-sig'))
    except (OSError, ValueError) as reason:
        raise error(f'{what} cannot be read ({reason})') from reason
    if not isinstance(content, dict):
        raise error(f'{what} must hold an object, {{"Field": value}}')
    return content


def absolute(path: Path) -> Path:
    """Make a path of a user absolute, without '..': that is the parent of what a link leads to."""
    path = path.expanduser().absolute()
    while '..' in path.parts:
        up = path.parts.index('..')
        path = Path(*path.parts[:up]).resolve().parent.joinpath(*path.parts[up + 1 :])
    return path


def digest(path: Path) -> str:
    """Compute the SHA-256 of a file."""
    with path.open('rb') as content:
        return hashlib.file_digest(content, 'sha256').hexdigest()


PARTIAL = '.partial-'  # start of the name of a file that is being written
ABANDONED = 3600.0  # s after which nobody is still writing one


def write_atomically(write, path):
    """Write a file under another name and move it to its own in one step.

    Parameters
    ----------
    write : callable
        Takes the temporary path, which keeps the extension.
    path : Path
        Final place; its folder is made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # process ids repeat from host to host
    partial = path.with_name(f'{PARTIAL}{uuid.uuid4().hex}-{path.name}')
    try:
        write(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(content, path):
    """Write a JSON file in one step.

    Parameters
    ----------
    content : dict
    path : Path
    """
    text = json.dumps(content, indent=2) + '\n'
    write_atomically(lambda partial: partial.write_text(text), path)


def remove_older(paths, since):
    """Remove files that an earlier run wrote, where a failed run wrote no new ones.

    Parameters
    ----------
    paths : iterable of Path
        What a run of a series writes.
    since : float
        Start of this run, s since the epoch.

    Returns
    -------
    list of Path
        What was removed.
    """
    older = [path for path in paths if path.is_file() and path.stat().st_mtime < since]
    for path in older:
        path.unlink(missing_ok=True)
    return older


def remove_partials(output_dir, participants):
    """Remove the half-written files of killed runs.

    Parameters
    ----------
    output_dir : Path
    participants : iterable of str
        Labels without 'sub-' whose files nobody else is writing. Of what all runs write, only old
        leftovers go: another call may be at work.
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
def file_lock(folder, name):
    """Keep other calls waiting, where the file system knows locks.

    NFS locks only what is open for writing, so no folder. The file stays: one that waits holds it.

    Parameters
    ----------
    folder : Path
        Of the output.
    name : str
        What is locked: ``logs/<name>.lock`` is.
    """
    logs = folder / 'logs'
    logs.mkdir(exist_ok=True)
    lock = logs / f'{name}.lock'
    try:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError:  # another user's: local file systems lock it all the same
        if not lock.exists():
            raise
        handle = os.open(lock, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
