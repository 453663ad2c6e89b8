# SPDX-License-Identifier: Apache-2.0
"""Smoothing stays within its mask; the low-rank model keeps what has low rank."""

import numpy as np
import pytest

from ctpprep.perfusion import denoising

RNG = np.random.default_rng(0)
MASK = RNG.random((9, 8, 5)) > 0.3
SIGMA = (1.2, 0.9, 0.6)


@pytest.mark.parametrize('outside', [0.0, 1e6, -1000.0, np.nan])
def test_nothing_outside_the_mask_leaks_in(outside):
    inside = RNG.normal(40, 5, MASK.shape)
    expected = denoising.smooth_within(inside, MASK, SIGMA)
    found = denoising.smooth_within(np.where(MASK, inside, outside), MASK, SIGMA)
    np.testing.assert_array_equal(found, expected)


def test_nothing_is_written_outside_the_mask():
    found = denoising.smooth_within(np.full(MASK.shape, 40.0), MASK, SIGMA)
    assert not found[~MASK].any()


def test_smoothing_agrees_with_the_sum_over_all_voxels_of_the_mask():
    volume = RNG.normal(40, 5, MASK.shape)
    found = denoising.smooth_within(volume, MASK, SIGMA)
    voxels, reach = np.argwhere(MASK), np.array([int(3 * s + 0.5) for s in SIGMA])
    for voxel in voxels:
        apart = voxels - voxel
        near = (np.abs(apart) <= reach).all(axis=1)
        share = np.exp(-0.5 * ((apart[near] / SIGMA) ** 2).sum(axis=1))
        by_hand = share @ volume[tuple(voxels[near].T)] / share.sum()
        assert found[tuple(voxel)] == pytest.approx(by_hand, rel=1e-4)


def test_an_axis_with_sigma_0_is_left_alone():
    volume = RNG.normal(size=(5, 5, 4))
    everywhere = np.ones(volume.shape, bool)
    changed = volume.copy()
    changed[:, :, 2] = 7
    first, second = (
        denoising.smooth_within(each, everywhere, (1, 1, 0)) for each in (volume, changed)
    )
    np.testing.assert_array_equal(np.delete(first, 2, axis=2), np.delete(second, 2, axis=2))


def test_a_known_weight_gives_the_same_result():
    volume = RNG.normal(size=MASK.shape)
    weight = denoising.smoothing_weight(MASK, SIGMA)
    np.testing.assert_array_equal(
        denoising.smooth_within(volume, MASK, SIGMA, weight),
        denoising.smooth_within(volume, MASK, SIGMA),
    )


def test_curves_of_low_rank_pass_unchanged():
    curves = RNG.normal(size=(200, 3)) @ RNG.normal(0, 10, (3, 20)) + RNG.normal(0, 30, 20)
    np.testing.assert_allclose(denoising.low_rank(curves, 3, np.ones(20)), curves, atol=1e-3)


def test_low_rank_agrees_with_the_truncated_svd():
    curves = RNG.normal(0, 10, (60, 15))
    mean = curves.mean(axis=0)
    u, s, vt = np.linalg.svd(curves - mean, full_matrices=False)
    by_hand = (u[:, :4] * s[:4]) @ vt[:4] + mean
    np.testing.assert_allclose(denoising.low_rank(curves, 4, np.ones(15)), by_hand, atol=1e-3)


@pytest.mark.parametrize('nonsense', [1e5, np.nan])
def test_a_rejected_frame_shapes_no_component(nonsense):
    curves = RNG.normal(0, 10, (60, 15))
    weights = np.ones(15)
    weights[6] = 0
    spoilt = curves.copy()
    spoilt[:, 6] = nonsense
    found = denoising.low_rank(spoilt, 3, weights)
    without = denoising.low_rank(np.delete(curves, 6, axis=1), 3, np.ones(14))
    np.testing.assert_allclose(np.delete(found, 6, axis=1), without, atol=1e-3)
    np.testing.assert_array_equal(found[:, 6], np.float32(nonsense))


def test_a_rank_above_the_number_of_frames_changes_nothing():
    curves = RNG.normal(size=(30, 6)).astype(np.float32)
    np.testing.assert_array_equal(denoising.low_rank(curves, 6, np.ones(6)), curves)


