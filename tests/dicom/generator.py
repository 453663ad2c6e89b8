# SPDX-License-Identifier: Apache-2.0
"""Perfusion series in DICOM as five vendors write them, with pixels that code frame and slice."""

import functools
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid

CT, ENHANCED = '1.2.840.10008.5.1.4.1.1.2', '1.2.840.10008.5.1.4.1.1.2.1'
# every string of these must not get into the dataset
IDENTIFYING = {
    'PatientName': 'Mustermann^Erika', 'PatientID': 'PID48213', 'PatientBirthDate': '19470611',
    'AccessionNumber': 'ACC99231', 'InstitutionName': 'Klinikum Nirgendwo',
    'InstitutionAddress': 'Hauptstrasse 77', 'ReferringPhysicianName': 'Hausarzt^Bert',
    'OperatorsName': 'Opera^Tor', 'StationName': 'CTSTATION07', 'DeviceSerialNumber': 'SN765432',
    'StudyID': 'STU5512', 'PatientComments': 'Kommentar Erika', 'StudyDescription': 'Schlaganfall Erika',
    'RequestedProcedureDescription': 'Anforderung Erika', 'ImageComments': 'Bild von Erika',
}  # fmt: skip
START = datetime(2024, 2, 28, 10, 11, 12)


@dataclass
class Scan:
    """What is scanned. Slices run from feet to head; times are (T, Z), s after `start`."""

    vendor: str = 'siemens'
    n_frames: int = 12
    n_slices: int = 4
    size: int = 16
    interval: float = 1.5
    distance: float = 5.0
    pixel: float = 0.5
    tilt: float = 0.0
    orientation: tuple = (1, 0, 0, 0, 1, 0)
    corner: tuple = (-4.0, -6.0, -20.0)
    start: datetime = START
    slice_times: str = 'same'  # or 'shuttle', 'sequential'
    hu: np.ndarray | None = None  # (columns, rows, Z, T)
    slope: float = 1.0
    description: str = 'CTP 4D'
    patient: str = 'PID48213'
    name: str = 'study'
    times: np.ndarray = field(init=False)

    def __post_init__(self):
        frames = self.interval * np.arange(self.n_frames)[:, None]
        share = np.arange(self.n_slices) / max(1, self.n_slices - 1)
        offsets = np.zeros((self.n_frames, self.n_slices))
        if self.slice_times == 'shuttle':
            offsets = 1.05 * np.where(np.arange(self.n_frames)[:, None] % 2, 1 - share, share)
        elif self.slice_times == 'sequential':
            offsets = np.tile(0.6 * share, (self.n_frames, 1))
        self.times = np.round(frames + offsets, 3)
        if self.hu is None:
            self.hu = coded(self.size, self.n_slices, self.n_frames)

    def position(self, z: int) -> np.ndarray:
        """ImagePositionPatient of a slice; a tilted gantry shears the stack."""
        row, column = np.reshape(self.axes, (2, 3)).astype(float)
        normal = np.cross(row, column)
        step = np.array([0, 0, 1.0]) if self.tilt else normal * np.sign(normal[2])
        return np.array(self.corner) + z * self.distance * step

    @property
    def axes(self) -> tuple:
        if not self.tilt:
            return self.orientation
        tilt = np.deg2rad(self.tilt)
        return (1, 0, 0, 0, float(np.cos(tilt)), float(np.sin(tilt)))


def scan_of(path: Path, **options) -> Scan:
    """Make the scan that would have given an axial series in NIfTI with LPS axes, with its times."""
    import nibabel as nb

    from ctpprep.inputs.timing import read_timing

    image = nb.load(path)
    hu = np.asarray(image.dataobj)
    pixel, _, distance, _ = (float(size) for size in image.header.get_zooms())
    sidecar = json.loads(path.with_name(path.name.replace('.nii.gz', '.json')).read_text())
    n_slices, n_frames = hu.shape[2:]
    corner = tuple(float(value) for value in image.affine[:3, 3] * [-1, -1, 1])
    scan = Scan(
        n_frames=n_frames, n_slices=n_slices, size=hu.shape[0], pixel=round(pixel, 6),
        distance=distance, hu=hu, corner=corner, **options,
    )  # fmt: skip
    scan.times = np.array(read_timing(sidecar, n_frames, n_slices)[1]).T
    return scan


