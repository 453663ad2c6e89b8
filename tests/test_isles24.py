# SPDX-License-Identifier: Apache-2.0
"""The tutorial on ISLES'24 runs as it is written, on a tree of the same shape made from a phantom."""

import json
import re
import textwrap
from pathlib import Path

import nibabel as nb
import numpy as np
import pandas as pd
import pytest

from ctpprep import cli
from ctpprep.group.followup_page import PAGE
from ctpprep.phantom.followup import FollowUpSettings, make_followup, write_isles

TUTORIAL = Path(__file__).parents[1] / 'docs' / 'isles24.md'
COURSE = FollowUpSettings(
    voxel_size_mm=(2.5, 2.5, 5.0), ncct_voxel_size_mm=(2.0, 2.0, 4.0), tilt_deg=(3.0, -2.0, 5.0)
)
#: Participant, and space of its lesion.
SPACES = {'stroke0001': 'ncct', 'stroke0002': 'mri'}


@pytest.fixture(scope='module')
def site(coarse_head, tmp_path_factory):
    """Run the commands of the tutorial; return the folder, the follow-up and the exit codes."""
    folder = tmp_path_factory.mktemp('isles')
    followup = make_followup(coarse_head, COURSE)
    for label, space in SPACES.items():
        write_isles(coarse_head, followup, folder / 'train', label, space)
    later = folder / 'train/derivatives/sub-stroke0001/ses-02'
    native = nb.Nifti1Image(followup.lesion.voxels.astype(np.uint8), followup.lesion.affine)
    nb.save(native, later / 'sub-stroke0001_ses-02_lesion-msk.nii')  # as beside case 0142
    text = TUTORIAL.read_text()
    columns = re.search(r'\n(    participant_id\t.*?)\n\n', text, re.DOTALL)[1]
    (folder / 'train/raw_data/participants.tsv').write_text(textwrap.dedent(columns) + '\n')
    codes = []
    for command in re.findall(r'^    ctpprep (train.*)$', text, re.MULTILINE):
        words = command.replace('train/', f'{folder}/train/').replace('OUT_DIR', f'{folder}/out')
        options = ['-w', f'{folder}/work', '--nprocs', '1'] if 'participant' in words else []
        codes.append(cli.main([*words.split(), *options]))
    return folder, followup, codes


def read_table(site, label):
    path = site[0] / f'out/sub-{label}/ses-01/ct/sub-{label}_ses-01_desc-followup_morph.tsv'
    return pd.read_csv(path, sep='\t'), json.loads(path.with_suffix('.json').read_text())


def test_both_commands_succeed(site):
    assert site[2] == [0, 0]


@pytest.mark.parametrize('label', SPACES)
def test_lesion_on_the_grid_of_the_maps_is_the_planted_infarct(site, label):
    folder, followup, _ = site
    path = f'out/sub-{label}/ses-01/ct/sub-{label}_ses-01_label-lesion_desc-followup_mask.nii.gz'
    mask = nb.load(folder / path).get_fdata() > 0
    assert mask.shape == followup.infarct.shape
    dice = 2 * (mask & followup.infarct).sum() / (mask.sum() + followup.infarct.sum())
    assert dice > 0.8


def test_sidecars_state_how_the_lesion_was_aligned(site):
    by_ncct, by_image = (read_table(site, label)[1]['Measured'] for label in SPACES)
    assert by_ncct['followup_aligned_by'].startswith('inverse of the rigid transform')
    assert by_image['followup_similarity'] >= 0.9
    assert by_ncct['followup_covered'] > 0.95


def test_core_agrees_with_the_infarct_better_than_hypoperfusion_after_reperfusion(site):
    table, _ = read_table(site, 'stroke0001')
    dice = table[table['measure'] == 'segmentation'].set_index('quantity')['dice']
    assert dice['core'].max() > dice['hypoperfusion']


def test_page_of_the_participant_shows_the_lesion(site):
    page = (site[0] / 'out' / 'sub-stroke0001.html').read_text()
    assert 'Follow-up lesion:' in page
    assert 'id="sub-stroke0001_ses-01-followup"' in page


def test_group_page_has_the_sets_of_participants_tsv(site):
    page = (site[0] / 'out' / PAGE).read_text()
    assert 'Reperfusion: the column mTICI' in page
    assert 'Microangiopathy, reperfused: 1 participants' in page
