# SPDX-License-Identifier: Apache-2.0
"""One page a participant, made from the files in the output folder.

The page is one file: figures, style and scripts are inside. A content security policy forbids every
request and every script but those named; all but the viewer is there without JavaScript. It is
rendered with jinja2 directly. The assembler of nireports links its figures as files beside the page
and does not escape text; a page that is mailed or copied to an air-gapped machine would lose the
first and suffer from the second.

Figures are embedded as images, not as markup: their ids cannot clash and no script in them runs.
"""

import csv
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ctpprep.interfaces.wording import with_unit
from ctpprep.io.files import write_atomically
from ctpprep.perfusion.symmetry import WITHHELD
from ctpprep.perfusion.volumes import COLUMNS
from ctpprep.reports.methods import references, render_methods
from ctpprep.reports.viewer import find_viewers, load_scripts
from ctpprep.settings import MethodSettings, declared, flatten

TEMPLATES = Path(__file__).parents[1] / 'resources' / 'report'
#: What is shown, in the order in which a reader of perfusion looks: file, title, explanation.
FIGURES = (
    (
        'maps',
        'Perfusion maps',
        'CBF, CBV, MTT and Tmax, each in a fixed window. Compare sides: absolute CBF, CBV and MTT are not '
        'exact. On simulated heads CBF and MTT of healthy tissue read up to half too high, CBV up to twice.',
    ),
    (
        'rcbf',
        'Relative CBF: global beside local normalization',
        'Both at the same window, with their cores and the hypoperfusion. In the local map the '
        'healthy side opposite a lesion looks too well perfused: that is the division, not flow.',
    ),
    ('lesions', 'Core and mismatch', 'Over the reference image (mean of the pre-bolus frames).'),
    (
        'probability',
        'Probability of core',
        'How probable it is that a voxel lies below the threshold once its noise is taken away, before '
        'opening, closing and cleaning; the outline is the core as segmented. Noise of the curves '
        'alone: the threshold, the arterial input and the registration have errors of their own.',
    ),
    (
        'tmaxhist',
        'Tmax in each hemisphere',
        'The greater median names the affected side. If the medians differ by less than 0.5 s, the side '
        'with far more hypoperfusion does; a side that was asked for comes before both.',
    ),
    (
        'curves',
        'Arterial input and venous output',
        'An artery peaks early, high and narrow; the vein later. Both should have come down at '
        'the end of the scan.',
    ),
    (
        'mirror',
        'Mirror registration',
        'Sulci and ventricles must stay where they are when the second row flickers, and must not '
        'break at the edges of the fields. Otherwise do not use the local maps. Fields are black '
        'where the homologue lies outside of the slab.',
    ),
    ('masks', 'Masks', 'Tissue is brain without vessels and CSF. The midline may be bent.'),
    ('motion', 'Head motion', 'Against the first frame; shaded frames were not used.'),
)
#: What the deconvolution measured, as the sidecar of Tmax tells it: name, title, unit.
MEASURED = (
    ('lambda_rel', 'Lambda of CBF, of the largest singular value', 'ratio'),
    ('lambda', 'Lambda of CBF', 'ratio'),
    ('lambda_tmax', 'Lambda of Tmax', 'ratio'),
    ('tmax_offset_s', "Offset of Tmax: the operator's own response, mean of the slices", 's'),
    ('cbf_noise_excess', 'What noise adds to CBF, subtracted (median)', 'mL/100 g/min'),
    ('noise_raw_hu', 'Noise of tissue curves as scanned (median)', 'HU'),
    ('noise_denoised_hu', 'Noise of tissue curves as deconvolved (median)', 'HU'),
    ('n_patterns', 'Sampling patterns of the slices', 'ratio'),
)
#: Of pictures and viewers, bytes: with more, each series has a page of its own, so that none is slow.
MOST_BYTES = 20_000_000
# what named the affected side, and what its confidence counts
SIDE_RULES = {
    'median': 'by the medians of Tmax; 0 chance, 1 every voxel there has the longer Tmax',
    'hypoperfusion': 'by hypoperfusion, since the medians of Tmax are within 0.5 s; 0 as much of it on '
    'the other side, 1 none there',
    'asked for': 'as asked for',
}
STATUS = {'pass': ('✓', 'passed'), 'warn': ('!', 'caution'), 'fail': ('✕', 'failed')}
MISSING = (None, '', 'n/a', 'nan', 'None')


@dataclass
class Check:
    """One check of quality: its number, limit, light and sentence."""

    name: str
    title: str
    value: str
    limit: str
    status: str
    sentence: str


