# SPDX-License-Identifier: Apache-2.0
"""Statistics of a cohort: which rows there are, which series and patients they count."""

import numpy as np
import pandas as pd
import pytest

from ctpprep.group.rows import COLUMNS
from ctpprep.group.statistics import analyze

GLOBAL = np.array([10.0, 20.0, 30.0, 40.0])
LOCAL = np.array([6.0, 16.0, 20.0, 30.0])


def by_name(rows):
    return {row['statistic']: row for row in rows.to_dict('records')}


def make_table(x, y, groups, **columns):
    return pd.DataFrame({
        'participant_id': [f'sub-{i}' for i in range(len(x))], 'core_global': x, 'core_local': y,
        'hypoperfusion': np.add(x, 40), 'mismatch_global': 40.0, 'mismatch_local': np.nan,
        'group': groups, 'stroke': np.asarray(x) > 0, **columns,
    })  # fmt: skip


@pytest.mark.parametrize('n', range(4))
@pytest.mark.parametrize('value', [0.0, 5.0])
@pytest.mark.filterwarnings('error')
def test_missing_figures_of_small_and_uniform_cohorts_have_reasons(n, value):
    rows = analyze(make_table([value] * n, [value] * n, ['a'] * n), ['a', 'b'])
    assert list(rows) == list(COLUMNS)
    missing = rows[rows['value'].isna()]
    assert len(missing) > 10
    assert (missing['reason'] != '').all()


def test_both_sets_and_all_pairs_of_groups_are_analyzed():
    rng = np.random.default_rng(3)
    x = np.where(np.arange(30) % 3 == 0, 0, rng.gamma(2, 20, 30))
    table = make_table(x, 0.8 * x, np.repeat(['a', 'b', 'c'], 10))
    rows = analyze(table, ['a', 'b', 'c'])
    assert set(rows['set']) == {'all', 'evident stroke'}
    assert set(rows['group']) == {'all', 'a', 'b', 'c', 'a - b', 'a - c', 'b - c'}
    n_series = rows[(rows['set'] == 'evident stroke') & (rows['comparison'] == 'series')]
    assert list(n_series['value']) == [20, 6, 7, 7]
    # evident stroke selected this set
    is_stroke = rows['statistic'].str.startswith('stroke evident')
    assert set(rows['set'][is_stroke]) == {'all'}


def test_patients_are_counted_once_and_repeated_series_are_noted():
    table = make_table([1.0, 2.0, 0.0, 5.0], [1.0, 1.0, 0.0, 4.0], ['a'] * 4, sex=['F', 'F', 'M', ''],
                       age=[70.0, 70.0, 80.0, np.nan])  # fmt: skip
    table['participant_id'] = ['sub-1', 'sub-1', 'sub-2', 'sub-3']
    rows = analyze(table, ['a'])
    patients = by_name(rows[(rows['set'] == 'all') & (rows['comparison'] == 'patients')])
    assert patients['number']['value'] == 3
    assert patients['age, mean']['value'] == 75
    assert (patients['female, number']['value'], patients['female, number']['n']) == (1, 2)
    slope = rows[(rows['statistic'] == 'slope') & (rows['set'] == 'all')].iloc[0]
    assert slope['reason'].startswith('1 series are further ones of a participant')


def test_unknown_stroke_is_neither_yes_nor_no():
    table = make_table(GLOBAL, LOCAL, ['a', 'a', 'b', 'b'])
    table['stroke'] = pd.Series([True, np.nan, False, np.nan], dtype=object)
    rows = analyze(table, ['a', 'b'])
    proportion = rows[(rows['group'] == 'all') & (rows['statistic'] == 'stroke evident, share')]
    assert (proportion['value'].item(), proportion['n'].item()) == (0.5, 2)
    n_series = rows[(rows['set'] == 'evident stroke') & (rows['comparison'] == 'series')]
    assert list(n_series['value']) == [1, 1, 0]


def test_missing_columns_of_patients_are_named():
    rows = by_name(analyze(make_table(GLOBAL, LOCAL, ['a'] * 4), ['a']))
    assert rows['age']['reason'] == 'there is no column age'
    assert rows['groups']['reason'] == 'there is one group'


def test_each_volume_is_described_for_all_series_that_have_it():
    table = make_table(GLOBAL, [6.0, 16.0, np.nan, np.nan], ['a'] * 4)
    table['withheld'] = ['', '', 'homologues are off', '']
    rows = analyze(table, ['a'])
    of_all = rows[(rows['set'] == 'all') & (rows['group'] == 'all')]
    number = of_all[of_all['comparison'] == 'series'].iloc[0]
    assert number['reason'] == 'local map withheld in 1 series; no local core in 1 series'
    means = of_all[of_all['statistic'] == 'mean'].set_index('comparison')
    assert means['n'].to_dict() == {
        'core global': 4, 'core local': 2, 'hypoperfusion': 4, 'mismatch global': 4,
        'mismatch local': 0,
    }  # fmt: skip
    assert means.loc['core global', 'value'] == 25
    assert means.loc['core local', 'value'] == 11
    assert of_all[of_all['statistic'] == 'slope'].iloc[0]['n'] == 2


def test_groups_are_compared_by_every_volume():
    table = make_table(np.tile(GLOBAL, 2), [*LOCAL, *(np.nan,) * 4], ['a'] * 4 + ['b'] * 4)
    rows = analyze(table, ['a', 'b'])
    pair = rows[(rows['set'] == 'all') & (rows['statistic'] == 'difference of means')]
    values = pair.set_index('comparison')[['n', 'value']]
    assert list(values.loc['hypoperfusion']) == [8, 0]
    assert list(values.loc['core global']) == [8, 0]
    assert values.loc['core local', 'n'] == 4
