# SPDX-License-Identifier: Apache-2.0
"""Working grid, motion correction and masks of the raw series."""

from pathlib import Path

import numpy as np
import pandas as pd
from nipype.interfaces.base import File, TraitedSpec, isdefined, traits

from ctpprep.interfaces import blocks
from ctpprep.interfaces.base import ImageInputSpec, StageInputSpec, StageInterface
from ctpprep.interfaces.evidence import keep_evidence
from ctpprep.io import nifti
from ctpprep.io.transforms import write_rigid_transforms
from ctpprep.perfusion import grid, preprocessing
from ctpprep.perfusion.same_head import check_same_head
from ctpprep.perfusion.volumes import volume_ml

# frames of the raw series that a corrected one is compared with
COMPARED_FRAMES = 4


class _PrepareSeriesInputSpec(ImageInputSpec):
    ctp = File(exists=True, mandatory=True, desc='raw 4D series, HU')
    raw = File(exists=True, desc='the raw series, if a corrected one replaces it: the same head')
    sample_times = traits.List(
        traits.List(traits.Float), mandatory=True, desc='(slices, frames), feet to head, s'
    )


class _PrepareSeriesOutputSpec(TraitedSpec):
    ctp_working = File(exists=True, desc='series on the working grid, HU, uncompressed')
    sample_times = File(exists=True, desc='(slices, frames) of the working grid, s, npy')
    timing = File(
        exists=True, desc='timing fields of the sidecar, and how shear was corrected, json'
    )
    factors = traits.Tuple(traits.Float, traits.Float, traits.Int, desc='block size, voxels')
    empty_slices = traits.List(traits.Int, desc='interpolated slices of the working grid')


class PrepareSeries(StageInterface):
    """Average a series to the working grid while reading it from disk."""

    input_spec = _PrepareSeriesInputSpec
    output_spec = _PrepareSeriesOutputSpec

    def _run_interface(self, runtime):
        cwd, method = Path(runtime.cwd), self.method.grid
        times = np.asarray(self.inputs.sample_times)
        series = blocks.RawSeries(self.inputs.ctp, self.inputs.affine_from)
        factors = grid.block_factors(
            series.voxel_size_mm, times, method.working_in_plane_mm, method.working_slice_mm
        )
        working, self._results['empty_slices'] = series.average_blocks(factors)
        self._compare_with_raw(working[..., 0], grid.block_affine(series.affine, factors))
        kept = grid.times_of_blocks(times, factors, working.shape)
        np.save(cwd / 'sample_times.npy', kept)
        self._results['sample_times'] = str(cwd / 'sample_times.npy')
        self._results['factors'] = factors
        fields = blocks.timing_fields(kept, series.upwards) | series.notes
        self.save_json(runtime, timing=fields)
        self._results['ctp_working'] = nifti.save(
            working, grid.block_affine(series.affine, factors), cwd / 'ctp_working.nii',
            like=series.image, times_s=times.min(axis=0),
        )  # fmt: skip
        return runtime

    def _compare_with_raw(self, frame, affine):
        """Refuse a corrected series of another head than that of the raw one."""
        if isdefined(self.inputs.raw):
            raw = blocks.RawSeries(self.inputs.raw, self.inputs.affine_from)
            name = Path(self.inputs.ctp).name
            frames = raw.first_frames(COMPARED_FRAMES)
            check_same_head(frame, affine, frames, raw.affine, self.method, name)


class _EstimateMotionInputSpec(StageInputSpec):
    ctp_working = File(exists=True, mandatory=True, desc='series on the working grid, HU')
    # nipype reserves as many processes; the result is the same for any number
    num_threads = traits.Int(1, usedefault=True, nohash=True, desc='frames in parallel')


class _EstimateMotionOutputSpec(TraitedSpec):
    transforms = File(exists=True, desc='(frames, 4, 4) RAS: reference frame to each frame, npy')
    reference_frame = traits.Int(desc='the frame to whose pose the others are resampled')


