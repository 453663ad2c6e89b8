# SPDX-License-Identifier: Apache-2.0
"""Statistics of a cohort: by pencil, against a second implementation, and by what must always hold."""

import numpy as np
import pandas as pd
import pytest
from statsmodels.graphics.agreement import mean_diff_plot

from ctpprep.group.statistics import (
    COLUMNS,
    analyse,
    bland_altman,
    compare_paired,
    compare_samples,
    compare_shares,
    compare_slopes,
    describe,
    regress,
    share,
)

GLOBAL = np.array([10.0, 20.0, 30.0, 40.0])
LOCAL = np.array([6.0, 16.0, 20.0, 30.0])


def named(rows):
    return {each['statistic']: each for each in rows}


def cohort(x, y, groups, **more):
    return pd.DataFrame({
        'participant_id': [f'sub-{i}' for i in range(len(x))], 'core_global': x, 'core_local': y,
        'group': groups, 'stroke': np.asarray(x) > 0, **more,
    })  # fmt: skip


# -- by pencil


def test_regression_by_pencil():
    # sum (x-25)^2 = 500, sum (x-25)(y-18) = 380; x'y = 2180, x'x = 3000
    found = named(regress(GLOBAL, LOCAL))
    assert found['slope']['value'] == pytest.approx(380 / 500)
    assert found['intercept']['value'] == pytest.approx(18 - 0.76 * 25)
    assert found['slope through origin']['value'] == pytest.approx(2180 / 3000)
    assert found['ratio of means']['value'] == pytest.approx(72 / 100)
    # residues -0.6 1.8 -1.8 0.6; leverages 1/4 + 225/500 = 0.7 and 1/4 + 25/500 = 0.3. HC3: residues over
    # 1 - leverage are -2 18/7 -18/7 2, times x - 25: 30, -90/7, -90/7, 30; t(0.975, 2) = 4.302653
    half = 4.302653 * np.sqrt(2 * (30**2 + (90 / 7) ** 2)) / 500
    assert found['slope']['ci_low'] == pytest.approx(0.76 - half)
    assert found['slope']['ci_high'] == pytest.approx(0.76 + half)


def test_agreement_by_pencil():
    # differences -4 -4 -10 -10: mean -7, sum of squares 36, SD sqrt(12)
    found = named(bland_altman(GLOBAL, LOCAL))
    assert found['mean difference']['value'] == -7
    assert found['sd']['value'] == pytest.approx(12**0.5)
    assert found['lower limit 2 SD']['value'] == pytest.approx(-7 - 2 * 12**0.5)
    assert found['upper limit 1.96 SD']['value'] == pytest.approx(-7 + 1.96 * 12**0.5)
    # t(0.975, 3) = 3.182446
    assert found['mean difference']['ci_low'] == pytest.approx(-7 - 3.182446 * 3**0.5)


def test_wilcoxon_by_pencil():
    # differences +1 -2 -3 -4: W+ = 1 of 10; two of 16 sign patterns a side: p = 4 / 16
    found = named(compare_paired(np.zeros(4), np.array([1.0, -2.0, -3.0, -4.0])))
    assert found['wilcoxon']['value'] == 1
    assert found['wilcoxon']['p'] == pytest.approx(0.25)
    assert found['rank-biserial correlation']['value'] == pytest.approx(-0.8)


def test_equal_pairs_are_no_pairs_of_wilcoxon():
    found = named(compare_paired(np.zeros(6), np.array([1.0, -2.0, -3.0, -4.0, 0.0, 0.0])))
    assert found['wilcoxon']['n'] == found['rank-biserial correlation']['n'] == 4
    assert found['wilcoxon']['reason'] == '2 of 6 pairs are equal and left out'


def test_ties_are_counted_exactly():
    # five differences of one sign: 2 of 32 patterns; 0 0 5 all below 8 9 9: 2 of 20 arrangements
    tied = named(compare_paired(np.zeros(5), np.array([1.0, 1, 2, 3, 3])))['wilcoxon']
    assert tied['p'] == pytest.approx(0.0625)
    tied = named(compare_samples(np.array([0.0, 0, 5]), np.array([8.0, 9, 9])))['mann-whitney']
    assert tied['p'] == pytest.approx(0.1)
    assert tied['method'].endswith('exact, also with ties')


