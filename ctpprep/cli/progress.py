# SPDX-License-Identifier: Apache-2.0
"""Show how far a run is: a display that moves on a terminal, plain lines anywhere else."""

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO

from ctpprep.cli.signals import WORDS
from ctpprep.settings import RunSettings

if TYPE_CHECKING:
    from ctpprep.engine.progress import Progress, SeriesState, Snapshot

logger = logging.getLogger('ctpprep')
details = logging.getLogger('ctpprep.details')  # for the log of the run alone

INTERVAL = 1.0  # s between two frames
MOST_ROWS = 8  # series shown at once
WIDE = 60  # columns; a narrower terminal gets no bars
SHOW_CURSOR = b'\n\x1b[?25h'
PAGE_COST = 0.2  # s a page takes (make demo)


def can_move(stream: TextIO, environ: Mapping[str, str] = os.environ) -> bool:
    """Tell whether a stream is a terminal on which lines can be drawn over.

    Parameters
    ----------
    stream : file
    environ : mapping
        TERM and CI count.
    """
    no = ('', '0', 'false')
    dumb = environ.get('TERM', 'dumb') in ('dumb', 'unknown', '')
    return stream.isatty() and not dumb and environ.get('CI', '').lower() in no


def format_duration(seconds: float) -> str:
    """Write a span of time as a clock does.

    Examples
    --------
    >>> format_duration(75), format_duration(3675)
    ('1:15', '1:01:15')
    """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours}:{minutes:02d}:{rest:02d}' if hours else f'{minutes}:{rest:02d}'


