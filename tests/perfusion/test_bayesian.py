# SPDX-License-Identifier: Apache-2.0
"""Posterior mean of flow over a dictionary of tissue curves."""

import numpy as np
import pytest
from scipy import integrate, stats

from ctpprep.perfusion import bayesian, deconvolution
from ctpprep.perfusion.kinetics import convolve_input

TIMES = np.arange(0, 60, 1.5)
AIF = 300 * np.exp(-0.5 * ((TIMES - 14) / 3) ** 2)
# volume of normal tissue, in units of the area of the arterial input, and peak of its curve, HU
VOLUME, TYPICAL_PEAK = 0.03, 7.0


@pytest.fixture(scope='module')
def dictionary():
    return bayesian.make_dictionary(TIMES, AIF, TIMES)


@pytest.fixture(scope='module')
def whitened():
    return bayesian.whitening(len(TIMES), 5)


def tissue(flow, transit, delay=1.0):
    """Return a curve whose transit times follow a gamma distribution, no family of the dictionary."""
    distribution = stats.gamma(2, scale=transit / 2)
    return flow * convolve_input(TIMES + delay, AIF, distribution.sf, TIMES)


def estimate(curves, dictionary, whitened, error=None):
    curves = np.atleast_2d(curves)
    error = bayesian.curve_error(0.2, TYPICAL_PEAK) if error is None else error
    return bayesian.estimate_flow(
        curves, np.full(len(curves), error), dictionary, whitened, VOLUME
    )


@pytest.mark.parametrize(('flow', 'transit', 'delay'), [(1, 4, 1), (0.4, 8, 5), (0.15, 10, 6)])
def test_flow_and_volume_of_an_exponential_residue(dictionary, whitened, flow, transit, delay):
    flow *= VOLUME / 4
    residue = stats.expon(scale=transit).sf
    curve = flow * convolve_input(TIMES + delay, AIF, residue, TIMES)
    found = estimate(curve, dictionary, whitened, error=0.05)
    assert found.flow[0] == pytest.approx(flow, rel=0.1)
    assert found.volume[0] == pytest.approx(flow * transit, rel=0.1)


@pytest.mark.parametrize(('relative', 'transit', 'delay'), [(0.4, 8, 5), (0.15, 10, 6)])
def test_relative_flow_of_a_residue_outside_the_dictionary(
    dictionary, whitened, relative, transit, delay
):
    curves = np.stack([tissue(VOLUME / 4, 4), tissue(relative * VOLUME / 4, transit, delay)])
    found = estimate(curves, dictionary, whitened)
    assert found.flow[1] / found.flow[0] == pytest.approx(relative, abs=0.05)


def test_core_reads_lower_than_by_regularization(dictionary, whitened):
    curves = np.stack([tissue(VOLUME / 4, 4), tissue(0.15 * VOLUME / 4, 10, 6)])
    found = estimate(curves, dictionary, whitened).flow
    operator = deconvolution.deconvolution_operator(
        TIMES, AIF, TIMES, np.ones(len(TIMES)), penalty_order=1, lambda_rel=0.1, residue_step=0.5,
        residue_lead=6.0, calibration_mtt=4.0,
    )  # fmt: skip
    heights = (curves @ operator.matrix.T).max(axis=1)
    assert 0.1 < found[1] / found[0] < 0.2 < heights[1] / heights[0]


def test_delay_does_not_change_flow(dictionary, whitened):
    flows = estimate(
        np.stack([tissue(VOLUME / 4, 4, delay) for delay in (0, 1, 3)]), dictionary, whitened
    ).flow
    assert np.ptp(flows) < 0.15 * flows.mean()


