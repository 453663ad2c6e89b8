# SPDX-License-Identifier: Apache-2.0
"""Finding CT perfusion series, their timing, and what is refused."""

import json
import re
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest

from ctpprep.exceptions import SeriesError, TimingError, UsageError
from ctpprep.inputs.dataset import FailedSeries
from ctpprep.inputs.find import find_series
from ctpprep.inputs.series import CTPSeries
from ctpprep.inputs.timing import read_timing
from ctpprep.io.headers import read_header
from ctpprep.settings import RunSettings

EVEN = {'RepetitionTime': 1.5}
LAS = np.diag([-2.0, 2.0, 5.0, 1.0])


def write_series(path, sidecar=None, shape=(4, 4, 3, 12), affine=LAS, interval=0.0, unit='sec'):
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.random.default_rng(1).integers(0, 100, shape).astype(np.int16)
    image = nb.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units('mm', unit)
    if len(shape) == 4:
        image.header['pixdim'][4] = interval
    image.to_filename(path)
    if sidecar is not None:
        path.with_name(path.name.partition('.')[0] + '.json').write_text(json.dumps(sidecar))
    return path


def look(root, **options):
    return find_series(RunSettings(root, root / 'out', root / 'work', **options))


def look_one(root, **options):
    (series,) = look(root, **options)
    return series


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'sub-01' / 'ct' / 'sub-01_ctp.nii.gz'


# -- finding


@pytest.mark.parametrize(
    ('file', 'prefix'),
    [
        ('sub-01/ct/sub-01_ctp.nii.gz', 'sub-01'),
        ('sub-01/ct/sub-01_ctp.nii', 'sub-01'),
        ('sub-01/ct/sub-01_acq-ctp_run-1_ct.nii.gz', 'sub-01_run-1'),
        ('sub-01/perf/sub-01_acq-jog_ctp.nii.gz', 'sub-01_acq-jog'),
        ('sub-01/ses-01/sub-01_ses-01_ctp.nii.gz', 'sub-01_ses-01'),
    ],
)
def test_every_layout_is_found(tmp_path, file, prefix):
    write_series(tmp_path / file, EVEN)
    series = look_one(tmp_path)
    assert isinstance(series, CTPSeries)
    assert series.prefix == prefix
    assert series.uri == f'bids:raw:{file}'


def test_a_session_shows_in_the_folder_of_the_outputs(tmp_path):
    write_series(tmp_path / 'sub-01/ses-01/sub-01_ses-01_ctp.nii.gz', EVEN)
    series = look_one(tmp_path)
    assert (series.participant, series.session) == ('01', '01')
    assert series.out_subdir == 'sub-01/ses-01/ct'
    assert series.workflow_name == 'sub_01_ses_01_wf'


def test_labels_come_from_the_file_also_below_a_folder_named_like_a_participant(tmp_path):
    root = tmp_path / 'sub-study' / 'ses-x' / 'ct'
    write_series(root / 'sub-01/ct/sub-01_ctp.nii.gz', EVEN)
    assert look_one(root).participant == '01'


def test_derived_images_are_not_series(tmp_path, path):
    write_series(path, EVEN)
    write_series(path.with_name('sub-01_space-ncct_ctp.nii.gz'), EVEN)
    write_series(tmp_path / 'derivatives/sub-01/ct/sub-01_ctp.nii.gz', EVEN)
    assert look_one(tmp_path).path == path


def test_the_layout_in_the_documentation_is_read(tmp_path):
    page = (Path(__file__).parents[2] / 'docs' / 'usage.md').read_text()
    section = page.partition('## From DICOM')[2].partition('\n## ')[0]
    image, sidecar, ncct = re.findall(r'─ (sub-.*_.*)', section)
    home = tmp_path / 'sub-01' / 'ses-01' / 'ct'
    write_series(home / image)
    (home / sidecar).write_text(re.search(r'`({"Rep.*})`', section)[1])
    write_series(home / ncct, shape=(4, 4, 3))
    series = look_one(tmp_path)
    assert series.frame_times[1] == 1.5
    assert series.ncct == home / ncct


