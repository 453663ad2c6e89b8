# SPDX-License-Identifier: Apache-2.0
"""Thresholds, opening and closing."""

import numpy as np
import pytest
from scipy import ndimage

from ctpprep.perfusion import segmentation

SIZE = (2.0, 2.0, 5.0)
SHAPE = (30, 30, 6)
ALL = np.ones(SHAPE, bool)
RADII = {'opening_mm': 2.5, 'closing_mm': 2.5}


def block():
    mask = np.zeros(SHAPE, bool)
    mask[8:20, 8:20, 1:5] = True
    return mask


def test_ball_holds_the_voxels_within_its_radius():
    ball = segmentation.ellipsoid(6.0, SIZE)
    by_hand = {
        (x, y, z)
        for x in range(-5, 6) for y in range(-5, 6) for z in range(-5, 6)
        if (2 * x) ** 2 + (2 * y) ** 2 + (5 * z) ** 2 <= 36
    }  # fmt: skip
    centre = np.array(ball.shape) // 2
    assert {tuple(int(i) for i in voxel - centre) for voxel in np.argwhere(ball)} == by_hand


def test_ball_is_connected_and_symmetric():
    ball = segmentation.ellipsoid(7.0, SIZE)
    assert ndimage.label(ball)[1] == 1
    np.testing.assert_array_equal(ball, ball[::-1, ::-1, ::-1])


def test_ball_has_the_volume_of_a_ball():
    assert segmentation.ellipsoid(10.0, (0.5, 0.5, 0.5)).sum() / 8 == pytest.approx(
        4 / 3 * np.pi * 1000, rel=0.01
    )


@pytest.mark.parametrize('radius', [0.0, 1.9])
def test_a_radius_below_the_voxel_size_changes_nothing(radius):
    mask = np.random.default_rng(0).random(SHAPE) > 0.5
    found = segmentation.open_close(mask, ALL, SIZE, opening_mm=radius, closing_mm=radius)
    np.testing.assert_array_equal(found, mask)


def test_opening_removes_a_speck_and_keeps_the_lesion():
    mask = block()
    mask[25, 25, 2:4] = True
    found = segmentation.open_close(mask, ALL, SIZE, **RADII)
    assert not found[24:27, 24:27].any()
    assert found[9:19, 9:19, 1:5].all()


def test_closing_fills_a_hole():
    mask = block()
    mask[14, 14] = False
    found = segmentation.open_close(mask, ALL, SIZE, opening_mm=0.0, closing_mm=2.5)
    np.testing.assert_array_equal(found, block())


def test_opening_and_closing_a_second_time_changes_nothing():
    mask = ndimage.gaussian_filter(np.random.default_rng(2).normal(size=SHAPE), (2, 2, 1)) > 0.02
    once = segmentation.open_close(mask, ALL, SIZE, **RADII)
    np.testing.assert_array_equal(segmentation.open_close(once, ALL, SIZE, **RADII), once)
    assert 0 < once.sum() != mask.sum()


def test_closing_never_leaves_the_side():
    within = ALL.copy()
    within[14] = False
    within[:8] = False
    found = segmentation.open_close(block() & within, within, SIZE, opening_mm=0.0, closing_mm=6.0)
    assert not found[~within].any()
    assert found[13, 10, 2]


def test_closing_does_not_join_opposite_edges():
    mask = np.zeros(SHAPE, bool)
    mask[1:4] = mask[27:] = True
    found = segmentation.open_close(mask, ALL, SIZE, opening_mm=0.0, closing_mm=2.5)
    np.testing.assert_array_equal(found, mask)


def test_a_lesion_at_the_end_of_the_slab_is_kept_whole():
    mask = np.zeros(SHAPE, bool)
    mask[5:25, 5:25, :2] = mask[5:25, 5:25, 4:] = True
    found = segmentation.open_close(mask, ALL, SIZE, **RADII)
    np.testing.assert_array_equal(found[..., [0, 5]].sum(axis=(0, 1)), [400 - 4, 400 - 4])


