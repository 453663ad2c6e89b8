# SPDX-License-Identifier: Apache-2.0
"""Regression of local on global core: hand calculation, statsmodels, coverage of intervals."""

import numpy as np
import pytest

from ctpprep.group.regression import compare_slopes, regress

GLOBAL = np.array([10.0, 20.0, 30.0, 40.0])
LOCAL = np.array([6.0, 16.0, 20.0, 30.0])


def by_name(rows):
    return {row['statistic']: row for row in rows}


def test_regression_matches_hand_calculation():
    # sum (x-25)^2 = 500, sum (x-25)(y-18) = 380; x'y = 2180, x'x = 3000
    rows = by_name(regress(GLOBAL, LOCAL))
    assert rows['slope']['value'] == pytest.approx(380 / 500)
    assert rows['intercept']['value'] == pytest.approx(18 - 0.76 * 25)
    assert rows['slope through origin']['value'] == pytest.approx(2180 / 3000)
    assert rows['ratio of means']['value'] == pytest.approx(72 / 100)
    # residuals -0.6 1.8 -1.8 0.6; leverages 1/4 + 225/500 = 0.7 and 1/4 + 25/500 = 0.3. HC3: residuals over
    # 1 - leverage are -2 18/7 -18/7 2, times x - 25: 30, -90/7, -90/7, 30; t(0.975, 2) = 4.302653
    half_width = 4.302653 * np.sqrt(2 * (30**2 + (90 / 7) ** 2)) / 500
    assert rows['slope']['ci_low'] == pytest.approx(0.76 - half_width)
    assert rows['slope']['ci_high'] == pytest.approx(0.76 + half_width)


def test_difference_of_slopes_matches_hand_calculation():
    x = np.array([0.0, 1, 2, 3])
    rows = by_name(compare_slopes((x, 2 * x + 1), (x, 0.5 * x)))
    assert rows['difference of slopes']['value'] == pytest.approx(1.5)


def test_regression_matches_statsmodels():
    import pandas as pd
    import statsmodels.formula.api as smf

    rng = np.random.default_rng(1)
    x = rng.gamma(2, 20, 40)
    y = x * rng.normal(0.8, 0.2, 40)
    table = pd.DataFrame({'x': x, 'y': y, 'group': np.repeat(['a', 'b'], 20)})
    # p of y - x on x is that of slope 1
    fit = smf.ols('I(y - x) ~ x', table).fit(cov_type='HC3', use_t=True)
    slope = by_name(regress(x, y))['slope']
    assert slope['value'] == pytest.approx(1 + fit.params['x'])
    assert slope['p'] == pytest.approx(fit.pvalues['x'])
    assert slope['ci_low'] == pytest.approx(1 + fit.conf_int().loc['x', 0])
    fit = smf.ols('y ~ x * C(group, Treatment("b"))', table).fit(cov_type='HC3', use_t=True)
    difference = by_name(compare_slopes((x[:20], y[:20]), (x[20:], y[20:])))[
        'difference of slopes'
    ]
    assert difference['value'] == pytest.approx(fit.params.iloc[3])
    assert difference['p'] == pytest.approx(fit.pvalues.iloc[3])


def test_slope_does_not_depend_on_the_unit():
    rows, scaled = by_name(regress(GLOBAL, LOCAL)), by_name(regress(10 * GLOBAL, 10 * LOCAL))
    assert scaled['slope']['value'] == pytest.approx(rows['slope']['value'])
    assert scaled['slope']['p'] == pytest.approx(rows['slope']['p'])
    assert scaled['intercept']['value'] == pytest.approx(10 * rows['intercept']['value'])


@pytest.mark.filterwarnings('error')
def test_slope_determined_by_one_series_has_no_interval():
    # the leverage of the only core above 0 is 1
    slope = by_name(regress(np.array([0.0, 0, 0, 30]), np.array([0.0, 1, 2, 20])))['slope']
    assert slope['value'] == pytest.approx((20 - 1) / 30)
    assert slope['ci_low'] is None
    assert slope['reason'] == 'one series alone sets the slope: no interval'


def test_intervals_cover_the_slope_where_large_cores_scatter_more():
    rng = np.random.default_rng(0)
    n_covered = 0
    for _ in range(200):
        x = rng.gamma(0.7, 50, 40)
        slope = by_name(regress(x, x * rng.normal(0.7, 0.2, 40)))['slope']
        n_covered += slope['ci_low'] <= 0.7 <= slope['ci_high']
    assert n_covered / 200 > 0.87  # assuming constant spread, 0.56
