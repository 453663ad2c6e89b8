# SPDX-License-Identifier: Apache-2.0
"""Time and memory of the group level for a cohort of the size of the paper's.

    python benchmarks/group.py OUT_DIR                  # 3,165 participants
    python benchmarks/group.py OUT_DIR --participants 500
    python benchmarks/group.py OUT_DIR --maps         # also follow-up lesions and template space

The tables of one real series, from the output folder of an earlier run, are written for many
participants, with other volumes for each, every hundredth failed. Then the group level runs three
times: first, again, and after one more participant. With ``--maps``, the table of its follow-up lesion
and its masks in template space are added, in 40 versions (masks shifted, core removed and kept, figures
changed) that participants share as links, and the group level runs once.
"""

import argparse
import csv
import gzip
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nb
import numpy as np
import pandas as pd

from ctpprep.group import TABLES
from ctpprep.group.followup_tables import ENDING as FOLLOWUP
from ctpprep.group.series import SIDECARS
from ctpprep.group.templates import MASKS, REGIONS

PAPER = 3165  # scans of Rau et al., AJNR 2024;45:277
LIMITS = {'seconds': 20.0, 'megabytes': 500.0}
LIMITS_MAPS = {'seconds': 600.0, 'megabytes': 2000.0}
N_VERSIONS = 40
MOST_SHIFT = 6  # of masks, voxels
# columns of the table of a follow-up lesion that are fractions
FRACTIONS = ('dice', 'sensitivity', 'specificity', 'precision', 'auc', 'brier')


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
    lines = ['participant_id\tage\tsex\tmicroangiopathy\tmTICI']
    for i in range(count):
        label = f'{i + 1:05}'
        (site / 'raw' / f'sub-{label}').mkdir(parents=True)
        failed = i % 100 == 99
        if not failed:
            write_participant(site, label, example, rng)
        write_status(site, label, 'failed' if failed else 'succeeded')
        lines.append(
            f'sub-{label}\t{rng.integers(40, 95)}\t{"FM"[i % 2]}\t{("no", "yes")[i % 9 == 0]}'
            f'\t{("0", "3", "2b")[i % 3]}'
        )
    (site / 'raw' / 'participants.tsv').write_text('\n'.join(lines) + '\n')
    return example


def make_versions(out_dir: Path, folder: Path) -> list[list[Path]]:
    """Write versions of the files of a series that only pages with maps read; list those of each."""
    for table in sorted(out_dir.glob(f'sub-*/**/*{FOLLOWUP}')):
        prefix = table.name.removesuffix(FOLLOWUP)
        core = MASKS['core_local']
        spaces = sorted(table.parent.glob(f'{prefix}_space-*_res-*_{core}.nii.gz'))
        regions = table.with_name(prefix + REGIONS)
        if spaces and regions.is_file():
            break
    else:
        raise SystemExit(f'no series with a follow-up lesion and template space in {out_dir}')
    space = spaces[0].name.removeprefix(f'{prefix}_').removesuffix(f'_{core}.nii.gz')
    names = {key: f'{space}_{ending}.nii.gz' for key, ending in MASKS.items()}
    images = {key: nb.load(table.with_name(f'{prefix}_{name}')) for key, name in names.items()}
    rng = np.random.default_rng(2)
    return [
        _write_version(folder / f'{i:02}', images, names, table, regions, rng)
        for i in range(N_VERSIONS)
    ]


def _write_version(folder, images, names, table, regions, rng) -> list[Path]:
    folder.mkdir()
    shift = rng.integers(-MOST_SHIFT, MOST_SHIFT + 1, 3)
    masks = {key: np.asarray(image.dataobj) > 0 for key, image in images.items()}
    masks |= {
        key: np.roll(mask, shift, (0, 1, 2)) & masks['brain']
        for key, mask in masks.items()
        if key != 'brain'
    }
    if rng.random() < 0.5:  # core that local normalization removes, elsewhere
        masks['core_global'] |= np.roll(masks['core_local'], 12, 1) & masks['brain']
    for key, image in images.items():
        copy = nb.Nifti1Image(masks[key].astype(np.uint8), image.affine)
        stream = io.BytesIO()
        copy.to_stream(stream)
        (folder / f'_{names[key]}').write_bytes(gzip.compress(stream.getvalue(), 5))
    for path, columns in ((table, FRACTIONS), (regions, ())):
        frame = pd.read_csv(path, sep='\t')
        scaled = [name for name in frame if name.endswith('_ml')]
        frame[scaled] *= rng.gamma(2.0, 0.5)
        for name in columns:
            frame[name] = np.clip(frame[name] * rng.normal(1, 0.05), 0, 1)
        ending = FOLLOWUP if path is table else REGIONS
        frame.to_csv(folder / ending, sep='\t', index=False, na_rep='n/a', float_format='%.4f')
    return sorted(folder.iterdir())


def run_group(site: Path) -> tuple[float, float, float]:
    """Run the group level; s, s of processor, and peak MB."""
    command = [sys.executable, '-m', 'ctpprep', str(site / 'raw'), str(site / 'out'), 'group']
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, told, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    if told:
        raise SystemExit(process.stderr.read().decode())
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('out_dir', type=Path, help='output folder of an earlier run')
    parser.add_argument('--participants', type=int, default=PAPER, metavar='N')
    parser.add_argument(
        '--maps', action='store_true', help='add follow-up lesions and template space'
    )
    args = parser.parse_args()
    limits = LIMITS_MAPS if args.maps else LIMITS
    with tempfile.TemporaryDirectory(prefix='ctpprep-group-') as folder:
        site = Path(folder)
        example = make_site(site, args.participants, args.out_dir)
        if args.maps:
            (site / 'versions').mkdir()
            versions = make_versions(args.out_dir, site / 'versions')
            for i, folder in enumerate(sorted((site / 'out').glob('sub-*/ct'))):
                for path in versions[i % N_VERSIONS]:
                    os.link(path, folder / f'{folder.parent.name}{path.name}')
        print(
            f'| {args.participants} participants | s | processor, s | peak, MB |\n|---|---|---|---|'
        )
        worst = dict.fromkeys(limits, 0.0)
        for what in ('with maps',) if args.maps else ('first', 'again', 'one more'):
            if what == 'one more':
                write_participant(site, 'more', example, np.random.default_rng(1))
                write_status(site, 'more', 'succeeded')
            seconds, processor, megabytes = run_group(site)
            print(f'| {what} | {seconds:.1f} | {processor:.1f} | {megabytes:.0f} |', flush=True)
            worst = {'seconds': max(worst['seconds'], seconds),
                     'megabytes': max(worst['megabytes'], megabytes)}  # fmt: skip
        print()
        for path in sorted((site / 'out').glob('group*')):
            if path.is_file() and path.stat().st_size > 1e6:
                print(f'{path.name}: {path.stat().st_size / 1e6:.1f} MB')
    return int(any(worst[name] > limits[name] for name in limits))


if __name__ == '__main__':
    sys.exit(main())
