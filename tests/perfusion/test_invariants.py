# SPDX-License-Identifier: Apache-2.0
"""Invariants of a result: right where it is right, and off where one part was changed."""

import numpy as np
import pytest
from scipy import ndimage

from ctpprep.perfusion import invariants
from ctpprep.perfusion.estimation import TissueCurves
from ctpprep.settings import MethodSettings

SHAPE = (40, 40, 6)
AFFINE = np.diag([4.0, 4, 8, 1])
TISSUE = np.ones(SHAPE, bool)
SIDES = np.where(np.indices(SHAPE)[0] < 20, 1, 2)
TIMES = np.arange(0, 60, 1.5)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture
def cbf(rng):
    """Patches of grey and white matter."""
    grey = ndimage.gaussian_filter(rng.standard_normal(SHAPE), (1, 1, 0)) > 0
    return np.where(grey, 70.0, 28.0)


@pytest.fixture
def homologues():
    """Those of a head that is symmetric about the middle of its grid."""
    return np.moveaxis(np.indices(SHAPE), 0, -1) * [-4.0, 4, 8] + [4.0 * 39, 0, 0]


def bolus(onset=8.0, to_peak=5.0, peak=200.0):
    s = np.clip((TIMES - onset) / to_peak, 0, None)
    return peak * (s * np.exp(1 - s)) ** 3


def test_scale_of_one_side_breaks_the_central_volume_theorem(cbf):
    cbv = cbf * 4 / 60
    mtt = np.full(SHAPE, 4.0)
    assert invariants.flow_volume_time(cbf, cbv, mtt, TISSUE, SIDES) == pytest.approx(0)
    scaled = np.where(SIDES == 1, 0.6, 1) * cbf
    assert invariants.flow_volume_time(scaled, cbv, mtt, TISSUE, SIDES) == pytest.approx(0.4)


def test_missing_values_are_those_of_any_map(cbf):
    broken = cbf.copy()
    broken[:4] = np.nan
    assert invariants.missing_values([cbf, broken], TISSUE) == pytest.approx(0.1)


@pytest.mark.parametrize('factor', [1.0, 100.0, 1 / 1.5])
def test_median_of_the_reference_is_one_by_definition(cbf, factor):
    settings = MethodSettings()
    relative = factor * cbf / np.median(cbf)
    median = invariants.reference_median(relative, np.ones(SHAPE), TISSUE, SIDES, 'left', settings)
    assert median == pytest.approx(factor)


def test_global_map_in_percent_does_not_belong_to_its_flow(cbf):
    assert invariants.relative_to_flow(cbf / 50, cbf, 50.0, TISSUE) == pytest.approx(0)
    assert invariants.relative_to_flow(2 * cbf, cbf, 50.0, TISSUE) > 10


def test_root_halves_the_spread_and_a_constant_has_none(cbf, rng):
    noisy = cbf * np.exp(0.05 * rng.standard_normal(SHAPE))
    whole = invariants.spread(noisy / np.median(noisy), TISSUE)
    root = np.sqrt(noisy)
    assert invariants.spread(root / np.median(root), TISSUE) < 0.65 * whole
    assert invariants.spread(np.ones(SHAPE), TISSUE) == 0


def test_smoothing_removes_fine_structure(cbf):
    smooth = ndimage.gaussian_filter(cbf, (5, 5, 0))
    assert invariants.structure(cbf, TISSUE, (4, 4, 8)) > 0.2
    assert invariants.structure(smooth, TISSUE, (4, 4, 8)) < 0.05


def test_flow_is_compared_where_both_sides_have_normal_tissue(cbf):
    tmax = np.ones(SHAPE)
    assert invariants.flow_asymmetry(cbf, tmax, TISSUE, SIDES, 4.0) < 0.05
    late = np.where(SIDES == 1, 8.0, 1.0)
    assert invariants.flow_asymmetry(cbf, late, TISSUE, SIDES, 4.0) is None


def test_late_slices_make_a_step():
    tmax = np.ones(SHAPE)
    tmax[..., 4:] += 4
    assert invariants.slice_step(tmax, TISSUE, SIDES, 'left') == 4
    tmax[SIDES == 2] = 1  # steps of the affected side are disease
    assert invariants.slice_step(tmax, TISSUE, SIDES, 'left') == 0


