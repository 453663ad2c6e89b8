# SPDX-License-Identifier: Apache-2.0
"""nipype plugin that runs whole series side by side, or the steps of a few.

nipype's own plugins run the first step of all series, then the second: of a thousand series, none would be
complete before nearly all are. Its MultiProc plugin also waits for ever for a worker that was killed.
"""

import contextlib
import gc
import multiprocessing
import os
import signal
import traceback
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
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
from ctpprep.io.processes import die_with_parent

KILLED = (
    'ctpprep.exceptions.CtpprepError: the process of this step was killed twice, most likely '
    'because memory ran out; run again with fewer --nprocs or more memory\n'
)

# called with a node and 'start', 'end', 'exception' or 'skipped'
Callback = Callable[[Any, str], None]


@dataclass(frozen=True)
class Piece:
    """What one process runs: a series, or one step of it.

    Attributes
    ----------
    graph : networkx.DiGraph
    needs : frozenset of str
        Full names of the nodes in other pieces whose results it reads.
    """

    graph: Any
    needs: frozenset[str] = frozenset()

    @property
    def names(self) -> set[str]:
        """Full names of its nodes."""
        return {node.fullname for node in self.graph}


class SeriesPlugin(PluginBase):
    """Run each series in one process, as many side by side as processes and memory allow.

    With fewer series than processes, steps of a series that do not need each other run side by side
    as well.

    What a process was running when it was killed, as happens when memory runs out, continues after
    its last complete step in a new process, while nothing else runs. If that is killed too, the step
    has failed.

    Parameters
    ----------
    n_procs : int
        Number of processes. With 1, all series run in the calling process.
    memory_gb : float
        Memory that everything that runs shares, GB.
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
        all_series = split_by_series(graph)
        if self.n_procs == 1:
            outcomes = run_here(all_series, config, notify)
        else:
            outcomes = self.run_in_processes(
                split_into_pieces(all_series, self.n_procs), config, notify
            )
        errors = []
        with contextlib.closing(outcomes):
            for error in filter(None, outcomes):
                errors.append(error)
                if str2bool(config['execution']['stop_on_first_crash']):
                    break
        if errors:
            raise RuntimeError(errors[0])

    def run_in_processes(
        self, pieces: Sequence[Piece], config: dict[str, Any], notify: Callback
    ) -> Generator[str, None, None]:
        """Run pieces in worker processes; yield the error of each, '' if it succeeded."""
        waiting, killed = list(pieces), deque[Piece]()
        idle, busy = list[_Worker](), list[_Worker]()
        complete, failed = set[str](), set[str]()
        context = start_fork_server()

        def start(piece: Piece, is_retry: bool) -> None:
            # an idle process may have been killed as well: a second try gets a new one
            worker = idle.pop() if idle and not is_retry else _Worker(context)
            worker.start(piece, config, is_retry)
            busy.append(worker)

        def start_next() -> bool:
            piece = next((piece for piece in waiting if piece.needs <= complete), None)
            if piece is None or killed or not self._fits(piece.graph, busy):
                return False
            waiting.remove(piece)
            start(piece, is_retry=False)
            return True

        def drop_excluded() -> None:
            while excluded := [piece for piece in waiting if piece.needs & failed]:
                for piece in excluded:
                    waiting.remove(piece)
                    failed.update(piece.names)
                    _skip_rest(piece.graph, notify)

        try:
            while waiting or killed or busy:
                while start_next():
                    pass
                if killed and not busy:
                    start(killed.popleft(), is_retry=True)
                ready = wait([worker.connection for worker in busy])
                for worker in [worker for worker in busy if worker.connection in ready]:
                    try:
                        step, outcome = worker.connection.recv()
                    except (EOFError, OSError):  # the process was killed
                        busy.remove(worker)
                        worker.kill()
                        if not worker.is_retry:
                            killed.append(worker.piece)
                            continue
                        outcome = worker.report_killed(notify)
                    else:
                        if step:
                            worker.step = step
                            notify(worker.nodes[step], outcome)
                            continue
                        busy.remove(worker)
                        idle.append(worker)
                    (failed if outcome else complete).update(worker.piece.names)
                    drop_excluded()
                    yield outcome
        finally:
            for worker in (*idle, *busy):
                worker.kill()

    def _fits(self, graph: Any, busy: 'Sequence[_Worker]') -> bool:
        """Return whether a piece can start beside those that run."""
        if not busy:
            return True
        if len(busy) == self.n_procs or any(worker.is_retry for worker in busy):
            return False
        running = (worker.piece.graph for worker in busy)
        return sum(map(required_gb, (graph, *running))) <= self.memory_gb


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
        'ctpprep.engine.forkserver', __name__, 'ctpprep.workflows.base', 'matplotlib.figure', 'ants'
    ])  # fmt: skip
    # the server ignores Ctrl-C only after its imports; until then it inherits that the signal is blocked.
    # The tracker of resources, which it needs, would unblock it when it starts.
    resource_tracker.ensure_running()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    return context


class _Worker:
    """A process that runs pieces, seen from the main process."""

    piece: Piece
    is_retry: bool

    def __init__(self, context: Any) -> None:
        self.connection, remote = context.Pipe()
        level = nipype_config.get('logging', 'workflow_level')
        self.process = context.Process(target=_serve, args=(remote, os.getcwd(), level))
        self.process.start()
        remote.close()  # so that the end of the process closes the connection

    def start(self, piece: Piece, config: dict[str, Any], is_retry: bool) -> None:
        """Send a piece to the process."""
        self.piece, self.is_retry = piece, is_retry
        self.nodes = {node.fullname: node for node in piece.graph}
        self.step = next(iter(self.nodes))  # the last that began
        with contextlib.suppress(OSError):  # killed while idle: the next read finds out
            self.connection.send((piece.graph, config))

    def report_killed(self, notify: Callback) -> str:
        """Write a crash file for the step during which the process was killed; return the error."""
        node = self.nodes[self.step]
        notify(node, 'exception')
        try:
            report_crash(node, traceback=[KILLED])
        except Exception as error:  # the disk may be full
            return _format_error(error)
        finally:
            _skip_rest(self.piece.graph, notify)
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


def split_into_pieces(all_series: Sequence[Any], n_procs: int) -> list[Piece]:
    """Split the graphs of all series into what processes run: whole series if there are enough.

    A series in one process reads and hashes each file once, and ends before a later one begins.
    """
    if len(all_series) >= n_procs:
        return [Piece(series) for series in all_series]
    return [
        Piece(
            series.subgraph([node]).copy(),
            frozenset(before.fullname for before in series.predecessors(node)),
        )
        for series in all_series
        for node in series
    ]


def required_gb(graph: Any) -> float:
    """Return the memory that a piece needs: its steps run one at a time, GB."""
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
