# SPDX-License-Identifier: Apache-2.0
"""The whole graph: every port is fed, every setting arrives, every series has its own."""

import dataclasses
import functools
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest
from nipype.interfaces.base import File, isdefined
from nipype.interfaces.utility import IdentityInterface

from ctpprep.inputs.series import CTPSeries, InputFile, PrecomputedMaps
from ctpprep.settings import MethodSettings, RunSettings
from ctpprep.workflows.base import init_ctpprep_wf, init_series_wf, working_gb

N_FRAMES, N_SLICES = 14, 4
STAGES = ('preprocessing', 'deconvolution', 'symmetry', 'normalization', 'segmentation', 'quality')


@pytest.fixture
def run(tmp_path):
    return RunSettings(tmp_path / 'raw', tmp_path / 'out', tmp_path / 'work')


def make_series(folder, participant='01', session=None):
    """Make a series of a participant and session whose voxels are all 0."""
    labels = [f'sub-{participant}'] + ([f'ses-{session}'] if session else [])
    path = folder / f'{"_".join(labels)}_ctp.nii.gz'
    nb.save(nb.Nifti1Image(np.zeros((2, 2, N_SLICES, N_FRAMES), np.int16), np.eye(4)), path)
    times = tuple(2.0 * frame for frame in range(N_FRAMES))
    where = '/'.join([*labels, 'ct'])
    return CTPSeries(
        path, '_'.join(labels), participant, session, where, f'bids:raw:{where}/{path.name}',
        times, (times,) * N_SLICES, 'RepetitionTime', {}, shape=(2, 2, N_SLICES),
        voxel_size_mm=(1.0, 1.0, 5.0),
    )  # fmt: skip


def with_ncct(folder):
    """Make a series whose session has a non-contrast CT."""
    home = folder / 'raw' / 'sub-01' / 'ct'
    home.mkdir(parents=True)
    ncct = home / 'sub-01_ncct.nii.gz'
    nb.save(nb.Nifti1Image(np.zeros((2, 2, 2), np.int16), np.eye(4)), ncct)
    return dataclasses.replace(make_series(home), ncct=ncct)


def make_maps(folder, names=('cbf', 'cbv', 'mtt', 'tmax'), masks=False, density=False):
    """Make a set of maps whose voxels are all 0."""

    def write(name):
        path = folder / f'sub-01_{name}.nii.gz'
        nb.save(nb.Nifti1Image(np.zeros((2, 2, N_SLICES), np.float32), np.eye(4)), path)
        return InputFile(path, f'bids:raw:sub-01/ct/{path.name}')

    return PrecomputedMaps(
        'sub-01', '01', None, 'sub-01/ct', '', {name: write(name) for name in names},
        dict.fromkeys(names, ''), write('ncct') if density else None, 'ncct' if density else '',
        {f'{name}_mask': write(f'desc-{name}_mask') for name in ('brain', 'tissue') if masks},
    )  # fmt: skip


@pytest.fixture
def series(tmp_path):
    return functools.partial(make_series, tmp_path)


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
MAPS_ALONE = {'entry'}
SERIES_ALONE = {
    'confounds', 'curves', 'bolus', 'deconvolution', 'aif_mask', 'vof_mask', 'cbf_noise',
    'probability_global', 'probability_local', 'tissue_curves',
}  # fmt: skip


