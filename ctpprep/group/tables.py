# SPDX-License-Identifier: Apache-2.0
"""The tables of all series below one another, and of each series without one the reason.

Only the places where ctpprep writes are looked into. What was read before is taken from the group
tables as long as the file is the same (size, times of change, inode): a manifest in `logs/` tells which
rows are whose. It counts only for the very tables that it was written with, and for one version, and
rows that are not those of the series they are taken for are not taken.
"""

import contextlib
import csv
import json
import logging
import math
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ctpprep import __version__
from ctpprep.exceptions import SeriesError, UsageError
from ctpprep.inputs.labels import match_labels
from ctpprep.io.bids import entities
from ctpprep.io.files import write_atomically, write_json
from ctpprep.settings import RunSettings, flatten

logger = logging.getLogger(__name__)

#: Table of the group: ending of the series' tables.
TABLES = {
    'group_volumes.tsv': '_seg-perfusion_morph.tsv',
    'group_quality.tsv': '_desc-qualitycontrol_ctp.tsv',
}
#: Columns that each group table begins with, with their meaning.
IDS = {
    'participant_id': 'participant',
    'session_id': 'session; n/a without sessions',
    'series': 'start of the names of all files of the series; n/a if no series is known',
    'state': 'how the latest run of the series ended: succeeded, failed, running (or killed while it '
    'ran), incomplete if it succeeded and one of its tables is gone, or not processed',
    'failure': 'why the series has no result; n/a if it has one',
}
#: Sidecars that together tell all settings that shaped the volumes.
SIDECARS = ('_tmax.json', '_seg-perfusion_morph.json')
MANIFEST = Path('logs') / 'group_manifest.json'
MISSING = 'n/a'


@dataclass
class Found:
    """A series, or a participant without one, and what is known about it.

    Attributes
    ----------
    participant, series : str
        Such as ``sub-01`` and ``sub-01_ses-a_run-1``; the series is n/a if none is known.
    state, reason : str
    tables : dict of str to Path
        The series' own table for each group table.
    version : str
        Of ctpprep in the latest run, '' if not told.
    settings : dict
        What shaped the volumes, by the names of settings, as far as sidecars tell.
    """

    participant: str
    series: str
    state: str = 'succeeded'
    reason: str = ''
    tables: dict[str, Path] = field(default_factory=dict)
    version: str = ''
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def session(self) -> str:
        """The session, n/a without."""
        parts = self.series.split('_')
        return next((part for part in parts if part.startswith('ses-')), MISSING)


@dataclass
class Table:
    """Rows of text under their columns; each row is as long as its header."""

    header: list[str]
    rows: list[list[str]]


@dataclass
class Manifest:
    """What the group tables were made from when they were last written.

    Attributes
    ----------
    files : dict
        By path below the output folder: stamp of the file, and for a table the header's number, the first
        row in the group table and the number of rows; for a status file its entries; for a sidecar the
        number of its settings.
    headers : list of list of str
    settings : list of dict
    tables : dict of str to Table
        The group tables themselves, as they were read back.
    """

    files: dict[str, list[Any]] = field(default_factory=dict)
    headers: list[list[str]] = field(default_factory=list)
    settings: list[dict[str, Any]] = field(default_factory=list)
    tables: dict[str, Table] = field(default_factory=dict)


def check_labels(run: RunSettings) -> None:
    """Refuse participants of whom neither the dataset nor the output knows.

    Raises
    ------
    UsageError
        With the nearest labels that are known.
    """
    if run.participant_label:
        told = (run.output_dir / 'logs').glob('sub-*_status.json')
        known = _participants(run) | {path.name.removesuffix('_status.json') for path in told}
        match_labels(
            [label.removeprefix('sub-') for label in run.participant_label],
            sorted(name.removeprefix('sub-') for name in known),
            'sub-',
            f'{run.bids_dir} or {run.output_dir}',
        )


