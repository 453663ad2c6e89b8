"""Deconvolution by truncated singular value decomposition (Ostergaard et al., MRM 1996;36:715)."""

import numpy as np

THRESHOLD = 0.2  # singular values below this share of the greatest are dropped
STEP = 0.5  # s


def deconvolve(curves, times, aif_times, aif):
    """Find the maximum of the residue function of each voxel.

    curves: (V, T) HU; times: (T,) s; aif_times, aif: (M,) s and HU. Returns the height (1/s) and the
    time (s) of the maximum, (V,) each.
    """
    grid = np.arange(times[0], times[-1], STEP)
    n = len(grid)
    # block-circulant: the result does not depend on whether tissue leads or lags the artery
    padded = np.zeros(2 * n)
    padded[:n] = np.interp(grid, aif_times, aif)
    rows = np.arange(2 * n)
    matrix = padded[(rows[:, None] - rows) % (2 * n)] * STEP
    u, s, vt = np.linalg.svd(matrix)
    inverse = np.where(s > THRESHOLD * s[0], 1 / s, 0)
    pseudo = (vt.T * inverse) @ u.T
    even = np.array([np.interp(grid, times, curve) for curve in curves])
    residue = even @ pseudo[:, :n].T
    highest = residue.argmax(axis=1)
    # the second half of a circulant residue function lies before time zero
    return residue.max(axis=1), np.where(highest < n, highest, highest - 2 * n) * STEP
