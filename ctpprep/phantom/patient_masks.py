# SPDX-License-Identifier: Apache-2.0
"""Masks of a head CT on an even grid: the head without its holder, and the inside of its skull.

They are the phantom's own, and simpler than those of `ctpprep.perfusion`, which the phantom tests.
"""

from pathlib import Path

import numpy as np
from scipy import ndimage

from ctpprep.phantom.anatomy import load_template

STEP = 1.5  # mm, of the even grid


def separate_head(values: np.ndarray) -> np.ndarray:
    """Find the head among holder, pillow and table.

    Parameters
    ----------
    values : (X, Y, Z) array
        HU, on voxels of 1.5 mm.

    Returns
    -------
    (X, Y, Z) array of bool
        With sinuses and airways, and 1.5 mm of the blurred border of the skin.
    """
    dense = np.pad(values > -300, 4)
    # An opening of 4.5 mm, on every other voxel, leaves neither holder nor ears.
    core = _largest(ndimage.distance_transform_edt(dense[::2, ::2, ::2]) > 2.25 / STEP)
    for axis, size in enumerate(dense.shape):
        core = core.repeat(2, axis=axis).take(np.arange(size), axis=axis)
    grown = ndimage.binary_dilation(core & dense, iterations=4, mask=dense)
    closed = ndimage.binary_closing(grown, iterations=3)
    head = ndimage.binary_dilation(closed | grown)[4:-4, 4:-4, 4:-4]
    for plane in range(head.shape[2]):
        head[..., plane] = ndimage.binary_fill_holes(head[..., plane])
    return head


def find_content(path: Path, smooth: np.ndarray, head: np.ndarray) -> np.ndarray:
    """Segment the inside of the skull: soft tissue beyond 4 mm from bone, grown back."""
    soft = head & (smooth > -20) & (smooth < 90)
    to_bone = ndimage.distance_transform_edt(np.pad(soft, ((1, 1), (1, 1), (0, 0)))) * STEP
    core = _largest(to_bone[1:-1, 1:-1] > 4)
    if not core.any():
        raise ValueError(
            f'anatomy: {path} has no soft tissue enclosed by bone, need a head with its skull'
        )
    grown = (ndimage.distance_transform_edt(~core) * STEP <= 5) & soft
    distance = _fit_box(grown)
    if (grown & (distance > 10)).sum() > 0.1 * grown.sum():
        # Thin or blurred bone at the base lets the mask leak into face and neck.
        grown = _largest(grown & (distance < 5))
    grown = np.pad(grown, 4)
    closed = ndimage.distance_transform_edt(~grown) * STEP <= 6
    closed = ndimage.distance_transform_edt(closed) * STEP > 6
    content = ndimage.binary_fill_holes(closed)[4:-4, 4:-4, 4:-4] & (smooth < 150) & head
    volume_ml = content.sum() * STEP**3 / 1000
    if not 400 < volume_ml < 2600:
        raise ValueError(
            f'anatomy: {path} has {volume_ml:.0f} mL of soft tissue enclosed by bone, need the '
            f'400 to 2600 mL of a head with its skull'
        )
    return content


def _fit_box(content: np.ndarray) -> np.ndarray:
    """Return the distance to the template's inner table, fitted to the upper 60 mm, mm."""
    x, y, z = content.nonzero()
    top = z > z.max() - 60 / STEP
    x, y = x[top], y[top]
    template = load_template()
    surfaces = template.surfaces
    inside = surfaces.values[..., surfaces.names.index('skull')] < 0
    u, v, w = (start + surfaces.spacing * index
               for start, index in zip(surfaces.origin, inside.nonzero(), strict=True))  # fmt: skip
    high = w > w.max() - 60
    u, v = u[high], v[high]
    scale = [np.ptp(u) / (STEP * np.ptp(x)), np.ptp(v) / (STEP * np.ptp(y))]
    scales = np.array([*scale, np.mean(scale)]).reshape(3, 1)
    middle = np.reshape([u.min() + np.ptp(u) / 2, v.min() + np.ptp(v) / 2, w.max()], (3, 1))
    centre = np.reshape([x.min() + np.ptp(x) / 2, y.min() + np.ptp(y) / 2, z.max()], (3, 1))
    index = np.indices(content.shape).reshape(3, -1) - centre
    return template.skull_distance(STEP * scales * index + middle).reshape(content.shape)


def crop_to(
    mask: np.ndarray, origin: np.ndarray, border: int = 3
) -> tuple[tuple[slice, ...], np.ndarray]:
    """Return the box around a mask, and the position of its first voxel."""
    box = tuple(
        slice(max(int(i.min()) - border, 0), int(i.max()) + border + 1) for i in mask.nonzero()
    )
    return box, origin + STEP * np.array([b.start for b in box])


def _largest(mask: np.ndarray) -> np.ndarray:
    """Keep the largest component."""
    labels, count = ndimage.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return labels == sizes.argmax()


def signed_distance(mask: np.ndarray) -> np.ndarray:
    """Return the distance to the border of a mask of the even grid, mm, its steps smoothed."""
    outside = ndimage.distance_transform_edt(~mask)
    inside = ndimage.distance_transform_edt(mask)
    return ndimage.gaussian_filter(STEP * (outside - inside), 0.7).astype(np.float32)
