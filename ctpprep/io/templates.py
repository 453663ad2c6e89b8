# SPDX-License-Identifier: Apache-2.0
"""Templates that are on this machine: the one that nilearn brings, and those of TemplateFlow.

Nothing is downloaded, and TemplateFlow's client, which indexes its archive when imported, is not used.
"""

import csv
import os
import re
from dataclasses import dataclass
from pathlib import Path

import nibabel as nb
import numpy as np
from scipy import ndimage

from ctpprep.exceptions import SeriesError, UsageError
from ctpprep.io import nifti
from ctpprep.io.files import read_text

#: ICBM 2009a nonlinear symmetric, as tissue probabilities in nilearn.
BUNDLED = 'MNI152NLin2009aSym'
SPEC = re.compile(r'(?P<space>[A-Za-z0-9]+)(?::res-0?(?P<resolution>[1-9]))?')
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


def find_template(spec: str) -> TemplateFiles:
    """Find the files of a template.

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
    match = SPEC.fullmatch(spec.strip())
    if not match:
        raise UsageError(
            f'--output-spaces needs one template, such as {BUNDLED} or MNI152NLin2009cAsym:res-2, got '
            f'{spec!r}'
        )
    space, resolution = match['space'], int(match['resolution'] or 2)
    if space == BUNDLED:
        if resolution > 2:
            raise UsageError(f'{BUNDLED} has res-1 and res-2, got res-{resolution}')
        return TemplateFiles(space, resolution)
    names = [
        f'tpl-{space}_res-{resolution:02d}_label-{tissue}_probseg.nii.gz'
        for tissue in ('GM', 'WM')
    ]
    homes = [Path.home() / '.cache' / 'templateflow']
    if named := os.environ.get('TEMPLATEFLOW_HOME'):
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


def check_spaces(
    output_spaces: str,
    atlas: Path | None,
    atlas_labels: Path | None,
) -> None:
    """Raise `UsageError` if template or atlas cannot be used, before anything runs.

    Parameters
    ----------
    output_spaces : str
    atlas, atlas_labels : Path or None
    """
    if (atlas is None) != (atlas_labels is None):
        option, missing = ('--atlas', '--atlas-labels') if atlas else ('--atlas-labels', '--atlas')
        raise UsageError(f'{option} needs {missing}; give both')
    if atlas is not None and output_spaces == 'none':
        raise UsageError(f'--atlas needs --output-spaces, such as {BUNDLED}: the space it is in')
    if output_spaces != 'none':
        find_template(output_spaces)
    if atlas is not None and atlas_labels is not None:
        load_atlas(atlas, atlas_labels)
