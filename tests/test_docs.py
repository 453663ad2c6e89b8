# SPDX-License-Identifier: Apache-2.0
"""The documentation says what the code does: options, defaults, files, limits, links and names."""

import importlib
import re
import textwrap
from pathlib import Path

import numpy as np
import pytest

from ctpprep import cli, group
from ctpprep.cli.options import spellings
from ctpprep.dicom.cli import make_parser as make_bids_parser
from ctpprep.dicom.export import make_parser as make_dicom_parser
from ctpprep.engine.tracker import STEPS
from ctpprep.figures.mosaic import WINDOWS
from ctpprep.group import statistics, tables
from ctpprep.group.participants import read_participants
from ctpprep.inputs.overrides import PIECES
from ctpprep.inputs.series import PrecomputedMaps
from ctpprep.interfaces.wording import WORDING
from ctpprep.io.templates import find_spaces
from ctpprep.perfusion import segmentation, tabulation, volumes
from ctpprep.perfusion.quality import CHECKS
from ctpprep.perfusion.symmetry import AffectedSide
from ctpprep.reports.sections import FIGURES
from ctpprep.settings import MethodSettings, RunSettings, declared
from ctpprep.workflows.outputs import (
    derivatives,
    precomputed_derivatives,
    template_derivatives,
)

ROOT = Path(__file__).resolve().parents[1]
OUTPUTS = ROOT / 'docs' / 'outputs.md'
STAGES = ROOT / 'docs' / 'stages.md'
PAGES = sorted(
    [
        ROOT / 'README.md',
        ROOT / 'CONTRIBUTING.md',
        ROOT / 'CHANGELOG.md',
        *ROOT.glob('docs/**/*.md'),
    ]
)
# options of docker, podman, Apptainer and pip, where these are written about
CONTAINER_PAGES = {'containers.md', '0022-container.md'}
CONTAINER_OPTIONS = {
    '--build-arg', '--cleanenv', '--containall', '--cpus', '--entrypoint', '--env', '--fakeroot',
    '--memory', '--read-only', '--require-hashes', '--tmpfs', '--userns', '--writable-tmpfs',
}  # fmt: skip
# options of fMRIPrep without a counterpart here
FMRIPREP_OPTIONS = {
    '--anat-only', '--dummy-scans', '--fs-license-file', '--level', '--output-layout',
}  # fmt: skip
each_page = pytest.mark.parametrize(
    'page', PAGES, ids=lambda page: page.relative_to(ROOT).as_posix()
)


# the table of a series, and what only maps made elsewhere have
MAPS = PrecomputedMaps('sub-01', '01', None, 'sub-01/ct', '', {}, {})
WRITTEN = {
    row.ending: row for row in (*precomputed_derivatives(MAPS, ''), *derivatives('normal-tmax'))
}

IN_TEMPLATE = {
    row.ending: row
    for row in template_derivatives(WRITTEN.values(), *find_spaces(['MNI152NLin2009aSym']))
}


def read(page: Path) -> str:
    return page.read_text(encoding='utf-8')


def table(page: Path, first: str) -> list[list[str]]:
    """Cells of the table whose header begins with `first`, without backticks."""
    lines = read(page).split('\n')
    start = next(i for i, line in enumerate(lines) if line.startswith(f'| {first} |')) + 2
    rows = []
    for line in lines[start:]:
        if not line.startswith('|'):
            break
        rows.append([cell.strip().replace('`', '') for cell in line.strip('|').split('|')])
    return rows


def anchors(page: Path) -> set[str]:
    """Names that GitHub gives to the headings of a page."""
    titles = re.findall(r'^#+ (.+)$', read(page), flags=re.MULTILINE)
    return {re.sub(r'[^\w -]', '', title).strip().lower().replace(' ', '-') for title in titles}


