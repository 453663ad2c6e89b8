# SPDX-License-Identifier: Apache-2.0
"""The file that a node leaves if it finds no valid result."""

import json
from pathlib import Path
from types import SimpleNamespace

import nibabel as nb
import numpy as np
import pytest

from ctpprep.exceptions import BolusError, UsageError, VesselError
from ctpprep.interfaces import evidence as files
from ctpprep.interfaces.deconvolution import FindVessels
from ctpprep.interfaces.preprocessing import MakeMasks
from ctpprep.settings import MethodSettings


@pytest.fixture
def inputs(toy_head, tmp_path, monkeypatch):
    """Write the inputs of both nodes: a head without contrast."""
    monkeypatch.chdir(tmp_path)
    ctp, affine, times = toy_head
    still = ctp[..., :1] + np.random.default_rng(1).normal(size=ctp.shape)
    paths = {'damage': np.zeros(ctp.shape[:3], np.float32), 'ctp_corrected': still}
    for name, voxels in paths.items():
        nb.save(nb.Nifti1Image(voxels.astype(np.float32), affine), f'{name}.nii')
    np.save('times.npy', np.tile(times, (ctp.shape[2], 1)))
    Path('confounds.tsv').write_text('weight\n' + '1\n' * len(times))
    named = {name: str(tmp_path / f'{name}.nii') for name in paths}
    return named | {
        'sample_times': str(tmp_path / 'times.npy'), 'confounds': str(tmp_path / 'confounds.tsv'),
    }  # fmt: skip


def save_mask(name, mask, like):
    nb.save(nb.Nifti1Image(mask.astype(np.uint8), nb.load(like).affine), name)
    return str(Path(name).absolute())


def test_masks_leave_evidence_if_there_is_no_bolus(inputs, tmp_path):
    with pytest.raises(BolusError, match='--bolus-arrival'):
        MakeMasks(**inputs, settings=MethodSettings().as_dict('masks')).run()
    evidence = files.read_evidence(tmp_path)
    assert evidence.region == 'search region'
    assert set(evidence.outlines) == {'search region', 'brain'}
    assert not list(tmp_path.glob('.partial*'))


def test_vessels_leave_evidence_if_there_is_no_artery(inputs, tmp_path):
    inside = nb.load(inputs['ctp_corrected']).get_fdata().mean(axis=-1)
    inside = (inside > 25) & (inside < 60)
    Path('bolus.json').write_text(json.dumps({'n_baseline': 3, 'arrival_s': 5.0}))
    masks = {
        name: save_mask(f'{name}.nii', inside, inputs['ctp_corrected'])
        for name in ('intracranial_mask', 'tissue_mask')
    }
    with pytest.raises(VesselError, match=r'need at least 3; .*--aif-file'):
        FindVessels(
            **inputs, **masks, bolus=str(tmp_path / 'bolus.json'),
            settings=MethodSettings().as_dict('vessels'),
        ).run()  # fmt: skip
    assert set(files.read_evidence(tmp_path).outlines) == {'search region', 'tissue'}


def test_success_leaves_none(tmp_path):
    with files.keep_evidence(SimpleNamespace(cwd=tmp_path)):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('error', [BolusError, UsageError])
def test_the_error_is_the_one_of_the_stage(tmp_path, monkeypatch, toy_head, error):
    def save(*_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(files, 'save_evidence', save)
    series = (toy_head[0], toy_head[2], toy_head[1], MethodSettings())
    with (
        pytest.raises(error, match='as before'),
        files.keep_evidence(SimpleNamespace(cwd=tmp_path), *series),
    ):
        raise error('as before')
