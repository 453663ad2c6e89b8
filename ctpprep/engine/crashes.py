# SPDX-License-Identifier: Apache-2.0
"""Crash files of nipype: which node failed, and why."""

import os
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from nipype.pipeline.plugins import tools

from ctpprep import exceptions
from ctpprep.engine.tracker import workflow_names
from ctpprep.inputs.series import Series
from ctpprep.io.disk import explain_full_disk
from ctpprep.settings import RunSettings


def hide_user() -> None:
    """Let nipype name crash files without the user: outputs are shared."""
    tools.getpass = SimpleNamespace(getuser=lambda: 'ctpprep')


def participant_of(prefix: str) -> str:
    """Return the participant label of a series, without 'sub-'.

    Examples
    --------
    >>> participant_of('sub-01_ses-02')
    '01'
    """
    return prefix.partition('_')[0].removeprefix('sub-')


def crash_dir(run: RunSettings, participant: str) -> Path:
    """Return the folder of the crash files of one participant in one run."""
    return run.output_dir / f'sub-{participant}' / 'log' / run.run_uuid


def read_crash(path: Path) -> tuple[Path, str]:
    """Read which node failed, and why.

    Parameters
    ----------
    path : Path
        nipype's crash file in its text format.

    Returns
    -------
    folder : Path
        Working directory of the node.
    cause : str
        Last line of the exception; without the class if it is one of ctpprep's own errors.
    """
    text = path.read_text(errors='replace')
    # appended by nipype if the node left no result
    text = re.split(r'\n\n(?:When creating|During the creation of) this crashfile', text)[0]
    lines = [line.strip() for line in text.splitlines()]
    if re.match(r'FileNotFoundError: .*/result_\w+\.pklz$', lines[-1] if lines else ''):
        # the result is missing because of an earlier error, such as a full disk
        earlier = text.split('\n\nDuring handling of the above exception')[0]
        lines = [line.strip() for line in earlier.splitlines()]
    folder = next((line for line in lines if line.startswith('Working directory: ')), '')
    cause = next((line for line in reversed(lines) if line), 'unknown')
    kind, _, sentence = cause.partition(': ')
    is_own = hasattr(exceptions, kind.rpartition('.')[2])
    return Path(folder.removeprefix('Working directory: ')), sentence if is_own else cause


def find_last_failure(series: Any, output_dir: Path) -> tuple[str, Path | None]:
    """Find out why a series has no outputs, from the latest crash file of an earlier run.

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


def read_failures(
    series: Sequence[Series], run: RunSettings
) -> dict[str, tuple[str, Path | None]]:
    """Read the first failure of each series in a run.

    Parameters
    ----------
    series : sequence of CTPSeries and PrecomputedMaps
    run : RunSettings

    Returns
    -------
    dict of str to (str, Path)
        Cause and crash file by the prefix of the series.
    """
    folders = {crash_dir(run, one.participant) for one in series}
    files = [path for folder in folders for path in folder.glob('crash-*.txt')]
    files = [path for path in files if path.stat().st_size]  # empty if the disk was full
    failures: dict[str, tuple[str, Path | None]] = {}
    prefixes = {workflow_names(one): one.prefix for one in series}
    for path in sorted(files, key=os.path.getmtime):
        folder, cause = read_crash(path)
        for names in pairwise(folder.parts):
            if names in prefixes:
                failures.setdefault(prefixes[names], (explain_full_disk(cause, run), path))
    return failures
