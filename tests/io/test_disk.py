# SPDX-License-Identifier: Apache-2.0
"""Errors of a full disk name the folder and what to do."""

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
    """Return a run whose work folder is on a disk of its own, with the least space."""
    free = {tmp_path / 'out': 5_000_000, tmp_path / 'work': 100_000}
    usage = namedtuple('usage', 'free')
    for path in free:
        path.mkdir()
    monkeypatch.setattr(disk.shutil, 'disk_usage', lambda path: usage(free.get(path, 10**9)))
    monkeypatch.setattr(disk, '_device', str)
    return RunSettings(tmp_path / 'raw', tmp_path / 'out', tmp_path / 'work')


def test_folder_with_the_least_space_is_named(run):
    message = explain_full_disk(FULL, run)
    assert message.startswith(f'no space was left in the work folder (-w) {run.work_dir} (0.1 MB')
    assert message.endswith('free some space and run the command again')


def test_folder_of_the_target_in_the_error_is_named(run):
    message = explain_full_disk(f"{FULL}: '{run.work_dir}/a' -> '{run.output_dir}/x/b'", run)
    assert message.startswith(f'no space was left in the output folder {run.output_dir} (5.0 MB')


def test_both_folders_of_one_disk_are_named(run, monkeypatch):
    monkeypatch.setattr(disk, '_device', lambda path: 1)
    message = explain_full_disk(FULL, run)
    assert 'the output folder' in message
    assert 'the work folder' in message


def test_an_exhausted_quota_is_named(run):
    message = explain_full_disk(f'OSError: {os.strerror(errno.EDQUOT)}', run)
    assert message.startswith('the disk quota is exhausted in the work folder')


def test_other_errors_are_unchanged(run):
    assert explain_full_disk('OSError: no such thing', run) == 'OSError: no such thing'
