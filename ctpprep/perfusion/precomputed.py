# SPDX-License-Identifier: Apache-2.0
"""Precomputed perfusion maps: their units, their masks, and an image to mirror.

The unit of a map is the stated one or, if none is stated, one that makes its median over tissue
plausible. If no unit does, the map fails; ctpprep never guesses further.
"""

import re

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

from ctpprep.exceptions import PerfusionError
from ctpprep.perfusion import brain
from ctpprep.perfusion.denoising import smooth_within

WORDS = {
    'cbf': 'CBF', 'rcbf': 'relative CBF', 'cbv': 'CBV', 'mtt': 'MTT', 'tmax': 'Tmax', 'ttp': 'TTP',
}  # fmt: skip
STANDARD = {
    'cbf': 'mL/100 g/min', 'rcbf': '1', 'cbv': 'mL/100 g', 'mtt': 's', 'tmax': 's', 'ttp': 's',
}  # fmt: skip
_TIMES = {'s': 1.0, 'ms': 1e-3, 'min': 60.0}
# factor to the standard unit; `True` if the tissue density also divides
UNITS: dict[str, dict[str, tuple[float, bool]]] = {
    'cbf': {
        'ml/100g/min': (1.0, False), 'ml/100ml/min': (1.0, True), 'ml/g/min': (100.0, False),
        'ml/ml/min': (100.0, True), 'ml/100g/s': (60.0, False), 'ml/100ml/s': (60.0, True),
    },
    'rcbf': {'1': (1.0, False), 'fraction': (1.0, False), 'ratio': (1.0, False),
             '%': (0.01, False), 'percent': (0.01, False)},
    'cbv': {
        'ml/100g': (1.0, False), 'ml/100ml': (1.0, True), '%': (1.0, True), 'percent': (1.0, True),
        'ml/g': (100.0, False), 'ml/ml': (100.0, True), 'fraction': (100.0, True),
    },
    **{name: {unit: (factor, False) for unit, factor in _TIMES.items()}
       for name in ('mtt', 'tmax', 'ttp')},
}  # fmt: skip
# kinds of CT images that can be mirrored
MIRRORED = {'ctpref': 'mean image of a series before contrast', 'ncct': 'baseline CT'}
# plausible medians over tissue in the standard unit; Tmax reaches 6 s if all tissue is late, as in
# heart failure, and a map in tenths of a second begins not far above
PLAUSIBLE = {
    'cbf': (5.0, 150.0), 'rcbf': (0.2, 5.0), 'cbv': (0.5, 15.0), 'mtt': (1.0, 20.0),
    'tmax': (0.05, 8.0), 'ttp': (1.0, 90.0),
}  # fmt: skip
# factors by which the median may exceed these limits if the unit is stated: software differs, but less
# than units do; smaller for times, since tenths of a second are often labelled as seconds
STATED_MARGIN, STATED_MARGIN_OF_TIMES = 3.0, 1.5
# plausible ratio of median Tmax to median MTT: about 0.25 in healthy tissue, 1 if all tissue is late
TMAX_PER_MTT = (0.02, 2.0)
# units that are tried if none is stated: hardly any map fits two of them
UNSTATED = {'rcbf': ('1', 'percent'), **dict.fromkeys(('mtt', 'tmax', 'ttp'), ('s', 'ms'))}
# least number of voxels with a value
LEAST_VOXELS = 100
# if values fill more of the image than this, the brain has no outline
MOST_FILLED = 0.9
# CSF in maps: CBF and CBV below this fraction of the median. CBF of a core may fall to 0.05 of the
# median, but its CBV only to 0.2, so the limit is lower if only CBF is available
CSF_SHARE, CSF_SHARE_OF_FLOW_ALONE = 0.10, 0.03
# least overlap of the maps with the soft tissue of a baseline CT in the same space
LEAST_INSIDE = 0.7
# least overlap of a supplied mask with the values of maps in the same space
LEAST_ON_VALUES = 0.5
# sulci narrower than twice this distance belong to the brain, mm
SULCUS_MM = 5.0
# percentile of tissue that is scaled to the upper end of the window if a map is mirrored
TOP_PERCENTILE = 98.0


def unit_key(text):
    """Normalize the spelling of a unit to that of `UNITS`.

    Examples
    --------
    >>> unit_key('mL/100 g/min'), unit_key('ml / min / 100g'), unit_key('seconds')
    ('ml/100g/min', 'ml/100g/min', 's')
    """
    key = re.sub(r'[\s*·]', '', text.lower())
    key = re.sub(r'^(sec|secs|second|seconds)$', 's', key)
    key = re.sub(r'^(msec|millisecond|milliseconds)$', 'ms', key)
    return re.sub(r'^ml/(min|s)/(.+)$', r'ml/\2/\1', key)


