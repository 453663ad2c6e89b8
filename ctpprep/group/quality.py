# SPDX-License-Identifier: Apache-2.0
"""Quality of a cohort: the grades of each series, their counts by check, and series to review."""

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ctpprep.figures.palette import VERDICT_GRADES
from ctpprep.group.cohort import LOCAL_WITHHELD
from ctpprep.group.tsv import MISSING, Table, parse_number
from ctpprep.perfusion.volumes import DEFUSE3
from ctpprep.reports.template import LIGHTS, format_quantity

#: A figure is an outlier beyond so many interquartile ranges from the quartiles of the cohort (Tukey).
FENCE = 3.0
#: Minimum number of series for meaningful quartiles.
MIN_FOR_FENCE = 8
#: Checks that are a reason to review a series even if they only warn.
DISAGREEMENT = ('core_disagreement', 'core_disagreement_share')
#: Core below which DEFUSE 3 treated, mL.
CORE_LIMIT_ML = DEFUSE3['core_ml']
#: State of participants who are counted, not listed.
NOT_PROCESSED = 'not processed'
#: States of series that have results.
FINISHED = ('succeeded', 'left out', LOCAL_WITHHELD)
#: Volumes on the page, with their titles; each is described for all series that have it.
FIGURES = {
    'core_global': 'Core global',
    'core_local': 'Core local',
    'hypoperfusion': 'Hypoperfusion',
    'mismatch_global': 'Mismatch, global core',
    'mismatch_local': 'Mismatch, local core',
    'difference': 'Local - global',
}
#: What volumes are computed from; a volume is doubtful if one of these is.
BASIS = {
    'mismatch_global': ('core_global', 'hypoperfusion'),
    'mismatch_local': ('core_local', 'hypoperfusion'),
    'difference': ('core_global', 'core_local'),
}


@dataclass
class Outlier:
    """A series to review, and why."""

    series: str
    link: str
    verdict: str
    reasons: list[str]


@dataclass
class Quality:
    """The quality table of a cohort, with the titles of its checks.

    Attributes
    ----------
    table : Table
        `group_quality.tsv`.
    about : dict
        Column dictionary: `LongName` and `Units` of each check are used.
    """

    table: Table
    about: dict[str, Any]

    def __post_init__(self) -> None:
        self.index = self.table.column_indices()
        #: columns that have a grade
        self.checks = [
            column.removesuffix('_status')
            for column in self.table.header
            if column.endswith('_status') and column.removesuffix('_status') in self.index
        ]

    def title(self, check: str) -> str:
        """Return the title of a check, its name if it has none."""
        return str(self._describe(check).get('LongName', '')) or check

    def unit(self, check: str) -> str:
        """Return the unit of a check, '' if it has none."""
        return str(self._describe(check).get('Units', ''))

    def _describe(self, check: str) -> dict[str, Any]:
        description = self.about.get(check, {})
        return description if isinstance(description, dict) else {}

    def grade(self, cells: list[str], check: str) -> str:
        """Return the grade of a check in one row."""
        return cells[self.index[f'{check}_status']]


def read_quality(table: Table, dictionary: Path) -> Quality:
    """Join the quality table of the cohort and its column dictionary (JSON)."""
    return Quality(table, json.loads(dictionary.read_text(encoding='utf-8')))


def read_grades(quality: Quality) -> dict[str, dict[str, str]]:
    """Read the verdict on each series, and list its checks that fail or warn.

    Returns
    -------
    dict of dict
        By series: `verdict`, `verdict_reason`, `doubtful` and `caution`, if the table has them, and
        `checks`.
    """
    wanted = ('verdict', 'verdict_reason', 'doubtful', 'caution')
    columns: list[str] = [name for name in wanted if name in quality.index]
    grades = {}
    for cells in quality.table.rows:
        texts: dict[str, str] = {name: cells[quality.index[name]] for name in columns}
        row = {name: '' if text == MISSING else text for name, text in texts.items()}
        titles = {
            grade: [
                quality.title(check)
                for check in quality.checks
                if quality.grade(cells, check) == grade
            ]
            for grade in ('fail', 'warn')
        }
        row['checks'] = '; '.join(
            f'{LIGHTS[grade][1]}: {", ".join(listed)}'
            for grade, listed in titles.items()
            if listed
        )
        grades[cells[quality.index['series']]] = row
    return grades


def find_doubtful(results: str) -> list[str]:
    """List the volumes on the page that a failed check concerns.

    Parameters
    ----------
    results : str
        The column `doubtful` of the quality table.

    Examples
    --------
    >>> find_doubtful('core_local')
    ['core_local', 'mismatch_local', 'difference']
    """
    doubtful = set(results.split(', '))
    return [name for name in FIGURES if doubtful & {name, *BASIS.get(name, ())}]


def count_grades(quality: Quality) -> list[list[Any]]:
    """Count the grades of each check: title, series in which it passes, warns and fails."""
    counts = []
    for check in quality.checks:
        grades = [quality.grade(cells, check) for cells in quality.table.rows]
        counts.append(
            [quality.title(check), *(grades.count(grade) for grade in ('pass', 'warn', 'fail'))]
        )
    return sorted(counts, key=lambda count: (count[3], count[2]))


def count_verdicts(series_rows: Sequence[dict[str, Any]]) -> list[tuple[str, int]]:
    """Count the series by verdict; '' if they have none, because no run has ended."""
    counts = Counter(row['verdict'] for row in series_rows)
    return [(word, counts[word]) for word in (*VERDICT_GRADES, '')]


