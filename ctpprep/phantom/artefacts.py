# SPDX-License-Identifier: Apache-2.0
"""Noise that depends on the rays through the head, streaks of metal, and skull stripping."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ctpprep.phantom.geometry import Grid

_N_ANGLES = 60
_WATER_PER_MM = 0.019  # attenuation at an effective energy of about 60 keV
_CLIP = (15.0, 3.0, -16.0)  # template mm, on the right: end of the internal carotid artery
CLIP_RADIUS, METAL_HU = 2.0, 3000.0


class PhotonNoise:
    """Noise of filtered back projection with as many photons in every ray.

    The variance of a ray grows with the exponential of its attenuation. Each ray's noise is
    filtered (ramp and Gaussian) and spread along the ray, so that noise is band-limited and
    correlated in plane, largest at the centre of the head, and streaky between dense bones.

    Parameters
    ----------
    static : (X, Y, Z) array
        HU of the head in frame 0.
    brain : (X, Y, Z) array of bool
    voxel_mm : float
        In plane.
    noise_hu : float
        Median SD in the brain, HU.
    """

    def __init__(self, static: np.ndarray, brain: np.ndarray, voxel_mm: float, noise_hu: float):
        self.shape = static.shape
        nx, ny, self.n_slices = static.shape
        self.n_detectors = int(np.ceil(np.hypot(nx, ny))) + 4
        self.x = np.repeat(np.arange(nx) - (nx - 1) / 2, ny).astype(np.float32)
        self.y = np.tile(np.arange(ny) - (ny - 1) / 2, nx).astype(np.float32)
        self.angles = np.arange(_N_ANGLES) * np.pi / _N_ANGLES
        attenuation = _WATER_PER_MM * voxel_mm * np.clip(static / 1000 + 1, 0, 3)
        self.ray_sd = np.exp(self._project(attenuation.reshape(-1, self.n_slices)) / 2)
        frequency = np.fft.rfftfreq(2 * self.n_detectors)
        self.filter = frequency * np.exp(-((frequency / 0.2) ** 2) / 2)
        self.ray_sd *= noise_hu / np.median(self.expected_sd()[brain]) if brain.any() else 0.0

    def expected_sd(self) -> np.ndarray:
        """Return the SD of each voxel, (X, Y, Z) HU."""
        kernel = np.fft.irfft(self.filter)
        # Mean variance of linear interpolation at a random position between two detectors.
        scale = (2 * np.sum(kernel**2) + np.sum(kernel * np.roll(kernel, 1))) / 3
        return np.sqrt(scale * self._spread(self.ray_sd**2, 0.0)).reshape(self.shape)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Draw the noise of one frame, (X, Y, Z) HU."""
        white = rng.standard_normal(self.ray_sd.shape, dtype=np.float32)
        spectrum = np.fft.rfft(white * self.ray_sd, 2 * self.n_detectors, axis=1)
        rays = np.fft.irfft(spectrum * self.filter[:, None], axis=1)[:, : self.n_detectors]
        # Another start of the rotation in each frame, or its texture would repeat.
        turn = rng.uniform(0, np.pi / _N_ANGLES)
        return self._spread(rays.astype(np.float32), turn).reshape(self.shape)

    def _position(self, angle: float) -> np.ndarray:
        """Return the detector position of each voxel for one angle, in voxels."""
        middle = (self.n_detectors - 1) / 2
        return np.cos(angle) * self.x + np.sin(angle) * self.y + np.float32(middle)

    def _project(self, attenuation: np.ndarray) -> np.ndarray:
        """Add (X*Y, Z) values along the rays; (angle, detector, Z)."""
        sums = np.zeros((_N_ANGLES, self.n_detectors, self.n_slices), np.float32)
        head = np.flatnonzero(attenuation.max(axis=1) > 0)
        for row, angle in zip(sums, self.angles, strict=True):
            position = self._position(angle)[head]
            low = position.astype(np.int32)
            for z in range(self.n_slices):
                for step, weight in ((0, 1 - (position - low)), (1, position - low)):
                    row[:, z] += np.bincount(
                        low + step, weight * attenuation[head, z], minlength=self.n_detectors
                    )
        return sums

    def _spread(self, rays: np.ndarray, turn: float) -> np.ndarray:
        """Back-project (angle, detector, Z) values; (X*Y, Z)."""
        total = np.zeros((len(self.x), self.n_slices), np.float32)
        for row, angle in zip(rays, self.angles, strict=True):
            position = self._position(angle + turn)
            low = position.astype(np.int32)
            share = (position - low)[:, None]
            first = row.take(low, axis=0)
            total += first + share * (row.take(low + 1, axis=0) - first)
        return total


@dataclass(frozen=True)
class Metal:
    """Streaks from a clip, which move with the head and change a little with its pose."""

    position: np.ndarray  # (3,) patient mm in frame 0
    weights: np.ndarray  # (K,) of the angular harmonics
    phases: np.ndarray  # (K,) rad

    def streaks(self, grid: Grid, affine: np.ndarray) -> np.ndarray:
        """Return the streaks in the pose of one frame, (X, Y, Z) HU."""
        x, y, z = grid.centres().reshape(3, *grid.shape)
        at = affine[:3, :3] @ self.position + affine[:3, 3]
        reach = 1.5 + grid.voxel[2] / 2
        profile = np.exp(-(((z[0, 0] - at[2]) / reach) ** 2) / 2)
        slices = np.flatnonzero(profile > 1e-3)
        dx, dy = x[..., 0] - at[0], y[..., 0] - at[1]
        radius = np.hypot(dx, dy)
        # The clip turns with the head; a tilt changes what the rays meet.
        angle = np.arctan2(dy, dx) - np.arctan2(affine[1, 0], affine[0, 0])
        tilt = affine[2, 0] + affine[2, 1]
        pattern = np.zeros_like(angle)
        for k, (weight, phase) in enumerate(zip(self.weights, self.phases, strict=True), 2):
            pattern += weight * np.cos(k * angle + phase * (1 + 5 * tilt))
        pattern *= 600 / (radius + 4) * (radius > CLIP_RADIUS)
        streaks = np.zeros(grid.shape, np.float32)
        streaks[..., slices] = pattern[..., None] * profile[slices]
        return streaks


def place_clip(sign: int) -> np.ndarray:
    """Return the template position of the clip on one side, (3,) mm."""
    return np.multiply(_CLIP, (sign, 1, 1))


def draw_metal(rng: np.random.Generator, position: np.ndarray) -> Metal:
    """Draw the pattern of the streaks of a clip at a patient position, mm."""
    weights = rng.uniform(0.3, 1.0, 8)
    weights *= np.sqrt(2 / np.sum(weights**2))
    return Metal(position, weights, rng.uniform(0, 2 * np.pi, 8))


def sample_brain(brain: np.ndarray, grid: Grid, affine: np.ndarray) -> np.ndarray:
    """Return the brain mask in the pose of one frame, (X, Y, Z) bool.

    `brain` is its fraction on the fine grid, averaged over the acquired voxel.
    """
    inverse = np.linalg.inv(affine)
    points = inverse[:3, :3] @ grid.centres() + inverse[:3, 3:]
    index = grid.to_filtered_index(points, grid.factor)
    return ndimage.map_coordinates(brain, index, order=1).reshape(grid.shape) > 0.5