def test_noise_falls_and_the_curves_stay(tissue):
    times = np.arange(27) * 1.5
    truth = np.stack([tissue(times, cbf, 4.0, d) for cbf in (20, 60) for d in (0, 2, 4)] * 100)
    noisy = truth + RNG.normal(0, 4, truth.shape)
    found = denoising.low_rank(noisy, 4, np.ones(27))
    assert np.std(found - truth) < 0.55 * 4


def test_noise_is_that_of_the_frames_before_contrast(tissue):
    curves = RNG.normal(0, 4, (5000, 12))
    curves[:, 6:] += 100 * RNG.random((5000, 6))
    found = denoising.curve_noise(curves, np.ones(12), 6)
    assert np.sqrt(np.mean(found**2)) == pytest.approx(4, rel=0.02)


def test_rejected_frames_are_no_baseline_of_the_noise():
    curves = RNG.normal(size=(400, 8))
    curves[:, 1:3] += 100
    found = denoising.curve_noise(curves, [1, 0, 0, 1, 1, 1, 1, 1], 3)
    assert np.median(found) == pytest.approx(1.0, rel=0.2)


def test_impure_tissue_takes_the_curves_of_its_neighbours():
    tissue = np.ones((7, 7, 1), bool)
    pure = tissue.copy()
    pure[3, 3] = False
    curves = np.ones((49, 4))
    curves[24] = 500.0
    smooth = denoising.smooth_curves(curves, tissue, pure, (1, 1, 0))
    np.testing.assert_allclose(smooth, 1, atol=1e-5)


def test_tissue_out_of_reach_takes_the_nearest_curve():
    tissue = np.ones((40, 1, 1), bool)
    pure = np.zeros_like(tissue)
    pure[:3] = True
    curves = np.repeat(np.arange(40.0)[:, None], 2, axis=1)
    smooth = denoising.smooth_curves(curves, tissue, pure, (1, 0, 0))
    assert smooth[-1, 0] == smooth[5, 0]
    assert smooth.max() < 2


# -- average over similar voxels


def test_average_over_similar_voxels_agrees_with_the_sum_over_all_pairs():
    values, guides = RNG.normal(size=(2, *MASK.shape)), RNG.normal(size=(3, *MASK.shape))
    found, weight = denoising.average_similar(values, guides, MASK, SIGMA)
    everywhere = np.argwhere(np.ones(MASK.shape, bool))
    sources = np.argwhere(MASK)
    for voxel in everywhere[::7]:
        apart = (sources - voxel) / SIGMA
        square = (apart**2).sum(axis=1)
        near = square <= denoising.REACH**2
        there = tuple(sources[near].T)
        unlike = ((guides[:, *there] - guides[:, *voxel][:, None]) ** 2).sum(axis=0)
        share = np.exp(-0.5 * (square[near] + unlike))
        assert weight[tuple(voxel)] == pytest.approx(share.sum(), rel=1e-4, abs=1e-6)
        if share.sum() > 1e-3:
            by_hand = values[:, *there] @ share / share.sum()
            np.testing.assert_allclose(found[:, *voxel], by_hand, atol=1e-4)


def test_number_of_threads_changes_no_voxel():
    values, guides = RNG.normal(size=(2, 20, 20, 5)), RNG.normal(size=(2, 20, 20, 5))
    everywhere = np.ones((20, 20, 5), bool)
    one, three = (
        denoising.average_similar(values, guides, everywhere, (2, 2, 1), num_threads=n)[0]
        for n in (1, 3)
    )
    np.testing.assert_array_equal(one, three)


def two_tissues(noise):
    """Make curves of two tissues side by side; the second has a tenth of the flow, later."""
    tissue = np.ones((16, 16, 5), bool)
    second = (np.arange(16) >= 8)[:, None, None] & tissue
    times = np.arange(20.0)
    shapes = np.stack([10 * np.exp(-0.5 * ((times - at) / 3) ** 2) for at in (8.0, 12.0)])
    shapes[1] /= 10
    clean = shapes[second[tissue].astype(int)]
    curves = clean + noise * np.random.default_rng(0).normal(size=clean.shape)
    return curves.astype(np.float32), clean, tissue


def by_similarity(curves, tissue, weights=None, density=None, tolerance=5.0):
    weights = np.ones(curves.shape[1]) if weights is None else weights
    smooth = denoising.smooth_curves(curves, tissue, tissue, (2, 2, 1))
    centre, components = denoising.temporal_components(smooth[:, weights > 0], 6)
    return denoising.denoise_by_similarity(
        curves, smooth, tissue, tissue,
        np.full(tissue.shape, 35.0) if density is None else density,
        weights, (3.5, 3.5, 1.2), centre=centre, components=components,
        tolerance_hu=tolerance, density_tolerance_hu=3.0,
    )[0]  # fmt: skip


