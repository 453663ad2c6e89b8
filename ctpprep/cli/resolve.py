# SPDX-License-Identifier: Apache-2.0
"""From parsed options and a config file to settings."""

import argparse
import os
import sys
import time
import uuid
from pathlib import Path
from typing import Any

from ctpprep.cli.config import override, read_config
from ctpprep.cli.folders import default_work_dir
from ctpprep.cli.machine import available_cores, available_memory_gb, default_processes
from ctpprep.cli.options import spellings
from ctpprep.cli.parser import LEVELS
from ctpprep.exceptions import UsageError
from ctpprep.settings import FUNCTION, MethodSettings, RunSettings, declared

# settings whose value may be a function of the user
REPLACEABLE = ('denoise', 'deconvolution_method')

# options of the group level: all of these stages, and input options that select series or are harmless
OF_GROUP = 'group level'
GROUP_STAGES = (OF_GROUP, 'resources', 'messages')
SELECTING = (
    'participant_label', 'session_label', 'run_label', 'skip_bids_validation', 'bids_database_dir'
)  # fmt: skip


def read_settings(args: argparse.Namespace) -> tuple[MethodSettings, RunSettings]:
    """Turn parsed options, and those of a config file, into settings.

    Parameters
    ----------
    args : argparse.Namespace
        Only the options that were given, as `make_parser` returns them.

    Returns
    -------
    method : MethodSettings
    run : RunSettings

    Raises
    ------
    UsageError
        When a value is out of its range, or options exclude each other or are of the other level.
    """
    options: dict[str, Any] = {
        name: tuple(v) if isinstance(v, list) else v for name, v in vars(args).items()
    }
    level = options.pop('level')
    folders = {name: options[name] for name in ('bids_dir', 'output_dir')}
    if (file := options.pop('config_file', None)) is not None:
        read = read_config(file, folders)
        refuse_other_level(read, level, file)
        options = override(read, options)
    refuse_other_level(options, level)
    options.setdefault('work_dir', default_work_dir(*folders.values()))
    of_method = declared(MethodSettings)
    values = {name: v for name, v in options.items() if name in of_method}
    method = MethodSettings.preset(options.get('preset', 'none'), **values)
    if any(FUNCTION.fullmatch(str(options.get(name))) for name in REPLACEABLE):
        _check_functions(method)
    cores = available_cores()
    of_run = {name: v for name, v in options.items() if name not in of_method} | {
        'nprocs': min(options.get('nprocs') or default_processes(), cores),
        'omp_nthreads': min(options.get('omp_nthreads', 1), cores),
        'mem_gb': options.get('mem_gb') or 0.9 * available_memory_gb(),
        'run_uuid': f'{time.strftime("%Y%m%d-%H%M%S")}_{uuid.uuid4()}',
    }
    if of_run.get('debug'):
        of_run['verbosity'] = max(2, of_run.get('verbosity', 0))
    return method, RunSettings(**of_run)


def _check_functions(method: MethodSettings) -> None:
    """Import the functions of the user, here and in all workers, and check them."""
    from ctpprep.perfusion.custom import check_functions

    if (folder := os.getcwd()) not in sys.path:
        sys.path.insert(0, folder)
        paths = [folder, *filter(None, [os.environ.get('PYTHONPATH')])]
        os.environ['PYTHONPATH'] = os.pathsep.join(paths)
    check_functions(method)


def refuse_other_level(options: dict[str, Any], level: str, file: Path | None = None) -> None:
    """Refuse options of the other level, even at their defaults; a switch that is off is accepted.

    Parameters
    ----------
    options : dict
        Values by the name of the setting.
    level : str
    file : Path, optional
        Config file that they are keys of.

    Raises
    ------
    UsageError
    """
    for settings in (RunSettings, MethodSettings):
        for name, setting in declared(settings).items():
            stage = setting.about.stage
            of_group = stage in GROUP_STAGES or name in SELECTING
            known = of_group if level == 'group' else stage != OF_GROUP
            off = settings is RunSettings and options.get(name) is False
            if name in options and not known and not off:
                other = next(one for one in LEVELS if one != level)
                option = spellings(setting)[-1]
                if file is not None:
                    option = (
                        f'--config-file {file.name}: {option.removeprefix("--").replace("-", "_")}'
                    )
                elif options[name] is False:
                    option = option.replace('--', '--no-', 1)
                raise UsageError(
                    f'{option} is a {other}-level option; remove it from this {level}-level call'
                )
