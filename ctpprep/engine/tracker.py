# SPDX-License-Identifier: Apache-2.0
"""Progress of a run: the state of each series, counts, and the remaining time."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline.engine import Node, Workflow

from ctpprep.inputs.series import Series, workflow_name

# written to the log file of the run; shown on the terminal only with -v
details = logging.getLogger('ctpprep.details')

# Stage of each interface, as in docs/stages.md, and the duration of its step in s, nipype's
# overhead included, for a series of 256 x 256 x 20 voxels and 45 frames (benchmarks/results.md).
# Only the ratios of the durations matter.
STEPS: dict[str, tuple[str, float]] = {
    'PrepareSeries': ('grid', 0.6),
    'EstimateMotion': ('motion', 0.8),
    'CorrectMotion': ('motion', 0.5),
    'MakeMasks': ('masks', 0.5),
    'FindVessels': ('vessels', 1.3),
    'Deconvolve': ('deconvolution', 2.3),
    'StandardizeMaps': ('precomputed', 0.5),
    'MirrorImage': ('symmetry', 0.1),
    'RegisterMirror': ('symmetry', 3.7),
    'FindHomologues': ('symmetry', 0.8),
    'RegisterNCCT': ('coregistration', 3.0),
    'RegisterFollowUp': ('follow-up', 3.0),
    'PlaceLesion': ('follow-up', 0.2),
    'CompareFollowUp': ('follow-up', 1.8),
    'NormalizeGlobal': ('global normalization', 0.1),
    'ApplyMirror': ('homologue map', 0.2),
    'NormalizeContralateral': ('local normalization', 0.1),
    'SegmentLesions': ('segmentation', 0.2),
    'FindHypodense': ('segmentation', 0.1),
    'EstimateUncertainty': ('uncertainty', 1.1),
    'MeasureVolumes': ('volumes', 0.3),
    'RegisterTemplate': ('template', 5.0),
    'TransformToTemplate': ('template', 2.0),
    'MeasureRegions': ('template', 1.0),
    'AssessQuality': ('quality', 0.1),
    'PlotSeries': ('quality', 2.4),
    'PackViewer': ('viewer', 0.3),
    'WriteDerivatives': ('files', 0.2),
    'WriteFigures': ('files', 0.1),
}


@dataclass
class SeriesState:
    """Progress of one series.

    Attributes
    ----------
    prefix : str
    waiting : dict of str to float
        Cost of each step that has not ended, by name.
    running : dict of str to (str, float)
        Stage and start, s, of each running step, by name.
    total, done : float
        Cost of all steps, and of those that have ended.
    started : float or None
        s.
    busy_since : float
        Since when steps have been running without a pause, or the last one has ended, s.
    seconds : float
        Duration of a series that has ended, s.
    failed_step, failed_stage : str
        The first step that failed.
    cause : str
        Cause of that failure, '' if unknown.
    last_stage : str
        Stage of the step that started last.
    """

    prefix: str
    waiting: dict[str, float] = field(default_factory=dict)
    running: dict[str, tuple[str, float]] = field(default_factory=dict)
    total: float = 0.0
    done: float = 0.0
    started: float | None = None
    busy_since: float = 0.0
    seconds: float = 0.0
    failed_step: str = ''
    failed_stage: str = ''
    cause: str = ''
    last_stage: str = ''

    @property
    def stage(self) -> str:
        """Stage of the running step that started last; between two steps, of the last one."""
        return next((stage for stage, _ in reversed(self.running.values())), self.last_stage)


# called with 'started', 'step' (one has started or ended) and 'ended'
Watcher = Callable[['RunTracker', SeriesState, str], None]


class RunTracker:
    """Follow the steps of a run.

    Plugins call it with a node and 'start', 'end', 'exception' or, for what a failure excludes, 'skipped'.
    A step that is complete in the work folder may start and end too, but leaves no new result.

    Parameters
    ----------
    workflow : Workflow
    series : sequence of CTPSeries and PrecomputedMaps
    watcher : callable
    find_cause : callable
        Returns the cause of a failure for the prefix of a series, '' if unknown.
    clock : callable
        Returns the time, s.
    """

    def __init__(
        self,
        workflow: Workflow,
        series: Sequence[Series],
        watcher: Watcher = lambda tracker, state, event: None,
        find_cause: Callable[[str], str] = lambda prefix: '',
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.watcher, self.find_cause, self.clock = watcher, find_cause, clock
        self.lock = threading.Lock()  # a display reads the remaining time in its own thread
        self.start_time = clock()
        self.states: dict[tuple[str, ...], SeriesState] = {}
        for one in series:
            state = self.states[workflow_names(one)] = SeriesState(one.prefix)
            for name, node in find_nodes(workflow, one):
                state.waiting[name] = _cost(node)
            state.total = sum(state.waiting.values())
        self.n_running = self.n_succeeded = self.n_failed = 0
        self.max_running = 1
        self.total = sum(state.total for state in self.states.values())
        self.done = 0.0  # cost of the steps that have ended
        # cost of those that ran in this call, and how long series were running them
        self.ran = self.ran_seconds = 0.0

    @property
    def n_ended(self) -> int:
        """Number of series that have succeeded or failed."""
        return self.n_succeeded + self.n_failed

    @property
    def elapsed(self) -> float:
        """Time since the run started, s."""
        return self.clock() - self.start_time

    def __call__(self, node: Node, status: str) -> None:
        """Record the new status of a node, and notify the watcher."""
        state = self.states.get(tuple(node.fullname.split('.')[1:3]))
        if state is None or node.fullname not in state.waiting:  # ended in a first try
            return
        events = ['step'] if state.started is not None else ['started', 'step']
        with self.lock:
            if state.started is None:
                state.started = self.clock()
                self.n_running += 1
                self.max_running = max(self.max_running, self.n_running)
            if status == 'start':
                self._start_step(state, node)
            else:
                self._end_step(state, node, status)
        try:  # without the lock, as the watcher may wait for a display that needs it
            if not state.waiting:
                events[-1] = 'ended'
                state.cause = self.find_cause(state.prefix) if state.failed_step else ''
            for event in events:
                self.watcher(self, state, event)
        except Exception:  # a broken display must not stop a run
            details.debug('progress cannot be shown', exc_info=True)

    def seconds_left(self) -> float | None:
        """Estimate the remaining time.

        The steps that are left are assumed to take as long as those of this call did, in proportion to
        `STEPS`, with as many series side by side as until now. Steps that were complete in the work folder
        are ignored.

        Returns
        -------
        float or None
            s; None until one series, or half of what there is to run, has run, and at the end.
        """
        with self.lock:
            left = self.total - self.done
            largest = max(state.total for state in self.states.values())
            enough = 0.99 * min(largest, (self.ran + left) / 2)  # sums are rounded
            n_left = len(self.states) - self.n_ended
            if not n_left or not self.ran_seconds or self.ran < enough:
                return None
            now, scale = self.clock(), self.ran_seconds / self.ran
            seconds = left * scale
            for state in self.states.values():
                for name, (_, started) in state.running.items():
                    seconds -= min(now - started, 0.9 * scale * state.waiting[name])
            return max(0.0, seconds / min(self.max_running, n_left))

    def _start_step(self, state: SeriesState, node: Node) -> None:
        state.last_stage = STEPS.get(_interface(node), (node.name, 0))[0]
        now = self.clock()
        if not state.running:
            state.busy_since = now
        state.running[node.fullname] = (state.last_stage, now)
        self._log(state.prefix, node.name)

    def _end_step(self, state: SeriesState, node: Node, status: str) -> None:
        now = self.clock()
        stage, started = state.running.pop(node.fullname, (state.last_stage, None))
        cost = state.waiting.pop(node.fullname)
        state.done += cost
        self.done += cost
        if status == 'exception':
            self._log(state.prefix, f'{node.name} failed')
            if not state.failed_step:
                state.failed_step, state.failed_stage = node.name, stage
        elif status == 'end' and started is not None and _has_new_result(node, now - started):
            self.ran += cost
            self.ran_seconds += now - state.busy_since
        state.busy_since = now
        if not state.waiting:
            state.seconds = now - (state.started or now)
            self.n_running -= 1
            self.n_failed += bool(state.failed_step)
            self.n_succeeded += not state.failed_step
            if not state.failed_step:
                self._log(state.prefix, 'done')

    def _log(self, prefix: str, event: str) -> None:
        details.info('%s  %-24s %s', timedelta(seconds=int(self.elapsed)), prefix, event)


def workflow_names(series: Series) -> tuple[str, ...]:
    """Return the names of the workflows of participant and series, outermost first."""
    return workflow_name(f'sub-{series.participant}'), series.workflow_name


def find_workflow(workflow: Workflow, series: Series) -> Workflow:
    """Return the workflow of a series in that of all series."""
    participant, name = workflow_names(series)
    return workflow.get_node(participant).get_node(name)


def find_nodes(workflow: Workflow, series: Series) -> Iterator[tuple[str, Node]]:
    """Yield full name and node for each node of a series that runs."""
    participant, name = workflow_names(series)
    series_workflow = find_workflow(workflow, series)
    for inner in series_workflow.list_node_names():
        node = series_workflow.get_node(inner)
        if not isinstance(node.interface, IdentityInterface):
            yield f'{workflow.name}.{participant}.{name}.{inner}', node


def _has_new_result(node: Any, seconds: float) -> bool:
    """Return whether a node has run in the last seconds; if not, its earlier result was kept."""
    result = Path(node.output_dir()) / f'result_{node.name}.pklz'
    # clocks of a cluster differ slightly
    return result.exists() and result.stat().st_mtime > time.time() - seconds - 2


def _interface(node: Any) -> str:
    return type(node.interface).__name__


def _cost(node: Any) -> float:
    """Return the duration of a step by `STEPS`, s."""
    return STEPS.get(_interface(node), ('', 1.0))[1]
