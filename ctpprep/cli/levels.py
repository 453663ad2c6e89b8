# SPDX-License-Identifier: Apache-2.0
"""The two levels of the command: process participants, or collect their tables."""

import logging
import os
import time
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ctpprep import __version__
from ctpprep.cli.config import format_config
from ctpprep.cli.drawings import write_drawings
from ctpprep.cli.finishing import Finisher, remove_outdated
from ctpprep.cli.folders import make_folder
from ctpprep.cli.messages import log_and_continue, log_file, print_error
from ctpprep.cli.pages import (
    describe_run,
    rewrite_reports,
    select_usable,
    write_boilerplate,
    write_methods,
    write_reports,
)
from ctpprep.cli.plan import log_plan
from ctpprep.cli.results import add_failures, format_pace, format_results, review_results
from ctpprep.cli.status import make_records, write_status, write_status_without_series
from ctpprep.exceptions import UsageError, explain
from ctpprep.settings import MethodSettings, RunSettings

if typing.TYPE_CHECKING:
    from ctpprep.engine.run import SeriesResult

logger = logging.getLogger('ctpprep')


def run_participants(method: MethodSettings, run: RunSettings) -> int:
    """Find all series and process them, or do what the options request instead; return the exit code."""
    from ctpprep.inputs.find import find_series
    from ctpprep.inputs.frames import check_first_frames
    from ctpprep.inputs.overrides import apply_overrides
    from ctpprep.io.templates import check_spaces

    if run.use_plugin is not None:
        from ctpprep.engine.schedulers import read_plugin, require_commands

        # report errors before a large dataset is searched
        require_commands(read_plugin(run.use_plugin)[0])
    check_spaces(method.template.output_spaces, run.atlas, run.atlas_labels)
    if run.reports_only and not run.output_dir.is_dir():
        raise UsageError(f'--reports-only: output_dir {run.output_dir} does not exist')
    all_series = apply_overrides(find_series(run), run)
    if not run.skip_bids_validation:
        log_bids_warnings(all_series, run)
    if run.reports_only:  # what matters is in output_dir
        prepare_templates()
        return rewrite_reports(all_series, method, run)
    computes = not (run.dry_run or run.boilerplate_only)
    if computes and select_usable(all_series):
        prepare_folders(run)
        if run.nprocs > 1 and run.use_plugin is None:
            from ctpprep.engine.workers import start_fork_server

            start_fork_server()  # its imports run beside what follows
    all_series = check_first_frames(
        all_series, method.masks.bone_hu, n_procs=run.nprocs, to_the_end=run.dry_run
    )
    for series in all_series:
        if not series.can_run:
            print_error(series.reason, 1)
    if not select_usable(all_series):
        if computes:
            remove_outputs_of_failed(all_series, method, run)
            make_folder(run.output_dir / 'logs', 'output_dir')
            write_status(all_series, run)
        return 1
    if run.dry_run:
        prepare_templates()
        try:
            return log_plan(all_series, method, run)
        except Exception:  # one series must not end the plan of all
            return log_plan(fail_unplanned(all_series, method, run), method, run)
    if run.boilerplate_only:
        prepare_folders(run)
        return write_boilerplate(all_series, method, run)
    write_status_without_series(all_series, run)
    return process(all_series, method, run)


def prepare_folders(run: RunSettings) -> None:
    """Make the output folder and, if any step will run, the work folder."""
    make_folder(run.output_dir, 'output_dir')
    if not run.boilerplate_only:
        make_folder(run.work_dir, '-w/--work-dir')
    make_folder(run.output_dir / 'logs', 'output_dir')
    prepare_templates()


def prepare_templates() -> None:
    """Keep templateflow from filling its folder: it leaves one with a description unchanged."""
    from ctpprep.io.files import write_atomically

    templates = Path(os.environ['TEMPLATEFLOW_HOME'])
    if not any(templates.glob('[!.]*')):  # no earlier description
        description = '{"Name": "no templates are needed", "BIDSVersion": "1.9.0"}\n'
        # atomically, for simultaneous calls
        write_atomically(
            lambda partial: partial.write_text(description),
            templates / 'dataset_description.json',
        )


def log_bids_warnings(all_series: Sequence[Any], run: RunSettings) -> None:
    """Log deviations from BIDS, which are never errors."""
    from ctpprep.inputs.conformance import check_dataset, describe_skipped

    labels = sorted({series.participant for series in all_series})
    warnings = check_dataset(run.bids_dir, labels)
    if not run.participant_label and (skipped := describe_skipped(run.bids_dir)):
        warnings.append(skipped)
    for warning in warnings:
        logger.info('deviates from BIDS: %s', warning)


