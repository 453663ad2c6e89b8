# SPDX-License-Identifier: Apache-2.0
"""Objects are read by highdicom, dcmqi and dcm2niix: equal voxels at equal places, equal volumes."""

import json
import os
import subprocess
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest

pydicom = pytest.importorskip('pydicom', reason='needs the extra ctpprep[dicom]')
highdicom = pytest.importorskip('highdicom', reason='needs the extra ctpprep[dicom]')

from ctpprep.dicom.objects import MAPS, SEGMENTS  # noqa: E402
from tests.dicom.results import (  # noqa: E402
    AFFINE,
    PREFIX,
    convert,
    find_program,
    map_of,
    run,
    volume_ml,
    voxels_of,
)

DCMQI = pytest.mark.skipif(find_program('segimage2itkimage') is None, reason='needs dcmqi')
DCM2NIIX = pytest.mark.skipif(find_program('dcm2niix') is None, reason='needs dcm2niix')
LPS = np.diag([-1.0, -1, 1, 1])


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp('readers')
    convert(folder)
    assert run(folder) == 0
    return folder


def objects(folder):
    return folder / 'dicom' / PREFIX


def call(program, *arguments):
    command = [find_program(program), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def assert_equal_where_it_is(voxels, affine, expected):
    """Compare voxels by their position in mm; a reader may order or crop them as it likes."""
    on_ours = np.zeros_like(expected)
    index = np.argwhere(voxels != 0)
    place = nb.affines.apply_affine(np.linalg.inv(AFFINE) @ affine, index)
    np.testing.assert_allclose(place, np.round(place), atol=1e-3)
    on_ours[tuple(np.round(place).astype(int).T)] = voxels[tuple(index.T)]
    np.testing.assert_array_equal(on_ours, expected)


@pytest.mark.parametrize('ending', SEGMENTS)
def test_highdicom_reads_segments(ending, exported):
    segmentation = highdicom.seg.segread(objects(exported) / 'seg.dcm')
    number = [*SEGMENTS].index(ending) + 1
    volume = segmentation.get_volume(segment_numbers=[number], combine_segments=True)
    mask = (volume.array == number).astype(np.uint8)
    assert_equal_where_it_is(mask, LPS @ volume.affine, voxels_of(exported, ending))


@pytest.mark.parametrize('ending', MAPS)
def test_highdicom_reads_maps(ending, exported):
    volume = highdicom.imread(objects(exported) / f'{ending}.dcm').get_volume(
        apply_real_world_transform=True
    )
    expected = map_of(exported, ending)
    assert_equal_where_it_is(volume.array.astype(np.float32), LPS @ volume.affine, expected)


@DCMQI
def test_dcmqi_reads_segments(exported, tmp_path):
    call('segimage2itkimage', '--inputDICOM', objects(exported) / 'seg.dcm', '--outputType', 'nii',
         '--outputDirectory', tmp_path)  # fmt: skip
    for number, ending in enumerate(SEGMENTS, start=1):
        image = nb.load(tmp_path / f'{number}.nii.gz')
        mask = (np.asarray(image.dataobj) > 0).astype(np.uint8)
        assert_equal_where_it_is(mask, image.affine, voxels_of(exported, ending))


@DCMQI
@pytest.mark.parametrize('ending', ['cbf', 'tmax'])
def test_dcmqi_reads_maps(ending, exported, tmp_path):
    call('paramap2itkimage', '--inputDICOM', objects(exported) / f'{ending}.dcm', '--outputType',
         'nii', '--outputDirectory', tmp_path)  # fmt: skip
    image = nb.load(tmp_path / 'pmap.nii.gz')
    expected = map_of(exported, ending)
    voxels = np.asarray(image.dataobj, dtype=np.float32)
    assert_equal_where_it_is(voxels, image.affine, expected)
    meta = json.loads((tmp_path / 'meta.json').read_text())
    assert meta['QuantityValueCode']['CodeValue'] == MAPS[ending].quantity.value
    assert meta['MeasurementUnitsCode']['CodeValue'] == MAPS[ending].unit.value


@DCMQI
def test_dcmqi_reads_volumes_of_the_report(exported, tmp_path):
    path = tmp_path / 'report.json'
    call('tid1500reader', '--inputDICOM', objects(exported) / 'sr.dcm', '--outputMetadata', path)
    groups = {g['TrackingIdentifier']: g for g in json.loads(path.read_text())['Measurements']}
    for ending, (label, _) in SEGMENTS.items():
        first = groups[label]['measurementItems'][0]
        assert first['units']['CodeValue'] == 'mL'
        expected = volume_ml(voxels_of(exported, ending))
        assert float(first['value']) == pytest.approx(expected)
        assert groups[label]['Laterality']['CodeMeaning'] == 'Right'


@DCM2NIIX
def test_dcm2niix_reads_maps_and_all_voxels_of_segments(exported, tmp_path):
    for ending in ('seg', *MAPS):
        (tmp_path / ending).mkdir()
        os.symlink(objects(exported) / f'{ending}.dcm', tmp_path / ending / 'object.dcm')
        call(
            'dcm2niix',
            '-b',
            'n',
            '-z',
            'n',
            '-f',
            'read',
            '-o',
            tmp_path / ending,
            tmp_path / ending,
        )
    for ending in MAPS:
        image = nb.load(next(Path(tmp_path / ending).glob('*.nii')))
        voxels = np.asarray(image.dataobj, dtype=np.float32)
        expected = map_of(exported, ending)
        assert_equal_where_it_is(voxels, image.affine, expected)
    # it stacks the frames of all segments
    frames = np.asarray(nb.load(next((tmp_path / 'seg').glob('*.nii'))).dataobj)
    assert np.count_nonzero(frames) == sum(voxels_of(exported, e).sum() for e in SEGMENTS)
