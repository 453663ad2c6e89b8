# SPDX-License-Identifier: Apache-2.0
"""The masks and regions of a cohort in template space: found, read, and written as maps."""

import json
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ctpprep.exceptions import SeriesError
from ctpprep.group.locations import LESIONS, SHARES, Locations, Test, enlarge
from ctpprep.group.tsv import MISSING, parse_number, read_table
from ctpprep.io.files import write_atomically, write_json

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

#: Masks that are read of every series, by the ending of their files.
MASKS = {
    'brain': 'desc-brain_mask',
    'core_global': 'label-core_desc-global_mask',
    'core_local': 'label-core_desc-local_mask',
    'hypoperfusion': 'label-hypoperfusion_mask',
}
REGIONS = '_desc-regions_morph.tsv'
#: Folder of the maps.
FOLDER = 'group_maps'
#: Words of a map in file names: of LESIONS, and of the tests.
LABELS = {
    'core_global': 'label-core_desc-global', 'core_local': 'label-core_desc-local',
    'removed': 'label-core_desc-removed', 'added': 'label-core_desc-added',
    'hypoperfusion': 'label-hypoperfusion', 'core': 'label-core',
}  # fmt: skip


@dataclass
class Found:
    """Series with masks in one template space.

    Attributes
    ----------
    space : str
        Entities of the space, such as ``space-MNI152NLin2009aSym_res-2``.
    folders : list of Path
    prefixes, participants, groups, sides : list of str
        Of every series; the side is the affected one, '' if both were asked for or it is not known.
    notes : list of str
    """

    space: str
    folders: list[Path]
    prefixes: list[str]
    participants: list[str]
    groups: list[str]
    sides: list[str]
    notes: list[str]


def find_masks(output_dir: Path, series: 'pd.DataFrame', sides: dict[str, str]) -> Found | None:
    """Find the series of a cohort that have masks in template space.

    Parameters
    ----------
    output_dir : Path
    series : DataFrame
        The included series: ``participant_id``, ``session_id``, ``series`` and ``group``.
    sides : dict of str to str
        Affected side by series.

    Returns
    -------
    Found or None
        Of the space that most series have, of several the one that the participant level named first;
        None if no series has any.
    """
    complete: dict[str, list[tuple[dict[str, Any], Path]]] = {}
    for row in series.to_dict('records'):
        folder = output_dir / row['participant_id']
        if row['session_id'] != MISSING:
            folder /= row['session_id']
        folder /= 'ct'
        for space in _list_spaces(folder, row['series']):
            complete.setdefault(space, []).append((row, folder))
    if not complete:
        return None
    counts = {space: len(rows) for space, rows in complete.items()}
    most = sorted(name for name, count in counts.items() if count == max(counts.values()))
    space = most[0] if len(most) == 1 else _choose_first(most, *complete[most[0]][0])
    # the series of a participant are averaged, so they must follow each other
    rows = sorted(complete[space], key=lambda item: item[0]['participant_id'])
    notes = [
        f'{len(rows)} of {len(series)} series have cores by both normalizations in {space.split("_")[0]}'
    ]
    notes += [
        f'{n} series in {other} are not shown' for other, n in counts.items() if other != space
    ]
    return Found(
        space, [folder for _, folder in rows], [row['series'] for row, _ in rows],
        [row['participant_id'] for row, _ in rows], [row['group'] for row, _ in rows],
        [sides.get(row['series'], '') for row, _ in rows], notes,
    )  # fmt: skip


def _choose_first(spaces: Sequence[str], row: dict[str, Any], folder: Path) -> str:
    """Choose the space whose grid the table of regions of a series names, else the first by name."""
    try:
        sidecar = json.loads(
            (folder / f'{row["series"]}{REGIONS}').with_suffix('.json').read_text()
        )
        (spec,) = sidecar['Settings']['template']['output_spaces']
        name = f'space-{spec.replace(":", "_")}'
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.debug('the first space of %s is not known (%s)', row['series'], error)
        return spaces[0]
    return name if name in spaces else spaces[0]


