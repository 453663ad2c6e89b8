# SPDX-License-Identifier: Apache-2.0
"""Collecting the tables of all participants."""

import logging
from dataclasses import replace

import pandas as pd
import pytest

from ctpprep.exceptions import UsageError
from ctpprep.group import collect_tables
from ctpprep.settings import RunSettings

VOLUMES = 'region\tvolume_ml\ncore\t12.50\nmismatch\tn/a\n'


@pytest.fixture
def run(tmp_path):
    for label in ('01', '02'):
        (tmp_path / 'raw' / f'sub-{label}').mkdir(parents=True)
    return RunSettings(tmp_path / 'raw', tmp_path / 'out', tmp_path / 'work')


def write(run, name, text=VOLUMES):
    path = run.output_dir / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_rows_name_participant_session_and_series(run):
    write(run, 'sub-01/ct/sub-01_run-1_seg-perfusion_morph.tsv')
    write(run, 'sub-02/ses-a/ct/sub-02_ses-a_seg-perfusion_morph.tsv')
    (path,) = collect_tables(run)
    table = pd.read_csv(path, sep='\t', dtype=str, keep_default_na=False)
    assert list(table.columns[:3]) == ['participant_id', 'session_id', 'series']
    assert list(table.iloc[0]) == ['sub-01', 'n/a', 'sub-01_run-1', 'core', '12.50']
    assert list(table.iloc[3]) == ['sub-02', 'ses-a', 'sub-02_ses-a', 'mismatch', 'n/a']


def test_columns_that_some_lack_are_filled(run):
    write(run, 'sub-01/ct/sub-01_desc-qualitycontrol_ctp.tsv', 'snr\n3\n')
    write(run, 'sub-02/ct/sub-02_desc-qualitycontrol_ctp.tsv', 'snr\tmotion\n4\tpass\n')
    (path,) = collect_tables(run)
    assert path.read_text().splitlines()[1] == 'sub-01\tn/a\tsub-01\t3\tn/a'


def test_failed_and_missing_participants_are_named(run, caplog):
    write(run, 'sub-01/ct/sub-01_seg-perfusion_morph.tsv')
    write(run, 'sub-03/log/run1/crash-x.txt')
    collect_tables(run)
    assert 'sub-02 is not in group_volumes.tsv: not processed' in caplog.messages
    assert any('sub-03/log/run1/crash-x.txt' in message for message in caplog.messages)


def test_only_wanted_participants_are_collected(run, caplog):
    caplog.set_level(logging.INFO)
    write(run, 'sub-01/ct/sub-01_seg-perfusion_morph.tsv')
    write(run, 'sub-02/ct/sub-02_seg-perfusion_morph.tsv')
    wanted = RunSettings(run.bids_dir, run.output_dir, run.work_dir, participant_label=('02',))
    (path,) = collect_tables(wanted)
    assert 'sub-01' not in path.read_text()


def test_nothing_to_collect_is_an_error(run):
    with pytest.raises(UsageError, match='run the level participant first'):
        collect_tables(run)


def test_a_table_that_cannot_be_read_is_named(run):
    write(run, 'sub-01/ct/sub-01_seg-perfusion_morph.tsv', '')
    with pytest.raises(UsageError, match=r'sub-01_seg-perfusion_morph\.tsv cannot be read'):
        collect_tables(run)


def test_no_temporary_file_stays(run):
    write(run, 'sub-01/ct/sub-01_seg-perfusion_morph.tsv')
    collect_tables(run)
    assert {path.name for path in run.output_dir.iterdir()} == {'sub-01', 'group_volumes.tsv'}


@pytest.mark.parametrize(('wanted', 'series'), [
    ({'session_label': ('ses-a',)}, ['sub-01_ses-a_run-01']),
    ({'run_label': ('1',)}, ['sub-01_ses-a_run-01', 'sub-01_ses-b_run-1']),
    ({'session_label': ('b',), 'run_label': ('run-02',)}, ['sub-01_ses-b_run-2']),
])  # fmt: skip
def test_only_wanted_sessions_and_runs_are_collected(run, wanted, series):
    for prefix in ('sub-01_ses-a_run-01', 'sub-01_ses-b_run-1', 'sub-01_ses-b_run-2', 'sub-02'):
        write(run, f'sub-01/ct/{prefix}_seg-perfusion_morph.tsv')
    (path,) = collect_tables(replace(run, **wanted))
    table = pd.read_csv(path, sep='\t')
    assert list(dict.fromkeys(table['series'])) == series
