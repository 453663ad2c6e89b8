# SPDX-License-Identifier: Apache-2.0
"""Cores, memory and environment of this process."""

import atexit
import contextlib
import os
import pwd
import shutil
import tempfile
from pathlib import Path

from ctpprep.settings import RunSettings

MEMORY_FILES = ('memory.max', 'memory.limit_in_bytes')  # of control groups version 2 and 1
CORE_FILES = (('cpu.max',), ('cpu.cfs_quota_us', 'cpu.cfs_period_us'))


def available_cores(root: Path = Path('/')) -> int:
    """Count the cores this process may use, by its affinity, its control group and SLURM's grant.

    Parameters
    ----------
    root : Path
        Root of the file system, for tests.

    Returns
    -------
    int
        At least 1; parts of a core do not count.
    """
    has_affinity = hasattr(os, 'sched_getaffinity')  # Linux
    cores = float(len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1)
    for folder in _cgroup_folders('cpu', root):
        for names in CORE_FILES:
            numbers = _read_numbers(folder, names)
            if len(numbers) == 2 and min(numbers) > 0:  # quota and period, us
                cores = min(cores, numbers[0] / numbers[1])
    return max(1, int(min(cores, _slurm('CPUS_ON_NODE') or cores)))


def default_processes(root: Path = Path('/')) -> int:
    """Choose the number of processes: all cores, or those of a task of SLURM.

    Parameters
    ----------
    root : Path
        Root of the file system, for tests.

    Returns
    -------
    int
    """
    cores = available_cores(root)
    return int(min(cores, _slurm('CPUS_PER_TASK') or cores))


def available_memory_gb(root: Path = Path('/')) -> float:
    """Tell the memory this process may use: the least of machine, control group and SLURM's grant.

    Parameters
    ----------
    root : Path
        Root of the file system, for tests.

    Returns
    -------
    float
        GB.
    """
    limits = [os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9]
    for folder in _cgroup_folders('memory', root):
        limits += [value / 1e9 for name in MEMORY_FILES for value in _read_numbers(folder, [name])]
    granted = [_slurm('MEM_PER_NODE')]  # MB; 0 stands for all
    cores = _slurm('CPUS_PER_TASK') or _slurm('CPUS_ON_NODE') or 1
    granted.append(_slurm('MEM_PER_CPU') * cores)
    return min([*limits, *(each / 1e3 for each in granted if each)])


def set_environment(run: RunSettings, level: str = 'participant') -> None:
    """Set what libraries read when they are imported; workers inherit it.

    Caches go to the work folder since a home may be read-only, or to a temporary one where no step
    runs; nothing asks the network.
    """
    with_threads = ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS')
    for name in (*with_threads, 'ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS'):
        os.environ[name] = str(run.omp_nthreads)
    caches = run.work_dir
    if level == 'group' or run.dry_run or run.boilerplate_only or run.reports_only:
        caches = Path(tempfile.mkdtemp(prefix='ctpprep-'))
        atexit.register(shutil.rmtree, caches, ignore_errors=True)
    defaults = {
        'MPLBACKEND': 'Agg',
        'MPLCONFIGDIR': str(caches / 'matplotlib'),
        'NIPYPE_CONFIG_DIR': str(caches / 'nipype'),
        'NIPYPE_NO_ET': '1',
        'NO_ET': '1',
        'TEMPLATEFLOW_AUTOUPDATE': '0',
    }
    # whatever a user has: a folder that is not described gets templates at import
    os.environ['TEMPLATEFLOW_HOME'] = str(caches / 'templateflow')
    if run.verbosity == 0:
        defaults['PYTHONWARNINGS'] = 'ignore'
    try:
        defaults['LOGNAME'] = pwd.getpwuid(os.getuid()).pw_name  # nipype names jobs by it
    except KeyError:  # a container run as any user: getpass.getuser() would fail
        defaults['LOGNAME'] = 'ctpprep'
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def _slurm(name: str) -> float:
    """Read a number that SLURM gives; 0 if there is none."""
    text = os.environ.get(f'SLURM_{name}', '')
    return float(text) if text.isdigit() else 0.0


def _cgroup_folders(controller: str, root: Path) -> list[Path]:
    """List the folders of this process' control group and those above it, whichever version.

    A limit holds for all groups below it. Inside of a container the path may be that of the host:
    then its root alone is there.
    """
    groups = root / 'sys' / 'fs' / 'cgroup'
    found = [groups, groups / controller]
    with contextlib.suppress(OSError):
        for line in (root / 'proc' / 'self' / 'cgroup').read_text().splitlines():
            _, names, path = line.split(':', 2)
            tops = [groups, groups / 'unified'] if not names else []
            if controller in names.split(','):
                tops = [groups / controller, groups / names]
            for top in tops:
                own = top / path.lstrip('/')
                found += [top, own, *(up for up in own.parents if up.is_relative_to(top))]
    return list(dict.fromkeys(found))


def _read_numbers(folder: Path, names: tuple[str, ...] | list[str]) -> list[float]:
    """Read the whole numbers of some files; 'max' and -1 stand for no limit and are left out."""
    words: list[str] = []
    with contextlib.suppress(OSError):
        for name in names:
            words += (folder / name).read_text().split()
    return [float(word) for word in words if word.isdigit()]
