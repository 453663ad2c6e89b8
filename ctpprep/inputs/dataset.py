# SPDX-License-Identifier: Apache-2.0
"""Index of the files of a BIDS dataset, by the entities in their names."""

import errno
import json
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ctpprep.exceptions import UsageError
from ctpprep.inputs.conformance import NESTED
from ctpprep.inputs.labels import refuse_unknown
from ctpprep.io.bids import NIFTI, session_dir
from ctpprep.io.files import read_object

ENTITIES = Path(__file__).parents[1] / 'resources' / 'bids_ctp.json'
# kinds of images that a filter file selects: series, non-contrast CT, precomputed maps, follow-up lesions
FILTERED = ('ctp', 'ncct', 'maps', 'lesion')


class DatasetIndex:
    """The files of some participants, found by the entities in their names.

    The dataset is scanned once, when the index is created.

    Parameters
    ----------
    bids_dir : Path
        Root of the dataset.
    participants : sequence of str
        Labels without 'sub-'.
    database : Path, optional
        Folder of a pybids database of all participants; created if it does not exist.
    filters : dict, optional
        As `read_filters` returns them.

    Attributes
    ----------
    bids_dir : Path
    sidecars : dict of Path to list of Path
        JSON files by their folder.

    Raises
    ------
    UsageError
        When the database belongs to another dataset or is out of date.
    """

    def __init__(
        self,
        bids_dir: Path,
        participants: Sequence[str],
        database: Path | None = None,
        filters: dict[str, dict[str, Any]] | None = None,
    ) -> None:
        from bids.layout import BIDSLayout, BIDSLayoutIndexer

        # Scanning only the selected participants keeps a large dataset fast. `read_sidecar` reads
        # the metadata: pybids would stop at the first invalid JSON file of any series.
        labels = '|'.join(re.escape(label) for label in participants)
        ignore = [re.compile(rf'^/(?!sub-(?:{labels})(?:/|$)|[^/]*\.json$)')]
        if database is not None:  # it also serves the other participants
            ignore = [re.compile(r'^/(?!sub-|[^/]*\.json$)')]
        ignore.append(re.compile(rf'/(?:{"|".join(sorted(NESTED))})(?:/|$)'))
        self.bids_dir = bids_dir
        self.filters = filters or {}
        self._selected: dict[str, set[Path]] = {}
        self._participants = {f'sub-{label}' for label in participants}
        try:
            self._layout = BIDSLayout(
                str(bids_dir),
                validate=False,
                config=str(ENTITIES),
                indexer=BIDSLayoutIndexer(ignore=ignore, index_metadata=False),
                database_path=database,
            )
        except Exception as error:  # from sqlite, pybids or the file system
            if database is None:
                raise
            reason = ' '.join(str(error).split())
            raise UsageError(
                f'--bids-database-dir {database} is not a pybids database of {bids_dir} '
                f'({reason}); remove the folder or name another one'
            ) from error
        if database is not None:
            self._check_database(database)
        self._by_session: dict[tuple[tuple[str, Any], ...], dict[Path, list[Path]]] = {}
        self.sidecars: dict[Path, list[Path]] = defaultdict(list)
        for path in self._get(extension='.json'):
            self.sidecars[path.parent].append(path)

    def images(self, **entities: Any) -> list[Path]:
        """List the NIfTI files with certain entities, sorted by name.

        Parameters
        ----------
        **entities
            By their names in pybids, such as ``suffix='ctp'``.

        Returns
        -------
        list of Path
        """
        return self._get(extension=list(NIFTI), **entities)

    def of_session(self, folder: Path, **entities: Any) -> list[Path]:
        """List the NIfTI files of a session, whose folder `session_dir` returns."""
        key = tuple(sorted(entities.items()))
        if key not in self._by_session:  # one query per series would take minutes when large
            groups = self._by_session[key] = defaultdict(list)
            for path in self.images(**entities):
                groups[session_dir(path, self.bids_dir)].append(path)
        return self._by_session[key].get(folder, [])

    def select(self, kind: str, images: list[Path]) -> list[Path]:
        """Keep the images that match the user's filter; all of them if there is none.

        Parameters
        ----------
        kind : str
            One of `FILTERED`.
        images : list of Path

        Returns
        -------
        list of Path
        """
        if kind not in self.filters:
            return images
        if kind not in self._selected:
            self._selected[kind] = set(self._get(**self.filters[kind]))
        return [path for path in images if path in self._selected[kind]]

    def _check_database(self, database: Path) -> None:
        """Refuse a database without a selected participant, or with files that are gone."""
        indexed = {
            f'sub-{label}' for label in self._layout.get(target='subject', return_type='id')
        }
        added = [
            name
            for name in sorted(self._participants - indexed)
            if any(
                not NESTED & set(path.relative_to(self.bids_dir).parts)
                for path in (self.bids_dir / name).rglob('*.nii*')
            )
        ]
        removed = [path for path in self._get() if not (path.exists() or path.is_symlink())]
        if added or removed:
            difference = (
                f'does not contain {added[0]}'
                if added
                else f'lists {removed[0].name}, which no longer exists'
            )
            raise UsageError(
                f'--bids-database-dir {database} {difference}: the dataset has changed since it '
                'was indexed; remove the folder to index it again'
            )

    def _get(self, **filters: Any) -> list[Path]:
        # pybids normalizes the root; the user's may contain links and '..'
        root = str(self._layout.root)
        names = self._layout.get(return_type='filename', **filters)
        relative_paths = [Path(name).relative_to(root) for name in names]
        paths = {
            self.bids_dir / path
            for path in relative_paths
            if path.parts[0] in self._participants or not path.parts[0].startswith('sub-')
            if not NESTED & set(path.parts[:-1])
        }
        return sorted(paths, key=lambda path: (path.name, path))


