# SPDX-License-Identifier: Apache-2.0
"""Quality of a series as one row: every figure, grade and sentence."""

import json
from pathlib import Path

import nibabel as nb
import numpy as np
import pandas as pd
import pytest

from ctpprep.interfaces.quality import AssessQuality
from ctpprep.interfaces.wording import WORDING
from ctpprep.perfusion import lesions
from ctpprep.perfusion.normalization import normalize_to_homologue
from ctpprep.perfusion.quality import CHECKS
from ctpprep.settings import MethodSettings
from ctpprep.workflows.quality import JUDGED

SHAPE = (10, 10, 12)
AFFINE = np.diag([2.0, 2, 8, 1])
RIGHT = np.zeros(SHAPE, bool)
RIGHT[5:] = True
TIMES = np.arange(30) * 2.0
# checks of mirrored maps, large cores, two normal sides, precomputed maps, supplied AIFs and masks
OTHERS = (
    'mirror_similarity', 'core_disagreement_share', 'flow_asymmetry', 'map_likeness', 'aif_likeness',
    'mask_outline',
)  # fmt: skip
SERIES = ('confounds', 'motion', 'curves', 'tissue_curves', 'bolus', 'deconvolution')


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Write a series without any fault."""
    monkeypatch.chdir(tmp_path)
    tissue = np.ones(SHAPE, bool)
    tissue[:, :, 10:] = False
    unassessable = np.zeros(SHAPE, bool)
    unassessable[0, :5, 0] = True
    homologue = np.full(SHAPE, 35, np.float32)
    homologue[0, :4] = -1000  # the left homologues of 40 voxels are beyond the slab
    reference = np.full(SHAPE, 33, np.float32)
    reference[~tissue] = 900
    # white matter, both, and grey matter
    rcbf = np.float32([0.7, 0.7, 1, 1.3, 1.3])[np.indices(SHAPE)[1] % 5] * tissue
    homologues = np.moveaxis(np.indices(SHAPE), 0, -1) * [-2.0, 2, 8] + [18, 0, 0]
    tmax = np.where(RIGHT, 7.0, 1.0).astype(np.float32) * tissue
    facts = {
        'normal_share': 0.8, 'cbf_reference': 50.0, 'side_confidence': 0.6, 'affected_side': 'right',
        'tmax_left_s': 1.0, 'tmax_right_s': 7.0, 'side_rule': 'median',
    }  # fmt: skip
    local = normalize_to_homologue(
        rcbf, rcbf[::-1], 1.0 * tissue, tissue, AFFINE, MethodSettings()
    ).local
    maps = lesions.RelativeMaps(
        tmax, {'global': rcbf, 'local': local}, tissue, np.where(RIGHT, 2, 1), (2, 2, 8), facts,
        unassessable,
    )  # fmt: skip
    segmented = lesions.segment_lesions(maps, MethodSettings()).masks
    images = {name: mask.astype(np.uint8) for name, mask in segmented.items()} | {
        'reference': reference,
        'brain_mask': tissue.astype(np.uint8),
        'rcbf_global': rcbf,
        'rcbf_local': local,
        'cbf': 50 * rcbf,
        'cbv': 4 * rcbf,
        'mtt': np.float32(4.8 * tissue),
        'ttp': np.float32((12 + 1.2 * tmax) * tissue),
        'tmax_repeats': np.stack([tmax, tmax], axis=-1),
        'homologues': homologues.astype(np.float32),
        'homologue_tissue': np.float32(tissue),
        'hypodense_mask': np.zeros(SHAPE, np.uint8),
        'aif_mask': np.uint8(tissue & (np.indices(SHAPE).sum(axis=0) == 12)),
        'vof_mask': np.uint8(tissue & (np.indices(SHAPE)[1] == 0)),
        'homologue_reference': homologue,
        'tmax': tmax,
        'tissue_mask': tissue.astype(np.uint8),
        'unassessable_mask': unassessable.astype(np.uint8),
        'hemispheres': np.where(RIGHT, 2, 1).astype(np.uint8),
    }
    for name, voxels in images.items():
        nb.save(nb.Nifti1Image(voxels, AFFINE), f'{name}.nii')
    pd.DataFrame({'displacement': [0, 1, 2.5], 'weight': [1, 1, 0]}).to_csv(
        'confounds.tsv', sep='\t', index=False
    )
    artery, tissue, vein = (np.exp(-(((TIMES - peak) / 3) ** 2)) for peak in (10, 12, 14))
    curves = {'time': TIMES, 'aif': 200 * artery, 'vof': 300 * vein, 'tissue': 10 * tissue}
    pd.DataFrame(curves).to_csv('curves.tsv', sep='\t', index=False)
    np.savez(
        'tissue_curves.npz',
        scores=np.zeros((np.count_nonzero(tmax), 1), np.float32),
        centres=(10 * np.exp(-(((TIMES - 12) / 4) ** 2)))[None],
        components=np.ones((1, TIMES.size, 1)), times=TIMES[None], slice_pattern=np.zeros(12, int),
        kept=1.0,
    )  # fmt: skip
    measured = {
        'motion': {'drift': {'left_hu': 0.4}},
        'bolus': {
            'n_baseline': 3, 'arrival_s': 6.0, 'scan_duration_s': 58.0, 'hyperdense_ml': 0.0,
            'metal_ml': 0.0,
        },
        'deconvolution': {
            'noise_raw_hu': 4.0, 'noise_denoised_hu': 1.0, 'core_reading': 0.2, 'cbf_noise': 2.0,
        },
        'normalization': facts,
        'symmetry': {
            'mirror_distance_mm': 2.0, 'mirror_similarity': 0.5, 'mirror_folding': 0.002, 'withheld': '',
        },
    }  # fmt: skip
    for name, content in measured.items():
        Path(f'{name}.json').write_text(json.dumps(content))
    paths = {path.stem: str(path) for path in tmp_path.iterdir()}
    assert set(paths) == {*images, *measured, 'confounds', 'curves', 'tissue_curves'}
    return paths


def assess(files, **changed):
    settings = MethodSettings.of(**{'mirror_most_folding': 0.05} | changed).as_dict(*JUDGED)
    path = AssessQuality(**files, settings=settings).run().outputs.quality
    (row,) = pd.read_csv(path, sep='\t', keep_default_na=False).to_dict('records')
    return row


def test_figures_are_those_counted_by_hand(files):
    row = assess(files)
    expected = {
        'displacement_max': 1, 'frames_rejected': 1 / 3, 'noise_raw': 4, 'baseline_frames': 3,
        'contrast_to_noise': 10, 'aif_peak': 200, 'coverage': 80, 'normal_tissue': 0.8,
        'mirror_distance': 2, 'mirror_folding': 0.002, 'unassessable': 5 / 1000, 'side_confidence': 0.6,
        'arrival': 6, 'noise_denoised': 1, 'scan_after_peak': 48, 'aif_area': 2 / 3,
        'healthy_side_tmax': 1, 'tmax_at_zero': 0, 'healthy_side_hypoperfusion': 0,
        'healthy_side_low_flow': 0, 'reference_median': 1, 'flow_spread': 0.6, 'lesion_agreement': 1,
        'coverage_asymmetry': 40 / 500, 'brain_asymmetry': 40 / 480,
        'vof_lag': 4, 'drift': 0.4, 'skull_gap': 0, 'core_missed': 0.0062,
    }  # fmt: skip
    figures = {name: float(row[name]) for name in expected}
    assert figures == pytest.approx(expected, abs=1e-4)
    assert float(row['brain_density']) == pytest.approx(33, abs=0.25)


def test_every_check_has_a_grade_and_a_sentence(files):
    row = assess(files)
    for check in CHECKS:
        if check.name in OTHERS:
            continue
        assert row[f'{check.name}_status'] in ('pass', 'warn', 'fail'), check.name
        assert WORDING[check.name].meaning in row[f'{check.name}_sentence']


def test_grade_of_the_series_is_the_worst_one(files):
    assert assess(files)['status'] == 'fail'  # a third of the frames is rejected
    table = pd.read_csv('confounds.tsv', sep='\t').assign(weight=1)
    table.to_csv('confounds.tsv', sep='\t', index=False)
    assert assess(files)['status'] == 'pass'
    measured = {'mirror_distance_mm': 3.5, 'mirror_folding': 0, 'withheld': ''}
    Path('symmetry.json').write_text(json.dumps(measured))
    assert assess(files)['status'] == 'warn'


@pytest.mark.parametrize(
    ('limit', 'check'),
    [
        ({'mirror_most_mm': 1.9}, 'mirror_distance'),
        ({'mirror_most_folding': 0.001}, 'mirror_folding'),
    ],
)
def test_limits_that_withhold_local_maps_are_those_of_failure(files, limit, check):
    row = assess(files, **limit)
    assert row[f'{check}_status'] == 'fail'
    assert 'read the global map' in row[f'{check}_sentence']


@pytest.mark.parametrize(('limit', 'status'), [(0.55, 'fail'), (0.3, 'warn')])
def test_mirrored_map_is_graded_by_its_similarity(files, limit, status):
    Path('entry.json').write_text(json.dumps({'reference_image_from': 'cbv'}))
    files |= {'entry': str(Path('entry.json').absolute())}
    measured = {'mirror_similarity': 0.5, 'mirror_folding': 0, 'withheld': ''}
    Path('symmetry.json').write_text(json.dumps(measured))
    row = assess(files, map_least_similarity=limit)
    assert row['mirror_similarity_status'] == status
    assert row['mirror_distance_status'] == row['brain_density_status'] == 'n/a'
    assert json.loads(Path('limits.json').read_text())['mirror_similarity']['FailBelow'] == limit


def test_similarity_says_nothing_where_the_distance_is_known(files):
    assert assess(files)['mirror_similarity_status'] == 'n/a'


def test_figures_of_withheld_maps_are_not_available(files):
    for name in ('rcbf_local', 'core_local', 'mismatch_local'):
        del files[name]
    del files['unassessable_mask']
    measured = {'mirror_distance_mm': 7.0, 'mirror_folding': 0, 'withheld': 'too far off'}
    Path('symmetry.json').write_text(json.dumps(measured))
    row = assess(files)
    for check in (
        'unassessable',
        'core_disagreement',
        'core_disagreement_share',
        'brain_asymmetry',
    ):
        assert row[f'{check}_status'] == 'n/a', check
    assert row['coverage_status'] == 'pass'


def test_hypoperfusion_of_the_healthy_side_fails(files):
    row = assess(files, hypoperfusion_tmax=0.5)
    assert float(row['healthy_side_hypoperfusion']) == 1
    assert row['healthy_side_hypoperfusion_status'] == 'fail'
    assert 'bilateral' in row['healthy_side_hypoperfusion_sentence'] or (
        'both hemispheres' in row['healthy_side_hypoperfusion_sentence']
    )


@pytest.mark.parametrize(('width', 'status'), [(1, 'pass'), (4, 'fail')])
def test_infarct_of_the_healthy_side_that_is_not_slow_fails(files, width, status):
    """An old infarct has little flow, which may come in time; a layer of voxels is noise."""
    image = nb.load('rcbf_global.nii', mmap=False)
    voxels = image.get_fdata(dtype=np.float32)
    voxels[:width, :, 2:6] = 0.1
    nb.save(nb.Nifti1Image(voxels, image.affine), 'rcbf_global.nii')
    row = assess(files)
    assert row['healthy_side_low_flow_status'] == status
    if status == 'fail':
        assert float(row['healthy_side_low_flow']) == pytest.approx(160 / 500)
        assert 'local normalization is unreliable' in row['caution']
        assert '32 %' in row['caution']


def test_old_infarct_of_the_healthy_side_is_named_and_warns(files):
    for name, value in (('rcbf_global', 0.1), ('reference', 8.0)):
        image = nb.load(f'{name}.nii', mmap=False)
        voxels = image.get_fdata(dtype=np.float32)
        voxels[:4, :8, 2:5] = value
        nb.save(nb.Nifti1Image(voxels, image.affine), f'{name}.nii')
    row = assess(files)
    assert row['old_infarct_status'] == 'warn'
    assert float(row['old_infarct']) > 2


def test_healthy_other_side_needs_no_caution(files):
    assert assess(files)['caution'] == 'n/a'


def test_maps_without_their_series_are_graded(files):
    row = assess({name: path for name, path in files.items() if name not in SERIES})
    assert row['aif_peak_status'] == row['noise_raw_status'] == 'n/a'
    assert row['aif_peak'] == 'n/a'
    assert row['coverage_status'] == 'pass'
    assert row['status'] == 'pass'


def test_tissue_before_its_artery_is_measured(files):
    image = nb.load('tmax.nii', mmap=False)
    voxels = image.get_fdata(dtype=np.float32)
    voxels[:, :4, :10] = 0
    nb.save(nb.Nifti1Image(voxels, image.affine), 'tmax.nii')
    row = assess(files)
    assert float(row['tmax_at_zero']) == pytest.approx(0.4)
    assert 'the AIF arrives later than tissue' in row['tmax_at_zero_sentence']


def test_brain_that_is_late_on_its_healthy_side_has_a_warning(files):
    measured = json.loads(Path('normalization.json').read_text())
    Path('normalization.json').write_text(json.dumps(measured | {'tmax_left_s': 5.0}))
    row = assess(files)
    assert row['healthy_side_tmax_status'] == 'warn'
    assert 'all tissue is late' in row['healthy_side_tmax_sentence']