def find_folders(run: RunSettings) -> list[Path]:
    """List the participants' folders of the output that are asked for, in order of their names."""
    wanted = {f'sub-{label.removeprefix("sub-")}' for label in run.participant_label}
    try:
        with os.scandir(run.output_dir) as entries:
            names = [
                each.name for each in entries if each.name.startswith('sub-') and each.is_dir()
            ]
    except OSError:
        names = []
    return [run.output_dir / name for name in sorted(names) if not wanted or name in wanted]


def collect(run: RunSettings, manifest: Manifest) -> tuple[list[Found], dict[str, list[Any]]]:
    """Find every series that has a table or a status, and every participant that has neither.

    Parameters
    ----------
    run : RunSettings
    manifest : Manifest

    Returns
    -------
    found : list of Found
        In order of their names.
    stamps : dict
        Of the status files that were read, for the next manifest.
    """
    series: dict[str, Found] = {}
    for folder in find_folders(run):
        for path in _own_tables(folder):
            name, ending = next((n, e) for n, e in TABLES.items() if path.name.endswith(e))
            prefix = path.name.removesuffix(ending)
            each = series.setdefault(prefix, Found(folder.name, prefix))
            each.tables[name] = path
    wanted = {f'sub-{label.removeprefix("sub-")}' for label in run.participant_label}
    stamps: dict[str, list[Any]] = {}
    for path in sorted((run.output_dir / 'logs').glob('sub-*_status.json')):
        participant = path.name.removesuffix('_status.json')
        if wanted and participant not in wanted:
            continue
        key, told = path.relative_to(run.output_dir).as_posix(), _stamp(path)
        known = manifest.files.get(key)
        entries = known[1] if known and known[0] == told else _read_status(path)
        stamps[key] = [told, entries]
        for prefix, state, cause, version in entries:
            each = series.setdefault(prefix, Found(participant, prefix))
            each.version = version
            each.state = state if state == 'failed' or not each.tables else 'succeeded'
            if each.state != 'succeeded':
                each.reason = cause or 'its latest run has not ended, or was killed'
    known_participants = {each.participant for each in series.values()}
    chosen = [each for each in series.values() if _is_wanted(each.series, run)]
    missing = [
        Found(participant, MISSING, *_why_missing(run.output_dir / participant))
        for participant in sorted((wanted or _participants(run)) - known_participants)
    ]
    return sorted([*chosen, *missing], key=lambda each: (each.participant, each.series)), stamps


def _is_wanted(prefix: str, run: RunSettings) -> bool:
    """Tell whether a series is of the sessions and runs that were asked for."""
    labels = entities(Path(f'{prefix}_ctp'))
    # runs count whatever their leading zeros
    return all(
        labels.get(key, '').lstrip('0' if key == 'run' else '')
        in [each.removeprefix(f'{key}-').lstrip('0' if key == 'run' else '') for each in named]
        for key, named in (('ses', run.session_label), ('run', run.run_label))
        if named
    )


def _own_tables(folder: Path) -> Iterator[Path]:
    """List the tables of a participant: in `ct`, with or without sessions."""
    with os.scandir(folder) as entries:
        sessions = sorted(each.name for each in entries if each.name.startswith('ses-'))
    for place in (folder / 'ct', *(folder / name / 'ct' for name in sessions)):
        try:
            names = sorted(os.listdir(place))
        except OSError:
            continue
        for name in names:
            if name.startswith(folder.name) and name.endswith(tuple(TABLES.values())):
                yield place / name


def _participants(run: RunSettings) -> set[str]:
    """Name the participants of the dataset, or begun."""
    return {
        path.name
        for folder in (run.bids_dir, run.output_dir)
        for path in folder.glob('sub-*')
        if path.is_dir()
    }


def _why_missing(folder: Path) -> tuple[str, str]:
    """Tell the state of a participant without tables and status: failed, with the latest record, or not."""
    latest = max(folder.glob('log/*/crash-*'), key=os.path.getmtime, default=None)
    if latest is None:
        return 'not processed', 'not processed'
    return 'failed', f'see {latest.relative_to(folder.parent).as_posix()}'


