# SPDX-License-Identifier: Apache-2.0
"""Find the series of a cohort: their tables, the state of their latest run, and their settings.

Only the folders to which ctpprep writes are searched, without pybids: a cohort has thousands of
participants.
"""

import json
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ctpprep.exceptions import UsageError
from ctpprep.group.tsv import MISSING
from ctpprep.inputs.labels import match_labels
from ctpprep.io.bids import entities
from ctpprep.io.records import find_change
from ctpprep.settings import RunSettings, flatten

logger = logging.getLogger(__name__)

#: Name of each group table, and the ending of the tables of the series that it joins.
TABLES = {
    'group_volumes.tsv': '_seg-perfusion_morph.tsv',
    'group_quality.tsv': '_desc-qualitycontrol_ctp.tsv',
}
#: Endings of the sidecars that together contain all settings that shaped the volumes.
SIDECARS = ('_tmax.json', '_seg-perfusion_morph.json')
STATUS_ENDING = '_status.json'


@dataclass
class SeriesRecord:
    """A series, or a participant without one.

    Attributes
    ----------
    participant, prefix : str
        Such as ``sub-01`` and ``sub-01_ses-a_run-1``; the prefix is n/a if no series is known.
    state, reason : str
        How the latest run of the series ended, and why it has no result ('' if it has one).
    tables : dict of str to Path
        The series' own table, by the name of the group table.
    version : str
        Version of ctpprep of the latest run, '' if not recorded.
    settings : dict
        Settings that shaped the volumes, by name, as far as sidecars contain them.
    """

    participant: str
    prefix: str
    state: str = 'succeeded'
    reason: str = ''
    tables: dict[str, Path] = field(default_factory=dict)
    version: str = ''
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def session(self) -> str:
        """The session, n/a without one."""
        parts = self.prefix.split('_')
        return next((part for part in parts if part.startswith('ses-')), MISSING)


class StatusEntry(NamedTuple):
    """State of one series in the status file of its participant."""

    prefix: str
    state: str
    cause: str
    version: str
    files: dict[str, str]


def check_participant_labels(run: RunSettings) -> None:
    """Raise an error for labels that neither the dataset nor the output folder contains.

    Raises
    ------
    UsageError
        With the nearest known labels.
    """
    if not run.participant_label:
        return
    status_files = (run.output_dir / 'logs').glob(f'sub-*{STATUS_ENDING}')
    known = _list_participants(run)
    known |= {path.name.removesuffix(STATUS_ENDING) for path in status_files}
    match_labels(
        [label.removeprefix('sub-') for label in run.participant_label],
        sorted(name.removeprefix('sub-') for name in known),
        'sub-',
        f'{run.bids_dir} or {run.output_dir}',
    )


def find_series(run: RunSettings) -> list[SeriesRecord]:
    """Find every series that has a table or a status, and every participant that has neither.

    Returns
    -------
    list of SeriesRecord
        In the order of their names.

    Raises
    ------
    UsageError
        If no series has a table.
    """
    requested = _requested_participants(run)
    records: dict[str, SeriesRecord] = {}
    for folder in _participant_folders(run, requested):
        for path in _list_tables(folder):
            name, ending = next(
                (name, ending) for name, ending in TABLES.items() if path.name.endswith(ending)
            )
            prefix = path.name.removesuffix(ending)
            record = records.setdefault(prefix, SeriesRecord(folder.name, prefix))
            record.tables[name] = path
    for path in sorted((run.output_dir / 'logs').glob(f'sub-*{STATUS_ENDING}')):
        participant = path.name.removesuffix(STATUS_ENDING)
        if not requested or participant in requested:
            for entry in _read_status(path):
                record = records.setdefault(entry.prefix, SeriesRecord(participant, entry.prefix))
                _apply_status(record, entry, run.output_dir)
    with_series = {record.participant for record in records.values()}
    selected = [record for record in records.values() if _is_selected(record.prefix, run)]
    without_series = [
        SeriesRecord(participant, MISSING, *_explain_missing(run.output_dir / participant))
        for participant in sorted((requested or _list_participants(run)) - with_series)
    ]
    selected += without_series
    if not any(record.tables for record in selected):
        raise UsageError(
            f'no tables of participants in {run.output_dir}; run the participant level first'
        )
    return sorted(selected, key=lambda record: (record.participant, record.prefix))


