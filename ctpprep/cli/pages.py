# SPDX-License-Identifier: Apache-2.0
"""Feed the report: its methods text, and what it tells of the run."""

import dataclasses
import importlib.metadata
import logging
import sys
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ctpprep import __version__
from ctpprep.cli.folders import name_by_role
from ctpprep.cli.graphs import draw_graphs, graphs_of
from ctpprep.cli.messages import log_and_continue
from ctpprep.cli.progress import show_pages
from ctpprep.cli.results import log_doubts, tabulate, with_failures
from ctpprep.inputs.dataset import VOLUMES
from ctpprep.settings import MethodSettings, RunSettings

if typing.TYPE_CHECKING:
    from ctpprep.engine.run import SeriesResult

logger = logging.getLogger('ctpprep')

# stages that maps made elsewhere do not go through
SERIES_STAGES = ('grid', 'motion', 'vessels', 'denoising', 'deconvolution', 'coregistration')


def write_reports(
    found: Sequence[Any],
    results: Sequence['SeriesResult'],
    method: MethodSettings,
    run: RunSettings,
    failures: dict[str, str],
) -> None:
    """Write the page of every participant, also of one whose series failed.

    `failures` gets a sentence by the label of each participant whose page could not be written.
    """
    for label in show_pages(list(dict.fromkeys(each.participant for each in found)), run):
        mine = [each for each in found if each.participant == label]
        what = f'the page sub-{label}.html could not be written'
        with log_and_continue(what, failures, label, run=run):
            _write_page(label, mine, results, method, run)


def _write_page(
    label: str,
    mine: Sequence[Any],
    results: Sequence['SeriesResult'],
    method: MethodSettings,
    run: RunSettings,
) -> None:
    """Write the page of one participant."""
    from ctpprep.reports import build_report

    failed = {each.prefix: each for each in results if not each.succeeded}
    usable = usable_of(mine)
    maps_only = bool(usable) and all(map(is_precomputed, usable))
    info = describe_run(method, SERIES_STAGES if maps_only else ()) | {
        'Timing': {
            each.prefix: 'maps made elsewhere' if is_precomputed(each) else each.timing_source
            for each in usable
        },
        'Supplied': {
            each.prefix: ', '.join(file.uri for file in each.overrides.values()) or 'nothing'
            for each in usable
        },
        'failed': [
            _describe_failure(failed[each.prefix], run) for each in mine if each.prefix in failed
        ],
    }
    methods = methods_text(usable, method, run)
    drawings = draw_graphs(graphs_of(usable, method, run))
    page = build_report(run.output_dir, label, methods, info, drawings)
    logger.info('report: %s', page)


def _describe_failure(result: 'SeriesResult', run: RunSettings) -> dict[str, str]:
    """Tell what failed; of the crash file its folder, since its name holds that of the user."""
    told = {'prefix': result.prefix, 'reason': name_by_role(result.cause, run)}
    if result.crash_file is not None:
        told['records'] = result.crash_file.parent.relative_to(run.output_dir).as_posix()
    return told


def usable_of(found: Sequence[Any]) -> list[Any]:
    """List what can be processed."""
    from ctpprep.inputs.dataset import FailedSeries

    return [each for each in found if not isinstance(each, FailedSeries)]


def is_precomputed(series: Any) -> bool:
    """Tell maps made elsewhere from a series."""
    from ctpprep.inputs.precomputed import PrecomputedMaps

    return isinstance(series, PrecomputedMaps)


def methods_of(series: Sequence[Any], method: MethodSettings, run: RunSettings) -> dict[str, str]:
    """Write the methods text of each series, by its prefix."""
    from ctpprep.workflows.base import init_series_wf

    return {each.prefix: init_series_wf(each, method, run).visit_desc() for each in series}


def methods_text(series: Sequence[Any], method: MethodSettings, run: RunSettings) -> str:
    """Join the methods texts of some series; one text where they do not differ."""
    texts = methods_of(series, method, run)
    if len(set(texts.values())) > 1:  # what was supplied differs from series to series
        return '\n'.join(f'## {prefix}\n{text}' for prefix, text in texts.items())
    return next(iter(texts.values()), '')


