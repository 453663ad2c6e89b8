# SPDX-License-Identifier: Apache-2.0
"""The group level: tables of all series, reasons of those without, columns of participants.tsv, the page."""

import json
import logging
import os
import re
import threading
from dataclasses import replace

import pandas as pd
import pytest

from ctpprep import group
from ctpprep.exceptions import UsageError
from ctpprep.group import run_group_level, tables
from ctpprep.group.cohort import make_cohort, read_participants
from ctpprep.group.tables import IDS, collect_tables
from ctpprep.io.files import file_lock
from ctpprep.settings import RunSettings

HEADER = 'region\tnormalization\tmeasure\tthreshold\tvolume_ml\treason\n'
QUALITY = 'status\tcaution\tnoise\tnoise_status\tnoise_sentence\nwarn\tn/a\t12.5\twarn\tNoise is 12.5 HU.\n'


def volumes(core_global='12.50', core_local='10.00'):
    return (
        f'{HEADER}hypoperfusion\tn/a\tvolume\t6.0\t40.0\tn/a\n'
        f'core\tglobal\tvolume\t0.3\t{core_global}\tn/a\n'
        f'core\tglobal\tremoved specks\t0.3\t1.0\tn/a\n'
        f'core\tlocal\tvolume\t0.3\t{core_local}\tn/a\n'
    )


@pytest.fixture
def run(tmp_path):
    for label in ('01', '02'):
        (tmp_path / 'raw' / f'sub-{label}').mkdir(parents=True)
    return RunSettings(tmp_path / 'raw', tmp_path / 'out', tmp_path / 'work')


def write(run, name, text):
    path = run.output_dir / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def write_series(run, participant, text=None, quality=QUALITY):
    write(run, f'{participant}/ct/{participant}_seg-perfusion_morph.tsv', text or volumes())
    write(run, f'{participant}/ct/{participant}_desc-qualitycontrol_ctp.tsv', quality)


def write_status(run, participant, state, cause='', version='1'):
    entry = {'Series': participant, 'State': state, 'Cause': cause}
    told = {'Version': version, 'Series': [entry]}
    write(run, f'logs/{participant}_status.json', json.dumps(told))


def read(run, name='group_volumes.tsv'):
    return pd.read_csv(run.output_dir / name, sep='\t', dtype=str, keep_default_na=False)


# -- tables


def test_rows_name_participant_session_and_series(run):
    for start in ('sub-01/ct/sub-01_run-1', 'sub-02/ses-a/ct/sub-02_ses-a'):
        write(run, f'{start}_seg-perfusion_morph.tsv', volumes())
        write(run, f'{start}_desc-qualitycontrol_ctp.tsv', QUALITY)
    collect_tables(run)
    table = read(run)
    assert list(table.columns[:5]) == list(IDS)
    assert list(table.iloc[1, :5]) == ['sub-01', 'n/a', 'sub-01_run-1', 'succeeded', 'n/a']
    assert list(table.iloc[4, :5]) == ['sub-02', 'ses-a', 'sub-02_ses-a', 'succeeded', 'n/a']
    assert table['volume_ml'][1] == '12.50'


def test_columns_that_some_lack_are_filled(run):
    write(run, 'sub-01/ct/sub-01_desc-qualitycontrol_ctp.tsv', 'snr\n3\n')
    write(run, 'sub-02/ct/sub-02_desc-qualitycontrol_ctp.tsv', 'snr\tmotion\n4\tpass\n')
    collect_tables(run)
    assert list(read(run, 'group_quality.tsv')['motion']) == ['n/a', 'pass']


