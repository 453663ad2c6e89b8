# SPDX-License-Identifier: Apache-2.0
"""A head CT becomes the anatomy of a phantom."""

import json
import os
from dataclasses import replace
from functools import lru_cache

import nibabel as nb
import numpy as np
import pytest
from scipy import ndimage

from ctpprep.phantom import LESIONS_ML, PhantomSettings, make_phantom, patient, write_bids
from ctpprep.phantom.patient import load_patient
from ctpprep.phantom.patient_head import lay_patient_vessels
from ctpprep.phantom.patient_masks import separate_head
from ctpprep.phantom.physiology import draw_variation
from ctpprep.phantom.settings import HeadTraits

# A whole head from the neck to the vertex, in a pose of its own.
SOURCE = PhantomSettings(
    seed=5, matrix=96, voxel_size_mm=(2.4, 2.4, 4.0), n_slices=42, n_frames=2, noise_hu=0.0,
    motion_mm=0.0, orientation='RAS', head=HeadTraits(slab_shift_mm=-45.0),
)  # fmt: skip
SCAN = PhantomSettings(
    seed=3, matrix=64, voxel_size_mm=(3.6, 3.6, 8.0), n_slices=11, n_frames=8, frame_interval=3.0,
    noise_hu=0.0, motion_mm=3.0, lesion='large', orientation='RAS',
)  # fmt: skip
HOLDER_HU = 250


@lru_cache
def source():
    return make_phantom(SOURCE)


@pytest.fixture(scope='module')
def ct(tmp_path_factory):
    """Write the CT of a digital head with a plate 10 mm behind it; return its path."""
    hu = source().ctp[..., 0].copy()
    back = int(np.argwhere(hu > -300)[:, 1].min())
    hu[20:76, back - 6 : back - 4] = HOLDER_HU
    path = tmp_path_factory.mktemp('ct') / 'head.nii.gz'
    nb.Nifti1Image(hu, source().affine).to_filename(path)
    return path


@pytest.fixture(scope='module')
def head(ct):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(patient, 'REGISTRATION_STEP', 6.0)  # mm; 3 mm take four times as long
        return make_phantom(replace(SCAN, anatomy=str(ct)))


def read_truth_of_source(head, name):
    """Read a truth of the source at the voxels of the phantom made of it."""
    index = np.indices(head.ctp.shape[:3]).reshape(3, -1)
    points = head.affine[:3, :3] @ index + head.affine[:3, 3:]
    at = np.linalg.inv(source().affine)
    values = source().truth[name].astype(float)
    mapped = ndimage.map_coordinates(values, at[:3, :3] @ points + at[:3, 3:], order=1)
    return mapped.reshape(head.ctp.shape[:3])


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_plate_behind_the_head_is_not_part_of_it():
    values = np.full((60, 70, 50), -1000.0)
    x, y, z = np.indices(values.shape)
    ball = (x - 30) ** 2 + (y - 40) ** 2 + (z - 25) ** 2 < 20**2
    values[ball] = 40
    values[:, 16:18] = HOLDER_HU
    found = separate_head(values)
    assert found[ball].all()
    assert not found[:, 16:18].any()


def test_tissue_and_brain_agree_with_those_of_the_ct(head):
    for name, least in (('tissue', 0.9), ('brain', 0.95)):
        assert dice(read_truth_of_source(head, name) > 0.5, head.truth[name] > 0.5) > least


def test_density_is_that_of_the_ct(head):
    healthy = (head.truth['tissue'] > 0.9) & ~head.truth['core'] & (head.truth['vessel'] == 0)
    expected = read_truth_of_source(head, 'tissue') > 0.95
    source_ct = load_patient(head.settings.anatomy)
    difference = np.median(head.ctp[..., 0][healthy & expected]) - source_ct.tissue_hu
    assert abs(difference) < 2


def test_hemispheres_agree_with_those_of_the_ct(head):
    both = (head.truth['side'] > 0) & (read_truth_of_source(head, 'tissue') > 0.9)
    left = read_truth_of_source(head, 'side') < 1.5
    assert (left == (head.truth['side'] == 1))[both].mean() > 0.97


