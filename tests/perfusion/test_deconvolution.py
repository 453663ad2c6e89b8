# SPDX-License-Identifier: Apache-2.0
"""Deconvolution: invariants first, then slow second implementations."""

import numpy as np
import pytest
from scipy import integrate

from ctpprep.perfusion import deconvolution
from ctpprep.perfusion.kinetics import interpolate_input
from ctpprep.settings import MethodSettings

TIMES = np.arange(27) * 1.5
ONES = np.ones(27)
# about what cross-validation chooses on heads
DEFAULTS = {
    name: value
    for name, value in MethodSettings.of(lambda_rel=0.12).as_dict()['deconvolution'].items()
    if name in (
        'penalty_order', 'lambda_rel', 'residue_step', 'residue_lead', 'calibration_mtt'
    )
}  # fmt: skip


@pytest.fixture
def solve(artery):
    """Make an operator, with the default settings unless told otherwise."""

    def make(times=TIMES, weights=None, scale=1.0, aif_times=TIMES, **changes):
        weights = np.ones(len(times)) if weights is None else weights
        return deconvolution.deconvolution_operator(
            aif_times, scale * artery(aif_times), times, weights, **DEFAULTS | changes
        )

    return make


def measure(operator, curves):
    return deconvolution.residue_peak(curves @ operator.matrix.T, operator.tau)


def test_delay_shifts_tmax_and_leaves_flow(solve, tissue):
    delays = np.arange(0, 6.01, 0.25)
    flow, tmax = measure(solve(), np.stack([tissue(TIMES, delay=delay) for delay in delays]))
    assert np.abs(tmax - tmax[0] - delays).max() < 0.1
    assert np.abs(flow / flow.mean() - 1).max() < 0.01


def test_tissue_may_lead_the_artery(solve, tissue):
    flow, tmax = measure(solve(), np.stack([tissue(TIMES, delay=delay) for delay in (0, -1.0)]))
    assert flow[1] == pytest.approx(flow[0], rel=0.02)
    assert tmax[0] - tmax[1] == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize('offset', [0.3, 0.75, 1.1])
def test_slices_of_another_sampling_pattern_measure_the_same(solve, tissue, offset):
    delays = (0.0, 1.0, 3.5, 6.0)
    first, second = (
        measure(solve(times), np.stack([tissue(times, delay=delay) for delay in delays]))
        for times in (TIMES, TIMES + offset)
    )
    np.testing.assert_allclose(second[0], first[0], rtol=0.003)
    np.testing.assert_allclose(second[1], first[1], atol=0.05)


def test_uneven_frames_measure_the_same(solve, tissue):
    uneven = np.r_[np.arange(18) * 1.5, 25.5 + 3.0 * np.arange(1, 6)]
    delays = (0.0, 2.0, 4.0)
    first, second = (
        measure(solve(times, aif_times=times), np.stack([tissue(times, delay=d) for d in delays]))
        for times in (TIMES, uneven)
    )
    np.testing.assert_allclose(second[0], first[0], rtol=0.02)
    np.testing.assert_allclose(second[1], first[1], atol=0.15)


def test_flow_is_inverse_to_the_artery(solve):
    np.testing.assert_allclose(solve(scale=2.5).matrix, solve().matrix / 2.5, atol=1e-14)


def test_more_flow_reads_higher_in_proportion(solve, tissue):
    flow, tmax = measure(solve(), np.stack([tissue(TIMES, cbf) for cbf in (10, 20, 60)]))
    np.testing.assert_allclose(flow / flow[0], [1, 2, 6], rtol=1e-6)
    np.testing.assert_allclose(tmax, tmax[0], atol=1e-6)


def test_a_frame_of_weight_0_is_not_looked_at(solve):
    weights = ONES.copy()
    weights[[4, 12]] = 0
    operator = solve(weights=weights)
    assert not operator.matrix[:, [4, 12]].any()
    used = weights > 0
    without = solve(times=TIMES[used])
    np.testing.assert_allclose(operator.matrix[:, used], without.matrix, atol=1e-12)


