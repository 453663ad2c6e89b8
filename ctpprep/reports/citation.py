# SPDX-License-Identifier: Apache-2.0
"""Methods and references of a run for a paper: CITATION.md and CITATION.bib."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ctpprep import __version__
from ctpprep.io.files import write_atomically
from ctpprep.reports.methods import BIBLIOGRAPHY, list_references
from ctpprep.settings import MethodSettings

EQUATIONS = Path(__file__).parents[1] / 'resources' / 'equations.md'
#: Heading at which the equations of precomputed maps begin.
MAPS_HEADING = '## From maps to lesions'


def write_citation(
    folder: Path,
    methods: Mapping[str, str],
    method: MethodSettings,
    maps_only: bool = False,
    file_prefix: str = '',
) -> list[Path]:
    """Write the methods of a run with equations, constants and references.

    Each file is written atomically: runs that share an output folder do not mix their texts.

    Parameters
    ----------
    folder : Path
        Such as ``logs`` of the output folder.
    methods : mapping of str to str
        Methods text (Markdown, citations as [@key]) by the prefix of the series.
    method : MethodSettings
        Settings whose values fill the equations.
    maps_only : bool
        All series are precomputed maps: leave out the equations that lead from a series to maps.
    file_prefix : str
        Start of the names of the files.

    Returns
    -------
    list of Path
        CITATION.md and CITATION.bib.
    """
    body = '\n\n'.join(
        [_join_methods(methods), f'# Equations\n\n{write_equations(method, maps_only).strip()}']
    ).lstrip()
    entries = _read_entries()
    cited = [key for key in dict.fromkeys(re.findall(r'@(\w+)', body)) if key in entries]
    references = [
        f'* @{reference["key"]}: {reference["text"]} doi:{reference["doi"]}'.removesuffix(' doi:')
        for reference in list_references(cited)
    ]
    opening = f'Methods of a run of ctpprep {__version__}; the keys are those of {file_prefix}CITATION.bib.'
    contents = {
        f'{file_prefix}CITATION.md': '\n\n'.join(
            [opening, body, '# References', '\n'.join(references)]
        ),
        f'{file_prefix}CITATION.bib': '\n\n'.join(entries[key] for key in cited),
    }
    for name, text in contents.items():
        write_atomically(
            lambda partial, text=text: partial.write_text(f'{text}\n', encoding='utf-8'),
            folder / name,
        )
    return [folder / name for name in contents]


def _join_methods(methods: Mapping[str, str]) -> str:
    """Join the different methods texts of the series; each under a series that has it, if several."""
    prefixes: dict[str, str] = {}
    for prefix, text in methods.items():
        prefixes.setdefault(text, prefix)
    if len(prefixes) > 1:  # user overrides differ between series
        parts = [
            f'# {prefix} and those like it\n\n{text.strip()}' for text, prefix in prefixes.items()
        ]
    else:
        parts = [text.strip() for text in prefixes]
    return '\n\n'.join(parts)


def write_equations(method: MethodSettings, maps_only: bool = False) -> str:
    """Fill the equations with the values of a run.

    Parameters
    ----------
    method : MethodSettings
    maps_only : bool
        Leave out the equations that lead from a series to maps.

    Returns
    -------
    str
        Markdown.

    Examples
    --------
    >>> 'k_H = 0.733 and rho = 1.04 g/mL' in write_equations(MethodSettings())
    True
    """
    text = EQUATIONS.read_text(encoding='utf-8')
    if maps_only:
        text = text[text.index(MAPS_HEADING) :]
    values = {name: _format_value(value) for name, value in method.flat().items()}
    return text.format(**values)


def _format_value(value: Any) -> Any:
    if isinstance(value, bool):
        return 'yes' if value else 'no'
    if not isinstance(value, tuple):
        return value
    return ' x '.join(part if isinstance(part, str) else f'{part:g}' for part in value)


def _read_entries() -> dict[str, str]:
    """Read the entries of the bibliography as text, by key."""
    text = BIBLIOGRAPHY.read_text(encoding='utf-8')
    entries = re.findall(r'^(@\w+\{(\w+),\n.*?\n\})', text, flags=re.DOTALL | re.MULTILINE)
    return {key: entry for entry, key in entries}
