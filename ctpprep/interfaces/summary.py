# SPDX-License-Identifier: Apache-2.0
"""What a reader of one series sees first: verdict, volumes, and why the cores differ.

The page and the one-page summary are both written from `Summary`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ctpprep.interfaces.wording import explain_verdict
from ctpprep.io.tables import read_table
from ctpprep.perfusion.quality import Verdict, conclude
from ctpprep.perfusion.symmetry import WITHHELD
from ctpprep.perfusion.tabulation import COLUMNS, DIFFERENCE, JOINED_CORE, NO_HOMOLOGUE

Row = Mapping[str, str]
# columns of the volume table that contain numbers
NUMBERS = ('threshold', 'volume_ml', 'ci_low_ml', 'ci_high_ml', 'value')
# differences of the cores below this are not explained, mL
LEAST_DIFFERENCE_ML = 1.0
# core that is joined to hypoperfusion is named from this volume, mL
LEAST_JOINED_ML = 0.1


@dataclass(frozen=True)
class Number:
    """One of the numbers of a summary, formatted.

    Attributes
    ----------
    name : {'core_global', 'core_local', 'hypoperfusion', 'mismatch'}
    title, criterion, value, detail : str
        Such as 'Core, global', 'rCBF < 30 %', '60.6 mL' and '15.8 to 99.9 mL'.
    doubtful : bool
        Whether a failed check concerns it.
    """

    name: str
    title: str
    criterion: str
    value: str
    detail: str = ''
    doubtful: bool = False


@dataclass(frozen=True)
class Summary:
    """Verdict and numbers of one series.

    Attributes
    ----------
    verdict : Verdict
    reason : str
        Why, in one line.
    numbers : tuple of Number
    side : str
        Affected side, '' if there is none.
    difference : str
        Why local and global core differ; '' if there is no local core.
    slab : str
        Height of the tissue that was scanned, '' if unknown.
    """

    verdict: Verdict
    reason: str
    numbers: tuple[Number, ...]
    side: str = ''
    difference: str = ''
    slab: str = ''


def read_volumes(path: Path) -> list[dict[str, str]]:
    """Read the volume table; every row has all columns that the page uses.

    A number that was replaced by text, or is not finite, is read as if it were absent.
    """
    return [
        dict.fromkeys(COLUMNS, '') | row | {name: _number(row.get(name, '')) for name in NUMBERS}
        for row in read_table(path)
    ]


def _number(text: str) -> str:
    """Return a cell if it is a finite number, else ''."""
    try:
        return text if math.isfinite(float(text)) else ''
    except ValueError:
        return ''


def find_row(volumes: Sequence[Row], region: str, normalization: str, measure: str) -> Row:
    """Return a row of the volume table; empty if there is none."""
    key = (region, normalization, measure)
    for row in volumes:
        if (row['region'], row['normalization'], row['measure']) == key:
            return row
    return {}


def format_volume(row: Row) -> str:
    """Format the volume of a row of the volume table, or the reason why it has none."""
    if not row or not row['volume_ml']:
        reason = row.get('reason') or '–'
        return 'withheld' if reason.startswith(WITHHELD) else reason
    return f'{float(row["volume_ml"]):.1f} mL'


def summarize(volumes: Sequence[Row], checks: Row) -> Summary:
    """Summarize a series from its two tables.

    Parameters
    ----------
    volumes : sequence of mapping
        Rows of the volume table as `read_volumes` returns them.
    checks : mapping of str to str
        The row of the quality table.

    Returns
    -------
    Summary
    """
    reason = find_row(volumes, 'core', 'local', 'volume').get('reason', '')
    verdict, explanation = read_verdict(checks, reason)
    slab = _number(checks.get('coverage', ''))
    return Summary(
        verdict,
        explanation,
        tuple(_list_numbers(volumes, verdict.doubtful)),
        next((row['affected_side'] for row in volumes if row['affected_side']), ''),
        '' if any('core' in name for name in verdict.doubtful) else explain_difference(volumes),
        f'{float(slab):.0f} mm' if slab else '',
    )


def read_verdict(checks: Row, reason: str = '') -> tuple[Verdict, str]:
    """Conclude from the row of the quality table.

    Parameters
    ----------
    checks : mapping of str to str
        Grades, and the measures that the explanation states.
    reason : str
        Of the local core in the volume table: it begins with `WITHHELD` if there is no local map.

    Returns
    -------
    verdict : Verdict
    explanation : str
        Why, in one line.

    Examples
    --------
    >>> verdict, explanation = read_verdict({'noise_raw_status': 'pass'}, 'withheld: it folds')
    >>> verdict.word, explanation
    ('look first', 'There is no local map: it folds.')
    """
    grades = {name.removesuffix('_status'): text for name, text in checks.items()
              if name.endswith('_status')}  # fmt: skip
    withheld = reason.removeprefix(WITHHELD) if reason.startswith(WITHHELD) else ''
    verdict = conclude(grades, bool(withheld))
    figures = {name: float(text) for name in grades if (text := _number(checks.get(name, '')))}
    return verdict, explain_verdict(verdict, withheld, figures)


def _list_numbers(volumes: Sequence[Row], doubtful: Sequence[str]) -> list[Number]:
    """List the three volumes, and the mismatch by the global core."""
    rows = {
        'core_global': find_row(volumes, 'core', 'global', 'volume'),
        'core_local': find_row(volumes, 'core', 'local', 'volume'),
        'hypoperfusion': find_row(volumes, 'hypoperfusion', '', 'volume'),
    }
    joined = _joined_core_ml(volumes)
    if joined and 'core_global' in doubtful:
        doubtful = (*doubtful, 'hypoperfusion')
    numbers = []
    for name, row in rows.items():
        _, _, which = name.partition('_')
        threshold = float(row.get('threshold') or (0.3 if which else 6))
        criterion = f'rCBF < {100 * threshold:g} %' if which else f'Tmax > {threshold:g} s'
        title = f'Core, {which}' if which else 'Hypoperfusion'
        limits = [row.get(column) for column in ('ci_low_ml', 'ci_high_ml')]
        if not which:
            criterion += f', includes {joined:.1f} mL added by core' if joined else ''
        detail = ''
        if all(limits):
            low, high = (float(limit or 0) for limit in limits)
            detail = f'95 % interval {low:.1f} to {high:.1f} mL'
        numbers.append(
            Number(name, title, criterion, format_volume(row), detail, name in doubtful)
        )
    difference = find_row(volumes, 'mismatch', 'global', 'difference')
    ratio = find_row(volumes, 'mismatch', 'global', 'ratio').get('value', '')
    concerned = any(name in doubtful for name in ('core_global', 'hypoperfusion'))
    detail = f'ratio {float(ratio):.2f}' if ratio else 'no core'
    numbers.append(
        Number('mismatch', 'Mismatch', 'hypoperfusion − core', format_volume(difference),
               detail if difference else '', concerned)
    )  # fmt: skip
    return numbers


def _joined_core_ml(volumes: Sequence[Row]) -> float:
    """Return the volume of core in the hypoperfusion that has Tmax below the threshold, mL."""
    joined = float(find_row(volumes, 'hypoperfusion', '', JOINED_CORE).get('volume_ml') or 0)
    return joined if joined >= LEAST_JOINED_ML else 0.0


def explain_difference(volumes: Sequence[Row]) -> str:
    """Explain in at most two sentences, of at most three numbers, why local and global core differ.

    Parameters
    ----------
    volumes : sequence of mapping
        Rows of the volume table.

    Returns
    -------
    str
        '' if there is no local core.
    """

    def ml(measure: str, which: str = 'local') -> float | None:
        text = find_row(volumes, 'core', which, measure).get('volume_ml', '')
        return float(text) if text else None

    removed, added = (ml(measure) for measure in DIFFERENCE)
    if removed is None or added is None:
        return ''
    alone = ml(NO_HOMOLOGUE) or 0.0
    takes = removed >= LEAST_DIFFERENCE_ML
    adds = added >= LEAST_DIFFERENCE_ML
    unpaired = f'{alone:.1f} mL have no homologue in the slab'
    apart = alone >= LEAST_DIFFERENCE_ML
    if not (takes or adds):
        if apart:
            return f'Of the global core, {unpaired}; elsewhere both cores are the same, to 1 mL.'
        if ml('volume', 'global') == ml('volume') == 0:
            return 'Neither normalization finds a core.'
        return 'Both normalizations find the same core, to 1 mL.'
    leaves_out = f'leaves out {removed:.1f} mL of the global core'
    if takes and adds and apart:
        return f'The local core {leaves_out} and adds {added:.1f} mL. Another {unpaired}.'
    larger = int(added > removed)
    change = (leaves_out, f'adds {added:.1f} mL to the global core')[larger]
    text = f'The local core {change}{_describe_homologues(volumes, DIFFERENCE[larger])}.'
    if takes and adds:
        text += f' It {leaves_out if larger else f"adds {added:.1f} mL"}.'
    if apart:
        text += f' {"Another " if takes else "Of the global core, "}{unpaired}.'
    return text


def _describe_homologues(volumes: Sequence[Row], measure: str) -> str:
    """Describe the flow of the homologues of a part of the core; '' if it is unknown."""
    flow = find_row(volumes, 'core', 'local', f'homologues of {measure}').get('value', '')
    if not flow:
        return ''
    return f', where the other hemisphere has {100 * float(flow):.0f} % of normal flow (median)'
