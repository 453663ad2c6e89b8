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

from ctpprep.exceptions import VesselError
from ctpprep.interfaces import _inputs
from ctpprep.interfaces.preprocessing import frame_weights
from ctpprep.io import nifti
from ctpprep.io.curves import read_curves
from ctpprep.perfusion import (
    bolus,
    brain,
    deconvolution,
    denoising,
    grid,
    maps,
    overrides,
    uncertainty,
    vessels,
)

MAPS = ('cbf', 'cbv', 'mtt', 'tmax', 'ttp')
# curves without noise are told apart by no less than this
LEAST_TOLERANCE_HU = 0.01
# samples of the noise of CBF: as many as make its size known to a fifth
NOISE_SAMPLES = 12
# with fewer nothing is told of it
LEAST_NOISE_SAMPLES = 6
# components of curves that are shown; those of denoised curves are fewer
SHOWN_COMPONENTS = 12


class _FindVesselsInputSpec(BaseInterfaceInputSpec):
    ctp_corrected = File(exists=True, mandatory=True, desc='corrected series, HU')
    sample_times = File(exists=True, mandatory=True, desc='(slices, frames), s, npy')
    confounds = File(exists=True, mandatory=True, desc='holds the weight of each frame, tsv')
    bolus = File(exists=True, mandatory=True, desc='arrival and baseline frames, json')
    intracranial_mask = File(exists=True, mandatory=True, desc='where vessels are looked for')
    tissue_mask = File(exists=True, mandatory=True)
    aif_voxels = traits.Int(mandatory=True)
    aif_scaling = traits.Enum('none', 'vof', mandatory=True)
    vessel_smoothing_mm = traits.Tuple(*[traits.Float] * 3, mandatory=True, desc='x, y, z, mm')
    supplied_curves = File(exists=True, desc='time (s), aif and perhaps vof (HU), tsv')
    supplied_aif_mask = File(exists=True, desc='voxels of the AIF, on any grid of the same space')


class _FindVesselsOutputSpec(TraitedSpec):
    curves = File(
        exists=True, desc='time (s), aif, vof, tissue (HU), weight; one row a frame, tsv'
    )
    aif_mask = File(exists=True, desc='empty if the AIF was supplied as a curve')
    vof_mask = File(exists=True, desc='empty if the VOF was supplied, or if there is none')


