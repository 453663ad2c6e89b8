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


def test_noise_of_one_usable_frame_is_0():
    assert not denoising.curve_noise(RNG.normal(size=(5, 8)), [1, 0, 0, 1, 1, 1, 1, 1], 3).any()


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
