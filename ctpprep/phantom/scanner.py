# SPDX-License-Identifier: Apache-2.0
"""The scan: timing, movement, sampling of the moving head, noise."""

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from ctpprep.phantom.curves import CurveTable
from ctpprep.phantom.geometry import Grid, rotation_matrix
from ctpprep.phantom.head import AIR_HU, Head
from ctpprep.phantom.settings import PhantomSettings

K_H = (1 - 0.45) / (1 - 0.25)  # haematocrit of large and small vessels, Fieselmann 2011
RHO = 1.04  # g/mL, brain tissue


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


def draw_motion(
    settings: PhantomSettings, rng: np.random.Generator, centre: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a slow drift and one lasting jump; (T, 6) parameters and (T, 4, 4) transforms."""
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
    return motion, np.stack([frame_affine(row, centre) for row in motion])


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
    frame_affines: np.ndarray,
    settings: PhantomSettings,
    rng: np.random.Generator,
) -> np.ndarray:
    """Sample the moving, enhancing head slice by slice.

    A cubic B-spline over the fine grid (sigma 0.6 fine voxel) is both interpolation and point
    spread function: it blurs all frames equally, whatever the position of the head.

    Parameters
    ----------
    head, grid, table
    sample_times : (Z, T) array
        s.
    frame_affines : (T, 4, 4) array
        From :func:`draw_motion`.
    settings, rng

    Returns
    -------
    (X, Y, Z, T) int16 array
        HU.
    """
    traits = settings.scanner
    volume = _box_average(head.static, grid.factor)
    enhance, box = _prepare_enhancement(head, grid, table)
    static = volume[box].copy()
    near_head = _find_head(head, grid)
    ctp = np.empty((*grid.shape, len(frame_affines)), np.int16)
    centres = grid.centres()
    slices = np.arange(centres.shape[1]) % grid.shape[2]
    for t, affine in enumerate(frame_affines):
        frame = np.full(centres.shape[1], AIR_HU, np.float32)
        inverse = np.linalg.inv(affine)
        for time in np.unique(sample_times[:, t]):
            volume[box] = static + enhance(time)
            voxels = np.flatnonzero(near_head & (sample_times[slices, t] == time))
            points = inverse[:3, :3] @ centres[:, voxels] + inverse[:3, 3:]
            index = grid.to_filtered_index(points)
            frame[voxels] = ndimage.map_coordinates(
                volume, index, order=3, prefilter=False, mode='nearest'
            )
        frame = frame.reshape(grid.shape)
        frame += scanner_noise(frame, settings.noise_hu, rng)
        elapsed = sample_times[:, t] / max(sample_times.max(), 1e-6)
        frame += traits.offset_hu + traits.drift_hu * elapsed
        ctp[..., t] = np.clip(np.round(frame), -1024, 3071)
    return ctp


def _prepare_enhancement(
    head: Head, grid: Grid, table: CurveTable
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
        return _box_average(fine.reshape(shape), grid.factor)

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
