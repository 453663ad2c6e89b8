# SPDX-License-Identifier: Apache-2.0
"""The schema with CT perfusion, run by the validator; ours on the outputs is in test_end_to_end.

A run of the validator takes a second: one dataset holds all right and wrong files of a kind.
"""

import json
from collections import defaultdict

import nibabel as nb
import numpy as np
import pytest

import bids_schema
from ctpprep.exceptions import UsageError

RAW = {'Name': 'Heads', 'BIDSVersion': '1.10.0', 'DatasetType': 'raw'}
DERIVED = RAW | {'DatasetType': 'derivative', 'GeneratedBy': [{'Name': 'ctpprep'}]}
WHOLE = {
    'Description': 'what it is', 'Sources': ['bids:raw:sub-1/ct/sub-1_ctp.nii.gz'],
    'Units': 's', 'Type': 'ROI', 'SpatialReference': 'the reference',
}  # fmt: skip

# label of the participant: ending of the file, sidecar, shape
RIGHT = {
    'interval': ('ctp', {'RepetitionTime': 1.5, 'Units': 'HU'}),
    'slices': ('ctp', {'RepetitionTime': 1.5, 'SliceTiming': [0, 0.5, 1]}),
    'volumes': ('ctp', {'VolumeTiming': [0, 1, 2, 4]}),
    'dcm2niix': ('ctp', {'RepetitionTime': 1.3, 'FrameTimesStart': [0, 1, 2, 4]}),
    'toggling': ('acq-x_run-1_ctp', {'SliceAcquisitionTimes': [[0, 0.5, 1]] * 4}),
    'ncct': ('ncct', {}, (2, 2, 3)),
}
# the same by the code that is expected
WRONG = {
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
# label of the participant: ending of the file, and the field that is left out
LACKING = {
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
    """Sets of errors by participant."""
    found = defaultdict(set)
    for issue in bids_schema.validate(folder):
        if issue['severity'] == 'error':
            participant = issue['location'].split('/')[1].removeprefix('sub-')
            found[participant].add((issue['code'], issue.get('subCode', '')))
    return found


@pytest.fixture(scope='module')
def raw(tmp_path_factory):
    folder = describe(tmp_path_factory.mktemp('raw'), RAW)
    for participant, file in (RIGHT | WRONG).items():
        add(folder, participant.replace('_', ''), *file)
    add(folder, 'untimed', 'ctp', {})
    for participant in RIGHT:  # an error to be seen by: a participant who is passed over has none
        add(folder, participant, 'perfusion', {}, (2, 2, 3))
    return folder


@pytest.fixture(scope='module')
def raw_errors(raw):
    return errors(raw)


@pytest.fixture(scope='module')
def derived_errors(tmp_path_factory):
    folder = describe(tmp_path_factory.mktemp('derived'), DERIVED)
    for participant, (ending, field) in LACKING.items():
        add(folder, f'{participant}Whole', ending, WHOLE, (2, 2, 3))
        sidecar = {name: value for name, value in WHOLE.items() if name != field}
        add(folder, participant, ending, sidecar, (2, 2, 3))
    add(folder, 'order', 'desc-local_label-core_mask', WHOLE, (2, 2, 3))
    alone = add(folder, 'alone', 'cbf', WHOLE, (2, 2, 3))
    alone.with_suffix('.nii.gz').unlink()
    return errors(folder)


def test_the_example_passes(bids_dir):
    assert errors(bids_dir) == {}


def test_the_truth_of_the_example_passes(bids_dir):
    assert errors(bids_dir / 'derivatives' / 'truth') == {}


def test_a_dataset_is_read_and_not_changed(raw, raw_errors):
    names = {path.name for path in raw.iterdir()}
    assert names == {path.name for path in raw.glob('sub-*')} | {
        'dataset_description.json', '.bidsignore',
    }  # fmt: skip


@pytest.mark.parametrize('participant', RIGHT)
def test_each_way_to_tell_times_passes(raw_errors, participant):
    assert raw_errors[participant] == {('NOT_INCLUDED', '')}


@pytest.mark.parametrize('code', WRONG)
def test_a_mistake_in_a_series_is_an_error(raw_errors, code):
    assert code in {found for found, _ in raw_errors[code.replace('_', '')]}


@pytest.mark.parametrize('participant', LACKING)
def test_a_field_that_a_derivative_needs_is_asked_for(derived_errors, participant):
    assert derived_errors[f'{participant}Whole'] == set()
    assert derived_errors[participant] == {('SIDECAR_KEY_REQUIRED', LACKING[participant][1])}


def test_labels_in_another_order_are_an_error(derived_errors):
    assert ('FILENAME_MISMATCH', '') in derived_errors['order']


def test_a_sidecar_of_nothing_is_an_error(derived_errors):
    assert ('SIDECAR_WITHOUT_DATAFILE', '') in derived_errors['alone']


def test_a_folder_that_is_no_dataset_is_one_sentence(tmp_path, capsys):
    with pytest.raises(UsageError, match='has no dataset_description'):
        bids_schema.validate(tmp_path)
    assert bids_schema.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.count('\n') == 1


def test_command_names_each_error_and_fails(raw, capsys):
    assert bids_schema.main([str(raw)]) == 1
    said = capsys.readouterr().out
    assert 'CTP_UNITS /sub-CTPUNITS/ct/sub-CTPUNITS_ctp.nii.gz\n' in said
    # a series without times is warned of: it may come with --frame-interval
    assert 'sub-untimed' not in said
    assert 'warnings' in said


def test_command_prints_the_schema(capsys):
    assert bids_schema.main([]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert 'ct' in schema['objects']['datatypes']
    assert 'bold' in schema['objects']['suffixes']
