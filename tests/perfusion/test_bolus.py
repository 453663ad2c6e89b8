# SPDX-License-Identifier: Apache-2.0
"""The bolus is found wherever it comes, and its absence is said."""

import numpy as np
import pytest

from ctpprep.exceptions import BolusError
from ctpprep.perfusion import bolus

RNG = np.random.default_rng(3)


@pytest.mark.parametrize('step', [1.0, 1.5, 2.6])
@pytest.mark.parametrize('arrival', [4.0, 6.0, 8.0, 12.0, 18.0])
def test_baseline_ends_when_contrast_arrives(artery, step, arrival):
    times = np.arange(0, 50, step)
    curve = 40 + artery(times, arrival) + np.random.default_rng(1).normal(0, 0.5, len(times))
    n_baseline, found = bolus.find_arrival(curve, times)
    assert artery(times, arrival)[:n_baseline].max() < 0.08 * 300
    # no more than two clean frames are given away
    assert n_baseline >= (times <= arrival).sum() - 2
    assert arrival <= found + 0.2
    assert found < arrival + 2.0


def test_a_later_bolus_arrives_later_by_as_much(artery):
    times = np.arange(0, 50, 1.5)
    first, second = (bolus.find_arrival(40 + artery(times, at), times)[1] for at in (8.0, 11.0))
    assert second - first == pytest.approx(3.0, abs=1e-6)


def test_a_series_without_contrast_has_no_bolus():
    times = np.arange(27) * 1.5
    with pytest.raises(
        BolusError, match=r'no contrast bolus: .* rise by \d+ HU .* at least \d+ HU'
    ):
        bolus.find_arrival(40 + RNG.normal(0, 2, 27), times)


def test_a_small_rise_out_of_quiet_frames_is_no_bolus(artery):
    times = np.arange(27) * 1.5
    with pytest.raises(BolusError, match='by 9 HU'):
        bolus.find_arrival(40 + artery(times, 8.0, peak=9.2), times)


def test_contrast_in_the_first_frame_is_refused(artery):
    times = np.arange(27) * 1.5
    with pytest.raises(BolusError):
        bolus.find_arrival(40 + artery(times, -3.0), times)


def test_baseline_leaves_out_rejected_and_missing_frames():
    ctp = np.array([[10.0, 20, 999, 60, 500], [np.nan, 20, 999, 40, 500], [np.nan] * 5])
    found = bolus.baseline(ctp, 4, [1, 1, 0, 1, 1])
    np.testing.assert_array_equal(found, [30, 30, np.nan])


def test_no_usable_frame_before_contrast_is_an_error():
    with pytest.raises(
        BolusError, match='first 2 frames were rejected for motion, need at least one'
    ):
        bolus.baseline(np.zeros((2, 5)), 2, [0, 0, 1, 1, 1])


def test_missing_voxels_count_in_usable_frames_only():
    ctp = np.zeros((1, 1, 3, 4))
    ctp[0, 0, 1, :2] = np.nan
    ctp[0, 0, 2, 3] = np.nan
    np.testing.assert_array_equal(bolus.find_missing(ctp, [1, 1, 1, 0])[0, 0], [0, 2, 0])


def test_first_pass_is_the_curve_of_the_vessels(artery):
    times = np.arange(27) * 1.5
    ctp = 40 + RNG.normal(0, 2, (10, 10, 5, 27))
    ctp[4, 3:6] += artery(times)
    found = bolus.first_pass(ctp, np.ones((10, 10, 5), bool), np.ones(27), times)
    assert np.abs(found - 40 - artery(times)).max() < 5


def test_first_pass_bridges_a_rejected_frame(artery):
    times = np.arange(27) * 1.5
    ctp = np.zeros((10, 10, 1, 27)) + 40
    ctp[4, 4] += artery(times)
    weights = np.ones(27)
    weights[12] = 0
    ctp[..., 12] = np.nan
    found = bolus.first_pass(ctp, np.ones((10, 10, 1), bool), weights, times)
    assert found[12] == pytest.approx((found[11] + found[13]) / 2)


def test_peak_is_the_greatest_mean_of_three_usable_frames():
    ctp = np.full((2, 1, 1, 8), 40.0)
    ctp[..., 2:5] += [10, 20, 30]
    ctp[..., 6] = 1000
    weights = np.ones(8)
    weights[6] = 0
    mask = np.array([True, False]).reshape(2, 1, 1)
    found = bolus.peak_enhancement(ctp, np.full((2, 1, 1), 40.0), mask, weights)
    np.testing.assert_allclose(found.ravel(), [20, 0])


def test_arrival_in_a_head_follows_the_true_aif(head, found):
    onset = head.times_fine[np.argmax(head.aif > 0.02 * head.aif.max())]
    assert onset - 0.5 < found.arrival < onset + 2.5
    assert found.n_baseline >= 4


# -- the curves that are averaged

TIMES = np.arange(27) * 1.5


def crowd(*groups, noise_hu=4.0):
    """Series of 2000 voxels at 40 HU; each group is a number of voxels and their enhancement."""
    curves = 40 + np.random.default_rng(0).normal(0, noise_hu, (2000, 27))
    start = 0
    for count, curve in groups:
        curves[start : start + count] += curve
        start += count
    return curves.reshape(20, 20, 5, 27)


def first_pass(ctp, damage=None):
    return bolus.first_pass(ctp, np.ones(ctp.shape[:3], bool), np.ones(27), TIMES, damage)


@pytest.mark.parametrize('frame', [6, 9, 13, 18])
def test_bone_that_moves_in_does_not_bring_contrast(artery, frame):
    """Twice as many steps as arteries, and twice as high: a cut, wide bolus explains a late step."""
    bone = np.where(np.arange(27) >= frame, 600.0, 0)
    found = first_pass(crowd((20, artery(TIMES)), (40, bone)))
    assert np.corrcoef(found, artery(TIMES))[0, 1] > 0.99


def test_voxels_that_motion_changes_do_not_bring_contrast(artery):
    """Bone that comes and goes looks like a bolus, but changes less than its damage explains."""
    passing = artery(TIMES, arrival=1.0, peak=400)
    ctp = crowd((40, passing), (20, artery(TIMES, arrival=10)))
    damage = np.zeros(2000)
    damage[:40] = 100
    found = first_pass(ctp, damage.reshape(ctp.shape[:3]))
    assert np.corrcoef(found, artery(TIMES, arrival=10))[0, 1] > 0.99


def test_earliest_artery_is_found_among_later_and_higher_veins(artery):
    vein = artery(TIMES, arrival=13, peak=450)
    found = first_pass(crowd((20, artery(TIMES, arrival=7, peak=300)), (13, vein)))
    assert TIMES[np.argmax(found)] == pytest.approx(12, abs=1.5)


def test_mean_curve_is_used_where_no_vessel_enhances(artery):
    """A slab of few or calcified arteries still shows when tissue enhances."""
    found = first_pass(crowd((2000, artery(TIMES, peak=6.0)), noise_hu=3.0))
    assert np.abs(found - 40 - artery(TIMES, peak=6.0)).max() < 0.5


def test_noise_has_no_first_pass():
    with pytest.raises(BolusError, match='need 12, and a bolus explains'):
        first_pass(crowd())
