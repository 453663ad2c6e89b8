# SPDX-License-Identifier: Apache-2.0
"""Quality control of one series."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    SimpleInterface,
    TraitedSpec,
    traits,
)

from ctpprep.interfaces import _inputs
from ctpprep.io import nifti
from ctpprep.perfusion import quality
from ctpprep.perfusion.symmetry import OTHER_SIDE

# the mirrored reference is air where the homologue lies outside of the slab
OUTSIDE_HU = -500.0


class _AssessQualityInputSpec(BaseInterfaceInputSpec):
    confounds = File(exists=True, desc='motion, tsv')
    curves = File(exists=True, desc='AIF, VOF and tissue, tsv')
    bolus = File(exists=True, desc='arrival and baseline frames, json')
    deconvolution = File(exists=True, desc='noise, json')
    normalization = File(exists=True, mandatory=True, desc='affected side, json')
    symmetry = File(exists=True, mandatory=True, desc='similarity and folding of the mirror, json')
    tmax = File(exists=True, mandatory=True, desc='s')
    tissue_mask = File(exists=True, mandatory=True)
    rcbf_global = File(exists=True, mandatory=True, desc='fraction')
    unassessable_mask = File(exists=True, desc='none if local maps were withheld')
    homologue_reference = File(exists=True, desc='mirrored reference image, brought home, HU')
    hemispheres = File(exists=True, mandatory=True)
    volumes = File(exists=True, mandatory=True, desc='tsv')
    entry = File(exists=True, desc='of maps made elsewhere: which image was mirrored, json')
    hypoperfusion_tmax = traits.Float(mandatory=True, desc='s')
    mirror_least_similarity = traits.Float(mandatory=True, desc='correlation')
    map_least_similarity = traits.Float(desc='correlation, in its stead if a map is mirrored')
    mirror_most_folding = traits.Float(mandatory=True, desc='fraction')


class _AssessQualityOutputSpec(TraitedSpec):
    quality = File(exists=True, desc='one row: figures, grades and sentences, tsv')
    limits = File(exists=True, desc='the checks as they describe its columns in a sidecar, json')


class AssessQuality(SimpleInterface):
    """Measure and grade the quality of a series; figures without an input are n/a."""

    input_spec = _AssessQualityInputSpec
    output_spec = _AssessQualityOutputSpec

    def _run_interface(self, runtime):
        inputs = self.inputs
        by_density = _inputs.is_density(inputs.entry)
        checks = quality.checks_of(
            inputs.mirror_least_similarity if by_density else inputs.map_least_similarity,
            inputs.mirror_most_folding,
        )
        row = quality.grade(self._series_figures() | self._map_figures(), checks)
        path = Path(runtime.cwd) / 'quality.tsv'
        pd.DataFrame([row]).to_csv(path, sep='\t', index=False, na_rep='n/a')
        self._results['quality'] = str(path)
        self._results['limits'] = str(path.with_name('limits.json'))
        limits = {check.name: _describe(check) for check in checks}
        Path(self._results['limits']).write_text(json.dumps(limits))
        return runtime

    def _series_figures(self):
        inputs, figures = self.inputs, {}
        if inputs.confounds:
            table = pd.read_csv(inputs.confounds, sep='\t')
            # where a rejected frame was registered to says nothing
            figures['displacement_max'] = table['displacement'][table['weight'] > 0].max()
            figures['frames_rejected'] = (table['weight'] == 0).mean()
        bolus = _read(inputs.bolus) if inputs.bolus else {}
        if bolus:
            figures['baseline_frames'] = bolus['n_baseline']
            figures['arrival'] = bolus['arrival_s']
        noise = _read(inputs.deconvolution) if inputs.deconvolution else {}
        if noise:
            figures['noise_raw'] = noise['noise_raw_hu']
            figures['noise_denoised'] = noise['noise_denoised_hu']
        if inputs.curves:
            table = pd.read_csv(inputs.curves, sep='\t')
            if {'vof', 'tissue'} <= set(table):
                figures |= quality.curve_figures(
                    *(table[name].to_numpy() for name in ('time', 'aif', 'vof', 'tissue')),
                    noise.get('noise_denoised_hu'),
                    bolus.get('arrival_s'),
                    bolus.get('scan_duration_s'),
                )
        return figures

    def _map_figures(self):
        inputs = self.inputs
        tmax, affine = nifti.load(inputs.tmax)
        tissue = nifti.load_mask(inputs.tissue_mask)
        facts, mirrored = _read(inputs.normalization), _read(inputs.symmetry)
        slices = np.count_nonzero(tissue.any(axis=(0, 1)))
        table = pd.read_csv(inputs.volumes, sep='\t')
        core, hypodense = (
            table[(table['region'] == 'core') & (table['measure'] == measure)].set_index(
                'normalization'
            )['volume_ml']
            for measure in ('volume', 'hypodense')
        )
        hemispheres = nifti.load(inputs.hemispheres)[0]
        figures = quality.core_figures(core['global'], core['local'])
        if inputs.homologue_reference and not mirrored['withheld']:
            homologue, _ = nifti.load(inputs.homologue_reference)
            figures |= quality.asymmetry(tissue, hemispheres, homologue > OUTSIDE_HU)
        diseased = {
            'healthy_side_hypoperfusion': tmax > inputs.hypoperfusion_tmax,
            'healthy_side_low_flow': nifti.load(inputs.rcbf_global)[0] < quality.LOW_FLOW,
        }
        for name, mask in diseased.items():
            figures[name] = quality.healthy_side_share(
                mask, tissue, hemispheres, facts['affected_side']
            )
        return figures | {
            'coverage': slices * nifti.voxel_size_mm(affine)[2],
            'normal_tissue': facts['normal_share'],
            'reference_density': float(_inputs.is_density(inputs.entry)),
            'mirror_similarity': mirrored['mirror_similarity'],
            'mirror_folding': mirrored['mirror_folding'],
            'unassessable': self._unassessable(tissue),
            'side_confidence': facts['side_confidence'],
            'core_hypodense': hypodense.max(),
            'tmax_at_zero': (tmax[tissue] == 0).mean(),
            'healthy_side_tmax': facts[f'tmax_{OTHER_SIDE[facts["affected_side"]]}_s'],
        }

    def _unassessable(self, tissue):
        """Measure the share of tissue without a local value; None if there is no local map."""
        if not self.inputs.unassessable_mask:
            return None
        return nifti.load_mask(self.inputs.unassessable_mask).sum() / tissue.sum()


def _describe(check):
    return {
        'LongName': check.title,
        'Description': check.meaning,
        'Units': check.unit,
        'Warn': check.warn,
        'Fail': check.fail,
        'LowIsBad': check.low_is_bad,
    }


def _read(path):
    return json.loads(Path(path).read_text())
