# SPDX-License-Identifier: Apache-2.0
"""Running graphs that succeed, fail and are killed; the nodes here are tiny."""

import gc
import hashlib
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from nipype.interfaces.base import specs
from nipype.interfaces.utility import Function, IdentityInterface
from nipype.pipeline.engine import MapNode, Node, Workflow
from nipype.pipeline.plugins import base, tools

from ctpprep.engine import crashes, hashes, order
from ctpprep.engine.order import SeriesBySeriesPlugin
from ctpprep.engine.processes import SturdyMultiProcPlugin
from ctpprep.engine.progress import Owners
from ctpprep.engine.run import run_workflow
from ctpprep.inputs.series import CTPSeries, workflow_name
from ctpprep.settings import RunSettings


def make_series(prefix):
    return CTPSeries(
        Path(f'{prefix}_ctp.nii.gz'),
        prefix,
        prefix.split('_')[0].removeprefix('sub-'),
        None,
        '',
        '',
        (),
        (),
        '',
        {},
    )


def run_out_of_space(number):
    from nipype.pipeline.engine import nodes

    def fail(*args, **kwargs):
        raise OSError(28, 'No space left on device')

    nodes._save_resultfile = fail  # in this process alone
    fail()


def pass_on(number):
    return number


def find_no_bolus(number):
    from ctpprep.exceptions import BolusError

    raise BolusError('no contrast arrives in frames 1 to 27')


def divide_by_zero(number):
    return 1 / 0


def find_no_second_bolus(number):
    from ctpprep.exceptions import BolusError

    if number == 2:
        raise BolusError('chunk 2 is empty')
    return number


def kill_own_process(number):
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)


def kill_first_process(number):
    import os
    import pathlib
    import signal

    mark = pathlib.Path.cwd().parent / 'killed'
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def take_time(number):
    import pathlib
    import time

    began = time.time()
    time.sleep(1)
    pathlib.Path('times.txt').write_text(f'{began} {time.time()}')
    return number


def kill_first_process_and_take_time(number):
    import os
    import pathlib
    import signal
    import time

    mark = pathlib.Path.cwd().parent / 'killed'
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    began = time.time()
    time.sleep(1)
    pathlib.Path('times.txt').write_text(f'{began} {time.time()}')
    return number


def sleep_long(number):
    import os
    import pathlib
    import time

    pathlib.Path(number).write_text(str(os.getpid()))
    time.sleep(60)


def hold_the_lock(number):
    """Compute for minutes in C without letting any other thread of Python run."""
    import os
    import pathlib
    import re

    pathlib.Path(number).write_text(str(os.getpid()))
    re.match('(a+)+$', 40 * 'a' + 'b')


def make_workflow(stages):
    """Build ctpprep_wf.<participant>_wf.<series>_wf.{inputnode,first,second} for each series."""
    top = Workflow('ctpprep_wf')
    for prefix, (function, nodes) in stages.items():
        one = Workflow(workflow_name(prefix))
        start = Node(IdentityInterface(['number']), 'inputnode')
        start.inputs.number = [1, 2, 3] if nodes is MapNode else 1
        more = {'iterfield': ['number']} if nodes is MapNode else {}
        first = nodes(Function(function=function, output_names=['number']), name='first', **more)
        second = nodes(Function(function=pass_on, output_names=['number']), name='second', **more)
        one.connect([(start, first, [('number', 'number')])])
        one.connect([(first, second, [('number', 'number')])])
        home = Workflow(workflow_name(prefix.split('_')[0]))
        home.add_nodes([one])
        top.add_nodes([home])
    return top


def run_all(tmp_path, nprocs, options=None, watch=None, **functions):
    stages = {
        f'sub-{label}': each if isinstance(each, tuple) else (each, Node)
        for label, each in functions.items()
    }
    (tmp_path / 'work').mkdir(exist_ok=True)
    run = RunSettings(
        tmp_path, tmp_path / 'out', tmp_path / 'work', nprocs=nprocs, run_uuid='run1',
        **(options or {}),
    )  # fmt: skip
    series = [make_series(name) for name in stages]
    return run_workflow(make_workflow(stages), series, run, watch)


@pytest.mark.parametrize('nprocs', [1, 2])
def test_a_failing_series_does_not_stop_the_others(tmp_path, nprocs):
    bad, worse, good = run_all(tmp_path, nprocs, a=find_no_bolus, b=divide_by_zero, c=pass_on)
    assert not bad.succeeded
    assert bad.cause == 'no contrast arrives in frames 1 to 27'
    assert bad.crash_file.parent == tmp_path / 'out' / 'sub-a' / 'log' / 'run1'
    assert worse.cause == 'ZeroDivisionError: division by zero'
    assert good.succeeded


