# SPDX-License-Identifier: Apache-2.0
"""The summary of a series: numbers, verdict, and why the cores differ."""

import re

import pytest

from ctpprep.interfaces.summary import explain_difference, read_volumes, summarize
from ctpprep.interfaces.wording import WORDING
from ctpprep.perfusion.quality import CHECKS
from ctpprep.perfusion.tabulation import COLUMNS


def make_row(region, normalization, measure, **cells):
    keys = {'region': region, 'normalization': normalization, 'measure': measure}
    return dict.fromkeys(COLUMNS, '') | keys | {'affected_side': 'left'} | cells


def make_difference(removed, added, flow=('0.42', '1.31')):
    rows = []
    for measure, volume, value in zip(('removed', 'added'), (removed, added), flow, strict=True):
        rows.append(make_row('core', 'local', f'{measure} by local', volume_ml=volume))
        name = f'homologues of {measure} by local'
        rows.append(make_row('core', 'local', name, value=value))
    return rows


VOLUMES = [
    make_row('core', 'global', 'volume', threshold='0.3', volume_ml='60.59', ci_low_ml='15.79',
             ci_high_ml='99.87'),
    make_row('core', 'local', 'volume', threshold='0.3', volume_ml='46.98'),
    make_row('hypoperfusion', '', 'volume', threshold='6.0', volume_ml='114.5'),
    make_row('mismatch', 'global', 'difference', volume_ml='53.93'),
    make_row('mismatch', 'global', 'ratio', value='1.89'),
    *make_difference('13.6', '0.4'),
]  # fmt: skip


@pytest.mark.parametrize('text', ['<b>60</b>', 'NaN', 'Infinity', ''])
def test_text_in_place_of_a_number_is_read_as_none(tmp_path, text):
    row = make_row('core', 'global', 'volume', threshold=text, volume_ml=text, ci_low_ml=text)
    path = tmp_path / 'sub-1_seg-perfusion_morph.tsv'
    path.write_text('\t'.join(row) + '\n' + '\t'.join(row.values()) + '\n')
    summary = summarize(read_volumes(path), {'coverage': text})
    assert (summary.numbers[0].value, summary.numbers[0].detail) == ('–', '')


def test_numbers_are_those_of_the_table():
    numbers = summarize(VOLUMES, {}).numbers
    assert [number.value for number in numbers] == ['60.6 mL', '47.0 mL', '114.5 mL', '53.9 mL']
    assert numbers[0].detail == '95 % interval 15.8 to 99.9 mL'
    assert numbers[3].detail == 'ratio 1.89'


@pytest.mark.parametrize(('added', 'criterion'), [
    ('0.0', 'Tmax > 6 s'), ('12.34', 'Tmax > 6 s, includes 12.3 mL added by core'),
])  # fmt: skip
def test_core_in_hypoperfusion_is_named(added, criterion):
    rows = [*VOLUMES, make_row('hypoperfusion', '', 'joined core', volume_ml=added)]
    assert summarize(rows, {}).numbers[2].criterion == criterion


@pytest.mark.parametrize(
    ('check', 'doubtful'),
    [
        ('mirror_distance', ['core_local']),
        ('hypoperfusion_repeat', ['hypoperfusion', 'mismatch']),
        ('aif_explained', ['core_global', 'core_local', 'hypoperfusion', 'mismatch']),
    ],
)
def test_failed_check_makes_what_it_concerns_doubtful(check, doubtful):
    summary = summarize(VOLUMES, {f'{check}_status': 'fail'})
    assert [number.name for number in summary.numbers if number.doubtful] == doubtful


def test_difference_names_the_flow_of_the_homologues():
    assert summarize(VOLUMES, {'coverage_status': 'pass'}).difference == (
        'The local core leaves out 13.6 mL of the global core, where the other hemisphere has 42 % of '
        'normal flow (median).'
    )


