# SPDX-License-Identifier: Apache-2.0
"""The options, made from the settings, and their errors in one line."""

import argparse
import re
import sys
import typing
from typing import Any

from ctpprep import __version__
from ctpprep.cli.options import read_choice, read_path, reader, spellings
from ctpprep.inputs.labels import nearest
from ctpprep.settings import MethodSettings, RunSettings, Setting, declared

LEVELS = ('participant', 'group')
EPILOG = """\
examples:
  ctpprep my-study results participant
  ctpprep my-study results participant --participant-label 01 --nprocs 4 -w /scratch/work
  ctpprep my-study results group --group-column microangiopathy

Exit code: 0 if every series succeeded, 1 if one failed, 2 if the command or its input is
invalid, 130 when interrupted, 143 when terminated.
"""
# settings whose options --help lists; --help-all lists all
COMMON = frozenset({
    'help', 'help_all', 'version', 'config_file', 'participant_label', 'session_label',
    'bids_filter_file', 'entry', 'frame_interval', 'derivatives', 'brain_mask', 'exclude_mask',
    'aif_file', 'work_dir', 'nprocs', 'mem_gb', 'clean_workdir_on_success', 'group_column',
    'exclude_column', 'reports_only', 'dry_run', 'verbosity', 'preset', 'bolus_arrival',
    'core_rcbf', 'hypoperfusion_tmax', 'affected_side',
})  # fmt: skip


def make_parser() -> argparse.ArgumentParser:
    """Declare all options: one a field of `RunSettings` and `MethodSettings`.

    An option that is not given leaves nothing behind, so that a config file can come between.
    """
    parser = _Parser(
        prog='ctpprep',
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
        usage='%(prog)s bids_dir output_dir {participant,group} [options]',
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
        description='Perfusion maps, infarct core and report from CT perfusion series in BIDS.',
        epilog=EPILOG,
    )
    add = parser.add_argument
    add('bids_dir', type=read_path, help='BIDS dataset, or folder of precomputed maps')
    add('output_dir', type=read_path, help='folder for the results')
    add(
        'level', type=read_choice(LEVELS), metavar='{participant,group}',
        help='process participants, or join the tables of all of them',
    )  # fmt: skip
    add('-h', '--help', action=_Help, nargs=0, help='show the common options and exit')
    add('--help-all', action=_Help, nargs=0, help='show all options and exit')
    add(
        '--version', action='version', version=f'ctpprep {__version__}',
        help='show the version and exit',
    )  # fmt: skip
    add(
        '--config-file', type=read_path, metavar='FILE',
        help='TOML file with one option per key; options of the command take precedence (every run '
        'writes a file that repeats it to OUTPUT_DIR/logs)',
    )  # fmt: skip
    add(
        '--low-mem', '--notrack', action=_Nothing, nargs=0,
        help='accepted without effect: memory is always limited, and nothing is ever reported to '
        'anybody',
    )  # fmt: skip
    groups = {'input': parser.add_argument_group('input')}
    for settings, title in ((RunSettings, '{}'), (MethodSettings, 'method: {}')):
        for setting in declared(settings).values():
            stage = setting.about.stage
            if stage not in groups:
                groups[stage] = parser.add_argument_group(title.format(stage))
            _add_option(groups[stage], setting, settings)
    return parser


def _add_option(group: argparse._ArgumentGroup, setting: Setting, settings: type) -> None:
    """Add the option of one setting."""
    about, kind = setting.about, setting.kind
    how: dict[str, Any] = {'dest': setting.name, 'help': _help(setting).replace('%', '%%')}
    options = spellings(setting)
    if kind is bool:
        if settings is MethodSettings:
            group.add_argument(*options, action=argparse.BooleanOptionalAction, **how)
            return
        group.add_argument(*options, action='store_true', **how)
        # hidden: revokes the key of a config file
        no = options[-1].replace('--', '--no-', 1)
        group.add_argument(no, dest=setting.name, action='store_false', help=argparse.SUPPRESS)
        return
    if setting.name == 'verbosity':
        group.add_argument(*options, action='count', **how)
        return
    if setting.name == 'derivatives':
        how |= {'action': 'extend', 'nargs': '+'}
    elif typing.get_origin(kind) is tuple:
        inner = typing.get_args(kind)
        how['nargs'] = '+' if inner[-1] is ... else len(inner)
    if about.choices:
        names = (*about.choices, *(['MODULE:FUNCTION'] if about.function else []))
        how['metavar'] = f'{{{",".join(names)}}}'
    else:
        how['metavar'] = about.value or (about.unit if about.unit.isalpha() else 'value').upper()
    group.add_argument(*options, type=reader(setting), **how)


def _help(setting: Setting) -> str:
    """Write meaning, default with unit, and source."""
    about, default = setting.about, setting.default
    shown = ' '.join(f'{v:g}' for v in default) if isinstance(default, tuple) else default
    shown = {True: 'yes', False: 'no'}.get(shown, shown) if type(shown) is bool else shown
    shown = f'{shown} {about.unit}'.strip() if shown not in (None, '') else 'none'
    if about.by_default:
        shown = about.by_default
    source = f'; {about.source}' if about.source else ''
    unit = f', in {about.unit}' if about.unit and about.by_default else ''
    return f'{about.meaning}{unit} (default: {shown}{source})'


class _Help(argparse.Action):
    """Print the common options, or all of them, and exit."""

    def __call__(self, parser, namespace, values, option_string=None):
        """Print the help that the option asks for."""
        everything = option_string == '--help-all'
        parser._print_message(
            parser.format_help() if everything else parser.format_common_help(), sys.stdout
        )
        parser.exit()


class _Nothing(argparse.Action):
    """An option of other apps without a counterpart."""

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
                visible = [
                    name for name, action in known.items() if action.help != argparse.SUPPRESS
                ]
                hint = nearest(word.partition('=')[0], visible, 'see ctpprep --help')
                self.error(f'there is no option {word.partition("=")[0]}; {hint}')
            words.append(word)
        return super().parse_args(words, namespace)

    def format_common_help(self) -> str:
        """Format the help of the options in `COMMON`."""
        formatter = self._get_formatter()
        formatter.add_usage(self.usage, self._actions, self._mutually_exclusive_groups)
        formatter.add_text(self.description)
        for group in self._action_groups:
            actions = [
                action for action in group._group_actions
                if not action.option_strings or action.dest in COMMON
            ]  # fmt: skip
            if actions:
                formatter.start_section(group.title)
                formatter.add_arguments(actions)
                formatter.end_section()
        formatter.add_text('These are the common options; ctpprep --help-all lists all.')
        formatter.add_text(self.epilog)
        return formatter.format_help()

    def error(self, message):
        """Print one line and exit with 2."""
        self.exit(2, f'{self.prog}: error: {message}\n')
