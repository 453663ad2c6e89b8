# SPDX-License-Identifier: Apache-2.0
"""Every node is given the settings that it reads and no others, and its hash depends on them."""

import dataclasses
from collections import defaultdict

import nibabel as nb
import numpy as np
import pytest

from ctpprep.inputs.series import CTPSeries, FollowUpLesion, InputFile, PrecomputedMaps
from ctpprep.interfaces.base import StageInterface
from ctpprep.interfaces.deconvolution import FindVessels
from ctpprep.settings import MethodSettings, RunSettings, declared
from ctpprep.workflows.base import init_series_wf

SETTINGS = declared(MethodSettings)
STAGES = [field.name for field in dataclasses.fields(MethodSettings)]


def another(name):
    """Choose a permitted value of a setting that is not its default."""
    default, about = SETTINGS[name].default, SETTINGS[name].about
    if about.choices:
        others = [choice for choice in about.choices if choice != default]
        return others[0] if others else 'ctpprep.perfusion.maps:flow'
    if name == 'output_spaces':
        return ('MNI152NLin2009aSym:res-2',)
    if isinstance(default, bool):
        return not default
    if isinstance(default, tuple):
        return tuple(value * 0.9 + 0.1 for value in default)
    return default + 1 if isinstance(default, int) else default * 0.9


# without motion correction there would be no node that estimates motion
CHANGED = {name: another(name) for name in SETTINGS if name != 'motion_correction'}


def nodes_of(workflow):
    return {node.name: node.inputs for node in workflow._create_flat_graph().nodes}


def given(inputs):
    """Settings of a node, by stage."""
    return inputs.settings or {} if 'settings' in inputs.copyable_trait_names() else {}


# -- what a node is given


@pytest.fixture(scope='module')
def changed(make_series, run):
    """Inputs of all nodes of a graph of which every setting is changed."""
    return nodes_of(
        init_series_wf(make_series(ncct=True, lesion=True), MethodSettings.of(**CHANGED), run)
    )


@pytest.mark.parametrize('name', CHANGED)
def test_a_setting_reaches_every_node_that_has_its_stage(changed, name):
    stage = SETTINGS[name].about.stage
    values = [given(inputs)[stage][name] for inputs in changed.values() if stage in given(inputs)]
    assert values
    assert all(value == CHANGED[name] for value in values)


@pytest.mark.parametrize('name', CHANGED)
def test_a_setting_stands_in_a_sidecar(changed, name):
    rows = [row for inputs in changed.values() for row in getattr(inputs, 'rows', ())]
    branches = [row['sidecar'].get('Settings', {}) for row in rows]
    stage = SETTINGS[name].about.stage
    assert CHANGED[name] in [branch[stage][name] for branch in branches if stage in branch]


def test_core_threshold_reaches_masks_table_and_figures(make_series, run):
    nodes = nodes_of(init_series_wf(make_series(), MethodSettings.of(core_rcbf=0.25), run))
    thresholds = {
        name: given(inputs)['lesion']['core_rcbf']
        for name, inputs in nodes.items()
        if 'lesion' in given(inputs)
    }
    assert thresholds == dict.fromkeys(
        ('segment_lesions', 'estimate_uncertainty', 'measure_volumes', 'plot_series',
         'normalize_global', 'assess_quality'), 0.25,
    )  # fmt: skip


@pytest.mark.parametrize('density', [False, True])
def test_a_mirrored_map_has_a_limit_of_its_own(make_maps, run, density):
    method = MethodSettings.of(map_least_similarity=0.35)
    nodes = nodes_of(init_series_wf(make_maps(density=density), method, run))
    for name in ('register_mirror', 'assess_quality'):
        assert given(nodes[name])['symmetry']['map_least_similarity'] == 0.35


# -- what a node reads


class Recorder:
    """Settings that keep in mind which stages were asked for."""

    def __init__(self, method, stages):
        self.method, self.stages = method, stages

    def __getattr__(self, name):
        if name in STAGES:
            self.stages.add(name)
        return getattr(self.method, name)


