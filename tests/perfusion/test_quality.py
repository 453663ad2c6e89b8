# SPDX-License-Identifier: Apache-2.0
"""Figures of the vessels' curves, and in which direction a cut scan errs."""

import numpy as np
import pytest

from ctpprep.interfaces import wording
from ctpprep.perfusion import quality

WITHOUT_VOF = {
    'aif_peak', 'aif_width', 'aif_explained', 'aif_before', 'aif_undershoot', 'tissue_lag',
    'scan_after_peak', 'contrast_to_noise',
}  # fmt: skip


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
    (check,) = (check for check in quality.CHECKS if check.name == name)
    status = quality.judge(check, figure)
    return status, wording.describe(check, figure, status)


def grade(figures):
    return wording.tabulate_checks(figures, quality.CHECKS)


def test_curves_are_measured_as_drawn():
    shape = {'aif_explained', 'aif_before', 'aif_undershoot', 'tissue_lag'}
    figures = {name: figure for name, figure in measure().items() if name not in shape}
    assert figures == pytest.approx(
        {
            'aif_peak': 200, 'aif_width': 8, 'scan_after_peak': 46, 'contrast_to_noise': 12,
            'vof_end': 0, 'vof_width': 12, 'vof_lag': 10, 'aif_area': 200 * 8 / (300 * 12),
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
    assert set(measure(vof=False)) == WITHOUT_VOF
    row = grade(measure(vof=False))
    assert row['vof_end_status'] == row['aif_area_status'] == row['scan_reserve_status'] == 'n/a'


def test_maps_made_elsewhere_have_no_arrival_and_no_reserve():
    times = np.arange(60.0)
    curve = triangle(times, 14, 4, 200.0)
    found = quality.curve_figures(times, curve, curve, curve, None, None, None)
    assert 'scan_reserve' not in found
    assert found['vof_width'] == pytest.approx(8)


def test_asymmetry_is_compared_where_both_sides_are_in_the_slab():
    left = np.arange(10) < 6
    hemisphere = np.where(left, 1, 2)
    tissue = np.ones(10, bool)
    found = quality.asymmetry(tissue, hemisphere, ~left | (np.arange(10) < 4))
    assert found == pytest.approx({'brain_asymmetry': 0, 'coverage_asymmetry': 1 / 3})
    lost = quality.asymmetry(tissue & ~(np.arange(10) > 7), hemisphere, tissue)
    assert lost == pytest.approx({'brain_asymmetry': 1, 'coverage_asymmetry': 0})
    alone = quality.asymmetry(left, hemisphere, tissue)
    assert np.isnan(alone['brain_asymmetry'])


def test_share_of_the_healthy_side_looks_at_the_other_side_only():
    hemisphere = np.repeat([1, 2], 5)
    diseased = hemisphere == 1
    for affected, expected in (('left', 0.0), ('right', 1.0)):
        share = quality.healthy_side_share(diseased, np.ones(10, bool), hemisphere, affected)
        assert share == expected


def test_cores_too_small_to_be_measured_have_no_relative_difference():
    assert quality.core_figures(9.0, 0.0)['core_disagreement_share'] is None
    assert quality.core_figures(5.0, 20.0)['core_disagreement_share'] == 0.75


@pytest.mark.parametrize('name', quality.BILATERAL)
def test_disease_on_both_sides_by_time_or_by_flow_is_cautioned(name):
    assert grade({name: 0.0})['caution'] is None
    for figure in (0.07, 0.3):  # both warn or fail
        row = grade({name: figure})
        assert 'the global map must be read' in row['caution']
        assert f'{100 * figure:.3g} %' in row['caution']


def test_sentence_has_number_and_limit_whatever_the_grade():
    assert sentence('coverage', 80.0) == (
        'pass', 'extent of tissue from feet to head: 80 mm (at least 50 mm expected)'
    )  # fmt: skip
    assert '4 % (at most 1 % expected)' in sentence('healthy_side_low_flow', 0.04)[1]


def test_titles_are_words_and_differ():
    titles = [words.title for words in wording.WORDING.values()]
    assert len(set(titles)) == len(titles)
    assert not any('_' in title for title in titles)


def test_every_check_fails_only_beyond_its_warning():
    for check in quality.CHECKS:
        sign = -1 if check.low_is_bad else 1
        assert sign * check.fail > sign * check.warn, check.name


def test_every_check_has_words():
    assert list(wording.WORDING) == [check.name for check in quality.CHECKS]
