# SPDX-License-Identifier: Apache-2.0
"""The user's plugin file."""

import pytest
from nipype.pipeline import plugins

from ctpprep.engine import queues, schedulers
from ctpprep.engine.queues import Answer
from ctpprep.engine.schedulers import DETACHED, PLUGINS, read_plugin, require_commands
from ctpprep.exceptions import UsageError


@pytest.fixture
def plugin_file(tmp_path):
    def write(text):
        path = tmp_path / 'plugin.yml'
        path.write_text(text)
        return path

    return write


def test_plugin_and_arguments_are_read(plugin_file):
    path = plugin_file('plugin: SLURM\nplugin_args:\n  sbatch_args: --mem 4G\n')
    assert read_plugin(path) == ('SLURM', {'sbatch_args': '--mem 4G'})


def test_detached_plugins_exist_in_nipype():
    assert all(hasattr(plugins, f'{name}Plugin') for name in DETACHED)


@pytest.mark.parametrize('name', PLUGINS)
def test_every_supported_plugin_exists_in_nipype(plugin_file, name):
    assert read_plugin(plugin_file(f'plugin: {name}')) == (name, {})
    assert hasattr(plugins, f'{name}Plugin')


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('plugin: SLRUM', "there is no 'SLRUM'; did you mean SLURM?"),
        ('plugin: SLURMGraph', 'returns immediately'),
        ('plugin: CondorDAGMan', 'use Condor'),
        ('plugin: SLURM\nplugin_arg: {}', 'did you mean plugin_args?'),
        ('plugin: SLURM\nplugin_args: 3', 'plugin_args must be "name: value" pairs, got 3'),
        (
            'plugin: MultiProc\nplugin_args: {memory_gb: 0.008}',
            'memory_gb must be at least 0.3 (GB), got 0.008',
        ),
        ('plugin: MultiProc\nplugin_args: {n_procs: 0}', 'n_procs must be a whole number of at'),
        ('- SLURM', 'must name a nipype plugin'),
        ('plugin: [', 'cannot be read'),
    ],
)
def test_invalid_file_is_reported_in_one_sentence(plugin_file, text, message):
    with pytest.raises(UsageError) as error:
        read_plugin(plugin_file(text))
    assert 'plugin.yml' in str(error.value)
    assert message in str(error.value)
    assert '\n' not in str(error.value)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r'none\.yml cannot be read'):
        read_plugin(tmp_path / 'none.yml')


@pytest.mark.parametrize('name', queues.COMMANDS)
def test_a_scheduler_that_is_not_installed_is_refused(monkeypatch, name):
    monkeypatch.setenv('PATH', '')
    with pytest.raises(UsageError, match=f'{name} needs the command {queues.COMMANDS[name][0]}'):
        require_commands(name)


@pytest.mark.parametrize(
    ('ask', 'printed', 'answer'),
    [
        (queues.ask_pbs, (0, '    job_state = Q\n', ''), Answer(True)),
        (queues.ask_pbs, (0, '    job_state = C\n', ''), Answer(False)),
        (queues.ask_pbs, (35, '', 'qstat: 7.head Job has finished, use -x'), Answer(False)),
        (queues.ask_pbs, (1, '', 'cannot connect'), Answer(None, 'cannot connect')),
        (queues.ask_pbs, (0, '', 'nothing'), Answer(None, 'nothing')),
        (queues.ask_sge, (0, 'job_number: 7\n', ''), Answer(True)),
        (queues.ask_sge, (1, '', 'commlib error'), Answer(None, 'commlib error')),
        (queues.ask_lsf, (0, 'JOBID USER STAT\n7     DONE RUN   normal EXIT\n', ''), Answer(True)),
        (queues.ask_lsf, (0, 'JOBID USER STAT\n7     me   EXIT  normal\n', ''), Answer(False)),
        (queues.ask_lsf, (0, 'JOBID USER STAT\n7     me   ZOMBI normal\n', ''), Answer(False)),
        (queues.ask_lsf, (255, '', 'LSF is down'), Answer(None, 'LSF is down')),
        (queues.ask_slurm, (0, '7 normal PD\n', ''), Answer(True)),
        (queues.ask_slurm, (1, '', 'Unable to contact'), Answer(None, 'Unable to contact')),
    ],
)
def test_answers_of_schedulers_are_understood(monkeypatch, ask, printed, answer):
    monkeypatch.setattr(queues, '_run', lambda *command: printed)
    assert ask('7') == answer


@pytest.mark.parametrize(
    ('name', 'line', 'quoted'),
    [
        ('first.e7', '=>> PBS: job killed: walltime 9 exceeded limit 5', 'job killed: walltime 9'),
        (
            'run.sh.log',
            'TERM_MEMLIMIT: job killed after reaching LSF',
            'TERM_MEMLIMIT: job killed',
        ),
        ('slurm-7.out', 'slurmstepd: error: *** JOB 7 CANCELLED ***', 'JOB 7 CANCELLED'),
        ('first.o7', 'terminated', 'see '),
    ],
)
def test_the_log_of_a_lost_job_is_quoted(tmp_path, name, line, quoted):
    (tmp_path / name).write_text(f'starting\n{line}\n')
    assert quoted in schedulers._read_last_error(tmp_path / 'run.sh', 7)
