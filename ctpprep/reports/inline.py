# SPDX-License-Identifier: Apache-2.0
"""Scripts and data inside a page, and the policy under which only these run."""

import base64
import hashlib
import json
import zlib
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ctpprep.exceptions import CtpprepError


@cache
def plotly_script() -> str:
    """Read plotly.js from the pip package of plotly, without importing it (4.8 MB of text)."""
    found = find_spec('plotly')
    path = Path((found and found.origin) or '').parent / 'package_data' / 'plotly.min.js'
    if not path.is_file():
        raise CtpprepError(f'plotly.min.js is not at {path}; install plotly again')
    return path.read_text(encoding='utf-8')


def script(text: str) -> Markup:
    """Write a script as an element of the page.

    Parameters
    ----------
    text : str
        JavaScript of ours or of a library, never of a user.

    Returns
    -------
    Markup
        Its content is the very text that `policy` was given.

    Raises
    ------
    ValueError
        When the text would end its element.
    """
    if '</script' in text.lower():
        raise ValueError('the script holds </script, which would end its element')
    return Markup(f'<script>{text}</script>')


def data(name: str, content: Any) -> Markup:
    r"""Write data as an element with an id, for scripts: ``JSON.parse(element.textContent)``.

    No text in it can end the element: ``<`` is written as an escape of JSON.

    Examples
    --------
    >>> print(data('rows', {'sub': '</script>'}))
    <script type="application/json" id="rows">{"sub":"\u003c/script>"}</script>
    """
    text = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(',', ':'))
    return Markup('<script type="application/json" id="{}">{}</script>').format(
        name, Markup(text.replace('<', '\\u003c'))
    )


def deflate(text: str) -> str:
    """Deflate a text and write it as base64, for a page that inflates it when it is needed.

    Examples
    --------
    >>> zlib.decompress(base64.b64decode(deflate('let a = 1')))
    b'let a = 1'
    """
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def policy(scripts: Sequence[str]) -> str:
    """Write the content security policy: no request, and no script but these.

    Parameters
    ----------
    scripts : sequence of str
        Each as `script` was given it.

    Returns
    -------
    str
    """
    # the browser hashes what it reads, where line ends are all \n
    digests = (hashlib.sha256(each.replace('\r\n', '\n').encode()).digest() for each in scripts)
    allowed = (
        ' '.join(f"'sha256-{base64.b64encode(each).decode()}'" for each in digests) or "'none'"
    )
    return (
        f"default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src {allowed}; "
        "form-action 'none'; base-uri 'none'"
    )
