# SPDX-License-Identifier: Apache-2.0
"""Check the headers of NIfTI files: dimensions, geometry, and whether the file is complete."""

import logging
import math
import operator
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from ctpprep.exceptions import SeriesError
from ctpprep.io.compression import damage, open_gzip
from ctpprep.io.files import check_content, check_regular
from ctpprep.io.shear import MAX_SHEAR_DEG, shear_deg

logger = logging.getLogger(__name__)

MAX_TILT_DEG = 40.0
VOXEL_RANGE = (0.05, 30.0)  # mm
MIN_FRAMES = 10
TIME_UNITS = {'sec': 1.0, 'msec': 1e-3, 'usec': 1e-6}
AFFINES = ('sform', 'qform')
# codes that NIfTI defines for the space of an affine
LAST_CODE = 5
# bytes that may follow the voxels: padding to a multiple of a block of storage
MAX_SURPLUS = 4096
# relative difference of voxel sizes that rounding explains
SAME_SIZE = 0.02


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
    check_regular(path, SeriesError)
    check_content(path, SeriesError)
    nb.imageglobals.logger.disabled = True  # what nibabel repairs is harmless, or refused below
    try:
        image = nb.load(path)
    except Exception as error:  # nibabel does not catch those of gzip, zlib and struct
        reason = str(error).replace(str(path), path.name)
        raise SeriesError(
            f'not a readable NIfTI file ({reason}); copy or convert it again'
        ) from error
    if not isinstance(image, nb.Nifti1Pair):
        raise SeriesError(f'the image is a {type(image).__name__}, need a NIfTI file')
    try:
        image.header.get_xyzt_units()
    except KeyError as error:
        code = int(image.header['xyzt_units'])
        raise SeriesError(
            f'xyzt_units in the header is {code}, which NIfTI does not define; correct the header'
        ) from error
    if min(image.shape, default=0) < 1:
        shape = ' x '.join(map(str, image.shape))
        raise SeriesError(f'the header gives a size of {shape or "0"} voxels; convert it again')
    return image


def check_dimensions(image: Any, n_dimensions: int, needed: str) -> None:
    """Raise `SeriesError` if an image has another number of dimensions; a last one of 1 is none."""
    actual = len(image.shape)
    while actual > n_dimensions and image.shape[actual - 1] == 1:
        actual -= 1
    if actual != n_dimensions:
        shape = ' x '.join(map(str, image.shape))
        raise SeriesError(f'the image is {len(image.shape)}D ({shape}), need a {needed}')


def check_complete(path: Path, image: Any) -> None:
    """Raise `SeriesError` if a file is shorter than its header requires.

    A gzip file is decompressed only if the size in its last bytes does not match.
    """
    needed = image.dataobj.offset + math.prod(image.shape) * image.get_data_dtype().itemsize
    length, state = path.stat().st_size, ''
    if path.name.lower().endswith('.gz'):
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
    if length > needed + MAX_SURPLUS:
        raise SeriesError(
            f'the file is longer ({length} bytes{state}) than its header requires ({needed}), so '
            'that one of them is wrong; convert it again'
        )
    if state:
        check_gzip(path)


def check_gzip(path: Path) -> None:
    """Read a gzip file to its end, and check length and checksum in its trailer.

    The whole file is decompressed, about 0.2 s for 100 MB. Other files are not read.

    Parameters
    ----------
    path : Path

    Raises
    ------
    SeriesError
        When the content is damaged.
    """
    if not path.name.lower().endswith('.gz'):
        return
    try:
        with open_gzip(path) as stream:
            while stream.read(2**22):
                pass
    except damage() as error:
        raise SeriesError(
            f'the file is damaged: its content does not match the gzip trailer ({error}); copy or '
            'convert it again'
        ) from error


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


