# SPDX-License-Identifier: Apache-2.0
"""Write the description of the derivatives dataset."""

import json
import os
from pathlib import Path
from typing import Any

from ctpprep.io.bids import read_links
from ctpprep.io.files import file_lock, write_atomically, write_json

NAME_PREFIX = 'ctpprep derivatives of '
IGNORED = '**/ct\n*.html\ngroup_*\nlogs\nprov\n**/figures\n**/log\n'  # by the BIDS validator


def read_container() -> dict[str, str] | None:
    """Describe the container of this process as in BIDS; None outside of containers.

    The image sets ``CTPPREP_CONTAINER``; Apptainer runs the same image.
    """
    if not (tag := os.environ.get('CTPPREP_CONTAINER')):
        return None
    names = ('APPTAINER_NAME', 'SINGULARITY_NAME')
    kind = 'singularity' if any(name in os.environ for name in names) else 'docker'
    return {'Type': kind, 'Tag': tag}


def write_dataset_description(output_dir: Path, links: dict[str, Path], version: str) -> None:
    """Write ``dataset_description.json`` and ``.bidsignore`` of the derivatives dataset.

    Several calls can share an output folder: their links are merged, since the sidecars of other
    participants refer to them.

    Parameters
    ----------
    output_dir : Path
    links : dict of str to Path
        Folders that BIDS URIs refer to, by name: ``raw`` and those of supplied files.
    version : str
        Version of ctpprep.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    with file_lock(output_dir, 'dataset_description'):
        description = _describe(output_dir, links, version)
        write_json(description, output_dir / 'dataset_description.json')
    write_atomically(lambda partial: partial.write_text(IGNORED), output_dir / '.bidsignore')


def _describe(output_dir: Path, links: dict[str, Path], version: str) -> dict[str, Any]:
    """Describe the derivatives dataset and the datasets that it links."""
    linked = read_links(output_dir) | {
        name: _relative_path(folder, output_dir) for name, folder in links.items()
    }
    descriptions = {name: _read_description(output_dir / path) for name, path in linked.items()}
    generated: dict[str, Any] = {'Name': 'ctpprep', 'Version': version}
    if container := read_container():
        generated['Container'] = container
    sources = [
        {'URL': f'bids:{name}:'}
        | ({'DOI': description['DatasetDOI']} if 'DatasetDOI' in description else {})
        for name, description in descriptions.items()
    ]
    raw_name = descriptions['raw'].get('Name', 'a CT perfusion dataset')
    return {
        # the input may be derivatives of ctpprep: the prefix is not repeated
        'Name': NAME_PREFIX + raw_name.removeprefix(NAME_PREFIX),
        'BIDSVersion': '1.10.0',
        'DatasetType': 'derivative',
        'GeneratedBy': [generated],
        'SourceDatasets': sources,
        'DatasetLinks': linked,
        'HowToAcknowledge': 'Please cite doi:10.3174/ajnr.A8111 and ctpprep. Research use only.',
    }


def _relative_path(folder: Path, output_dir: Path) -> str:
    """Return the path of a folder relative to the output folder, which may be a symlink.

    The link to a dataset in a common folder survives when both are moved, and reveals nothing of
    the folders above. A link to another place contains the names of the folders on the way.
    """
    start = output_dir.resolve()
    paths = [os.path.relpath(target, start) for target in (folder, folder.resolve())]
    return min(paths, key=lambda path: path.count('..'))


def _read_description(folder: Path) -> dict[str, Any]:
    """Read the description of a dataset; empty if it is missing or invalid."""
    try:
        text = (folder / 'dataset_description.json').read_text(encoding='utf-8-sig')
        description = json.loads(text)
    except (OSError, ValueError):
        return {}
    return description if isinstance(description, dict) else {}
