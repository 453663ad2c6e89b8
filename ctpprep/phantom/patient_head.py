# SPDX-License-Identifier: Apache-2.0
"""The head of a real CT on the fine grid, with vessels, physiology and lesions planted in it.

The density is the CT's own, minus what core and microangiopathy have lost; vessels are raised to
the density of blood where the CT is less dense. Ignored are the settings of what the CT has itself:
`tilt_deg`, `asymmetry_mm`, `head.skull`, `head.size`, `head.calcifications`,
`head.skull_defect_mm`, `head.extracranial_vessels` and `scanner.beam_hardening_hu`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from ctpprep.phantom.anatomy import load_template
from ctpprep.phantom.artefacts import CLIP_RADIUS, METAL_HU, Metal
from ctpprep.phantom.fields import Fields, smooth_step, stack_fields
from ctpprep.phantom.geometry import HEAD_CENTRE, SLAB_BOTTOM, Grid
from ctpprep.phantom.head import BLOOD_HU, THROMBUS_HU, VESSEL_VALUES, Head, read_vessels
from ctpprep.phantom.patient import Patient
from ctpprep.phantom.patient_masks import STEP
from ctpprep.phantom.physiology import Lesion, OldInfarct, perfuse
from ctpprep.phantom.settings import PhantomSettings
from ctpprep.phantom.skull import AIR_HU
from ctpprep.phantom.vessels import Vessels, lay_vessels, map_distance

_ROOM_AIR_HU = -950.0  # less is air, not holder


class PatientGrid(Grid):
    """The acquired voxels around the head of a CT, in its patient coordinates.

    Raises
    ------
    ValueError
        If the CT covers less than the slab.
    """

    def __init__(self, settings: PhantomSettings, patient: Patient):
        super().__init__(settings)
        height = self.voxel[2] * settings.n_slices
        low, high = patient.covered
        if high - low < height:
            raise ValueError(
                f'anatomy: {patient.path} covers {high - low:.0f} mm of the head from feet to '
                f'head, need the {height:.0f} mm of {settings.n_slices} slices; use fewer slices'
            )
        start = np.array([*HEAD_CENTRE[:2], SLAB_BOTTOM])[:, None]
        bottom = patient.shape.to_patient(start)[2, 0] + settings.head.slab_shift_mm
        bottom = np.clip(bottom, low, high - height)
        head = patient.surfaces.values[..., patient.surfaces.names.index('head')] < 0
        z = patient.surfaces.origin[2] + STEP * np.arange(head.shape[2])
        x, y, _ = head[..., (z > bottom) & (z < bottom + height)].nonzero()
        middle = [patient.surfaces.origin[i] + STEP * (c.min() + c.max()) / 2
                  for i, c in enumerate((x, y))]  # fmt: skip
        shift = np.array([*middle, bottom])
        self.corner = self.corner + shift
        self.affine[:3, 3] += shift
        self.centre = self.centre + shift

    def fine_plane(self, plane: int) -> np.ndarray:
        """Return the centres of the fine voxels of one plane, (3, x*y) patient mm."""
        points = super().fine_plane(plane)
        points[2] += self.corner[2]
        return points


def build_patient_head(
    settings: PhantomSettings,
    grid: Grid,
    patient: Patient,
    variation: Fields,
    lesions: Sequence[Lesion],
    old_infarct: OldInfarct | None,
    metal: Metal | None,
) -> Head:
    """Fill the fine grid plane by plane from the CT."""
    vessels = lay_patient_vessels(settings, patient, variation)
    tree = cKDTree(vessels.points)
    static = np.full(grid.fine_shape, AIR_HU, np.float32)
    holder = np.full(grid.fine_shape, AIR_HU, np.float32)
    planes, holders = (v.reshape(-1, grid.fine_shape[2]) for v in (static, holder))
    parts, inside = [], []
    for plane in range(grid.fine_shape[2]):
        positions = grid.fine_plane(plane)
        hu = patient.sample(positions)
        distances = patient.surfaces(positions)
        in_head = distances['head'] < 0
        holders[:, plane] = np.where(in_head | (hu < _ROOM_AIR_HU), AIR_HU, hu)
        soft = np.flatnonzero(distances['skull'] < 0.5)
        local = {name: value[soft] for name, value in distances.items()}
        values, hu[soft] = _fill_skull(
            positions[:, soft], hu[soft], local, patient, settings, variation, lesions, old_infarct,
            read_vessels(positions[:, soft], vessels, tree),
        )  # fmt: skip
        if metal is not None:
            distance = np.linalg.norm(positions - metal.position[:, None], axis=0)
            hu += np.clip(0.5 + CLIP_RADIUS - distance, 0, 1) * (METAL_HU - hu)
        planes[:, plane] = np.where(in_head, hu, AIR_HU)
        parts.append(values)
        inside.append(soft * grid.fine_shape[2] + plane)
    values = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Head(static, np.concatenate(inside), values, metal, holder)


def _fill_skull(
    positions: np.ndarray,
    hu: np.ndarray,
    local: Mapping[str, np.ndarray],
    patient: Patient,
    settings: PhantomSettings,
    variation: Fields,
    lesions: Sequence[Lesion],
    old_infarct: OldInfarct | None,
    blood: Mapping[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Compute fractions and physiology inside the skull, and the changed density.

    Parameters
    ----------
    positions : (3, N) array
        Patient mm.
    hu : (N,) array
        Of the CT.
    local : dict of (N,) arrays
        The surfaces of the patient.
    patient, settings, variation, lesions, old_infarct
    blood : dict of (N,) arrays
        The vessels.

    Returns
    -------
    values : dict of (N,) arrays
    hu : (N,) array
    """
    points = patient.shape.to_template(positions)
    white = load_template().matter(points)['white']
    ventricle = load_template().surfaces(points)['ventricle']
    drawn = variation(points)
    values = perfuse(points, white, ventricle, drawn, settings, lesions)
    healthy = perfuse(points, white, ventricle, drawn, replace(settings, microangiopathy=0.0), [])
    lost = healthy['hu'] - values.pop('hu') - settings.head.brain_hu
    values |= {name: blood[name] for name in VESSEL_VALUES}
    # Bone and calcifications inside, and the inner table, are neither tissue nor vessel.
    soft = np.clip(0.5 - local['skull'], 0, 1) * (1 - smooth_step(hu, 100, 250))
    values['soft'] = soft
    values['brain'] = (local['brain'] < 0) & (local['skull'] < 0)
    values['vessel'] = blood['vessel'] * soft
    tissue = local['tissue'] * (soft - values['vessel'])
    if old_infarct is not None:
        values['old_infarct'] = old_infarct.contains(points) & values['brain']
        hu = hu + tissue * values['old_infarct'] * (patient.csf_hu - patient.tissue_hu)
        tissue = tissue * ~values['old_infarct']
    values['tissue'] = tissue
    values['csf'] = np.maximum(soft - tissue - values['vessel'], 0)
    dense = np.where(values['vessel_gain'] == 0, THROMBUS_HU, BLOOD_HU) + settings.head.brain_hu
    hu = hu - tissue * lost + values['vessel'] * np.maximum(dense - hu, 0)
    values = {
        name: value if value.dtype == bool else value.astype(np.float32)
        for name, value in values.items()
    }
    return values, hu


