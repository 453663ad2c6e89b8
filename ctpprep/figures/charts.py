# SPDX-License-Identifier: Apache-2.0
"""Figures with axes: vascular curves, head motion, histogram of Tmax."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ctpprep.figures.mosaic import WIDTH_IN, WINDOWS, lay_out
from ctpprep.figures.palette import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_curves(
    time: np.ndarray,
    curves: dict[str, np.ndarray],
    masks: dict[str, np.ndarray],
    reference: np.ndarray | None,
    brain_mask: np.ndarray | None,
    voxel_size_mm: tuple[float, ...] = (1.0, 1.0, 1.0),
) -> Figure:
    """Draw the vascular curves and the voxels that they were taken from.

    Parameters
    ----------
    time : (T,) array
        s.
    curves : dict of str to (T,) array
        Enhancement, HU. 'aif' and 'vof' use the left axis, all others (tissue) the right one.
    masks : dict of str to (X, Y, Z) array of bool
        Keys among 'aif' and 'vof'.
    reference : (X, Y, Z) array, optional
        HU; if None, the voxels are not shown.
    brain_mask : (X, Y, Z) array of bool, optional
    voxel_size_mm : tuple of float

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_IN, 4.0))
    places = {name: mask for name, mask in masks.items() if reference is not None and mask.any()}
    axes = figure.add_axes((0.065, 0.14, 0.845 - 0.21 * len(places), 0.78))
    _draw_curves(axes, time, curves)
    for column, (name, mask) in enumerate(places.items()):
        left = 0.985 - 0.21 * (len(places) - column) + 0.01
        picture = figure.add_axes((left, 0.08, 0.2, 0.82))
        _draw_place(picture, name, mask, reference, brain_mask, voxel_size_mm)
    return figure


def _draw_curves(axes: Axes, time: np.ndarray, curves: dict[str, np.ndarray]) -> None:
    """Draw arteries and veins on the left axis, tissue on the right one with a finer scale."""
    style_axes(axes, 'time (s)', 'AIF, VOF: enhancement (HU)')
    handles = []
    for name in ('aif', 'vof'):
        if name in curves:
            style = {'color': COLOURS[name], 'marker': 'o', 'markersize': 3, 'linewidth': 1.5}
            # the height at the end shows whether the scan was long enough
            peak = np.nanmax(curves[name])
            ends = (
                f', ends at {100 * np.mean(curves[name][-2:]) / peak:.0f} % of its peak'
                if peak > 0
                else ''
            )
            handles += axes.plot(time, curves[name], label=f'{name.upper()}{ends}', **style)
    tissue_names = [name for name in curves if name not in ('aif', 'vof')]
    if tissue_names:
        fine = axes.twinx()
        fine.spines[['top', 'left']].set_visible(False)
        fine.set_ylabel('tissue: enhancement (HU)', color=COLOURS['tissue curve'])
        for index, name in enumerate(tissue_names):
            style = {'color': COLOURS['tissue curve'], 'linestyle': ('-', '--', ':')[index % 3]}
            label = f'{name.replace("_", " ")} (right axis)'
            handles += fine.plot(time, curves[name], label=label, **style)
    # above the axes, where no curve is
    style = {'frameon': False, 'fontsize': 9, 'ncols': len(handles)}
    axes.legend(handles=handles, loc='lower left', bbox_to_anchor=(0, 1.0), **style)


def _draw_place(axes, name, mask, reference, brain_mask, voxel_size_mm) -> None:
    """Mark the voxels of a curve, from all slices, on the slice with most of them."""
    shown = mask if brain_mask is None or not brain_mask.any() else brain_mask | mask
    counts = mask.sum(axis=(0, 1))
    best, slices = int(counts.argmax()), np.flatnonzero(counts)
    one_slice = np.zeros_like(mask)
    one_slice[..., best] = shown.any(axis=2)
    mosaic = lay_out(one_slice, voxel_size_mm)
    window = WINDOWS['reference']
    axes.imshow(
        window.paint(mosaic.picture(reference, 0)), aspect=mosaic.aspect, interpolation='none'
    )
    projected = np.repeat(mask.any(axis=2)[..., None], mask.shape[2], axis=2)
    rows, columns = np.nonzero(mosaic.picture(projected, 0))
    axes.scatter(columns, rows, s=60, facecolors='none', edgecolors='#ffff00', linewidths=1.0)
    axes.scatter(columns, rows, s=5, color='#ffff00')
    axes.set_axis_off()
    axes.text(0.02, 0.98, 'R', color='white', va='top', transform=axes.transAxes)
    axes.text(0.98, 0.98, 'L', color='white', va='top', ha='right', transform=axes.transAxes)
    location = f'slice {slices[0]}' if slices.size == 1 else f'slices {slices[0]}-{slices[-1]}'
    axes.set_title(
        f'{name.upper()}: {int(mask.sum())} voxels, {location}\n(shown on slice {best})',
        fontsize=9,
    )


