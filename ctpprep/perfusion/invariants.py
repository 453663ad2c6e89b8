# SPDX-License-Identifier: Apache-2.0
"""Invariants: figures of a result whose right value follows from physics or from a definition.

Each function compares parts of a result with one another, and none with a truth. The limits are in
`quality.CHECKS`; the docstrings give the equation, the reason and what a violation means.
"""

import numpy as np
from scipy import ndimage, optimize

from ctpprep.exceptions import PerfusionError
from ctpprep.perfusion import brain, normalization, segmentation, symmetry
from ctpprep.perfusion.denoising import smooth_within
from ctpprep.perfusion.symmetry import OTHER_SIDE, SIDES
from ctpprep.perfusion.vessels import curve_features

# fewer voxels are not compared: their median is noise
LEAST_VOXELS = 200
# late tissue is compared if it is at least this share of all
LEAST_LATE_SHARE = 0.01
# tissue whose curve peaks this much after the other side is late, whatever its Tmax, s
LATE_PEAK_S = 4.0
# end of the first pass of tissue, after its peak, relative to the peak
FIRST_PASS = 0.5
# sigma of the structure that a map of flow has beside its noise, mm: cortex and white matter alternate
# within a centimetre
STRUCTURE_MM = 4.0
# slices with fewer voxels of tissue have no median worth comparing
LEAST_SLICE_VOXELS = 50
# slices with a smaller share of the normal tissue of the largest have noisy curves
LEAST_OF_LARGEST = 0.1
# homologues of these many voxels are mapped back
RETURNED = 20000
# delays and transit times of the tissue that the AIF must explain, s, and step of the integration
DELAYS_S = (-0.5, 0, 0.5, 1, 1.5, 2, 3, 4, 5, 6, 8)
TRANSITS_S = (1, 2, 3, 4, 6, 8, 12, 16, 24)
FINE_STEP_S = 0.25
# longest run of frames whose order is tried
LONGEST_RUN = 6
# width of a sector of the brain, seen from its centre, degrees
SECTOR_DEGREES = 45.0


def missing_values(maps, tissue_mask):
    """Measure the share of tissue in which any map is not a number.

    Every voxel of tissue has a curve, and so a value. A value that is not finite is a failed
    computation, which adds to no lesion: NaN is below no threshold.

    Parameters
    ----------
    maps : sequence of (X, Y, Z) array
    tissue_mask : (X, Y, Z) array of bool

    Returns
    -------
    float
        Fraction.

    Examples
    --------
    >>> missing_values([np.array([1.0, np.nan])], np.ones(2, bool))
    0.5
    """
    if not tissue_mask.any():
        return float('nan')
    bad = np.zeros(np.count_nonzero(tissue_mask), bool)
    for values in maps:
        bad |= ~np.isfinite(values[tissue_mask])
    return float(bad.mean())


def values_outside(maps, tissue_mask):
    """Measure the share of the values of maps outside of tissue, where computed maps are 0.

    A map that was shifted, mirrored or exchanged also has values outside of tissue, since the tissue
    of a head is not symmetric voxel by voxel.

    Parameters
    ----------
    maps : sequence of (X, Y, Z) array
    tissue_mask : (X, Y, Z) array of bool

    Returns
    -------
    float
        Of the worst map, fraction.

    Examples
    --------
    >>> values_outside([np.array([1.0, 2.0, 0.0])], np.array([True, False, True]))
    0.5
    """
    shares = [0.0]
    for values in maps:
        count = np.count_nonzero(values)
        shares.append(np.count_nonzero(values[~tissue_mask]) / max(count, 1))
    return float(max(shares))


