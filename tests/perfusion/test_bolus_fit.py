# SPDX-License-Identifier: Apache-2.0
"""A bolus explains the curve of a vessel, however wide, and nothing that motion or noise makes."""

import numpy as np
import pytest

from ctpprep.perfusion import bolus_fit, quality, vessels
from ctpprep.perfusion.bolus_fit import fit_bolus

TIMES = np.arange(0, 60, 1.5)


def gamma_variate(onset=8.0, to_peak=5.0, peak=300.0, alpha=3):
    s = np.clip((TIMES - onset) / to_peak, 0, None)
    return peak * (s * np.exp(1 - s)) ** alpha


def explained(curve):
    return float(fit_bolus(curve[None], TIMES).explained[0])


def noise(sigma, seed=0):
    return np.random.default_rng(seed).normal(0, sigma, TIMES.size)


def test_onset_width_and_height_are_those_of_a_gamma_variate():
    fit = fit_bolus(gamma_variate()[None] + 40, TIMES)
    assert fit.onset[0] == pytest.approx(8, abs=1)
    # FWHM of (s exp(1 - s))^3 is 1.404 times its time to peak of 5 s
    assert fit.width[0] == pytest.approx(7.0, rel=0.2)
    assert fit.height[0] == pytest.approx(300, rel=0.05)
    assert fit.explained[0] > 0.99


def test_fit_depends_neither_on_the_baseline_nor_on_the_scale():
    curve = gamma_variate() + noise(5)
    fits = fit_bolus(np.array([curve, curve + 900, 0.01 * curve]), TIMES)
    for name in ('onset', 'width', 'explained'):
        np.testing.assert_allclose(getattr(fits, name), getattr(fits, name)[0], atol=1e-6)
    assert fits.height[2] == pytest.approx(0.01 * fits.height[0])


def test_later_curve_has_a_later_onset():
    first, second = (fit_bolus(gamma_variate(at)[None], TIMES).onset[0] for at in (6.0, 12.0))
    assert second - first == pytest.approx(6, abs=0.5)


def test_wide_bolus_of_a_failing_heart_is_explained():
    """An injection that takes 28 s to pass is a bolus, though the scan ends in its tail."""
    wide = gamma_variate(6.0, 28 / 1.404)
    assert explained(wide + noise(6)) > vessels.SURELY_EXPLAINED
    assert fit_bolus(wide[None], TIMES).width[0] == pytest.approx(28, rel=0.2)


def test_recirculation_is_explained():
    first = gamma_variate()
    assert explained(first + 0.3 * 300 * np.cumsum(first) / first.sum()) > 0.98


def step(frame):
    return np.where(np.arange(TIMES.size) >= frame, 800.0, 0)


@pytest.mark.parametrize('frame', [3, 6, 9])
def test_step_that_stays_is_no_bolus(frame):
    """Bone that moves into a voxel stays there: its plateau is as high as its peak."""
    assert explained(step(frame)) < vessels.LEAST_EXPLAINED


@pytest.mark.parametrize('frame', [13, 20, 30])
def test_late_step_is_known_by_its_jump(frame):
    """A wide bolus that the end of the scan cuts explains it, but fills over several frames."""
    wide = gamma_variate(TIMES[frame], 20)
    assert explained(step(frame)) < vessels.SURELY_EXPLAINED
    assert vessels.step_like(np.stack([step(frame), wide])).tolist() == [True, False]


@pytest.mark.parametrize('frame', [3, 13, 30])
def test_spike_of_one_frame_is_no_bolus(frame):
    assert explained(np.eye(TIMES.size)[frame] * 800) < 0.75


@pytest.mark.parametrize('sign', [-1, 1])
def test_drift_fails_as_aif(sign):
    (check,) = (check for check in quality.CHECKS if check.name == 'aif_explained')
    assert explained(sign * 3.0 * TIMES) < check.low[1]


def test_noise_of_two_frames_is_hardly_explained():
    """Interpolation in time correlates neighbours; a narrow template must not fit two of them."""
    curves = np.random.default_rng(0).normal(0, 5, (400, TIMES.size + 1))
    curves = (curves[:, 1:] + curves[:, :-1]) / 2
    shares = fit_bolus(curves, TIMES).explained
    assert np.median(shares) < 0.4
    assert shares.max() < vessels.LEAST_EXPLAINED


def test_falling_curve_has_no_height():
    assert fit_bolus(-gamma_variate()[None], TIMES).explained[0] < 0.5


def test_plateau_is_at_most_a_fraction_of_the_first_pass():
    """With twice the plateau that is allowed, the fit falls back to the first pass alone."""
    first = gamma_variate()
    after = np.cumsum(first) / first.sum() * 300
    within, beyond = (
        explained(first + share * bolus_fit.MOST_PLATEAU * after) for share in (0.8, 2.0)
    )
    assert within > 0.97
    assert beyond < 0.9


def test_chunks_do_not_change_the_fit(monkeypatch):
    curves = np.stack([gamma_variate(at) + noise(4, int(at)) for at in (5.0, 8.0, 11.0)])
    whole = fit_bolus(curves, TIMES)
    monkeypatch.setattr(bolus_fit, 'CHUNK', 2)
    parts = fit_bolus(curves, TIMES)
    np.testing.assert_allclose(parts.explained, whole.explained)
    np.testing.assert_array_equal(parts.onset, whole.onset)


def test_uneven_frames_are_fitted_at_their_times():
    times = np.concatenate([np.arange(0, 30, 1.0), np.arange(30, 62, 3.0)])
    s = np.clip((times - 8) / 5, 0, None)
    fit = fit_bolus((300 * (s * np.exp(1 - s)) ** 3)[None], times)
    assert fit.onset[0] == pytest.approx(8, abs=1)
    assert fit.explained[0] > 0.99
