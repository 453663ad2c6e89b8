# SPDX-License-Identifier: Apache-2.0
"""Left and right."""

import nibabel as nb
import numpy as np
import pytest

from ctpprep.exceptions import RegistrationError
from ctpprep.perfusion import symmetry

RNG = np.random.default_rng(0)
OBLIQUE = np.array([[1.7, 0.3, 0, -60], [-0.3, 1.7, 0.4, -80], [0, -0.1, 5, 9], [0, 0, 0, 1.0]])


def test_mirroring_twice_changes_nothing():
    volume = RNG.normal(size=(5, 4, 3, 2))
    np.testing.assert_array_equal(symmetry.mirror(symmetry.mirror(volume)), volume)


def test_mirroring_swaps_left_and_right_only():
    volume = RNG.normal(size=(5, 4, 3))
    np.testing.assert_array_equal(symmetry.mirror(volume)[1, 2, 1], volume[3, 2, 1])


def test_world_coordinates_agree_with_nibabel():
    index = np.stack(np.meshgrid(range(4), range(3), range(5), indexing='ij'), axis=-1)
    np.testing.assert_allclose(
        symmetry.world_coordinates((4, 3, 5), OBLIQUE),
        nb.affines.apply_affine(OBLIQUE, index),
        rtol=1e-6,
    )


@pytest.mark.parametrize('tilt_deg', [-20.0, 0.0, 12.0])
def test_hemispheres_follow_a_tilted_midline(tilt_deg):
    normal = np.array([np.cos(np.radians(tilt_deg)), np.sin(np.radians(tilt_deg)), 0])
    where = symmetry.world_coordinates((30, 30, 3), np.diag([4.0, 4, 5, 1])) - (51, 58, 0)
    beyond = where @ normal
    homologues = where - 2 * beyond[..., None] * normal
    brain = np.linalg.norm(where[..., :2], axis=-1) < 50
    found = symmetry.hemispheres(where, homologues, brain)
    clear = brain & (np.abs(beyond) > 1e-3)
    expected = np.where(beyond > 0, symmetry.RIGHT, symmetry.LEFT)
    np.testing.assert_array_equal(found[clear], expected[clear])
    assert not found[~brain].any()


def test_hemispheres_of_a_head_are_the_true_ones(head):
    where = symmetry.world_coordinates(head.ctp.shape, head.affine)
    known = head.truth['brain'] & np.isfinite(head.truth['homologue']).all(axis=-1)
    found = symmetry.hemispheres(where, head.truth['homologue'], known)
    assert (found == head.truth['side'])[known].mean() > 0.995


def sides(left, right):
    tmax = np.concatenate([left, right]).astype(float)
    hemisphere = np.repeat([symmetry.LEFT, symmetry.RIGHT], [len(left), len(right)])
    return symmetry.affected_side(
        tmax, hemisphere, np.ones(len(tmax), bool), hypoperfusion_tmax=6.0
    )


@pytest.mark.parametrize(('left', 'right', 'side'), [([5, 6, 7], [1, 2, 3], 'left'),
                                                     ([1, 2, 3], [5, 6, 7], 'right')])  # fmt: skip
def test_the_side_of_the_longer_tmax_is_affected(left, right, side):
    found = sides(left, right)
    assert found.side == side
    assert found.confidence == 1


def test_the_median_decides_and_not_the_mean():
    assert sides([3, 3, 3], [1, 1, 100]).side == 'left'


def test_identical_sides_are_right_without_confidence():
    found = sides([1, 2, 3, 9], [1, 2, 3, 9])
    assert (found.side, found.confidence) == ('right', 0)


def test_a_side_without_tissue_gives_no_confidence():
    found = sides([], [1, 2, 3])
    assert (found.side, found.confidence) == ('right', 0)


