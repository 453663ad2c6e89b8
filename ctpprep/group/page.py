# SPDX-License-Identifier: Apache-2.0
"""The page of the group level: one self-contained file that sends no request.

plotly.js draws the plots in the browser from the rows of the page. Without scripts, a picture of the
main plot and all tables remain.
"""

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pandas as pd
from markupsafe import Markup

from ctpprep import __version__
from ctpprep.figures.palette import GRADES, SOFT, VERDICT_GRADES
from ctpprep.group.cohort import LOCAL_WITHHELD, VOLUMES
from ctpprep.group.followup_page import PAGE as FOLLOWUP_PAGE
from ctpprep.group.picture import draw_cores
from ctpprep.group.quality import (
    CORE_LIMIT_ML,
    FINISHED,
    NOT_PROCESSED,
    count_grades,
    count_missing,
    count_verdicts,
    find_doubtful,
    find_outliers,
    read_grades,
    read_quality,
)
from ctpprep.group.statistics import SETS
from ctpprep.group.summary import format_fixed, format_short, summarize
from ctpprep.group.tsv import MISSING
from ctpprep.io.files import write_atomically
from ctpprep.reports.inline import data_element, plotly_script, script_element, security_policy
from ctpprep.reports.sections import make_anchor
from ctpprep.reports.template import TEMPLATES, environment

if TYPE_CHECKING:
    from ctpprep.group.cohort import Cohort
    from ctpprep.group.locate import LocationReport
    from ctpprep.group.tsv import Table

PAGE = 'group.html'
#: Colors of groups that color-blind readers can distinguish (Okabe and Ito); symbols differ as well.
COLORS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#56b4e9', '#e69f00', '#7f6a00', '#444444')
SYMBOLS = ('circle', 'diamond', 'square', 'triangle-up', 'cross', 'x', 'star', 'pentagon')
#: Name of an unknown group.
UNKNOWN = 'not known'
#: Maximum number of rows in the table of series to review.
MAX_OUTLIERS = 200
#: Figures of each group that the plots show as lines.
LINES = ('slope', 'intercept', 'mean difference', 'lower limit 2 SD', 'upper limit 2 SD')


def build_page(
    output_dir: Path,
    cohort: 'Cohort',
    statistics: pd.DataFrame,
    quality_table: 'Table',
    located: 'LocationReport | None' = None,
) -> Path:
    """Write `group.html`.

    Parameters
    ----------
    output_dir : Path
        The derivatives folder; the page links to the reports of participants in it.
    cohort : Cohort
    statistics : DataFrame
        As returned by `ctpprep.group.statistics.analyze`.
    quality_table : Table
        `group_quality.tsv`.
    located : LocationReport, optional
        Where lesions lie, if there are masks in template space.

    Returns
    -------
    Path
    """
    quality = read_quality(quality_table, output_dir / 'group_quality.json')
    grades = read_grades(quality)
    reports = {path.name for path in output_dir.glob('sub-*.html')}
    series = [
        _make_row(row, grades.get(row['series'], {}), reports)
        for row in cohort.table.to_dict('records')
    ]
    legend = [*cohort.groups]
    if any(row['group'] == UNKNOWN for row in series):
        legend.append(UNKNOWN)
    colors = {group: COLORS[index % len(COLORS)] for index, group in enumerate(legend)}
    scripts = [plotly_script(), (TEMPLATES / 'group.js').read_text(encoding='utf-8')]
    lines = _select_lines(statistics)
    lines_of_all = lines.get('all', {})
    counted = [row for row in series if row['counts']]
    content = {
        'groups': legend,
        'colours': list(colors.values()),
        'symbols': [SYMBOLS[index % len(SYMBOLS)] for index in range(len(legend))],
        'series': [
            [row['series'], row['link'], legend.index(row['group']), row['stroke'],
             row['core_global'], row['core_local'], row['hypoperfusion'], row['mismatch_global'],
             row['verdict']]
            for row in counted
        ],
        'lines': lines,
        'checks': count_grades(quality),
        'grades': GRADES, 'soft': SOFT,
    }  # fmt: skip
    page = (
        environment()
        .get_template('group.html')
        .render(
            policy=security_policy(scripts),
            scripts=[script_element(text) for text in scripts],
            data=data_element('cohort', content),
            located=located,
            location_data=_lay_out_slices(located) if located else '',
            series=series,
            n_counted=len(counted),
            n_paired=sum(row['difference'] is not None for row in counted),
            verdicts=count_verdicts(series),
            figures=count_missing(series),
            notes=cohort.notes,
            summaries=[(set_name, *summarize(statistics, set_name)) for set_name in SETS],
            statistics=statistics.to_dict('records'),
            outliers=find_outliers(series, quality, lines_of_all),
            max_outliers=MAX_OUTLIERS,
            limit_ml=f'{CORE_LIMIT_ML:g}',
            n_not_processed=sum(row['state'] == NOT_PROCESSED for row in series),
            legend=legend,
            picture=draw_cores(cohort.included, lines_of_all, colors, UNKNOWN),
            has_pairs=len(cohort.groups) > 1,
            verdict_lights=VERDICT_GRADES,
            followup=FOLLOWUP_PAGE if (output_dir / FOLLOWUP_PAGE).is_file() else '',
            unknown=UNKNOWN,
            states=sorted({row['state'] for row in series}),
            format_fixed=format_fixed,
            format_short=format_short,
            version=__version__,
            written=datetime.now(UTC).strftime('%Y-%m-%d %H:%M UTC'),
        )
    )
    path = output_dir / PAGE
    write_atomically(lambda partial: partial.write_text(page, encoding='utf-8'), path)
    return path


