# SPDX-License-Identifier: Apache-2.0
"""A folder of NIfTI files becomes a BIDS dataset."""

import gzip
import json

import nibabel as nb
import numpy as np
import pytest

from ctpprep.dicom.cli import main
from ctpprep.dicom.flat import study_name
from ctpprep.inputs.find import find_series
from ctpprep.settings import RunSettings

AFFINE = np.diag([-2.0, 2.0, 5.0, 1.0])
SECRET = {
    'PatientName': 'Mustermann^Erika',
    'InstitutionName': 'Klinikum',
    'AcquisitionTime': '10:11:12',
}


def write(path, shape=(8, 8, 4, 12), affine=AFFINE, **sidecar):
    """Write a file and its sidecar as a converter does, with texts of the source in the header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.random.default_rng(0).integers(0, 60, shape).astype(np.int16)
    image = nb.Nifti1Image(voxels, affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1, strip_shears=True)
    image.header.set_xyzt_units('mm', 'sec')
    image.header['descrip'] = b'TE=0;Time=101112.000;Erika'
    image.header['aux_file'] = b'Mustermann'
    image.header.extensions.append(nb.nifti1.Nifti1Extension('comment', b'Mustermann'))
    nb.save(image, path)
    name = path.name.removesuffix('.gz').removesuffix('.nii')
    path.with_name(f'{name}.json').write_text(json.dumps(SECRET | sidecar))
    return voxels


def names(folder):
    return sorted(path.name for path in folder.rglob('*.nii.gz'))


@pytest.fixture
def folder(tmp_path):
    return tmp_path / 'flat'


def test_forty_files_become_a_dataset_in_one_command(folder, tmp_path):
    for i in range(20):
        write(folder / f'pat{i:02d}_CTP.nii.gz', RepetitionTime=1.5)
        write(folder / f'pat{i:02d}_NCCT.nii', (8, 8, 4))
    bids = tmp_path / 'bids'
    pattern = r'pat(?P<participant>\d+)'
    assert main([str(folder), str(bids), '--label-pattern', pattern]) == 0
    assert names(bids) == sorted(
        f'sub-{i:02d}_ses-01_{kind}.nii.gz' for i in range(20) for kind in ('ctp', 'ncct')
    )
    series = find_series(RunSettings(bids, tmp_path / 'out', tmp_path / 'work'))
    assert [one.can_run for one in series] == [True] * 20
    assert all(one.ncct and one.frame_times[1] == 1.5 for one in series)


def test_voxels_and_geometry_are_kept_and_texts_are_not(folder, tmp_path):
    sheared = AFFINE.copy()
    sheared[1, 2] = 1.5
    voxels = write(folder / 'erika_ctp.nii.gz', affine=sheared, RepetitionTime=1.5, KVP=80)
    assert main([str(folder), str(tmp_path / 'bids')]) == 0
    (path,) = (tmp_path / 'bids').rglob('*_ctp.nii.gz')
    image = nb.load(path)
    np.testing.assert_array_equal(image.dataobj, voxels)
    np.testing.assert_allclose(image.affine, sheared)
    for path in (path for path in (tmp_path / 'bids').rglob('*') if path.is_file()):
        content = path.read_bytes()
        content += gzip.decompress(content) if path.suffix == '.gz' else b''
        assert not any(
            text in content.lower() for text in (b'erika', b'muster', b'klinik', b'10111')
        )


def test_a_table_gives_labels_by_file(folder, tmp_path):
    write(folder / 'scan_a.nii.gz', RepetitionTime=2.0)
    write(folder / 'deep' / 'scan_b.nii.gz', RepetitionTime=2.0)
    table = tmp_path / 'labels.tsv'
    table.write_text(
        'source\tparticipant_id\tsession_id\nscan_a.nii.gz\t7\tacute\nscan_b.nii.gz\t9\t\n'
    )
    assert main([str(folder), str(tmp_path / 'bids'), '--labels', str(table)]) == 0
    assert names(tmp_path / 'bids') == ['sub-7_ses-acute_ctp.nii.gz', 'sub-9_ses-01_ctp.nii.gz']


@pytest.mark.parametrize(
    ('shape', 'sidecar', 'message'),
    [
        ((8, 8, 4, 12), {}, 'FAILED: no acquisition times'),
        ((8, 8, 4, 12), {'RepetitionTime': 1500}, 'write 1500 ms as 1.5'),
        ((8, 8, 4, 12), {'RepetitionTime': 1.5, 'Units': 'a.u.'}, 'need Hounsfield units'),
        ((8, 8, 4), {}, 'FAILED: no perfusion series and no volume'),
    ],
)
def test_what_ctpprep_would_refuse_is_not_converted(
    shape, sidecar, message, folder, tmp_path, capsys
):
    write(folder / 'x.nii.gz', shape, **sidecar)
    write(folder / 'other.nii.gz', RepetitionTime=1.5)
    assert main([str(folder), str(tmp_path / 'bids')]) == 1
    assert message in capsys.readouterr().out
    assert names(tmp_path / 'bids') == ['sub-001_ses-01_ctp.nii.gz']


def test_an_interval_of_the_user_times_files_without_times(folder, tmp_path):
    write(folder / 'x.nii.gz')
    assert main([str(folder), str(tmp_path / 'bids'), '--frame-interval', '1.7']) == 0
    (path,) = (tmp_path / 'bids').rglob('*_ctp.json')
    assert json.loads(path.read_text())['RepetitionTime'] == 1.7


def test_an_interval_of_the_user_replaces_that_of_the_file(folder, tmp_path):
    write(folder / 'x.nii.gz', RepetitionTime=1.5)
    assert main([str(folder), str(tmp_path / 'bids'), '--frame-interval', '2']) == 0
    (path,) = (tmp_path / 'bids').rglob('*_ctp.json')
    assert json.loads(path.read_text())['RepetitionTime'] == 2


def test_two_series_of_one_name_are_not_mixed(folder, tmp_path, capsys):
    voxels = write(folder / 'pat1_ctp.nii.gz', RepetitionTime=1.5)
    write(folder / 'pat1_perfusion.nii.gz', (8, 8, 4, 20), RepetitionTime=1.5)
    assert main([str(folder), str(tmp_path / 'bids')]) == 1
    assert 'a second file of the same study' in capsys.readouterr().out
    (path,) = (tmp_path / 'bids').rglob('*.nii.gz')
    np.testing.assert_array_equal(nb.load(path).dataobj, voxels)


def test_last_lines_name_participants_and_private_links(folder, tmp_path, capsys):
    for name in ('pat1_20260101.nii.gz', 'pat1_20260202.nii.gz'):
        write(folder / name, RepetitionTime=1.5)
    assert main([str(folder), str(tmp_path / 'bids')]) == 0
    first, last = capsys.readouterr().err.splitlines()[-2:]
    assert first.startswith('2 participants, by the names of the files; --label-pattern')
    assert last.endswith(f'private, never share: {tmp_path / "bids_links.json"}')


def test_a_dry_run_writes_nothing(folder, tmp_path, capsys):
    write(folder / 'x.nii.gz', RepetitionTime=1.5)
    assert main([str(folder), str(tmp_path / 'bids'), '-n']) == 0
    assert capsys.readouterr().out == (
        'sub-001_ses-01  x.nii.gz: ctp, 12 frames x 4 slices, every 1.5 s (RepetitionTime); no slice '
        'times: all slices of a frame are taken as simultaneous: ok\n'
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ['flat']


@pytest.mark.parametrize(
    ('first', 'second'),
    [('a/p1_ctp.nii', 'a/p1_ncct.nii.gz'), ('p1/4D.nii.gz', 'p1/nect.nii.gz')],
)
def test_kinds_of_one_study_share_a_name(first, second, tmp_path):
    assert study_name(tmp_path / first) == study_name(tmp_path / second)
