# SPDX-License-Identifier: Apache-2.0
"""The extended schema, run by the validator; test_end_to_end checks the outputs of ctpprep.

The validator takes a second to run, so one dataset contains all valid and invalid files of a kind.
"""

import json
import re
from collections import defaultdict

import nibabel as nb
import numpy as np
import pytest

import bids_schema
from ctpprep.exceptions import UsageError

RAW = {'Name': 'Heads', 'BIDSVersion': '1.10.0', 'DatasetType': 'raw'}
DERIVED = RAW | {'DatasetType': 'derivative', 'GeneratedBy': [{'Name': 'ctpprep'}]}
COMPLETE = {
    'Description': 'what it is', 'Sources': ['bids:raw:sub-1/ct/sub-1_ctp.nii.gz'],
    'Units': 's', 'Type': 'ROI', 'SpatialReference': 'the reference',
}  # fmt: skip

# label of the participant: ending of the file, sidecar, shape
VALID = {
    'interval': ('ctp', {'RepetitionTime': 1.5, 'Units': 'HU'}),
    'slices': ('ctp', {'RepetitionTime': 1.5, 'SliceTiming': [0, 0.5, 1]}),
    'volumes': ('ctp', {'VolumeTiming': [0, 1, 2, 4]}),
    'dcm2niix': ('ctp', {'RepetitionTime': 1.3, 'FrameTimesStart': [0, 1, 2, 4]}),
    'toggling': ('acq-x_run-1_ctp', {'SliceAcquisitionTimes': [[0, 0.5, 1]] * 4}),
    'ncct': ('ncct', {}, (2, 2, 3)),
}
# code that is expected: as above
INVALID = {
    'CTP_TIMING_TWICE': ('ctp', {'VolumeTiming': [0, 1, 2, 4], 'RepetitionTime': 1.5}),
    'CTP_VOLUMETIMING_LENGTH': ('ctp', {'VolumeTiming': [0, 1, 2]}),
    'CTP_FRAMETIMESSTART_LENGTH': ('ctp', {'FrameTimesStart': [0, 1, 2]}),
    'CTP_SLICEACQUISITIONTIMES_LENGTH': ('ctp', {'SliceAcquisitionTimes': [[0, 1, 2]] * 3}),
    'CTP_SLICE_TIMING_LENGTH': ('ctp', {'RepetitionTime': 1.5, 'SliceTiming': [0, 1]}),
    'CTP_UNITS': ('ctp', {'RepetitionTime': 1.5, 'Units': '1'}),
    'CTP_NOT_4D': ('ctp', {'RepetitionTime': 1.5}, (2, 2, 3)),
    'CT_NOT_3D': ('ncct', {}),
    'NOT_INCLUDED': ('perfusion', {}),
    'ENTITY_NOT_IN_RULE': ('task-rest_ctp', {'RepetitionTime': 1.5}),
}
# label of the participant: ending of the file, and the missing field
INCOMPLETE = {
    'units': ('cbf', 'Units'),
    'sources': ('cbf', 'Sources'),
    'description': ('cbf', 'Description'),
    'type': ('label-core_desc-local_mask', 'Type'),
    'space': ('space-mirror_ctpref', 'SpatialReference'),
}


def describe(folder, description):
    folder.mkdir(exist_ok=True)
    (folder / 'dataset_description.json').write_text(json.dumps(description))
    (folder / '.bidsignore').write_text('**/ct\n')
    return folder


def add(folder, participant, ending, sidecar, shape=(2, 2, 3, 4)):
    """Write an image of a participant and its sidecar."""
    stem = folder / f'sub-{participant}' / 'ct' / f'sub-{participant}_{ending}'
    stem.parent.mkdir(parents=True, exist_ok=True)
    image = nb.Nifti1Image(np.zeros(shape, np.int16), np.eye(4))
    image.header.set_xyzt_units('mm', 'sec')
    image.header['pixdim'][4] = 0
    nb.save(image, f'{stem}.nii.gz')
    stem.with_suffix('.json').write_text(json.dumps(sidecar))
    return stem


