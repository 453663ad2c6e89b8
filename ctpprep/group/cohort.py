# SPDX-License-Identifier: Apache-2.0
"""One row a series for the statistics: cores, and what `participants.tsv` knows of the participant."""

import difflib
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation

import pandas as pd

from ctpprep.exceptions import SeriesError, UsageError
from ctpprep.group.tables import MISSING, Found, Table, number, read_table
from ctpprep.settings import RunSettings

#: Columns that are looked for when no option names one.
GROUP, STROKE = 'microangiopathy', 'stroke_evident'
#: More groups are no groups: a column of ages was named.
MOST_GROUPS = 12
YES = ('yes', 'y', 'true', 't', '1', '1.0')
NO = ('no', 'n', 'false', 'f', '0', '0.0')
#: Words for what is not known, in all columns.
UNKNOWN = ('', 'n/a', 'na', 'nan', 'none', 'unknown', 'not known', '?')
#: Words whose case does not count beside other words: t and f may be something else there.
FOLDED = ('yes', 'no', 'true', 'false')
#: Of settings that differ between series, so many are named, with so many values each.
MOST_SETTINGS, MOST_VALUES = 8, 4
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
        A row a series: `participant_id`, `series`, `state`, `reason`, the volumes of `VOLUMES` (mL, or NaN),
        `group` ('' if not known), `stroke` (True, False, or NaN if not known), `excluded`, and `sex`
        and `age` where there are such columns.
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
    if twice := [name for name, count in Counter(told.header).items() if count > 1]:
        raise UsageError(f'{path} has more than one column {twice[0]}')
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
    of_series, notes = _read_volumes(volumes)
    part = bool(run.participant_label or run.session_label or run.run_label)
    if part:
        notes.append(
            'Only the participants, sessions and runs asked for are here, not the whole cohort'
        )
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
        table[name] = [of_series.get(each.series, {}).get(name, math.nan) for each in found]
    known = (
        participants if participants is not None else pd.DataFrame(index=pd.Index([], dtype=str))
    )
    of_each = known.reindex(table['participant_id']).reset_index(drop=True).fillna(MISSING)

    notes += _mismatch(table['participant_id'], participants, part)
    succeeded = table['state'] == 'succeeded'
    table['excluded'] = False
    if run.exclude_column:
        excluded = _read_flags(of_each[run.exclude_column], run.exclude_column)
        table['excluded'] = excluded.eq(True)
        notes.append(
            f'{int((table["excluded"] & succeeded).sum())} of {len(table)} series were left out by the '
            f'column {run.exclude_column}'
        )
        if unknown := int((excluded.isna() & succeeded).sum()):
            notes[-1] += f'; it is not known of {unknown} series, which count'
    if broken := int((~succeeded).sum()):
        notes.append(f'{broken} of {len(table)} series or participants have no result')
    complete = table[['core_global', 'core_local']].notna().all(axis=1)
    if lacking := int((succeeded & ~table['excluded'] & ~complete).sum()):
        notes.append(f'{lacking} of {len(table)} series lack a core, and do not count')
    notes += _differing(found)
    column = run.stroke_column or (STROKE if STROKE in of_each else None)
    if column:
        table['stroke'] = _read_flags(of_each[column], column)
        notes.append(f'Evident stroke: the column {column}')
    else:
        core = table['core_global']
        table['stroke'] = (core > 0).astype(object).where(core.notna(), math.nan)
        notes.append(
            'Evident stroke: a global core above 0 mL, for want of a column; this favours series whose '
            'global core is too large, and so a local core that seems to correct it'
        )
    if unknown := int((table['stroke'].isna() & succeeded).sum()):
        notes[-1] += (
            f'; it is not known of {unknown} series, which count neither as with nor as without'
        )
    table['group'], groups = _read_groups(of_each, run)
    notes.append(
        f'Groups: the column {run.group_column or GROUP}'
        if (run.group_column or GROUP) in of_each
        else f'Groups: one, for want of a column {GROUP} in participants.tsv'
    )
    if unknown := int((table['group'].eq('') & succeeded).sum()):
        notes[-1] += f'; it is not known of {unknown} series, which count among all alone'
    if 'sex' in of_each:
        first = of_each['sex'].str.strip().str.upper().str[:1]
        table['sex'] = first.where(first.isin(['F', 'M']), '')
    if 'age' in of_each:
        # BIDS writes ages above 89 as 89+
        table['age'] = of_each['age'].str.strip().str.removesuffix('+').map(number)
    return Cohort(table, groups, notes)


