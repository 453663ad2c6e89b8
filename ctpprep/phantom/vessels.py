# SPDX-License-Identifier: Apache-2.0
"""Arteries, veins and dural sinuses of the template, and the clot of an M1 occlusion."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage

from ctpprep.phantom.anatomy import load_template
from ctpprep.phantom.fields import Fields, stack_fields
from ctpprep.phantom.settings import PhantomSettings
from ctpprep.phantom.skull import skull_thickness


class _Course(NamedTuple):
    """The course of one vessel."""

    name: str  # decides its part in an M1 occlusion
    kind: str  # 'artery' or 'vein'
    radius: tuple[float, float]  # mm at start and end
    delay: tuple[
        float, float
    ]  # s at start and end; arteries relative to the AIF, veins to the VOF
    nodes: ArrayLike  # (n, 3) template mm


# on the patient's right (+x)
_PAIRED = (
    _Course('ica', 'artery', (2.0, 1.9), (0.0, 0.0),
     [(15, -8, -48), (14, 4, -34), (12, 0, -27), (12, 5, -22), (15, 3, -16)]),
    _Course('m1', 'artery', (1.6, 1.4), (0.0, 0.2), [(15, 3, -16), (22, 5, -15), (30, 5, -16), (36, 4, -13)]),
    _Course('m2', 'artery', (1.2, 0.9), (0.2, 0.9),
     [(36, 4, -13), (41, 12, -5), (41, 16, 5), (43, 14, 14), (52, 14, 16), (60, 2, 28)]),
    _Course('m2', 'artery', (1.2, 0.9), (0.2, 0.9),
     [(36, 4, -13), (42, -2, -6), (42, -12, 4), (42, -24, 14), (54, -34, 20), (60, -46, 28)]),
    _Course('m2', 'artery', (1.1, 0.9), (0.3, 0.9),
     [(41, 4, -8), (42, 2, 4), (42, -6, 15), (54, -8, 20), (62, -14, 36)]),
    _Course('aca', 'artery', (1.1, 1.1), (0.0, 0.2), [(15, 3, -16), (8, 9, -15), (3, 14, -13)]),
    _Course('aca', 'artery', (1.1, 0.8), (0.2, 0.8),
     [(3, 14, -13), (2, 26, -8), (2, 36, 4), (2, 34, 16), (2, 20, 27), (2, 0, 33), (2, -20, 37)]),
    _Course('aca', 'artery', (0.9, 0.8), (0.4, 0.9), [(2, 36, 4), (2, 48, 20), (2, 40, 40), (2, 24, 56)]),
    _Course('pca', 'artery', (1.1, 0.8), (0.3, 1.0),
     [(0, -10, -19), (8, -13, -17), (19, -20, -13), (23, -32, -6), (18, -50, -3), (10, -76, 2)]),
    _Course('icv', 'vein', (1.2, 1.5), (-1.0, -0.5), [(3, 0, 12), (3, -18, 14), (1, -38, 9)]),
)  # fmt: skip


_MIDLINE = (
    _Course('basilar', 'artery', (1.7, 1.6), (0.2, 0.3), [(0, -18, -50), (0, -11, -36), (0, -10, -19)]),
)  # fmt: skip


@dataclass(frozen=True)
class Vessels:
    """Dense points along all vessels."""

    points: np.ndarray  # (P, 3) template mm
    radius: np.ndarray  # (P,) mm
    is_vein: np.ndarray  # (P,)
    delay: np.ndarray  # (P,) s
    gain: np.ndarray  # (P,) factor on the AIF or VOF; 0 in a thrombus
    is_slow: np.ndarray  # (P,) artery of the slow side
    near: Fields  # distance to the closest point on a coarse grid, mm


def lay_vessels(settings: PhantomSettings, variation: Fields) -> Vessels:
    """Lay all vessels; the M1 of each side with a lesion is occluded."""
    courses = [*_MIDLINE, *_lay_sinuses()]
    if settings.head.extracranial_vessels:
        courses += _lay_scalp_vessels(variation)
    for course in _PAIRED:
        for sign in (-1, 1):
            courses.append(course._replace(nodes=np.multiply(course.nodes, (sign, 1, 1))))
    parts = [_lay_vessel(course, settings.lesion_signs) for course in courses]
    points, radius, is_vein, delay, gain = (
        np.concatenate(part) for part in zip(*parts, strict=True)
    )
    is_slow = ~is_vein & (settings.slow_sign * points[:, 0] > 0.01)  # not the basilar artery
    delay = delay + settings.bolus.side_delay_s * is_slow
    return Vessels(
        points,
        radius,
        is_vein,
        delay,
        gain,
        is_slow,
        map_distance(points, load_template().surfaces),
    )


def _lay_vessel(course: _Course, occluded: Collection[int]) -> tuple[np.ndarray, ...]:
    """Lay points every 0.25 mm along a smooth curve through the nodes of a course.

    `occluded` contains the signs of x of the sides with an M1 occlusion.

    Returns
    -------
    points, radius, is_vein, delay, gain
        As in :class:`Vessels`.
    """
    from scipy.interpolate import PchipInterpolator

    nodes = np.asarray(course.nodes, float)
    length = np.r_[0, np.cumsum(np.linalg.norm(np.diff(nodes, axis=0), axis=1))]
    along = np.linspace(0, 1, int(length[-1] / 0.25) + 2)
    points = PchipInterpolator(length / length[-1], nodes)(along)
    radius, delay = (start + (end - start) * along for start, end in (course.radius, course.delay))
    gain = np.ones_like(along)
    if course.name in ('m1', 'm2') and np.sign(nodes[-1, 0]) in occluded:
        # A clot occludes the distal M1; collaterals fill the branches late and weakly.
        if course.name == 'm1':
            gain[along > 0.4] = 0.0
        else:
            gain[:] = 0.65
            delay = delay + 4.0
    return points, radius, np.full(len(along), course.kind == 'vein'), delay, gain


def _lay_sinuses() -> Iterator[_Course]:
    """Lay the dural sinuses along the inner table of the template's skull."""
    angles = np.radians(np.linspace(48, 192, 40))
    sagittal = _follow_skull((0, -15, 15), _directions(np.zeros(40), angles), 3.0)
    torcula = sagittal[-1]
    turn = np.radians(np.linspace(8, 62, 12))
    transverse = _follow_skull(
        (0, -20, torcula[2]),
        np.stack([np.sin(turn), -np.cos(turn), -0.12 * np.sin(turn)], 1), 3.0,
    )  # fmt: skip
    transverse = np.vstack([torcula, transverse, transverse[-1] + (-8, 8, -14)])
    straight = [(0, -38, 9), (0, -48, 7), (0, -65, 2), tuple(torcula)]
    yield _Course('sss', 'vein', (2.0, 3.8), (-0.5, 0.2), sagittal)
    yield _Course('straight', 'vein', (2.5, 2.8), (-0.5, 0.2), straight)
    for sign in (-1, 1):
        yield _Course('transverse', 'vein', (3.2, 3.0), (0.2, 0.8), transverse * (sign, 1, 1))


