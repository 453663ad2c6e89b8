# SPDX-License-Identifier: Apache-2.0
"""Left and right."""

import nibabel as nb
import numpy as np
import pytest

from ctpprep.perfusion import symmetry


@pytest.fixture
def rng():
    return np.random.default_rng(0)


OBLIQUE = np.array([[1.7, 0.3, 0, -60], [-0.3, 1.7, 0.4, -80], [0, -0.1, 5, 9], [0, 0, 0, 1.0]])


def test_mirroring_twice_changes_nothing(rng):
    volume = rng.normal(size=(5, 4, 3, 2))
    np.testing.assert_array_equal(symmetry.mirror(symmetry.mirror(volume)), volume)


def test_mirroring_swaps_left_and_right_only(rng):
    volume = rng.normal(size=(5, 4, 3))
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


def test_confidence_is_the_share_of_pairs_won_less_those_lost(rng):
    left, right = rng.integers(0, 9, 41) + 3, rng.integers(0, 9, 30)
    found = sides(left, right)
    pairs = np.sign(left[:, None] - right[None])
    assert found.side == 'left'
    assert found.confidence == pytest.approx(pairs.mean(), abs=1e-4)


def test_sides_change_places_when_the_head_is_mirrored(rng):
    left, right = rng.normal(3, 1, 50), rng.normal(2, 1, 60)
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


def test_a_brain_is_similar_to_itself_and_not_to_a_shifted_one(rng):
    image = np.cumsum(rng.normal(0, 3, (40, 40, 2)), axis=0) + 30
    both = np.ones(image.shape, bool)
    assert symmetry.mirror_similarity(image, image, both, both, (2, 2, 5)) == pytest.approx(1)
    assert symmetry.mirror_similarity(image, np.roll(image, 10, 0), both, both, (2, 2, 5)) < 0.8


def test_noise_hardly_lowers_the_similarity(rng):
    image = np.cumsum(rng.normal(0, 3, (40, 40, 2)), axis=0) + 30
    noisy = image + rng.normal(0, 4, image.shape)
    both = np.ones(image.shape, bool)
    assert symmetry.mirror_similarity(image, noisy, both, both, (2, 2, 5)) > 0.9


def test_brains_that_do_not_overlap_have_nothing_in_common(rng):
    image = rng.normal(30, 3, (20, 20, 5))
    brain, part = np.ones(image.shape, bool), np.zeros(image.shape, bool)
    part[:5] = True
    assert symmetry.mirror_similarity(image, image, brain, part, (2, 2, 5)) == 0
    part[5:10] = True
    assert symmetry.mirror_similarity(image, image, brain, part, (2, 2, 5)) == pytest.approx(1)


@pytest.mark.parametrize('axis', [0, 1, 2])
def test_only_a_mirror_between_left_and_right_swaps_sides(axis):
    where, _, middle, _ = tilted_mirror()
    flip = np.where(np.arange(3) == axis, -1, 1)
    homologues = (where - middle) * flip + middle + (2, 3, -2)
    everywhere = np.ones(where.shape[:3], bool)
    assert symmetry.swaps_sides(where, homologues, everywhere) is (axis == 0)
    assert not symmetry.swaps_sides(where, homologues * np.nan, everywhere)


# -- folding


def tilted_mirror(shape=(20, 20, 6)):
    """Mirror a grid across a plane that is tilted in every direction."""
    where = symmetry.world_coordinates(shape, OBLIQUE)
    normal = np.array([0.96, 0.2, -0.196])
    normal /= np.linalg.norm(normal)
    middle = where.reshape(-1, 3).mean(axis=0)
    return where, where - 2 * ((where - middle) @ normal)[..., None] * normal, middle, normal


def test_a_tilted_mirror_neither_folds_nor_stretches():
    _, homologues, _, _ = tilted_mirror()
    np.testing.assert_allclose(symmetry.volume_change(homologues, OBLIQUE), 1, rtol=1e-3)
    assert symmetry.folding(homologues, OBLIQUE, np.ones(homologues.shape[:3], bool)) == 0


def test_a_stretch_changes_volume_by_its_factor():
    where = symmetry.world_coordinates((8, 8, 8), np.diag([2.0, 2, 5, 1]))
    change = symmetry.volume_change(where * (-2, 1.5, 1), np.diag([2.0, 2, 5, 1]))
    np.testing.assert_allclose(change, 3, rtol=1e-5)


def test_where_a_field_goes_back_on_itself_it_is_folded():
    where = symmetry.world_coordinates((20, 8, 4), np.diag([2.0, 2, 5, 1]))
    homologues = where * (-1, 1, 1)
    homologues[8:12, ..., 0] *= -1
    mask = np.ones(where.shape[:3], bool)
    assert 0.1 < symmetry.folding(homologues, np.diag([2.0, 2, 5, 1]), mask) < 0.4
    mask[6:14] = False
    assert symmetry.folding(homologues, np.diag([2.0, 2, 5, 1]), mask) == 0


