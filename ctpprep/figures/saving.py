# SPDX-License-Identifier: Apache-2.0
"""Write figures as files, byte by byte the same for the same content."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Axes whose id begins with 'blinking' blink and alternate with the axes below them.
FLICKER = (
    '<style>@keyframes blink { 50% { opacity: 0 } } '
    '@media screen and (prefers-reduced-motion: no-preference) '
    '{ [id^="blinking-"] { animation: blink 2.4s step-end infinite } }</style>'
)


def save_svg(figure: Figure, path: Path) -> Path:
    """Write a figure as SVG: reproducible byte by byte, with text as text.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    path : Path

    Returns
    -------
    Path
        The same path.
    """
    import matplotlib as mpl

    # without a date and with a fixed salt for the ids, a rerun does not change the file; images of one
    # axes keep their own pixels
    style = {
        'svg.fonttype': 'none', 'svg.hashsalt': Path(path).name, 'image.composite_image': False
    }  # fmt: skip
    with mpl.rc_context(style):
        figure.savefig(path, format='svg', metadata={'Date': None, 'Creator': None})
    text = Path(path).read_text(encoding='utf-8')
    Path(path).write_text(text.replace('<defs>', f'{FLICKER}<defs>', 1), encoding='utf-8')
    return Path(path)


def save_page(figure: Figure, path: Path) -> Path:
    """Write a figure as PDF or PNG by its suffix, reproducibly.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    path : Path

    Returns
    -------
    Path
        The same path.
    """
    import matplotlib as mpl

    metadata = {'CreationDate': None} if Path(path).suffix == '.pdf' else {'Software': None}
    # Type 3: to subset TrueType fonts takes as long as to draw the page
    with mpl.rc_context({'pdf.fonttype': 3}):
        figure.savefig(path, dpi=150, metadata=metadata)
    return Path(path)