def test_an_end_slice_with_hardly_any_tissue_makes_no_step():
    tmax, tissue = np.ones(SHAPE), TISSUE.copy()
    tmax[..., -1] = 9
    assert invariants.slice_step(tmax, tissue, SIDES, 'left') == 8
    tissue[:, 3:, -1] = False
    assert invariants.slice_step(tmax, tissue, SIDES, 'left') == 0


def skull():
    x, y = np.meshgrid(np.arange(-45, 46) * 2.0, np.arange(-45, 46) * 2.0, indexing='ij')
    radius = np.hypot(x, y)
    head = np.select([(radius > 66) & (radius < 76), radius < 84], [900.0, 34.0], -1000.0)
    return np.repeat(head[..., None], 4, axis=2), np.repeat((radius < 64)[..., None], 4, axis=2), y


@pytest.mark.parametrize('lost', ['nothing', 'rim', 'back'])
def test_brain_fills_every_sector_of_the_skull(lost):
    head, brain, y = skull()
    if lost == 'rim':
        brain = ndimage.binary_erosion(brain, iterations=8)
    if lost == 'back':
        brain &= (y > -25)[..., None]
    filled = invariants.sector_filled(head, brain, (2.0, 2.0, 5.0), 200.0)
    assert (filled > 0.8) == (lost == 'nothing')


def test_swapped_labels_are_on_the_wrong_side():
    assert invariants.side_of_patient(SIDES, AFFINE) == 1
    assert invariants.side_of_patient(3 - SIDES, AFFINE) == 0


def test_homologue_of_a_homologue_is_the_voxel(homologues):
    assert invariants.homologues_return(homologues, AFFINE, TISSUE) == pytest.approx(0)
    shifted = homologues + [0, 12.0, 0]
    assert invariants.homologues_return(shifted, AFFINE, TISSUE) == pytest.approx(24)


def test_homologues_are_on_the_other_side(homologues):
    assert invariants.homologues_crossing(homologues, SIDES, AFFINE, TISSUE) == 1
    same = homologues * [-1, 1, 1] + [4.0 * 39, 0, 0]
    assert invariants.homologues_crossing(same, SIDES, AFFINE, TISSUE) == 0


def test_local_map_is_global_over_homologue(homologues, cbf):
    relative = (cbf / 50).astype(np.float32)
    local = np.ones(SHAPE, np.float32)
    none = np.zeros(SHAPE, bool)
    settings = MethodSettings()
    even = np.ones(SHAPE, np.float32)
    exact = invariants.relative_to_homologue(
        local, even, homologues, TISSUE, none, AFFINE, settings
    )
    assert exact == pytest.approx(0, abs=1e-5)
    off = invariants.relative_to_homologue(
        local, relative, homologues, TISSUE, none, AFFINE, settings
    )
    assert off > 0.15


def test_lesion_outside_of_its_side_is_measured():
    lesion = np.zeros(SHAPE, bool)
    lesion[19:21] = True
    outside = invariants.outside_ml([lesion], TISSUE, SIDES, 'left', (4, 4, 8))
    assert outside == pytest.approx(40 * 6 * 0.128)
    assert invariants.outside_ml([lesion], TISSUE, SIDES, 'both', (4, 4, 8)) == 0


def test_exchanged_lesions_do_not_agree_with_their_maps():
    first, second = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    first[:10], second[5:15] = True, True
    maps = {'core_global': first, 'core_local': second}
    assert invariants.agreement(maps, maps, (4, 4, 8)) == 1
    exchanged = {'core_global': second, 'core_local': first}
    assert invariants.agreement(exchanged, maps, (4, 4, 8)) == pytest.approx(0.5)
    assert invariants.agreement({'core_global': first}, maps, (4, 4, 8)) == 0


