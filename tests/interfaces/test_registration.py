# SPDX-License-Identifier: Apache-2.0
"""Registrations recover what was planted, in the coordinates of the patient."""

import json
from pathlib import Path
from types import SimpleNamespace

import nibabel as nb
import numpy as np
import pytest
from nipype.interfaces.base import isdefined
from scipy import ndimage

from ctpprep.interfaces import preprocessing, registration
from ctpprep.io import nifti
from ctpprep.perfusion import symmetry
from ctpprep.phantom import frame_affine
from ctpprep.settings import MethodSettings

SHAPE, SIZE = (60, 70, 12), (3.0, 3.0, 6.0)
AFFINE = np.diag([*SIZE, 1.0])
AFFINE[:3, 3] = -(np.array(SHAPE) - 1) / 2 * SIZE
LPS_FILE = AFFINE @ np.diag([-1.0, -1, 1, 1])
LPS_FILE[:2, 3] = -AFFINE[:2, 3]
OBLIQUE = frame_affine(np.array([3.0, -5, 8, 0.1, 0.2, 0.3]), np.zeros(3)) @ AFFINE
TILTED = frame_affine(np.array([6.0, 0, 0, 0, 0, np.radians(6)]), np.zeros(3))
SEED = 1


def _texture():
    """Smooth random field on a 1 mm grid, the same left and right."""
    noise = np.random.default_rng(0).normal(size=(181, 211, 81))
    field = ndimage.gaussian_filter(noise + noise[::-1], (6, 6, 6))
    return field / field.std()


@pytest.fixture(scope='module')
def draw():
    """Draw a symmetric head whose point p of the head lies at pose(p) in the patient."""
    texture = _texture()

    def make(pose=None, affine=AFFINE):
        to_head = np.linalg.inv(np.eye(4) if pose is None else pose) @ affine
        index = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing='ij'), axis=-1)
        where = index @ to_head[:3, :3].T + to_head[:3, 3]
        x, y, z = np.moveaxis(where, -1, 0)
        radius = np.sqrt((x / 65) ** 2 + (y / 80) ** 2 + (z / 90) ** 2)
        at = np.stack([x + 90, y + 105, z + 40])
        soft = 33 + 5 * ndimage.map_coordinates(texture, at, order=1, mode='nearest')
        soft = np.where((np.abs(x) < 22) & (np.abs(x) > 5) & (np.abs(y + 8) < 24), 8, soft)
        outside = np.select([radius < 1.08, radius < 1.15], [900.0, 40.0], -1000.0)
        head = np.where(radius < 1, soft, outside)
        return ndimage.gaussian_filter(head, (0.4, 0.4, 0)).astype(np.float32), radius < 0.98

    return make


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(array, affine, name, like_affine):
    """Save a canonical array in the voxel order of an affine."""
    model = nb.Nifti1Image(np.zeros(array.shape[:3], np.uint8), like_affine)
    nb.save(model, 'like.nii')
    return nifti.save(array, affine, f'{name}.nii', like='like.nii')


# -- conventions


@pytest.mark.parametrize('affine', [AFFINE, OBLIQUE], ids=['straight', 'oblique'])
def test_ants_sees_each_voxel_at_its_place(affine):
    import ants

    image = registration.to_ants(np.zeros(SHAPE), affine)
    for index in ((0, 0, 0), (7, 3, 2), (59, 69, 11)):
        lps = ants.transform_index_to_physical_point(image, index)
        np.testing.assert_allclose(
            np.array(lps) * (-1, -1, 1), nb.affines.apply_affine(affine, index), atol=1e-3
        )


def test_the_coarse_image_lies_where_the_fine_one_lay_and_air_is_0():
    import ants

    fine = symmetry.world_coordinates(SHAPE, OBLIQUE)[..., 0]
    fine[:2] = np.nan
    coarse = registration._windowed(fine, OBLIQUE, (-60.0, 60.0), 6.0)
    assert coarse.shape == (30, 35, 12)
    for index in ((8, 20, 3), (20, 9, 7)):
        x = -ants.transform_index_to_physical_point(coarse, index)[0]
        assert coarse.numpy()[index] == pytest.approx(x + 60, abs=1e-2)
    assert not coarse.numpy()[0].any()


