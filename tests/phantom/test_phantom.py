# SPDX-License-Identifier: Apache-2.0
"""The phantom is consistent with its settings and its truth."""

import importlib.util
import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from ctpprep.phantom import (
    K_H,
    LESIONS_ML,
    RHO,
    TIME_STEP,
    PhantomSettings,
    make_phantom,
    write_bids,
)
from ctpprep.phantom.curves import convolve_residue
from ctpprep.phantom.dataset import describe_series
from ctpprep.phantom.scanner import schedule_frames

DATA = Path(__file__).parents[2] / 'data'
SMALL = PhantomSettings(
    seed=3, matrix=48, voxel_size_mm=(4.6, 4.6, 8.0), n_slices=11, n_frames=16,
    frame_interval=2.0, noise_hu=0.0, motion_mm=0.0, lesion='large',
)  # fmt: skip


@lru_cache
def make(**changes):
    return make_phantom(replace(SMALL, **changes))


def enhancement(head, mask):
    curve = head.ctp[mask].astype(float)
    return curve - curve[:, :2].mean(axis=1, keepdims=True)


def test_transit_time_is_volume_over_flow():
    truth = make().truth
    some = truth['cbf'] > 0
    np.testing.assert_allclose(
        truth['mtt'][some], 60 * truth['cbv'][some] / truth['cbf'][some], rtol=1e-5
    )


def test_bilateral_lesions_have_one_size_and_contain_the_left_lesion():
    both, left = make(lesion_side='both', n_frames=2).truth, make().truth
    voxel_ml = np.prod(SMALL.voxel_size_mm) / 1000
    for side in (1, 2):
        core_ml = (both['core'] & (both['side'] == side)).sum() * voxel_ml
        assert core_ml == pytest.approx(LESIONS_ML['large'][0], rel=0.1)
    on_left = left['side'] == 1
    np.testing.assert_array_equal(both['cbf'][on_left], left['cbf'][on_left])


@pytest.mark.parametrize('family', ['exponential', 'linear', 'plateau'])
def test_residue_function_has_the_area_of_its_transit_time(family):
    times = np.arange(0, 120, TIME_STEP)
    under_constant_input = convolve_residue(times, np.ones(len(times)), 5.0, family)
    assert under_constant_input[-1] == pytest.approx(5.0, rel=1e-6)


def test_curve_is_the_delayed_convolution_of_the_aif():
    # A slow second implementation, one voxel at a time, in voxels of a single tissue.
    head = make()
    truth = head.truth
    pure = (truth['tissue'] > 0.99) & (truth['vessel'] == 0) & (truth['cbf'] < 27)
    expected = []
    for cbf, mtt, delay in zip(*(truth[k][pure] for k in ('cbf', 'mtt', 'delay')), strict=True):
        residue = np.exp(-head.times_fine / mtt)
        curve = np.convolve(head.aif, residue)[: len(head.aif)] * TIME_STEP
        curve *= RHO / K_H * cbf / 6000
        expected.append(np.interp(head.frame_times - delay, head.times_fine, curve, left=0))
    expected = np.mean(expected, axis=0)
    measured = enhancement(head, pure).mean(axis=0)
    assert np.abs(measured - expected).max() < 0.04 * expected.max()


def test_delayed_tissue_peaks_later():
    head = make()
    tissue = head.truth['tissue'] > 0.9
    late = tissue & head.truth['hypoperfusion'] & ~head.truth['core']
    normal = tissue & (head.truth['delay'] < 2)
    peaks = [head.frame_times[enhancement(head, m).mean(axis=0).argmax()] for m in (late, normal)]
    assert peaks[0] - peaks[1] >= 4


def test_grey_matter_enhances_as_much_as_in_patients():
    head = make()
    grey = (head.truth['tissue'] > 0.9) & (head.truth['cbf'] > 50)
    assert 5 < enhancement(head, grey).mean(axis=0).max() < 15


def test_arteries_enhance_before_veins_and_far_more_than_tissue():
    head = make()
    vessel = head.truth['vessel'] > 0.3
    assert enhancement(head, vessel).max() > 60
    assert head.times_fine[head.vof.argmax()] - head.times_fine[head.aif.argmax()] > 3


def test_homologue_of_the_homologue_is_the_voxel_itself():
    head = make()
    homologues, homologue_index, positions = follow_homologue(head)
    back = head.truth['homologue'][tuple(homologue_index)].T
    # The counterpart was rounded to a voxel: up to half a diagonal.
    error = np.linalg.norm(back - positions, axis=0)
    half_diagonal = np.linalg.norm(SMALL.voxel_size_mm) / 2
    assert np.nanmax(error) < 1.4 * half_diagonal
    assert np.nanmedian(np.linalg.norm(homologues - positions, axis=0)) > 40


