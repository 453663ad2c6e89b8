# SPDX-License-Identifier: Apache-2.0
"""Registration of arrays with ANTs (antspyx).

The only module that imports antspyx. Every registration runs with a fixed seed on one thread, so
that its result depends only on its input.
"""

import tempfile
from pathlib import Path

import numpy as np

# ITK uses LPS coordinates, nibabel RAS
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
AFFINE = {'aff_metric': 'mattes', 'aff_random_sampling_rate': 0.2}
SYN = {'syn_metric': 'mattes', 'syn_sampling': 32, 'write_composite_transform': True}
# at half of the resolution, where most of the warp is found at an eighth of the cost, and at all of it;
# a coarser level, of few and thick slices, misleads the others
MIRROR_ITERATIONS = (100, 10)
POSITIONS_ITERATIONS = (80, 40, 20)
TEMPLATE_ITERATIONS = (100, 10)
RIGID = {
    'type_of_transform': 'Rigid', 'aff_metric': 'mattes', 'aff_random_sampling_rate': 0.5,
    'aff_iterations': (200, 100, 50, 20), 'aff_shrink_factors': (6, 4, 2, 1),
    'aff_smoothing_sigmas': (3, 2, 1, 0),
}  # fmt: skip
# images of different contrast: rigidly on coarse levels, then by an affine transform on fine ones
CONTRASTS = {'aff_metric': 'mattes', 'aff_random_sampling_rate': 0.3}
COARSE = {
    'aff_iterations': (200, 100), 'aff_shrink_factors': (4, 2), 'aff_smoothing_sigmas': (2, 1),
}  # fmt: skip
FINE = {
    'aff_iterations': (100, 20), 'aff_shrink_factors': (2, 1), 'aff_smoothing_sigmas': (1, 0),
}  # fmt: skip
# thinner slabs are thickened for the registration
LEAST_SLICES = 6


class MirrorSyN:
    """Symmetric normalization (SyN) of the mirrored brain: a `perfusion.homologues.Registration`.

    Parameters
    ----------
    folder : path-like
        Folder in which transforms are written.
    seed : int

    Notes
    -----
    Avants et al. 2008, doi:10.1016/j.media.2007.06.004. A brain on a grid of 3.4 mm takes 1 to 2 s.
    """

    def __init__(self, folder, seed):
        self.folder, self.seed = Path(folder).absolute(), seed

    def apply_matrix(self, array, affine, matrix, outside):
        """Resample an image by a matrix from points of the result to points of the image, RAS."""
        return apply_transform(array, affine, self._write_matrix(matrix), outside)

    def align(self, fixed, moving, matrix=None):
        """Find an affine transform, from a matrix or from the centres of mass; None if ITK fails."""
        options = (
            {} if matrix is None else {'initial_transform': [str(self._write_matrix(matrix))]}
        )
        try:
            result = _register(
                _thicken(*fixed), _thicken(*moving), self.seed, self.folder,
                type_of_transform='Affine', **AFFINE, **options,
            )  # fmt: skip
        except RuntimeError:  # from ITK: no overlap, or a singular matrix
            return None
        return read_affine(result['fwdtransforms'][0])

    def register(self, fixed, moving, start, matrix):
        """Register two images from a matrix; None if ITK fails."""
        folder = self.folder / start.replace(' ', '_')
        folder.mkdir(exist_ok=True)
        try:
            result = _register(
                _thicken(*fixed), _thicken(*moving), self.seed, folder,
                type_of_transform='SyNOnly', initial_transform=[str(self._write_matrix(matrix))],
                reg_iterations=MIRROR_ITERATIONS, **SYN,
            )  # fmt: skip
        except RuntimeError:
            return None
        return {
            name: str(Path(result[key]).rename(folder / f'{name}.h5'))
            for name, key in (
                ('mirror_to_reference', 'fwdtransforms'),
                ('reference_to_mirror', 'invtransforms'),
            )
        }

    def apply(self, array, affine, transform, outside=0.0):
        """Resample an image by a transform on its own grid."""
        return apply_transform(array, affine, transform, outside)

    def _write_matrix(self, matrix):
        path = self.folder / 'matrix.mat'
        write_affine(matrix, path)
        return path


