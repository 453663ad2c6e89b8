# SPDX-License-Identifier: Apache-2.0
"""Digital heads with known perfusion, and BIDS data sets made of them.

One call, :func:`make_phantom`, draws a head, scans it and keeps the truth. The steps:

1. **Anatomy.** Grey- and white-matter maps of the symmetric ICBM152 template [1]_, as shipped
   inside nilearn (no download), with skull, scalp, CSF, arteries and sinuses added. A smooth
   asymmetric deformation and a random pose make the midline bent and oblique.
2. **Physiology.** CBF, CBV and delay of each tissue, with a smooth variation; optionally
   microangiopathy (both sides, deep white matter) and an infarct in one MCA territory or in both.
3. **Curves.** ``c = rho/k_H * CBF/6000 * (AIF (x) R)(t - delay)``, integrated at 0.05 s [2]_.
4. **Scan.** Each slice of each frame at its own time, in the pose of that frame; averaged over
   the voxel from a finer grid, blurred in plane, plus correlated noise, rounded to int16.

The phantom judges the deconvolution, so it imports nothing of it. Positions inside this module
are ``(3, N)`` arrays in mm. *Template* positions are MNI coordinates of the symmetric template;
*patient* positions are RAS coordinates of the scanner, head in the pose of frame 0.

References
----------
.. [1] Fonov V, et al. NeuroImage 2011;54:313-327, doi:10.1016/j.neuroimage.2010.07.033
.. [2] Fieselmann A, et al. Int J Biomed Imaging 2011:467563, doi:10.1155/2011/467563
"""

import json
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from itertools import product
from pathlib import Path

import nibabel as nb
import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

K_H = (1 - 0.45) / (1 - 0.25)  # haematocrit of large and small vessels, Fieselmann 2011
RHO = 1.04  # g/mL, brain tissue
TIME_STEP = 0.05  # s, of every fine curve

# Normal values: CBF mL/100 g/min, CBV mL/100 g, delay s, baseline HU. The variation drawn below
# keeps each of them inside the range that the literature gives for the tissue.
GREY = {'cbf': 60.0, 'cbv': 4.0, 'delay': 1.0, 'hu': 37.0}
WHITE = {'cbf': 24.0, 'cbv': 2.15, 'delay': 1.75, 'hu': 29.0}
MICROANGIOPATHY = {'cbf': 11.0, 'cbv': 1.4, 'delay': 3.25, 'hu': 25.5}
CSF_HU, BLOOD_HU, THROMBUS_HU, SCALP_HU, AIR_HU = 5.0, 42.0, 60.0, 40.0, -1000.0
LESIONS_ML = {  # core, penumbra; mL of tissue
    'tiny': (8.0, 40.0), 'small': (20.0, 60.0), 'large': (50.0, 100.0), 'huge': (90.0, 110.0),
}  # fmt: skip

_STREAMS = ('shape', 'physiology', 'lesion', 'bolus', 'motion', 'noise')
_MARGIN_MM = 10.0  # head kept below and above the slab, so that motion brings in real tissue
_SLAB_BOTTOM = -28.0  # template z, mm: just below the carotid terminus
_SMOOTH_ORIGIN, _SMOOTH_SPACING = (-120.0, -160.0, -90.0), 4.0  # grid of random fields, mm
_HEAD_CENTRE = np.array([0.0, -17.0, 10.0])  # template mm, pivot of the pose


@dataclass(frozen=True)
class PhantomSettings:
    """What to draw and how to scan it.

    Attributes
    ----------
    seed : int
        Anatomy, physiology, lesion, bolus, motion and noise each have their own random stream:
        the same seed with other settings is the same head scanned otherwise.
    matrix : int
        Voxels along each in-plane axis.
    voxel_size_mm : tuple of 3 float
        In plane, in plane, slice thickness.
    n_slices, n_frames : int
    frame_interval : float
        Seconds between frames (in the first pass, if `timing` is 'uneven').
    timing : {'even', 'uneven', 'toggling', 'jog'}
        'uneven': twice the interval after the first 2/3 of the frames. 'toggling': the upper
        half of the slices is scanned half an interval after the lower half. 'jog': the same, but
        every other frame begins with the upper half.
    noise_hu : float
        SD of the noise of one acquired voxel, HU.
    motion_mm : float
        Size of one sudden movement (mm and degrees); slow drift comes with it. 0: no motion.
    tilt_deg : float
        Largest rotation of the head about each patient axis.
    asymmetry_mm : float
        Peak of the asymmetric deformation.
    microangiopathy : bool
    lesion : {'none', 'tiny', 'small', 'large', 'huge'}
        Core of about 8, 20, 50 or 90 mL with a penumbra around it.
    lesion_side : {'left', 'right', 'both'}
        'both': two lesions of that size, for which no healthy side is left to compare with.
    residue : {'exponential', 'linear', 'plateau'}
        Family of the residue function; all have the area MTT.
    orientation : str
        Axes of the voxel array, e.g. 'RAS' or 'LPS'; the third is 'S' or 'I'.
    """

    seed: int = 0
    matrix: int = 128
    voxel_size_mm: tuple[float, float, float] = (1.72, 1.72, 5.0)
    n_slices: int = 20
    n_frames: int = 27
    frame_interval: float = 1.5
    timing: str = 'even'
    noise_hu: float = 4.0
    motion_mm: float = 2.0
    tilt_deg: float = 8.0
    asymmetry_mm: float = 5.0
    microangiopathy: bool = False
    lesion: str = 'none'
    lesion_side: str = 'left'
    residue: str = 'exponential'
    orientation: str = 'LPS'

    def __post_init__(self):
        choices = {
            'timing': ('even', 'uneven', 'toggling', 'jog'),
            'lesion': ('none', *LESIONS_ML),
            'lesion_side': ('left', 'right', 'both'),
            'residue': ('exponential', 'linear', 'plateau'),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f'{name} is one of {allowed}, got {getattr(self, name)!r}')
        letters = self.orientation
        if len(letters) != 3 or any(
            a not in b for a, b in zip(letters, ('RL', 'AP', 'SI'), strict=True)
        ):
            raise ValueError(
                f"orientation is three letters such as 'RAS' or 'LPS' with slices along the "
                f'third axis, got {letters!r}'
            )


@dataclass(frozen=True)
class Phantom:
    """A scanned head and its truth; arrays are on the acquired grid, axes as `orientation`.

    Attributes
    ----------
    settings : PhantomSettings
    ctp : (X, Y, Z, T) int16 array
        HU.
    affine : (4, 4) array
        Voxel index to patient RAS, mm.
    frame_times : (T,) array
        Start of each frame, s.
    sample_times : (Z, T) array
        When each slice of each frame was scanned, s.
    times_fine, aif, vof : (N,) array
        s and HU of enhancement; undiluted curves at 0.05 s.
    truth : dict of arrays
        In the pose of frame 0. ``cbf`` mL/100 g/min, ``cbv`` mL/100 g, ``mtt`` s, ``delay`` s
        against the AIF: means over the brain tissue in the voxel, 0 where there is none (the
        voxel's curve has the amplitude ``tissue * cbf``). ``tissue``, ``vessel``: fractions of
        the voxel. Masks, by majority: ``brain`` (with sulci and ventricles, without the outer
        CSF rim), ``csf`` (with the rim), and, of the tissue in the voxel, ``core``,
        ``penumbra``, ``hypoperfusion`` (delay > 6 s), ``microangiopathy``. ``side``: 1 left,
        2 right of the bent midline, 0 outside the brain. ``homologue`` (X, Y, Z, 3): patient
        RAS of the voxel's counterpart, mm; NaN outside the brain and where the counterpart is
        outside the slab.
    motion : (T, 6) array
        Shift along x, y, z (mm) and rotation about x, y, z (rad), see :func:`frame_affine`.
    frame_affines : (T, 4, 4) array
        Moves a point of the head from its place in frame 0 to its place in frame t, patient RAS.
    """

    settings: PhantomSettings
    ctp: np.ndarray
    affine: np.ndarray
    frame_times: np.ndarray
    sample_times: np.ndarray
    times_fine: np.ndarray
    aif: np.ndarray
    vof: np.ndarray
    truth: dict
    motion: np.ndarray
    frame_affines: np.ndarray