def lay_patient_vessels(settings: PhantomSettings, patient: Patient, variation: Fields) -> Vessels:
    """Lay the template's vessels in patient coordinates.

    The registration is not exact to the millimetre: arteries are drawn to the CSF around, sinuses
    to their depth below the inner table, and none is left in bone.
    """
    plain = replace(settings, head=replace(settings.head, extracranial_vessels=False))
    vessels = lay_vessels(plain, variation)
    depth = -load_template().skull_distance(vessels.points.T)
    points = patient.shape.to_patient(vessels.points.T)
    is_sinus = vessels.is_vein & (vessels.radius > 1.6) & (depth < 8)
    breaks = np.linalg.norm(np.diff(vessels.points, axis=0), axis=1) > 1.0
    courses = np.split(np.arange(len(vessels.points)), np.flatnonzero(breaks) + 1)

    csf = _find_way_to_csf(patient)
    for _ in range(3):
        drawn = np.stack(list(csf(points).values())) * ~is_sinus
        points = points + _smooth_along(drawn, courses)
    for _ in range(4):
        pushed = _push_inside(points, depth, vessels.radius, is_sinus, patient.surfaces)
        points = points + _smooth_along(pushed, courses, 4)
    points = points + _push_inside(points, depth, vessels.radius, is_sinus, patient.surfaces)
    near = map_distance(points.T, patient.surfaces)
    return replace(vessels, points=np.ascontiguousarray(points.T), near=near)


def _find_way_to_csf(patient: Patient) -> Fields:
    """Map the shift to the centre of the CSF within a few mm, at most 2 mm."""
    surfaces = patient.surfaces
    skull, tissue = (surfaces.values[..., surfaces.names.index(n)] for n in ('skull', 'tissue'))
    weight = (1 - tissue) * np.clip(-skull, 0, 1)
    width = 2.5 / STEP
    total = ndimage.gaussian_filter(weight, width) + 0.02
    shifts = {}
    for axis, name in enumerate('xyz'):
        index = np.arange(weight.shape[axis], dtype=np.float32)
        index = index.reshape([-1 if a == axis else 1 for a in range(3)])
        moment = ndimage.gaussian_filter(weight * index, width) + 0.02 * index
        shifts[name] = np.clip(STEP * (moment / total - index), -2, 2)
    return stack_fields(surfaces.origin, STEP, **shifts)


def _push_inside(
    points: np.ndarray,
    template_depth: np.ndarray,
    radius: np.ndarray,
    is_sinus: np.ndarray,
    surfaces: Fields,
) -> np.ndarray:
    """Return the shift, (3, P) mm, of points to their depth below the inner table."""
    steps = STEP * np.eye(3)[:, :, None]
    ahead, behind = (
        np.stack([surfaces(points + sign * step)['skull'] for step in steps]) for sign in (1, -1)
    )
    outwards = ahead - behind
    outwards /= np.maximum(np.linalg.norm(outwards, axis=0), 1e-6)
    depth = -surfaces(points)['skull']
    wanted = np.maximum(np.where(is_sinus, template_depth, depth), radius + 0.7)
    # What is far outside, such as the neck below the skull, remains there.
    missing = np.where(depth > -15, np.clip(wanted - depth, -6, 15), 0)
    return -outwards * missing


def _smooth_along(
    shift: np.ndarray, courses: Sequence[np.ndarray], width_mm: float = 10.0
) -> np.ndarray:
    """Average (3, P) shifts along each course, whose points are 0.25 mm apart."""
    smooth = np.empty_like(shift)
    for course in courses:
        smooth[:, course] = ndimage.uniform_filter1d(
            shift[:, course], int(width_mm / 0.25), axis=1, mode='nearest'
        )
    return smooth
