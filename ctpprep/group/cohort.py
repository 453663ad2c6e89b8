# SPDX-License-Identifier: Apache-2.0
"""The cohort: one row per series with its cores and the columns of `participants.tsv`, and notes."""

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pandas as pd

from ctpprep.group.participants import GROUP, STROKE, read_flags, read_groups, read_reperfusion
from ctpprep.group.series import SeriesRecord
from ctpprep.group.tsv import MISSING, Table, parse_number
from ctpprep.perfusion.symmetry import WITHHELD
from ctpprep.settings import RunSettings

#: Of the settings in which series differ, at most so many are named, with so many values each.
MAX_SETTINGS, MAX_VALUES = 8, 4
#: Volumes of a series: column of the cohort, and region, normalization and measure of its row. Mismatch is
#: hypoperfusion - core, as in trials and on the first screen of a report.
VOLUMES = {
    'core_global': ('core', 'global', 'volume'),
    'core_local': ('core', 'local', 'volume'),
    'hypoperfusion': ('hypoperfusion', MISSING, 'volume'),
    'mismatch_global': ('mismatch', 'global', 'difference'),
    'mismatch_local': ('mismatch', 'local', 'difference'),
}
#: State on the page of series whose mirror registration failed: they have all volumes but the local ones.
LOCAL_WITHHELD = 'local map withheld'


@dataclass
class Cohort:
    """The series of a group-level call.

    Attributes
    ----------
    table : DataFrame
        One row per series: `participant_id`, `series`, `state`, `reason`, the volumes of `VOLUMES` (mL, or
        NaN), `withheld` (why there is no local map, '' if there is one), `group` ('' if unknown),
        `stroke` and `reperfused` (True, False, or NaN if unknown), `excluded`, and `sex` and `age` if
        `participants.tsv` has these columns.
    groups : list of str
        In the order of comparison.
    notes : list of str
        Sentences about what was selected and excluded.
    reperfusion_column : str
        Column of `participants.tsv` that states who reperfused; '' without one.
    """

    table: pd.DataFrame
    groups: list[str]
    notes: list[str] = field(default_factory=list)
    reperfusion_column: str = ''

    @property
    def included(self) -> pd.DataFrame:
        """The series that enter the statistics."""
        return self.table[(self.table['state'] == 'succeeded') & ~self.table['excluded']]


def make_cohort(
    records: Sequence[SeriesRecord],
    volumes: Table,
    participants: pd.DataFrame | None,
    run: RunSettings,
) -> Cohort:
    """Join volumes and participants.

    Parameters
    ----------
    records : sequence of SeriesRecord
    volumes : Table
        `group_volumes.tsv`.
    participants : DataFrame or None
        As returned by `read_participants`.
    run : RunSettings
        With the names of columns.

    Returns
    -------
    Cohort

    Raises
    ------
    UsageError
        If a column of yes and no has other values, or if there are too many groups.
    """
    volumes_by_series, withheld, notes = _read_volumes(volumes)
    is_partial = bool(run.participant_label or run.session_label or run.run_label)
    if is_partial:
        notes.append(
            'Only the participants, sessions and runs asked for are here, not the whole cohort'
        )
    table = _tabulate(records, volumes_by_series)
    table['withheld'] = [withheld.get(record.prefix, '') for record in records]
    if participants is None:
        columns = pd.DataFrame(index=pd.Index([], dtype=str))
    else:
        columns = participants
        notes += _compare_participants(table['participant_id'], participants, is_partial)
    columns = columns.reindex(table['participant_id']).reset_index(drop=True).fillna(MISSING)
    notes += _add_excluded(table, columns, run)
    notes += _describe_differing_settings(records)
    notes.append(_add_stroke(table, columns, run))
    table['group'], groups = read_groups(columns, run)
    notes.append(_describe_groups(table, columns, run))
    reperfused, column = read_reperfusion(columns, run)
    table['reperfused'] = math.nan if reperfused is None else reperfused
    if 'sex' in columns:
        initial = columns['sex'].str.strip().str.upper().str[:1]
        table['sex'] = initial.where(initial.isin(['F', 'M']), '')
    if 'age' in columns:
        # BIDS writes ages above 89 as 89+
        table['age'] = columns['age'].str.strip().str.removesuffix('+').map(parse_number)
    return Cohort(table, groups, notes, column or '')


def _tabulate(
    records: Sequence[SeriesRecord], volumes_by_series: dict[str, dict[str, float]]
) -> pd.DataFrame:
    """Make one row per series, with its volumes."""
    table = pd.DataFrame(
        {
            'participant_id': [record.participant for record in records],
            'session_id': [record.session for record in records],
            'series': [record.prefix for record in records],
            'state': [record.state for record in records],
            'reason': [record.reason for record in records],
        }
    )
    for name in VOLUMES:
        table[name] = [
            volumes_by_series.get(record.prefix, {}).get(name, math.nan) for record in records
        ]
    return table


