# SPDX-License-Identifier: Apache-2.0
"""Maps of a head whose right side is slow, and of slices scanned at different times."""

import functools

import numpy as np
import pytest
from scipy import ndimage

from ctpprep.perfusion import bayesian, custom
from ctpprep.perfusion.estimation import estimate_maps
from ctpprep.perfusion.maps import MAPS
from ctpprep.phantom import PhantomSettings, make_phantom
from ctpprep.settings import MethodSettings

SLOW_RIGHT = slice(24, None)  # first voxel axis runs to the right


@pytest.fixture(scope='module')
def estimate(slow_head):
    """Estimate the maps of the head; arrays, functions and settings may be exchanged."""

    def run(ctp=slow_head.ctp, times=slow_head.times, aif=slow_head.aif, functions=(), **changed):
        weights = changed.pop('weights', None)
        return estimate_maps(
            ctp, times, slow_head.size, slow_head.times, aif, slow_head.tissue, slow_head.pure,
            slow_head.n_baseline, MethodSettings.of(**changed), weights, **dict(functions),
        )  # fmt: skip

    return run


@pytest.fixture(scope='module')
def maps(estimate):
    return estimate()


@pytest.fixture(scope='module')
def late_upper_slices(slow_head):
    """Sample times of a head whose slices from the fourth on are scanned a second later."""
    times = np.tile(slow_head.times, (6, 1))
    times[3:] += 1.0
    return times


# -- maps


@pytest.mark.parametrize('name', [*MAPS, 'noise'])
def test_map_is_finite_and_0_outside_tissue(maps, slow_head, name):
    voxels = getattr(maps, name)
    assert np.isfinite(voxels).all()
    assert not voxels[~slow_head.tissue].any()
    assert voxels[slow_head.tissue].any()


def test_slow_side_has_less_flow_and_a_longer_tmax(maps, slow_head):
    right = slow_head.tissue.copy()
    right[: SLOW_RIGHT.start] = False
    left = slow_head.tissue & ~right
    median = {
        name: [np.median(getattr(maps, name)[side]) for side in (left, right)] for name in MAPS
    }
    assert median['cbf'][1] < 0.5 * median['cbf'][0]
    assert median['tmax'][1] > median['tmax'][0] + 2
    assert median['ttp'][1] > median['ttp'][0] + 2


def test_mtt_is_volume_over_flow(maps, slow_head):
    cbf, cbv, mtt = (getattr(maps, name)[slow_head.tissue] for name in ('cbf', 'cbv', 'mtt'))
    flowing = (cbf > 5) & (mtt > 0)
    np.testing.assert_allclose(mtt[flowing], 60 * cbv[flowing] / cbf[flowing], rtol=1e-3)


def test_hematocrit_factor_scales_flow(estimate, maps, slow_head):
    double = estimate(hematocrit_factor=2 * 0.733).cbf[slow_head.tissue]
    np.testing.assert_allclose(double, 2 * maps.cbf[slow_head.tissue], rtol=1e-3)


def test_twice_the_aif_is_half_of_the_flow(estimate, maps, slow_head):
    half = estimate(aif=2 * slow_head.aif).cbf[slow_head.tissue]
    np.testing.assert_allclose(maps.cbf[slow_head.tissue], 2 * half, rtol=1e-3, atol=1e-3)


def test_rejected_frame_hardly_changes_the_maps(estimate, maps, slow_head):
    """A frame of weight 0 may contain anything, even NaN."""
    spoilt, weights = slow_head.ctp.copy(), np.ones(18)
    spoilt[..., 12], weights[12] = np.nan, 0.0
    cbf = estimate(spoilt, weights=weights).cbf[slow_head.tissue]
    complete = maps.cbf[slow_head.tissue]
    assert np.isfinite(cbf).all()
    assert np.median(np.abs(cbf - complete)) < 0.1 * np.median(complete)


# -- regularization


@pytest.mark.parametrize('denoise', ['lowrank', 'similarity'])
def test_curves_that_are_denoised_further_take_half_of_the_validated_lambda(estimate, denoise):
    validated = estimate(denoise='smooth').measured['lambda_rel']
    assert estimate(denoise=denoise).measured['lambda_rel'] == pytest.approx(0.5 * validated)


def test_curves_of_the_users_denoising_take_the_validated_lambda(estimate):
    validated = estimate(denoise='smooth').measured['lambda_rel']
    unchanged = estimate(functions={'denoise': lambda curves, *_: curves})
    assert unchanged.measured['lambda_rel'] == validated


def test_lambda_of_the_user_is_not_shared(estimate):
    assert estimate(lambda_rel=0.15).measured['lambda_rel'] == 0.15


def test_calibration_shifts_tmax_by_the_measured_offset(estimate, slow_head):
    maps, raw = (
        estimate(tmax_snr=0.0, tmax_calibration=calibration) for calibration in (True, False)
    )
    offset = maps.measured['tmax_offset_s']
    assert offset > 0
    difference = (raw.tmax - maps.tmax)[slow_head.tissue & (maps.tmax > 0.5)]
    np.testing.assert_allclose(difference, offset, atol=1e-3)


