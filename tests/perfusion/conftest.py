# SPDX-License-Identifier: Apache-2.0
"""Curves that can be computed by hand, and one small head with known truth."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage

from ctpprep.perfusion import bolus, brain, grid, kinetics
from ctpprep.phantom import PhantomSettings, make_phantom
from ctpprep.settings import MethodSettings

K_H, RHO = 0.733, 1.04
FINE = np.arange(0, 90, 0.02)


def artery(times, arrival=8.0, peak=300.0, rise=5.0):
    """Gamma variate with its peak `rise` seconds after arrival, HU."""
    s = np.clip((np.asarray(times, float) - arrival) / rise, 0, None)
    return peak * (s * np.exp(1 - s)) ** 3


def tissue(times, cbf=60.0, mtt=4.0, delay=0.0):
    """Noise-free curve of tissue fed by `artery`, HU."""
    curve = kinetics.convolve_input(
        FINE, artery(FINE), lambda tau: kinetics.exponential_residue(tau, mtt),
        np.asarray(times) - delay, step=0.02,
    )  # fmt: skip
    return cbf * RHO / K_H / 6000 * curve


@pytest.fixture(name='artery', scope='session')
def artery_fixture():
    return artery


@pytest.fixture(name='tissue', scope='session')
def tissue_fixture():
    return tissue


@pytest.fixture(scope='session')
def head():
    """Head of 3.9 mm voxels on a toggling table with a large infarct on the left."""
    return make_phantom(
        PhantomSettings(
            seed=7, matrix=56, voxel_size_mm=(3.9, 3.9, 6.0), n_slices=10, noise_hu=3.0,
            motion_mm=0.0, lesion='large', timing='toggling', orientation='RAS',
        )
    )  # fmt: skip


@pytest.fixture(scope='session')
def found(head):
    """What the functions find in the head, stage after stage."""
    settings, size = MethodSettings(), head.settings.voxel_size_mm
    ctp = head.ctp.astype(np.float32)
    weights = np.ones(ctp.shape[-1])
    average = ctp.mean(axis=-1)
    brain_mask, inside = brain.brain_masks(
        average,
        ctp[..., :2].mean(axis=-1),
        size,
        bone_hu=settings.masks.bone_hu,
        csf_level=settings.masks.csf_level,
    )
    frame_times = head.sample_times.mean(axis=0)
    first_pass = bolus.first_pass(ctp, inside, weights, frame_times)
    n_baseline, arrival = bolus.find_arrival(first_pass, frame_times)
    baseline = bolus.baseline(ctp, n_baseline, weights)
    peak = bolus.peak_enhancement(ctp, baseline, inside, weights)
    levels = brain.density_levels(average, inside, size)
    csf = brain.csf_mask(average, brain_mask, size, levels, settings.masks.csf_level)
    vessels = brain.vessel_mask(peak, inside, brain_mask & ~csf, settings.masks.vessel_ratio)
    times, pattern = grid.sampling_patterns(head.sample_times)
    return SimpleNamespace(
        ctp=ctp, average=average, brain=brain_mask, inside=inside, n_baseline=n_baseline,
        arrival=arrival, baseline=baseline, peak=peak, csf=csf, vessels=vessels,
        tissue=brain_mask & ~csf & ~vessels, times=times, pattern=pattern,
        enhancement=ctp - baseline[..., None],
    )  # fmt: skip


@pytest.fixture(scope='session')
def slow_head(toy_head):
    """Series, masks and artery of a head whose right side is slow, as arrays."""
    ctp, affine, times = toy_head
    mean = ctp[..., :3].mean(axis=-1)
    tissue = (mean > 25) & (mean < 60)
    rise = np.clip((times - 5) / 5, 0, None)
    return SimpleNamespace(
        ctp=ctp.astype(np.float32), affine=affine, times=times, size=(4.0, 4.0, 8.0),
        intracranial=(mean > 0) & (mean < 100), tissue=tissue,
        # off the ventricles: a mixture of tissue and CSF has the density of white matter
        pure=tissue & ~ndimage.binary_dilation(mean < 25), n_baseline=3, arrival_s=5.5,
        aif=250 * (rise * np.exp(1 - rise)) ** 2,
    )  # fmt: skip