def test_an_empty_crash_file_blames_nobody(tmp_path):
    series = [make_series('sub-a'), make_series('sub-b')]
    run = RunSettings(tmp_path / 'raw', tmp_path / 'out', tmp_path / 'work', run_uuid='x')
    path = crashes.crash_dir(run, 'a') / 'crash-full.txt'
    path.parent.mkdir(parents=True)
    path.touch()
    assert crashes._read_failures(series, run) == {}


def test_a_full_disk_is_the_cause_and_not_the_result_that_is_missing_for_it(tmp_path):
    (bad,) = run_all(tmp_path, 2, a=run_out_of_space)
    assert bad.cause.startswith('no space was left in ')


@pytest.mark.parametrize('nprocs', [1, 2])
def test_one_chunk_fails_its_series(tmp_path, nprocs):
    bad, good = run_all(tmp_path, nprocs, a=(find_no_second_bolus, MapNode), b=(pass_on, MapNode))
    assert bad.cause == 'chunk 2 is empty'
    assert bad.crash_file.is_relative_to(tmp_path / 'out' / 'sub-a')
    assert good.succeeded


@pytest.mark.parametrize('nprocs', [1, 2])
def test_progress_names_series_and_stage_once(tmp_path, caplog, nprocs):
    caplog.set_level(logging.INFO, 'ctpprep')
    run_all(tmp_path, nprocs, a=(pass_on, MapNode), b=divide_by_zero)
    said = [' '.join(record.getMessage().split()[1:]) for record in caplog.records]
    assert [line for line in said if 'sub-a' in line] == [
        'sub-a first',
        'sub-a second',
        'sub-a done',
    ]
    assert [line for line in said if 'sub-b' in line] == ['sub-b first', 'sub-b first failed']


class Watcher:
    """Remember what a display is told."""

    def __init__(self):
        self.ended, self.shares, self.progress = {}, [], None

    def __call__(self, progress, state):
        self.progress = progress
        self.shares.append(progress.snapshot().share)
        if state.ended is not None:
            self.ended[state.prefix] = state


@pytest.mark.parametrize('nprocs', [1, 2])
def test_failures_are_counted_and_what_they_leave_out_is_done_with(tmp_path, nprocs):
    watch = Watcher()
    run_all(tmp_path, nprocs, None, watch, a=find_no_bolus, b=pass_on)
    now = watch.progress.snapshot()
    assert (now.n_succeeded, now.n_failed, now.n_running, now.share) == (1, 1, 0, 1.0)
    assert watch.ended['sub-a'].failed_stage == 'first'
    assert watch.ended['sub-a'].cause == 'no contrast arrives in frames 1 to 27'
    assert watch.shares == sorted(watch.shares)


def test_a_second_try_leaves_nothing_short(tmp_path):
    watch = Watcher()
    run_all(tmp_path, 2, None, watch, a=kill_first_process, b=take_time)
    now = watch.progress.snapshot()
    assert (now.n_succeeded, now.n_failed, now.share) == (2, 0, 1.0)
    assert not watch.progress.forecast.running


@pytest.mark.parametrize('nprocs', [1, 2])
def test_what_was_kept_counts_as_done_and_not_as_run(tmp_path, nprocs):
    run_all(tmp_path, 2, a=pass_on)
    for result in (tmp_path / 'work').rglob('result_*.pklz'):
        os.utime(result, (0, 0))  # as of an earlier day
    watch = Watcher()
    run_all(tmp_path, nprocs, None, watch, a=pass_on)
    assert watch.progress.snapshot().share == 1
    assert watch.progress.forecast.has_run == 0


@pytest.mark.parametrize('nprocs', [1, 2])
def test_the_first_series_end_before_the_last_begin(tmp_path, caplog, nprocs):
    caplog.set_level(logging.INFO, 'ctpprep')
    run_all(tmp_path, nprocs, **dict.fromkeys('abcdef', pass_on))
    said = [' '.join(record.getMessage().split()[1:]) for record in caplog.records]
    assert said.index('sub-a done') < said.index('sub-f first')


def test_a_display_that_breaks_does_not_stop_the_run(tmp_path):
    (result,) = run_all(tmp_path, 2, None, lambda *_: 1 / 0, a=pass_on)
    assert result.succeeded


def wait_a_little(number):
    import time

    time.sleep(3)
    return number


@pytest.mark.parametrize('nprocs', [1, 2])
def test_the_first_crash_stops_the_others_if_asked_to(tmp_path, nprocs):
    stop = {'stop_on_first_crash': True}
    bad, late = run_all(tmp_path, nprocs, stop, a=find_no_bolus, b=wait_a_little)
    assert bad.cause == 'no contrast arrives in frames 1 to 27'
    assert late.cause == 'not finished: stopped on the first crash'


