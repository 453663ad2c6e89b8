# SPDX-License-Identifier: Apache-2.0
"""The distance of homologues is estimated in mm, from the images alone."""

import numpy as np
import pytest
from scipy import ndimage

from ctpprep.perfusion import alignment
from ctpprep.perfusion.homologues import AIR_HU

SHAPE, SIZE = (72, 88, 8), (2.0, 2.0, 5.0)


def texture(seed):
    """Grey and white matter of a brain, HU."""
    noise = np.random.default_rng(seed).normal(size=SHAPE)
    field = ndimage.gaussian_filter(noise, (2.5, 2.5, 0.8))
    return 33 + 4 * field / field.std()


@pytest.fixture(scope='module')
def brain():
    x, y = (np.arange(n) - (n - 1) / 2 for n in SHAPE[:2])
    mask = np.hypot(x[:, None] / 32, y[None] / 40) < 1
    return np.repeat(mask[..., None], SHAPE[2], axis=2)


def estimate(brain, homologue, noise_hu=1.5):
    rng = np.random.default_rng(1)
    first, second = (
        np.where(brain, image + rng.normal(0, noise_hu, SHAPE), AIR_HU)
        for image in (texture(0), homologue)
    )
    return alignment.estimate_misalignment(first, second, brain, SIZE)


def test_true_homologues_are_at_no_distance(brain):
    assert estimate(brain, texture(0)).median_mm < 1.0


@pytest.mark.parametrize('shift_mm', [4.0, 6.0, 8.0])
@pytest.mark.parametrize('axis', [0, 1])
def test_shift_is_found_within_one_and_a_half_millimetres(brain, shift_mm, axis):
    shifted = np.roll(texture(0), int(shift_mm / SIZE[axis]), axis=axis)
    found = estimate(brain, shifted)
    assert found.median_mm == pytest.approx(shift_mm, abs=1.5)
    assert found.error_mm < 2.0


def test_shift_through_plane_is_found(brain):
    assert estimate(brain, np.roll(texture(0), 1, axis=2)).median_mm == pytest.approx(5, abs=1.5)


def test_unrelated_images_are_far_from_homologous(brain):
    assert estimate(brain, texture(7)).median_mm > 5


def test_brain_without_structure_is_unknown_and_not_right(brain):
    assert estimate(brain, np.full(SHAPE, 33.0)).median_mm > 5


def estimate_faint(shift_mm):
    """Estimate the distance in a whole brain with half of its faint structure on one side only."""
    rng = np.random.default_rng(0)
    x, y = (np.linspace(-1.1, 1.1, n) for n in (76, 92))
    brain = np.repeat((np.hypot(x[:, None], y[None]) < 1)[..., None], 20, axis=2)
    fields = [ndimage.gaussian_filter(rng.normal(size=brain.shape), (2, 2, 0.8)) for _ in range(3)]
    common, *own = (2 * field / field.std() for field in fields)
    common_moved = np.roll(common, int(shift_mm / SIZE[0]), axis=0)
    first, second = (
        np.where(brain, 33 + structure + rng.normal(0, 4, brain.shape), AIR_HU)
        for structure in (common + own[0], common_moved + own[1])
    )
    return alignment.estimate_misalignment(first, second, brain, SIZE).median_mm


def test_faint_structure_is_enough_if_all_regions_agree():
    assert estimate_faint(0.0) < 5


def test_faint_structure_that_is_shifted_is_not_accepted():
    assert estimate_faint(8.0) > 5


def test_distance_does_not_depend_on_the_calibration(brain):
    shifted = np.roll(texture(0), 2, axis=0)
    first, second = (estimate(brain, shifted + offset).median_mm for offset in (0.0, 15.0))
    assert first == pytest.approx(second, abs=0.1)


def test_only_the_region_that_is_off_has_a_distance(brain):
    shifted = texture(0)
    shifted[:, 50:] = np.roll(shifted, 4, axis=0)[:, 50:]
    distance = estimate(brain, shifted).distance_mm
    front, back = np.zeros_like(brain), np.zeros_like(brain)
    front[:, 60:], back[:, :40] = True, True
    assert np.nanmedian(distance[front & brain]) == pytest.approx(8, abs=2)
    assert np.nanmedian(distance[back & brain]) < 1
    regions = alignment.by_region(distance, brain)
    assert regions['middle front'] > regions['middle back'] + 3


def test_distance_is_unknown_outside_the_brain(brain):
    distance = estimate(brain, texture(0)).distance_mm
    assert np.isnan(distance[~brain]).all()
    assert np.isfinite(distance[ndimage.binary_erosion(brain)]).mean() > 0.95


def test_nothing_in_common_is_infinitely_far(brain):
    found = estimate(brain, np.full(SHAPE, AIR_HU), noise_hu=0.0)
    assert found.median_mm == np.inf
    assert alignment.by_region(found.distance_mm, brain) == {}


def test_slab_of_two_slices_is_compared_in_plane(brain):
    two = (slice(None), slice(None), slice(2))
    reference = np.where(brain, texture(0), AIR_HU)[two]
    shifted = np.roll(reference, 3, axis=0)
    found = alignment.estimate_misalignment(reference, shifted, brain[two], SIZE)
    assert found.median_mm == pytest.approx(6, abs=1.5)


@pytest.mark.parametrize(('n_slices', 'unseen_mm'), [(2, 2.5), (3, 0.0)])
def test_half_a_slice_is_unseen_in_a_slab_of_two(brain, n_slices, unseen_mm):
    """Nothing in such a slab shows a shift through plane."""
    image = np.where(brain, texture(0), AIR_HU)[..., :n_slices]
    found = alignment.estimate_misalignment(image, image, brain[..., :n_slices], SIZE)
    assert found.median_mm == pytest.approx(unseen_mm, abs=0.3)