def _list_spaces(folder: Path, prefix: str) -> list[str]:
    """List the spaces in which a series has all masks."""
    ending = f'_{MASKS["core_local"]}.nii.gz'
    spaces = [
        path.name.removeprefix(f'{prefix}_').removesuffix(ending)
        for path in folder.glob(f'{prefix}_space-*_res-*{ending}')
    ]
    return sorted(
        space
        for space in spaces
        if all((folder / f'{prefix}_{space}_{name}.nii.gz').is_file() for name in MASKS.values())
    )


def read_masks(masks: Found, flip_left: bool) -> Iterator[tuple[str, str, dict[str, np.ndarray]]]:
    """Read the masks of every series, one at a time.

    Parameters
    ----------
    masks : Found
    flip_left : bool
        Whether masks of series whose affected side is the left are flipped to the right.

    Yields
    ------
    participant, group : str
    masks : dict of str to (X, Y, Z) array of bool
        Keys of `MASKS`. Series that cannot be read, or whose grid differs from that of the first, are
        skipped and logged.
    """
    from nibabel import load
    from nibabel.filebasedimages import ImageFileError

    shape = None
    for folder, prefix, participant, group, side in zip(
        masks.folders, masks.prefixes, masks.participants, masks.groups, masks.sides, strict=True
    ):
        arrays = {}
        try:
            for name, ending in MASKS.items():
                image: Any = load(folder / f'{prefix}_{masks.space}_{ending}.nii.gz')
                arrays[name] = np.asanyarray(image.dataobj) > 0
        except (OSError, ValueError, EOFError, ImageFileError) as error:
            logger.warning('%s: its masks in template space cannot be read (%s)', prefix, error)
            continue
        shape = shape or arrays['brain'].shape
        if any(array.shape != shape for array in arrays.values()):
            logger.warning('%s: its masks in template space have another grid; skipped', prefix)
            continue
        if flip_left and side == 'left':
            arrays = {name: array[::-1] for name, array in arrays.items()}
        yield participant, group, arrays


def read_affine(masks: Found) -> np.ndarray:
    """Read the affine of the template."""
    import nibabel as nb

    name = f'{masks.prefixes[0]}_{masks.space}_{MASKS["brain"]}.nii.gz'
    image: Any = nb.load(masks.folders[0] / name)
    return np.asarray(image.affine)


def is_mirrored(affine: np.ndarray, shape: Sequence[int]) -> bool:
    """Return whether reversing the first axis of a grid is a reflection about x = 0.

    Examples
    --------
    >>> affine = np.diag([2.0, 2, 2, 1])
    >>> affine[0, 3] = -2
    >>> is_mirrored(affine, (3, 4, 4)), is_mirrored(affine, (4, 4, 4))
    (True, False)
    """
    ends = affine[0, 3] + np.array([0.0, affine[0, 0] * (shape[0] - 1)])
    return bool(abs(ends.sum()) < 0.1 * abs(affine[0, 0]))


def read_regions(masks: Found) -> tuple[dict[str, np.ndarray], list[str]]:
    """Read the volumes of every lesion in every region.

    Parameters
    ----------
    masks : Found

    Returns
    -------
    volumes : dict of str to (N, R) array
        Of `locations.SHARES`, mL; NaN where they are missing.
    regions : list of str
        Those of the first table; series with others have NaN.
    """
    regions: list[str] = []
    tables: list[dict[tuple[str, str], float]] = []
    for folder, prefix in zip(masks.folders, masks.prefixes, strict=True):
        of_series: dict[tuple[str, str], float] = {}
        try:
            table = read_table(folder / f'{prefix}{REGIONS}')
            index = table.column_indices()
            for cells in table.rows:
                if cells[index['hemisphere']] == 'both':
                    for name in SHARES:
                        key = (cells[index['region']], name)
                        volume = parse_number(cells[index[f'{name}_ml']])
                        of_series[key] = of_series.get(key, 0.0) + volume
        except (SeriesError, KeyError) as error:
            logger.warning('%s: its table of regions cannot be read (%s)', prefix, error)
        regions = regions or list(dict.fromkeys(region for region, _ in of_series))
        tables.append(of_series)
    volumes = {
        name: np.array(
            [[one.get((region, name), np.nan) for region in regions] for one in tables]
        ).reshape(len(tables), len(regions))
        for name in SHARES
    }
    return volumes, regions


