# SPDX-License-Identifier: Apache-2.0
"""The page *Against follow-up* of the group level, and the tables it shows.

One self-contained file that sends no request. plotly.js draws the figures; without scripts, the
tables remain, which contain every figure.
"""

import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from ctpprep import __version__
from ctpprep.figures.palette import SOFT
from ctpprep.group.cohort import Cohort
from ctpprep.group.followup import (
    ANCHOR,
    COLUMNS,
    CURVE_COLUMNS,
    DRAWN,
    FIXED_RCBF,
    ROC_COLUMNS,
    Analysis,
    analyze_followups,
)
from ctpprep.group.followup_tables import NAME, FollowUps, collect_followups, make_sets
from ctpprep.group.series import SeriesRecord
from ctpprep.group.summary import format_short
from ctpprep.group.tsv import MISSING, Table, write_table
from ctpprep.io.files import write_atomically, write_json
from ctpprep.reports.inline import data_element, plotly_script, script_element, security_policy
from ctpprep.reports.template import TEMPLATES, environment
from ctpprep.settings import RunSettings

PAGE = 'group_followup.html'
#: Tables of the page, with their columns.
TABLES = {
    'group_followup_statistics.tsv': COLUMNS,
    'group_followup_curves.tsv': CURVE_COLUMNS,
    'group_followup_roc.tsv': ROC_COLUMNS,
}
#: Words of the figures on the page.
WORDS = {
    'dice': 'Dice coefficient',
    'absolute_difference_ml': 'absolute difference of volume, mL',
    'difference_ml': 'volume - follow-up, mL',
    'sensitivity': 'sensitivity',
    'specificity': 'specificity (voxels of brain)',
}
HELD_OUT = 'held-out mean at best threshold'
#: Rows of the summary: title, and quantity, figure and statistic.
SUMMARY = (
    ('Best threshold by Dice', 'rcbf', 'dice', 'best threshold'),
    ('Dice there, held-out participants', 'rcbf', 'dice', HELD_OUT),
    ('Best threshold by volume', 'rcbf', 'absolute_difference_ml', 'best threshold'),
    ('Absolute difference there, held out, mL', 'rcbf', 'absolute_difference_ml', HELD_OUT),
    ('Dice at 30 %', 'rcbf', 'dice', 'mean'),
    ('Difference at 30 %, mL', 'rcbf', 'difference_ml', 'mean'),
    ('Absolute difference at 30 %, mL', 'rcbf', 'absolute_difference_ml', 'mean'),
    ('Sensitivity at 30 %', 'rcbf', 'sensitivity', 'mean'),
    ('Specificity at 30 %', 'rcbf', 'specificity', 'mean'),
    ('Area under the ROC curve, brain', 'rcbf', 'auc in brain', 'mean'),
    ('Area under the ROC curve, hypoperfusion', 'rcbf', 'auc in hypoperfusion', 'mean'),
    ('Pooled area, brain', 'rcbf', 'auc pooled in brain', 'area'),
    ('Brier score of the probability', 'probability', 'brier', 'mean'),
)
#: Rows of the comparison: title, figure, and where it is compared.
COMPARED = (
    ('Dice at 30 %', 'dice', ' at 30%'),
    ('Dice at the best thresholds, held out', 'dice', ' at best thresholds'),
    ('Absolute difference at 30 %, mL', 'absolute_difference_ml', ' at 30%'),
    (
        'Absolute difference at the best thresholds, held out, mL',
        'absolute_difference_ml',
        ' at best thresholds',
    ),
    ('Area under the ROC curve, brain', 'auc in brain', ''),
)
#: Rows of hypoperfusion: title, figure, statistic.
SLOW = (
    ('Best Tmax threshold by Dice, s', 'dice', 'best threshold'),
    ('Dice there, held out', 'dice', HELD_OUT),
    ('Dice at Tmax > 6 s', 'dice', 'mean'),
    ('Difference at Tmax > 6 s, mL', 'difference_ml', 'mean'),
)
WHICH = ('global', 'local')
LINES = ('mean difference', 'lower limit 1.96 SD', 'upper limit 1.96 SD')


