# SPDX-License-Identifier: Apache-2.0
"""Group tables: rows of all series, and the state and the reason of series without tables."""

import json
import logging
import os
import threading
from dataclasses import replace

import pytest

from ctpprep import group
from ctpprep.exceptions import SeriesError, UsageError
from ctpprep.group import tsv
from ctpprep.group.tables import IDS, VERDICT
from ctpprep.io.files import file_lock


def test_rows_name_participant_session_and_series(site):
    for folder, prefix in (('sub-01', 'sub-01_run-1'), ('sub-02/ses-a', 'sub-02_ses-a')):
        site.write_volumes(folder, prefix=prefix)
        site.write_quality(folder, prefix=prefix)
    site.collect()
    table = site.read()
    assert list(table.columns[:5]) == list(IDS)
    assert list(table.iloc[1, :5]) == ['sub-01', 'n/a', 'sub-01_run-1', 'succeeded', 'n/a']
    assert list(table.iloc[6, :5]) == ['sub-02', 'ses-a', 'sub-02_ses-a', 'succeeded', 'n/a']
    assert table['volume_ml'][1] == '12.50'


def test_missing_columns_are_filled(site):
    site.write_quality('sub-01', 'snr\n3\n')
    site.write_quality('sub-02', 'snr\tmotion\n4\tpass\n')
    site.collect()
    assert list(site.read('group_quality.tsv')['motion']) == ['n/a', 'pass']


def test_id_columns_of_series_tables_are_replaced(site):
    site.write_quality('sub-01', 'state\tsnr\nmine\t3\n')
    site.collect()
    table = site.read('group_quality.tsv')
    assert list(table.columns) == [*IDS, *VERDICT, 'snr']
    assert table['state'][0] != 'mine'


def test_failed_and_missing_participants_are_listed_with_reason(site):
    site.write_series('sub-01')
    site.write_status('sub-03', 'failed', 'no frame times')
    site.write('sub-04/log/run1/crash-x.txt', '')
    site.write_status('sub-05', 'running')
    site.collect()
    for name in group.TABLES:
        table = site.read(name).drop_duplicates('participant_id').set_index('participant_id')
        states = table[['state', 'failure']].apply(tuple, axis=1)
        assert states['sub-02'] == ('not processed', 'not processed')
        assert states['sub-03'] == ('failed', 'no frame times')
        assert states['sub-04'] == ('failed', 'see sub-04/log/run1/crash-x.txt')
        assert states['sub-05'][0] == 'running'


def test_verdict_of_each_series_is_in_the_quality_table(site):
    site.write_series('sub-01')
    site.write_series('sub-02', '9', 'n/a', 'noise_status\npass\n', 'withheld: it folds')
    site.write_series('sub-03', quality='mirror_distance_status\nfail\n')
    site.write_series('sub-04', quality='aif_explained_status\nfail\n')
    site.write_status('sub-05', 'failed', 'no frame times')
    site.write_status('sub-06', 'running')
    site.collect()
    table = site.read('group_quality.tsv').set_index('participant_id')
    assert table['verdict'].to_dict() == {
        'sub-01': 'look first', 'sub-02': 'look first', 'sub-03': 'look first', 'sub-04': 'do not use',
        'sub-05': 'do not use', 'sub-06': 'n/a',
    }  # fmt: skip
    assert table['verdict_reason']['sub-02'] == 'There is no local map: it folds.'
    assert table['verdict_reason']['sub-05'] == 'no frame times'
    assert list(table['doubtful'][:4]) == [
        'n/a', 'n/a', 'core_local', 'core_global, core_local, hypoperfusion',
    ]  # fmt: skip
    assert set(VERDICT) <= set(json.loads((site.out / 'group_quality.json').read_text()))


def test_tables_of_earlier_run_count_while_next_is_running(site):
    site.write_series('sub-01')
    site.write_status('sub-01', 'running', record=True)
    site.collect()
    assert site.read()['state'][0] == 'succeeded'


@pytest.mark.parametrize('state', ['running', 'succeeded'])
def test_series_whose_recorded_files_changed_is_incomplete(site, state):
    for participant in ('sub-01', 'sub-02'):
        site.write_series(participant)
    site.write_status('sub-01', state, record=True)
    site.write_volumes('sub-01', core_global='6.00')
    records, _ = site.collect()
    assert records[0].state == 'incomplete'
    assert 'sub-01_seg-perfusion_morph.tsv has changed since its run' in records[0].reason


