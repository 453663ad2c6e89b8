# SPDX-License-Identifier: Apache-2.0
"""Pictures of one series: arrays in, a matplotlib figure out.

Volumes are canonical arrays (axis 0 to the patient's right, 1 anterior, 2 superior). Every
picture is in radiological convention: the patient's right is on the left. The window of a quantity
is fixed (`WINDOWS`), so that two patients, and two normalizations, can be compared by eye. Colour
maps are perceptually uniform: viridis for flow and volume, plasma for times; black is outside the
mask.

matplotlib is imported inside the functions, and without pyplot: no global state, no display.

::

    mosaic   slices side by side, fixed windows, saving
    maps     figures made of slices
    charts   figures with axes: curves, motion, histogram
"""

from ctpprep.figures.charts import plot_curves, plot_motion, plot_tmax_histogram
from ctpprep.figures.maps import (
    compare_cores,
    plot_lesions,
    plot_maps,
    plot_masks,
    plot_mirror,
    plot_probability,
    plot_rcbf,
)
from ctpprep.figures.mosaic import COLOURS, WINDOWS, Mosaic, Row, lay_out, plot_rows, save_svg

__all__ = [
    'COLOURS',
    'WINDOWS',
    'Mosaic',
    'Row',
    'compare_cores',
    'lay_out',
    'plot_curves',
    'plot_lesions',
    'plot_maps',
    'plot_masks',
    'plot_mirror',
    'plot_motion',
    'plot_probability',
    'plot_rcbf',
    'plot_rows',
    'plot_tmax_histogram',
    'save_svg',
]
