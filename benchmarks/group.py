# SPDX-License-Identifier: Apache-2.0
"""Time and memory of the group level for a cohort of the size of the paper's.

    python benchmarks/group.py OUT_DIR                  # 3,165 participants
    python benchmarks/group.py OUT_DIR --participants 500

The tables of one real series, from the output folder of an earlier run, are written for many
participants, with other volumes for each, every hundredth failed. Then the group level runs three
times: first, again, and after one more participant.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from ctpprep.group import TABLES
from ctpprep.group.series import SIDECARS

PAPER = 3165  # scans of Rau et al., AJNR 2024;45:277
LIMITS = {'seconds': 20.0, 'megabytes': 500.0}


def find_example(out_dir: Path) -> dict[str, Path]:
    """Find the tables, and the sidecars with settings, of the first series that has all of them."""
    for path in sorted(out_dir.glob(f'sub-*/**/*{TABLES["group_volumes.tsv"]}')):
        prefix = path.name.removesuffix(TABLES['group_volumes.tsv'])
        found = {
            ending: path.with_name(prefix + ending) for ending in (*TABLES.values(), *SIDECARS)
        }
        if all(each.is_file() for each in found.values()):
            return found
    raise SystemExit(f'no series with its tables and sidecars in {out_dir}')


def write_participant(site: Path, label: str, example: dict[str, Path], rng) -> None:
    """Write the tables and sidecars of one participant; volumes are those of the example, scaled."""
    folder = site / 'out' / f'sub-{label}' / 'ct'
    folder.mkdir(parents=True)
    flow, share = rng.gamma(1.0, 10.0), rng.uniform(0.5, 1.0)
    for ending in SIDECARS:
        os.link(example[ending], folder / f'sub-{label}{ending}')
    for ending in TABLES.values():
        path = example[ending]
        with path.open(newline='') as stream:
            rows = list(csv.DictReader(stream, delimiter='\t'))
        for row in rows:
            if row.get('measure') == 'volume' and row['region'] == 'core':
                local = row['normalization'] == 'local'
                row['volume_ml'] = f'{flow * (share if local else 1):.4f}'
        stem = folder / f'sub-{label}{ending.removesuffix(".tsv")}'
        with stem.with_suffix('.tsv').open('w', newline='') as stream:
            writer = csv.DictWriter(stream, list(rows[0]), delimiter='\t', lineterminator='\n')
            writer.writeheader()
            writer.writerows(rows)
        if not stem.with_suffix('.json').exists():
            os.link(path.with_suffix('.json'), stem.with_suffix('.json'))


def write_status(site: Path, label: str, state: str) -> None:
    entry = {'Series': f'sub-{label}', 'State': state, 'Cause': 'no frame times'}
    path = site / 'out' / 'logs' / f'sub-{label}_status.json'
    path.write_text(json.dumps({'Series': [entry]}, indent=2))


def make_site(site: Path, count: int, out_dir: Path) -> dict[str, Path]:
    """Make the dataset and the derivatives of a cohort."""
    # beside the copies, for links
    example = {}
    (site / 'example').mkdir()
    for ending, path in find_example(out_dir).items():
        for each in (path, path.with_suffix('.json')):
            (site / 'example' / each.name).write_bytes(each.read_bytes())
        example[ending] = site / 'example' / path.name
    (site / 'out' / 'logs').mkdir(parents=True)
    rng = np.random.default_rng(0)
    lines = ['participant_id\tage\tsex\tmicroangiopathy']
    for i in range(count):
        label = f'{i + 1:05}'
        (site / 'raw' / f'sub-{label}').mkdir(parents=True)
        failed = i % 100 == 99
        if not failed:
            write_participant(site, label, example, rng)
        write_status(site, label, 'failed' if failed else 'succeeded')
        lines.append(
            f'sub-{label}\t{rng.integers(40, 95)}\t{"FM"[i % 2]}\t{("no", "yes")[i % 9 == 0]}'
        )
    (site / 'raw' / 'participants.tsv').write_text('\n'.join(lines) + '\n')
    return example


def run_group(site: Path) -> tuple[float, float]:
    """Run the group level; s and peak MB."""
    command = [sys.executable, '-m', 'ctpprep', str(site / 'raw'), str(site / 'out'), 'group']
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, told, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    if told:
        raise SystemExit(process.stderr.read().decode())
    return seconds, usage.ru_maxrss / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('out_dir', type=Path, help='output folder of an earlier run')
    parser.add_argument('--participants', type=int, default=PAPER, metavar='N')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix='ctpprep-group-') as folder:
        site = Path(folder)
        example = make_site(site, args.participants, args.out_dir)
        print(f'| {args.participants} participants | s | peak, MB |\n|---|---|---|')
        worst = dict.fromkeys(LIMITS, 0.0)
        for what in ('first', 'again', 'one more'):
            if what == 'one more':
                write_participant(site, 'more', example, np.random.default_rng(1))
                write_status(site, 'more', 'succeeded')
            seconds, megabytes = run_group(site)
            print(f'| {what} | {seconds:.1f} | {megabytes:.0f} |', flush=True)
            worst = {'seconds': max(worst['seconds'], seconds),
                     'megabytes': max(worst['megabytes'], megabytes)}  # fmt: skip
        size = (site / 'out' / 'group.html').stat().st_size / 1e6
        print(f'\ngroup.html: {size:.1f} MB')
    return int(any(worst[name] > LIMITS[name] for name in LIMITS))


if __name__ == '__main__':
    sys.exit(main())
