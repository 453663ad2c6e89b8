# SPDX-License-Identifier: Apache-2.0
"""Supplied masks on our grid, and supplied arterial curves against the bolus of the series."""

import numpy as np
import pytest

from ctpprep.exceptions import PerfusionError, VesselError
from ctpprep.perfusion import overrides
from ctpprep.settings import MethodSettings

COARSE = np.diag([2.0, 2.0, 5.0, 1.0])
FINE = np.diag([0.5, 0.5, 5.0, 1.0])
FINE[:2, 3] = -0.75  # four fine voxels fill a coarse one
TIMES = np.arange(31) * 1.5
SCAN = (0.0, 45.0)


def bolus(arrival=8.0, height=250.0, times=TIMES):
    s = np.clip((times - arrival) / 5, 0, None)
    return height * (s * np.exp(1 - s)) ** 2


def check(times=TIMES, aif=None, arrival=8.0):
    aif = bolus(times=times) if aif is None else aif
    overrides.check_aif(times, aif, arrival, SCAN, 1.5, 'a.tsv')


# -- masks


def test_a_mask_of_the_same_grid_stays_as_it_is():
    mask = np.random.default_rng(0).random((5, 6, 4)) > 0.5
    for resample in (overrides.mask_on_grid, overrides.voxels_on_grid):
        np.testing.assert_array_equal(resample(mask, COARSE, mask.shape, COARSE), mask)


@pytest.mark.parametrize('resample', [overrides.mask_on_grid, overrides.voxels_on_grid])
def test_a_mask_is_placed_by_its_affine_whatever_its_voxel_order(resample):
    mask = np.random.default_rng(0).random((5, 6, 4)) > 0.5
    flip = COARSE @ np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = 8.0
    np.testing.assert_array_equal(resample(mask[::-1], flip, mask.shape, COARSE), mask)


def test_a_raw_mask_of_whole_blocks_is_that_of_the_working_grid():
    mask = np.random.default_rng(0).random((5, 6, 4)) > 0.5
    fine = mask.repeat(4, axis=0).repeat(4, axis=1)
    found = overrides.mask_on_grid(fine, FINE, mask.shape, COARSE)
    np.testing.assert_array_equal(found, mask)


def test_a_single_fine_voxel_off_the_centre_is_not_lost():
    fine = np.zeros((20, 24, 4), bool)
    fine[4, 11, 2] = True
    found = overrides.voxels_on_grid(fine, FINE, (5, 6, 4), COARSE)
    assert np.argwhere(found).tolist() == [[1, 2, 2]]
    assert not overrides.mask_on_grid(fine, FINE, (5, 6, 4), COARSE).any()


def test_voxels_beyond_the_grid_are_left_out():
    away = COARSE.copy()
    away[0, 3] = 500
    for resample in (overrides.mask_on_grid, overrides.voxels_on_grid):
        assert not resample(np.ones((5, 6, 4), bool), away, (5, 6, 4), COARSE).any()


def test_an_empty_mask_is_refused():
    empty = np.zeros((5, 6, 4), bool)
    with pytest.raises(PerfusionError, match=r'm.nii: the mask is empty, need voxels above 0'):
        overrides.check_mask(empty, empty, np.zeros((5, 6, 4)), 'm.nii')


@pytest.mark.parametrize(('head', 'fine'), [(0, False), (2, False), (3, True)])
def test_a_mask_must_lie_on_the_head(head, fine):
    density = np.full((5, 6, 4), -1000.0)
    density[:head] = 30
    mask = np.ones((5, 6, 4), bool)
    if fine:
        overrides.check_mask(mask, mask, density, 'm.nii')
        return
    with pytest.raises(
        PerfusionError,
        match=rf'm.nii: {20 * head}% of its voxels are on the head .*need at least 50%',
    ):
        overrides.check_mask(mask, mask, density, 'm.nii')


# -- curves