@dataclass
class Drawing:
    """The graph of some series, drawn twice.

    Attributes
    ----------
    key : str
        Start of the ids of the boxes of nodes.
    prefixes : list of str
        The series.
    stages, nodes : str
        SVG, which stands in the page as it is, for links into it.
    plotter : str
        Name of the node that draws the figures.
    made : dict of str to list of (str, list of str)
        For each figure, the nodes that made what it shows, with its quantities.
    """

    key: str
    prefixes: list[str]
    stages: str
    nodes: str
    plotter: str = ''
    made: dict[str, list[tuple[str, list[str]]]] = field(default_factory=dict)


@dataclass
class Section:
    """What the page tells of one series."""

    prefix: str
    volumes: list[dict[str, str]] = field(default_factory=list)
    reference: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    caution: str = ''
    figures: list[dict[str, str]] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)
    viewer: str = ''
    measured: dict[str, str] = field(default_factory=dict)
    apart: str = ''

    @property
    def n_bytes(self) -> int:
        """Size of pictures and viewer."""
        return len(self.viewer) + sum(len(each['source']) for each in self.figures)

    @property
    def anchor(self) -> str:
        """Name of the section in links."""
        return re.sub(r'[^A-Za-z0-9_-]', '-', self.prefix)

    @property
    def worst(self) -> str:
        """The worst light: fail, warn, pass, or '' without checks."""
        held = {check.status for check in self.checks}
        return next((status for status in ('fail', 'warn', 'pass') if status in held), '')

    @property
    def side(self) -> str:
        """Affected side, '' if not told."""
        return next((row['affected_side'] for row in self.volumes if row['affected_side']), '')

    @property
    def side_rule(self) -> str:
        """What named the affected side, in words."""
        rule = next((row['side_rule'] for row in self.volumes if row['side_rule']), '')
        return SIDE_RULES.get(rule, '')

    @property
    def confidence(self) -> str:
        """Confidence of the affected side."""
        return next((row['side_confidence'] for row in self.volumes if row['side_confidence']), '')

    @property
    def withheld(self) -> str:
        """Why the local maps were withheld, '' if they were not."""
        reason = self.find('core', 'local', 'volume').get('reason', '')
        return reason.removeprefix(WITHHELD) if reason.startswith(WITHHELD) else ''

    def find(self, region: str, normalization: str, measure: str) -> dict[str, str]:
        """Find a row of the volume table; empty if it is not there."""
        for row in self.volumes:
            if (row['region'], row['normalization'], row['measure']) == (
                region,
                normalization,
                measure,
            ):
                return row
        return {}


def build_report(
    output_dir: Path,
    participant: str,
    methods: str,
    run_info: dict[str, Any],
    drawings: Sequence[Drawing] = (),
) -> Path:
    """Write `sub-<label>.html` from the files of a participant.

    With more than `MOST_BYTES` of pictures, those of each series stand in a page of its own,
    `<prefix>_ctp.html`, which the page of the participant links to.

    Parameters
    ----------
    output_dir : Path
        The derivatives folder.
    participant : str
        Label, with or without ``sub-``.
    methods : str
        Methods text in plain Markdown (headings, paragraphs, lists, emphasis); ``[@key]`` cites
        an entry of ``resources/boilerplate.bib``. A `markupsafe.Markup` is taken as HTML.
    run_info : dict
        Configuration to show; nested dicts become tables. ``failed``: list of dicts with
        ``prefix``, ``reason`` and, if a step failed, ``records``: the folder of its crash file,
        seen from the page; ``version`` stands in the title line.
    drawings : sequence of Drawing
        The graph of each series; figures link to it.

    Returns
    -------
    Path
        The page of the participant.
    """
    label = participant.removeprefix('sub-')
    output_dir = Path(output_dir)
    text, cited = render_methods(methods)
    facts = {name: value for name, value in run_info.items() if name != 'failed'}
    sections = collect(output_dir, label, run_info.get('failed', []))
    told = {
        'label': label,
        'methods': text,
        'references': references(cited),
        'facts': facts,
        'drawings': drawings,
        'drawn': {prefix: each for each in drawings for prefix in each.prefixes},
        'version': run_info.get('version', ''),
        'written': datetime.now(UTC).strftime('%Y-%m-%d %H:%M UTC'),
        'lights': STATUS,
    }
    whole = f'sub-{label}.html'
    pages = {}
    if len(sections) > 1 and sum(section.n_bytes for section in sections) > MOST_BYTES:
        for place, section in enumerate(sections):
            if not section.n_bytes:
                continue
            name = f'{section.prefix}_ctp.html'
            pages[name] = _render([section], told | {'whole': whole})
            sections[place] = replace(section, viewer='', figures=[], apart=name)
    pages[whole] = _render(sections, told | {'whole': ''})
    for name, page in pages.items():
        write_atomically(
            lambda partial, page=page: partial.write_text(page, encoding='utf-8'),
            output_dir / name,
        )
    for path in output_dir.glob(f'sub-{label}_*ctp.html'):  # of more series, in an earlier run
        if path.name not in pages:
            path.unlink()
    return output_dir / whole


