# SPDX-License-Identifier: Apache-2.0
"""From the corrected series to the AIF, the VOF and the perfusion maps."""

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

from ctpprep.interfaces import _images
from ctpprep.interfaces.preprocessing import frame_weights
from ctpprep.perfusion import bolus, deconvolution, denoising, grid, maps, vessels

MAPS = ('cbf', 'cbv', 'mtt', 'tmax', 'ttp')


class _FindVesselsInputSpec(BaseInterfaceInputSpec):
    ctp_corrected = File(exists=True, mandatory=True, desc='series in the pose of frame 0, HU')
    sample_times = File(exists=True, mandatory=True, desc='(slices, frames), s, npy')
    confounds = File(exists=True, mandatory=True, desc='holds the weight of each frame, tsv')
    bolus = File(exists=True, mandatory=True, desc='arrival and baseline frames, json')
    intracranial_mask = File(exists=True, mandatory=True, desc='where vessels are looked for')
    tissue_mask = File(exists=True, mandatory=True)
    aif_voxels = traits.Int(mandatory=True)
    aif_scaling = traits.Enum('none', 'vof', mandatory=True)


class _FindVesselsOutputSpec(TraitedSpec):
    curves = File(
        exists=True, desc='time (s), aif, vof, tissue (HU), weight; one row a frame, tsv'
    )
    aif_mask = File(exists=True)
    vof_mask = File(exists=True)


class FindVessels(SimpleInterface):
    """Find the AIF and the VOF."""

    input_spec = _FindVesselsInputSpec
    output_spec = _FindVesselsOutputSpec

    def _run_interface(self, runtime):
        ctp, affine = _images.load(self.inputs.ctp_corrected, dtype=None)
        weights = frame_weights(self.inputs.confounds)
        n_baseline = json.loads(Path(self.inputs.bolus).read_text())['n_baseline']
        candidates = _images.load_mask(self.inputs.intracranial_mask)
        tissue = _images.load_mask(self.inputs.tissue_mask)
        times, pattern = grid.sampling_patterns(np.load(self.inputs.sample_times))
        pattern = np.broadcast_to(pattern, candidates.shape)[candidates]
        good = weights > 0
        curves = _enhancement(ctp, candidates, n_baseline, weights)
        noise = float(np.median(denoising.curve_noise(curves, weights, n_baseline)))
        curves = curves[:, good]
        tissue_curves = curves[tissue[candidates]]
        peak = float(np.median(vessels.smooth_in_time(tissue_curves).max(axis=1)))
        aif = vessels.find_aif(
            curves, times[:, good], pattern, peak, noise, aif_voxels=self.inputs.aif_voxels
        )
        vof = vessels.find_vof(
            curves, times[:, good], pattern, aif, aif_voxels=self.inputs.aif_voxels
        )
        rows = times[pattern[aif.voxels[0]]]
        table = pd.DataFrame({'time': rows})
        # a rejected frame has no curve: the table shows the line that the operator assumes
        table['aif'] = np.interp(rows, aif.times, self._scaled(aif, vof))
        table['vof'] = np.interp(rows, vof.times, vof.curve)
        table['tissue'] = np.interp(rows, rows[good], tissue_curves.mean(axis=0))
        table['weight'] = weights
        self._save(runtime, table, affine, candidates, aif=aif, vof=vof)
        return runtime

    def _scaled(self, aif, vof):
        if self.inputs.aif_scaling == 'none':
            return aif.curve
        areas = [np.trapezoid(each.curve, each.times) for each in (aif, vof)]
        return vessels.scale_to_vof(aif.curve, *areas)

    def _save(self, runtime, table, affine, candidates, **found):
        cwd = Path(runtime.cwd)
        table.to_csv(cwd / 'curves.tsv', sep='\t', index=False, float_format='%.6g')
        self._results['curves'] = str(cwd / 'curves.tsv')
        where = np.argwhere(candidates)
        for name, vessel in found.items():
            mask = np.zeros(candidates.shape, dtype=bool)
            mask[tuple(where[vessel.voxels].T)] = True
            self._results[f'{name}_mask'] = _images.save(
                mask, affine, cwd / f'{name}_mask.nii', like=self.inputs.ctp_corrected
            )


def _enhancement(ctp, mask, n_baseline, weights):
    """Return the curves of a mask above their own baseline, HU."""
    curves = np.asarray(ctp[mask], dtype=np.float32)
    return curves - bolus.baseline(curves, n_baseline, weights)[:, None]


class _DeconvolveInputSpec(BaseInterfaceInputSpec):
    ctp_corrected = File(exists=True, mandatory=True, desc='series in the pose of frame 0, HU')
    sample_times = File(exists=True, mandatory=True, desc='(slices, frames), s, npy')
    confounds = File(exists=True, mandatory=True, desc='holds the weight of each frame, tsv')
    bolus = File(exists=True, mandatory=True, desc='arrival and baseline frames, json')
    tissue_mask = File(exists=True, mandatory=True, desc='where maps are given')
    pure_mask = File(exists=True, mandatory=True, desc='where denoising takes its curves from')
    curves = File(exists=True, mandatory=True, desc='time (s), aif (HU above baseline), tsv')
    denoise = traits.Enum('lowrank', 'smooth', 'none', mandatory=True)
    denoise_sigma_mm = traits.Tuple(*[traits.Float] * 3, mandatory=True, desc='x, y, z, mm')
    denoise_rank = traits.Int(mandatory=True)
    penalty_order = traits.Enum('0', '1', '2', mandatory=True)
    lambda_rel = traits.Float(mandatory=True)
    residue_step = traits.Float(mandatory=True, desc='s')
    residue_lead = traits.Float(mandatory=True, desc='s')
    tmax_calibration = traits.Bool(mandatory=True)
    calibration_mtt = traits.Float(mandatory=True, desc='s')
    hematocrit_factor = traits.Float(mandatory=True)
    tissue_density = traits.Float(mandatory=True, desc='g/mL')


