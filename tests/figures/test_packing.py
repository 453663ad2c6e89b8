# SPDX-License-Identifier: Apache-2.0
"""What the viewer gets of a follow-up lesion."""

import base64
import zlib

import numpy as np

from ctpprep.figures.packing import pack_series


def test_lesion_of_a_follow_up_is_an_outline_with_its_own_bit():
    brain = np.ones((6, 5, 3), bool)
    lesion = np.zeros(brain.shape, bool)
    lesion[2:4, 1:3, 1] = True
    packed = pack_series({'brain_mask': brain, 'followup_mask': lesion}, np.eye(4))
    bits = np.frombuffer(zlib.decompress(base64.b64decode(packed['bits'])), '<u2')
    place = packed['masks'].index('followup_mask')
    np.testing.assert_array_equal(bits.reshape(brain.shape, order='F') >> place & 1, lesion)
    (overlay,) = (o for o in packed['overlays'] if o['name'] == 'followup_mask')
    assert (overlay['style'], overlay['on']) == ('line', True)
