# SPDX-License-Identifier: Apache-2.0
"""The nodes of one series as plain values, for the graph picture, the dry run and links of the report."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline.engine import Workflow

from ctpprep.inputs.series import Series
from ctpprep.interfaces.outputs import WriteDerivatives, WriteFigures
from ctpprep.workflows.lineage import given_files


@dataclass(frozen=True)
class Step:
    """One node.

    Attributes
    ----------
    name : str
        Stage and node, such as 'quality.plot_series'.
    interface : str
        Name of its interface.
    inputs : dict of str to (str, str)
        For each input port, the name and the output port of the step that feeds it.
    files : dict of str to str
        BIDS URIs of the files that ports read from the dataset.
    outputs : tuple of str
        Output ports.
    written : tuple of str
        Paths of the files it writes, relative to the output folder; some are optional.
    """

    name: str
    interface: str
    inputs: dict[str, tuple[str, str]] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    written: tuple[str, ...] = ()

    @property
    def stage(self) -> str:
        """Name of the stage."""
        return self.name.partition('.')[0]

    @property
    def node(self) -> str:
        """Name of the node in its stage."""
        return self.name.partition('.')[2]


def read_steps(workflow: Workflow, series: Series) -> dict[str, Step]:
    """Read the steps of a series from its workflow.

    Parameters
    ----------
    workflow : Workflow
        From `init_series_wf`.
    series : CTPSeries or PrecomputedMaps

    Returns
    -------
    dict of str to Step
        By name, in an order in which they can run; without nodes that only pass ports on.
    """
    import networkx as nx

    graph = workflow._create_flat_graph()
    uris = {str(file.path): file.uri for file in series.files.values()}
    steps = {}
    for node in nx.lexicographical_topological_sort(graph, key=lambda node: node.fullname):
        if isinstance(node.interface, IdentityInterface):
            continue
        inputs = {}
        for source, port, target in _connections(graph, node):
            if (origin := _find_origin(graph, source, port)) is not None:
                inputs[target] = origin
        steps[_step_name(node)] = Step(
            _step_name(node),
            type(node.interface).__name__,
            dict(sorted(inputs.items())),
            {port: uris.get(path, path) for port, path in given_files(node)},
            tuple(node.outputs.copyable_trait_names()),
            tuple(_written_paths(node, inputs, series)),
        )
    return steps


def _step_name(node: Any) -> str:
    """Name a node by its stage; the writer of a stage belongs to that stage."""
    parts = node.fullname.split('.')[1:]
    if len(parts) == 1:
        return f'{node.name.removeprefix("write_")}.{node.name}'
    return '.'.join([parts[0].removesuffix('_wf'), *parts[1:]])


def _connections(graph: Any, node: Any) -> Iterator[tuple[Any, str, str]]:
    """Yield source node, its port and the port of the node for each connection into a node."""
    for source, _, edge in graph.in_edges(node, data=True):
        for port, target in edge['connect']:
            yield source, port, target


def _find_origin(graph: Any, source: Any, port: str) -> tuple[str, str] | None:
    """Follow a port through nodes that only pass it on; None if nothing feeds it."""
    while isinstance(source.interface, IdentityInterface):
        feeding = [
            (node, out) for node, out, target in _connections(graph, source) if target == port
        ]
        if not feeding:
            return None
        ((source, port),) = feeding
    return _step_name(source), port


def _written_paths(node: Any, inputs: dict[str, Any], series: Series) -> Iterator[str]:
    """Yield the paths of the files that a node writes, relative to the output folder."""
    if isinstance(node.interface, WriteDerivatives):
        for row in node.inputs.rows:
            if row['name'] in inputs:
                yield row['path']
    elif isinstance(node.interface, WriteFigures):
        yield f'sub-{series.participant}/figures/{series.prefix}_desc-*_ctp.svg'
