# SPDX-License-Identifier: Apache-2.0
"""Motion correction, masks and bolus arrival of the series on the working grid."""

import functools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ctpprep.exceptions import PerfusionError
from ctpprep.perfusion import bolus, brain, grid, motion, overrides, same_head, symmetry
from ctpprep.perfusion import drift as drifts
from ctpprep.perfusion.motion import HEAD_HU

# density of air; scanners pad voxels outside the reconstruction with large negative numbers, HU
AIR_HU = -1024.0
# one in this many voxels of the head is used to measure its displacement
POINT_STEP = 97
# what is nearer to metal is not assessed, mm
METAL_MARGIN_MM = 10.0
# voxels that motion changes by more feed no denoising, if at least this fraction remains, HU
DAMAGED_HU, LEAST_UNDAMAGED = 2.0, 0.5
COLUMNS = ('trans_x', 'trans_y', 'trans_z', 'rot_x', 'rot_y', 'rot_z')


@dataclass(frozen=True)
class Corrected:
    """A motion-corrected series.

    Attributes
    ----------
    ctp : (X, Y, Z, T) array of float32
        HU, in the pose of the reference frame; NaN where a voxel is outside the field of view.
    transforms : (T, 4, 4) array
        From points of the reference frame to points of each frame, mm RAS; identities if no frame
        was resampled.
    weights : (T,) array
        0 for rejected frames, 1 for the others.
    confounds : dict of str to (T,) array
        Columns of motion parameters: mm, rad; NaN where unknown.
    reference_frame : int
    resampled : bool
        Whether frames were resampled.
    damage : (X, Y, Z) array of float32
        Change by interpolation at edges, `motion.measure_damage`, HU; 0 where unknown.
    drift : drift.Drift
        Drift of density over the scan, as far as it was measured and subtracted.
    """

    ctp: np.ndarray
    transforms: np.ndarray
    weights: np.ndarray
    confounds: dict[str, np.ndarray]
    reference_frame: int
    resampled: bool
    damage: np.ndarray
    drift: drifts.Drift


@dataclass(frozen=True)
class Masks:
    """Masks of a corrected series, and its bolus.

    Attributes
    ----------
    reference : (X, Y, Z) array of float32
        Mean of the corrected frames before contrast, HU.
    brain : (X, Y, Z) array of bool
        Brain, including sulci and ventricles.
    intracranial : (X, Y, Z) array of bool
        Inside the skull, away from bone and in the field of view of every usable frame: the search
        region of AIF and VOF.
    vessels, csf : (X, Y, Z) array of bool
    tissue : (X, Y, Z) array of bool
        Brain without vessels, CSF and what is hyperdense, in the field of view of every usable frame.
    hyperdense : (X, Y, Z) array of bool
        What is denser than brain and does not enhance: haematoma or calcification.
    metal : (X, Y, Z) array of bool
        Metal in or near the brain; nothing within 10 mm of it is tissue or vessel.
    pure : (X, Y, Z) array of bool
        Tissue away from vessels and bone: the source of denoising.
    n_baseline : int
        Number of frames before contrast.
    arrival_s, scan_duration_s : float
        Arrival of contrast after the first frame, and time from the first to the last frame, s.
    protrusion : float or None
        Part of the outline of a supplied brain mask that is too far out (`same_head.protrusion`).
    """

    reference: np.ndarray
    brain: np.ndarray
    intracranial: np.ndarray
    vessels: np.ndarray
    csf: np.ndarray
    tissue: np.ndarray
    hyperdense: np.ndarray
    metal: np.ndarray
    pure: np.ndarray
    n_baseline: int
    arrival_s: float
    scan_duration_s: float
    protrusion: float | None = None


