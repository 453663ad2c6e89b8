# SPDX-License-Identifier: Apache-2.0
"""Mirroring, and the global and contralateral normalization of CBF and CBV."""

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

from ctpprep.io import nifti
from ctpprep.perfusion import normalization, symmetry


class _MirrorImageInputSpec(BaseInterfaceInputSpec):
    reference = File(exists=True, mandatory=True, desc='reference image, HU')


class _MirrorImageOutputSpec(TraitedSpec):
    reference_mirror = File(exists=True, desc='the same, flipped left-right on its own grid')


class MirrorImage(SimpleInterface):
    """Flip the reference image left-right."""

    input_spec = _MirrorImageInputSpec
    output_spec = _MirrorImageOutputSpec

    def _run_interface(self, runtime):
        reference, affine = nifti.load(self.inputs.reference)
        self._results['reference_mirror'] = nifti.save(
            symmetry.mirror(reference), affine, Path(runtime.cwd) / 'reference_mirror.nii',
            like=self.inputs.reference,
        )  # fmt: skip
        return runtime


class _NormalizeGlobalInputSpec(BaseInterfaceInputSpec):
    cbf = File(exists=True, mandatory=True, desc='mL/100 g/min')
    cbv = File(exists=True, desc='mL/100 g')
    tmax = File(exists=True, mandatory=True, desc='s')
    tissue_mask = File(exists=True, mandatory=True)
    hemispheres = File(exists=True, mandatory=True, desc='1 left, 2 right')
    affected_side = traits.Enum('auto', 'left', 'right', 'both', mandatory=True)
    global_reference = traits.Enum('normal-tmax', 'contralateral', mandatory=True)
    normal_tmax = traits.Float(mandatory=True, desc='s')
    least_normal_share = traits.Float(mandatory=True, desc='fraction')
    hypoperfusion_tmax = traits.Float(mandatory=True, desc='s')


class _NormalizeGlobalOutputSpec(TraitedSpec):
    rcbf_global = File(exists=True, desc='fraction of the reference')
    rcbv_global = File(exists=True, desc='fraction of the reference')
    normalization = File(exists=True, desc='affected side and reference values, json')
    reference_fields = File(exists=True, desc='sidecar fields that name the reference, json')
    global_reference_fields = File(
        exists=True, desc='the same for files further on, whose own reference may be another, json'
    )


class NormalizeGlobal(SimpleInterface):
    """Divide CBF and CBV by their medians over normally perfused tissue."""

    input_spec = _NormalizeGlobalInputSpec
    output_spec = _NormalizeGlobalOutputSpec

    def _run_interface(self, runtime):
        inputs = self.inputs
        tmax, affine = nifti.load(inputs.tmax)
        tissue = nifti.load_mask(inputs.tissue_mask)
        hemispheres = nifti.load(inputs.hemispheres)[0]
        side = symmetry.affected_side(
            tmax, hemispheres, tissue, hypoperfusion_tmax=inputs.hypoperfusion_tmax
        )
        affected = inputs.affected_side if inputs.affected_side in ('left', 'right') else side.side
        chosen = normalization.reference_tissue(
            tmax, hemispheres, tissue, affected, global_reference=inputs.global_reference,
            normal_tmax=inputs.normal_tmax, least_normal_share=inputs.least_normal_share,
        )  # fmt: skip
        facts = {
            'affected_side': affected,
            # a side that the user names has no confidence of ours
            'side_confidence': None if affected == inputs.affected_side else side.confidence,
            'side_rule': 'asked for' if affected == inputs.affected_side else side.rule,
            'tmax_left_s': side.tmax_left,
            'tmax_right_s': side.tmax_right,
            'reference': chosen.rule,
            'reference_tmax_limit_s': chosen.tmax_limit,
            'reference_share': float(chosen.mask.sum() / tissue.sum()),
            'normal_share': chosen.normal_share,
        }
        for name in ('cbf', 'cbv'):
            if not (path := getattr(inputs, name)):
                continue
            values, _ = nifti.load(path)
            relative, facts[f'{name}_reference'] = normalization.normalize_global(
                values, chosen.mask, tissue
            )
            self._results[f'r{name}_global'] = nifti.save(
                relative, affine, Path(runtime.cwd) / f'r{name}_global.nii', like=path
            )
        path = Path(runtime.cwd) / 'normalization.json'
        path.write_text(json.dumps(facts))
        self._results['normalization'] = str(path)
        fields = {'Reference': chosen.meaning}
        if chosen.reason:
            fields['ReferenceReason'] = chosen.reason
        for name, told in (
            ('reference_fields', fields),
            ('global_reference_fields', {f'Global{key}': text for key, text in fields.items()}),
        ):
            path = Path(runtime.cwd) / f'{name}.json'
            path.write_text(json.dumps(told))
            self._results[name] = str(path)
        return runtime


class _NormalizeContralateralInputSpec(BaseInterfaceInputSpec):
    relative = File(exists=True, mandatory=True, desc='globally normalized map, fraction')
    mirrored = File(exists=True, desc='the same at the homologues, fraction; none if withheld')
    homologue_tissue = File(exists=True, desc='share of tissue there')
    tissue_mask = File(exists=True, mandatory=True)
    local_clip = traits.Float(mandatory=True, desc='fraction')
    local_sigma_mm = traits.Tuple(*[traits.Float] * 3, mandatory=True, desc='x, y, z, mm')
    local_floor = traits.Float(mandatory=True, desc='fraction')
    local_least_tissue = traits.Float(mandatory=True, desc='fraction')
    local_least_weight = traits.Float(mandatory=True, desc='fraction')


class _NormalizeContralateralOutputSpec(TraitedSpec):
    local = File(exists=True, desc='fraction of the smoothed homologue')
    homologue_map = File(exists=True, desc='map at the homologues, 0 where they are not tissue')
    unassessable_mask = File(exists=True, desc='tissue without a homologue to divide by')


class NormalizeContralateral(SimpleInterface):
    """Clip, smooth, divide: each voxel relative to its contralateral homologue.

    Gives nothing without a map at the homologues.
    """

    input_spec = _NormalizeContralateralInputSpec
    output_spec = _NormalizeContralateralOutputSpec

    def _run_interface(self, runtime):
        inputs = self.inputs
        if not inputs.mirrored:
            return runtime
        relative, affine = nifti.load(inputs.relative)
        mirrored, _ = nifti.load(inputs.mirrored)
        share, _ = nifti.load(inputs.homologue_tissue)
        # outside tissue the maps are 0: what interpolation mixed in is divided out
        assessable = share > inputs.local_least_tissue
        homologue = np.divide(mirrored, share, out=np.zeros_like(mirrored), where=assessable)
        local, unassessable = normalization.normalize_contralateral(
            relative, homologue, assessable, nifti.load_mask(inputs.tissue_mask), affine,
            clip=inputs.local_clip, sigma_mm=inputs.local_sigma_mm, floor=inputs.local_floor,
            least_weight=inputs.local_least_weight,
        )  # fmt: skip
        for name, array in (
            ('local', local),
            ('homologue_map', homologue),
            ('unassessable_mask', unassessable),
        ):
            self._results[name] = nifti.save(
                array, affine, Path(runtime.cwd) / f'{name}.nii', like=inputs.relative
            )
        return runtime
