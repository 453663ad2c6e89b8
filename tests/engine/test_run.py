# SPDX-License-Identifier: Apache-2.0
"""Running tiny graphs that succeed, fail and are killed."""

import hashlib
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from nipype import config as nipype_config
from nipype.interfaces.base import specs
from nipype.interfaces.utility import Function, IdentityInterface
from nipype.pipeline.engine import Node, Workflow
from nipype.pipeline.plugins import base, linear, tools

from ctpprep.engine import crashes, hashes, schedulers, workers
from ctpprep.engine.run import run_workflow
from ctpprep.engine.workers import SeriesPlugin
from ctpprep.inputs.series import CTPSeries, workflow_name
from ctpprep.settings import RunSettings

PATIENCE = 300  # s, on a busy machine


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


def log_attempt(number):
    """Log start and end to a file that all series share; kill the process of the first attempt."""
    import os
    import pathlib
    import signal

    series = pathlib.Path.cwd().parts[-2]
    log = pathlib.Path.cwd().parents[3] / 'log.txt'
    with log.open('a') as file:
        file.write(f'start {series}\n')
    mark = pathlib.Path.cwd().parent / 'killed'
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    with log.open('a') as file:
        file.write(f'end {series}\n')
    return number


def sleep_until_killed(number):
    import os
    import pathlib
    import time

    pathlib.Path(number).write_text(str(os.getpid()))
    time.sleep(600)


def keep_the_lock(number):
    """Compute in C for minutes without releasing the lock of Python."""
    import os
    import pathlib
    import re

    pathlib.Path(number).write_text(str(os.getpid()))
    re.match('(a+)+$', 40 * 'a' + 'b')


def meet(number):
    """Leave a mark, and wait for that of the other step of the series."""
    import pathlib
    import time

    (pathlib.Path.cwd() / 'here').touch()
    end = time.monotonic() + 300
    while len(list(pathlib.Path.cwd().parent.glob('*/here'))) < 2:
        assert time.monotonic() < end, 'the other step did not run'
        time.sleep(0.05)
    return number


def make_workflow(stages):
    """Build ctpprep_wf.<participant>_wf.<series>_wf.{inputnode,first,second} for each series."""
    top = Workflow('ctpprep_wf')
    for prefix, function in stages.items():
        series = Workflow(workflow_name(prefix))
        start = Node(IdentityInterface(['number']), 'inputnode')
        start.inputs.number = 1
        first = Node(Function(function=function, output_names=['number']), name='first')
        second = Node(Function(function=pass_on, output_names=['number']), name='second')
        series.connect([(start, first, [('number', 'number')])])
        series.connect([(first, second, [('number', 'number')])])
        participant = Workflow(workflow_name(prefix.split('_')[0]))
        participant.add_nodes([series])
        top.add_nodes([participant])
    return top


def run_all(tmp_path, nprocs, options=None, watcher=lambda *_: None, **functions):
    stages = {f'sub-{label}': function for label, function in functions.items()}
    (tmp_path / 'work').mkdir(exist_ok=True)
    run = RunSettings(
        tmp_path, tmp_path / 'out', tmp_path / 'work', nprocs=nprocs, run_uuid='run1',
        **(options or {}),
    )  # fmt: skip
    series = [make_series(name) for name in stages]
    return run_workflow(make_workflow(stages), series, run, watcher)


@pytest.mark.parametrize('nprocs', [1, 2])
def test_a_failing_series_does_not_stop_the_others(tmp_path, nprocs):
    bad, worse, good = run_all(tmp_path, nprocs, a=find_no_bolus, b=divide_by_zero, c=pass_on)
    assert not bad.succeeded
    assert bad.cause == 'no contrast arrives in frames 1 to 27'
    assert bad.crash_file.parent == tmp_path / 'out' / 'sub-a' / 'log' / 'run1'
    assert worse.cause == 'ZeroDivisionError: division by zero'
    assert good.succeeded


def test_an_empty_crash_file_is_ignored(tmp_path):
    series = [make_series('sub-a'), make_series('sub-b')]
    run = RunSettings(tmp_path / 'raw', tmp_path / 'out', tmp_path / 'work', run_uuid='x')
    path = crashes.crash_dir(run, 'a') / 'crash-full.txt'
    path.parent.mkdir(parents=True)
    path.touch()
    assert crashes.read_failures(series, run) == {}


def test_a_full_disk_is_the_cause_of_a_missing_result(tmp_path):
    (bad,) = run_all(tmp_path, 2, a=run_out_of_space)
    assert bad.cause.startswith('no space was left in ')


