# SPDX-License-Identifier: Apache-2.0
"""Comparison with the lesion of a follow-up image."""

from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from ctpprep.inputs.series import FollowUpLesion, Series
from ctpprep.interfaces.followup import CompareFollowUp, PlaceLesion
from ctpprep.interfaces.registration import RegisterFollowUp
from ctpprep.perfusion.followup import threshold_range
from ctpprep.settings import MethodSettings

COMPARED = (
    'tmax', 'rcbf_global', 'rcbf_local', 'tissue_mask', 'unassessable_mask', 'hemispheres',
    'normalization', 'brain_mask', 'core_global', 'core_local', 'hypoperfusion', 'rcbv_global',
    'rcbv_local', 'probability_global', 'probability_local', 'symmetry',
)  # fmt: skip
PLACED = ('followup_mask', 'followup')


def init_followup_wf(
    series: Series, lesion: FollowUpLesion, method: MethodSettings, name: str = 'followup_wf'
) -> LiterateWorkflow:
    """Bring the lesion of a later session to the grid of the maps and compare them.

    Parameters
    ----------
    series : CTPSeries or PrecomputedMaps
    lesion : FollowUpLesion
    method : MethodSettings
    name : str

    Returns
    -------
    LiterateWorkflow
        Inputs: those of `COMPARED`, ``reference`` ``ncct_matrix`` ``entry``. Outputs:
        ``followup_mask`` (unless the lesion was left out) ``followup`` ``followup_agreement``.
    """
    workflow = LiterateWorkflow(name=name)
    inputnode = pe.Node(
        IdentityInterface([*COMPARED, 'reference', 'ncct_matrix', 'entry']), name='inputnode'
    )
    place_lesion = pe.Node(
        PlaceLesion(space=lesion.space, left_out=lesion.left_out),
        name='place_lesion',
        mem_gb=0.8,
    )
    if not lesion.left_out:
        place_lesion.inputs.lesion_mask = str(lesion.mask.path)
    compare_followup = pe.Node(
        CompareFollowUp(settings=method.as_dict('followup', 'lesion', 'segmentation')),
        name='compare_followup',
        mem_gb=0.8,
    )
    outputnode = pe.Node(IdentityInterface([*PLACED, 'followup_agreement']), name='outputnode')
    workflow.connect([
        (inputnode, place_lesion, [('reference', 'reference'), ('ncct_matrix', 'ncct_matrix')]),
        (inputnode, compare_followup, [(port, port) for port in COMPARED]),
        (place_lesion, compare_followup, [('placed', 'placed'), ('followup', 'followup')]),
        (place_lesion, outputnode, [(port, port) for port in PLACED]),
        (compare_followup, outputnode, [('followup_agreement', 'followup_agreement')]),
    ])  # fmt: skip
    if lesion.image is not None:
        files = {'lesion_image': str(lesion.image.path)}
        if series.ncct is not None:
            files['ncct'] = str(series.ncct)
        register_followup = pe.Node(
            RegisterFollowUp(settings=method.as_dict('followup', 'masks', 'random'), **files),
            name='register_followup',
            mem_gb=1.5,
        )
        ports = ('reference', 'ncct_matrix', 'brain_mask', 'entry')
        workflow.connect([
            (inputnode, register_followup, [(port, port) for port in ports]),
            (register_followup, place_lesion, [('followup_matrix', 'followup_matrix')]),
        ])  # fmt: skip
    workflow.__desc__ = _describe(series, lesion, method)
    return workflow


def _describe(series: Series, lesion: FollowUpLesion, method: MethodSettings) -> str:
    settings = method.followup
    if lesion.left_out:
        return f"""
### Follow-up

The lesion mask of a later session ({lesion.mask.uri}) was left out: {lesion.left_out}.
"""
    fixed = (
        'the non-contrast CT of the session' if series.ncct is not None else 'the reference image'
    )
    aligned = {
        'ncct': 'by the inverse of the rigid transform to the non-contrast CT',
        'series': 'by the coordinates of its header',
        'image': f'with its MR image, which was registered to {fixed} (ANTs, mutual information '
        '[@avants2008; @tustison2021]), rigidly and then by an affine transform. It was left out if the '
        f'brain of both overlapped by less than {settings.followup_least_overlap:g} (Dice) or mutual '
        f'information was less than {settings.followup_least_similarity:g} of that after a shift or turn',
    }[lesion.space]
    grid = (
        'that of the maps; a voxel is lesion if at least half of it is'
        if settings.followup_grid == 'series'
        else 'that of the maps, with voxels divided to the size of those of the mask'
    )
    rcbf, tmax = (
        threshold_range(*getattr(settings, f'followup_{name}')) for name in ('rcbf', 'tmax')
    )
    return f"""
### Follow-up

The lesion of a later session ({lesion.mask.uri}) was aligned with the series {aligned}. It was
interpolated linearly in parts of voxels and averaged. Core and hypoperfusion, also at other thresholds
(relative CBF below {rcbf[0]:.0%} to {rcbf[-1]:.0%}, Tmax above {tmax[0]:g} to {tmax[-1]:g} s), were
compared with it on a grid: {grid}. Sensitivity and specificity were computed over voxels of brain, areas
under the ROC curve over voxels of tissue with a value by both normalizations.
"""
