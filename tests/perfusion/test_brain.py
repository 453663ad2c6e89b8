# SPDX-License-Identifier: Apache-2.0
"""Masks on an open slab."""

import numpy as np
import pytest

from ctpprep.exceptions import PerfusionError
from ctpprep.perfusion import brain


def dice(first, second):
    return 2 * (first & second).sum() / (first.sum() + second.sum())


def ring(gap_mm=0.0):
    """Head of 2 mm voxels: scalp, a ring of bone with a gap, brain inside; open above and below."""
    x, y = np.meshgrid(np.arange(-45, 46) * 2.0, np.arange(-45, 46) * 2.0, indexing='ij')
    r = np.hypot(x, y)
    plane = np.full(r.shape, -1000.0)
    plane[r < 84] = 40
    plane[(r < 76) & (r > 66) & ~((np.abs(x) < gap_mm / 2) & (y > 0))] = 900
    inside = np.repeat((r < 62)[..., None], 6, axis=2)
    outside = np.repeat((r > 78)[..., None], 6, axis=2)
    return np.repeat(plane[..., None], 6, axis=2), inside, outside


@pytest.mark.parametrize('gap_mm', [0.0, 6.0])
def test_brain_ends_at_the_bone_even_where_it_is_open(gap_mm):
    volume, inside, outside = ring(gap_mm)
    found = brain.inside_skull(volume, (2.0, 2.0, 5.0), 130.0)
    assert found[inside].all()
    assert not found[outside].any()


def test_an_orbit_is_not_part_of_the_brain():
    volume, inside, _ = ring()
    x, y = np.meshgrid(np.arange(-45, 46) * 2.0, np.arange(-45, 46) * 2.0, indexing='ij')
    volume[np.hypot(x, y - 72) < 18] = 900
    orbit = np.hypot(x, y - 72) < 12
    volume[orbit] = 40
    found = brain.inside_skull(volume, (2.0, 2.0, 5.0), 130.0)
    assert not found[orbit].any()
    assert found[inside & (volume == 40)].mean() > 0.99


def test_brain_has_its_sulci_but_not_the_rim_of_csf():
    volume, _, _ = ring()
    x, y = np.meshgrid(np.arange(-45, 46) * 2.0, np.arange(-45, 46) * 2.0, indexing='ij')
    r = np.hypot(x, y)
    sulcus = (np.abs(x) < 2.5) & (y > 30) & (r < 50)
    volume[((r > 54) & (r <= 66)) | ((np.abs(x) < 2.5) & (y > 30) & (r <= 66))] = 5
    found, inside = brain.brain_masks(
        volume, volume, (2.0, 2.0, 5.0), bone_hu=130.0, csf_level=0.4
    )
    assert found[sulcus].all()
    assert not found[(r > 58) & (r < 62)].any()
    assert inside[(r > 58) & (r < 62)].all()


def test_an_image_that_is_almost_all_bone_is_refused():
    volume, inside, _ = ring()
    volume[inside] = 900
    with pytest.raises(PerfusionError, match=r'need at least 15%; .*--brain-mask'):
        brain.inside_skull(volume, (2.0, 2.0, 5.0), 130.0)


@pytest.mark.parametrize('background', [-1024.0, 0.0])
@pytest.mark.parametrize('density', [23.0, 33.0])
@pytest.mark.parametrize('cropped', [False, True])
def test_brain_without_skull_is_found_on_any_background(background, density, cropped):
    x, y = np.ogrid[-40:41, -40:41]
    disc = np.repeat((np.hypot(x, y) < 30)[..., None], 4, axis=2)
    image = np.where(disc, density, background)
    image += np.random.default_rng(0).normal(0, 2, image.shape) * disc
    part = (slice(15, -15),) * 2 if cropped else slice(None)
    found = brain.inside_skull(image[part], (2.0, 2.0, 5.0), 130.0)
    assert dice(found, disc[part]) > 0.95


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        (lambda hu: hu + 1024, 'need at most 5%; check the rescale intercept'),
        (np.zeros_like, 'every voxel is 0 HU'),
    ],
)
def test_densities_that_are_no_hu_are_named(change, said):
    image, _, _ = ring()
    brain.check_density(image)
    with pytest.raises(PerfusionError, match=said):
        brain.check_density(change(image))


def test_largest_keeps_one_component():
    mask = np.zeros((9, 9, 1), bool)
    mask[:2, :2] = mask[5:, 5:] = True
    found = brain.largest(mask)
    assert found[5:, 5:].all()
    assert not found[:2, :2].any()


def test_largest_of_nothing_is_nothing():
    assert not brain.largest(np.zeros((3, 3, 3), bool)).any()


def test_distance_agrees_with_the_nearest_voxel_outside():
    mask = np.random.default_rng(0).random((9, 8, 3)) > 0.2
    found = brain.distance_in_plane(mask, (1.5, 2.0, 5.0))
    for x, y, z in np.argwhere(mask):
        outside = np.argwhere(~mask[..., z])
        by_hand = np.linalg.norm((outside - (x, y)) * (1.5, 2.0), axis=1).min()
        assert found[x, y, z] == pytest.approx(by_hand)
    assert not found[~mask].any()


