# SPDX-License-Identifier: Apache-2.0
"""The script that submits: whom it takes, and what it tells of each, without a scheduler."""

import ast
import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[1] / 'ctpprep' / 'cluster'


@pytest.fixture
def cluster():
    spec = importlib.util.spec_from_file_location('cluster', SCRIPTS / 'ctpprep_cluster.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def site(tmp_path, cluster, monkeypatch):
    """Give a dataset of three participants, all submitted as one array, and a queue to fill."""
    raw, out, queue = tmp_path / 'raw', tmp_path / 'out', {}
    for label in ('a', 'b', 'c'):
        (raw / f'sub-{label}').mkdir(parents=True)
    folder = out / 'logs' / 'slurm' / 'first'
    folder.mkdir(parents=True)
    (folder / 'participants.txt').write_text('a\nb\nc\n')
    (folder / 'per_task').write_text('1\n')
    monkeypatch.setattr(cluster, 'read_queue', lambda: queue)
    return raw, out, folder, queue


def write_status(out, label, state, cause=''):
    told = {
        'State': state, 'Run': 'x', 'Series': [{'Series': f'sub-{label}', 'Cause': cause}]
    }  # fmt: skip
    (out / 'logs' / f'sub-{label}_status.json').write_text(json.dumps(told))


def test_what_ctpprep_and_the_queue_tell_is_put_together(site, cluster):
    raw, out, _, queue = site
    write_status(out, 'a', 'succeeded')
    write_status(out, 'b', 'failed', 'no contrast')
    queue['first', 3] = 'running'
    rows = cluster.look(raw, out)
    assert [row.state for row in rows] == ['succeeded', 'failed', 'running']
    assert rows[1].cause == 'sub-b: no contrast'


@pytest.mark.parametrize(
    ('said', 'cause'),
    [
        ('slurmstepd: error: Exceeded job memory limit\n', 'memory ran out'),
        ('slurmstepd: error: Detected 1 oom-kill event(s) in StepId=1.batch\n', 'memory ran out'),
        ('slurmstepd: error: *** JOB 1 ON n CANCELLED AT x DUE TO TIME LIMIT ***\n', 'time limit'),
        ('slurmstepd: error: *** JOB 1 ON n CANCELLED AT x ***\nterminated\n', 'cancelled'),
        ('ctpprep.sbatch: ctpprep: command not found\n', 'command not found'),
        ('', 'killed without a word'),
        (None, 'never began'),
    ],
)
def test_a_task_that_left_its_run_behind_is_stopped_and_says_why(site, cluster, said, cause):
    raw, out, folder, _ = site
    write_status(out, 'a', 'running')
    if said is not None:
        (folder / '1.log').write_text(said)
    row = cluster.look(raw, out)[0]
    assert row.state == 'stopped'
    assert cause in row.cause


def test_a_log_of_the_last_submission_counts(site, cluster):
    raw, out, folder, queue = site
    later = folder.with_name('second')
    later.mkdir()
    (later / 'participants.txt').write_text('b\nc\n')
    (later / 'per_task').write_text('2\n')
    queue['second', 1] = 'waiting'
    assert [row.state for row in cluster.look(raw, out)] == ['stopped', 'waiting', 'waiting']


@pytest.mark.parametrize(('options', 'taken'), [([], 'd'), (['--rerun'], 'b c d')])
def test_what_failed_or_stopped_is_taken_again_when_asked_for(
    site, cluster, capsys, options, taken
):
    raw, out, *_ = site
    (raw / 'sub-d').mkdir()
    write_status(out, 'a', 'succeeded')
    write_status(out, 'b', 'failed')
    assert cluster.main(['list', str(raw), str(out), *options]) == 0
    assert capsys.readouterr().out.split() == taken.split()


def test_participants_are_those_of_the_table_that_have_a_folder(site, cluster, capsys):
    raw, *_ = site
    (raw / 'participants.tsv').write_text('participant_id\tage\nsub-c\t60\nsub-e\t61\nsub-a\t62\n')
    assert cluster.list_participants(raw) == ['c', 'a']
    told = capsys.readouterr().err
    assert 'without a folder: e' in told
    assert 'not in participants.tsv: b' in told


def test_status_succeeds_when_all_have(site, cluster, capsys):
    raw, out, *_ = site
    for label in ('a', 'b'):
        write_status(out, label, 'succeeded')
    assert cluster.main(['status', str(raw), str(out)]) == 1
    assert '3 participants: 2 succeeded, 1 stopped' in capsys.readouterr().out
    write_status(out, 'c', 'succeeded')
    assert cluster.main(['status', str(raw), str(out)]) == 0


def test_a_participant_without_series_is_settled(site, cluster, capsys):
    raw, out, *_ = site
    for label in 'abc':
        write_status(out, label, 'nothing', 'no CT perfusion series')
    assert cluster.main(['status', str(raw), str(out)]) == 0
    assert 'sub-a  nothing' in capsys.readouterr().out
    assert cluster.main(['list', str(raw), str(out), '--rerun']) == 0
    assert capsys.readouterr().out == ''


def test_without_a_working_scheduler_the_queue_is_not_known(cluster, monkeypatch, capsys):
    def call(*_):
        raise cluster.Failed('no slurm.conf')

    monkeypatch.setattr(cluster, 'call', call)
    monkeypatch.setattr(cluster.shutil, 'which', lambda _: '/bin/squeue')
    assert cluster.read_queue() is None
    assert cluster.max_array_size() == 1001
    assert capsys.readouterr().err.count('no slurm.conf') == 2


def test_chunks_stay_below_the_largest_array(site, cluster, capsys, monkeypatch):
    raw, out, *_ = site
    for label in 'defghij':
        (raw / f'sub-{label}').mkdir()
    monkeypatch.setattr(cluster, 'max_array_size', lambda: 3)
    argv = ['submit', str(raw), str(out), '--dry-run', '--per-task', '2', '--throttle', '5']
    assert cluster.main([*argv, '--', '--denoise', 'none']) == 0
    calls = capsys.readouterr().out.splitlines()
    arrays = [word for call in calls for word in call.split() if word.startswith('--array')]
    assert arrays == ['--array=1-2%5', '--array=1-2%5']  # d-g, h-j
    assert all(call.endswith(' --denoise none') for call in calls)
    assert not list(out.glob('logs/slurm/2*'))


def test_the_script_is_one_for_python_3_6():
    ast.parse((SCRIPTS / 'ctpprep_cluster.py').read_text(), feature_version=(3, 6))


@pytest.mark.skipif(shutil.which('shellcheck') is None, reason='shellcheck is not installed')
def test_the_task_passes_shellcheck():
    subprocess.run(['shellcheck', SCRIPTS / 'ctpprep.sbatch'], check=True)


def test_copy_runs_where_nothing_is_installed(cluster, site, tmp_path):
    raw, out, _, _ = site
    assert cluster.main(['copy', str(tmp_path / 'login')]) == 0
    script = tmp_path / 'login' / 'ctpprep_cluster.py'
    assert script.with_name('ctpprep.sbatch').is_file()
    command = [sys.executable, '-I', '-S', script, 'list', raw, out, '--rerun']
    run = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == ['a', 'b', 'c']
