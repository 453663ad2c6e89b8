# SPDX-License-Identifier: Apache-2.0
"""Picture of a graph without circles: boxes in layers, arrows from top to bottom, as SVG."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Any
from xml.sax.saxutils import escape, quoteattr

WIDTH, HEIGHT = 196.0, 44.0  # of a box
GAP, LAYER = 20.0, 84.0  # between boxes; from layer to layer
MARGIN = 12.0
# light enough for black text; a stage always has the same colour
COLOURS = {
    'preprocessing': '#dbe9f6', 'deconvolution': '#fde3c8', 'symmetry': '#dcefd8',
    'normalization': '#f6d9d9', 'segmentation': '#e6def2', 'quality': '#e9e2da',
    'coregistration': '#f9e0ee', 'precomputed': '#d3eff2', 'followup': '#f4efc4',
    'template': '#dde5cc',
}  # fmt: skip
OTHER_COLOUR = '#e4e4e4'


@dataclass(frozen=True)
class Box:
    """One box: unique name, two lines of text, stage, and tooltip."""

    name: str
    title: str
    subtitle: str = ''
    stage: str = ''
    tooltip: str = ''


def draw_graph(boxes: Sequence[Box], arrows: Iterable[tuple[str, str]], key: str = 'graph') -> str:
    """Draw a graph without circles.

    Parameters
    ----------
    boxes : sequence of Box
    arrows : iterable of (str, str)
        Names of boxes. Arrows that a longer path implies are omitted.
    key : str
        Prefix of all ids, so that a page can contain several pictures (see `anchor`).

    Returns
    -------
    str
        SVG.
    """
    paths = find_paths([box.name for box in boxes], arrows)
    places = place(boxes, paths)
    xs, ys = zip(*places.values(), strict=True)
    left, top = min(xs) - WIDTH / 2 - MARGIN, min(ys) - HEIGHT / 2 - MARGIN
    width, height = max(xs) + WIDTH / 2 + MARGIN - left, max(ys) + HEIGHT / 2 + MARGIN - top
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{left:.0f} {top:.0f} {width:.0f} '
        f'{height:.0f}" width="{width:.0f}" height="{height:.0f}" role="img" '
        'font-family="sans-serif" font-size="13">',
        f'<defs><marker id="{key}-head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0L10 5L0 10z" fill="#666"/></marker></defs>',
        f'<rect x="{left:.0f}" y="{top:.0f}" width="100%" height="100%" fill="#fff"/>',
    ]
    for path in paths:
        lines.append(
            f'<path d="{_curve([places[name] for name in path])}" fill="none" stroke="#666" '
            f'stroke-width="1.2" marker-end="url(#{key}-head)"/>'
        )
    for box in boxes:
        x, y = places[box.name]
        lines += [
            f'<g id={quoteattr(anchor(key, box.name))} class="node">',
            f'<title>{escape(box.tooltip or box.name)}</title>',
            f'<rect x="{x - WIDTH / 2:.1f}" y="{y - HEIGHT / 2:.1f}" width="{WIDTH:.0f}" '
            f'height="{HEIGHT:.0f}" rx="6" fill="{_colour(box.stage)}" '
            'stroke="#555"/>',
            f'<text x="{x:.1f}" y="{y - 5:.1f}" text-anchor="middle" font-size="11" fill="#444">'
            f'{escape(box.subtitle)}</text>',
            f'<text x="{x:.1f}" y="{y + (12 if box.subtitle else 5):.1f}" text-anchor="middle" '
            f'fill="#000"{_text_length(box.title)}>{escape(box.title)}</text>',
            '</g>',
        ]
    return '\n'.join([*lines, '</svg>']) + '\n'


def _colour(stage: str) -> str:
    """Return the colour of a stage, which that of a second template shares with the first.

    Examples
    --------
    >>> _colour('template_MNI152NLin6Asym') == _colour('template')
    True
    """
    return COLOURS.get(stage.partition('_')[0], OTHER_COLOUR)


def anchor(key: str, name: str) -> str:
    """Return the id of a box, for links to it.

    Examples
    --------
    >>> anchor('nodes', 'quality.plot_series')
    'nodes-quality.plot_series'
    """
    return f'{key}-{name}'


def find_paths(names: Sequence[str], arrows: Iterable[tuple[str, str]]) -> list[tuple[Any, ...]]:
    """Return the path of each arrow through the layers.

    Arrows that a longer path implies are omitted. An arrow that spans several layers passes a bend in each.

    Parameters
    ----------
    names : sequence of str
        Of the boxes.
    arrows : iterable of (str, str)

    Returns
    -------
    list of tuple
        Names of start and end of each arrow, and between them (start, end, layer) of each bend.

    Examples
    --------
    >>> find_paths('abc', [('a', 'b'), ('a', 'c'), ('b', 'c')])
    [('a', 'b'), ('b', 'c')]
    """
    import networkx as nx

    graph = nx.DiGraph()
    graph.add_nodes_from(names)
    graph.add_edges_from(sorted(arrows))
    graph = nx.transitive_reduction(graph)
    layers = enumerate(nx.topological_generations(graph))
    layer_of = {name: layer for layer, generation in layers for name in generation}
    return [
        (start, *((start, end, layer) for layer in range(layer_of[start] + 1, layer_of[end])), end)
        for start, end in sorted(graph.edges)
    ]


def place(
    boxes: Sequence[Box], paths: Sequence[tuple[Any, ...]]
) -> dict[Any, tuple[float, float]]:
    """Return the centre of each box and bend."""
    import networkx as nx

    graph = nx.DiGraph()
    graph.add_nodes_from(box.name for box in boxes)
    graph.add_edges_from(pair for path in paths for pair in pairwise(path))
    layers = [list(generation) for generation in nx.topological_generations(graph)]
    order = {name: position for layer in layers for position, name in enumerate(layer)}
    # sort each layer by the mean position of its neighbours above, then below, and again
    for _ in range(4):
        for neighbours, sweep in ((graph.pred, layers), (graph.succ, layers[::-1])):
            for layer in sweep:
                means = {
                    name: fmean([order[o] for o in neighbours[name] or [name]]) for name in layer
                }
                layer.sort(key=means.__getitem__)
                order |= {name: rank - len(layer) / 2 for rank, name in enumerate(layer)}
    places = {}
    for number, layer in enumerate(layers):
        widths = [GAP + (0 if isinstance(name, tuple) else WIDTH) for name in layer]
        left = -sum(widths) / 2
        for name, width in zip(layer, widths, strict=True):
            places[name] = (left + width / 2, number * LAYER)
            left += width
    return places


def _curve(centres: Sequence[tuple[float, float]]) -> str:
    """Draw a line from the lower edge of a box, vertically past others, to the upper edge of the last."""
    edges = [(x, y + side * HEIGHT / 2) for x, y in centres for side in (-1, 1)][1:-1]
    path = f'M{edges[0][0]:.1f} {edges[0][1]:.1f}'
    for (xa, ya), (xb, yb) in pairwise(edges):
        middle = (ya + yb) / 2
        path += f'C{xa:.1f} {middle:.1f} {xb:.1f} {middle:.1f} {xb:.1f} {yb:.1f}'
    return path


def _text_length(text: str) -> str:
    """Return the attribute that squeezes a long name into its box, whatever the font."""
    if len(text) <= 25:
        return ''
    return f' textLength="{WIDTH - 14:.0f}" lengthAdjust="spacingAndGlyphs"'