def read_settings(records: Sequence[SeriesRecord]) -> None:
    """Add to each series the settings that its sidecars contain; unreadable sidecars are skipped."""
    for record in records:
        if not record.tables:
            continue
        folder = next(iter(record.tables.values())).parent
        for ending in SIDECARS:
            path = folder / f'{record.prefix}{ending}'
            try:
                metadata = json.loads(path.read_text(encoding='utf-8'))
                record.settings |= flatten(metadata.get('Settings') or {})
            except (OSError, ValueError, TypeError, AttributeError):
                continue


def _requested_participants(run: RunSettings) -> set[str]:
    """Return the participants of `--participant-label`; empty for all."""
    return {f'sub-{label.removeprefix("sub-")}' for label in run.participant_label}


def _participant_folders(run: RunSettings, requested: set[str]) -> list[Path]:
    """List the requested participants' folders of the output, in the order of their names."""
    try:
        with os.scandir(run.output_dir) as entries:
            names = [
                entry.name for entry in entries if entry.name.startswith('sub-') and entry.is_dir()
            ]
    except OSError:
        names = []
    return [run.output_dir / name for name in sorted(names) if not requested or name in requested]


def _list_tables(folder: Path) -> Iterator[Path]:
    """List the tables of a participant: in `ct`, with or without sessions."""
    with os.scandir(folder) as entries:
        sessions = sorted(entry.name for entry in entries if entry.name.startswith('ses-'))
    for ct_folder in (folder / 'ct', *(folder / session / 'ct' for session in sessions)):
        try:
            names = sorted(os.listdir(ct_folder))
        except OSError:
            continue
        for name in names:
            if name.startswith(folder.name) and name.endswith(tuple(TABLES.values())):
                yield ct_folder / name


def _list_participants(run: RunSettings) -> set[str]:
    """List the participants of the dataset and of the output folder."""
    return {
        path.name
        for folder in (run.bids_dir, run.output_dir)
        for path in folder.glob('sub-*')
        if path.is_dir()
    }


def _is_selected(prefix: str, run: RunSettings) -> bool:
    """Return whether a series is of the selected sessions and runs."""
    labels = entities(Path(f'{prefix}_ctp'))
    # run-01 and run-1 are the same run
    return all(
        labels.get(key, '').lstrip('0' if key == 'run' else '')
        in [label.removeprefix(f'{key}-').lstrip('0' if key == 'run' else '') for label in wanted]
        for key, wanted in (('ses', run.session_label), ('run', run.run_label))
        if wanted
    )


def _apply_status(record: SeriesRecord, entry: StatusEntry, output_dir: Path) -> None:
    """Set version, state and reason.

    While the next run is running, the tables of an earlier one are used as long as all its recorded
    files exist and its tables have not changed.
    """
    record.version, record.state = entry.version, entry.state
    if record.tables and entry.files and entry.state != 'failed':
        change = find_change(entry.files, output_dir, ending='.tsv')
        record.state = 'incomplete' if change else 'succeeded'
        record.reason = f'{change}; run the series again' if change else ''
    elif record.state != 'succeeded':
        record.reason = entry.cause or 'its latest run has not ended, or was killed'


def _explain_missing(folder: Path) -> tuple[str, str]:
    """Return state and reason of a participant without tables and status.

    It failed if there is a crash file, of which the latest is named; otherwise it was not processed.
    """
    latest = max(folder.glob('log/*/crash-*'), key=os.path.getmtime, default=None)
    if latest is None:
        return 'not processed', 'not processed'
    return 'failed', f'see {latest.relative_to(folder.parent).as_posix()}'


def _read_status(path: Path) -> list[StatusEntry]:
    """Read the status file of a participant; an unreadable one is logged and has no entries."""
    try:
        status = json.loads(path.read_text(encoding='utf-8'))
        version = str(status.get('Version', ''))
        return [
            StatusEntry(
                str(entry['Series']),
                str(entry['State']),
                str(entry.get('Cause', '')),
                version,
                dict(entry.get('Files') or {}),
            )
            for entry in status['Series']
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        logger.warning('skipping the status file %s, which cannot be read (%s)', path, error)
        return []
