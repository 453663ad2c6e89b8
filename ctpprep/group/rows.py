# SPDX-License-Identifier: Apache-2.0
"""One row of the statistics: a figure with its interval, its p value and its method."""

import math
from collections.abc import Sequence
from typing import Any

#: Columns of the statistics, with their descriptions.
COLUMNS = {
    'set': 'series included: all, or those with evident stroke',
    'group': 'participants included: all, one group, or two groups as "first - second"',
    'comparison': 'what is described or compared; cores, hypoperfusion and mismatch (hypoperfusion - '
    'core) are volumes in mL',
    'statistic': 'figure in the column value',
    'value': 'the figure',
    'ci_low': 'lower limit of its 95 % confidence interval',
    'ci_high': 'upper limit',
    'p': 'two-sided p value, not adjusted for the number of tests',
    'n': 'number of series that have the volumes of this row, of participants in the comparison patients, of '
    'series whose cores differ for wilcoxon and its effect size; of two groups, their sum',
    'method': 'how the figure was computed and what it assumes',
    'reason': 'why the figure is missing, or what speaks against its assumptions',
}
#: Level of confidence intervals.
LEVEL = 0.95
#: Minimum number of series for regression, limits of agreement and tests.
MIN_SERIES = 3
TOO_FEW = f'fewer than {MIN_SERIES} series'
SD = 'standard deviation (n - 1)'


def make_row(
    statistic: str,
    value: float | None = None,
    ci: tuple[float, float] | None = None,
    p: float | None = None,
    n: int = 0,
    method: str = '',
    reason: str = '',
) -> dict[str, Any]:
    """Make one row; numbers that are not finite become None."""

    def finite(number: Any) -> float | None:
        return float(number) if number is not None and math.isfinite(number) else None

    low, high = (None, None) if ci is None else ci
    return {
        'statistic': statistic, 'value': finite(value), 'ci_low': finite(low), 'ci_high': finite(high),
        'p': finite(p), 'n': int(n), 'method': method, 'reason': reason,
    }  # fmt: skip


def missing_rows(
    statistics: Sequence[str], n: int, method: str, reason: str
) -> list[dict[str, Any]]:
    """Make a row without value for each statistic."""
    return [make_row(statistic, n=n, method=method, reason=reason) for statistic in statistics]
