# SPDX-License-Identifier: Apache-2.0
"""nipype's crash files: which node failed, and why."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ctpprep import exceptions
from ctpprep.engine.progress import Owners
from ctpprep.inputs.series import Series
from ctpprep.io.disk import explain_full_disk
from ctpprep.settings import RunSettings


def label_of(prefix: str) -> str:
    """Tell the participant of a series, without 'sub-'.

    Examples
    --------
    >>> label_of('sub-01_ses-02')
    '01'
    """
    return prefix.partition('_')[0].removeprefix('sub-')


def crash_dir(run: RunSettings, participant: str) -> Path:
    """Folder of the crash files of one participant in one run."""
    return run.output_dir / f'sub-{participant}' / 'log' / run.run_uuid


def read_crash(path: Path) -> tuple[Path, str]:
    """Read where and why a node failed.

    Parameters
    ----------
    path : Path
        nipype's crash file in its text format.

    Returns
    -------
    folder : Path
        Working directory of the node.
    cause : str
        Last line of the exception, without the class of errors that ctpprep raises on purpose.
    """
    text = path.read_text(errors='replace')
    # what nipype adds when the node left no result behind
    text = re.split(r'\n\n(?:When creating|During the creation of) this crashfile', text)[0]
    lines = [line.strip() for line in text.splitlines()]
    if re.match(r'FileNotFoundError: .*/result_\w+\.pklz$', lines[-1] if lines else ''):
        # the result is missing for another error, such as a full disk
        first = text.split('\n\nDuring handling of the above exception')[0]
        lines = [line.strip() for line in first.splitlines()]
    folder = next((line for line in lines if line.startswith('Working directory: ')), '')
    cause = next((line for line in reversed(lines) if line), 'unknown')
    kind, _, sentence = cause.partition(': ')
    own = getattr(exceptions, kind.rpartition('.')[2], None)
    return Path(folder.removeprefix('Working directory: ')), sentence if own else cause


def last_failure(series: Any, output_dir: Path) -> tuple[str, Path | None]:
    """Tell why a series has no outputs, by the latest crash file of an earlier run, and name the file.

    Parameters
    ----------
    series : CTPSeries, PrecomputedMaps or FailedSeries
    output_dir : Path

    Returns
    -------
    cause : str
    crash_file : Path or None
    """
    if reason := getattr(series, 'reason', ''):
        return str(reason), None
    files = output_dir.glob(f'sub-{series.participant}/log/*/crash-*.txt')
    for path in sorted(files, key=os.path.getmtime, reverse=True):
        folder, cause = read_crash(path)
        if series.workflow_name in folder.parts:
            return cause, path
    return 'has no outputs', None


def _read_failures(
    series: Sequence[Series], run: RunSettings
) -> dict[str, tuple[str, Path | None]]:
    """Assign crash files to series: the cause of the first of each, by its prefix, and the file."""
    folders = {crash_dir(run, each.participant) for each in series}
    folders.add(run.output_dir / 'logs' / run.run_uuid)
    files = [path for folder in folders for path in folder.glob('crash-*.txt')]
    files = [path for path in files if path.stat().st_size]  # empty where the disk was full
    failures: dict[str, tuple[str, Path | None]] = {}
    owners = Owners(series)
    for path in sorted(files, key=os.path.getmtime):
        folder, cause = read_crash(path)
        for each in owners(folder.parts):
            failures.setdefault(each.prefix, (explain_full_disk(cause, run), path))
    return failures
