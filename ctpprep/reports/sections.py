# SPDX-License-Identifier: Apache-2.0
"""The sections of a page: what was written of each series of a participant.

Figures are embedded as images, not as markup: their ids cannot clash and no script in them runs.
"""

import re
import string
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ctpprep.interfaces.summary import Summary, find_row, read_volumes, summarize
from ctpprep.io.tables import read_table
from ctpprep.perfusion.quality import RESULTS
from ctpprep.perfusion.symmetry import WITHHELD
from ctpprep.reports.evidence import describe_remedy
from ctpprep.reports.followup import ROWS as FOLLOWUP_ROWS
from ctpprep.reports.followup import read_followup
from ctpprep.reports.places import QUALITY, find_places
from ctpprep.reports.quality import Check, read_quality
from ctpprep.reports.sidecars import (
    read_measured,
    read_notes,
    read_other_templates,
    read_reference,
    read_template_measured,
)
from ctpprep.reports.viewer import find_viewers

# characters that browsers accept unencoded in the data URI of an SVG
KEPT_IN_URI = {*string.ascii_letters, *string.digits, *" =:/;,+()!*?@$'-_.~"}
#: Figures in the order in which a reader of perfusion looks: name, title, caption.
FIGURES = (
    (
        'summary',
        'Summary',
        'Core by each normalization and hypoperfusion over the reference image, in the slices that show '
        'them; arterial input (AIF) and venous output (VOF), where there are curves.',
    ),
    (
        'evidence',
        'What was found before the series failed',
        'Above: the mean curve of the searched region, and the curves in it that are most like a bolus. '
        'After a bolus, arteries rise by 100 HU or more and fall again within half a minute, and the mean '
        'rises by a few HU; jumps are motion. Below: the mean image with outlines of the region and, if '
        'found, of brain or tissue; circles mark the voxels of those curves.',
    ),
    (
        'maps',
        'Perfusion maps',
        'Compare sides, not values: CBF, CBV and MTT are estimates. In one of five simulated heads, CBF '
        'was off by more than 25 %.',
    ),
    (
        'rcbf',
        'Relative CBF: global beside local normalization',
        'Each map with its own core and the hypoperfusion. The healthy side opposite a lesion is '
        'overestimated in the local map: an effect of the division, not hyperperfusion.',
    ),
    (
        'lesions',
        'Core and mismatch',
        'Over the mean of the frames before contrast.',
    ),
    (
        'followup',
        'Against follow-up',
        'The outline of the lesion of a later session, with the voxels that each core hits or misses, and '
        'false ones. Missed voxels may have become infarct after the scan, or be swelling. False ones may '
        'be outside the follow-up image, or below its contrast.',
    ),
    (
        'probability',
        'Probability of core',
        'Probability that relative CBF without noise is below the threshold, before cleaning. It includes '
        'the noise of the curves and an error that all voxels share, but not errors of the threshold, the '
        'arterial input or the registration.',
    ),
    (
        'tmaxhist',
        'Tmax in each hemisphere',
        'The affected side has the greater median. If the medians differ by less than 0.5 s, it is the '
        'side with far more hypoperfusion. A requested side takes precedence.',
    ),
    (
        'curves',
        'Arterial input and venous output',
        'The artery should peak early, high and narrow, the vein later. Both should come down before the '
        'scan ends.',
    ),
    (
        'mirror',
        'Mirror registration',
        'While the second row flickers, sulci and ventricles must stay in place; in the chequerboard, they '
        'must continue across the fields. Otherwise do not use the local map. In black fields the '
        'homologue is outside the slab.',
    ),
    (
        'regions',
        'Regions',
        'Registered from template space: ventricles and cortex must match the regions. Borders are '
        'accurate to a few mm at best.',
    ),
    ('masks', 'Masks', 'Tissue is brain without vessels and CSF. The midline may be bent.'),
    (
        'motion',
        'Head motion',
        'Relative to the reference frame: x to the right, y to the front, z to the top of the head. '
        'Shaded frames were rejected.',
    ),
)
#: Results from which a column of the table of regions is computed.
REGION_COLUMNS = {
    'core_global_ml': ('core_global',), 'core_local_ml': ('core_local',),
    'hypoperfusion_ml': ('hypoperfusion',), 'tmax': ('hypoperfusion',),
    'cbf': ('core_global',), 'rcbf_global': ('core_global',), 'rcbf_local': ('core_local',),
    **dict.fromkeys(('removed_ml', 'added_ml', 'kept_ml'), ('core_global', 'core_local')),
}  # fmt: skip
#: What determined the affected side, and the scale of its confidence.
SIDE_RULES = {
    'median': 'by the median of Tmax; a confidence of 0 is chance, of 1 means that every voxel there has '
    'the longer Tmax',
    'hypoperfusion': 'by hypoperfusion, as the medians of Tmax differ by less than 0.5 s; a confidence of '
    '0 means equal volumes on both sides, one of 1 that only this side is hypoperfused',
    'asked for': 'as requested',
}


