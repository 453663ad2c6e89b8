# SPDX-License-Identifier: Apache-2.0
"""Core, hypoperfusion, mismatch and volumes."""

from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from ctpprep.interfaces.segmentation import (
    EstimateUncertainty,
    FindHypodense,
    MeasureVolumes,
    SegmentLesions,
)
from ctpprep.perfusion.symmetry import CLEAR_S, TIMES_LARGER
from ctpprep.settings import FUNCTION, MethodSettings

MAPS = (
    'tmax', 'rcbf_global', 'rcbf_local', 'tissue_mask', 'unassessable_mask', 'hemispheres',
    'normalization',
)  # fmt: skip
DENSITIES = ('reference', 'entry', 'homologue_reference', 'homologue_tissue')
MEASURED = ('rcbv_global', 'deconvolution', 'symmetry')  # read only by MeasureVolumes
SURE = ('probability_global', 'probability_local')
MASKS = ('core_global', 'core_local', 'hypoperfusion', 'mismatch_global', 'mismatch_local')


def init_segmentation_wf(
    method: MethodSettings, noise: bool = True, name: str = 'segmentation_wf'
) -> LiterateWorkflow:
    """Segment lesions by both normalizations and measure their volumes.

    Parameters
    ----------
    method : MethodSettings
    noise : bool
        Whether there may be samples of the noise of CBF.
    name : str

    Returns
    -------
    LiterateWorkflow
        Inputs: those of `MAPS`, `DENSITIES` and `MEASURED`, and ``cbf_noise``. Outputs: those of
        `MASKS` and `SURE`, ``lesions``, ``hypodense_mask`` and ``volumes``. Local outputs require a
        local map, the hypodense mask a reference image in HU, and those of `SURE` the noise of CBF.
    """
    workflow = LiterateWorkflow(name=name)
    inputnode = pe.Node(
        IdentityInterface([*MAPS, *DENSITIES, *MEASURED, 'cbf_noise']), name='inputnode'
    )
    lesion = ('lesion', 'segmentation')
    # precomputed maps have no uncalibrated Tmax to tabulate
    calibration = ('deconvolution',) if noise else ()
    segment_lesions = pe.Node(
        SegmentLesions(settings=method.as_dict(*lesion)), name='segment_lesions'
    )
    find_hypodense = pe.Node(
        FindHypodense(settings=method.as_dict('hypodensity')), name='find_hypodense'
    )
    estimate_uncertainty = pe.Node(
        EstimateUncertainty(
            settings=method.as_dict(*lesion, 'uncertainty', 'random', *calibration)
        ),
        name='estimate_uncertainty',
        mem_gb=0.5,
    )
    measure_volumes = pe.Node(
        MeasureVolumes(settings=method.as_dict(*lesion, 'volumes', *calibration)),
        name='measure_volumes',
    )
    outputnode = pe.Node(
        IdentityInterface([*MASKS, *SURE, 'lesions', 'hypodense_mask', 'volumes']),
        name='outputnode',
    )
    workflow.connect([
        (inputnode, segment_lesions, [(port, port) for port in MAPS]),
        (inputnode, measure_volumes, [(port, port) for port in (*MAPS, *MEASURED)]),
        (segment_lesions, measure_volumes, [(port, port) for port in (*MASKS, 'cleaning')]),
        (inputnode, estimate_uncertainty, [(port, port) for port in (*MAPS, 'cbf_noise')]),
        (segment_lesions, estimate_uncertainty, [('hypoperfusion', 'hypoperfusion')]),
        (estimate_uncertainty, measure_volumes, [('intervals', 'intervals')]),
        (estimate_uncertainty, outputnode, [(port, port) for port in SURE]),
        (segment_lesions, outputnode, [(port, port) for port in (*MASKS, 'lesions')]),
        (inputnode, find_hypodense, [(port, port) for port in (*DENSITIES, 'tissue_mask')]),
        (segment_lesions, find_hypodense, [(port, port) for port in MASKS if 'core' in port]),
        (find_hypodense, measure_volumes, [('hypodense_mask', 'hypodense_mask')]),
        (find_hypodense, outputnode, [('hypodense_mask', 'hypodense_mask')]),
        (measure_volumes, outputnode, [('volumes', 'volumes')]),
    ])  # fmt: skip
    workflow.__desc__ = _describe(method, noise)
    return workflow


