# SPDX-License-Identifier: Apache-2.0
"""Mirroring and both normalizations, from files to files."""

import json
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest
from nipype.interfaces.base import isdefined

from ctpprep.exceptions import PerfusionError
from ctpprep.interfaces.normalization import MirrorImage, NormalizeContralateral, NormalizeGlobal
from ctpprep.io import nifti
from ctpprep.settings import MethodSettings

SHAPE = (20, 16, 6)
AFFINE = np.diag([4.0, 4.0, 8.0, 1.0])
AFFINE[:3, 3] = -38, -30, -20
LPS = AFFINE @ np.diag([-1.0, -1, 1, 1])
LPS[:2, 3] = 38, 30
AXES = {'RAS': AFFINE, 'LPS': LPS}
LEFT = np.zeros(SHAPE, bool)
LEFT[:10] = True


@pytest.fixture(autouse=True, params=AXES)
def like(request, tmp_path, monkeypatch):
    """Work in an empty folder, in each voxel order; give an image of that order."""
    monkeypatch.chdir(tmp_path)
    nb.save(nb.Nifti1Image(np.zeros(SHAPE, np.uint8), AXES[request.param]), 'like.nii')
    return tmp_path / 'like.nii'


def write(**canonical):
    return {
        name: nifti.save(array, AFFINE, f'{name}.nii', like='like.nii')
        for name, array in canonical.items()
    }


def head(**changed):
    """Maps of a head whose left half has half of the flow and a Tmax of 8 s."""
    maps = {
        'cbf': np.where(LEFT, 25.0, 50.0),
        'cbv': np.where(LEFT, 3.0, 4.0),
        'tmax': np.where(LEFT, 8.0, 1.0),
        'tissue_mask': np.ones(SHAPE, bool),
        'hemispheres': np.where(LEFT, 1, 2).astype(np.uint8),
    }
    return write(**(maps | changed))


def read_json(path):
    return json.loads(Path(path).read_text())


def normalize_global(files, **changed):
    settings = MethodSettings.of(**changed).as_dict('lesion', 'normalization')
    outputs = NormalizeGlobal(**files, settings=settings).run().outputs
    return outputs, read_json(outputs.normalization)


def normalize_contralateral(files, **changed):
    settings = MethodSettings.of(**changed).as_dict('normalization')
    outputs = NormalizeContralateral(**files, settings=settings).run().outputs
    names = ('local', 'homologue_map', 'unassessable_mask')
    # copies: the next call writes the same files
    return [np.array(nifti.load(getattr(outputs, name))[0]) for name in names]


# -- mirror


def test_mirror_flips_left_and_right_on_the_same_grid(like):
    voxels = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    files = write(reference=voxels)
    mirrored = MirrorImage(**files).run().outputs.reference_mirror
    flipped, affine = nifti.load(mirrored)
    np.testing.assert_array_equal(flipped, voxels[::-1])
    np.testing.assert_allclose(affine, AFFINE)
    np.testing.assert_allclose(nb.load(mirrored).affine, nb.load(like).affine)


# -- global


def test_global_maps_are_fractions_of_normal_tissue():
    outputs, measured = normalize_global(head())
    for name, ratio in (('rcbf', 0.5), ('rcbv', 0.75)):
        voxels, _ = nifti.load(getattr(outputs, f'{name}_global'))
        assert np.unique(voxels[LEFT]) == pytest.approx(ratio)
        assert np.unique(voxels[~LEFT]) == pytest.approx(1)
    assert (measured['cbf_reference'], measured['cbv_reference']) == (50, 4)
    assert measured['reference_share'] == 0.5


def test_affected_side_is_the_slower_one():
    _, measured = normalize_global(head())
    assert measured['affected_side'] == 'left'
    assert (measured['tmax_left_s'], measured['tmax_right_s']) == (8, 1)
    assert measured['side_confidence'] == 1


def test_side_that_was_asked_for_is_the_affected_one():
    _, measured = normalize_global(head(), affected_side='right', global_reference='contralateral')
    assert measured['affected_side'] == 'right'
    assert measured['cbf_reference'] == 25  # so the left side is the healthy one
    assert measured['side_confidence'] is None


def test_affected_side_is_the_slower_one_if_both_are_asked_for():
    _, measured = normalize_global(head(), affected_side='both', global_reference='contralateral')
    assert measured['affected_side'] == 'left'


def test_limit_of_normal_tissue_is_that_of_the_settings():
    _, measured = normalize_global(head(), normal_tmax=8.0)
    assert measured['reference_share'] == 1
    assert measured['cbf_reference'] == 37.5


def test_cbv_may_be_absent():
    files = head()
    del files['cbv']
    outputs, measured = normalize_global(files)
    assert Path(outputs.rcbf_global).exists()
    assert 'cbv_reference' not in measured


