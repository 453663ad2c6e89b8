# SPDX-License-Identifier: Apache-2.0
"""The built documentation holds together and asks for nothing (make docs)."""

from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from ctpprep import cli

BUILT = Path(__file__).resolve().parents[2] / 'docs' / '_build' / 'html'
PAGES = sorted(path.relative_to(BUILT).as_posix() for path in BUILT.rglob('*.html'))
# pages of ctpprep itself, which have tests of their own; names of participants there lead nowhere
SHOWN = {'sub-01.html', 'group.html'}
pytestmark = pytest.mark.docs


class _Reader(HTMLParser):
    """Ids, links and what a browser would fetch by itself."""

    def __init__(self):
        super().__init__()
        self.ids, self.links, self.fetched = set(), [], []

    def handle_starttag(self, tag, attrs):
        told = dict(attrs)
        self.ids.add(told.get('id'))
        if tag == 'a' and 'href' in told:
            self.links.append(told['href'])
        elif tag == 'link' and told.get('rel') in ('stylesheet', 'icon', 'preload', 'preconnect'):
            self.fetched.append(told['href'])
        elif tag != 'a' and told.get('src'):
            self.fetched.append(told['src'])


@cache
def read(page: str) -> _Reader:
    reader = _Reader()
    reader.feed((BUILT / page).read_text(encoding='utf-8'))
    return reader


@pytest.mark.parametrize('page', sorted(set(PAGES) - SHOWN))
def test_links_lead_somewhere(page):
    broken = []
    for link in [*read(page).links, *read(page).fetched]:
        parts = urlsplit(link)
        if parts.scheme in ('https', 'http', 'mailto', 'data'):
            continue
        goal = (BUILT / page).parent / unquote(parts.path) if parts.path else BUILT / page
        name = goal.resolve().relative_to(BUILT).as_posix()
        anchor = unquote(parts.fragment)
        if not goal.is_file() or (anchor and name in PAGES and anchor not in read(name).ids):
            broken.append(link)
    assert not broken


@pytest.mark.parametrize('page', PAGES)
def test_nothing_is_fetched_from_elsewhere(page):
    assert not [link for link in read(page).fetched if urlsplit(link).scheme not in ('', 'data')]


def test_each_option_has_a_place_in_the_options_page():
    shown = {action.option_strings[-1] for action in cli.make_parser()._actions
             if action.option_strings and action.help != '==SUPPRESS=='}  # fmt: skip
    assert {f'ctpprep-{option}' for option in shown} <= read('options.html').ids


def test_all_commands_are_in_the_options_page():
    text = (BUILT / 'options.html').read_text(encoding='utf-8')
    assert all(
        f'>{name}<' in text
        for name in ('ctpprep', 'ctpprep-bids', 'ctpprep-dicom', 'ctpprep-provenance')
    )
