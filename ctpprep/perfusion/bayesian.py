# SPDX-License-Identifier: Apache-2.0
r"""Bayesian estimation of flow and volume: the posterior mean over a dictionary of tissue curves.

Regularization lowers the maximum of a narrow residue function more than that of a wide one, so that
low flow with a long transit is overestimated relative to normal tissue. Here the curve is compared
with curves that are known exactly. For the residue family, the mean transit time and the delay of an
entry `j` of the dictionary, the curve of unit volume is :math:`a_j` and

.. math:: c = v\, a_j + n, \quad n \sim N(0, \sigma^2 \Sigma), \quad v \sim N(\mu, \tau^2),
          \quad F = v / \mathrm{MTT}_j

is linear in the volume `v`, which is integrated out in closed form. Flow is the mean of
:math:`v / \mathrm{MTT}_j` over all entries, weighted by their posterior probability.

Sources: Boutelier et al., IEEE Trans Med Imaging 2012;31:1381, doi:10.1109/TMI.2012.2189890
(Bayesian estimation with delay); Kennedy and O'Hagan, J R Stat Soc B 2001;63:425,
doi:10.1111/1467-9868.00294 (difference between model and truth as an error of its own).
"""

from dataclasses import dataclass

import numpy as np
from scipy import linalg

from ctpprep.perfusion.kinetics import interpolate_input

# residue families; the truth need not be one of them
FAMILIES = ('exponential', 'box')
# mean transit times and steps of the delay, s: finer than the noise of a quiet scan can resolve
TRANSITS_S = np.geomspace(1.5, 24.0, 12)
DELAY_STEP_S, LEAD_S, LONGEST_DELAY_S = 0.5, 3.0, 22.0
# normal tissue has a transit of 3.5 to 6 s and a delay of 0.5 to 2.5 s; the rest may have any
NORMAL_TRANSIT_S, NORMAL_LOG_SD, NORMAL_TRANSIT_SHARE = 4.8, 0.35, 0.6
NORMAL_DELAY_S, NORMAL_DELAY_SD_S, NORMAL_DELAY_SHARE = 1.0, 1.5, 0.7
# mean and standard deviation of the volume, relative to the median of tissue
VOLUME_MEAN, VOLUME_SD = 0.8, 2.0
# difference between model and truth in each frame (mixture of tissues, vessels, recirculation, motion,
# rounding), relative to the peak of a typical curve; one standard deviation
MODEL_ERROR = 0.25
# step of the integration over the residue function, s, and its length
FINE_STEP_S, LONGEST_RESIDUE_S = 0.1, 80.0
# least error of a curve, for curves without noise or signal, HU
LEAST_ERROR_HU = 1e-3
# normal tissue and core by which the estimate is judged: flow relative to normal, transit and delay, s
NORMAL, CORE = (1.0, 4.0, 1.0), (0.15, 10.0, 6.0)
# voxels whose error differs by less than this ratio are computed together; voxels in one product
ERROR_RATIO, CHUNK = 1.1, 512
# weights below exp(-60) do not matter, and would be denormal numbers, which are slow
LEAST_LOG_WEIGHT = np.float32(-60.0)


@dataclass(frozen=True)
class Dictionary:
    """Tissue curves of unit volume.

    Attributes
    ----------
    curves : (J, T) array
        HU, for a volume whose area is that of the arterial input.
    transit : (J,) array
        Mean transit time, s.
    delay : (J,) array
        s.
    log_prior : (J,) array
        Logarithm of the prior probability.
    """

    curves: np.ndarray
    transit: np.ndarray
    delay: np.ndarray
    log_prior: np.ndarray


@dataclass(frozen=True)
class Whitening:
    """Projection of curves to scores of white noise.

    Attributes
    ----------
    projection : (T, R) array
        Curves times this have noise of the variance of one frame in every column.
    loading : (R, T) array
        From white noise of the frames to noise of the scores.
    """

    projection: np.ndarray
    loading: np.ndarray


@dataclass(frozen=True)
class Posterior:
    """Posterior means of each curve.

    Attributes
    ----------
    flow : (V,) array of float32
        Flow-scaled residue function at time zero, 1/s.
    flow_gain : (V,) array of float32
        Standard deviation of `flow` from the noise of the curves, per HU of noise, 1/s.
    volume : (V,) array of float32
        Area of the curve over that of the arterial input.
    """

    flow: np.ndarray
    flow_gain: np.ndarray
    volume: np.ndarray


