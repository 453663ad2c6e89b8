# SPDX-License-Identifier: Apache-2.0
"""Scripts and data as elements of a page, and the security policy that allows only these scripts."""

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
    """Read plotly.js (4.8 MB) from the plotly package, without importing it.

    Raises
    ------
    CtpprepError
        If the package has no such file.
    """
    spec = find_spec('plotly')
    path = Path((spec and spec.origin) or '').parent / 'package_data' / 'plotly.min.js'
    if not path.is_file():
        raise CtpprepError(f'no plotly.min.js at {path}; reinstall plotly')
    return path.read_text(encoding='utf-8')


def script_element(text: str) -> Markup:
    """Make the element of a script.

    Parameters
    ----------
    text : str
        JavaScript of ctpprep or of a library, never of a user.

    Returns
    -------
    Markup
        Its content is exactly the text whose hash `security_policy` contains.

    Raises
    ------
    ValueError
        If the text would end its element.
    """
    if '</script' in text.lower():
        raise ValueError('the script contains </script, which would end its element')
    return Markup(f'<script>{text}</script>')


def data_element(name: str, content: Any) -> Markup:
    r"""Make an element with data for scripts, read by ``JSON.parse(element.textContent)``.

    No text in it can end the element: ``<`` is written as a JSON escape.

    Parameters
    ----------
    name : str
        Id of the element.
    content : object
        Without NaN and infinity, which JSON cannot express.

    Raises
    ------
    ValueError
        If a number is not finite.

    Examples
    --------
    >>> print(data_element('rows', {'sub': '</script>'}))
    <script type="application/json" id="rows">{"sub":"\u003c/script>"}</script>
    """
    text = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(',', ':'))
    return Markup('<script type="application/json" id="{}">{}</script>').format(
        name, Markup(text.replace('<', '\\u003c'))
    )


def deflate(text: str) -> str:
    """Compress a text and encode it as base64, for a page that inflates it on demand.

    Examples
    --------
    >>> zlib.decompress(base64.b64decode(deflate('let a = 1')))
    b'let a = 1'
    """
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def security_policy(scripts: Sequence[str]) -> str:
    """Make the content security policy: no requests, and only the given scripts.

    Parameters
    ----------
    scripts : sequence of str
        The texts that `script_element` was called with.

    Returns
    -------
    str
    """
    # browsers normalize line ends to \n before they compute the hash
    digests = (hashlib.sha256(text.replace('\r\n', '\n').encode()).digest() for text in scripts)
    allowed = (
        ' '.join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests) or "'none'"
    )
    return (
        f"default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src {allowed}; "
        "form-action 'none'; base-uri 'none'"
    )
