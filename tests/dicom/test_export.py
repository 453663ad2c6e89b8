# SPDX-License-Identifier: Apache-2.0
"""Results as DICOM objects: bit-equal maps, equal voxel counts, the frame of reference of the source."""

import shutil
import subprocess

import numpy as np
import pytest

pydicom = pytest.importorskip('pydicom', reason='needs the extra ctpprep[dicom]')
pytest.importorskip('highdicom', reason='needs the extra ctpprep[dicom]')

from ctpprep.dicom.objects import MAPS, SEGMENTS  # noqa: E402
from tests.dicom import generator as g  # noqa: E402
from tests.dicom.results import AFFINE, PREFIX, convert, find_program, map_of, run, voxels_of  # noqa: E402

DCIODVFY = find_program('dciodvfy')


@pytest.fixture(
    scope='module',
    params=[g.classic, lambda scan: g.enhanced(scan, True)],
    ids=['classic', 'enhanced'],
)
def exported(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp('export')
    convert(folder, request.param)
    assert run(folder) == 0
    return folder


def index_of(position):
    """Slice of a plane, by its position and not by its order."""
    return round(float(position[2] - AFFINE[2, 3]) / 5.0)


@pytest.mark.parametrize('ending', MAPS)
def test_maps_are_bit_equal(exported, ending):
    dataset = pydicom.dcmread(exported / 'dicom' / PREFIX / f'{ending}.dcm')
    pixels = dataset.pixel_array
    expected = map_of(exported, ending)
    for frame, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        z = index_of(group.PlanePositionSequence[0].ImagePositionPatient)
        np.testing.assert_array_equal(pixels[frame].T, expected[..., z])
    shared = dataset.SharedFunctionalGroupsSequence[0]
    mapping = (shared if 'RealWorldValueMappingSequence' in shared else group)[
        'RealWorldValueMappingSequence'
    ].value[0]
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == MAPS[ending].unit.value
    assert dataset.FloatPixelPaddingValue == -1


def test_without_a_mask_of_tissue_zeros_are_values(tmp_path):
    results = convert(tmp_path)
    (results / f'{PREFIX}_desc-tissue_mask.nii.gz').unlink()
    assert run(tmp_path) == 0
    dataset = pydicom.dcmread(tmp_path / 'dicom' / PREFIX / 'cbf.dcm')
    assert 'FloatPixelPaddingValue' not in dataset
    assert dataset.pixel_array.min() == 0


def test_segments_have_the_voxels_of_the_masks(exported):
    dataset = pydicom.dcmread(exported / 'dicom' / PREFIX / 'seg.dcm')
    pixels = dataset.pixel_array
    for frame, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        number = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        z = index_of(group.PlanePositionSequence[0].ImagePositionPatient)
        mask = voxels_of(exported, list(SEGMENTS)[number - 1])
        np.testing.assert_array_equal(pixels[frame].T, mask[..., z])
    assert [s.SegmentLabel for s in dataset.SegmentSequence] == [v[0] for v in SEGMENTS.values()]


def test_objects_belong_to_the_study_of_the_source(exported):
    source = g.classic(g.Scan())[0]
    for path in (exported / 'dicom' / PREFIX).iterdir():
        dataset = pydicom.dcmread(path)
        for name in ('StudyInstanceUID', 'FrameOfReferenceUID', 'PatientID'):
            assert dataset.get(name, source[name].value) == source[name].value
        described = dataset.get('ContentDescription') or dataset.SeriesDescription
        assert 'Research use only' in described


def test_a_second_export_has_the_same_uids(exported, tmp_path):
    before = {p.name: pydicom.dcmread(p).SOPInstanceUID for p in exported.rglob('*.dcm')}
    assert run(exported) == 0
    assert before == {p.name: pydicom.dcmread(p).SOPInstanceUID for p in exported.rglob('*.dcm')}
    assert len({*before.values()}) == len(before) == 8


@pytest.mark.skipif(DCIODVFY is None, reason='needs dciodvfy (dicom3tools)')
def test_the_validator_finds_no_error(exported):
    for path in (exported / 'dicom' / PREFIX).iterdir():
        output = subprocess.run([DCIODVFY, path], capture_output=True, text=True).stderr
        assert [line for line in output.splitlines() if line.startswith('Error')] == [], path.name


def test_a_source_without_the_images_is_named(tmp_path, capsys):
    convert(tmp_path, g.classic)
    shutil.rmtree(tmp_path / 'src')
    g.write(g.classic(g.Scan(name='other')), tmp_path / 'src')
    assert run(tmp_path) == 1
    assert 'the images of its first frame are not in --source' in capsys.readouterr().out