def write_methods(
    found: Sequence[Any], method: MethodSettings, run: RunSettings, start: str = ''
) -> list[Path]:
    """Write methods text, equations and references of all series to ``logs/``, as of the last call.

    With `start`, they are kept under names that begin so, too: another call may have other methods.
    """
    from ctpprep.reports import write_citation

    series = usable_of(found)
    maps_alone = bool(series) and all(map(is_precomputed, series))
    texts = methods_of(series, method, run)
    starts = dict.fromkeys(['', start])
    folder = run.output_dir / 'logs'
    written = [write_citation(folder, texts, method, maps_alone, each) for each in starts]
    return written[0]


def write_boilerplate(found: Sequence[Any], method: MethodSettings, run: RunSettings) -> int:
    """Write the methods text alone; return the exit code."""
    written = write_methods(found, method, run)
    logger.info('written: %s', ', '.join(str(path) for path in written))
    return 0


def rewrite_reports(found: Sequence[Any], method: MethodSettings, run: RunSettings) -> int:
    """Write the reports from the files of an earlier run; return the exit code.

    The methods text tells the settings that the sidecars of each participant hold, not those of
    this call. What has no table of volumes has failed; the series itself need not be there any more.
    """
    from ctpprep.engine.crashes import last_failure
    from ctpprep.engine.run import SeriesResult
    from ctpprep.exceptions import UsageError
    from ctpprep.reports.sidecars import read_settings_used

    found = [one for each in found for one in _of_outputs(each, run)]
    results = []
    for each in found:
        tables = (run.output_dir / f'sub-{each.participant}').rglob(f'{each.prefix}{VOLUMES}')
        written = next(tables, None) is not None
        why = ('', None) if written else last_failure(each, run.output_dir)
        results.append(SeriesResult(each.prefix, written, *why))
    if not any(result.succeeded for result in results):
        raise UsageError(
            f'--reports-only: {run.output_dir} holds no outputs of the selected series; run them first'
        )
    failures: dict[str, str] = {}
    for label in show_pages(list(dict.fromkeys(each.participant for each in found)), run):
        mine = [each for each in found if each.participant == label]
        with log_and_continue(f'the page sub-{label}.html could not be written', failures, label):
            used = read_settings_used(run.output_dir / f'sub-{label}')
            again = dataclasses.replace(method, **used)
            write_reports(mine, results, again, run, failures)
    results = with_failures(log_doubts(found, results, failures, run.output_dir), failures)
    logger.info('\n%s\noutputs: %s', tabulate(results), run.output_dir)
    return 0 if all(result.succeeded for result in results) else 1


def _of_outputs(each: Any, run: RunSettings) -> list[Any]:
    """Name the series of a participant whose raw files are gone by their tables of volumes.

    One without tables stays only if it was asked for.
    """
    if not getattr(each, 'absent', False):
        return [each]
    tables = sorted((run.output_dir / f'sub-{each.participant}').rglob(f'*{VOLUMES}'))
    told = [dataclasses.replace(each, prefix=path.name.removesuffix(VOLUMES)) for path in tables]
    return told or ([each] if run.participant_label else [])


def describe_run(method: MethodSettings, not_run: tuple[str, ...] = ()) -> dict[str, Any]:
    """Tell software and settings; nothing of the machine, since the record travels."""
    stages = dict.fromkeys(
        each.metadata['about'].stage for each in dataclasses.fields(MethodSettings)
    )
    stages = dict.fromkeys(each for each in stages if each not in not_run)
    packages = ('nipype', 'niworkflows', 'antspyx', 'nibabel', 'numpy', 'scipy', 'pybids')
    return {
        'version': __version__,
        'Software': {'ctpprep': __version__}
        | {'Python': '.'.join(map(str, sys.version_info[:3]))}
        | {name: importlib.metadata.version(name) for name in packages},
        'Settings': {stage: method.stage(stage) for stage in stages},
    }
