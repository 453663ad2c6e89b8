# SPDX-License-Identifier: Apache-2.0
"""Precomputed maps in standard units, with the masks and the image to mirror."""

from dataclasses import dataclass, field

import numpy as np

from ctpprep.exceptions import PerfusionError
from ctpprep.perfusion import brain, coregistration, grid, overrides, precomputed
from ctpprep.perfusion.precomputed import MIRRORED
from ctpprep.perfusion.preprocessing import AIR_HU


@dataclass(frozen=True)
class Image:
    """An image with its grid.

    Attributes
    ----------
    values : (X, Y, Z) array
    affine : (4, 4) array
        Voxel to patient RAS, mm.
    name : str
        Name of its file, for messages.
    """

    values: np.ndarray
    affine: np.ndarray
    name: str = ''


@dataclass
class StandardMaps:
    """Precomputed maps in standard units over tissue, with masks and reference image.

    Attributes
    ----------
    maps : dict of str to (X, Y, Z) array of float32
        ``cbf`` (mL/100 g/min, or a fraction if it is relative), ``cbv`` (mL/100 g), ``mtt``,
        ``tmax``, ``ttp`` (s); 0 outside tissue.
    reference : (X, Y, Z) array
        Image to mirror: a CT (HU), or a perfusion map scaled to its window.
    masks : dict of str to (X, Y, Z) array of bool
        ``brain_mask``, ``tissue_mask`` and, unless the tissue was supplied, ``vessel_mask`` and
        ``csf_mask``.
    measured : dict
        Units, medians, and the sources of masks and reference.
    notes : list of str
        The same as sentences.
    density_used, brain_from_density : bool
        Whether the CT was used, and whether the brain was found in it.
    by_density : bool
        Whether the reference is a CT.
    """

    maps: dict
    reference: np.ndarray
    masks: dict
    measured: dict = field(default_factory=dict)
    notes: list = field(default_factory=list)
    density_used: bool = False
    brain_from_density: bool = False
    by_density: bool = False


def standardize_maps(
    maps, affine, units, settings, density=None, density_kind='', brain_mask=None, tissue_mask=None
):
    """Convert precomputed maps to standard units and find masks and reference image.

    Parameters
    ----------
    maps : dict of str to (X, Y, Z) array
        ``tmax``, ``cbf`` or ``rcbf``, and optionally ``cbv``, ``mtt``, ``ttp``, on one grid.
    affine : (4, 4) array
    units : dict of str to str
        Stated unit of each map; '' if it is not stated.
    settings : MethodSettings
        Uses the branches ``masks``, ``kinetics`` and ``symmetry``.
    density : Image, optional
        Baseline CT or reference image in the same space, HU.
    density_kind : {'', 'ctpref', 'ncct'}
    brain_mask, tissue_mask : overrides.SuppliedMask, optional
        Replace the automatic masks.

    Returns
    -------
    StandardMaps

    Raises
    ------
    PerfusionError
        If a unit is not plausible, a mask is in another space, there is no tissue, or the mirror image
        of the maps fits the CT clearly better.
    """
    work = _Standardization(maps, affine, units, settings)
    return work.run(density, density_kind, brain_mask, tissue_mask)


