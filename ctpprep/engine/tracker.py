# SPDX-License-Identifier: Apache-2.0
"""Progress of a run: the state of each series, counts, and the remaining time."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline.engine import Node, Workflow

from ctpprep.inputs.dataset import workflow_name
from ctpprep.inputs.series import Series

# written to the log file of the run; shown on the terminal only with -v
details = logging.getLogger('ctpprep.details')

# Stage of each interface, as in the stage table of the README, and the duration of its step in s, nipype's
# overhead included, for a series of 256 x 256 x 20 voxels and 45 frames (benchmarks/results.md).
# Only the ratios of the durations matter.
STEPS: dict[str, tuple[str, float]] = {
    'PrepareSeries': ('grid', 0.6),
    'EstimateMotion': ('motion', 0.8),
    'CorrectMotion': ('motion', 0.5),
    'MakeMasks': ('masks', 0.5),
    'FindVessels': ('vessels', 1.3),
    'Deconvolve': ('deconvolution', 2.3),
    'StandardizeMaps': ('ready maps', 0.5),
    'MirrorImage': ('symmetry', 0.1),
    'RegisterMirror': ('symmetry', 3.7),
    'FindHomologues': ('symmetry', 0.8),
    'RegisterNCCT': ('coregistration', 3.0),
    'NormalizeGlobal': ('global normalization', 0.1),
    'ApplyMirror': ('homologue map', 0.2),
    'NormalizeContralateral': ('local normalization', 0.1),
    'SegmentLesions': ('segmentation', 0.2),
    'FindHypodense': ('segmentation', 0.1),
    'EstimateUncertainty': ('uncertainty', 1.1),
    'MeasureVolumes': ('volumes', 0.3),
    'AssessQuality': ('quality', 0.1),
    'PlotSeries': ('quality', 2.4),
    'PackViewer': ('viewer', 0.3),
    'WriteDerivatives': ('files', 0.2),
    'WriteFigures': ('files', 0.1),
}


class SeriesFinder:
    """Find the series that a node belongs to.

    Parameters
    ----------
    series : sequence of CTPSeries and PrecomputedMaps
        All series of the graph.
    """

    def __init__(self, series: Sequence[Series]) -> None:
        self._by_workflows = {
            (workflow_name(f'sub-{one.participant}'), one.workflow_name): one for one in series
        }

    def __call__(self, parts: Sequence[str]) -> Series | None:
        """Find the series by the workflows around a node.

        Parameters
        ----------
        parts : sequence of str
            Names of the workflows or folders around the node, outermost first.

        Returns
        -------
        CTPSeries, PrecomputedMaps or None
        """
        pairs = (pair for pair in pairwise(parts) if pair in self._by_workflows)
        return next((self._by_workflows[pair] for pair in pairs), None)


@dataclass
class SeriesState:
    """Progress of one series.

    Attributes
    ----------
    prefix : str
    waiting : dict of str to float
        Cost of each step that has not ended, by name.
    running : dict of str to (str, float)
        Stage of each running step and when it started, s, by name.
    total, done : float
        Cost of all steps, and of those that have ended.
    started, ended : float or None
        s.
    failed_step, failed_stage : str
        The first step that failed.
    cause : str
        Cause of that failure, '' if unknown.
    """

    prefix: str
    waiting: dict[str, float] = field(default_factory=dict)
    running: dict[str, tuple[str, float]] = field(default_factory=dict)
    total: float = 0.0
    done: float = 0.0
    started: float | None = None
    ended: float | None = None
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
    watcher : callable, optional
    find_cause : callable, optional
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
        self.states = {one.prefix: SeriesState(one.prefix) for one in series}
        self.find_series = SeriesFinder(series)
        for name in workflow.list_node_names():
            node = workflow.get_node(name)
            owner = self.find_series([workflow.name, *name.split('.')])
            if owner is not None and not isinstance(node.interface, IdentityInterface):
                state = self.states[owner.prefix]
                state.waiting[f'{workflow.name}.{name}'] = _cost(node)
                state.total += _cost(node)
        self.n_running = self.n_succeeded = self.n_failed = 0
        self.most_side_by_side = 1
        self.total = sum(state.total for state in self.states.values())
        self.done = 0.0  # cost of the steps that have ended
        self.ran = self.ran_seconds = 0.0  # cost and duration of those that ran in this call

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
        owner = self.find_series(node.fullname.split('.'))
        state = self.states[owner.prefix] if owner is not None else None
        if state is None or node.fullname not in state.waiting:  # ended in a first try
            return
        events = []
        with self.lock:
            if state.started is None:
                state.started = self.clock()
                self.n_running += 1
                self.most_side_by_side = max(self.most_side_by_side, self.n_running)
                events.append('started')
            if status == 'start':
                self._start_step(state, node)
            else:
                self._end_step(state, node, status)
            events.append('ended' if state.ended is not None else 'step')
        try:  # without the lock, as the watcher may wait for a display that needs it
            if state.ended is not None and state.failed_step:
                state.cause = self.find_cause(state.prefix)
            for event in events:
                self.watcher(self, state, event)
        except Exception:  # a broken display must not stop a run
            details.debug('progress cannot be shown', exc_info=True)

    def seconds_left(self) -> float | None:
        """Estimate the remaining time.

        The steps that are left are assumed to take as long as those of this call did, in proportion to
        `STEPS`, and as many series as until now to run side by side. Steps that were complete in the work
        folder are ignored.

        Returns
        -------
        float or None
            s; None until one series, or half of what there is to run, has run.
        """
        with self.lock:
            left = self.total - self.done
            largest = max((state.total for state in self.states.values()), default=0.0)
            enough = 0.99 * min(largest, (self.ran + left) / 2)  # sums are rounded
            if not self.ran_seconds or self.ran < enough:
                return None
            now, scale = self.clock(), self.ran_seconds / self.ran
            seconds = left * scale
            for state in self.states.values():
                for name, (_, started) in state.running.items():
                    seconds -= min(now - started, 0.9 * scale * state.waiting[name])
            n_left = len(self.states) - self.n_ended
            return max(0.0, seconds / max(1, min(self.most_side_by_side, n_left)))

    def _start_step(self, state: SeriesState, node: Node) -> None:
        state.last_stage = STEPS.get(_interface(node), (node.name, 0))[0]
        state.running[node.fullname] = (state.last_stage, self.clock())
        self._log(state.prefix, node.name)

    def _end_step(self, state: SeriesState, node: Node, status: str) -> None:
        stage, started = state.running.pop(node.fullname, (state.last_stage, None))
        cost = state.waiting.pop(node.fullname)
        state.done += cost
        self.done += cost
        if status == 'exception':
            self._log(state.prefix, f'{node.name} failed')
            if not state.failed_step:
                state.failed_step, state.failed_stage = node.name, stage
        elif status == 'end' and started is not None:
            seconds = self.clock() - started
            if _has_new_result(node, time.time() - seconds):
                self.ran += cost
                self.ran_seconds += seconds
        if not state.waiting:
            state.ended = self.clock()
            self.n_running -= 1
            if state.failed_step:
                self.n_failed += 1
            else:
                self.n_succeeded += 1
                self._log(state.prefix, 'done')

    def _log(self, prefix: str, event: str) -> None:
        minutes, seconds = divmod(int(self.elapsed), 60)
        details.info('%3d:%02d  %-24s %s', minutes, seconds, prefix, event)


def _has_new_result(node: Any, started: float) -> bool:
    """Return whether a node has run since a time of day, s; if not, its earlier result was kept."""
    result = Path(node.output_dir()) / f'result_{node.name}.pklz'
    # clocks of a cluster differ slightly
    return result.exists() and result.stat().st_mtime > started - 2


def _interface(node: Any) -> str:
    return type(node.interface).__name__


def _cost(node: Any) -> float:
    """Return the duration of a step by `STEPS`, s."""
    return STEPS.get(_interface(node), ('', 1.0))[1]
