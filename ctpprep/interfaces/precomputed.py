# SPDX-License-Identifier: Apache-2.0
"""Perfusion maps made elsewhere: what would come out of preprocessing and deconvolution."""

import json
from pathlib import Path

import numpy as np
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    SimpleInterface,
    TraitedSpec,
    traits,
)

from ctpprep.exceptions import PerfusionError
from ctpprep.interfaces.preprocessing import AIR_HU
from ctpprep.io import nifti
from ctpprep.perfusion import brain, overrides, precomputed
from ctpprep.perfusion.precomputed import MIRRORED

MAPS = ('cbf', 'rcbf', 'cbv', 'mtt', 'tmax', 'ttp')


class _TakeMapsInputSpec(BaseInterfaceInputSpec):
    tmax = File(exists=True, mandatory=True, desc='Tmax; its grid is that of all others')
    cbf = File(exists=True, desc='CBF')
    rcbf = File(exists=True, desc='relative CBF, if there is no CBF')
    cbv = File(exists=True, desc='CBV')
    mtt = File(exists=True, desc='MTT')
    ttp = File(exists=True, desc='TTP')
    units = traits.Dict(traits.Str, traits.Str, mandatory=True, desc="by map; '' if not stated")
    density = File(exists=True, desc='baseline CT or reference image in the same space, HU')
    density_kind = traits.Enum('', *MIRRORED, usedefault=True)
    brain_mask = File(exists=True, desc='in place of ours, on any grid of the same space')
    tissue_mask = File(exists=True, desc='in place of ours, on any grid of the same space')
    bone_hu = traits.Float(mandatory=True, desc='HU')
    csf_hu = traits.Float(mandatory=True, desc='HU')
    vessel_ratio = traits.Float(mandatory=True)
    tissue_density = traits.Float(mandatory=True, desc='g/mL')
    mirror_window_hu = traits.Tuple(traits.Float, traits.Float, mandatory=True)


class _TakeMapsOutputSpec(TraitedSpec):
    cbf = File(exists=True, desc='mL/100 g/min, or a fraction if CBF is relative')
    cbv = File(exists=True, desc='mL/100 g')
    mtt = File(exists=True, desc='s')
    tmax = File(exists=True, desc='s')
    ttp = File(exists=True, desc='s')
    reference = File(exists=True, desc='image to mirror: densities, or a map scaled like them')
    brain_mask = File(exists=True)
    tissue_mask = File(exists=True)
    vessel_mask = File(exists=True, desc='only if the tissue was not supplied')
    csf_mask = File(exists=True, desc='only if the tissue was not supplied')
    brain_ct = File(exists=True, desc='the image of densities, if the brain was found in it')
    baseline_ct = File(exists=True, desc='the same, if it was used: it is mirrored, and shows CSF')
    stand_in = File(exists=True, desc='the map that is mirrored in its stead')
    entry = File(exists=True, desc='units, and where masks and reference come from, json')
    entry_fields = File(exists=True, desc='sidecar field with the same in sentences, json')
    baseline_fields = File(exists=True, desc='unit of the reference as a sidecar field, json')


