# SPDX-License-Identifier: Apache-2.0
"""The summary of one series: lesions over CT in the slices that matter, curves, and one page of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ctpprep.figures.charts import style_axes
from ctpprep.figures.mosaic import WIDTH_IN, WINDOWS, Mosaic, Row, draw_line, lay_out
from ctpprep.figures.palette import COLOURS, GRADES, SOFT, STRUCK, VERDICT_GRADES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_SLICES = 6
SCALE_BAR_MM = 50.0
RESEARCH = 'Research use only. Not a medical device.'
PAGE_IN = (11.69, 8.27)  # A4, landscape
# font sizes of a panel of the full width, points: at 740 px, on a narrow window, 11 are 8 px
TITLE_PT, VALUE_PT, TEXT_PT, SMALL_PT = 13.0, 16.0, 12.0, 11.0


@dataclass(frozen=True)
class Lesion:
    """One row of the panel.

    Attributes
    ----------
    mask : (X, Y, Z) array of bool
    title, criterion, value : str
        Such as 'Core, global', 'rCBF < 30 %' and '60.6 mL'.
    colour : str
    doubtful : bool
        Whether a failed check concerns it: its value is struck through.
    marked : (X, Y, Z) array of bool, optional
        Part of the mask with a colour of its own.
    mark, mark_colour : str
        Its name below the value, such as 'local only'.
    """

    mask: np.ndarray
    title: str
    criterion: str
    value: str
    colour: str
    doubtful: bool = False
    marked: np.ndarray | None = None
    mark: str = ''
    mark_colour: str = ''


@dataclass(frozen=True)
class Panel:
    """What the summary shows.

    Attributes
    ----------
    reference, brain_mask : (X, Y, Z) arrays
        HU; bool.
    lesions : sequence of Lesion
    size_mm : tuple of float
        Voxel size.
    time : (T,) array, optional
        s.
    curves : dict of str to (T,) array
        'aif' and 'vof', HU.
    grey_window : str
        Key of `WINDOWS` for the reference.
    """

    reference: np.ndarray
    brain_mask: np.ndarray
    lesions: Sequence[Lesion]
    size_mm: tuple[float, ...]
    time: np.ndarray | None = None
    curves: dict[str, np.ndarray] = field(default_factory=dict)
    grey_window: str = 'brain'


@dataclass(frozen=True)
class Heading:
    """The words of the one-page summary.

    Attributes
    ----------
    series, verdict, reason : str
        Prefix of the series; a word of `VERDICT_GRADES`; why.
    numbers : sequence of (str, str, str, bool)
        Title, value, detail, and whether it is doubtful.
    facts : sequence of str
        Sentences below the pictures.
    """

    series: str
    verdict: str
    reason: str
    numbers: Sequence[tuple[str, str, str, bool]]
    facts: Sequence[str] = ()


def select_slices(lesion: np.ndarray, brain_mask: np.ndarray, n_slices: int = MAX_SLICES):
    """Select the slices that show a lesion, evenly spaced over it; without a lesion, over the brain.

    Parameters
    ----------
    lesion, brain_mask : (X, Y, Z) array of bool
    n_slices : int
        Largest number.

    Returns
    -------
    tuple of int
        Slices, from the lowest to the highest.

    Examples
    --------
    >>> brain = np.ones((2, 2, 20), bool)
    >>> lesion = brain & (np.arange(20) > 11) & (np.arange(20) < 15)
    >>> select_slices(lesion, brain), select_slices(brain, brain, 3)
    ((10, 11, 12, 13, 14, 15), (0, 10, 19))
    """
    with_brain = np.flatnonzero(brain_mask.any(axis=(0, 1)))
    with_lesion = np.flatnonzero(lesion.any(axis=(0, 1)))
    wanted = with_lesion if with_lesion.size else with_brain
    n_slices = min(n_slices, with_brain.size)
    if wanted.size < n_slices:  # with the nearest slices of the brain
        distance = np.abs(with_brain[:, None] - wanted).min(axis=1)
        nearest = with_brain[np.argsort(distance, kind='stable')[:n_slices]]
        wanted = np.sort(nearest)
    positions = np.linspace(0, wanted.size - 1, n_slices).round().astype(int)
    return tuple(int(index) for index in wanted[positions])


def plot_summary(panel: Panel) -> Figure:
    """Draw the lesions over CT in the slices that matter, and the vascular curves.

    Parameters
    ----------
    panel : Panel

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    mosaic = _lay_out(panel)
    height = _panel_height(panel, mosaic, WIDTH_IN)
    figure = Figure(figsize=(WIDTH_IN, height))
    _draw_panel(figure, panel, mosaic, (0.0, 0.0, WIDTH_IN, height))
    return figure