def _lay_scalp_vessels(variation: Fields) -> Iterator[_Course]:
    """Lay temporal and occipital arteries and veins in the middle of the scalp."""
    for kind, turn, delay in (('artery', 0, (0.3, 1.0)), ('vein', 8, (0.5, 1.0))):
        for azimuth, elevation in (
            ((85, 40), (-20, 45)),
            ((90, 108), (-20, 60)),
            ((145, 160), (-15, 40)),
        ):
            steps = np.linspace(0, 1, 20)
            angles = (start + (end - start) * steps for start, end in (azimuth, elevation))
            path = _directions(*(np.radians(angle + turn) for angle in angles))
            for sign in (-1, 1):
                rays = path * (sign, 1, 1)
                bone = variation(_follow_skull((0, -15, 15), rays, 0.0).T)['bone']
                depth = -skull_thickness(bone) - 2.75
                nodes = _follow_skull((0, -15, 15), rays, depth)
                yield _Course('scalp', kind, (1.2, 0.9), delay, nodes)


def _directions(azimuth: np.ndarray, elevation: np.ndarray) -> np.ndarray:
    """Return (n, 3) unit vectors; azimuth from +y to +x, elevation from +y via +z to -y, rad."""
    return np.stack(
        [np.sin(azimuth), np.cos(azimuth) * np.cos(elevation), np.sin(elevation)], axis=1
    )


def _follow_skull(
    centre: ArrayLike, directions: np.ndarray, depth_mm: float | np.ndarray
) -> np.ndarray:
    """Find the point `depth_mm` inside the inner table on each ray from `centre`; (n, 3) mm."""
    steps = np.arange(20, 140, 0.5)
    rays = np.asarray(centre, float) + steps[None, :, None] * directions[:, None, :]
    distance = load_template().skull_distance(rays.reshape(-1, 3).T).reshape(rays.shape[:2])
    hit = np.argmax(distance > -np.reshape(depth_mm, (-1, 1)), axis=1)
    return rays[np.arange(len(rays)), hit]


def map_distance(points: np.ndarray, grid: Fields) -> Fields:
    """Map the distance to the closest of (P, 3) points on the grid of other fields, mm."""
    shape = grid.values.shape[:3]
    index = np.round((points - grid.origin) / grid.spacing).astype(int)
    index = np.clip(index, 0, np.array(shape) - 1)
    empty = np.ones(shape, bool)
    empty[tuple(index.T)] = False
    distance = grid.spacing * ndimage.distance_transform_edt(empty)
    return stack_fields(grid.origin, grid.spacing, distance=distance)