def count_missing(
    series_rows: Sequence[dict[str, Any]],
) -> list[tuple[str, int, list[tuple[str, int]]]]:
    """Count the series included with each volume, and all others by state.

    Returns
    -------
    list of (str, int, list of (str, int))
        Title, number of series, and state and number of all others; a single row if all volumes have
        the same counts.
    """
    figures = []
    for name, title in FIGURES.items():
        missing = Counter(
            row['state'] for row in series_rows if not row['counts'] or row[name] is None
        )
        figures.append((title, len(series_rows) - missing.total(), missing.most_common()))
    _, *counts = figures[0]
    if all(others == counts for _, *others in figures):
        return [('All volumes', *figures[0][1:])]
    return figures


def find_outliers(
    series_rows: Sequence[dict[str, Any]],
    quality: Quality,
    limits: dict[str, list[float | None]],
) -> list[Outlier]:
    """Find the series to review.

    These are series whose run gave no result, whose local map was withheld, with a check that
    fails or an unreliable local normalization, with cores that disagree (`DISAGREEMENT` warns, or
    only one core is below `CORE_LIMIT_ML`), with a check that warns and is an outlier of the cohort,
    or with local - global outside the limits of agreement of their own group.
    Participants who were not processed are not listed.

    Parameters
    ----------
    series_rows : sequence of dict
        Rows of the page.
    quality : Quality
    limits : dict
        Of each group: slope, intercept, mean difference, lower and upper limit.

    Returns
    -------
    list of Outlier
        The worst verdict first, then series with most reasons.
    """
    check_reasons = _find_check_reasons(quality)
    outliers = []
    for row in series_rows:
        if row['state'] == NOT_PROCESSED:
            continue
        reasons = [*check_reasons.get(row['series'], ()), *_find_core_reasons(row, limits)]
        if row['withheld']:
            reasons.insert(0, f'{LOCAL_WITHHELD.capitalize()}: {row["withheld"]}')
        if row['state'] not in FINISHED:
            parts = filter(None, (row['state'], row['reason']))
            reasons.insert(0, ': '.join(dict.fromkeys(parts)))
        if row['caution']:
            reasons.append(f'Local normalization is unreliable: {row["caution"]}')
        if reasons:
            outliers.append(Outlier(row['series'], row['link'], row['verdict'], reasons))
    words = ['', *VERDICT_GRADES]
    return sorted(
        outliers,
        key=lambda outlier: (
            -words.index(outlier.verdict), -len(outlier.reasons), outlier.series,
        ),
    )  # fmt: skip


def _find_check_reasons(quality: Quality) -> dict[str, list[str]]:
    """Find the checks for which to review a series: those that failed, disagree, or are outliers."""
    reasons: dict[str, list[str]] = {}
    for check in quality.checks:
        title, unit = quality.title(check), quality.unit(check)
        texts = [cells[quality.index[check]] for cells in quality.table.rows]
        values = np.array([parse_number(text) for text in texts])
        low, median, high = outlier_fence(values[np.isfinite(values)])
        for cells, text, value in zip(quality.table.rows, texts, values, strict=True):
            of_series = reasons.setdefault(cells[quality.index['series']], [])
            grade = quality.grade(cells, check)
            if grade == 'fail':
                of_series.append(f'{title}: {format_quantity(text, unit)}, fails')
            elif grade != 'warn' or math.isnan(value):
                continue
            elif check in DISAGREEMENT:
                of_series.append(f'{title}: {format_quantity(value, unit)}, warns')
            elif value < low or value > high:
                of_series.append(
                    f'{title}: {format_quantity(value, unit)}, '
                    f'the median is {format_quantity(median, unit)}'
                )
    return reasons


def _find_core_reasons(
    row: dict[str, Any], limits: dict[str, list[float | None]]
) -> Iterator[str]:
    """Find out whether the cores of a series disagree."""
    cores = [row['core_global'], row['core_local']]
    finished = row['state'] in FINISHED
    if finished and None not in cores and len({core < CORE_LIMIT_ML for core in cores}) == 2:
        yield (
            f'Global and local core lie on different sides of {CORE_LIMIT_ML:g} mL (DEFUSE 3): '
            f'{cores[0]:.1f} and {cores[1]:.1f} mL'
        )
    # the limits of all series apply where the group is unknown or too small for limits
    of_group, of_all = (limits.get(name, [None, None])[-2:] for name in (row['group'], 'all'))
    by_group = None not in of_group and row['group'] != 'all'
    bounds = of_group if by_group else of_all
    lower, upper = bounds if None not in bounds else (-math.inf, math.inf)
    is_paired = row['counts'] and row['difference'] is not None
    if is_paired and not lower <= row['difference'] <= upper:
        yield (
            f'Local - global: {row["difference"]:.1f} mL, outside of the limits of agreement of '
            f'{"its own group" if by_group else "all series"}'
        )


def outlier_fence(values: np.ndarray) -> tuple[float, float, float]:
    """Compute the bounds beyond which a value is an outlier (Tukey's outer fences), and the median.

    Parameters
    ----------
    values : (N,) array
        Finite.

    Returns
    -------
    low, median, high : float
        Infinite bounds if there are fewer than `MIN_FOR_FENCE` values, or if the quartiles coincide.

    Examples
    --------
    Quartiles 3 and 7, so 3 - 3 x 4 and 7 + 3 x 4:

    >>> [float(value) for value in outlier_fence(np.arange(1, 10))]
    [-9.0, 5.0, 19.0]
    """
    if len(values) < MIN_FOR_FENCE:
        return -math.inf, math.nan, math.inf
    lower_quartile, median, upper_quartile = np.percentile(values, [25, 50, 75])
    width = FENCE * (upper_quartile - lower_quartile) or math.inf
    return lower_quartile - width, median, upper_quartile + width