def plot_motion(confounds: dict[str, np.ndarray]) -> Figure:
    """Draw translations, rotations and framewise displacement, with rejected frames shaded.

    Parameters
    ----------
    confounds : dict of str to (T,) array
        trans_x, trans_y, trans_z (mm), rot_x, rot_y, rot_z (rad), framewise_displacement (mm),
        weight (0 = rejected); missing columns are not drawn.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_IN, 5.2))
    groups = [
        ('translation (mm)', ('trans_x', 'trans_y', 'trans_z'), 1.0),
        ('rotation (degrees)', ('rot_x', 'rot_y', 'rot_z'), 180 / np.pi),
        ('framewise\ndisplacement (mm)', ('framewise_displacement',), 1.0),
    ]
    colours = ('#d55e00', '#009e73', '#0072b2')
    weight = np.nan_to_num(np.asarray(confounds.get('weight', ()), float), nan=1.0)
    for row, (label, names, scale) in enumerate(groups):
        axes = figure.add_subplot(3, 1, row + 1)
        style_axes(axes, 'frame' if row == 2 else '', label)
        for name, colour in zip(names, colours, strict=False):
            if name in confounds:
                values = scale * np.asarray(confounds[name], float)
                axes.plot(values, color=colour, label=name[-1], marker='.', linewidth=1.2)
        for frame in np.flatnonzero(weight == 0):
            axes.axvspan(frame - 0.5, frame + 0.5, color='#e69f00', alpha=0.35, linewidth=0)
        frames = max(len(values) for values in confounds.values())
        axes.set_xlim(-0.5, frames - 0.5)
        axes.tick_params(labelbottom=row == 2)  # the legend of the next row takes this space
        if row < 2 and axes.lines:
            axes.legend(
                frameon=False, fontsize=8, ncols=3, loc='lower right', bbox_to_anchor=(1, 0.97)
            )
    rejected = int((weight == 0).sum())
    title = f'{rejected} of {weight.size} frames rejected (shaded)' if weight.size else ''
    figure.suptitle(title, fontsize=9, y=0.985)
    figure.subplots_adjust(left=0.07, right=0.985, top=0.93, bottom=0.1, hspace=0.28)
    return figure


def plot_tmax_histogram(
    tmax: np.ndarray,
    hemispheres: np.ndarray,
    tissue_mask: np.ndarray,
    hypoperfusion_tmax: float,
    affected_side: str = '',
) -> Figure:
    """Draw the distribution of Tmax in the tissue of each hemisphere, with the medians.

    Parameters
    ----------
    tmax : (X, Y, Z) array
        s.
    hemispheres : (X, Y, Z) array of int
        1 left, 2 right.
    tissue_mask : (X, Y, Z) array of bool
    hypoperfusion_tmax : float
        Threshold, s.
    affected_side : str
        'left' or 'right', marked in the legend; '' if unknown.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_IN, 3.6))
    axes = figure.add_axes((0.07, 0.15, 0.9, 0.8))
    style_axes(axes, 'Tmax (s)', 'share of tissue (% per bin)')
    high = WINDOWS['tmax'].high
    lowest = -2 if (tmax[tissue_mask] < 0).any() else 0  # precomputed maps may be negative
    bins = np.arange(lowest, high + 3.25, 0.25)
    for label, side in ((1, 'left'), (2, 'right')):
        values = tmax[(hemispheres == label) & tissue_mask]
        if values.size == 0:
            continue
        median = float(np.median(values))
        weights = np.full(values.size, 100 / values.size)
        text = f'{side} hemisphere, median {median:.1f} s'
        text += ' (affected side)' if side == affected_side else ''
        # the outer bins include the values beyond the axis, so that the proportions sum to 100 %
        axes.hist(
            np.clip(values, bins[0], bins[-1] - 1e-6),
            bins,
            weights=weights,
            histtype='stepfilled',
            alpha=0.3,
            color=COLOURS[side],
        )
        axes.hist(
            np.clip(values, bins[0], bins[-1] - 1e-6),
            bins,
            weights=weights,
            histtype='step',
            color=COLOURS[side],
            label=text,
        )
        axes.axvline(median, color=COLOURS[side], linestyle='--')
    axes.axvline(
        hypoperfusion_tmax,
        color='#444444',
        linestyle=':',
        label=f'hypoperfusion: Tmax > {hypoperfusion_tmax:g} s',
    )
    axes.set_xlim(bins[0], bins[-1])
    axes.legend(frameon=False, fontsize=9, loc='upper right')
    return figure


def style_axes(axes: Axes, horizontal: str, vertical: str) -> None:
    """Label the axes, remove the box and add a light grid."""
    axes.set_xlabel(horizontal)
    axes.set_ylabel(vertical)
    axes.spines[['top', 'right']].set_visible(False)
    axes.grid(color='#e5e5e5', linewidth=0.6)
    axes.set_axisbelow(True)
