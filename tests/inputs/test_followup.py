# SPDX-License-Identifier: Apache-2.0
"""Lesion masks of later sessions: which are found, preferred and left out."""

import json
import os
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest

from ctpprep.exceptions import UsageError
from ctpprep.inputs.find import find_series
from ctpprep.inputs.overrides import apply_overrides, dataset_links
from ctpprep.settings import RunSettings

LAS = np.diag([-2.0, 2.0, 5.0, 1.0])
NCCT = 'sub-1_ses-02_space-ncct_lesion-msk.nii.gz'


def write(path, shape=(4, 4, 3), affine=LAS):
    path.parent.mkdir(parents=True, exist_ok=True)
    nb.Nifti1Image(np.ones(shape, np.int16), affine).to_filename(path)
    return path


@pytest.fixture
def tree(tmp_path):
    """Write an ISLES'24-shaped participant without follow-up; return the folder of the derivatives."""
    session = tmp_path / 'raw_data' / 'sub-1' / 'ses-01'
    write(session / 'sub-1_ses-01_ctp.nii.gz', (4, 4, 3, 12))
    write(session / 'sub-1_ses-01_ncct.nii.gz', affine=np.diag([1.0, 1.0, 3.0, 1.0]))
    return tmp_path / 'derivatives' / 'sub-1' / 'ses-02'


def find(tree, **options):
    root = tree.parents[2]
    options = {'frame_interval': 1.5} | options
    run = RunSettings(root / 'raw_data', root / 'out', root / 'work', **options)
    (series,) = apply_overrides(find_series(run), run)
    return series, run


def test_lesion_of_isles_is_found_in_derivatives_beside_the_raw_data(tree):
    write(tree / NCCT)
    series, run = find(tree)
    assert series.lesion.space == 'ncct'
    assert series.lesion.mask.uri == f'bids:derivatives:sub-1/ses-02/{NCCT}'
    assert series.files['lesion_mask'].path == tree / NCCT
    assert dataset_links(run, [series])['derivatives'] == tree.parents[1]


def test_series_without_follow_up_has_no_lesion(tree):
    write(tree.parent / 'ses-01' / 'sub-1_ses-01_space-ncct_lesion-msk.nii.gz')
    write(tree / 'sub-1_ses-02_space-ncct_lvo-msk.nii.gz')
    assert find(tree)[0].lesion is None


def test_session_labels_are_ordered_by_their_numbers(tree):
    write(tree.parent / 'ses-0001' / 'sub-1_ses-0001_space-ncct_lesion-msk.nii.gz')
    write(tree.parent / 'ses-0010' / 'sub-1_ses-0010_space-ncct_lesion-msk.nii.gz')
    write(tree.parent / 'ses-0009' / 'sub-1_ses-0009_space-ncct_lesion-msk.nii.gz')
    assert find(tree)[0].lesion.session == '0009'


@pytest.mark.parametrize(
    ('times', 'found'),
    [
        (('2020-01-01T09:00:00', '2020-01-02T09:00:00'), 'a'),
        (('2020-01-03T09:00:00', '2020-01-02T09:00:00'), None),
        (('2020-01-01', '2020-01-01'), None),  # by their labels
        (('n/a', '2020-01-02T09:00:00'), None),  # by its label, ses-a comes before ses-b
        ((' \udcff', 'yesterday'), None),
    ],
)
def test_sessions_are_ordered_by_their_times(tmp_path, times, found):
    session = tmp_path / 'raw_data' / 'sub-1' / 'ses-b'
    write(session / 'sub-1_ses-b_ctp.nii.gz', (4, 4, 3, 12))
    write(session / 'sub-1_ses-b_ncct.nii.gz')
    follow_up = tmp_path / 'derivatives' / 'sub-1' / 'ses-a'
    write(follow_up / 'sub-1_ses-a_space-ncct_lesion-msk.nii.gz')
    table = 'session_id\tacq_time\nses-b\t{}\nses-a\t{}\n'.format(*times)
    path = tmp_path / 'raw_data' / 'sub-1' / 'sub-1_sessions.tsv'
    path.write_bytes(table.encode(errors='surrogateescape'))
    lesion = find(follow_up)[0].lesion
    assert (lesion and lesion.session) == found


