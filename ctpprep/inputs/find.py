# SPDX-License-Identifier: Apache-2.0
"""Find and validate the CT perfusion series and the precomputed maps of a dataset.

`find_series` returns one `CTPSeries` or `PrecomputedMaps` for each scan that can be processed, and
one `FailedSeries`, with the reason, for each that cannot. Only headers and sidecars are read, no
voxels.
"""

import logging
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

from ctpprep.exceptions import SeriesError, UsageError, explain
from ctpprep.inputs.conformance import check_name, find_lookalike, refuse_duplicates
from ctpprep.inputs.dataset import DatasetIndex, find_unreadable, read_filters
from ctpprep.inputs.labels import join_labels
from ctpprep.inputs.precomputed import PATTERNS as MAP_PATTERNS
from ctpprep.inputs.precomputed import find_maps, map_images
from ctpprep.inputs.selection import (
    finished_participants,
    select_participants,
    select_runs,
    select_sessions,
)
from ctpprep.inputs.series import CTPSeries, FailedSeries, FoundSeries
from ctpprep.inputs.timing import read_command_times, read_series_timing
from ctpprep.io.bids import bids_uri, entities, read_sidecar, session_dir
from ctpprep.io.headers import check_volume, open_nifti, place_image
from ctpprep.io.shear import describe_shear, straighten
from ctpprep.settings import RunSettings

logger = logging.getLogger(__name__)
PATTERNS = '*_ctp.nii.gz, *_acq-ctp_ct.nii.gz'


def find_series(run: RunSettings) -> list[FoundSeries]:
    """Find and validate the CT perfusion series and the precomputed maps of a dataset.

    A session with a series is processed from the series. Precomputed maps are used where there is
    no series, or where `RunSettings.entry` requests them.

    Parameters
    ----------
    run : RunSettings
        Dataset, and the participants, sessions and runs to select.

    Returns
    -------
    list of CTPSeries, PrecomputedMaps and FailedSeries
        Sorted by name. A requested participant without a series or maps has failed. With
        `RunSettings.reports_only` all participants are requested, since outputs may outlive their
        series.

    Raises
    ------
    UsageError
        When the folder, a label or an option is wrong, or when there is neither a series nor maps
        and no participant was requested.
    """
    outputs = finished_participants(run.output_dir) if run.reports_only else []
    participants = select_participants(run.bids_dir, run.participant_label, outputs)
    command_times = read_command_times(run)
    database = run.bids_database_dir
    if run.dry_run and database is not None and not database.exists():
        database = None  # a dry run writes nothing
    unreadable = find_unreadable(run.bids_dir, participants)
    readable = [label for label in participants if label not in unreadable]
    index = DatasetIndex(run.bids_dir, readable, database, read_filters(run.bids_filter_file))
    series_paths, map_folders = _select_inputs(index, run)
    all_series: list[FoundSeries] = [
        FailedSeries(f'sub-{label}', label, None, reason) for label, reason in unreadable.items()
    ]
    strays = [path for path in series_paths if not _is_at_home(path, run.bids_dir)]
    all_series += _refuse_strays(strays, run.bids_dir)
    at_home = [path for path in series_paths if path not in strays]
    for prefix, paths in _group_by_prefix(at_home).items():
        try:
            refuse_duplicates(paths, run.bids_dir)
            all_series.append(
                _read_series(prefix, paths[0], index, command_times, run.affine_from)
            )
        except SeriesError as error:
            all_series.append(FailedSeries.from_file(prefix, paths[0], run.bids_dir, error))
        except Exception as error:  # of libraries, for what no check foresees
            reason = f'{paths[0].relative_to(run.bids_dir)}: {explain(error)}'
            all_series.append(FailedSeries.from_file(prefix, paths[0], run.bids_dir, reason))
    all_series += find_maps(
        index, map_folders, beside_series=bool(series_paths), affine_from=run.affine_from
    )
    for label in sorted(set(participants) - {series.participant for series in all_series}):
        if run.entry == 'maps' or 'ctp' in index.filters:
            break  # a series is not wanted, or whether this one would be is unknown
        lookalike = find_lookalike(run.bids_dir, label, run.session_label, run.run_label)
        if lookalike:
            all_series.append(FailedSeries(f'sub-{label}', label, None, lookalike))
    filtered = '; --bids-filter-file leaves none' if run.bids_filter_file else ''
    if not all_series and not run.participant_label and not run.reports_only:
        raise UsageError(
            f'no CT perfusion series or maps in {run.bids_dir} for '
            f'{join_labels(participants, "sub-")}; ctpprep needs {PATTERNS} in '
            'sub-<label>/[ses-<label>/] or its folders ct and perf, or precomputed maps '
            f'({MAP_PATTERNS}){filtered}'
        )
    all_series.sort(key=lambda series: series.prefix)
    without = sorted(set(participants) - {series.participant for series in all_series})
    for label in without:
        if run.participant_label or run.reports_only:
            reason = (
                f'sub-{label} has no CT perfusion series ({PATTERNS}) and no precomputed maps '
                f'({MAP_PATTERNS}){filtered}'
            )
            all_series.append(FailedSeries(f'sub-{label}', label, None, reason, absent=True))
        else:
            logger.info('sub-%s has no CT perfusion series and no maps; skipped', label)
    return all_series