class TemplateSyN:
    """Symmetric normalization (SyN) of the template to a head: a `perfusion.template.TemplateRegistration`.

    Parameters
    ----------
    folder : path-like
        Folder in which transforms are written.
    seed : int

    Notes
    -----
    Avants et al. 2008, doi:10.1016/j.media.2007.06.004. A brain of 20 slices on a grid of 3.4 mm takes
    about 3 s.
    """

    def __init__(self, folder, seed):
        self.folder, self.seed = Path(folder).absolute(), seed

    def register(self, fixed, moving, metric_mask, matrix):
        """Register the template to the head from a matrix, within a mask; None if ITK fails."""
        start = self.folder / 'start.mat'
        write_affine(matrix, start)
        mask = to_ants(*_thicken(metric_mask.astype(np.float32), fixed[1]))
        try:
            result = _register(
                _thicken(*fixed), moving, self.seed, self.folder, mask=mask,
                type_of_transform='SyNOnly', initial_transform=[str(start)],
                reg_iterations=TEMPLATE_ITERATIONS, **SYN,
            )  # fmt: skip
        except RuntimeError:
            return None
        # ANTs resamples the template to the head by the forward transform, which maps points of the head
        # to points of the template
        return {
            name: str(Path(result[key]).rename(self.folder / f'{name}.h5'))
            for name, key in (
                ('template_to_reference', 'fwdtransforms'),
                ('reference_to_template', 'invtransforms'),
            )
        }

    def map_points(self, shape, affine, transform, source):
        """Return where the voxels of a grid are in the source, a (shape, affine), mm RAS."""
        return map_points((shape, affine), transform, source)


def map_points(target, transform, source):
    """Return where the voxels of a grid are in another image, by the transform that resamples that image.

    Parameters
    ----------
    target, source : tuple of (3,) tuple of int and (4, 4) array
        Shape and affine.
    transform : path-like
        ITK transform that resamples the source to the target.

    Returns
    -------
    (X, Y, Z, 3) array of float32
        mm RAS; NaN more than half a voxel outside the source.
    """
    import ants

    shape, affine = source
    # one voxel more on all sides, so that the half voxel at the edge is not flattened
    affine = np.array(affine, dtype=float)
    affine[:3, 3] -= affine[:3, :3].sum(axis=1)
    shape = tuple(size + 2 for size in shape)
    index = np.indices(shape).reshape(3, -1)
    coordinates = (affine[:3, :3] @ index + affine[:3, 3:]).reshape(3, *shape)
    grid, outside = to_ants(np.zeros(target[0], np.float32), target[1]), -1e6
    # coordinates are linear, so that their linear interpolation is exact
    mapped = np.stack(
        [
            ants.apply_transforms(
                grid, to_ants(axis, affine), [str(transform)], interpolator='linear',
                defaultvalue=outside,
            ).numpy()
            for axis in coordinates
        ],
        axis=-1,
    )  # fmt: skip
    inverse = np.linalg.inv(affine)
    voxel = mapped @ inverse[:3, :3].T + inverse[:3, 3]
    inside = ((voxel >= 0.5) & (voxel <= np.array(shape) - 1.5)).all(axis=-1)
    mapped[~inside] = np.nan
    return mapped.astype(np.float32)


def read_rigid(path):
    """Read a linear transform of any kind as a matrix, by where it maps four points.

    Parameters
    ----------
    path : path-like
        ``.txt`` or ``.mat``.

    Returns
    -------
    (4, 4) array
        From points of the fixed to points of the moving image, mm RAS.
    """
    import ants

    transform = ants.read_transform(str(path))
    origin = np.array(transform.apply_to_point([0.0, 0.0, 0.0]))
    axes = [np.array(transform.apply_to_point(axis)) - origin for axis in np.eye(3).tolist()]
    lps = np.eye(4)
    lps[:3, :3], lps[:3, 3] = np.stack(axes, axis=1), origin
    return LPS @ lps @ LPS


