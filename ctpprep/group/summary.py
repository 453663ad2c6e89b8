# SPDX-License-Identifier: Apache-2.0
"""The statistics of the group level as a table to read: words, figures, intervals, p values."""

import math
from typing import Any

import pandas as pd

# what a line tells, and its cells.
_Line = tuple[str, list[str]]
#: Of the differences of the two cores.
AGREEMENT = 'local - global'


class Summary:
    """Figures of one set of series, written as cells of a table: a column a group, or two groups.

    Parameters
    ----------
    statistics : DataFrame
    name : str
        Of the set.
    """

    def __init__(self, statistics: pd.DataFrame, name: str) -> None:
        self.rows: dict[tuple[str, str, str], dict[str, Any]] = {}
        groups: dict[str, None] = {}
        for each in statistics.to_dict('records'):
            if each['set'] == name and each['comparison'] != 'groups':
                groups[each['group']] = None
                self.rows[each['group'], each['comparison'], each['statistic']] = each
        self.groups = list(groups)

    def get(self, group: str, comparison: str, statistic: str, kind: str = 'value') -> Any:
        """Look a figure up; None if it is missing."""
        value = self.rows.get((group, comparison, statistic), {}).get(kind)
        return None if value is None or (isinstance(value, float) and math.isnan(value)) else value

    def reason(self, group: str, comparison: str, *statistics: str) -> str:
        """Tell why a figure is missing; a dash if nothing is told."""
        told = (self.rows.get((group, comparison, each), {}).get('reason') for each in statistics)
        return next(filter(None, told), '–')

    def cell(
        self, group: str, comparison: str, statistic: str, digits: int = 1, sd: str = ''
    ) -> str:
        """Write a figure with its SD or its interval, or why there is none."""
        value = self.get(group, comparison, statistic)
        if value is None:
            return self.reason(group, comparison, statistic)
        text = fixed(value, digits)
        if sd and (spread := self.get(group, comparison, sd)) is not None:
            return f'{text} ({fixed(spread, digits)})'
        low, high = (
            self.get(group, comparison, statistic, kind) for kind in ('ci_low', 'ci_high')
        )
        if low is None and high is None:
            return text
        ends = ('–' if end is None else fixed(end, digits) for end in (low, high))
        return f'{text} [{", ".join(ends)}]'

    def between(
        self, pair: str, comparison: str, statistic: str, test: str = '', digits: int = 1
    ) -> str:
        """Write what two groups differ by, and its p value."""
        p = self.get(pair, comparison, test or statistic, 'p')
        told = [
            self.cell(pair, comparison, statistic, digits),
            *([] if p is None else [show_p(p)]),
        ]
        return '; '.join(told)

    def limits(self, group: str) -> str:
        """Write the limits of agreement."""
        low, high = (self.get(group, AGREEMENT, f'{end} limit 2 SD') for end in ('lower', 'upper'))
        if low is None or high is None:
            return self.reason(group, AGREEMENT, 'lower limit 2 SD')
        return f'{fixed(low, 1)} to {fixed(high, 1)}'

    def paired_p(self, group: str) -> str:
        """Write the p value of Wilcoxon's test."""
        p = self.get(group, AGREEMENT, 'wilcoxon', 'p')
        return self.cell(group, AGREEMENT, 'wilcoxon') if p is None else show_p(p)

    def count(self, group: str, trait: str) -> str:
        """Write how many patients have a trait."""
        number, part = (
            self.get(group, 'patients', f'{trait}, {kind}') for kind in ('number', 'share')
        )
        if number is None:
            return self.reason(group, 'patients', f'{trait}, number', trait)
        return f'{number:.0f} ({100 * part:.0f} %)'

    def age(self, group: str) -> str:
        """Write the mean age."""
        if self.get(group, 'patients', 'age, mean') is None:
            return self.reason(group, 'patients', 'age')
        return self.cell(group, 'patients', 'age, mean', sd='age, sd')

    def line(self, words: str, of_one: Any, of_two: Any = None) -> _Line:
        """Write a line: what it tells, and its cells."""
        pair = of_two or (lambda group: '–')
        return words, [
            of_one(group) if (group, 'series', 'number') in self.rows else pair(group)
            for group in self.groups
        ]


