# SPDX-License-Identifier: Apache-2.0
"""Find and validate precomputed perfusion maps, the input without a CT perfusion series.

`find_maps` returns one `PrecomputedMaps` for each set of maps that can be processed and one
`FailedSeries`, with the reason, for each that cannot. Only headers and sidecars are read; the
workflow checks units and values.
"""

import logging
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ctpprep.exceptions import SeriesError, explain
from ctpprep.inputs.conformance import check_name, refuse_duplicates
from ctpprep.inputs.dataset import DatasetIndex
from ctpprep.inputs.grids import Grid, describe_grid, read_grid, same_grid
from ctpprep.inputs.series import FailedSeries, InputFile, PrecomputedMaps
from ctpprep.io.bids import bids_uri, entities, read_sidecar, session_dir

logger = logging.getLogger(__name__)

# suffixes of the maps; a set needs CBF (or relative CBF) and Tmax
MAPS = ('cbf', 'rcbf', 'cbv', 'mtt', 'tmax', 'ttp')
# a CBV or MTT without one of these belongs to another analysis
NEEDED = {'tmax', 'cbf', 'rcbf'}
# maps that require a contrast bolus: beside them, CBF is not that of another modality
BOLUS_MAPS = {'tmax', 'cbv', 'mtt', 'ttp'}
FOLDERS = ('ct', 'perf', 'perfusion-maps')
PATTERNS = '*_tmax.nii.gz with *_cbf.nii.gz or *_rcbf.nii.gz'
# entities of images that are not a map of the patient's tissue in the patient's space
OTHER_ENTITIES = {'desc', 'label', 'seg', 'from', 'atlas', 'cohort'}
TEMPLATES = ('MNI', 'ICBM', 'Talairach', 'tpl')


def find_maps(
    index: DatasetIndex,
    sessions: Sequence[Path] | None = None,
    *,
    beside_series: bool = False,
    affine_from: str = 'agree',
) -> list[PrecomputedMaps | FailedSeries]:
    """Find and validate the sets of perfusion maps of a dataset.

    Parameters
    ----------
    index : DatasetIndex
    sessions : sequence of Path, optional
        Folders of the sessions to search, as `session_dir` returns them; all by default.
    beside_series : bool
        Whether the dataset also has series. CBF alone, as from another modality, is then skipped
        instead of failing.
    affine_from : str
        As for `headers.place_image`.

    Returns
    -------
    list of PrecomputedMaps and FailedSeries
        Sorted by name.
    """
    map_sets: list[PrecomputedMaps | FailedSeries] = []
    for prefix, spaces in sorted(_group_by_prefix(map_images(index)).items()):
        paths = next(iter(spaces.values()))
        first = next(iter(paths.values()))[0]
        if sessions is not None and session_dir(first, index.bids_dir) not in sessions:
            continue
        if beside_series and not any(maps.keys() & BOLUS_MAPS for maps in spaces.values()):
            logger.info(
                '%s: skipped %s; it has no Tmax, CBV, MTT or TTP beside it, so it may come from '
                'another modality', prefix, first.relative_to(index.bids_dir),
            )  # fmt: skip
            continue
        try:
            space = _choose_space(prefix, spaces)
            map_sets.append(_read_maps(prefix, space, spaces[space], index, affine_from))
        except SeriesError as error:
            map_sets.append(FailedSeries.from_file(prefix, first, index.bids_dir, error))
        except Exception as error:  # of libraries, for what no check foresees
            reason = f'{first.relative_to(index.bids_dir)}: {explain(error)}'
            map_sets.append(FailedSeries.from_file(prefix, first, index.bids_dir, reason))
    return map_sets


def map_images(index: DatasetIndex) -> list[Path]:
    """List the images that are perfusion maps by name and folder."""
    images = index.select('maps', [path for name in MAPS for path in index.images(suffix=name)])
    return [
        path
        for path in images
        if not OTHER_ENTITIES & entities(path).keys()
        and (path.parent == session_dir(path, index.bids_dir) or path.parent.name in FOLDERS)
    ]


