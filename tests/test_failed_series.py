# SPDX-License-Identifier: Apache-2.0
"""The command on a series without contrast: its page shows why, until the series succeeds."""

import re
import subprocess
import sys
from types import SimpleNamespace

import nibabel as nb
import numpy as np
import pytest

from ctpprep.engine.crashes import read_crash
from ctpprep.phantom import write_bids
from ctpprep.reports.evidence import describe_remedy, draw_evidence

NAME = 'sub-{}_desc-evidence_ctp.svg'


def call(folder, *options):
    command = [sys.executable, '-m', 'ctpprep', 'raw', 'out', 'participant', '-w', 'work']
    return subprocess.run(
        [*command, *options], capture_output=True, text=True, cwd=folder, check=False
    )


def remove_contrast(series):
    """Replace a series by noise around its first frame."""
    image = nb.load(series)
    voxels = np.asarray(image.dataobj)
    noise = np.random.default_rng(0).normal(0, 3, voxels.shape)
    still = np.round(voxels[..., :1] + noise).astype(np.int16)
    nb.save(nb.Nifti1Image(still, image.affine, image.header), series)


@pytest.fixture(scope='module')
def site(coarse_head, tmp_path_factory):
    """Run two series without contrast in worker processes."""
    folder = tmp_path_factory.mktemp('failed')
    for label in ('1', '2'):
        remove_contrast(write_bids(coarse_head, folder / 'raw', label))
    run = call(folder, '--nprocs', '2')
    assert run.returncode == 1, run.stderr
    return SimpleNamespace(folder=folder, out=folder / 'out', run=run)


def figure(site, label):
    return site.out / f'sub-{label}' / 'figures' / NAME.format(label)


def page(site, label):
    return (site.out / f'sub-{label}.html').read_text()


def crash_file(site, label):
    return next((site.out / f'sub-{label}' / 'log').glob('*/crash-*.txt'))


@pytest.mark.parametrize('label', ['1', '2'])
def test_page_shows_the_evidence_with_alternative_text(site, label):
    assert figure(site, label).is_file()
    (alternative,) = re.findall(r'<img src="data:image/svg[^>]*alt="([^"]+)"', page(site, label))
    assert alternative.startswith('What was found before the series failed. Above: the mean')


def test_page_names_the_options_that_help(site):
    (sentence,) = re.findall('<strong>What to supply:</strong> ([^<]+)</p>', page(site, '1'))
    assert '--bolus-arrival' in sentence
    assert '--aif-file' in sentence
    assert '--brain-mask' not in sentence


def test_figure_contains_curves_slices_and_no_paths(site):
    svg = figure(site, '1').read_text()
    for text in ('time (s)', 'density (HU)', 'search region', 'brain', 'Radiological'):
        assert text in svg
    assert str(site.folder) not in svg
    assert str(site.folder) not in page(site, '1')


def test_figure_is_the_same_every_time(site, tmp_path):
    path = tmp_path / figure(site, '1').name
    assert draw_evidence(crash_file(site, '1'), path)
    assert path.read_bytes() == figure(site, '1').read_bytes()


def test_no_evidence_is_no_error(site, tmp_path):
    crash = crash_file(site, '1').read_text()
    folder, _ = read_crash(crash_file(site, '1'))
    (tmp_path / 'crash.txt').write_text(crash.replace(str(folder), str(tmp_path / 'gone')))
    assert not draw_evidence(tmp_path / 'crash.txt', tmp_path / 'x.svg')


DAMAGE = """
import sys
from pathlib import Path
import numpy as np
from ctpprep import cli
from ctpprep.interfaces import evidence

def save(evidence, folder):
    (folder / 'evidence.npz').write_bytes(b'PK not an archive')

evidence.save_evidence = save
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.fixture(scope='module')
def again(site, coarse_head):
    """Run the second series with contrast, beside the first, whose evidence is damaged."""
    before = figure(site, '1').stat().st_mtime_ns
    write_bids(coarse_head, site.folder / 'raw', '2')
    command = [sys.executable, '-c', DAMAGE, 'raw', 'out', 'participant', '-w', 'work']
    run = subprocess.run(
        [*command, '--nprocs', '1'], capture_output=True, text=True, cwd=site.folder, check=False
    )
    return SimpleNamespace(out=site.out, folder=site.folder, run=run, before=before)


def test_damaged_evidence_is_one_line_and_leaves_the_page(again):
    assert 'what sub-1 shows could not be drawn' in again.run.stderr
    assert 'Traceback' not in again.run.stdout + again.run.stderr
    assert not figure(again, '1').exists()
    assert 'no contrast bolus' in page(again, '1')
    assert 'What to supply' in page(again, '1')


def test_success_removes_the_figure(again):
    assert re.search('sub-2 +ok', again.run.stdout), again.run.stdout
    assert not figure(again, '2').exists()
    assert list(figure(again, '2').parent.glob('*.svg'))
    assert 'before the series failed' not in page(again, '2')


def test_reports_only_keeps_the_figure(again):
    call(again.folder, '--participant-label', '1', '--nprocs', '1')
    assert figure(again, '1').is_file()
    call(again.folder, '--reports-only')
    assert figure(again, '1').is_file()
    assert 'What was found before the series failed' in page(again, '1')
    assert 'What to supply' in page(again, '1')


@pytest.mark.parametrize(
    ('reason', 'words'),
    [
        ('the file is truncated', ['']),
        ('supply a brain mask (--brain-mask)', ['a mask of the brain']),
        ('(--bolus-arrival) or an AIF (--aif-file)', ['begin to rise', ', or an artery']),
    ],
)
def test_remedy_lists_the_named_options(reason, words):
    sentence = describe_remedy(reason)
    assert all(word in sentence for word in words)
    assert bool(sentence) == bool(words[0])
