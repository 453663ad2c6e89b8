# SPDX-License-Identifier: Apache-2.0
"""Sources and settings of sidecars are those of the graph, whose connections join what they should."""

import json
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    SimpleInterface,
    TraitedSpec,
    traits,
)
from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline.engine import Node, Workflow

from ctpprep.settings import MethodSettings
from ctpprep.workflows.base import init_series_wf
from ctpprep.workflows.lineage import Graph


class _StepInputSpec(BaseInterfaceInputSpec):
    settings = traits.Dict(traits.Str, traits.Dict)
    raw = File()
    one = File()
    two = File()


class _StepOutputSpec(TraitedSpec):
    out = File()


class Step(SimpleInterface):
    """A node that is never run."""

    input_spec, output_spec = _StepInputSpec, _StepOutputSpec


def make_stage(inputs, steps, outputs):
    """Make a stage: settings and sources by step, and the step behind each output.

    A source is another step, or an input of the stage.
    """
    stage = Workflow('stage')
    nodes = {name: Node(Step(**traits), name) for name, (traits, _) in steps.items()}
    if inputs:
        nodes['inputnode'] = Node(IdentityInterface(inputs), 'inputnode')
    nodes['outputnode'] = Node(IdentityInterface([*outputs]), 'outputnode')
    stage.add_nodes([*nodes.values()])
    for name, (_, sources) in steps.items():
        for source, port in zip(sources, ('one', 'two'), strict=False):
            if source in inputs:
                stage.connect(nodes['inputnode'], source, nodes[name], port)
            else:
                stage.connect(nodes[source], 'out', nodes[name], port)
    for quantity, name in outputs.items():
        stage.connect(nodes[name], 'out', nodes['outputnode'], quantity)
    return stage


def settings(stage, **values):
    return {'settings': {stage: values}}


@pytest.fixture
def graph():
    """Two stages: raw -> read -> smooth -> (curve, map), and of map and curve a mask."""
    first = make_stage(
        [],
        {
            'read': ({'raw': '/x/ctp.nii', **settings('grid', size=2)}, ()),
            'smooth': (settings('denoising', rank=6), ('read',)),
            'fit': (settings('deconvolution', order=1), ('smooth',)),
        },
        {'series': 'read', 'curve': 'smooth', 'map': 'fit'},
    )
    second = make_stage(
        ['map', 'curve'],
        {
            'clean': (settings('masks', bone=130), ('map', 'curve')),
            'threshold': (settings('lesion', rcbf=0.3), ('clean',)),
        },
        {'mask': 'threshold'},
    )
    return Graph({'first': first, 'second': second})


# -- sources


def test_a_source_is_a_written_quantity(graph):
    assert [*graph.trace('curve', {'series', 'curve'}).ports] == ['series']


def test_what_is_not_written_is_passed_through(graph):
    assert {*graph.trace('mask', {'series', 'map', 'mask'}).ports} == {'map', 'series'}


def test_the_nearest_written_ancestors_alone_are_sources(graph):
    assert {*graph.trace('mask', {'series', 'curve', 'map', 'mask'}).ports} == {'map', 'curve'}


def test_a_file_from_outside_is_a_source_of_what_is_made_from_it(graph):
    assert graph.trace('series', {'series'}).files == {'/x/ctp.nii': ('read', 'raw')}


def test_a_file_from_outside_is_passed_through_what_is_not_written(graph):
    assert [*graph.trace('mask', {'mask'}).files] == ['/x/ctp.nii']


def test_a_file_from_outside_is_no_source_behind_a_written_quantity(graph):
    assert graph.trace('mask', {'series', 'mask'}).files == {}


def test_a_quantity_is_not_its_own_source(graph):
    assert [*graph.trace('map', {'map'}).ports] == []


def test_a_quantity_that_nothing_makes_has_no_lineage(graph):
    lineage = graph.trace('entry', {'map'})
    assert (lineage.ports, lineage.files, lineage.settings) == ({}, {}, {})


