# SPDX-License-Identifier: Apache-2.0
"""Figures of slices: maps, both normalizations, lesions, probability, masks, mirror."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ctpprep.figures.mosaic import NO_VALUE, WINDOWS, Mosaic, Row, plot_rows
from ctpprep.figures.palette import COLOURS
from ctpprep.perfusion.regions import split_cores

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NO_VALUE_LEGEND = 'no value (CSF, vessel)'
# colour, and range of the probability
LIKELIHOODS = (('sure', 0.95, 1.01), ('likely', 0.5, 0.95), ('possible', 0.05, 0.5))


def plot_maps(mosaic: Mosaic, maps: dict[str, np.ndarray], brain_mask: np.ndarray) -> Figure:
    """Draw the available maps among CBF, CBV, MTT, Tmax and TTP in their fixed windows.

    Parameters
    ----------
    mosaic : Mosaic
    maps : dict of str to (X, Y, Z) array
        Keys of `WINDOWS`; NaN where a value is missing.
    brain_mask : (X, Y, Z) array of bool

    Returns
    -------
    matplotlib.figure.Figure
    """
    rows = [Row(maps[name], WINDOWS[name], brain_mask) for name in WINDOWS if name in maps]
    return plot_rows(mosaic, rows, {NO_VALUE_LEGEND: str(NO_VALUE)})


def plot_rcbf(
    mosaic: Mosaic,
    rcbf: dict[str, np.ndarray],
    core: dict[str, np.ndarray],
    hypoperfusion: np.ndarray | None,
    reference: np.ndarray,
    brain_mask: np.ndarray,
    core_rcbf: float,
    hypoperfusion_tmax: float,
) -> Figure:
    """Draw rCBF of both normalizations in one window, and the difference of their cores.

    The lowest row shows core that is kept (in both), removed (global only) or added (local only).

    Parameters
    ----------
    mosaic : Mosaic
    rcbf, core : dict of str to (X, Y, Z) array
        Keys 'global' and 'local', or 'global' alone; rCBF as fractions, NaN where a value
        is missing. A core may be missing.
    hypoperfusion : (X, Y, Z) array of bool, optional
    reference : (X, Y, Z) array
        HU.
    brain_mask : (X, Y, Z) array of bool
    core_rcbf, hypoperfusion_tmax : float
        Thresholds, for the legend: fraction and s.

    Returns
    -------
    matplotlib.figure.Figure
    """
    legend: dict[str, str] = {}
    outlines = []
    if hypoperfusion is not None:
        outlines.append((hypoperfusion, COLOURS['hypoperfusion']))
        legend[f'hypoperfusion (Tmax > {hypoperfusion_tmax:g} s, and core beside it)'] = COLOURS[
            'hypoperfusion'
        ]
    rows = []
    for name in rcbf:
        own_core = [(core[name], COLOURS['core'])] if name in core else []
        window = WINDOWS[f'rcbf_{name}']
        rows.append(Row(rcbf[name], window, brain_mask, outlines=(*outlines, *own_core)))
    if core:
        legend[f'core (rCBF < {100 * core_rcbf:g} %) of that map'] = COLOURS['core']
    if len(core) == 2:
        fills = compare_cores(core['global'], core['local'])
        rows.append(
            Row(
                reference,
                WINDOWS['reference'],
                brain_mask,
                title='Difference of cores',
                fills=tuple((mask, COLOURS[part]) for part, mask in fills.items()),
            )
        )
        legend['lowest row: kept (both)'] = COLOURS['kept']
        legend['removed (global only)'] = COLOURS['removed']
        legend['added (local only)'] = COLOURS['added']
    legend[NO_VALUE_LEGEND] = str(NO_VALUE)
    return plot_rows(mosaic, rows, legend)


def compare_cores(core_global: np.ndarray, core_local: np.ndarray) -> dict[str, np.ndarray]:
    """Split two cores into the parts that the local normalization keeps, removes and adds.

    Parameters
    ----------
    core_global, core_local : array of bool

    Returns
    -------
    dict of str to array of bool
        Keys kept, removed, added.

    Examples
    --------
    >>> parts = compare_cores(np.array([True, True, False]), np.array([True, False, True]))
    >>> [int(np.flatnonzero(mask)[0]) for mask in parts.values()]
    [0, 1, 2]
    """
    return split_cores(np.asarray(core_global, bool), np.asarray(core_local, bool))


def plot_lesions(
    mosaic: Mosaic,
    reference: np.ndarray,
    core: dict[str, np.ndarray],
    hypoperfusion: np.ndarray,
    brain_mask: np.ndarray,
    core_rcbf: float,
    hypoperfusion_tmax: float,
) -> Figure:
    """Draw core and mismatch over the reference image, one row per normalization.

    Parameters
    ----------
    mosaic : Mosaic
    reference : (X, Y, Z) array
        HU.
    core : dict of str to (X, Y, Z) array of bool
        Keys 'global', 'local' or one of them.
    hypoperfusion, brain_mask : (X, Y, Z) array of bool
    core_rcbf, hypoperfusion_tmax : float
        Thresholds, for the legend: fraction and s.

    Returns
    -------
    matplotlib.figure.Figure
    """
    rows = [
        Row(
            reference,
            WINDOWS['reference'],
            brain_mask,
            title=f'Core {name}',
            fills=((hypoperfusion & ~mask, COLOURS['mismatch']), (mask, COLOURS['core'])),
        )
        for name, mask in core.items()
    ]
    legend = {
        f'core (rCBF < {100 * core_rcbf:g} %)': COLOURS['core'],
        f'mismatch (Tmax > {hypoperfusion_tmax:g} s, not core)': COLOURS['mismatch'],
    }
    return plot_rows(mosaic, rows, legend)


def plot_probability(
    mosaic: Mosaic,
    probability: dict[str, np.ndarray],
    core: dict[str, np.ndarray],
    reference: np.ndarray,
    brain_mask: np.ndarray,
    core_rcbf: float,
) -> Figure:
    """Draw the probability of a value below the core threshold over the reference image.

    Parameters
    ----------
    mosaic : Mosaic
    probability, core : dict of str to (X, Y, Z) array
        Keys 'global', 'local' or one of them; a core may be missing.
    reference : (X, Y, Z) array
        HU.
    brain_mask : (X, Y, Z) array of bool
    core_rcbf : float
        Threshold, for the legend: fraction.

    Returns
    -------
    matplotlib.figure.Figure
    """
    rows = [
        Row(
            reference,
            WINDOWS['reference'],
            brain_mask,
            title=f'Probability\n{name}',
            fills=tuple(
                ((values >= low) & (values < high), COLOURS[likelihood])
                for likelihood, low, high in LIKELIHOODS
            ),
            outlines=((core[name], COLOURS['segmented']),) if name in core else (),
        )
        for name, values in probability.items()
    ]
    legend = {f'at least {100 * low:g} %': COLOURS[name] for name, low, _ in LIKELIHOODS}
    legend[f'core as segmented (rCBF < {100 * core_rcbf:g} %)'] = COLOURS['segmented']
    return plot_rows(mosaic, rows, legend)


def plot_followup(
    mosaic: Mosaic,
    reference: np.ndarray,
    core: dict[str, np.ndarray],
    hypoperfusion: np.ndarray,
    lesion: np.ndarray,
    brain_mask: np.ndarray,
    core_rcbf: float,
) -> Figure:
    """Draw where each core agrees with the follow-up lesion.

    Parameters
    ----------
    mosaic : Mosaic
    reference : (X, Y, Z) array
        HU.
    core : dict of str to (X, Y, Z) array of bool
        Keys 'global', 'local' or one of them.
    hypoperfusion, lesion, brain_mask : (X, Y, Z) arrays of bool
    core_rcbf : float
        Threshold, for the legend: fraction.

    Returns
    -------
    matplotlib.figure.Figure
        For each core a row with the voxels that are hit, missed and false, and the outlines of lesion
        and hypoperfusion.
    """
    rows = []
    for name, mask in core.items():
        parts = {'hit': mask & lesion, 'missed': lesion & ~mask, 'false': mask & ~lesion}
        rows.append(
            Row(
                reference,
                WINDOWS['reference'],
                brain_mask,
                title=f'Core {name}',
                fills=tuple((part, COLOURS[kind]) for kind, part in parts.items()),
                outlines=(
                    (hypoperfusion, COLOURS['hypoperfusion']),
                    (lesion, COLOURS['followup']),
                ),
            )
        )
    legend = {
        'follow-up lesion': COLOURS['followup'],
        'hypoperfusion': COLOURS['hypoperfusion'],
        f'hit: lesion and core (rCBF < {100 * core_rcbf:g} %)': COLOURS['hit'],
        'missed: lesion only': COLOURS['missed'],
        'false: core only': COLOURS['false'],
    }
    return plot_rows(mosaic, rows, legend)


def plot_masks(mosaic: Mosaic, reference: np.ndarray, masks: dict[str, np.ndarray]) -> Figure:
    """Outline brain, tissue and hemispheres on the reference image.

    Parameters
    ----------
    mosaic : Mosaic
    reference : (X, Y, Z) array
        HU.
    masks : dict of str to (X, Y, Z) array of bool
        Keys among brain, tissue, left, right.

    Returns
    -------
    matplotlib.figure.Figure
    """
    pairs = [('brain', 'tissue'), ('left', 'right')]
    rows: list[Row] = []
    legend: dict[str, str] = {}
    for title, names in zip(('Brain and tissue', 'Hemispheres'), pairs, strict=True):
        present = [name for name in names if name in masks]
        if present:
            outlines = tuple((masks[name], COLOURS[name]) for name in present)
            rows.append(Row(reference, WINDOWS['reference'], title=title, outlines=outlines))
            labels = {'left': 'left hemisphere', 'right': 'right hemisphere'}
            legend |= {labels.get(name, name): COLOURS[name] for name in present}
    return plot_rows(mosaic, rows, legend)


def plot_regions(
    mosaic: Mosaic,
    reference: np.ndarray,
    labels: np.ndarray,
    names: dict[int, str],
    core: dict[str, np.ndarray],
    brain_mask: np.ndarray,
) -> Figure:
    """Colour the regions on the reference image and outline the cores on them.

    Parameters
    ----------
    mosaic : Mosaic
    reference : (X, Y, Z) array
        HU.
    labels : (X, Y, Z) array of int
        Region of each voxel; 0 is none.
    names : dict of int to str
    core : dict of str to (X, Y, Z) array of bool
        Keys 'global' and 'local', or some of them.
    brain_mask : (X, Y, Z) array of bool

    Returns
    -------
    matplotlib.figure.Figure
        Colours repeat after 20 regions; the legend names at most 20.
    """
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    colours = [to_hex(colour) for colour in colormaps['tab20'].colors]
    present = [label for label in names if (labels == label).any()]
    by_label = {label: colours[index % len(colours)] for index, label in enumerate(present)}
    legend = {names[label]: by_label[label] for label in present[: len(colours)]}
    outlines = tuple(
        (core[name], colour)
        for name, colour in (('global', COLOURS['core']), ('local', COLOURS['added']))
        if name in core
    )
    legend |= {
        f'core {name}': colour
        for name, colour in (('global', COLOURS['core']), ('local', COLOURS['added']))
        if name in core
    }
    row = Row(
        reference, WINDOWS['reference'], brain_mask, title='Regions',
        fills=tuple((labels == label, colour) for label, colour in by_label.items()),
        outlines=outlines,
    )  # fmt: skip
    return plot_rows(mosaic, [row], legend)


def plot_mirror(
    mosaic: Mosaic,
    reference: np.ndarray,
    reflected: np.ndarray,
    homologue: np.ndarray,
    brain_mask: np.ndarray,
) -> Figure:
    """Draw the reference and its mirror image before and after registration, and a chequerboard.

    Where the registration failed, sulci and ventricles are interrupted at the edges of the fields.
    In the file of `save_svg`, the first two rows alternate between reference and mirror image.

    Parameters
    ----------
    mosaic : Mosaic
    reference : (X, Y, Z) array
        HU.
    reflected : (X, Y, Z) array
        The reference reflected at the plane of symmetry, the start of the registration, HU.
    homologue : (X, Y, Z) array
        The mirrored reference warped to the grid of the reference, HU.
    brain_mask : (X, Y, Z) array of bool
        The registration uses the brain only; its effect on the skull is meaningless.

    Returns
    -------
    matplotlib.figure.Figure
    """
    field = max(4, round(mosaic.tile_shape[1] / 8))
    across, along = np.indices(reference.shape[:2])
    board = ((across // field + along // field) % 2).astype(bool)[..., None]
    window = WINDOWS['brain']
    rows = []
    for stage, mirrored in (('before', reflected), ('after', homologue)):
        rows += [
            Row(reference, window, brain_mask, title=f'Flicker {stage}\nregistration'),
            Row(mirrored, window, brain_mask, gid=f'blinking-{stage}', over=True),
        ]
    board = np.where(board, reference, homologue)
    rows.append(Row(board, window, brain_mask, title='Chequerboard\nafter it'))
    note = 'Upper two rows: reference and mirror image in turn (on paper, the mirror image).'
    return plot_rows(mosaic, rows, note=note)