@pytest.mark.parametrize('nprocs', [1, 2])
def test_what_was_not_run_when_nipype_broke_down_is_no_success(tmp_path, monkeypatch, nprocs):
    report, reports = tools.report_crash, []

    def disk_is_full(node, traceback=None):
        if reports:
            raise OSError(28, 'No space left on device')
        reports.append(report(node, traceback))
        return reports[0]

    for module in (order, base):
        monkeypatch.setattr(module, 'report_crash', disk_is_full)
    results = run_all(tmp_path, nprocs, a=divide_by_zero, b=divide_by_zero, c=wait_a_little)
    assert not [each.prefix for each in results if each.succeeded]
    causes = sorted(each.cause for each in results)
    assert causes[0] == 'ZeroDivisionError: division by zero'
    assert causes[1].startswith('first failed without a crash file; not finished: no space was')
    assert causes[2].startswith('not finished: no space was left in ')


@pytest.mark.parametrize(('text', 'kind'), [
    ('plugin: MultiProc\nplugin_args: {n_procs: 2}', SturdyMultiProcPlugin),
    ('plugin: Linear', SeriesBySeriesPlugin),
])  # fmt: skip
def test_a_plugin_of_the_user_runs_the_graph(tmp_path, text, kind, monkeypatch):
    seen = []
    monkeypatch.setattr(kind, 'run', lambda self, graph, **_: seen.append(type(self)))
    (tmp_path / 'p.yml').write_text(text)
    run_all(tmp_path, 1, {'use_plugin': tmp_path / 'p.yml'}, a=pass_on)
    assert seen == [kind]


def test_a_killed_process_is_tried_again(tmp_path):
    (result,) = run_all(tmp_path, 2, a=kill_first_process)
    assert result.succeeded


def test_a_second_try_has_the_memory_for_itself(tmp_path):
    others = dict.fromkeys('bcd', take_time)
    results = run_all(tmp_path, 2, a=kill_first_process_and_take_time, **others)
    assert all(each.succeeded for each in results)
    files = list((tmp_path / 'work').rglob('times.txt'))
    times = {each: [float(t) for t in each.read_text().split()] for each in files}
    assert len(times) == 4
    for began, ended in sorted(times.values())[
        :2
    ]:  # of a and of what ran beside when it was killed
        beside = [each for each, (start, end) in times.items() if start < ended and end > began]
        assert len(beside) == 1


def test_a_process_killed_twice_fails_its_series_only(tmp_path):
    bad, good = run_all(tmp_path, 2, a=kill_own_process, b=pass_on)
    assert 'memory ran out' in bad.cause
    assert bad.crash_file.exists()
    assert good.succeeded


def test_finished_nodes_are_not_run_again(tmp_path):
    run_all(tmp_path, 1, a=pass_on)
    result = next((tmp_path / 'work').rglob('first/result_first.pklz'))
    before = result.stat().st_mtime_ns
    run_all(tmp_path, 2, a=pass_on)
    assert result.stat().st_mtime_ns == before


@pytest.mark.parametrize('busy', [sleep_long, hold_the_lock])
def test_no_worker_outlives_a_killed_run(tmp_path, busy):
    script = (
        'from tests.engine.test_run import *\n'
        "if __name__ == '__main__':\n"
        f'    wf = make_workflow({{"sub-a": ({busy.__name__}, Node)}})\n'
        f'    wf.get_node("sub_a_wf.sub_a_wf.inputnode").inputs.number = {str(tmp_path / "pid")!r}\n'
        f'    run = RunSettings(*[Path({str(tmp_path)!r})] * 3, nprocs=2, run_uuid="x")\n'
        "    run_workflow(wf, [make_series('sub-a')], run)\n"
    )
    root = Path(__file__).parents[2]
    file = tmp_path / 'script.py'
    file.write_text(script)
    process = subprocess.Popen(
        [sys.executable, str(file)], env={**os.environ, 'PYTHONPATH': str(root)}
    )
    wait_until(lambda: (tmp_path / 'pid').exists() and (tmp_path / 'pid').read_text())
    process.kill()
    process.wait()
    worker = Path('/proc') / (tmp_path / 'pid').read_text()
    wait_until(lambda: not worker.exists() or 'Z (zombie)' in (worker / 'status').read_text())


def wait_until(condition, seconds=90):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, 'waited in vain'
        time.sleep(0.1)


