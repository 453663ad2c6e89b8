# SPDX-License-Identifier: Apache-2.0
"""Maps made elsewhere, from files to the ports of a series."""

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
def head():
    """Draw the maps of a brain with ventricles and a vessel, and the CT of its head."""
    x, y, _ = (axis - (n - 1) / 2 for axis, n in zip(np.indices(SHAPE), SHAPE, strict=True))
    radius = np.hypot(x / 22, y / 28)
    ventricles = (np.abs(x) < 4) & (np.abs(y) < 8)
    tissue = (radius < 1) & ~ventricles
    vessel = np.zeros(SHAPE, bool)
    vessel[30:32, 14:16] = True
    grey = np.where(radius > 0.8, 60.0, 30.0)
    flow = np.where(vessel, 300.0, np.where(tissue, grey, 0.0)).astype(np.float32)
    density = np.select(
        [tissue, radius < 1, radius < 1.1, radius < 1.25], [34, 6, 20, 900], -1000.0
    )
    return {
        'cbf': flow, 'cbv': flow / 12, 'tmax': np.where(tissue, 1.5, 0).astype(np.float32),
        'density': density.astype(np.float32), 'tissue': tissue & ~vessel, 'brain': radius < 1,
        'vessel': vessel, 'ventricles': ventricles,
    }  # fmt: skip


def take(head, names=('cbf', 'cbv', 'tmax'), units=None, **changed):
    """Run the interface on files of the head; files and arrays may be exchanged."""
    files = {}
    for name in (*names, *changed):
        array = changed.get(name, head.get(name))
        files[name] = (
            nifti.save(array, AFFINE, f'{name}.nii', like='like.nii')
            if isinstance(array, np.ndarray)
            else array
        )
    method = MethodSettings()
    settings = ('bone_hu', 'csf_hu', 'vessel_ratio', 'tissue_density', 'mirror_window_hu')
    settings = {name: getattr(method, name) for name in settings}
    return StandardizeMaps(units=units or {}, **files, **settings).run().outputs


def voxels(path):
    return nifti.load(path)[0]


def told(outputs):
    return json.loads(Path(outputs.entry).read_text())


def notes(outputs):
    return '\n'.join(json.loads(Path(outputs.entry_fields).read_text())['EntryNotes'])


def test_tissue_is_brain_without_vessels_and_csf(head):
    outputs = take(head, density=head['density'], density_kind='ncct')
    tissue = voxels(outputs.tissue_mask) > 0
    assert not (tissue & (head['vessel'] | head['ventricles'])).any()
    assert (tissue == head['tissue'])[head['brain']].mean() > 0.97
    assert (voxels(outputs.vessel_mask) > 0)[head['vessel']].all()
    assert told(outputs)['brain_mask_from'].startswith('baseline CT')


def test_tissue_without_a_ct_is_nearly_the_same(head):
    outputs = take(head)
    assert ((voxels(outputs.tissue_mask) > 0) == head['tissue'])[head['brain']].mean() > 0.97
    assert told(outputs)['reference_image_from'] == 'cbv'
    assert 'for want of a CT' in notes(outputs)
    assert json.loads(Path(outputs.baseline_fields).read_text()) == {'Units': '1'}


def test_files_keep_the_voxel_order_of_the_maps(head):
    outputs = take(head)
    for name in ('tmax', 'tissue_mask', 'reference'):
        image = nb.load(getattr(outputs, name))
        np.testing.assert_array_equal(image.affine, nb.load('like.nii').affine)


