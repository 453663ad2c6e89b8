# SPDX-License-Identifier: Apache-2.0
"""The command: labels, privacy, repeated calls, other series of a study, and a head from end to end."""

import gzip
import json
import re
import stat
import zipfile
from dataclasses import replace

import nibabel as nb
import numpy as np
import pytest

pytest.importorskip('pydicom', reason='needs the extra ctpprep[dicom]')

from ctpprep.dicom.cli import main
from ctpprep.inputs.find import find_series
from ctpprep.inputs.frames import check_first_frames
from ctpprep.phantom import PhantomSettings, make_phantom
from ctpprep.settings import RunSettings
from tests.dicom import generator as g


@pytest.fixture
def source(tmp_path):
    return g.write(g.classic(g.Scan(slice_times='shuttle')), tmp_path / 'src')


def files_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob('*'))
        if path.is_file()
    }


def identifiers(dataset):
    """Strings of the tags that identify the patient, the institution or the study, and all UIDs."""
    values = [str(getattr(dataset, name)) for name in g.IDENTIFYING]
    values += [word for value in values for word in re.split(r'[\^ ]', value) if len(word) > 3]
    values += [str(e.value) for e in dataset if e.VR == 'UI' and e.keyword != 'SOPClassUID']
    values += [str(e.value) for e in dataset if e.VR in ('DA', 'TM')]
    return {value for value in values if value}


def test_no_identifier_gets_into_the_dataset(source, tmp_path):
    volume = g.volume('CT Kopf nativ', 120)
    g.write(volume, tmp_path / 'src' / 'ncct')
    assert main([str(source), str(tmp_path / 'bids')]) == 0
    secret = identifiers(g.classic(g.Scan())[7]) | identifiers(volume[3])
    written = files_of(tmp_path / 'bids')
    assert len([name for name in written if name.endswith('.nii.gz')]) == 2
    for name, content in written.items():
        content += gzip.decompress(content) if name.endswith('.gz') else b''
        assert not [text for text in secret if text.encode() in content or text in name], name


def test_links_are_private_and_name_every_object(source, tmp_path):
    main([str(source), str(tmp_path / 'bids')])
    links = tmp_path / 'bids_links.json'
    assert stat.S_IMODE(links.stat().st_mode) == 0o600
    (study,) = json.loads(links.read_text())['studies'].values()
    objects = study['files']['sub-001_ses-01_ctp.nii.gz']['SourceDicom']['SOPInstanceUID']
    assert objects == [ds.SOPInstanceUID for ds in g.classic(g.Scan())]


def test_links_in_the_dataset_are_refused(source, tmp_path, capsys):
    bids = tmp_path / 'bids'
    assert main([str(source), str(bids), '--links', str(bids / 'links.json')]) == 2
    assert 'it identifies patients' in capsys.readouterr().err


def test_a_second_call_changes_nothing(source, tmp_path, capsys):
    main([str(source), str(tmp_path / 'bids')])
    before = files_of(tmp_path / 'bids')
    times = [path.stat().st_mtime_ns for path in sorted((tmp_path / 'bids').rglob('*.nii.gz'))]
    capsys.readouterr()
    assert main([str(source), str(tmp_path / 'bids')]) == 0
    assert capsys.readouterr().out.endswith(': unchanged\n')
    assert files_of(tmp_path / 'bids') == before
    assert times == [p.stat().st_mtime_ns for p in sorted((tmp_path / 'bids').rglob('*.nii.gz'))]


def test_equal_inputs_give_equal_bytes(source, tmp_path):
    for name in ('a', 'b'):
        main([str(source), str(tmp_path / name)])
    assert files_of(tmp_path / 'a') == files_of(tmp_path / 'b')


def test_a_dry_run_writes_nothing(source, tmp_path, capsys):
    assert main([str(source), str(tmp_path / 'bids'), '--dry-run']) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ['src']
    assert capsys.readouterr().out == (
        'sub-001_ses-01  series 5 (CTP 4D): ctp, 12 frames x 4 slices, every 1.5 s, each slice with '
        'its own time (AcquisitionTime): ok\n'
    )


def test_files_in_a_zip_archive_are_read(source, tmp_path):
    main([str(source), str(tmp_path / 'a')])
    (tmp_path / 'zipped').mkdir()
    with zipfile.ZipFile(tmp_path / 'zipped' / 'study.zip', 'w') as archive:
        for path in source.iterdir():
            archive.write(path, f'DICOM/{path.name}')
    main([str(tmp_path / 'zipped'), str(tmp_path / 'b')])
    assert files_of(tmp_path / 'a') == files_of(tmp_path / 'b')


def two_patients(folder):
    for i, patient in enumerate(('PID9', 'STROKE-017')):
        g.write(g.classic(g.Scan('canon', patient=patient, name=patient)), folder / str(i))
    return folder


@pytest.mark.parametrize(
    ('options', 'labels'),
    [
        ((), ['sub-001_ses-01', 'sub-002_ses-01']),
        (('--label-pattern', r'(?P<participant>\d+)$'), ['sub-017_ses-01', 'sub-9_ses-01']),
        (('--labels', 'TABLE'), ['sub-A1_ses-base', 'sub-B2_ses-01']),
        (('--nprocs', '2'), ['sub-001_ses-01', 'sub-002_ses-01']),
    ],
)
def test_labels_come_from_numbers_a_pattern_or_a_table(options, labels, tmp_path):
    source = two_patients(tmp_path / 'src')
    table = tmp_path / 'labels.tsv'
    table.write_text('source\tparticipant_id\tsession_id\nPID9\tsub-A1\tbase\nSTROKE-017\tB2\t\n')
    options = [str(table) if option == 'TABLE' else option for option in options]
    assert main([str(source), str(tmp_path / 'bids'), *options]) == 0
    found = sorted(p.name.removesuffix('_ctp.nii.gz') for p in tmp_path.rglob('*_ctp.nii.gz'))
    assert found == labels
    rows = (tmp_path / 'bids' / 'participants.tsv').read_text().split()
    assert rows == ['participant_id', *(label.split('_')[0] for label in labels)]


