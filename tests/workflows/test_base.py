# SPDX-License-Identifier: Apache-2.0
"""The whole graph: every port is fed, every series has its own."""

import dataclasses
from pathlib import Path

import pytest
from nipype.interfaces.base import File, isdefined
from nipype.interfaces.utility import IdentityInterface

from ctpprep.interfaces.base import StageInterface
from ctpprep.settings import MethodSettings
from ctpprep.workflows.base import init_ctpprep_wf, init_series_wf, working_gb

STAGES = ('preprocessing', 'deconvolution', 'symmetry', 'normalization', 'segmentation', 'quality')


def wired(workflow):
    """Give every node of a graph with the names of the ports that another node feeds."""
    graph = workflow._create_flat_graph()
    return {
        node: {
            port for _, _, edge in graph.in_edges(node, data=True) for _, port in edge['connect']
        }
        for node in graph.nodes
    }


# what one of the two entries alone puts out
MAPS_ALONE = {'entry', 'raw'}  # the raw series beside a supplied one
ATLAS = {'atlas', 'atlas_labels'}  # a user's
SERIES_ALONE = {
    'ncct', 'reference_to_ncct', 'ttp_template', 'probability_global_template',
    'probability_local_template', 'followup_mask', 'confounds', 'motion', 'curves', 'bolus',
    'deconvolution', 'aif_mask', 'vof_mask', 'cbf_noise', 'probability_global',
    'probability_local', 'tissue_curves', 'tmax_repeats', 'ttp',
}  # fmt: skip


def hungry(workflow, names, missing=MAPS_ALONE):
    """List ports that nothing feeds and nobody set; `names` chooses the ports of a node."""
    return [
        f'{node.fullname}.{port}'
        for node, fed in wired(workflow).items()
        for port in names(node)
        if not port.startswith('supplied_')  # a user's, mostly absent
        and port not in fed | missing | ATLAS
        and not isdefined(getattr(node.inputs, port))
    ]


def mandatory(node):
    return node.interface.inputs.traits(mandatory=True)


def files(node):
    """Name the ports that take a file, also those that may stay empty."""
    traits = node.interface.inputs.traits()
    return [name for name, trait in traits.items() if trait.is_trait_type(File)]


def ports_between_stages(node):
    if isinstance(node.interface, IdentityInterface):
        return node.inputs.copyable_trait_names()
    return getattr(node.interface, 'names', ())


# -- every port is fed


@pytest.mark.parametrize('ports', [mandatory, files, ports_between_stages])
@pytest.mark.parametrize('motion_correction', [True, False])
def test_every_port_is_fed(make_series, run, ports, motion_correction):
    method = MethodSettings.of(
        motion_correction=motion_correction, output_spaces=('MNI152NLin2009aSym',)
    )
    unfed = hungry(init_series_wf(make_series(ncct=True, lesion=True), method, run), ports)
    if not motion_correction:  # without transforms nothing moves
        unfed = [port for port in unfed if not port.endswith('correct_motion.transforms')]
    assert unfed == []


@pytest.mark.parametrize('ports', [mandatory, files, ports_between_stages])
@pytest.mark.parametrize('masks', [False, True])
def test_every_port_is_fed_from_maps(make_maps, run, ports, masks):
    method = MethodSettings.of(output_spaces=('MNI152NLin2009aSym',))
    workflow = init_series_wf(make_maps(masks=masks), method, run)
    unfed = hungry(workflow, ports, SERIES_ALONE)
    assert [port for port in unfed if '.standardize_maps.' not in port] == []


def test_without_cbv_nothing_is_made_of_it(make_maps, run):
    workflow = init_series_wf(make_maps(('rcbf', 'tmax')), MethodSettings(), run)
    assert 'normalize_contralateral_rcbv' not in node_names(workflow)
    assert hungry(workflow, mandatory) == []


def test_relative_flow_is_not_drawn_as_cbf(make_maps, run):
    workflow = init_series_wf(make_maps(('rcbf', 'tmax')), MethodSettings(), run)
    fed = {node.name: ports for node, ports in wired(workflow).items()}
    assert 'cbf' not in fed['plot_series']
    assert 'cbf' in fed['normalize_global']


def test_both_entries_share_what_follows(make_series, make_maps, run):
    shared = ('symmetry_wf', 'normalization_wf', 'segmentation_wf', 'quality_wf')
    of_series, of_maps = (
        {
            name
            for name in init_series_wf(series, MethodSettings(), run).list_node_names()
            if name.split('.')[0] in shared
        }
        for series in (make_series(), make_maps())
    )
    assert of_series == of_maps


