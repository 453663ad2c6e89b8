# SPDX-License-Identifier: Apache-2.0
"""A BIDS dataset: participants, files by their names, sidecars, and what headers must hold."""

import difflib
import fnmatch
import hashlib
import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import quote, unquote

from ctpprep.exceptions import CtpprepError, SeriesError, UsageError

MAX_SHEAR_DEG = 1.0
MAX_TILT_DEG = 40.0
NIFTI = ('.nii.gz', '.nii')
# ending of the table that each finished series has
VOLUMES = '_seg-perfusion_morph.tsv'
ENTITIES = Path(__file__).parent / 'resources' / 'bids_ctp.json'
# of BIDS, beside participants
KNOWN_FOLDERS = ('code', 'derivatives', 'docs', 'logs', 'phenotype', 'sourcedata', 'stimuli')
MOST_FOLDERS = 200  # that are looked at: none of this may take time
# what a filter file may choose among: series, non-contrast CT, maps made elsewhere
FILTERED = ('ctp', 'ncct', 'maps')


@dataclass(frozen=True)
class SuppliedFile:
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


def match_labels(wanted: list[str], known: list[str], key: str, where: Any) -> list[str]:
    """Check wanted labels against known ones; the error names the nearest."""
    for label in wanted:
        if label not in known:
            near = difflib.get_close_matches(label, known, n=3, cutoff=0.4)
            has = f'it has {listed(known, key)}' if known else f'it has no {key}<label>'
            hint = f'did you mean {listed(near, key)}?' if near else has
            raise UsageError(f'{key}{label} is not in {where}; {hint}')
    return sorted(set(wanted))


def nearest(word: str, known: Iterable[str], otherwise: str = '') -> str:
    """Ask whether the nearest of some known words was meant; say something else if none is near.

    Examples
    --------
    >>> nearest('lowrnk', ['lowrank', 'smooth']), nearest('x', ['lowrank'], 'see --help')
    ('did you mean lowrank?', 'see --help')
    """
    near = difflib.get_close_matches(word, list(known), n=1)
    return f'did you mean {near[0]}?' if near else otherwise


def listed(labels: Sequence[str], key: str) -> str:
    """Write the first labels with their key, and how many more there are."""
    shown = ', '.join(f'{key}{label}' for label in labels[:5])
    return shown + (f' and {len(labels) - 5} more' if len(labels) > 5 else '')


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


def refuse_unknown(word: str, known: Sequence[str], where: str) -> None:
    """Refuse a word that is not among known ones; the error names the nearest."""
    if word not in known:
        hint = nearest(word, known, f'known are {", ".join(known)}')
        raise UsageError(f'{where}: there is no {word!r}; {hint}')


def session_dir(path: Path, bids_dir: Path) -> Path:
    """Return the folder of the session, or of the participant without sessions, of a file."""
    labels = entities(path)
    home = bids_dir / f'sub-{labels.get("sub", "")}'
    return home / f'ses-{labels["ses"]}' if 'ses' in labels else home


def entities(path: Path) -> dict[str, str]:
    """Split a file name, as in {'sub': '01', 'run': '2', 'suffix': 'ctp'}."""
    *pairs, suffix = path.name.partition('.')[0].split('_')
    return {**{k: v for k, _, v in (pair.partition('-') for pair in pairs)}, 'suffix': suffix}


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


def look_over(bids_dir: Path, participants: Sequence[str]) -> list[str]:
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


def passed_over(bids_dir: Path) -> str:
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


def refuse_twins(paths: Sequence[Path], bids_dir: Path) -> None:
    """Refuse several files where one is meant."""
    if len(paths) > 1:
        names = ' and '.join(str(path.relative_to(bids_dir)) for path in paths)
        raise SeriesError(
            f'{names} would write the same outputs; remove one or tell them apart with run-<index>'
        )


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


