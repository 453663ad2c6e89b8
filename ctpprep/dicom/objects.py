# SPDX-License-Identifier: Apache-2.0
"""Masks and maps of ctpprep as DICOM objects, in the frame of reference of their source."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ctpprep import __version__

RESEARCH = 'Research use only, not for diagnosis'
MANUFACTURER, MODEL, SERIAL = 'ctpprep', 'ctpprep', 'none'
# series numbers of objects, far from those of scanners
SEGMENTATION_SERIES, MAP_SERIES = 9800, 9801
# of voxels without a value
PADDING = -1.0


@dataclass(frozen=True)
class Concept:
    """A code: value, scheme and meaning."""

    value: str
    scheme: str
    meaning: str

    @property
    def code(self) -> Any:
        """The concept for highdicom."""
        from highdicom.sr.coding import CodedConcept

        return CodedConcept(self.value, self.scheme, self.meaning)


@dataclass(frozen=True)
class MapKind:
    """How a map is described: its name, quantity and unit."""

    label: str
    quantity: Concept
    unit: Concept


ABNORMAL = Concept('49755003', 'SCT', 'Morphologically Abnormal Structure')
INFARCT = Concept('432504007', 'SCT', 'Cerebral infarction')
ISCHEMIA = Concept('52674009', 'SCT', 'Ischemia')
BRAIN = Concept('12738006', 'SCT', 'Brain')
SECOND = Concept('s', 'UCUM', 'second')
RATIO = Concept('{ratio}', 'UCUM', 'ratio')
RELATIVE_FLOW = Concept('126397', 'DCM', 'Relative Regional Blood Flow')
# ending of the file: segment
SEGMENTS = {
    'label-core_desc-global_mask': ('Infarct core (global)', INFARCT),
    'label-core_desc-local_mask': ('Infarct core (local)', INFARCT),
    'label-hypoperfusion_mask': ('Hypoperfusion', ISCHEMIA),
    'label-mismatch_desc-global_mask': ('Mismatch (global)', ISCHEMIA),
    'label-mismatch_desc-local_mask': ('Mismatch (local)', ISCHEMIA),
}
# ending of the file: map; units as in CID 7181 of DICOM
MAPS = {
    'cbf': MapKind(
        'CBF', Concept('113055', 'DCM', 'Regional Cerebral Blood Flow'),
        Concept('ml/[100]g/min', 'UCUM', 'milliliter per 100 gram per minute'),
    ),
    'cbv': MapKind(
        'CBV', Concept('113056', 'DCM', 'Regional Cerebral Blood Volume'),
        Concept('ml/[100]g', 'UCUM', 'milliliter per 100 gram'),
    ),
    'mtt': MapKind('MTT', Concept('113052', 'DCM', 'Mean Transit Time'), SECOND),
    'tmax': MapKind('Tmax', Concept('113084', 'DCM', 'Tmax'), SECOND),
    'desc-global_rcbf': MapKind('rCBF global', RELATIVE_FLOW, RATIO),
    'desc-local_rcbf': MapKind('rCBF local', RELATIVE_FLOW, RATIO),
}  # fmt: skip


def as_frames(voxels: np.ndarray) -> np.ndarray:
    """Reorder (X, Y, Z) voxels to (Z, rows, columns)."""
    return np.ascontiguousarray(voxels.transpose(2, 1, 0))


def describe_planes(affine: np.ndarray, n_slices: int) -> dict[str, Any]:
    """Describe the voxel grid of a file as the planes of an object.

    Parameters
    ----------
    affine : (4, 4) array
        mm RAS, without shear.
    n_slices : int

    Returns
    -------
    dict
        Keywords of the classes of highdicom.
    """
    from highdicom.content import (
        PixelMeasuresSequence,
        PlaneOrientationSequence,
        PlanePositionSequence,
    )

    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    columns, rows, slices = np.linalg.norm(lps[:3, :3], axis=0)
    origin, step = lps[:3, 3], lps[:3, 2]
    orientation = np.r_[lps[:3, 0] / columns, lps[:3, 1] / rows]
    return {
        'pixel_measures': PixelMeasuresSequence(
            pixel_spacing=(float(rows), float(columns)),
            slice_thickness=float(slices),
            spacing_between_slices=float(slices),
        ),
        'plane_orientation': PlaneOrientationSequence('PATIENT', orientation.round(9).tolist()),
        'plane_positions': [
            PlanePositionSequence('PATIENT', (origin + z * step).round(6).tolist())
            for z in range(n_slices)
        ],
    }


def derive_uid(source: Any, *parts: Any) -> str:
    """Derive a UID from that of the source and the content, so that a second export has the same."""
    from pydicom.uid import generate_uid

    text = '/'.join([str(source.SeriesInstanceUID), __version__, *map(str, parts)])
    return str(generate_uid(entropy_srcs=[text]))


def _equipment(source: Any, series: int, number: int, *content: Any) -> dict[str, Any]:
    """Keywords that all objects have; `content` makes the UID."""
    return {
        'series_instance_uid': derive_uid(source, 'series', series),
        'series_number': series,
        'sop_instance_uid': derive_uid(source, series, *content),
        'instance_number': number,
        'manufacturer': MANUFACTURER,
        'manufacturer_model_name': MODEL,
        'software_versions': __version__[:64],
        'device_serial_number': SERIAL,
        'content_description': RESEARCH,
    }


def make_segmentation(
    sources: Sequence[Any], masks: dict[str, np.ndarray], affine: np.ndarray
) -> Any:
    """Make one segmentation of all masks.

    Parameters
    ----------
    sources : sequence of pydicom.Dataset
        Headers of the images of the first frame.
    masks : dict of str to (X, Y, Z) array
        By ending of their file, keys of `SEGMENTS`.
    affine : (4, 4) array
        mm RAS.

    Returns
    -------
    highdicom.seg.Segmentation
        Empty segments have no frames, but are described.
    """
    from highdicom.content import AlgorithmIdentificationSequence
    from highdicom.seg import Segmentation as HighdicomSegmentation
    from highdicom.seg import SegmentationTypeValues, SegmentDescription
    from pydicom.sr.codedict import codes

    algorithm = AlgorithmIdentificationSequence(
        name='ctpprep', family=codes.DCM.ArtificialIntelligence, version=__version__
    )
    segments = [
        SegmentDescription(
            number, SEGMENTS[ending][0], ABNORMAL.code, SEGMENTS[ending][1].code, 'AUTOMATIC',
            algorithm, anatomic_regions=[BRAIN.code],
        )
        for number, ending in enumerate(masks, start=1)
    ]  # fmt: skip
    pixels = np.stack([as_frames(mask > 0) for mask in masks.values()], axis=-1)
    digest = hashlib.sha256(pixels.tobytes()).hexdigest()
    return HighdicomSegmentation(
        sources, pixels.astype(np.uint8), SegmentationTypeValues.BINARY, segments,
        **_equipment(sources[0], SEGMENTATION_SERIES, 1, *masks, digest),
        **describe_planes(affine, pixels.shape[0]), content_label='CTPPREP',
    )  # fmt: skip


def make_map(
    sources: Sequence[Any], ending: str, voxels: np.ndarray, affine: np.ndarray, number: int
) -> Any:
    """Make a parametric map of 32-bit floating-point values.

    Parameters
    ----------
    sources : sequence of pydicom.Dataset
    ending : str
        A key of `MAPS`.
    voxels : (X, Y, Z) array
        Voxels that are not finite become `PADDING`, and are declared as such.
    affine : (4, 4) array
        mm RAS.
    number : int
        Number in the series of maps.

    Returns
    -------
    highdicom.pm.ParametricMap
    """
    from highdicom.content import VOILUTTransformation
    from highdicom.pm import ParametricMap, RealWorldValueMapping

    kind = MAPS[ending]
    finite = np.isfinite(voxels)
    pixels = as_frames(np.where(finite, voxels, PADDING).astype(np.float32))
    high = float(np.percentile(voxels[finite], 99.5)) if finite.any() else 1.0
    mapping = RealWorldValueMapping(
        kind.label, kind.quantity.meaning, kind.unit.code,
        value_range=(float(pixels.min()), float(pixels.max())), slope=1.0, intercept=0.0,
        quantity_definition=kind.quantity.code,
    )  # fmt: skip
    digest = hashlib.sha256(pixels.tobytes()).hexdigest()
    result = ParametricMap(
        sources, pixels, real_world_value_mappings=[mapping],
        contains_recognizable_visual_features=False,
        voi_lut_transformations=[VOILUTTransformation(high / 2, max(high, 1e-3))],
        content_label='CTPPREP',
        **_equipment(sources[0], MAP_SERIES, number, ending, digest),
        **describe_planes(affine, pixels.shape[0]),
    )  # fmt: skip
    _order_frames(result)
    _add_anatomy(result)
    result.BodyPartExamined = 'BRAIN'
    result.ContentCreatorName = ''  # may be empty, but readers want it to exist
    result.SeriesDescription = f'ctpprep perfusion maps ({RESEARCH})'[:64]
    if not finite.all():
        result.FloatPixelPaddingValue = result.FloatPixelPaddingRangeLimit = PADDING
    return result


def _add_anatomy(result: Any) -> None:
    """State that all frames show the brain; dcmqi does not read maps without it."""
    from pydicom import Dataset

    anatomy = Dataset()
    anatomy.FrameLaterality = 'U'  # not one of a pair
    anatomy.AnatomicRegionSequence = [BRAIN.code]
    result.SharedFunctionalGroupsSequence[0].FrameAnatomySequence = [anatomy]


def _order_frames(result: Any) -> None:
    """Sort frames from feet to head, which some readers assume; highdicom writes them the other way."""
    groups = result.PerFrameFunctionalGroupsSequence
    heights = [group.PlanePositionSequence[0].ImagePositionPatient[2] for group in groups]
    order = np.argsort(heights, kind='stable')
    frames = np.frombuffer(result.FloatPixelData, '<f4').reshape(len(groups), -1)
    result.FloatPixelData = frames[order].tobytes()
    result.PerFrameFunctionalGroupsSequence = [groups[i] for i in order]
