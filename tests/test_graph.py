# SPDX-License-Identifier: Apache-2.0
"""The graph as a drawing and as a tree."""

import re
import xml.etree.ElementTree as ET
from itertools import combinations
from pathlib import Path

import pytest

import ctpprep.workflows
from ctpprep.cli import graphs
from ctpprep.cli.graphs import draw_graphs
from ctpprep.cli.plan import format_tree
from ctpprep.engine.graph import Step
from ctpprep.figures.sources import DRAWN_FROM
from ctpprep.interfaces.figures import PlotSeries
from ctpprep.reports import build_report, graph, sections
from ctpprep.reports.graph import HEIGHT, WIDTH, Box, draw_graph, reduce_arrows
from ctpprep.settings import MethodSettings, RunSettings

SVG = '{http://www.w3.org/2000/svg}'
ARROWS = [('a', 'b'), ('a', 'c'), ('b', 'd'), ('c', 'e'), ('d', 'e'), ('e', 'f'), ('a', 'g'),
          ('b', 'h'), ('c', 'f')]  # fmt: skip
BOXES = [Box(name, f'node_{name}', 'stage') for name in 'abcdefgh']
STEPS = {
    step.name: step
    for step in (
        Step('one.read', 'Read', {}, {'ctp': 'bids:raw:x_ctp.nii.gz'}, ('cbf', 'tmax')),
        Step('one.write_one', 'WriteDerivatives', {'cbf': ('one.read', 'cbf')}, {}, ('written',),
             ('x_cbf.nii.gz',)),
        Step('quality.plot_series', 'PlotSeries',
             {'cbf': ('one.read', 'cbf'), 'tmax': ('one.read', 'tmax')}, {}, ('figures',)),
    )
}  # fmt: skip


@pytest.fixture
def without_dot(monkeypatch):
    monkeypatch.setattr(graph.shutil, 'which', lambda _: None)


def places(svg):
    """Left and upper edge of each box by its id."""
    found = {}
    for group in ET.fromstring(svg).iter(f'{SVG}g'):
        rect = group.find(f'{SVG}rect')
        found[group.get('id').removeprefix('graph-')] = (
            float(rect.get('x')), float(rect.get('y')),
        )  # fmt: skip
    return found


def test_every_box_stands_above_what_it_feeds_and_none_overlap(without_dot):
    at = places(draw_graph(BOXES, ARROWS))
    assert set(at) == set('abcdefgh')
    assert all(at[one][1] + HEIGHT < at[two][1] for one, two in ARROWS)
    for (x0, y0), (x1, y1) in combinations(at.values(), 2):
        assert abs(x0 - x1) >= WIDTH or abs(y0 - y1) >= HEIGHT


def test_a_stage_has_its_colour_whatever_is_drawn_beside_it(without_dot):
    folder = Path(ctpprep.workflows.__file__).parent
    stages = [
        path.stem for path in folder.glob('*.py') if f'def init_{path.stem}_wf' in path.read_text()
    ]
    boxes = [Box(each, each, group=each) for each in sorted({*stages} - {'base'})]
    fills = set()
    for box in boxes:
        alone = draw_graph([box], [])
        fill = re.search('<rect .*rx="6" fill="(.*?)"', alone)[1]
        assert f'rx="6" fill="{fill}"' in draw_graph(boxes, [])
        fills.add(fill)
    assert len(fills - {graph.OTHER}) == len(boxes) == len(graph.COLOURS)


def test_every_box_is_inside_the_drawing(without_dot):
    svg = draw_graph(BOXES, ARROWS)
    left, top, width, height = map(float, ET.fromstring(svg).get('viewBox').split())
    for x, y in places(svg).values():
        assert left <= x <= left + width - WIDTH
        assert top <= y <= top + height - HEIGHT


def test_the_same_graph_gives_the_same_drawing(without_dot):
    assert draw_graph(BOXES, ARROWS) == draw_graph(BOXES, ARROWS[::-1])


def test_implied_arrows_are_left_out(without_dot):
    kept = reduce_arrows('abcdefgh', ARROWS)
    assert set(ARROWS) - set(kept) == {('c', 'f')}
    assert draw_graph(BOXES, ARROWS).count('marker-end') == len(kept)


def test_names_are_escaped(without_dot):
    assert 'a &lt;b&gt;' in draw_graph([Box('x', 'a <b>')], [])


