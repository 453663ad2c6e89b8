# SPDX-License-Identifier: Apache-2.0
"""Pictures of the graph of a series: its stages, its nodes, and the nodes behind each figure."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ctpprep.settings import MethodSettings, RunSettings

if TYPE_CHECKING:
    from ctpprep.engine.steps import Step
    from ctpprep.reports import Drawing

LEVELS = ('stages', 'nodes')


def draw_graphs(steps_of: dict[str, dict[str, 'Step']]) -> list['Drawing']:
    """Draw the graph of each series; series with the same nodes share a picture.

    Parameters
    ----------
    steps_of : dict of str to dict
        Steps from `read_steps`, by the prefix of the series.

    Returns
    -------
    list of Drawing
    """
    from ctpprep.figures.sources import DRAWN_FROM
    from ctpprep.reports import Drawing

    shared: dict[Any, list[str]] = {}
    for prefix, steps in steps_of.items():
        if steps:
            shape = tuple((step.name, tuple(step.inputs.items())) for step in steps.values())
            shared.setdefault(shape, []).append(prefix)
    drawings = []
    for number, prefixes in enumerate(shared.values(), start=1):
        steps = steps_of[prefixes[0]]
        keys = {level: f'graph{number}-{level}' for level in LEVELS}
        stages, nodes = draw_stages(steps, keys['stages']), draw_nodes(steps, keys['nodes'])
        plot = next((step for step in steps.values() if step.interface == 'PlotSeries'), None)
        makers = {
            figure: _find_makers(plot, ports) for figure, ports in DRAWN_FROM.items() if plot
        }
        plotter = plot.name if plot else ''
        drawings.append(Drawing(keys['nodes'], prefixes, stages, nodes, plotter, makers))
    return drawings


def draw_stages(steps: dict[str, 'Step'], key: str) -> str:
    """Draw one box per stage."""
    from ctpprep.figures.graph import Box, draw_graph

    nodes: dict[str, list[str]] = {}
    for step in steps.values():
        nodes.setdefault(step.stage, []).append(step.node)
    boxes = [Box(stage, stage, '', stage, ', '.join(names)) for stage, names in nodes.items()]
    pairs = [(steps[start].stage, steps[end].stage) for start, end in _arrows(steps)]
    return draw_graph(boxes, [(start, end) for start, end in pairs if start != end], key)


def draw_nodes(steps: dict[str, 'Step'], key: str) -> str:
    """Draw one box per node."""
    from ctpprep.figures.graph import Box, draw_graph

    boxes = [
        Box(step.name, step.node, step.stage, step.stage, _describe(step))
        for step in steps.values()
    ]
    return draw_graph(boxes, _arrows(steps), key)


def _arrows(steps: dict[str, 'Step']) -> list[tuple[str, str]]:
    return [(maker, step.name) for step in steps.values() for maker, _ in step.inputs.values()]


def _describe(step: 'Step') -> str:
    """List what a node reads and puts out, for its tooltip."""
    lines = [f'{step.name} ({step.interface})']
    lines += [f'reads {port} from the dataset' for port in step.files]
    lines += [f'reads {port} from {maker}' for port, (maker, _) in step.inputs.items()]
    lines.append(f'puts out {", ".join(step.outputs)}')
    return '\n'.join(lines)


def _find_makers(plot: 'Step', ports: Sequence[str]) -> list[tuple[str, list[str]]]:
    """List the nodes whose outputs a figure shows, each with the names of these outputs."""
    makers: dict[str, list[str]] = {}
    for port in ports:
        if port in plot.inputs:
            makers.setdefault(plot.inputs[port][0], []).append(port)
    return list(makers.items())


def build_workflows(
    series: Sequence[Any], method: MethodSettings, run: RunSettings
) -> dict[str, Any]:
    """Build the workflow of each series, by its prefix."""
    from ctpprep.workflows.base import init_series_wf

    return {one.prefix: init_series_wf(one, method, run) for one in series}


def read_all_steps(
    series: Sequence[Any], workflows: dict[str, Any]
) -> dict[str, dict[str, 'Step']]:
    """Read the steps of each series from its workflow, by its prefix."""
    from ctpprep.engine.steps import read_steps

    return {one.prefix: read_steps(workflows[one.prefix], one) for one in series}


def write_drawings(series: Sequence[Any], method: MethodSettings, run: RunSettings) -> list[str]:
    """Write the pictures of the graphs to the log folder; return the names of the files."""
    from ctpprep.io.files import write_atomically

    written = []
    workflows = build_workflows(series, method, run)
    drawings = draw_graphs(read_all_steps(series, workflows))
    for number, drawing in enumerate(drawings, start=1):
        for level in LEVELS:
            name = f'graph-{run.run_uuid}_{number}-{level}.svg'
            text = getattr(drawing, level)
            write_atomically(
                lambda partial, text=text: partial.write_text(text, encoding='utf-8'),
                run.output_dir / 'logs' / name,
            )
            written.append(name)
    return written
