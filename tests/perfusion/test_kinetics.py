# SPDX-License-Identifier: Apache-2.0
"""Indicator-dilution theory against integrals done by hand."""

import numpy as np
import pytest
from scipy import integrate

from ctpprep.perfusion.kinetics import convolve_input, exponential_residue, interpolate_input


def residue(tau):
    return exponential_residue(tau, 4.0)


def test_residue_has_the_area_of_its_transit_time():
    tau = np.arange(-5, 100, 0.01)
    assert np.sum(residue(tau)) * 0.01 == pytest.approx(4.0, rel=2e-3)


def test_residue_is_0_before_the_bolus():
    assert not residue(np.array([-10.0, -1e-9])).any()


def test_a_constant_input_fills_the_tissue_exponentially():
    at = np.array([1.0, 5.0, 20.0])
    found = convolve_input([0.0, 30.0], [100.0, 100.0], residue, at, step=0.002)
    np.testing.assert_allclose(found, 100 * 4 * (1 - np.exp(-at / 4)), rtol=1e-3)


def test_tissue_curve_agrees_with_quadrature(artery):
    times = np.arange(27) * 1.5
    aif = artery(times)
    curve = interpolate_input(times, aif)
    for at in (9.3, 14.0, 30.75):
        by_hand = integrate.quad(
            lambda tau, at=at: curve(at - tau) * residue(tau), 0, at,
            points=at - times[times < at], limit=400,
        )[0]  # fmt: skip
        assert convolve_input(times, aif, residue, [at])[0] == pytest.approx(by_hand, rel=1e-3)


def test_area_of_tissue_is_area_of_input_times_transit_time(artery):
    times = np.arange(0, 120, 0.5)
    made = convolve_input(times, artery(times), residue, times)
    assert made.sum() == pytest.approx(4.0 * artery(times).sum(), rel=1e-3)


def test_input_is_0_before_the_scan_and_stays_after_it():
    curve = interpolate_input([2.0, 4.0, 6.0], [10.0, 30.0, 20.0])
    np.testing.assert_array_equal(curve([0.0, 1.9, 3.0, 6.0, 60.0]), [0, 0, 20, 20, 20])


def test_sample_times_may_start_late(artery):
    times = np.arange(0, 40, 1.5)
    everything = convolve_input(times, artery(times), residue, times)
    late = convolve_input(times, artery(times), residue, times[10:])
    np.testing.assert_allclose(late, everything[10:], rtol=1e-9)
