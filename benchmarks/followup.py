# SPDX-License-Identifier: Apache-2.0
"""Is the planted answer found: a cohort of heads with follow-up, in a tree like ISLES'24.

    python benchmarks/followup.py                     # 40 heads, half with microangiopathy
    python benchmarks/followup.py --heads 8

Heads with (MA) and without microangiopathy, of which every fourth does not reperfuse, are written with
non-contrast CT, MR images and final infarct, half of them in the space of the MR scanner. They go
through the app by the commands of the tutorial. Printed are planted and measured answers: volume and
place of the follow-up lesion, advantage of local normalization, what matches the lesion in those who
did not reperfuse. Exit code 1 when a head lacks its table.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from accuracy import SCAN, make_parser, output_folder, parse, run_app

from ctpprep.phantom import PhantomSettings, make_phantom
from ctpprep.phantom.followup import FollowUpSettings, make_followup, write_isles

LESIONS = ('small', 'large', 'tiny', 'large')
FIRST_SEED = 501
GROUPS = ('MA', 'NoMA')
# growth of the infarct without reperfusion, as a share of the penumbra
GROWTH = 0.9


def plan(n_heads: int) -> list[tuple[str, PhantomSettings, FollowUpSettings, str]]:
    """List label, head, follow-up and space; in pairs with and without microangiopathy."""
    heads = []
    for i in range(n_heads):
        pair = i // 2
        settings = PhantomSettings(
            seed=FIRST_SEED + i, lesion=LESIONS[pair % len(LESIONS)],
            lesion_side=('left', 'right')[pair % 2], microangiopathy=0.8 * (i % 2 == 0), **SCAN,
        )  # fmt: skip
        rng = np.random.default_rng(FIRST_SEED + i)
        course = FollowUpSettings(
            reperfused=pair % 4 != 3, growth=GROWTH, tilt_deg=tuple(rng.uniform(-8, 8, 3)),
            shift_mm=tuple(rng.uniform(-10, 10, 3)), seed=i,
        )  # fmt: skip
        heads.append((f'stroke{i + 1:04}', settings, course, ('ncct', 'mri')[pair % 2]))
    return heads


def make_tree(heads, root: Path) -> dict[str, dict]:
    """Write the heads that are missing, and participants.tsv; return what was planted, by label."""
    planted = {}
    for label, settings, course, space in heads:
        record = root / f'{label}.json'
        if not record.exists():
            phantom = make_phantom(settings)
            followup = make_followup(phantom, course)
            write_isles(phantom, followup, root, label, space)
            voxel_ml = np.prod(settings.voxel_size_mm) / 1000
            volumes = {
                'core_ml': phantom.truth['core'].sum() * voxel_ml,
                'infarct_ml': followup.infarct.sum() * voxel_ml,
                'hypoperfusion_ml': phantom.truth['hypoperfusion'].sum() * voxel_ml,
                'false_core_ml': float((phantom.truth['microangiopathy']).sum() * voxel_ml),
            }
            facts = {'group': GROUPS[settings.microangiopathy == 0], 'space': space,
                     'reperfused': course.reperfused}  # fmt: skip
            record.write_text(json.dumps(volumes | facts))
        planted[label] = json.loads(record.read_text())
    lines = ['participant_id\tmicroangiopathy\tmTICI']
    for label, facts in planted.items():
        grade = '3' if facts['reperfused'] else '0'
        lines.append(f'sub-{label}\t{"yes" if facts["group"] == "MA" else "no"}\t{grade}')
    (root / 'raw_data' / 'participants.tsv').write_text('\n'.join(lines) + '\n')
    return planted


def read_agreement(out_dir: Path, label: str) -> tuple[pd.DataFrame, dict] | None:
    """Read table and sidecar of a head."""
    path = out_dir / f'sub-{label}/ses-01/ct/sub-{label}_ses-01_desc-followup_morph.tsv'
    if not path.is_file():
        return None
    measured = json.loads(path.with_suffix('.json').read_text())['Measured']
    return pd.read_csv(path, sep='\t'), measured


def print_heads(planted: dict[str, dict], out_dir: Path) -> int:
    """Print one row per head; return the number of heads without figures."""
    missing = 0
    print(
        '| head | group | reperfused | space | infarct planted, mL | on the grid of the maps | Dice core '
        'global | local | hypoperfusion |\n|---|---|---|---|---|---|---|---|---|'
    )
    for label, facts in planted.items():
        agreement = read_agreement(out_dir, label)
        start = f'| {label} | {facts["group"]} | {"yes" if facts["reperfused"] else "no"} | {facts["space"]}'
        if agreement is None or agreement[1]['followup_left_out']:
            reason = 'no table' if agreement is None else agreement[1]['followup_left_out']
            print(f'{start} | {facts["infarct_ml"]:.1f} | {reason} | | | |')
            missing += 1
            continue
        table, _ = agreement
        rows = table[table['measure'] == 'segmentation'].set_index(['quantity', 'normalization'])
        dice = [
            rows['dice'].get(key, np.nan)
            for key in (('core', 'global'), ('core', 'local'), ('hypoperfusion', np.nan))
        ]
        volume = rows['followup_ml'].iloc[-1]
        print(
            f'{start} | {facts["infarct_ml"]:.1f} | {volume:.1f} | '
            + ' | '.join(f'{value:.2f}' for value in dice)
            + ' |'
        )
    return missing


def print_answers(out_dir: Path) -> None:
    """Print what was planted beside what the group level found."""
    table = pd.read_csv(out_dir / 'group_followup_statistics.tsv', sep='\t')

    def find(set_name, quantity, which, figure, statistic):
        names = {'set': set_name, 'quantity': quantity, 'normalization': which, 'figure': figure,
                 'statistic': statistic}  # fmt: skip
        rows = table
        for column, value in names.items():
            rows = rows[rows[column].fillna('n/a') == value]
        if rows.empty:
            return 'no such set'
        row = rows.iloc[0]
        if np.isnan(row['value']):
            return row['reason']
        text = f'{row["value"]:.3g}'
        if not np.isnan(row['ci_low']):
            text += f' [{row["ci_low"]:.3g} to {row["ci_high"]:.3g}]'
        return f'{text} (n = {row["n"]})'

    ma, no_ma = 'microangiopathy, reperfused', 'no microangiopathy, reperfused'
    difference = ('rcbf', 'local - global', 'dice')
    best = ('dice', 'best threshold')
    rows = [
        ('local better in MA: Dice at 30 %, local - global above 0',
         find(ma, *difference, 'difference at 30%')),
        ('the same at the best thresholds, held out',
         find(ma, *difference, 'difference at best thresholds')),
        ('NoMA at 30 %: may differ, by the threshold alone', find(no_ma, *difference, 'difference at 30%')),
        ('no advantage in NoMA at the best thresholds, held out: about 0',
         find(no_ma, *difference, 'difference at best thresholds')),
        ('best global threshold, NoMA', find(no_ma, 'rcbf', 'global', *best)),
        ('best local threshold, NoMA: the same', find(no_ma, 'rcbf', 'local', *best)),
        ('best global threshold, MA: lower', find(ma, 'rcbf', 'global', *best)),
        ('best local threshold, MA: as in NoMA', find(ma, 'rcbf', 'local', *best)),
        ('reperfused: Dice of the local core', find('reperfused', 'rcbf', 'local', 'dice', 'mean')),
        ('reperfused: Dice of hypoperfusion, lower',
         find('reperfused', 'tmax', 'n/a', 'dice', 'mean')),
        ('not reperfused: Dice of the local core',
         find('not reperfused', 'rcbf', 'local', 'dice', 'mean')),
        ('not reperfused: Dice of hypoperfusion, higher',
         find('not reperfused', 'tmax', 'n/a', 'dice', 'mean')),
    ]  # fmt: skip
    print('\n| planted | measured [95 % interval] |\n|---|---|')
    for words, measured in rows:
        print(f'| {words} | {measured} |')


def main(argv) -> int:
    parser = make_parser(__doc__)
    parser.add_argument('--heads', type=int, default=40, help='number of heads (40)')
    args, extra = parse(parser, argv)
    heads = plan(args.heads)
    with output_folder(args, 'followup') as folder:
        root = (args.data or folder / 'isles').absolute()
        (root / 'raw_data').mkdir(parents=True, exist_ok=True)
        planted = make_tree(heads, root)
        out_dir, raw = folder / 'out', root / 'raw_data'
        if not args.score_only:
            options = ['--frame-interval', str(SCAN.get('frame_interval', 1.5)), *extra]
            run_app(raw, out_dir, folder / 'work', list(planted), args.jobs, options)
        group = [sys.executable, '-m', 'ctpprep', str(raw), str(out_dir), 'group']
        subprocess.run(group, check=True)
        missing = print_heads(planted, out_dir)
        print_answers(out_dir)
    if missing:
        print(f'\nFAIL: {missing} of {len(planted)} heads lack figures')
    return 1 if missing else 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
