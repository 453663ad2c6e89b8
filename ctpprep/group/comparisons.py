# SPDX-License-Identifier: Apache-2.0
"""Samples and comparisons of samples: means, agreement, rank tests, proportions (decision 0025)."""

import math
from typing import Any

import numpy as np
from scipy import stats

from ctpprep.group.regression import LINE, coefficient_row, fit_least_squares, with_constant
from ctpprep.group.rows import LEVEL, MIN_SERIES, SD, TOO_FEW, make_row, missing_rows

#: Rank tests are exact up to so many series together, or so few in one of two groups.
MAX_EXACT, FEW_EXACT = 60, 8
#: With so few in one group, tests with ties are exact up to so many series together.
MAX_BESIDE_FEW = 200
MEAN = "mean, interval by Student's t; assumes a nearly normal mean"
AGREEMENT = (
    'Bland and Altman 1986, doi:10.1016/S0140-6736(86)90837-8; assumes normal differences, '
    'alike at all sizes'
)
WELCH = "Welch's t test, unequal variances; assumes nearly normal means"
HEDGES = "Hedges' g: difference of means over the pooled SD, corrected for small n"
FISHER = "conditional odds ratio (maximum likelihood), exact interval, p of Fisher's exact test"
WILSON = "share, Wilson's interval"


def describe(values: np.ndarray) -> list[dict[str, Any]]:
    """Describe a sample: `mean` with interval, `sd`, `median`.

    Parameters
    ----------
    values : (N,) array

    Examples
    --------
    >>> [(row['statistic'], row['value']) for row in describe(np.array([1.0, 2.0, 6.0]))]
    [('mean', 3.0), ('sd', 2.6...), ('median', 2.0)]
    """
    n = len(values)
    if n == 0:
        return missing_rows(('mean', 'sd', 'median'), 0, '', 'no series')
    reason = '' if n > 1 else 'one series has no spread'
    sd = values.std(ddof=1) if n > 1 else math.nan
    mean = values.mean()
    return [
        make_row('mean', mean, _t_interval(mean, sd / math.sqrt(n), n - 1) if n > 1 else None,
                 n=n, method=MEAN, reason=reason),
        make_row('sd', sd, n=n, method=SD, reason=reason),
        make_row('median', np.median(values), n=n, method='median'),
    ]  # fmt: skip


def _t_interval(estimate: float, error: float, df: float) -> tuple[float, float]:
    """Interval of an estimate with a standard error, by Student's t."""
    half_width = stats.t.ppf((1 + LEVEL) / 2, df) * error
    return estimate - half_width, estimate + half_width


