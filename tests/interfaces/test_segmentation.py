# SPDX-License-Identifier: Apache-2.0
"""From the files of maps to those of lesions, probabilities and volumes."""

import json
from pathlib import Path

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
LOCAL = ('rcbf_local', 'unassessable_mask')
RIGHT = np.zeros(SHAPE, bool)
RIGHT[12:] = True
AS_THRESHOLDED = {'opening_mm': 0.0, 'closing_mm': 0.0}  # which round the corners


def box(x, y, z):
    mask = np.zeros(SHAPE, bool)
    mask[slice(*x), slice(*y), slice(*z)] = True
    return mask


SLOW = box((14, 23), (4, 16), (1, 7))  # in the right half
CORE = box((16, 21), (6, 12), (2, 6))
SMALLER = box((16, 21), (6, 12), (2, 4))


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    nb.save(nb.Nifti1Image(np.zeros(SHAPE, np.uint8), LPS), 'like.nii')


def save(array, name):
    return str(Path(nifti.save(array, AFFINE, f'{name}.nii', like='like.nii')).absolute())


def write_json(name, content):
    path = Path(f'{name}.json').absolute()
    path.write_text(json.dumps(content))
    return str(path)


def read_json(path):
    return json.loads(Path(path).read_text())


def write(without=(), **changed):
    maps = {
        'tmax': np.where(SLOW, 8.0, 1.0),
        'rcbf_global': np.where(CORE, 0.2, 1.0),
        'rcbf_local': np.where(SMALLER, 0.2, 1.0),
        'tissue_mask': np.ones(SHAPE, bool),
        'unassessable_mask': np.zeros(SHAPE, bool),
        'hemispheres': np.where(RIGHT, 2, 1).astype(np.uint8),
    } | changed
    measured = {
        'affected_side': 'right', 'tmax_left_s': 1, 'tmax_right_s': 2, 'side_confidence': 0.4,
        'side_rule': 'median', 'cbf_reference': 50.0,
    }  # fmt: skip
    files = {name: save(array, name) for name, array in maps.items() if name not in without}
    return files | {'normalization': write_json('normalization', measured)}


def segment(files, **changed):
    settings = MethodSettings.of(**changed).as_dict('lesion', 'segmentation')
    return SegmentLesions(**files, settings=settings).run().outputs


def measure(files, settings=(), **inputs):
    method = MethodSettings.of(**dict(settings))
    lesions = segment(files, **dict(settings))
    made = {
        name: path for name in (*MASKS, 'cleaning') if isdefined(path := getattr(lesions, name))
    }
    path = MeasureVolumes(
        **files, **made, **inputs,
        settings=method.as_dict('lesion', 'segmentation', 'volumes', 'deconvolution'),
    ).run().outputs.volumes  # fmt: skip
    return pd.read_csv(path, sep='\t', keep_default_na=False)


def select(table, **chosen):
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
        ('lesions', np.select([SMALLER, CORE, SLOW], [1, 2, 4], 0)),
    ],
)
def test_masks_are_those_of_the_maps_in_their_files(name, expected):
    path = getattr(segment(write(), **AS_THRESHOLDED), name)
    np.testing.assert_array_equal(nifti.load(path)[0], expected)


def test_masks_have_the_voxel_order_of_the_maps():
    image = nb.load(segment(write()).core_global)
    np.testing.assert_allclose(image.affine, LPS)
    assert image.get_data_dtype() == np.uint8


def test_settings_of_the_stages_are_applied_to_the_masks():
    assert not nifti.load_mask(segment(write(), core_rcbf=0.15).core_global).any()


def test_tissue_that_is_not_assessable_is_read():
    lesions = segment(write(unassessable_mask=RIGHT))
    assert not nifti.load_mask(lesions.core_local).any()
    assert nifti.load_mask(lesions.core_global).any()


def test_without_a_local_map_no_local_masks_are_written():
    lesions = segment(write(without=LOCAL), **AS_THRESHOLDED)
    assert not isdefined(lesions.core_local)
    assert not isdefined(lesions.mismatch_local)
    expected = np.select([CORE, SLOW], [2, 4], 0)
    np.testing.assert_array_equal(nifti.load(lesions.lesions)[0], expected)


# -- volumes


def test_volumes_are_those_of_the_masks():
    lesions, table = segment(write()), measure(write())
    for name in MASKS:
        region, _, which = name.partition('_')
        (row,) = select(table, region=region, normalization=which or 'n/a', measure='volume')
        volume = nifti.load_mask(getattr(lesions, name)).sum() * ML
        assert float(row['volume_ml']) == pytest.approx(volume, abs=1e-4)


def test_rows_of_a_withheld_local_map_are_not_available():
    symmetry = write_json('symmetry', {'withheld': 'withheld: not similar'})
    table = measure(write(without=LOCAL), symmetry=symmetry)
    key = ['region', 'normalization', 'measure', 'threshold']
    complete = measure(write())
    assert table[key].to_numpy().tolist() == complete[key].to_numpy().tolist()
    local = table['normalization'] == 'local'
    assert set(table[local]['reason']) == {'withheld: not similar'}
    assert set(table[local]['volume_ml']) == set(table[local]['value']) == {'n/a'}
    pd.testing.assert_frame_equal(table[~local], complete[~local])


def test_cbv_is_read_for_its_index():
    files = write()
    within = nifti.load_mask(segment(files).hypoperfusion)
    table = measure(files, rcbv_global=save(np.where(within, 0.7, 1.0), 'rcbv'))
    (row,) = select(table, measure='CBV index')
    assert float(row['value']) == pytest.approx(0.7)