def read_object(path: Path, error: type[CtpprepError], what: str = '') -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Parameters
    ----------
    path : Path
    error : type
        Raised, with one sentence, where that is not possible.
    what : str
        How the sentence names the file; its path by default.

    Returns
    -------
    dict
    """
    what = what or str(path)
    try:
        content = json.loads(path.read_text(encoding='utf-8-sig'))
    except (OSError, ValueError) as reason:
        raise error(f'{what} cannot be read ({reason})') from reason
    if not isinstance(content, dict):
        raise error(f'{what} must hold an object, {{"Field": value}}')
    return content


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


def absolute(path: Path) -> Path:
    """Make a path of a user absolute, without '..': that is the parent of what a link leads to."""
    path = path.expanduser().absolute()
    while '..' in path.parts:
        up = path.parts.index('..')
        path = Path(*path.parts[:up]).resolve().parent.joinpath(*path.parts[up + 1 :])
    return path


def digest(path: Path) -> str:
    """Compute the SHA-256 of a file."""
    with path.open('rb') as content:
        return hashlib.file_digest(content, 'sha256').hexdigest()


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


def open_nifti(path: Path) -> Any:
    """Open a NIfTI file without reading its voxels, or say why it is none."""
    import nibabel as nb

    if path.is_symlink() and not path.exists():
        raise SeriesError('its content is not here (broken link); fetch it, e.g. `datalad get`')
    try:
        image = nb.load(path)
    except Exception as error:  # nibabel lets errors of gzip, zlib and struct through
        reason = str(error).replace(str(path), path.name)
        raise SeriesError(f'not a readable NIfTI file ({reason})') from error
    if not isinstance(image, nb.Nifti1Pair):
        raise SeriesError(f'a {type(image).__name__}; a NIfTI file is needed')
    return image


def check_complete(path: Path, image: Any) -> None:
    """Compare the length of a file with its header, without unpacking it when it agrees."""
    values = math.prod(image.shape) * image.get_data_dtype().itemsize
    needed = image.dataobj.offset + values
    length, unpacked = path.stat().st_size, ''
    if path.name.endswith('.gz'):
        with path.open('rb') as stream:
            stream.seek(-4, 2)  # a gzip file ends with the length of its content modulo 2^32
            if int.from_bytes(stream.read(), 'little') == needed % 2**32:
                return
        length, unpacked = _unpacked_length(path), ' once unpacked'
    if length < needed:
        raise SeriesError(
            f'the file is cut off ({length} bytes{unpacked}, the header announces {needed}); '
            'copy or convert it again'
        )


def _unpacked_length(path: Path) -> int:
    """Count the bytes that can be unpacked; files of several gzip members end up here, too."""
    import gzip
    import zlib

    length = 0
    with gzip.open(path) as stream:
        try:
            while block := stream.read1(2**22):  # what can be unpacked, up to the error
                length += len(block)
        except (EOFError, OSError, zlib.error):
            pass
    return length


def check_placed(image: Any) -> None:
    """Refuse a header whose voxels cannot be placed in the patient."""
    header = image.header
    if header['sform_code'] == 0 and header['qform_code'] == 0:
        raise SeriesError(
            'the header gives no orientation (sform_code and qform_code are 0), left and right '
            'cannot be told; convert the DICOM files again'
        )
    unit = header.get_xyzt_units()[0]
    if unit not in ('mm', 'unknown'):
        raise SeriesError(f'the header gives lengths in {unit}; mm are needed (xyzt_units)')


def check_volume(path: Path, what: str) -> None:
    """Check the header of a 3D image, such as a mask that a user supplies.

    Parameters
    ----------
    path : Path
        NIfTI file.
    what : str
        What is needed, such as 'mask'.

    Raises
    ------
    SeriesError
        When the file is damaged, not 3D, or cannot be placed in the patient.
    """
    try:
        image = open_nifti(path)
        if len(image.shape) != 3:
            shape = ' x '.join(map(str, image.shape))
            raise SeriesError(f'{len(image.shape)}D ({shape}); a 3D {what} is needed')
        check_complete(path, image)
        check_placed(image)
    except SeriesError as error:
        raise SeriesError(f'{path.name}: {error}') from error


def check_geometry(image: Any) -> None:
    """Refuse voxels that are no axial slices of a plausible size."""
    check_placed(image)
    columns = image.affine[:3, :3].T.tolist()
    sizes = [math.hypot(*column) for column in columns]
    if not all(0.05 <= size <= 30 for size in sizes):
        shown = ' x '.join(f'{size:g}' for size in sizes)
        raise SeriesError(f'voxels of {shown} mm; 0.05 to 30 mm are plausible')
    axes = [[v / size for v in column] for column, size in zip(columns, sizes, strict=True)]
    cosines = [
        abs(sum(u * v for u, v in zip(*pair, strict=True))) for pair in combinations(axes, 2)
    ]
    shear = math.degrees(math.asin(min(1.0, max(cosines))))
    if shear > MAX_SHEAR_DEG:
        raise SeriesError(
            f'the affine is sheared by {shear:.1f} degrees (gantry tilt); resample the series to '
            'an orthogonal grid, e.g. with nilearn.image.resample_img'
        )
    tilt = math.degrees(math.acos(min(1.0, abs(axes[2][2]))))
    if tilt > MAX_TILT_DEG:
        raise SeriesError(
            f'the third voxel axis is {tilt:.0f} degrees away from the head-foot axis; axial '
            f'slices (at most {MAX_TILT_DEG:g} degrees) are needed'
        )
