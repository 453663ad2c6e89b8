# SPDX-License-Identifier: Apache-2.0
"""Check the first two frames of each series, which takes a fraction of a second, before anything runs."""

import functools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ctpprep.exceptions import SeriesError, explain
from ctpprep.inputs.labels import join_labels
from ctpprep.inputs.series import CTPSeries, FailedSeries, FoundSeries
from ctpprep.io.compression import damage, keep_open
from ctpprep.io.headers import check_gzip, open_nifti, place_image
from ctpprep.io.processes import call_side_by_side
from ctpprep.io.shear import straighten

logger = logging.getLogger(__name__)


def check_first_frames(
    all_series: Sequence[FoundSeries],
    bone_hu: float,
    *,
    n_procs: int = 1,
    to_the_end: bool = False,
) -> list[FoundSeries]:
    """Check units, window, voxel size and axes of each series by its first two frames.

    Parameters
    ----------
    all_series : sequence of CTPSeries, PrecomputedMaps and FailedSeries
    bone_hu : float
        Density above which a voxel is bone, HU.
    n_procs : int
        Number of processes.
    to_the_end : bool
        Whether the gzip files of a series are also read to their ends, for their checksums. A run does
        this itself, before anything else.

    Returns
    -------
    list of CTPSeries, PrecomputedMaps and FailedSeries
        In the same order; a series that cannot be a CT of a head in HU has failed. What is unusual but
        accepted is logged.
    """
    checks = [functools.partial(_check_series, one, bone_hu, to_the_end) for one in all_series]
    checked: list[FoundSeries] = []
    for series, result in zip(all_series, call_side_by_side(checks, n_procs), strict=True):
        if isinstance(result, str):
            series = FailedSeries(series.prefix, series.participant, series.session, result)
        elif result is not None and isinstance(series, CTPSeries):
            warn(_file_name(series), result)
        checked.append(series)
    return checked


def _file_name(series: CTPSeries) -> str:
    return series.source.uri.split(':', 2)[2]


def _check_series(series: FoundSeries, bone_hu: float, to_the_end: bool) -> Any:
    """Return what is unusual in the first frame, or why the series fails, as a sentence."""
    if not series.can_run:
        return None
    findings = None
    if series.has_frames:
        try:
            findings = check_image(series.source.path, bone_hu, series.affine_from)
        except Exception as error:  # also of libraries, for what no check foresees
            return f'{_file_name(series)}: {explain(error)}'
    for file in series.files.values() if to_the_end else ():
        try:
            check_gzip(file.path)
        except Exception as error:
            return f'{file.uri.split(":", 2)[2]}: {explain(error)}'
    return findings


def warn(name: str, findings: Any) -> None:
    """Log what is unusual in the first frame of a series, with the slices, numbered from 1.

    Parameters
    ----------
    name : str
        Name of the file.
    findings : first_frame.Findings
    """
    n_slices = findings.n_slices
    for slices, what in (
        (findings.empty_slices, 'contains a single value'),
        (findings.repeated_slices, 'repeats the one before'),
        (
            findings.broken_slices,
            f'has some of the {findings.n_broken} voxels that are not finite',
        ),
    ):
        if slices:
            numbers = join_labels([f'{z + 1} of {n_slices}' for z in slices], 'slice ')
            logger.warning('%s: in the first frame, %s %s', name, numbers, what)


def check_image(path: Path, bone_hu: float, affine_from: str = 'agree') -> Any:
    """Read the first two frames of a series in the order of the file, and check them.

    Parameters
    ----------
    path : Path
        4D NIfTI file.
    bone_hu : float
        As for `check_first_frames`.
    affine_from : str
        As for `read_header`.

    Returns
    -------
    first_frame.Findings

    Raises
    ------
    CtpprepError
        When the series cannot be a CT of a head in HU.
    """
    import nibabel as nb
    import numpy as np

    from ctpprep.perfusion.first_frame import check_axes, check_frame, coarse_frame

    image, _ = keep_open(open_nifti(path), path)
    place_image(image, affine_from)
    image = straighten(image)
    try:
        frames = [
            np.asanyarray(image.dataobj[(slice(None),) * 3 + index]) for index in _first_two(image)
        ]
    except damage() as error:
        raise SeriesError(f'the file is damaged ({error}); copy or convert it again') from error
    frames = [frame.reshape(image.shape[:3]) for frame in frames]
    size = tuple(float(length) for length in nb.affines.voxel_sizes(image.affine))
    coarse = [coarse_frame(frame, size)[0] for frame in frames]
    check_axes(*coarse)
    return check_frame(frames[0], size, bone_hu=bone_hu)


def _first_two(image: Any) -> list[Any]:
    """Index the first two frames; further dimensions have a size of 1."""
    return [(frame, *[0] * (image.ndim - 4)) for frame in range(2)]
