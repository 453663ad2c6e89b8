# SPDX-License-Identifier: Apache-2.0
"""The ``ctpprep`` command.

The options are made from the settings. Whatever is slow to import is imported when it is needed,
after the environment has been set that it reads.
"""

import atexit
import gc
import sys
import traceback
from collections.abc import Sequence

from ctpprep.cli.folders import check_folders
from ctpprep.cli.machine import set_environment
from ctpprep.cli.messages import complain, console
from ctpprep.cli.parser import make_parser
from ctpprep.cli.resolve import read_settings
from ctpprep.cli.run import run_group, run_participants
from ctpprep.cli.signals import ending_at_once
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
        0 if every series succeeded, 1 if not, 2 for a command that cannot be carried out as given.
        Ctrl-C and SIGTERM end the process with 130 and 143.
    """
    # Python would look through some million objects for garbage again and again: 0.4 s of a series
    # while it runs, and up to a second when it ends
    gc.set_threshold(50_000)
    atexit.register(gc.freeze)
    parser = make_parser()
    try:
        args = parser.parse_args(sys.argv[1:] if argv is None else argv)
    except SystemExit as stop:
        return int(stop.code or 0)
    run = None
    try:
        method, run = read_settings(args)
        with ending_at_once(run.use_plugin is not None), console(run.verbosity):
            check_folders(run)
            set_environment(run, args.level)
            return run_group(run) if args.level == 'group' else run_participants(method, run)
    except CtpprepError as error:
        if getattr(args, 'debug', False):
            traceback.print_exc()
        return complain(error, 2 if isinstance(error, UsageError) else 1)
    except Exception as error:
        if run is not None and is_full_disk(error) and not run.debug:
            return complain(explain_full_disk(str(error), run), 1)
        traceback.print_exc()
        return complain('this should not have happened, please report it with the above', 1)