def test_a_file_behind_a_written_and_an_unwritten_quantity_is_a_source(graph):
    """The mask is made from the map, which is written, and from the curve, which is not."""
    assert [*graph.trace('mask', {'map', 'mask'}).files] == ['/x/ctp.nii']


# -- settings


def test_settings_are_those_of_all_ancestors_also_behind_written_ones(graph):
    assert graph.trace('mask', {'series', 'curve', 'map', 'mask'}).settings == {
        'grid': {'size': 2}, 'denoising': {'rank': 6}, 'deconvolution': {'order': 1},
        'masks': {'bone': 130}, 'lesion': {'rcbf': 0.3},
    }  # fmt: skip


def test_settings_of_what_is_made_beside_or_after_do_not_count(graph):
    assert {*graph.trace('curve', ()).settings} == {'grid', 'denoising'}


# -- the graph of a series

FRAMES = {'ctp_corrected', 'confounds'}
VASCULAR = {*FRAMES, 'tissue_mask'}
CURVES = {*VASCULAR, 'curves'}
HOMOLOGUES = {'reference', 'brain_mask', 'mirror_to_reference', 'tissue_mask'}
GLOBAL = {'cbf', 'cbv', 'tmax', 'tissue_mask', 'hemispheres'}
LESIONS = {*GLOBAL, 'rcbf_global', 'rcbf_local', 'unassessable_mask'}
MASKS = {'core_global', 'core_local', 'hypoperfusion', 'mismatch_global', 'mismatch_local'}
# quantities, and what they are made from; files from outside are looked at below
TABLE = (
    ('ctp_corrected frame_transforms confounds', set()),
    ('reference brain_mask tissue_mask vessel_mask csf_mask', FRAMES),
    ('curves aif_mask vof_mask', VASCULAR),
    ('cbf cbv mtt tmax ttp noise tissue_share', CURVES),
    ('reference_mirror reference_to_ncct', {'reference'}),
    ('mirror_to_reference reference_to_mirror', {'reference', 'brain_mask'}),
    ('hemispheres', HOMOLOGUES),
    ('rcbf_global rcbv_global', GLOBAL),
    ('rcbf_mirrored rcbf_local unassessable_mask', {*HOMOLOGUES, 'rcbf_global'}),
    ('rcbv_mirrored rcbv_local', {*HOMOLOGUES, 'rcbv_global'}),
    (' '.join([*MASKS, 'lesions']), LESIONS),
    ('probability_global probability_local', {*LESIONS, *CURVES, 'hypoperfusion'}),
    ('hypodense_mask', {*HOMOLOGUES, 'core_global', 'core_local'}),
    ('volumes', {*LESIONS, *CURVES, *MASKS, 'rcbv_global', 'hypodense_mask', 'reference',
                 'brain_mask'}),
    ('quality', {*LESIONS, *CURVES, *MASKS, *HOMOLOGUES, 'mtt', 'ttp', 'hypodense_mask', 'aif_mask',
                 'vof_mask'}),
)  # fmt: skip
SOURCES = {name: sources for names, sources in TABLE for name in names.split()}


@pytest.fixture(scope='module')
def rows(make_series, rows_of):
    return rows_of(make_series(ncct=True))


def test_every_written_quantity_has_its_sources(rows):
    assert {name: {*row['made_from']} for name, row in rows.items()} == SOURCES


def test_the_raw_series_is_the_source_of_what_no_written_quantity_stands_between(rows):
    of_series = {
        name
        for name, row in rows.items()
        if 'bids:raw:sub-01/ct/sub-01_ctp.nii.gz' in row['sidecar']['Sources']
    }
    # the acquisition times of slices are read from it and not written
    assert {'ctp_corrected', 'frame_transforms', 'confounds'} <= of_series
    assert not of_series & {'reference_mirror', 'hemispheres', 'rcbf_global', 'core_global'}


