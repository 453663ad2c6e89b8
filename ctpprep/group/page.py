# SPDX-License-Identifier: Apache-2.0
"""The page of the group level: one file, everything inside, no request.

Plots are drawn in the browser by plotly.js from the rows of the page; where scripts are off, a picture
of the main plot and all tables remain.
"""

import base64
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from ctpprep import __version__
from ctpprep.group.statistics import SETS, complete
from ctpprep.group.summary import fixed, short, summarize
from ctpprep.group.tables import MISSING, number
from ctpprep.io.files import write_atomically
from ctpprep.perfusion.volumes import DEFUSE3
from ctpprep.reports.inline import data, plotly_script, policy, script
from ctpprep.reports.page import STATUS, TEMPLATES, Section, environment, figure

if TYPE_CHECKING:
    from ctpprep.group.cohort import Cohort
    from ctpprep.group.tables import Table

PAGE = 'group.html'
#: Colours of groups that colour-blind readers tell apart (Okabe and Ito); symbols differ as well.
COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#56b4e9', '#e69f00', '#7f6a00', '#444444')
SYMBOLS = ('circle', 'diamond', 'square', 'triangle-up', 'cross', 'x', 'star', 'pentagon')
WITHOUT = 'not known'
#: A figure is an outlier so many interquartile ranges beyond the quartiles of the cohort (Tukey).
FENCE = 3.0
#: Fewer series have no meaningful quartiles.
LEAST_FOR_FENCE = 8
#: Checks whose warning alone makes a series one to look at, and the core, mL, below which DEFUSE 3 treated.
DISAGREEMENT = ('core_disagreement', 'core_disagreement_share')
CORE_LIMIT_ML = DEFUSE3['core_ml']
#: State of participants who are counted, not listed.
NOT_BEGUN = 'not processed'
#: Rows of the table of outliers that are shown.
MOST_OUTLIERS = 200


@dataclass
class Outlier:
    """A series to look at, and why."""

    series: str
    link: str
    status: str
    reasons: list[str]


def build_page(
    output_dir: Path, cohort: 'Cohort', statistics: pd.DataFrame, quality: 'Table'
) -> Path:
    """Write `group.html`.

    Parameters
    ----------
    output_dir : Path
        The derivatives folder: participants' reports that are there are linked.
    cohort : Cohort
    statistics : DataFrame
        As `ctpprep.group.statistics.analyse` makes it.
    quality : Table
        `group_quality.tsv`.

    Returns
    -------
    Path
    """
    titles = read_titles((output_dir / 'group_quality.tsv').with_suffix('.json'))
    grades = read_grades(quality, titles)
    pages = {path.name for path in output_dir.glob('sub-*.html')}
    series = [_row(each, grades.get(each['series'], {}), pages)
              for each in cohort.table.to_dict('records')]  # fmt: skip
    legend = (
        [*cohort.groups, WITHOUT]
        if any(each['group'] == WITHOUT for each in series)
        else cohort.groups
    )
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(legend)}
    scripts = [plotly_script(), (TEMPLATES / 'group.js').read_text(encoding='utf-8')]
    lines = _lines(statistics)
    counted = [each for each in series if each['counts']]
    content = {
        'groups': legend,
        'colours': list(colours.values()),
        'symbols': [SYMBOLS[i % len(SYMBOLS)] for i in range(len(legend))],
        'series': [
            [each['series'], each['link'], legend.index(each['group']), each['stroke'],
             each['core_global'], each['core_local']]
            for each in counted
        ],
        'lines': lines,
        'checks': count_grades(quality, titles),
    }  # fmt: skip
    page = (
        environment()
        .get_template('group.html')
        .render(
            policy=policy(scripts),
            scripts=[script(each) for each in scripts],
            data=data('cohort', content),
            series=series,
            counted=len(counted),
            participants=cohort.table['participant_id'].nunique(),
            notes=cohort.notes,
            summaries=[(name, *summarize(statistics, name)) for name in SETS],
            statistics=statistics.to_dict('records'),
            outliers=find_outliers(series, quality, titles, lines.get('all', {})),
            most=MOST_OUTLIERS,
            limit_ml=f'{CORE_LIMIT_ML:g}',
            not_begun=sum(each['state'] == NOT_BEGUN for each in series),
            legend=legend,
            picture=draw_fallback(cohort, statistics, colours),
            several=len(cohort.groups) > 1,
            lights=STATUS,
            unknown=WITHOUT,
            states=sorted({each['state'] for each in series}),
            fixed=fixed,
            short=short,
            version=__version__,
            written=datetime.now(UTC).strftime('%Y-%m-%d %H:%M UTC'),
        )
    )
    path = output_dir / PAGE
    write_atomically(lambda partial: partial.write_text(page, encoding='utf-8'), path)
    return path