def _read_volumes(volumes: Table) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Find the volumes of each series."""
    place = {column: i for i, column in enumerate(volumes.header)}
    needed = ('series', 'region', 'normalization', 'measure', 'volume_ml')
    if any(column not in place for column in needed):
        return {}, ['The tables of the series have no volumes']
    series, region, normalization, measure, ml = (place[column] for column in needed)
    names = {key: name for name, key in VOLUMES.items()}
    found: dict[str, dict[str, float]] = {}
    for cells in volumes.rows:
        name = names.get((cells[region], cells[normalization]))
        if name is not None and cells[measure] == 'volume':
            found.setdefault(cells[series], {})[name] = number(cells[ml])
    return found, []


def _mismatch(found: pd.Series, participants: pd.DataFrame | None, part: bool) -> Iterator[str]:
    """Tell what participants.tsv and the series do not have in common; of a part, who has no row."""
    if participants is None:
        return
    here, told = set(found), set(participants.index)
    if alone := sorted(here - told):
        yield f'{len(alone)} of {len(here)} participants have no row in participants.tsv, such as {alone[0]}'
    if not part and (alone := sorted(told - here)):
        yield f'{len(alone)} of {len(told)} rows of participants.tsv have no series here, such as {alone[0]}'


def _differing(found: Sequence[Found]) -> Iterator[str]:
    """Tell the settings in which the series with a result differ, with how many have which value."""
    counts: dict[str, Counter[str]] = {}
    for each in found:
        if each.state != 'succeeded':
            continue
        if each.version:
            counts.setdefault('version of ctpprep', Counter())[each.version] += 1
        for name, value in each.settings.items():
            counts.setdefault(name, Counter())[
                value if isinstance(value, str) else json.dumps(value)
            ] += 1
    differing = {name: count for name, count in sorted(counts.items()) if len(count) > 1}
    for name, count in list(differing.items())[:MOST_SETTINGS]:
        values = [f'{value} ({n} series)' for value, n in count.most_common(MOST_VALUES)]
        more = [f'{len(count) - MOST_VALUES} other values'] if len(count) > MOST_VALUES else []
        yield f'Series differ in {name}: {", ".join(values + more)}'
    if len(differing) > MOST_SETTINGS:
        yield f'Series differ in {len(differing) - MOST_SETTINGS} more settings'


def _words(values: pd.Series) -> pd.Series:
    """Read the cells of a column as words: blanks are one, and what is not known is ''."""
    words = values.map(lambda text: ' '.join(text.split()))
    return words.where(~words.str.lower().isin(UNKNOWN), '')


def _read_flags(values: pd.Series, column: str) -> pd.Series:
    """Read yes and no, in the spellings that are in use; NaN where nothing is written."""
    words = _words(values).str.lower()
    known = {**dict.fromkeys(YES, True), **dict.fromkeys(NO, False)}
    strange = sorted(set(values[~words.isin([*known, ''])]))
    if strange:
        raise UsageError(
            f'the column {column} of participants.tsv holds {strange[0]!r}; yes or no is needed '
            '(or true and false, 1 and 0, n/a)'
        )
    return words.map(known).astype(object)


def _read_groups(of_each: pd.DataFrame, run: RunSettings) -> tuple[pd.Series, list[str]]:
    """Name the group of each series; yes and no become the column's name and 'no' before it."""
    column = run.group_column or (GROUP if GROUP in of_each else None)
    if column is None:
        return pd.Series('all', index=of_each.index), ['all']
    values = _words(of_each[column])
    words = values.str.lower()
    if set(words) <= {*YES, *NO, ''}:
        name = re.sub('[_-]+', ' ', column)
        names = {**dict.fromkeys(YES, name), **dict.fromkeys(NO, f'no {name}'), '': ''}
        values = words.map(names)
        groups = [each for each in (name, f'no {name}') if each in set(values)]
    else:
        values = values.map(_fold(set(values)))
        groups = sorted(set(values) - {''}, key=_by_number)
        # 'all' is the name of all together
        if 'all' in groups:
            groups[groups.index('all')] = f'{column} all'
            values = values.replace('all', f'{column} all')
    if len(groups) > MOST_GROUPS:
        raise UsageError(
            f'--group-column {column} has {len(groups)} values, such as {", ".join(groups[:3])}; '
            f'at most {MOST_GROUPS} groups can be compared'
        )
    return values, groups


def _fold(words: set[str]) -> dict[str, str]:
    """Name the group of each word: one for equal numbers, by the shortest, and for yes in any case."""

    def same(word: str) -> Decimal | str:
        try:
            value = Decimal(word)
        except InvalidOperation:
            return word.lower() if word.lower() in FOLDED else word
        return value if value.is_finite() else word

    names: dict[Decimal | str, str] = {}
    for word in sorted(words, key=lambda word: (len(word), word)):
        key = same(word)
        names.setdefault(key, key if isinstance(key, str) else word)
    return {word: names[same(word)] for word in words}


def _by_number(word: str) -> tuple[bool, float, str]:
    """Order groups: numbers by size, then the others by name."""
    value = number(word)
    return math.isnan(value), 0.0 if math.isnan(value) else value, word
