# SPDX-License-Identifier: Apache-2.0
"""AIF and VOF of a series: found automatically, or supplied by the user."""

from dataclasses import dataclass

import numpy as np

from ctpprep.exceptions import VesselError
from ctpprep.perfusion import bolus, denoising, grid, overrides, vessels

# the AIF is not scaled by more without being asked
MOST_SCALE = 5.0


@dataclass(frozen=True)
class InputFunctions:
    """AIF, VOF and mean tissue curve, and the voxels of AIF and VOF.

    Attributes
    ----------
    times : (M,) array
        True acquisition times of the slices of the AIF, s; for a supplied AIF, its own times.
    aif, vof, tissue : (M,) arrays
        HU above baseline; the VOF is NaN if there is none, and `tissue` is the mean over tissue.
    weights : (M,) array
        0 for rejected frames, whose curves are interpolated.
    aif_mask, vof_mask : (X, Y, Z) arrays of bool
        Empty if the curve was supplied or if there is none.
    automatic : (M,) array or None
        Beside a supplied AIF, the one that is found without it, HU; None if there is none.
    """

    times: np.ndarray
    aif: np.ndarray
    vof: np.ndarray
    tissue: np.ndarray
    weights: np.ndarray
    aif_mask: np.ndarray
    vof_mask: np.ndarray
    automatic: np.ndarray | None = None


def find_vessels(
    ctp, sample_times, affine, masks, settings, weights=None, supplied=None, damage=None
):  # fmt: skip
    """Find the AIF and the VOF of a corrected series, or use those supplied by the user.

    Parameters
    ----------
    ctp : (X, Y, Z, T) array
        Corrected series, HU.
    sample_times : (T,) or (Z, T) array
        Acquisition times, s; slices run from feet to head.
    affine : (4, 4) array
        Voxel to patient RAS, mm.
    masks : Masks
        ``intracranial``, ``tissue``, ``n_baseline`` and ``arrival_s`` are used.
    settings : MethodSettings
        Uses the branch ``vessels``.
    weights : (T,) array, optional
        0 for rejected frames; 1 by default.
    supplied : overrides.SuppliedCurves or overrides.SuppliedMask, optional
        An AIF as a curve, optionally with a VOF, or as the mask of its voxels.
    damage : (X, Y, Z) array, optional
        Change of each voxel by motion, HU, `preprocessing.Corrected.damage`; 0 by default.

    Returns
    -------
    InputFunctions

    Raises
    ------
    VesselError
        If there is no artery-like curve, if a supplied AIF does not match the series, or if there is
        no vein-like curve to which the AIF is to be scaled.

    Notes
    -----
    The AIF is the mean of high, early, narrow and smooth curves (Mouridsen et al. 2006,
    doi:10.1002/mrm.20759, describe the criteria).
    """
    search = _Search(ctp, sample_times, affine, masks, settings.vessels, weights, damage)
    return search.run(supplied)


