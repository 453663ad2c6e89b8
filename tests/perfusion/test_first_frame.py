# SPDX-License-Identifier: Apache-2.0
"""What one frame shows of wrong units, windows, sizes and axes (more in tests/bad_inputs)."""

import numpy as np
import pytest

from ctpprep.exceptions import PerfusionError
from ctpprep.perfusion.first_frame import (
    check_axes,
    check_frame,
    coarse_frame,
)
from tests.bad_inputs.heads import taper

SIZE = (4.0, 4.0, 8.0)


def check(frame, size=SIZE):
    return check_frame(frame, size, bone_hu=130.0)


@pytest.fixture
def frame(toy_head):
    return toy_head[0][..., 0].astype(np.float32)


@pytest.mark.parametrize('offset', [-15, 0, 24])
def test_head_with_any_calibration_is_accepted(frame, offset):
    findings = check(frame + offset)
    assert findings == (type(findings))(6, 0, (), (), ())


def test_skull_stripped_head_is_accepted(frame):
    check(np.where((frame > 0) & (frame < 100), frame, 0))


def with_air_above(frame):
    """Add slices above the vertex: nothing but noise around the density of padding."""
    noise = np.random.default_rng(0).normal(0, 4, (*frame.shape[:2], 4))
    return np.concatenate([frame, -1015 + noise], axis=2).astype(np.float32)


def test_slices_above_the_vertex_are_not_taken_for_exchanged_ones(frame):
    check(with_air_above(frame))


def test_exchanged_slices_are_refused_by_their_numbers_in_the_file(frame):
    tapered = taper(frame[..., None])[..., 0]
    exchanged = tapered[..., [0, 4, 2, 3, 1, 5]]
    empty = np.full_like(frame[..., :2], -1024)
    with pytest.raises(PerfusionError, match=r'order: slices 3, 4, 7, 8 are more like'):
        check(with_air_above(np.concatenate([empty, exchanged], axis=2)))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda hu: hu / 2, 'air has -500 HU.* about 0.5 x HU'),
        (lambda hu: np.minimum(hu, 80), 'clipped at 80 HU'),
        (lambda hu: hu + 1024, '1024 to 1104 HU, need at most'),
        (lambda hu: np.where(hu < 0, hu + 65536, hu), 'unsigned'),
        (lambda hu: hu - 30, 'brain has 4 HU'),
        (lambda hu: np.abs(hu) * 0 + 7, 'every voxel is 7 HU'),
        (lambda hu: np.where(np.abs(hu) < 100, 400 + hu, 5), 'density'),
    ],
)
def test_other_values_than_hu_are_named(frame, change, message):
    with pytest.raises(PerfusionError, match=message):
        check(change(frame))


@pytest.mark.parametrize('size', [(4, 4, 32), (8, 8, 8), (2.8, 2.8, 8)])
def test_head_of_impossible_size_is_refused(frame, size):
    with pytest.raises(PerfusionError, match=r'size: .* brain'):
        check(frame, size)


def test_isolated_voxels_are_listed_and_padding_is_not(frame):
    frame[frame < -900] = np.nan
    frame[20, 20, 2] = np.inf
    findings = check(frame)
    assert (findings.n_broken, findings.broken_slices) == (1, (2,))


def test_most_similar_neighbours_are_in_time(toy_head):
    ctp = toy_head[0].astype(np.float32)
    ctp *= np.linspace(1, 0.7, 6)[:, None]  # slices differ
    first, second = (coarse_frame(ctp[..., i], SIZE)[0] for i in (0, 1))
    check_axes(first, second)
    swapped = ctp.swapaxes(2, 3)
    first, second = (coarse_frame(swapped[..., i], SIZE)[0] for i in (0, 1))
    with pytest.raises(PerfusionError, match='the third axis, which must be time'):
        check_axes(first, second)
