# SPDX-License-Identifier: Apache-2.0
"""What a page shows of the agreement with a follow-up lesion."""

import json
from pathlib import Path
from typing import Any

from ctpprep.io.tables import read_table
from ctpprep.reports.template import format_decimals

#: Rows of the page: quantity, normalization, title.
ROWS = (
    ('core', 'global', 'Core global'),
    ('core', 'local', 'Core local'),
    ('hypoperfusion', '', 'Hypoperfusion'),
)
#: Columns of the page: name in the table, heading, decimals.
FIGURES = (
    ('volume_ml', 'volume, mL', 1),
    ('difference_ml', 'minus follow-up, mL', 1),
    ('dice', 'Dice', 2),
    ('sensitivity', 'sensitivity', 2),
    ('specificity', 'specificity', 3),
    ('precision', 'precision', 2),
    ('surface_mm', 'surface distance, mm', 1),
    ('surface_95_mm', '95th percentile, mm', 1),
)
#: Fraction of the lesion within the series below which the page warns.
LEAST_COVERED = 0.95


def read_followup(path: Path) -> tuple[list[dict[str, str]], str]:
    """Read the agreement of cores and hypoperfusion with a follow-up lesion.

    Parameters
    ----------
    path : Path
        ``*_desc-followup_morph.tsv``, with its sidecar.

    Returns
    -------
    rows : list of dict
        Cells by heading, formatted; empty if the lesion was left out.
    note : str
        One or more sentences on volume, alignment and coverage, or why the lesion was left out.
    """
    measured = json.loads(path.with_suffix('.json').read_text(encoding='utf-8')).get(
        'Measured', {}
    )
    if left_out := measured.get('followup_left_out'):
        return [], f'The follow-up lesion was left out: {left_out}.'
    table = {
        (row['quantity'], row['normalization']): row
        for row in read_table(path)
        if row['measure'] == 'segmentation'
    }
    rows = []
    for quantity, which, title in ROWS:
        if row := table.get((quantity, which)):
            cells = {
                heading: format_decimals(row.get(name, ''), digits)
                for name, heading, digits in FIGURES
            }
            rows.append({'': title, **cells, 'note': row['reason']})
    return rows, _describe(measured)


def _describe(measured: dict[str, Any]) -> str:
    volume, aligned = measured.get('followup_ml'), measured.get('followup_aligned_by')
    note = f'Follow-up lesion: {format_decimals(volume, 1)} mL, aligned by {aligned}'
    if measured.get('followup_overlap') is not None:
        overlap, similarity = (
            format_decimals(measured.get(f'followup_{name}'), 2)
            for name in ('overlap', 'similarity')
        )
        note += (
            f' (overlap of the brain {overlap}, mutual information {similarity} of the best shift or '
            'turn)'
        )
    note += '.'
    covered = measured.get('followup_covered')
    if isinstance(covered, int | float) and covered < LEAST_COVERED:
        note += f' Only {covered:.0%} of it is within the series: volumes are those of this part.'
    return note