def test_similarity_takes_noise_away_and_keeps_the_border_of_a_lesion():
    curves, clean, tissue = two_tissues(noise=2.0)
    found = by_similarity(curves, tissue)
    assert np.std(found - clean) < 0.2 * 2.0
    # plain smoothing brings the neighbour's curve across
    edge = np.broadcast_to((np.arange(16) == 8)[:, None, None], tissue.shape)[tissue]
    smooth = denoising.smooth_curves(curves, tissue, tissue, (2, 2, 1))
    wrong = [np.abs(each - clean)[edge, 8].mean() for each in (found, smooth)]
    assert wrong[0] < 0.4 * wrong[1]


def test_density_alone_keeps_tissues_apart():
    curves, clean, tissue = two_tissues(noise=2.0)
    density = np.full(tissue.shape, 37.0)
    density[8:] = 29.0
    edge = np.broadcast_to((np.arange(16) == 8)[:, None, None], tissue.shape)[tissue]
    told, not_told = (
        np.abs(by_similarity(curves, tissue, density=each, tolerance=1e3) - clean)[edge, 8].mean()
        for each in (density, None)
    )
    assert told < 0.5 * not_told


def test_rejected_frames_pass_through_similarity_and_shape_nothing():
    curves, _, tissue = two_tissues(noise=1.0)
    weights = np.ones(20)
    weights[9] = 0
    spoilt = curves.copy()
    spoilt[:, 9] = 500
    first, second = (by_similarity(each, tissue, weights) for each in (curves, spoilt))
    np.testing.assert_array_equal(second[:, 9], 500)
    np.testing.assert_array_equal(np.delete(first, 9, axis=1), np.delete(second, 9, axis=1))


@pytest.mark.parametrize('source', [False, True])
def test_a_voxel_unlike_all_others_gets_its_smoothed_curve(source):
    curves, _, tissue = two_tissues(noise=0.5)
    pure = tissue.copy()
    pure[3:6, 3:6] = source
    density = np.full(tissue.shape, 35.0)
    density[4, 4, 2] = 300.0
    smooth = denoising.smooth_curves(curves, tissue, pure, (2, 2, 1))
    centre, components = denoising.temporal_components(smooth, 20)
    found, _ = denoising.denoise_by_similarity(
        curves, smooth, tissue, pure, density, np.ones(20), (3.5, 3.5, 1.2), centre=centre,
        components=components, tolerance_hu=5.0, density_tolerance_hu=3.0,
    )  # fmt: skip
    voxel = np.ravel_multi_index((4, 4, 2), tissue.shape)
    np.testing.assert_allclose(found[voxel], smooth[voxel], atol=1e-3)


@pytest.mark.parametrize('shape', [(4, 4, 1), (5, 3, 2), (16, 16, 3)])
def test_a_box_smaller_than_the_reach_is_averaged_all_the_same(shape):
    everywhere = np.ones(shape, bool)
    found, weight = denoising.average_similar(
        np.full((1, *shape), 7.0), np.zeros((1, *shape)), everywhere, (3.5, 3.5, 2.1)
    )
    np.testing.assert_allclose(found, 7.0, rtol=1e-5)
    assert weight.min() > 1


def test_noise_is_told_with_a_single_baseline_frame_too():
    noise = np.random.default_rng(0).normal(0, 3.0, (400, 30)).astype(np.float32)
    bolus = 10 * np.exp(-0.5 * ((np.arange(30) - 8.0) / 3) ** 2)
    found = np.median(denoising.curve_noise(noise + bolus, np.ones(30), 1))
    assert found == pytest.approx(3.0, rel=0.2)


def test_slices_of_other_times_are_not_smoothed_together():
    mask = np.ones((4, 4, 4), bool)
    pattern = np.array([0, 0, 1, 1])
    curves = np.repeat(np.broadcast_to(pattern * 10.0, mask.shape)[mask][:, None], 3, axis=1)
    smooth = denoising.smooth_by_pattern(curves, mask, mask, pattern, (1.0, 1.0, 1.0))
    np.testing.assert_allclose(smooth, curves, atol=1e-4)