def make_phantom(settings: PhantomSettings) -> Phantom:
    """Draw a head and scan it.

    Deterministic for given settings. Costs about 10 s and 0.5 GB for 128 x 128 x 20 x 27
    voxels.
    """
    rngs = dict(zip(_STREAMS, np.random.default_rng(settings.seed).spawn(6), strict=True))
    grid = _Grid(settings)
    shape = _draw_shape(settings, rngs['shape'])
    variation = _draw_variation(rngs['physiology'])
    lesions = _draw_lesions(settings, rngs['lesion'], grid, shape)
    frame_times, sample_times = _sample_times(settings)
    times_fine, aif, vof = _bolus(rngs['bolus'], sample_times.max())
    motion, frame_affines = _draw_motion(settings, rngs['motion'], grid.centre)

    head = _build_head(settings, grid, shape, variation, lesions)
    table = _CurveTable(times_fine, aif, vof, settings.residue)
    ctp = _scan(head, grid, table, sample_times, frame_affines, settings, rngs['noise'])
    truth = _truth_maps(head, grid)
    truth |= _truth_sides(truth['brain'], grid, shape)
    phantom = Phantom(
        settings, ctp, grid.affine, frame_times, sample_times, times_fine, aif, vof, truth,
        motion, frame_affines,
    )  # fmt: skip
    return _reorient(phantom)


# --- template ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Fields:
    """Named values on one regular grid of template mm, read together.

    Interpolating K fields at once shares the search for the eight corners; it is about four
    times faster than K calls of map_coordinates.
    """

    values: np.ndarray  # (nx, ny, nz, K) float32
    names: tuple[str, ...]
    origin: np.ndarray
    spacing: float

    def __call__(self, points):
        """Trilinear values at (3, N) points: dict of (N,) arrays; the border value outside."""
        shape = np.array(self.values.shape[:3])
        index = ((points - self.origin[:, None]) / self.spacing).astype(np.float32)
        index = np.clip(index, 0, shape[:, None] - 1.001)
        low = index.astype(np.int32)
        high_weight = (index - low).astype(np.float32)
        low_weight = 1 - high_weight
        strides = (shape[1] * shape[2], shape[2], 1)
        corner = low[0] * strides[0] + low[1] * strides[1] + low[2]
        table = self.values.reshape(-1, len(self.names))
        total = np.zeros((points.shape[1], len(self.names)), np.float32)
        for offsets in product((0, 1), repeat=3):
            wx, wy, wz = (
                (high_weight if up else low_weight)[axis] for axis, up in enumerate(offsets)
            )
            step = sum(up * stride for up, stride in zip(offsets, strides, strict=True))
            total += (wx * wy * wz)[:, None] * table.take(corner + step, axis=0)
        return dict(zip(self.names, np.ascontiguousarray(total.T), strict=True))


def _stack(origin, spacing, **fields):
    values = np.stack([np.asarray(v, np.float32) for v in fields.values()], axis=-1)
    # Contiguous, or every reading would copy the whole grid.
    return _Fields(np.ascontiguousarray(values), tuple(fields), np.asarray(origin, float), spacing)


@dataclass(frozen=True)
class _Template:
    """Symmetric anatomy in template space.

    Attributes
    ----------
    matter : _Fields
        ``tissue``: fraction of brain tissue, ``white``: white fraction of it; 1 mm.
    surfaces : _Fields
        Distances in mm, negative inside, 2 mm: ``brain`` (its envelope), ``skull`` (inner
        table), ``ventricle`` (lateral ventricles; not negative).
    """

    matter: _Fields
    surfaces: _Fields

    def skull(self, points):
        return self.surfaces(points)['skull']


def _ramp(values, low, high):
    """Smooth step: 0 below `low`, 1 above `high`."""
    x = np.clip((values - low) / (high - low), 0, 1)
    return x * x * (3 - 2 * x)


@lru_cache(maxsize=1)
def _load_template():
    """Read the ICBM152 maps and derive envelope, skull and ventricles (about 3 s, once)."""
    from nilearn.datasets import load_mni152_gm_template, load_mni152_wm_template

    grey_img = load_mni152_gm_template(resolution=1)
    grey = _symmetric(grey_img.get_fdata(dtype=np.float32))
    white = _symmetric(load_mni152_wm_template(resolution=1).get_fdata(dtype=np.float32))
    origin = grey_img.affine[:3, 3]
    # Average maps are soft; the ramps give back sulci as open as an older patient's.
    tissue = _ramp(grey + white, 0.4, 0.95)
    white_fraction = _ramp(white / np.maximum(grey + white, 1e-3), 0.3, 0.75)

    half = tissue[::2, ::2, ::2]
    brain = ndimage.binary_fill_holes(_close(half > 0.5, 4.0))
    skull = _close(brain, 14.0)
    ventricle = _lateral_ventricles(half, brain, origin)
    return _Template(
        matter=_stack(origin, 1.0, tissue=tissue, white=white_fraction),
        surfaces=_stack(
            origin,
            2.0,
            brain=_signed_distance(brain),
            skull=_signed_distance(skull) - 2.5,
            ventricle=2.0 * ndimage.distance_transform_edt(~ventricle),
        ),
    )


def _symmetric(values):
    """Remove the last rounding asymmetry, so that mirrored points are true homologues."""
    return np.ascontiguousarray(values + values[::-1]) / 2


def _close(mask, radius_mm):
    """Close a mask of 2 mm voxels with a ball."""
    radius = radius_mm / 2
    grown = ndimage.distance_transform_edt(~mask) <= radius
    return ndimage.distance_transform_edt(grown) > radius


def _signed_distance(mask):
    """Distance to the border of a mask of 2 mm voxels, mm, smoothed against its steps."""
    outside = ndimage.distance_transform_edt(~mask)
    inside = ndimage.distance_transform_edt(mask)
    return ndimage.gaussian_filter(2.0 * (outside - inside), 1.0).astype(np.float32)


def _lateral_ventricles(tissue, brain, origin):
    """Deep CSF around the lateral ventricles in the 2 mm template."""
    x, y, z = (o + 2.0 * np.arange(n) for o, n in zip(origin, tissue.shape, strict=True))
    box = np.ix_((np.abs(x) > 1) & (np.abs(x) < 32), (y > -56) & (y < 38), (z > 0) & (z < 32))
    deep = ndimage.distance_transform_edt(brain)[box] > 10
    labels, _ = ndimage.label((tissue[box] < 0.5) & deep)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    ventricle = np.zeros(tissue.shape, bool)
    ventricle[box] = (labels > 0) & (sizes[labels] > 50)
    return ventricle


# --- vessels ----------------------------------------------------------------------------------

