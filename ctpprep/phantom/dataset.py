# SPDX-License-Identifier: Apache-2.0
"""A phantom written as a BIDS data set, with its truth as a derivative."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np

from ctpprep.phantom.settings import PhantomSettings
from ctpprep.phantom.simulation import Phantom

# File, array of the truth, type on disk, slope, unit, description.
TRUTH_FILES = (
    ('desc-truth_cbf', 'cbf', 'int16', 0.01, 'mL/100 g/min', 'Cerebral blood flow of the tissue'),
    ('desc-truth_cbv', 'cbv', 'int16', 0.001, 'mL/100 g', 'Cerebral blood volume of the tissue'),
    ('desc-truth_mtt', 'mtt', 'int16', 0.01, 's', 'Mean transit time of the tissue'),
    ('desc-truth_delay', 'delay', 'int16', 0.001, 's', 'Delay of the tissue against the AIF'),
    ('label-tissue_desc-truth_probseg', 'tissue', 'uint8', 1 / 255, '1', 'Tissue fraction'),
    ('label-vessel_desc-truth_probseg', 'vessel', 'uint8', 1 / 255, '1', 'Vessel fraction'),
    ('label-brain_desc-truth_mask', 'brain', 'uint8', 1, None, 'Brain with sulci and ventricles'),
    ('label-CSF_desc-truth_mask', 'csf', 'uint8', 1, None, 'Cerebrospinal fluid'),
    ('label-core_desc-truth_mask', 'core', 'uint8', 1, None, 'Infarct core'),
    ('label-penumbra_desc-truth_mask', 'penumbra', 'uint8', 1, None, 'Penumbra'),
    ('label-hypoperfusion_desc-truth_mask', 'hypoperfusion', 'uint8', 1, None,
     'Tissue with a delay above 6 s'),
    ('label-microangiopathy_desc-truth_mask', 'microangiopathy', 'uint8', 1, None,
     'White matter with microangiopathy'),
    ('label-oldinfarct_desc-truth_mask', 'old_infarct', 'uint8', 1, None,
     'Old infarct, filled with CSF'),
    ('seg-hemisphere_desc-truth_dseg', 'side', 'uint8', 1, None,
     'Hemisphere: 1 left, 2 right of the true midline'),
    ('desc-truth_homologue', 'homologue', 'int16', 0.1, 'mm',
     'Patient RAS coordinates of the mirror homologue in the fourth dimension; '
     '-3276.8 where there is none'),
)  # fmt: skip

# The terms of the ICBM152 2009 template require this notice in every copy.
TEMPLATE_NOTICE = """\
Copyright (C) 1993-2004 Louis Collins, McConnell Brain Imaging Centre, Montreal Neurological
Institute, McGill University. Permission to use, copy, modify, and distribute this software and
its documentation for any purpose and without fee is hereby granted, provided that the above
copyright notice appear in all copies. The authors and McGill University make no representations
about the suitability of this software for any purpose. It is provided "as is" without express or
implied warranty. The authors are not responsible for any data loss, equipment damage, property
loss, or injury to subjects or patients resulting from the use or misuse of this software package.
"""

# without and with the CT of a person
_WHOSE = (": nobody's patient data", ' from CTs of real heads.\nThey show the face and skull of a person: '
          'share them only if you may share the CT')  # fmt: skip
_ORIGIN = ('The anatomy is a bent copy', 'Tissue and territories are those')
_README = """\
Simulated CT perfusion of digital heads, made by ctpprep.phantom{whose}.
The truth of each head is in derivatives/truth, in the pose of frame 0.

{origin} of the ICBM152 2009 nonlinear symmetric template:

