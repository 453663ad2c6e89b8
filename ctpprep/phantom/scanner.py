# SPDX-License-Identifier: Apache-2.0
"""The scan: timing, movement, sampling of the moving head, noise."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ctpprep.phantom.artefacts import PhotonNoise, sample_brain
from ctpprep.phantom.curves import CurveTable
from ctpprep.phantom.geometry import Grid, rotation_matrix
from ctpprep.phantom.head import Head
from ctpprep.phantom.settings import PhantomSettings
from ctpprep.phantom.skull import AIR_HU

K_H = (1 - 0.45) / (1 - 0.25)  # haematocrit of large and small vessels, Fieselmann 2011
RHO = 1.04  # g/mL, brain tissue
EXPOSURE_S = 0.4  # rotation during which one averaged slice is acquired
_STILL_MM = 0.1  # movement during the exposure that blurs less than a point of the scanner


def schedule_frames(settings: PhantomSettings) -> tuple[np.ndarray, np.ndarray]:
    """Return the start of each frame (T,) and the time of each slice (Z, T), s; lowest first."""
    n, dt = settings.n_frames, settings.frame_interval
    steps = np.full(n, dt)
    if settings.timing == 'uneven':
        steps[(2 * n) // 3 :] = 2 * dt
    frame_times = np.r_[0, np.cumsum(steps[1:])]
    upper = (np.arange(settings.n_slices) >= settings.n_slices // 2)[:, None]
    late = np.zeros((settings.n_slices, n), bool)
    if settings.timing == 'toggling':
        late |= upper
    elif settings.timing == 'jog':
        late |= upper ^ (np.arange(n) % 2 == 1)
    return frame_times, frame_times + late * dt / 2


def frame_affine(parameters: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Return the rigid transform of one frame.

    Parameters
    ----------
    parameters : (6,) array
        Shift along patient x, y, z (mm), then rotation about x, y, z (rad, in this order).
    centre : (3,) array
        Fixed point of the rotation, patient RAS, mm: the centre of the field of view.

    Returns
    -------
    (4, 4) array
        Maps the position of a point in frame 0 to that in this frame, patient RAS.
    """
    affine = np.eye(4)
    affine[:3, :3] = rotation_matrix(parameters[3:])
    affine[:3, 3] = centre + parameters[:3] - affine[:3, :3] @ centre
    return affine


@dataclass(frozen=True)
class Motion:
    """The pose of the head at the frames and between them.

    Attributes
    ----------
    frame_times : (T,) array
        s.
    parameters : (T, 6) array
        See :func:`frame_affine`.
    centre : (3,) array
        Fixed point of the rotation, patient mm.
    affines : (T, 4, 4) array
    """

    frame_times: np.ndarray
    parameters: np.ndarray
    centre: np.ndarray
    affines: np.ndarray

    def poses_during(self, time: float) -> list[np.ndarray]:
        """Return the poses during an exposure around `time` (s): one if the head hardly moves."""
        steps = time + EXPOSURE_S * np.array([-0.5, -1 / 3, 0, 1 / 3, 0.5])
        rows = np.stack([np.interp(steps, self.frame_times, p) for p in self.parameters.T], axis=1)
        # A rotation moves the surface of the head by its angle times about 100 mm.
        moved = np.abs(rows[-1] - rows[0]) * (1, 1, 1, 100, 100, 100)
        used = rows[2:3] if moved.max() < _STILL_MM else rows[1:4]
        return [frame_affine(row, self.centre) for row in used]


