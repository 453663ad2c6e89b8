# SPDX-License-Identifier: Apache-2.0
"""Write the report pages and the methods text of a run."""

import dataclasses
import importlib.metadata
import logging
import sys
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ctpprep import __version__
from ctpprep.cli.drawings import build_workflows, draw_graphs, read_all_steps
from ctpprep.cli.folders import name_by_role
from ctpprep.cli.messages import log_and_continue
from ctpprep.cli.results import format_results, review_results
from ctpprep.inputs.selection import VOLUMES
from ctpprep.io.records import find_change, read_entries, status_path
from ctpprep.settings import MethodSettings, RunSettings

if typing.TYPE_CHECKING:
    from ctpprep.engine.run import SeriesResult

logger = logging.getLogger('ctpprep')

# stages that precomputed maps skip
SERIES_STAGES = ('grid', 'motion', 'vessels', 'denoising', 'deconvolution', 'coregistration')
NO_OUTPUTS = 'has no outputs'
PACKAGES = ('nipype', 'niworkflows', 'antspyx', 'nibabel', 'numpy', 'scipy', 'pybids')


def write_reports(
    all_series: Sequence[Any],
    results: Sequence['SeriesResult'],
    method: MethodSettings,
    run: RunSettings,
    failures: dict[str, str],
) -> None:
    """Write the page of every participant, including those whose series failed.

    Parameters
    ----------
    all_series : sequence of CTPSeries, PrecomputedMaps and FailedSeries
    results : sequence of SeriesResult
    method : MethodSettings
    run : RunSettings
    failures : dict of str to str
        Errors by participant label; pages that could not be written are added.
    """
    from ctpprep.cli.display import show_pages

    for label, of_participant in show_pages(_group_by_participant(all_series), run):
        what = f'the page sub-{label}.html could not be written'
        with log_and_continue(what, failures, label, run=run):
            _write_page(label, of_participant, results, method, run)


def draw_failures(results: Sequence['SeriesResult'], run: RunSettings) -> None:
    """Draw what each failed series shows; the figures of earlier runs have been removed by then."""
    from ctpprep.reports.evidence import draw_evidence

    for result in results:
        if result.succeeded or result.crash_file is None:
            continue
        folder = run.output_dir / f'sub-{result.participant}' / 'figures'
        what = f'what {result.prefix} shows could not be drawn'
        with log_and_continue(what, {}, run=run):
            draw_evidence(result.crash_file, folder / f'{result.prefix}_desc-evidence_ctp.svg')


def _group_by_participant(all_series: Sequence[Any]) -> list[tuple[str, list[Any]]]:
    groups: dict[str, list[Any]] = {}
    for series in all_series:
        groups.setdefault(series.participant, []).append(series)
    return list(groups.items())


def _write_page(
    label: str,
    all_series: Sequence[Any],
    results: Sequence['SeriesResult'],
    method: MethodSettings,
    run: RunSettings,
) -> None:
    """Write the page of one participant."""
    from ctpprep.reports import build_report

    failed = {result.prefix: result for result in results if not result.succeeded}
    usable = select_usable(all_series)
    maps_only = bool(usable) and all(map(is_precomputed, usable))
    info = describe_run(method, SERIES_STAGES if maps_only else ()) | {
        'Timing': {series.prefix: series.timing_source for series in usable},
        'Supplied': {
            series.prefix: ', '.join(file.uri for file in series.overrides.values()) or 'nothing'
            for series in usable
        },
        'failed': [
            _describe_failure(failed[series.prefix], run)
            for series in all_series
            if series.prefix in failed
        ],
    }
    workflows = build_workflows(usable, method, run)
    methods = join_methods(workflows)
    drawings = draw_graphs(read_all_steps(usable, workflows))
    page = build_report(run.output_dir, label, methods, info, drawings)
    logger.info('report: %s', page)


def _describe_failure(result: 'SeriesResult', run: RunSettings) -> dict[str, str]:
    """Describe a failure; with the folder of the crash file, as its name contains that of the user."""
    failure = {'prefix': result.prefix, 'reason': name_by_role(result.cause, run)}
    if result.crash_file is not None:
        failure['records'] = result.crash_file.parent.relative_to(run.output_dir).as_posix()
    return failure


def select_usable(all_series: Sequence[Any]) -> list[Any]:
    """Return the series that can be processed."""
    return [series for series in all_series if series.can_run]


def is_precomputed(series: Any) -> bool:
    """Return whether a series consists of precomputed maps."""
    return not series.has_frames


def read_methods(workflows: dict[str, Any]) -> dict[str, str]:
    """Return the methods text of each series, by its prefix."""
    return {prefix: workflow.visit_desc() for prefix, workflow in workflows.items()}


def join_methods(workflows: dict[str, Any]) -> str:
    """Join the methods texts of some series; return a single text if they do not differ."""
    texts = read_methods(workflows)
    if len(set(texts.values())) > 1:  # user overrides differ between series
        return '\n'.join(f'## {prefix}\n{text}' for prefix, text in texts.items())
    return next(iter(texts.values()), '')


