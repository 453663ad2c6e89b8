# SPDX-License-Identifier: Apache-2.0
"""The options, made from the settings, and their errors in one line."""

import argparse
import dataclasses
import re
import time
import types
import typing
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ctpprep import __version__
from ctpprep.cli.folders import default_work_dir
from ctpprep.cli.machine import available_cores, available_memory_gb, default_processes
from ctpprep.exceptions import UsageError
from ctpprep.inputs.labels import nearest
from ctpprep.io.files import absolute
from ctpprep.settings import LEAST_GB, About, MethodSettings, RunSettings

LEVELS = ('participant', 'group')
# what the group level knows: all of these stages, and of the input what chooses among series or does no harm
OF_GROUP = 'group level'
KNOWN_TO_GROUP = (OF_GROUP, 'resources', 'messages')
CHOOSES = (
    'participant_label', 'session_label', 'run_label', 'skip_bids_validation', 'bids_database_dir'
)  # fmt: skip
EPILOG = (
    'Exit code: 0 if every series succeeded, 1 if one failed, 2 for a command that cannot be carried '
    'out as given, 130 when interrupted, 143 when terminated.'
)


def make_parser() -> argparse.ArgumentParser:
    """Declare all options: one a field of `RunSettings` and `MethodSettings`.

    An option that is not given leaves nothing behind, so that a config file can come between.
    """
    parser = _Parser(
        prog='ctpprep',
        usage='%(prog)s bids_dir output_dir {participant,group} [options]',
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
        description='Perfusion maps, infarct core and report from CT perfusion series in BIDS.',
        epilog=EPILOG,
    )
    add = parser.add_argument
    add('bids_dir', type=_folder, help='root of the BIDS dataset')
    add('output_dir', type=_folder, help='where the derivatives go')
    add(
        'level', type=_choice(LEVELS), metavar='{participant,group}',
        help='process participants, or collect the tables of all of them',
    )  # fmt: skip
    add('--version', action='version', version=f'ctpprep {__version__}')
    add(
        '--config-file', type=_folder, metavar='FILE',
        help='TOML file with options, one key each; options of the command go before it (every run '
        'writes the file that repeats it into OUTPUT_DIR/logs)',
    )  # fmt: skip
    add(
        '--low-mem', '--notrack', action=_Nothing, nargs=0,
        help='understood and without effect: series are read piece by piece in any case, and nothing '
        'is ever reported to anybody',
    )  # fmt: skip
    groups = {'input': parser.add_argument_group('input')}
    for settings, title in ((RunSettings, '{}'), (MethodSettings, 'method: {}')):
        for each in described(settings):
            stage = each.metadata['about'].stage
            if stage not in groups:
                groups[stage] = parser.add_argument_group(title.format(stage))
            _add_option(groups[stage], each, hints(settings)[each.name], settings)
    return parser


def described(settings: type) -> list[dataclasses.Field[Any]]:
    """List the fields of a settings class that have an option."""
    return [each for each in dataclasses.fields(settings) if 'about' in each.metadata]


def hints(settings: type) -> dict[str, Any]:
    """Name the type of each field; of an optional value that of the value."""
    found = {}
    for name, kind in typing.get_type_hints(settings).items():
        if isinstance(kind, types.UnionType):
            (kind,) = (each for each in typing.get_args(kind) if each is not type(None))
        found[name] = kind
    return found


def spellings(each: dataclasses.Field[Any]) -> tuple[str, ...]:
    """List the spellings of an option."""
    return each.metadata['about'].options or ('--' + each.name.replace('_', '-'),)


