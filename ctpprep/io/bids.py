# SPDX-License-Identifier: Apache-2.0
"""BIDS conventions: names, entities, URIs, sidecars."""

import re
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import quote, unquote

from ctpprep.exceptions import SeriesError, UsageError
from ctpprep.io.files import read_object

NIFTI = ('.nii.gz', '.nii')


def session_dir(path: Path, bids_dir: Path) -> Path:
    """Return the folder of the session, or of the participant without sessions, of a file."""
    labels = entities(path)
    home = bids_dir / f'sub-{labels.get("sub", "")}'
    return home / f'ses-{labels["ses"]}' if 'ses' in labels else home


def entities(path: Path) -> dict[str, str]:
    """Split a file name, as in {'sub': '01', 'run': '2', 'suffix': 'ctp'}."""
    *pairs, suffix = path.name.partition('.')[0].split('_')
    return {**{k: v for k, _, v in (pair.partition('-') for pair in pairs)}, 'suffix': suffix}


def bids_uri(name: str, path: PurePath) -> str:
    """Name a file by a BIDS URI, which `resolve_uri` reads.

    Parameters
    ----------
    name : str
        Of a dataset, a key of ``DatasetLinks``; '' for the one that holds the URI.
    path : PurePath
        Below its root.

    Examples
    --------
    >>> bids_uri('manual', PurePath('by hand/größe.nii'))
    'bids:manual:by%20hand/gr%C3%B6%C3%9Fe.nii'
    """
    return f'bids:{name}:{quote(path.as_posix(), safe="/+")}'


def resolve_uri(uri: str, root: Path, links: dict[str, str]) -> Path:
    """Find the file that a BIDS URI names.

    Parameters
    ----------
    uri : str
        ``bids::PATH`` for the dataset itself, ``bids:NAME:PATH`` for one that it links.
    root : Path
        Root of the dataset that holds the URI.
    links : dict of str to str
        Its ``DatasetLinks``: folders, relative to the root or absolute, by their names.

    Returns
    -------
    Path

    Raises
    ------
    UsageError
        When it is no BIDS URI, or the name is not among the links.

    Examples
    --------
    >>> links = {'raw': '../raw'}
    >>> resolve_uri('bids:raw:sub-01/ct/sub-01_ctp.nii.gz', Path('/data/out'), links).as_posix()
    '/data/out/../raw/sub-01/ct/sub-01_ctp.nii.gz'
    """
    match = re.fullmatch(r'bids:([A-Za-z0-9]*):(.+)', uri)
    if match is None:
        raise UsageError(f'{uri} is no BIDS URI (bids::PATH or bids:NAME:PATH)')
    name, path = match[1], unquote(match[2])
    if not name:
        return root / path
    if name not in links:
        raise UsageError(
            f'{uri}: DatasetLinks of {root / "dataset_description.json"} has no {name}'
        )
    return root / links[name] / path


def read_links(root: Path) -> dict[str, str]:
    """Read the ``DatasetLinks`` of a dataset; none where it does not tell.

    Parameters
    ----------
    root : Path

    Returns
    -------
    dict of str to str
        Folders, relative to the root or absolute, by their names.
    """
    try:
        links = read_object(root / 'dataset_description.json', UsageError).get('DatasetLinks')
    except UsageError:
        return {}
    return links if isinstance(links, dict) else {}


def read_sidecar(path: Path, sidecars: dict[Path, list[Path]]) -> dict[str, Any]:
    """Merge the sidecars that apply to an image; the nearest and most specific wins."""
    own = entities(path).items()
    applying = [
        each
        for folder in path.parents
        for each in sidecars.get(folder, [])
        if entities(each).items() <= own
    ]
    merged: dict[str, Any] = {}
    for each in sorted(applying, key=lambda one: (len(one.parts), len(entities(one)))):
        merged |= read_object(each, SeriesError, f'the sidecar {each.name}')
    return merged


def with_sidecars(path):
    """List a written file, its JSON sidecar and its table of labels, whether they are there or not.

    Parameters
    ----------
    path : Path

    Returns
    -------
    list of Path

    Examples
    --------
    >>> [each.name for each in with_sidecars(Path('seg-hemisphere_dseg.nii.gz'))]
    ['seg-hemisphere_dseg.nii.gz', 'seg-hemisphere_dseg.json', 'seg-hemisphere_dseg.tsv']
    """
    stem = Path(str(path).removesuffix('.gz')).with_suffix('')
    return list(dict.fromkeys([path, stem.with_suffix('.json'), stem.with_suffix('.tsv')]))
