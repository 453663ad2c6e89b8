# SPDX-License-Identifier: Apache-2.0
"""Work folders and pickles that another user owns or can write are refused."""

import os
import stat

import pytest

from ctpprep.engine.ownership import secure_work_folder
from ctpprep.engine.run import work_folder
from ctpprep.exceptions import UsageError
from ctpprep.settings import RunSettings


@pytest.fixture
def run(tmp_path):
    (tmp_path / 'work').mkdir(mode=0o755)
    return RunSettings(tmp_path / 'raw', tmp_path / 'out', tmp_path / 'work')


@pytest.fixture
def pickle(run):
    """Write a result of sub-01 as nipype does."""
    folder = work_folder(run) / 'ctpprep_wf' / 'sub_01_wf' / 'node'
    secure_work_folder([], run)
    folder.mkdir(parents=True)
    path = folder / 'result_node.pklz'
    path.touch(mode=0o644)
    return path


def test_new_work_folder_is_closed_to_others(run):
    secure_work_folder(['01'], run)
    assert stat.S_IMODE(work_folder(run).stat().st_mode) == 0o700


def test_own_results_are_accepted(run, pickle):
    secure_work_folder(['01'], run)


def test_work_folder_that_others_can_write_is_refused_unless_it_is_sticky(run):
    run.work_dir.chmod(0o777)
    with pytest.raises(UsageError, match=r'can be written by other users \(mode 777\).*-w'):
        secure_work_folder(['01'], run)
    run.work_dir.chmod(0o1777)
    secure_work_folder(['01'], run)


@pytest.mark.parametrize('level', range(3))
def test_result_that_others_can_write_is_refused(run, pickle, level):
    [pickle, *pickle.parents][level].chmod(0o777)
    with pytest.raises(UsageError, match='can be written by other users'):
        secure_work_folder(['01'], run)
    secure_work_folder(['02'], run)


@pytest.mark.parametrize('level', range(5))
def test_result_of_another_user_is_refused(run, pickle, level):
    try:
        os.chown([pickle, *pickle.parents][level], 54321, -1)
    except OSError as error:
        pytest.skip(f'files cannot be given away here: {error.strerror}')
    with pytest.raises(UsageError, match=r'belongs to another user \(uid 54321\)'):
        secure_work_folder(['01'], run)
