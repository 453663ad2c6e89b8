# SPDX-License-Identifier: Apache-2.0
"""Cores, memory and environment variables of this process."""

import contextlib
import os
import pwd
import tempfile
from pathlib import Path

from ctpprep.cli.grants import granted_cores, granted_memory_gb, read_number
from ctpprep.cli.signals import remove_at_end
from ctpprep.settings import USERS_TEMPLATES, RunSettings

MEMORY_FILES = ('memory.max', 'memory.limit_in_bytes')  # of control groups version 2 and 1
CORE_FILES = (('cpu.max',), ('cpu.cfs_quota_us', 'cpu.cfs_period_us'))


def available_cores(root: Path = Path('/')) -> int:
    """Return how many cores this process may use, by affinity, control group and scheduler.

    Parameters
    ----------
    root : Path
        Root of the file system; tests use another one.

    Returns
    -------
    int
        At least 1; rounded down.
    """
    has_affinity = hasattr(os, 'sched_getaffinity')  # Linux
    cores = float(len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1)
    for folder in _cgroup_folders('cpu', root):
        for names in CORE_FILES:
            numbers = _read_numbers(folder, names)
            if len(numbers) == 2 and min(numbers) > 0:  # quota and period, us
                cores = min(cores, numbers[0] / numbers[1])
    return max(1, int(min(cores, granted_cores() or cores)))


def default_processes(root: Path = Path('/')) -> int:
    """Return the default number of processes: all cores, or those of the SLURM task.

    Parameters
    ----------
    root : Path
        Root of the file system; tests use another one.

    Returns
    -------
    int
    """
    cores = available_cores(root)
    return int(min(cores, read_number('SLURM_CPUS_PER_TASK') or cores))


def available_memory_gb(root: Path = Path('/')) -> float:
    """Return the memory this process may use: the minimum of machine, control group and scheduler.

    Parameters
    ----------
    root : Path
        Root of the file system; tests use another one.

    Returns
    -------
    float
        GB.
    """
    limits = [os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9]
    for folder in _cgroup_folders('memory', root):
        limits += [value / 1e9 for name in MEMORY_FILES for value in _read_numbers(folder, [name])]
    return min([*limits, *granted_memory_gb()])


def set_environment(run: RunSettings, level: str = 'participant') -> None:
    """Set the environment variables that libraries read at import; workers inherit them.

    Caches are stored in the work folder, as a home may be read-only, or in a temporary folder if no step
    runs. Nothing uses the network.
    """
    thread_variables = ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS')
    for name in (*thread_variables, 'ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS'):
        os.environ[name] = str(run.omp_nthreads)
    caches = run.work_dir
    if level == 'group' or run.dry_run or run.boilerplate_only or run.reports_only:
        caches = Path(tempfile.mkdtemp(prefix='ctpprep-'))
        remove_at_end(caches)
    defaults = {
        'MPLBACKEND': 'Agg',
        'MPLCONFIGDIR': str(caches / 'matplotlib'),
        'NIPYPE_CONFIG_DIR': str(caches / 'nipype'),
        'NIPYPE_NO_ET': '1',
        'NO_ET': '1',
        'TEMPLATEFLOW_AUTOUPDATE': '0',
    }
    # not the user's own, which is only read: templateflow fills a folder without a description at import
    os.environ.setdefault(USERS_TEMPLATES, os.environ.get('TEMPLATEFLOW_HOME', ''))
    os.environ['TEMPLATEFLOW_HOME'] = str(caches / 'templateflow')
    if run.verbosity == 0:
        defaults['PYTHONWARNINGS'] = 'ignore'
    try:
        defaults['LOGNAME'] = pwd.getpwuid(os.getuid()).pw_name  # nipype uses it in names of jobs
    except KeyError:  # a container that runs as an unknown user: getpass.getuser() would fail
        defaults['LOGNAME'] = 'ctpprep'
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def _cgroup_folders(controller: str, root: Path) -> list[Path]:
    """List the folders of the control group of this process and of its parents, for both versions.

    A limit applies to all groups below. In a container, the path may be that of the host, of which
    only the root exists.
    """
    groups = root / 'sys' / 'fs' / 'cgroup'
    folders = [groups, groups / controller]
    with contextlib.suppress(OSError):
        for line in (root / 'proc' / 'self' / 'cgroup').read_text().splitlines():
            _, names, path = line.split(':', 2)
            roots = [groups, groups / 'unified'] if not names else []
            if controller in names.split(','):
                roots = [groups / controller, groups / names]
            for root_ in roots:
                group = root_ / path.lstrip('/')
                parents = [parent for parent in group.parents if parent.is_relative_to(root_)]
                folders += [root_, group, *parents]
    return list(dict.fromkeys(folders))


def _read_numbers(folder: Path, names: tuple[str, ...] | list[str]) -> list[float]:
    """Read the integers in some files, without 'max' and -1, which mean that there is no limit."""
    words: list[str] = []
    with contextlib.suppress(OSError):
        for name in names:
            words += (folder / name).read_text().split()
    return [float(word) for word in words if word.isdigit()]
