# SPDX-License-Identifier: Apache-2.0
"""Perfusion maps from the corrected series."""

from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from ctpprep.inputs.series import CTPSeries
from ctpprep.interfaces.deconvolution import Deconvolve, FindVessels
from ctpprep.perfusion.bayesian import DELAY_STEP_S, MODEL_ERROR, TRANSITS_S
from ctpprep.perfusion.custom import digests
from ctpprep.settings import MethodSettings

INPUTS = (
    'ctp_corrected', 'sample_times', 'confounds', 'bolus', 'intracranial_mask', 'tissue_mask',
    'pure_mask', 'damage',
)  # fmt: skip
MAPS = ('cbf', 'cbv', 'mtt', 'tmax', 'ttp')


def init_deconvolution_wf(
    series: CTPSeries,
    method: MethodSettings,
    mem_gb: float,
    threads: int = 1,
    name: str = 'deconvolution_wf',
) -> LiterateWorkflow:
    """Find AIF and VOF, denoise and deconvolve.

    Parameters
    ----------
    series : CTPSeries
    method : MethodSettings
    mem_gb : float
        Size of the working series, GB.
    threads : int
        Threads of the denoising; the result is the same for any number.
    name : str

    Returns
    -------
    LiterateWorkflow
        Inputs: those of `INPUTS`. Outputs: ``curves`` ``aif_mask`` ``vof_mask`` ``cbf`` ``cbv``
        ``mtt`` ``tmax`` ``ttp`` ``noise`` ``cbf_noise`` ``tissue_share`` ``tissue_curves``
        ``deconvolution``.
    """
    workflow = LiterateWorkflow(name=name)
    inputnode = pe.Node(IdentityInterface(list(INPUTS)), name='inputnode')
    find_vessels = pe.Node(
        FindVessels(settings=method.as_dict('vessels'), affine_from=series.affine_from),
        name='find_vessels',
        mem_gb=0.3 + 6 * mem_gb,
    )
    for piece in ('curves', 'aif_mask'):
        if file := series.overrides.get(piece):
            setattr(find_vessels.inputs, f'supplied_{piece}', str(file.path))
    deconvolve = pe.Node(
        Deconvolve(
            settings=method.as_dict('vessels', 'denoising', 'deconvolution', 'kinetics'),
            functions=digests(method),
            num_threads=threads,
        ),
        name='deconvolve',
        mem_gb=0.3 + 6 * mem_gb,
    )
    vessels = ['curves', 'aif_mask', 'vof_mask']
    maps = [
        *MAPS, 'noise', 'cbf_noise', 'tmax_repeats', 'tissue_share', 'tissue_curves', 'deconvolution',
    ]  # fmt: skip
    outputnode = pe.Node(IdentityInterface(vessels + maps), name='outputnode')
    workflow.connect([
        (inputnode, find_vessels, [(port, port) for port in INPUTS if port != 'pure_mask']),
        (inputnode, deconvolve, [
            (port, port) for port in INPUTS if port not in ('intracranial_mask', 'damage')
        ]),
        (find_vessels, deconvolve, [('curves', 'curves')]),
        (find_vessels, outputnode, [(port, port) for port in vessels]),
        (deconvolve, outputnode, [(port, port) for port in maps]),
    ])  # fmt: skip
    workflow.__desc__ = _describe(series, method)
    return workflow


def _describe(series: CTPSeries, method: MethodSettings) -> str:
    """Write the methods text: arteries, denoising, deconvolution, kinetics."""
    kinetics = method.kinetics
    beside = ' unless it was also supplied' if 'curves' in series.overrides else ''
    deconvolution, corrections = _describe_deconvolution(method)
    share = (
        ' CBF and CBV were divided by the tissue fraction of the voxel, estimated from its density.'
        if method.deconvolution.partial_volume
        else ''
    )
    excess, calibration = corrections
    aif, denoising = _describe_aif(series, method), _describe_denoising(method)
    preset = (
        f' The settings are those of the preset {method.preset_name}.'
        if method.preset_name != 'none'
        else ''
    )
    return f"""
### Perfusion maps

The arterial input function is {aif}; the venous output function is the mean of the voxels
with the largest area among those that enhance later{beside}.
Tissue curves were {denoising}. {deconvolution}
[@fieselmann2011; @ostergaard1996] with k_H = {kinetics.hematocrit_factor:g} and
rho = {kinetics.tissue_density:g} g/mL.{excess}{share} {calibration}{preset}
"""