def test_frame_transforms_are_read_by_ants_as_they_were_written():
    import ants

    point = np.array([10.0, -20, 30])
    for row in ([1.0, 2, 3, 0.05, 0.1, -0.07], [0, -2, 1, -0.05, 0, 0.07]):
        transform = frame_affine(np.array(row), np.zeros(3))
        path = preprocessing.write_frame_transforms([transform], 'frame.txt')
        moved = ants.read_transform(path).apply_to_point((point * (-1, -1, 1)).tolist())
        np.testing.assert_allclose(
            np.array(moved) * (-1, -1, 1), (transform @ [*point, 1])[:3], atol=1e-4
        )


def test_frame_transforms_stand_in_the_order_of_the_frames():
    transforms = [np.eye(4), np.eye(4), np.eye(4)]
    transforms[1] = frame_affine(np.array([4.0, 0, 0, 0, 0, 0]), np.zeros(3))
    with open(preprocessing.write_frame_transforms(transforms, 'frames.txt')) as file:
        lines = [line for line in file if line.startswith('Parameters')]
    assert [float(line.split()[10]) for line in lines] == [0, -4, 0]


# -- motion


def estimate(path):
    return np.load(
        preprocessing.EstimateMotion(
            ctp_working=path, motion_grid_mm=3.5, motion_window_hu=(-500.0, 1500.0),
            motion_smoothing_mm=[6.0, 3.0], motion_reject_similarity=0.5,
        ).run().outputs.transforms
    )  # fmt: skip


@pytest.mark.parametrize(
    ('affine', 'file_affine'), [(AFFINE, LPS_FILE), (OBLIQUE, OBLIQUE)], ids=['LPS', 'oblique']
)
def test_motion_of_2_mm_and_2_degrees_is_found(draw, affine, file_affine):
    poses = [np.eye(4)] + [
        frame_affine(np.array(row), np.array([0.0, 0, 0]))
        for row in ([2.0, 0, 0, 0, 0, 0], [0, -1.2, 1.6, 0, 0, np.radians(2)])
    ]
    frames = [draw(pose, affine)[0] for pose in poses]
    # the bolus must not look like motion
    bright = np.where((frames[1] > 15) & (frames[1] < 100), 20, 0)
    series = np.stack([frames[0], frames[1] + bright, frames[2]], axis=-1)
    found = estimate(write(series, affine, 'series', file_affine))
    np.testing.assert_array_equal(found[0], np.eye(4))
    points = np.random.default_rng(0).uniform(-1, 1, (200, 3)) * (50, 60, 30)
    for pose, transform in zip(poses[1:], found[1:], strict=True):
        apart = nb.affines.apply_affine(pose, points) - nb.affines.apply_affine(transform, points)
        # a voxel measures 3 x 3 x 6 mm, its skull is drawn without partial volume
        assert np.linalg.norm(apart, axis=1).mean() < 0.3


# -- mirror


def mirror(draw, pose, entry='', **changed):
    """Register the mirrored head; give the truth beside what was found."""
    reference, brain = draw(pose)
    inputs = {
        'reference': write(reference, AFFINE, 'reference', LPS_FILE),
        'brain_mask': write(brain, AFFINE, 'brain', LPS_FILE),
    }
    flipped = write(symmetry.mirror(reference), AFFINE, 'flipped', LPS_FILE)
    method = MethodSettings.of(random_seed=SEED, **changed)
    settings = method.stage('symmetry')
    if entry:
        settings |= {'entry': entry, 'map_least_similarity': method.symmetry.map_least_similarity}
    outputs = registration.RegisterMirror(
        reference_mirror=flipped, **settings, **inputs
    ).run().outputs  # fmt: skip
    given = {'brain_mask': inputs['brain_mask'], 'tissue_mask': inputs['brain_mask']}
    if isdefined(outputs.mirror_to_reference):
        given['transform'] = outputs.mirror_to_reference
    found = registration.FindHomologues(
        homologues=outputs.homologues, symmetry=outputs.symmetry, **given
    ).run().outputs  # fmt: skip
    where = symmetry.world_coordinates(SHAPE, AFFINE)
    in_head = nb.affines.apply_affine(np.linalg.inv(pose), where)
    homologues, _ = nifti.load(outputs.homologues)
    return SimpleNamespace(
        facts=json.loads(Path(outputs.symmetry).read_text()),
        outputs=outputs, found=found, brain=brain, where=where, in_head=in_head,
        homologues=homologues, seen=brain & np.isfinite(homologues).all(axis=-1),
        truth=nb.affines.apply_affine(pose, in_head * (-1, 1, 1)),
    )  # fmt: skip


