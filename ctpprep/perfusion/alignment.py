# SPDX-License-Identifier: Apache-2.0
"""How far the homologues are off: what a local shift of the mirrored brain would improve.

Brain and mirrored brain are never equal: noise and asymmetry bound their correlation, which therefore
means little in millimetres. Whether a shifted mirrored brain would match better, and by which shift,
measures the distance in each region.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy import ndimage

from ctpprep.perfusion import brain, grid

# in-plane size of the blocks that are compared, and largest shift that is tried, mm
BLOCK_MM, REACH_MM = 3.4, 12.0
# in-plane sigma of the windows in which correlations are computed; through plane a fraction of it, at
# most so many slices
WINDOW_MM, THROUGH_PLANE, MOST_SLICES = 10.0, 0.6, 1.5
# density smoothed by the first minus density smoothed by the second is compared, mm
SIGMAS_MM = (1.5, 12.0)
# densities that are compared, relative to brain, HU
WINDOW_HU = (-31.0, 29.0)
# number of independent samples in a window
SAMPLES = 60.0
# reach of the shifts of a brain, if its windows show that it is less than that of the search, mm
REACHES_MM = (2.0, 4.0, 6.0, 8.0)
# a reach is used only if the evidence against all larger ones is this strong, nats (20 : 1)
DECIDED = 3.0
# largest number of slices among which none can be compared with its neighbours on both sides
MOST_UNSEEN = 2
# least fraction of a window that must be inside both brains
LEAST_OVERLAP = 0.15
# air, where the homologue is outside the slab, HU
OUTSIDE_HU = -200.0


@dataclass(frozen=True)
class Misalignment:
    """Estimated distance between found and true homologues.

    Attributes
    ----------
    distance_mm : (X, Y, Z) array of float32
        Expected distance, mm; NaN where too little of both brains is known.
    median_mm : float
        Median over the brain; infinite if nothing can be compared.
    error_mm : float
        Median uncertainty of the distance, mm.
    """

    distance_mm: np.ndarray
    median_mm: float
    error_mm: float


def estimate_misalignment(reference, homologue_reference, brain_mask, voxel_size_mm):
    """Estimate how far the homologues of a mirror registration are off.

    The local correlation of the brain with the mirrored brain is computed for all shifts of the latter
    up to 12 mm, also through plane. Each shift is as probable as its correlation makes it, by the
    likelihood of correlated Gaussian samples; the expected length of the shift is the estimate. The
    longest shift in this brain is found from all its regions together: where sulci are narrow, one
    region alone has too little structure to exclude any.

    Parameters
    ----------
    reference, homologue_reference : (X, Y, Z) arrays
        Reference image, and the mirrored one registered to it, HU.
    brain_mask : (X, Y, Z) array of bool
    voxel_size_mm : (3,) sequence of float

    Returns
    -------
    Misalignment

    Notes
    -----
    In slabs of one or two slices, a shift through plane cannot be seen, and half a slice is added. A
    brain without any structure yields about 7 mm: nothing is known there. Takes about two seconds.
    """
    size = np.asarray(voxel_size_mm, dtype=float)
    blocks = (*(max(1, round(BLOCK_MM / width)) for width in size[:2]), 1)
    both = brain_mask & (homologue_reference > OUTSIDE_HU)
    inside = (grid.average_blocks(both.astype(np.float32), blocks) > 0.5).astype(np.float32)
    distance = np.full(brain_mask.shape, np.nan, dtype=np.float32)
    if not inside.any():
        return Misalignment(distance, np.inf, np.inf)
    fixed, mirrored = (
        grid.average_blocks(_contrast(brain.at_usual_level(image, both), both, size), blocks)
        for image in (reference, homologue_reference)
    )
    steps = size * blocks
    shifts = _shifts(steps, inside.shape)
    # outside the box of the brain all products are 0
    box = ndimage.find_objects(inside.astype(int))[0]
    windows = _Windows(fixed[box], mirrored[box], inside[box], steps)
    likelihoods = np.stack([windows.likelihood(shift) for shift in shifts])
    lengths = np.linalg.norm(shifts * steps, axis=1)
    possible = _possible_shifts(likelihoods, lengths, windows.blocks, max(steps[:2]))
    lengths = lengths[possible, None]
    weights = _relative(likelihoods[possible])
    weights /= weights.sum(axis=0)
    expected = (weights * lengths).sum(axis=0)
    spread = np.sqrt(np.maximum((weights * lengths**2).sum(axis=0) - expected**2, 0))
    if inside.shape[2] <= MOST_UNSEEN:
        # no shift through plane can be tried: half a slice stays unseen
        expected = np.hypot(expected, steps[2] / 2)
    coarse = np.full(inside.shape, np.nan, dtype=np.float32)
    coarse[inside > 0] = expected
    fine = coarse.repeat(blocks[0], axis=0).repeat(blocks[1], axis=1)
    covered = tuple(slice(width) for width in fine.shape)
    distance[covered] = fine
    distance[~brain_mask] = np.nan
    return Misalignment(distance, float(np.median(expected)), float(np.median(spread)))


def _possible_shifts(likelihoods, lengths, blocks, block_mm):
    """Find the shifts that occur in this brain, by the evidence of all its windows together.

    These are the shifts up to the largest reach that the likelihoods do not exclude, and one block more,
    since the true shift lies between those that are tried. Windows overlap, so that a block is worth
    a fraction of one.
    """
    reaches = np.array([*REACHES_MM, np.inf])
    within = (lengths <= reaches[:, None]).astype(float)
    means = within @ _relative(likelihoods) / within.sum(axis=1, keepdims=True)
    evidence = np.log(means + 1e-30).sum(axis=1) / blocks
    reach = reaches[np.flatnonzero(evidence > evidence.max() - DECIDED)[-1]]
    return lengths <= reach + block_mm


def _relative(likelihoods):
    """Return the likelihoods of shifts, (S, V), relative to the best one of each block."""
    return np.exp(likelihoods - likelihoods.max(axis=0))


def by_region(distance_mm, brain_mask):
    """Average the estimated distance in regions of the brain.

    Parameters
    ----------
    distance_mm : (X, Y, Z) array
        mm; NaN where unknown.
    brain_mask : (X, Y, Z) array of bool

    Returns
    -------
    dict of str to float
        Median in the lower, middle and upper third of the slab, front and back, mm; regions without
        a known distance are absent.
    """
    where = np.argwhere(brain_mask & np.isfinite(distance_mm))
    if not len(where):
        return {}
    values = distance_mm[tuple(where.T)]
    third = (3 * (where[:, 2] - where[:, 2].min()) // max(1, np.ptp(where[:, 2]) + 1)).astype(int)
    front = where[:, 1] > np.median(where[:, 1])
    names = [
        f'{level} {end}' for level in ('lower', 'middle', 'upper') for end in ('back', 'front')
    ]
    region = 2 * third + front
    return {
        name: round(float(np.median(values[region == index])), 2)
        for index, name in enumerate(names)
        if (region == index).any()
    }


def _contrast(image, both, size):
    """Return density above its local mean, in the voxels of both brains."""
    density = np.where(both, np.clip(image, *np.add(WINDOW_HU, brain.USUAL_BRAIN_HU)), 0)

    def smooth(array, sigma_mm):
        sigma = (sigma_mm / size[0], sigma_mm / size[1], 0)
        return ndimage.gaussian_filter(array.astype(np.float32), sigma)

    fine, wide = (smooth(density, mm) / (smooth(both, mm) + 1e-6) for mm in SIGMAS_MM)
    return np.where(both, fine - wide, 0).astype(np.float32)


def _shifts(steps, shape):
    """Return all shifts within reach, in blocks."""
    reach = [int(REACH_MM / step) for step in steps[:2]] + [int(shape[2] > MOST_UNSEEN)]
    shifts = np.array(list(product(*(range(-n, n + 1) for n in reach))))
    return shifts[np.linalg.norm(shifts * steps, axis=1) <= max(REACH_MM, steps[2])]


class _Windows:
    """Correlation of two images in Gaussian windows around each block inside the brain."""

    def __init__(self, fixed, mirrored, inside, steps):
        self.mirrored, self.inside, self.voxels = mirrored, inside, inside > 0
        self.fixed = np.stack([np.ones_like(fixed), fixed, fixed * fixed])
        sigma = (
            WINDOW_MM / steps[0], WINDOW_MM / steps[1],
            min(MOST_SLICES, THROUGH_PLANE * WINDOW_MM / steps[2]),
        )  # fmt: skip
        # number of blocks in a window, weighted by its Gaussian; in a thin slab, all slices
        across, along, through = 2 * np.sqrt(np.pi) * np.array(sigma)
        self.blocks = across * along * np.clip(through, 1, inside.shape[2])
        # as matrices, Gaussians of many images take a fifth of the time
        self.smoothing = [
            ndimage.gaussian_filter1d(
                np.eye(size, dtype=np.float32), width, axis=0, mode='constant', truncate=2.5
            )
            for size, width in zip(inside.shape, sigma, strict=True)
        ]

    def likelihood(self, shift):
        """Return the log-likelihood of a shift of the mirrored image around each block."""
        moved, seen = _shifted(self.mirrored, shift), self.inside * _shifted(self.inside, shift)
        share, *sums = self._smooth(
            np.concatenate([self.fixed, [moved, moved * moved, self.fixed[1] * moved]]) * seen
        )[:, self.voxels]
        share += 1e-6
        mean_fixed, square_fixed, mean_moved, square_moved, product = (
            total / share for total in sums
        )
        covariance = product - mean_fixed * mean_moved
        variance = (square_fixed - mean_fixed**2) * (square_moved - mean_moved**2)
        correlation = covariance / np.sqrt(np.maximum(variance, 1e-6))
        correlation = np.where(share > LEAST_OVERLAP, np.clip(correlation, 0, 0.999), 0)
        return -SAMPLES / 2 * np.log(1 - correlation**2)

    def _smooth(self, images):
        """Smooth (N, X, Y, Z) images along their last three axes."""
        along_x, along_y, along_z = self.smoothing
        smooth = along_y @ (images @ along_z.T)
        return (along_x @ smooth.reshape(*smooth.shape[:2], -1)).reshape(smooth.shape)


def _shifted(array, shift):
    """Return an array shifted by whole blocks, with 0 where it ends."""
    result = np.zeros_like(array)
    to = tuple(slice(max(n, 0), array.shape[i] + min(n, 0)) for i, n in enumerate(shift))
    back = tuple(slice(max(-n, 0), array.shape[i] + min(-n, 0)) for i, n in enumerate(shift))
    result[to] = array[back]
    return result
