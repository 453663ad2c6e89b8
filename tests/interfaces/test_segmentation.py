# SPDX-License-Identifier: Apache-2.0
"""Masks and volumes, from files to files."""

import json
from pathlib import Path
from types import SimpleNamespace

import nibabel as nb
import numpy as np
import pandas as pd
import pytest
from nipype.interfaces.base import isdefined

from ctpprep.interfaces.segmentation import (
    EstimateUncertainty,
    FindHypodense,
    MeasureVolumes,
    SegmentLesions,
)
from ctpprep.io import nifti
from ctpprep.settings import MethodSettings

SHAPE = (24, 20, 8)
AFFINE = np.diag([2.0, 2.0, 5.0, 1.0])
LPS = AFFINE @ np.diag([-1.0, -1, 1, 1])
LPS[:2, 3] = 46, 38
ML = 0.02  # a voxel
MASKS = ('core_global', 'core_local', 'hypoperfusion', 'mismatch_global', 'mismatch_local')
RIGHT = np.zeros(SHAPE, bool)
RIGHT[12:] = True


def box(x, y, z):
    mask = np.zeros(SHAPE, bool)
    mask[slice(*x), slice(*y), slice(*z)] = True
    return mask


SLOW = box((14, 23), (4, 16), (1, 7))  # in the right half
CORE = box((16, 21), (6, 12), (2, 6))
SMALLER = box((16, 21), (6, 12), (2, 4))
OTHER = box((2, 7), (6, 12), (2, 6))  # in the left half


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    nb.save(nb.Nifti1Image(np.zeros(SHAPE, np.uint8), LPS), 'like.nii')


def write(side='right', **changed):
    maps = {
        'tmax': np.where(SLOW | OTHER, 8.0, 1.0),
        'rcbf_global': np.where(CORE | OTHER, 0.2, 1.0),
        'rcbf_local': np.where(SMALLER | OTHER, 0.2, 1.0),
        'tissue_mask': np.ones(SHAPE, bool),
        'unassessable_mask': np.zeros(SHAPE, bool),
        'hemispheres': np.where(RIGHT, 2, 1).astype(np.uint8),
    } | changed
    files = {
        name: nifti.save(array, AFFINE, f'{name}.nii', like='like.nii')
        for name, array in maps.items()
    }
    facts = {
        'affected_side': side,
        'tmax_left_s': 1,
        'tmax_right_s': 2,
        'side_confidence': 0.4,
        'side_rule': 'median',
    }
    Path('facts.json').write_text(json.dumps(facts))
    return files | {'normalization': str(Path('facts.json').absolute())}


def segment(files, **changed):
    method = MethodSettings.of(**changed)
    return SegmentLesions(**files, **method.stage('segmentation')).run().outputs


def measure(files, deconvolution=None, intervals=None, **changed):
    method = MethodSettings.of(**changed)
    outputs = segment(files, **changed)
    given = {'deconvolution': deconvolution, 'intervals': intervals}
    files = files | {name: path for name, path in given.items() if path}
    found = MeasureVolumes(
        **files, tmax_calibration=method.deconvolution.tmax_calibration, cleaning=outputs.cleaning,
        **{name: getattr(outputs, name) for name in MASKS},
        tmax_thresholds=list(method.volumes.tmax_thresholds),
        rcbf_thresholds=list(method.volumes.rcbf_thresholds), **method.stage('segmentation'),
    ).run().outputs  # fmt: skip
    table = pd.read_csv(found.volumes, sep='\t', keep_default_na=False)
    return SimpleNamespace(table=table, **{name: voxels(outputs, name) for name in MASKS})


def voxels(outputs, name):
    return nifti.load_mask(getattr(outputs, name))


def rows(found, **chosen):
    table = found.table
    for column, value in chosen.items():
        table = table[table[column] == value]
    return table.to_dict('records')


# -- masks


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('hypoperfusion', SLOW),
        ('core_global', CORE),
        ('core_local', SMALLER),
        ('mismatch_global', SLOW & ~CORE),
        ('mismatch_local', SLOW & ~SMALLER),
    ],
)
def test_mask_is_what_the_threshold_says_on_the_affected_side(name, expected):
    # without opening and closing, which round the corners
    found = voxels(segment(write(), opening_mm=0.0, closing_mm=0.0), name)
    np.testing.assert_array_equal(found, expected)


def test_masks_keep_the_voxel_order_of_the_maps():
    image = nb.load(segment(write()).core_global)
    np.testing.assert_allclose(image.affine, LPS)
    assert image.get_data_dtype() == np.uint8


