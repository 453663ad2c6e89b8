# SPDX-License-Identifier: Apache-2.0
"""Assess one result: collect what can be checked, measure it, grade it.

`assess` does so for a `chain.Result`; the interface of the app fills `Findings` from files.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ctpprep.perfusion import grid, invariants, lesions, quality, segmentation, symmetry, volumes
from ctpprep.perfusion.estimation import TissueCurves
from ctpprep.perfusion.lesions import NORMALIZATIONS

CURVES = ('time', 'aif', 'vof', 'tissue')
# hypoperfusion smaller than this is not compared between repeats, mL
LEAST_HYPOPERFUSION_ML = 10.0


@dataclass(frozen=True)
class Findings:
    """All of one result that is checked; what a series lacks is None or absent.

    Attributes
    ----------
    affine : (4, 4) array
        Voxel to patient RAS, mm.
    tissue_mask : (X, Y, Z) array of bool
    hemispheres : (X, Y, Z) array
        1 left, 2 right.
    maps : dict of str to (X, Y, Z) array
        ``tmax``, ``rcbf_global`` and optionally ``rcbf_local`` and ``ttp``; ``cbf``, ``cbv`` and
        ``mtt`` if they are absolute.
    masks : dict of str to (X, Y, Z) array of bool
        Lesions, as in `lesions.Lesions`.
    normalization, mirror : dict
        ``measured`` of `GlobalNormalization` and of `MirrorRegistration`.
    computed : bool
        Whether the maps were computed from a series; precomputed maps may be smoothed.
    map_likeness : float or None
        Correlation of precomputed maps with the CT beside them, as in `coregistration.MapLikeness`.
    reference, brain_mask : (X, Y, Z) arrays or None
        HU; None if a perfusion map is mirrored in its place.
    homologues, homologue_reference, homologue_tissue, unassessable : arrays or None
        As in `homologues.Attempt`, `homologues.Homologues` and `LocalNormalization`.
    hypodense : (X, Y, Z) array of bool or None
        Hypodense tissue of the core.
    confounds, bolus, drift, deconvolution : dict
        Columns of motion; ``n_baseline``, ``arrival_s``,
        ``scan_duration_s``, ``hyperdense_ml``, ``metal_ml`` and
        ``mask_protrusion``; attributes of
        `drift.Drift`; ``measured`` of `estimation.Maps`.
    curves : dict of str to (T,) array
        ``time``, ``aif``, ``vof``, ``tissue`` and ``weight``; ``aif_automatic`` beside a supplied AIF.
    vessel_masks : sequence of (X, Y, Z) array of bool
        Voxels of AIF and VOF.
    tmax_repeats : (X, Y, Z, 2) array or None
    tissue_curves : estimation.TissueCurves or None
        As in `estimation.Maps`.
    """

    affine: np.ndarray
    tissue_mask: np.ndarray
    hemispheres: np.ndarray
    maps: dict
    masks: dict
    normalization: dict
    mirror: dict
    computed: bool = True
    map_likeness: float | None = None
    reference: np.ndarray | None = None
    brain_mask: np.ndarray | None = None
    homologues: np.ndarray | None = None
    homologue_reference: np.ndarray | None = None
    homologue_tissue: np.ndarray | None = None
    unassessable: np.ndarray | None = None
    hypodense: np.ndarray | None = None
    confounds: dict = field(default_factory=dict)
    bolus: dict = field(default_factory=dict)
    drift: dict = field(default_factory=dict)
    deconvolution: dict = field(default_factory=dict)
    curves: dict = field(default_factory=dict)
    vessel_masks: tuple = ()
    tmax_repeats: np.ndarray | None = None
    tissue_curves: TissueCurves | None = None

    @property
    def size(self) -> tuple:
        """Voxel size, mm."""
        return grid.voxel_size_mm(self.affine)

    @property
    def affected(self) -> str:
        """Affected side."""
        return self.normalization['affected_side']

    def relative_maps(self, tmax=None) -> lesions.RelativeMaps:
        """Return the maps from which lesions are segmented, with another Tmax if one is given."""
        rcbf = {
            which: self.maps[name]
            for which in NORMALIZATIONS
            if (name := f'rcbf_{which}') in self.maps
        }
        return lesions.RelativeMaps(
            self.maps['tmax'] if tmax is None else tmax, rcbf, self.tissue_mask, self.hemispheres,
            self.size, self.normalization, self.unassessable,
        )  # fmt: skip


class Graded(NamedTuple):
    """A figure and its grade.

    Attributes
    ----------
    figure : float or None
    grade : {'pass', 'warn', 'fail', 'n/a'}
    """

    figure: float | None
    grade: str


def assess(result, settings) -> dict[str, Graded]:
    """Grade all checks of a result of `compute_maps`.

    Parameters
    ----------
    result : chain.Result
    settings : MethodSettings
        With which the result was computed.

    Returns
    -------
    dict of str to Graded
        By the names of `quality.CHECKS`.

    Notes
    -----
    Takes one to two seconds for 90,000 voxels of tissue.
    """
    figures = measure(collect(result, settings), settings)
    return {
        check.name: Graded(
            None if (grade := quality.judge(check, figures.get(check.name))) == 'n/a'
            else float(figures[check.name]),
            grade,
        )
        for check in quality.checks_of(settings.symmetry)
    }  # fmt: skip


def collect(result, settings) -> Findings:
    """Collect the findings of a result.

    Parameters
    ----------
    result : chain.Result
    settings : MethodSettings
        Uses the branch ``hypodensity``.

    Returns
    -------
    Findings
    """
    masks, vessels, maps = result.masks, result.vessels, result.maps
    relative, mirror, segmented = result.relative, result.mirror, result.lesions.masks
    best = mirror.registration.best
    homologue = None if best is None else best.homologue_reference
    size = grid.voxel_size_mm(result.affine)
    cores = [
        segmented[f'core_{which}'] for which in NORMALIZATIONS if f'core_{which}' in segmented
    ]
    shown = {'tmax': maps.tmax, 'cbf': maps.cbf, 'cbv': maps.cbv, 'mtt': maps.mtt, 'ttp': maps.ttp}
    shown |= {'rcbf_global': relative.rcbf_global, 'rcbf_local': relative.rcbf_local}
    return Findings(
        affine=result.affine,
        tissue_mask=masks.tissue,
        hemispheres=mirror.hemispheres,
        maps={name: values for name, values in shown.items() if values is not None},
        masks=segmented,
        normalization=relative.measured,
        mirror=mirror.registration.measured,
        reference=masks.reference,
        brain_mask=masks.brain,
        homologues=None if best is None else best.homologues,
        homologue_reference=homologue,
        homologue_tissue=mirror.tissue_share,
        unassessable=relative.unassessable,
        hypodense=lesions.find_hypodense_core(
            masks.reference, masks.tissue, size, cores, settings, homologue, mirror.tissue_share
        ),
        confounds=result.corrected.confounds,
        bolus={
            'n_baseline': masks.n_baseline, 'arrival_s': masks.arrival_s,
            'scan_duration_s': masks.scan_duration_s,
            'hyperdense_ml': volumes.volume_ml(masks.hyperdense, size),
            'metal_ml': volumes.volume_ml(masks.metal, size),
            'mask_protrusion': masks.protrusion,
        },
        drift=vars(result.corrected.drift),
        deconvolution=maps.measured,
        curves={
            'time': vessels.times, 'weight': vessels.weights,
            **{name: getattr(vessels, name) for name in CURVES[1:]},
            **({} if vessels.automatic is None else {'aif_automatic': vessels.automatic}),
        },
        vessel_masks=(vessels.aif_mask, vessels.vof_mask),
        tmax_repeats=maps.tmax_repeats,
        tissue_curves=maps.curves,
    )  # fmt: skip


def measure(findings, settings) -> dict[str, Any]:
    """Measure the figures of all checks.

    Parameters
    ----------
    findings : Findings
    settings : MethodSettings
        Uses the branches ``lesion``, ``symmetry``, ``normalization``, ``segmentation``,
        ``hypodensity`` and ``masks``.

    Returns
    -------
    dict of str to float or None
        By the names of `quality.CHECKS`; figures without their input are None or absent.
    """
    return (
        _of_series(findings, settings)
        | _of_maps(findings, settings)
        | _of_definitions(findings, settings)
        | _of_anatomy(findings, settings)
        | _of_lesions(findings, settings)
    )


def _of_series(findings, settings):
    """Motion, noise, drift, density and curves."""
    figures: dict[str, Any] = {'reference_density': float(findings.reference is not None)}
    if findings.confounds:
        figures |= quality.motion_figures(
            findings.confounds['displacement'], findings.confounds['weight']
        )
    figures |= quality.drift_figures(findings.drift)
    bolus, noise = findings.bolus, findings.deconvolution
    if bolus:
        figures |= {
            'baseline_frames': bolus['n_baseline'], 'arrival': bolus['arrival_s'],
            'hyperdense': bolus.get('hyperdense_ml'), 'metal': bolus.get('metal_ml'),
            'mask_outline': bolus.get('mask_protrusion'),
        }  # fmt: skip
    if noise:
        reference = findings.normalization['cbf_reference']
        figures |= quality.noise_figures(noise, reference, settings.lesion.core_rcbf)
    curves = findings.curves
    if set(CURVES) <= set(curves):
        figures |= quality.curve_figures(
            *(curves[name] for name in CURVES), noise.get('noise_denoised_hu'),
            bolus.get('arrival_s'), bolus.get('scan_duration_s'),
        )  # fmt: skip
        figures |= {
            'frame_order': invariants.frame_order(
                curves['time'],
                np.stack(
                    [curve for name in CURVES[1:] if np.isfinite(curve := curves[name]).all()]
                ),
                curves.get('weight'),
            ),
        }
    if 'aif_automatic' in curves:
        figures['aif_likeness'] = quality.curve_likeness(
            *(curves[name] for name in ('time', 'aif', 'aif_automatic'))
        )
    if findings.reference is not None:
        figures |= quality.density_figures(
            findings.reference, findings.brain_mask, findings.size, findings.vessel_masks
        )
    return figures


def _of_maps(findings, settings):
    """What the maps show, and whether they can be maps of a brain."""
    maps, tissue, sides = findings.maps, findings.tissue_mask, findings.hemispheres
    normal_tmax = settings.normalization.normal_tmax
    figures = quality.map_figures(
        maps['tmax'], tissue, sides, findings.size, findings.normalization, findings.mirror,
        settings, findings.homologue_reference, findings.unassessable,
    )  # fmt: skip
    figures['map_likeness'] = findings.map_likeness
    normal = invariants.reference_mask(maps['tmax'], tissue, sides, findings.affected, settings)
    figures |= {
        'missing_values': invariants.missing_values(list(maps.values()), tissue),
        'tmax_spread': invariants.spread(maps['tmax'], tissue, 10, 90),
        'slice_step': invariants.slice_step(maps['tmax'], tissue, sides, findings.affected),
        'flow_asymmetry': invariants.flow_asymmetry(
            maps['rcbf_global'], maps['tmax'], tissue, sides, normal_tmax
        ),
    }
    if findings.computed:
        figures['values_outside'] = invariants.values_outside(list(maps.values()), tissue)
    if 'ttp' in maps:
        figures |= _of_peaks(findings, settings)
    if findings.tissue_curves is not None and normal is not None:
        figures |= _of_normal_curves(findings, normal, figures['slice_step'])
    if normal is not None:
        figures['flow_spread'] = invariants.spread(maps['rcbf_global'], normal)
        if findings.computed:
            figures |= {
                'flow_structure': invariants.structure(maps['rcbf_global'], normal, findings.size),
                'tmax_structure': invariants.structure(maps['tmax'], tissue, findings.size),
            }
        if 'cbf' in maps:
            figures['reference_cbf'] = findings.normalization['cbf_reference']
        if 'mtt' in maps:
            figures['reference_mtt'] = float(np.median(maps['mtt'][normal]))
    return figures


def _of_peaks(findings, settings):
    """Whether the peaks of tissue are as late as Tmax."""
    maps, where = findings.maps, (findings.tissue_mask, findings.hemispheres, findings.affected)
    figures = {
        'peak_per_delay': invariants.peak_per_delay(
            maps['ttp'], maps['tmax'], *where, settings.lesion.hypoperfusion_tmax
        )
    }
    if findings.curves:
        figures['peak_after_delay'] = invariants.peak_after_delay(
            findings.curves['time'], findings.curves['aif'], maps['ttp'], maps['tmax'], *where
        )
    return figures


def _of_normal_curves(findings, normal, step):
    """Whether the curves of the unaffected side arrive together, and can come from the AIF."""
    other = symmetry.OTHER_SIDE[findings.affected]
    healthy = segmentation.within_side(findings.tissue_mask, findings.hemispheres, other)
    curves = (findings.tissue_curves, findings.tissue_mask)
    arrivals = invariants.mean_curves(*curves, healthy, by_slice=True)
    steps = (step, invariants.arrival_step(arrivals))
    figures = {'slice_step': max((value for value in steps if value is not None), default=None)}
    table, patterns = findings.curves, invariants.mean_curves(*curves, healthy & normal)
    if table and patterns:
        usable = np.asarray(table.get('weight', np.ones(len(table['time'])))) > 0
        times, aif = (np.asarray(table[name])[usable] for name in ('time', 'aif'))
        unexplained = [invariants.tissue_unexplained(times, aif, *part[1:]) for part in patterns]
        figures['tissue_unexplained'] = float(
            np.average(unexplained, weights=[part[0] for part in patterns])
        )
    return figures


def _of_definitions(findings, settings):
    """Whether maps that are defined by one another agree."""
    maps, tissue, sides = findings.maps, findings.tissue_mask, findings.hemispheres
    figures = {
        'reference_median': invariants.reference_median(
            maps['rcbf_global'], maps['tmax'], tissue, sides, findings.affected, settings
        )
    }
    if {'cbf', 'cbv', 'mtt'} <= set(maps):
        figures['flow_volume_time'] = invariants.flow_volume_time(
            maps['cbf'], maps['cbv'], maps['mtt'], tissue, sides
        )
    if 'cbf' in maps:
        figures['relative_to_flow'] = invariants.relative_to_flow(
            maps['rcbf_global'], maps['cbf'], findings.normalization['cbf_reference'], tissue
        )
    if 'rcbf_local' in maps:
        figures['local_median'] = invariants.local_median(
            maps['rcbf_local'], maps['tmax'], tissue, settings.normalization.normal_tmax
        )
        if findings.homologues is not None and findings.unassessable is not None:
            figures['relative_to_homologue'] = invariants.relative_to_homologue(
                maps['rcbf_local'], maps['rcbf_global'], findings.homologues, tissue,
                findings.unassessable, findings.affine, settings,
            )  # fmt: skip
    return figures


def _of_anatomy(findings, settings):
    """Whether masks, hemispheres and homologues are where they must be."""
    tissue, sides, affine = findings.tissue_mask, findings.hemispheres, findings.affine
    figures = {'side_of_patient': invariants.side_of_patient(sides, affine)}
    if len(findings.vessel_masks) == 2:  # AIF and VOF
        figures['vein_behind_artery'] = invariants.vein_behind_artery(
            *findings.vessel_masks, affine
        )
    if findings.brain_mask is not None:
        figures['tissue_of_brain'] = invariants.tissue_of_brain(tissue, findings.brain_mask)
        if findings.computed:
            figures['tissue_outside'] = invariants.tissue_outside(tissue, findings.brain_mask)
    if findings.reference is not None and findings.brain_mask is not None:
        figures['sector_filled'] = invariants.sector_filled(
            findings.reference, findings.brain_mask, findings.size, settings.masks.bone_hu
        )
    # homologues that are not used may be anywhere
    if findings.homologues is not None and not findings.mirror['withheld']:
        figures |= {
            'homologues_return': invariants.homologues_return(findings.homologues, affine, tissue),
            'homologues_crossing': invariants.homologues_crossing(
                findings.homologues, sides, affine, tissue
            ),
        }
    return figures


def _of_lesions(findings, settings):
    """Whether lesions are those of their maps, and how far noise decides them."""
    masks, size = findings.masks, findings.size
    core_ml = {
        which: volumes.volume_ml(masks[f'core_{which}'], size)
        if f'core_{which}' in masks
        else float('nan')
        for which in NORMALIZATIONS
    }
    again = lesions.segment_lesions(findings.relative_maps(), settings).masks
    side = findings.affected if settings.lesion.affected_side != 'both' else 'both'
    figures = quality.core_figures(core_ml['global'], core_ml['local']) | {
        'lesion_outside': invariants.outside_ml(
            masks.values(), findings.tissue_mask, findings.hemispheres, side, size
        ),
        'lesion_agreement': invariants.agreement(masks, again, size),
        'hypoperfusion_repeat': _repeat(findings, settings),
    }
    figures |= _of_healthy_side(findings, settings)
    if findings.hypodense is not None:
        figures['core_hypodense'] = max(
            volumes.volume_ml(findings.hypodense & masks[f'core_{which}'], size)
            for which in NORMALIZATIONS
            if f'core_{which}' in masks
        )
    return figures


def _repeat(findings, settings):
    """Compare the hypoperfusion of two repeats of Tmax with noise; None if there is hardly any."""
    if findings.tmax_repeats is None:
        return None
    repeats = [
        lesions.segment_lesions(
            findings.relative_maps(findings.tmax_repeats[..., which]), settings
        ).masks['hypoperfusion']
        for which in (0, 1)
    ]
    largest = max(
        volumes.volume_ml(mask, findings.size)
        for mask in (*repeats, findings.masks['hypoperfusion'])
    )
    return invariants.dice(*repeats) if largest >= LEAST_HYPOPERFUSION_ML else None


def _of_healthy_side(findings, settings):
    """Low flow of the unaffected side, cleaned like a core, and how much of it is hypodense."""
    other = symmetry.OTHER_SIDE[findings.affected]
    healthy = segmentation.within_side(findings.tissue_mask, findings.hemispheres, other)
    method, size = settings.segmentation, findings.size
    low = findings.maps['rcbf_global'] < quality.LOW_FLOW
    cleaned = segmentation.segment(
        low, healthy, size, segmentation.find_border(findings.tissue_mask, size, method.rim_mm),
        opening_mm=method.opening_mm, closing_mm=method.closing_mm,
        least_lesion_ml=method.least_lesion_ml, rim_deep_share=method.rim_deep_share,
        slab_end_ml=method.slab_end_ml,
    ).mask  # fmt: skip
    figures = {
        'healthy_side_low_flow': quality.healthy_side_share(
            cleaned, findings.tissue_mask, findings.hemispheres, findings.affected
        )
    }
    if findings.reference is not None:
        hypodense = lesions.find_hypodense_core(
            findings.reference, findings.tissue_mask, size, [low & healthy], settings,
            findings.homologue_reference, findings.homologue_tissue,
        )  # fmt: skip
        figures['old_infarct'] = volumes.volume_ml(hypodense, size)
    return figures