def _row(each: dict[str, Any], grades: dict[str, str], pages: set[str]) -> dict[str, Any]:
    """Make what the page shows of one series."""
    page = f'{each["participant_id"]}.html'
    values = {
        name: None if math.isnan(each[name]) else round(each[name], 4)
        for name in (
            'core_global',
            'core_local',
            'hypoperfusion',
            'mismatch_global',
            'mismatch_local',
        )
    }
    before, after = values['core_global'], values['core_local']
    return {
        'series': each['participant_id'] if each['series'] == MISSING else each['series'],
        'link': _link(page, each['series']) if page in pages else '',
        'group': each['group'] or WITHOUT,
        'stroke': None if pd.isna(each['stroke']) else bool(each['stroke']),
        'state': 'left out'
        if each['excluded'] and each['state'] == 'succeeded'
        else each['state'],
        'counts': each['state'] == 'succeeded'
        and not each['excluded']
        and None not in (before, after),
        'reason': each['reason'],
        'difference': None if before is None or after is None else round(after - before, 4) + 0.0,
        'status': grades.get('status', ''),
        'caution': grades.get('caution', ''),
        'why': '; '.join(
            filter(
                None, [each['reason'], *(grades.get(name, '') for name in ('caution', 'checks'))]
            )
        ),
        **values,
    }


def _link(page: str, series: str) -> str:
    """Lead to the section of a series in the report of its participant."""
    return quote(page) + ('' if series == MISSING else f'#{Section(series).anchor}')


