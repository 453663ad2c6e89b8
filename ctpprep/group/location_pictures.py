# SPDX-License-Identifier: Apache-2.0
"""Frequency maps as pictures of all slices, for the page of the group level."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from ctpprep.group.locations import LESIONS, Locations, Test, enlarge

#: Distance of the slices, mm, and number of slices side by side.
SLICE_MM, COLUMNS = 4.0, 6
#: Groups whose maps are on the page; those of more groups are files only.
MAX_GROUPS = 3
#: Differences are drawn where their p value is below this.
ALPHA = 0.05
NAMES = {
    'core_global': 'core global', 'core_local': 'core local', 'removed': 'removed core',
    'added': 'added core', 'hypoperfusion': 'hypoperfusion', 'core': 'core',
}  # fmt: skip


def draw_locations(
    locations: Locations,
    tests: Sequence[Test],
    background: np.ndarray | None,
    affine: np.ndarray,
) -> dict[str, Any]:
    """Draw all maps as pictures of slices.

    Parameters
    ----------
    locations : Locations
    tests : sequence of Test
    background : (X, Y, Z) array or None
        The template, HU.
    affine : (4, 4) array

    Returns
    -------
    dict
        ``width`` and ``height`` of a slice, px; ``columns`` of slices; ``heights``, z of every slice, mm;
        ``maps``: dicts with ``name``, ``scale`` and ``source``, a PNG as a data URI, in which the
        patient's right is on the left.
    """
    shape = locations.sums['all'].covered.shape
    step = max(1, round(SLICE_MM / abs(affine[2, 2])))
    seen = locations.sums['all'].covered.any(axis=(0, 1))
    slices = np.flatnonzero(seen)[::step]
    grey = np.zeros(shape, np.float32) if background is None else background / 60
    canvas = _Canvas(grey, slices)
    maps = []
    groups = list(locations.sums)[: MAX_GROUPS + 1]
    for group in groups:
        sums = locations.sums[group]
        for lesion in LESIONS:
            values = sums.frequency(lesion)
            most = max(float(values.max()), 1e-6)
            maps.append(
                {'name': f'{NAMES[lesion]}, {group} (n = {sums.n})',
                 'scale': f'frequency, 0 to {100 * most:.0f} %',
                 'source': canvas.draw(values / most, values > 0.02 * most, 'hot')}
            )  # fmt: skip
    for test in tests:
        values = enlarge(test.difference, locations.blocks, shape)
        shown = enlarge(test.p < ALPHA, locations.blocks, shape) > 0
        most = max(float(np.abs(values[shown]).max()) if shown.any() else 0.0, 1e-6)
        name = f'{NAMES[test.lesion]}: {test.name}'
        maps.append(
            {'name': f'{name}, {test.group} (n = {test.n})' if test.group else f'{name} (n = {test.n})',
             'scale': f'difference of frequencies where p < {ALPHA:g}, ±{100 * most:.0f} %'
             if shown.any() else f'nowhere p < {ALPHA:g}',
             'source': canvas.draw(0.5 + 0.5 * values / most, shown, 'coolwarm')}
        )  # fmt: skip
    heights = affine[2, 3] + affine[2, 2] * slices
    return {
        'width': shape[0], 'height': shape[1], 'columns': COLUMNS,
        'heights': np.round(heights, 1).tolist(), 'maps': maps,
    }  # fmt: skip


class _Canvas:
    """Slices of the template on which maps are drawn."""

    def __init__(self, grey: np.ndarray, slices: np.ndarray) -> None:
        self.grey, self.slices = np.clip(grey, 0, 1), slices

    def draw(self, values: np.ndarray, shown: np.ndarray, colours: str) -> str:
        """Draw values from 0 to 1 where they are shown; return a PNG as a data URI."""
        from matplotlib import colormaps
        from matplotlib.image import imsave

        rgb = np.repeat(self._tile(self.grey)[..., None], 3, axis=-1)
        coloured = colormaps[colours](np.clip(self._tile(values), 0, 1))[..., :3]
        rgb = np.where(self._tile(shown.astype(np.float32))[..., None] > 0.5, coloured, rgb)
        png = io.BytesIO()
        imsave(png, np.rint(rgb * 255).astype(np.uint8), format='png')
        return 'data:image/png;base64,' + base64.b64encode(png.getvalue()).decode()

    def _tile(self, volume: np.ndarray) -> np.ndarray:
        """Arrange slices in rows; anterior on top, the patient's right on the left."""
        tiles = [volume[::-1, ::-1, index].T for index in self.slices]
        tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % COLUMNS)
        rows = [
            np.concatenate(tiles[i : i + COLUMNS], axis=1) for i in range(0, len(tiles), COLUMNS)
        ]
        return np.concatenate(rows)
