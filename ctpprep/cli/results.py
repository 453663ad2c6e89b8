# SPDX-License-Identifier: Apache-2.0
"""Tell what became of each series."""

import csv
import dataclasses
import logging
import typing
from collections.abc import Sequence
from pathlib import Path

from ctpprep.cli.messages import log_and_continue

if typing.TYPE_CHECKING:
    from ctpprep.engine.run import SeriesResult

logger = logging.getLogger('ctpprep')


def log_entry_notes(
    series: Sequence[typing.Any], results: Sequence['SeriesResult'], output_dir: Path
) -> None:
    """Say of maps made elsewhere which units were read or assumed, and whence masks and CT are."""
    from ctpprep.inputs.precomputed import PrecomputedMaps
    from ctpprep.reports.sidecars import read_notes

    ok = {each.prefix for each in results if each.succeeded}
    for each in series:
        if isinstance(each, PrecomputedMaps) and each.prefix in ok:
            sidecar = output_dir / each.out_subdir / f'{each.prefix}_tmax.json'
            for note in read_notes(sidecar):
                logger.info('%s: %s', each.prefix, note)


def with_quality(results: Sequence['SeriesResult'], output_dir: Path) -> list['SeriesResult']:
    """Say of each finished series what quality control doubts: its maps may be there and wrong."""
    from ctpprep.perfusion.quality import CHECKS

    titles, told = {check.name: check.title for check in CHECKS}, []
    for result in results:
        home = output_dir / result.prefix.partition('_')[0]
        tables = sorted(home.rglob(f'{result.prefix}_desc-qualitycontrol_ctp.tsv'))
        if result.succeeded and tables:
            with tables[0].open(newline='') as file:
                row = next(csv.DictReader(file, delimiter='\t'), {})
            grades = {
                name.removesuffix('_status'): grade
                for name, grade in row.items()
                if name.endswith('_status') and grade in ('warn', 'fail')
            }
            doubts = [f'{titles.get(name, name)} ({grade})' for name, grade in grades.items()]
            cause = f'quality: {", ".join(doubts)}' if doubts else ''
            if (caution := row.get('caution') or 'n/a') != 'n/a':
                cause = f'CAUTION: {caution}; {cause}'
            if cause:
                result = dataclasses.replace(result, cause=cause)
        told.append(result)
    return told


def log_doubts(
    series: Sequence[typing.Any],
    results: Sequence['SeriesResult'],
    failures: dict[str, str],
    output_dir: Path,
) -> list['SeriesResult']:
    """Say what was assumed and what is doubtful; a file that cannot be read is a failure."""
    for each in series:
        what = f'the notes on {each.prefix} cannot be read'
        with log_and_continue(what, failures, each.participant):
            log_entry_notes([each], results, output_dir)
    told = []
    for result in results:
        what = f'the quality of {result.prefix} cannot be read'
        with log_and_continue(what, failures, result.participant):
            (result,) = with_quality([result], output_dir)
        told.append(result)
    return told


def with_failures(
    results: Sequence['SeriesResult'], failures: dict[str, str]
) -> list['SeriesResult']:
    """Let series count as failed of whose participant something could not be written."""
    return [
        dataclasses.replace(each, succeeded=False, cause=failures[each.participant])
        if each.succeeded and each.participant in failures
        else each
        for each in results
    ]


def tabulate(results: Sequence['SeriesResult']) -> str:
    """Lay out what became of each series: name, result, cause, crash file."""
    width = max(len(result.prefix) for result in results)
    lines = []
    for result in results:
        state = 'ok' if result.succeeded else 'failed'
        lines.append(f'{result.prefix:{width}}  {state:6}  {result.cause}'.rstrip())
        if result.crash_file is not None:
            lines.append(f'{"":{width}}          crash file: {result.crash_file}')
    return '\n'.join(lines)
