# SPDX-License-Identifier: Apache-2.0
"""Core, hypoperfusion, mismatch and their volumes."""

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
from ctpprep.perfusion import segmentation, symmetry, uncertainty, volumes

NORMALIZATIONS = ('global', 'local')
CLEANING = ('opening_mm', 'closing_mm', 'least_lesion_ml', 'rim_deep_share', 'slab_end_ml')
NO_NOISE = (
    'no interval: the noise of CBF is not known (maps made elsewhere, a series of few frames, or one '
    'that was not denoised)'
)
# labels of the combined segmentation
LESIONS = {
    1: 'core by both normalizations',
    2: 'core by global normalization only, or without a local map',
    3: 'core by local normalization only',
    4: 'hypoperfusion outside of both cores',
}


class _LesionInputSpec(BaseInterfaceInputSpec):
    tmax = File(exists=True, mandatory=True, desc='s')
    rcbf_global = File(exists=True, mandatory=True, desc='fraction')
    rcbf_local = File(exists=True, desc='fraction; none if it was withheld')
    tissue_mask = File(exists=True, mandatory=True)
    unassessable_mask = File(exists=True, desc='no homologue to divide by')
    hemispheres = File(exists=True, mandatory=True, desc='1 left, 2 right')
    normalization = File(exists=True, mandatory=True, desc='holds the affected side, json')
    affected_side = traits.Enum('auto', 'left', 'right', 'both', mandatory=True)
    core_rcbf = traits.Float(mandatory=True, desc='fraction')
    hypoperfusion_tmax = traits.Float(mandatory=True, desc='s')
    opening_mm = traits.Float(mandatory=True, desc='mm')
    closing_mm = traits.Float(mandatory=True, desc='mm')
    least_lesion_ml = traits.Float(mandatory=True, desc='mL')
    rim_mm = traits.Float(mandatory=True, desc='mm')
    rim_deep_share = traits.Float(mandatory=True, desc='fraction')
    slab_end_ml = traits.Float(mandatory=True, desc='mL')
    core_within_hypoperfusion = traits.Bool(mandatory=True)


class _Maps:
    """What segmentation and volumes read alike."""

    def __init__(self, inputs):
        self.tmax, self.affine = nifti.load(inputs.tmax)
        self.size = nifti.voxel_size_mm(self.affine)
        self.rcbf = {
            which: nifti.load(path)[0]
            for which in NORMALIZATIONS
            if (path := getattr(inputs, f'rcbf_{which}'))
        }
        facts = json.loads(Path(inputs.normalization).read_text())
        self.side = symmetry.AffectedSide(
            facts['affected_side'], facts['tmax_left_s'], facts['tmax_right_s'],
            facts['side_confidence'], facts['side_rule'],
        )  # fmt: skip
        self.hemisphere = 'both' if inputs.affected_side == 'both' else self.side.side
        self.tissue = nifti.load_mask(inputs.tissue_mask)
        self.border = segmentation.find_border(self.tissue, self.size, inputs.rim_mm)
        tissue = segmentation.within_side(
            self.tissue, nifti.load(inputs.hemispheres)[0], self.hemisphere
        )
        self.within = {'global': tissue}
        if 'local' in self.rcbf:
            self.within['local'] = tissue & ~nifti.load_mask(inputs.unassessable_mask)
        self.cleaning = {name: getattr(inputs, name) for name in CLEANING}


class _SegmentLesionsOutputSpec(TraitedSpec):
    core_global = File(exists=True)
    core_local = File(exists=True)
    hypoperfusion = File(exists=True)
    mismatch_global = File(exists=True)
    mismatch_local = File(exists=True)
    lesions = File(exists=True, desc='labels of `LESIONS`')
    cleaning = File(exists=True, desc='what was removed from each lesion, json')


class SegmentLesions(SimpleInterface):
    """Threshold, open, close, clean: core by both normalizations, hypoperfusion, mismatch.

    Without a local map there are no local masks; the labels are then those of the global core.
    """

    input_spec = _LesionInputSpec
    output_spec = _SegmentLesionsOutputSpec

    def _run_interface(self, runtime):
        maps = _Maps(self.inputs)
        found = {
            'hypoperfusion': segmentation.segment_hypoperfusion(
                maps.tmax, maps.within['global'], maps.size, maps.border,
                hypoperfusion_tmax=self.inputs.hypoperfusion_tmax, **maps.cleaning,
            )
        }  # fmt: skip
        hypoperfusion = found['hypoperfusion'].mask
        for which in maps.rcbf:
            found[f'core_{which}'] = segmentation.segment_core(
                maps.rcbf[which], maps.within[which], maps.size, maps.border,
                core_rcbf=self.inputs.core_rcbf, hypoperfusion=hypoperfusion,
                core_within_hypoperfusion=self.inputs.core_within_hypoperfusion, **maps.cleaning,
            )  # fmt: skip
        masks = {name: lesion.mask for name, lesion in found.items()}
        for which in maps.rcbf:
            masks[f'mismatch_{which}'] = segmentation.segment_mismatch(
                hypoperfusion, masks[f'core_{which}']
            )
        first = masks['core_global']
        second = masks.get('core_local', np.zeros_like(first))
        masks['lesions'] = np.select(
            [first & second, first, second, masks['hypoperfusion']], list(LESIONS), 0
        ).astype(np.uint8)
        for name, mask in masks.items():
            self._results[name] = nifti.save(
                mask, maps.affine, Path(runtime.cwd) / f'{name}.nii', like=self.inputs.tmax
            )
        path = Path(runtime.cwd) / 'cleaning.json'
        facts = {
            name: volumes.cleaning_ml(lesion, hypoperfusion, maps.size)
            for name, lesion in found.items()
        }
        path.write_text(json.dumps(facts))
        self._results['cleaning'] = str(path)
        return runtime


