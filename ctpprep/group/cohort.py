# SPDX-License-Identifier: Apache-2.0
"""One row a series for the statistics: cores, and what `participants.tsv` knows of the participant."""

import difflib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

from ctpprep.exceptions import SeriesError, UsageError
from ctpprep.group.tables import MISSING, Found, Table, read_table
from ctpprep.settings import RunSettings

#: Columns that are looked for when no option names one.
GROUP, STROKE = 'microangiopathy', 'stroke_evident'
#: More groups are no groups: a column of ages was named.
MOST_GROUPS = 12
YES = ('yes', 'y', 'true', 't', '1', '1.0')
NO = ('no', 'n', 'false', 'f', '0', '0.0')
EMPTY = ('', 'n/a', 'na', 'nan', 'none')
#: What is read of the volumes: column, region, normalization.
VOLUMES = {
    'core_global': ('core', 'global'),
    'core_local': ('core', 'local'),
    'hypoperfusion': ('hypoperfusion', MISSING),
    'mismatch_global': ('mismatch', 'global'),
    'mismatch_local': ('mismatch', 'local'),
}


@dataclass
class Cohort:
    """The series of a group call.

    Attributes
    ----------
    table : DataFrame
        A row a series: `participant_id`, `series`, `state`, `reason`, the volumes of `VOLUMES` (mL), `group`,
        `stroke`, `excluded`, and `sex` and `age` where there are such columns.
    groups : list of str
        In the order in which they are compared.
    notes : list of str
        Sentences about what was chosen and left out.
    """

    table: pd.DataFrame
    groups: list[str]
    notes: list[str] = field(default_factory=list)

    @property
    def included(self) -> pd.DataFrame:
        """The series that count in statistics."""
        return self.table[(self.table['state'] == 'succeeded') & ~self.table['excluded']]


def read_participants(run: RunSettings) -> pd.DataFrame | None:
    """Read `participants.tsv`, and see that the columns that options name are there.

    Returns
    -------
    DataFrame or None
        Text by participant (sub-...); None if there is no such file.

    Raises
    ------
    UsageError
        When an option names a column that is not there, or the file cannot be read.
    """
    path = run.bids_dir / 'participants.tsv'
    asked = {
        f'--{name.replace("_", "-")}': getattr(run, name)
        for name in ('group_column', 'stroke_column', 'exclude_column')
        if getattr(run, name)
    }
    if not path.is_file():
        for option, column in asked.items():
            raise UsageError(f'{option} {column} names a column of {path}, which is not there')
        return None
    try:
        told = read_table(path, encoding='utf-8-sig')
    except SeriesError as error:
        raise UsageError(f'{path.parent}: {error}') from error
    table = pd.DataFrame(told.rows, columns=told.header, dtype=str)
    if 'participant_id' not in table:
        raise UsageError(f'{path} has no column participant_id')
    table.index = pd.Index(
        [f'sub-{each.strip().removeprefix("sub-")}' for each in table['participant_id']]
    )
    if twice := sorted(table.index[table.index.duplicated()]):
        raise UsageError(f'{path} has more than one row of {twice[0]}')
    for option, column in asked.items():
        if column not in table:
            near = difflib.get_close_matches(column, table.columns, n=1)
            hint = f'; did you mean {near[0]}?' if near else ''
            there = ', '.join(table.columns.drop('participant_id')) or 'none'
            raise UsageError(f'{option}: {path} has no column {column}, it has {there}{hint}')
    return table


