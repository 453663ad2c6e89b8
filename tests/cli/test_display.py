# SPDX-License-Identifier: Apache-2.0
"""Progress of a run on a terminal, and in a file."""

import fcntl
import io
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from types import SimpleNamespace

import pytest
from rich.console import Console

from ctpprep.cli.display import (
    SeriesBars,
    can_redraw,
    format_counts,
    format_remaining,
    uses_bars,
)
from ctpprep.engine.tracker import SeriesState
from ctpprep.phantom import write_bids
from ctpprep.settings import RunSettings

PATIENCE = 300  # s, on a busy machine
HIDE, SHOW = '\x1b[?25l', '\x1b[?25h'


def run_on_terminal(command, until=None, **environment):
    """Run a command on a terminal of 80 columns; press Ctrl-C when it has shown a text."""
    pid, terminal = pty.fork()
    if pid == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        env = {k: v for k, v in os.environ.items() if k not in ('CI', 'TEMPLATEFLOW_HOME')}
        os.execve(command[0], command, {**env, 'TERM': 'xterm-256color', **environment})
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 80, 0, 0))
    shown, end, stopped = b'', time.monotonic() + PATIENCE, False
    while time.monotonic() < end:
        try:
            shown += os.read(terminal, 65536)
        except OSError:  # closed by the command
            break
        if until and not stopped and until in shown.decode(errors='ignore'):
            stopped = True
            os.write(terminal, b'\x03')
    os.close(terminal)
    return shown.decode(), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.fixture(scope='module')
def command(coarse_head, tmp_path_factory):
    folder = tmp_path_factory.mktemp('progress')
    write_bids(coarse_head, folder / 'raw', '01')
    options = ['participant', '-w', folder / 'work', '--nprocs', '2']
    words = [sys.executable, '-m', 'ctpprep', folder / 'raw', folder / 'out', *options]
    return [str(word) for word in words]


def test_ctrl_c_leaves_a_sane_terminal(command):
    shown, code = run_on_terminal(command, until='in all')
    assert code == 130
    assert 'interrupted; repeat the same command to continue\r\n' in shown
    assert shown.rindex(SHOW) > shown.rindex(HIDE)
    assert shown.rindex('interrupted') > shown.rindex('in all')


def test_a_terminal_shows_stages_and_then_the_cursor_again(command):
    shown, code = run_on_terminal(command, NO_COLOR='1')
    assert code == 0
    assert re.search(r'sub-01 +(deconvolution|symmetry|quality)', shown)
    assert 'started' not in shown  # shown by the bar alone
    assert shown.rindex(SHOW) > shown.rindex(HIDE)
    assert not re.search(r'\x1b\[[0-9;]*3[0-9]', shown), 'shown in colour'
    assert 'sub-01  ok' in shown[shown.rindex(SHOW) :]


def test_a_run_works_on_a_terminal_without_unicode(command):
    shown, code = run_on_terminal(command, PYTHONIOENCODING='ascii', LC_ALL='C')
    assert code == 0
    assert 'in all' in shown


def test_a_pipe_gets_a_line_at_start_and_end_without_control_characters(command):
    environment = {**os.environ, 'TERM': 'xterm-256color'}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert run.stderr == ''
    assert all(line.isprintable() for line in run.stdout.splitlines())
    lines = [
        line.split()[1:] for line in run.stdout.splitlines() if re.match(r'\d:\d\d:\d\d ', line)
    ]
    assert [line[:2] for line in lines] == [['sub-01', 'started'], ['sub-01', 'done']]
    assert lines[1][-3:] == ['(1', 'of', '1)']


# -- where bars are shown


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(('environ', 'expected'), [
    ({'TERM': 'xterm'}, True), ({'TERM': 'dumb'}, False), ({}, False),
    ({'TERM': 'xterm', 'CI': 'true'}, False), ({'TERM': 'xterm', 'CI': ''}, True),
])  # fmt: skip
def test_bars_need_a_terminal_that_can_redraw(environ, expected):
    assert can_redraw(Terminal(), environ) == expected
    assert not can_redraw(io.StringIO(), environ)


def test_verbose_runs_show_no_bars(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'stderr', Terminal())
    monkeypatch.setenv('TERM', 'xterm')
    monkeypatch.delenv('CI', raising=False)
    assert uses_bars(RunSettings(tmp_path, tmp_path, tmp_path))
    assert not uses_bars(RunSettings(tmp_path, tmp_path, tmp_path, verbosity=1))


# -- what the bars show


def make_tracker(n_series, n_running=2, n_failed=1):
    """Make the tracker of a run in which ten series have succeeded."""
    return SimpleNamespace(
        states=dict.fromkeys(range(n_series)), n_running=n_running, n_succeeded=10,
        n_failed=n_failed, n_ended=10 + n_failed, total=4.0, done=1.0, seconds_left=lambda: 9100, elapsed=0,
    )  # fmt: skip


def draw_frame(width, n_series, n_running=2, encoding='utf-8', height=24):
    """Draw the bars of some running series; return the lines."""
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=file, width=width, height=height, color_system=None, soft_wrap=True)
    display = SeriesBars(console)
    tracker = make_tracker(n_series, n_running)
    for number in range(n_running):
        state = SeriesState(f'sub-{number:04d}_ses-01', total=2.0, done=1.0, started=0.0)
        state.last_stage = 'global normalization'
        display(tracker, state, 'started')
    console.print(display.bars.get_renderable())
    file.flush()
    return file.buffer.getvalue().decode(encoding).rstrip('\n').split('\n')


@pytest.mark.parametrize('width', [40, 80, 200])
def test_a_frame_fits_the_terminal(width):
    lines = draw_frame(width, 3000, 64)
    assert len(lines) == 10  # eight series, the total, the counts
    assert max(map(len, lines)) <= width
    assert 'about 2 h 30 min' in lines[-2]
    assert lines[-1].startswith('10 of 3000 done, 1 failed, 2989 left')


def test_a_low_terminal_shows_fewer_series():
    assert len(draw_frame(80, 3000, 64, height=8)) == 6


def test_bars_are_drawn_without_unicode():
    assert '---' in draw_frame(80, 12, encoding='ascii')[0]


def test_failures_are_counted_only_if_there_are_any():
    assert format_counts(make_tracker(12, n_failed=0)) == '10 of 12 done, 2 left, 2 running'


def test_remaining_time_is_no_finer_than_its_precision():
    assert [format_remaining(s) for s in (None, 0, 41, 89, 86400)] == [
        '', 'about 10 s left', 'about 50 s left', 'about 1 min left', 'about 24 h left'
    ]  # fmt: skip