def test_lesion_has_its_volume_and_side(head):
    voxel_ml = np.prod(SCAN.voxel_size_mm) / 1000
    core = head.truth['core']
    assert core.sum() * voxel_ml == pytest.approx(LESIONS_ML['large'][0], rel=0.15)
    assert (head.truth['side'][core] == 1).all()


def test_arteries_are_inside_the_skull(head):
    source_ct = load_patient(head.settings.anatomy)
    rngs = [np.random.default_rng(i) for i in (1, 2)]
    vessels = lay_patient_vessels(head.settings, source_ct, draw_variation(SCAN, *rngs))
    low = source_ct.shape.to_patient(np.array([[0.0], [-17.0], [-24.0]]))[2, 0]
    slab = vessels.points[:, 2] > low
    depth = source_ct.surfaces(vessels.points[slab].T)['skull']
    assert (depth < 0).mean() > 0.98


def test_head_moves_and_holder_stays(head):
    # In the source's grid the plate spans all slices; in the phantom its voxels are half air.
    moved = np.abs(head.motion).sum(axis=1).argmax()
    first, last = head.ctp[..., 0].astype(float), head.ctp[..., moved].astype(float)
    y = np.arange(head.ctp.shape[1])
    front = np.argwhere(head.truth['brain'])[:, 1].min()
    plate = (first > -600) & (y < front - 5)[:, None] & (y < 12)[:, None]
    skull = first > 300
    assert plate.sum() > 100
    assert np.median(np.abs(last - first)[plate]) < 1
    assert np.mean(np.abs(last - first)[skull]) > 30


def test_record_names_the_ct_without_its_folder(head, ct, tmp_path):
    path = write_bids(head, tmp_path, '01')
    sidecar = json.loads((path.parent / 'sub-01_ctp.json').read_text())
    assert sidecar['PhantomSettings']['anatomy'] == 'head.nii.gz'
    assert 'real heads' in (tmp_path / 'README').read_text()


def write_volume(folder, values):
    path = folder / 'volume.nii.gz'
    nb.Nifti1Image(values.astype(np.float32), np.diag([3.0, 3.0, 3.0, 1.0])).to_filename(path)
    return path


@pytest.mark.parametrize(
    ('values', 'sentence'),
    [
        (np.zeros((20, 20, 20)), 'contains values from 0 to 0, need HU'),
        (np.zeros((20, 20, 20, 3)), 'has the shape'),
        (
            np.where(np.arange(50) > 40, 400, -1000) * np.ones((50, 50, 1)),
            'no soft tissue enclosed by bone',
        ),
    ],
)
def test_what_is_not_a_head_ct_is_refused(values, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence) as raised:
        load_patient(write_volume(tmp_path, values))
    assert 'volume.nii.gz' in str(raised.value)


def test_missing_and_unreadable_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match='does not exist, need a head CT'):
        load_patient(tmp_path / 'no.nii.gz')
    (tmp_path / 'text.nii').write_text('no image')
    with pytest.raises(ValueError, match='not readable as NIfTI'):
        load_patient(tmp_path / 'text.nii')


def test_slab_beyond_the_ct_is_refused(ct):
    with pytest.raises(ValueError, match='use fewer slices'):
        make_phantom(replace(SCAN, anatomy=str(ct), n_slices=40))


def test_real_ct_becomes_a_phantom():
    path = os.environ.get('CTPPREP_REAL_CT')
    if not path:
        pytest.skip('CTPPREP_REAL_CT is not set: path of a head CT (NIfTI, HU)')
    made = make_phantom(replace(SCAN, anatomy=path))
    core_ml = made.truth['core'].sum() * np.prod(SCAN.voxel_size_mm) / 1000
    assert core_ml == pytest.approx(LESIONS_ML['large'][0], rel=0.15)
    assert np.mean(made.ctp[..., 0][made.truth['vessel'] > 0.3] > 150) < 0.1
