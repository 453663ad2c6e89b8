# SPDX-License-Identifier: Apache-2.0
"""Select the participants, sessions and runs that the user asks for."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from ctpprep.exceptions import UsageError
from ctpprep.inputs.labels import match_labels
from ctpprep.io.bids import entities

# ending of the table that each finished series has
VOLUMES = '_seg-perfusion_morph.tsv'


def select_participants(
    bids_dir: Path, requested: Sequence[str] = (), others: Iterable[str] = ()
) -> list[str]:
    """List the participants of a dataset, or the requested ones after checking that they exist.

    Parameters
    ----------
    bids_dir : Path
        Root of the dataset.
    requested : sequence of str
        Labels with or without 'sub-'; empty for all.
    others : iterable of str
        Labels without 'sub-' that exist as well, such as those with outputs of earlier runs.

    Returns
    -------
    list of str
        Labels without 'sub-', sorted.

    Raises
    ------
    UsageError
        When the folder contains no participants, or not the requested ones.
    """
    if not bids_dir.is_dir():
        raise UsageError(f'the dataset {bids_dir} is not a folder')
    folders = {folder.name[4:] for folder in bids_dir.glob('sub-*') if _is_participant(folder)}
    labels = sorted(folders.union(others))
    if not labels:
        nested = next(iter(sorted(bids_dir.glob('*/sub-*'))), None)
        hint = f'; did you mean {nested.parent}?' if nested else ''
        raise UsageError(f'no participants (folders sub-<label>) in {bids_dir}{hint}')
    if not requested:
        return labels
    return match_labels(
        [label.removeprefix('sub-') for label in requested], labels, 'sub-', bids_dir
    )


def _is_participant(path: Path) -> bool:
    """Return whether a path is a folder or a broken link, as of a folder that was not fetched."""
    if os.path.isdir(path):
        return True
    return path.is_symlink() and not os.path.exists(path) and not {'.', '_'} & set(path.name)


def finished_participants(output_dir: Path) -> list[str]:
    """List the labels, without 'sub-', of participants with a table of volumes in the outputs."""
    return [
        folder.name[4:]
        for folder in sorted(output_dir.glob('sub-*'))
        if folder.is_dir() and next(folder.rglob(f'*{VOLUMES}'), None) is not None
    ]


def select_sessions(images: list[Path], requested: Sequence[str]) -> list[Path]:
    """Keep the images of the requested sessions; all of them if none is requested."""
    if not requested or not images:
        return images
    known = sorted({entities(path)['ses'] for path in images if 'ses' in entities(path)})
    labels = [label.removeprefix('ses-') for label in requested]
    labels = match_labels(labels, known, 'ses-', 'the selected participants')
    return [path for path in images if entities(path).get('ses') in labels]


def select_runs(images: list[Path], requested: Sequence[str]) -> list[Path]:
    """Keep the images of the requested runs; all of them if none is requested.

    Leading zeros are ignored.
    """
    if not requested or not images:
        return images
    runs = {path: entities(path)['run'].lstrip('0') for path in images if 'run' in entities(path)}
    labels = [label.removeprefix('run-').lstrip('0') for label in requested]
    labels = match_labels(labels, sorted(set(runs.values())), 'run-', 'the selected sessions')
    return [path for path in images if runs.get(path) in labels]
