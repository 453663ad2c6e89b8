# SPDX-License-Identifier: Apache-2.0
"""Volumes in mL and the trial criteria that follow from them.

Sources: Rau et al. 2024, doi:10.3174/ajnr.A8111 (volumes); Albers et al., NEJM 2018;378:708,
doi:10.1056/NEJMoa1713973 (DEFUSE 3: core < 70 mL, mismatch >= 15 mL, ratio >= 1.8, by relative CBF
< 30 % and Tmax > 6 s, whatever thresholds the masks have).
"""

import numpy as np

# thresholds by which the criteria were defined: fraction, s
DEFUSE3_RCBF, DEFUSE3_TMAX = 0.3, 6.0
DEFUSE3 = {'core_ml': 70.0, 'mismatch_ml': 15.0, 'ratio': 1.8}


def volume_ml(mask, voxel_size_mm):
    """Measure the volume of a mask.

    Parameters
    ----------
    mask : array of bool
    voxel_size_mm : (3,) sequence of float

    Returns
    -------
    float
        mL.

    Examples
    --------
    >>> volume_ml(np.ones((10, 10, 2), bool), (2, 2, 5))
    4.0
    """
    return float(np.count_nonzero(mask) * np.prod(np.asarray(voxel_size_mm, dtype=float)) / 1000)


def cleaning_ml(lesion, hypoperfusion, voxel_size_mm):
    """Measure the volumes that cleaning and restriction removed from a lesion.

    Parameters
    ----------
    lesion : Lesion
    hypoperfusion : (X, Y, Z) array of bool
    voxel_size_mm : (3,) sequence of float

    Returns
    -------
    dict
        ``specks``, ``rims``, ``unrestricted`` and ``within_hypoperfusion``, mL.
    """
    parts = {
        'specks': lesion.specks,
        'rims': lesion.rims,
        'unrestricted': lesion.unrestricted,
        'within_hypoperfusion': lesion.unrestricted & hypoperfusion,
    }
    return {name: volume_ml(part, voxel_size_mm) for name, part in parts.items()}


def mismatch_figures(core_ml, hypoperfusion_ml):
    """Compute mismatch volume and ratio as in trials, from the volumes.

    Parameters
    ----------
    core_ml, hypoperfusion_ml : float
        mL.

    Returns
    -------
    volume : float
        mL; may be negative.
    ratio : float
        Hypoperfusion over core; NaN without core.
    defuse3 : bool
        Whether the perfusion criteria of DEFUSE 3 are met.

    Examples
    --------
    >>> mismatch_figures(20.0, 80.0)
    (60.0, 4.0, True)
    >>> mismatch_figures(0.0, 80.0)
    (80.0, nan, True)
    """
    volume = hypoperfusion_ml - core_ml
    ratio = hypoperfusion_ml / core_ml if core_ml > 0 else float('nan')
    # without core, the ratio of any mismatch is infinite
    enough = hypoperfusion_ml > 0 if core_ml == 0 else ratio >= DEFUSE3['ratio']
    profile = core_ml < DEFUSE3['core_ml'] and volume >= DEFUSE3['mismatch_ml'] and enough
    return volume, ratio, bool(profile)


def uncalibrated_tmax(tmax, offset_by_slice):
    """Undo the calibration of Tmax: add the offset that was subtracted.

    Calibrated Tmax is clipped at 0, so a voxel with 0 may have had any value up to the offset: the
    result is exact only for thresholds of at least the offset.

    Parameters
    ----------
    tmax : (X, Y, Z) array
        Calibrated, s.
    offset_by_slice : (Z,) sequence of float or None
        Offset of each slice, s; None for slices without tissue.

    Returns
    -------
    (X, Y, Z) array
        s.

    Examples
    --------
    >>> uncalibrated_tmax(np.full((1, 1, 2), 5.0), [2.0, 2.5])
    array([[[7. , 7.5]]])
    """
    return tmax + np.array([offset or 0.0 for offset in offset_by_slice])
