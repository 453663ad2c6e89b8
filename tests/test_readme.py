# SPDX-License-Identifier: Apache-2.0
"""The README is short, and what it promises is so."""

import configparser
import re
from pathlib import Path

import nibabel as nb
import numpy as np
from PIL import Image

from ctpprep import cli
from ctpprep.cli.parser import COMMON
from ctpprep.inputs.find import find_series
from ctpprep.settings import RunSettings

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / 'README.md').read_text(encoding='utf-8')
METADATA = configparser.RawConfigParser()
METADATA.read(ROOT / 'setup.cfg', encoding='utf-8')


def write_image(path, shape):
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.random.default_rng(1).integers(0, 100, shape).astype(np.int16)
    nb.Nifti1Image(voxels, np.diag([-2.0, 2.0, 5.0, 1.0])).to_filename(path)


def test_readme_has_900_words_at_most():
    assert len(TEXT.split()) <= 900


def test_data_tree_of_the_readme_is_read(tmp_path):
    tree = TEXT.partition('## Your data')[2].partition('\n## ')[0]
    image, sidecar, ncct = re.findall(r'─ (sub-01_\S+)', tree)
    folder = tmp_path / 'sub-01' / 'ct'
    write_image(folder / image, (4, 4, 3, 12))
    (folder / sidecar).write_text(re.search(r'({"Rep.*?})', tree)[1])
    write_image(folder / ncct, (4, 4, 3))
    (series,) = find_series(RunSettings(tmp_path, tmp_path / 'out', tmp_path / 'work'))
    assert np.diff(series.frame_times)[0] == 1.5
    assert series.ncct == folder / ncct


def test_commands_of_the_readme_are_valid():
    commands = re.findall(r'^    ctpprep (BIDS_DIR .*?)(?: +#.*)?$', TEXT, re.MULTILINE)
    assert len(commands) == 4
    for command in commands:
        assert cli.make_parser().parse_args(command.split()).level in ('participant', 'group')


def test_make_targets_of_the_readme_exist():
    targets = re.findall(r'^([\w-]+):', (ROOT / 'Makefile').read_text(), re.MULTILINE)
    assert set(re.findall(r'^    make ([\w-]+)', TEXT, re.MULTILINE)) <= set(targets)
    assert {'make demo', 'make test'} <= set(re.findall(r'^    (make \w+)', TEXT, re.MULTILINE))


def test_badges_state_licence_and_python_of_the_package():
    metadata = METADATA['metadata']
    pythons = re.findall(r':: (3\.\d+)$', metadata['classifiers'], re.MULTILINE)
    badges = {path.stem: path.read_text() for path in ROOT.glob('docs/images/badge-*.svg')}
    assert f'licence: {metadata["license_expression"]}<' in badges['badge-licence']
    assert f'python: {" | ".join(pythons)}<' in badges['badge-python']


def test_picture_of_the_report_is_small():
    path = ROOT / 'docs' / 'images' / 'summary.png'
    assert path.stat().st_size <= 200_000
    assert Image.open(path).width >= 1000


def test_common_options_include_those_of_the_readme():
    named = set(re.findall(r'(?<![\w-])--?[a-z][a-z-]*', TEXT.partition('## Run')[2]))
    actions = cli.make_parser()._option_string_actions
    listed = {name for name in named if name in actions and actions[name].dest in COMMON}
    assert {'--participant-label', '--nprocs', '--dry-run', '-w', '--mem'} <= listed
