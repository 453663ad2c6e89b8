# SPDX-License-Identifier: Apache-2.0
"""Series of five vendors, and each fault: times right to 1 ms, every voxel where it was scanned."""

import copy
import json
import shutil
from datetime import datetime

import nibabel as nb
import numpy as np
import pytest

pytest.importorskip('pydicom', reason='needs the extra ctpprep[dicom]')
pytest.importorskip('pylibjpeg', reason='needs the extra ctpprep[dicom]')

from ctpprep.dicom.cli import main
from tests.dicom import generator as g


def run(tmp_path, *options):
    """Convert; return the exit code and, if there is one, the series."""
    code = main([str(tmp_path / 'src'), str(tmp_path / 'bids'), *options])
    images = sorted((tmp_path / 'bids').rglob('*_ctp.nii.gz'))
    return code, images[0] if images else None


def check_times(path, times):
    """Compare the sidecar with the (T, Z) times of the scan."""
    sidecar = json.loads(path.with_name(path.name.replace('.nii.gz', '.json')).read_text())
    written = sidecar.get('SliceAcquisitionTimes') or np.array(sidecar['VolumeTiming'])[:, None]
    np.testing.assert_allclose(
        np.broadcast_to(written, times.shape), times - times.min(), atol=1e-3
    )


def check_voxels(path, scan, within=0.01):
    """Find every pixel of the scan at its place in the patient, within a part of a pixel."""
    image = nb.load(path)
    voxels, to_voxel = np.asarray(image.dataobj), np.linalg.inv(image.affine)
    row, column = np.reshape(scan.axes, (2, 3))
    x, y = np.meshgrid(np.arange(scan.hu.shape[0]), np.arange(scan.hu.shape[1]), indexing='ij')
    for z in range(scan.n_slices):
        lps = scan.position(z) + scan.pixel * (x[..., None] * row + y[..., None] * column)
        index = nb.affines.apply_affine(to_voxel, lps * [-1, -1, 1])
        nearest = np.round(index).astype(int)
        assert np.abs(index - nearest).max() <= within
        found = voxels[tuple(np.moveaxis(nearest, -1, 0))]
        np.testing.assert_allclose(found, scan.hu[:, :, z], atol=0.51 * max(1, scan.slope != 1))


def jpeg(datasets):
    for ds in datasets:
        g.lossless_jpeg(ds)


def constant_time(datasets):
    for ds in datasets:
        ds.AcquisitionTime, ds.AcquisitionDate = '101112', '20240228'
        ds.ContentTime, ds.ContentDate = '101500', '20240228'


def no_date(datasets):
    for ds in datasets:
        del ds.AcquisitionDate
        del ds.ContentDate


def same_date(datasets):
    for ds in datasets:
        ds.AcquisitionDate = ds.ContentDate = '20240228'


def series_per(key):
    def split(datasets):
        for ds in datasets:
            part = key(ds)
            ds.SeriesInstanceUID, ds.SeriesNumber = g.uid('part', part), 5 + part

    return split


def of_frame(ds):
    return (ds.InstanceNumber - 1) // 4


def of_slab(ds):
    return (ds.InstanceNumber - 1) % 4 // 2


def of_phase(ds):
    return of_frame(ds) // 8


def padded(value):
    def pad(datasets):
        for ds in datasets:
            stored = np.frombuffer(ds.PixelData, '<i2').copy()
            stored[-5:] = value
            ds.PixelData, ds.PixelPaddingValue = stored.tobytes(), value

    return pad


def padding_value(value):
    def declare(datasets):
        for ds in datasets:
            ds.PixelPaddingValue = value

    return declare


def slope_per_slice(datasets):
    for ds in datasets:
        hu = np.frombuffer(ds.PixelData, '<i2').reshape(ds.Rows, ds.Columns) - 1024
        ds.RescaleIntercept, ds.RescaleSlope = -1000 - of_frame(ds), 0.5
        g.pixels(ds, hu.T)


def drop(*which):
    return lambda datasets: [ds for ds in datasets if which_of(ds) not in which]


def which_of(ds):
    """(frame, slice) of an image, from 0."""
    return of_frame(ds), (ds.InstanceNumber - 1) % 4


