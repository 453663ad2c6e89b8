# SPDX-License-Identifier: Apache-2.0
"""Maps: units, invariants, and what must not matter."""

import numpy as np
import pytest

from ctpprep.perfusion import deconvolution, maps
from ctpprep.settings import MethodSettings

TIMES = np.arange(40) * 1.5
METHOD = MethodSettings.of(lambda_rel=0.12).as_dict()
STAGE = METHOD['deconvolution']
CONSTANTS = METHOD['kinetics']
OPERATOR = {
    name: STAGE[name]
    for name in (
        'penalty_order', 'lambda_rel', 'residue_step', 'residue_lead', 'calibration_mtt'
    )
}  # fmt: skip


@pytest.fixture
def compute(artery):
    def run(curves, weights=None, scale=1.0, times=TIMES, share=None, excess=0.0):
        weights = np.ones(len(times)) if weights is None else weights
        aif = scale * artery(TIMES)
        operator = deconvolution.deconvolution_operator(TIMES, aif, times, weights, **OPERATOR)
        smoother = deconvolution.deconvolution_operator(
            TIMES, aif, times, weights,
            **OPERATOR | {'lambda_rel': OPERATOR['lambda_rel'] * STAGE['tmax_lambda_ratio']},
        )  # fmt: skip
        curves = np.atleast_2d(curves)
        share = np.ones(len(curves)) if share is None else share
        return maps.perfusion_maps(
            curves, times, weights, operator, smoother, np.trapezoid(aif, TIMES), share,
            **CONSTANTS, scan_start=TIMES[0], tmax_offset=smoother.tmax_offset,
            excess=excess,
        )  # fmt: skip

    return run


def test_flow_and_volume_come_in_ml_per_100_g():
    # 60 mL/100 g/min are 0.01 mL/g/s; the plasma of 1 mL of tissue sees rho / k_H of it
    height = 0.01 * 1.04 / 0.733
    assert maps.flow(height, **CONSTANTS) == pytest.approx(60)
    # after 4 s of transit 4 mL/100 g
    assert maps.blood_volume(height * 4, 1.0, **CONSTANTS) == pytest.approx(4)


def test_blood_volume_is_flow_times_transit_time(compute, tissue):
    curves = np.stack([tissue(TIMES, 60, 4.0), tissue(TIMES, 20, 6.0), tissue(TIMES, 20, 4.0, 3)])
    np.testing.assert_allclose(
        compute(curves)['cbv'], [60 * 4 / 60, 20 * 6 / 60, 20 * 4 / 60], rtol=0.01
    )


def test_delay_shifts_tmax_and_leaves_flow(compute, tissue):
    late, later = 1.0, 5.0
    found = compute(np.stack([tissue(TIMES, delay=delay) for delay in (late, later)]))
    assert found['tmax'][1] - found['tmax'][0] == pytest.approx(later - late, abs=0.1)
    assert found['cbf'][1] == pytest.approx(found['cbf'][0], rel=0.015)
    assert found['ttp'][1] - found['ttp'][0] == pytest.approx(later - late, abs=0.5)


def test_tmax_of_normal_tissue_without_delay_is_0(compute, tissue):
    assert compute(tissue(TIMES, mtt=STAGE['calibration_mtt']))['tmax'][0] < 0.06


def test_transit_time_is_the_ratio_of_the_maps(compute, tissue):
    found = compute(np.stack([tissue(TIMES, 60, 4.0), tissue(TIMES, 25, 6.0)]))
    np.testing.assert_allclose(found['mtt'], 60 * found['cbv'] / found['cbf'], rtol=1e-5)


def test_flow_is_inverse_to_the_artery(compute, tissue):
    first, second = compute(tissue(TIMES)), compute(tissue(TIMES), scale=2.0)
    for name in ('cbf', 'cbv'):
        assert second[name][0] == pytest.approx(first[name][0] / 2, rel=1e-5)
    for name in ('mtt', 'tmax', 'ttp'):
        assert second[name][0] == pytest.approx(first[name][0], rel=1e-4)


@pytest.mark.parametrize('nonsense', [-1000.0, 0.0, 1e5])
def test_a_rejected_frame_does_not_matter_whatever_it_holds(compute, tissue, nonsense):
    weights = np.ones(40)
    weights[[3, 11, 39]] = 0
    clean = tissue(TIMES, delay=2.0)
    spoilt = np.where(weights > 0, clean, nonsense)
    expected, found = compute(clean, weights), compute(spoilt, weights)
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5)


