# SPDX-License-Identifier: Apache-2.0
"""Progress and remaining time of a run, on a clock that the test sets."""

from pathlib import Path

import pytest
from nipype.interfaces.base import BaseInterface
from nipype.pipeline.engine import Node, Workflow

from ctpprep.engine import tracker
from ctpprep.engine.tracker import STEPS, RunTracker, SeriesState
from ctpprep.inputs.series import CTPSeries, workflow_name

KINDS = ['PrepareSeries', 'RegisterMirror', 'PlotSeries']
DURATIONS = [10 * STEPS[kind][1] for kind in KINDS]  # s, of one series
INTERFACES = {kind: type(kind, (BaseInterface,), {}) for kind in KINDS}


def make_series(prefix):
    participant = prefix.split('_')[0].removeprefix('sub-')
    return CTPSeries(
        Path(f'{prefix}_ctp.nii.gz'), prefix, participant, None, '', '', (), (), '', {}
    )


class Run:
    """A run of some series whose steps the test starts and ends."""

    def __init__(self, *labels):
        self.now = 100.0
        workflow = Workflow('ctpprep_wf')
        for label in labels:
            steps = Workflow(workflow_name(f'sub-{label}'))
            steps.add_nodes([Node(INTERFACES[kind](), name=kind) for kind in KINDS])
            participant = Workflow(workflow_name(f'sub-{label}'))
            participant.add_nodes([steps])
            workflow.add_nodes([participant])
        self.workflow = workflow
        series = [make_series(f'sub-{label}') for label in labels]
        self.tracker = RunTracker(workflow, series, clock=lambda: self.now)

    def report(self, label, kind, status):
        name = workflow_name(f'sub-{label}')
        node = self.workflow.get_node(f'{name}.{name}.{kind}')
        node._hierarchy = f'ctpprep_wf.{name}.{name}'
        self.tracker(node, status)

    def run_steps(self, labels, n_steps=3):
        """Run the steps of some series side by side."""
        for kind, seconds in zip(KINDS[:n_steps], DURATIONS, strict=False):
            for label in labels:
                self.report(label, kind, 'start')
            self.now += seconds
            for label in labels:
                self.report(label, kind, 'end')


@pytest.fixture(autouse=True)
def all_results_are_new(monkeypatch):
    monkeypatch.setattr(tracker, '_has_new_result', lambda *_: True)


def test_next_series_are_expected_to_take_as_long_as_the_first():
    run = Run('a', 'b', 'c')
    run.run_steps('a')
    assert run.tracker.seconds_left() == pytest.approx(2 * sum(DURATIONS))


def test_no_time_is_estimated_before_one_series_has_run():
    run = Run('a', 'b', 'c')
    assert run.tracker.seconds_left() is None
    for label in 'abc':
        run.run_steps(label, n_steps=1)
    assert run.tracker.seconds_left() is None


def test_a_single_series_is_estimated_once_half_of_it_has_run():
    run = Run('a')
    run.run_steps('a', n_steps=2)
    assert run.tracker.seconds_left() == pytest.approx(DURATIONS[2])


def test_steps_that_were_complete_are_ignored(monkeypatch):
    run = Run('a', 'b', 'c')
    with monkeypatch.context() as patch:
        patch.setattr(tracker, '_has_new_result', lambda *_: False)
        run.run_steps('a')
    assert run.tracker.seconds_left() is None
    run.run_steps('b')
    assert run.tracker.seconds_left() == pytest.approx(sum(DURATIONS))


def test_two_series_at_a_time_halve_the_time_until_one_is_left():
    run = Run('a', 'b', 'c', 'd')
    run.run_steps('ab')
    assert run.tracker.seconds_left() == pytest.approx(sum(DURATIONS))
    run.run_steps('c')
    assert run.tracker.seconds_left() == pytest.approx(sum(DURATIONS))


def test_steps_of_one_series_side_by_side_take_their_time_once():
    run = Run('a', 'b')
    for kind in KINDS:
        run.report('a', kind, 'start')
    run.now += 10
    for kind in KINDS:
        run.report('a', kind, 'end')
    assert run.tracker.seconds_left() == pytest.approx(10)


def test_remaining_time_falls_while_a_step_runs():
    run = Run('a', 'b')
    run.run_steps('a')
    run.report('b', KINDS[0], 'start')
    run.now += 1
    assert run.tracker.seconds_left() == pytest.approx(sum(DURATIONS) - 1)


def test_stage_is_that_of_a_running_step():
    state = SeriesState(
        'sub-01', running={'deconvolve': ('deconvolution', 0), 'write': ('files', 1)}
    )
    state.last_stage = 'files'
    assert state.stage == 'files'
    state.running.pop('write')
    assert state.stage == 'deconvolution'
    state.running.clear()
    assert state.stage == 'files'
