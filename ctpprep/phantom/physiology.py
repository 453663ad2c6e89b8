# SPDX-License-Identifier: Apache-2.0
"""Flow, volume and delay of the tissue, with microangiopathy and infarcts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from ctpprep.phantom.fields import (
    ORIGIN,
    SPACING,
    Fields,
    draw_smooth_field,
    smooth_step,
    stack_fields,
    symmetrize,
)
from ctpprep.phantom.geometry import Grid, Shape
from ctpprep.phantom.settings import PhantomSettings

# Normal values: CBF mL/100 g/min, CBV mL/100 g, delay s, baseline HU. The variation drawn below
# stays within the range published for the tissue.
GREY = {'cbf': 60.0, 'cbv': 4.0, 'delay': 1.0, 'hu': 37.0}
WHITE = {'cbf': 24.0, 'cbv': 2.15, 'delay': 1.75, 'hu': 29.0}
MICROANGIOPATHY = {'cbf': 11.0, 'cbv': 1.4, 'delay': 3.25, 'hu': 25.5}


def draw_variation(
    settings: PhantomSettings, rng: np.random.Generator, skull_rng: np.random.Generator
) -> Fields:
    """Draw smooth spatial variation (SD 1): ``flow, volume, delay, damage, bone``.

    ``damage`` is symmetric: it extends microangiopathy further from the ventricles. Mixed residue
    functions need one more field, ``mixture``, and a detailed skull ``rough``.
    """
    names, widths = ('flow', 'volume', 'delay', 'damage', 'bone'), (14, 14, 20, 10, 24)
    fields = {n: draw_smooth_field(rng, w) for n, w in zip(names, widths, strict=True)}
    even = symmetrize(fields['damage'])
    fields['damage'] = even / even.std()
    if settings.residue == 'mixed':
        fields['mixture'] = draw_smooth_field(rng, 14)
    if settings.head.skull == 'detailed':
        fields['rough'] = draw_smooth_field(skull_rng, 5)
    return stack_fields(ORIGIN, SPACING, **fields)


@dataclass(frozen=True)
class Lesion:
    """Level functions of core and whole lesion, and the levels that yield the volumes."""

    sign: int  # of template x: -1 left, 1 right
    ragged: Fields
    core_level: float = np.nan
    whole_level: float = np.nan

    def levels(self, points: np.ndarray) -> list[np.ndarray]:
        """Evaluate the level functions of core and whole lesion; inf outside the territory."""
        ragged = 0.1 * self.ragged(points)['edge']
        # The MCA territory ends before the midline (ACA, corpus callosum).
        territory = self.sign * points[0] > 10
        return [
            np.where(territory, self._ellipsoid(points, *ellipsoid) + ragged, np.inf)
            for ellipsoid in (((36, 0, 14), (20, 30, 22)), ((42, -8, 18), (26, 46, 34)))
        ]

    def depths(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the depths inside core and whole lesion; -inf outside the territory."""
        core, whole = self.levels(points)
        return self.core_level - core, self.whole_level - whole

    def _ellipsoid(self, points: np.ndarray, centre: ArrayLike, axes: ArrayLike) -> np.ndarray:
        """Return the distance from the centre in units of the axes."""
        centre = np.multiply(centre, (self.sign, 1, 1))
        scaled = (points - centre[:, None]) / np.array(axes, float)[:, None]
        return np.sqrt((scaled**2).sum(axis=0))


@dataclass(frozen=True)
class OldInfarct:
    """An ellipsoid of CSF in the territory of a posterior or an anterior artery."""

    centre: np.ndarray  # (3,) template mm
    axes: np.ndarray  # (3,) mm
    ragged: Fields
    radius: float = np.nan  # in units of the axes

    def distance(self, points: np.ndarray) -> np.ndarray:
        """Return the distance from the centre in units of the axes; inf in the other side."""
        scaled = np.linalg.norm((points - self.centre[:, None]) / self.axes[:, None], axis=0)
        scaled += 0.12 * self.ragged(points)['edge']
        return np.where(points[0] * self.centre[0] > 0, scaled, np.inf)

    def contains(self, points: np.ndarray) -> np.ndarray:
        """Mark the (3, N) template positions inside."""
        return self.distance(points) < self.radius