def double(frame, new_pixels=False):
    def add(datasets):
        copies = []
        for ds in datasets:
            if of_frame(ds) == frame:
                twin = copy.deepcopy(ds)
                twin.SOPInstanceUID = g.uid('copy', ds.SOPInstanceUID)
                if new_pixels:
                    twin.PixelData = bytes(len(ds.PixelData))
                copies.append(twin)
        return datasets + copies

    return add


def constant_index(datasets):
    for ds in datasets:
        ds.TemporalPositionIndex = 1


def with_localizer(datasets):
    ds = copy.deepcopy(datasets[0])
    ds.SOPInstanceUID, ds.SeriesInstanceUID = g.uid('scout'), g.uid('scout series')
    ds.SeriesNumber, ds.SeriesDescription = 1, 'Topogramm'
    ds.ImageType = ['ORIGINAL', 'PRIMARY', 'LOCALIZER']
    return [ds, *datasets]


def registered(datasets):
    """Add a vendor's registered series: derived, and an hour late."""
    copies = []
    for ds in datasets:
        twin = copy.deepcopy(ds)
        twin.SOPInstanceUID = g.uid('registered', ds.SOPInstanceUID)
        twin.SeriesInstanceUID, twin.SeriesNumber = g.uid('registered series'), 2
        twin.SeriesDescription = 'CTP Registered'
        twin.ImageType = ['DERIVED', 'SECONDARY', 'AXIAL']
        twin.AcquisitionTime = '11' + ds.AcquisitionTime[2:]
        twin.PixelData = bytes(len(ds.PixelData))
        copies.append(twin)
    return datasets + copies


def other_tags_missing(datasets):
    for ds in datasets:
        for name in (
            'SliceThickness',
            'SeriesNumber',
            'KVP',
            'ConvolutionKernel',
            'SeriesDescription',
        ):
            delattr(ds, name)


MIDNIGHT = datetime(2024, 2, 28, 23, 59, 52)
FEET_FIRST = (-1, 0, 0, 0, 1, 0)
PRONE = (-1, 0, 0, 0, -1, 0)
OBLIQUE = tuple(np.round([np.cos(0.2), np.sin(0.2), 0, -np.sin(0.2), np.cos(0.2), 0], 6).tolist())
TIPPED = (1, 0, 0, 0, round(float(np.cos(0.3)), 6), round(float(np.sin(0.3)), 6))