class FindVessels(SimpleInterface):
    """Find the AIF and the VOF, or take those that a user supplies.

    A supplied AIF does without a VOF: then its column is n/a.
    """

    input_spec = _FindVesselsInputSpec
    output_spec = _FindVesselsOutputSpec

    def _run_interface(self, runtime):
        ctp, affine = nifti.load(self.inputs.ctp_corrected, dtype=None)
        weights = frame_weights(self.inputs.confounds)
        facts = json.loads(Path(self.inputs.bolus).read_text())
        n_baseline = facts['n_baseline']
        candidates = nifti.load_mask(self.inputs.intracranial_mask)
        tissue = nifti.load_mask(self.inputs.tissue_mask)
        samples = np.load(self.inputs.sample_times)
        times, slice_pattern = grid.sampling_patterns(samples)
        pattern = np.broadcast_to(slice_pattern, candidates.shape)[candidates]
        good = weights > 0
        curves = _enhancement(ctp, candidates, n_baseline, weights)
        in_plane, smooth = self._smooth(curves, candidates, slice_pattern, affine)
        noise = float(np.median(denoising.curve_noise(smooth, weights, n_baseline)))
        tissue_curves = smooth[tissue[candidates]][:, good]
        peak = float(np.median(vessels.smooth_in_time(tissue_curves).max(axis=1)))
        search = (in_plane[:, good], smooth[:, good], times[:, good], pattern)
        vof, places = None, {}
        if self.inputs.supplied_curves:
            aif, vof = self._read_curves(samples, facts['arrival_s'])
        elif self.inputs.supplied_aif_mask:
            before = bolus.baseline(ctp, n_baseline, weights)
            mask = _inputs.load_mask_on(
                self.inputs.supplied_aif_mask, before, affine, overrides.voxels_on_grid
            )
            aif, places['aif'] = self._average(
                ctp,
                mask & np.isfinite(before),
                n_baseline,
                weights,
                times,
                slice_pattern,
                (noise, peak),
            )
        else:
            aif = vessels.find_aif(*search, peak, noise, aif_voxels=self.inputs.aif_voxels)
        if vof is None:
            vof = self._find_vof(search, aif)
        aif, vof = (
            vessels.restore_height(each, curves[pattern == pattern[each.voxels[0]]][:, good])
            if each is not None and each.voxels.size
            else each
            for each in (aif, vof)
        )
        if self.inputs.supplied_curves:
            rows, row_weights, tissue_times = aif.times, 1.0, times.mean(axis=0)
        else:
            # a rejected frame has no curve: the table shows the line that the operator assumes
            rows = next(each for each in times if np.array_equal(each[good], aif.times))
            row_weights, tissue_times = weights, rows
        table = pd.DataFrame({'time': rows})
        table['aif'] = np.interp(rows, aif.times, self._scaled(aif, vof))
        table['vof'] = np.nan if vof is None else np.interp(rows, vof.times, vof.curve)
        table['tissue'] = np.interp(rows, tissue_times[good], tissue_curves.mean(axis=0))
        table['weight'] = row_weights
        self._save(runtime, table, affine, candidates, places, aif=aif, vof=vof)
        return runtime

    def _smooth(self, curves, candidates, slice_pattern, affine):
        """Smooth the candidates in plane, and in all directions."""
        sigma = np.asarray(self.inputs.vessel_smoothing_mm) / nifti.voxel_size_mm(affine)
        return [
            _smooth_by_pattern(curves, candidates, candidates, slice_pattern, each)
            for each in (sigma * (1, 1, 0), sigma)
        ]

    def _read_curves(self, samples, arrival):
        """Read a supplied AIF, and the VOF beside it if there is one."""
        path = Path(self.inputs.supplied_curves)
        table = {name: np.array(values) for name, values in read_curves(path).items()}
        frames = samples.mean(axis=0)
        scan = (float(samples.min()), float(samples.max()))
        overrides.check_aif(
            table['time'], table['aif'], float(frames[0]) + arrival, scan,
            float(np.median(np.diff(frames))), path.name,
        )  # fmt: skip
        nowhere = np.array([], dtype=int)
        found = []
        for name in ('aif', 'vof'):
            if name in table:
                cropped, curve = overrides.crop_to_scan(table['time'], table[name], scan)
                found.append(vessels.Vessel(curve, cropped, nowhere))
        return found[0], found[1] if len(found) > 1 else None

    def _average(self, ctp, mask, n_baseline, weights, times, slice_pattern, levels):
        """Average supplied voxels, those of the sampling pattern that holds most of them."""
        counts = np.bincount(slice_pattern, mask.sum(axis=(0, 1)), minlength=len(times))
        group = int(np.argmax(counts))
        mask = mask & (slice_pattern == group)
        curve = np.nanmean(_enhancement(ctp, mask, n_baseline, weights), axis=0)[weights > 0]
        overrides.check_rise(
            curve, *levels, int(mask.sum()), Path(self.inputs.supplied_aif_mask).name
        )  # fmt: skip
        return vessels.Vessel(curve, times[group][weights > 0], np.array([], dtype=int)), mask

    def _find_vof(self, search, aif):
        """Find the VOF; a supplied AIF does without, unless it is to be scaled."""
        try:
            return vessels.find_vof(*search, aif, aif_voxels=self.inputs.aif_voxels)
        except VesselError:
            given = self.inputs.supplied_curves or self.inputs.supplied_aif_mask
            if not given or self.inputs.aif_scaling == 'vof':
                raise
        return None

    def _scaled(self, aif, vof):
        if self.inputs.aif_scaling == 'none':
            return aif.curve
        areas = [np.trapezoid(each.curve, each.times) for each in (aif, vof)]
        return vessels.scale_to_vof(aif.curve, *areas)

    def _save(self, runtime, table, affine, candidates, places, **found):
        cwd = Path(runtime.cwd)
        table.to_csv(cwd / 'curves.tsv', sep='\t', index=False, float_format='%.6g', na_rep='n/a')
        self._results['curves'] = str(cwd / 'curves.tsv')
        where = np.argwhere(candidates)
        for name, vessel in found.items():
            mask = places.get(name, np.zeros(candidates.shape, dtype=bool))
            if vessel is not None and name not in places:
                mask[tuple(where[vessel.voxels].T)] = True
            self._results[f'{name}_mask'] = nifti.save(
                mask, affine, cwd / f'{name}_mask.nii', like=self.inputs.ctp_corrected
            )


