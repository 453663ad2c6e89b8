# SPDX-License-Identifier: Apache-2.0
"""Head motion from rigid frame transforms: parameters, displacement and frame weights."""

import numpy as np
from scipy import linalg, ndimage
from scipy.spatial.transform import Rotation

# densities of bone that are compared, HU, and the share of it that must be seen
BONE_HU = (100.0, 1000.0)
# densities above this are head
HEAD_HU = -200.0
LEAST_SEEN = 0.5
# sigma through plane of the images that are registered, slices: interpolation between unsmoothed
# thick slices pulls a registration towards whole slices; more loses what tells slices apart
SLICE_SIGMA = 0.5
# share of the points of a registration that must lie inside both images
LEAST_OVERLAP = 0.1
# frames that a candidate is compared with, and the number of candidates
PROBES = 9
CANDIDATES = 6


def rigid_parameters(transforms, centre):
    """Split rigid transforms into translations of the head's centre and rotations.

    Parameters
    ----------
    transforms : (T, 4, 4) array
        Patient RAS coordinates of the reference frame to those of each frame, mm.
    centre : (3,) array
        Point whose displacement is the translation, mm.

    Returns
    -------
    (T, 6) array
        Translations (mm) and rotations about x, y, z (rad).

    Examples
    --------
    >>> shift = np.eye(4); shift[0, 3] = 2.0
    >>> rigid_parameters([shift], (0, 0, 0)).round(1)
    array([[2., 0., 0., 0., 0., 0.]])
    """
    transforms = np.asarray(transforms, dtype=float)
    centre = np.asarray(centre, dtype=float)
    moved = transforms[:, :3, :3] @ centre + transforms[:, :3, 3]
    rotations = Rotation.from_matrix(transforms[:, :3, :3]).as_euler('xyz')
    return np.hstack([moved - centre, rotations])


def displacement(transforms, points):
    """Measure how far rigid transforms move points.

    Parameters
    ----------
    transforms : (T, 4, 4) array
        Rigid transforms, mm.
    points : (N, 3) array
        Points of the brain, mm.

    Returns
    -------
    (T,) array
        Mean distance between each point and its image, mm.
    """
    points = np.asarray(points, dtype=float)
    moved = np.einsum('tij,nj->tni', np.asarray(transforms)[:, :3, :3], points)
    moved += np.asarray(transforms)[:, None, :3, 3]
    return np.linalg.norm(moved - points, axis=-1).mean(axis=1)


def has_moved(transforms, points, weights, skip_mm):
    """Tell whether the head moved in any usable frame.

    Parameters
    ----------
    transforms : (T, 4, 4) array
        Patient RAS coordinates of the reference frame to those of each frame, mm.
    points : (N, 3) array
        Points of the head in the pose of the reference frame, mm.
    weights : (T,) array
        0 for rejected frames: their transforms do not count.
    skip_mm : float
        Mean displacement up to which the head has not moved, mm.

    Returns
    -------
    bool

    Examples
    --------
    >>> shift = np.eye(4); shift[0, 3] = 2.0
    >>> [has_moved([np.eye(4), shift], np.zeros((1, 3)), [1, weight], 0.05) for weight in (0, 1)]
    [False, True]
    """
    usable = np.asarray(weights) > 0
    return bool((displacement(transforms, points)[usable] > skip_mm).any())


def framewise_displacement(transforms, points):
    """Measure how far the head moves from each frame to the next.

    Parameters
    ----------
    transforms : (T, 4, 4) array
        Patient coordinates of the reference frame to those of each frame, mm.
    points : (N, 3) array
        Points of the brain in the pose of the reference frame, mm.

    Returns
    -------
    (T,) array
        Mean displacement of the points against the frame before, mm; 0 for the first.
    """
    transforms = np.asarray(transforms, dtype=float)
    steps = np.linalg.inv(transforms[:-1]) @ transforms[1:]
    return np.concatenate([[0.0], displacement(steps, points)])


