# SPDX-License-Identifier: Apache-2.0
"""What follows the steps of a participant: outdated files are removed, page and status are written.

It is done as soon as the last series of a participant has ended, and not at the end of the run, so that
a stopped batch has the page and the state of everyone who was done.
"""

import logging
import typing
from collections.abc import Sequence
from typing import Any

from ctpprep.cli.messages import log_and_continue
from ctpprep.cli.pages import draw_failures, write_reports
from ctpprep.cli.status import make_records, write_status
from ctpprep.settings import MethodSettings, RunSettings

if typing.TYPE_CHECKING:
    from ctpprep.engine.run import SeriesResult
    from ctpprep.engine.tracker import RunTracker, SeriesState, Watcher

logger = logging.getLogger('ctpprep')


class Finisher:
    """Finish each participant of a run once, as early as possible.

    Parameters
    ----------
    all_series : sequence of CTPSeries, PrecomputedMaps and FailedSeries
    method : MethodSettings
    run : RunSettings
    start : float
        Start of the run, s since the epoch.
    failures : dict of str to str
        Errors by participant label; what could not be written is added.
    """

    def __init__(
        self,
        all_series: Sequence[Any],
        method: MethodSettings,
        run: RunSettings,
        start: float,
        failures: dict[str, str],
    ) -> None:
        self.method, self.run, self.start, self.failures = method, run, start, failures
        self.waiting: dict[str, list[Any]] = {}
        for series in all_series:
            self.waiting.setdefault(series.participant, []).append(series)

    def watch(self, watcher: 'Watcher') -> 'Watcher':
        """Return a watcher that also finishes participants."""

        def watch(tracker: 'RunTracker', state: 'SeriesState', event: str) -> None:
            watcher(tracker, state, event)
            if event == 'ended':
                self._finish_ended(tracker, state.prefix)

        return watch

    def finish_rest(self, results: Sequence['SeriesResult']) -> None:
        """Finish the participants that are left, with the results of the run."""
        for label in list(self.waiting):
            self._finish(label, [one for one in results if one.participant == label])

    def _finish_ended(self, tracker: 'RunTracker', prefix: str) -> None:
        """Finish the participant of a series that has ended, if it was the last one."""
        from ctpprep.engine.crashes import participant_of, read_failures
        from ctpprep.engine.run import SeriesResult

        label = participant_of(prefix)
        usable = [one for one in self.waiting.get(label, []) if one.can_run]
        prefixes = {one.prefix for one in usable}
        states = [state for state in tracker.states.values() if state.prefix in prefixes]
        # one that failed is finished with the run, which finds causes that no crash file has
        if not states or any(state.waiting or state.failed_step for state in states):
            return
        if len(usable) < len(self.waiting[label]) or read_failures(usable, self.run):
            return
        self._finish(label, [SeriesResult(one.prefix, True) for one in usable])
        what = f'the status of sub-{label} could not be written'
        with log_and_continue(what, {}, run=self.run):
            results = [SeriesResult(one.prefix, label not in self.failures) for one in usable]
            records = make_records(usable, results, self.method, self.run)
            write_status(usable, self.run, results, records)

    def _finish(self, label: str, results: Sequence['SeriesResult']) -> None:
        """Remove what earlier runs left, draw what failed series show, and write the page."""
        all_series = self.waiting.pop(label)
        what = f'files of earlier runs of sub-{label} could not be removed'
        with log_and_continue(what, self.failures, label, run=self.run):
            remove_outdated(all_series, results, self.method, self.run, self.start)
        draw_failures(results, self.run)
        write_reports(all_series, results, self.method, self.run, self.failures)


def remove_outdated(
    all_series: Sequence[Any],
    results: Sequence['SeriesResult'],
    method: MethodSettings,
    run: RunSettings,
    start: float,
) -> None:
    """Remove outputs of earlier runs that this run did not replace, so that no page mixes runs.

    Parameters
    ----------
    all_series : sequence of CTPSeries, PrecomputedMaps and FailedSeries
    results : sequence of SeriesResult
    method : MethodSettings
    run : RunSettings
    start : float
        Start of this run, s since the epoch.
    """
    from ctpprep.io.files import remove_older
    from ctpprep.workflows.outputs import foreign_paths, written_paths

    failed = {result.prefix for result in results if not result.succeeded}
    for series in all_series:
        if series.absent:  # its series are unknown
            continue
        if series.prefix in failed:
            if remove_older(written_paths(series, method, run.output_dir), start):
                logger.info('%s failed; removed the files of an earlier run', series.prefix)
            continue
        foreign = foreign_paths(series, method, run.output_dir)
        outdated = [path for path in foreign if path.is_file()]
        for path in outdated:
            path.unlink()
        if outdated:
            logger.info('%s: removed %d files of an earlier run', series.prefix, len(outdated))