def test_sidecars_of_maps_name_no_settings_of_stages_that_were_left_out(make_maps, run):
    workflow = init_series_wf(make_maps(), MethodSettings(), run)
    stages = {
        stage
        for node in wired(workflow)
        for row in getattr(node.inputs, 'rows', ())
        for stage in row['sidecar'].get('Settings', {})
    }
    assert stages & {'masks', 'lesion'}
    assert not stages & {
        'grid', 'motion', 'denoising', 'vessels', 'deconvolution', 'coregistration'
    }  # fmt: skip
    assert 'were precomputed by other software' in workflow.visit_desc()
    assert 'Tikhonov' not in workflow.visit_desc()


def test_methods_tell_the_limit_of_a_mirrored_map(make_maps, run):
    method = MethodSettings.of(map_least_similarity=0.35)
    for density, limit in ((False, 'than 0.35'), (True, 'than 0.35, where a map is mirrored')):
        workflow = init_series_wf(make_maps(density=density), method, run)
        ports = {node.name: fed for node, fed in wired(workflow).items()}
        for name in ('register_mirror', 'assess_quality'):
            assert 'entry' in ports[name]
        assert limit in ' '.join(workflow.visit_desc().split())


def test_methods_tell_what_is_done_if_a_ct_does_not_fit(make_maps, run):
    graphs = [
        init_series_wf(make_maps(density=density), MethodSettings(), run)
        for density in (True, False)
    ]
    texts = [' '.join(graph.visit_desc().split()) for graph in graphs]
    assert 'A CT that does not match the maps is not used' in texts[0]
    assert 'If the CT shows no brain, the brain is where the maps have values' in texts[0]
    assert 'CT shows no brain' not in texts[1]


def test_every_reader_of_a_users_image_is_given_the_chosen_affine(
    make_series, make_maps, supplied, run
):
    method = MethodSettings.of(output_spaces=('MNI152NLin2009aSym',))
    masks = {name: supplied(f'{name}.nii.gz') for name in ('brain_mask', 'aif_mask')}
    series = make_series(ncct=True, lesion=True, overrides=masks)
    run = dataclasses.replace(run, affine_from='qform')
    for item in (series, make_maps(masks=True, density=True)):
        item = dataclasses.replace(item, affine_from='qform')
        files = {str(file.path) for file in item.files.values()}
        readers = [
            node
            for node in init_series_wf(item, method, run)._create_flat_graph().nodes
            if isinstance(node.interface, StageInterface)
            and any(value in files for value in node.inputs.get_traitsfree().values()
                    if isinstance(value, str))
        ]  # fmt: skip
        assert readers
        assert {node.name: node.inputs.affine_from for node in readers} == dict.fromkeys(
            [node.name for node in readers], 'qform'
        )


def test_a_missing_connection_is_seen(make_series, run):
    workflow = init_series_wf(make_series(), MethodSettings(), run)
    stage = workflow.get_node('deconvolution_wf')
    first, second = stage.get_node('find_vessels'), stage.get_node('deconvolve')
    stage.disconnect(first, 'curves', second, 'curves')
    assert [port.split('.')[-2:] for port in hungry(workflow, mandatory)] == [
        ['deconvolve', 'curves']
    ]


def test_whatever_connection_is_missing_is_seen(make_series, make_maps, run):
    """No port that a node feeds is set otherwise, or overlooked by the tests above."""
    for series, missing in ((make_series(ncct=True), MAPS_ALONE), (make_maps(), SERIES_ALONE)):
        nodes = wired(init_series_wf(series, MethodSettings(), run))
        overlooked = {
            f'{node.name}.{port}'
            for node, fed in nodes.items()
            for port in fed - missing
            if isdefined(getattr(node.inputs, port))
            or not any(port in ports(node) for ports in (mandatory, files, ports_between_stages))
        }
        # 0 unless the reference is another frame, and empty for most series; looked at below
        assert overlooked <= {'correct_motion.reference_frame', 'make_masks.empty_slices'}


def test_motion_reaches_the_correction(make_series, run):
    workflow = init_series_wf(make_series(), MethodSettings(), run)
    ports = {node.name: fed for node, fed in wired(workflow).items()}
    assert {'transforms', 'reference_frame'} <= ports['correct_motion']
    assert 'empty_slices' in ports['make_masks']


def test_nothing_is_computed_in_vain(make_series, run):
    """Every node is a writer or feeds another one."""
    graph = init_series_wf(make_series(), MethodSettings(), run)._create_flat_graph()
    ends = {node.name for node in graph.nodes if not graph.out_degree(node)}
    ends = {name for name in ends if name != 'outputnode'}
    assert ends == {'write_figures', *(f'write_{stage}' for stage in STAGES)}


# -- series, sessions, names


def node_names(workflow):
    return {name.rpartition('.')[2] for name in workflow.list_node_names()}


def test_nodes_are_named_after_their_steps(make_series, run):
    steps = {
        'prepare_series', 'estimate_motion', 'correct_motion', 'make_masks', 'find_vessels',
        'deconvolve', 'mirror_image', 'register_mirror', 'find_homologues', 'normalize_global',
        'apply_mirror_rcbf', 'apply_mirror_rcbv', 'normalize_contralateral_rcbf',
        'normalize_contralateral_rcbv',
        'segment_lesions', 'measure_volumes', 'assess_quality', 'plot_series',
    }  # fmt: skip
    assert steps < node_names(init_series_wf(make_series(), MethodSettings(), run))


