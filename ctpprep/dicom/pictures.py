# SPDX-License-Identifier: Apache-2.0
"""The one-page summary as DICOM objects: an encapsulated PDF and a picture (secondary capture)."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ctpprep import __version__
from ctpprep.dicom.objects import MANUFACTURER, MODEL, RESEARCH, SERIAL, derive_uid
from ctpprep.dicom.report import TITLE

PDF_CLASS = '1.2.840.10008.5.1.4.1.1.104.1'
PDF_SERIES, PICTURE_SERIES = 9803, 9804
BURNED_IN = 'RESEARCH USE ONLY - NOT FOR DIAGNOSIS'
# height of the band over the height of the picture, and of its letters over that of the band
BAND, LETTERS = 0.04, 0.7
RED, WHITE = (179, 38, 30), (255, 255, 255)


def make_pdf(sources: Sequence[Any], document: bytes) -> Any:
    """Make an encapsulated PDF.

    Parameters
    ----------
    sources : sequence of pydicom.Dataset
        Headers of the images of the first frame.
    document : bytes
        The PDF.

    Returns
    -------
    pydicom.Dataset
    """
    from highdicom.base import SOPClass

    digest = hashlib.sha256(document).hexdigest()
    result = SOPClass(
        study_instance_uid=sources[0].StudyInstanceUID,
        series_instance_uid=derive_uid(sources[0], 'series', PDF_SERIES),
        series_number=PDF_SERIES,
        sop_instance_uid=derive_uid(sources[0], PDF_SERIES, digest),
        sop_class_uid=PDF_CLASS,
        instance_number=1,
        modality='DOC',
        manufacturer=MANUFACTURER,
        series_description=f'ctpprep summary ({RESEARCH})'[:64],
    )
    result.copy_patient_and_study_information(sources[0])
    _describe_equipment(result)
    result.ContentDate, result.ContentTime = (
        result.InstanceCreationDate,
        result.InstanceCreationTime,
    )
    result.AcquisitionDateTime = None
    result.BurnedInAnnotation = 'NO'
    result.DocumentTitle = f'CT perfusion summary. {RESEARCH}'
    result.ConceptNameCodeSequence = [TITLE.code]
    result.MIMETypeOfEncapsulatedDocument = 'application/pdf'
    result.EncapsulatedDocumentLength = len(document)
    result.EncapsulatedDocument = document + b'\0' * (len(document) % 2)
    result.SourceInstanceSequence = [_refer_to(source) for source in sources]
    return result


def make_picture(sources: Sequence[Any], picture: np.ndarray) -> Any:
    """Make a secondary capture with a band that states the purpose.

    Parameters
    ----------
    sources : sequence of pydicom.Dataset
        Headers of the images of the first frame.
    picture : (rows, columns, 3) array of uint8
        RGB.

    Returns
    -------
    highdicom.sc.SCImage
    """
    from highdicom.sc import SCImage

    pixels = burn_in(picture)
    digest = hashlib.sha256(pixels.tobytes()).hexdigest()
    result = SCImage.from_ref_dataset(
        sources[0],
        pixel_array=pixels,
        photometric_interpretation='RGB',
        bits_allocated=8,
        coordinate_system='PATIENT',
        series_instance_uid=derive_uid(sources[0], 'series', PICTURE_SERIES),
        series_number=PICTURE_SERIES,
        sop_instance_uid=derive_uid(sources[0], PICTURE_SERIES, digest),
        instance_number=1,
        manufacturer=MANUFACTURER,
        patient_orientation=('L', 'P'),
        series_description=f'ctpprep summary ({RESEARCH})'[:64],
    )
    # highdicom wants an orientation, but a page of several slices has none
    result.add_new('PatientOrientation', 'CS', None)
    _describe_equipment(result)
    result.BurnedInAnnotation = 'NO'  # of a patient
    result.ImageComments, result.BodyPartExamined = RESEARCH, 'BRAIN'
    return result


def burn_in(picture: np.ndarray) -> np.ndarray:
    """Add a band with the purpose above a picture.

    Parameters
    ----------
    picture : (rows, columns, 3) array of uint8

    Returns
    -------
    (rows + band, columns, 3) array of uint8
    """
    from PIL import Image, ImageDraw, ImageFont

    rows, columns = picture.shape[:2]
    height = max(12, round(BAND * rows))
    band = Image.new('RGB', (columns, height), RED)
    font = ImageFont.load_default(LETTERS * height)
    ImageDraw.Draw(band).text((columns / 2, height / 2), BURNED_IN, WHITE, font, anchor='mm')
    return np.concatenate([np.asarray(band), picture])


def _describe_equipment(result: Any) -> None:
    result.ManufacturerModelName, result.DeviceSerialNumber = MODEL, SERIAL
    result.SoftwareVersions = __version__[:64]
    result.ConversionType = 'SYN'  # made by a program


def _refer_to(source: Any) -> Any:
    from pydicom import Dataset

    item = Dataset()
    item.ReferencedSOPClassUID = source.SOPClassUID
    item.ReferencedSOPInstanceUID = source.SOPInstanceUID
    return item
