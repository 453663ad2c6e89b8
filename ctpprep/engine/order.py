# SPDX-License-Identifier: Apache-2.0
"""Which node comes next, and which a failure leaves out.

nipype goes through the first steps of all series, then through the second ones: of thousands, none would
end before all have nearly ended.
"""

import os
from collections.abc import Sequence
from typing import Any

from nipype.pipeline.plugins.linear import LinearPlugin
from nipype.pipeline.plugins.tools import report_crash
from nipype.utils.misc import str2bool


def turns(nodes: Sequence[Any]) -> list[int]:
    """Number the series of nodes, by the workflows around them, in the order in which they come."""
    numbers: dict[tuple[str, ...], int] = {}
    homes = [tuple(node.fullname.split('.')[1:3]) for node in nodes]
    return [numbers.setdefault(home, len(numbers)) for home in homes]


class ReportsSkips:
    """Mixed into a plugin that starts nodes side by side: nipype's tells nothing of what it leaves out."""

    def _remove_node_deps(self, jobid: int, crashfile: Any, graph: Any) -> dict[str, Any]:
        told: dict[str, Any] = super()._remove_node_deps(jobid, crashfile, graph)  # type: ignore[misc]
        if tell := getattr(self, '_status_callback', None):
            for node in told['dependents']:
                tell(node, 'skipped')
        return told


class SeriesBySeriesPlugin(LinearPlugin):
    """Run nodes in this process, one series after the other."""

    def run(self, graph: Any, config: dict[str, Any], updatehash: bool = False) -> None:
        """Run all nodes; the first error is raised in the end."""
        import networkx as nx

        tell = self._status_callback or (lambda node, status: None)
        stop = str2bool(config['execution']['stop_on_first_crash'])
        here, errors, left_out = os.getcwd(), list[Exception](), set[Any]()
        nodes = list(nx.topological_sort(graph))
        for _, node in sorted(zip(turns(nodes), nodes, strict=True), key=lambda pair: pair[0]):
            if node in left_out:
                continue
            tell(node, 'start')
            try:
                node.run(updatehash=updatehash)
            except Exception as error:
                errors.append(error)
                try:
                    report_crash(node)
                finally:
                    tell(node, 'exception')
                if stop:
                    break
                for each in nx.descendants(graph, node) - left_out:
                    left_out.add(each)
                    tell(each, 'skipped')
            else:
                tell(node, 'end')
        os.chdir(here)
        if errors:
            raise errors[0]
