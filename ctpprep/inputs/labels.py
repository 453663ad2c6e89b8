# SPDX-License-Identifier: Apache-2.0
"""Check labels and option values against the known ones; the error suggests the nearest."""

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

from ctpprep.exceptions import UsageError


def match_labels(labels: list[str], known: list[str], key: str, place: Any) -> list[str]:
    """Check labels against the known ones.

    Parameters
    ----------
    labels, known : list of str
        Without their key.
    key : str
        Such as 'sub-'.
    place : object
        What the error names as the place of the known labels, such as the dataset.

    Returns
    -------
    list of str
        The labels, sorted, without duplicates.

    Raises
    ------
    UsageError
        When a label is unknown; the message suggests the nearest known one.
    """
    for label in labels:
        if label not in known:
            near = difflib.get_close_matches(label, known, n=3, cutoff=0.4)
            available = f'it has {join_labels(known, key)}' if known else f'it has no {key}<label>'
            hint = f'did you mean {join_labels(near, key)}?' if near else available
            raise UsageError(f'{key}{label} is not in {place}; {hint}')
    return sorted(set(labels))


def nearest(word: str, known: Iterable[str], otherwise: str = '') -> str:
    """Suggest the nearest known word; return another text if none is near.

    Examples
    --------
    >>> nearest('lowrnk', ['lowrank', 'smooth']), nearest('x', ['lowrank'], 'see --help')
    ('did you mean lowrank?', 'see --help')
    """
    near = difflib.get_close_matches(word, list(known), n=1)
    return f'did you mean {near[0]}?' if near else otherwise


def join_labels(labels: Sequence[str], key: str) -> str:
    """Join the first five labels with their key, and append the number of the others.

    Examples
    --------
    >>> join_labels(['01', '02', '03', '04', '05', '06'], 'sub-')
    'sub-01, sub-02, sub-03, sub-04, sub-05 and 1 more'
    """
    shown = ', '.join(f'{key}{label}' for label in labels[:5])
    return shown + (f' and {len(labels) - 5} more' if len(labels) > 5 else '')


def refuse_unknown(word: str, known: Sequence[str], place: str) -> None:
    """Raise `UsageError` if a word is unknown; the message suggests the nearest known one."""
    if word not in known:
        hint = nearest(word, known, f'known are {", ".join(known)}')
        raise UsageError(f'{place}: there is no {word!r}; {hint}')