def test_ncct_with_the_name_of_the_series_goes_first(tmp_path):
    for name in ('ctp.nii.gz', 'acq-a_ncct.nii.gz', 'run-2_ctp.nii.gz', 'run-2_ncct.nii.gz'):
        shape = (4, 4, 3, 12) if 'ctp' in name else (4, 4, 3)
        write_series(tmp_path / f'sub-01/ct/sub-01_{name}', EVEN, shape=shape)
    write_series(tmp_path / 'sub-01/perf/sub-01_ct.nii.gz', shape=(4, 4, 3))
    chosen = {each.prefix: each.ncct.name for each in look(tmp_path)}
    assert chosen == {'sub-01': 'sub-01_acq-a_ncct.nii.gz',
                      'sub-01_run-2': 'sub-01_run-2_ncct.nii.gz'}  # fmt: skip


def test_ncct_of_the_session_is_found(tmp_path):
    write_series(tmp_path / 'sub-01/ses-1/ct/sub-01_ses-1_ctp.nii.gz', EVEN)
    write_series(tmp_path / 'sub-01/ses-2/ct/sub-01_ses-2_ncct.nii.gz', shape=(4, 4, 3))
    assert look_one(tmp_path).ncct is None
    own = write_series(tmp_path / 'sub-01/ses-1/ct/sub-01_ses-1_ncct.nii.gz', shape=(4, 4, 3))
    assert look_one(tmp_path).ncct == own


def test_participants_may_be_named_with_or_without_key(tmp_path):
    for label in ('01', '02', '03'):
        write_series(tmp_path / f'sub-{label}/ct/sub-{label}_ctp.nii.gz', EVEN)
    found = look(tmp_path, participant_label=('sub-03', '01'))
    assert [each.participant for each in found] == ['01', '03']


def test_unknown_participant_is_an_error_with_the_nearest(tmp_path):
    write_series(tmp_path / 'sub-stroke01/ct/sub-stroke01_ctp.nii.gz', EVEN)
    with pytest.raises(UsageError, match=r'sub-strok01 is not in .*did you mean sub-stroke01\?'):
        look(tmp_path, participant_label=('strok01',))


def test_sessions_are_selected_and_unknown_ones_named(tmp_path):
    for label in ('acute', 'day1'):
        write_series(tmp_path / f'sub-01/ses-{label}/ct/sub-01_ses-{label}_ctp.nii.gz', EVEN)
    assert look_one(tmp_path, session_label=('day1',)).session == 'day1'
    with pytest.raises(UsageError, match='did you mean ses-acute'):
        look(tmp_path, session_label=('ses-akute',))


def test_dataset_one_folder_further_down_is_suggested(tmp_path):
    write_series(tmp_path / 'raw_data/sub-01/ct/sub-01_ctp.nii.gz', EVEN)
    with pytest.raises(UsageError, match=r'did you mean .*raw_data\?'):
        look(tmp_path)


def test_dataset_without_series_says_what_was_looked_for(tmp_path):
    (tmp_path / 'sub-01' / 'anat').mkdir(parents=True)
    with pytest.raises(UsageError, match=r'no CT perfusion series .*_ctp\.nii\.gz'):
        look(tmp_path)


def test_a_bad_series_does_not_stop_the_others(tmp_path, path):
    write_series(path)
    write_series(tmp_path / 'sub-02/ct/sub-02_ctp.nii.gz', EVEN)
    bad, good = look(tmp_path)
    assert isinstance(bad, FailedSeries)
    assert bad.reason.startswith('sub-01/ct/sub-01_ctp.nii.gz: no acquisition times')
    assert isinstance(good, CTPSeries)


