# SPDX-License-Identifier: Apache-2.0
"""Units of maps made elsewhere, the masks they lack, and an image to mirror."""

import numpy as np
import pytest
from scipy import ndimage

from ctpprep.exceptions import PerfusionError
from ctpprep.perfusion import precomputed

TISSUE = np.ones((10, 10, 5), bool)
SIZE = (3.0, 3.0, 8.0)


def convert(name, median, stated=''):
    values, facts, note = precomputed.to_standard(
        name, np.full(TISSUE.shape, median, np.float32), TISSUE, stated, tissue_density=1.04
    )
    return float(values[0, 0, 0]), facts, note


# -- units


@pytest.mark.parametrize(
    ('name', 'value', 'stated', 'expected'),
    [
        ('cbf', 40, 'mL/100 g/min', 40),
        ('cbf', 40, 'ml/min/100g', 40),
        ('cbf', 41.6, 'mL/100mL/min', 40),
        ('cbf', 0.4, 'mL/g/min', 40),
        ('rcbf', 110, '%', 1.1),
        ('cbv', 4, 'mL/100 g', 4),
        ('cbv', 4.16, '%', 4),
        ('tmax', 1500, 'ms', 1.5),
        ('mtt', 0.1, 'min', 6),
    ],
)
def test_a_stated_unit_is_converted(name, value, stated, expected):
    found, facts, note = convert(name, value, stated)
    assert found == pytest.approx(expected, rel=1e-5)
    assert facts[f'{name}_unit_from'] == 'sidecar'
    assert 'as its sidecar states' in note


@pytest.mark.parametrize(
    ('name', 'value', 'unit', 'expected'),
    [
        ('cbf', 40, 'mL/100 g/min', 40),
        ('rcbf', 0.9, '1', 0.9),
        ('rcbf', 90, 'percent', 0.9),
        ('tmax', 1.2, 's', 1.2),
        ('tmax', 1200, 'ms', 1.2),
        ('mtt', 5000, 'ms', 5),
    ],
)
def test_a_plausible_unit_is_assumed_and_told(name, value, unit, expected):
    found, facts, note = convert(name, value)
    assert found == pytest.approx(expected, rel=1e-5)
    assert facts[f'{name}_unit'] == unit
    assert facts[f'{name}_unit_from'] == 'assumed'
    assert 'no unit is stated' in note


def test_no_median_fits_two_units():
    for name, units in precomputed.UNSTATED.items():
        low, high = precomputed.PLAUSIBLE[name]
        factors = sorted(precomputed.UNITS[name][unit][0] for unit in units)
        assert high / factors[1] < low / factors[0], name


@pytest.mark.parametrize(
    ('name', 'value', 'stated', 'words'),
    [
        ('cbf', 0.4, '', 'without a stated unit, need 5 to 150 mL/100 g/min'),
        ('cbf', 2000, '', 'state Units in its sidecar'),
        ('cbf', 40, 'mL/g/min', 'check Units in its sidecar'),
        ('cbf', 40, 'HU', 'is "HU", need one of ml/100g/min'),
        ('tmax', 12, '', 'the median of Tmax over tissue is 12'),
        ('tmax', 15, '', 'need 0.05 to 8 s'),
        ('tmax', 20, '', 'state Units in its sidecar'),
        ('tmax', 15, 's', 'need 0.0333 to 12 s'),
        ('tmax', 20, 's', 'check Units in its sidecar'),
        ('mtt', 40, 's', 'the median of MTT over tissue is 40 s'),
        ('tmax', 1500, 's', '1.5e+03 s'),
    ],
)
def test_an_implausible_unit_is_one_sentence(name, value, stated, words):
    with pytest.raises(PerfusionError) as caught:
        convert(name, value, stated)
    assert words in str(caught.value)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('stated', ['', 's'])
@pytest.mark.parametrize('median', [0.3, 2.5, 4, 6.5])
def test_late_and_uncalibrated_tmax_passes(median, stated):
    """All tissue is late in heart failure; other programs give 2 to 4 s in health."""
    assert convert('tmax', median, stated)[0] == pytest.approx(median)


@pytest.mark.parametrize(('tmax', 'mtt'), [(0.3, 4.5), (3.0, 5.0), (6.0, 6.0)])
def test_tmax_and_mtt_of_one_unit_agree(tmax, mtt):
    assert not precomputed.doubt_of_times(tmax, mtt)


@pytest.mark.parametrize(('tmax', 'mtt'), [(8.0, 2.5), (0.2, 15.0)])
def test_tmax_and_mtt_of_two_units_are_doubted(tmax, mtt):
    assert 'check the Units of both' in precomputed.doubt_of_times(tmax, mtt)


def test_a_standard_unit_changes_no_voxel():
    values = np.random.default_rng(0).uniform(0.1, 9, TISSUE.shape).astype(np.float32)
    found, _, _ = precomputed.to_standard('tmax', values, TISSUE, 's', tissue_density=1.04)
    assert found is values


def test_voxels_without_a_value_do_not_count_in_the_median():
    values = np.full(TISSUE.shape, 40.0)
    values[:7] = 0
    assert precomputed.to_standard('cbf', values, TISSUE, '', tissue_density=1.04)[1][
        'cbf_median'
    ] == pytest.approx(40)


@pytest.mark.parametrize('value', [0.0, np.nan, -1.0])
def test_an_empty_map_is_refused(value):
    empty = np.full(TISSUE.shape, value)
    with pytest.raises(PerfusionError, match='empty'):
        convert('tmax', value)
    with pytest.raises(PerfusionError, match='the maps are empty'):
        precomputed.valued([empty, empty])


# -- masks


