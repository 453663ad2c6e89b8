# SPDX-License-Identifier: Apache-2.0
"""From the raw series to the working grid, the corrected series and the masks."""

import functools
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nb
import numpy as np
import pandas as pd
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    SimpleInterface,
    TraitedSpec,
    traits,
)

from ctpprep.exceptions import PerfusionError
from ctpprep.interfaces import _inputs
from ctpprep.io import nifti
from ctpprep.perfusion import bolus, brain, grid, motion, overrides, symmetry

# scanners pad what lies outside the reconstruction with large negative numbers
AIR_HU = -1024.0
# voxels of the raw series that are read at once: 16 MB as float32
SLAB_VOXELS = 2**22


class _PrepareSeriesInputSpec(BaseInterfaceInputSpec):
    ctp = File(exists=True, mandatory=True, desc='raw 4D series, HU')
    sample_times = traits.List(
        traits.List(traits.Float), mandatory=True, desc='(slices, frames), feet to head, s'
    )
    working_in_plane_mm = traits.Float(mandatory=True, desc='mm')
    working_slice_mm = traits.Float(mandatory=True, desc='mm')


class _PrepareSeriesOutputSpec(TraitedSpec):
    ctp_working = File(exists=True, desc='series on the working grid, HU, uncompressed')
    sample_times = File(exists=True, desc='(slices, frames) of the working grid, s, npy')
    timing = File(exists=True, desc='timing fields of the sidecar, json')
    factors = traits.Tuple(traits.Int, traits.Int, traits.Int, desc='block size, voxels')


class PrepareSeries(SimpleInterface):
    """Bring a series to the working grid, frame by frame from disk."""

    input_spec = _PrepareSeriesInputSpec
    output_spec = _PrepareSeriesOutputSpec

    def _run_interface(self, runtime):
        # an open handle lets a compressed file be read on instead of from its start
        image = nb.load(self.inputs.ctp, keep_file_open=True)
        orientation = nb.io_orientation(image.affine)
        affine = image.affine @ nb.orientations.inv_ornt_aff(orientation, image.shape[:3])
        times = np.asarray(self.inputs.sample_times)
        factors = grid.block_factors(
            nifti.voxel_size_mm(affine), times, self.inputs.working_in_plane_mm,
            self.inputs.working_slice_mm,
        )  # fmt: skip
        working = read_blocks(image, orientation, factors)
        kept = times[: working.shape[2] * factors[2] : factors[2]]
        cwd = Path(runtime.cwd)
        np.save(cwd / 'sample_times.npy', kept)
        self._results['sample_times'] = str(cwd / 'sample_times.npy')
        # files keep the user's voxel order, and so do the times of their slices
        upwards = nb.aff2axcodes(image.affine)[2] != 'I'
        fields = timing_fields(kept if upwards else kept[::-1])
        (cwd / 'timing.json').write_text(json.dumps(fields))
        self._results['timing'] = str(cwd / 'timing.json')
        self._results['factors'] = tuple(int(factor) for factor in factors)
        self._results['ctp_working'] = nifti.save(
            working, grid.block_affine(affine, factors), cwd / 'ctp_working.nii',
            like=self.inputs.ctp, times_s=times.min(axis=0),
        )  # fmt: skip
        return runtime


