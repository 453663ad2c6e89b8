# SPDX-License-Identifier: Apache-2.0
"""Lesions and flow by region: the regions of an atlas, or depths of white matter drawn from a template.

Regions are brought to the patient, not lesions to the template, so that volumes need no resampling.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ctpprep.perfusion import grid
from ctpprep.perfusion.symmetry import SIDES
from ctpprep.perfusion.volumes import volume_ml

#: Regions that are drawn from tissue probabilities, in the order of their labels.
TISSUES = {
    1: 'cortex', 2: 'deep grey matter', 3: 'superficial white matter', 4: 'deep white matter',
    5: 'periventricular white matter',
}  # fmt: skip
CORTEX, DEEP_GREY, SUPERFICIAL, DEEP, PERIVENTRICULAR = TISSUES
#: Deep grey matter and the lateral ventricles are found within boxes of MNI coordinates, mm: least and
#: greatest |x|, y, z. Grey matter there is basal ganglia and thalamus; CSF there, if at least so deep in
#: the brain and in one piece of at least so many mL, is a lateral ventricle.
DEEP_GREY_BOX = ((0.0, 33.0), (-38.0, 26.0), (-8.0, 20.0))
VENTRICLE_BOX = ((1.0, 32.0), (-56.0, 38.0), (0.0, 32.0))
VENTRICLE_DEPTH_MM, LEAST_VENTRICLE_ML = 10.0, 0.4
#: Cortex in pieces smaller than this is noise of the probabilities, mL.
LEAST_CORTEX_ML = 1.0

#: Volumes of the table: parts of the two cores, and hypoperfusion.
LESION_COLUMNS = ('core_global', 'core_local', 'removed', 'added', 'kept', 'hypoperfusion')
#: Means of the table, over tissue.
MAP_COLUMNS = ('cbf', 'tmax', 'rcbf_global', 'rcbf_local')
HEMISPHERES = (*SIDES, 'both', 'left/right')
COLUMNS = (
    'region', 'label', 'hemisphere', 'tissue_ml', *(f'{name}_ml' for name in LESION_COLUMNS),
    *MAP_COLUMNS, 'reason',
)  # fmt: skip


@dataclass(frozen=True)
class Atlas:
    """Labelled regions in template space.

    Attributes
    ----------
    labels : (X, Y, Z) array of int
        0: no region.
    affine : (4, 4) array
        Voxel to template RAS, mm.
    names : dict of int to str
    """

    labels: np.ndarray
    affine: np.ndarray
    names: dict[int, str]


def draw_tissues(grey, white, brain, affine, superficial_mm, periventricular_mm):
    """Draw tissue classes and depths of white matter from the tissue probabilities of a template.

    White matter within a distance of a lateral ventricle is periventricular; of the rest, what is
    within a distance of cortex is superficial, and what is not is deep.

    Parameters
    ----------
    grey, white : (X, Y, Z) arrays
        Probabilities, 0 to 1.
    brain : (X, Y, Z) array of bool
        Tissue, sulci and ventricles.
    affine : (4, 4) array
        Voxel to MNI RAS, mm.
    superficial_mm, periventricular_mm : float

    Returns
    -------
    Atlas
        With the regions of `TISSUES`.

    Notes
    -----
    Group averages are blurred: gyral white matter that is thinner than a few mm is cortex here, so
    superficial white matter is underestimated. The brainstem and the white matter of the cerebellum
    are deep white matter by this rule.
    """
    size = grid.voxel_size_mm(affine)
    tissue = brain & (grey + white > 0.5)
    is_white = tissue & (white >= grey)
    is_grey = tissue & ~is_white
    deep_grey = is_grey & _within_box(DEEP_GREY_BOX, grey.shape, affine)
    cortex = _drop_small(is_grey & ~deep_grey, size, LEAST_CORTEX_ML)
    ventricles = find_ventricles(grey + white, brain, affine)
    near_cortex = ndimage.distance_transform_edt(~cortex, size) <= superficial_mm
    near_ventricle = (
        ndimage.distance_transform_edt(~ventricles, size) <= periventricular_mm
        if ventricles.any()
        else ventricles
    )
    labels = np.zeros(grey.shape, dtype=np.int16)
    labels[is_grey & ~deep_grey] = CORTEX
    labels[deep_grey] = DEEP_GREY
    labels[is_white] = DEEP
    labels[is_white & near_cortex] = SUPERFICIAL
    labels[is_white & near_ventricle] = PERIVENTRICULAR
    return Atlas(labels, np.asarray(affine, dtype=float), dict(TISSUES))


def find_ventricles(tissue, brain, affine):
    """Find the lateral ventricles of an MNI template: large pieces of CSF deep in the brain.

    Parameters
    ----------
    tissue : (X, Y, Z) array
        Probability of tissue.
    brain : (X, Y, Z) array of bool
    affine : (4, 4) array
        Voxel to MNI RAS, mm.

    Returns
    -------
    (X, Y, Z) array of bool
    """
    size = grid.voxel_size_mm(affine)
    deep = ndimage.distance_transform_edt(brain, size) > VENTRICLE_DEPTH_MM
    fluid = deep & (tissue < 0.5) & _within_box(VENTRICLE_BOX, tissue.shape, affine)
    return _drop_small(fluid, size, LEAST_VENTRICLE_ML)


def _within_box(box, shape, affine):
    """Mark the voxels within a box of |x|, y and z, mm; the axes of the template are straight."""
    inside = np.ones(shape, dtype=bool)
    for axis, (low, high) in enumerate(box):
        place = affine[axis, axis] * np.arange(shape[axis]) + affine[axis, 3]
        place = np.abs(place) if axis == 0 else place
        within = (place >= low) & (place <= high)
        inside &= within.reshape([-1 if other == axis else 1 for other in range(3)])
    return inside


def _drop_small(mask, size, least_ml):
    """Keep the pieces of a mask that have at least a volume."""
    pieces, _ = ndimage.label(mask)
    sizes = np.bincount(pieces.ravel()) * np.prod(size) / 1000
    sizes[0] = 0.0
    return (sizes >= least_ml)[pieces]


def split_cores(core_global, core_local):
    """Split two cores into what local normalization removes, adds and keeps.

    Parameters
    ----------
    core_global, core_local : arrays of bool

    Returns
    -------
    dict of str to array of bool
        ``kept``: both; ``removed``: global but not local; ``added``: local but not global.

    Examples
    --------
    >>> split_cores(np.array([True, True, False]), np.array([False, True, True]))['removed']
    array([ True, False, False])
    """
    return {
        'kept': core_global & core_local,
        'removed': core_global & ~core_local,
        'added': core_local & ~core_global,
    }


def measure_regions(labels, names, hemispheres, tissue_mask, lesions, maps, voxel_size_mm):
    """Measure lesion volumes and mean maps of every region, by hemisphere.

    Parameters
    ----------
    labels : (X, Y, Z) array of int
        Region of each voxel of the patient; 0: none.
    names : mapping of int to str
        Regions that are tabulated, in this order, whether the slab contains them or not.
    hemispheres : (X, Y, Z) array
        1 left, 2 right.
    tissue_mask : (X, Y, Z) array of bool
    lesions : mapping of str to (X, Y, Z) array of bool
        ``core_global``, ``hypoperfusion`` and optionally ``core_local``.
    maps : mapping of str to (X, Y, Z) array
        Some of `MAP_COLUMNS`; NaN where a map has no value.
    voxel_size_mm : (3,) sequence of float

    Returns
    -------
    list of dict
        With the keys `COLUMNS`; four rows a region: left, right, both, and the ratio left/right of
        each figure. Figures without data are None.

    Examples
    --------
    >>> rows = measure_regions(
    ...     np.array([[[1]], [[1]]]), {1: 'cortex'}, np.array([[[1]], [[2]]]), np.ones((2, 1, 1), bool),
    ...     {'core_global': np.array([[[True]], [[False]]])},
    ...     {'cbf': np.array([[[10.0]], [[40.0]]])}, (10, 10, 10))
    >>> [(row['hemisphere'], row['core_global_ml'], row['cbf']) for row in rows]
    [('left', 1.0, 10.0), ('right', 0.0, 40.0), ('both', 1.0, 25.0), ('left/right', None, 0.25)]
    """
    masks = dict(lesions)
    if {'core_global', 'core_local'} <= masks.keys():
        masks |= split_cores(masks['core_global'], masks['core_local'])
    rows = []
    for label, name in names.items():
        region = (labels == label) & tissue_mask
        ids = {'region': name, 'label': int(label)}
        of_side = {}
        for side in (*SIDES, 'both'):
            part = region if side == 'both' else region & (hemispheres == SIDES[side])
            of_side[side] = _measure(part, masks, maps, voxel_size_mm)
            rows.append(ids | {'hemisphere': side} | of_side[side])
        ratios = {
            column: _ratio(of_side['left'][column], of_side['right'][column])
            for column in of_side['both']
            if column != 'reason'
        }
        rows.append(ids | {'hemisphere': 'left/right'} | ratios | {'reason': None})
    return rows


def without_regions(names: Mapping[int, str], reason: str) -> list[dict]:
    """Make the rows of a series whose registration to the template failed."""
    empty = dict.fromkeys(COLUMNS)
    return [
        empty | {'region': name, 'label': int(label), 'hemisphere': 'both', 'reason': reason}
        for label, name in names.items()
    ]


def _measure(part, masks, maps, voxel_size_mm):
    """Measure one region in one hemisphere."""
    row = {'tissue_ml': volume_ml(part, voxel_size_mm)}
    for name in LESION_COLUMNS:
        mask = masks.get(name)
        row[f'{name}_ml'] = None if mask is None else volume_ml(mask & part, voxel_size_mm)
    for name in MAP_COLUMNS:
        values = maps[name][part] if name in maps else np.empty(0)
        values = values[np.isfinite(values)]
        row[name] = float(values.mean()) if values.size else None
    row['reason'] = None if part.any() else 'no tissue of this region in the slab'
    return row


def _ratio(left, right):
    return None if left is None or not right else left / right
