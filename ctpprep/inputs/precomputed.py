# SPDX-License-Identifier: Apache-2.0
"""Perfusion maps made elsewhere, found and validated: the entry without a CT perfusion series.

`find_maps` returns one `PrecomputedMaps` for each set of maps that can be used and one `FailedSeries`,
with the reason, for each that cannot; `add_companions` adds the masks and the baseline CT that go
with them. Only headers and sidecars are read here; units and values are checked in the graph.
"""

import logging
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ctpprep.exceptions import SeriesError
from ctpprep.inputs.dataset import (
    DatasetIndex,
    FailedSeries,
    InputFile,
    check_name,
    fail,
    refuse_duplicates,
    workflow_name,
)
from ctpprep.io.bids import NIFTI, bids_uri, entities, read_sidecar, session_dir
from ctpprep.io.headers import check_complete, check_geometry, open_nifti

logger = logging.getLogger(__name__)

# suffixes of the maps; of a set, CBF (or relative CBF) and Tmax are needed
MAPS = ('cbf', 'rcbf', 'cbv', 'mtt', 'tmax', 'ttp')
FOLDERS = ('ct', 'perf', 'perfusion-maps')
PATTERNS = '*_tmax.nii.gz with *_cbf.nii.gz or *_rcbf.nii.gz'
# labels that make a map another one than that of a patient's tissue in a patient's space
NOT_MAPS = {'desc', 'label', 'seg', 'from', 'atlas', 'cohort'}
TEMPLATES = ('MNI', 'ICBM', 'Talairach', 'tpl')
# affines that place the corners of an image closer than this are the same, mm
SAME_MM = 0.01
MASKS = {'brain_mask': 'desc-brain_mask', 'tissue_mask': 'desc-tissue_mask'}
# images whose mirror image can be registered, the better ones first; the last but one is ours, too
REFERENCES = {'ctpref': ('desc-hmc_ctpref', 'ctpref'), 'ncct': ('desc-baseline_ctpref', 'ncct')}
# folders of the raw data beside a folder `derivatives`, as in ISLES'24
RAW_FOLDERS = ('raw_data', 'rawdata')


@dataclass(frozen=True)
class PrecomputedMaps:
    """Perfusion maps of one scan that can be processed.

    Attributes
    ----------
    prefix : str
        Start of the outputs' names, such as 'sub-01_ses-1'; a label ``space-`` is left out.
    participant, session : str, str or None
        Labels without 'sub-' and 'ses-'.
    out_subdir : str
        Folder of its derivatives, such as 'sub-01/ses-1/ct'.
    space : str
        Label of the space of the maps; '' if their names have none.
    maps : dict of str to InputFile
        By quantity: ``tmax``, ``cbf`` or ``rcbf``, perhaps ``cbv``, ``mtt``, ``ttp``.
    units : dict of str to str
        Unit of each map as its sidecar states it; '' if it does not.
    reference : InputFile or None
        Image of densities whose mirror image is registered.
    reference_kind : {'ctpref', 'ncct', ''}
        Mean image of a series before contrast, or a non-contrast CT.
    masks : dict of str to InputFile
        ``brain_mask`` and ``tissue_mask``, if they are there.
    n_voxels : int
        Of each map.
    """

    prefix: str
    participant: str
    session: str | None
    out_subdir: str
    space: str
    maps: dict[str, InputFile]
    units: dict[str, str]
    reference: InputFile | None = None
    reference_kind: str = ''
    masks: dict[str, InputFile] = field(default_factory=dict)
    n_voxels: int = 0

    @property
    def workflow_name(self) -> str:
        """Name of the workflow, such as 'sub_01_ses_1_wf'."""
        return workflow_name(self.prefix)

    @property
    def relative(self) -> bool:
        """Whether CBF is known relative to a reference only."""
        return 'cbf' not in self.maps

    @property
    def flow(self) -> str:
        """Name of the map of flow that is used, 'cbf' or 'rcbf'."""
        return 'rcbf' if self.relative else 'cbf'

    @property
    def overrides(self) -> dict[str, InputFile]:
        """Everything that is read, by what it is."""
        reference = {self.reference_kind: self.reference} if self.reference else {}
        return self.maps | self.masks | reference