def _read_status(path: Path) -> list[list[str]]:
    """Read series, state, cause and version of each entry; nothing of a file that is none of ours."""
    try:
        told = json.loads(path.read_text(encoding='utf-8'))
        version = str(told.get('Version', ''))
        return [
            [str(each['Series']), str(each['State']), str(each.get('Cause', '')), version]
            for each in told['Series']
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        logger.warning('the status in %s cannot be read (%s)', path, error)
        return []


def _stamp(file: Path | int) -> list[int]:
    """Tell one state of a file from another; the time of the inode cannot be set back."""
    told = os.stat(file)
    return [told.st_size, told.st_mtime_ns, told.st_ctime_ns, told.st_ino]


def number(text: str) -> float:
    """Read a figure of a table; NaN if it is none, or not finite.

    Examples
    --------
    >>> number('1.5'), number('inf'), number('n/a')
    (1.5, nan, nan)
    """
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


def read_table(path: Path, encoding: str = 'utf-8') -> Table:
    """Read a tab-separated table as text, so that no number changes its digits.

    BIDS tables have no quotes: one in a cell is a sign as any other.

    Raises
    ------
    SeriesError
        Without a header or rows, or when a row is longer or shorter than the header.
    """
    try:
        with path.open(encoding=encoding, newline='') as stream:
            reader = csv.reader(stream, 'excel-tab', quoting=csv.QUOTE_NONE)
            # one string for the many cells that are alike
            lines = [
                (reader.line_num, [sys.intern(cell) for cell in line]) for line in reader if line
            ]
    except (OSError, ValueError, csv.Error) as error:
        raise SeriesError(f'{path.name} cannot be read ({error})') from error
    if len(lines) < 2:
        raise SeriesError(f'{path.name} has no rows')
    (_, header), *rows = lines
    for place, cells in rows:
        if len(cells) != len(header):
            raise SeriesError(
                f'{path.name} has {len(cells)} cells in line {place} under {len(header)} columns'
            )
    return Table(header, [cells for _, cells in rows])


def read_manifest(output_dir: Path) -> Manifest:
    """Read what the group tables hold; an empty manifest if they are not what it was written for."""
    try:
        told = json.loads((output_dir / MANIFEST).read_text(encoding='utf-8'))
        if told['Version'] != __version__:
            return Manifest()
        tables = {}
        for name, stamp in told['Tables'].items():
            if _stamp(output_dir / name) != stamp:
                return Manifest()
            tables[name] = read_table(output_dir / name)
        return Manifest(told['Files'], told['Headers'], told['Settings'], tables)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SeriesError):
        return Manifest()


def read_all(
    found: Sequence[Found], manifest: Manifest, output_dir: Path, stamps: dict[str, list[Any]]
) -> tuple[dict[str, list[Table | None]], list[list[str]]]:
    """Read the tables of all series, those that are as they were out of the group tables.

    Parameters
    ----------
    found : sequence of Found
        A table that cannot be read makes its series one that failed, one that is not there one that is
        incomplete, with the reason.
    manifest : Manifest
        Of the last call.
    output_dir : Path
    stamps : dict
        Of the next manifest: the tables are added.

    Returns
    -------
    parts : dict of str to list of (Table or None)
        By group table, for each series its own rows.
    headers : list of list of str
        For the next manifest.
    """
    parts: dict[str, list[Table | None]] = {}
    header_numbers: dict[tuple[str, ...], int] = {}
    for name in TABLES:
        before, first = manifest.tables.get(name), 0
        places = {column: i for i, column in enumerate(before.header)} if before else {}
        parts[name] = []
        for each in found:
            own = None
            if name in each.tables:
                key = each.tables[name].relative_to(output_dir).as_posix()
                try:
                    told, known = _stamp(each.tables[name]), manifest.files.get(key)
                    if before and known and known[0] == told:
                        own = _take(before, places, each, manifest.headers[known[1]], *known[2:])
                    if own is None:
                        own = read_table(each.tables[name])
                        keep = [i for i, column in enumerate(own.header) if column not in IDS]
                        own = _choose(own.rows, [own.header[i] for i in keep], keep)
                    place = header_numbers.setdefault(tuple(own.header), len(header_numbers))
                    stamps[key] = [told, place, first, len(own.rows)]
                except (OSError, SeriesError) as error:
                    each.state, each.reason = 'failed', str(error)
                    del each.tables[name]
            parts[name].append(own)
            first += len(own.rows) if own else 1
    for each in found:
        if each.state == 'succeeded' and (
            gone := [name for name in TABLES if name not in each.tables]
        ):
            each.state = 'incomplete'
            names = ' and '.join(f'{each.series}{TABLES[name]}' for name in gone)
            each.reason = f'{names} {"is" if len(gone) == 1 else "are"} gone; run the series again'
    return parts, [list(header) for header in header_numbers]