def peak_per_delay(ttp, tmax, tissue_mask, hemispheres, affected_side, hypoperfusion_tmax):
    """Compare the delay of late tissue by the peaks of its curves with that by Tmax.

    The curve of tissue that fills later peaks later by the same time, and by somewhat more if its transit
    is also longer: the ratio is 1 to 1.5. Tmax in another unit, or scaled, gives another.

    Parameters
    ----------
    ttp, tmax : (X, Y, Z) arrays
        s.
    tissue_mask : (X, Y, Z) array of bool
    hemispheres : (X, Y, Z) array
        1 left, 2 right.
    affected_side : {'left', 'right'}
    hypoperfusion_tmax : float
        Tmax from which tissue is late, s.

    Returns
    -------
    float or None
        Difference of the medians of TTP in late tissue of the affected and in all tissue of the other
        side, over that of Tmax; None if there is little late tissue, by Tmax and by TTP.
    """
    affected = tissue_mask & (hemispheres == SIDES[affected_side])
    healthy = tissue_mask & (hemispheres == SIDES[OTHER_SIDE[affected_side]])
    if min(affected.sum(), healthy.sum()) < LEAST_VOXELS:
        return None

    def apart(late):
        return [float(np.median(part[late]) - np.median(part[healthy])) for part in (ttp, tmax)]

    late = affected & (tmax > hypoperfusion_tmax)
    if late.sum() >= max(LEAST_VOXELS, LEAST_LATE_SHARE * tissue_mask.sum()):
        by_peak, by_tmax = apart(late)
    else:
        # late by its peaks, but not by Tmax
        by_peak, by_tmax = apart(affected & (tmax >= np.percentile(tmax[affected], 90)))
        if by_peak < LATE_PEAK_S:
            return None
    return by_peak / by_tmax if by_tmax > 0 else None


def peak_after_delay(times, aif, ttp, tmax, tissue_mask, hemispheres, affected_side):
    """Measure how long after its delayed artery tissue peaks, on the unaffected side.

    Tissue is the AIF after a delay of about Tmax and a transit of some seconds, so that it peaks after
    the peak of the AIF plus Tmax, by less than its transit time.

    Parameters
    ----------
    times, aif : (T,) arrays
        s, HU.
    ttp, tmax : (X, Y, Z) arrays
        Since the first of the times, and since the AIF, s.
    tissue_mask : (X, Y, Z) array of bool
    hemispheres : (X, Y, Z) array
        1 left, 2 right.
    affected_side : {'left', 'right'}

    Returns
    -------
    float or None
        Median of TTP - Tmax, less the peak of the AIF, s.
    """
    healthy = tissue_mask & (hemispheres == SIDES[OTHER_SIDE[affected_side]])
    if healthy.sum() < LEAST_VOXELS:
        return None
    peak = float(curve_features(np.asarray(aif, float)[None], np.asarray(times)).peak_time[0])
    return float(np.median((ttp - tmax)[healthy])) - (peak - float(times[0]))


def flow_volume_time(cbf, cbv, mtt, tissue_mask, hemispheres):
    """Measure the violation of the central volume theorem, CBV = CBF MTT / 60.

    The equation defines MTT (Meier and Zierler 1954, doi:10.1152/jappl.1954.6.12.731), so it is exact
    in each voxel but for rounding. Any change of one of the maps alone violates it.

    Parameters
    ----------
    cbf, cbv, mtt : (X, Y, Z) arrays
        mL/100 g/min, mL/100 g and s.
    tissue_mask : (X, Y, Z) array of bool
    hemispheres : (X, Y, Z) array
        1 left, 2 right.

    Returns
    -------
    float or None
        Median of the difference of CBF MTT / 60 and CBV, over CBV, in the worse hemisphere.

    Examples
    --------
    >>> ones = np.ones(400)
    >>> round(flow_volume_time(45 * ones, 4 * ones, 4 * ones, ones > 0, ones), 2)
    0.25
    """
    errors = []
    for label in SIDES.values():
        part = tissue_mask & (hemispheres == label) & (cbf > 0) & (cbv > 0)
        if part.sum() >= LEAST_VOXELS:
            errors.append(np.median(np.abs(cbf[part] * mtt[part] / (60 * cbv[part]) - 1)))
    return float(max(errors)) if errors else None


