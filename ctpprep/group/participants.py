# SPDX-License-Identifier: Apache-2.0
"""Columns of `participants.tsv`: yes and no, and groups, in the spellings that are in use."""

import difflib
import math
import re
from collections import Counter
from decimal import Decimal, InvalidOperation

import pandas as pd

from ctpprep.exceptions import SeriesError, UsageError
from ctpprep.group.tsv import parse_number, read_table
from ctpprep.settings import RunSettings

#: Default columns of groups and of evident stroke.
GROUP, STROKE = 'microangiopathy', 'stroke_evident'
#: Default columns of reperfusion, in any case.
REPERFUSION = ('reperfused', 'reperfusion', 'mtici', 'tici', 'etici')
#: Grades of TICI, mTICI and eTICI with and without reperfusion.
SUCCESS = ('2b', '2b50', '2b67', '2c', '3')
FAILURE = ('0', '1', '2', '2a')
#: A column with more values does not name groups: somebody chose a column of ages.
MAX_GROUPS = 12
YES = ('yes', 'y', 'true', 't', '1', '1.0')
NO = ('no', 'n', 'false', 'f', '0', '0.0')
#: Spellings of a missing value, in all columns.
UNKNOWN = ('', 'n/a', 'na', 'nan', 'none', 'unknown', 'not known', '?')
#: Words whose case is ignored beside other words; t and f may have other meanings there.
CASE_INSENSITIVE = ('yes', 'no', 'true', 'false')


def read_participants(run: RunSettings) -> pd.DataFrame | None:
    """Read `participants.tsv` and check that it has the columns named by options.

    Returns
    -------
    DataFrame or None
        Text, indexed by participant (sub-...); None if there is no such file.

    Raises
    ------
    UsageError
        If the file cannot be read, or a column named by an option is missing.
    """
    path = run.bids_dir / 'participants.tsv'
    requested = {
        f'--{name.replace("_", "-")}': getattr(run, name)
        for name in ('group_column', 'stroke_column', 'exclude_column', 'reperfusion_column')
        if getattr(run, name)
    }
    if not path.is_file():
        for option, column in requested.items():
            raise UsageError(
                f'{option} names the column {column}, but there is no {path}; add the file or '
                'remove the option'
            )
        return None
    try:
        content = read_table(path, encoding='utf-8-sig')
    except SeriesError as error:
        raise UsageError(f'{path.parent}: {error}') from error
    _refuse_repeated(content.header, f'{path}: found more than one column')
    table = pd.DataFrame(content.rows, columns=content.header, dtype=str)
    if 'participant_id' not in table:
        raise UsageError(
            f'{path} needs a column participant_id; found {", ".join(content.header)}'
        )
    labels = [label.strip().removeprefix('sub-') for label in table['participant_id']]
    table.index = pd.Index([f'sub-{label}' for label in labels])
    _refuse_repeated(sorted(table.index), f'{path}: found more than one row of')
    for option, column in requested.items():
        if column not in table:
            near = difflib.get_close_matches(column, table.columns, n=1)
            hint = f'; did you mean {near[0]}?' if near else ''
            columns = ', '.join(table.columns.drop('participant_id')) or 'no other columns'
            raise UsageError(f'{option}: {path} has no column {column}; found {columns}{hint}')
    return table


def _refuse_repeated(names: list[str], message: str) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise UsageError(f'{message} {repeated[0]}; remove or rename all but one')


def read_flags(values: pd.Series, column: str) -> pd.Series:
    """Parse yes and no; NaN where the value is missing.

    Raises
    ------
    UsageError
        If a value is neither yes nor no nor missing.
    """
    words = _normalize_words(values).str.lower()
    flags = {**dict.fromkeys(YES, True), **dict.fromkeys(NO, False)}
    unexpected = sorted(set(values[~words.isin([*flags, ''])]))
    if unexpected:
        raise UsageError(
            f'participants.tsv, column {column}: found {unexpected[0]!r}, need yes or no '
            '(or true and false, 1 and 0, n/a)'
        )
    return words.map(flags).astype(object)


