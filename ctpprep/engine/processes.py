# SPDX-License-Identifier: Apache-2.0
"""nipype's MultiProc plugin, made to survive the death of a worker."""

import contextlib
import ctypes
import gc
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import traceback
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from nipype import config as nipype_config
from nipype import logging as nipype_logging
from nipype.pipeline.plugins.multiproc import MultiProcPlugin, run_node

from ctpprep.engine.hashes import cache_file_hashes
from ctpprep.engine.order import ReportsSkips, turns

KILLED = (
    'ctpprep.exceptions.CtpprepError: the process of this step was killed twice, most likely '
    'because memory ran out; run again with fewer --nprocs or more memory\n'
)

PR_SET_PDEATHSIG = 1  # of prctl(2)
LOOK_INTERVAL = 0.1  # s between two looks at the nodes, unless one ends before


@dataclass
class _Task:
    node: Any
    updatehash: bool
    future: Future
    own_pool: ProcessPoolExecutor | None = None


class SturdyMultiProcPlugin(ReportsSkips, MultiProcPlugin):
    """Run nodes in processes; a killed worker costs a second try, not the run.

    The stock plugin waits for ever when a worker is killed, which is what happens when memory
    runs out. Here the pool is made anew, each node that was running is tried once more in a
    process of its own, one after the other and nothing beside it, and a second death is an ordinary
    failure of the node.
    """

    pool: ProcessPoolExecutor

    def __init__(self, plugin_args: dict[str, Any] | None = None) -> None:
        super().__init__(plugin_args)
        self.pool.shutdown()  # it has started no process yet
        # A fork of this process would copy its threads' locks in whatever state they are. The
        # server imports the graph once and forks workers from there.
        self._context = multiprocessing.get_context('forkserver')
        self._context.set_forkserver_preload([
            'ctpprep.engine.server', __name__, 'ctpprep.workflows.base'
        ])  # fmt: skip
        self.pool = self._new_pool(self.processors)

    def _new_pool(self, processes: int) -> ProcessPoolExecutor:
        level = nipype_config.get('logging', 'workflow_level')
        return ProcessPoolExecutor(
            processes, self._context, initializer=_start_worker, initargs=(self._cwd, level)
        )

    def _submit_job(self, node: Any, updatehash: bool = False) -> int | None:
        """Submit a node; None has nipype come back with it."""
        self._taskid += 1
        try:
            future = self.pool.submit(run_node, node, updatehash, self._taskid)
        except BrokenProcessPool:  # first come those that ran in it
            self.pool = self._new_pool(self.processors)
            return None
        self._task_obj[self._taskid] = _Task(node, updatehash, future)
        return self._taskid

    def _prerun_check(self, graph: Any) -> None:
        # nipype collects garbage at every look at its nodes: 0.1 s each among the objects of all
        # imported modules, a third of the processor time of a series. They are no garbage.
        gc.freeze()
        super()._prerun_check(graph)

    def _generate_dependency_list(self, graph: Any) -> None:
        super()._generate_dependency_list(graph)
        # as many series at a time as there are processes, so that the last ones share them, too
        self._turns = [turn // self.processors for turn in turns(self.procs)]

    def _sort_jobs(self, jobids: Any, scheduler: str = 'tsort') -> list[int]:
        sorted_jobs = super()._sort_jobs(jobids, scheduler)
        return sorted(sorted_jobs, key=lambda job: self._turns[self.mapnodesubids.get(job, job)])

    def _send_procs_to_workers(self, updatehash: bool = False, graph: Any = None) -> None:
        """Submit what is ready, then wait until a node has ended; nipype only sleeps."""
        tasks = list(self._task_obj.values())
        if not any(task.own_pool or _killed(task.future) for task in tasks):
            super()._send_procs_to_workers(updatehash=updatehash, graph=graph)
            tasks = list(self._task_obj.values())
        running = [task.future for task in tasks if task.own_pool or not _killed(task.future)]
        wait(running, timeout=LOOK_INTERVAL, return_when=FIRST_COMPLETED)

    def _get_result(self, taskid: int) -> dict[str, Any] | None:
        """Poll a task; nipype asks again while the answer is None."""
        task = self._task_obj[taskid]
        if not task.future.done():
            return None
        try:
            return task.future.result()
        except BrokenProcessPool:
            if task.own_pool is None:
                self._try_again(taskid)
                return None
            return {'result': None, 'traceback': [KILLED], 'taskid': taskid}
        except Exception:  # the node could not be sent, or its result could not come back
            return {'result': None, 'traceback': [traceback.format_exc()], 'taskid': taskid}

    def _try_again(self, taskid: int) -> None:
        """Start a second try, unless one is running: then this one waits its turn."""
        tries = [task for task in self._task_obj.values() if task.own_pool is not None]
        if any(not task.future.done() for task in tries):
            return
        task = self._task_obj[taskid]
        task.own_pool = self._new_pool(1)
        task.future = task.own_pool.submit(run_node, task.node, task.updatehash, taskid)

    def _clear_task(self, taskid: int) -> None:
        task = self._task_obj.pop(taskid)
        if task.own_pool is not None:
            task.own_pool.shutdown(wait=False)

    def close(self) -> None:
        """Stop all workers at once; after an undisturbed run there are none left."""
        gc.unfreeze()
        pools = [self.pool, *(task.own_pool for task in self._task_obj.values() if task.own_pool)]
        for pool in pools:
            for process in list((pool._processes or {}).values()):
                process.kill()
            pool.shutdown(wait=False, cancel_futures=True)


def _killed(future: Future) -> bool:
    """Tell whether the process of a node has died."""
    return future.done() and isinstance(future.exception(), BrokenProcessPool)


def _start_worker(cwd: str, level: str) -> None:
    """Set up a worker: quiet, deaf to Ctrl-C (the parent ends it), and never an orphan."""
    os.chdir(cwd)
    cache_file_hashes()
    gc.freeze()  # what the server has imported stays shared with it
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    die_with_parent()  # the server of forks, which dies with the run
    threading.Thread(target=_follow_parent, daemon=True).start()
    levels = dict.fromkeys(('workflow_level', 'interface_level', 'utils_level'), level)
    nipype_config.update_config({'logging': levels})
    nipype_logging.update_logging(nipype_config)


def die_with_parent() -> None:
    """Have the kernel kill this process when the one that started it has ended (Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _follow_parent() -> None:
    """End this worker when the main process has died, by whatever signal; on any system."""
    parent = multiprocessing.parent_process()
    if parent is None:  # not a worker
        return
    multiprocessing.connection.wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGKILL)
