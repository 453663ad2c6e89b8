# SPDX-License-Identifier: Apache-2.0
"""The whole chain from arrays to lesions, in one call or in three steps after the maps."""

from dataclasses import dataclass

import numpy as np

from ctpprep.exceptions import PerfusionError
from ctpprep.perfusion import grid, homologues, lesions, preprocessing
from ctpprep.perfusion.estimation import Maps, estimate_maps
from ctpprep.perfusion.input_functions import InputFunctions, aif_scale, find_vessels
from ctpprep.perfusion.normalization import normalize_to_homologue, normalize_to_reference
from ctpprep.settings import MethodSettings


@dataclass(frozen=True)
class Mirror:
    """Contralateral homologues of a series.

    Attributes
    ----------
    registration : homologues.MirrorRegistration
    hemispheres : (X, Y, Z) array of int
        1 left, 2 right, 0 outside the brain.
    tissue_share : (X, Y, Z) array or None
        Tissue fraction at the homologue; None if the registration failed.
    transform : object or None
        Mirror to reference, as returned by the `Registration`.
    method : homologues.Registration
    """

    registration: homologues.MirrorRegistration
    hemispheres: np.ndarray
    tissue_share: np.ndarray | None
    transform: object
    method: homologues.Registration


@dataclass(frozen=True)
class Relative:
    """CBF and CBV, normalized globally and locally.

    Attributes
    ----------
    rcbf_global, rcbf_local : (X, Y, Z) arrays of float32
        Fraction of the reference; `rcbf_local` is None if the local map is withheld.
    rcbv_global, rcbv_local : (X, Y, Z) arrays of float32
        The same for CBV.
    unassessable : (X, Y, Z) array of bool or None
        Tissue without a usable homologue.
    measured : dict
        Affected side and reference values, as in `GlobalNormalization`.
    """

    rcbf_global: np.ndarray
    rcbf_local: np.ndarray | None
    rcbv_global: np.ndarray
    rcbv_local: np.ndarray | None
    unassessable: np.ndarray | None
    measured: dict


@dataclass(frozen=True)
class Result:
    """All results of `compute_maps`.

    Attributes
    ----------
    corrected : preprocessing.Corrected
    masks : preprocessing.Masks
    vessels : InputFunctions
    maps : Maps
    mirror : Mirror
    relative : Relative
    lesions : lesions.Lesions
    affine : (4, 4) array
        Affine of the working grid, the grid of all arrays.
    """

    corrected: preprocessing.Corrected
    masks: preprocessing.Masks
    vessels: InputFunctions
    maps: Maps
    mirror: Mirror
    relative: Relative
    lesions: lesions.Lesions
    affine: np.ndarray