def to_standard(name, values, tissue_mask, stated, *, tissue_density):
    """Convert a map to its standard unit, from the stated or a plausible unit.

    Parameters
    ----------
    name : str
        Key of `STANDARD`.
    values : (X, Y, Z) array
        The map as read.
    tissue_mask : (X, Y, Z) array of bool
        Voxels of the median, which is taken over values above 0.
    stated : str
        Unit in the sidecar; '' if there is none.
    tissue_density : float
        g/mL; converts between units per mL and per g.

    Returns
    -------
    values : (X, Y, Z) array
        In the standard unit.
    facts : dict
        ``<name>_unit`` as read, ``<name>_unit_from``, ``<name>_median`` in the standard unit.
    note : str
        The same as a sentence.

    Raises
    ------
    PerfusionError
        If the unit is not supported, or the median is not plausible.

    Examples
    --------
    >>> values, _, note = to_standard('tmax', np.full(200, 1500.0), np.ones(200, bool), '',
    ...                               tissue_density=1.04)
    >>> float(values[0]), note
    (1.5, 'Tmax: no unit is stated, taken as ms by the median over tissue (1.5 s)')
    """
    word, standard = WORDS[name], STANDARD[name]
    positive = values[tissue_mask & (values > 0)]
    if positive.size < LEAST_VOXELS:
        raise PerfusionError(
            f'the map of {word} is empty: {positive.size} voxels of tissue are above 0, need at '
            f'least {LEAST_VOXELS}; check the map and its tissue mask'
        )
    median = float(np.median(positive))
    margin = STATED_MARGIN_OF_TIMES if standard == 's' else STATED_MARGIN
    margin = margin if stated else 1.0
    low, high = PLAUSIBLE[name][0] / margin, PLAUSIBLE[name][1] * margin
    if stated and unit_key(stated) not in UNITS[name]:
        known = ', '.join(UNITS[name])
        raise PerfusionError(
            f'the unit of {word} is "{stated}", need one of {known}; correct Units in the sidecar'
        )
    fits = {}
    for unit in (unit_key(stated),) if stated else UNSTATED.get(name, (unit_key(standard),)):
        factor, by_volume = UNITS[name][unit]
        factor /= tissue_density if by_volume else 1.0
        if low <= median * factor <= high:
            fits[unit] = factor
    if not fits:
        action = 'check Units' if stated else 'state Units'
        raise PerfusionError(
            f'the median of {word} over tissue is {median:.3g}'
            + (f' {stated}' if stated else ' without a stated unit')
            + f', need {low:.3g} to {high:.3g}{_shown(standard)} to be plausible; {action} in its '
            'sidecar'
        )
    unit, factor = next(iter(fits.items()))
    source = 'sidecar' if stated else 'assumed'
    shown = f'{median * factor:.3g}{_shown(standard)}'
    read = stated or (standard if unit == unit_key(standard) else unit)
    how = (
        f'in {read} as its sidecar states'
        if stated
        else f'no unit is stated, taken as {_named(read)} by the median over tissue'
    )
    facts = {f'{name}_unit': read, f'{name}_unit_from': source, f'{name}_median': median * factor}
    changed = values if factor == 1.0 else (values * factor).astype(np.float32)
    return changed, facts, f'{word}: {how} ({shown})'


def doubt_of_times(tmax_median, mtt_median):
    """Return a warning if Tmax and MTT are unlikely to be in the assumed units.

    Parameters
    ----------
    tmax_median, mtt_median : float
        Medians over tissue, s.

    Returns
    -------
    str
        Empty if they agree.

    Examples
    --------
    >>> doubt_of_times(1.2, 5.0)
    ''
    >>> doubt_of_times(8.0, 2.0)
    'Tmax and MTT disagree: medians of 8 s and 2 s; check the Units of both'
    """
    low, high = TMAX_PER_MTT
    if low <= tmax_median / mtt_median <= high:
        return ''
    return (
        f'Tmax and MTT disagree: medians of {tmax_median:.3g} s and {mtt_median:.3g} s; check the '
        'Units of both'
    )


def _shown(unit):
    return '' if unit == '1' else f' {unit}'


def _named(unit):
    return 'a fraction' if unit == '1' else unit


