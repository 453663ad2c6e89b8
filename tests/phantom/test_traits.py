# SPDX-License-Identifier: Apache-2.0
"""Each trait of head, bolus and scan has the effect that its setting describes."""

import json
from dataclasses import asdict, replace
from functools import lru_cache

import nibabel as nb
import numpy as np
import pytest
from scipy import ndimage

from ctpprep.phantom import TIME_STEP, PhantomSettings, frame_affine, make_phantom, write_bids
from ctpprep.phantom.artefacts import PhotonNoise, draw_metal
from ctpprep.phantom.curves import CurveTable, convolve_residue, draw_bolus
from ctpprep.phantom.geometry import Grid
from ctpprep.phantom.scanner import EXPOSURE_S, Motion
from ctpprep.phantom.settings import BolusTraits, HeadTraits, ScanTraits

VOXEL_MM = (4.5, 4.5, 8.0)
SMALL = PhantomSettings(
    seed=3, matrix=48, voxel_size_mm=VOXEL_MM, n_slices=9, n_frames=6, frame_interval=4.0,
    noise_hu=0.0, motion_mm=0.0, lesion='large',
)  # fmt: skip
DETAILED = HeadTraits(skull='detailed', slab_shift_mm=-12.0)


@lru_cache
def make(**changes):
    return make_phantom(replace(SMALL, **changes))


def draw(**traits):
    return draw_bolus(np.random.default_rng(0), BolusTraits(**traits), 60.0)


def volume_ml(head, name):
    return (head.truth[name] * head.truth['tissue']).sum() * np.prod(VOXEL_MM) / 1000


@pytest.mark.parametrize('width', [6.0, 14.0, 28.0])
def test_first_pass_has_the_width_asked_for(width):
    bolus = draw(width_s=width, recirculation=0.0, plateau=0.0)
    above = bolus.times[bolus.aif > bolus.aif.max() / 2]
    assert above[-1] - above[0] == pytest.approx(width, rel=0.03)
    assert bolus.aif[bolus.times < 4].max() == 0


def test_bolus_peaks_where_and_as_high_as_asked_for():
    bolus = draw(peak_hu=150.0, peak_time_s=25.0, recirculation=0.0, plateau=0.0)
    assert bolus.aif.max() == pytest.approx(150)
    assert bolus.times[bolus.aif.argmax()] == pytest.approx(25, abs=0.1)


def test_plateau_raises_the_end_of_the_curve():
    bolus = draw(peak_hu=300.0, recirculation=0.0, plateau=0.2)
    assert 0.15 < bolus.aif[-1] / 300 < 0.2


def test_given_peak_leaves_the_other_draws():
    drawn, given = draw(), draw(peak_hu=100.0)
    np.testing.assert_allclose(given.aif / 100, drawn.aif / drawn.aif.max())


def test_slow_side_is_late_and_dispersed_but_the_aif_is_not():
    plain = make(lesion='none')
    slow = make(lesion='none', bolus=BolusTraits(side_delay_s=4.0, side_dispersion_s=2.0))
    np.testing.assert_array_equal(slow.aif, plain.aif)
    later = slow.truth['delay'] - plain.truth['delay']
    inside = (plain.truth['tissue'] > 0.9) & (np.abs(plain.truth['homologue'][..., 0]) > 15)
    for side, delay in ((1, 4.0), (2, 0.0)):
        np.testing.assert_allclose(later[inside & (plain.truth['side'] == side)], delay, atol=1e-3)


def test_dispersion_preserves_the_area_of_the_slow_curve():
    bolus = draw(side_dispersion_s=3.0, plateau=0.0)
    assert bolus.slow_aif.sum() == pytest.approx(bolus.aif.sum(), rel=1e-3)
    assert bolus.slow_aif.max() < 0.9 * bolus.aif.max()


def test_gamma_residue_has_the_area_of_its_transit_time():
    under_constant_input = convolve_residue(
        np.arange(0, 120, TIME_STEP), np.ones(2400), 5.0, 'gamma'
    )
    assert under_constant_input[-1] == pytest.approx(5.0, rel=1e-6)