def _read_volumes(
    volumes: Table,
) -> tuple[dict[str, dict[str, float]], dict[str, str], list[str]]:
    """Read the volumes of each series, mL, and why local maps were withheld; a note if there are none."""
    indices = volumes.column_indices()
    needed = ('series', 'region', 'normalization', 'measure', 'volume_ml')
    if any(column not in indices for column in needed):
        return {}, {}, ['The tables of the series have no volumes']
    series, region, normalization, measure, volume_ml = (indices[column] for column in needed)
    reason = indices.get('reason')
    names = {key: name for name, key in VOLUMES.items()}
    volumes_by_series: dict[str, dict[str, float]] = {}
    withheld = {}
    for cells in volumes.rows:
        name = names.get((cells[region], cells[normalization], cells[measure]))
        if name is None:
            continue
        of_series = volumes_by_series.setdefault(cells[series], {})
        of_series[name] = parse_number(cells[volume_ml])
        if name == 'core_local' and reason is not None and cells[reason].startswith(WITHHELD):
            withheld[cells[series]] = cells[reason].removeprefix(WITHHELD)
    return volumes_by_series, withheld, []


def _compare_participants(
    processed: pd.Series, participants: pd.DataFrame, is_partial: bool
) -> Iterator[str]:
    """Describe participants without a row in participants.tsv, and rows without series.

    The latter are expected if only part of the cohort was selected.
    """
    with_series, with_row = set(processed), set(participants.index)
    if without_row := sorted(with_series - with_row):
        yield (
            f'{len(without_row)} of {len(with_series)} participants have no row in participants.tsv, '
            f'such as {without_row[0]}'
        )
    if not is_partial and (without_series := sorted(with_row - with_series)):
        yield (
            f'{len(without_series)} of {len(with_row)} rows of participants.tsv have no series here, '
            f'such as {without_series[0]}'
        )


def _add_excluded(table: pd.DataFrame, columns: pd.DataFrame, run: RunSettings) -> list[str]:
    """Add the column `excluded`; describe excluded, failed and incomplete series."""
    notes = []
    succeeded = table['state'] == 'succeeded'
    table['excluded'] = False
    if run.exclude_column:
        flags = read_flags(columns[run.exclude_column], run.exclude_column)
        table['excluded'] = flags.eq(True)
        note = (
            f'{int((table["excluded"] & succeeded).sum())} of {len(table)} series were left out by the '
            f'column {run.exclude_column}'
        )
        if n_unknown := int((flags.isna() & succeeded).sum()):
            note += f'; it is not known of {n_unknown} series, which count'
        notes.append(note)
    if n_failed := int((~succeeded).sum()):
        notes.append(f'{n_failed} of {len(table)} series or participants have no result')
    counts = succeeded & ~table['excluded']
    is_withheld = table['withheld'].ne('')
    if n_withheld := int((counts & is_withheld).sum()):
        notes.append(
            f'{n_withheld} of {len(table)} series: {LOCAL_WITHHELD}; their global core, hypoperfusion and '
            'mismatch are included'
        )
    has_cores = table[['core_global', 'core_local']].notna().all(axis=1)
    if n_incomplete := int((counts & ~is_withheld & ~has_cores).sum()):
        notes.append(f'{n_incomplete} of {len(table)} series have no core in their tables')
    return notes


def _describe_differing_settings(records: Sequence[SeriesRecord]) -> Iterator[str]:
    """Name the settings in which successful series differ, with the number of series per value."""
    counts: dict[str, Counter[str]] = {}
    for record in records:
        if record.state != 'succeeded':
            continue
        if record.version:
            counts.setdefault('version of ctpprep', Counter())[record.version] += 1
        for name, value in record.settings.items():
            text = value if isinstance(value, str) else json.dumps(value)
            counts.setdefault(name, Counter())[text] += 1
    differing = {name: count for name, count in sorted(counts.items()) if len(count) > 1}
    for name, count in list(differing.items())[:MAX_SETTINGS]:
        values = [f'{value} ({n} series)' for value, n in count.most_common(MAX_VALUES)]
        if len(count) > MAX_VALUES:
            values.append(f'{len(count) - MAX_VALUES} other values')
        yield f'Series differ in {name}: {", ".join(values)}'
    if len(differing) > MAX_SETTINGS:
        yield f'Series differ in {len(differing) - MAX_SETTINGS} more settings'


def _add_stroke(table: pd.DataFrame, columns: pd.DataFrame, run: RunSettings) -> str:
    """Add the column `stroke`; describe how evident stroke was determined."""
    column = run.stroke_column or (STROKE if STROKE in columns else None)
    if column:
        table['stroke'] = read_flags(columns[column], column)
        note = f'Evident stroke: the column {column}'
    else:
        core = table['core_global']
        table['stroke'] = (core > 0).astype(object).where(core.notna(), math.nan)
        note = (
            'Evident stroke: a global core above 0 mL, for want of a column; this favours series whose '
            'global core is too large, and so a local core that seems to correct it'
        )
    succeeded = table['state'] == 'succeeded'
    if n_unknown := int((table['stroke'].isna() & succeeded).sum()):
        note += (
            f'; it is not known of {n_unknown} series, which count neither as with nor as without'
        )
    return note


def _describe_groups(table: pd.DataFrame, columns: pd.DataFrame, run: RunSettings) -> str:
    """Describe which column made the groups."""
    column = run.group_column or GROUP
    if column in columns:
        note = f'Groups: the column {column}'
    else:
        note = f'Groups: one, for want of a column {GROUP} in participants.tsv'
    succeeded = table['state'] == 'succeeded'
    if n_unknown := int((table['group'].eq('') & succeeded).sum()):
        note += f'; it is not known of {n_unknown} series, which count among all alone'
    return note