def test_failed_and_missing_participants_stand_there_with_their_reason(run):
    write_series(run, 'sub-01')
    write_status(run, 'sub-03', 'failed', 'no frame times')
    write(run, 'sub-04/log/run1/crash-x.txt', '')
    write_status(run, 'sub-05', 'running')
    collect_tables(run)
    for name in group.TABLES:
        table = read(run, name).drop_duplicates('participant_id').set_index('participant_id')
        told = dict(
            zip(table.index, zip(table['state'], table['failure'], strict=True), strict=True)
        )
        assert told['sub-02'] == ('not processed', 'not processed')
        assert told['sub-03'] == ('failed', 'no frame times')
        assert told['sub-04'] == ('failed', 'see sub-04/log/run1/crash-x.txt')
        assert told['sub-05'][0] == 'running'


def test_tables_of_an_earlier_run_count_while_the_next_is_running(run):
    write_series(run, 'sub-01')
    write_status(run, 'sub-01', 'running')
    collect_tables(run)
    assert read(run)['state'][0] == 'succeeded'


def test_a_series_whose_table_is_gone_is_incomplete_and_counts_nowhere(run):
    for participant in ('sub-01', 'sub-02', 'sub-03'):
        write_series(run, participant)
        write_status(run, participant, 'succeeded')
    (run.output_dir / 'sub-02/ct/sub-02_desc-qualitycontrol_ctp.tsv').unlink()
    for path in (run.output_dir / 'sub-03/ct').iterdir():
        path.unlink()
    found, _ = collect_tables(run)
    assert [each.state for each in found] == ['succeeded', 'incomplete', 'incomplete']
    assert found[1].reason == 'sub-02_desc-qualitycontrol_ctp.tsv is gone; run the series again'
    run_group_level(run)
    assert statistic(run, 'series', 'number')['value'] == '1'
    page = (run.output_dir / 'group.html').read_text()
    assert 'Series to look at: 2' in page
    assert '<option>incomplete</option>' in page


def statistic(run, comparison, name, **where):
    """A row of the statistics; of all series if nothing else is told."""
    table = read(run, group.STATISTICS)
    for column, value in ({'set': 'all', 'group': 'all'} | where).items():
        table = table[table[column] == value]
    return table[(table['comparison'] == comparison) & (table['statistic'] == name)].iloc[0]


def test_quotes_and_breaks_in_cells_are_signs_as_others(tmp_path):
    path = tmp_path / 'x.tsv'
    tables.write_table(tables.Table(['a', 'b'], [['"x', 'y\tz\n'], ['1', '2"']]), path)
    assert tables.read_table(path).rows == [['"x', 'y z '], ['1', '2"']]


def test_only_participants_that_were_asked_for_are_collected(run):
    write_series(run, 'sub-01')
    write_series(run, 'sub-02')
    collect_tables(replace(run, participant_label=('02',)))
    assert set(read(run)['participant_id']) == {'sub-02'}


@pytest.mark.parametrize(('wanted', 'series'), [
    ({'session_label': ('ses-a',)}, ['sub-01_ses-a_run-01']),
    ({'run_label': ('1',)}, ['sub-01_ses-a_run-01', 'sub-01_ses-b_run-1']),
    ({'session_label': ('b',), 'run_label': ('run-02',)}, ['sub-01_ses-b_run-2']),
])  # fmt: skip
def test_only_wanted_sessions_and_runs_are_collected(run, wanted, series):
    for prefix in ('sub-01_ses-a_run-01', 'sub-01_ses-b_run-1', 'sub-01_ses-b_run-2', 'sub-02'):
        write(run, f'{prefix[:6]}/ct/{prefix}_seg-perfusion_morph.tsv', volumes())
    collect_tables(replace(run, **wanted))
    assert list(dict.fromkeys(read(run)['series'])) == series


def test_nothing_to_collect_is_an_error(run):
    with pytest.raises(UsageError, match='run the level participant first'):
        collect_tables(run)


