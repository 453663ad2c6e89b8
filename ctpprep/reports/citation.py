# SPDX-License-Identifier: Apache-2.0
"""What to cite and how it was computed, to be pasted into a paper: CITATION.md and CITATION.bib."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ctpprep import __version__
from ctpprep.io.files import write_atomically
from ctpprep.reports.methods import BIBLIOGRAPHY, references
from ctpprep.settings import MethodSettings

EQUATIONS = Path(__file__).parents[1] / 'resources' / 'equations.md'
MAPS_ALONE = '## From maps to lesions'


def write_citation(
    folder: Path,
    methods: Mapping[str, str],
    method: MethodSettings,
    maps_alone: bool = False,
    start: str = '',
) -> list[Path]:
    """Write the methods of a run with equations, constants and references.

    Each file is put in place whole: runs that share an output folder do not mix theirs.

    Parameters
    ----------
    folder : Path
        Such as ``logs`` of the output folder.
    methods : mapping of str to str
        Methods text (Markdown, citations as [@key]) by the prefix of the series.
    method : MethodSettings
        Whose values stand in the equations.
    maps_alone : bool
        All series are maps made elsewhere: the equations begin with these.
    start : str
        Of the names of the files.

    Returns
    -------
    list of Path
        CITATION.md and CITATION.bib.
    """
    first: dict[str, str] = {}
    for prefix, text in methods.items():
        first.setdefault(text, prefix)
    several = len(first) > 1  # what was supplied differs from series to series
    parts = [
        f'# {prefix} and those like it\n\n{text.strip()}' if several else text.strip()
        for text, prefix in first.items()
    ]
    body = '\n\n'.join([*parts, f'# Equations\n\n{write_equations(method, maps_alone).strip()}'])
    cited = list(dict.fromkeys(re.findall(r'@(\w+)', body)))
    entries = _entries()
    cited = [key for key in cited if key in entries]
    listed = [
        f'* @{each["key"]}: {each["text"]} doi:{each["doi"]}'.removesuffix(' doi:')
        for each in references(cited)
    ]
    opening = (
        f'Methods of a run of ctpprep {__version__}; the keys are those of {start}CITATION.bib.'
    )
    text = '\n\n'.join([opening, body, '# References', '\n'.join(listed)]) + '\n'
    contents = {
        f'{start}CITATION.md': text,
        f'{start}CITATION.bib': '\n\n'.join(entries[key] for key in cited) + '\n',
    }
    for name, content in contents.items():
        write_atomically(
            lambda partial, content=content: partial.write_text(content, encoding='utf-8'),
            folder / name,
        )
    return [folder / name for name in contents]


def write_equations(method: MethodSettings, maps_alone: bool = False) -> str:
    """Fill the equations with the values of a run.

    Parameters
    ----------
    method : MethodSettings
    maps_alone : bool
        Leave out what leads from a series to maps.

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
    if maps_alone:
        text = text[text.index(MAPS_ALONE) :]
    return text.format(**{name: _shown(value) for name, value in method.flat().items()})


def _shown(value: Any) -> Any:
    if isinstance(value, bool):
        return 'yes' if value else 'no'
    return ' x '.join(f'{each:g}' for each in value) if isinstance(value, tuple) else value


def _entries() -> dict[str, str]:
    """Read the bibliography as it stands, by key."""
    text = BIBLIOGRAPHY.read_text(encoding='utf-8')
    found = re.findall(r'^(@\w+\{(\w+),\n.*?\n\})', text, flags=re.DOTALL | re.MULTILINE)
    return {key: entry for entry, key in found}