def make_dictionary(aif_times, aif, times, longest_delay=LONGEST_DELAY_S):
    """Compute the tissue curves of all residue families, transit times and delays.

    Parameters
    ----------
    aif_times, aif : (M,) arrays
        Samples of the arterial input, s and HU.
    times : (T,) array
        Sample times of the tissue, s.
    longest_delay : float
        Longest delay of tissue that the scan can distinguish from no flow, s; at most 22 s.

    Returns
    -------
    Dictionary

    Examples
    --------
    Every curve has its area in the volume, so those of a short transit are the highest:

    >>> times = np.arange(0, 60, 1.5)
    >>> aif = 300 * np.exp(-0.5 * ((times - 12) / 3) ** 2)
    >>> entries = make_dictionary(times, aif, times)
    >>> entries.transit[np.argmax(entries.curves.max(axis=1))]
    np.float64(1.5)
    """
    times = np.asarray(times, dtype=float)
    delays = np.arange(-LEAD_S, min(longest_delay, LONGEST_DELAY_S) + 1e-6, DELAY_STEP_S)
    first, last = times.min() - delays[-1], times.max() - delays[0]
    fine = np.arange(first, last + FINE_STEP_S, FINE_STEP_S)
    # the middle of each step of the residue function
    tau = np.arange(FINE_STEP_S / 2, LONGEST_RESIDUE_S, FINE_STEP_S)
    curve = interpolate_input(aif_times, aif)
    # the input before the first sample of the fine grid
    long = np.arange(fine[0] - LONGEST_RESIDUE_S, fine[-1] + FINE_STEP_S / 2, FINE_STEP_S)
    curves, transits = [], []
    for family in FAMILIES:
        for transit in TRANSITS_S:
            residue = np.exp(-tau / transit) if family == 'exponential' else 1.0 * (tau < transit)
            kernel = residue / residue.sum()
            tissue = np.convolve(curve(long - FINE_STEP_S / 2), kernel)[: len(long)]
            curves += [np.interp(times - delay, long, tissue) for delay in delays]
            transits += [float(residue.sum() * FINE_STEP_S)] * len(delays)
    delay = np.tile(delays, len(FAMILIES) * len(TRANSITS_S))
    return Dictionary(
        np.array(curves), np.array(transits), delay, _log_prior(delays),
    )  # fmt: skip


def _log_prior(delays):
    """Return the prior: independent in family, transit time and delay."""
    distance = np.log(TRANSITS_S / NORMAL_TRANSIT_S) / NORMAL_LOG_SD
    transit = _mixture(distance, NORMAL_TRANSIT_SHARE)
    delay = _mixture((delays - NORMAL_DELAY_S) / NORMAL_DELAY_SD_S, NORMAL_DELAY_SHARE)
    prior = np.outer(transit, delay).ravel() / len(FAMILIES)
    return np.log(np.tile(prior, len(FAMILIES)))


def _mixture(distance, share):
    """Return the mixture of a normal density in standard deviations, and of a uniform one."""
    normal = np.exp(-0.5 * np.square(distance))
    return share * normal / normal.sum() + (1 - share) / len(distance)


def whitening(n_frames, n_baseline, components=None):
    """Compute the projection after which the noise of curves is white.

    Parameters
    ----------
    n_frames : int
    n_baseline : int
        Number of these before contrast, whose mean was subtracted from each curve.
    components : (T, R) array, optional
        Temporal components that denoising kept; all by default.

    Returns
    -------
    Whitening
    """
    kept = np.eye(n_frames) if components is None else np.asarray(components, dtype=float)
    white = np.eye(n_frames)
    white[:, :n_baseline] -= 1 / max(n_baseline, 1)
    covariance = kept.T @ white @ white.T @ kept
    # subtracting the baseline removes one dimension where all components are kept
    covariance += 1e-6 * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    root = linalg.cholesky(covariance, lower=True)
    projection = linalg.solve_triangular(root, kept.T, lower=True).T
    return Whitening(projection, projection.T @ white)


def curve_error(noise, typical_peak):
    """Compute the error of curves in a frame: noise, and the difference between model and truth.

    Parameters
    ----------
    noise : (V,) array
        Standard deviation of the noise of each curve, HU.
    typical_peak : float
        Peak of the curve of typical tissue, HU.

    Returns
    -------
    (V,) array
        One standard deviation, HU.

    Notes
    -----
    Without the second part, a quiet scan decides between transit times by differences that no entry
    of the dictionary explains.
    """
    return np.hypot(noise, MODEL_ERROR * typical_peak)


