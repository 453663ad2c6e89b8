# SPDX-License-Identifier: Apache-2.0
"""Volumes, side and quality as a structured report (DICOM template TID 1500)."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

from ctpprep import __version__
from ctpprep.dicom.findings import Findings, Region
from ctpprep.dicom.objects import (
    ABNORMAL,
    BRAIN,
    MANUFACTURER,
    MODEL,
    RATIO,
    RESEARCH,
    SEGMENTS,
    SERIAL,
    Concept,
    derive_uid,
)

REPORT_SERIES = 9802
TITLE = Concept('126000', 'DCM', 'Imaging Measurement Report')
PROCEDURE = Concept('39142-5', 'LN', 'CT perfusion head with contrast IV')
METHOD = Concept('126301', 'DCM', 'Perfusion analysis by IV Iodinated Contrast CT technique')
VOLUME = Concept('118565006', 'SCT', 'Volume')
MILLILITER = Concept('mL', 'UCUM', 'milliliter')
COMMENT = Concept('121106', 'DCM', 'Comment')
EVALUATIONS = Concept('C0034375', 'UMLS', 'Qualitative Evaluations')
QUALITY = Concept('111050', 'DCM', 'Quality Assessment')
QUALITY_FINDING = Concept('111052', 'DCM', 'Quality Finding')
VERDICTS = {
    'usable': Concept('111237', 'DCM', 'Usable - Meets the quality control standard'),
    'look first': Concept('111236', 'DCM', 'Usable - Does not meet the quality control standard'),
    'do not use': Concept('111235', 'DCM', 'Unusable - Quality renders image unusable'),
}
SIDES = {
    'left': Concept('7771000', 'SCT', 'Left'),
    'right': Concept('24028007', 'SCT', 'Right'),
    'both': Concept('51440002', 'SCT', 'Right and left'),
}
# without a code in a standard
AFFECTED = Concept('affected_side', '99CTPPREP', 'Affected hemisphere')
LOWER = Concept('ci_low', '99CTPPREP', 'Lower limit of the 95 % interval')
UPPER = Concept('ci_high', '99CTPPREP', 'Upper limit of the 95 % interval')
MISMATCH_RATIO = Concept('mismatch_ratio', '99CTPPREP', 'Hypoperfusion volume over core volume')
DIFFERENCE = Concept('difference', '99CTPPREP', 'Hypoperfusion volume less core volume')


def make_report(sources: Sequence[Any], segmentation: Any | None, findings: Findings) -> Any:
    """Make the report of a series.

    Parameters
    ----------
    sources : sequence of pydicom.Dataset
        Headers of the images of the first frame.
    segmentation : highdicom.seg.Segmentation or None
        From `make_segmentation`; without it, there are no volumes.
    findings : Findings

    Returns
    -------
    highdicom.sr.EnhancedSR
        Each volume refers to its segment, and the segment to the source.
    """
    from highdicom.sr import DeviceObserverIdentifyingAttributes as Device
    from highdicom.sr import EnhancedSR, MeasurementReport, ObservationContext, ObserverContext
    from pydicom.sr.codedict import codes

    device = Device(
        derive_uid(sources[0], 'observer'), name=MANUFACTURER, manufacturer_name=MANUFACTURER,
        model_name=MODEL, serial_number=SERIAL,
    )  # fmt: skip
    context = ObservationContext(observer_device_context=ObserverContext(codes.DCM.Device, device))
    groups = [_judge_quality(sources, findings)]
    if segmentation is not None:
        groups += _measure(sources[0], segmentation, findings)
    content = MeasurementReport(context, PROCEDURE.code, groups, TITLE.code)
    content[0].ContentSequence.append(_describe(findings))
    digest = hashlib.sha256(repr((findings, _uid(segmentation))).encode()).hexdigest()
    report = EnhancedSR(
        evidence=[*sources, *([] if segmentation is None else [segmentation])],
        content=content[0],
        series_instance_uid=derive_uid(sources[0], 'series', REPORT_SERIES),
        series_number=REPORT_SERIES,
        sop_instance_uid=derive_uid(sources[0], REPORT_SERIES, digest),
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=True,
        series_description=f'ctpprep report ({RESEARCH})'[:64],
    )
    report.ManufacturerModelName, report.DeviceSerialNumber = MODEL, SERIAL
    report.SoftwareVersions = __version__[:64]
    return report


def _uid(dataset: Any | None) -> str:
    return '' if dataset is None else str(dataset.SOPInstanceUID)


def _judge_quality(sources: Sequence[Any], findings: Findings) -> Any:
    """Make the group that contains the verdict and the affected side, as codes."""
    from highdicom.sr import (
        MeasurementsAndQualitativeEvaluations,
        QualitativeEvaluation,
        SourceImageForMeasurementGroup,
        TrackingIdentifier,
    )

    evaluations = []
    if findings.verdict in VERDICTS:
        verdict = VERDICTS[findings.verdict]
        evaluations.append(QualitativeEvaluation(QUALITY.code, verdict.code))
    if findings.side in SIDES:
        evaluations.append(QualitativeEvaluation(AFFECTED.code, SIDES[findings.side].code))
    return MeasurementsAndQualitativeEvaluations(
        TrackingIdentifier(derive_uid(sources[0], 'tracking', 'series'), 'Perfusion series'),
        method=METHOD.code,
        qualitative_evaluations=evaluations or None,
        source_images=[
            SourceImageForMeasurementGroup.from_source_image(source) for source in sources
        ],
    )


def _measure(source: Any, segmentation: Any, findings: Findings) -> Iterator[Any]:
    """Make a group for each segment that has a volume."""
    from highdicom.sr import (
        FindingSite,
        ReferencedSegment,
        SourceSeriesForSegmentation,
        TrackingIdentifier,
        VolumetricROIMeasurementsAndQualitativeEvaluations,
    )

    endings = {label: ending for ending, (label, _) in SEGMENTS.items()}
    side = SIDES.get(findings.hemisphere)
    for segment in segmentation.SegmentSequence:
        ending = endings[segment.SegmentLabel]
        region = findings.regions.get(ending)
        if region is None or region.volume_ml is None:
            continue
        yield VolumetricROIMeasurementsAndQualitativeEvaluations(
            TrackingIdentifier(derive_uid(source, 'tracking', ending), segment.SegmentLabel),
            referenced_segment=ReferencedSegment(  # which may have no voxels
                segmentation.SOPClassUID,
                segmentation.SOPInstanceUID,
                int(segment.SegmentNumber),
                source_series=SourceSeriesForSegmentation(source.SeriesInstanceUID),
            ),
            finding_category=ABNORMAL.code,
            finding_type=SEGMENTS[ending][1].code,
            finding_sites=[
                FindingSite(BRAIN.code, laterality=None if side is None else side.code)
            ],
            method=METHOD.code,
            measurements=_make_measurements(region),
        )


def _make_measurements(region: Region) -> list[Any]:
    from highdicom.sr import Measurement

    assert region.volume_ml is not None
    made = [Measurement(VOLUME.code, region.volume_ml, MILLILITER.code)]
    if region.interval_ml is not None:
        for limit, derivation in zip(region.interval_ml, (LOWER, UPPER), strict=True):
            made.append(
                Measurement(VOLUME.code, limit, MILLILITER.code, derivation=derivation.code)
            )
    if region.difference_ml is not None:
        made.append(Measurement(DIFFERENCE.code, region.difference_ml, MILLILITER.code))
    if region.ratio is not None:
        made.append(Measurement(MISMATCH_RATIO.code, region.ratio, RATIO.code))
    return made


def _describe(findings: Findings) -> Any:
    """Make the container of everything that is text: the purpose, and reasons."""
    from highdicom.sr import ContainerContentItem, ContentSequence, TextContentItem

    texts = [(COMMENT, f'{RESEARCH}. Computed by ctpprep {__version__}.')]
    if findings.verdict:
        texts.append((COMMENT, f'Verdict of quality control: {findings.verdict}'))
    texts += [(QUALITY_FINDING, reason) for reason in findings.reasons]
    texts += [
        (COMMENT, f'{SEGMENTS[ending][0]}: {region.reason}')
        for ending, region in findings.regions.items()
        if region.reason
    ]
    if not findings.regions:
        texts.append((COMMENT, 'No results are reported.'))
    container = ContainerContentItem(EVALUATIONS.code, relationship_type='CONTAINS')
    container.ContentSequence = ContentSequence(
        [
            TextContentItem(concept.code, text, relationship_type='CONTAINS')
            for concept, text in texts
        ]
    )
    return container
