# SPDX-License-Identifier: Apache-2.0
"""Messages of the command: terminal, log file, and errors that do not stop it."""

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


def print_error(message: object, code: int) -> int:
    """Print an error in one line; return the exit code."""
    print(f'ctpprep: error: {message}', file=sys.stderr)
    return code


class _StandardOutput(logging.StreamHandler):
    """Write to the current standard output, which a display may have replaced."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        """Current standard output."""
        return sys.stdout


@contextlib.contextmanager
def log_to_terminal(verbosity: int) -> Iterator[None]:
    """Print log messages as plain lines; those about single steps only with -v."""
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
    """Log an error and continue, so that what is written for other participants is not lost.

    Parameters
    ----------
    what : str
        What failed, such as 'the page sub-01.html could not be written'.
    failures : dict of str to str
        By participant label; the error is added for each of the participants.
    *participants : str
        Labels of the participants concerned.
    run : RunSettings, optional
        Given if something is written: a full disk is explained with its folders.
    """
    try:
        yield
    except Exception as error:  # also of libraries, or of files that a user edited
        logger.debug('%s', what, exc_info=True)
        sentence = f'{what} ({type(error).__name__}: {error})'
        is_repeated = False
        if run is not None and is_full_disk(error):
            sentence = explain_full_disk(str(error), run)
            is_repeated = sentence in failures.values()
        failures.update(dict.fromkeys(participants, sentence))
        if not is_repeated:
            print_error(sentence, 1)


@contextlib.contextmanager
def log_file(path: Path) -> Iterator[None]:
    """Also write log messages to the log file of the run."""
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter('%(asctime)s %(levelname)s %(message)s'))
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
