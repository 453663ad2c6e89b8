# SPDX-License-Identifier: Apache-2.0
"""Precomputed maps in standard units, with the masks and the image to mirror they lack."""

import numpy as np
import pytest
from scipy import ndimage

from ctpprep.exceptions import PerfusionError
from ctpprep.perfusion.overrides import SuppliedMask
from ctpprep.perfusion.standardization import Image, standardize_maps
from ctpprep.settings import MethodSettings

SHAPE = (60, 72, 8)
AFFINE = np.diag([3.0, 3.0, 8.0, 1.0])
AFFINE[:3, 3] = -88, -106, -30


@pytest.fixture(scope='module')
def head(mapped_head):
    return mapped_head


def standardize(head, density=None, kind='', units=(), brain=None, tissue=None, **changed):
    """Standardize the maps of the head; None removes a map."""
    maps = {name: head[name] for name in ('cbf', 'cbv', 'tmax')} | changed
    density = None if density is None else Image(density, AFFINE, 'ct.nii')
    supplied = (
        None if mask is None else SuppliedMask(mask, AFFINE, f'{name}.nii')
        for name, mask in (('brain', brain), ('tissue', tissue))
    )
    return standardize_maps(
        {name: values for name, values in maps.items() if values is not None}, AFFINE,
        dict(units), MethodSettings(), density, kind, *supplied,
    )  # fmt: skip


def notes(standard):
    return '\n'.join(standard.notes)


# -- masks


def test_tissue_is_brain_without_vessels_and_csf(head):
    standard = standardize(head, head['density'], 'ncct')
    tissue = standard.masks['tissue_mask']
    assert not (tissue & (head['vessel'] | head['ventricles'])).any()
    assert (tissue == head['tissue'])[head['brain']].mean() > 0.97
    assert standard.masks['vessel_mask'][head['vessel']].all()
    assert standard.measured['brain_mask_from'].startswith('baseline CT')
    assert standard.brain_from_density


def test_tissue_without_a_ct_is_nearly_the_same(head):
    standard = standardize(head)
    tissue = standard.masks['tissue_mask']
    assert (tissue == head['tissue'])[head['brain']].mean() > 0.97
    assert standard.measured['brain_mask_from'] == 'where the maps have values'


def test_supplied_masks_and_values_are_unchanged(head):
    standard = standardize(
        head, head['density'], 'ctpref', {'cbf': 'mL/100 g/min', 'tmax': 's'}, head['brain'],
        head['tissue'],
    )  # fmt: skip
    np.testing.assert_array_equal(standard.masks['brain_mask'], head['brain'])
    np.testing.assert_array_equal(standard.masks['tissue_mask'], head['tissue'])
    for name in ('cbf', 'tmax'):
        expected = np.where(head['tissue'], head[name], 0)
        np.testing.assert_array_equal(standard.maps[name], expected)
    np.testing.assert_array_equal(standard.reference, head['density'])
    assert 'vessel_mask' not in standard.masks
    assert standard.measured['tissue_mask_from'] == 'supplied'


def test_narrowed_brain_mask_narrows_supplied_tissue(head):
    left = head['brain'].copy()
    left[30:] = False
    standard = standardize(head, brain=left, tissue=head['tissue'])
    np.testing.assert_array_equal(standard.masks['tissue_mask'], head['tissue'] & left)


def test_mask_beside_the_maps_is_refused(head):
    with pytest.raises(PerfusionError, match=r'brain\.nii: '):
        standardize(head, brain=~head['brain'])


@pytest.mark.parametrize('background', [0, -1000])
def test_brain_is_found_in_a_skull_stripped_ct(head, background):
    stripped = np.where(head['brain'], head['density'], background)
    brain = standardize(head, stripped, 'ncct').masks['brain_mask']
    assert brain[head['brain']].mean() > 0.9  # at an edge to air a rim is lost
    assert not (brain & ~head['brain']).any()


# -- maps


def test_maps_are_0_outside_tissue(head):
    holed = head['cbf'].copy()
    holed[:5] = np.nan
    holed[20, 30] = np.nan
    standard = standardize(head, cbf=holed)
    tissue = standard.masks['tissue_mask']
    assert not tissue[20, 30].any()
    for values in standard.maps.values():
        assert not values[~tissue].any()


@pytest.mark.parametrize('hole', [np.nan, np.inf])
def test_hole_of_one_map_is_0_and_does_not_affect_the_others(head, hole):
    holed = head['cbv'].copy()
    holed[20, 30] = hole
    standard = standardize(head, cbv=holed)
    assert not standard.maps['cbv'][20, 30].any()
    assert np.isfinite(standard.maps['cbv']).all()
    assert np.isfinite(standard.reference).all()
    assert (standard.maps['cbf'][20, 30] > 0).all()


