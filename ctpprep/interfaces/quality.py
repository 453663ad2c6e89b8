# SPDX-License-Identifier: Apache-2.0
"""Quality control of one series."""

import numpy as np
import pandas as pd
from nipype.interfaces.base import File, TraitedSpec, isdefined

from ctpprep.interfaces.base import StageInputSpec, StageInterface, is_density
from ctpprep.interfaces.wording import describe_limits, tabulate_checks
from ctpprep.io import nifti
from ctpprep.perfusion import assessment, quality
from ctpprep.perfusion.estimation import TissueCurves

MAPS = ('tmax', 'cbf', 'cbv', 'mtt', 'ttp', 'rcbf_global', 'rcbf_local')
VESSELS = ('aif_mask', 'vof_mask')
LESIONS = ('core_global', 'core_local', 'hypoperfusion', 'mismatch_global', 'mismatch_local')


class _AssessQualityInputSpec(StageInputSpec):
    confounds = File(exists=True, desc='motion, tsv')
    motion = File(exists=True, desc='drift, json')
    reference = File(exists=True, desc='HU')
    brain_mask = File(exists=True)
    curves = File(exists=True, desc='AIF, VOF and tissue, tsv')
    aif_mask = File(exists=True, desc='voxels of the AIF')
    vof_mask = File(exists=True, desc='voxels of the VOF')
    bolus = File(exists=True, desc='arrival and baseline frames, json')
    deconvolution = File(exists=True, desc='noise, json')
    normalization = File(exists=True, mandatory=True, desc='affected side, json')
    symmetry = File(exists=True, mandatory=True, desc='similarity and folding of the mirror, json')
    tmax = File(exists=True, mandatory=True, desc='s')
    cbf = File(exists=True, desc='mL/100 g/min; absent if only relative CBF is known')
    cbv = File(exists=True, desc='mL/100 g')
    mtt = File(exists=True, desc='s')
    ttp = File(exists=True, desc='s')
    tmax_repeats = File(exists=True, desc='Tmax with noise added and subtracted, s, 4D')
    tissue_curves = File(exists=True, desc='scores of temporal components, HU and s, npz')
    tissue_mask = File(exists=True, mandatory=True)
    rcbf_global = File(exists=True, mandatory=True, desc='fraction')
    rcbf_local = File(exists=True, desc='fraction; absent if it is withheld')
    unassessable_mask = File(exists=True, desc='absent if local maps are withheld')
    homologues = File(exists=True, desc='patient coordinates, mm RAS, 4D')
    homologue_reference = File(exists=True, desc='mirrored reference image, registered, HU')
    homologue_tissue = File(exists=True, desc='tissue fraction at the homologues')
    hemispheres = File(exists=True, mandatory=True)
    core_global = File(exists=True, mandatory=True)
    core_local = File(exists=True)
    hypoperfusion = File(exists=True, mandatory=True)
    mismatch_global = File(exists=True, mandatory=True)
    mismatch_local = File(exists=True)
    hypodense_mask = File(exists=True, desc='hypodense tissue of either core')
    entry = File(exists=True, desc='for precomputed maps: which image was mirrored, json')


class _AssessQualityOutputSpec(TraitedSpec):
    quality = File(exists=True, desc='one row of measures, grades and sentences, tsv')
    limits = File(exists=True, desc='description of its columns for the sidecar, json')


class AssessQuality(StageInterface):
    """Measure and grade the quality of a series; measures without input are n/a."""

    input_spec = _AssessQualityInputSpec
    output_spec = _AssessQualityOutputSpec

    def _run_interface(self, runtime):
        checks = quality.checks_of(self.method.symmetry)
        row = tabulate_checks(assessment.measure(self._collect(), self.method), checks)
        self.save_table(runtime, 'quality', pd.DataFrame([row]))
        self.save_json(runtime, limits=describe_limits(checks))
        return runtime

    def _collect(self):
        """Read what is checked; inputs that are not connected are absent."""
        entry, curves = self.load_json('entry'), self.load_table('curves')
        confounds = self.load_table('confounds')
        _, affine = nifti.load(self.inputs.tmax)
        reference = self.load('reference') if is_density(entry) else None
        return assessment.Findings(
            affine=affine,
            tissue_mask=self.load_mask('tissue_mask'),
            hemispheres=self.load('hemispheres'),
            maps={name: values for name in MAPS if (values := self.load(name)) is not None},
            masks={name: mask for name in LESIONS if (mask := self.load_mask(name)) is not None},
            normalization=self.load_json('normalization'),
            mirror=self.load_json('symmetry'),
            computed=not entry,
            map_likeness=entry.get('map_likeness'),
            reference=reference,
            brain_mask=self.load_mask('brain_mask'),
            homologues=self.load('homologues'),
            homologue_reference=self.load('homologue_reference'),
            homologue_tissue=self.load('homologue_tissue'),
            unassessable=self.load_mask('unassessable_mask'),
            hypodense=self.load_mask('hypodense_mask'),
            confounds={name: confounds[name].to_numpy() for name in confounds},
            bolus=self.load_json('bolus'),
            drift=self.load_json('motion').get('drift') or {},
            deconvolution=self.load_json('deconvolution'),
            curves={name: curves[name].to_numpy() for name in curves},
            vessel_masks=tuple(
                mask for name in VESSELS if (mask := self.load_mask(name)) is not None
            ),
            tmax_repeats=self.load('tmax_repeats'),
            tissue_curves=_load_curves(self.inputs.tissue_curves),
        )


def _load_curves(path):
    """Read the curves of tissue; None without a file."""
    if not isdefined(path):
        return None
    with np.load(path) as stored:
        return TissueCurves(**{name: stored[name] for name in stored.files})