# Courses on the patient's right (+x) in template mm, radius mm at start and end, delay s at start
# and end (arteries: against the AIF; veins: against the VOF), and a role in an M1 occlusion.
_PAIRED = (
    ('ica', 'artery', 2.0, 1.9, 0.0, 0.0,
     [(15, -8, -48), (14, 4, -34), (12, 0, -27), (12, 5, -22), (15, 3, -16)]),
    ('m1', 'artery', 1.6, 1.4, 0.0, 0.2, [(15, 3, -16), (22, 5, -15), (30, 5, -16), (36, 4, -13)]),
    ('m2', 'artery', 1.2, 0.9, 0.2, 0.9,
     [(36, 4, -13), (41, 12, -5), (41, 16, 5), (43, 14, 14), (52, 14, 16), (60, 2, 28)]),
    ('m2', 'artery', 1.2, 0.9, 0.2, 0.9,
     [(36, 4, -13), (42, -2, -6), (42, -12, 4), (42, -24, 14), (54, -34, 20), (60, -46, 28)]),
    ('m2', 'artery', 1.1, 0.9, 0.3, 0.9,
     [(41, 4, -8), (42, 2, 4), (42, -6, 15), (54, -8, 20), (62, -14, 36)]),
    ('aca', 'artery', 1.1, 1.1, 0.0, 0.2, [(15, 3, -16), (8, 9, -15), (3, 14, -13)]),
    ('aca', 'artery', 1.1, 0.8, 0.2, 0.8,
     [(3, 14, -13), (2, 26, -8), (2, 36, 4), (2, 34, 16), (2, 20, 27), (2, 0, 33), (2, -20, 37)]),
    ('aca', 'artery', 0.9, 0.8, 0.4, 0.9, [(2, 36, 4), (2, 48, 20), (2, 40, 40), (2, 24, 56)]),
    ('pca', 'artery', 1.1, 0.8, 0.3, 1.0,
     [(0, -10, -19), (8, -13, -17), (19, -20, -13), (23, -32, -6), (18, -50, -3), (10, -76, 2)]),
    ('icv', 'vein', 1.2, 1.5, -1.0, -0.5, [(3, 0, 12), (3, -18, 14), (1, -38, 9)]),
)  # fmt: skip
_MIDLINE = (
    ('basilar', 'artery', 1.7, 1.6, 0.2, 0.3, [(0, -18, -50), (0, -11, -36), (0, -10, -19)]),
)  # fmt: skip


@dataclass(frozen=True)
class _Vessels:
    """Dense points along all vessels, template mm."""

    points: np.ndarray  # (P, 3)
    radius: np.ndarray  # (P,) mm
    is_vein: np.ndarray  # (P,)
    delay: np.ndarray  # (P,) s
    gain: np.ndarray  # (P,) of the AIF or VOF; 0 in a thrombus
    near: _Fields  # distance to the closest point, mm, coarse


def _vessels(settings):
    """Lay all vessels; with a lesion, close the M1 of each side that has one."""
    courses = [*_MIDLINE, *_sinuses()]
    for name, kind, *sizes, nodes in _PAIRED:
        for sign in (-1, 1):
            courses.append((name, kind, *sizes, np.multiply(nodes, (sign, 1, 1))))
    occluded = _lesion_signs(settings)
    parts = [_lay_vessel(*course, occluded) for course in courses]
    points, *attributes = (np.concatenate(part) for part in zip(*parts, strict=True))
    return _Vessels(points, *attributes, _distance_to_points(points))


def _lay_vessel(name, kind, r_start, r_end, delay_start, delay_end, nodes, occluded):
    """Points every 0.25 mm along a smooth course through `nodes`."""
    from scipy.interpolate import PchipInterpolator

    nodes = np.asarray(nodes, float)
    length = np.r_[0, np.cumsum(np.linalg.norm(np.diff(nodes, axis=0), axis=1))]
    course = np.linspace(0, 1, int(length[-1] / 0.25) + 2)
    points = PchipInterpolator(length / length[-1], nodes)(course)
    radius = r_start + (r_end - r_start) * course
    delay = delay_start + (delay_end - delay_start) * course
    gain = np.ones_like(course)
    if name in ('m1', 'm2') and np.sign(nodes[-1, 0]) in occluded:
        # A clot from the middle of M1 on; the branches fill late and weakly over collaterals.
        if name == 'm1':
            gain[course > 0.4] = 0.0
        else:
            gain[:] = 0.65
            delay = delay + 4.0
    return points, radius, np.full(len(course), kind == 'vein'), delay, gain


def _sinuses():
    """Dural sinuses, laid along the inner table of the template's skull."""
    skull = _load_template().skull
    angles = np.radians(np.linspace(48, 192, 40))
    sagittal = _along_skull(skull, (0, -15, 15), _directions(np.zeros(40), angles), 3.0)
    torcula = sagittal[-1]
    turn = np.radians(np.linspace(8, 62, 12))
    transverse = _along_skull(
        skull, (0, -20, torcula[2]),
        np.stack([np.sin(turn), -np.cos(turn), -0.12 * np.sin(turn)], 1), 3.0,
    )  # fmt: skip
    transverse = np.vstack([torcula, transverse, transverse[-1] + (-8, 8, -14)])
    straight = [(0, -38, 9), (0, -48, 7), (0, -65, 2), tuple(torcula)]
    yield 'sss', 'vein', 2.0, 3.8, -0.5, 0.2, sagittal
    yield 'straight', 'vein', 2.5, 2.8, -0.5, 0.2, straight
    for sign in (-1, 1):
        yield 'transverse', 'vein', 3.2, 3.0, 0.2, 0.8, transverse * (sign, 1, 1)


def _directions(azimuth, elevation):
    """Unit vectors; azimuth from +y to +x, elevation from +y over +z to -y, rad."""
    return np.stack(
        [np.sin(azimuth), np.cos(azimuth) * np.cos(elevation), np.sin(elevation)], axis=1
    )


def _along_skull(skull, centre, directions, depth_mm):
    """First point `depth_mm` inside the inner table on rays from `centre`; (n, 3) mm."""
    steps = np.arange(20, 140, 0.5)
    rays = np.asarray(centre, float) + steps[None, :, None] * directions[:, None, :]
    distance = skull(rays.reshape(-1, 3).T).reshape(rays.shape[:2])
    hit = np.argmax(distance > -depth_mm, axis=1)
    return rays[np.arange(len(rays)), hit]


def _distance_to_points(points):
    """Coarse map (2 mm) of the distance to the closest vessel point."""
    grid = _load_template().surfaces
    shape = grid.values.shape[:3]
    index = np.round((points - grid.origin) / grid.spacing).astype(int)
    index = np.clip(index, 0, np.array(shape) - 1)
    empty = np.ones(shape, bool)
    empty[tuple(index.T)] = False
    distance = grid.spacing * ndimage.distance_transform_edt(empty)
    return _stack(grid.origin, grid.spacing, distance=distance)


# --- grid, shape and pose ---------------------------------------------------------------------


class _Grid:
    """The acquired voxels (RAS axes) and the finer grid that is averaged into them."""

    def __init__(self, settings):
        self.voxel = np.array(settings.voxel_size_mm, float)
        self.shape = (settings.matrix, settings.matrix, settings.n_slices)
        # About 1 mm in plane and 1.25 mm along z: finer than every vessel.
        # Coarser voxels keep 3 x 3 x 4 parts, which bounds the cost.
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

    def centres(self):
        """Voxel centres, (3, X*Y*Z) patient mm."""
        index = np.indices(self.shape, dtype=np.float32).reshape(3, -1)
        return index * self.voxel[:, None] + self.affine[:3, 3][:, None]

    def fine_plane(self, plane):
        """Centres of the fine voxels of one plane, (3, x*y) patient mm."""
        nx, ny, _ = self.fine_shape
        x = self.corner[0] + (np.arange(nx) + 0.5) * self.fine_voxel[0]
        y = self.corner[1] + (np.arange(ny) + 0.5) * self.fine_voxel[1]
        z = (plane - self.margin + 0.5) * self.fine_voxel[2]
        return np.stack([np.repeat(x, ny), np.tile(y, nx), np.full(nx * ny, z)])

    def to_filtered_index(self, points):
        """Index into a fine volume that was box-averaged over the voxel by `_box_average`."""
        index = (points - self.corner[:, None]) / self.fine_voxel[:, None]
        index[2] += self.margin
        # An average over an even number of planes is centred between two of them.
        return index - 0.5 * (self.factor[:, None] % 2)