def format_remaining(seconds: float | None) -> str:
    """Write the time left no finer than it is known; nothing where it is not.

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


class Lines:
    """One line when a series begins, one when it has ended; steps stand in the log of the run."""

    def __init__(self, n_pages: int = 0) -> None:
        self.n_pages = n_pages

    def __call__(self, progress: 'Progress', state: 'SeriesState') -> None:
        """Tell of a series that has begun or ended."""
        now = progress.snapshot(0)
        if state.ended is None:
            self.say(now, state.prefix, 'begins', False)
            return
        took = format_duration(state.ended - (state.began or state.ended))
        where = f'{now.n_ended} of {now.n_series}'
        if left := format_remaining(self.left(now)):
            where += f', {left}'
        if state.failed:
            cause = f': {state.cause}' if state.cause else ''
            what = f'failed at {state.failed_stage} after {took}{cause} ({where})'
        else:
            what = f'done in {took} ({where})'
        self.say(now, state.prefix, what, bool(state.failed))

    def say(self, now: 'Snapshot', prefix: str, what: str, failed: bool) -> None:
        """Log one line: time since the run began, series, what became of it."""
        self.logger_of(failed).info('%6s  %-24s %s', format_duration(now.elapsed), prefix, what)

    def logger_of(self, failed: bool) -> logging.Logger:
        """Choose who hears of a series."""
        return logger

    def left(self, now: 'Snapshot') -> float | None:
        """Tell the time left with the pages that follow the last series, s; none after it."""
        if now.left is None or now.n_ended == now.n_series:
            return None
        return now.left + PAGE_COST * self.n_pages


class Display(Lines):
    """Series that run, one line each, and all of them; only failures scroll by.

    Parameters
    ----------
    n_pages : int
        Pages to be written after the last series.
    folded : bool
        Series that begin and succeed are told by the display alone.
    """

    def __init__(self, n_pages: int = 0, folded: bool = True) -> None:
        super().__init__(n_pages)
        self.folded = folded
        self.progress: Progress | None = None

    def __call__(self, progress: 'Progress', state: 'SeriesState') -> None:
        """Take note of whom to ask, and tell of a series that has begun or ended."""
        self.progress = progress
        super().__call__(progress, state)

    def logger_of(self, failed: bool) -> logging.Logger:
        """Choose who hears of a series."""
        return logger if failed or not self.folded else details

    def draw(self, width: int, height: int) -> Any:
        """Draw one frame.

        Parameters
        ----------
        width, height : int
            Columns and lines of the terminal.

        Returns
        -------
        rich renderable
        """
        if self.progress is None:
            return 'preparing the graph'
        now = self.progress.snapshot(max(1, min(MOST_ROWS, height - 4)))
        bars = [(row.prefix, row.stage, row.share, row.elapsed) for row in now.rows]
        left = format_remaining(self.left(now))
        return _frame([*bars, ('in all', left, now.share, now.elapsed)], format_counts(now), width)


def format_counts(now: 'Snapshot') -> str:
    """Write how many series have ended, run, and are left."""
    failed = f', {now.n_failed} failed' if now.n_failed else ''
    left = now.n_series - now.n_ended
    running = f', {now.n_running} running' if now.n_running else ''
    return f'{now.n_succeeded} of {now.n_series} done{failed}, {left} left{running}'


def _frame(bars: Sequence[tuple[str, str, float, float]], line: str, width: int) -> Any:
    """Lay out bars (name, what is done, share, s) above a line; narrow terminals get no bars."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    wide = width >= WIDE
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(no_wrap=True, overflow='ellipsis', max_width=width // 3)
    if wide:  # of one width, so that bars begin at one place
        grid.add_column(no_wrap=True, overflow='ellipsis', width=len('about 10 h 30 min left'))
        grid.add_column(ratio=1, min_width=8)
        grid.add_column(no_wrap=True, justify='right', min_width=4)
    else:
        grid.add_column(no_wrap=True, overflow='ellipsis', ratio=1)
    grid.add_column(no_wrap=True, justify='right', min_width=4)
    for name, what, share, elapsed in bars:
        cells: list[Any] = [Text(name), Text(what)]  # rich would read brackets as its markup
        if wide:
            cells += [ProgressBar(total=1.0, completed=share), Text(f'{int(100 * share)} %')]
        grid.add_row(*cells, Text(format_duration(elapsed)))
    return Group(grid, Text(line, no_wrap=True, overflow='ellipsis'))


@contextlib.contextmanager
def moving(draw: Callable[[int, int], Any]) -> Iterator[None]:
    """Show what is drawn below all that is said, and leave the terminal as it was.

    Parameters
    ----------
    draw : callable
        Draws a frame for a terminal of so many columns and lines.
    """
    from rich.console import Console
    from rich.live import Live

    # long lines go to the terminal as they are, so that paths can be copied
    console = Console(
        stderr=True, force_terminal=True, soft_wrap=True, highlight=False, markup=False, emoji=False
    )  # fmt: skip
    live = Live(
        console=console, auto_refresh=False, transient=True, vertical_overflow='crop',
        redirect_stdout=sys.stdout.isatty(), get_renderable=lambda: draw(*console.size),
    )  # fmt: skip
    ended, drawing = threading.Event(), threading.RLock()

    def refresh() -> None:
        while not ended.wait(INTERVAL):
            # what is shown is not worth a run: a terminal may be closed at any time
            with drawing, contextlib.suppress(Exception):
                if not ended.is_set():
                    live.refresh()

    thread = threading.Thread(target=refresh, daemon=True)
    with _leaving_sane(ended, drawing):
        try:
            with contextlib.suppress(OSError):
                live.start(refresh=True)
            thread.start()
            yield
        finally:
            ended.set()
            thread.join(INTERVAL)
            with contextlib.suppress(OSError):
                live.stop()


@contextlib.contextmanager
def _leaving_sane(ended: threading.Event, drawing: Any) -> Iterator[None]:
    """Stop drawing and show the cursor before a signal ends the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in WORDS}

    def leave(number: int, frame: FrameType | None) -> None:
        ended.set()
        drawing.acquire(timeout=INTERVAL)  # let a frame be finished
        with contextlib.suppress(OSError):
            os.write(2, SHOW_CURSOR)  # no lock may be waited for here
        handler = before[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)
        else:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    for number, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, leave)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def moves(run: RunSettings) -> bool:
    """Tell whether a run is shown by a display; with -v nipype writes to the terminal, too."""
    return run.verbosity == 0 and can_move(sys.stderr)


@contextlib.contextmanager
def show_series(run: RunSettings, n_pages: int) -> Iterator[Lines]:
    """Show how the series of a run go on.

    Parameters
    ----------
    run : RunSettings
    n_pages : int
        Pages to be written after the last series.

    Yields
    ------
    Lines or Display
        What `run_workflow` is to call.
    """
    if not moves(run):
        yield Lines(n_pages)
        return
    display = Display(n_pages, sys.stdout.isatty())
    with moving(display.draw):
        yield display


def show_pages(labels: Sequence[str], run: RunSettings) -> Iterator[str]:
    """Give labels of participants one by one, with a line that tells how many pages are left.

    Parameters
    ----------
    labels : sequence of str
    run : RunSettings
    """
    if len(labels) < 2 or not moves(run):
        yield from labels
        return
    began, n_done = time.monotonic(), 0

    def draw(width: int, height: int) -> Any:
        took = time.monotonic() - began
        left = (
            format_remaining(took * (len(labels) / n_done - 1))
            if n_done and took > INTERVAL
            else ''
        )
        line = f'{n_done} of {len(labels)} pages written'
        return _frame([('report', left, n_done / len(labels), took)], line, width)

    with moving(draw):
        for label in labels:
            yield label
            n_done += 1
