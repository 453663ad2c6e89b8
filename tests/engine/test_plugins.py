# SPDX-License-Identifier: Apache-2.0
"""The plugin of nipype that a user names."""

import pytest
from nipype.pipeline import plugins

from ctpprep.engine.plugins import DETACHED, PLUGINS, read_plugin
from ctpprep.exceptions import UsageError


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / 'plugin.yml'
        path.write_text(text)
        return path

    return write


def test_plugin_and_arguments_are_read(file):
    path = file('plugin: SLURM\nplugin_args:\n  sbatch_args: --mem 4G\n')
    assert read_plugin(path) == ('SLURM', {'sbatch_args': '--mem 4G'})


def test_detached_plugins_are_plugins_of_nipype():
    assert all(hasattr(plugins, f'{name}Plugin') for name in DETACHED)


@pytest.mark.parametrize('name', PLUGINS)
def test_nipype_has_every_plugin(file, name):
    assert read_plugin(file(f'plugin: {name}')) == (name, {})
    assert hasattr(plugins, f'{name}Plugin')


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('plugin: SLRUM', "there is no 'SLRUM'; did you mean SLURM?"),
        ('plugin: SLURMGraph', 'returns at once'),
        ('plugin: CondorDAGMan', 'use Condor'),
        ('plugin: SLURM\nplugin_arg: {}', 'did you mean plugin_args?'),
        ('plugin: SLURM\nplugin_args: 3', 'plugin_args must be pairs'),
        ('plugin: MultiProc\nplugin_args: {memory_gb: 0.008}', 'memory_gb is at least 0.3, in GB'),
        ('- SLURM', 'must name a plugin'),
        ('plugin: [', 'cannot be read'),
    ],
)
def test_wrong_file_is_one_sentence(file, text, message):
    with pytest.raises(UsageError) as error:
        read_plugin(file(text))
    assert message in str(error.value)
    assert '\n' not in str(error.value)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r'none\.yml cannot be read'):
        read_plugin(tmp_path / 'none.yml')