@pytest.mark.parametrize('text', ['', HEADER, HEADER + 'core\tglobal\n'])
def test_a_table_that_cannot_be_read_fails_its_series_alone(run, text):
    write_series(run, 'sub-01')
    write_series(run, 'sub-02')
    write(run, 'sub-02/ct/sub-02_seg-perfusion_morph.tsv', text)
    found, _ = collect_tables(run)
    assert [each.state for each in found] == ['succeeded', 'failed']
    for name in group.TABLES:
        table = read(run, name)
        told = table['failure'][table['participant_id'] == 'sub-02']
        assert told.iloc[0].startswith('sub-02_seg-perfusion_morph.tsv')


def test_columns_are_described_in_the_words_of_the_series(run):
    write_series(run, 'sub-01')
    about = {'noise': {'Description': 'noise', 'Units': 'HU'}, 'Settings': {}}
    write(run, 'sub-01/ct/sub-01_desc-qualitycontrol_ctp.json', json.dumps(about))
    collect_tables(run)
    told = json.loads((run.output_dir / 'group_quality.json').read_text())
    assert told['noise']['Units'] == 'HU'
    assert 'Settings' not in told
    assert set(read(run, 'group_quality.tsv')) <= {*told, 'status', 'caution'}


# -- again


@pytest.fixture
def opened(monkeypatch):
    """Names of the tables that are opened, in order."""
    names = []
    original = tables.read_table

    def read_table(path, *args, **kwargs):
        names.append(path.name)
        return original(path, *args, **kwargs)

    monkeypatch.setattr(tables, 'read_table', read_table)
    return names


def fresh(run):
    """Text of the tables as a call without memory writes them."""
    (run.output_dir / tables.MANIFEST).unlink(missing_ok=True)
    collect_tables(run)
    return [(run.output_dir / name).read_text() for name in group.TABLES]


def test_after_one_more_participant_only_that_one_is_read(run, opened):
    write_series(run, 'sub-01')
    collect_tables(run)
    write_series(run, 'sub-02', volumes('7.0'))
    opened.clear()
    collect_tables(run)
    assert sorted(opened) == sorted(
        [*group.TABLES, *(f'sub-02{ending}' for ending in group.TABLES.values())]
    )
    again = [(run.output_dir / name).read_text() for name in group.TABLES]
    assert again == fresh(run)


def change(run):
    write_series(run, 'sub-02', volumes('99.0'))


def remove(run):
    (run.output_dir / 'sub-02/ct/sub-02_seg-perfusion_morph.tsv').unlink()


def another_column(run):
    write_series(run, 'sub-02', quality='extra\tstatus\n1\tpass\n')


def fail(run):
    write_status(run, 'sub-02', 'failed', 'no AIF')


def change_in_place(run):
    """As a change of digits that keeps size and time."""
    path = run.output_dir / 'sub-02/ct/sub-02_seg-perfusion_morph.tsv'
    before = path.stat()
    path.write_text(path.read_text().replace('40.0', '41.0'))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize('happen', [change_in_place, change, remove, another_column, fail])
def test_what_changed_is_seen(run, happen):
    for participant in ('sub-01', 'sub-02', 'sub-03'):
        write_series(run, participant, volumes(f'{participant[-1]}.0'))
        write_status(run, participant, 'succeeded')
    collect_tables(run)
    happen(run)
    collect_tables(run)
    again = [(run.output_dir / name).read_text() for name in group.TABLES]
    assert again == fresh(run)


def test_an_edited_group_table_is_not_believed(run):
    write_series(run, 'sub-01')
    collect_tables(run)
    path = run.output_dir / 'group_volumes.tsv'
    path.write_text(path.read_text().replace('12.50', '99.99'))
    collect_tables(run)
    assert '12.50' in path.read_text()


def test_tables_of_another_call_are_not_taken_for_those_of_this(run, monkeypatch):
    for participant in ('sub-01', 'sub-02'):
        write_series(run, participant, volumes(f'{participant[-1]}.0'))
    original = tables.write_manifest

    def meanwhile(*args):
        monkeypatch.setattr(tables, 'write_manifest', original)
        collect_tables(replace(run, participant_label=('02',)))
        original(*args)

    monkeypatch.setattr(tables, 'write_manifest', meanwhile)
    collect_tables(run)
    collect_tables(run)
    again = [(run.output_dir / name).read_text() for name in group.TABLES]
    assert again == fresh(run)


