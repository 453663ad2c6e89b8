# SPDX-License-Identifier: Apache-2.0
"""The user's plugin file, and nipype's plugins that submit each node to a scheduler."""

import subprocess
from pathlib import Path
from typing import Any

from nipype.pipeline import plugins

from ctpprep.exceptions import UsageError
from ctpprep.inputs.labels import refuse_unknown
from ctpprep.settings import LEAST_GB

LOCAL = ('Linear', 'MultiProc')
PLUGINS = (*LOCAL, 'SLURM', 'SGE', 'PBS', 'LSF', 'OAR', 'Condor')
# plugins that submit the whole graph and return, with the plugin that waits instead
DETACHED = {
    'SLURMGraph': 'SLURM', 'SGEGraph': 'SGE', 'PBSGraph': 'PBS', 'CondorDAGMan': 'Condor'
}  # fmt: skip
LOST = (
    'ctpprep.exceptions.CtpprepError: job {job} of this step ended without a result, as a job does that '
    'is cancelled or exceeds its memory or time limit{reason}; request more in plugin_args, then repeat '
    'the same command\n'
)
REFUSED = (
    'ctpprep.exceptions.CtpprepError: the scheduler did not accept the job of this step; submit {script} '
    'by hand, with the plugin_args, to see why\n'
)


def read_plugin(path: Path) -> tuple[str, dict[str, Any]]:
    """Read the name and the arguments of a nipype plugin.

    Parameters
    ----------
    path : Path
        YAML file with ``plugin`` and optionally ``plugin_args``.

    Returns
    -------
    name : str
        nipype's name of the plugin, such as 'SLURM'.
    arguments : dict

    Raises
    ------
    UsageError
        If the file cannot be read, or names no plugin of nipype that waits for its jobs.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = ' '.join(str(error).split())
        raise UsageError(f'--use-plugin {path} cannot be read ({reason})') from error
    where = f'--use-plugin {path.name}'
    if not isinstance(content, dict) or not isinstance(content.get('plugin'), str):
        raise UsageError(f'{where} must name a nipype plugin, for example "plugin: SLURM"')
    for key in content:
        refuse_unknown(str(key), ('plugin', 'plugin_args'), where)
    name, arguments = content['plugin'], content.get('plugin_args') or {}
    if name in DETACHED:
        raise UsageError(
            f'{where}: {name} submits the graph and returns immediately, so that ctpprep could neither '
            f'report failures nor write reports; use {DETACHED[name]}, or one job per participant'
        )
    refuse_unknown(name, PLUGINS, where)
    if not isinstance(arguments, dict):
        raise UsageError(f'{where}: plugin_args must be "name: value" pairs, got {arguments!r}')
    memory = arguments.get('memory_gb', LEAST_GB)
    if not isinstance(memory, int | float) or memory < LEAST_GB:
        raise UsageError(f'{where}: memory_gb must be at least {LEAST_GB:g} (GB), got {memory!r}')
    n_procs = arguments.get('n_procs', 1)
    if not isinstance(n_procs, int) or n_procs < 1:
        raise UsageError(f'{where}: n_procs must be a whole number of at least 1, got {n_procs!r}')
    return name, arguments


def make_scheduler_plugin(name: str, arguments: dict[str, Any]) -> Any:
    """Make a nipype plugin that treats a lost job as an ordinary failure of its node.

    In nipype itself, a job without a result or one that the scheduler refuses ends the whole run, the
    former with a TypeError while the crash file is written.

    Parameters
    ----------
    name : str
        nipype's name of the plugin, such as 'SLURM'.
    arguments : dict
        ``plugin_args`` of nipype.

    Returns
    -------
    plugin
    """
    robust = _RobustSLURM if name == 'SLURM' else _RobustScheduler
    cls = type(f'Robust{name}Plugin', (robust, getattr(plugins, f'{name}Plugin')), {})
    return cls(plugin_args=arguments)


class _RobustScheduler:
    """Overrides for a scheduler plugin of nipype."""

    _status_callback: Any

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._scripts: dict[Any, Path] = {}
        self._refused: set[str] = set()

    def _submit_batchtask(self, scriptfile: str, node: Any) -> Any:
        try:
            job = super()._submit_batchtask(scriptfile, node)  # type: ignore[misc]
        except Exception:  # nipype found no job number; `_get_result` then returns a failure
            job = f'refused-{len(self._scripts)}'
            self._refused.add(job)
        self._scripts[job] = Path(scriptfile)
        return job

    def _get_result(self, job: Any) -> dict[str, Any] | None:
        if job in self._refused:
            return {'result': None, 'traceback': [REFUSED.format(script=self._scripts[job])]}
        result = super()._get_result(job)  # type: ignore[misc]
        if result and isinstance(result['traceback'], str):  # only if the job left no result
            reason = _read_last_error(self._scripts[job].parent, job)
            result['traceback'] = [LOST.format(job=job, reason=reason)]
        return result

    def _report_crash(self, node: Any, result: dict[str, Any] | None = None) -> Any:
        if result and isinstance(result['traceback'], str):  # nipype expects a list
            result = result | {'traceback': [result['traceback']]}
        return super()._report_crash(node, result=result)  # type: ignore[misc]

    def _remove_node_deps(self, jobid: int, crashfile: Any, graph: Any) -> dict[str, Any]:
        """Report the nodes that a failure excludes, which nipype does not."""
        failure: dict[str, Any] = super()._remove_node_deps(jobid, crashfile, graph)  # type: ignore[misc]
        if self._status_callback:
            for node in failure['dependents']:
                self._status_callback(node, 'skipped')
        return failure

    def _clear_task(self, job: Any) -> None:
        if job not in self._refused:
            super()._clear_task(job)  # type: ignore[misc]


class _RobustSLURM(_RobustScheduler):
    """Ask again when the SLURM controller does not respond; nipype takes the job for ended."""

    def _is_pending(self, job: Any) -> bool:
        command = ['squeue', '--noheader', '--jobs', str(job)]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        if answer.returncode:
            return 'Invalid job id' not in answer.stderr
        return str(job) in answer.stdout


def _read_last_error(folder: Path, job: Any) -> str:
    """Quote the last error in the log of a SLURM job; '' if there is no log."""
    path = folder / f'slurm-{job}.out'
    if not path.exists():
        return ''
    errors = [
        line.partition('error:')[2].strip(' *')
        for line in path.read_text(errors='replace').splitlines()
        if line.startswith(('slurmstepd', 'srun')) and 'error:' in line
    ]
    return f' ("{errors[-1]}")' if errors else f' (see {path})'