def reader(name: str, kind: Any, about: About) -> Callable[[str], Any]:
    """Choose what turns the text of an option into its value, or into one of several.

    Parameters
    ----------
    name : str
        Of the setting.
    kind : type
        Of its values, as `hints` gives it.
    about : About

    Returns
    -------
    callable
    """
    own = {'mem_gb': read_memory, 'derivatives': _dataset}
    counts = {'nprocs': _count, 'omp_nthreads': _count}
    if name in own | counts:
        return (own | counts)[name]
    if about.choices:
        return _choice(about.choices)
    inner = typing.get_args(kind)[0] if typing.get_origin(kind) is tuple else kind
    return {Path: _folder}.get(inner, inner)


def _add_option(
    group: argparse._ArgumentGroup, each: dataclasses.Field[Any], kind: Any, settings: type
) -> None:
    """Add the option of one field."""
    about: About = each.metadata['about']
    how: dict[str, Any] = {'dest': each.name, 'help': _help(each).replace('%', '%%')}
    options = spellings(each)
    if kind is bool:
        if settings is MethodSettings:
            group.add_argument(*options, action=argparse.BooleanOptionalAction, **how)
            return
        group.add_argument(*options, action='store_true', **how)
        # not shown: what takes back the key of a config file
        no = options[-1].replace('--', '--no-', 1)
        group.add_argument(no, dest=each.name, action='store_false', help=argparse.SUPPRESS)
        return
    if each.name == 'verbosity':
        group.add_argument(*options, action='count', **how)
        return
    if each.name == 'derivatives':
        how |= {'action': 'extend', 'nargs': '+'}
    elif typing.get_origin(kind) is tuple:
        inner = typing.get_args(kind)
        how['nargs'] = '+' if inner[-1] is ... else len(inner)
    if about.choices:
        how['metavar'] = f'{{{",".join(about.choices)}}}'
    else:
        how['metavar'] = about.value or (about.unit if about.unit.isalpha() else 'value').upper()
    group.add_argument(*options, type=reader(each.name, kind, about), **how)


def _help(each: dataclasses.Field[Any]) -> str:
    """Write meaning, default with unit, and source."""
    about, default = each.metadata['about'], each.default
    shown = ' '.join(f'{v:g}' for v in default) if isinstance(default, tuple) else default
    shown = {True: 'yes', False: 'no'}.get(shown, shown) if type(shown) is bool else shown
    shown = f'{shown} {about.unit}'.strip() if shown not in (None, '') else 'none'
    if about.by_default:
        shown = about.by_default
    source = f'; {about.source}' if about.source else ''
    unit = f', in {about.unit}' if about.unit and about.by_default else ''
    return f'{about.meaning}{unit} (default: {shown}{source})'


class _Nothing(argparse.Action):
    """An option of other apps that needs no answer here."""

    def __call__(self, *_):
        """Leave nothing behind."""


class _Parser(argparse.ArgumentParser):
    """A parser that answers mistakes in one line, with the nearest valid spelling."""

    def parse_args(self, args=None, namespace=None):
        """Check the spelling of options first: a misspelt one would shift the positionals."""
        known = self._option_string_actions
        words = []
        for word in args or ():
            option, equals, value = word.partition('=')
            option = option if word.startswith('--') else word[:2]
            if (dashed := option.replace('_', '-')) in known and dashed != option:
                option, word = dashed, f'{dashed}{equals}{value}'  # as the first BIDS apps have it
            if re.match(r'--?[A-Za-z]', option) and option not in known:
                said = [each for each, action in known.items() if action.help != argparse.SUPPRESS]
                hint = nearest(word.partition('=')[0], said, 'see ctpprep --help')
                self.error(f'there is no option {word.partition("=")[0]}; {hint}')
            words.append(word)
        return super().parse_args(words, namespace)

    def error(self, message):
        """Print one line and exit with 2."""
        self.exit(2, f'{self.prog}: error: {message}\n')