def test_rows_of_another_series_are_not_taken(run):
    for participant in ('sub-01', 'sub-02'):
        write_series(run, participant, volumes(f'{participant[-1]}.0'))
    expected = fresh(run)
    path = run.output_dir / tables.MANIFEST
    told = json.loads(path.read_text())
    keys = [key for key in told['Files'] if key.endswith('_morph.tsv')]
    told['Files'][keys[0]][2:], told['Files'][keys[1]][2:] = [4, 4], [3, 4]
    path.write_text(json.dumps(told))
    collect_tables(run)
    assert [(run.output_dir / name).read_text() for name in group.TABLES] == expected


def test_a_call_waits_for_another(run):
    write_series(run, 'sub-01')
    call = threading.Thread(target=run_group_level, args=(run,))
    with file_lock(run.output_dir, 'group'):
        call.start()
        call.join(0.3)
        assert not (run.output_dir / 'group_volumes.tsv').exists()
    call.join()
    assert (run.output_dir / 'group.html').exists()


def test_a_lock_of_another_user_is_no_obstacle(run, monkeypatch):
    (run.output_dir / 'logs').mkdir(parents=True)
    (run.output_dir / 'logs' / 'x.lock').touch()
    original = os.open

    def refuse(path, flags, *args):
        if flags & os.O_RDWR:
            raise PermissionError(13, os.strerror(13))
        return original(path, flags, *args)

    monkeypatch.setattr(os, 'open', refuse)
    with file_lock(run.output_dir, 'x'):
        pass
    with pytest.raises(PermissionError), file_lock(run.output_dir, 'y'):
        pass


def test_another_version_reads_anew(run, opened, monkeypatch):
    write_series(run, 'sub-01')
    collect_tables(run)
    opened.clear()
    monkeypatch.setattr(tables, '__version__', 'next')
    collect_tables(run)
    assert opened == [f'sub-01{ending}' for ending in group.TABLES.values()]


# -- participants.tsv


def make(run, text, **columns):
    run = replace(run, **columns)
    (run.bids_dir / 'participants.tsv').write_text(text)
    participants = read_participants(run)
    found, written = collect_tables(run)
    return make_cohort(found, written['group_volumes.tsv'], participants, run)


@pytest.fixture
def three(run):
    for participant in ('sub-01', 'sub-02', 'sub-03'):
        write_series(run, participant, volumes(f'{participant[-1]}0.0'))
    return run


def test_microangiopathy_makes_the_groups_by_default(three):
    cohort = make(three, 'participant_id\tmicroangiopathy\nsub-01\tyes\n02\t0\nsub-03\tn/a\n')
    assert cohort.groups == ['microangiopathy', 'no microangiopathy']
    assert list(cohort.table['group']) == [*cohort.groups, '']
    assert list(cohort.table['core_global']) == [10.0, 20.0, 30.0]
    assert 'it is not known of 1 series' in ' '.join(cohort.notes)


def test_any_column_makes_groups(three):
    text = 'participant_id\tsite\nsub-01\tB\nsub-02\tA\nsub-03\tB\n'
    cohort = make(three, text, group_column='site')
    assert cohort.groups == ['A', 'B']


def test_without_a_column_all_are_one_group(three):
    cohort = make_cohort(*_collected(three), None, three)
    assert cohort.groups == ['all']
    assert cohort.table['stroke'].all()


def _collected(run):
    found, written = collect_tables(run)
    return found, written['group_volumes.tsv']


def test_excluded_participants_are_counted_and_left_out(three):
    text = 'participant_id\told_infarct\nsub-01\tyes\nsub-02\tno\nsub-03\tn/a\n'
    cohort = make(three, text, exclude_column='old_infarct')
    assert list(cohort.included['participant_id']) == ['sub-02', 'sub-03']
    assert (
        '1 of 3 series were left out by the column old_infarct; it is not known of 1 series, which count'
        in cohort.notes
    )