@pytest.mark.parametrize(
    ('asked', 'facts', 'expected'),
    [
        ('auto', 'right', CORE),
        ('auto', 'left', OTHER),
        ('left', 'left', OTHER),
        ('both', 'right', CORE | OTHER),
    ],
)
def test_side(asked, facts, expected):
    """The side is decided once, where maps are normalized; both asks for both."""
    files = write(side=facts)
    found = segment(files, affected_side=asked, opening_mm=0.0, closing_mm=0.0)
    np.testing.assert_array_equal(voxels(found, 'core_global'), expected)


def test_thresholds_count():
    files = write()
    assert not voxels(segment(files, core_rcbf=0.15), 'core_global').any()
    assert not voxels(segment(files, hypoperfusion_tmax=9.0), 'hypoperfusion').any()


def test_opening_removes_a_speck_and_closing_fills_a_hole():
    speck, hole = box((13, 14), (18, 19), (4, 5)), box((18, 19), (8, 9), (4, 5))
    rcbf = np.where((CORE & ~hole) | speck, 0.2, 1.0)
    found = voxels(segment(write(rcbf_global=rcbf)), 'core_global')
    assert not found[speck].any()
    assert found[hole].all()


def test_what_is_not_assessable_is_no_local_core():
    found = segment(write(rcbf_local=np.zeros(SHAPE), unassessable_mask=RIGHT))
    assert not voxels(found, 'core_local').any()
    assert voxels(found, 'core_global').any()


def test_air_is_no_lesion():
    """Maps are 0 outside tissue, which is below any threshold of flow."""
    tissue = ~box((14, 24), (0, 20), (0, 3))
    zero = np.where(tissue, 1.0, 0.0)
    found = segment(write(tissue_mask=tissue, rcbf_global=zero, rcbf_local=zero))
    assert not voxels(found, 'core_global').any()
    assert not voxels(found, 'core_local').any()


def test_labels_tell_which_normalization_saw_the_core():
    shifted = box((18, 23), (6, 12), (2, 6))
    files = write(rcbf_local=np.where(shifted, 0.2, 1.0))
    found = segment(files, opening_mm=0.0, closing_mm=0.0)
    expected = np.select([CORE & shifted, CORE, shifted, SLOW], [1, 2, 3, 4], 0)
    np.testing.assert_array_equal(nifti.load(found.lesions)[0], expected)


def write_withheld():
    files = {
        name: path
        for name, path in write().items()
        if name not in ('rcbf_local', 'unassessable_mask')
    }
    Path('symmetry.json').write_text('{"withheld": "withheld: no likeness"}')
    return files


def test_without_a_local_map_the_labels_are_those_of_the_global_one():
    found = segment(write_withheld(), opening_mm=0.0, closing_mm=0.0)
    assert not isdefined(found.core_local)
    assert not isdefined(found.mismatch_local)
    np.testing.assert_array_equal(nifti.load(found.lesions)[0], np.select([CORE, SLOW], [2, 4], 0))


# -- volumes


def test_withheld_volumes_are_rows_with_the_reason_and_no_figure():
    files = write_withheld()
    outputs = segment(files)
    method = MethodSettings()
    table = MeasureVolumes(
        **files, symmetry='symmetry.json', tmax_calibration=False,
        **{n: path for n in (*MASKS, 'cleaning') if isdefined(path := getattr(outputs, n))},
        tmax_thresholds=list(method.volumes.tmax_thresholds),
        rcbf_thresholds=list(method.volumes.rcbf_thresholds), **method.stage('segmentation'),
    ).run().outputs.volumes  # fmt: skip
    table = pd.read_csv(table, sep='\t', keep_default_na=False)
    key = ['region', 'normalization', 'measure', 'threshold']
    complete = measure(write()).table
    assert table[key].to_numpy().tolist() == complete[key].to_numpy().tolist()
    local = table['normalization'] == 'local'
    assert set(table[local]['reason']) == {'withheld: no likeness'}
    assert set(table[local]['volume_ml']) == set(table[local]['value']) == {'n/a'}
    pd.testing.assert_frame_equal(table[~local], complete[~local])


def test_volumes_are_those_of_the_masks():
    found = measure(write())
    for name in MASKS:
        region, _, which = name.partition('_')
        (row,) = rows(found, region=region, normalization=which or 'n/a', measure='volume')
        assert float(row['volume_ml']) == pytest.approx(getattr(found, name).sum() * ML, abs=1e-4)


def test_table_names_side_and_hemisphere():
    table = measure(write()).table
    assert set(table['affected_side']) == set(table['hemisphere']) == {'right'}
    assert set(table['side_confidence'].astype(float)) == {0.4}
    both = measure(write(), affected_side='both').table
    assert set(both['hemisphere']) == {'both'}
    assert set(both['affected_side']) == {'right'}


