# SPDX-License-Identifier: Apache-2.0
"""Results of the series, with the warnings of quality control, as the table at the end of a run."""

import csv
import dataclasses
import logging
import typing
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from ctpprep.cli.messages import log_and_continue

if typing.TYPE_CHECKING:
    from ctpprep.engine.run import SeriesResult

logger = logging.getLogger('ctpprep')


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


def add_quality(result: 'SeriesResult', output_dir: Path) -> 'SeriesResult':
    """Add the warnings of quality control to a succeeded series: its maps may exist and be wrong."""
    from ctpprep.interfaces.wording import WORDING

    folder = output_dir / result.prefix.partition('_')[0]
    tables = sorted(folder.rglob(f'{result.prefix}_desc-qualitycontrol_ctp.tsv'))
    if not result.succeeded or not tables:
        return result
    with tables[0].open(newline='') as file:
        row = next(csv.DictReader(file, delimiter='\t'), {})
    titles = {name: wording.title for name, wording in WORDING.items()}
    grades = {
        column.removesuffix('_status'): grade
        for column, grade in row.items()
        if column.endswith('_status') and grade in ('warn', 'fail')
    }
    warnings = [f'{titles.get(name, name)} ({grade})' for name, grade in grades.items()]
    cause = f'quality: {", ".join(warnings)}' if warnings else ''
    if (caution := row.get('caution') or 'n/a') != 'n/a':
        cause = f'CAUTION: {caution}; {cause}'
    return dataclasses.replace(result, cause=cause) if cause else result


def review_results(
    all_series: Sequence[typing.Any],
    results: Sequence['SeriesResult'],
    failures: dict[str, str],
    output_dir: Path,
) -> list['SeriesResult']:
    """Log assumptions, and add warnings of quality control and write errors to the results.

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
            result = add_quality(result, output_dir)
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
