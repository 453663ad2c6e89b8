# SPDX-License-Identifier: Apache-2.0
"""The symmetric template: brain tissue, skull and ventricles."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import ndimage

from ctpprep.phantom.fields import Fields, smooth_step, stack_fields, symmetrize


@dataclass(frozen=True)
class Template:
    """Symmetric anatomy in template space, as fields of two spacings.

    Attributes
    ----------
    matter : Fields
        1 mm. ``tissue``: fraction of brain tissue, ``white``: fraction of white matter in it.
    surfaces : Fields
        2 mm. Distances in mm, negative inside: ``brain`` (its envelope), ``skull`` (inner table),
        ``ventricle`` (lateral ventricles; never negative).
    """

    matter: Fields
    surfaces: Fields

    def skull_distance(self, points: np.ndarray) -> np.ndarray:
        """Return the distance of (3, N) template positions to the inner table, mm."""
        return self.surfaces(points)['skull']


@lru_cache(maxsize=1)
def load_template() -> Template:
    """Read the ICBM152 maps and derive envelope, skull and ventricles (3 s; then cached)."""
    from nilearn.datasets import load_mni152_gm_template, load_mni152_wm_template

    grey_img = load_mni152_gm_template(resolution=1)
    grey = symmetrize(grey_img.get_fdata(dtype=np.float32))
    white = symmetrize(load_mni152_wm_template(resolution=1).get_fdata(dtype=np.float32))
    origin = grey_img.affine[:3, 3]
    # Group averages are blurred; the steps restore sulci as wide as in older patients.
    tissue = smooth_step(grey + white, 0.4, 0.95)
    white_fraction = smooth_step(white / np.maximum(grey + white, 1e-3), 0.3, 0.75)

    half = tissue[::2, ::2, ::2]
    brain = ndimage.binary_fill_holes(close_mask(half > 0.5, 4.0))
    skull = close_mask(brain, 14.0)
    ventricle = _lateral_ventricles(half, brain, origin)
    return Template(
        matter=stack_fields(origin, 1.0, tissue=tissue, white=white_fraction),
        surfaces=stack_fields(
            origin,
            2.0,
            brain=signed_distance(brain),
            skull=signed_distance(skull) - 2.5,
            ventricle=2.0 * ndimage.distance_transform_edt(~ventricle),
        ),
    )


def close_mask(mask: np.ndarray, radius_mm: float) -> np.ndarray:
    """Close a mask of 2 mm voxels with a ball."""
    radius = radius_mm / 2
    grown = ndimage.distance_transform_edt(~mask) <= radius
    return ndimage.distance_transform_edt(grown) > radius


def signed_distance(mask: np.ndarray) -> np.ndarray:
    """Return the distance to the border of a mask of 2 mm voxels, mm, with its steps smoothed."""
    outside = ndimage.distance_transform_edt(~mask)
    inside = ndimage.distance_transform_edt(mask)
    return ndimage.gaussian_filter(2.0 * (outside - inside), 1.0).astype(np.float32)


def _lateral_ventricles(tissue: np.ndarray, brain: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Segment the lateral ventricles: large deep components of CSF in the 2 mm template."""
    x, y, z = (
        start + 2.0 * np.arange(size) for start, size in zip(origin, tissue.shape, strict=True)
    )
    box = np.ix_((np.abs(x) > 1) & (np.abs(x) < 32), (y > -56) & (y < 38), (z > 0) & (z < 32))
    deep = ndimage.distance_transform_edt(brain)[box] > 10
    labels, _ = ndimage.label((tissue[box] < 0.5) & deep)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    ventricle = np.zeros(tissue.shape, bool)
    ventricle[box] = (labels > 0) & (sizes[labels] > 50)
    return ventricle
