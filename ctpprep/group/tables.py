# SPDX-License-Identifier: Apache-2.0
"""The group tables: the tables of all series in one, and a row with the reason for each series without.

Every call reads all tables again: remembering what earlier calls read saved too little time
(decision 0025).
"""

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ctpprep.exceptions import SeriesError
from ctpprep.group.series import TABLES, SeriesRecord, find_series, read_settings
from ctpprep.group.tsv import MISSING, Table, read_table, write_table
from ctpprep.io.files import write_json
from ctpprep.perfusion.quality import RESULTS
from ctpprep.reports.quality import tabulate_verdict
from ctpprep.settings import RunSettings

#: First columns of each group table, with their descriptions.
IDS = {
    'participant_id': 'participant',
    'session_id': 'session; n/a without sessions',
    'series': 'start of the names of all files of the series; n/a if no series is known',
    'state': 'how the latest run of the series ended: succeeded, failed, running (or killed while it '
    'ran), incomplete if it succeeded and one of its tables is gone, or not processed',
    'failure': 'why the series has no result; n/a if it has one',
}
#: Columns of `group_quality.tsv` that no table of a series has, with their descriptions.
VERDICT = {
    'verdict': 'usable, look first or do not use, by the grades of all checks; a series that failed or is '
    'incomplete: do not use; n/a without a finished run',
    'verdict_reason': 'what the first deciding check found and how many more there are, or why there is no '
    'result',
    'doubtful': 'results that a failed check concerns: core_global, core_local, hypoperfusion; all of them '
    'without a valid run',
}
#: Written by versions that remembered earlier calls; removed.
OLD_MANIFEST = Path('logs') / 'group_manifest.json'
#: Series whose sidecars are searched for descriptions of columns.
MAX_SIDECARS = 20


def collect_tables(run: RunSettings) -> tuple[list[SeriesRecord], dict[str, Table]]:
    """Write `group_volumes.tsv` and `group_quality.tsv` with their column dictionaries.

    Parameters
    ----------
    run : RunSettings
        The dataset, whose participants are expected, and the derivatives.

    Returns
    -------
    records : list of SeriesRecord
    tables : dict of str to Table
        By the name of the file.

    Raises
    ------
    UsageError
        If no series has a table, or if the output folder is not writable.
    """
    records = find_series(run)
    series_tables = read_series_tables(records)
    read_settings(records)
    add_verdicts(records, series_tables)
    tables = {name: stack_tables(records, name, series_tables[name]) for name in TABLES}
    for name, table in tables.items():
        path = run.output_dir / name
        write_table(table, path)
        write_json(describe_columns(records, name, table.header), path.with_suffix('.json'))
    with contextlib.suppress(OSError):
        (run.output_dir / OLD_MANIFEST).unlink(missing_ok=True)
    return records, tables


def read_series_tables(records: Sequence[SeriesRecord]) -> dict[str, list[Table | None]]:
    """Read the tables of all series.

    A series fails if one of its tables cannot be read, and is incomplete if one is missing; its
    record gets the state and the reason.

    Returns
    -------
    dict of str to list of (Table or None)
        By the name of the group table, the table of each series without the columns of `IDS`.
    """
    series_tables: dict[str, list[Table | None]] = {}
    for name in TABLES:
        series_tables[name] = []
        for record in records:
            table = None
            if name in record.tables:
                try:
                    table = _without_ids(read_table(record.tables[name]))
                except SeriesError as error:
                    record.state, record.reason = 'failed', str(error)
                    del record.tables[name]
            series_tables[name].append(table)
    for record in records:
        missing = [name for name in TABLES if name not in record.tables]
        if record.state == 'succeeded' and missing:
            record.state = 'incomplete'
            files = ' and '.join(f'{record.prefix}{TABLES[name]}' for name in missing)
            verb = 'is' if len(missing) == 1 else 'are'
            record.reason = f'{files} {verb} gone; run the series again'
    return series_tables


