# SPDX-License-Identifier: Apache-2.0
"""Quality control and figures of the report."""

from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from ctpprep.inputs.series import Series
from ctpprep.interfaces.figures import PlotSeries
from ctpprep.interfaces.outputs import WriteFigures
from ctpprep.interfaces.quality import AssessQuality
from ctpprep.interfaces.viewer import PackViewer
from ctpprep.settings import MethodSettings, RunSettings

# a dozen figures, of which six take most of the time
MOST_PLOTTERS = 4
CHECKED = (
    'confounds', 'motion', 'reference', 'brain_mask', 'curves', 'tissue_curves', 'bolus',
    'deconvolution', 'normalization', 'symmetry', 'tmax', 'cbf', 'cbv', 'mtt', 'ttp',
    'tmax_repeats', 'tissue_mask', 'rcbf_global', 'rcbf_local', 'unassessable_mask', 'homologues',
    'homologue_reference', 'homologue_tissue', 'hemispheres', 'core_global', 'core_local',
    'hypoperfusion', 'mismatch_global', 'mismatch_local', 'hypodense_mask', 'entry', 'aif_mask',
    'vof_mask',
)  # fmt: skip
JUDGED = ('lesion', 'symmetry', 'normalization', 'segmentation', 'hypodensity', 'masks')
DRAWN = (
    'reference', 'brain_mask', 'tissue_mask', 'cbf', 'cbv', 'mtt', 'tmax', 'ttp', 'rcbf_global',
    'rcbf_local', 'core_global', 'core_local', 'hypoperfusion', 'hemispheres',
    'reference_reflected', 'homologue_reference', 'aif_mask', 'vof_mask', 'curves', 'confounds', 'volumes',
    'unassessable_mask', 'entry', 'probability_global', 'probability_local', 'followup_mask',
)  # fmt: skip
DRAWN_IN_TEMPLATE = ('region_labels', 'region_names')
VIEWED = (
    'reference', 'reference_reflected', 'homologue_reference', 'brain_mask', 'tissue_mask',
    'unassessable_mask', 'cbf', 'cbv', 'mtt', 'tmax', 'rcbf_global', 'rcbf_local', 'core_global',
    'core_local', 'hypoperfusion', 'hemispheres', 'aif_mask', 'vof_mask', 'homologues', 'symmetry',
    'tissue_curves', 'curves', 'entry', 'followup_mask',
)  # fmt: skip


def init_quality_wf(
    series: Series,
    method: MethodSettings,
    run: RunSettings,
    threads: int = 1,
    name: str = 'quality_wf',
) -> LiterateWorkflow:
    """Assess the quality of a series and draw its figures.

    Parameters
    ----------
    series : CTPSeries or PrecomputedMaps
    method : MethodSettings
    run : RunSettings
    threads : int
        Figures drawn side by side, each by a process, at most `MOST_PLOTTERS`.
    name : str

    Returns
    -------
    LiterateWorkflow
        Inputs: those of `CHECKED`, `DRAWN` and `VIEWED`, and of `DRAWN_IN_TEMPLATE` if there is a
        template. Outputs: ``quality`` ``limits``.
    """
    workflow = LiterateWorkflow(name=name)
    threads = min(threads, MOST_PLOTTERS)
    # relative CBF is not drawn as CBF
    relative = series.is_relative
    checked, drawn, viewed = (
        [port for port in ports if not (relative and port == 'cbf')]
        for ports in (CHECKED, DRAWN, VIEWED)
    )
    if method.template.wanted:
        drawn += DRAWN_IN_TEMPLATE
    ports = list(dict.fromkeys((*checked, *drawn, *viewed)))
    inputnode = pe.Node(IdentityInterface(ports), name='inputnode')
    assess_quality = pe.Node(
        AssessQuality(settings=method.as_dict(*JUDGED)),
        name='assess_quality',
    )
    plot_series = pe.Node(
        PlotSeries(prefix=series.prefix, settings=method.as_dict('lesion'), num_threads=threads),
        name='plot_series',
        mem_gb=0.5 + 0.15 * (threads - 1),
    )
    pack_viewer = pe.Node(PackViewer(prefix=series.prefix), name='pack_viewer', mem_gb=0.5)
    write_figures = pe.Node(
        WriteFigures(
            prefix=series.prefix,
            folder=str(run.output_dir / f'sub-{series.participant}' / 'figures'),
        ),
        name='write_figures',
        overwrite=True,
    )
    outputnode = pe.Node(IdentityInterface(['quality', 'limits']), name='outputnode')
    workflow.connect([
        (inputnode, assess_quality, [(port, port) for port in checked]),
        (inputnode, plot_series, [(port, port) for port in drawn]),
        (inputnode, pack_viewer, [(port, port) for port in viewed]),
        (assess_quality, plot_series, [('quality', 'quality')]),
        (plot_series, write_figures, [('figures', 'figures')]),
        (pack_viewer, write_figures, [('viewer', 'viewer')]),
        (assess_quality, outputnode, [('quality', 'quality'), ('limits', 'limits')]),
    ])  # fmt: skip
    return workflow
