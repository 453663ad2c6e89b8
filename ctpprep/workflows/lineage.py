# SPDX-License-Identifier: Apache-2.0
"""The sources and settings of each quantity of a graph, for `Sources` and `Settings` in sidecars.

They are read from the connections and the inputs of the nodes that will run, so that a sidecar cannot
state anything else.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from nipype.interfaces.base import File, InputMultiObject, isdefined
from nipype.pipeline.engine import Node, Workflow

Stages = Mapping[str, Workflow]


@dataclass
class Lineage:
    """The nearest ancestors of a quantity that are written, and the settings of all ancestors.

    Attributes
    ----------
    ports : dict of str to None
        Ancestors that are written, in the order in which they are found.
    files : dict of str to (str, str)
        Files from outside the graph: node and port, by path.
    settings : dict of str to dict
        By stage.
    """

    ports: dict[str, None] = field(default_factory=dict)
    files: dict[str, tuple[str, str]] = field(default_factory=dict)
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)


class Graph:
    """The stages of one series, connected by the names of their ports.

    Parameters
    ----------
    stages : mapping of str to Workflow
        Each has an ``outputnode`` and optionally an ``inputnode``.

    Attributes
    ----------
    makers : dict of str to str
        Stage that outputs each quantity.
    """

    def __init__(self, stages: Stages) -> None:
        self.stages = stages
        self.makers = {
            port: name
            for name, stage in stages.items()
            for port in stage.get_node('outputnode').outputs.copyable_trait_names()
        }
        self._exposed: dict[tuple[str, str, str], str] = {}
        for name, stage in stages.items():
            outputnode = stage.get_node('outputnode')
            for source, port, target in _incoming(stage, outputnode):
                self._exposed[name, source.name, port] = target

    def trace(self, port: str, written: Collection[str]) -> Lineage:
        """Trace a quantity back to its sources.

        Parameters
        ----------
        port : str
        written : collection of str
            Quantities that are written, at which `Lineage.ports` ends.

        Returns
        -------
        Lineage
        """
        lineage = Lineage()
        maker = self._maker(port)
        if maker is not None:
            self._expand(*maker, lineage, set(written), True, set())
        return lineage

    def _maker(self, port: str) -> tuple[str, Node] | None:
        """Return the stage and the node that output a quantity."""
        if (name := self.makers.get(port)) is None:
            return None
        stage = self.stages[name]
        for source, _, target in _incoming(stage, stage.get_node('outputnode')):
            if target == port:
                return name, source
        return None

    def _expand(
        self, name: str, node: Node, lineage: Lineage, written: set[str], near: bool,
        met: set[tuple[str, str, bool]],
    ) -> None:  # fmt: skip
        """Add the inputs of a node; beyond a written quantity, only its settings."""
        if (name, node.name, near) in met:
            return
        met.add((name, node.name, near))
        if isdefined(settings := getattr(node.inputs, 'settings', None)) and settings:
            for stage, values in settings.items():
                lineage.settings.setdefault(stage, dict(values))
        if near:
            for port, path in given_files(node):
                lineage.files.setdefault(path, (node.name, port))
        for source, port, _ in _incoming(self.stages[name], node):
            if source.name == 'inputnode':
                quantity, maker = port, self._maker(port)
            else:
                quantity, maker = self._exposed.get((name, source.name, port), ''), (name, source)
            if maker is None:
                continue
            if near and quantity in written:
                lineage.ports.setdefault(quantity)
            self._expand(*maker, lineage, written, near and quantity not in written, met)


def given_files(node: Node) -> Iterator[tuple[str, str]]:
    """List the files that are set as inputs of a node, with their ports.

    Parameters
    ----------
    node : Node

    Yields
    ------
    port, path : str
    """
    for port in node.inputs.copyable_trait_names():
        value, trait = getattr(node.inputs, port), node.inputs.trait(port)
        if isdefined(value) and (
            trait.is_trait_type(File) or trait.is_trait_type(InputMultiObject)
        ):
            for path in value if isinstance(value, list) else [value]:
                if isinstance(path, str):
                    yield port, path


def _incoming(stage: Workflow, node: Node) -> Iterator[tuple[Node, str, str]]:
    """List the connections to a node of a stage: source node, source port, port of the node."""
    for source, _, data in stage._graph.in_edges(node, data=True):
        for port, target in data['connect']:
            yield source, port, target
