# SPDX-License-Identifier: Apache-2.0
"""Slices side by side: fixed windows, radiological convention, fills and outlines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CONVENTION = (
    "Radiological convention: the patient's right (R) is on the left of the picture. "
    'Small numbers: slice, counted from 0 at the lowest.'
)
RIM_PT = 1.0  # of outlines, both sides together
WIDTH_IN = 14.0  # at the report's width one inch is about 95 px, a 2 mm voxel about 2 px


@dataclass(frozen=True)
class Window:
    """Display of a quantity: name, unit, and the values at the ends of its colour map.

    `scale` is the factor from the stored to the displayed unit.
    """

    label: str
    unit: str
    low: float
    high: float
    colours: str
    scale: float = 1.0

    def paint(self, values: np.ndarray, shown: np.ndarray | None = None) -> np.ndarray:
        """Convert values to colours; black where not `shown`, grey where a value is missing.

        Parameters
        ----------
        values : (rows, columns) array
        shown : (rows, columns) array of bool, optional

        Returns
        -------
        rgb : (rows, columns, 3) array of float
        """
        from matplotlib import colormaps

        level = (np.asarray(values, float) * self.scale - self.low) / (self.high - self.low)
        rgb = colormaps[self.colours](np.clip(np.nan_to_num(level), 0, 1))[..., :3]
        rgb = np.where(np.isnan(level)[..., None], NO_VALUE, rgb)
        return rgb if shown is None else np.where(shown[..., None], rgb, 0.0)


#: Grey level of brain without a value (NaN): CSF, vessels, unassessable tissue.
NO_VALUE = 0.45
#: The fixed windows. rCBF is stored as a fraction and displayed in percent.
WINDOWS = {
    'cbf': Window('CBF', 'mL/100 g/min', 0, 100, 'viridis'),
    'cbv': Window('CBV', 'mL/100 g', 0, 8, 'viridis'),
    'mtt': Window('MTT', 's', 0, 20, 'plasma'),
    'tmax': Window('Tmax', 's', 0, 12, 'plasma'),
    'ttp': Window('TTP', 's', 0, 45, 'plasma'),
    'rcbf_global': Window('rCBF global', '%', 0, 150, 'viridis', scale=100),
    'rcbf_local': Window('rCBF local', '%', 0, 150, 'viridis', scale=100),
    'reference': Window('Reference', 'HU', 0, 80, 'gray'),
    'brain': Window('Reference', 'HU', 0, 60, 'gray'),
}


@dataclass(frozen=True)
class Mosaic:
    """The part of a volume that is shown: selected slices in lines, cropped to the brain.

    Attributes
    ----------
    box : tuple of slice
        Range of axis 0 and axis 1.
    lines : tuple of tuple of int
        Slices, inferior to superior, one tuple per line.
    aspect : float
        Height of a voxel divided by its width.
    grey_unit : str
        Unit of the grey images; '' if they are perfusion maps instead of densities.
    """

    box: tuple[slice, slice]
    lines: tuple[tuple[int, ...], ...]
    aspect: float
    grey_unit: str = 'HU'

    @property
    def columns(self) -> int:
        """Number of tiles in a line."""
        return len(self.lines[0])

    @property
    def tile_shape(self) -> tuple[int, int]:
        """Rows and columns of pixels of one tile."""
        across, along = self.box
        return along.stop - along.start, across.stop - across.start

    def picture(self, volume: np.ndarray, line: int) -> np.ndarray:
        """Concatenate the slices of one line, each in radiological convention.

        Parameters
        ----------
        volume : (X, Y, Z) array
            Canonical: x to the right, y anterior.
        line : int

        Returns
        -------
        picture : (rows, columns) array
            Anterior on top, the patient's right on the left.
        """
        tiles = [volume[(*self.box, index)][::-1, ::-1].T for index in self.lines[line]]
        blank = [np.zeros_like(tiles[0])] * (self.columns - len(tiles))
        return np.concatenate(tiles + blank, axis=1)


def lay_out(
    brain_mask: np.ndarray,
    voxel_size_mm: tuple[float, ...] = (1.0, 1.0, 1.0),
    max_slices: int = 20,
    max_columns: int = 8,
    grey_unit: str = 'HU',
) -> Mosaic:
    """Select the slices and the box that show a brain.

    Parameters
    ----------
    brain_mask : (X, Y, Z) array of bool
    voxel_size_mm : tuple of float
    max_slices : int
        Largest number of slices, evenly spaced among those with brain.
    max_columns : int
        Largest number of slices in a line.
    grey_unit : str
        As in `Mosaic`.

    Returns
    -------
    Mosaic

    Raises
    ------
    ValueError
        If the mask is empty.

    Examples
    --------
    >>> lay_out(np.ones((4, 4, 20), bool), max_slices=4).lines
    ((0, 6, 13, 19),)
    """
    mask = np.asarray(brain_mask, bool)
    if not mask.any():
        raise ValueError('brain_mask is empty, needs at least one voxel')
    with_brain = np.flatnonzero(mask.any(axis=(0, 1)))
    n_slices = min(max_slices, with_brain.size)
    positions = np.linspace(0, with_brain.size - 1, n_slices).round().astype(int)
    slices = [int(index) for index in with_brain[positions]]
    n_lines = -(-n_slices // max_columns)
    columns = -(-n_slices // n_lines)
    box = []
    for axis in (0, 1):
        occupied = np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))
        margin = max(2, mask.shape[axis] // 40)
        stop = min(occupied[-1] + 1 + margin, mask.shape[axis])
        box.append(slice(max(occupied[0] - margin, 0), stop))
    return Mosaic(
        (box[0], box[1]),
        tuple(tuple(slices[start : start + columns]) for start in range(0, n_slices, columns)),
        float(voxel_size_mm[1] / voxel_size_mm[0]),
        grey_unit,
    )


@dataclass(frozen=True)
class Row:
    """One row of a mosaic figure: a volume with filled and outlined masks.

    Attributes
    ----------
    volume : (X, Y, Z) array
    window : Window
    shown : (X, Y, Z) array of bool, optional
        Mask outside which the row is black.
    title : str
        Name on the left; by default the label of the window.
    fills, outlines : tuple of (array of bool, str)
        Masks with their colours.
    gid : str, optional
        Id of the row in the SVG file, followed by the number of the line.
    over : bool
        Drawn on top of the row before, with which it alternates.
    """

    volume: np.ndarray
    window: Window
    shown: np.ndarray | None = None
    title: str = ''
    fills: tuple[tuple[np.ndarray, str], ...] = ()
    outlines: tuple[tuple[np.ndarray, str], ...] = ()
    gid: str | None = None
    over: bool = False

    def paint(self, mosaic: Mosaic, line: int) -> np.ndarray:
        """Colour one line of slices, fills included."""
        from matplotlib.colors import to_rgb

        shown = None if self.shown is None else mosaic.picture(self.shown, line).astype(bool)
        rgb = self.window.paint(mosaic.picture(self.volume, line), shown)
        for mask, colour in self.fills:
            inside = mosaic.picture(mask, line).astype(bool)
            rgb[inside] = 0.35 * rgb[inside] + 0.65 * np.array(to_rgb(colour))
        return (255 * rgb).round().astype(np.uint8)


def plot_rows(
    mosaic: Mosaic,
    rows: list[Row],
    legend: dict[str, str] | None = None,
    note: str = '',
    above_in: float = 0.0,
) -> Figure:
    """Draw rows of slices, one block of rows for each line of the mosaic.

    The same slice of every map is in one column.

    Parameters
    ----------
    mosaic : Mosaic
    rows : list of Row
    legend : dict of str to str, optional
        Label and colour of each patch.
    note : str
        Sentence at the bottom of the figure, before the convention.
    above_in : float
        Height of the space above the rows for axes of the caller, inches.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    left, right, gap, foot = 0.35, 1.0, 0.06, 0.55 if legend else 0.3
    height, width = mosaic.tile_shape
    # a few slices would become huge tiles: none is wider than a fifth of the page
    wide = min(WIDTH_IN - left - right, mosaic.columns * WIDTH_IN / 5)
    tall = wide * height * mosaic.aspect / (width * mosaic.columns)
    n_rows = sum(not row.over for row in rows)
    block = n_rows * (tall + gap) + 0.15
    total = len(mosaic.lines) * block + foot + above_in
    figure = Figure(figsize=(WIDTH_IN, total))
    scales = []
    for line in range(len(mosaic.lines)):
        bottom = total - above_in - line * block
        for row in rows:
            bottom -= 0 if row.over else tall + gap
            box = (left / WIDTH_IN, bottom / total, wide / WIDTH_IN, tall / total)
            axes = figure.add_axes(box, gid=f'{row.gid}-{line}' if row.gid else None)
            draw_line(axes, mosaic, row, line, numbered=row is rows[0] or row.over)
            if not row.over:
                scales.append((row, bottom))
    _add_scales(figure, scales, left, left + wide, tall, mosaic.grey_unit)
    _add_foot(figure, legend or {}, f'{note} {CONVENTION}'.strip(), total)
    return figure


