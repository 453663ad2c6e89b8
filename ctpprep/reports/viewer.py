# SPDX-License-Identifier: Apache-2.0
"""The viewer of a page: its data of each series, and its scripts."""

import json
import logging
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markupsafe import Markup

from ctpprep.reports.inline import (
    data_element,
    deflate,
    plotly_script,
    script_element,
    security_policy,
)
from ctpprep.reports.template import TEMPLATES

logger = logging.getLogger('ctpprep')

ENDING = '_desc-viewer_ctp.json'


@dataclass(frozen=True)
class Scripts:
    """Scripts of a page.

    Attributes
    ----------
    viewer : str
        The script of the viewer, as an element.
    plotly : str
        The script that draws curves, deflated: the page inflates it when it draws the first curve.
    policy : str
        Content security policy that allows these two scripts and no others.
    """

    viewer: str = ''
    plotly: str = ''
    policy: str = security_policy([])


@cache  # deflating takes a second, and a call may write many pages
def load_scripts(has_viewer: bool) -> Scripts:
    """Load the scripts of a page; none if it has no viewer.

    Parameters
    ----------
    has_viewer : bool

    Returns
    -------
    Scripts
    """
    if not has_viewer:
        return Scripts()
    viewer = (TEMPLATES / 'viewer.js').read_text(encoding='utf-8')
    plotly = plotly_script()
    return Scripts(script_element(viewer), deflate(plotly), security_policy([viewer, plotly]))


def find_viewers(folder: Path) -> list[tuple[str, Markup]]:
    """Read the viewer data of each series of a participant.

    Parameters
    ----------
    folder : Path
        Folder of the figures.

    Returns
    -------
    list of (str, Markup)
        Prefix, and the element with the data. Files that cannot be read are logged and skipped.
    """
    viewers = []
    for path in sorted(folder.glob(f'*{ENDING}')):
        prefix = path.name.removesuffix(ENDING)
        try:
            content = json.loads(path.read_text(encoding='utf-8'))
            viewers.append((prefix, data_element(f'{prefix}-viewer-data', content)))
        except ValueError as error:
            logger.warning(
                'no viewer for %s: %s is not valid JSON (%s); run the series again',
                prefix, path, error,
            )  # fmt: skip
    return viewers
