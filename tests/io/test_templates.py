# SPDX-License-Identifier: Apache-2.0
"""Templates and atlases on this machine, and what is said of those that are not."""

from pathlib import Path

import nibabel as nb
import numpy as np
import pytest

from ctpprep.exceptions import UsageError
from ctpprep.io.templates import (
    atlas_space,
    check_spaces,
    find_spaces,
    find_template,
    load_atlas,
    load_template,
)
from ctpprep.settings import USERS_TEMPLATES

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """A folder of TemplateFlow with one template."""
    monkeypatch.setenv(USERS_TEMPLATES, str(tmp_path))
    folder = tmp_path / 'tpl-MNI152NLin2009cAsym'
    folder.mkdir()
    for tissue, level in (('GM', 0.25), ('WM', 0.75)):
        image = nb.Nifti1Image(np.full((3, 4, 5), level, np.float32), np.diag([-2.0, 2, 2, 1]))
        nb.save(image, folder / f'tpl-MNI152NLin2009cAsym_res-02_label-{tissue}_probseg.nii.gz')
    return folder


@pytest.fixture
def atlas(tmp_path):
    def write(labels=(1, 2), table='index\tname\n1\tleft MCA\n2\tright MCA\n'):
        voxels = np.zeros((2, 2, 2), np.float32)
        voxels[0, 0] = labels
        nb.save(nb.Nifti1Image(voxels, AFFINE), tmp_path / 'atlas.nii.gz')
        (tmp_path / 'atlas.tsv').write_text(table)
        return tmp_path / 'atlas.nii.gz', tmp_path / 'atlas.tsv'

    return write


def test_bundled_template_is_symmetric_on_a_grid_of_2_mm():
    grey, white, affine = load_template(find_template('MNI152NLin2009aSym'))
    assert np.diag(affine)[:3].tolist() == [2, 2, 2]
    assert affine[0, 3] == -(affine @ [grey.shape[0] - 1, 0, 0, 1])[0]
    for tissue in (grey, white):
        np.testing.assert_allclose(tissue, tissue[::-1], atol=1e-6)


def test_template_of_an_archive_is_read_in_canonical_order(archive):
    files = find_template('MNI152NLin2009cAsym:res-2')
    grey, white, affine = load_template(files)
    assert (files.space, files.resolution) == ('MNI152NLin2009cAsym', 2)
    assert (grey.max(), white.max(), affine[0, 0]) == (0.25, 0.75, 2)


def test_a_file_of_the_archive_without_content_is_missing(archive):
    (archive / 'tpl-MNI152NLin2009cAsym_res-02_label-WM_probseg.nii.gz').write_bytes(b'')
    with pytest.raises(
        UsageError, match='fetch them with templateflow, or use MNI152NLin2009aSym'
    ):
        find_template('MNI152NLin2009cAsym')


@pytest.mark.parametrize('spec', ['', 'MNI152 T1', 'MNI152NLin2009cAsym:2', 'anat:res-native'])
def test_what_names_no_template_is_refused(spec):
    with pytest.raises(UsageError, match='--output-spaces needs templates'):
        find_template(spec)


def test_resolutions_of_a_template_are_one_space(archive):
    specs = 'MNI152NLin2009aSym:res-1', 'MNI152NLin2009cAsym', 'MNI152NLin2009aSym'
    first, second = find_spaces(specs)
    assert [files.spec for files in first.grids] == [specs[0], 'MNI152NLin2009aSym:res-2']
    assert (second.space, first.is_first, second.is_first) == ('MNI152NLin2009cAsym', True, False)
    assert find_spaces(['MNI152NLin2009aSym:res-1:res-2']) == (first,)


@pytest.mark.parametrize('again', ['', ':res-2', ':res-02', ':res-1:res-2'])
def test_a_template_that_is_named_twice_is_refused(again):
    with pytest.raises(UsageError, match='--output-spaces has MNI152NLin2009aSym:res-2 twice'):
        find_spaces(['MNI152NLin2009aSym', f'MNI152NLin2009aSym{again}'])


@pytest.mark.parametrize(
    ('name', 'space'),
    [
        ('tpl-MNI152NLin2009cAsym_res-02_atlas-DKT_dseg.nii.gz', 'MNI152NLin2009cAsym'),
        ('atlas-A_space-MNI152NLin2009aSym_dseg.nii', 'MNI152NLin2009aSym'),
        ('arteries.nii.gz', 'MNI152NLin2009aSym'),
    ],
)
def test_an_atlas_is_in_the_space_of_its_name_or_the_first(archive, name, space):
    spaces = find_spaces(['MNI152NLin2009aSym', 'MNI152NLin2009cAsym'])
    assert atlas_space(Path(name), spaces).space == space


def test_an_atlas_in_another_space_is_refused():
    with pytest.raises(UsageError, match='add MNI152NLin6Asym to --output-spaces'):
        atlas_space(
            Path('tpl-MNI152NLin6Asym_dseg.nii.gz'), find_spaces(['MNI152NLin2009aSym:res-2'])
        )


def test_an_atlas_is_read_with_its_names(atlas):
    labels, affine, names = load_atlas(*atlas())
    assert names == {1: 'left MCA', 2: 'right MCA'}
    assert labels[0, 0].tolist() == [1, 2]
    assert affine.tolist() == AFFINE.tolist()


@pytest.mark.parametrize(
    ('labels', 'table', 'message'),
    [
        ((0.5, 1), 'index\tname\n1\tx\n', 'whole numbers'),
        ((1, 2), 'label\tname\n1\tx\n', 'columns index'),
        ((1, 2), 'index\tname\none\tx\n', 'columns index'),
        ((1, 2), 'index\tname\n9\tx\n', 'none of the regions'),
    ],
)
def test_an_atlas_that_cannot_be_used_is_refused(atlas, labels, table, message):
    with pytest.raises(UsageError, match=message):
        load_atlas(*atlas(labels, table))


def test_an_atlas_needs_names_and_a_space(atlas):
    path, table = atlas()
    with pytest.raises(UsageError, match='--atlas needs --atlas-labels'):
        check_spaces(['MNI152NLin2009aSym'], path, None)
    with pytest.raises(UsageError, match='--atlas needs --output-spaces'):
        check_spaces([], path, table)
    check_spaces(['MNI152NLin2009aSym'], path, table)
