# SPDX-License-Identifier: Apache-2.0
"""Pack maps, masks, homologues and curves of one series for the interactive viewer of a page.

Values are stored as 16-bit codes between minimum and maximum of a map, with an error below 1/100 000
of its range. Only a box around the brain is kept. Curves are stored as scores of a few temporal
components, which represent denoised curves completely.
"""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np

from ctpprep.figures.mosaic import WINDOWS
from ctpprep.figures.palette import COLOURS

#: Maps in the order of the menu: name, window, and the family whose members share one window.
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
# labels of the images that alternate with the reference: before and after registration
MIRRORED = {
    'reference_reflected': 'Mirror image before',
    'homologue_reference': 'Mirror image after',
}
#: Masks in the order of their bits.
MASKS = (
    'brain_mask', 'tissue_mask', 'core_global', 'core_local', 'hypoperfusion', 'unassessable_mask',
    'left', 'right', 'aif_mask', 'vof_mask', 'followup_mask',
)  # fmt: skip
# drawn over the maps: label, colour, style, and whether it is shown initially
OVERLAYS = {
    'hypoperfusion': ('Hypoperfusion', COLOURS['hypoperfusion'], 'line', True),
    'core_global': ('Core global', COLOURS['core'], 'line', True),
    'core_local': ('Core local', COLOURS['added'], 'dashed', True),
    'mismatch_global': ('Mismatch global', COLOURS['mismatch'], 'fill', False),
    'mismatch_local': ('Mismatch local', COLOURS['mismatch local'], 'fill', False),
    'followup_mask': ('Follow-up lesion', COLOURS['followup'], 'line', True),
    'aif_mask': ('AIF', COLOURS['aif'], 'fill', False),
    'vof_mask': ('VOF', COLOURS['vof'], 'fill', False),
}
#: Colours for readers who are used to a rainbow; smooth, so that it has no false edges.
RAINBOW = 'turbo'
# a page with more is slow to load: only every n-th voxel is kept
MOST_VOXELS = 400_000
NOWHERE = -1
# of zlib: three times as fast as 9, and 0.6 % larger
LEVEL = 4


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
        Keys of `MAPS` (NaN where a value is missing) and of `MASKS`; ``brain_mask`` is required.
        Canonical: x to the right, y anterior.
    affine : (4, 4) array
        Voxel to patient RAS, mm.
    file_axes : tuple of (int, bool)
        Canonical axis of each axis of the files, and whether their directions are opposite.
    homologues : (X, Y, Z, 3) array, optional
        Patient coordinates of the homologue of each voxel, mm; NaN outside the slab.
    curves : dict of str to array, optional
        Tissue curves as components: ``scores`` (V, R), one row per voxel of ``tissue_mask`` in C
        order, ``centres`` (P, T), ``components`` (P, T, R), ``times`` (P, T) s,
        ``slice_pattern`` (Z,), and ``kept``, the fraction of the variance they explain.
    vessels : dict of str to (T,) array, optional
        ``time`` (s) and ``aif`` (HU).
    grey_unit : str
        Unit of the reference; '' if it is a perfusion map.
    most_voxels : int
        A larger box is subsampled along its finest axes.

    Returns
    -------
    dict
        JSON types only; arrays are deflated and in base64, x fastest.

    Raises
    ------
    ValueError
        If the brain mask is empty.
    """
    brain = np.asarray(images['brain_mask'], bool)
    box = crop(brain, np.sqrt((affine[:3, :3] ** 2).sum(axis=0)), most_voxels)
    shape = brain[box].shape
    origin, step = [axis.start for axis in box], [axis.step for axis in box]
    packed_affine = affine.astype(float).copy()
    packed_affine[:3, 3] += affine[:3, :3] @ origin
    packed_affine[:3, :3] *= step
    masks = [name for name in MASKS if name in images]
    bits = np.zeros(shape, np.uint16)
    for bit, name in enumerate(masks):
        bits |= np.asarray(images[name], bool)[box].astype(np.uint16) << bit
    # maps are limited to the brain; a CT also shows the skull
    maps = []
    for name, (window, family) in MAPS.items():
        if name in images:
            mask = None if family == 'reference' else brain[box]
            values = pack_values(images[name][box], mask)
            display = _describe_display(name, window, grey_unit)
            maps.append({'name': name, 'family': family, **display, **values})
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
        'start': find_start(images, box),
        'overlays': [
            {'name': name, 'label': label, 'colour': colour, 'style': style, 'on': on}
            for name, (label, colour, style, on) in OVERLAYS.items()
            if _masks_of(name) <= {*masks}
        ],
        'colours': {
            name: _colour_table(name) for name in sorted({item['colours'] for item in maps})
        }
        | {'rainbow': _colour_table(RAINBOW)},
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


def crop(
    brain_mask: np.ndarray, voxel_size_mm: Any, most_voxels: int
) -> tuple[slice, slice, slice]:
    """Find the box around the brain, subsampled along its finest axes until it is small enough.

    Parameters
    ----------
    brain_mask : (X, Y, Z) array of bool
    voxel_size_mm : (3,) sequence of float
    most_voxels : int

    Returns
    -------
    tuple of slice
        With a margin in plane, without one along z.

    Raises
    ------
    ValueError
        If the mask is empty.

    Examples
    --------
    >>> crop(np.ones((8, 8, 4), bool), (1, 1, 5), 100)
    (slice(0, 8, 2), slice(0, 8, 2), slice(0, 4, 1))
    """
    if not brain_mask.any():
        raise ValueError('brain_mask is empty, needs at least one voxel')
    ends = []
    for axis, size in enumerate(brain_mask.shape):
        occupied = np.flatnonzero(brain_mask.any(axis=tuple({0, 1, 2} - {axis})))
        margin = max(2, size // 40) if axis < 2 else 0
        ends.append((max(int(occupied[0]) - margin, 0), min(int(occupied[-1]) + 1 + margin, size)))
    step = [1, 1, 1]
    while np.prod([-(-(b - a) // n) for (a, b), n in zip(ends, step, strict=True)]) > most_voxels:
        finest = int(np.argmin(np.asarray(step) * np.asarray(voxel_size_mm)))
        step[finest] += 1
    first, second, third = (
        slice(start, stop, stride) for (start, stop), stride in zip(ends, step, strict=True)
    )
    return first, second, third


def find_start(images: dict[str, np.ndarray], box: tuple[slice, slice, slice]) -> int:
    """Find the voxel that the viewer marks first.

    It is that of the lowest global rCBF in the largest connected piece of the core. Without a core,
    it is that of the longest Tmax in the largest piece of the hypoperfusion; without a lesion, the
    voxel with values that is nearest to the centre of the brain. A voxel that was filled into a
    lesion has no value, or one beyond the threshold, and is never the extreme.

    Parameters
    ----------
    images : dict of str to (X, Y, Z) array
        As `pack_series` accepts them.
    box : tuple of slice
        From `crop`.

    Returns
    -------
    int
        Index in the box, x fastest.

    Examples
    --------
    >>> core = np.array([1, 0, 1, 1, 1], bool).reshape(5, 1, 1)
    >>> rcbf = np.array([0.1, 1, 0.2, np.nan, 0.25]).reshape(5, 1, 1)
    >>> images = {'brain_mask': core | True, 'core_global': core, 'rcbf_global': rcbf}
    >>> find_start(images, (slice(5), slice(1), slice(1)))
    2
    """
    brain = np.asarray(images['brain_mask'], bool)
    valid = np.asarray(images.get('tissue_mask', brain), bool) & brain
    for lesion, name, sign in (('core_global', 'rcbf_global', 1), ('hypoperfusion', 'tmax', -1)):
        if lesion in images and name in images:
            piece = _largest_piece(np.asarray(images[lesion], bool))[box]
            values = np.where(piece & valid[box], sign * images[name][box], np.nan)
            if np.isfinite(values).any():
                return int(np.nanargmin(values.ravel(order='F')))
    candidates = valid[box] if valid[box].any() else np.ones(valid[box].shape, bool)
    for name in MAPS:
        if name in images and (has_value := candidates & np.isfinite(images[name][box])).any():
            candidates = has_value
    places = np.argwhere(candidates)
    nearest = places[((places - places.mean(axis=0)) ** 2).sum(axis=1).argmin()]
    return int(np.ravel_multi_index(tuple(nearest), candidates.shape, order='F'))


def _largest_piece(mask: np.ndarray) -> np.ndarray:
    """Return the largest connected piece of a mask; voxels that share a face are connected."""
    from scipy import ndimage

    pieces, _ = ndimage.label(mask)
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return mask & (pieces == sizes.argmax())


def pack_values(values: np.ndarray, mask: np.ndarray | None = None) -> dict[str, Any]:
    """Convert values to 16-bit codes: 0 if missing, else value = offset + slope (code - 1).

    Parameters
    ----------
    values : (X, Y, Z) array
        NaN where a value is missing.
    mask : (X, Y, Z) array of bool, optional
        Values outside are treated as missing.

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
    valid = np.isfinite(values) if mask is None else np.isfinite(values) & mask
    low, high = (values[valid].min(), values[valid].max()) if valid.any() else (0.0, 0.0)
    slope = (high - low) / 65534 or 1.0
    codes = np.zeros(values.shape, np.uint16)
    codes[valid] = np.rint((values[valid] - low) / slope).astype(np.uint16) + 1
    return {'data': pack_array(codes), 'offset': float(low), 'slope': float(slope)}


