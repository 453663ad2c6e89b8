# SPDX-License-Identifier: Apache-2.0
"""Indicator-dilution theory: residue functions and the tissue curve for an arterial input.

Sources: Ostergaard et al., MRM 1996;36:715, doi:10.1002/mrm.1910360510; Fieselmann et al., Int J
Biomed Imaging 2011:467563, doi:10.1155/2011/467563.
"""

import numpy as np


def exponential_residue(tau, mtt):
    """Return the residue function of one well-mixed compartment.

    Parameters
    ----------
    tau : (N,) array
        Time since an ideal bolus, s.
    mtt : float
        Mean transit time, s.

    Returns
    -------
    (N,) array
        Fraction of the bolus that is still in the tissue; 0 before time zero.

    Examples
    --------
    >>> exponential_residue(np.array([-1.0, 0.0, 4.0]), 4.0).round(3)
    array([0.   , 1.   , 0.368])
    """
    tau = np.asarray(tau, dtype=float)
    return np.where(tau < 0, 0.0, np.exp(-np.maximum(tau, 0) / mtt))


def interpolate_input(times, aif):
    """Interpolate the samples of an input curve.

    Linear between the samples, 0 before the first (the bolus has not yet arrived), and constant
    after the last (recirculation decays slowly).

    Parameters
    ----------
    times : (N,) array
        Sample times, s.
    aif : (N,) array
        Enhancement, HU.

    Returns
    -------
    callable
        Maps times (s) to enhancement (HU).
    """
    times, aif = np.asarray(times, dtype=float), np.asarray(aif, dtype=float)

    def curve(t):
        return np.interp(t, times, aif, left=0.0, right=float(aif[-1]))

    return curve


def convolve_input(times, aif, residue, at, step=0.05):
    """Compute the tissue curve of unit flow, 1/s.

    Parameters
    ----------
    times, aif : (N,) arrays
        Samples of the input, s and HU.
    residue : callable
        Residue function of time (s).
    at : (T,) array
        Sample times of the tissue curve, s.
    step : float
        Integration step, s.

    Returns
    -------
    (T,) array
        Enhancement, HU, for CBF rho / k_H = 1/s.
    """
    curve = interpolate_input(times, aif)
    at = np.asarray(at, dtype=float)
    tau = np.arange(step / 2, np.ptp(at) + at.min() - np.min(times) + step, step)
    return curve(at[:, None] - tau) @ residue(tau) * step
