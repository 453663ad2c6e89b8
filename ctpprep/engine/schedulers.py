# SPDX-License-Identifier: Apache-2.0
"""The user's plugin file, and nipype's plugins that submit each node to a scheduler."""

import logging
import re
import shutil
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from nipype.interfaces.base import CommandLine
from nipype.pipeline import plugins

from ctpprep.engine.queues import ASK, COMMANDS, Answer, last_line
from ctpprep.exceptions import UsageError
from ctpprep.inputs.labels import refuse_unknown
from ctpprep.io.files import read_text
from ctpprep.settings import LEAST_GB

LOCAL = ('Linear', 'MultiProc')
PLUGINS = (*LOCAL, 'SLURM', 'SGE', 'PBS', 'LSF', 'OAR', 'Condor')
# plugins that submit the whole graph and return, with the plugin that waits instead
DETACHED = {
    'SLURMGraph': 'SLURM', 'SGEGraph': 'SGE', 'PBSGraph': 'PBS', 'CondorDAGMan': 'Condor'
}  # fmt: skip
PATIENCE = 1800  # s without an answer of the scheduler, after which a job is given up

LOST = (
    'ctpprep.exceptions.CtpprepError: job {job} of this step ended without a result, as a job does that '
    'is cancelled or exceeds its memory or time limit{reason}; request more in plugin_args, then repeat '
    'the same command\n'
)
REFUSED = (
    'ctpprep.exceptions.CtpprepError: the scheduler did not accept the job of this step{reason}; submit '
    '{script} by hand, with the plugin_args, to see why\n'
)
STUCK = (
    'ctpprep.exceptions.CtpprepError: job {job} of this step will never run{reason}; delete it from the '
    'queue, then repeat the same command\n'
)
UNANSWERED = (
    'ctpprep.exceptions.CtpprepError: the scheduler has not answered for {minutes:.0f} minutes whether '
    'job {job} of this step is over{reason}; see that it is, then repeat the same command\n'
)

# how SLURM, PBS and LSF begin the line that gives the reason of an end
LOGGED = re.compile(r'(?:(?:slurmstepd|srun).*?error:|=>> PBS:|(?=TERM_))(.*)')

logger = logging.getLogger(__name__)


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
        content = yaml.safe_load(read_text(path, UsageError, f'--use-plugin {path}'))
    except (ValueError, yaml.YAMLError) as error:
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


def require_commands(name: str) -> None:
    """Refuse a scheduler whose commands are not installed here.

    Parameters
    ----------
    name : str
        nipype's name of the plugin, such as 'SLURM'.

    Raises
    ------
    UsageError
    """
    for command in COMMANDS.get(name, ()):
        if shutil.which(command) is None:
            raise UsageError(
                f'--use-plugin: {name} needs the command {command}, which is not on PATH'
            )


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
    robust = _RobustSGE if name == 'SGE' else _RobustScheduler
    plugin = getattr(plugins, f'{name}Plugin')
    sys.modules[plugin.__module__].CommandLine = _RecordedCommand  # type: ignore[attr-defined]
    cls = type(f'Robust{name}Plugin', (robust, plugin), {'name': name})
    return cls(plugin_args=arguments)


class _RobustScheduler:
    """Overrides for a scheduler plugin of nipype."""

    name: str
    _status_callback: Any

    def __init__(self, plugin_args: dict[str, Any]) -> None:
        self._set_up(plugin_args)
        self._scripts: dict[Any, Path] = {}
        self._refused: dict[Any, str] = {}
        self._given_up: dict[Any, str] = {}  # message by job
        self._answered: dict[Any, float] = {}  # time of the last answer by job

    def _set_up(self, plugin_args: dict[str, Any]) -> None:
        super().__init__(plugin_args=plugin_args)  # type: ignore[call-arg]

    def _submit_batchtask(self, scriptfile: str, node: Any) -> Any:
        _RecordedCommand.errors = ''
        try:
            job = super()._submit_batchtask(scriptfile, node)  # type: ignore[misc]
        except Exception:  # nipype found no job number; `_get_result` then returns a failure
            job = ''
        if not re.search(r'\d', str(job)):  # PBS: qsub printed nothing
            job = f'refused-{len(self._scripts)}'
            self._refused[job] = last_line(_RecordedCommand.errors)
        self._scripts[job] = Path(scriptfile)
        return job

    def _is_pending(self, job: Any) -> bool:
        answer = self._ask(job)
        if answer.in_queue is False and answer.words:
            self._given_up[job] = STUCK.format(job=job, reason=_quote(answer.words))
        if answer.in_queue is not None:
            self._answered[job] = time.monotonic()
            return answer.in_queue
        logger.debug('no answer about job %s (%s)', job, answer.words)
        silent = time.monotonic() - self._answered.setdefault(job, time.monotonic())
        if silent < PATIENCE:
            return True
        self._given_up[job] = UNANSWERED.format(
            job=job, reason=_quote(answer.words), minutes=silent / 60
        )
        return False

    def _ask(self, job: Any) -> Answer:
        if self.name in ASK:
            return ASK[self.name](str(job))
        try:
            return Answer(super()._is_pending(job))  # type: ignore[misc]
        except Exception as error:
            return Answer(None, ' '.join(str(error).split()))

    def _get_result(self, job: Any) -> dict[str, Any] | None:
        if job in self._refused:
            reason = _quote(self._refused[job])
            message = REFUSED.format(script=self._scripts[job], reason=reason)
            return {'result': None, 'traceback': [message]}
        result = super()._get_result(job)  # type: ignore[misc]
        if result and isinstance(result['traceback'], str):  # only if the job left no result
            lost = LOST.format(job=job, reason=_read_last_error(self._scripts[job], job))
            result['traceback'] = [self._given_up.get(job, lost)]
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


class _RobustSGE(_RobustScheduler):
    """SGE without nipype's list of all jobs, whose loss costs a minute per query."""

    def _set_up(self, plugin_args: dict[str, Any]) -> None:
        self._retry_timeout = plugin_args.get('retry_timeout', 2)  # s
        self._max_tries = plugin_args.get('max_tries', 2)
        self._refQstatSubstitute = SimpleNamespace(add_startup_job=lambda job, command: None)
        plugins.base.SGELikeBatchManagerBase.__init__(self, '#$ -V\n#$ -S /bin/sh', plugin_args)


class _RecordedCommand(CommandLine):
    """Keep the errors of a command, which nipype drops; it does not raise them either."""

    errors = ''

    def _run_interface(self, runtime: Any, correct_return_codes: Any = (0,)) -> Any:
        runtime = super()._run_interface(runtime, correct_return_codes)
        _RecordedCommand.errors = runtime.stderr or ''
        return runtime


def _quote(words: str) -> str:
    return f' ("{words}")' if words else ''


def _read_last_error(script: Path, job: Any) -> str:
    """Quote what the scheduler last wrote into the log of a job; '' if there is no log."""
    folder = script.parent
    paths = [folder / f'slurm-{job}.out', script.with_name(f'{script.name}.log')]  # SLURM, LSF
    paths += sorted(folder.glob(f'*.[eo]{job}'))  # SGE, PBS
    paths = [path for path in paths if path.exists()]
    for path in paths:
        errors = [
            match[1].strip(' *')
            for line in path.read_text(errors='replace').splitlines()
            if (match := LOGGED.match(line))
        ]
        if errors:
            return _quote(errors[-1])
    return f' (see {paths[0]})' if paths else ''
