# SPDX-License-Identifier: Apache-2.0
"""The description of the derivatives dataset."""

import json
import os

from ctpprep.io.bids import read_links
from ctpprep.io.files import file_lock, write_atomically, write_json


def read_container():
    """Tell the container this runs in, as BIDS describes it, or None.

    The recipe of the image sets ``CTPPREP_CONTAINER``; Apptainer runs the same image.
    """
    if not (tag := os.environ.get('CTPPREP_CONTAINER')):
        return None
    names = ('APPTAINER_NAME', 'SINGULARITY_NAME')
    kind = 'singularity' if any(name in os.environ for name in names) else 'docker'
    return {'Type': kind, 'Tag': tag}


def write_dataset_description(output_dir, links, version):
    """Describe the derivatives dataset.

    Calls share an output folder: links of earlier ones stay, since sidecars of other participants
    need them.

    Parameters
    ----------
    output_dir : Path
    links : dict of str to Path
        Folders that BIDS URIs point into, by name: ``raw`` and those of supplied files.
    version : str
        Of ctpprep.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    with file_lock(output_dir, 'dataset_description'):
        _write_description(output_dir, links, version)
    ignore = '**/ct\n*.html\ngroup_*\nlogs\nprov\n**/figures\n**/log\n'
    write_atomically(lambda partial: partial.write_text(ignore), output_dir / '.bidsignore')


def _write_description(output_dir, links, version):
    linked = read_links(output_dir) | {
        name: _way(folder, output_dir) for name, folder in links.items()
    }
    told = {name: _describe(output_dir / way) for name, way in linked.items()}
    generated = {'Name': 'ctpprep', 'Version': version}
    if container := read_container():
        generated['Container'] = container
    sources = [
        {'URL': f'bids:{name}:'} | ({'DOI': each['DatasetDOI']} if 'DatasetDOI' in each else {})
        for name, each in told.items()
    ]
    start = 'ctpprep derivatives of '
    name = told['raw'].get('Name', 'a CT perfusion dataset')
    description = {
        # maps made by ctpprep may be the input: the name does not grow from run to run
        'Name': start + name.removeprefix(start),
        'BIDSVersion': '1.10.0',
        'DatasetType': 'derivative',
        'GeneratedBy': [generated],
        'SourceDatasets': sources,
        'DatasetLinks': linked,
        'HowToAcknowledge': 'Please cite doi:10.3174/ajnr.A8111 and ctpprep. Research use only.',
    }
    write_json(description, output_dir / 'dataset_description.json')


def _way(folder, output_dir):
    """Name a folder as seen from the output folder, which may be a link to elsewhere.

    A dataset beside it or around it keeps its link when both are moved, and nothing further up is
    told. Of one that lies elsewhere the names on the way there are, since sources are found by it.
    """
    ways = [os.path.relpath(each, output_dir.resolve()) for each in (folder, folder.resolve())]
    return min(ways, key=lambda way: way.count('..'))


def _describe(folder):
    """Read what a dataset says of itself; nothing if it has no readable description."""
    try:
        told = json.loads((folder / 'dataset_description.json').read_text(encoding='utf-8-sig'))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}