def make_cohort(
    found: Sequence[Found], volumes: Table, participants: pd.DataFrame | None, run: RunSettings
) -> Cohort:
    """Join volumes and participants.

    Parameters
    ----------
    found : sequence of Found
    volumes : Table
        `group_volumes.tsv`.
    participants : DataFrame or None
        As `read_participants` gives it.
    run : RunSettings
        With the names of columns.

    Returns
    -------
    Cohort

    Raises
    ------
    UsageError
        When a column that should say yes or no says something else, or the groups are too many.
    """
    cores, notes = _read_volumes(volumes)
    table = pd.DataFrame(
        {
            'participant_id': [each.participant for each in found],
            'session_id': [each.session for each in found],
            'series': [each.series for each in found],
            'state': [each.state for each in found],
            'reason': [each.reason for each in found],
        }
    )
    for name in VOLUMES:
        table[name] = [cores.get(each.series, {}).get(name, math.nan) for each in found]
    known = (
        participants if participants is not None else pd.DataFrame(index=pd.Index([], dtype=str))
    )
    of_each = known.reindex(table['participant_id']).reset_index(drop=True).fillna(MISSING)

    table['excluded'] = False
    if run.exclude_column:
        excluded = _read_flags(of_each[run.exclude_column], run.exclude_column)
        table['excluded'] = excluded.eq(True)
        notes.append(
            f'{int(table["excluded"].sum())} of {len(table)} series were left out by the column '
            f'{run.exclude_column}'
        )
    if broken := int((table['state'] != 'succeeded').sum()):
        notes.append(f'{broken} of {len(table)} series or participants have no result')
    column = run.stroke_column or (STROKE if STROKE in of_each else None)
    if column:
        stroke = _read_flags(of_each[column], column)
        table['stroke'] = stroke.eq(True)
        notes.append(f'Evident stroke: the column {column}')
        if unknown := int(stroke.isna().sum()):
            notes[-1] += f'; it is not known of {unknown} series, which count as without'
    else:
        table['stroke'] = table['core_global'] > 0
        notes.append('Evident stroke: a global core above 0 mL, for want of a column')
    table['group'], groups = _read_groups(of_each, run, notes)
    if 'sex' in of_each:
        first = of_each['sex'].str.strip().str.upper().str[:1]
        table['sex'] = first.where(first.isin(['F', 'M']), '')
    if 'age' in of_each:
        # BIDS writes ages above 89 as 89+
        table['age'] = pd.to_numeric(
            of_each['age'].str.strip().str.removesuffix('+'), errors='coerce'
        )
    return Cohort(table, groups, notes)


def _read_volumes(volumes: Table) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Find the volumes of each series, and whether all have one threshold."""
    place = {column: i for i, column in enumerate(volumes.header)}
    needed = ('series', 'region', 'normalization', 'measure', 'volume_ml')
    if any(column not in place for column in needed):
        return {}, ['The tables of the series have no volumes']
    series, region, normalization, measure, ml = (place[column] for column in needed)
    names = {key: name for name, key in VOLUMES.items()}
    found: dict[str, dict[str, float]] = {}
    thresholds: dict[str, set[str]] = {}
    for cells in volumes.rows:
        name = names.get((cells[region], cells[normalization]))
        if name is None or cells[measure] != 'volume':
            continue
        found.setdefault(cells[series], {})[name] = _number(cells[ml])
        if 'threshold' in place and name.startswith('core'):
            thresholds.setdefault(name, set()).add(cells[place['threshold']])
    notes = [
        f'Series differ in the threshold of {name.replace("_", " ")}: {", ".join(sorted(each))}'
        for name, each in thresholds.items()
        if len(each) > 1
    ]
    return found, notes


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _read_flags(values: pd.Series, column: str) -> pd.Series:
    """Read yes and no, in the spellings that are in use; NaN where nothing is written."""
    words = values.str.strip().str.lower()
    known = {**dict.fromkeys(YES, True), **dict.fromkeys(NO, False)}
    strange = sorted(set(values[~words.isin([*known, *EMPTY])]))
    if strange:
        raise UsageError(
            f'the column {column} of participants.tsv holds {strange[0]!r}; yes or no is needed '
            '(or true and false, 1 and 0, n/a)'
        )
    return words.map(known).astype(object)


def _read_groups(
    of_each: pd.DataFrame, run: RunSettings, notes: list[str]
) -> tuple[pd.Series, list[str]]:
    """Name the group of each series; yes and no become the column's name and 'no' before it."""
    column = run.group_column or (GROUP if GROUP in of_each else None)
    if column is None:
        notes.append(f'Groups: one, for want of a column {GROUP} in participants.tsv')
        return pd.Series('all', index=of_each.index), ['all']
    values = of_each[column].str.strip()
    values = values.where(~values.str.lower().isin(EMPTY), '')
    words = values.str.lower()
    if set(words) <= {*YES, *NO, ''}:
        name = re.sub('[_-]+', ' ', column)
        names = {**dict.fromkeys(YES, name), **dict.fromkeys(NO, f'no {name}'), '': ''}
        values = words.map(names)
        groups = [each for each in (name, f'no {name}') if each in set(values)]
    else:
        groups = sorted(set(values) - {''}, key=lambda text: (_number(text), text))
        # 'all' is the name of all together
        if 'all' in groups:
            groups[groups.index('all')] = f'{column} all'
            values = values.replace('all', f'{column} all')
    if len(groups) > MOST_GROUPS:
        raise UsageError(
            f'--group-column {column} has {len(groups)} values, such as {", ".join(groups[:3])}; '
            f'at most {MOST_GROUPS} groups can be compared'
        )
    notes.append(f'Groups: the column {column}')
    if unknown := int((values == '').sum()):
        notes[-1] += f'; it is not known of {unknown} series, which count among all alone'
    return values, groups
