# SPDX-License-Identifier: Apache-2.0
"""What a user is told of every bad input of the tables, in one call that also has a good series."""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.bad_inputs.cases import CASES, TABLES, Case
from tests.bad_inputs.heads import taper, write_series

pytestmark = pytest.mark.robustness
ERROR = 'ctpprep: error: '


def label_of(case: Case) -> str:
    return re.sub('[^A-Za-z0-9]', '', case.name)


def names(cases: list[Case]) -> list[str]:
    return [case.name for case in cases]


@pytest.fixture(scope='module')
def site(toy_head, tmp_path_factory) -> SimpleNamespace:
    """Plan a run of a dataset in which every case is a participant, beside a good one."""
    folder = tmp_path_factory.mktemp('site')
    head = (taper(toy_head[0]), *toy_head[1:])
    write_series(folder / 'raw', 'good', head)
    for case in CASES:
        case.spoil(write_series(folder / 'raw', label_of(case), head))
    (folder / 'tmp').mkdir()
    command = ['-m', 'ctpprep', 'raw', 'out', 'participant', '--dry-run', '--nprocs', '1']
    result = subprocess.run(
        [sys.executable, *command], cwd=folder, capture_output=True, text=True, check=False,
        timeout=600, env=os.environ | {'TMPDIR': str(folder / 'tmp')}, errors='backslashreplace',
    )  # fmt: skip
    lines = result.stderr.splitlines()
    return SimpleNamespace(
        folder=folder, code=result.returncode, out=result.stdout, err=result.stderr, lines=lines
    )


def test_labels_are_unique():
    labels = [label_of(case).lower() for case in CASES]
    assert len(set(labels)) == len(labels) >= 150


@pytest.mark.parametrize('table', TABLES)
def test_table_has_cases(table):
    assert TABLES[table]


def test_call_fails_without_traceback(site):
    assert site.code == 1
    assert 'Traceback' not in site.out + site.err


def test_every_line_is_one_error_of_one_series(site):
    assert all(line.startswith(ERROR) for line in site.lines), site.lines
    assert len(site.lines) == sum(case.refused for case in CASES)


def test_good_series_is_planned(site):
    assert re.search('^sub-good  [0-9]+ frames in ', site.out, re.MULTILINE)


def test_dry_run_leaves_nothing(site):
    assert {path.name for path in site.folder.iterdir()} == {'raw', 'tmp'}
    assert list((site.folder / 'tmp').iterdir()) == []


REFUSED = [case for case in CASES if case.refused]


@pytest.mark.parametrize('case', REFUSED, ids=names(REFUSED))
def test_bad_input_is_refused_in_a_sentence(site, case):
    own = [line for line in site.lines if f'sub-{label_of(case)}/' in line]
    assert len(own) == 1, own
    assert case.sentence in own[0]
    assert 'unexpected' not in own[0]
    assert str(site.folder) not in own[0]
    assert len(own[0]) < 700


ACCEPTED = [case for case in CASES if not case.refused]


@pytest.mark.parametrize('case', ACCEPTED, ids=names(ACCEPTED))
def test_unusual_input_is_accepted(site, case):
    assert re.search(f'^sub-{label_of(case)}  [0-9]+ frames in ', site.out, re.MULTILINE)
    warnings = [line for line in site.out.splitlines() if f'sub-{label_of(case)}/' in line]
    warnings = [line for line in warnings if ' in the first frame, ' in line]
    assert bool(warnings) == bool(case.sentence)
    assert all(case.sentence in line for line in warnings[:1])


def test_readme_of_the_cases_lists_every_table():
    """The tables of docs/robustness.md have a row for each table of cases."""
    page = (Path(__file__).parents[2] / 'docs' / 'robustness.md').read_text()
    for table in TABLES:
        assert f'`{table}`' in page