def test_holes_are_filled_within_slices_though_open_above():
    mask = np.zeros((7, 7, 2), bool)
    mask[1:6, 1:6] = True
    mask[3, 3] = False
    mask[0, 0] = False
    filled = brain.fill_in_plane(mask)
    assert filled[3, 3].all()
    assert not filled[0, 0].any()


def test_vessels_are_what_enhances_more_than_brain():
    peak = np.full((9, 9, 3), 10.0)
    peak[4, 4, 1] = 26.0
    peak[7, 7, 1] = 24.0
    inside = np.ones(peak.shape, bool)
    peak[1, 1, 1] = 40.0
    inside[1, 1, 1] = False
    found = brain.vessel_mask(peak, inside, np.ones(peak.shape, bool), 2.5)
    assert np.argwhere(found).tolist() == [[4, 4, 1]]


def test_pure_tissue_keeps_off_vessels_and_bone():
    inside = np.zeros((15, 15, 3), bool)
    inside[1:14, 1:14] = True
    vessels = np.zeros_like(inside)
    vessels[7, 7, 1] = True
    none = np.zeros_like(inside)
    tissue, pure = brain.tissue_masks(
        np.full(inside.shape, 35.0), inside, vessels, none, inside, inside | True, (2, 2, 5), 3.0
    )
    assert not tissue[7, 7, 1]
    assert tissue[7, 8, 1]
    assert not pure[7, 8, 1]
    assert tissue[1, 5, 1]
    assert not pure[1, 5, 1]
    assert pure[3, 5, 1]


def test_brain_of_a_head_is_found(head, found):
    assert dice(found.brain, head.truth['brain']) > 0.97


def test_brain_ends_where_the_vault_begins(found):
    # above the skull base, where bone lies within the ring as well
    assert found.baseline[:, :, 2:][found.brain[:, :, 2:]].max() < 130


def test_tissue_of_a_head_is_tissue(head, found):
    assert head.truth['tissue'][found.tissue].mean() > 0.88
    assert np.quantile(head.truth['vessel'][found.tissue], 0.999) < 0.3


def test_most_tissue_of_a_head_is_kept(head, found):
    pure = (head.truth['tissue'] > 0.9) & (head.truth['vessel'] == 0)
    assert found.tissue[pure].mean() > 0.85


def test_vessels_of_a_head_are_found(head, found):
    assert found.vessels[(head.truth['vessel'] > 0.5) & found.inside].mean() > 0.95


def test_csf_of_a_head_is_not_tissue(head, found):
    water = head.truth['brain'] & (head.truth['tissue'] < 0.05) & (head.truth['vessel'] == 0)
    assert found.csf[water & found.brain].mean() > 0.8
    assert found.csf[head.truth['tissue'] > 0.95].mean() < 0.02


# -- share of tissue


def shares(density, mask=None):
    mask = np.ones(density.shape, bool) if mask is None else mask
    return brain.tissue_share(density, mask, mask, (1.7, 1.7, 5.0))


def test_white_beside_grey_matter_is_all_tissue():
    density = np.full((20, 20, 4), 37.0)
    density[10:] = 29.0
    assert shares(density).min() > 0.94


@pytest.mark.parametrize('csf', [0.3, 0.5])
def test_share_falls_with_csf(csf):
    density = np.full((20, 20, 4), 35.0)
    density[9:11, :, :] = csf * 5 + (1 - csf) * 35
    found = shares(density)
    assert found[3, 3, 1] == 1
    assert found[9, 10, 1] == pytest.approx(1 - csf, abs=0.13)


def test_share_is_bounded_and_1_outside_tissue():
    density = np.random.default_rng(0).normal(20, 30, (12, 12, 3))
    mask = np.random.default_rng(1).random((12, 12, 3)) > 0.3
    found = shares(density, mask)
    assert found.min() >= brain.LEAST_TISSUE
    assert (found[~mask] == 1).all()
    assert found.max() == 1


# -- densities of the series


SIZE = (2.0, 2.0, 5.0)


def slab(brain_hu=33.0, csf_hu=6.0, ventricles=True, core_hu=0.0, noise_hu=3.0):
    """Brain of 60 x 60 voxels of grey and white matter; a core of a sixth of it may be less dense."""
    rng = np.random.default_rng(0)
    image = np.full((60, 60, 4), brain_hu)
    image[::2] += 2.0  # grey matter
    image[36:56, 20:50] -= core_hu
    if ventricles:
        image[14:22, 20:40] = csf_hu
    return image + rng.normal(0, noise_hu, image.shape)


def levels_of(image):
    return brain.density_levels(image, np.ones(image.shape, bool), SIZE)