def test_confidence_is_the_share_of_pairs_won_less_those_lost():
    left, right = RNG.integers(0, 9, 41) + 1, RNG.integers(0, 9, 30)
    found = sides(left, right)
    pairs = np.sign(left[:, None] - right[None])
    assert found.side == 'left'
    assert found.confidence == pytest.approx(pairs.mean(), abs=1e-4)


def test_sides_change_places_when_the_head_is_mirrored():
    left, right = RNG.normal(3, 1, 50), RNG.normal(2, 1, 60)
    first, second = sides(left, right), sides(right, left)
    assert (first.side, second.side) == ('left', 'right')
    assert first.confidence == second.confidence


def test_only_tissue_votes():
    tmax = np.array([9.0, 1, 2, 3])
    hemisphere = np.array([1, 1, 2, 2])
    found = symmetry.affected_side(
        tmax, hemisphere, np.array([False, True, True, True]), hypoperfusion_tmax=6.0
    )
    assert (found.side, found.tmax_left) == ('right', 1)


def test_a_brain_is_similar_to_itself_and_not_to_a_shifted_one():
    image = np.cumsum(RNG.normal(0, 3, (40, 40, 2)), axis=0) + 30
    both = np.ones(image.shape, bool)
    assert symmetry.mirror_similarity(image, image, both, (2, 2, 5)) == pytest.approx(1)
    assert symmetry.mirror_similarity(image, np.roll(image, 10, 0), both, (2, 2, 5)) < 0.8


def test_noise_hardly_lowers_the_similarity():
    image = np.cumsum(RNG.normal(0, 3, (40, 40, 2)), axis=0) + 30
    noisy = image + RNG.normal(0, 4, image.shape)
    both = np.ones(image.shape, bool)
    assert symmetry.mirror_similarity(image, noisy, both, (2, 2, 5)) > 0.9


def test_brains_that_do_not_overlap_are_refused():
    with pytest.raises(RegistrationError, match='overlap in 0 voxels'):
        symmetry.mirror_similarity(
            np.zeros((5, 5, 5)), np.zeros((5, 5, 5)), np.zeros((5, 5, 5), bool), (2, 2, 5)
        )


def test_voxels_without_homologue_take_the_side_of_their_neighbours():
    where = symmetry.world_coordinates((8, 4, 3), np.diag([2.0, 2, 5, 1]))
    homologues = where * (-1, 1, 1) + (14, 0, 0)
    homologues[..., 2, :] = np.nan
    found = symmetry.hemispheres(where, homologues, np.ones((8, 4, 3), bool))
    np.testing.assert_array_equal(found[..., 2], found[..., 1])
    assert set(np.unique(found)) == {1, 2}


# -- a lesion in less than half of a hemisphere


def hemispheres_with(left_slow, right_slow, shift=0.0, n=1000):
    """Give both hemispheres 1.5 s, the left `shift` more; some of the voxels are slow."""
    left, right = np.full(n, 1.5 + shift), np.full(n, 1.5)
    left[:left_slow] = right[:right_slow] = 8.0
    return sides(left, right)


def test_a_lesion_that_leaves_the_median_alone_names_its_side():
    found = hemispheres_with(left_slow=0, right_slow=100, shift=0.1)
    assert found.tmax_left > found.tmax_right
    assert (found.side, found.rule, found.confidence) == ('right', 'hypoperfusion', 1.0)


def test_clearly_greater_median_counts_as_in_the_paper():
    found = hemispheres_with(left_slow=50, right_slow=0, shift=2.0)
    assert (found.side, found.rule) == ('left', 'median')
    assert found.confidence > 0.9


def test_medians_against_the_hypoperfusion_are_not_trusted():
    found = hemispheres_with(left_slow=0, right_slow=100, shift=2.0)
    assert (found.side, found.confidence) == ('left', 0.0)


@pytest.mark.parametrize(('left', 'right'), [(0, 5), (60, 100)])
def test_little_or_two_sided_hypoperfusion_leaves_it_to_the_medians(left, right):
    found = hemispheres_with(left, right, shift=0.1)
    assert (found.side, found.rule) == ('left', 'median')
