# SPDX-License-Identifier: Apache-2.0
"""Do the work of a level: process participants, or collect their tables."""

import logging
import os
import time
import typing
from collections.abc import Sequence
from pathlib import Path

from ctpprep import __version__
from ctpprep.cli.folders import make_folder
from ctpprep.cli.messages import complain, log_file
from ctpprep.cli.pages import write_reports
from ctpprep.cli.results import tabulate, tell_entries, with_quality
from ctpprep.settings import MethodSettings, RunSettings

if typing.TYPE_CHECKING:
    from ctpprep.workflows.execution import SeriesResult

logger = logging.getLogger('ctpprep')


def run_participants(method: MethodSettings, run: RunSettings) -> int:
    """Process every series; return the exit code."""
    from ctpprep.dataset import FailedSeries
    from ctpprep.series import find_series
    from ctpprep.supplied import add_supplied, dataset_links

    found = add_supplied(find_series(run), run)
    series = [each for each in found if not isinstance(each, FailedSeries)]
    for each in found:
        if isinstance(each, FailedSeries):
            complain(each.reason, 1)
    if not series:
        return 1
    make_folder(run.work_dir, '-w/--work-dir')
    make_folder(run.output_dir, 'output_dir')
    make_folder(run.output_dir / 'logs', 'output_dir')
    templates = Path(os.environ['TEMPLATEFLOW_HOME'])
    if templates.is_relative_to(run.work_dir):  # the file keeps templateflow from filling it
        templates.mkdir(exist_ok=True)
        description = '{"Name": "no templates are needed", "BIDSVersion": "1.9.0"}\n'
        (templates / 'dataset_description.json').write_text(description)
    with log_file(run.output_dir / 'logs' / f'run-{run.run_uuid}.log'):
        logger.info(
            '%d series, %d processes, %.1f GB of memory, work folder %s',
            len(series), run.nprocs, run.mem_gb, run.work_dir,
        )  # fmt: skip
        from ctpprep.interfaces.bids import write_dataset_description
        from ctpprep.workflows.base import init_ctpprep_wf
        from ctpprep.workflows.execution import SeriesResult, run_workflow, write_graph

        links = {'raw': run.bids_dir, **dataset_links(run, series)}
        write_dataset_description(run.output_dir, links, __version__)
        workflow = init_ctpprep_wf(series, method, run)
        if run.write_graph:
            logger.info('graph: %s', write_graph(workflow, run))
        began = time.time()
        results = run_workflow(workflow, series, run)
        remove_stale(series, results, method, run, began)
        for each in found:
            if isinstance(each, FailedSeries):
                results.append(SeriesResult(each.prefix, False, each.reason))
        results.sort(key=lambda result: result.prefix)
        write_reports(found, results, method, run)
        tell_entries(series, results, run.output_dir)
        told = with_quality(results, run.output_dir)
        logger.info('\n%s\noutputs: %s', tabulate(told), run.output_dir)
    return 0 if all(result.succeeded for result in results) else 1


def remove_stale(
    series: Sequence[typing.Any],
    results: Sequence['SeriesResult'],
    method: MethodSettings,
    run: RunSettings,
    began: float,
) -> None:
    """Remove what an earlier run left of a series that has failed now: no page may mix runs."""
    from ctpprep.interfaces.bids import remove_older
    from ctpprep.workflows.derivatives import written_paths

    failed = {each.prefix for each in results if not each.succeeded}
    for each in series:
        if each.prefix in failed and remove_older(
            written_paths(each, method, run.output_dir), began
        ):
            logger.info('%s failed: the files of an earlier run were removed', each.prefix)


def run_group(run: RunSettings) -> int:
    """Collect the tables of all participants; return the exit code."""
    from ctpprep.group import collect_tables

    written = collect_tables(run)
    logger.info('written: %s', ', '.join(str(path) for path in written))
    return 0