@pytest.mark.parametrize('brain_hu', [23.0, 33.0, 43.0])
def test_levels_are_those_of_the_calibration(brain_hu):
    levels = levels_of(slab(brain_hu, brain_hu - 27))
    assert levels.brain == pytest.approx(brain_hu + 1, abs=1.5)
    assert levels.csf == pytest.approx(brain_hu - 27, abs=1.5)


@pytest.mark.parametrize('brain_hu', [23.0, 33.0, 43.0])
def test_without_ventricles_csf_has_its_usual_distance_from_brain(brain_hu):
    levels = levels_of(slab(brain_hu, ventricles=False))
    assert levels.brain - levels.csf == brain.USUAL_CONTRAST_HU


@pytest.mark.parametrize('ventricles', [True, False])
def test_broad_fresh_core_is_not_taken_for_csf(ventricles):
    """Oedema and missing contrast lower its density by 12 HU in the time average."""
    levels = levels_of(slab(core_hu=12.0, ventricles=ventricles))
    assert levels.brain == pytest.approx(34, abs=1.5)
    assert levels.csf < 10


def test_half_csf_in_coarse_voxels_is_not_taken_for_csf():
    """Voxels wider than a border have no interior that could be told from it."""
    image = slab(ventricles=False)
    image[14:22:3, 20:40] = 22.0
    assert brain.density_levels(image, np.ones(image.shape, bool), (5.0, 5.0, 10.0)).csf < 10


def test_one_level_depends_on_the_offset_alone():
    image = slab()
    first, second = levels_of(image), levels_of(image - 15)
    assert first.brain - second.brain == pytest.approx(15, abs=0.5)
    assert first.csf - second.csf == pytest.approx(15, abs=0.5)


def test_usual_level_is_reached_from_any_calibration():
    mask = np.ones((60, 60, 4), bool)
    for offset in (-15, 0, 15):
        moved = brain.at_usual_level(slab() + offset, mask)
        assert np.median(moved) == pytest.approx(brain.USUAL_BRAIN_HU)
    empty = np.zeros_like(mask)
    np.testing.assert_array_equal(brain.at_usual_level(slab(), empty), slab())


@pytest.mark.parametrize('core_hu', [3.0, 6.0, 9.0])
def test_broad_core_is_all_tissue(core_hu):
    """Its density is that of oedema, not of a mixture with CSF."""
    image = slab(core_hu=core_hu, ventricles=False, noise_hu=0.5)
    share = shares(image)
    assert share[40:52, 25:45].min() > 0.93


# -- head without skull, and gaps in the skull


def test_head_with_bone_is_not_stripped():
    volume, inside, _ = ring()
    assert not brain.is_stripped(volume)
    assert brain.is_stripped(np.where(inside, volume, 0))
    assert not brain.is_stripped(np.full((9, 9, 2), -1000.0))


@pytest.mark.parametrize(('gap_mm', 'low', 'high'), [(0.0, 0, 0), (80.0, 60, 110)])
def test_gap_in_the_skull_is_as_long_as_the_bone_that_is_missing(gap_mm, low, high):
    volume, inside, _ = ring(gap_mm)
    assert low <= brain.skull_gap(volume, inside, (2.0, 2.0, 5.0)) <= high


def test_gap_of_one_slice_is_an_orbit_or_a_foramen():
    volume, inside, _ = ring()
    volume[..., 1] = ring(80.0)[0][..., 1]
    assert brain.skull_gap(volume, inside, (2.0, 2.0, 5.0)) == 0


def test_series_without_skull_has_no_gap():
    volume, inside, _ = ring()
    assert brain.skull_gap(np.where(inside, volume, 0), inside, (2.0, 2.0, 5.0)) is None


def test_scalp_over_a_gap_is_not_brain():
    volume, inside, outside = ring(60.0)
    found = brain.inside_skull(volume, (2.0, 2.0, 5.0), 130.0)
    assert not found[outside].any()
    assert found[inside].mean() > 0.98


@pytest.mark.parametrize(
    ('density', 'enhancement', 'found'), [(68, 0, True), (68, 4, False), (28, 0, False)]
)
def test_dense_brain_without_contrast_is_hyperdense(density, enhancement, found):
    rng = np.random.default_rng(0)
    image = 33 + 3 * rng.standard_normal((40, 40, 6))
    contrast = 4 + rng.standard_normal(image.shape)
    x, y, z = np.indices(image.shape)
    blood = ((x - 20) * 2.0) ** 2 + ((y - 20) * 2.0) ** 2 + ((z - 3) * 5.0) ** 2 < 15**2
    image[blood] += density - 33
    contrast[blood] += enhancement - 4
    mask = np.ones(image.shape, bool)
    dense = brain.hyperdense_mask(image, contrast, mask, mask, 33.0, (2.0, 2.0, 5.0))
    assert (dense & blood).sum() > 0.6 * blood.sum() if found else not dense.any()
    assert (dense & ~blood).sum() < 0.2 * blood.sum()
