# SPDX-License-Identifier: Apache-2.0
"""What became of each participant, for programs: one small file, always the latest run's."""

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


# of a participant counts the first that one of its series has; nothing: there is no series
STATES = ('running', 'failed', 'succeeded', 'nothing')


def status_path(output_dir: Path, participant: str) -> Path:
    """Name the file of one participant.

    Examples
    --------
    >>> status_path(Path('out'), '01').as_posix()
    'out/logs/sub-01_status.json'
    """
    return output_dir / 'logs' / f'sub-{participant}_status.json'


def write_status(
    found: Sequence[Any], run: RunSettings, results: Sequence['SeriesResult'] = ()
) -> None:
    """Write the status of each participant of a run: when it begins, and as its very last step.

    A run that is killed leaves 'running' behind: whoever knows that it has ended knows that it was killed.

    Parameters
    ----------
    found : sequence of CTPSeries, PrecomputedMaps and FailedSeries
        The series of the run.
    run : RunSettings
    results : sequence of SeriesResult
        One for each series; none when the run begins: what cannot be processed has failed by then.
    """
    from ctpprep.io.files import write_json

    by_prefix = {each.prefix: each for each in results}
    for participant in sorted({each.participant for each in found}):
        mine = [each for each in found if each.participant == participant]
        series = [_tell(each, by_prefix.get(each.prefix), run) for each in mine]
        states = {each['State'] for each in series}
        content = {
            'Participant': f'sub-{participant}',
            'State': next(each for each in STATES if each in states),
            'Run': run.run_uuid,
            'Version': __version__,
            'UpdatedAtTime': time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime()),
            'Series': series,
        }
        write_json(content, status_path(run.output_dir, participant))


def write_absence(found: Sequence[Any], run: RunSettings) -> None:
    """Write the status of participants that a run of the whole dataset leaves out, if they have none."""
    having = {each.participant for each in found}
    absent = [
        FailedSeries(f'sub-{label}', label, None, 'no CT perfusion series', absent=True)
        for label in select_participants(run.bids_dir, run.participant_label)
        if label not in having and not status_path(run.output_dir, label).exists()
    ]
    write_status(absent, run)


def _tell(series: Any, result: 'SeriesResult | None', run: RunSettings) -> dict[str, str]:
    """Write the entry of one series."""
    told = {'Series': series.prefix, 'State': 'running'}
    if series.absent:
        return told | {'State': 'nothing', 'Cause': name_by_role(series.reason, run)}
    if result is not None:
        told |= {
            'State': 'succeeded' if result.succeeded else 'failed',
            'Cause': name_by_role(result.cause, run),
        }
        if result.crash_file is not None:
            told['CrashFile'] = result.crash_file.relative_to(run.output_dir).as_posix()
    elif not series.can_run:
        told |= {'State': 'failed', 'Cause': name_by_role(series.reason, run)}
    return told
