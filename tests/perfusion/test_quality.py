# SPDX-License-Identifier: Apache-2.0
"""Figures of the vessels' curves, and in which direction a cut scan errs."""

import re

import numpy as np
import pytest

from ctpprep.cli.parser import make_parser
from ctpprep.interfaces import wording
from ctpprep.perfusion import quality
from ctpprep.settings import MethodSettings

WITHOUT_VOF = {
    'aif_peak', 'aif_width', 'aif_over_tissue', 'aif_explained', 'aif_before', 'aif_undershoot', 'tissue_lag',
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
            'aif_peak': 200, 'aif_width': 8, 'aif_over_tissue': 200 / 6, 'scan_after_peak': 46,
            'contrast_to_noise': 12,
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
    assert 'overestimated' in text
    assert 'CBV and MTT are underestimated' in text
    assert sentence(name, measure()[name])[0] == 'pass'


def test_without_a_vof_its_figures_are_not_available():
    assert set(measure(vof=False)) == WITHOUT_VOF
    row = grade(measure(vof=False))
    assert row['vof_end_status'] == row['aif_area_status'] == row['scan_reserve_status'] == 'n/a'


# -- curves that are not those of vessels

TIMES = np.arange(0, 60, 1.5)


def gamma_variate(onset=8.0, to_peak=5.0, peak=200.0):
    s = np.clip((TIMES - onset) / to_peak, 0, None)
    return peak * (s * np.exp(1 - s)) ** 3


def figures_of(aif=None, vof=None, tissue=None):
    """Figures of an artery, a vein 4 s and tissue 1 s later, or of what replaces one of them."""
    curves = (
        gamma_variate() if aif is None else aif,
        gamma_variate(12.0, 6.0, 250.0) if vof is None else vof,
        gamma_variate(9.0, 6.0, 8.0) if tissue is None else tissue,
    )
    return quality.curve_figures(TIMES, *curves, 0.5, 8.0, 58.5)


def fails(figures):
    checks = (check for check in quality.CHECKS if check.name in figures)
    return {check.name for check in checks if quality.judge(check, figures[check.name]) == 'fail'}


def test_vessels_of_a_plain_scan_fail_nothing():
    row = grade(figures_of())
    for name in (
        'aif_explained',
        'aif_over_tissue',
        'aif_before',
        'aif_undershoot',
        'tissue_lag',
        'vof_lag',
    ):
        assert row[f'{name}_status'] == 'pass', name


def test_aif_of_moving_bone_fails_by_its_shape():
    bone = np.where((TIMES > 12) & (TIMES < 40), 400.0, 0)
    assert 'aif_explained' in fails(figures_of(aif=bone + 30 * np.sin(TIMES)))


def test_wide_aif_does_not_fail():
    """Of 93 clinical boluses the widest took 27.7 s."""
    figures = figures_of(aif=gamma_variate(6.0, 27 / 1.404))
    assert figures['aif_width'] == pytest.approx(27, abs=1)
    assert not fails(figures) & {'aif_width', 'aif_explained'}


def test_contrast_in_the_baseline_is_seen_before_the_bolus():
    restless = np.where(TIMES < 8, 30.0 * (-1.0) ** np.arange(TIMES.size), 0)
    figures = figures_of(aif=gamma_variate() + restless)
    assert figures['aif_before'] == pytest.approx(30 / 200, rel=0.1)
    assert 'aif_before' in fails(figures)


def test_aif_that_falls_below_its_baseline_fails():
    figures = figures_of(aif=gamma_variate() - np.where(TIMES > 30, 60.0, 0))
    assert figures['aif_undershoot'] == pytest.approx(60 / 200, rel=0.05)
    assert 'aif_undershoot' in fails(figures)


def test_vein_in_place_of_the_artery_fails_by_tissue_that_comes_first():
    figures = figures_of(aif=gamma_variate(12.0, 6.0, 250.0))
    assert figures['tissue_lag'] < -1
    assert 'tissue_lag' in fails(figures)


def test_aif_that_is_largely_tissue_fails():
    figures = figures_of(aif=gamma_variate(peak=40.0))
    assert figures['aif_over_tissue'] == pytest.approx(5, rel=0.05)
    assert 'aif_over_tissue' in fails(figures)


@pytest.mark.parametrize(
    ('reading', 'noise', 'expected'),
    [(0.18, 2.0, 'pass'), (0.22, 6.0, 'warn'), (0.31, 2.0, 'fail'), (None, 2.0, 'n/a')],
)
def test_core_that_reads_above_the_threshold_is_graded(reading, noise, expected):
    measured = {'noise_raw_hu': 4.0, 'core_reading': reading, 'cbf_noise': noise}
    figures = quality.noise_figures(measured, 50.0, 0.3)
    assert figures['noise_raw'] == 4
    assert status('core_missed', figures['core_missed']) == expected


def test_artery_in_place_of_the_vein_fails_by_its_time():
    assert figures_of()['vof_lag'] == pytest.approx(5, abs=1.5)
    figures = figures_of(vof=gamma_variate(7.0, 5.0, 250.0))
    assert figures['vof_lag'] < 0
    assert figures_of(vof=gamma_variate(8.0))['vof_lag'] == 0
    assert 'vof_lag' in fails(figures)


# -- density, drift, skull and mirror


def status(name, figure):
    (check,) = (check for check in quality.CHECKS if check.name == name)
    return quality.judge(check, figure)


@pytest.mark.parametrize(
    ('density', 'expected'),
    [(33, 'pass'), (15, 'warn'), (-5, 'fail'), (60, 'warn'), (75, 'fail')],
)
def test_density_of_brain_is_graded_in_both_directions(density, expected):
    brain = np.zeros((40, 40, 4), bool)
    brain[5:35, 5:35] = True
    figures = quality.density_figures(np.where(brain, density, -1000.0), brain, (2, 2, 5))
    assert figures['brain_density'] == pytest.approx(density, abs=0.5)
    assert status('brain_density', figures['brain_density']) == expected


def test_density_of_no_brain_is_not_available():
    nothing = np.zeros((9, 9, 2), bool)
    assert quality.density_figures(np.zeros((9, 9, 2)), nothing, (2, 2, 5)) == {}


@pytest.mark.parametrize(('gap_mm', 'expected'), [(0.0, 'pass'), (45.0, 'warn'), (140.0, 'fail')])
def test_bone_that_is_missing_is_graded(gap_mm, expected):
    x, y = np.meshgrid(np.arange(-45, 46) * 2.0, np.arange(-45, 46) * 2.0, indexing='ij')
    radius = np.hypot(x, y)
    bone = (radius > 66) & (radius < 76) & ~((np.abs(x) < gap_mm / 2) & (y > 0))
    head = np.select([bone, radius < 84], [900.0, 34.0], -1000.0)
    head, brain = (np.repeat(each[..., None], 6, axis=2) for each in (head, radius < 66))
    figures = quality.density_figures(head, brain, (2.0, 2.0, 5.0))
    assert status('skull_gap', figures['skull_gap']) == expected


@pytest.mark.parametrize(
    ('left', 'expected'), [(0.4, 'pass'), (2.0, 'warn'), (5.0, 'fail'), (None, 'n/a')]
)
def test_drift_that_remains_is_graded(left, expected):
    figures = quality.drift_figures({'corrected_hu': 0.0, 'left_hu': left})
    assert status('drift', figures['drift']) == expected


def test_checks_of_the_mirror_fail_where_local_maps_are_withheld():
    symmetry = MethodSettings.of(
        mirror_most_mm=2.0, map_least_similarity=0.7, mirror_most_folding=0.02
    ).symmetry
    checks = {check.name: check for check in quality.checks_of(symmetry)}
    # a warning never comes after the failure
    assert checks['mirror_distance'].high == (2.0, 2.0)
    assert checks['mirror_similarity'].low == (0.7, 0.7)
    assert checks['mirror_folding'].high == (0.002, 0.02)
    assert [*checks] == [check.name for check in quality.CHECKS]


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
    for figure in (0.07, 0.3):  # beyond the limits
        row = grade({name: figure})
        assert 'read the global map' in row['caution']
        assert f'{100 * figure:.3g} %' in row['caution']


def test_sentence_has_number_and_limit_whatever_the_grade():
    assert sentence('coverage', 80.0) == (
        'pass', 'extent of tissue from feet to head: 80 mm (at least 50 mm expected)'
    )  # fmt: skip
    assert '4 % (at most 3 % expected)' in sentence('healthy_side_low_flow', 0.04)[1]


def test_titles_are_words_and_differ():
    titles = [words.title for words in wording.WORDING.values()]
    assert len(set(titles)) == len(titles)
    assert not any('_' in title for title in titles)


def test_every_check_fails_only_beyond_its_warning():
    for check in quality.CHECKS:
        assert check.low or check.high, check.name
        assert check.low is None or check.low[1] < check.low[0], check.name
        assert check.high is None or check.high[1] > check.high[0], check.name


def test_check_with_two_limits_names_both():
    assert '(at least 20 HU and at most 46 HU expected)' in sentence('brain_density', 33.0)[1]


def test_check_without_a_limit_of_failure_only_warns():
    assert sentence('old_infarct', 200.0)[0] == 'warn'


def test_options_that_advice_names_exist():
    options = make_parser()._option_string_actions
    advice = ' '.join(words.advice for words in wording.WORDING.values())
    assert set(re.findall('--[a-z-]+', advice)) <= set(options)


def test_every_check_has_words():
    assert list(wording.WORDING) == [check.name for check in quality.CHECKS]


# -- what a core reads


def test_core_that_reads_the_threshold_is_missed_by_half():
    def missed(reading, noise, threshold=0.3):
        measured = {'core_reading': reading, 'cbf_noise': noise}
        return quality.noise_figures(measured, 50.0, threshold)['core_missed']

    assert missed(0.3, 2.0) == pytest.approx(0.5)
    assert missed(0.2, 5.0) == pytest.approx(0.1587, abs=1e-3)  # one standard deviation
    assert missed(0.2, 5.0) < missed(0.2, 8.0)
    assert missed(0.2, 5.0, threshold=0.2) == pytest.approx(0.5)
    assert quality.noise_figures({'core_reading': 0.2}, 50.0, 0.3)['core_missed'] is None


def test_an_aif_that_is_largely_tissue_fails():
    assert 'aif_over_tissue' in fails(figures_of(tissue=gamma_variate(9.0, 6.0, 40.0)))
    assert 'aif_over_tissue' not in fails(figures_of())


@pytest.mark.parametrize(
    ('grades', 'word'),
    [
        ({'drift': 'pass', 'vof_lag': 'n/a'}, 'usable'),
        ({'drift': 'pass', 'coverage': 'warn'}, 'look first'),
        ({'mirror_distance': 'fail', 'coverage': 'warn'}, 'look first'),
        ({'tmax_spread': 'fail'}, 'do not use'),
        ({'unknown_check': 'fail'}, 'do not use'),
    ],
)
def test_verdict_follows_the_gravest_check(grades, word):
    assert quality.conclude(grades).word == word


def test_every_check_with_a_narrow_concern_exists():
    assert set(quality.CONCERNED) <= {check.name for check in quality.CHECKS}


# -- vessels before the bolus


@pytest.mark.parametrize(('blood_hu', 'grade'), [(45.0, 'pass'), (90.0, 'warn')])
def test_contrast_of_an_earlier_injection_is_named(blood_hu, grade):
    brain_mask = np.zeros((40, 40, 4), bool)
    brain_mask[8:32, 8:32] = True
    vessel = np.zeros_like(brain_mask)
    vessel[20, 20] = True
    reference = np.where(brain_mask, 34.0, -1000.0)
    reference[vessel] = blood_hu
    figures = quality.density_figures(reference, brain_mask, (4.0, 4.0, 8.0), (vessel,))
    (check,) = (check for check in quality.CHECKS if check.name == 'contrast_before')
    assert figures['contrast_before'] == pytest.approx(blood_hu - 34, abs=1)
    assert quality.judge(check, figures['contrast_before']) == grade


# -- supplied AIFs


def bolus(width, arrival=8.0):
    times = np.arange(0, 50, 1.5)
    return times, np.clip((times - arrival) / width, 0, None) ** 3 * np.exp(
        -np.clip((times - arrival) / width, 0, None)
    )


def test_aif_of_another_artery_is_like_the_one_found():
    times, found = bolus(1.6)
    _, delayed = bolus(1.6, arrival=9.5)
    assert quality.curve_likeness(times, 0.4 * delayed, found) > 0.99


@pytest.mark.parametrize(('width', 'arrival'), [(3.2, 8.0), (1.6, 13.0)])
def test_aif_of_another_bolus_warns(width, arrival):
    times, found = bolus(1.6)
    likeness = quality.curve_likeness(times, bolus(width, arrival)[1], found)
    (check,) = (check for check in quality.CHECKS if check.name == 'aif_likeness')
    # the automatic AIF may be the wrong one
    assert quality.judge(check, likeness) == 'warn'