def summarize(statistics: pd.DataFrame, name: str) -> tuple[list[str], list[_Line], list[_Line]]:
    """Write the table of one set of series, as the paper has it, and that of its patients.

    Parameters
    ----------
    statistics : DataFrame
    name : str
        Of the set.

    Returns
    -------
    groups : list of str
        Heads of the columns.
    figures, patients : list of tuple
        What a row tells, and its cells.
    """
    told = Summary(statistics, name)
    return told.groups, _figures(told), _patients(told, with_stroke=name == 'all')


def _figures(told: Summary) -> list[_Line]:
    """Write what the two normalizations give."""
    line, cell, between, slopes = told.line, told.cell, told.between, 'local on global'

    def means(words: str, comparison: str, mean: str = 'mean') -> _Line:
        return line(
            f'{words}, mL: mean (SD)',
            lambda g: cell(g, comparison, mean, sd='sd'),
            lambda g: between(g, comparison, 'difference of means', 'mann-whitney'),
        )

    def effect(group: str) -> str:
        return cell(group, AGREEMENT, 'rank-biserial correlation', 2)

    return [
        line('Series', lambda g: cell(g, 'series', 'number', 0)),
        means('Core global', 'core global'),
        means('Core local', 'core local'),
        means('Local - global', AGREEMENT, 'mean difference'),
        line('Limits of agreement (2 SD), mL', told.limits),
        line('Wilcoxon, local and global', told.paired_p),
        line('Effect size (rank-biserial)', effect, effect),
        line('Slope of local on global [95 % CI]', lambda g: cell(g, slopes, 'slope', 2),
             lambda g: between(g, slopes, 'difference of slopes', digits=2)),
        line('Its intercept, mL', lambda g: cell(g, slopes, 'intercept')),
        line('Slope through the origin [95 % CI]', lambda g: cell(g, slopes, 'slope through origin', 2),
             lambda g: between(g, slopes, 'difference of slopes through origin', digits=2)),
        line('Mean local / mean global core', lambda g: cell(g, slopes, 'ratio of means', 2)),
    ]  # fmt: skip


def _patients(told: Summary, with_stroke: bool) -> list[_Line]:
    """Write who the patients are."""

    def share(words: str, trait: str) -> _Line:
        return told.line(
            words,
            lambda g: told.count(g, trait),
            lambda g: told.between(g, 'patients', f'{trait}, odds ratio', digits=2),
        )

    lines = [
        told.line('Patients', lambda g: told.cell(g, 'patients', 'number', 0)),
        share('Female', 'female'),
        told.line('Age, years: mean (SD)', told.age,
                  lambda g: told.between(g, 'patients', 'age, difference of means')),
    ]  # fmt: skip
    return [*lines, share('Stroke evident', 'stroke evident')] if with_stroke else lines


def fixed(value: float, digits: int) -> str:
    """Write a figure with so many digits, and 0 without a sign.

    Examples
    --------
    >>> fixed(-0.04, 1), fixed(-0.06, 1)
    ('0.0', '-0.1')
    """
    return f'{round(value, digits) + 0.0:.{digits}f}'


def short(value: float | None) -> str:
    """Write a figure with four digits; nothing for what is missing.

    Examples
    --------
    >>> short(12.3456), short(0.00001234), short(float('nan'))
    ('12.35', '1.234e-05', '')
    """
    return '' if value is None or math.isnan(value) else f'{value:.4g}'


def show_p(p: float) -> str:
    """Write a p value.

    Examples
    --------
    >>> show_p(0.00002), show_p(0.0312)
    ('p < 0.001', 'p = 0.031')
    """
    return 'p < 0.001' if p < 0.001 else f'p = {p:.3f}'