def test_thresholds_of_the_table_are_opened_and_closed_like_the_masks():
    found = measure(write(), tmax_thresholds=(6.0, 7.5, 12.0))
    figures = {
        float(row['threshold']): float(row['volume_ml']) for row in rows(found, region='tmax')
    }
    assert figures == {
        6.0: pytest.approx(found.hypoperfusion.sum() * ML, abs=1e-4),
        7.5: pytest.approx(found.hypoperfusion.sum() * ML, abs=1e-4),
        12.0: 0,
    }


def test_core_at_its_threshold_stands_twice_and_agrees():
    found = measure(write())
    (row,) = rows(found, region='rcbf', normalization='local', threshold='0.3')
    assert float(row['volume_ml']) == pytest.approx(found.core_local.sum() * ML, abs=1e-4)


def test_no_lesion_is_zeros_with_reasons():
    healthy = {'tmax': np.ones(SHAPE), **dict.fromkeys(('rcbf_global', 'rcbf_local'), RIGHT + 1.0)}
    found = measure(write(**healthy))
    for name in MASKS:
        assert not getattr(found, name).any()
    for row in rows(found, measure='volume'):
        assert float(row['volume_ml']) == 0
        assert row['reason'].startswith('no tissue')
    (ratio,) = rows(found, region='mismatch', measure='ratio', normalization='global')
    assert (ratio['value'], ratio['reason']) == ('n/a', 'no core to divide by')


def test_cbv_index_is_the_mean_in_hypoperfusion():
    files = write()
    outputs = segment(files)
    inside = voxels(outputs, 'hypoperfusion')
    rcbv = nifti.save(np.where(inside, 0.7, 1.0), AFFINE, 'rcbv.nii', like='like.nii')
    method = MethodSettings()
    table = MeasureVolumes(
        **files, **{name: getattr(outputs, name) for name in (*MASKS, 'cleaning')}, rcbv_global=rcbv,
        tmax_calibration=True, tmax_thresholds=[6.0], rcbf_thresholds=[0.3], **method.stage('segmentation'),
    ).run().outputs.volumes  # fmt: skip
    found = pd.read_csv(table, sep='\t').set_index('measure')
    assert found.loc['CBV index', 'value'] == pytest.approx(0.7)


@pytest.mark.parametrize(('calibrated', 'expected'), [(True, ['n/a', '6.0', '9.0']), (False, [])])
def test_uncalibrated_volumes_are_tabulated_where_tmax_was_calibrated(calibrated, expected):
    Path('offsets.json').write_text(json.dumps({'tmax_offset_s_by_slice': [None] + [2.5] * 7}))
    offsets = str(Path('offsets.json').absolute())
    thresholds = {'tmax_thresholds': (1.0, 6.0, 9.0), 'tmax_calibration': calibrated}
    found = rows(measure(write(), offsets, **thresholds), measure='volume uncalibrated')
    found = [row for row in found if row['region'] == 'tmax']
    shown = [row['threshold'] if row['volume_ml'] != 'n/a' else 'n/a' for row in found]
    assert shown == expected
    assert all(float(row['volume_ml']) > 0 for row in found[1:])  # 8 s are 10.5 s


# -- hypodense core


def flag(reference, **changed):
    files = write()
    outputs = segment(files)
    images = {
        'reference': reference,
        'homologue_reference': np.full(SHAPE, 31.0),
        'homologue_tissue': np.ones(SHAPE),
    }
    inputs = {
        name: nifti.save(array, AFFINE, f'{name}.nii', like='like.nii')
        for name, array in images.items()
        if array is not None
    }
    inputs |= {name: getattr(outputs, name) for name in ('core_global', 'core_local')}
    inputs |= {'tissue_mask': files['tissue_mask']} | MethodSettings().stage('hypodensity')
    given = {name: value for name, value in (inputs | changed).items() if value is not None}
    return FindHypodense(**given).run().outputs.hypodense_mask


def test_hypodense_tissue_is_flagged_inside_the_core_alone():
    found = nifti.load_mask(flag(np.where(RIGHT, 15.0, 31.0)))
    assert found[18, 8, 3]
    assert not (found & ~CORE).any()


def test_without_homologues_their_densities_are_not_read():
    """A registration that failed still shows its image."""
    away = nifti.save(np.zeros(SHAPE), AFFINE, 'away.nii', like='like.nii')
    found = flag(np.full(SHAPE, 15.0), homologue_reference=away, homologue_tissue=None)
    assert nifti.load_mask(found)[18, 8, 3]


