# SPDX-License-Identifier: Apache-2.0
"""Deviations from BIDS are reported in one sentence each."""

import pytest

from ctpprep.inputs.conformance import check_dataset, describe_skipped


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


@pytest.mark.parametrize(
    ('text', 'deviations'),
    [
        ('{"Name": "Heads", "BIDSVersion": "1.10.0"}', []),
        ('{"Name": "Heads"}', ['dataset_description.json has no BIDSVersion']),
        (None, ['there is no dataset_description.json']),
    ],
)
def test_description_is_checked(tmp_path, text, deviations):
    if text is not None:
        (tmp_path / 'dataset_description.json').write_text(text)
    assert check_dataset(tmp_path, []) == deviations


def test_file_names_are_checked(tmp_path):
    (tmp_path / 'dataset_description.json').write_text('{"Name": "x", "BIDSVersion": "1"}')
    for name in ('sub-01_ses-a_ctp.nii.gz', 'perfusion.nii', 'sub-02_ctp.nii.gz'):
        touch(tmp_path / 'sub-01' / name)
    assert check_dataset(tmp_path, ['01']) == [
        'sub-01: perfusion.nii, sub-02_ctp.nii.gz: not a BIDS file name'
    ]


def test_folders_with_images_but_without_sub_are_listed(tmp_path):
    for name in ('Patient1/ct', 'code', 'ignored/ct', 'nested/sub-01/ct', 'sub-01/ct'):
        touch(tmp_path / name / 'x.nii.gz')
    (tmp_path / '.bidsignore').write_text('ignored/\n')
    sentence = 'Patient1: skipped; the folder of a participant is named sub-<label>'
    assert describe_skipped(tmp_path) == sentence
    assert describe_skipped(tmp_path / 'code') == ''
