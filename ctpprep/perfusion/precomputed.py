# SPDX-License-Identifier: Apache-2.0
"""Perfusion maps made elsewhere: their units, their masks, and an image to mirror.

What a unit is, is stated or plausible, never guessed beyond that: a map whose median over tissue
fits no unit fails.
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
# factor to the standard unit; `True` where the density of tissue divides, too
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
# kinds of images of densities that can be mirrored
MIRRORED = {'ctpref': 'mean image of a series before contrast', 'ncct': 'baseline CT'}
# medians over tissue that are plausible in the standard unit; a Tmax of 6 s is seen where all tissue
# is late, as in heart failure, and tenths of a second begin soon above
PLAUSIBLE = {
    'cbf': (5.0, 150.0), 'rcbf': (0.2, 5.0), 'cbv': (0.5, 15.0), 'mtt': (1.0, 20.0),
    'tmax': (0.05, 8.0), 'ttp': (1.0, 90.0),
}  # fmt: skip
# a stated unit is believed this many times beyond: software differs, but not as units do; of times
# less, since a tenth of a second is often written as a second
STATED_MARGIN, STATED_MARGIN_OF_TIMES = 3.0, 1.5
# medians of Tmax over those of MTT that one unit can give: about a quarter in health, 1 if all is late
TMAX_PER_MTT = (0.02, 2.0)
# other units that are taken without being stated: hardly any map fits two of them
UNSTATED = {'rcbf': ('1', 'percent'), **dict.fromkeys(('mtt', 'tmax', 'ttp'), ('s', 'ms'))}
# fewer voxels than this with a value are no map
LEAST_VOXELS = 100
# values that fill more of the image than this have no outline of the brain
MOST_FILLED = 0.9
# CSF in maps: less flow, and less blood, than this share of the median. A core may have 0.05 of the
# flow, but keeps 0.2 of the blood: the limit is lower where flow alone decides
CSF_SHARE, CSF_SHARE_OF_FLOW_ALONE = 0.10, 0.03
# a baseline CT with less of the values of the maps inside its skull lies elsewhere
LEAST_INSIDE = 0.7
# a supplied mask with less of its voxels among the values of the maps lies elsewhere
LEAST_ON_VALUES = 0.5
# sulci narrower than twice this belong to the brain, mm
SULCUS_MM = 5.0
# percentile of tissue that becomes the upper end of the window, if a map is mirrored
TOP_PERCENTILE = 98.0


def unit_key(text):
    """Spell a unit in the way of `UNITS`.

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
    """Bring a map to its standard unit, stated or plausible.

    Parameters
    ----------
    name : str
        Key of `STANDARD`.
    values : (X, Y, Z) array
        As read.
    tissue_mask : (X, Y, Z) array of bool
        Where the median is taken, over values above 0.
    stated : str
        Unit as the sidecar states it; '' if it does not.
    tissue_density : float
        g/mL, between units per mL and per g.

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
        If the unit is not known, or the median not plausible.

    Examples
    --------
    >>> values, _, note = to_standard('tmax', np.full(200, 1500.0), np.ones(200, bool), '',
    ...                               tissue_density=1.04)
    >>> float(values[0]), note
    (1.5, 'Tmax: no unit is stated, taken as ms by the median over tissue (1.5 s)')
    """
    word, standard = WORDS[name], STANDARD[name]
    there = values[tissue_mask & (values > 0)]
    if there.size < LEAST_VOXELS:
        raise PerfusionError(
            f'the map of {word} is empty: {there.size} voxels of tissue are above 0, at least '
            f'{LEAST_VOXELS} are needed'
        )
    median = float(np.median(there))
    margin = STATED_MARGIN_OF_TIMES if standard == 's' else STATED_MARGIN
    margin = margin if stated else 1.0
    low, high = PLAUSIBLE[name][0] / margin, PLAUSIBLE[name][1] * margin
    if stated and unit_key(stated) not in UNITS[name]:
        known = ', '.join(UNITS[name])
        raise PerfusionError(f'the unit of {word} is "{stated}", which is not one of {known}')
    fits = {}
    for unit in (unit_key(stated),) if stated else UNSTATED.get(name, (unit_key(standard),)):
        factor, by_volume = UNITS[name][unit]
        factor /= tissue_density if by_volume else 1.0
        if low <= median * factor <= high:
            fits[unit] = factor
    if not fits:
        asked = 'check its Units' if stated else 'state its Units in the sidecar'
        raise PerfusionError(
            f'the median of {word} over tissue is {median:.3g}'
            + (f' {stated}' if stated else ', without a unit stated')
            + f'; {low:.3g} to {high:.3g}{_shown(standard)} are plausible: {asked}'
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
    """Say that Tmax and MTT can hardly be in the units that were taken.

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
    """Tell where maps have values: something above 0 in one of them, once resampled or masked.

    Parameters
    ----------
    maps : sequence of (X, Y, Z) array
        NaN and 0 are no value.

    Returns
    -------
    (X, Y, Z) array of bool

    Raises
    ------
    PerfusionError
        If hardly a voxel has one.
    """
    found = np.zeros(maps[0].shape, dtype=bool)
    for each in maps:
        found |= np.isfinite(each) & (each > 0)
    if found.sum() < LEAST_VOXELS:
        raise PerfusionError(
            f'the maps are empty: {found.sum()} voxels are above 0, at least {LEAST_VOXELS} are '
            'needed'
        )
    return found


def brain_of_maps(values, voxel_size_mm):
    """Find the brain from where maps have values: closed, filled, the largest piece.

    Parameters
    ----------
    values : (X, Y, Z) array of bool
        As `valued` returns it.
    voxel_size_mm : (3,) sequence of float

    Returns
    -------
    (X, Y, Z) array of bool

    Raises
    ------
    PerfusionError
        If values fill the image, so that it has no outline of a brain.
    """
    slices = values.any(axis=(0, 1))
    filled = float(values[..., slices].mean())
    if filled > MOST_FILLED:
        raise PerfusionError(
            f'brain mask: the maps have values in {filled:.0%} of their image, so that the brain '
            'cannot be told; give a mask (--brain-mask) or a baseline CT'
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
        Slices whose voxels lie on a line stay as they are.

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


def brain_of_ct(density, values, voxel_size_mm, *, bone_hu, csf_hu):
    """Find the brain in a baseline CT, as far as the maps reach.

    Parameters
    ----------
    density : (X, Y, Z) array
        Baseline CT on the grid of the maps, HU.
    values : (X, Y, Z) array of bool
        As `valued` returns it.
    voxel_size_mm : (3,) sequence of float
    bone_hu, csf_hu : float
        HU.

    Returns
    -------
    (X, Y, Z) array of bool

    Raises
    ------
    PerfusionError
        If no brain is seen inside bone.
    """
    found, _ = brain.brain_masks(density, density, voxel_size_mm, bone_hu=bone_hu, csf_hu=csf_hu)
    # the CT reaches beyond the slab of the maps; a core without any value is not beyond
    reach = hull_in_plane(brain.largest(ndimage.binary_opening(values, brain.IN_PLANE)))
    return found & reach


def share_inside(density, values):
    """Tell how much of the maps lies on the soft tissue of a CT: whether both are in one place.

    Parameters
    ----------
    density : (X, Y, Z) array
        HU.
    values : (X, Y, Z) array of bool
        As `valued` returns it.

    Returns
    -------
    float
        Share of the values on soft tissue, or, since maps may have values on bone and air, share of
        the soft tissue in their slices that has one, if that is more.
    """
    low, high = brain.SOFT_HU
    smooth = ndimage.gaussian_filter(np.asarray(density, dtype=np.float32), (1, 1, 0))
    soft = (smooth > low) & (smooth < high)
    held = values[..., values.any(axis=(0, 1))][soft[..., values.any(axis=(0, 1))]]
    return max(float(soft[values].mean()), float(held.mean()) if held.size else 0.0)


def check_mask(mask, values, name):
    """Refuse a supplied mask that is empty or lies elsewhere than the maps.

    Parameters
    ----------
    mask : (X, Y, Z) array of bool
        On the grid of the maps.
    values : (X, Y, Z) array of bool
        As `valued` returns it.
    name : str
        Of the file, for messages.

    Raises
    ------
    PerfusionError
    """
    share = float(values[mask].mean()) if mask.any() else 0.0
    if share < LEAST_ON_VALUES:
        raise PerfusionError(
            f'{name}: {share:.0%} of its voxels have a value in the maps, at least '
            f'{LEAST_ON_VALUES:.0%} are needed; is it in the space of the maps?'
        )


def csf_of_maps(flow, volume, brain_mask, voxel_size_mm):
    """Find CSF without a CT: hardly any flow and, if CBV is there, hardly any blood.

    A core may read the same where software sets it to 0: it is taken for CSF then.

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
    for each in (flow, volume):
        if each is not None:
            sigma = [0.8 / voxel_size_mm[0], 0.8 / voxel_size_mm[1], 0]
            smooth = smooth_within(np.nan_to_num(each), brain_mask, sigma)
            empty &= smooth <= limit * np.median(each[brain_mask & (each > 0)])
    return empty


def vessels_of_maps(blood, brain_mask, vessel_ratio):
    """Find vessels: voxels with far more blood (or flow) than brain.

    Parameters
    ----------
    blood : (X, Y, Z) array
        CBV, or CBF in its stead.
    brain_mask : (X, Y, Z) array of bool
    vessel_ratio : float
        Limit relative to the median.

    Returns
    -------
    (X, Y, Z) array of bool
    """
    there = np.nan_to_num(blood)
    return brain_mask & (there > vessel_ratio * np.median(there[brain_mask & (there > 0)]))


def on_grid(density, affine, shape, grid_affine, outside):
    """Resample an image to the grid of the maps by the affines alone, linearly.

    Parameters
    ----------
    density : (X, Y, Z) array
    affine : (4, 4) array
        Voxel to patient coordinates, mm.
    shape : (3,) tuple of int
    grid_affine : (4, 4) array
        The grid that is wanted.
    outside : float
        Value beyond the image.

    Returns
    -------
    array of float32
        Of `shape`. The image itself if the grids are the same; averaged over about a voxel of the
        grid where its own are finer.
    """
    matrix = np.linalg.inv(np.asarray(affine, dtype=float)) @ grid_affine
    same = shape == density.shape and np.abs(matrix - np.eye(4)).max() * max(shape) < 0.01
    if same:
        return np.asarray(density, dtype=np.float32)
    step = np.abs(matrix[:3, :3]).max(axis=1)  # voxels of the image in one of the grid
    smooth = ndimage.gaussian_filter(
        np.asarray(density, dtype=np.float32), np.maximum(step - 1, 0) / 2, mode='nearest'
    )
    return ndimage.affine_transform(
        smooth, matrix[:3, :3], matrix[:3, 3], shape, order=1, cval=outside, output=np.float32
    )


def substitute(blood, tissue_mask, window):
    """Scale a map so that it can be mirrored and registered in the stead of a CT.

    Parameters
    ----------
    blood : (X, Y, Z) array
        CBV, or CBF.
    tissue_mask : (X, Y, Z) array of bool
    window : (float, float)
        Densities that the registration sees, HU: tissue fills them up to its 98th percentile.

    Returns
    -------
    (X, Y, Z) array of float32
        Without a unit; the lower end of the window where there is no value.
    """
    low, high = window
    top = float(np.percentile(blood[tissue_mask & (blood > 0)], TOP_PERCENTILE))
    scaled = np.clip(np.nan_to_num(blood) / top, 0, 1) * (high - low) + low
    return np.where(np.isfinite(blood), scaled, low).astype(np.float32)
