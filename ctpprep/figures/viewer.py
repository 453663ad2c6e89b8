# SPDX-License-Identifier: Apache-2.0
"""What the viewer of a page shows, packed: maps, masks, homologues and curves of one series.

Values are codes of 16 bits between the ends of each map, so the error is less than a hundred
thousandth of its range. Only a box around the brain is kept. Curves are scores of a few temporal
components: of denoised curves these are all that there is.
"""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np

from ctpprep.figures.mosaic import COLOURS, WINDOWS

#: Maps in the order in which they are offered: name, window, and what shares one window.
MAPS = {
    'cbf': ('cbf', 'cbf'),
    'cbv': ('cbv', 'cbv'),
    'mtt': ('mtt', 'mtt'),
    'tmax': ('tmax', 'tmax'),
    'rcbf_global': ('rcbf_global', 'rcbf'),
    'rcbf_local': ('rcbf_local', 'rcbf'),
    'reference': ('reference', 'reference'),
    'reference_reflected': ('reference', 'reference'),
    'homologue_reference': ('reference', 'reference'),
}
# labels of what flickers against the reference: before and after registration
MIRRORED = {
    'reference_reflected': 'Mirror image before',
    'homologue_reference': 'Mirror image after',
}
#: Masks, a bit each, in this order.
MASKS = (
    'brain_mask', 'tissue_mask', 'core_global', 'core_local', 'hypoperfusion', 'unassessable_mask',
    'left', 'right', 'aif_mask', 'vof_mask',
)  # fmt: skip
# what is drawn over the maps: label, colour, dashed or filled, shown at first
OVERLAYS = {
    'hypoperfusion': ('Hypoperfusion', COLOURS['hypoperfusion'], 'line', True),
    'core_global': ('Core global', COLOURS['core'], 'line', True),
    'core_local': ('Core local', COLOURS['added'], 'dashed', True),
    'mismatch_global': ('Mismatch global', COLOURS['mismatch'], 'fill', False),
    'mismatch_local': ('Mismatch local', COLOURS['mismatch local'], 'fill', False),
    'aif_mask': ('AIF', COLOURS['aif'], 'fill', False),
    'vof_mask': ('VOF', COLOURS['vof'], 'fill', False),
}
# a page with more is slow to send; then every n-th voxel is kept
MOST_VOXELS = 400_000
NOWHERE = -1


