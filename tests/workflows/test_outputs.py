# SPDX-License-Identifier: Apache-2.0
"""The table of outputs: names, complete sidecars, sources that exist."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ctpprep.inputs.series import InputFile, PrecomputedMaps
from ctpprep.settings import MethodSettings
from ctpprep.workflows.base import init_series_wf
from ctpprep.workflows.outputs import derivatives, foreign_paths

# as promised to users: the end of each name, and its unit
FILES = {
    'desc-hmc_ctpref.nii.gz': 'HU',
    'desc-preproc_ctp.nii.gz': 'HU',
    'from-orig_to-ctpref_mode-image_desc-hmc_xfm.txt': None,
    'desc-confounds_timeseries.tsv': None,
    'desc-brain_mask.nii.gz': None,
    'desc-tissue_mask.nii.gz': None,
    'label-AIF_mask.nii.gz': None,
    'label-VOF_mask.nii.gz': None,
    'label-vessel_mask.nii.gz': None,
    'label-CSF_mask.nii.gz': None,
    'seg-hemisphere_dseg.nii.gz': None,
    'desc-vascular_timeseries.tsv': None,
    'desc-noise_stat.nii.gz': 'HU',
    'label-tissue_probseg.nii.gz': '1',
    'cbf.nii.gz': 'mL/100 g/min',
    'cbv.nii.gz': 'mL/100 g',
    'mtt.nii.gz': 's',
    'tmax.nii.gz': 's',
    'ttp.nii.gz': 's',
    'desc-global_rcbf.nii.gz': '1',
    'desc-global_rcbv.nii.gz': '1',
    'desc-local_rcbf.nii.gz': '1',
    'desc-local_rcbv.nii.gz': '1',
    'space-mirror_ctpref.nii.gz': 'HU',
    'desc-contralateral_rcbf.nii.gz': '1',
    'desc-contralateral_rcbv.nii.gz': '1',
    'label-unassessable_mask.nii.gz': None,
    'from-mirror_to-ctpref_mode-image_xfm.h5': None,
    'from-ctpref_to-mirror_mode-image_xfm.h5': None,
    'label-hypoperfusion_mask.nii.gz': None,
    'label-core_desc-global_mask.nii.gz': None,
    'label-core_desc-local_mask.nii.gz': None,
    'label-core_desc-global_probseg.nii.gz': '1',
    'label-core_desc-local_probseg.nii.gz': '1',
    'label-mismatch_desc-global_mask.nii.gz': None,
    'label-mismatch_desc-local_mask.nii.gz': None,
    'label-hypodense_mask.nii.gz': None,
    'seg-perfusion_dseg.nii.gz': None,
    'seg-perfusion_morph.tsv': None,
    'desc-qualitycontrol_ctp.tsv': None,
    'from-ctpref_to-NCCT_mode-image_xfm.txt': None,
}


@pytest.fixture(scope='module')
def series(make_series):
    return make_series(session='a', ncct=True)


@pytest.fixture(scope='module')
def rows(series, rows_of):
    """All rows of the series, by the end of their name."""
    start = f'{series.out_subdir}/{series.prefix}_'
    return {row['path'].removeprefix(start): row for row in rows_of(series).values()}


def test_the_promised_files_are_written_and_no_others(rows):
    assert set(rows) == set(FILES)


def test_files_of_the_other_entry_are_foreign(series):
    def foreign(series):
        start = f'{series.prefix}_'
        paths = foreign_paths(series, MethodSettings(), Path('out'))
        return {path.name.removeprefix(start) for path in paths}

    absent = ('desc-baseline_ctpref.', 'desc-followup_morph.', 'label-lesion_desc-followup_mask.')
    assert all(name.startswith(absent) for name in foreign(series))
    assert {f'desc-baseline_ctpref.{suffix}' for suffix in ('nii.gz', 'json', 'tsv')} < foreign(
        series
    )
    assert 'from-ctpref_to-NCCT_mode-image_xfm.txt' in foreign(replace(series, ncct=None))
    given = {name: InputFile(Path(name), f'bids:raw:{name}') for name in ('cbf', 'tmax')}
    maps = PrecomputedMaps('sub-01', '01', None, 'sub-01/ct', '', given, {})
    others = foreign(maps)
    assert {'desc-local_rcbv.nii.gz', 'mtt.json', 'desc-hmc_ctpref.nii.gz'} <= others
    assert not {'tmax.nii.gz', 'tmax.json', 'desc-baseline_ctpref.nii.gz'} & others


def test_each_file_is_written_once():
    table = derivatives('normal-tmax')
    assert len({row.ending for row in table}) == len({row.name for row in table}) == len(table)


@pytest.mark.parametrize('ending', FILES)
def test_sidecar_tells_unit_and_meaning(rows, ending):
    sidecar = rows[ending]['sidecar']
    assert sidecar.get('Units') == FILES[ending]
    assert sidecar['Description']


@pytest.mark.parametrize('ending', FILES)
def test_sources_are_the_series_or_files_that_are_written(rows, ending, series):
    written = {f'bids::{row["path"]}' for row in rows.values()} | {series.uri}
    written.add('bids:raw:sub-01/ses-a/ct/sub-01_ses-a_ncct.nii.gz')
    sources = rows[ending]['sidecar']['Sources']
    assert sources
    assert set(sources) <= written - {f'bids::{rows[ending]["path"]}'}


def test_no_file_is_its_own_ancestor(rows):
    made_of = {f'bids::{row["path"]}': row['sidecar']['Sources'] for row in rows.values()}

    def depth(uri, above=()):
        assert uri not in above
        sources = made_of.get(uri, ())
        return 1 + max((depth(source, (*above, uri)) for source in sources), default=0)

    assert all(depth(uri) > 1 for uri in made_of)


def test_masks_tell_their_type(rows):
    types = {name: row['sidecar'].get('Type') for name, row in rows.items() if 'mask' in name}
    lesions = {name for name, kind in types.items() if kind == 'Lesion'}
    assert set(types.values()) == {'Brain', 'ROI', 'Lesion'}
    assert [name for name, kind in types.items() if kind == 'Brain'] == ['desc-brain_mask.nii.gz']
    assert lesions == {
        name for name in types if any(w in name for w in ('core', 'hypoperfusion', 'mismatch'))
    }


@pytest.mark.parametrize('reference', ['normal-tmax', 'contralateral'])
def test_relative_maps_name_their_reference(series, rows_of, reference):
    rows = rows_of(series, MethodSettings.of(global_reference=reference))
    named = {name: row['sidecar'].get('Reference') for name, row in rows.items()}
    assert named['rcbf_global'] == named['rcbv_global'] == reference
    assert named['rcbf_local'] == named['rcbv_local'] == 'contralateral homologue'


def test_all_that_depends_on_the_global_reference_names_it(series, rows_of):
    rows = rows_of(series)
    fields = {'reference_fields', 'global_reference_fields'}
    named = {name for name, row in rows.items() if fields & set(row['fields'])}

    def depends(name):
        return name in ('rcbf_global', 'rcbv_global') or any(map(depends, rows[name]['made_from']))

    # quality control contains no relative flow
    assert named == {name for name in rows if depends(name)} - {'quality'}


def test_spaces_that_are_no_standard_are_explained(rows):
    for name in ('desc-hmc_ctpref.nii.gz', 'space-mirror_ctpref.nii.gz'):
        assert rows[name]['sidecar']['SpatialReference']


def test_sidecars_are_json_and_name_no_path_of_the_machine(rows):
    text = json.dumps([row['sidecar'] for row in rows.values()])
    assert '"/' not in text


def test_local_maps_warn_their_readers(rows):
    core = rows['label-core_desc-local_mask.nii.gz']['sidecar']['Description']
    assert 'not validated' in core
    assert 'hides' in rows['desc-local_rcbf.nii.gz']['sidecar']['Description']


def test_labels_are_explained(rows):
    assert rows['seg-hemisphere_dseg.nii.gz']['labels'] == {1: 'left', 2: 'right'}
    assert set(rows['seg-perfusion_dseg.nii.gz']['labels']) == {1, 2, 3, 4}


def test_writer_has_a_port_for_each_row_source_and_fact_and_writes_each_time(series, run):
    writer = init_series_wf(series, MethodSettings(), run).get_node('write_segmentation')
    assert set(writer.interface.names) == {
        'hypoperfusion', 'core_global', 'core_local', 'mismatch_global', 'mismatch_local',
        'lesions', 'hypodense_mask', 'volumes', 'normalization', 'deconvolution', 'symmetry',
        'tmax', 'cbf', 'cbv', 'rcbf_global', 'rcbf_local', 'rcbv_global', 'reference',
        'mirror_to_reference', 'global_reference_fields', 'probability_global',
        'probability_local', 'ctp_corrected', 'confounds', 'curves', 'brain_mask', 'tissue_mask',
        'unassessable_mask', 'hemispheres',
    }  # fmt: skip
    assert writer.overwrite  # outputs that somebody removed come back
