# SPDX-License-Identifier: Apache-2.0
"""The one-page summary as an encapsulated PDF and as a picture that says what it is for."""

import subprocess

import numpy as np
import pytest

pydicom = pytest.importorskip('pydicom', reason='needs the extra ctpprep[dicom]')
pytest.importorskip('highdicom', reason='needs the extra ctpprep[dicom]')

from ctpprep.dicom import pictures  # noqa: E402
from tests.dicom import generator as g  # noqa: E402
from tests.dicom.results import PREFIX, convert, draw_summary, find_program, run  # noqa: E402

DCIODVFY = find_program('dciodvfy')


@pytest.fixture(
    scope='module',
    params=[g.classic, lambda scan: g.enhanced(scan, True)],
    ids=['classic', 'enhanced'],
)
def exported(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp('pictures')
    convert(folder, request.param)
    document, colours = draw_summary(folder)
    assert run(folder) == 0
    return folder / 'dicom' / PREFIX, document, colours


def test_the_document_is_the_pdf(exported):
    objects, document, _ = exported
    dataset = pydicom.dcmread(objects / 'summary-pdf.dcm')
    written = dataset.EncapsulatedDocument[: dataset.EncapsulatedDocumentLength]
    assert written == document.read_bytes()
    assert 'Research use only' in dataset.DocumentTitle


def test_the_picture_has_a_band_above_it(exported):
    objects, _, colours = exported
    pixels = pydicom.dcmread(objects / 'summary.dcm').pixel_array
    height = len(pixels) - len(colours)
    np.testing.assert_array_equal(pixels[height:], colours)
    band = pixels[:height]
    assert (band[0] == pictures.RED).all()
    assert (np.abs(band.astype(int) - pictures.RED).sum(axis=-1) > 200).any()


def test_letters_fill_the_band():
    band = pictures.burn_in(np.zeros((1240, 1754, 3), np.uint8))[:-1240]
    x = np.flatnonzero((band == pictures.WHITE).all(axis=-1).any(axis=0))
    assert 600 < np.ptp(x) < 1400
    assert abs(x.min() + x.max() - 1753) < 20


@pytest.mark.skipif(DCIODVFY is None, reason='needs dciodvfy (dicom3tools)')
@pytest.mark.parametrize('name', ['summary', 'summary-pdf'])
def test_the_validator_finds_no_error(name, exported):
    path = exported[0] / f'{name}.dcm'
    output = subprocess.run([DCIODVFY, path], capture_output=True, text=True).stderr
    assert [line for line in output.splitlines() if line.startswith('Error')] == []


def test_objects_belong_to_the_study_of_the_source(exported):
    source = g.classic(g.Scan())[0]
    datasets = [pydicom.dcmread(exported[0] / f'{n}.dcm') for n in ('summary', 'summary-pdf')]
    for dataset in datasets:
        for name in ('StudyInstanceUID', 'PatientID', 'PatientName'):
            assert dataset[name].value == source[name].value
    assert datasets[0].SeriesInstanceUID != datasets[1].SeriesInstanceUID


def test_a_second_export_has_the_same_uids_and_removes_what_is_gone(tmp_path):
    convert(tmp_path)
    document, _ = draw_summary(tmp_path)
    objects = tmp_path / 'dicom' / PREFIX
    uids = []
    for _ in range(2):
        assert run(tmp_path) == 0
        uids.append(pydicom.dcmread(objects / 'summary.dcm').SOPInstanceUID)
    assert uids[0] == uids[1]
    document.unlink()
    assert run(tmp_path) == 0
    assert (objects / 'summary.dcm').exists()
    assert not (objects / 'summary-pdf.dcm').exists()
