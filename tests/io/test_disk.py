# SPDX-License-Identifier: Apache-2.0
"""Full disks: which folder is named."""

import errno
import os
from collections import namedtuple

import pytest

from ctpprep.io import disk
from ctpprep.io.disk import explain_full_disk
from ctpprep.settings import RunSettings

FULL = f'OSError: [Errno 28] {os.strerror(errno.ENOSPC)}'


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Give a run whose work folder has the least space, on a disk of its own."""
    free = {tmp_path / 'out': 5_000_000, tmp_path / 'work': 100_000}
    usage = namedtuple('usage', 'free')
    for path in free:
        path.mkdir()
    monkeypatch.setattr(disk.shutil, 'disk_usage', lambda path: usage(free.get(path, 10**9)))
    monkeypatch.setattr(disk, '_device', str)
    return RunSettings(tmp_path / 'raw', tmp_path / 'out', tmp_path / 'work')


def test_the_folder_with_the_least_space_is_named(run):
    told = explain_full_disk(FULL, run)
    assert told.startswith(f'no space was left in the work folder (-w) {run.work_dir} (now 0.1 MB')


def test_a_path_in_the_error_tells_the_folder(run):
    told = explain_full_disk(f"{FULL}: '{run.work_dir}/a' -> '{run.output_dir}/x/b'", run)
    assert told.startswith(f'no space was left in the output folder {run.output_dir} (now 5.0 MB')


def test_folders_of_one_disk_are_named_both(run, monkeypatch):
    monkeypatch.setattr(disk, '_device', lambda path: 1)
    assert 'the output folder' in (told := explain_full_disk(FULL, run))
    assert 'the work folder' in told


def test_other_errors_keep_their_words(run):
    assert explain_full_disk('OSError: no such thing', run) == 'OSError: no such thing'
