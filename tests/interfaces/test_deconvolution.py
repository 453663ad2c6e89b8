# SPDX-License-Identifier: Apache-2.0
"""From the corrected series to curves and maps, on a head whose right side is slow."""

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

from ctpprep.exceptions import VesselError
from ctpprep.interfaces.deconvolution import MAPS, Deconvolve, FindVessels, _smooth_by_pattern
from ctpprep.io import nifti
from ctpprep.phantom import PhantomSettings, make_phantom
from ctpprep.settings import MethodSettings

SLOW_RIGHT = slice(24, None)  # first voxel axis runs to the right


def prepare(toy_head, axes, delay_of_slices=0.0):
    """Write what the two interfaces read into the current folder."""
    ctp, affine, times = toy_head
    order = ornt_transform(axcodes2ornt('RAS'), axcodes2ornt(axes))
    stored = nb.orientations.apply_orientation(ctp.astype(np.float32), order)
    nb.save(nb.Nifti1Image(stored, affine @ inv_ornt_aff(order, ctp.shape[:3])), 'ctp.nii')
    samples = np.tile(times, (ctp.shape[2], 1))
    samples[3:] += delay_of_slices
    np.save('times.npy', samples)
    pd.DataFrame({'weight': np.ones(len(times))}).to_csv('confounds.tsv', sep='\t', index=False)
    Path('bolus.json').write_text('{"n_baseline": 3, "arrival_s": 5.5}')
    mean = ctp[..., :3].mean(axis=-1)
    masks = {'tissue': (mean > 25) & (mean < 60), 'intracranial': (mean > 0) & (mean < 100)}
    # off the ventricles, where a mixture of both would pass for tissue
    masks['pure'] = masks['tissue'] & ~ndimage.binary_dilation(mean < 25)
    for name, mask in masks.items():
        nifti.save(mask, affine, f'{name}.nii', like='ctp.nii')
    folder = Path.cwd()
    return {
        'intracranial_mask': str(folder / 'intracranial.nii'),
        'ctp_corrected': str(folder / 'ctp.nii'),
        'sample_times': str(folder / 'times.npy'),
        'confounds': str(folder / 'confounds.tsv'),
        'bolus': str(folder / 'bolus.json'),
        'tissue_mask': str(folder / 'tissue.nii'),
        'pure_mask': str(folder / 'pure.nii'),
    }


def find_vessels(files, overrides=None, **changed):
    inputs = MethodSettings.of(**changed).stage('vessels') | (overrides or {})
    files = {name: path for name, path in files.items() if name != 'pure_mask'}
    return FindVessels(**files, **inputs).run().outputs


def deconvolve(files, curves, **changed):
    inputs = MethodSettings.of(**changed).stage('denoising', 'deconvolution')
    files = {name: path for name, path in files.items() if name != 'intracranial_mask'}
    return Deconvolve(curves=curves, **files, **inputs).run().outputs


@pytest.fixture(scope='module')
def found(toy_head, tmp_path_factory):
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
def again(found, monkeypatch, tmp_path):
    """Run both interfaces again with other settings or files."""
    monkeypatch.chdir(tmp_path)
    one = found['RAS']

    def run(curves=None, **changed):
        return deconvolve(one.files, curves or one.vessels.curves, **changed)

    return run


def values(outputs, name):
    return nifti.load(getattr(outputs, name))[0]


@pytest.fixture(scope='module')
def tissue(found):
    return nifti.load_mask(found['RAS'].files['tissue_mask'])


# -- vessels


def test_arteries_and_veins_are_found(found):
    aif = np.argwhere(nifti.load_mask(found['RAS'].vessels.aif_mask))
    vof = np.argwhere(nifti.load_mask(found['RAS'].vessels.vof_mask))
    assert len(aif) == len(vof) == MethodSettings().aif_voxels
    assert (aif[:, 1] > 26).all()  # in front
    assert (aif[:, 2] < 3).all()
    assert (vof[:, 1] < 12).all()  # at the back


@pytest.mark.parametrize('name', ['aif_mask', 'vof_mask'])
def test_voxel_order_changes_no_vessel(found, name):
    first, second = (values(each.vessels, name) for each in found.values())
    np.testing.assert_array_equal(first, second)