@each_page
def test_named_options_exist(page):
    script = read(ROOT / 'ctpprep' / 'cluster' / 'ctpprep_cluster.py')
    known = set(cli.make_parser()._option_string_actions) | set(
        re.findall(r"'(--[a-z-]+)'", script)
    )
    for parser in (make_bids_parser(), make_dicom_parser()):
        known |= set(parser._option_string_actions)
    if page.name in CONTAINER_PAGES:
        known |= CONTAINER_OPTIONS
    if page.name == 'from_fmriprep.md':
        known |= FMRIPREP_OPTIONS
    named = {option for code in re.findall(r'`([^`\n]+)`', read(page)) for option in
             re.findall(r'(?<![\w-])--[a-z][a-z-]*', code)}  # fmt: skip
    assert named <= known


def test_defaults_in_the_pipeline_are_those_of_the_settings():
    text = read(ROOT / 'docs' / 'pipeline.md')
    documented = dict(re.findall(r'`(--[a-z-]+)` \(([^)]+)\)', text))
    words = {True: 'yes', False: 'no'}
    defaults = {}
    for setting in declared(MethodSettings).values():
        value = setting.default
        parts = (value if isinstance(value, tuple) else (value,)) or ('none',)
        defaults[spellings(setting)[-1]] = ' '.join(
            words[part] if isinstance(part, bool)
            else str(part) if isinstance(part, str | int) else f'{part:g}' for part in parts
        )  # fmt: skip
    assert documented == defaults


def test_every_written_file_is_described_with_its_unit():
    described = {row[0]: row[1] for row in table(OUTPUTS, 'file')}
    written = {ending: row.metadata.get('Units', '') for ending, row in WRITTEN.items()}
    assert set(described) == set(written)
    images = {ending: unit for ending, unit in written.items() if isinstance(unit, str) and unit}
    assert {ending: described[ending] for ending in images} == images


@each_page
def test_named_files_are_written(page):
    endings = {*WRITTEN, *IN_TEMPLATE, *PIECES.values()}  # also files of the user
    name = r'`((?:desc|label|seg|from|space)-[\w-]+\.(?:nii\.gz|tsv|txt|h5)|[a-z]+\.nii\.gz)`'
    assert set(re.findall(name, read(page))) <= endings


def test_every_group_table_is_described():
    text = read(OUTPUTS)
    assert all(f'`{name}`' in text for name in (*group.TABLES, group.STATISTICS, 'group.html'))
    assert all(f'`{name}`' in text for name in (*tables.IDS, *tables.VERDICT, *statistics.COLUMNS))


def limits_of(check, which):
    bounds = (('<', check.low), ('>', check.high))
    limits = [(sign, pair[which]) for sign, pair in bounds if pair and np.isfinite(pair[which])]
    return ', '.join(f'{sign} {limit:g}' for sign, limit in limits) or 'never'


def test_limits_of_quality_are_those_of_the_code():
    code = [
        [check.name, WORDING[check.name].title, check.unit,
         *(limits_of(check, which) for which in (0, 1)), WORDING[check.name].meaning]
        for check in CHECKS
    ]  # fmt: skip
    assert table(OUTPUTS, 'check') == code


def test_columns_of_volumes_are_described():
    assert [row[0] for row in table(OUTPUTS, 'column')] == list(tabulation.COLUMNS)


def test_rows_of_volumes_are_described():
    mask = np.ones((2, 2, 2), bool)
    lesion = segmentation.Lesion(mask, mask, mask, mask)
    both = dict.fromkeys(('global', 'local'), mask)
    masks = ('core_global', 'core_local', 'hypoperfusion', 'mismatch_global', 'mismatch_local')
    rows = tabulation.volume_table(
        dict.fromkeys(masks, mask), dict.fromkeys(masks, volumes.cleaning_ml(lesion, mask, (1, 1, 1))),
        1.0 * mask, both, 1.0 * mask, both, (1, 1, 1),
        AffectedSide('left', 2.0, 1.0, 0.5), 'left', core_rcbf=0.3, hypoperfusion_tmax=6.0,
        tmax_thresholds=(6.0, 10.0), rcbf_thresholds=(0.3,),
        segment=lambda candidate, within, of_flow: lesion,
        join_cores=lambda hypoperfusion, cores: hypoperfusion, tmax_offsets=(2.0, 2.0),
    )  # fmt: skip
    made = {(row['region'], row['normalization'] or 'n/a', row['measure']) for row in rows}
    described = {
        (region, which, measure)
        for region, normalization, measure, _ in table(OUTPUTS, '`region` | `normalization`')
        for which in normalization.split(', ')
    }
    assert made == described


