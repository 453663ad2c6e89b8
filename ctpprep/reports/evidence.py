# SPDX-License-Identifier: Apache-2.0
"""What failed series show: a figure of their curves and masks, and what the user can supply."""

import shutil
import tempfile
from pathlib import Path

from ctpprep.io.files import write_atomically

#: What each option supplies that ctpprep did not find.
REMEDIES = {
    '--brain-mask': 'a mask of the brain (--brain-mask)',
    '--bolus-arrival': 'the time in s at which the curves below begin to rise (--bolus-arrival)',
    '--aif-file': 'an artery (--aif-file), as a mask of its voxels or as a table with the columns time '
    'in s and aif in HU above baseline',
}


def describe_remedy(reason: str) -> str:
    """Describe what the options named in an error supply.

    Parameters
    ----------
    reason : str
        Why a series failed.

    Returns
    -------
    str
        A sentence; '' if no such option is named, because none would help.

    Examples
    --------
    >>> describe_remedy('no brain; supply a mask (--brain-mask)')
    'a mask of the brain (--brain-mask).'
    """
    texts = [text for option, text in REMEDIES.items() if option in reason]
    listed = ', '.join(texts[:-1]) + ', or ' if texts[1:] else ''
    return f'{listed}{texts[-1]}.' if texts else ''


def draw_evidence(crash_file: Path, path: Path) -> bool:
    """Draw what a failed series shows, if its last step left any evidence.

    Parameters
    ----------
    crash_file : Path
        Contains the working folder of the step.
    path : Path
        The SVG file, which is put in place atomically.

    Returns
    -------
    bool
        Whether there was any evidence.

    Raises
    ------
    Exception
        Of any class, if the file of the evidence is damaged.
    """
    from ctpprep.engine.crashes import read_crash
    from ctpprep.figures import plot_evidence, save_svg
    from ctpprep.interfaces.evidence import FILE_NAME, read_evidence

    folder, _ = read_crash(crash_file)
    if not (folder / FILE_NAME).is_file():
        return False
    figure = plot_evidence(read_evidence(folder))
    with tempfile.TemporaryDirectory() as temporary:
        # the ids in the file depend on its name, which must not be that of a partial file
        svg = save_svg(figure, Path(temporary) / path.name)
        write_atomically(lambda partial: shutil.copyfile(svg, partial), path)
    return True
