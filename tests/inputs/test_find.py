# SPDX-License-Identifier: Apache-2.0
"""Which CT perfusion series are found, how they are selected, and which fail."""

import json
import re
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest

from ctpprep.exceptions import UsageError
from ctpprep.inputs.find import find_series
from ctpprep.inputs.series import CTPSeries
from ctpprep.settings import RunSettings

EVEN = {'RepetitionTime': 1.5}
LAS = np.diag([-2.0, 2.0, 5.0, 1.0])


def write_series(path, sidecar=None, shape=(4, 4, 3, 12)):
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.random.default_rng(1).integers(0, 100, shape).astype(np.int16)
    nb.Nifti1Image(voxels, LAS).to_filename(path)
    if sidecar is not None:
        path.with_name(path.name.partition('.')[0] + '.json').write_text(json.dumps(sidecar))
    return path


def find(root, **options):
    return find_series(RunSettings(root, root / 'out', root / 'work', **options))


def find_one(root, **options):
    (series,) = find(root, **options)
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
def test_series_is_found_in_every_layout(tmp_path, file, prefix):
    write_series(tmp_path / file, EVEN)
    series = find_one(tmp_path)
    assert isinstance(series, CTPSeries)
    assert series.prefix == prefix
    assert series.uri == f'bids:raw:{file}'


def test_outputs_of_a_session_have_their_own_folder(tmp_path):
    write_series(tmp_path / 'sub-01/ses-01/sub-01_ses-01_ctp.nii.gz', EVEN)
    series = find_one(tmp_path)
    assert (series.participant, series.session) == ('01', '01')
    assert series.out_subdir == 'sub-01/ses-01/ct'
    assert series.workflow_name == 'sub_01_ses_01_wf'


def test_labels_come_from_the_file_name_and_not_from_parent_folders(tmp_path):
    root = tmp_path / 'sub-study' / 'ses-x' / 'ct'
    write_series(root / 'sub-01/ct/sub-01_ctp.nii.gz', EVEN)
    assert find_one(root).participant == '01'


def test_derived_images_are_not_series(tmp_path, path):
    write_series(path, EVEN)
    write_series(path.with_name('sub-01_space-ncct_ctp.nii.gz'), EVEN)
    write_series(tmp_path / 'derivatives/sub-01/ct/sub-01_ctp.nii.gz', EVEN)
    assert find_one(tmp_path).path == path


def test_layout_in_the_documentation_is_read(tmp_path):
    page = (Path(__file__).parents[2] / 'docs' / 'usage.md').read_text()
    section = page.partition('## From DICOM')[2].partition('\n## ')[0]
    image, sidecar, ncct = re.findall(r'─ (sub-.*_.*)', section)
    home = tmp_path / 'sub-01' / 'ses-01' / 'ct'
    write_series(home / image)
    (home / sidecar).write_text(re.search(r'`({"Rep.*})`', section)[1])
    write_series(home / ncct, shape=(4, 4, 3))
    series = find_one(tmp_path)
    assert series.frame_times[1] == 1.5
    assert series.ncct == home / ncct


def test_ncct_named_like_the_series_is_preferred(tmp_path):
    for name in ('ctp.nii.gz', 'acq-a_ncct.nii.gz', 'run-2_ctp.nii.gz', 'run-2_ncct.nii.gz'):
        shape = (4, 4, 3, 12) if 'ctp' in name else (4, 4, 3)
        write_series(tmp_path / f'sub-01/ct/sub-01_{name}', EVEN, shape=shape)
    write_series(tmp_path / 'sub-01/perf/sub-01_ct.nii.gz', shape=(4, 4, 3))
    ncct = {series.prefix: series.ncct.name for series in find(tmp_path)}
    assert ncct == {'sub-01': 'sub-01_acq-a_ncct.nii.gz',
                      'sub-01_run-2': 'sub-01_run-2_ncct.nii.gz'}  # fmt: skip


def test_ncct_of_the_session_is_found(tmp_path):
    write_series(tmp_path / 'sub-01/ses-1/ct/sub-01_ses-1_ctp.nii.gz', EVEN)
    write_series(tmp_path / 'sub-01/ses-2/ct/sub-01_ses-2_ncct.nii.gz', shape=(4, 4, 3))
    assert find_one(tmp_path).ncct is None
    ncct = write_series(tmp_path / 'sub-01/ses-1/ct/sub-01_ses-1_ncct.nii.gz', shape=(4, 4, 3))
    assert find_one(tmp_path).ncct == ncct


