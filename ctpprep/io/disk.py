# SPDX-License-Identifier: Apache-2.0
"""Explain errors of a full disk: which folder of the run it is on, and what to do."""

import errno
import os
import shutil
import tempfile
from pathlib import Path

from ctpprep.settings import RunSettings

# no space left; quota used up
FULL = (errno.ENOSPC, errno.EDQUOT)


def explain_full_disk(text: str, run: RunSettings) -> str:
    """Replace the system's message for a full disk by a sentence; return other text unchanged.

    The message of a failed write contains no path. The folder with the least free space is then
    named.

    Parameters
    ----------
    text : str
        Message of an error.
    run : RunSettings
        Its folders are those that may be full.

    Returns
    -------
    str
    """
    if not any(os.strerror(code) in text for code in FULL):
        return text
    roles = {
        run.output_dir: 'the output folder',
        run.work_dir: 'the work folder (-w)',
        Path(tempfile.gettempdir()): 'the folder of temporary files (TMPDIR)',
    }
    free = {path: _free_space(path) for path in roles}
    # the message of a copy ends with the target; of nested folders, the inner one is meant
    mentions = [(text.rfind(f'{path}{os.sep}'), len(path.parts), path) for path in roles]
    _, _, folder = max(mentions)
    own = [run.output_dir, run.work_dir]
    if all(position < 0 for position, *_ in mentions):
        folder = min(own, key=free.__getitem__)
    named = f'{roles[folder]} {folder}'
    if folder in own and _device(own[0]) == _device(own[1]):
        named = ' and '.join(f'{roles[path]} {path}' for path in own)
    if os.strerror(errno.EDQUOT) in text:
        return f'the disk quota is exhausted in {named}; free some space and run the command again'
    return (
        f'no space was left in {named} ({free[folder] / 1e6:.1f} MB are free now); free some space '
        'and run the command again'
    )


def is_full_disk(error: BaseException) -> bool:
    """Return whether an error is that of a full disk."""
    return isinstance(error, OSError) and error.errno in FULL


def _existing(path: Path) -> Path:
    """Return the nearest folder that exists."""
    return next((folder for folder in (path, *path.parents) if folder.exists()), Path('/'))


def _free_space(path: Path) -> int:
    """Return the free bytes on the disk of a folder that may not exist yet."""
    return shutil.disk_usage(_existing(path)).free


def _device(path: Path) -> int:
    return _existing(path).stat().st_dev