def estimate_motion(ctp, affine, settings, num_threads=1):
    """Register every frame rigidly to the first usable frame.

    Parameters
    ----------
    ctp : (X, Y, Z, T) array
        Series on the working grid, HU.
    affine : (4, 4) array
        Voxel to patient RAS, mm.
    settings : MethodSettings
        Uses the branch ``motion``.
    num_threads : int
        Number of frames registered in parallel; the result is the same for any number.

    Returns
    -------
    transforms : (T, 4, 4) array
        From points of the reference frame to points of each frame, mm RAS.
    reference_frame : int
    """
    method = settings.motion
    in_plane = grid.voxel_size_mm(affine)[:2]
    factors = [max(1, round(method.motion_grid_mm / size)) for size in in_plane] + [1]
    coarse = grid.block_affine(affine, factors)
    frames = range(ctp.shape[3])

    similarity_of = _similarity_of(ctp[..., 0])
    window = outline_window(ctp[..., 0]) or method.motion_window_hu

    @functools.cache
    def image(frame):
        return grid.average_blocks(np.clip(ctp[..., frame], *window), factors)

    @functools.cache
    def target(reference):
        return motion.RigidTarget(image(reference), coarse, method.motion_smoothing_mm)

    @functools.cache
    def register(reference, frame):
        if frame == reference:
            return np.eye(4)
        return motion.register_rigid(target(reference), image(frame))

    with ThreadPoolExecutor(num_threads) as pool:

        def compare(reference, others):
            first = ctp[..., reference]
            head = first > HEAD_HU

            def similarity(frame):
                moved = motion.resample_frame(ctp[..., frame], affine, register(reference, frame))
                return similarity_of(moved, first, head)

            return list(pool.map(similarity, others))

        reference = motion.find_reference(len(frames), compare, method.motion_reject_similarity)
        transforms = list(pool.map(functools.partial(register, reference), frames))
    return np.stack(transforms), reference


def correct_motion(
    ctp, affine, settings, transforms=None, reference_frame=0, num_threads=1, frame_times=None
):  # fmt: skip
    """Resample all frames to the pose of the reference frame, if any moved, and weight them.

    A drift of density over the scan is subtracted if it is certain (`drift.measure_drift`).

    Parameters
    ----------
    ctp : (X, Y, Z, T) array
        Series on the working grid, HU.
    affine : (4, 4) array
    settings : MethodSettings
        Uses the branches ``motion`` and ``masks``.
    transforms : (T, 4, 4) array, optional
        From `estimate_motion`; no motion by default.
    reference_frame : int
    num_threads : int
        Number of frames resampled in parallel; the result is the same for any number.
    frame_times : (T,) array, optional
        s; evenly spaced by default.

    Returns
    -------
    Corrected
    """
    n_frames = ctp.shape[3]
    identities = np.tile(np.eye(4), (n_frames, 1, 1))
    if transforms is None:
        transforms = identities
    reference = ctp[..., reference_frame]
    head = reference > HEAD_HU
    points = symmetry.world_coordinates(head.shape, affine)[head][::POINT_STEP]
    similarity_of = _similarity_of(reference)
    corrected = np.empty(ctp.shape, dtype=np.float32, order='F')

    def correct(frame):
        corrected[..., frame] = motion.resample_frame(ctp[..., frame], affine, transforms[frame])
        return similarity_of(corrected[..., frame], reference, head)

    with ThreadPoolExecutor(num_threads) as pool:
        similarity = np.array(list(pool.map(correct, range(n_frames))))
    weights = motion.frame_weights(similarity, settings.motion.motion_reject_similarity)
    resampled = motion.has_moved(transforms, points, weights, settings.motion.motion_skip_mm)
    if not resampled:
        corrected[:] = ctp
    parameters = motion.rigid_parameters(transforms, points.mean(axis=0))
    confounds = dict(zip(COLUMNS, np.transpose(parameters), strict=True)) | {
        'framewise_displacement': motion.framewise_displacement(transforms, points),
        'displacement': motion.displacement(transforms, points),
        'skull_similarity': similarity,
        'weight': weights,
    }
    damage = np.zeros(ctp.shape[:3], dtype=np.float32)
    if resampled:
        damage = motion.measure_damage(corrected, affine, transforms, weights)
    drift = _correct_drift(corrected, frame_times, weights, affine, settings, resampled, ctp)
    return Corrected(
        corrected, transforms if resampled else identities, weights, confounds, reference_frame,
        resampled, damage, drift,
    )  # fmt: skip