class _DeconvolveOutputSpec(TraitedSpec):
    cbf = File(exists=True, desc='mL/100 g/min')
    cbv = File(exists=True, desc='mL/100 g')
    mtt = File(exists=True, desc='s')
    tmax = File(exists=True, desc='s')
    ttp = File(exists=True, desc='s')
    noise = File(exists=True, desc='noise of the denoised curves, HU')
    deconvolution = File(exists=True, desc='lambda, Tmax offset and noise as measured, json')


class Deconvolve(SimpleInterface):
    """Denoise the tissue curves and deconvolve them on their true sample times.

    Denoising, deconvolution and maps share one node, so that no 4D file lies between them.
    """

    input_spec = _DeconvolveInputSpec
    output_spec = _DeconvolveOutputSpec

    def _run_interface(self, runtime):
        inputs = self.inputs
        ctp, affine = _images.load(inputs.ctp_corrected, dtype=None)
        tissue = _images.load_mask(inputs.tissue_mask)
        weights = frame_weights(inputs.confounds)
        n_baseline = json.loads(Path(inputs.bolus).read_text())['n_baseline']
        raw = _enhancement(ctp, tissue, n_baseline, weights)
        times, pattern = grid.sampling_patterns(np.load(inputs.sample_times))
        curves = self._smooth(raw, tissue, pattern, affine)
        slice_pattern, pattern = pattern, np.broadcast_to(pattern, tissue.shape)[tissue]
        found = {name: np.zeros(len(curves), dtype=np.float32) for name in (*MAPS, 'noise')}
        operators = []
        offsets = [None] * len(slice_pattern)
        for group in np.unique(pattern):
            mine = pattern == group
            if inputs.denoise == 'lowrank':
                curves[mine] = denoising.low_rank(curves[mine], inputs.denoise_rank, weights)
            maps_found, operator = self._maps(curves[mine], times[group], weights)
            operators.append(operator)
            for each in np.flatnonzero(slice_pattern == group):
                offsets[each] = operator.tmax_offset
            for name in MAPS:
                found[name][mine] = maps_found[name]
        found['noise'] = denoising.curve_noise(curves, weights, n_baseline)
        for name, values in found.items():
            volume = np.zeros(tissue.shape, dtype=np.float32)
            volume[tissue] = values
            self._results[name] = _images.save(
                volume, affine, Path(runtime.cwd) / f'{name}.nii', like=inputs.tissue_mask
            )
        facts = {
            'lambda': float(np.mean([each.regularization for each in operators])),
            'tmax_offset_s': float(np.mean([each.tmax_offset for each in operators])),
            # feet to head; slices whose sampling pattern meets no tissue have none
            'tmax_offset_s_by_slice': offsets,
            'noise_raw_hu': float(np.median(denoising.curve_noise(raw, weights, n_baseline))),
            'noise_denoised_hu': float(np.median(found['noise'])),
            'n_patterns': len(operators),
        }
        path = Path(runtime.cwd) / 'deconvolution.json'
        path.write_text(json.dumps(facts))
        self._results['deconvolution'] = str(path)
        return runtime

    def _smooth(self, curves, tissue, pattern, affine):
        """Smooth among slices of one sampling pattern: other slices were seen at other times."""
        if self.inputs.denoise == 'none':
            return curves
        size = _images.voxel_size_mm(affine)
        sigma = np.asarray(self.inputs.denoise_sigma_mm) / size
        pure = _images.load_mask(self.inputs.pure_mask)
        smooth = np.empty_like(curves)
        for group in np.unique(pattern):
            slices = np.flatnonzero(pattern == group)
            mine = tissue & (pattern == group)
            part = np.s_[..., slices[0] : slices[-1] + 1]
            smooth[mine[tissue]] = denoising.smooth_curves(
                curves[mine[tissue]], mine[part], (pure & mine)[part], sigma
            )
        return smooth

    def _maps(self, curves, times, weights):
        inputs = self.inputs
        table = pd.read_csv(inputs.curves, sep='\t')
        if 'weight' in table:
            table = table[table['weight'] > 0]
        aif_times, aif = table['time'].to_numpy(), table['aif'].to_numpy()
        operator = deconvolution.deconvolution_operator(
            aif_times, aif, times, weights, penalty_order=int(inputs.penalty_order),
            lambda_rel=inputs.lambda_rel, residue_step=inputs.residue_step,
            residue_lead=inputs.residue_lead, calibration_mtt=inputs.calibration_mtt,
        )  # fmt: skip
        found = maps.perfusion_maps(
            np.nan_to_num(curves), times, weights, operator, float(np.trapezoid(aif, aif_times)),
            hematocrit_factor=inputs.hematocrit_factor, tissue_density=inputs.tissue_density,
            tmax_offset=operator.tmax_offset if inputs.tmax_calibration else 0.0,
        )  # fmt: skip
        return found, operator
