# SPDX-License-Identifier: Apache-2.0
"""Templates that are on this machine: the one that nilearn brings, and those of TemplateFlow.

Nothing is downloaded, and TemplateFlow's client, which indexes its archive when imported, is not used.
"""

import csv
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nb
import numpy as np
from scipy import ndimage

from ctpprep.exceptions import SeriesError, UsageError
from ctpprep.io import nifti
from ctpprep.io.files import read_text
from ctpprep.settings import USERS_TEMPLATES

#: ICBM 2009a nonlinear symmetric, as tissue probabilities in nilearn.
BUNDLED = 'MNI152NLin2009aSym'
SPEC = re.compile(r'(?P<space>[A-Za-z0-9]+)(?P<resolutions>(?::res-0?[1-9])*)')
#: Resolution of a space that states none.
RESOLUTION = 2
#: Entities by which the name of an atlas states its space.
NAMED_SPACE = re.compile(r'(?:^|_)(?:tpl|space)-([A-Za-z0-9]+)(?=_)')
#: Voxels of the bundled template are 1 mm; of every second one, the neighbours are averaged.
HALVING_SIGMA = 0.7


@dataclass(frozen=True)
class TemplateFiles:
    """A template on this machine.

    Attributes
    ----------
    space : str
        Name of the space.
    resolution : int
        Index of the resolution in file names; for MNI152 templates of TemplateFlow, 1 and 2 are mm.
    grey, white : Path or None
        Probabilities of grey and white matter; None for the bundled template.
    """

    space: str
    resolution: int
    grey: Path | None = None
    white: Path | None = None

    @property
    def spec(self) -> str:
        """The template as an option names it, such as ``MNI152NLin2009cAsym:res-2``."""
        return f'{self.space}:res-{self.resolution}'


@dataclass(frozen=True)
class OutputSpace:
    """A template to which series are registered, and the grids on which their images are written.

    Attributes
    ----------
    space : str
        Name of the template.
    grids : tuple of TemplateFiles
        Its resolutions; the first is the one that is registered.
    is_first : bool
        Whether it is the first of the run, which page and group level show and whose files of regions
        have no space in their names.
    """

    space: str
    grids: tuple[TemplateFiles, ...]
    is_first: bool

    @property
    def stage(self) -> str:
        """Name of its stage in the graph."""
        return self.port('template')

    def port(self, name: str, grid: TemplateFiles | None = None) -> str:
        """Name a quantity of this space, perhaps on one of its grids, among those of all spaces.

        Examples
        --------
        >>> grids = TemplateFiles('MNI152NLin6Asym', 2), TemplateFiles('MNI152NLin6Asym', 1)
        >>> first, second = (OutputSpace('MNI152NLin6Asym', grids, first) for first in (True, False))
        >>> first.port('regions'), second.port('regions'), second.port('cbf_template', grids[1])
        ('regions', 'regions_MNI152NLin6Asym', 'cbf_template_MNI152NLin6Asym_res1')
        """
        parts = [name] if self.is_first else [name, self.space]
        if grid is not None and grid != self.grids[0]:
            parts.append(f'res{grid.resolution}')
        return '_'.join(parts)


def find_spaces(specs: Sequence[str]) -> tuple[OutputSpace, ...]:
    """Find the templates of a run, with all resolutions of each together.

    Parameters
    ----------
    specs : sequence of str
        Such as ``MNI152NLin2009cAsym:res-1:res-2``; 2 is the default resolution.

    Returns
    -------
    tuple of OutputSpace
        In the order in which they are named.

    Raises
    ------
    UsageError
        If a text is not the name of a template, a template is named twice with the same resolution, or
        its files are missing.
    """
    grids: dict[str, list[TemplateFiles]] = {}
    for spec in specs:
        space, resolutions = _parse(spec)
        for resolution in resolutions:
            files = find_template(f'{space}:res-{resolution}')
            if files in grids.setdefault(space, []):
                raise UsageError(
                    f'--output-spaces has {files.spec} twice (without res-, a space has res-'
                    f'{RESOLUTION}); name it once'
                )
            grids[space].append(files)
    return tuple(
        OutputSpace(space, tuple(files), index == 0)
        for index, (space, files) in enumerate(grids.items())
    )


def _parse(spec: str) -> tuple[str, list[int]]:
    """Split the name of a space from its resolutions."""
    match = SPEC.fullmatch(spec.strip())
    if not match:
        raise UsageError(
            f'--output-spaces needs templates, such as {BUNDLED} or MNI152NLin2009cAsym:res-2, got '
            f'{spec!r}'
        )
    resolutions = [int(part) for part in match['resolutions'].split(':res-')[1:]]
    return match['space'], resolutions or [RESOLUTION]


def find_template(spec: str) -> TemplateFiles:
    """Find the files of a template in one resolution.

    Parameters
    ----------
    spec : str
        Such as ``MNI152NLin2009cAsym:res-2``; 2 is the default resolution.

    Returns
    -------
    TemplateFiles

    Raises
    ------
    UsageError
        If the text is not the name of a template, or its files are missing.
    """
    space, (resolution, *_) = _parse(spec)
    if space == BUNDLED:
        if resolution > 2:
            raise UsageError(f'{BUNDLED} has res-1 and res-2, got res-{resolution}')
        return TemplateFiles(space, resolution)
    names = [
        f'tpl-{space}_res-{resolution:02d}_label-{tissue}_probseg.nii.gz'
        for tissue in ('GM', 'WM')
    ]
    homes = [Path.home() / '.cache' / 'templateflow']
    if named := os.environ.get(USERS_TEMPLATES, os.environ.get('TEMPLATEFLOW_HOME')):
        homes.insert(0, Path(named))
    for home in homes:
        grey, white = (home / f'tpl-{space}' / name for name in names)
        # the archive lists files that have not been fetched as empty ones
        if all(path.is_file() and path.stat().st_size for path in (grey, white)):
            return TemplateFiles(space, resolution, grey, white)
    folders = ' and '.join(str(home) for home in homes)
    raise UsageError(
        f'--output-spaces {spec}: tpl-{space}/{names[0]} or {names[1]} is missing in {folders}; fetch '
        f'them with templateflow, or use {BUNDLED}, which needs no network'
    )


