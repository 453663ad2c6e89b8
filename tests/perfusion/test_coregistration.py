# SPDX-License-Identifier: Apache-2.0
"""The sides of a series and of a non-contrast CT."""

import numpy as np
import pytest

from ctpprep.exceptions import PerfusionError
from ctpprep.perfusion.coregistration import (
    MapLikeness,
    check_maps,
    check_side,
    compare_maps,
    likeness,
)

IMAGE = np.random.default_rng(1).normal(size=(20, 20, 5))
HEAD = np.ones(IMAGE.shape, bool)


def test_both_values_are_named():
    with pytest.raises(PerfusionError, match=r'correlation 0\.979.*0\.910.*--affine-from'):
        check_side(0.910, 0.979, 'ncct.nii')


@pytest.mark.parametrize(
    ('own', 'mirrored'),
    [
        (0.979, 0.910),
        (0.98, 0.985),
        (0.5, 0.98),
        (0.82, 0.88),
        (0.94, 0.96),
        (np.nan, 0.98),
        (0.9, np.nan),
    ],
)
def test_symmetric_heads_and_failed_registrations_are_not_refused(own, mirrored):
    check_side(own, mirrored, 'ncct.nii')


def test_only_what_both_images_show_is_compared():
    placed = np.where(np.arange(5) < 4, IMAGE, np.nan)
    assert likeness(placed, IMAGE, HEAD) == pytest.approx(1)
    assert np.isnan(likeness(np.full(IMAGE.shape, np.nan), IMAGE, HEAD))


# -- precomputed maps and a CT

AFFINE = np.diag([3.5, 3.5, 8.0, 1.0])


def draw_head(turned_deg, wide=22, ventricle=0, shape=(60, 72, 8)):
    """Draw CBV and CT of a head whose left ventricle may be larger, turned in the scanner."""
    x, y, _ = (axis - (n - 1) / 2 for axis, n in zip(np.indices(shape), shape, strict=True))
    angle = np.radians(turned_deg)
    x, y = np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y
    radius = np.hypot(x / wide, y / 28)
    csf = (x > -4 - ventricle) & (x < 4) & (np.abs(y) < 10)
    tissue = (radius < 1) & ~csf
    density = np.select(
        [tissue, radius < 1, radius < 1.1, radius < 1.3], [34, 6, 20, 900], -1000.0
    )
    return np.where(tissue, 4.0, 0.0), density + np.random.default_rng(1).normal(0, 2, shape)


@pytest.mark.parametrize(('turned_deg', 'ventricle'), [(8, 6), (0, 6)])
def test_mirrored_maps_are_refused_with_both_values(turned_deg, ventricle):
    blood, density = draw_head(turned_deg, ventricle=ventricle)
    check_maps(compare_maps(blood, density, AFFINE, 130.0), 'ncct.nii')
    mirrored = compare_maps(blood[::-1], density, AFFINE, 130.0)
    with pytest.raises(PerfusionError, match=r'mirror image of the maps.*0\.\d+.*0\.\d+'):
        check_maps(mirrored, 'ncct.nii')


def test_sides_of_a_symmetric_head_that_may_have_moved_are_not_told():
    blood, density = draw_head(8)
    mirrored = compare_maps(blood[::-1], density, AFFINE, 130.0)
    assert mirrored.own < mirrored.mirrored
    check_maps(mirrored, 'ncct.nii')


def test_maps_of_another_head_are_less_like_the_ct():
    blood, density = draw_head(0)
    other, _ = draw_head(15, wide=26, ventricle=8)
    own = compare_maps(blood, density, AFFINE, 130.0).own
    assert own > 0.9
    assert compare_maps(other, density, AFFINE, 130.0).own < own - 0.1


def test_maps_that_are_moved_a_little_still_fit():
    blood, density = draw_head(0)
    moved = np.roll(blood, 2, axis=1)
    assert compare_maps(moved, density, AFFINE, 130.0).own > 0.9


def test_maps_without_an_outline_and_ct_without_a_skull_are_not_compared():
    blood, density = draw_head(0)
    assert compare_maps(np.ones_like(blood), density, AFFINE, 130.0) is None
    assert compare_maps(blood, np.full_like(density, -1000.0), AFFINE, 130.0) is None


def test_symmetric_straight_head_is_noted():
    assert check_maps(MapLikeness(0.85, 0.849), 'ncct.nii').endswith(
        'too symmetric for its sides to be compared'
    )