def draw_old_infarct(
    settings: PhantomSettings, rng: np.random.Generator, grid: Grid, shape: Shape
) -> OldInfarct | None:
    """Draw an old infarct opposite the lesion, or on a random side, of the volume asked for."""
    sign, place = rng.choice((-1, 1)), rng.integers(2)
    if not settings.head.old_infarct_ml:
        return None
    if len(settings.lesion_signs) == 1:
        sign = -settings.lesion_signs[0]
    centre, axes = (((28, -66, 14), (20, 26, 24)), ((26, 38, 18), (20, 24, 26)))[place]
    ragged = stack_fields(ORIGIN, SPACING, edge=draw_smooth_field(rng, 7.0))
    position = np.multiply(centre, (sign, 1, 1)).astype(float)
    infarct = OldInfarct(position, np.array(axes, float), ragged)
    points, tissue_ml = _measure_tissue(grid, shape)
    level = infarct.distance(points)
    radius = _level_for_volume(level, tissue_ml, settings.head.old_infarct_ml)
    return replace(infarct, radius=radius)


def _measure_tissue(grid: Grid, shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Return template positions (3, N) of the acquired voxels and their tissue, mL."""
    centres = grid.centres()
    return shape.to_template(centres), shape.tissue(centres) * np.prod(grid.voxel) / 1000


def draw_lesions(
    settings: PhantomSettings,
    rng: np.random.Generator,
    grid: Grid,
    shape: Shape,
    old_infarct: OldInfarct | None,
) -> list[Lesion]:
    """Draw the lesions, none or one for each affected side."""
    if not settings.lesion_signs:
        return []
    points, tissue_ml = _measure_tissue(grid, shape)
    if old_infarct is not None:
        tissue_ml = tissue_ml * ~old_infarct.contains(points)
    return [_draw_lesion(sign, settings, rng, points, tissue_ml) for sign in settings.lesion_signs]


def _draw_lesion(
    sign: int,
    settings: PhantomSettings,
    rng: np.random.Generator,
    points: np.ndarray,
    tissue_ml: np.ndarray,
) -> Lesion:
    """Grow core and penumbra until each contains its volume of tissue inside the slab."""
    ragged = stack_fields(ORIGIN, SPACING, edge=draw_smooth_field(rng, 9.0))
    lesion = Lesion(sign, ragged)
    core_ml, penumbra_ml = settings.lesion_volumes_ml
    core, whole = lesion.levels(points)
    core_level = _level_for_volume(core, tissue_ml, core_ml)
    whole = np.where(core < core_level, -1.0, whole)
    whole_level = -np.inf
    if penumbra_ml > 0:
        whole_level = _level_for_volume(whole, tissue_ml, core_ml + penumbra_ml)
    return replace(lesion, core_level=core_level, whole_level=whole_level)


def _level_for_volume(level: np.ndarray, volumes_ml: np.ndarray, target_ml: float) -> float:
    """Find the level below which the volumes add up to the target."""
    if target_ml == 0:
        return -np.inf
    inside = np.flatnonzero(np.isfinite(level))
    order = inside[np.argsort(level[inside])]
    last = int(np.searchsorted(np.cumsum(volumes_ml[order]), target_ml))
    return float(level[order[min(last, len(order) - 1)]])


def perfuse(
    points: np.ndarray,
    white: np.ndarray,
    ventricle: np.ndarray,
    variation: Mapping[str, np.ndarray],
    settings: PhantomSettings,
    lesions: Sequence[Lesion],
) -> dict[str, np.ndarray]:
    """Assign flow, volume, delay and density to brain tissue.

    Parameters
    ----------
    points : (3, N) array
        Template mm.
    white, ventricle : (N,) array
        White-matter fraction; distance to the lateral ventricles, mm.
    variation : dict of (N,) arrays
        The fields of :func:`draw_variation` at these points.

    Returns
    -------
    dict of (N,) arrays
        cbf (mL/100 g/min), cbv (mL/100 g), delay (s), hu; core, penumbra, microangiopathy, slow
        (bool; slow: supplied by the slow arteries); mixture (share of the exponential) if the
        residue functions are mixed.
    """
    damage = grade = np.zeros_like(white)
    if settings.microangiopathy:
        grade = _grade_damage(points, white, ventricle, variation['damage'], settings)
        damage = (0.4 + 0.6 * settings.microangiopathy) * grade
    values: dict[str, np.ndarray] = {}
    for name in GREY:
        normal = GREY[name] + white * (WHITE[name] - GREY[name])
        values[name] = normal + damage * (MICROANGIOPATHY[name] - normal)
    flow = 1 + 0.08 * np.clip(variation['flow'], -2, 2)
    values['cbf'] *= flow
    # CBV follows CBF in part, so that MTT varies less than either.
    values['cbv'] *= 0.5 + 0.5 * flow + 0.03 * np.clip(variation['volume'], -1.5, 1.5)
    values['delay'] += 0.22 * np.clip(variation['delay'], -2, 2)
    values['microangiopathy'] = grade > 0.5
    if settings.residue == 'mixed':
        values['mixture'] = np.clip(0.5 + 0.3 * variation['mixture'], 0, 1)
    values |= _injure(points, values, lesions, settings.head.core_hu)
    values['slow'] = settings.slow_sign * points[0] > 0
    values['delay'] = values['delay'] + settings.bolus.side_delay_s * values['slow']
    return values


def _grade_damage(
    points: np.ndarray,
    white: np.ndarray,
    ventricle: np.ndarray,
    variation: np.ndarray,
    settings: PhantomSettings,
) -> np.ndarray:
    """Grade microangiopathy of the white matter from 0 to 1; symmetric."""
    extent = 0.5 + 0.5 * settings.microangiopathy
    reach = extent * (13 + 3.5 * np.clip(variation, -2, 2))
    near = smooth_step(reach - ventricle, -1.0, 1.0)
    # Corpus callosum and temporal white matter are spared.
    spared = smooth_step(np.abs(points[0]), 7, 10) * smooth_step(points[2], 2, 8)
    return near * spared * smooth_step(white, 0.5, 0.8)


def _injure(
    points: np.ndarray,
    values: Mapping[str, np.ndarray],
    lesions: Sequence[Lesion],
    core_hu: float | None,
) -> dict[str, np.ndarray]:
    """Reduce flow and delay arrival in penumbra and core; return the changed quantities."""
    n = points.shape[1]
    if not lesions:
        return {'core': np.zeros(n, bool), 'penumbra': np.zeros(n, bool)}
    # Territories do not overlap: in each, the depth of the other lesion is -inf.
    core_depth, rim_depth = np.max([lesion.depths(points) for lesion in lesions], axis=0)
    core = core_depth > 0
    penumbra = ~core & (rim_depth > 0)
    # Severity in penumbra: 0 at the rim, 1 at the core; in core: 0 at its border, 1 deep inside.
    to_core = np.where(np.isfinite(core_depth), -core_depth, 1.0)
    grade = np.where(penumbra, rim_depth / np.maximum(rim_depth + to_core, 1e-6), 0)
    depth = np.clip(core_depth / 0.5, 0, 1)
    changed: dict[str, np.ndarray] = {}
    for name, rim, edge, border, deep in (
        ('cbf', 0.60, 0.40, 0.20, 0.05), ('cbv', 1.15, 0.90, 0.40, 0.20),
    ):  # fmt: skip
        factor = np.where(penumbra, rim + (edge - rim) * grade, 1.0)
        changed[name] = values[name] * np.where(core, border + (deep - border) * depth, factor)
    late = np.where(penumbra, 4 + 3 * grade, 0) + np.where(core, 7 + 2 * depth, 0)
    changed['delay'] = values['delay'] + late
    lost = 2 + 3 * depth if core_hu is None else core_hu
    changed['hu'] = values['hu'] - np.where(core, lost, 0)
    return changed | {'core': core, 'penumbra': penumbra}
