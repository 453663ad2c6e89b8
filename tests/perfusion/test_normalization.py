# SPDX-License-Identifier: Apache-2.0
"""Global and local normalization."""

import numpy as np
import pytest
from scipy import ndimage

from ctpprep.exceptions import PerfusionError
from ctpprep.perfusion import normalization

RNG = np.random.default_rng(0)
SHAPE = (24, 20, 10)
ALL = np.ones(SHAPE, bool)
AFFINE = np.diag([2.0, 2.0, 5.0, 1.0])
PAPER = {'clip': 1.5, 'sigma_mm': (12.0, 12.0, 4.0), 'floor': 0.1, 'least_weight': 0.1}
ROTATED = AFFINE.copy()
ROTATED[:3, :3] = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]]) @ AFFINE[:3, :3]


def rotation(degrees):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array(
        [[1, 0, 0], [0, c, -s], [0, s, c]]
    )


def impulse():
    volume = np.zeros((31, 29, 21))
    volume[15, 14, 10] = 1
    return volume


def local(relative, mirrored, assessable=ALL, tissue=ALL, affine=AFFINE, **changes):
    return normalization.normalize_contralateral(
        relative, mirrored, assessable, tissue, affine, **PAPER | changes
    )


# -- global


def test_the_median_of_the_reference_becomes_1():
    cbf = RNG.uniform(5, 90, SHAPE)
    chosen = RNG.random(SHAPE) > 0.5
    relative, reference = normalization.normalize_global(cbf, chosen, ALL)
    assert np.median(relative[chosen]) == pytest.approx(1)
    np.testing.assert_allclose(relative * reference, cbf, rtol=1e-5)


def test_scaling_the_map_leaves_the_relative_map():
    cbf = RNG.uniform(5, 90, SHAPE)
    first, second = (normalization.normalize_global(k * cbf, ALL, ALL)[0] for k in (1, 7.3))
    np.testing.assert_allclose(first, second, rtol=1e-5)


def test_air_stays_0_whatever_it_holds():
    cbf, tissue = np.full(SHAPE, 40.0), ALL.copy()
    tissue[0] = False
    cbf[0] = np.nan
    relative, _ = normalization.normalize_global(cbf, tissue, tissue)
    assert not relative[0].any()
    assert (relative[1:] == 1).all()


def test_a_reference_without_flow_is_refused():
    with pytest.raises(PerfusionError, match='must be above 0'):
        normalization.normalize_global(np.zeros(SHAPE), ALL, ALL)


def choose(tmax, hemisphere=None, tissue=ALL, affected='left', reference='normal-tmax', least=0.5):
    hemisphere = (
        np.where(np.arange(24)[:, None, None] < 12, 1, 2) if hemisphere is None else hemisphere
    )
    return normalization.reference_tissue(
        tmax, np.broadcast_to(hemisphere, SHAPE), tissue, affected,
        global_reference=reference, normal_tmax=4.0, least_normal_share=least,
    )  # fmt: skip


def test_normal_tissue_has_a_tmax_up_to_4_s():
    tmax = np.full(SHAPE, 4.0)
    tmax[:5] = 4.001
    tissue = ALL.copy()
    tissue[:, :3] = False
    found = choose(tmax, tissue=tissue)
    np.testing.assert_array_equal(found.mask, tissue & (tmax <= 4))
    assert (found.rule, found.meaning) == ('normal-tmax', 'tissue with Tmax <= 4 s')
    assert found.normal_share == pytest.approx(19 / 24)
    assert found.reason == ''


@pytest.mark.parametrize(('affected', 'healthy'), [('left', slice(12, 24)), ('right', slice(12))])
def test_contralateral_reference_is_the_healthy_hemisphere(affected, healthy):
    chosen = choose(np.full(SHAPE, 9.0), affected=affected, reference='contralateral').mask
    assert chosen[healthy].all()
    assert chosen.sum() == chosen[healthy].sum()


def test_too_little_normal_tissue_is_refused():
    with pytest.raises(PerfusionError, match='at least 100'):
        choose(np.full(SHAPE, 9.0), least=0.0)


# -- a doubtful reference


def late_brain(delay=0.0):
    """Tmax of 0.8 to 2.8 s on the right, 4 s more on the left; flow falls with it."""
    own = np.broadcast_to(0.8 + 2 * RNG.random(SHAPE[1:]), SHAPE).copy()
    flow = 80 - 15 * own
    own[:12] += 4
    return own + delay, flow