def _select_inputs(index: DatasetIndex, run: RunSettings) -> tuple[list[Path], list[Path]]:
    """Select the images of series, and the folders of sessions processed from maps."""
    series_paths = _series_images(index) if run.entry != 'maps' else []
    map_paths = map_images(index) if run.entry != 'series' else []
    in_sessions = select_sessions(series_paths + map_paths, run.session_label)
    selected = set(select_runs(in_sessions, run.run_label))
    series_paths = [path for path in series_paths if path in selected]
    series_folders = {session_dir(path, run.bids_dir) for path in series_paths}
    map_folders = {session_dir(path, run.bids_dir) for path in selected.difference(series_paths)}
    for folder in sorted(series_folders & map_folders):
        logger.info(
            '%s has a series and perfusion maps; ctpprep processes the series (use --entry maps '
            'for the maps)', folder.relative_to(run.bids_dir),
        )  # fmt: skip
    return series_paths, sorted(map_folders - series_folders)


def _is_at_home(path: Path, bids_dir: Path) -> bool:
    """Return whether a file is in the folder of the participant in its name."""
    return path.relative_to(bids_dir).parts[0] == f'sub-{entities(path).get("sub", "")}'


def _refuse_strays(strays: list[Path], bids_dir: Path) -> list[FailedSeries]:
    """Describe the files in the folder of another participant, with one failure per folder.

    Its prefix is not the one of a series that may be in the folder as well.
    """
    refused: dict[str, FailedSeries] = {}
    for path in strays:
        folder = path.relative_to(bids_dir).parts[0]
        if folder in refused:
            continue
        try:
            check_name(path.name.partition('.')[0].rpartition('_')[0], path, bids_dir)
        except SeriesError as error:
            prefix = f'{folder}_misplaced'
            refused[folder] = FailedSeries.from_file(prefix, path, bids_dir, error)
    return list(refused.values())


def _series_images(index: DatasetIndex) -> list[Path]:
    images = index.images(suffix='ctp') + index.images(suffix='ct', acquisition='ctp')
    images = index.select('ctp', images)
    return [path for path in images if not {'space', 'desc'} & entities(path).keys()]


def _group_by_prefix(images: list[Path]) -> dict[str, list[Path]]:
    """Group images by the prefix of their outputs, which omits `acq-ctp` of the suffix `ct`."""
    groups = defaultdict(list)
    for path in images:
        prefix = path.name.partition('.')[0].rpartition('_')[0]
        if entities(path)['suffix'] == 'ct':
            prefix = prefix.replace('_acq-ctp', '', 1)
        groups[prefix].append(path)
    return dict(sorted(groups.items()))


def _read_series(
    prefix: str,
    path: Path,
    index: DatasetIndex,
    command_times: tuple[str, Any] | None,
    affine_from: str,
) -> CTPSeries:
    """Read and validate one series; error messages begin with the name of the file."""
    folder = check_name(prefix, path, index.bids_dir)
    name, labels = path.relative_to(index.bids_dir), entities(path)
    try:
        sidecar = read_sidecar(path, index.sidecars)
        frame_times, sample_times, source = read_series_timing(
            path, sidecar, command_times, affine_from
        )
    except SeriesError as error:
        raise type(error)(f'{name}: {error}') from error
    in_session = index.select('ncct', index.of_session(folder, suffix='ncct'))
    same_name = [image for image in in_session if image.name.startswith(f'{prefix}_ncct')]
    ncct = next(iter(same_name + in_session), None)
    if ncct is not None:
        check_volume(ncct, 'non-contrast CT', affine_from, whole=False)  # it is large
    image = open_nifti(path)
    place_image(image, affine_from)
    for note in describe_shear(image.affine).values():
        logger.info('%s: %s', name, note)
    image = straighten(image)
    return CTPSeries(
        path=path,
        prefix=prefix,
        participant=labels['sub'],
        session=labels.get('ses'),
        out_subdir=(folder.relative_to(index.bids_dir) / 'ct').as_posix(),
        uri=bids_uri('raw', name),
        frame_times=frame_times,
        sample_times=sample_times,
        timing_source=source,
        sidecar=sidecar,
        ncct=ncct,
        shape=image.shape[:3],
        voxel_size_mm=tuple(math.hypot(*column) for column in image.affine[:3, :3].T.tolist()),
        affine_from=affine_from,
    )