def test_a_node_belongs_to_the_innermost_series():
    one, two, other = (make_series(name) for name in ('sub-1', 'sub-1_run-2', 'sub-2'))
    everything = [one, two, other]
    owners = Owners(everything)
    assert owners(['ctpprep_wf', 'sub_1_wf', 'sub_1_wf', 'mask']) == [one]
    assert owners(['ctpprep_wf', 'sub_1_wf', 'sub_1_run_2_wf', 'mask']) == [two]
    assert owners(['ctpprep_wf', 'sub_1_wf', 'build_report']) == [one, two]
    assert owners(['ctpprep_wf', 'citation']) == everything


def test_looking_at_the_nodes_costs_no_garbage_collection(tmp_path, monkeypatch):
    """What was there before the run is not searched for garbage at every look."""
    tracked = []
    monkeypatch.setattr(
        'nipype.pipeline.plugins.multiproc.gc.collect',
        lambda: tracked.append(len(gc.get_objects())),
    )
    before = len(gc.get_objects())
    run_all(tmp_path, 2, a=pass_on)
    assert tracked
    assert max(tracked) < before / 2
    assert gc.get_freeze_count() == 0


# -- schedulers


@pytest.fixture
def scheduler(tmp_path, monkeypatch):
    """Replace a scheduler's commands by lines of shell; give the options that use it."""

    def write(**commands):
        for name, lines in commands.items():
            path = tmp_path / 'bin' / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(f'#!/bin/sh\n{lines}\n')
            path.chmod(0o755)
        monkeypatch.setenv('PATH', f'{tmp_path / "bin"}:{os.environ["PATH"]}')
        monkeypatch.setenv('LOGNAME', 'me')
        file = tmp_path / 'plugin.yml'
        file.write_text('plugin: SLURM\nplugin_args: {retry_timeout: 0}\n')
        return {'use_plugin': file}

    return write


def test_a_job_that_is_refused_is_a_failure_of_its_series(tmp_path, scheduler):
    options = scheduler(sbatch='echo "invalid account" >&2; exit 1')
    (result,) = run_all(tmp_path, 1, options, a=pass_on)
    assert not result.succeeded
    assert 'did not take the job' in result.cause
    assert result.crash_file is not None


def test_a_refused_job_and_what_it_leaves_out_are_done_with(tmp_path, scheduler):
    watch = Watcher()
    run_all(tmp_path, 1, scheduler(sbatch='exit 1'), watch, a=pass_on)
    now = watch.progress.snapshot()
    assert (now.n_failed, now.n_running, now.share) == (1, 0, 1.0)
    assert 'did not take the job' in watch.ended['sub-a'].cause


def test_a_job_without_a_result_is_a_failure_that_quotes_the_scheduler(tmp_path, scheduler):
    # the script is the last argument; its log lies beside it
    said = 'slurmstepd: error: *** JOB 7 ON n CANCELLED AT noon DUE TO TIME LIMIT ***'
    sbatch = (
        f'for s in "$@"; do :; done; echo "{said}" > "$(dirname "$s")/slurm-7.out"\n'
        'echo "Submitted batch job 7"'
    )
    options = scheduler(sbatch=sbatch, squeue='true')
    (result,) = run_all(tmp_path, 1, options, a=pass_on)
    assert not result.succeeded
    assert 'job 7 of this step ended without a result' in result.cause
    assert 'JOB 7 ON n CANCELLED AT noon DUE TO TIME LIMIT' in result.cause


def test_a_controller_that_does_not_answer_is_asked_again(tmp_path, scheduler):
    squeue = (
        'echo x >> asked; [ $(wc -l < asked) -gt 1 ] || { echo "Unable to contact" >&2; exit 1; }'
    )
    options = scheduler(sbatch='echo "Submitted batch job 7"', squeue=f'cd {tmp_path}; {squeue}')
    (result,) = run_all(tmp_path, 1, options, a=pass_on)
    assert (tmp_path / 'asked').read_text() == 'x\nx\n'
    assert 'ended without a result' in result.cause


# -- hashes


def test_a_remembered_hash_follows_the_file(tmp_path):
    path = tmp_path / 'a.txt'
    for text in ('one', 'two'):  # of one size
        path.write_text(text)
        assert hashes.hash_file(path) == hashlib.sha256(text.encode()).hexdigest()
    path.unlink()
    assert hashes.hash_file(path) is None


def test_a_file_is_read_once(tmp_path, monkeypatch):
    path = tmp_path / 'a.txt'
    path.write_text('one')
    first = hashes.hash_file(path)
    monkeypatch.setattr(hashlib, 'file_digest', lambda *_: 1 / 0)
    assert hashes.hash_file(path) == first


def test_nipype_takes_the_remembered_hash(tmp_path):
    run_all(tmp_path, 1, a=pass_on)
    assert specs.hash_infile is hashes.hash_file