def test_each_stage_is_a_workflow_of_its_name(make_series, run):
    names = init_series_wf(make_series(), MethodSettings(), run).list_node_names()
    inner = {name.split('.')[0] for name in names if '.' in name}
    assert inner == {f'{stage}_wf' for stage in STAGES}


def test_a_series_with_an_ncct_is_registered_to_it(make_series, run):
    workflow = init_series_wf(make_series(ncct=True), MethodSettings(), run)
    assert {'register_ncct', 'write_coregistration'} < node_names(workflow)
    sources = workflow.get_node('write_coregistration').inputs.rows[0]['sidecar']['Sources']
    assert 'bids:raw:sub-01/ct/sub-01_ncct.nii.gz' in sources


def test_two_sessions_and_two_participants_each_have_their_own_graph(make_series, run):
    several = [make_series('01', 'a'), make_series('01', 'b'), make_series('02')]
    workflow = init_ctpprep_wf(several, MethodSettings(), run)
    homes = {tuple(name.split('.')[:2]) for name in workflow.list_node_names()}
    assert homes == {
        ('sub_01_wf', 'sub_01_ses_a_wf'),
        ('sub_01_wf', 'sub_01_ses_b_wf'),
        ('sub_02_wf', 'sub_02_wf'),
    }
    assert hungry(workflow, mandatory) == []
    assert {
        node.inputs.ctp for node in wired(workflow) if node.name == 'prepare_series'
    } == {str(series.path) for series in several}  # fmt: skip


def test_no_two_series_write_the_same_file(make_series, run):
    several = [make_series('01', 'a'), make_series('01', 'b'), make_series('02')]
    nodes = wired(init_ctpprep_wf(several, MethodSettings(), run))
    paths = [
        row['path']
        for node in nodes
        if node.name.startswith('write_') and node.name != 'write_figures'
        for row in node.inputs.rows
    ]
    assert len(paths) == len(set(paths))
    assert {Path(path).parent.as_posix() for path in paths} == {
        'sub-01/ses-a/ct',
        'sub-01/ses-b/ct',
        'sub-02/ct',
    }


# -- steps that are left out


def test_no_motion_node_without_motion_correction(make_series, run):
    workflow = init_series_wf(make_series(), MethodSettings.of(motion_correction=False), run)
    assert 'estimate_motion' not in node_names(workflow)
    assert 'correct_motion' in node_names(workflow)


def test_absent_motion_correction_stands_in_a_sidecar(make_series, run):
    workflow = init_series_wf(make_series(), MethodSettings.of(motion_correction=False), run)
    row = workflow.get_node('write_preprocessing').inputs.rows[0]
    assert row['sidecar']['Settings']['motion']['motion_correction'] is False


# -- memory, text


def test_memory_is_planned_by_the_working_grid(make_series):
    """512 x 512 x 320 voxels of 0.43 x 0.43 x 0.5 mm are averaged to 128 x 128 x 32."""
    series = make_series()
    fine = dataclasses.replace(
        series, shape=(512, 512, 320), voxel_size_mm=(0.43, 0.43, 0.5),
        sample_times=series.sample_times[:1] * 320,
    )  # fmt: skip
    coarse = dataclasses.replace(
        series, shape=(128, 128, 32), voxel_size_mm=(1.72, 1.72, 5.0),
        sample_times=series.sample_times[:1] * 32,
    )  # fmt: skip
    method, frames = MethodSettings(), len(series.frame_times)
    assert working_gb(fine, method) == working_gb(coarse, method)
    assert working_gb(coarse, method) == pytest.approx(128 * 128 * 32 * frames * 4 / 1e9)


def test_memory_of_nodes_grows_with_the_series_and_with_maps(make_series, make_maps, run):
    def planned(series, **changes):
        workflow = init_series_wf(dataclasses.replace(series, **changes), MethodSettings(), run)
        return {node.name: node.mem_gb for node in wired(workflow)}

    small, large = (planned(make_series(), shape=(128, 128, z)) for z in (40, 4000))
    assert small['deconvolve'] < large['deconvolve']
    assert small['segment_lesions'] == large['segment_lesions'] >= 0.3
    assert min(planned(make_maps(), n_voxels=5_000_000).values()) > 1


def test_methods_text_tells_the_settings_that_were_used(make_series, run):
    method = MethodSettings.of(core_rcbf=0.25, hypoperfusion_tmax=7.0, motion_correction=False)
    text = ' '.join(init_series_wf(make_series(), method, run).visit_desc().split())
    assert 'relative CBF below 25%' in text
    assert 'Tmax above 7 s' in text
    assert 'Head motion was not corrected' in text