def relative_to_flow(rcbf_global, cbf, cbf_reference, tissue_mask):
    """Measure the violation of the definition of the global map, rCBF = CBF / reference.

    Parameters
    ----------
    rcbf_global, cbf : (X, Y, Z) arrays
        Fraction, mL/100 g/min.
    cbf_reference : float
        CBF of the global reference, mL/100 g/min.
    tissue_mask : (X, Y, Z) array of bool

    Returns
    -------
    float or None
        90th percentile of the difference of rCBF times reference and CBF, over the median CBF.
    """
    part = tissue_mask & np.isfinite(cbf) & np.isfinite(rcbf_global)
    middle = float(np.median(cbf[part])) if part.sum() >= LEAST_VOXELS else 0.0
    if middle <= 0:
        return None
    error = np.abs(rcbf_global[part] * cbf_reference - cbf[part])
    return float(np.percentile(error, 90) / middle)


def reference_median(rcbf_global, tmax, tissue_mask, hemispheres, affected_side, settings):
    """Measure the median of the global map over its own reference tissue, which is 1 by definition.

    The reference tissue is chosen again from Tmax, so that a map in percent, a wrong reference value,
    and a reference from other tissue all show.

    Parameters
    ----------
    rcbf_global, tmax : (X, Y, Z) arrays
        Fraction, s.
    tissue_mask : (X, Y, Z) array of bool
    hemispheres : (X, Y, Z) array
        1 left, 2 right.
    affected_side : {'left', 'right'}
    settings : MethodSettings
        Uses the branch ``normalization``.

    Returns
    -------
    float or None
        None if there is no reference tissue.
    """
    mask = reference_mask(tmax, tissue_mask, hemispheres, affected_side, settings)
    return None if mask is None else float(np.median(rcbf_global[mask]))


def reference_mask(tmax, tissue_mask, hemispheres, affected_side, settings):
    """Choose the global reference tissue again; None if there is none.

    Parameters
    ----------
    tmax : (X, Y, Z) array
        s.
    tissue_mask, hemispheres, affected_side, settings
        As for `reference_median`.

    Returns
    -------
    (X, Y, Z) array of bool or None
    """
    method = settings.normalization
    try:
        return normalization.reference_tissue(
            tmax, hemispheres, tissue_mask, affected_side, global_reference=method.global_reference,
            normal_tmax=method.normal_tmax, least_normal_share=method.least_normal_share,
        ).mask  # fmt: skip
    except PerfusionError:
        return None


def spread(values, mask, low=25, high=75):
    """Measure the distance between two percentiles of a map.

    Grey matter has two to three times the flow of white matter, so the quartiles of CBF in normal tissue
    differ by a third of its median or more. A constant has none, and a root halves it.

    Parameters
    ----------
    values : (X, Y, Z) array
    mask : (X, Y, Z) array of bool
    low, high : float
        Percentiles.

    Returns
    -------
    float or None
        In the unit of the map.
    """
    part = values[mask & np.isfinite(values)]
    return float(np.subtract(*np.percentile(part, (high, low)))) if part.size else None


def structure(values, mask, voxel_size_mm):
    """Measure the share of the variance of a map that is finer than a centimetre.

    Cortex is 3 mm thick and borders on white matter with a third of its flow, so a large share of the
    variance is in structures that a Gaussian of 4 mm blurs. A map that was smoothed more has none.

    Parameters
    ----------
    values : (X, Y, Z) array
    mask : (X, Y, Z) array of bool
    voxel_size_mm : (3,) sequence of float

    Returns
    -------
    float or None
        Variance of the difference between the map and itself smoothed in plane, over its variance; None
        for a constant.
    """
    if mask.sum() < LEAST_VOXELS:
        return None
    filled = np.where(mask, np.nan_to_num(values), 0).astype(np.float32)
    sigma = [STRUCTURE_MM / size for size in voxel_size_mm[:2]] + [0.0]
    fine = (filled - smooth_within(filled, mask, sigma))[mask]
    whole = float(filled[mask].var())
    return float(fine.var() / whole) if whole > 0 else None


