# SPDX-License-Identifier: Apache-2.0
"""Acquisition times: which source is used, and which times are refused."""

from pathlib import Path

import nibabel as nb
import numpy as np
import pytest

from ctpprep.exceptions import TimingError, UsageError
from ctpprep.inputs.timing import read_command_times, read_series_timing, read_timing
from ctpprep.settings import RunSettings

EVEN = {'RepetitionTime': 1.5}
LAS = np.diag([-2.0, 2.0, 5.0, 1.0])


def read(sidecar, header_interval=None, command_times=None):
    return read_timing(sidecar, 10, 2, header_interval, command_times)


UNEVEN = [0.0, 1.5, 3.0, 4.5, 6.0, 7.5, 9.0, 12.0, 15.0, 18.0]


@pytest.mark.parametrize(
    ('sidecar', 'command_times', 'source', 'last'),
    [
        ({}, None, 'pixdim[4]', 18.0),
        ({'RepetitionTime': 2.0}, None, 'RepetitionTime', 18.0),
        ({'RepetitionTime': 2.0, 'FrameTimesStart': UNEVEN}, None, 'FrameTimesStart', 18.0),
        ({'VolumeTiming': UNEVEN, 'FrameTimesStart': None}, None, 'VolumeTiming', 18.0),
        (EVEN, ('--frame-interval', 1.0), '--frame-interval', 9.0),
        ({**EVEN, 'VolumeTiming': UNEVEN}, ('--frame-interval', 1.0), '--frame-interval', 9.0),
        ({}, ('--frame-times', UNEVEN), '--frame-times', 18.0),
    ],
)
def test_first_available_source_is_used(sidecar, command_times, source, last):
    frames, samples, used_source = read(sidecar, 2.0, command_times)
    assert used_source == source
    assert frames[-1] == pytest.approx(last)
    assert samples == (frames, frames)


def test_slice_timing_is_added_to_varying_frame_times():
    frames, samples, source = read({'VolumeTiming': UNEVEN, 'SliceTiming': [0, 0.75]})
    assert source == 'VolumeTiming + SliceTiming'
    assert samples[1] == pytest.approx(np.add(frames, 0.75))


def test_slice_encoding_direction_reverses_slice_timing():
    sidecar = {**EVEN, 'SliceTiming': [0, 0.75], 'SliceEncodingDirection': 'k-'}
    samples = read(sidecar)[1]
    assert (samples[0][0], samples[1][0]) == (0.75, 0)


def test_slice_acquisition_times_contain_every_sample_time():
    rows = [[t, t + 0.75] if frame % 2 else [t + 0.75, t] for frame, t in enumerate(UNEVEN)]
    frames, samples, source = read({**EVEN, 'SliceAcquisitionTimes': rows, 'SliceTiming': [9]})
    assert source == 'SliceAcquisitionTimes'
    assert frames == tuple(UNEVEN)
    assert samples[0][:2] == (0.75, 1.5)


@pytest.mark.parametrize(('z_direction', 'first_times'), [(1, [0, 0.5, 1]), (-1, [1, 0.5, 0])])
def test_sample_times_run_from_inferior_to_superior(tmp_path, z_direction, first_times):
    path = tmp_path / 'sub-01_ctp.nii.gz'
    affine = LAS @ np.diag([1, 1, z_direction, 1])
    nb.Nifti1Image(np.zeros((4, 4, 3, 12), np.int16), affine).to_filename(path)
    sidecar = {**EVEN, 'SliceTiming': [0, 0.5, 1.0]}
    _, samples, _ = read_series_timing(path, sidecar, None)
    assert [row[0] for row in samples] == first_times


