# SPDX-License-Identifier: Apache-2.0
"""Headers of NIfTI files: what they must contain, and whether the file is complete."""

import math
from itertools import combinations
from pathlib import Path
from typing import Any

from ctpprep.exceptions import SeriesError

MAX_SHEAR_DEG = 1.0
MAX_TILT_DEG = 40.0


def open_nifti(path: Path) -> Any:
    """Open a NIfTI file without reading its voxels, or say why it is none."""
    import nibabel as nb

    if path.is_symlink() and not path.exists():
        raise SeriesError('its content is not here (broken link); fetch it, e.g. `datalad get`')
    try:
        image = nb.load(path)
    except Exception as error:  # nibabel lets errors of gzip, zlib and struct through
        reason = str(error).replace(str(path), path.name)
        raise SeriesError(f'not a readable NIfTI file ({reason})') from error
    if not isinstance(image, nb.Nifti1Pair):
        raise SeriesError(f'a {type(image).__name__}; a NIfTI file is needed')
    return image


def check_complete(path: Path, image: Any) -> None:
    """Compare the length of a file with its header, without unpacking it when it agrees."""
    values = math.prod(image.shape) * image.get_data_dtype().itemsize
    needed = image.dataobj.offset + values
    length, unpacked = path.stat().st_size, ''
    if path.name.endswith('.gz'):
        with path.open('rb') as stream:
            stream.seek(-4, 2)  # a gzip file ends with the length of its content modulo 2^32
            if int.from_bytes(stream.read(), 'little') == needed % 2**32:
                return
        length, unpacked = _unpacked_length(path), ' once unpacked'
    if length < needed:
        raise SeriesError(
            f'the file is cut off ({length} bytes{unpacked}, the header announces {needed}); '
            'copy or convert it again'
        )


def _unpacked_length(path: Path) -> int:
    """Count the bytes that can be unpacked; files of several gzip members end up here, too."""
    import gzip
    import zlib

    length = 0
    with gzip.open(path) as stream:
        try:
            while block := stream.read1(2**22):  # what can be unpacked, up to the error
                length += len(block)
        except (EOFError, OSError, zlib.error):
            pass
    return length


def check_placed(image: Any) -> None:
    """Refuse a header whose voxels cannot be placed in the patient."""
    header = image.header
    if header['sform_code'] == 0 and header['qform_code'] == 0:
        raise SeriesError(
            'the header gives no orientation (sform_code and qform_code are 0), left and right '
            'cannot be told; convert the DICOM files again'
        )
    unit = header.get_xyzt_units()[0]
    if unit not in ('mm', 'unknown'):
        raise SeriesError(f'the header gives lengths in {unit}; mm are needed (xyzt_units)')


def check_volume(path: Path, what: str) -> None:
    """Check the header of a 3D image, such as a mask that a user supplies.

    Parameters
    ----------
    path : Path
        NIfTI file.
    what : str
        What is needed, such as 'mask'.

    Raises
    ------
    SeriesError
        When the file is damaged, not 3D, or cannot be placed in the patient.
    """
    try:
        image = open_nifti(path)
        if len(image.shape) != 3:
            shape = ' x '.join(map(str, image.shape))
            raise SeriesError(f'{len(image.shape)}D ({shape}); a 3D {what} is needed')
        check_complete(path, image)
        check_placed(image)
    except SeriesError as error:
        raise SeriesError(f'{path.name}: {error}') from error


def check_geometry(image: Any) -> None:
    """Refuse voxels that are no axial slices of a plausible size."""
    check_placed(image)
    columns = image.affine[:3, :3].T.tolist()
    sizes = [math.hypot(*column) for column in columns]
    if not all(0.05 <= size <= 30 for size in sizes):
        shown = ' x '.join(f'{size:g}' for size in sizes)
        raise SeriesError(f'voxels of {shown} mm; 0.05 to 30 mm are plausible')
    axes = [[v / size for v in column] for column, size in zip(columns, sizes, strict=True)]
    cosines = [
        abs(sum(u * v for u, v in zip(*pair, strict=True))) for pair in combinations(axes, 2)
    ]
    shear = math.degrees(math.asin(min(1.0, max(cosines))))
    if shear > MAX_SHEAR_DEG:
        raise SeriesError(
            f'the affine is sheared by {shear:.1f} degrees (gantry tilt); resample the series to '
            'an orthogonal grid, e.g. with nilearn.image.resample_img'
        )
    tilt = math.degrees(math.acos(min(1.0, abs(axes[2][2]))))
    if tilt > MAX_TILT_DEG:
        raise SeriesError(
            f'the third voxel axis is {tilt:.0f} degrees away from the head-foot axis; axial '
            f'slices (at most {MAX_TILT_DEG:g} degrees) are needed'
        )


MIN_FRAMES = 10
TIME_UNITS = {'sec': 1.0, 'msec': 1e-3, 'usec': 1e-6}


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
        When the file is damaged or its geometry cannot be used.
    """
    image = open_nifti(path)
    if len(image.shape) != 4:
        shape = ' x '.join(map(str, image.shape))
        raise SeriesError(f'{len(image.shape)}D ({shape}); a 4D series (x, y, z, time) is needed')
    if image.shape[3] < MIN_FRAMES:
        raise SeriesError(f'{image.shape[3]} frames; at least {MIN_FRAMES} are needed')
    if image.get_data_dtype().kind not in 'iuf':
        raise SeriesError(f'voxels of type {image.get_data_dtype()}; real numbers are needed')
    check_complete(path, image)
    check_geometry(image)
    zoom, unit = image.header['pixdim'][4], image.header.get_xyzt_units()[1]
    known = zoom > 0 and math.isfinite(zoom) and unit in TIME_UNITS
    interval = round(float(zoom) * TIME_UNITS[unit], 6) if known else None
    return image.shape, image.affine.tolist(), interval