def hungry(workflow, names, missing=MAPS_ALONE):
    """List ports that nothing feeds and nobody set; `names` chooses the ports of a node."""
    return [
        f'{node.fullname}.{port}'
        for node, fed in wired(workflow).items()
        for port in names(node)
        if not port.startswith('supplied_')  # a user's, mostly absent
        and port not in fed | missing
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
def test_every_port_is_fed(series, run, ports, motion_correction):
    method = MethodSettings.of(motion_correction=motion_correction)
    unfed = hungry(init_series_wf(series(), method, run), ports)
    if not motion_correction:  # without transforms nothing moves
        unfed = [port for port in unfed if not port.endswith('correct_motion.transforms')]
    assert unfed == []


@pytest.mark.parametrize('ports', [mandatory, files, ports_between_stages])
@pytest.mark.parametrize('made', [make_maps, functools.partial(make_maps, masks=True)])
def test_every_port_is_fed_from_maps(run, tmp_path, ports, made):
    workflow = init_series_wf(made(tmp_path), MethodSettings(), run)
    unfed = hungry(workflow, ports, SERIES_ALONE)
    assert [port for port in unfed if '.standardize_maps.' not in port] == []


def test_without_cbv_nothing_is_made_of_it(run, tmp_path):
    workflow = init_series_wf(make_maps(tmp_path, ('rcbf', 'tmax')), MethodSettings(), run)
    assert 'normalize_contralateral_rcbv' not in node_names(workflow)
    assert hungry(workflow, mandatory) == []


def test_relative_flow_is_not_drawn_as_cbf(run, tmp_path):
    fed = {
        node.name: ports
        for node, ports in wired(
            init_series_wf(make_maps(tmp_path, ('rcbf', 'tmax')), MethodSettings(), run)
        ).items()
    }
    assert 'cbf' not in fed['plot_series']
    assert 'cbf' in fed['normalize_global']


def test_both_entries_share_what_follows(series, run, tmp_path):
    names = [
        {each for each in init_series_wf(one, MethodSettings(), run).list_node_names()
         if each.split('.')[0] in ('symmetry_wf', 'normalization_wf', 'segmentation_wf', 'quality_wf')}
        for one in (series(), make_maps(tmp_path))
    ]  # fmt: skip
    assert names[0] == names[1]


def test_stages_of_the_series_are_not_told_of_maps(run, tmp_path):
    workflow = init_series_wf(make_maps(tmp_path), MethodSettings(), run)
    stages = {
        each.name: each.metadata['about'].stage for each in dataclasses.fields(MethodSettings)
    }
    told = {
        stages[name]
        for node in wired(workflow)
        if 'rows' in node.inputs.copyable_trait_names()
        for row in node.inputs.rows
        for name in row['sidecar'].get('Settings', {})
    }
    assert not told & {'grid', 'motion', 'denoising', 'vessels', 'deconvolution', 'coregistration'}
    assert 'were made elsewhere' in workflow.visit_desc()
    assert 'Tikhonov' not in workflow.visit_desc()


def test_a_mirrored_map_has_a_limit_of_its_own(run, tmp_path):
    method = MethodSettings.of(map_least_similarity=0.35)
    for density, limit in ((False, 'than 0.35'), (True, '(0.35 if a map is mirrored)')):
        workflow = init_series_wf(make_maps(tmp_path, density=density), method, run)
        nodes = {node.name: (node.inputs, fed) for node, fed in wired(workflow).items()}
        for name in ('register_mirror', 'assess_quality'):
            assert nodes[name][0].map_least_similarity == 0.35
            assert 'entry' in nodes[name][1]
        assert limit in ' '.join(workflow.visit_desc().split())


def test_methods_tell_what_is_done_if_a_ct_does_not_fit(run, tmp_path):
    graphs = [
        init_series_wf(make_maps(tmp_path, density=each), MethodSettings(), run)
        for each in (True, False)
    ]
    texts = [' '.join(graph.visit_desc().split()) for graph in graphs]
    assert 'A CT that does not lie on the maps is not used' in texts[0]
    assert 'If the CT shows no brain, the brain is where the maps have values' in texts[0]
    assert 'CT shows no brain' not in texts[1]


def test_a_missing_connection_would_be_seen(series, run):
    workflow = init_series_wf(series(), MethodSettings(), run)
    stage = workflow.get_node('deconvolution_wf')
    first, second = stage.get_node('find_vessels'), stage.get_node('deconvolve')
    stage.disconnect(first, 'curves', second, 'curves')
    assert [port.split('.')[-2:] for port in hungry(workflow, mandatory)] == [
        ['deconvolve', 'curves']
    ]


def test_motion_reaches_the_correction(series, run):
    workflow = init_series_wf(series(), MethodSettings(), run)
    ports = {node.name: fed for node, fed in wired(workflow).items()}
    assert 'transforms' in ports['correct_motion']


def test_nothing_is_computed_in_vain(series, run):
    """Every node is a writer or feeds another one."""
    graph = init_series_wf(series(), MethodSettings(), run)._create_flat_graph()
    ends = {node.name for node in graph.nodes if not graph.out_degree(node)}
    ends = {name for name in ends if name != 'outputnode'}
    assert ends == {'write_figures', *(f'write_{stage}' for stage in STAGES)}


# -- series, sessions, names


def node_names(workflow):
    return {name.rpartition('.')[2] for name in workflow.list_node_names()}


def test_nodes_are_named_after_their_steps(series, run):
    steps = {
        'prepare_series', 'estimate_motion', 'correct_motion', 'make_masks', 'find_vessels',
        'deconvolve', 'mirror_image', 'register_mirror', 'find_homologues', 'normalize_global',
        'apply_mirror', 'normalize_contralateral_rcbf', 'normalize_contralateral_rcbv',
        'segment_lesions', 'measure_volumes', 'assess_quality', 'plot_series',
    }  # fmt: skip
    assert steps < node_names(init_series_wf(series(), MethodSettings(), run))


def test_each_stage_is_a_workflow_of_its_name(series, run):
    names = init_series_wf(series(), MethodSettings(), run).list_node_names()
    inner = {name.split('.')[0] for name in names if '.' in name}
    assert inner == {f'{stage}_wf' for stage in STAGES}


def test_a_series_with_an_ncct_is_registered_to_it(run, tmp_path):
    workflow = init_series_wf(with_ncct(tmp_path), MethodSettings(), run)
    assert {'register_ncct', 'write_coregistration'} < node_names(workflow)
    sources = workflow.get_node('write_coregistration').inputs.rows[0]['sidecar']['Sources']
    assert 'bids:raw:sub-01/ct/sub-01_ncct.nii.gz' in sources


def test_two_sessions_and_two_participants_each_have_their_own_graph(series, run):
    several = [series('01', 'a'), series('01', 'b'), series('02')]
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
    } == {str(each.path) for each in several}  # fmt: skip


