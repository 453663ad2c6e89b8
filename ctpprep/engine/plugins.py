# SPDX-License-Identifier: Apache-2.0
"""Which plugin of nipype runs the nodes, as a user's file says."""

from pathlib import Path
from typing import Any

from ctpprep.exceptions import UsageError
from ctpprep.inputs.labels import refuse_unknown
from ctpprep.settings import LEAST_GB

LOCAL = ('Linear', 'MultiProc')
PLUGINS = (*LOCAL, 'SLURM', 'SGE', 'PBS', 'LSF', 'OAR', 'Condor')
# the plugins that submit the whole graph, by those that wait
DETACHED = {
    'SLURMGraph': 'SLURM', 'SGEGraph': 'SGE', 'PBSGraph': 'PBS', 'CondorDAGMan': 'Condor'
}  # fmt: skip


def read_plugin(path: Path) -> tuple[str, dict[str, Any]]:
    """Read a plugin of nipype and its arguments.

    Parameters
    ----------
    path : Path
        YAML file with ``plugin`` and perhaps ``plugin_args``.

    Returns
    -------
    name : str
        As nipype knows it, such as 'SLURM'.
    arguments : dict

    Raises
    ------
    UsageError
        When the file cannot be read, or nipype has no such plugin that waits for its nodes.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = ' '.join(str(error).split())
        raise UsageError(f'--use-plugin {path} cannot be read ({reason})') from error
    where = f'--use-plugin {path.name}'
    if not isinstance(content, dict) or not isinstance(content.get('plugin'), str):
        raise UsageError(f'{where} must name a plugin of nipype, as in "plugin: SLURM"')
    for key in content:
        refuse_unknown(str(key), ('plugin', 'plugin_args'), where)
    name, args = content['plugin'], content.get('plugin_args') or {}
    if name in DETACHED:
        raise UsageError(
            f'{where}: {name} submits the graph and returns at once, so that nobody could tell what '
            f'failed or write the report; use {DETACHED[name]}, or a job for each participant'
        )
    refuse_unknown(name, PLUGINS, where)
    if not isinstance(args, dict):
        raise UsageError(f'{where}: plugin_args must be pairs, "name: value", got {args!r}')
    memory = args.get('memory_gb', LEAST_GB)
    if not isinstance(memory, int | float) or memory < LEAST_GB:
        raise UsageError(f'{where}: memory_gb is at least {LEAST_GB:g}, in GB, got {memory!r}')
    return name, args