@pytest.mark.parametrize(
    ('stage', 'source', 'target', 'port', 'quantity', 'lost'),
    [
        ('segmentation', 'inputnode', 'segment_lesions', 'rcbf_global', 'core_global', 'rcbf_global'),
        ('segmentation', 'inputnode', 'segment_lesions', 'rcbf_local', 'core_local', 'rcbf_local'),
        ('normalization', 'inputnode', 'normalize_global', 'cbf', 'rcbf_global', 'cbf'),
        ('deconvolution', 'find_vessels', 'deconvolve', 'curves', 'cbf', 'curves'),
        ('segmentation', 'find_hypodense', 'measure_volumes', 'hypodense_mask', 'volumes',
         'hypodense_mask'),
    ],
)  # fmt: skip
def test_a_connection_that_is_cut_is_missing_in_the_sources(
    make_series, run, stage, source, target, port, quantity, lost
):
    workflow = init_series_wf(make_series(), MethodSettings(), run)
    stages = {name: workflow.get_node(f'{name}_wf') for name in STAGES}
    part, graph = stages[stage], Graph(stages)
    before = graph.trace(quantity, SOURCES).ports
    part.disconnect(part.get_node(source), port, part.get_node(target), port)
    assert {*before} - {*graph.trace(quantity, SOURCES).ports} == {lost}


# -- connections

STAGES = ('preprocessing', 'deconvolution', 'symmetry', 'normalization', 'segmentation', 'quality')
# connections between ports of different names; all others join ports of one name
RENAMED = {
    ('register_mirror.mirror_to_reference', 'find_homologues.transform'),
    *(
        (source.format(quantity), target.format(quantity))
        for quantity in ('rcbf', 'rcbv')
        for source, target in (
            ('normalize_global.{}_global', 'apply_mirror_{}.relative'),
            ('inputnode.mirror_to_reference', 'apply_mirror_{}.transform'),
            ('normalize_global.{}_global', 'normalize_contralateral_{}.relative'),
            ('normalize_contralateral_{}.homologue_map', 'outputnode.{}_mirrored'),
            ('normalize_contralateral_{}.local', 'outputnode.{}_local'),
        )
    ),
}


def connections(workflow):
    """List all connections: node and port of the source, node and port of the target."""
    for source, target, edge in workflow._create_flat_graph().edges(data=True):
        for port, into in edge['connect']:
            yield source, port, target, into


def test_every_connection_joins_ports_of_one_name_or_is_known_to_rename(make_series, run):
    workflow = init_series_wf(make_series(ncct=True), MethodSettings(), run)
    renamed = {
        (f'{source.name}.{port}', f'{target.name}.{into}')
        for source, port, target, into in connections(workflow)
        if port != into
    }
    assert renamed == RENAMED


def test_a_quantity_is_made_by_one_stage(make_series, run):
    """Between stages, a port is fed by the stage that puts out a quantity of its name."""
    workflow = init_series_wf(make_series(ncct=True), MethodSettings(), run)
    makers = {}
    for name in (*STAGES, 'coregistration'):
        outputnode = workflow.get_node(f'{name}_wf').get_node('outputnode')
        for port in outputnode.outputs.copyable_trait_names():
            assert makers.setdefault(port, name) == name


# -- files of the user


@pytest.mark.parametrize(
    ('piece', 'made_from_it'),
    [
        ('brain_mask', {'reference', 'brain_mask', 'tissue_mask', 'vessel_mask', 'csf_mask'}),
        ('ctp_corrected', {'ctp_corrected', 'frame_transforms', 'confounds'}),
        ('curves', {'curves', 'aif_mask', 'vof_mask'}),
        ('aif_mask', {'curves', 'aif_mask', 'vof_mask'}),
    ],
)
def test_a_supplied_file_is_a_source_of_what_was_made_from_it(
    make_series, rows_of, supplied, piece, made_from_it
):
    rows = rows_of(make_series(overrides={piece: supplied('x')}))
    named = {name for name, row in rows.items() if 'bids:manual:x' in row['sidecar']['Sources']}
    assert made_from_it <= named
    assert not named & {'reference_mirror', 'hemispheres', 'rcbf_global', 'core_global'}


