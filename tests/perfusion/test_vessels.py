# SPDX-License-Identifier: Apache-2.0
"""AIF and VOF are vessels or there are none."""

import numpy as np
import pytest

from ctpprep.exceptions import VesselError
from ctpprep.perfusion import vessels

STEP = np.arange(27) * 1.5
TIMES = np.stack([STEP, STEP + 0.75])
# tissue of 10 HU that fills after the early arteries, and hardly any enhancement
TISSUE, QUIET = vessels.Tissue(10.0, 11.0), vessels.Tissue(0.1, 11.0)


@pytest.fixture
def candidates(artery, tissue):
    """Curves of 12 arteries, 12 late arteries, 12 veins and 300 voxels of tissue."""
    rng = np.random.default_rng(0)

    def make(arteries=12, late=12, veins=12):
        pattern, curves = [], []
        for count, curve in (
            (arteries, lambda t: artery(t, peak=250)),
            (late, lambda t: artery(t, arrival=13, peak=250)),
            (veins, lambda t: artery(t, arrival=12, peak=220, rise=6.5)),
            (300, lambda t: tissue(t, delay=1.0)),
        ):
            for voxel in range(count):
                pattern.append(voxel % 2)
                curves.append(curve(TIMES[voxel % 2]))
        curves = np.array(curves)
        return curves + rng.normal(0, 1.5, curves.shape), np.array(pattern)

    return make


def find_aif(curves, pattern, aif_voxels=5):
    return vessels.find_aif(curves, curves, TIMES, pattern, TISSUE, 1.5, aif_voxels=aif_voxels)


def test_aif_is_made_of_early_arteries(candidates):
    curves, pattern = candidates()
    assert set(find_aif(curves, pattern).voxels) <= set(range(12))


def test_aif_has_the_true_times_of_its_slices(candidates, artery):
    curves, pattern = candidates()
    aif = find_aif(curves, pattern)
    assert len(set(pattern[aif.voxels])) == 1
    np.testing.assert_array_equal(aif.times, TIMES[pattern[aif.voxels[0]]])
    assert np.abs(aif.curve - artery(aif.times, peak=250)).max() < 5


def test_vof_is_made_of_veins(candidates):
    curves, pattern = candidates(late=0)
    vof = vessels.find_vof(curves, curves, TIMES, pattern, find_aif(curves, pattern), aif_voxels=5)
    assert set(vof.voxels) <= set(range(12, 24))


def test_tissue_is_never_taken_for_an_artery(candidates):
    with pytest.raises(VesselError, match='no artery-like curve'):
        find_aif(*candidates(arteries=0, late=0, veins=0))


def test_noise_is_never_taken_for_an_artery():
    noise = np.random.default_rng(0).normal(0, 1.5, (5000, 27))
    with pytest.raises(VesselError, match='no artery-like curve'):
        vessels.find_aif(noise, noise, TIMES, np.zeros(5000, int), QUIET, 1.5, aif_voxels=5)


def test_a_bolus_that_does_not_come_down_is_no_artery(candidates):
    curves, pattern = candidates(late=0, veins=0)
    with pytest.raises(VesselError):
        vessels.find_aif(
            curves[:, :8], curves[:, :8], TIMES[:, :8], pattern, TISSUE, 1.5, aif_voxels=5
        )


def test_tissue_is_never_taken_for_a_vein(candidates):
    curves, pattern = candidates(late=0, veins=0)
    aif = find_aif(curves, pattern)
    with pytest.raises(VesselError, match='no vein-like curve'):
        vessels.find_vof(curves, curves, TIMES, pattern, aif, aif_voxels=5)


def test_a_spike_in_one_frame_is_not_chosen(candidates):
    curves, pattern = candidates()
    curves[40] = 0
    curves[40, 8] = 400
    assert 40 not in find_aif(curves, pattern).voxels


