# SPDX-License-Identifier: Apache-2.0
"""BIDS conventions: entities, folders, URIs and sidecars."""

import re
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import quote, unquote

from ctpprep.exceptions import SeriesError, UsageError
from ctpprep.io.files import read_object

NIFTI = ('.nii.gz', '.nii')


def session_dir(path: Path, bids_dir: Path) -> Path:
    """Return the folder of a file's session, or of its participant if there are no sessions."""
    labels = entities(path)
    folder = bids_dir / f'sub-{labels.get("sub", "")}'
    return folder / f'ses-{labels["ses"]}' if 'ses' in labels else folder


def entities(path: Path) -> dict[str, str]:
    """Split a file name into entities and suffix.

    Examples
    --------
    >>> entities(Path('sub-01_run-2_ctp.nii.gz'))
    {'sub': '01', 'run': '2', 'suffix': 'ctp'}
    """
    *pairs, suffix = path.name.partition('.')[0].split('_')
    return {**{k: v for k, _, v in (pair.partition('-') for pair in pairs)}, 'suffix': suffix}


def bids_uri(name: str, path: PurePath) -> str:
    """Write the BIDS URI of a file, which `resolve_uri` reads.

    Parameters
    ----------
    name : str
        Name of the dataset, a key of ``DatasetLinks``; '' for the dataset that contains the URI.
    path : PurePath
        Relative to the root of the dataset.

    Examples
    --------
    >>> bids_uri('manual', PurePath('by hand/größe.nii'))
    'bids:manual:by%20hand/gr%C3%B6%C3%9Fe.nii'
    """
    return f'bids:{name}:{quote(path.as_posix(), safe="/+")}'


def resolve_uri(uri: str, root: Path, links: dict[str, str]) -> Path:
    """Return the path of a BIDS URI.

    Parameters
    ----------
    uri : str
        ``bids::PATH`` for the dataset itself, ``bids:NAME:PATH`` for one that it links.
    root : Path
        Root of the dataset that contains the URI.
    links : dict of str to str
        Its ``DatasetLinks``: folders, relative to the root or absolute, by name.

    Returns
    -------
    Path

    Raises
    ------
    UsageError
        When the text is not a BIDS URI, or the links do not contain the name.

    Examples
    --------
    >>> links = {'raw': '../raw'}
    >>> resolve_uri('bids:raw:sub-01/ct/sub-01_ctp.nii.gz', Path('/data/out'), links).as_posix()
    '/data/out/../raw/sub-01/ct/sub-01_ctp.nii.gz'
    """
    match = re.fullmatch(r'bids:([A-Za-z0-9]*):(.+)', uri)
    if match is None:
        raise UsageError(f'{uri} is not a BIDS URI (bids::PATH or bids:NAME:PATH)')
    name, path = match[1], unquote(match[2])
    if not name:
        return root / path
    if name not in links:
        raise UsageError(
            f'{uri}: {root / "dataset_description.json"} has no {name} in DatasetLinks'
        )
    return root / links[name] / path


def read_links(root: Path) -> dict[str, str]:
    """Read the ``DatasetLinks`` of a dataset.

    Parameters
    ----------
    root : Path

    Returns
    -------
    dict of str to str
        Folders, relative to the root or absolute, by name; empty without a readable description.
    """
    try:
        links = read_object(root / 'dataset_description.json', UsageError).get('DatasetLinks')
    except UsageError:
        return {}
    return links if isinstance(links, dict) else {}


def read_sidecar(path: Path, sidecars: dict[Path, list[Path]]) -> dict[str, Any]:
    """Merge the sidecars that apply to an image.

    Parameters
    ----------
    path : Path
    sidecars : dict of Path to list of Path
        JSON files by their folder.

    Returns
    -------
    dict
        Of a field in several sidecars, the value of the nearest and most specific one.

    Raises
    ------
    SeriesError
        When a sidecar cannot be read.
    """
    own = entities(path).items()
    inherited = [
        sidecar
        for folder in path.parents
        for sidecar in sidecars.get(folder, [])
        if entities(sidecar).items() <= own
    ]
    inherited.sort(key=lambda sidecar: (len(sidecar.parts), len(entities(sidecar))))
    metadata: dict[str, Any] = {}
    for sidecar in inherited:
        metadata |= read_object(sidecar, SeriesError, f'the sidecar {sidecar.name}')
    return metadata


def with_sidecars(path: Path) -> list[Path]:
    """List an output, its JSON sidecar and its table of labels, whether or not they exist.

    Parameters
    ----------
    path : Path

    Returns
    -------
    list of Path

    Examples
    --------
    >>> [file.name for file in with_sidecars(Path('seg-hemisphere_dseg.nii.gz'))]
    ['seg-hemisphere_dseg.nii.gz', 'seg-hemisphere_dseg.json', 'seg-hemisphere_dseg.tsv']
    """
    stem = Path(str(path).removesuffix('.gz')).with_suffix('')
    return list(dict.fromkeys([path, stem.with_suffix('.json'), stem.with_suffix('.tsv')]))
