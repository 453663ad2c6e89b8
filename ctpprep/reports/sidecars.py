# SPDX-License-Identifier: Apache-2.0
"""What reports read from the sidecars of a participant."""

import json
from pathlib import Path
from typing import Any

from ctpprep.reports.template import format_quantity
from ctpprep.settings import MethodSettings, declared, flatten

#: Measurements of the deconvolution in the sidecar of Tmax: name, title, unit.
MEASURED = (
    ('lambda_rel', 'Lambda, relative to the largest singular value', 'ratio'),
    ('lambda', 'Lambda of CBF (Tikhonov)', 'ratio'),
    ('lambda_tmax', 'Lambda of Tmax', 'ratio'),
    ('tmax_offset_s', "Offset of Tmax: the operator's own response, mean of the slices", 's'),
    ('aif_scale', 'Factor of the AIF: area of the VOF over that of the AIF', 'ratio'),
    ('cbf_noise_excess', 'What noise adds to CBF, subtracted (median)', 'mL/100 g/min'),
    ('noise_raw_hu', 'Noise of tissue curves as scanned (median)', 'HU'),
    ('noise_denoised_hu', 'Noise of tissue curves as deconvolved (median)', 'HU'),
    ('n_patterns', 'Sampling patterns of the slices', 'ratio'),
)

#: Measurements of the registration to the template: name, title.
TEMPLATE = (
    ('regions_from', 'Regions'),
    ('template_failure', 'Nothing was written in template space'),
    ('template_image', 'Registered image'),
    ('template_image_reason', 'Reason'),
    ('template_overlap', 'Overlap of brain and template (Dice)'),
    ('template_sides', 'Brain on the same side in the template'),
    ('template_similarity', 'Correlation of brain and template, density above its local mean'),
    ('template_folding', 'Brain where the transform folds'),
)


def read_notes(path: Path) -> list[str]:
    """Read the notes on precomputed maps from the sidecar of Tmax; none if ctpprep computed the maps."""
    return list(_read_json(path).get('EntryNotes', []))


def read_measured(path: Path) -> dict[str, str]:
    """Read the measurements of the deconvolution, formatted, by title; none for precomputed maps."""
    measured = _read_json(path).get('Measured', {})
    return {
        title: format_quantity(measured[name], unit)
        for name, title, unit in MEASURED
        if measured.get(name) is not None
    }


def read_template_measured(path: Path) -> dict[str, str]:
    """Read what the registration to the template measured, formatted, by title."""
    metadata = _read_json(path)
    measured = {'regions_from': metadata.get('RegionsFrom'), **metadata.get('Measured', {})}
    return {
        title: format_quantity(value, 'ratio') if isinstance(value, float) else str(value)
        for name, title in TEMPLATE
        if (value := measured.get(name)) not in (None, '')
    }


def read_other_templates(path: Path) -> dict[str, str]:
    """Read how well the templates after the first were registered, by title.

    Parameters
    ----------
    path : Path
        Table of regions of the first; those of others have the space in their names.
    """
    start, _, end = path.with_suffix('.json').name.rpartition('_morph')
    described = {}
    for other in sorted(path.parent.glob(f'{start}?*_morph{end}')):
        space = other.name.removeprefix(start).removesuffix(f'_morph{end}')
        measured = _read_json(other).get('Measured', {})
        if failure := measured.get('template_failure'):
            described[f'Nothing was written in {space}'] = failure
        elif (overlap := measured.get('template_overlap')) is not None:
            described[f'Overlap of brain and {space} (Dice)'] = format_quantity(overlap, 'ratio')
    return described


def read_reference(path: Path) -> dict[str, str]:
    """Read the reference of global normalization, and why it was changed if it was."""
    metadata = _read_json(path)
    return {name: metadata[name] for name in ('Reference', 'ReferenceReason') if name in metadata}


def read_settings_used(folder: Path) -> dict[str, Any]:
    """Read the settings that shaped the files of a participant from their sidecars.

    Parameters
    ----------
    folder : Path
        Folder of a participant.

    Returns
    -------
    dict
        Values by the name of the setting, as `MethodSettings` accepts them.
    """
    known = declared(MethodSettings)
    used: dict[str, Any] = {}
    for path in sorted(folder.rglob('*.json')):
        metadata = _read_json(path)
        used |= flatten(metadata.get('Settings', {})) if isinstance(metadata, dict) else {}
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in used.items()
        if name in known
    }


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding='utf-8'))
