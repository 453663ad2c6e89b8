# SPDX-License-Identifier: Apache-2.0
"""Statistics of a cohort: local versus global core, and groups compared. Arrays in, rows out.

The analysis of Rau et al., AJNR 2024;45:277, doi:10.3174/ajnr.A8111. Each row is one figure with its
interval, its p value and its method. A figure that cannot be computed is a row with a reason.
Decision 0025 explains the choice of tests.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ctpprep.group.comparisons import (
    bland_altman,
    compare_paired,
    compare_proportions,
    compare_samples,
    describe,
    describe_proportion,
    subtract,
)
from ctpprep.group.regression import compare_slopes, regress
from ctpprep.group.rows import COLUMNS, make_row

#: Volumes that are described on their own: comparison, and column of the table.
MEASURES = {
    'core global': 'core_global',
    'core local': 'core_local',
    'hypoperfusion': 'hypoperfusion',
    'mismatch global': 'mismatch_global',
    'mismatch local': 'mismatch_local',
}
#: Sets of series for which all figures are computed.
SETS = ('all', 'evident stroke')


def analyze(table: pd.DataFrame, groups: Sequence[str]) -> pd.DataFrame:
    """Compute all statistics of a cohort.

    Parameters
    ----------
    table : DataFrame
        One row per series: `participant_id`, the volumes of `MEASURES` (mL, NaN if missing), `group`
        ('' if unknown), `stroke` (True, False, or NaN if unknown), and optionally `withheld` (why there is
        no local map, '' if there is one), `sex` (F, M or '') and `age` (years, or NaN).
    groups : sequence of str
        In the order of comparison: differences are first - second.

    Returns
    -------
    DataFrame
        With the columns `COLUMNS`.
    """
    rows: list[dict[str, Any]] = []
    for set_name in SETS:
        series = table if set_name == 'all' else table[table['stroke'].eq(True)]
        parts = {'all': series} | {group: series[series['group'] == group] for group in groups}
        for group, part in parts.items():
            ids = {'set': set_name, 'group': group}
            for comparison, row in _describe_group(part):
                rows.append(ids | {'comparison': comparison} | row)
        for first, second in itertools.combinations(groups, 2):
            ids = {'set': set_name, 'group': f'{first} - {second}'}
            for comparison, row in _compare_groups(parts[first], parts[second]):
                rows.append(ids | {'comparison': comparison} | row)
    # evident stroke selected the second set: how many have it is meaningless there
    rows = [
        row
        for row in rows
        if row['set'] == 'all' or not row['statistic'].startswith('stroke evident')
    ]
    if len(groups) < 2:
        ids = {'set': 'all', 'group': 'all', 'comparison': 'groups'}
        rows.append(ids | make_row('groups', reason='there is one group'))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def select_complete(table: pd.DataFrame) -> pd.DataFrame:
    """Select the series with two finite cores."""
    cores = table[['core_global', 'core_local']].to_numpy(float)
    return table[np.isfinite(cores).all(axis=1)]


def _cores(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    complete = select_complete(table)
    return complete['core_global'].to_numpy(float), complete['core_local'].to_numpy(float)


def _select_finite(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """Select the series that have a volume; whether they have others does not matter."""
    return table[np.isfinite(table[column].to_numpy(float))]


def _describe_repeated(series: pd.DataFrame) -> str:
    """Describe how many series are not the first of their participant, '' if none."""
    participants = series['participant_id']
    n_repeated = len(participants) - participants.nunique()
    if not n_repeated:
        return ''
    return f'{n_repeated} series are further ones of a participant, counted as independent'


def _add_reason(row: dict[str, Any], reason: str) -> dict[str, Any]:
    """Add a reason to a row with an interval or a test."""
    if reason and (row['p'] is not None or row['ci_low'] is not None):
        return row | {'reason': '; '.join(filter(None, (row['reason'], reason)))}
    return row


def _describe_group(series: pd.DataFrame) -> Iterator[tuple[str, dict[str, Any]]]:
    """Describe the cores and the patients of one group: comparison and row."""
    yield (
        'series',
        make_row(
            'number', len(series), n=len(series), method='count', reason=_describe_missing(series)
        ),
    )
    for comparison, column in MEASURES.items():
        part = _select_finite(series, column)
        repeated = _describe_repeated(part)
        for row in describe(part[column].to_numpy(float)):
            yield comparison, _add_reason(row, repeated)
    x, y = _cores(series)
    repeated = _describe_repeated(select_complete(series))
    for comparison, rows in (
        ('local on global', regress(x, y)),
        ('local - global', bland_altman(x, y) + compare_paired(x, y)),
    ):
        for row in rows:
            yield comparison, _add_reason(row, repeated)
    for row in _describe_patients(_patients(series)):
        yield 'patients', row


def _describe_missing(series: pd.DataFrame) -> str:
    """Describe how many series lack a core and are missing from rows that need it, '' if none."""
    is_withheld = series['withheld'].ne('') if 'withheld' in series else False
    no_global, no_local = (
        ~np.isfinite(series[column].to_numpy(float)) for column in ('core_global', 'core_local')
    )
    counts = {
        'local map withheld in {} series': np.count_nonzero(no_local & is_withheld),
        'no local core in {} series': np.count_nonzero(no_local & ~np.asarray(is_withheld)),
        'no global core in {} series': np.count_nonzero(no_global),
    }
    return '; '.join(text.format(count) for text, count in counts.items() if count)


def _describe_patients(patients: pd.DataFrame) -> Iterator[dict[str, Any]]:
    n = len(patients)
    yield make_row('number', n, n=n, method='count')
    for name, values in _traits(patients).items():
        if isinstance(values, str):
            yield make_row(name, reason=values)
        elif name == 'age':
            for row in describe(values):
                yield row | {'statistic': f'age, {row["statistic"]}'}
        else:
            n_unknown = n - len(values)
            reason = f'unknown in {n_unknown} patients, who are excluded' if n_unknown else ''
            for row in describe_proportion(values, name):
                yield row | {'reason': row['reason'] or reason}


def _compare_groups(
    first: pd.DataFrame, second: pd.DataFrame
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Compare the cores and the patients of two groups: comparison and row."""
    for comparison, column in MEASURES.items():
        parts = [_select_finite(group, column) for group in (first, second)]
        repeated = _describe_repeated(pd.concat(parts))
        for row in compare_samples(*(part[column].to_numpy(float) for part in parts)):
            yield comparison, _add_reason(row, repeated)
    (x1, y1), (x2, y2) = _cores(first), _cores(second)
    repeated = _describe_repeated(select_complete(pd.concat([first, second])))
    for row in compare_samples(subtract(x1, y1), subtract(x2, y2)):
        yield 'local - global', _add_reason(row, repeated)
    for row in compare_slopes((x1, y1), (x2, y2)):
        yield 'local on global', _add_reason(row, repeated)
    for row in _compare_patients(_patients(first), _patients(second)):
        yield 'patients', row


