# SPDX-License-Identifier: Apache-2.0
"""Registration of the reference image to the non-contrast CT (NCCT) of its session."""

from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from ctpprep.inputs.series import CTPSeries
from ctpprep.interfaces.registration import RegisterNCCT
from ctpprep.settings import MethodSettings


def init_coregistration_wf(
    series: CTPSeries, method: MethodSettings, name: str = 'coregistration_wf'
) -> LiterateWorkflow:
    """Register the reference image to the NCCT; only for a series that has one.

    Parameters
    ----------
    series : CTPSeries
    method : MethodSettings
    name : str

    Returns
    -------
    LiterateWorkflow
        Input: ``reference``. Outputs: ``reference_to_ncct`` ``ncct_matrix``.
    """
    workflow = LiterateWorkflow(name=name)
    inputnode = pe.Node(IdentityInterface(['reference']), name='inputnode')
    register_ncct = pe.Node(
        RegisterNCCT(
            ncct=str(series.ncct),
            settings=method.as_dict('coregistration', 'random'),
            affine_from=series.affine_from,
        ),
        name='register_ncct',
        mem_gb=1.5,
    )
    ports = ['reference_to_ncct', 'ncct_matrix']
    outputnode = pe.Node(IdentityInterface(ports), name='outputnode')
    workflow.connect([
        (inputnode, register_ncct, [('reference', 'reference')]),
        (register_ncct, outputnode, [(port, port) for port in ports]),
    ])  # fmt: skip
    workflow.__desc__ = """
### Non-contrast CT

The reference image was registered rigidly to the non-contrast CT of the session (ANTs, mutual
information [@avants2008; @tustison2021]).
"""
    return workflow
