# SPDX-License-Identifier: Apache-2.0
"""The graph as a drawing: boxes in layers, arrows from above to below, in plain SVG.

graphviz lays the boxes out where its program ``dot`` is installed. Without it they are put in
layers by the longest way to them, ordered in a layer by where their neighbours are, and moved
towards these. Either way the drawing is ours.
"""

import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from xml.sax.saxutils import escape, quoteattr

WIDTH, HEIGHT = 196.0, 44.0
GAP, LAYER = 18.0, 84.0  # between boxes; from layer to layer
SWEEPS = 12
# light enough for black letters; a stage has its colour whatever else is drawn
COLOURS = {
    'preprocessing': '#dbe9f6', 'deconvolution': '#fde3c8', 'symmetry': '#dcefd8',
    'normalization': '#f6d9d9', 'segmentation': '#e6def2', 'quality': '#e9e2da',
    'coregistration': '#f9e0ee', 'precomputed': '#d3eff2',
}  # fmt: skip
OTHER = '#e4e4e4'


@dataclass(frozen=True)
class Box:
    """One box of a drawing: its name, two lines of text, stage, and what a tip tells."""

    name: str
    title: str
    above: str = ''
    group: str = ''
    tip: str = ''


@dataclass
class _Layout:
    """Centres of the boxes and the points of each arrow, in the order of Bezier curves."""

    centres: dict[str, tuple[float, float]] = field(default_factory=dict)
    curves: dict[tuple[str, str], list[tuple[float, float]]] = field(default_factory=dict)


def draw_graph(boxes: Sequence[Box], arrows: Iterable[tuple[str, str]], key: str = 'graph') -> str:
    """Draw a graph without circles.

    Parameters
    ----------
    boxes : sequence of Box
    arrows : iterable of (str, str)
        Names of boxes. An arrow that a longer way implies is left out.
    key : str
        Start of the ids, so that several drawings fit on a page; `anchor` gives the rest.

    Returns
    -------
    str
        SVG.
    """
    arrows = reduce_arrows([box.name for box in boxes], arrows)
    layout = _lay_out_by_dot(boxes, arrows) or _lay_out(boxes, arrows)
    left = min(x for x, _ in layout.centres.values()) - WIDTH / 2 - 12
    right = max(x for x, _ in layout.centres.values()) + WIDTH / 2 + 12
    for points in layout.curves.values():
        left = min(left, *(x - 12 for x, _ in points))
        right = max(right, *(x + 12 for x, _ in points))
    top = min(y for _, y in layout.centres.values()) - HEIGHT / 2 - 12
    bottom = max(y for _, y in layout.centres.values()) + HEIGHT / 2 + 12
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{left:.0f} {top:.0f} {right - left:.0f} '
        f'{bottom - top:.0f}" width="{right - left:.0f}" height="{bottom - top:.0f}" role="img" '
        'font-family="sans-serif" font-size="13">',
        f'<defs><marker id="{key}-head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0L10 5L0 10z" fill="#666"/></marker></defs>',
        f'<rect x="{left:.0f}" y="{top:.0f}" width="100%" height="100%" fill="#fff"/>',
    ]
    for one, two in arrows:
        first, *rest = layout.curves[one, two]
        path = f'M{first[0]:.1f} {first[1]:.1f}C' + ' '.join(f'{x:.1f} {y:.1f}' for x, y in rest)
        lines.append(
            f'<path d="{path}" fill="none" stroke="#666" stroke-width="1.2" '
            f'marker-end="url(#{key}-head)"/>'
        )
    for box in boxes:
        x, y = layout.centres[box.name]
        colour = COLOURS.get(box.group, OTHER)
        lines += [
            f'<g id={quoteattr(anchor(key, box.name))} class="node">',
            f'<title>{escape(box.tip or box.name)}</title>',
            f'<rect x="{x - WIDTH / 2:.1f}" y="{y - HEIGHT / 2:.1f}" width="{WIDTH:.0f}" '
            f'height="{HEIGHT:.0f}" rx="6" fill="{colour}" stroke="#555"/>',
            f'<text x="{x:.1f}" y="{y - 5:.1f}" text-anchor="middle" font-size="11" fill="#444">'
            f'{escape(box.above)}</text>',
            f'<text x="{x:.1f}" y="{y + (12 if box.above else 5):.1f}" text-anchor="middle" '
            f'fill="#000"{_squeeze(box.title)}>{escape(box.title)}</text>',
            '</g>',
        ]
    return '\n'.join([*lines, '</svg>']) + '\n'


