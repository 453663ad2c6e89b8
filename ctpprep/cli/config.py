# SPDX-License-Identifier: Apache-2.0
"""The config file: options as TOML, one key each, read and written.

The file that a run writes repeats it on another computer: folders are named by their role, and
settings of the computer are left out.
"""

import argparse
import json
import os
import tomllib
import typing
from pathlib import Path
from typing import Any

from ctpprep import __version__
from ctpprep.cli.options import key_of, reader, spellings
from ctpprep.exceptions import UsageError
from ctpprep.inputs.labels import nearest
from ctpprep.io.files import read_text
from ctpprep.settings import EXCLUSIVE, MethodSettings, RunSettings, Setting, declared

# of the machine, not of the run
MACHINE = (
    'work_dir', 'clean_workdir', 'clean_workdir_on_success', 'nprocs', 'mem_gb', 'use_plugin',
    'bids_database_dir',
)  # fmt: skip
# of commands that process nothing
INSTEAD = ('reports_only', 'boilerplate_only', 'dry_run')


def read_config(path: Path, folders: dict[str, Path]) -> dict[str, Any]:
    """Read a config file.

    Parameters
    ----------
    path : Path
        TOML file. Its keys are options without the dashes in front, with '_' or '-' within.
    folders : dict of str to Path
        What the roles ``bids_dir`` and ``output_dir`` represent at the start of a path.

    Returns
    -------
    dict
        Values by the name of the setting.

    Raises
    ------
    UsageError
        When the file cannot be read, a key is unknown, or a value is of the wrong kind.
    """
    try:
        content = tomllib.loads(read_text(path, UsageError, f'--config-file {path}', 'utf-8'))
    except ValueError as error:
        raise UsageError(f'--config-file {path} cannot be read as TOML ({error})') from error
    known = {
        key_of(setting): setting
        for settings in (RunSettings, MethodSettings)
        for setting in declared(settings).values()
    }
    read = {}
    for written, value in content.items():
        key = written.replace('-', '_')
        if key not in known:
            hint = nearest(key, known, 'keys are options without their dashes')
            raise UsageError(f'--config-file {path.name}: there is no key {written}; {hint}')
        setting = known[key]
        try:
            read[setting.name] = _convert(setting, value, folders)
        except (argparse.ArgumentTypeError, ValueError) as error:
            raise UsageError(f'--config-file {path.name}: {written}: {error}') from error
    return read


def _convert(setting: Setting, value: Any, folders: dict[str, Path]) -> Any:
    """Turn a value of TOML into that of a setting."""
    kind = setting.kind
    if setting.name == 'derivatives':
        if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
            raise ValueError(f'must be datasets by name, {{name = "path"}}, got {value!r}')
        read = reader(setting)
        return tuple(read(f'{name}={_from_role(one, folders)}') for name, one in value.items())
    if typing.get_origin(kind) is tuple:
        inner, values = typing.get_args(kind), value if isinstance(value, list) else [value]
        if inner[-1] is not ... and len(values) != len(inner):
            raise ValueError(f'must be {len(inner)} values, got {value!r}')
        return tuple(_convert_one(setting, inner[0], one, folders) for one in values)
    return _convert_one(setting, kind, value, folders)


def _convert_one(setting: Setting, kind: Any, value: Any, folders: dict[str, Path]) -> Any:
    words = {bool: 'true or false', int: 'a whole number', float: 'a number'}
    allowed: tuple[type, ...] = {bool: (bool,), int: (int,), float: (int, float)}.get(kind, (str,))
    if setting.name == 'mem_gb':  # with or without its unit
        allowed = (str, int, float)
    if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f'must be {words.get(kind, "a text in quotes")}, got {value!r}')
    if kind is bool or setting.name == 'verbosity':
        return value
    text = _from_role(str(value), folders) if kind is Path else str(value)
    return reader(setting)(text)