def register_rigid(fixed, moving, seed, folder, path, start=None):
    """Register two images rigidly and write the transform as ITK text.

    Parameters
    ----------
    fixed, moving : tuple of (X, Y, Z) array and (4, 4) array
    seed : int
    folder : path-like
        Folder of temporary files.
    path : path-like
        Transform to write, ``.txt``.
    start : path-like, optional
        Transform to start from; by default, the centres of mass are brought together.
    """
    import ants

    started = {} if start is None else {'initial_transform': str(start)}
    result = _register(fixed, moving, seed, folder, **RIGID, **started)
    ants.write_transform(ants.read_transform(result['fwdtransforms'][0]), str(path))


def register_linear(fixed, moving, seed, folder, mask=None):
    """Register two images of different contrast, rigidly and then by an affine transform.

    Parameters
    ----------
    fixed, moving : tuple of (X, Y, Z) array and (4, 4) array
        Image, 0 outside the head, and affine, mm RAS.
    seed : int
    folder : path-like
        Folder of temporary files.
    mask : (X, Y, Z) array of bool, optional
        Voxels of the fixed image that are compared.

    Returns
    -------
    (4, 4) array or None
        From points of the fixed to points of the moving image, mm RAS; None if ITK fails.
    """
    options = (
        {} if mask is None else {'mask': to_ants(_thicken(mask, fixed[1])[0], _thicken(*fixed)[1])}
    )
    images = _thicken(*fixed), _thicken(*moving)
    try:
        rigid = _register(
            *images, seed, folder, type_of_transform='Rigid', **CONTRASTS, **COARSE, **options
        )['fwdtransforms']
        result = _register(
            *images, seed, folder, type_of_transform='Affine', initial_transform=rigid, **CONTRASTS, **FINE,
            **options,
        )  # fmt: skip
    except RuntimeError:  # from ITK: no overlap, or a singular matrix
        return None
    return read_points(result['fwdtransforms'][0])


def read_points(path):
    """Read a linear transform of any kind by what it does to points.

    Parameters
    ----------
    path : path-like
        ITK transform, text or ``.mat``.

    Returns
    -------
    (4, 4) array
        From points of the fixed to points of the moving image, mm RAS.
    """
    import ants

    transform = ants.read_transform(str(path))
    origin, *axes = (
        np.array(transform.apply_to_point(point)) for point in np.eye(4)[[3, 0, 1, 2], :3]
    )
    lps = np.eye(4)
    lps[:3, :3] = np.stack([axis - origin for axis in axes], axis=1)
    lps[:3, 3] = origin
    return LPS @ lps @ LPS


def register_positions(fixed, moving, seed, folder):
    """Register two images nonrigidly and return where each voxel is in the moving image.

    Parameters
    ----------
    fixed, moving : tuple of (X, Y, Z) array and (4, 4) array
    seed : int
    folder : path-like
        Folder of temporary files.

    Returns
    -------
    (X, Y, Z, 3) array of float32
        Position of the voxels of the fixed in the moving image, mm RAS; NaN outside it.

    Raises
    ------
    RuntimeError
        From ITK: no overlap, or a singular matrix.
    """
    import ants

    result = _register(
        fixed, moving, seed, folder, type_of_transform='SyN', reg_iterations=POSITIONS_ITERATIONS,
        **AFFINE, **SYN,
    )  # fmt: skip
    array, affine = moving
    index = np.indices(array.shape).reshape(3, -1)
    positions = (affine[:3, :3] @ index + affine[:3, 3:]).reshape(3, *array.shape)
    grid, outside = to_ants(*fixed), -1e6
    # positions are linear, so that their linear interpolation is exact
    warped = [
        ants.apply_transforms(
            grid, to_ants(axis, affine), [result['fwdtransforms']], interpolator='linear',
            defaultvalue=outside,
        ).numpy()
        for axis in positions
    ]  # fmt: skip
    mapped = np.stack(warped, axis=-1)
    return np.where(mapped <= outside, np.nan, mapped)