def test_mixed_residue_mixes_two_families():
    bolus = draw()
    table = CurveTable(bolus, 'mixed')
    mtt, slow = np.array([5.0]), np.array([False])
    rows = [table.rows[table.tissue_row(mtt, slow, family)[0]] for family in (0, 1)]
    for row, family in zip(rows, table.families, strict=True):
        expected = convolve_residue(bolus.times, bolus.aif, 5.0, family)
        np.testing.assert_allclose(row[table.lead : -1], expected, rtol=0.02, atol=2)


def test_mixed_residue_is_between_its_families():
    peaks = [
        (head.ctp.max(axis=-1) - head.ctp[..., 0])[head.truth['tissue'] > 0.95].mean()
        for head in (make(residue=r) for r in ('exponential', 'mixed', 'plateau'))
    ]
    assert peaks[0] < peaks[1] < peaks[2]


@pytest.mark.parametrize('volumes', [(30.0, 0.0), (0.0, 45.0), (140.0, 25.0)])
@pytest.mark.parametrize('side', ['right', 'both'])
def test_lesion_has_the_volumes_asked_for(volumes, side):
    head = make(lesion_ml=volumes, lesion_side=side)
    for name, wanted in zip(('core', 'penumbra'), volumes, strict=True):
        # masks by majority: thin rims lose some voxels
        n_sides = 2 if side == 'both' else 1
        assert volume_ml(head, name) == pytest.approx(n_sides * wanted, rel=0.2, abs=0.2)


def test_volumes_of_no_lesion_are_an_error():
    with pytest.raises(ValueError, match="lesion is 'none'"):
        PhantomSettings(lesion_ml=(10.0, 20.0))


def test_milder_microangiopathy_is_smaller_and_has_more_flow():
    mild, severe = (make(lesion='none', microangiopathy=s) for s in (0.3, 1.0))
    volumes = [volume_ml(head, 'microangiopathy') for head in (mild, severe)]
    assert 0.1 * volumes[1] < volumes[0] < 0.7 * volumes[1]
    flows = [np.median(h.truth['cbf'][h.truth['microangiopathy']]) for h in (mild, severe)]
    assert flows[0] > flows[1] + 2


def test_offset_and_drift_are_added_exactly():
    plain = make()
    moved = make(scanner=ScanTraits(offset_hu=7.0, drift_hu=10.0))
    added = moved.ctp.astype(int) - plain.ctp
    # linear in time over 6 frames, up to 10 HU in the last
    np.testing.assert_array_equal(np.unique(added[..., 0]), 7)
    np.testing.assert_array_equal(np.unique(added[..., -1]), 17)
    assert np.abs(added - 7 - 2 * np.arange(6)).max() <= 1  # a half is rounded to even


def test_density_of_brain_and_core():
    plain = make()
    tissue = plain.truth['tissue'] > 0.99
    denser = make(head=HeadTraits(brain_hu=5.0)).ctp[..., 0].astype(int) - plain.ctp[..., 0]
    assert (np.abs(denser[tissue] - 5) <= 1).all()
    dark = make(head=HeadTraits(core_hu=12.0)).ctp[..., 0].astype(float)
    normal = make(head=HeadTraits(core_hu=0.0)).ctp[..., 0]
    core = tissue & plain.truth['core']
    assert (dark - normal)[core].mean() == pytest.approx(-12, abs=1.5)
    far = tissue & (plain.truth['side'] == 2)
    assert np.abs((dark - normal)[far]).max() == 0


def test_smaller_head_and_shifted_slab_contain_other_brain():
    brains = [
        make(lesion='none', head=HeadTraits(**traits)).truth['brain'].sum(axis=(0, 1))
        for traits in ({}, {'size': 0.85}, {'slab_shift_mm': 40.0})
    ]
    assert brains[1][1] < 0.9 * brains[0][1]  # slices from the lowest
    np.testing.assert_allclose(brains[2][:4], brains[0][5:], rtol=0.1)
    assert brains[2][-1] == 0