class StandardizeMaps(SimpleInterface):
    """Take perfusion maps as they are, in standard units, over tissue; find what masks they lack."""

    input_spec = _TakeMapsInputSpec
    output_spec = _TakeMapsOutputSpec

    def _run_interface(self, runtime):
        inputs = self.inputs
        self.notes, self.facts = [], {}
        given = {name: path for name in MAPS if (path := getattr(inputs, name))}
        maps = {name: nifti.load(path)[0] for name, path in given.items()}
        maps = {name: np.where(np.isfinite(each), each, np.nan) for name, each in maps.items()}
        self.affine = nifti.load(inputs.tmax)[1]
        self.size = nifti.voxel_size_mm(self.affine)
        flow = maps['cbf' if 'cbf' in maps else 'rcbf']
        values = precomputed.valued([flow, maps['tmax']])
        known = np.isfinite(flow) & np.isfinite(maps['tmax'])
        density = self._density(values)
        masks = {'brain_mask': self._brain(density, values)}
        if inputs.tissue_mask:
            tissue = self._supplied('tissue_mask', values) & known
            if inputs.brain_mask:  # perhaps narrowed since the tissue was found
                tissue &= masks['brain_mask']
            masks['brain_mask'] |= tissue
            self._tell('tissue mask', 'supplied')
        else:
            masks |= self._parts(density, maps, flow, masks['brain_mask'])
            tissue = masks['brain_mask'] & known & values
            tissue &= ~masks['vessel_mask'] & ~masks['csf_mask']
        if not tissue.any():
            raise PerfusionError('masks: no tissue is left where the maps have values')
        standard = {}
        for name, array in maps.items():
            changed, facts, note = precomputed.to_standard(
                name, array, tissue, inputs.units.get(name, ''),
                tissue_density=inputs.tissue_density,
            )  # fmt: skip
            standard['cbf' if name == 'rcbf' else name] = np.where(
                tissue, np.nan_to_num(changed), 0
            ).astype(np.float32)
            self.facts |= facts
            self.notes.append(note)
        if 'mtt' in maps and (
            doubt := precomputed.doubt_of_times(
                self.facts['tmax_median'], self.facts['mtt_median']
            )
        ):
            self.notes.append(doubt)
        if 'rcbf' in maps:
            self.notes.append(
                'relative CBF: divided again by the median of our own reference tissue'
            )
        reference = self._reference(density, maps, flow, tissue)
        self._save(Path(runtime.cwd), reference=reference, tissue_mask=tissue, **masks, **standard)
        return runtime

    def _tell(self, what, source, words=''):
        self.facts[f'{what.replace(" ", "_")}_from'] = source
        self.notes.append(f'{what}: {words or source}')

    def _supplied(self, name, values):
        """Read a supplied mask on the grid of the maps."""
        path = getattr(self.inputs, name)
        mask, affine = nifti.load(path, dtype=None)
        mask = overrides.mask_on_grid(mask > 0, affine, values.shape, self.affine)
        precomputed.check_mask(mask, values, Path(path).name)
        return mask

    def _density(self, values):
        """Read the image of densities on the grid of the maps, unless it lies elsewhere."""
        inputs = self.inputs
        if not inputs.density:
            return None
        density, affine = nifti.load(inputs.density)
        density = precomputed.on_grid(
            np.nan_to_num(density, nan=AIR_HU), affine, values.shape, self.affine, AIR_HU
        )
        share, name = precomputed.share_inside(density, values), Path(inputs.density).name
        if share >= precomputed.LEAST_INSIDE:
            self._results['baseline_ct'] = inputs.density
            return density
        lies = (
            f'{name}: {share:.0%} of the maps lie on its soft tissue, at least '
            f'{precomputed.LEAST_INSIDE:.0%} are needed'
        )
        if inputs.density_kind == 'ctpref':
            raise PerfusionError(f'{lies}; is it in HU and in the space of the maps?')
        self.notes.append(f'baseline CT not used: {lies}')
        return None

    def _brain(self, density, values):
        inputs = self.inputs
        if inputs.brain_mask:
            self._tell('brain mask', 'supplied')
            return self._supplied('brain_mask', values)
        if density is not None:
            try:
                found = precomputed.brain_of_ct(
                    density, values, self.size, bone_hu=inputs.bone_hu, csf_hu=inputs.csf_hu
                )
                self._tell('brain mask', 'baseline CT, as far as the maps reach')
                self._results['brain_ct'] = inputs.density
                return found
            except PerfusionError as error:
                self.notes.append(f'baseline CT shows no brain: {error}')
        found = precomputed.brain_of_maps(values, self.size)
        self._tell('brain mask', 'where the maps have values')
        return found

    def _parts(self, density, maps, flow, brain_mask):
        """Find vessels and CSF."""
        blood = maps.get('cbv', flow)
        vessels = precomputed.vessels_of_maps(blood, brain_mask, self.inputs.vessel_ratio)
        word = 'CBV' if 'cbv' in maps else 'CBF'
        if density is None:
            csf = precomputed.csf_of_maps(flow, maps.get('cbv'), brain_mask, self.size)
            told = 'by hardly any flow'
        else:
            csf = brain.csf_mask(density, brain_mask, self.size, self.inputs.csf_hu)
            told = 'by density'
        self._tell('tissue mask', f'brain without vessels (by {word}) and CSF ({told})')
        return {'vessel_mask': vessels, 'csf_mask': csf & ~vessels}

    def _reference(self, density, maps, flow, tissue):
        """Give the image that is mirrored: densities, or else a map in their stead."""
        if density is not None:
            kind = self.inputs.density_kind
            self._tell('reference image', kind, MIRRORED[kind])
            return density
        name = 'cbv' if 'cbv' in maps else 'cbf'
        self._results['stand_in'] = self.inputs.cbv or self.inputs.cbf or self.inputs.rcbf
        self._tell(
            'reference image', name,
            f'for want of a CT, the map of {name.upper()} with its lesions; look at the mirror '
            'figure before using the local maps',
        )  # fmt: skip
        return precomputed.substitute(maps.get('cbv', flow), tissue, self.inputs.mirror_window_hu)

    def _save(self, cwd, **images):
        for name, array in images.items():
            self._results[name] = nifti.save(
                array, self.affine, cwd / f'{name}.nii', like=self.inputs.tmax
            )
        unit = 'HU' if self.facts['reference_image_from'] in MIRRORED else '1'
        for name, content in (
            ('entry', self.facts),
            ('entry_fields', {'EntryNotes': self.notes}),
            ('baseline_fields', {'Units': unit}),
        ):
            (cwd / f'{name}.json').write_text(json.dumps(content))
            self._results[name] = str(cwd / f'{name}.json')
