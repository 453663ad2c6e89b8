# SPDX-License-Identifier: Apache-2.0
"""nipype plugin that runs whole series side by side, each in one process.

nipype's own plugins run the first step of all series, then the second: of a thousand series, none would be
complete before nearly all are. Its MultiProc plugin also waits for ever for a worker that was killed.
"""

import contextlib
import ctypes
import gc
import multiprocessing
import os
import signal
import traceback
from collections import deque
from collections.abc import Callable, Generator, Sequence
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from nipype import config as nipype_config
from nipype import logging as nipype_logging
from nipype.pipeline.plugins.base import PluginBase
from nipype.pipeline.plugins.linear import LinearPlugin
from nipype.pipeline.plugins.tools import report_crash
from nipype.utils.misc import str2bool

from ctpprep.engine.crashes import hide_user
from ctpprep.engine.hashes import cache_file_hashes

KILLED = (
    'ctpprep.exceptions.CtpprepError: the process of this step was killed twice, most likely '
    'because memory ran out; run again with fewer --nprocs or more memory\n'
)
PR_SET_PDEATHSIG = 1  # of prctl(2)

# called with a node and 'start', 'end', 'exception' or 'skipped'
Callback = Callable[[Any, str], None]


class SeriesPlugin(PluginBase):
    """Run each series in one process, as many side by side as processes and memory allow.

    A series whose process is killed, as happens when memory runs out, continues after its last complete
    step in a new process, while no other series runs. If that is killed too, the step has failed.

    Parameters
    ----------
    n_procs : int
        Number of processes. With 1, all series run in the calling process.
    memory_gb : float
        Memory that all running series share, GB.
    """

    def __init__(self, n_procs: int, memory_gb: float) -> None:
        super().__init__()
        self.n_procs, self.memory_gb = n_procs, memory_gb

    def run(self, graph: Any, config: dict[str, Any], updatehash: bool = False) -> None:
        """Run all nodes.

        Parameters
        ----------
        graph : networkx.DiGraph
            Nodes of all series.
        config : dict
            Options of nipype.
        updatehash : bool
            Ignored; ctpprep never sets it.

        Raises
        ------
        RuntimeError
            The first error, after all other series have run.
        """
        notify = self._status_callback or (lambda node, status: None)
        run_all = run_here if self.n_procs == 1 else self.run_in_processes
        errors = []
        with contextlib.closing(run_all(split_by_series(graph), config, notify)) as outcomes:
            for error in filter(None, outcomes):
                errors.append(error)
                if str2bool(config['execution']['stop_on_first_crash']):
                    break
        if errors:
            raise RuntimeError(errors[0])

    def run_in_processes(
        self, graphs: Sequence[Any], config: dict[str, Any], notify: Callback
    ) -> Generator[str, None, None]:
        """Run series in worker processes; yield the error of each series, '' if it succeeded."""
        waiting, killed = deque(graphs), deque[Any]()
        idle, busy = list[_Worker](), list[_Worker]()
        context = start_fork_server()

        def start(graph: Any, is_retry: bool) -> None:
            # an idle process may have been killed as well: a second try gets a new one
            worker = idle.pop() if idle and not is_retry else _Worker(context)
            worker.start(graph, config, is_retry)
            busy.append(worker)

        try:
            while waiting or killed or busy:
                while waiting and not killed and self._fits(waiting[0], busy):
                    start(waiting.popleft(), is_retry=False)
                if killed and not busy:
                    start(killed.popleft(), is_retry=True)
                ready = wait([worker.connection for worker in busy])
                for worker in [worker for worker in busy if worker.connection in ready]:
                    try:
                        step, outcome = worker.connection.recv()
                    except (EOFError, OSError):  # the process was killed
                        busy.remove(worker)
                        worker.kill()
                        if worker.is_retry:
                            yield worker.report_killed(notify)
                        else:
                            killed.append(worker.graph)
                        continue
                    if step:
                        worker.step = step
                        notify(worker.nodes[step], outcome)
                    else:
                        busy.remove(worker)
                        idle.append(worker)
                        yield outcome
        finally:
            for worker in (*idle, *busy):
                worker.kill()

    def _fits(self, graph: Any, busy: 'Sequence[_Worker]') -> bool:
        """Return whether a series can start beside those that run."""
        if not busy:
            return True
        if len(busy) == self.n_procs or any(worker.is_retry for worker in busy):
            return False
        return sum(map(required_gb, (graph, *(worker.graph for worker in busy)))) <= self.memory_gb


