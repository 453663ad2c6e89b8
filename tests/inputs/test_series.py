# SPDX-License-Identifier: Apache-2.0
"""Capabilities of series, precomputed maps and failures."""

from dataclasses import replace
from pathlib import Path

import pytest

from ctpprep.inputs.series import CTPSeries, FailedSeries, InputFile, PrecomputedMaps

ROOT = Path('/data')
SESSION = 'sub-01/ses-1/ct'
URI = f'bids:raw:{SESSION}/sub-01_ses-1_ctp.nii.gz'


def input_file(name):
    return InputFile(ROOT / SESSION / name, f'bids:raw:{SESSION}/{name}')


SERIES = CTPSeries(
    ROOT / SESSION / 'sub-01_ses-1_ctp.nii.gz', 'sub-01_ses-1', '01', '1', SESSION, URI,
    (0.0, 1.0), ((0.0, 1.0),), 'RepetitionTime', {},
)  # fmt: skip
MAPS = PrecomputedMaps(
    'sub-01_ses-1', '01', '1', SESSION, '',
    {name: input_file(f'{name}.nii.gz') for name in ('cbf', 'cbv', 'tmax')}, {},
)  # fmt: skip
FAILED = FailedSeries('sub-01_ses-1', '01', '1', 'the file is truncated')


@pytest.mark.parametrize(
    ('series', 'can_run', 'has_frames'),
    [(SERIES, True, True), (MAPS, True, False), (FAILED, False, False)],
)
def test_classes_differ_in_their_capabilities(series, can_run, has_frames):
    assert (series.can_run, series.has_frames) == (can_run, has_frames)
    assert not series.absent
    assert series.workflow_name == 'sub_01_ses_1_wf'
    assert series.out_subdir == SESSION


def test_files_of_a_series_include_its_ncct():
    series = replace(SERIES, ncct=ROOT / SESSION / 'sub-01_ses-1_ncct.nii.gz')
    assert series.files == {
        'ctp': InputFile(SERIES.path, URI),
        'ncct': input_file('sub-01_ses-1_ncct.nii.gz'),
    }


def test_corrected_series_replaces_the_raw_one():
    overrides = {name: input_file(name) for name in ('brain_mask', 'ctp_corrected')}
    series = replace(SERIES, overrides=overrides)
    assert series.files == {**overrides, 'ctp': overrides['ctp_corrected']}


def test_files_of_maps_include_masks_and_reference():
    mask, reference = input_file('desc-brain_mask.nii.gz'), input_file('ncct.nii.gz')
    maps = replace(MAPS, masks={'brain_mask': mask}, reference=reference, reference_kind='ncct')
    assert list(maps.files) == ['cbf', 'cbv', 'tmax', 'brain_mask', 'reference']


def test_quantities_need_a_blood_volume():
    assert SERIES.quantities == MAPS.quantities == ('rcbf', 'rcbv')
    without = replace(MAPS, maps={name: MAPS.maps[name] for name in ('cbf', 'tmax')})
    assert without.quantities == ('rcbf',)


def test_maps_of_relative_cbf_are_relative():
    relative = replace(MAPS, maps={name: input_file(name) for name in ('rcbf', 'tmax')})
    assert [series.is_relative for series in (SERIES, MAPS, relative)] == [False, False, True]


def test_failure_of_a_file_takes_the_participant_from_its_folder(tmp_path):
    path = tmp_path / 'sub-02' / 'ses-a' / 'ct' / 'x_ses-a_ctp.nii.gz'
    failed = FailedSeries.from_file('x_ses-a', path, tmp_path, ValueError('invalid name'))
    assert failed == FailedSeries('x_ses-a', '02', 'a', 'invalid name')
