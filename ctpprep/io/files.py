# SPDX-License-Identifier: Apache-2.0
"""Read JSON objects, hash files, write them atomically, remove leftovers, lock."""

import contextlib
import fcntl
import hashlib
import json
import os
import stat
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ctpprep.exceptions import CtpprepError

PARTIAL = '.partial-'  # prefix of files that are being written
ABANDONED = 3600.0  # s after which such a file is a leftover
MAX_JSON_MB = 32.0  # a sidecar has some kB; the settings of 1000 frames x 320 slices have 5 MB
# how files begin that contain only the place of their content, and their largest size, bytes
POINTERS = {b'/annex/objects/': 'git-annex', b'version https://git-lfs': 'Git LFS'}
POINTER_SIZE = 32768
# what a path can be besides a regular file
SPECIAL = (
    (stat.S_ISDIR, 'folder'), (stat.S_ISFIFO, 'named pipe'), (stat.S_ISSOCK, 'socket'),
    (stat.S_ISCHR, 'device'), (stat.S_ISBLK, 'device'),
)  # fmt: skip


def check_regular(path: Path, error: type[CtpprepError], name: str = '') -> None:
    """Check that a path is a regular file, before it is opened: reading a pipe may never end.

    Parameters
    ----------
    path : Path
    error : type
        Class of the error to raise.
    name : str
        Name of the file in the error message; 'the file' by default.

    Raises
    ------
    CtpprepError
        Of the class `error`, when the path is something else, or cannot be examined.
    """
    name = name or 'the file'
    try:
        mode = path.stat().st_mode
    except OSError as reason:
        raise error(f'{name} cannot be read ({reason.strerror})') from reason
    for is_kind, kind in SPECIAL:
        if is_kind(mode):
            raise error(f'{name} is a {kind}, need a regular file')


def check_content(path: Path, error: type[CtpprepError]) -> None:
    """Check that a file contains its content, not only the place of it.

    Parameters
    ----------
    path : Path
    error : type
        Class of the error to raise.

    Raises
    ------
    CtpprepError
        Of the class `error`, when the file is a pointer of git-annex or Git LFS, or cannot be read.
    """
    try:
        if path.stat().st_size > POINTER_SIZE:
            return
        with path.open('rb') as stream:
            start = stream.read(32)
    except OSError as reason:
        raise error(f'the file cannot be read ({reason.strerror})') from reason
    for words, program in POINTERS.items():
        if start.startswith(words):
            raise error(
                f'the content of the file is missing (a pointer of {program}); fetch it, e.g. with '
                '`datalad get` or `git lfs pull`'
            )


def read_text(
    path: Path, error: type[CtpprepError], name: str = '', encoding: str = 'utf-8-sig'
) -> str:
    """Read a regular file as text, line breaks as they are.

    Parameters
    ----------
    path : Path
    error : type
        Class of the error to raise.
    name : str
        Name of the file in the error message; its path by default.
    encoding : str

    Returns
    -------
    str

    Raises
    ------
    CtpprepError
        Of the class `error`, when the path is not a regular file, or cannot be read.
    """
    name = name or str(path)
    check_regular(path, error, name)
    try:
        return path.read_bytes().decode(encoding)
    except OSError as reason:
        raise error(f'{name} cannot be read ({reason.strerror})') from reason
    except UnicodeError as reason:
        raise error(f'{name} cannot be read as text ({reason})') from reason


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
    check_regular(path, error, name)
    if (size := path.stat().st_size / 1e6) > MAX_JSON_MB:
        raise error(f'{name} has {size:.0f} MB, need at most {MAX_JSON_MB:g} MB')
    try:
        content = json.loads(
            path.read_text(encoding='utf-8-sig'), object_pairs_hook=_refuse_repeated
        )
    except RecursionError as reason:
        raise error(f'{name} cannot be read as JSON (it is nested too deeply)') from reason
    except OSError as reason:
        raise error(f'{name} cannot be read ({reason.strerror})') from reason
    except ValueError as reason:
        raise error(f'{name} cannot be read as JSON ({reason})') from reason
    if not isinstance(content, dict):
        raise error(
            f'{name} contains a JSON {type(content).__name__}, need an object: {{"Field": value}}'
        )
    return content


def _refuse_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its fields; a field with two values has none."""
    content = dict(pairs)
    if len(content) < len(pairs):
        values: dict[str, Any] = {}
        for name, value in pairs:
            if values.setdefault(name, value) != value:
                raise ValueError(f'it contains {name} twice, with different values')
    return content


def absolute(path: Path) -> Path:
    """Make a user's path absolute and resolve each '..' to the parent of a symlink's target."""
    with contextlib.suppress(RuntimeError):  # an unknown user without HOME: '~' is a name
        path = path.expanduser()
    path = path.absolute()
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
