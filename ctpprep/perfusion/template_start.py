# SPDX-License-Identifier: Apache-2.0
"""The affine transform from which the registration to the template starts."""

from itertools import product

import numpy as np
from scipy import ndimage
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from ctpprep.perfusion import brain, grid

# the search for a start compares images smoothed by this sigma at points this far apart, up to this
# distance from the brain, where the images are empty, mm
START_SIGMA_MM, START_STEP_MM, START_REACH_MM = 3.0, 6.0, 12.0
# heights of the centre of the slab in the template, mm, and angles, degrees, that are tried on every so
# many points, and how many of these heights are refined on all; the ICBM152 brain is larger than most,
# by 6 % along each axis
START_HEIGHTS_MM, START_ANGLES, THINNING, N_REFINED = range(-40, 61, 10), (-15.0, 0.0, 15.0), 4, 2
# reach of the refinement: mm, degrees, % of size
START_PERCENT = 6.0
REFINED_REACH = (30.0, 40.0, 25.0)


def find_start(image, affine, usable, template):
    """Find the affine transform at which the brain is most like that of the template.

    Heights and rotations are tried on a lattice, because a slab has no centre that corresponds to
    that of the template; the best at distinct heights are refined by Powell's method. Correlation of
    smoothed densities within and around the brain is maximized.

    Parameters
    ----------
    image : (X, Y, Z) array
        Windowed brain, 0 outside.
    affine : (4, 4) array
        Voxel to patient RAS, mm.
    usable : (X, Y, Z) array of bool
        Voxels that may be compared.
    template : Template

    Returns
    -------
    (4, 4) array
        Points of the patient to points of the template, mm RAS.
    """
    search = _StartSearch(image, affine, usable, template)
    tried = sorted(
        (search.cost(start, THINNING), tuple(start))
        for start in (
            np.array([*search.target_centre[:2], height, *angles, *[START_PERCENT] * 3])
            for height, angles in product(START_HEIGHTS_MM, product(START_ANGLES, repeat=3))
        )
    )
    best: list[tuple] = []
    for _, start in tried:
        if all(start[2] != other[2] for other in best):
            best.append(start)
        if len(best) == N_REFINED:
            break
    refined = [search.refine(np.array(start)) for start in best]
    return search.matrix(min(refined)[1])


class _StartSearch:
    """Points and densities that are compared for affine transforms.

    Parameters of a transform: template coordinates of the centre of the brain, mm; rotations about x, y
    and z, degrees; scales, %.
    """

    def __init__(self, image, affine, usable, template):
        size = np.array(grid.voxel_size_mm(affine))
        sigma = [*(START_SIGMA_MM / size[:2]), 0]
        smooth = ndimage.gaussian_filter(image, sigma)
        inside = image > 0
        near = usable & (distance_outside(inside, affine) <= START_REACH_MM)
        thinned = np.zeros_like(near)
        steps = np.maximum(np.round(START_STEP_MM / size), 1).astype(int)
        lattice = tuple(slice(None, None, step) for step in steps)
        thinned[lattice] = near[lattice]
        self.points = _to_mm(affine, np.argwhere(thinned).T)
        self.values = smooth[thinned]
        self.centre = _to_mm(affine, np.argwhere(inside).mean(axis=0)[:, None])[:, 0]
        template_size = np.array(grid.voxel_size_mm(template.affine))
        self.target = ndimage.gaussian_filter(template.draw(), START_SIGMA_MM / template_size)
        self.to_voxel = np.linalg.inv(template.affine)
        middle = np.argwhere(template.brain).mean(axis=0)[:, None]
        self.target_centre = _to_mm(template.affine, middle)[:, 0]

    def matrix(self, parameters):
        """Return the transform of its parameters, (4, 4)."""
        place, angles, scales = np.split(np.asarray(parameters, float), 3)
        matrix = np.eye(4)
        turn = Rotation.from_euler('xyz', angles, degrees=True).as_matrix()
        matrix[:3, :3] = turn @ np.diag(1 + scales / 100)
        matrix[:3, 3] = place - matrix[:3, :3] @ self.centre
        return matrix

    def cost(self, parameters, thinning=1):
        """Return 1 - correlation at a transform, by every so many points."""
        at = _to_mm(self.to_voxel @ self.matrix(parameters), self.points[:, ::thinning])
        values = ndimage.map_coordinates(self.target, at, order=1)
        return 1.0 - float(_standardize(self.values[::thinning]) @ _standardize(values))

    def refine(self, start):
        """Refine a start; return its cost and parameters."""
        reach = np.repeat(REFINED_REACH, 3)
        middle = np.where(np.arange(9) < 3, start, 0.0)
        bounds = list(zip(middle - reach, middle + reach, strict=True))
        minimum = minimize(
            self.cost, start, method='Powell', bounds=bounds,
            options={'xtol': 0.5, 'ftol': 1e-4, 'maxiter': 4},
        )  # fmt: skip
        return float(minimum.fun), tuple(minimum.x)


def _standardize(values):
    centred = np.asarray(values, dtype=np.float64) - np.mean(values)
    return centred / max(float(np.linalg.norm(centred)), 1e-6)


def _to_mm(affine, index):
    return affine[:3, :3] @ index + affine[:3, 3:]


def distance_outside(mask, affine):
    """Measure the distance of each voxel to a mask within its slice.

    Parameters
    ----------
    mask : (X, Y, Z) array of bool
    affine : (4, 4) array

    Returns
    -------
    (X, Y, Z) array
        mm; 0 inside, infinite in slices without the mask.
    """
    distance = brain.distance_in_plane(~mask, grid.voxel_size_mm(affine))
    distance[..., ~mask.any(axis=(0, 1))] = np.inf
    return distance
