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
from typing import Any

import numpy as np
import pandas as pd

from ctpprep.exceptions import SeriesError
from ctpprep.group.cohort import Cohort
from ctpprep.group.series import SeriesRecord
from ctpprep.group.tsv import MISSING, Table, parse_number, read_table
from ctpprep.io.files import write_atomically

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
    tables = list(_find_tables(records))
    path = output_dir / NAME
    if not tables:
        path.unlink(missing_ok=True)
        path.with_suffix('.json').unlink(missing_ok=True)
        return None
    _stack(tables, path)
    included = cohort.included.set_index('series')
    notes: list[str] = []
    rows: list[dict[str, Any]] = []
    contents: list[dict[str, Any]] = []
    left_out: list[tuple[str, str]] = []
    repeated = 0
    for record, table in tables:
        index = table.column_indices()
        if record.prefix not in included.index:
            continue
        if table.rows[0][index['measure']] == 'left out':
            left_out.append((record.prefix, table.rows[0][index['reason']]))
            continue
        if any(row['participant_id'] == record.participant for row in rows):
            repeated += 1
            continue
        of_cohort = included.loc[record.prefix]
        rows.append(
            {
                'participant_id': record.participant,
                'series': record.prefix,
                'group': of_cohort['group'],
                'reperfused': of_cohort.get('reperfused', math.nan),
            }
        )
        contents.append(_parse(table))
    if left_out:
        prefix, reason = left_out[0]
        notes.append(
            f'{len(left_out)} follow-up lesions were left out, such as that of {prefix}: {reason}'
        )
    if repeated:
        notes.append(f'{repeated} series are further ones of a participant, and do not count')
    if without := len(included) - len(rows) - repeated - len(left_out):
        notes.append(f'{without} of {len(included)} series have no follow-up lesion')
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


def _find_tables(records: Sequence[SeriesRecord]) -> Iterator[tuple[SeriesRecord, Table]]:
    """Read the tables of successful series; one that cannot be read is logged and skipped."""
    for record in records:
        if record.state != 'succeeded' or not record.tables:
            continue
        path = next(iter(record.tables.values())).with_name(f'{record.prefix}{ENDING}')
        if not path.is_file():
            continue
        try:
            yield record, read_table(path)
        except SeriesError as error:
            logger.warning('%s: follow-up skipped: %s', record.prefix, error)


def _stack(tables: Sequence[tuple[SeriesRecord, Table]], path: Path) -> None:
    columns = list(dict.fromkeys(name for _, table in tables for name in table.header))

    def write(partial: Path) -> None:
        with partial.open('w', encoding='utf-8') as stream:
            stream.write('\t'.join(['participant_id', 'series', *columns]) + '\n')
            for record, table in tables:
                index = table.column_indices()
                order = [index.get(name, -1) for name in columns]
                for cells in table.rows:
                    values = [cells[place] if place >= 0 else MISSING for place in order]
                    stream.write('\t'.join([record.participant, record.prefix, *values]) + '\n')

    write_atomically(write, path)


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
