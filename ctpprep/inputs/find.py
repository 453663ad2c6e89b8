# SPDX-License-Identifier: Apache-2.0
"""One CT perfusion series, found and validated.

`find_series` looks a BIDS dataset through and returns one `CTPSeries` for each series that can be
used and one `FailedSeries`, with the reason, for each that cannot. Only headers and sidecars are
read; nothing here loads voxels.
"""

import logging
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

from ctpprep.exceptions import SeriesError, UsageError
from ctpprep.inputs.dataset import (
    DatasetIndex,
    FailedSeries,
    check_name,
    fail,
    finished_participants,
    read_filters,
    refuse_duplicates,
    select_participants,
    select_runs,
    select_sessions,
)
from ctpprep.inputs.labels import listed
from ctpprep.inputs.precomputed import PATTERNS as MAP_PATTERNS
from ctpprep.inputs.precomputed import find_maps, map_images
from ctpprep.inputs.series import CTPSeries, Series
from ctpprep.inputs.timing import read_command_times, read_times_of
from ctpprep.io.bids import bids_uri, entities, read_sidecar, session_dir
from ctpprep.io.headers import open_nifti
from ctpprep.settings import RunSettings

logger = logging.getLogger(__name__)
PATTERNS = '*_ctp.nii.gz, *_acq-ctp_ct.nii.gz'


def find_series(run: RunSettings) -> list[Series | FailedSeries]:
    """Find and validate the CT perfusion series of a dataset, and maps made elsewhere.

    A session with a series is processed from it. Perfusion maps count where there is no series, or
    where `RunSettings.entry` asks for them.

    Parameters
    ----------
    run : RunSettings
        Where to look, and which participants and sessions are wanted.

    Returns
    -------
    list of CTPSeries, PrecomputedMaps and FailedSeries
        In the order of their names. A wanted participant without any series counts as failed; with
        `RunSettings.reports_only` each is wanted, since the outputs may outlive the series.

    Raises
    ------
    UsageError
        When the folder, a label or an option is wrong, or when there is no series at all and no
        participant was named.
    """
    outputs = finished_participants(run.output_dir) if run.reports_only else []
    participants = select_participants(run.bids_dir, run.participant_label, outputs)
    command_times = read_command_times(run)
    database = run.bids_database_dir
    if run.dry_run and database is not None and not database.exists():
        database = None  # nothing is written
    index = DatasetIndex(run.bids_dir, participants, database, read_filters(run.bids_filter_file))
    images = _series_images(index) if run.entry != 'maps' else []
    maps = map_images(index) if run.entry != 'series' else []
    named = select_sessions(images + maps, run.session_label)
    chosen = set(select_runs(named, run.run_label))
    images = [path for path in images if path in chosen]
    having_series = {session_dir(path, run.bids_dir) for path in images}
    having_maps = {session_dir(path, run.bids_dir) for path in chosen.difference(images)}
    for home in sorted(having_series & having_maps):
        logger.info(
            '%s has a series and perfusion maps: the series is processed; --entry maps takes the '
            'maps', home.relative_to(run.bids_dir),
        )  # fmt: skip
    found: list[Series | FailedSeries] = []
    for prefix, paths in _by_prefix(images).items():
        try:
            refuse_duplicates(paths, run.bids_dir)
            found.append(_read_series(prefix, paths[0], index, command_times))
        except SeriesError as error:
            found.append(fail(prefix, paths[0], run.bids_dir, error))
    found += find_maps(index, sorted(having_maps - having_series), beside_series=bool(images))
    if not found and not run.participant_label and not run.reports_only:
        raise UsageError(
            f'no CT perfusion series in {run.bids_dir} for {listed(participants, "sub-")}; '
            f'looked for {PATTERNS} in sub-<label>/[ses-<label>/] and its folders ct and perf, '
            f'and for maps made elsewhere ({MAP_PATTERNS})'
            + ('; --bids-filter-file leaves none' if run.bids_filter_file else '')
        )
    found.sort(key=lambda each: each.prefix)
    having = {each.participant for each in found}
    for label in sorted(set(participants) - having):
        if run.participant_label or run.reports_only:
            found.append(
                FailedSeries(
                    f'sub-{label}',
                    label,
                    None,
                    f'sub-{label} has no CT perfusion series ({PATTERNS}) and no maps '
                    f'({MAP_PATTERNS})'
                    + ('; --bids-filter-file leaves none' if run.bids_filter_file else ''),
                    absent=True,
                )
            )
        else:
            logger.info('sub-%s has no CT perfusion series and is left out', label)
    return found


def _series_images(index: DatasetIndex) -> list[Path]:
    images = index.images(suffix='ctp') + index.images(suffix='ct', acquisition='ctp')
    images = index.select('ctp', images)
    return [path for path in images if not {'space', 'desc'} & entities(path).keys()]


def _by_prefix(images: list[Path]) -> dict[str, list[Path]]:
    """Group images by the prefix their outputs will have; `acq-ctp` only tells the modality."""
    groups = defaultdict(list)
    for path in images:
        prefix = path.name.partition('.')[0].rpartition('_')[0]
        if entities(path)['suffix'] == 'ct':
            prefix = prefix.replace('_acq-ctp', '', 1)
        groups[prefix].append(path)
    return dict(sorted(groups.items()))


def _read_series(
    prefix: str, path: Path, index: DatasetIndex, command_times: tuple[str, Any] | None
) -> CTPSeries:
    """Read and validate one series; the file's name leads every message."""
    home = check_name(prefix, path, index.bids_dir)
    name, labels = path.relative_to(index.bids_dir), entities(path)
    try:
        sidecar = read_sidecar(path, index.sidecars)
        frame_times, sample_times, source = read_times_of(path, sidecar, command_times)
    except SeriesError as error:
        raise type(error)(f'{name}: {error}') from error
    if source == 'pixdim[4]' and frame_times[1] == 1:
        logger.warning(
            '%s: the frame interval of 1 s stands in the NIfTI header only, where 1 may just be a '
            'filler; give --frame-interval if it is another',
            name,
        )
    same_session = index.select('ncct', index.of_session(home, suffix='ncct'))
    same_name = [each for each in same_session if each.name.startswith(f'{prefix}_ncct')]
    image = open_nifti(path)
    return CTPSeries(
        path=path,
        prefix=prefix,
        participant=labels['sub'],
        session=labels.get('ses'),
        out_subdir=(home.relative_to(index.bids_dir) / 'ct').as_posix(),
        uri=bids_uri('raw', name),
        frame_times=frame_times,
        sample_times=sample_times,
        timing_source=source,
        sidecar=sidecar,
        ncct=next(iter(same_name + same_session), None),
        shape=image.shape[:3],
        voxel_size_mm=tuple(math.hypot(*column) for column in image.affine[:3, :3].T.tolist()),
    )