def test_a_wanted_participant_without_series_has_failed(tmp_path, path):
    write_series(path, EVEN)
    (tmp_path / 'sub-02').mkdir()
    assert [each.participant for each in look(tmp_path)] == ['01']
    _, missing = look(tmp_path, participant_label=('01', '02'))
    assert missing.reason.startswith('sub-02 has no CT perfusion series')


def test_two_files_with_the_same_outputs_are_refused(tmp_path, path):
    write_series(path, EVEN)
    write_series(tmp_path / 'sub-01/perf/sub-01_ctp.nii.gz', EVEN)
    assert 'would write the same outputs' in look_one(tmp_path).reason


def test_file_in_the_folder_of_another_participant_is_refused(tmp_path):
    write_series(tmp_path / 'sub-02/ct/sub-01_ctp.nii.gz', EVEN)
    assert 'not in the folder of its name' in look(tmp_path)[0].reason


def test_dataset_may_be_named_by_a_link_or_a_relative_path(tmp_path, monkeypatch):
    write_series(tmp_path / 'raw/sub-01/ct/sub-01_ctp.nii.gz', EVEN)
    (tmp_path / 'link').symlink_to('raw')
    monkeypatch.chdir(tmp_path)
    for root in (tmp_path / 'link', Path('raw'), tmp_path / 'raw' / '..' / 'link'):
        assert look_one(root).uri == 'bids:raw:sub-01/ct/sub-01_ctp.nii.gz'


@pytest.mark.parametrize('name', ['ctp', 'sub-01_first_ctp', 'sub-01_acq-a b_ctp'])
def test_names_unlike_bids_are_refused_without_stopping_others(tmp_path, path, name):
    write_series(path, EVEN)
    write_series(path.with_name(f'{name}.nii.gz'), EVEN)
    bad, good = sorted(look(tmp_path), key=lambda each: isinstance(each, CTPSeries))
    assert 'is not named as in BIDS' in bad.reason
    assert (bad.participant, good.prefix) == ('01', 'sub-01')


# -- sidecars


def test_the_nearest_sidecar_wins(tmp_path, path):
    (tmp_path / 'ctp.json').write_text('{"RepetitionTime": 3.0, "Manufacturer": "X"}')
    write_series(path, {'RepetitionTime': 2.0})
    sidecar = look_one(tmp_path).sidecar
    assert sidecar == {'RepetitionTime': 2.0, 'Manufacturer': 'X'}


@pytest.mark.parametrize('text', ['{"RepetitionTime": ', '[1.5]', b'\xff\xfe'])
def test_a_broken_sidecar_is_named(tmp_path, path, text):
    write_series(path)
    sidecar = path.with_name('sub-01_ctp.json')
    sidecar.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert 'the sidecar sub-01_ctp.json' in look_one(tmp_path).reason


def test_other_units_than_hu_are_refused(tmp_path, path):
    write_series(path, {**EVEN, 'Units': 'mL/100 g/min'})
    assert 'ctpprep needs Hounsfield units' in look_one(tmp_path).reason


# -- headers