def test_tables_of_a_run_that_never_ended_do_not_count(site):
    for participant in ('sub-01', 'sub-02'):
        site.write_series(participant)
    site.write_status('sub-01', 'running')
    records, _ = site.collect()
    assert [record.state for record in records] == ['running', 'succeeded']


def test_series_with_missing_table_is_incomplete_and_excluded(site):
    for participant in ('sub-01', 'sub-02', 'sub-03'):
        site.write_series(participant)
        site.write_status(participant, 'succeeded')
    (site.out / 'sub-02/ct/sub-02_desc-qualitycontrol_ctp.tsv').unlink()
    for path in (site.out / 'sub-03/ct').iterdir():
        path.unlink()
    records, _ = site.collect()
    assert [record.state for record in records] == ['succeeded', 'incomplete', 'incomplete']
    assert records[1].reason == 'sub-02_desc-qualitycontrol_ctp.tsv is gone; run the series again'
    page = site.run_group()
    assert site.read_statistic('series', 'number')['value'] == '1'
    assert 'Series that stand out: 2' in page
    assert '<option>incomplete</option>' in page


def test_quotes_and_line_breaks_in_cells_do_not_split_rows(tmp_path):
    path = tmp_path / 'x.tsv'
    tsv.write_table(tsv.Table(['a', 'b'], [['"x', 'y\tz\n'], ['1', '2"']]), path)
    assert tsv.read_table(path).rows == [['"x', 'y z '], ['1', '2"']]


def test_row_of_wrong_length_is_named(tmp_path):
    path = tmp_path / 'x.tsv'
    path.write_text('a\tb\n1\t2\n3\n')
    with pytest.raises(SeriesError, match=r'x\.tsv, line 3: found 1 cells, need 2'):
        tsv.read_table(path)


def test_only_selected_participants_are_collected(site):
    site.write_series('sub-01')
    site.write_series('sub-02')
    site.collect(participant_label=('02',))
    assert set(site.read()['participant_id']) == {'sub-02'}


@pytest.mark.parametrize(('selection', 'series'), [
    ({'session_label': ('ses-a',)}, ['sub-01_ses-a_run-01']),
    ({'run_label': ('1',)}, ['sub-01_ses-a_run-01', 'sub-01_ses-b_run-1']),
    ({'session_label': ('b',), 'run_label': ('run-02',)}, ['sub-01_ses-b_run-2']),
])  # fmt: skip
def test_only_selected_sessions_and_runs_are_collected(site, selection, series):
    for prefix in ('sub-01_ses-a_run-01', 'sub-01_ses-b_run-1', 'sub-01_ses-b_run-2', 'sub-02'):
        site.write_volumes(prefix[:6], prefix=prefix)
    site.collect(**selection)
    assert list(dict.fromkeys(site.read()['series'])) == series


def test_unknown_participant_is_refused_before_anything_is_written(site):
    site.write_series('sub-01')
    with pytest.raises(UsageError, match=r'sub-03 is not in .*; did you mean sub-0'):
        site.run_group(participant_label=('03',))
    assert not (site.out / 'group_volumes.tsv').exists()


def test_output_without_tables_is_an_error(site):
    with pytest.raises(UsageError, match=r'no tables .*; run the participant level first'):
        site.collect()


@pytest.mark.parametrize('rows', [None, '', 'core\tglobal\n'])
def test_unreadable_table_fails_only_its_series(site, rows):
    site.write_series('sub-01')
    site.write_series('sub-02')
    text = '' if rows is None else site.header + rows
    site.write('sub-02/ct/sub-02_seg-perfusion_morph.tsv', text)
    records, _ = site.collect()
    assert [record.state for record in records] == ['succeeded', 'failed']
    for name in group.TABLES:
        table = site.read(name)
        failure = table['failure'][table['participant_id'] == 'sub-02']
        assert failure.iloc[0].startswith('sub-02_seg-perfusion_morph.tsv')


def test_unreadable_status_is_logged_and_skipped(site, caplog):
    site.write_series('sub-01')
    path = site.write('logs/sub-01_status.json', '{')
    records, _ = site.collect()
    assert [record.state for record in records] == ['succeeded', 'not processed']
    assert str(path) in caplog.text


def test_columns_are_described_by_sidecars_of_series(site):
    site.write_series('sub-01')
    site.write_series('sub-02')
    about = {'noise': {'Description': 'noise', 'Units': 'HU'}, 'Settings': {}}
    site.write('sub-01/ct/sub-01_seg-perfusion_morph.json', '[]')
    site.write('sub-02/ct/sub-02_desc-qualitycontrol_ctp.json', json.dumps(about))
    site.collect()
    written = json.loads((site.out / 'group_quality.json').read_text())
    assert written['noise']['Units'] == 'HU'
    assert 'Settings' not in written
    assert set(site.read('group_quality.tsv')) <= {*written, 'status', 'caution'}


