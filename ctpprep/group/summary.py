# SPDX-License-Identifier: Apache-2.0
"""The statistics as a readable table: one column per group or pair of groups, cells as text."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pandas as pd

#: Comparison of the differences of the two cores.
AGREEMENT = 'local - global'
#: Cell of a figure that two groups do not have.
NO_FIGURE = '–'


class Cell(NamedTuple):
    """A cell: its text, and how many series or patients it describes (None if the text is that number)."""

    text: str
    n: int | None = None


# heading of a row, and its cells
_Line = tuple[str, list[Cell]]
_FormatCell = Callable[[str], str]


class Summary:
    """Formats the figures of one set of series as cells of a table.

    Parameters
    ----------
    statistics : DataFrame
    set_name : str
    """

    def __init__(self, statistics: pd.DataFrame, set_name: str) -> None:
        self.rows: dict[tuple[str, str, str], dict[str, Any]] = {}
        groups: dict[str, None] = {}
        for row in statistics.to_dict('records'):
            if row['set'] == set_name and row['comparison'] != 'groups':
                groups[row['group']] = None
                self.rows[row['group'], row['comparison'], row['statistic']] = row
        self.groups = list(groups)

    def get(self, group: str, comparison: str, statistic: str, column: str = 'value') -> Any:
        """Return a figure, or None if it is missing."""
        value = self.rows.get((group, comparison, statistic), {}).get(column)
        return None if value is None or (isinstance(value, float) and math.isnan(value)) else value

    def reason(self, group: str, comparison: str, *statistics: str) -> str:
        """Return the reason why a figure is missing, or a dash if none is recorded."""
        reasons = (
            self.rows.get((group, comparison, statistic), {}).get('reason')
            for statistic in statistics
        )
        return next(filter(None, reasons), NO_FIGURE)

    def cell(
        self, group: str, comparison: str, statistic: str, digits: int = 1, sd: str = ''
    ) -> str:
        """Format a figure with its SD or its interval, or the reason why it is missing."""
        value = self.get(group, comparison, statistic)
        if value is None:
            return self.reason(group, comparison, statistic)
        text = format_fixed(value, digits)
        if sd and (spread := self.get(group, comparison, sd)) is not None:
            return f'{text} ({format_fixed(spread, digits)})'
        low, high = (
            self.get(group, comparison, statistic, column) for column in ('ci_low', 'ci_high')
        )
        if low is None and high is None:
            return text
        ends = (NO_FIGURE if end is None else format_fixed(end, digits) for end in (low, high))
        return f'{text} [{", ".join(ends)}]'

    def difference(
        self, pair: str, comparison: str, statistic: str, test: str = '', digits: int = 1
    ) -> str:
        """Format the difference of two groups and its p value."""
        p = self.get(pair, comparison, test or statistic, 'p')
        parts = [
            self.cell(pair, comparison, statistic, digits),
            *([] if p is None else [format_p(p)]),
        ]
        return '; '.join(parts)

    def limits(self, group: str) -> str:
        """Format the limits of agreement."""
        low, high = (self.get(group, AGREEMENT, f'{end} limit 2 SD') for end in ('lower', 'upper'))
        if low is None or high is None:
            return self.reason(group, AGREEMENT, 'lower limit 2 SD')
        return f'{format_fixed(low, 1)} to {format_fixed(high, 1)}'

    def paired_p(self, group: str) -> str:
        """Format the p value of Wilcoxon's test."""
        p = self.get(group, AGREEMENT, 'wilcoxon', 'p')
        return self.cell(group, AGREEMENT, 'wilcoxon') if p is None else format_p(p)

    def count(self, group: str, trait: str) -> str:
        """Format how many patients have a trait."""
        number, proportion = (
            self.get(group, 'patients', f'{trait}, {statistic}')
            for statistic in ('number', 'share')
        )
        if number is None:
            return self.reason(group, 'patients', f'{trait}, number', trait)
        return f'{number:.0f} ({100 * proportion:.0f} %)'

    def age(self, group: str) -> str:
        """Format the mean age."""
        if self.get(group, 'patients', 'age, mean') is None:
            return self.reason(group, 'patients', 'age')
        return self.cell(group, 'patients', 'age, mean', sd='age, sd')

    def line(
        self,
        heading: str,
        comparison: str,
        statistics: Sequence[str],
        of_group: _FormatCell,
        of_pair: _FormatCell | None = None,
    ) -> _Line:
        """Make a line of the table: its heading, and a cell for each group and pair of groups.

        The first of `statistics` that a group or pair has gives the n of its cell; none if there are no
        statistics.
        """

        def make_cell(group: str) -> Cell:
            format_cell = of_group if (group, 'series', 'number') in self.rows else of_pair
            if format_cell is None:
                return Cell(NO_FIGURE)
            sizes = (self.get(group, comparison, statistic, 'n') for statistic in statistics)
            return Cell(format_cell(group), next((n for n in sizes if n is not None), None))

        return heading, [make_cell(group) for group in self.groups]