def find_maps(
    index: DatasetIndex, sessions: Sequence[Path] | None = None, *, beside_series: bool = False
) -> list[PrecomputedMaps | FailedSeries]:
    """Find and validate the sets of perfusion maps of a dataset.

    Parameters
    ----------
    index : DatasetIndex
    sessions : sequence of Path, optional
        Folders of the sessions to look at, as `session_dir` returns them; all by default.
    beside_series : bool
        Whether there are series, too: CBF alone, as of another modality, is then left out and has
        not failed.

    Returns
    -------
    list of PrecomputedMaps and FailedSeries
        In the order of their names.
    """
    found: list[PrecomputedMaps | FailedSeries] = []
    for prefix, spaces in sorted(_by_prefix(map_images(index)).items()):
        paths = next(iter(spaces.values()))
        one = next(iter(paths.values()))[0]
        if sessions is not None and session_dir(one, index.bids_dir) not in sessions:
            continue
        if beside_series and not any(names.keys() & _OF_A_BOLUS for names in spaces.values()):
            logger.info(
                '%s has no map of a bolus beside %s and is left out', prefix,
                one.relative_to(index.bids_dir),
            )  # fmt: skip
            continue
        try:
            space = _choose_space(prefix, spaces)
            found.append(_read_maps(prefix, space, spaces[space], index))
        except SeriesError as error:
            found.append(fail(prefix, one, index.bids_dir, error))
    return found


def map_images(index: DatasetIndex) -> list[Path]:
    """List the images that are perfusion maps by name and folder."""
    images = index.select('maps', [path for name in MAPS for path in index.images(suffix=name)])
    homes = {path: session_dir(path, index.bids_dir) for path in images}
    return [
        path
        for path in images
        if not NOT_MAPS & entities(path).keys()
        and (path.parent == homes[path] or path.parent.name in FOLDERS)
    ]


def _by_prefix(images: list[Path]) -> dict[str, dict[str, dict[str, list[Path]]]]:
    """Group maps by the prefix of their outputs, their space, and their quantity."""
    groups: dict[str, Any] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for path in images:
        labels = entities(path)
        name, space = labels.pop('suffix'), labels.pop('space', '')
        prefix = '_'.join(f'{key}-{value}' for key, value in labels.items())
        groups[prefix][space][name].append(path)
    # a lone CBV or MTT belongs to something else
    return {
        prefix: kept
        for prefix, spaces in groups.items()
        if (kept := {s: names for s, names in spaces.items() if names.keys() & _NEEDED})
    }


_NEEDED = {'tmax', 'cbf', 'rcbf'}
# maps that only a bolus gives: beside them, CBF is not that of another modality
_OF_A_BOLUS = {'tmax', 'cbv', 'mtt', 'ttp'}


def _choose_space(prefix: str, spaces: dict[str, dict[str, list[Path]]]) -> str:
    """Choose the space of a set: without a label first, and one that has all that is needed."""
    full = [s for s, names in sorted(spaces.items()) if 'tmax' in names and len(names) > 1]
    chosen = next(iter(full or sorted(spaces)))
    if len(spaces) > 1:
        others = ', '.join(each or 'none' for each in sorted(spaces) if each != chosen)
        logger.info(
            '%s: maps of space %s are processed, not those of %s', prefix, chosen or 'none', others
        )
    return chosen


