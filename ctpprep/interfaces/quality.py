# SPDX-License-Identifier: Apache-2.0
"""Quality control of one series."""

import pandas as pd
from nipype.interfaces.base import File, TraitedSpec

from ctpprep.interfaces.base import StageInputSpec, StageInterface, is_density
from ctpprep.interfaces.wording import describe_limits, tabulate_checks
from ctpprep.io import nifti
from ctpprep.perfusion import quality


class _AssessQualityInputSpec(StageInputSpec):
    confounds = File(exists=True, desc='motion, tsv')
    motion = File(exists=True, desc='drift, json')
    reference = File(exists=True, desc='HU')
    brain_mask = File(exists=True)
    curves = File(exists=True, desc='AIF, VOF and tissue, tsv')
    bolus = File(exists=True, desc='arrival and baseline frames, json')
    deconvolution = File(exists=True, desc='noise, json')
    normalization = File(exists=True, mandatory=True, desc='affected side, json')
    symmetry = File(exists=True, mandatory=True, desc='similarity and folding of the mirror, json')
    tmax = File(exists=True, mandatory=True, desc='s')
    tissue_mask = File(exists=True, mandatory=True)
    rcbf_global = File(exists=True, mandatory=True, desc='fraction')
    unassessable_mask = File(exists=True, desc='absent if local maps are withheld')
    homologue_reference = File(exists=True, desc='mirrored reference image, registered, HU')
    hemispheres = File(exists=True, mandatory=True)
    volumes = File(exists=True, mandatory=True, desc='tsv')
    entry = File(exists=True, desc='for precomputed maps: which image was mirrored, json')


class _AssessQualityOutputSpec(TraitedSpec):
    quality = File(exists=True, desc='one row of measures, grades and sentences, tsv')
    limits = File(exists=True, desc='description of its columns for the sidecar, json')


class AssessQuality(StageInterface):
    """Measure and grade the quality of a series; measures without input are n/a."""

    input_spec = _AssessQualityInputSpec
    output_spec = _AssessQualityOutputSpec

    def _run_interface(self, runtime):
        by_density = is_density(self.load_json('entry'))
        checks = quality.checks_of(self.method.symmetry)
        figures = self._series_figures() | self._map_figures() | self._core_figures()
        row = tabulate_checks(figures | {'reference_density': float(by_density)}, checks)
        self.save_table(runtime, 'quality', pd.DataFrame([row]))
        self.save_json(runtime, limits=describe_limits(checks))
        return runtime

    def _series_figures(self):
        figures, confounds, curves = {}, self.load_table('confounds'), self.load_table('curves')
        if not confounds.empty:
            figures |= quality.motion_figures(confounds['displacement'], confounds['weight'])
        figures |= quality.drift_figures(self.load_json('motion').get('drift'))
        bolus, noise = self.load_json('bolus'), self.load_json('deconvolution')
        if bolus:
            figures |= {'baseline_frames': bolus['n_baseline'], 'arrival': bolus['arrival_s']}
        if noise:
            reference = self.load_json('normalization')['cbf_reference']
            figures |= quality.noise_figures(noise, reference)
        if {'vof', 'tissue'} <= set(curves):
            figures |= quality.curve_figures(
                *(curves[name].to_numpy() for name in ('time', 'aif', 'vof', 'tissue')),
                noise.get('noise_denoised_hu'),
                bolus.get('arrival_s'),
                bolus.get('scan_duration_s'),
            )
        return figures

    def _map_figures(self):
        tmax, affine = nifti.load(self.inputs.tmax)
        figures = {}
        if is_density(self.load_json('entry')):
            figures = quality.density_figures(
                self.load('reference'), self.load_mask('brain_mask'), nifti.voxel_size_mm(affine)
            )
        return figures | quality.map_figures(
            tmax, self.load('rcbf_global'), self.load_mask('tissue_mask'),
            self.load('hemispheres'), nifti.voxel_size_mm(affine),
            self.load_json('normalization'), self.load_json('symmetry'), self.method,
            self.load('homologue_reference'), self.load_mask('unassessable_mask'),
        )  # fmt: skip

    def _core_figures(self):
        table = self.load_table('volumes')
        core, hypodense = (
            table[(table['region'] == 'core') & (table['measure'] == measure)].set_index(
                'normalization'
            )['volume_ml']
            for measure in ('volume', 'hypodense')
        )
        figures = quality.core_figures(core['global'], core['local'])
        return figures | {'core_hypodense': hypodense.max()}