def test_equals_integration_over_each_volume(dictionary, whitened):
    """The closed form against numerical integration, entry by entry."""
    curve, noise = tissue(0.5 * VOLUME / 4, 6, 3), 0.5
    data = curve @ whitened.projection
    entries = dictionary.curves @ whitened.projection
    volumes = np.linspace(-4 * VOLUME, 8 * VOLUME, 4001)
    prior = stats.norm(bayesian.VOLUME_MEAN * VOLUME, bayesian.VOLUME_SD * VOLUME).pdf(volumes)
    best = min(np.square(data - volume * entries).sum(axis=1).min() for volume in volumes[::10])
    evidence = flow = 0.0
    for entry, transit, log_prior in zip(
        entries[::40], dictionary.transit[::40], dictionary.log_prior[::40], strict=True
    ):
        misfit = np.square(data - volumes[:, None] * entry).sum(axis=1) - best
        density = np.exp(log_prior - 0.5 * misfit / noise**2) * prior
        evidence += integrate.trapezoid(density, volumes)
        flow += integrate.trapezoid(density * volumes / transit, volumes)
    part = bayesian.Dictionary(
        dictionary.curves[::40], dictionary.transit[::40], dictionary.delay[::40],
        dictionary.log_prior[::40],
    )  # fmt: skip
    # a level of error that is rounded to itself
    level = round(np.log(noise) / np.log(bayesian.ERROR_RATIO))
    weights = bayesian._Weights(entries[::40], part, noise, VOLUME)
    assert abs(bayesian.ERROR_RATIO**level - noise) < 0.05 * noise
    assert weights.means(data[None].astype(np.float32))[0][0] == pytest.approx(
        flow / evidence, rel=1e-3
    )


def test_gain_is_the_spread_that_noise_causes(dictionary, whitened):
    curve = tissue(VOLUME / 4, 5, 2)
    noise = np.random.default_rng(0).standard_normal((500, len(TIMES)))
    noise -= noise[:, :5].mean(axis=1, keepdims=True)
    found = estimate(curve + 0.02 * noise, dictionary, whitened)
    assert found.flow.std() / 0.02 == pytest.approx(found.flow_gain.mean(), rel=0.1)


def test_a_voxel_does_not_depend_on_the_others(dictionary, whitened):
    rng = np.random.default_rng(1)
    curves = np.stack([tissue(VOLUME / 4, 4), tissue(VOLUME / 8, 8, 5)] * 600)
    curves += rng.normal(0, 0.3, curves.shape)
    together = estimate(curves, dictionary, whitened)
    alone = estimate(curves[777:779], dictionary, whitened)
    np.testing.assert_allclose(together.flow[777:779], alone.flow, rtol=1e-4)


def test_error_hardly_changes_the_reading_of_a_core(dictionary, whitened):
    readings = [
        bayesian.reading_of_core(dictionary, whitened, error, VOLUME) for error in (0.05, 1, 2)
    ]
    assert readings == pytest.approx([0.15] * 3, abs=0.05)


def test_error_leaves_transit_time_to_the_prior(dictionary, whitened):
    """With a large error, slow and normal tissue get the same transit time, that of the prior."""
    curves = np.stack([tissue(VOLUME / 4, 4), tissue(0.4 * VOLUME / 4, 8, 5)])

    def transit(error):
        found = estimate(curves, dictionary, whitened, error)
        return found.volume / found.flow

    small, large = transit(0.2), transit(20.0)
    assert small[1] > 1.4 * small[0]
    assert large[1] == pytest.approx(large[0], rel=0.2)


def test_dose_of_contrast_does_not_change_flow(dictionary, whitened):
    curves = np.stack([tissue(VOLUME / 4, 4), tissue(0.4 * VOLUME / 4, 8, 5)])
    twice = bayesian.make_dictionary(TIMES, 2 * AIF, TIMES)
    flows = [
        estimate(
            dose * curves, entries, whitened, bayesian.curve_error(0.0, dose * TYPICAL_PEAK)
        ).flow
        for dose, entries in ((1, dictionary), (2, twice))
    ]
    # levels of error differ by 10 %
    np.testing.assert_allclose(*flows, rtol=0.02)


def test_curves_without_noise_or_signal_are_finite(dictionary, whitened):
    found = estimate(np.zeros((2, len(TIMES))), dictionary, whitened, error=0.0)
    assert np.isfinite(found.flow).all()
    assert (found.flow < 0.1 * VOLUME / 4).all()


def test_components_that_denoising_kept_suffice(dictionary):
    curves = np.stack([tissue(f * VOLUME / 4, t, d) for f, t, d in ((1, 4, 1), (0.3, 9, 6))])
    components = np.linalg.qr(curves.T)[0]
    reduced = bayesian.whitening(len(TIMES), 5, components)
    found = estimate(curves, dictionary, reduced, error=0.2)
    assert found.flow[1] / found.flow[0] == pytest.approx(0.3, abs=0.1)
