# SPDX-License-Identifier: Apache-2.0
"""The head in the pose of frame 0 on the fine grid: tissue, vessels, bone and their HU."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from ctpprep.phantom.anatomy import load_template
from ctpprep.phantom.artefacts import CLIP_RADIUS, METAL_HU, Metal
from ctpprep.phantom.fields import Fields
from ctpprep.phantom.geometry import Grid, Shape
from ctpprep.phantom.physiology import Lesion, OldInfarct, perfuse
from ctpprep.phantom.settings import PhantomSettings
from ctpprep.phantom.skull import AIR_HU, extrude_head, remove_bone, surround_brain
from ctpprep.phantom.vessels import Vessels, lay_vessels

CSF_HU, BLOOD_HU, THROMBUS_HU, CALCIUM_HU = 5.0, 42.0, 60.0, 250.0


# calcified choroid plexus, pineal gland and two plates of the falx: centre and axes, template mm
_CALCIFICATIONS = (
    ((23, -42, 8), (2.5, 4.0, 3.0)),
    ((0, -32, 2), (2.5, 2.5, 2.0)),
    ((0, 38, 34), (1.2, 9.0, 6.0)),
    ((0, -20, 62), (1.2, 7.0, 5.0)),
)
VESSEL_VALUES = ('vessel_delay', 'vessel_gain', 'is_vein', 'vessel_slow')


@dataclass
class Head:
    """The head of frame 0 on the fine grid.

    Attributes
    ----------
    static : (x, y, z) float32 array
        HU without contrast, on the fine grid.
    inside : (N,) int array
        Flat indices of the fine voxels inside the skull.
    values : dict of (N,) arrays
        Fractions (tissue, csf, vessel, brain), physiology, and gain and delay of vessels.
    metal : Metal or None
        Streaks of a clip.
    holder : (x, y, z) float32 array or None
        HU of what does not move with the head.
    """

    static: np.ndarray
    inside: np.ndarray
    values: dict[str, np.ndarray]
    metal: Metal | None = None
    holder: np.ndarray | None = None


def build_head(
    settings: PhantomSettings,
    grid: Grid,
    shape: Shape,
    variation: Fields,
    lesions: Sequence[Lesion],
    old_infarct: OldInfarct | None,
    metal: Metal | None,
) -> Head:
    """Fill the fine grid plane by plane, which keeps the temporary arrays small."""
    traits = settings.head
    vessels = lay_vessels(settings, variation)
    tree = cKDTree(vessels.points)
    static = np.full(grid.fine_shape, AIR_HU, np.float32)
    parts, inside = [], []
    for plane in range(grid.fine_shape[2]):
        positions = grid.fine_plane(plane)
        head = np.flatnonzero(_is_near_head(positions, grid, shape, traits.skull))
        points = shape.to_template(positions[:, head])
        local = load_template().surfaces(points) | variation(points)
        local['skull'], hu = surround_brain(points, local, traits.skull)
        if traits.skull_defect_mm:
            hu = remove_bone(points, hu, settings.slow_sign, traits.skull_defect_mm)
        blood = read_vessels(points, vessels, tree)
        # Vessels run in bone of the detailed skull, and in scalp.
        carves = (traits.skull == 'detailed') | (
            traits.extracranial_vessels & (local['skull'] > 4)
        )
        blood['carved'] = carves & (-blood['vessel_depth'] < local['skull'])
        carved = blood['carved']
        local['skull'][carved] = -blood['vessel_depth'][carved]
        soft = np.flatnonzero(local['skull'] < 0.5)
        values = _build_soft(
            points[:, soft],
            {name: value[soft] for name, value in (local | blood).items()},
            settings, lesions, old_infarct,
        )  # fmt: skip
        bone = 1 - values['soft']
        hu[soft] = values.pop('content') + bone * hu[soft]
        if metal is not None:
            distance = np.linalg.norm(positions[:, head] - metal.position[:, None], axis=0)
            hu += np.clip(0.5 + CLIP_RADIUS - distance, 0, 1) * (METAL_HU - hu)
        static.reshape(-1, grid.fine_shape[2])[head, plane] = hu
        parts.append(values)
        inside.append(head[soft] * grid.fine_shape[2] + plane)
    values = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Head(static, np.concatenate(inside), values, metal)


def _is_near_head(positions: np.ndarray, grid: Grid, shape: Shape, skull: str) -> np.ndarray:
    """Mark the points of a fine plane that may be inside the head, from a coarse sample."""
    nx, ny, _ = grid.fine_shape
    step = 4
    coarse = positions.reshape(3, nx, ny)[:, ::step, ::step]
    points = shape.to_template(coarse.reshape(3, -1))
    if skull == 'detailed':
        points = extrude_head(points)
    distance = load_template().skull_distance(points)
    near = (distance < 20 + 2 * step * grid.fine_voxel.max()).reshape(coarse.shape[1:])
    return near.repeat(step, axis=0).repeat(step, axis=1)[:nx, :ny].ravel()


def _build_soft(
    points: np.ndarray,
    local: Mapping[str, np.ndarray],
    settings: PhantomSettings,
    lesions: Sequence[Lesion],
    old_infarct: OldInfarct | None,
) -> dict[str, np.ndarray]:
    """Compute fractions, physiology, vessels and HU content inside the skull.

    Parameters
    ----------
    points : (3, N) array
        Template mm.
    local : dict of (N,) arrays
        Distances to surfaces, the variation, and the vessels.
    settings, lesions, old_infarct
    """
    matter = load_template().matter(points)
    values = perfuse(points, matter['white'], local['ventricle'], local, settings, lesions)
    values |= {name: local[name] for name in VESSEL_VALUES}
    soft = np.clip(0.5 - local['skull'], 0, 1)  # fraction that is not bone
    values['soft'] = soft
    values['brain'] = (local['brain'] < 0) & (local['skull'] < 0)
    values['vessel'] = np.where(local['carved'], local['vessel'], local['vessel'] * soft)
    values['tissue'] = matter['tissue'] * (local['brain'] < 3) * (soft - values['vessel'])
    if old_infarct is not None:
        values['old_infarct'] = old_infarct.contains(points) & values['brain']
        values['tissue'] *= ~values['old_infarct']
    values['csf'] = np.maximum(soft - values['tissue'] - values['vessel'], 0)
    clot = values['vessel_gain'] == 0
    values['content'] = (
        values['tissue'] * (values.pop('hu') + settings.head.brain_hu)
        + values['csf'] * CSF_HU
        + values['vessel'] * np.where(clot, THROMBUS_HU, BLOOD_HU + settings.head.brain_hu)
        # Beam hardening: a few HU more next to the bone, decreasing towards the centre.
        + soft * settings.scanner.beam_hardening_hu * np.exp(np.minimum(local['skull'], 0) / 7.0)
    )
    if settings.head.skull == 'detailed':
        values['content'] -= soft * 2 * settings.scanner.beam_hardening_hu * _dark_band(points)
    if settings.head.calcifications:
        calcium = soft * _calcify(points)
        for name in ('tissue', 'csf', 'vessel'):
            values[name] = values[name] * (1 - calcium)
        values['content'] += calcium * (CALCIUM_HU - values['content'])
    return {name: _to_float32(value) for name, value in values.items()}


def _dark_band(points: np.ndarray) -> np.ndarray:
    """Return the weight of the dark band between the petrous bones, up to 1."""
    x, y, z = points
    return np.exp(-(((x / 22) ** 4) + ((y + 24) / 9) ** 2 + ((z + 33) / 7) ** 2) / 2)


def _calcify(points: np.ndarray) -> np.ndarray:
    """Return the fraction of calcium in plexus, pineal gland and falx."""
    x, y, z = points
    fraction = np.zeros(points.shape[1])
    for centre, axes in _CALCIFICATIONS:
        offset = np.stack([np.abs(x) - centre[0], y - centre[1], z - centre[2]])
        radius = np.linalg.norm(offset / np.array(axes)[:, None], axis=0)
        fraction = np.maximum(fraction, np.clip(0.5 + (1 - radius) * min(axes), 0, 1))
    return fraction


def _to_float32(values: np.ndarray) -> np.ndarray:
    """Convert to float32, except booleans."""
    return values if values.dtype == bool else values.astype(np.float32)


def read_vessels(points: np.ndarray, vessels: Vessels, tree: cKDTree) -> dict[str, np.ndarray]:
    """Compute the vessel fraction of fine voxels, and gain and delay of the nearest vessel."""
    n = points.shape[1]
    values = {
        'vessel_depth': np.full(n, -np.inf), 'vessel': np.zeros(n),
        'vessel_delay': np.zeros(n), 'vessel_gain': np.ones(n),
        'is_vein': np.zeros(n, bool), 'vessel_slow': np.zeros(n, bool),
    }  # fmt: skip
    close = np.flatnonzero(vessels.near(points)['distance'] < vessels.radius.max() + 4)
    distance, nearest = tree.query(points[:, close].T)
    values['vessel_depth'][close] = vessels.radius[nearest] - distance
    values['vessel'][close] = np.clip(0.5 + vessels.radius[nearest] - distance, 0, 1)
    values['vessel_delay'][close] = vessels.delay[nearest]
    values['vessel_gain'][close] = vessels.gain[nearest]
    values['is_vein'][close] = vessels.is_vein[nearest]
    values['vessel_slow'][close] = vessels.is_slow[nearest]
    return values