@pytest.mark.parametrize('nprocs', [1, 2])
def test_each_step_is_logged_with_its_series(tmp_path, caplog, nprocs):
    caplog.set_level(logging.INFO, 'ctpprep')
    run_all(tmp_path, nprocs, a=pass_on, b=divide_by_zero)
    events = [' '.join(record.getMessage().split()[1:]) for record in caplog.records]
    assert [event for event in events if 'sub-a' in event] == [
        'sub-a first',
        'sub-a second',
        'sub-a done',
    ]
    assert [event for event in events if 'sub-b' in event] == ['sub-b first', 'sub-b first failed']


class Recorder:
    """Record what a display is notified of."""

    def __init__(self):
        self.ended, self.done, self.tracker = {}, [], None

    def __call__(self, tracker, state, event):
        self.tracker = tracker
        self.done.append(tracker.done)
        if event == 'ended':
            self.ended[state.prefix] = state

    @property
    def summary(self):
        """Numbers of series that succeeded, failed and run, and the proportion of work done."""
        tracker = self.tracker
        done = tracker.done / tracker.total
        return tracker.n_succeeded, tracker.n_failed, tracker.n_running, pytest.approx(done)


@pytest.mark.parametrize('nprocs', [1, 2])
def test_failures_and_the_steps_that_they_exclude_count_as_done(tmp_path, nprocs):
    recorder = Recorder()
    run_all(tmp_path, nprocs, None, recorder, a=find_no_bolus, b=pass_on)
    assert recorder.summary == (1, 1, 0, 1)
    assert recorder.ended['sub-a'].failed_stage == 'first'
    assert recorder.ended['sub-a'].cause == 'no contrast arrives in frames 1 to 27'
    assert recorder.done == sorted(recorder.done)


def test_a_second_try_completes_the_progress(tmp_path):
    recorder = Recorder()
    run_all(tmp_path, 2, None, recorder, a=kill_first_process, b=pass_on)
    assert recorder.summary == (2, 0, 0, 1)
    assert not any(state.running for state in recorder.ended.values())


@pytest.mark.parametrize('nprocs', [1, 2])
def test_steps_that_were_complete_count_as_done_but_not_as_run(tmp_path, nprocs):
    run_all(tmp_path, 2, a=pass_on)
    for result in (tmp_path / 'work').rglob('result_*.pklz'):
        os.utime(result, (0, 0))  # of an earlier day
    recorder = Recorder()
    run_all(tmp_path, nprocs, None, recorder, a=pass_on)
    assert recorder.summary == (1, 0, 0, 1)
    assert recorder.tracker.ran == 0


@pytest.mark.parametrize('nprocs', [1, 2])
def test_the_first_series_end_before_the_last_start(tmp_path, caplog, nprocs):
    caplog.set_level(logging.INFO, 'ctpprep')
    run_all(tmp_path, nprocs, **dict.fromkeys('abcdef', pass_on))
    events = [' '.join(record.getMessage().split()[1:]) for record in caplog.records]
    before = events[: events.index('sub-f first')]
    # one series more per process: on a busy machine, a process may be slow
    assert sum(f'sub-{label} done' not in before for label in 'abcde') < nprocs


def test_a_broken_display_does_not_stop_the_run(tmp_path):
    (result,) = run_all(tmp_path, 2, None, lambda *_: 1 / 0, a=pass_on)
    assert result.succeeded


def wait_until_killed(number):
    import time

    time.sleep(600)


@pytest.mark.parametrize('nprocs', [1, 2])
def test_the_first_crash_stops_the_others_on_request(tmp_path, nprocs):
    stop = {'stop_on_first_crash': True}
    failed, other = run_all(tmp_path, nprocs, stop, a=find_no_bolus, b=wait_until_killed)
    assert failed.cause == 'no contrast arrives in frames 1 to 27'
    assert other.cause == 'not finished: stopped on the first crash'


def test_a_series_without_a_crash_file_has_failed(tmp_path, monkeypatch):
    report, reports = tools.report_crash, []

    def fill_disk(node, traceback=None):
        if reports:
            raise OSError(28, 'No space left on device')
        reports.append(report(node, traceback))
        return reports[0]

    monkeypatch.setattr(linear, 'report_crash', fill_disk)
    first, second, third = run_all(tmp_path, 1, a=divide_by_zero, b=divide_by_zero, c=pass_on)
    assert first.cause == 'ZeroDivisionError: division by zero'
    assert second.cause.startswith('first failed without a crash file; not finished')
    assert third.succeeded


