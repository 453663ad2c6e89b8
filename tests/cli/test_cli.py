# SPDX-License-Identifier: Apache-2.0
"""The command line: options, errors in one line, exit codes."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import types
from dataclasses import replace
from functools import partial
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest
from nipype.pipeline.engine import Workflow

from ctpprep import cli
from ctpprep.cli.config import format_config
from ctpprep.cli.folders import default_work_dir
from ctpprep.cli.machine import available_cores
from ctpprep.cli.options import spellings
from ctpprep.cli.parser import COMMON
from ctpprep.engine import run as engine_run
from ctpprep.engine.run import SeriesResult
from ctpprep.exceptions import BolusError, UsageError
from ctpprep.io.records import make_record, status_path
from ctpprep.io.templates import find_template
from ctpprep.settings import MethodSettings, RunSettings, declared


@pytest.fixture
def dataset(tmp_path):
    """Make a dataset of sub-01 and sub-02 with frames every 1.5 s."""
    image = nb.Nifti1Image(np.zeros((4, 4, 3, 12), np.int16), np.diag([-2, 2, 5, 1]))
    for label in ('01', '02'):
        path = tmp_path / 'raw' / f'sub-{label}' / 'ct' / f'sub-{label}_ctp.nii.gz'
        path.parent.mkdir(parents=True)
        image.to_filename(path)
        path.with_name(f'sub-{label}_ctp.json').write_text('{"RepetitionTime": 1.5}')
    return tmp_path / 'raw'


@pytest.fixture
def graph(monkeypatch):
    """Replace the graph by prepared results; record the arguments it is called with."""
    calls = types.SimpleNamespace(failures={})

    def init_ctpprep_wf(series, method, run):
        calls.series, calls.method, calls.run = series, method, run
        return Workflow('empty', base_dir=run.work_dir)

    def run_workflow(workflow, series, run, watcher=None):
        return [
            SeriesResult(one.prefix, one.prefix not in calls.failures, *calls.failures.get(
                one.prefix, ()))
            for one in series
        ]  # fmt: skip

    base = types.ModuleType('ctpprep.workflows.base')
    base.init_ctpprep_wf = init_ctpprep_wf
    base.init_series_wf = lambda *_: types.SimpleNamespace(visit_desc=lambda: '### Method')
    monkeypatch.setitem(sys.modules, 'ctpprep.workflows.base', base)
    monkeypatch.setattr(engine_run, 'run_workflow', run_workflow)
    monkeypatch.setattr('ctpprep.engine.tracker.find_workflow', base.init_series_wf)
    monkeypatch.setattr('ctpprep.engine.steps.read_steps', lambda *_: {})
    monkeypatch.setattr(os, 'environ', os.environ.copy())
    return calls


def call(dataset, *options, out='out', level='participant'):
    return cli.main([str(dataset), str(dataset.parent / out), level, *options])


def error_of(capsys):
    text = capsys.readouterr().err
    assert text.count('\n') == 1, text
    assert text.startswith('ctpprep: error: ')
    return text


# -- overrides


def test_overrides_reach_series_links_and_report(dataset, graph):
    mask = dataset.parent / 'manual' / 'sub-01' / 'sub-01_desc-brain_mask.nii.gz'
    mask.parent.mkdir(parents=True)
    nb.Nifti1Image(np.ones((4, 4, 3), np.uint8), np.diag([-2, 2, 5, 1])).to_filename(mask)
    assert call(dataset, '-d', f'manual={dataset.parent / "manual"}') == 0
    assert [set(series.overrides) for series in graph.series] == [{'brain_mask'}, set()]
    out = dataset.parent / 'out'
    assert len(list((out / 'logs').glob('run-*_CITATION.md'))) == 1
    assert '"manual": "../manual"' in (out / 'dataset_description.json').read_text()
    assert 'bids:manual:sub-01/sub-01_desc-brain_mask.nii.gz' in (out / 'sub-01.html').read_text()


@pytest.mark.parametrize('text', ['manual', '=x', 'raw=x', 'a b=x', 'a='])
def test_a_dataset_needs_a_valid_name(dataset, graph, capsys, text):
    assert call(dataset, '-d', text) == 2
    assert 'must be NAME=PATH' in error_of(capsys)


def test_a_file_for_one_series_is_rejected_for_two(dataset, graph, capsys):
    table = dataset.parent / 'aif.tsv'
    table.write_text('time\taif\n')
    assert call(dataset, '--aif-file', str(table)) == 2
    assert '2 are selected (sub-01, sub-02)' in error_of(capsys)
    assert not (dataset.parent / 'out').exists()


# -- results


def test_successful_series_are_listed_as_ok(dataset, graph, capsys):
    assert call(dataset) == 0
    assert [series.prefix for series in graph.series] == ['sub-01', 'sub-02']
    assert 'sub-01  ok' in capsys.readouterr().out


def test_series_whose_graph_cannot_be_built_fails_alone(dataset, graph, capsys, monkeypatch):
    build = sys.modules['ctpprep.workflows.base'].init_ctpprep_wf

    def refuse_first(series, method, run):
        if any(one.prefix == 'sub-01' for one in series):
            raise OverflowError('too large')
        return build(series, method, run)

    monkeypatch.setattr(sys.modules['ctpprep.workflows.base'], 'init_ctpprep_wf', refuse_first)
    assert call(dataset) == 1
    text = capsys.readouterr()
    assert 'error: sub-01: unexpected OverflowError (too large)' in text.err
    assert 'Traceback' not in text.out + text.err
    assert 'sub-02  ok' in text.out
    assert status_of(dataset, '01')['State'] == 'failed'


def test_unknown_user_without_home_is_no_error(dataset, graph, monkeypatch):
    monkeypatch.delenv('HOME')
    monkeypatch.setattr('pwd.getpwuid', lambda uid: {}[uid])
    assert call(dataset) == 0


@pytest.mark.parametrize(('grades', 'verdict'), [
    ({'coverage': 'pass'}, 'usable: No check warns or fails.'),
    ({'aif_peak': 'warn', 'vof_end': 'warn'}, 'look first: The AIF rises by only 30 HU: absolute CBF and '
     'CBV are overestimated. 1 more check warns.'),
    ({'aif_peak': 'fail', 'vof_end': 'warn'}, 'do not use: The AIF rises by only 30 HU: absolute CBF and '
     'CBV are overestimated.'),
])  # fmt: skip
def test_verdict_of_the_page_and_its_reason_end_the_run(dataset, graph, capsys, grades, verdict):
    folder = dataset.parent / 'out' / 'sub-01' / 'ct'
    folder.mkdir(parents=True)
    row = {'aif_peak': '30'} | {f'{name}_status': grade for name, grade in grades.items()}
    table = folder / 'sub-01_desc-qualitycontrol_ctp.tsv'
    table.write_text('\t'.join(row) + '\n' + '\t'.join(row.values()) + '\n')
    assert call(dataset) == 0
    assert f'sub-01  ok      {verdict}\n' in capsys.readouterr().out


def test_withheld_local_map_is_in_the_verdict_at_the_end(dataset, graph, capsys):
    folder, _ = write_earlier_run(dataset)
    (folder / 'sub-01_desc-qualitycontrol_ctp.tsv').write_text('drift_status\npass\n')
    (folder / 'sub-01_seg-perfusion_morph.tsv').write_text(
        'region\tnormalization\tmeasure\treason\ncore\tlocal\tvolume\twithheld: it folds\n'
    )
    assert call(dataset) == 0
    assert 'ok      look first: There is no local map: it folds.' in capsys.readouterr().out


def test_bilateral_disease_ends_the_run_with_advice(dataset, graph, capsys):
    folder = dataset.parent / 'out' / 'sub-01' / 'ct'
    folder.mkdir(parents=True)
    (folder / 'sub-01_desc-qualitycontrol_ctp.tsv').write_text(
        'caution\taif_peak\taif_peak_status\nboth may be diseased\t70\twarn\n'
    )
    assert call(dataset) == 0
    output = capsys.readouterr().out
    assert 'overestimated. Local normalization is unreliable: read the global map.' in output


def test_a_failed_series_changes_table_and_exit_code(dataset, graph, capsys):
    graph.failures['sub-02'] = ('no contrast arrives', Path('/out/crash.txt'))
    assert call(dataset) == 1
    output = capsys.readouterr().out
    assert 'sub-01  ok' in output
    assert 'sub-02  failed  no contrast arrives' in output
    assert 'crash file: /out/crash.txt' in output


def test_missing_timing_is_one_error_and_other_series_are_processed(dataset, graph, capsys):
    (dataset / 'sub-01/ct/sub-01_ctp.json').unlink()
    assert call(dataset) == 1
    assert [series.prefix for series in graph.series] == ['sub-02']
    assert 'sub-01/ct/sub-01_ctp.nii.gz: no acquisition times' in error_of(capsys)


def test_only_the_status_is_written_without_usable_series(dataset, graph, capsys):
    (dataset / 'sub-01/ct/sub-01_ctp.json').unlink()
    assert call(dataset, '--participant-label', '01') == 1
    assert '--frame-interval' in error_of(capsys)
    (written,) = (path for path in (dataset.parent / 'out').rglob('*') if path.is_file())
    assert written == status_path(dataset.parent / 'out', '01')
    assert status_of(dataset, '01')['State'] == 'failed'


def status_of(dataset, participant):
    return json.loads(status_path(dataset.parent / 'out', participant).read_text())


def test_status_contains_state_and_cause_of_each_series(dataset, graph):
    crash = dataset.parent / 'out' / 'sub-02' / 'log' / 'a' / 'crash-b.txt'
    graph.failures['sub-02'] = ('no contrast arrives', crash)
    assert call(dataset) == 1
    assert status_of(dataset, '01')['State'] == 'succeeded'
    status = status_of(dataset, '02')
    assert status['State'] == 'failed'
    assert status['Series'] == [{
        'Series': 'sub-02', 'State': 'failed', 'Cause': 'no contrast arrives',
        'CrashFile': 'sub-02/log/a/crash-b.txt',
    }]  # fmt: skip


def test_status_of_an_unfinished_run_is_running(dataset, graph, monkeypatch):
    assert call(dataset) == 0
    monkeypatch.setattr(engine_run, 'run_workflow', lambda *_: 1 / 0)
    assert call(dataset) == 1
    assert status_of(dataset, '01')['State'] == 'running'


def test_status_is_unchanged_if_nothing_is_computed(dataset, graph):
    assert call(dataset) == 0
    before = status_of(dataset, '01')
    call(dataset, '--reports-only')
    call(dataset, '--boilerplate-only')
    assert status_of(dataset, '01') == before


def test_results_are_written_to_the_log_file(dataset, graph):
    call(dataset)
    (log,) = (dataset.parent / 'out' / 'logs').glob('run-*.log')
    assert 'sub-02  ok' in log.read_text()


def test_expected_errors_are_one_line_and_others_have_a_traceback(dataset, monkeypatch, capsys):
    def fail(error):
        def run_participants(method, run):
            raise error

        monkeypatch.setattr(cli, 'run_participants', run_participants)
        monkeypatch.setattr(os, 'environ', os.environ.copy())
        return call(dataset)

    assert fail(BolusError('no contrast')) == 1
    assert 'no contrast' in error_of(capsys)
    assert fail(ZeroDivisionError()) == 1
    assert 'Traceback' in capsys.readouterr().err
    assert fail(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))) == 1
    assert 'no space was left in ' in error_of(capsys)


def test_group_collects_tables(dataset, graph, capsys):
    table = dataset.parent / 'out/sub-01/ct/sub-01_seg-perfusion_morph.tsv'
    table.parent.mkdir(parents=True)
    table.write_text('region\tvolume_ml\ncore\t3\n')
    assert call(dataset, level='group') == 0
    assert (dataset.parent / 'out' / 'group_volumes.tsv').exists()
    assert 'sub-02: not processed' in capsys.readouterr().out


@pytest.mark.parametrize(
    'option',
    ['--dry-run', '--reports-only', '--boilerplate-only', '--bids-filter-file x', '--entry maps',
     '--derivatives a=x', '--brain-mask x', '--frame-interval 1', '--write-graph', '--core-rcbf 0.2',
     '--denoise none', '--affected-side both', '--core-rcbf 0.3', '--no-motion-correction'],
)  # fmt: skip
def test_participant_options_are_rejected_at_group_level(dataset, graph, capsys, option):
    assert call(dataset, *option.split(), level='group') == 2
    assert f'{option.split()[0]} is a participant-level option' in error_of(capsys)


def test_participant_config_file_is_rejected_at_group_level(dataset, graph, capsys):
    file = dataset.parent / 'run.toml'
    file.write_text('core_rcbf = 0.3\n')
    assert call(dataset, '--config-file', str(file), level='group') == 2
    assert '--config-file run.toml: core_rcbf is a participant-level option' in error_of(capsys)


def test_group_level_rejects_unknown_participants(dataset, graph, capsys):
    table = dataset.parent / 'out/sub-09/ct/sub-09_seg-perfusion_morph.tsv'
    table.parent.mkdir(parents=True)
    table.write_text('region\tvolume_ml\ncore\t3\n')
    assert call(dataset, '--participant-label', '01', '09', '999', level='group') == 2
    assert 'sub-999 is not in ' in error_of(capsys)
    harmless = ['-v', '--nprocs', '1', '--no-write-graph', '-w', str(dataset.parent / 'w')]
    assert call(dataset, '--participant-label', '01', '09', *harmless, level='group') == 0


@pytest.mark.parametrize('option', ['--group-column', '--stroke-column', '--exclude-column'])
def test_column_options_are_rejected_at_participant_level(dataset, graph, capsys, option):
    assert call(dataset, option, 'site') == 2
    assert f'{option} is a group-level option' in error_of(capsys)


# -- options


def parse(*options):
    return cli.read_settings(cli.make_parser().parse_args(['raw', 'out', 'participant', *options]))


def test_help_lists_the_common_options_with_examples(capsys):
    assert cli.main(['--help']) == 0
    output = capsys.readouterr().out
    listed = {
        name for name, action in cli.make_parser()._option_string_actions.items()
        if action.dest in COMMON and action.help != '==SUPPRESS=='
    }  # fmt: skip
    assert listed <= set(re.findall(r'--?[a-z][a-z-]*', output))
    assert '--local-clip' not in output
    assert '--help-all' in output
    examples = re.findall(r'^  (ctpprep .+)$', output, re.MULTILINE)
    assert len(examples) == 3
    for example in examples:
        assert cli.make_parser().parse_args(example.split()[1:]).level in ('participant', 'group')


def test_every_common_option_is_declared():
    assert {action.dest for action in cli.make_parser()._actions} >= COMMON


def test_every_method_setting_has_an_option_with_unit_default_and_source(capsys):
    assert cli.main(['--help-all']) == 0
    output = ' '.join(capsys.readouterr().out.split())
    for setting in declared(MethodSettings).values():
        assert spellings(setting)[-1] in output
    assert '(default: 0.3 fraction; Rau et al. 2024, doi:10.3174/ajnr.A8111)' in output


def test_default_options_are_the_default_settings():
    assert parse()[0] == MethodSettings()


def test_options_reach_the_settings():
    options = '--no-motion-correction --core-rcbf 0.2 --denoise smooth --denoise-rank 3 '
    options += '--local-sigma-mm 1 2 3 --tmax-thresholds 5 --mirror-window-hu -10 60'
    method, _ = parse(*options.split())
    assert not method.motion.motion_correction
    assert (method.lesion.core_rcbf, method.denoising.denoise, method.denoising.denoise_rank) == (
        0.2,
        'smooth',
        3,
    )
    assert (method.normalization.local_sigma_mm, method.volumes.tmax_thresholds) == (
        (1, 2, 3),
        (5,),
    )


def test_options_of_the_run_reach_the_settings():
    options = '--participant-label 01 sub-02 --session-id a --nthreads 1 --mem 8G -vv -w work'
    _, run = parse(*options.split())
    assert (run.participant_label, run.session_label) == (('01', 'sub-02'), ('a',))
    assert (run.nprocs, run.mem_gb, run.verbosity) == (1, 8.0, 2)
    assert run.work_dir == Path.cwd() / 'work'


def test_processes_are_limited_to_cores():
    assert parse('--nprocs', '9999')[1].nprocs == available_cores()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--particpant-label', '01'], 'no option --particpant-label; did you mean --partic'),
        (['--core-rbcf=0.3'], 'did you mean --core-rcbf?'),
        (['-q'], 'there is no option -q'),
        (['--denoise', 'lowrnk'], 'did you mean lowrank?'),
        (['--core-rcbf', '30'], 'core_rcbf is a fraction between 0.01 and 1.0, got 30.0'),
        (['--local-sigma-mm', '12'], 'expected 3 arguments'),
        (
            ['-d', 'a=x', 'b'],
            "must be NAME=PATH, where NAME has only letters and digits and is not raw, got 'b'",
        ),
        (['--mem', '8'], 'must be at least 0.3 GB, got 8; 8 is MB, write 8G'),
        (['--mem', 'much'], 'a size such as 8000 (MB), 8000M or 8G'),
        (['--nprocs', '0'], 'must be a whole number of at least 1'),
        (['--frame-interval', '1', '--frame-times', 'x'], 'exclude each other'),
        (['--dry-run', '--reports-only'], '--reports-only and --dry-run exclude each other'),
        (['--config-file', '/dev/zero'], '--config-file /dev/zero is a device'),
    ],
)
def test_invalid_options_are_one_line(capsys, options, message):
    assert cli.main(['raw', 'out', 'participant', *options]) == 2
    assert message in error_of(capsys)


def test_misspelt_level_gets_a_suggestion(capsys):
    assert cli.main(['raw', 'out', 'participants']) == 2
    assert 'did you mean participant?' in error_of(capsys)


def test_options_may_be_written_with_underscores():
    assert parse('--participant_label', '01')[1].participant_label == ('01',)


def test_option_names_of_other_apps_are_accepted(tmp_path):
    (tmp_path / 'p.yml').write_text('plugin: Linear')
    options = f'--n_cpus 1 --mem_mb 4000 --nipype-plugin-file {tmp_path}/p.yml --notrack --low-mem'
    _, run = parse(*options.split(), '-d', 'a=x', 'b=y', '-d', 'c=z')
    assert (run.nprocs, run.mem_gb, run.use_plugin) == (1, 4.0, tmp_path / 'p.yml')
    assert [name for name, _ in run.derivatives] == ['a', 'b', 'c']


def test_every_run_setting_is_documented():
    for setting in declared(RunSettings).values():
        assert setting.about.stage
        assert setting.about.meaning


# -- config file


@pytest.fixture
def config(tmp_path):
    """Write a config file; return the options that name it."""

    def write(text):
        (tmp_path / 'c.toml').write_text(text)
        return '--config-file', str(tmp_path / 'c.toml')

    return write


def test_options_override_the_config_file_which_overrides_defaults(config):
    file = config('core_rcbf = 0.2\ndenoise-rank = 4\nmem = "3G"\nskip_bids_validation = true\n')
    method, run = parse(*file, '--core-rcbf', '0.25', '--no-skip-bids-validation')
    assert (method.lesion.core_rcbf, method.denoising.denoise_rank) == (0.25, 4)
    assert method.normalization.local_clip == MethodSettings().normalization.local_clip
    assert (run.mem_gb, run.skip_bids_validation) == (3.0, False)


def test_options_and_config_file_count_more_than_the_preset(config):
    method, _ = parse(*config('rim_mm = 3.0\n'), '--preset', 'rau2024', '--partial-volume')
    assert method.deconvolution.deconvolution_method == 'tikhonov'
    assert method.deconvolution.partial_volume
    assert method.segmentation.rim_mm == 3.0
    assert method.segmentation.least_lesion_ml == 0


def test_a_run_with_a_preset_is_repeated_by_its_config_file(config):
    method, run = parse('--preset', 'rau2024', '--rim-mm', '3')
    assert parse(*config(format_config(method, run)))[0] == method


def test_a_config_file_repeats_a_run(config):
    options = '--participant-label 01 --run-label 2 -d first=first --aif-file raw/aif.tsv '
    options += '-d same=raw --frame-interval 1.5 --tmax-thresholds 5 --no-motion-correction --denoise none -v'
    method, run = parse(*options.split(), '--nprocs', '1')
    text = format_config(method, run)
    again = parse(*config(text), '--nprocs', '1')
    assert again == (method, replace(run, run_uuid=again[1].run_uuid, mem_gb=again[1].mem_gb))


def test_a_config_file_names_folders_by_role():
    far = '/'.join(['..'] * len(Path.cwd().parts))
    options = f'--brain-mask /home/alice/mask.nii.gz --aif-file {far}/home/alice/aif.tsv'
    method, run = parse(*options.split(), '-d', 'first=first')
    text = format_config(method, run)
    assert 'derivatives = {first = "bids_dir/../first"}' in text
    assert '# brain_mask: elsewhere; give --brain-mask again' in text
    assert 'alice' not in text
    assert str(Path.cwd()) not in text


def test_a_repeated_run_keeps_its_work_folder(config):
    method, run = parse('--clean-workdir', '--clean-workdir-on-success')
    assert 'clean_workdir' not in format_config(method, run)


def test_every_run_writes_a_config_file_that_repeats_it(dataset, graph):
    call(dataset, '--core-rcbf', '0.2')
    (file,) = (dataset.parent / 'out' / 'logs').glob('run-*.toml')
    assert call(dataset, '--config-file', str(file)) == 0
    assert graph.method.lesion.core_rcbf == 0.2


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('core_rbcf = 0.3', 'there is no key core_rbcf; did you mean core_rcbf?'),
        ('core_rcbf = "much"', "core_rcbf: must be a number, got 'much'"),
        ('core_rcbf = 30', 'core_rcbf is a fraction between'),
        ('denoise = "lowrnk"', 'did you mean lowrank?'),
        ('motion_correction = 1', 'must be true or false'),
        ('participant_label = [1]', 'must be a text in quotes'),
        ('local_sigma_mm = [12.0]', 'must be 3 values'),
        ('derivatives = "first"', 'must be datasets by name'),
        ('core_rcbf 0.3', 'cannot be read as TOML'),
        ('[method]', 'there is no key method'),
    ],
)
def test_invalid_config_file_is_one_line(config, capsys, text, message):
    assert cli.main(['raw', 'out', 'participant', *config(text)]) == 2
    assert message in error_of(capsys)


# -- options that replace processing


def test_bids_warnings_are_logged_unless_disabled(dataset, graph, capsys):
    assert call(dataset) == 0
    assert 'deviates from BIDS: there is no dataset_description.json' in capsys.readouterr().out
    assert call(dataset, '--skip-bids-validation') == 0
    assert 'deviates from BIDS' not in capsys.readouterr().out


def test_participant_folders_without_sub_are_logged(dataset, graph, capsys):
    for place in ('Patient03/ct', 'Patient04', 'derivatives/x', 'old', 'kept/sub-01/ct', '.git'):
        (dataset / place).mkdir(parents=True)
        (dataset / place / 'x_ctp.nii.gz').touch()
    (dataset / 'empty').mkdir()
    (dataset / '.bidsignore').write_text('old/\n')
    call(dataset)
    output = 'deviates from BIDS: Patient03, Patient04: skipped; the folder of a participant'
    assert output in capsys.readouterr().out
    call(dataset, '--participant-label', '01')
    assert 'deviates from BIDS: Patient03' not in capsys.readouterr().out


def test_boilerplate_only_writes_only_the_methods_text(dataset, graph):
    assert call(dataset, '--boilerplate-only') == 0
    written = [path.name for path in (dataset.parent / 'out').rglob('*') if path.is_file()]
    assert sorted(written) == ['CITATION.bib', 'CITATION.md']
    assert not (dataset.parent / 'out_work').exists()


def write_outputs(dataset, label):
    folder = dataset.parent / 'out' / f'sub-{label}' / 'ct'
    folder.mkdir(parents=True)
    (folder / f'sub-{label}_seg-perfusion_morph.tsv').write_text('region\tvolume_ml\ncore\t3\n')
    (folder / f'sub-{label}_seg-perfusion_morph.json').write_text(
        '{"Settings": {"core_rcbf": 0.2, "local_sigma_mm": [1, 2, 3], "of_an_older_version": 1}}'
    )


def test_rewritten_reports_describe_the_settings_of_the_files(dataset, graph):
    write_outputs(dataset, '01')
    assert call(dataset, '--reports-only', '--participant-label', '01') == 0
    out = dataset.parent / 'out'
    assert re.search(r'core rcbf</th><td>0.2<', (out / 'sub-01.html').read_text())
    assert not list(out.glob('logs/run-*'))
    assert not hasattr(graph, 'series')


def test_rewritten_reports_name_series_without_outputs(dataset, graph, capsys):
    write_outputs(dataset, '01')
    assert call(dataset, '--reports-only') == 1
    assert 'sub-02  failed  has no outputs' in capsys.readouterr().out
    assert 'has no outputs' in (dataset.parent / 'out' / 'sub-02.html').read_text()


def write_entry(dataset, label, state, record=None, **fields):
    entry = {'Series': f'sub-{label}', 'State': state, **fields}
    if record is not None:
        entry['Files'] = record
    path = status_path(dataset.parent / 'out', label)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({'Series': [entry]}))


@pytest.mark.parametrize('state', ['running', 'failed'])
def test_rewriting_reports_makes_no_success_of_a_failed_run(dataset, graph, capsys, state):
    for label in ('01', '02'):
        write_outputs(dataset, label)
    write_entry(dataset, '01', state, Cause='no space was left' if state == 'failed' else '')
    assert call(dataset, '--reports-only') == 1
    cause = 'no space was left' if state == 'failed' else 'its latest run has not ended'
    assert re.search(f'sub-01  +failed  {cause}', capsys.readouterr().out)


@pytest.mark.parametrize('change', ['none', 'changed', 'gone'])
def test_rewriting_reports_checks_the_recorded_files(dataset, graph, capsys, change):
    write_outputs(dataset, '01')
    out = dataset.parent / 'out'
    write_entry(dataset, '01', 'running', make_record((out / 'sub-01').rglob('*.*'), out))
    table = out / 'sub-01/ct/sub-01_seg-perfusion_morph.json'
    if change == 'changed':
        table.write_text('{}')
    elif change == 'gone':
        table.unlink()
    code = call(dataset, '--reports-only', '--participant-label', '01')
    assert code == (0 if change == 'none' else 1)


def test_status_records_the_files_of_succeeded_series(dataset, graph):
    write_outputs(dataset, '01')
    write_outputs(dataset, '02')
    graph.failures['sub-02'] = ('no contrast arrives', None)
    assert call(dataset) == 1
    (entry,) = status_of(dataset, '01')['Series']
    assert list(entry['Files']) == [
        f'sub-01/ct/sub-01_seg-perfusion_morph.{kind}' for kind in ('json', 'tsv')
    ]
    assert 'Files' not in status_of(dataset, '02')['Series'][0]


def test_rewriting_reports_without_outputs_is_an_error(dataset, graph, capsys):
    (dataset.parent / 'out').mkdir()
    assert call(dataset, '--reports-only') == 2
    assert 'contains no outputs of the selected series' in error_of(capsys)


def test_rewriting_reports_does_not_create_output_dir(dataset, graph, capsys):
    assert call(dataset, '--reports-only', out='oout') == 2
    assert 'oout does not exist' in error_of(capsys)
    assert not (dataset.parent / 'oout').exists()


def test_debug_shows_a_traceback(dataset, graph, capsys):
    assert call(dataset, '--debug', '--participant-label', '9') == 2
    output = capsys.readouterr().err
    assert 'Traceback' in output
    assert output.splitlines()[-1].startswith('ctpprep: error: sub-9 is not in')


# -- the work folder


def test_intermediate_files_are_removed_by_participant(dataset, graph):
    work = dataset.parent / 'out_work' / 'ctpprep-1' / 'ctpprep_wf'
    for name in ('sub_01_wf', 'sub_02_wf', 'sub_03_wf'):
        (work / name / 'node').mkdir(parents=True)
    graph.failures['sub-02'] = ('no bolus', None)
    call(dataset, '--clean-workdir-on-success')
    assert sorted(path.name for path in work.iterdir()) == ['sub_02_wf', 'sub_03_wf']
    call(dataset, '--clean-workdir')
    assert [path.name for path in work.iterdir()] == ['sub_03_wf']


# -- folders and environment


@pytest.mark.parametrize(
    ('out', 'options', 'message'),
    [
        ('raw', [], 'output_dir is bids_dir'),
        ('raw/out', [], 'only the folder derivatives/'),
        ('out', ['-w', 'raw/work'], 'inside bids_dir; choose another folder with -w'),
        ('out', ['-w', 'out'], 'is output_dir; choose another folder with -w'),
        ('out', ['-w', 'out/work'], 'is inside output_dir; choose another folder with -w'),
        ('out', ['-w', 'raw/sub-01/ct/sub-01_ctp.json'], 'inside bids_dir'),
        ('out', ['-w', 'file/work'], 'cannot write to'),
        ('out', ['--participant-label', '1'], 'did you mean sub-01'),
    ],
)
def test_invalid_folders_are_one_line(dataset, graph, capsys, monkeypatch, out, options, message):
    monkeypatch.chdir(dataset.parent)
    Path('file').touch()
    assert call(dataset, *options, out=out) == 2
    assert message in error_of(capsys)


def test_missing_dataset_is_one_line(tmp_path, graph, capsys):
    assert call(tmp_path / 'nowhere') == 2
    assert 'nowhere is not a folder' in error_of(capsys)


def test_outputs_may_go_to_the_derivatives_of_the_dataset(dataset, graph):
    assert call(dataset, out='raw/derivatives/ctpprep') == 0
    assert graph.run.work_dir == dataset.parent / 'raw_ctpprep_work'


def test_neighbouring_datasets_do_not_share_a_work_folder():
    bids_dirs = [f'/data/{name}' for name in 'AB']
    work_dirs = [
        default_work_dir(Path(bids_dir), Path(bids_dir) / 'derivatives' / 'prep')
        for bids_dir in bids_dirs
    ]
    assert work_dirs == [Path('/data/A_prep_work'), Path('/data/B_prep_work')]


def test_dots_in_paths_are_resolved_first(dataset, graph, monkeypatch):
    (dataset / 'code').mkdir()
    monkeypatch.chdir(dataset / 'code')
    assert cli.main(['..', '../derivatives/ctpprep', 'participant']) == 0
    assert graph.run.work_dir == dataset.parent / 'raw_ctpprep_work'
    (dataset.parent / 'elsewhere' / 'deep').mkdir(parents=True)
    (dataset / 'link').symlink_to(dataset.parent / 'elsewhere' / 'deep')
    options = ('participant', '-w', '../link/../work')
    _, run = cli.read_settings(cli.make_parser().parse_args(['..', '../out', *options]))
    assert run.work_dir == dataset.parent / 'elsewhere' / 'work'  # as the system reads it
    assert run.output_dir == dataset / 'out'


def test_outputs_may_go_into_a_derivatives_folder_that_is_the_dataset(tmp_path):
    maps = tmp_path / 'derivatives'
    maps.mkdir()
    check = partial(RunSettings, maps, work_dir=tmp_path / 'work')
    cli.check_folders(check(output_dir=maps / 'ctpprep'))
    with pytest.raises(UsageError, match='inside bids_dir'):
        cli.check_folders(check(output_dir=maps / 'sub-01' / 'out'))


def test_environment_is_offline_single_threaded_and_outside_home(tmp_path, monkeypatch):
    monkeypatch.setattr(os, 'environ', {'MPLBACKEND': 'pdf'})
    cli.set_environment(RunSettings(tmp_path, tmp_path, tmp_path / 'work'))
    assert os.environ['OMP_NUM_THREADS'] == '1'
    assert os.environ['TEMPLATEFLOW_AUTOUPDATE'] == '0'
    assert os.environ['NIPYPE_CONFIG_DIR'].startswith(str(tmp_path))
    assert os.environ['MPLBACKEND'] == 'pdf'


def test_group_level_uses_temporary_caches(tmp_path, monkeypatch):
    monkeypatch.setattr(os, 'environ', {})
    cli.set_environment(RunSettings(tmp_path, tmp_path, tmp_path / 'work'), 'group')
    assert not os.environ['MPLCONFIGDIR'].startswith(str(tmp_path))


def test_template_folder_of_the_user_is_unchanged(dataset, graph, monkeypatch):
    monkeypatch.setenv('TEMPLATEFLOW_HOME', str(dataset.parent / 'templates'))
    assert call(dataset, '--dry-run') == 0
    assert call(dataset) == 0
    assert not (dataset.parent / 'templates').exists()


def test_a_dry_run_creates_no_database(dataset, graph):
    before = sorted(dataset.parent.rglob('*'))
    assert call(dataset, '--dry-run', '--bids-database-dir', str(dataset.parent / 'base')) == 0
    assert sorted(dataset.parent.rglob('*')) == before


def test_templates_in_the_folder_of_the_user_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr(os, 'environ', {'TEMPLATEFLOW_HOME': str(tmp_path)})
    name = 'tpl-MNI152NLin6Asym/tpl-MNI152NLin6Asym_res-02_label-{}_probseg.nii.gz'
    for path in [tmp_path / name.format(tissue) for tissue in ('GM', 'WM')]:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b'x')
    for level in ('participant', 'group'):
        cli.set_environment(RunSettings(tmp_path, tmp_path, tmp_path / 'work'), level)
        assert find_template('MNI152NLin6Asym').grey.is_relative_to(tmp_path)


def test_version_imports_no_heavy_packages():
    script = 'import sys; from ctpprep.cli import main; main(["--version"])\n'
    script += 'assert not {"numpy", "nipype", "bids", "pandas"} & sys.modules.keys()'
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, '-c', script], check=True, cwd=root)


def test_files_of_an_earlier_run_of_a_failed_series_are_removed(dataset, graph):
    table = dataset.parent / 'out' / 'sub-01' / 'ct' / 'sub-01_seg-perfusion_morph.tsv'
    table.parent.mkdir(parents=True)
    table.write_text('region\tvolume_ml\n')
    os.utime(table, (1, 1))
    graph.failures['sub-01'] = ('no bolus', None)
    assert call(dataset) == 1
    assert not table.exists()


def write_earlier_run(dataset, label='01'):
    """Write tables and the page of an earlier run."""
    write_outputs(dataset, label)
    for path in (dataset.parent / 'out' / f'sub-{label}' / 'ct').iterdir():
        os.utime(path, (1, 1))
    page = dataset.parent / 'out' / f'sub-{label}.html'
    page.write_text('earlier')
    return path.parent, page


@pytest.mark.parametrize('selected', [False, True])
def test_files_of_an_unreadable_series_are_removed(dataset, graph, selected):
    folder, page = write_earlier_run(dataset)
    (dataset / 'sub-01/ct/sub-01_ctp.json').unlink()
    assert call(dataset, *(['--participant-label', '01'] if selected else [])) == 1
    assert list(folder.iterdir()) == []
    assert 'no acquisition times' in page.read_text()


def test_files_of_participants_without_selected_series_are_kept(dataset, graph):
    folder, _ = write_earlier_run(dataset)
    image = dataset / 'sub-02/ct/sub-02_ctp.nii.gz'
    for path in (image, image.with_name('sub-02_ctp.json')):
        path.rename(path.with_name(path.name.replace('_ctp', '_run-2_ctp')))
    assert call(dataset, '--run-label', '2', '--participant-label', '01', '02') == 1
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize('selected', [False, True])
@pytest.mark.parametrize('gone', [True, False])
def test_reports_are_rewritten_without_raw_series(dataset, graph, capsys, selected, gone):
    folder, page = write_earlier_run(dataset)
    write_earlier_run(dataset, '02')
    image = dataset / 'sub-01/ct/sub-01_ctp.nii.gz'
    image.unlink()
    if not gone:
        image.symlink_to('dropped')
    assert (
        call(dataset, '--reports-only', *(['--participant-label', '01'] if selected else [])) == 0
    )
    assert re.search('sub-01  +ok', capsys.readouterr().out)
    assert 'This series failed' not in page.read_text()
    assert list(folder.iterdir())


@pytest.mark.parametrize('selected', [False, True])
@pytest.mark.parametrize('gone', [['01'], ['01', '02']])
def test_reports_are_rewritten_without_raw_participants(dataset, graph, capsys, selected, gone):
    for label in ('01', '02'):
        write_earlier_run(dataset, label)
    for label in gone:
        shutil.rmtree(dataset / f'sub-{label}')
    assert (
        call(dataset, '--reports-only', *(['--participant-label', '01'] if selected else [])) == 0
    )
    assert re.search('sub-01  +ok', capsys.readouterr().out)


def test_rewriting_reports_states_the_verdict(dataset, graph, capsys):
    folder, _ = write_earlier_run(dataset)
    table = folder / 'sub-01_desc-qualitycontrol_ctp.tsv'
    table.write_text('coverage\tcoverage_status\n40\twarn\n')
    call(dataset, '--reports-only', '--participant-label', '01')
    assert re.search(r'sub-01  +ok  +look first: .* 40 mm', capsys.readouterr().out)


@pytest.mark.parametrize('selected', [False, True])
def test_status_of_a_participant_without_series_is_nothing(dataset, graph, selected):
    (dataset / 'sub-03').mkdir()
    call(dataset, *(['--participant-label', '03'] if selected else []))
    assert status_of(dataset, '03')['State'] == 'nothing'


def test_an_unwritable_page_does_not_stop_the_others(dataset, graph, capsys):
    folder, _ = write_earlier_run(dataset)
    (folder / 'sub-01_tmax.json').write_text('{')
    assert call(dataset) == 1
    output = capsys.readouterr()
    assert (
        'sub-01  failed  the page sub-01.html could not be written (JSONDecodeError' in output.out
    )
    assert 'sub-02  ok' in output.out
    assert (dataset.parent / 'out' / 'sub-02.html').is_file()
    assert output.err.count('\n') == 1


def test_unwritable_provenance_does_not_hide_results(dataset, graph, capsys, monkeypatch):
    def fail(*_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('ctpprep.provenance.record.write_provenance', fail)
    assert call(dataset) == 1
    output = capsys.readouterr()
    assert output.err.startswith('ctpprep: error: no space was left in ')
    assert 'sub-01  failed  no space was left in ' in output.out
    assert (dataset.parent / 'out' / 'sub-01.html').is_file()


def test_reports_contain_no_path_of_the_computer(dataset, graph):
    place = dataset.parent / 'out_work' / 'node' / 'x.nii'
    graph.failures['sub-01'] = (f'OSError: [Errno 28] No space: {place}, {Path.home()}/a', None)
    call(dataset)
    page = (dataset.parent / 'out' / 'sub-01.html').read_text()
    assert 'No space: work_dir/node/x.nii, ~/a' in page
    assert str(dataset.parent) not in page


def test_a_dry_run_exits_with_1_if_a_series_cannot_be_processed(dataset, graph, capsys):
    (dataset / 'sub-02' / 'ct' / 'sub-02_ctp.json').write_text('{"RepetitionTime": 0}')
    assert call(dataset, '--dry-run') == 1
    assert 'sub-02  cannot be processed' in capsys.readouterr().out


def test_a_dry_run_has_one_line_per_series_and_the_tree_with_v(dataset, graph, capsys):
    assert call(dataset, '--dry-run') == 0
    lines = [
        line
        for line in capsys.readouterr().out.splitlines()
        if line.startswith('sub-') and '  ' in line
    ]
    assert [line.split()[0] for line in lines] == ['sub-01', 'sub-02']
    assert ' frames in ' in lines[0]
    assert call(dataset, '--dry-run', '-v') == 0
    assert ' frames in ' not in capsys.readouterr().out  # but the tree