def flow_asymmetry(cbf, tmax, tissue_mask, hemispheres, normal_tmax):
    """Compare the flow of normally perfused tissue between the hemispheres.

    Tissue whose blood arrives in time has the flow of its kind, and both hemispheres are the same
    mixture of kinds: their medians differ by less than a tenth in health, and by up to a fifth if cortex
    or white matter of one side is largely diseased.

    Parameters
    ----------
    cbf, tmax : (X, Y, Z) arrays
        mL/100 g/min, s.
    tissue_mask : (X, Y, Z) array of bool
    hemispheres : (X, Y, Z) array
        1 left, 2 right.
    normal_tmax : float
        Largest Tmax of normally perfused tissue, s.

    Returns
    -------
    float or None
        Difference of the medians over their mean; None if one side has little normal tissue.

    Examples
    --------
    >>> cbf = np.repeat([30.0, 50.0], 300); side = np.repeat([1, 2], 300)
    >>> flow_asymmetry(cbf, 0 * cbf, cbf > 0, side, 4.0)
    0.5
    """
    medians = []
    for label in SIDES.values():
        side = tissue_mask & (hemispheres == label)
        normal = side & (tmax <= normal_tmax)
        if normal.sum() < max(LEAST_VOXELS, 0.25 * side.sum()):
            return None
        medians.append(float(np.median(cbf[normal])))
    mean = sum(medians) / 2
    return abs(medians[0] - medians[1]) / mean if mean > 0 else None


def slice_step(tmax, tissue_mask, hemispheres, affected_side):
    """Measure the largest jump of Tmax from slice to slice, on the unaffected side.

    Blood reaches neighbouring slices within a fraction of a second of one another; their acquisition
    times are known. A jump means that the times of some slices are wrong. End slices with less than a
    tenth of the tissue of the largest are left out: noise and motion decide there.

    Parameters
    ----------
    tmax : (X, Y, Z) array
        s.
    tissue_mask : (X, Y, Z) array of bool
    hemispheres : (X, Y, Z) array
        1 left, 2 right.
    affected_side : {'left', 'right'}

    Returns
    -------
    float or None
        s; None for fewer than two slices.
    """
    healthy = tissue_mask & (hemispheres == SIDES[OTHER_SIDE[affected_side]])
    counts = np.count_nonzero(healthy, axis=(0, 1))
    least = max(LEAST_SLICE_VOXELS, LEAST_OF_LARGEST * counts.max())
    medians = [
        float(np.median(tmax[..., z][healthy[..., z]])) for z in np.flatnonzero(counts >= least)
    ]
    return float(np.abs(np.diff(medians)).max()) if len(medians) > 1 else None