@pytest.mark.parametrize('start', [6, 8, 10, 12])
def test_reversed_frames_are_rougher_than_the_right_order(start):
    curves = np.stack([bolus(), bolus(9.5, 6.0, 8.0), bolus(12.0, 6.0)])
    assert invariants.frame_order(TIMES, curves) > 0.9
    curves[:, start : start + 4] = curves[:, start : start + 4][:, ::-1]
    assert invariants.frame_order(TIMES, curves) < 0.7


def test_rejected_frames_have_no_order():
    curves, weights = np.stack([bolus(), bolus(12.0)]), np.ones(TIMES.size)
    curves[:, 8], weights[8] = 0, 0
    assert invariants.frame_order(TIMES, curves, weights) > 0.9


@pytest.mark.parametrize(('width', 'explained'), [(1, True), (2, False)])
def test_tissue_cannot_be_narrower_than_its_artery(width, explained):
    aif = bolus(8.0, 4.0 * width)
    tissue = np.convolve(bolus(8.0, 4.0), np.exp(-np.arange(20) * 1.5 / 4))[: TIMES.size]
    assert (invariants.tissue_unexplained(TIMES, aif, TIMES, tissue) < 0.004) == explained


def test_tissue_before_its_artery_is_not_explained():
    assert invariants.tissue_unexplained(TIMES, bolus(12.0), TIMES, bolus(8.0)) > 0.05


def test_tissue_mask_is_most_of_the_brain():
    assert invariants.tissue_of_brain(TISSUE, TISSUE) == 1
    assert invariants.tissue_of_brain(TISSUE & (SIDES == 1), TISSUE) == 0.5


@pytest.mark.parametrize(('factor', 'ratio'), [(1, 1.2), (2, 0.6), (0.5, 2.4), (0.001, 1200)])
def test_late_tissue_peaks_as_late_as_its_tmax(factor, ratio):
    tmax = np.where(SIDES == 1, 9.0, 1.0)
    ttp = 15 + 1.2 * tmax
    found = invariants.peak_per_delay(ttp, factor * tmax, TISSUE, SIDES, 'left', 6.0)
    assert found == pytest.approx(ratio)


def test_tissue_peaks_after_its_delayed_artery():
    tmax = np.ones(SHAPE)
    after = invariants.peak_after_delay(
        TIMES + 100, bolus(), 17 * tmax, tmax, TISSUE, SIDES, 'left'
    )
    assert after == pytest.approx(3, abs=0.6)  # the artery peaks at 13 s


def test_mirrored_map_has_values_outside_of_tissue(cbf):
    tissue = TISSUE.copy()
    tissue[:3, :9] = False
    maps = np.where(tissue, cbf, 0)
    assert invariants.values_outside([maps], tissue) == 0
    assert invariants.values_outside([maps, maps[::-1]], tissue) > 0.01


def curves_of(shift_s):
    """Tissue with one component; the upper half of the slices is another sampling pattern."""
    late = bolus(8.0 + shift_s, 6.0, 8.0)
    pattern = np.arange(SHAPE[2]) // 3
    return TissueCurves(
        np.zeros((TISSUE.sum(), 1), np.float32), np.stack([bolus(8.0, 6.0, 8.0), late]),
        np.ones((2, TIMES.size, 1)), np.stack([TIMES, TIMES]), pattern, 1.0,
    )  # fmt: skip


def test_mean_curves_are_those_of_their_pattern():
    (first, times, curve), (second, _, late) = invariants.mean_curves(
        curves_of(4.0), TISSUE, SIDES == 1
    )
    assert first == second == 20 * 40 * 3
    assert times[np.argmax(late)] - times[np.argmax(curve)] == pytest.approx(4, abs=1)


@pytest.mark.parametrize('shift', [0.0, 4.0, -4.0])
def test_late_and_early_slices_make_a_step_of_arrival(shift):
    curves = invariants.mean_curves(curves_of(shift), TISSUE, SIDES == 1, by_slice=True)
    assert invariants.arrival_step(curves) == pytest.approx(abs(shift), abs=0.4)


def test_shifted_tissue_is_outside_of_the_brain():
    brain = TISSUE.copy()
    brain[:4] = False
    assert invariants.tissue_outside(brain, brain) == 0
    assert invariants.tissue_outside(np.roll(brain, 3, axis=0), brain) == pytest.approx(3 / 36)
