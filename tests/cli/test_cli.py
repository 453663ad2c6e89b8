# SPDX-License-Identifier: Apache-2.0
"""The command line: its options, its errors in one line, its exit codes."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import time
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
from ctpprep.cli.parser import described
from ctpprep.cli.status import status_path
from ctpprep.engine import run as engine_run
from ctpprep.engine.run import SeriesResult
from ctpprep.exceptions import BolusError, UsageError
from ctpprep.settings import MethodSettings, RunSettings, describe


@pytest.fixture
def dataset(tmp_path):
    """Make a dataset of sub-01 and sub-02 whose frames are 1.5 s apart."""
    image = nb.Nifti1Image(np.zeros((4, 4, 3, 12), np.int16), np.diag([-2, 2, 5, 1]))
    for label in ('01', '02'):
        path = tmp_path / 'raw' / f'sub-{label}' / 'ct' / f'sub-{label}_ctp.nii.gz'
        path.parent.mkdir(parents=True)
        image.to_filename(path)
        path.with_name(f'sub-{label}_ctp.json').write_text('{"RepetitionTime": 1.5}')
    return tmp_path / 'raw'


@pytest.fixture
def graph(monkeypatch):
    """Replace the graph by answers of its own; what it was called with is kept."""
    seen = types.SimpleNamespace(failures={})

    def init_ctpprep_wf(series, method, run):
        seen.series, seen.method, seen.run = series, method, run
        return Workflow('empty', base_dir=run.work_dir)

    def run_workflow(workflow, series, run, watch=None):
        return [
            SeriesResult(each.prefix, each.prefix not in seen.failures, *seen.failures.get(
                each.prefix, ()))
            for each in series
        ]  # fmt: skip

    base = types.ModuleType('ctpprep.workflows.base')
    base.init_ctpprep_wf = init_ctpprep_wf
    base.init_series_wf = lambda *_: types.SimpleNamespace(visit_desc=lambda: '### Method')
    monkeypatch.setitem(sys.modules, 'ctpprep.workflows.base', base)
    monkeypatch.setattr(engine_run, 'run_workflow', run_workflow)
    monkeypatch.setattr('ctpprep.engine.graph.read_graph', lambda *_: {})
    monkeypatch.setattr(os, 'environ', os.environ.copy())
    return seen


def call(dataset, *options, out='out', level='participant'):
    return cli.main([str(dataset), str(dataset.parent / out), level, *options])


def error_of(capsys):
    text = capsys.readouterr().err
    assert text.count('\n') == 1, text
    assert text.startswith('ctpprep: error: ')
    return text


# -- supplied files


def test_supplied_files_reach_the_series_the_links_and_the_report(dataset, graph):
    mask = dataset.parent / 'manual' / 'sub-01' / 'sub-01_desc-brain_mask.nii.gz'
    mask.parent.mkdir(parents=True)
    nb.Nifti1Image(np.ones((4, 4, 3), np.uint8), np.diag([-2, 2, 5, 1])).to_filename(mask)
    assert call(dataset, '-d', f'manual={dataset.parent / "manual"}') == 0
    assert [set(each.overrides) for each in graph.series] == [{'brain_mask'}, set()]
    out = dataset.parent / 'out'
    assert len(list((out / 'logs').glob('run-*_CITATION.md'))) == 1
    assert '"manual": "../manual"' in (out / 'dataset_description.json').read_text()
    assert 'bids:manual:sub-01/sub-01_desc-brain_mask.nii.gz' in (out / 'sub-01.html').read_text()


@pytest.mark.parametrize('text', ['manual', '=x', 'raw=x', 'a b=x', 'a='])
def test_a_dataset_needs_a_name_of_its_own(dataset, graph, capsys, text):
    assert call(dataset, '-d', text) == 2
    assert 'NAME=PATH is needed' in error_of(capsys)


def test_a_file_for_one_series_is_refused_for_two(dataset, graph, capsys):
    table = dataset.parent / 'aif.tsv'
    table.write_text('time\taif\n')
    assert call(dataset, '--aif-file', str(table)) == 2
    assert '2 are selected (sub-01, sub-02)' in error_of(capsys)
    assert not (dataset.parent / 'out').exists()


# -- results


def test_all_series_succeed(dataset, graph, capsys):
    assert call(dataset) == 0
    assert [each.prefix for each in graph.series] == ['sub-01', 'sub-02']
    assert 'sub-01  ok' in capsys.readouterr().out


def test_doubtful_quality_stands_beside_ok(dataset, graph, capsys):
    folder = dataset.parent / 'out' / 'sub-01' / 'ct'
    folder.mkdir(parents=True)
    (folder / 'sub-01_desc-qualitycontrol_ctp.tsv').write_text(
        'status\tcaution\taif_peak\taif_peak_status\tcoverage_status\tvof_end_status\n'
        'fail\tn/a\t30\tfail\tpass\twarn\n'
    )
    assert call(dataset) == 0
    said = capsys.readouterr().out
    assert (
        'sub-01  ok      quality: Peak of the AIF (fail), VOF at the end of the scan (warn)'
        in said
    )
    assert said.count('quality:') == 1
    assert 'CAUTION' not in said


def test_disease_on_both_sides_is_told_first(dataset, graph, capsys):
    folder = dataset.parent / 'out' / 'sub-01' / 'ct'
    folder.mkdir(parents=True)
    (folder / 'sub-01_desc-qualitycontrol_ctp.tsv').write_text(
        'status\tcaution\taif_peak_status\nwarn\tread the global map\twarn\n'
    )
    assert call(dataset) == 0
    assert 'ok      CAUTION: read the global map; quality: Peak' in capsys.readouterr().out


def test_one_failed_series_shows_in_table_and_exit_code(dataset, graph, capsys):
    graph.failures['sub-02'] = ('no contrast arrives', Path('/out/crash.txt'))
    assert call(dataset) == 1
    said = capsys.readouterr().out
    assert 'sub-01  ok' in said
    assert 'sub-02  failed  no contrast arrives' in said
    assert 'crash file: /out/crash.txt' in said


def test_missing_timing_is_one_sentence_and_the_other_series_goes_on(dataset, graph, capsys):
    (dataset / 'sub-01/ct/sub-01_ctp.json').unlink()
    assert call(dataset) == 1
    assert [each.prefix for each in graph.series] == ['sub-02']
    assert 'sub-01/ct/sub-01_ctp.nii.gz: no acquisition times' in error_of(capsys)


def test_of_no_usable_series_at_all_only_the_status_is_written(dataset, graph, capsys):
    (dataset / 'sub-01/ct/sub-01_ctp.json').unlink()
    assert call(dataset, '--participant-label', '01') == 1
    assert '--frame-interval' in error_of(capsys)
    (written,) = (path for path in (dataset.parent / 'out').rglob('*') if path.is_file())
    assert written == status_path(dataset.parent / 'out', '01')
    assert status_of(dataset, '01')['State'] == 'failed'


def status_of(dataset, participant):
    return json.loads(status_path(dataset.parent / 'out', participant).read_text())


def test_status_tells_state_and_cause_of_each_series(dataset, graph):
    crash = dataset.parent / 'out' / 'sub-02' / 'log' / 'a' / 'crash-b.txt'
    graph.failures['sub-02'] = ('no contrast arrives', crash)
    assert call(dataset) == 1
    assert status_of(dataset, '01')['State'] == 'succeeded'
    told = status_of(dataset, '02')
    assert told['State'] == 'failed'
    assert told['Series'] == [{
        'Series': 'sub-02', 'State': 'failed', 'Cause': 'no contrast arrives',
        'CrashFile': 'sub-02/log/a/crash-b.txt',
    }]  # fmt: skip


def test_status_of_a_run_that_did_not_end_is_running(dataset, graph, monkeypatch):
    assert call(dataset) == 0
    monkeypatch.setattr(engine_run, 'run_workflow', lambda *_: 1 / 0)
    assert call(dataset) == 1
    assert status_of(dataset, '01')['State'] == 'running'


def test_what_computes_nothing_leaves_the_status_alone(dataset, graph):
    assert call(dataset) == 0
    before = status_of(dataset, '01')
    call(dataset, '--reports-only')
    call(dataset, '--boilerplate-only')
    assert status_of(dataset, '01') == before


def test_results_stand_in_the_log_of_the_run(dataset, graph):
    call(dataset)
    (log,) = (dataset.parent / 'out' / 'logs').glob('run-*.log')
    assert 'sub-02  ok' in log.read_text()


def test_expected_errors_are_one_line_and_others_a_traceback(dataset, monkeypatch, capsys):
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
def test_what_the_group_level_does_not_know_is_refused(dataset, graph, capsys, option):
    assert call(dataset, *option.split(), level='group') == 2
    assert f'{option.split()[0]} is of the level participant' in error_of(capsys)


def test_a_config_file_of_the_participant_level_is_none_of_the_group_level(dataset, graph, capsys):
    file = dataset.parent / 'run.toml'
    file.write_text('core_rcbf = 0.3\n')
    assert call(dataset, '--config-file', str(file), level='group') == 2
    assert '--config-file run.toml: core_rcbf is of the level participant' in error_of(capsys)


def test_the_group_level_refuses_unknown_participants(dataset, graph, capsys):
    table = dataset.parent / 'out/sub-09/ct/sub-09_seg-perfusion_morph.tsv'
    table.parent.mkdir(parents=True)
    table.write_text('region\tvolume_ml\ncore\t3\n')
    assert call(dataset, '--participant-label', '01', '09', '999', level='group') == 2
    assert 'sub-999 is not in ' in error_of(capsys)
    harmless = ['-v', '--nprocs', '1', '--no-write-graph', '-w', str(dataset.parent / 'w')]
    assert call(dataset, '--participant-label', '01', '09', *harmless, level='group') == 0


@pytest.mark.parametrize('option', ['--group-column', '--stroke-column', '--exclude-column'])
def test_the_participant_level_knows_no_columns(dataset, graph, capsys, option):
    assert call(dataset, option, 'site') == 2
    assert f'{option} is of the level group' in error_of(capsys)


# -- options


def parse(*options):
    return cli.read_settings(cli.make_parser().parse_args(['raw', 'out', 'participant', *options]))


def test_every_method_setting_has_an_option_with_unit_default_and_source(capsys):
    assert cli.main(['--help']) == 0
    said = ' '.join(capsys.readouterr().out.split())
    for name in MethodSettings().as_dict():
        assert f'--{name.replace("_", "-")}' in said
    assert '(default: 0.3 fraction; Rau et al. 2024, doi:10.3174/ajnr.A8111)' in said


def test_defaults_are_those_of_the_settings():
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


def test_no_more_processes_than_cores():
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
            "NAME=PATH is needed, with letters and digits in NAME and not raw, got 'b'",
        ),
        (['--mem', '8'], 'at least 0.3 GB are needed, got 8; 8 is MB, write 8G'),
        (['--mem', 'much'], 'a size such as 8000 (MB), 8000M or 8G'),
        (['--nprocs', '0'], 'a whole number from 1 on is needed'),
        (['--frame-interval', '1', '--frame-times', 'x'], 'exclude each other'),
        (['--dry-run', '--reports-only'], '--reports-only and --dry-run exclude each other'),
    ],
)
def test_misuse_is_one_line(capsys, options, message):
    assert cli.main(['raw', 'out', 'participant', *options]) == 2
    assert message in error_of(capsys)


def test_misspelt_level_gets_the_nearest(capsys):
    assert cli.main(['raw', 'out', 'participants']) == 2
    assert 'did you mean participant?' in error_of(capsys)


def test_underscores_of_the_first_bids_apps_are_understood():
    assert parse('--participant_label', '01')[1].participant_label == ('01',)


def test_names_of_options_in_other_apps_are_understood(tmp_path):
    (tmp_path / 'p.yml').write_text('plugin: Linear')
    options = f'--n_cpus 1 --mem_mb 4000 --nipype-plugin-file {tmp_path}/p.yml --notrack --low-mem'
    _, run = parse(*options.split(), '-d', 'a=x', 'b=y', '-d', 'c=z')
    assert (run.nprocs, run.mem_gb, run.use_plugin) == (1, 4.0, tmp_path / 'p.yml')
    assert [name for name, _ in run.derivatives] == ['a', 'b', 'c']


def test_every_setting_of_a_run_says_what_it_is():
    for each in described(RunSettings):
        about = describe(RunSettings, each.name)
        assert about.stage
        assert about.meaning


# -- config file


@pytest.fixture
def config(tmp_path):
    """Write a config file; give the options that name it."""

    def write(text):
        (tmp_path / 'c.toml').write_text(text)
        return '--config-file', str(tmp_path / 'c.toml')

    return write


def test_options_go_before_the_config_file_and_this_before_defaults(config):
    file = config('core_rcbf = 0.2\ndenoise-rank = 4\nmem = "3G"\nskip_bids_validation = true\n')
    method, run = parse(*file, '--core-rcbf', '0.25', '--no-skip-bids-validation')
    assert (method.lesion.core_rcbf, method.denoising.denoise_rank) == (0.25, 4)
    assert method.normalization.local_clip == MethodSettings().local_clip
    assert (run.mem_gb, run.skip_bids_validation) == (3.0, False)


def test_a_config_file_repeats_a_run(config):
    options = '--participant-label 01 --run-label 2 -d first=first --aif-file raw/aif.tsv '
    options += '-d same=raw --frame-interval 1.5 --tmax-thresholds 5 --no-motion-correction --denoise none -v'
    method, run = parse(*options.split(), '--nprocs', '1')
    text = format_config(method, run)
    again = parse(*config(text), '--nprocs', '1')
    assert again == (method, replace(run, run_uuid=again[1].run_uuid, mem_gb=again[1].mem_gb))


def test_a_config_file_tells_folders_by_their_role_alone():
    far = '/'.join(['..'] * len(Path.cwd().parts))
    options = f'--brain-mask /home/alice/mask.nii.gz --aif-file {far}/home/alice/aif.tsv'
    method, run = parse(*options.split(), '-d', 'first=first')
    text = format_config(method, run)
    assert 'derivatives = {first = "bids_dir/../first"}' in text
    assert '# brain_mask: elsewhere; give --brain-mask again' in text
    assert 'alice' not in text
    assert str(Path.cwd()) not in text


def test_a_repeated_run_takes_up_its_work(config):
    method, run = parse('--clean-workdir', '--clean-workdir-on-success')
    assert 'clean_workdir' not in format_config(method, run)


def test_every_run_writes_the_file_that_repeats_it(dataset, graph):
    call(dataset, '--core-rcbf', '0.2')
    (file,) = (dataset.parent / 'out' / 'logs').glob('run-*.toml')
    assert call(dataset, '--config-file', str(file)) == 0
    assert graph.method.lesion.core_rcbf == 0.2


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('core_rbcf = 0.3', 'there is no key core_rbcf; did you mean core_rcbf?'),
        ('core_rcbf = "much"', "core_rcbf: a number is needed, got 'much'"),
        ('core_rcbf = 30', 'core_rcbf is a fraction between'),
        ('denoise = "lowrnk"', 'did you mean lowrank?'),
        ('motion_correction = 1', 'true or false is needed'),
        ('participant_label = [1]', 'a text in quotes is needed'),
        ('local_sigma_mm = [12.0]', '3 values are needed'),
        ('derivatives = "first"', 'datasets by name are needed'),
        ('core_rcbf 0.3', 'cannot be read as TOML'),
        ('[method]', 'there is no key method'),
    ],
)
def test_wrong_config_file_is_one_line(config, capsys, text, message):
    assert cli.main(['raw', 'out', 'participant', *config(text)]) == 2
    assert message in error_of(capsys)


# -- what is done instead of processing


def test_doubtful_names_are_warned_of_unless_asked_not_to(dataset, graph, capsys):
    assert call(dataset) == 0
    assert 'not BIDS: there is no dataset_description.json' in capsys.readouterr().out
    assert call(dataset, '--skip-bids-validation') == 0
    assert 'not BIDS' not in capsys.readouterr().out


def test_folders_of_participants_without_sub_are_told(dataset, graph, capsys):
    for place in ('Patient03/ct', 'Patient04', 'derivatives/x', 'old', 'kept/sub-01/ct', '.git'):
        (dataset / place).mkdir(parents=True)
        (dataset / place / 'x_ctp.nii.gz').touch()
    (dataset / 'empty').mkdir()
    (dataset / '.bidsignore').write_text('old/\n')
    call(dataset)
    said = 'not BIDS: Patient03, Patient04: skipped; the folder of a participant is named sub-'
    assert said in capsys.readouterr().out
    call(dataset, '--participant-label', '01')
    assert 'not BIDS: Patient03' not in capsys.readouterr().out


def test_only_the_methods_text_is_written(dataset, graph):
    assert call(dataset, '--boilerplate-only') == 0
    written = [path.name for path in (dataset.parent / 'out').rglob('*') if path.is_file()]
    assert sorted(written) == ['CITATION.bib', 'CITATION.md']
    assert not (dataset.parent / 'out_work').exists()


def give_outputs(dataset, label):
    folder = dataset.parent / 'out' / f'sub-{label}' / 'ct'
    folder.mkdir(parents=True)
    (folder / f'sub-{label}_seg-perfusion_morph.tsv').write_text('region\tvolume_ml\ncore\t3\n')
    (folder / f'sub-{label}_seg-perfusion_morph.json').write_text(
        '{"Settings": {"core_rcbf": 0.2, "local_sigma_mm": [1, 2, 3], "of_an_older_version": 1}}'
    )


def test_reports_alone_tell_the_settings_that_made_the_files(dataset, graph):
    give_outputs(dataset, '01')
    assert call(dataset, '--reports-only', '--participant-label', '01') == 0
    out = dataset.parent / 'out'
    assert re.search(r'core rcbf</th><td>0.2<', (out / 'sub-01.html').read_text())
    assert not list(out.glob('logs/run-*'))
    assert not hasattr(graph, 'series')


def test_reports_alone_name_what_has_no_outputs(dataset, graph, capsys):
    give_outputs(dataset, '01')
    assert call(dataset, '--reports-only') == 1
    assert 'sub-02  failed  has no outputs' in capsys.readouterr().out
    assert 'has no outputs' in (dataset.parent / 'out' / 'sub-02.html').read_text()


def test_reports_of_nothing_are_refused(dataset, graph, capsys):
    (dataset.parent / 'out').mkdir()
    assert call(dataset, '--reports-only') == 2
    assert 'holds no outputs of the selected series' in error_of(capsys)


def test_reports_of_a_folder_that_is_not_there_make_none(dataset, graph, capsys):
    assert call(dataset, '--reports-only', out='oout') == 2
    assert 'there is no folder' in error_of(capsys)
    assert not (dataset.parent / 'oout').exists()


def test_debug_shows_where_an_error_came_from(dataset, graph, capsys):
    assert call(dataset, '--debug', '--participant-label', '9') == 2
    said = capsys.readouterr().err
    assert 'Traceback' in said
    assert said.splitlines()[-1].startswith('ctpprep: error: sub-9 is not in')


# -- the work folder


def test_intermediate_files_go_by_participant(dataset, graph):
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
        ('raw/out', [], 'only its folder derivatives/'),
        ('out', ['-w', 'raw/work'], 'inside the dataset; choose another with -w'),
        ('out', ['-w', 'out'], 'is output_dir; choose another with -w'),
        ('out', ['-w', 'out/work'], 'is inside output_dir; choose another with -w'),
        ('out', ['-w', 'raw/sub-01/ct/sub-01_ctp.json'], 'inside the dataset'),
        ('out', ['-w', 'file/work'], 'cannot write to'),
        ('out', ['--participant-label', '1'], 'did you mean sub-01'),
    ],
)
def test_wrong_folders_are_refused_in_one_line(
    dataset, graph, capsys, monkeypatch, out, options, message
):
    monkeypatch.chdir(dataset.parent)
    Path('file').touch()
    assert call(dataset, *options, out=out) == 2
    assert message in error_of(capsys)


def test_missing_dataset_is_one_sentence(tmp_path, graph, capsys):
    assert call(tmp_path / 'nowhere') == 2
    assert 'nowhere is not a folder' in error_of(capsys)


def test_derivatives_of_the_dataset_take_outputs(dataset, graph):
    assert call(dataset, out='raw/derivatives/ctpprep') == 0
    assert graph.run.work_dir == dataset.parent / 'raw_ctpprep_work'


def test_datasets_side_by_side_do_not_share_a_work_folder():
    dirs = [f'/data/{name}' for name in 'AB']
    works = [default_work_dir(Path(each), Path(each) / 'derivatives' / 'prep') for each in dirs]
    assert works == [Path('/data/A_prep_work'), Path('/data/B_prep_work')]


def test_dots_in_paths_are_resolved_before_anything_is_made_of_them(dataset, graph, monkeypatch):
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


def test_a_folder_of_derivatives_that_is_the_dataset_takes_outputs(tmp_path):
    maps = tmp_path / 'derivatives'
    maps.mkdir()
    check = partial(RunSettings, maps, work_dir=tmp_path / 'work')
    cli.check_folders(check(output_dir=maps / 'ctpprep'))
    with pytest.raises(UsageError, match='inside the dataset'):
        cli.check_folders(check(output_dir=maps / 'sub-01' / 'out'))


def test_environment_is_offline_single_threaded_and_away_from_home(tmp_path, monkeypatch):
    monkeypatch.setattr(os, 'environ', {'MPLBACKEND': 'pdf'})
    cli.set_environment(RunSettings(tmp_path, tmp_path, tmp_path / 'work'))
    assert os.environ['OMP_NUM_THREADS'] == '1'
    assert os.environ['TEMPLATEFLOW_AUTOUPDATE'] == '0'
    assert os.environ['NIPYPE_CONFIG_DIR'].startswith(str(tmp_path))
    assert os.environ['MPLBACKEND'] == 'pdf'


def test_group_level_leaves_no_caches_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(os, 'environ', {})
    cli.set_environment(RunSettings(tmp_path, tmp_path, tmp_path / 'work'), 'group')
    assert not os.environ['MPLCONFIGDIR'].startswith(str(tmp_path))


def test_the_templates_of_a_user_are_left_alone(dataset, graph, monkeypatch):
    monkeypatch.setenv('TEMPLATEFLOW_HOME', str(dataset.parent / 'mine'))
    assert call(dataset, '--dry-run') == 0
    assert call(dataset) == 0
    assert not (dataset.parent / 'mine').exists()


def test_a_dry_run_makes_no_database(dataset, graph):
    before = sorted(dataset.parent.rglob('*'))
    assert call(dataset, '--dry-run', '--bids-database-dir', str(dataset.parent / 'base')) == 0
    assert sorted(dataset.parent.rglob('*')) == before


def test_help_and_version_start_quickly():
    began = time.monotonic()
    script = 'import sys; from ctpprep.cli import main; main(["--version"])\n'
    script += 'assert not {"numpy", "nipype", "bids", "pandas"} & sys.modules.keys()'
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, '-c', script], check=True, cwd=root)
    assert time.monotonic() - began < 5  # 0.3 s on an idle machine


def test_a_failed_series_loses_the_files_of_its_earlier_run(dataset, graph):
    table = dataset.parent / 'out' / 'sub-01' / 'ct' / 'sub-01_seg-perfusion_morph.tsv'
    table.parent.mkdir(parents=True)
    table.write_text('region\tvolume_ml\n')
    os.utime(table, (1, 1))
    graph.failures['sub-01'] = ('no bolus', None)
    assert call(dataset) == 1
    assert not table.exists()


def leave_earlier(dataset, label='01'):
    """Leave an old table and page of a participant."""
    give_outputs(dataset, label)
    for path in (dataset.parent / 'out' / f'sub-{label}' / 'ct').iterdir():
        os.utime(path, (1, 1))
    page = dataset.parent / 'out' / f'sub-{label}.html'
    page.write_text('of an earlier run')
    return path.parent, page


@pytest.mark.parametrize('alone', [False, True])
def test_a_series_that_cannot_be_read_any_more_loses_them_too(dataset, graph, alone):
    folder, page = leave_earlier(dataset)
    (dataset / 'sub-01/ct/sub-01_ctp.json').unlink()
    assert call(dataset, *(['--participant-label', '01'] if alone else [])) == 1
    assert list(folder.iterdir()) == []
    assert 'no acquisition times' in page.read_text()


def test_a_choice_that_leaves_nothing_of_a_participant_removes_nothing(dataset, graph):
    folder, _ = leave_earlier(dataset)
    image = dataset / 'sub-02/ct/sub-02_ctp.nii.gz'
    for path in (image, image.with_name('sub-02_ctp.json')):
        path.rename(path.with_name(path.name.replace('_ctp', '_run-2_ctp')))
    assert call(dataset, '--run-label', '2', '--participant-label', '01', '02') == 1
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize('alone', [False, True])
@pytest.mark.parametrize('gone', [True, False])
def test_reports_alone_need_no_raw_series(dataset, graph, capsys, alone, gone):
    folder, page = leave_earlier(dataset)
    leave_earlier(dataset, '02')
    image = dataset / 'sub-01/ct/sub-01_ctp.nii.gz'
    image.unlink()
    if not gone:
        image.symlink_to('dropped')
    assert call(dataset, '--reports-only', *(['--participant-label', '01'] if alone else [])) == 0
    assert re.search('sub-01  +ok', capsys.readouterr().out)
    assert 'This series failed' not in page.read_text()
    assert list(folder.iterdir())


@pytest.mark.parametrize('alone', [False, True])
@pytest.mark.parametrize('gone', [['01'], ['01', '02']])
def test_reports_alone_need_no_raw_participant(dataset, graph, capsys, alone, gone):
    for label in ('01', '02'):
        leave_earlier(dataset, label)
    for label in gone:
        shutil.rmtree(dataset / f'sub-{label}')
    assert call(dataset, '--reports-only', *(['--participant-label', '01'] if alone else [])) == 0
    assert re.search('sub-01  +ok', capsys.readouterr().out)


def test_reports_alone_name_the_doubts_of_quality(dataset, graph, capsys):
    folder, _ = leave_earlier(dataset)
    table = folder / 'sub-01_desc-qualitycontrol_ctp.tsv'
    table.write_text('coverage\tcoverage_status\n40\twarn\n')
    call(dataset, '--reports-only', '--participant-label', '01')
    assert re.search(r'sub-01  +ok  +quality: .*\(warn\)', capsys.readouterr().out)


@pytest.mark.parametrize('alone', [False, True])
def test_a_participant_without_series_settles(dataset, graph, alone):
    (dataset / 'sub-03').mkdir()
    call(dataset, *(['--participant-label', '03'] if alone else []))
    assert status_of(dataset, '03')['State'] == 'nothing'


def test_a_page_that_cannot_be_written_stops_no_other(dataset, graph, capsys):
    folder, _ = leave_earlier(dataset)
    (folder / 'sub-01_tmax.json').write_text('{')
    assert call(dataset) == 1
    said = capsys.readouterr()
    assert 'sub-01  failed  the page sub-01.html could not be written (JSONDecodeError' in said.out
    assert 'sub-02  ok' in said.out
    assert (dataset.parent / 'out' / 'sub-02.html').is_file()
    assert said.err.count('\n') == 1


def test_provenance_that_cannot_be_written_hides_no_result(dataset, graph, capsys, monkeypatch):
    def fail(*_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('ctpprep.provenance.record.write_provenance', fail)
    assert call(dataset) == 1
    said = capsys.readouterr()
    assert said.err.startswith('ctpprep: error: no space was left in ')
    assert 'sub-01  failed  no space was left in ' in said.out
    assert (dataset.parent / 'out' / 'sub-01.html').is_file()


def test_reports_tell_no_folder_of_the_machine(dataset, graph):
    place = dataset.parent / 'out_work' / 'node' / 'x.nii'
    graph.failures['sub-01'] = (f'OSError: [Errno 28] No space: {place}, {Path.home()}/a', None)
    call(dataset)
    page = (dataset.parent / 'out' / 'sub-01.html').read_text()
    assert 'No space: work_dir/node/x.nii, ~/a' in page
    assert str(dataset.parent) not in page