class _Standardization:
    """The maps of one scan, and the notes about them."""

    def __init__(self, maps, affine, units, settings):
        self.maps = {
            name: np.where(np.isfinite(values), values, np.nan) for name, values in maps.items()
        }
        self.affine, self.size = affine, grid.voxel_size_mm(affine)
        self.units, self.settings = units, settings
        self.flow = self.maps['cbf' if 'cbf' in maps else 'rcbf']
        self.values = precomputed.valued([self.flow, self.maps['tmax']])
        self.notes, self.measured = [], {}
        self.density_used = self.brain_from_density = False

    def run(self, density, kind, supplied_brain, supplied_tissue):
        known = np.isfinite(self.flow) & np.isfinite(self.maps['tmax'])
        density = self._place_density(density, kind)
        masks = {'brain_mask': self._find_brain(density, supplied_brain)}
        if supplied_tissue is not None:
            tissue = self._place_mask(supplied_tissue) & known
            if (
                supplied_brain is not None
            ):  # the user may have reduced it after making the tissue mask
                tissue &= masks['brain_mask']
            masks['brain_mask'] |= tissue
            self._note('tissue mask', 'supplied')
        else:
            masks |= self._find_parts(density, masks['brain_mask'])
            tissue = masks['brain_mask'] & known & self.values
            tissue &= ~masks['vessel_mask'] & ~masks['csf_mask']
        if not tissue.any():
            raise PerfusionError(
                'masks: the tissue mask contains no voxel with values in the maps, need at least one; '
                'check the space of the supplied masks'
            )
        standard = self._convert(tissue)
        reference = self._choose_reference(density, kind, tissue)
        return StandardMaps(
            standard, reference, {'tissue_mask': tissue, **masks}, self.measured, self.notes,
            self.density_used, self.brain_from_density, density is not None,
        )  # fmt: skip

    def _note(self, what, source, sentence=''):
        self.measured[f'{what.replace(" ", "_")}_from'] = source
        self.notes.append(f'{what}: {sentence or source}')

    def _place_mask(self, supplied):
        """Resample a supplied mask to the grid of the maps."""
        mask = overrides.mask_on_grid(
            supplied.voxels, supplied.affine, self.values.shape, self.affine
        )
        precomputed.check_mask(mask, self.values, supplied.name)
        return mask

    def _place_density(self, density, kind):
        """Resample the CT to the grid of the maps; None if it is in another space."""
        if density is None:
            return None
        on_grid = precomputed.on_grid(
            np.nan_to_num(density.values, nan=AIR_HU), density.affine, self.values.shape,
            self.affine, AIR_HU,
        )  # fmt: skip
        share = precomputed.share_inside(on_grid, self.values)
        same_space = share >= precomputed.LEAST_INSIDE
        self._compare_sides(on_grid, density.name, same_space)
        if same_space:
            self.density_used = True
            return on_grid
        lies = (
            f'{density.name}: {share:.0%} of the maps lie on its soft tissue, at least '
            f'{precomputed.LEAST_INSIDE:.0%} are needed'
        )
        if kind == 'ctpref':
            raise PerfusionError(f'{lies}; check that it is in HU and in the space of the maps')
        self.notes.append(f'baseline CT not used: {lies}')
        return None

    def _compare_sides(self, density, name, same_space):
        """Compare the maps and their mirror image with the CT; refuse mirrored ones in its space."""
        likeness = coregistration.compare_maps(
            self.maps.get('cbv', self.flow), density, self.affine, self.settings.masks.bone_hu
        )
        if likeness is None:
            self.notes.append(
                f'{name} shows no outline of the brain that can be compared with maps'
            )
            return
        if same_space:
            self.notes.append(coregistration.check_maps(likeness, name))
        self.measured |= {
            'map_likeness': likeness.own, 'mirrored_map_likeness': likeness.mirrored,
        }  # fmt: skip

    def _find_brain(self, density, supplied):
        if supplied is not None:
            self._note('brain mask', 'supplied')
            return self._place_mask(supplied)
        masks = self.settings.masks
        if density is not None:
            try:
                mask = precomputed.brain_of_ct(
                    density,
                    self.values,
                    self.size,
                    bone_hu=masks.bone_hu,
                    csf_level=masks.csf_level,
                )
                self._note('brain mask', 'baseline CT, as far as the maps reach')
                self.brain_from_density = True
                return mask
            except PerfusionError as error:
                self.notes.append(f'baseline CT shows no brain: {error}')
        mask = precomputed.brain_of_maps(self.values, self.size)
        self._note('brain mask', 'where the maps have values')
        return mask

    def _find_parts(self, density, brain_mask):
        """Find vessels and CSF."""
        masks, maps = self.settings.masks, self.maps
        blood = maps.get('cbv', self.flow)
        vessels = precomputed.vessels_of_maps(blood, brain_mask, masks.vessel_ratio)
        word = 'CBV' if 'cbv' in maps else 'CBF'
        if density is None:
            csf = precomputed.csf_of_maps(self.flow, maps.get('cbv'), brain_mask, self.size)
            rule = 'by hardly any flow'
        else:
            levels = brain.density_levels(density, brain_mask, self.size)
            csf = brain.csf_mask(density, brain_mask, self.size, levels, masks.csf_level)
            rule = 'by density'
        self._note('tissue mask', f'brain without vessels (by {word}) and CSF ({rule})')
        return {'vessel_mask': vessels, 'csf_mask': csf & ~vessels}

    def _convert(self, tissue):
        """Convert every map to its standard unit."""
        standard = {}
        for name, values in self.maps.items():
            converted, facts, note = precomputed.to_standard(
                name, values, tissue, self.units.get(name, ''),
                tissue_density=self.settings.kinetics.tissue_density,
            )  # fmt: skip
            standard['cbf' if name == 'rcbf' else name] = np.where(
                tissue, np.nan_to_num(converted), 0
            ).astype(np.float32)
            self.measured |= facts
            self.notes.append(note)
        if 'mtt' in self.maps:
            medians = self.measured['tmax_median'], self.measured['mtt_median']
            if doubt := precomputed.doubt_of_times(*medians):
                self.notes.append(doubt)
        if 'rcbf' in self.maps:
            self.notes.append(
                'relative CBF: divided again by the median of our own reference tissue'
            )
        return standard

    def _choose_reference(self, density, kind, tissue):
        """Return the image to mirror: the CT, or a perfusion map."""
        if density is not None:
            self._note('reference image', kind, MIRRORED[kind])
            return density
        name = 'cbv' if 'cbv' in self.maps else 'cbf'
        self._note(
            'reference image', name,
            f'for want of a CT, the map of {name.upper()} with its lesions; look at the mirror '
            'figure before using the local maps',
        )  # fmt: skip
        blood = self.maps.get('cbv', self.flow)
        return precomputed.substitute(blood, tissue, self.settings.symmetry.mirror_window_hu)
