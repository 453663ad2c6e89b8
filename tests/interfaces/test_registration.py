# SPDX-License-Identifier: Apache-2.0
"""Registrations from files to files, in another voxel order than that of arrays."""

import json
from pathlib import Path
from types import SimpleNamespace

import nibabel as nb
import numpy as np
import pytest
from nipype.interfaces.base import isdefined
from scipy import ndimage

from ctpprep.exceptions import PerfusionError
from ctpprep.interfaces.registration import (
    ApplyMirror,
    FindHomologues,
    RegisterMirror,
    RegisterNCCT,
)
from ctpprep.io import nifti
from ctpprep.perfusion import symmetry
from ctpprep.perfusion.alignment import Misalignment
from ctpprep.phantom import frame_affine
from ctpprep.registration import apply_transform
from ctpprep.settings import MethodSettings

SHAPE = (60, 70, 12)
TILTED = frame_affine(np.array([6.0, 0, 0, 0, 0, np.radians(6)]), np.zeros(3))
SEED = 1


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(array, affine, name):
    """Save a canonical array in the voxel order LPS."""
    lps = affine @ np.diag([-1.0, -1, 1, 1])
    lps[:2, 3] = -affine[:2, 3]
    nb.save(nb.Nifti1Image(np.zeros(array.shape, np.uint8), lps), 'like.nii')
    return str(Path(nifti.save(array, affine, f'{name}.nii', like='like.nii')).absolute())


def read_json(path):
    return json.loads(Path(path).read_text())


def mirror(head, entry=None, **changed):
    """Register the mirrored tilted head and find its homologues, with the truth beside them."""
    reference, brain = head.draw(TILTED)
    brain_mask = write(brain, head.affine, 'brain')
    outputs = RegisterMirror(
        reference=write(reference, head.affine, 'reference'), brain_mask=brain_mask,
        settings=MethodSettings.of(random_seed=SEED, **changed).as_dict('symmetry', 'random'),
        **({'entry': entry} if entry else {}),
    ).run().outputs  # fmt: skip
    trusted = isdefined(outputs.mirror_to_reference)
    sides = FindHomologues(
        brain_mask=brain_mask, tissue_mask=brain_mask, homologues=outputs.homologues,
        symmetry=outputs.symmetry,
        **({'transform': outputs.mirror_to_reference} if trusted else {}),
    ).run().outputs  # fmt: skip
    where = symmetry.world_coordinates(SHAPE, head.affine)
    in_head = nb.affines.apply_affine(np.linalg.inv(TILTED), where)
    homologues, _ = nifti.load(outputs.homologues)
    return SimpleNamespace(
        measured=read_json(outputs.symmetry), outputs=outputs, brain=brain, where=where,
        hemispheres=nifti.load(sides.hemispheres)[0], homologue_tissue=sides.homologue_tissue,
        right=in_head[..., 0], homologues=homologues,
        seen=brain & np.isfinite(homologues).all(axis=-1),
        truth=nb.affines.apply_affine(TILTED, in_head * (-1, 1, 1)),
    )  # fmt: skip


