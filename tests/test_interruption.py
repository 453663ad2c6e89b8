# SPDX-License-Identifier: Apache-2.0
"""The command is killed, stopped, and called twice at a time: nothing is lost, mixed or left over.

A small head is run once undisturbed; what disturbed runs write is compared with that.
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

from ctpprep.phantom import PhantomSettings, make_phantom, write_bids

HEAD = PhantomSettings(
    seed=11, matrix=64, voxel_size_mm=(3.4, 3.4, 8.0), n_slices=10, n_frames=20,
    frame_interval=2.0, motion_mm=1.0, lesion='large', lesion_side='left',
)  # fmt: skip
PATIENCE = 300  # s, on a busy machine


def hear_ctrl_c():
    """Take Ctrl-C as in a terminal: what a shell runs in the background ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(folder, out, *options, work='work', participant='01'):
    """Start the command in a session of its own, so that all its processes can be told."""
    command = [sys.executable, '-m', 'ctpprep', folder / 'raw', folder / out, 'participant']
    command += ['-w', folder / work, '--participant-label', participant, *options]
    return subprocess.Popen(
        [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True, preexec_fn=hear_ctrl_c,
        env={k: v for k, v in os.environ.items() if k != 'TEMPLATEFLOW_HOME'},
    )  # fmt: skip


def finish(process):
    said, complained = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said + complained
    return said


def session(process):
    """List the living processes of a session."""
    found = []
    for each in psutil.process_iter(['status']):
        try:
            if os.getsid(each.pid) == process.pid and each.info['status'] != psutil.STATUS_ZOMBIE:
                found.append(each.pid)
        except ProcessLookupError:
            continue
    return found


def wait_until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, 'waited in vain'
        time.sleep(0.02)


def finished_nodes(work):
    """List the nodes that have ended, by their folders, with the time of their results."""
    return {
        path.parent.relative_to(work): path.stat().st_mtime_ns
        for path in work.rglob('result_*.pklz')
        if any(not each.stem.endswith('_unfinished') for each in path.parent.glob('_0x*.json'))
    }


def contents(out, participant='01'):
    """Read what is to be the same: voxels, grids, tables, sidecars, figures."""
    found = {}
    for path in sorted((out / f'sub-{participant}').rglob('*')):
        name = path.relative_to(out).as_posix()
        if path.suffix == '.h5' or path.is_dir():  # a transform holds the date
            found[name] = None
        elif path.name.endswith('.nii.gz'):
            image = nb.load(path)
            found[name] = (np.asarray(image.dataobj).tobytes(), image.affine.tobytes())
        else:
            found[name] = path.read_bytes()
    return found


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    """Give the folder of the dataset and the undisturbed run."""
    folder = tmp_path_factory.mktemp('interruption')
    head = make_phantom(HEAD)
    for participant in ('01', '02'):
        write_bids(head, folder / 'raw', participant)
    finish(start(folder, 'whole', '--nprocs', '2', work='whole_work'))
    return SimpleNamespace(
        folder=folder, contents=contents(folder / 'whole'),
        n_nodes=len(finished_nodes(folder / 'whole_work')),
    )  # fmt: skip


# -- killed


@pytest.mark.slow
@pytest.mark.resume
@pytest.mark.parametrize('moment', range(5))
def test_a_killed_run_is_taken_up_where_it_was(site, moment):
    """The moment is a random one of a fifth of the run."""
    rng = random.Random(moment)
    n_finished = int((site.n_nodes - 3) * (moment + rng.random()) / 5)  # the last are too short
    out, work = f'killed{moment}', f'killed{moment}_work'
    process = start(site.folder, out, '--nprocs', '2', work=work)
    wait_until(lambda: len(finished_nodes(site.folder / work)) >= n_finished)
    time.sleep(rng.uniform(0, 0.3))
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, 'the run was over before it was killed'
    process.communicate()
    wait_until(lambda: not session(process))
    before = finished_nodes(site.folder / work)
    finish(start(site.folder, out, '--nprocs', '2', work=work))
    after = finished_nodes(site.folder / work)
    assert len(after) == site.n_nodes
    repeated = [str(node) for node in before if after[node] != before[node]]
    assert all(node.rpartition('/')[2].startswith('write_') for node in repeated)
    found = contents(site.folder / out)
    assert found.keys() == site.contents.keys()
    assert [name for name in found if found[name] != site.contents[name]] == []
    assert not [path for path in (site.folder / out).rglob('.*') if path.name != '.bidsignore']


# -- stopped


@pytest.mark.parametrize('nprocs', [1, 2])
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_ends_at_once_and_leaves_no_process(site, nprocs, number):
    name = f'stopped{nprocs}{number}'
    process = start(site.folder, name, '--nprocs', str(nprocs), work=f'{name}_work')
    logs = site.folder / name / 'logs'
    wait_until(
        lambda: any('register_mirror' in each.read_text() for each in logs.glob('run-*.log'))
    )
    if number == signal.SIGINT:  # as a terminal does
        os.killpg(process.pid, number)
    else:
        os.kill(process.pid, number)
    complained = process.communicate(timeout=PATIENCE)[1]
    word = {signal.SIGINT: 'interrupted', signal.SIGTERM: 'terminated'}[number]
    assert complained == f'ctpprep: error: {word}; the same command takes up the work again\n'
    assert process.returncode == 128 + number
    wait_until(lambda: not session(process))
    assert not list((site.folder / name).rglob('crash-*'))


# -- two at a time


def test_two_calls_on_the_same_folders_do_not_disturb_one_another(site):
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
