# SPDX-License-Identifier: Apache-2.0
"""Figure of a series that failed: its curves, and where they were searched."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ctpprep.figures.charts import style_axes
from ctpprep.figures.mosaic import WINDOWS, Mosaic, Row, Window, lay_out, plot_rows
from ctpprep.figures.palette import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ctpprep.perfusion.evidence import Evidence

CHARTS_IN = 3.2  # height of the charts, inches
# least range of the axis of the mean curve: brain rises by 2 HU or more, HU
LEAST_RANGE_HU = 4.0
# range beyond most values of a region that does not fit the window of reference images, HU
MARGIN_HU = 20.0
MOST_SLICES = 8
# of these, so many are the slices with most candidates
CANDIDATE_SLICES = 3


def plot_evidence(evidence: Evidence) -> Figure:
    """Draw the curves of the region that was searched, and the region on the mean image.

    Above, the mean curve on the left and the candidates on the right; below, slices with the
    region and the brain as outlines and the candidates circled.

    Parameters
    ----------
    evidence : Evidence

    Returns
    -------
    matplotlib.figure.Figure
    """
    shown = _select_slices(evidence)
    mosaic = lay_out(shown, tuple(evidence.voxel_size_mm), MOST_SLICES)
    colours = {name: COLOURS.get(name, COLOURS['region']) for name in evidence.outlines}
    row = Row(
        evidence.image,
        _choose_window(evidence),
        title='Mean image',
        outlines=tuple((mask, colours[name]) for name, mask in evidence.outlines.items()),
        gid='slices',
    )
    circled = f'{np.count_nonzero(evidence.marked)} voxels most like a bolus (circles)'
    legend = colours | {circled: COLOURS['candidate']}
    rejected = np.count_nonzero(~evidence.usable)
    note = f'Shaded: {rejected} of {len(evidence.times)} frames rejected for motion.'
    figure = plot_rows(mosaic, [row], legend, note if rejected else '', CHARTS_IN)
    for axes in figure.axes:
        if (gid := axes.get_gid() or '').startswith('slices-'):
            _circle_voxels(axes, mosaic, evidence.marked, int(gid.removeprefix('slices-')))
    _draw_charts(figure, evidence)
    return figure


def _select_slices(evidence: Evidence) -> np.ndarray:
    """Return the outlined masks in the slices with most candidates and in some evenly spaced ones."""
    shown = np.logical_or.reduce([evidence.marked, *evidence.outlines.values()])
    counts = evidence.marked.sum(axis=(0, 1))
    best = np.argsort(-counts, kind='stable')[:CANDIDATE_SLICES]
    occupied = np.flatnonzero(shown.any(axis=(0, 1)))
    n_even = min(MOST_SLICES - CANDIDATE_SLICES, occupied.size)
    even = occupied[np.linspace(0, occupied.size - 1, n_even).round().astype(int)]
    kept = np.zeros(shown.shape[2], dtype=bool)
    kept[[*best[counts[best] > 0], *even]] = True
    # the whole extent, so that the box does not depend on the slices
    return shown.any(axis=2, keepdims=True) & kept


def _choose_window(evidence: Evidence) -> Window:
    """Return the window of reference images, or one that fits a series that is not in HU."""
    window = WINDOWS['reference']
    values = evidence.image[evidence.outlines[evidence.region]]
    low, middle, high = (float(level) for level in np.percentile(values, (2, 50, 98)))
    if window.low < middle < window.high:
        return window
    return replace(window, low=low - MARGIN_HU, high=high + MARGIN_HU)


def _circle_voxels(axes: Axes, mosaic: Mosaic, mask: np.ndarray, line: int) -> None:
    rows, columns = np.nonzero(mosaic.picture(mask, line))
    axes.scatter(
        columns, rows, s=45, facecolors='none', edgecolors=COLOURS['candidate'], linewidths=1.2
    )


def _draw_charts(figure: Figure, evidence: Evidence) -> None:
    """Draw the curves in the space above the slices."""
    width, height = figure.get_size_inches()
    bottom, tall = 1 - (CHARTS_IN - 0.6) / height, (CHARTS_IN - 1.0) / height
    mean, highest = (
        figure.add_axes((left, bottom, 0.4, tall), gid=name)
        for left, name in ((0.75 / width, 'mean-curve'), (0.55, 'candidate-curves'))
    )
    times = evidence.times
    for axes in (mean, highest):
        style_axes(axes, 'time (s)', 'density (HU)')
        steps = np.diff(times) if len(times) > 1 else np.ones(1)
        for frame in np.flatnonzero(~evidence.usable):
            half = 0.5 * float(steps[min(frame, len(steps) - 1)])
            axes.axvspan(
                times[frame] - half, times[frame] + half, color='#e69f00', alpha=0.35, linewidth=0
            )
    line = {'marker': 'o', 'markersize': 3, 'linewidth': 1.5}
    mean.plot(times, evidence.mean, color=COLOURS['region'], **line)
    low, high = mean.get_ylim()
    missing = max(0.0, LEAST_RANGE_HU - (high - low))
    mean.set_ylim(low - missing / 2, high + missing / 2)
    mean.set_title(f'Mean curve: {evidence.region}', fontsize=10)
    candidates = evidence.candidates
    highest.plot(times, candidates.T, color=COLOURS['candidate'], linewidth=0.7, alpha=0.5)
    highest.plot(times, candidates.mean(axis=0), color=COLOURS['candidate'], **line)
    highest.set_title(
        f'The {len(candidates)} curves most like a bolus, and their mean (thick)',
        fontsize=10,
    )