@pytest.fixture
def fake_dot(tmp_path, monkeypatch):
    """Put a program in the place of graphviz; give what writes its answer."""

    def answer(text, code=0):
        program = tmp_path / 'dot'
        program.write_text(f'#!/bin/sh\ncat >/dev/null\nprintf "{text}"\nexit {code}\n')
        program.chmod(0o755)
        monkeypatch.setattr(graph.shutil, 'which', lambda _: str(program))

    return answer


PLAIN = (
    'graph 1 3 2\\nnode n0 1.0 1.75 2.7 0.6 a solid box black lightgrey\\n'
    'node n1 2.0 0.25 2.7 0.6 b solid box black lightgrey\\n'
    'edge n0 n1 4 1.0 1.5 1.2 1.0 1.8 1.0 2.0 0.5 solid black\\nstop\\n'
)


def test_graphviz_places_the_boxes_where_it_is_installed(fake_dot):
    fake_dot(PLAIN)
    svg = draw_graph(BOXES[:2], [('a', 'b')])
    assert places(svg) == {
        'a': (pytest.approx(72 - WIDTH / 2), pytest.approx(-126 - HEIGHT / 2)),
        'b': (pytest.approx(144 - WIDTH / 2), pytest.approx(-18 - HEIGHT / 2)),
    }
    assert 'M72.0 -108.0C86.4 -72.0 129.6 -72.0 144.0 -36.0' in svg


@pytest.mark.parametrize(('text', 'code'), [(PLAIN, 1), ('', 0), ('node n0 x', 0)])
def test_a_failing_graphviz_is_done_without(fake_dot, without_dot, text, code):
    own = draw_graph(BOXES[:2], [('a', 'b')])
    fake_dot(text, code)
    assert draw_graph(BOXES[:2], [('a', 'b')]) == own


# -- of series


def test_series_of_one_graph_share_a_drawing(without_dot):
    other = {name: step for name, step in STEPS.items() if name != 'one.write_one'}
    drawings = draw_graphs({'sub-1': STEPS, 'sub-2': STEPS, 'sub-3': other})
    assert [each.prefixes for each in drawings] == [['sub-1', 'sub-2'], ['sub-3']]
    assert set(places(drawings[0].stages)) == {'graph1-stages-one', 'graph1-stages-quality'}
    ids = places(drawings[0].nodes)
    assert {name.removeprefix('graph1-nodes-') for name in ids} == set(STEPS)


def test_both_drawings_are_written_once_a_graph(without_dot, tmp_path, monkeypatch):
    monkeypatch.setattr(graphs, 'graphs_of', lambda *_: {'sub-1': STEPS, 'sub-2': STEPS})
    run = RunSettings(tmp_path, tmp_path / 'out', tmp_path / 'work', run_uuid='x')
    written = graphs.write_graphs([], MethodSettings(), run)
    assert written == ['graph-x_1-stages.svg', 'graph-x_1-nodes.svg']
    assert sorted(path.name for path in (tmp_path / 'out' / 'logs').iterdir()) == sorted(written)
    assert set(places((tmp_path / 'out' / 'logs' / written[1]).read_text())) == {
        f'graph1-nodes-{name}' for name in STEPS
    }


def test_a_figure_links_to_the_nodes_that_made_it(without_dot, tmp_path):
    folder = tmp_path / 'sub-1' / 'figures'
    folder.mkdir(parents=True)
    (folder / 'sub-1_desc-maps_ctp.svg').write_text('<svg/>')
    text = build_report(tmp_path, '1', '', {}, draw_graphs({'sub-1': STEPS})).read_text()
    for name in ('quality.plot_series', 'one.read'):
        assert f'<a href="#graph1-nodes-{name}">{name}</a>' in text
        assert text.count(f'id="graph1-nodes-{name}"') == 1
    assert 'cbf, tmax of' in text


def test_what_each_figure_shows_is_an_input_of_the_node_that_draws_it():
    assert set(DRAWN_FROM) == {what for what, *_ in sections.FIGURES}
    known = set(PlotSeries().inputs.copyable_trait_names())
    assert {port for ports in DRAWN_FROM.values() for port in ports} <= known


def test_the_tree_tells_what_each_node_reads_and_writes():
    assert format_tree(STEPS) == [
        '├── one',
        '│   ├── read (Read)',
        '│   │     reads   ctp: bids:raw:x_ctp.nii.gz',
        '│   │     passes on cbf, tmax',
        '│   └── write_one (WriteDerivatives)',
        '│         reads   cbf from one.read',
        '│         writes  x_cbf.nii.gz',
        '└── quality',
        '    └── plot_series (PlotSeries)',
        '          reads   cbf, tmax from one.read',
        '          passes on figures',
    ]