def test_a_quote_swallows_no_rows(three):
    text = 'participant_id\tnote\told_infarct\nsub-01\t"old\tno\nsub-02\t\tyes\nsub-03\tx\tno\n'
    cohort = make(three, text, exclude_column='old_infarct')
    assert list(cohort.included['participant_id']) == ['sub-01', 'sub-03']


def test_participants_without_a_row_and_rows_without_series_are_told_once(three):
    notes = make(three, 'participant_id\nsub-01\nsub-02\nsub-08\nsub-09\n').notes
    assert '1 of 3 participants have no row in participants.tsv, such as sub-03' in notes
    assert '2 of 4 rows of participants.tsv have no series here, such as sub-08' in notes


def test_words_for_the_unknown_and_equal_numbers_are_one_group(three):
    def groups(*cells):
        rows = ''.join(f'sub-0{i}\t{cell}\n' for i, cell in enumerate(cells, 1))
        cohort = make(three, f'participant_id\tx\n{rows}', group_column='x')
        return cohort.groups, list(cohort.table['group'])

    assert groups('1', '1.0', '2') == (['1', '2'], ['1', '1', '2'])
    assert groups('Unknown', '?', 'A') == (['A'], ['', '', 'A'])
    assert groups('Yes', 'yes', 'perhaps') == (['perhaps', 'yes'], ['yes', 'yes', 'perhaps'])
    assert groups('F', 'M', 'f') == (['F', 'M', 'f'], ['F', 'M', 'f'])
    assert groups('10', '9', 'x  y') == (['9', '10', 'x y'], ['10', '9', 'x y'])


def test_a_call_on_part_says_so(three):
    cohort = make(three, 'participant_id\nsub-01\nsub-02\n', participant_label=('01',))
    assert cohort.notes[0].startswith('Only the participants')
    assert not [note for note in cohort.notes if 'sub-02' in note]


def test_settings_that_differ_are_told(three):
    for participant, threshold in (('sub-01', 0.3), ('sub-02', 0.3), ('sub-03', 0.25)):
        write_status(three, participant, 'succeeded', version=f'{threshold}')
        told = {'Settings': {'core_rcbf': threshold, 'opening_mm': 2.5}}
        write(three, f'{participant}/ct/{participant}_seg-perfusion_morph.json', json.dumps(told))
    for _ in ('read', 'remembered'):
        notes = make_cohort(*_collected(three), None, three).notes
        assert [note for note in notes if note.startswith('Series differ')] == [
            'Series differ in core_rcbf: 0.3 (2 series), 0.25 (1 series)',
            'Series differ in version of ctpprep: 0.3 (2 series), 0.25 (1 series)',
        ]


def test_infinite_volumes_are_missing(three):
    write_series(three, 'sub-02', volumes('inf'))
    run_group_level(three)
    assert statistic(three, 'core global', 'mean')['value'] == '20'


def test_a_check_that_warns_without_a_figure_is_no_outlier(run):
    write_series(run, 'sub-01', quality=QUALITY.replace('12.5\twarn', 'n/a\twarn'))
    run_group_level(replace(run, participant_label=('01',)))
    assert 'Series to look at: 0' in (run.output_dir / 'group.html').read_text()


def looked_at(run):
    """Series to look at, with their reasons, out of the page."""
    page = (run.output_dir / 'group.html').read_text()
    body = page.partition('Series to look at')[2].partition('<section')[0]
    return page, re.findall(
        r'<td>(sub-\d+)</td>\s*<td>.*?</td>\s*<td>(.*?)</td>', body, flags=re.DOTALL
    )