def test_a_mirror_that_does_not_mirror_is_folded_everywhere():
    where = symmetry.world_coordinates((8, 8, 4), OBLIQUE)
    assert symmetry.folding(where, OBLIQUE, np.ones((8, 8, 4), bool)) == 1


def test_only_known_homologues_count_for_folding():
    _, homologues, _, _ = tilted_mirror()
    homologues[10:] = np.nan
    mask = np.ones(homologues.shape[:3], bool)
    assert symmetry.folding(homologues, OBLIQUE, mask) == 0
    homologues[:] = np.nan
    assert symmetry.folding(homologues, OBLIQUE, mask) == 1


def test_a_slab_of_one_slice_has_no_folds_across_slices():
    where = symmetry.world_coordinates((8, 8, 1), OBLIQUE)
    turned = where - 2 * where[..., :1] * (1, 0, 0)
    change = symmetry.volume_change(turned, np.diag([1.7, 1.7, 5, 1]))
    assert np.isfinite(change).all()


def test_distance_poor_likeness_and_folding_are_each_a_reason():
    def reason(folded, **measured):
        return symmetry.withheld_reason(
            folded, 0.02, most_mm=5.0, least_similarity=0.6, **measured
        )

    assert reason(0.02, distance_mm=5.0) == reason(0.02, similarity=0.6) == ''
    assert 'off by about 5.1 mm' in reason(0.0, distance_mm=5.1)
    assert 'correlation 0.59' in reason(0.0, similarity=0.59)
    assert '3.0% of the brain' in reason(0.03, distance_mm=1.0)
    assert 'could not be registered' in reason(None)


@pytest.mark.parametrize('figure', [{'distance_mm': np.nan}, {'similarity': np.nan}])
def test_likeness_that_is_not_known_is_a_reason(figure):
    limits = {'most_mm': 5.0, 'least_similarity': 0.6}
    assert symmetry.withheld_reason(0.0, 0.02, **limits, **figure) != ''


# -- the plane between hemispheres


def test_plane_divides_like_homologues_do():
    where, homologues, middle, normal = tilted_mirror()
    mask = np.abs((where - middle) @ normal) > 0.01
    by_plane = symmetry.hemispheres_by_plane(where, middle, normal, mask)
    np.testing.assert_array_equal(by_plane, symmetry.hemispheres(where, homologues, mask))


def pear(yaw_deg=0.0, roll_deg=0.0, shift=0.0):
    """Draw a brain that is symmetric about a turned plane, and nowhere else; give its plane."""
    where = symmetry.world_coordinates((60, 70, 12), np.diag([3.0, 3, 6, 1])).astype(float)
    where -= where.reshape(-1, 3).mean(axis=0)
    normal = np.array([1, np.tan(np.radians(yaw_deg)), np.tan(np.radians(roll_deg))])
    normal /= np.linalg.norm(normal)
    across = where @ normal - shift
    along = where - across[..., None] * normal
    brain = (across / 62) ** 2 + ((along[..., 1] + 4) / (80 - along[..., 2] / 4)) ** 2 < 1
    ventricle = (np.abs(np.abs(across) - 12) < 6) & (np.abs(along[..., 1] - 8) < 22)
    affine = np.diag([3.0, 3, 6, 1])
    affine[:3, 3] = -(np.array([60, 70, 12]) - 1) / 2 * (3, 3, 6)
    image = np.where(brain, np.where(ventricle, 8.0, 33.0), 900.0)
    return image, affine, brain, (normal * shift, normal)


@pytest.mark.parametrize('turned', [(0, 0, 0), (14, -6, 3), (-8, 17, -7)])
def test_plane_of_symmetry_is_found(turned):
    image, affine, brain, (point, normal) = pear(*turned)
    found = symmetry.find_symmetry_plane(image, affine, brain)
    assert np.degrees(np.arccos(found[1] @ normal)) < 1.5
    assert abs((found[0] - point) @ normal) < 1.0


def test_a_lesion_does_not_turn_the_plane():
    image, affine, brain, (_, normal) = pear(5, 3, 2)
    lesion = brain.copy()
    lesion[:38] = lesion[:, :30] = False
    for change in (-12.0, 15.0):
        changed = np.where(lesion & (image > 20), image + change, image)
        _, found = symmetry.find_symmetry_plane(changed, affine, brain)
        assert np.degrees(np.arccos(found @ normal)) < 2


def test_a_speck_of_brain_is_divided_through_its_middle():
    brain = np.zeros((30, 30, 3), bool)
    brain[10:15, 4:6] = True
    point, normal = symmetry.find_symmetry_plane(
        np.zeros(brain.shape), np.diag([2.0, 2, 5, 1]), brain
    )
    np.testing.assert_array_equal(normal, [1, 0, 0])
    assert point[0] == pytest.approx(24)


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
