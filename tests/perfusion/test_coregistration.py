# SPDX-License-Identifier: Apache-2.0
"""The sides of a series and of a non-contrast CT."""

import numpy as np
import pytest

from ctpprep.exceptions import PerfusionError
from ctpprep.perfusion.coregistration import check_side, likeness

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
