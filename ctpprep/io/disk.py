# SPDX-License-Identifier: Apache-2.0
"""Disks that are full: which folder of a run it was, and what to do."""

import errno
import os
import shutil
import tempfile
from pathlib import Path

from ctpprep.settings import RunSettings

# no space left; quota used up
FULL = (errno.ENOSPC, errno.EDQUOT)


def explain_full_disk(text: str, run: RunSettings) -> str:
    """Turn the words of the system for a full disk into a sentence; leave other text as it is.

    A system tells no folder where it was a write that failed: then it was that with the least space.

    Parameters
    ----------
    text : str
        Of an error.
    run : RunSettings
        Its folders.

    Returns
    -------
    str
    """
    if not any(os.strerror(each) in text for each in FULL):
        return text
    roles = {
        run.output_dir: 'the output folder',
        run.work_dir: 'the work folder (-w)',
        Path(tempfile.gettempdir()): 'the folder of temporary files (TMPDIR)',
    }
    free = {path: _free_space(path) for path in roles}
    # a copy is told with its target last; of folders within each other the inner one counts
    named = [(text.rfind(f'{path}{os.sep}'), len(path.parts), path) for path in roles]
    _, _, folder = max(named)
    own = [run.output_dir, run.work_dir]
    if all(place < 0 for place, *_ in named):
        folder = min(own, key=free.__getitem__)
    what = f'{roles[folder]} {folder}'
    if folder in own and _device(own[0]) == _device(own[1]):
        what = ' and '.join(f'{roles[path]} {path}' for path in own)
    if os.strerror(errno.EDQUOT) in text:
        return f'the quota of {what} is used up: make room and give the same command again'
    return (
        f'no space was left in {what} (now {free[folder] / 1e6:.1f} MB are free): make room and '
        'give the same command again'
    )


def is_full_disk(error: BaseException) -> bool:
    """Tell whether an error is that of a full disk."""
    return isinstance(error, OSError) and error.errno in FULL


def _there(path: Path) -> Path:
    """Return the nearest folder that exists."""
    return next((each for each in (path, *path.parents) if each.exists()), Path('/'))


def _free_space(path: Path) -> int:
    """Count the free bytes of the disk of a folder that may not be there."""
    return shutil.disk_usage(_there(path)).free


def _device(path: Path) -> int:
    return _there(path).stat().st_dev