def test_a_second_study_is_a_second_session(source, tmp_path):
    main([str(source), str(tmp_path / 'bids')])
    g.write(g.classic(g.Scan(name='later')), tmp_path / 'later')
    main([str(tmp_path / 'later'), str(tmp_path / 'bids')])
    names = sorted(path.name for path in (tmp_path / 'bids').rglob('*.nii.gz'))
    assert names == ['sub-001_ses-01_ctp.nii.gz', 'sub-001_ses-02_ctp.nii.gz']


def test_native_and_angiography_of_the_study_are_converted(source, tmp_path, capsys):
    for i, (text, kernel) in enumerate(
        [('CT Kopf nativ', 'H31s'), ('Kopf nativ Knochen', 'H70h'), ('CTA Hals', 'H30f')]
    ):
        g.write(g.volume(text, 120, kernel), source / str(i))
    assert main([str(source), str(tmp_path / 'bids')]) == 0
    names = sorted(path.name for path in (tmp_path / 'bids').rglob('*.nii.gz'))
    assert names == [f'sub-001_ses-01_{kind}.nii.gz' for kind in ('cta', 'ctp', 'ncct')]
    assert (
        'skipped: a sharper reconstruction of series 5 (CT Kopf nativ)' in capsys.readouterr().out
    )


def test_a_study_without_perfusion_is_skipped(source, tmp_path, capsys):
    scan = g.volume('CT Kopf nativ', 120)
    for ds in scan:
        ds.StudyInstanceUID = g.uid('follow-up')
    g.write(scan, source / 'followup')
    assert main([str(source), str(tmp_path / 'bids')]) == 0
    assert 'skipped: ncct, but the study has no perfusion series' in capsys.readouterr().out
    assert len([*(tmp_path / 'bids').rglob('*.nii.gz')]) == 1
    assert main([str(source / 'followup'), str(tmp_path / 'other')]) == 1
    assert 'contains no perfusion series' in capsys.readouterr().err


def test_two_studies_with_the_same_labels_are_refused(source, tmp_path, capsys):
    g.write(g.classic(g.Scan(name='later')), source / 'later')
    table = tmp_path / 'labels.tsv'
    table.write_text('source\tparticipant_id\tsession_id\nPID48213\t1\tx\n')
    assert main([str(source), str(tmp_path / 'bids'), '--labels', str(table)]) == 1
    assert 'another study is sub-1 ses-x already' in capsys.readouterr().out
    assert len([*(tmp_path / 'bids').rglob('*.nii.gz')]) == 1


def test_files_without_a_preamble_and_other_files_beside_are_read_or_passed(source, tmp_path):
    main([str(source), str(tmp_path / 'a')])
    for path in source.iterdir():
        path.write_bytes(path.read_bytes()[132:])
    (source / 'noise').write_bytes(np.random.default_rng(0).bytes(3000))
    (source / 'empty').touch()
    main([str(source), str(tmp_path / 'b')])
    assert files_of(tmp_path / 'a') == files_of(tmp_path / 'b')


def test_a_folder_without_images_is_named(tmp_path, capsys):
    (tmp_path / 'notes.txt').write_text('nothing')
    assert main([str(tmp_path), str(tmp_path / 'bids')]) == 2
    assert 'contains neither DICOM images nor NIfTI files' in capsys.readouterr().err


def test_a_head_arrives_as_it_was_scanned(tmp_path):
    settings = PhantomSettings(
        seed=3, matrix=48, voxel_size_mm=(4.6, 4.6, 10.0), n_slices=6, n_frames=10, timing='jog',
        frame_interval=2.0,
    )  # fmt: skip
    head = make_phantom(settings)
    corner = tuple(head.affine[:3, 3] * [-1, -1, 1])
    scan = g.Scan(
        n_frames=10, n_slices=6, size=48, distance=10.0, pixel=4.6, hu=np.asarray(head.ctp),
        corner=corner,
    )  # fmt: skip
    scan.times = np.round(head.sample_times.T, 4)
    g.write(g.classic(scan), tmp_path / 'src')
    assert main([str(tmp_path / 'src'), str(tmp_path / 'bids')]) == 0
    run = RunSettings(tmp_path / 'bids', tmp_path / 'out', tmp_path / 'work')
    (series,) = check_first_frames(find_series(run), 130.0)
    assert series.can_run, series
    times = head.sample_times - head.sample_times.min()
    np.testing.assert_allclose(series.sample_times, times, atol=1e-3)
    written = nb.as_closest_canonical(nb.load(series.path))
    truth = nb.as_closest_canonical(nb.Nifti1Image(head.ctp, head.affine))
    np.testing.assert_allclose(written.affine, truth.affine, atol=1e-3)
    clipped = np.maximum(np.asarray(truth.dataobj), -1024)
    np.testing.assert_allclose(np.asarray(written.dataobj), clipped, atol=1)


def test_a_tilted_head_passes_the_early_checks(tmp_path):
    scan = replace(g.Scan(), tilt=20.0)
    g.write(g.classic(scan), tmp_path / 'src')
    main([str(tmp_path / 'src'), str(tmp_path / 'bids')])
    run = RunSettings(tmp_path / 'bids', tmp_path / 'out', tmp_path / 'work')
    (series,) = check_first_frames(find_series(run), 130.0)
    assert series.can_run, series
    assert 'tilt of 20.0 degrees' in str(series.sidecar['ConversionNotes'])
