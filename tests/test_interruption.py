# SPDX-License-Identifier: Apache-2.0
"""Killed, stopped and simultaneous commands: nothing is lost, mixed or left over.

The outputs of disturbed runs of a small head are compared with those of an undisturbed run.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import nibabel as nb
import numpy as np
import psutil
import pytest

from ctpprep.phantom import write_bids

PATIENCE = 300  # s, on a busy machine


def accept_ctrl_c():
    """Receive Ctrl-C as in a terminal; a shell makes background processes ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(folder, out, *options, work='work', participant='01'):
    """Start the command in a session of its own, by which its processes are found."""
    command = [sys.executable, '-m', 'ctpprep', folder / 'raw', folder / out, 'participant']
    command += ['-w', folder / work, '--participant-label', participant, *options]
    return subprocess.Popen(
        [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True, preexec_fn=accept_ctrl_c,
        env={k: v for k, v in os.environ.items() if k != 'TEMPLATEFLOW_HOME'},
    )  # fmt: skip


def finish(process):
    output, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, output + errors


def session(process):
    """List the living processes of a session."""
    living = []
    for other in psutil.process_iter(['status']):
        try:
            in_session = os.getsid(other.pid) == process.pid
        except ProcessLookupError:
            continue
        if in_session and other.info['status'] != psutil.STATUS_ZOMBIE:
            living.append(other.pid)
    return living


def wait_until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, 'the condition was never met'
        time.sleep(0.02)


def finished_nodes(work):
    """Return the times of the results of all nodes that have ended, by folder."""
    return {
        path.parent.relative_to(work): path.stat().st_mtime_ns
        for path in work.rglob('result_*.pklz')
        if any(not mark.stem.endswith('_unfinished') for mark in path.parent.glob('_0x*.json'))
    }


def contents(out, participant='01'):
    """Read what must be identical: voxels, grids, tables, sidecars, figures."""
    files = {}
    for path in sorted((out / f'sub-{participant}').rglob('*')):
        name = path.relative_to(out).as_posix()
        if path.suffix == '.h5' or path.is_dir():  # a transform contains the date
            files[name] = None
        elif path.name.endswith('.nii.gz'):
            image = nb.load(path)
            files[name] = (np.asarray(image.dataobj).tobytes(), image.affine.tobytes())
        else:
            files[name] = path.read_bytes()
    return files


@pytest.fixture(scope='module')
def site(coarse_head, tmp_path_factory):
    """Return the folder of the dataset and the outputs of the undisturbed run."""
    folder = tmp_path_factory.mktemp('interruption')
    for participant in ('01', '02'):
        write_bids(coarse_head, folder / 'raw', participant)
    finish(start(folder, 'whole', '--nprocs', '2', work='whole_work'))
    return SimpleNamespace(
        folder=folder, contents=contents(folder / 'whole'),
        n_nodes=len(finished_nodes(folder / 'whole_work')),
    )  # fmt: skip


# -- killed


@pytest.mark.slow
@pytest.mark.resume
@pytest.mark.parametrize('moment', range(5))
def test_a_killed_run_continues_where_it_was(site, moment):
    """It is killed at a random moment of each fifth of the run."""
    rng = random.Random(moment)
    n_finished = int((site.n_nodes - 3) * (moment + rng.random()) / 5)  # the last are too short
    out, work = f'killed{moment}', f'killed{moment}_work'
    process = start(site.folder, out, '--nprocs', '2', work=work)
    wait_until(lambda: len(finished_nodes(site.folder / work)) >= n_finished)
    time.sleep(rng.uniform(0, 0.3))
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, 'the run ended before it was killed'
    process.communicate()
    wait_until(lambda: not session(process))
    before = finished_nodes(site.folder / work)
    finish(start(site.folder, out, '--nprocs', '2', work=work))
    after = finished_nodes(site.folder / work)
    assert len(after) == site.n_nodes
    repeated = [str(node) for node in before if after[node] != before[node]]
    assert all(node.rpartition('/')[2].startswith('write_') for node in repeated)
    files = contents(site.folder / out)
    assert files.keys() == site.contents.keys()
    assert [name for name in files if files[name] != site.contents[name]] == []
    assert not [path for path in (site.folder / out).rglob('.*') if path.name != '.bidsignore']


# -- stopped


@pytest.mark.parametrize('nprocs', [1, 2])
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_leaves_no_process(site, nprocs, number):
    name = f'stopped{nprocs}{number}'
    process = start(site.folder, name, '--nprocs', str(nprocs), work=f'{name}_work')
    logs = site.folder / name / 'logs'
    wait_until(lambda: any('register_mirror' in log.read_text() for log in logs.glob('run-*.log')))
    if number == signal.SIGINT:  # as a terminal does
        os.killpg(process.pid, number)
    else:
        os.kill(process.pid, number)
    errors = process.communicate(timeout=PATIENCE)[1]
    word = {signal.SIGINT: 'interrupted', signal.SIGTERM: 'terminated'}[number]
    assert errors == f'ctpprep: error: {word}; repeat the same command to continue\n'
    assert process.returncode == 128 + number
    wait_until(lambda: not session(process))
    assert not list((site.folder / name).rglob('crash-*'))


# -- two calls at a time


def test_simultaneous_calls_on_the_same_folders_do_not_disturb_each_other(site):
    calls = [start(site.folder, 'both', '--nprocs', '1', participant=p) for p in ('01', '02')]
    for call in calls:
        finish(call)
    out = site.folder / 'both'
    assert contents(out) == site.contents
    other = contents(out, '02')
    assert [name.replace('sub-02', 'sub-01') for name in other] == list(site.contents)
    for name, content in other.items():
        if name.endswith('.nii.gz'):
            assert content == site.contents[name.replace('sub-02', 'sub-01')], name
    shared = ('dataset_description.json', '.bidsignore')
    assert all(
        (out / name).read_bytes() == (site.folder / 'whole' / name).read_bytes() for name in shared
    )
    assert json.loads((out / shared[0]).read_text())['DatasetLinks'] == {'raw': '../raw'}
    assert len(list((out / 'logs').glob('run-*.log'))) == 2
    assert {path.name for path in out.glob('*.html')} == {'sub-01.html', 'sub-02.html'}
