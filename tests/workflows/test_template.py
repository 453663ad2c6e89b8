# SPDX-License-Identifier: Apache-2.0
"""The stage of template space: built only if asked for, and the files that it writes."""

import pytest

from ctpprep.settings import MethodSettings
from ctpprep.workflows.base import init_series_wf
from ctpprep.workflows.outputs import foreign_paths

METHOD = MethodSettings.of(output_spaces='MNI152NLin2009aSym')


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
