# SPDX-License-Identifier: Apache-2.0
"""Scatter and Bland-Altman plot of the cores as a picture, for readers without scripts."""

import base64
import io
from typing import TYPE_CHECKING

import numpy as np

from ctpprep.group.statistics import select_complete

if TYPE_CHECKING:
    import pandas as pd


def draw_cores(
    series: 'pd.DataFrame',
    lines: dict[str, list[float | None]],
    colors: dict[str, str],
    unknown: str,
) -> str:
    """Draw local on global core, and their difference on their mean.

    Parameters
    ----------
    series : DataFrame
        Rows of the cohort; those without two cores are not drawn.
    lines : dict
        Of each group: slope, intercept, mean difference, lower and upper limit of agreement, mL.
    colors : dict of str to str
        By group.
    unknown : str
        Name under which `colors` lists an unknown group.

    Returns
    -------
    str
        PNG as a data URI.
    """
    from matplotlib.figure import Figure

    table = select_complete(series)
    canvas = Figure(figsize=(12, 5), layout='constrained')
    scatter, agreement = canvas.subplots(1, 2)
    largest = float(table[['core_global', 'core_local']].max().max()) if len(table) else 1.0
    end = max(1.0, largest)
    scatter.plot([0, end], [0, end], color='#777', linestyle=':', label='identity')
    agreement.axhline(0, color='#777', linestyle=':')
    for group, color in colors.items():
        part = table[table['group'].replace('', unknown) == group]
        x, y = part['core_global'].to_numpy(float), part['core_local'].to_numpy(float)
        scatter.scatter(x, y, 12, color=color, alpha=0.6, label=group)
        agreement.scatter((x + y) / 2, y - x, 12, color=color, alpha=0.6)
        slope, intercept, *heights = lines.get(group, [None] * 5)
        if slope is not None and intercept is not None:
            ends = np.array([x.min(), x.max()])
            scatter.plot(ends, intercept + slope * ends, color=color)
        for height, style in zip(heights, ('-', '--', '--'), strict=True):
            if height is not None:
                agreement.axhline(height, color=color, linestyle=style)
    scatter.set(xlabel='core global, mL', ylabel='core local, mL')
    agreement.set(xlabel='mean of both cores, mL', ylabel='local - global, mL')
    scatter.legend()
    png = io.BytesIO()
    canvas.savefig(png, format='png', dpi=110)
    return 'data:image/png;base64,' + base64.b64encode(png.getvalue()).decode()
