# SPDX-License-Identifier: Apache-2.0
"""Statistics of a cohort: local beside global core, groups beside one another. Numbers in, rows out.

The analysis of Rau et al., AJNR 2024;45:277, doi:10.3174/ajnr.A8111. Each row is one figure with its
interval, its p value and the method by name. What cannot be had is a row with a reason. Which tests,
and why: decision 0025.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

#: Columns of the table of rows, with their meaning.
COLUMNS = {
    'set': 'series that count: all, or those with evident stroke',
    'group': 'participants that count: all, one group, or two groups as "first - second"',
    'comparison': 'what is looked at or compared; cores are volumes in mL',
    'statistic': 'figure in the column value',
    'value': 'the figure',
    'ci_low': 'lower limit of its 95 % confidence interval',
    'ci_high': 'upper limit',
    'p': 'two-sided p value, not adjusted for the number of tests',
    'n': 'number of series, of participants in the comparison patients, of series whose cores differ for '
    'wilcoxon and its effect size; of two groups, their sum',
    'method': 'how the figure was computed and what it assumes',
    'reason': 'why the figure is missing, or what speaks against its assumptions',
}
SETS = ('all', 'evident stroke')
LEVEL = 0.95
#: So many series together, or so few in one of two groups, have their ranks tested exactly.
MOST_EXACT, FEW_EXACT = 60, 8
#: Beside few in one group, as many are tested exactly with ties.
MOST_BESIDE_FEW = 200
#: Regression, limits of agreement and tests need as many.
LEAST = 3
FEW = f'fewer than {LEAST} series'
MEAN = "mean, interval by Student's t; assumes a nearly normal mean"
SD = 'standard deviation (n - 1)'
HC3 = 'interval and p by HC3 (doi:10.1016/0304-4076(85)90158-7), which lets the spread differ'
LINE = f'ordinary least squares with intercept; {HC3}; assumes a line'
ORIGIN = f'least squares through the origin; {HC3}; assumes a line'
ALONE = 'one series alone sets the slope: no interval'
AGREEMENT = (
    'Bland and Altman 1986, doi:10.1016/S0140-6736(86)90837-8; assumes normal differences, '
    'alike at all sizes'
)
WELCH = "Welch's t test, unequal variances; assumes nearly normal means"
HEDGES = "Hedges' g: difference of means over the pooled SD, corrected for small n"
FISHER = "conditional odds ratio (maximum likelihood), exact interval, p of Fisher's exact test"
WILSON = "share, Wilson's interval"


def row(
    statistic: str,
    value: float | None = None,
    ci: tuple[float, float] | None = None,
    p: float | None = None,
    n: int = 0,
    method: str = '',
    reason: str = '',
) -> dict[str, Any]:
    """Make one row; what is not finite is missing."""

    def known(number: Any) -> float | None:
        return float(number) if number is not None and math.isfinite(number) else None

    low, high = (None, None) if ci is None else ci
    return {
        'statistic': statistic, 'value': known(value), 'ci_low': known(low), 'ci_high': known(high),
        'p': known(p), 'n': int(n), 'method': method, 'reason': reason,
    }  # fmt: skip


def _missing(names: Sequence[str], n: int, method: str, reason: str) -> list[dict[str, Any]]:
    return [row(name, n=n, method=method, reason=reason) for name in names]


def describe(values: np.ndarray) -> list[dict[str, Any]]:
    """Describe a sample: `mean` with interval, `sd`, `median`.

    Parameters
    ----------
    values : (N,) array

    Examples
    --------
    >>> [(each['statistic'], each['value']) for each in describe(np.array([1.0, 2.0, 6.0]))]
    [('mean', 3.0), ('sd', 2.6...), ('median', 2.0)]
    """
    n = len(values)
    if n == 0:
        return _missing(('mean', 'sd', 'median'), 0, '', 'no series')
    one = '' if n > 1 else 'one series has no spread'
    sd = values.std(ddof=1) if n > 1 else math.nan
    mean = values.mean()
    return [
        row('mean', mean, _t_interval(mean, sd / math.sqrt(n), n - 1) if n > 1 else None,
            n=n, method=MEAN, reason=one),
        row('sd', sd, n=n, method=SD, reason=one),
        row('median', np.median(values), n=n, method='median'),
    ]  # fmt: skip


def _t_interval(middle: float, error: float, df: float) -> tuple[float, float]:
    half = stats.t.ppf((1 + LEVEL) / 2, df) * error
    return middle - half, middle + half


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
        slope is that of a slope of 1, where both normalizations agree. Figures are those of ordinary
        regression; their intervals hold where large cores scatter more.
    """
    n = len(x)
    with_intercept = ('slope', 'intercept', 'r_squared')
    rows = []
    if n < LEAST or np.ptp(x) == 0:
        why = FEW if n < LEAST else 'all global cores are alike'
        rows += _missing(with_intercept, n, LINE, why)
    else:
        line = _fit(y, _with_constant(x))
        rows += [
            _coefficient('slope', line, 1, 1.0, n, f'{LINE}; p: slope 1'),
            _coefficient('intercept', line, 0, 0.0, n, f'{LINE}; p: intercept 0'),
            row('r_squared', line.rsquared if np.ptp(y) > 0 else None, n=n,
                method='share of variance that the line explains',
                reason='' if np.ptp(y) > 0 else 'all local cores are alike'),
        ]  # fmt: skip
    if n < LEAST or not x.any():
        why = FEW if n < LEAST else 'all global cores are 0'
        rows += _missing(('slope through origin',), n, ORIGIN, why)
    else:
        line = _fit(y, x[:, None])
        rows.append(_coefficient('slope through origin', line, 0, 1.0, n, f'{ORIGIN}; p: slope 1'))
    method = 'mean of local over mean of global core; no interval'
    if not n or x.mean() == 0:
        why = 'all global cores are 0' if n else 'no series'
        return [*rows, *_missing(('ratio of means',), n, method, why)]
    return [*rows, row('ratio of means', y.mean() / x.mean(), n=n, method=method)]


