# SPDX-License-Identifier: Apache-2.0
"""The viewer of a page: what it shows of each series, and the scripts it needs."""

import json
import logging
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markupsafe import Markup

from ctpprep.reports.inline import data, deflate, plotly_script, policy, script

logger = logging.getLogger('ctpprep')

RESOURCES = Path(__file__).parents[1] / 'resources' / 'report'
ENDING = '_desc-viewer_ctp.json'


@dataclass(frozen=True)
class Scripts:
    """What stands in a page for the viewer.

    Attributes
    ----------
    viewer : str
        The script of the viewer, as an element.
    plotly : str
        The script that draws curves, deflated: it is inflated when the first curve is drawn.
    policy : str
        Content security policy under which these two run, and no others.
    """

    viewer: str = ''
    plotly: str = ''
    policy: str = policy([])


@cache  # deflating takes a second, and a call may write many pages
def load_scripts(viewed: bool) -> Scripts:
    """Bring the scripts of a page; none if nothing is viewed.

    Parameters
    ----------
    viewed : bool

    Returns
    -------
    Scripts
    """
    if not viewed:
        return Scripts()
    own = (RESOURCES / 'viewer.js').read_text(encoding='utf-8')
    return Scripts(script(own), deflate(plotly_script()), policy([own, plotly_script()]))


def find_viewers(folder: Path) -> list[tuple[str, Markup]]:
    """Read what is viewed of each series of a participant.

    Parameters
    ----------
    folder : Path
        Of the figures.

    Returns
    -------
    list of (str, Markup)
        Prefix, and the element of the page that holds it. A file that cannot be read is left out.
    """
    found = []
    for path in sorted(folder.glob(f'*{ENDING}')):
        prefix = path.name.removesuffix(ENDING)
        try:
            viewed = json.loads(path.read_text(encoding='utf-8'))
            found.append((prefix, data(f'{prefix}-viewer-data', viewed)))
        except ValueError as error:
            logger.warning('the page has no viewer of %s: %s is no JSON (%s)', prefix, path, error)
    return found
