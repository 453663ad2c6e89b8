# SPDX-License-Identifier: Apache-2.0
"""Have a plugin of nipype tell which nodes a failure leaves out."""

from typing import Any


class TellsSkips:
    """Mixed into a plugin that starts nodes side by side: nipype's tells of those nodes nothing at all."""

    def _remove_node_deps(self, jobid: int, crashfile: Any, graph: Any) -> dict[str, Any]:
        told: dict[str, Any] = super()._remove_node_deps(jobid, crashfile, graph)  # type: ignore[misc]
        if tell := getattr(self, '_status_callback', None):
            for node in told['dependents']:
                tell(node, 'skipped')
        return told
