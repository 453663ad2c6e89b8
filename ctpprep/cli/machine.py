# SPDX-License-Identifier: Apache-2.0
"""Cores, memory and environment of this process."""

import contextlib
import os
import pwd
from pathlib import Path

from ctpprep.settings import RunSettings


def _cgroup_numbers(*names: str) -> list[list[str]]:
    """Read the limit files of the control group this process sees."""
    found = []
    for name in names:
        with contextlib.suppress(OSError):
            found.append(Path('/sys/fs/cgroup', name).read_text().split())
    return found


def available_cores() -> int:
    """Count the cores this process may use, by its affinity and its control group."""
    has_affinity = hasattr(os, 'sched_getaffinity')  # Linux
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    for numbers in _cgroup_numbers('cpu.max'):
        if numbers[0].isdigit():
            cores = min(cores, max(1, int(numbers[0]) // int(numbers[1])))
    return cores


def available_memory_gb() -> float:
    """Memory this process may use: the least of machine, control group and SLURM's grant."""
    limits = [os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9]
    for numbers in _cgroup_numbers('memory.max', 'memory/memory.limit_in_bytes'):
        if numbers[0].isdigit():
            limits.append(int(numbers[0]) / 1e9)
    granted = os.environ.get('SLURM_MEM_PER_NODE', '')
    if granted.isdigit() and int(granted) > 0:  # 0 stands for all
        limits.append(int(granted) / 1e3)
    return min(limits)


def set_environment(run: RunSettings) -> None:
    """Set what libraries read when they are imported; workers inherit it.

    Caches go to the work folder since a home may be read-only; nothing asks the network.
    """
    with_threads = ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS')
    for name in (*with_threads, 'ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS'):
        os.environ[name] = str(run.omp_nthreads)
    defaults = {
        'MPLBACKEND': 'Agg',
        'MPLCONFIGDIR': str(run.work_dir / 'matplotlib'),
        'NIPYPE_CONFIG_DIR': str(run.work_dir / 'nipype'),
        'NIPYPE_NO_ET': '1',
        'NO_ET': '1',
        'TEMPLATEFLOW_AUTOUPDATE': '0',
        'TEMPLATEFLOW_HOME': str(run.work_dir / 'templateflow'),
    }
    if run.verbosity == 0:
        defaults['PYTHONWARNINGS'] = 'ignore'
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:  # a container run as any user: getpass.getuser() would fail
        defaults['LOGNAME'] = 'ctpprep'
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
