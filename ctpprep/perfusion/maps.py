# SPDX-License-Identifier: Apache-2.0
"""Perfusion maps from tissue curves: CBF, CBV, MTT, Tmax and TTP.

Sources: Fieselmann et al., Int J Biomed Imaging 2011:467563, doi:10.1155/2011/467563; Ostergaard
et al., MRM 1996;36:715, doi:10.1002/mrm.1910360510.
"""

import numpy as np

from ctpprep.perfusion.deconvolution import residue_peak

# voxels per matrix product, which limits the memory of the residue functions
CHUNK = 32768
MAPS = ('cbf', 'cbv', 'mtt', 'tmax', 'ttp')


def flow(residue_height, hematocrit_factor, tissue_density):
    """Convert the maximum of the flow-scaled residue function to CBF.

    Parameters
    ----------
    residue_height : array
        max k, 1/s.
    hematocrit_factor : float
        k_H.
    tissue_density : float
        rho, g/mL.

    Returns
    -------
    array
        CBF, mL/100 g/min: ``6000 (k_H / rho) max k``.

    Examples
    --------
    >>> round(flow(0.0142, 0.733, 1.04), 1)
    60.0
    """
    return 6000.0 * (hematocrit_factor / tissue_density) * residue_height


def blood_volume(tissue_area, aif_area, hematocrit_factor, tissue_density):
    """Convert the areas under the tissue curve and the AIF to CBV.

    Parameters
    ----------
    tissue_area : array
        Area under the tissue curve, HU s.
    aif_area : float
        Area under the AIF over the same time, HU s.
    hematocrit_factor, tissue_density : float
        k_H and rho (g/mL).

    Returns
    -------
    array
        CBV, mL/100 g, not below 0: ``100 (k_H / rho) tissue_area / aif_area``.

    Examples
    --------
    >>> round(float(blood_volume(120.0, 2000.0, 0.733, 1.04)), 2)
    4.23
    """
    return np.maximum(
        100.0 * (hematocrit_factor / tissue_density) * np.asarray(tissue_area) / aif_area, 0.0
    )


def trapezoid_weights(times, weights):
    """Return the weights that integrate a sampled curve.

    Parameters
    ----------
    times : (T,) array
        Sample times, s.
    weights : (T,) array
        0 for rejected frames, across which the curve is interpolated linearly.

    Returns
    -------
    (T,) array
        s.

    Examples
    --------
    >>> trapezoid_weights([0, 1, 3], [1, 1, 1])
    array([0.5, 1.5, 1. ])
    """
    times = np.asarray(times, dtype=float)
    good = np.asarray(weights) > 0
    steps = np.diff(times[good])
    area = np.zeros(len(times))
    area[good] = 0.5 * (np.concatenate([steps, [0]]) + np.concatenate([[0], steps]))
    return area


def time_to_peak(curves, times, weights):
    """Find the time of the maximum of each curve, between the samples.

    Parameters
    ----------
    curves : (V, T) array
        Enhancement, HU.
    times : (T,) array
        Sample times, s.
    weights : (T,) array
        0 for rejected frames.

    Returns
    -------
    (V,) array
        s.
    """
    good = np.asarray(weights) > 0
    even = np.arange(times[good][0], times[good][-1] + 1e-6, 0.5)
    # linear interpolation of all curves is a product with one small matrix
    spread = np.stack([np.interp(even, times[good], row) for row in np.eye(int(good.sum()))])
    return residue_peak(curves[:, good] @ spread, even)[1]


