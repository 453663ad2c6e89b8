# SPDX-License-Identifier: Apache-2.0
"""Collect the tables of all participants: group_volumes.tsv and group_quality.tsv."""

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ctpprep.dataset import entities
from ctpprep.exceptions import UsageError
from ctpprep.settings import RunSettings

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

# table of the group: ending of the series' tables
TABLES = {
    'group_volumes.tsv': '_seg-perfusion_morph.tsv',
    'group_quality.tsv': '_desc-qualitycontrol_ctp.tsv',
}


def collect_tables(run: RunSettings) -> list[Path]:
    """Put the tables of all series below one another.

    Each row begins with `participant_id`, `session_id` (n/a without sessions) and `series`.
    Participants without a table are named on the terminal, with what is known about why.

    Parameters
    ----------
    run : RunSettings
        The dataset, whose participants are expected, and the derivatives.

    Returns
    -------
    list of Path
        The tables written; a table that no series has is left out.

    Raises
    ------
    UsageError
        When there is not one table, or a table cannot be read.
    """
    written = []
    for name, ending in TABLES.items():
        files = [
            path
            for path in sorted(run.output_dir.glob(f'sub-*/**/*{ending}'))
            if _is_wanted(path, run)
        ]
        if not files:
            logger.warning('no series has a table *%s', ending)
            continue
        for participant, reason in find_missing(run, files).items():
            logger.warning('%s is not in %s: %s', participant, name, reason)
        written.append(write_table(join_tables(files, ending), run.output_dir / name))
    if not written:
        raise UsageError(
            f'no tables of participants in {run.output_dir}; run the level participant first'
        )
    return written


def _is_wanted(path: Path, run: RunSettings) -> bool:
    """Tell whether a table is of the participants, sessions and runs that were asked for."""
    labels = entities(path)
    wanted = {'sub': run.participant_label, 'ses': run.session_label, 'run': run.run_label}
    # runs count whatever their leading zeros
    return all(
        labels.get(key, '').lstrip('0' if key == 'run' else '')
        in [each.removeprefix(f'{key}-').lstrip('0' if key == 'run' else '') for each in named]
        for key, named in wanted.items()
        if named
    )


def find_missing(run: RunSettings, files: list[Path]) -> dict[str, str]:
    """Name the participants, of the dataset or begun, without a table, and tell why.

    Returns
    -------
    dict
        Reason by participant, such as {'sub-02': 'failed, see sub-02/log/.../crash-...txt'}.
    """
    wanted = {f'sub-{label.removeprefix("sub-")}' for label in run.participant_label}
    known = {
        path.name
        for folder in (run.bids_dir, run.output_dir)
        for path in folder.glob('sub-*')
        if path.is_dir()
    }
    having = {path.name.split('_')[0] for path in files}
    missing = {}
    for participant in sorted((wanted or known) - having):
        crashes = (run.output_dir / participant).glob('log/*/crash-*')
        latest = max(crashes, key=os.path.getmtime, default=None)
        missing[participant] = (
            f'failed, see {latest.relative_to(run.output_dir)}' if latest else 'not processed'
        )
    return missing


def join_tables(files: list[Path], ending: str) -> 'pd.DataFrame':
    """Read tables as text, so that no number changes its digits, and join their rows."""
    import pandas as pd

    tables = []
    for path in files:
        try:
            table = pd.read_csv(path, sep='\t', dtype=str, keep_default_na=False)
        except (OSError, ValueError) as error:
            raise UsageError(f'the table {path} cannot be read ({error})') from error
        prefix = path.name.removesuffix(ending)
        session = next((part for part in prefix.split('_') if part.startswith('ses-')), 'n/a')
        ids = {'participant_id': prefix.split('_')[0], 'session_id': session, 'series': prefix}
        table = table.drop(columns=[column for column in ids if column in table])
        for place, (column, value) in enumerate(ids.items()):
            table.insert(place, column, value)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def write_table(table: 'pd.DataFrame', path: Path) -> Path:
    """Write a table and put it in place at once: a reader never sees half of it."""
    from ctpprep.interfaces.bids import put_in_place

    how = {'sep': '\t', 'index': False, 'na_rep': 'n/a', 'lineterminator': '\n'}
    try:
        put_in_place(lambda partial: table.to_csv(partial, **how), path)
    except OSError as error:
        raise UsageError(f'cannot write to {path.parent} ({error.strerror})') from error
    return path
