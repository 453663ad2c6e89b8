# SPDX-License-Identifier: Apache-2.0
"""The demo heads as DICOM of each convention: converted, run, written back, with the volumes of the demo."""

import json
import subprocess
import sys
from datetime import datetime

import numpy as np
import pytest

pydicom = pytest.importorskip('pydicom', reason='needs the extra ctpprep[dicom]')
highdicom = pytest.importorskip('highdicom', reason='needs the extra ctpprep[dicom]')

from ctpprep.dicom import cli, export  # noqa: E402
from ctpprep.dicom.findings import ROWS  # noqa: E402
from ctpprep.dicom.objects import SEGMENTS  # noqa: E402
from ctpprep.io.tables import read_table  # noqa: E402
from tests.dicom import generator as g  # noqa: E402
from tests.dicom.test_series import series_per  # noqa: E402

pytestmark = pytest.mark.dicom
WITHIN_ML = 0.5
# one row of pixels per slice
TILT = float(np.degrees(np.arctan2(2.3, 6)))
MIDNIGHT = datetime(2024, 2, 28, 23, 59, 50)


def per_frame(ds):
    return (ds.InstanceNumber - 1) // 16


def per_slab(ds):
    return (ds.InstanceNumber - 1) % 16 // 8


# convention: head of the demo, options of the scan, how it is written, what is edited.
# Head 02 is a toggling table, whose slices have times of their own.
CONVENTIONS = {
    'siemens': ('01', {}, g.classic, None),
    'midnight': ('01', {'start': MIDNIGHT}, g.classic, None),
    'shuttle': ('02', {'start': MIDNIGHT}, g.classic, None),
    'ge': ('02', {'vendor': 'ge'}, g.classic, series_per(per_slab)),
    'philips': ('01', {'vendor': 'philips'}, g.classic, None),
    'canon': ('02', {'vendor': 'canon'}, g.classic, None),
    'split': ('01', {}, g.classic, series_per(per_frame)),
    'enhanced': ('02', {}, lambda scan: g.enhanced(scan, True), None),
    'enhancedsplit': ('01', {}, lambda scan: g.enhanced(scan, False), None),
    'tilt': ('02', {'tilt': TILT}, g.classic, None),
    'tiltlarge': ('01', {'tilt': TILT}, g.classic, None),
}
# on the larger, oblique matrix of a tilted head the mirror registration ends at slightly other homologues
LOCAL_WITHIN_ML = {'tiltlarge': 1.0}


def write_head(folder, bids_dir, name):
    """Write a head of the demo by a convention."""
    participant, options, make, edit = CONVENTIONS[name]
    path = bids_dir / f'sub-{participant}' / 'ct' / f'sub-{participant}_ctp.nii.gz'
    scan = g.scan_of(path, name=name, patient=name, **options)
    if scan.tilt:
        # slices of a tilted gantry begin one row further each; the head in them does not move
        scan.distance /= np.cos(np.deg2rad(scan.tilt))
        columns, rows, n_slices, n_frames = scan.hu.shape
        hu = np.full((columns, rows + n_slices - 1, n_slices, n_frames), -1024, scan.hu.dtype)
        for z in range(n_slices):
            first = n_slices - 1 - z
            hu[:, first : first + rows, z] = scan.hu[:, :, z]
        scan.hu = hu
    g.write(make(scan), folder / name, edit)
    return scan.times


def run_ctpprep(bids_dir, out_dir):
    command = [sys.executable, '-m', 'ctpprep', bids_dir, out_dir, 'participant', '--nprocs', '2',
               '--noise-draws', '0']  # fmt: skip
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


def read_volumes(path):
    return {
        ending: float(row['volume_ml'])
        for ending, key in ROWS.items()
        for row in read_table(path)
        if (row['region'], row['normalization'], row['measure']) == (*key, 'volume')
    }


@pytest.fixture(scope='module')
def demo(bids_dir, tmp_path_factory):
    """Volumes of the demo's own run, by participant."""
    out_dir = tmp_path_factory.mktemp('demo') / 'out'
    run_ctpprep(bids_dir, out_dir)
    return {
        name: read_volumes(out_dir / f'sub-{name}' / 'ct' / f'sub-{name}_seg-perfusion_morph.tsv')
        for name in ('01', '02')
    }


@pytest.fixture(scope='module')
def folder(bids_dir, tmp_path_factory):
    """All conventions, from DICOM to DICOM."""
    folder = tmp_path_factory.mktemp('vendors')
    times = {name: write_head(folder / 'src', bids_dir, name) for name in CONVENTIONS}
    np.savez(folder / 'times.npz', **times)
    labels = ['source\tparticipant_id', *(f'{name}\t{name}' for name in CONVENTIONS)]
    (folder / 'labels.tsv').write_text('\n'.join(labels) + '\n')
    source, bids, out = (str(folder / part) for part in ('src', 'bids', 'out'))
    assert cli.main([source, bids, '--labels', str(folder / 'labels.tsv'), '--nprocs', '2']) == 0
    run_ctpprep(bids, out)
    links = ['--source', source, '--links', str(folder / 'bids_links.json')]
    assert export.main([out, str(folder / 'dicom'), *links]) == 0
    return folder


def find_exported(folder, name):
    (path,) = (folder / 'dicom').glob(f'sub-{name}_*')
    return path


@pytest.mark.parametrize('name', CONVENTIONS)
def test_times_are_those_of_every_slice(name, folder):
    (path,) = (folder / 'bids' / f'sub-{name}').rglob('*_ctp.json')
    sidecar = json.loads(path.read_text())
    expected = np.load(folder / 'times.npz')[name]
    assert ('SliceAcquisitionTimes' in sidecar) == (CONVENTIONS[name][0] == '02')
    written = sidecar.get('SliceAcquisitionTimes') or np.array(sidecar['VolumeTiming'])[:, None]
    np.testing.assert_allclose(
        np.broadcast_to(written, expected.shape), expected - expected.min(), atol=1e-3
    )


@pytest.mark.parametrize('name', CONVENTIONS)
def test_volumes_of_the_report_are_those_of_the_demo(name, folder, demo):
    report = highdicom.sr.srread(find_exported(folder, name) / 'sr.dcm').content
    expected = demo[CONVENTIONS[name][0]]
    for ending, (label, _) in SEGMENTS.items():
        (group,) = (
            group
            for group in report.get_volumetric_roi_measurement_groups()
            if group.tracking_identifier == label
        )
        volume = group.get_measurements()[0].value
        print(f'{name:14} {label:22} {volume:8.2f} {expected[ending]:8.2f} mL')
        within = LOCAL_WITHIN_ML.get(name, WITHIN_ML) if 'local' in ending else WITHIN_ML
        assert volume == pytest.approx(expected[ending], abs=within)


@pytest.mark.parametrize('name', CONVENTIONS)
def test_segments_have_the_volumes_of_the_report(name, folder):
    segmentation = highdicom.seg.segread(find_exported(folder, name) / 'seg.dcm')
    volumes = read_volumes(next((folder / 'out' / f'sub-{name}').rglob('*_morph.tsv')))
    for number, ending in enumerate(SEGMENTS, start=1):
        volume = segmentation.get_volume(segment_numbers=[number], combine_segments=True)
        n_voxels = np.count_nonzero(volume.array)
        assert n_voxels * np.prod(volume.spacing) / 1000 == pytest.approx(
            volumes[ending], abs=0.01
        )
