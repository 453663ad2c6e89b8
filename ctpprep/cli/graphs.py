# SPDX-License-Identifier: Apache-2.0
"""Drawings of the graph, at the depth of stages and of nodes, and what made each figure."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ctpprep.settings import MethodSettings, RunSettings

if TYPE_CHECKING:
    from ctpprep.engine.graph import Step
    from ctpprep.reports import Drawing


def draw_graphs(graphs: dict[str, dict[str, 'Step']]) -> list['Drawing']:
    """Draw the graph of each series once; series that go through the same nodes share a drawing.

    Parameters
    ----------
    graphs : dict of str to dict
        As `read_graph` returns them, by the prefix of the series.

    Returns
    -------
    list of Drawing
    """
    from ctpprep.figures.sources import DRAWN_FROM
    from ctpprep.reports import Drawing
    from ctpprep.reports.graph import draw_graph

    kinds: dict[Any, list[str]] = {}
    for prefix, steps in graphs.items():
        shape = tuple((step.name, tuple(step.inputs.items())) for step in steps.values())
        kinds.setdefault(shape, []).append(prefix)
    drawings = []
    for number, prefixes in enumerate(kinds.values(), start=1):
        steps = graphs[prefixes[0]]
        if not steps:
            continue
        keys = [f'graph{number}-{depth}' for depth in ('stages', 'nodes')]
        stages, nodes = (draw_graph(*_content(steps, key), key) for key in keys)
        plot = next((s for s in steps.values() if s.interface == 'PlotSeries'), None)
        made = {what: _made_by(plot, ports) for what, ports in DRAWN_FROM.items()} if plot else {}
        drawings.append(Drawing(keys[1], prefixes, stages, nodes, plot.name if plot else '', made))
    return drawings


def _content(steps: dict[str, 'Step'], key: str) -> tuple[list[Any], list[tuple[str, str]]]:
    """List boxes and arrows at one depth."""
    from ctpprep.reports.graph import Box

    pairs = [(maker, step.name) for step in steps.values() for maker, _ in step.inputs.values()]
    if key.endswith('nodes'):
        boxes = [
            Box(step.name, step.name.partition('.')[2], step.stage, step.stage, _tip(step))
            for step in steps.values()
        ]
        return boxes, pairs
    inside: dict[str, list[str]] = {}
    for step in steps.values():
        inside.setdefault(step.stage, []).append(step.name.partition('.')[2])
    boxes = [Box(stage, stage, '', stage, ', '.join(names)) for stage, names in inside.items()]
    stages = [(steps[one].stage, steps[two].stage) for one, two in pairs]
    return boxes, [(one, two) for one, two in stages if one != two]


def _tip(step: 'Step') -> str:
    """Tell what a node reads and puts out."""
    lines = [f'{step.name} ({step.interface})']
    lines += [f'reads {port} from the dataset' for port in step.files]
    lines += [f'reads {port} from {maker}' for port, (maker, _) in step.inputs.items()]
    lines.append(f'puts out {", ".join(step.outputs)}')
    return '\n'.join(lines)


def _made_by(plot: 'Step', ports: Sequence[str]) -> list[tuple[str, list[str]]]:
    """List the makers of what a figure shows, each with its quantities."""
    makers: dict[str, list[str]] = {}
    for port in ports:
        if port in plot.inputs:
            makers.setdefault(plot.inputs[port][0], []).append(port)
    return list(makers.items())


def graphs_of(
    series: Sequence[Any], method: MethodSettings, run: RunSettings
) -> dict[str, dict[str, 'Step']]:
    """Read the graph of each series, by its prefix."""
    from ctpprep.engine.graph import read_graph
    from ctpprep.workflows.base import init_series_wf

    return {each.prefix: read_graph(init_series_wf(each, method, run), each) for each in series}


def write_graphs(series: Sequence[Any], method: MethodSettings, run: RunSettings) -> list[str]:
    """Write the drawings of some series to the folder of logs; return the names of the files."""
    from ctpprep.io.files import write_atomically

    written = []
    for number, drawing in enumerate(draw_graphs(graphs_of(series, method, run)), start=1):
        for depth in ('stages', 'nodes'):
            name = f'graph-{run.run_uuid}_{number}-{depth}.svg'
            text = getattr(drawing, depth)
            write_atomically(
                lambda partial, text=text: partial.write_text(text, encoding='utf-8'),
                run.output_dir / 'logs' / name,
            )
            written.append(name)
    return written
