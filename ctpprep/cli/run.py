# SPDX-License-Identifier: Apache-2.0
"""Do the work of a level: process participants, or collect their tables."""

import logging
import os
import time
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ctpprep import __version__
from ctpprep.cli.config import format_config
from ctpprep.cli.folders import make_folder
from ctpprep.cli.graphs import write_graphs
from ctpprep.cli.messages import complain, log_and_continue, log_file
from ctpprep.cli.pages import (
    describe_run,
    rewrite_reports,
    write_boilerplate,
    write_methods,
    write_reports,
)
from ctpprep.cli.plan import show_plan
from ctpprep.cli.progress import show_series
from ctpprep.cli.results import log_doubts, tabulate, with_failures
from ctpprep.cli.status import write_absence, write_status
from ctpprep.exceptions import UsageError
from ctpprep.settings import MethodSettings, RunSettings

if typing.TYPE_CHECKING:
    from ctpprep.engine.run import SeriesResult

logger = logging.getLogger('ctpprep')


def run_participants(method: MethodSettings, run: RunSettings) -> int:
    """Find every series and do with them what was asked for; return the exit code."""
    from ctpprep.inputs.find import find_series
    from ctpprep.inputs.overrides import apply_overrides

    if run.use_plugin is not None:
        from ctpprep.engine.plugins import read_plugin

        read_plugin(run.use_plugin)  # before a large dataset is looked through
    if run.reports_only and not run.output_dir.is_dir():
        raise UsageError(f'--reports-only: there is no folder {run.output_dir}')
    found = apply_overrides(find_series(run), run)
    if not run.skip_bids_validation:
        warn_of_names(found, run)
    if run.reports_only:  # what counts is what lies in output_dir
        prepare_templates()
        return rewrite_reports(found, method, run)
    for each in found:
        if not each.can_run:
            complain(each.reason, 1)
    computes = not (run.dry_run or run.boilerplate_only)
    if not any(each.can_run for each in found):
        if computes:
            forget(found, method, run)
            make_folder(run.output_dir / 'logs', 'output_dir')
            write_status(found, run)
        return 1
    if run.dry_run:
        prepare_templates()
        return show_plan(found, method, run)
    make_folder(run.output_dir, 'output_dir')
    if computes:
        make_folder(run.work_dir, '-w/--work-dir')
    make_folder(run.output_dir / 'logs', 'output_dir')
    prepare_templates()
    if run.boilerplate_only:
        return write_boilerplate(found, method, run)
    write_absence(found, run)
    return process(found, method, run)


def prepare_templates() -> None:
    """Keep templateflow from filling its folder: it does not touch one with a description."""
    from ctpprep.io.files import write_atomically

    templates = Path(os.environ['TEMPLATEFLOW_HOME'])
    if not any(templates.glob('[!.]*')):  # else described before
        description = '{"Name": "no templates are needed", "BIDSVersion": "1.9.0"}\n'
        # whole, for calls side by side
        write_atomically(
            lambda partial: partial.write_text(description),
            templates / 'dataset_description.json',
        )


def warn_of_names(found: Sequence[Any], run: RunSettings) -> None:
    """Say what is not as in BIDS; nothing fails for it."""
    from ctpprep.inputs.conformance import check_dataset, describe_skipped

    labels = sorted({each.participant for each in found})
    sentences = check_dataset(run.bids_dir, labels)
    if not run.participant_label and (others := describe_skipped(run.bids_dir)):
        sentences.append(others)
    for sentence in sentences:
        logger.info('not BIDS: %s', sentence)


