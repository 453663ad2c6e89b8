# SPDX-License-Identifier: Apache-2.0
"""Core, hypoperfusion, mismatch and their volumes."""

import pandas as pd
from nipype.interfaces.base import File, TraitedSpec

from ctpprep.interfaces.base import StageInputSpec, StageInterface, is_density
from ctpprep.io import nifti
from ctpprep.perfusion import lesions, tabulation
from ctpprep.perfusion.lesions import NORMALIZATIONS

CORES = ('core_global', 'core_local')
MASKS = (*CORES, 'hypoperfusion', 'mismatch_global', 'mismatch_local')


class LesionInputSpec(StageInputSpec):
    """Maps and masks from which lesions are segmented."""

    tmax = File(exists=True, mandatory=True, desc='s')
    rcbf_global = File(exists=True, mandatory=True, desc='fraction')
    rcbf_local = File(exists=True, desc='fraction; absent if it is withheld')
    tissue_mask = File(exists=True, mandatory=True)
    unassessable_mask = File(exists=True, desc='tissue without a usable homologue')
    hemispheres = File(exists=True, mandatory=True, desc='1 left, 2 right')
    normalization = File(exists=True, mandatory=True, desc='contains the affected side, json')


def load_maps(interface):
    """Read the maps and masks from which lesions are segmented."""
    tmax, affine = nifti.load(interface.inputs.tmax)
    rcbf = {which: interface.load(f'rcbf_{which}') for which in NORMALIZATIONS}
    return lesions.RelativeMaps(
        tmax, {which: values for which, values in rcbf.items() if values is not None},
        interface.load_mask('tissue_mask'), interface.load('hemispheres'),
        nifti.voxel_size_mm(affine), interface.load_json('normalization'),
        interface.load_mask('unassessable_mask'),
    ), affine  # fmt: skip


class _SegmentLesionsOutputSpec(TraitedSpec):
    core_global = File(exists=True)
    core_local = File(exists=True)
    hypoperfusion = File(exists=True)
    mismatch_global = File(exists=True)
    mismatch_local = File(exists=True)
    lesions = File(exists=True, desc='labels of `perfusion.lesions.LESIONS`')
    cleaning = File(exists=True, desc='volumes removed from each lesion, json')


class SegmentLesions(StageInterface):
    """Segment hypoperfusion, and core and mismatch by both normalizations.

    Without a local map there are no local masks, and the labels show the global core.
    """

    input_spec = LesionInputSpec
    output_spec = _SegmentLesionsOutputSpec

    def _run_interface(self, runtime):
        maps, affine = load_maps(self)
        segmented = lesions.segment_lesions(maps, self.method)
        self.save_images(
            runtime, affine, self.inputs.tmax, **segmented.masks, lesions=segmented.labels
        )
        self.save_json(runtime, cleaning=segmented.cleaning)
        return runtime


class _FindHypodenseInputSpec(StageInputSpec):
    reference = File(exists=True, desc='HU')
    entry = File(exists=True, desc='for precomputed maps: kind of the reference image, json')
    homologue_reference = File(exists=True, desc='the mirrored reference, registered, HU')
    homologue_tissue = File(
        exists=True, desc='tissue fraction at the homologues; absent if withheld'
    )
    tissue_mask = File(exists=True, mandatory=True)
    core_global = File(exists=True, mandatory=True)
    core_local = File(exists=True)


class _FindHypodenseOutputSpec(TraitedSpec):
    hypodense_mask = File(exists=True, desc='hypodense tissue of either core')


class FindHypodense(StageInterface):
    """Find markedly hypodense tissue in the core; no output if the reference is not in HU."""

    input_spec = _FindHypodenseInputSpec
    output_spec = _FindHypodenseOutputSpec

    def _run_interface(self, runtime):
        reference = self.load('reference')
        if reference is None or not is_density(self.load_json('entry')):
            return runtime
        _, affine = nifti.load(self.inputs.reference)
        cores = [mask for name in CORES if (mask := self.load_mask(name)) is not None]
        hypodense = lesions.find_hypodense_core(
            reference, self.load_mask('tissue_mask'), nifti.voxel_size_mm(affine), cores,
            self.method, self.load('homologue_reference'), self.load('homologue_tissue'),
        )  # fmt: skip
        self.save_images(runtime, affine, self.inputs.core_global, hypodense_mask=hypodense)
        return runtime


class _EstimateUncertaintyInputSpec(LesionInputSpec):
    cbf_noise = File(exists=True, desc='samples of the noise of CBF, mL/100 g/min, 4D')
    hypoperfusion = File(exists=True, mandatory=True)


class _EstimateUncertaintyOutputSpec(TraitedSpec):
    probability_global = File(
        exists=True, desc='probability that global rCBF is below the threshold'
    )
    probability_local = File(
        exists=True, desc='probability that local rCBF is below the threshold'
    )
    intervals = File(
        exists=True, desc='limits of each core volume in mL, or why there are none, json'
    )


class EstimateUncertainty(StageInterface):
    """Propagate the noise of CBF to the probability of core and the interval of its volume.

    Without samples of the noise (precomputed maps, short or undenoised series) there is neither.
    """

    input_spec = _EstimateUncertaintyInputSpec
    output_spec = _EstimateUncertaintyOutputSpec

    def _run_interface(self, runtime):
        maps, affine = load_maps(self)
        estimated = lesions.estimate_uncertainty(
            maps, self.load_mask('hypoperfusion'), self.method, self.load('cbf_noise')
        )
        images = {
            f'probability_{which}': values for which, values in estimated.probability.items()
        }
        self.save_images(runtime, affine, self.inputs.rcbf_global, **images)
        self.save_json(runtime, intervals=estimated.intervals)
        return runtime


class _MeasureVolumesInputSpec(LesionInputSpec):
    core_global = File(exists=True, mandatory=True)
    core_local = File(exists=True)
    hypoperfusion = File(exists=True, mandatory=True)
    mismatch_global = File(exists=True, mandatory=True)
    mismatch_local = File(exists=True)
    cleaning = File(exists=True, mandatory=True, desc='volumes removed from each lesion, json')
    hypodense_mask = File(exists=True, desc='hypodense tissue of either core')
    symmetry = File(exists=True, desc='contains why local maps were withheld, json')
    intervals = File(exists=True, desc='limits of each core volume, mL, json')
    rcbv_global = File(exists=True, desc='fraction')
    deconvolution = File(exists=True, desc='contains the Tmax offset of each slice, json')


class _MeasureVolumesOutputSpec(TraitedSpec):
    volumes = File(exists=True, desc='tidy table, tsv')


class MeasureVolumes(StageInterface):
    """Tabulate the volumes of a series."""

    input_spec = _MeasureVolumesInputSpec
    output_spec = _MeasureVolumesOutputSpec

    def _run_interface(self, runtime):
        maps, _ = load_maps(self)
        masks = {name: mask for name in MASKS if (mask := self.load_mask(name)) is not None}
        rows = lesions.measure_volumes(
            maps, lesions.Lesions(masks, None, self.load_json('cleaning')), self.method,
            rcbv_global=self.load('rcbv_global'),
            tmax_offsets=self.load_json('deconvolution').get('tmax_offset_s_by_slice'),
            withheld=self.load_json('symmetry').get('withheld', ''),
            hypodense=self.load_mask('hypodense_mask'), intervals=self.load_json('intervals'),
        )  # fmt: skip
        self.save_table(runtime, 'volumes', pd.DataFrame(rows, columns=list(tabulation.COLUMNS)))
        return runtime
