# SPDX-License-Identifier: Apache-2.0
"""Each trait of head, bolus and scan has the effect that its setting describes."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest

from ctpprep.phantom import TIME_STEP, PhantomSettings, make_phantom
from ctpprep.phantom.curves import CurveTable, convolve_residue, draw_bolus
from ctpprep.phantom.settings import BolusTraits, HeadTraits, ScanTraits

VOXEL_MM = (4.5, 4.5, 8.0)
SMALL = PhantomSettings(
    seed=3, matrix=48, voxel_size_mm=VOXEL_MM, n_slices=9, n_frames=6, frame_interval=4.0,
    noise_hu=0.0, motion_mm=0.0, lesion='large',
)  # fmt: skip


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