def test_a_supplied_corrected_series_takes_the_place_of_the_raw_one(
    make_series, rows_of, supplied
):
    rows = rows_of(make_series(overrides={'ctp_corrected': supplied('x')}))
    sidecar = rows['ctp_corrected']['sidecar']
    assert sidecar['Sources'] == ['bids:manual:x']
    assert sidecar['Settings']['motion']['motion_correction'] is False


# -- what turns out to be missing when it is run


@pytest.fixture
def write(run, tmp_path):
    """Let the writer of a stage write what is there; return the sidecars by quantity."""

    def write(series, stage, present):
        writer = init_series_wf(series, MethodSettings(), run).get_node(f'write_{stage}').interface
        path = tmp_path / 'voxels.nii'
        nb.save(nb.Nifti1Image(np.zeros((2, 2, 2), np.float32), np.eye(4)), path)
        for port in present:
            setattr(writer.inputs, port, str(path))
        writer.inputs.output_dir = str(tmp_path / 'out')
        writer.run(cwd=str(tmp_path))
        paths = {
            row['name']: Path(tmp_path, 'out', row['path'].split('.')[0] + '.json')
            for row in writer.inputs.rows
        }
        return {
            name: json.loads(path.read_text()) for name, path in paths.items() if path.is_file()
        }

    return write


def test_a_source_whose_port_has_no_file_is_dropped(make_series, write):
    present = LESIONS - {'rcbf_local', 'unassessable_mask'} | {'core_global'}
    sources = write(make_series(), 'segmentation', present)['core_global']['Sources']
    names = {source.rpartition('sub-01_')[2] for source in sources}
    assert 'desc-global_rcbf.nii.gz' in names
    assert not names & {'desc-local_rcbf.nii.gz', 'label-unassessable_mask.nii.gz'}
    assert len(sources) == len(present) - 1


def test_a_source_whose_port_has_a_file_is_kept(make_series, write):
    sources = write(make_series(), 'segmentation', {*LESIONS, 'core_global'})
    assert len(sources['core_global']['Sources']) == len(LESIONS)


@pytest.mark.parametrize('used', [False, True])
def test_a_ct_is_a_source_of_maps_only_if_it_was_used(make_maps, write, used):
    present = {'brain_mask', *(['baseline_ct'] if used else [])}
    sources = write(make_maps(density=True), 'precomputed', present)['brain_mask']['Sources']
    assert ('bids:raw:sub-01/ct/sub-01_ncct.nii.gz' in sources) == used
    assert 'bids:raw:sub-01/ct/sub-01_cbf.nii.gz' in sources


def test_sources_of_relative_flow_are_the_maps_that_were_given(make_maps, rows_of):
    sources = rows_of(make_maps(('rcbf', 'tmax')))['rcbf_global']['sidecar']['Sources']
    assert 'bids:raw:sub-01/ct/sub-01_rcbf.nii.gz' in sources


def test_the_timing_is_named_by_what_is_made_from_frames(rows):
    timed = {name for name, row in rows.items() if 'TimingSource' in row['sidecar']}
    assert {'ctp_corrected', 'confounds', 'curves', 'cbf', 'tmax'} <= timed
    assert not timed & {'reference_mirror', 'hemispheres', 'rcbf_global', 'core_global'}


def test_settings_of_a_map_are_those_of_all_steps_before_it(rows):
    assert {*rows['cbf']['sidecar']['Settings']} == {
        'grid', 'motion', 'masks', 'denoising', 'vessels', 'kinetics', 'deconvolution'
    }  # fmt: skip
    assert {*rows['ctp_corrected']['sidecar']['Settings']} == {'grid', 'motion', 'masks'}


def test_settings_stand_in_the_order_of_the_stages(rows):
    order = [*MethodSettings().as_dict()]
    for row in rows.values():
        stages = [*row['sidecar']['Settings']]
        assert stages == sorted(stages, key=order.index)