def test_offsets_of_tmax_are_read_for_the_volumes_before_calibration():
    measured = {'tmax_offset_s_by_slice': [None] + [2.5] * 7}
    settings = {'tmax_thresholds': (1.0, 6.0, 9.0)}
    table = measure(write(), settings, deconvolution=write_json('deconvolution', measured))
    rows = select(table, region='tmax', measure='volume uncalibrated')
    assert [row['volume_ml'] == 'n/a' for row in rows] == [True, False, False]


def test_hypodense_volume_is_that_of_its_mask_in_the_core():
    hypodense = box((16, 18), (6, 12), (2, 6))
    table = measure(write(), hypodense_mask=save(hypodense, 'hypodense'))
    (row,) = select(table, region='core', normalization='global', measure='hypodense')
    core = nifti.load_mask(segment(write()).core_global)
    assert float(row['volume_ml']) == pytest.approx((hypodense & core).sum() * ML, abs=1e-4)


def test_interval_is_beside_its_volume():
    table = measure(write(), intervals=write_json('intervals', {'global': [2.0, 3.0]}))
    (row,) = table[table['ci_low_ml'] != 'n/a'].to_dict('records')
    assert (row['region'], row['normalization'], row['measure']) == ('core', 'global', 'volume')
    assert (float(row['ci_low_ml']), float(row['ci_high_ml'])) == (2.0, 3.0)


def test_missing_interval_is_not_available_and_has_its_reason():
    intervals = write_json('intervals', {'reason': 'no interval: no noise'})
    table = measure(write(), intervals=intervals)
    (row,) = select(table, region='core', normalization='global', measure='volume')
    assert (row['ci_low_ml'], row['reason']) == ('n/a', 'no interval: no noise')


# -- hypodense core


def flag(reference, without=(), **inputs):
    files = write()
    lesions = segment(files)
    images = {
        'homologue_reference': np.full(SHAPE, 31.0),
        'homologue_tissue': np.ones(SHAPE),
    }
    if reference is not None:
        images['reference'] = reference
    images = {name: save(array, name) for name, array in images.items() if name not in without}
    return FindHypodense(
        **images | inputs, core_global=lesions.core_global, core_local=lesions.core_local,
        tissue_mask=files['tissue_mask'], settings=MethodSettings().as_dict('hypodensity'),
    ).run().outputs.hypodense_mask  # fmt: skip


def test_hypodense_tissue_is_flagged_inside_of_the_core_alone():
    hypodense = nifti.load_mask(flag(np.where(RIGHT, 15.0, 31.0)))
    assert hypodense[18, 8, 3]
    assert not (hypodense & ~CORE).any()


def test_densities_without_tissue_at_the_homologue_are_not_used():
    """A registration that cannot be trusted still has its image."""
    away = save(np.zeros(SHAPE), 'away')
    reference = np.where(CORE, 15.0, 31.0)
    path = flag(reference, ['homologue_tissue'], homologue_reference=away)
    assert nifti.load_mask(path)[18, 8, 3]


@pytest.mark.parametrize('source', ['cbv', 'cbf'])
def test_map_in_place_of_a_ct_has_no_densities(source):
    entry = write_json('entry', {'reference_image_from': source})
    assert not isdefined(flag(np.full(SHAPE, 15.0), entry=entry))


def test_without_a_reference_image_nothing_is_flagged():
    assert not isdefined(flag(None))


# -- uncertainty


def estimate(files, cbf_noise=None, **changed):
    """Estimate with noise of CBF in mL/100 g/min."""
    noise = {}
    if cbf_noise is not None:
        samples = np.random.default_rng(0).normal(0, cbf_noise, (*SHAPE, 12))
        noise['cbf_noise'] = save(samples.astype(np.float32), 'cbf_noise')
    method = MethodSettings.of(**changed)
    return EstimateUncertainty(
        **files, **noise, hypoperfusion=segment(files).hypoperfusion,
        settings=method.as_dict('lesion', 'segmentation', 'uncertainty', 'random'),
    ).run().outputs  # fmt: skip


def test_probability_of_each_normalization_is_written():
    unsure = np.where(CORE, 0.2, 1.0)
    outputs = estimate(write(rcbf_global=unsure, rcbf_local=unsure), 5.0, shared_error=0.0)
    for path in (outputs.probability_global, outputs.probability_local):
        # noise of 5 in 50 is 0.1: one standard deviation below the threshold
        assert nifti.load(path)[0][18, 9, 4] == pytest.approx(0.84, abs=0.03)


def test_interval_contains_the_volume():
    unsure = write(rcbf_global=np.where(CORE, 0.27, np.where(SLOW, 0.36, 1.0)))
    volume = nifti.load_mask(segment(unsure).core_global).sum() * ML
    low, high = read_json(estimate(unsure, 2.0).intervals)['global']
    assert low <= volume <= high
    assert low < high


def test_settings_of_the_stage_are_applied_to_the_interval():
    outputs = estimate(write(), 1.0, noise_draws=0)
    assert read_json(outputs.intervals) == {'reason': 'no interval was asked for'}


def test_maps_without_noise_have_no_probability_and_no_interval():
    outputs = estimate(write())
    assert not isdefined(outputs.probability_global)
    assert read_json(outputs.intervals)['reason'].startswith('no interval')


def test_withheld_local_map_has_no_probability():
    outputs = estimate(write(without=LOCAL), 1.0)
    assert isdefined(outputs.probability_global)
    assert not isdefined(outputs.probability_local)
    assert set(read_json(outputs.intervals)) == {'global', 'hypoperfusion'}
