# SPDX-License-Identifier: Apache-2.0
"""Voxels of the scanner, pose and bending of the head: patient to template positions."""

from dataclasses import dataclass

import numpy as np

from ctpprep.phantom.anatomy import load_template
from ctpprep.phantom.fields import ORIGIN, SPACING, Fields, draw_smooth_field, stack_fields
from ctpprep.phantom.settings import PhantomSettings

_MARGIN_MM = 10.0  # of head below and above the slab, so that motion brings in real tissue
SLAB_BOTTOM = -28.0  # template z, mm: just below the carotid terminus
HEAD_CENTRE = np.array([0.0, -17.0, 10.0])  # template mm, pivot of the pose


class Grid:
    """The acquired voxels (RAS axes) and the finer grid that is averaged into them.

    Attributes
    ----------
    shape, voxel : 3 int, (3,) array
        Acquired voxels; mm.
    fine_shape, fine_voxel : 3 int, (3,) array
        Fine voxels, including `margin` planes below and above the slab; mm.
    factor : (3,) int array
        Fine voxels in an acquired voxel.
    corner, centre : (3,) array
        Outer corner and centre of the acquired grid, patient mm.
    affine : (4, 4) array
        Index of an acquired voxel to patient mm.
    """

    def __init__(self, settings: PhantomSettings):
        self.voxel = np.array(settings.voxel_size_mm, float)
        self.shape = (settings.matrix, settings.matrix, settings.n_slices)
        # About 1 mm in plane and 1.25 mm along z: finer than every vessel.
        # Large voxels are divided into 3 x 3 x 4 parts at most, which limits the cost.
        parts = np.round(self.voxel / (1.0, 1.0, 1.25))
        self.factor = np.clip(parts, 1, (3, 3, 4)).astype(int)
        self.fine_voxel = self.voxel / self.factor
        self.margin = int(np.ceil(_MARGIN_MM / self.fine_voxel[2]))
        self.fine_shape = tuple(np.array(self.shape) * self.factor + (0, 0, 2 * self.margin))
        # In plane the field of view is centred on 0; the slab begins at z = 0.
        self.corner = np.array([-settings.matrix * v / 2 for v in self.voxel[:2]] + [0.0])
        self.affine = np.diag([*self.voxel, 1.0])
        self.affine[:3, 3] = self.corner + self.voxel / 2
        self.centre = self.corner + self.voxel * self.shape / 2

    def centres(self) -> np.ndarray:
        """Return the centres of the acquired voxels, (3, X*Y*Z) patient mm."""
        index = np.indices(self.shape, dtype=np.float32).reshape(3, -1)
        return index * self.voxel[:, None] + self.affine[:3, 3][:, None]

    def fine_plane(self, plane: int) -> np.ndarray:
        """Return the centres of the fine voxels of one plane, (3, x*y) patient mm."""
        nx, ny, _ = self.fine_shape
        x = self.corner[0] + (np.arange(nx) + 0.5) * self.fine_voxel[0]
        y = self.corner[1] + (np.arange(ny) + 0.5) * self.fine_voxel[1]
        z = (plane - self.margin + 0.5) * self.fine_voxel[2]
        return np.stack([np.repeat(x, ny), np.tile(y, nx), np.full(nx * ny, z)])

    def to_filtered_index(self, points: np.ndarray, factor: np.ndarray) -> np.ndarray:
        """Convert patient mm to indices of a fine volume averaged over `factor` fine voxels."""
        index = (points - self.corner[:, None]) / self.fine_voxel[:, None]
        index[2] += self.margin
        # An average over an even number of planes is centred between two of them.
        return index - 0.5 * (factor[:, None] % 2)


@dataclass(frozen=True)
class Shape:
    """Maps patient positions to template positions: rigid pose and size, then the bending."""

    pose: np.ndarray  # (4, 4), unbent template mm to patient mm
    bending: Fields  # shift along x, y, z, mm

    def to_template(self, points: np.ndarray) -> np.ndarray:
        """Map (3, N) patient positions to template positions, mm."""
        inverse = np.linalg.inv(self.pose)
        unposed = inverse[:3, :3] @ points + inverse[:3, 3:]
        return unposed + self._shift(unposed)

    def to_patient(self, points: np.ndarray) -> np.ndarray:
        """Map (3, N) template positions to patient positions, mm."""
        unposed = points.copy()
        # The bending is weak (gradient below about 0.4), so the fixed-point iteration converges.
        for _ in range(25):
            unposed = points - self._shift(unposed)
        return self.pose[:3, :3] @ unposed + self.pose[:3, 3:]

    def tissue(self, points: np.ndarray) -> np.ndarray:
        """Return the fraction of brain tissue at (3, N) patient positions."""
        return load_template().matter(self.to_template(points))['tissue']

    def _shift(self, points: np.ndarray) -> np.ndarray:
        return np.stack(list(self.bending(points).values()))


def draw_shape(settings: PhantomSettings, rng: np.random.Generator) -> Shape:
    """Draw size, pose and asymmetric bending of the head."""
    # the ICBM152 brain is larger than most
    size = rng.uniform(0.92, 0.97, 3) * settings.head.size
    angles = np.radians(settings.tilt_deg) * rng.uniform(-1, 1, 3)
    jitter = rng.uniform(-3, 3, 3)
    pose = np.eye(4)
    pose[:3, :3] = rotation_matrix(angles) @ np.diag(size)
    target = np.array([0, 0, size[2] * (HEAD_CENTRE[2] - SLAB_BOTTOM)]) + jitter
    target[2] -= settings.head.slab_shift_mm
    pose[:3, 3] = target - pose[:3, :3] @ HEAD_CENTRE

    fields = [draw_smooth_field(rng, 28.0) for _ in range(3)]
    # The symmetric part is removed: only the asymmetric part bends the midline.
    odd = [(f - s * f[::-1]) / 2 for f, s in zip(fields, (-1, 1, 1), strict=True)]
    scale = settings.asymmetry_mm / np.sqrt(sum(f**2 for f in odd)).max()
    x, y, z = (scale * f for f in odd)
    return Shape(pose, stack_fields(ORIGIN, SPACING, x=x, y=y, z=z))


def rotation_matrix(angles: np.ndarray) -> np.ndarray:
    """Return the (3, 3) rotation about x, then y, then z by three angles, rad."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x