def process(all_series: Sequence[Any], method: MethodSettings, run: RunSettings) -> int:
    """Run the graph of all series and write the reports; return the exit code."""
    from ctpprep.cli.display import show_series
    from ctpprep.engine.ownership import secure_work_folder
    from ctpprep.engine.run import clean_work, run_workflow
    from ctpprep.engine.tracker import find_workflow
    from ctpprep.io.files import remove_partials
    from ctpprep.provenance.record import write_provenance
    from ctpprep.workflows.base import init_ctpprep_wf

    series = select_usable(all_series)
    try:
        workflow = init_ctpprep_wf(series, method, run)
    except Exception:  # one series must not end the run of all
        all_series = fail_unplanned(all_series, method, run)
        if not (series := select_usable(all_series)):
            write_status(all_series, run)
            return 1
        workflow = init_ctpprep_wf(series, method, run)
    labels = {one.participant for one in series}
    secure_work_folder(labels, run)
    with log_file(run.output_dir / 'logs' / f'run-{run.run_uuid}.log'):
        logger.info(
            '%d series, %d process%s, %.1f GB of memory, work folder %s',
            len(series), run.nprocs, 'es' if run.nprocs > 1 else '', run.mem_gb, run.work_dir,
        )  # fmt: skip
        write_config(method, run)
        remove_partials(run.output_dir, labels)
        write_status(all_series, run)
        describe_outputs(series, run)
        if run.write_graph:
            logger.info('graph: logs/%s', ', logs/'.join(write_drawings(series, method, run)))
        if run.clean_workdir:
            clean_work(labels, run)
        start = time.time()
        failures: dict[str, str] = {}  # by participant
        finisher = Finisher(all_series, method, run, start, failures)
        with show_series(run) as watcher:
            results = run_workflow(workflow, series, run, finisher.watch(watcher))
        results += make_failed_results(all_series)
        results.sort(key=lambda result: result.prefix)
        failed = [result.prefix for result in results if not result.succeeded]
        software = describe_run(method)['Software']
        everyone = [one.participant for one in all_series]
        with log_and_continue(
            'the provenance of the run could not be written', failures, *everyone, run=run
        ):
            graph = write_provenance(workflow, series, method, run, start, software, failed)
            logger.info('provenance: %s', graph)
        with log_and_continue(
            'logs/CITATION.md could not be written', failures, *everyone, run=run
        ):
            workflows = {one.prefix: find_workflow(workflow, one) for one in series}
            write_methods(all_series, method, run, workflows, f'run-{run.run_uuid}_')
        finisher.finish_rest(results)
        if run.clean_workdir_on_success:
            done = labels - {one.participant for one in all_series if one.prefix in failed}
            with log_and_continue('intermediate files could not be removed', {}, run=run):
                clean_work(done, run)
        records: dict[str, dict[str, str]] = {}
        with log_and_continue('outputs cannot be read again', failures, *everyone, run=run):
            records = make_records(series, results, method, run)
        results = review_results(series, results, failures, run.output_dir)
        logger.info(
            '\n%s\n%s\noutputs: %s', format_results(results),
            format_pace(len(series), time.time() - start), run.output_dir,
        )  # fmt: skip
        with log_and_continue('the status could not be written', failures, *everyone, run=run):
            write_status(all_series, run, results, records)
        results = add_failures(results, failures)
    return 0 if all(result.succeeded for result in results) else 1


def fail_unplanned(
    all_series: Sequence[Any], method: MethodSettings, run: RunSettings
) -> list[Any]:
    """Fail the series whose graph cannot be built, which would end the run for all.

    Parameters
    ----------
    all_series : sequence of CTPSeries, PrecomputedMaps and FailedSeries
    method : MethodSettings
    run : RunSettings

    Returns
    -------
    list of CTPSeries, PrecomputedMaps and FailedSeries
    """
    from ctpprep.inputs.series import FailedSeries
    from ctpprep.workflows.base import init_ctpprep_wf

    planned = []
    for series in all_series:
        try:
            if series.can_run:
                init_ctpprep_wf([series], method, run)
        except Exception as error:
            reason = f'{series.prefix}: {explain(error)}'
            print_error(reason, 1)
            series = FailedSeries(series.prefix, series.participant, series.session, reason)
        planned.append(series)
    return planned


def write_config(method: MethodSettings, run: RunSettings) -> None:
    """Write the config file that repeats a run."""
    from ctpprep.io.files import write_atomically

    config = format_config(method, run)
    write_atomically(
        lambda partial: partial.write_text(config, encoding='utf-8'),
        run.output_dir / 'logs' / f'run-{run.run_uuid}.toml',
    )


def describe_outputs(series: Sequence[Any], run: RunSettings) -> None:
    """Write the description of the output dataset; warn if it contains files from another dataset."""
    from ctpprep.inputs.overrides import dataset_links
    from ctpprep.io.bids import read_links
    from ctpprep.io.description import write_dataset_description

    earlier = run.output_dir / read_links(run.output_dir).get('raw', run.bids_dir)
    if earlier.is_dir() and not earlier.samefile(run.bids_dir):
        logger.warning(
            'output_dir contains files made from %s; from now on, only the sources of files of this '
            'run can be resolved', earlier.resolve(),
        )  # fmt: skip
    links = {'raw': run.bids_dir, **dataset_links(run, series)}
    write_dataset_description(run.output_dir, links, __version__)


def make_failed_results(all_series: Sequence[Any]) -> list['SeriesResult']:
    """Make the results of the series that cannot be processed."""
    from ctpprep.engine.run import SeriesResult

    return [
        SeriesResult(series.prefix, False, series.reason)
        for series in all_series
        if not series.can_run
    ]


def remove_outputs_of_failed(
    all_series: Sequence[Any], method: MethodSettings, run: RunSettings
) -> None:
    """Remove the outputs of earlier runs if no series can be processed any more, and update pages."""
    if not run.output_dir.is_dir():
        return
    prepare_templates()
    results = make_failed_results(all_series)
    remove_outdated(all_series, results, method, run, time.time())
    with_page = [
        series
        for series in all_series
        if not series.absent and (run.output_dir / f'sub-{series.participant}.html').is_file()
    ]
    write_reports(with_page, results, method, run, {})


def run_group(run: RunSettings) -> int:
    """Collect the tables of all participants, with statistics and a page; return the exit code."""
    from ctpprep.group import run_group_level

    written = run_group_level(run)
    logger.info('written: %s', ', '.join(str(path) for path in written))
    return 0