class EstimateMotion(StageInterface):
    """Register every frame rigidly to the first usable frame."""

    input_spec = _EstimateMotionInputSpec
    output_spec = _EstimateMotionOutputSpec

    def _run_interface(self, runtime):
        ctp, affine = nifti.load(self.inputs.ctp_working, dtype=None)
        transforms, reference = preprocessing.estimate_motion(
            ctp, affine, self.method, self.inputs.num_threads
        )
        path = Path(runtime.cwd) / 'transforms.npy'
        np.save(path, transforms)
        self._results['transforms'] = str(path)
        self._results['reference_frame'] = reference
        return runtime


class _CorrectMotionInputSpec(StageInputSpec):
    ctp_working = File(exists=True, mandatory=True, desc='series on the working grid, HU')
    sample_times = File(exists=True, mandatory=True, desc='(slices, frames), s, npy')
    transforms = File(
        exists=True,
        desc='(frames, 4, 4) RAS: reference frame to each frame, npy; absent: no motion',
    )
    reference_frame = traits.Int(0, usedefault=True, desc='frame of the common pose')
    num_threads = traits.Int(1, usedefault=True, nohash=True, desc='frames in parallel')


class _CorrectedOutputSpec(TraitedSpec):
    ctp_corrected = File(
        exists=True, desc='series in the pose of the reference frame, HU; NaN where missing'
    )
    frame_transforms = File(exists=True, desc='ITK text file, one transform per frame')
    confounds = File(exists=True, desc='motion and weight of each frame, tsv; n/a if unknown')
    motion = File(
        exists=True, desc='reference frame, whether frames were resampled, and drift, json'
    )
    damage = File(exists=True, desc='change of each voxel by motion, HU')


class CorrectMotion(StageInterface):
    """Resample all frames to the pose of the reference frame, if any moved, and weight them."""

    input_spec = _CorrectMotionInputSpec
    output_spec = _CorrectedOutputSpec

    def _run_interface(self, runtime):
        ctp, affine = nifti.load(self.inputs.ctp_working, dtype=None)
        transforms = np.load(self.inputs.transforms) if self.inputs.transforms else None
        corrected = preprocessing.correct_motion(
            ctp, affine, self.method, transforms, self.inputs.reference_frame,
            self.inputs.num_threads, np.load(self.inputs.sample_times).mean(axis=0),
        )  # fmt: skip
        _save_corrected(self, runtime, corrected, affine)
        return runtime


class _LoadCorrectedInputSpec(StageInputSpec):
    ctp_working = File(exists=True, mandatory=True, desc='corrected series, HU')
    sample_times = File(exists=True, mandatory=True, desc='(slices, frames), s, npy')


class LoadCorrected(StageInterface):
    """Weight the frames of a precomputed motion-corrected series."""

    input_spec = _LoadCorrectedInputSpec
    output_spec = _CorrectedOutputSpec

    def _run_interface(self, runtime):
        ctp, affine = nifti.load(self.inputs.ctp_working, dtype=None)
        corrected = preprocessing.accept_corrected(
            ctp, affine, self.method, np.load(self.inputs.sample_times).mean(axis=0)
        )
        _save_corrected(self, runtime, corrected, affine)
        return runtime


def _save_corrected(interface, runtime, corrected, affine):
    """Write a corrected series with its transforms and the motion of every frame."""
    cwd, inputs = Path(runtime.cwd), interface.inputs
    interface._results['ctp_corrected'] = nifti.save(
        corrected.ctp, affine, cwd / 'ctp_corrected.nii', like=inputs.ctp_working,
        times_s=np.load(inputs.sample_times).min(axis=0),
    )  # fmt: skip
    interface.save_table(
        runtime, 'confounds', pd.DataFrame(corrected.confounds), float_format='%.6g'
    )
    interface._results['frame_transforms'] = write_rigid_transforms(
        corrected.transforms, cwd / 'frame_transforms.txt'
    )
    interface.save_images(runtime, affine, inputs.ctp_working, damage=corrected.damage)
    facts = {
        'reference_frame': corrected.reference_frame,
        'frames_resampled': corrected.resampled,
        'drift': vars(corrected.drift),
    }
    interface.save_json(runtime, motion=facts)


