# SPDX-License-Identifier: Apache-2.0
"""Contralateral homologues from the reference image."""

from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from ctpprep.inputs.series import Series
from ctpprep.interfaces.normalization import MirrorImage
from ctpprep.interfaces.registration import FindHomologues, RegisterMirror
from ctpprep.settings import MethodSettings


def init_symmetry_wf(
    method: MethodSettings, series: Series | None = None, name: str = 'symmetry_wf'
) -> LiterateWorkflow:
    """Mirror the reference image, register it, and find homologues and hemispheres.

    Parameters
    ----------
    method : MethodSettings
    series : CTPSeries or PrecomputedMaps, optional
        For precomputed maps, determines whether there is a CT to mirror.
    name : str

    Returns
    -------
    LiterateWorkflow
        Inputs: ``reference`` ``brain_mask`` ``tissue_mask`` ``entry``. Outputs: ``reference_mirror``
        ``reference_reflected`` ``homologues`` ``homologue_reference`` ``symmetry`` ``hemispheres``
        and, unless the registration failed, ``mirror_to_reference`` ``reference_to_mirror``
        ``homologue_tissue``.
    """
    workflow = LiterateWorkflow(name=name)
    inputnode = pe.Node(
        IdentityInterface(['reference', 'brain_mask', 'tissue_mask', 'entry']), name='inputnode'
    )
    mirror_image = pe.Node(MirrorImage(), name='mirror_image')
    register_mirror = pe.Node(
        RegisterMirror(settings=method.as_dict('symmetry', 'random')),
        name='register_mirror',
        mem_gb=0.6,
    )
    find_homologues = pe.Node(FindHomologues(), name='find_homologues', mem_gb=0.5)
    registered = [
        'mirror_to_reference', 'reference_to_mirror', 'reference_reflected', 'homologues',
        'homologue_reference', 'symmetry',
    ]  # fmt: skip
    sides = ['hemispheres', 'homologue_tissue']
    outputnode = pe.Node(
        IdentityInterface(['reference_mirror', *registered, *sides]), name='outputnode'
    )
    workflow.connect([
        (inputnode, mirror_image, [('reference', 'reference')]),
        (inputnode, register_mirror, [('reference', 'reference'), ('brain_mask', 'brain_mask'),
                                      ('entry', 'entry')]),
        (inputnode, find_homologues, [('brain_mask', 'brain_mask'),
                                      ('tissue_mask', 'tissue_mask')]),
        (register_mirror, find_homologues, [('mirror_to_reference', 'transform'),
                                            ('homologues', 'homologues'),
                                            ('misaligned_mask', 'misaligned_mask'),
                                            ('symmetry', 'symmetry')]),
        (mirror_image, outputnode, [('reference_mirror', 'reference_mirror')]),
        (register_mirror, outputnode, [(port, port) for port in registered]),
        (find_homologues, outputnode, [(port, port) for port in sides]),
    ])  # fmt: skip
    low, high = method.symmetry.mirror_window_hu
    workflow.__desc__ = f"""
### Contralateral homologues

The reference image was flipped left-right and registered to itself by symmetric diffeomorphic registration
(ANTs SyN, mutual information [@avants2008; @tustison2021]) of the brain at {low:g} to {high:g} HU
on a grid of {method.symmetry.mirror_grid_mm:g} mm, initialized by the plane of greatest symmetry. The
error of the homologues was estimated from the local correlation of brain and mirrored brain under shifts of
the latter. If its median exceeded {method.symmetry.mirror_retry_mm:g} mm and an affine transform aligned the
brain better than the plane, the registration was repeated from that transform, and the better result was
kept. The transform assigns each voxel its contralateral homologue; the hemispheres meet where a voxel is its
own homologue. {_limits(method, series)} Local maps were then withheld.
"""
    return workflow


def _limits(method: MethodSettings, series: Series | None) -> str:
    """Describe when a registration failed; by both rules if the CT may turn out not to match the maps."""
    symmetry = method.symmetry
    folds = (
        f'if it folded over itself in more than {symmetry.mirror_most_folding:.1%} of the brain'
    )
    distance = f'if homologues were off by more than {symmetry.mirror_most_mm:g} mm'
    similarity = (
        f'if map and mirrored map correlated by less than {symmetry.map_least_similarity:g}'
    )
    regions = (
        f' Homologues of regions that were off by more than {symmetry.mirror_region_mm:g} mm were '
        'not used.'
    )
    if series is None or series.reference_kind == 'ctpref':
        return f'A registration failed {distance}, or {folds}.{regions}'
    if not series.reference_kind:
        return f'A registration failed {similarity}, or {folds}.'
    return f'A registration failed {distance} ({similarity}, where a map is mirrored), or {folds}.{regions}'
