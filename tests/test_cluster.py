# SPDX-License-Identifier: Apache-2.0
"""Jobs of a real SLURM on this machine: array jobs that go wrong in every way, and nipype's plugin.

``make test-cluster`` runs it; a small head takes about 10 s a participant.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from ctpprep.phantom import write_bids

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / 'tests' / 'tools'))

from loopback_slurm import loopback_slurm  # noqa: E402

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

LABELS = ('01', '02', '03', '04', '05')
PATIENCE = 300  # s, on a busy machine


@pytest.fixture(scope='module')
def slurm():
    """Start a cluster of two nodes whose arrays have three tasks at most."""
    with (
        tempfile.TemporaryDirectory(prefix='slurm-') as folder,  # short: it holds a socket
        loopback_slurm(Path(folder)) as environment,
    ):
        environment = {k: v for k, v in environment.items() if k != 'TEMPLATEFLOW_HOME'}
        yield environment | {'CTPPREP': f'{sys.executable} -m ctpprep'}


@pytest.fixture(scope='module')
def site(slurm, coarse_head, tmp_path_factory):
    """Give a dataset of five participants, one of them broken, and ways to call and to wait."""
    folder = tmp_path_factory.mktemp('cluster')
    raw, out = folder / 'raw', folder / 'out'
    for label in LABELS:
        write_bids(coarse_head, raw, label)
    series = raw / 'sub-02' / 'ct' / 'sub-02_ctp.nii.gz'
    whole = series.read_bytes()
    series.write_bytes(whole[: len(whole) // 2])

    def run(*command, code=0):
        done = subprocess.run(
            [str(word) for word in command], env=slurm, cwd=folder, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert code in (done.returncode, None), done.stdout + done.stderr
        return done.stdout + done.stderr

    def cluster(action, *options, code=0):
        return run('python3', ROOT / 'ctpprep/cluster/ctpprep_cluster.py', action, raw, out, *options,
                   code=code)  # fmt: skip

    def states():
        lines = cluster('status', '--tsv', code=None).splitlines()
        return {line.split('\t')[0][4:]: line.split('\t')[1:3] for line in lines[1:]}

    def ctpprep(*options, code=0):
        return run(sys.executable, '-m', 'ctpprep', raw, out, *options, code=code)

    return SimpleNamespace(
        raw=raw, out=out, run=run, cluster=cluster, states=states, ctpprep=ctpprep, series=series,
        whole=whole, folder=folder,
    )  # fmt: skip


def wait_until(condition):
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < end, 'waited in vain'
        time.sleep(0.5)
    return found


def job_of(site, label):
    """Find the running task of a participant, as scancel knows it."""
    for path in site.out.glob('logs/slurm/*/participants.txt'):
        place = path.read_text().split().index(label) + 1 if label in path.read_text() else 0
        name = f'ctpprep-{path.parent.name}'
        listed = site.run('squeue', '--noheader', '--array', '--format=%F_%K %j %T')
        for job, its_name, state in (line.split() for line in listed.splitlines()):
            if its_name == name and job.endswith(f'_{place}') and state == 'RUNNING':
                return job
    return None


@pytest.fixture(scope='module')
def first(site):
    """Run all five: 02 is broken, 03 is cancelled, 04 has too little memory. Give their states."""
    options = ['--cpus-per-task', '2', '--time', '10']
    site.cluster('submit', '--participant-label', '04', '--mem', '150M', *options)
    told = site.cluster('submit', '--mem', '2G', *options)
    assert told.count('job ') == 2  # 01 02 03, and 05
    status = site.out / 'logs' / 'sub-03_status.json'
    wait_until(status.exists)
    site.run('scancel', wait_until(lambda: job_of(site, '03')))
    ended = {'succeeded', 'failed', 'stopped'}
    wait_until(lambda: {state for state, _ in site.states().values()} <= ended)
    return site.states()


def test_participants_that_nothing_befell_succeed(first):
    assert [first[label][0] for label in ('01', '05')] == ['succeeded', 'succeeded']


def test_a_broken_file_fails_with_its_cause(first):
    state, cause = first['02']
    assert state == 'failed'
    assert 'sub-02_ctp.nii.gz' in cause


def test_a_cancelled_task_is_told(first):
    assert first['03'] == ['stopped', 'cancelled']


def test_a_task_killed_for_memory_is_told(first):
    state, cause = first['04']
    assert state == 'stopped'
    assert 'memory ran out' in cause


def test_those_that_failed_are_not_submitted_again_unasked(site, first):
    assert 'nothing to submit' in site.cluster('submit')


@pytest.fixture(scope='module')
def rerun(site, first):
    """Mend the broken file and run what failed or was stopped again, on scratch of the node."""
    site.series.write_bytes(site.whole)
    done = {label: (site.out / f'logs/sub-{label}_status.json').stat() for label in ('01', '05')}
    site.cluster(
        'submit', '--rerun', '--mem', '2G', '--per-task', '2', '--scratch', site.folder / 'scratch'
    )
    assert site.cluster('list', '--rerun') == ''  # they are in the queue
    wait_until(lambda: not any(s in ('waiting', 'running') for s, _ in site.states().values()))
    return done


def test_after_a_rerun_the_dataset_is_complete(site, rerun):
    assert '5 participants: 5 succeeded' in site.cluster('status')
    reference = written(site.out, '01')
    assert len(reference) > 50
    assert all(written(site.out, label) == reference for label in LABELS)


def written(out, label):
    """Name the files of a participant; records of failures are not of its results."""
    home = out / f'sub-{label}'
    return {
        path.relative_to(home).as_posix().replace(f'sub-{label}', 'sub-')
        for path in home.rglob('*')
        if path.is_file() and 'log' not in path.relative_to(home).parts
    } | {path.name.replace(label, '') for path in out.glob(f'sub-{label}.html')}


def test_a_rerun_leaves_alone_who_had_succeeded(site, rerun):
    for label, before in rerun.items():
        assert (site.out / f'logs/sub-{label}_status.json').stat() == before


def test_scratch_is_empty_afterwards(site, rerun):
    assert list((site.folder / 'scratch').iterdir()) == []


def test_a_job_at_the_end_sums_up(site, rerun):
    table = site.out / 'logs' / 'slurm' / 'summary.tsv'
    wait_until(lambda: table.exists() and table.read_text().count('\tsucceeded\t') == len(LABELS))


def test_group_tables_hold_all_participants(site, rerun):
    site.ctpprep('group')
    table = pd.read_csv(site.out / 'group_volumes.tsv', sep='\t')
    assert set(table.participant_id) == {f'sub-{label}' for label in LABELS}
    quality = pd.read_csv(site.out / 'group_quality.tsv', sep='\t')
    assert len(quality) == len(LABELS)


# -- nodes as jobs


@pytest.fixture
def plugin(site):
    """Write a plugin file; give the options that use it."""

    def write(name):
        path = site.folder / f'{name}.yml'
        path.write_text(f'plugin: {name}\nplugin_args: {{sbatch_args: "--mem 900M --time 10"}}\n')
        return ['--use-plugin', str(path)]

    return write


def test_a_node_whose_job_is_cancelled_fails_and_the_same_command_takes_up(slurm, site, plugin):
    raw, out, work = site.raw, site.folder / 'nodes', site.folder / 'nodes_work'
    command = [sys.executable, '-m', 'ctpprep', raw, out, 'participant', '--participant-label', '01',
               '-w', work, *plugin('SLURM')]  # fmt: skip
    process = subprocess.Popen(
        [str(word) for word in command], env=slurm, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip

    def registering():
        listed = site.run('squeue', '--noheader', '--format=%i %j %T')
        return [line.split()[0] for line in listed.splitlines()
                if line.split()[1].startswith('register_mirror') and line.endswith('RUNNING')]  # fmt: skip

    site.run('scancel', wait_until(registering)[0])
    said = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == 1, said
    assert 'TypeError' not in said
    assert 'ended without a result' in said
    assert 'CANCELLED AT' in said
    told = json.loads((out / 'logs' / 'sub-01_status.json').read_text())
    assert told['State'] == 'failed'
    site.run(*command)
    assert written(out, '01') == written(site.out, '01')


def test_a_plugin_that_does_not_wait_is_refused_with_the_reason(site, plugin):
    told = site.ctpprep('participant', *plugin('SLURMGraph'), code=2)
    assert told.count('\n') == 1
    assert 'returns immediately' in told