def read_grades(quality: 'Table', titles: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """Read the worst grade and the caution of each series, and name the checks that failed or warn."""
    place = {column: i for i, column in enumerate(quality.header)}
    wanted: list[str] = [name for name in ('status', 'caution') if name in place]
    checks = [(place[f'{name}_status'], _title(name, titles)) for name in _checks(quality)]
    found = {}
    for cells in quality.rows:
        mine: dict[str, str] = {
            name: '' if cells[place[name]] == MISSING else cells[place[name]] for name in wanted
        }
        named = {
            grade: [title for column, title in checks if cells[column] == grade]
            for grade in ('fail', 'warn')
        }
        mine['checks'] = '; '.join(
            f'{grade}: {", ".join(all_)}' for grade, all_ in named.items() if all_
        )
        found[cells[place['series']]] = mine
    return found


def read_titles(path: Path) -> dict[str, dict[str, str]]:
    """Read title and unit of each check from the column dictionary."""
    told = json.loads(path.read_text(encoding='utf-8'))
    return {
        name: {'title': str(each.get('LongName', name)), 'unit': str(each.get('Units', ''))}
        for name, each in told.items()
        if isinstance(each, dict)
    }


def _title(name: str, titles: dict[str, dict[str, str]]) -> str:
    return titles.get(name, {}).get('title', '') or name


def _checks(quality: 'Table') -> list[str]:
    """Name the checks: columns that have a grade."""
    columns = set(quality.header)
    return [
        name.removesuffix('_status')
        for name in quality.header
        if name.endswith('_status') and name.removesuffix('_status') in columns
    ]


def count_grades(quality: 'Table', titles: dict[str, dict[str, str]]) -> list[list[Any]]:
    """Count the grades of each check: title, passed, cautions, failures."""
    place = {column: i for i, column in enumerate(quality.header)}
    rows = []
    for name in _checks(quality):
        grades = [cells[place[f'{name}_status']] for cells in quality.rows]
        rows.append(
            [_title(name, titles), *(grades.count(grade) for grade in ('pass', 'warn', 'fail'))]
        )
    return sorted(rows, key=lambda each: (each[3], each[2]))


def find_outliers(
    series: Sequence[dict[str, Any]],
    quality: 'Table',
    titles: dict[str, dict[str, str]],
    limits: dict[str, list[float | None]],
) -> list[Outlier]:
    """Find the series to look at.

    These are series whose run gave no result, with a failed check or a caution, with cores that disagree
    (`DISAGREEMENT` warns, or one alone is below `CORE_LIMIT_ML`), with a check that warns and is far off
    from the cohort, or with local - global outside of the limits of agreement of their own group. Who was
    not processed is none.

    Parameters
    ----------
    series : sequence of dict
        Rows of the page.
    quality : Table
    titles : dict
        Title and unit of each check.
    limits : dict
        Of each group: slope, intercept, mean difference, lower and upper limit.

    Returns
    -------
    list of Outlier
        Those with most reasons first.
    """
    place = {column: i for i, column in enumerate(quality.header)}
    reasons: dict[str, list[str]] = {}
    for name in _checks(quality):
        title, unit = _title(name, titles), titles.get(name, {}).get('unit', '')
        texts = [cells[place[name]] for cells in quality.rows]
        values = np.array([number(text) for text in texts])
        low, middle, high = _fence(values[np.isfinite(values)])
        for cells, value in zip(quality.rows, values, strict=True):
            mine = reasons.setdefault(cells[place['series']], [])
            if cells[place[f'{name}_status']] == 'fail':
                mine.append(f'{title}: {figure(cells[place[name]], unit)}, failed')
            elif cells[place[f'{name}_status']] != 'warn' or math.isnan(value):
                continue
            elif name in DISAGREEMENT:
                mine.append(f'{title}: {figure(value, unit)}, warns')
            elif value < low or value > high:
                mine.append(
                    f'{title}: {figure(value, unit)}, the median is {figure(middle, unit)}'
                )
    found = []
    for each in series:
        told = list(reasons.get(each['series'], ()))
        if each['state'] == NOT_BEGUN:
            continue
        cores = [each['core_global'], each['core_local']]
        if each['state'] not in ('succeeded', 'left out'):
            told.insert(0, ': '.join(dict.fromkeys(filter(None, (each['state'], each['reason'])))))
        elif None not in cores and len({core < CORE_LIMIT_ML for core in cores}) == 2:
            told.append(
                f'Global and local core lie on different sides of {CORE_LIMIT_ML:g} mL (DEFUSE 3): '
                f'{cores[0]:.1f} and {cores[1]:.1f} mL'
            )
        # a group that is not known, or too small for limits, is held to those of all
        own, of_all = (limits.get(name, [None, None])[-2:] for name in (each['group'], 'all'))
        alone = None not in own and each['group'] != 'all'
        bounds = own if alone else of_all
        lower, upper = bounds if None not in bounds else (-math.inf, math.inf)
        if each['counts'] and not lower <= each['difference'] <= upper:
            told.append(
                f'Local - global: {each["difference"]:.1f} mL, outside of the limits of agreement of '
                f'{"its own group" if alone else "all series"}'
            )
        if each['caution']:
            told.append(f'Local normalization is unreliable: {each["caution"]}')
        if told:
            found.append(Outlier(each['series'], each['link'], each['status'], told))
    return sorted(found, key=lambda each: (-len(each.reasons), each.series))


def _fence(values: np.ndarray) -> tuple[float, float, float]:
    """Find the figures beyond which a value is far off, and the median; none is, of few or alike values."""
    if len(values) < LEAST_FOR_FENCE:
        return -math.inf, math.nan, math.inf
    first, middle, third = np.percentile(values, [25, 50, 75])
    width = FENCE * (third - first) or math.inf
    return first - width, middle, third + width


def _lines(statistics: pd.DataFrame) -> dict[str, dict[str, list[float | None]]]:
    """List slope, intercept, mean difference and limits (2 SD) by set and group."""
    wanted = ('slope', 'intercept', 'mean difference', 'lower limit 2 SD', 'upper limit 2 SD')
    found: dict[str, dict[str, list[float | None]]] = {}
    for each in statistics.to_dict('records'):
        if each['statistic'] in wanted and each['comparison'] in (
            'local on global',
            'local - global',
        ):
            values = found.setdefault(each['set'], {}).setdefault(
                each['group'], [None] * len(wanted)
            )
            value = each['value']
            values[wanted.index(each['statistic'])] = None if math.isnan(value) else value
    return found


def draw_fallback(cohort: 'Cohort', statistics: pd.DataFrame, colours: dict[str, str]) -> str:
    """Draw scatter and Bland-Altman plot as a picture (data URI), for readers without scripts."""
    from matplotlib.figure import Figure

    table = complete(cohort.included)
    lines = _lines(statistics).get('all', {})
    drawn = Figure(figsize=(12, 5), layout='constrained')
    scatter, agreement = drawn.subplots(1, 2)
    most = max(1.0, float(table[['core_global', 'core_local']].max().max()) if len(table) else 1.0)
    scatter.plot([0, most], [0, most], color='#777', linestyle=':', label='identity')
    agreement.axhline(0, color='#777', linestyle=':')
    for name, colour in colours.items():
        part = table[table['group'].replace('', WITHOUT) == name]
        x, y = part['core_global'].to_numpy(float), part['core_local'].to_numpy(float)
        scatter.scatter(x, y, 12, color=colour, alpha=0.6, label=name)
        agreement.scatter((x + y) / 2, y - x, 12, color=colour, alpha=0.6)
        slope, intercept, *heights = lines.get(name, [None] * 5)
        if slope is not None and intercept is not None:
            ends = np.array([x.min(), x.max()])
            scatter.plot(ends, intercept + slope * ends, color=colour)
        for height, style in zip(heights, ('-', '--', '--'), strict=True):
            if height is not None:
                agreement.axhline(height, color=colour, linestyle=style)
    scatter.set(xlabel='core global, mL', ylabel='core local, mL')
    agreement.set(xlabel='mean of both cores, mL', ylabel='local - global, mL')
    scatter.legend()
    written = io.BytesIO()
    drawn.savefig(written, format='png', dpi=110)
    return 'data:image/png;base64,' + base64.b64encode(written.getvalue()).decode()
