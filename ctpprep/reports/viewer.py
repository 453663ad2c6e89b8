# SPDX-License-Identifier: Apache-2.0
"""The viewer of a page: what it shows of each series, and the scripts it needs."""

import json
from dataclasses import dataclass
from pathlib import Path

from ctpprep.reports.scripts import as_json, deflate, inline, policy, read_plotly

RESOURCES = Path(__file__).parents[1] / 'resources' / 'report'
ENDING = '_desc-viewer_ctp.json'


@dataclass(frozen=True)
class Scripts:
    """What stands in a page for the viewer.

    Attributes
    ----------
    viewer : str
        The script of the viewer.
    plotly : str
        The script that draws curves, deflated: it is inflated when the first curve is drawn.
    policy : str
        Content security policy that lets these two run.
    """

    viewer: str = ''
    plotly: str = ''
    policy: str = policy()


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
    # as the template sets it: between the tags, without a line break around it
    own = inline((RESOURCES / 'viewer.js').read_text(encoding='utf-8').strip())
    plotly = read_plotly()
    return Scripts(own, deflate(plotly), policy([own, plotly]))


def find_viewers(folder: Path) -> list[tuple[str, str]]:
    """Read what is viewed of each series of a participant.

    Parameters
    ----------
    folder : Path
        Of the figures.

    Returns
    -------
    list of (str, str)
        Prefix, and JSON that may stand in a script tag.
    """
    return [
        (path.name.removesuffix(ENDING), as_json(json.loads(path.read_text(encoding='utf-8'))))
        for path in sorted(folder.glob(f'*{ENDING}'))
    ]
