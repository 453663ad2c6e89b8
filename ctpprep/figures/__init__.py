# SPDX-License-Identifier: Apache-2.0
"""Figures of one series: arrays in, a matplotlib figure or packed arrays out.

Volumes are canonical arrays (axis 0 to the patient's right, 1 anterior, 2 superior). Every
figure is in radiological convention: the patient's right is on the left. The window of a quantity
is fixed (`WINDOWS`), so that patients and normalizations can be compared visually. Colour maps are
perceptually uniform: viridis for flow and volume, plasma for times. Black is outside the mask.

matplotlib is imported inside the functions and without pyplot, which would need a display and
keep global state.

::

    palette   the colours of figures and pages
    mosaic    slices side by side, fixed windows
    saving    SVG, PDF and PNG files
    maps      figures of slices
    summary   verdict, lesions over CT and curves on one page
    charts    figures with axes: curves, motion, histogram
    evidence  figure of a series that failed
    packing   maps, masks and curves for the interactive viewer of a page
    sources   the outputs that each figure shows
"""

from ctpprep.figures import packing as viewer  # the name in interfaces/viewer.py
from ctpprep.figures.charts import plot_curves, plot_motion, plot_tmax_histogram
from ctpprep.figures.evidence import plot_evidence
from ctpprep.figures.maps import (
    compare_cores,
    plot_followup,
    plot_lesions,
    plot_maps,
    plot_masks,
    plot_mirror,
    plot_probability,
    plot_rcbf,
    plot_regions,
)
from ctpprep.figures.mosaic import WINDOWS, Mosaic, Row, lay_out, plot_rows
from ctpprep.figures.palette import COLOURS
from ctpprep.figures.saving import save_page, save_svg
from ctpprep.figures.summary import Heading, Lesion, Panel, plot_summary, plot_summary_page

__all__ = [
    'COLOURS',
    'WINDOWS',
    'Heading',
    'Lesion',
    'Mosaic',
    'Panel',
    'Row',
    'compare_cores',
    'lay_out',
    'plot_curves',
    'plot_evidence',
    'plot_followup',
    'plot_lesions',
    'plot_maps',
    'plot_masks',
    'plot_mirror',
    'plot_motion',
    'plot_probability',
    'plot_rcbf',
    'plot_regions',
    'plot_rows',
    'plot_summary',
    'plot_summary_page',
    'plot_tmax_histogram',
    'save_page',
    'save_svg',
    'viewer',
]
