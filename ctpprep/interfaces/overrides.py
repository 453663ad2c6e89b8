# SPDX-License-Identifier: Apache-2.0
"""A motion-corrected series that a user supplies."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    SimpleInterface,
    TraitedSpec,
    traits,
)

from ctpprep.interfaces.preprocessing import write_frame_transforms
from ctpprep.io import nifti
from ctpprep.perfusion import motion, overrides

UNKNOWN = (
    'trans_x', 'trans_y', 'trans_z', 'rot_x', 'rot_y', 'rot_z', 'framewise_displacement',
    'displacement',
)  # fmt: skip


class _TakeCorrectedInputSpec(BaseInterfaceInputSpec):
    ctp_working = File(exists=True, mandatory=True, desc='corrected series, HU')
    sample_times = File(exists=True, mandatory=True, desc='(slices, frames), s, npy')
    motion_reject_similarity = traits.Float(mandatory=True, desc='correlation')


class _TakeCorrectedOutputSpec(TraitedSpec):
    ctp_corrected = File(exists=True, desc='the same; NaN where a voxel was not seen')
    frame_transforms = File(exists=True, desc='ITK text file, one identity a frame')
    confounds = File(exists=True, desc='weight of each frame, tsv; motion is not known')
    motion = File(exists=True, desc='reference frame, and whether frames were resampled, json')


class LoadCorrected(SimpleInterface):
    """Take a series that was motion-corrected elsewhere, and weigh its frames."""

    input_spec = _TakeCorrectedInputSpec
    output_spec = _TakeCorrectedOutputSpec

    def _run_interface(self, runtime):
        ctp, affine = nifti.load(self.inputs.ctp_working, dtype=None)
        n_frames = ctp.shape[3]
        head = np.zeros(ctp.shape[:3], dtype=bool)
        for frame in range(n_frames):
            head |= ctp[..., frame] > overrides.HEAD_HU
        corrected = np.empty(ctp.shape, dtype=np.float32)
        similarity = np.ones(n_frames)
        for frame in range(n_frames):
            # head does not turn into air: there the voxel had left the field of view
            missing = head & (ctp[..., frame] <= overrides.HEAD_HU)
            corrected[..., frame] = np.where(missing, np.nan, ctp[..., frame])
            similarity[frame] = motion.skull_similarity(
                corrected[..., frame], corrected[..., 0], head & np.isfinite(corrected[..., 0])
            )
        weights = motion.frame_weights(similarity, self.inputs.motion_reject_similarity)
        cwd = Path(runtime.cwd)
        self._results['ctp_corrected'] = nifti.save(
            corrected, affine, cwd / 'ctp_corrected.nii', like=self.inputs.ctp_working,
            times_s=np.load(self.inputs.sample_times).min(axis=0),
        )  # fmt: skip
        table = pd.DataFrame(np.nan, index=range(n_frames), columns=list(UNKNOWN))
        table['skull_similarity'], table['weight'] = similarity, weights
        table.to_csv(
            cwd / 'confounds.tsv', sep='\t', index=False, float_format='%.6g', na_rep='n/a'
        )
        self._results['confounds'] = str(cwd / 'confounds.tsv')
        self._results['frame_transforms'] = write_frame_transforms(
            np.tile(np.eye(4), (n_frames, 1, 1)), cwd / 'frame_transforms.txt'
        )
        facts = {'reference_frame': 0, 'frames_resampled': False}
        (cwd / 'motion.json').write_text(json.dumps(facts))
        self._results['motion'] = str(cwd / 'motion.json')
        return runtime