def pack_series(
    images: dict[str, np.ndarray],
    affine: np.ndarray,
    file_axes: tuple[tuple[int, bool], ...] = ((0, False), (1, False), (2, False)),
    homologues: np.ndarray | None = None,
    curves: dict[str, np.ndarray] | None = None,
    vessels: dict[str, np.ndarray] | None = None,
    grey_unit: str = 'HU',
    most_voxels: int = MOST_VOXELS,
) -> dict[str, Any]:
    """Pack a series for the viewer.

    Parameters
    ----------
    images : dict of str to (X, Y, Z) array
        Keys of `MAPS` (NaN where there is no value) and of `MASKS`; ``brain_mask`` must be there.
        Canonical: x to the right, y anterior.
    affine : (4, 4) array
        Voxel to patient RAS, mm.
    file_axes : tuple of (int, bool)
        For each axis of the files the canonical axis, and whether it runs against it.
    homologues : (X, Y, Z, 3) array, optional
        Patient coordinates of the homologue of each voxel, mm; NaN outside of the slab.
    curves : dict of str to array, optional
        Tissue curves as components: ``scores`` (V, R), one row a voxel of ``tissue_mask`` in C
        order, ``centres`` (P, T), ``components`` (P, T, R), ``times`` (P, T) s,
        ``slice_pattern`` (Z,), and ``kept``, the share of the variance that they hold.
    vessels : dict of str to (T,) array, optional
        ``time`` (s) and ``aif`` (HU).
    grey_unit : str
        Unit of the reference; '' for a perfusion map in its stead.
    most_voxels : int
        Of a box with more every n-th voxel is kept, along its finest axes.

    Returns
    -------
    dict
        Of what JSON knows; arrays are deflated, in base64, x fastest.

    Raises
    ------
    ValueError
        The brain mask is empty.
    """
    brain = np.asarray(images['brain_mask'], bool)
    box = cut_out(brain, np.sqrt((affine[:3, :3] ** 2).sum(axis=0)), most_voxels)
    shape = brain[box].shape
    origin, step = [each.start for each in box], [each.step for each in box]
    packed_affine = affine.astype(float).copy()
    packed_affine[:3, 3] += affine[:3, :3] @ origin
    packed_affine[:3, :3] *= step
    masks = [name for name in MASKS if name in images]
    bits = np.zeros(shape, np.uint16)
    for place, name in enumerate(masks):
        bits |= np.asarray(images[name], bool)[box].astype(np.uint16) << place
    # a map beyond the brain is of no use; a CT shows the skull
    maps = []
    for name, (window, family) in MAPS.items():
        if name in images:
            bounded = None if family == 'reference' else brain[box]
            packed = pack_values(images[name][box], bounded)
            maps.append(
                {'name': name, 'family': family, **_shown(name, window, grey_unit), **packed}
            )
    packed = {
        'shape': list(shape),
        'affine': packed_affine.round(6).tolist(),
        'origin': origin,
        'step': step,
        'fileAxes': [
            {'axis': axis, 'flip': flip, 'size': brain.shape[axis]} for axis, flip in file_axes
        ],
        'maps': maps,
        'masks': masks,
        'bits': pack_array(bits),
        'overlays': [
            {'name': name, 'label': label, 'colour': colour, 'style': style, 'on': on}
            for name, (label, colour, style, on) in OVERLAYS.items()
            if _parts(name) <= {*masks}
        ],
        'colours': {name: _colour_table(name) for name in sorted({m['colours'] for m in maps})},
    }
    if homologues is not None:
        packed['homologues'] = pack_array(nearest_voxels(homologues[box], packed_affine))
    if curves is not None:
        tissue = np.asarray(images['tissue_mask'], bool)
        packed['curves'] = _pack_curves(curves, tissue, box)
        packed['vessels'] = {
            name: [None if np.isnan(value) else round(float(value), 3) for value in curve]
            for name, curve in (vessels or {}).items()
        }
    return packed


