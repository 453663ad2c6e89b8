# SPDX-License-Identifier: Apache-2.0
"""How sure the core is: against repeated noise, and at the limits."""

import numpy as np
import pytest

from ctpprep.perfusion import deconvolution, denoising, uncertainty
from ctpprep.settings import MethodSettings

TIMES = np.arange(30) * 1.5
N_BASELINE = 5
STAGE = MethodSettings.of(lambda_rel=0.12).as_dict()['deconvolution']
OPERATOR = {
    name: STAGE[name]
    for name in (
        'penalty_order', 'lambda_rel', 'residue_step', 'residue_lead', 'calibration_mtt'
    )
}  # fmt: skip


def noisy_heights(artery, tissue, components=None, weights=None):
    """Deconvolve one curve under 2000 noises of 0.5 HU; return heights and what is predicted."""
    weights = np.ones(30) if weights is None else weights
    good = weights > 0
    operator = deconvolution.deconvolution_operator(
        TIMES, artery(TIMES), TIMES, weights, **OPERATOR
    )
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.5, (2000, 30))
    noise -= noise[:, :N_BASELINE][:, good[:N_BASELINE]].mean(axis=1, keepdims=True)
    if components is not None:
        noise[:, good] = noise[:, good] @ components @ components.T
    height, time = deconvolution.residue_peak(
        (tissue(TIMES, 60, 4.0) + noise) @ operator.matrix.T, operator.tau
    )
    found = uncertainty.residue_noise(
        time, operator, rng.normal(0, 0.5, (2000, 10)), weights, N_BASELINE, components
    )
    return height, found


def test_noise_of_flow_is_that_of_repeated_scans(artery, tissue):
    heights, found = noisy_heights(artery, tissue)
    assert found.std() == pytest.approx(heights.std(), rel=0.1)


def test_noise_outside_the_kept_components_does_not_count(artery, tissue):
    shapes = np.stack([tissue(TIMES, 60, mtt, delay) for mtt in (3, 6) for delay in (0, 3)])
    components = np.linalg.qr(shapes.T)[0]
    heights, found = noisy_heights(artery, tissue, components)
    assert found.std() == pytest.approx(heights.std(), rel=0.1)
    assert found.std() < 0.95 * noisy_heights(artery, tissue)[1].std()


def test_rejected_frames_bring_no_noise(artery, tissue):
    weights = np.ones(30)
    weights[[2, 9, 20]] = 0
    heights, found = noisy_heights(artery, tissue, weights=weights)
    assert found.std() == pytest.approx(heights.std(), rel=0.1)


def excess_and_bias(artery, tissue, cbf, mtt):
    """Return what is estimated from single scans, its mean, and what noise adds in truth."""
    operator = deconvolution.deconvolution_operator(
        TIMES, artery(TIMES), TIMES, np.ones(30), **OPERATOR
    )
    noise = np.random.default_rng(1).normal(0, 0.5, (2000, 30))
    noise -= noise[:, :N_BASELINE].mean(axis=1, keepdims=True)
    clean = tissue(TIMES, cbf, mtt)
    true, _ = deconvolution.residue_peak(clean @ operator.matrix.T, operator.tau)
    found, _ = deconvolution.residue_peak((clean + noise) @ operator.matrix.T, operator.tau)
    excess = uncertainty.peak_excess(
        clean + noise, np.full(2000, 0.5), operator, np.ones(30), N_BASELINE
    )
    return excess, (found.mean() - true) / true, excess.mean() / true


@pytest.mark.parametrize(('cbf', 'mtt'), [(20, 6.0), (6, 12.0), (3, 12.0)])
def test_flow_is_less_biased_without_the_excess(artery, tissue, cbf, mtt):
    _, bias, estimated = excess_and_bias(artery, tissue, cbf, mtt)
    assert bias > 0.05
    # the rest is a third of it for core, and no flow is turned round by more than it was off
    assert abs(bias - estimated) < (1.05 if cbf == 20 else 0.35) * bias


def test_the_excess_is_never_negative_and_nil_without_noise(artery, tissue):
    assert excess_and_bias(artery, tissue, 60, 4.0)[0].min() > 0
    operator = deconvolution.deconvolution_operator(
        TIMES, artery(TIMES), TIMES, np.ones(30), **OPERATOR
    )
    curve = tissue(TIMES, 20, 6.0)[None]
    none = uncertainty.peak_excess(curve, np.zeros(1), operator, np.ones(30), N_BASELINE)
    np.testing.assert_allclose(none, 0, atol=1e-9)