def test_time_of_tissue_that_has_flow_is_its_own(estimate, maps, slow_head):
    """Only without flow is the time of the maximum that of noise."""
    raw = estimate(tmax_snr=0.0)
    np.testing.assert_array_equal(maps.cbf, raw.cbf)
    left = slow_head.tissue.copy()
    left[SLOW_RIGHT] = False
    assert np.median(np.abs(maps.tmax - raw.tmax)[left]) < 0.05
    assert (maps.tmax != raw.tmax)[slow_head.tissue].any()


# -- denoising and noise


def test_smoothing_lowers_noise(estimate, maps, slow_head):
    noise = {
        denoise: np.median(estimate(denoise=denoise).noise[slow_head.tissue])
        for denoise in ('none', 'smooth')
    }
    assert noise['none'] == pytest.approx(1.0, abs=0.2)  # as drawn, HU
    assert noise['smooth'] < 0.7 * noise['none']
    assert maps.measured['noise_raw_hu'] == pytest.approx(noise['none'], rel=0.1)
    assert maps.measured['noise_denoised_hu'] < noise['none']


def restore(curves):
    return curves.scores @ curves.components[0].T + curves.centres[0]


@pytest.mark.parametrize('denoise', ['similarity', 'lowrank'])
def test_components_explain_all_that_denoising_has_left(estimate, slow_head, denoise):
    maps = estimate(denoise=denoise)
    assert maps.curves.kept == pytest.approx(1, abs=1e-6)
    noise = restore(maps.curves)[:, :3].std(axis=1, ddof=1)
    np.testing.assert_allclose(noise, maps.noise[slow_head.tissue], atol=5e-3)


@pytest.mark.parametrize('denoise', ['smooth', 'none'])
def test_components_explain_a_part_of_curves_of_full_rank(estimate, denoise):
    assert 0.5 < estimate(denoise=denoise).curves.kept < 1


@pytest.mark.parametrize('denoise', ['similarity', 'lowrank', 'smooth'])
@pytest.mark.parametrize(('method', 'most'), [('tikhonov', 1.3), ('bayesian', 1.45)])
def test_samples_of_noise_are_as_noisy_as_repeated_scans(
    estimate, slow_head, denoise, method, most
):
    inner = ndimage.binary_erosion(slow_head.tissue, iterations=2)
    scans, samples = [], []
    for seed in range(5):
        noise = np.random.default_rng(seed).normal(0, 1.5, slow_head.ctp.shape)
        maps = estimate(
            (slow_head.ctp + noise).astype(np.float32), denoise=denoise, lambda_rel=0.15,
            partial_volume=False, deconvolution_method=method,
        )  # fmt: skip
        scans.append(maps.cbf[inner])
        samples.append(maps.cbf_noise[inner])
    # the noise of the head itself, 1 HU, is in each estimate but in no difference
    spread = np.sqrt(np.median(np.var(scans, axis=0, ddof=1))) * np.hypot(1.5, 1.0) / 1.5
    estimated = np.sqrt(np.median(np.mean(np.square(samples), axis=(0, 2))))
    assert 0.7 < estimated / spread < most


def test_excess_of_noise_is_subtracted_from_flow_and_measured(estimate, slow_head):
    estimate = functools.partial(estimate, deconvolution_method='tikhonov')
    maps, uncorrected = estimate(), estimate(cbf_noise_correction=False)
    excess = (uncorrected.cbf - maps.cbf)[slow_head.tissue]
    assert excess.min() >= 0
    assert maps.measured['cbf_noise_excess'] == pytest.approx(np.median(excess), rel=0.02)
    assert uncorrected.measured['cbf_noise_excess'] is None
    steady = [estimate(cbf_noise_correction=part, tmax_snr=0.0).tmax for part in (True, False)]
    np.testing.assert_array_equal(*steady)


def test_flow_includes_the_error_of_the_model(estimate, slow_head, monkeypatch):
    counted = estimate().cbf
    monkeypatch.setattr(bayesian, 'MODEL_ERROR', 0.0)
    change = np.abs(estimate().cbf - counted)[slow_head.tissue]
    assert np.median(change) > 0.01 * np.median(counted[slow_head.tissue])


def test_tmax_without_flow_is_that_of_tissue_around(estimate, slow_head):
    """Where nothing enhances, the time of the maximum is that of noise."""
    empty = slow_head.ctp.copy()
    middle = tuple(np.argwhere(slow_head.tissue).mean(axis=0).astype(int))
    hole = np.zeros(slow_head.tissue.shape, bool)
    hole[tuple(slice(n - 1, n + 2) for n in middle)] = True
    hole &= slow_head.tissue
    noise = np.random.default_rng(0).normal(0, 1, empty[hole].shape)
    empty[hole] = 30 + noise
    own, steady = (estimate(empty, tmax_snr=snr).tmax for snr in (0.0, 15.0))
    assert np.std(steady[hole]) < 0.8 * np.std(own[hole])
    strong = slow_head.tissue & ~hole & (steady > 0)
    assert np.median(np.abs(steady - own)[strong]) < 0.5


