# SPDX-License-Identifier: Apache-2.0
"""Folders of a run: defaults, and checks that they are valid and writable."""

import contextlib
import os
import re
import tempfile
from pathlib import Path

from ctpprep.exceptions import UsageError
from ctpprep.settings import RunSettings


def default_work_dir(bids_dir: Path, output_dir: Path) -> Path:
    """Choose the work folder, outside the dataset.

    If the output folder is inside the dataset, the name of the work folder contains that of the dataset,
    because other datasets in the same place may have an output folder of the same name.

    Examples
    --------
    >>> default_work_dir(Path('/data/raw'), Path('/data/out')).as_posix()
    '/data/out_work'
    >>> default_work_dir(Path('/data/raw'), Path('/data/raw/derivatives/ctpprep')).as_posix()
    '/data/raw_ctpprep_work'
    """
    bids, out = bids_dir.resolve(), output_dir.resolve()
    if not out.is_relative_to(bids):
        return output_dir.parent / f'{output_dir.name}_work'
    inside = [part for part in out.relative_to(bids).parts if part != 'derivatives']
    return bids_dir.parent / '_'.join([bids_dir.name, *inside, 'work'])


def check_folders(run: RunSettings) -> None:
    """Raise UsageError if folders would mix inputs, outputs and intermediate files."""
    bids, out, work = (path.resolve() for path in (run.bids_dir, run.output_dir, run.work_dir))
    if not bids.is_dir():
        raise UsageError(
            f'bids_dir {run.bids_dir} is not a folder; give the root of a BIDS dataset'
        )
    if out == bids:
        raise UsageError(
            f'output_dir is bids_dir ({run.bids_dir}); choose e.g. BIDS_DIR/derivatives/ctpprep'
        )
    inside = out.relative_to(bids).parts[:1] if out.is_relative_to(bids) else ()
    # a folder `derivatives` may itself be the dataset, of precomputed maps
    is_derivative = bids.name == 'derivatives' and not ''.join(inside).startswith('sub-')
    if inside and inside != ('derivatives',) and not is_derivative:
        raise UsageError(
            f'output_dir {run.output_dir} is inside bids_dir; there, only the folder derivatives/ may '
            'contain outputs'
        )
    if work.is_relative_to(bids) or work.is_relative_to(out):
        role = 'inside bids_dir' if work.is_relative_to(bids) else 'inside output_dir'
        role = 'output_dir' if work == out else role
        raise UsageError(
            f'the work folder {run.work_dir} is {role}; choose another folder with -w'
        )
    for option, path in (('output_dir', run.output_dir), ('-w/--work-dir', run.work_dir)):
        nearest = next(place for place in (path, *path.parents) if os.path.lexists(place))
        if not nearest.is_dir():
            raise UsageError(
                f'cannot write to {path} ({nearest} is not a folder); choose another folder for {option}'
            )


def name_by_role(text: str, run: RunSettings) -> str:
    """Replace the folders of a run by their roles, in a text that may be shared.

    Examples
    --------
    >>> run = RunSettings(Path('/data/raw'), Path('/data/raw/derivatives/x'), Path('/scratch/w'))
    >>> name_by_role('no space in /scratch/w/a.nii of /data/raw/derivatives/x, /data/rawest', run)
    'no space in work_dir/a.nii of output_dir, /data/rawest'
    >>> name_by_role('/mnt/data/raw is another folder', run)
    '/mnt/data/raw is another folder'
    """
    folders = {
        run.bids_dir: 'bids_dir', run.output_dir: 'output_dir', run.work_dir: 'work_dir',
        **{path: name for name, path in run.derivatives},
    }  # fmt: skip
    with contextlib.suppress(RuntimeError):  # an unknown user without HOME
        folders[Path.home()] = '~'
    roles = {
        str(path): role for folder, role in folders.items() for path in (folder, folder.resolve())
    }
    for path in sorted(roles, key=len, reverse=True):  # the innermost first
        if path != '/':
            text = re.sub(rf'(?<![\w./-]){re.escape(path)}(?![\w.-])', roles[path], text)
    return text


def make_folder(folder: Path, option: str) -> None:
    """Make a folder, and raise UsageError with the option to change if it is not writable."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):  # has no name, so it cannot remain
            pass
    except OSError as error:
        raise UsageError(
            f'cannot write to {folder} ({error.strerror}); choose another folder for {option}'
        ) from error
