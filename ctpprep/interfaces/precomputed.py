# SPDX-License-Identifier: Apache-2.0
"""Precomputed perfusion maps, which replace preprocessing and deconvolution."""

from pathlib import Path

from nipype.interfaces.base import File, TraitedSpec, traits

from ctpprep.interfaces.base import ImageInputSpec, StageInterface
from ctpprep.perfusion.precomputed import MIRRORED
from ctpprep.perfusion.standardization import Image, standardize_maps

MAPS = ('cbf', 'rcbf', 'cbv', 'mtt', 'tmax', 'ttp')


class _StandardizeMapsInputSpec(ImageInputSpec):
    tmax = File(exists=True, mandatory=True, desc='Tmax; the grid of all maps')
    cbf = File(exists=True, desc='CBF')
    rcbf = File(exists=True, desc='relative CBF, if there is no CBF')
    cbv = File(exists=True, desc='CBV')
    mtt = File(exists=True, desc='MTT')
    ttp = File(exists=True, desc='TTP')
    units = traits.Dict(
        traits.Str, traits.Str, mandatory=True, desc="by map; '' if not stated in the sidecar"
    )
    density = File(exists=True, desc='baseline CT or reference image in the same space, HU')
    density_kind = traits.Enum('', *MIRRORED, usedefault=True)
    brain_mask = File(exists=True, desc='replaces the automatic mask, on any grid in this space')
    tissue_mask = File(exists=True, desc='replaces the automatic mask, on any grid in this space')


class _StandardizeMapsOutputSpec(TraitedSpec):
    cbf = File(exists=True, desc='mL/100 g/min, or a fraction if CBF is relative')
    cbv = File(exists=True, desc='mL/100 g')
    mtt = File(exists=True, desc='s')
    tmax = File(exists=True, desc='s')
    ttp = File(exists=True, desc='s')
    reference = File(exists=True, desc='image to mirror: HU, or a map scaled to their window')
    brain_mask = File(exists=True)
    tissue_mask = File(exists=True)
    vessel_mask = File(exists=True, desc='only if the tissue was not supplied')
    csf_mask = File(exists=True, desc='only if the tissue was not supplied')
    brain_ct = File(exists=True, desc='the density image, if the brain was found in it')
    baseline_ct = File(exists=True, desc='the density image, if it is mirrored and used for CSF')
    stand_in = File(exists=True, desc='the map that is mirrored if there is no density image')
    entry = File(exists=True, desc='units, and sources of masks and reference, json')
    entry_fields = File(exists=True, desc='sidecar field with the same as sentences, json')
    baseline_fields = File(exists=True, desc='unit of the reference as a sidecar field, json')


class StandardizeMaps(StageInterface):
    """Convert precomputed maps to standard units and find masks and reference image."""

    input_spec = _StandardizeMapsInputSpec
    output_spec = _StandardizeMapsOutputSpec

    def _run_interface(self, runtime):
        inputs = self.inputs
        paths = {name: path for name in MAPS if (path := getattr(inputs, name))}
        maps = {name: self.load_image(path)[0] for name, path in paths.items()}
        _, affine = self.load_image(inputs.tmax)
        standard = standardize_maps(
            maps, affine, dict(inputs.units), self.method, self._load_density(),
            inputs.density_kind, self.load_supplied('brain_mask'),
            self.load_supplied('tissue_mask'),
        )  # fmt: skip
        self.save_images(
            runtime, affine, inputs.tmax, reference=standard.reference, **standard.masks,
            **standard.maps,
        )  # fmt: skip
        self._name_sources(standard)
        self.save_json(
            runtime, entry=standard.measured, entry_fields={'EntryNotes': standard.notes},
            baseline_fields={'Units': 'HU' if standard.by_density else '1'},
        )  # fmt: skip
        return runtime

    def _load_density(self):
        if not self.inputs.density:
            return None
        values, affine = self.load_image(self.inputs.density)
        return Image(values, affine, Path(self.inputs.density).name)

    def _name_sources(self, standard):
        """Set the outputs that name the input images that were used."""
        inputs = self.inputs
        if standard.density_used:
            self._results['baseline_ct'] = inputs.density
        if standard.brain_from_density:
            self._results['brain_ct'] = inputs.density
        if not standard.by_density:
            self._results['stand_in'] = inputs.cbv or inputs.cbf or inputs.rcbf