{notice}"""


def write_bids(
    phantom: Phantom, bids_dir: Path | str, participant: str, session: str | None = None
) -> Path:
    """Add one phantom to a BIDS data set, with its truth as a derivative.

    Parameters
    ----------
    phantom : Phantom
    bids_dir : path
        Created if missing; other participants are kept.
    participant, session : str
        Labels without ``sub-`` and ``ses-``.

    Returns
    -------
    Path
        The series, ``sub-<label>[/ses-<label>]/ct/sub-<label>[_ses-<label>]_ctp.nii.gz``. The
        truth is in the same folders of ``derivatives/truth``.
    """
    bids_dir = Path(bids_dir)
    entities = [f'sub-{participant}'] + ([f'ses-{session}'] if session else [])
    stem, folder = '_'.join(entities), Path(*entities, 'ct')
    raw, truth = bids_dir / folder, bids_dir / 'derivatives' / 'truth' / folder
    raw.mkdir(parents=True, exist_ok=True)
    truth.mkdir(parents=True, exist_ok=True)

    path = raw / f'{stem}_ctp.nii.gz'
    _save_nifti(path, phantom.ctp, phantom, is_series=True)
    _save_json(raw / f'{stem}_ctp.json', describe_series(phantom))
    source = f'bids:raw:{folder.as_posix()}/{path.name}'
    _write_truth(phantom, truth, stem, source)
    _describe_dataset(bids_dir, phantom.settings.anatomy is not None)
    _update_participants(bids_dir, participant, phantom.settings)
    return path


def describe_series(phantom: Phantom) -> dict[str, Any]:
    """Return the sidecar of the series, with the timing fields of its scan mode."""
    settings = phantom.settings
    sidecar = {
        'Modality': 'CT',
        'Manufacturer': 'ctpprep digital phantom',
        'ManufacturersModelName': 'ctpprep.phantom',
        'SeriesDescription': 'Simulated CT perfusion of the head',
        'KVP': 80,
        'SliceThickness': settings.voxel_size_mm[2],
        'ContrastBolusIngredient': 'IODINE',
        'Units': 'HU',
        'PhantomSettings': record_settings(settings),
    }
    if settings.timing == 'uneven':
        sidecar['VolumeTiming'] = _round(phantom.frame_times)
    elif settings.timing == 'jog':
        sidecar['SliceAcquisitionTimes'] = _round(phantom.sample_times.T)
        sidecar['SliceEncodingDirection'] = 'k'
    else:
        sidecar['RepetitionTime'] = settings.frame_interval
    if settings.timing == 'toggling':
        sidecar['SliceTiming'] = _round(phantom.sample_times[:, 0] - phantom.frame_times[0])
        sidecar['SliceEncodingDirection'] = 'k'
    return sidecar


def record_settings(settings: PhantomSettings) -> dict[str, Any]:
    """Return the settings as they are recorded: of the CT of the anatomy only the file's name."""
    anatomy = Path(settings.anatomy).name if settings.anatomy else None
    return asdict(replace(settings, anatomy=anatomy))


def _round(values: np.ndarray) -> list:
    """Round times to 0.1 ms."""
    return np.round(values, 4).tolist()


def _write_truth(phantom: Phantom, folder: Path, stem: str, source: str) -> None:
    """Write the maps, curves and motion with which the output of a pipeline is compared."""
    for name, key, dtype, slope, unit, description in TRUTH_FILES:
        if key not in phantom.truth:
            continue
        values = np.asarray(phantom.truth[key], float) / slope
        limits = np.iinfo(dtype)
        stored = np.clip(np.where(np.isnan(values), limits.min, np.round(values)),
                         limits.min, limits.max).astype(dtype)  # fmt: skip
        _save_nifti(folder / f'{stem}_{name}.nii.gz', stored, phantom, slope)
        sidecar = {'Description': description, 'Sources': [source]}
        if name.endswith('_mask'):
            sidecar['Type'] = 'Brain' if key == 'brain' else 'ROI'
        if unit:
            sidecar['Units'] = unit
        _save_json(folder / f'{stem}_{name}.json', sidecar)
    _save_tsv(
        folder / f'{stem}_desc-vascular_timeseries',
        {
            'time': (phantom.times_fine, 's', 'Time'),
            'aif': (phantom.aif, 'HU', 'Arterial input function, undiluted'),
            'vof': (phantom.vof, 'HU', 'Venous output function, undiluted'),
        },
        source,
        'Arterial input and venous output',
    )
    names = ('trans_x', 'trans_y', 'trans_z', 'rot_x', 'rot_y', 'rot_z')
    columns = {
        name: (phantom.motion[:, i], 'mm' if i < 3 else 'rad', 'Movement since frame 0')
        for i, name in enumerate(names)
    }
    path = folder / f'{stem}_desc-motion_timeseries'
    _save_tsv(path, columns, source, 'Movement of the head since frame 0')