def test_participants_are_selected_with_or_without_prefix(tmp_path):
    for label in ('01', '02', '03'):
        write_series(tmp_path / f'sub-{label}/ct/sub-{label}_ctp.nii.gz', EVEN)
    all_series = find(tmp_path, participant_label=('sub-03', '01'))
    assert [series.participant for series in all_series] == ['01', '03']


def test_error_of_an_unknown_participant_suggests_the_nearest(tmp_path):
    write_series(tmp_path / 'sub-stroke01/ct/sub-stroke01_ctp.nii.gz', EVEN)
    with pytest.raises(UsageError, match=r'sub-strok01 is not in .*did you mean sub-stroke01\?'):
        find(tmp_path, participant_label=('strok01',))


def test_sessions_are_selected_and_unknown_ones_refused(tmp_path):
    for label in ('acute', 'day1'):
        write_series(tmp_path / f'sub-01/ses-{label}/ct/sub-01_ses-{label}_ctp.nii.gz', EVEN)
    assert find_one(tmp_path, session_label=('day1',)).session == 'day1'
    with pytest.raises(UsageError, match='did you mean ses-acute'):
        find(tmp_path, session_label=('ses-akute',))


def test_error_suggests_a_dataset_in_a_subfolder(tmp_path):
    write_series(tmp_path / 'raw_data/sub-01/ct/sub-01_ctp.nii.gz', EVEN)
    with pytest.raises(UsageError, match=r'did you mean .*raw_data\?'):
        find(tmp_path)


def test_error_of_a_dataset_without_series_lists_the_file_names(tmp_path):
    (tmp_path / 'sub-01' / 'anat').mkdir(parents=True)
    with pytest.raises(UsageError, match=r'no CT perfusion series .*_ctp\.nii\.gz'):
        find(tmp_path)


def test_failed_series_does_not_stop_the_others(tmp_path, path):
    write_series(path)
    write_series(tmp_path / 'sub-02/ct/sub-02_ctp.nii.gz', EVEN)
    bad, good = find(tmp_path)
    assert not bad.can_run
    assert bad.reason.startswith('sub-01/ct/sub-01_ctp.nii.gz: no acquisition times')
    assert good.can_run


def test_requested_participant_without_series_fails(tmp_path, path):
    write_series(path, EVEN)
    (tmp_path / 'sub-02').mkdir()
    assert [series.participant for series in find(tmp_path)] == ['01']
    _, missing = find(tmp_path, participant_label=('01', '02'))
    assert missing.absent
    assert missing.reason.startswith('sub-02 has no CT perfusion series')


def test_two_files_with_the_same_outputs_fail(tmp_path, path):
    write_series(path, EVEN)
    write_series(tmp_path / 'sub-01/perf/sub-01_ctp.nii.gz', EVEN)
    assert 'would write the same outputs' in find_one(tmp_path).reason


def test_file_in_the_folder_of_another_participant_fails(tmp_path):
    write_series(tmp_path / 'sub-02/ct/sub-01_ctp.nii.gz', EVEN)
    reason = find(tmp_path)[0].reason
    assert 'sub-02/ct/sub-01_ctp.nii.gz: by its name, the file belongs in sub-01' in reason


def test_files_of_another_participant_leave_the_series_beside_them(tmp_path):
    for name in ('sub-02', 'sub-01_run-1', 'sub-01_run-2'):
        write_series(tmp_path / f'sub-02/ct/{name}_ctp.nii.gz', EVEN)
    good, bad = [series for series in find(tmp_path) if series.participant == '02']
    assert good.can_run
    assert (good.prefix, bad.prefix) == ('sub-02', 'sub-02_misplaced')


def test_dataset_path_may_be_a_symlink_or_relative(tmp_path, monkeypatch):
    write_series(tmp_path / 'raw/sub-01/ct/sub-01_ctp.nii.gz', EVEN)
    (tmp_path / 'link').symlink_to('raw')
    monkeypatch.chdir(tmp_path)
    for root in (tmp_path / 'link', Path('raw'), tmp_path / 'raw' / '..' / 'link'):
        assert find_one(root).uri == 'bids:raw:sub-01/ct/sub-01_ctp.nii.gz'


@pytest.mark.parametrize('name', ['ctp', 'sub-01_first_ctp', 'sub-01_acq-a b_ctp'])
def test_file_name_that_violates_bids_fails_alone(tmp_path, path, name):
    write_series(path, EVEN)
    write_series(path.with_name(f'{name}.nii.gz'), EVEN)
    bad, good = sorted(find(tmp_path), key=lambda series: series.can_run)
    assert f'{name}.nii.gz: the file name does not follow BIDS' in bad.reason
    assert 'rename it to sub-<label>' in bad.reason
    assert (bad.participant, good.prefix) == ('01', 'sub-01')