class _MakeMasksInputSpec(ImageInputSpec):
    ctp_corrected = File(
        exists=True, mandatory=True, desc='series in the pose of the reference frame'
    )
    sample_times = File(exists=True, mandatory=True, desc='(slices, frames), s, npy')
    confounds = File(exists=True, mandatory=True, desc='contains the weight of each frame, tsv')
    damage = File(exists=True, mandatory=True, desc='change of each voxel by motion, HU')
    empty_slices = traits.List(
        traits.Int, usedefault=True, desc='interpolated slices, which are not tissue'
    )
    supplied_brain_mask = File(
        exists=True, desc='replaces the automatic mask, on any grid in this space'
    )
    supplied_exclude_mask = File(exists=True, desc='old lesions or surgery, which are not tissue')
    supplied_curves = File(
        exists=True, desc='time (s) and aif (HU), tsv: contrast arrives with it'
    )
    supplied_aif_mask = File(exists=True, desc='voxels of the AIF: contrast arrives with it')


class _MakeMasksOutputSpec(TraitedSpec):
    reference = File(exists=True, desc='mean of the corrected pre-bolus frames, HU')
    brain_mask = File(exists=True, desc='brain, including sulci and ventricles')
    intracranial_mask = File(
        exists=True, desc='inside the skull, away from bone, in every field of view'
    )
    vessel_mask = File(exists=True)
    csf_mask = File(exists=True)
    tissue_mask = File(exists=True, desc='brain without vessels and CSF, in every field of view')
    pure_mask = File(exists=True, desc='tissue away from vessels and bone')
    bolus = File(exists=True, desc='arrival and baseline frames, json')


class MakeMasks(StageInterface):
    """Find brain, vessels, CSF and tissue, the arrival of the bolus, and the reference image."""

    input_spec = _MakeMasksInputSpec
    output_spec = _MakeMasksOutputSpec

    def _run_interface(self, runtime):
        inputs = self.inputs
        ctp, affine = nifti.load(inputs.ctp_corrected, dtype=None)
        series = (
            ctp, np.load(inputs.sample_times), affine, self.method, frame_weights(inputs.confounds),
            self.load_supplied('supplied_brain_mask'), self.load('damage'),
        )  # fmt: skip
        with keep_evidence(runtime, *series):
            masks = preprocessing.make_masks(
                *series, self.load_aif(), inputs.empty_slices,
                self.load_supplied('supplied_exclude_mask'),
            )  # fmt: skip
        self.save_images(
            runtime, affine, inputs.ctp_corrected, reference=masks.reference,
            brain_mask=masks.brain, intracranial_mask=masks.intracranial,
            vessel_mask=masks.vessels, csf_mask=masks.csf, pure_mask=masks.pure,
            tissue_mask=masks.tissue,
        )  # fmt: skip
        self.save_json(runtime, bolus=self._facts(masks, affine))
        return runtime

    def _facts(self, masks, affine):
        """Collect the bolus, and the slices without values, with hyperdense brain or metal, from 1."""
        names = ('n_baseline', 'arrival_s', 'scan_duration_s')
        facts = {name: getattr(masks, name) for name in names}
        facts['hyperdense_ml'] = volume_ml(masks.hyperdense, nifti.voxel_size_mm(affine))
        if masks.protrusion is not None and np.isfinite(masks.protrusion):
            facts['mask_protrusion'] = masks.protrusion
        facts['metal_ml'] = volume_ml(masks.metal, nifti.voxel_size_mm(affine))
        for name in ('hyperdense', 'metal'):
            if (mask := getattr(masks, name)).any():
                slices = np.flatnonzero(mask.any(axis=(0, 1)))
                facts[f'{name}_slices'] = [int(z) + 1 for z in slices]
        if self.inputs.empty_slices:
            facts['empty_slices'] = [z + 1 for z in self.inputs.empty_slices]
        return facts


def frame_weights(confounds):
    """Read the weight of each frame.

    Parameters
    ----------
    confounds : path-like
        Table written by `CorrectMotion`.

    Returns
    -------
    (T,) array
    """
    return pd.read_csv(confounds, sep='\t')['weight'].to_numpy(dtype=float)
