# SPDX-License-Identifier: Apache-2.0
"""Hashes of files, each computed once a process: nipype's and those of the provenance."""

import functools
import os
from pathlib import Path

from nipype.interfaces.base import specs, support

from ctpprep.io.files import digest


def cache_file_hashes() -> None:
    """Have nipype hash a file once while its size and times stay the same.

    It does so for the inputs of each node anew, for the series ten times over, and by MD5, which takes
    more than twice the time of SHA-256 on today's processors. Its results do not depend on which.
    """
    for module in (specs, support):
        module.hash_infile = hash_file


def hash_file(path: str | Path) -> str | None:
    """Hash the content of a file.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    str or None
        SHA-256 in hexadecimal digits; None if there is no such file.
    """
    if not os.path.isfile(path):
        return None
    found = os.stat(path)
    state = found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
    return _hash(str(path), state)


@functools.lru_cache(maxsize=4096)
def _hash(path: str, state: tuple[int, ...]) -> str:
    return digest(Path(path))