def _enhancement(ctp, mask, n_baseline, weights):
    """Return the curves of a mask above their own baseline, HU."""
    curves = np.asarray(ctp[mask], dtype=np.float32)
    return curves - bolus.baseline(curves, n_baseline, weights)[:, None]


def _smooth_by_pattern(curves, mask, source, slice_pattern, sigma_voxels):
    """Smooth among slices of one sampling pattern: other slices were seen at other times."""
    smooth = np.empty_like(curves)
    for group in np.unique(slice_pattern):
        slices = np.flatnonzero(slice_pattern == group)
        mine = mask & (slice_pattern == group)
        part = np.s_[..., slices[0] : slices[-1] + 1]
        smooth[mine[mask]] = denoising.smooth_curves(
            curves[mine[mask]], mine[part], (source & mine)[part], sigma_voxels
        )
    return smooth


class _DeconvolveInputSpec(BaseInterfaceInputSpec):
    ctp_corrected = File(exists=True, mandatory=True, desc='corrected series, HU')
    sample_times = File(exists=True, mandatory=True, desc='(slices, frames), s, npy')
    confounds = File(exists=True, mandatory=True, desc='holds the weight of each frame, tsv')
    bolus = File(exists=True, mandatory=True, desc='arrival and baseline frames, json')
    tissue_mask = File(exists=True, mandatory=True, desc='where maps are given')
    pure_mask = File(exists=True, mandatory=True, desc='where denoising takes its curves from')
    curves = File(exists=True, mandatory=True, desc='time (s), aif (HU above baseline), tsv')
    denoise = traits.Enum('similarity', 'lowrank', 'smooth', 'none', mandatory=True)
    denoise_sigma_mm = traits.Tuple(*[traits.Float] * 3, mandatory=True, desc='x, y, z, mm')
    denoise_rank = traits.Int(mandatory=True)
    denoise_reach_mm = traits.Tuple(*[traits.Float] * 3, mandatory=True, desc='x, y, z, mm')
    denoise_density_hu = traits.Float(mandatory=True, desc='HU')
    denoise_curve_tolerance = traits.Float(mandatory=True, desc='in units of noise')
    penalty_order = traits.Enum('0', '1', '2', mandatory=True)
    lambda_rel = traits.Float(mandatory=True, desc='0: by cross-validation')
    tmax_lambda_ratio = traits.Float(mandatory=True)
    residue_step = traits.Float(mandatory=True, desc='s')
    residue_lead = traits.Float(mandatory=True, desc='s')
    tmax_calibration = traits.Bool(mandatory=True)
    calibration_mtt = traits.Float(mandatory=True, desc='s')
    cbf_noise_correction = traits.Bool(mandatory=True, desc='subtract what noise adds to CBF')
    hematocrit_factor = traits.Float(mandatory=True)
    tissue_density = traits.Float(mandatory=True, desc='g/mL')
    partial_volume = traits.Bool(mandatory=True, desc='divide by the share of tissue')
    num_threads = traits.Int(1, usedefault=True, nohash=True)


class _DeconvolveOutputSpec(TraitedSpec):
    cbf = File(exists=True, desc='mL/100 g/min')
    cbv = File(exists=True, desc='mL/100 g')
    mtt = File(exists=True, desc='s')
    tmax = File(exists=True, desc='s')
    ttp = File(exists=True, desc='s')
    noise = File(exists=True, desc='noise of the denoised curves, HU')
    cbf_noise = File(
        exists=True,
        desc='samples of its noise, mL/100 g/min, 4D; not of a short or undenoised series',
    )
    tissue_share = File(exists=True, desc='share of tissue in each voxel, fraction')
    tissue_curves = File(
        exists=True, desc='denoised curves as scores of temporal components, HU and s, npz'
    )
    deconvolution = File(exists=True, desc='lambda, Tmax offset and noise as measured, json')