def errors(folder):
    """Return the sets of errors by participant."""
    by_participant = defaultdict(set)
    for issue in bids_schema.validate(folder):
        if issue['severity'] == 'error':
            participant = issue['location'].split('/')[1].removeprefix('sub-')
            by_participant[participant].add((issue['code'], issue.get('subCode', '')))
    return by_participant


@pytest.fixture(scope='module')
def raw(tmp_path_factory):
    folder = describe(tmp_path_factory.mktemp('raw'), RAW)
    for participant, file in (VALID | INVALID).items():
        add(folder, participant.replace('_', ''), *file)
    add(folder, 'untimed', 'ctp', {})
    for participant in VALID:  # one expected error each: a skipped participant would have none
        add(folder, participant, 'perfusion', {}, (2, 2, 3))
    return folder


@pytest.fixture(scope='module')
def raw_errors(raw):
    return errors(raw)


@pytest.fixture(scope='module')
def derived_errors(tmp_path_factory):
    folder = describe(tmp_path_factory.mktemp('derived'), DERIVED)
    for participant, (ending, field) in INCOMPLETE.items():
        add(folder, f'{participant}Complete', ending, COMPLETE, (2, 2, 3))
        sidecar = {name: value for name, value in COMPLETE.items() if name != field}
        add(folder, participant, ending, sidecar, (2, 2, 3))
    add(folder, 'order', 'desc-local_label-core_mask', COMPLETE, (2, 2, 3))
    alone = add(folder, 'alone', 'cbf', COMPLETE, (2, 2, 3))
    alone.with_suffix('.nii.gz').unlink()
    return errors(folder)


def test_example_passes(bids_dir):
    assert errors(bids_dir) == {}


def test_truth_of_the_example_passes(bids_dir):
    assert errors(bids_dir / 'derivatives' / 'truth') == {}


def test_dataset_is_not_modified(raw, raw_errors):
    names = {path.name for path in raw.iterdir()}
    assert names == {path.name for path in raw.glob('sub-*')} | {
        'dataset_description.json', '.bidsignore',
    }  # fmt: skip


@pytest.mark.parametrize('participant', VALID)
def test_each_kind_of_timing_passes(raw_errors, participant):
    assert raw_errors[participant] == {('NOT_INCLUDED', '')}


@pytest.mark.parametrize('code', INVALID)
def test_mistake_in_a_series_is_an_error(raw_errors, code):
    assert code in {error for error, _ in raw_errors[code.replace('_', '')]}


@pytest.mark.parametrize('participant', INCOMPLETE)
def test_missing_field_of_a_derivative_is_an_error(derived_errors, participant):
    assert derived_errors[f'{participant}Complete'] == set()
    assert derived_errors[participant] == {('SIDECAR_KEY_REQUIRED', INCOMPLETE[participant][1])}


def test_wrong_order_of_entities_is_an_error(derived_errors):
    assert ('FILENAME_MISMATCH', '') in derived_errors['order']


def test_sidecar_without_its_file_is_an_error(derived_errors):
    assert ('SIDECAR_WITHOUT_DATAFILE', '') in derived_errors['alone']


def test_folder_that_is_not_a_dataset_is_a_one_line_error(tmp_path, capsys):
    message = f'{tmp_path} contains no dataset_description.json; pass the root folder'
    with pytest.raises(UsageError, match=re.escape(message)):
        bids_schema.validate(tmp_path)
    assert bids_schema.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.count('\n') == 1


def test_command_lists_the_errors_and_fails(raw, capsys):
    assert bids_schema.main([str(raw)]) == 1
    output = capsys.readouterr().out
    assert 'CTP_UNITS /sub-CTPUNITS/ct/sub-CTPUNITS_ctp.nii.gz\n' in output
    # a series without times is a warning only: the user may pass --frame-interval
    assert 'sub-untimed' not in output
    assert 'warnings' in output


def test_command_prints_the_schema(capsys):
    assert bids_schema.main([]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert 'ct' in schema['objects']['datatypes']
    assert 'bold' in schema['objects']['suffixes']