def _lay_out_slices(located: 'LocationReport') -> Markup:
    """Describe the pictures of slices to the script; the pictures themselves are on the page."""
    pictures = located.pictures
    layout = {name: pictures[name] for name in ('width', 'height', 'columns', 'heights')}
    layout['scales'] = [one['scale'] for one in pictures['maps']]
    return data_element('locations-layout', layout)


def _make_row(row: dict[str, Any], grades: dict[str, str], reports: set[str]) -> dict[str, Any]:
    """Make the row of one series on the page, from its row of the cohort."""
    report = f'{row["participant_id"]}.html'
    volumes = {name: None if math.isnan(row[name]) else round(row[name], 4) for name in VOLUMES}
    core_global, core_local = volumes['core_global'], volumes['core_local']
    difference = None
    if core_global is not None and core_local is not None:
        difference = round(core_local - core_global, 4) + 0.0  # not -0.0
    state = row['state']
    if state == 'succeeded' and (row['excluded'] or row['withheld']):
        state = 'left out' if row['excluded'] else LOCAL_WITHHELD
    explanations = [row['reason'], row['withheld'] and f'{LOCAL_WITHHELD}: {row["withheld"]}']
    explanations += _explain_grades(grades, state in FINISHED)
    return {
        'series': row['participant_id'] if row['series'] == MISSING else row['series'],
        'link': _link_report(report, row['series']) if report in reports else '',
        'group': row['group'] or UNKNOWN,
        'stroke': None if pd.isna(row['stroke']) else bool(row['stroke']),
        'state': state,
        'counts': row['state'] == 'succeeded' and not row['excluded'],
        'reason': row['reason'],
        'withheld': row['withheld'],
        'difference': difference,
        'verdict': grades.get('verdict', ''),
        'verdict_reason': grades.get('verdict_reason', ''),
        'doubtful': find_doubtful(grades.get('doubtful', '')),
        'caution': grades.get('caution', ''),
        'explanation': '; '.join(dict.fromkeys(filter(None, explanations))),
        **volumes,
    }


def _explain_grades(grades: dict[str, str], is_finished: bool) -> list[str]:
    """List what the first deciding check found, the caution, and all checks if there are several."""
    checks = grades.get('checks', '')
    reason = grades.get('verdict_reason', '').rstrip('.') if checks and is_finished else ''
    several = ', ' in checks or '; ' in checks
    return [reason, grades.get('caution', ''), checks if several or not reason else '']


def _link_report(report: str, series: str) -> str:
    """Link to the section of a series in the report of its participant."""
    return quote(report) + ('' if series == MISSING else f'#{make_anchor(series)}')


def _select_lines(statistics: pd.DataFrame) -> dict[str, dict[str, list[float | None]]]:
    """Select the figures `LINES` by set and group."""
    lines: dict[str, dict[str, list[float | None]]] = {}
    for row in statistics.to_dict('records'):
        if row['statistic'] in LINES and row['comparison'] in (
            'local on global',
            'local - global',
        ):
            of_set = lines.setdefault(row['set'], {})
            values = of_set.setdefault(row['group'], [None] * len(LINES))
            value = row['value']
            values[LINES.index(row['statistic'])] = None if math.isnan(value) else value
    return lines
