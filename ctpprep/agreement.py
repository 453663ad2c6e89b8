# SPDX-License-Identifier: Apache-2.0
"""Agreement of scores with a binary truth, by scikit-learn.

The only module that imports scikit-learn for the science: import it inside the function that needs it.
"""

import numpy as np
from sklearn import calibration, metrics

BINS = 10


def area_under_curve(truth, score):
    """Area under the ROC curve; NaN without voxels of both classes.

    Parameters
    ----------
    truth : (N,) array of bool
    score : (N,) array
        Higher where the truth is more likely.

    Returns
    -------
    float

    Examples
    --------
    >>> float(area_under_curve(np.array([False, True, True]), np.array([0.1, 0.4, 0.3])))
    1.0
    """
    if not truth.any() or truth.all():
        return float('nan')
    # as roc_auc_score, which first examines the labels twice
    false_positives, sensitivity, _ = metrics.roc_curve(truth, score)
    return float(metrics.auc(false_positives, sensitivity))


def brier_score(truth, probability):
    """Mean squared difference of a probability and the truth; NaN without voxels.

    Parameters
    ----------
    truth : (N,) array of bool
    probability : (N,) array
        0 to 1.

    Returns
    -------
    float
    """
    if not truth.size:
        return float('nan')
    return float(metrics.brier_score_loss(truth, probability, pos_label=True))


def reliability(truth, probability):
    """Mean probability and observed frequency in ten bins of equal width.

    Parameters
    ----------
    truth : (N,) array of bool
    probability : (N,) array
        0 to 1.

    Returns
    -------
    list of (float, float, int)
        Mean probability, observed frequency and number of voxels of each bin that has any.
    """
    if not truth.size:
        return []
    observed, predicted = calibration.calibration_curve(
        truth, probability, n_bins=BINS, pos_label=True
    )
    edges = np.linspace(0, 1, BINS + 1)
    counts = np.bincount(np.searchsorted(edges[1:-1], probability), minlength=BINS)
    return [
        (float(mean), float(share), int(n))
        for mean, share, n in zip(predicted, observed, counts[counts > 0], strict=True)
    ]