def test_percent_and_milliseconds_become_fractions_and_seconds(head):
    standard = standardize(
        head, units={'rcbf': 'percent'}, cbf=None, cbv=None, rcbf=head['cbf'] * 2,
        tmax=head['tmax'] * 1000,
    )  # fmt: skip
    tissue = standard.masks['tissue_mask']
    np.testing.assert_allclose(standard.maps['tmax'][tissue], 1.5, rtol=1e-6)
    np.testing.assert_allclose(standard.maps['cbf'][tissue], head['cbf'][tissue] / 50, rtol=1e-5)
    assert standard.measured['tmax_unit'] == 'ms'
    assert 'divided again by the median of our own reference tissue' in notes(standard)


def test_tmax_that_disagrees_with_mtt_is_noted(head):
    assert 'disagree' not in notes(standardize(head, mtt=head['tmax'] * 3))
    doubtful = standardize(head, tmax=head['tmax'] * 5, mtt=head['tmax'])
    assert 'Tmax and MTT disagree' in notes(doubtful)


def test_empty_map_is_refused(head):
    with pytest.raises(PerfusionError, match='the map of Tmax is empty'):
        standardize(head, tmax=np.zeros(SHAPE, np.float32))


# -- image to mirror


def test_map_replaces_a_missing_ct(head):
    standard = standardize(head)
    assert standard.measured['reference_image_from'] == 'cbv'
    assert 'for want of a CT' in notes(standard)
    assert not standard.by_density


def test_flow_replaces_a_missing_ct_without_cbv(head):
    assert standardize(head, cbv=None).measured['reference_image_from'] == 'cbf'


def test_ct_of_a_larger_grid_is_resampled_to_that_of_the_maps(head):
    affine = AFFINE.copy()
    affine[:3, 3] -= 4 * np.diag(AFFINE)[:3]
    wide = Image(np.pad(head['density'], 4, mode='edge'), affine, 'wide.nii')
    maps = {name: head[name] for name in ('cbf', 'cbv', 'tmax')}
    standard = standardize_maps(maps, AFFINE, {}, MethodSettings(), wide, 'ncct')
    np.testing.assert_allclose(standard.reference, head['density'], atol=1e-3)
    assert standard.by_density


def test_ncct_beside_the_maps_is_noted_and_not_used(head):
    standard = standardize(head, np.roll(head['density'], 30, axis=0), 'ncct')
    assert standard.measured['reference_image_from'] == 'cbv'
    assert 'baseline CT not used: ct.nii' in notes(standard)
    used = (standard.density_used, standard.brain_from_density, standard.by_density)
    assert used == (False, False, False)


def test_reference_beside_the_maps_is_refused(head):
    with pytest.raises(PerfusionError, match=r'ct\.nii: .* in the space of the maps'):
        standardize(head, np.roll(head['density'], 30, axis=0), 'ctpref')


def test_ct_without_a_brain_is_still_mirrored(head, monkeypatch):
    def find_none(*_, **__):
        raise PerfusionError('no brain')

    monkeypatch.setattr('ctpprep.perfusion.precomputed.brain_of_ct', find_none)
    standard = standardize(head, head['density'], 'ncct')
    assert standard.by_density
    assert standard.density_used
    assert not standard.brain_from_density
    assert 'baseline CT shows no brain: no brain' in notes(standard)


def with_a_cyst(head):
    """Return maps and density of the head with a cyst in front on the right, so that sides differ."""
    x, y, _ = np.indices(head['brain'].shape)
    cyst = head['brain'] & (x > 0.55 * x.max()) & (y > 0.6 * y.max())
    maps = {name: np.where(cyst, 0.0, head[name]) for name in ('cbf', 'cbv', 'tmax')}
    return maps, np.where(cyst, 5.0, head['density'])


def test_mirrored_maps_beside_a_ct_are_refused(head):
    maps, density = with_a_cyst(head)
    standard = standardize(head, density, 'ncct', **maps)
    assert standard.measured['map_likeness'] > standard.measured['mirrored_map_likeness']
    with pytest.raises(
        PerfusionError, match=r'ct\.nii: the mirror image of the maps fits it better'
    ):
        standardize(head, density[::-1], 'ncct', **maps)


def test_maps_of_a_symmetric_head_that_moved_are_not_called_mirrored(head):
    turned = {
        name: ndimage.rotate(
            head[name], angle, reshape=False, order=1, cval=-1000 * (name == 'density')
        )
        for name, angle in (('cbf', 5), ('cbv', 5), ('tmax', 5), ('density', -5))
    }
    maps = {name: turned[name] for name in ('cbf', 'cbv', 'tmax')}
    measured = standardize(head, turned['density'], 'ncct', **maps).measured
    assert measured['map_likeness'] < measured['mirrored_map_likeness']
