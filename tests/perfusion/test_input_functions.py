# SPDX-License-Identifier: Apache-2.0
"""AIF and VOF of a head with arteries in front and a sinus at the back, found or supplied."""

from types import SimpleNamespace

import numpy as np
import pytest

from ctpprep.exceptions import VesselError
from ctpprep.perfusion.input_functions import aif_scale, find_vessels
from ctpprep.perfusion.overrides import SuppliedCurves, SuppliedMask
from ctpprep.settings import MethodSettings


def find(head, supplied=None, sample_times=None, weights=None, **changed):
    times = head.times if sample_times is None else sample_times
    method = MethodSettings.of(**changed)
    return find_vessels(head.ctp, times, head.affine, head, method, weights, supplied)


@pytest.fixture(scope='module')
def vessels(slow_head):
    return find(slow_head)


@pytest.fixture(scope='module')
def late_upper_slices(slow_head):
    """Sample times if the slices without arteries, from the fourth on, are scanned 1 s later."""
    times = np.tile(slow_head.times, (6, 1))
    times[3:] += 1.0
    return times


# -- found


def test_aif_is_in_the_arteries_and_vof_in_the_sinus(vessels):
    aif, vof = np.argwhere(vessels.aif_mask), np.argwhere(vessels.vof_mask)
    assert len(aif) == len(vof) == MethodSettings().vessels.aif_voxels
    assert (aif[:, 1] > 26).all()  # in front
    assert (aif[:, 2] < 3).all()
    assert (vof[:, 1] < 12).all()  # at the back


def test_aif_has_the_height_of_the_artery_and_peaks_before_the_vof(vessels):
    assert 150 < vessels.aif.max() < 275
    assert np.argmax(vessels.aif) < np.argmax(vessels.vof)
    assert abs(vessels.aif[:3].mean()) < 2


def test_number_of_voxels_is_that_of_the_settings(slow_head):
    vessels = find(slow_head, aif_voxels=5)
    assert vessels.aif_mask.sum() == vessels.vof_mask.sum() == 5


def test_times_are_those_of_the_slices_of_the_artery(slow_head, late_upper_slices):
    vessels = find(slow_head, sample_times=late_upper_slices)
    np.testing.assert_allclose(vessels.times, slow_head.times)


def test_rejected_frame_of_the_aif_is_interpolated(slow_head):
    spoilt, weights = slow_head.ctp.copy(), np.ones(18)
    spoilt[..., 4], weights[4] = np.nan, 0.0
    vessels = find(SimpleNamespace(**vars(slow_head) | {'ctp': spoilt}), weights=weights)
    assert vessels.weights[4] == 0
    assert vessels.aif[4] == pytest.approx((vessels.aif[3] + vessels.aif[5]) / 2)


@pytest.mark.parametrize(
    ('scaling', 'vof', 'factor'),
    [
        ('auto', 2.0, 2.0), ('vof', 2.0, 2.0), ('none', 2.0, 1.0),
        ('auto', 0.5, 1.0), ('vof', 0.5, 1.0),  # partial volume only lowers the AIF
        ('auto', 8.0, 1.0), ('vof', 8.0, 8.0),  # more than partial volume explains
        ('auto', np.nan, 1.0),
    ],
)  # fmt: skip
def test_aif_is_scaled_up_to_the_area_of_a_plausible_vof(scaling, vof, factor):
    aif = np.array([0.0, 10, 20, 10, 0])
    assert aif_scale(np.arange(5), aif, vof * aif, scaling) == pytest.approx(factor)


# -- supplied curves


def supply(vof=None):
    """Return an AIF that continues beyond the scan, with two samples for one of the scan."""
    times = np.arange(-4, 50, 1.0)
    rise = np.clip((times - 5) / 5, 0, None)
    return SuppliedCurves(times, 300 * (rise * np.exp(1 - rise)) ** 2, vof, 'my_aif.tsv')


