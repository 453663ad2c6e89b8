# SPDX-License-Identifier: Apache-2.0
"""A drift of density is subtracted where air and brain agree on it, and told where they do not."""

from types import SimpleNamespace

import numpy as np
import pytest

from ctpprep.perfusion import drift, quality

SIZE = (4.0, 4.0, 8.0)


@pytest.fixture(scope='module')
def series(toy_head):
    """The toy head with a margin of air that is as noisy as a scanner makes it, and no contrast yet."""
    ctp, _, times = toy_head
    rng = np.random.default_rng(0)
    ctp = np.pad(ctp.astype(np.float32), [(8, 8), (8, 8), (0, 0), (0, 0)], constant_values=-1000)
    air = ctp[..., 0] < -500
    ctp[air] += rng.normal(0, 3, (np.count_nonzero(air), len(times))).astype(np.float32)
    # the bolus comes later, since the drift of brain is measured before it
    still = ctp[..., :2].mean(axis=-1, keepdims=True) + rng.normal(0, 1, (*air.shape, 8))
    ctp = np.concatenate([still, ctp], axis=-1).astype(np.float32)
    return SimpleNamespace(ctp=ctp, air=air, times=2.0 * np.arange(ctp.shape[-1]))


def add_drift(series, everywhere=0.0, in_air=0.0):
    part = series.times / series.times[-1]
    return series.ctp + everywhere * part + series.air[..., None] * in_air * part


def measure(ctp, series, resampled=False):
    weights = np.ones(len(series.times))
    return drift.measure_drift(ctp, series.times, weights, SIZE, 130.0, resampled)


def test_still_density_has_no_drift(series):
    found = measure(series.ctp, series)
    assert found.corrected_hu == 0
    assert found.left_hu < 0.5
    assert set(found.materials) == {'air', 'bone', 'brain'}


@pytest.mark.parametrize('drift_hu', [-6.0, 3.0])
@pytest.mark.parametrize('resampled', [False, True])
def test_drift_that_air_and_brain_share_is_measured(series, drift_hu, resampled):
    found = measure(add_drift(series, drift_hu), series, resampled)
    assert found.corrected_hu == pytest.approx(drift_hu, abs=0.3)
    assert found.left_hu < 0.1
    assert ('bone' in found.materials) != resampled


def test_frames_that_differ_before_contrast_are_not_drift(series):
    """A line through them is steep when it is drawn on to the end of the scan, but not certain."""
    shifts = np.zeros(len(series.times))
    shifts[:10] = [-0.3, 0.2, -0.4, 0.3, -0.1, 0.4, -0.2, 0.4, 0.0, 0.2]
    ctp = np.where(series.air[..., None], -1024, series.ctp + shifts)
    found = measure(ctp, series, resampled=True)
    assert found.materials['brain'] > 0.6
    assert found.left_hu == 0


def test_padding_that_motion_correction_moves_is_not_drift(series):
    """The head shifts, and is shifted back together with the padding of the scanner."""
    acquired = series.ctp.copy()
    acquired[:3] = -1024
    corrected = acquired.copy()
    for frame in range(acquired.shape[-1]):
        corrected[:, frame // 8, ..., frame] = -1024
    moved = measure(corrected, series, resampled=True).materials['air']
    found = drift.measure_drift(
        corrected, series.times, np.ones(len(series.times)), SIZE, 130.0, True, acquired
    ).materials['air']
    assert abs(found) < 0.1 < abs(moved)


def test_drift_is_subtracted_and_nothing_else(series):
    drifted = add_drift(series, 4.0).astype(np.float32)
    drift.subtract_drift(drifted, series.times, 4.0)
    np.testing.assert_allclose(drifted, series.ctp, atol=1e-3)


def test_drift_of_air_alone_is_not_subtracted(series):
    """Scatter changes air, but brain is what the maps are made of."""
    found = measure(add_drift(series, in_air=8.0), series)
    assert found.corrected_hu == 0
    assert found.left_hu == pytest.approx(8, abs=0.5)
    (check,) = (check for check in quality.CHECKS if check.name == 'drift')
    assert quality.judge(check, quality.drift_figures(vars(found))['drift']) == 'fail'


def test_contrast_is_no_drift(series):
    """Brain rises by 8 HU with the bolus; only frames before it are compared with air."""
    ctp = series.ctp.copy()
    ctp[..., 12:] += np.where((ctp[..., :1] > 20) & (ctp[..., :1] < 60), 8.0, 0)
    found = measure(ctp, series)
    assert found.corrected_hu == 0
    assert abs(found.materials['brain']) < 1


def test_single_frame_changes_no_drift(series):
    ctp = add_drift(series, 3.0)
    ctp[..., 5] += 40
    found = measure(ctp, series)
    assert found.materials['air'] == pytest.approx(3, abs=0.4)
    assert found.materials['bone'] == pytest.approx(3, abs=0.4)


def test_constant_padding_is_no_air(series):
    ctp = add_drift(series, 3.0)
    ctp[series.air] = -1000
    found = measure(ctp, series)
    assert 'air' not in found.materials
    assert found.corrected_hu == pytest.approx(3, abs=0.5)  # by bone


def test_unknown_drift_is_not_graded():
    (check,) = (check for check in quality.CHECKS if check.name == 'drift')
    for unknown in (None, {}, vars(drift.Drift({}, 0.0, None))):
        assert quality.judge(check, quality.drift_figures(unknown)['drift']) == 'n/a'