def test_bone_that_moved_in_is_no_vein(candidates):
    curves, pattern = candidates(late=0)
    curves[40:60] = np.where(STEP > 18, 900, 0)
    vof = vessels.find_vof(curves, curves, TIMES, pattern, find_aif(curves, pattern), aif_voxels=5)
    assert set(vof.voxels) <= set(range(12, 24))


def test_width_of_a_gamma_variate_is_its_full_width_at_half_maximum(artery):
    times = np.arange(60) * 0.75
    features = vessels.curve_features(artery(times)[None], times)
    # FWHM of (s exp(1 - s))^3 is 1.404 times its time to peak of 5 s
    assert features.width[0] == pytest.approx(1.404 * 5, abs=0.15)
    assert features.peak_time[0] == pytest.approx(13, abs=0.4)
    assert features.area[0] == pytest.approx(np.trapezoid(artery(times), times), rel=1e-3)


def test_features_move_with_the_curve(artery):
    early, late = (vessels.curve_features(artery(STEP, at)[None], STEP) for at in (6.0, 9.0))
    for name, moved in (('arrival', 3), ('peak_time', 3), ('width', 0), ('roughness', 0)):
        difference = getattr(late, name)[0] - getattr(early, name)[0]
        assert difference == pytest.approx(moved, abs=1e-3)


def test_smoothing_in_time_keeps_straight_lines_inside():
    line = np.arange(8.0)[None] * 3
    np.testing.assert_allclose(vessels.smooth_in_time(line)[:, 1:-1], line[:, 1:-1])


def test_vessels_of_a_head_have_the_true_shape(head, found):
    curves = found.enhancement[found.inside]
    pattern = np.broadcast_to(found.pattern, found.inside.shape)[found.inside]
    tissue = vessels.Tissue(np.median(found.peak[found.tissue]), found.arrival + 2)
    aif = vessels.find_aif(curves, curves, found.times, pattern, tissue, 3.0, aif_voxels=8)
    vof = vessels.find_vof(curves, curves, found.times, pattern, aif, aif_voxels=8)
    for vessel, truth in ((aif, head.aif), (vof, head.vof)):
        true = np.interp(vessel.times, head.times_fine, truth)
        assert np.corrcoef(vessel.curve, true)[0, 1] > 0.98


def test_an_artery_that_fades_when_the_head_moves_is_not_chosen(candidates):
    """Arteries along a slice stand high at first; through plane that is known to be a neighbour's."""
    curves, pattern = candidates()
    smooth = curves.copy()
    curves[:4] *= 1.6
    smooth[:4] *= 0.4
    aif = vessels.find_aif(curves, smooth, TIMES, pattern, TISSUE, 1.5, aif_voxels=5)
    assert set(aif.voxels) <= set(range(4, 12))
    np.testing.assert_allclose(aif.curve, curves[aif.voxels].mean(axis=0))


