# SPDX-License-Identifier: Apache-2.0
"""The bolus, and the curves of tissue and vessels that follow from it."""

import numpy as np

TIME_STEP = 0.05  # s, of every fine curve


def draw_bolus(rng: np.random.Generator, last_time: float) -> tuple[np.ndarray, ...]:
    """Draw AIF and VOF on a fine time axis.

    The first pass is a gamma variate (Thompson 1964, doi:10.1161/01.RES.14.6.502); a second,
    dispersed pass and a slowly rising plateau follow.

    Parameters
    ----------
    rng : numpy.random.Generator
    last_time : float
        End of the scan, s; the curves end 5 s later.

    Returns
    -------
    times, aif, vof : (N,) arrays
        s, HU.
    """
    peak_hu, peak_time = rng.uniform(260, 360), rng.uniform(13, 16)
    width, alpha = rng.uniform(6.5, 8.5), 3.0
    # Computed over five minutes and then cut: the bolus must not depend on the scan length.
    times = np.arange(0, 300, TIME_STEP)
    # FWHM of (s exp(1 - s))^3 is 1.404 times its time to peak.
    rise = width / 1.404
    s = np.clip((times - peak_time + rise) / rise, 0, None)
    first = (s * np.exp(1 - s)) ** alpha
    second = _delay(_disperse(first, 4.0), 11.0)
    aif = first + 0.13 * second / second.max() + 0.05 * np.cumsum(first) / first.sum()
    aif *= peak_hu / aif.max()
    vof = _delay(_disperse(aif, 4.0), 2.6)
    n = int((last_time + 5) / TIME_STEP) + 1
    return times[:n], aif[:n], vof[:n]


def _disperse(curve: np.ndarray, tau: float) -> np.ndarray:
    """Convolve with exp(-t/tau)/tau, which widens the curve and preserves its area."""
    kernel = np.diff(1 - np.exp(-np.arange(len(curve) + 1) * TIME_STEP / tau))
    return np.convolve(curve, kernel)[: len(curve)]


def _delay(curve: np.ndarray, seconds: float) -> np.ndarray:
    """Shift a curve to a later time."""
    shift = round(seconds / TIME_STEP)
    return np.r_[np.zeros(shift), curve[: len(curve) - shift]]


class CurveTable:
    """Unit-flow tissue curves for 400 values of MTT, and AIF and VOF, looked up by delay."""

    def __init__(self, times: np.ndarray, aif: np.ndarray, vof: np.ndarray, family: str):
        self.mtts = np.geomspace(1.0, 60.0, 400)  # steps of 1 %
        self.n_times = len(times)
        # A delay may read before the first sample, where nothing has enhanced.
        self.lead = int(20 / TIME_STEP)
        rows = [convolve_residue(times, aif, mtt, family) for mtt in self.mtts] + [aif, vof]
        self.rows = np.pad(np.array(rows, np.float32), ((0, 0), (self.lead, 1)), mode='edge')

    def address(self, row: np.ndarray, delay: np.ndarray) -> np.ndarray:
        """Return the flat address of delayed curves (s); :meth:`read` adds the time."""
        shift = np.round(delay / TIME_STEP).astype(np.int32)
        return (row * self.rows.shape[1] + self.lead - shift).astype(np.int32)

    def mtt_row(self, mtt: np.ndarray) -> np.ndarray:
        """Return the row of the closest MTT, s."""
        step = np.log(self.mtts[1] / self.mtts[0])
        return np.clip(np.round(np.log(mtt / self.mtts[0]) / step), 0, 399).astype(np.int32)

    def read(self, address: np.ndarray, time: float) -> np.ndarray:
        """Interpolate the addressed curves linearly at one time, s."""
        step = min(time / TIME_STEP, self.n_times - 1)
        whole = int(step)
        between = self.rows.copy()
        between[:, :-1] += (step - whole) * np.diff(self.rows, axis=1)
        return between.ravel()[address + whole]


def convolve_residue(times: np.ndarray, aif: np.ndarray, mtt: float, family: str) -> np.ndarray:
    """Compute ``int AIF(t - s) R(s) ds`` in HU s, with R(0) = 1 and area MTT.

    R is integrated exactly over each fine step, which preserves its area.
    """
    edges = np.arange(len(times) + 1) * TIME_STEP
    if family == 'exponential':
        area = mtt * (1 - np.exp(-edges / mtt))
    elif family == 'linear':
        s = np.minimum(edges, 2 * mtt)
        area = s - s**2 / (4 * mtt)
    else:
        area = np.minimum(edges, mtt)
    n = 2 * len(times)
    spectrum = np.fft.rfft(aif, n) * np.fft.rfft(np.diff(area), n)
    return np.fft.irfft(spectrum, n)[: len(times)]
