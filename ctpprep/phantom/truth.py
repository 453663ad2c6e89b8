# SPDX-License-Identifier: Apache-2.0
"""The truth on the acquired voxels: maps, masks, hemispheres and homologues."""

import numpy as np

from ctpprep.phantom.geometry import Grid, Shape
from ctpprep.phantom.head import Head


def average_truth(head: Head, grid: Grid) -> dict[str, np.ndarray]:
    """Average the fine head over the acquired voxels.

    Returns
    -------
    dict of (X, Y, Z) arrays
        The maps and masks of `Phantom.truth`.
    """
    values = head.values
    x, y, z = np.unravel_index(head.inside, grid.fine_shape)
    z = z - grid.margin
    keep = (z >= 0) & (z < grid.shape[2] * grid.factor[2])
    index = tuple(c[keep] // f for c, f in zip((x, y, z), grid.factor, strict=True))
    voxel = np.ravel_multi_index(index, grid.shape)

    def average(fine: np.ndarray) -> np.ndarray:
        sums = np.bincount(voxel, fine[keep], minlength=np.prod(grid.shape))
        return (sums / np.prod(grid.factor)).reshape(grid.shape)

    weight = values['tissue']
    tissue = average(weight)
    safe = np.where(tissue > 0.01, tissue, np.inf)  # less is treated as none
    mean = {name: average(weight * values[name]) / safe for name in ('cbf', 'cbv', 'delay')}
    mtt = np.divide(60 * mean['cbv'], mean['cbf'], out=np.zeros(grid.shape), where=safe < 2)
    truth = {'cbf': mean['cbf'], 'cbv': mean['cbv'], 'mtt': mtt, 'delay': mean['delay']}
    # Rounding may lift a sum of float32 above 1.
    truth |= {'tissue': np.minimum(tissue, 1), 'vessel': np.minimum(average(values['vessel']), 1)}
    truth = {name: value.astype(np.float32) for name, value in truth.items()}
    parts = {name: values[name] for name in ('core', 'penumbra', 'microangiopathy')}
    parts['hypoperfusion'] = values['delay'] > 6
    # At least half of the voxel must be tissue: half of a smaller fraction would be noise.
    for name, part in parts.items():
        truth[name] = (average(weight * part) > 0.5 * tissue) & (tissue > 0.5)
    truth['brain'] = average(values['brain']) > 0.5
    truth['csf'] = average(values['csf']) > 0.5
    if 'old_infarct' in values:
        truth['old_infarct'] = average(values['old_infarct']) > 0.5
    return truth


def mirror_truth(brain: np.ndarray, grid: Grid, shape: Shape) -> dict[str, np.ndarray]:
    """Find hemisphere and mirror homologue of each voxel of an (X, Y, Z) mask of the brain.

    Returns
    -------
    dict
        ``side`` (X, Y, Z) and ``homologue`` (X, Y, Z, 3) of `Phantom.truth`.
    """
    brain = brain.ravel()
    points = shape.to_template(grid.centres()[:, brain])
    side = np.zeros(brain.size, np.uint8)
    side[brain] = np.where(points[0] < 0, 1, 2)
    counterpart = shape.to_patient(points * np.array([[-1.0], [1.0], [1.0]]))
    low = grid.corner[:, None]
    high = low + (grid.voxel * grid.shape)[:, None]
    missing = ((counterpart < low) | (counterpart > high)).any(axis=0)
    counterpart[:, missing] = np.nan
    homologue = np.full((brain.size, 3), np.nan, np.float32)
    homologue[brain] = counterpart.T
    return {
        'side': side.reshape(grid.shape),
        'homologue': homologue.reshape(*grid.shape, 3),
    }
