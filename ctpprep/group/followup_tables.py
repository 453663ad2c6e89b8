# SPDX-License-Identifier: Apache-2.0
"""Collect the agreement of all series with their follow-up lesions.

The tables of the series are stacked line by line, since a cohort has hundreds of rows a series; what
the statistics need is kept as arrays.
"""

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pandas as pd

from ctpprep.exceptions import SeriesError
from ctpprep.group.cohort import Cohort
from ctpprep.group.series import SeriesRecord
from ctpprep.group.tsv import MISSING, Table, parse_number, read_table
from ctpprep.io.files import write_atomically
from ctpprep.perfusion.followup import COLUMNS

logger = logging.getLogger(__name__)

#: Name of the stacked table, and ending of the tables of the series.
NAME, ENDING = 'group_followup.tsv', '_desc-followup_morph.tsv'
#: Figures of a threshold.
FIGURES = ('volume_ml', 'difference_ml', 'dice', 'sensitivity', 'specificity', 'precision')
#: Maps with a normalization are pairs; Tmax has none.
MAPS = (('rcbf', 'global'), ('rcbf', 'local'), ('tmax', MISSING))
REGIONS = ('brain', 'hemisphere', 'hypoperfusion')


@dataclass(frozen=True)
class Curves:
    """Figures of a map over its thresholds.

    Attributes
    ----------
    thresholds : (K,) array
    values : dict of str to (N, K) array
        One row per participant, by the names of `FIGURES`; NaN if missing.
    """

    thresholds: np.ndarray
    values: dict[str, np.ndarray]


@dataclass(frozen=True)
class FollowUps:
    """The participants with a follow-up lesion.

    Attributes
    ----------
    table : DataFrame
        One row per participant: `participant_id`, `series`, `group`, `reperfused` (True, False or NaN)
        and `followup_ml`.
    curves : dict of (str, str) to Curves
        By quantity and normalization: segmented lesions.
    voxels : dict of (str, str) to Curves
        The same of voxels, not cleaned, for ROC curves.
    areas : dict of (str, str, str) to (N,) array
        Areas under the ROC curve by quantity, normalization and region.
    brier : dict of str to (N,) array
        By normalization.
    notes : list of str
        What was left out, and why.
    """

    table: pd.DataFrame
    curves: dict[tuple[str, str], Curves]
    voxels: dict[tuple[str, str], Curves]
    areas: dict[tuple[str, str, str], np.ndarray]
    brier: dict[str, np.ndarray]
    notes: list[str] = field(default_factory=list)


def collect_followups(
    records: Sequence[SeriesRecord], cohort: Cohort, output_dir: Path
) -> FollowUps | None:
    """Write `group_followup.tsv` and read what the statistics need.

    Parameters
    ----------
    records : sequence of SeriesRecord
    cohort : Cohort
        With the column `reperfused`.
    output_dir : Path

    Returns
    -------
    FollowUps or None
        Of the first series of each participant that has a follow-up; None if no series has one.
    """
    path = output_dir / NAME
    reader = _Reader(cohort)
    paths = list(_find_paths(records))
    if not paths:
        path.unlink(missing_ok=True)
        path.with_suffix('.json').unlink(missing_ok=True)
        return None

    def write(partial: Path) -> None:
        with partial.open('w', encoding='utf-8') as stream:
            stream.write('\t'.join(['participant_id', 'series', *COLUMNS]) + '\n')
            for record, source in paths:
                try:
                    table = read_table(source)
                except SeriesError as error:
                    logger.warning('%s: follow-up skipped: %s', record.prefix, error)
                    continue
                _append(record, table, stream)
                reader.add(record, table)

    write_atomically(write, path)
    rows, contents, notes = reader.rows, reader.contents, reader.describe()
    frame = pd.DataFrame(rows, columns=['participant_id', 'series', 'group', 'reperfused'])
    frame['followup_ml'] = [content['followup_ml'] for content in contents]
    return FollowUps(
        frame,
        {key: _join_curves(contents, 'threshold', *key) for key in MAPS},
        {key: _join_curves(contents, 'voxels', *key) for key in MAPS},
        {
            (*key, region): np.array([c['areas'].get((*key, region), math.nan) for c in contents])
            for key in MAPS
            for region in REGIONS
        },
        {
            which: np.array([c['brier'].get(which, math.nan) for c in contents])
            for which in ('global', 'local')
        },
        notes,
    )