def skull_similarity(frame, reference, head):
    """Correlate the skull of a corrected frame with that of the reference frame.

    Bone does not enhance, so the bolus leaves this figure alone; motion within a frame and failed
    corrections do not.

    Parameters
    ----------
    frame, reference : (X, Y, Z) arrays
        HU; NaN where missing.
    head : (X, Y, Z) array of bool
        Voxels that are compared.

    Returns
    -------
    float
        Pearson correlation of the densities between 100 and 1000 HU; NaN if one of the frames
        shows no bone, or if less than half of the bone is left in the field of view.
    """
    seen = head & np.isfinite(frame) & np.isfinite(reference)
    bone = head & (reference > BONE_HU[0])
    if np.count_nonzero(seen & bone) <= LEAST_SEEN * np.count_nonzero(bone):
        return float('nan')
    densities = np.clip(np.stack([frame[seen], reference[seen]]), *BONE_HU)
    if not np.ptp(densities, axis=1).all():
        return float('nan')
    return float(np.corrcoef(densities)[0, 1])


def find_reference(n_frames, compare, reject_similarity):
    """Find the first usable frame: one whose skull most others match once they are registered.

    Frame 0, unless the patient moved while it was scanned or it is damaged. Candidates after the
    first few are not tried: without them there is no baseline.

    Parameters
    ----------
    n_frames : int
    compare : callable
        Takes a frame and a list of others; registers the others to it and returns the
        similarities of their skulls (`skull_similarity`).
    reject_similarity : float
        Limit.

    Returns
    -------
    int
        0 also if no candidate is usable.

    Examples
    --------
    >>> find_reference(20, lambda frame, others: [0.5 if frame == 0 else 0.97] * len(others), 0.9)
    1
    """
    probes = np.unique(np.linspace(0, n_frames - 1, PROBES + 1).round().astype(int)).tolist()
    for candidate in range(min(CANDIDATES, n_frames)):
        similarity = compare(candidate, [frame for frame in probes if frame != candidate])
        if frame_weights(similarity, reject_similarity).mean() > 0.5:
            return candidate
    return 0


def frame_weights(similarity, reject_similarity):
    """Give weight 0 to frames whose skull disagrees with the reference frame's after correction.

    Parameters
    ----------
    similarity : (T,) array
        Correlation of each corrected frame's skull with that of the reference frame.
    reject_similarity : float
        Limit.

    Returns
    -------
    (T,) array of float
        1 for usable frames, 0 for rejected ones.

    Examples
    --------
    >>> frame_weights([1.0, 0.97, 0.6], 0.9)
    array([1., 1., 0.])
    """
    return (np.asarray(similarity, dtype=float) >= reject_similarity).astype(float)


def resample_frame(frame, affine, transform, order=1):
    """Bring one frame into the pose of the reference frame.

    Parameters
    ----------
    frame : (X, Y, Z) array
        HU.
    affine : (4, 4) array
        Voxel to patient coordinates, mm; of the frame and of the result.
    transform : (4, 4) array
        Patient coordinates of the reference frame to those of this frame, mm.
    order : int
        Order of the interpolating spline.

    Returns
    -------
    (X, Y, Z) array of float32
        NaN where the point lay outside the field of view of the frame: missing, not air.
    """
    affine = np.asarray(affine, dtype=float)
    to_voxel = np.linalg.inv(affine) @ np.asarray(transform, dtype=float) @ affine
    if np.allclose(to_voxel, np.eye(4), atol=1e-6):
        return np.asarray(frame, dtype=np.float32)
    moved = ndimage.affine_transform(
        np.asarray(frame, dtype=np.float32), to_voxel[:3, :3], to_voxel[:3, 3], order=order,
        mode='nearest',
    )  # fmt: skip
    # affine coordinates are sums of one term an axis: no array of coordinates is needed
    index = np.ogrid[tuple(slice(size) for size in frame.shape)]
    for axis, size in enumerate(frame.shape):
        where = sum(to_voxel[axis, i] * index[i] for i in range(3)) + to_voxel[axis, 3]
        moved[(where < -0.5) | (where > size - 0.5)] = np.nan
    return moved


class RigidTarget:
    """Fixed image of rigid registrations: gradients once, then any number of moving images.

    Parameters
    ----------
    fixed : (X, Y, Z) array
        Image at densities that do not depend on contrast.
    affine : (4, 4) array
        Voxel to patient coordinates, mm.
    smoothing_mm : sequence of float
        Sigma of the Gaussian of each level in plane, mm; the last is the finest.
    """

    def __init__(self, fixed, affine, smoothing_mm):
        affine = np.asarray(affine, dtype=float)
        size = np.linalg.norm(affine[:3, :3], axis=0)
        # only the finest level has to be exact: linear interpolation takes a fifth of the time
        orders = [1] * (len(smoothing_mm) - 1) + [3]
        self.levels = [
            _Level(fixed, affine, (sigma / size[0], sigma / size[1], SLICE_SIGMA), order)
            for sigma, order in zip(smoothing_mm, orders, strict=True)
        ]


