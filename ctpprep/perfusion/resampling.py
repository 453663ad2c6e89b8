# SPDX-License-Identifier: Apache-2.0
"""Images sampled at coordinates in mm, between the patient and the template."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage


def sample(array, affine, coordinates, order=0):
    """Sample an image at coordinates in mm; 0 outside it and where they are NaN.

    Parameters
    ----------
    array : (X, Y, Z) array
    affine : (4, 4) array
        Voxel to mm.
    coordinates : (..., 3) array
        mm, in the space of the affine.
    order : int
        0 nearest, 1 linear.

    Returns
    -------
    (...) array
        For order 0 of the type of `array`, else float32.

    Examples
    --------
    >>> sample(np.arange(8).reshape(2, 2, 2), np.diag([2, 2, 2, 1]), np.array([[2.4, 0, 2], [9, 0, 0]]))
    array([5, 0])
    """
    inverse = np.linalg.inv(affine)
    index = np.asarray(coordinates, dtype=np.float64) @ inverse[:3, :3].T + inverse[:3, 3]
    index = np.moveaxis(np.nan_to_num(index, nan=-1e6), -1, 0)
    kind = array.dtype if order == 0 else np.float32
    source = np.asarray(array, dtype=np.float32) if order else np.asarray(array)
    if source.dtype == bool:
        source = source.astype(np.uint8)
    # half of an edge voxel is still inside the image
    edge = np.array(array.shape).reshape(3, *[1] * (index.ndim - 1)) - 1
    inside = ((index >= -0.5) & (index <= edge + 0.5)).all(axis=0)
    values = np.zeros(index.shape[1:], dtype=kind)
    values[inside] = ndimage.map_coordinates(
        source, np.clip(index[:, inside], 0, edge.reshape(3, 1)), order=order
    )
    return values


def sample_map(array, tissue, affine, coordinates):
    """Sample a map that is defined in tissue only, without mixing in the 0 around it.

    Parameters
    ----------
    array : (X, Y, Z) array
    tissue : (X, Y, Z) array of bool
    affine : (4, 4) array
    coordinates : (..., 3) array
        mm.

    Returns
    -------
    (...) array of float32
        Linear interpolation over tissue, where tissue prevails; else 0.
    """
    weight = sample(tissue.astype(np.float32), affine, coordinates, order=1)
    total = sample(np.where(tissue, np.nan_to_num(array), 0.0), affine, coordinates, order=1)
    return np.where(weight > 0.5, total / np.maximum(weight, 0.5), 0.0).astype(np.float32)


@dataclass(frozen=True)
class Places:
    """Where the voxels of the template's brain are in the patient.

    Attributes
    ----------
    brain : (X, Y, Z) array of bool
        Voxels that are filled.
    coordinates : (N, 3) array
        Patient coordinates of these voxels, mm RAS; NaN outside the slab.
    """

    brain: np.ndarray
    coordinates: np.ndarray


def brain_places(template, map_points, transform, source):
    """Find where the voxels of the template's brain are in the patient.

    Parameters
    ----------
    template : Template
    map_points : callable
        As `TemplateRegistration.map_points`, with the target as one (shape, affine).
    transform
        That resamples the patient's images to the template.
    source : tuple
        Shape and affine of the patient's grid.

    Returns
    -------
    Places
    """
    (box,) = ndimage.find_objects(template.brain.astype(np.uint8))
    affine = np.array(template.affine, dtype=float)
    affine[:3, 3] = affine[:3, :3] @ [part.start for part in box] + affine[:3, 3]
    brain_mask = template.brain[box]
    coordinates = map_points((brain_mask.shape, affine), transform, source)
    return Places(template.brain, coordinates[brain_mask])


def to_template(image, tissue, affine, places, kind):
    """Resample an image of the patient to the template.

    Parameters
    ----------
    image : (X, Y, Z) array
    tissue : (X, Y, Z) array of bool
    affine : (4, 4) array
        Voxel to patient RAS, mm.
    places : Places
    kind : {'mask', 'map', ''}
        By the nearest voxel, linearly over tissue, or linearly.

    Returns
    -------
    (X', Y', Z') array
        0 outside the brain of the template and outside the slab; masks are uint8.
    """
    if kind == 'mask':
        values = sample((image > 0).astype(np.uint8), affine, places.coordinates)
    elif kind == 'map':
        values = sample_map(image, tissue, affine, places.coordinates)
    else:
        values = sample(np.nan_to_num(image), affine, places.coordinates, order=1)
    resampled = np.zeros(places.brain.shape, dtype=values.dtype)
    resampled[places.brain] = values
    return resampled
