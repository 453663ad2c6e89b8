# SPDX-License-Identifier: Apache-2.0
r"""Deconvolution of tissue curves by Tikhonov regularization, as one matrix product.

The tissue curve is the flow-scaled residue function convolved with the arterial input,
:math:`c(t_i) = \int c_a(t_i - \tau)\, k(\tau)\, d\tau`. With `k` expressed by hat functions on a fine
grid that begins before zero (tissue may precede the AIF), this is ``c = A k`` for the true sample
times of a slice, and

.. math:: k = \arg\min \lVert W^{1/2}(A k - c)\rVert^2 + \lambda^2 \lVert L k\rVert^2
            = (A^T W A + \lambda^2 L^T L)^{-1} A^T W\, c = P\, c

is a product with one small matrix `P` per sampling pattern, for any number of voxels.

Sources: Fieselmann et al., Int J Biomed Imaging 2011:467563, doi:10.1155/2011/467563 (model);
Calamante et al., MRM 2003;50:1237, doi:10.1002/mrm.10643 (Tikhonov regularization of residue
functions).
"""

from dataclasses import dataclass

import numpy as np
from scipy import linalg

from ctpprep.exceptions import PerfusionError
from ctpprep.perfusion.kinetics import convolve_input, exponential_residue, interpolate_input

# relative lambdas tried by cross-validation
LAMBDAS = np.geomspace(0.005, 2.0, 60)
# a curve that begins less than this before the last frame is hardly acquired, s
SEEN_S = 3.0
# the maximum is always searched up to this delay, s
LEAST_SEARCH_S = 12.0
# transit of normal tissue and of a core, s, and the flow of the core, relative to normal
NORMAL_MTT_S, CORE_MTT_S, CORE_FLOW = 4.0, 10.0, 0.15


@dataclass(frozen=True)
class Operator:
    """The deconvolution of one sampling pattern.

    Attributes
    ----------
    matrix : (N, T) array
        `P`, from the tissue curve (HU) to the flow-scaled residue function (1/s), up to the last
        delay that the scan covers.
    tau : (N,) array
        Times of the residue function, s.
    regularization : float
        `lambda`, in the units of `A`.
    tmax_offset : float
        Tmax that the operator returns for tissue without delay, s.
    """

    matrix: np.ndarray
    tau: np.ndarray
    regularization: float
    tmax_offset: float


def residue_times(times, step, lead):
    """Return the time grid of the residue function.

    Parameters
    ----------
    times : (T,) array
        Sample times of the tissue, s.
    step : float
        Time step, s.
    lead : float
        Time before zero at which the grid begins, s.

    Returns
    -------
    (N,) array
        From ``-lead`` to the length of the scan, s; zero is on the grid.
    """
    before = int(np.ceil(lead / step))
    after = int(np.floor((np.max(times) - np.min(times)) / step))
    return np.arange(-before, after + 1) * step


def convolution_matrix(aif_times, aif, times, tau, oversampling=8):
    """Compute `A`: hat functions of the residue grid convolved with the arterial input.

    Parameters
    ----------
    aif_times, aif : (M,) arrays
        Samples of the arterial input, s and HU.
    times : (T,) array
        Sample times of the tissue, s.
    tau : (N,) array
        Evenly spaced grid of the residue function, s.
    oversampling : int
        Integration points per grid step.

    Returns
    -------
    (T, N) array
        HU s.

    Examples
    --------
    With a constant residue function of 1, an input of area 1 gives 1 after it has passed:

    >>> tau = np.arange(0, 10.5, 0.5)
    >>> A = convolution_matrix([0, 1, 2], [0, 1, 0], [5.0], tau)
    >>> round(float((A @ np.ones(len(tau)))[0]), 3)
    1.0
    """
    step = tau[1] - tau[0]
    fine = np.arange(tau[0] * oversampling, (tau[-1] + step) * oversampling, step) / oversampling
    hats = np.maximum(0.0, 1.0 - np.abs(fine[:, None] - tau) / step)
    curve = interpolate_input(aif_times, aif)
    return curve(np.asarray(times, dtype=float)[:, None] - fine) @ hats * (step / oversampling)


