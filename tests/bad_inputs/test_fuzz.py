# SPDX-License-Identifier: Apache-2.0
"""Random headers, sidecars, files and frames: accepted, or refused by an error of ctpprep."""

import contextlib
import gzip
import json
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ctpprep.exceptions import PerfusionError, SeriesError
from ctpprep.inputs.timing import read_series_timing, read_timing
from ctpprep.io.bids import read_sidecar
from ctpprep.io.curves import read_curves
from ctpprep.io.headers import check_gzip, check_volume, read_header
from ctpprep.perfusion.first_frame import check_axes, check_frame, coarse_frame
from tests.bad_inputs.heads import INTERVAL, sidecar_of, write_series

pytestmark = pytest.mark.robustness
# the same examples in every run
bounded = settings(
    max_examples=300, derandomize=True, deadline=None, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
N_FRAMES, N_SLICES = 10, 2
FIELDS = (
    'RepetitionTime', 'VolumeTiming', 'FrameTimesStart', 'SliceTiming', 'SliceAcquisitionTimes',
    'SliceEncodingDirection', 'Units', 'Modality', 'MagneticFieldStrength',
)  # fmt: skip
numbers = st.one_of(
    st.integers(), st.floats(), st.integers(min_value=10**300), st.floats(0, 20), st.booleans()
)
values = st.recursive(
    st.none() | numbers | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=N_FRAMES + 1) | st.dictionaries(st.text(max_size=3), inner)
    ),
    max_leaves=40,
)
times = st.lists(st.floats(0.05, 12), min_size=N_FRAMES, max_size=N_FRAMES).map(
    lambda steps: np.cumsum(steps).tolist()
)
sidecars = st.dictionaries(st.sampled_from(FIELDS), values | times | numbers, max_size=4)


@pytest.fixture(scope='module')
def series(tmp_path_factory):
    """Return the path of a small series, and its bytes."""
    ctp = np.random.default_rng(3).integers(-1000, 1000, (6, 5, N_SLICES, N_FRAMES))
    affine = np.diag([-4.0, 4, 8, 1])
    folder = tmp_path_factory.mktemp('fuzz')
    path = write_series(folder, '1', (ctp.astype(np.int16), affine, None))
    return path, path.read_bytes()


def check_times(frames, samples):
    assert len(frames) == N_FRAMES
    assert np.diff(frames).min() > 0
    assert np.isfinite(samples).all()
    assert abs(frames[0]) < 1000


@bounded
@given(sidecars, st.none() | st.floats(0.01, 100))
def test_random_fields_give_times_or_an_error(fields, interval):
    try:
        frames, samples, _ = read_timing(fields, N_FRAMES, N_SLICES, interval)
    except SeriesError:
        return
    check_times(frames, samples)


@bounded
@given(sidecars)
def test_random_sidecars_are_read_or_refused(series, fields):
    path, content = series
    path.write_bytes(content)
    sidecar_of(path).write_text(json.dumps(fields))
    try:
        sidecar = read_sidecar(path, {path.parent: [sidecar_of(path)]})
        frames, samples, _ = read_series_timing(path, sidecar, None)
    except SeriesError:
        return
    check_times(frames, samples)


@bounded
@given(st.binary(max_size=200))
def test_random_bytes_are_no_sidecar(series, content):
    path, _ = series
    sidecar_of(path).write_bytes(content)
    try:
        read_sidecar(path, {path.parent: [sidecar_of(path)]})
    except SeriesError:
        return
    assert isinstance(json.loads(content), dict)


@bounded
@given(st.lists(st.tuples(st.integers(0, 351), st.integers(0, 255)), min_size=1, max_size=6))
def test_random_headers_are_read_or_refused(series, changes):
    path, content = series
    changed = bytearray(content)
    for position, value in changes:
        changed[position] = value
    path.write_bytes(changed)
    for affine_from in ('agree', 'sform', 'qform'):
        try:
            shape, affine, interval = read_header(path, affine_from)
        except SeriesError:
            continue
        assert len(shape) == 4
        assert np.isfinite(affine).all()
        assert interval is None or (interval > 0 and math.isfinite(interval))


@bounded
@given(st.lists(st.tuples(st.integers(0, 351), st.integers(0, 255)), max_size=4))
def test_random_headers_of_volumes_are_read_or_refused(series, changes):
    path, content = series
    changed = bytearray(content[: 352 + 2 * 6 * 5 * N_SLICES])
    changed[40:56] = np.array([3, 6, 5, N_SLICES, 1, 1, 1, 1], np.int16).tobytes()
    for position, value in changes:
        changed[position] = value
    volume = path.with_name('mask.nii')
    volume.write_bytes(changed)
    with contextlib.suppress(SeriesError):
        check_volume(volume, 'mask')


@bounded
@given(st.data())
def test_damaged_gzip_files_are_read_or_refused(series, data):
    path, content = series
    packed = bytearray(gzip.compress(content, mtime=0))
    for _ in range(data.draw(st.integers(1, 3))):
        packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    damaged = path.with_name('damaged_ctp.nii.gz')
    damaged.write_bytes(packed[: data.draw(st.integers(0, len(packed)))])
    with contextlib.suppress(SeriesError):
        read_header(damaged)
        check_gzip(damaged)


@bounded
@given(st.text(alphabet='\t\n 0123456789.eE-+naimefv"\x00', max_size=120))
def test_random_tables_are_curves_or_refused(series, text):
    path = series[0].with_name('aif.tsv')
    path.write_text(f'time\taif\n{text}')
    try:
        curves = read_curves(path)
    except SeriesError:
        return
    assert all(np.isfinite(curve).all() for curve in curves.values())


@settings(bounded, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.sampled_from(['f4', 'i2', 'u2', 'f8']), st.data())
def test_random_frames_are_accepted_or_refused(seed, dtype, data):
    shape = data.draw(st.tuples(*[st.integers(1, 40)] * 2, st.integers(1, 8)))
    size = data.draw(st.tuples(*[st.floats(0.05, 30)] * 3))
    rng = np.random.default_rng(seed)
    frame = rng.choice([-1024, -1000, 0, 30, 34, 900, 3071], shape) + rng.normal(0, 3, shape)
    with np.errstate(invalid='ignore'):
        frame = frame.astype(dtype)
    if frame.dtype.kind == 'f' and seed % 3 == 0:
        frame[rng.random(shape) < 0.004] = rng.choice([np.nan, np.inf, -np.inf])
    try:
        findings = check_frame(frame, size, bone_hu=130.0)
        check_axes(coarse_frame(frame, size)[0], coarse_frame(frame + 1, size)[0])
    except PerfusionError:
        return
    assert findings.n_slices == shape[2]


def test_series_of_the_fuzzer_is_valid(series):
    path, content = series
    path.write_bytes(content)
    assert read_header(path)[2] == INTERVAL
