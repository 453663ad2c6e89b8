# SPDX-License-Identifier: Apache-2.0
"""What several interfaces read alike."""

import json
from pathlib import Path

from ctpprep.io.nifti import load
from ctpprep.perfusion import overrides
from ctpprep.perfusion.precomputed import MIRRORED


def load_mask_on(path, density, affine, resample=overrides.mask_on_grid):
    """Read a supplied mask on the grid of a series and check that it lies on the head.

    Parameters
    ----------
    path : path-like
    density : (X, Y, Z) array
        A still image of the series, HU.
    affine : (4, 4) array
        Of that image.
    resample : callable
        `mask_on_grid`, or `voxels_on_grid` for a few voxels.

    Returns
    -------
    (X, Y, Z) array of bool
    """
    mask, own = load(path, dtype=None)
    mask = mask > 0
    on_grid = resample(mask, own, density.shape, affine)
    overrides.check_mask(mask, on_grid, density, Path(path).name)
    return on_grid


def is_density(entry):
    """Tell whether the reference image is one of densities, and not a perfusion map in its stead.

    Parameters
    ----------
    entry : path-like or undefined
        JSON of `StandardizeMaps`; without one the reference image is that of a series.

    Returns
    -------
    bool
    """
    if not entry:
        return True
    return json.loads(Path(entry).read_text())['reference_image_from'] in MIRRORED
