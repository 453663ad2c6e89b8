# SPDX-License-Identifier: Apache-2.0
"""The schema of BIDS with CT perfusion added, and a check of a dataset against it.

BIDS has no datatype for CT: a validator rejects every file in the folders ``ct/`` unless they are
ignored. With this schema the same validator also checks these files and their sidecars::

    python scripts/bids_schema.py DATASET             # run the validator
    python scripts/bids_schema.py > schema_ct.json    # the schema alone
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ctpprep.exceptions import UsageError

VALIDATOR = 'bids-validator-deno'
DATATYPE = 'ct'
NIFTI = ['.nii.gz', '.nii', '.json']
TABLE = ['.tsv', '.json']
SERIES = dict.fromkeys(('session', 'acquisition', 'ceagent', 'reconstruction', 'run'), 'optional')
# the validator requires fields of derivatives only where a selector is exactly this
DERIVATIVE = 'dataset.dataset_description.DatasetType == "derivative"'
MAPS = ('cbf', 'cbv', 'mtt', 'tmax', 'ttp', 'rcbf', 'rcbv', 'delay', 'homologue')
IMAGE = r'match(extension, "^\.nii(\.gz)?$")'
TIMING = ('VolumeTiming', 'FrameTimesStart', 'SliceAcquisitionTimes')

ENTITIES = {
    'from': 'space whose points or image a transform takes',
    'to': 'space that a transform leads to',
    'mode': 'what a transform is for: image or points',
}
SUFFIXES = {
    'ctp': 'CT perfusion series, HU',
    'ctpref': 'mean CT of a perfusion series before contrast arrives, HU',
    'ncct': 'CT without contrast, HU',
    'cta': 'CT angiography, HU',
    'ct': 'CT, HU',
    'cbf': 'cerebral blood flow',
    'cbv': 'cerebral blood volume',
    'mtt': 'mean transit time',
    'tmax': 'time to the maximum of the residue function',
    'ttp': 'time to the peak of the tissue curve',
    'rcbf': 'cerebral blood flow relative to a reference',
    'rcbv': 'cerebral blood volume relative to a reference',
    'delay': 'delay of the tissue against the artery',
    'homologue': 'place of the mirror homologue in the fourth dimension',
    'stat': 'statistic of a series in each voxel',
    'xfm': 'spatial transform',
    'timeseries': 'figures of each frame',
    'morph': 'volumes of regions',
}
METADATA: dict[str, dict[str, Any]] = {
    'FrameTimesStart': {
        'description': 'start of each frame as dcm2niix writes it, s',
        'type': 'array',
        'items': {'type': 'number'},
    },
    'SliceAcquisitionTimes': {
        'description': 'acquisition time of each slice in each frame (frames x slices), s',
        'type': 'array',
        'items': {'type': 'array', 'items': {'type': 'number'}},
    },
    'Settings': {'description': 'parameters that shaped the file', 'type': 'object'},
    'Measured': {'description': 'what was measured while the file was made', 'type': 'object'},
}


def _files(suffixes: Sequence[str], extensions: Sequence[str], **entities: Any) -> dict[str, Any]:
    return {
        'suffixes': list(suffixes),
        'extensions': list(extensions),
        'datatypes': [DATATYPE],
        'entities': {'subject': 'required'} | SERIES | entities,
    }


def _derived(
    suffixes: Sequence[str], extensions: Sequence[str], **entities: Any
) -> dict[str, Any]:
    entities = {'description': 'optional'} | entities
    return _files(suffixes, extensions, **entities) | {'selectors': [DERIVATIVE]}


def _raw_files() -> dict[str, Any]:
    return {'series': _files(('ctp', 'ncct', 'cta', 'ct'), NIFTI)}


def _derived_files() -> dict[str, Any]:
    space = {'space': 'optional', 'resolution': 'optional'}
    label = {'label': 'optional'}
    transform = {'from': 'required', 'to': 'required', 'mode': 'required'}
    return {
        'ct_series': _derived(('ctp',), NIFTI, description='required', **space),
        'ct_quality': _derived(('ctp',), TABLE, description='required'),
        'ct_images': _derived((*MAPS, 'ctpref', 'ncct', 'stat'), NIFTI, **space),
        'ct_masks': _derived(('mask', 'probseg'), NIFTI, **space, **label),
        'ct_labels': _derived(
            ('dseg',), (*NIFTI, '.tsv'), segmentation='required', **space, **label
        ),
        'ct_transforms': _derived(('xfm',), ('.txt', '.h5', '.json'), **transform),
        'ct_curves': _derived(('timeseries',), TABLE, description='required'),
        'ct_volumes': _derived(('morph',), TABLE, segmentation='required'),
        'ct_agreement': _derived(('morph',), TABLE, description='required'),
    }


def _sidecar(selectors: Sequence[str], **fields: Any) -> dict[str, Any]:
    return {'selectors': [f'datatype == "{DATATYPE}"', *selectors], 'fields': fields}


def _sidecars() -> dict[str, Any]:
    quantities = ', '.join(f'"{suffix}"' for suffix in MAPS)
    return {
        'Series': _sidecar(
            ['suffix == "ctp"', IMAGE],
            RepetitionTime='optional', VolumeTiming='optional', FrameTimesStart='optional',
            SliceAcquisitionTimes='optional', SliceTiming='optional', Units='optional',
        ),
        'Derivatives': _sidecar(
            [DERIVATIVE],
            Description='required', Sources='required', Settings='optional', Measured='optional',
        ),
        'Maps': _sidecar([DERIVATIVE, IMAGE, f'intersects([suffix], [{quantities}])'], Units='required'),
        'Masks': _sidecar([DERIVATIVE, IMAGE, 'suffix == "mask"'], Type='required'),
    }  # fmt: skip


def _check(
    code: str, message: str, checks: Sequence[str], *when: str, level: str = 'error'
) -> Any:
    return {
        'issue': {'code': code, 'message': message, 'level': level},
        'selectors': [f'datatype == "{DATATYPE}"', *when],
        'checks': list(checks),
    }


def _checks() -> dict[str, Any]:
    series = ('suffix == "ctp"', IMAGE)
    header = (*series, 'type(nifti_header) != "null"')
    checks = {
        'SeriesIs4D': _check(
            'CTP_NOT_4D', 'A CT perfusion series has four dimensions.',
            ['nifti_header.dim[0] == 4'], *header,
        ),
        'OthersAre3D': _check(
            'CT_NOT_3D', 'A CT image or map other than a series has three dimensions.',
            ['nifti_header.dim[0] == 3'],
            '!intersects([suffix], ["ctp", "homologue"])', IMAGE, 'type(nifti_header) != "null"',
        ),
        'OneTiming': _check(
            'CTP_TIMING_TWICE', 'RepetitionTime and VolumeTiming are mutually exclusive.',
            ['!("VolumeTiming" in sidecar)'], *series, '"RepetitionTime" in sidecar',
        ),
        'SomeTiming': _check(
            'CTP_TIMING_MISSING',
            f'No acquisition time: RepetitionTime or one of {", ".join(TIMING)} is needed, or the '
            'header must give the time between frames.',
            ['nifti_header.pixdim[4] > 0'], *header,
            *(f'!("{name}" in sidecar)' for name in ('RepetitionTime', *TIMING)), level='warning',
        ),
        'SliceTimingLength': _check(
            'CTP_SLICE_TIMING_LENGTH', 'SliceTiming has one time for each slice.',
            ['length(sidecar.SliceTiming) == nifti_header.dim[3]'], *header,
            'type(sidecar.SliceTiming) == "array"',
        ),
        'SeriesUnits': _check(
            'CTP_UNITS', 'Units of a CT perfusion series are HU.',
            ['sidecar.Units == "HU"'], *series, '"Units" in sidecar',
        ),
    }  # fmt: skip
    for name in TIMING:
        checks[f'{name}Length'] = _check(
            f'CTP_{name.upper()}_LENGTH', f'{name} has one entry for each frame.',
            [f'length(sidecar.{name}) == nifti_header.dim[4]'], *header,
            f'type(sidecar.{name}) == "array"',
        )  # fmt: skip
    return checks


def extended_schema() -> dict[str, Any]:
    """Add CT perfusion to the installed BIDS schema.

    The additions are the datatype ``ct``, suffixes, entities of transforms, file names, fields of
    sidecars, and checks of dimensions and times of a series (one kind of timing, one time for each
    frame or slice).

    Returns
    -------
    dict
        The schema as JSON objects.
    """
    from bidsschematools.schema import load_schema

    schema = json.loads(load_schema().to_json())
    objects, rules = schema['objects'], schema['rules']
    objects['datatypes'][DATATYPE] = {
        'value': DATATYPE, 'display_name': 'Computed tomography',
        'description': 'CT, CT perfusion and maps made from it',
    }  # fmt: skip
    objects['modalities'][DATATYPE] = {
        'display_name': 'Computed tomography',
        'description': 'CT of the head',
    }
    rules['modalities'][DATATYPE] = {'datatypes': [DATATYPE]}
    for name, meaning in SUFFIXES.items():
        objects['suffixes'][name] = {'value': name, 'display_name': name, 'description': meaning}
    for name, meaning in ENTITIES.items():
        objects['entities'][name] = {
            'name': name, 'display_name': name, 'description': meaning,
            'type': 'string', 'format': 'label',
        }  # fmt: skip
    order = rules['entities']
    order[order.index('description') : order.index('description')] = list(ENTITIES)
    objects['extensions']['h5'] = {
        'value': '.h5',
        'display_name': 'HDF5',
        'description': 'transform of ITK',
    }
    for name, content in METADATA.items():
        objects['metadata'].setdefault(name, {'name': name, 'display_name': name} | content)
    rules['files']['raw'][DATATYPE] = _raw_files()
    rules['files']['deriv']['imaging'] |= _derived_files()
    rules['sidecars'][DATATYPE] = _sidecars()
    rules['checks'][DATATYPE] = _checks()
    return schema


def validate(dataset: Path) -> list[dict[str, str]]:
    """Check a dataset with the extended schema, its folders ``ct/`` included.

    Parameters
    ----------
    dataset : Path
        Raw or derivative. Nothing is written there.

    Returns
    -------
    list of dict
        Issues: ``code``, ``severity`` ('error', 'warning') and, if known, ``subCode``, ``location``,
        ``issueMessage``.

    Raises
    ------
    UsageError
        If `dataset` is not a BIDS dataset, or the validator is not installed or fails.
    """
    if not (dataset / 'dataset_description.json').is_file():
        raise UsageError(
            f'{dataset} contains no dataset_description.json; pass the root folder of a BIDS dataset'
        )
    beside = Path(sysconfig.get_path('scripts')) / VALIDATOR
    program = str(beside) if beside.exists() else shutil.which(VALIDATOR)
    if program is None:
        raise UsageError(f'{VALIDATOR} is not installed; run: pip install {VALIDATOR}')
    with tempfile.TemporaryDirectory(prefix='ctpprep-') as folder:
        schema = Path(folder).resolve() / 'schema_ct.json'
        schema.write_text(json.dumps(extended_schema()))
        view = Path(folder) / 'dataset'
        view.mkdir()
        for path in dataset.iterdir():
            if path.name != '.bidsignore':
                (view / path.name).symlink_to(path.resolve())
        if (ignored := dataset / '.bidsignore').exists():
            lines = ignored.read_text().splitlines()
            lines = [line for line in lines if line.strip('/*') != DATATYPE]
            (view / '.bidsignore').write_text('\n'.join(lines) + '\n')
        command = [program, str(view), '--schema', schema.as_uri(), '--format', 'json']
        process = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {'NO_COLOR': '1'},
        )
    try:
        return json.loads(process.stdout)['issues']['issues']
    except (ValueError, KeyError) as error:
        reason = (process.stderr.strip() or 'it printed nothing').splitlines()[-1]
        raise UsageError(f'{VALIDATOR} returned no result: {reason}') from error


def main(argv: Sequence[str] | None = None) -> int:
    """Print the schema, or the errors of a dataset.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; by default those of the process.

    Returns
    -------
    int
        0 if the dataset has no error, 1 if it has one, 2 if it cannot be checked.
    """
    parser = argparse.ArgumentParser(
        prog='python scripts/bids_schema.py',
        description='Check a dataset with the BIDS schema extended by CT perfusion, or print the '
        'schema.',
    )
    parser.add_argument('dataset', nargs='?', type=Path, help='root of the dataset to check')
    dataset = parser.parse_args(argv).dataset
    if dataset is None:
        sys.stdout.write(json.dumps(extended_schema(), indent=1) + '\n')
        return 0
    try:
        issues = validate(dataset)
    except UsageError as error:
        sys.stderr.write(f'{parser.prog}: error: {error}\n')
        return 2
    errors = [issue for issue in issues if issue['severity'] == 'error']
    for issue in errors:
        words = [issue['code'], issue.get('subCode', ''), issue.get('location', '')]
        sys.stdout.write(' '.join(word for word in words if word) + '\n')
    sys.stdout.write(f'{len(errors)} errors, {len(issues) - len(errors)} warnings\n')
    return 1 if errors else 0


if __name__ == '__main__':
    sys.exit(main())
