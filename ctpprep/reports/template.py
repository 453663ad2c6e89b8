# SPDX-License-Identifier: Apache-2.0
"""The templates of pages, and how they format numbers."""

import math
import re
from functools import cache
from pathlib import Path
from typing import Any

from ctpprep.figures.palette import COLOURS, GRADES, SOFT, STRUCK
from ctpprep.interfaces.summary import format_volume
from ctpprep.interfaces.wording import GRADE_WORDS, count_checks, with_unit

TEMPLATES = Path(__file__).parents[1] / 'resources' / 'report'
#: Symbol and word of each grade.
LIGHTS = {
    grade: (symbol, GRADE_WORDS[grade])
    for grade, symbol in (('pass', '✓'), ('warn', '!'), ('fail', '✕'))
}


@cache
def environment() -> Any:
    """Make the jinja2 environment; text is escaped unless it is marked as HTML."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        'format_number': format_number,
        'format_volume': format_volume,
        'keep_units': keep_units,
        'as_markup': Markup,
        'count_checks': count_checks,
    }
    environment.globals |= {
        'colours': COLOURS,
        'grades': GRADES,
        'soft': SOFT,
        'struck': STRUCK,
    }
    return environment


def format_number(text: Any, digits: int = 3) -> str:
    """Format a number with few significant digits; any other text is returned unchanged.

    Examples
    --------
    >>> format_number('61.6531'), format_number('0.97'), format_number('n/a'), format_number('')
    ('61.7', '0.97', 'n/a', '')
    """
    try:
        value = float(text)
    except (TypeError, ValueError):
        return str(text)
    if not math.isfinite(value):
        return 'n/a'
    return f'{value:.0f}' if abs(value) >= 10 ** (digits - 1) else f'{value:.{digits}g}'


def format_decimals(text: Any, decimals: int) -> str:
    """Format a number with fixed decimals; any other text is returned unchanged.

    Examples
    --------
    >>> format_decimals('45.03', 1), format_decimals('<b>', 1), format_decimals('inf', 1)
    ('45.0', '<b>', 'n/a')
    """
    try:
        value = float(text)
    except (TypeError, ValueError):
        return str(text)
    return f'{value:.{decimals}f}' if math.isfinite(value) else 'n/a'


def keep_units(text: str) -> str:
    r"""Keep a number and its unit on one line, by a no-break space.

    Examples
    --------
    >>> keep_units('more than 25 %, or 3 of 9') == 'more than 25\N{NO-BREAK SPACE}%, or 3 of 9'
    True
    """
    return re.sub(r'(?<=\d) (?=(?:%|mL|mm|s|HU)(?!\w))', '\N{NO-BREAK SPACE}', text)


def format_quantity(text: Any, unit: str) -> str:
    """Format a number with its unit; any other text is returned unchanged.

    Examples
    --------
    >>> format_quantity('0.046', 'fraction'), format_quantity('12.34', 'mL'), format_quantity('', 'mL')
    ('4.6 %', '12.3 mL', '')
    """
    try:
        return with_unit(float(text), unit).strip()
    except (TypeError, ValueError):
        return str(text)