# name: traits of the scan, how it is written, what is changed, largest error in plane (pixels)
GOOD = {
    'siemens even': ({}, g.classic, None),
    'siemens shuttle': ({'slice_times': 'shuttle'}, g.classic, None),
    'siemens sequential': ({'slice_times': 'sequential'}, g.classic, None),
    'siemens past midnight': ({'start': MIDNIGHT}, g.classic, None),
    'midnight without dates': ({'start': MIDNIGHT}, g.classic, no_date),
    'midnight with one date': ({'start': MIDNIGHT, 'slice_times': 'shuttle'}, g.classic, same_date),
    'mosaic': ({}, g.mosaics, None),
    'mosaics of two slabs': ({}, lambda scan: g.mosaics(scan, 2), None),
    'mosaics past midnight': ({'start': MIDNIGHT}, g.mosaics, same_date),
    'ge': ({'vendor': 'ge'}, g.classic, None),
    'ge shuttle': ({'vendor': 'ge', 'slice_times': 'shuttle'}, g.classic, None),
    'ge, only private times': ({'vendor': 'ge', 'slice_times': 'shuttle'}, g.classic, constant_time),
    'ge, jpeg lossless': ({'vendor': 'ge'}, g.classic, jpeg),
    'ge, a series per slab': (
        {'vendor': 'ge', 'slice_times': 'shuttle'}, g.classic, series_per(of_slab)),
    'ge beside its registered series': ({'vendor': 'ge'}, g.classic, registered),
    'philips': ({'vendor': 'philips'}, g.classic, None),
    'philips jog': ({'vendor': 'philips', 'slice_times': 'shuttle'}, g.classic, None),
    'philips past midnight': ({'vendor': 'philips', 'start': MIDNIGHT}, g.classic, None),
    'philips, a series per phase': (
        {'vendor': 'philips', 'n_frames': 20}, g.classic, series_per(of_phase)),
    'canon': ({'vendor': 'canon'}, g.classic, None),
    'canon, a series per frame': ({'vendor': 'canon'}, g.classic, series_per(of_frame)),
    'canon past midnight': ({'vendor': 'canon', 'start': MIDNIGHT}, g.classic, series_per(of_frame)),
    'enhanced, all frames': ({}, lambda scan: g.enhanced(scan, True), None),
    'enhanced shuttle': ({'slice_times': 'shuttle'}, lambda scan: g.enhanced(scan, True), None),
    'enhanced, one per frame': ({}, lambda scan: g.enhanced(scan, False), None),
    'enhanced past midnight': ({'start': MIDNIGHT}, lambda scan: g.enhanced(scan, False), None),
    'feet first': ({'orientation': FEET_FIRST}, g.classic, None),
    'prone': ({'orientation': PRONE}, g.classic, None),
    'turned head': ({'orientation': OBLIQUE}, g.classic, None),
    'tipped slab': ({'orientation': TIPPED}, g.classic, None),
    'tilted gantry': ({'tilt': 18.0}, g.classic, None),
    'tilted the other way, shuttle': ({'tilt': -12.0, 'slice_times': 'shuttle'}, g.classic, None),
    'enhanced, tilted': ({'tilt': 18.0}, lambda scan: g.enhanced(scan, True), None),
    'rescale per slice': ({}, g.classic, slope_per_slice),
    'slope that is no integer': ({'slope': 0.7}, g.classic, None),
    'index always 1': ({}, g.classic, constant_index),
    'a localizer beside': ({}, g.classic, with_localizer),
    'few tags': ({}, g.classic, other_tags_missing),
    'a copy of a frame': ({}, g.classic, double(4)),
    'thin slices': ({'distance': 0.625}, g.classic, None),
}  # fmt: skip


@pytest.mark.parametrize('case', GOOD)
def test_times_and_voxels_are_right(case, tmp_path):
    traits, make, edit = GOOD[case]
    scan = g.Scan(**traits)
    g.write(make(scan), tmp_path / 'src', edit)
    code, path = run(tmp_path)
    assert code == 0
    if make is g.mosaics or 'mosaics' in case:
        scan.times[:] = scan.times[:, :1]
    check_times(path, scan.times)
    check_voxels(path, scan, 0.51 if scan.tilt else 0.01)


@pytest.mark.parametrize('value', [-3024, -2000, -32768])
def test_padding_becomes_air(value, tmp_path):
    scan = g.Scan('ge')
    g.write(g.classic(scan), tmp_path / 'src', padded(value))
    code, path = run(tmp_path)
    scan.hu[-5:, -1] = -1024
    assert code == 0
    check_voxels(path, scan)


def test_padding_with_the_density_of_water_leaves_the_ventricles_alone(tmp_path):
    scan = g.Scan()
    scan.hu += 1
    scan.hu[8:10, 8:10] = 0  # a ventricle
    scan.hu[:, 14:] = 0  # outside the field of view
    g.write(g.classic(scan), tmp_path / 'src', padding_value(1024))
    code, path = run(tmp_path)
    scan.hu[:, 14:] = -1024
    assert code == 0
    check_voxels(path, scan)


@pytest.mark.parametrize(
    ('edit', 'kept', 'note'),
    [
        (drop((11, 3)), slice(0, 11), 'frame 12 of 12 has 3 of 4 slices and was dropped'),
        (drop((11, 2), (11, 1), (11, 3)), slice(0, 11), 'frame 12 of 12 has 1 of 4 slices'),
        (drop((0, 0), (0, 1)), slice(1, 12), 'frame 1 of 12 has 2 of 4 slices and was dropped'),
        (
            drop(*((6, z) for z in range(4))),
            np.r_[0:6, 7:12],
            '3 s between frames 6 and 7, but 1.5 s',
        ),
        (double(4), slice(0, 12), '4 images that exist twice were dropped'),
    ],
)
def test_what_was_dropped_is_stated(edit, kept, note, tmp_path, capsys):
    scan = g.Scan(slice_times='sequential')
    g.write(g.classic(scan), tmp_path / 'src', edit)
    code, path = run(tmp_path)
    assert code == 0
    assert note in capsys.readouterr().out
    assert note in path.with_name(path.name.replace('.nii.gz', '.json')).read_text()
    scan.hu, scan.times = scan.hu[..., kept], scan.times[kept]
    check_times(path, scan.times)
    check_voxels(path, scan)