@pytest.mark.parametrize(('removed', 'added', 'alone', 'text'), [
    ('13.6', '1.7', '0.0', 'The local core leaves out 13.6 mL of the global core, where the other '
     'hemisphere has 42 % of normal flow (median). It adds 1.7 mL.'),
    ('1.6', '4.7', '0.0', 'The local core adds 4.7 mL to the global core, where the other hemisphere '
     'has 131 % of normal flow (median). It leaves out 1.6 mL of the global core.'),
    ('0.6', '4.7', '20.0', 'The local core adds 4.7 mL to the global core, where the other hemisphere '
     'has 131 % of normal flow (median). Of the global core, 20.0 mL have no homologue in the slab.'),
    ('13.6', '0.7', '20.0', 'The local core leaves out 13.6 mL of the global core, where the other '
     'hemisphere has 42 % of normal flow (median). Another 20.0 mL have no homologue in the slab.'),
    ('13.6', '4.7', '20.0', 'The local core leaves out 13.6 mL of the global core and adds 4.7 mL. '
     'Another 20.0 mL have no homologue in the slab.'),
    ('0.2', '0.3', '20.0', 'Of the global core, 20.0 mL have no homologue in the slab; elsewhere both '
     'cores are the same, to 1 mL.'),
])  # fmt: skip
def test_difference_has_two_sentences_and_three_numbers(removed, added, alone, text):
    rows = [make_row('core', 'local', 'global without homologue', volume_ml=alone)]
    assert explain_difference([*rows, *make_difference(removed, added)]) == text
    assert text.count('. ') <= 1
    assert len(re.findall(r'[\d.]+ (?:mL of|mL to|mL have|mL\.|%)', text)) <= 3


def test_difference_without_known_flow_states_volumes_only():
    text = explain_difference(make_difference('2.0', '0.0', ('', '')))
    assert text == 'The local core leaves out 2.0 mL of the global core.'


def test_equal_cores_are_called_the_same():
    text = explain_difference(make_difference('0.2', '0.3'))
    assert text == 'Both normalizations find the same core, to 1 mL.'


def test_withheld_local_map_has_no_difference_and_is_looked_at_first():
    reason = 'withheld: homologues are off by about 7.0 mm'
    volumes = [make_row('core', 'local', 'volume', reason=reason)]
    summary = summarize(volumes, {})
    assert summary.difference == ''
    assert summary.verdict.word == 'look first'
    assert summary.reason == 'There is no local map: homologues are off by about 7.0 mm.'


def test_empty_cores_are_called_empty():
    empty = [make_row('core', which, 'volume', volume_ml='0.0') for which in ('global', 'local')]
    text = explain_difference([*empty, *make_difference('0.0', '0.0', ('', ''))])
    assert text == 'Neither normalization finds a core.'


def test_doubtful_core_has_no_explanation():
    assert summarize(VOLUMES, {'core_disagreement_status': 'fail'}).difference == ''


def test_series_without_any_grade_is_not_usable():
    summary = summarize(VOLUMES, {})
    assert summary.verdict.word == 'look first'
    assert summary.reason == 'No check could be computed.'


@pytest.mark.parametrize(('figures', 'reason'), [
    ({'scan_after_peak': '22.5'}, 'The scan ends 22.5 s after the peak of the AIF: core may be '
     'overestimated, CBV and MTT underestimated.'),
    ({'frames_rejected': '0.125', 'arrival': '22'}, '12.5 % of the frames are rejected for motion: the '
     'curves have gaps. 1 more check warns.'),
    ({'aif_peak': ''}, 'Peak of the AIF warns: the bolus is weak or the artery partial-volumed: absolute '
     'CBF and CBV are overestimated.'),
])  # fmt: skip
def test_reason_states_the_first_finding_with_its_figure(figures, reason):
    checks = figures | {f'{name}_status': 'warn' for name in figures}
    assert summarize(VOLUMES, checks).reason == reason


@pytest.mark.parametrize('check', CHECKS, ids=lambda check: check.name)
def test_every_finding_is_one_clause_with_one_figure_and_what_it_concerns(check):
    finding = WORDING[check.name].finding
    assert finding.count('{}') == (check.name != 'reference_density')  # which is 0 or 1
    assert finding.count(': ') == 1
    assert len(finding.split()) <= 24
