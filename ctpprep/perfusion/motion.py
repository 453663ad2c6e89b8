# SPDX-License-Identifier: Apache-2.0
"""Head motion from rigid frame transforms: parameters, displacement and frame weights."""

import numpy as np
from scipy import linalg, ndimage
from scipy.spatial.transform import Rotation

# densities of bone that are compared, HU
BONE_HU = (100.0, 1000.0)
# densities above this are head
HEAD_HU = -200.0
# least fraction of the bone that must be in the field of view
LEAST_SEEN = 0.5
# through-plane sigma of the registered images, slices: without smoothing, interpolation between thick
# slices biases a registration towards whole slices; more smoothing makes slices indistinguishable
SLICE_SIGMA = 0.5
# least fraction of the points of a registration that must be inside both images
LEAST_OVERLAP = 0.1
# number of frames compared with a candidate reference frame, and number of candidates
PROBES = 9
# edges: range of density in a box of voxels, HU; the first usable frames are before contrast
EDGE_HU, EDGE_BOX, EARLY_FRAMES = 100.0, (5, 5, 3), 3
# the change of bone calibrates predictions: least prediction, HU; least number of voxels; limit
LEAST_PREDICTED_HU, LEAST_BONE_VOXELS, MOST_RATIO = 5.0, 50, 3.0
# voxels beyond the centre of an end slice, in slices, have the density of that slice: change, HU
BEYOND_SLICES, EXTRAPOLATED_HU = 0.15, 1000.0
# poses that differ by less are predicted together, at points this far from the centre, mm
SAME_POSE_MM, PROBE_MM = 0.15, 60.0
CANDIDATES = 6


