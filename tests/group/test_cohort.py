# SPDX-License-Identifier: Apache-2.0
"""The cohort: groups, stroke and exclusions by columns of participants.tsv, and the notes on them."""

import json
import re
from dataclasses import replace

import pytest

from ctpprep.exceptions import UsageError
from ctpprep.group import STATISTICS
from ctpprep.group.participants import read_participants


def test_microangiopathy_is_the_default_group_column(three):
    cohort = three.make_cohort(
        'participant_id\tmicroangiopathy\nsub-01\tyes\n02\t0\nsub-03\tn/a\n'
    )
    assert cohort.groups == ['microangiopathy', 'no microangiopathy']
    assert list(cohort.table['group']) == [*cohort.groups, '']
    assert list(cohort.table['core_global']) == [10.0, 20.0, 30.0]
    assert 'it is not known of 1 series' in ' '.join(cohort.notes)


def test_any_column_can_define_groups(three):
    text = 'participant_id\tsite\nsub-01\tB\nsub-02\tA\nsub-03\tB\n'
    cohort = three.make_cohort(text, group_column='site')
    assert cohort.groups == ['A', 'B']


def test_without_group_column_all_series_are_one_group(three):
    cohort = three.make_cohort()
    assert cohort.groups == ['all']
    assert cohort.table['stroke'].all()


def test_excluded_participants_are_counted_and_left_out(three):
    text = 'participant_id\told_infarct\nsub-01\tyes\nsub-02\tno\nsub-03\tn/a\n'
    cohort = three.make_cohort(text, exclude_column='old_infarct')
    assert list(cohort.included['participant_id']) == ['sub-02', 'sub-03']
    assert (
        '1 of 3 series were left out by the column old_infarct; it is not known of 1 series, which count'
        in cohort.notes
    )


def test_quote_in_a_cell_does_not_swallow_rows(three):
    text = 'participant_id\tnote\told_infarct\nsub-01\t"old\tno\nsub-02\t\tyes\nsub-03\tx\tno\n'
    cohort = three.make_cohort(text, exclude_column='old_infarct')
    assert list(cohort.included['participant_id']) == ['sub-01', 'sub-03']


def test_participants_without_row_and_rows_without_series_are_noted_once(three):
    notes = three.make_cohort('participant_id\nsub-01\nsub-02\nsub-08\nsub-09\n').notes
    assert '1 of 3 participants have no row in participants.tsv, such as sub-03' in notes
    assert '2 of 4 rows of participants.tsv have no series here, such as sub-08' in notes


@pytest.mark.parametrize(('cells', 'groups', 'assigned'), [
    (('1', '1.0', '2'), ['1', '2'], ['1', '1', '2']),
    (('Unknown', '?', 'A'), ['A'], ['', '', 'A']),
    (('Yes', 'yes', 'perhaps'), ['perhaps', 'yes'], ['yes', 'yes', 'perhaps']),
    (('F', 'M', 'f'), ['F', 'M', 'f'], ['F', 'M', 'f']),
    (('10', '9', 'x  y'), ['9', '10', 'x y'], ['10', '9', 'x y']),
    (('all', 'A', 'A'), ['A', 'x all'], ['x all', 'A', 'A']),
])  # fmt: skip
def test_spellings_of_one_group_are_unified(three, cells, groups, assigned):
    rows = ''.join(f'sub-0{i}\t{cell}\n' for i, cell in enumerate(cells, 1))
    cohort = three.make_cohort(f'participant_id\tx\n{rows}', group_column='x')
    assert (cohort.groups, list(cohort.table['group'])) == (groups, assigned)


def test_call_on_part_of_cohort_is_noted(three):
    cohort = three.make_cohort('participant_id\nsub-01\nsub-02\n', participant_label=('01',))
    assert cohort.notes[0].startswith('Only the participants')
    assert not [note for note in cohort.notes if 'sub-02' in note]


def test_differing_settings_are_noted(three):
    for participant, threshold in (('sub-01', 0.3), ('sub-02', 0.3), ('sub-03', 0.25)):
        three.write_status(participant, 'succeeded', version=f'{threshold}')
        metadata = {'Settings': {'core_rcbf': threshold, 'opening_mm': 2.5}}
        three.write(
            f'{participant}/ct/{participant}_seg-perfusion_morph.json', json.dumps(metadata)
        )
    notes = three.make_cohort().notes
    assert [note for note in notes if note.startswith('Series differ')] == [
        'Series differ in core_rcbf: 0.3 (2 series), 0.25 (1 series)',
        'Series differ in version of ctpprep: 0.3 (2 series), 0.25 (1 series)',
    ]