def draw_line(
    axes, mosaic: Mosaic, row: Row, line: int, numbered: bool, fontsize: float = 9.0
) -> None:
    """Draw one line of slices with outlines, the letters R and L, and slice numbers."""
    axes.imshow(row.paint(mosaic, line), aspect='auto', interpolation='none')
    axes.set_axis_off()
    for order, (mask, colour) in enumerate(row.outlines):
        inside = mosaic.picture(np.asarray(mask, float), line)
        if inside.any():
            # padded, so that the outline of a mask at the edge is closed
            across, down = (np.arange(-1, size + 1) for size in inside.shape[::-1])
            # the first is the widest, so that it is visible beside those drawn over it
            wide = 1.1 + 0.9 * (len(row.outlines) - 1 - order)
            # with a black rim, so that it is visible on a map of a similar colour
            for outline, width in (('black', wide + RIM_PT), (colour, wide)):
                axes.contour(across, down, np.pad(inside, 1), levels=[0.5], colors=[outline],
                             linewidths=width)  # fmt: skip
    rows, columns = mosaic.tile_shape
    axes.set(xlim=(-0.5, columns * mosaic.columns - 0.5), ylim=(rows - 0.5, -0.5))
    background = {'facecolor': 'black', 'edgecolor': 'none', 'pad': 0.6}
    style = {'color': 'white', 'fontsize': fontsize, 'va': 'top', 'bbox': background}
    style_number = style | {'color': '#cccccc', 'fontsize': fontsize - 1, 'va': 'bottom'}
    borders = np.arange(1, len(mosaic.lines[line])) * columns - 0.5
    axes.vlines(borders, -0.5, rows - 0.5, color='#777777', linewidth=0.6)
    for tile, index in enumerate(mosaic.lines[line]):
        axes.text(tile * columns + 0.5, 0.5, 'R', ha='left', **style)
        axes.text((tile + 1) * columns - 1.5, 0.5, 'L', ha='right', **style)
        if numbered:
            axes.text(tile * columns + 0.5, rows - 1, f'{index}', **style_number)


