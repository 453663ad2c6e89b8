# SPDX-License-Identifier: Apache-2.0
"""The graph as a picture and as a tree."""

import re
import xml.etree.ElementTree as ET
from itertools import combinations
from pathlib import Path

import ctpprep.workflows
from ctpprep.cli import drawings
from ctpprep.cli.drawings import draw_graphs
from ctpprep.cli.plan import format_tree
from ctpprep.engine.steps import Step
from ctpprep.figures.graph import (
    COLOURS,
    HEIGHT,
    OTHER_COLOUR,
    WIDTH,
    Box,
    draw_graph,
    find_paths,
    place,
)
from ctpprep.figures.sources import DRAWN_FROM
from ctpprep.interfaces.figures import PlotSeries
from ctpprep.reports import build_report, sections
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


def corners(svg):
    """Left and upper edge of each box by its id."""
    boxes = {}
    for group in ET.fromstring(svg).iter(f'{SVG}g'):
        rect = group.find(f'{SVG}rect')
        name = group.get('id').removeprefix('graph-')
        boxes[name] = float(rect.get('x')), float(rect.get('y'))
    return boxes


def test_every_box_is_above_the_boxes_it_feeds_and_none_overlap():
    boxes = corners(draw_graph(BOXES, ARROWS))
    assert set(boxes) == set('abcdefgh')
    assert all(boxes[start][1] + HEIGHT < boxes[end][1] for start, end in ARROWS)
    for (x0, y0), (x1, y1) in combinations(boxes.values(), 2):
        assert abs(x0 - x1) >= WIDTH or abs(y0 - y1) >= HEIGHT


def test_arrows_over_several_layers_bend_around_the_boxes_between():
    paths = find_paths('abcdefgh', ARROWS)
    bends = {path[0] + path[-1]: len(path) - 2 for path in paths}
    assert bends == {'ab': 0, 'ac': 0, 'ag': 0, 'bd': 0, 'bh': 0, 'ce': 1, 'de': 0, 'ef': 0}
    places = place(BOXES, paths)
    boxes = [places[box.name] for box in BOXES]
    for name in places.keys() - set('abcdefgh'):
        x, y = places[name]
        assert all(abs(x - bx) > WIDTH / 2 for bx, by in boxes if by == y)


def test_a_stage_has_the_same_colour_in_every_picture():
    folder = Path(ctpprep.workflows.__file__).parent
    stages = [
        path.stem for path in folder.glob('*.py') if f'def init_{path.stem}_wf' in path.read_text()
    ]
    boxes = [Box(stage, stage, stage=stage) for stage in sorted({*stages} - {'base'})]
    fills = set()
    for box in boxes:
        alone = draw_graph([box], [])
        fill = re.search('<rect .*rx="6" fill="(.*?)"', alone)[1]
        assert f'rx="6" fill="{fill}"' in draw_graph(boxes, [])
        fills.add(fill)
    assert len(fills - {OTHER_COLOUR}) == len(boxes) == len(COLOURS)


def test_every_box_is_inside_the_picture():
    svg = draw_graph(BOXES, ARROWS)
    left, top, width, height = map(float, ET.fromstring(svg).get('viewBox').split())
    for x, y in corners(svg).values():
        assert left <= x <= left + width - WIDTH
        assert top <= y <= top + height - HEIGHT


def test_order_of_arrows_does_not_change_the_picture():
    assert draw_graph(BOXES, ARROWS) == draw_graph(BOXES, ARROWS[::-1])


def test_implied_arrows_are_omitted():
    paths = find_paths('abcdefgh', ARROWS)
    assert set(ARROWS) - {(path[0], path[-1]) for path in paths} == {('c', 'f')}
    assert draw_graph(BOXES, ARROWS).count('marker-end') == len(paths)


def test_names_are_escaped():
    assert 'a &lt;b&gt;' in draw_graph([Box('x', 'a <b>')], [])


# -- of series


def test_series_with_the_same_graph_share_a_picture():
    other = {name: step for name, step in STEPS.items() if name != 'one.write_one'}
    first, second = draw_graphs({'sub-1': STEPS, 'sub-2': STEPS, 'sub-3': other})
    assert [first.prefixes, second.prefixes] == [['sub-1', 'sub-2'], ['sub-3']]
    assert set(corners(first.stages)) == {'graph1-stages-one', 'graph1-stages-quality'}
    ids = corners(first.nodes)
    assert {name.removeprefix('graph1-nodes-') for name in ids} == set(STEPS)


def test_both_pictures_are_written_once_per_graph(tmp_path, monkeypatch):
    monkeypatch.setattr(drawings, 'build_workflows', lambda *_: {})
    monkeypatch.setattr(drawings, 'read_all_steps', lambda *_: {'sub-1': STEPS, 'sub-2': STEPS})
    run = RunSettings(tmp_path, tmp_path / 'out', tmp_path / 'work', run_uuid='x')
    written = drawings.write_drawings([], MethodSettings(), run)
    assert written == ['graph-x_1-stages.svg', 'graph-x_1-nodes.svg']
    assert sorted(path.name for path in (tmp_path / 'out' / 'logs').iterdir()) == sorted(written)
    assert set(corners((tmp_path / 'out' / 'logs' / written[1]).read_text())) == {
        f'graph1-nodes-{name}' for name in STEPS
    }


def test_a_figure_links_to_the_nodes_that_made_it(tmp_path):
    folder = tmp_path / 'sub-1' / 'figures'
    folder.mkdir(parents=True)
    (folder / 'sub-1_desc-maps_ctp.svg').write_text('<svg/>')
    text = build_report(tmp_path, '1', '', {}, draw_graphs({'sub-1': STEPS})).read_text()
    for name in ('quality.plot_series', 'one.read'):
        assert f'<a href="#graph1-nodes-{name}">{name}</a>' in text
        assert text.count(f'id="graph1-nodes-{name}"') == 1
    assert 'cbf, tmax of' in text


def test_each_figure_shows_inputs_of_the_node_that_draws_it():
    # that of a series without maps is drawn outside of the graph, from what the failed node kept
    assert {*DRAWN_FROM, 'evidence'} == {name for name, *_ in sections.FIGURES}
    ports = set(PlotSeries().inputs.copyable_trait_names())
    assert {port for sources in DRAWN_FROM.values() for port in sources} <= ports


def test_the_tree_lists_what_each_node_reads_and_writes():
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
