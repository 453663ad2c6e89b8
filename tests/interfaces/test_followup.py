# SPDX-License-Identifier: Apache-2.0
"""The follow-up lesion on the grid of the maps."""

import json
from pathlib import Path

import nibabel as nb
import numpy as np
from nipype.interfaces.base import isdefined

from ctpprep.interfaces.followup import PlaceLesion


def write(array, path):
    nb.Nifti1Image(array.astype(np.float32), np.diag([2.0, 2, 5, 1])).to_filename(path)
    return str(path)


def test_mask_with_infinite_values_is_left_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    brain = np.ones((8, 8, 4))
    lesion = np.zeros_like(brain)
    lesion[2, 2, 2] = np.inf
    node = PlaceLesion(
        lesion_mask=write(lesion, tmp_path / 'lesion.nii'), space='series',
        reference=write(brain, tmp_path / 'reference.nii'),
        brain_mask=write(brain, tmp_path / 'brain.nii'),
    )  # fmt: skip
    outputs = node.run().outputs
    assert 'infinite' in json.loads(Path(outputs.followup).read_text())['followup_left_out']
    assert not isdefined(outputs.placed)
