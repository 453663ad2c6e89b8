# SPDX-License-Identifier: Apache-2.0
"""What a page shows of the agreement with a follow-up lesion."""

import json

import pytest

from ctpprep.perfusion.followup import COLUMNS
from ctpprep.reports.followup import read_followup

MEASURED = {
    'followup_aligned_by': 'patient coordinates of its header', 'followup_left_out': '',
    'followup_ml': 50.4, 'followup_covered': 1.0,
}  # fmt: skip


@pytest.fixture
def write(tmp_path):
    def write(measured, **cells):
        path = tmp_path / 'sub-01_desc-followup_morph.tsv'
        row = dict.fromkeys(COLUMNS, 'n/a') | {
            'measure': 'segmentation', 'quantity': 'core', 'normalization': 'local', **cells,
        }  # fmt: skip
        path.write_text('\t'.join(COLUMNS) + '\n' + '\t'.join(row.values()) + '\n')
        path.with_suffix('.json').write_text(json.dumps({'Measured': MEASURED | measured}))
        return path

    return write


def test_figures_of_the_core_are_formatted(write):
    rows, note = read_followup(write({}, volume_ml='45.03', dice='0.8839', surface_mm='1.18'))
    (row,) = rows
    assert (row[''], row['volume, mL'], row['Dice']) == ('Core local', '45.0', '0.88')
    assert row['sensitivity'] == ''
    assert note == 'Follow-up lesion: 50.4 mL, aligned by patient coordinates of its header.'


def test_lesion_that_was_left_out_has_its_reason_alone(write):
    rows, note = read_followup(write({'followup_left_out': 'no image'}))
    assert rows == []
    assert note == 'The follow-up lesion was left out: no image.'


def test_low_coverage_and_registration_are_stated(write):
    measured = {'followup_covered': 0.5, 'followup_overlap': 0.95, 'followup_similarity': 0.98}
    _, note = read_followup(write(measured))
    assert 'overlap of the brain 0.95, mutual information 0.98' in note
    assert 'Only 50% of it is within the series' in note


def test_text_in_place_of_numbers_is_shown_as_it_is(write):
    measured = {'followup_ml': 'much', 'followup_overlap': '<b>', 'followup_covered': 'half'}
    (row,), note = read_followup(write(measured, volume_ml='<i>', dice='inf'))
    assert (row['volume, mL'], row['Dice']) == ('<i>', 'n/a')
    assert note.startswith('Follow-up lesion: much mL')
    assert 'overlap of the brain <b>' in note
