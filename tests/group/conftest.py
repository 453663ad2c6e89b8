# SPDX-License-Identifier: Apache-2.0
"""A small cohort: a BIDS dataset, and derivatives that tests write by hand."""

import json
import re
from dataclasses import replace

import pandas as pd
import pytest

from ctpprep.group import STATISTICS, run_group_level
from ctpprep.group.cohort import make_cohort
from ctpprep.group.participants import read_participants
from ctpprep.group.tables import collect_tables
from ctpprep.io.records import make_record
from ctpprep.settings import RunSettings

HEADER = 'region\tnormalization\tmeasure\tthreshold\tvolume_ml\treason\n'
QUALITY = 'status\tcaution\tnoise\tnoise_status\tnoise_sentence\nwarn\tn/a\t12.5\twarn\tNoise is 12.5 HU.\n'


class Site:
    """A dataset with the participants sub-01 and sub-02, and its derivatives."""

    header = HEADER

    def __init__(self, folder):
        for label in ('01', '02'):
            (folder / 'raw' / f'sub-{label}').mkdir(parents=True)
        self.run = RunSettings(folder / 'raw', folder / 'out', folder / 'work')
        self.out = self.run.output_dir

    def write(self, name, text):
        path = self.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def write_volumes(
        self, participant, core_global='12.50', core_local='10.00', prefix='', reason='n/a'
    ):
        text = (
            f'{HEADER}hypoperfusion\tn/a\tvolume\t6.0\t40.0\tn/a\n'
            f'core\tglobal\tvolume\t0.3\t{core_global}\tn/a\n'
            f'core\tglobal\tremoved specks\t0.3\t1.0\tn/a\n'
            f'core\tlocal\tvolume\t0.3\t{core_local}\t{reason}\n'
            f'mismatch\tglobal\tvolume\tn/a\t31.0\tn/a\n'
            f'mismatch\tglobal\tdifference\tn/a\t27.5\tn/a\n'
        )
        folder = f'{participant}/ct'
        return self.write(f'{folder}/{prefix or participant}_seg-perfusion_morph.tsv', text)

    def write_quality(self, participant, text=QUALITY, prefix=''):
        folder = f'{participant}/ct'
        return self.write(f'{folder}/{prefix or participant}_desc-qualitycontrol_ctp.tsv', text)

    def write_series(
        self, participant, core_global='12.50', core_local='10.00', quality=QUALITY, reason='n/a'
    ):
        self.write_volumes(participant, core_global, core_local, reason=reason)
        self.write_quality(participant, quality)

    def write_status(self, participant, state, cause='', version='1', record=False):
        entry = {'Series': participant, 'State': state, 'Cause': cause}
        if record:
            entry['Files'] = make_record((self.out / participant).rglob('*.*'), self.out)
        status = {'Version': version, 'Series': [entry]}
        self.write(f'logs/{participant}_status.json', json.dumps(status))

    def write_participants(self, text):
        (self.run.bids_dir / 'participants.tsv').write_text(text)

    def collect(self, **options):
        return collect_tables(replace(self.run, **options))

    def run_group(self, **options):
        """Run the group level; return its page."""
        run_group_level(replace(self.run, **options))
        return (self.out / 'group.html').read_text()

    def make_cohort(self, participants=None, **options):
        """Make the cohort with this participants.tsv, or without any."""
        run = replace(self.run, **options)
        columns = None
        if participants is not None:
            self.write_participants(participants)
            columns = read_participants(run)
        records, tables = collect_tables(run)
        return make_cohort(records, tables['group_volumes.tsv'], columns, run)

    def read(self, name='group_volumes.tsv'):
        return pd.read_csv(self.out / name, sep='\t', dtype=str, keep_default_na=False)

    def read_statistic(self, comparison, statistic, **columns):
        """Return a row of the statistics; of all series by default."""
        table = self.read(STATISTICS)
        for column, value in ({'set': 'all', 'group': 'all'} | columns).items():
            table = table[table[column] == value]
        return table[(table['comparison'] == comparison) & (table['statistic'] == statistic)].iloc[
            0
        ]


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


@pytest.fixture
def three(site):
    """Three series with cores of 10, 20 and 30 mL."""
    for participant in ('sub-01', 'sub-02', 'sub-03'):
        site.write_series(participant, f'{participant[-1]}0.0')
    return site


@pytest.fixture
def list_outliers():
    """Function that returns the series to review on a page, with their reasons."""

    def list_outliers(page):
        section = page.partition('Series that stand out')[2].partition('<section')[0]
        cells = r'<td>(sub-\d+)</td>\s*<td>.*?</td>\s*<td>(.*?)</td>'
        return re.findall(cells, section, flags=re.DOTALL)

    return list_outliers
