# SPDX-License-Identifier: Apache-2.0
"""A small head as a series of a BIDS dataset, and the ways to spoil its files."""

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np
from scipy import ndimage

# spoils the series of one participant, given the path of its image
Spoil = Callable[[Path], object]

INTERVAL = 2.0
SIDECAR = {'RepetitionTime': INTERVAL, 'Units': 'HU'}


def taper(ctp: np.ndarray) -> np.ndarray:
    """Make the slices of a head smaller towards the vertex, as those of real heads are."""
    tapered = ctp.copy()
    centre = (np.array(ctp.shape[:2]) - 1) / 2
    for z in range(ctp.shape[2]):
        factor = 1 + 0.04 * z
        for frame in range(ctp.shape[3]):
            tapered[:, :, z, frame] = ndimage.affine_transform(
                ctp[:, :, z, frame],
                np.diag([factor, factor]),
                centre * (1 - factor),
                order=1,
                cval=-1000,
            )
    return tapered


def write_series(folder: Path, label: str, head: tuple[np.ndarray, np.ndarray, Any]) -> Path:
    """Write a head as an uncompressed series with a sidecar; return the path of the image."""
    ctp, affine, _ = head
    image = nb.Nifti1Image(ctp, affine)
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    image.header.set_xyzt_units('mm', 'sec')
    image.header['pixdim'][4] = INTERVAL
    path = folder / f'sub-{label}' / 'ct' / f'sub-{label}_ctp.nii'
    path.parent.mkdir(parents=True)
    image.to_filename(path)
    sidecar_of(path).write_text(json.dumps(SIDECAR))
    return path


def sidecar_of(path: Path) -> Path:
    return path.with_name(path.name.partition('.')[0] + '.json')


# -- sidecars


def fields(**changes: Any) -> Spoil:
    """Change fields of the sidecar; None removes one."""

    def spoil(path: Path) -> None:
        content = {k: v for k, v in (SIDECAR | changes).items() if v is not None}
        sidecar_of(path).write_text(json.dumps(content))

    return spoil


def sidecar_text(text: str | bytes) -> Spoil:
    content = text.encode() if isinstance(text, str) else text
    return lambda path: sidecar_of(path).write_bytes(content)


def instead_of_sidecar(make: Callable[[Path], object]) -> Spoil:
    """Put something else in the place of the sidecar."""

    def spoil(path: Path) -> None:
        sidecar_of(path).unlink()
        make(sidecar_of(path))

    return spoil


def instead_of_image(make: Callable[[Path], object]) -> Spoil:
    """Put something else in the place of the image."""

    def spoil(path: Path) -> None:
        path.unlink()
        make(path)

    return spoil


# -- headers


def header(**changes: Any) -> Spoil:
    """Overwrite fields of the header, unchecked; a tuple is a position and a value."""

    def spoil(path: Path) -> None:
        content = bytearray(path.read_bytes())
        raw = np.frombuffer(content, nb.nifti1.header_dtype, count=1)[0:1]
        for name, value in changes.items():
            if isinstance(value, tuple):
                raw[name][0][value[0]] = value[1]
            else:
                raw[name] = value
        path.write_bytes(content)

    return spoil


def forms(
    qform: np.ndarray | None = None, sform: np.ndarray | None = None, code: int = 1
) -> Spoil:
    """Multiply the qform or the sform by a matrix of patient coordinates."""

    def spoil(path: Path) -> None:
        image = nb.load(path)
        head = image.header.copy()
        if qform is not None:
            head.set_qform(qform @ image.affine, code)
        if sform is not None:
            head.set_sform(sform @ image.affine, code)
        content = bytearray(path.read_bytes())
        content[:348] = head.binaryblock
        path.write_bytes(content)

    return spoil


def both_forms(matrix: np.ndarray) -> Spoil:
    """Multiply both affines."""
    return forms(matrix, matrix)


def in_turn(*spoils: Spoil) -> Spoil:
    def spoil(path: Path) -> None:
        for one in spoils:
            one(path)

    return spoil


