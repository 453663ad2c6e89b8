# SPDX-License-Identifier: Apache-2.0
"""The graph of one series as plain values: for drawings, the dry run and links of the report."""

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
        Maker of each port that another node feeds: its name, and its port.
    files : dict of str to str
        Files from outside of the graph, by port, as BIDS URIs.
    outputs : tuple of str
        Ports it puts out.
    written : tuple of str
        Files it writes below the output folder; some only where their port has a file.
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


def read_graph(workflow: Workflow, series: Series) -> dict[str, Step]:
    """Read the nodes of a series in an order in which they can run.

    Parameters
    ----------
    workflow : Workflow
        Made by `init_series_wf`.
    series : CTPSeries or PrecomputedMaps

    Returns
    -------
    dict of str to Step
        By name. Nodes that only pass ports on are left out.
    """
    import networkx as nx

    flat = workflow._create_flat_graph()
    uris = {str(file.path): file.uri for file in series.files.values()}
    order = list(nx.lexicographical_topological_sort(flat, key=lambda node: node.fullname))
    steps = {}
    for node in order:
        if isinstance(node.interface, IdentityInterface):
            continue
        made = {}
        for source, port, target in _incoming(flat, node):
            if (maker := _follow(flat, source, port)) is not None:
                made[target] = maker
        steps[_name(node)] = Step(
            _name(node),
            type(node.interface).__name__,
            dict(sorted(made.items())),
            {port: uris.get(path, path) for port, path in given_files(node)},
            tuple(node.outputs.copyable_trait_names()),
            tuple(_written(node, made, series)),
        )
    return steps


def _name(node: Any) -> str:
    """Name a node by its stage; the writer of a stage belongs to it."""
    inside = node.fullname.split('.')[1:]
    if len(inside) == 1:
        return f'{node.name.removeprefix("write_")}.{node.name}'
    return '.'.join([inside[0].removesuffix('_wf'), *inside[1:]])


def _incoming(flat: Any, node: Any) -> Iterator[tuple[Any, str, str]]:
    for source, _, told in flat.in_edges(node, data=True):
        for port, target in told['connect']:
            yield source, port, target


def _follow(flat: Any, source: Any, port: str) -> tuple[str, str] | None:
    """Find the node that makes what a port passes on; None where nothing comes in."""
    while isinstance(source.interface, IdentityInterface):
        found = [(node, out) for node, out, into in _incoming(flat, source) if into == port]
        if not found:
            return None
        ((source, port),) = found
    return _name(source), port


def _written(node: Any, made: dict[str, Any], series: Series) -> Iterator[str]:
    """List the files below the output folder that a node writes."""
    if isinstance(node.interface, WriteDerivatives):
        for row in node.inputs.rows:
            if row['name'] in made:
                yield row['path']
    elif isinstance(node.interface, WriteFigures):
        yield f'sub-{series.participant}/figures/{series.prefix}_desc-*_ctp.svg'
