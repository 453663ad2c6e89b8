# SPDX-License-Identifier: Apache-2.0
"""Check the first two frames of each series, which takes a fraction of a second, before anything runs."""

import logging
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ctpprep.exceptions import SeriesError, explain
from ctpprep.inputs.labels import join_labels
from ctpprep.inputs.series import CTPSeries, FailedSeries, FoundSeries
from ctpprep.io.headers import choose_affine, open_nifti
from ctpprep.io.shear import straighten

logger = logging.getLogger(__name__)


def check_first_frames(all_series: Sequence[FoundSeries], bone_hu: float) -> list[FoundSeries]:
    """Check units, window, voxel size and axes of each series by its first two frames.

    Parameters
    ----------
    all_series : sequence of CTPSeries, PrecomputedMaps and FailedSeries
    bone_hu : float
        Density above which a voxel is bone, HU.

    Returns
    -------
    list of CTPSeries, PrecomputedMaps and FailedSeries
        In the same order; a series that cannot be a CT of a head in HU has failed. What is unusual but
        accepted is logged.
    """
    checked: list[FoundSeries] = []
    for series in all_series:
        if series.can_run and series.has_frames:
            name = series.source.uri.split(':', 2)[2]
            try:
                warn(name, _check_series(series, bone_hu))
            except Exception as error:  # also of libraries, for what no check foresees
                reason = f'{name}: {explain(error)}'
                series = FailedSeries(series.prefix, series.participant, series.session, reason)
        checked.append(series)
    return checked


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


def _check_series(series: CTPSeries, bone_hu: float) -> Any:
    return check_image(series.source.path, bone_hu, series.affine_from)


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

    image = open_nifti(path)
    choose_affine(image, affine_from)
    image = straighten(image)
    try:
        frames = [
            np.asanyarray(image.dataobj[(slice(None),) * 3 + index]) for index in _first_two(image)
        ]
    except (EOFError, OSError, zlib.error) as error:
        raise SeriesError(f'the file is damaged ({error}); copy or convert it again') from error
    frames = [frame.reshape(image.shape[:3]) for frame in frames]
    size = tuple(float(length) for length in nb.affines.voxel_sizes(image.affine))
    coarse = [coarse_frame(frame, size)[0] for frame in frames]
    check_axes(*coarse)
    return check_frame(frames[0], size, bone_hu=bone_hu)


def _first_two(image: Any) -> list[Any]:
    """Index the first two frames; further dimensions have a size of 1."""
    return [(frame, *[0] * (image.ndim - 4)) for frame in range(2)]