def find_unreadable(bids_dir: Path, participants: Sequence[str]) -> dict[str, str]:
    """Find participants with a folder that may not be read or a name that is not UTF-8.

    pybids would stop at one of them, or skip it in silence.

    Parameters
    ----------
    bids_dir : Path
    participants : sequence of str
        Labels without 'sub-'.

    Returns
    -------
    dict of str to str
        Why each of these participants cannot be indexed, by label.
    """
    unreadable = {}
    for label in participants:
        folder = bids_dir / f'sub-{label}'
        if folder.is_symlink() and not os.path.exists(folder):
            unreadable[label] = (
                f'{folder.name}: the folder is missing (broken symlink); fetch it, e.g. with '
                '`datalad get`'
            )
            continue
        try:
            for path in _walk(folder, (_identity(bids_dir),)) if folder.exists() else ():
                path.encode()
        except UnicodeEncodeError as error:
            name = os.fsencode(os.path.relpath(error.object, bids_dir))
            shown = name.decode(errors='backslashreplace')
            unreadable[label] = f'{shown}: the file name is not UTF-8; rename it'
        except OSError as error:
            place = os.path.relpath(error.filename or folder, bids_dir)
            if error.errno == errno.ELOOP:
                unreadable[label] = f'{place} is a loop of symbolic links; remove the link'
                continue
            unreadable[label] = (
                f'{place} cannot be read ({error.strerror}); change its permissions'
            )
    return unreadable


def _identity(folder: Path | str) -> tuple[int, int]:
    """Identify a folder, whatever links lead to it."""
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _walk(folder: Path | str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    """List a folder and all below it, also through links, as pybids follows them.

    Folders of `NESTED` are left out.

    Raises
    ------
    OSError
        When a folder cannot be read, or a link leads to one of the folders above it.
    """
    if (identity := _identity(folder)) in above:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(folder))
    yield str(folder)
    with os.scandir(folder) as entries:
        for entry in entries:
            if os.path.isdir(entry.path):  # False for a link to itself
                if entry.name not in NESTED:
                    yield from _walk(entry.path, (*above, identity))
            else:
                yield entry.path


def read_filters(path: Path | None) -> dict[str, dict[str, Any]]:
    """Read the entities that the images of each kind must have.

    Parameters
    ----------
    path : Path, optional
        JSON file with one object for each kind of `FILTERED`, with the names that entities have
        in pybids, as ``{"ctp": {"session": "01", "acquisition": null}}``. A list allows several
        values, null requires that the entity is missing, "*" that it has any value.

    Returns
    -------
    dict of str to dict
        Arguments of `BIDSLayout.get`.

    Raises
    ------
    UsageError
        When the file cannot be read, or a kind or an entity is unknown.
    """
    if path is None:
        return {}
    option = f'--bids-filter-file {path.name}'
    content = read_object(path, UsageError, option)
    for kind, filters in content.items():
        refuse_unknown(kind, FILTERED, option)
        if not isinstance(filters, dict):
            raise UsageError(
                f'{option}: {kind} must be an object, such as {{"session": "01"}}, got {filters!r}'
            )
    known = [entity['name'] for entity in json.loads(ENTITIES.read_text())['entities']]
    for kind, filters in content.items():
        for entity in filters:
            refuse_unknown(entity, known, f'{option}: {kind}')
    return {
        kind: {entity: _query(value) for entity, value in filters.items()}
        for kind, filters in content.items()
    }


def _query(value: Any) -> Any:
    """Convert a value of a filter file to one of pybids."""
    from bids.layout import Query

    if isinstance(value, list):
        return [_query(item) for item in value]
    return {None: Query.NONE, '*': Query.ANY}.get(value, value)