def pack_array(array: np.ndarray) -> str:
    r"""Deflate an array, x fastest and little-endian, and encode it in base64.

    Examples
    --------
    >>> zlib.decompress(base64.b64decode(pack_array(np.array([[1, 2], [3, 4]], np.uint8))))
    b'\x01\x03\x02\x04'
    """
    flat = np.asarray(array).ravel(order='F')
    return base64.b64encode(
        zlib.compress(flat.astype(flat.dtype.newbyteorder('<')).tobytes(), LEVEL)
    ).decode()


def nearest_voxels(homologues: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Find the voxel nearest to each homologue.

    Parameters
    ----------
    homologues : (X, Y, Z, 3) array
        Patient coordinates, mm; NaN outside the slab.
    affine : (4, 4) array
        Voxel to patient RAS of the same grid, mm.

    Returns
    -------
    (X, Y, Z) array of int32
        Index with x fastest; `NOWHERE` outside the grid.

    Examples
    --------
    >>> mirrored = np.array([[[[1.0, 0, 0]]], [[[0, 0, 0]]]])
    >>> nearest_voxels(mirrored, np.eye(4)).ravel()
    array([1, 0], dtype=int32)
    """
    shape = homologues.shape[:3]
    inverse = np.linalg.inv(affine)
    inside = np.isfinite(homologues).all(axis=-1)
    index = np.where(inside[..., None], homologues, 0.0) @ inverse[:3, :3].T + inverse[:3, 3]
    index = np.rint(index).astype(np.int64)
    inside &= ((index >= 0) & (index < shape)).all(axis=-1)
    flat = index[..., 0] + shape[0] * (index[..., 1] + shape[1] * index[..., 2])
    return np.where(inside, flat, NOWHERE).astype(np.int32)


def _pack_curves(
    curves: dict[str, np.ndarray], tissue: np.ndarray, box: tuple[slice, slice, slice]
) -> dict[str, Any]:
    """Pack the scores of the tissue voxels in the box, x fastest, as 16-bit codes."""
    rows = np.full(tissue.shape, NOWHERE, np.int64)
    rows[tissue] = np.arange(np.count_nonzero(tissue))
    packed_rows = rows[box].ravel(order='F')
    scores = np.asarray(curves['scores'], float)[packed_rows[packed_rows != NOWHERE]]
    scale = np.abs(scores).max(axis=0, initial=0.0) / 32767
    scale[scale == 0] = 1.0
    return {
        # transposed, so that the scores of a voxel are contiguous
        'scores': pack_array(np.rint(scores / scale).astype(np.int16).T),
        'scale': scale.tolist(),
        'centres': np.asarray(curves['centres'], float).round(4).tolist(),
        'components': np.asarray(curves['components'], float).round(6).tolist(),
        'times': np.asarray(curves['times'], float).round(3).tolist(),
        'pattern': np.asarray(curves['slice_pattern'])[box[2]].tolist(),
        'kept': float(curves['kept']),
    }


def _describe_display(name: str, window_name: str, grey_unit: str) -> dict[str, Any]:
    """Return label, unit, window and colours of a map, and the factor on its stored values."""
    window = WINDOWS[window_name]
    return {
        'label': MIRRORED.get(name, window.label),
        'unit': grey_unit if window.unit == 'HU' else window.unit,
        'low': window.low,
        'high': window.high,
        'colours': window.colours,
        'scale': window.scale,
    }


def _masks_of(overlay: str) -> set[str]:
    """Return the names of the masks that an overlay is computed from."""
    if overlay.startswith('mismatch'):
        return {'hypoperfusion', overlay.replace('mismatch', 'core')}
    return {overlay}


def _colour_table(name: str) -> str:
    """Return 256 colours of a colour map as hexadecimal digits."""
    from matplotlib import colormaps

    rgb = colormaps[name](np.linspace(0, 1, 256))[:, :3]
    return (255 * rgb).round().astype(np.uint8).tobytes().hex()