def subtract(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Compute y - x; volumes in tables have four decimals, so smaller differences are rounding errors."""
    return np.round(y - x, 6)


def bland_altman(x: np.ndarray, y: np.ndarray) -> list[dict[str, Any]]:
    """Describe the agreement of two measurements of one quantity.

    Parameters
    ----------
    x, y : (N,) arrays
        Global and local core, mL.

    Returns
    -------
    list of dict
        Rows `mean difference` of y - x, `sd`, `lower limit` and `upper limit` by 2 SD, as the paper draws
        them, and by 1.96 SD, and `proportional bias`: the slope of the difference on the mean of both,
        which the limits assume to be 0.
    """
    n = len(x)
    statistics = ['mean difference', 'sd']
    statistics += [
        f'{end} limit {width} SD' for width in ('2', '1.96') for end in ('lower', 'upper')
    ]
    if n < MIN_SERIES:
        return missing_rows([*statistics, 'proportional bias'], n, AGREEMENT, TOO_FEW)
    differences = subtract(x, y)
    mean, sd = differences.mean(), differences.std(ddof=1)
    interval = _t_interval(mean, sd / math.sqrt(n), n - 1)
    rows = [
        make_row('mean difference', mean, interval, n=n, method=AGREEMENT),
        make_row('sd', sd, n=n, method=SD),
    ]
    for width in ('2', '1.96'):
        z = float(width)
        # variance of the mean, sd^2 / n, and of z times the SD, z^2 sd^2 / (2 (n - 1))
        error = sd * math.sqrt(1 / n + z**2 / (2 * (n - 1)))
        for end, sign in (('lower', -1), ('upper', 1)):
            limit = mean + sign * z * sd
            interval = _t_interval(limit, error, n - 1)
            rows.append(
                make_row(f'{end} limit {width} SD', limit, interval, n=n, method=AGREEMENT)
            )
    return [*rows, _proportional_bias(differences, (x + y) / 2)]


def _proportional_bias(differences: np.ndarray, means: np.ndarray) -> dict[str, Any]:
    name, n = 'proportional bias', len(differences)
    method = f'slope of the difference on the mean of both; {LINE}'
    if np.ptp(means) == 0:
        return make_row(name, n=n, method=method, reason='all cores are alike')
    fit = fit_least_squares(differences, with_constant(means))
    return coefficient_row(name, fit, 1, 0.0, n, method)


def compare_paired(x: np.ndarray, y: np.ndarray) -> list[dict[str, Any]]:
    """Test whether y differs from x in the same series, by Wilcoxon's signed-rank test.

    Returns
    -------
    list of dict
        Rows `wilcoxon` (sum of the ranks of positive differences y - x) and `rank-biserial correlation`,
        from -1 (y always smaller) to 1.
    """
    differences = subtract(x, y)
    n, differences = len(differences), differences[differences != 0]
    method = "Wilcoxon's signed-rank test, equal pairs left out; assumes symmetric differences"
    effect = (
        'matched-pairs rank-biserial correlation: (positive - negative) / all ranks; no interval'
    )
    statistics = ('wilcoxon', 'rank-biserial correlation')
    n_unequal = len(differences)
    if n < MIN_SERIES or not n_unequal:
        reason = TOO_FEW if n < MIN_SERIES else 'local and global core are equal in every series'
        return missing_rows(statistics, n, method, reason)
    ranks = stats.rankdata(np.abs(differences))
    positive = ranks[differences > 0].sum()
    total = n_unequal * (n_unequal + 1) / 2
    if n_unequal <= MAX_EXACT:
        p = _exact_rank_p(ranks, positive)
        method += '; exact, also with ties'
    else:
        p = stats.wilcoxon(differences, method='approx').pvalue
        method += '; normal approximation'
    reason = '' if n_unequal == n else f'{n - n_unequal} of {n} pairs are equal and left out'
    return [
        make_row(statistics[0], positive, p=p, n=n_unequal, method=method, reason=reason),
        make_row(statistics[1], 2 * positive / total - 1, n=n_unequal, method=effect, reason=reason),
    ]  # fmt: skip


def _exact_rank_p(ranks: np.ndarray, observed: float, size: int | None = None) -> float:
    """Test a sum of ranks against the sums of all subsets of ranks, or of all subsets of one size.

    Subsets are counted by their sum, not enumerated, so that ties (which have midranks) cost nothing.

    Parameters
    ----------
    ranks : (N,) array
        Multiples of one half.
    observed : float
        Sum of ranks.
    size : int, optional
        Size of the subsets; any size by default.

    Returns
    -------
    float
        Twice the smaller tail.
    """
    doubled = np.rint(2 * ranks).astype(int)
    # number of subsets by size (in one row if any size counts) and by doubled sum
    counts = np.zeros((1 if size is None else size + 1, doubled.sum() + 1))
    counts[0, 0] = 1.0
    for rank in doubled:
        with_rank = counts[:, : counts.shape[1] - rank].copy()
        if size is None:
            counts[:, rank:] += with_rank
        else:
            counts[1:, rank:] += with_rank[:-1]
    probabilities = counts[-1] / counts[-1].sum()
    index = round(2 * observed)
    return min(1.0, 2 * min(probabilities[: index + 1].sum(), probabilities[index:].sum()))


def compare_samples(first: np.ndarray, second: np.ndarray) -> list[dict[str, Any]]:
    """Compare two independent samples, by ranks and by means.

    Returns
    -------
    list of dict
        Rows `mann-whitney` (U of the first), `rank-biserial correlation` (1: the first always greater),
        `difference of means` (first - second), `hedges g`.
    """
    return [*_compare_ranks(first, second), *_compare_means(first, second)]


def _compare_ranks(first: np.ndarray, second: np.ndarray) -> list[dict[str, Any]]:
    n, n_first, n_smaller = len(first) + len(second), len(first), min(len(first), len(second))
    method = (
        'Mann-Whitney test; assumes that the samples differ in place alone to be read as a shift'
    )
    effect = 'rank-biserial correlation: 2 U / (n1 n2) - 1; no interval'
    statistics = ('mann-whitney', 'rank-biserial correlation')
    if n_smaller < MIN_SERIES:
        reason = f'fewer than {MIN_SERIES} in a group'
        return [
            make_row(name, n=n, method=text, reason=reason)
            for name, text in zip(statistics, (method, effect), strict=True)
        ]
    pooled = np.concatenate([first, second])
    is_small = n_smaller <= FEW_EXACT
    if n <= MAX_EXACT or (is_small and n <= MAX_BESIDE_FEW):
        algorithm = 'exact, also with ties'
        ranks = stats.rankdata(pooled)
        u = ranks[:n_first].sum() - n_first * (n_first + 1) / 2
        ranks_of_smaller = ranks[:n_first] if n_smaller == n_first else ranks[n_first:]
        p = _exact_rank_p(ranks, ranks_of_smaller.sum(), n_smaller)
    else:
        algorithm = 'exact' if is_small and len(np.unique(pooled)) == n else 'asymptotic'
        u, p = stats.mannwhitneyu(first, second, method=algorithm)
        algorithm = algorithm.replace('asymptotic', 'normal approximation')
    reason = 'all values are alike' if np.ptp(pooled) == 0 else ''
    correlation = 2 * u / (n_first * len(second)) - 1
    return [
        make_row(statistics[0], u, p=None if reason else p, n=n, method=f'{method}; {algorithm}',
                 reason=reason),
        make_row(statistics[1], correlation, n=n, method=effect, reason=reason),
    ]  # fmt: skip


def _compare_means(first: np.ndarray, second: np.ndarray) -> list[dict[str, Any]]:
    n, sizes = len(first) + len(second), (len(first), len(second))
    statistics = ('difference of means', 'hedges g')
    if min(sizes) < MIN_SERIES:
        reason = f'fewer than {MIN_SERIES} in a group'
        return [
            make_row(name, n=n, method=method, reason=reason)
            for name, method in zip(statistics, (WELCH, HEDGES), strict=True)
        ]
    difference = first.mean() - second.mean()
    if first.std() == 0 and second.std() == 0:
        reason = 'no spread in either group'
        return [
            make_row(statistics[0], difference, n=n, method=WELCH, reason=reason),
            make_row(statistics[1], n=n, method=HEDGES, reason=reason),
        ]
    welch = stats.ttest_ind(first, second, equal_var=False)
    interval = welch.confidence_interval(LEVEL)
    df = n - 2
    pooled_sd = math.sqrt(
        ((sizes[0] - 1) * first.var(ddof=1) + (sizes[1] - 1) * second.var(ddof=1)) / df
    )
    g = difference / pooled_sd * (1 - 3 / (4 * df - 1))
    error = math.sqrt(n / (sizes[0] * sizes[1]) + g**2 / (2 * n))
    half_width = stats.norm.ppf((1 + LEVEL) / 2) * error
    return [
        make_row(statistics[0], difference, (interval.low, interval.high), welch.pvalue, n, WELCH),
        make_row(statistics[1], g, (g - half_width, g + half_width), n=n,
                 method=f'{HEDGES}; normal interval'),
    ]  # fmt: skip


def describe_proportion(flags: np.ndarray, name: str) -> list[dict[str, Any]]:
    """Describe how many participants have a trait: rows `<name>, number` and `<name>, share`."""
    from statsmodels.stats.proportion import proportion_confint

    n, count = len(flags), int(np.sum(flags))
    if not n:
        statistics = (f'{name}, number', f'{name}, share')
        return missing_rows(statistics, 0, WILSON, f'{name} is not known')
    interval = proportion_confint(count, n, alpha=1 - LEVEL, method='wilson')
    return [
        make_row(f'{name}, number', count, n=n, method='count'),
        make_row(f'{name}, share', count / n, interval, n=n, method=WILSON),
    ]


def compare_proportions(first: np.ndarray, second: np.ndarray, name: str) -> list[dict[str, Any]]:
    """Compare how many of two groups have a trait: `<name>, odds ratio` with Fisher's p."""
    n = len(first) + len(second)
    statistic = f'{name}, odds ratio'
    if not len(first) or not len(second):
        return missing_rows((statistic,), n, FISHER, f'{name} is not known in a group')
    table = [[int(np.sum(flags)), int(len(flags) - np.sum(flags))] for flags in (first, second)]
    p = stats.fisher_exact(table).pvalue
    ratio = stats.contingency.odds_ratio(table)
    interval = ratio.confidence_interval(LEVEL)
    reason = '' if np.all(table) else 'a cell of the table is empty'
    return [
        make_row(statistic, ratio.statistic, (interval.low, interval.high), p, n, FISHER, reason)
    ]