def test_supplied_curve_is_the_aif_during_the_scan(slow_head):
    vessels = find(slow_head, supply())
    np.testing.assert_allclose(vessels.times, np.arange(0, 35, 1.0))
    assert vessels.aif.max() == 300
    assert (vessels.weights == 1).all()
    assert not vessels.aif_mask.any()


def test_aif_is_found_beside_a_supplied_one_for_comparison(slow_head, vessels):
    beside = find(slow_head, supply())
    np.testing.assert_allclose(
        np.interp(vessels.times, beside.times, beside.automatic), vessels.aif, atol=1e-6
    )
    assert vessels.automatic is None


def test_vof_is_found_beside_a_supplied_aif(slow_head):
    vessels = find(slow_head, supply())
    assert (np.argwhere(vessels.vof_mask)[:, 1] < 12).all()  # at the back
    assert 200 < vessels.vof.max() < 350


def test_supplied_vof_replaces_ours(slow_head):
    vessels = find(slow_head, supply(vof=np.full(54, 77.0)))
    assert (vessels.vof == 77).all()
    assert not vessels.vof_mask.any()


@pytest.fixture(scope='module')
def without_vein(slow_head):
    ctp = slow_head.ctp.copy()
    ctp[:, :12] = ctp[:, :12, :, :1]  # nothing enhances at the back
    return SimpleNamespace(**vars(slow_head) | {'ctp': ctp})


@pytest.mark.parametrize('supplied', [supply(), None], ids=['supplied', 'found'])
def test_an_aif_needs_no_vof(without_vein, supplied):
    """A thin slab may contain no sinus."""
    vessels = find(without_vein, supplied)
    assert vessels.aif.max() > 100
    assert np.isnan(vessels.vof).all()
    assert not vessels.vof_mask.any()


@pytest.mark.parametrize('supplied', [supply(), None], ids=['supplied', 'found'])
def test_missing_vof_is_an_error_if_the_aif_is_scaled_to_it(without_vein, supplied):
    with pytest.raises(VesselError, match=r'no vein-like curve .* use --aif-scaling auto'):
        find(without_vein, supplied, aif_scaling='vof')


# -- supplied voxels


def test_voxel_of_a_finer_grid_selects_the_voxel_around_it(slow_head):
    fine = slow_head.affine @ np.diag([0.5, 0.5, 1, 1])
    fine[:2, 3] -= 1.0
    artery = np.argwhere(slow_head.ctp[..., 5] - slow_head.ctp[..., 0] > 150)[0]
    mask = np.zeros((88, 104, 6), bool)
    mask[2 * artery[0] + 1, 2 * artery[1], artery[2]] = True
    vessels = find(slow_head, SuppliedMask(mask, fine, 'voxel.nii.gz'))
    assert np.argwhere(vessels.aif_mask).tolist() == [artery.tolist()]
    curve = slow_head.ctp[tuple(artery)]
    np.testing.assert_allclose(vessels.aif, curve - curve[:3].mean(), atol=1e-3)


def test_voxels_of_two_sampling_patterns_are_not_mixed(slow_head, late_upper_slices):
    mask = np.zeros(slow_head.tissue.shape, bool)
    mask[14:17, 32:35, :5] = True  # of these, slices 0 to 2 contain the artery
    mask[15, 33, 3:5] = False
    vessels = find(
        slow_head, SuppliedMask(mask, slow_head.affine, 'both.nii.gz'), late_upper_slices
    )
    assert np.unique(np.argwhere(vessels.aif_mask)[:, 2]).tolist() == [0, 1, 2]
    np.testing.assert_allclose(vessels.times, slow_head.times)


def test_error_of_voxels_of_tissue_names_the_file(slow_head):
    supplied = SuppliedMask(slow_head.tissue, slow_head.affine, 'tissue.nii.gz')
    with pytest.raises(VesselError, match=r'tissue.nii.gz: the mean curve of its \d+ voxels'):
        find(slow_head, supplied)
