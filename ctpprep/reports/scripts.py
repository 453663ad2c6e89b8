# SPDX-License-Identifier: Apache-2.0
"""Scripts inside a page: the drawing library plotly, and what lets a page run its own alone.

A page makes no request, so what it needs is in it. Its content security policy names the digest of
each script: markup that found its way into a page would not run.
"""

import base64
import hashlib
import json
import zlib
from collections.abc import Iterable
from functools import cache
from typing import Any


@cache
def read_plotly() -> str:
    """Read the script of plotly, from its Python package.

    Returns
    -------
    str
        JavaScript, about 5 MB.

    Raises
    ------
    ValueError
        It could not stand between script tags.
    """
    from plotly.offline import get_plotlyjs

    return inline(get_plotlyjs())


def inline(script: str) -> str:
    """Check that a script may stand between script tags, as it is.

    Examples
    --------
    >>> inline('let a = 1')
    'let a = 1'
    """
    if '</script' in script.lower() or '<!--' in script:
        raise ValueError('this script cannot stand inside a page: it holds </script or <!--')
    return script


def deflate(script: str) -> str:
    """Deflate a script and write it as base64, for a page that inflates it when it is needed.

    Examples
    --------
    >>> zlib.decompress(base64.b64decode(deflate('let a = 1')))
    b'let a = 1'
    """
    return base64.b64encode(zlib.compress(script.encode(), 9)).decode()


def digest(script: str) -> str:
    """Name a script as a content security policy does.

    Examples
    --------
    >>> digest('')
    "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWSG3hSuFU='"
    """
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def policy(scripts: Iterable[str] = ()) -> str:
    """Write the content security policy of a page that loads nothing and runs these scripts alone.

    Parameters
    ----------
    scripts : iterable of str
        Exactly what stands between the tags, or is put there later.

    Returns
    -------
    str

    Examples
    --------
    >>> policy()
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    """
    rules = ["default-src 'none'", 'img-src data:', "style-src 'unsafe-inline'"]
    if allowed := [digest(script) for script in scripts]:
        rules.append(f'script-src {" ".join(allowed)}')
    return '; '.join(rules)


def as_json(value: Any) -> str:
    r"""Write JSON that cannot end the script tag it stands in.

    Examples
    --------
    >>> as_json('</script>')
    '"\\u003c/script\\u003e"'
    """
    text = json.dumps(value, separators=(',', ':'))
    for sign in '<>&':
        text = text.replace(sign, f'\\u{ord(sign):04x}')
    return text
