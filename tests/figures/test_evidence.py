# SPDX-License-Identifier: Apache-2.0
"""Figure of a failed series: curves in s, outlines and circles on the slices."""

from dataclasses import replace

import numpy as np
import pytest

from ctpprep.figures import COLOURS, plot_evidence
from ctpprep.perfusion.evidence import Evidence

SHAPE = (24, 30, 10)


@pytest.fixture
def evidence():
    """A box with one candidate on the patient's left."""
    region = np.zeros(SHAPE, bool)
    region[4:20, 4:26, 1:9] = True
    marked = np.zeros(SHAPE, bool)
    marked[6, 15, 4] = True
    return Evidence(
        times=np.arange(12) * 1.5, usable=np.arange(12) != 3, region='search region',
        mean=np.full(12, 35.0), candidates=np.full((1, 12), 60.0),
        image=np.where(region, 35, -1000).astype(np.int16), marked=marked,
        outlines={'search region': region, 'brain': region}, voxel_size_mm=np.array([2.0, 2, 5]),
    )  # fmt: skip


def axes_of(figure, gid):
    return next(axes for axes in figure.axes if axes.get_gid() == gid)


def texts_of(figure):
    return ' '.join(text.get_text() for text in figure.texts)


def test_curves_are_drawn_over_seconds_in_hu(evidence):
    figure = plot_evidence(evidence)
    for gid in ('mean-curve', 'candidate-curves'):
        axes = axes_of(figure, gid)
        assert axes.get_xlabel() == 'time (s)'
        assert axes.get_ylabel().endswith('(HU)')
        np.testing.assert_array_equal(axes.lines[0].get_xdata(), evidence.times)


def test_rejected_frames_are_shaded(evidence):
    figure = plot_evidence(evidence)
    assert len(axes_of(figure, 'mean-curve').patches) == 1
    assert '1 of 12 frames rejected' in texts_of(figure)


def test_candidate_of_the_left_is_circled_on_the_right_of_its_slice(evidence):
    axes = axes_of(plot_evidence(evidence), 'slices-0')
    ((column, _),) = axes.collections[-1].get_offsets()
    tile = axes.images[0].get_array().shape[1] / sum(t.get_text() == 'R' for t in axes.texts)
    assert column % tile > tile / 2
    assert COLOURS['candidate'] == '#d55e00'


def test_slices_with_candidates_are_shown(evidence):
    axes = axes_of(plot_evidence(evidence), 'slices-0')
    assert '4' in [text.get_text() for text in axes.texts]


@pytest.mark.parametrize('offset', [0, 1024])
def test_window_fits_the_region(evidence, offset):
    figure = plot_evidence(replace(evidence, image=evidence.image + np.int16(offset)))
    picture = np.asarray(axes_of(figure, 'slices-0').images[0].get_array())
    height, width = picture.shape[:2]
    assert picture.min() == 0  # air
    assert 0 < picture[height // 2, width // 8].max() < 255


def test_missing_values_are_drawn(evidence):
    nothing = np.full_like(evidence.candidates, np.nan)
    plot_evidence(replace(evidence, mean=nothing[0], candidates=nothing))
