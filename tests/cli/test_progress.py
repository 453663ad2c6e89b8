# SPDX-License-Identifier: Apache-2.0
"""What a terminal shows while a run goes on, and what a file gets in its place."""

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

from ctpprep.cli.progress import Display, can_move, format_counts, format_remaining, moves
from ctpprep.engine.progress import Row, Snapshot
from ctpprep.phantom import PhantomSettings, make_phantom, write_bids
from ctpprep.settings import RunSettings

HEAD = PhantomSettings(
    seed=11, matrix=64, voxel_size_mm=(3.4, 3.4, 8.0), n_slices=10, n_frames=20,
    frame_interval=2.0, motion_mm=1.0, lesion='large', lesion_side='left',
)  # fmt: skip
PATIENCE = 300  # s, on a busy machine
HIDE, SHOW = '\x1b[?25l', '\x1b[?25h'


def on_a_terminal(command, until=None, **environment):
    """Run a command on a terminal of 80 columns; end it when it has shown a text, if one is given."""
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
        except OSError:  # the other side has closed it
            break
        if until and not stopped and until in shown.decode(errors='ignore'):
            stopped = True
            os.write(terminal, b'\x03')
    os.close(terminal)
    return shown.decode(), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.fixture(scope='module')
def command(tmp_path_factory):
    folder = tmp_path_factory.mktemp('progress')
    write_bids(make_phantom(HEAD), folder / 'raw', '01')
    options = ['participant', '-w', folder / 'work', '--nprocs', '2']
    words = [sys.executable, '-m', 'ctpprep', folder / 'raw', folder / 'out', *options]
    return [str(word) for word in words]


def test_ctrl_c_leaves_a_sane_terminal(command):
    shown, code = on_a_terminal(command, until='in all')
    assert code == 130
    assert 'interrupted; the same command takes up the work again\r\n' in shown
    assert shown.rindex(SHOW) > shown.rindex(HIDE)
    assert shown.rindex('interrupted') > shown.rindex('in all')


def test_a_terminal_shows_stages_and_gets_its_cursor_back(command):
    shown, code = on_a_terminal(command, NO_COLOR='1')
    assert code == 0
    assert re.search(r'sub-01 +(deconvolution|symmetry|quality)', shown)
    assert 'begins' not in shown  # folded
    assert shown.rindex(SHOW) > shown.rindex(HIDE)
    assert not re.search(r'\x1b\[[0-9;]*3[0-9]', shown), 'a colour'
    assert 'sub-01  ok' in shown[shown.rindex(SHOW) :]


def test_a_terminal_without_unicode_breaks_nothing(command):
    shown, code = on_a_terminal(command, PYTHONIOENCODING='ascii', LC_ALL='C')
    assert code == 0
    assert 'in all' in shown


def test_a_pipe_gets_a_line_at_begin_and_end_and_no_control_characters(command):
    environment = {**os.environ, 'TERM': 'xterm-256color'}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert run.stderr == ''
    assert all(line.isprintable() for line in run.stdout.splitlines())
    lines = [
        line.split()[1:] for line in run.stdout.splitlines() if re.match(r' +\d+:\d\d ', line)
    ]
    assert [line[:2] for line in lines] == [['sub-01', 'begins'], ['sub-01', 'done']]
    assert lines[1][-3:] == ['(1', 'of', '1)']


# -- where it moves


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(('environ', 'expected'), [
    ({'TERM': 'xterm'}, True), ({'TERM': 'dumb'}, False), ({}, False),
    ({'TERM': 'xterm', 'CI': 'true'}, False), ({'TERM': 'xterm', 'CI': ''}, True),
])  # fmt: skip
def test_a_display_needs_a_terminal_that_can_move(environ, expected):
    assert can_move(Terminal(), environ) == expected
    assert not can_move(io.StringIO(), environ)


def test_more_words_leave_the_display_out(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'stderr', Terminal())
    monkeypatch.setenv('TERM', 'xterm')
    monkeypatch.delenv('CI', raising=False)
    assert moves(RunSettings(tmp_path, tmp_path, tmp_path))
    assert not moves(RunSettings(tmp_path, tmp_path, tmp_path, verbosity=1))


# -- what it shows


def run_of(n_series, n_rows=2, n_failed=1):
    """Make a run of which ten series have succeeded."""
    rows = [Row(f'sub-{i:04d}_ses-01', 'global normalization', 0.5, 75) for i in range(n_rows)]

    def snapshot(most_rows):
        kept = tuple(rows[:most_rows])
        return Snapshot(kept, n_series, n_rows, 10, n_failed, 0.25, 4000, 9100)

    return SimpleNamespace(snapshot=snapshot)


def frame(width, progress, encoding='utf-8', height=24):
    display = Display()
    display.progress = progress
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=file, width=width, height=height, color_system=None, soft_wrap=True)
    console.print(display.draw(width, height))
    file.flush()
    return file.buffer.getvalue().decode(encoding).rstrip('\n').split('\n')


@pytest.mark.parametrize('width', [40, 80, 200])
def test_a_frame_keeps_to_the_terminal(width):
    lines = frame(width, run_of(3000, 64))
    assert len(lines) == 10  # eight series, all, the count
    assert max(map(len, lines)) <= width
    assert 'about 2 h 30 min' in lines[-2]
    assert lines[-1].startswith('10 of 3000 done, 1 failed, 2989 left')


def test_a_low_terminal_gets_fewer_series():
    assert len(frame(80, run_of(3000, 64), height=8)) == 6


def test_a_terminal_without_unicode_is_drawn_on():
    assert '---' in frame(80, run_of(12), encoding='ascii')[0]


def test_no_failure_is_no_word():
    now = run_of(12, n_failed=0).snapshot(8)
    assert format_counts(now) == '10 of 12 done, 2 left, 2 running'


def test_time_left_is_told_no_finer_than_it_is_known():
    assert [format_remaining(s) for s in (None, 0, 41, 89, 86400)] == [
        '', 'about 10 s left', 'about 50 s left', 'about 1 min left', 'about 24 h left'
    ]  # fmt: skip