def test_an_aif_of_the_series_passes():
    check()
    check(np.arange(-5, 60, 0.5))


def test_an_aif_may_begin_a_frame_after_the_arrival_and_end_two_frames_early():
    check(TIMES[6:-2])


@pytest.mark.parametrize(
    ('changed', 'sentence'),
    [
        ({'times': TIMES[:20]}, r'a.tsv: time runs from 0 to 28.5 s, need the scan \(0 to 45 s\)'),
        (
            {'times': TIMES[8:]},
            'time runs from 12 to 45 s, need the scan .* arrival of contrast at 8.0 s on',
        ),
        (
            {'times': TIMES * 1000, 'aif': bolus()},
            r'aif rises at \d+.0 s, .* need a difference of at most 8 s',
        ),
        ({'aif': np.zeros(31)}, r'aif has its maximum \(0 HU\)'),
        ({'aif': TIMES * 5}, 'in row 31 of 31, need a curve above 0 that rises and falls again'),
        (
            {'aif': bolus() + 100},
            r'aif is 100 HU before contrast arrives and 3\d\d HU at its peak, need',
        ),
        (
            {'aif': bolus(20.0)},
            r'aif rises at 2\d.\d s, the arteries of the series at 8.0 s, need',
        ),
    ],
)
def test_an_aif_that_does_not_fit_the_bolus_is_refused(changed, sentence):
    with pytest.raises(VesselError, match=sentence):
        check(**changed)


def test_voxels_that_do_not_enhance_are_no_aif():
    overrides.check_rise(bolus(), 4.0, 10.0, 3, 'a.nii')
    with pytest.raises(
        VesselError, match=r'a.nii: .* 3 voxels rises by 10 HU, need at least 24 HU'
    ):
        overrides.check_rise(bolus(height=10.0), 4.0, 8.0, 3, 'a.nii')
    with pytest.raises(VesselError, match='at least 30 HU'):
        overrides.check_rise(bolus(height=20.0), 1.0, 15.0, 3, 'a.nii')


def test_a_curve_is_cut_to_the_scan_without_changing_its_values():
    times, curve = overrides.crop_to_scan(
        np.arange(-5, 60, 0.5), bolus(times=np.arange(-5, 60, 0.5)), SCAN
    )
    assert (times[0], times[-1]) == SCAN
    np.testing.assert_allclose(curve, bolus(times=times), atol=1e-9)


# -- another head


def a_skull(width, height=78.0):
    """An elliptic head with a denser back of the skull, HU."""
    x, y = np.meshgrid(np.arange(-48, 48) * 2.0, np.arange(-48, 48) * 2.0, indexing='ij')
    radius = np.hypot(x / width, y / height)
    bone = np.where(y < -30, 1200.0, 700.0)
    head = np.select([radius < 0.88, radius < 1, radius < 1.08], [34.0, bone, 40.0], -1000.0)
    return np.repeat(head[..., None], 6, axis=2).astype(np.float32)


HEAD_AFFINE = np.diag([2.0, 2.0, 5.0, 1.0])


def compare(corrected, raw, raw_affine=HEAD_AFFINE):
    overrides.check_same_head(
        corrected, HEAD_AFFINE, raw[..., None], raw_affine, MethodSettings(), 'c.nii'
    )


def test_corrected_series_of_the_same_head_is_accepted():
    moved = HEAD_AFFINE.copy()
    moved[:2, 3] = 4.0, 6.0
    compare(a_skull(66.0), a_skull(66.0))
    compare(a_skull(66.0), a_skull(66.0), moved)


def test_corrected_series_of_another_head_is_refused():
    with pytest.raises(PerfusionError, match=r'c\.nii: its skull .* same participant'):
        compare(a_skull(66.0), a_skull(56.0, 86.0))


def test_head_without_skull_is_not_compared():
    compare(np.minimum(a_skull(66.0), 60), a_skull(56.0))