def test_a_delay_of_all_tissue_changes_no_reference():
    tmax, flow = late_brain()
    healthy = np.median(flow[choose(tmax).mask])
    for delay in (3.0, 5.0, 20.0):
        found = choose(tmax + delay)
        assert found.rule == 'early-contralateral'
        assert np.median(flow[found.mask]) == pytest.approx(healthy, rel=0.02)
    # what happens to lie within 4 s is the best perfused
    within = choose(tmax + 2.5, least=0.0)
    assert np.median(flow[within.mask]) > 1.15 * healthy


def test_the_replaced_reference_is_early_tissue_of_the_unaffected_side():
    tmax, _ = late_brain(3.0)
    tmax[12:, :10] += 4  # another vessel's territory, diseased too
    for affected, healthy in (('left', slice(12, 24)), ('right', slice(12))):
        found = choose(tmax, affected=affected)
        outside = np.ones(SHAPE, bool)
        outside[healthy] = False
        assert not found.mask[outside].any()
        early = np.percentile(tmax[healthy], 10)
        assert found.tmax_limit == pytest.approx(early + 3)
        assert tmax[found.mask].max() <= early + 3
    assert not choose(tmax).mask[12:, :10].any()


def test_the_reason_tells_the_share_and_what_is_needed():
    found = choose(late_brain(10.0)[0])
    assert 'only 0% of tissue has a Tmax within 4 s, at least 50% are needed' in found.reason
    assert 'tissue of the right hemisphere with Tmax <= 14.' in found.meaning


def test_half_of_the_tissue_is_enough():
    tmax = np.full(SHAPE, 9.0)
    tmax[:12] = 1.0
    assert choose(tmax).rule == 'normal-tmax'
    tmax[11] = 9.0
    assert choose(tmax).rule == 'early-contralateral'
    assert choose(tmax, least=0.4).rule == 'normal-tmax'


def test_the_contralateral_reference_is_never_replaced():
    found = choose(np.full(SHAPE, 9.0), reference='contralateral')
    assert (found.rule, found.reason) == ('contralateral', '')


# -- the Gaussian


def test_gaussian_on_a_straight_grid_agrees_with_scipy():
    volume = np.zeros((40, 40, 20))
    volume[12:28, 12:28, 6:14] = RNG.normal(size=(16, 16, 8))
    found = normalization.gaussian_in_patient_axes(volume, AFFINE, (4.0, 6.0, 10.0))
    expected = ndimage.gaussian_filter(volume, (2, 3, 2), mode='constant', truncate=6)
    np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())


def test_a_grid_turned_by_90_degrees_permutes_the_sigmas():
    volume = RNG.normal(size=SHAPE)
    turned = normalization.gaussian_in_patient_axes(volume, ROTATED, (12.0, 5.0, 4.0))
    straight = normalization.gaussian_in_patient_axes(volume, AFFINE, (5.0, 12.0, 4.0))
    np.testing.assert_allclose(turned, straight, atol=1e-10)


def test_a_flipped_grid_smooths_the_same():
    volume = RNG.normal(size=SHAPE)
    flipped = AFFINE @ np.diag([-1.0, 1, 1, 1])
    found = normalization.gaussian_in_patient_axes(volume[::-1], flipped, (8.0, 5.0, 4.0))
    straight = normalization.gaussian_in_patient_axes(volume, AFFINE, (8.0, 5.0, 4.0))
    np.testing.assert_allclose(found[::-1], straight, atol=5e-3 * np.abs(straight).max())


def test_gaussian_of_an_oblique_grid_agrees_with_the_direct_sum():
    affine = np.eye(4)
    affine[:3, :3] = rotation(30) @ np.diag([2.0, 2.0, 3.0])
    sigma = np.array([9.0, 5.0, 6.0])
    found = normalization.gaussian_in_patient_axes(impulse(), affine, sigma)
    index = np.stack(np.meshgrid(*map(np.arange, impulse().shape), indexing='ij'), axis=-1)
    apart = (index - (15, 14, 10)) @ affine[:3, :3].T
    by_hand = np.exp(-0.5 * ((apart / sigma) ** 2).sum(axis=-1))
    by_hand *= np.linalg.det(affine[:3, :3]) / ((2 * np.pi) ** 1.5 * sigma.prod())
    np.testing.assert_allclose(found, by_hand, atol=5e-3 * by_hand.max())


def test_one_edge_does_not_leak_into_the_other():
    volume = np.zeros(SHAPE)
    volume[0] = 1
    found = normalization.gaussian_in_patient_axes(volume, AFFINE, (6.0, 6.0, 4.0))
    assert np.abs(found[-1]).max() < 2e-3 * found.max()