def estimate_flow(curves, error, dictionary, whitened, typical_volume):
    """Compute the posterior means of flow and volume of each curve.

    Parameters
    ----------
    curves : (V, T) array
        HU.
    error : (V,) array
        From `curve_error`, HU.
    dictionary : Dictionary
        At the same sample times.
    whitened : Whitening
        At the same sample times.
    typical_volume : float
        Median of the volume of tissue, in units of the area of the arterial input.

    Returns
    -------
    Posterior

    Notes
    -----
    Voxels of nearly equal error are computed together, because the posterior is then a matrix
    product and one exponential per voxel and entry. The result of a voxel does not depend on the
    others.
    """
    n_curves = len(curves)
    flow, gain, volume = (np.zeros(n_curves, dtype=np.float32) for _ in range(3))
    scores = np.asarray(curves @ whitened.projection, dtype=np.float32)
    entries = dictionary.curves @ whitened.projection
    error = np.maximum(np.asarray(error, dtype=float), LEAST_ERROR_HU)
    levels = np.round(np.log(error) / np.log(ERROR_RATIO)).astype(int)
    for level in np.unique(levels):
        rows = np.flatnonzero(levels == level)
        weights = _Weights(entries, dictionary, ERROR_RATIO**level, typical_volume)
        for start in range(0, len(rows), CHUNK):
            part = rows[start : start + CHUNK]
            flow[part], volume[part], slope = weights.means(scores[part])
            gain[part] = np.linalg.norm(slope @ whitened.loading, axis=1)
    return Posterior(np.maximum(flow, 0), gain, np.maximum(volume, 0))


class _Weights:
    """The posterior of all curves with one error."""

    def __init__(self, entries, dictionary, error, typical_volume):
        mean, spread = VOLUME_MEAN * typical_volume, VOLUME_SD * typical_volume
        # the posterior of the volume of an entry is normal; 1 / precision is its variance
        precision = np.square(entries).sum(axis=1) / error**2 + 1 / spread**2
        root = np.sqrt(precision)
        self.entries = (entries.T / (error**2 * root)).astype(np.float32)
        self.offset = (mean / (spread**2 * root)).astype(np.float32)
        self.constant = (dictionary.log_prior - np.log(root)).astype(np.float32)
        flow_of, volume_of = 1 / (root * dictionary.transit), 1 / root
        self.moments = np.column_stack(
            [flow_of, volume_of, entries * (volume_of / error**2)[:, None]]
        ).astype(np.float32)
        self.products = (entries * (flow_of * volume_of / error**2)[:, None]).astype(np.float32)

    def means(self, scores):
        """Return flow, volume, and the slope of flow with the scores.

        The slope of a posterior mean is its covariance with the slope of the log likelihood.
        """
        # the mean volume of each entry in standard deviations
        volumes = scores @ self.entries
        volumes += self.offset
        weight = np.square(volumes)
        weight *= np.float32(0.5)
        weight += self.constant
        weight -= weight.max(axis=1, keepdims=True)
        np.maximum(weight, LEAST_LOG_WEIGHT, out=weight)
        np.exp(weight, out=weight)
        weight /= weight.sum(axis=1, keepdims=True)
        within = weight @ self.products
        weight *= volumes
        means = weight @ self.moments
        weight *= volumes
        flow, volume, fit = means[:, 0], means[:, 1], means[:, 2:]
        slope = weight @ self.products + within - flow[:, None] * fit
        return flow, volume, slope


def reading_of_core(dictionary, whitened, error, typical_volume):
    """Compute what the estimate makes of the relative flow of a core, without noise.

    Parameters
    ----------
    dictionary : Dictionary
    whitened : Whitening
    error : float
        Usual error of the curves (`curve_error`), HU: the larger, the more the prior counts.
    typical_volume : float
        As for `estimate_flow`.

    Returns
    -------
    float
        Relative flow that tissue with 15 % of normal flow, a transit of 10 s and a delay of 6 s
        reads, if normal tissue has a transit of 4 s and a delay of 1 s (exponential residue).
    """
    n_entries = len(dictionary.transit) // len(FAMILIES)
    flows = []
    for flow, transit, delay in (NORMAL, CORE):
        distance = np.abs(np.log(dictionary.transit[:n_entries] / transit)) + np.abs(
            dictionary.delay[:n_entries] - delay
        )
        entry = int(np.argmin(distance))
        # the volume of normal tissue is the typical one
        volume = flow * dictionary.transit[entry] / NORMAL[1] * typical_volume
        curve = volume * dictionary.curves[entry][None]
        posterior = estimate_flow(curve, np.array([error]), dictionary, whitened, typical_volume)
        flows.append(float(posterior.flow[0]))
    return flows[1] / flows[0] if flows[0] > 0 else float('nan')