@dataclass(frozen=True)
class _Shape:
    """Maps patient positions to template positions: rigid pose and size, then the bending."""

    pose: np.ndarray  # (4, 4), unbent template mm to patient mm
    bending: _Fields  # shift along x, y, z, mm

    def to_template(self, points):
        inverse = np.linalg.inv(self.pose)
        unposed = inverse[:3, :3] @ points + inverse[:3, 3:]
        return unposed + self._shift(unposed)

    def to_patient(self, points):
        unposed = points.copy()
        # The bending is weak (gradient below about 0.4), so this fixed point converges.
        for _ in range(25):
            unposed = points - self._shift(unposed)
        return self.pose[:3, :3] @ unposed + self.pose[:3, 3:]

    def _shift(self, points):
        return np.stack(list(self.bending(points).values()))


def _draw_shape(settings, rng):
    """Random size, pose and asymmetric bending of the head."""
    size = rng.uniform(0.92, 0.97, 3)  # the ICBM152 brain is larger than most
    angles = np.radians(settings.tilt_deg) * rng.uniform(-1, 1, 3)
    jitter = rng.uniform(-3, 3, 3)
    pose = np.eye(4)
    pose[:3, :3] = _rotation(angles) @ np.diag(size)
    target = np.array([0, 0, size[2] * (_HEAD_CENTRE[2] - _SLAB_BOTTOM)]) + jitter
    pose[:3, 3] = target - pose[:3, :3] @ _HEAD_CENTRE

    fields = [_smooth_field(rng, 28.0) for _ in range(3)]
    # Keep only what the mirror image does not share; the midline then bends as well.
    odd = [(f - s * f[::-1]) / 2 for f, s in zip(fields, (-1, 1, 1), strict=True)]
    scale = settings.asymmetry_mm / np.sqrt(sum(f**2 for f in odd)).max()
    x, y, z = (scale * f for f in odd)
    return _Shape(pose, _stack(_SMOOTH_ORIGIN, _SMOOTH_SPACING, x=x, y=y, z=z))


def _smooth_field(rng, width_mm):
    """Random field of mean 0 and SD 1 on a grid around the template head."""
    white = rng.standard_normal((61, 73, 56))
    smooth = ndimage.gaussian_filter(white, width_mm / _SMOOTH_SPACING, mode='wrap')
    return (smooth - smooth.mean()) / smooth.std()