def _compare_patients(first: pd.DataFrame, second: pd.DataFrame) -> Iterator[dict[str, Any]]:
    others = _traits(second)
    for name, values in _traits(first).items():
        other_values = others[name]
        if isinstance(values, str) or isinstance(other_values, str):
            continue  # the rows of each group give the reason
        if name == 'age':
            for row in compare_samples(values, other_values):
                yield row | {'statistic': f'age, {row["statistic"]}'}
        else:
            yield from compare_proportions(values, other_values, name)


def _patients(series: pd.DataFrame) -> pd.DataFrame:
    """Make one row per participant.

    Stroke is evident if it is in any series, absent if it is absent in all, and otherwise unknown.
    """
    patients = series.drop_duplicates('participant_id').copy()
    participants = series['participant_id']
    yes, no = (series['stroke'].eq(value).groupby(participants) for value in (True, False))
    stroke = yes.any().astype(object).where(yes.any() | no.all(), math.nan)
    patients['stroke'] = patients['participant_id'].map(stroke).astype(object)
    return patients


def _traits(patients: pd.DataFrame) -> dict[str, np.ndarray | str]:
    """Return the known values of each trait, or the reason why there are none."""
    traits: dict[str, np.ndarray | str] = {}
    if 'sex' in patients:
        sexes = patients['sex'][patients['sex'].isin(['F', 'M'])]
        traits['female'] = (sexes == 'F').to_numpy()
    else:
        traits['female'] = 'there is no column sex'
    if 'age' in patients:
        ages = patients['age'].to_numpy(float)
        traits['age'] = ages[np.isfinite(ages)]
    else:
        traits['age'] = 'there is no column age'
    traits['stroke evident'] = patients['stroke'].dropna().to_numpy(bool)
    return traits