def anchor(key: str, name: str) -> str:
    """Name the id of a box, for links to it.

    Examples
    --------
    >>> anchor('nodes', 'quality.plot_series')
    'nodes-quality.plot_series'
    """
    return f'{key}-{name}'


def _squeeze(text: str) -> str:
    """Keep long names within their box, whatever the font."""
    return (
        f' textLength="{WIDTH - 14:.0f}" lengthAdjust="spacingAndGlyphs"' if len(text) > 25 else ''
    )


def reduce_arrows(
    names: Sequence[str], arrows: Iterable[tuple[str, str]]
) -> list[tuple[str, str]]:
    """Leave out the arrows that longer ways imply.

    Examples
    --------
    >>> reduce_arrows('abc', [('a', 'b'), ('a', 'c'), ('b', 'c')])
    [('a', 'b'), ('b', 'c')]
    """
    import networkx as nx

    graph = nx.DiGraph()
    graph.add_nodes_from(names)
    graph.add_edges_from(arrows)
    order = {name: place for place, name in enumerate(names)}
    kept = nx.transitive_reduction(graph).edges
    return sorted(kept, key=lambda pair: (order[pair[0]], order[pair[1]]))


def _lay_out(boxes: Sequence[Box], arrows: Sequence[tuple[str, str]]) -> _Layout:
    """Put boxes into layers; an arrow over several layers holds a narrow place in each."""
    rank: dict[str, int] = {}
    for name in _in_order([box.name for box in boxes], arrows):
        rank[name] = max((rank[one] + 1 for one, two in arrows if two == name), default=0)
    layers: list[list[str]] = [[] for _ in range(max(rank.values()) + 1)]
    for box in boxes:
        layers[rank[box.name]].append(box.name)
    chains, pairs = {}, []
    for one, two in arrows:
        between = [f'{one}>{two}>{level}' for level in range(rank[one] + 1, rank[two])]
        for level, name in enumerate(between, start=rank[one] + 1):
            layers[level].append(name)
        chains[one, two] = [one, *between, two]
        pairs += list(pairwise(chains[one, two]))
    above, below = _neighbours(pairs)
    narrow = {name for chain in chains.values() for name in chain[1:-1]}
    _order_layers(layers, above, below)
    x = _place(layers, above, below, narrow)
    layout = _Layout()
    y = {name: level * LAYER for level, layer in enumerate(layers) for name in layer}
    layout.centres = {box.name: (x[box.name], y[box.name]) for box in boxes}
    for pair, chain in chains.items():
        layout.curves[pair] = _curve([(x[name], y[name]) for name in chain])
    return layout


def _in_order(names: Sequence[str], arrows: Sequence[tuple[str, str]]) -> list[str]:
    import networkx as nx

    graph = nx.DiGraph()
    graph.add_nodes_from(names)
    graph.add_edges_from(arrows)
    return list(nx.topological_sort(graph))