@pytest.fixture
def head():
    """Draw flow and Tmax of a brain with ventricles and a sulcus, and the CT of its head."""
    shape = (60, 72, 8)
    x, y, _ = (axis - (n - 1) / 2 for axis, n in zip(np.indices(shape), shape, strict=True))
    radius = np.hypot(x / 22, y / 28)
    brain = radius < 1
    ventricles = (np.abs(x) < 4) & (np.abs(y) < 8)
    tissue = brain & ~ventricles
    tissue[28:32, 60:, :] = False  # a sulcus that reaches the surface
    flow = np.where(tissue, 40.0, 0.0)
    tmax = np.where(tissue, 1.5, 0.0)
    density = np.select([tissue, brain, radius < 1.1, radius < 1.25], [34, 6, 20, 900], -1000.0)
    return {'brain': brain, 'tissue': tissue, 'flow': flow, 'tmax': tmax, 'density': density}


def test_brain_of_maps_holds_ventricles_and_sulci(head):
    values = precomputed.valued([head['flow'], head['tmax']])
    found = precomputed.brain_of_maps(values, SIZE)
    assert found[head['brain']].mean() > 0.98
    assert not (found & ~head['brain']).any()


def test_specks_outside_are_no_brain(head):
    head['flow'][2:5, 2:5] = 30
    values = precomputed.valued([head['flow'], head['tmax']])
    assert not precomputed.brain_of_maps(values, SIZE)[:6, :6].any()


def test_values_everywhere_have_no_outline(head):
    with pytest.raises(PerfusionError, match='--brain-mask'):
        precomputed.brain_of_maps(np.ones_like(head['brain']), SIZE)


def test_brain_of_ct_keeps_a_core_without_values_and_the_reach_of_the_maps(head):
    head['flow'][10:16, 30:40] = 0
    head['tmax'][10:16, 30:40] = 0
    for name in ('flow', 'tmax'):
        head[name][..., :3] = 0  # the CT reaches lower than the slab of the maps
    values = precomputed.valued([head['flow'], head['tmax']])
    found = precomputed.brain_of_ct(head['density'], values, SIZE, bone_hu=130, csf_level=0.4)
    assert not found[..., :3].any()
    core = head['tissue'][10:16, 30:40, 3:]
    assert found[10:16, 30:40, 3:][core].all()


def test_maps_beside_a_ct_are_noticed(head):
    values = precomputed.valued([head['flow']])
    assert precomputed.share_inside(head['density'], values) > 0.95
    moved = np.roll(head['density'], 35, axis=0)
    assert precomputed.share_inside(moved, values) < precomputed.LEAST_INSIDE


def test_a_ct_fits_maps_that_have_values_on_bone_and_air(head):
    everywhere = np.ones(head['brain'].shape, bool)
    assert precomputed.share_inside(head['density'], everywhere) > precomputed.LEAST_INSIDE
    found = precomputed.brain_of_ct(head['density'], everywhere, SIZE, bone_hu=130, csf_level=0.4)
    assert found[head['brain']].mean() > 0.97


def test_csf_of_maps_is_what_has_hardly_any_flow(head):
    noise = np.random.default_rng(0).uniform(0, 1, head['flow'].shape)
    found = precomputed.csf_of_maps(head['flow'] + noise * 0.5, None, head['brain'], (3, 3, 8))
    deep = ndimage.binary_erosion(head['brain'] & ~head['tissue'], np.ones((3, 3, 1)))
    assert found[deep].all()
    assert not found[head['tissue']].any()


def test_low_flow_with_blood_is_no_csf(head):
    flow = np.where(head['brain'], 40.0, 0.0)
    flow[20:26, 30:40] = 2.0
    blood = np.where(head['brain'], 4.0, 0.0)
    blood[20:26, 30:40] = 0.8
    assert not precomputed.csf_of_maps(flow, blood, head['brain'], SIZE)[20:26, 30:40].any()


def test_vessels_are_far_above_the_median(head):
    head['flow'][30, 20] = 200
    found = precomputed.vessels_of_maps(head['flow'], head['brain'], 2.5)
    assert found[30, 20].all()
    assert found.sum() == head['flow'].shape[2]


def test_a_mask_beside_the_maps_is_refused(head):
    values = precomputed.valued([head['flow']])
    precomputed.check_mask(head['brain'], values, 'mask.nii')
    with pytest.raises(PerfusionError, match=r'^mask\.nii: '):
        precomputed.check_mask(~head['brain'], values, 'mask.nii')


# -- the image to mirror


def test_the_same_grid_is_not_resampled():
    density = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
    found = precomputed.on_grid(density, np.eye(4), density.shape, np.eye(4), -1024.0)
    np.testing.assert_array_equal(found, density)


def test_a_finer_and_larger_image_is_averaged_in_its_place():
    fine = np.zeros((24, 24, 6), np.float32)
    fine[12:, :, :] = 40
    affine = np.diag([1.0, 1, 5, 1])
    coarse = np.diag([2.0, 2, 5, 1])
    coarse[:3, 3] = (0.5, 0.5, 5)
    found = precomputed.on_grid(fine, affine, (12, 12, 5), coarse, -1024.0)
    np.testing.assert_allclose(found[:5], 0, atol=0.5)
    np.testing.assert_allclose(found[7:, :, :4], 40, atol=0.5)


def test_beyond_the_image_there_is_air():
    found = precomputed.on_grid(np.zeros((4, 4, 4)), np.eye(4), (8, 4, 4), np.eye(4), -1024.0)
    assert (found[5:] == -1024).all()


def test_the_substitute_fills_the_window_of_the_registration(head):
    found = precomputed.substitute(head['flow'], head['tissue'], (0.0, 60.0))
    assert (found[head['tissue']] == 60).all()
    assert (found[~head['brain']] == 0).all()
    assert found.dtype == np.float32