def test_infinite_volumes_are_missing(three):
    three.write_series('sub-02', 'inf')
    three.run_group()
    assert three.read_statistic('core global', 'mean')['value'] == '20'


def test_failed_series_do_not_enter_statistics(three):
    three.write_status('sub-03', 'failed', 'no AIF')
    three.run_group()
    table = three.read(STATISTICS)
    assert table['value'][table['comparison'] == 'series'].iloc[0] == '2'


def test_each_series_is_counted_once(three):
    three.write_series('sub-02', 'n/a')
    three.write_status('sub-03', 'failed', 'no AIF')
    for participant in ('sub-04', 'sub-05', 'sub-06'):
        three.write_series(participant)
    rows = ''.join(f'sub-0{i}\t{"no" if i in (1, 2) else "yes"}\n' for i in range(1, 7))
    three.write_participants(f'participant_id\told\n{rows}')
    page = three.run_group(exclude_column='old')
    counts = re.findall(r'<li>(\d+) of 6 series (?:are|were|or|have)', page)
    assert counts == ['2', '3', '1', '1']  # the last has no core, and is also included


def test_withheld_local_map_is_named_and_its_global_core_is_included(three):
    three.write_series(
        'sub-02', '20.0', 'n/a', reason='withheld: homologues are off by about 7.0 mm'
    )
    cohort = three.make_cohort()
    assert list(cohort.table['withheld']) == ['', 'homologues are off by about 7.0 mm', '']
    assert (
        '1 of 3 series: local map withheld; their global core, hypoperfusion and mismatch are included'
        in cohort.notes
    )
    three.run_group()
    n = [three.read_statistic(name, 'mean')['n'] for name in ('core global', 'core local')]
    assert n == ['3', '2']


def test_evident_stroke_is_a_column_or_a_core_above_0(three):
    text = 'participant_id\tstroke_evident\treading\nsub-01\t1\tno\nsub-02\t0\tno\n'
    assert list(three.make_cohort(text).table['stroke'].fillna('?')) == [True, False, '?']
    stroke = three.make_cohort(text, stroke_column='reading').table['stroke']
    assert not stroke.eq(True).any()
    three.write_series('sub-03', 'n/a')
    cohort = three.make_cohort()
    assert list(cohort.table['stroke'].fillna('?')) == [True, True, '?']
    assert 'favours series whose global core is too large' in ' '.join(cohort.notes)


def test_ages_and_sexes_are_parsed_as_bids_writes_them(three):
    text = 'participant_id\tage\tsex\nsub-01\t89+\tf\nsub-02\tn/a\tMale\nsub-03\t70\to\n'
    table = three.make_cohort(text).table
    assert list(table['sex']) == ['F', 'M', '']
    assert list(table['age'].fillna(-1)) == [89, -1, 70]


@pytest.mark.parametrize(
    ('columns', 'message'),
    [
        ({'group_column': 'sites'}, 'no column sites; found site; did you mean site'),
        ({'exclude_column': 'site'}, "column site: found 'A', need yes or no"),
        ({'group_column': 'participant_id', 'stroke_column': 'site'}, "found 'A', need yes or no"),
    ],
)
def test_unusable_columns_are_refused(three, columns, message):
    with pytest.raises(UsageError, match=message):
        three.make_cohort('participant_id\tsite\nsub-01\tA\nsub-02\tB\n', **columns)


def test_column_of_numbers_does_not_define_groups(site):
    rows = ''.join(f'sub-{i:02}\t{i}\n' for i in range(1, 15))
    for i in range(1, 15):
        site.write_series(f'sub-{i:02}')
    with pytest.raises(UsageError, match='has 14 values, such as 1, 2, 3; at most 12'):
        site.make_cohort(f'participant_id\tage\n{rows}', group_column='age')


def test_column_without_participants_tsv_is_refused(site):
    with pytest.raises(UsageError, match=r'--group-column .* site, but there is no .*tsv'):
        read_participants(replace(site.run, group_column='site'))


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('participant_id\nsub-01\n01\n', r'participants\.tsv: found more than one row of sub-01'),
        ('participant_id\tage\tage\nsub-01\t1\t2\n', 'found more than one column age'),
        ('participant\nsub-01\n', 'needs a column participant_id; found participant'),
        ('participant_id\n', 'has no rows; it needs a header and at least one row'),
    ],
)
def test_unusable_participants_tsv_is_refused(site, text, message):
    site.write_participants(text)
    with pytest.raises(UsageError, match=message):
        read_participants(site.run)