def scaled(*factors: float) -> np.ndarray:
    return np.diag([*factors, 1.0])


def turned(degrees: float, axis: int = 2) -> np.ndarray:
    """Rotate patient coordinates about an axis."""
    matrix, angle = np.eye(4), np.deg2rad(degrees)
    first, second = [i for i in range(3) if i != axis]
    matrix[first, first] = matrix[second, second] = np.cos(angle)
    matrix[first, second], matrix[second, first] = -np.sin(angle), np.sin(angle)
    return matrix


def shifted(x: float = 0, y: float = 0, z: float = 0) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, 3] = x, y, z
    return matrix


# -- voxels


def voxels(change: Callable[[np.ndarray], np.ndarray], dtype: Any = None) -> Spoil:
    """Replace the voxels by a function of them."""

    def spoil(path: Path) -> None:
        image = nb.load(path)
        changed = change(np.asarray(image.dataobj))
        head = image.header.copy()
        head.set_data_dtype(dtype or changed.dtype)
        affine = image.affine
        zoom = float(head['pixdim'][4])
        made = nb.Nifti1Image(changed.astype(dtype or changed.dtype), affine, head)
        if made.ndim > 3:
            made.header['pixdim'][4] = zoom
        made.to_filename(path)

    return spoil


def as_float(change: Callable[[np.ndarray], Any]) -> Spoil:
    """Replace the voxels, as floats, by a function that changes them in place."""

    def changed(ctp: np.ndarray) -> np.ndarray:
        ctp = ctp.astype(np.float32)
        change(ctp)
        return ctp

    return voxels(changed)


def remade(make: Callable[..., nb.Nifti1Pair], extension: str = '.nii') -> Spoil:
    """Replace the image by another one of its voxels, affine and header."""

    def spoil(path: Path) -> None:
        old = nb.load(path)
        ctp, head = np.asarray(old.dataobj), old.header.copy()
        path.unlink()
        image = make(ctp, old.affine, head if make is not nb.Nifti2Image else None)
        image.set_qform(image.affine, 1)
        image.set_sform(image.affine, 1)
        image.header.set_xyzt_units('mm', 'sec')
        image.header['pixdim'][4] = INTERVAL
        image.to_filename(path.with_suffix(extension))

    return spoil


def as_type(image: nb.Nifti1Image, dtype: Any) -> nb.Nifti1Image:
    """Store an image as another type, with the slope that its range needs."""
    image.set_data_dtype(dtype)
    return image


# -- files


def content(change: Callable[[bytearray], bytes | bytearray]) -> Spoil:
    """Replace the bytes of the image."""
    return lambda path: path.write_bytes(bytes(change(bytearray(path.read_bytes()))))


def compressed(change: Callable[[bytearray], bytes | bytearray] = bytes) -> Spoil:
    """Compress the image, then change the bytes of the compressed file."""

    def spoil(path: Path) -> None:
        packed = bytearray(gzip.compress(path.read_bytes(), 1, mtime=0))
        path.unlink()
        path.with_name(f'{path.name}.gz').write_bytes(bytes(change(packed)))

    return spoil


def flip_bits(positions: Any) -> Callable[[bytearray], bytearray]:
    """Flip one bit of some bytes; positions are fractions of the length or offsets."""

    def change(data: bytearray) -> bytearray:
        for position in positions:
            place = int(position * len(data)) if isinstance(position, float) else position
            data[place] ^= 16
        return data

    return change


def renamed(name: str | bytes) -> Spoil:
    """Rename image and sidecar; {label} is the label of the participant."""

    def spoil(path: Path) -> None:
        label = path.parents[1].name.removeprefix('sub-')
        new = name.encode() if isinstance(name, str) else name
        new = new.replace(b'{label}', label.encode())
        for old, ending in ((path, b'.nii'), (sidecar_of(path), b'.json')):
            os.rename(os.fsencode(old), os.fsencode(old.parent) + b'/' + new + ending)

    return spoil
