# SPDX-License-Identifier: Apache-2.0
"""What the commands of this room share."""

import argparse
import sys
from collections.abc import Callable, Sequence

from ctpprep.exceptions import UsageError


def run_command(
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None,
    run: Callable[[argparse.Namespace], int],
) -> int:
    """Parse the arguments and run the command.

    Parameters
    ----------
    parser : argparse.ArgumentParser
    argv : sequence of str or None
        Arguments; those of the process if None.
    run : callable
        Returns the exit code.

    Returns
    -------
    int
        That of `run`, or 2 if the command is invalid.
    """
    try:
        args = parser.parse_args(argv)
    except SystemExit as exit_:
        return int(exit_.code or 0)
    try:
        return run(args)
    except UsageError as error:
        sys.stderr.write(f'{parser.prog}: error: {error}\n')
        return 2