def test_no_two_series_write_the_same_file(series, run):
    several = [series('01', 'a'), series('01', 'b'), series('02')]
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


# -- settings


def another(name):
    """Choose a permitted value of a setting that is not its default."""
    field = {each.name: each for each in dataclasses.fields(MethodSettings)}[name]
    default, about = field.default, field.metadata['about']
    if about.choices:
        return next(choice for choice in about.choices if choice != default)
    if isinstance(default, bool):
        return not default
    if isinstance(default, tuple):
        return tuple(value * 0.9 + 0.1 for value in default)
    return default + 1 if isinstance(default, int) else default * 0.9


# those of maps made elsewhere are looked at below
SETTINGS = [
    each.name
    for each in dataclasses.fields(MethodSettings)
    if each.metadata['about'].stage != 'precomputed'
]


@pytest.fixture(scope='module')
def changed(tmp_path_factory):
    """Give the nodes of a graph of which every setting is changed, and the settings."""
    folder = tmp_path_factory.mktemp('changed')
    method = MethodSettings.of(**{name: another(name) for name in SETTINGS})
    run = RunSettings(folder, folder / 'out', folder / 'work')
    # without motion correction there would be no node to look at
    shown = dataclasses.replace(method, motion_correction=True)
    return list(wired(init_series_wf(with_ncct(folder), shown, run))), method


@pytest.mark.parametrize('name', [name for name in SETTINGS if name != 'motion_correction'])
def test_a_setting_reaches_every_node_that_has_it(changed, name):
    nodes, method = changed
    having = [n.inputs for n in nodes if name in n.inputs.copyable_trait_names()]
    assert having
    wanted = getattr(method, name)
    for inputs in having:
        found = getattr(inputs, name)
        assert (tuple(found) if isinstance(wanted, tuple) else found) == wanted


