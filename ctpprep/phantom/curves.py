# SPDX-License-Identifier: Apache-2.0
"""The bolus, and the curves of tissue and vessels that follow from it."""

from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.special import gammainc

from ctpprep.phantom.settings import BolusTraits

TIME_STEP = 0.05  # s, of every fine curve


@dataclass(frozen=True)
class Bolus:
    """Arterial and venous curves on a fine time axis.

    Attributes
    ----------
    times, aif, vof : (N,) array
        s, HU.
    slow_aif : (N,) array or None
        Dispersed curve of the arteries of one hemisphere; the delay is added in place, to
        vessels and tissue. None if both hemispheres have the same arteries.
    """

    times: np.ndarray
    aif: np.ndarray
    vof: np.ndarray
    slow_aif: np.ndarray | None = None


def draw_bolus(rng: np.random.Generator, traits: BolusTraits, last_time: float) -> Bolus:
    """Draw AIF and VOF on a fine time axis.

    The first pass is a gamma variate (Thompson 1964, doi:10.1161/01.RES.14.6.502); a second,
    dispersed pass and a slowly rising plateau follow.

    Parameters
    ----------
    rng : numpy.random.Generator
        The draws are the same whichever traits are given.
    traits : BolusTraits
        A bolus whose peak time is not given arrives after 4 s at the earliest.
    last_time : float
        End of the scan, s; the curves end 5 s later.
    """
    peak_hu, peak_time = rng.uniform(260, 360), rng.uniform(13, 16)
    width, alpha = rng.uniform(6.5, 8.5), 3.0
    peak_hu = traits.peak_hu if traits.peak_hu is not None else peak_hu
    width = traits.width_s if traits.width_s is not None else width
    # Computed over five minutes and then cut: the bolus must not depend on the scan length.
    times = np.arange(0, 300, TIME_STEP)
    # FWHM of (s exp(1 - s))^3 is about 1.4 times its time to peak.
    rise = width / 1.404
    if traits.peak_time_s is not None:
        peak_time = traits.peak_time_s
    else:
        peak_time = max(peak_time, rise + 4)
    s = np.clip((times - peak_time + rise) / rise, 0, None)
    first = (s * np.exp(1 - s)) ** alpha
    second = _delay(_disperse(first, 4.0), 11.0)
    aif = (
        first
        + traits.recirculation * second / second.max()
        + traits.plateau * np.cumsum(first) / first.sum()
    )
    aif *= peak_hu / aif.max()
    vof = _delay(_disperse(aif, 4.0), 2.6)
    n = int((last_time + 5) / TIME_STEP) + 1
    slow = None
    if traits.side_delay_s or traits.side_dispersion_s:
        slow = (
            _disperse(aif, traits.side_dispersion_s)[:n] if traits.side_dispersion_s else aif[:n]
        )
    return Bolus(times[:n], aif[:n], vof[:n], slow)


def _disperse(curve: np.ndarray, tau: float) -> np.ndarray:
    """Convolve with exp(-t/tau)/tau, which widens the curve and preserves its area."""
    kernel = np.diff(1 - np.exp(-np.arange(len(curve) + 1) * TIME_STEP / tau))
    return np.convolve(curve, kernel)[: len(curve)]


def _delay(curve: np.ndarray, seconds: float) -> np.ndarray:
    """Shift a curve to a later time."""
    shift = round(seconds / TIME_STEP)
    return np.r_[np.zeros(shift), curve[: len(curve) - shift]]


class CurveTable:
    """Unit-flow tissue curves for 400 values of MTT, and AIFs and VOF, looked up by delay.

    Attributes
    ----------
    families : tuple of str
        Residue functions; two if each voxel mixes them.
    """

    def __init__(self, bolus: Bolus, residue: str):
        self.mtts = np.geomspace(1.0, 60.0, 400)  # steps of 1 %
        self.families = ('exponential', 'plateau') if residue == 'mixed' else (residue,)
        self.n_times = len(bolus.times)
        # A delay may read before the first sample, where nothing has enhanced.
        self.lead = int(20 / TIME_STEP)
        self.inputs = [bolus.aif] + ([] if bolus.slow_aif is None else [bolus.slow_aif])
        rows = [
            convolve_residue(bolus.times, aif, mtt, family)
            for aif, family, mtt in product(self.inputs, self.families, self.mtts)
        ]
        rows += [*self.inputs, bolus.vof]
        self.rows = np.pad(np.array(rows, np.float32), ((0, 0), (self.lead, 1)), mode='edge')

    def address(self, row: np.ndarray, delay: np.ndarray) -> np.ndarray:
        """Return the flat address of delayed curves (s); :meth:`read` adds the time."""
        shift = np.round(delay / TIME_STEP).astype(np.int32)
        return (row * self.rows.shape[1] + self.lead - shift).astype(np.int32)

    def tissue_row(self, mtt: np.ndarray, slow: np.ndarray, family: int = 0) -> np.ndarray:
        """Return the row of the closest MTT (s) for one of the residue families.

        `slow` marks the voxels supplied by the slow arteries.
        """
        step = np.log(self.mtts[1] / self.mtts[0])
        row = np.clip(np.round(np.log(mtt / self.mtts[0]) / step), 0, 399).astype(np.int32)
        block = len(self.families) * (slow & (len(self.inputs) > 1)) + family
        return row + 400 * block

    def vessel_row(self, is_vein: np.ndarray, slow: np.ndarray) -> np.ndarray:
        """Return the row of arteries and veins; `slow` marks the slow arteries."""
        first = 400 * len(self.families) * len(self.inputs)
        artery = slow & (len(self.inputs) > 1)
        return first + np.where(is_vein, len(self.inputs), artery)

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
    elif family == 'gamma':
        # Gamma-distributed transit times of shape 3; a shape of 1 would be the exponential.
        s = 3 * edges / mtt
        area = edges * (1 - gammainc(3, s)) + mtt * gammainc(4, s)
    else:
        area = np.minimum(edges, mtt)
    n = 2 * len(times)
    spectrum = np.fft.rfft(aif, n) * np.fft.rfft(np.diff(area), n)
    return np.fft.irfft(spectrum, n)[: len(times)]