def _choice(allowed: tuple[str, ...]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text in allowed:
            return text
        hint = f'; {near}' if (near := nearest(text, allowed)) else ''
        raise argparse.ArgumentTypeError(f'{text!r} is not one of {", ".join(allowed)}{hint}')

    return parse


def _folder(text: str) -> Path:
    return absolute(Path(text))


def _dataset(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition('=')
    if not equals or not path or not re.fullmatch(r'[A-Za-z0-9]+', name) or name == 'raw':
        raise argparse.ArgumentTypeError(
            f'NAME=PATH is needed, with letters and digits in NAME and not raw, got {text!r}; '
            'bids_dir, output_dir and level go before it'
        )
    return name, _folder(path)


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'a whole number from 1 on is needed, got {text!r}')
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
            f'a size such as 8000 (MB), 8000M or 8G is needed, got {text!r}'
        )
    size = float(match[1]) * {'': 1e-3, 'M': 1e-3, 'G': 1.0, 'T': 1e3}[match[2].upper()]
    if size < LEAST_GB:
        hint = f'; {text} is MB, write {match[1]}G' if not match[2] else ''
        raise argparse.ArgumentTypeError(f'at least {LEAST_GB:g} GB are needed, got {text}{hint}')
    return size


def read_settings(args: argparse.Namespace) -> tuple[MethodSettings, RunSettings]:
    """Turn parsed options, and those of a config file, into settings.

    Parameters
    ----------
    args : argparse.Namespace
        Holds what was given alone, as `make_parser` makes it.

    Returns
    -------
    method : MethodSettings
    run : RunSettings

    Raises
    ------
    UsageError
        When a value is out of its range, or options exclude each other or are of the other level.
    """
    from ctpprep.cli.config import override, read_config

    given: dict[str, Any] = {
        name: tuple(v) if isinstance(v, list) else v for name, v in vars(args).items()
    }
    level = given.pop('level')
    folders = {name: given[name] for name in ('bids_dir', 'output_dir')}
    if (file := given.pop('config_file', None)) is not None:
        read = read_config(file, folders)
        refuse_other_level(read, level, file)
        given = override(read, given)
    refuse_other_level(given, level)
    given.setdefault('work_dir', default_work_dir(*folders.values()))
    of_method = {each.name for each in described(MethodSettings)}
    method = MethodSettings(**{name: v for name, v in given.items() if name in of_method})
    cores = available_cores()
    of_run = {name: v for name, v in given.items() if name not in of_method} | {
        'nprocs': min(given.get('nprocs') or default_processes(), cores),
        'omp_nthreads': min(given.get('omp_nthreads', 1), cores),
        'mem_gb': given.get('mem_gb') or 0.9 * available_memory_gb(),
        'run_uuid': f'{time.strftime("%Y%m%d-%H%M%S")}_{uuid.uuid4()}',
    }
    if of_run.get('debug'):
        of_run['verbosity'] = max(2, of_run.get('verbosity', 0))
    return method, RunSettings(**of_run)


def refuse_other_level(given: dict[str, Any], level: str, file: Path | None = None) -> None:
    """Refuse options that the level does not know, also at their defaults; a switch that is off asks nothing.

    Parameters
    ----------
    given : dict
        Values by the name of the setting.
    level : str
    file : Path, optional
        Config file that they are keys of.

    Raises
    ------
    UsageError
    """
    for settings in (RunSettings, MethodSettings):
        for each in described(settings):
            stage = each.metadata['about'].stage
            of_group = stage in KNOWN_TO_GROUP or each.name in CHOOSES
            known = of_group if level == 'group' else stage != OF_GROUP
            off = settings is RunSettings and given.get(each.name) is False
            if each.name in given and not known and not off:
                other = next(one for one in LEVELS if one != level)
                option = spellings(each)[-1]
                if file is not None:
                    option = (
                        f'--config-file {file.name}: {option.removeprefix("--").replace("-", "_")}'
                    )
                elif given[each.name] is False:
                    option = option.replace('--', '--no-', 1)
                raise UsageError(
                    f'{option} is of the level {other}; the {level} level knows no such'
                )
