# SPDX-License-Identifier: Apache-2.0
"""The quality checks of a series as the page lists them."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctpprep.interfaces.summary import read_verdict
from ctpprep.io.tables import read_table
from ctpprep.reports.template import format_quantity


@dataclass
class Check:
    """One quality check: its value, limit, grade and sentence, formatted."""

    name: str
    title: str
    value: str
    limit: str
    status: str
    sentence: str


def read_quality(path: Path) -> tuple[list[Check], str]:
    """Read the checks of a series, whatever their names: failed ones first.

    Parameters
    ----------
    path : Path
        One row with ``caution`` and, for each check, columns ``<check>``, ``<check>_status`` and
        ``<check>_sentence``; a JSON of the same name describes them. A value without a status is
        listed last, without a grade.

    Returns
    -------
    checks : list of Check
    caution : str
        Why local normalization is unreliable, '' if there is no reason.
    """
    rows = read_table(path)
    sidecar = path.with_suffix('.json')
    about = json.loads(sidecar.read_text(encoding='utf-8')) if sidecar.is_file() else {}
    row = rows[0] if rows else {}
    caution = row.pop('caution', '')
    row.pop('status', None)  # the worst grade, which the page derives from the checks
    names = dict.fromkeys(re.sub('_(status|sentence)$', '', column) for column in row)
    checks = [_make_check(name, row, about.get(name, {})) for name in names]
    order = ['fail', 'warn', 'pass']
    checks.sort(
        key=lambda check: order.index(check.status) if check.status in order else len(order)
    )
    return checks, caution


def tabulate_verdict(checks: dict[str, str], reason: str = '') -> dict[str, str]:
    """Tabulate the verdict on a series.

    Parameters
    ----------
    checks : dict of str to str
        The row of the quality table.
    reason : str
        Of the local core in the volume table.

    Returns
    -------
    dict of str to str
        `verdict`, `verdict_reason` and `doubtful`, the results that a failed check concerns.

    Examples
    --------
    >>> tabulate_verdict({'mirror_folding_status': 'fail', 'drift_status': 'pass'})['doubtful']
    'core_local'
    """
    verdict, explanation = read_verdict(checks, reason)
    return {
        'verdict': verdict.word,
        'verdict_reason': explanation,
        'doubtful': ', '.join(verdict.doubtful),
    }


def _make_check(name: str, row: dict[str, str], description: Any) -> Check:
    if not isinstance(description, dict):
        description = {'Description': str(description)}
    title = str(description.get('LongName') or name.replace('_', ' '))
    return Check(
        name=name,
        title=title[:1].upper() + title[1:],
        value=format_quantity(row.get(name, ''), description.get('Units', '')),
        limit=format_limit(description),
        status=row.get(f'{name}_status', ''),
        sentence=row.get(f'{name}_sentence', '') or str(description.get('Description', '')),
    )


def format_limit(description: dict[str, Any]) -> str:
    """Format the limit beyond which a check warns, from its description; '' without a limit.

    Examples
    --------
    >>> format_limit({'WarnAbove': 0.1, 'Units': 'fraction'})
    'at most 10 %'
    """
    unit = description.get('Units', '')
    bounds = (('at least', 'WarnBelow'), ('at most', 'WarnAbove'))
    return ', '.join(
        f'{word} {format_quantity(description[key], unit)}'
        for word, key in bounds
        if key in description
    )