def _correct_drift(
    corrected, frame_times, weights, affine, settings, resampled, acquired=None
):  # fmt: skip
    """Measure the drift of a corrected series, and subtract it in place if it is certain."""
    if np.count_nonzero(weights) < 3:
        return drifts.Drift({}, 0.0, None)
    times = np.arange(corrected.shape[3]) if frame_times is None else np.asarray(frame_times)
    drift = drifts.measure_drift(
        corrected, times, weights, grid.voxel_size_mm(affine), settings.masks.bone_hu, resampled,
        acquired,
    )  # fmt: skip
    if drift.corrected_hu:
        drifts.subtract_drift(corrected, times, drift.corrected_hu)
    return drift


def accept_corrected(ctp, affine, settings, frame_times=None):
    """Weight the frames of a precomputed motion-corrected series.

    Parameters
    ----------
    ctp : (X, Y, Z, T) array
        Corrected series, HU; air where a voxel is outside the field of view.
    affine : (4, 4) array
    settings : MethodSettings
        Uses the branches ``motion`` and ``masks``.
    frame_times : (T,) array, optional
        s; evenly spaced by default.

    Returns
    -------
    Corrected
        The motion is unknown, so its columns are NaN.
    """
    n_frames = ctp.shape[3]
    head = np.zeros(ctp.shape[:3], dtype=bool)
    for frame in range(n_frames):
        head |= ctp[..., frame] > HEAD_HU
    corrected = np.empty(ctp.shape, dtype=np.float32)
    similarity = np.ones(n_frames)
    similarity_of = _similarity_of(ctp[..., 0])
    for frame in range(n_frames):
        # where head turns into air, the voxel is outside the field of view
        missing = head & (ctp[..., frame] <= HEAD_HU)
        corrected[..., frame] = np.where(missing, np.nan, ctp[..., frame])
        similarity[frame] = similarity_of(
            corrected[..., frame], corrected[..., 0], head & np.isfinite(corrected[..., 0])
        )
    weights = motion.frame_weights(similarity, settings.motion.motion_reject_similarity)
    unknown = (*COLUMNS, 'framewise_displacement', 'displacement')
    confounds = {name: np.full(n_frames, np.nan) for name in unknown}
    confounds |= {'skull_similarity': similarity, 'weight': weights}
    identities = np.tile(np.eye(4), (n_frames, 1, 1))
    damage = np.zeros(ctp.shape[:3], dtype=np.float32)
    drift = _correct_drift(corrected, frame_times, weights, affine, settings, True)
    return Corrected(corrected, identities, weights, confounds, 0, False, damage, drift)


def outline_window(reference):
    """Find the densities that show the outline of a brain without skull, but not its contrast.

    Contrast makes tissue denser. Where the border of the brain is oblique to thick slices, denser
    looks like moved: with a window up to 50 HU, frames at the peak of the bolus were 1 to 2 mm off.
    Above half of the height of the border, contrast does not change the clipped image.

    Parameters
    ----------
    reference : (X, Y, Z) array
        A frame, HU; NaN outside the field of view.

    Returns
    -------
    tuple of float or None
        Lowest and highest density, HU; None if there is a skull.
    """
    reference = np.nan_to_num(reference, nan=AIR_HU)
    if not brain.is_stripped(reference):
        return None
    level, outside = brain.stripped_levels(reference)
    return outside, (outside + level) / 2


def _similarity_of(reference):
    """Return the measure that compares frames: the skull, or the outline if there is none."""
    window = outline_window(reference)
    if window is None:
        return motion.skull_similarity
    return functools.partial(motion.outline_similarity, window=window)


