# SPDX-License-Identifier: Apache-2.0
"""The options, made from the settings, and their errors in one line."""

import argparse
import dataclasses
import difflib
import re
import time
import typing
import uuid
from pathlib import Path

from ctpprep import __version__
from ctpprep.cli.folders import default_work_dir
from ctpprep.cli.machine import available_cores, available_memory_gb, default_processes
from ctpprep.exceptions import UsageError
from ctpprep.settings import ENTRIES, About, MethodSettings, RunSettings

LEVELS = ('participant', 'group')


def make_parser() -> argparse.ArgumentParser:
    """Declare all options."""
    parser = _Parser(
        prog='ctpprep',
        usage='%(prog)s bids_dir output_dir {participant,group} [options]',
        allow_abbrev=False,
        description='Perfusion maps, infarct core and report from CT perfusion series in BIDS.',
        epilog='Exit code: 0 if every series succeeded, 1 if one failed, 2 for a wrong command.',
    )
    add = parser.add_argument
    add('bids_dir', type=_folder, help='root of the BIDS dataset')
    add('output_dir', type=_folder, help='where the derivatives go')
    add(
        'level', type=_choice(LEVELS), metavar='{participant,group}',
        help='process participants, or collect the tables of all of them',
    )  # fmt: skip
    add('--version', action='version', version=f'ctpprep {__version__}')
    add('-v', '--verbose', action='count', default=0, help='say more; -vv for debugging')

    add = parser.add_argument_group('input').add_argument
    add(
        '--participant-label', nargs='+', default=(), metavar='LABEL',
        help='participants to process, with or without sub- (default: all)',
    )  # fmt: skip
    add(
        '--session-label', '--session-id', nargs='+', default=(), metavar='LABEL',
        help='sessions to process, with or without ses- (default: all)',
    )  # fmt: skip
    add(
        '--entry', type=_choice(ENTRIES), default='auto', metavar=f'{{{",".join(ENTRIES)}}}',
        help='what to process: CT perfusion series, maps made elsewhere, or maps where a session '
        'has no series (default: auto)',
    )  # fmt: skip
    add(
        '--frame-interval', type=float, metavar='S',
        help='time between frames in s, instead of what the dataset says',
    )  # fmt: skip
    add(
        '--frame-times', type=_folder, metavar='FILE',
        help='text file with the time of each frame in s, instead of what the dataset says',
    )  # fmt: skip

    add(
        '-d', '--derivatives', type=_dataset, action='append', default=[], metavar='NAME=PATH',
        help='dataset that holds brain masks, motion-corrected series or AIFs in place of steps; '
        'may be repeated, the first that has a file counts',
    )  # fmt: skip
    add(
        '--brain-mask', type=_folder, metavar='FILE',
        help='mask of the brain (NIfTI), in place of ours; for one series',
    )  # fmt: skip
    add(
        '--aif-file', type=_folder, metavar='FILE',
        help='AIF as a table (tsv: time in s, aif and perhaps vof in HU above baseline) or as a '
        'mask of its voxels (NIfTI), in place of ours; for one series',
    )  # fmt: skip

    add = parser.add_argument_group('resources').add_argument
    add(
        '-w', '--work-dir', type=_folder, metavar='DIR',
        help='folder for intermediate files; the same folder lets a stopped run go on '
        '(default: OUTPUT_DIR with _work added to its name, or the same beside BIDS_DIR if '
        'OUTPUT_DIR is inside it)',
    )  # fmt: skip
    add(
        '--nprocs', '--nthreads', type=_count, metavar='N',
        help='processes at a time (default: all cores this process may use)',
    )  # fmt: skip
    add(
        '--omp-nthreads', type=_count, default=1, metavar='N',
        help='threads a process; with more than 1, results may differ in the last digits '
        '(default: 1)',
    )  # fmt: skip
    add(
        '--mem', type=_memory_gb, metavar='SIZE',
        help='memory to plan with: MB, or with G or M added (default: 90 %% of what is available)',
    )  # fmt: skip
    add('--write-graph', action='store_true', help='draw the graph of steps into OUTPUT_DIR/logs')
    _add_method_options(parser)
    return parser