@dataclass
class Section:
    """The content of the page about one series.

    Attributes
    ----------
    prefix : str
        Start of the names of all files of the series.
    volumes : list of dict
        Rows of the volume table, as text.
    reference : dict
        ``Reference`` of global normalization, and ``ReferenceReason`` if it was changed.
    notes : list of str
        On precomputed maps; none if ctpprep computed the maps.
    checks : list of Check
    caution : str
        Why local normalization is unreliable, '' if there is no reason.
    figures : list of dict
        ``name``, ``title``, ``caption``, ``source``, a data URI, and ``file``, relative to the page.
    failures : list of dict
        As `ctpprep.reports.page.build_report` accepts them.
    viewer : str
        Element of the page with the data of the viewer.
    measured : dict
        Measurements of the deconvolution, formatted, by title.
    followup : list of dict
        Agreement of cores and hypoperfusion with the follow-up lesion, formatted.
    followup_note : str
        How the follow-up lesion was aligned, or why it was left out; '' without one.
    regions : list of dict
        Rows of the table of regions, as text.
    template : dict
        What the registration to the template measured, formatted, by title.
    own_page : str
        Name of the page with viewer and figures, if they are not on this page.
    moved_titles : dict of str to str
        Titles by name of the figures on that page.
    summary : Summary, optional
        Verdict and numbers of the first screen.
    one_page : str
        Path of the one-page summary relative to the page, '' if there is none.
    """

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
    regions: list[dict[str, str]] = field(default_factory=list)
    template: dict[str, str] = field(default_factory=dict)
    own_page: str = ''
    moved_titles: dict[str, str] = field(default_factory=dict)
    summary: Summary | None = None
    one_page: str = ''
    followup: list[dict[str, str]] = field(default_factory=list)
    followup_note: str = ''

    @property
    def n_bytes(self) -> int:
        """Size of figures and viewer."""
        return len(self.viewer) + sum(len(figure['source']) for figure in self.figures)

    @property
    def anchor(self) -> str:
        """Id of the section."""
        return make_anchor(self.prefix)

    @property
    def worst(self) -> str:
        """The worst grade: fail, warn, pass, or '' without checks."""
        grades = {check.status for check in self.checks}
        return next((grade for grade in ('fail', 'warn', 'pass') if grade in grades), '')

    @property
    def verdict(self) -> str:
        """Verdict on the series, '' if there is none."""
        if self.failures:
            return 'do not use'
        return self.summary.verdict.word if self.summary else ''

    @property
    def places(self) -> list[tuple[str, str]]:
        """Links and titles of what to look at, unless the series is usable."""
        if not self.summary or self.verdict == 'usable':
            return []
        titles = self.moved_titles | self.figure_titles
        names = find_places(self.summary.verdict.deciding, titles, bool(self.withheld))
        titles = titles | {QUALITY: 'Quality'}
        pages = dict.fromkeys(self.moved_titles, quote(self.own_page))
        return [(f'{pages.get(name, "")}#{self.anchor}-{name}', titles[name]) for name in names]

    @property
    def figure_titles(self) -> dict[str, str]:
        """Titles by name of the figures."""
        return {figure['name']: figure['title'] for figure in self.figures}

    def move_figures(self, own_page: str) -> 'Section':
        """Return the section without viewer and figures, which are on a page of their own."""
        moved = self.figure_titles
        return replace(self, viewer='', figures=[], own_page=own_page, moved_titles=moved)

    @property
    def doubtful(self) -> tuple[str, ...]:
        """Results not to be used: those that a failed check concerns; all if the series failed."""
        if self.failures:
            return RESULTS
        return self.summary.verdict.doubtful if self.summary else ()

    def is_doubtful(self, region: str, normalization: str = '') -> bool:
        """Return whether a failed check concerns rows of the volume table.

        Examples
        --------
        >>> section = Section('sub-01', failures=[{'reason': 'no brain'}])
        >>> section.is_doubtful('mismatch', 'global'), section.is_doubtful('brain')
        (True, False)
        """
        core, hypoperfusion = f'core_{normalization or "global"}', 'hypoperfusion'
        basis = {
            'core': {core}, 'rcbf': {core}, 'hypoperfusion': {hypoperfusion}, 'tmax': {hypoperfusion},
            'mismatch': {core, hypoperfusion}, 'defuse3': {core, hypoperfusion},
            'unassessable': {'core_local'},
        }  # fmt: skip
        return not basis.get(region, set()).isdisjoint(self.doubtful)

    @property
    def doubtful_columns(self) -> list[str]:
        """Columns of the table of regions that a failed check concerns."""
        return [name for name, parts in REGION_COLUMNS.items() if {*parts} & {*self.doubtful}]

    @property
    def doubtful_titles(self) -> list[str]:
        """Titles of rows of the follow-up table that a failed check concerns."""
        return [title for name, which, title in FOLLOWUP_ROWS if self.is_doubtful(name, which)]

    @property
    def side(self) -> str:
        """Affected side."""
        return self._first_value('affected_side')

    @property
    def side_rule(self) -> str:
        """What determined the affected side, and the scale of its confidence."""
        return SIDE_RULES.get(self._first_value('side_rule'), '')

    @property
    def confidence(self) -> str:
        """Confidence of the affected side."""
        return self._first_value('side_confidence')

    @property
    def withheld(self) -> str:
        """Why the local maps were withheld, '' if they were not."""
        reason = self.find('core', 'local', 'volume').get('reason', '')
        return reason.removeprefix(WITHHELD) if reason.startswith(WITHHELD) else ''

    def find(self, region: str, normalization: str, measure: str) -> dict[str, str]:
        """Return a row of the volume table; empty if there is none."""
        return dict(find_row(self.volumes, region, normalization, measure))

    def _first_value(self, column: str) -> str:
        return next((row[column] for row in self.volumes if row[column]), '')


