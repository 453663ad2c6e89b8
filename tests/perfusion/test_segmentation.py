# SPDX-License-Identifier: Apache-2.0
"""Thresholds, opening and closing."""

from itertools import pairwise

import numpy as np
import pytest
from scipy import ndimage

from ctpprep.perfusion import segmentation

SIZE = (2.0, 2.0, 5.0)
SHAPE = (30, 30, 6)
ALL = np.ones(SHAPE, bool)
RADII = {'opening_mm': 2.5, 'closing_mm': 2.5}
NO_BORDER = segmentation.Border(~ALL, ~ALL)
KEEP = RADII | {'least_lesion_ml': 0.0, 'rim_deep_share': 0.1, 'slab_end_ml': 5.0}
CORE = KEEP | {'core_rcbf': 0.3, 'hypoperfusion': ~ALL, 'core_within_hypoperfusion': False}


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
    found = segmentation.segment_core(relative, ALL, SIZE, NO_BORDER, **CORE).mask
    assert found[9:19, 9:19, 1:5].all()
    assert not found[20:].any()


def test_hypoperfusion_is_tissue_strictly_above_the_threshold():
    tmax = np.full(SHAPE, 2.0)
    tmax[block()] = 6.01
    tmax[20:26, 8:20, 1:5] = 6.0
    found = segmentation.segment_hypoperfusion(
        tmax, ALL, SIZE, NO_BORDER, hypoperfusion_tmax=6.0, **KEEP
    ).mask
    assert found[9:19, 9:19, 1:5].all()
    assert not found[20:].any()


def test_the_zeros_outside_tissue_are_no_core():
    relative = np.where(block(), 1.0, 0.0)
    found = segmentation.segment_core(relative, block(), SIZE, NO_BORDER, **CORE).mask
    assert not found.any()


def test_nan_is_neither_core_nor_hypoperfusion():
    values = np.full(SHAPE, np.nan)
    assert not segmentation.segment_core(values, ALL, SIZE, NO_BORDER, **CORE).mask.any()
    assert not segmentation.segment_hypoperfusion(
        values, ALL, SIZE, NO_BORDER, hypoperfusion_tmax=6.0, **KEEP
    ).mask.any()


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
    border = segmentation.find_border(tissue, SIZE, 0.0)
    found = segmentation.segment_hypoperfusion(
        tmax, tissue, SIZE, border, hypoperfusion_tmax=6.0, **KEEP
    ).mask
    assert found[12:18, 12:18].sum() == 36 * 5 - 5
    assert not found[14, 14].any()
    assert not found[:4].any()


# -- specks and rims: a round brain of 60 mm with a ventricle, ten slices of 5 mm

X, Y = (2.0 * (axis - 19.5) for axis in np.indices((40, 40)))
DISC = np.hypot(X, Y) < 30
BRAIN = np.repeat((DISC & (np.hypot(X, Y) > 4))[..., None], 10, axis=2)
DEPTH = np.repeat((30 - np.hypot(X, Y))[..., None], 10, axis=2)
WEDGE = BRAIN & ((np.abs(Y) < 12) & (X < 0))[..., None]
BORDER = segmentation.find_border(BRAIN, SIZE, 5.0)
CLEAN = KEEP | {'least_lesion_ml': 1.0}


def slices(*which):
    return np.broadcast_to(np.isin(np.arange(10), which), BRAIN.shape)


def clean(candidate, hypoperfusion=None, **changed):
    return segmentation.segment(
        candidate, BRAIN, SIZE, BORDER, hypoperfusion=hypoperfusion, **(CLEAN | changed)
    )


def test_border_is_the_outer_surface_and_the_ends_of_the_slab():
    np.testing.assert_array_equal(BRAIN & BORDER.ends, BRAIN & slices(0, 9))
    assert BORDER.surface[BRAIN & (DEPTH < 3)].all()
    assert not BORDER.surface[DEPTH > 7].any()


def test_bone_below_is_surface_and_a_ventricle_is_not():
    cut = BRAIN.copy()
    cut[:12, :, :5] = False
    border = segmentation.find_border(cut, SIZE, 5.0)
    assert border.surface[5:12, 18:22, 5].all()
    assert not border.surface[8:12, 18:22, 6:9].any()
    assert not BORDER.surface[15:25, 15:25].any()


@pytest.mark.parametrize('count', [1, 2, 4])
def test_a_thin_slab_has_no_ends(count):
    assert not segmentation.find_border(BRAIN[..., :count], SIZE, 5.0).ends.any()


def test_slices_of_twice_the_rim_are_no_rim():
    border = segmentation.find_border(BRAIN, (2.0, 2.0, 10.0), 5.0)
    assert not border.ends.any()


def test_no_rim_no_border():
    border = segmentation.find_border(BRAIN, SIZE, 0.0)
    assert not (border.surface | border.ends).any()


def test_a_speck_is_removed_and_told():
    lesion, speck = WEDGE & slices(3, 4, 5) & (DEPTH > 5), np.zeros(BRAIN.shape, bool)
    speck[25:31, 18:23, 4] = True  # 0.6 mL
    found = clean(lesion | speck, opening_mm=0.0)
    np.testing.assert_array_equal(found.specks, speck)
    assert found.mask.any()
    assert not (found.mask & speck).any()
    assert clean(lesion | speck, opening_mm=0.0, least_lesion_ml=0.0).mask[speck].all()