def coded(size: int, n_slices: int, n_frames: int) -> np.ndarray:
    """Return HU that name frame, slice and corner, (columns, rows, Z, T)."""
    hu = np.zeros((size, size, n_slices, n_frames), np.int16)
    hu += np.int16(30) * np.arange(n_slices, dtype=np.int16)[:, None]
    hu += np.arange(n_frames, dtype=np.int16)
    hu[:3] += 500  # the first columns
    hu[:, :2] += 1000  # the first rows
    return hu


def uid(*parts) -> str:
    return generate_uid(entropy_srcs=['/'.join(str(part) for part in parts)])


def stamp(moment: datetime) -> tuple[str, str]:
    return moment.strftime('%Y%m%d'), moment.strftime('%H%M%S.%f')


@functools.cache
def _constant() -> Dataset:
    """Tags that are the same in all images."""
    ds = Dataset()
    for name, value in IDENTIFYING.items():
        if name != 'PatientID':
            setattr(ds, name, value)
    ds.SOPClassUID, ds.Modality, ds.PatientPosition = CT, 'CT', 'HFS'
    ds.ManufacturerModelName, ds.ContrastBolusAgent = 'Generator', 'Imeron 400 fuer Erika'
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.PhotometricInterpretation = 'MONOCHROME2'
    return ds


def image(scan: Scan, frame: int, z: int) -> Dataset:
    """One classic image with the tags that all vendors write."""
    ds = Dataset({e.tag: e for e in _constant()})  # elements are shared: never change their values
    ds.PatientID = scan.patient
    ds.SOPInstanceUID = uid(scan.name, scan.description, 'sop', frame, z)
    ds.StudyInstanceUID, ds.FrameOfReferenceUID = uid(scan.name), uid(scan.name, 'frame')
    ds.SeriesInstanceUID = uid(scan.name, scan.description, 'series')
    ds.SeriesNumber, ds.SeriesDescription = 5, scan.description
    ds.InstanceNumber = frame * scan.n_slices + z + 1
    ds.Manufacturer = {'siemens': 'SIEMENS', 'ge': 'GE MEDICAL SYSTEMS', 'philips': 'Philips',
                       'canon': 'TOSHIBA'}[scan.vendor]  # fmt: skip
    ds.ImageType = ['ORIGINAL', 'PRIMARY', 'AXIAL']
    ds.KVP, ds.XRayTubeCurrent, ds.SliceThickness = 80, 200, scan.distance
    ds.ConvolutionKernel = 'H30f'
    ds.ImageOrientationPatient = [float(v) for v in scan.axes]
    ds.ImagePositionPatient = [round(float(v), 5) for v in scan.position(z)]
    ds.PixelSpacing = [scan.pixel, scan.pixel]
    ds.SamplesPerPixel = 1
    ds.RescaleSlope, ds.RescaleIntercept = scan.slope, -1024
    pixels(ds, scan.hu[..., z, frame])
    moment = scan.start + timedelta(seconds=float(scan.times[frame, z]))
    ds.StudyDate, ds.StudyTime = stamp(scan.start - timedelta(minutes=4))
    ds.AcquisitionDate, ds.AcquisitionTime = stamp(moment)
    ds.ContentDate, ds.ContentTime = stamp(moment + timedelta(seconds=0.4))
    return ds


def pixels(ds: Dataset, hu: np.ndarray) -> None:
    """Store HU (columns, rows)."""
    stored = np.round((hu.T - float(ds.RescaleIntercept)) / float(ds.RescaleSlope)).astype('<i2')
    ds.Rows, ds.Columns = stored.shape
    ds.PixelData = stored.tobytes()


