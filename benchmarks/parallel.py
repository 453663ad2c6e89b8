# SPDX-License-Identifier: Apache-2.0
"""Two participants in one call: the time with --nprocs 2 beside the time with --nprocs 1.

    python benchmarks/parallel.py
    python benchmarks/parallel.py --size 256 --pairs 5

Runs of one and of two processes take turns, each in folders of its own, so that what else the machine does
falls on both. On a shared machine the ratio of wall times is too high: processor time and load are told.
"""

import argparse
import dataclasses
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from accuracy import default_data_dir, make_heads
from speed import SIZES, MemoryWatch, machine

TARGET = 0.65
LABELS = ('301', '302')


def time_run(bids_dir: Path, nprocs: int) -> tuple[float, float]:
    """Run the app on both participants.

    Returns
    -------
    wall, cpu : float
        s; processor time is that of all processes.
    """
    with tempfile.TemporaryDirectory(prefix='ctpprep-parallel-') as folder:
        command = [sys.executable, '-m', 'ctpprep', str(bids_dir), f'{folder}/out', 'participant',
                   '-w', f'{folder}/work', '--nprocs', str(nprocs),
                   '--participant-label', *LABELS]  # fmt: skip
        began = time.time()
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        watch = MemoryWatch(process.pid)
        watch.start()
        said = process.communicate()[0]
        wall = time.time() - began
        watch.ended.set()
        watch.join()
        if process.returncode:
            raise RuntimeError(said)
        return wall, watch.cpu_s()


def main(argv) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('--size', choices=list(SIZES), default='128', help='matrix (default: 128)')
    add('--pairs', type=int, default=3, metavar='N', help='runs of each kind (default: 3)')
    args = parser.parse_args(argv)
    print(machine())
    bids_dir = default_data_dir().absolute()
    heads = {label: dataclasses.replace(SIZES[args.size], seed=int(label)) for label in LABELS}
    bids_dir = bids_dir.with_name(f'{bids_dir.name}-pair-{args.size}')
    make_heads(bids_dir, heads, 1)
    print('\n| pair | 1 process, s (CPU s) | 2 processes, s (CPU s) | ratio | load |\n'
          '|---|---|---|---|---|')  # fmt: skip
    walls: dict[int, list[float]] = {1: [], 2: []}
    for pair in range(args.pairs):
        told = []
        for nprocs in walls:
            wall, cpu = time_run(bids_dir, nprocs)
            walls[nprocs].append(wall)
            told.append(f'{wall:.1f} ({cpu:.0f})')
        ratio = walls[2][-1] / walls[1][-1]
        print(f'| {pair + 1} | {told[0]} | {told[1]} | {ratio:.2f} | {os.getloadavg()[0]:.1f} |',
              flush=True)  # fmt: skip
    ratio = statistics.median(walls[2]) / statistics.median(walls[1])
    met = ratio <= TARGET
    print(
        f'\nratio of medians {ratio:.2f}, wanted at most {TARGET:g}: {"met" if met else "missed"}'
    )
    return 0 if met else 1


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