def summarize(
    statistics: pd.DataFrame, set_name: str
) -> tuple[list[str], list[_Line], list[_Line]]:
    """Make the table of one set of series, as in the paper, and that of its patients.

    Parameters
    ----------
    statistics : DataFrame
    set_name : str

    Returns
    -------
    groups : list of str
        Headings of the columns.
    figures, patients : list of tuple
        Heading of a row, and its cells.
    """
    summary = Summary(statistics, set_name)
    return summary.groups, _figures(summary), _patients(summary, with_stroke=set_name == 'all')


def _figures(summary: Summary) -> list[_Line]:
    """Make the lines that compare the two normalizations."""
    line, cell, difference, slopes = (
        summary.line, summary.cell, summary.difference, 'local on global'
    )  # fmt: skip

    def means(heading: str, comparison: str, mean: str = 'mean') -> _Line:
        return line(
            f'{heading}, mL: mean (SD)', comparison, (mean, 'difference of means'),
            lambda group: cell(group, comparison, mean, sd='sd'),
            lambda pair: difference(pair, comparison, 'difference of means', 'mann-whitney'),
        )  # fmt: skip

    def slope(heading: str, name: str, comparison_of_pair: str) -> _Line:
        return line(
            heading, slopes, (name, comparison_of_pair),
            lambda group: cell(group, slopes, name, 2),
            lambda pair: difference(pair, slopes, comparison_of_pair, digits=2),
        )  # fmt: skip

    def effect(group: str) -> str:
        return cell(group, AGREEMENT, 'rank-biserial correlation', 2)

    return [
        line('Series', 'series', (), lambda group: cell(group, 'series', 'number', 0)),
        means('Core global', 'core global'),
        means('Core local', 'core local'),
        means('Hypoperfusion', 'hypoperfusion'),
        means('Mismatch, global core', 'mismatch global'),
        means('Mismatch, local core', 'mismatch local'),
        means('Local - global', AGREEMENT, 'mean difference'),
        line('Limits of agreement (2 SD), mL', AGREEMENT, ('lower limit 2 SD',), summary.limits),
        line('Wilcoxon, local and global', AGREEMENT, ('wilcoxon',), summary.paired_p),
        line('Effect size (rank-biserial)', AGREEMENT, ('rank-biserial correlation',), effect, effect),
        slope('Slope of local on global [95 % CI]', 'slope', 'difference of slopes'),
        line('Its intercept, mL', slopes, ('intercept',), lambda group: cell(group, slopes, 'intercept')),
        slope('Slope through the origin [95 % CI]', 'slope through origin',
              'difference of slopes through origin'),
        line('Mean local / mean global core', slopes, ('ratio of means',),
             lambda group: cell(group, slopes, 'ratio of means', 2)),
    ]  # fmt: skip


def _patients(summary: Summary, with_stroke: bool) -> list[_Line]:
    """Make the lines that describe the patients."""

    def proportion(heading: str, trait: str) -> _Line:
        return summary.line(
            heading, 'patients', (f'{trait}, number', trait, f'{trait}, odds ratio'),
            lambda group: summary.count(group, trait),
            lambda pair: summary.difference(pair, 'patients', f'{trait}, odds ratio', digits=2),
        )  # fmt: skip

    lines = [
        summary.line('Patients', 'patients', (),
                     lambda group: summary.cell(group, 'patients', 'number', 0)),
        proportion('Female', 'female'),
        summary.line('Age, years: mean (SD)', 'patients',
                     ('age, mean', 'age', 'age, difference of means'), summary.age,
                     lambda pair: summary.difference(pair, 'patients', 'age, difference of means')),
    ]  # fmt: skip
    return [*lines, proportion('Stroke evident', 'stroke evident')] if with_stroke else lines


def format_fixed(value: float, digits: int) -> str:
    """Format a number with fixed decimals, and 0 without a sign.

    Examples
    --------
    >>> format_fixed(-0.04, 1), format_fixed(-0.06, 1)
    ('0.0', '-0.1')
    """
    return f'{round(value, digits) + 0.0:.{digits}f}'


def format_short(value: float | None) -> str:
    """Format a number with four significant digits; '' if it is missing.

    Examples
    --------
    >>> format_short(12.3456), format_short(0.00001234), format_short(float('nan'))
    ('12.35', '1.234e-05', '')
    """
    return '' if value is None or math.isnan(value) else f'{value:.4g}'


def format_p(p: float) -> str:
    """Format a p value.

    Examples
    --------
    >>> format_p(0.00002), format_p(0.0312)
    ('p < 0.001', 'p = 0.031')
    """
    return 'p < 0.001' if p < 0.001 else f'p = {p:.3f}'
