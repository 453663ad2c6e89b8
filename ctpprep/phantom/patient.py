# SPDX-License-Identifier: Apache-2.0
"""A real head CT as anatomy: head and holder, inner table, tissue, and its place in the template.

The mask of the brain is the phantom's own and simpler than that of `ctpprep.perfusion`, which the
phantom tests. Positions are patient RAS coordinates as in the affine of the CT, mm.
"""

import tempfile
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import nibabel as nb
import numpy as np
from scipy import ndimage

from ctpprep.phantom.anatomy import load_template
from ctpprep.phantom.fields import Fields, smooth_step, stack_fields
from ctpprep.phantom.geometry import Shape
from ctpprep.phantom.patient_masks import (
    STEP,
    crop_to,
    find_content,
    separate_head,
    signed_distance,
)
from ctpprep.phantom.skull import AIR_HU

_SEED = 152
REGISTRATION_STEP = 3.0  # mm
_BENDING_ORIGIN, _BENDING_SHAPE = np.array([-90.0, -126.0, -72.0]), (61, 73, 63)  # 3 mm, template
_LEAST_OVERLAP = 0.9  # Dice of the registered skulls' contents


@dataclass(frozen=True)
class PatientShape(Shape):
    """Positions in the template by registration, and the tissue of the CT."""

    surfaces: Fields

    def tissue(self, points: np.ndarray) -> np.ndarray:
        """Return the fraction of brain tissue at (3, N) patient positions."""
        local = self.surfaces(points)
        return local['tissue'] * (local['skull'] < 0)


@dataclass(frozen=True)
class Patient:
    """The head of a CT.

    Attributes
    ----------
    path : Path
    hu : (X, Y, Z) float32 array
        The CT on its own grid, axes closest to RAS.
    affine : (4, 4) array
        Its voxels to patient mm.
    surfaces : Fields
        1.5 mm. Distances in mm, negative inside: ``head`` (skin), ``skull`` (inner table),
        ``brain`` (its envelope). ``tissue``: fraction of brain tissue.
    shape : PatientShape
        Patient to template positions.
    tissue_hu, csf_hu : float
        Medians of brain tissue and of the ventricles.
    noise_hu : float
        SD of the noise of a voxel of the CT.
    overlap : float
        Dice of the inside of the skull, registered template against CT.
    """

    path: Path
    hu: np.ndarray = field(repr=False)
    affine: np.ndarray = field(repr=False)
    surfaces: Fields = field(repr=False)
    shape: PatientShape = field(repr=False)
    tissue_hu: float
    csf_hu: float
    noise_hu: float
    overlap: float

    def sample(self, points: np.ndarray) -> np.ndarray:
        """Interpolate the CT linearly at (3, N) patient positions, HU.

        Above and below the covered slices the last one is repeated; beside them is air.
        """
        return _sample(self.hu, self.affine, points)

    @property
    def covered(self) -> tuple[float, float]:
        """Lowest and highest patient z that the CT covers on the axis of the head, mm."""
        inside = np.argwhere(self.surfaces.values[..., 1] < 0)
        x, y, _ = self.surfaces.origin + STEP * inside.mean(axis=0)
        heights = np.arange(-400.0, 400.0) + self.affine[2, 3]
        points = np.stack([np.full(800, x), np.full(800, y), heights])
        plane = _to_index(self.affine, points)[2]
        reached = heights[(plane >= -0.5) & (plane <= self.hu.shape[2] - 0.5)]
        return float(reached.min()), float(reached.max())