def place_image(image: Any, affine_from: str = 'agree') -> None:
    """Check that the header locates the voxels in the patient, and choose its affine, in place.

    Every image of the user goes through this function: series, maps, masks, non-contrast CT and
    follow-up images.

    Parameters
    ----------
    image : nibabel.Nifti1Pair
    affine_from : str
        'sform' or 'qform' to choose one; 'agree' if they must agree. An image that has only one
        affine uses it.

    Raises
    ------
    SeriesError
        When there is no affine, when one is invalid, or when both contradict each other and none
        is chosen.
    """
    header = image.header
    if header['sform_code'] == 0 and header['qform_code'] == 0:
        raise SeriesError(
            'the header has no orientation (sform_code and qform_code are 0), so left and right '
            'cannot be distinguished; convert the DICOM files again'
        )
    unit = header.get_xyzt_units()[0]
    if unit not in ('mm', 'unknown'):
        raise SeriesError(f'xyzt_units in the header is {unit}, need mm')
    _check_affines(image, affine_from)
    if affine_from == 'qform' and header['qform_code'] > 0:  # nibabel prefers the sform
        image.set_sform(None, code=0)


def _check_affines(image: Any, affine_from: str) -> None:
    """Raise `SeriesError` if an affine is invalid, or two valid ones contradict each other."""
    import numpy as np

    header = image.header
    affines = {}
    for name in AFFINES:
        if (code := int(header[f'{name}_code'])) == 0:
            continue
        if not 0 < code <= LAST_CODE:
            raise SeriesError(
                f'{name}_code in the header is {code}, which NIfTI does not define; correct the header'
            )
        try:
            affines[name] = getattr(header, f'get_{name}')()
        except Exception as error:  # of nibabel: an impossible quaternion
            raise SeriesError(f'the {name} of the header is invalid ({error})') from error
        if not np.isfinite(affines[name]).all() or not np.linalg.det(affines[name][:3, :3]):
            raise SeriesError(
                f'the {name} of the header is invalid (not finite, or singular); convert the '
                'DICOM files again'
            )
        if np.array_equal(affines[name], np.eye(4)):
            raise SeriesError(
                f'the {name} of the header is the identity (voxels of 1 x 1 x 1 mm from the origin), '
                'a default, not a measurement; convert the DICOM files again'
            )
    sizes = header['pixdim'][1:4]
    if len(affines) == 2:
        contradiction = _describe_contradiction(affines, image.shape)
        if contradiction and affine_from == 'agree':
            raise SeriesError(
                f'{contradiction}; convert the DICOM files again, or choose ctpprep --affine-from sform '
                'or qform for all images'
            )
        if contradiction:
            logger.info(
                '%s: placed by its %s: %s', image.get_filename(), affine_from, contradiction
            )
    elif 'sform' in affines and np.isfinite(sizes).all() and (sizes > 0).all():
        actual = np.linalg.norm(affines['sform'][:3, :3], axis=0)
        if (sizes != 1).any() and not np.allclose(sizes, actual, rtol=SAME_SIZE):
            raise SeriesError(
                f'pixdim in the header gives voxels of {_times(sizes)} mm, but the sform '
                f'{_times(actual)} mm; correct the header'
            )


def _describe_contradiction(affines: dict[str, Any], shape: Sequence[int]) -> str:
    """Describe how two affines differ that place a corner more than a voxel apart; '' if none does."""
    import nibabel as nb
    import numpy as np

    corners = np.array(
        [(*corner, 1) for corner in product(*((0, size - 1) for size in shape[:3]))]
    )
    sform = affines['sform']
    if shear_deg(sform) > MAX_SHEAR_DEG:  # which no qform can express
        header = nb.Nifti1Header()
        header.set_qform(sform, 1, strip_shears=True)
        sform = header.get_qform()
    apart = (sform - affines['qform']) @ corners.T
    distance = float(np.linalg.norm(apart[:3], axis=0).max())
    if distance <= max(nb.affines.voxel_sizes(affines['sform']).max(), 1.0):
        return ''
    shown = '; '.join(
        f'{name}: axes {_axes(affine)}, voxels of '
        f'{_times(nb.affines.voxel_sizes(affine))} mm, first at '
        f'({", ".join(f"{value:.4g}" for value in affine[:3, 3])}) mm'
        for name, affine in affines.items()
    )
    return f'sform and qform of the header place voxels up to {distance:.0f} mm apart ({shown})'


