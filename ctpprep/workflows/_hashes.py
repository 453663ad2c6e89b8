# SPDX-License-Identifier: Apache-2.0
"""Hashes of files, each computed once a process."""

import functools
import os

from nipype.interfaces.base import specs, support
from nipype.utils import filemanip


def remember_hashes() -> None:
    """Have nipype remember what a file's content hashed to, while size and times stay the same.

    It hashes the inputs of each node anew, the series ten times over: 1.5 s of a series of
    256 x 256 x 20 x 45.
    """
    for module in (specs, support):
        module.hash_infile = hash_infile


def hash_infile(path: str) -> str | None:
    """Hash a file as `nipype.utils.filemanip.hash_infile` does."""
    try:
        found = os.stat(path)
    except OSError:
        return filemanip.hash_infile(path)
    state = found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
    return _hash(str(path), state)


@functools.lru_cache(maxsize=4096)
def _hash(path: str, state: tuple[int, ...]) -> str | None:
    return filemanip.hash_infile(path)