def test_sigma_0_changes_nothing():
    volume = RNG.normal(size=SHAPE)
    found = normalization.gaussian_in_patient_axes(volume, AFFINE, (0.0, 0.0, 0.0))
    np.testing.assert_allclose(found, volume, atol=1e-10)


# -- local


def test_a_symmetric_brain_normalizes_to_1():
    half = RNG.uniform(0.4, 1.4, (12, 20, 10))
    brain = np.concatenate([half, half[::-1]])
    found, unassessable = local(brain, brain[::-1], sigma_mm=(0.0, 0.0, 0.0))
    np.testing.assert_allclose(found, 1, rtol=1e-5)
    assert not unassessable.any()


def test_flow_halved_on_both_sides_normalizes_to_1():
    found, _ = local(np.full(SHAPE, 0.5), np.full(SHAPE, 0.5))
    np.testing.assert_allclose(found, 1, rtol=1e-4)


def test_flow_halved_on_one_side_is_half_there_and_double_opposite():
    relative = np.where(np.arange(24)[:, None, None] < 12, 0.5, 1.0) * ALL
    found, _ = local(relative, relative[::-1], sigma_mm=(0.0, 0.0, 0.0))
    np.testing.assert_allclose(found[:12], 0.5, rtol=1e-5)
    np.testing.assert_allclose(found[12:], 2.0, rtol=1e-5)


def test_the_divided_map_is_not_smoothed():
    relative = RNG.uniform(0.1, 1.4, SHAPE)
    found, _ = local(relative, np.ones(SHAPE))
    np.testing.assert_allclose(found, relative, rtol=1e-4)


def test_vessel_in_counterpart_is_capped():
    mirrored = np.ones(SHAPE)
    mirrored[10:13, 10:13, 4:6] = 20
    found, _ = local(np.ones(SHAPE), mirrored)
    capped, _ = local(np.ones(SHAPE), np.minimum(mirrored, 1.5))
    np.testing.assert_array_equal(found, capped)
    assert found.min() >= 1 / 1.5


@pytest.mark.parametrize('outside', [0.0, 100.0, np.nan])
def test_what_is_no_tissue_at_the_homologue_does_not_leak_in(outside):
    assessable = ALL.copy()
    assessable[:, 8:12] = False
    mirrored = np.where(assessable, 0.8, outside)
    found, unassessable = local(np.full(SHAPE, 0.4), mirrored, assessable)
    np.testing.assert_allclose(found, 0.5, rtol=1e-3)
    assert not unassessable.any()


def test_smoothing_agrees_with_the_sum_over_homologues_that_are_tissue():
    assessable = RNG.random(SHAPE) > 0.4
    mirrored = RNG.uniform(0.2, 1.4, SHAPE)
    sigma = np.array([5.0, 4.0, 6.0])
    found, _ = local(np.ones(SHAPE), mirrored, assessable, sigma_mm=sigma)
    where = np.argwhere(assessable) * (2.0, 2.0, 5.0)
    for voxel in ((12, 10, 5), (1, 2, 0), (20, 15, 9)):
        apart = where - np.array(voxel) * (2.0, 2.0, 5.0)
        share = np.exp(-0.5 * ((apart / sigma) ** 2).sum(axis=1))
        smooth = share @ mirrored[assessable] / share.sum()
        assert found[voxel] == pytest.approx(1 / smooth, rel=0.01)


def test_tissue_without_homologue_is_unassessable():
    assessable = ALL.copy()
    assessable[:12] = False
    found, unassessable = local(np.ones(SHAPE), np.ones(SHAPE), assessable, sigma_mm=(4, 4, 4))
    assert unassessable[:8].all()
    assert not unassessable[12:].any()
    assert not found[unassessable].any()


def test_a_homologue_without_flow_is_unassessable():
    found, unassessable = local(np.ones(SHAPE), np.full(SHAPE, 0.09))
    assert unassessable.all()
    assert not found.any()


def test_only_tissue_is_given_and_counted():
    tissue = RNG.random(SHAPE) > 0.5
    found, unassessable = local(np.ones(SHAPE), np.zeros(SHAPE), tissue=tissue)
    np.testing.assert_array_equal(unassessable, tissue)
    found, _ = local(np.ones(SHAPE), np.ones(SHAPE), tissue=tissue)
    assert not found[~tissue].any()


def test_the_edge_of_the_slab_is_no_lesion():
    found, unassessable = local(np.full(SHAPE, 0.7), np.full(SHAPE, 0.7))
    assert np.ptp(found) < 1e-3
    assert not unassessable.any()