def draw_motion(
    settings: PhantomSettings,
    rng: np.random.Generator,
    frame_times: np.ndarray,
    centre: np.ndarray,
) -> Motion:
    """Draw a slow drift and one lasting jump, which takes one frame interval."""
    n = settings.n_frames
    motion = np.zeros((n, 6))
    drift = ndimage.gaussian_filter1d(rng.standard_normal((n, 6)).cumsum(axis=0), 2, axis=0)
    directions = rng.standard_normal((2, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    jump = rng.integers(n // 4, max(3 * n // 4, n // 4 + 1))
    if settings.motion_mm > 0:
        drift -= drift[0]
        motion += 0.3 * drift / np.abs(drift).max()
        motion[jump:] += settings.motion_mm * directions.ravel()
        motion[0] = 0
    motion[:, 3:] = np.radians(motion[:, 3:])
    affines = np.stack([frame_affine(row, centre) for row in motion])
    return Motion(frame_times, motion, centre, affines)


def _box_average(fine: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Average over the acquired voxel centred on each fine voxel."""
    for axis, size in enumerate(factor):
        if size > 1:
            fine = ndimage.uniform_filter1d(fine, int(size), axis=axis, mode='nearest')
    return fine


def scan(
    head: Head,
    grid: Grid,
    table: CurveTable,
    sample_times: np.ndarray,
    motion: Motion,
    settings: PhantomSettings,
    rng: np.random.Generator,
) -> np.ndarray:
    """Sample the moving, enhancing head slice by slice.

    A cubic B-spline over the fine grid (sigma 0.6 fine voxel) is both interpolation and point
    spread function: it blurs all frames equally, whatever the position of the head. Averaged
    slices are read at thin positions across the slice, during the exposure; interpolated slices
    from a head that is averaged across the slice in the pose of frame 0. The many thin positions
    are read with a quadratic B-spline (sigma 0.5), which also blurs all frames equally and takes
    half the time.

    Parameters
    ----------
    head, grid, table
    sample_times : (Z, T) array
        s.
    motion : Motion
    settings, rng

    Returns
    -------
    (X, Y, Z, T) int16 array
        HU.
    """
    traits = settings.scanner
    averaged = traits.slices == 'averaged'
    factor, order = grid.factor, 3
    if averaged:
        factor, order = grid.factor * (1, 1, 0) + (0, 0, 1), 2
    volume = _box_average(head.static, factor)
    enhance, box = _prepare_enhancement(head, grid, factor, table)
    static = volume[box].copy()
    near_head = _find_head(head, grid)
    degrade = _prepare_artefacts(head, grid, settings, rng)
    holder = None
    if head.holder is not None:
        holder = _read_slices(
            _box_average(head.holder, factor), grid.centres(), grid, factor, [np.eye(4)], order
        )
    ctp = np.empty((*grid.shape, len(motion.affines)), np.int16)
    centres = grid.centres()
    slices = np.arange(centres.shape[1]) % grid.shape[2]
    for t, affine in enumerate(motion.affines):
        frame = np.full(centres.shape[1], AIR_HU, np.float32)
        for time in np.unique(sample_times[:, t]):
            volume[box] = static + enhance(time)
            voxels = np.flatnonzero(near_head & (sample_times[slices, t] == time))
            poses = motion.poses_during(time) if averaged else [affine]
            frame[voxels] = _read_slices(volume, centres[:, voxels], grid, factor, poses, order)
        if holder is not None:
            frame = np.where(frame < -500, np.maximum(frame, holder), frame)
        elapsed = sample_times[:, t] / max(sample_times.max(), 1e-6)
        frame = degrade(frame.reshape(grid.shape), affine, elapsed)
        ctp[..., t] = np.clip(np.round(frame), -1024, 3071)
    return ctp


def _read_slices(
    volume: np.ndarray,
    centres: np.ndarray,
    grid: Grid,
    factor: np.ndarray,
    poses: Sequence[np.ndarray],
    order: int,
) -> np.ndarray:
    """Average the volume over the poses, and over thin positions across each slice.

    Parameters
    ----------
    volume : (x, y, z) array
        HU in the pose of frame 0, averaged over `factor` fine voxels.
    centres : (3, N) array
        Of the acquired voxels, patient mm.
    grid, factor
    poses : sequence of (4, 4) array
    order : int
        Of the B-spline.

    Returns
    -------
    (N,) array
    """
    n_thin = grid.factor[2] // factor[2]
    total = np.zeros(centres.shape[1], np.float32)
    for pose in poses:
        inverse = np.linalg.inv(pose)
        points = inverse[:3, :3] @ centres + inverse[:3, 3:]
        for offset in grid.fine_voxel[2] * (np.arange(n_thin) - (n_thin - 1) / 2):
            index = grid.to_filtered_index(points + offset * inverse[:3, 2:3], factor)
            total += ndimage.map_coordinates(
                volume, index, np.float32, order=order, prefilter=False, mode='nearest'
            )
    return total / (len(poses) * n_thin)


def _prepare_artefacts(
    head: Head, grid: Grid, settings: PhantomSettings, rng: np.random.Generator
) -> Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]:
    """Return a function that adds noise, streaks, drift and offset to a frame.

    Its arguments are the frame (X, Y, Z), its pose (4, 4), and the part of the scan that has
    elapsed at each slice (Z,).
    """
    traits = settings.scanner
    brain = np.zeros(grid.fine_shape, np.float32)
    brain.ravel()[head.inside] = head.values['brain']
    photons = None
    if traits.noise == 'photon':
        photons = PhotonNoise(
            _average_voxels(head.static, grid), _average_voxels(brain, grid) > 0.5,
            grid.voxel[0], settings.noise_hu,
        )  # fmt: skip
    if settings.head.stripped:
        brain = _box_average(brain, grid.factor)

    def degrade(frame: np.ndarray, affine: np.ndarray, elapsed: np.ndarray) -> np.ndarray:
        if head.metal is not None:
            frame += head.metal.streaks(grid, affine)
        frame += photons.draw(rng) if photons else scanner_noise(frame, settings.noise_hu, rng)
        frame += traits.offset_hu + traits.drift_hu * elapsed
        if settings.head.stripped:
            frame[~sample_brain(brain, grid, affine)] = 0
        return frame

    return degrade


def _average_voxels(fine: np.ndarray, grid: Grid) -> np.ndarray:
    """Average a fine volume over the acquired voxels, (X, Y, Z)."""
    slab = fine[:, :, grid.margin : fine.shape[2] - grid.margin]
    shape = np.stack([grid.shape, grid.factor], axis=1).ravel()
    return slab.reshape(shape).mean(axis=(1, 3, 5))


def _prepare_enhancement(
    head: Head, grid: Grid, factor: np.ndarray, table: CurveTable
) -> tuple[Callable[[float], np.ndarray], tuple[slice, ...]]:
    """Return a function from time (s) to averaged enhancement (HU), and the box it covers."""
    values = head.values
    index = np.unravel_index(head.inside, grid.fine_shape)
    box = tuple(
        slice(max(i.min() - 4, 0), min(i.max() + 5, n))
        for i, n in zip(index, grid.fine_shape, strict=True)
    )
    shape = tuple(b.stop - b.start for b in box)
    flat = np.ravel_multi_index([i - b.start for i, b in zip(index, box, strict=True)], shape)

    tissue = np.flatnonzero(values['tissue'] > 0)
    flow = values['cbf'][tissue]
    amplitude = values['tissue'][tissue] * np.float32(RHO / K_H / 6000) * flow
    mtt, slow = 60 * values['cbv'][tissue] / flow, values['slow'][tissue]
    shares: list[np.ndarray] = [np.ones(1, np.float32)]
    if 'mixture' in values:
        shares = [values['mixture'][tissue], 1 - values['mixture'][tissue]]
    addresses = [
        table.address(table.tissue_row(mtt, slow, family), values['delay'][tissue])
        for family in range(len(shares))
    ]
    vessel = np.flatnonzero(values['vessel'] * values['vessel_gain'] > 0)
    gain = (values['vessel'] * values['vessel_gain'])[vessel]
    vessel_row = table.vessel_row(values['is_vein'][vessel], values['vessel_slow'][vessel])
    vessel_address = table.address(vessel_row, values['vessel_delay'][vessel])

    def enhance(time: float) -> np.ndarray:
        fine = np.zeros(np.prod(shape), np.float32)
        fine[flat[tissue]] = amplitude * sum(
            share * table.read(address, time)
            for share, address in zip(shares, addresses, strict=True)
        )
        fine[flat[vessel]] += gain * table.read(vessel_address, time)
        return _box_average(fine.reshape(shape), factor)

    return enhance, box


def _find_head(head: Head, grid: Grid) -> np.ndarray:
    """Mark the acquired voxels that the head may reach in any frame; the rest stays air."""
    fine = head.static[:, :, grid.margin : head.static.shape[2] - grid.margin] > AIR_HU
    shape = np.stack([grid.shape, grid.factor], axis=1).ravel()
    occupied = fine.reshape(shape).any(axis=(1, 3, 4, 5))
    steps = int(np.ceil(12 / grid.voxel[0]))
    occupied = ndimage.binary_dilation(occupied, iterations=steps)
    return np.repeat(occupied.ravel(), grid.shape[2])


def scanner_noise(frame: np.ndarray, noise_hu: float, rng: np.random.Generator) -> np.ndarray:
    """Draw noise correlated over about one voxel in plane, and of half the SD in air.

    Parameters
    ----------
    frame : (X, Y, Z) array
        HU without noise.
    noise_hu : float
        SD outside air, HU.
    rng : numpy.random.Generator

    Returns
    -------
    (X, Y, Z) float32 array
        HU.
    """
    white = rng.standard_normal(frame.shape, dtype=np.float32)
    sigma = 0.6
    smooth = ndimage.gaussian_filter1d(white, sigma, axis=0, mode='wrap')
    smooth = ndimage.gaussian_filter1d(smooth, sigma, axis=1, mode='wrap')
    impulse = np.zeros(33)
    impulse[16] = 1
    kernel = ndimage.gaussian_filter1d(impulse, sigma)
    scale = np.where(frame > -900, 1.0, 0.5) * noise_hu / np.sum(kernel**2)
    return (scale * smooth).astype(np.float32)
