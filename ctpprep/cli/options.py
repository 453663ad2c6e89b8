# SPDX-License-Identifier: Apache-2.0
"""Spellings of the options, and how the text of each becomes a value."""

import argparse
import re
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ctpprep.inputs.labels import nearest
from ctpprep.io.files import absolute
from ctpprep.settings import FUNCTION, LEAST_GB, Setting


def spellings(setting: Setting) -> tuple[str, ...]:
    """List the spellings of an option."""
    return setting.about.options or ('--' + setting.name.replace('_', '-'),)


def key_of(setting: Setting) -> str:
    """Return the config key of a setting: its option without leading dashes, with '_' within."""
    option = next(spelling for spelling in spellings(setting) if spelling.startswith('--'))
    return option.removeprefix('--').replace('-', '_')


def reader(setting: Setting) -> Callable[[str], Any]:
    """Choose the function that turns the text of an option into its value, or into one of several.

    Parameters
    ----------
    setting : Setting

    Returns
    -------
    callable
    """
    special: dict[str, Callable[[str], Any]] = {
        'mem_gb': read_memory, 'derivatives': read_dataset, 'nprocs': read_count,
        'omp_nthreads': read_count,
    }  # fmt: skip
    if setting.name in special:
        return special[setting.name]
    if setting.about.choices:
        return read_choice(setting.about.choices, setting.about.function)
    kind = setting.kind
    inner = typing.get_args(kind)[0] if typing.get_origin(kind) is tuple else kind
    return {Path: read_path}.get(inner, inner)


def read_choice(allowed: tuple[str, ...], function: bool = False) -> Callable[[str], str]:
    """Make a parser of allowed words, and of ``MODULE:FUNCTION`` where that is allowed.

    Parameters
    ----------
    allowed : tuple of str
    function : bool

    Returns
    -------
    callable
    """

    def parse(text: str) -> str:
        if text in allowed or (function and FUNCTION.fullmatch(text)):
            return text
        hint = f'; {near}' if (near := nearest(text, allowed)) else ''
        names = ', '.join(allowed) + (' or MODULE:FUNCTION' if function else '')
        raise argparse.ArgumentTypeError(f'{text!r} is not one of {names}{hint}')

    return parse


def read_path(text: str) -> Path:
    """Make a path absolute."""
    try:
        path = absolute(Path(text))
        path.resolve()
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(f'{text} is a loop of symbolic links') from error
    return path


def read_dataset(text: str) -> tuple[str, Path]:
    """Split NAME=PATH."""
    name, equals, path = text.partition('=')
    if not equals or not path or not re.fullmatch(r'[A-Za-z0-9]+', name) or name == 'raw':
        raise argparse.ArgumentTypeError(
            f'must be NAME=PATH, where NAME has only letters and digits and is not raw, got {text!r}; '
            'write bids_dir, output_dir and level before this option'
        )
    return name, read_path(path)


def read_count(text: str) -> int:
    """Read a whole number from 1 on."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'must be a whole number of at least 1, got {text!r}')
    return int(text)


def read_memory(text: str) -> float:
    """Read a size: MB, or with a suffix.

    Examples
    --------
    >>> read_memory('8000'), read_memory('8G'), read_memory('500MB')
    (8.0, 8.0, 0.5)
    """
    match = re.fullmatch(r'(\d+(?:\.\d+)?)\s*([MGT]?)B?', text.strip(), re.IGNORECASE)
    if not match or float(match[1]) <= 0:
        raise argparse.ArgumentTypeError(
            f'must be a size such as 8000 (MB), 8000M or 8G, got {text!r}'
        )
    size = float(match[1]) * {'': 1e-3, 'M': 1e-3, 'G': 1.0, 'T': 1e3}[match[2].upper()]
    if size < LEAST_GB:
        hint = f'; {text} is MB, write {match[1]}G' if not match[2] else ''
        raise argparse.ArgumentTypeError(f'must be at least {LEAST_GB:g} GB, got {text}{hint}')
    return size
