# SPDX-License-Identifier: Apache-2.0
"""State of each participant for other programs: one small file, always of the latest run."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctpprep import __version__
from ctpprep.cli.folders import name_by_role
from ctpprep.inputs.selection import select_participants
from ctpprep.inputs.series import FailedSeries
from ctpprep.settings import RunSettings

if TYPE_CHECKING:
    from ctpprep.engine.run import SeriesResult


# the state of a participant is the first of these that one of its series has; nothing: no series
STATES = ('running', 'failed', 'succeeded', 'nothing')


def status_path(output_dir: Path, participant: str) -> Path:
    """Return the path of the status file of a participant.

    Examples
    --------
    >>> status_path(Path('out'), '01').as_posix()
    'out/logs/sub-01_status.json'
    """
    return output_dir / 'logs' / f'sub-{participant}_status.json'


def write_status(
    all_series: Sequence[Any], run: RunSettings, results: Sequence['SeriesResult'] = ()
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
    """
    from ctpprep.io.files import write_json

    by_prefix = {result.prefix: result for result in results}
    for participant in sorted({series.participant for series in all_series}):
        entries = [
            _make_entry(series, by_prefix.get(series.prefix), run)
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


def _make_entry(series: Any, result: 'SeriesResult | None', run: RunSettings) -> dict[str, str]:
    """Make the entry of one series."""
    entry = {'Series': series.prefix, 'State': 'running'}
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
