# SPDX-License-Identifier: Apache-2.0
"""The whole graph: every stage of every series."""

import math
from collections.abc import Sequence

from niworkflows.engine.workflows import LiterateWorkflow

from ctpprep.inputs.series import CTPSeries, Series, workflow_name
from ctpprep.io.templates import find_spaces
from ctpprep.perfusion.grid import block_factors, count_blocks
from ctpprep.settings import LEAST_GB, MethodSettings, RunSettings
from ctpprep.workflows.coregistration import init_coregistration_wf
from ctpprep.workflows.deconvolution import init_deconvolution_wf
from ctpprep.workflows.followup import init_followup_wf
from ctpprep.workflows.lineage import Graph
from ctpprep.workflows.normalization import init_normalization_wf
from ctpprep.workflows.outputs import init_writer
from ctpprep.workflows.precomputed import init_precomputed_wf
from ctpprep.workflows.preprocessing import init_preprocessing_wf
from ctpprep.workflows.quality import init_quality_wf
from ctpprep.workflows.segmentation import init_segmentation_wf
from ctpprep.workflows.symmetry import init_symmetry_wf
from ctpprep.workflows.template import init_template_wf

# largest additional memory measured for a node: 1.2 GB for maps of 5.2 million voxels
GB_A_VOXEL = 2.2e-7


def init_ctpprep_wf(
    series: Sequence[Series], method: MethodSettings, run: RunSettings
) -> LiterateWorkflow:
    """Build the graph of all series.

    Parameters
    ----------
    series : sequence of CTPSeries and PrecomputedMaps
    method : MethodSettings
    run : RunSettings

    Returns
    -------
    LiterateWorkflow
        One workflow per participant, which contains one per series and, in these, one per stage.
    """
    workflow = LiterateWorkflow(name='ctpprep_wf')
    # with at least as many series as processes, threads would not speed up the run; a plugin of the
    # user starts steps elsewhere, with cores of their own
    threads = 1 if run.use_plugin else max(1, run.nprocs // max(1, len(series)))
    for label in dict.fromkeys(item.participant for item in series):
        participant = LiterateWorkflow(name=workflow_name(f'sub-{label}'))
        own = [item for item in series if item.participant == label]
        participant.add_nodes([init_series_wf(item, method, run, threads) for item in own])
        workflow.add_nodes([participant])
    return workflow


def init_series_wf(
    series: Series, method: MethodSettings, run: RunSettings, threads: int = 1
) -> LiterateWorkflow:
    """Build the graph of one series, whose stages are connected by the names of their ports.

    A raw series and precomputed maps enter at different stages, but provide the same ports, so that
    the later stages are the same for both.

    Parameters
    ----------
    series : CTPSeries or PrecomputedMaps
    method : MethodSettings
    run : RunSettings
    threads : int
        Threads of the stages that can use them; the result is the same for any number.

    Returns
    -------
    LiterateWorkflow
    """
    workflow = LiterateWorkflow(name=series.workflow_name)
    mem_gb = 0.0
    if not series.has_frames:
        stages = {'precomputed': init_precomputed_wf(series, method)}
        # the offset of precomputed Tmax is unknown, so there is no uncalibrated Tmax
        method = method.change(tmax_calibration=False)
    else:
        mem_gb = working_gb(series, method)
        stages = {
            'preprocessing': init_preprocessing_wf(series, method, mem_gb, threads),
            'deconvolution': init_deconvolution_wf(series, method, mem_gb, threads),
        }
    stages |= {
        'symmetry': init_symmetry_wf(method, series),
        'normalization': init_normalization_wf(method, series.quantities),
        'segmentation': init_segmentation_wf(method, series.has_frames),
        'quality': init_quality_wf(series, method, run, threads),
    }
    if series.ncct is not None:
        stages['coregistration'] = init_coregistration_wf(series, method)
    if series.lesion is not None:
        stages['followup'] = init_followup_wf(series, series.lesion, method)
    for space in find_spaces(method.template.output_spaces):
        stages[space.stage] = init_template_wf(series, method, run, space)
    # a port is connected to the stage that outputs the quantity of its name, if there is one
    graph = Graph(stages)
    makers = {port: stages[name] for port, name in graph.makers.items()}
    for stage in stages.values():
        if (inputnode := stage.get_node('inputnode')) is None:
            continue
        for port in inputnode.inputs.copyable_trait_names():
            if port in makers:
                workflow.connect(makers[port], f'outputnode.{port}', stage, f'inputnode.{port}')
    for name in stages:
        extra_gb = (
            4 * mem_gb if name == 'preprocessing' else 0.0
        )  # only this stage writes a series
        writer = init_writer(series, method, run, name, graph, LEAST_GB + extra_gb)
        for port in writer.interface.names:
            if port in makers:
                workflow.connect(makers[port], f'outputnode.{port}', writer, port)
    least = LEAST_GB
    if not series.has_frames:  # the grid of an NCCT has a hundred times as many voxels as usual
        least += GB_A_VOXEL * series.n_voxels
    for node_name in workflow.list_node_names():
        node = workflow.get_node(node_name)
        node._mem_gb = max(node.mem_gb, least)
    return workflow


def working_gb(series: CTPSeries, method: MethodSettings) -> float:
    """Estimate the size of the working series.

    Parameters
    ----------
    series : CTPSeries
    method : MethodSettings

    Returns
    -------
    float
        Size as float32, GB.
    """
    factors = block_factors(
        series.voxel_size_mm,
        series.sample_times,
        method.grid.working_in_plane_mm,
        method.grid.working_slice_mm,
    )
    sizes = [count_blocks(*axis) for axis in zip(series.shape, factors, strict=True)]
    return math.prod(sizes) * len(series.frame_times) * 4 / 1e9