def test_series_that_did_not_run_have_failed(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(workers, 'split_by_series', fail)
    results = run_all(tmp_path, 1, a=pass_on, b=pass_on)
    assert all(
        result.cause.startswith('not finished: no space was left in ') for result in results
    )


@pytest.mark.parametrize(('text', 'n_procs'), [
    ('plugin: MultiProc\nplugin_args: {n_procs: 3, memory_gb: 5}', 3), ('plugin: Linear', 1),
])  # fmt: skip
def test_a_local_plugin_of_the_user_sets_the_number_of_processes(
    tmp_path, text, n_procs, monkeypatch
):
    numbers = []
    monkeypatch.setattr(SeriesPlugin, 'run', lambda self, graph, **_: numbers.append(self.n_procs))
    (tmp_path / 'p.yml').write_text(text)
    run_all(tmp_path, 2, {'use_plugin': tmp_path / 'p.yml'}, a=pass_on)
    assert numbers == [n_procs]


def test_a_killed_process_is_tried_again(tmp_path):
    (result,) = run_all(tmp_path, 2, a=kill_first_process)
    assert result.succeeded


def test_no_other_series_runs_beside_a_second_try(tmp_path):
    results = run_all(tmp_path, 3, **dict.fromkeys('abcd', log_attempt))
    assert all(result.succeeded for result in results)
    events = [line.split() for line in (tmp_path / 'work').rglob('log.txt').__next__().open()]
    ends = [position for position, (event, _) in enumerate(events) if event == 'end']
    assert len(ends) == 4
    for position in ends:
        assert events[position - 1] == ['start', events[position][1]]


@pytest.mark.parametrize(
    ('n_busy', 'memory_gb', 'is_retry', 'fits'),
    [
        (0, 0.1, False, True),  # one series always runs
        (1, 1.0, False, True),
        (1, 0.9, False, False),
        (2, 9.0, False, False),  # two processes
        (1, 9.0, True, False),
    ],
)
def test_a_series_starts_if_process_and_memory_are_free(n_busy, memory_gb, is_retry, fits):
    graph = [SimpleNamespace(mem_gb=0.2), SimpleNamespace(mem_gb=0.5)]
    busy = [SimpleNamespace(piece=workers.Piece(graph), is_retry=is_retry)] * n_busy
    assert SeriesPlugin(2, memory_gb)._fits(graph, busy) == fits


def add_step(workflow, name, function):
    """Add a step to the series a that does not need `first`."""
    series = workflow.get_node('sub_a_wf.sub_a_wf')
    node = Node(Function(function=function, output_names=['number']), name=name)
    series.connect([(series.get_node('inputnode'), node, [('number', 'number')])])


def sleep(number):
    import time

    time.sleep(600)


def run_one(tmp_path, workflow, **options):
    run = RunSettings(
        tmp_path, tmp_path / 'out', tmp_path / 'work', nprocs=2, run_uuid='x', **options
    )
    (result,) = run_workflow(workflow, [make_series('sub-a')], run)
    return result


def test_steps_of_one_series_that_do_not_need_each_other_run_side_by_side(tmp_path):
    workflow = make_workflow({'sub-a': meet})
    add_step(workflow, 'other', meet)
    assert run_one(tmp_path, workflow).succeeded


def test_a_failed_step_excludes_only_those_that_need_it(tmp_path):
    workflow = make_workflow({'sub-a': divide_by_zero})
    add_step(workflow, 'other', pass_on)
    result = run_one(tmp_path, workflow)
    assert 'division by zero' in result.cause
    ran = {path.parent.name for path in (tmp_path / 'work').rglob('result_other.pklz')}
    assert ran == {'other'}
    assert not list((tmp_path / 'work').rglob('result_second.pklz'))


def test_a_crash_that_stops_the_run_ends_the_steps_beside_it(tmp_path):
    workflow = make_workflow({'sub-a': divide_by_zero})
    add_step(workflow, 'other', sleep)
    start = time.monotonic()
    result = run_one(tmp_path, workflow, stop_on_first_crash=True)
    assert 'division by zero' in result.cause
    assert time.monotonic() - start < PATIENCE


@pytest.mark.parametrize(('n_series', 'n_pieces'), [(1, 3), (2, 6), (3, 3), (4, 4)])
def test_series_are_split_into_steps_only_if_processes_would_be_idle(n_series, n_pieces):
    workflow = make_workflow({f'sub-{name}': pass_on for name in 'abcd'[:n_series]})
    all_series = workers.split_by_series(workflow._create_flat_graph())
    pieces = workers.split_into_pieces(all_series, 3)
    assert len(pieces) == n_pieces
    names = [name for piece in pieces for name in piece.names]
    assert len(names) == len(set(names)) == 3 * n_series


def test_a_process_killed_twice_fails_its_series_only(tmp_path):
    bad, good = run_all(tmp_path, 2, a=kill_own_process, b=pass_on)
    assert 'the process of this step was killed twice' in bad.cause
    assert 'run again with fewer --nprocs or more memory' in bad.cause
    assert bad.crash_file.exists()
    assert good.succeeded


def test_finished_nodes_are_not_run_again(tmp_path):
    run_all(tmp_path, 1, a=pass_on)
    result = next((tmp_path / 'work').rglob('first/result_first.pklz'))
    before = result.stat().st_mtime_ns
    run_all(tmp_path, 2, a=pass_on)
    assert result.stat().st_mtime_ns == before


@pytest.mark.parametrize('busy', [sleep_until_killed, keep_the_lock])
def test_no_worker_outlives_a_killed_run(tmp_path, busy):
    script = (
        'from tests.engine.test_run import *\n'
        "if __name__ == '__main__':\n"
        f'    wf = make_workflow({{"sub-a": {busy.__name__}}})\n'
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


def test_the_fork_server_cannot_be_interrupted_while_it_imports():
    script = (
        'from multiprocessing import forkserver\n'
        'from ctpprep.engine.workers import start_fork_server\n'
        'start_fork_server()\n'
        "print(open(f'/proc/{forkserver._forkserver._forkserver_pid}/status').read())\n"
    )
    done = subprocess.run(
        [sys.executable, '-c', script], capture_output=True, text=True, check=True
    )
    (blocked,) = [line.split()[1] for line in done.stdout.splitlines() if 'SigBlk' in line]
    assert int(blocked, 16) & 1 << (signal.SIGINT - 1)


def wait_until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, 'the condition was never met'
        time.sleep(0.1)


# -- schedulers


@pytest.fixture
def scheduler(tmp_path, monkeypatch):
    """Replace the commands of a scheduler by shell scripts; return the options that use it."""
    monkeypatch.setattr(base, 'sleep', lambda seconds: time.sleep(seconds / 10))
    options = nipype_config._config['execution']
    monkeypatch.setitem(options, 'job_finished_timeout', '0.5')  # s, for the result of a job

    def write(plugin='SLURM', **commands):
        for name, lines in commands.items():
            path = tmp_path / 'bin' / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(f'#!/bin/sh\n{lines}\n')
            path.chmod(0o755)
        monkeypatch.setenv('PATH', f'{tmp_path / "bin"}:{os.environ["PATH"]}')
        monkeypatch.setenv('LOGNAME', 'me')
        file = tmp_path / 'plugin.yml'
        file.write_text(f'plugin: {plugin}\nplugin_args: {{retry_timeout: 0}}\n')
        return {'use_plugin': file}

    return write


def test_a_refused_job_fails_its_series(tmp_path, scheduler):
    options = scheduler(sbatch='echo "invalid account" >&2; exit 1')
    (result,) = run_all(tmp_path, 1, options, a=pass_on)
    assert not result.succeeded
    assert 'did not accept the job' in result.cause
    assert result.crash_file is not None


def test_a_refused_job_and_the_steps_that_it_excludes_count_as_done(tmp_path, scheduler):
    recorder = Recorder()
    run_all(tmp_path, 1, scheduler(sbatch='exit 1'), recorder, a=pass_on)
    assert recorder.summary == (0, 1, 0, 1)
    assert 'did not accept the job' in recorder.ended['sub-a'].cause


def test_failure_of_a_job_without_a_result_quotes_the_scheduler(tmp_path, scheduler):
    # the script is the last argument; its log is in the same folder
    message = 'slurmstepd: error: *** JOB 7 ON n CANCELLED AT noon DUE TO TIME LIMIT ***'
    sbatch = (
        f'for s in "$@"; do :; done; echo "{message}" > "$(dirname "$s")/slurm-7.out"\n'
        'echo "Submitted batch job 7"'
    )
    options = scheduler(sbatch=sbatch, squeue='true')
    (result,) = run_all(tmp_path, 1, options, a=pass_on)
    assert not result.succeeded
    assert 'job 7 of this step ended without a result' in result.cause
    assert 'JOB 7 ON n CANCELLED AT noon DUE TO TIME LIMIT' in result.cause


def test_a_controller_that_does_not_respond_is_asked_again(tmp_path, scheduler):
    squeue = (
        'echo x >> asked; [ $(wc -l < asked) -gt 1 ] || { echo "Unable to contact" >&2; exit 1; }'
    )
    options = scheduler(sbatch='echo "Submitted batch job 7"', squeue=f'cd {tmp_path}; {squeue}')
    (result,) = run_all(tmp_path, 1, options, a=pass_on)
    assert (tmp_path / 'asked').read_text() == 'x\nx\n'
    assert 'ended without a result' in result.cause


SUBMIT = {'SLURM': 'sbatch', 'SGE': 'qsub', 'PBS': 'qsub', 'LSF': 'bsub'}
QUERY = {'SLURM': 'squeue', 'SGE': 'qstat', 'PBS': 'qstat', 'LSF': 'bjobs'}
ACCEPTED = {
    'SLURM': 'echo "Submitted batch job 7"',
    'SGE': """echo 'Your job 7 ("first") has been submitted'""",
    'PBS': 'echo 7.head',
    'LSF': 'echo "Job <7> is submitted to default queue <normal>."',
}
FORGOTTEN = {
    'SLURM': 'echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1',
    'SGE': 'printf "Following jobs do not exist: \\n7\\n" >&2; exit 1',
    'PBS': 'echo "qstat: Unknown Job Id 7.head" >&2; exit 153',
    'LSF': 'echo "Job <7> is not found" >&2; exit 255',
}
RUN_SCRIPT = 'for s in "$@"; do :; done; sh "$s" >/dev/null 2>&1; '


@pytest.mark.parametrize('plugin', SUBMIT)
def test_a_refusal_is_quoted(tmp_path, scheduler, plugin):
    commands = {SUBMIT[plugin]: 'echo "no such queue" >&2; exit 1', QUERY[plugin]: 'exit 1'}
    (result,) = run_all(tmp_path, 1, scheduler(plugin, **commands), a=pass_on)
    assert 'did not accept the job of this step ("no such queue"); submit' in result.cause


@pytest.mark.parametrize('plugin', SUBMIT)
def test_an_answer_without_a_number_is_a_refusal(tmp_path, scheduler, plugin):
    commands = {SUBMIT[plugin]: 'true', QUERY[plugin]: 'true'}
    (result,) = run_all(tmp_path, 1, scheduler(plugin, **commands), a=pass_on)
    assert 'did not accept the job' in result.cause


@pytest.mark.parametrize('plugin', SUBMIT)
def test_a_job_that_the_scheduler_forgot_fails_its_series(tmp_path, scheduler, plugin):
    commands = {SUBMIT[plugin]: ACCEPTED[plugin], QUERY[plugin]: FORGOTTEN[plugin]}
    (result,) = run_all(tmp_path, 1, scheduler(plugin, **commands), a=pass_on)
    assert 'job 7 of this step ended without a result' in result.cause


@pytest.mark.parametrize('plugin', ['SGE', 'PBS', 'LSF'])
def test_jobs_that_end_well_succeed(tmp_path, scheduler, plugin):
    commands = {SUBMIT[plugin]: RUN_SCRIPT + ACCEPTED[plugin], QUERY[plugin]: FORGOTTEN[plugin]}
    (result,) = run_all(tmp_path, 1, scheduler(plugin, **commands), a=pass_on)
    assert result.succeeded


def test_a_scheduler_that_never_answers_is_given_up(tmp_path, scheduler, monkeypatch):
    monkeypatch.setattr(schedulers, 'PATIENCE', 1)
    commands = {'qsub': 'echo 7.head', 'qstat': 'echo "cannot connect to server" >&2; exit 111'}
    (result,) = run_all(tmp_path, 1, scheduler('PBS', **commands), a=pass_on)
    assert 'has not answered' in result.cause
    assert '("cannot connect to server")' in result.cause


def test_a_job_in_state_of_error_is_given_up(tmp_path, scheduler):
    qstat = 'echo "error reason    1:          can not change directory"'
    (result,) = run_all(
        tmp_path, 1, scheduler('SGE', qsub=ACCEPTED['SGE'], qstat=qstat), a=pass_on
    )
    assert 'job 7 of this step will never run ("can not change directory")' in result.cause


# -- hashes


def test_a_cached_hash_follows_the_file(tmp_path):
    path = tmp_path / 'a.txt'
    for text in ('one', 'two'):  # of equal size
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


def test_nipype_uses_the_cached_hash(tmp_path):
    run_all(tmp_path, 1, a=pass_on)
    assert specs.hash_infile is hashes.hash_file