def test_closing_agrees_with_distances():
    # a voxel is closed unless a ball that misses the mask covers it
    mask = np.zeros((20, 20, 7), bool)
    mask[5:9, 5:15, 2:5] = mask[11:15, 5:15, 2:5] = True
    found = segmentation.open_close(
        mask, np.ones(mask.shape, bool), SIZE, opening_mm=0.0, closing_mm=5.0
    )
    grown = ndimage.distance_transform_edt(~mask, SIZE) <= 5.0
    by_hand = ndimage.distance_transform_edt(grown, SIZE) > 5.0
    np.testing.assert_array_equal(found, by_hand)


def test_core_is_tissue_strictly_below_the_threshold():
    relative = np.ones(SHAPE)
    relative[block()] = 0.299
    relative[20:26, 8:20, 1:5] = 0.3
    found = segmentation.segment_core(relative, ALL, SIZE, core_rcbf=0.3, **RADII)
    assert found[9:19, 9:19, 1:5].all()
    assert not found[20:].any()


def test_hypoperfusion_is_tissue_strictly_above_the_threshold():
    tmax = np.full(SHAPE, 2.0)
    tmax[block()] = 6.01
    tmax[20:26, 8:20, 1:5] = 6.0
    found = segmentation.segment_hypoperfusion(tmax, ALL, SIZE, hypoperfusion_tmax=6.0, **RADII)
    assert found[9:19, 9:19, 1:5].all()
    assert not found[20:].any()


def test_the_zeros_outside_tissue_are_no_core():
    relative = np.where(block(), 1.0, 0.0)
    found = segmentation.segment_core(relative, block(), SIZE, core_rcbf=0.3, **RADII)
    assert not found.any()


def test_nan_is_neither_core_nor_hypoperfusion():
    values = np.full(SHAPE, np.nan)
    assert not segmentation.segment_core(values, ALL, SIZE, core_rcbf=0.3, **RADII).any()
    assert not segmentation.segment_hypoperfusion(
        values, ALL, SIZE, hypoperfusion_tmax=6.0, **RADII
    ).any()


def test_an_empty_mask_stays_empty():
    assert not segmentation.open_close(np.zeros(SHAPE, bool), ALL, SIZE, **RADII).any()


@pytest.mark.parametrize(('side', 'labels'), [('left', {1}), ('right', {2}), ('both', {1, 2})])
def test_tissue_is_restricted_to_the_side(side, labels):
    rng = np.random.default_rng(0)
    hemisphere, tissue = rng.integers(0, 3, SHAPE), rng.random(SHAPE) > 0.5
    found = segmentation.within_side(tissue, hemisphere, side)
    np.testing.assert_array_equal(found, tissue & np.isin(hemisphere, list(labels)))


def test_core_and_mismatch_share_no_voxel_and_hold_all_hypoperfusion():
    rng = np.random.default_rng(0)
    slow, core = rng.random(SHAPE) > 0.4, rng.random(SHAPE) > 0.7
    found = segmentation.segment_mismatch(slow, core)
    assert not (found & core).any()
    np.testing.assert_array_equal(found | (slow & core), slow)


def test_tissue_without_a_bolus_inside_hypoperfusion_belongs_to_it():
    """In the middle of a core Tmax is noise."""
    tmax = np.zeros((30, 30, 5))
    tmax[5:25, 5:25] = 8.0
    tmax[12:18, 12:18] = 0.0
    tissue = np.ones(tmax.shape, bool)
    tissue[14, 14] = False
    found = segmentation.segment_hypoperfusion(
        tmax, tissue, (2.0, 2.0, 5.0), hypoperfusion_tmax=6.0, opening_mm=2.5, closing_mm=2.5
    )
    assert found[12:18, 12:18].sum() == 36 * 5 - 5
    assert not found[14, 14].any()
    assert not found[:4].any()
