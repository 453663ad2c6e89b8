# SPDX-License-Identifier: Apache-2.0
"""How far a run is: its series, their steps, and the time left; whoever shows it draws it."""

import logging
import re
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline.engine import Node, Workflow

from ctpprep.inputs.series import Series, workflow_name

# for the log of the run; on the terminal only with -v
details = logging.getLogger('ctpprep.details')

# Stage of each interface, as the stage table of the README names it, and what a step of it takes, in s,
# of a series of 256 x 256 x 20 voxels and 45 frames (benchmarks/results.md) with what nipype adds.
# Only their ratios count, and these only until steps have ended in the run itself.
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


class Owners:
    """Tell which series a node works for.

    Parameters
    ----------
    series : sequence of CTPSeries and PrecomputedMaps
        All series of the graph.
    """

    def __init__(self, series: Sequence[Series]) -> None:
        self.series = list(series)
        self.homes: dict[str, list[Series]] = defaultdict(list)
        for each in series:
            self.homes[workflow_name(f'sub-{each.participant}')].append(each)

    def __call__(self, parts: Sequence[str]) -> list[Series]:
        """Tell it from the names of the workflows around the node, outermost first.

        Returns
        -------
        list of CTPSeries and PrecomputedMaps
            One, or all of a participant for a node that joins them, or all.
        """
        for position, part in enumerate(parts):
            if part in self.homes:
                inner = set(parts[position + 1 :])
                mine = self.homes[part]
                return [each for each in mine if each.workflow_name in inner] or mine
        return self.series


class Forecast:
    """Estimate the time left from the steps that have run in this call.

    What is left is the sum of what its steps are expected to take: as they took in this call, and as in
    `STEPS` where none has ended, scaled by those that have. It is shared by as many steps as ran side by
    side until now, but no more than series are left, since the steps of a series mostly wait for one
    another. Steps found in the work folder take no time and teach nothing.

    Parameters
    ----------
    kinds : iterable of str
        Interface of each step of the run.
    clock : callable
        Gives the time, s.
    """

    def __init__(self, kinds: Iterable[str], clock: Callable[[], float] = time.monotonic) -> None:
        self.left = Counter(kinds)
        self.clock = clock
        self.running: dict[str, tuple[str, float]] = {}  # kind and start by step
        self.taken: dict[str, float] = {}  # s, by kind
        self.n_taken: Counter[str] = Counter()
        self.to_run = sum(_cost(kind) * n for kind, n in self.left.items())
        self.has_run = self.busy = self.active = 0.0
        self.active_since = 0.0

    def start(self, step: str, kind: str) -> None:
        """Take note that a step runs."""
        now = self.clock()
        if not self.running:
            self.active_since = now
        self.running[step] = (kind, now)

    def end(self, step: str, kind: str, ran: bool) -> None:
        """Take note that a step has ended; without `ran` it was found done, was left out, or failed."""
        now = self.clock()
        _, began = self.running.pop(step, (kind, now))
        if not self.running and now > began:
            self.active += now - self.active_since
        self.left[kind] -= 1
        self.busy += now - began
        if not ran:
            self.to_run -= _cost(kind)
            return
        self.has_run += _cost(kind)
        # the mean, in the end of about the last ten: series may grow larger, a machine busier
        self.n_taken[kind] += 1
        before = self.taken.setdefault(kind, now - began)
        self.taken[kind] += (now - began - before) / min(self.n_taken[kind], 10)

    def expected(self, kind: str, scale: float) -> float:
        """Tell what a step is expected to take, s."""
        return self.taken.get(kind, scale * _cost(kind))

    def seconds(self, n_left: int) -> float | None:
        """Estimate the time left.

        Parameters
        ----------
        n_left : int
            Series that have not ended.

        Returns
        -------
        float or None
            s; None where neither half of all has run, nor steps like nearly all that are left.
        """
        unknown = sum(n * _cost(kind) for kind, n in self.left.items() if kind not in self.taken)
        half = self.has_run >= self.to_run / 2
        if not self.taken or not (half or unknown <= 0.1 * (self.to_run - self.has_run)):
            return None
        now = self.clock()
        scale = sum(self.taken.values()) / sum(map(_cost, self.taken))
        left = sum(n * self.expected(kind, scale) for kind, n in self.left.items())
        busy = self.busy
        for kind, began in self.running.values():
            left -= min(now - began, 0.9 * self.expected(kind, scale))
            busy += now - began
        active = self.active + (now - self.active_since if self.running else 0)
        at_once = busy / active if active else 1.0
        return max(0.0, left / max(1.0, min(at_once, n_left)))


