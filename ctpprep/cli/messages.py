# SPDX-License-Identifier: Apache-2.0
"""What the command says, and where: terminal and log file."""

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from ctpprep.io.disk import explain_full_disk, is_full_disk
from ctpprep.settings import RunSettings

logger = logging.getLogger('ctpprep')


def complain(message: object, code: int) -> int:
    """Print one line; return the exit code."""
    print(f'ctpprep: error: {message}', file=sys.stderr)
    return code


class _StandardOutput(logging.StreamHandler):
    """Write to what standard output is at the moment: a display may stand before it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        """The file."""
        return sys.stdout


@contextlib.contextmanager
def console(verbosity: int) -> Iterator[None]:
    """Send messages to the terminal as plain lines; those of single steps only if more is to be said."""
    handler = _StandardOutput()
    handler.addFilter(lambda record: bool(verbosity) or record.name != 'ctpprep.details')
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
def log_and_continue(
    what: str, failures: dict[str, str], *participants: str, run: RunSettings | None = None
) -> Iterator[None]:
    """Let the others go on where something cannot be written when all computing is done.

    Parameters
    ----------
    what : str
        Such as 'the page sub-01.html could not be written'.
    failures : dict of str to str
        Gets a sentence for each of the participants.
    *participants : str
        Labels of those that it concerns.
    run : RunSettings, optional
        Folders that may be full, where something is written.
    """
    try:
        yield
    except Exception as error:  # of libraries, of files that somebody edited
        logger.debug('%s', what, exc_info=True)
        sentence = f'{what} ({type(error).__name__}: {error})'
        said = False
        if run is not None and is_full_disk(error):
            sentence = explain_full_disk(str(error), run)
            said = sentence in failures.values()  # by what was to be written before
        failures.update(dict.fromkeys(participants, sentence))
        if not said:
            complain(sentence, 1)


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