def write_followup(
    records: Sequence[SeriesRecord], cohort: Cohort, run: RunSettings
) -> list[Path]:
    """Write tables and page of the comparison with follow-up lesions; remove those of an earlier call.

    Parameters
    ----------
    records : sequence of SeriesRecord
    cohort : Cohort
    run : RunSettings

    Returns
    -------
    list of Path
        Empty if no series has a follow-up lesion.
    """
    folder = run.output_dir
    followups = collect_followups(records, cohort, folder)
    if followups is None or followups.table.empty:
        for name in (*TABLES, PAGE):
            (folder / name).unlink(missing_ok=True)
            (folder / name).with_suffix('.json').unlink(missing_ok=True)
    if followups is None:
        return []
    ids = {'participant_id': 'participant', 'series': 'series; other columns: as in its own table'}
    _describe_columns(ids, folder / NAME)
    if followups.table.empty:
        return [folder / NAME]
    analysis = analyze_followups(followups, cohort.groups, run.oedema_factor)
    frames = (analysis.statistics, analysis.curves, analysis.roc)
    for (name, columns), frame in zip(TABLES.items(), frames, strict=True):
        write_table(format_table(frame), folder / name)
        _describe_columns(columns, folder / name)
    page = build_followup_page(folder, followups, analysis, cohort, run.oedema_factor)
    return [folder / NAME, *(folder / name for name in TABLES), page]


def _describe_columns(columns: dict[str, str], path: Path) -> None:
    content = {name: {'Description': text} for name, text in columns.items()}
    write_json(content, path.with_suffix('.json'))


def format_table(frame: pd.DataFrame) -> Table:
    """Format a table as text: six significant digits, n/a for missing values."""

    def format_cell(cell: Any) -> str:
        if isinstance(cell, float):
            return f'{cell:.6g}' if math.isfinite(cell) else MISSING
        return MISSING if cell is None or cell == '' else str(cell)

    rows = frame.to_numpy(object).tolist()
    return Table(list(frame), [[format_cell(cell) for cell in cells] for cells in rows])


def build_followup_page(
    folder: Path, followups: FollowUps, analysis: Analysis, cohort: Cohort, oedema_factor: float
) -> Path:
    """Write `group_followup.html`.

    Parameters
    ----------
    folder : Path
    followups : FollowUps
    analysis : Analysis
    cohort : Cohort
    oedema_factor : float

    Returns
    -------
    Path
    """
    lookup = _Lookup(analysis.statistics)
    sets = list(dict.fromkeys(analysis.statistics['set']))
    scripts = [plotly_script(), (TEMPLATES / 'followup.js').read_text(encoding='utf-8')]
    content = {
        'sets': sets,
        'figures': [[name, WORDS[name]] for name in DRAWN],
        'curves': _nest_curves(analysis.curves),
        'roc': _nest_roc(analysis.roc),
        'agreement': _collect_volumes(followups, lookup, cohort, sets, oedema_factor),
        'anchor': ANCHOR['threshold'],
        'soft': SOFT,
    }
    page = (
        environment()
        .get_template('followup.html')
        .render(
            policy=security_policy(scripts),
            scripts=[script_element(text) for text in scripts],
            data=data_element('followups', content),
            parts=[lookup.summarize(name) for name in sets],
            n=len(followups.table),
            notes=[*_describe_choices(cohort, oedema_factor), *followups.notes],
            anchor=ANCHOR,
            statistics=analysis.statistics.to_dict('records'),
            tables=[NAME, *TABLES],
            format_short=format_short,
            version=__version__,
            written=datetime.now(UTC).strftime('%Y-%m-%d %H:%M UTC'),
        )
    )
    path = folder / PAGE
    write_atomically(lambda partial: partial.write_text(page, encoding='utf-8'), path)
    return path


def _describe_choices(cohort: Cohort, oedema_factor: float) -> list[str]:
    column = cohort.reperfusion_column
    return [
        f'Reperfusion: the column {column}'
        if column
        else 'Reperfusion is not known, for want of a column such as mTICI in participants.tsv: core '
        'and follow-up are then compared also where core could grow',
        f'Volumes of follow-up lesions are divided by {oedema_factor:g} for oedema; overlap is not '
        'corrected'
        if oedema_factor > 1
        else 'Follow-up lesions are not corrected for oedema (--oedema-factor)',
    ]