def start_fork_server() -> Any:
    """Start the process that workers are forked from, unless it runs.

    A fork of this process would copy the locks of its threads in whatever state they are. The imports
    of the server run beside those of this process.

    Returns
    -------
    multiprocessing.context.BaseContext
    """
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload([
        'ctpprep.engine.forkserver', __name__, 'ctpprep.workflows.base', 'matplotlib.figure'
    ])  # fmt: skip
    # the server ignores Ctrl-C only after its imports; until then it inherits that the signal is blocked
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    return context


class _Worker:
    """A process that runs series, seen from the main process."""

    graph: Any
    is_retry: bool

    def __init__(self, context: Any) -> None:
        self.connection, remote = context.Pipe()
        level = nipype_config.get('logging', 'workflow_level')
        self.process = context.Process(target=_serve, args=(remote, os.getcwd(), level))
        self.process.start()
        remote.close()  # so that the end of the process closes the connection

    def start(self, graph: Any, config: dict[str, Any], is_retry: bool) -> None:
        """Send a series to the process."""
        self.graph, self.is_retry = graph, is_retry
        self.nodes = {node.fullname: node for node in graph}
        self.step = next(iter(self.nodes))  # the last that began
        with contextlib.suppress(OSError):  # killed while idle: the next read finds out
            self.connection.send((graph, config))

    def report_killed(self, notify: Callback) -> str:
        """Write a crash file for the step during which the process was killed; return the error."""
        node = self.nodes[self.step]
        notify(node, 'exception')
        try:
            report_crash(node, traceback=[KILLED])
        except Exception as error:  # the disk may be full
            return _format_error(error)
        finally:
            _skip_rest(self.graph, notify)
        return KILLED

    def kill(self) -> None:
        """End the process at once; an idle one has nothing left to write."""
        self.process.kill()
        self.process.join()
        self.connection.close()


def split_by_series(graph: Any) -> list[Any]:
    """Split a graph into one graph per series, in the order in which the series were added."""
    import networkx as nx

    series: dict[tuple[str, ...], list[Any]] = {}
    for node in nx.topological_sort(graph):
        participant_and_series = tuple(node.fullname.split('.')[1:3])
        series.setdefault(participant_and_series, []).append(node)
    return [graph.subgraph(nodes).copy() for nodes in series.values()]


def required_gb(graph: Any) -> float:
    """Return the memory that a series needs: its steps run one at a time, GB."""
    return float(max(node.mem_gb for node in graph))


def run_here(
    graphs: Sequence[Any], config: dict[str, Any], notify: Callback
) -> Generator[str, None, None]:
    """Run series in this process, one after another; yield the error of each."""
    for graph in graphs:
        yield run_series(graph, config, notify)


def run_series(graph: Any, config: dict[str, Any], notify: Callback) -> str:
    """Run the nodes of one series in this process.

    Parameters
    ----------
    graph : networkx.DiGraph
    config : dict
        Options of nipype.
    notify : callable

    Returns
    -------
    str
        Error of the first node that failed, '' if none did.
    """
    plugin = LinearPlugin()
    plugin._status_callback = notify
    try:
        with contextlib.chdir(Path.cwd()):
            plugin.run(graph, config)
    except Exception as error:
        _skip_rest(graph, notify)
        return _format_error(error)
    return ''


def _skip_rest(graph: Any, notify: Callback) -> None:
    """Report all nodes as skipped; for a node that has ended this changes nothing."""
    for node in graph:
        notify(node, 'skipped')


def _format_error(error: Exception) -> str:
    return ''.join(traceback.format_exception_only(error)).strip()


def _serve(connection: Connection, cwd: str, level: str) -> None:
    """Run the series that arrive until the main process closes the connection or ends."""
    die_with_parent()  # the fork server, which ends with the main process
    gc.freeze()  # keeps memory shared with the server
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process ends its workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.chdir(cwd)
    cache_file_hashes()
    hide_user()
    levels = dict.fromkeys(('workflow_level', 'interface_level', 'utils_level'), level)
    nipype_config.update_config({'logging': levels})
    nipype_logging.update_logging(nipype_config)
    with contextlib.suppress(EOFError, OSError):
        while True:
            graph, config = connection.recv()
            error = run_series(
                graph, config, lambda node, status: connection.send((node.fullname, status))
            )
            connection.send(('', error))


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent has ended (Linux only)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