def make_anchor(prefix: str) -> str:
    """Make the id of the section of a series, for links."""
    return re.sub(r'[^A-Za-z0-9_-]', '-', prefix)


def collect_sections(
    output_dir: Path, label: str, failed: Sequence[dict[str, Any]]
) -> list[Section]:
    """Find the series of a participant and read what was written of each.

    Parameters
    ----------
    output_dir : Path
    label : str
        Without ``sub-``.
    failed : sequence of dict
        Series that failed, as `ctpprep.reports.page.build_report` accepts them.

    Returns
    -------
    list of Section
        In the order of their names.
    """
    folder = output_dir / f'sub-{label}'
    sections: dict[str, Section] = {}

    def get_section(prefix: str) -> Section:
        return sections.setdefault(prefix, Section(prefix))

    def find_files(ending: str) -> list[tuple[Section, Path]]:
        # images in template space, whose names have a resolution, belong to the same series
        paths = [path for path in sorted(folder.rglob(f'*{ending}')) if '_res-' not in path.name]
        return [(get_section(path.name.removesuffix(ending)), path) for path in paths]

    for section, path in find_files('_seg-perfusion_morph.tsv'):
        section.volumes = read_volumes(path)
    for section, path in find_files('_desc-regions_morph.tsv'):
        section.regions = read_table(path)
        section.template = read_template_measured(path.with_suffix('.json'))
        section.template |= read_other_templates(path)
    for section, path in find_files('_desc-global_rcbf.json'):
        section.reference = read_reference(path)
    for section, path in find_files('_tmax.json'):
        section.notes, section.measured = read_notes(path), read_measured(path)
    for section, path in find_files('_desc-qualitycontrol_ctp.tsv'):
        section.checks, section.caution = read_quality(path)
        if section.volumes:
            section.summary = summarize(section.volumes, (read_table(path) or [{}])[0])
    for section, path in find_files('_desc-summary_ctp.pdf'):
        section.one_page = path.relative_to(output_dir).as_posix()
    for section, path in find_files('_desc-followup_morph.tsv'):
        section.followup, section.followup_note = read_followup(path)
    texts = {name: (title, caption) for name, title, caption in FIGURES}
    for prefix, name, path in find_figures(folder / 'figures'):
        title, caption = texts.get(name, (name, ''))
        get_section(prefix).figures.append(
            {
                'name': name,
                'title': title,
                'caption': caption,
                'source': embed_svg(path),
                'file': path.relative_to(output_dir).as_posix(),
            }
        )
    for prefix, element in find_viewers(folder / 'figures'):
        get_section(prefix).viewer = element
    for failure in failed:
        remedy = describe_remedy(str(failure.get('reason', '')))
        section = get_section(str(failure.get('prefix', f'sub-{label}')))
        section.failures.append(failure | {'remedy': remedy})
    return [sections[prefix] for prefix in sorted(sections)]


def find_figures(folder: Path) -> list[tuple[str, str, Path]]:
    """List prefix, name and path of the figures, in the order in which they are shown."""
    order = [name for name, *_ in FIGURES]
    figures = []
    for path in sorted(folder.glob('*_desc-*_ctp.svg')):
        prefix, _, name = path.name.removesuffix('_ctp.svg').rpartition('_desc-')
        # figures that are not in FIGURES come last, under their own names
        figures.append((order.index(name) if name in order else len(order), prefix, name, path))
    return [(prefix, name, path) for _, prefix, name, path in sorted(figures)]


def embed_svg(path: Path) -> str:
    """Encode an SVG as a data URI; most of it is base64, so percent-encoding adds little."""
    svg = re.sub(r'<\?xml.*?\?>\s*|<!DOCTYPE.*?>\s*', '', path.read_text('utf-8'), flags=re.DOTALL)
    # as quote() would do it for all characters one by one; '%' first, as it is in the codes of the others
    for character in sorted({*svg} - KEPT_IN_URI, key='%'.__ne__):
        svg = svg.replace(character, quote(character))
    return f'data:image/svg+xml,{svg}'
