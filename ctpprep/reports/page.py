# SPDX-License-Identifier: Apache-2.0
"""The page of a participant.

The page is one file with figures, style and scripts inside. A content security policy forbids every
request and every script but its own; only the viewer needs JavaScript. jinja2 renders it directly:
the assembler of nireports links figures as files and does not escape text, so a page that is mailed
or copied to an air-gapped machine would lose its figures.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ctpprep.figures.palette import VERDICT_GRADES
from ctpprep.io.files import write_atomically
from ctpprep.reports.methods import list_references, render_methods
from ctpprep.reports.sections import Section, collect_sections
from ctpprep.reports.template import LIGHTS, environment
from ctpprep.reports.viewer import load_scripts

#: Size of figures and viewers, bytes, above which each series gets its own page: larger pages are slow.
MAX_BYTES = 20_000_000


@dataclass
class Drawing:
    """The graph of one or more series, as stages and as nodes.

    Attributes
    ----------
    key : str
        Start of the ids of the boxes of nodes.
    prefixes : list of str
        The series.
    stages, nodes : str
        SVG, inserted into the page as markup so that links can lead into it.
    plotter : str
        Name of the node that draws the figures.
    made : dict of str to list of (str, list of str)
        For each figure, the nodes that computed its content, with the quantities.
    """

    key: str
    prefixes: list[str]
    stages: str
    nodes: str
    plotter: str = ''
    made: dict[str, list[tuple[str, list[str]]]] = field(default_factory=dict)


def build_report(
    output_dir: Path,
    participant: str,
    methods: str,
    run_info: dict[str, Any],
    drawings: Sequence[Drawing] = (),
) -> Path:
    """Write `sub-<label>.html` from the files of a participant.

    If figures and viewers exceed `MAX_BYTES`, those of each series are in a page of its own,
    `<prefix>_ctp.html`, to which the page of the participant links.

    Parameters
    ----------
    output_dir : Path
        The derivatives folder.
    participant : str
        Label, with or without ``sub-``.
    methods : str
        Methods text in plain Markdown (headings, paragraphs, lists, emphasis); ``[@key]`` cites
        an entry of ``resources/boilerplate.bib``. A `markupsafe.Markup` is inserted as HTML.
    run_info : dict
        Configuration to show; nested dicts become tables. ``failed``: list of dicts with
        ``prefix``, ``reason`` and, if a step failed, ``records``: the folder of its crash file,
        relative to the page; ``version`` is shown in the title line.
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
    context = {
        'label': label,
        'methods': text,
        'references': list_references(cited),
        'run_info': {name: value for name, value in run_info.items() if name != 'failed'},
        'drawings': drawings,
        'drawing_by_prefix': {
            prefix: drawing for drawing in drawings for prefix in drawing.prefixes
        },
        'version': run_info.get('version', ''),
        'written': datetime.now(UTC).strftime('%Y-%m-%d %H:%M UTC'),
        'lights': LIGHTS,
        'verdict_lights': VERDICT_GRADES,
    }
    sections = collect_sections(output_dir, label, run_info.get('failed', []))
    pages = _render_pages(f'sub-{label}.html', sections, context)
    for name, page in pages.items():
        write_atomically(
            lambda partial, page=page: partial.write_text(page, encoding='utf-8'),
            output_dir / name,
        )
    for path in output_dir.glob(
        f'sub-{label}_*ctp.html'
    ):  # an earlier run had more or larger series
        if path.name not in pages:
            path.unlink()
    return output_dir / f'sub-{label}.html'


def _render_pages(
    main_page: str, sections: list[Section], context: dict[str, Any]
) -> dict[str, str]:
    """Render the page of the participant, and those of its series if they have their own."""
    pages = {}
    if len(sections) > 1 and sum(section.n_bytes for section in sections) > MAX_BYTES:
        own_pages = {
            section.prefix: f'{section.prefix}_ctp.html' for section in sections if section.n_bytes
        }
        for section in sections:
            if name := own_pages.get(section.prefix):
                pages[name] = _render([section], context | {'main_page': main_page})
        sections = [
            replace(section, viewer='', figures=[], own_page=own_pages[section.prefix])
            if section.prefix in own_pages
            else section
            for section in sections
        ]
    pages[main_page] = _render(sections, context | {'main_page': ''})
    return pages


def _render(sections: list[Section], context: dict[str, Any]) -> str:
    """Render the page of one or more series."""
    scripts = load_scripts(any(section.viewer for section in sections))
    template = environment().get_template('report.html')
    return str(template.render(sections=sections, scripts=scripts, **context))
