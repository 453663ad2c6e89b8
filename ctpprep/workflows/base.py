# SPDX-License-Identifier: Apache-2.0
"""The whole graph: every series through every stage."""

import math
from collections.abc import Sequence

from niworkflows.engine.workflows import LiterateWorkflow

from ctpprep.inputs.series import CTPSeries, Series, workflow_name
from ctpprep.perfusion.grid import block_factors
from ctpprep.settings import LEAST_GB, MethodSettings, RunSettings
from ctpprep.workflows.coregistration import init_coregistration_wf
from ctpprep.workflows.deconvolution import init_deconvolution_wf
from ctpprep.workflows.lineage import Graph
from ctpprep.workflows.normalization import init_normalization_wf
from ctpprep.workflows.outputs import init_writer
from ctpprep.workflows.precomputed import init_precomputed_wf
from ctpprep.workflows.preprocessing import init_preprocessing_wf
from ctpprep.workflows.quality import init_quality_wf
from ctpprep.workflows.segmentation import init_segmentation_wf
from ctpprep.workflows.symmetry import init_symmetry_wf

# most that a node was seen to need above that: 1.2 GB for maps of 5.2 million voxels
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
        One workflow a participant, in it one a series, in it one a stage.
    """
    workflow = LiterateWorkflow(name='ctpprep_wf')
    # with as many series as processes each has enough to do without threads
    threads = max(1, run.nprocs // max(1, len(series)))
    for label in dict.fromkeys(each.participant for each in series):
        participant = LiterateWorkflow(name=workflow_name(f'sub-{label}'))
        mine = [each for each in series if each.participant == label]
        participant.add_nodes([init_series_wf(each, method, run, threads) for each in mine])
        workflow.add_nodes([participant])
    return workflow


def init_series_wf(
    series: Series, method: MethodSettings, run: RunSettings, threads: int = 1
) -> LiterateWorkflow:
    """Build the graph of one series: its stages share ports of the same names.

    A raw series and maps made elsewhere enter at different stages and end in the same ports: nothing
    further on knows which it was.

    Parameters
    ----------
    series : CTPSeries or PrecomputedMaps
    method : MethodSettings
    run : RunSettings
    threads : int
        Threads of the stages that can use them; changes no result.

    Returns
    -------
    LiterateWorkflow
    """
    workflow = LiterateWorkflow(name=series.workflow_name)
    mem_gb = 0.0
    if not series.has_frames:
        stages = {'precomputed': init_precomputed_wf(series, method)}
        # the software that computed Tmax is not known: there is no uncalibrated Tmax
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
        'quality': init_quality_wf(series, method, run),
    }
    if series.ncct is not None:
        stages['coregistration'] = init_coregistration_wf(series, method)
    # a port is fed by the stage that puts out a quantity of its name; without one it stays empty
    graph = Graph(stages)
    makers = {port: stages[name] for port, name in graph.makers.items()}
    for stage in stages.values():
        if (inputnode := stage.get_node('inputnode')) is None:
            continue
        for port in inputnode.inputs.copyable_trait_names():
            if port in makers:
                workflow.connect(makers[port], f'outputnode.{port}', stage, f'inputnode.{port}')
    for name in stages:
        held = 4 * mem_gb if name == 'preprocessing' else 0.0  # it alone writes a series
        writer = init_writer(series, method, run, name, graph, LEAST_GB + held)
        for port in writer.interface.names:
            if port in makers:
                workflow.connect(makers[port], f'outputnode.{port}', writer, port)
    least = LEAST_GB
    if not series.has_frames:  # the grid of an NCCT has a hundred times the usual voxels
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
        GB of float32.
    """
    factors = block_factors(
        series.voxel_size_mm,
        series.sample_times,
        method.grid.working_in_plane_mm,
        method.grid.working_slice_mm,
    )
    sizes = [size // factor for size, factor in zip(series.shape, factors, strict=True)]
    return math.prod(sizes) * len(series.frame_times) * 4 / 1e9