def uneven(datasets):
    for ds in datasets:
        if which_of(ds)[1] > 2:
            x, y, z = ds.ImagePositionPatient
            ds.ImagePositionPatient = [x, y, z + 5]


def moving(datasets):
    for ds in datasets:
        if of_frame(ds) > 6:
            ds.ImagePositionPatient[0] += 30


def colour(datasets):
    for ds in datasets:
        ds.SamplesPerPixel = 3


def burned_in(datasets):
    for ds in datasets:
        ds.BurnedInAnnotation = 'YES'


def truncated(datasets):
    datasets[40].PixelData = datasets[40].PixelData[:100]


def too_long(datasets):
    for ds in datasets:
        ds.AcquisitionTime = f'{8 + of_frame(ds):02d}0000'
        del ds.ContentTime


def part_of(body):
    def rename(datasets):
        for ds in datasets:
            ds.BodyPartExamined = body

    return rename


BAD = {
    'all times equal': (constant_time, 'AcquisitionTime is equal for 12 of 12 images'),
    'hours between frames': (too_long, 'AcquisitionTime spans 3.96e+04 s'),
    'slice lost in the middle': (
        drop((6, 2)), 'frame 7 of 12 has no image of slice 3 of 4; export the series again'),
    'slices lost': (drop((6, 2), (6, 3), (8, 2)), 'has no image of slice 3 of 4 and 2 more'),
    'two different images at a time': (
        double(4, new_pixels=True), 'AcquisitionTime is equal for two different images of slice 1 of 4'),
    'slices of 5, then 10 mm': (uneven, 'slices 3 and 4 of 4 are 10 mm apart, the others 5 mm'),
    'slice lost in all frames': (
        drop(*((f, 2) for f in range(12))), 'slices 2 and 3 of 3 are 10 mm apart'),
    'the field of view moved': (moving, 'up to 30 mm apart in different frames'),
    'nine frames': (
        drop(*((f, z) for f in (9, 10, 11) for z in range(4))), '9 images per position'),
    'colour': (colour, 'colour pictures'),
    'text in the pixels': (burned_in, 'BurnedInAnnotation is YES'),
    'truncated pixels': (truncated, 'cannot be decoded'),
    'another part of the body': (part_of('LIVER'), 'another part of the body'),
}  # fmt: skip


@pytest.fixture(scope='module')
def other(tmp_path_factory):
    """Write a study without faults once."""
    scan = g.Scan('canon', name='other', patient='PID7', n_slices=2)
    return g.write(g.classic(scan), tmp_path_factory.mktemp('other'))


@pytest.mark.parametrize('case', BAD)
def test_a_broken_study_is_one_sentence_and_the_others_go_on(case, other, tmp_path, capsys):
    edit, message = BAD[case]
    g.write(g.classic(g.Scan()), tmp_path / 'src' / 'a', edit)
    shutil.copytree(other, tmp_path / 'src' / 'b')
    code, path = run(tmp_path)
    output = capsys.readouterr()
    assert code == 1
    assert message in output.out
    (line,) = output.err.splitlines()
    assert line.startswith('dataset: ')
    assert path is not None
    assert len(list((tmp_path / 'bids').rglob('*_ctp.nii.gz'))) == 1


def test_an_interval_of_the_user_times_a_series_that_has_an_order_only(tmp_path):
    scan = g.Scan()
    g.write(g.classic(scan), tmp_path / 'src', constant_time)
    code, path = run(tmp_path, '--frame-interval', '1.5')
    assert code == 0
    check_times(path, scan.times)
    check_voxels(path, scan)