def test_samples_by_pencil():
    # 1 2 3 against 4 5 6: U = 0, one of 20 arrangements a side; variances 1, t = -3 / sqrt(2/3)
    found = named(compare_samples(np.array([1.0, 2, 3]), np.array([4.0, 5, 6])))
    assert found['mann-whitney']['value'] == 0
    assert found['mann-whitney']['p'] == pytest.approx(0.1)
    assert found['rank-biserial correlation']['value'] == -1
    assert found['difference of means']['value'] == -3
    # df 4, t(0.975, 4) = 2.776445
    assert found['difference of means']['ci_low'] == pytest.approx(-3 - 2.776445 * (2 / 3) ** 0.5)
    assert found['hedges g']['value'] == pytest.approx(-3 * (1 - 3 / 15))


def test_shares_by_pencil():
    found = named(compare_shares(np.array([True] * 3), np.array([False] * 3), 'female'))
    assert found['female, odds ratio']['p'] == pytest.approx(0.1)  # 2 of 20 tables
    assert found['female, odds ratio']['reason'] == 'a cell of the table is empty'
    # 0.025 = P(3 of the first) under the lower limit w: w^3 / (1 + 9 w + 9 w^2 + w^3)
    w = found['female, odds ratio']['ci_low']
    assert w**3 / (1 + 9 * w + 9 * w**2 + w**3) == pytest.approx(0.025)
    assert found['female, odds ratio']['ci_high'] is None
    # Wilson, 0 of 4: upper limit z^2 / (n + z^2)
    half = named(share(np.zeros(4, bool), 'female'))['female, share']
    assert half['ci_high'] == pytest.approx(1.959964**2 / (4 + 1.959964**2))


def test_difference_of_slopes_by_pencil():
    x = np.array([0.0, 1, 2, 3])
    found = named(compare_slopes((x, 2 * x + 1), (x, 0.5 * x)))
    assert found['difference of slopes']['value'] == pytest.approx(1.5)


# -- a second implementation


def test_limits_are_those_that_statsmodels_draws():
    import matplotlib.pyplot as plt

    rng = np.random.default_rng(5)
    x = rng.gamma(2, 20, 40)
    y = 0.7 * x + rng.normal(0, 4, 40)
    figure = mean_diff_plot(y, x, sd_limit=1.96)
    drawn = sorted(line.get_ydata()[0] for line in figure.axes[0].lines)
    plt.close(figure)
    found = named(bland_altman(x, y))
    mean = found['mean difference']['value']
    mine = [found[name]['value'] for name in
            ('lower limit 1.96 SD', 'mean difference', 'upper limit 1.96 SD')]  # fmt: skip
    # theirs divides by n, ours by n - 1
    assert [mean + (each - mean) * (39 / 40) ** 0.5 for each in mine] == pytest.approx(drawn)


def test_intervals_of_limits_are_those_of_bland_and_altman():
    # their worked example of peak flow meters (Lancet 1986;327:307): n 17, mean difference -2.1, SD 38.8;
    # limits -79.7 and 75.5 (2 SD), interval of the lower -114.3 to -45.1, of the mean -22.0 to 17.8
    wright = [494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427]
    mini = [512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451]
    found = named(bland_altman(np.array(mini, float), np.array(wright, float)))
    assert found['mean difference']['value'] == pytest.approx(-2.1, abs=0.05)
    assert found['mean difference']['ci_low'] == pytest.approx(-22.0, abs=0.1)
    assert found['mean difference']['ci_high'] == pytest.approx(17.8, abs=0.1)
    assert found['sd']['value'] == pytest.approx(38.8, abs=0.05)
    lower = found['lower limit 2 SD']
    assert lower['value'] == pytest.approx(-79.7, abs=0.1)
    # theirs takes 3 SD^2 / n as the variance of a limit, which is a little more
    assert lower['ci_low'] == pytest.approx(-114.3, abs=1.0)
    assert lower['ci_high'] == pytest.approx(-45.1, abs=1.0)