def read_settings(
    found: Sequence[Found], manifest: Manifest, output_dir: Path, stamps: dict[str, list[Any]]
) -> list[dict[str, Any]]:
    """Read the settings of each series into `found`: those that sidecars hold.

    Parameters
    ----------
    found : sequence of Found
    manifest : Manifest
        Of the last call.
    output_dir : Path
    stamps : dict
        Of the next manifest: the sidecars are added.

    Returns
    -------
    list of dict
        For the next manifest.
    """
    kinds: dict[str, int] = {}
    for each in found:
        if not each.tables:
            continue
        folder = next(iter(each.tables.values())).parent
        for path in (folder / f'{each.series}{ending}' for ending in SIDECARS):
            key = path.relative_to(output_dir).as_posix()
            try:
                told, known = _stamp(path), manifest.files.get(key)
                if known and known[0] == told:
                    own = manifest.settings[known[1]]
                else:
                    own = json.loads(path.read_text(encoding='utf-8')).get('Settings') or {}
                each.settings |= flatten(own)
            except (OSError, ValueError, TypeError, AttributeError, LookupError):
                continue
            stamps[key] = [told, kinds.setdefault(json.dumps(own, sort_keys=True), len(kinds))]
    return [json.loads(text) for text in kinds]


def join(found: Sequence[Found], name: str, parts: Sequence[Table | None]) -> Table:
    """Put the tables of all series below one another; a series without one has a row with its reason."""
    columns = dict.fromkeys(IDS)
    for own in parts:
        columns |= dict.fromkeys(own.header if own else ())
    header = list(columns)
    return Table(header, list(_full_rows(found, name, parts, header)))


def _take(
    table: Table, places: dict[str, int], each: Found, header: list[str], first: int, count: int
) -> Table | None:
    """Take the rows of one series out of a group table; None if they are not all there."""
    rows = table.rows[first : first + count]
    whose = places['series']
    if len(rows) != count or any(cells[whose] != each.series for cells in rows):
        return None
    return _choose(rows, header, [places[column] for column in header])


def _choose(rows: list[list[str]], header: list[str], columns: list[int]) -> Table:
    return Table(header, [[cells[i] for i in columns] for cells in rows])


def _full_rows(
    found: Sequence[Found], name: str, parts: Sequence[Table | None], header: list[str]
) -> Iterator[list[str]]:
    """Fill up what a series lacks of the columns of all."""
    orders: dict[tuple[str, ...], list[int]] = {}
    for each, part in zip(found, parts, strict=True):
        own = part or Table([], [[]])
        order = orders.get(tuple(own.header))
        if order is None:
            place = {column: i for i, column in enumerate(own.header)}
            order = [place.get(column, -1) for column in header[len(IDS) :]]
            orders[tuple(own.header)] = order
        reason = each.reason
        if not reason and name not in each.tables:
            reason = 'its table is not there'
        ids = [each.participant, each.session, each.series, each.state, reason or MISSING]
        for cells in own.rows:
            yield ids + [cells[i] if i >= 0 else MISSING for i in order]