class _FindHypodenseInputSpec(BaseInterfaceInputSpec):
    reference = File(exists=True, desc='HU')
    entry = File(exists=True, desc='of maps made elsewhere: what the reference image is, json')
    homologue_reference = File(exists=True, desc='the mirrored reference warped home, HU')
    homologue_tissue = File(exists=True, desc='share of tissue there; none if withheld')
    tissue_mask = File(exists=True, mandatory=True)
    core_global = File(exists=True, mandatory=True)
    core_local = File(exists=True)
    hypodense_hu = traits.Float(mandatory=True, desc='HU')
    hypodense_sigma_mm = traits.Float(mandatory=True, desc='mm')


class _FindHypodenseOutputSpec(TraitedSpec):
    hypodense_mask = File(exists=True, desc='hypodense tissue of either core')


class FindHypodense(SimpleInterface):
    """Flag what is markedly hypodense in the core; gives nothing without an image of densities."""

    input_spec = _FindHypodenseInputSpec
    output_spec = _FindHypodenseOutputSpec

    def _run_interface(self, runtime):
        inputs = self.inputs
        if not (inputs.reference and _inputs.is_density(inputs.entry)):
            return runtime
        reference, affine = nifti.load(inputs.reference)
        homologue = {}
        if inputs.homologue_reference and inputs.homologue_tissue:
            homologue = {
                name: nifti.load(getattr(inputs, name))[0]
                for name in ('homologue_reference', 'homologue_tissue')
            }
        hypodense = segmentation.find_hypodense(
            reference, nifti.load_mask(inputs.tissue_mask), nifti.voxel_size_mm(affine),
            **homologue, hypodense_hu=inputs.hypodense_hu,
            hypodense_sigma_mm=inputs.hypodense_sigma_mm,
        )  # fmt: skip
        core = nifti.load_mask(inputs.core_global)
        if inputs.core_local:
            core |= nifti.load_mask(inputs.core_local)
        self._results['hypodense_mask'] = nifti.save(
            hypodense & core,
            affine,
            Path(runtime.cwd) / 'hypodense_mask.nii',
            like=inputs.core_global,
        )
        return runtime


class _EstimateUncertaintyInputSpec(_LesionInputSpec):
    cbf_noise = File(exists=True, desc='samples of the noise of CBF, mL/100 g/min, 4D')
    hypoperfusion = File(exists=True, mandatory=True)
    noise_draws = traits.Int(mandatory=True, desc='0 for no interval')
    interval_widening = traits.Float(mandatory=True)
    random_seed = traits.Int(mandatory=True)


class _EstimateUncertaintyOutputSpec(TraitedSpec):
    probability_global = File(exists=True, desc='of global rCBF to lie below the threshold')
    probability_local = File(exists=True, desc='of local rCBF to lie below the threshold')
    intervals = File(exists=True, desc='limits of each core volume in mL, or why none, json')


