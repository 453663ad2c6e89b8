# SPDX-License-Identifier: Apache-2.0
"""How one call bears many series: the dry run of 3,000, and memory and open files over 100.

    python benchmarks/load.py
    python benchmarks/load.py --planned 500 --series 0

The files are those of a small head (40 x 40 x 7 voxels, 16 frames), linked to one another. The dry run
is timed as a whole. Of the run, the command and its processes are looked at every half second: proportional
set size (memory shared with others is counted in part) and open files, each as the median over the series
5 to 24 of those that have ended, and over the last 20.
"""

import argparse
import contextlib
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from speed import machine, pss_bytes

from ctpprep.phantom import PhantomSettings, make_phantom
from ctpprep.phantom.dataset import write_bids

PLAN_TARGET = 60.0  # s
GROWTH_TARGET = 0.1  # of memory
SMALL = PhantomSettings(
    seed=11, matrix=40, voxel_size_mm=(5.0, 5.0, 10.0), n_slices=7, n_frames=16, frame_interval=2.0,
    motion_mm=1.0, lesion='large', lesion_side='left',
)  # fmt: skip


def make_dataset(folder: Path, participants: int) -> Path:
    """Write a dataset whose series are links to one."""
    first = write_bids(make_phantom(SMALL), folder / 'first', '1').parent
    raw = folder / f'raw{participants}'
    for number in range(1, participants + 1):
        home = raw / f'sub-{number:04d}' / 'ct'
        home.mkdir(parents=True)
        for path in first.iterdir():
            os.link(path, home / path.name.replace('sub-1', f'sub-{number:04d}'))
    return raw


def command(raw: Path, out: Path, *options: str) -> list[str]:
    return [sys.executable, '-m', 'ctpprep', str(raw), str(out), 'participant', *options]


def time_plan(raw: Path, out: Path) -> tuple[float, float, int]:
    """Time a dry run: wall and processor time in s, and lines that it printed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.time()
    plan = subprocess.run(
        command(raw, out, '--dry-run'), capture_output=True, text=True, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.time() - began, cpu, len(plan.stdout.splitlines())


def watch_run(raw: Path, out: Path, nprocs: int) -> list[tuple[int, float, int]]:
    """Run all series; return series that have ended, memory in GB and open files, twice a second."""
    rows = []
    with (out.parent / 'log').open('w') as log:
        run = psutil.Popen(command(raw, out, '--nprocs', str(nprocs)), stdout=log, stderr=log)
        while run.poll() is None:
            with contextlib.suppress(psutil.Error):
                members = [run, *run.children(recursive=True)]
                files = sum(member.num_fds() for member in members)
                memory = sum(pss_bytes(member) for member in members) / 1e9
                rows.append((len(list(out.glob('sub-*.html'))), memory, files))
            time.sleep(0.5)
    if run.returncode:
        raise RuntimeError((out.parent / 'log').read_text()[-2000:])
    return rows


def main(argv) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('--planned', type=int, default=3000, metavar='N', help='of the dry run (default: 3000)')
    add('--series', type=int, default=100, metavar='N', help='of the run (default: 100)')
    add('--nprocs', type=int, default=1, metavar='N', help='of the run (default: 1)')
    args = parser.parse_args(argv)
    print(machine())
    met = True
    with tempfile.TemporaryDirectory(prefix='ctpprep-load-') as name:
        folder = Path(name)
        if args.planned:
            wall, cpu, lines = time_plan(make_dataset(folder, args.planned), folder / 'out')
            print(
                f'dry run of {args.planned}: {wall:.0f} s, {cpu:.0f} s of processors, {lines} lines'
            )
            met &= wall <= PLAN_TARGET
        if args.series:
            began = time.time()
            rows = watch_run(make_dataset(folder, args.series), folder / 'out', args.nprocs)
            print(f'run of {args.series}: {(time.time() - began) / args.series:.1f} s per series')
            early = [row for row in rows if 5 <= row[0] < 25]
            late = [row for row in rows if args.series - 20 <= row[0] < args.series]
            for column, what in ((1, 'memory, GB'), (2, 'open files')):
                start, end = (
                    statistics.median(row[column] for row in part) for part in (early, late)
                )
                print(f'{what}: {start:.3g} early, {end:.3g} late, {end / start - 1:+.1%}')
                met &= end / start - 1 <= (GROWTH_TARGET if column == 1 else 0)
    print('met' if met else 'missed')
    return 0 if met else 1


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