class _Lookup:
    """Rows of the statistics by their names."""

    def __init__(self, statistics: pd.DataFrame) -> None:
        keys = ('set', 'quantity', 'normalization', 'figure', 'statistic')
        self.rows = {tuple(row[key] for key in keys): row for row in statistics.to_dict('records')}

    def find(self, *names: str) -> dict[Any, Any]:
        """Return a row; empty if there is none."""
        return self.rows.get(names, {})

    def summarize(self, name: str) -> dict[str, Any]:
        """Format the summary of one set: rows of titles and cells."""
        count = self.find(name, 'follow-up', MISSING, 'followup_ml', 'participants')
        summary = [
            (title, [_format(self.find(name, quantity, w, figure, statistic)) for w in WHICH])
            for title, quantity, figure, statistic in SUMMARY
        ]
        compared = []
        for title, figure, where in COMPARED:
            names = name, 'rcbf', 'local - global', figure
            p = self.find(*names, f'wilcoxon{where}').get('p')
            difference = _format(self.find(*names, f'difference{where}'))
            compared.append((title, [difference, format_short(p)]))
        slow = [
            (title, [_format(self.find(name, 'tmax', MISSING, figure, statistic))])
            for title, figure, statistic in SLOW
        ]
        tables = (
            (('global', 'local'), summary),
            (('local - global', 'p (Wilcoxon)'), compared),
            (('hypoperfusion',), slow),
        )
        return {'name': name, 'n': count.get('n', 0), 'tables': tables}


def _format(row: dict[Any, Any]) -> str:
    value = row.get('value')
    if value is None or not math.isfinite(value):
        return str(row.get('reason', ''))
    low = row.get('ci_low')
    if low is None or not math.isfinite(low):
        return format_short(value)
    return f'{format_short(value)} [{format_short(low)} to {format_short(row["ci_high"])}]'


def _key(quantity: str, which: str) -> str:
    return quantity if which == MISSING else f'{quantity} {which}'


def _finite(values: Iterable[float]) -> list[float | None]:
    """Round to five significant digits; None for values that are missing."""
    return [float(f'{value:.5g}') if math.isfinite(value) else None for value in values]


def _nest_curves(curves: pd.DataFrame) -> dict[str, Any]:
    """Nest the curves by set, map and figure: threshold, value, lower and upper limit."""
    nested: dict[str, Any] = {}
    keys = ['set', 'quantity', 'normalization', 'figure']
    for names, part in curves.groupby(keys, sort=False):
        name, quantity, which, figure = map(str, names)
        of_map = nested.setdefault(name, {}).setdefault(_key(quantity, which), {})
        of_map[figure] = [_finite(part[c]) for c in ('threshold', 'value', 'ci_low', 'ci_high')]
    return nested


def _nest_roc(roc: pd.DataFrame) -> dict[str, Any]:
    """Nest the ROC curves by set and map: false-positive rate, sensitivity, threshold."""
    nested: dict[str, Any] = {}
    for names, part in roc.groupby(['set', 'quantity', 'normalization'], sort=False):
        name, quantity, which = map(str, names)
        columns = ('false_positive_rate', 'sensitivity', 'threshold')
        nested.setdefault(name, {})[_key(quantity, which)] = [_finite(part[c]) for c in columns]
    return nested


def _collect_volumes(
    followups: FollowUps, lookup: _Lookup, cohort: Cohort, sets: list[str], oedema_factor: float
) -> dict[str, Any]:
    """Collect what the Bland-Altman plots show: volumes of each participant, and lines."""
    table = followups.table
    volumes, lines = {}, {}
    for which in WHICH:
        curves = followups.curves['rcbf', which]
        place = [k for k, level in enumerate(curves.thresholds) if math.isclose(level, FIXED_RCBF)]
        if not place:
            continue
        volumes[which] = _finite(curves.values['volume_ml'][:, place[0]])
        names = ('rcbf', which, 'volume - follow-up')
        lines[which] = {
            name: [
                lookup.find(name, *names, f'Bland-Altman {line}').get('value') for line in LINES
            ]
            for name in sets
        }
    legend = list(dict.fromkeys(table['group']))
    members = make_sets(table, cohort.groups)
    return {
        'series': list(table['series']),
        'groups': legend,
        'group': [legend.index(group) for group in table['group']],
        'followup': _finite(table['followup_ml'] / oedema_factor),
        'volumes': volumes,
        'lines': {
            which: {
                name: [None if v is None or not math.isfinite(v) else v for v in values]
                for name, values in of_sets.items()
            }
            for which, of_sets in lines.items()
        },
        'members': {name: mask.nonzero()[0].tolist() for name, mask in members.items()},
    }
