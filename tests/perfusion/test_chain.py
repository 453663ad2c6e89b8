# SPDX-License-Identifier: Apache-2.0
"""The front door: arrays in, maps and lesions out, without nipype."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

import ctpprep
from ctpprep import MethodSettings, compute_maps
from ctpprep.exceptions import PerfusionError, UsageError
from ctpprep.perfusion import custom
from ctpprep.phantom import PhantomSettings, make_phantom
from ctpprep.registration import MirrorSyN

PLAIN = PhantomSettings(
    seed=7, matrix=48, voxel_size_mm=(4.5, 4.5, 8.0), n_slices=6, n_frames=18, frame_interval=2.0,
    motion_mm=0.0, lesion='large', lesion_side='right', orientation='RAS',
)  # fmt: skip


def test_the_science_loads_neither_nipype_nor_ants():
    code = 'import sys, ctpprep.perfusion; print(*sys.modules)'
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    loaded = {name.partition('.')[0] for name in run.stdout.split()}
    assert not loaded & {'nipype', 'ants', 'nibabel', 'pandas', 'niworkflows'}


def test_public_names_can_be_reached_from_the_package():
    assert ctpprep.perfusion.estimate_maps is ctpprep.perfusion.estimation.estimate_maps
    with pytest.raises(AttributeError, match='no attribute'):
        _ = ctpprep.compute_map


@pytest.fixture(scope='module')
def head():
    return make_phantom(PLAIN)


class Flip:
    """A registration for symmetric heads: the counterpart is the flipped voxel."""

    def apply_matrix(self, array, affine, matrix, outside):
        return array

    def align(self, fixed, moving, matrix=None):
        return None

    def register(self, fixed, moving, start, matrix):
        return {'mirror_to_reference': 'identity', 'reference_to_mirror': 'identity'}

    def apply(self, array, affine, transform, outside=0.0):
        return np.asarray(array, dtype=np.float32)


def compute(head, **options):
    settings = MethodSettings.of(motion_correction=False, mirror_most_mm=50.0)
    return compute_maps(
        head.ctp, head.frame_times, head.settings.voxel_size_mm, settings, head.affine,
        registration=Flip(), **options,
    )  # fmt: skip


@pytest.fixture(scope='module')
def result(head):
    return compute(head)


def test_one_call_finds_the_lesion_on_its_side(head, result):
    assert result.relative.measured['affected_side'] == 'right'
    planted = head.truth['hypoperfusion'] > 0
    overlap = result.lesions.masks['hypoperfusion'] & planted
    assert overlap.sum() > 0.5 * planted.sum()


def test_times_by_slice_equal_times_by_frame_of_a_series_without_delays(head, result):
    times = np.tile(head.frame_times, (head.ctp.shape[2], 1))
    settings = MethodSettings.of(motion_correction=False, mirror_most_mm=50.0)
    again = compute_maps(
        head.ctp, times, head.settings.voxel_size_mm, settings, head.affine, registration=Flip()
    )
    np.testing.assert_array_equal(again.maps.cbf, result.maps.cbf)


def test_a_supplied_aif_replaces_the_one_that_is_found(head):
    aif = ctpprep.perfusion.SuppliedCurves(head.times_fine, head.aif, None, 'true AIF')
    supplied = compute(head, aif=aif)
    assert not supplied.vessels.aif_mask.any()
    np.testing.assert_allclose(supplied.vessels.aif.max(), head.aif.max(), rtol=0.2)


def test_a_function_replaces_the_deconvolution(head, result):
    def deconvolve(curves, times, aif_times, aif):
        return custom.Peaks(np.full(len(curves), 0.01), np.full(len(curves), 2.0))

    replaced = compute(head, deconvolve=deconvolve)
    tissue = replaced.masks.tissue
    np.testing.assert_array_equal(replaced.maps.tmax[tissue], 2.0)
    np.testing.assert_array_equal(replaced.maps.ttp, result.maps.ttp)
    assert replaced.maps.cbf_noise is None
    assert replaced.maps.measured['lambda_rel'] is None


def test_a_function_replaces_the_denoising(head, result):
    replaced = compute(head, denoise=lambda curves, *_: 2 * curves)
    tissue = replaced.masks.tissue
    assert np.median(replaced.maps.noise[tissue]) > np.median(result.maps.noise[tissue])
    assert replaced.maps.cbf_noise is None


@pytest.mark.parametrize(
    ('changed', 'message'),
    [
        ({'ctp': np.zeros((4, 4, 4))}, 'ctp has 3 dimensions, need 4'),
        ({'frame_times': np.arange(3.0)}, r'shape \(3,\), need \(12,\) or \(4, 12\)'),
        ({'frame_times': np.zeros(12)}, 'must be finite and increase'),
        ({'voxel_size_mm': (2.0, 2.0)}, 'need three sizes above 0 mm'),
        ({'affine': np.diag([3.0, 3, 5, 1])}, 'but the affine has'),
        ({'affine': np.diag([-2.0, -2, 5, 1])}, 'do not run left to right'),
    ],
)
def test_arrays_that_do_not_fit_are_refused(changed, message):
    arguments = {
        'ctp': np.zeros((4, 4, 4, 12)), 'frame_times': np.arange(12.0), 'voxel_size_mm': (2, 2, 5),
        'affine': None,
    } | changed  # fmt: skip
    with pytest.raises(PerfusionError, match=message):
        compute_maps(**arguments)


@pytest.mark.parametrize('stage', ['denoise', 'deconvolve'])
def test_a_function_of_the_user_cannot_be_misspelt_silently(head, stage):
    with pytest.raises(UsageError, match='is not a function, need a callable or MODULE:FUNCTION'):
        compute(head, **{stage: 'module.function'})


def test_a_denoiser_that_returns_one_curve_is_refused(head):
    with pytest.raises(
        UsageError, match='the denoising: the user function returned values of shape'
    ):
        compute(head, denoise=lambda curves, *_: curves[0])


def test_a_deconvolution_that_writes_into_its_arguments_changes_no_volume(head):
    def deconvolve(curves, times, aif_times, aif):
        aif *= 2
        return np.full(len(curves), 0.01), np.full(len(curves), 2.0)

    def leave(curves, times, aif_times, aif):
        return np.full(len(curves), 0.01), np.full(len(curves), 2.0)

    changed, same = (compute(head, deconvolve=function) for function in (deconvolve, leave))
    np.testing.assert_allclose(changed.maps.cbv, same.maps.cbv, rtol=1e-5)


# -- scanners and scans that are not as usual


def volumes(result):
    voxel_ml = np.prod(PLAIN.voxel_size_mm) / 1000
    return {name: mask.sum() * voxel_ml for name, mask in result.lesions.masks.items()}


@pytest.mark.parametrize('offset', [-15, 15])
def test_calibration_of_the_scanner_changes_neither_masks_nor_volumes(head, result, offset):
    moved = compute(dataclasses.replace(head, ctp=head.ctp + offset))
    for name in ('brain', 'csf', 'vessels', 'tissue'):
        first, second = (getattr(each.masks, name) for each in (result, moved))
        assert (first ^ second).sum() < 0.01 * result.masks.brain.sum(), name
    assert volumes(moved) == pytest.approx(volumes(result), rel=0.05, abs=1.0)


@pytest.mark.parametrize('n_slices', [2, 3, 4])
def test_thin_slab_has_maps_on_both_sides(n_slices, tmp_path):
    slab = make_phantom(dataclasses.replace(PLAIN, n_slices=n_slices))
    found = compute_maps(
        slab.ctp, slab.frame_times, PLAIN.voxel_size_mm, affine=slab.affine,
        registration=MirrorSyN(tmp_path, 1),
    )  # fmt: skip
    assert found.maps.cbf.shape == slab.ctp.shape[:3]
    assert found.masks.tissue.any(axis=(0, 1)).all()
    assert found.relative.measured['affected_side'] == 'right'