def _add_method_options(parser: argparse.ArgumentParser) -> None:
    """Add one option for each field of `MethodSettings`, grouped by stage."""
    types = typing.get_type_hints(MethodSettings)
    groups: dict[str, argparse._ArgumentGroup] = {}
    for each in dataclasses.fields(MethodSettings):
        about: About = each.metadata['about']
        if about.stage not in groups:
            groups[about.stage] = parser.add_argument_group(f'method: {about.stage}')
        option, default = '--' + each.name.replace('_', '-'), each.default
        shown = ' '.join(f'{v:g}' for v in default) if isinstance(default, tuple) else default
        shown = {True: 'yes', False: 'no'}.get(shown, shown) if type(shown) is bool else shown
        unit = f' {about.unit}' if about.unit else ''
        source = f'; {about.source}' if about.source else ''
        text = f'{about.meaning} (default: {shown}{unit}{source})'
        kind: dict[str, typing.Any] = {'default': argparse.SUPPRESS}
        if isinstance(default, bool):
            kind['action'] = argparse.BooleanOptionalAction
        elif isinstance(default, tuple):
            inner = typing.get_args(types[each.name])
            kind |= {'type': inner[0], 'nargs': '+' if inner[-1] is ... else len(inner)}
        elif about.choices:
            kind |= {'type': _choice(about.choices), 'metavar': f'{{{",".join(about.choices)}}}'}
        else:
            kind['type'] = type(default)
        if 'metavar' not in kind and not isinstance(default, bool):
            kind['metavar'] = (about.unit if about.unit.isalpha() else 'value').upper()
        groups[about.stage].add_argument(option, help=text.replace('%', '%%'), **kind)


class _Parser(argparse.ArgumentParser):
    """A parser that answers mistakes in one line, with the nearest valid spelling."""

    def parse_args(self, args=None, namespace=None):
        """Check the spelling of options first: a misspelt one would shift the positionals."""
        known = self._option_string_actions
        for word in args or ():
            option = word.partition('=')[0] if word.startswith('--') else word[:2]
            if re.match(r'--?[A-Za-z]', option) and option not in known:
                near = difflib.get_close_matches(word.partition('=')[0], known, n=1)
                hint = f'did you mean {near[0]}?' if near else 'see ctpprep --help'
                self.error(f'there is no option {word.partition("=")[0]}; {hint}')
        return super().parse_args(args, namespace)

    def error(self, message):
        """Print one line and exit with 2."""
        self.exit(2, f'{self.prog}: error: {message}\n')


def _choice(allowed: tuple[str, ...]) -> typing.Callable[[str], str]:
    def parse(text: str) -> str:
        if text in allowed:
            return text
        near = difflib.get_close_matches(text, allowed, n=1)
        hint = f'; did you mean {near[0]}?' if near else ''
        raise argparse.ArgumentTypeError(f'{text!r} is not one of {", ".join(allowed)}{hint}')

    return parse


def _folder(text: str) -> Path:
    return Path(text).expanduser().absolute()


def _dataset(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition('=')
    if not equals or not path or not re.fullmatch(r'[A-Za-z0-9]+', name) or name == 'raw':
        raise argparse.ArgumentTypeError(
            f'NAME=PATH is needed, with letters and digits in NAME and not raw, got {text!r}'
        )
    return name, _folder(path)


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'a whole number from 1 on is needed, got {text!r}')
    return int(text)


def _memory_gb(text: str) -> float:
    """Read a size: MB, or with a suffix.

    Examples
    --------
    >>> _memory_gb('8000'), _memory_gb('8G'), _memory_gb('500MB')
    (8.0, 8.0, 0.5)
    """
    match = re.fullmatch(r'(\d+(?:\.\d+)?)\s*([MGT]?)B?', text.strip(), re.IGNORECASE)
    if not match or float(match[1]) <= 0:
        raise argparse.ArgumentTypeError(
            f'a size such as 8000 (MB), 8000M or 8G is needed, got {text!r}'
        )
    return float(match[1]) * {'': 1e-3, 'M': 1e-3, 'G': 1.0, 'T': 1e3}[match[2].upper()]


def read_settings(args: argparse.Namespace) -> tuple[MethodSettings, RunSettings]:
    """Turn parsed options into settings.

    Raises
    ------
    UsageError
        When a value is out of its range.
    """
    if args.frame_interval is not None and args.frame_times is not None:
        raise UsageError('--frame-interval and --frame-times exclude each other')
    names = {each.name for each in dataclasses.fields(MethodSettings)}
    given = {name: value for name, value in vars(args).items() if name in names}
    given = {name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}
    cores = available_cores()
    run = RunSettings(
        bids_dir=args.bids_dir,
        output_dir=args.output_dir,
        work_dir=args.work_dir or default_work_dir(args.bids_dir, args.output_dir),
        participant_label=tuple(args.participant_label),
        session_label=tuple(args.session_label),
        nprocs=min(args.nprocs or default_processes(), cores),
        omp_nthreads=min(args.omp_nthreads, cores),
        mem_gb=args.mem or 0.9 * available_memory_gb(),
        frame_interval=args.frame_interval,
        frame_times=args.frame_times,
        brain_mask=args.brain_mask,
        aif_file=args.aif_file,
        derivatives=tuple(args.derivatives),
        entry=args.entry,
        verbosity=args.verbose,
        run_uuid=f'{time.strftime("%Y%m%d-%H%M%S")}_{uuid.uuid4()}',
        write_graph=args.write_graph,
    )
    return MethodSettings(**given), run