def test_a_curve_that_stays_up_after_the_bolus_is_not_chosen(candidates):
    """Bone that motion brought in stands in some curves from then on."""
    curves, pattern = candidates()
    curves[:5, TIMES.shape[1] // 3 :] += 60
    assert not set(find_aif(curves, pattern).voxels) & set(range(5))


def test_a_short_scan_does_not_turn_down_the_earliest_arteries(artery):
    """While the bolus passes, what is left of it tells arrival, not motion."""
    times = np.arange(14)[None] * 1.5
    rng = np.random.default_rng(0)
    proximal = np.tile(artery(times[0], peak=400, arrival=6), (12, 1))
    distal = np.tile(artery(times[0], peak=250, arrival=8), (40, 1))
    curves = np.concatenate([proximal, distal]) + rng.normal(0, 1.0, (52, 14))
    aif = vessels.find_aif(curves, curves, times, np.zeros(52, int), TISSUE, 1.0, aif_voxels=8)
    assert set(aif.voxels) <= set(range(12))


def test_taller_curve_of_another_shape_lends_no_height(artery):
    """A sinus that fills 1.5 s later is higher than the artery, and correlates with it by 0.9."""
    shape, later = artery(STEP, peak=100), artery(STEP, arrival=9.5, peak=300)
    assert 0.85 < np.corrcoef(shape, later)[0, 1] < 0.94
    vessel = vessels.Vessel(shape, STEP, np.array([0]))
    restored = vessels.restore_height(vessel, np.array([1.5 * shape, later]))
    np.testing.assert_allclose(restored.curve, 1.5 * shape)


# -- few arteries, wide boluses, motion


def test_veins_are_no_arteries_where_the_slab_shows_few_arteries(candidates):
    """Ten veins to an artery, and as high: they fill after tissue, so they are not the AIF."""
    curves, pattern = candidates(arteries=8, late=0, veins=80)
    curves[8:88] *= 1.3
    assert set(find_aif(curves, pattern, aif_voxels=3).voxels) <= set(range(8))


def test_arteries_behind_a_stenosis_are_found_though_they_fill_with_tissue(candidates):
    curves, pattern = candidates(arteries=0, late=12, veins=0)
    assert set(find_aif(curves, pattern).voxels) <= set(range(12))


@pytest.mark.parametrize('width', [20, 28])
def test_wide_bolus_of_a_failing_heart_is_an_aif(artery, tissue, width):
    times = np.arange(0, 60, 1.5)
    wide = artery(times, arrival=6.0, peak=150, rise=width / 1.404)
    curves = np.concatenate([np.tile(wide, (12, 1)), np.tile(tissue(times), (100, 1))])
    curves = curves + np.random.default_rng(0).normal(0, 1.5, curves.shape)
    aif = vessels.find_aif(
        curves, curves, times[None], np.zeros(112, int), TISSUE, 1.5, aif_voxels=8
    )
    assert set(aif.voxels) <= set(range(12))
    assert np.corrcoef(aif.curve, wide)[0, 1] > 0.99


@pytest.mark.parametrize('damage', [100.0, np.inf], ids=['moving', 'not soft'])
def test_voxels_that_motion_changes_or_that_are_bone_are_no_vessels(candidates, damage):
    curves, pattern = candidates(late=0)
    curves[[0, 1, 12, 13]] *= 1.6
    bad = np.zeros(len(curves))
    bad[[0, 1, 12, 13]] = damage
    arguments = (curves, curves, TIMES, pattern)
    aif = vessels.find_aif(*arguments, TISSUE, 1.5, aif_voxels=5, damage=bad)
    vof = vessels.find_vof(*arguments, aif, aif_voxels=5, damage=bad)
    assert set(aif.voxels) <= set(range(2, 12))
    assert set(vof.voxels) <= set(range(14, 24))


def test_small_damage_refuses_no_vessel(candidates):
    curves, pattern = candidates(late=0)
    damage = np.full(len(curves), 20.0)
    aif = vessels.find_aif(
        curves, curves, TIMES, pattern, TISSUE, 1.5, aif_voxels=5, damage=damage
    )
    assert set(aif.voxels) <= set(range(12))


def test_bone_that_stays_for_some_seconds_is_no_vessel(candidates):
    """It rises and falls like a bolus, but all at once; a few such voxels do not count."""
    curves, pattern = candidates(late=0)
    curves[40:46] += np.where((STEP > 9) & (STEP < 24), 800.0, 0)
    aif = find_aif(curves, pattern)
    vof = vessels.find_vof(curves, curves, TIMES, pattern, aif, aif_voxels=5)
    assert set(aif.voxels) <= set(range(12))
    assert set(vof.voxels) <= set(range(12, 24))


def test_error_tells_how_many_curves_failed_by_height_and_by_shape(candidates):
    curves, pattern = candidates(late=0, veins=0)
    damage = np.full(len(curves), np.inf)
    with pytest.raises(VesselError, match=r'12 voxels rise by .* 0 like a bolus'):
        vessels.find_aif(curves, curves, TIMES, pattern, TISSUE, 1.5, aif_voxels=5, damage=damage)