def test_regression_is_that_of_statsmodels():
    import statsmodels.formula.api as smf

    rng = np.random.default_rng(1)
    table = cohort(rng.gamma(2, 20, 40), 0, np.repeat(['a', 'b'], 20))
    table['core_local'] = table['core_global'] * rng.normal(0.8, 0.2, 40)
    # p of y - x on x is that of slope 1
    told = smf.ols('I(core_local - core_global) ~ core_global', table)
    told = told.fit(cov_type='HC3', use_t=True)
    x, y = table['core_global'].to_numpy(), table['core_local'].to_numpy()
    slope = named(regress(x, y))['slope']
    assert slope['value'] == pytest.approx(1 + told.params['core_global'])
    assert slope['p'] == pytest.approx(told.pvalues['core_global'])
    assert slope['ci_low'] == pytest.approx(1 + told.conf_int().loc['core_global', 0])
    told = smf.ols('core_local ~ core_global * C(group, Treatment("b"))', table)
    told = told.fit(cov_type='HC3', use_t=True)
    mine = named(compare_slopes((x[:20], y[:20]), (x[20:], y[20:])))['difference of slopes']
    assert mine['value'] == pytest.approx(told.params.iloc[3])
    assert mine['p'] == pytest.approx(told.pvalues.iloc[3])


def test_exact_p_of_ranks_is_that_of_all_permutations():
    from scipy.stats import PermutationMethod, mannwhitneyu, wilcoxon

    rng = np.random.default_rng(4)
    every = PermutationMethod(n_resamples=5000)
    for _ in range(3):
        first, second = rng.integers(0, 4, 5).astype(float), rng.integers(1, 6, 7).astype(float)
        told = mannwhitneyu(first, second, method=every).pvalue
        assert named(compare_samples(first, second))['mann-whitney']['p'] == pytest.approx(told)
        d = rng.choice([-2.0, -1, 1, 2, 3, 4], 9)
        told = wilcoxon(d, method=every).pvalue
        assert named(compare_paired(np.zeros(9), d))['wilcoxon']['p'] == pytest.approx(told)


# -- what must always hold


def test_swapping_groups_changes_signs_alone():
    rng = np.random.default_rng(2)
    first, second = rng.gamma(2, 20, 12), rng.gamma(2, 30, 9)
    there, back = (named(compare_samples(*each)) for each in ((first, second), (second, first)))
    for name in ('rank-biserial correlation', 'difference of means', 'hedges g'):
        assert there[name]['value'] == pytest.approx(-back[name]['value'])
        assert there[name]['ci_low'] == pytest.approx(
            -back[name]['ci_high'] if back[name]['ci_high'] is not None else None
        )
        assert there[name]['p'] == pytest.approx(back[name]['p'])


def test_slopes_know_no_unit_and_differences_follow_it():
    millilitres, litres = (
        named(regress(f * GLOBAL, f * LOCAL) + bland_altman(f * GLOBAL, f * LOCAL))
        for f in (1, 10)
    )
    assert litres['slope']['value'] == pytest.approx(millilitres['slope']['value'])
    assert litres['slope']['p'] == pytest.approx(millilitres['slope']['p'])
    assert litres['sd']['value'] == pytest.approx(10 * millilitres['sd']['value'])


def test_a_constant_difference_has_no_spread():
    found = named(bland_altman(GLOBAL, GLOBAL - 3))
    assert found['sd']['value'] == 0
    assert found['lower limit 2 SD']['value'] == found['upper limit 2 SD']['value'] == -3


def test_digits_below_those_of_the_tables_are_no_difference():
    x = np.array([0.1 + 0.2, 1.0, 2.0])
    found = named(compare_paired(x, np.array([0.3, 1.0, 2.0])))
    assert found['wilcoxon']['reason'] == 'local and global core are equal in every series'


# -- what cannot be had


@pytest.mark.parametrize('n', range(4))
@pytest.mark.parametrize('values', [0.0, 5.0])
@pytest.mark.filterwarnings('error')
def test_small_and_uniform_cohorts_give_reasons(n, values):
    table = cohort([values] * n, [values] * n, ['a'] * n)
    rows = analyse(table, ['a', 'b'])
    assert list(rows) == list(COLUMNS)
    missing = rows[rows['value'].isna()]
    assert len(missing) > 10
    assert (missing['reason'] != '').all()


