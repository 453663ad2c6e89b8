# SPDX-License-Identifier: Apache-2.0
"""Global and contralateral normalization of CBF and CBV."""

from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from ctpprep.interfaces.normalization import NormalizeContralateral, NormalizeGlobal
from ctpprep.interfaces.registration import ApplyMirror
from ctpprep.perfusion.normalization import EARLY_TMAX
from ctpprep.settings import MethodSettings

INPUTS = (
    'cbf', 'cbv', 'tmax', 'tissue_mask', 'hemispheres', 'homologue_tissue', 'mirror_to_reference',
)  # fmt: skip
FACTS = ('normalization', 'reference_fields', 'global_reference_fields')
QUANTITIES = ('rcbf', 'rcbv')


def init_normalization_wf(
    method: MethodSettings,
    quantities: tuple[str, ...] = QUANTITIES,
    name: str = 'normalization_wf',
) -> LiterateWorkflow:
    """Normalize CBF and CBV globally and locally.

    Parameters
    ----------
    method : MethodSettings
    quantities : tuple of str
        Only ``rcbf`` if there is no CBV.
    name : str

    Returns
    -------
    LiterateWorkflow
        Inputs: those of `INPUTS`. Outputs: ``r*_global``, ``r*_mirrored``, ``r*_local`` for CBF
        and CBV, ``unassessable_mask``, and those of `FACTS`. Without a transform
        there are only global maps.
    """
    workflow = LiterateWorkflow(name=name)
    inputnode = pe.Node(IdentityInterface(list(INPUTS)), name='inputnode')
    normalize_global = pe.Node(
        NormalizeGlobal(settings=method.as_dict('lesion', 'normalization')),
        name='normalize_global',
    )
    fields = [f'{q}_{kind}' for q in quantities for kind in ('global', 'mirrored', 'local')]
    outputnode = pe.Node(
        IdentityInterface([*fields, 'unassessable_mask', *FACTS]), name='outputnode'
    )
    workflow.connect([
        (inputnode, normalize_global, [
            (port, port) for port in ('cbf', 'cbv', 'tmax', 'tissue_mask', 'hemispheres')
        ]),
        (normalize_global, outputnode, [(port, port) for port in FACTS]),
    ])  # fmt: skip
    for quantity in quantities:
        apply_mirror = pe.Node(ApplyMirror(), name=f'apply_mirror_{quantity}', mem_gb=0.5)
        node = pe.Node(
            NormalizeContralateral(settings=method.as_dict('normalization')),
            name=f'normalize_contralateral_{quantity}',
        )
        workflow.connect([
            (normalize_global, node, [(f'{quantity}_global', 'relative')]),
            (normalize_global, apply_mirror, [(f'{quantity}_global', 'relative')]),
            (inputnode, apply_mirror, [('mirror_to_reference', 'transform')]),
            (apply_mirror, node, [('mirrored', 'mirrored')]),
            (inputnode, node, [('homologue_tissue', 'homologue_tissue'),
                               ('tissue_mask', 'tissue_mask')]),
            (normalize_global, outputnode, [(f'{quantity}_global', f'{quantity}_global')]),
            (node, outputnode, [('homologue_map', f'{quantity}_mirrored'),
                                ('local', f'{quantity}_local')]),
        ])  # fmt: skip
        if quantity == 'rcbf':
            workflow.connect(node, 'unassessable_mask', outputnode, 'unassessable_mask')
    workflow.__desc__ = _describe(method)
    return workflow


def _describe(method: MethodSettings) -> str:
    normal = method.normalization
    reference = (
        f'tissue with Tmax within {normal.normal_tmax:g} s [@amukotuwa2019]'
        if normal.global_reference == 'normal-tmax'
        else 'the contralateral hemisphere'
    )
    instead = (
        f' If this was less than {normal.least_normal_share:.0%} of tissue, the reference was the '
        'tissue of the unaffected hemisphere whose Tmax exceeds its 10th percentile there by at '
        f'most {max(normal.normal_tmax - EARLY_TMAX, 0):g} s; sidecars and report state where this '
        'applied.'
        if normal.global_reference == 'normal-tmax' and normal.least_normal_share > 0
        else ''
    )
    x, y, z = normal.local_sigma_mm
    return f"""
### Normalization

Global normalization divides CBF and CBV by their median over {reference}.{instead} Local normalization
[@rau2024] divides the global map by its value at the contralateral homologue, capped at
{normal.local_clip:.0%} and smoothed over tissue (Gaussian of sigma {x:g} x {y:g} x {z:g} mm in
patient axes); tissue whose smoothed homologue is below {normal.local_floor:.0%} is not assessable.
Local normalization supplements the global one and does not replace it.
"""
