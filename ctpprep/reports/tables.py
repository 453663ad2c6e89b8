# SPDX-License-Identifier: Apache-2.0
"""The tables of a series as the page reads them: rows of text, '' for missing values."""

import csv
from pathlib import Path

from ctpprep.perfusion.volumes import COLUMNS

#: Spellings of a missing value.
MISSING = (None, '', 'n/a', 'nan', 'None')


def read_table(path: Path) -> list[dict[str, str]]:
    """Read a tab-separated table as rows of text; missing values become ''."""
    with path.open(encoding='utf-8', newline='') as file:
        rows = list(csv.DictReader(file, delimiter='\t'))
    return [
        {name: '' if text in MISSING else text for name, text in row.items() if name}
        for row in rows
    ]


def read_volumes(path: Path) -> list[dict[str, str]]:
    """Read the volume table; every row has all columns that the page uses."""
    return [dict.fromkeys(COLUMNS, '') | row for row in read_table(path)]
