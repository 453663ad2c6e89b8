# SPDX-License-Identifier: Apache-2.0
"""Results of the series, with the verdict on each, as the table at the end of a run."""

import dataclasses
import logging
import typing
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from ctpprep.cli.messages import log_and_continue
from ctpprep.inputs.selection import VOLUMES

if typing.TYPE_CHECKING:
    from ctpprep.engine.run import SeriesResult

logger = logging.getLogger('ctpprep')

READ_GLOBAL = 'read the global map'


def log_notes(
    all_series: Sequence[typing.Any], results: Sequence['SeriesResult'], output_dir: Path
) -> None:
    """Log which units of precomputed maps were read or assumed, and the sources of masks and CT."""
    from ctpprep.reports.sidecars import read_notes

    succeeded = {result.prefix for result in results if result.succeeded}
    for series in all_series:
        if series.can_run and not series.has_frames and series.prefix in succeeded:
            sidecar = output_dir / series.out_subdir / f'{series.prefix}_tmax.json'
            for note in read_notes(sidecar):
                logger.info('%s: %s', series.prefix, note)


def add_verdict(result: 'SeriesResult', output_dir: Path) -> 'SeriesResult':
    """Add the verdict of the page and its reason to a succeeded series."""
    from ctpprep.interfaces.summary import find_row, read_verdict, read_volumes
    from ctpprep.io.tables import read_table

    folder = output_dir / result.prefix.partition('_')[0]
    tables = sorted(folder.rglob(f'{result.prefix}_desc-qualitycontrol_ctp.tsv'))
    if not result.succeeded or not tables:
        return result
    checks = next(iter(read_table(tables[0])), {})
    path = tables[0].with_name(f'{result.prefix}{VOLUMES}')
    volumes = read_volumes(path) if path.is_file() else []
    verdict, reason = read_verdict(
        checks, find_row(volumes, 'core', 'local', 'volume').get('reason', '')
    )
    if checks.get('caution') and READ_GLOBAL not in reason:
        reason += f' Local normalization is unreliable: {READ_GLOBAL}.'
    return dataclasses.replace(result, cause=f'{verdict.word}: {reason}')


def review_results(
    all_series: Sequence[typing.Any],
    results: Sequence['SeriesResult'],
    failures: dict[str, str],
    output_dir: Path,
) -> list['SeriesResult']:
    """Log assumptions, and add verdicts and write errors to the results.

    Parameters
    ----------
    all_series : sequence of CTPSeries, PrecomputedMaps and FailedSeries
    results : sequence of SeriesResult
    failures : dict of str to str
        Errors by participant label; files that cannot be read are added.
    output_dir : Path

    Returns
    -------
    list of SeriesResult
    """
    for series in all_series:
        what = f'the notes on {series.prefix} cannot be read'
        with log_and_continue(what, failures, series.participant):
            log_notes([series], results, output_dir)
    reviewed = []
    for result in results:
        what = f'the quality of {result.prefix} cannot be read'
        with log_and_continue(what, failures, result.participant):
            result = add_verdict(result, output_dir)
        reviewed.append(result)
    return add_failures(reviewed, failures)


def add_failures(
    results: Sequence['SeriesResult'], failures: dict[str, str]
) -> list['SeriesResult']:
    """Mark series as failed if a file of their participant, such as the report, could not be written."""
    return [
        dataclasses.replace(result, succeeded=False, cause=failures[result.participant])
        if result.succeeded and result.participant in failures
        else result
        for result in results
    ]


def format_results(results: Sequence['SeriesResult']) -> str:
    """Format name, result, cause and crash file of each series as a table."""
    width = max(len(result.prefix) for result in results)
    lines = []
    for result in results:
        state = 'ok' if result.succeeded else 'failed'
        lines.append(f'{result.prefix:{width}}  {state:6}  {result.cause}'.rstrip())
        if result.crash_file is not None:
            lines.append(f'{"":{width}}          crash file: {result.crash_file}')
    return '\n'.join(lines)


def format_pace(n_series: int, seconds: float) -> str:
    """Format how long the series of a run took.

    Examples
    --------
    >>> format_pace(100, 1512.4)
    '100 series in 0:25:12, 15.1 s per series'
    """
    duration = timedelta(seconds=int(seconds))
    return f'{n_series} series in {duration}, {seconds / n_series:.1f} s per series'
