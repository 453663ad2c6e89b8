# SPDX-License-Identifier: Apache-2.0
"""nipype's plugins for schedulers, made to survive a job that is killed or refused."""

import subprocess
from pathlib import Path
from typing import Any

from nipype.pipeline import plugins

from ctpprep.engine.order import ReportsSkips

ENDED = (
    'ctpprep.exceptions.CtpprepError: job {job} of this step ended without a result, as a job does that '
    'is cancelled or exceeds its memory or time{said}; ask for more in plugin_args, then run the same '
    'command again\n'
)
REFUSED = (
    'ctpprep.exceptions.CtpprepError: the scheduler did not take the job of this step; submit {script} '
    'by hand, with the plugin_args, to see why\n'
)


def make_batch_plugin(name: str, arguments: dict[str, Any]) -> Any:
    """Make a plugin of nipype whose lost jobs are ordinary failures of their nodes.

    In nipype, a job that left no result, and one that the scheduler did not take, end the whole run: with
    a TypeError while the crash file is written, or at once.

    Parameters
    ----------
    name : str
        Such as 'SLURM'.
    arguments : dict
        ``plugin_args`` of nipype.

    Returns
    -------
    plugin
    """
    own = (_SturdySLURM,) if name == 'SLURM' else (_Sturdy,)
    kind = type(f'Sturdy{name}Plugin', (*own, getattr(plugins, f'{name}Plugin')), {})
    return kind(plugin_args=arguments)


class _Sturdy(ReportsSkips):
    """What is changed in a plugin of nipype."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._scripts: dict[Any, Path] = {}
        self._refused: set[str] = set()

    def _submit_batchtask(self, scriptfile: str, node: Any) -> Any:
        try:
            job = super()._submit_batchtask(scriptfile, node)  # type: ignore[misc]
        except Exception:  # of nipype, which finds no number; asked for its result, it has none
            job = f'refused-{len(self._scripts)}'
            self._refused.add(job)
        self._scripts[job] = Path(scriptfile)
        return job

    def _get_result(self, job: Any) -> dict[str, Any] | None:
        if job in self._refused:
            text = REFUSED.format(script=self._scripts[job])
            return {'result': None, 'traceback': [text]}
        told = super()._get_result(job)  # type: ignore[misc]
        if told and isinstance(told['traceback'], str):  # only then has nipype found no result
            text = ENDED.format(job=job, said=_last_error(self._scripts[job].parent, job))
            told['traceback'] = [text]
        return told

    def _report_crash(self, node: Any, result: dict[str, Any] | None = None) -> Any:
        if result and isinstance(result['traceback'], str):  # nipype cannot write it
            result = result | {'traceback': [result['traceback']]}
        return super()._report_crash(node, result=result)  # type: ignore[misc]

    def _clear_task(self, job: Any) -> None:
        if job not in self._refused:
            super()._clear_task(job)  # type: ignore[misc]


class _SturdySLURM(_Sturdy):
    """A controller that does not answer for a while is no reason to give a job up."""

    def _is_pending(self, job: Any) -> bool:
        command = ['squeue', '--noheader', '--jobs', str(job)]
        asked = subprocess.run(command, capture_output=True, text=True, check=False)
        if asked.returncode:
            return 'Invalid job id' not in asked.stderr
        return str(job) in asked.stdout


def _last_error(folder: Path, job: Any) -> str:
    """Quote what the scheduler wrote last into the job's own log, if it can be found."""
    path = folder / f'slurm-{job}.out'
    if not path.exists():
        return ''
    lines = [
        line.partition('error:')[2].strip(' *')
        for line in path.read_text(errors='replace').splitlines()
        if line.startswith(('slurmstepd', 'srun')) and 'error:' in line
    ]
    return f' ("{lines[-1]}")' if lines else f' (see {path})'
