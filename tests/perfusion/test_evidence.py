# SPDX-License-Identifier: Apache-2.0
"""What a failed series shows, whatever is missing in it."""

import numpy as np
import pytest

from ctpprep.exceptions import PerfusionError
from ctpprep.perfusion import bolus, evidence, preprocessing
from ctpprep.settings import MethodSettings

METHOD = MethodSettings()


def gather(head, ctp=None, **options):
    own, affine, times = head
    ctp = own.astype(np.float32) if ctp is None else ctp
    return evidence.gather_evidence(ctp, times, affine, METHOD, **options)


@pytest.fixture
def still(toy_head):
    """The toy head without contrast."""
    ctp = toy_head[0][..., :1] + np.random.default_rng(1).normal(size=toy_head[0].shape)
    return ctp.astype(np.float32)


def test_candidates_are_the_vessels(toy_head):
    found = gather(toy_head)
    assert found.region == evidence.SEARCH_REGION
    assert set(found.outlines) == {evidence.SEARCH_REGION, 'brain'}
    assert found.marked.sum() == len(found.candidates) == evidence.MOST_CANDIDATES
    rise = np.ptp(toy_head[0][found.marked].astype(float), axis=-1)
    assert rise.min() > 150


def test_mean_is_that_of_the_region(toy_head, still):
    found = gather(toy_head, still)
    np.testing.assert_allclose(found.mean, 34, atol=3)
    np.testing.assert_array_equal(found.times, toy_head[2])


def test_motion_is_not_a_candidate_beside_vessels(toy_head):
    ctp = toy_head[0].astype(np.float32)
    ctp[20:24, 20:24, 3, 9:] += 500
    damage = np.where(ctp[..., -1] > 300, 200, 0).astype(np.float32)
    found = gather(toy_head, ctp, damage=damage)
    assert not found.marked[20:24, 20:24, 3].any()


def without_bone(ctp):
    return np.where(ctp > 300, -1000, ctp)


def without_brain(ctp):
    return np.where((ctp > -100) & (ctp < 300), -50, ctp)


def missing_frame(ctp):
    ctp[..., 5] = np.nan
    return ctp


CHANGES = {
    'no bone': without_bone,
    'no brain': without_brain,
    'missing frame': missing_frame,
    'nothing': lambda ctp: np.full_like(ctp, np.nan),
    'one value': np.zeros_like,
    'unscaled': lambda ctp: ctp + 1024,
    'infinite': lambda ctp: np.where(ctp > 300, np.inf, ctp),
}


@pytest.mark.parametrize('change', CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize('weights', [None, np.zeros(18), np.eye(18)[4]], ids=['all', '0', '1'])
def test_there_is_evidence_whatever_is_missing(toy_head, still, change, weights):
    found = gather(toy_head, change(still.copy()), weights=weights)
    assert found.outlines[found.region].any()
    assert found.marked.any()
    assert np.isfinite(found.image).all()


def test_evidence_never_raises(toy_head):
    assert gather(toy_head, None, weights=np.ones(3)) is None
    assert evidence.gather_evidence(None, None, None, None) is None


def mostly_bone(ctp):
    bone = np.where(ctp > -100, 900, ctp)
    bone[18:26, 18:30] = 34
    return bone


def test_error_without_brain_names_the_option(toy_head, still):
    _, affine, times = toy_head
    with pytest.raises(PerfusionError, match=r'need .*--brain-mask'):
        preprocessing.make_masks(mostly_bone(still), times, affine, METHOD)


def test_error_without_search_region_names_the_option(toy_head, still):
    nowhere = np.zeros(still.shape[:3], bool)
    with pytest.raises(PerfusionError, match=r'need at least one.*--brain-mask'):
        bolus.first_pass(still, nowhere, np.ones(18), toy_head[2])