class _Search:
    """The candidate voxels of one series, with their curves smoothed in plane and in 3D."""

    def __init__(self, ctp, sample_times, affine, masks, method, weights, damage):
        self.ctp, self.affine, self.method, self.masks = ctp, affine, method, masks
        self.weights = np.ones(ctp.shape[3]) if weights is None else np.asarray(weights)
        self.usable = self.weights > 0
        self.samples = grid.times_by_slice(sample_times, ctp.shape[2])
        self.times, self.slice_pattern = grid.sampling_patterns(self.samples)
        candidates = masks.intracranial
        self.pattern = np.broadcast_to(self.slice_pattern, candidates.shape)[candidates]
        self.curves = self._enhancement(candidates)
        changed = np.zeros(len(self.curves)) if damage is None else damage[candidates]
        before = bolus.baseline(ctp, masks.n_baseline, self.weights)
        soft = bolus.is_soft(before[candidates], float(np.median(before[masks.tissue])))
        self.damage = np.where(soft, changed, np.inf)
        sigma = np.asarray(method.vessel_smoothing_mm) / grid.voxel_size_mm(affine)
        self.in_plane, self.smooth = (
            denoising.smooth_by_pattern(
                self.curves, candidates, candidates, self.slice_pattern, width
            )
            for width in (sigma * (1, 1, 0), sigma)
        )
        noise = denoising.curve_noise(self.smooth, self.weights, masks.n_baseline)
        self.noise = float(np.median(noise))
        self.tissue_curves = self.smooth[masks.tissue[candidates]][:, self.usable]
        smooth_in_time = vessels.smooth_in_time(self.tissue_curves)
        self.tissue_peak = float(np.median(smooth_in_time.max(axis=1)))
        self.tissue = vessels.Tissue(self.tissue_peak, self._tissue_arrival(smooth_in_time))

    def run(self, supplied):
        by_curve = isinstance(supplied, overrides.SuppliedCurves)
        vof, aif_mask = None, None
        if by_curve:
            aif, vof = self._crop(supplied)
        elif supplied is not None:
            aif, aif_mask = self._average(supplied)
        else:
            aif = self._find_aif()
        automatic = None if supplied is None else self._find_beside()
        if vof is None:
            vof = self._find_vof(aif)
        aif, vof = self._restore_height(aif), self._restore_height(vof)
        if by_curve:
            times, weights = aif.times, np.ones(len(aif.times))
            tissue_times = self.times.mean(axis=0)
        else:
            # rejected frames are interpolated in the table, as the operator assumes
            times = next(row for row in self.times if np.array_equal(row[self.usable], aif.times))
            weights, tissue_times = self.weights, times
        return InputFunctions(
            times,
            np.interp(times, aif.times, aif.curve),
            np.full(len(times), np.nan) if vof is None else np.interp(times, vof.times, vof.curve),
            np.interp(times, tissue_times[self.usable], self.tissue_curves.mean(axis=0)),
            weights,
            self._mask_of(aif) if aif_mask is None else aif_mask,
            self._mask_of(vof),
            None if automatic is None else np.interp(times, automatic.times, automatic.curve),
        )

    def _find_aif(self):
        return vessels.find_aif(
            *self._candidates(),
            self.tissue,
            self.noise,
            aif_voxels=self.method.aif_voxels,
            damage=self.damage,
        )

    def _find_beside(self):
        """Find the AIF that a supplied one is compared with; None if there is none."""
        try:
            return self._restore_height(self._find_aif())
        except VesselError:
            return None

    def _enhancement(self, mask):
        return bolus.enhancement(self.ctp, mask, self.masks.n_baseline, self.weights)

    def _tissue_arrival(self, curves):
        """Return the arrival in mean tissue, averaged over the sampling patterns by voxels, s."""
        pattern = self.pattern[self.masks.tissue[self.masks.intracranial]]
        arrivals, counts = [], []
        for group in np.unique(pattern):
            mean = curves[pattern == group].mean(axis=0)
            times = self.times[group][self.usable]
            arrivals.append(vessels.curve_features(mean[None], times).arrival[0])
            counts.append(np.count_nonzero(pattern == group))
        return float(np.average(arrivals, weights=counts))

    def _candidates(self):
        usable = self.usable
        return (
            self.in_plane[:, usable],
            self.smooth[:, usable],
            self.times[:, usable],
            self.pattern,
        )

    def _crop(self, supplied):
        """Check supplied curves against the bolus of the series and crop them to the scan."""
        frames = self.samples.mean(axis=0)
        scan = (float(self.samples.min()), float(self.samples.max()))
        overrides.check_aif(
            supplied.times, supplied.aif, float(frames[0]) + self.masks.arrival_s, scan,
            float(np.median(np.diff(frames))), supplied.name,
        )  # fmt: skip
        nowhere = np.array([], dtype=int)
        cropped = []
        for curve in (supplied.aif, supplied.vof):
            if curve is not None:
                times, part = overrides.crop_to_scan(supplied.times, curve, scan)
                cropped.append(vessels.Vessel(part, times, nowhere))
        return cropped[0], cropped[1] if len(cropped) > 1 else None

    def _average(self, supplied):
        """Average the supplied voxels in the sampling pattern that contains most of them."""
        before = bolus.baseline(self.ctp, self.masks.n_baseline, self.weights)
        mask = overrides.place_mask(supplied, before, self.affine, few_voxels=True)
        mask &= np.isfinite(before)
        counts = np.bincount(self.slice_pattern, mask.sum(axis=(0, 1)), minlength=len(self.times))
        group = int(np.argmax(counts))
        mask &= self.slice_pattern == group
        curve = np.nanmean(self._enhancement(mask), axis=0)[self.usable]
        overrides.check_rise(curve, self.noise, self.tissue_peak, int(mask.sum()), supplied.name)
        times = self.times[group][self.usable]
        return vessels.Vessel(curve, times, np.array([], dtype=int)), mask

    def _find_vof(self, aif):
        """Find the VOF; a slab without a sinus has none, which matters only if the AIF is scaled."""
        try:
            return vessels.find_vof(
                *self._candidates(),
                aif,
                aif_voxels=self.method.aif_voxels,
                noise=self.noise,
                damage=self.damage,
            )
        except VesselError:
            if self.method.aif_scaling == 'vof':
                raise
        return None

    def _restore_height(self, vessel):
        if vessel is None or not vessel.voxels.size:
            return vessel
        same_pattern = self.pattern == self.pattern[vessel.voxels[0]]
        return vessels.restore_height(vessel, self.curves[same_pattern][:, self.usable])

    def _mask_of(self, vessel):
        candidates = self.masks.intracranial
        mask = np.zeros(candidates.shape, dtype=bool)
        if vessel is not None:
            mask[tuple(np.argwhere(candidates)[vessel.voxels].T)] = True
        return mask


def aif_scale(times, aif, vof, scaling):
    """Compute the factor that gives the AIF the area of the VOF, to correct partial volume.

    Parameters
    ----------
    times : (T,) array
        s.
    aif, vof : (T,) arrays
        HU; `vof` is NaN if there is none.
    scaling : {'auto', 'none', 'vof'}
        As the setting ``aif_scaling``.

    Returns
    -------
    float
        1 without scaling, without a VOF, or if the area of the AIF is not smaller: then there is no
        partial volume to correct. For 'auto' also 1 if the factor exceeds 5, which is more than
        partial volume explains.

    Notes
    -----
    A large sinus drains what the arteries brought, and is larger than a voxel. Disputed: in most
    patients the carotid has a larger area than the sinus.

    Examples
    --------
    >>> aif_scale([0, 1, 2], np.array([0.0, 10, 0]), np.array([0.0, 15, 0]), 'auto')
    1.5
    """
    if scaling == 'none' or np.isnan(vof).any():
        return 1.0
    factor = float(np.trapezoid(vof, times) / np.trapezoid(aif, times))
    if not factor > 1 or (scaling == 'auto' and factor > MOST_SCALE):
        return 1.0
    return factor
