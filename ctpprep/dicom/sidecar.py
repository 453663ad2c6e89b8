# SPDX-License-Identifier: Apache-2.0
"""What a sidecar may contain: a list of fields, so that nothing else of the source gets into BIDS."""

import re
from typing import Any

from ctpprep.dicom.assembly import Assembly

# keyword of DICOM: field of the sidecar; only numbers and codes, never text that a person has typed
ALLOWED = {
    'Manufacturer': 'Manufacturer',
    'ManufacturerModelName': 'ManufacturersModelName',
    'KVP': 'KVP',
    'XRayTubeCurrent': 'XRayTubeCurrent',
    'ExposureTime': 'ExposureTime',
    'Exposure': 'XRayExposure',
    'ConvolutionKernel': 'ConvolutionKernel',
    'FilterType': 'FilterType',
    'SliceThickness': 'SliceThickness',
    'SpiralPitchFactor': 'SpiralPitchFactor',
    'CTDIvol': 'CTDIvol',
    'GantryDetectorTilt': 'GantryDetectorTilt',
    'PatientPosition': 'PatientPosition',
    'ContrastBolusIngredient': 'ContrastBolusIngredient',
}
# fields of dcm2niix and ctpprep that a flat folder may bring
FROM_NIFTI = {
    *ALLOWED.values(), 'Modality', 'Units', 'RepetitionTime', 'VolumeTiming', 'FrameTimesStart',
    'SliceTiming', 'SliceAcquisitionTimes', 'SliceEncodingDirection', 'MagneticFieldStrength',
}  # fmt: skip
AGENT = re.compile(
    r'\b(iomeron|imeron|ultravist|visipaque|omnipaque|isovue|optiray|xenetix|accupaque|oxilan|iohexol|'
    r'iopamidol|iopromide?|iodixanol|iomeprol|ioversol|iobitridol)\b(?:\D{0,3}(\d{3})\b)?',
    re.IGNORECASE,
)
CODE = re.compile(r'[\w .,:/+()\[\]^-]{1,64}')


def describe_series(
    header: dict[str, Any], assembly: Assembly, notes: list[str]
) -> dict[str, Any]:
    """Write the sidecar of a series.

    Parameters
    ----------
    header : dict
        Tags of the source by keyword.
    assembly : Assembly
    notes : list of str
        What was changed, one clause each.

    Returns
    -------
    dict
    """
    sidecar: dict[str, Any] = {'Modality': 'CT', 'Units': 'HU'}
    for keyword, name in ALLOWED.items():
        value = header.get(keyword)
        values = value if isinstance(value, list) else [value]
        if all(_is_code(item) for item in values):
            sidecar[name] = value
    agent = AGENT.search(str(header.get('ContrastBolusAgent', '')))
    if agent:
        sidecar['ContrastBolusAgent'] = ' '.join(part for part in agent.groups() if part)
    if assembly.times is not None:
        sidecar['VolumeTiming'] = _round(assembly.frame_times)
        if assembly.per_slice:
            sidecar['SliceAcquisitionTimes'] = _round(assembly.times)
            sidecar['SliceEncodingDirection'] = 'k'
        sidecar['TimingSource'] = assembly.rule
    if notes:
        sidecar['ConversionNotes'] = notes
    return sidecar


def filter_sidecar(sidecar: dict[str, Any]) -> dict[str, Any]:
    """Keep the fields of a converter's sidecar that identify nobody.

    Examples
    --------
    >>> filter_sidecar({'PatientName': 'A^B', 'RepetitionTime': 1.5, 'KVP': 80})
    {'RepetitionTime': 1.5, 'KVP': 80}
    """
    return {name: value for name, value in sidecar.items() if name in FROM_NIFTI}


def _is_code(value: Any) -> bool:
    """Return whether a value is a number or a short code."""
    return isinstance(value, int | float) or bool(CODE.fullmatch(str(value or '')))


def _round(times: Any) -> list[Any]:
    return [
        [round(t, 4) for t in row] if isinstance(row, list) else round(row, 4)
        for row in times.tolist()
    ]
