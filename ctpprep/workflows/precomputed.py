# SPDX-License-Identifier: Apache-2.0
"""Precomputed perfusion maps, which replace preprocessing and deconvolution."""

from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from ctpprep.inputs.series import PrecomputedMaps
from ctpprep.interfaces.precomputed import StandardizeMaps
from ctpprep.settings import MethodSettings

MADE = ('vessel_mask', 'csf_mask')
FACTS = ('entry', 'entry_fields', 'baseline_fields', 'brain_ct', 'baseline_ct', 'stand_in')
# how brain and CSF are found without a CT
BY_VALUES = 'where the maps have values, closed and filled'
NO_FLOW = 'voxels of hardly any flow'


def init_precomputed_wf(
    series: PrecomputedMaps, method: MethodSettings, name: str = 'precomputed_wf'
) -> LiterateWorkflow:
    """Convert precomputed maps to standard units and find masks and reference image.

    Parameters
    ----------
    series : PrecomputedMaps
    method : MethodSettings
    name : str

    Returns
    -------
    LiterateWorkflow
        Outputs: the supplied maps among ``cbf`` (a fraction if CBF is relative) ``cbv``
        ``mtt`` ``tmax`` ``ttp``; ``reference`` ``brain_mask`` ``tissue_mask``; ``vessel_mask`` and
        ``csf_mask`` unless the tissue was supplied; those of `FACTS`.
    """
    workflow = LiterateWorkflow(name=name)
    files = {port: str(file.path) for port, file in (series.maps | series.masks).items()}
    if series.reference is not None:
        files |= {'density': str(series.reference.path), 'density_kind': series.reference_kind}
    standardize_maps = pe.Node(
        StandardizeMaps(
            units=series.units,
            settings=method.as_dict('masks', 'kinetics', 'symmetry'),
            **files,
        ),
        name='standardize_maps',
        mem_gb=0.5,
    )
    maps = ['cbf' if quantity == 'rcbf' else quantity for quantity in series.maps]
    made = () if 'tissue_mask' in series.masks else MADE
    fields = [*maps, 'reference', 'brain_mask', 'tissue_mask', *made, *FACTS]
    outputnode = pe.Node(IdentityInterface(fields), name='outputnode')
    workflow.connect([(standardize_maps, outputnode, [(port, port) for port in fields])])
    workflow.__desc__ = _describe(series, method)
    return workflow


def _describe(series: PrecomputedMaps, method: MethodSettings) -> str:
    words = {'cbf': 'CBF', 'rcbf': 'relative CBF', 'tmax': 'Tmax'}
    maps = ', '.join(words.get(quantity, quantity.upper()) for quantity in series.maps)
    blood = 'CBV' if 'cbv' in series.maps else 'CBF'
    replacement = f'the map of {blood}, scaled to the window of the registration'
    mirrored = {
        'ctpref': 'the reference image that was supplied',
        'ncct': 'the baseline CT, placed on their grid by its header',
        '': f'without a CT, {replacement}',
    }[series.reference_kind]
    brain = (
        'a mask that was supplied'
        if 'brain_mask' in series.masks
        else 'the soft tissue inside the ring of bone in the CT, as far as the maps reach'
        if series.reference
        else BY_VALUES
    )
    csf = (
        f'voxels whose density is less than {method.masks.csf_level:.0%} of the way from CSF to brain'
        if series.reference
        else NO_FLOW
    )
    tissue = (
        'a mask that was also supplied'
        if 'tissue_mask' in series.masks
        else f'brain without vessels (more than {method.masks.vessel_ratio:g} times the median of '
        f'{blood}) and without CSF ({csf})'
    )
    # whether a CT shows the brain and matches the maps is determined only when the node runs
    otherwise = ''
    if series.reference and 'brain_mask' not in series.masks:
        otherwise = f' If the CT shows no brain, the brain is {BY_VALUES}.'
    if series.reference_kind == 'ncct':
        without = '' if 'tissue_mask' in series.masks else f'CSF is then {NO_FLOW}, and '
        otherwise += (
            f' A CT that does not match the maps is not used: {without}the reference image is '
            f'{replacement}. Sidecars state which was used.'
        )
    return f"""
### Perfusion maps

The perfusion maps ({maps}) were precomputed by other software and used unchanged, on their own grid.
Units are those of their sidecars, or else those in which the median over tissue is plausible. The brain
is {brain}; tissue is {tissue}. The reference image is
{mirrored}.{otherwise}
"""