def test_averaged_slice_is_the_mean_of_thin_slices():
    # A scan of the same head with slices of a quarter of the thickness; it moves by 3 mm.
    scan = {'scanner': ScanTraits(slices='averaged'), 'head': DETAILED}
    moving = {'motion_mm': 3.0, 'n_frames': 4, 'frame_interval': 1.0, 'lesion': 'none'} | scan
    thick = make(voxel_size_mm=(4.5, 4.5, 5.0), n_slices=8, **moving)
    thin = make(voxel_size_mm=(4.5, 4.5, 1.25), n_slices=32, **moving)
    mean = thin.ctp.reshape(48, 48, 8, 4, 4).mean(axis=3)
    assert np.abs(thick.ctp - mean).max() <= 1.1  # both are rounded


def test_head_moves_within_an_exposure():
    parameters = np.zeros((3, 6))
    parameters[1:, 0] = 2.0
    times = np.array([0.0, 1.0, 2.0])
    motion = Motion(times, parameters, np.zeros(3), np.array([np.eye(4)] * 3))
    shifts = [pose[0, 3] for pose in motion.poses_during(0.5)]
    # 2 mm/s: the middles of three thirds of the exposure
    np.testing.assert_allclose(shifts, 1 + 2 * EXPOSURE_S * np.array([-1, 0, 1]) / 3)
    assert [pose[0, 3] for pose in motion.poses_during(1.5)] == [2.0]


def test_photon_noise_has_the_median_sd_asked_for_and_is_larger_at_the_centre():
    x, y = np.meshgrid(np.arange(64) - 31.5, np.arange(64) - 31.5, indexing='ij')
    radius = np.hypot(x, y)
    water = np.where(radius < 26, 30.0, -1000.0)[..., None].repeat(4, axis=2)
    photons = PhotonNoise(water, water > 0, 3.0, 5.0)
    rng = np.random.default_rng(0)
    noise = np.stack([photons.draw(rng) for _ in range(40)], axis=-1)
    sd = np.sqrt((noise**2).mean(axis=(2, 3)))
    assert np.median(sd[radius < 26]) == pytest.approx(5.0, rel=0.05)
    assert sd[radius < 6].mean() > 1.1 * sd[(radius > 20) & (radius < 25)].mean()
    lag = np.corrcoef(noise[30:35, 29:34].ravel(), noise[31:36, 29:34].ravel())[0, 1]
    assert 0.3 < lag < 0.8


def test_photon_noise_is_larger_between_dense_bones():
    head = np.full((64, 64, 2), 30.0)
    head[6:24, 28:36, 1] = head[40:58, 28:36, 1] = 1800.0
    photons = PhotonNoise(head, head < 100, 3.0, 5.0)
    plain, between = photons.expected_sd()[32, 32]
    beside = photons.expected_sd()[32, 50, 1] / photons.expected_sd()[32, 50, 0]
    assert between > 1.15 * plain
    assert between / plain > beside + 0.05


def test_metal_streaks_move_with_the_head():
    grid = Grid(SMALL)
    metal = draw_metal(np.random.default_rng(0), grid.centre)
    still = metal.streaks(grid, np.eye(4))
    moved = metal.streaks(grid, frame_affine(np.array([9.0, 0, 0, 0, 0, 0]), grid.centre))
    np.testing.assert_allclose(moved[2:], still[:-2], atol=1e-3)
    tilted = metal.streaks(grid, frame_affine(np.array([0, 0, 0, 0.03, 0.02, 0]), grid.centre))
    assert 0.7 < np.corrcoef(tilted.ravel(), still.ravel())[0, 1] < 0.999


def test_clip_is_as_dense_as_metal_with_streaks_around_it():
    plain, clipped = make(lesion='none'), make(lesion='none', scanner=ScanTraits(metal=True))
    added = clipped.ctp.astype(float) - plain.ctp
    assert added.max() > 150
    assert (np.abs(added[..., 0]) > 10).sum() > 100


def test_stripped_head_is_0_outside_the_brain_in_all_frames():
    scan = {'noise_hu': 3.0, 'motion_mm': 3.0}
    plain, stripped = make(**scan), make(**scan, head=HeadTraits(stripped=True))
    outside = ~ndimage.binary_dilation(plain.truth['brain'], iterations=2)
    assert (stripped.ctp[outside] == 0).all()
    inside = ndimage.binary_erosion(plain.truth['brain'], iterations=2)
    np.testing.assert_array_equal(stripped.ctp[inside], plain.ctp[inside])
    first, last = (stripped.ctp[..., t] != 0 for t in (0, -1))
    assert (first != last).any()