def _rotation(angles):
    """Rotation about x, then y, then z (rad), (3, 3)."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


# --- physiology and lesion --------------------------------------------------------------------


def _draw_variation(rng):
    """Smooth differences from place to place (SD 1): flow, volume, delay, bone, and `damage`.

    `damage` is symmetric: where microangiopathy reaches further from the ventricles.
    """
    names, widths = ('flow', 'volume', 'delay', 'damage', 'bone'), (14, 14, 20, 10, 24)
    fields = {n: _smooth_field(rng, w) for n, w in zip(names, widths, strict=True)}
    even = _symmetric(fields['damage'])
    fields['damage'] = even / even.std()
    return _stack(_SMOOTH_ORIGIN, _SMOOTH_SPACING, **fields)


@dataclass(frozen=True)
class _Lesion:
    """Level functions of core and whole lesion, and the levels that give the volumes."""

    sign: int  # of template x: -1 left, 1 right
    ragged: _Fields
    core_level: float = np.nan
    whole_level: float = np.nan

    def levels(self, points):
        """Level functions of the core and of the whole lesion; inf outside the territory."""
        ragged = 0.1 * self.ragged(points)['edge']
        # The MCA territory ends before the midline (ACA, corpus callosum).
        territory = self.sign * points[0] > 10
        return [
            np.where(territory, self._ellipsoid(points, *ellipsoid) + ragged, np.inf)
            for ellipsoid in (((36, 0, 14), (20, 30, 22)), ((42, -8, 18), (26, 46, 34)))
        ]

    def depths(self, points):
        """How far inside the core and inside the whole lesion; -inf outside the territory."""
        core, whole = self.levels(points)
        return self.core_level - core, self.whole_level - whole

    def _ellipsoid(self, points, centre, axes):
        centre = np.multiply(centre, (self.sign, 1, 1))
        scaled = (points - centre[:, None]) / np.array(axes, float)[:, None]
        return np.sqrt((scaled**2).sum(axis=0))


def _lesion_signs(settings):
    """Signs of template x of the sides that have a lesion."""
    if settings.lesion == 'none':
        return ()
    return {'left': (-1,), 'right': (1,), 'both': (-1, 1)}[settings.lesion_side]


def _draw_lesions(settings, rng, grid, shape):
    """Draw the lesion of each side that has one."""
    signs = _lesion_signs(settings)
    if not signs:
        return []
    points = shape.to_template(grid.centres())
    tissue_ml = _load_template().matter(points)['tissue'] * np.prod(grid.voxel) / 1000
    return [_draw_lesion(sign, settings, rng, points, tissue_ml) for sign in signs]


def _draw_lesion(sign, settings, rng, points, tissue_ml):
    """Grow core and penumbra until they hold their volume of tissue inside the slab."""
    ragged = _stack(_SMOOTH_ORIGIN, _SMOOTH_SPACING, edge=_smooth_field(rng, 9.0))
    lesion = _Lesion(sign, ragged)
    core_ml, penumbra_ml = LESIONS_ML[settings.lesion]
    core, whole = lesion.levels(points)
    core_level = _level_for_volume(core, tissue_ml, core_ml)
    whole = np.where(core < core_level, -1.0, whole)
    whole_level = _level_for_volume(whole, tissue_ml, core_ml + penumbra_ml)
    return replace(lesion, core_level=core_level, whole_level=whole_level)


def _level_for_volume(level, volumes_ml, target_ml):
    """Level below which the volumes add up to the target."""
    inside = np.flatnonzero(np.isfinite(level))
    order = inside[np.argsort(level[inside])]
    last = np.searchsorted(np.cumsum(volumes_ml[order]), target_ml)
    return level[order[min(last, len(order) - 1)]]


def _perfuse(points, white, ventricle, variation, settings, lesions):
    """Physiology of brain tissue at template positions.

    Parameters
    ----------
    points : (3, N) array
    white, ventricle : (N,) array
        White-matter fraction; distance to the lateral ventricles, mm.
    variation : dict of (N,) arrays
        From the fields of :func:`_draw_variation`.

    Returns
    -------
    dict of (N,) arrays
        cbf, cbv, delay, hu; core, penumbra, microangiopathy (booleans).
    """
    damage = np.zeros_like(white)
    if settings.microangiopathy:
        damage = _damage(points, white, ventricle, variation['damage'])
    values = {}
    for name in GREY:
        normal = GREY[name] + white * (WHITE[name] - GREY[name])
        values[name] = normal + damage * (MICROANGIOPATHY[name] - normal)
    flow = 1 + 0.08 * np.clip(variation['flow'], -2, 2)
    values['cbf'] *= flow
    # Volume follows flow in part, so that MTT varies less than either.
    values['cbv'] *= 0.5 + 0.5 * flow + 0.03 * np.clip(variation['volume'], -1.5, 1.5)
    values['delay'] += 0.22 * np.clip(variation['delay'], -2, 2)
    values['microangiopathy'] = damage > 0.5
    return values | _injure(points, values, lesions)


def _damage(points, white, ventricle, variation):
    """How far white matter is changed by microangiopathy, 0-1; the same on both sides."""
    reach = 13 + 3.5 * np.clip(variation, -2, 2)
    near = _ramp(reach - ventricle, -1.0, 1.0)
    # Corpus callosum and temporal white matter are spared.
    spared = _ramp(np.abs(points[0]), 7, 10) * _ramp(points[2], 2, 8)
    return near * spared * _ramp(white, 0.5, 0.8)


def _injure(points, values, lesions):
    """Lower flow and later arrival in penumbra and core; returns the changed quantities."""
    n = points.shape[1]
    if not lesions:
        return {'core': np.zeros(n, bool), 'penumbra': np.zeros(n, bool)}
    # the territories of two lesions do not meet: in each the other is infinitely far
    core_depth, rim_depth = np.max([lesion.depths(points) for lesion in lesions], axis=0)
    core = core_depth > 0
    penumbra = ~core & (rim_depth > 0)
    # Severity: 0 at the rim to 1 at the core in penumbra; 0 at the border to 1 deep in core.
    to_core = np.where(np.isfinite(core_depth), -core_depth, 1.0)
    grade = np.where(penumbra, rim_depth / np.maximum(rim_depth + to_core, 1e-6), 0)
    depth = np.clip(core_depth / 0.5, 0, 1)
    changed = {}
    for name, rim, edge, border, deep in (
        ('cbf', 0.60, 0.40, 0.20, 0.05), ('cbv', 1.15, 0.90, 0.40, 0.20),
    ):  # fmt: skip
        factor = np.where(penumbra, rim + (edge - rim) * grade, 1.0)
        changed[name] = values[name] * np.where(core, border + (deep - border) * depth, factor)
    late = np.where(penumbra, 4 + 3 * grade, 0) + np.where(core, 7 + 2 * depth, 0)
    changed['delay'] = values['delay'] + late
    changed['hu'] = values['hu'] - np.where(core, 2 + 3 * depth, 0)
    return changed | {'core': core, 'penumbra': penumbra}


# --- head on the fine grid --------------------------------------------------------------------


@dataclass
class _Head:
    """The head of frame 0 on the fine grid; `inside` lists the fine voxels inside the skull."""

    static: np.ndarray  # fine volume, HU without contrast
    inside: np.ndarray  # (N,) flat index into it
    values: dict  # (N,) each: tissue, csf, vessel, brain fractions; physiology; vessel curves


def _build_head(settings, grid, shape, variation, lesions):
    """Fill the fine grid plane by plane, which keeps the temporary arrays small."""
    vessels = _vessels(settings)
    tree = cKDTree(vessels.points)
    static = np.full(grid.fine_shape, AIR_HU, np.float32)
    parts, inside = [], []
    for plane in range(grid.fine_shape[2]):
        positions = grid.fine_plane(plane)
        head = np.flatnonzero(_roughly_head(positions, grid, shape))
        points = shape.to_template(positions[:, head])
        surfaces = _load_template().surfaces(points)
        changes = variation(points)
        hu = _shell_hu(surfaces['skull'], changes['bone'])
        soft = np.flatnonzero(surfaces['skull'] < 0.5)
        values = _build_soft(
            points[:, soft],
            {name: value[soft] for name, value in (surfaces | changes).items()},
            settings, lesions, vessels, tree,
        )  # fmt: skip
        bone = 1 - values['soft']
        hu[soft] = values.pop('content') + bone * hu[soft]
        static.reshape(-1, grid.fine_shape[2])[head, plane] = hu
        parts.append(values)
        inside.append(head[soft] * grid.fine_shape[2] + plane)
    values = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return _Head(static, np.concatenate(inside), values)


def _roughly_head(positions, grid, shape):
    """Points of a fine plane that may lie in the head: all points near a coarse sample of it."""
    nx, ny, _ = grid.fine_shape
    step = 4
    coarse = positions.reshape(3, nx, ny)[:, ::step, ::step]
    skull = _load_template().skull(shape.to_template(coarse.reshape(3, -1)))
    near = (skull < 20 + 2 * step * grid.fine_voxel.max()).reshape(coarse.shape[1:])
    return near.repeat(step, axis=0).repeat(step, axis=1)[:nx, :ny].ravel()


def _build_soft(points, local, settings, lesions, vessels, tree):
    """Everything inside the skull: fractions, physiology, vessels, HU content.

    `local` holds the surfaces' distances and the variation at the points.
    """
    matter = _load_template().matter(points)
    values = _perfuse(points, matter['white'], local['ventricle'], local, settings, lesions)
    values |= _vessel_values(points, vessels, tree)
    soft = np.clip(0.5 - local['skull'], 0, 1)  # what is not bone
    values['soft'] = soft
    values['brain'] = local['brain'] < 0
    values['vessel'] *= soft
    values['tissue'] = matter['tissue'] * (local['brain'] < 3) * (soft - values['vessel'])
    values['csf'] = np.maximum(soft - values['tissue'] - values['vessel'], 0)
    clot = values['vessel_gain'] == 0
    values['content'] = (
        values['tissue'] * values.pop('hu')
        + values['csf'] * CSF_HU
        + values['vessel'] * np.where(clot, THROMBUS_HU, BLOOD_HU)
        # Beam hardening: a few HU more next to the bone, fading towards the centre.
        + soft * 6.0 * np.exp(np.minimum(local['skull'], 0) / 7.0)
    )
    return {name: _compact(value) for name, value in values.items()}


def _compact(values):
    return values if values.dtype == bool else values.astype(np.float32)


def _shell_hu(distance, bone):
    """HU of skull (two tables around diploe), scalp and air by distance to the inner table."""
    thickness = 6.5 + 1.0 * np.clip(bone, -2, 2)
    # Position in units where the skull spans 0-1 and what lies outside it is counted in mm.
    position = np.where(distance < thickness, distance / thickness, 1 + distance - thickness)
    return np.interp(
        position,
        [0.0, 0.05, 0.22, 0.4, 0.6, 0.78, 1.0, 1.5, 5.5, 6.5],
        [900, 1150, 1100, 650, 650, 1100, 1150, SCALP_HU, SCALP_HU, AIR_HU],
    )


def _vessel_values(points, vessels, tree):
    """Vessel fraction of fine voxels and the curve of the vessel that runs there."""
    n = points.shape[1]
    values = {
        'vessel': np.zeros(n), 'vessel_delay': np.zeros(n), 'vessel_gain': np.ones(n),
        'is_vein': np.zeros(n, bool),
    }  # fmt: skip
    close = np.flatnonzero(vessels.near(points)['distance'] < vessels.radius.max() + 4)
    distance, nearest = tree.query(points[:, close].T)
    values['vessel'][close] = np.clip(0.5 + vessels.radius[nearest] - distance, 0, 1)
    values['vessel_delay'][close] = vessels.delay[nearest]
    values['vessel_gain'][close] = vessels.gain[nearest]
    values['is_vein'][close] = vessels.is_vein[nearest]
    return values


# --- truth ------------------------------------------------------------------------------------


def _truth_maps(head, grid):
    """Average the fine head over the acquired voxels."""
    values = head.values
    x, y, z = np.unravel_index(head.inside, grid.fine_shape)
    z = z - grid.margin
    keep = (z >= 0) & (z < grid.shape[2] * grid.factor[2])
    index = tuple(c[keep] // f for c, f in zip((x, y, z), grid.factor, strict=True))
    voxel = np.ravel_multi_index(index, grid.shape)

    def total(fine):
        sums = np.bincount(voxel, fine[keep], minlength=np.prod(grid.shape))
        return (sums / np.prod(grid.factor)).reshape(grid.shape)

    weight = values['tissue']
    tissue = total(weight)
    safe = np.where(tissue > 0.01, tissue, np.inf)  # less tissue than that counts as none
    mean = {name: total(weight * values[name]) / safe for name in ('cbf', 'cbv', 'delay')}
    mtt = np.divide(60 * mean['cbv'], mean['cbf'], out=np.zeros(grid.shape), where=safe < 2)
    truth = {'cbf': mean['cbf'], 'cbv': mean['cbv'], 'mtt': mtt, 'delay': mean['delay']}
    # Sums of float32 may pass 1 by a rounding.
    truth |= {'tissue': np.minimum(tissue, 1), 'vessel': np.minimum(total(values['vessel']), 1)}
    truth = {name: value.astype(np.float32) for name, value in truth.items()}
    parts = {name: values[name] for name in ('core', 'penumbra', 'microangiopathy')}
    parts['hypoperfusion'] = values['delay'] > 6
    # A lesion needs its share of the voxel to be tissue as well: half of half would be noise.
    for name, part in parts.items():
        truth[name] = (total(weight * part) > 0.5 * tissue) & (tissue > 0.5)
    truth['brain'] = total(values['brain']) > 0.5
    truth['csf'] = total(values['csf']) > 0.5
    return truth


def _truth_sides(brain, grid, shape):
    """Hemisphere and mirror homologue of every brain voxel."""
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


# --- bolus and curves -------------------------------------------------------------------------


def _bolus(rng, last_time):
    """AIF and VOF on a fine time axis.

    The first pass is a gamma variate (Thompson 1964, doi:10.1161/01.RES.14.6.502); a second,
    dispersed pass and a slowly rising plateau follow.

    Returns
    -------
    times, aif, vof : (N,) arrays
        s, HU.
    """
    peak_hu, peak_time = rng.uniform(260, 360), rng.uniform(13, 16)
    width, alpha = rng.uniform(6.5, 8.5), 3.0
    # Drawn over five minutes and then cut: the bolus must not depend on how long the scan is.
    times = np.arange(0, 300, TIME_STEP)
    # FWHM of (s exp(1 - s))^3 is 1.404 times its time to peak.
    rise = width / 1.404
    s = np.clip((times - peak_time + rise) / rise, 0, None)
    first = (s * np.exp(1 - s)) ** alpha
    second = _delay(_disperse(first, 4.0), 11.0)
    aif = first + 0.13 * second / second.max() + 0.05 * np.cumsum(first) / first.sum()
    aif *= peak_hu / aif.max()
    vof = _delay(_disperse(aif, 4.0), 2.6)
    n = int((last_time + 5) / TIME_STEP) + 1
    return times[:n], aif[:n], vof[:n]


def _disperse(curve, tau):
    """Convolve with exp(-t/tau)/tau: wider, same area."""
    kernel = np.diff(1 - np.exp(-np.arange(len(curve) + 1) * TIME_STEP / tau))
    return np.convolve(curve, kernel)[: len(curve)]


def _delay(curve, seconds):
    shift = round(seconds / TIME_STEP)
    return np.r_[np.zeros(shift), curve[: len(curve) - shift]]


class _CurveTable:
    """Unit-flow tissue curves for a ladder of MTT, and the vessel curves, looked up by delay."""

    def __init__(self, times, aif, vof, family):
        self.mtts = np.geomspace(1.0, 60.0, 400)  # steps of 1 %
        self.n_times = len(times)
        # Delays reach back before the first sample, where nothing has enhanced.
        self.lead = int(20 / TIME_STEP)
        rows = [_convolve_residue(times, aif, mtt, family) for mtt in self.mtts] + [aif, vof]
        self.rows = np.pad(np.array(rows, np.float32), ((0, 0), (self.lead, 1)), mode='edge')

    def address(self, row, delay):
        """Flat address of a curve with a delay; add a time step to read it."""
        shift = np.round(delay / TIME_STEP).astype(np.int32)
        return (row * self.rows.shape[1] + self.lead - shift).astype(np.int32)

    def mtt_row(self, mtt):
        step = np.log(self.mtts[1] / self.mtts[0])
        return np.clip(np.round(np.log(mtt / self.mtts[0]) / step), 0, 399).astype(np.int32)

    def read(self, address, time):
        """Values of the addressed curves at one time (s), linear between fine steps."""
        step = min(time / TIME_STEP, self.n_times - 1)
        whole = int(step)
        between = self.rows.copy()
        between[:, :-1] += (step - whole) * np.diff(self.rows, axis=1)
        return between.ravel()[address + whole]


def _convolve_residue(times, aif, mtt, family):
    """``int AIF(t - s) R(s) ds`` in HU s, with R(0) = 1 and area MTT.

    R is integrated exactly over each fine step, so that no area is lost.
    """
    edges = np.arange(len(times) + 1) * TIME_STEP
    if family == 'exponential':
        area = mtt * (1 - np.exp(-edges / mtt))
    elif family == 'linear':
        s = np.minimum(edges, 2 * mtt)
        area = s - s**2 / (4 * mtt)
    else:
        area = np.minimum(edges, mtt)
    n = 2 * len(times)
    spectrum = np.fft.rfft(aif, n) * np.fft.rfft(np.diff(area), n)
    return np.fft.irfft(spectrum, n)[: len(times)]


# --- timing and motion ------------------------------------------------------------------------


def _sample_times(settings):
    """Frame times (T,) and true times of each slice (Z, T), s; slices from below."""
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


def frame_affine(parameters, centre):
    """Rigid transform of one frame.

    Parameters
    ----------
    parameters : (6,) array
        Shift along patient x, y, z (mm), then rotation about x, y, z (rad, in this order).
    centre : (3,) array
        Fixed point of the rotation, patient RAS, mm: the centre of the field of view.

    Returns
    -------
    (4, 4) array
        Maps a point's place in frame 0 to its place in this frame, patient RAS.
    """
    affine = np.eye(4)
    affine[:3, :3] = _rotation(parameters[3:])
    affine[:3, 3] = centre + parameters[:3] - affine[:3, :3] @ centre
    return affine


def _draw_motion(settings, rng, centre):
    """Slow drift and one lasting jump; (T, 6) parameters and (T, 4, 4) transforms."""
    n = settings.n_frames
    motion = np.zeros((n, 6))
    drift = ndimage.gaussian_filter1d(rng.standard_normal((n, 6)).cumsum(axis=0), 2, axis=0)
    directions = rng.standard_normal((2, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    at = rng.integers(n // 4, max(3 * n // 4, n // 4 + 1))
    if settings.motion_mm > 0:
        drift -= drift[0]
        motion += 0.3 * drift / np.abs(drift).max()
        motion[at:] += settings.motion_mm * directions.ravel()
        motion[0] = 0
    motion[:, 3:] = np.radians(motion[:, 3:])
    return motion, np.stack([frame_affine(row, centre) for row in motion])


# --- scan -------------------------------------------------------------------------------------


def _box_average(fine, factor):
    """Mean over the acquired voxel around each fine voxel."""
    for axis, size in enumerate(factor):
        if size > 1:
            fine = ndimage.uniform_filter1d(fine, int(size), axis=axis, mode='nearest')
    return fine


def _scan(head, grid, table, sample_times, frame_affines, settings, rng):
    """Sample the moving, enhancing head slice by slice; (X, Y, Z, T) int16.

    A cubic B-spline over the fine grid (sigma 0.6 fine voxel) is both interpolation and point
    spread: it blurs every frame alike, wherever the head has moved.
    """
    volume = _box_average(head.static, grid.factor)
    dynamic, box = _enhancement(head, grid, table)
    static = volume[box].copy()
    near_head = _near_head(head, grid)
    ctp = np.empty((*grid.shape, len(frame_affines)), np.int16)
    centres = grid.centres()
    slices = np.arange(centres.shape[1]) % grid.shape[2]
    for t, affine in enumerate(frame_affines):
        frame = np.full(centres.shape[1], AIR_HU, np.float32)
        inverse = np.linalg.inv(affine)
        for time in np.unique(sample_times[:, t]):
            volume[box] = static + dynamic(time)
            voxels = np.flatnonzero(near_head & (sample_times[slices, t] == time))
            points = inverse[:3, :3] @ centres[:, voxels] + inverse[:3, 3:]
            index = grid.to_filtered_index(points)
            frame[voxels] = ndimage.map_coordinates(
                volume, index, order=3, prefilter=False, mode='nearest'
            )
        frame = frame.reshape(grid.shape)
        frame += scanner_noise(frame, settings.noise_hu, rng)
        ctp[..., t] = np.clip(np.round(frame), -1024, 3071)
    return ctp


def _enhancement(head, grid, table):
    """Function of time that gives the box-averaged enhancement, and the box it covers."""
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
    row = table.mtt_row(60 * values['cbv'][tissue] / flow)
    address = table.address(row, values['delay'][tissue])
    vessel = np.flatnonzero(values['vessel'] * values['vessel_gain'] > 0)
    gain = (values['vessel'] * values['vessel_gain'])[vessel]
    vessel_row = len(table.mtts) + values['is_vein'][vessel]
    vessel_address = table.address(vessel_row, values['vessel_delay'][vessel])

    def at(time):
        fine = np.zeros(np.prod(shape), np.float32)
        fine[flat[tissue]] = amplitude * table.read(address, time)
        fine[flat[vessel]] += gain * table.read(vessel_address, time)
        return _box_average(fine.reshape(shape), grid.factor)

    return at, box


def _near_head(head, grid):
    """Acquired voxels that may meet the head in some frame; the rest stays air."""
    fine = head.static[:, :, grid.margin : head.static.shape[2] - grid.margin] > AIR_HU
    shape = np.stack([grid.shape, grid.factor], axis=1).ravel()
    occupied = fine.reshape(shape).any(axis=(1, 3, 5)).any(axis=2)
    steps = int(np.ceil(12 / grid.voxel[0]))
    occupied = ndimage.binary_dilation(occupied, iterations=steps)
    return np.repeat(occupied.ravel(), grid.shape[2])


def scanner_noise(frame, noise_hu, rng):
    """Noise correlated over about one voxel in plane; weaker in air, where no dose is lost."""
    white = rng.standard_normal(frame.shape, dtype=np.float32)
    sigma = 0.6
    smooth = ndimage.gaussian_filter1d(white, sigma, axis=0, mode='wrap')
    smooth = ndimage.gaussian_filter1d(smooth, sigma, axis=1, mode='wrap')
    impulse = np.zeros(33)
    impulse[16] = 1
    kernel = ndimage.gaussian_filter1d(impulse, sigma)
    scale = np.where(frame > -900, 1.0, 0.5) * noise_hu / np.sum(kernel**2)
    return (scale * smooth).astype(np.float32)


def _reorient(phantom):
    """Turn the RAS arrays into the orientation asked for."""
    settings = phantom.settings
    flips = [axis for axis in range(3) if settings.orientation[axis] != 'RAS'[axis]]
    affine = phantom.affine.copy()
    for axis in flips:
        n = phantom.ctp.shape[axis]
        affine[:3, 3] += affine[:3, axis] * (n - 1)
        affine[:3, axis] *= -1
    times = phantom.sample_times[::-1] if 2 in flips else phantom.sample_times
    truth = {
        name: np.ascontiguousarray(np.flip(value, flips)) for name, value in phantom.truth.items()
    }
    return replace(
        phantom, ctp=np.flip(phantom.ctp, flips), affine=affine, sample_times=times, truth=truth
    )


# --- BIDS -------------------------------------------------------------------------------------

# Truth files: name, array, type on disk, slope, unit, description.
_TRUTH_FILES = (
    ('desc-truth_cbf', 'cbf', 'int16', 0.01, 'mL/100 g/min', 'Cerebral blood flow of the tissue'),
    ('desc-truth_cbv', 'cbv', 'int16', 0.001, 'mL/100 g', 'Cerebral blood volume of the tissue'),
    ('desc-truth_mtt', 'mtt', 'int16', 0.01, 's', 'Mean transit time of the tissue'),
    ('desc-truth_delay', 'delay', 'int16', 0.001, 's', 'Delay of the tissue against the AIF'),
    ('label-tissue_desc-truth_probseg', 'tissue', 'uint8', 1 / 255, '1', 'Tissue fraction'),
    ('label-vessel_desc-truth_probseg', 'vessel', 'uint8', 1 / 255, '1', 'Vessel fraction'),
    ('label-brain_desc-truth_mask', 'brain', 'uint8', 1, None, 'Brain with sulci and ventricles'),
    ('label-CSF_desc-truth_mask', 'csf', 'uint8', 1, None, 'Cerebrospinal fluid'),
    ('label-core_desc-truth_mask', 'core', 'uint8', 1, None, 'Infarct core'),
    ('label-penumbra_desc-truth_mask', 'penumbra', 'uint8', 1, None, 'Penumbra'),
    ('label-hypoperfusion_desc-truth_mask', 'hypoperfusion', 'uint8', 1, None,
     'Tissue with a delay above 6 s'),
    ('label-microangiopathy_desc-truth_mask', 'microangiopathy', 'uint8', 1, None,
     'White matter with microangiopathy'),
    ('seg-hemisphere_desc-truth_dseg', 'side', 'uint8', 1, None,
     'Hemisphere: 1 left, 2 right of the true midline'),
    ('desc-truth_homologue', 'homologue', 'int16', 0.1, 'mm',
     'Patient RAS coordinates of the mirror homologue in the fourth dimension; '
     '-3276.8 where there is none'),
)  # fmt: skip


# Terms of the ICBM152 2009 template, which ask that this notice stays with every copy.
TEMPLATE_NOTICE = """\
Copyright (C) 1993-2004 Louis Collins, McConnell Brain Imaging Centre, Montreal Neurological
Institute, McGill University. Permission to use, copy, modify, and distribute this software and
its documentation for any purpose and without fee is hereby granted, provided that the above
copyright notice appear in all copies. The authors and McGill University make no representations
about the suitability of this software for any purpose. It is provided "as is" without express or
implied warranty. The authors are not responsible for any data loss, equipment damage, property
loss, or injury to subjects or patients resulting from the use or misuse of this software package.
"""
_README = """\
Simulated CT perfusion of digital heads, made by ctpprep.phantom: nobody's patient data.
The truth of each head is in derivatives/truth, in the pose of frame 0.