def make_sets(table: pd.DataFrame, groups: Sequence[str]) -> dict[str, np.ndarray]:
    """Make the sets of participants that are analysed, as masks by name; empty sets are left out.

    Parameters
    ----------
    table : DataFrame
        With `group` and `reperfused`.
    groups : sequence of str

    Returns
    -------
    dict of str to (N,) array of bool
    """
    by_group = {group: (table['group'] == group).to_numpy() for group in groups if len(groups) > 1}
    reperfused = table['reperfused'].astype(object)
    by_outcome = {
        'reperfused': reperfused.eq(True).to_numpy(),
        'not reperfused': reperfused.eq(False).to_numpy(),
    }
    both = {
        f'{group}, {outcome}': first & second
        for group, first in by_group.items()
        for outcome, second in by_outcome.items()
    }
    sets = {'all': np.ones(len(table), bool)} | by_group | by_outcome | both
    return {name: chosen for name, chosen in sets.items() if chosen.any()}


def _find_paths(records: Sequence[SeriesRecord]) -> Iterator[tuple[SeriesRecord, Path]]:
    """List the tables of successful series."""
    for record in records:
        if record.state == 'succeeded' and record.tables:
            folder = next(iter(record.tables.values())).parent
            if (path := folder / f'{record.prefix}{ENDING}').is_file():
                yield record, path


def _append(record: SeriesRecord, table: Table, stream: TextIO) -> None:
    """Write the rows of a series; missing columns become n/a."""
    index = table.column_indices()
    order = [index.get(name, -1) for name in COLUMNS]
    for cells in table.rows:
        values = [cells[place] if place >= 0 else MISSING for place in order]
        stream.write('\t'.join([record.participant, record.prefix, *values]) + '\n')


class _Reader:
    """What the statistics need of the tables, and the series that are not included."""

    def __init__(self, cohort: Cohort) -> None:
        self.included = cohort.included.set_index('series')
        self.rows: list[dict[str, Any]] = []
        self.contents: list[dict[str, Any]] = []
        self.left_out: list[tuple[str, str]] = []
        self.participants: set[str] = set()
        self.n_repeated = 0

    def add(self, record: SeriesRecord, table: Table) -> None:
        """Add the table of a series."""
        index = table.column_indices()
        if record.prefix not in self.included.index:
            return
        if table.rows[0][index['measure']] == 'left out':
            self.left_out.append((record.prefix, table.rows[0][index['reason']]))
            return
        if record.participant in self.participants:
            self.n_repeated += 1
            return
        self.participants.add(record.participant)
        of_cohort = self.included.loc[record.prefix]
        self.rows.append(
            {
                'participant_id': record.participant,
                'series': record.prefix,
                'group': of_cohort['group'],
                'reperfused': of_cohort.get('reperfused', math.nan),
            }
        )
        self.contents.append(_parse(table))

    def describe(self) -> list[str]:
        """Describe the series that are not included."""
        notes = []
        if self.left_out:
            prefix, reason = self.left_out[0]
            notes.append(
                f'{len(self.left_out)} follow-up lesions were left out, such as that of {prefix}: {reason}'
            )
        if self.n_repeated:
            notes.append(
                f'{self.n_repeated} series are further ones of a participant and are not included'
            )
        without = len(self.included) - len(self.rows) - self.n_repeated - len(self.left_out)
        if without:
            notes.append(f'{without} of {len(self.included)} series have no follow-up lesion')
        return notes


def _parse(table: Table) -> dict:
    """Read the figures of one series by measure, quantity and normalization."""
    index = table.column_indices()
    content: dict = {
        'areas': {},
        'brier': {},
        'threshold': {},
        'voxels': {},
        'followup_ml': math.nan,
    }
    for cells in table.rows:
        measure, quantity, which = (
            cells[index[n]] for n in ('measure', 'quantity', 'normalization')
        )
        if measure in ('threshold', 'voxels'):
            of_map = content[measure].setdefault((quantity, which), {})
            level = parse_number(cells[index['threshold']])
            of_map[level] = [
                parse_number(cells[index[name]]) for name in (*FIGURES, 'followup_ml', 'region_ml')
            ]
        elif measure == 'ranking':
            key = quantity, which, cells[index['region']]
            content['areas'][key] = parse_number(cells[index['auc']])
        elif measure == 'probability':
            content['brier'][which] = parse_number(cells[index['brier']])
        elif measure == 'segmentation' and quantity == 'hypoperfusion':
            content['followup_ml'] = parse_number(cells[index['followup_ml']])
    return content


def _join_curves(contents: Sequence[dict], measure: str, quantity: str, which: str) -> Curves:
    """Join the curves of all participants, at the thresholds that all of them have."""
    curves = [content[measure].get((quantity, which), {}) for content in contents]
    present = [set(curve) for curve in curves if curve]
    levels = sorted(set.intersection(*present)) if present else []
    names = (*FIGURES, 'followup_ml', 'region_ml')
    empty = [math.nan] * len(names)
    values = np.array([[curve.get(level, empty) for level in levels] for curve in curves])
    values = values.reshape(len(contents), len(levels), len(names))
    return Curves(np.array(levels), {name: values[..., i] for i, name in enumerate(names)})
