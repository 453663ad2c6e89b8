# SPDX-License-Identifier: Apache-2.0
"""Cores and memory that a scheduler granted to this job, from its variables and limits."""

import contextlib
import os
import resource
import socket
from collections.abc import Iterable
from pathlib import Path

# soft limits of this process, by which SGE (h_vmem, h_data), PBS (mem, vmem) and LSF (-M) enforce memory
LIMITS = ('RLIMIT_AS', 'RLIMIT_DATA', 'RLIMIT_RSS')


def granted_cores() -> int:
    """Return the cores on this node that SLURM, PBS, SGE or LSF granted.

    Where a job covers several nodes, variables such as NSLOTS give the cores of all nodes; the share of
    this node is then read from the list of hosts.

    Returns
    -------
    int
        0 outside of a job.
    """
    grants = [read_number('SLURM_CPUS_ON_NODE'), _pbs_cores(), _sge_cores(), _lsf_cores()]
    return int(min((cores for cores in grants if cores), default=0))


def granted_memory_gb() -> list[float]:
    """List the limits of memory that the scheduler set, GB."""
    cores = read_number('SLURM_CPUS_PER_TASK') or read_number('SLURM_CPUS_ON_NODE') or 1
    megabytes = [read_number('SLURM_MEM_PER_NODE'), read_number('SLURM_MEM_PER_CPU') * cores]
    limits = [resource.getrlimit(getattr(resource, name))[0] for name in LIMITS]
    return [
        *(value / 1e3 for value in megabytes if value),  # 0 means all memory of the node
        *(value / 1e9 for value in limits if value not in (0, resource.RLIM_INFINITY)),
    ]


def read_number(name: str) -> float:
    """Read a variable that is a whole number; 0 if it is not set, or something else."""
    text = os.environ.get(name, '')
    return float(text) if text.isdecimal() else 0.0


def _pbs_cores() -> float:
    """PBS Pro sets NCPUS, Torque PBS_NUM_PPN, both for one node; the total may be all there is."""
    if 'PBS_JOBID' not in os.environ:  # NCPUS is also set by others
        return 0.0
    hosts = [(host, 1.0) for host in _read_lines('PBS_NODEFILE')]
    per_node = read_number('NCPUS') or read_number('PBS_NUM_PPN')
    return per_node or _of_this_host(hosts) or read_number('PBS_NCPUS')


def _sge_cores() -> float:
    lines = [line.split() for line in _read_lines('PE_HOSTFILE')]
    hosts = [(line[0], float(line[1])) for line in lines if line[1:] and line[1].isdecimal()]
    return _of_this_host(hosts) or read_number('NSLOTS')


def _lsf_cores() -> float:
    words = os.environ.get('LSB_MCPU_HOSTS', '').split()
    pairs = zip(words[::2], words[1::2], strict=False)
    hosts = [(host, float(cores)) for host, cores in pairs if cores.isdecimal()]
    return _of_this_host(hosts) or read_number('LSB_DJOB_NUMPROC')


def _of_this_host(hosts: Iterable[tuple[str, float]]) -> float:
    """Sum the cores of this host, or return the fewest of any if it goes by another name there."""
    cores: dict[str, float] = {}
    for host, number in hosts:
        name = host.partition('.')[0]
        cores[name] = cores.get(name, 0.0) + number
    own = cores.get(socket.gethostname().partition('.')[0])
    return own or min(cores.values(), default=0.0)


def _read_lines(name: str) -> list[str]:
    """Read the lines of the file that a variable names; none if it cannot be read."""
    with contextlib.suppress(OSError, ValueError):
        return Path(os.environ.get(name, '')).read_text().split('\n')[:-1]
    return []