def process(found: Sequence[Any], method: MethodSettings, run: RunSettings) -> int:
    """Run the graph of all series and write the reports; return the exit code."""
    from ctpprep.engine.run import clean_work, run_workflow
    from ctpprep.inputs.overrides import dataset_links
    from ctpprep.io.bids import read_links
    from ctpprep.io.description import write_dataset_description
    from ctpprep.io.files import remove_partials, write_atomically
    from ctpprep.provenance.record import write_provenance
    from ctpprep.workflows.base import init_ctpprep_wf

    series = [each for each in found if each.can_run]
    with log_file(run.output_dir / 'logs' / f'run-{run.run_uuid}.log'):
        logger.info(
            '%d series, %d processes, %.1f GB of memory, work folder %s',
            len(series), run.nprocs, run.mem_gb, run.work_dir,
        )  # fmt: skip
        config = format_config(method, run)
        write_atomically(
            lambda partial: partial.write_text(config, encoding='utf-8'),
            run.output_dir / 'logs' / f'run-{run.run_uuid}.toml',
        )
        links = {'raw': run.bids_dir, **dataset_links(run, series)}
        before = run.output_dir / read_links(run.output_dir).get('raw', run.bids_dir)
        if before.is_dir() and not before.samefile(run.bids_dir):
            logger.warning(
                'files in output_dir were made from %s; only those of this run can name their '
                'sources from now on', before.resolve(),
            )  # fmt: skip
        remove_partials(run.output_dir, {each.participant for each in series})
        write_status(found, run)
        write_dataset_description(run.output_dir, links, __version__)
        workflow = init_ctpprep_wf(series, method, run)
        if run.write_graph:
            logger.info('graph: logs/%s', ', logs/'.join(write_graphs(series, method, run)))
        if run.clean_workdir:
            clean_work({each.participant for each in series}, run)
        began = time.time()
        with show_series(run, len({each.participant for each in found})) as watch:
            results = run_workflow(workflow, series, run, watch)
        results += failed_results(found)
        results.sort(key=lambda result: result.prefix)
        remove_stale(found, results, method, run, began)
        failed = [each.prefix for each in results if not each.succeeded]
        software = describe_run(method)['Software']
        failures: dict[str, str] = {}  # by participant
        labels = [each.participant for each in found]
        with log_and_continue(
            'the provenance of the run could not be written', failures, *labels, run=run
        ):
            graph = write_provenance(workflow, series, method, run, began, software, failed)
            logger.info('provenance: %s', graph)
        with log_and_continue('logs/CITATION.md could not be written', failures, *labels, run=run):
            write_methods(found, method, run, f'run-{run.run_uuid}_')
        write_reports(found, results, method, run, failures)
        if run.clean_workdir_on_success:
            dirty = {each.participant for each in found if each.prefix in failed}
            clean_work({each.participant for each in series} - dirty, run)
        told = log_doubts(series, results, failures, run.output_dir)
        told = with_failures(told, failures)
        logger.info('\n%s\noutputs: %s', tabulate(told), run.output_dir)
        with log_and_continue('the status could not be written', failures, *labels, run=run):
            write_status(found, run, told)
        told = with_failures(told, failures)
    return 0 if all(result.succeeded for result in told) else 1


def failed_results(found: Sequence[Any]) -> list['SeriesResult']:
    """Tell of the series that could not be used from the start."""
    from ctpprep.engine.run import SeriesResult

    return [SeriesResult(each.prefix, False, each.reason) for each in found if not each.can_run]


def forget(found: Sequence[Any], method: MethodSettings, run: RunSettings) -> None:
    """Where no series can be used any more: remove what earlier runs left, also from pages."""
    if not run.output_dir.is_dir():
        return
    prepare_templates()
    results = failed_results(found)
    remove_stale(found, results, method, run, time.time())
    paged = [
        each
        for each in found
        if not each.absent and (run.output_dir / f'sub-{each.participant}.html').is_file()
    ]
    write_reports(paged, results, method, run, {})


def remove_stale(
    found: Sequence[Any],
    results: Sequence['SeriesResult'],
    method: MethodSettings,
    run: RunSettings,
    began: float,
) -> None:
    """Remove what an earlier run left of a series and this one did not write: no page may mix runs."""
    from ctpprep.io.files import remove_older
    from ctpprep.workflows.outputs import foreign_paths, written_paths

    failed = {each.prefix for each in results if not each.succeeded}
    for each in found:
        if each.absent:  # nothing is known of a series
            continue
        if each.prefix not in failed:
            stale = [
                path for path in foreign_paths(each, method, run.output_dir) if path.is_file()
            ]
            for path in stale:
                path.unlink()
            if stale:
                logger.info('%s: %d files of an earlier run were removed', each.prefix, len(stale))
        elif remove_older(written_paths(each, method, run.output_dir), began):
            logger.info('%s failed: the files of an earlier run were removed', each.prefix)


def run_group(run: RunSettings) -> int:
    """Collect the tables of all participants, with statistics and a page; return the exit code."""
    from ctpprep.group import run_group_level

    written = run_group_level(run)
    logger.info('written: %s', ', '.join(str(path) for path in written))
    return 0
