# SPDX-License-Identifier: Apache-2.0
"""Bootstrap and cross-validation of participants."""

import math
from collections.abc import Sequence

import numpy as np

N_BOOTSTRAP, N_FOLDS, N_REPEATS, SEED = 2000, 10, 10, 20240277


def bootstrap_weights(n: int, draws: int = N_BOOTSTRAP, seed: int = SEED) -> np.ndarray:
    """Draw participants with replacement: how often each of them is in each draw.

    Returns
    -------
    (draws, n) array
    """
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=draws).astype(float)


def weighted_means(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean of the participants that have a value, for each draw.

    Parameters
    ----------
    values : (N, K) array
        NaN if missing.
    weights : (B, N) array

    Returns
    -------
    (B, K) array
    """
    known = np.isfinite(values)
    total = weights @ known
    sums = weights @ np.where(known, values, 0.0)
    return np.divide(sums, total, out=np.full(sums.shape, np.nan), where=total > 0)


def interval(draws: np.ndarray) -> tuple[float, float]:
    """95 % interval by the percentiles of the draws that have a value."""
    draws = draws[np.isfinite(draws)]
    if not draws.size:
        return math.nan, math.nan
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def best_index(means: np.ndarray, more_is_better: bool) -> np.ndarray:
    """Index of the best mean along the last axis; of equal ones, the middle.

    Examples
    --------
    >>> int(best_index(np.array([0.1, 0.5, 0.5, 0.5, 0.2]), True))
    2
    """
    score = np.where(np.isfinite(means), means if more_is_better else -means, -np.inf)
    best = score == score.max(axis=-1, keepdims=True)
    order = best.cumsum(axis=-1)
    middle = (order[..., -1:] + 1) // 2
    return (best & (order == middle)).argmax(axis=-1)


def cross_validate(
    values: np.ndarray, more_is_better: bool, judged: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Judge each participant at the threshold that the others choose.

    Parameters
    ----------
    values : (N, K) array
        The criterion, by participant and threshold.
    more_is_better : bool
    judged : sequence of (N, K) arrays
        Figures to judge.

    Returns
    -------
    list of (N,) arrays
        Mean over the repetitions, for each of `judged`.
    """
    from sklearn.model_selection import RepeatedKFold

    n = len(values)
    folds = RepeatedKFold(n_splits=min(N_FOLDS, n), n_repeats=N_REPEATS, random_state=SEED)
    sums = [np.zeros(n) for _ in judged]
    for others, held_out in folds.split(values):
        means = weighted_means(values[others], np.ones((1, len(others))))[0]
        best = int(best_index(means, more_is_better))
        for total, figure in zip(sums, judged, strict=True):
            total[held_out] += figure[held_out, best]
    return [total / N_REPEATS for total in sums]