def test_error_of_no_normal_tissue_mentions_the_aif():
    with pytest.raises(PerfusionError, match=r'0 voxels of tissue with Tmax <= 4 s.*AIF'):
        normalize_global(head(tmax=np.full(SHAPE, 9.0)), least_normal_share=0.0)


def test_fields_of_a_replaced_reference_have_its_reason():
    outputs, measured = normalize_global(head(tmax=np.where(LEFT, 14.0, 9.0)))
    assert measured['reference'] == 'early-contralateral'
    assert (measured['normal_share'], measured['reference_share']) == (0, 0.5)
    assert measured['reference_tmax_limit_s'] == 12
    assert measured['cbf_reference'] == 50
    fields = read_json(outputs.reference_fields)
    assert fields['Reference'] == 'tissue of the right hemisphere with Tmax <= 12.0 s'
    assert 'only 0% of tissue' in fields['ReferenceReason']
    global_fields = read_json(outputs.global_reference_fields)
    assert global_fields == {f'Global{name}': text for name, text in fields.items()}


def test_fields_of_a_sound_reference_have_no_reason():
    outputs, measured = normalize_global(head())
    assert measured['reference'] == 'normal-tmax'
    fields = read_json(outputs.reference_fields)
    assert fields == {'Reference': 'tissue with Tmax <= 4 s'}


# -- contralateral


def test_without_a_mirrored_map_there_is_no_local_one():
    files = {name: relative()[name] for name in ('relative', 'tissue_mask')}
    settings = MethodSettings().as_dict('normalization')
    outputs = NormalizeContralateral(**files, settings=settings).run().outputs
    assert not isdefined(outputs.local)
    assert not isdefined(outputs.unassessable_mask)


def relative(**changed):
    """Global map whose left half is at 0.4, its flipped copy, and tissue everywhere."""
    maps = {
        'relative': np.where(LEFT, 0.4, 1.0),
        'mirrored': np.where(LEFT, 1.0, 0.4),
        'homologue_tissue': np.ones(SHAPE),
        'tissue_mask': np.ones(SHAPE, bool),
    }
    return write(**(maps | changed))


def test_local_map_is_the_fraction_of_the_homologue():
    local, homologue, unassessable = normalize_contralateral(
        relative(), local_sigma_mm=(0.0, 0.0, 0.0)
    )
    np.testing.assert_allclose(local, np.where(LEFT, 0.4, 2.5), rtol=1e-5)
    np.testing.assert_allclose(homologue, np.where(LEFT, 1.0, 0.4), rtol=1e-5)
    assert not unassessable.any()


def test_sigma_is_along_the_axes_of_the_patient():
    """Only along y: a border between left and right stays sharp."""
    sharp, _, _ = normalize_contralateral(relative(), local_sigma_mm=(0.0, 20.0, 0.0))
    blurred, _, _ = normalize_contralateral(relative(), local_sigma_mm=(20.0, 0.0, 0.0))
    np.testing.assert_allclose(sharp, np.where(LEFT, 0.4, 2.5), rtol=1e-4)
    assert blurred[9, 8, 3] > 0.5


def test_homologue_is_capped():
    local, homologue, _ = normalize_contralateral(
        relative(mirrored=np.full(SHAPE, 6.0)), local_clip=2.0
    )
    assert homologue.max() == pytest.approx(6)  # written before the cap
    assert local[LEFT].mean() == pytest.approx(0.2, rel=1e-4)


def test_mixture_with_zero_is_divided_out():
    """Interpolation at the rim of tissue mixes with the 0 outside."""
    share = np.ones(SHAPE)
    share[:, :4] = 0.8
    mirrored = np.where(LEFT, 1.0, 0.4) * share
    _, homologue, _ = normalize_contralateral(relative(mirrored=mirrored, homologue_tissue=share))
    np.testing.assert_allclose(homologue, np.where(LEFT, 1.0, 0.4), rtol=1e-5)


def test_tissue_without_a_homologue_is_not_assessable():
    share = np.ones(SHAPE)
    share[:, :, :2] = 0
    local, homologue, unassessable = normalize_contralateral(
        relative(homologue_tissue=share), local_sigma_mm=(4.0, 4.0, 0.0)
    )
    assert unassessable[:, :, :2].all()
    assert not unassessable[:, :, 2:].any()
    assert not local[:, :, :2].any()
    assert not homologue[:, :, :2].any()
    assert np.isfinite(local).all()


def test_homologue_without_flow_is_not_divided_by():
    mirrored = np.full(SHAPE, 0.05)
    local, _, unassessable = normalize_contralateral(relative(mirrored=mirrored))
    assert unassessable.all()
    assert not local.any()
