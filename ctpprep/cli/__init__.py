# SPDX-License-Identifier: Apache-2.0
"""The ``ctpprep`` command.

The options are made from the settings. Slow modules are imported where they are needed, after the
environment variables that they read have been set.
"""

import atexit
import gc
import sys
import traceback
from collections.abc import Sequence

from ctpprep.cli.folders import check_folders
from ctpprep.cli.levels import run_group, run_participants
from ctpprep.cli.machine import set_environment
from ctpprep.cli.messages import log_to_terminal, print_error
from ctpprep.cli.parser import make_parser
from ctpprep.cli.resolve import read_settings
from ctpprep.cli.signals import end_on_signals
from ctpprep.exceptions import CtpprepError, UsageError
from ctpprep.io.disk import explain_full_disk, is_full_disk


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; those of the process by default.

    Returns
    -------
    int
        0 if every series succeeded, 1 if one failed, 2 if the command is invalid. Ctrl-C and SIGTERM end
        the process with 130 and 143.
    """
    # Python would search some million objects for garbage again and again: 0.4 s per series, and up to
    # 1 s at exit
    gc.set_threshold(50_000)
    atexit.register(gc.freeze)
    parser = make_parser()
    try:
        args = parser.parse_args(sys.argv[1:] if argv is None else argv)
    except SystemExit as exit_:
        return int(exit_.code or 0)
    run = None
    try:
        method, run = read_settings(args)
        with end_on_signals(run.use_plugin is not None), log_to_terminal(run.verbosity):
            check_folders(run)
            set_environment(run, args.level)
            return run_group(run) if args.level == 'group' else run_participants(method, run)
    except CtpprepError as error:
        if getattr(args, 'debug', False):
            traceback.print_exc()
        return print_error(error, 2 if isinstance(error, UsageError) else 1)
    except Exception as error:
        if run is not None and is_full_disk(error) and not run.debug:
            return print_error(explain_full_disk(str(error), run), 1)
        traceback.print_exc()
        return print_error(
            'unexpected error; please report it together with the traceback above', 1
        )
