# SPDX-License-Identifier: Apache-2.0
"""Labels and option values: suggest the nearest known one, or refuse."""

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

from ctpprep.exceptions import UsageError


def match_labels(wanted: list[str], known: list[str], key: str, where: Any) -> list[str]:
    """Check wanted labels against known ones; the error names the nearest."""
    for label in wanted:
        if label not in known:
            near = difflib.get_close_matches(label, known, n=3, cutoff=0.4)
            has = f'it has {listed(known, key)}' if known else f'it has no {key}<label>'
            hint = f'did you mean {listed(near, key)}?' if near else has
            raise UsageError(f'{key}{label} is not in {where}; {hint}')
    return sorted(set(wanted))


def nearest(word: str, known: Iterable[str], otherwise: str = '') -> str:
    """Ask whether the nearest of some known words was meant; say something else if none is near.

    Examples
    --------
    >>> nearest('lowrnk', ['lowrank', 'smooth']), nearest('x', ['lowrank'], 'see --help')
    ('did you mean lowrank?', 'see --help')
    """
    near = difflib.get_close_matches(word, list(known), n=1)
    return f'did you mean {near[0]}?' if near else otherwise


def listed(labels: Sequence[str], key: str) -> str:
    """Write the first labels with their key, and how many more there are."""
    shown = ', '.join(f'{key}{label}' for label in labels[:5])
    return shown + (f' and {len(labels) - 5} more' if len(labels) > 5 else '')


def refuse_unknown(word: str, known: Sequence[str], where: str) -> None:
    """Refuse a word that is not among known ones; the error names the nearest."""
    if word not in known:
        hint = nearest(word, known, f'known are {", ".join(known)}')
        raise UsageError(f'{where}: there is no {word!r}; {hint}')
