# SPDX-License-Identifier: Apache-2.0
"""Refuse a work folder that another user can write: the pickles in it are run as code."""

import grp
import os
import pwd
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from ctpprep.engine.run import work_folder
from ctpprep.exceptions import UsageError
from ctpprep.inputs.series import workflow_name
from ctpprep.settings import RunSettings

PICKLES = ('.pklz', '.pkl')


def secure_work_folder(participants: Iterable[str], run: RunSettings) -> None:
    """Make the folder of intermediate files, closed to other users, and check what is in it.

    Parameters
    ----------
    participants : iterable of str
        Labels without 'sub-' whose intermediate files are checked.
    run : RunSettings

    Raises
    ------
    UsageError
        When another user owns or can write the work folder or a pickle of these participants.
    """
    folder = work_folder(run)
    check_owner(run.work_dir, or_root=True)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    check_owner(folder)
    # in a closed folder, the permissions of a shared group cannot be used
    closed = not folder.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    for label in participants:
        for path in _find_pickles(folder, label):
            check_owner(path, closed=closed)


def check_owner(path: Path, *, or_root: bool = False, closed: bool = False) -> None:
    """Raise `UsageError` if another user owns or can write a file or folder.

    Parameters
    ----------
    path : Path
        A folder in which nobody can replace the files of others, such as ``/tmp``, is accepted.
    or_root : bool
        Whether root may own it.
    closed : bool
        Whether its group may write it, since no other user can reach it.
    """
    status = path.stat()
    own = {os.geteuid(), 0} if or_root else {os.geteuid()}
    reason = ''
    if status.st_uid not in own:
        reason = f'belongs to {_user_name(status.st_uid)}'
    elif not status.st_mode & stat.S_ISVTX and status.st_mode & _others(status.st_gid, closed):
        reason = f'can be written by other users (mode {stat.S_IMODE(status.st_mode):o})'
    if reason:
        raise UsageError(
            f'{path} {reason}, who could run code as you; use a work folder of your own (-w), or remove '
            'the write permission with chmod go-w if you trust its content'
        )


def _find_pickles(folder: Path, label: str) -> Iterator[Path]:
    """List the pickles of a participant and the folders that they are in."""
    for top in folder.glob(f'*/{workflow_name(f"sub-{label}")}'):
        yield top.parent
        for place, _, names in os.walk(top):
            yield Path(place)
            yield from (Path(place, name) for name in names if name.endswith(PICKLES))


def _others(gid: int, closed: bool) -> int:
    """Return the bits of a mode that let others write; the user's private group is the user."""
    if closed:
        return stat.S_IWOTH
    try:
        private = grp.getgrgid(gid).gr_name == pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # unknown in a container
        private = False
    return stat.S_IWOTH if private else stat.S_IWOTH | stat.S_IWGRP


def _user_name(uid: int) -> str:
    try:
        return f'another user ({pwd.getpwuid(uid).pw_name})'
    except KeyError:
        return f'another user (uid {uid})'
