# SPDX-License-Identifier: Apache-2.0
"""Mirroring, and global and contralateral normalization of CBF and CBV."""

from nipype.interfaces.base import File, TraitedSpec

from ctpprep.interfaces.base import StageInputSpec, StageInterface
from ctpprep.io import nifti
from ctpprep.perfusion import normalization, symmetry


class _MirrorImageInputSpec(StageInputSpec):
    reference = File(exists=True, mandatory=True, desc='reference image, HU')


class _MirrorImageOutputSpec(TraitedSpec):
    reference_mirror = File(exists=True, desc='reference image flipped left-right on its own grid')


class MirrorImage(StageInterface):
    """Flip the reference image left-right."""

    input_spec = _MirrorImageInputSpec
    output_spec = _MirrorImageOutputSpec

    def _run_interface(self, runtime):
        reference, affine = nifti.load(self.inputs.reference)
        self.save_images(
            runtime, affine, self.inputs.reference, reference_mirror=symmetry.mirror(reference)
        )
        return runtime


class _NormalizeGlobalInputSpec(StageInputSpec):
    cbf = File(exists=True, mandatory=True, desc='mL/100 g/min')
    cbv = File(exists=True, desc='mL/100 g')
    tmax = File(exists=True, mandatory=True, desc='s')
    tissue_mask = File(exists=True, mandatory=True)
    hemispheres = File(exists=True, mandatory=True, desc='1 left, 2 right')


class _NormalizeGlobalOutputSpec(TraitedSpec):
    rcbf_global = File(exists=True, desc='fraction of the reference')
    rcbv_global = File(exists=True, desc='fraction of the reference')
    normalization = File(exists=True, desc='affected side and reference values, json')
    reference_fields = File(exists=True, desc='sidecar fields that name the reference, json')
    global_reference_fields = File(
        exists=True, desc='the same for downstream files, whose own reference may differ, json'
    )


class NormalizeGlobal(StageInterface):
    """Divide CBF and CBV by their medians over normally perfused tissue."""

    input_spec = _NormalizeGlobalInputSpec
    output_spec = _NormalizeGlobalOutputSpec

    def _run_interface(self, runtime):
        cbf, affine = nifti.load(self.inputs.cbf)
        normalized = normalization.normalize_to_reference(
            cbf, self.load('tmax'), self.load_mask('tissue_mask'), self.load('hemispheres'),
            self.method, self.load('cbv'),
        )  # fmt: skip
        images = {f'{name}_global': values for name, values in normalized.relative.items()}
        self.save_images(runtime, affine, self.inputs.cbf, **images)
        reference = normalized.reference
        fields = {'Reference': reference.meaning, 'ReferenceReason': reference.reason}
        fields = {key: text for key, text in fields.items() if text}
        self.save_json(
            runtime, normalization=normalized.measured, reference_fields=fields,
            global_reference_fields={f'Global{key}': text for key, text in fields.items()},
        )  # fmt: skip
        return runtime


class _NormalizeContralateralInputSpec(StageInputSpec):
    relative = File(exists=True, mandatory=True, desc='globally normalized map, fraction')
    mirrored = File(exists=True, desc='the map at the homologues, fraction; absent if withheld')
    homologue_tissue = File(exists=True, desc='tissue fraction at the homologues')
    tissue_mask = File(exists=True, mandatory=True)


class _NormalizeContralateralOutputSpec(TraitedSpec):
    local = File(exists=True, desc='fraction of the smoothed homologue')
    homologue_map = File(exists=True, desc='map at the homologues; 0 where they are not tissue')
    unassessable_mask = File(exists=True, desc='tissue without a usable homologue')


class NormalizeContralateral(StageInterface):
    """Divide a map by its clipped and smoothed contralateral homologue.

    Without a map at the homologues there is no output.
    """

    input_spec = _NormalizeContralateralInputSpec
    output_spec = _NormalizeContralateralOutputSpec

    def _run_interface(self, runtime):
        if not self.inputs.mirrored:
            return runtime
        relative, affine = nifti.load(self.inputs.relative)
        normalized = normalization.normalize_to_homologue(
            relative, self.load('mirrored'), self.load('homologue_tissue'),
            self.load_mask('tissue_mask'), affine, self.method,
        )  # fmt: skip
        self.save_images(
            runtime, affine, self.inputs.relative, local=normalized.local,
            homologue_map=normalized.homologue, unassessable_mask=normalized.unassessable,
        )  # fmt: skip
        return runtime
