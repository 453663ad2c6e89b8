# SPDX-License-Identifier: Apache-2.0
"""Read the headers of the images of a study."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ctpprep.dicom.files import open_source
from ctpprep.dicom.timing import parse_integer, read_times
from ctpprep.exceptions import SeriesError

CT_CLASSES = {
    '1.2.840.10008.5.1.4.1.1.2': 'CT',
    '1.2.840.10008.5.1.4.1.1.2.1': 'Enhanced CT',
    '1.2.840.10008.5.1.4.1.1.2.2': 'Legacy Converted Enhanced CT',
}
SERIES_TAGS = (
    'Manufacturer', 'ManufacturerModelName', 'KVP', 'ConvolutionKernel', 'SliceThickness',
    'SpacingBetweenSlices', 'SeriesDescription', 'ProtocolName', 'StudyDescription', 'SeriesNumber',
    'ContrastBolusAgent', 'ContrastBolusIngredient', 'BodyPartExamined', 'GantryDetectorTilt',
    'PatientPosition', 'ExposureTime', 'XRayTubeCurrent', 'Exposure', 'CTDIvol', 'SpiralPitchFactor',
    'FilterType', 'SoftwareVersions', 'BurnedInAnnotation', 'FrameOfReferenceUID',
)  # fmt: skip
OTHER_TAGS = (
    'SOPClassUID', 'SOPInstanceUID', 'StudyInstanceUID', 'SeriesInstanceUID', 'Modality', 'PatientID',
    'PatientName', 'ImageType', 'InstanceNumber', 'AcquisitionNumber', 'TemporalPositionIdentifier',
    'TemporalPositionIndex', 'AcquisitionDate', 'AcquisitionTime', 'AcquisitionDateTime',
    'ContentDate', 'ContentTime', 'StudyDate', 'StudyTime', 'Rows', 'Columns', 'PixelSpacing',
    'ImagePositionPatient', 'ImageOrientationPatient', 'RescaleSlope', 'RescaleIntercept',
    'PixelPaddingValue', 'PixelPaddingRangeLimit', 'SamplesPerPixel', 'BitsAllocated',
    'BitsStored', 'HighBit', 'PixelRepresentation', 'NumberOfFrames', 'SharedFunctionalGroupsSequence',
    'PerFrameFunctionalGroupsSequence', 'FrameAcquisitionDateTime',
)  # fmt: skip
UNCOMPRESSED = {'1.2.840.10008.1.2': 8, '1.2.840.10008.1.2.1': 12}  # bytes before the pixels
PIXEL_DATA = b'\xe0\x7f\x10\x00'
GE_START, GE_MID_SCAN, TILES_IN_MOSAIC = 0x00231070, 0x00191024, 0x0019100A


@dataclass(frozen=True, slots=True)
class Native:
    """Where uncompressed pixels are in their file, so that they are read without parsing it again.

    Attributes
    ----------
    offset : int
        Of the first pixel of the file, bytes.
    dtype : str
        Of a stored value.
    unused_bits : int
        Highest bits of a stored value that have no meaning.
    """

    offset: int
    dtype: str
    unused_bits: int


@dataclass(frozen=True, slots=True)
class Source:
    """Where the pixels of an image are: a file, perhaps in a zip archive, a frame, or a tile of it."""

    path: str
    member: str = ''
    frame: int | None = None
    tile: tuple[int, int] | None = None
    native: Native | None = None


@dataclass(slots=True)
class Image:
    """One slice at one time.

    Attributes
    ----------
    source : Source
    uid : str
        SOPInstanceUID.
    position, orientation : tuple of float
        ImagePositionPatient (mm LPS) and the direction cosines of rows and columns.
    shape : (int, int)
        Rows and columns.
    spacing : (float, float)
        mm between rows and between columns.
    slope, intercept : float
    padding : (int, int) or None
        Stored values that mean no measurement.
    times : dict of str to float
        Seconds by the rule they were read with.
    order : dict of str to int
        Numbers that order images without stating a time.
    """

    source: Source
    uid: str
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    shape: tuple[int, int]
    spacing: tuple[float, float]
    slope: float
    intercept: float
    padding: tuple[int, int] | None
    times: dict[str, float]
    order: dict[str, int]


@dataclass(slots=True)
class ScannedSeries:
    """The images of one SeriesInstanceUID.

    Attributes
    ----------
    uid, study_uid, patient_id : str
    header : dict
        Tags that describe the series, of its first image, by keyword.
    image_type : tuple of str
    images : list of Image
    problem : str
        Why it cannot be used, as one clause; '' if it can.
    """

    uid: str
    study_uid: str
    patient_id: str
    header: dict[str, Any]
    image_type: tuple[str, ...]
    images: list[Image] = field(default_factory=list)
    problem: str = ''

    @property
    def name(self) -> str:
        """Number and description, for messages."""
        number = self.header.get('SeriesNumber')
        text = f'series {number}' if number is not None else 'a series without number'
        description = self.header.get('SeriesDescription')
        return f'{text} ({description})' if description else text


def read_study(files: list[tuple[str, str]]) -> tuple[list[ScannedSeries], int]:
    """Read the headers of the CT images of a study.

    Parameters
    ----------
    files : list of (path, member)

    Returns
    -------
    series : list of ScannedSeries
        Sorted by number.
    n_copies : int
        Number of files whose images had been read from another file.
    """
    import pydicom
    from pydicom.tag import Tag

    # numbers: pydicom would look up each name in each file
    named: list[Any] = [*SERIES_TAGS, *OTHER_TAGS, GE_START, GE_MID_SCAN, TILES_IN_MOSAIC]
    tags = [Tag(name) for name in named]
    by_uid: dict[str, ScannedSeries] = {}
    seen: set[str] = set()
    n_copies = 0
    for path, member in files:
        try:
            with open_source(path, member) as stream:
                dataset = pydicom.dcmread(
                    stream, stop_before_pixels=True, specific_tags=tags, force=True
                )
                native = None if member else _find_pixels(dataset, stream)
        except Exception as error:  # of pydicom, for damaged files
            name = Path(member or path).name
            raise SeriesError(
                f'{name} cannot be read ({error}); export the study again'
            ) from error
        uid = str(dataset.get('SOPInstanceUID', ''))
        if str(dataset.get('SOPClassUID', '')) not in CT_CLASSES or 'Rows' not in dataset:
            continue
        if uid in seen:
            n_copies += 1
            continue
        seen.add(uid)
        key = str(dataset.get('SeriesInstanceUID', ''))
        if (series := by_uid.get(key)) is None:
            series = by_uid[key] = _describe(dataset, key)
        try:
            series.images += _read_images(dataset, path, member, native)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            series.problem = f'{Path(member or path).name} has no usable geometry ({error})'
    return sorted(by_uid.values(), key=_number), n_copies


def _find_pixels(dataset: Any, stream: Any) -> Native | None:
    """Find uncompressed pixels behind the header, where pydicom has stopped reading."""
    if str(dataset.get('SOPClassUID', '')) not in CT_CLASSES:
        return None

    def number(name: str, default: int = 0) -> int:
        value = dataset.get(name)
        return default if value is None else int(value)

    syntax = str(dataset.file_meta.get('TransferSyntaxUID', ''))
    allocated, stored = number('BitsAllocated'), number('BitsStored')
    if (
        syntax not in UNCOMPRESSED
        or allocated not in (8, 16)
        or not 0 < stored <= allocated
        or number('HighBit', stored - 1) != stored - 1
        or number('SamplesPerPixel', 1) != 1
    ):
        return None
    start = stream.tell()
    element = stream.read(UNCOMPRESSED[syntax])
    length = number('Rows') * number('Columns') * number('NumberOfFrames', 1) * (allocated // 8)
    if element[:4] != PIXEL_DATA or int.from_bytes(element[-4:], 'little') != length + length % 2:
        return None
    kind = 'i' if dataset.get('PixelRepresentation') else 'u'
    return Native(start + len(element), f'<{kind}{allocated // 8}', allocated - stored)


def _number(series: ScannedSeries) -> tuple[float, str]:
    number = series.header.get('SeriesNumber')
    return (math.inf if number is None else float(number), series.uid)


def _describe(dataset: Any, uid: str) -> ScannedSeries:
    """Describe a series by one of its images."""
    header = {
        name: value for name in SERIES_TAGS if (value := _plain(dataset.get(name))) is not None
    }
    for group in _groups(dataset, 0):
        for item in (*group.get('CTExposureSequence', []), *group.get('CTReconstructionSequence', []),
                     *group.get('PixelMeasuresSequence', [])):  # fmt: skip
            for name, target in (('ConvolutionKernel', 'ConvolutionKernel'),
                                 ('XRayTubeCurrentInmA', 'XRayTubeCurrent'),
                                 ('SliceThickness', 'SliceThickness')):  # fmt: skip
                if name in item:
                    header.setdefault(target, _plain(item.get(name)))
        for item in group.get('CTXRayDetailsSequence', []):
            header.setdefault('KVP', _plain(item.get('KVP')))
    series = ScannedSeries(
        uid, str(dataset.StudyInstanceUID), str(dataset.get('PatientID', '')), header,
        tuple(str(word).upper() for word in dataset.get('ImageType', None) or ()),
    )  # fmt: skip
    if dataset.get('SamplesPerPixel', 1) != 1:
        series.problem = 'its images are colour pictures'
    return series


def _plain(value: Any) -> Any:
    """Convert a value of pydicom to numbers and text; None if it is empty."""
    if value is None or value == '':
        return None
    if isinstance(value, str | bytes):
        return str(value)
    if hasattr(value, '__iter__'):
        return [_plain(item) for item in value] or None
    number = float(value)
    return int(number) if number.is_integer() else number


def _groups(dataset: Any, frame: int) -> list[Any]:
    """Functional groups of one frame, its own before the shared ones."""
    own = dataset.get('PerFrameFunctionalGroupsSequence') or []
    shared = dataset.get('SharedFunctionalGroupsSequence') or []
    return [*own[frame : frame + 1], *shared[:1]]


def _read_images(dataset: Any, path: str, member: str, native: Native | None) -> list[Image]:
    """List the images of a file: one, the frames of an Enhanced object, or the tiles of a mosaic."""
    if 'MOSAIC' in (dataset.get('ImageType') or ()):
        return _read_tiles(dataset, path, member)
    if 'PerFrameFunctionalGroupsSequence' in dataset:
        count = int(dataset.get('NumberOfFrames', 1))
        return [
            _read_image(
                dataset, Source(path, member, frame, None, native), _groups(dataset, frame)
            )
            for frame in range(count)
        ]
    return [_read_image(dataset, Source(path, member, native=native), [])]


def _read_image(dataset: Any, source: Source, groups: list[Any]) -> Image:
    """Read one image; functional groups precede the tags of the object."""

    def find(sequence: str, name: str, default: Any = None) -> Any:
        for group in groups:
            for item in group.get(sequence) or []:
                if item.get(name) is not None:
                    return item.get(name)
        value = dataset.get(name)
        return default if value is None else value

    spacing = [float(value) for value in find('PixelMeasuresSequence', 'PixelSpacing')]
    content = 'FrameContentSequence'
    order = {
        'TemporalPositionIdentifier': dataset.get('TemporalPositionIdentifier'),
        'TemporalPositionIndex': find(content, 'TemporalPositionIndex'),
        'InstanceNumber': dataset.get('InstanceNumber'),
    }
    if source.frame is not None and order['InstanceNumber'] is not None:
        order['InstanceNumber'] = 100_000 * int(order['InstanceNumber']) + source.frame
    first = dataset.get('PixelPaddingValue')
    last = dataset.get('PixelPaddingRangeLimit', first)
    transform = 'PixelValueTransformationSequence'
    return Image(
        source=source,
        uid=str(dataset.SOPInstanceUID),
        position=_triple(find('PlanePositionSequence', 'ImagePositionPatient')),
        orientation=tuple(
            round(float(v), 6) for v in find('PlaneOrientationSequence', 'ImageOrientationPatient')
        ),
        shape=(int(dataset.Rows), int(dataset.Columns)),
        spacing=(spacing[0], spacing[1]),
        slope=float(find(transform, 'RescaleSlope', 1)),
        intercept=float(find(transform, 'RescaleIntercept', 0)),
        padding=None if first is None else (min(first, last), max(first, last)),
        times=read_times(
            dataset,
            {
                name: find(content, name)
                for name in ('FrameReferenceDateTime', 'FrameAcquisitionDateTime')
            },
            dataset.get(GE_START),
            dataset.get(GE_MID_SCAN),
        ),
        order={name: int(value) for name, value in order.items() if value is not None},
    )


def _triple(values: Any) -> tuple[float, ...]:
    x, y, z = (float(value) for value in values)
    return x, y, z


def _read_tiles(dataset: Any, path: str, member: str) -> list[Image]:
    """List the tiles of a mosaic, whose position is that of the whole picture around the first slice."""
    import numpy as np

    count = parse_integer(dataset[TILES_IN_MOSAIC].value)
    per_row = math.ceil(math.sqrt(count))
    whole = _read_image(dataset, Source(path, member), [])
    rows, columns = whole.shape[0] // per_row, whole.shape[1] // per_row
    along_row, along_column = np.reshape(whole.orientation, (2, 3))
    distance = float(dataset.get('SpacingBetweenSlices') or dataset.SliceThickness)
    corner = (
        np.array(whole.position)
        + along_row * whole.spacing[1] * (whole.shape[1] - columns) / 2
        + along_column * whole.spacing[0] * (whole.shape[0] - rows) / 2
    )
    normal = np.cross(along_row, along_column)
    images = []
    for tile in range(count):
        source = Source(path, member, None, (tile // per_row * rows, tile % per_row * columns))
        position = tuple((corner + tile * distance * normal).tolist())
        images.append(
            Image(source, whole.uid, position, whole.orientation, (rows, columns), whole.spacing,
                  whole.slope, whole.intercept, whole.padding, whole.times, whole.order)
        )  # fmt: skip
    return images
