# SPDX-License-Identifier: Apache-2.0
"""Bone and soft tissue around the brain: a plain shell, or a skull with base and air cells."""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from ctpprep.phantom.anatomy import close_mask, load_template, signed_distance
from ctpprep.phantom.fields import Fields, smooth_step, stack_fields

SCALP_HU, AIR_HU = 40.0, -1000.0
_TABLE_HU, _DIPLOE_HU, _PETROUS_HU, _FAT_HU, _GLOBE_HU = 1250.0, 520.0, 1800.0, -80.0, 12.0
_CUT = -20.0  # template z, mm; below it the head is extruded: the template ends with the brain

# Ridges of bone between the parts of the brain, on the right (+x): ends, radius at both, mm.
_PETROUS = ((11, -13, -37), (54, -33, -31), 5.0, 9.0)
_RIDGES = (
    ((12, 13, -22), (58, 24, -16), 2.5, 3.0),  # lesser wing of the sphenoid bone
    ((9, 10, -21), (10, 5, -21), 1.8, 1.5),  # anterior clinoid process
    ((0, -9, -25), (7, -9, -24), 2.0, 1.5),  # dorsum sellae
    ((0, 46, -28), (0, 58, -18), 2.0, 1.2),  # crista galli
    ((0, -101, -8), (0, -93, -38), 4.5, 3.5),  # internal occipital crest
)
# Centre, axes in mm and HU, on the right; later ones replace earlier ones.
_FACE: tuple[tuple[ArrayLike, ArrayLike, float], ...] = (
    ((9, 76, -8), (17, 12, 20), SCALP_HU),
    ((9, 75, -8), (14, 8.5, 17), _TABLE_HU),
    ((9, 75, -8), (11, 4.5, 13), AIR_HU),  # frontal sinus
    ((32, 48, -42), (21, 28, 17), _TABLE_HU),
    ((32, 50, -42), (18.5, 28, 14.5), _FAT_HU),  # orbit
    ((32, 62, -42), (12, 12, 12), _GLOBE_HU),
    ((0, 44, -40), (14, 30, 14), _TABLE_HU),
    ((6, 46, -42), (5, 24, 12), AIR_HU),  # ethmoid cells and nose
    ((0, 12, -38), (20, 20, 15), _TABLE_HU),  # body of the sphenoid bone
    ((7, 16, -35), (6, 10, 8), AIR_HU),  # sphenoid sinus
    ((0, -14, -46), (14, 10, 22), 800.0),  # clivus
)
_MASTOID = ((55, -38, -40), (13, 15, 17))


@lru_cache(maxsize=1)
def load_base() -> Fields:
    """Derive the skull base, which follows the brain more closely than the vault (1 s)."""
    matter = load_template().matter
    tissue = matter.values[::2, ::2, ::2, matter.names.index('tissue')] > 0.5
    return stack_fields(matter.origin, 2.0, base=signed_distance(close_mask(tissue, 5.0)) - 2.0)


