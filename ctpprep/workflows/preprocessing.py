# SPDX-License-Identifier: Apache-2.0
"""Motion correction and masks of the raw series."""

from typing import Any

from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from ctpprep.inputs.overrides import describe_overrides
from ctpprep.inputs.series import CTPSeries
from ctpprep.interfaces.preprocessing import (
    CorrectMotion,
    EstimateMotion,
    LoadCorrected,
    MakeMasks,
    PrepareSeries,
)
from ctpprep.settings import MethodSettings

# a series has a few tens of frames, so that more threads would gain little
MOST_THREADS = 8
# memory of a node without a series, GB (benchmarks/memory.py)
OWN_GB = 0.3


def init_preprocessing_wf(
    series: CTPSeries,
    method: MethodSettings,
    mem_gb: float,
    threads: int = 1,
    name: str = 'preprocessing_wf',
) -> LiterateWorkflow:
    """Average a series to the working grid, correct motion and find the masks.

    Parameters
    ----------
    series : CTPSeries
    method : MethodSettings
    mem_gb : float
        Size of the working series, GB.
    threads : int
        Number of frames registered and resampled in parallel; the result is the same for any number.
    name : str

    Returns
    -------
    LiterateWorkflow
        Outputs: ``ctp_corrected`` ``sample_times`` ``timing`` ``confounds`` ``frame_transforms``
        ``motion`` ``damage`` ``reference`` ``brain_mask`` ``intracranial_mask`` ``vessel_mask`` ``csf_mask``
        ``tissue_mask`` ``pure_mask`` ``bolus``.
    """
    workflow = LiterateWorkflow(name=name)
    threads = min(threads, MOST_THREADS)
    prepare_series = pe.Node(
        PrepareSeries(
            ctp=str(series.source.path),
            sample_times=[list(row) for row in series.sample_times],
            settings=method.as_dict('grid'),
            affine_from=series.affine_from,
        ),
        name='prepare_series',
        mem_gb=OWN_GB + 2 * mem_gb,
    )
    if ready := 'ctp_corrected' in series.overrides:
        prepare_series.inputs.raw = str(series.path)
        prepare_series.inputs.settings = method.as_dict('grid', 'motion')
        method = method.change(motion_correction=False)
    corrector = LoadCorrected if ready else CorrectMotion
    correction: dict[str, Any] = {'settings': method.as_dict('motion', 'masks')}
    if not ready:
        correction['num_threads'] = threads
    correct_motion = pe.Node(
        corrector(**correction),
        name='load_corrected' if ready else 'correct_motion',
        mem_gb=OWN_GB + 3 * mem_gb,
    )
    make_masks = pe.Node(
        MakeMasks(settings=method.as_dict('masks')), name='make_masks', mem_gb=OWN_GB + 4 * mem_gb
    )
    for piece in ('brain_mask', 'exclude_mask', 'curves', 'aif_mask'):
        if file := series.overrides.get(piece):
            setattr(make_masks.inputs, f'supplied_{piece}', str(file.path))
    outputs = {
        prepare_series: ('sample_times', 'timing'),
        correct_motion: ('ctp_corrected', 'confounds', 'frame_transforms', 'motion', 'damage'),
        make_masks: (
            'reference', 'brain_mask', 'intracranial_mask', 'vessel_mask', 'csf_mask',
            'tissue_mask', 'pure_mask', 'bolus',
        ),
    }  # fmt: skip
    fields = [field for ports in outputs.values() for field in ports]
    outputnode = pe.Node(IdentityInterface(fields), name='outputnode')
    workflow.connect([
        (prepare_series, correct_motion, [('ctp_working', 'ctp_working'),
                                          ('sample_times', 'sample_times')]),
        (prepare_series, make_masks, [('sample_times', 'sample_times'),
                                      ('empty_slices', 'empty_slices')]),
        (correct_motion, make_masks, [('ctp_corrected', 'ctp_corrected'),
                                      ('confounds', 'confounds'), ('damage', 'damage')]),
        *((node, outputnode, [(port, port) for port in ports]) for node, ports in outputs.items()),
    ])  # fmt: skip
    if method.motion.motion_correction:
        estimate_motion = pe.Node(
            EstimateMotion(settings=method.as_dict('motion'), num_threads=threads),
            name='estimate_motion',
            mem_gb=OWN_GB + 2 * mem_gb,
        )
        workflow.connect([
            (prepare_series, estimate_motion, [('ctp_working', 'ctp_working')]),
            (estimate_motion, correct_motion, [('transforms', 'transforms'),
                                               ('reference_frame', 'reference_frame')]),
        ])  # fmt: skip
    workflow.__desc__ = _describe(series, method)
    return workflow


def _describe(series: CTPSeries, method: MethodSettings) -> str:
    brain = (
        'The brain is a mask that was supplied.'
        if 'brain_mask' in series.overrides
        else f'The brain is the soft tissue inside the ring of bone (> {method.masks.bone_hu:g} HU), with '
        'sulci and ventricles, without the outer rim of CSF.'
    )
    if 'exclude_mask' in series.overrides:
        brain += ' Tissue in a supplied mask of old lesions or surgery was excluded.'
    moved = (
        'The series was supplied motion-corrected; frames whose skull correlated with that of the '
        f'first by less than {method.motion.motion_reject_similarity:g} were excluded.'
    )
    motion = (
        moved
        if 'ctp_corrected' in series.overrides
        else 'Every frame was registered rigidly by robust least squares (inverse compositional '
        '[@baker2004]) to the first frame whose skull most others then matched. Frames whose '
        'skull still correlated with that of this reference frame by less than '
        f'{method.motion.motion_reject_similarity:g} were excluded. A series in which no frame had moved '
        f'by more than {method.motion.motion_skip_mm:g} mm was not resampled.'
        if method.motion.motion_correction
        else 'Head motion was not corrected.'
    ) + (
        ' A linear drift of density over the scan was subtracted if brain before contrast agreed with '
        'air (or bone).'
    )
    if method.masks.bolus_arrival:
        arrival = (
            f'The arrival of contrast was set by the user: {method.masks.bolus_arrival:g} s after the start '
            'of the scan.'
        )
    elif {'curves', 'aif_mask'} & set(series.overrides):
        arrival = 'The arrival of contrast is that of the supplied AIF.'
    else:
        arrival = 'The arrival of contrast was found in the earliest curves that have the shape of a bolus.'
    return f"""
### Preprocessing

Voxels (or parts of them) were averaged in plane to at most {method.grid.working_in_plane_mm:g} mm, and
thin slices acquired together to at most {method.grid.working_slice_mm:g} mm. {motion} The reference
image is the mean of the corrected frames before contrast. {brain} Voxels
that enhance more than {method.masks.vessel_ratio:g} times the median of brain are vessels; voxels
whose density in the time average is less than {method.masks.csf_level:.0%} of the way from CSF to brain,
both measured in the series itself, are CSF; neither is tissue. {arrival} AIF and VOF were
searched at least {method.masks.bone_margin_mm:g} mm from bone. {describe_overrides(series)}
"""