def test_bone_is_not_tissue_in_the_truth():
    head = make(head=DETAILED)
    dense = head.ctp[..., 0] > 1000
    assert dense.sum() > 60
    assert head.truth['tissue'][dense].max() < 0.5
    assert not (head.truth['brain'] & (head.ctp[..., 0] > 1000)).any()


def test_skull_base_puts_bone_and_air_between_the_parts_of_the_brain():
    low = make(head=DETAILED).ctp[:, :, 1, 0]
    high = make(head=DETAILED).ctp[:, :, 7, 0]
    head = ndimage.binary_fill_holes(low > -500)
    deep = ndimage.binary_erosion(head, iterations=6)
    assert (low[deep] > 400).sum() > 30
    assert (low[ndimage.binary_erosion(head, iterations=2)] < -300).sum() > 5
    deep = ndimage.binary_erosion(ndimage.binary_fill_holes(high > -500), iterations=6)
    assert high[deep].max() < 150


def test_carotid_artery_enhances_beside_bone():
    head = make(head=DETAILED, lesion='none')
    near_bone = ndimage.binary_dilation(head.ctp[..., 0] > 400)
    enhancement = head.ctp.max(axis=-1) - head.ctp[..., 0]
    assert (enhancement[near_bone & (head.truth['vessel'] > 0.2)] > 40).sum() > 5


def test_skull_defect_has_no_bone_on_the_side_of_the_lesion():
    plain, open_skull = make(), make(head=HeadTraits(skull_defect_mm=80.0))
    lost = (plain.ctp[..., 0] > 400) & (open_skull.ctp[..., 0] < 100)
    x = (plain.affine[:3, :3] @ np.array(np.nonzero(lost)) + plain.affine[:3, 3:])[0]
    assert len(x) > 50
    assert (x < 0).all()
    np.testing.assert_array_equal(plain.truth['brain'], open_skull.truth['brain'])


def test_old_infarct_is_csf_of_the_volume_asked_for_opposite_the_lesion():
    plain, head = make(), make(head=HeadTraits(old_infarct_ml=40.0))
    old = head.truth['old_infarct']
    assert (plain.truth['tissue'] * old).sum() * np.prod(VOXEL_MM) / 1000 == pytest.approx(
        40, rel=0.15
    )
    assert (head.truth['side'][old] == 2).mean() > 0.98
    assert head.truth['tissue'][ndimage.binary_erosion(old)].max() < 0.05
    assert head.ctp[..., 0][ndimage.binary_erosion(old)].mean() == pytest.approx(6, abs=4)
    np.testing.assert_array_equal(plain.truth['core'], head.truth['core'])


def test_calcifications_are_dense_and_in_the_brain():
    plain, head = make(), make(head=HeadTraits(calcifications=True))
    added = (head.ctp[..., 0].astype(int) - plain.ctp[..., 0])[plain.truth['brain']]
    assert (added > 30).sum() >= 3
    assert (added != 0).mean() < 0.05


def test_scalp_vessels_enhance_outside_the_skull():
    plain = make(lesion='none')
    head = make(lesion='none', head=HeadTraits(extracranial_vessels=True))
    np.testing.assert_allclose(head.ctp[..., 0], plain.ctp[..., 0], atol=30)
    added = (head.ctp.astype(int) - plain.ctp).max(axis=-1)
    assert (added > 10).sum() > 30
    assert not (head.truth['brain'] & (added > 10)).any()


def test_traits_are_in_the_sidecar_and_old_infarct_in_the_truth(tmp_path):
    head = make(microangiopathy=0.4, head=HeadTraits(old_infarct_ml=40.0))
    path = write_bids(head, tmp_path, '01')
    sidecar = json.loads(path.with_name('sub-01_ctp.json').read_text())
    assert sidecar['PhantomSettings'] == json.loads(json.dumps(asdict(head.settings)))
    mask = tmp_path / 'derivatives/truth/sub-01/ct/sub-01_label-oldinfarct_desc-truth_mask.nii.gz'
    np.testing.assert_array_equal(nb.load(mask).dataobj, head.truth['old_infarct'])
    assert 'yes\tyes' in (tmp_path / 'participants.tsv').read_text()
