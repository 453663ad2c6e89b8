# SPDX-License-Identifier: Apache-2.0
"""Is left in a series also left in the non-contrast CT (NCCT) of the same session?

A mirrored series contradicts nothing in its own file. Beside the NCCT it does, as far as the head is not
symmetric: after registration, the mirror image of the series then fits better than the series.
"""

import numpy as np

from ctpprep.exceptions import PerfusionError

# the mirror image leaves less of the variance unexplained by this factor: 4 to 14 in a real head and a
# phantom that are mirrored, 1.3 in a symmetric template; the second must fit by the first limit, and the
# other by the second, since otherwise its registration has failed
LEAST_RATIO, LEAST_FIT, LEAST_OTHER_FIT = 2.0, 0.9, 0.6
# fewer common voxels are not compared
LEAST_SEEN = 1000


def likeness(placed, ncct, head):
    """Correlate the densities of a registered image with those of the NCCT.

    Parameters
    ----------
    placed : (X, Y, Z) array
        Reference image on the grid of the NCCT, both in the same window; NaN outside its field of view.
    ncct : (X, Y, Z) array
    head : (X, Y, Z) array of bool

    Returns
    -------
    float
        Pearson correlation in the head; NaN if hardly any of it is in both images.
    """
    seen = head & np.isfinite(placed)
    if np.count_nonzero(seen) < LEAST_SEEN or not np.ptp(placed[seen]) or not np.ptp(ncct[seen]):
        return float('nan')
    return float(np.corrcoef(placed[seen], ncct[seen])[0, 1])


def fits_clearly_better(first, second):
    """Return whether one correlation with the NCCT leaves much less unexplained than another.

    Parameters
    ----------
    first, second : float
        From `likeness`; NaN is never clear.

    Returns
    -------
    bool
    """
    return bool(first >= LEAST_FIT and 1 - second > LEAST_RATIO * (1 - first))


def check_side(own, mirrored, name):
    """Refuse a series whose mirror image fits the NCCT clearly better.

    Parameters
    ----------
    own, mirrored : float
        Correlation of the series, and of its mirror image, with the NCCT, by `likeness`.
    name : str
        File name of the NCCT, for messages.

    Raises
    ------
    PerfusionError

    Examples
    --------
    >>> check_side(0.979, 0.910, 'ncct.nii')
    >>> check_side(0.910, 0.979, 'ncct.nii')
    Traceback (most recent call last):
    ...
    ctpprep.exceptions.PerfusionError: ncct.nii: the mirror image of the series fits it better ...
    """
    if fits_clearly_better(mirrored, own) and own >= LEAST_OTHER_FIT:
        raise PerfusionError(
            f'{name}: the mirror image of the series fits it better (correlation {mirrored:.3f}) than the '
            f'series ({own:.3f}), so one of them is mirrored; check both affines (--affine-from), or '
            'remove the CT'
        )
