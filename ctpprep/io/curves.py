# SPDX-License-Identifier: Apache-2.0
"""Read tables of arterial and venous curves that a user supplies."""

import csv
import io
import math
from itertools import pairwise
from pathlib import Path

from ctpprep.exceptions import SeriesError
from ctpprep.io.files import read_text

LEAST_SAMPLES = 5
MISSING = ('n/a', '', 'nan')


def read_curves(path: Path) -> dict[str, list[float]]:
    """Read a supplied AIF, and a VOF if there is one.

    Parameters
    ----------
    path : Path
        Tab-separated table with the columns time (s) and aif (HU above baseline), and optionally
        vof, which is ignored if all its values are n/a.

    Returns
    -------
    dict of str to list of float
        ``time``, ``aif`` and, if available, ``vof``.

    Raises
    ------
    SeriesError
        When a column is missing, a cell is not a number, or times do not increase.
    """
    name = path.name
    text = read_text(path, SeriesError, name)
    try:
        rows = list(csv.DictReader(io.StringIO(text, newline=''), delimiter='\t'))
    except csv.Error as error:
        raise SeriesError(f'{name} cannot be read as a table ({error})') from error
    columns = list(rows[0]) if rows else []
    for column in ('time', 'aif'):
        if column not in columns:
            shown = ', '.join(map(str, columns)) or 'none'
            raise SeriesError(
                f'{name} has no column {column} (columns found: {shown}), need a tab-separated '
                'table with the columns time (s) and aif (HU above baseline)'
            )
    curves = {column: _read_column(rows, column, name) for column in ('time', 'aif')}
    if 'vof' in columns and any((row['vof'] or '').lower() not in MISSING for row in rows):
        curves['vof'] = _read_column(rows, 'vof', name)
    if len(rows) < LEAST_SAMPLES:
        raise SeriesError(
            f'{name} has {len(rows)} rows, need at least {LEAST_SAMPLES} samples of the AIF'
        )
    for line, (early, late) in enumerate(pairwise(curves['time']), start=3):
        if late <= early:
            raise SeriesError(
                f'{name}: time must increase from row to row, but is {early:g} s in line '
                f'{line - 1} and {late:g} s in line {line}'
            )
    return curves


def _read_column(rows: list[dict[str, str]], column: str, name: str) -> list[float]:
    values = []
    for line, row in enumerate(rows, start=2):
        try:
            value = float(row[column])
        except (TypeError, ValueError):
            value = math.nan
        if not math.isfinite(value):
            raise SeriesError(f'{name}: {column} in line {line} is {row[column]!r}, need a number')
        values.append(value)
    return values
