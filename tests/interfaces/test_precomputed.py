# SPDX-License-Identifier: Apache-2.0
"""From the files of precomputed maps to those that a series would have."""

import json
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest
from nipype.interfaces.base import isdefined

from ctpprep.exceptions import PerfusionError
from ctpprep.interfaces.precomputed import StandardizeMaps
from ctpprep.io import nifti
from ctpprep.settings import MethodSettings

SHAPE = (60, 72, 8)
AFFINE = np.diag([3.0, 3.0, 8.0, 1.0])
AFFINE[:3, 3] = -88, -106, -30
LPS = AFFINE @ np.diag([-1.0, -1, 1, 1])
LPS[:2, 3] = 89, 107
AXES = {'RAS': AFFINE, 'LPS': LPS}


@pytest.fixture(autouse=True, params=AXES)
def like(request, tmp_path, monkeypatch):
    """Work in an empty folder, in each voxel order."""
    monkeypatch.chdir(tmp_path)
    nb.save(nb.Nifti1Image(np.zeros(SHAPE, np.uint8), AXES[request.param]), 'like.nii')


@pytest.fixture(scope='module')
def head(mapped_head):
    return mapped_head


def save(array, name, affine=AFFINE):
    return str(Path(nifti.save(array, affine, f'{name}.nii', like='like.nii')).absolute())


def standardize(head, names=('cbf', 'cbv', 'tmax'), units=None, **changed):
    """Run the interface on files of the head; files and arrays may be exchanged."""
    inputs = {name: head[name] for name in names} | changed
    files = {
        name: save(value, name) if isinstance(value, np.ndarray) else value
        for name, value in inputs.items()
    }
    settings = MethodSettings().as_dict('masks', 'kinetics', 'symmetry')
    return StandardizeMaps(units=units or {}, settings=settings, **files).run().outputs


def voxels(path):
    return nifti.load(path)[0]


def read_json(path):
    return json.loads(Path(path).read_text())


def test_masks_are_written_beside_the_maps(head):
    outputs = standardize(head, density=head['density'], density_kind='ncct')
    tissue = voxels(outputs.tissue_mask) > 0
    assert (tissue == head['tissue'])[head['brain']].mean() > 0.97
    assert (voxels(outputs.vessel_mask) > 0)[head['vessel']].all()
    assert (voxels(outputs.csf_mask) > 0)[head['ventricles']].mean() > 0.5
    assert not voxels(outputs.cbf)[~tissue].any()


def test_sources_of_the_masks_are_written_as_values_and_as_sentences(head):
    outputs = standardize(head, density=head['density'], density_kind='ncct')
    entry = read_json(outputs.entry)
    assert entry['brain_mask_from'].startswith('baseline CT')
    notes = read_json(outputs.entry_fields)['EntryNotes']
    assert f'brain mask: {entry["brain_mask_from"]}' in notes


@pytest.mark.parametrize(('density', 'unit'), [(True, 'HU'), (False, '1')])
def test_reference_has_the_unit_of_what_it_shows(head, density, unit):
    ct = {'density': head['density'], 'density_kind': 'ncct'} if density else {}
    assert read_json(standardize(head, **ct).baseline_fields) == {'Units': unit}


def test_files_have_the_voxel_order_of_the_maps(head):
    outputs = standardize(head)
    for name in ('tmax', 'tissue_mask', 'reference'):
        image = nb.load(getattr(outputs, name))
        np.testing.assert_array_equal(image.affine, nb.load('like.nii').affine)


def test_supplied_masks_and_values_are_unchanged(head):
    masks = {'brain_mask': head['brain'], 'tissue_mask': head['tissue']}
    outputs = standardize(
        head, units={'cbf': 'mL/100 g/min', 'tmax': 's'}, density=head['density'],
        density_kind='ctpref', **masks,
    )  # fmt: skip
    for name, mask in masks.items():
        np.testing.assert_array_equal(voxels(getattr(outputs, name)) > 0, mask)
    for name in ('cbf', 'tmax'):
        np.testing.assert_array_equal(
            voxels(getattr(outputs, name)), np.where(head['tissue'], head[name], 0)
        )
    np.testing.assert_array_equal(voxels(outputs.reference), head['density'])
    assert not isdefined(outputs.vessel_mask)
    assert not isdefined(outputs.csf_mask)


def test_relative_cbf_becomes_cbf_by_its_stated_unit(head):
    outputs = standardize(head, ('tmax',), {'rcbf': 'percent'}, rcbf=head['cbf'] * 2)
    tissue = voxels(outputs.tissue_mask) > 0
    np.testing.assert_allclose(voxels(outputs.cbf)[tissue], head['cbf'][tissue] / 50, rtol=1e-5)
    assert not isdefined(outputs.cbv)


def test_ct_of_a_larger_grid_is_resampled_to_that_of_the_maps(head):
    wide = np.pad(head['density'], 4, mode='edge')
    affine = AFFINE.copy()
    affine[:3, 3] -= 4 * np.diag(AFFINE)[:3]
    nb.save(nb.Nifti1Image(wide, affine), 'wide.nii')
    outputs = standardize(head, density='wide.nii', density_kind='ncct')
    np.testing.assert_allclose(voxels(outputs.reference), head['density'], atol=1e-3)


def test_image_that_is_mirrored_is_passed_on_under_its_name(head):
    outputs = standardize(head, density=head['density'], density_kind='ncct')
    assert Path(outputs.baseline_ct).name == Path(outputs.brain_ct).name == 'density.nii'
    assert not isdefined(outputs.stand_in)


@pytest.mark.parametrize(
    ('names', 'mirrored'), [(('cbf', 'cbv', 'tmax'), 'cbv'), (('cbf', 'tmax'), 'cbf')]
)
def test_map_that_is_mirrored_is_passed_on_under_its_name(head, names, mirrored):
    elsewhere = np.roll(head['density'], 30, axis=0)
    outputs = standardize(head, names, density=elsewhere, density_kind='ncct')
    assert Path(outputs.stand_in).name == f'{mirrored}.nii'
    assert not isdefined(outputs.baseline_ct)
    assert not isdefined(outputs.brain_ct)


def test_ct_without_a_brain_is_passed_on_as_the_image_to_mirror(head, monkeypatch):
    def find_none(*_, **__):
        raise PerfusionError('no brain')

    monkeypatch.setattr('ctpprep.perfusion.precomputed.brain_of_ct', find_none)
    outputs = standardize(head, density=head['density'], density_kind='ncct')
    assert isdefined(outputs.baseline_ct)
    assert not isdefined(outputs.stand_in)
    assert not isdefined(outputs.brain_ct)


def test_errors_name_the_file(head):
    with pytest.raises(PerfusionError, match=r'brain_mask\.nii: '):
        standardize(head, brain_mask=~head['brain'])
    moved = np.roll(head['density'], 30, axis=0)
    with pytest.raises(PerfusionError, match=r'density\.nii: .* in the space of the maps'):
        standardize(head, density=moved, density_kind='ctpref')