The anatomy is a bent copy of the ICBM152 2009 nonlinear symmetric template:

{notice}"""


def write_bids(phantom, bids_dir, participant, session=None) -> Path:
    """Write one phantom into a BIDS data set, with its truth as a derivative.

    Parameters
    ----------
    phantom : Phantom
    bids_dir : path
        Made if missing; other participants in it are kept.
    participant, session : str
        Labels without ``sub-`` and ``ses-``.

    Returns
    -------
    Path
        The series, ``sub-<label>[/ses-<label>]/ct/sub-<label>[_ses-<label>]_ctp.nii.gz``. The
        truth has the same folders below ``derivatives/truth``.
    """
    bids_dir = Path(bids_dir)
    entities = [f'sub-{participant}'] + ([f'ses-{session}'] if session else [])
    stem, folder = '_'.join(entities), Path(*entities, 'ct')
    raw, truth = bids_dir / folder, bids_dir / 'derivatives' / 'truth' / folder
    raw.mkdir(parents=True, exist_ok=True)
    truth.mkdir(parents=True, exist_ok=True)

    path = raw / f'{stem}_ctp.nii.gz'
    _save_nifti(path, phantom.ctp, phantom, units_of_time=True)
    _save_json(raw / f'{stem}_ctp.json', _series_sidecar(phantom))
    source = f'bids:raw:{folder.as_posix()}/{path.name}'
    _write_truth(phantom, truth, stem, source)
    _describe_dataset(bids_dir)
    _update_participants(bids_dir, participant, phantom.settings)
    return path


def _series_sidecar(phantom):
    """Sidecar of the series with the timing fields of its scan mode."""
    settings = phantom.settings
    sidecar = {
        'Modality': 'CT',
        'Manufacturer': 'ctpprep digital phantom',
        'ManufacturersModelName': 'ctpprep.phantom',
        'SeriesDescription': 'Simulated CT perfusion of the head',
        'KVP': 80,
        'SliceThickness': settings.voxel_size_mm[2],
        'ContrastBolusIngredient': 'IODINE',
        'Units': 'HU',
        'PhantomSettings': asdict(settings),
    }
    if settings.timing == 'uneven':
        sidecar['VolumeTiming'] = _rounded(phantom.frame_times)
    elif settings.timing == 'jog':
        sidecar['SliceAcquisitionTimes'] = _rounded(phantom.sample_times.T)
        sidecar['SliceEncodingDirection'] = 'k'
    else:
        sidecar['RepetitionTime'] = settings.frame_interval
    if settings.timing == 'toggling':
        sidecar['SliceTiming'] = _rounded(phantom.sample_times[:, 0] - phantom.frame_times[0])
        sidecar['SliceEncodingDirection'] = 'k'
    return sidecar


def _rounded(values):
    return np.round(values, 4).tolist()


def _write_truth(phantom, folder, stem, source):
    """Maps, curves and motion that a pipeline's output is compared with."""
    for name, key, dtype, slope, unit, description in _TRUTH_FILES:
        values = np.asarray(phantom.truth[key], float) / slope
        limits = np.iinfo(dtype)
        stored = np.clip(np.where(np.isnan(values), limits.min, np.round(values)),
                         limits.min, limits.max).astype(dtype)  # fmt: skip
        _save_nifti(folder / f'{stem}_{name}.nii.gz', stored, phantom, slope)
        sidecar = {'Description': description, 'Sources': [source]}
        if name.endswith('_mask'):
            sidecar['Type'] = 'Brain' if key == 'brain' else 'ROI'
        if unit:
            sidecar['Units'] = unit
        _save_json(folder / f'{stem}_{name}.json', sidecar)
    _save_tsv(
        folder / f'{stem}_desc-vascular_timeseries',
        {
            'time': (phantom.times_fine, 's', 'Time'),
            'aif': (phantom.aif, 'HU', 'Arterial input function, undiluted'),
            'vof': (phantom.vof, 'HU', 'Venous output function, undiluted'),
        },
        source,
        'Arterial input and venous output',
    )
    names = ('trans_x', 'trans_y', 'trans_z', 'rot_x', 'rot_y', 'rot_z')
    columns = {
        name: (phantom.motion[:, i], 'mm' if i < 3 else 'rad', 'Movement since frame 0')
        for i, name in enumerate(names)
    }
    path = folder / f'{stem}_desc-motion_timeseries'
    _save_tsv(path, columns, source, 'Movement of the head since frame 0')