def classic(scan: Scan) -> list[Dataset]:
    """All images in the way of a vendor."""
    made = [image(scan, frame, z) for frame in range(scan.n_frames) for z in range(scan.n_slices)]
    for ds in made:
        frame = (ds.InstanceNumber - 1) // scan.n_slices
        if scan.vendor == 'philips':  # AcquisitionTime is that of the series
            ds.ContentDate, ds.ContentTime = ds.AcquisitionDate, ds.AcquisitionTime
            ds.AcquisitionDate, ds.AcquisitionTime = stamp(scan.start)
            ds.TemporalPositionIdentifier, ds.NumberOfTemporalPositions = frame + 1, scan.n_frames
        elif scan.vendor == 'canon':
            ds.TemporalPositionIndex = 1
        elif scan.vendor == 'ge':
            ge_times(ds, scan.start)
    return made


def ge_times(ds: Dataset, start: datetime) -> None:
    """Write the private times of GE as UN; the image is in the middle of its rotation."""
    moment = datetime.strptime(ds.AcquisitionDate + ds.AcquisitionTime, '%Y%m%d%H%M%S.%f')
    ds.add_new(0x00190010, 'LO', 'GEMS_ACQU_01')
    ds.add_new(0x00230010, 'LO', 'GEMS_STDY_01')
    ds.add_new(0x00191024, 'UN', struct.pack('<d', (moment - start).total_seconds() + 0.25))
    ds.add_new(0x00231070, 'UN', struct.pack('<d', (start - datetime(1970, 1, 1)).total_seconds()))


def enhanced(scan: Scan, one_object: bool) -> list[Dataset]:
    """Enhanced CT: one object for all frames, or one per frame in a series of its own."""
    parts = [range(scan.n_frames)] if one_object else [[frame] for frame in range(scan.n_frames)]
    objects = []
    for part in parts:
        ds = image(scan, part[0], 0)
        for name in ('ImagePositionPatient', 'ImageOrientationPatient', 'PixelSpacing', 'KVP',
                     'RescaleSlope', 'RescaleIntercept', 'SliceThickness', 'AcquisitionTime',
                     'AcquisitionDate', 'ContrastBolusAgent', 'ConvolutionKernel'):  # fmt: skip
            delattr(ds, name)
        del ds.SOPClassUID
        ds.SOPClassUID = ENHANCED
        ds.SeriesInstanceUID = uid(scan.name, 'enhanced', part[0])
        ds.SeriesNumber, ds.InstanceNumber = 5 + part[0], 1
        ds.NumberOfFrames = len(part) * scan.n_slices
        shared = Dataset()
        shared.PixelMeasuresSequence = [
            _item(PixelSpacing=[scan.pixel] * 2, SliceThickness=scan.distance)
        ]
        shared.PlaneOrientationSequence = [
            _item(ImageOrientationPatient=[float(v) for v in scan.axes])
        ]
        shared.PixelValueTransformationSequence = [_item(RescaleSlope=1, RescaleIntercept=-1024)]
        shared.CTXRayDetailsSequence = [_item(KVP=80)]
        ds.SharedFunctionalGroupsSequence = Sequence([shared])
        own, stored = [], []
        for frame in part:
            for z in range(scan.n_slices):
                moment = scan.start + timedelta(seconds=float(scan.times[frame, z]))
                group = Dataset()
                content = _item(
                    FrameAcquisitionDateTime=''.join(stamp(moment)), TemporalPositionIndex=1
                )
                group.FrameContentSequence = [content]
                position = [round(float(v), 5) for v in scan.position(z)]
                group.PlanePositionSequence = [_item(ImagePositionPatient=position)]
                own.append(group)
                stored.append((scan.hu[..., z, frame].T + 1024).astype('<i2'))
        ds.PerFrameFunctionalGroupsSequence = Sequence(own)
        ds.PixelData = np.stack(stored).tobytes()
        objects.append(ds)
    return objects


def _item(**tags) -> Dataset:
    ds = Dataset()
    for name, value in tags.items():
        setattr(ds, name, value)
    return ds


