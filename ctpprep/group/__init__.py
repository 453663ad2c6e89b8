# SPDX-License-Identifier: Apache-2.0
"""The level group: tables of all series, statistics of the cohort, and a page."""

import contextlib
import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctpprep.exceptions import UsageError
from ctpprep.group.tables import MISSING, TABLES, Table
from ctpprep.settings import RunSettings

if TYPE_CHECKING:
    import pandas as pd

__all__ = ['STATISTICS', 'TABLES', 'run_group_level']

logger = logging.getLogger(__name__)

STATISTICS = 'group_statistics.tsv'


def run_group_level(run: RunSettings) -> list[Path]:
    """Write the tables of all series, the statistics and the page.

    A call beside another waits for it: tables, statistics and page are those of one call.

    Parameters
    ----------
    run : RunSettings
        The dataset, whose participants are expected, the derivatives, and the columns of `participants.tsv`.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    UsageError
        When there is not one table, a participant is not known, a named column is not there or does not
        say yes or no, or nothing can be written.
    """
    from ctpprep.group.cohort import read_participants
    from ctpprep.group.tables import check_labels
    from ctpprep.io.files import file_lock

    check_labels(run)  # before anything is written
    participants = read_participants(run)
    with contextlib.ExitStack() as stack:
        if run.output_dir.is_dir():
            try:
                stack.enter_context(file_lock(run.output_dir, 'group'))
            except OSError as error:
                raise UsageError(f'cannot write to {run.output_dir} ({error.strerror})') from error
        return _write_all(run, participants)


def _write_all(run: RunSettings, participants: 'pd.DataFrame | None') -> list[Path]:
    from ctpprep.group.cohort import make_cohort
    from ctpprep.group.page import build_page
    from ctpprep.group.statistics import COLUMNS, analyse
    from ctpprep.group.tables import collect_tables, write_table
    from ctpprep.io.files import write_json

    found, tables = collect_tables(run)
    for each in found:
        if each.state != 'succeeded':
            name = each.participant if each.series == MISSING else each.series
            logger.warning('%s: %s', name, ': '.join(dict.fromkeys((each.state, each.reason))))
    cohort = make_cohort(found, tables['group_volumes.tsv'], participants, run)
    for note in cohort.notes:
        logger.info('%s', note)
    statistics = analyse(cohort.included, cohort.groups)
    path = run.output_dir / STATISTICS
    write_table(as_text(statistics), path)
    write_json(
        {name: {'Description': words} for name, words in COLUMNS.items()},
        path.with_suffix('.json'),
    )
    page = build_page(run.output_dir, cohort, statistics, tables['group_quality.tsv'])
    return [*(run.output_dir / name for name in TABLES), path, page]


def as_text(rows: 'pd.DataFrame') -> Table:
    """Write statistics as cells: six digits, n/a for what is missing."""

    def write(cell: Any) -> str:
        if isinstance(cell, float):
            return f'{cell:.6g}' if math.isfinite(cell) else MISSING
        return MISSING if cell is None or cell == '' else str(cell)

    return Table(
        list(rows), [[write(cell) for cell in cells] for cells in rows.to_numpy(object).tolist()]
    )