def valued(maps):
    """Return where any of the maps has a value, that is, is finite and above 0.

    Parameters
    ----------
    maps : sequence of (X, Y, Z) array
        NaN and 0 mean no value: they mark voxels outside a mask or a resampled image.

    Returns
    -------
    (X, Y, Z) array of bool

    Raises
    ------
    PerfusionError
        If fewer than 100 voxels have a value.
    """
    has_value = np.zeros(maps[0].shape, dtype=bool)
    for values in maps:
        has_value |= np.isfinite(values) & (values > 0)
    if has_value.sum() < LEAST_VOXELS:
        raise PerfusionError(
            f'the maps are empty: {has_value.sum()} voxels are above 0, need at least '
            f'{LEAST_VOXELS}; check the files'
        )
    return has_value


def brain_of_maps(values, voxel_size_mm):
    """Find the brain as the closed and filled largest component of the voxels with values.

    Parameters
    ----------
    values : (X, Y, Z) array of bool
        From `valued`.
    voxel_size_mm : (3,) sequence of float

    Returns
    -------
    (X, Y, Z) array of bool

    Raises
    ------
    PerfusionError
        If values fill the image, so that the brain has no outline.
    """
    slices = values.any(axis=(0, 1))
    filled = float(values[..., slices].mean())
    if filled > MOST_FILLED:
        raise PerfusionError(
            f'brain mask: the maps have values in {filled:.0%} of their voxels, need at most '
            f'{MOST_FILLED:.0%} to find the outline of the brain; supply a mask (--brain-mask) or a '
            'baseline CT'
        )
    opened = ndimage.binary_opening(values, brain.IN_PLANE)
    closed = brain.close_in_plane(brain.largest(opened), voxel_size_mm, SULCUS_MM)
    return brain.largest(brain.fill_in_plane(closed))


def hull_in_plane(mask):
    """Return the convex hull of a mask in each slice.

    Parameters
    ----------
    mask : (X, Y, Z) array of bool

    Returns
    -------
    (X, Y, Z) array of bool
        Slices whose voxels are on a line are unchanged.

    Examples
    --------
    >>> hull_in_plane(np.array([[1, 0, 1], [0, 0, 0], [1, 0, 1]], bool)[..., None]).sum()
    np.int64(9)
    """
    hull = mask.copy()
    grid = np.indices(mask.shape[:2]).reshape(2, -1)
    for z in np.flatnonzero(mask.any(axis=(0, 1))):
        try:
            faces = ConvexHull(np.argwhere(mask[..., z])).equations
        except QhullError:
            continue
        inside = np.ones(grid.shape[1], dtype=bool)
        for along, across, offset in faces:
            inside &= along * grid[0] + across * grid[1] + offset <= 1e-9
        hull[..., z] = inside.reshape(mask.shape[:2])
    return hull


def brain_of_ct(density, values, voxel_size_mm, *, bone_hu, csf_level):
    """Find the brain in a baseline CT, within the extent of the maps.

    Parameters
    ----------
    density : (X, Y, Z) array
        Baseline CT on the grid of the maps, HU.
    values : (X, Y, Z) array of bool
        From `valued`.
    voxel_size_mm : (3,) sequence of float
    bone_hu, csf_level : float
        HU and fraction, as for `brain.brain_masks`.

    Returns
    -------
    (X, Y, Z) array of bool

    Raises
    ------
    PerfusionError
        If there is no brain inside bone.
    """
    mask, _ = brain.brain_masks(
        density, density, voxel_size_mm, bone_hu=bone_hu, csf_level=csf_level
    )
    # the CT extends beyond the slab of the maps; the hull retains a core without values
    reach = hull_in_plane(brain.largest(ndimage.binary_opening(values, brain.IN_PLANE)))
    return mask & reach


def share_inside(density, values):
    """Measure the overlap of the maps with the soft tissue of a CT, to check their alignment.

    Parameters
    ----------
    density : (X, Y, Z) array
        HU.
    values : (X, Y, Z) array of bool
        From `valued`.

    Returns
    -------
    float
        Fraction of the values on soft tissue or, if that is larger, fraction of the soft tissue in
        their slices that has a value: maps may also have values on bone and air.
    """
    low, high = brain.SOFT_HU
    smooth = ndimage.gaussian_filter(np.asarray(density, dtype=np.float32), (1, 1, 0))
    soft = (smooth > low) & (smooth < high)
    covered = values[..., values.any(axis=(0, 1))][soft[..., values.any(axis=(0, 1))]]
    return max(float(soft[values].mean()), float(covered.mean()) if covered.size else 0.0)