def test_homologue_is_in_the_other_hemisphere():
    head = make()
    _, homologue_index, positions = follow_homologue(head)
    side = head.truth['side'][head.truth['brain'] & ~np.isnan(head.truth['homologue'][..., 0])]
    other = head.truth['side'][tuple(homologue_index)]
    # Rounded to a voxel, a homologue at the edge of the brain may be just outside.
    sure = (np.abs(positions[0]) > 15) & (other > 0)
    assert (side[sure] + other[sure] == 3).all()


def follow_homologue(head):
    """Return homologue positions, their voxels, and the original positions; (3, N) each."""
    some = head.truth['brain'] & ~np.isnan(head.truth['homologue'][..., 0])
    homologues = head.truth['homologue'][some].T
    positions = head.affine[:3, :3] @ np.array(np.nonzero(some)) + head.affine[:3, 3:]
    inverse = np.linalg.inv(head.affine)
    index = np.round(inverse[:3, :3] @ homologues + inverse[:3, 3:]).astype(int)
    return homologues, np.clip(index, 0, np.array(some.shape)[:, None] - 1), positions


def test_left_lesion_is_on_the_patients_left():
    head = make()
    core = np.array(np.nonzero(head.truth['core']))
    x = (head.affine[:3, :3] @ core + head.affine[:3, 3:])[0]
    assert x.max() < 10
    assert (head.truth['side'][head.truth['core']] == 1).all()


@pytest.mark.parametrize('lesion', ['small', 'large', 'huge'])
def test_lesion_has_about_the_nominal_volume(lesion):
    truth = (make() if lesion == 'large' else make(lesion=lesion, n_frames=2)).truth
    voxel_ml = np.prod(SMALL.voxel_size_mm) / 1000
    volumes = [(truth[k] * truth['tissue']).sum() * voxel_ml for k in ('core', 'penumbra')]
    np.testing.assert_allclose(volumes, LESIONS_ML[lesion], rtol=0.2)


def test_core_has_lost_flow_and_is_late():
    truth = make().truth
    core = truth['core']
    normal = (truth['tissue'] > 0.9) & (truth['delay'] < 2)
    assert np.median(truth['cbf'][core]) < 0.3 * np.median(truth['cbf'][normal])
    assert truth['delay'][core].min() > 5


def test_microangiopathy_is_on_both_sides_with_low_flow():
    truth = make(seed=4, microangiopathy=True, lesion='none').truth
    damaged = truth['microangiopathy']
    left, right = (np.sum(damaged & (truth['side'] == side)) for side in (1, 2))
    assert left + right > 100
    assert 0.7 < left / right < 1.4
    # Voxels of 8 mm mix in some normal tissue: the purer quarter shows the value itself.
    assert 8 < np.percentile(truth['cbf'][damaged], 25) < 14


def test_noise_has_the_nominal_sd_and_is_correlated_in_plane():
    noise = make(noise_hu=5.0, n_frames=4).ctp.astype(float) - make().ctp[..., :4]
    inside = noise[20:36, 20:36]
    assert inside.std() == pytest.approx(5.0, rel=0.04)
    lag = [
        np.corrcoef(a.ravel(), b.ravel())[0, 1]
        for a, b in (
            (inside[1:], inside[:-1]), (inside[:, 1:], inside[:, :-1]),
            (inside[:, :, 1:], inside[:, :, :-1]), (inside[..., 1:], inside[..., :-1]),
        )
    ]  # fmt: skip
    assert min(lag[:2]) > 0.35
    assert np.abs(lag[2:]).max() < 0.05


@pytest.mark.parametrize('timing', ['toggling', 'jog'])
def test_each_slice_is_sampled_at_its_own_time(timing):
    # Twice as many even frames include every half step of the table.
    table = make(timing=timing, n_frames=10)
    dense = make(frame_interval=1.0, n_frames=20)
    assert len(np.unique(table.sample_times[:, 0])) == 2
    for z, times in enumerate(table.sample_times):
        frames = np.searchsorted(dense.frame_times, times)
        np.testing.assert_array_equal(table.ctp[:, :, z], dense.ctp[:, :, z, frames])


def test_jog_changes_the_order_of_the_slabs_from_frame_to_frame():
    frame_times, sample_times = schedule_frames(replace(SMALL, timing='jog'))
    offset = sample_times - frame_times
    np.testing.assert_array_equal(offset[0, :4], [0, 1, 0, 1])
    np.testing.assert_array_equal(offset[-1, :4], [1, 0, 1, 0])


def test_uneven_frames_come_later_at_the_end():
    frame_times, _ = schedule_frames(replace(SMALL, timing='uneven'))
    steps = np.diff(frame_times)
    assert steps[0] == 2
    assert steps[-1] == 4


