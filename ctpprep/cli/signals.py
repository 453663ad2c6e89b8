# SPDX-License-Identifier: Apache-2.0
"""End the process and its workers as soon as a signal arrives."""

import atexit
import contextlib
import functools
import multiprocessing.util
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

WORDS = {signal.SIGINT: 'interrupted', signal.SIGTERM: 'terminated'}

_cleanups: list[Callable[[], None]] = []


@contextlib.contextmanager
def end_on_signals(uses_scheduler: bool = False) -> Iterator[None]:
    """End this process and all its child processes on Ctrl-C and SIGTERM.

    nipype would catch an exception, take it for the failure of a step, and continue. The work folder is
    consistent at any time, so nothing needs to be cleaned up. A signal that is ignored, as with ``nohup``,
    remains ignored.

    Parameters
    ----------
    uses_scheduler : bool
        Nodes run as jobs of a cluster, which are not ended; the message mentions it.
    """
    if threading.current_thread() is not threading.main_thread():  # only that one can set handlers
        yield
        return
    handlers = {number: signal.getsignal(number) for number in WORDS}
    for number, handler in handlers.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, functools.partial(_end, uses_scheduler))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def remove_at_end(folder: str | os.PathLike[str]) -> None:
    """Remove a temporary folder at exit, and when a signal ends the process."""
    remove = functools.partial(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(remove)
    _cleanups.append(remove)


@contextlib.contextmanager
def call_before_ending(cleanup: Callable[[], None]) -> Iterator[None]:
    """Call a function before a signal ends the process."""
    _cleanups.append(cleanup)
    try:
        yield
    finally:
        _cleanups.remove(cleanup)


def _end(uses_scheduler: bool, number: int, frame: FrameType | None) -> None:
    """Kill the workers, print one line, and exit with the code that shells use for the signal."""
    import psutil

    text = f'ctpprep: error: {WORDS[signal.Signals(number)]}; repeat the same command to continue'
    if uses_scheduler:
        text += ' after cancelling the remaining jobs on the cluster'
    try:
        for cleanup in _cleanups:
            with contextlib.suppress(Exception):
                cleanup()
        with contextlib.suppress(OSError):  # the reader may be gone, as `| tee` after Ctrl-C
            os.write(2, f'{text}\n'.encode())
        workers = psutil.Process().children(recursive=True)
        for worker in workers:
            with contextlib.suppress(psutil.Error):
                worker.kill()
        psutil.wait_procs(workers, timeout=2)
        # the folder of the workers' sockets, which is removed at an ordinary exit
        shutil.rmtree(multiprocessing.util.get_temp_dir(), ignore_errors=True)
    finally:
        os._exit(128 + number)