def rigid_parameters(transforms, centre):
    """Split rigid transforms into translations of the centre of the head and rotations.

    Parameters
    ----------
    transforms : (T, 4, 4) array
        From patient RAS coordinates of the reference frame to those of each frame, mm.
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
    """Return whether the head moved in any usable frame.

    Parameters
    ----------
    transforms : (T, 4, 4) array
        From patient RAS coordinates of the reference frame to those of each frame, mm.
    points : (N, 3) array
        Points of the head in the pose of the reference frame, mm.
    weights : (T,) array
        0 for rejected frames, whose transforms are ignored.
    skip_mm : float
        Mean displacement up to which the head is considered not to have moved, mm.

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
        From patient coordinates of the reference frame to those of each frame, mm.
    points : (N, 3) array
        Points of the brain in the pose of the reference frame, mm.

    Returns
    -------
    (T,) array
        Mean displacement of the points relative to the previous frame, mm; 0 for the first.
    """
    transforms = np.asarray(transforms, dtype=float)
    steps = np.linalg.inv(transforms[:-1]) @ transforms[1:]
    return np.concatenate([[0.0], displacement(steps, points)])


def skull_similarity(frame, reference, head):
    """Correlate the skull of a corrected frame with that of the reference frame.

    Bone does not enhance, so the bolus does not affect the correlation, but motion within a frame
    and failed corrections do.

    Parameters
    ----------
    frame, reference : (X, Y, Z) arrays
        HU; NaN where missing.
    head : (X, Y, Z) array of bool
        Voxels to compare.

    Returns
    -------
    float
        Pearson correlation of the densities, clipped to 100 to 1000 HU; NaN if either frame contains
        no bone, or if less than half of the bone is in the field of view.
    """
    seen = head & np.isfinite(frame) & np.isfinite(reference)
    bone = head & (reference > BONE_HU[0])
    if np.count_nonzero(seen & bone) <= LEAST_SEEN * np.count_nonzero(bone):
        return float('nan')
    densities = np.clip(np.stack([frame[seen], reference[seen]]), *BONE_HU)
    if not np.ptp(densities, axis=1).all():
        return float('nan')
    return float(np.corrcoef(densities)[0, 1])


def outline_similarity(frame, reference, head, window):
    """Correlate the outlines of a corrected frame and the reference of a series without skull.

    Parameters
    ----------
    frame, reference : (X, Y, Z) arrays
        HU; NaN where missing.
    head : (X, Y, Z) array of bool
        Voxels of which at least half must be in the field of view.
    window : (2,) sequence of float
        Densities to compare, HU, from `preprocessing.outline_window`.

    Returns
    -------
    float
        Pearson correlation of the densities, clipped and smoothed in plane so that neither contrast
        nor noise matters; NaN if less than half of the head is in the field of view.
    """
    # also outside the head: the outline is its border, and inside it noise and contrast prevail
    seen = np.isfinite(frame) & np.isfinite(reference)
    if np.count_nonzero(head & seen) <= LEAST_SEEN * np.count_nonzero(head):
        return float('nan')
    density = [
        ndimage.gaussian_filter(np.clip(np.nan_to_num(image), *window), (1.5, 1.5, 0))[seen]
        for image in (frame, reference)
    ]
    if not np.ptp(density, axis=1).all():
        return float('nan')
    return float(np.corrcoef(density)[0, 1])


def find_reference(n_frames, compare, reject_similarity):
    """Find the first usable frame: its skull matches most other frames after registration.

    This is frame 0, unless the patient moved during its acquisition or it is damaged. Only the first
    few frames are tried, since without them there is no baseline.

    Parameters
    ----------
    n_frames : int
    compare : callable
        Takes a frame and a list of others, registers the others to it, and returns their
        `skull_similarity`.
    reject_similarity : float
        Least similarity of a match.

    Returns
    -------
    int
        Index of the frame; 0 if no candidate is usable.

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
    """Reject frames whose skull differs from that of the reference frame after correction.

    Parameters
    ----------
    similarity : (T,) array
        Correlation of each corrected frame's skull with that of the reference frame.
    reject_similarity : float
        Similarity below which a frame is rejected.

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
    """Resample one frame to the pose of the reference frame.

    Parameters
    ----------
    frame : (X, Y, Z) array
        HU.
    affine : (4, 4) array
        Voxel to patient coordinates of the frame and of the result, mm.
    transform : (4, 4) array
        From patient coordinates of the reference frame to those of this frame, mm.
    order : int
        Order of the interpolating spline.

    Returns
    -------
    (X, Y, Z) array of float32
        NaN where the point is outside the field of view of the frame: missing, not air.
    """
    affine = np.asarray(affine, dtype=float)
    to_voxel = np.linalg.inv(affine) @ np.asarray(transform, dtype=float) @ affine
    if np.allclose(to_voxel, np.eye(4), atol=1e-6):
        return np.asarray(frame, dtype=np.float32)
    moved = ndimage.affine_transform(
        np.asarray(frame, dtype=np.float32), to_voxel[:3, :3], to_voxel[:3, 3], order=order,
        mode='nearest',
    )  # fmt: skip
    # affine coordinates are sums of one term per axis, so no array of coordinates is needed
    index = np.ogrid[tuple(slice(size) for size in frame.shape)]
    for axis, size in enumerate(frame.shape):
        where = sum(to_voxel[axis, i] * index[i] for i in range(3)) + to_voxel[axis, 3]
        moved[(where < -0.5) | (where > size - 0.5)] = np.nan
    return moved


def measure_damage(corrected, affine, transforms, weights):
    """Estimate how much interpolation at edges changes each voxel of a corrected series.

    A frame of a head that moved shows other averages of bone, air and soft tissue in its thick slices,
    and no resampling restores those of the reference pose. The reference is therefore resampled to the
    pose of each frame and back; what this changes is scaled by what has changed in bone, which does
    not enhance.

    Parameters
    ----------
    corrected : (X, Y, Z, T) array
        Corrected series, HU; NaN where a voxel is outside the field of view.
    affine : (4, 4) array
        Voxel to patient RAS, mm.
    transforms : (T, 4, 4) array
        From points of the reference frame to points of each frame, mm.
    weights : (T,) array
        0 for rejected frames.

    Returns
    -------
    (X, Y, Z) array of float32
        Root mean square change relative to the first frames, HU; 0 away from edges, and 1000 HU where a
        frame is extrapolated beyond its end slices.
    """
    usable = np.flatnonzero(np.asarray(weights) > 0)
    early = usable[:EARLY_FRAMES]
    reference = np.nan_to_num(
        np.mean([corrected[..., frame] for frame in early], axis=0), nan=-1024.0
    ).astype(np.float32)
    spread = ndimage.maximum_filter(reference, EDGE_BOX) - ndimage.minimum_filter(
        reference, EDGE_BOX
    )
    edge = spread > EDGE_HU
    poses = _similar_poses(transforms, usable)
    changes = {}
    for frame in sorted(set(poses.values())):
        away = resample_frame(reference, affine, np.linalg.inv(transforms[frame]), order=3)
        away = np.where(np.isfinite(away), away, reference)
        back = resample_frame(away, affine, transforms[frame])
        changes[frame] = np.nan_to_num(back - reference)[edge]
    start = np.mean([changes[poses[frame]] for frame in early], axis=0)
    predicted = np.zeros(np.count_nonzero(edge))
    for frame in usable:
        predicted += (changes[poses[frame]] - start) ** 2
    predicted = np.sqrt(predicted / len(usable))
    damage = np.zeros(reference.shape, dtype=np.float32)
    bone = (reference[edge] > BONE_HU[0]) & (predicted > LEAST_PREDICTED_HU)
    if np.count_nonzero(bone) >= LEAST_BONE_VOXELS:
        real = corrected[edge][bone][:, usable] - reference[edge][bone][:, None]
        real = np.sqrt(np.nanmean(np.square(real), axis=1))
        ratio = float(np.sqrt(np.nanmean(real**2) / np.mean(predicted[bone] ** 2)))
        damage[edge] = np.clip(ratio, 0.5, MOST_RATIO) * predicted
    damage[_extrapolated(damage.shape, affine, [transforms[i] for i in poses.values()])] = (
        EXTRAPOLATED_HU
    )
    return damage


def _extrapolated(shape, affine, transforms):
    """Find voxels that a frame shows only from beyond its first or last slice."""
    affine = np.asarray(affine, dtype=float)
    index = np.ogrid[tuple(slice(size) for size in shape)]
    outside = np.zeros(shape, dtype=bool)
    for transform in transforms:
        to_voxel = np.linalg.inv(affine) @ np.asarray(transform, dtype=float) @ affine
        z = sum(to_voxel[2, axis] * index[axis] for axis in range(3)) + to_voxel[2, 3]
        outside |= (z < -BEYOND_SLICES) | (z > shape[2] - 1 + BEYOND_SLICES)
    return outside


def _similar_poses(transforms, frames):
    """Assign to each frame the first frame in nearly the same pose, to predict each pose once."""
    poses, kept = {}, []
    corners = PROBE_MM * np.vstack([np.eye(3), -np.eye(3)])
    for frame in frames:
        for other in kept:
            step = np.linalg.inv(transforms[other]) @ transforms[frame]
            if displacement(step[None], corners)[0] < SAME_POSE_MM:
                poses[frame] = other
                break
        else:
            kept.append(frame)
            poses[frame] = frame
    return poses


class RigidTarget:
    """Fixed image of rigid registrations, whose gradients are computed once for all moving images.

    Parameters
    ----------
    fixed : (X, Y, Z) array
        Image, clipped to densities that do not depend on contrast.
    affine : (4, 4) array
        Voxel to patient coordinates, mm.
    smoothing_mm : sequence of float
        In-plane sigma of the Gaussian of each level, mm; the last level is the finest.
    """

    def __init__(self, fixed, affine, smoothing_mm):
        affine = np.asarray(affine, dtype=float)
        size = np.linalg.norm(affine[:3, :3], axis=0)
        # only the finest level must be accurate; linear interpolation takes a fifth of the time
        orders = [1] * (len(smoothing_mm) - 1) + [3]
        self.levels = [
            _Level(fixed, affine, (sigma / size[0], sigma / size[1], SLICE_SIGMA), order)
            for sigma, order in zip(smoothing_mm, orders, strict=True)
        ]


def register_rigid(target, moving, *, iterations=40, tolerance_mm=0.003):
    r"""Register two images of one head rigidly, by robust least squares.

    Gauss-Newton steps on :math:`\sum_x w(e)\, e^2`, :math:`e(x) = M(T x) - F(x)`, in the inverse
    compositional form: the gradient is that of the fixed image, computed once (Baker and
    Matthews, Int J Comput Vis 2004;56:221, doi:10.1023/B:VISI.0000011205.11775.fd). Tukey's biweight
    excludes voxels that do not match, such as those with contrast or at the open ends of the slab.

    Parameters
    ----------
    target : RigidTarget
        The fixed image.
    moving : (X, Y, Z) array
        Image on the grid of the fixed one, clipped to the same densities.
    iterations : int
        Maximum number of steps per level.
    tolerance_mm : float
        A level ends when a step moves the head by less than this distance, mm.

    Returns
    -------
    (4, 4) array
        From patient coordinates of the fixed image to those of the moving one, mm; the identity if
        the images no longer overlap, for example because one of them contains no head.

    Notes
    -----
    The capture range is about the coarsest smoothing plus the thickness of the skull. Larger motion
    may end in a local minimum, which `skull_similarity` detects.
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
    """One smoothing level of a `RigidTarget`."""

    def __init__(self, fixed, affine, sigma, order):
        self.inverse, self.sigma, self.order = np.linalg.inv(affine), sigma, order
        smooth = ndimage.gaussian_filter(np.asarray(fixed, dtype=np.float32), sigma)
        gradient = np.stack(np.gradient(smooth), axis=-1)
        # voxels without gradient carry no information
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
        """Return the spline coefficients of a moving image at this level."""
        smooth = ndimage.gaussian_filter(np.asarray(moving, dtype=np.float32), self.sigma)
        if self.order == 1:
            return smooth
        return ndimage.spline_filter(smooth, order=self.order, output=np.float32)

    def step(self, spline, transform):
        """Return the rigid motion of the fixed image that best explains the residuals.

        None if hardly any points are inside the moving image.
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
        # parameters that the images do not determine remain 0
        parameters = linalg.lstsq(normal, weighted.T @ residual)[0]
        step = np.eye(4)
        step[:3, :3] = Rotation.from_rotvec(parameters[3:]).as_matrix()
        step[:3, 3] = parameters[:3] + self.centre - step[:3, :3] @ self.centre
        return step

    def size_of(self, step):
        """Return the root mean square displacement of the points by a step, mm."""
        moved = self.points[::50] @ (step[:3, :3] - np.eye(3)).T + step[:3, 3]
        return float(np.sqrt(np.square(moved).sum(axis=1).mean()))