def _render(sections: list[Section], told: dict[str, Any]) -> str:
    """Render the page of some series."""
    scripts = load_scripts(any(section.viewer for section in sections))
    template = environment().get_template('report.html')
    return str(template.render(sections=sections, scripts=scripts, **told))


def collect(output_dir: Path, label: str, failed: list[dict[str, Any]]) -> list[Section]:
    """Find the series of a participant and what was written of each.

    Parameters
    ----------
    output_dir : Path
    label : str
        Without ``sub-``.
    failed : list of dict
        Series that ended in an error, as `build_report` takes them.

    Returns
    -------
    list of Section
        In the order of their names.
    """
    folder = output_dir / f'sub-{label}'
    sections: dict[str, Section] = {}

    def section(prefix: str) -> Section:
        return sections.setdefault(prefix, Section(prefix))

    for path in sorted(folder.rglob('*_seg-perfusion_morph.tsv')):
        section(path.name.removesuffix('_seg-perfusion_morph.tsv')).volumes = read_volumes(path)
    for path in sorted(folder.rglob('*_desc-global_rcbf.json')):
        told = json.loads(path.read_text(encoding='utf-8'))
        reference = {name: told[name] for name in ('Reference', 'ReferenceReason') if name in told}
        section(path.name.removesuffix('_desc-global_rcbf.json')).reference = reference
    for path in sorted(folder.rglob('*_tmax.json')):
        mine = section(path.name.removesuffix('_tmax.json'))
        mine.notes, mine.measured = read_notes(path), read_measured(path)
    for path in sorted(folder.rglob('*_desc-qualitycontrol_ctp.tsv')):
        mine = section(path.name.removesuffix('_desc-qualitycontrol_ctp.tsv'))
        mine.checks, mine.caution = read_quality(path)
    words = {what: (title, about) for what, title, about in FIGURES}
    for prefix, what, path in find_figures(folder / 'figures'):
        title, about = words.get(what, (what, ''))
        figure = {'what': what, 'title': title, 'about': about, 'source': embed(path)}
        section(prefix).figures.append(figure)
    for prefix, viewed in find_viewers(folder / 'figures'):
        section(prefix).viewer = viewed
    for each in failed:
        section(str(each.get('prefix', f'sub-{label}'))).failures.append(each)
    return [sections[prefix] for prefix in sorted(sections)]


def read_notes(path: Path) -> list[str]:
    """Read what the sidecar of Tmax tells of maps made elsewhere; nothing of our own."""
    return list(json.loads(path.read_text(encoding='utf-8')).get('EntryNotes', []))


def read_measured(path: Path) -> dict[str, str]:
    """Read what the deconvolution measured, in words; nothing of maps made elsewhere."""
    told = json.loads(path.read_text(encoding='utf-8')).get('Measured', {})
    return {
        title: figure(told[name], unit)
        for name, title, unit in MEASURED
        if told.get(name) is not None
    }


def read_settings_used(folder: Path) -> dict[str, Any]:
    """Read the settings that shaped the files of a participant, as their sidecars tell them.

    Parameters
    ----------
    folder : Path
        Of a participant.

    Returns
    -------
    dict
        Values by the name of the setting, as `MethodSettings` takes them.
    """
    known = declared(MethodSettings)
    used: dict[str, Any] = {}
    for path in sorted(folder.rglob('*.json')):
        told = json.loads(path.read_text(encoding='utf-8'))
        used |= flatten(told.get('Settings', {})) if isinstance(told, dict) else {}
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in used.items()
        if name in known
    }


def find_figures(folder: Path) -> list[tuple[str, str, Path]]:
    """List prefix, name and path of the figures, in the order in which they are shown."""
    order = [what for what, *_ in FIGURES]
    found = []
    for path in sorted(folder.glob('*_desc-*_ctp.svg')):
        prefix, _, what = path.name.removesuffix('_ctp.svg').rpartition('_desc-')
        # figures that this module does not know come last, under their own names
        found.append((order.index(what) if what in order else len(order), prefix, what, path))
    return [(prefix, what, path) for _, prefix, what, path in sorted(found)]


