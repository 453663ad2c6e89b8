# SPDX-License-Identifier: Apache-2.0
"""Tab-separated tables as text, so that numbers keep their digits."""

import csv
import io
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ctpprep.exceptions import SeriesError, UsageError
from ctpprep.io.files import read_text, write_atomically

#: Text of a missing cell.
MISSING = 'n/a'


@dataclass
class Table:
    """A table of text cells; each row has as many cells as the header."""

    header: list[str]
    rows: list[list[str]]

    def column_indices(self) -> dict[str, int]:
        """Map each column name to its index."""
        return {column: index for index, column in enumerate(self.header)}


def parse_number(text: str) -> float:
    """Parse a cell as a number; NaN if it is not one, or not finite.

    Examples
    --------
    >>> parse_number('1.5'), parse_number('inf'), parse_number('n/a')
    (1.5, nan, nan)
    """
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


def read_table(path: Path, encoding: str = 'utf-8') -> Table:
    """Read a tab-separated table.

    BIDS tables have no quoting: a quote in a cell is an ordinary character.

    Raises
    ------
    SeriesError
        If the file cannot be read or has no rows, or if a row is longer or shorter than the header.
    """
    try:
        stream = io.StringIO(read_text(path, SeriesError, path.name, encoding), newline='')
        reader = csv.reader(stream, 'excel-tab', quoting=csv.QUOTE_NONE)
        # interning: most cells of a cohort repeat a few strings
        lines = [(reader.line_num, [sys.intern(cell) for cell in line]) for line in reader if line]
    except csv.Error as error:
        raise SeriesError(f'{path.name} cannot be read ({error})') from error
    if len(lines) < 2:
        raise SeriesError(f'{path.name} has no rows; it needs a header and at least one row')
    (_, header), *rows = lines
    for line_number, cells in rows:
        if len(cells) != len(header):
            raise SeriesError(
                f'{path.name}, line {line_number}: found {len(cells)} cells, need {len(header)}, '
                'one for each column of the header'
            )
    return Table(header, [cells for _, cells in rows])


def write_table(table: Table, path: Path) -> None:
    """Write a table atomically.

    Tabs and line breaks inside a cell become spaces, since BIDS tables have no quoting.

    Raises
    ------
    UsageError
        If the folder is not writable.
    """

    def write(partial: Path) -> None:
        with partial.open('w', encoding='utf-8', newline='') as stream:
            stream.writelines(f'{_format_line(cells)}\n' for cells in (table.header, *table.rows))

    try:
        write_atomically(write, path)
    except OSError as error:
        raise UsageError(f'cannot write to {path.parent} ({error.strerror})') from error


def _format_line(cells: Sequence[str]) -> str:
    line = '\t'.join(cells)
    if line.count('\t') < len(cells) and '\n' not in line and '\r' not in line:
        return line
    return '\t'.join(re.sub(r'[\t\r\n]+', ' ', cell) for cell in cells)
