# SPDX-License-Identifier: Apache-2.0
"""Write series as NIfTI, slice by slice, without names, dates or paths in the file."""

import gzip
import shutil
from pathlib import Path
from typing import IO

import numpy as np

from ctpprep.dicom.assembly import Assembly
from ctpprep.dicom.pixels import AIR_HU, PixelReader, stored_type
from ctpprep.io.compression import compress, open_gzip
from ctpprep.io.files import write_atomically


def read_frame(assembly: Assembly, frame: int, reader: PixelReader) -> np.ndarray:
    """Read one frame on the straight matrix.

    Parameters
    ----------
    assembly : Assembly
    frame : int
    reader : PixelReader

    Returns
    -------
    (X, Y, Z) array of float32
        HU.
    """
    stack = assembly.stack
    volume = np.empty(stack.shape, dtype=np.float32, order='F')
    for z in range(stack.shape[2]):
        volume[:, :, z] = read_slice(assembly, frame, z, reader)
    return volume


def read_slice(assembly: Assembly, frame: int, z: int, reader: PixelReader) -> np.ndarray:
    """Read one slice of one frame on the straight matrix, (X, Y) array of int16 or float32, HU."""
    stack = assembly.stack
    pixels = reader.read(assembly.images[frame][z])
    if pixels.shape == stack.shape[:2]:
        return pixels
    plane = np.full(stack.shape[:2], AIR_HU, dtype=pixels.dtype, order='F')
    x, y = stack.offsets[z]
    plane[x : x + pixels.shape[0], y : y + pixels.shape[1]] = pixels
    return plane


def write_series(assembly: Assembly, path: Path, reader: PixelReader) -> None:
    """Write a series or a volume; only one slice is in memory.

    Parameters
    ----------
    assembly : Assembly
    path : Path
        ``.nii.gz``; appears when it is complete.
    reader : PixelReader
    """
    import nibabel as nb

    flat = [image for frame in assembly.images for image in frame]
    dtype = stored_type(flat)
    n_frames = len(assembly.images)
    header = nb.Nifti1Header(endianness='<')
    header.set_data_dtype(dtype)
    shape = assembly.stack.shape if assembly.times is None else (*assembly.stack.shape, n_frames)
    header.set_data_shape(shape)
    for name in ('sform', 'qform'):
        getattr(header, f'set_{name}')(assembly.stack.affine, code=1)
    header.set_xyzt_units('mm', 'sec')
    if assembly.times is not None:
        header['pixdim'][4] = np.median(np.diff(assembly.frame_times))
    header['vox_offset'] = 352
    header['scl_slope'], header['scl_inter'] = 1, 0

    def write(partial: Path) -> None:
        # equal inputs give equal bytes
        with (
            partial.open('wb') as raw,
            compress(raw) as stream,
        ):
            stream.write(header.binaryblock + bytes(4))
            for frame in range(n_frames):
                for z in range(assembly.stack.shape[2]):
                    plane = read_slice(assembly, frame, z, reader)
                    stream.write(plane.astype(dtype, copy=False).tobytes(order='F'))

    write_atomically(write, path)


def copy_clean(source: Path, target: Path) -> None:
    """Copy a NIfTI file without the texts of its header and without extensions.

    Parameters
    ----------
    source : Path
        ``.nii`` or ``.nii.gz``.
    target : Path
        ``.nii.gz``.
    """
    import nibabel as nb

    def opened() -> IO[bytes] | gzip.GzipFile:
        return open_gzip(source) if source.name.endswith('.gz') else source.open('rb')

    with opened() as stream:
        header = nb.Nifti1Header.from_fileobj(stream, check=False)
    offset = max(352, int(header['vox_offset']))
    for name in ('descrip', 'aux_file', 'db_name', 'data_type', 'intent_name'):
        header[name] = b''
    header['vox_offset'] = 352

    def write(partial: Path) -> None:
        with (
            opened() as stream,
            partial.open('wb') as raw,
            compress(raw) as out,
        ):
            stream.read(offset)
            out.write(header.binaryblock + bytes(4))
            shutil.copyfileobj(stream, out, 2**22)

    write_atomically(write, target)
