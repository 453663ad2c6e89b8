# SPDX-License-Identifier: Apache-2.0
"""The group level: tables of all series, statistics of the cohort, and a page.

`series` finds the series, `tables` joins their tables, `participants` and `cohort` add the columns of
`participants.tsv`, `statistics` computes, `page` writes the page.
"""

import contextlib
import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctpprep.exceptions import UsageError
from ctpprep.group.series import TABLES
from ctpprep.group.tsv import MISSING, Table, write_table
from ctpprep.settings import RunSettings

if TYPE_CHECKING:
    import pandas as pd

__all__ = ['LOCATIONS', 'STATISTICS', 'TABLES', 'run_group_level']

logger = logging.getLogger(__name__)

STATISTICS = 'group_statistics.tsv'
LOCATIONS = 'group_locations.tsv'


def run_group_level(run: RunSettings) -> list[Path]:
    """Write the tables of all series, the statistics and the page.

    Concurrent calls take turns, so that tables, statistics and page are of one call.

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
        If no series has a table, a participant is unknown, a column is missing or has values other than
        yes and no where these are needed, or the output folder is not writable.
    """
    from ctpprep.group.participants import read_participants
    from ctpprep.group.series import check_participant_labels
    from ctpprep.io.files import file_lock

    check_participant_labels(run)  # before anything is written
    participants = read_participants(run)
    with contextlib.ExitStack() as stack:
        if run.output_dir.is_dir():
            try:
                stack.enter_context(file_lock(run.output_dir, 'group'))
            except OSError as error:
                raise UsageError(f'cannot write to {run.output_dir} ({error.strerror})') from error
        return _write_outputs(run, participants)


def _write_outputs(run: RunSettings, participants: 'pd.DataFrame | None') -> list[Path]:
    import pandas as pd

    from ctpprep.group.cohort import make_cohort
    from ctpprep.group.followup_page import write_followup
    from ctpprep.group.locate import locate_lesions
    from ctpprep.group.page import build_page
    from ctpprep.group.rows import COLUMNS
    from ctpprep.group.statistics import analyze
    from ctpprep.group.tables import collect_tables
    from ctpprep.io.files import write_json

    records, tables = collect_tables(run)
    for record in records:
        if record.state != 'succeeded':
            name = record.participant if record.prefix == MISSING else record.prefix
            # a participant who was not processed has the same word as state and reason
            logger.warning('%s: %s', name, ': '.join(dict.fromkeys((record.state, record.reason))))
    cohort = make_cohort(records, tables['group_volumes.tsv'], participants, run)
    for note in cohort.notes:
        logger.info('%s', note)
    statistics = analyze(cohort.included, cohort.groups)
    located = locate_lesions(run, cohort, tables['group_volumes.tsv'])
    written = {STATISTICS: statistics}
    if located is not None:
        written[LOCATIONS] = pd.DataFrame(located.rows, columns=list(COLUMNS))
    for name, table in written.items():
        write_table(format_statistics(table), run.output_dir / name)
        about = {column: {'Description': text} for column, text in COLUMNS.items()}
        write_json(about, (run.output_dir / name).with_suffix('.json'))
    followup = write_followup(records, cohort, run)
    page = build_page(run.output_dir, cohort, statistics, tables['group_quality.tsv'], located)
    paths = [*(run.output_dir / name for name in (*TABLES, *written)), *followup]
    return [*paths, *([located.folder] if located is not None else []), page]


def format_statistics(statistics: 'pd.DataFrame') -> Table:
    """Format statistics as text: six significant digits, n/a for missing values."""

    def format_cell(cell: Any) -> str:
        if isinstance(cell, float):
            return f'{cell:.6g}' if math.isfinite(cell) else MISSING
        return MISSING if cell is None or cell == '' else str(cell)

    rows = statistics.to_numpy(object).tolist()
    return Table(list(statistics), [[format_cell(cell) for cell in cells] for cells in rows])