def load_patient(path: str | Path) -> Patient:
    """Read a head CT, separate its parts and register the template to it.

    It takes about 30 s; the last four are kept in memory.

    Parameters
    ----------
    path : path-like
        NIfTI of one head in HU, without contrast, of any voxel size.

    Raises
    ------
    ValueError
        If the file is missing, is not a head CT in HU, or the template does not fit to it.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f'anatomy: {path} does not exist, need a head CT (NIfTI, HU)')
    status = path.stat()
    return _load(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=4)
def _load(path: Path, _modified: int, _size: int) -> Patient:
    hu, affine = _read(path)
    values, origin = _resample_evenly(hu, affine)
    head = separate_head(values)
    if not head.any():
        raise ValueError(f'anatomy: {path} contains no object as large as a head, need a head CT')
    box, origin = crop_to(head, origin)
    values, head = values[box], head[box]
    smooth = ndimage.gaussian_filter(values, 0.8)
    content = find_content(path, smooth, head)
    points = _positions(values.shape, origin)
    template = load_template()
    for _ in range(3):
        shape, overlap = _register(path, smooth, content, origin)
        at_template = shape.to_template(points)
        # Orbits and neck may be connected to the brain by an opening of the skull.
        outside = content & (template.skull_distance(at_template) > 5).reshape(content.shape)
        content &= ~outside
        if outside.sum() < 0.02 * content.sum():
            break
    if overlap < _LEAST_OVERLAP:
        raise ValueError(
            f'anatomy: the template registered to {path} overlaps with the inside of the skull by '
            f'a Dice of {overlap:.2f}, need {_LEAST_OVERLAP} or more'
        )
    matter = template.matter(at_template)
    likely = matter['tissue'].reshape(content.shape)
    ventricle = (template.surfaces(at_template)['ventricle'] < 1).reshape(content.shape)
    csf_hu, tissue_hu, tissue = _grade_tissue(smooth, content, likely, ventricle)
    closed = ndimage.distance_transform_edt(~(tissue > 0.5)) * STEP <= 4
    closed = ndimage.distance_transform_edt(closed) * STEP > 4
    brain = ndimage.binary_fill_holes(closed & content)
    surfaces = stack_fields(
        origin, STEP, head=signed_distance(head), skull=signed_distance(content),
        brain=signed_distance(brain), tissue=tissue,
    )  # fmt: skip
    shape = PatientShape(shape.pose, shape.bending, surfaces)
    noise_hu = _measure_noise(hu, affine, surfaces)
    if noise_hu > 3:
        voxel = np.linalg.norm(affine[:3, :2], axis=0)
        hu = ndimage.gaussian_filter(hu, (*(0.5 / voxel), 0))
    return Patient(path, hu, affine, surfaces, shape, tissue_hu, csf_hu, noise_hu, overlap)


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the CT with axes closest to RAS, and refuse what cannot be one."""
    try:
        image = nb.as_closest_canonical(nb.load(path))
        hu = np.squeeze(image.get_fdata(dtype=np.float32))
    except (nb.filebasedimages.ImageFileError, OSError, EOFError) as error:
        raise ValueError(f'anatomy: {path} is not readable as NIfTI ({error})') from error
    if hu.ndim != 3 or min(hu.shape) < 8:
        raise ValueError(
            f'anatomy: {path} has the shape {image.shape}, need one 3D volume of at least 8 slices'
        )
    if not np.isfinite(hu).all() or hu.min() > -500 or hu.max() < 300:
        raise ValueError(
            f'anatomy: {path} contains values from {hu.min():g} to {hu.max():g}, need HU with air '
            f'(about -1000) and bone (above 300)'
        )
    axes = image.affine[:3, :3] / np.linalg.norm(image.affine[:3, :3], axis=0)
    if np.abs(axes.T @ axes - np.eye(3)).max() > 0.01:
        raise ValueError(
            f'anatomy: {path} has a sheared affine (gantry tilt), need a CT resampled to '
            f'perpendicular axes'
        )
    return np.clip(hu, AIR_HU, 3071), np.asarray(image.affine, float)


def _to_index(affine: np.ndarray, points: np.ndarray) -> np.ndarray:
    inverse = np.linalg.inv(affine)
    return inverse[:3, :3] @ points + inverse[:3, 3:]


def _sample(hu: np.ndarray, affine: np.ndarray, points: np.ndarray) -> np.ndarray:
    index = _to_index(affine, points)
    index[2] = np.clip(index[2], 0, hu.shape[2] - 1)
    return ndimage.map_coordinates(hu, index, order=1, cval=AIR_HU).astype(np.float32)