def read_blocks(image, orientation, factors):
    """Read a series in the order of its file and average blocks of voxels.

    Some slices at a time: neither the series nor a frame of it is ever whole in memory.

    Parameters
    ----------
    image : nibabel image
        Raw 4D series, HU.
    orientation : (3, 2) array
        nibabel's orientation of the stored axes.
    factors : (3,) sequence of int
        Block size along the canonical axes, voxels.

    Returns
    -------
    (X, Y, Z, T) array of float32
        Canonical, HU, not below `AIR_HU`; stored frame after frame.
    """
    shape = [0, 0, 0]
    for stored, (axis, _) in enumerate(orientation.astype(int)):
        shape[axis] = image.shape[stored] // factors[axis]
    working = np.empty((*shape, image.shape[3]), dtype=np.float32, order='F')
    # the stored slices of a block; of a flipped axis the last canonical block is stored first
    axis, flipped = int(orientation[2, 0]), orientation[2, 1] < 0
    through, n_slices = factors[axis], image.shape[2]
    step = max(1, SLAB_VOXELS // (image.shape[0] * image.shape[1] * through))
    starts = range(0, shape[axis], step)
    for frame in range(image.shape[3]):
        for start in reversed(starts) if flipped else starts:
            end = min(start + step, shape[axis])
            first, last = start * through, end * through
            if flipped:
                first, last = n_slices - last, n_slices - first
            slab = np.asarray(image.dataobj[:, :, first:last, frame], dtype=np.float32)
            # fmax leaves no NaN
            slab = np.fmax(slab, np.float32(AIR_HU), out=slab if slab.flags.writeable else None)
            slab = nb.apply_orientation(slab, orientation)
            place = (slice(None),) * axis + (slice(start, end),)
            working[..., frame][place] = grid.average_blocks(slab, factors)
    return working


def timing_fields(sample_times):
    """Say in sidecar fields when the slices of a series were acquired.

    Parameters
    ----------
    sample_times : (Z, T) array
        s, in the order of the slices of the file.

    Returns
    -------
    dict
        ``VolumeTiming`` where all slices of a frame share their time, else
        ``SliceAcquisitionTimes`` (frames x slices); s on the clock of the series, as the curves of
        the vessels: the two can be supplied together.
    """
    times = np.round(sample_times, 4)
    if np.ptp(times, axis=0).max() == 0:
        return {'VolumeTiming': times[0].tolist()}
    return {'SliceAcquisitionTimes': times.T.tolist()}


class _EstimateMotionInputSpec(BaseInterfaceInputSpec):
    ctp_working = File(exists=True, mandatory=True, desc='series on the working grid, HU')
    motion_grid_mm = traits.Float(mandatory=True, desc='in-plane voxel size, mm')
    motion_window_hu = traits.Tuple(traits.Float, traits.Float, mandatory=True)
    motion_smoothing_mm = traits.List(traits.Float, mandatory=True, desc='sigma of each level')
    motion_reject_similarity = traits.Float(mandatory=True, desc='correlation')
    # nipype reserves as many processes; the result does not depend on it
    num_threads = traits.Int(1, usedefault=True, nohash=True, desc='frames side by side')


class _EstimateMotionOutputSpec(TraitedSpec):
    transforms = File(exists=True, desc='(frames, 4, 4) RAS: reference frame to each frame, npy')
    reference_frame = traits.Int(desc='the frame whose pose the others are brought to')


class EstimateMotion(SimpleInterface):
    """Register every frame rigidly to the first usable one."""

    input_spec = _EstimateMotionInputSpec
    output_spec = _EstimateMotionOutputSpec

    def _run_interface(self, runtime):
        ctp, affine = nifti.load(self.inputs.ctp_working, dtype=None)
        in_plane = nifti.voxel_size_mm(affine)[:2]
        factors = [max(1, round(self.inputs.motion_grid_mm / size)) for size in in_plane] + [1]
        coarse = grid.block_affine(affine, factors)
        frames = range(ctp.shape[3])

        @functools.cache
        def image(frame):
            window = self.inputs.motion_window_hu
            return grid.average_blocks(np.clip(ctp[..., frame], *window), factors)

        @functools.cache
        def target(reference):
            return motion.RigidTarget(image(reference), coarse, self.inputs.motion_smoothing_mm)

        @functools.cache
        def register(reference, frame):
            if frame == reference:
                return np.eye(4)
            return motion.register_rigid(target(reference), image(frame))

        with ThreadPoolExecutor(self.inputs.num_threads) as pool:

            def compare(reference, others):
                first = ctp[..., reference]
                head = first > overrides.HEAD_HU

                def similarity(frame):
                    moved = motion.resample_frame(
                        ctp[..., frame], affine, register(reference, frame)
                    )
                    return motion.skull_similarity(moved, first, head)

                return list(pool.map(similarity, others))

            reference = motion.find_reference(
                len(frames), compare, self.inputs.motion_reject_similarity
            )
            transforms = list(pool.map(functools.partial(register, reference), frames))
        out = Path(runtime.cwd) / 'transforms.npy'
        np.save(out, np.stack(transforms))
        self._results['transforms'] = str(out)
        self._results['reference_frame'] = reference
        return runtime


class _CorrectMotionInputSpec(BaseInterfaceInputSpec):
    ctp_working = File(exists=True, mandatory=True, desc='series on the working grid, HU')
    sample_times = File(exists=True, mandatory=True, desc='(slices, frames), s, npy')
    transforms = File(
        exists=True,
        desc='(frames, 4, 4) RAS: reference frame to each frame, npy; none: no motion',
    )
    reference_frame = traits.Int(0, usedefault=True, desc='frame whose pose the others get')
    motion_reject_similarity = traits.Float(mandatory=True, desc='correlation')
    motion_skip_mm = traits.Float(mandatory=True, desc='mm')
    num_threads = traits.Int(1, usedefault=True, nohash=True, desc='frames side by side')


class _CorrectMotionOutputSpec(TraitedSpec):
    ctp_corrected = File(
        exists=True, desc='series in the pose of the reference frame, HU; NaN where missing'
    )
    frame_transforms = File(exists=True, desc='ITK text file, one transform a frame')
    confounds = File(exists=True, desc='motion parameters and weight of each frame, tsv')
    motion = File(exists=True, desc='reference frame, and whether frames were resampled, json')


class CorrectMotion(SimpleInterface):
    """Bring every frame to the pose of the reference frame, if any has moved, and weigh it."""

    input_spec = _CorrectMotionInputSpec
    output_spec = _CorrectMotionOutputSpec

    def _run_interface(self, runtime):
        ctp, affine = nifti.load(self.inputs.ctp_working, dtype=None)
        n_frames, reference = ctp.shape[3], self.inputs.reference_frame
        found = np.tile(np.eye(4), (n_frames, 1, 1))
        if self.inputs.transforms:
            found = np.load(self.inputs.transforms)
        head = ctp[..., reference] > overrides.HEAD_HU
        points = symmetry.world_coordinates(head.shape, affine)[head][::97]
        corrected = np.empty(ctp.shape, dtype=np.float32, order='F')

        def correct(frame):
            corrected[..., frame] = motion.resample_frame(ctp[..., frame], affine, found[frame])
            return motion.skull_similarity(corrected[..., frame], ctp[..., reference], head)

        with ThreadPoolExecutor(self.inputs.num_threads) as pool:
            similarity = np.array(list(pool.map(correct, range(n_frames))))
        weights = motion.frame_weights(similarity, self.inputs.motion_reject_similarity)
        moved = motion.has_moved(found, points, weights, self.inputs.motion_skip_mm)
        if not moved:
            corrected[:] = ctp
        cwd = Path(runtime.cwd)
        times = np.load(self.inputs.sample_times).min(axis=0)
        self._results['ctp_corrected'] = nifti.save(
            corrected, affine, cwd / 'ctp_corrected.nii', like=self.inputs.ctp_working,
            times_s=times,
        )  # fmt: skip
        confounds = _confounds(found, points, similarity, weights)
        confounds.to_csv(cwd / 'confounds.tsv', sep='\t', index=False, float_format='%.6g')
        self._results['confounds'] = str(cwd / 'confounds.tsv')
        self._results['frame_transforms'] = write_frame_transforms(
            found if moved else np.tile(np.eye(4), (n_frames, 1, 1)), cwd / 'frame_transforms.txt'
        )
        facts = {'reference_frame': reference, 'frames_resampled': moved}
        (cwd / 'motion.json').write_text(json.dumps(facts))
        self._results['motion'] = str(cwd / 'motion.json')
        return runtime


def _confounds(transforms, points, similarity, weights):
    """Tabulate the motion of every frame."""
    columns = ['trans_x', 'trans_y', 'trans_z', 'rot_x', 'rot_y', 'rot_z']
    table = pd.DataFrame(motion.rigid_parameters(transforms, points.mean(axis=0)), columns=columns)
    table['framewise_displacement'] = motion.framewise_displacement(transforms, points)
    table['displacement'] = motion.displacement(transforms, points)
    table['skull_similarity'] = similarity
    table['weight'] = weights
    return table


class _MakeMasksInputSpec(BaseInterfaceInputSpec):
    ctp_corrected = File(
        exists=True, mandatory=True, desc='series in the pose of the reference frame'
    )
    sample_times = File(exists=True, mandatory=True, desc='(slices, frames), s, npy')
    confounds = File(exists=True, mandatory=True, desc='holds the weight of each frame, tsv')
    bone_hu = traits.Float(mandatory=True, desc='HU')
    csf_hu = traits.Float(mandatory=True, desc='HU')
    vessel_ratio = traits.Float(mandatory=True)
    bone_margin_mm = traits.Float(mandatory=True, desc='mm')
    supplied_brain_mask = File(exists=True, desc='in place of ours, on any grid of the same space')


class _MakeMasksOutputSpec(TraitedSpec):
    reference = File(exists=True, desc='mean of the corrected pre-bolus frames, HU')
    brain_mask = File(exists=True, desc='brain with sulci and ventricles')
    intracranial_mask = File(
        exists=True, desc='inside the skull, off the bone, seen in every frame'
    )
    vessel_mask = File(exists=True)
    csf_mask = File(exists=True)
    tissue_mask = File(exists=True, desc='brain without vessels and CSF, seen in every frame')
    pure_mask = File(exists=True, desc='tissue off vessels and bone')
    bolus = File(exists=True, desc='arrival and baseline frames, json')


class MakeMasks(SimpleInterface):
    """Find brain, vessels, CSF and tissue, the bolus, and the reference image before it."""

    input_spec = _MakeMasksInputSpec
    output_spec = _MakeMasksOutputSpec

    def _run_interface(self, runtime):
        ctp, affine = nifti.load(self.inputs.ctp_corrected, dtype=None)
        weights = frame_weights(self.inputs.confounds)
        times = np.load(self.inputs.sample_times).mean(axis=0)
        size = nifti.voxel_size_mm(affine)
        # the greatest of three frames: one of them may be empty
        brain.check_density(np.fmax.reduce([ctp[..., i] for i in (0, ctp.shape[3] // 2, -1)]))
        seen = bolus.find_missing(ctp, weights) == 0
        average = _fill_air(bolus.baseline(ctp, ctp.shape[3], weights), seen)
        two_usable = int(np.flatnonzero(weights > 0)[:2].max()) + 1
        first = _fill_air(bolus.baseline(ctp, two_usable, weights), seen)
        brain_mask, inside = self._brain(average, first, affine)
        # bone that motion brings into the outermost voxels must not pass for contrast
        deep = inside & seen & (brain.distance_in_plane(inside, size) > self.inputs.bone_margin_mm)
        curve = bolus.first_pass(ctp, deep, weights)
        n_baseline, arrival = bolus.find_arrival(curve, times)
        reference = bolus.baseline(ctp, n_baseline, weights)
        peak = bolus.peak_enhancement(ctp, reference, inside & seen, weights)
        csf = brain.csf_mask(average, brain_mask, size, self.inputs.csf_hu)
        parenchyma = brain_mask & seen & ~csf
        vessels = brain.vessel_mask(peak, inside, parenchyma, self.inputs.vessel_ratio)
        tissue, pure = brain.tissue_masks(
            average, brain_mask, vessels, csf, inside, seen, size, self.inputs.bone_margin_mm
        )
        if not pure.any():
            raise PerfusionError('masks: no tissue is left in the brain; is the series in HU?')
        self._save(
            runtime, affine, reference=_fill_air(reference, np.isfinite(reference)),
            brain_mask=brain_mask, intracranial_mask=deep, vessel_mask=vessels,
            csf_mask=csf & ~vessels, pure_mask=pure, tissue_mask=tissue,
        )  # fmt: skip
        facts = {
            'n_baseline': n_baseline,
            'arrival_s': arrival - float(times[0]),
            'scan_duration_s': float(times[-1] - times[0]),
        }
        path = Path(runtime.cwd) / 'bolus.json'
        path.write_text(json.dumps(facts))
        self._results['bolus'] = str(path)
        return runtime

    def _brain(self, average, first, affine):
        """Return the brain and what lies inside the skull; a supplied mask counts as both."""
        size, path = nifti.voxel_size_mm(affine), self.inputs.supplied_brain_mask
        given = _inputs.load_mask_on(path, first, affine) if path else None
        try:
            found, inside = brain.brain_masks(
                average, first, size, bone_hu=self.inputs.bone_hu, csf_hu=self.inputs.csf_hu
            )
        except PerfusionError:
            if given is None:
                raise
            return given, given
        # the sinuses lie outside the brain: the skull is still worth finding
        return (found, inside) if given is None else (given, inside | given)

    def _save(self, runtime, affine, **images):
        for name, array in images.items():
            self._results[name] = nifti.save(
                array, affine, Path(runtime.cwd) / f'{name}.nii', like=self.inputs.ctp_corrected
            )


def _fill_air(volume, seen):
    return np.where(seen, volume, AIR_HU).astype(np.float32)


def frame_weights(confounds):
    """Read the weight of each frame.

    Parameters
    ----------
    confounds : path-like
        Table of `CorrectMotion`.

    Returns
    -------
    (T,) array
    """
    return pd.read_csv(confounds, sep='\t')['weight'].to_numpy(dtype=float)


def write_frame_transforms(transforms, path):
    """Write rigid frame transforms as one ITK text file.

    Parameters
    ----------
    transforms : (T, 4, 4) array
        Patient RAS coordinates of the reference frame to those of each frame, mm.
    path : path-like

    Returns
    -------
    str
    """
    lines = ['#Insight Transform File V1.0']
    for frame, matrix in enumerate(np.asarray(transforms)):
        lps = nifti.LPS @ matrix @ nifti.LPS
        numbers = [*lps[:3, :3].ravel(), *lps[:3, 3]]
        lines += [
            f'#Transform {frame}',
            'Transform: AffineTransform_double_3_3',
            'Parameters: ' + ' '.join(f'{number:.12g}' for number in numbers),
            'FixedParameters: 0 0 0',
        ]
    Path(path).write_text('\n'.join(lines) + '\n')
    return str(Path(path).absolute())