def write_methods(
    all_series: Sequence[Any],
    method: MethodSettings,
    run: RunSettings,
    workflows: dict[str, Any],
    start: str = '',
) -> list[Path]:
    """Write methods text, equations and references of all series to ``logs/``.

    Parameters
    ----------
    all_series : sequence of CTPSeries, PrecomputedMaps and FailedSeries
    method : MethodSettings
    run : RunSettings
    workflows : dict of str to Workflow
        From `build_workflows`, or those that have run.
    start : str
        If given, the files are also written with names that start with it: the next call, which may use
        other methods, overwrites the others.

    Returns
    -------
    list of Path
        The files without `start`.
    """
    from ctpprep.reports import write_citation

    series = select_usable(all_series)
    maps_only = bool(series) and all(map(is_precomputed, series))
    texts = read_methods(workflows)
    folder = run.output_dir / 'logs'
    written = [
        write_citation(folder, texts, method, maps_only, prefix)
        for prefix in dict.fromkeys(['', start])
    ]
    return written[0]


def write_boilerplate(all_series: Sequence[Any], method: MethodSettings, run: RunSettings) -> int:
    """Write only the methods text; return the exit code."""
    workflows = build_workflows(select_usable(all_series), method, run)
    written = write_methods(all_series, method, run, workflows)
    logger.info('written: %s', ', '.join(str(path) for path in written))
    return 0


def rewrite_reports(all_series: Sequence[Any], method: MethodSettings, run: RunSettings) -> int:
    """Write the reports from the files of an earlier run; return the exit code.

    The methods text describes the settings in the sidecars of each participant, not those of this call.
    A series succeeded if its files are those that its run recorded last; without a record, as of an
    earlier version, if it has a table of volumes. The raw series may have been deleted.
    """
    from ctpprep.engine.crashes import find_last_failure
    from ctpprep.engine.run import SeriesResult
    from ctpprep.exceptions import UsageError
    from ctpprep.reports.sidecars import read_settings_used

    all_series = [one for series in all_series for one in _find_processed(series, run)]
    results = []
    for series in all_series:
        cause, crash_file = _find_loss(series, run.output_dir), None
        if cause == NO_OUTPUTS:
            cause, crash_file = find_last_failure(series, run.output_dir)
        results.append(SeriesResult(series.prefix, not cause, cause, crash_file))
    if all(result.cause == NO_OUTPUTS for result in results):
        raise UsageError(
            f'--reports-only: {run.output_dir} contains no outputs of the selected series; '
            'process them first'
        )
    failures: dict[str, str] = {}
    for label, of_participant in _group_by_participant(all_series):
        with log_and_continue(f'the page sub-{label}.html could not be written', failures, label):
            used = read_settings_used(run.output_dir / f'sub-{label}')
            method_used = method.change(**used)
            write_reports(of_participant, results, method_used, run, failures)
    results = review_results(all_series, results, failures, run.output_dir)
    logger.info('\n%s\noutputs: %s', format_results(results), run.output_dir)
    return 0 if all(result.succeeded for result in results) else 1


def _find_loss(series: Any, output_dir: Path) -> str:
    """Return why the outputs of a series are not complete; '' if they are."""
    entry = read_entries(status_path(output_dir, series.participant)).get(series.prefix, {})
    if record := entry.get('Files'):
        change = find_change(record, output_dir)
        return f'{change}; process the series again' if change else ''
    if entry.get('State') == 'failed':
        return NO_OUTPUTS if entry.get('CrashFile') else str(entry.get('Cause') or NO_OUTPUTS)
    if entry.get('State') == 'running':
        return 'its latest run has not ended, or was killed; process the series again'
    tables = (output_dir / f'sub-{series.participant}').rglob(f'{series.prefix}{VOLUMES}')
    return NO_OUTPUTS if next(tables, None) is None else ''


def _find_processed(series: Any, run: RunSettings) -> list[Any]:
    """Name the series of a participant whose raw files are missing after its tables of volumes.

    A participant without tables is kept only if it was requested.
    """
    if not (series.absent):
        return [series]
    tables = sorted((run.output_dir / f'sub-{series.participant}').rglob(f'*{VOLUMES}'))
    processed = [
        dataclasses.replace(series, prefix=path.name.removesuffix(VOLUMES)) for path in tables
    ]
    return processed or ([series] if run.participant_label else [])


def describe_run(method: MethodSettings, skipped: tuple[str, ...] = ()) -> dict[str, Any]:
    """Describe software and settings, but not the computer, as the description is shared.

    Parameters
    ----------
    method : MethodSettings
    skipped : tuple of str
        Stages to omit.

    Returns
    -------
    dict
    """
    return {
        'version': __version__,
        'Software': {'ctpprep': __version__}
        | {'Python': '.'.join(map(str, sys.version_info[:3]))}
        | {name: importlib.metadata.version(name) for name in PACKAGES},
        'Settings': {
            stage: values for stage, values in method.as_dict().items() if stage not in skipped
        },
    }
