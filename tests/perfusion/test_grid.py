# SPDX-License-Identifier: Apache-2.0
"""The working grid averages blocks and keeps every block at one time and one place."""

import numpy as np
import pytest

from ctpprep.perfusion import grid

OBLIQUE = np.array([[0.4, 0.1, 0, -90], [-0.1, 0.4, 0.3, -110], [0, -0.1, 2.4, 20], [0, 0, 0, 1]])


@pytest.mark.parametrize('size', [0.3, 0.43, 0.45, 0.65, 0.9, 0.96, 1.1, 1.79, 1.81, 2.5])
def test_in_plane_blocks_are_as_large_as_the_limit_allows(size):
    factor = grid.block_factors((size, size, 5.0), np.zeros((20, 1)), 1.8, 5.0)[0]
    assert factor == 1 or factor * size <= 1.8 * 1.001
    assert (factor + 1) * size > 1.8


@pytest.mark.parametrize('size', np.arange(0.2, 1.8, 0.05))
def test_cost_does_not_jump_with_the_voxel_size(size):
    factor = grid.block_factors((size, size, 5.0), np.zeros((20, 1)), 1.8, 5.0)[0]
    assert 0.75 * 1.8 <= factor * size <= 1.8 * 1.001


def test_blocks_of_whole_voxels_are_kept_if_they_are_large_enough():
    assert grid.block_factors((0.49, 0.9, 5.0), np.zeros((20, 1)), 1.8, 5.0) == (3, 2, 1)


@pytest.mark.parametrize('n_slices', [20, 30, 34, 37])
@pytest.mark.parametrize('lower', [10, 15, 17])
def test_slices_of_different_times_are_never_joined(n_slices, lower):
    times = np.tile(np.arange(5) * 1.5, (n_slices, 1))
    times[lower:] += 0.75
    through = grid.block_factors((0.4, 0.4, 0.5), times, 1.8, 5.0)[2]
    whole = n_slices // through * through
    assert np.ptp(times[:whole].reshape(-1, through, 5), axis=1).max() == 0


def test_slices_that_alternate_in_some_frames_only_are_not_joined():
    times = np.zeros((20, 3))
    times[::2, 2] = 0.7
    assert grid.block_factors((1.8, 1.8, 0.5), times, 1.8, 5.0)[2] == 1


def test_thin_slices_acquired_together_are_joined():
    assert grid.block_factors((0.45, 0.45, 0.625), np.zeros((160, 9)), 1.8, 5.0) == (4, 4, 8)


def test_block_affine_maps_to_the_mean_position_of_the_voxels():
    index = np.stack(np.meshgrid(*map(np.arange, (8, 6, 4)), indexing='ij'), axis=-1)
    where = index @ OBLIQUE[:3, :3].T + OBLIQUE[:3, 3]
    means = np.stack([grid.average_blocks(where[..., i], (4, 3, 2)) for i in range(3)], axis=-1)
    affine = grid.block_affine(OBLIQUE, (4, 3, 2))
    blocks = index[:2, :2, :2] @ affine[:3, :3].T + affine[:3, 3]
    np.testing.assert_allclose(means, blocks, atol=1e-4)


@pytest.mark.parametrize('factor', [1.5, 1.875, 2.77])
def test_part_of_a_voxel_counts_as_much_as_of_it_is_in_the_block(factor):
    """A voxel is divided into 1000 pieces, and the pieces in each block are averaged."""
    volume = np.random.default_rng(0).normal(size=(21, 2, 3))
    pieces = np.repeat(volume, 1000, axis=0)
    width = round(1000 * factor)
    blocks = len(pieces) // width
    expected = pieces[: blocks * width].reshape(blocks, width, 2, 3).mean(axis=1)
    np.testing.assert_allclose(grid.average_blocks(volume, (factor, 1, 1)), expected, atol=1e-5)


def test_blocks_with_parts_of_voxels_are_where_their_affine_is():
    index = np.stack(np.meshgrid(*map(np.arange, (30, 20, 3)), indexing='ij'), axis=-1)
    where = index @ OBLIQUE[:3, :3].T + OBLIQUE[:3, 3]
    factors = (1.875, 1.6, 1)
    means = np.stack([grid.average_blocks(where[..., i], factors) for i in range(3)], axis=-1)
    affine = grid.block_affine(OBLIQUE, factors)
    blocks = np.stack(np.meshgrid(*map(np.arange, means.shape[:3]), indexing='ij'), axis=-1)
    error = means - (blocks @ affine[:3, :3].T + affine[:3, 3])
    # a voxel has one value, wherever it is cut
    assert np.abs(error).max() < 0.125 * 0.5
    np.testing.assert_allclose(error.mean(axis=(0, 1, 2)), 0, atol=0.01)


def test_incomplete_blocks_are_left_out():
    volume = np.zeros((7, 5, 3))
    volume[6:] = volume[:, 4:] = volume[:, :, 2:] = 1e6
    averaged = grid.average_blocks(volume, (3, 2, 2))
    assert averaged.shape == (2, 2, 1)
    assert averaged.max() == 0


def test_every_slice_finds_its_own_times_again():
    rng = np.random.default_rng(0)
    sample_times = np.array([[0.0, 1.5], [0.75, 2.25], [0.4, 2.0]])[rng.integers(0, 3, 20)]
    times, pattern = grid.sampling_patterns(sample_times)
    assert len(times) == 3
    np.testing.assert_allclose(times[pattern], sample_times)


def test_cropped_image_keeps_its_place():
    image = np.zeros((30, 40, 5))
    image[12:20, 30:33] = 1
    cropped, affine = grid.crop_in_plane(image, OBLIQUE, 0.8)
    assert cropped.shape == (12, 7, 5)
    np.testing.assert_allclose(affine @ [2, 2, 0, 1], OBLIQUE @ [12, 30, 0, 1])
    assert cropped.sum() == image.sum()
