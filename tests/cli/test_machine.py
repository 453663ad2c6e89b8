# SPDX-License-Identifier: Apache-2.0
"""Cores and memory, read from simulated files and variables."""

import os
import resource
import socket

import pytest

from ctpprep.cli import machine


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Simulate 16 cores of host cn1, without a scheduler."""
    schedulers = ('SLURM_', 'PBS_', 'LSB_', 'NSLOTS', 'NCPUS', 'PE_HOSTFILE')
    for name in [name for name in os.environ if name.startswith(schedulers)]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(socket, 'gethostname', lambda: 'cn1.site.org')
    monkeypatch.setattr(os, 'sched_getaffinity', lambda _: set(range(16)), raising=False)
    return tmp_path


def write_limits(root, group, **files):
    """Write the limit files of a control group; '__' in a name means a dot."""
    folder = root / 'sys/fs/cgroup' / group
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace('__', '.')).write_text(f'{text}\n')


def write_groups(root, *lines):
    path = root / 'proc/self/cgroup'
    path.parent.mkdir(parents=True)
    path.write_text(''.join(f'{line}\n' for line in lines))


def test_everything_is_available_without_limits(root):
    write_groups(root, '0::/user.slice')
    write_limits(root, 'user.slice', memory__max='max', cpu__max='max 100000')
    assert machine.available_cores(root) == machine.default_processes(root) == 16
    assert machine.available_memory_gb(root) > 0.1


def test_limits_of_the_own_group_apply(root):
    write_groups(root, '0::/system.slice/job_1/step_0')
    write_limits(root, 'system.slice/job_1/step_0', memory__max=10**8, cpu__max='250000 100000')
    assert machine.available_memory_gb(root) == 0.1
    assert machine.available_cores(root) == 2  # of 2.5


def test_limits_of_parent_groups_apply(root):
    write_groups(root, '0::/job_1/step_0')
    write_limits(root, 'job_1/step_0', memory__max='max', cpu__max='max 100000')
    write_limits(root, 'job_1', memory__max=10**8, cpu__max='50000 100000')
    assert machine.available_memory_gb(root) == 0.1
    assert machine.available_cores(root) == 1


def test_limits_of_a_container_with_the_path_of_the_host_apply(root):
    write_groups(root, '0::/docker/1234')
    write_limits(root, '', memory__max=10**8, cpu__max='300000 100000')
    assert machine.available_memory_gb(root) == 0.1
    assert machine.available_cores(root) == 3


def test_limits_of_control_groups_version_1_apply(root):
    write_groups(root, '4:memory:/slurm/job_1', '2:cpu,cpuacct:/slurm/job_1')
    write_limits(root, 'memory/slurm/job_1', memory__limit_in_bytes=10**8)
    write_limits(root, 'memory', memory__limit_in_bytes=9223372036854771712)
    write_limits(
        root, 'cpu,cpuacct/slurm/job_1', cpu__cfs_quota_us=400000, cpu__cfs_period_us=100000
    )
    write_limits(root, 'cpu,cpuacct', cpu__cfs_quota_us=-1, cpu__cfs_period_us=100000)
    assert machine.available_memory_gb(root) == 0.1
    assert machine.available_cores(root) == 4


@pytest.mark.parametrize(
    ('granted', 'memory'),
    [
        ({'MEM_PER_NODE': '100'}, 0.1),
        ({'MEM_PER_CPU': '50', 'CPUS_ON_NODE': '4'}, 0.2),
        ({'MEM_PER_CPU': '50', 'CPUS_ON_NODE': '4', 'CPUS_PER_TASK': '2'}, 0.1),
    ],
)
def test_memory_granted_by_slurm_applies(root, monkeypatch, granted, memory):
    for name, value in granted.items():
        monkeypatch.setenv(f'SLURM_{name}', value)
    assert machine.available_memory_gb(root) == memory


def test_all_memory_of_a_node_is_not_a_limit(root, monkeypatch):
    monkeypatch.setenv('SLURM_MEM_PER_NODE', '0')
    assert machine.available_memory_gb(root) > 0.1


def test_cores_granted_by_slurm_apply(root, monkeypatch):
    monkeypatch.setenv('SLURM_CPUS_ON_NODE', '6')
    assert machine.available_cores(root) == machine.default_processes(root) == 6
    monkeypatch.setenv('SLURM_CPUS_PER_TASK', '2')
    assert machine.available_cores(root) == 6  # upper limit of --nprocs
    assert machine.default_processes(root) == 2


@pytest.mark.parametrize(
    ('variables', 'cores'),
    [
        ({'PBS_JOBID': '7.head', 'NCPUS': '3'}, 3),
        ({'PBS_JOBID': '7.head', 'PBS_NUM_PPN': '5'}, 5),
        ({'PBS_JOBID': '7.head', 'PBS_NCPUS': '6'}, 6),
        ({'PBS_JOBID': '7.head', 'PBS_NODEFILE': 'cn1\ncn1\ncn2\n', 'PBS_NCPUS': '3'}, 2),
        ({'NCPUS': '3'}, 16),  # not a job of PBS
        ({'NSLOTS': '4'}, 4),
        ({'NSLOTS': '6', 'PE_HOSTFILE': 'cn1 4 all.q@cn1 UNDEFINED\ncn2 2 all.q@cn2 <NULL>\n'}, 4),
        ({'LSB_DJOB_NUMPROC': '5'}, 5),
        ({'LSB_DJOB_NUMPROC': '6', 'LSB_MCPU_HOSTS': 'cn2.site.org 4 cn1.site.org 2'}, 2),
        ({'LSB_DJOB_NUMPROC': '6', 'LSB_MCPU_HOSTS': 'other 4 another 2'}, 2),
        ({'NSLOTS': 'many', 'LSB_MCPU_HOSTS': 'cn1', 'PE_HOSTFILE': 'cn1\n'}, 16),
    ],
)
def test_cores_granted_by_pbs_sge_and_lsf_apply(root, monkeypatch, variables, cores):
    for name, value in variables.items():
        if name.endswith('FILE'):
            (root / name).write_text(value)
            value = str(root / name)
        monkeypatch.setenv(name, value)
    assert machine.available_cores(root) == machine.default_processes(root) == cores


@pytest.mark.parametrize('limit', ['RLIMIT_AS', 'RLIMIT_DATA', 'RLIMIT_RSS'])
def test_memory_limits_of_the_process_apply(root, monkeypatch, limit):
    limits = {getattr(resource, limit): (10**8, resource.RLIM_INFINITY)}
    infinite = (resource.RLIM_INFINITY,) * 2
    monkeypatch.setattr(resource, 'getrlimit', lambda which: limits.get(which, infinite))
    assert machine.available_memory_gb(root) == 0.1
