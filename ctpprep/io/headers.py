# SPDX-License-Identifier: Apache-2.0
"""Check the headers of NIfTI files: dimensions, geometry, and whether the file is complete."""

import math
from itertools import combinations
from pathlib import Path
from typing import Any

from ctpprep.exceptions import SeriesError

MAX_SHEAR_DEG = 1.0
MAX_TILT_DEG = 40.0
VOXEL_RANGE = (0.05, 30.0)  # mm
MIN_FRAMES = 10
TIME_UNITS = {'sec': 1.0, 'msec': 1e-3, 'usec': 1e-6}


def open_nifti(path: Path) -> Any:
    """Open a NIfTI file without reading its voxels.

    Parameters
    ----------
    path : Path

    Returns
    -------
    nibabel.Nifti1Pair

    Raises
    ------
    SeriesError
        When the file is missing or is not a readable NIfTI file.
    """
    import nibabel as nb

    if path.is_symlink() and not path.exists():
        raise SeriesError(
            'the content of the file is missing (broken symlink); fetch it, e.g. with `datalad get`'
        )
    try:
        image = nb.load(path)
    except Exception as error:  # nibabel does not catch those of gzip, zlib and struct
        reason = str(error).replace(str(path), path.name)
        raise SeriesError(
            f'not a readable NIfTI file ({reason}); copy or convert it again'
        ) from error
    if not isinstance(image, nb.Nifti1Pair):
        raise SeriesError(f'the image is a {type(image).__name__}, need a NIfTI file')
    return image


def check_dimensions(image: Any, n_dimensions: int, needed: str) -> None:
    """Raise `SeriesError` if an image has another number of dimensions than needed."""
    if len(image.shape) != n_dimensions:
        shape = ' x '.join(map(str, image.shape))
        raise SeriesError(f'the image is {len(image.shape)}D ({shape}), need a {needed}')


def check_complete(path: Path, image: Any) -> None:
    """Raise `SeriesError` if a file is shorter than its header requires.

    A gzip file is decompressed only if the size in its last bytes does not match.
    """
    values = math.prod(image.shape) * image.get_data_dtype().itemsize
    needed = image.dataobj.offset + values
    length, state = path.stat().st_size, ''
    if path.name.endswith('.gz'):
        with path.open('rb') as stream:
            stream.seek(-4, 2)  # a gzip file ends with the length of its content modulo 2^32
            if int.from_bytes(stream.read(), 'little') == needed % 2**32:
                return
        length, state = _decompressed_length(path), ' after decompression'
    if length < needed:
        raise SeriesError(
            f'the file is truncated ({length} bytes{state}, the header requires {needed}); copy or '
            'convert it again'
        )


def _decompressed_length(path: Path) -> int:
    """Count the bytes that can be decompressed, also from several gzip members."""
    import gzip
    import zlib

    length = 0
    with gzip.open(path) as stream:
        try:
            while block := stream.read1(2**22):  # returns the bytes before the error
                length += len(block)
        except (EOFError, OSError, zlib.error):
            pass
    return length


def check_placed(image: Any) -> None:
    """Raise `SeriesError` if the header does not locate the voxels in the patient."""
    header = image.header
    if header['sform_code'] == 0 and header['qform_code'] == 0:
        raise SeriesError(
            'the header has no orientation (sform_code and qform_code are 0), so left and right '
            'cannot be distinguished; convert the DICOM files again'
        )
    unit = header.get_xyzt_units()[0]
    if unit not in ('mm', 'unknown'):
        raise SeriesError(f'xyzt_units in the header is {unit}, need mm')


def check_volume(path: Path, kind: str) -> None:
    """Check the header of a 3D image, such as a mask that a user supplies.

    Parameters
    ----------
    path : Path
        NIfTI file.
    kind : str
        What the image is, such as 'mask'.

    Raises
    ------
    SeriesError
        When the file is damaged, not 3D, or its header has no orientation.
    """
    try:
        image = open_nifti(path)
        check_dimensions(image, 3, f'3D {kind}')
        check_complete(path, image)
        check_placed(image)
    except SeriesError as error:
        raise SeriesError(f'{path.name}: {error}') from error


def check_geometry(image: Any) -> None:
    """Raise `SeriesError` unless an image has orthogonal axial slices of plausible voxel size."""
    check_placed(image)
    columns = image.affine[:3, :3].T.tolist()
    sizes = [math.hypot(*column) for column in columns]
    low, high = VOXEL_RANGE
    if not all(low <= size <= high for size in sizes):
        shown = ' x '.join(f'{size:g}' for size in sizes)
        raise SeriesError(
            f'the voxel size is {shown} mm, must be {low:g} to {high:g} mm; check the header'
        )
    axes = [[v / size for v in column] for column, size in zip(columns, sizes, strict=True)]
    cosines = [
        abs(sum(u * v for u, v in zip(*pair, strict=True))) for pair in combinations(axes, 2)
    ]
    shear = math.degrees(math.asin(min(1.0, max(cosines))))
    if shear > MAX_SHEAR_DEG:
        raise SeriesError(
            f'the affine is sheared by {shear:.1f} degrees (gantry tilt), must be at most '
            f'{MAX_SHEAR_DEG:g}; resample the image to an orthogonal grid, e.g. with '
            'nilearn.image.resample_img'
        )
    tilt = math.degrees(math.acos(min(1.0, abs(axes[2][2]))))
    if tilt > MAX_TILT_DEG:
        raise SeriesError(
            f'the third voxel axis is {tilt:.0f} degrees from the inferior-superior axis, need '
            f'axial slices (at most {MAX_TILT_DEG:g} degrees)'
        )


def read_header(path: Path) -> tuple[tuple[int, ...], list[list[float]], float | None]:
    """Read and check the header of a 4D CT series.

    Parameters
    ----------
    path : Path
        NIfTI file.

    Returns
    -------
    shape : tuple of int
        (X, Y, Z, T).
    affine : list of list of float
        4 x 4, in mm.
    frame_interval : float or None
        pixdim[4] in s, if it is positive and has a unit of time.

    Raises
    ------
    SeriesError
        When the file is damaged, is not a series, or has an unsuitable geometry.
    """
    image = open_nifti(path)
    check_dimensions(image, 4, '4D series (x, y, z, time)')
    if image.shape[3] < MIN_FRAMES:
        raise SeriesError(f'the series has {image.shape[3]} frames, need at least {MIN_FRAMES}')
    if image.get_data_dtype().kind not in 'iuf':
        raise SeriesError(f'voxels are of type {image.get_data_dtype()}, need real numbers')
    check_complete(path, image)
    check_geometry(image)
    zoom, unit = image.header['pixdim'][4], image.header.get_xyzt_units()[1]
    known = zoom > 0 and math.isfinite(zoom) and unit in TIME_UNITS
    interval = round(float(zoom) * TIME_UNITS[unit], 6) if known else None
    return image.shape, image.affine.tolist(), interval
