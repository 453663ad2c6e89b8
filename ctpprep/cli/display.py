# SPDX-License-Identifier: Apache-2.0
"""Progress of a run: bars on a terminal, plain lines anywhere else."""

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from rich import progress
from rich.console import Console, RenderableType
from rich.table import Column
from rich.text import Text

from ctpprep.cli.signals import call_before_ending
from ctpprep.settings import RunSettings

if TYPE_CHECKING:
    from ctpprep.engine.tracker import RunTracker, SeriesState, Watcher

T = TypeVar('T')

logger = logging.getLogger('ctpprep')
details = logging.getLogger('ctpprep.details')  # written to the log file only

MAX_ROWS = 8  # series shown at a time
MIN_BAR_WIDTH = 60  # columns; a narrower terminal shows no bars
SHOW_CURSOR = b'\x1b[?25h'


def can_redraw(stream: TextIO, environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether a stream is a terminal on which lines can be redrawn."""
    is_dumb = environ.get('TERM', 'dumb') in ('dumb', 'unknown', '')
    is_ci = environ.get('CI', '').lower() not in ('', '0', 'false')
    return stream.isatty() and not is_dumb and not is_ci


def uses_bars(run: RunSettings) -> bool:
    """Return whether a run shows bars; with -v, nipype writes to the terminal instead."""
    return run.verbosity == 0 and can_redraw(sys.stderr)


def format_remaining(seconds: float | None) -> str:
    """Format an estimated time, no finer than its precision; '' if there is no estimate.

    Examples
    --------
    >>> format_remaining(34), format_remaining(170), format_remaining(None)
    ('about 40 s left', 'about 3 min left', '')
    """
    if seconds is None:
        return ''
    if seconds <= 50:
        span = f'{10 * max(1, -(-int(seconds) // 10))} s'
    elif (minutes := max(1, round(seconds / 60))) < 100:
        span = f'{minutes} min'
    elif (tens := round(seconds / 600)) < 6 * 48:
        span = f'{tens // 6} h' + (f' {tens % 6}0 min' if tens % 6 else '')
    else:
        span = f'{round(seconds / 86400)} days'
    return f'about {span} left'


def format_counts(tracker: 'RunTracker') -> str:
    """Format how many series have succeeded, failed, are left and run."""
    n_series = len(tracker.states)
    failed = f', {tracker.n_failed} failed' if tracker.n_failed else ''
    running = f', {tracker.n_running} running' if tracker.n_running else ''
    left = n_series - tracker.n_ended
    return f'{tracker.n_succeeded} of {n_series} done{failed}, {left} left{running}'


def log_series(
    tracker: 'RunTracker', state: 'SeriesState', event: str, quiet: bool = False
) -> None:
    """Log one line when a series starts, and one with counts and time left when it ends.

    Parameters
    ----------
    tracker : RunTracker
    state : SeriesState
    event : str
        'started', 'step' or 'ended'.
    quiet : bool
        Write all but failures to the log file only.
    """
    if event == 'step':
        return
    text = 'started'
    if event == 'ended':
        duration = timedelta(seconds=int(state.seconds))
        text = f'done in {duration}'
        if state.failed_step:
            text = f'failed at {state.failed_stage} after {duration}'
            text += f': {state.cause}' if state.cause else ''
        left = format_remaining(tracker.seconds_left())
        text += f' ({tracker.n_ended} of {len(tracker.states)}{", " if left else ""}{left})'
    elapsed = timedelta(seconds=int(tracker.elapsed))
    target = details if quiet and not state.failed_step else logger
    target.info('%s  %-24s %s', elapsed, state.prefix, text)


class Bars(progress.Progress):
    """Bars of single tasks, one of the whole, and a line of text below.

    Parameters
    ----------
    name : str
        Name of the whole.
    total : float
        Value at which the whole is complete.
    describe : callable
        Returns the text beside the bar of the whole, and the line below.
    console : rich Console, optional
        Standard error by default.
    """

    def __init__(
        self,
        name: str,
        total: float,
        describe: Callable[[progress.Task], tuple[str, str]],
        console: Console | None = None,
    ) -> None:
        # soft_wrap: long lines stay whole, so that paths can be copied
        console = console or Console(
            stderr=True, force_terminal=True, soft_wrap=True, highlight=False, markup=False,
            emoji=False,
        )  # fmt: skip
        # markup=False: a name may contain brackets
        column = partial(Column, no_wrap=True, overflow='ellipsis')
        has_bars = console.width >= MIN_BAR_WIDTH
        text = column(width=len('about 10 h 30 min left')) if has_bars else column(ratio=1)
        columns: list[Any] = [
            progress.TextColumn(
                '{task.description}',
                markup=False,
                table_column=column(max_width=console.width // 3),
            ),
            progress.TextColumn('{task.fields[text]}', markup=False, table_column=text),
        ]
        if has_bars:
            bar = progress.BarColumn(None, table_column=Column(ratio=1, min_width=8))
            columns += [bar, progress.TaskProgressColumn()]
        super().__init__(
            *columns, progress.TimeElapsedColumn(), console=console, refresh_per_second=1,
            transient=True, expand=True, redirect_stdout=sys.stdout.isatty(),
        )  # fmt: skip
        self.describe = describe
        self.overall = self.add_task(name, total=total, text='')

    def get_renderables(self) -> Iterable[RenderableType]:
        """Return the rows of a frame; a low terminal gets fewer."""
        if not self.tasks:  # rich calls this before the first task is added
            return
        overall, *tasks = self.tasks
        overall.fields['text'], line = self.describe(overall)
        n_rows = max(1, min(MAX_ROWS, self.console.height - 4))
        yield self.make_tasks_table([*tasks[:n_rows], overall])
        yield Text(line, no_wrap=True, overflow='ellipsis')


class SeriesBars:
    """Show a bar for each running series; it is a watcher for `run_workflow`."""

    def __init__(self, console: Console | None = None) -> None:
        self.tracker: RunTracker | None = None
        self.tasks: dict[str, progress.TaskID] = {}
        self.bars = Bars('in all', 1.0, self.describe, console)

    def __call__(self, tracker: 'RunTracker', state: 'SeriesState', event: str) -> None:
        """Update the bars; if they share the terminal with standard output, log only failures."""
        self.tracker = tracker
        self.bars.update(self.bars.overall, total=tracker.total, completed=tracker.done)
        if event == 'started':
            self.tasks[state.prefix] = self.bars.add_task(state.prefix, total=state.total, text='')
        self.bars.update(self.tasks[state.prefix], completed=state.done, text=state.stage)
        if event == 'ended':
            self.bars.remove_task(self.tasks.pop(state.prefix))
        log_series(tracker, state, event, quiet=sys.stdout.isatty())

    def describe(self, overall: progress.Task) -> tuple[str, str]:
        """Return remaining time and counts."""
        if self.tracker is None:
            return '', 'preparing the graph'
        return format_remaining(self.tracker.seconds_left()), format_counts(self.tracker)


@contextlib.contextmanager
def shown(bars: Bars) -> Iterator[None]:
    """Show bars below all output; leave the terminal as it was, even if a signal ends the process."""

    def stop_at_signal() -> None:
        # in another thread: the signal may have interrupted this one while it had a lock of the bars
        stopping = threading.Thread(target=bars.stop, daemon=True)
        stopping.start()
        stopping.join(1)
        os.write(2, SHOW_CURSOR)

    with call_before_ending(stop_at_signal):
        with contextlib.suppress(OSError):  # a closed terminal must not stop the run
            bars.start()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                bars.stop()


@contextlib.contextmanager
def show_series(run: RunSettings) -> Iterator['Watcher']:
    """Show the progress of the series of a run; yield the watcher for `run_workflow`."""
    if not uses_bars(run):
        yield log_series
        return
    display = SeriesBars()
    with shown(display.bars):
        yield display


def show_pages(participants: Sequence[T], run: RunSettings) -> Iterator[T]:
    """Yield participants one by one, and show how many report pages are left."""
    n_pages = len(participants)
    if n_pages < 2 or not uses_bars(run):
        yield from participants
        return

    def describe(overall: progress.Task) -> tuple[str, str]:
        line = f'{overall.completed:.0f} of {n_pages} pages written'
        return format_remaining(overall.time_remaining), line

    bars = Bars('report', n_pages, describe)
    with shown(bars):
        for participant in participants:
            yield participant
            bars.advance(bars.overall)