def test_losing_a_frame_changes_little(compute, tissue):
    weights = np.ones(40)
    weights[9] = 0
    all_frames, fewer = compute(tissue(TIMES)), compute(tissue(TIMES), weights)
    for name in ('cbf', 'cbv', 'mtt'):
        assert fewer[name][0] == pytest.approx(all_frames[name][0], rel=0.04)


def test_slices_of_another_sampling_pattern_give_the_same_maps(compute, tissue):
    found = [
        compute(np.stack([tissue(times, delay=d) for d in (0.5, 2.0, 6.0)]), times=times)
        for times in (TIMES, TIMES + 0.75)
    ]
    for name, tolerance in (('cbf', 0.003), ('cbv', 0.005), ('mtt', 0.006)):
        np.testing.assert_allclose(found[1][name], found[0][name], rtol=tolerance)
    np.testing.assert_allclose(found[1]['tmax'], found[0]['tmax'], atol=0.06)
    np.testing.assert_allclose(found[1]['ttp'], found[0]['ttp'], atol=0.6)


def test_time_to_peak_is_counted_from_the_start_of_the_scan(compute, tissue):
    late = TIMES[4:]
    first, second = compute(tissue(TIMES)), compute(tissue(late), times=late)
    assert first['ttp'][0] == pytest.approx(second['ttp'][0], abs=1e-3)


def test_time_to_peak_lies_between_the_samples():
    times = np.arange(10) * 2.0
    curve = np.maximum(0, 10 - np.abs(times - 9.0))
    found = maps.time_to_peak(curve[None], times, np.ones(10))[0]
    assert 8.0 < found < 10.0


def test_time_to_peak_ignores_a_rejected_spike(artery):
    curve = artery(TIMES)
    curve[20] = 1000
    weights = np.ones(40)
    weights[20] = 0
    assert maps.time_to_peak(curve[None], TIMES, weights)[0] == pytest.approx(13, abs=0.75)


def test_tissue_without_flow_has_empty_maps(compute):
    found = compute(np.zeros((2, 40)))
    for name in ('cbf', 'cbv', 'mtt'):
        assert not found[name].any()


def test_no_map_is_negative(compute):
    noise = np.random.default_rng(0).normal(0, 5, (200, 40))
    for name, values in compute(noise).items():
        assert name == 'cbf_time' or values.min() >= 0, name


def test_chunks_do_not_show(compute, tissue, monkeypatch):
    # real curves: among those of noise alone, peaks as high as one another would be a toss-up
    curves = np.stack([tissue(TIMES, flow, 4.0, flow / 20) for flow in range(10, 60, 5)])
    curves += np.random.default_rng(0).normal(0, 0.1, curves.shape)
    whole = compute(curves)
    monkeypatch.setattr(maps, 'CHUNK', 3)
    for name, values in compute(curves).items():
        np.testing.assert_allclose(values, whole[name], rtol=1e-4, atol=1e-4)


def test_area_agrees_with_the_trapezoid_of_the_usable_frames():
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.uniform(0.5, 3, 20))
    weights = (rng.random(20) > 0.3).astype(float)
    curve = rng.normal(size=20)
    used = weights > 0
    assert maps.trapezoid_weights(times, weights) @ curve == pytest.approx(
        np.trapezoid(curve[used], times[used])
    )


def test_flow_and_volume_are_those_of_the_tissue_in_the_voxel(compute, tissue):
    whole = compute(tissue(TIMES))
    half = compute(0.5 * tissue(TIMES), share=np.array([0.5]))
    for name in whole:
        np.testing.assert_allclose(half[name], whole[name], rtol=1e-5)


def test_what_noise_adds_is_taken_from_flow_before_transit_time_is_formed(compute, tissue):
    curves = np.stack([tissue(TIMES, 60, 4.0), tissue(TIMES, 3, 4.0)])
    raw, found = compute(curves), compute(curves, excess=np.array([0.001, 0.001]))
    less = maps.flow(0.001, **CONSTANTS)
    np.testing.assert_allclose(found['cbf'], np.maximum(raw['cbf'] - less, 0), rtol=1e-4)
    assert found['cbf'][1] == 0
    assert found['mtt'][1] == 0
    assert found['mtt'][0] == pytest.approx(60 * found['cbv'][0] / found['cbf'][0], rel=1e-4)
    np.testing.assert_array_equal(found['tmax'], raw['tmax'])
