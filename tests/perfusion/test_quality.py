# SPDX-License-Identifier: Apache-2.0
"""Figures of the vessels' curves, and in which direction a cut scan errs."""

import numpy as np
import pytest

from ctpprep.perfusion import quality

ENDS = {'aif_peak', 'aif_width', 'scan_after_peak', 'contrast_to_noise'}


def triangle(times, peak_time, half_width, height):
    return height * np.clip(1 - np.abs(times - peak_time) / (2 * half_width), 0, None)


def measure(end=60.0, vof=True, step=1.0):
    """Curves of triangles: AIF at 14 s and 8 s wide, VOF at 24 s and 12 s wide."""
    times = np.arange(0, end + step / 2, step)
    vein = triangle(times, 24, 6, 300.0) if vof else np.full(times.size, np.nan)
    return quality.curve_figures(
        times, triangle(times, 14, 4, 200.0), vein, np.full(times.size, 6.0), 0.5, 6.0, end
    )


def sentence(name, figure):
    (check,) = (each for each in quality.CHECKS if each.name == name)
    return quality.judge(check, figure)


def test_curves_are_measured_as_drawn():
    assert measure() == pytest.approx(
        {
            'aif_peak': 200, 'aif_width': 8, 'scan_after_peak': 46, 'contrast_to_noise': 12,
            'vof_end': 0, 'vof_width': 12, 'aif_area': 200 * 8 / (300 * 12),
            'scan_reserve': 60 - 6 - 1.6 * 12,
        },
        rel=1e-6,
    )  # fmt: skip


def test_width_does_not_depend_on_the_frame_interval():
    for step in (0.5, 2.0):
        assert measure(step=step)['vof_width'] == pytest.approx(12, rel=0.01)


def test_a_cut_scan_shows_in_height_time_and_reserve():
    cut = measure(end=26.0)
    assert cut['vof_end'] > 0.8
    assert cut['scan_after_peak'] == 12
    assert 'scan_reserve' not in cut  # the width of the VOF is not known
    assert measure(end=32.0)['scan_reserve'] == pytest.approx(32 - 6 - 1.6 * 12)


@pytest.mark.parametrize(
    ('name', 'figure'), [('scan_after_peak', 12), ('scan_reserve', -3), ('vof_end', 0.9)]
)
def test_a_cut_scan_is_told_with_the_direction_of_the_error(name, figure):
    status, text = sentence(name, figure)
    assert status in ('warn', 'fail')
    assert 'over-read' in text
    assert 'CBV and MTT read low' in text
    assert sentence(name, measure()[name])[0] == 'pass'


def test_without_a_vof_its_figures_are_not_available():
    assert set(measure(vof=False)) == ENDS
    row = quality.grade(measure(vof=False))
    assert row['vof_end_status'] == row['aif_area_status'] == row['scan_reserve_status'] == 'n/a'


def test_maps_made_elsewhere_have_no_arrival_and_no_reserve():
    times = np.arange(60.0)
    curve = triangle(times, 14, 4, 200.0)
    found = quality.curve_figures(times, curve, curve, curve, None, None, None)
    assert 'scan_reserve' not in found
    assert found['vof_width'] == pytest.approx(8)


def test_every_check_fails_only_beyond_its_warning():
    for check in quality.CHECKS:
        sign = -1 if check.low_is_bad else 1
        assert sign * check.fail > sign * check.warn, check.name