@pytest.fixture(scope='module')
def stages_read(toy_head, tmp_path_factory):
    """Stages whose settings each node reads, and those it is given, over graphs that run."""
    folder = tmp_path_factory.mktemp('read')
    run = RunSettings(folder, folder / 'out', folder / 'work')
    ctp, affine, frames = toy_head
    home, times = folder / 'sub-01' / 'ct', tuple(map(float, frames))
    home.mkdir(parents=True)
    path, ncct = home / 'sub-01_ctp.nii.gz', home / 'sub-01_ncct.nii.gz'
    nb.save(nb.Nifti1Image(ctp, affine), path)
    nb.save(nb.Nifti1Image(ctp[..., 0], affine), ncct)
    mask = home / 'sub-01_ses-2_lesion-msk.nii.gz'
    nb.save(nb.Nifti1Image((ctp[..., 0] == 34).astype(np.uint8), affine), mask)
    lesion = FollowUpLesion(InputFile(mask, ''), '2', 'image', InputFile(ncct, ''))
    series = CTPSeries(
        path, 'sub-01', '01', None, 'sub-01/ct', 'bids:raw:sub-01/ct/sub-01_ctp.nii.gz', times,
        (times,) * ctp.shape[2], '', {}, ncct, {}, ctp.shape[:3], (4.0, 4.0, 8.0), lesion=lesion,
    )  # fmt: skip
    made = folder / 'out' / 'sub-01' / 'ct'
    names = ('cbf', 'cbv', 'tmax')
    maps = PrecomputedMaps(
        'sub-01', '01', None, 'sub-01/ct', '',
        {name: InputFile(made / f'sub-01_{name}.nii.gz', '') for name in names},
        dict.fromkeys(names, ''),
    )  # fmt: skip
    corrected = InputFile(path, 'bids:manual:x')
    read, stages = defaultdict(set), {}
    record = property(
        lambda interface: Recorder(
            MethodSettings.from_dict(interface.inputs.settings or {}),
            read[type(interface).__name__],
        )
    )
    # a brain without texture shows neither where its homologues are, nor its lesion, nor the template
    method = MethodSettings.of(
        mirror_most_mm=50.0, mirror_region_mm=50.0, followup_least_overlap=0.0,
        followup_least_similarity=0.0, output_spaces=('MNI152NLin2009aSym',),
        template_least_overlap=0.0, template_least_sides=0.0, template_least_similarity=-1.0,
        template_most_folding=1.0,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StageInterface, 'method', record)
        # rendering is slow and reads no settings
        patch.setattr('ctpprep.figures.save_svg', lambda _, path: path.touch() or path)
        for scan, part in (
            (series, None),
            (maps, 'precomputed_wf'),
            (
                dataclasses.replace(series, overrides={'ctp_corrected': corrected}),
                'preprocessing_wf',
            ),
        ):
            workflow = init_series_wf(scan, method, run)
            part = workflow.get_node(part) if part else workflow
            part.base_dir = str(folder / 'work' / part.name)
            part.run()
            for node in part._create_flat_graph().nodes:
                if isinstance(node.interface, StageInterface):
                    stages[node.name] = (
                        read[type(node.interface).__name__],
                        {*given(node.inputs)},
                    )
    return stages


def test_every_node_is_given_the_stages_that_it_reads_and_no_others(stages_read):
    assert {name: both for name, both in stages_read.items() if both[0] != both[1]} == {}
    assert {'load_corrected', 'standardize_maps', 'register_followup', 'deconvolve'} <= {
        *stages_read
    }


# -- hashes


def hashes(series, method, run):
    """Hash every node but the writers, whose sidecars name all settings."""
    return {
        name: inputs.get_hashval()[1]
        for name, inputs in nodes_of(init_series_wf(series, method, run)).items()
        if not name.startswith('write_')
    }


@pytest.fixture(scope='module')
def unchanged(make_series, run):
    """A series, and the inputs and hashes of all nodes of its graph by the default settings."""
    series = make_series(ncct=True, lesion=True)
    nodes = nodes_of(init_series_wf(series, MethodSettings(), run))
    return series, nodes, hashes(series, MethodSettings(), run)


@pytest.mark.parametrize('stage', STAGES)
def test_the_hash_of_a_node_depends_on_the_settings_of_its_stages_alone(unchanged, run, stage):
    series, nodes, before = unchanged
    changes = {name: v for name, v in CHANGED.items() if SETTINGS[name].about.stage == stage}
    after = hashes(series, MethodSettings().change(**changes), run)
    assert {name for name in before if before[name] != after[name]} == {
        name for name, inputs in nodes.items() if stage in given(inputs)
    }


@pytest.mark.parametrize('name', SETTINGS)
def test_one_setting_changes_the_hash_of_the_nodes_of_its_stage_alone(name):
    def find_vessels(method):
        return FindVessels(settings=method.as_dict('vessels')).inputs.get_hashval()[1]

    same = find_vessels(MethodSettings.of(**{name: another(name)})) == find_vessels(
        MethodSettings()
    )
    assert same == (SETTINGS[name].about.stage != 'vessels')


def test_nothing_of_the_run_but_folders_is_in_the_graph(make_series, run):
    """Processes and memory must not change the hash of a node."""
    series = make_series()

    def all_hashes(**changes):
        workflow = init_series_wf(series, MethodSettings(), dataclasses.replace(run, **changes))
        return {name: inputs.get_hashval()[1] for name, inputs in nodes_of(workflow).items()}

    busy = all_hashes(nprocs=7, mem_gb=99.0, omp_nthreads=3, verbosity=2, run_uuid='x')
    assert busy == all_hashes()