def test_cut_off_gzip_is_refused(path):
    write_series(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(SeriesError, match='cut off'):
        read_header(path)


def test_a_cut_off_file_tells_how_much_of_it_is_there(path):
    write_series(path)
    voxels = np.random.default_rng(0).integers(-1000, 1000, (32, 32, 4, 12)).astype(np.int16)
    nb.Nifti1Image(voxels, np.diag([-2, 2, 5, 1])).to_filename(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(
        SeriesError, match=r'cut off \([345]\d{4} bytes once unpacked, the header '
    ):
        read_header(path)


def test_cut_off_plain_file_is_refused(tmp_path):
    path = write_series(tmp_path / 'sub-01_ctp.nii')
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(SeriesError, match=r'cut off \(1484 bytes, the header announces 1504\)'):
        read_header(path)


def test_gzip_in_two_members_is_read(path):
    import gzip

    plain = gzip.decompress(write_series(path).read_bytes())
    path.write_bytes(gzip.compress(plain[:900]) + gzip.compress(plain[900:]))
    assert read_header(path)[0] == (4, 4, 3, 12)


@pytest.mark.parametrize('content', [b'', b'not an image', b'\x1f\x8b\x08\x00'])
def test_unreadable_file_is_refused(path, content):
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(SeriesError, match='not a readable NIfTI file'):
        read_header(path)


def test_broken_link_is_refused(tmp_path, path):
    path.parent.mkdir(parents=True)
    path.symlink_to(tmp_path / 'annex' / 'key')
    assert 'broken link' in look_one(tmp_path).reason


@pytest.mark.parametrize(
    ('shape', 'message'),
    [((4, 4, 36), r'3D \(4 x 4 x 36\); a 4D series'), ((4, 4, 3, 9), '9 frames; at least 10')],
)
def test_wrong_shape_is_refused(path, shape, message):
    with pytest.raises(SeriesError, match=message):
        read_header(write_series(path, shape=shape))


def test_gantry_tilt_left_in_the_affine_is_refused(path):
    sheared = LAS.copy()
    sheared[1, 2] = 5 * np.tan(np.deg2rad(15))
    with pytest.raises(SeriesError, match=r'sheared by 15\.0 degrees .* resample'):
        read_header(write_series(path, affine=sheared))


def test_tilted_slices_are_fine_but_coronal_ones_are_not(path):
    def rotated(degrees):
        c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
        return np.array([[1, 0, 0, 0], [0, c, -s, 0], [0, s, c, 0], [0, 0, 0, 1]]) @ LAS

    read_header(write_series(path, affine=rotated(25)))
    with pytest.raises(SeriesError, match='90 degrees away from the head-foot axis'):
        read_header(write_series(path, affine=rotated(90)))


def test_file_without_orientation_is_refused(path):
    image = nb.Nifti1Image(np.zeros((4, 4, 3, 12), np.int16), None)
    path.parent.mkdir(parents=True)
    image.to_filename(path)
    with pytest.raises(SeriesError, match='left and right cannot be told'):
        read_header(path)


# -- timing


def timing(sidecar, header_interval=None, command_times=None):
    return read_timing(sidecar, 10, 2, header_interval, command_times)


UNEVEN = [0.0, 1.5, 3.0, 4.5, 6.0, 7.5, 9.0, 12.0, 15.0, 18.0]


@pytest.mark.parametrize(
    ('sidecar', 'command_times', 'source', 'last'),
    [
        ({}, None, 'pixdim[4]', 18.0),
        (EVEN, None, 'RepetitionTime', 13.5),
        ({**EVEN, 'FrameTimesStart': UNEVEN}, None, 'FrameTimesStart', 18.0),
        ({'VolumeTiming': UNEVEN, 'FrameTimesStart': None}, None, 'VolumeTiming', 18.0),
        (EVEN, ('--frame-interval', 1.0), '--frame-interval', 9.0),
        ({**EVEN, 'VolumeTiming': UNEVEN}, ('--frame-interval', 1.0), '--frame-interval', 9.0),
        ({}, ('--frame-times', UNEVEN), '--frame-times', 18.0),
    ],
)
def test_the_first_source_of_times_wins(sidecar, command_times, source, last):
    frames, samples, found = timing(sidecar, 2.0, command_times)
    assert found == source
    assert frames[-1] == pytest.approx(last)
    assert samples == (frames, frames)


def test_slice_timing_adds_to_uneven_frames():
    frames, samples, source = timing({'VolumeTiming': UNEVEN, 'SliceTiming': [0, 0.75]})
    assert source == 'VolumeTiming + SliceTiming'
    assert samples[1] == pytest.approx(np.add(frames, 0.75))


def test_slice_encoding_direction_turns_slice_timing():
    sidecar = {**EVEN, 'SliceTiming': [0, 0.75], 'SliceEncodingDirection': 'k-'}
    samples = timing(sidecar)[1]
    assert (samples[0][0], samples[1][0]) == (0.75, 0)


def test_slice_acquisition_times_hold_every_sample():
    rows = [[t, t + 0.75] if frame % 2 else [t + 0.75, t] for frame, t in enumerate(UNEVEN)]
    frames, samples, source = timing({**EVEN, 'SliceAcquisitionTimes': rows, 'SliceTiming': [9]})
    assert source == 'SliceAcquisitionTimes'
    assert frames == tuple(UNEVEN)
    assert samples[0][:2] == (0.75, 1.5)


def test_rows_of_sample_times_go_from_inferior_to_superior(tmp_path, path):
    sidecar = {**EVEN, 'SliceTiming': [0, 0.5, 1.0]}
    write_series(path, sidecar)
    assert [row[0] for row in look_one(tmp_path).sample_times] == [0, 0.5, 1]
    write_series(path, sidecar, affine=LAS @ np.diag([1, 1, -1, 1]))
    assert [row[0] for row in look_one(tmp_path).sample_times] == [1, 0.5, 0]


@pytest.mark.parametrize(
    ('sidecar', 'message'),
    [
        ({}, r'no acquisition times.*--frame-interval'),
        ({**EVEN, 'VolumeTiming': UNEVEN}, 'VolumeTiming and RepetitionTime, which exclude'),
        ({'VolumeTiming': UNEVEN[:9]}, 'VolumeTiming has 9 values; one time for each of 10'),
        ({'VolumeTiming': UNEVEN[::-1]}, 'VolumeTiming must increase'),
        ({'VolumeTiming': 1.5}, r'VolumeTiming has 1\.5; one time for each'),
        ({'RepetitionTime': '1.5'}, "'1.5', which is not a number"),
        ({'RepetitionTime': float('nan')}, 'nan, which is not a number'),
        ({'RepetitionTime': True}, 'True, which is not a number'),
        ({'RepetitionTime': 1500}, r'1500 s apart.*write 1500 ms as 1\.5'),
        ({'RepetitionTime': 0.01}, '0.01 s apart'),
        ({'RepetitionTime': 0}, 'must increase'),
        ({**EVEN, 'SliceTiming': [0, 1, 2]}, 'SliceTiming has 3 values; one time for each of 2'),
        ({**EVEN, 'SliceTiming': [-0.1, 0]}, 'SliceTiming holds -0.1 s'),
        ({**EVEN, 'SliceTiming': [0, 2.0]}, 'longer than a frame of 1.5 s'),
        ({**EVEN, 'SliceTiming': [0, 750]}, 'write 750 ms as 0.75'),
        ({**EVEN, 'SliceTiming': [0, 1], 'SliceEncodingDirection': 'j'}, '\'j\'; "k" or "k-"'),
        ({'SliceAcquisitionTimes': [UNEVEN, UNEVEN]}, 'has 2 rows; one row for each of 10'),
    ],
)
def test_times_that_cannot_be_true_are_refused(sidecar, message):
    with pytest.raises(TimingError, match=message):
        timing(sidecar)


@pytest.mark.parametrize(
    ('unit', 'interval', 'found'),
    [('sec', 1.5, 1.5), ('msec', 1500, 1.5), ('unknown', 1.5, None), ('sec', 0, None)],
)
def test_frame_interval_of_the_header_needs_a_unit(path, unit, interval, found):
    assert read_header(write_series(path, interval=interval, unit=unit))[2] == found


def test_frame_times_are_read_from_a_file(tmp_path, path):
    write_series(path, EVEN)
    file = tmp_path / 'times.txt'
    file.write_text('0, 1.5, 3, 4.5, 6, 7.5\n9 10.5 12 13.5\n16.5 19.5\n')
    assert look_one(tmp_path, frame_times=file).frame_times[-1] == 19.5
    file.write_text('0 1.5 three')
    with pytest.raises(UsageError, match=r'--frame-times .*three'):
        look(tmp_path, frame_times=file)


def test_frame_interval_in_ms_is_refused(tmp_path, path):
    write_series(path)
    with pytest.raises(UsageError, match=r'got 1500; write 1500 ms as 1\.5'):
        look(tmp_path, frame_interval=1500)


# -- what is chosen


@pytest.fixture
def many(tmp_path):
    """Two sessions of two runs each, with a non-contrast CT of two reconstructions."""
    for session in ('01', '02'):
        home = tmp_path / f'sub-01/ses-{session}/ct'
        for run in ('01', '02'):
            write_series(home / f'sub-01_ses-{session}_run-{run}_ctp.nii.gz', EVEN)
        for kernel in ('bone', 'soft'):
            write_series(home / f'sub-01_ses-{session}_rec-{kernel}_ncct.nii.gz', shape=(4, 4, 3))
    return tmp_path


@pytest.mark.parametrize('label', ['2', '02', 'run-02'])
def test_runs_are_chosen(many, label):
    found = look(many, session_label=('01',), run_label=(label,))
    assert [each.prefix for each in found] == ['sub-01_ses-01_run-02']


def test_an_unknown_run_is_refused(many):
    with pytest.raises(UsageError, match='run-3 is not in the chosen sessions'):
        look(many, run_label=('3',))


def write_filter(root, **content):
    path = root.parent / f'{root.name}-filter.json'
    path.write_text(json.dumps(content))
    return path


def test_a_filter_file_chooses_series_and_ct(many):
    path = write_filter(many, ctp={'session': '02', 'run': [1]}, ncct={'reconstruction': 'soft'})
    (series,) = look(many, bids_filter_file=path)
    assert series.prefix == 'sub-01_ses-02_run-01'
    assert 'rec-soft' in series.ncct.name


def test_null_in_a_filter_file_means_without(many):
    write_series(many / 'sub-01/ses-01/ct/sub-01_ses-01_acq-x_ctp.nii.gz', EVEN)
    found = look(many, bids_filter_file=write_filter(many, ctp={'acquisition': None}))
    assert len(found) == 4
    (one,) = look(many, bids_filter_file=write_filter(many, ctp={'acquisition': '*'}))
    assert one.prefix == 'sub-01_ses-01_acq-x'


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ({'ctps': {}}, "there is no 'ctps'; did you mean ctp?"),
        ({'ctp': {'sesion': '01'}}, "ctp: there is no 'sesion'; did you mean session?"),
        ({'ctp': 3}, 'must hold objects by kind'),
        ({'ctp': {'session': '09'}}, '--bids-filter-file leaves none'),
    ],
)
def test_a_wrong_filter_file_is_one_sentence(many, content, message):
    with pytest.raises(UsageError) as error:
        look(many, bids_filter_file=write_filter(many, **content))
    assert message in str(error.value)