@pytest.mark.parametrize('source', ['cbv', 'cbf'])
def test_a_map_that_stands_in_for_a_ct_has_no_densities(source):
    Path('entry.json').write_text(json.dumps({'reference_image_from': source}))
    assert not isdefined(flag(np.full(SHAPE, 15.0), entry='entry.json'))


def test_without_a_reference_image_nothing_is_flagged():
    assert not isdefined(flag(None))


def estimate(files, cbf_noise=None, **changed):
    """Estimate with noise of a CBF whose reference is 50 mL/100 g/min."""
    method = MethodSettings.of(**changed)
    facts = json.loads(Path(files['normalization']).read_text())
    Path('facts.json').write_text(json.dumps(facts | {'cbf_reference': 50.0}))
    noise = {}
    if cbf_noise is not None:
        noise['cbf_noise'] = nifti.save(cbf_noise, AFFINE, 'cbf_noise.nii', like='like.nii')
    return EstimateUncertainty(
        **files, **noise, hypoperfusion=segment(files, **changed).hypoperfusion,
        random_seed=method.random.random_seed,
        **method.stage('segmentation', 'uncertainty'),
    ).run().outputs  # fmt: skip


def noise_of(size):
    noise = np.random.default_rng(0).normal(0, size, (*SHAPE, 12))
    return noise.astype(np.float32)


def test_probability_grows_as_flow_falls_and_is_half_at_the_threshold():
    steps = np.full(SHAPE, 1.0)
    for x, value in enumerate((0.1, 0.2, 0.3, 0.4, 0.5), start=14):
        steps[x, 4:16] = value
    found = estimate(write(rcbf_global=steps), noise_of(5.0))
    probability, _ = nifti.load(found.probability_global)
    row = probability[14:19, 10, 4]
    assert (np.diff(row) < 0).all()
    assert row[2] == pytest.approx(0.5, abs=0.01)
    # noise of 5 in 50 is 0.1
    assert row[1] == pytest.approx(0.84, abs=0.03)
    assert not probability[~RIGHT].any()


def test_local_noise_is_divided_as_the_local_map_is():
    halved = np.where(CORE | OTHER, 0.25, 1.0)
    found = estimate(write(rcbf_global=halved / 2, rcbf_local=halved), noise_of(2.5))
    local, _ = nifti.load(found.probability_local)
    # noise of 0.05 counts twice: half a standard deviation below the threshold
    assert local[18, 9, 4] == pytest.approx(0.69, abs=0.03)


def test_interval_holds_the_volume_and_widens_with_noise():
    unsure = write(rcbf_global=np.where(CORE | OTHER, 0.27, np.where(SLOW, 0.36, 1.0)))
    volume = voxels(segment(unsure), 'core_global').sum() * ML
    widths = []
    for size in (1e-3, 1.0, 2.0):
        limits = json.loads(Path(estimate(unsure, noise_of(size)).intervals).read_text())
        low, high = limits['global']
        assert low <= volume <= high
        widths.append(high - low)
    assert widths[0] == 0
    assert widths[1] < widths[2]


def test_interval_stands_beside_the_volume_it_belongs_to():
    files = write()
    Path('intervals.json').write_text(json.dumps({'global': [2.0, 3.0]}))
    table = measure(files, intervals=str(Path('intervals.json').absolute())).table
    limits = table[table['ci_low_ml'] != 'n/a']
    (row,) = limits.to_dict('records')
    assert (row['region'], row['normalization'], row['measure']) == ('core', 'global', 'volume')
    assert (float(row['ci_low_ml']), float(row['ci_high_ml'])) == (2.0, 3.0)


def test_maps_without_noise_have_no_probability_and_no_interval():
    found = estimate(write())
    assert not isdefined(found.probability_global)
    assert json.loads(Path(found.intervals).read_text())['reason'].startswith('no interval')


def test_a_withheld_local_map_has_no_probability():
    files = write()
    del files['rcbf_local'], files['unassessable_mask']
    found = estimate(files, noise_of(1.0))
    assert isdefined(found.probability_global)
    assert not isdefined(found.probability_local)
    assert set(json.loads(Path(found.intervals).read_text())) == {'global'}


def test_a_box_that_holds_no_core_is_a_volume_of_zero():
    found = estimate(write(rcbf_global=np.ones(SHAPE)), noise_of(1e-3))
    assert json.loads(Path(found.intervals).read_text())['global'] == [0.0, 0.0]


def test_a_missing_interval_has_its_reason_in_the_table():
    Path('intervals.json').write_text(json.dumps({'reason': 'no interval: no noise'}))
    found = measure(write(), intervals=str(Path('intervals.json').absolute()))
    (row,) = rows(found, region='core', normalization='global', measure='volume')
    assert (row['ci_low_ml'], row['reason']) == ('n/a', 'no interval: no noise')
