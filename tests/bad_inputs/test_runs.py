# SPDX-License-Identifier: Apache-2.0
"""Whole runs with bad inputs: the others succeed, and only what was written completely is a success."""

import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import nibabel as nb
import numpy as np
import pytest

from ctpprep.io.records import find_change, status_path
from ctpprep.phantom.dataset import write_bids

pytestmark = pytest.mark.robustness


def call(folder, *options):
    command = [sys.executable, '-m', 'ctpprep', 'raw', 'out', 'participant', '-w', 'work']
    return subprocess.run(
        [*command, '--nprocs', '1', *options], cwd=folder, capture_output=True, text=True, check=False,
        env=os.environ | {'TMPDIR': str(folder / 'tmp'), 'LOGNAME': 'someone'},
    )  # fmt: skip


def entry(site, label):
    (found,) = json.loads(status_path(site.folder / 'out', label).read_text())['Series']
    return found


@pytest.fixture(scope='module')
def site(coarse_head, tmp_path_factory):
    """Run a good series, one with a wrong checksum, and one with a black slice."""
    folder = tmp_path_factory.mktemp('runs')
    (folder / 'tmp').mkdir()
    paths = {
        name: write_bids(coarse_head, folder / 'raw', name) for name in ('good', 'crc', 'black')
    }
    content = bytearray(paths['crc'].read_bytes())
    content[-7] ^= 4
    paths['crc'].write_bytes(content)
    image = nb.load(paths['black'])
    ctp = np.asanyarray(image.dataobj).copy()
    ctp[:, :, 3] = -1024
    nb.Nifti1Image(ctp, image.affine, image.header).to_filename(paths['black'])
    return SimpleNamespace(folder=folder, run=call(folder))


def test_damaged_series_fails_alone(site):
    assert site.run.returncode == 1
    assert 'Traceback' not in site.run.stdout + site.run.stderr
    assert re.search('sub-good +ok', site.run.stdout)
    assert re.search(
        r'sub-crc +failed +sub-crc_ctp\.nii\.gz: the file is damaged', site.run.stdout
    )


def test_black_slice_is_named_and_contains_no_tissue(site):
    assert 'slice 4 of 7 contains a single value' in site.run.stdout
    folder = site.folder / 'out/sub-black/ct'
    mask = np.asanyarray(nb.load(folder / 'sub-black_desc-tissue_mask.nii.gz').dataobj)
    assert [bool(mask[..., z].any()) for z in (2, 3, 4)] == [True, False, True]
    measured = json.loads((folder / 'sub-black_desc-hmc_ctpref.json').read_text())['Measured']
    assert measured['empty_slices'] == [4]


def test_success_has_a_record_of_its_files(site):
    record = entry(site, 'good')['Files']
    assert len(record) > 50
    assert find_change(record, site.folder / 'out') == ''
    assert 'Files' not in entry(site, 'crc')


def test_names_of_files_carry_no_user(site):
    names = [path.name for path in (site.folder / 'out').rglob('*')]
    assert any(name.startswith('crash-') for name in names)
    assert not [name for name in names if 'someone' in name or os.uname().nodename in name]


def test_run_leaves_no_temporary_files(site):
    assert list((site.folder / 'tmp').iterdir()) == []


def test_reports_only_makes_no_success_of_a_loss(site):
    path = site.folder / 'out/sub-black/ct/sub-black_cbf.nii.gz'
    path.write_bytes(path.read_bytes()[:-100])
    again = call(site.folder, '--reports-only')
    assert again.returncode == 1
    assert re.search('sub-black +failed +sub-black_cbf.nii.gz has changed', again.stdout)
    assert re.search('sub-good +ok', again.stdout)


def test_replaced_result_is_refused(site):
    pickle = next((site.folder / 'work').rglob('sub_good_wf/**/result_*.pklz'))
    pickle.chmod(0o666)
    again = call(site.folder)
    assert again.returncode == 2
    assert 'can be written by other users' in again.stderr
    assert again.stderr.count('\n') == 1