def make_masks(
    ctp, sample_times, affine, settings, weights=None, brain_mask=None, damage=None, aif=None,
    empty_slices=(), exclude=None,
):  # fmt: skip
    """Find brain, vessels, CSF and tissue, the arrival of the bolus, and the reference image.

    Parameters
    ----------
    ctp : (X, Y, Z, T) array
        Corrected series, HU; NaN where a voxel is outside the field of view.
    sample_times : (T,) or (Z, T) array
        Acquisition times, s; slices run from feet to head.
    affine : (4, 4) array
    settings : MethodSettings
        Uses the branch ``masks``.
    weights : (T,) array, optional
        Weight of each frame; 1 by default.
    brain_mask : overrides.SuppliedMask, optional
        Replaces the automatic brain mask.
    damage : (X, Y, Z) array, optional
        Change of each voxel by motion, HU, as in `Corrected`; 0 by default.
    aif : overrides.SuppliedCurves or overrides.SuppliedMask, optional
        A supplied AIF, whose rise is then the arrival of contrast.
    empty_slices : sequence of int
        Slices without values of their own, which are interpolated: they help to find the brain, but
        contain no tissue.
    exclude : overrides.SuppliedMask, optional
        Old lesions or surgery, which are not tissue.

    Returns
    -------
    Masks

    Raises
    ------
    BolusError
        If contrast does not arrive, or arrives before the second frame.
    PerfusionError
        If there is no brain or no tissue.
    """
    method = settings.masks
    weights = np.ones(ctp.shape[3]) if weights is None else weights
    times = grid.times_by_slice(sample_times, ctp.shape[2]).mean(axis=0)
    size = grid.voxel_size_mm(affine)
    # maximum of three frames, since one of them may be empty
    brain.check_density(np.fmax.reduce([ctp[..., i] for i in (0, ctp.shape[3] // 2, -1)]))
    seen = bolus.find_missing(ctp, weights) == 0
    average = _fill_air(bolus.baseline(ctp, ctp.shape[3], weights), seen)
    two_usable = int(np.flatnonzero(weights > 0)[:2].max()) + 1
    first = _fill_air(bolus.baseline(ctp, two_usable, weights), seen)
    brain_voxels, inside, protrusion = _find_brain(average, first, affine, method, brain_mask)
    levels = brain.density_levels(average, inside, size)
    seen[..., list(empty_slices)] = False
    metal = brain.metal_mask(average, inside, size)
    seen &= ~_around(metal, size)
    # exclude the outermost voxels, where moving bone could be mistaken for contrast
    deep, soft = find_search_region(first, inside, seen, levels, size, method.bone_margin_mm)
    series = _Series(ctp, times, weights, affine, damage)
    n_baseline, arrival = _find_arrival(series, soft, method.bolus_arrival, aif)
    reference = bolus.baseline(ctp, n_baseline, weights)
    peak = bolus.peak_enhancement(ctp, reference, inside & seen, weights)
    csf = brain.csf_mask(average, brain_voxels, size, levels, method.csf_level)
    parenchyma = brain_voxels & seen & ~csf
    vessels = brain.vessel_mask(peak, inside, parenchyma, method.vessel_ratio)
    tissue, pure = brain.tissue_masks(
        average, brain_voxels, vessels, csf, inside, seen, size, method.bone_margin_mm
    )
    hyperdense = brain.hyperdense_mask(
        reference, np.nan_to_num(average - reference), tissue, brain_voxels,
        brain.density_levels(reference, brain_voxels, size).brain, size,
    )  # fmt: skip
    tissue, pure = tissue & ~hyperdense, pure & ~hyperdense
    if exclude is not None:
        excluded = overrides.place_mask(exclude, first, affine)
        same_head.check_inside(excluded, inside, exclude.name)
        tissue, pure = tissue & ~excluded, pure & ~excluded
    if not pure.any():
        raise PerfusionError(
            'masks: the brain contains no tissue away from vessels and bone, need at least one voxel; '
            'check that the series is in HU, or supply a brain mask (--brain-mask)'
        )
    return Masks(
        _fill_air(reference, np.isfinite(reference)), brain_voxels, deep, vessels, csf & ~vessels,
        tissue, hyperdense, metal, _undamaged(pure, damage), n_baseline, arrival - float(times[0]),
        float(times[-1] - times[0]), protrusion,
    )  # fmt: skip


def _around(metal, voxel_size_mm):
    """Return what is so near to metal that its streaks and its motion spoil the curves."""
    if not metal.any():
        return metal
    return ndimage.distance_transform_edt(~metal, voxel_size_mm) <= METAL_MARGIN_MM


def find_search_region(baseline, inside, seen, levels, voxel_size_mm, bone_margin_mm):
    """Find where AIF, VOF and the arrival of contrast are searched.

    Parameters
    ----------
    baseline : (X, Y, Z) array
        Reference image without contrast, HU.
    inside, seen : (X, Y, Z) arrays of bool
        Inside of the skull, and field of view of every usable frame.
    levels : brain.Levels
    voxel_size_mm : (3,) sequence of float
    bone_margin_mm : float
        Distance from bone within which moving bone could be mistaken for contrast, mm.

    Returns
    -------
    deep, soft : (X, Y, Z) arrays of bool
        Voxels away from bone, and those of them with the density of tissue or blood.
    """
    deep = inside & seen & (brain.distance_in_plane(inside, voxel_size_mm) > bone_margin_mm)
    return deep, deep & bolus.is_soft(baseline, levels.brain)


@dataclass(frozen=True)
class _Series:
    """A corrected series and its frames."""

    ctp: np.ndarray
    times: np.ndarray
    weights: np.ndarray
    affine: np.ndarray
    damage: np.ndarray | None

    def arrival_of(self, curve):
        return bolus.find_arrival(curve, self.times)


def _find_arrival(series, soft, given_s, aif):
    """Return the number of frames before contrast and the arrival, from what is most certain."""
    if given_s:
        arrival = series.times[0] + given_s
        n_baseline = int(np.searchsorted(series.times, arrival))
        bolus.check_baseline(n_baseline, len(series.times), given_s)
        return n_baseline, float(arrival)
    if isinstance(aif, overrides.SuppliedCurves):
        return series.arrival_of(np.interp(series.times, aif.times, aif.aif))
    if aif is not None:
        first = bolus.baseline(series.ctp, 2, np.ones(len(series.times)))
        mask = overrides.place_mask(aif, first, series.affine, few_voxels=True)
        with np.errstate(invalid='ignore'):
            curve = np.nanmean(series.ctp[mask], axis=0)
        good = (series.weights > 0) & np.isfinite(curve)
        return series.arrival_of(np.interp(series.times, series.times[good], curve[good]))
    return series.arrival_of(
        bolus.first_pass(series.ctp, soft, series.weights, series.times, series.damage)
    )


def _undamaged(pure, damage):
    """Exclude voxels that motion has changed from the source of denoising, if most remain."""
    if damage is None:
        return pure
    undamaged = pure & (damage < DAMAGED_HU)
    return undamaged if undamaged.sum() > LEAST_UNDAMAGED * pure.sum() else pure


def _find_brain(average, first, affine, method, supplied):
    """Return brain mask, region inside the skull, and how far a supplied mask protrudes.

    A supplied mask replaces the brain; without one, or without a skull, nothing protrudes.
    """
    size = grid.voxel_size_mm(affine)
    override = None if supplied is None else overrides.place_mask(supplied, first, affine)
    try:
        brain_mask, inside = brain.brain_masks(
            average, first, size, bone_hu=method.bone_hu, csf_level=method.csf_level
        )
    except PerfusionError:
        if override is None:
            raise
        return override, override, None
    if override is None:
        return brain_mask, inside, None
    same_head.check_brain(override, brain_mask, inside, supplied.name)
    protrusion = same_head.protrusion(override, inside, size)
    # the venous sinuses are outside the brain, so the region inside the skull is still needed
    return override, inside | override, protrusion


def _fill_air(volume, seen):
    return np.where(seen, volume, AIR_HU).astype(np.float32)