@pytest.mark.parametrize('name', [name for name in SETTINGS if name != 'motion_correction'])
def test_a_setting_stands_in_a_sidecar(changed, name):
    nodes, method = changed
    rows = [
        row for n in nodes if 'rows' in n.inputs.copyable_trait_names() for row in n.inputs.rows
    ]
    told = [row['sidecar'].get('Settings', {}).get(name) for row in rows]
    assert getattr(method, name) in told


def test_core_threshold_reaches_masks_table_and_figures(series, run):
    nodes = wired(init_series_wf(series(), MethodSettings.of(core_rcbf=0.25), run))
    having = {n.name for n in nodes if 'core_rcbf' in n.inputs.copyable_trait_names()}
    assert having == {
        'segment_lesions', 'estimate_uncertainty', 'measure_volumes', 'plot_series'
    }  # fmt: skip


def test_no_motion_node_without_motion_correction(series, run):
    workflow = init_series_wf(series(), MethodSettings.of(motion_correction=False), run)
    assert 'estimate_motion' not in node_names(workflow)
    assert 'correct_motion' in node_names(workflow)


def test_absent_motion_correction_stands_in_a_sidecar(series, run):
    workflow = init_series_wf(series(), MethodSettings.of(motion_correction=False), run)
    row = workflow.get_node('write_preprocessing').inputs.rows[0]
    assert row['sidecar']['Settings']['motion_correction'] is False


def test_nothing_of_the_run_but_folders_is_in_the_graph(series, run):
    """Processes and memory must not change the hash of a node."""

    one = series()

    def hashes(**changed):
        workflow = init_series_wf(one, MethodSettings(), dataclasses.replace(run, **changed))
        return {node.fullname: node.inputs.get_hashval()[1] for node in wired(workflow)}

    assert hashes() == hashes(nprocs=7, mem_gb=99.0, omp_nthreads=3, verbosity=2, run_uuid='x')


# -- memory, text


def test_memory_is_planned_by_the_working_grid(series):
    """512 x 512 x 320 voxels of 0.43 x 0.43 x 0.5 mm are averaged to 128 x 128 x 32."""
    one = series()
    fine = dataclasses.replace(
        one, shape=(512, 512, 320), voxel_size_mm=(0.43, 0.43, 0.5),
        sample_times=one.sample_times[:1] * 320,
    )  # fmt: skip
    coarse = dataclasses.replace(
        one, shape=(128, 128, 32), voxel_size_mm=(1.72, 1.72, 5.0),
        sample_times=one.sample_times[:1] * 32,
    )  # fmt: skip
    method, frames = MethodSettings(), len(one.frame_times)
    assert working_gb(fine, method) == working_gb(coarse, method)
    assert working_gb(coarse, method) == pytest.approx(128 * 128 * 32 * frames * 4 / 1e9)


def test_memory_of_nodes_grows_with_the_series_and_with_maps(series, run, tmp_path):
    def planned(one):
        workflow = init_series_wf(one, MethodSettings(), run)
        return {node.name: node.mem_gb for node in wired(workflow)}

    one = dataclasses.replace(series(), shape=(128, 128, 40))
    small, large = planned(one), planned(dataclasses.replace(one, shape=(128, 128, 4000)))
    assert small['deconvolve'] < large['deconvolve']
    assert small['segment_lesions'] == large['segment_lesions'] >= 0.3
    maps = planned(dataclasses.replace(make_maps(tmp_path), n_voxels=5_000_000))
    assert min(maps.values()) > 1


def test_methods_text_tells_the_settings_that_were_used(series, run):
    method = MethodSettings.of(core_rcbf=0.25, hypoperfusion_tmax=7.0, motion_correction=False)
    text = ' '.join(init_series_wf(series(), method, run).visit_desc().split())
    assert 'relative CBF below 25%' in text
    assert 'Tmax above 7 s' in text
    assert 'Head motion was not corrected' in text
