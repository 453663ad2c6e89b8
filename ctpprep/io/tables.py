# SPDX-License-Identifier: Apache-2.0
"""Tab-separated tables as rows of text, '' for missing values."""

import csv
from pathlib import Path

#: Spellings of a missing value.
MISSING = (None, '', 'n/a', 'nan', 'None')


def read_table(path: Path) -> list[dict[str, str]]:
    """Read a tab-separated table as rows of text; missing values become ''."""
    with Path(path).open(encoding='utf-8', newline='') as file:
        rows = list(csv.DictReader(file, delimiter='\t'))
    return [
        {name: '' if text in MISSING else text for name, text in row.items() if name}
        for row in rows
    ]