def test_curves_have_time_unit_and_order(found, toy_head):
    table = pd.read_csv(found['RAS'].vessels.curves, sep='\t')
    assert list(table) == ['time', 'aif', 'vof', 'tissue', 'weight']
    np.testing.assert_allclose(table['time'], toy_head[2])
    assert 150 < table['aif'].max() < 275
    assert table['time'][table['aif'].idxmax()] < table['time'][table['vof'].idxmax()]
    assert abs(table['aif'][:3].mean()) < 2


def test_curves_stand_at_the_times_of_the_slices_of_the_artery(toy_head, tmp_path, monkeypatch):
    """The arteries lie in slices 0 to 2; the others are scanned a second later."""
    monkeypatch.chdir(tmp_path)
    files = prepare(toy_head, 'RAS', delay_of_slices=1.0)
    table = pd.read_csv(find_vessels(files).curves, sep='\t')
    np.testing.assert_allclose(table['time'], toy_head[2])


def test_scaling_gives_the_aif_the_area_of_the_vof(found, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # outputs go to the current folder
    plain = pd.read_csv(found['RAS'].vessels.curves, sep='\t')
    scaled = pd.read_csv(find_vessels(found['RAS'].files, aif_scaling='vof').curves, sep='\t')
    area = {name: np.trapezoid(scaled[name], scaled['time']) for name in ('aif', 'vof')}
    assert area['aif'] == pytest.approx(area['vof'], rel=0.02)
    assert np.corrcoef(plain['aif'], scaled['aif'])[0, 1] == pytest.approx(1, abs=1e-6)


# -- maps


@pytest.mark.parametrize('name', [*MAPS, 'noise'])
def test_voxel_order_changes_no_map_in_the_patient(found, name):
    (first, affine), (second, other) = (
        nifti.load(getattr(each.maps, name)) for each in found.values()
    )
    np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(affine, other, atol=1e-5)


@pytest.mark.parametrize('name', [*MAPS, 'noise'])
def test_map_is_finite_and_0_outside_tissue(found, tissue, name):
    voxels = values(found['RAS'].maps, name)
    assert np.isfinite(voxels).all()
    assert not voxels[~tissue].any()
    assert voxels[tissue].any()


def test_the_slow_side_has_less_flow_and_a_longer_tmax(found, tissue):
    right = tissue.copy()
    right[: SLOW_RIGHT.start] = False
    left = tissue & ~right
    maps = {name: values(found['RAS'].maps, name) for name in MAPS}
    median = {name: (np.median(m[left]), np.median(m[right])) for name, m in maps.items()}
    assert median['cbf'][1] < 0.5 * median['cbf'][0]
    assert median['tmax'][1] > median['tmax'][0] + 2
    assert median['ttp'][1] > median['ttp'][0] + 2


def test_mtt_is_volume_over_flow(found, tissue):
    cbf, cbv, mtt = (values(found['RAS'].maps, name)[tissue] for name in ('cbf', 'cbv', 'mtt'))
    flowing = (cbf > 5) & (mtt > 0)
    np.testing.assert_allclose(mtt[flowing], 60 * cbv[flowing] / cbf[flowing], rtol=1e-3)


def test_delayed_slices_know_their_delay(toy_head, tmp_path, monkeypatch, found, tissue):
    """The same curves scanned a second later mean a bolus that comes a second later."""
    monkeypatch.chdir(tmp_path)
    files = prepare(toy_head, 'RAS', delay_of_slices=1.0)
    late = values(deconvolve(files, found['RAS'].vessels.curves), 'tmax')
    early = values(found['RAS'].maps, 'tmax')
    shift = np.median((late - early)[..., 4:][tissue[..., 4:]])
    assert shift == pytest.approx(1.0, abs=0.3)
    assert np.median((late - early)[..., :2][tissue[..., :2]]) == pytest.approx(0, abs=0.2)


def test_calibration_shifts_tmax_by_the_measured_offset(again, found, tissue):
    offset = json.loads(Path(found['RAS'].maps.deconvolution).read_text())['tmax_offset_s']
    assert offset > 0
    raw = values(again(tmax_calibration=False), 'tmax')
    calibrated = values(found['RAS'].maps, 'tmax')
    difference = (raw - calibrated)[tissue & (calibrated > 0.5)]
    np.testing.assert_allclose(difference, offset, atol=1e-3)


def test_constants_scale_flow(again, found, tissue):
    double = values(again(hematocrit_factor=2 * 0.733), 'cbf')[tissue]
    np.testing.assert_allclose(double, 2 * values(found['RAS'].maps, 'cbf')[tissue], rtol=1e-3)


def test_denoising_lowers_noise(again, found):
    noise = {
        how: np.median(
            values(again(denoise=how), 'noise')[values(again(denoise=how), 'noise') > 0]
        )
        for how in ('none', 'smooth')
    }
    assert noise['none'] == pytest.approx(1.0, abs=0.2)  # as drawn, HU
    assert noise['smooth'] < 0.7 * noise['none']
    facts = json.loads(Path(found['RAS'].maps.deconvolution).read_text())
    assert facts['noise_raw_hu'] == pytest.approx(noise['none'], rel=0.1)
    assert facts['noise_denoised_hu'] < noise['none']


@pytest.mark.parametrize('denoise', ['similarity', 'lowrank', 'smooth', 'none'])
def test_curves_that_are_shown_are_those_that_were_deconvolved(again, found, tissue, denoise):
    outputs = found['RAS'].maps if denoise == 'similarity' else again(denoise=denoise)
    with np.load(outputs.tissue_curves) as shown:
        curves = shown['scores'] @ shown['components'][0].T + shown['centres'][0]
        assert shown['kept'] <= 1
        kept = float(shown['kept'])
    if denoise in ('similarity', 'lowrank'):  # denoising has left no more than that
        assert kept == pytest.approx(1, abs=1e-6)
        noise = curves[:, :3].std(axis=1, ddof=1)
        np.testing.assert_allclose(noise, values(outputs, 'noise')[tissue], atol=5e-3)
    else:
        assert 0.5 < kept < 1


@pytest.mark.parametrize('denoise', ['similarity', 'lowrank', 'smooth'])
def test_samples_of_noise_are_as_noisy_as_repeated_scans(found, again, tissue, denoise):
    one = found['RAS']
    ctp, affine = nifti.load(one.files['ctp_corrected'])
    inner = ndimage.binary_erosion(tissue, iterations=2)
    scans, estimated = [], []
    for seed in range(5):
        noise = np.random.default_rng(seed).normal(0, 1.5, ctp.shape)
        path = nifti.save(ctp + noise, affine, f'{seed}.nii', like=one.files['tissue_mask'])
        outputs = deconvolve(
            one.files | {'ctp_corrected': path}, one.vessels.curves, denoise=denoise,
            lambda_rel=0.15, partial_volume=False,
        )  # fmt: skip
        scans.append(values(outputs, 'cbf')[inner])
        estimated.append(values(outputs, 'cbf_noise')[inner])
    # the noise of the head itself, 1 HU, is in each estimate but in no difference
    spread = np.sqrt(np.median(np.var(scans, axis=0, ddof=1))) * np.hypot(1.5, 1.0) / 1.5
    told = np.sqrt(np.median(np.mean(np.square(estimated), axis=(0, 2))))
    assert told == pytest.approx(spread, rel=0.3)


def test_what_noise_adds_is_taken_from_flow_and_told(again, found, tissue):
    raw = again(cbf_noise_correction=False)
    less = (values(raw, 'cbf') - values(found['RAS'].maps, 'cbf'))[tissue]
    assert less.min() >= 0
    facts = json.loads(Path(found['RAS'].maps.deconvolution).read_text())
    assert facts['cbf_noise_excess'] == pytest.approx(np.median(less), rel=0.02)
    assert json.loads(Path(raw.deconvolution).read_text())['cbf_noise_excess'] is None
    np.testing.assert_array_equal(values(raw, 'tmax'), values(found['RAS'].maps, 'tmax'))


@pytest.mark.parametrize('changed', [{'denoise': 'none'}, {'denoise_rank': 12}])
def test_without_denoising_or_frames_the_noise_of_flow_is_not_told(again, changed):
    assert not isdefined(again(**changed).cbf_noise)


def test_a_rejected_frame_does_not_change_the_maps_much(found, tmp_path, monkeypatch, tissue):
    """A frame of weight 0 may hold anything, even nothing."""
    monkeypatch.chdir(tmp_path)
    files = dict(found['RAS'].files)
    image = nb.load(files['ctp_corrected'])
    voxels = image.get_fdata(dtype=np.float32)
    voxels[..., 12] = np.nan
    nb.save(nb.Nifti1Image(voxels, image.affine), 'spoilt.nii')
    table = pd.read_csv(files['confounds'], sep='\t')
    table.loc[12, 'weight'] = 0.0
    table.to_csv('confounds.tsv', sep='\t', index=False)
    files |= {
        'ctp_corrected': str(Path('spoilt.nii').absolute()),
        'confounds': str(Path('confounds.tsv').absolute()),
    }
    spoilt = values(deconvolve(files, found['RAS'].vessels.curves), 'cbf')[tissue]
    whole = values(found['RAS'].maps, 'cbf')[tissue]
    assert np.isfinite(spoilt).all()
    assert np.median(np.abs(spoilt - whole)) < 0.1 * np.median(whole)


def test_curves_of_impure_tissue_come_from_pure_tissue(found, tmp_path, monkeypatch, tissue):
    """What lies beside a vessel or bone may hold anything."""
    monkeypatch.chdir(tmp_path)
    files = dict(found['RAS'].files)
    pure = nifti.load_mask(files['pure_mask'])
    image = nb.load(files['ctp_corrected'])
    voxels = image.get_fdata(dtype=np.float32)
    voxels[tissue & ~pure, 6:] += 500
    nb.save(nb.Nifti1Image(voxels, image.affine), 'spoilt.nii')
    files['ctp_corrected'] = str(Path('spoilt.nii').absolute())
    spoilt = deconvolve(files, found['RAS'].vessels.curves, denoise='smooth')
    changed = values(spoilt, 'cbf')[tissue & ~pure]
    assert changed.max() < 1.5 * np.percentile(values(found['RAS'].maps, 'cbf')[pure], 99)


def test_smoothing_stays_among_slices_of_one_sampling_pattern():
    tissue = np.ones((4, 4, 4), bool)
    pattern = np.array([0, 0, 1, 1])
    curves = np.repeat(np.broadcast_to(pattern * 10.0, tissue.shape)[tissue][:, None], 3, axis=1)
    smooth = _smooth_by_pattern(curves, tissue, tissue, pattern, (1.0, 1.0, 1.0))
    np.testing.assert_allclose(smooth, curves, atol=1e-4)


def test_each_slice_has_the_offset_of_its_times(toy_head, tmp_path, monkeypatch, found, tissue):
    """Rows run from feet to head; adding them back gives the map before calibration."""
    monkeypatch.chdir(tmp_path)
    files = prepare(toy_head, 'RAS', delay_of_slices=1.0)
    curves = found['RAS'].vessels.curves
    outputs = deconvolve(files, curves)
    calibrated = np.array(values(outputs, 'tmax'))
    facts = json.loads(Path(outputs.deconvolution).read_text())
    offsets = np.array(facts['tmax_offset_s_by_slice'])
    assert len(set(offsets[:3])) == len(set(offsets[3:])) == 1
    raw = values(deconvolve(files, curves, tmax_calibration=False), 'tmax')
    above = tissue & (calibrated > 0)
    np.testing.assert_allclose((calibrated + offsets)[above], raw[above], atol=1e-4)


# -- supplied


def supply_curve(toy_head, **columns):
    """Write an AIF that goes on beyond the scan, sampled twice as often; return its input."""
    times = np.arange(-4, 50, 1.0)
    s = np.clip((times - 5) / 5, 0, None)
    table = pd.DataFrame({'time': times, 'aif': 300 * (s * np.exp(1 - s)) ** 2} | columns)
    table.to_csv('my_aif.tsv', sep='\t', index=False)
    return {'supplied_curves': str(Path('my_aif.tsv').absolute())}


def test_a_supplied_curve_is_the_aif_over_the_time_of_the_scan(toy_head, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outputs = find_vessels(prepare(toy_head, 'RAS'), supply_curve(toy_head))
    table = pd.read_csv(outputs.curves, sep='\t')
    np.testing.assert_allclose(table['time'], np.arange(0, 35, 1.0))
    assert table['aif'].max() == 300
    assert (table['weight'] == 1).all()
    assert not nifti.load_mask(outputs.aif_mask).any()
    assert (np.argwhere(nifti.load_mask(outputs.vof_mask))[:, 1] < 12).all()  # at the back
    assert 200 < table['vof'].max() < 350


def test_flow_follows_the_height_of_a_supplied_curve(found, toy_head, again, tissue):
    """Twice the AIF is half of the flow: the curve is used, not only shown."""
    given = supply_curve(toy_head)
    table = pd.read_csv('my_aif.tsv', sep='\t')
    first = np.array(values(again(curves=given['supplied_curves']), 'cbf'))
    table.assign(aif=2 * table['aif']).to_csv('my_aif.tsv', sep='\t', index=False)
    second = values(again(curves=given['supplied_curves']), 'cbf')
    np.testing.assert_allclose(first[tissue], 2 * second[tissue], rtol=1e-3, atol=1e-3)


def test_a_supplied_vof_is_taken(toy_head, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outputs = find_vessels(prepare(toy_head, 'RAS'), supply_curve(toy_head, vof=77.0))
    assert (pd.read_csv(outputs.curves, sep='\t')['vof'] == 77).all()
    assert not nifti.load_mask(outputs.vof_mask).any()


def without_vein(toy_head):
    ctp, affine, times = toy_head
    ctp = ctp.copy()
    ctp[:, :12] = ctp[:, :12, :, :1]  # nothing enhances at the back
    return ctp, affine, times


def test_a_supplied_aif_does_without_a_vof_but_not_when_it_is_to_be_scaled(
    toy_head, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    files = prepare(without_vein(toy_head), 'RAS')
    given = supply_curve(toy_head)
    outputs = find_vessels(files, given)
    assert pd.read_csv(outputs.curves, sep='\t')['vof'].isna().all()
    assert not nifti.load_mask(outputs.vof_mask).any()
    for wrong in ((files, given, 'vof'), (files, None, 'none')):
        with pytest.raises(VesselError, match='no vein-like curve'):
            find_vessels(*wrong[:2], aif_scaling=wrong[2])


def test_supplied_voxels_on_a_finer_grid_make_the_aif(toy_head, tmp_path, monkeypatch):
    """A single fine voxel in the left artery stands for the coarse one around it."""
    monkeypatch.chdir(tmp_path)
    files = prepare(toy_head, 'RAS')
    ctp, affine, _ = toy_head
    fine = affine @ np.diag([0.5, 0.5, 1, 1])
    fine[:2, 3] -= 1.0
    artery = np.argwhere(ctp[..., 5] - ctp[..., 0] > 150)[0]
    mask = np.zeros((88, 104, 6), np.uint8)
    mask[2 * artery[0] + 1, 2 * artery[1], artery[2]] = 1
    nb.save(nb.Nifti1Image(mask, fine), 'voxel.nii.gz')
    outputs = find_vessels(files, {'supplied_aif_mask': str(Path('voxel.nii.gz').absolute())})
    assert np.argwhere(nifti.load_mask(outputs.aif_mask)).tolist() == [artery.tolist()]
    own = ctp[tuple(artery)] - ctp[tuple(artery)][:3].mean()
    np.testing.assert_allclose(pd.read_csv(outputs.curves, sep='\t')['aif'], own, atol=1e-3)


def test_supplied_voxels_of_two_sampling_patterns_are_not_mixed(toy_head, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = prepare(toy_head, 'RAS', delay_of_slices=1.0)
    artery = np.zeros(toy_head[0].shape[:3], np.uint8)
    artery[14:17, 32:35] = 1  # slices 0 to 2 hold the artery, all are marked but slice 5
    artery[..., 5] = 0
    artery[15, 33, 3:5] = 0
    nb.save(nb.Nifti1Image(artery, toy_head[1]), 'both.nii.gz')
    outputs = find_vessels(files, {'supplied_aif_mask': str(Path('both.nii.gz').absolute())})
    assert np.unique(np.argwhere(nifti.load_mask(outputs.aif_mask))[:, 2]).tolist() == [0, 1, 2]
    np.testing.assert_allclose(pd.read_csv(outputs.curves, sep='\t')['time'], toy_head[2])


def test_supplied_voxels_of_tissue_are_refused_by_name(toy_head, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = prepare(toy_head, 'RAS')
    nb.save(nb.Nifti1Image(nifti.load_mask(files['tissue_mask']).astype(np.uint8), toy_head[1]),
            'tissue.nii.gz')  # fmt: skip
    with pytest.raises(VesselError, match=r'tissue.nii.gz: the mean curve of its \d+ voxels'):
        find_vessels(files, {'supplied_aif_mask': str(Path('tissue.nii.gz').absolute())})


# -- slices of different times


@pytest.fixture(scope='module')
def scanned(tmp_path_factory):
    """Scan one head evenly, on a toggling table and in jog mode; deconvolve with the true AIF."""

    def scan(timing):
        folder = tmp_path_factory.mktemp(timing)
        head = make_phantom(
            PhantomSettings(
                seed=5, matrix=64, voxel_size_mm=(3.44, 3.44, 5.0), n_slices=8, motion_mm=0.0,
                lesion='large', timing=timing, orientation='RAS', noise_hu=2.0,
            )
        )  # fmt: skip
        nb.save(nb.Nifti1Image(head.ctp.astype(np.float32), head.affine), folder / 'ctp.nii')
        np.save(folder / 'times.npy', head.sample_times)
        weights = pd.DataFrame({'weight': np.ones(head.ctp.shape[3])})
        weights.to_csv(folder / 'confounds.tsv', sep='\t', index=False)
        (folder / 'bolus.json').write_text('{"n_baseline": 5, "arrival_s": 8.0}')
        tissue = (head.truth['tissue'] > 0.8) & (head.truth['vessel'] < 0.01) & head.truth['brain']
        for name in ('tissue', 'pure'):
            nifti.save(tissue, head.affine, folder / f'{name}.nii', like=folder / 'ctp.nii')
        rows = head.sample_times[0]
        aif = np.interp(rows, head.times_fine, head.aif)
        pd.DataFrame({'time': rows, 'aif': aif}).to_csv(
            folder / 'curves.tsv', sep='\t', index=False
        )
        files = {
            'ctp_corrected': 'ctp.nii', 'sample_times': 'times.npy', 'confounds': 'confounds.tsv',
            'bolus': 'bolus.json', 'tissue_mask': 'tissue.nii', 'pure_mask': 'pure.nii',
        }  # fmt: skip
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            outputs = deconvolve(
                {name: str(folder / path) for name, path in files.items()},
                str(folder / 'curves.tsv'),
            )
        return {name: values(outputs, name)[tissue] for name in ('cbf', 'tmax')}, tissue

    return {timing: scan(timing) for timing in ('even', 'toggling', 'jog')}


@pytest.mark.parametrize('timing', ['toggling', 'jog'])
def test_a_moving_table_gives_the_maps_of_a_still_one(scanned, timing):
    """Half of the slices are scanned 0.75 s later: neither half may show it."""
    (even, tissue), (moved, _) = scanned['even'], scanned[timing]
    upper = np.broadcast_to(np.arange(8) >= 4, tissue.shape)[tissue]
    for half in (upper, ~upper):
        assert abs(np.median((moved['tmax'] - even['tmax'])[half])) < 0.2
        assert np.median((moved['cbf'] / even['cbf'])[half]) == pytest.approx(1, abs=0.04)
    assert np.corrcoef(moved['cbf'], even['cbf'])[0, 1] > 0.95
