# SPDX-License-Identifier: Apache-2.0
"""Lesions of a series: hypoperfusion, core and mismatch by both normalizations, and volumes."""

import copy
from dataclasses import dataclass, field

import numpy as np

from ctpprep.perfusion import segmentation, symmetry, tabulation, uncertainty, volumes

NORMALIZATIONS = ('global', 'local')
NO_NOISE = (
    'no interval: the noise of the curves is not known (maps made elsewhere, a series of few frames, or one '
    'that was not denoised)'
)
NOT_ASKED = 'no interval was asked for'
# labels of the combined segmentation
LESIONS = {
    1: 'core by both normalizations',
    2: 'core by global normalization only, or without a local map',
    3: 'core by local normalization only',
    4: 'hypoperfusion outside of both cores',
}


@dataclass(frozen=True)
class RelativeMaps:
    """Maps and masks from which lesions are segmented.

    Attributes
    ----------
    tmax : (X, Y, Z) array
        s.
    rcbf : dict of str to (X, Y, Z) array
        ``global`` and, unless it is withheld, ``local``; fractions.
    tissue_mask : (X, Y, Z) array of bool
    hemispheres : (X, Y, Z) array
        1 left, 2 right.
    voxel_size_mm : (3,) sequence of float
    measured : dict
        Affected side and reference values of `GlobalNormalization`.
    unassessable : (X, Y, Z) array of bool, optional
        Tissue without a usable homologue; required with a local map.
    """

    tmax: np.ndarray
    rcbf: dict
    tissue_mask: np.ndarray
    hemispheres: np.ndarray
    voxel_size_mm: tuple
    measured: dict
    unassessable: np.ndarray | None = None


@dataclass(frozen=True)
class Lesions:
    """The lesions of a series.

    Attributes
    ----------
    masks : dict of str to (X, Y, Z) array of bool
        ``hypoperfusion``, ``core_global``, ``mismatch_global`` and, with a local map,
        ``core_local`` and ``mismatch_local``.
    labels : (X, Y, Z) array of uint8
        Keys of `LESIONS`; 0 elsewhere.
    cleaning : dict of str to dict
        Volumes removed from each lesion, mL.
    """

    masks: dict
    labels: np.ndarray
    cleaning: dict


@dataclass(frozen=True)
class Uncertainty:
    """Probability of core, and intervals of its volumes.

    Attributes
    ----------
    probability : dict of str to (X, Y, Z) array of float32
        Probability that relative CBF is below the threshold, by normalization; empty if the noise
        of CBF is unknown.
    intervals : dict
        Limits of the core volume by normalization and of ``hypoperfusion``, mL; ``reason`` if there
        are none.
    """

    probability: dict
    intervals: dict = field(default_factory=dict)


class Region:
    """The search region of lesions, and the settings of their cleaning."""

    def __init__(self, maps, settings):
        facts, lesion, method = maps.measured, settings.lesion, settings.segmentation
        self.maps, self.lesion, self.method = maps, lesion, method
        self.size = maps.voxel_size_mm
        self.side = symmetry.AffectedSide(
            facts['affected_side'], facts['tmax_left_s'], facts['tmax_right_s'],
            facts['side_confidence'], facts['side_rule'],
        )  # fmt: skip
        self.hemisphere = 'both' if lesion.affected_side == 'both' else self.side.side
        self.border = segmentation.find_border(maps.tissue_mask, self.size, method.rim_mm)
        tissue = segmentation.within_side(maps.tissue_mask, maps.hemispheres, self.hemisphere)
        self.within = {'global': tissue}
        if 'local' in maps.rcbf:
            self.within['local'] = tissue & ~maps.unassessable
        self.cleaning = {
            'opening_mm': method.opening_mm,
            'closing_mm': method.closing_mm,
            'least_lesion_ml': method.least_lesion_ml,
            'rim_deep_share': method.rim_deep_share,
            'slab_end_ml': method.slab_end_ml,
        }

    def segment_hypoperfusion(self, threshold):
        """Segment tissue with Tmax above a threshold, s."""
        return segmentation.segment_hypoperfusion(
            self.maps.tmax, self.within['global'], self.size, self.border,
            hypoperfusion_tmax=threshold, **self.cleaning,
        )  # fmt: skip

    def segment_cores(self, hypoperfusion):
        """Segment the core by each normalization."""
        return {
            f'core_{which}': self.segment_core(
                relative, self.within[which], self.border, hypoperfusion
            )
            for which, relative in self.maps.rcbf.items()
        }

    def segment_core(self, relative, within, border, hypoperfusion):
        """Segment the core by its threshold."""
        return segmentation.segment_core(
            relative, within, self.size, border, core_rcbf=self.lesion.core_rcbf,
            hypoperfusion=hypoperfusion,
            core_within_hypoperfusion=self.method.core_within_hypoperfusion, **self.cleaning,
        )  # fmt: skip

    def join_cores(self, hypoperfusion, cores):
        """Add the core by all normalizations to the hypoperfusion that it borders on.

        Where there is no homologue to divide by, only the global core is considered.
        """
        if not self.method.core_joins_hypoperfusion:
            return hypoperfusion
        core = cores['global']
        if 'local' in cores:
            core = core & (cores['local'] | ~self.within['local'])
        return segmentation.join_core(hypoperfusion, core)

    def crop(self, box):
        """Return the same region within a box, for repeated segmentation."""
        cropped = copy.copy(self)
        cropped.border = segmentation.Border(self.border.surface[box], self.border.ends[box])
        cropped.within = {which: tissue[box] for which, tissue in self.within.items()}
        return cropped

    def segment(self, candidate, within, of_flow, hypoperfusion):
        """Segment the voxels that pass a threshold of flow or, with holes filled, of Tmax."""
        restrict = of_flow and self.method.core_within_hypoperfusion
        return segmentation.segment(
            candidate, within, self.size, self.border, fill=not of_flow,
            hypoperfusion=hypoperfusion, restrict=restrict, **self.cleaning,
        )  # fmt: skip