def test_a_doubled_weight_is_a_frame_seen_twice(solve):
    weights = ONES.copy()
    weights[10] = 2
    doubled = solve(weights=weights).matrix
    twice = solve(times=np.insert(TIMES, 10, TIMES[10])).matrix
    np.testing.assert_allclose(doubled[:, 10], twice[:, 10] + twice[:, 11], atol=1e-12)


def test_calibration_tissue_without_delay_has_the_tmax_of_the_offset(solve, tissue):
    operator = solve(calibration_mtt=5.0)
    _, tmax = measure(operator, tissue(TIMES, mtt=5.0))
    assert tmax == pytest.approx(operator.tmax_offset, abs=0.06)


def test_weak_regularization_finds_the_flow_again(solve, tissue):
    # finely sampled and free of noise, the truth is known
    times = np.arange(0, 45, 0.25)
    operator = solve(times, aif_times=times, lambda_rel=1e-3, calibration_mtt=8.0)
    flow, tmax = measure(operator, tissue(times, cbf=60.0, mtt=8.0, delay=2.0))
    assert 6000 * 0.733 / 1.04 * flow == pytest.approx(60, rel=0.1)
    assert tmax - operator.tmax_offset == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize('order', ['0', '1', '2'])
def test_matrix_agrees_with_least_squares_of_one_voxel(solve, artery, order):
    rng = np.random.default_rng(0)
    weights = rng.random(27)
    operator = solve(weights=weights, penalty_order=order)
    curve = rng.normal(0, 10, 27)
    tau = deconvolution.residue_times(TIMES, DEFAULTS['residue_step'], DEFAULTS['residue_lead'])
    a = deconvolution.convolution_matrix(TIMES, artery(TIMES), TIMES, tau)
    penalty = deconvolution.penalty_matrix(len(tau), DEFAULTS['residue_step'], int(order))
    root = np.sqrt(weights)[:, None]
    assert operator.regularization == pytest.approx(
        DEFAULTS['lambda_rel'] * np.linalg.svd(root * a, compute_uv=False)[0]
    )
    stacked = np.vstack([root * a, operator.regularization * penalty])
    wanted = np.concatenate([root[:, 0] * curve, np.zeros(len(penalty))])
    by_hand = np.linalg.lstsq(stacked, wanted, rcond=None)[0]
    seen = len(operator.tau)
    np.testing.assert_array_equal(operator.tau, tau[:seen])
    np.testing.assert_allclose(operator.matrix @ curve, by_hand[:seen], atol=1e-9)


def test_convolution_agrees_with_quadrature(artery):
    tau = np.arange(-6, 70) * 0.5
    aif = artery(TIMES)
    found = deconvolution.convolution_matrix(TIMES, aif, TIMES + 0.4, tau, oversampling=32)
    curve = interpolate_input(TIMES, aif)
    for i, j in ((8, 3), (9, 8), (15, 12), (26, 30)):

        def integrand(s, i=i, j=j):
            return curve(TIMES[i] + 0.4 - s) * max(0.0, 1 - abs(s - tau[j]) / 0.5)

        by_hand = integrate.quad(integrand, tau[j] - 0.5, tau[j] + 0.5, limit=200)[0]
        assert found[i, j] == pytest.approx(by_hand, rel=1e-3, abs=1e-3)


def test_convolution_predicts_the_tissue_curve(artery, tissue):
    times = np.arange(0, 45, 0.5)
    tau = np.arange(0, 300) * 0.1
    made = deconvolution.convolution_matrix(times, artery(times), times, tau) @ np.exp(-tau / 4)
    np.testing.assert_allclose(
        made, tissue(times) / (60 * 1.04 / 0.733 / 6000), atol=0.02 * made.max()
    )


