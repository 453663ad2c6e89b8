# SPDX-License-Identifier: Apache-2.0
"""The methods text with numbered citations, and the references that they cite."""

import re
from functools import cache
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.rules_inline import StateInline
from markupsafe import Markup, escape

BIBLIOGRAPHY = Path(__file__).parents[1] / 'resources' / 'boilerplate.bib'
CITATION = re.compile(r'\[@[^\]]+\]')


def render_methods(methods: str) -> tuple[Markup, list[str]]:
    """Render Markdown as HTML with numbered citations.

    Parameters
    ----------
    methods : str
        Headings, paragraphs, lists and emphasis; ``[@key; @key]`` cites. HTML is shown as text,
        except in a `markupsafe.Markup`, which is returned unchanged.

    Returns
    -------
    html : markupsafe.Markup
    cited : list of str
        Keys of the bibliography, in the order of their numbers.

    Examples
    --------
    >>> html, cited = render_methods('Maps are **divided** [@rau2024].')
    >>> print(html, cited)
    <p>Maps are <strong>divided</strong> [<a href="#ref-rau2024">1</a>].</p> ['rau2024']
    """
    cited: list[str] = []
    if isinstance(methods, Markup):
        return methods, cited
    parser, env = _markdown(), {'cited': cited}
    tokens = parser.parse(methods, env)
    for token in tokens:
        if token.type in ('heading_open', 'heading_close'):
            token.tag = 'h3'  # below the heading of the section, whatever their level
    html = parser.renderer.render(tokens, parser.options, env)
    return Markup(html.rstrip()), cited  # the parser escapes any HTML


@cache
def _markdown() -> MarkdownIt:
    """Make the parser: no HTML, links or code, so that any other text is shown as written."""
    parser = MarkdownIt('zero').enable(['heading', 'list', 'emphasis'])
    parser.inline.ruler.push('citation', _parse_citation)
    parser.add_render_rule('citation', _render_citation)
    return parser


def _parse_citation(state: StateInline, silent: bool) -> bool:
    """Parse ``[@key; @key]``, an inline rule of markdown-it."""
    match = CITATION.match(state.src, state.pos)
    if match is None:
        return False
    if not silent:
        state.push('citation', '', 0).content = match[0]
    state.pos = match.end()
    return True


def _render_citation(renderer: Any, tokens: Any, index: int, options: Any, env: Any) -> str:
    """Link the keys of a citation to their references; one without known key is shown as written."""
    text, cited = tokens[index].content, env['cited']
    keys = [key for key in re.findall(r'@(\w+)', text) if key in read_bibliography()]
    cited += [key for key in dict.fromkeys(keys) if key not in cited]
    links = [f'<a href="#ref-{key}">{cited.index(key) + 1}</a>' for key in keys]
    return f'[{", ".join(links)}]' if links else str(escape(text))


@cache
def read_bibliography() -> dict[str, dict[str, str]]:
    """Read `boilerplate.bib`, which has one field per line and values in braces.

    Returns
    -------
    dict of dict
        Fields of each entry, by its key.
    """
    text = BIBLIOGRAPHY.read_text(encoding='utf-8')
    entries = re.findall(r'@\w+\{(\w+),\n(.*?)\n\}', text, flags=re.DOTALL)
    return {
        key: dict(re.findall(r'^\s*(\w+) = \{(.*)\},$', fields, flags=re.MULTILINE))
        for key, fields in entries
    }


def list_references(cited: list[str]) -> list[dict[str, str]]:
    """Format the cited entries, or all entries if none is cited.

    Parameters
    ----------
    cited : list of str
        Keys of the bibliography.

    Returns
    -------
    list of dict
        Keys: key, text, doi.
    """
    bibliography = read_bibliography()
    references = []
    for key in cited or sorted(bibliography):
        entry = bibliography[key]
        authors = ', '.join(_abbreviate(author) for author in entry['author'].split(' and '))
        text = (
            f'{authors}. {entry["title"]}. {entry["journal"]} '
            f'{entry["year"]};{entry["volume"]}:{entry["pages"]}.'
        )
        references.append({'key': key, 'text': text, 'doi': entry.get('doi', '')})
    return references


def _abbreviate(author: str) -> str:
    """Abbreviate an author.

    Examples
    --------
    >>> _abbreviate('Rau, Anna-Lena')
    'Rau AL'
    """
    if author == 'others':
        return 'et al'
    family, _, first_names = author.partition(', ')
    initials = ''.join(part[0] for part in re.split(r'[\s.-]+', first_names) if part)
    return f'{family} {initials}'