def write_maps(
    output_dir: Path, masks: Found, locations: Locations, tests: Sequence[Test], affine: np.ndarray
) -> Path:
    """Write frequency maps of every group, and difference and p value of every test.

    Parameters
    ----------
    output_dir : Path
    masks : Found
    locations : Locations
    tests : sequence of Test
    affine : (4, 4) array

    Returns
    -------
    Path
        The folder `group_maps` of NIfTI files with sidecars; files of earlier calls are removed.
    """
    import nibabel as nb

    folder = output_dir / FOLDER
    folder.mkdir(exist_ok=True)
    paths: list[Path] = []

    def write(name: str, values: np.ndarray, sidecar: dict[str, Any]) -> None:
        image = nb.Nifti1Image(np.asarray(values, np.float32), affine)
        image.set_sform(affine, code='mni')
        image.set_qform(affine, code='mni')
        path = folder / f'{name}.nii.gz'
        write_atomically(lambda partial: nb.save(image, partial), path)
        write_json(sidecar, folder / f'{name}.json')
        paths.append(path)

    slugs = _unique_slugs([*locations.sums, *(test.group or test.name for test in tests)])
    for group, sums in locations.sums.items():
        for lesion in LESIONS:
            write(
                f'group-{slugs[group]}_{masks.space}_{LABELS[lesion]}_frequency',
                sums.frequency(lesion),
                {'Description': f'share of the participants whose slab contains the voxel with {lesion} '
                 'there; the series of a participant are averaged',
                 'Units': '1', 'Group': group, 'N': sums.n, 'NSeries': sums.n_series},
            )  # fmt: skip
    shape = locations.sums['all'].covered.shape
    for test in tests:
        slug = slugs[test.group or test.name]
        name = f'group-{slug}_{masks.space}_{LABELS[test.lesion]}'
        facts = {
            'Comparison': test.name,
            'Group': test.group,
            'N': test.n,
            'Unit': 'participant; the series of a participant are averaged',
            'BlocksTested': test.n_tested,
        }
        for kind, values, text, unit in (
            ('difference', test.difference, 'difference of frequencies', '1'),
            (
                'p',
                1 - test.p,
                '1 - p, two-sided, family-wise error controlled over blocks of 8 mm',
                '1',
            ),
        ):
            contrast = 'localMinusGlobal' if test.lesion == 'core' else 'groups'
            sidecar = {'Description': text, 'Units': unit} | facts
            write(
                f'{name}_contrast-{contrast}_{kind}',
                enlarge(values, locations.blocks, shape),
                sidecar,
            )
    for stale in folder.glob('group-*'):
        if stale.suffix in ('.gz', '.json') and not any(
            stale.name.startswith(path.name.removesuffix('.nii.gz') + '.') for path in paths
        ):
            stale.unlink()
    return folder


def _unique_slugs(groups: Iterable[str]) -> dict[str, str]:
    """Turn groups into different labels of file names.

    Examples
    --------
    >>> _unique_slugs(['<70', '>=70'])
    {'<70': '70', '>=70': '70x2'}
    """
    slugs: dict[str, str] = {}
    for group in groups:
        slug = _slug(group)
        count = sum(other == slug or other.startswith(f'{slug}x') for other in slugs.values())
        slugs.setdefault(group, f'{slug}x{count + 1}' if count else slug)
    return slugs


def _slug(group: str) -> str:
    """Turn a group into a label of a file name.

    Examples
    --------
    >>> _slug('no microangiopathy'), _slug('a - b')
    ('noMicroangiopathy', 'aMinusB')
    """
    words = re.split(r'[^A-Za-z0-9]+', group.replace(' - ', ' minus '))
    first, *others = [word for word in words if word] or ['unnamed']
    return first + ''.join(word[:1].upper() + word[1:] for word in others)