def _read_maps(
    prefix: str, space: str, paths: dict[str, list[Path]], index: DatasetIndex
) -> PrecomputedMaps:
    """Read and validate one set of maps."""
    for each in paths.values():
        refuse_duplicates(each, index.bids_dir)
    files = {name: each[0] for name, each in paths.items()}
    one = next(iter(files.values()))
    home = check_name(prefix, one, index.bids_dir)
    if space.startswith(TEMPLATES):
        raise SeriesError(
            f'{one.relative_to(index.bids_dir)} is in the space of a template ({space}), where '
            'volumes are not those of the patient; maps in the space of the patient are needed'
        )
    for wanted, words in ((('tmax',), 'Tmax'), (('cbf', 'rcbf'), 'CBF')):
        if not set(wanted) & files.keys():
            held = ', '.join(str(path.relative_to(index.bids_dir)) for path in files.values())
            names = ' or '.join(f'{prefix}_{each}.nii.gz' for each in wanted)
            raise SeriesError(f'{prefix} has no map of {words} ({names}); found: {held}')
    if 'cbf' in files:  # what a reference makes of it is ours to say
        files.pop('rcbf', None)
    units: dict[str, str] = {}
    grids: dict[str, Grid] = {}
    for name in MAPS:
        if name not in files:
            continue
        path = files[name]
        try:
            sidecar = read_sidecar(path, index.sidecars)
            units[name] = str(sidecar.get('Units', '') or '')
            grids[name] = read_grid(path, stated=bool(units[name]))
        except SeriesError as error:
            raise type(error)(f'{path.relative_to(index.bids_dir)}: {error}') from error
    for name, grid in grids.items():
        if not same_grid(grid, grids['tmax']):
            raise SeriesError(
                f'{files[name].name} has another grid than {files["tmax"].name}: '
                f'{describe_grid(grid)}, and {describe_grid(grids["tmax"])}; resample the maps '
                'to one grid'
            )
    labels = entities(one)
    return PrecomputedMaps(
        prefix=prefix,
        participant=labels['sub'],
        session=labels.get('ses'),
        out_subdir=(home.relative_to(index.bids_dir) / 'ct').as_posix(),
        space=space,
        maps={
            name: InputFile(path, bids_uri('raw', path.relative_to(index.bids_dir)))
            for name, path in ((name, files[name]) for name in MAPS if name in files)
        },
        units=units,
        n_voxels=math.prod(grids['tmax'][0]),
    )


# -- grids

Grid = tuple[tuple[int, ...], Any]


def read_grid(path: Path, stated: bool) -> Grid:
    """Check the header of a map and read its grid.

    Parameters
    ----------
    path : Path
        NIfTI file.
    stated : bool
        Whether its unit is stated: grey levels of 8 bits pass for numbers only then.

    Returns
    -------
    shape : tuple of int
        (X, Y, Z), axes to the right, front and top.
    affine : (4, 4) array
        mm.

    Raises
    ------
    SeriesError
        When the file is damaged, is no 3D image of numbers, or lies askew.
    """
    import nibabel as nb

    image = open_nifti(path)
    if len(image.shape) != 3:
        shape = ' x '.join(map(str, image.shape))
        raise SeriesError(f'{len(image.shape)}D ({shape}); a 3D map is needed')
    kind = image.get_data_dtype()
    if kind.kind == 'V':
        raise SeriesError(
            'a picture in colours (RGB); numbers in units are needed, export the map itself'
        )
    if kind.kind not in 'iuf':
        raise SeriesError(f'voxels of type {kind}; real numbers are needed')
    if kind.kind in 'iu' and kind.itemsize == 1 and not stated:
        raise SeriesError(
            'grey levels of 8 bits without a unit; numbers in units are needed, export the map '
            'itself or state its Units in the sidecar'
        )
    check_complete(path, image)
    check_geometry(image)
    order = nb.io_orientation(image.affine)
    sizes = dict(zip(order[:, 0].astype(int).tolist(), image.shape, strict=True))
    affine = image.affine @ nb.orientations.inv_ornt_aff(order, image.shape)
    return tuple(sizes[axis] for axis in range(3)), affine