def test_a_database_is_used_again_and_refused_when_it_is_too_old(many, monkeypatch):
    write_series(many / 'sub-02/ct/sub-02_ctp.nii.gz', EVEN)
    database = many.parent / f'{many.name}-database'
    first = look(many, participant_label=('01',), bids_database_dir=database)
    assert len(first) == 4
    with monkeypatch.context() as patched:
        patched.setattr('bids.layout.BIDSLayoutIndexer.__call__', lambda *_: 1 / 0)
        assert look(many, participant_label=('01',), bids_database_dir=database) == first
        (other,) = look(many, participant_label=('02',), bids_database_dir=database)
    assert other.prefix == 'sub-02'
    write_series(many / 'sub-03/ct/sub-03_ctp.nii.gz', EVEN)
    with pytest.raises(UsageError, match='does not know sub-03: the dataset has changed'):
        look(many, bids_database_dir=database)


def test_a_database_of_another_dataset_is_refused(many, tmp_path_factory):
    database = many.parent / f'{many.name}-database'
    look(many, bids_database_dir=database)
    other = tmp_path_factory.mktemp('other')
    write_series(other / 'sub-01/ct/sub-01_ctp.nii.gz', EVEN)
    with pytest.raises(UsageError, match='bids-database-dir'):
        look(other, bids_database_dir=database)