def override(read: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """Give options of the command priority over those of a config file, also over excluded ones.

    Examples
    --------
    >>> override({'frame_interval': 1.0, 'denoise_rank': 5}, {'frame_times': 'x', 'denoise_rank': 4})
    {'denoise_rank': 4, 'frame_times': 'x'}
    """
    excluded = {
        name
        for names in EXCLUSIVE
        if any(options.get(name) for name in names)
        for name in names
        if name not in options
    }
    return {name: value for name, value in read.items() if name not in excluded} | options


def format_config(method: MethodSettings, run: RunSettings) -> str:
    """Write the config file that repeats a run.

    Parameters
    ----------
    method : MethodSettings
        Every setting is written: a later version may have other defaults.
    run : RunSettings
        What differs from its default is written, without what belongs to the machine.

    Returns
    -------
    str
        TOML. A path that is neither in the folders of the call nor beside them is left out, with a
        comment.
    """
    folders = {'bids_dir': run.bids_dir, 'output_dir': run.output_dir}
    lines = [
        f'# ctpprep {__version__}. This file repeats a run:',
        '#     ctpprep BIDS_DIR OUTPUT_DIR participant --config-file THIS_FILE',
        '# Paths begin with the role of a folder of that command, bids_dir or output_dir.',
        '# Work folder, processes, memory and plugin belong to the computer and are left out.',
    ]
    stage = ''
    values = method.as_dict()
    for settings in (RunSettings, MethodSettings):
        for name, setting in declared(settings).items():
            about = setting.about
            of_run = settings is RunSettings
            value = getattr(run, name) if of_run else values[about.stage][name]
            if of_run and (value == setting.default or name in MACHINE + INSTEAD):
                continue
            if about.stage != stage:
                stage = about.stage
                lines += ['', f'# -- {stage}']
            text = _format(value, folders)
            if text is None:
                lines.append(
                    f'# {key_of(setting)}: elsewhere; give {spellings(setting)[-1]} again'
                )
            else:
                unit = f'  # {about.unit}' if about.unit else ''
                lines.append(f'{key_of(setting)} = {text}{unit}')
    return '\n'.join(lines) + '\n'


def _format(value: Any, folders: dict[str, Path]) -> str | None:
    """Write a value as TOML; None for a path that cannot be named by a role."""
    if isinstance(value, Path):
        role = _to_role(value, folders)
        return None if role is None else _format(role, folders)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, tuple) and value and isinstance(value[0], tuple):
        pairs = [(name, _format(path, folders)) for name, path in value]
        if any(text is None for _, text in pairs):
            return None
        return f'{{{", ".join(f"{name} = {text}" for name, text in pairs)}}}'
    if isinstance(value, tuple):
        return f'[{", ".join(str(_format(part, folders)) for part in value)}]'
    return repr(value)


def _to_role(path: Path, folders: dict[str, Path]) -> str | None:
    """Name a path by the folder that it is in or beside; beyond that it would reveal the computer.

    Examples
    --------
    >>> folders = {'bids_dir': Path('/home/a/raw'), 'output_dir': Path('/scratch/out')}
    >>> _to_role(Path('/home/a/raw/aif.tsv'), folders), _to_role(Path('/scratch/aif.tsv'), folders)
    ('bids_dir/aif.tsv', 'output_dir/../aif.tsv')
    >>> _to_role(Path('/home/b/aif.tsv'), folders)
    """
    for up in (False, True):
        for name, folder in folders.items():
            root = folder.parent if up else folder
            if path.is_relative_to(root) and root != Path(root.anchor):
                inside = path.relative_to(root).parts or ('.',)
                return '/'.join([name, *(['..'] if up else []), *inside])
    return None


def _from_role(text: str, folders: dict[str, Path]) -> str:
    """Put the folder of a role in its place."""
    first, slash, rest = text.partition('/')
    return os.path.normpath(folders[first] / rest) if slash and first in folders else text