def penalty_matrix(n_times, step, order):
    """Compute `L`: the derivative that regularization penalizes.

    The residue function is assumed to be 0 before its grid begins; its end is unconstrained.

    Parameters
    ----------
    n_times : int
        Length of the residue grid.
    step : float
        Its time step, s.
    order : {0, 1, 2}
        Order of the derivative.

    Returns
    -------
    (n_times, n_times) array
        In 1/s**order, so that its weight does not depend on the time step.

    Examples
    --------
    >>> penalty_matrix(3, 1.0, 1)
    array([[ 1.,  0.,  0.],
           [-1.,  1.,  0.],
           [ 0., -1.,  1.]])
    """
    penalty = np.eye(n_times)
    for _ in range(order):
        penalty[1:] = penalty[1:] - penalty[:-1]
    return penalty / step**order


def deconvolution_operator(
    aif_times,
    aif,
    times,
    weights,
    *,
    penalty_order,
    lambda_rel,
    residue_step,
    residue_lead,
    calibration_mtt,
):
    """Compute the deconvolution of one sampling pattern.

    Parameters
    ----------
    aif_times, aif : (M,) arrays
        Arterial input, s and HU above baseline.
    times : (T,) array
        True sample times of the tissue, s.
    weights : (T,) array
        Weight of each frame; 0 excludes it.
    penalty_order : {0, 1, 2}
        Order of the derivative in the penalty.
    lambda_rel : float
        `lambda` relative to the largest singular value of `A`.
    residue_step, residue_lead : float
        Grid of the residue function, s.
    calibration_mtt : float
        Mean transit time of the tissue that defines `tmax_offset`, s.

    Returns
    -------
    Operator

    Notes
    -----
    Regularization lowers the peak of `k`, most for short transit times, and widens it, which delays
    Tmax by 1-3 s; `tmax_offset` is this delay. `k` is estimated for the length of the scan, but for
    long delays the scan covers only the first rise of the curve. That part of `k` is noise and is
    excluded from the search for the maximum.
    """
    times = np.asarray(times, dtype=float)
    tau = residue_times(times, residue_step, residue_lead)
    root = np.sqrt(np.asarray(weights, dtype=float))
    weighted = root[:, None] * convolution_matrix(aif_times, aif, times, tau)
    regularization = lambda_rel * linalg.norm(weighted, 2)
    penalty = regularization * penalty_matrix(len(tau), residue_step, int(penalty_order))
    stacked = np.vstack([weighted, penalty])
    # QR decomposition, since the normal equations would square the condition number
    q, r = linalg.qr(stacked, mode='economic')
    matrix = linalg.solve_triangular(r, q[: len(times)].T) * root
    seen = tau <= last_seen(aif_times, aif, times[root > 0])
    matrix, tau = np.ascontiguousarray(matrix[seen]), tau[seen]
    reference = convolve_input(
        aif_times, aif, lambda t: exponential_residue(t, calibration_mtt), times
    )
    offset = residue_peak(reference @ matrix.T, tau)[1]
    return Operator(matrix, tau, float(regularization), float(offset))


def last_seen(aif_times, aif, times):
    """Return the longest delay at which a scan can determine the maximum of a residue function.

    Parameters
    ----------
    aif_times, aif : (M,) arrays
        s and HU.
    times : (T,) array
        Sample times of the tissue in usable frames, s.

    Returns
    -------
    float
        Time from the peak of the AIF to 3 s before the last frame, at least 12 s; s.

    Examples
    --------
    >>> float(last_seen([0, 10, 20], [0, 300, 50], [0, 45]))
    32.0
    """
    peak = np.asarray(aif_times)[np.argmax(aif)]
    return max(float(np.max(times) - peak) - SEEN_S, LEAST_SEARCH_S)


def cross_validate(
    curves, aif_times, aif, times, weights, *, penalty_order, residue_step, residue_lead
):
    r"""Score relative lambdas by generalized cross-validation.

    .. math:: V(\lambda) = \sum \lVert (I - H) c\rVert^2 / \mathrm{tr}(I - H)^2,\quad H = A P

    summed over all curves: the error of predicting a sample that is left out (Golub, Heath and
    Wahba, Technometrics 1979;21:215, doi:10.1080/00401706.1979.10489751).

    Parameters
    ----------
    curves : (V, T) array
        Tissue curves, HU, whose noise is independent between frames.
    aif_times, aif, times, weights, penalty_order, residue_step, residue_lead
        As for `deconvolution_operator`.

    Returns
    -------
    (L,) array
        Score of each of `LAMBDAS`; the lowest is best. Scores of sampling patterns can be added.

    Notes
    -----
    One singular value decomposition is used for all lambdas. Noise that is correlated in time is
    mistaken for signal, so that lambda is too small: do not use low-rank curves.
    """
    good = np.asarray(weights) > 0
    times = np.asarray(times, dtype=float)
    tau = residue_times(times, residue_step, residue_lead)
    root = np.sqrt(np.asarray(weights, dtype=float)[good])
    weighted = root[:, None] * convolution_matrix(aif_times, aif, times[good], tau)
    penalty = penalty_matrix(len(tau), residue_step, int(penalty_order))
    left, values, _ = linalg.svd(weighted @ linalg.inv(penalty))
    squares = np.zeros(len(left))
    squares[: len(values)] = np.square(values)
    energy = np.square((np.asarray(curves)[:, good] * root) @ left).sum(axis=0)
    strength = np.square(LAMBDAS * linalg.norm(weighted, 2))[:, None]
    missed = strength / (squares + strength)
    return (np.square(missed) @ energy) / np.square(missed.sum(axis=1))