def compute_maps(
    ctp, frame_times, voxel_size_mm, settings=None, affine=None, brain_mask=None, aif=None,
    denoise=None, deconvolve=None, registration=None, num_threads=1, exclude_mask=None,
):  # fmt: skip
    """Compute maps, normalizations and lesions of a CT perfusion series.

    Parameters
    ----------
    ctp : (X, Y, Z, T) array
        HU; first axis from left to right, second from back to front, third from feet to head.
    frame_times : (T,) or (Z, T) array
        Acquisition time of each frame, or of each slice of each frame (feet to head), s.
    voxel_size_mm : (3,) sequence of float
    settings : MethodSettings, optional
    affine : (4, 4) array, optional
        Voxel to patient RAS, mm; needed if the voxel axes are not parallel to the patient axes.
    brain_mask : overrides.SuppliedMask, optional
    aif : overrides.SuppliedCurves or overrides.SuppliedMask, optional
    denoise : custom.Denoiser, optional
        User function that replaces the denoising.
    deconvolve : custom.Deconvolver, optional
        User function that replaces Tikhonov regularization.
    registration : homologues.Registration, optional
        Nonrigid registration of the mirrored image; ANTs SyN by default.
    num_threads : int
        The results are the same for any number.
    exclude_mask : overrides.SuppliedMask, optional
        Old lesions or surgery, which are not tissue.

    Returns
    -------
    Result

    Raises
    ------
    PerfusionError
        If a stage has no valid result: no brain, bolus, artery or reference tissue.

    Notes
    -----
    Rau et al. 2024, doi:10.3174/ajnr.A8111. A series of 128 x 128 x 20 voxels and 27 frames takes
    about 20 s on one core.

    Examples
    --------
    >>> import ctpprep
    >>> head = ctpprep.phantom.make_phantom(ctpprep.phantom.PhantomSettings(
    ...     matrix=40, voxel_size_mm=(5.0, 5.0, 10.0), n_slices=6, n_frames=20, frame_interval=2.0,
    ...     lesion='large', lesion_side='right', orientation='RAS'))
    >>> result = ctpprep.compute_maps(head.ctp, head.frame_times, (5.0, 5.0, 10.0))
    >>> result.relative.measured['affected_side']
    'right'
    """
    settings = settings or MethodSettings()
    ctp = np.asarray(ctp)
    affine = _check_grid(ctp, voxel_size_mm, affine)
    times = _check_times(ctp, frame_times)
    factors = grid.block_factors(
        grid.voxel_size_mm(affine), times, settings.grid.working_in_plane_mm,
        settings.grid.working_slice_mm,
    )  # fmt: skip
    ctp, affine, times = _average(ctp, affine, times, factors)
    corrected = _correct(ctp, affine, times, settings, num_threads)
    masks = preprocessing.make_masks(
        corrected.ctp,
        times,
        affine,
        settings,
        corrected.weights,
        brain_mask,
        corrected.damage,
        aif,
        exclude=exclude_mask,
    )
    vessels = find_vessels(
        corrected.ctp, times, affine, masks, settings, corrected.weights, aif, corrected.damage
    )
    usable = vessels.weights > 0
    scale = aif_scale(
        vessels.times[usable], vessels.aif[usable], vessels.vof[usable],
        settings.vessels.aif_scaling,
    )  # fmt: skip
    maps = estimate_maps(
        corrected.ctp, times, grid.voxel_size_mm(affine), vessels.times[usable],
        scale * vessels.aif[usable], masks.tissue, masks.pure, masks.n_baseline, settings,
        corrected.weights, denoise, deconvolve, num_threads,
    )  # fmt: skip
    maps.measured['aif_scale'] = scale
    mirror = find_mirror(
        masks.reference, masks.brain, masks.tissue, affine, settings, registration
    )
    relative = normalize(maps.cbf, maps.cbv, maps.tmax, masks.tissue, affine, mirror, settings)
    segmented = segment(
        maps.tmax, relative, masks.tissue, mirror.hemispheres, grid.voxel_size_mm(affine), settings
    )
    return Result(corrected, masks, vessels, maps, mirror, relative, segmented, affine)


def find_mirror(reference, brain_mask, tissue_mask, affine, settings=None, registration=None):
    """Register the mirrored reference image and find homologues and hemispheres.

    Parameters
    ----------
    reference : (X, Y, Z) array
        HU.
    brain_mask, tissue_mask : (X, Y, Z) arrays of bool
    affine : (4, 4) array
        Voxel to patient RAS, mm.
    settings : MethodSettings, optional
        Uses the branches ``symmetry`` and ``random``.
    registration : homologues.Registration, optional
        ANTs SyN by default.

    Returns
    -------
    Mirror
    """
    settings = settings or MethodSettings()
    if registration is None:
        # antspyx takes seconds to import and is needed only in this function
        from ctpprep.registration import TemporarySyN

        registration = TemporarySyN(settings.random.random_seed)
    result = homologues.register_mirror(reference, brain_mask, affine, settings, registration)
    transform = result.transforms.get('mirror_to_reference')
    sides = homologues.find_homologues(
        brain_mask, tissue_mask, affine, registration,
        result.best and result.best.homologues, transform, _rounded(result),
        result.misaligned(settings.symmetry.mirror_region_mm),
    )  # fmt: skip
    return Mirror(result, sides.hemispheres, sides.tissue_share, transform, registration)


def normalize(cbf, cbv, tmax, tissue_mask, affine, mirror, settings=None):
    """Normalize CBF and CBV to the global reference and to the contralateral homologue.

    Parameters
    ----------
    cbf, cbv : (X, Y, Z) arrays
        mL/100 g/min and mL/100 g.
    tmax : (X, Y, Z) array
        s.
    tissue_mask : (X, Y, Z) array of bool
    affine : (4, 4) array
    mirror : Mirror
        From `find_mirror`.
    settings : MethodSettings, optional
        Uses the branches ``lesion`` and ``normalization``.

    Returns
    -------
    Relative
    """
    settings = settings or MethodSettings()
    whole = normalize_to_reference(cbf, tmax, tissue_mask, mirror.hemispheres, settings, cbv)
    local, unassessable = {}, None
    if mirror.transform is not None:
        for name, values in whole.relative.items():
            mirrored = homologues.mirror_map(values, affine, mirror.method, mirror.transform)
            local[name] = normalize_to_homologue(
                values, mirrored, mirror.tissue_share, tissue_mask, affine, settings
            )
        unassessable = local['rcbf'].unassessable
    maps = {name: part.local for name, part in local.items()}
    return Relative(
        whole.relative['rcbf'], maps.get('rcbf'), whole.relative['rcbv'], maps.get('rcbv'),
        unassessable, whole.measured,
    )  # fmt: skip


