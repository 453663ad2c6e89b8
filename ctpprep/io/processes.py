# SPDX-License-Identifier: Apache-2.0
"""Call functions in several processes, and end with a parent that was killed."""

import contextlib
import ctypes
import multiprocessing
import signal
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

LEAST_CALLS = 20  # checks per process; fewer are quicker here
PR_SET_PDEATHSIG = 1  # of prctl(2)


def call_side_by_side(
    calls: Sequence[Callable[[], Any]], n_procs: int, least_calls: int = LEAST_CALLS
) -> list[Any]:
    """Call functions in forks of this process, and return their results in the same order.

    Parameters
    ----------
    calls : sequence of callable
        They return what can be pickled.
    n_procs : int
        Number of processes.
    least_calls : int
        Per process.

    Returns
    -------
    list
        The calls of a process that was killed, or in which one failed, are repeated here.

    Examples
    --------
    >>> call_side_by_side([lambda: 1, lambda: 2], 2)
    [1, 2]
    """
    n_procs = min(n_procs, len(calls) // least_calls)
    if n_procs < 2 or 'fork' not in multiprocessing.get_all_start_methods():
        return [call() for call in calls]
    context = multiprocessing.get_context('fork')
    shares = []
    for first in range(n_procs):
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_call_all, args=(calls[first::n_procs], sender))
        process.start()
        sender.close()
        shares.append((calls[first::n_procs], receiver, process))
    results: list[Any] = [None] * len(calls)
    try:
        for first, (share, receiver, _) in enumerate(shares):
            try:
                results[first::n_procs] = receiver.recv()
            except (EOFError, OSError):
                results[first::n_procs] = [call() for call in share]
    finally:  # also if a call has failed
        for _, _, process in shares:
            process.terminate()
            process.join()
    return results


def _call_all(calls: Sequence[Callable[[], Any]], sender: Connection) -> None:
    """Call functions in a fork; Ctrl-C and SIGTERM are answered by the parent alone."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with contextlib.suppress(Exception):  # it is raised by the parent, which repeats the call
        sender.send([call() for call in calls])


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent has ended (Linux only)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
