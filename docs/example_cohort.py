# SPDX-License-Identifier: Apache-2.0
"""A group page to look at: 300 participants whose core volumes are drawn by chance.

    python docs/example_cohort.py DEMO_OUTPUT FOLDER

All else is the tables of one series of the demo, copied: nobody was scanned and nothing was measured.
The local core is a share of the global one, smaller with microangiopathy; some have no core, and two
participants failed.
"""

import base64
import csv
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from ctpprep.group import TABLES

WARNING = (
    '<aside class="failure loud"><p><strong>Made-up volumes.</strong> They were drawn by chance to show this '
    'page. Nobody was scanned, and the difference of the groups was put in.</p></aside>'
)
COUNT = 300
FAILED = (120, 240)


def write_tables(example: Path, folder: Path, label: str, core: dict[str, float]) -> None:
    """Copy the tables of a series, with other cores."""
    folder.mkdir(parents=True)
    for ending in TABLES.values():
        (source,) = example.glob(f'*{ending}')
        with source.open(newline='') as stream:
            rows = list(csv.DictReader(stream, delimiter='\t'))
        for row in rows:
            if row.get('region') == 'core' and row['measure'] == 'volume':
                row['volume_ml'] = f'{core[row["normalization"]]:.4f}'
                row['ci_low_ml'] = row['ci_high_ml'] = 'n/a'
        target = folder / f'sub-{label}{ending}'
        with target.open('w', newline='') as stream:
            writer = csv.DictWriter(stream, list(rows[0]), delimiter='\t', lineterminator='\n')
            writer.writeheader()
            writer.writerows(rows)
        shutil.copy(source.with_suffix('.json'), target.with_suffix('.json'))


def make_cohort(example: Path, raw: Path, out: Path) -> None:
    """Make a dataset of participants and what ctpprep would have written of them."""
    rng = np.random.default_rng(20240277)
    (out / 'logs').mkdir(parents=True)
    lines = ['participant_id\tage\tsex\tmicroangiopathy']
    for number in range(1, COUNT + 1):
        label = f'{number:03}'
        (raw / f'sub-{label}').mkdir(parents=True)
        ill = rng.random() < 0.2
        volume = 0.0 if rng.random() < 0.1 else rng.gamma(1.2, 35)
        core = {
            'global': volume,
            'local': volume * np.clip(rng.normal(0.6 if ill else 0.85, 0.1), 0, 1.2),
        }
        failed = number in FAILED
        if not failed:
            write_tables(example, out / f'sub-{label}' / 'ct', label, core)
        state = {
            'State': 'failed' if failed else 'succeeded',
            'Cause': 'no frame times' if failed else '',
        }
        status = {'Series': [{'Series': f'sub-{label}', **state}]}
        (out / 'logs' / f'sub-{label}_status.json').write_text(json.dumps(status))
        age, sex = rng.integers(45, 95), rng.choice(['F', 'M'])
        lines.append(f'sub-{label}\t{age}\t{sex}\t{"yes" if ill else "no"}')
    (raw / 'participants.tsv').write_text('\n'.join(lines) + '\n')


def main(demo: Path, folder: Path) -> None:
    """Write `group.html`, and the picture that it shows where scripts are off."""
    with tempfile.TemporaryDirectory() as scratch:
        raw, out = Path(scratch) / 'raw', Path(scratch) / 'out'
        make_cohort(demo / 'sub-01' / 'ct', raw, out)
        command = [sys.executable, '-m', 'ctpprep', str(raw), str(out), 'group']
        told = subprocess.run(command, capture_output=True, text=True)
        if told.returncode:
            raise SystemExit(f'the group level failed: {told.stdout}{told.stderr}')
        folder.mkdir(parents=True, exist_ok=True)
        page = (out / 'group.html').read_text(encoding='utf-8')
    page = page.replace('<main>', f'<main>{WARNING}', 1)
    (folder / 'group.html').write_text(page, encoding='utf-8')
    picture = re.search(r'<noscript><img[^>]* src="data:image/png;base64,([^"]+)"', page)
    (folder / 'group.png').write_bytes(base64.b64decode(picture[1]))


if __name__ == '__main__':
    main(Path(sys.argv[1]), Path(sys.argv[2]))
