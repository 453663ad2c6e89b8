# SPDX-License-Identifier: Apache-2.0
"""What a series costs, and what 3,000 would: core-hours, memory, disk, files, and overhead.

    python benchmarks/cost.py
    python benchmarks/cost.py --sizes 256 --repeats 1 --series 500

Each series is run with two processes, with one, and with one by ``shares.py``, which notes on what
its time was spent. **Overhead** is the wall time of that whole command, from its start to its end, minus
the time inside numerical code: functions of ctpprep.perfusion and of ants. So all else is overhead:
start and imports, reading the series, nipype, writing, figures, report, provenance. Work and output
folders are new for each run. Of several runs the median counts; processor time depends less on what
else the machine does.
"""

import argparse
import json
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from accuracy import default_data_dir
from speed import LARGE, SIZES, machine, make_series, run_watched

TARGET = 8.0  # s of overhead
DEFAULT = ('256', '512x320')
SHARES = ('numerical', 'imports', 'reading', 'writing', 'figures', 'report', 'other')
RUNS = {
    '2 processes': ('-m', 'ctpprep'),
    '1 process': ('-m', 'ctpprep'),
    'shares': (str(Path(__file__).with_name('shares.py')),),
}
HEADER = """\
| series | core-hours, computed | reserved, 1 core | reserved, 2 cores | work, GB | outputs, GB | \
files of work | of outputs |
|---|---|---|---|---|---|---|---|"""


@dataclass(frozen=True)
class Cost:
    """Of one run: times in s, memory and disk in GB, files."""

    wall: float
    cpu: float
    pss: float
    rss: float
    work: float
    out: float
    work_files: int
    out_files: int
    shares: dict


def measure(kind: str, bids_dir: Path, label: str) -> Cost:
    """Run the app on one series.

    Raises
    ------
    RuntimeError
        When the command fails.
    """
    with tempfile.TemporaryDirectory(prefix='ctpprep-cost-') as folder:
        top = Path(folder)
        own = [str(top / 'shares.json')] if kind == 'shares' else []
        command = [sys.executable, *RUNS[kind], *own, str(bids_dir), str(top / 'out'), 'participant',
                   '--participant-label', label, '-w', str(top / 'work'),
                   '--nprocs', '2' if kind.startswith('2') else '1']  # fmt: skip
        with open(top / 'log', 'w+') as log:
            code, wall, watch = run_watched(command, log)
            if code:
                log.seek(0)
                raise RuntimeError(log.read())
        shares = json.loads((top / 'shares.json').read_text()) if own else {}
        work, work_files = disk(top / 'work')
        out, out_files = disk(top / 'out')
        peaks = watch.peak_gb(), watch.peak_rss / 1e9
        return Cost(wall, watch.cpu_s(), *peaks, work, out, work_files, out_files, shares)


def disk(folder: Path) -> tuple[float, int]:
    """Sum up the allocated disk of a folder in GB, and count its files."""
    files = [path for path in folder.rglob('*') if path.is_file() and not path.is_symlink()]
    return sum(path.stat().st_blocks for path in files) * 512 / 1e9, len(files)


def middle(runs: list[Cost], name: str) -> float:
    """Take the median of a figure over runs."""
    return statistics.median(getattr(run, name) for run in runs)


def report(shape, runs: dict[str, list[Cost]]) -> float:
    """Print the tables of one series; return its overhead in s."""
    print(f'\n### {" x ".join(map(str, shape))}\n\n| | 2 processes | 1 process |\n|---|---|---|')
    two, one = runs['2 processes'], runs['1 process']
    for name, title, form in (
        ('wall', 'wall, s', '.1f'), ('cpu', 'processor, s', '.1f'),
        ('pss', 'peak memory (PSS), GB', '.2f'), ('rss', 'peak memory (sum of RSS), GB', '.2f'),
        ('work', 'work folder, GB', '.3f'), ('work_files', 'files in it', '.0f'),
        ('out', 'outputs, GB', '.3f'), ('out_files', 'files', '.0f'),
    ):  # fmt: skip
        print(f'| {title} | {middle(two, name):{form}} | {middle(one, name):{form}} |')
    print('\n| share of one process | wall, s | processor, s |\n|---|---|---|')
    told = runs['shares']
    spent = {
        share: [
            statistics.median(run.shares.get(share, [0, 0])[i] for run in told) for i in (0, 1)
        ]
        for share in SHARES
    }
    for share, (wall, cpu) in spent.items():
        print(f'| {share} | {wall:.1f} | {cpu:.1f} |')
    overhead = statistics.median(run.wall - run.shares['numerical'][0] for run in told)
    cpu = sum(each[1] for share, each in spent.items() if share != 'numerical')
    print(f'| **whole command - numerical = overhead** | **{overhead:.1f}** | **{cpu:.1f}** |')
    return overhead


def scale(shape, runs: dict[str, list[Cost]], series: int) -> None:
    """Print what many such series take."""
    two, one = runs['2 processes'], runs['1 process']
    print(
        f'| {" x ".join(map(str, shape))} | {series * middle(two, "cpu") / 3600:.0f} | '
        f'{series * middle(one, "wall") / 3600:.0f} | {series * 2 * middle(two, "wall") / 3600:.0f} | '
        f'{series * middle(two, "work"):.0f} | {series * middle(two, "out"):.0f} | '
        f'{series * middle(two, "work_files"):.0f} | {series * middle(two, "out_files"):.0f} |'
    )


def main(argv) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('--sizes', nargs='*', choices=[*SIZES, *LARGE], default=DEFAULT)
    add('--repeats', type=int, default=3, metavar='N', help='runs of each kind (default: 3)')
    add('--series', type=int, default=3000, metavar='N', help='scaled to (default: 3000)')
    args = parser.parse_args(argv)
    print(machine())
    measured, met = {}, True
    for label, (folder, shape) in make_series(args.sizes, default_data_dir().absolute()).items():
        runs = {kind: [] for kind in RUNS}
        for _ in range(args.repeats):  # in turns: what else the machine does falls on all
            for kind, done in runs.items():
                done.append(measure(kind, folder, label))
        overhead = report(shape, runs)
        print(f'\noverhead {overhead:.1f} s, wanted at most {TARGET:g}; {machine()}', flush=True)
        measured[shape] = runs
        met &= overhead <= TARGET
    print(f'\n### {args.series} series\n\n{HEADER}')
    for shape, runs in measured.items():
        scale(shape, runs, args.series)
    return 0 if met else 1


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
