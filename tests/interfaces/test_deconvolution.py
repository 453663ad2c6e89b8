# SPDX-License-Identifier: Apache-2.0
"""From the files of a corrected series to those of curves and maps."""

import json
from pathlib import Path
from types import SimpleNamespace

import nibabel as nb
import numpy as np
import pandas as pd
import pytest
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform
from nipype.interfaces.base import isdefined
from scipy import ndimage

from ctpprep.interfaces.deconvolution import MAPS, Deconvolve, FindVessels
from ctpprep.io import nifti
from ctpprep.settings import MethodSettings


def prepare(toy_head, axes):
    """Write what the two interfaces read into the current folder."""
    ctp, affine, times = toy_head
    order = ornt_transform(axcodes2ornt('RAS'), axcodes2ornt(axes))
    stored = nb.orientations.apply_orientation(ctp.astype(np.float32), order)
    nb.save(nb.Nifti1Image(stored, affine @ inv_ornt_aff(order, ctp.shape[:3])), 'ctp.nii')
    np.save('times.npy', np.tile(times, (ctp.shape[2], 1)))
    pd.DataFrame({'weight': np.ones(len(times))}).to_csv('confounds.tsv', sep='\t', index=False)
    Path('bolus.json').write_text('{"n_baseline": 3, "arrival_s": 5.5}')
    mean = ctp[..., :3].mean(axis=-1)
    masks = {'tissue': (mean > 25) & (mean < 60), 'intracranial': (mean > 0) & (mean < 100)}
    # off the ventricles: a mixture of tissue and CSF has the density of white matter
    masks['pure'] = masks['tissue'] & ~ndimage.binary_dilation(mean < 25)
    for name, mask in masks.items():
        nifti.save(mask, affine, f'{name}.nii', like='ctp.nii')
    nifti.save(np.zeros(mean.shape, np.float32), affine, 'damage.nii', like='ctp.nii')
    folder = Path.cwd()
    return {
        'intracranial_mask': str(folder / 'intracranial.nii'),
        'ctp_corrected': str(folder / 'ctp.nii'),
        'sample_times': str(folder / 'times.npy'),
        'confounds': str(folder / 'confounds.tsv'),
        'bolus': str(folder / 'bolus.json'),
        'tissue_mask': str(folder / 'tissue.nii'),
        'pure_mask': str(folder / 'pure.nii'),
        'damage': str(folder / 'damage.nii'),
    }


def find_vessels(files, **changed):
    settings = MethodSettings.of(**changed).as_dict('vessels')
    files = {name: path for name, path in files.items() if name != 'pure_mask'}
    return FindVessels(settings=settings, **files).run().outputs


def deconvolve(files, curves, **changed):
    settings = MethodSettings.of(**changed).as_dict('denoising', 'deconvolution', 'kinetics')
    away = ('intracranial_mask', 'damage')
    files = {name: path for name, path in files.items() if name not in away}
    return Deconvolve(curves=curves, settings=settings, **files).run().outputs


@pytest.fixture(scope='module')
def runs(toy_head, tmp_path_factory):
    """Run both interfaces on two voxel orders."""
    results = {}
    with pytest.MonkeyPatch.context() as patch:
        for axes in ('RAS', 'LPS'):
            patch.chdir(tmp_path_factory.mktemp(axes))
            files = prepare(toy_head, axes)
            vessels = find_vessels(files)
            results[axes] = SimpleNamespace(
                files=files, vessels=vessels, maps=deconvolve(files, vessels.curves),
            )  # fmt: skip
    return results


@pytest.fixture
def again(runs, monkeypatch, tmp_path):
    """Deconvolve again, in another folder, with other settings or files."""
    monkeypatch.chdir(tmp_path)
    first = runs['RAS']

    def run(curves=first.vessels.curves, files=(), **changed):
        return deconvolve(first.files | dict(files), curves, **changed)

    return run


def values(outputs, name):
    return nifti.load(getattr(outputs, name))[0]


def read_json(path):
    return json.loads(Path(path).read_text())


@pytest.fixture(scope='module')
def tissue(runs):
    return nifti.load_mask(runs['RAS'].files['tissue_mask'])


# -- vessels


@pytest.mark.parametrize('name', ['aif_mask', 'vof_mask'])
def test_vessels_are_the_same_in_any_voxel_order(runs, name):
    first, second = (values(run.vessels, name) for run in runs.values())
    assert first.any()
    np.testing.assert_array_equal(first, second)


def test_table_of_curves_has_one_row_per_frame(runs, toy_head):
    table = pd.read_csv(runs['RAS'].vessels.curves, sep='\t')
    assert list(table) == ['time', 'aif', 'vof', 'tissue', 'weight']
    np.testing.assert_allclose(table['time'], toy_head[2])
    assert 150 < table['aif'].max() < 275


