# SPDX-License-Identifier: Apache-2.0
"""Regression of local on global core; intervals and p values by HC3 (decision 0025)."""

from typing import Any

import numpy as np
from scipy import stats

from ctpprep.group.rows import LEVEL, MIN_SERIES, TOO_FEW, make_row, missing_rows

HC3 = 'interval and p by HC3 (doi:10.1016/0304-4076(85)90158-7), which lets the spread differ'
LINE = f'ordinary least squares with intercept; {HC3}; assumes a line'
ORIGIN = f'least squares through the origin; {HC3}; assumes a line'
FULL_LEVERAGE = 'one series alone sets the slope: no interval'


def regress(x: np.ndarray, y: np.ndarray) -> list[dict[str, Any]]:
    """Regress `y` on `x`, with intercept and through the origin.

    Parameters
    ----------
    x, y : (N,) arrays
        Global and local core, mL.

    Returns
    -------
    list of dict
        Rows `slope`, `intercept`, `r_squared`, `slope through origin`, `ratio of means`. The p value of a
        slope tests a slope of 1, where both normalizations agree. Coefficients are those of ordinary
        regression; their intervals remain valid where large cores scatter more.
    """
    return [*_regress_line(x, y), _regress_through_origin(x, y), _ratio_of_means(x, y)]


def _regress_line(x: np.ndarray, y: np.ndarray) -> list[dict[str, Any]]:
    n = len(x)
    if n < MIN_SERIES or np.ptp(x) == 0:
        reason = TOO_FEW if n < MIN_SERIES else 'all global cores are alike'
        return missing_rows(('slope', 'intercept', 'r_squared'), n, LINE, reason)
    fit = fit_least_squares(y, with_constant(x))
    varies = np.ptp(y) > 0
    return [
        coefficient_row('slope', fit, 1, 1.0, n, f'{LINE}; p: slope 1'),
        coefficient_row('intercept', fit, 0, 0.0, n, f'{LINE}; p: intercept 0'),
        make_row('r_squared', fit.rsquared if varies else None, n=n,
                 method='share of variance that the line explains',
                 reason='' if varies else 'all local cores are alike'),
    ]  # fmt: skip


def _regress_through_origin(x: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    name, n = 'slope through origin', len(x)
    if n < MIN_SERIES or not x.any():
        reason = TOO_FEW if n < MIN_SERIES else 'all global cores are 0'
        return make_row(name, n=n, method=ORIGIN, reason=reason)
    fit = fit_least_squares(y, x[:, None])
    return coefficient_row(name, fit, 0, 1.0, n, f'{ORIGIN}; p: slope 1')


def _ratio_of_means(x: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    name, n = 'ratio of means', len(x)
    method = 'mean of local over mean of global core; no interval'
    if not n or x.mean() == 0:
        reason = 'all global cores are 0' if n else 'no series'
        return make_row(name, n=n, method=method, reason=reason)
    return make_row(name, y.mean() / x.mean(), n=n, method=method)


def compare_slopes(
    first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]
) -> list[dict[str, Any]]:
    """Compare the slopes of two groups: the interaction of global core and group.

    Parameters
    ----------
    first, second : tuple of (N,) arrays
        Global and local core of each group, mL.

    Returns
    -------
    list of dict
        Rows `difference of slopes` and `difference of slopes through origin`, first - second.
    """
    statistics = ('difference of slopes', 'difference of slopes through origin')
    x = np.concatenate([first[0], second[0]])
    y = np.concatenate([first[1], second[1]])
    in_first = np.repeat([1.0, 0.0], [len(first[0]), len(second[0])])
    rows = []
    for name, with_intercept, model in zip(statistics, (True, False), (LINE, ORIGIN), strict=True):
        method = f'interaction in one regression of both groups; {model}'
        intercepts = [in_first, np.ones_like(x)] if with_intercept else []
        design = np.column_stack([x * in_first, x, *intercepts])
        if min(len(first[0]), len(second[0])) < MIN_SERIES:
            reason = f'fewer than {MIN_SERIES} in a group'
            rows.append(make_row(name, n=len(x), method=method, reason=reason))
        elif np.linalg.matrix_rank(design) < design.shape[1]:
            reason = 'the global cores of a group are alike'
            rows.append(make_row(name, n=len(x), method=method, reason=reason))
        else:
            fit = fit_least_squares(y, design)
            rows.append(coefficient_row(name, fit, 0, 0.0, len(x), method))
    return rows


def with_constant(x: np.ndarray) -> np.ndarray:
    """Make the design matrix of a line: a column of ones, and x."""
    return np.column_stack([np.ones_like(x), x])


def fit_least_squares(y: np.ndarray, design: np.ndarray) -> Any:
    """Fit by least squares, with standard errors by HC3.

    HC3 divides by 1 - leverage: it is undefined where one series alone determines a coefficient.
    """
    from statsmodels.regression.linear_model import OLS

    fit = OLS(y, design).fit()
    leverage = fit.get_influence().hat_matrix_diag
    if leverage.max() > 1 - 1e-8:
        return fit
    return fit.get_robustcov_results('HC3', use_t=True)


def coefficient_row(
    statistic: str, fit: Any, index: int, null: float, n: int, method: str
) -> dict[str, Any]:
    """Make the row of a coefficient, tested against `null`; no p value if all residuals are 0."""
    value = fit.params[index]
    if fit.cov_type != 'HC3':
        return make_row(statistic, value, n=n, method=method, reason=FULL_LEVERAGE)
    error = fit.bse[index]
    scale = max(1.0, float(np.abs(fit.params).max()))
    p = None
    if error > 1e-12 * scale:
        p = float(2 * stats.t.sf(abs(value - null) / error, fit.df_resid))
    return make_row(statistic, value, fit.conf_int(1 - LEVEL)[index], p, n, method)