@dataclass
class SeriesState:
    """How far one series is.

    Attributes
    ----------
    prefix : str
    running : dict of str to str
        Stage by name of each step that runs, in the order in which they began.
    last : str
        Stage of the step that began last.
    waiting : dict of str to str
        Interface by name of each step that has not ended.
    total, done : float
        What all its steps, and those that are done with, take by `STEPS`.
    began, ended : float or None
        Times, s.
    failed : str
        The first step that failed.
    cause : str
        Why, where that is known.
    """

    prefix: str
    running: dict[str, str] = field(default_factory=dict)
    last: str = ''
    waiting: dict[str, str] = field(default_factory=dict)
    total: float = 0.0
    done: float = 0.0
    began: float | None = None
    ended: float | None = None
    failed: str = ''
    failed_stage: str = ''
    cause: str = ''

    @property
    def stage(self) -> str:
        """Stage of the step that began last among those that run; between two steps, of the last."""
        return next(reversed(self.running.values()), self.last)


@dataclass(frozen=True)
class Row:
    """A series that is running: name, stage, share done (0 to 1), s since it began."""

    prefix: str
    stage: str
    share: float
    elapsed: float


@dataclass(frozen=True)
class Snapshot:
    """A run at one moment; `share` never falls, `left` is None while there is no ground for it."""

    rows: tuple[Row, ...]
    n_series: int
    n_running: int
    n_succeeded: int
    n_failed: int
    share: float
    elapsed: float
    left: float | None

    @property
    def n_ended(self) -> int:
        """Series that have ended, whichever way."""
        return self.n_succeeded + self.n_failed


# told of a series that begins or has ended
Watcher = Callable[['Progress', SeriesState], None]