def plot_summary_page(panel: Panel, heading: Heading) -> Figure:
    """Draw the summary as one page (A4, landscape).

    Parameters
    ----------
    panel : Panel
    heading : Heading

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=PAGE_IN, facecolor='white')
    wide, tall = PAGE_IN
    margin = 0.45

    def write(x, y, text, **style):
        return figure.text(x / wide, y / tall, text, va='top', **style)

    write(margin, tall - 0.35, f'CT perfusion  {heading.series}', fontsize=15, weight='bold')
    write(wide - margin, tall - 0.38, RESEARCH, fontsize=11, ha='right', weight='bold',
          color=GRADES['fail'])  # fmt: skip
    colour = GRADES[VERDICT_GRADES[heading.verdict]]
    write(
        margin, tall - 0.75, heading.verdict.capitalize(), fontsize=15, weight='bold', color=colour
    )
    reason = write(margin + 1.5, tall - 0.78, _wrap(heading.reason, 130), fontsize=9)
    reason.set_linespacing(1.2)
    step = (wide - 2 * margin) / max(1, len(heading.numbers))
    for column, (title, value, detail, doubtful) in enumerate(heading.numbers):
        x = margin + column * step
        write(x, tall - 1.3, title, fontsize=10, color=SOFT)
        text = write(x, tall - 1.5, value, fontsize=20, weight='bold',
                     color=STRUCK if doubtful else 'black')  # fmt: skip
        if doubtful:
            _strike(figure, text)
        write(
            x,
            tall - 1.88,
            'a check that concerns it fails' if doubtful else detail,
            fontsize=8.5,
            color=SOFT,
        )
    foot = 0.3 + 0.17 * len(heading.facts)
    room = (margin, foot + 0.15, wide - 2 * margin, tall - 2.15 - foot - 0.15)
    mosaic = _lay_out(panel)
    _draw_panel(figure, panel, mosaic, room)
    for line, fact in enumerate(heading.facts):
        write(margin, foot - 0.17 * line, fact, fontsize=8, color='#333333')
    return figure


def _lay_out(panel: Panel) -> Mosaic:
    lesion = np.zeros(panel.brain_mask.shape, bool)
    for one in panel.lesions:
        lesion |= np.asarray(one.mask, bool)
    whole = lay_out(panel.brain_mask, panel.size_mm)
    return Mosaic(whole.box, (select_slices(lesion, panel.brain_mask),), whole.aspect)


def _columns(wide: float, has_curves: bool) -> tuple[float, float]:
    """Return the widths of the titles and of the curves, inches."""
    return 0.13 * wide, 0.23 * wide if has_curves else 0.0


def _panel_height(panel: Panel, mosaic: Mosaic, wide: float) -> float:
    titles, curves = _columns(wide, panel.time is not None)
    rows, columns = mosaic.tile_shape
    tile = min((wide - titles - curves) / mosaic.columns, wide / 6)
    return len(panel.lesions) * (tile * rows * mosaic.aspect / columns + 0.05) + 0.35


def _draw_panel(figure, panel: Panel, mosaic: Mosaic, box) -> None:
    """Draw the panel into a box (left, bottom, width, height; inches)."""
    from matplotlib.patches import Rectangle

    left, bottom, wide, tall = box
    scale = wide / WIDTH_IN
    figure_wide, figure_tall = figure.get_size_inches()
    titles, curves = _columns(wide, panel.time is not None)
    rows, columns = mosaic.tile_shape
    per_width = rows * mosaic.aspect / (columns * mosaic.columns)
    n_rows = len(panel.lesions)
    slices_wide = min(
        wide - titles - curves, mosaic.columns * wide / 6,
        ((tall - 0.3) / n_rows - 0.05) / per_width,
    )  # fmt: skip
    height = slices_wide * per_width
    top = bottom + tall
    for number, lesion in enumerate(panel.lesions):
        low = top - (number + 1) * (height + 0.05)
        place = ((left + titles) / figure_wide, low / figure_tall,
                 slices_wide / figure_wide, height / figure_tall)  # fmt: skip
        axes = figure.add_axes(place)
        fills = _split_fills(lesion)
        # the marked part twice, so that a few voxels are seen
        row = Row(panel.reference, WINDOWS[panel.grey_window], panel.brain_mask,
                  fills=fills + fills[1:])  # fmt: skip
        draw_line(axes, mosaic, row, 0, numbered=number == 0, fontsize=TEXT_PT * scale)
        middle = (low + height / 2) / figure_tall
        # the title is dark, as light colours are illegible on white; a bar has the colour
        bar = Rectangle((left / figure_wide, low / figure_tall), 0.05 * scale / figure_wide,
                        height / figure_tall, color=lesion.colour, linewidth=0)  # fmt: skip
        figure.add_artist(bar)
        x = (left + 0.14 * scale) / figure_wide
        line = 0.26 * scale / figure_tall
        style = {'ha': 'left', 'color': SOFT, 'fontsize': TEXT_PT * scale}
        figure.text(x, middle + line, lesion.title, va='center', fontsize=TITLE_PT * scale,
                    weight='bold')  # fmt: skip
        # what is beyond the threshold is with the numbers above: the column is narrow
        figure.text(x, middle, lesion.criterion.partition(', ')[0], va='center', **style)
        text = figure.text(x, middle - 1.2 * line, lesion.value, va='center', ha='left',
                           fontsize=VALUE_PT * scale,
                           color=STRUCK if lesion.doubtful else 'black')  # fmt: skip
        if lesion.doubtful:
            _strike(figure, text)
        if len(fills) > 1:
            y = middle - 2.35 * line
            figure.text(x, y, '\N{BLACK SQUARE}', va='center', ha='left', color=lesion.mark_colour,
                        fontsize=VALUE_PT * scale)  # fmt: skip
            figure.text(x + 0.24 * scale / figure_wide, y, lesion.mark, va='center', **style)
    if panel.time is not None:
        start = left + titles + slices_wide
        place = ((start + 0.85 * scale) / figure_wide,
                 (top - n_rows * (height + 0.05) + 0.4 * scale) / figure_tall,
                 max(0.5, left + wide - start - 0.95 * scale) / figure_wide,
                 (n_rows * (height + 0.05) - 0.95 * scale) / figure_tall)  # fmt: skip
        _draw_curves(figure.add_axes(place), panel.time, panel.curves, scale)
    # below the slices, where no head can be
    tile_mm = columns * panel.size_mm[0]
    length = SCALE_BAR_MM / tile_mm * slices_wide / mosaic.columns
    foot = top - n_rows * (height + 0.05) - 0.17
    _draw_scale_bar(figure, left + titles + slices_wide, foot, length, SMALL_PT * scale)
    note = "Radiological convention: the patient's right (R) is on the left. Small numbers: slice."
    figure.text(
        left / figure_wide, foot / figure_tall, note, va='center',
        fontsize=SMALL_PT * scale, color='#444444',
    )  # fmt: skip


def _split_fills(lesion: Lesion) -> tuple[tuple[np.ndarray, str], ...]:
    """Return the masks to fill with their colours; a marked part is separate."""
    mask = np.asarray(lesion.mask, bool)
    if lesion.marked is None or not (mask & lesion.marked).any():
        return ((mask, lesion.colour),)
    marked = mask & np.asarray(lesion.marked, bool)
    return ((mask & ~marked, lesion.colour), (marked, lesion.mark_colour))


def _draw_scale_bar(figure, right: float, y: float, length: float, fontsize: float) -> None:
    """Draw a bar that ends at `right`, with its length on its left (inches)."""
    from matplotlib.lines import Line2D

    wide, tall = figure.get_size_inches()
    ends = [(right - length) / wide, right / wide]
    bar = Line2D(ends, [y / tall] * 2, color='black', linewidth=2, solid_capstyle='butt')
    figure.add_artist(bar)
    figure.text(ends[0] - 0.05 / wide, y / tall, f'{SCALE_BAR_MM:g} mm', fontsize=fontsize,
                ha='right', va='center')  # fmt: skip


def _draw_curves(axes, time: np.ndarray, curves: dict[str, np.ndarray], scale: float) -> None:
    style_axes(axes, 'time (s)', 'enhancement (HU)')
    axes.tick_params(labelsize=SMALL_PT * scale)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set_size(TEXT_PT * scale)
    for name in ('aif', 'vof'):
        if name in curves:
            axes.plot(time, curves[name], color=COLOURS[name], linewidth=1.5, marker='o',
                      markersize=2, label=name.upper())  # fmt: skip
    # above the axes, where no curve is
    axes.legend(frameon=False, fontsize=TEXT_PT * scale, loc='lower left', bbox_to_anchor=(0, 1.0),
                ncols=2)  # fmt: skip


def _strike(figure, text) -> None:
    """Strike a text through."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.lines import Line2D

    renderer = FigureCanvasAgg(figure).get_renderer()
    box = text.get_window_extent(renderer).transformed(figure.transFigure.inverted())
    middle = (box.y0 + box.y1) / 2
    line = Line2D([box.x0, box.x1], [middle, middle], color=GRADES['fail'], linewidth=1.8)
    figure.add_artist(line)


def _wrap(text: str, width: int) -> str:
    import textwrap

    return '\n'.join(textwrap.wrap(text, width)[:2])