def _describe_aif(series: CTPSeries, method: MethodSettings) -> str:
    """Describe where the AIF comes from, and how it was scaled."""
    vessels = method.vessels
    scaling = {
        'none': '',
        'vof': ', its area scaled to that of the VOF',
        'auto': ', its area scaled up to that of the VOF if there is a plausible one',
    }[vessels.aif_scaling]
    if 'curves' in series.overrides:
        return f'a curve that was supplied{scaling}'
    if 'aif_mask' in series.overrides:
        return f'the mean of voxels that were supplied{scaling}'
    return (
        f'the mean of up to {vessels.aif_voxels} voxels whose curves are highest, earliest and '
        f'narrowest, as high as the strongest voxels of that shape{scaling}'
    )


def _describe_denoising(method: MethodSettings) -> str:
    """Describe how tissue curves were denoised."""
    smoother = method.denoising
    x, _, z = smoother.denoise_sigma_mm
    smoothing = (
        'smoothed over tissue away from vessels and bone (normalized convolution [@wack2014], sigma '
        f'{x:g} mm in plane and {z:g} mm through plane)'
    )
    x, _, z = smoother.denoise_reach_mm
    known = {
        'none': 'used without denoising',
        'smooth': smoothing,
        'lowrank': f'{smoothing} and reduced to {smoother.denoise_rank} temporal components',
        'similarity': f'reduced to {smoother.denoise_rank} temporal components, whose scores were '
        'averaged twice over tissue away from vessels and bone, with weights that decrease with '
        f'distance (sigma {x:g} mm in plane and {z:g} mm through plane), with the difference of density '
        f'({smoother.denoise_density_hu:g} HU) and with the difference of the smoothed curves '
        f'({smoother.denoise_curve_tolerance:g} times their noise), after [@mendrik2011; @wack2014]',
    }
    by_user = f'denoised by a user-supplied function, {smoother.denoise}'
    return known.get(smoother.denoise, by_user)


def _describe_deconvolution(method: MethodSettings) -> tuple[str, tuple[str, str]]:
    """Describe the deconvolution, and its corrections: excess by noise, and calibration of Tmax."""
    tikhonov = method.deconvolution
    chosen = (
        f'lambda {tikhonov.lambda_rel:g} of the largest singular value'
        if tikhonov.lambda_rel
        else 'lambda chosen by generalized cross-validation [@golub1979]'
    )
    calibration = (
        "Tmax was calibrated by subtracting the operator's own response (exponential residue function of "
        f'{tikhonov.calibration_mtt:g} s without delay).'
        if tikhonov.tmax_calibration
        else 'Tmax was not calibrated.'
    )
    regularized = f"""by Tikhonov regularization [@calamante2003] (derivative of order
{tikhonov.penalty_order}, {chosen}; {tikhonov.tmax_lambda_ratio:g} times as much for Tmax) on a residue
grid of {tikhonov.residue_step:g} s that begins {tikhonov.residue_lead:g} s before zero"""
    if tikhonov.deconvolution_method == 'bayesian':
        transits = f'{TRANSITS_S[0]:g} to {TRANSITS_S[-1]:g} s'
        text = f"""Flow and volume are
posterior means [@boutelier2012] over a dictionary of exponential and box-shaped residue functions
(mean transit times from {transits}, delays in steps of {DELAY_STEP_S:g} s), given the
curves at their true sample times, their noise and an error of the model [@kennedy2001] of
{MODEL_ERROR:g} times the peak of typical tissue in each frame. Tmax was found
{regularized}. CBF, CBV and MTT follow from flow and volume"""
        return text, ('', calibration)
    if tikhonov.deconvolution_method == 'tikhonov':
        text = f"""They were deconvolved at their
true sample times {regularized}, which makes
the result insensitive to delay. CBF, CBV, MTT and Tmax follow from the residue function"""
        return text, (_describe_excess(method), calibration)
    text = f"""They were deconvolved at their
true sample times by a user-supplied function, {tikhonov.deconvolution_method}, instead of Tikhonov
regularization. CBF, CBV, MTT and Tmax follow from the maximum of the residue function"""
    return text, ('', '')


def _describe_excess(method: MethodSettings) -> str:
    """Describe what was subtracted from the maximum for its noise; '' if nothing was."""
    corrected = (
        method.deconvolution.cbf_noise_correction
        and method.denoising.denoise != 'none'
        and not method.uses_functions
    )
    if not corrected:
        return ''
    return (
        ' The contribution of noise to the maximum that defines CBF was estimated by adding noise of the '
        'same kind once more [@efron1979], and subtracted.'
    )
