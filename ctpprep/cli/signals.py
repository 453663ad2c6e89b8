# SPDX-License-Identifier: Apache-2.0
"""End at once when asked to, and leave no process behind."""

import contextlib
import functools
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

WORDS = {signal.SIGINT: 'interrupted', signal.SIGTERM: 'terminated'}


@contextlib.contextmanager
def ending_at_once(jobs: bool = False) -> Iterator[None]:
    """End this process and all below it at Ctrl-C and SIGTERM.

    An exception in place of it would be caught by nipype, which takes it for the failure of a
    step and goes on. What lies in the work folder is whole at any moment, so nothing is tidied up.
    A signal that is ignored (as by ``nohup``) stays so.

    Parameters
    ----------
    jobs : bool
        Nodes may run as jobs of a cluster, which are not ended: that is said.
    """
    if threading.current_thread() is not threading.main_thread():  # only that one may listen
        yield
        return
    before = {number: signal.getsignal(number) for number in WORDS}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, functools.partial(_end, jobs))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(jobs: bool, number: int, frame: FrameType | None) -> None:
    """Kill the workers, say one line, and exit as shells report the signal."""
    import psutil

    text = f'ctpprep: error: {WORDS[signal.Signals(number)]}; the same command takes up the work again'
    if jobs:
        text += ', once jobs on the cluster have ended: cancel those there'
    try:
        with contextlib.suppress(OSError):  # nobody may be listening, as `| tee` after Ctrl-C
            os.write(2, f'{text}\n'.encode())
        workers = psutil.Process().children(recursive=True)
        for worker in workers:
            with contextlib.suppress(psutil.Error):
                worker.kill()
        psutil.wait_procs(workers, timeout=2)
    finally:
        os._exit(128 + number)