def mosaics(scan: Scan, n_slabs: int = 1) -> list[Dataset]:
    """One picture per slab and frame that contains all slices as tiles."""
    per_slab = scan.n_slices // n_slabs
    side = int(np.ceil(np.sqrt(per_slab)))
    made = []
    for frame in range(scan.n_frames):
        for first in range(0, scan.n_slices, per_slab):
            ds = image(scan, frame, first)
            tiles = np.full((side * scan.size, side * scan.size), -1024, np.int16)
            for i in range(per_slab):
                x, y = i % side * scan.size, i // side * scan.size
                tiles[x : x + scan.size, y : y + scan.size] = scan.hu[..., first + i, frame]
            pixels(ds, tiles)
            ds.ImageType = ['ORIGINAL', 'PRIMARY', 'AXIAL', 'MOSAIC']
            shift = scan.pixel * scan.size * (side - 1) / 2
            row, column = np.reshape(scan.axes, (2, 3))
            corner = scan.position(first) - shift * (row + column)
            ds.ImagePositionPatient = [float(v) for v in corner]
            ds.add_new(0x00190010, 'LO', 'SIEMENS MR HEADER')
            ds.add_new(0x0019100A, 'US', per_slab)
            made.append(ds)
    return made


def lossless_jpeg(ds: Dataset) -> None:
    """Compress an image by JPEG lossless, first-order prediction (process 14, selection value 1)."""
    stored = np.frombuffer(ds.PixelData, '<i2').reshape(ds.Rows, ds.Columns).astype(int) & 0xFFFF
    ds.PixelData = encapsulate([encode_lossless(stored)])
    ds['PixelData'].VR, ds['PixelData'].is_undefined_length = 'OB', True


def encode_lossless(stored: np.ndarray) -> bytes:
    """Encode 16-bit values: the difference from the neighbour, as a category and its bits.

    All 17 categories get codes of 5 bits, so that no statistics are needed.
    """
    rows, columns = stored.shape
    predicted = np.zeros_like(stored)
    predicted[:, 1:] = stored[:, :-1]
    predicted[1:, 0] = stored[:-1, 0]
    predicted[0, 0] = 1 << 15
    bits = []
    for difference in ((stored - predicted + 32768) % 65536 - 32768).ravel().tolist():
        category = 16 if difference == -32768 else abs(difference).bit_length()
        bits.append(f'{category:05b}')
        if 0 < category < 16:
            value = difference if difference > 0 else difference + (1 << category) - 1
            bits.append(f'{value:0{category}b}')
    text = ''.join(bits)
    text += '1' * (-len(text) % 8)
    scan = int(text, 2).to_bytes(len(text) // 8, 'big').replace(b'\xff', b'\xff\x00')
    huffman = bytes([0, *[0] * 4, 17, *[0] * 11, *range(17)])
    frame = struct.pack('>BHHBBBB', 16, rows, columns, 1, 1, 0x11, 0)
    header = bytes([1, 1, 0, 1, 0, 0])
    parts = [b'\xff\xd8']
    for marker, body in ((b'\xff\xc3', frame), (b'\xff\xc4', huffman), (b'\xff\xda', header)):
        parts += [marker, struct.pack('>H', len(body) + 2), body]
    return b''.join([*parts, scan, b'\xff\xd9'])


def write(
    datasets: list[Dataset], folder: Path, edit: Callable[[list[Dataset]], object] | None = None
) -> Path:
    """Write files without suffix, in an order that means nothing."""
    if edit is not None:
        edited = edit(datasets)
        datasets = datasets if edited is None else edited
    folder.mkdir(parents=True, exist_ok=True)
    for i, ds in enumerate(datasets):
        compressed = getattr(ds['PixelData'], 'is_undefined_length', False)
        ds.file_meta = FileMetaDataset()
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        syntax = ImplicitVRLittleEndian if i % 2 else ExplicitVRLittleEndian
        ds.file_meta.TransferSyntaxUID = '1.2.840.10008.1.2.4.70' if compressed else syntax
        name = uid('file', ds.SOPInstanceUID, i)[-12:]
        ds.save_as(folder / f'IM{name}', enforce_file_format=True)
    return folder


def volume(description: str, kvp: int, kernel: str = 'H31s', n_slices: int = 30) -> list[Dataset]:
    """A single volume of the same study, in the time before the perfusion."""
    scan = Scan(n_frames=1, n_slices=n_slices, description=description)
    scan.start = START - timedelta(minutes=3)
    made = classic(scan)
    for ds in made:
        ds.KVP, ds.ConvolutionKernel = kvp, kernel
        if 'nativ' in description:
            del ds.ContrastBolusAgent
    return made