@pytest.fixture(scope='module')
def tilted(draw, tmp_path_factory):
    """Mirror a head that is shifted by 6 mm and turned by 6 degrees."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp('tilted'))
        return mirror(draw, TILTED)


def test_homologues_lie_where_the_other_side_is(tilted):
    apart = np.linalg.norm(tilted.homologues - tilted.truth, axis=-1)[tilted.seen]
    assert tilted.seen.sum() > 0.9 * tilted.brain.sum()
    assert tilted.facts['mirror_similarity'] > 0.7
    assert tilted.facts['mirror_folding'] < 0.001
    assert tilted.facts['withheld'] == ''
    assert np.median(apart) < 3.0
    assert np.percentile(apart, 90) < 6.0


def test_hemispheres_follow_the_tilted_head(tilted):
    hemispheres = nifti.load(tilted.found.hemispheres)[0]
    right = tilted.in_head[..., 0]
    clear = tilted.seen & (np.abs(right) > 3)
    expected = np.where(right > 0, symmetry.RIGHT, symmetry.LEFT)
    assert (hemispheres == expected)[clear].mean() > 0.99


def test_mirrored_map_holds_the_value_of_the_other_side(tilted):
    path = write(tilted.where[..., 0], AFFINE, 'x', LPS_FILE)
    applied = registration.ApplyMirror(
        rcbv_global=path, transform=tilted.outputs.mirror_to_reference
    ).run().outputs.rcbv_mirrored  # fmt: skip
    np.testing.assert_allclose(
        nifti.load(applied)[0][tilted.seen], tilted.homologues[..., 0][tilted.seen], atol=1e-3
    )


def test_share_of_tissue_at_the_homologue_is_a_share(tilted):
    share = nifti.load(tilted.found.homologue_tissue)[0]
    assert share.min() >= 0
    assert share.max() <= 1 + 1e-5
    deep = ndimage.binary_erosion(tilted.brain, iterations=3) & tilted.seen
    assert share[deep].mean() > 0.99


def test_the_inverse_brings_a_homologue_back(tilted):
    y = tilted.where[..., 1]
    there = registration.apply_transform(y, AFFINE, tilted.outputs.reference_to_mirror)
    back = registration.apply_transform(there, AFFINE, tilted.outputs.mirror_to_reference)
    inner = ndimage.binary_erosion(tilted.brain, iterations=3)
    assert np.abs(back - y)[inner].mean() < 0.5


def test_a_registration_that_is_not_trusted_gives_no_transform(draw):
    withheld = mirror(draw, TILTED, mirror_least_similarity=1.0)
    outputs = withheld.outputs
    assert withheld.facts['withheld'].startswith('withheld: the mirrored brain does not match')
    assert not isdefined(outputs.mirror_to_reference)
    assert not isdefined(outputs.reference_to_mirror)
    assert not isdefined(withheld.found.homologue_tissue)
    # a plane divides this head, which is symmetric, as well
    hemispheres = nifti.load(withheld.found.hemispheres)[0]
    clear = withheld.brain & (np.abs(withheld.in_head[..., 0]) > 3)
    expected = np.where(withheld.in_head[..., 0] > 0, symmetry.RIGHT, symmetry.LEFT)
    assert (hemispheres == expected)[clear].mean() > 0.99


@pytest.fixture
def attempts(draw, monkeypatch):
    """Judge registrations of planted quality; give the facts."""

    def make(*qualities, **changed):
        reference, brain = draw()
        found = iter(qualities)

        def attempt(self, start, plane):
            if (quality := next(found)) is None:
                return None
            similarity, folding = quality
            score = similarity if folding <= self.inputs.mirror_most_folding else -folding
            zero = np.zeros(SHAPE, np.float32)
            transforms = dict.fromkeys(('mirror_to_reference', 'reference_to_mirror'), __file__)
            return registration._Mirrored(
                start, transforms, np.stack([zero] * 3, -1), zero, similarity, folding, score
            )

        monkeypatch.setattr(registration.RegisterMirror, '_attempt', attempt)
        outputs = registration.RegisterMirror(
            reference=write(reference, AFFINE, 'reference', LPS_FILE),
            reference_mirror=write(reference, AFFINE, 'flipped', LPS_FILE),
            brain_mask=write(brain, AFFINE, 'brain', LPS_FILE),
            **MethodSettings.of(**changed).stage('symmetry'),
        ).run().outputs  # fmt: skip
        return outputs, json.loads(Path(outputs.symmetry).read_text())

    return make


def test_a_good_registration_is_not_repeated(attempts):
    _, facts = attempts((0.75, 0.0))
    assert (facts['mirror_attempts'], facts['mirror_start']) == (1, 'plane')


def test_a_poor_registration_is_tried_from_elsewhere_and_the_best_one_counts(attempts):
    _, facts = attempts((0.6, 0.0), (0.65, 0.0), (0.5, 0.0))
    assert (facts['mirror_attempts'], facts['mirror_start']) == (3, 'plane and affine')
    assert facts['mirror_similarity'] == 0.65
    _, facts = attempts((0.6, 0.0), (0.71, 0.0))
    assert facts['mirror_attempts'] == 2


def test_a_folded_registration_counts_less_than_one_that_does_not(attempts):
    _, facts = attempts((0.9, 0.3), (0.65, 0.0), (0.5, 0.0))
    assert facts['mirror_start'] == 'plane and affine'
    assert facts['withheld'] == ''


def test_where_ants_finds_nothing_a_plane_is_left(attempts):
    outputs, facts = attempts(None, None, None)
    assert 'could not be registered' in facts['withheld']
    assert (facts['mirror_similarity'], facts['mirror_folding']) == (0, 1)
    assert facts['hemisphere_plane']['normal'][0] > 0.99
    assert not isdefined(outputs.homologues)


def test_every_start_brings_the_mirror_home(draw):
    _, truth = draw(TILTED)
    found = mirror(draw, TILTED, mirror_retry_similarity=1.0)
    assert found.facts['mirror_attempts'] == 3
    assert found.facts['withheld'] == ''
    for start in registration.ATTEMPTS:
        transform = Path(start.replace(' ', '_')) / 'mirror_to_reference.h5'
        where = symmetry.world_coordinates(SHAPE, AFFINE)[::-1]
        x = registration.apply_transform(where[..., 0], AFFINE, transform)
        inner = ndimage.binary_erosion(truth, iterations=3)
        assert np.median(np.abs(x - found.truth[..., 0])[inner]) < 2, start


def test_the_limit_is_that_of_the_image_that_was_mirrored(draw, tmp_path):
    entry = tmp_path / 'entry.json'
    entry.write_text('{"reference_image_from": "cbv"}')
    limits = {'mirror_least_similarity': 1.0, 'map_least_similarity': 0.3}
    assert not mirror(draw, TILTED, entry=str(entry), **limits).facts['withheld']


def test_nothing_is_mirrored_without_a_transform(draw):
    path = write(draw()[0], AFFINE, 'rcbf', LPS_FILE)
    outputs = registration.ApplyMirror(rcbf_global=path).run().outputs
    assert not isdefined(outputs.rcbf_mirrored)


def test_two_registrations_are_identical(draw, tilted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(mirror(draw, TILTED).homologues, tilted.homologues)


# -- non-contrast CT


def test_reference_meets_the_ncct_of_its_session(draw):
    pose = frame_affine(np.array([8.0, -6, 3, 0, 0.05, np.radians(6)]), np.zeros(3))
    reference = write(draw()[0], AFFINE, 'reference', LPS_FILE)
    ncct = write(draw(pose)[0], AFFINE, 'ncct', LPS_FILE)
    found = registration.RegisterNCCT(
        reference=reference, ncct=ncct, ncct_grid_mm=3.0, ncct_window_hu=(-200.0, 300.0),
        random_seed=SEED,
    ).run().outputs.reference_to_ncct  # fmt: skip
    x = symmetry.world_coordinates(SHAPE, AFFINE)
    inner = draw(pose)[1][8:-8, 8:-8, 2:-2]
    for axis in range(3):
        # applied to the reference, a point of the NCCT shows what lies at pose^-1 of it
        home = registration.apply_transform(x[..., axis], AFFINE, found, outside=1e6)
        wanted = nb.affines.apply_affine(np.linalg.inv(pose), x)[..., axis]
        apart = np.abs(home - wanted)[8:-8, 8:-8, 2:-2][inner]
        assert np.median(apart) < 1.0