def _save_tsv(path, columns, source, description):
    """One table with its data dictionary; `columns` maps a name to values, unit, meaning."""
    lines = ['\t'.join(columns)]
    rows = np.stack([values for values, _, _ in columns.values()], axis=1)
    lines += ['\t'.join(f'{value:.6g}' for value in row) for row in rows]
    path.with_suffix('.tsv').write_text('\n'.join(lines) + '\n')
    fields = {n: {'Units': unit, 'Description': text} for n, (_, unit, text) in columns.items()}
    sidecar = {'Description': description, 'Sources': [source]}
    _save_json(path.with_suffix('.json'), sidecar | fields)


def _save_nifti(path, stored, phantom, slope=1.0, units_of_time=False):
    """Write integers as they are, with the slope that turns them into physical values."""
    img = nb.Nifti1Image(stored, phantom.affine)
    img.header.set_slope_inter(slope, 0)
    img.header.set_xyzt_units('mm', 'sec' if units_of_time else None)
    img.set_sform(phantom.affine, 1)
    img.set_qform(phantom.affine, 1)
    if units_of_time:  # one number cannot tell uneven frames: 0 says unknown
        interval = phantom.settings.frame_interval
        img.header['pixdim'][4] = 0 if phantom.settings.timing == 'uneven' else interval
    nb.save(img, path)