def perfusion_maps(
    curves, times, weights, operator, tmax_operator, aif_area, tissue_share,
    *, scan_start, hematocrit_factor, tissue_density, tmax_offset, excess=0.0,
):  # fmt: skip
    """Compute the maps of voxels that share a sampling pattern.

    Parameters
    ----------
    curves : (V, T) array
        Tissue enhancement, HU.
    times : (T,) array
        Sample times, s.
    weights : (T,) array
        Frame weights.
    operator, tmax_operator : Operator
        Deconvolutions for these times: the maximum of the first gives CBF, the time of the maximum
        of the second gives Tmax. More regularization makes Tmax less noisy, less makes CBF less
        biased.
    aif_area : float
        Area under the AIF, HU s.
    tissue_share : (V,) array
        Tissue fraction of each voxel, by which CBF and CBV are divided; ones give the flow of the
        whole voxel.
    scan_start : float
        Start of the scan, from which TTP is measured, s.
    hematocrit_factor, tissue_density : float
        k_H and rho (g/mL).
    tmax_offset : float
        Subtracted from Tmax, s; 0 gives the uncalibrated map.
    excess : float or (V,) array
        Bias of the maximum by noise, subtracted before CBF is computed, 1/s.

    Returns
    -------
    dict of (V,) arrays of float32
        ``cbf`` (mL/100 g/min), ``cbv`` (mL/100 g), ``mtt`` (s), ``tmax`` (s, not below 0),
        ``ttp`` (s since the start of the scan), and ``cbf_time``, the time of the maximum that gives
        CBF, on the grid of `operator` (s).
    """
    n_curves = len(curves)
    height, cbf_time = (np.zeros(n_curves, dtype=np.float32) for _ in range(2))
    tmax = time_of_maximum(curves, tmax_operator)
    excess = np.broadcast_to(np.float32(excess), n_curves)
    matrix = operator.matrix.T.astype(np.float32)
    for part in _chunks(n_curves):
        chunk = np.asarray(curves[part], dtype=np.float32)
        height[part], cbf_time[part] = residue_peak(chunk @ matrix, operator.tau)
        height[part] = np.maximum(height[part] - excess[part], 0.0)
    maps = quantify(
        curves, times, weights, height, tmax - tmax_offset, aif_area, tissue_share,
        scan_start=scan_start, hematocrit_factor=hematocrit_factor, tissue_density=tissue_density,
    )  # fmt: skip
    return maps | {'cbf_time': cbf_time}


def time_of_maximum(curves, operator):
    """Find the time of the maximum of each residue function.

    Parameters
    ----------
    curves : (V, T) array
        Tissue enhancement, HU.
    operator : Operator

    Returns
    -------
    (V,) array
        s.
    """
    time, matrix = np.zeros(len(curves)), operator.matrix.T.astype(np.float32)
    for part in _chunks(len(curves)):
        chunk = np.asarray(curves[part], dtype=np.float32)
        time[part] = residue_peak(chunk @ matrix, operator.tau)[1]
    return time


def quantify(
    curves, times, weights, height, tmax, aif_area, tissue_share,
    *, scan_start, hematocrit_factor, tissue_density, volume=None,
):  # fmt: skip
    """Compute the maps from the maxima of the residue functions and the areas of the curves.

    Parameters
    ----------
    curves, times, weights, aif_area, tissue_share
        As for `perfusion_maps`.
    height : (V,) array
        Maximum of the flow-scaled residue function, 1/s.
    tmax : (V,) array
        Time of that maximum, s.
    scan_start, hematocrit_factor, tissue_density : float
        As for `perfusion_maps`.
    volume : (V,) array, optional
        Area of each curve over that of the AIF; by default that of the samples.

    Returns
    -------
    dict of (V,) arrays of float32
        ``cbf`` (mL/100 g/min), ``cbv`` (mL/100 g), ``mtt`` (s), ``tmax`` (s, not below 0) and
        ``ttp`` (s since the start of the scan).
    """
    n_curves = len(curves)
    maps = {name: np.zeros(n_curves, dtype=np.float32) for name in MAPS}
    area = trapezoid_weights(times, weights)
    for part in _chunks(n_curves):
        chunk = np.asarray(curves[part], dtype=np.float32)
        share = np.asarray(tissue_share[part], dtype=np.float32)
        tissue_area = chunk @ area if volume is None else aif_area * volume[part]
        blood = blood_volume(tissue_area, aif_area, hematocrit_factor, tissue_density)
        maps['cbf'][part] = flow(height[part], hematocrit_factor, tissue_density) / share
        maps['cbv'][part] = blood / share
        maps['tmax'][part] = np.maximum(tmax[part], 0.0)
        maps['ttp'][part] = time_to_peak(chunk, times, weights) - scan_start
    moving = maps['cbf'] > 0
    maps['mtt'][moving] = 60.0 * maps['cbv'][moving] / maps['cbf'][moving]
    return maps


def _chunks(n_curves):
    """Yield slices of voxels that are computed together."""
    for start in range(0, n_curves, CHUNK):
        yield slice(start, start + CHUNK)