def _with_constant(x: np.ndarray) -> np.ndarray:
    return np.column_stack([np.ones_like(x), x])


def _fit(y: np.ndarray, design: np.ndarray) -> Any:
    """Fit by least squares; errors by HC3 where no series sets a coefficient alone."""
    from statsmodels.regression.linear_model import OLS

    line = OLS(y, design).fit()
    leverage = line.get_influence().hat_matrix_diag
    if leverage.max() > 1 - 1e-8:
        return line
    return line.get_robustcov_results('HC3', use_t=True)


def _coefficient(
    name: str, line: Any, place: int, null: float, n: int, method: str
) -> dict[str, Any]:
    """Make the row of a coefficient, tested against a value; without p for a line without residues."""
    value = line.params[place]
    if line.cov_type != 'HC3':
        return row(name, value, n=n, method=method, reason=ALONE)
    error = line.bse[place]
    scale = max(1.0, float(np.abs(line.params).max()))
    p = None
    if error > 1e-12 * scale:
        p = float(2 * stats.t.sf(abs(value - null) / error, line.df_resid))
    return row(name, value, line.conf_int(1 - LEVEL)[place], p, n, method)


def bland_altman(x: np.ndarray, y: np.ndarray) -> list[dict[str, Any]]:
    """Describe the agreement of two measurements of the same.

    Parameters
    ----------
    x, y : (N,) arrays
        Global and local core, mL.

    Returns
    -------
    list of dict
        Rows `mean difference` of y - x, `sd`, `lower limit` and `upper limit` by 2 SD, as the paper draws
        them, and by 1.96 SD, and `proportional bias`: the slope of the difference on the mean of both,
        which the limits take to be 0.
    """
    n = len(x)
    names = ['mean difference', 'sd']
    names += [f'{end} limit {width} SD' for width in ('2', '1.96') for end in ('lower', 'upper')]
    if n < LEAST:
        return _missing([*names, 'proportional bias'], n, AGREEMENT, FEW)
    d = _differences(x, y)
    mean, sd = d.mean(), d.std(ddof=1)
    rows = [
        row('mean difference', mean, _t_interval(mean, sd / math.sqrt(n), n - 1), n=n, method=AGREEMENT),
        row('sd', sd, n=n, method=SD),
    ]  # fmt: skip
    for width in ('2', '1.96'):
        z = float(width)
        error = sd * math.sqrt(1 / n + z**2 / (2 * (n - 1)))
        for end, sign in (('lower', -1), ('upper', 1)):
            limit = mean + sign * z * sd
            interval = _t_interval(limit, error, n - 1)
            rows.append(row(f'{end} limit {width} SD', limit, interval, n=n, method=AGREEMENT))
    middle = (x + y) / 2
    method = f'slope of the difference on the mean of both; {LINE}'
    if np.ptp(middle) == 0:
        return [*rows, *_missing(('proportional bias',), n, method, 'all cores are alike')]
    line = _fit(d, _with_constant(middle))
    return [*rows, _coefficient('proportional bias', line, 1, 0.0, n, method)]