# -- sidecars


def test_nearest_sidecar_has_precedence(tmp_path, path):
    (tmp_path / 'ctp.json').write_text('{"RepetitionTime": 3.0, "Manufacturer": "X"}')
    write_series(path, {'RepetitionTime': 2.0})
    sidecar = find_one(tmp_path).sidecar
    assert sidecar == {'RepetitionTime': 2.0, 'Manufacturer': 'X'}


@pytest.mark.parametrize('text', ['{"RepetitionTime": ', '[1.5]', b'\xff\xfe'])
def test_invalid_sidecar_is_named(tmp_path, path, text):
    write_series(path)
    sidecar = path.with_name('sub-01_ctp.json')
    sidecar.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert 'the sidecar sub-01_ctp.json' in find_one(tmp_path).reason


def test_units_other_than_hu_fail(tmp_path, path):
    write_series(path, {**EVEN, 'Units': 'mL/100 g/min'})
    reason = find_one(tmp_path).reason
    assert 'ctp.nii.gz: Units is "mL/100 g/min" in the sidecar, need Hounsfield units' in reason


def test_broken_symlink_fails(tmp_path, path):
    path.parent.mkdir(parents=True)
    path.symlink_to(tmp_path / 'annex' / 'key')
    assert 'is missing (broken symlink); fetch it' in find_one(tmp_path).reason


# -- selecting


@pytest.fixture
def many(tmp_path):
    """Write two sessions of two runs each, with a non-contrast CT of two reconstructions."""
    for session in ('01', '02'):
        home = tmp_path / f'sub-01/ses-{session}/ct'
        for run in ('01', '02'):
            write_series(home / f'sub-01_ses-{session}_run-{run}_ctp.nii.gz', EVEN)
        for kernel in ('bone', 'soft'):
            write_series(home / f'sub-01_ses-{session}_rec-{kernel}_ncct.nii.gz', shape=(4, 4, 3))
    return tmp_path


@pytest.mark.parametrize('label', ['2', '02', 'run-02'])
def test_runs_are_selected(many, label):
    (series,) = find(many, session_label=('01',), run_label=(label,))
    assert series.prefix == 'sub-01_ses-01_run-02'


def test_unknown_run_is_refused(many):
    with pytest.raises(
        UsageError, match='run-3 is not in the selected sessions; it has run-1, run-2'
    ):
        find(many, run_label=('3',))


def write_filter(root, **content):
    path = root.parent / f'{root.name}-filter.json'
    path.write_text(json.dumps(content))
    return path


def test_filter_file_selects_series_and_ncct(many):
    path = write_filter(many, ctp={'session': '02', 'run': [1]}, ncct={'reconstruction': 'soft'})
    (series,) = find(many, bids_filter_file=path)
    assert series.prefix == 'sub-01_ses-02_run-01'
    assert 'rec-soft' in series.ncct.name


def test_null_in_a_filter_file_requires_a_missing_entity(many):
    write_series(many / 'sub-01/ses-01/ct/sub-01_ses-01_acq-x_ctp.nii.gz', EVEN)
    without = find(many, bids_filter_file=write_filter(many, ctp={'acquisition': None}))
    assert len(without) == 4
    (series,) = find(many, bids_filter_file=write_filter(many, ctp={'acquisition': '*'}))
    assert series.prefix == 'sub-01_ses-01_acq-x'


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ({'ctps': {}}, "there is no 'ctps'; did you mean ctp?"),
        ({'ctp': {'sesion': '01'}}, "ctp: there is no 'sesion'; did you mean session?"),
        ({'ctp': 3}, 'ctp must be an object, such as {"session": "01"}, got 3'),
        ({'ctp': {'session': '09'}}, '--bids-filter-file leaves none'),
    ],
)
def test_invalid_filter_file_raises_an_error_with_field_and_hint(many, content, message):
    with pytest.raises(UsageError) as error:
        find(many, bids_filter_file=write_filter(many, **content))
    assert message in str(error.value)


