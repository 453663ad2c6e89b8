# SPDX-License-Identifier: Apache-2.0
"""The stage of template space: built only if asked for, and the files that it writes."""

import dataclasses

import pytest
from nipype.interfaces.base import isdefined

from ctpprep.settings import USERS_TEMPLATES, MethodSettings
from ctpprep.workflows.base import init_series_wf
from ctpprep.workflows.outputs import foreign_paths

METHOD = MethodSettings.of(output_spaces=('MNI152NLin2009aSym',))


def test_it_is_off_unless_asked_for(make_series, run):
    names = init_series_wf(make_series(), MethodSettings(), run).list_node_names()
    assert not [name for name in names if 'template' in name]


@pytest.mark.parametrize(
    ('quantity', 'ending'),
    [
        ('cbf', '_cbf'),
        ('rcbf_local', '_desc-local_rcbf'),
        ('core_global', '_label-core_desc-global_mask'),
        ('probability_local', '_label-core_desc-local_probseg'),
    ],
)
def test_images_are_named_as_in_bids(make_series, rows_of, quantity, ending):
    row = rows_of(make_series(), METHOD)[f'{quantity}_template']
    name = f'sub-01/ct/sub-01_space-MNI152NLin2009aSym_res-2{ending}.nii.gz'
    assert row['path'] == name


def test_an_image_in_template_space_is_made_from_its_own_and_the_transform(make_series, rows_of):
    row = rows_of(make_series(), METHOD)['tmax_template']
    assert row['sidecar']['Sources'] == [
        'bids::sub-01/ct/sub-01_tmax.nii.gz',
        'bids::sub-01/ct/sub-01_from-ctpref_to-MNI152NLin2009aSym_mode-image_xfm.h5',
    ]
    assert row['sidecar']['Units'] == 's'


def test_the_ncct_is_registered_if_there_is_one(make_series, run):
    for ncct in (False, True):
        workflow = init_series_wf(make_series(ncct=ncct), METHOD, run)
        node = workflow.get_node('template_wf.register_template')
        assert bool(node.inputs.ncct) == ncct


def test_relative_flow_is_not_written_as_cbf(make_maps, rows_of):
    rows = rows_of(make_maps(('rcbf', 'tmax')), METHOD)
    assert 'cbf_template' not in rows
    assert 'rcbf_global_template' in rows


def test_files_of_another_template_are_removed(make_series, run):
    series = make_series()
    folder = run.output_dir / series.out_subdir
    folder.mkdir(parents=True, exist_ok=True)
    names = ('space-MNI152Lin_res-2_cbf.nii.gz', 'from-ctpref_to-MNI152Lin_mode-image_xfm.h5')
    stale = {folder / f'{series.prefix}_{name}' for name in names}
    own = folder / f'{series.prefix}_space-MNI152NLin2009aSym_res-2_cbf.nii.gz'
    for path in (*stale, own):
        path.touch()
    foreign = set(foreign_paths(series, METHOD, run.output_dir))
    assert stale <= foreign
    assert own not in foreign
    assert own in set(foreign_paths(series, MethodSettings(), run.output_dir))


def test_the_follow_up_lesion_is_written_in_template_space(make_series, rows_of):
    rows = rows_of(make_series(lesion=True), METHOD)
    ending = 'space-MNI152NLin2009aSym_res-2_label-lesion_desc-followup_mask.nii.gz'
    assert rows['followup_mask_template']['path'].endswith(ending)
    assert 'followup_mask_template' not in rows_of(make_series(), METHOD)


# -- several templates


@pytest.fixture
def several(tmp_path, monkeypatch):
    """Settings with two templates, of which the first has two resolutions."""
    monkeypatch.setenv(USERS_TEMPLATES, str(tmp_path))
    folder = tmp_path / 'tpl-MNI152NLin6Asym'
    folder.mkdir()
    for tissue in ('GM', 'WM'):
        (folder / f'tpl-MNI152NLin6Asym_res-02_label-{tissue}_probseg.nii.gz').write_bytes(b'x')
    return MethodSettings.of(
        output_spaces=('MNI152NLin2009aSym', 'MNI152NLin6Asym:res-2', 'MNI152NLin2009aSym:res-1')
    )


def test_each_template_is_registered_once(make_series, run, several):
    names = init_series_wf(make_series(), several, run).list_node_names()
    stages = {name.partition('.')[0] for name in names if name.startswith('template')}
    assert stages == {'template_wf', 'template_MNI152NLin6Asym_wf'}
    assert sum(name.endswith('register_template') for name in names) == 2
    assert sum('transform_to_template' in name for name in names) == 3


def test_images_are_written_in_every_space(make_series, rows_of, several):
    paths = [row['path'] for row in rows_of(make_series(), several).values()]
    assert len(paths) == len(set(paths))
    spaces = 'MNI152NLin2009aSym_res-2', 'MNI152NLin2009aSym_res-1', 'MNI152NLin6Asym_res-2'
    for space in spaces:
        assert f'sub-01/ct/sub-01_space-{space}_cbf.nii.gz' in paths
    for label in ('', 'MNI152NLin6Asym'):
        assert f'sub-01/ct/sub-01_desc-regions{label}_morph.tsv' in paths


def test_an_image_is_made_from_the_transform_to_its_own_template(make_series, rows_of, several):
    row = rows_of(make_series(), several)['cbf_template_MNI152NLin6Asym']
    transform = 'bids::sub-01/ct/sub-01_from-ctpref_to-MNI152NLin6Asym_mode-image_xfm.h5'
    assert row['sidecar']['Sources'] == ['bids::sub-01/ct/sub-01_cbf.nii.gz', transform]
    assert row['sidecar']['Settings']['template']['output_spaces'] == ('MNI152NLin6Asym:res-2',)


def test_the_atlas_is_used_in_its_own_space_alone(make_series, run, several):
    atlas = run.bids_dir / 'tpl-MNI152NLin6Asym_dseg.nii.gz'
    atlas.parent.mkdir(exist_ok=True)
    atlas.touch()
    run = dataclasses.replace(run, atlas=atlas, atlas_labels=atlas)
    workflow = init_series_wf(make_series(), several, run)
    inputs = [
        workflow.get_node(f'template{label}_wf.measure_regions').inputs
        for label in ('', '_MNI152NLin6Asym')
    ]
    assert [bool(isdefined(one.atlas) and one.atlas) for one in inputs] == [False, True]
    text = ' '.join(workflow.visit_desc().split())
    assert 'in the regions of tpl-MNI152NLin6Asym_dseg.nii.gz, in MNI152NLin6Asym, and by' in text
    assert text.count('### Template space') == 1


def test_another_template_leaves_the_nodes_of_the_first_unchanged(make_series, run, several):
    series, names = make_series(), ('register_template', 'transform_to_template')
    alone, beside = (
        [
            init_series_wf(series, method, run)
            .get_node(f'template_wf.{name}')
            .inputs.get_hashval()[1]
            for name in names
        ]
        for method in (METHOD, several)
    )
    assert alone == beside