def _positions(shape: tuple[int, ...], origin: np.ndarray) -> np.ndarray:
    """Return the positions of the voxels of the even grid, (3, N) patient mm."""
    return np.indices(shape).reshape(3, -1) * STEP + origin[:, None]


def _resample_evenly(hu: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Resample the CT to an even grid along the patient axes; return it and its origin."""
    voxel = np.linalg.norm(affine[:3, :3], axis=0)
    fine = ndimage.gaussian_filter(hu, np.maximum(0.4 * (STEP / voxel - 1), 0))
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in hu.shape])).reshape(3, -1)
    corners = affine[:3, :3] @ corners + affine[:3, 3:]
    origin = corners.min(axis=1)
    shape = tuple(np.ceil(np.ptp(corners, axis=1) / STEP).astype(int) + 1)
    points = _positions(shape, origin)
    values = _sample(fine, affine, points)
    plane = _to_index(affine, points)[2]
    values[(plane < -0.5) | (plane > hu.shape[2] - 0.5)] = AIR_HU
    return values.reshape(shape), origin


def _register(
    path: Path, smooth: np.ndarray, content: np.ndarray, origin: np.ndarray
) -> tuple[Shape, float]:
    """Register the template to the inside of the skull; return positions and overlap."""
    from ctpprep.registration import register_positions

    template = load_template()
    skip = round(REGISTRATION_STEP / STEP)
    box, box_origin = crop_to(content, origin, 8)
    coarse = np.where(content, np.clip(smooth, 0, 60), 0)[box]
    fixed = ndimage.gaussian_filter(coarse, 0.8)[::skip, ::skip, ::skip]
    affine = np.diag([REGISTRATION_STEP] * 3 + [1.0])
    affine[:3, 3] = box_origin
    moving, moving_affine = _draw_template()
    with tempfile.TemporaryDirectory(prefix='ctpprep-') as folder:
        try:
            positions = register_positions((fixed, affine), (moving, moving_affine), _SEED, folder)
        except RuntimeError as error:  # from ITK: no overlap, or a singular matrix
            raise ValueError(
                f'anatomy: the template could not be registered to {path}, need a head CT that '
                f'covers the brain'
            ) from error
    shape = _fit_shape(positions, content[box][::skip, ::skip, ::skip], box_origin)

    reached = np.flatnonzero(content.any(axis=(0, 1)))
    points = _positions(content.shape, origin)
    at_template = shape.to_template(points)
    registered = (template.skull_distance(at_template) < 0) & (at_template[2] > -28)
    actual = content.ravel() & (at_template[2] > -28)
    covered = (points[2] >= origin[2] + STEP * reached[0]) & (
        points[2] <= origin[2] + STEP * reached[-1]
    )
    registered &= covered
    overlap = 2 * (registered & actual).sum() / max(registered.sum() + actual.sum(), 1)
    return shape, float(overlap)


def _draw_template() -> tuple[np.ndarray, np.ndarray]:
    """Draw the template as a CT of the inside of the skull, 2 mm, and its affine."""
    template = load_template()
    matter = template.matter.values[::2, ::2, ::2]
    names = template.matter.names
    tissue, white = (matter[..., names.index(name)] for name in ('tissue', 'white'))
    surfaces = template.surfaces
    skull = surfaces.values[..., surfaces.names.index('skull')]
    hu = tissue * (35 - 7 * white) + (1 - tissue) * 8
    affine = np.diag([surfaces.spacing] * 3 + [1.0])
    affine[:3, 3] = surfaces.origin
    return np.where(skull < 0, hu, 0).astype(np.float32), affine


def _fit_shape(positions: np.ndarray, content: np.ndarray, origin: np.ndarray) -> Shape:
    """Write (X, Y, Z, 3) template positions of the coarse grid as an affine part and a bending."""
    points = np.indices(content.shape).reshape(3, -1) * REGISTRATION_STEP + origin[:, None]
    valid = np.isfinite(positions).all(axis=-1)
    chosen = (content & valid).ravel()
    flat = positions.reshape(-1, 3)
    design = np.column_stack([flat[chosen], np.ones(chosen.sum())])
    pose = np.eye(4)
    pose[:3] = np.linalg.lstsq(design, points[:, chosen].T, rcond=None)[0].T
    # Away from the head the bending of its nearest voxel applies.
    inverse = np.linalg.inv(pose)
    shift = flat - (inverse[:3, :3] @ points + inverse[:3, 3:]).T
    shift = shift.reshape(*content.shape, 3)
    near = valid & (ndimage.distance_transform_edt(~(content & valid)) <= 3)
    nearest = ndimage.distance_transform_edt(~near, return_distances=False, return_indices=True)
    shift = shift[tuple(nearest)]
    shift = ndimage.gaussian_filter(shift, (0.7, 0.7, 0.7, 0))
    bending = stack_fields(origin, REGISTRATION_STEP, x=shift[..., 0], y=shift[..., 1],
                           z=shift[..., 2])  # fmt: skip

    # Shape bends positions that the pose has already brought to the template.
    nodes = np.indices(_BENDING_SHAPE).reshape(3, -1) * 3.0 + _BENDING_ORIGIN[:, None]
    at_nodes = bending(pose[:3, :3] @ nodes + pose[:3, 3:])
    fields = {name: value.reshape(_BENDING_SHAPE) for name, value in at_nodes.items()}
    return Shape(pose, stack_fields(_BENDING_ORIGIN, 3.0, **fields))


def _grade_tissue(
    smooth: np.ndarray, content: np.ndarray, likely: np.ndarray, ventricle: np.ndarray
) -> tuple[float, float, np.ndarray]:
    """Grade the tissue fraction by the density between CSF and the tissue around.

    Returns
    -------
    csf_hu, tissue_hu : float
    tissue : (X, Y, Z) array
    """
    deep = content & (ndimage.distance_transform_edt(content) * STEP > 6)
    sure = deep & (likely > 0.8) & (smooth > 15) & (smooth < 60)
    tissue_hu = float(np.median(smooth[sure]))
    fluid = smooth[deep & ventricle & (smooth < tissue_hu - 10) & (smooth > -5)]
    csf_hu = float(np.clip(np.percentile(fluid, 25), 0, 12)) if fluid.size > 50 else 6.0
    # Beam hardening and old damage change the density over centimetres.
    width = 12 / STEP
    weight = ndimage.gaussian_filter(sure.astype(np.float32), width)
    local = ndimage.gaussian_filter(np.where(sure, smooth, 0), width) / np.maximum(weight, 1e-6)
    local = np.where(weight > 0.02, local, tissue_hu)
    local = np.maximum(local, tissue_hu - 4)
    tissue = smooth_step((smooth - csf_hu) / (local - csf_hu), 0.3, 0.85)
    tissue *= smooth_step(-signed_distance(content), 0.0, 2.0)
    near = ndimage.gaussian_filter(likely, 3 / STEP)
    tissue *= smooth_step(near, 0.05, 0.3) * (smooth < 90)
    return csf_hu, tissue_hu, tissue.astype(np.float32)


def _measure_noise(hu: np.ndarray, affine: np.ndarray, surfaces: Fields) -> float:
    """Measure the noise in plane by differences of neighbours deep in the brain, HU."""
    middle = hu[1:-1:2, 1:-1:2, ::2]
    index = np.stack(np.meshgrid(*[np.arange(1, n - 1, 2) for n in hu.shape[:2]],
                                 np.arange(0, hu.shape[2], 2), indexing='ij')).reshape(3, -1)  # fmt: skip
    around = (hu[:-2:2, 1:-1:2, ::2] + hu[2::2, 1:-1:2, ::2]) / 2
    rough = (middle - around[: middle.shape[0]]).ravel()
    points = affine[:3, :3] @ index + affine[:3, 3:]
    local = surfaces(points)
    deep = (local['brain'] < -6) & (local['tissue'] > 0.95)
    if deep.sum() < 100:
        return 0.0
    # The difference of a voxel from the mean of two has 1.5 times its variance.
    return float(1.4826 * np.median(np.abs(rough[deep])) / np.sqrt(1.5))
