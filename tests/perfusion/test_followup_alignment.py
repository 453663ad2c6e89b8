# SPDX-License-Identifier: Apache-2.0
"""How the alignment of an MR image with a CT is judged, on the toy head."""

import numpy as np
import pytest

from ctpprep.perfusion.followup_alignment import align_image, judge_alignment
from ctpprep.settings import MethodSettings


@pytest.fixture(scope='module')
def heads(toy_head):
    """Reference CT, brain mask, and an MR image of the opposite contrast of CSF."""
    ctp, affine, _ = toy_head
    ct = ctp[..., 0].astype(float)
    brain = (ct > -50) & (ct < 100)
    texture = 40 * np.random.default_rng(0).normal(size=ct.shape)
    mr = np.where(brain, np.where(ct > 20, 300, 80) + texture, 20)
    return (ct, affine), brain, (np.clip(mr, 0, None), affine)


def test_image_in_place_has_the_greatest_mutual_information(heads):
    reference, brain, image = heads
    overlap, similarity = judge_alignment(image, reference, brain, np.eye(4))
    assert overlap > 0.95
    assert similarity == 1


@pytest.mark.parametrize('shift', [(12, 0, 0), (0, -16, 0)])
def test_shifted_image_is_left_out(heads, shift):
    reference, brain, image = heads
    matrix = np.eye(4)
    matrix[:3, 3] = shift
    method = MethodSettings()
    result = align_image(reference, image, reference, brain, None, lambda *_, **__: matrix, method)
    assert result['similarity'] < 0.9
    assert 'not aligned with the CT' in result['left_out']


def test_failed_registration_is_left_out(heads):
    reference, brain, image = heads
    result = align_image(
        reference, image, reference, brain, None, lambda *_, **__: None, MethodSettings()
    )
    assert result['left_out'] == 'the registration of its image to the CT failed'
    assert result['matrix'] is None