def load_template(files: TemplateFiles) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read the tissue probabilities of a template.

    Parameters
    ----------
    files : TemplateFiles

    Returns
    -------
    grey, white : (X, Y, Z) arrays of float32
    affine : (4, 4) array
        mm RAS.
    """
    if files.grey is not None and files.white is not None:
        grey, affine = nifti.load(files.grey)
        white, _ = nifti.load(files.white)
        return grey, white, affine
    from nilearn.datasets import load_mni152_gm_template, load_mni152_wm_template

    images = load_mni152_gm_template(resolution=1), load_mni152_wm_template(resolution=1)
    affine = np.array(images[0].affine, dtype=float)
    grey, white = (np.clip(image.get_fdata(dtype=np.float32), 0, 1) for image in images)
    if files.resolution == 2:
        grey, white = (
            ndimage.gaussian_filter(tissue, HALVING_SIGMA)[::2, ::2, ::2]
            for tissue in (grey, white)
        )
        affine[:3, :3] *= 2
    return grey, white, affine


def load_atlas(path: Path, labels: Path) -> tuple[np.ndarray, np.ndarray, dict[int, str]]:
    """Read an atlas and the names of its regions.

    It is placed by its sform, which is that of the template; its qform may be that of a scanner.

    Parameters
    ----------
    path : path-like
        NIfTI of integers in template space.
    labels : path-like
        Table with the columns ``index`` and ``name``, tab-separated, as of a ``dseg.tsv`` in BIDS.

    Returns
    -------
    labels : (X, Y, Z) array of int
    affine : (4, 4) array
        mm RAS.
    names : dict of int to str
        Without 0.

    Raises
    ------
    UsageError
        If a file cannot be read, the image is not 3D or has values that are not whole numbers, the
        table lacks a column, or no region of the table is in the image.
    """
    try:
        voxels, affine = nifti.load(path, dtype=None)
    except (OSError, ValueError, SeriesError, nb.filebasedimages.ImageFileError) as error:
        raise UsageError(f'--atlas {path} cannot be read as NIfTI ({error})') from error
    if voxels.ndim != 3 or not np.array_equal(voxels, np.rint(voxels)):
        raise UsageError(
            f'--atlas {path} must be one 3D volume of whole numbers, got the shape {voxels.shape}'
            f'{"" if voxels.ndim != 3 else " with fractions"}'
        )
    try:
        text = read_text(Path(labels), UsageError, f'--atlas-labels {labels}')
        lines = list(csv.DictReader(text.splitlines(), delimiter='\t'))
        names = {
            int(line['index']): line['name'].strip() for line in lines if line['index'].strip()
        }
    except (KeyError, ValueError, AttributeError) as error:
        raise UsageError(
            f'--atlas-labels {labels} needs the tab-separated columns index (whole numbers) and name'
        ) from error
    names.pop(0, None)
    atlas = np.asarray(voxels, dtype=np.int32)
    if not np.isin(list(names), atlas).any():
        raise UsageError(f'--atlas {path} has none of the regions of --atlas-labels {labels}')
    return atlas, affine, names


def atlas_space(atlas: Path, spaces: Sequence[OutputSpace]) -> OutputSpace:
    """Find the space that an atlas is in: the one in its name, else the first.

    Parameters
    ----------
    atlas : Path
        With or without ``tpl-`` or ``space-`` in its name.
    spaces : sequence of OutputSpace

    Returns
    -------
    OutputSpace

    Raises
    ------
    UsageError
        If its name states another space.
    """
    if (named := NAMED_SPACE.search(atlas.name)) is None:
        return spaces[0]
    for space in spaces:
        if space.space == named[1]:
            return space
    raise UsageError(
        f'--atlas {atlas} is in {named[1]} by its name; add {named[1]} to --output-spaces, which has '
        f'{", ".join(space.space for space in spaces)}'
    )


def check_spaces(
    output_spaces: Sequence[str],
    atlas: Path | None,
    atlas_labels: Path | None,
) -> None:
    """Raise `UsageError` if a template or the atlas cannot be used, before anything runs.

    Parameters
    ----------
    output_spaces : sequence of str
    atlas, atlas_labels : Path or None
    """
    if (atlas is None) != (atlas_labels is None):
        option, missing = ('--atlas', '--atlas-labels') if atlas else ('--atlas-labels', '--atlas')
        raise UsageError(f'{option} needs {missing}; give both')
    if atlas is not None and not output_spaces:
        raise UsageError(f'--atlas needs --output-spaces, such as {BUNDLED}: the space it is in')
    spaces = find_spaces(output_spaces)
    if atlas is not None and atlas_labels is not None:
        atlas_space(atlas, spaces)
        load_atlas(atlas, atlas_labels)