def test_supplied_masks_and_values_come_through_unchanged(head):
    masks = {'brain_mask': head['brain'], 'tissue_mask': head['tissue']}
    outputs = take(
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
    assert told(outputs)['tissue_mask_from'] == 'supplied'


def test_a_narrowed_brain_mask_narrows_supplied_tissue(head):
    left = head['brain'].copy()
    left[30:] = False
    outputs = take(head, brain_mask=left, tissue_mask=head['tissue'])
    np.testing.assert_array_equal(voxels(outputs.tissue_mask) > 0, head['tissue'] & left)


def test_maps_are_nan_free_and_0_outside_tissue(head):
    holed = head['cbf'].copy()
    holed[:5] = np.nan
    holed[20, 30] = np.nan
    outputs = take(head, cbf=holed)
    tissue = voxels(outputs.tissue_mask) > 0
    assert not tissue[20, 30].any()
    for name in ('cbf', 'cbv', 'tmax'):
        assert not voxels(getattr(outputs, name))[~tissue].any()


@pytest.mark.parametrize('hole', [np.nan, np.inf])
def test_holes_of_one_map_are_0_and_do_no_harm_to_the_others(head, hole):
    holed = head['cbv'].copy()
    holed[20, 30] = hole
    outputs = take(head, cbv=holed)
    assert not voxels(outputs.cbv)[20, 30].any()
    assert np.isfinite(voxels(outputs.cbv)).all()
    assert np.isfinite(voxels(outputs.reference)).all()
    assert (voxels(outputs.cbf)[20, 30] > 0).all()


def test_percent_and_milliseconds_become_fractions_and_seconds(head):
    outputs = take(
        head, ('tmax',), rcbf=head['cbf'] * 2, tmax=head['tmax'] * 1000, units={'rcbf': 'percent'}
    )
    inside = voxels(outputs.tissue_mask) > 0
    np.testing.assert_allclose(voxels(outputs.tmax)[inside], 1.5, rtol=1e-6)
    np.testing.assert_allclose(voxels(outputs.cbf)[inside], head['cbf'][inside] / 50, rtol=1e-5)
    assert told(outputs)['tmax_unit'] == 'ms'
    assert 'divided again by the median of our own reference tissue' in notes(outputs)


def test_a_ct_on_another_grid_is_brought_to_that_of_the_maps(head):
    wide = np.pad(head['density'], 4, mode='edge')
    affine = AFFINE.copy()
    affine[:3, 3] -= 4 * np.diag(AFFINE)[:3]
    nb.save(nb.Nifti1Image(wide, affine), 'wide.nii')
    outputs = take(head, density=str(Path('wide.nii').absolute()), density_kind='ncct')
    np.testing.assert_allclose(voxels(outputs.reference), head['density'], atol=1e-3)


def test_an_ncct_beside_the_maps_is_told_and_not_used(head):
    moved = np.roll(head['density'], 30, axis=0)
    outputs = take(head, density=moved, density_kind='ncct')
    assert told(outputs)['reference_image_from'] == 'cbv'
    assert 'baseline CT not used: density.nii' in notes(outputs)
    assert not isdefined(outputs.baseline_ct)
    assert not isdefined(outputs.brain_ct)
    assert Path(outputs.stand_in).name == 'cbv.nii'


def test_a_ct_without_a_brain_is_mirrored_all_the_same(head, monkeypatch):
    def see_none(*_, **__):
        raise PerfusionError('no brain')

    monkeypatch.setattr('ctpprep.perfusion.precomputed.brain_of_ct', see_none)
    outputs = take(head, density=head['density'], density_kind='ncct')
    assert isdefined(outputs.baseline_ct)
    assert not isdefined(outputs.stand_in)
    assert not isdefined(outputs.brain_ct)


def test_a_reference_beside_the_maps_fails(head):
    moved = np.roll(head['density'], 30, axis=0)
    with pytest.raises(PerfusionError, match=r'density\.nii: .* in the space of the maps'):
        take(head, density=moved, density_kind='ctpref')


@pytest.mark.parametrize('background', [0, -1000])
def test_a_skull_stripped_ct_does_as_well(head, background):
    stripped = np.where(head['brain'], head['density'], background)
    outputs = take(head, density=stripped, density_kind='ncct')
    found = voxels(outputs.brain_mask) > 0
    assert found[head['brain']].mean() > 0.9  # at an edge to air a rim is lost
    assert not (found & ~head['brain']).any()


def test_a_mask_beside_the_maps_fails(head):
    with pytest.raises(PerfusionError, match=r'brain_mask\.nii: '):
        take(head, brain_mask=~head['brain'])


def test_tmax_that_disagrees_with_mtt_is_told(head):
    assert 'disagree' not in notes(take(head, mtt=head['tmax'] * 3))
    assert 'Tmax and MTT disagree' in notes(take(head, tmax=head['tmax'] * 5, mtt=head['tmax']))


def test_an_empty_map_fails(head):
    with pytest.raises(PerfusionError, match='the map of Tmax is empty'):
        take(head, tmax=np.zeros(SHAPE, np.float32))