def sector_filled(reference, brain_mask, voxel_size_mm, bone_hu):
    """Measure how much of the inside of the skull the brain fills, in its emptiest sector.

    Brain fills the skull but for the subarachnoid space, which is 10 mm wide even in atrophy. A mask that
    misses a lobe, or was eroded, leaves a sector empty.

    Parameters
    ----------
    reference : (X, Y, Z) array
        Without contrast, HU.
    brain_mask : (X, Y, Z) array of bool
        With sulci and ventricles.
    voxel_size_mm : (3,) sequence of float
    bone_hu : float
        Density above which a voxel is bone, HU.

    Returns
    -------
    float or None
        Least fraction over sectors of 45 degrees around the centre of the skull, over all slices of
        the brain; None if there is no inside of a skull.
    """
    try:
        inside = brain.inside_skull(reference, voxel_size_mm, bone_hu)
    except PerfusionError:
        return None
    inside = inside & brain_mask.any(axis=(0, 1))
    if not inside.any():
        return 0.0
    where = np.argwhere(inside) * np.asarray(voxel_size_mm)
    across, along = (where - where.mean(axis=0))[:, :2].T
    angle = np.degrees(np.arctan2(along, across)) + SECTOR_DEGREES / 2
    sector = (angle // SECTOR_DEGREES).astype(int) % int(360 / SECTOR_DEGREES)
    filled = np.bincount(sector, brain_mask[inside], int(360 / SECTOR_DEGREES))
    whole = np.bincount(sector, minlength=int(360 / SECTOR_DEGREES))
    return float((filled / np.maximum(whole, 1))[whole >= LEAST_VOXELS].min(initial=1.0))


def side_of_patient(hemispheres, affine):
    """Measure how well the labels of the hemispheres agree with the patient axes.

    In RAS coordinates x grows from left to right. The midline may be tilted, turned and bent, but in each
    slice the centre of the left hemisphere has the smaller x.

    Parameters
    ----------
    hemispheres : (X, Y, Z) array
        1 left, 2 right.
    affine : (4, 4) array
        Voxel to patient RAS, mm.

    Returns
    -------
    float or None
        Fraction of the labelled voxels on their own side of the middle between the centres of both, in
        their slice; None if there is only one hemisphere.
    """
    right_side = count = 0
    x = symmetry.world_coordinates(hemispheres.shape, affine)[..., 0]
    for z in range(hemispheres.shape[2]):
        labels = hemispheres[..., z]
        parts = [x[..., z][labels == label] for label in (SIDES['left'], SIDES['right'])]
        if min(part.size for part in parts) < LEAST_SLICE_VOXELS:
            continue
        middle = (parts[0].mean() + parts[1].mean()) / 2
        right_side += np.count_nonzero(parts[0] < middle) + np.count_nonzero(parts[1] > middle)
        count += parts[0].size + parts[1].size
    return right_side / count if count else None


def vein_behind_artery(aif_mask, vof_mask, affine):
    """Measure how far the voxels of the VOF are behind those of the AIF.

    The large sinuses drain backwards, and the arteries of the circle of Willis are in the front half of
    the brain. A head that is turned by 180 degrees, as by LPS coordinates read as RAS, or written from
    back to front, has the vein in front.

    Parameters
    ----------
    aif_mask, vof_mask : (X, Y, Z) arrays of bool
    affine : (4, 4) array
        Voxel to patient RAS, mm.

    Returns
    -------
    float or None
        mm; negative if the vein is in front. None without voxels of both.

    Examples
    --------
    >>> aif, vof = np.zeros((2, 1, 9, 1), bool)
    >>> aif[0, 6], vof[0, 1] = True, True
    >>> vein_behind_artery(aif, vof, np.diag([3.0, 3, 5, 1]))
    15.0
    """
    if not (aif_mask.any() and vof_mask.any()):
        return None
    y = symmetry.world_coordinates(aif_mask.shape, affine)[..., 1]
    return float(y[aif_mask].mean() - y[vof_mask].mean())


def homologues_return(homologues, affine, tissue_mask):
    """Measure the distance after mapping to the homologue and back.

    The homologue of a homologue is the voxel itself. A shift of the homologues by some distance shows
    twice, whatever its direction, and homologues on the same side show as their distance to the midline.

    Parameters
    ----------
    homologues : (X, Y, Z, 3) array
        Patient coordinates of the homologues, mm RAS; NaN where unknown.
    affine : (4, 4) array
    tissue_mask : (X, Y, Z) array of bool

    Returns
    -------
    float or None
        Median, mm; None if no homologue of a homologue is known.
    """
    points = np.argwhere(tissue_mask & np.isfinite(homologues).all(axis=-1))
    points = points[:: max(1, len(points) // RETURNED)]
    if not len(points):
        return None
    own = points @ affine[:3, :3].T + affine[:3, 3]
    away = homologues[tuple(points.T)]
    voxels = np.rint((away - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T).astype(int)
    inside = ((voxels >= 0) & (voxels < tissue_mask.shape)).all(axis=1)
    back = homologues[tuple(voxels[inside].T)]
    # the nearest voxel is not the homologue itself: its homologue is as far from the start
    centre = voxels[inside] @ affine[:3, :3].T + affine[:3, 3]
    offset = (away[inside] - centre) * (-1, 1, 1)
    distance = np.linalg.norm(back + offset - own[inside], axis=1)
    distance = distance[np.isfinite(distance)]
    return float(np.median(distance)) if distance.size else None


def homologues_crossing(homologues, hemispheres, affine, tissue_mask):
    """Measure the share of tissue whose homologue is in the other hemisphere.

    Parameters
    ----------
    homologues : (X, Y, Z, 3) array
        Patient coordinates, mm RAS; NaN where unknown.
    hemispheres : (X, Y, Z) array
        1 left, 2 right, 0 outside the brain.
    affine : (4, 4) array
    tissue_mask : (X, Y, Z) array of bool

    Returns
    -------
    float or None
        Fraction of the tissue whose homologue is in the brain.
    """
    known = tissue_mask & np.isfinite(homologues).all(axis=-1)
    inverse = np.linalg.inv(affine)
    voxels = np.rint(homologues[known] @ inverse[:3, :3].T + inverse[:3, 3]).astype(int)
    inside = ((voxels >= 0) & (voxels < hemispheres.shape)).all(axis=1)
    own, other = hemispheres[known][inside], hemispheres[tuple(voxels[inside].T)]
    in_brain = (own > 0) & (other > 0)
    return float((own != other)[in_brain].mean()) if in_brain.any() else None


def local_median(rcbf_local, tmax, tissue_mask, normal_tmax):
    """Measure the median of the local map over normally perfused tissue.

    Flow over the flow of the homologue is 1 where both are healthy. Disease of one side moves the median
    by little, since most of normally perfused tissue has a normally perfused homologue.

    Parameters
    ----------
    rcbf_local, tmax : (X, Y, Z) arrays
        Fraction; 0 where it is not assessable. s.
    tissue_mask : (X, Y, Z) array of bool
    normal_tmax : float
        s.

    Returns
    -------
    float or None
    """
    part = tissue_mask & (tmax <= normal_tmax) & (rcbf_local > 0)
    return float(np.median(rcbf_local[part])) if part.sum() >= LEAST_VOXELS else None


def outside_ml(masks, tissue_mask, hemispheres, side, voxel_size_mm):
    """Measure the lesion outside of tissue, or outside of the side that is searched.

    Parameters
    ----------
    masks : sequence of (X, Y, Z) array of bool
    tissue_mask : (X, Y, Z) array of bool
    hemispheres : (X, Y, Z) array
        1 left, 2 right.
    side : {'left', 'right', 'both'}
    voxel_size_mm : (3,) sequence of float

    Returns
    -------
    float
        Of the worst mask, mL; 0 by definition.
    """
    within = segmentation.within_side(tissue_mask, hemispheres, side)
    voxel_ml = float(np.prod(np.asarray(voxel_size_mm, dtype=float))) / 1000
    return max((np.count_nonzero(mask & ~within) * voxel_ml for mask in masks), default=0.0)


def agreement(masks, expected, voxel_size_mm, least_ml=1.0):
    """Compare lesions with those that the segmentation of the maps gives again.

    The same maps and rules give the same lesion, whatever its size. A core of one normalization that is
    written as that of the other, a shifted mask, or a map that changed after its segmentation differ.

    Parameters
    ----------
    masks, expected : dict of str to (X, Y, Z) array of bool
    voxel_size_mm : (3,) sequence of float
    least_ml : float
        Differences below this volume are ignored, mL.

    Returns
    -------
    float
        Least Dice over the lesions of either; 1 if they agree.
    """
    voxel_ml, least = float(np.prod(np.asarray(voxel_size_mm, dtype=float))) / 1000, 1.0
    for name in masks.keys() | expected.keys():
        if name not in masks or name not in expected:
            return 0.0
        first, second = masks[name], expected[name]
        if np.count_nonzero(first != second) * voxel_ml > least_ml:
            both = np.count_nonzero(first & second)
            least = min(least, 2 * both / (np.count_nonzero(first) + np.count_nonzero(second)))
    return least


def frame_order(times, curves, weights=None):
    """Measure how much smoother the curves become if a run of frames is reversed.

    Contrast changes slowly from frame to frame, so that each frame is nearly between its neighbours, and
    no other order of the frames is much smoother than that in which they were acquired. All runs of two
    to six frames are tried.

    Parameters
    ----------
    times : (T,) array
        s.
    curves : (N, T) array
        Enhancement of AIF, tissue and VOF, HU; each is divided by its peak.
    weights : (T,) array, optional
        0 for rejected frames, which are skipped.

    Returns
    -------
    float
        Least roughness of another order over that of this order: about 1 if the order is right. The
        roughness is the sum of the squared distances of the frames from the line between their
        neighbours.

    Examples
    --------
    >>> times = np.arange(0, 40, 1.5)
    >>> curve = np.exp(-(((times - 15) / 5) ** 2))[None]
    >>> swapped = curve.copy(); swapped[:, 8:12] = curve[:, 11:7:-1]
    >>> bool(frame_order(times, curve) > 0.9), bool(frame_order(times, swapped) < 0.5)
    (True, True)
    """
    good = np.ones(len(times), bool) if weights is None else np.asarray(weights) > 0
    times, curves = np.asarray(times, dtype=float)[good], np.asarray(curves, dtype=float)[:, good]
    curves = curves / np.abs(curves).max(axis=1, keepdims=True)
    share = (times[1:-1] - times[:-2]) / (times[2:] - times[:-2])

    def roughness(values):
        between = values[:, :-2] + share * (values[:, 2:] - values[:, :-2])
        return float(np.square(values[:, 1:-1] - between).sum())

    rough, least = roughness(curves), np.inf
    for length in range(2, LONGEST_RUN + 1):
        for start in range(curves.shape[1] - length + 1):
            run = slice(start, start + length)
            other = curves.copy()
            other[:, run] = other[:, run][:, ::-1]
            least = min(least, roughness(other))
    return least / rough if rough > 0 and np.isfinite(least) else float('nan')


def mean_curves(tissue_curves, tissue_mask, region, by_slice=False):
    """Average the denoised curves of a region, by sampling pattern or by slice.

    Parameters
    ----------
    tissue_curves : estimation.TissueCurves
    tissue_mask, region : (X, Y, Z) arrays of bool
    by_slice : bool

    Returns
    -------
    list of (int, (T,) array, (T,) array)
        Number of voxels, times (s) and mean curve (HU); regions of few voxels are left out.
    """
    slices = np.broadcast_to(np.arange(tissue_mask.shape[2]), tissue_mask.shape)[tissue_mask]
    patterns = np.asarray(tissue_curves.slice_pattern)[slices]
    groups = slices if by_slice else patterns
    chosen, curves = region[tissue_mask], []
    for group in np.unique(groups[chosen]):
        rows = chosen & (groups == group)
        if rows.sum() >= (LEAST_SLICE_VOXELS if by_slice else LEAST_VOXELS):
            pattern = patterns[rows][0]
            scores = tissue_curves.scores[rows].mean(axis=0)
            mean = tissue_curves.centres[pattern] + tissue_curves.components[pattern] @ scores
            curves.append((int(rows.sum()), tissue_curves.times[pattern], mean.astype(float)))
    return curves


def tissue_unexplained(aif_times, aif, times, tissue):
    """Measure the part of a curve of normal tissue that no tissue can make of the AIF.

    The curve of tissue is the AIF, delayed and spread by the transit through the tissue: never narrower
    than the AIF, never before it. Non-negative amounts of tissue with delays up to 8 s and transit times
    up to 24 s are fitted to the first pass, until the curve falls to half of its peak. The AIF of
    another patient, one that is too wide, or one on another clock cannot be made to fit.

    Parameters
    ----------
    aif_times, aif : (M,) arrays
        s, HU.
    times, tissue : (T,) arrays
        s, and the mean curve of normal tissue, HU.

    Returns
    -------
    float
        Sum of the squared residuals over that of the curve.

    Examples
    --------
    Tissue as narrow as its artery is possible, an artery twice as wide is not:

    >>> times = np.arange(0, 60, 1.5)
    >>> artery, wide = (np.exp(-0.5 * ((times - 20) / width) ** 2) for width in (4, 8))
    >>> bool(tissue_unexplained(times, artery, times, artery) < 0.004)
    True
    >>> bool(tissue_unexplained(times, wide, times, artery) > 0.05)
    True
    """
    times, curve = np.asarray(times, dtype=float), np.asarray(tissue, dtype=float)
    top = int(np.argmax(curve))
    fallen = np.flatnonzero(curve[top:] < FIRST_PASS * curve[top])
    end = top + int(fallen[0]) + 1 if fallen.size else len(curve)
    times, curve = times[:end], curve[:end]
    if not curve.any():
        return float('nan')
    fine = np.arange(times[0] - max(DELAYS_S) - max(TRANSITS_S), times[-1] + 1, FINE_STEP_S)
    filled = np.cumsum(np.interp(fine, aif_times, aif, left=0.0)) * FINE_STEP_S

    def before(shift):
        return np.interp(times - shift, fine, filled)

    made = np.stack(
        [before(d) - before(d + length) for d in DELAYS_S for length in TRANSITS_S], axis=1
    )
    try:
        left = optimize.nnls(made, curve, maxiter=5000)[1]
    except RuntimeError:
        return float('nan')
    return float(left**2 / np.square(curve).sum())


def arrival_step(curves):
    """Measure the largest jump of the arrival of contrast from slice to slice.

    Unlike Tmax, which is cut at 0, the arrival also shows slices that are too early.

    Parameters
    ----------
    curves : list of (int, (T,) array, (T,) array)
        From `mean_curves`, by slice.

    Returns
    -------
    float or None
        s, by the time at which the curve first reaches half of its peak; None for fewer than two
        slices.
    """
    arrivals, largest = [], max((count for count, *_ in curves), default=0)
    for count, times, curve in curves:
        if count < LEAST_OF_LARGEST * largest:
            continue
        top = int(np.argmax(curve))
        low = np.flatnonzero(curve[: top + 1] < 0.5 * curve[top])
        if low.size:
            part = slice(low[-1], low[-1] + 2)
            arrivals.append(float(np.interp(0.5 * curve[top], curve[part], times[part])))
    return float(np.abs(np.diff(arrivals)).max()) if len(arrivals) > 1 else None


def relative_to_homologue(
    rcbf_local, rcbf_global, homologues, tissue_mask, unassessable, affine, settings
):  # fmt: skip
    """Measure the violation of the definition of the local map, rCBF over that of the homologue.

    The homologues are looked up again, and the global map at these points is clipped and smoothed as by
    `normalization.normalize_to_homologue`.

    Parameters
    ----------
    rcbf_local, rcbf_global : (X, Y, Z) arrays
        Fractions.
    homologues : (X, Y, Z, 3) array
        Patient coordinates of the homologues, mm RAS; NaN where unknown.
    tissue_mask, unassessable : (X, Y, Z) arrays of bool
    affine : (4, 4) array
    settings : MethodSettings
        Uses the branch ``normalization``.

    Returns
    -------
    float or None
        Median of the relative difference where both have a value.
    """
    inverse = np.linalg.inv(affine)
    where = np.nan_to_num(homologues, nan=1e6) @ inverse[:3, :3].T + inverse[:3, 3]
    mirrored, share = (
        ndimage.map_coordinates(
            np.asarray(volume, dtype=np.float32), np.moveaxis(where, -1, 0), order=1
        )
        for volume in (np.where(tissue_mask, rcbf_global, 0), tissue_mask)
    )
    expected = normalization.normalize_to_homologue(
        rcbf_global, mirrored, share, tissue_mask, affine, settings
    ).local
    part = tissue_mask & ~unassessable & (expected > 0)
    if part.sum() < LEAST_VOXELS:
        return None
    return float(np.median(np.abs(rcbf_local[part] / expected[part] - 1)))


def tissue_of_brain(tissue_mask, brain_mask):
    """Measure the share of the brain that is tissue; tissue outside the brain counts against it.

    CSF and vessels are a tenth of the brain, a third in severe atrophy.

    Parameters
    ----------
    tissue_mask, brain_mask : (X, Y, Z) arrays of bool

    Returns
    -------
    float
        Intersection over union.
    """
    union = np.count_nonzero(tissue_mask | brain_mask)
    return np.count_nonzero(tissue_mask & brain_mask) / union if union else float('nan')


def tissue_outside(tissue_mask, brain_mask):
    """Measure the share of tissue outside of the brain, of which it is a part by definition.

    Parameters
    ----------
    tissue_mask, brain_mask : (X, Y, Z) arrays of bool

    Returns
    -------
    float
        Fraction.
    """
    count = np.count_nonzero(tissue_mask)
    return np.count_nonzero(tissue_mask & ~brain_mask) / count if count else float('nan')


def dice(first, second):
    """Return the Dice coefficient of two masks; None if both are empty.

    Examples
    --------
    >>> dice(np.array([True, True, False]), np.array([True, False, True]))
    0.5
    """
    total = np.count_nonzero(first) + np.count_nonzero(second)
    return float(2 * np.count_nonzero(first & second) / total) if total else None
