# SPDX-License-Identifier: Apache-2.0
"""Links of the Markdown files, which are written for a look at the repository, led to the built pages.

A function named with its file (``[`mirror`](../ctpprep/perfusion/symmetry.py)``) leads to its reference. A
file outside of ``docs/`` that has a page here leads to that page; any other file can be downloaded.
"""

import importlib
import os
import re
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1]
ROOT = DOCS.parent
LINK = re.compile(r'(?<!!)\[(?P<text>[^\]\[]*)\]\((?P<path>[^)\s#:]*)(?P<anchor>#[^)\s]*)?\)')
#: Pages that hold a file, or a section of one, from outside of the folder.
PAGES = {
    'README.md': 'index.md',
    'CHANGELOG.md': 'changelog.md',
    'CONTRIBUTING.md': 'contributing.md',
    'CODE_OF_CONDUCT.md': 'conduct.md',
    'SECURITY.md': 'security.md',
    'data/README.md': 'data.md',
    'benchmarks': 'benchmarks.md',
    'benchmarks/README.md': 'benchmarks.md',
    'benchmarks/results.md': 'results.md',
}

#: The list of decisions names its pages by links; Sphinx wants a tree as well.
LIST = 'decisions/README'
TOCTREE = '\n```{toctree}\n:hidden:\n:glob:\n\n0*\n```\n'


def relink(text: str, written_in: Path, shown_in: Path) -> str:
    """Rewrite the links of a page.

    Parameters
    ----------
    text : str
    written_in : Path
        Folder of the file that holds the text.
    shown_in : Path
        Folder of the page that shows it.

    Returns
    -------
    str
    """

    def lead(match: re.Match[str]) -> str:
        words, path, anchor = match['text'], match['path'], match['anchor'] or ''
        if not path:
            return match[0]
        target = Path(os.path.normpath(written_in / path))
        if not target.is_relative_to(ROOT):
            return match[0]
        name = target.relative_to(ROOT).as_posix()
        if (object_name := find_object(words.strip('`'), name)) is not None:
            return f'[{words}](#{object_name})'
        page = PAGES.get(name + anchor)
        if page is None and name in PAGES:
            page = PAGES[name] + anchor
        if page is not None:
            page, _, anchor = page.partition('#')
            anchor, target = anchor and f'#{anchor}', DOCS / page
        if words == path and target.suffix == '.md':
            words = target.stem
        return f'[{words}]({os.path.relpath(target, shown_in)}{anchor})'

    return LINK.sub(lead, text)


def find_object(words: str, file: str) -> str | None:
    """Name what has a reference page: a function or class of a module, or the module itself."""
    match = re.fullmatch(r'(ctpprep/[\w/]+?)(/__init__)?\.py', file)
    if match is None or re.search(r'/_(?!_)', file):  # private modules have no page
        return None
    module = match[1].replace('/', '.')
    defined = (
        getattr(importlib.import_module(module), words, None) if words.isidentifier() else None
    )
    if defined is None:
        return module
    return f'{getattr(defined, "__module__", module)}.{words}'


def setup(app):
    """Rewrite pages as they are read, and what they include."""

    def read(app, docname, source):
        folder = (DOCS / docname).parent
        source[0] = relink(source[0], folder, folder)
        if docname == LIST:
            source[0] += TOCTREE

    def include(app, path, parent, source):
        source[0] = relink(source[0], (DOCS / path).parent, DOCS)

    app.connect('source-read', read)
    app.connect('include-read', include)
    return {'parallel_read_safe': True, 'parallel_write_safe': True}