def add_verdicts(
    records: Sequence[SeriesRecord], series_tables: dict[str, list[Table | None]]
) -> None:
    """Add the columns `VERDICT` to the quality table of each series.

    A series without one gets a table of these columns alone if there is a verdict.
    """
    for index, record in enumerate(records):
        quality = series_tables['group_quality.tsv'][index]
        volumes = series_tables['group_volumes.tsv'][index]
        if record.state == 'succeeded' and quality:
            first = quality.rows[0] if quality.rows else [''] * len(quality.header)
            checks = dict(zip(quality.header, first, strict=True))
            verdict = tabulate_verdict(checks, _read_local_reason(volumes))
            cells = [verdict[column] or MISSING for column in VERDICT]
        elif record.state in ('failed', 'incomplete'):
            cells = ['do not use', record.reason or MISSING, ', '.join(RESULTS)]
        else:
            continue
        header, rows = (quality.header, quality.rows) if quality else ([], [[]])
        kept = [place for place, column in enumerate(header) if column not in VERDICT]
        series_tables['group_quality.tsv'][index] = Table(
            [*VERDICT, *(header[place] for place in kept)],
            [[*cells, *(row[place] for place in kept)] for row in rows],
        )


def _read_local_reason(volumes: Table | None) -> str:
    """Return the reason in the row of the local core, '' if there is none."""
    if volumes is None or 'reason' not in volumes.header:
        return ''
    places = volumes.column_indices()
    wanted = {'region': 'core', 'normalization': 'local', 'measure': 'volume'}
    for cells in volumes.rows:
        if all(
            column in places and cells[places[column]] == text for column, text in wanted.items()
        ):
            return cells[places['reason']]
    return ''


def stack_tables(
    records: Sequence[SeriesRecord], name: str, series_tables: Sequence[Table | None]
) -> Table:
    """Stack the tables of all series; a series without a table has one row with its reason."""
    columns = dict.fromkeys(IDS)
    for table in series_tables:
        columns |= dict.fromkeys(table.header if table else ())
    header = list(columns)
    return Table(header, list(_fill_rows(records, name, series_tables, header)))


def _without_ids(table: Table) -> Table:
    """Drop the columns that each group table begins with."""
    if IDS.keys().isdisjoint(table.header):
        return table
    kept = [index for index, column in enumerate(table.header) if column not in IDS]
    return Table(
        [table.header[index] for index in kept],
        [[cells[index] for index in kept] for cells in table.rows],
    )


def _fill_rows(
    records: Sequence[SeriesRecord],
    name: str,
    series_tables: Sequence[Table | None],
    header: list[str],
) -> Iterator[list[str]]:
    """Reorder the cells of each series to the common header; missing columns become n/a."""
    orders: dict[tuple[str, ...], list[int]] = {}
    for record, series_table in zip(records, series_tables, strict=True):
        table = series_table or Table([], [[]])
        key = tuple(table.header)
        if key not in orders:
            indices = table.column_indices()
            orders[key] = [indices.get(column, -1) for column in header[len(IDS) :]]
        order = orders[key]
        reason = record.reason
        if not reason and name not in record.tables:
            reason = 'its table is not there'
        ids = [
            record.participant, record.session, record.prefix, record.state, reason or MISSING
        ]  # fmt: skip
        for cells in table.rows:
            yield ids + [cells[index] if index >= 0 else MISSING for index in order]


def describe_columns(
    records: Sequence[SeriesRecord], name: str, header: Sequence[str]
) -> dict[str, Any]:
    """Describe the columns of a group table by the sidecars of its series.

    Parameters
    ----------
    records : sequence of SeriesRecord
    name : str
        Name of the group table.
    header : sequence of str
        Its columns.

    Returns
    -------
    dict
        Description, and unit and limits if there are any, by column.
    """
    fixed = {column: text for column, text in (IDS | VERDICT).items() if column in header}
    about: dict[str, Any] = {column: {'Description': text} for column, text in fixed.items()}
    undescribed = [column for column in header if column not in about]
    n_sidecars = 0
    for record in records:
        if not undescribed or name not in record.tables or n_sidecars == MAX_SIDECARS:
            continue
        n_sidecars += 1
        path = record.tables[name].with_suffix('.json')
        try:
            sidecar = json.loads(path.read_text(encoding='utf-8'))
        except (OSError, ValueError):
            continue
        if not isinstance(sidecar, dict):
            continue
        about |= {
            column: sidecar[column]
            for column in undescribed
            if isinstance(sidecar.get(column), dict)
        }
        undescribed = [column for column in undescribed if column not in about]
    for column in undescribed:
        check = column.removesuffix('_status').removesuffix('_sentence')
        if column != check:
            kind = 'grade' if column.endswith('_status') else 'grade in words'
            about[column] = {'Description': f'{kind} of {check}'}
    return {'Description': f'{name}: rows of all series', **about}