def _add_scales(
    figure, scales: list[tuple[Row, float]], left: float, right: float, tall: float, grey_unit: str
) -> None:
    """Add the name of each row on its left and its colour scale on its right.

    All scales are in one axes, in inches: a colour bar per row would take a third of the time of a
    figure.
    """
    from matplotlib.collections import LineCollection

    wide, total = figure.get_size_inches()
    axes = figure.add_axes((0, 0, 1, 1), label='scales')
    start, end = right + 0.084, right + 0.21
    lines = []
    for row, bottom in scales:
        window, middle = row.window, bottom + tall / 2
        low, high = bottom + 0.06 * tall, bottom + 0.94 * tall
        axes.text(left / 2, middle, row.title or window.label, rotation=90, ha='center',
                  va='center', fontsize=9)  # fmt: skip
        axes.imshow(
            np.arange(256)[:, None], cmap=window.colours, aspect='auto', origin='lower',
            extent=(start, end, low, high), interpolation='none',
        )  # fmt: skip
        lines.append([(start, low), (end, low), (end, high), (start, high), (start, low)])
        for share in (0, 0.5, 1):
            y = low + share * (high - low)
            lines.append([(end, y), (end + 0.03, y)])
            value = window.low + share * (window.high - window.low)
            axes.text(end + 0.07, y, f'{value:g}', va='center_baseline', fontsize=9)
        unit = grey_unit if window.unit == 'HU' else window.unit
        axes.text(end + 0.44, middle, unit, rotation=90, ha='center', va='center', fontsize=9)
    axes.add_collection(LineCollection(lines, colors='black', linewidths=0.5))
    axes.set(xlim=(0, wide), ylim=(0, total))
    axes.set_axis_off()


def _add_foot(figure, legend: dict[str, str], note: str, total: float) -> None:
    """Add the legend of colours and a sentence at the bottom."""
    from matplotlib.patches import Patch

    if legend:
        patches = [
            Patch(facecolor=colour, edgecolor='#555555', linewidth=0.6, label=label)
            for label, colour in legend.items()
        ]
        figure.legend(
            handles=patches,
            loc='lower left',
            bbox_to_anchor=(0.02, 0.22 / total),
            ncols=len(patches),
            frameon=False,
            fontsize=9,
        )
    figure.text(0.025, 0.08 / total, note, fontsize=9, color='#444444', va='bottom')