def choose_lambda(scores, share):
    """Choose the relative lambda from the scores of cross-validation.

    Parameters
    ----------
    scores : (L,) array
        Scores of `LAMBDAS`, from `cross_validate`.
    share : float
        Factor on the best lambda: 1 if the validated curves themselves are deconvolved, less if they
        are denoised further.

    Returns
    -------
    float

    Raises
    ------
    PerfusionError
        If all scores are equal, because the curves are empty.
    """
    if not np.ptp(scores) > 0:
        raise PerfusionError(
            'deconvolution: the tissue curves are empty (all lambdas have the same score), need '
            'enhancement in tissue; check that the series shows contrast'
        )
    return share * float(LAMBDAS[np.argmin(scores)])


def residue_peak(residue, tau):
    """Find the maximum of residue functions, interpolated between grid points.

    Parameters
    ----------
    residue : (..., N) array
        Flow-scaled residue functions, 1/s.
    tau : (N,) array
        Evenly spaced time grid, s.

    Returns
    -------
    height : (...) array
        Maximum, 1/s, of the parabola through the largest value and its neighbours; not below 0.
    time : (...) array
        Time of the maximum, s.

    Examples
    --------
    >>> height, time = residue_peak(np.array([0.0, 3.0, 4.0, 3.0, 0.0]), np.arange(5.0))
    >>> float(height), float(time)
    (4.0, 2.0)
    """
    residue = np.asarray(residue)
    highest = np.argmax(residue, axis=-1)
    top = np.clip(highest, 1, residue.shape[-1] - 2)[..., None]
    left, middle, right = (
        np.take_along_axis(residue, top + shift, axis=-1)[..., 0] for shift in (-1, 0, 1)
    )
    bend = left - 2 * middle + right
    with np.errstate(divide='ignore', invalid='ignore'):
        shift = np.where(bend < 0, 0.5 * (left - right) / bend, 0.0)
    shift = np.clip(shift, -1.0, 1.0)
    height = middle - 0.25 * (left - right) * shift
    time = tau[top[..., 0]] + shift * (tau[1] - tau[0])
    # no parabola at the ends of the grid
    edge = highest != top[..., 0]
    height = np.where(edge, np.take_along_axis(residue, highest[..., None], -1)[..., 0], height)
    return np.maximum(height, 0.0), np.where(edge, tau[highest], time)


def reading_of_core(operator, aif_times, aif, times, weights, residue_step, residue_lead):
    """Compute what the operator makes of the relative flow of a core, without noise.

    Regularization lowers the maximum of a narrow residue function more than that of a wide one, so low
    flow with a long transit time is overestimated relative to normal tissue.

    Parameters
    ----------
    operator : Operator
    aif_times, aif : (M,) arrays
        s and HU.
    times : (T,) array
        Sample times, s.
    weights : (T,) array
        0 for rejected frames.
    residue_step, residue_lead : float
        As for `deconvolution_operator`, s.

    Returns
    -------
    float
        Relative flow that tissue with 15 % of normal flow reads, if normal transit takes 4 s and that
        in the core 10 s.
    """
    tau = residue_times(times, residue_step, residue_lead)
    system = convolution_matrix(aif_times, aif, times, tau)
    usable = np.asarray(weights) > 0
    heights = []
    for flow, transit in ((1.0, NORMAL_MTT_S), (CORE_FLOW, CORE_MTT_S)):
        residue = np.where(tau >= 0, flow * np.exp(-np.maximum(tau, 0) / transit), 0)
        curve = np.where(usable, system @ residue, 0)
        heights.append(float((operator.matrix @ curve).max()))
    return heights[1] / heights[0] if heights[0] > 0 else float('nan')