# -- repeated calls


def change_volume(site):
    site.write_series('sub-02', '99.0')


def change_volume_keeping_size_and_time(site):
    path = site.out / 'sub-02/ct/sub-02_seg-perfusion_morph.tsv'
    before = path.stat()
    path.write_text(path.read_text().replace('40.0', '41.0'))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def remove_table(site):
    (site.out / 'sub-02/ct/sub-02_seg-perfusion_morph.tsv').unlink()


def remove_participant(site):
    for path in (site.out / 'sub-02/ct').iterdir():
        path.unlink()
    (site.out / 'sub-02/ct').rmdir()
    (site.out / 'sub-02').rmdir()
    (site.out / 'logs/sub-02_status.json').unlink()
    (site.run.bids_dir / 'sub-02').rmdir()


def add_column(site):
    site.write_quality('sub-02', 'extra\tstatus\n1\tpass\n')


def add_participant(site):
    site.write_series('sub-04', '7.0')


def fail(site):
    site.write_status('sub-02', 'failed', 'no AIF')


def edit_group_table(site):
    path = site.out / 'group_volumes.tsv'
    path.write_text(path.read_text().replace('12.50', '99.99'))


def leave_manifest_of_older_version(site):
    site.write('logs/group_manifest.json', '{"Version": "0"')


@pytest.mark.parametrize('change', [
    change_volume, change_volume_keeping_size_and_time, remove_table, remove_participant, add_column,
    add_participant, fail, edit_group_table, leave_manifest_of_older_version,
])  # fmt: skip
def test_second_call_writes_the_same_as_a_first_call(site, change):
    for participant in ('sub-01', 'sub-02', 'sub-03'):
        site.write_series(participant, f'{participant[-1]}.0')
        site.write_status(participant, 'succeeded')
    site.collect()
    change(site)
    site.collect()
    second = [(site.out / name).read_text() for name in group.TABLES]
    for path in site.out.glob('group_*'):
        path.unlink()
    site.collect()
    assert second == [(site.out / name).read_text() for name in group.TABLES]
    assert not list((site.out / 'logs').glob('group*'))


def test_call_on_part_of_cohort_replaces_the_tables(three):
    three.collect()
    three.collect(participant_label=('02',))
    assert set(three.read()['participant_id']) == {'sub-02'}
    three.collect()
    assert set(three.read()['participant_id']) == {'sub-01', 'sub-02', 'sub-03'}


# -- files


def test_concurrent_call_waits(site):
    site.write_series('sub-01')
    call = threading.Thread(target=group.run_group_level, args=(site.run,))
    with file_lock(site.out, 'group'):
        call.start()
        call.join(0.3)
        assert not (site.out / 'group_volumes.tsv').exists()
    call.join()
    assert (site.out / 'group.html').exists()


def test_lock_file_of_another_user_is_not_an_obstacle(site, monkeypatch):
    site.write('logs/x.lock', '')
    original = os.open

    def refuse(path, flags, *args):
        if flags & os.O_RDWR:
            raise PermissionError(13, os.strerror(13))
        return original(path, flags, *args)

    monkeypatch.setattr(os, 'open', refuse)
    with file_lock(site.out, 'x'):
        pass
    with pytest.raises(PermissionError), file_lock(site.out, 'y'):
        pass


def test_all_files_are_written_and_no_temporary_file_remains(site, caplog):
    caplog.set_level(logging.INFO)
    site.write_series('sub-01')
    written = group.run_group_level(site.run)
    assert all(path.is_file() for path in written)
    stems = ('group_volumes', 'group_quality', 'group_statistics')
    assert {path.name for path in site.out.iterdir()} == {
        'sub-01', 'logs', 'group.html', *(f'{stem}{end}' for stem in stems for end in ('.tsv', '.json'))
    }  # fmt: skip
    assert 'sub-02: not processed' in caplog.messages
    table = site.read(group.STATISTICS)
    assert list(table) == list(json.loads((site.out / 'group_statistics.json').read_text()))
    mean = table[(table['comparison'] == 'core global') & (table['statistic'] == 'mean')]
    assert list(mean['value']) == ['12.5', '12.5']


def test_unwritable_folder_is_named(site, monkeypatch):
    site.write_series('sub-01')

    def refuse(*args):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(tsv, 'write_atomically', refuse)
    with pytest.raises(UsageError, match=r'cannot write to .*out \(No space left'):
        group.run_group_level(replace(site.run))