def _describe(method: MethodSettings, noise: bool) -> str:
    cleaning = method.segmentation
    lesion = method.lesion
    hypodensity = method.hypodensity
    tikhonov = method.deconvolution
    # how noise passes through a function of the user is not known
    noise = noise and not method.uses_functions
    side = {
        'auto': 'the affected hemisphere (the one with the greater median Tmax or, where the medians '
        f'were less than {CLEAR_S:g} s apart, the one with at least {TIMES_LARGER:g} times the '
        'hypoperfused tissue of the other)',
        'both': 'both hemispheres',
    }.get(lesion.affected_side, f'the {lesion.affected_side} hemisphere, as requested')
    uncalibrated = (
        ' Volumes of Tmax are also given without its calibration.'
        if tikhonov.tmax_calibration and not FUNCTION.fullmatch(tikhonov.deconvolution_method)
        else ''
    )
    cleaned = (
        f' Connected lesions below {cleaning.least_lesion_ml:g} mL were removed.'
        if cleaning.least_lesion_ml
        else ''
    )
    if cleaning.rim_mm:
        cleaned += (
            f' Lesions of which less than {cleaning.rim_deep_share:.0%} is deeper than '
            f'{cleaning.rim_mm:g} mm below the surface of the brain or the ends of the slab were removed '
            f'unless they meet hypoperfusion or have {cleaning.slab_end_ml:g} mL in the end slices.'
        )
    restricted = (
        'Unlike in the paper, core is then restricted to hypoperfusion, which may leave smaller pieces; the '
        'table also contains its volume before that.'
        if cleaning.core_within_hypoperfusion
        else 'Core is not restricted to hypoperfusion; the table contains the part within it.'
    )
    joined = (
        ' Tmax is not determined where hardly any contrast arrives; core by both normalizations (by the '
        'global one where there is no other) that borders on hypoperfusion is therefore part of it.'
        if cleaning.core_joins_hypoperfusion and not cleaning.core_within_hypoperfusion
        else ''
    )
    sure = _describe_uncertainty(method) if noise else ''
    return f"""
### Segmentation

Core is tissue with relative CBF below {lesion.core_rcbf:.0%}, by each normalization; hypoperfusion
is tissue with Tmax above {lesion.hypoperfusion_tmax:g} s; both after morphological opening
({cleaning.opening_mm:g} mm) and closing ({cleaning.closing_mm:g} mm), restricted to
{side} [@rau2024].{cleaned}
{restricted}{joined}
Mismatch is hypoperfusion outside the core; the table also contains the difference of the volumes,
their ratio, the hypoperfusion intensity ratio [@olivot2014] and the criteria of DEFUSE 3
[@albers2018].{uncalibrated}{sure}
Tissue of the core that is more than {hypodensity.hypodense_hu:g} HU less dense than its homologue is
flagged: it may be an old infarct.
"""


def _describe_uncertainty(method: MethodSettings) -> str:
    interval = method.uncertainty
    sure = (
        ' The noise of the curves, from components that contain nothing else, was propagated through '
        'the deconvolution to relative CBF. With an error of relative CBF that all voxels share '
        f'(standard deviation {interval.shared_error:g}, from simulated heads), it determines the '
        'probability that a voxel is below the threshold.'
    )
    if not interval.noise_draws:
        return sure
    sure += (
        f' The 95 % interval of each core volume is that of {interval.noise_draws} segmentations with '
        'such errors added'
    )
    if not method.deconvolution.tmax_calibration:
        return f'{sure}.'
    return (
        f'{sure}; that of the hypoperfusion is its volume at thresholds changed by '
        f'1.96 standard deviations of a shared error of Tmax ({interval.tmax_error:g} s, from simulated '
        'heads).'
    )