def surround_brain(
    points: np.ndarray, local: Mapping[str, np.ndarray], skull: str
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the distance to the inside of the skull, and HU of what is not inside.

    Parameters
    ----------
    points : (3, N) array
        Template mm.
    local : dict of (N,) arrays
        Distance to the plain inner table (``skull``, mm), variation of the thickness (``bone``)
        and, for a detailed skull, roughness of its surface (``rough``), SD 1.
    skull : {'smooth', 'detailed'}

    Returns
    -------
    distance, hu : (N,) array
        mm, negative inside; HU.
    """
    if skull == 'smooth':
        return local['skull'], _shell_hu(local['skull'], local['bone'])
    return _build_detailed(points, local)


def extrude_head(points: np.ndarray) -> np.ndarray:
    """Move (3, N) template positions below the template's head up to where it is complete."""
    return np.stack([points[0], points[1], np.maximum(points[2], _CUT)])


def remove_bone(points: np.ndarray, hu: np.ndarray, sign: int, diameter_mm: float) -> np.ndarray:
    """Replace bone by tissue of the density of scalp in a cylinder through one side.

    The axis runs from the centre of the head through the parietal bone of the side with this
    sign of template x.
    """
    centre, axis = np.array([0.0, -15.0, 15.0]), np.array([0.88 * sign, 0.12, 0.46])
    from_centre = points - centre[:, None]
    along = axis @ from_centre / np.linalg.norm(axis)
    lateral = np.sqrt(np.maximum((from_centre**2).sum(axis=0) - along**2, 0))
    removed = np.clip(0.5 + diameter_mm / 2 - lateral, 0, 1) * (along > 0)
    return hu + removed * (np.minimum(hu, SCALP_HU) - hu)


def skull_thickness(bone: np.ndarray) -> np.ndarray:
    """Return the thickness of the vault, mm; `bone` is its variation, SD 1."""
    return 6.5 + 1.0 * np.clip(bone, -2, 2)


def _shell_hu(distance: np.ndarray, bone: np.ndarray) -> np.ndarray:
    """Return HU of skull (two tables around diploe), scalp and air by distance from the inner table.

    `bone` is the variation of the thickness, SD 1.
    """
    thickness = skull_thickness(bone)
    # The skull spans 0-1; outside it, the position is 1 plus the distance in mm.
    position = np.where(distance < thickness, distance / thickness, 1 + distance - thickness)
    return np.interp(
        position,
        [0.0, 0.05, 0.22, 0.4, 0.6, 0.78, 1.0, 1.5, 5.5, 6.5],
        [900, 1150, 1100, 650, 650, 1100, 1150, SCALP_HU, SCALP_HU, AIR_HU],
    )


def _build_detailed(
    points: np.ndarray, local: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Layer vault, base, face and ridges; sharp borders, blurred over 1 mm of partial volume."""
    folded = np.stack([np.abs(points[0]), points[1], points[2]])
    is_low = points[2] < 20
    vault = smooth_step(points[2], -28.0, -14.0)  # 0 at the base, 1 above it
    inside = local['skull'].copy()
    low = np.flatnonzero(vault < 1)
    inside[low] += (1 - vault[low]) * (load_base()(points[:, low])['base'] - inside[low])
    inside += (1.2 - 0.9 * vault) * np.clip(local['rough'], -2, 2)
    outside = local['skull'].copy()
    outside[low] = load_template().skull_distance(extrude_head(points[:, low]))
    thickness = skull_thickness(local['bone'])

    hu = np.full(points.shape[1], AIR_HU)
    _paint(hu, outside - thickness - 5.5, SCALP_HU)
    part = np.flatnonzero(is_low)
    hu_low, folded = hu[part], folded[:, part]
    for centre, axes, value in _FACE[:3]:
        _paint(hu_low, _ellipsoid(folded, centre, axes), value)
    hu[part] = hu_low
    # The floor of the fossae is thinner than the vault and has no diploe.
    shell = 3.5 + vault * (thickness - 3.5)
    keep = hu < -200  # the frontal sinus
    _paint(hu, np.where(keep & (inside > 1.5), 1.0, inside - shell), _TABLE_HU)
    diploe = np.maximum(inside - (shell - 1.7), 1.7 - inside)
    _paint(hu, np.where(keep | (vault < 0.5), 1.0, diploe), _DIPLOE_HU)

    hu_low, inside_low = hu[part], inside[part]
    for centre, axes, value in _FACE[3:]:
        _paint(hu_low, _ellipsoid(folded, centre, axes), value)
    _paint_mastoid(hu_low, folded)
    petrous = _capsule(folded, *_PETROUS)
    _paint(hu_low, petrous, _PETROUS_HU)
    ridges = np.min([_capsule(folded, *ridge) for ridge in _RIDGES], axis=0)
    _paint(hu_low, ridges, _TABLE_HU)
    hu[part] = hu_low
    # Ridges displace the brain.
    inside[part] = np.maximum(inside_low, -np.minimum(petrous, ridges))
    return inside, hu


def _paint_mastoid(hu: np.ndarray, folded: np.ndarray) -> None:
    """Fill the mastoid with bone around air cells of about 2 mm."""
    distance = _ellipsoid(folded, *_MASTOID)
    _paint(hu, distance, 900.0)
    x, y, z = folded + 1.5 * np.sin(0.45 * folded[[1, 2, 0]])  # irregular
    cells = np.sin(1.5 * x + 0.4 * y) * np.sin(1.3 * y - 0.3 * z) * np.sin(1.4 * z + 0.3 * x)
    _paint(hu, np.where(distance < -2, 2 - 8 * np.abs(cells), 1.0), -800.0)


def _paint(hu: np.ndarray, distance: np.ndarray, value: float) -> None:
    """Replace HU in place where the distance (mm) is negative, partially within 0.5 mm of 0."""
    hu += np.clip(0.5 - distance, 0, 1) * (value - hu)


def _ellipsoid(points: np.ndarray, centre: ArrayLike, axes: ArrayLike) -> np.ndarray:
    """Return about the distance to an ellipsoid, mm."""
    axes = np.asarray(axes, float)[:, None]
    radius = np.linalg.norm((points - np.asarray(centre, float)[:, None]) / axes, axis=0)
    return (radius - 1) * axes.min()


def _capsule(
    points: np.ndarray, start: ArrayLike, end: ArrayLike, radius: float, end_radius: float
) -> np.ndarray:
    """Return the distance to a tapered rod, mm."""
    start, axis = np.asarray(start, float), np.subtract(end, start).astype(float)
    from_start = points - start[:, None]
    along = np.clip(axis @ from_start / (axis @ axis), 0, 1)
    lateral = np.linalg.norm(from_start - along * axis[:, None], axis=0)
    return lateral - (radius + along * (end_radius - radius))
