# SPDX-License-Identifier: Apache-2.0
"""Hashes of files, computed once per process for nipype and for the provenance."""

import functools
import os
from pathlib import Path

from nipype.interfaces.base import specs, support

from ctpprep.io.files import digest


def cache_file_hashes() -> None:
    """Make nipype hash a file only once while its size and times stay the same.

    nipype hashes the inputs of every node again, the series ten times in all, and uses MD5, which takes
    more than twice as long as SHA-256 on current processors. Results do not depend on the algorithm.
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
    stat = os.stat(path)
    state = stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
    return _hash(str(path), state)


@functools.lru_cache(maxsize=4096)
def _hash(path: str, state: tuple[int, ...]) -> str:
    return digest(Path(path))