def _differences(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Subtract; tables have four digits: what is left below is no difference and breaks no tie."""
    return np.round(y - x, 6)


def compare_paired(x: np.ndarray, y: np.ndarray) -> list[dict[str, Any]]:
    """Test whether y differs from x in the same series: Wilcoxon's signed-rank test.

    Returns
    -------
    list of dict
        Rows `wilcoxon` (sum of the ranks of positive differences y - x) and `rank-biserial correlation`,
        from -1 (y always smaller) to 1.
    """
    d = _differences(x, y)
    n, d = len(d), d[d != 0]
    method = "Wilcoxon's signed-rank test, equal pairs left out; assumes symmetric differences"
    effect = (
        'matched-pairs rank-biserial correlation: (positive - negative) / all ranks; no interval'
    )
    names = ('wilcoxon', 'rank-biserial correlation')
    if n < LEAST or not len(d):
        why = FEW if n < LEAST else 'local and global core are equal in every series'
        return _missing(names, n, method, why)
    ranks = stats.rankdata(np.abs(d))
    positive = ranks[d > 0].sum()
    total = len(d) * (len(d) + 1) / 2
    exact = len(d) <= MOST_EXACT
    p = _exact_p(ranks, positive) if exact else stats.wilcoxon(d, method='approx').pvalue
    method += '; exact, also with ties' if exact else '; normal approximation'
    used = len(d)
    told = '' if used == n else f'{n - used} of {n} pairs are equal and left out'
    return [
        row(names[0], positive, p=p, n=used, method=method, reason=told),
        row(names[1], 2 * positive / total - 1, n=used, method=effect, reason=told),
    ]


def _exact_p(ranks: np.ndarray, found: float, size: int | None = None) -> float:
    """Test a sum of ranks against the sums of all choices of ranks, of `size` of them if it is told.

    All choices are counted, not listed: ties, which have middle ranks, cost nothing.

    Parameters
    ----------
    ranks : (N,) array
        Multiples of one half.
    found : float
    size : int, optional

    Returns
    -------
    float
        Twice the smaller tail.
    """
    doubled = np.rint(2 * ranks).astype(int)
    # by number of ranks chosen, if it counts, and their sum
    ways = np.zeros((1 if size is None else size + 1, doubled.sum() + 1))
    ways[0, 0] = 1.0
    for rank in doubled:
        with_it = ways[:, : ways.shape[1] - rank].copy()
        if size is None:
            ways[:, rank:] += with_it
        else:
            ways[1:, rank:] += with_it[:-1]
    shares = ways[-1] / ways[-1].sum()
    place = round(2 * found)
    return min(1.0, 2 * min(shares[: place + 1].sum(), shares[place:].sum()))


def compare_samples(first: np.ndarray, second: np.ndarray) -> list[dict[str, Any]]:
    """Compare two independent samples, by ranks and by means.

    Returns
    -------
    list of dict
        Rows `mann-whitney` (U of the first), `rank-biserial correlation` (1: the first always greater),
        `difference of means` (first - second), `hedges g`.
    """
    n, sizes = len(first) + len(second), (len(first), len(second))
    ranks = (
        'Mann-Whitney test; assumes that the samples differ in place alone to be read as a shift'
    )
    effect = 'rank-biserial correlation: 2 U / (n1 n2) - 1; no interval'
    names = ('mann-whitney', 'rank-biserial correlation', 'difference of means', 'hedges g')
    methods = (ranks, effect, WELCH, HEDGES)
    if min(sizes) < LEAST:
        return [
            row(name, n=n, method=method, reason=f'fewer than {LEAST} in a group')
            for name, method in zip(names, methods, strict=True)
        ]
    both = np.concatenate([first, second])
    few = min(sizes) <= FEW_EXACT
    if n <= MOST_EXACT or (few and n <= MOST_BESIDE_FEW):
        how, small = 'exact, also with ties', min(sizes)
        ranked = stats.rankdata(both)
        u = ranked[: sizes[0]].sum() - sizes[0] * (sizes[0] + 1) / 2
        of_smaller = ranked[: sizes[0]] if small == sizes[0] else ranked[sizes[0] :]
        p = _exact_p(ranked, of_smaller.sum(), small)
    else:
        how = 'exact' if few and len(np.unique(both)) == n else 'asymptotic'
        u, p = stats.mannwhitneyu(first, second, method=how)
        how = how.replace('asymptotic', 'normal approximation')
    alike = 'all values are alike' if np.ptp(both) == 0 else ''
    rows = [
        row(names[0], u, p=None if alike else p, n=n, method=f'{ranks}; {how}', reason=alike),
        row(names[1], 2 * u / (sizes[0] * sizes[1]) - 1, n=n, method=effect, reason=alike),
    ]
    difference = first.mean() - second.mean()
    if first.std() == 0 and second.std() == 0:
        return [
            *rows,
            row(names[2], difference, n=n, method=WELCH, reason='no spread in either group'),
            *_missing(names[3:], n, HEDGES, 'no spread in either group'),
        ]
    welch = stats.ttest_ind(first, second, equal_var=False)
    interval = welch.confidence_interval(LEVEL)
    df = n - 2
    pooled = math.sqrt(
        ((sizes[0] - 1) * first.var(ddof=1) + (sizes[1] - 1) * second.var(ddof=1)) / df
    )
    g = difference / pooled * (1 - 3 / (4 * df - 1))
    half = stats.norm.ppf((1 + LEVEL) / 2) * math.sqrt(n / (sizes[0] * sizes[1]) + g**2 / (2 * n))
    return [
        *rows,
        row(names[2], difference, (interval.low, interval.high), welch.pvalue, n, WELCH),
        row(names[3], g, (g - half, g + half), n=n, method=f'{HEDGES}; normal interval'),
    ]


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
    names = ('difference of slopes', 'difference of slopes through origin')
    x = np.concatenate([first[0], second[0]])
    y = np.concatenate([first[1], second[1]])
    mine = np.repeat([1.0, 0.0], [len(first[0]), len(second[0])])
    rows = []
    for name, with_intercept, how in zip(names, (True, False), (LINE, ORIGIN), strict=True):
        method = f'interaction in one regression of both groups; {how}'
        columns = [x * mine, x, *([mine, np.ones_like(x)] if with_intercept else [])]
        design = np.column_stack(columns)
        if min(len(first[0]), len(second[0])) < LEAST:
            rows.append(
                row(name, n=len(x), method=method, reason=f'fewer than {LEAST} in a group')
            )
        elif np.linalg.matrix_rank(design) < design.shape[1]:
            why = 'the global cores of a group are alike'
            rows.append(row(name, n=len(x), method=method, reason=why))
        else:
            rows.append(_coefficient(name, _fit(y, design), 0, 0.0, len(x), method))
    return rows


def share(yes: np.ndarray, name: str) -> list[dict[str, Any]]:
    """Count the participants with something: rows `<name>, number` and `<name>, share`."""
    from statsmodels.stats.proportion import proportion_confint

    n, count = len(yes), int(np.sum(yes))
    if not n:
        return _missing((f'{name}, number', f'{name}, share'), 0, WILSON, f'{name} is not known')
    interval = proportion_confint(count, n, alpha=1 - LEVEL, method='wilson')
    return [
        row(f'{name}, number', count, n=n, method='count'),
        row(f'{name}, share', count / n, interval, n=n, method=WILSON),
    ]


def compare_shares(first: np.ndarray, second: np.ndarray, name: str) -> list[dict[str, Any]]:
    """Compare how many of two groups have something: `<name>, odds ratio` with Fisher's p."""
    n = len(first) + len(second)
    named = f'{name}, odds ratio'
    if not len(first) or not len(second):
        return _missing((named,), n, FISHER, f'{name} is not known in a group')
    table = [[int(np.sum(each)), int(len(each) - np.sum(each))] for each in (first, second)]
    p = stats.fisher_exact(table).pvalue
    ratio = stats.contingency.odds_ratio(table)
    interval = ratio.confidence_interval(LEVEL)
    told = '' if np.all(table) else 'a cell of the table is empty'
    return [row(named, ratio.statistic, (interval.low, interval.high), p, n, FISHER, told)]


def analyse(table: pd.DataFrame, groups: Sequence[str]) -> pd.DataFrame:
    """Make all rows of a cohort.

    Parameters
    ----------
    table : DataFrame
        A row a series: `participant_id`, `core_global` and `core_local` (mL, NaN if missing), `group`
        ('' if not known), `stroke` (True, False, or NaN if not known), and `sex` (F, M or '') and `age`
        (years, or NaN) where they are known at all.
    groups : sequence of str
        In the order in which they are compared: differences are first - second.

    Returns
    -------
    DataFrame
        With the columns `COLUMNS`.
    """
    rows: list[dict[str, Any]] = []
    for name in SETS:
        chosen = table if name == 'all' else table[table['stroke'].eq(True)]
        parts = {'all': chosen} | {each: chosen[chosen['group'] == each] for each in groups}
        for group, part in parts.items():
            for comparison, each in _of_group(part):
                rows.append({'set': name, 'group': group, 'comparison': comparison} | each)
        for first, second in itertools.combinations(groups, 2):
            for comparison, each in _between(parts[first], parts[second]):
                rows.append(
                    {'set': name, 'group': f'{first} - {second}', 'comparison': comparison} | each
                )
    # where stroke is what was chosen by, it is no figure
    rows = [
        each
        for each in rows
        if each['set'] == 'all' or not each['statistic'].startswith('stroke evident')
    ]
    if len(groups) < 2:
        why = 'there is one group'
        rows.append(
            {'set': 'all', 'group': 'all', 'comparison': 'groups'} | row('groups', reason=why)
        )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def complete(part: pd.DataFrame) -> pd.DataFrame:
    """Keep the series that have both cores, as finite numbers."""
    cores = part[['core_global', 'core_local']].to_numpy(float)
    return part[np.isfinite(cores).all(axis=1)]


def _cores(part: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    paired = complete(part)
    return paired['core_global'].to_numpy(float), paired['core_local'].to_numpy(float)


def _doubt(part: pd.DataFrame) -> str:
    """Tell how many series are not independent of another, '' if none."""
    counted = complete(part)['participant_id']
    several = len(counted) - counted.nunique()
    if not several:
        return ''
    return f'{several} series are further ones of a participant, counted as independent'


def _with_doubt(each: dict[str, Any], doubt: str) -> dict[str, Any]:
    """Add the doubt to a row with an interval or a test."""
    if doubt and (each['p'] is not None or each['ci_low'] is not None):
        return each | {'reason': '; '.join(filter(None, (each['reason'], doubt)))}
    return each


def _of_group(part: pd.DataFrame) -> Iterator[tuple[str, dict[str, Any]]]:
    """Describe one group."""
    x, y = _cores(part)
    doubt = _doubt(part)
    left_out = len(part) - len(x)
    why = f'{left_out} series lack a core and are left out' if left_out else ''
    yield 'series', row('number', len(part), n=len(part), method='count', reason=why)
    for comparison, rows in (
        ('core global', describe(x)),
        ('core local', describe(y)),
        ('local on global', regress(x, y)),
        ('local - global', bland_altman(x, y) + compare_paired(x, y)),
    ):
        for each in rows:
            yield comparison, _with_doubt(each, doubt)
    patients = _patients(part)
    yield 'patients', row('number', len(patients), n=len(patients), method='count')
    for name, values in _traits(patients).items():
        if isinstance(values, str):
            yield 'patients', row(name, reason=values)
        elif name == 'age':
            for each in describe(values):
                yield 'patients', each | {'statistic': f'age, {each["statistic"]}'}
        else:
            unknown = len(patients) - len(values)
            told = f'not known of {unknown} patients, who do not count' if unknown else ''
            for each in share(values, name):
                yield 'patients', each | {'reason': each['reason'] or told}


def _between(first: pd.DataFrame, second: pd.DataFrame) -> Iterator[tuple[str, dict[str, Any]]]:
    """Compare two groups."""
    (x1, y1), (x2, y2) = _cores(first), _cores(second)
    doubt = _doubt(pd.concat([first, second]))
    for comparison, one, other in (
        ('core global', x1, x2),
        ('core local', y1, y2),
        ('local - global', _differences(x1, y1), _differences(x2, y2)),
    ):
        for each in compare_samples(one, other):
            yield comparison, _with_doubt(each, doubt)
    for each in compare_slopes((x1, y1), (x2, y2)):
        yield 'local on global', _with_doubt(each, doubt)
    traits = _traits(_patients(first)), _traits(_patients(second))
    for name, values in traits[0].items():
        others = traits[1][name]
        if isinstance(values, str) or isinstance(others, str):
            continue  # told with each group
        if name == 'age':
            for each in compare_samples(values, others):
                yield 'patients', each | {'statistic': f'age, {each["statistic"]}'}
        else:
            for each in compare_shares(values, others, name):
                yield 'patients', each


def _patients(part: pd.DataFrame) -> pd.DataFrame:
    """Make one row a participant: stroke is evident if it is in any series, and is not if in none."""
    found = part.drop_duplicates('participant_id').copy()
    whose = part['participant_id']
    yes, no = (part['stroke'].eq(value).groupby(whose) for value in (True, False))
    stroke = yes.any().astype(object).where(yes.any() | no.all(), math.nan)
    found['stroke'] = found['participant_id'].map(stroke).astype(object)
    return found


def _traits(patients: pd.DataFrame) -> dict[str, np.ndarray | str]:
    """List what is known of participants; a text is the reason why it is not."""
    found: dict[str, np.ndarray | str] = {}
    if 'sex' in patients:
        known = patients['sex'][patients['sex'].isin(['F', 'M'])]
        found['female'] = (known == 'F').to_numpy()
    else:
        found['female'] = 'there is no column sex'
    if 'age' in patients:
        ages = patients['age'].to_numpy(float)
        found['age'] = ages[np.isfinite(ages)]
    else:
        found['age'] = 'there is no column age'
    found['stroke evident'] = patients['stroke'].dropna().to_numpy(bool)
    return found