def test_database_is_reused_and_refused_when_out_of_date(many, monkeypatch):
    write_series(many / 'sub-02/ct/sub-02_ctp.nii.gz', EVEN)
    database = many.parent / f'{many.name}-database'
    first = find(many, participant_label=('01',), bids_database_dir=database)
    assert len(first) == 4
    with monkeypatch.context() as patched:
        patched.setattr('bids.layout.BIDSLayoutIndexer.__call__', lambda *_: 1 / 0)
        assert find(many, participant_label=('01',), bids_database_dir=database) == first
        (other,) = find(many, participant_label=('02',), bids_database_dir=database)
    assert other.prefix == 'sub-02'
    write_series(many / 'sub-03/ct/sub-03_ctp.nii.gz', EVEN)
    with pytest.raises(
        UsageError, match=r'does not contain sub-03: the dataset has changed.*; remove the folder'
    ):
        find(many, bids_database_dir=database)


def test_database_does_not_contain_source_data(many):
    write_series(many / 'sub-02/sourcedata/sub-02_ctp.nii.gz', EVEN)
    for _ in range(2):
        everyone = find(many, bids_database_dir=many.parent / f'{many.name}-database')
        assert {series.participant for series in everyone} == {'01'}


def test_database_of_another_dataset_is_refused(many, tmp_path_factory):
    database = many.parent / f'{many.name}-database'
    find(many, bids_database_dir=database)
    other = tmp_path_factory.mktemp('other')
    write_series(other / 'sub-01/ct/sub-01_ctp.nii.gz', EVEN)
    with pytest.raises(UsageError, match='bids-database-dir'):
        find(other, bids_database_dir=database)


def test_missing_folder_of_a_participant_fails_alone(many):
    (many / 'sub-99').symlink_to('nowhere')
    (failed,) = [series for series in find(many) if not series.can_run]
    assert failed.prefix == 'sub-99'
    assert 'the folder is missing (broken symlink)' in failed.reason


def test_link_beside_the_participants_is_not_one_of_them(many):
    (many / 'archive').touch()
    (many / 'sub-defaced.tar.gz').symlink_to('archive')
    (many / 'sub-defaced').symlink_to('archive')
    (many / 'sub-98_ctp.json').symlink_to('nowhere')
    assert all(series.can_run for series in find(many))


def test_source_data_of_a_participant_may_contain_a_loop(many, tmp_path_factory):
    archive = tmp_path_factory.mktemp('archive')
    (archive / 'again').symlink_to('.')
    (many / 'sub-01/sourcedata').symlink_to(archive)
    assert len(find(many)) == 4
    assert all(series.can_run for series in find(many))


def test_link_to_a_participant_leaves_that_participant(many):
    before = [series.prefix for series in find(many)]
    (many / 'sub-99').symlink_to('sub-01')
    everyone = find(many)
    assert [series.prefix for series in everyone if series.can_run] == before
    assert all(
        'by its name, the file belongs in sub-01' in series.reason
        for series in everyone
        if not series.can_run
    )


def test_only_a_series_in_another_format_is_named(path, tmp_path):
    write_series(path, EVEN)
    path.rename(path.with_name('sub-01_ctp.mgz'))
    (series,) = find(tmp_path)
    assert 'because of its format (.mgz)' in series.reason


@pytest.mark.parametrize(
    'name',
    [
        'sub-02_perf.nii.gz',
        'sub-02_acq-dsc_perf.nii.gz',
        'sub-02_ctp.png',
        'sub-02_ctp.html',
        'sub-02_ctp.nii.gz.md5',
        'sub-02_space-MNI_CTP.nii.gz',
        'sourcedata/sub-02_ctp.dcm',
    ],
)
def test_file_that_is_not_a_series_leaves_its_participant_skipped(path, tmp_path, name):
    write_series(path, EVEN)
    other = tmp_path / 'sub-02' / name
    other.parent.mkdir(parents=True)
    other.touch()
    assert [series.prefix for series in find(tmp_path)] == ['sub-01']


def test_series_in_another_format_is_named_only_where_it_is_selected(tmp_path):
    write_series(tmp_path / 'sub-01/ses-01/sub-01_ses-01_run-1_ctp.nii.gz', EVEN)
    (tmp_path / 'sub-02').mkdir()
    (tmp_path / 'sub-02/sub-02_ses-02_run-02_ctp.NII').touch()
    assert [series.participant for series in find(tmp_path)] == ['01', '02']
    for options in ({'session_label': ('01',)}, {'run_label': ('1',)}):
        assert [series.participant for series in find(tmp_path, **options)] == ['01']
    filters = write_filter(tmp_path, ctp={'session': '01'})
    assert [series.participant for series in find(tmp_path, bids_filter_file=filters)] == ['01']
    with pytest.raises(UsageError, match='no CT perfusion series or maps'):
        find(tmp_path, entry='maps')
