# SPDX-License-Identifier: Apache-2.0
"""Masks and corrected series of this head, and of another."""

import numpy as np
import pytest

from ctpprep.exceptions import PerfusionError
from ctpprep.perfusion import quality, same_head
from ctpprep.settings import MethodSettings

# -- another head


def a_skull(width, height=78.0):
    """An elliptic head with a denser back of the skull, HU."""
    x, y = np.meshgrid(np.arange(-48, 48) * 2.0, np.arange(-48, 48) * 2.0, indexing='ij')
    radius = np.hypot(x / width, y / height)
    bone = np.where(y < -30, 1200.0, 700.0)
    head = np.select([radius < 0.88, radius < 1, radius < 1.08], [34.0, bone, 40.0], -1000.0)
    return np.repeat(head[..., None], 6, axis=2).astype(np.float32)


HEAD_AFFINE = np.diag([2.0, 2.0, 5.0, 1.0])


def compare(corrected, raw, raw_affine=HEAD_AFFINE):
    same_head.check_same_head(
        corrected, HEAD_AFFINE, raw[..., None], raw_affine, MethodSettings(), 'c.nii'
    )


def test_corrected_series_of_the_same_head_is_accepted():
    moved = HEAD_AFFINE.copy()
    moved[:2, 3] = 4.0, 6.0
    compare(a_skull(66.0), a_skull(66.0))
    compare(a_skull(66.0), a_skull(66.0), moved)


def test_corrected_series_of_another_head_is_refused():
    with pytest.raises(PerfusionError, match=r'c\.nii: its skull .* same participant'):
        compare(a_skull(66.0), a_skull(56.0, 86.0))


def test_head_without_skull_is_not_compared():
    compare(np.minimum(a_skull(66.0), 60), a_skull(56.0))


# -- brain masks


def disc(width, height=34.0, shape=(96, 96, 6)):
    x, y, _ = (axis - (n - 1) / 2 for axis, n in zip(np.indices(shape), shape, strict=True))
    return np.hypot(x / width, y / height) < 1


SKULL = disc(28.0)


def protrusion(mask):
    return same_head.protrusion(mask, SKULL, (2.0, 2.0, 5.0))


@pytest.mark.parametrize(
    'mask', [disc(27.0, 33.0), disc(29.0, 35.0), disc(24.0, 30.0), SKULL & (np.indices(SKULL.shape)[1] < 60)],
    ids=['right', 'wide', 'narrow', 'without the front'],
)  # fmt: skip
def test_brain_mask_of_any_margin_does_not_protrude(mask):
    same_head.check_brain(mask, disc(27.0, 33.0), SKULL, 'mask.nii')
    assert protrusion(mask) < 0.01


@pytest.mark.parametrize(
    'mask', [disc(32.0, 29.0), np.roll(SKULL, 3, axis=0)], ids=['other', 'moved']
)
def test_brain_mask_of_another_head_protrudes(mask):
    (check,) = (check for check in quality.CHECKS if check.name == 'mask_outline')
    assert quality.judge(check, protrusion(mask)) == 'warn'


def test_brain_mask_outside_the_skull_is_refused():
    with pytest.raises(PerfusionError, match=r'mask\.nii: \d+% of the mask is inside the skull'):
        same_head.check_brain(np.roll(SKULL, 30, axis=0), SKULL, SKULL, 'mask.nii')


def test_mask_beside_the_brain_is_refused_as_exclusion():
    same_head.check_inside(disc(10.0, 10.0), SKULL, 'mask.nii')
    with pytest.raises(PerfusionError, match=r'mask\.nii: 0% of its voxels are inside the skull'):
        same_head.check_inside(np.roll(disc(3.0, 3.0), 34, axis=0), SKULL, 'mask.nii')