def test_settings_of_the_stage_are_applied_to_the_vessels(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    vessels = find_vessels(runs['RAS'].files, aif_voxels=5)
    assert nifti.load_mask(vessels.aif_mask).sum() == 5


def supply_curve(**columns):
    """Write an AIF that continues beyond the scan; return its path."""
    times = np.arange(-4, 50, 1.0)
    rise = np.clip((times - 5) / 5, 0, None)
    curves = {'time': times, 'aif': 300 * (rise * np.exp(1 - rise)) ** 2}
    pd.DataFrame(curves | columns).to_csv('my_aif.tsv', sep='\t', index=False)
    return str(Path('my_aif.tsv').absolute())


def test_supplied_table_replaces_aif_and_vof(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outputs = find_vessels(runs['RAS'].files | {'supplied_curves': supply_curve(vof=77.0)})
    table = pd.read_csv(outputs.curves, sep='\t')
    np.testing.assert_allclose(table['time'], np.arange(0, 35, 1.0))
    assert table['aif'].max() == 300
    assert (table['vof'] == 77).all()
    assert not nifti.load_mask(outputs.aif_mask).any()
    assert not nifti.load_mask(outputs.vof_mask).any()


def test_absent_vof_is_an_empty_column(toy_head, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ctp, affine, times = toy_head
    ctp = ctp.copy()
    ctp[:, :12] = ctp[:, :12, :, :1]  # nothing enhances at the back
    files = prepare((ctp, affine, times), 'RAS')
    outputs = find_vessels(files | {'supplied_curves': supply_curve()})
    assert pd.read_csv(outputs.curves, sep='\t')['vof'].isna().all()


def test_supplied_mask_of_a_finer_grid_selects_the_voxel_around_it(
    runs, toy_head, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    ctp, affine, _ = toy_head
    fine = affine @ np.diag([0.5, 0.5, 1, 1])
    fine[:2, 3] -= 1.0
    artery = np.argwhere(ctp[..., 5] - ctp[..., 0] > 150)[0]
    mask = np.zeros((88, 104, 6), np.uint8)
    mask[2 * artery[0] + 1, 2 * artery[1], artery[2]] = 1
    nb.save(nb.Nifti1Image(mask, fine), 'voxel.nii.gz')
    supplied = {'supplied_aif_mask': str(Path('voxel.nii.gz').absolute())}
    outputs = find_vessels(runs['RAS'].files | supplied)
    assert np.argwhere(nifti.load_mask(outputs.aif_mask)).tolist() == [artery.tolist()]


# -- maps


@pytest.mark.parametrize('name', [*MAPS, 'noise', 'tissue_share', 'cbf_noise'])
def test_map_of_the_patient_is_the_same_in_any_voxel_order(runs, name):
    (first, affine), (second, other) = (
        nifti.load(getattr(run.maps, name)) for run in runs.values()
    )
    assert first.any()
    np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(affine, other, atol=1e-5)


def test_settings_of_the_stages_are_applied_to_the_maps(again, runs, tissue):
    double = values(again(hematocrit_factor=2 * 0.733), 'cbf')[tissue]
    np.testing.assert_allclose(double, 2 * values(runs['RAS'].maps, 'cbf')[tissue], rtol=1e-3)
    outputs = again(lambda_rel=0.15, denoise='smooth')
    assert read_json(outputs.deconvolution)['lambda_rel'] == 0.15


def test_flow_follows_the_height_of_the_curve_in_the_table(again, tissue):
    path = supply_curve()
    first = np.array(values(again(curves=path), 'cbf'))  # the file is overwritten
    table = pd.read_csv(path, sep='\t')
    table.assign(aif=2 * table['aif']).to_csv(path, sep='\t', index=False)
    second = values(again(curves=path), 'cbf')
    np.testing.assert_allclose(first[tissue], 2 * second[tissue], rtol=1e-3, atol=1e-3)


def test_rejected_rows_of_the_curves_are_not_read(again, runs):
    curves = pd.read_csv(runs['RAS'].vessels.curves, sep='\t')
    curves.loc[12, ['aif', 'weight']] = 0.0
    curves.to_csv('curves.tsv', sep='\t', index=False)
    rejected = np.array(values(again(curves='curves.tsv'), 'cbf'))  # the file is overwritten
    curves.loc[12, 'aif'] = 1e4
    curves.to_csv('curves.tsv', sep='\t', index=False)
    np.testing.assert_array_equal(values(again(curves='curves.tsv'), 'cbf'), rejected)


def test_weights_of_the_confounds_reject_frames(again, runs, tissue):
    image = nb.load(runs['RAS'].files['ctp_corrected'])
    voxels = image.get_fdata(dtype=np.float32)
    voxels[..., 12] = np.nan
    nb.save(nb.Nifti1Image(voxels, image.affine), 'spoilt.nii')
    weights = np.ones(18)
    weights[12] = 0.0
    pd.DataFrame({'weight': weights}).to_csv('confounds.tsv', sep='\t', index=False)
    spoilt = again(files={'ctp_corrected': 'spoilt.nii', 'confounds': 'confounds.tsv'})
    cbf, complete = (values(maps, 'cbf')[tissue] for maps in (spoilt, runs['RAS'].maps))
    assert np.isfinite(cbf).all()
    assert np.median(np.abs(cbf - complete)) < 0.1 * np.median(complete)


def test_what_was_measured_is_written(runs):
    assert set(read_json(runs['RAS'].maps.deconvolution)) == {
        'lambda_rel', 'lambda', 'lambda_tmax', 'tmax_offset_s', 'tmax_offset_s_by_slice',
        'cbf_noise_excess', 'cbf_noise', 'core_reading', 'noise_raw_hu', 'noise_denoised_hu', 'n_patterns',
        'aif_scale',
    }  # fmt: skip


def test_curves_that_were_deconvolved_are_written_as_scores(runs, tissue):
    with np.load(runs['RAS'].maps.tissue_curves) as file:
        curves = file['scores'] @ file['components'][0].T + file['centres'][0]
        assert float(file['kept']) == pytest.approx(1, abs=1e-6)
        assert file['times'].shape == file['centres'].shape == (1, 18)
        assert file['slice_pattern'].tolist() == [0] * 6
    noise = curves[:, :3].std(axis=1, ddof=1)
    np.testing.assert_allclose(noise, values(runs['RAS'].maps, 'noise')[tissue], atol=5e-3)


def test_noise_of_flow_is_not_written_without_denoising(again):
    assert not isdefined(again(denoise='none').cbf_noise)