def test_standard_mask_is_preferred_to_an_uncompressed_one_in_native_space(tree):
    write(tree / 'sub-1_ses-02_lesion-msk.nii')
    write(tree / NCCT)
    assert find(tree)[0].lesion.mask.path.name == NCCT


@pytest.mark.parametrize(
    'name', ['sub-1_ses-02_label-lesion_mask.nii.gz', 'sub-1_ses-02_label-lesion_dseg.nii.gz']
)
def test_bids_mask_comes_with_the_image_of_its_space(tree, name):
    anat = tree.parents[2] / 'raw_data' / 'sub-1' / 'ses-02' / 'anat'
    write(anat / name)
    write(anat / 'sub-1_ses-02_FLAIR.nii.gz')
    write(anat / 'sub-1_ses-02_dwi.nii.gz', (4, 4, 3, 2))  # not a volume
    lesion = find(tree)[0].lesion
    assert (lesion.space, lesion.image.uri) == (
        'image', 'bids:raw:sub-1/ses-02/anat/sub-1_ses-02_FLAIR.nii.gz',
    )  # fmt: skip


def test_image_on_the_grid_of_the_mask_is_preferred(tree):
    write(tree / 'sub-1_ses-02_lesion-msk.nii.gz', affine=2 * LAS)
    write(tree / 'sub-1_ses-02_dwi.nii.gz')
    write(tree / 'sub-1_ses-02_adc.nii.gz', affine=2 * LAS)
    assert find(tree)[0].lesion.image.path.name == 'sub-1_ses-02_adc.nii.gz'


@pytest.mark.parametrize(
    ('name', 'reason'),
    [
        ('sub-1_ses-02_lesion-msk.nii.gz', 'no DWI, ADC or FLAIR image'),
        ('sub-1_ses-02_space-MNI152_label-lesion_mask.nii.gz', 'template space MNI152'),
    ],
)
def test_mask_that_cannot_be_aligned_is_left_out_with_a_reason(tree, name, reason):
    write(tree / name)
    lesion = find(tree)[0].lesion
    assert lesion.space == ''
    assert reason in lesion.left_out


def test_damaged_mask_does_not_fail_the_series(tree):
    path = write(tree / NCCT)
    path.write_bytes(path.read_bytes()[:-20])
    series, _ = find(tree)
    assert series.can_run
    assert NCCT in series.lesion.left_out


def test_mask_on_the_grid_of_the_ncct_is_in_its_space(tree):
    write(tree / 'sub-1_ses-02_lesion-msk.nii.gz', affine=np.diag([1.0, 1.0, 3.0, 1.0]))
    assert find(tree)[0].lesion.space == 'ncct'


def test_image_in_scanner_coordinates_does_not_move_a_mask_on_the_grid_of_the_ncct(tree):
    write(tree / 'sub-1_ses-02_lesion-msk.nii.gz', affine=np.diag([1.0, 1.0, 3.0, 1.0]))
    write(tree / 'sub-1_ses-02_dwi.nii.gz', affine=np.diag([1.5, 1.5, 4.0, 1.0]))
    assert find(tree)[0].lesion.space == 'ncct'


def test_option_names_a_mask_outside_of_any_dataset(tree, tmp_path):
    path = write(tmp_path / 'by hand' / 'sub-1_space-ncct_lesion-msk.nii.gz')
    write(tree / NCCT)
    series, _ = find(tree, lesion_mask=path)
    assert series.lesion.mask.path == path
    with pytest.raises(UsageError, match=r'--lesion-mask: .* is not a file'):
        find(tree, lesion_mask=tmp_path / 'none.nii.gz')