def same_grid(one: Grid, two: Grid) -> bool:
    """Tell whether two grids have the same voxels, within a hundredth of a millimetre."""
    import numpy as np

    corners = np.array([[x, y, z, 1] for x in (0, 1) for y in (0, 1) for z in (0, 1)], dtype=float)
    corners[:, :3] *= one[0]
    apart = (np.asarray(one[1]) - np.asarray(two[1])) @ corners.T
    return one[0] == two[0] and float(abs(apart).max()) < SAME_MM


def describe_grid(grid: Grid) -> str:
    """Write a grid as '64 x 64 x 10 voxels of 3.4 x 3.4 x 8 mm from (-107, -107, -36) mm'."""
    shape, affine = grid
    sizes = [math.hypot(*column) for column in affine[:3, :3].T.tolist()]
    first = ', '.join(f'{value:.4g}' for value in affine[:3, 3].tolist())
    return (
        f'{" x ".join(map(str, shape))} voxels of {" x ".join(f"{s:.3g}" for s in sizes)} mm '
        f'from ({first}) mm'
    )


# -- what goes with the maps


def raw_beside(bids_dir: Path) -> Path | None:
    """Return the raw data beside a folder 'derivatives', as ISLES'24 has them."""
    if bids_dir.name != 'derivatives':
        return None
    folders = (bids_dir.parent / name for name in RAW_FOLDERS)
    return next((folder for folder in folders if folder.is_dir()), None)


def add_companions(maps: PrecomputedMaps, roots: Sequence[tuple[str, Path]]) -> PrecomputedMaps:
    """Add masks and the image of densities that go with a set of maps.

    Parameters
    ----------
    maps : PrecomputedMaps
        Masks that it has stay.
    roots : sequence of (str, Path)
        Datasets by their names in BIDS URIs; the first that has a file counts.

    Returns
    -------
    PrecomputedMaps
    """
    masks = {}
    for name, ending in MASKS.items():
        if file := _find_first(maps, (ending,), roots):
            masks[name] = file
    for kind, endings in REFERENCES.items():
        if maps.reference is None and (file := _find_first(maps, endings, roots)):
            maps = replace(maps, reference=file, reference_kind=kind)
    return replace(maps, masks=masks | maps.masks)


def _find_first(
    maps: PrecomputedMaps, endings: Sequence[str], roots: Sequence[tuple[str, Path]]
) -> InputFile | None:
    found = (_find(maps, ending, *where) for where in roots for ending in endings)
    return next((file for file in found if file is not None), None)


def _find(maps: PrecomputedMaps, ending: str, name: str, root: Path) -> InputFile | None:
    """Find a file of the space of some maps, of their own name or of that of their session."""
    home = Path(maps.out_subdir).parent
    folders = [root / home / folder for folder in (*FOLDERS, '')]
    stems = [f'{maps.prefix}_space-{maps.space}'] if maps.space else []
    if maps.space in ('', ending) or ending in MASKS.values():
        # `space-ncct` is the space of the NCCT itself; masks are placed by their affine
        stems.append(maps.prefix)
    if ending == 'ncct':
        session = '_'.join([f'sub-{maps.participant}', *_session_label(maps)])
        space = f'_space-{maps.space}' if maps.space else ''
        stems += [f'{session}{space}', *([session] if maps.space in ('', 'ncct') else [])]
    for stem in dict.fromkeys(stems):
        for folder in folders:
            for extension in NIFTI:
                path = folder / f'{stem}_{ending}{extension}'
                if (path.exists() or path.is_symlink()) and _in_hu(path):
                    return InputFile(path, bids_uri(name, path.relative_to(root)))
    return None


def _session_label(maps: PrecomputedMaps) -> list[str]:
    return [f'ses-{maps.session}'] if maps.session else []


def _in_hu(path: Path) -> bool:
    """Tell whether an image may be one of densities; our substitute for one says that it is not."""
    if not path.name.partition('.')[0].endswith('_desc-baseline_ctpref'):
        return True
    return (
        read_sidecar(path, {path.parent: sorted(path.parent.glob('*.json'))}).get('Units') == 'HU'
    )
