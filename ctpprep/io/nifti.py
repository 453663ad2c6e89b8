# SPDX-License-Identifier: Apache-2.0
"""Read and write NIfTI images.

Files keep the voxel order of the user's series (LAS, LPS, ...). Arrays in memory are canonical
(RAS): the first axis points to the right, the second to anterior, the third to superior; time is
last.
"""

from pathlib import Path

import nibabel as nb
import numpy as np
from nibabel.orientations import (
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)

from ctpprep.exceptions import SeriesError
from ctpprep.io.headers import check_gzip, place_image
from ctpprep.io.shear import straighten

# converts between the RAS coordinates of nibabel and the LPS coordinates of ITK
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def load(path, dtype=np.float32, straight=False, affine_from=None):
    """Read an image in canonical order.

    Parameters
    ----------
    path : path-like
    dtype : dtype or None
        None keeps the stored type and, for an uncompressed file, memory-maps the voxels.
    straight : bool
        Whether sheared slices of a CT are shifted in plane, as those of a series are.
    affine_from : {'agree', 'sform', 'qform'}, optional
        For an image of the user: the affine that places its voxels, as for `headers.place_image`.

    Returns
    -------
    array : (X, Y, Z[, T]) array
    affine : (4, 4) array
        Of the canonical array, mm RAS.

    Raises
    ------
    SeriesError
        When a compressed file is damaged, or the header does not locate the voxels.
    """
    path = Path(path)
    try:
        check_gzip(path)
        image = nb.load(path)
        if affine_from is not None:
            place_image(image, affine_from)
    except SeriesError as error:
        raise SeriesError(f'{path.name}: {error}') from error
    image = nb.as_closest_canonical(straighten(image) if straight else image)
    array = np.asanyarray(image.dataobj)
    while array.ndim > 3 and array.shape[-1] == 1:  # volumes may be stored as 4D
        array = array[..., 0]
    return (array if dtype is None else np.asarray(array, dtype=dtype)), image.affine


def load_mask(path):
    """Read a mask in canonical order.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    (X, Y, Z) array of bool
    """
    return load(path, dtype=None)[0] > 0


def voxel_size_mm(affine):
    """Return the voxel size of an affine.

    Parameters
    ----------
    affine : (4, 4) array

    Returns
    -------
    (3,) tuple of float
        mm.
    """
    return tuple(float(size) for size in nb.affines.voxel_sizes(affine))


def straight_image(shape, affine):
    """Make an empty image whose voxel order and codes images in template space get.

    Parameters
    ----------
    shape : (3,) tuple of int
    affine : (4, 4) array
        mm RAS.

    Returns
    -------
    nibabel.Nifti1Image
        With the codes of MNI152 coordinates.
    """
    image = nb.Nifti1Image(np.zeros(shape, np.uint8), affine)
    image.set_sform(affine, code='mni')
    image.set_qform(affine, code='mni')
    return image


def save(array, affine, path, like, times_s=None):
    """Write a canonical array in the voxel order of an existing image.

    Parameters
    ----------
    array : (X, Y, Z[, T]) array
        Booleans are stored as uint8, floats as float32.
    affine : (4, 4) array
        Of the canonical array, mm.
    path : path-like
        ``.nii`` or ``.nii.gz``.
    like : path-like or nibabel image
        Image whose voxel order, qform_code and sform_code are used.
    times_s : (T,) array, optional
        Frame times of a series, s; their median interval becomes ``pixdim[4]``.

    Returns
    -------
    str
        The path, absolute.
    """
    model = like if isinstance(like, nb.Nifti1Pair) else nb.load(like)
    order = ornt_transform(axcodes2ornt('RAS'), io_orientation(model.affine))
    stored = apply_orientation(np.asarray(array), order)
    stored = stored.astype(_stored_type(stored), copy=False)
    image = nb.Nifti1Image(stored, affine @ inv_ornt_aff(order, array.shape[:3]))
    for name in ('qform', 'sform'):
        code = int(model.header[f'{name}_code']) or int(model.header['qform_code']) or 1
        getattr(image, f'set_{name}')(image.affine, code=code)
    image.header.set_xyzt_units('mm', 'sec')
    if times_s is not None and len(times_s) > 1:
        image.header['pixdim'][4] = float(np.median(np.diff(times_s)))
    path = Path(path).absolute()
    nb.save(image, path)
    return str(path)


def _stored_type(array):
    """Return the type in which an array is stored: uint8 for masks and small labels, or float32."""
    if array.dtype.kind not in 'bui':
        return np.float32
    lowest, highest = (array.min(), array.max()) if array.size else (0, 0)
    fits = np.iinfo(np.uint8).min <= lowest and highest <= np.iinfo(np.uint8).max
    return np.uint8 if fits else np.int32