def embed(path: Path) -> str:
    """Turn an SVG into a data URI; it is mostly base64 inside, so quoting adds little."""
    svg = re.sub(r'<\?xml.*?\?>\s*|<!DOCTYPE.*?>\s*', '', path.read_text('utf-8'), flags=re.DOTALL)
    return 'data:image/svg+xml,' + quote(svg, safe=" =:/;,+()!*?@$'-_.~")


def read_table(path: Path) -> list[dict[str, str]]:
    """Read a table as rows of text; what is missing (n/a) becomes ''."""
    with path.open(encoding='utf-8', newline='') as file:
        rows = list(csv.DictReader(file, delimiter='\t'))
    return [
        {name: '' if text in MISSING else text for name, text in row.items() if name}
        for row in rows
    ]


def read_volumes(path: Path) -> list[dict[str, str]]:
    """Read the table of volumes; columns that the page looks at are there in every row."""
    return [dict.fromkeys(COLUMNS, '') | row for row in read_table(path)]


def read_quality(path: Path) -> tuple[list[Check], str]:
    """Read the checks of a series, whatever their names: failed ones first.

    Parameters
    ----------
    path : Path
        One row with ``caution`` and, for each check, columns ``<check>``, ``<check>_status`` and
        ``<check>_sentence``; a JSON of the same name describes them. A number without a status is
        listed last, without a light.

    Returns
    -------
    checks : list of Check
    caution : str
        Why local normalization is unreliable, '' if nothing speaks against it.
    """
    rows = read_table(path)
    sidecar = path.with_suffix('.json')
    about = json.loads(sidecar.read_text(encoding='utf-8')) if sidecar.is_file() else {}
    row = rows[0] if rows else {}
    caution = row.pop('caution', '')
    row.pop('status', None)  # the worst light of all
    names = dict.fromkeys(re.sub('_(status|sentence)$', '', name) for name in row)
    checks = []
    for name in names:
        told = about.get(name, {})
        told = told if isinstance(told, dict) else {'Description': str(told)}
        title = str(told.get('LongName') or name.replace('_', ' '))
        checks.append(
            Check(
                name=name,
                title=title[:1].upper() + title[1:],
                value=figure(row.get(name, ''), told.get('Units', '')),
                limit=limit(told),
                status=row.get(f'{name}_status', ''),
                sentence=row.get(f'{name}_sentence', '') or str(told.get('Description', '')),
            )
        )
    order = ['fail', 'warn', 'pass']
    checks.sort(key=lambda c: order.index(c.status) if c.status in order else 3)
    return checks, caution


def figure(text: Any, unit: str) -> str:
    """Write a figure with its unit; what is no number stays as it is.

    Examples
    --------
    >>> figure('0.046', 'fraction'), figure('12.34', 'mL'), figure('', 'mL')
    ('4.6 %', '12.3 mL', '')
    """
    try:
        return with_unit(float(text), unit).strip()
    except (TypeError, ValueError):
        return str(text)


def limit(told: dict[str, Any]) -> str:
    """Write the limit from which a check warns, by its sidecar; '' without one.

    Examples
    --------
    >>> limit({'Warn': 0.1, 'Units': 'fraction', 'LowIsBad': False})
    'at most 10 %'
    """
    if 'Warn' not in told:
        return ''
    way = 'at least' if told.get('LowIsBad') else 'at most'
    return f'{way} {figure(told["Warn"], told.get("Units", ""))}'


def number(text: Any, digits: int = 3) -> str:
    """Write a number with few digits, and any other text as it is.

    Examples
    --------
    >>> number('61.6531'), number('0.97'), number('n/a'), number('')
    ('61.7', '0.97', 'n/a', '')
    """
    try:
        value = float(text)
    except (TypeError, ValueError):
        return str(text)
    if not math.isfinite(value):
        return 'n/a'
    return f'{value:.0f}' if abs(value) >= 10 ** (digits - 1) else f'{value:.{digits}g}'


def millilitres(row: dict[str, str]) -> str:
    """Write the volume of a row, or why it has none."""
    if not row or not row['volume_ml']:
        reason = row.get('reason') or '–'
        return 'withheld' if reason.startswith(WITHHELD) else reason
    return f'{float(row["volume_ml"]):.1f} mL'


@cache
def environment() -> Any:
    """Make the jinja2 environment; text is escaped unless it is marked as HTML."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {'number': number, 'millilitres': millilitres, 'as_markup': Markup}
    return environment