@pytest.mark.parametrize('changed', [{'denoise': 'none'}, {'denoise_rank': 12}])
def test_noise_of_flow_is_not_estimated_without_denoising_or_spare_frames(estimate, changed):
    assert estimate(**changed).cbf_noise is None


def test_curves_of_impure_tissue_come_from_pure_tissue(estimate, maps, slow_head):
    """Beside a vessel or bone a curve may be anything."""
    impure = slow_head.tissue & ~slow_head.pure
    spoilt = slow_head.ctp.copy()
    spoilt[impure, 6:] += 500
    cbf = estimate(spoilt, denoise='smooth').cbf[impure]
    assert cbf.max() < 1.5 * np.percentile(maps.cbf[slow_head.pure], 99)


# -- functions of the user


def test_users_denoising_gets_raw_curves_and_replaces_ours(estimate, slow_head):
    shapes = []

    def halve(curves, times, tissue_mask, pure_mask, voxel_size_mm):
        shapes.append((curves.shape, tissue_mask.sum(), len(times)))
        return curves / 2

    maps = estimate(functions={'denoise': halve})
    n_voxels = slow_head.tissue.sum()
    assert shapes == [((n_voxels, 18), n_voxels, 18)]
    assert maps.measured['noise_denoised_hu'] == pytest.approx(
        maps.measured['noise_raw_hu'] / 2, rel=1e-4
    )
    assert maps.cbf_noise is None


def test_users_deconvolution_gives_flow_and_tmax(estimate, slow_head):
    def deconvolve(curves, times, aif_times, aif):
        return custom.Peaks(np.full(len(curves), 0.01), np.full(len(curves), 2.5))

    maps = estimate(functions={'deconvolve': deconvolve}, partial_volume=False)
    assert np.unique(maps.tmax[slow_head.tissue]) == 2.5
    # 6000 mL/100 g/min are 1/s; k_H is 0.733 and rho 1.04 g/mL
    assert np.unique(maps.cbf[slow_head.tissue]) == pytest.approx(60 * 0.733 / 1.04)
    assert maps.measured['lambda_rel'] is None


# -- slices of different times


def test_delay_of_slices_is_a_later_bolus(estimate, maps, late_upper_slices, slow_head):
    """The same curves scanned a second later mean a bolus that arrives a second later."""
    shift = np.where(slow_head.tissue, estimate(times=late_upper_slices).tmax - maps.tmax, np.nan)
    assert np.nanmedian(shift[..., 4:]) == pytest.approx(1.0, abs=0.3)
    assert np.nanmedian(shift[..., :2]) == pytest.approx(0, abs=0.2)


def test_offset_of_each_slice_restores_tmax_before_calibration(
    estimate, late_upper_slices, slow_head
):
    calibrated = estimate(times=late_upper_slices, tmax_snr=0.0)
    offsets = np.array(calibrated.measured['tmax_offset_s_by_slice'])
    assert len(set(offsets[:3])) == len(set(offsets[3:])) == 1
    raw = estimate(times=late_upper_slices, tmax_calibration=False, tmax_snr=0.0).tmax
    above = slow_head.tissue & (calibrated.tmax > 0)
    np.testing.assert_allclose((calibrated.tmax + offsets)[above], raw[above], atol=1e-4)


@pytest.fixture(scope='module')
def scanned():
    """Maps of one head scanned evenly, on a toggling table and in jog mode, by its true AIF."""

    def scan(timing):
        head = make_phantom(
            PhantomSettings(
                seed=5, matrix=48, voxel_size_mm=(4.6, 4.6, 10.0), n_slices=8, motion_mm=0.0,
                lesion='large', timing=timing, orientation='RAS', noise_hu=2.0,
            )
        )  # fmt: skip
        tissue = (head.truth['tissue'] > 0.8) & (head.truth['vessel'] < 0.01) & head.truth['brain']
        times = head.sample_times[0]
        maps = estimate_maps(
            head.ctp.astype(np.float32), head.sample_times, head.settings.voxel_size_mm, times,
            np.interp(times, head.times_fine, head.aif), tissue, tissue, 5, MethodSettings(),
        )  # fmt: skip
        return maps.cbf[tissue], maps.tmax[tissue], tissue

    return {timing: scan(timing) for timing in ('even', 'toggling', 'jog')}


@pytest.mark.parametrize('timing', ['toggling', 'jog'])
def test_moving_table_gives_the_maps_of_a_still_one(scanned, timing):
    """Half of the slices are scanned 0.75 s later, which neither half of the maps shows."""
    (even_cbf, even_tmax, tissue), (cbf, tmax, _) = scanned['even'], scanned[timing]
    upper = np.broadcast_to(np.arange(8) >= 4, tissue.shape)[tissue]
    for half in (upper, ~upper):
        assert abs(np.median((tmax - even_tmax)[half])) < 0.2
        assert np.median((cbf / even_cbf)[half]) == pytest.approx(1, abs=0.04)
    assert np.corrcoef(cbf, even_cbf)[0, 1] > 0.95
