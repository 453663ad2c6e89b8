# SPDX-License-Identifier: Apache-2.0
"""Directives that draw the graph from the code as it is when the pages are built.

``drawn`` shows the graph of a series (stages or nodes), ``stage`` one stage with what it takes, puts out and
writes, and its part of the methods text; ``cited`` lists what those parts cite.
"""

import dataclasses
import importlib
import re
from functools import cache
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / 'data' / 'ds-phantom'
MAPS = ROOT / 'demo-output'
MARK = '(stage) '


@cache
def find_entry(entry: str):
    """Find the first series of the example, given a non-contrast CT; or the maps that the demo wrote."""
    from ctpprep.inputs.find import find_series
    from ctpprep.settings import RunSettings

    folder = EXAMPLE if entry == 'series' else MAPS
    run = RunSettings(bids_dir=folder, output_dir=ROOT / 'docs' / '_build' / 'none')
    found = find_series(run)[0]
    if entry == 'series':
        # any image does for a drawing: the example has no CT, and with one there is one more stage
        found = dataclasses.replace(found, ncct=found.path)
    return found, run


@cache
def read_entry(entry: str):
    """Build the workflow of an entry, and read its steps."""
    from ctpprep.engine.steps import read_steps
    from ctpprep.settings import MethodSettings
    from ctpprep.workflows.base import init_series_wf

    series, run = find_entry(entry)
    workflow = init_series_wf(series, MethodSettings(), run)
    return workflow, read_steps(workflow, series)


@cache
def draw_entry(entry: str, depth: str) -> str:
    """Draw the whole graph of an entry."""
    from ctpprep.cli.drawings import draw_graphs

    (drawing,) = draw_graphs({entry: read_entry(entry)[1]})
    # ids of the two entries must differ on one page
    return getattr(drawing, depth).replace('graph1-', f'{entry}-')


def draw_stage(stage: str, entry: str) -> str:
    """Draw the nodes of a stage below the stages that feed it."""
    from ctpprep.figures.graph import Box, draw_graph

    steps = read_entry(entry)[1]
    inside = [step for step in steps.values() if step.stage == stage]
    before, arrows = {}, []
    for step in inside:
        for port, (maker, _) in step.inputs.items():
            source = steps[maker].stage
            arrows.append((maker if source == stage else f'from {source}', step.name))
            if source != stage:
                before.setdefault(source, {})[port] = None
    boxes = [
        *(Box(f'from {name}', name, 'from', 'other', ', '.join(ports))
          for name, ports in before.items()),
        *(Box(step.name, step.name.partition('.')[2], step.interface, stage, _tip(step))
          for step in inside),
    ]  # fmt: skip
    return draw_graph(boxes, arrows, f'stage-{stage}')


def _tip(step) -> str:
    reads = ', '.join([*step.files, *step.inputs]) or 'nothing'
    return f'{step.interface}\nreads {reads}\nputs out {", ".join(step.outputs) or "files"}'


@cache
def methods() -> tuple[dict[str, str], list[str]]:
    """Render the methods text of every stage at once, so that citations are numbered through."""
    from ctpprep.reports.methods import render_methods

    told = {}
    for entry in ('series', 'maps'):
        workflow, steps = read_entry(entry)
        for stage in dict.fromkeys(step.stage for step in steps.values()):
            node = workflow.get_node(f'{stage}_wf')
            text = (getattr(node, '__desc__', None) or '').strip()
            told.setdefault(stage, re.sub(r'^#+ .*\n', '', text).strip())
    html, cited = render_methods(''.join(f'{MARK}{name}\n\n{t}\n\n' for name, t in told.items()))
    parts = re.split(rf'<p>{re.escape(MARK)}(\w+)</p>', str(html))[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True)), cited


def _raw(html: str) -> nodes.raw:
    return nodes.raw('', html, format='html')


def _drawn(svg: str) -> nodes.raw:
    return _raw(f'<div class="drawn">{svg}</div>')


class Drawn(SphinxDirective):
    """The graph of a series, or of maps made elsewhere: ``drawn`` stages or nodes."""

    required_arguments = 1
    option_spec = {'entry': directives.unchanged}

    def run(self):
        self.env.note_reread()
        return [_drawn(draw_entry(self.options.get('entry', 'series'), self.arguments[0]))]


class Stage(SphinxDirective):
    """One stage: builder, graph, ports, files, methods text."""

    required_arguments = 1
    option_spec = {'entry': directives.unchanged}

    def run(self):
        self.env.note_reread()
        (stage,) = self.arguments
        entry = self.options.get('entry', 'series')
        steps = read_entry(entry)[1]
        inside = [step for step in steps.values() if step.stage == stage]
        if not inside:
            raise self.error(f'the graph has no stage {stage}')
        module, builder = f'ctpprep.workflows.{stage}', f'init_{stage}_wf'
        summary = getattr(importlib.import_module(module), builder).__doc__.split('\n\n')[0]
        about = [f'[`{builder}`](#{module}.{builder}): {" ".join(summary.split())}']
        takes, gives = {}, {}
        for step in steps.values():
            for port, (maker, made) in step.inputs.items():
                source = steps[maker].stage
                if step.stage == stage != source:
                    takes.setdefault(source, {})[port] = None
                elif source == stage != step.stage:
                    gives.setdefault(step.stage, {})[made] = None
        rows = [('reads', ', '.join(dict.fromkeys(f'`{p}`' for s in inside for p in s.files)))]
        rows += [(f'{way} {name}', ', '.join(f'`{port}`' for port in ports))
                 for way, ends in (('takes from', takes), ('gives to', gives))
                 for name, ports in ends.items()]  # fmt: skip
        rows.append(('writes', ', '.join(dict.fromkeys(
            f'`{_ending(path)}`' for step in inside for path in step.written
        ))))  # fmt: skip
        about.append('\n'.join(f'* {what}: {which}' for what, which in rows if which))
        shown = self.parse_text_to_nodes('\n\n'.join(about))
        shown.insert(1, _drawn(draw_stage(stage, entry)))
        if text := methods()[0].get(stage, '').strip():
            shown.append(nodes.rubric('', 'Methods text'))
            shown.append(nodes.block_quote('', _raw(text)))
        return shown


def _ending(path: str) -> str:
    """Name a file without the label of its participant."""
    return re.sub(r'^sub-[^_]+_', '', path.rpartition('/')[2])


class Cited(SphinxDirective):
    """What the methods texts of the page cite."""

    def run(self):
        from ctpprep.reports.methods import list_references

        lines = []
        for each in list_references(methods()[1]):
            doi = each['doi']
            link = f' <a href="https://doi.org/{doi}">doi:{doi}</a>' if doi else ''
            lines.append(f'<li id="ref-{each["key"]}">{each["text"]}{link}</li>')
        return [_raw(f'<ol>{"".join(lines)}</ol>')]


def setup(app):
    """Register the directives."""
    app.add_directive('drawn', Drawn)
    app.add_directive('stage', Stage)
    app.add_directive('cited', Cited)
    return {'parallel_read_safe': True, 'parallel_write_safe': True}