def check_mask(mask, values, name):
    """Check that a supplied mask is not empty and is in the space of the maps.

    Parameters
    ----------
    mask : (X, Y, Z) array of bool
        On the grid of the maps.
    values : (X, Y, Z) array of bool
        From `valued`.
    name : str
        File name, for messages.

    Raises
    ------
    PerfusionError
        If less than half of the voxels of the mask have a value in the maps.
    """
    share = float(values[mask].mean()) if mask.any() else 0.0
    if share < LEAST_ON_VALUES:
        raise PerfusionError(
            f'{name}: {share:.0%} of its voxels have a value in the maps, need at least '
            f'{LEAST_ON_VALUES:.0%}; check that it is in the space of the maps'
        )


def csf_of_maps(flow, volume, brain_mask, voxel_size_mm):
    """Find CSF without a CT, by very low CBF and, if there is a CBV map, very low CBV.

    If software sets a core to 0, it is mistaken for CSF.

    Parameters
    ----------
    flow : (X, Y, Z) array
        CBF or relative CBF.
    volume : (X, Y, Z) array or None
        CBV.
    brain_mask : (X, Y, Z) array of bool
    voxel_size_mm : (3,) sequence of float

    Returns
    -------
    (X, Y, Z) array of bool
    """
    empty = brain_mask.copy()
    limit = CSF_SHARE_OF_FLOW_ALONE if volume is None else CSF_SHARE
    for values in (flow, volume):
        if values is not None:
            sigma = [0.8 / voxel_size_mm[0], 0.8 / voxel_size_mm[1], 0]
            smooth = smooth_within(np.nan_to_num(values), brain_mask, sigma)
            empty &= smooth <= limit * np.median(values[brain_mask & (values > 0)])
    return empty


def vessels_of_maps(blood, brain_mask, vessel_ratio):
    """Find vessels: voxels whose CBV (or CBF) is far above that of brain.

    Parameters
    ----------
    blood : (X, Y, Z) array
        CBV, or CBF if there is no CBV.
    brain_mask : (X, Y, Z) array of bool
    vessel_ratio : float
        Threshold relative to the median.

    Returns
    -------
    (X, Y, Z) array of bool
    """
    values = np.nan_to_num(blood)
    return brain_mask & (values > vessel_ratio * np.median(values[brain_mask & (values > 0)]))


def on_grid(density, affine, shape, grid_affine, outside):
    """Resample an image linearly to the grid of the maps, using only the affines.

    Parameters
    ----------
    density : (X, Y, Z) array
    affine : (4, 4) array
        Voxel to patient coordinates, mm.
    shape : (3,) tuple of int
    grid_affine : (4, 4) array
        Affine of the target grid.
    outside : float
        Value outside the image.

    Returns
    -------
    array of float32
        Of `shape`. Unchanged if the grids are the same; smoothed to about the voxel size of the
        target grid if the image is finer.
    """
    matrix = np.linalg.inv(np.asarray(affine, dtype=float)) @ grid_affine
    same = shape == density.shape and np.abs(matrix - np.eye(4)).max() * max(shape) < 0.01
    if same:
        return np.asarray(density, dtype=np.float32)
    step = np.abs(matrix[:3, :3]).max(axis=1)  # voxels of the image per voxel of the grid
    smooth = ndimage.gaussian_filter(
        np.asarray(density, dtype=np.float32), np.maximum(step - 1, 0) / 2, mode='nearest'
    )
    return ndimage.affine_transform(
        smooth, matrix[:3, :3], matrix[:3, 3], shape, order=1, cval=outside, output=np.float32
    )


def substitute(blood, tissue_mask, window):
    """Scale a map so that it can be mirrored and registered instead of a CT.

    Parameters
    ----------
    blood : (X, Y, Z) array
        CBV, or CBF.
    tissue_mask : (X, Y, Z) array of bool
    window : (float, float)
        Densities used by the registration, HU; the 98th percentile of tissue is scaled to the upper
        end.

    Returns
    -------
    (X, Y, Z) array of float32
        Dimensionless; the lower end of the window where there is no value.
    """
    low, high = window
    top = float(np.percentile(blood[tissue_mask & (blood > 0)], TOP_PERCENTILE))
    scaled = np.clip(np.nan_to_num(blood) / top, 0, 1) * (high - low) + low
    return np.where(np.isfinite(blood), scaled, low).astype(np.float32)