def test_every_figure_is_explained_with_its_window():
    text = read(ROOT / 'docs' / 'report.md')
    assert set(re.findall(r'desc-(\w+)_ctp\.svg', text)) == {what for what, *_ in FIGURES}
    windows = [WINDOWS[name] for name in ('cbf', 'cbv', 'mtt', 'tmax', 'rcbf_global', 'reference')]
    ends = [f'{window.low:g} to {window.high:g} {window.unit}' for window in windows]
    assert [each for each in ends if each not in text] == []


def test_every_check_has_advice():
    rows = re.findall(
        r'^\| [a-z ]+: (`.+?) \|', read(ROOT / 'docs' / 'faq.md'), flags=re.MULTILINE
    )
    named = [name for row in rows for name in re.findall(r'`(\w+)`', row)]
    assert sorted(named) == sorted(check.name for check in CHECKS)
    text = ' '.join(rows)
    assert [
        name for name, words in WORDING.items() if f'`{name}` ({words.title})' not in text
    ] == []


def test_every_module_is_in_the_reference():
    listed = set(
        re.findall(r'^   (ctpprep\.[\w.]+)$', read(ROOT / 'docs' / 'api.md'), re.MULTILINE)
    )
    files = {path.relative_to(ROOT).with_suffix('') for path in ROOT.glob('ctpprep/**/*.py')}
    modules = {'.'.join(file.parts) for file in files if not file.name.startswith('_')}
    packages = {
        'ctpprep.group',
        'ctpprep.perfusion',
        'ctpprep.phantom',
    }  # the others only name what is in them
    assert listed - packages == modules


@each_page
def test_relative_links_resolve(page):
    broken = []
    for target in re.findall(r'\]\(([^)\s]+)\)', read(page)):
        if target.startswith(('https://', 'mailto:')):
            continue
        path, _, anchor = target.partition('#')
        goal = (page.parent / path).resolve() if path else page
        if not goal.exists() or (anchor and anchor not in anchors(goal)):
            broken.append(target)
    assert not broken


@each_page
def test_named_functions_are_where_the_link_says(page):
    missing = []
    for name, path in re.findall(r'\[`(\w+)`\]\((?:\.\./)*(ctpprep/[\w/]+)\.py\)', read(page)):
        if not hasattr(importlib.import_module(path.replace('/', '.')), name):
            missing.append(f'{path}.py: {name}')
    assert not missing


def linked_code(cell):
    """Name and file of each function that a cell of the stage table links."""
    return re.findall(r'\[(\w+)\]\(\.\./(ctpprep/[\w/]+\.py)\)', cell)


def test_every_stage_links_its_code():
    for stage, _, code in table(STAGES, 'stage'):
        assert linked_code(code), stage


def test_progress_names_stages_as_the_stage_table_does():
    interfaces = {
        stage: {name for name, path in linked_code(code) if path.startswith('ctpprep/interfaces/')}
        for stage, _, code in table(STAGES, 'stage')
    }
    listed = set().union(*interfaces.values())
    assert listed | {'WriteDerivatives', 'WriteFigures'} == STEPS.keys()
    for name, (stage, _) in STEPS.items():
        if name in listed:
            assert name in interfaces[stage]
        else:
            assert stage not in interfaces  # of any stage


def test_the_example_of_participants_is_read(tmp_path):
    text = (ROOT / 'docs' / 'usage.md').read_text()
    table = re.search(r'\n(    participant_id\t.*?)\n\n', text, re.DOTALL)[1]
    (tmp_path / 'participants.tsv').write_text(textwrap.dedent(table) + '\n')
    columns = {'group': 'microangiopathy', 'stroke': 'stroke_evident', 'exclude': 'old_infarct'}
    named = {f'{kind}_column': column for kind, column in columns.items()}
    told = read_participants(RunSettings(tmp_path, tmp_path / 'out', tmp_path / 'work', **named))
    assert {'sex', 'age'} < set(told)
    assert list(told['old_infarct']) == ['no', 'no', 'yes']
