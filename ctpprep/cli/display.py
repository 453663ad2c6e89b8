# SPDX-License-Identifier: Apache-2.0
"""Progress of a run: bars on a terminal, plain lines anywhere else."""

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, TextIO, TypeVar

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Column
from rich.text import Text

from ctpprep.cli.signals import call_before_ending
from ctpprep.settings import RunSettings

if TYPE_CHECKING:
    from ctpprep.engine.tracker import RunTracker, SeriesState

T = TypeVar('T')

logger = logging.getLogger('ctpprep')
details = logging.getLogger('ctpprep.details')  # written to the log file only

MAX_ROWS = 8  # series shown at a time
MIN_BAR_WIDTH = 60  # columns; a narrower terminal shows no bars
SHOW_CURSOR = b'\x1b[?25h'
PAGE_SECONDS = 0.2  # time to write one report page


def can_redraw(stream: TextIO, environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether a stream is a terminal on which lines can be redrawn.

    Parameters
    ----------
    stream : file
    environ : mapping
        Environment; TERM and CI are read.
    """
    is_dumb = environ.get('TERM', 'dumb') in ('dumb', 'unknown', '')
    is_ci = environ.get('CI', '').lower() not in ('', '0', 'false')
    return stream.isatty() and not is_dumb and not is_ci


def uses_bars(run: RunSettings) -> bool:
    """Return whether a run shows bars; with -v, nipype writes to the terminal instead."""
    return run.verbosity == 0 and can_redraw(sys.stderr)


def format_duration(seconds: float) -> str:
    """Format a duration.

    Examples
    --------
    >>> format_duration(75), format_duration(3675)
    ('1:15', '1:01:15')
    """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours}:{minutes:02d}:{rest:02d}' if hours else f'{minutes}:{rest:02d}'


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


class SeriesLines:
    """Log one line when a series starts and one when it ends.

    Parameters
    ----------
    n_pages : int
        Report pages that will be written after the last series.
    """

    def __init__(self, n_pages: int = 0) -> None:
        self.n_pages = n_pages

    def __call__(self, tracker: 'RunTracker', state: 'SeriesState', event: str) -> None:
        """Log that a series has started or ended."""
        if event == 'started':
            self.log(tracker, state.prefix, 'started')
        if event != 'ended' or state.started is None or state.ended is None:
            return
        remaining = self.format_remaining(tracker)
        count = f'{tracker.n_ended} of {len(tracker.states)}'
        count += f', {remaining}' if remaining else ''
        duration = format_duration(state.ended - state.started)
        if state.failed_step:
            cause = f': {state.cause}' if state.cause else ''
            text = f'failed at {state.failed_stage} after {duration}{cause} ({count})'
        else:
            text = f'done in {duration} ({count})'
        self.log(tracker, state.prefix, text, bool(state.failed_step))

    def log(self, tracker: 'RunTracker', prefix: str, text: str, failed: bool = False) -> None:
        """Log elapsed time, series and event."""
        time = format_duration(tracker.elapsed)
        self.choose_logger(failed).info('%6s  %-24s %s', time, prefix, text)

    def choose_logger(self, failed: bool) -> logging.Logger:
        """Return the logger for an event."""
        return logger

    def format_remaining(self, tracker: 'RunTracker') -> str:
        """Format the time until the last page; '' once all series have ended."""
        seconds = tracker.seconds_left()
        if seconds is None or tracker.n_ended == len(tracker.states):
            return ''
        return format_remaining(seconds + PAGE_SECONDS * self.n_pages)


class SeriesBars(SeriesLines):
    """Show a bar for each running series; only failures scroll by above.

    Parameters
    ----------
    n_pages : int
        Report pages that will be written after the last series.
    folded : bool
        Start and success of a series are shown by its bar alone.
    """

    def __init__(self, n_pages: int = 0, folded: bool = True) -> None:
        super().__init__(n_pages)
        self.folded = folded
        self.tracker: RunTracker | None = None
        self.tasks: dict[str, TaskID] = {}
        self.bars = Bars('in all', 1.0, self.describe)

    def __call__(self, tracker: 'RunTracker', state: 'SeriesState', event: str) -> None:
        """Update the bars."""
        self.tracker = tracker
        self.bars.update(self.bars.overall, total=tracker.total, completed=tracker.done)
        if event == 'started':
            self.tasks[state.prefix] = self.bars.add_task(state.prefix, total=state.total, text='')
        self.bars.update(self.tasks[state.prefix], completed=state.done, text=state.stage)
        if event == 'ended':
            self.bars.remove_task(self.tasks.pop(state.prefix))
        super().__call__(tracker, state, event)

    def choose_logger(self, failed: bool) -> logging.Logger:
        """Return the logger for an event."""
        return logger if failed or not self.folded else details

    def describe(self, overall: Task) -> tuple[str, str]:
        """Return remaining time and counts."""
        if self.tracker is None:
            return '', 'preparing the graph'
        return self.format_remaining(self.tracker), format_counts(self.tracker)


class Bars(Progress):
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
        describe: Callable[[Task], tuple[str, str]],
        console: Console | None = None,
    ) -> None:
        # soft_wrap: long lines stay whole, so that paths can be copied
        console = console or Console(
            stderr=True, force_terminal=True, soft_wrap=True, highlight=False, markup=False,
            emoji=False,
        )  # fmt: skip
        one_line = partial(Column, no_wrap=True, overflow='ellipsis')
        has_bars = console.width >= MIN_BAR_WIDTH
        text = one_line(width=len('about 10 h 30 min left')) if has_bars else one_line(ratio=1)
        # markup=False: a name may contain brackets
        columns: list[ProgressColumn] = [
            TextColumn(
                '{task.description}', markup=False,
                table_column=one_line(max_width=console.width // 3),
            ),
            TextColumn('{task.fields[text]}', markup=False, table_column=text),
        ]  # fmt: skip
        if has_bars:
            columns += [
                BarColumn(None, table_column=Column(ratio=1, min_width=8)),
                TextColumn('{task.percentage:.0f} %', table_column=Column(justify='right')),
            ]
        super().__init__(
            *columns, TimeElapsedColumn(), console=console, refresh_per_second=1, transient=True,
            expand=True, redirect_stdout=sys.stdout.isatty(),
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


@contextlib.contextmanager
def shown(bars: Bars) -> Iterator[None]:
    """Show bars below all output; leave the terminal as it was, even if a signal ends the process."""

    def stop_at_signal() -> None:
        # in another thread: this one may have been interrupted while it had a lock of the display
        stopping = threading.Thread(target=bars.stop, daemon=True)
        stopping.start()
        stopping.join(1)
        os.write(2, SHOW_CURSOR)

    # a terminal may be closed at any time, which must not stop the run
    with call_before_ending(stop_at_signal):
        with contextlib.suppress(OSError):
            bars.start()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                bars.stop()


@contextlib.contextmanager
def show_series(run: RunSettings, n_pages: int) -> Iterator[SeriesLines]:
    """Show the progress of the series of a run.

    Parameters
    ----------
    run : RunSettings
    n_pages : int
        Report pages that will be written after the last series.

    Yields
    ------
    SeriesLines
        Watcher for `run_workflow`.
    """
    if not uses_bars(run):
        yield SeriesLines(n_pages)
        return
    display = SeriesBars(n_pages, folded=sys.stdout.isatty())
    with shown(display.bars):
        yield display


def show_pages(participants: Sequence[T], run: RunSettings) -> Iterator[T]:
    """Yield participants one by one, and show how many report pages are left.

    Parameters
    ----------
    participants : sequence
    run : RunSettings
    """
    n_pages = len(participants)
    if n_pages < 2 or not uses_bars(run):
        yield from participants
        return

    def describe(overall: Task) -> tuple[str, str]:
        line = f'{overall.completed:.0f} of {n_pages} pages written'
        return format_remaining(overall.time_remaining), line

    bars = Bars('report', n_pages, describe)
    with shown(bars):
        for participant in participants:
            yield participant
            bars.advance(bars.overall)