@pytest.mark.parametrize('order', [1, 2])
def test_penalty_is_the_derivative_in_seconds(order):
    step = 0.25
    tau = np.arange(12) * step
    found = deconvolution.penalty_matrix(12, step, order) @ tau**order
    # the first rows see the zero before the grid
    np.testing.assert_allclose(found[order:], order)
    lower = deconvolution.penalty_matrix(12, step, order) @ tau ** (order - 1)
    np.testing.assert_allclose(lower[order:], 0, atol=1e-9)


def test_residue_grid_begins_before_zero_and_holds_it():
    tau = deconvolution.residue_times(TIMES + 3, 0.4, 3.0)
    assert tau[0] <= -3.0
    assert np.abs(tau).min() == 0
    np.testing.assert_allclose(np.diff(tau), 0.4)


def test_peak_of_a_sampled_parabola_is_exact():
    tau = np.arange(-3, 10) * 0.5
    for top in (0.1, 1.37, 2.5, 3.74):
        height, time = deconvolution.residue_peak(5 - (tau - top) ** 2, tau)
        assert (height, time) == pytest.approx((5, top))


def test_peak_is_never_negative():
    assert deconvolution.residue_peak(-np.array([3.0, 2, 1, 2, 3]), np.arange(5.0))[0] == 0


def test_peaks_of_many_are_those_of_each():
    residue = np.random.default_rng(0).normal(size=(4, 5, 12))
    tau = np.arange(12.0)
    height, time = deconvolution.residue_peak(residue, tau)
    assert height.shape == time.shape == (4, 5)
    assert (height[2, 3], time[2, 3]) == deconvolution.residue_peak(residue[2, 3], tau)


@pytest.mark.parametrize('order', ['0', '1', '2'])
def test_cross_validation_agrees_with_its_definition(artery, order):
    rng = np.random.default_rng(0)
    curves, weights = rng.normal(0, 3, (30, 27)).cumsum(axis=1), ONES.copy()
    weights[[5, 20]] = 0
    chosen = {
        name: DEFAULTS[name] for name in ('residue_step', 'residue_lead')
    } | {'penalty_order': order}  # fmt: skip
    scores = deconvolution.cross_validate(curves, TIMES, artery(TIMES), TIMES, weights, **chosen)
    used = weights > 0
    tau = deconvolution.residue_times(TIMES, chosen['residue_step'], chosen['residue_lead'])
    a = deconvolution.convolution_matrix(TIMES, artery(TIMES), TIMES[used], tau)
    penalty = deconvolution.penalty_matrix(len(tau), chosen['residue_step'], int(order))
    for index in (10, 30, 55):
        strength = (deconvolution.LAMBDAS[index] * np.linalg.norm(a, 2)) ** 2
        hat = a @ np.linalg.solve(a.T @ a + strength * penalty.T @ penalty, a.T)
        missed = np.eye(used.sum()) - hat
        by_hand = np.square(curves[:, used] @ missed.T).sum() / np.trace(missed) ** 2
        assert scores[index] == pytest.approx(by_hand, rel=1e-5)


def test_more_noise_chooses_more_regularization(artery, tissue):
    rng = np.random.default_rng(0)
    clean = np.stack([tissue(TIMES, cbf, delay=delay) for cbf in (20, 40, 60) for delay in (1, 3)])
    chosen = [
        deconvolution.choose_lambda(
            deconvolution.cross_validate(
                np.tile(clean, (200, 1)) + rng.normal(0, noise, (1200, 27)), TIMES, artery(TIMES),
                TIMES, ONES, penalty_order='1', residue_step=0.5, residue_lead=6.0,
            ),
            share=1.0,
        )
        for noise in (0.1, 0.7, 3.0)
    ]  # fmt: skip
    assert chosen[0] < chosen[1] < chosen[2]


def test_no_maximum_is_looked_for_where_the_scan_has_seen_nothing(solve):
    """The AIF peaks at 13 s; what rises in the last frames may be anything."""
    operator = solve()
    assert operator.tau[-1] == pytest.approx(TIMES[-1] - 13.5 - deconvolution.SEEN_S, abs=1.5)
    rising = np.r_[np.zeros(25), 5.0, 5.0]
    assert measure(operator, rising)[1] <= operator.tau[-1]