def test_frame_affine_moves_the_head():
    # Before the bolus and inside the skull, two frames differ by the movement only.
    fine = {'matrix': 56, 'voxel_size_mm': (4.0, 4.0, 8.0)}
    head = make(motion_mm=3.0, n_frames=6, frame_interval=1.0, **fine)
    first, last = np.clip(head.ctp[..., [0, -1]], 0, 80).astype(float).transpose(3, 0, 1, 2)
    inner = np.indices(first.shape)[:, :, :, 3:8].reshape(3, -1)

    def mismatch(rigid):
        """Return the mean difference between frame 0 and the last frame moved back by `rigid`."""
        index_rigid = np.linalg.inv(head.affine) @ rigid @ head.affine
        index = index_rigid[:3, :3] @ inner + index_rigid[:3, 3:]
        return np.abs(map_coordinates(last, index, order=1) - first[tuple(inner)]).mean()

    rigid = head.frame_affines[-1]
    assert mismatch(rigid) < 0.7 * mismatch(np.eye(4))
    assert mismatch(rigid) < 0.5 * mismatch(np.linalg.inv(rigid))
    np.testing.assert_array_equal(head.frame_affines[0], np.eye(4))


def test_orientation_changes_the_array_but_not_the_head():
    lps, ras = make(), make(orientation='RAS')
    assert nb.aff2axcodes(lps.affine) == ('L', 'P', 'S')
    turned = nb.as_closest_canonical(nb.Nifti1Image(lps.ctp, lps.affine))
    np.testing.assert_allclose(turned.affine, ras.affine)
    np.testing.assert_array_equal(turned.dataobj, ras.ctp)


def test_same_seed_is_the_same_head_and_another_seed_is_not():
    first, again = make(), make_phantom(SMALL)
    np.testing.assert_array_equal(first.ctp, again.ctp)
    other = make(seed=4, microangiopathy=True, lesion='none')
    assert (first.ctp != other.ctp).mean() > 0.1


def test_unknown_timing_is_an_error():
    with pytest.raises(ValueError, match=r"timing must be one of .*'jog'.*, got 'shuttle'"):
        PhantomSettings(timing='shuttle')


@pytest.mark.parametrize(
    ('timing', 'present'),
    [
        ('even', {'RepetitionTime'}),
        ('uneven', {'VolumeTiming'}),
        ('toggling', {'RepetitionTime', 'SliceTiming', 'SliceEncodingDirection'}),
        ('jog', {'SliceAcquisitionTimes', 'SliceEncodingDirection'}),
    ],
)
def test_sidecar_contains_one_kind_of_timing(timing, present):
    settings = replace(SMALL, timing=timing)
    frame_times, sample_times = schedule_frames(settings)
    head = replace(make(), settings=settings, frame_times=frame_times, sample_times=sample_times)
    sidecar = describe_series(head)
    fields = {'RepetitionTime', 'VolumeTiming', 'SliceTiming', 'SliceAcquisitionTimes'}
    assert set(sidecar) & (fields | {'SliceEncodingDirection'}) == present
    if timing == 'jog':
        assert np.shape(sidecar['SliceAcquisitionTimes']) == (16, 11)


def test_written_data_set_can_be_read_back(tmp_path):
    head = make()
    path = write_bids(head, tmp_path, '07', session='a')
    write_bids(head, tmp_path, '08')
    assert path == tmp_path / 'sub-07/ses-a/ct/sub-07_ses-a_ctp.nii.gz'
    np.testing.assert_array_equal(nb.load(path).dataobj, head.ctp)
    truth = tmp_path / 'derivatives/truth/sub-07/ses-a/ct'
    cbf = nb.load(truth / 'sub-07_ses-a_desc-truth_cbf.nii.gz').get_fdata()
    np.testing.assert_allclose(cbf, head.truth['cbf'], atol=0.006)
    homologue = nb.load(truth / 'sub-07_ses-a_desc-truth_homologue.nii.gz').get_fdata()
    some = ~np.isnan(head.truth['homologue'])
    np.testing.assert_allclose(homologue[some], head.truth['homologue'][some], atol=0.06)
    assert (homologue[~some] < -3000).all()
    table = (tmp_path / 'participants.tsv').read_text().splitlines()
    assert [line.split('\t')[0] for line in table] == ['participant_id', 'sub-07', 'sub-08']
    assert json.loads((tmp_path / 'dataset_description.json').read_text())['DatasetType'] == 'raw'


@pytest.mark.slow
def test_demo_data_can_be_remade(tmp_path):
    spec = importlib.util.spec_from_file_location('make_demo', DATA / 'make_phantom.py')
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.main(tmp_path)
    kept = DATA / 'ds-phantom'
    names = [{p.relative_to(d) for d in [root] for p in d.rglob('*') if p.is_file()}
             for root in (tmp_path, kept)]  # fmt: skip
    assert names[0] == names[1]
    for path in sorted(kept.rglob('*.json')):
        assert (tmp_path / path.relative_to(kept)).read_text() == path.read_text()
    for path in sorted(kept.glob('sub-*/ct/*_ctp.nii.gz')):
        remade = np.asarray(nb.load(tmp_path / path.relative_to(kept)).dataobj)
        assert np.abs(remade - np.asarray(nb.load(path).dataobj)).max() <= 1