def test_both_sets_and_all_pairs_are_there():
    rng = np.random.default_rng(3)
    x = np.where(np.arange(30) % 3 == 0, 0, rng.gamma(2, 20, 30))
    table = cohort(x, 0.8 * x, np.repeat(['a', 'b', 'c'], 10))
    rows = analyse(table, ['a', 'b', 'c'])
    assert set(rows['set']) == {'all', 'evident stroke'}
    assert set(rows['group']) == {'all', 'a', 'b', 'c', 'a - b', 'a - c', 'b - c'}
    counted = rows[(rows['set'] == 'evident stroke') & (rows['comparison'] == 'series')]
    assert list(counted['value']) == [20, 6, 7, 7]
    # by which this set was chosen
    told = rows['statistic'].str.startswith('stroke evident')
    assert set(rows['set'][told]) == {'all'}


def test_patients_are_counted_once_and_their_further_series_told():
    table = cohort([1.0, 2.0, 0.0, 5.0], [1.0, 1.0, 0.0, 4.0], ['a'] * 4, sex=['F', 'F', 'M', ''],
                   age=[70.0, 70.0, 80.0, np.nan])  # fmt: skip
    table['participant_id'] = ['sub-1', 'sub-1', 'sub-2', 'sub-3']
    rows = analyse(table, ['a'])
    found = named(
        rows[(rows['set'] == 'all') & (rows['comparison'] == 'patients')].to_dict('records')
    )
    assert found['number']['value'] == 3
    assert found['age, mean']['value'] == 75
    assert (found['female, number']['value'], found['female, number']['n']) == (1, 2)
    slope = rows[(rows['statistic'] == 'slope') & (rows['set'] == 'all')].iloc[0]
    assert slope['reason'].startswith('1 series are further ones of a participant')


def test_unknown_stroke_is_neither_yes_nor_no():
    table = cohort(GLOBAL, LOCAL, ['a', 'a', 'b', 'b'])
    table['stroke'] = pd.Series([True, np.nan, False, np.nan], dtype=object)
    rows = analyse(table, ['a', 'b'])
    share_of = rows[(rows['group'] == 'all') & (rows['statistic'] == 'stroke evident, share')]
    assert (share_of['value'].item(), share_of['n'].item()) == (0.5, 2)
    counted = rows[(rows['set'] == 'evident stroke') & (rows['comparison'] == 'series')]
    assert list(counted['value']) == [1, 1, 0]


@pytest.mark.filterwarnings('error')
def test_a_slope_that_one_series_sets_has_no_interval():
    # the leverage of the only core above 0 is 1
    found = named(regress(np.array([0.0, 0, 0, 30]), np.array([0.0, 1, 2, 20])))['slope']
    assert found['value'] == pytest.approx((20 - 1) / 30)
    assert found['ci_low'] is None
    assert found['reason'] == 'one series alone sets the slope: no interval'


def test_intervals_of_slopes_hold_where_large_cores_scatter_more():
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        x = rng.gamma(0.7, 50, 40)
        slope = named(regress(x, x * rng.normal(0.7, 0.2, 40)))['slope']
        held += slope['ci_low'] <= 0.7 <= slope['ci_high']
    assert held / 200 > 0.87  # with constant spread assumed, 0.56


def test_unknown_columns_of_patients_are_told():
    rows = named(analyse(cohort(GLOBAL, LOCAL, ['a'] * 4), ['a']).to_dict('records'))
    assert rows['age']['reason'] == 'there is no column age'
    assert rows['groups']['reason'] == 'there is one group'


def test_series_without_a_local_core_are_left_out_and_told():
    rows = analyse(cohort(GLOBAL, [6.0, 16.0, 20.0, np.nan], ['a'] * 4), ['a'])
    told = rows[rows['statistic'] == 'number'].iloc[0]
    assert told['reason'] == '1 series lack a core and are left out'
    assert rows[rows['statistic'] == 'slope'].iloc[0]['n'] == 3


def test_describing_gives_the_median():
    assert named(describe(np.array([1.0, 2.0, 9.0])))['median']['value'] == 2
