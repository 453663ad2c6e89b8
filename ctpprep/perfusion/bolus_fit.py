# SPDX-License-Identifier: Apache-2.0
"""Fit of a bolus to curves: how much of a curve one passage of contrast explains.

An artery and a vein are recognized by the shape of their curve, not by its height: bone that motion
brings into a voxel is higher than any artery, but steps, spikes or drifts.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

# exponents of the gamma variates; larger is more symmetric
ALPHAS = (1.5, 3.0, 7.0)
# full widths at half maximum, s: from an injection that is as narrow as possible to heart failure
WIDTHS_S = tuple(np.geomspace(3.0, 34.0, 12))
# step of the onsets, and least time between the last onset and the end of the scan, s
ONSET_STEP_S, LEAST_TAIL_S = 0.5, 4.0
# least number of frames above a third of the peak: a narrower template fits single noisy frames
LEAST_FRAMES = 2
# largest height of recirculation and washout relative to that of the first pass
MOST_PLATEAU = 0.6
# time step at which templates are computed, s
FINE_STEP_S = 0.25
# number of curves fitted at once: arrays of curves x templates that stay in the cache of the processor
CHUNK = 64


@dataclass(frozen=True)
class BolusFit:
    """The best bolus of each curve.

    Attributes
    ----------
    onset : (V,) array
        Start of the upslope, s.
    width : (V,) array
        Full width at half maximum of the first pass, s.
    height : (V,) array
        Height of the first pass, HU.
    explained : (V,) array
        Fraction of the variance of the curve that the bolus explains, 0 to 1.
    """

    onset: np.ndarray
    width: np.ndarray
    height: np.ndarray
    explained: np.ndarray


def fit_bolus(curves, times):
    """Fit each curve by a constant, a gamma variate and its running integral.

    The integral represents recirculation and the slow washout. Both amplitudes are at least 0. Onset,
    width and skewness are those of the best of a fixed set of templates.

    Parameters
    ----------
    curves : (V, T) array
        HU; the baseline need not be subtracted.
    times : (T,) array
        Sample times, s.

    Returns
    -------
    BolusFit

    Notes
    -----
    Gamma variate: Thompson et al. 1964, doi:10.1161/01.RES.14.6.502. A thousand curves take about
    0.2 s.

    Examples
    --------
    >>> times = np.arange(0, 40, 1.0)
    >>> passed = np.clip(times - 10, 0, None)
    >>> fit = fit_bolus(np.array([passed**3 * np.exp(-passed / 1.5), times > 20.0]), times)
    >>> bool(abs(fit.onset[0] - 10) <= 0.5), (fit.explained > 0.95).tolist()
    (True, [True, False])
    """
    onset, width, peak, first, slow = _templates(tuple(np.asarray(times, dtype=float)))
    centred = first - first.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(centred, axis=1, keepdims=True)
    along = centred / norm
    # the part of the integral that the first pass does not explain
    overlap = ((slow - slow.mean(axis=1, keepdims=True)) * along).sum(axis=1)
    rest = slow - slow.mean(axis=1, keepdims=True) - overlap[:, None] * along
    rest_norm = np.maximum(np.linalg.norm(rest, axis=1, keepdims=True), 1e-9)
    rest = rest / rest_norm
    curves = np.atleast_2d(curves)
    fitted = np.zeros((4, len(curves)))
    for start in range(0, len(curves), CHUNK):
        part = np.asarray(curves[start : start + CHUNK], dtype=float)
        part = part - part.mean(axis=1, keepdims=True)
        total = np.maximum((part**2).sum(axis=1), 1e-9)
        by_first, by_rest = np.maximum(part @ along.T, 0), np.maximum(part @ rest.T, 0)
        plateau = by_rest / rest_norm[:, 0]
        height = (by_first - plateau * overlap) / norm[:, 0]
        # a step is a narrow bolus whose integral is as high as the bolus: that is not allowed
        both = plateau <= MOST_PLATEAU * height * peak
        height = np.where(both, height, by_first / norm[:, 0])
        gain = np.where(height > 0, by_first**2 + np.where(both, by_rest**2, 0), 0.0)
        best = np.argmax(gain, axis=1)
        rows = np.arange(len(part))
        fitted[:, start : start + CHUNK] = (
            onset[best], width[best], height[rows, best] * peak[best], gain[rows, best] / total
        )  # fmt: skip
    return BolusFit(*fitted)


@lru_cache(maxsize=16)
def _templates(times):
    """Return onset, width, sampled peak, first pass and integral of each template."""
    times = np.asarray(times)
    onsets = np.arange(times[0] + ONSET_STEP_S, times[-1] - LEAST_TAIL_S, ONSET_STEP_S)
    fine = np.arange(times[0], times[-1] + 2 * FINE_STEP_S, FINE_STEP_S)
    rows = []
    for alpha in ALPHAS:
        for width in WIDTHS_S:
            to_peak = width / _relative_width(alpha)
            for onset in onsets:
                s = np.maximum(fine - onset, 0) / to_peak
                first = (s * np.exp(1 - s)) ** alpha
                slow = np.cumsum(first)
                slow /= max(slow[-1], 1e-6)
                rows.append(
                    (onset, width, np.interp(times, fine, first), np.interp(times, fine, slow))
                )
    onset, width, first, slow = (np.array(column) for column in zip(*rows, strict=True))
    peak = first.max(axis=1)
    seen = (first > peak[:, None] / 3).sum(axis=1) >= LEAST_FRAMES
    seen &= peak > 0.3
    return onset[seen], width[seen], peak[seen], first[seen], slow[seen]


@lru_cache(maxsize=8)
def _relative_width(alpha):
    """Return the full width at half maximum of ``(s exp(1 - s))^alpha``."""
    s = np.linspace(0, 20, 40001)
    high = s[(s * np.exp(1 - s)) ** alpha >= 0.5]
    return high[-1] - high[0]