def apply_transform(array, affine, transform, outside=0.0, fixed=None):
    """Resample an image by a transform on its own grid, or on that of another image.

    Parameters
    ----------
    array : (X, Y, Z) array
    affine : (4, 4) array
    transform : path-like
        ITK transform, such as a composite h5.
    outside : float
        Value of points outside the image.
    fixed : tuple of (X, Y, Z) array and (4, 4) array, optional
        Image with the other grid.

    Returns
    -------
    (X, Y, Z) array of float32
        Linear interpolation.
    """
    import ants

    image = to_ants(array, affine)
    home = ants.apply_transforms(
        to_ants(*fixed) if fixed else image,
        image,
        [str(transform)],
        interpolator='linear',
        defaultvalue=outside,
    )
    return home.numpy().astype(np.float32)


def write_affine(matrix, path):
    """Write an affine transform in the format of ANTs.

    Parameters
    ----------
    matrix : (4, 4) array
        From points of the fixed to points of the moving image, mm RAS.
    path : path-like
        Transform to write, ``.mat``.
    """
    import ants

    lps = LPS @ matrix @ LPS
    transform = ants.create_ants_transform(
        transform_type='AffineTransform', dimension=3, matrix=lps[:3, :3], translation=lps[:3, 3]
    )
    ants.write_transform(transform, str(path))


def read_affine(path):
    """Read an affine transform of ANTs; the inverse of `write_affine`.

    Parameters
    ----------
    path : path-like
        ``.mat``.

    Returns
    -------
    (4, 4) array
        From points of the fixed to points of the moving image, mm RAS.
    """
    import ants

    transform = ants.read_transform(str(path))
    lps = np.eye(4)
    lps[:3, :3] = np.reshape(transform.parameters[:9], (3, 3))
    centre = np.asarray(transform.fixed_parameters)
    lps[:3, 3] = transform.parameters[9:] + centre - lps[:3, :3] @ centre
    return LPS @ lps @ LPS


def to_ants(array, affine):
    """Convert a canonical array to an ANTs image.

    Parameters
    ----------
    array : (X, Y, Z) array
    affine : (4, 4) array
        Voxel to patient RAS, mm, without shear.

    Returns
    -------
    ants.ANTsImage
    """
    import ants

    spacing = np.sqrt(np.sum(np.asarray(affine, dtype=float)[:3, :3] ** 2, axis=0))
    lps = LPS @ affine
    return ants.from_numpy(
        np.ascontiguousarray(array, dtype=np.float32),
        origin=lps[:3, 3].tolist(),
        spacing=spacing.tolist(),
        direction=lps[:3, :3] / spacing,
    )


def _thicken(array, affine):
    """Repeat the end slices of a thin slab, which ITK cannot smooth or shrink otherwise."""
    missing = max(0, LEAST_SLICES - array.shape[2])
    before = (missing + 1) // 2
    affine = np.array(affine, dtype=float)
    affine[:3, 3] -= before * affine[:3, 2]
    return np.pad(array, [(0, 0), (0, 0), (before, missing - before)], mode='edge'), affine


def _register(fixed, moving, seed, folder, **options):
    import ants

    # antspyx accepts the seed only by this call (an argument is silently ignored), which also sets it
    # to one thread, so that sums do not depend on the machine
    ants.config.set_ants_deterministic(True, seed)
    prefix = Path(folder) / 'ants_'
    return ants.registration(
        to_ants(*fixed), to_ants(*moving), outprefix=str(prefix), verbose=False, **options
    )


class TemporarySyN(MirrorSyN):
    """`MirrorSyN` in a temporary folder, which exists as long as the object."""

    def __init__(self, seed):
        self._temporary = tempfile.TemporaryDirectory(prefix='ctpprep-')
        super().__init__(self._temporary.name, seed)