def segment(tmax, relative, tissue_mask, hemispheres, voxel_size_mm, settings=None):
    """Segment hypoperfusion, and core and mismatch by both normalizations.

    Parameters
    ----------
    tmax : (X, Y, Z) array
        s.
    relative : Relative
        From `normalize`.
    tissue_mask : (X, Y, Z) array of bool
    hemispheres : (X, Y, Z) array
        1 left, 2 right.
    voxel_size_mm : (3,) sequence of float
    settings : MethodSettings, optional
        Uses the branches ``lesion`` and ``segmentation``.

    Returns
    -------
    lesions.Lesions
    """
    rcbf = {'global': relative.rcbf_global}
    if relative.rcbf_local is not None:
        rcbf['local'] = relative.rcbf_local
    maps = lesions.RelativeMaps(
        tmax, rcbf, tissue_mask, hemispheres, voxel_size_mm, relative.measured,
        relative.unassessable,
    )  # fmt: skip
    return lesions.segment_lesions(maps, settings or MethodSettings())


def _check_grid(ctp, voxel_size_mm, affine):
    """Check a series and its grid; return the affine."""
    if ctp.ndim != 4:
        raise PerfusionError(f'ctp has {ctp.ndim} dimensions, need 4: x, y, z, time')
    sizes = np.asarray(voxel_size_mm, dtype=float)
    if sizes.shape != (3,) or not (sizes > 0).all():
        raise PerfusionError(f'voxel_size_mm is {voxel_size_mm}, need three sizes above 0 mm')
    if affine is None:
        return np.diag([*sizes, 1.0])
    affine = np.asarray(affine, dtype=float)
    if not np.allclose(grid.voxel_size_mm(affine), sizes, rtol=0.01):
        raise PerfusionError(
            f'voxel_size_mm is {sizes.tolist()}, but the affine has '
            f'{np.round(grid.voxel_size_mm(affine), 3).tolist()}; check both'
        )
    columns = affine[:3, :3]
    if not (np.abs(columns).argmax(axis=0) == range(3)).all() or (np.diag(columns) <= 0).any():
        raise PerfusionError(
            'the axes of ctp do not run left to right, back to front and feet to head by the affine; '
            'reorder the array, e.g. with nibabel.as_closest_canonical'
        )
    return affine


def _check_times(ctp, frame_times):
    """Check the acquisition times; return those of each slice of each frame."""
    times = np.asarray(frame_times, dtype=float)
    n_slices, n_frames = ctp.shape[2:]
    if times.shape not in ((n_frames,), (n_slices, n_frames)):
        raise PerfusionError(
            f'frame_times has shape {times.shape}, need ({n_frames},) or ({n_slices}, {n_frames})'
        )
    if not (np.isfinite(times).all() and (np.diff(times, axis=-1) > 0).all()):
        raise PerfusionError('frame_times must be finite and increase from frame to frame, in s')
    return grid.times_by_slice(times, n_slices)


def _average(ctp, affine, times, factors):
    """Average a series to the working grid."""
    shape = [grid.count_blocks(*axis) for axis in zip(ctp.shape, factors, strict=False)]
    # frame by frame, as all stages until the masks read it
    working = np.empty((*shape, ctp.shape[3]), dtype=np.float32, order='F')
    for frame in range(ctp.shape[3]):
        seen = np.fmax(ctp[..., frame], np.float32(preprocessing.AIR_HU))
        working[..., frame] = grid.average_blocks(seen, factors)
    kept = grid.times_of_blocks(times, factors, working.shape)
    return working, grid.block_affine(affine, factors), kept


def _correct(ctp, affine, times, settings, num_threads):
    """Correct motion, unless motion correction is off."""
    transforms, reference_frame = None, 0
    if settings.motion.motion_correction:
        transforms, reference_frame = preprocessing.estimate_motion(
            ctp, affine, settings, num_threads
        )
    return preprocessing.correct_motion(
        ctp, affine, settings, transforms, reference_frame, num_threads, times.mean(axis=0)
    )


def _rounded(result):
    """Return the rounded plane that divides the hemispheres if the registration failed."""
    plane = result.measured.get('hemisphere_plane')
    return plane and (plane['point_mm'], plane['normal'])
