# SPDX-License-Identifier: Apache-2.0
"""Perfusion maps from the corrected series and the AIF: denoise, deconvolve, quantify."""

from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from ctpprep.exceptions import PerfusionError
from ctpprep.perfusion import (
    bayesian,
    bolus,
    brain,
    custom,
    deconvolution,
    denoising,
    grid,
    maps,
    uncertainty,
)

# least tolerance, for curves without noise
LEAST_TOLERANCE_HU = 0.01
# number of samples of the noise of CBF: determines its standard deviation to within a fifth
NOISE_SAMPLES = 12
# with fewer samples the noise is considered unknown
LEAST_NOISE_SAMPLES = 6
# components of the curves in the viewer; denoised curves have fewer
SHOWN_COMPONENTS = 12
# methods of denoising that leave only a few temporal components
REDUCING = ('lowrank', 'similarity')
# curves are cross-validated before the last step of denoising, after which half of the lambda suffices
LAMBDA_SHARE = 0.5
# sigma of the tissue around a voxel whose Tmax is uncertain, mm, and least weight of it
TMAX_REACH_MM, LEAST_TRUST = 4.0, 1e-7
# noise of the time average, in sigma, that is added to the density tolerance
DENSITY_SIGMAS = 2.0


@dataclass(frozen=True)
class TissueCurves:
    """The denoised curves as scores of temporal components.

    Attributes
    ----------
    scores : (V, R) array of float32
        HU.
    centres : (G, T') array of float32
        Mean curve of each sampling pattern over the usable frames, HU.
    components : (G, T', R) array of float32
    times : (G, T') array
        s.
    slice_pattern : (Z,) array of int
    kept : float
        Fraction of the variance that the components explain.
    """

    scores: np.ndarray
    centres: np.ndarray
    components: np.ndarray
    times: np.ndarray
    slice_pattern: np.ndarray
    kept: float


@dataclass(frozen=True)
class Maps:
    """Perfusion maps on the working grid; 0 outside tissue.

    Attributes
    ----------
    cbf : (X, Y, Z) array of float32
        mL/100 g/min.
    cbv : (X, Y, Z) array of float32
        mL/100 g.
    mtt, tmax, ttp : (X, Y, Z) arrays of float32
        s.
    noise : (X, Y, Z) array of float32
        Noise of the denoised curves before contrast, HU.
    tissue_share : (X, Y, Z) array of float32
        Tissue fraction of each voxel, by which CBF and CBV were divided.
    cbf_noise : (X, Y, Z, K) array of float32 or None
        Samples of the noise of CBF, mL/100 g/min; None for a short or undenoised series, or if a
        user function replaces a stage.
    tmax_repeats : (X, Y, Z, 2) array of float32 or None
        Tmax after noise of the kind in the curves was added and subtracted once more, s; None
        where `cbf_noise` is.
    curves : TissueCurves
    measured : dict
        ``lambda_rel``, ``lambda`` (of CBF; None if it was not regularized), ``lambda_tmax``,
        ``tmax_offset_s``, ``tmax_offset_s_by_slice``
        (feet to head; None for slices whose sampling pattern contains no tissue),
        ``cbf_noise_excess`` (median, mL/100 g/min; None if it was not subtracted), ``cbf_noise``
        (median standard deviation, mL/100 g/min), ``core_reading`` (`bayesian.reading_of_core` or that of
        `deconvolution`),
        ``noise_raw_hu``, ``noise_denoised_hu`` and ``n_patterns``.
    """

    cbf: np.ndarray
    cbv: np.ndarray
    mtt: np.ndarray
    tmax: np.ndarray
    ttp: np.ndarray
    noise: np.ndarray
    tissue_share: np.ndarray
    cbf_noise: np.ndarray | None
    tmax_repeats: np.ndarray | None
    curves: TissueCurves = field(repr=False)
    measured: dict = field(repr=False)