def _axes(affine: Any) -> str:
    """Name the directions of the voxel axes, such as RAS."""
    import nibabel as nb

    return ''.join(code or '?' for code in nb.aff2axcodes(affine))


def _times(sizes: Any) -> str:
    return ' x '.join(f'{size:.3g}' for size in sizes)


def check_volume(path: Path, kind: str, affine_from: str = 'agree', whole: bool = True) -> None:
    """Check the header of a 3D image, such as a mask that a user supplies.

    Parameters
    ----------
    path : Path
        NIfTI file.
    kind : str
        What the image is, such as 'mask'.
    affine_from : str
        As for `place_image`.
    whole : bool
        Whether a compressed file is read to its end.

    Raises
    ------
    SeriesError
        When the file is damaged, not 3D, or its header does not locate its voxels.
    """
    try:
        image = open_nifti(path)
        check_dimensions(image, 3, f'3D {kind}')
        if image.get_data_dtype().kind not in 'iuf':
            raise SeriesError(f'voxels are of type {image.get_data_dtype()}, need real numbers')
        check_complete(path, image)
        if whole:
            check_gzip(path)
        place_image(image, affine_from)
    except SeriesError as error:
        raise SeriesError(f'{path.name}: {error}') from error


def check_geometry(image: Any, affine_from: str = 'agree', may_shear: bool = False) -> None:
    """Raise `SeriesError` unless an image has orthogonal axial slices of plausible voxel size.

    Parameters
    ----------
    image : nibabel.Nifti1Pair
    affine_from : str
        As for `place_image`.
    may_shear : bool
        Whether the slices may be sheared against one another, as by gantry tilt.
    """
    place_image(image, affine_from)
    columns = image.affine[:3, :3].T.tolist()
    sizes = [math.hypot(*column) for column in columns]
    low, high = VOXEL_RANGE
    if not all(low <= size <= high for size in sizes):
        shown = ' x '.join(f'{size:g}' for size in sizes)
        raise SeriesError(
            f'the voxel size is {shown} mm, must be {low:g} to {high:g} mm; check the header'
        )
    axes = [[v / size for v in column] for column, size in zip(columns, sizes, strict=True)]
    skew = math.degrees(math.asin(min(1.0, abs(sum(map(operator.mul, *axes[:2]))))))
    if skew > MAX_SHEAR_DEG:
        raise SeriesError(
            f'rows and columns of the slices are {skew:.1f} degrees from perpendicular, must be at most '
            f'{MAX_SHEAR_DEG:g}; correct the affine in the header'
        )
    shear = shear_deg(image.affine)
    if shear > (MAX_TILT_DEG if may_shear else MAX_SHEAR_DEG):
        action = 'correct the affine in the header'
        if not may_shear:
            action = 'use maps of a series without shear, or resample them with NaN outside'
        raise SeriesError(
            f'the affine is sheared by {shear:.1f} degrees (gantry tilt), must be at most '
            f'{MAX_TILT_DEG if may_shear else MAX_SHEAR_DEG:g}; {action}'
        )
    (ax, ay, _), (bx, by, _) = axes[:2]
    tilt = math.degrees(math.acos(min(1.0, abs(ax * by - ay * bx))))  # of the normal of the slices
    if tilt > MAX_TILT_DEG:
        raise SeriesError(
            f'the slices are {tilt:.0f} degrees from the axial plane (axes {_axes(image.affine)}), need '
            f'axial slices (at most {MAX_TILT_DEG:g} degrees); reorder the voxel axes: the third '
            'runs from feet to head'
        )


def read_header(
    path: Path, affine_from: str = 'agree'
) -> tuple[tuple[int, ...], list[list[float]], float | None]:
    """Read and check the header of a 4D CT series.

    Parameters
    ----------
    path : Path
        NIfTI file.
    affine_from : str
        As for `place_image`.

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
    check_geometry(image, affine_from, may_shear=True)
    zoom, unit = image.header['pixdim'][4], image.header.get_xyzt_units()[1]
    known = zoom > 0 and math.isfinite(zoom) and unit in TIME_UNITS
    interval = round(float(zoom) * TIME_UNITS[unit], 6) if known else None
    return image.shape[:4], image.affine.tolist(), interval
