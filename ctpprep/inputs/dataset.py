# SPDX-License-Identifier: Apache-2.0
"""A BIDS dataset: its participants, sessions and files by their names."""

import fnmatch
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ctpprep.exceptions import SeriesError, UsageError
from ctpprep.inputs.labels import listed, match_labels, refuse_unknown
from ctpprep.io.bids import NIFTI, entities, session_dir
from ctpprep.io.files import read_object

# ending of the table that each finished series has
VOLUMES = '_seg-perfusion_morph.tsv'
ENTITIES = Path(__file__).parents[1] / 'resources' / 'bids_ctp.json'
# of BIDS, beside participants
KNOWN_FOLDERS = ('code', 'derivatives', 'docs', 'logs', 'phenotype', 'sourcedata', 'stimuli')
MOST_FOLDERS = 200  # that are looked at: none of this may take time
# what a filter file may choose among: series, non-contrast CT, maps made elsewhere
FILTERED = ('ctp', 'ncct', 'maps')


@dataclass(frozen=True)
class InputFile:
    """A file that replaces a step, and its BIDS URI."""

    path: Path
    uri: str


@dataclass(frozen=True)
class FailedSeries:
    """A series that cannot be processed, and why; `absent` where a wanted participant has none."""

    prefix: str
    participant: str
    session: str | None
    reason: str
    absent: bool = False

    @property
    def out_subdir(self) -> str:
        """Folder of the outputs of earlier runs, below the output folder."""
        session = f'ses-{self.session}/' if self.session else ''
        return f'sub-{self.participant}/{session}ct'


def workflow_name(prefix: str) -> str:
    """Name a workflow after a series or a participant.

    Examples
    --------
    >>> workflow_name('sub-01_ses-1')
    'sub_01_ses_1_wf'
    """
    return prefix.replace('-', '_').replace('+', '_plus_') + '_wf'


def select_participants(
    bids_dir: Path, wanted: Sequence[str] = (), others: Iterable[str] = ()
) -> list[str]:
    """List the participants of a dataset, or check the wanted ones against them.

    Parameters
    ----------
    bids_dir : Path
        Root of the dataset.
    wanted : sequence of str
        Labels with or without 'sub-'; empty for all.
    others : iterable of str
        Labels without 'sub-' that count as well, such as those with outputs of earlier runs.

    Returns
    -------
    list of str
        Labels without 'sub-', sorted.

    Raises
    ------
    UsageError
        When the folder holds no participants, or not the wanted ones.
    """
    if not bids_dir.is_dir():
        raise UsageError(f'the dataset {bids_dir} is not a folder')
    raw = {each.name[4:] for each in bids_dir.glob('sub-*') if each.is_dir()}
    labels = sorted(raw.union(others))
    if not labels:
        inner = next(iter(sorted(bids_dir.glob('*/sub-*'))), None)
        hint = f'; did you mean {inner.parent}?' if inner else ''
        raise UsageError(f'no participants (folders sub-<label>) in {bids_dir}{hint}')
    if not wanted:
        return labels
    return match_labels([each.removeprefix('sub-') for each in wanted], labels, 'sub-', bids_dir)


def finished_participants(output_dir: Path) -> list[str]:
    """List the labels, without 'sub-', of those of whom an earlier run left a table of volumes."""
    return [
        folder.name[4:]
        for folder in sorted(output_dir.glob('sub-*'))
        if folder.is_dir() and next(folder.rglob(f'*{VOLUMES}'), None) is not None
    ]


