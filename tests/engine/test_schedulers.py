# SPDX-License-Identifier: Apache-2.0
"""The user's plugin file."""

import pytest
from nipype.pipeline import plugins

from ctpprep.engine.schedulers import DETACHED, PLUGINS, read_plugin
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