def test_filter_selects_the_session(tree, tmp_path):
    for session in ('02', '03'):
        name = f'sub-1_ses-{session}_space-ncct_lesion-msk.nii.gz'
        write(tree.parent / f'ses-{session}' / name)
    filters = tmp_path / 'filters.json'
    filters.write_text(json.dumps({'lesion': {'session': '03', 'space': '*'}}))
    assert find(tree, bids_filter_file=filters)[0].lesion.session == '03'


# -- quirks of copies of the dataset


@pytest.mark.parametrize(
    'name',
    [
        'sub-1_ses-02_space-ncct_LESION-MSK.nii.gz',
        'sub-1_ses-02_space-ncct_lesion_msk.nii.gz',
        'sub-1_ses-02_space-NCCT_lesion_mask.nii',
        'sub-1_ses-02_space-ncct_lesion-msk.NII.GZ',
    ],
)
def test_spellings_of_a_mask_are_recognized(tree, name):
    write(tree / NCCT).rename(tree / name) if name.lower().endswith('.gz') else write(tree / name)
    lesion = find(tree)[0].lesion
    assert (lesion.mask.path.name, lesion.space) == (name, 'ncct')


def test_the_case_of_folders_does_not_matter(tree):
    write(tree / NCCT)
    tree.parents[1].rename(tree.parents[2] / 'Derivatives')
    (tree.parents[2] / 'raw_data').rename(tree.parents[2] / 'RAW_DATA')
    root = tree.parents[2]
    run = RunSettings(root / 'RAW_DATA', root / 'out', root / 'work', frame_interval=1.5)
    (series,) = apply_overrides(find_series(run), run)
    assert series.lesion.mask.path == root / 'Derivatives' / 'sub-1' / 'ses-02' / NCCT
    assert dataset_links(run, [series])['derivatives'] == root / 'Derivatives'


def test_without_an_ncct_the_image_in_its_space_is_registered(tree):
    for name in (NCCT, NCCT.replace('lesion-msk', 'dwi')):
        write(tree / name)
    next(tree.parents[2].rglob('*_ncct.nii.gz')).unlink()
    lesion = find(tree)[0].lesion
    assert (lesion.space, lesion.left_out) == ('image', '')
    assert lesion.image.path.name == NCCT.replace('lesion-msk', 'dwi')


@pytest.mark.parametrize(
    ('shape', 'affine', 'difference'),
    [
        ((3, 4, 3), np.diag([1.0, 1.0, 3.0, 1.0]), r'3 x 4 x 3 voxels, not 4 x 4 x 3'),
        ((4, 4, 3), np.diag([1.0, 1.0, 4.0, 1.0]), 'another affine'),
    ],
)
def test_a_mask_on_another_grid_than_the_ncct_is_noted(tree, caplog, shape, affine, difference):
    write(tree / NCCT, shape, affine)
    assert find(tree)[0].lesion.space == 'ncct'
    assert f'its grid is not that of the NCCT ({difference})' in caplog.text


@pytest.mark.parametrize(
    ('name', 'reason'),
    [
        ('sub-1_ses-01_space-ncct_lesion-msk.nii.gz', 'session 01 is not later'),
        ('sub-1_space-ncct_lesion-msk.nii.gz', 'its name has no session'),
    ],
)
def test_a_mask_of_no_later_session_is_logged(tree, caplog, name, reason):
    caplog.set_level('INFO')
    write(tree / name)
    assert find(tree)[0].lesion is None
    assert f'not a follow-up lesion: derivatives/sub-1/ses-02/{name}: ' in caplog.text
    assert reason in caplog.text


def test_parent_of_the_raw_data_need_not_be_listed(tree, monkeypatch):
    write(tree / NCCT)
    listdir = os.listdir

    def refuse(folder='.'):
        if Path(folder) == tree.parents[2]:
            raise PermissionError(folder)
        return listdir(folder)

    monkeypatch.setattr(os, 'listdir', refuse)
    assert find(tree)[0].lesion.space == 'ncct'