def test_pieces_that_share_a_corner_are_one_lesion():
    mask = np.zeros(BRAIN.shape, bool)
    mask[24:29, 12:17, 4] = mask[29:34, 17:22, 5] = True  # 0.5 mL each
    found = clean(mask, opening_mm=0.0, closing_mm=0.0)
    assert found.mask.sum() == mask.sum()


@pytest.mark.parametrize('opening', [0.0, 2.5])
@pytest.mark.parametrize('voxels', [1, 2])
def test_a_rim_along_the_surface_is_removed_and_told(voxels, opening):
    rim = BRAIN & (2 * voxels > DEPTH)
    found = clean(rim, opening_mm=opening)
    assert not found.mask.any()
    assert opening > 0 or (found.rims | found.specks)[rim].all()


def test_an_infarct_of_the_cortex_is_no_rim():
    infarct = WEDGE & (DEPTH < 12) & slices(3, 4, 5)
    assert clean(infarct).mask[infarct].mean() > 0.9


def test_a_ribbon_of_cortex_within_hypoperfusion_is_no_rim():
    ribbon = WEDGE & (DEPTH < 4) & slices(2, 3, 4, 5, 6)
    slow = WEDGE & (DEPTH < 25) & slices(1, 2, 3, 4, 5, 6, 7)
    assert not clean(ribbon, opening_mm=0.0).mask.any()
    assert clean(ribbon, slow, opening_mm=0.0).mask.any()


def test_what_lies_in_an_end_slice_alone_is_a_rim():
    alone = WEDGE & slices(0)
    found = clean(alone)
    assert found.rims.any()
    assert not found.mask.any()


def test_a_lesion_that_the_slab_cuts_is_kept():
    cut = WEDGE & slices(0, 1)
    np.testing.assert_array_equal(clean(cut, opening_mm=0.0).mask, cut & BRAIN)


def test_a_large_lesion_of_the_end_slice_is_kept():
    large = BRAIN & slices(9)
    assert clean(large).mask.any()
    assert clean(large, slab_end_ml=100.0).rims.any()


def test_a_lesion_only_grows_with_its_threshold():
    flow = ndimage.gaussian_filter(np.random.default_rng(3).normal(size=BRAIN.shape), (3, 3, 1.5))
    levels = np.quantile(flow[BRAIN], np.linspace(0.02, 0.5, 12))
    found = [clean(flow < level).mask for level in levels]
    assert 0 < found[0].sum() < found[-1].sum()
    assert all(not (small & ~large).any() for small, large in pairwise(found))


def test_a_crop_gives_the_same_lesion():
    candidate = WEDGE & (DEPTH < 12) & slices(3, 4, 5)
    box = (slice(2, 25), slice(8, 34), slice(0, 9))
    border = segmentation.Border(BORDER.surface[box], BORDER.ends[box])
    cropped = segmentation.segment(candidate[box], BRAIN[box], SIZE, border, **CLEAN)
    np.testing.assert_array_equal(cropped.mask, clean(candidate).mask[box])


@pytest.mark.parametrize('restricted', [False, True])
def test_core_ends_where_hypoperfusion_ends_if_asked_for(restricted):
    core, slow = WEDGE & (DEPTH < 20) & slices(3, 4, 5), WEDGE & slices(4, 5, 6)
    settings = {'core_rcbf': 0.3, 'core_within_hypoperfusion': restricted, 'hypoperfusion': slow}
    found = segmentation.segment_core(
        np.where(core, 0.1, 1.0), BRAIN, SIZE, BORDER, **CLEAN, **settings
    )
    assert found.unrestricted[core & ~slow].any()
    assert found.mask[core & ~slow].any() == (not restricted)
    assert found.mask[core & slow].any()


# -- old infarcts


def dense(reference, tissue=BRAIN, **homologue):
    return segmentation.find_hypodense(
        reference, tissue, SIZE, **homologue, hypodense_hu=8.0, hypodense_sigma_mm=2.0
    )


@pytest.mark.parametrize(('drop', 'flagged'), [(5.0, 0.0), (14.0, 1.0)])
def test_an_old_infarct_is_hypodense_and_a_fresh_one_is_not(drop, flagged):
    noise = np.random.default_rng(0).normal(0, 2, BRAIN.shape)
    reference = np.where(WEDGE & (DEPTH < 15), 31.0 - drop, 31.0) + noise
    share = BRAIN.astype(float)
    found = dense(reference, homologue_reference=31.0 * share, homologue_tissue=share)
    assert found[WEDGE & (DEPTH > 3) & (DEPTH < 11)].mean() == pytest.approx(flagged, abs=0.02)
    assert not found[~WEDGE].any()


def test_white_matter_that_is_light_on_both_sides_is_not_hypodense():
    light = np.full(BRAIN.shape, 20.0)
    share = BRAIN.astype(float)
    assert not dense(light, homologue_reference=light, homologue_tissue=share).any()
    assert not dense(light + 3).any()


def test_csf_beside_tissue_does_not_make_it_hypodense():
    reference = np.where(BRAIN, 31.0, 4.0)
    assert not dense(reference).any()


def test_without_a_homologue_the_density_of_tissue_stands_in():
    reference = np.where(WEDGE, 15.0, 31.0)
    nowhere = np.zeros(BRAIN.shape)
    np.testing.assert_array_equal(
        dense(reference, homologue_reference=nowhere, homologue_tissue=nowhere), dense(reference)
    )
    assert dense(reference)[WEDGE & (DEPTH < 20)].any()