def cut_out(
    brain_mask: np.ndarray, voxel_size_mm: Any, most_voxels: int
) -> tuple[slice, slice, slice]:
    """Find the box around the brain, thinned along its finest axes until it is small enough.

    Parameters
    ----------
    brain_mask : (X, Y, Z) array of bool
    voxel_size_mm : (3,) sequence of float
    most_voxels : int

    Returns
    -------
    tuple of slice
        With a margin in plane, none through plane.

    Raises
    ------
    ValueError
        The mask is empty.

    Examples
    --------
    >>> cut_out(np.ones((8, 8, 4), bool), (1, 1, 5), 100)
    (slice(0, 8, 2), slice(0, 8, 2), slice(0, 4, 1))
    """
    if not brain_mask.any():
        raise ValueError('brain_mask is empty: nothing to show')
    ends = []
    for axis, size in enumerate(brain_mask.shape):
        held = np.flatnonzero(brain_mask.any(axis=tuple({0, 1, 2} - {axis})))
        margin = max(2, size // 40) if axis < 2 else 0
        ends.append((max(int(held[0]) - margin, 0), min(int(held[-1]) + 1 + margin, size)))
    step = [1, 1, 1]
    while np.prod([-(-(b - a) // n) for (a, b), n in zip(ends, step, strict=True)]) > most_voxels:
        finest = int(np.argmin(np.asarray(step) * np.asarray(voxel_size_mm)))
        step[finest] += 1
    first, second, third = (
        slice(start, stop, each) for (start, stop), each in zip(ends, step, strict=True)
    )
    return first, second, third


def pack_values(values: np.ndarray, bounded: np.ndarray | None = None) -> dict[str, Any]:
    """Turn values into codes of 16 bits: 0 for none, else low + slope (code - 1).

    Parameters
    ----------
    values : (X, Y, Z) array
        NaN where there is no value.
    bounded : (X, Y, Z) array of bool, optional
        Where values count.

    Returns
    -------
    dict
        ``data``, ``offset`` and ``slope``.

    Examples
    --------
    >>> pack_values(np.array([[[1.0, np.nan, 3.0]]]))['slope'] == 2 / 65534
    True
    """
    values = np.asarray(values, float)
    held = np.isfinite(values) if bounded is None else np.isfinite(values) & bounded
    low, high = (values[held].min(), values[held].max()) if held.any() else (0.0, 0.0)
    slope = (high - low) / 65534 or 1.0
    codes = np.zeros(values.shape, np.uint16)
    codes[held] = np.rint((values[held] - low) / slope).astype(np.uint16) + 1
    return {'data': pack_array(codes), 'offset': float(low), 'slope': float(slope)}


def pack_array(array: np.ndarray) -> str:
    r"""Deflate an array, x fastest and little-endian, and write it as base64.

    Examples
    --------
    >>> zlib.decompress(base64.b64decode(pack_array(np.array([[1, 2], [3, 4]], np.uint8))))
    b'\x01\x03\x02\x04'
    """
    flat = np.asarray(array).ravel(order='F')
    return base64.b64encode(
        zlib.compress(flat.astype(flat.dtype.newbyteorder('<')).tobytes(), 9)
    ).decode()


def nearest_voxels(homologues: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Find the voxel nearest to each homologue.

    Parameters
    ----------
    homologues : (X, Y, Z, 3) array
        Patient coordinates, mm; NaN outside of the slab.
    affine : (4, 4) array
        Of the same grid.

    Returns
    -------
    (X, Y, Z) array of int32
        Index with x fastest; `NOWHERE` outside of the grid.

    Examples
    --------
    >>> mirrored = np.array([[[[1.0, 0, 0]]], [[[0, 0, 0]]]])
    >>> nearest_voxels(mirrored, np.eye(4)).ravel()
    array([1, 0], dtype=int32)
    """
    shape = homologues.shape[:3]
    inverse = np.linalg.inv(affine)
    known = np.isfinite(homologues).all(axis=-1)
    index = np.where(known[..., None], homologues, 0.0) @ inverse[:3, :3].T + inverse[:3, 3]
    index = np.rint(index).astype(np.int64)
    known &= ((index >= 0) & (index < shape)).all(axis=-1)
    flat = index[..., 0] + shape[0] * (index[..., 1] + shape[1] * index[..., 2])
    return np.where(known, flat, NOWHERE).astype(np.int32)


def _pack_curves(
    curves: dict[str, np.ndarray], tissue: np.ndarray, box: tuple[slice, slice, slice]
) -> dict[str, Any]:
    """Pack the scores of the voxels of tissue in the box, x fastest, as codes of 16 bits."""
    row = np.full(tissue.shape, NOWHERE, np.int64)
    row[tissue] = np.arange(np.count_nonzero(tissue))
    shown = row[box].ravel(order='F')
    scores = np.asarray(curves['scores'], float)[shown[shown != NOWHERE]]
    scale = np.abs(scores).max(axis=0, initial=0.0) / 32767
    scale[scale == 0] = 1.0
    return {
        # the scores of a voxel lie together
        'scores': pack_array(np.rint(scores / scale).astype(np.int16).T),
        'scale': scale.tolist(),
        'centres': np.asarray(curves['centres'], float).round(4).tolist(),
        'components': np.asarray(curves['components'], float).round(6).tolist(),
        'times': np.asarray(curves['times'], float).round(3).tolist(),
        'pattern': np.asarray(curves['slice_pattern'])[box[2]].tolist(),
        'kept': float(curves['kept']),
    }


def _shown(name: str, window: str, grey_unit: str) -> dict[str, Any]:
    """Tell how a map is shown: label, unit, window, colours, and factor of what is stored."""
    each = WINDOWS[window]
    label = MIRRORED.get(name, each.label)
    unit = grey_unit if each.unit == 'HU' else each.unit
    return {
        'label': label, 'unit': unit, 'low': each.low, 'high': each.high, 'colours': each.colours,
        'scale': each.scale,
    }  # fmt: skip


def _parts(overlay: str) -> set[str]:
    """Name the masks that an overlay is made of."""
    if overlay.startswith('mismatch'):
        return {'hypoperfusion', overlay.replace('mismatch', 'core')}
    return {overlay}


def _colour_table(name: str) -> str:
    """Write 256 colours of a colour map as hexadecimal digits."""
    from matplotlib import colormaps

    rgb = colormaps[name](np.linspace(0, 1, 256))[:, :3]
    return (255 * rgb).round().astype(np.uint8).tobytes().hex()
