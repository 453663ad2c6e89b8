# SPDX-License-Identifier: Apache-2.0
"""The methods text with numbered citations, and the references they point to."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

BIBLIOGRAPHY = Path(__file__).parents[1] / 'resources' / 'boilerplate.bib'


def render_methods(methods: str) -> tuple[Any, list[str]]:
    """Turn plain Markdown into HTML and number its citations.

    Parameters
    ----------
    methods : str

    Returns
    -------
    html : markupsafe.Markup
    cited : list of str
        Keys of the bibliography, in the order of their numbers.

    Examples
    --------
    >>> html, cited = render_methods('Maps are **divided** [@rau2024].')
    >>> cited
    ['rau2024']
    """
    from markupsafe import Markup, escape

    known = _bibliography()
    cited: list[str] = []

    def cite(match: re.Match[str]) -> str:
        links = []
        for key in re.findall(r'@(\w+)', match[0]):
            if key in known:
                cited.extend([key] if key not in cited else [])
                links.append(f'<a href="#ref-{key}">{cited.index(key) + 1}</a>')
        return f'[{", ".join(links)}]' if links else match[0]

    if isinstance(methods, Markup):
        return methods, cited
    text = re.sub(r'\[@[^\]]+\]', cite, str(escape(methods)))
    text = re.sub(r'\*\*(.+?)\*\*', r'<strong>\1</strong>', text)
    text = re.sub(r'(?<![\w*])\*([^*\n]+)\*(?![\w*])', r'<em>\1</em>', text)
    return Markup('\n'.join(_blocks(text))), cited  # escaped above


def _blocks(text: str) -> Iterator[str]:
    """Wrap headings, lists and paragraphs."""
    for block in re.split(r'\n\s*\n|(?<=\n)(?=#)|(?<=^)(?=#)', text):
        block = block.strip()
        if block.startswith('#'):
            title, _, rest = block.partition('\n')
            yield f'<h3>{title.lstrip("# ")}</h3>'
            yield from _blocks(rest)
        elif block.startswith(('- ', '* ')):
            items = re.split(r'\n?^[-*] ', block, flags=re.MULTILINE)[1:]
            yield '<ul>' + ''.join(f'<li>{item}</li>' for item in items) + '</ul>'
        elif block:
            yield f'<p>{block}</p>'


@cache
def _bibliography() -> dict[str, dict[str, str]]:
    """Read `boilerplate.bib`: one field a line, values in braces."""
    text = BIBLIOGRAPHY.read_text(encoding='utf-8')
    entries = re.findall(r'@\w+\{(\w+),\n(.*?)\n\}', text, flags=re.DOTALL)
    return {
        key: dict(re.findall(r'^\s*(\w+) = \{(.*)\},$', fields, flags=re.MULTILINE))
        for key, fields in entries
    }


def references(cited: list[str]) -> list[dict[str, str]]:
    """List the cited entries as they are printed, or all of them if none is cited.

    Parameters
    ----------
    cited : list of str

    Returns
    -------
    list of dict
        Keys: key, text, doi.
    """
    known = _bibliography()
    listed = []
    for key in cited or sorted(known):
        entry = known[key]
        names = []
        for person in entry['author'].split(' and '):
            family, _, given = person.partition(', ')
            initials = ''.join(part[0] for part in re.split(r'[\s.-]+', given) if part)
            names.append('et al' if person == 'others' else f'{family} {initials}')
        text = (
            f'{", ".join(names)}. {entry["title"]}. {entry["journal"]} '
            f'{entry["year"]};{entry["volume"]}:{entry["pages"]}.'
        )
        listed.append({'key': key, 'text': text, 'doi': entry.get('doi', '')})
    return listed