class EstimateUncertainty(SimpleInterface):
    """Carry the noise of CBF on to the probability of core and to an interval of its volume.

    Without samples of the noise (maps made elsewhere, a short or undenoised series) there is neither.
    """

    input_spec = _EstimateUncertaintyInputSpec
    output_spec = _EstimateUncertaintyOutputSpec

    def _run_interface(self, runtime):
        inputs, maps = self.inputs, _Maps(self.inputs)
        cwd = Path(runtime.cwd)
        intervals = {}
        if not inputs.noise_draws:
            intervals['reason'] = 'no interval was asked for'
        if not inputs.cbf_noise:
            intervals['reason'] = NO_NOISE
        else:
            reference = json.loads(Path(inputs.normalization).read_text())['cbf_reference']
            noise = nifti.load(inputs.cbf_noise)[0] / np.float32(reference)
            for which in maps.rcbf:
                divided = uncertainty.scale_noise(noise, maps.rcbf['global'], maps.rcbf[which])
                spread = uncertainty.noise_map(divided, maps.tissue, maps.size)
                probability = uncertainty.probability_below(
                    inputs.core_rcbf, maps.rcbf[which], spread
                )
                self._results[f'probability_{which}'] = nifti.save(
                    np.where(maps.within[which], probability, 0).astype(np.float32), maps.affine,
                    cwd / f'probability_{which}.nii', like=inputs.rcbf_global,
                )  # fmt: skip
                if inputs.noise_draws:
                    intervals[which] = self._interval(maps, which, divided, spread)
        path = cwd / 'intervals.json'
        path.write_text(json.dumps(intervals))
        self._results['intervals'] = str(path)
        return runtime

    def _interval(self, maps, which, noise, spread):
        """Segment again and again with more noise, in a box that the core cannot leave."""
        inputs, relative, within = self.inputs, maps.rcbf[which], maps.within[which]
        hypoperfusion = nifti.load_mask(inputs.hypoperfusion)
        box = uncertainty.reach(inputs.core_rcbf, relative, spread, within)
        here = within[box]
        border = segmentation.Border(maps.border.surface[box], maps.border.ends[box])

        def measure(values):
            lesion = segmentation.segment_core(
                values, here, maps.size, border, core_rcbf=inputs.core_rcbf,
                hypoperfusion=hypoperfusion[box],
                core_within_hypoperfusion=inputs.core_within_hypoperfusion, **maps.cleaning,
            )  # fmt: skip
            return volumes.volume_ml(lesion.mask, maps.size)

        draws = uncertainty.noisy_volumes(
            measure, relative[box], noise[box], inputs.noise_draws, inputs.random_seed
        )
        return uncertainty.interval(measure(relative[box]), draws, inputs.interval_widening)


class _MeasureVolumesInputSpec(_LesionInputSpec):
    core_global = File(exists=True, mandatory=True)
    core_local = File(exists=True)
    hypoperfusion = File(exists=True, mandatory=True)
    mismatch_global = File(exists=True, mandatory=True)
    mismatch_local = File(exists=True)
    cleaning = File(exists=True, mandatory=True, desc='what was removed from each lesion, json')
    hypodense_mask = File(exists=True, desc='hypodense tissue of either core')
    symmetry = File(exists=True, desc='holds why local maps were withheld, json')
    intervals = File(exists=True, desc='limits of each core volume, mL, json')
    rcbv_global = File(exists=True, desc='fraction')
    deconvolution = File(exists=True, desc='holds the Tmax offset of each slice, json')
    tmax_calibration = traits.Bool(mandatory=True, desc='whether the offset was subtracted')
    tmax_thresholds = traits.List(traits.Float, mandatory=True, desc='s')
    rcbf_thresholds = traits.List(traits.Float, mandatory=True, desc='fractions')


class _MeasureVolumesOutputSpec(TraitedSpec):
    volumes = File(exists=True, desc='tidy table, tsv')


class MeasureVolumes(SimpleInterface):
    """Tabulate the volumes of a series."""

    input_spec = _MeasureVolumesInputSpec
    output_spec = _MeasureVolumesOutputSpec

    def _run_interface(self, runtime):
        inputs, maps = self.inputs, _Maps(self.inputs)
        names = ('core_global', 'core_local', 'hypoperfusion', 'mismatch_global', 'mismatch_local')
        rcbv = nifti.load(inputs.rcbv_global)[0] if inputs.rcbv_global else None
        offsets = None
        if inputs.deconvolution and inputs.tmax_calibration:
            facts = json.loads(Path(inputs.deconvolution).read_text())
            offsets = facts['tmax_offset_s_by_slice']

        withheld = (
            json.loads(Path(inputs.symmetry).read_text())['withheld'] if inputs.symmetry else ''
        )
        masks = {name: nifti.load_mask(path) for name in names if (path := getattr(inputs, name))}

        def segment(candidate, within, of_flow):
            return segmentation.segment(
                candidate, within, maps.size, maps.border, fill=not of_flow,
                hypoperfusion=masks['hypoperfusion'],
                restrict=of_flow and inputs.core_within_hypoperfusion, **maps.cleaning,
            )  # fmt: skip

        rows = volumes.volume_table(
            masks, json.loads(Path(inputs.cleaning).read_text()), maps.tmax, maps.rcbf, rcbv,
            maps.within, maps.size, maps.side, maps.hemisphere, core_rcbf=inputs.core_rcbf,
            hypoperfusion_tmax=inputs.hypoperfusion_tmax, tmax_thresholds=inputs.tmax_thresholds,
            rcbf_thresholds=inputs.rcbf_thresholds, segment=segment, tmax_offsets=offsets,
            withheld=withheld,
            hypodense=nifti.load_mask(inputs.hypodense_mask) if inputs.hypodense_mask else None,
            intervals=json.loads(Path(inputs.intervals).read_text()) if inputs.intervals else {},
        )  # fmt: skip
        path = Path(runtime.cwd) / 'volumes.tsv'
        table = pd.DataFrame(rows, columns=list(volumes.COLUMNS))
        table.to_csv(path, sep='\t', index=False, na_rep='n/a')
        self._results['volumes'] = str(path)
        return runtime