class Progress:
    """Know which series is at which stage, and remember which nodes have ended.

    nipype calls it with a node and 'start', 'end' or 'exception', our plugins with 'skipped', too, for
    what cannot run after a failure. A node found in the work folder only ends, or has written no result
    since it began.

    Parameters
    ----------
    workflow : Workflow
    series : sequence of CTPSeries and PrecomputedMaps
    watch : callable, optional
        Called when a series begins and when it ends.
    why : callable, optional
        Tells the cause of a failure by the prefix of the series, '' where it is not known.
    clock : callable
        Gives the time, s.
    """

    def __init__(
        self,
        workflow: Workflow,
        series: Sequence[Series],
        watch: Watcher | None = None,
        why: Callable[[str], str] = lambda prefix: '',
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.owners = Owners(series)
        self.watch, self.why, self.clock = watch, why, clock
        self.lock = threading.Lock()  # a display looks from a thread of its own
        self.began = clock()
        self.said: set[tuple[str, str]] = set()
        self.states = {each.prefix: SeriesState(each.prefix) for each in series}
        self.open: dict[str, SeriesState] = {}  # begun, in that order
        self.n_succeeded = self.n_failed = 0
        kinds = []
        for name in workflow.list_node_names():
            node = workflow.get_node(name)
            if not isinstance(node.interface, IdentityInterface):  # nipype drops these
                kind = _kind(node)
                for each in self.owners(name.split('.')):
                    state = self.states[each.prefix]
                    state.waiting[f'{workflow.name}.{name}'] = kind
                    state.total += _cost(kind)
                    kinds.append(kind)
        self.total = sum(state.total for state in self.states.values())
        self.done = 0.0
        self.started: dict[str, float] = {}  # time of day by step
        self.forecast = Forecast(kinds, clock)

    def __call__(self, node: Node, status: str) -> None:
        """Take note of one event."""
        concerned = [
            self.states[each.prefix] for each in self.owners(Path(node.output_dir()).parts)
        ]
        with self.lock:
            changed = self._take(node, status, concerned)
        try:
            for (
                state
            ) in changed:  # without the lock, since whoever watches may wait for the display
                if state.ended is not None and state.failed:
                    state.cause = self.why(state.prefix)
                if self.watch is not None:
                    self.watch(self, state)
        except Exception:  # what is shown is not worth a run
            details.debug('progress cannot be shown', exc_info=True)

    def failed_at(self, prefix: str) -> str:
        """Name the step at which a series failed first; '' where none has."""
        return self.states[prefix].failed

    def waits(self, prefix: str) -> bool:
        """Tell whether steps of a series have not ended."""
        return bool(self.states[prefix].waiting)

    def snapshot(self, most_rows: int = 8) -> Snapshot:
        """Tell how far all is, with the series that began first among those that have not ended.

        Parameters
        ----------
        most_rows : int

        Returns
        -------
        Snapshot
        """
        with self.lock:
            now = self.clock()
            rows = [
                Row(each.prefix, each.stage, each.done / each.total, now - (each.began or now))
                for each in list(self.open.values())[:most_rows]
            ]
            n_left = len(self.states) - self.n_succeeded - self.n_failed
            return Snapshot(
                tuple(rows), len(self.states), len(self.open), self.n_succeeded, self.n_failed,
                min(1.0, self.done / self.total) if self.total else 1.0, now - self.began,
                self.forecast.seconds(n_left),
            )  # fmt: skip

    def _take(self, node: Node, status: str, concerned: list[SeriesState]) -> list[SeriesState]:
        """Change the states; return those that have begun or ended."""
        who = concerned[0].prefix if len(concerned) == 1 else concerned[0].prefix.partition('_')[0]
        if len({each.prefix.partition('_')[0] for each in concerned}) > 1:
            who = 'all'
        chunk = re.fullmatch(r'_(.+?)\d+', node.name)  # one part of a MapNode
        step = chunk.group(1) if chunk else node.name
        stage = STEPS.get(_kind(node), (step, 0))[0]
        if status == 'start' and (who, step) not in self.said:
            self.said.add((who, step))
            self._say(who, step)
        elif status == 'exception':
            self._say(who, f'{step} failed')
        if status == 'start' and not chunk:
            self.started[node.fullname] = time.time()
        ran = status == 'end' and self._has_run(node)
        changed = []
        for state in concerned:
            if state.began is None:
                state.began = self.clock()
                self.open[state.prefix] = state
                changed.append(state)
            key = f'{state.prefix} {node.fullname}'
            kind = state.waiting.get(node.fullname)
            if status == 'start':
                state.running[node.fullname] = state.last = stage
                if kind is not None:
                    self.forecast.start(key, kind)
                continue
            state.running.pop(node.fullname, None)
            if status == 'exception' and not state.failed:
                state.failed, state.failed_stage = step, stage
            if kind is not None:
                del state.waiting[node.fullname]
                state.done += _cost(kind)
                self.done += _cost(kind)
                self.forecast.end(key, kind, ran)
            if not state.waiting and state.ended is None:
                self._end(state)
                changed.append(state)
        return changed

    def _end(self, state: SeriesState) -> None:
        """Count a series of which no step is left."""
        state.ended = self.clock()
        self.open.pop(state.prefix, None)
        if state.failed:
            self.n_failed += 1
        else:
            self.n_succeeded += 1
            self._say(state.prefix, 'done')

    def _has_run(self, node: Any) -> bool:
        """Tell whether a node that ended has run in this call; else it was kept."""
        began = self.started.pop(node.fullname, None)
        if began is None:
            return False
        result = Path(node.output_dir()) / f'result_{node.name}.pklz'
        # clocks of a cluster differ a little
        return result.exists() and result.stat().st_mtime > began - 2

    def _say(self, who: str, what: str) -> None:
        """Log one line: elapsed minutes and seconds, series, step."""
        minutes, seconds = divmod(int(self.clock() - self.began), 60)
        details.info('%3d:%02d  %-24s %s', minutes, seconds, who, what)


def _kind(node: Any) -> str:
    return type(node.interface).__name__


def _cost(kind: str) -> float:
    """What a step takes by the table, s."""
    return STEPS.get(kind, ('', 1.0))[1]