class DatasetIndex:
    """The files of some participants by their names; the dataset is looked through once.

    Parameters
    ----------
    bids_dir : Path
        Root of the dataset.
    participants : sequence of str
        Labels without 'sub-'.
    database : Path, optional
        Folder of a pybids database of all participants; made if it is not there.
    filters : dict, optional
        As `read_filters` returns them.

    Attributes
    ----------
    bids_dir : Path
    sidecars : dict of Path to list of Path
        JSON files by their folder.
    """

    def __init__(
        self,
        bids_dir: Path,
        participants: Sequence[str],
        database: Path | None = None,
        filters: dict[str, dict[str, Any]] | None = None,
    ) -> None:
        from bids.layout import BIDSLayout, BIDSLayoutIndexer

        # Looking at the wanted participants only is what makes a large dataset quick. Metadata
        # are read in `read_sidecar`: pybids would stop at the first bad JSON file of any series.
        wanted = '|'.join(re.escape(label) for label in participants)
        ignore = [re.compile(rf'^/(?!sub-(?:{wanted})(?:/|$)|[^/]*\.json$)')]
        if database is not None:  # it serves other participants, too
            ignore = [re.compile(r'^/(?!sub-|[^/]*\.json$)')]
        self.bids_dir = bids_dir
        self.filters = filters or {}
        self._kept: dict[str, set[Path]] = {}
        self._participants = {f'sub-{label}' for label in participants}
        try:
            self._layout = BIDSLayout(
                str(bids_dir),
                validate=False,
                config=str(ENTITIES),
                indexer=BIDSLayoutIndexer(ignore=ignore, index_metadata=False),
                database_path=database,
            )
        except Exception as error:  # of sqlite, of pybids, of the file system
            if database is None:
                raise
            reason = ' '.join(str(error).split())
            raise UsageError(
                f'--bids-database-dir {database} is no database of {bids_dir} ({reason}); remove the '
                'folder or name another'
            ) from error
        if database is not None:
            self._check_database(database)
        self._by_session: dict[tuple[tuple[str, Any], ...], dict[Path, list[Path]]] = {}
        self.sidecars: dict[Path, list[Path]] = defaultdict(list)
        for path in self._get(extension='.json'):
            self.sidecars[path.parent].append(path)

    def images(self, **labels: Any) -> list[Path]:
        """List the NIfTI files whose names hold some labels, in the order of their names.

        Parameters
        ----------
        **labels
            As pybids names them, such as ``suffix='ctp'``.

        Returns
        -------
        list of Path
        """
        return self._get(extension=list(NIFTI), **labels)

    def of_session(self, home: Path, **labels: Any) -> list[Path]:
        """List the NIfTI files of a session, a folder as `session_dir` returns it."""
        key = tuple(sorted(labels.items()))
        if key not in self._by_session:  # a query a series would take minutes in a large dataset
            groups = self._by_session[key] = defaultdict(list)
            for path in self.images(**labels):
                groups[session_dir(path, self.bids_dir)].append(path)
        return self._by_session[key].get(home, [])

    def select(self, kind: str, images: list[Path]) -> list[Path]:
        """Keep the images that fit the filter of a user, or all of them without one.

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
        if kind not in self._kept:
            self._kept[kind] = set(self._get(**self.filters[kind]))
        return [path for path in images if path in self._kept[kind]]

    def _check_database(self, database: Path) -> None:
        """Refuse a database that a wanted participant or file contradicts."""
        held = {f'sub-{label}' for label in self._layout.get(target='subject', return_type='id')}
        new = [
            name
            for name in sorted(self._participants - held)
            if next((self.bids_dir / name).rglob('*.nii*'), None)
        ]
        gone = [path for path in self._get() if not (path.exists() or path.is_symlink())]
        if new or gone:
            what = f'does not know {new[0]}' if new else f'lists {gone[0].name}, which is gone'
            raise UsageError(
                f'--bids-database-dir {database} {what}: the dataset has changed; remove the folder '
                'to index again'
            )

    def _get(self, **filters: Any) -> list[Path]:
        # pybids writes the root its own way; ours may hold links and '..'
        root = str(self._layout.root)
        names = self._layout.get(return_type='filename', **filters)
        inside = [Path(each).relative_to(root) for each in names]
        found = {
            self.bids_dir / each
            for each in inside
            if each.parts[0] in self._participants or not each.parts[0].startswith('sub-')
        }
        return sorted(found, key=lambda path: (path.name, path))


def read_filters(path: Path | None) -> dict[str, dict[str, Any]]:
    """Read which entities the files of each kind must have.

    Parameters
    ----------
    path : Path, optional
        JSON file of `FILTERED` with entities by their names in pybids, as ``{"ctp": {"session":
        "01", "acquisition": null}}``. A list gives several values, null is 'without', "*" 'with
        any'.

    Returns
    -------
    dict of str to dict
        What `BIDSLayout.get` takes.

    Raises
    ------
    UsageError
        When the file cannot be read, or a kind or an entity is unknown.
    """
    if path is None:
        return {}
    where = f'--bids-filter-file {path.name}'
    content = read_object(path, UsageError, where)
    if not all(isinstance(each, dict) for each in content.values()):
        raise UsageError(f'{where} must hold objects by kind, as {{"ctp": {{"session": "01"}}}}')
    known = [each['name'] for each in json.loads(ENTITIES.read_text())['entities']]
    for kind, wanted in content.items():
        refuse_unknown(kind, FILTERED, where)
        for entity in wanted:
            refuse_unknown(entity, known, f'{where}: {kind}')
    return {
        kind: {entity: _query(value) for entity, value in wanted.items()}
        for kind, wanted in content.items()
    }


def _query(value: Any) -> Any:
    """Turn a value of a filter into one of pybids."""
    from bids.layout import Query

    if isinstance(value, list):
        return [_query(each) for each in value]
    return {None: Query.NONE, '*': Query.ANY}.get(value, value)


def check_name(prefix: str, path: Path, bids_dir: Path) -> Path:
    """Refuse a file whose name or folder is not that of BIDS; return the folder of its session."""
    name = path.relative_to(bids_dir)
    if not re.fullmatch(r'sub-[a-zA-Z0-9+]+(_[a-z]+-[a-zA-Z0-9+]+)*', prefix):
        raise SeriesError(
            f'{name} is not named as in BIDS; sub-<label>[_ses-<label>][_run-<index>]_'
            f'{entities(path)["suffix"]} is needed, with letters and digits in the labels'
        )
    home = session_dir(path, bids_dir)
    if home not in path.parents:
        raise SeriesError(f'{name} is not in the folder of its name, {home.relative_to(bids_dir)}')
    return home


def fail(prefix: str, path: Path, bids_dir: Path, error: Exception) -> FailedSeries:
    """Say why the series of a file cannot be processed."""
    participant = path.relative_to(bids_dir).parts[0].removeprefix('sub-')
    return FailedSeries(prefix, participant, entities(path).get('ses'), str(error))


def select_sessions(images: list[Path], wanted: Sequence[str]) -> list[Path]:
    """Keep the images of the wanted sessions, or all of them if none is named."""
    if not wanted or not images:
        return images
    known = sorted({entities(path)['ses'] for path in images if 'ses' in entities(path)})
    labels = [each.removeprefix('ses-') for each in wanted]
    labels = match_labels(labels, known, 'ses-', 'the chosen participants')
    return [path for path in images if entities(path).get('ses') in labels]


def select_runs(images: list[Path], wanted: Sequence[str]) -> list[Path]:
    """Keep the images of the wanted runs, whatever their leading zeros, or all if none is named."""
    if not wanted or not images:
        return images
    runs = {path: entities(path)['run'].lstrip('0') for path in images if 'run' in entities(path)}
    labels = [each.removeprefix('run-').lstrip('0') for each in wanted]
    labels = match_labels(labels, sorted(set(runs.values())), 'run-', 'the chosen sessions')
    return [path for path in images if runs.get(path) in labels]


def check_dataset(bids_dir: Path, participants: Sequence[str]) -> list[str]:
    """Look at description and file names of a dataset, as far as that takes no time.

    Parameters
    ----------
    bids_dir : Path
    participants : sequence of str
        Labels without 'sub-' of those whose folders are looked at.

    Returns
    -------
    list of str
        What is not as in BIDS, one sentence each. None of it keeps ctpprep from reading.
    """
    found = []
    described = bids_dir / 'dataset_description.json'
    try:
        content = json.loads(described.read_text(encoding='utf-8-sig'))
        missing = [name for name in ('Name', 'BIDSVersion') if name not in content]
        if missing:
            found.append(f'dataset_description.json has no {" and no ".join(missing)}')
    except FileNotFoundError:
        found.append('there is no dataset_description.json')
    except (OSError, ValueError, TypeError) as error:
        found.append(f'dataset_description.json cannot be read ({error})')
    for label in participants:
        odd = [
            path.name
            for path in sorted((bids_dir / f'sub-{label}').rglob('*.nii*'))
            if not re.fullmatch(rf'sub-{re.escape(label)}(_[a-z]+-[a-zA-Z0-9+]+)*_[a-zA-Z0-9]+\.nii(\.gz)?',
                                path.name)
        ]  # fmt: skip
        if odd:
            found.append(f'sub-{label}: {listed(odd, "")}: not named as in BIDS')
    return found


def describe_skipped(bids_dir: Path) -> str:
    """Name folders that hold images and are no participant's, since 'sub-' is missing in their names.

    Only the first folders and files are looked at, two levels deep. What `.bidsignore` lists, BIDS
    knows, or is a dataset of its own is left out.

    Parameters
    ----------
    bids_dir : Path

    Returns
    -------
    str
        A sentence; nothing where there is no such folder.
    """
    ignore = bids_dir / '.bidsignore'
    lines = ignore.read_text(errors='replace').splitlines() if ignore.is_file() else []
    patterns = [line.strip().strip('/').removesuffix('/**') for line in lines]
    others = (
        each
        for each in sorted(bids_dir.iterdir())
        if not each.name.startswith(('sub-', '.'))
        and each.name not in KNOWN_FOLDERS
        and not any(fnmatch.fnmatchcase(each.name, pattern) for pattern in patterns)
        and each.is_dir()
    )
    looked_at = islice(others, MOST_FOLDERS)
    names = list(islice((each.name for each in looked_at if _holds_images(each)), 6))
    shown = ', '.join(names[:5]) + (' and others' if len(names) > 5 else '')
    return f'{shown}: passed over; a folder of a participant is named sub-<label>' if names else ''


def _holds_images(folder: Path) -> bool:
    """Tell whether there is a NIfTI file among the first files of a folder and of those in it."""
    inside = list(islice(folder.iterdir(), MOST_FOLDERS))
    if any(each.name.startswith('sub-') and each.is_dir() for each in inside):
        return False
    deeper = (path for each in inside if each.is_dir() for path in each.glob('*'))
    return any(path.name.endswith(NIFTI) for path in [*inside, *islice(deeper, MOST_FOLDERS)])


def refuse_duplicates(paths: Sequence[Path], bids_dir: Path) -> None:
    """Refuse several files where one is meant."""
    if len(paths) > 1:
        names = ' and '.join(str(path.relative_to(bids_dir)) for path in paths)
        raise SeriesError(
            f'{names} would write the same outputs; remove one or tell them apart with run-<index>'
        )
