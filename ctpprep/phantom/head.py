# SPDX-License-Identifier: Apache-2.0
"""The head in the pose of frame 0 on the fine grid: tissue, vessels, bone and their HU."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from ctpprep.phantom.anatomy import load_template
from ctpprep.phantom.artefacts import CLIP_RADIUS, METAL_HU, Metal, draw_metal, place_clip
from ctpprep.phantom.fields import Fields
from ctpprep.phantom.geometry import Grid, Shape
from ctpprep.phantom.physiology import Lesion, perfuse
from ctpprep.phantom.settings import PhantomSettings
from ctpprep.phantom.vessels import Vessels, lay_vessels

CSF_HU, BLOOD_HU, THROMBUS_HU, SCALP_HU, AIR_HU = 5.0, 42.0, 60.0, 40.0, -1000.0


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
    """

    static: np.ndarray
    inside: np.ndarray
    values: dict[str, np.ndarray]
    metal: Metal | None = None


def build_head(
    settings: PhantomSettings,
    grid: Grid,
    shape: Shape,
    variation: Fields,
    lesions: Sequence[Lesion],
    rng: np.random.Generator,
) -> Head:
    """Fill the fine grid plane by plane, which keeps the temporary arrays small."""
    vessels = lay_vessels(settings)
    tree = cKDTree(vessels.points)
    clip = metal = None
    if settings.scanner.metal:
        clip = shape.to_patient(place_clip(-settings.slow_sign)[:, None])[:, 0]
        metal = draw_metal(rng, clip)
    static = np.full(grid.fine_shape, AIR_HU, np.float32)
    parts, inside = [], []
    for plane in range(grid.fine_shape[2]):
        positions = grid.fine_plane(plane)
        head = np.flatnonzero(_is_near_head(positions, grid, shape))
        points = shape.to_template(positions[:, head])
        local = load_template().surfaces(points) | variation(points)
        hu = _shell_hu(local['skull'], local['bone'])
        soft = np.flatnonzero(local['skull'] < 0.5)
        values = _build_soft(
            points[:, soft],
            {name: value[soft] for name, value in local.items()},
            settings, lesions, vessels, tree,
        )  # fmt: skip
        bone = 1 - values['soft']
        hu[soft] = values.pop('content') + bone * hu[soft]
        if clip is not None:
            distance = np.linalg.norm(positions[:, head] - clip[:, None], axis=0)
            hu += np.clip(0.5 + CLIP_RADIUS - distance, 0, 1) * (METAL_HU - hu)
        static.reshape(-1, grid.fine_shape[2])[head, plane] = hu
        parts.append(values)
        inside.append(head[soft] * grid.fine_shape[2] + plane)
    values = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Head(static, np.concatenate(inside), values, metal)


def _is_near_head(positions: np.ndarray, grid: Grid, shape: Shape) -> np.ndarray:
    """Mark the points of a fine plane that may be inside the head, from a coarse sample."""
    nx, ny, _ = grid.fine_shape
    step = 4
    coarse = positions.reshape(3, nx, ny)[:, ::step, ::step]
    skull = load_template().skull_distance(shape.to_template(coarse.reshape(3, -1)))
    near = (skull < 20 + 2 * step * grid.fine_voxel.max()).reshape(coarse.shape[1:])
    return near.repeat(step, axis=0).repeat(step, axis=1)[:nx, :ny].ravel()


def _build_soft(
    points: np.ndarray,
    local: Mapping[str, np.ndarray],
    settings: PhantomSettings,
    lesions: Sequence[Lesion],
    vessels: Vessels,
    tree: cKDTree,
) -> dict[str, np.ndarray]:
    """Compute fractions, physiology, vessels and HU content inside the skull.

    Parameters
    ----------
    points : (3, N) array
        Template mm.
    local : dict of (N,) arrays
        Distances to the template's surfaces, and the variation.
    settings, lesions, vessels
    tree : cKDTree
        Of the points of the vessels.
    """
    matter = load_template().matter(points)
    values = perfuse(points, matter['white'], local['ventricle'], local, settings, lesions)
    values |= _read_vessels(points, vessels, tree)
    soft = np.clip(0.5 - local['skull'], 0, 1)  # fraction that is not bone
    values['soft'] = soft
    values['brain'] = local['brain'] < 0
    values['vessel'] *= soft
    values['tissue'] = matter['tissue'] * (local['brain'] < 3) * (soft - values['vessel'])
    values['csf'] = np.maximum(soft - values['tissue'] - values['vessel'], 0)
    clot = values['vessel_gain'] == 0
    values['content'] = (
        values['tissue'] * (values.pop('hu') + settings.head.brain_hu)
        + values['csf'] * CSF_HU
        + values['vessel'] * np.where(clot, THROMBUS_HU, BLOOD_HU + settings.head.brain_hu)
        # Beam hardening: a few HU more next to the bone, decreasing towards the centre.
        + soft * settings.scanner.beam_hardening_hu * np.exp(np.minimum(local['skull'], 0) / 7.0)
    )
    return {name: _to_float32(value) for name, value in values.items()}


def _to_float32(values: np.ndarray) -> np.ndarray:
    """Convert to float32, except booleans."""
    return values if values.dtype == bool else values.astype(np.float32)


def _shell_hu(distance: np.ndarray, bone: np.ndarray) -> np.ndarray:
    """Return HU of skull (two tables around diploe), scalp and air by distance from the inner table.

    `bone` is the variation of the thickness, SD 1.
    """
    thickness = 6.5 + 1.0 * np.clip(bone, -2, 2)
    # The skull spans 0-1; outside it, the position is 1 plus the distance in mm.
    position = np.where(distance < thickness, distance / thickness, 1 + distance - thickness)
    return np.interp(
        position,
        [0.0, 0.05, 0.22, 0.4, 0.6, 0.78, 1.0, 1.5, 5.5, 6.5],
        [900, 1150, 1100, 650, 650, 1100, 1150, SCALP_HU, SCALP_HU, AIR_HU],
    )


def _read_vessels(points: np.ndarray, vessels: Vessels, tree: cKDTree) -> dict[str, np.ndarray]:
    """Compute the vessel fraction of fine voxels, and gain and delay of the nearest vessel."""
    n = points.shape[1]
    values = {
        'vessel': np.zeros(n), 'vessel_delay': np.zeros(n), 'vessel_gain': np.ones(n),
        'is_vein': np.zeros(n, bool), 'vessel_slow': np.zeros(n, bool),
    }  # fmt: skip
    close = np.flatnonzero(vessels.near(points)['distance'] < vessels.radius.max() + 4)
    distance, nearest = tree.query(points[:, close].T)
    values['vessel'][close] = np.clip(0.5 + vessels.radius[nearest] - distance, 0, 1)
    values['vessel_delay'][close] = vessels.delay[nearest]
    values['vessel_gain'][close] = vessels.gain[nearest]
    values['is_vein'][close] = vessels.is_vein[nearest]
    values['vessel_slow'][close] = vessels.is_slow[nearest]
    return values