def _group_by_prefix(images: list[Path]) -> dict[str, dict[str, dict[str, list[Path]]]]:
    """Group maps by the prefix of their outputs, their space, and their quantity."""
    groups: dict[str, Any] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for path in images:
        labels = entities(path)
        quantity, space = labels.pop('suffix'), labels.pop('space', '')
        prefix = '_'.join(f'{key}-{value}' for key, value in labels.items())
        groups[prefix][space][quantity].append(path)
    usable = {
        prefix: {space: maps for space, maps in spaces.items() if maps.keys() & NEEDED}
        for prefix, spaces in groups.items()
    }
    return {prefix: spaces for prefix, spaces in usable.items() if spaces}


def _choose_space(prefix: str, spaces: dict[str, dict[str, list[Path]]]) -> str:
    """Choose the space of a set: one with all needed maps, and without a label if possible."""
    complete = [
        space for space, maps in sorted(spaces.items()) if 'tmax' in maps and len(maps) > 1
    ]
    chosen = next(iter(complete or sorted(spaces)))
    if len(spaces) > 1:
        others = ', '.join(space or 'none' for space in sorted(spaces) if space != chosen)
        logger.info(
            '%s: maps exist in several spaces; using space %s, not %s',
            prefix, chosen or 'none', others,
        )  # fmt: skip
    return chosen


def _read_maps(
    prefix: str,
    space: str,
    paths: dict[str, list[Path]],
    index: DatasetIndex,
    affine_from: str,
) -> PrecomputedMaps:
    """Read and validate one set of maps."""
    for duplicates in paths.values():
        refuse_duplicates(duplicates, index.bids_dir)
    files = {quantity: duplicates[0] for quantity, duplicates in paths.items()}
    first = next(iter(files.values()))
    folder = check_name(prefix, first, index.bids_dir)
    if space.startswith(TEMPLATES):
        raise SeriesError(
            f'{first.relative_to(index.bids_dir)} is in the template space {space}, where volumes '
            'differ from those of the patient; provide maps in the space of the patient'
        )
    _check_needed(prefix, files, index.bids_dir)
    if 'cbf' in files:  # ctpprep normalizes CBF itself
        files.pop('rcbf', None)
    files = {quantity: files[quantity] for quantity in MAPS if quantity in files}
    units, n_voxels = _read_headers(files, index, affine_from)
    labels = entities(first)
    return PrecomputedMaps(
        prefix=prefix,
        participant=labels['sub'],
        session=labels.get('ses'),
        out_subdir=(folder.relative_to(index.bids_dir) / 'ct').as_posix(),
        space=space,
        maps={
            quantity: InputFile(path, bids_uri('raw', path.relative_to(index.bids_dir)))
            for quantity, path in files.items()
        },
        units=units,
        n_voxels=n_voxels,
        affine_from=affine_from,
    )


def _check_needed(prefix: str, files: dict[str, Path], bids_dir: Path) -> None:
    """Raise `SeriesError` if Tmax or both maps of flow are missing."""
    for suffixes, name in ((('tmax',), 'Tmax'), (('cbf', 'rcbf'), 'CBF')):
        if not set(suffixes) & files.keys():
            actual = ', '.join(str(path.relative_to(bids_dir)) for path in files.values())
            needed = ' or '.join(f'{prefix}_{suffix}.nii.gz' for suffix in suffixes)
            raise SeriesError(f'{prefix} has no {name} map; found {actual}, need also {needed}')


def _read_headers(
    files: dict[str, Path], index: DatasetIndex, affine_from: str
) -> tuple[dict[str, str], int]:
    """Read the units of a set of maps and their number of voxels, after comparing the grids."""
    units: dict[str, str] = {}
    grids: dict[str, Grid] = {}
    for quantity, path in files.items():
        try:
            sidecar = read_sidecar(path, index.sidecars)
            units[quantity] = str(sidecar.get('Units', '') or '')
            grids[quantity] = read_grid(path, bool(units[quantity]), affine_from)
        except SeriesError as error:
            raise type(error)(f'{path.relative_to(index.bids_dir)}: {error}') from error
    for quantity, grid in grids.items():
        if not same_grid(grid, grids['tmax']):
            raise SeriesError(
                f'{files[quantity].name} and {files["tmax"].name} have different grids '
                f'({describe_grid(grid)}, and {describe_grid(grids["tmax"])}); resample the maps '
                'to one grid'
            )
    return units, math.prod(grids['tmax'][0])
