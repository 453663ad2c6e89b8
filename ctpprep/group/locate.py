# SPDX-License-Identifier: Apache-2.0
"""Where lesions lie in a cohort: maps, tests, regions and pictures of one call."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ctpprep.exceptions import UsageError
from ctpprep.group.location_pictures import draw_locations
from ctpprep.group.locations import (
    Sums,
    add_up,
    compare_locations,
    region_shares,
    summarize_tests,
)
from ctpprep.group.templates import (
    Found,
    find_masks,
    is_mirrored,
    read_affine,
    read_masks,
    read_regions,
    write_maps,
)
from ctpprep.group.tsv import Table
from ctpprep.io.templates import find_template, load_template
from ctpprep.settings import RunSettings

if TYPE_CHECKING:
    from ctpprep.group.cohort import Cohort

logger = logging.getLogger(__name__)


@dataclass
class LocationReport:
    """Content of the page about locations.

    Attributes
    ----------
    rows : list of dict
        Rows of `group_locations.tsv`.
    pictures : dict
        From `draw_locations`.
    notes : list of str
    folder : Path
        Folder of the maps.
    """

    rows: list[dict[str, Any]]
    pictures: dict[str, Any]
    notes: list[str]
    folder: Path


def locate_lesions(run: RunSettings, cohort: 'Cohort', volumes: Table) -> LocationReport | None:
    """Compute and write where the lesions of a cohort lie.

    Parameters
    ----------
    run : RunSettings
    cohort : Cohort
    volumes : Table
        `group_volumes.tsv`, with the affected side of every series.

    Returns
    -------
    LocationReport or None
        None if no series has masks in template space.

    Raises
    ------
    UsageError
        If left lesions are to be flipped and the grid is not symmetric about the midline.
    """
    masks = find_masks(run.output_dir, cohort.included, _affected_sides(volumes))
    if masks is None:
        if run.flip_left:
            raise UsageError(
                '--flip-left needs masks in template space, but no series has any; run the participant '
                'level with --output-spaces first'
            )
        return None
    affine = read_affine(masks)
    locations = add_up(read_masks(masks, run.flip_left), cohort.groups)
    if locations is None:
        return None
    everyone = locations.sums['all']
    notes = [*masks.notes, _describe_units(everyone), _describe_sides(masks, run.flip_left)]
    shape = everyone.covered.shape
    if run.flip_left and not is_mirrored(affine, shape):
        raise UsageError(
            f'--flip-left: the grid of {masks.space} is not symmetric about the midline; use '
            'MNI152NLin2009aSym'
        )
    if run.flip_left and 'Asym' in masks.space:
        notes.append(
            'The template is not symmetric: flipped lesions lie a few mm off their homologues'
        )
    tests = list(compare_locations(locations, cohort.groups))
    regions, names = read_regions(masks)
    rows = []
    for group in dict.fromkeys(('all', *cohort.groups)):
        chosen = np.array([group in ('all', one) for one in masks.groups])
        part = {name: values[chosen] for name, values in regions.items()}
        owners = [one for one, kept in zip(masks.participants, chosen, strict=True) if kept]
        rows += [{'group': group} | row for row in region_shares(part, names, owners)]
    rows += summarize_tests(tests)
    pictures = draw_locations(locations, tests, _read_background(masks, shape), affine)
    folder = write_maps(run.output_dir, masks, locations, tests, affine)
    return LocationReport([{'set': 'all'} | row for row in rows], pictures, notes, folder)


def _affected_sides(volumes: Table) -> dict[str, str]:
    """Read the affected side of every series; both if both were asked for."""
    index = volumes.column_indices()
    if not {'series', 'affected_side'} <= index.keys():
        return {}
    sides: dict[str, str] = {}
    for cells in volumes.rows:
        if (side := cells[index['affected_side']]) in ('left', 'right'):
            sides.setdefault(cells[index['series']], side)
    return sides


def _describe_units(everyone: Sums) -> str:
    """Describe that participants count, not their series."""
    units = 'Participants are the units of frequencies, tests and intervals'
    n_repeated = everyone.n_series - everyone.n
    if not n_repeated:
        return units
    return f'{units}: their series are averaged ({everyone.n} participants, {everyone.n_series} series)'


def _describe_sides(masks: Found, flip_left: bool) -> str:
    n_left = masks.sides.count('left')
    if flip_left:
        return f'{n_left} series whose affected side is the left are flipped to the right'
    return f'Sides are as in the patient: the affected side is the left in {n_left} series'


def _read_background(masks: Found, shape: tuple[int, ...]) -> np.ndarray | None:
    """Draw the template under the maps; None if its files are not on this machine."""
    from ctpprep.perfusion.template import Template

    space, resolution = masks.space.removeprefix('space-').split('_')
    try:
        files = find_template(f'{space}:{resolution}')
    except UsageError as error:
        logger.info('the maps have no background: %s', error)
        return None
    drawn = Template(*load_template(files), space).draw()
    return drawn if drawn.shape == shape else None
