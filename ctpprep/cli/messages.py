# SPDX-License-Identifier: Apache-2.0
"""What the command says, and where: terminal and log file."""

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

logger = logging.getLogger('ctpprep')


def complain(message: object, code: int) -> int:
    """Print one line; return the exit code."""
    print(f'ctpprep: error: {message}', file=sys.stderr)
    return code


@contextlib.contextmanager
def console(verbosity: int) -> Iterator[None]:
    """Send messages to the terminal as plain lines."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter('%(message)s'))
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if verbosity else logging.INFO)
    try:
        with warnings.catch_warnings():
            if not verbosity:
                warnings.simplefilter('ignore')
            yield
    finally:
        logger.removeHandler(handler)


@contextlib.contextmanager
def log_file(path: Path) -> Iterator[None]:
    """Write messages to the run's log file, too."""
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter('%(asctime)s %(levelname)s %(message)s'))
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