@pytest.mark.parametrize(
    ('sidecar', 'message'),
    [
        ({}, r'no acquisition times.*--frame-interval'),
        ({**EVEN, 'VolumeTiming': UNEVEN}, 'both VolumeTiming and RepetitionTime.*; keep'),
        (
            {'VolumeTiming': UNEVEN[:9]},
            'VolumeTiming has 9 values, need one time for each of the 10',
        ),
        ({'VolumeTiming': UNEVEN[::-1]}, 'VolumeTiming must increase.*frame 1 is at 18 s'),
        ({'VolumeTiming': 1.5}, r'VolumeTiming has 1\.5, need one time for each'),
        ({'RepetitionTime': '1.5'}, "RepetitionTime contains '1.5', need numbers in s"),
        ({'RepetitionTime': float('nan')}, 'contains nan, need numbers'),
        ({'RepetitionTime': True}, 'contains True, need numbers'),
        (
            {'RepetitionTime': 1500},
            r'interval of 1500 s, must be 0\.1 to 10 s; write 1500 ms as 1\.5',
        ),
        ({'RepetitionTime': 0.01}, 'RepetitionTime gives a frame interval of 0.01 s, must be'),
        ({'RepetitionTime': 0}, 'interval of 0 s, must be'),
        (
            {**EVEN, 'SliceTiming': [0, 1, 2]},
            'SliceTiming has 3 values, need one time for each of the 2',
        ),
        ({**EVEN, 'SliceTiming': [-0.1, 0]}, 'SliceTiming contains -0.1 s.* negative'),
        (
            {**EVEN, 'SliceTiming': [0, 2.0]},
            r'contains 2 s, must be at most the frame interval \(1\.5 s\)',
        ),
        ({**EVEN, 'SliceTiming': [0, 750]}, 'write 750 ms as 0.75'),
        (
            {**EVEN, 'SliceTiming': [0, 1], 'SliceEncodingDirection': 'j'},
            'is \'j\', need "k" or "k-"',
        ),
        (
            {'SliceAcquisitionTimes': [UNEVEN, UNEVEN]},
            'has 2 rows, need one row for each of the 10',
        ),
    ],
)
def test_implausible_times_raise_an_error_with_field_found_and_needed(sidecar, message):
    with pytest.raises(TimingError, match=message):
        read(sidecar)


def read_command(folder, **options):
    return read_command_times(RunSettings(folder, folder / 'out', folder / 'work', **options))


def test_frame_times_are_read_from_a_file(tmp_path):
    file = tmp_path / 'times.txt'
    file.write_text('0, 1.5, 3, 4.5, 6, 7.5\n9 10.5 12 13.5\n16.5 19.5\n')
    option, times = read_command(tmp_path, frame_times=file)
    assert option == '--frame-times'
    assert times[-1] == 19.5
    file.write_text('0 1.5 three')
    with pytest.raises(UsageError, match=r'--frame-times .*three.*must contain the time of each'):
        read_command(tmp_path, frame_times=file)


def test_frame_interval_in_ms_is_refused(tmp_path):
    message = r'--frame-interval must be .* 10 s, got 1500; write 1500 ms as 1\.5'
    with pytest.raises(UsageError, match=message):
        read_command(tmp_path, frame_interval=1500)


@pytest.mark.parametrize('field', ['VolumeTiming', 'FrameTimesStart'])
def test_times_of_a_clock_are_relative(field):
    frames, _, _ = read({field: [t + 1.7e9 for t in UNEVEN]})
    assert frames == tuple(UNEVEN)
    assert read({field: [t + 5 for t in UNEVEN]})[0][0] == 5


@pytest.mark.parametrize(
    ('sidecar', 'header', 'message'),
    [
        ({}, 1.0, r'pixdim\[4\] .* is 1 s, a default .*--frame-interval 1'),
        (EVEN, 3.0, r'RepetitionTime gives .* 1\.5 s, but pixdim\[4\] of the header 3 s'),
        ({'VolumeTiming': UNEVEN}, 6.0, 'VolumeTiming gives a frame interval of 1.5 s, but'),
        ({'RepetitionTime': 4.0, 'FrameTimesStart': UNEVEN}, None, 'but RepetitionTime 4 s'),
        ({'RepetitionTime': 10**400}, None, 'a number of 401 digits'),
        ({'VolumeTiming': [t if t < 101960 else t + 40 for t in range(101955, 101965)]}, None,
         'hhmmss'),
    ],
)  # fmt: skip
def test_contradictions_are_refused_with_both_values(sidecar, header, message):
    with pytest.raises(TimingError, match=message):
        read(sidecar, header)


@pytest.mark.parametrize('header', [None, 1.0, 2000.0])
def test_default_in_the_header_contradicts_nothing(header):
    assert read({'RepetitionTime': 2.0}, header)[2] == 'RepetitionTime'


def test_device_as_frame_times_is_refused_before_it_is_read(tmp_path):
    device = Path('/dev/zero')
    with pytest.raises(UsageError, match='--frame-times /dev/zero is a device'):
        read_command_times(RunSettings(tmp_path, tmp_path, tmp_path, frame_times=device))
