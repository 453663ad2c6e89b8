# SPDX-License-Identifier: Apache-2.0
"""Run the graph of all series, and collect the result of each."""

import logging
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nipype import config as nipype_config
from nipype import logging as nipype_logging
from nipype.pipeline.engine import Workflow

from ctpprep import __version__
from ctpprep.engine.crashes import crash_dir, hide_user, participant_of, read_failures
from ctpprep.engine.hashes import cache_file_hashes
from ctpprep.engine.schedulers import LOCAL, make_scheduler_plugin, read_plugin
from ctpprep.engine.tracker import RunTracker, Watcher, find_nodes
from ctpprep.engine.workers import SeriesPlugin
from ctpprep.inputs.series import Series, workflow_name
from ctpprep.io.disk import explain_full_disk
from ctpprep.settings import RunSettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SeriesResult:
    """Success or failure of one series."""

    prefix: str
    succeeded: bool
    cause: str = ''
    crash_file: Path | None = None

    @property
    def participant(self) -> str:
        """Label without 'sub-'."""
        return participant_of(self.prefix)


def run_workflow(
    workflow: Workflow,
    series: Sequence[Series],
    run: RunSettings,
    watcher: Watcher = lambda tracker, state, event: None,
) -> list[SeriesResult]:
    """Run the graph of all series; a failure of one does not stop the others.

    Parameters
    ----------
    workflow : Workflow
        From `init_ctpprep_wf`: one workflow per participant, in it one per series.
    series : sequence of CTPSeries and PrecomputedMaps
        The series of the graph.
    run : RunSettings
        Folders and processes.
    watcher : callable, optional
        Called at each step of a series.

    Returns
    -------
    list of SeriesResult
        One per series, in the same order.
    """
    configure(workflow, series, run)

    def find_cause(prefix: str) -> str:
        of_participant = [one for one in series if one.participant == participant_of(prefix)]
        return read_failures(of_participant, run).get(prefix, ('', None))[0]

    tracker = RunTracker(workflow, series, watcher, find_cause)
    error = None
    plugin = _make_plugin(run)
    plugin._status_callback = tracker
    try:
        workflow.run(plugin=plugin)
    except Exception as first_error:  # raised after all other nodes have run
        error = first_error
    return _collect_results(series, run, tracker, error)


def configure(workflow: Workflow, series: Sequence[Series], run: RunSettings) -> None:
    """Set nipype's options on a graph; each participant's crash files go to its own folder."""
    cache_file_hashes()
    hide_user()
    level = ('CRITICAL', 'INFO', 'DEBUG')[min(run.verbosity, 2)]
    levels = dict.fromkeys(('workflow_level', 'interface_level', 'utils_level'), level)
    nipype_config.update_config({'logging': levels})
    nipype_logging.update_logging(nipype_config)
    workflow.base_dir = str(work_folder(run))
    options = {
        'crashdump_dir': str(run.output_dir / 'logs' / run.run_uuid),
        'crashfile_format': 'txt',
        'hash_method': 'content',  # by time, a copied work folder would start from scratch
        'poll_sleep_duration': '2',  # s between two queries of a scheduler
        'remove_unnecessary_outputs': 'false',
        'keep_inputs': str(run.debug).lower(),
        'stop_on_first_crash': str(run.stop_on_first_crash).lower(),
    }
    workflow.config['execution'] = workflow.config.get('execution', {}) | options
    for one in series:
        folder = {'crashdump_dir': str(crash_dir(run, one.participant))}
        for _, node in find_nodes(workflow, one):
            config = dict(node.config or {})
            config['execution'] = config.get('execution', {}) | folder
            node.config = config


def work_folder(run: RunSettings) -> Path:
    """Return the folder of intermediate files; each version, which may compute differently, has its own."""
    return run.work_dir / f'ctpprep-{__version__}'


def clean_work(participants: Iterable[str], run: RunSettings) -> None:
    """Remove the intermediate files of some participants, of all versions.

    Those of other participants are kept, as another call may be using them.

    Parameters
    ----------
    participants : iterable of str
        Labels without 'sub-'.
    run : RunSettings
    """
    for label in participants:
        for folder in run.work_dir.glob(f'ctpprep-*/*/{workflow_name(f"sub-{label}")}'):
            shutil.rmtree(folder)
            logger.info('removed %s', folder)


def _collect_results(
    series: Sequence[Series], run: RunSettings, tracker: RunTracker, error: Exception | None
) -> list[SeriesResult]:
    """Make the result of each series; one that failed or did not end has failed even without a crash file."""
    failures = read_failures(series, run)
    reason = ''
    if error is not None:
        logger.debug('nipype stopped', exc_info=error)
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[-1] if lines else type(error).__name__
        reason = explain_full_disk(reason, run)
        if run.stop_on_first_crash and failures:
            reason = 'stopped on the first crash'
    unfinished = f'not finished: {reason}' if reason else 'not finished'
    for state in tracker.states.values():
        if state.failed_step:
            cause = f'{state.failed_step} failed without a crash file; {unfinished}'
            failures.setdefault(state.prefix, (cause, None))
        elif state.waiting:
            failures.setdefault(state.prefix, (unfinished, None))
    if error is not None and not failures:  # whatever the error was, the run has not succeeded
        failures = {one.prefix: (reason, None) for one in series}
    return [
        SeriesResult(one.prefix, False, *failures[one.prefix])
        if one.prefix in failures
        else SeriesResult(one.prefix, True)
        for one in series
    ]


def _make_plugin(run: RunSettings) -> Any:
    """Make the user's nipype plugin, by default the one of ctpprep's own processes."""
    name, arguments = ('MultiProc', dict[str, Any]())
    if run.use_plugin is not None:
        name, arguments = read_plugin(run.use_plugin)
    if name not in LOCAL:
        return make_scheduler_plugin(name, arguments)
    n_procs = 1 if name == 'Linear' else arguments.get('n_procs', run.nprocs)
    return SeriesPlugin(n_procs, arguments.get('memory_gb', run.mem_gb))