def estimate_maps(
    ctp, times, voxel_size_mm, aif_times, aif, tissue_mask, pure_mask, n_baseline, settings,
    weights=None, denoise=None, deconvolve=None, num_threads=1,
):  # fmt: skip
    """Denoise the tissue curves and deconvolve them at their true sample times.

    Parameters
    ----------
    ctp : (X, Y, Z, T) array
        Corrected series, HU; NaN where a voxel is outside the field of view.
    times : (T,) or (Z, T) array
        Acquisition times, s; slices run from feet to head.
    voxel_size_mm : (3,) sequence of float
    aif_times, aif : (M,) arrays
        Times on the same clock, s, and enhancement, HU.
    tissue_mask : (X, Y, Z) array of bool
        Where maps are computed.
    pure_mask : (X, Y, Z) array of bool
        Tissue away from vessels and bone: the source of denoising.
    n_baseline : int
        Number of frames before contrast.
    settings : MethodSettings
        Uses the branches ``denoising``, ``deconvolution`` and ``kinetics``.
    weights : (T,) array, optional
        0 for rejected frames; 1 by default.
    denoise : custom.Denoiser, optional
        User function that replaces the denoising.
    deconvolve : custom.Deconvolver, optional
        User function that replaces Tikhonov regularization.
    num_threads : int
        Threads of the denoising; the result is the same for any number.

    Returns
    -------
    Maps

    Notes
    -----
    Tikhonov regularization (Calamante et al. 2003, doi:10.1002/mrm.10643); quantities as defined by
    Fieselmann et al. 2011, doi:10.1155/2011/467563.
    """
    estimation = _Estimation(
        ctp,
        times,
        voxel_size_mm,
        tissue_mask,
        pure_mask,
        n_baseline,
        settings,
        weights,
        num_threads,
    )
    estimation.aif_times, estimation.aif = np.asarray(aif_times), np.asarray(aif)
    for function in (denoise, deconvolve):
        custom.refuse_unknown(function)
    denoise = custom.resolve(denoise or settings.denoising.denoise)
    deconvolve = custom.resolve(deconvolve or settings.deconvolution.deconvolution_method)
    return estimation.run(denoise, deconvolve)


