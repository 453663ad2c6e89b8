# SPDX-License-Identifier: Apache-2.0
"""Call short checks in several processes."""

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

LEAST_CALLS = 20  # per process; fewer are quicker here


def call_side_by_side(calls: Sequence[Callable[[], Any]], n_procs: int) -> list[Any]:
    """Call functions in forks of this process, and return their results in the same order.

    Parameters
    ----------
    calls : sequence of callable
        They return what can be pickled, and raise nothing.
    n_procs : int
        Number of processes.

    Returns
    -------
    list
        The calls of a process that was killed are repeated here.

    Examples
    --------
    >>> call_side_by_side([lambda: 1, lambda: 2], 2)
    [1, 2]
    """
    n_procs = min(n_procs, len(calls) // LEAST_CALLS)
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
    for first, (share, receiver, process) in enumerate(shares):
        try:
            results[first::n_procs] = receiver.recv()
        except (EOFError, OSError):
            results[first::n_procs] = [call() for call in share]
        process.join()
    return results


def _call_all(calls: Sequence[Callable[[], Any]], sender: Connection) -> None:
    """Call functions in a fork; Ctrl-C and SIGTERM are answered by the parent alone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sender.send([call() for call in calls])