def _save_tsv(
    path: Path, columns: dict[str, tuple[np.ndarray, str, str]], source: str, description: str
) -> None:
    """Write a table and its data dictionary; `columns` maps a name to values, unit, meaning."""
    lines = ['\t'.join(columns)]
    rows = np.stack([values for values, _, _ in columns.values()], axis=1)
    lines += ['\t'.join(f'{value:.6g}' for value in row) for row in rows]
    path.with_suffix('.tsv').write_text('\n'.join(lines) + '\n')
    fields = {
        name: {'Units': unit, 'Description': text} for name, (_, unit, text) in columns.items()
    }
    sidecar = {'Description': description, 'Sources': [source]}
    _save_json(path.with_suffix('.json'), sidecar | fields)


def _save_nifti(
    path: Path, stored: np.ndarray, phantom: Phantom, slope: float = 1.0, is_series: bool = False
) -> None:
    """Write integers with the slope that converts them to physical values."""
    img = nb.Nifti1Image(stored, phantom.affine)
    img.header.set_slope_inter(slope, 0)
    img.header.set_xyzt_units('mm', 'sec' if is_series else None)
    img.set_sform(phantom.affine, 1)
    img.set_qform(phantom.affine, 1)
    if is_series:  # one number cannot describe uneven frames: 0 means unknown
        interval = phantom.settings.frame_interval
        img.header['pixdim'][4] = 0 if phantom.settings.timing == 'uneven' else interval
    nb.save(img, path)


def _save_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + '\n')


def _describe_dataset(bids_dir: Path, is_patient: bool) -> None:
    """Write the files of the data set that are missing, and the README again for a patient."""
    license_text = 'CC0; the notice of the ICBM152 template in README applies as well'
    if is_patient:
        license_text = (
            'That of the head CT; the notice of the ICBM152 template in README applies as well'
        )
    generator = {'Name': 'ctpprep.phantom', 'Description': 'Digital CT perfusion phantom'}
    raw = {
        'Name': 'ctpprep digital CT perfusion phantom',
        'BIDSVersion': '1.10.0',
        'DatasetType': 'raw',
        'License': license_text,
        'ReferencesAndLinks': ['https://doi.org/10.1016/j.neuroimage.2010.07.033'],
        'GeneratedBy': [generator],
    }
    truth = raw | {
        'Name': 'Truth of the ctpprep digital CT perfusion phantom',
        'DatasetType': 'derivative',
        'DatasetLinks': {'raw': '../..'},
    }
    readme = _README.format(
        notice=TEMPLATE_NOTICE, whose=_WHOSE[is_patient], origin=_ORIGIN[is_patient]
    )
    # CT is not part of the BIDS standard yet.
    texts = {'README': readme, '.bidsignore': '**/ct\n'}
    for name, text in texts.items():
        if is_patient or not (bids_dir / name).exists():
            (bids_dir / name).write_text(text)
    for folder, content in ((bids_dir, raw), (bids_dir / 'derivatives' / 'truth', truth)):
        if is_patient or not (folder / 'dataset_description.json').exists():
            _save_json(folder / 'dataset_description.json', content)


def _update_participants(bids_dir: Path, participant: str, settings: PhantomSettings) -> None:
    """Add or replace one row of participants.tsv."""
    columns = {
        'age': {'Description': 'Age, drawn at random', 'Units': 'year'},
        'sex': {'Description': 'Sex, drawn at random', 'Levels': {'F': 'female', 'M': 'male'}},
        'microangiopathy': {
            'Description': 'Microangiopathy of the deep white matter',
            'Levels': {'yes': 'present in both hemispheres', 'no': 'absent'},
        },
        'stroke_evident': {
            'Description': 'Acute ischaemic stroke',
            'Levels': {'yes': 'infarct core and penumbra', 'no': 'none'},
        },
    }
    rng = np.random.default_rng(settings.seed)
    row = [str(rng.integers(55, 90)), 'FM'[rng.integers(2)]]
    row += ['yes' if settings.microangiopathy else 'no']
    row += ['no' if settings.lesion == 'none' else 'yes']
    table = bids_dir / 'participants.tsv'
    rows = {}
    if table.exists():
        rows = dict(line.split('\t', 1) for line in table.read_text().splitlines()[1:])
    rows[f'sub-{participant}'] = '\t'.join(row)
    lines = ['\t'.join(['participant_id', *columns])]
    lines += [f'{name}\t{rest}' for name, rest in sorted(rows.items())]
    table.write_text('\n'.join(lines) + '\n')
    _save_json(bids_dir / 'participants.json', columns)