def test_cores_that_disagree_are_looked_at(run):
    quality = 'core_disagreement\tcore_disagreement_status\n{}\t{}\n'.format
    write_series(run, 'sub-01', volumes('40.0', '24.3'), quality('15.7', 'warn'))
    write_series(run, 'sub-02', volumes('75.0', '66.0'), quality('9', 'pass'))
    write_series(run, 'sub-03', volumes('75.0', '71.0'), quality('4', 'pass'))
    run_group_level(run)
    _, found = looked_at(run)
    assert [name for name, _ in found] == ['sub-01', 'sub-02']
    assert 'warns' in found[0][1]
    assert 'different sides of 70 mL (DEFUSE 3): 75.0 and 66.0 mL' in found[1][1]


def test_who_was_not_processed_is_counted_not_listed(run):
    write_series(run, 'sub-01')
    run_group_level(run)
    page, found = looked_at(run)
    assert found == []
    assert 'Series to look at: 0' in page
    assert '1 participant was not processed' in page


def test_checks_are_named_in_the_table_failed_first(run):
    names = ('a', 'b', 'c', 'd')
    head = '\t'.join(f'{name}\t{name}_status' for name in names)
    write_series(run, 'sub-01', quality=f'{head}\n1\twarn\t2\tpass\t3\tfail\t4\twarn\n')
    about = {'c': {'LongName': 'Check of c'}}
    write(run, 'sub-01/ct/sub-01_desc-qualitycontrol_ctp.json', json.dumps(about))
    run_group_level(run)
    assert '<td>fail: Check of c; warn: a, d</td>' in (run.output_dir / 'group.html').read_text()


def test_each_series_is_counted_once(three):
    write_series(three, 'sub-02', volumes('n/a'))
    write_status(three, 'sub-03', 'failed', 'no AIF')
    for participant in ('sub-04', 'sub-05', 'sub-06'):
        write_series(three, participant)
    rows = ''.join(f'sub-0{i}\t{"no" if i in (1, 2) else "yes"}\n' for i in range(1, 7))
    (three.bids_dir / 'participants.tsv').write_text(f'participant_id\told\n{rows}')
    run_group_level(replace(three, exclude_column='old'))
    page = (three.output_dir / 'group.html').read_text()
    counts = re.findall(r'<li>(\d+) of 6 series (?:count|were|or|lack)', page)
    assert counts == ['1', '3', '1', '1']


def test_figures_that_two_groups_have_not_are_dashes(three):
    text = 'participant_id\tsite\nsub-01\tA\nsub-02\tB\nsub-03\tB\n'
    (three.bids_dir / 'participants.tsv').write_text(text)
    run_group_level(replace(three, group_column='site'))
    page = (three.output_dir / 'group.html').read_text()
    assert '<td></td>' not in page.partition('summary-table')[2].partition('<details>')[0]
    assert 'no such figure of two groups' in page


def test_series_of_an_unknown_group_are_held_to_the_limits_of_all(run):
    rows = ['participant_id\tmicroangiopathy']
    for i in range(20):
        write_series(run, f'sub-{i:02}', volumes('50.0', '1.0' if i == 19 else f'4{i % 5}.0'))
        rows.append(f'sub-{i:02}\t{"n/a" if i == 19 else "yes"}')
    (run.bids_dir / 'participants.tsv').write_text('\n'.join(rows) + '\n')
    run_group_level(run)
    page = (run.output_dir / 'group.html').read_text()
    assert 'Local - global: -49.0 mL, outside of the limits of agreement' in page


def test_evident_stroke_is_a_column_or_a_core(three):
    text = 'participant_id\tstroke_evident\tmine\nsub-01\t1\tno\nsub-02\t0\tno\n'
    assert list(make(three, text).table['stroke'].fillna('?')) == [True, False, '?']
    assert not make(three, text, stroke_column='mine').table['stroke'].eq(True).any()
    write_series(three, 'sub-03', volumes('n/a'))
    cohort = make_cohort(*_collected(three), None, three)
    assert list(cohort.table['stroke'].fillna('?')) == [True, True, '?']
    assert 'favours series whose global core is too large' in ' '.join(cohort.notes)