class Deconvolve(SimpleInterface):
    """Denoise the tissue curves and deconvolve them on their true sample times.

    Denoising, deconvolution and maps share one node, so that no 4D file lies between them.
    """

    input_spec = _DeconvolveInputSpec
    output_spec = _DeconvolveOutputSpec

    def _run_interface(self, runtime):
        inputs = self.inputs
        ctp, affine = nifti.load(inputs.ctp_corrected, dtype=None)
        self.tissue = nifti.load_mask(inputs.tissue_mask)
        self.pure = nifti.load_mask(inputs.pure_mask)
        self.size = np.asarray(nifti.voxel_size_mm(affine))
        self.weights = frame_weights(inputs.confounds)
        self.n_baseline = json.loads(Path(inputs.bolus).read_text())['n_baseline']
        self.times, self.slice_pattern = grid.sampling_patterns(np.load(inputs.sample_times))
        self.pattern = np.broadcast_to(self.slice_pattern, self.tissue.shape)[self.tissue]
        self.aif_times, self.aif = self._read_aif()
        average = np.nan_to_num(bolus.baseline(ctp, ctp.shape[3], self.weights))
        raw = np.nan_to_num(_enhancement(ctp, self.tissue, self.n_baseline, self.weights))
        smooth = _smooth_by_pattern(
            raw, self.tissue, self.pure, self.slice_pattern, inputs.denoise_sigma_mm / self.size
        )
        self._find_components(smooth)
        curves, noise = self._denoise(raw, smooth, average)
        lambda_rel = inputs.lambda_rel or self._choose_lambda(raw, smooth)
        share = self._tissue_share(average, smooth if inputs.denoise == 'none' else curves)
        self._make_operators(lambda_rel)
        # a maximum over undenoised curves jumps: its noise is not that of one time
        known = noise.shape[1] >= LEAST_NOISE_SAMPLES and inputs.denoise != 'none'
        corrected = known and inputs.cbf_noise_correction
        excess = self._excess(curves, noise) if corrected else np.zeros(len(curves), np.float32)
        found = self._maps(curves, share, excess)
        noise = self._flow_noise(noise, found.pop('cbf_time'), share)
        found |= {'noise': self._noise(curves), 'tissue_share': share}
        if known:
            found['cbf_noise'] = noise
        for name, values in found.items():
            self._results[name] = nifti.save(
                self._volume(values),
                affine,
                Path(runtime.cwd) / f'{name}.nii',
                like=inputs.tissue_mask,
            )
        self._results['tissue_curves'] = self._save_curves(curves, Path(runtime.cwd))
        operators, tmax_operators = zip(*self.operators.values(), strict=True)
        offsets = {group: each.tmax_offset for group, (_, each) in self.operators.items()}
        facts = {
            'lambda_rel': float(lambda_rel),
            'lambda': float(np.mean([each.regularization for each in operators])),
            'lambda_tmax': float(np.mean([each.regularization for each in tmax_operators])),
            'tmax_offset_s': float(np.mean(list(offsets.values()))),
            # feet to head; slices whose sampling pattern meets no tissue have none
            'tmax_offset_s_by_slice': [offsets.get(group) for group in self.slice_pattern],
            # median; none if it was not subtracted
            'cbf_noise_excess': float(np.median(self._flow(excess) / share))
            if corrected
            else None,
            'noise_raw_hu': float(np.median(self._noise(raw))),
            'noise_denoised_hu': float(np.median(found['noise'])),
            'n_patterns': len(operators),
        }
        path = Path(runtime.cwd) / 'deconvolution.json'
        path.write_text(json.dumps(facts))
        self._results['deconvolution'] = str(path)
        return runtime

    def _read_aif(self):
        table = pd.read_csv(self.inputs.curves, sep='\t')
        if 'weight' in table:
            table = table[table['weight'] > 0]
        return table['time'].to_numpy(), table['aif'].to_numpy()

    def _volume(self, values):
        """Put the values of tissue, (V,) or (V, K), where they belong; 0 elsewhere."""
        volume = np.zeros((*self.tissue.shape, *values.shape[1:]), dtype=np.float32)
        volume[self.tissue] = values
        return volume

    def _noise(self, curves):
        return denoising.curve_noise(curves, self.weights, self.n_baseline)

    def _groups(self):
        """Yield each sampling pattern that meets tissue: index, its curves, its slices' range."""
        for group in np.unique(self.pattern):
            slices = np.flatnonzero(self.slice_pattern == group)
            yield group, self.pattern == group, np.s_[..., slices[0] : slices[-1] + 1]

    def _find_components(self, smooth):
        """Find the temporal components of each sampling pattern, and where there is noise alone."""
        good = self.weights > 0
        self.centres, self.components, self.directions = {}, {}, {}
        for group, mine, _ in self._groups():
            self.centres[group], components = denoising.temporal_components(
                smooth[mine][:, good], self.inputs.denoise_rank
            )
            self.components[group] = components
            self.directions[group] = denoising.noise_directions(components, NOISE_SAMPLES)

    def _denoise(self, raw, smooth, average):
        """Denoise the curves of each sampling pattern by itself; return them and their noise."""
        inputs = self.inputs
        curves = (raw if inputs.denoise == 'none' else smooth).copy()
        good = self.weights > 0
        noise = np.zeros(
            (len(raw), min(each.shape[1] for each in self.directions.values())), np.float32
        )
        # noise of the time average, and of the curves that are compared
        average_noise = np.median(self._noise(raw)) / np.sqrt(np.count_nonzero(self.weights))
        density_tolerance = float(np.hypot(inputs.denoise_density_hu, 2 * average_noise))
        tolerance = inputs.denoise_curve_tolerance * float(np.median(self._noise(smooth)))
        tolerance = max(tolerance, LEAST_TOLERANCE_HU)
        for group, mine, part in self._groups():
            directions = self.directions[group][:, : noise.shape[1]]
            noise[mine] = (curves[mine][:, good] - curves[mine][:, good].mean(axis=0)) @ directions
            if inputs.denoise == 'lowrank':
                curves[mine] = denoising.low_rank(curves[mine], inputs.denoise_rank, self.weights)
            elif inputs.denoise == 'similarity':
                within = self.slice_pattern == group
                curves[mine], noise[mine] = denoising.denoise_by_similarity(
                    raw[mine], smooth[mine], (self.tissue & within)[part],
                    (self.pure & within)[part], average[part], self.weights,
                    inputs.denoise_reach_mm / self.size, centre=self.centres[group],
                    components=self.components[group], tolerance_hu=tolerance,
                    density_tolerance_hu=density_tolerance, directions=directions,
                    num_threads=inputs.num_threads,
                )  # fmt: skip
        return curves, noise

    def _save_curves(self, curves, folder):
        """Write the curves that are deconvolved as scores, which is all that denoising leaves."""
        reduced = self.inputs.denoise in ('lowrank', 'similarity')
        rank = self.inputs.denoise_rank if reduced else SHOWN_COMPONENTS
        good = self.weights > 0
        rank = min(rank, np.count_nonzero(good))
        scores = np.zeros((len(curves), rank), np.float32)
        centres = np.zeros((len(self.times), np.count_nonzero(good)), np.float32)
        components = np.zeros((*centres.shape, rank), np.float32)
        left = held = 0.0
        for group, mine, _ in self._groups():
            part = curves[mine][:, good]
            centres[group], components[group] = denoising.temporal_components(part, rank)
            centred = part - centres[group]
            scores[mine] = centred @ components[group]
            left += float(((centred - scores[mine] @ components[group].T) ** 2).sum())
            held += float((centred**2).sum())
        path = folder / 'tissue_curves.npz'
        np.savez(
            path, scores=scores, centres=centres, components=components,
            times=self.times[:, good], slice_pattern=self.slice_pattern,
            kept=1 - left / held if held else 1.0,
        )  # fmt: skip
        return str(path)

    def _tissue_share(self, average, curves):
        if not self.inputs.partial_volume:
            return np.ones(len(curves), dtype=np.float32)
        density = average.astype(np.float32)
        density[self.tissue] -= curves[:, self.weights > 0].mean(axis=1)
        return brain.tissue_share(density, self.tissue, self.pure, self.size)[self.tissue]

    def _choose_lambda(self, raw, smooth):
        """Cross-validate on curves whose noise is independent from frame to frame.

        Low rank and similarity make it dependent; curves before that are validated, and half of
        what they need is taken, since denoising goes on.
        """
        validated = raw if self.inputs.denoise == 'none' else smooth
        share = 0.5 if self.inputs.denoise in ('lowrank', 'similarity') else 1.0
        scores = sum(
            deconvolution.cross_validate(
                validated[mine], self.aif_times, self.aif, self.times[group], self.weights,
                penalty_order=int(self.inputs.penalty_order),
                residue_step=self.inputs.residue_step, residue_lead=self.inputs.residue_lead,
            )
            for group, mine, _ in self._groups()
        )  # fmt: skip
        return deconvolution.choose_lambda(scores, share)

    def _make_operators(self, lambda_rel):
        """Make the operators of each sampling pattern, for CBF and for Tmax."""
        inputs = self.inputs
        self.operators = {
            group: tuple(
                deconvolution.deconvolution_operator(
                    self.aif_times, self.aif, self.times[group], self.weights,
                    penalty_order=int(inputs.penalty_order), lambda_rel=each,
                    residue_step=inputs.residue_step, residue_lead=inputs.residue_lead,
                    calibration_mtt=inputs.calibration_mtt,
                )
                for each in (lambda_rel, lambda_rel * inputs.tmax_lambda_ratio)
            )
            for group, _, _ in self._groups()
        }  # fmt: skip

    def _components_kept(self, group):
        """Return the temporal components that denoising has kept; None if it kept all."""
        reduced = self.inputs.denoise in ('lowrank', 'similarity')
        return self.components[group] if reduced else None

    def _excess(self, curves, noise):
        """Estimate, in each voxel and near by, what noise adds to the maximum that is CBF, 1/s."""
        spread = uncertainty.noise_map(self._volume(noise), self.tissue, self.size)[self.tissue]
        excess = np.zeros(len(curves), dtype=np.float32)
        for group, mine, _ in self._groups():
            excess[mine] = uncertainty.peak_excess(
                curves[mine], spread[mine], self.operators[group][0], self.weights,
                self.n_baseline, self._components_kept(group),
            )  # fmt: skip
        sigma = uncertainty.NOISE_SIGMA_MM / self.size
        return denoising.smooth_within(self._volume(excess), self.tissue, sigma)[self.tissue]

    def _flow(self, heights):
        return maps.flow(heights, self.inputs.hematocrit_factor, self.inputs.tissue_density)

    def _flow_noise(self, noise, times, share):
        """Turn samples of the noise of the curves into samples of the noise of CBF."""
        found = np.zeros_like(noise)
        for group, mine, _ in self._groups():
            found[mine] = uncertainty.residue_noise(
                times[mine], self.operators[group][0], noise[mine], self.weights,
                self.n_baseline, self._components_kept(group),
            )  # fmt: skip
        return self._flow(found) / share[:, None]

    def _maps(self, curves, share, excess):
        """Deconvolve each sampling pattern; return maps and where the maximum lies that is CBF."""
        inputs = self.inputs
        found = {name: np.zeros(len(curves), dtype=np.float32) for name in (*MAPS, 'cbf_time')}
        for group, mine, _ in self._groups():
            operator, tmax_operator = self.operators[group]
            here = maps.perfusion_maps(
                curves[mine], self.times[group], self.weights, operator, tmax_operator,
                float(np.trapezoid(self.aif, self.aif_times)), share[mine],
                scan_start=float(self.times.min()),
                hematocrit_factor=inputs.hematocrit_factor, tissue_density=inputs.tissue_density,
                tmax_offset=tmax_operator.tmax_offset if inputs.tmax_calibration else 0.0,
                excess=excess[mine],
            )  # fmt: skip
            for name in found:
                found[name][mine] = here[name]
        return found