def read_reperfusion(
    participants: pd.DataFrame, run: RunSettings
) -> tuple[pd.Series | None, str | None]:
    """Read who reperfused, from yes and no or from grades.

    A column of 0 and 1 alone is read as yes and no, unless its name is that of a grade.

    Returns
    -------
    values : Series or None
        True, False, or NaN if unknown; None without a column.
    column : str or None

    Raises
    ------
    UsageError
        If a value is neither yes or no nor a grade.
    """
    by_name = {column.lower(): column for column in participants}
    default = next((by_name[name] for name in REPERFUSION if name in by_name), None)
    column = run.reperfusion_column or default
    if column is None or column not in participants:
        return None, None
    words = _normalize_words(participants[column]).str.lower()
    words = (
        words.str.removeprefix('etici')
        .str.removeprefix('mtici')
        .str.removeprefix('tici')
        .str.strip()
    )
    words = words.str.removesuffix('.0')
    grades = {**dict.fromkeys(SUCCESS, True), **dict.fromkeys(FAILURE, False)}
    flags = {**dict.fromkeys(YES, True), **dict.fromkeys(NO, False)}
    is_grade = 'tici' in column.lower() or bool(set(words) - {*flags, ''})
    meaning = {**flags, **grades} if is_grade else flags
    unexpected = sorted(set(participants[column][~words.isin([*meaning, ''])]))
    if unexpected:
        raise UsageError(
            f'participants.tsv, column {column}: found {unexpected[0]!r}, need yes or no, or a grade '
            'such as 2b'
        )
    return words.map(meaning).astype(object), column


def read_groups(participants: pd.DataFrame, run: RunSettings) -> tuple[pd.Series, list[str]]:
    """Read the group of each row, and the groups in the order of comparison.

    Yes and no become the name of the column and 'no' before it.

    Raises
    ------
    UsageError
        If there are more than `MAX_GROUPS` groups.
    """
    column = run.group_column or (GROUP if GROUP in participants else None)
    if column is None:
        return pd.Series('all', index=participants.index), ['all']
    values = _normalize_words(participants[column])
    words = values.str.lower()
    if set(words) <= {*YES, *NO, ''}:
        name = re.sub('[_-]+', ' ', column)
        names = {**dict.fromkeys(YES, name), **dict.fromkeys(NO, f'no {name}'), '': ''}
        values = words.map(names)
        groups = [group for group in (name, f'no {name}') if group in set(values)]
    else:
        values = values.map(_unify_spellings(set(values)))
        groups = sorted(set(values) - {''}, key=_numeric_order)
        # 'all' names all groups together
        if 'all' in groups:
            groups[groups.index('all')] = f'{column} all'
            values = values.replace('all', f'{column} all')
    if len(groups) > MAX_GROUPS:
        raise UsageError(
            f'--group-column {column} has {len(groups)} values, such as {", ".join(groups[:3])}; '
            f'at most {MAX_GROUPS} groups can be compared, name another column'
        )
    return values, groups


def _normalize_words(values: pd.Series) -> pd.Series:
    """Collapse white space, and replace spellings of a missing value by ''."""
    words = values.map(lambda text: ' '.join(text.split()))
    return words.where(~words.str.lower().isin(UNKNOWN), '')


def _unify_spellings(words: set[str]) -> dict[str, str]:
    """Map each word to its group: equal numbers are one group, and so is yes in any case.

    The group is named by the shortest spelling of a number.
    """

    def meaning(word: str) -> Decimal | str:
        try:
            value = Decimal(word)
        except InvalidOperation:
            return word.lower() if word.lower() in CASE_INSENSITIVE else word
        return value if value.is_finite() else word

    names: dict[Decimal | str, str] = {}
    for word in sorted(words, key=lambda word: (len(word), word)):
        key = meaning(word)
        names.setdefault(key, key if isinstance(key, str) else word)
    return {word: names[meaning(word)] for word in words}


def _numeric_order(word: str) -> tuple[bool, float, str]:
    """Sort key of groups: numbers by size, then all other words by name."""
    value = parse_number(word)
    is_text = math.isnan(value)
    return is_text, 0.0 if is_text else value, word