def test_ages_and_sexes_are_read_as_bids_writes_them(three):
    text = 'participant_id\tage\tsex\nsub-01\t89+\tf\nsub-02\tn/a\tMale\nsub-03\t70\to\n'
    table = make(three, text).table
    assert list(table['sex']) == ['F', 'M', '']
    assert list(table['age'].fillna(-1)) == [89, -1, 70]


@pytest.mark.parametrize(
    ('columns', 'said'),
    [
        ({'group_column': 'sites'}, 'did you mean site'),
        ({'exclude_column': 'site'}, "holds 'A'; yes or no is needed"),
        ({'group_column': 'participant_id', 'stroke_column': 'site'}, "holds 'A'"),
    ],
)
def test_columns_that_cannot_be_used_are_refused(three, columns, said):
    with pytest.raises(UsageError, match=said):
        make(three, 'participant_id\tsite\nsub-01\tA\nsub-02\tB\n', **columns)


def test_a_column_of_figures_makes_no_groups(run):
    rows = ''.join(f'sub-{i:02}\t{i}\n' for i in range(1, 15))
    for i in range(1, 15):
        write_series(run, f'sub-{i:02}')
    with pytest.raises(UsageError, match='has 14 values, such as 1, 2, 3; at most 12'):
        make(run, f'participant_id\tage\n{rows}', group_column='age')


def test_a_column_without_participants_tsv_is_refused(run):
    with pytest.raises(UsageError, match='which is not there'):
        read_participants(replace(run, group_column='site'))


def test_a_participant_with_two_rows_is_refused(run):
    (run.bids_dir / 'participants.tsv').write_text('participant_id\nsub-01\n01\n')
    with pytest.raises(UsageError, match='more than one row of sub-01'):
        read_participants(run)


# -- the whole level


def test_all_files_are_written_and_no_temporary_stays(run, caplog):
    caplog.set_level(logging.INFO)
    write_series(run, 'sub-01')
    written = run_group_level(run)
    assert all(path.is_file() for path in written)
    here = {path.name for path in run.output_dir.iterdir()}
    stems = ('group_volumes', 'group_quality', 'group_statistics')
    assert here == {
        'sub-01', 'logs', 'group.html', *(f'{stem}{end}' for stem in stems for end in ('.tsv', '.json'))
    }  # fmt: skip
    assert 'sub-02: not processed' in caplog.messages
    table = read(run, group.STATISTICS)
    assert list(table) == list(json.loads((run.output_dir / 'group_statistics.json').read_text()))
    mean = table[(table['comparison'] == 'core global') & (table['statistic'] == 'mean')]
    assert list(mean['value']) == ['12.5', '12.5']


def test_series_that_failed_are_left_out_of_statistics(three):
    write_status(three, 'sub-03', 'failed', 'no AIF')
    run_group_level(three)
    table = read(three, group.STATISTICS)
    assert table['value'][table['comparison'] == 'series'].iloc[0] == '2'


def test_user_text_shows_as_text(three):
    (three.output_dir / 'sub-01.html').write_text('')
    text = 'participant_id\tsite\nsub-01\t</script><b>x</b>\nsub-02\tB\nsub-03\tB\n'
    (three.bids_dir / 'participants.tsv').write_text(text)
    run_group_level(replace(three, group_column='site'))
    page = (three.output_dir / 'group.html').read_text()
    assert '<b>x' not in page
    assert '&lt;/script&gt;&lt;b&gt;x' in page
    assert '<a href="sub-01.html#sub-01">sub-01</a>' in page
    assert 'href="sub-02.html"' not in page


def test_a_folder_that_cannot_be_written_to_is_told(run, monkeypatch):
    write_series(run, 'sub-01')

    def refuse(*args):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(tables, 'write_atomically', refuse)
    with pytest.raises(UsageError, match=r'cannot write to .* \(No space left'):
        run_group_level(run)
