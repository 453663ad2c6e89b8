# SPDX-License-Identifier: Apache-2.0
"""State of each participant for other programs: one small file, always of the latest run."""

import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ctpprep import __version__
from ctpprep.cli.folders import name_by_role
from ctpprep.inputs.selection import select_participants
from ctpprep.inputs.series import FailedSeries
from ctpprep.io.records import make_record, read_entries, status_path
from ctpprep.settings import MethodSettings, RunSettings

if TYPE_CHECKING:
    from ctpprep.engine.run import SeriesResult


# the state of a participant is the first of these that one of its series has; nothing: no series
STATES = ('running', 'failed', 'succeeded', 'nothing')


def write_status(
    all_series: Sequence[Any],
    run: RunSettings,
    results: Sequence['SeriesResult'] = (),
    records: Mapping[str, dict[str, str]] = MappingProxyType({}),
) -> None:
    """Write the status of each participant, at the start of a run and as its last step.

    After a killed run the state remains 'running': a program that has seen the run end can infer
    that it was killed.

    Parameters
    ----------
    all_series : sequence of CTPSeries, PrecomputedMaps and FailedSeries
        The series of the run.
    run : RunSettings
    results : sequence of SeriesResult
        One per series; none at the start, when only series that cannot be processed have failed.
    records : mapping of str to dict, optional
        Digests of the outputs from `make_records`, by series. At the start, those of the run before
        are kept, so that its outputs are valid until they change.
    """
    from ctpprep.io.files import write_json

    by_prefix = {result.prefix: result for result in results}
    for participant in sorted({series.participant for series in all_series}):
        entries_before = read_entries(status_path(run.output_dir, participant))
        earlier = {prefix: entry.get('Files', {}) for prefix, entry in entries_before.items()}
        entries = [
            _make_entry(series, by_prefix.get(series.prefix), run)
            | _find_record(series, records if results else earlier)
            for series in all_series
            if series.participant == participant
        ]
        states = {entry['State'] for entry in entries}
        content = {
            'Participant': f'sub-{participant}',
            'State': next(state for state in STATES if state in states),
            'Run': run.run_uuid,
            'Version': __version__,
            'UpdatedAtTime': time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime()),
            'Series': entries,
        }
        write_json(content, status_path(run.output_dir, participant))


def write_status_without_series(all_series: Sequence[Any], run: RunSettings) -> None:
    """Write the status of participants that have no series, unless they already have a status."""
    participants = {series.participant for series in all_series}
    absent = [
        FailedSeries(f'sub-{label}', label, None, 'no CT perfusion series', absent=True)
        for label in select_participants(run.bids_dir, run.participant_label)
        if label not in participants and not status_path(run.output_dir, label).exists()
    ]
    write_status(absent, run)


def make_records(
    all_series: Sequence[Any],
    results: Sequence['SeriesResult'],
    method: MethodSettings,
    run: RunSettings,
) -> dict[str, dict[str, str]]:
    """Compute the digests of the outputs of the series that have succeeded, by their prefix."""
    from ctpprep.workflows.outputs import written_paths

    succeeded = {result.prefix for result in results if result.succeeded}
    return {
        series.prefix: make_record(written_paths(series, method, run.output_dir), run.output_dir)
        for series in all_series
        if series.prefix in succeeded
    }


def _find_record(series: Any, records: Mapping[str, dict[str, str]]) -> dict[str, Any]:
    """Return the record of a series as a field of its entry, if there is one."""
    record = records.get(series.prefix) if series.can_run else None
    return {'Files': record} if record else {}


def _make_entry(series: Any, result: 'SeriesResult | None', run: RunSettings) -> dict[str, Any]:
    """Make the entry of one series."""
    entry: dict[str, Any] = {'Series': series.prefix, 'State': 'running'}
    if series.absent:
        return entry | {'State': 'nothing', 'Cause': name_by_role(series.reason, run)}
    if result is not None:
        entry |= {
            'State': 'succeeded' if result.succeeded else 'failed',
            'Cause': name_by_role(result.cause, run),
        }
        if result.crash_file is not None:
            entry['CrashFile'] = result.crash_file.relative_to(run.output_dir).as_posix()
    elif not series.can_run:
        entry |= {'State': 'failed', 'Cause': name_by_role(series.reason, run)}
    return entry