def _save_json(path, content):
    path.write_text(json.dumps(content, indent=2) + '\n')


def _describe_dataset(bids_dir):
    """Data set files that are not there yet."""
    generator = {'Name': 'ctpprep.phantom', 'Description': 'Digital CT perfusion phantom'}
    raw = {
        'Name': 'ctpprep digital CT perfusion phantom',
        'BIDSVersion': '1.10.0',
        'DatasetType': 'raw',
        'License': 'CC0; the notice of the ICBM152 template in README applies as well',
        'ReferencesAndLinks': ['https://doi.org/10.1016/j.neuroimage.2010.07.033'],
        'GeneratedBy': [generator],
    }
    truth = raw | {
        'Name': 'Truth of the ctpprep digital CT perfusion phantom',
        'DatasetType': 'derivative',
        'DatasetLinks': {'raw': '../..'},
    }
    readme = _README.format(notice=TEMPLATE_NOTICE)
    # CT is not part of the BIDS standard yet.
    texts = {'README': readme, '.bidsignore': '**/ct\n'}
    for name, text in texts.items():
        if not (bids_dir / name).exists():
            (bids_dir / name).write_text(text)
    for folder, content in ((bids_dir, raw), (bids_dir / 'derivatives' / 'truth', truth)):
        if not (folder / 'dataset_description.json').exists():
            _save_json(folder / 'dataset_description.json', content)


def _update_participants(bids_dir, participant, settings):
    """Add or replace one row of participants.tsv."""
    columns = {
        'age': {'Description': 'Age, drawn at random', 'Units': 'year'},
        'sex': {'Description': 'Sex, drawn at random', 'Levels': {'F': 'female', 'M': 'male'}},
        'microangiopathy': {
            'Description': 'Microangiopathy of the deep white matter',
            'Levels': {'yes': 'present in both hemispheres', 'no': 'absent'},
        },
        'stroke_evident': {
            'Description': 'Acute ischaemic stroke',
            'Levels': {'yes': 'infarct core and penumbra', 'no': 'none'},
        },
    }
    rng = np.random.default_rng(settings.seed)
    row = [str(rng.integers(55, 90)), 'FM'[rng.integers(2)]]
    row += ['yes' if settings.microangiopathy else 'no']
    row += ['no' if settings.lesion == 'none' else 'yes']
    table = bids_dir / 'participants.tsv'
    rows = {}
    if table.exists():
        rows = dict(line.split('\t', 1) for line in table.read_text().splitlines()[1:])
    rows[f'sub-{participant}'] = '\t'.join(row)
    lines = ['\t'.join(['participant_id', *columns])]
    lines += [f'{name}\t{rest}' for name, rest in sorted(rows.items())]
    table.write_text('\n'.join(lines) + '\n')
    _save_json(bids_dir / 'participants.json', columns)