def _neighbours(
    pairs: Sequence[tuple[str, str]],
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    above: dict[str, list[str]] = {}
    below: dict[str, list[str]] = {}
    for one, two in pairs:
        above.setdefault(two, []).append(one)
        below.setdefault(one, []).append(two)
    return above, below


def _order_layers(
    layers: list[list[str]], above: dict[str, list[str]], below: dict[str, list[str]]
) -> None:
    """Sort each layer by the mean place of neighbours: downwards, then upwards, and again."""
    for sweep in range(SWEEPS):
        linked, order = (above, layers) if sweep % 2 == 0 else (below, layers[::-1])
        place: dict[str, float] = {}
        for layer in order:
            wish = {}
            for index, name in enumerate(layer):
                known = [place[each] for each in linked.get(name, ()) if each in place]
                wish[name] = sum(known) / len(known) if known else index
            layer.sort(key=wish.__getitem__)
            place |= {name: index - (len(layer) - 1) / 2 for index, name in enumerate(layer)}


def _place(
    layers: list[list[str]],
    above: dict[str, list[str]],
    below: dict[str, list[str]],
    narrow: set[str],
) -> dict[str, float]:
    """Move boxes towards their neighbours, in their order and without overlap."""

    def half(name: str) -> float:
        return GAP / 2 if name in narrow else WIDTH / 2

    x = {}
    for layer in layers:
        at = 0.0
        for name in layer:
            at += half(name)
            x[name] = at
            at += half(name) + GAP
        middle = (x[layer[0]] + x[layer[-1]]) / 2
        for name in layer:
            x[name] -= middle
    # what leads nowhere follows its neighbour and does not draw it aside
    weight = {name: 1.0 if name in below else 0.05 for layer in layers for name in layer}
    for _ in range(8 * SWEEPS):
        for layer in layers:
            wish = []
            for name in layer:
                near = [*above.get(name, ()), *below.get(name, ())]
                pull = sum(weight[each] * x[each] for each in near)
                wish.append(pull / sum(weight[each] for each in near) if near else x[name])
            got = list(wish)
            for i in range(1, len(layer)):
                least = half(layer[i - 1]) + half(layer[i]) + GAP
                got[i] = max(got[i], got[i - 1] + least)
            moved = sum(
                weight[name] * (a - b) for name, a, b in zip(layer, wish, got, strict=True)
            )
            shift = moved / sum(weight[name] for name in layer)
            for name, value in zip(layer, got, strict=True):
                x[name] = value + shift
    return x


def _curve(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Lead a smooth curve from the lower edge of a box through points to the upper edge of one."""
    (x0, y0), (x1, y1) = points[0], points[-1]
    ends = [(x0, y0 + HEIGHT / 2), *points[1:-1], (x1, y1 - HEIGHT / 2)]
    curve = [ends[0]]
    for (xa, ya), (xb, yb) in pairwise(ends):
        bend = (yb - ya) * 0.5
        curve += [(xa, ya + bend), (xb, yb - bend), (xb, yb)]
    return curve


def _lay_out_by_dot(boxes: Sequence[Box], arrows: Sequence[tuple[str, str]]) -> _Layout | None:
    """Let graphviz lay out; None where it is not installed or fails."""
    if (program := shutil.which('dot')) is None:
        return None
    number = {box.name: f'n{index}' for index, box in enumerate(boxes)}
    size = f'width={WIDTH / 72:.3f} height={HEIGHT / 72:.3f}'
    lines = [f'digraph {{ node [shape=box fixedsize=true {size}] nodesep=0.25 ranksep=0.5']
    lines.append('edge [arrowhead=none];')  # the drawing has its own
    lines += [f'{name};' for name in number.values()]
    lines += [f'{number[one]} -> {number[two]};' for one, two in arrows]
    try:
        told = subprocess.run(
            [program, '-Tplain'], input='\n'.join([*lines, '}']), capture_output=True, text=True,
            check=True, timeout=60,
        ).stdout  # fmt: skip
        return _read_plain(told, {each: name for name, each in number.items()})
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, IndexError):
        return None


def _read_plain(told: str, names: dict[str, str]) -> _Layout:
    """Read the plain format of graphviz: inches, upwards."""
    layout = _Layout()
    for line in told.splitlines():
        kind, *words = line.split()
        if kind == 'node':
            layout.centres[names[words[0]]] = (72 * float(words[1]), -72 * float(words[2]))
        elif kind == 'edge':
            values = [72 * float(word) for word in words[3 : 3 + 2 * int(words[2])]]
            points = list(zip(values[::2], (-value for value in values[1::2]), strict=True))
            layout.curves[names[words[0]], names[words[1]]] = points
    if len(layout.centres) < len(names):
        raise ValueError('graphviz has placed some boxes only')
    return layout
