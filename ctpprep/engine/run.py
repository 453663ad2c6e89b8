# SPDX-License-Identifier: Apache-2.0
"""Run the graph: processes, and what became of each series."""

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
from ctpprep.engine.batch import make_batch_plugin
from ctpprep.engine.crashes import _read_failures, crash_dir, label_of
from ctpprep.engine.hashes import cache_file_hashes
from ctpprep.engine.order import SeriesBySeriesPlugin
from ctpprep.engine.plugins import LOCAL, read_plugin
from ctpprep.engine.processes import SturdyMultiProcPlugin
from ctpprep.engine.progress import Owners, Progress, Watcher
from ctpprep.inputs.series import Series, workflow_name
from ctpprep.io.disk import explain_full_disk
from ctpprep.settings import RunSettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SeriesResult:
    """What became of one series."""

    prefix: str
    succeeded: bool
    cause: str = ''
    crash_file: Path | None = None

    @property
    def participant(self) -> str:
        """Label without 'sub-'."""
        return label_of(self.prefix)


def run_workflow(
    workflow: Workflow,
    series: Sequence[Series],
    run: RunSettings,
    watch: Watcher | None = None,
) -> list[SeriesResult]:
    """Run the graph of all series; the failure of one does not stop the others.

    Parameters
    ----------
    workflow : Workflow
        Made by `init_ctpprep_wf`; the series' workflows are named by their `workflow_name`.
    series : sequence of CTPSeries and PrecomputedMaps
        The series of the graph.
    run : RunSettings
        Folders and processes.
    watch : callable, optional
        Called when a series begins and when it ends.

    Returns
    -------
    list of SeriesResult
        One for each series, in their order.
    """
    configure(workflow, series, run)

    def why(prefix: str) -> str:
        mine = [each for each in series if each.participant == label_of(prefix)]
        return _read_failures(mine, run).get(prefix, ('', None))[0]

    progress = Progress(workflow, series, watch, why)
    error = None
    plugin = _make_plugin(run)
    plugin._status_callback = progress  # as an argument it would travel with every MapNode
    try:
        workflow.run(plugin=plugin)
    except Exception as raised:  # nipype raises one of the errors after all other nodes have run
        error = raised
    finally:
        if isinstance(plugin, SturdyMultiProcPlugin):
            plugin.close()
    return _collect_results(series, run, progress, error)


def configure(workflow: Workflow, series: Sequence[Series], run: RunSettings) -> None:
    """Set nipype's options on a graph; crash files go to the folder of their participant."""
    cache_file_hashes()
    level = ('CRITICAL', 'INFO', 'DEBUG')[min(run.verbosity, 2)]
    on_cluster = run.use_plugin is not None and read_plugin(run.use_plugin)[0] not in LOCAL
    levels = dict.fromkeys(('workflow_level', 'interface_level', 'utils_level'), level)
    nipype_config.update_config({'logging': levels})
    nipype_logging.update_logging(nipype_config)
    # another version may compute otherwise: it starts anew
    workflow.base_dir = str(work_folder(run))
    options = {
        'crashdump_dir': str(run.output_dir / 'logs' / run.run_uuid),
        'crashfile_format': 'txt',
        'hash_method': 'content',  # by time, a copied work folder would start anew
        # on top of the plugin's own waiting; a scheduler is not to be asked too often
        'poll_sleep_duration': '2' if on_cluster else '0.01',
        'remove_unnecessary_outputs': 'false',
        'keep_inputs': str(run.debug).lower(),
        'stop_on_first_crash': str(run.stop_on_first_crash).lower(),
    }
    workflow.config['execution'] = workflow.config.get('execution', {}) | options
    owners = Owners(series)
    for name in workflow.list_node_names():
        labels = {each.participant for each in owners(name.split('.'))}
        if len(labels) == 1:
            node = workflow.get_node(name)
            merged = dict(node.config or {})
            folder = crash_dir(run, labels.pop())
            merged['execution'] = merged.get('execution', {}) | {'crashdump_dir': str(folder)}
            node.config = merged


def work_folder(run: RunSettings) -> Path:
    """Folder of the graph's intermediate files; another version may compute otherwise: its own."""
    return run.work_dir / f'ctpprep-{__version__}'


def clean_work(participants: Iterable[str], run: RunSettings) -> None:
    """Remove the intermediate files of some participants, of whatever version.

    Those of others stay: another call may be at work on them.

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
    series: Sequence[Series], run: RunSettings, progress: Progress, error: Exception | None
) -> list[SeriesResult]:
    """Tell what became of each; what failed or has not ended without a crash file has failed, too."""
    failures = _read_failures(series, run)
    why = 'not finished'
    if error is not None:
        logger.debug('nipype stopped', exc_info=error)
        said = [line.strip() for line in str(error).splitlines() if line.strip()]
        said = [type(error).__name__, *said[-1:]]
        why = f'not finished: {explain_full_disk(": ".join(said), run)}'
        if run.stop_on_first_crash and failures:
            why = 'not finished: stopped on the first crash'
    for each in series:
        if step := progress.failed_at(each.prefix):
            failures.setdefault(each.prefix, (f'{step} failed without a crash file; {why}', None))
        elif progress.waits(each.prefix):
            failures.setdefault(each.prefix, (why, None))
    if error is not None and not failures:  # whatever it was, it was not success
        failures = {each.prefix: (why.removeprefix('not finished: '), None) for each in series}
    return [
        SeriesResult(each.prefix, False, *failures[each.prefix])
        if each.prefix in failures
        else SeriesResult(each.prefix, True)
        for each in series
    ]


def _make_plugin(run: RunSettings) -> Any:
    """Choose nipype's plugin: one process runs in the main one."""
    resources = {'n_procs': run.nprocs, 'memory_gb': run.mem_gb, 'raise_insufficient': False}
    name, args = 'MultiProc' if run.nprocs > 1 else 'Linear', dict[str, Any]()
    if run.use_plugin is not None:
        name, args = read_plugin(run.use_plugin)
    if name == 'Linear':
        return SeriesBySeriesPlugin(args)
    if name == 'MultiProc':
        return SturdyMultiProcPlugin(resources | args)
    return make_batch_plugin(name, args)