class _Estimation:
    """The curves of one series, by sampling pattern."""

    def __init__(
        self, ctp, times, voxel_size_mm, tissue, pure, n_baseline, settings, weights, num_threads
    ):  # fmt: skip
        self.tissue, self.pure, self.n_baseline = tissue, pure, n_baseline
        self.denoising, self.method = settings.denoising, settings.deconvolution
        self.kinetics, self.num_threads = settings.kinetics, num_threads
        self.size = np.asarray(voxel_size_mm)
        self.weights = np.ones(ctp.shape[3]) if weights is None else np.asarray(weights)
        self.usable = self.weights > 0
        samples = grid.times_by_slice(times, ctp.shape[2])
        self.times, self.slice_pattern = grid.sampling_patterns(samples)
        self.pattern = np.broadcast_to(self.slice_pattern, tissue.shape)[tissue]
        self.average = np.nan_to_num(bolus.baseline(ctp, ctp.shape[3], self.weights))
        self.raw = np.nan_to_num(bolus.enhancement(ctp, tissue, n_baseline, self.weights))
        self.reduced = self.denoising.denoise in REDUCING

    def run(self, denoiser, deconvolver):
        smooth = denoising.smooth_by_pattern(
            self.raw, self.tissue, self.pure, self.slice_pattern,
            self.denoising.denoise_sigma_mm / self.size,
        )  # fmt: skip
        self.reduced = self.reduced and denoiser is None
        self._find_components(smooth)
        curves, noise = self._denoise(smooth, denoiser)
        undenoised = denoiser is None and self.denoising.denoise == 'none'
        share = self._tissue_share(smooth if undenoised else curves)
        # in undenoised curves the time of the maximum jumps, so its noise is not that of a fixed time
        enough = noise.shape[1] >= LEAST_NOISE_SAMPLES and not undenoised
        known = enough and denoiser is None and deconvolver is None
        if deconvolver is not None:
            values, measured = self._apply_custom(deconvolver, curves, share)
        elif self.method.deconvolution_method == 'bayesian':
            values, measured = self._apply_bayesian(smooth, curves, noise, share, known)
        else:
            values, measured = self._apply_tikhonov(smooth, curves, noise, share, known)
        cbf_noise, repeats = values.pop('cbf_noise', None), None
        if cbf_noise is not None:
            measured['cbf_noise'] = float(np.median(cbf_noise.std(axis=1)))
            repeats = self._repeat_tmax(curves, noise, values | {'cbf_noise': cbf_noise})
        noise_map = self._noise(curves)
        measured |= {
            'noise_raw_hu': float(np.median(self._noise(self.raw))),
            'noise_denoised_hu': float(np.median(noise_map)),
            'n_patterns': len(np.unique(self.pattern)),
        }
        return Maps(
            **{name: self._volume(values[name]) for name in maps.MAPS},
            noise=self._volume(noise_map),
            tissue_share=self._volume(share),
            cbf_noise=None if cbf_noise is None else self._volume(cbf_noise),
            tmax_repeats=None if repeats is None else self._volume(repeats),
            curves=self._reduce(curves),
            measured=measured,
        )

    def _volume(self, values):
        """Return a volume with the values of tissue, (V,) or (V, K); 0 elsewhere."""
        volume = np.zeros((*self.tissue.shape, *values.shape[1:]), dtype=np.float32)
        volume[self.tissue] = values
        return volume

    def _noise(self, curves):
        return denoising.curve_noise(curves, self.weights, self.n_baseline)

    def _groups(self):
        """Yield each sampling pattern of tissue: its index, curves and range of slices."""
        for group in np.unique(self.pattern):
            slices = np.flatnonzero(self.slice_pattern == group)
            yield group, self.pattern == group, np.s_[..., slices[0] : slices[-1] + 1]

    # -- denoising

    def _find_components(self, smooth):
        """Find the temporal components and the noise directions of each sampling pattern."""
        self.centres, self.components, self.directions = {}, {}, {}
        for group, rows, _ in self._groups():
            self.centres[group], components = denoising.temporal_components(
                smooth[rows][:, self.usable], self.denoising.denoise_rank
            )
            self.components[group] = components
            self.directions[group] = denoising.noise_directions(components, NOISE_SAMPLES)

    def _denoise(self, smooth, denoiser):
        """Denoise the curves of each sampling pattern separately; return them and their noise."""
        method = self.denoising
        curves = (self.raw if method.denoise == 'none' else smooth).copy()
        n_samples = min(directions.shape[1] for directions in self.directions.values())
        noise = np.zeros((len(self.raw), n_samples), np.float32)
        for group, rows, part in self._groups():
            directions = self.directions[group][:, :n_samples]
            usable = curves[rows][:, self.usable]
            noise[rows] = (usable - usable.mean(axis=0)) @ directions
            if denoiser is not None:
                curves[rows] = self._apply_denoiser(denoiser, group, rows, part)
            elif method.denoise == 'lowrank':
                curves[rows] = denoising.low_rank(curves[rows], method.denoise_rank, self.weights)
            elif method.denoise == 'similarity':
                curves[rows], noise[rows] = self._average_similar(
                    smooth, group, rows, part, directions
                )
        return curves, noise

    def _apply_denoiser(self, denoiser, group, rows, part):
        """Call the user function; rejected frames keep their original values."""
        within = self.slice_pattern == group
        denoised = self.raw[rows].copy()
        curves = self.raw[rows][:, self.usable]
        result = denoiser(
            curves.copy(), self.times[group][self.usable], (self.tissue & within)[part],
            (self.pure & within)[part], self.size.copy(),
        )  # fmt: skip
        denoised[:, self.usable] = custom.checked('the denoising', result, curves.shape)
        return denoised

    def _average_similar(self, smooth, group, rows, part, directions):
        method, within = self.denoising, self.slice_pattern == group
        # noise of the time average, and of the compared curves
        average_noise = np.median(self._noise(self.raw)) / np.sqrt(np.count_nonzero(self.weights))
        tolerance = method.denoise_curve_tolerance * float(np.median(self._noise(smooth)))
        return denoising.denoise_by_similarity(
            self.raw[rows], smooth[rows], (self.tissue & within)[part],
            (self.pure & within)[part], self.average[part], self.weights,
            method.denoise_reach_mm / self.size, centre=self.centres[group],
            components=self.components[group], tolerance_hu=max(tolerance, LEAST_TOLERANCE_HU),
            density_tolerance_hu=float(
                np.hypot(method.denoise_density_hu, DENSITY_SIGMAS * average_noise)
            ),
            directions=directions, num_threads=self.num_threads,
        )  # fmt: skip

    def _tissue_share(self, curves):
        if not self.method.partial_volume:
            return np.ones(len(curves), dtype=np.float32)
        density = self.average.astype(np.float32)
        density[self.tissue] -= curves[:, self.usable].mean(axis=1)
        return brain.tissue_share(density, self.tissue, self.pure, self.size)[self.tissue]

    def _reduce(self, curves):
        """Express curves as scores of temporal components."""
        rank = self.denoising.denoise_rank if self.reduced else SHOWN_COMPONENTS
        n_usable = np.count_nonzero(self.usable)
        rank = min(rank, n_usable)
        scores = np.zeros((len(curves), rank), np.float32)
        centres = np.zeros((len(self.times), n_usable), np.float32)
        components = np.zeros((*centres.shape, rank), np.float32)
        left = total = 0.0
        for group, rows, _ in self._groups():
            part = curves[rows][:, self.usable]
            centres[group], components[group] = denoising.temporal_components(part, rank)
            centred = part - centres[group]
            scores[rows] = centred @ components[group]
            left += float(((centred - scores[rows] @ components[group].T) ** 2).sum())
            total += float((centred**2).sum())
        return TissueCurves(
            scores, centres, components, self.times[:, self.usable], self.slice_pattern,
            1 - left / total if total else 1.0,
        )  # fmt: skip

    # -- deconvolution

    def _apply_tikhonov(self, smooth, curves, noise, share, known):
        """Deconvolve by Tikhonov regularization; return the maps and the measured values."""
        measured = self._regularize(smooth, of_flow=True)
        corrected = known and self.method.cbf_noise_correction
        excess = self._excess(curves, noise) if corrected else np.zeros(len(curves), np.float32)
        values = self._map_curves(curves, share, excess)
        cbf_time = values.pop('cbf_time')
        if known:
            values['cbf_noise'] = self._flow_noise(noise, cbf_time, share)
            values['tmax'] = self._steady_tmax(values)
        return values, measured | {
            'cbf_noise_excess': float(np.median(self._flow(excess) / share))
            if corrected
            else None,
            'core_reading': self._core_reading(),
        }

    def _regularize(self, smooth, of_flow):
        """Make the operators of Tmax and, on request, of flow; return lambda and the calibration of Tmax."""
        lambda_rel = self.method.lambda_rel or self._choose_lambda(smooth)
        self.tmax_operators = self._make_operators(lambda_rel * self.method.tmax_lambda_ratio)
        self.flow_operators = self._make_operators(lambda_rel) if of_flow else {}
        offsets = {group: one.tmax_offset for group, one in self.tmax_operators.items()}
        return {
            'lambda_rel': float(lambda_rel),
            'lambda': _mean_regularization(self.flow_operators),
            'lambda_tmax': _mean_regularization(self.tmax_operators),
            'tmax_offset_s': float(np.mean(list(offsets.values()))),
            'tmax_offset_s_by_slice': [offsets.get(group) for group in self.slice_pattern],
        }

    def _apply_bayesian(self, smooth, curves, noise, share, known):
        """Estimate flow and volume from a dictionary, and Tmax by Tikhonov regularization."""
        measured = self._regularize(smooth, of_flow=False)
        spread = self._noise(curves)
        if known:
            spread = uncertainty.noise_map(self._volume(noise), self.tissue, self.size)[
                self.tissue
            ]
        flow, gain, volume = (np.zeros(len(curves), dtype=np.float32) for _ in range(3))
        typical = self._typical_volume(curves)
        if not typical > 0:
            raise PerfusionError(
                f'blood volume: most tissue has none ({typical:.3g} of the area of the AIF), need '
                'tissue that takes up contrast; check the brain mask and the AIF'
            )
        readings = []
        for group, rows, _ in self._groups():
            part = curves[rows][:, self.usable]
            peak = float(np.median(part.max(axis=1)))
            error = bayesian.curve_error(spread[rows], peak)
            entries, whitened = self._dictionary(group)
            posterior = bayesian.estimate_flow(part, error, entries, whitened, typical)
            flow[rows], gain[rows] = posterior.flow, posterior.flow_gain
            volume[rows] = posterior.volume
            usual = float(np.median(error))
            readings.append(bayesian.reading_of_core(entries, whitened, usual, typical))
        values = self._quantify_posterior(curves, share, flow, volume)
        if known:
            values['cbf_noise'] = (self._flow(gain) / share)[:, None] * noise
            values['tmax'] = self._steady_tmax(values)
        return values, measured | {
            'cbf_noise_excess': None, 'core_reading': float(np.mean(readings)),
        }  # fmt: skip

    def _typical_volume(self, curves):
        """Return the median volume of tissue, relative to the area of the AIF."""
        area = maps.trapezoid_weights(self.times[0], self.weights)
        return float(np.median(np.maximum(curves @ area, 0))) / self._aif_area()

    def _dictionary(self, group):
        """Return the dictionary of a sampling pattern and the projection that makes noise white."""
        times = self.times[group][self.usable]
        longest = deconvolution.last_seen(self.aif_times, self.aif, times)
        entries = bayesian.make_dictionary(self.aif_times, self.aif, times, longest)
        n_baseline = int(np.count_nonzero(self.usable[: self.n_baseline]))
        return entries, bayesian.whitening(len(times), n_baseline, self._components_kept(group))

    def _quantify_posterior(self, curves, share, flow, volume):
        """Compute the maps from posterior flow and volume, and Tmax by the operators."""
        values = {name: np.zeros(len(curves), np.float32) for name in maps.MAPS}
        for group, rows, _ in self._groups():
            operator = self.tmax_operators[group]
            offset = operator.tmax_offset if self.method.tmax_calibration else 0.0
            tmax = maps.time_of_maximum(curves[rows], operator) - offset
            computed = maps.quantify(
                curves[rows], self.times[group], self.weights, flow[rows], tmax, self._aif_area(),
                share[rows], volume=volume[rows], **self._constants(),
            )  # fmt: skip
            for name in values:
                values[name][rows] = computed[name]
        return values

    def _core_reading(self):
        """Return what a core reads by the operators, averaged over the sampling patterns."""
        return float(
            np.mean(
                [
                    deconvolution.reading_of_core(
                        operator, self.aif_times, self.aif, self.times[group], self.weights,
                        self.method.residue_step, self.method.residue_lead,
                    )
                    for group, operator in self.flow_operators.items()
                ]
            )
        )  # fmt: skip

    def _choose_lambda(self, smooth):
        """Choose lambda by cross-validation on curves whose noise is independent between frames.

        The methods low rank and similarity make the noise dependent. The curves are therefore
        validated before this step, and half of the resulting lambda is used, since the step
        removes more noise.
        """
        validated = self.raw if self.denoising.denoise == 'none' else smooth
        share = LAMBDA_SHARE if self.reduced else 1.0
        scores = sum(
            deconvolution.cross_validate(
                validated[rows], self.aif_times, self.aif, self.times[group], self.weights,
                penalty_order=int(self.method.penalty_order),
                residue_step=self.method.residue_step, residue_lead=self.method.residue_lead,
            )
            for group, rows, _ in self._groups()
        )  # fmt: skip
        return deconvolution.choose_lambda(scores, share)

    def _make_operators(self, lambda_rel):
        """Compute the operator of each sampling pattern."""
        method = self.method
        return {
            group: deconvolution.deconvolution_operator(
                self.aif_times, self.aif, self.times[group], self.weights,
                penalty_order=int(method.penalty_order), lambda_rel=lambda_rel,
                residue_step=method.residue_step, residue_lead=method.residue_lead,
                calibration_mtt=method.calibration_mtt,
            )
            for group, _, _ in self._groups()
        }  # fmt: skip

    def _components_kept(self, group):
        """Return the temporal components that denoising kept; None if it kept all."""
        return self.components[group] if self.reduced else None

    def _excess(self, curves, noise):
        """Estimate the bias of the maximum by noise around each voxel, 1/s."""
        spread = uncertainty.noise_map(self._volume(noise), self.tissue, self.size)[self.tissue]
        excess = np.zeros(len(curves), dtype=np.float32)
        for group, rows, _ in self._groups():
            excess[rows] = uncertainty.peak_excess(
                curves[rows], spread[rows], self.flow_operators[group], self.weights,
                self.n_baseline, self._components_kept(group),
            )  # fmt: skip
        sigma = uncertainty.NOISE_SIGMA_MM / self.size
        return denoising.smooth_within(self._volume(excess), self.tissue, sigma)[self.tissue]

    def _flow(self, heights):
        kinetics = self.kinetics
        return maps.flow(heights, kinetics.hematocrit_factor, kinetics.tissue_density)

    def _flow_noise(self, noise, times, share):
        """Convert samples of the noise of the curves to samples of the noise of CBF."""
        heights = np.zeros_like(noise)
        for group, rows, _ in self._groups():
            heights[rows] = uncertainty.residue_noise(
                times[rows], self.flow_operators[group], noise[rows], self.weights,
                self.n_baseline, self._components_kept(group),
            )  # fmt: skip
        return self._flow(heights) / share[:, None]

    def _map_curves(self, curves, share, excess):
        """Deconvolve each sampling pattern; return the maps and the time of the maximum for CBF."""
        method = self.method
        values = {name: np.zeros(len(curves), np.float32) for name in (*maps.MAPS, 'cbf_time')}
        for group, rows, _ in self._groups():
            operator, tmax_operator = self.flow_operators[group], self.tmax_operators[group]
            computed = maps.perfusion_maps(
                curves[rows], self.times[group], self.weights, operator, tmax_operator,
                self._aif_area(), share[rows],
                tmax_offset=tmax_operator.tmax_offset if method.tmax_calibration else 0.0,
                excess=excess[rows], **self._constants(),
            )  # fmt: skip
            for name in values:
                values[name][rows] = computed[name]
        return values

    def _apply_custom(self, deconvolver, curves, share):
        """Deconvolve by a user function; return the maps and the measured values."""
        values = {name: np.zeros(len(curves), np.float32) for name in maps.MAPS}
        for group, rows, _ in self._groups():
            times = self.times[group]
            part = curves[rows][:, self.usable]
            # copies: the function may write into its arguments
            height, tmax = (
                custom.checked('the deconvolution', values_of, (len(part),))
                for values_of in deconvolver(
                    part.copy(), times[self.usable], self.aif_times.copy(), self.aif.copy()
                )
            )
            computed = maps.quantify(
                curves[rows], times, self.weights, height, tmax,
                self._aif_area(), share[rows], **self._constants(),
            )  # fmt: skip
            for name in values:
                values[name][rows] = computed[name]
        names = (
            'lambda_rel', 'lambda', 'lambda_tmax', 'tmax_offset_s', 'cbf_noise_excess', 'core_reading',
        )  # fmt: skip
        by_slice = {'tmax_offset_s_by_slice': [None] * len(self.slice_pattern)}
        return values, dict.fromkeys(names) | by_slice

    def _repeat_tmax(self, curves, noise, values):
        """Estimate Tmax twice more, with noise of the same kind added and subtracted, (V, 2).

        A sample of the noise in one temporal direction has the variance and the correlation between
        voxels of the noise in any, so that samples in place of scores make curves of noise.
        """
        repeats = np.zeros((len(curves), 2), dtype=np.float32)
        for group, rows, _ in self._groups():
            operator, components = self.tmax_operators[group], self.components[group]
            offset = operator.tmax_offset if self.method.tmax_calibration else 0.0
            rank = min(components.shape[1], noise.shape[1])
            draw = np.zeros(curves[rows].shape, dtype=np.float32)
            draw[:, self.usable] = noise[rows][:, :rank] @ components[:, :rank].T
            for which, sign in enumerate((1, -1)):
                tmax = maps.time_of_maximum(curves[rows] + sign * draw, operator) - offset
                repeats[rows, which] = np.maximum(tmax, 0)
        return np.stack(
            [self._steady_tmax(values | {'tmax': repeats[:, which]}) for which in (0, 1)], axis=1
        )

    def _steady_tmax(self, values):
        """Replace Tmax in part by that of tissue around, the more, the less flow exceeds its noise."""
        if not self.method.tmax_snr:
            return values['tmax']
        spread = self._volume(values['cbf_noise'].std(axis=1))
        sigma = uncertainty.NOISE_SIGMA_MM / self.size
        spread = denoising.smooth_within(spread, self.tissue, sigma)[self.tissue]
        ratio = values['cbf'] / np.maximum(spread, 1e-6)
        share = (ratio / self.method.tmax_snr) ** 2
        # tissue outside an infarct has more flow, but no more information on the time inside
        trust = np.minimum(share, 1)
        weight, weighted = (
            ndimage.gaussian_filter(
                self._volume(part), TMAX_REACH_MM / self.size, mode='constant', truncate=5.0
            )[self.tissue]
            for part in (trust, trust * values['tmax'])
        )
        around = np.divide(weighted, weight, out=values['tmax'].copy(), where=weight > LEAST_TRUST)
        own = share / (1 + share)
        return (own * values['tmax'] + (1 - own) * around).astype(np.float32)

    def _aif_area(self):
        return float(np.trapezoid(self.aif, self.aif_times))

    def _constants(self):
        return {
            'scan_start': float(self.times.min()),
            'hematocrit_factor': self.kinetics.hematocrit_factor,
            'tissue_density': self.kinetics.tissue_density,
        }


def _mean_regularization(operators):
    """Return the mean lambda of the sampling patterns, None without operators."""
    weights = [operator.regularization for operator in operators.values()]
    return float(np.mean(weights)) if weights else None