@pytest.fixture(scope='module')
def tilted(symmetric_head, tmp_path_factory):
    """Mirror a head that is shifted by 6 mm and turned by 6 degrees."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp('tilted'))
        return mirror(symmetric_head)


@pytest.fixture
def register_as_before(tilted, monkeypatch):
    """Skip the registration of the head that is registered already."""
    found = {
        name: getattr(tilted.outputs, name)
        for name in ('mirror_to_reference', 'reference_to_mirror')
    }
    monkeypatch.setattr('ctpprep.registration.MirrorSyN.register', lambda *_: dict(found))


# -- mirror


def test_homologues_are_where_the_other_side_is(tilted):
    error = np.linalg.norm(tilted.homologues - tilted.truth, axis=-1)[tilted.seen]
    assert tilted.seen.sum() > 0.9 * tilted.brain.sum()
    assert tilted.measured['withheld'] == ''
    assert np.median(error) < 3.0
    assert np.percentile(error, 90) < 6.0


def test_hemispheres_follow_the_tilted_head(tilted):
    clear = tilted.seen & (np.abs(tilted.right) > 3)
    expected = np.where(tilted.right > 0, symmetry.RIGHT, symmetry.LEFT)
    assert (tilted.hemispheres == expected)[clear].mean() > 0.99


def test_mirrored_map_has_the_value_of_the_other_side(tilted, symmetric_head):
    mirrored = ApplyMirror(
        relative=write(tilted.where[..., 0], symmetric_head.affine, 'x'),
        transform=tilted.outputs.mirror_to_reference,
    ).run().outputs.mirrored  # fmt: skip
    np.testing.assert_allclose(
        nifti.load(mirrored)[0][tilted.seen], tilted.homologues[..., 0][tilted.seen], atol=1e-3
    )


def test_mirrored_reference_looks_like_the_reference(tilted):
    reference, reflected, warped = (
        nifti.load(Path(tilted.outputs.homologue_reference).with_name(f'{name}.nii'))[0]
        for name in ('reference', 'reference_reflected', 'homologue_reference')
    )
    inner = ndimage.binary_erosion(tilted.brain, iterations=3) & tilted.seen
    for image in (reflected, warped):
        assert np.corrcoef(reference[inner], image[inner])[0, 1] > 0.7


def test_share_of_tissue_at_the_homologue_is_a_fraction(tilted):
    share = nifti.load(tilted.homologue_tissue)[0]
    assert share.min() >= 0
    assert share.max() <= 1 + 1e-5
    deep = ndimage.binary_erosion(tilted.brain, iterations=3) & tilted.seen
    assert share[deep].mean() > 0.99


@pytest.mark.usefixtures('register_as_before')
def test_registration_that_is_not_trusted_gives_no_transform(symmetric_head, monkeypatch):
    far = Misalignment(np.full(SHAPE, 9.0, np.float32), 9.0, 0.0)
    monkeypatch.setattr('ctpprep.perfusion.alignment.estimate_misalignment', lambda *_: far)
    withheld = mirror(symmetric_head)
    assert withheld.measured['withheld'].startswith('withheld: homologues are off by about 9.0 mm')
    assert not isdefined(withheld.outputs.mirror_to_reference)
    assert not isdefined(withheld.outputs.reference_to_mirror)
    assert not isdefined(withheld.homologue_tissue)
    assert nifti.load_mask(withheld.outputs.misaligned_mask).all()
    # a plane divides this head, which is symmetric, as well
    clear = withheld.brain & (np.abs(withheld.right) > 3)
    expected = np.where(withheld.right > 0, symmetry.RIGHT, symmetry.LEFT)
    assert (withheld.hemispheres == expected)[clear].mean() > 0.99


@pytest.mark.usefixtures('register_as_before')
def test_limit_is_that_of_the_image_that_was_mirrored(symmetric_head, tmp_path):
    entry = tmp_path / 'entry.json'
    entry.write_text('{"reference_image_from": "cbv"}')
    limits = {'mirror_most_mm': 0.1, 'map_least_similarity': 0.3}
    assert not mirror(symmetric_head, entry=str(entry), **limits).measured['withheld']


def test_registration_without_a_result_leaves_out_its_images(symmetric_head, monkeypatch):
    monkeypatch.setattr('ctpprep.registration.MirrorSyN.register', lambda *_: None)
    reference, brain = symmetric_head.draw()
    outputs = RegisterMirror(
        reference=write(reference, symmetric_head.affine, 'reference'),
        brain_mask=write(brain, symmetric_head.affine, 'brain'),
        settings=MethodSettings().as_dict('symmetry', 'random'),
    ).run().outputs  # fmt: skip
    assert 'could not be registered' in read_json(outputs.symmetry)['withheld']
    assert not isdefined(outputs.homologues)
    assert not isdefined(outputs.homologue_reference)
    assert isdefined(outputs.reference_reflected)


def test_nothing_is_mirrored_without_a_transform(symmetric_head):
    path = write(symmetric_head.draw()[0], symmetric_head.affine, 'rcbf')
    assert not isdefined(ApplyMirror(relative=path).run().outputs.mirrored)


# -- non-contrast CT


def test_reference_is_registered_to_the_ncct_of_its_session(symmetric_head):
    pose = frame_affine(np.array([8.0, -6, 3, 0, 0.05, np.radians(6)]), np.zeros(3))
    affine = symmetric_head.affine
    method = MethodSettings.of(ncct_grid_mm=3.0, random_seed=SEED)
    transform = RegisterNCCT(
        reference=write(symmetric_head.draw()[0], affine, 'reference'),
        ncct=write(symmetric_head.draw(pose)[0], affine, 'ncct'),
        settings=method.as_dict('coregistration', 'random'),
    ).run().outputs.reference_to_ncct  # fmt: skip
    where = symmetry.world_coordinates(SHAPE, affine)
    # a point of the NCCT shows what is at pose^-1 of it in the reference
    expected = nb.affines.apply_affine(np.linalg.inv(pose), where)
    inner = np.zeros(SHAPE, bool)
    inner[8:-8, 8:-8, 2:-2] = symmetric_head.draw(pose)[1][8:-8, 8:-8, 2:-2]
    for axis in range(3):
        home = apply_transform(where[..., axis], affine, transform, outside=1e6)
        assert np.median(np.abs(home - expected[..., axis])[inner]) < 1.0


@pytest.fixture
def lopsided(symmetric_head):
    """Draw a head whose skull is thick on the left side in front."""

    def draw(pose):
        density, inside = symmetric_head.draw(pose)
        world = symmetry.world_coordinates(SHAPE, symmetric_head.affine)
        x, y, _ = np.moveaxis(nb.affines.apply_affine(np.linalg.inv(pose), world), -1, 0)
        return np.where(inside & (x < -40) & (y > 5), 900.0, density).astype(np.float32)

    return draw


@pytest.mark.parametrize('is_mirrored', [False, True])
def test_a_series_that_is_mirrored_against_its_ncct_is_refused(
    symmetric_head, lopsided, is_mirrored
):
    affine = symmetric_head.affine
    reference = lopsided(np.eye(4))[:: -1 if is_mirrored else 1]
    method = MethodSettings.of(ncct_grid_mm=3.0, random_seed=SEED)
    register = RegisterNCCT(
        reference=write(reference, affine, 'reference'),
        ncct=write(lopsided(TILTED), affine, 'ncct'),
        settings=method.as_dict('coregistration', 'random'),
    )
    if not is_mirrored:
        assert register.run().outputs.reference_to_ncct
        return
    with pytest.raises(PerfusionError, match=r'ncct\.nii: the mirror image .* fits it better'):
        register.run()