def segment_lesions(maps, settings):
    """Segment hypoperfusion, and core and mismatch by both normalizations.

    Each lesion is thresholded, opened, closed and cleaned. Core by all normalizations that borders on
    hypoperfusion is then part of it.

    Parameters
    ----------
    maps : RelativeMaps
    settings : MethodSettings
        Uses the branches ``lesion`` and ``segmentation``.

    Returns
    -------
    Lesions
        Without a local map there are no local masks, and the labels show the global core.

    Notes
    -----
    Rau et al. 2024, doi:10.3174/ajnr.A8111: relative CBF < 30 %, Tmax > 6 s.
    """
    region = Region(maps, settings)
    slow = region.segment_hypoperfusion(settings.lesion.hypoperfusion_tmax)
    cleaned = {'hypoperfusion': slow, **region.segment_cores(slow.mask)}
    masks = {name: lesion.mask for name, lesion in cleaned.items()}
    cores = {which: masks[f'core_{which}'] for which in maps.rcbf}
    masks['hypoperfusion'] = hypoperfusion = region.join_cores(slow.mask, cores)
    for which in maps.rcbf:
        masks[f'mismatch_{which}'] = segmentation.segment_mismatch(
            hypoperfusion, masks[f'core_{which}']
        )
    first = masks['core_global']
    second = masks.get('core_local', np.zeros_like(first))
    labels = np.select([first & second, first, second, hypoperfusion], list(LESIONS), 0)
    cleaning = {
        name: volumes.cleaning_ml(lesion, slow.mask, region.size)
        for name, lesion in cleaned.items()
    }
    return Lesions(masks, labels.astype(np.uint8), cleaning)


def estimate_uncertainty(maps, hypoperfusion, settings, cbf_noise=None):
    """Propagate noise and shared errors to the probability of core and the intervals of volumes.

    Parameters
    ----------
    maps : RelativeMaps
    hypoperfusion : (X, Y, Z) array of bool
    settings : MethodSettings
        Uses the branches ``lesion``, ``segmentation``, ``uncertainty``, ``random`` and
        ``deconvolution``: hypoperfusion has an interval if Tmax is calibrated.
    cbf_noise : (X, Y, Z, K) array, optional
        Samples of the noise of CBF, in the units of CBF. If None, neither probability nor interval
        is computed.

    Returns
    -------
    Uncertainty
    """
    method = settings.uncertainty
    if cbf_noise is None:
        return Uncertainty({}, {'reason': NO_NOISE})
    region = Region(maps, settings)
    intervals = {} if method.noise_draws else {'reason': NOT_ASKED}
    probability = {}
    noise = cbf_noise / np.float32(maps.measured['cbf_reference'])
    for which, relative in maps.rcbf.items():
        divided = uncertainty.scale_noise(noise, maps.rcbf['global'], relative)
        spread = uncertainty.noise_map(divided, maps.tissue_mask, region.size)
        spread = np.hypot(spread, np.float32(method.shared_error))
        below = uncertainty.probability_below(settings.lesion.core_rcbf, relative, spread)
        probability[which] = np.where(region.within[which], below, 0).astype(np.float32)
        if method.noise_draws:
            intervals[which] = _estimate_interval(
                region, which, divided, spread, hypoperfusion, settings
            )
    if method.noise_draws and settings.deconvolution.tmax_calibration:
        intervals['hypoperfusion'] = _hypoperfusion_interval(region, hypoperfusion, settings)
    return Uncertainty(probability, intervals)