def test_samples_of_the_average_have_the_noise_that_it_leaves():
    shape, n_frames = (24, 24, 6), 24
    tissue = np.ones(shape, bool)
    right = (np.arange(24) >= 12)[:, None, None] & tissue
    bolus = np.exp(-0.5 * ((np.arange(n_frames) - 12) / 3) ** 2)
    clean = np.where(right[tissue], 30.0, 0.0)[:, None] * bolus
    noise = np.random.default_rng(0).normal(0, 2.0, clean.shape)
    curves = (clean + noise).astype(np.float32)
    smooth = denoising.smooth_curves(curves, tissue, tissue, (2, 2, 1))
    centre, components = denoising.temporal_components(smooth, 1)
    kept, found = denoising.denoise_by_similarity(
        curves, smooth, tissue, tissue, np.full(shape, 35.0), np.ones(n_frames), (2, 2, 1),
        centre=centre, components=components, tolerance_hu=8.0, density_tolerance_hu=3.0,
        directions=denoising.noise_directions(components, 8),
    )  # fmt: skip
    left = ((kept - clean) @ components)[:, 0]
    assert found.shape == (tissue.sum(), 8)
    sides = [each[right[tissue]].std() for each in (found, left)]
    assert sides[0] == pytest.approx(sides[1], rel=0.25)
    assert sides[0] < 0.25 * 2.0


def test_directions_of_noise_see_neither_components_nor_a_constant():
    components = np.linalg.qr(np.random.default_rng(0).normal(size=(20, 6)))[0]
    found = denoising.noise_directions(components, 8)
    np.testing.assert_allclose(found.T @ found, np.eye(8), atol=1e-6)
    np.testing.assert_allclose(found.T @ np.column_stack([components, np.ones(20)]), 0, atol=1e-6)


def test_a_short_series_has_no_direction_of_noise():
    assert denoising.noise_directions(np.eye(7)[:, :6], 8).shape == (7, 0)


def test_noise_map_is_the_size_of_the_samples_up_to_the_border():
    rng = np.random.default_rng(0)
    tissue = np.zeros((30, 30, 6), bool)
    tissue[3:-3, 3:-3, 1:-1] = True
    fields = np.where(tissue[..., None], rng.normal(0, 0.2, (*tissue.shape, 12)), 0)
    found = uncertainty.noise_map(fields, tissue, (1.8, 1.8, 5.0))
    np.testing.assert_allclose(found[tissue], 0.2, rtol=0.25)
    assert not found[~tissue].any()


def test_probability_is_that_of_repeated_noise():
    rng = np.random.default_rng(0)
    truth = rng.uniform(0, 1, 200_000)
    seen = truth + rng.normal(0, 0.1, truth.size)
    found = uncertainty.probability_below(0.3, seen, np.full(truth.size, 0.1))
    for low in (0.2, 0.5, 0.8):
        these = (found > low) & (found < low + 0.1)
        assert (truth[these] < 0.3).mean() == pytest.approx(low + 0.05, abs=0.03)


def test_draws_have_the_spread_of_the_noise_and_depend_on_the_seed_alone():
    fields = np.random.default_rng(0).normal(0, 0.2, (20, 20, 4, 12)).astype(np.float32)
    values = np.ones(fields.shape[:3], np.float32)
    draws = [uncertainty.noisy_volumes(np.sum, values, fields, 200, seed) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])
    assert draws[0].std() == pytest.approx(0.2 * np.sqrt(1600), rel=0.4)
    assert np.ptp(uncertainty.noisy_volumes(np.sum, values, 0 * fields, 5, 1)) == 0


def test_error_that_all_voxels_share_moves_all_draws_alike():
    values = np.zeros((10, 10, 2), np.float32)
    fields = np.zeros((*values.shape, 3), np.float32)
    means = uncertainty.noisy_volumes(np.mean, values, fields, 400, 0, shared=0.06)
    assert np.std(means) == pytest.approx(0.06, rel=0.1)
    spreads = uncertainty.noisy_volumes(np.ptp, values, fields, 5, 0, shared=0.06)
    assert np.allclose(spreads, 0)


@pytest.mark.parametrize(
    ('volume', 'draws', 'holds'),
    [
        (3.0, [0.0] * 100, 0.0),  # more noise makes it vanish
        (0.0, [0.0] * 90 + [4.0] * 10, 4.0),  # or appear
        (5.0, [5.0] * 98 + [0.0] * 2, 5.0),
    ],
)
def test_interval_holds_the_volume_and_what_errors_make_of_it(volume, draws, holds):
    low, high = uncertainty.interval(volume, np.array(draws))
    assert 0 <= low <= volume <= high
    assert low <= holds <= high


def test_noise_where_flow_is_0_is_divided_as_next_to_it():
    flow = np.ones((6, 4, 2), np.float32)
    flow[0] = 0
    found = uncertainty.scale_noise(np.ones((6, 4, 2, 3), np.float32), flow, 2 * flow)
    np.testing.assert_array_equal(found, 2)
