# SPDX-License-Identifier: Apache-2.0
"""The follow-up of a phantom: volumes of the infarct, poses, contrast, and the shape of the tree."""

from dataclasses import replace

import nibabel as nb
import numpy as np
import pytest
from scipy import ndimage

from ctpprep.phantom.followup import FollowUpSettings, grow_infarct, make_followup, write_isles

COARSE = FollowUpSettings(voxel_size_mm=(3.0, 3.0, 5.0), ncct_voxel_size_mm=(3.0, 3.0, 5.0))


@pytest.fixture(scope='module')
def followup(coarse_head):
    return make_followup(coarse_head, COARSE)


def centre_of(mask, affine):
    return affine[:3, :3] @ ndimage.center_of_mass(mask) + affine[:3, 3]


def test_infarct_after_reperfusion_is_the_core(coarse_head, followup):
    np.testing.assert_array_equal(followup.infarct, coarse_head.truth['core'])


def test_infarct_without_reperfusion_grows_by_the_share_of_the_penumbra(coarse_head):
    core, penumbra = coarse_head.truth['core'], coarse_head.truth['penumbra']
    grown = grow_infarct(coarse_head, replace(COARSE, reperfused=False, growth=0.5))
    assert grown.sum() == pytest.approx(core.sum() + penumbra.sum() / 2, abs=1)
    assert not (grown & ~(core | penumbra)).any()
    assert grown[core].all()


def test_oedema_multiplies_the_volume_and_stays_in_the_brain(coarse_head):
    swollen = grow_infarct(coarse_head, replace(COARSE, oedema=1.3))
    assert swollen.sum() == pytest.approx(1.3 * coarse_head.truth['core'].sum(), abs=1)
    assert coarse_head.truth['brain'][swollen & ~coarse_head.truth['core']].all()


def test_lesion_of_the_scanner_is_where_the_true_transform_says(coarse_head, followup):
    point = centre_of(followup.infarct, coarse_head.affine)
    moved = centre_of(followup.lesion.voxels, followup.lesion.affine)
    expected = followup.to_mri[:3, :3] @ point + followup.to_mri[:3, 3]
    assert np.linalg.norm(moved - expected) < 1.5
    assert np.linalg.norm(moved - point) > 5  # another pose


def test_lesion_in_the_space_of_the_ncct_keeps_its_volume(coarse_head, followup):
    moved = followup.in_ncct_space()['lesion']
    voxel_ml = [
        abs(np.linalg.det(affine[:3, :3])) for affine in (moved.affine, coarse_head.affine)
    ]
    ratio = moved.voxels.sum() * voxel_ml[0] / (followup.infarct.sum() * voxel_ml[1])
    assert ratio == pytest.approx(1, abs=0.12)


def test_infarct_is_bright_on_dwi_and_dark_on_adc(followup):
    lesion = ndimage.binary_erosion(followup.lesion.voxels)
    tissue = (followup.dwi.voxels > 200) & ~ndimage.binary_dilation(followup.lesion.voxels)
    assert np.median(followup.dwi.voxels[lesion]) > 1.5 * np.median(followup.dwi.voxels[tissue])
    assert np.median(followup.adc.voxels[lesion]) < np.median(followup.adc.voxels[tissue])


@pytest.mark.parametrize(
    ('space', 'name'),
    [('ncct', 'sub-a_ses-02_space-ncct_lesion-msk'), ('mri', 'sub-a_ses-02_lesion-msk')],
)
def test_tree_has_the_names_and_quirks_of_isles(coarse_head, followup, tmp_path, space, name):
    path = write_isles(coarse_head, followup, tmp_path, 'a', space)
    assert path.relative_to(tmp_path).as_posix() == 'raw_data/sub-a/ses-01/sub-a_ses-01_ctp.nii.gz'
    assert nb.load(path).header['pixdim'][4] == 0
    assert not list(tmp_path.rglob('*.json'))
    mask = tmp_path / 'derivatives/sub-a/ses-02' / f'{name}.nii.gz'
    ncct = nb.load(path.with_name('sub-a_ses-01_ncct.nii.gz'))
    assert (nb.load(mask).shape == ncct.shape) == (space == 'ncct')


@pytest.mark.parametrize('wrong', [{'growth': 1.2}, {'oedema': 0.9}])
def test_impossible_courses_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        FollowUpSettings(**wrong)
