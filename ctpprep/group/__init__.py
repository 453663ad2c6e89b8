# SPDX-License-Identifier: Apache-2.0
"""The level group: tables of all series, statistics of the cohort, and a page."""

import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctpprep.group.tables import MISSING, TABLES, Table
from ctpprep.settings import RunSettings

if TYPE_CHECKING:
    import pandas as pd

__all__ = ['STATISTICS', 'TABLES', 'run_group_level']

logger = logging.getLogger(__name__)

STATISTICS = 'group_statistics.tsv'


def run_group_level(run: RunSettings) -> list[Path]:
    """Write the tables of all series, the statistics and the page.

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
        When there is not one table, a named column is not there or does not say yes or no, or nothing
        can be written.
    """
    from ctpprep.group.cohort import make_cohort, read_participants
    from ctpprep.group.tables import collect_tables, write_table
    from ctpprep.interfaces.bids import write_json
    from ctpprep.reports.group_page import build_page
    from ctpprep.statistics import COLUMNS, analyse

    participants = read_participants(run)  # before anything is written
    found, tables = collect_tables(run)
    for each in found:
        if each.state != 'succeeded':
            name = each.series if each.series in each.tables else each.participant
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