def _hypoperfusion_interval(region, hypoperfusion, settings):
    """Segment hypoperfusion at thresholds shifted by the shared error of Tmax.

    The volume itself is in the interval: a lower threshold can also lead to a smaller volume, if a lesion
    merges with a rim.
    """
    threshold = settings.lesion.hypoperfusion_tmax
    reach = uncertainty.HALF_INTERVAL * settings.uncertainty.tmax_error
    cores = {
        which: region.segment_core(
            relative, region.within[which], region.border, hypoperfusion
        ).mask
        for which, relative in region.maps.rcbf.items()
    }
    masks = [hypoperfusion]
    for limit in (threshold + reach, max(threshold - reach, 0.0)):
        masks.append(region.join_cores(region.segment_hypoperfusion(limit).mask, cores))
    measured = [round(volumes.volume_ml(mask, region.size), 4) for mask in masks]
    return [min(measured), max(measured)]


def _estimate_interval(region, which, noise, spread, hypoperfusion, settings):
    """Segment repeatedly with added noise, in a box that contains every possible core."""
    relative, within = region.maps.rcbf[which], region.within[which]
    box = uncertainty.reach(settings.lesion.core_rcbf, relative, spread, within)
    border = segmentation.Border(region.border.surface[box], region.border.ends[box])

    def measure(values):
        lesion = region.segment_core(values, within[box], border, hypoperfusion[box])
        return volumes.volume_ml(lesion.mask, region.size)

    method = settings.uncertainty
    draws = uncertainty.noisy_volumes(
        measure, relative[box], noise[box], method.noise_draws, settings.random.random_seed,
        method.shared_error,
    )  # fmt: skip
    return uncertainty.interval(measure(relative[box]), draws)


def find_hypodense_core(
    reference, tissue_mask, voxel_size_mm, cores, settings, homologue=None, homologue_tissue=None
):
    """Find markedly hypodense tissue in either core, which may be an old infarct.

    Parameters
    ----------
    reference : (X, Y, Z) array
        HU.
    tissue_mask : (X, Y, Z) array of bool
    voxel_size_mm : (3,) sequence of float
    cores : sequence of (X, Y, Z) array of bool
    settings : MethodSettings
        Uses the branch ``hypodensity``.
    homologue, homologue_tissue : (X, Y, Z) arrays, optional
        The mirrored reference, registered to the reference, HU, and the tissue fraction there;
        None if the mirror registration failed.

    Returns
    -------
    (X, Y, Z) array of bool
    """
    method, mirrored = settings.hypodensity, {}
    if homologue is not None and homologue_tissue is not None:
        mirrored = {'homologue_reference': homologue, 'homologue_tissue': homologue_tissue}
    hypodense = segmentation.find_hypodense(
        reference, tissue_mask, voxel_size_mm, **mirrored, hypodense_hu=method.hypodense_hu,
        hypodense_sigma_mm=method.hypodense_sigma_mm,
    )  # fmt: skip
    return hypodense & np.logical_or.reduce(list(cores))


def measure_volumes(
    maps, lesions, settings, rcbv_global=None, tmax_offsets=None, withheld='', hypodense=None,
    intervals=None,
):  # fmt: skip
    """Tabulate the volumes of a series.

    Parameters
    ----------
    maps : RelativeMaps
    lesions : Lesions
        ``masks`` and ``cleaning`` are used.
    settings : MethodSettings
        Uses the branches ``lesion``, ``segmentation``, ``volumes`` and ``deconvolution``.
    rcbv_global : (X, Y, Z) array, optional
        Fraction, for the CBV index.
    tmax_offsets : (Z,) sequence of float or None, optional
        Offset of Tmax in each slice, s; ignored if Tmax was not calibrated.
    withheld : str
        Why there is no local map.
    hypodense : (X, Y, Z) array of bool, optional
    intervals : dict, optional
        From `Uncertainty`.

    Returns
    -------
    list of dict
        Rows with the keys of `tabulation.COLUMNS`.
    """
    region, hypoperfusion = Region(maps, settings), lesions.masks['hypoperfusion']

    def segment(candidate, within, of_flow):
        return region.segment(candidate, within, of_flow, hypoperfusion)

    # a deconvolution of the user subtracts no offset
    known = any(offset is not None for offset in tmax_offsets or ())
    calibrated = settings.deconvolution.tmax_calibration and known
    return tabulation.volume_table(
        lesions.masks, lesions.cleaning, maps.tmax, maps.rcbf, rcbv_global, region.within,
        region.size, region.side, region.hemisphere, core_rcbf=settings.lesion.core_rcbf,
        hypoperfusion_tmax=settings.lesion.hypoperfusion_tmax,
        tmax_thresholds=settings.volumes.tmax_thresholds,
        rcbf_thresholds=settings.volumes.rcbf_thresholds, segment=segment,
        join_cores=region.join_cores, tmax_offsets=tmax_offsets if calibrated else None, withheld=withheld,
        hypodense=hypodense, intervals=intervals or {},
    )  # fmt: skip