def register_rigid(target, moving, *, iterations=40, tolerance_mm=0.003):
    r"""Register two images of one head rigidly, by robust least squares.

    Gauss-Newton steps on :math:`\sum_x w(e)\, e^2`, :math:`e(x) = M(T x) - F(x)`, in the inverse
    compositional form: the gradient is that of the fixed image, computed once (Baker and
    Matthews, Int J Comput Vis 2004;56:221, doi:10.1023/B:VISI.0000011205.11775.fd). Tukey's weights leave
    out what does not agree: contrast that has come, and the open ends of the slab.

    Parameters
    ----------
    target : RigidTarget
        Of the fixed image.
    moving : (X, Y, Z) array
        Image on the grid of the fixed one, at the same densities.
    iterations : int
        Steps a level at the most.
    tolerance_mm : float
        A level ends when a step moves the head by less, mm.

    Returns
    -------
    (4, 4) array
        Patient coordinates of the fixed image to those of the moving one, mm; the identity if the
        images have come apart, as they do when one of them shows no head.

    Notes
    -----
    Captures motion of about the coarsest smoothing plus the width of the skull; larger motion may
    end in a local minimum, which `skull_similarity` shows.
    """
    transform = np.eye(4)
    for level in target.levels:
        spline = level.spline(moving)
        for _ in range(iterations):
            step = level.step(spline, transform)
            if step is None:
                return np.eye(4)
            transform = transform @ np.linalg.inv(step)
            if level.size_of(step) < tolerance_mm:
                break
    return transform


class _Level:
    """One smoothness of a `RigidTarget`."""

    def __init__(self, fixed, affine, sigma, order):
        self.inverse, self.sigma, self.order = np.linalg.inv(affine), sigma, order
        smooth = ndimage.gaussian_filter(np.asarray(fixed, dtype=np.float32), sigma)
        gradient = np.stack(np.gradient(smooth), axis=-1)
        # where nothing changes there is nothing to learn
        chosen = np.linalg.norm(gradient, axis=-1)
        chosen = chosen > 0.02 * chosen.max()
        self.target = smooth[chosen]
        voxels = np.argwhere(chosen)
        self.points = voxels @ affine[:3, :3].T + affine[:3, 3]
        self.centre = self.points.sum(axis=0) / max(1, len(self.points))
        slope = gradient[chosen] @ self.inverse[:3, :3]
        arm = self.points - self.centre
        self.jacobian = np.hstack([slope, np.cross(arm, slope)])
        self.shape = fixed.shape

    def spline(self, moving):
        """Return the spline coefficients of a moving image at this smoothness."""
        smooth = ndimage.gaussian_filter(np.asarray(moving, dtype=np.float32), self.sigma)
        if self.order == 1:
            return smooth
        return ndimage.spline_filter(smooth, order=self.order, output=np.float32)

    def step(self, spline, transform):
        """Return the rigid change of the fixed image that explains the residuals best.

        None if hardly any of the points still lies inside the moving image.
        """
        to_voxel = self.inverse @ transform
        where = to_voxel[:3, :3] @ self.points.T + to_voxel[:3, 3:]
        value = ndimage.map_coordinates(
            spline, where, order=self.order, prefilter=False, mode='nearest'
        )
        limits = np.array(self.shape)[:, None] - 1
        inside = ((where >= 0) & (where <= limits)).all(axis=0)
        if inside.sum() <= LEAST_OVERLAP * len(inside):
            return None
        residual = value - self.target
        spread = 1.4826 * np.median(np.abs(residual[inside])) + 1e-6
        weight = inside * np.square(np.maximum(0, 1 - np.square(residual / (6 * spread))))
        weighted = self.jacobian * weight[:, None]
        normal = weighted.T @ self.jacobian
        # a direction that the images do not tell anything about stays as it is
        parameters = linalg.lstsq(normal, weighted.T @ residual)[0]
        step = np.eye(4)
        step[:3, :3] = Rotation.from_rotvec(parameters[3:]).as_matrix()
        step[:3, 3] = parameters[:3] + self.centre - step[:3, :3] @ self.centre
        return step

    def size_of(self, step):
        """Return how far a step moves the points, root mean square, mm."""
        moved = self.points[::50] @ (step[:3, :3] - np.eye(3)).T + step[:3, 3]
        return float(np.sqrt(np.square(moved).sum(axis=1).mean()))