def write_table(table: Table, path: Path) -> list[int]:
    """Write a table and put it in place at once: a reader never sees half of it.

    Tabs and ends of lines in a cell become blanks; there are no quotes.

    Returns
    -------
    list of int
        Stamp of what was written, whatever lies there now.

    Raises
    ------
    UsageError
        When the folder cannot be written to.
    """
    with contextlib.ExitStack() as stack:
        handles = []

        def write(partial: Path) -> None:
            stream = stack.enter_context(partial.open('w', encoding='utf-8', newline=''))
            stream.writelines(f'{_one_line(cells)}\n' for cells in (table.header, *table.rows))
            stream.flush()
            os.fsync(stream.fileno())  # network drives set the time of change now
            handles.append(stream.fileno())

        try:
            write_atomically(write, path)
            return _stamp(handles[0])  # renaming has set the time of the inode
        except OSError as error:
            raise UsageError(f'cannot write to {path.parent} ({error.strerror})') from error


def _one_line(cells: Sequence[str]) -> str:
    line = '\t'.join(cells)
    if line.count('\t') < len(cells) and '\n' not in line and '\r' not in line:
        return line
    return '\t'.join(re.sub(r'[\t\r\n]+', ' ', cell) for cell in cells)


def describe_columns(found: Sequence[Found], name: str, header: Sequence[str]) -> dict[str, Any]:
    """Describe the columns of a group table in the words of the series' own sidecars.

    Parameters
    ----------
    found : sequence of Found
    name : str
        Of the group table.
    header : sequence of str
        Its columns.

    Returns
    -------
    dict
        Description, and unit and limits if there are any, by column.
    """
    told: dict[str, Any] = {column: {'Description': words} for column, words in IDS.items()}
    open_columns = [column for column in header if column not in told]
    looked = 0
    for each in found:
        if not open_columns or name not in each.tables or looked == 20:
            continue
        looked += 1
        try:
            path = each.tables[name].with_suffix('.json')
            own = json.loads(path.read_text(encoding='utf-8'))
        except (OSError, ValueError):
            continue
        told |= {
            column: own[column] for column in open_columns if isinstance(own.get(column), dict)
        }
        open_columns = [column for column in open_columns if column not in told]
    for column in open_columns:
        check = column.removesuffix('_status').removesuffix('_sentence')
        if column != check:
            kind = 'grade' if column.endswith('_status') else 'grade in words'
            told[column] = {'Description': f'{kind} of {check}'}
    return {'Description': f'{name}: rows of all series', **told}


def write_manifest(
    output_dir: Path,
    written: dict[str, list[int]],
    headers: list[list[str]],
    settings: list[dict[str, Any]],
    files: dict[str, Any],
) -> None:
    """Write the manifest of the group tables that were written: stamps by name."""
    content = {
        'Version': __version__,
        'Tables': written,
        'Headers': headers,
        'Settings': settings,
        'Files': files,
    }
    write_atomically(
        lambda partial: partial.write_text(json.dumps(content), encoding='utf-8'),
        output_dir / MANIFEST,
    )


def collect_tables(run: RunSettings) -> tuple[list[Found], dict[str, Table]]:
    """Write `group_volumes.tsv` and `group_quality.tsv` with their column dictionaries.

    Parameters
    ----------
    run : RunSettings
        The dataset, whose participants are expected, and the derivatives.

    Returns
    -------
    found : list of Found
    tables : dict of str to Table
        By the name of the file.

    Raises
    ------
    UsageError
        When there is not one table, or nothing can be written.
    """
    manifest = read_manifest(run.output_dir)
    found, files = collect(run, manifest)
    if not any(each.tables for each in found):
        raise UsageError(
            f'no tables of participants in {run.output_dir}; run the level participant first'
        )
    parts, headers = read_all(found, manifest, run.output_dir, files)
    settings = read_settings(found, manifest, run.output_dir, files)
    tables = {name: join(found, name, parts[name]) for name in TABLES}
    written = {}
    for name, table in tables.items():
        written[name] = write_table(table, run.output_dir / name)
        about = describe_columns(found, name, table.header)
        write_json(about, (run.output_dir / name).with_suffix('.json'))
    write_manifest(run.output_dir, written, headers, settings, files)
    return found, tables
