# SPDX-License-Identifier: Apache-2.0
"""Perfusion maps made elsewhere: which are found, what goes with them, what is refused and how."""

import json

import nibabel as nb
import numpy as np
import pytest

from ctpprep.exceptions import UsageError
from ctpprep.inputs.dataset import FailedSeries
from ctpprep.inputs.find import find_series
from ctpprep.inputs.overrides import apply_overrides, dataset_links
from ctpprep.inputs.precomputed import PrecomputedMaps
from ctpprep.inputs.series import CTPSeries
from ctpprep.settings import RunSettings

LAS = np.diag([-2.0, 2.0, 5.0, 1.0])
SHAPE = (6, 5, 4)


def write(path, shape=SHAPE, affine=LAS, dtype=np.float32, sidecar=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    nb.Nifti1Image(np.ones(shape, dtype), affine).to_filename(path)
    if sidecar is not None:
        path.with_name(path.name.partition('.')[0] + '.json').write_text(json.dumps(sidecar))
    return path


def look(root, **options):
    run = RunSettings(root, root.parent / 'out', root.parent / 'work', **options)
    return apply_overrides(find_series(run), run)


@pytest.fixture
def dataset(tmp_path):
    """Make a function that writes the maps of sub-01; give the folder of the dataset."""
    root = tmp_path / 'maps'

    def make(*names, start='sub-01/ct/sub-01', **options):
        for name in names:
            write(root / f'{start}_{name}.nii.gz', **options)
        return root

    return make


# -- found


@pytest.mark.parametrize('folder', ['', 'ct/', 'perf/', 'perfusion-maps/'])
@pytest.mark.parametrize('space', ['', '_space-ncct'])
def test_maps_are_found_in_each_layout(dataset, folder, space):
    start = f'sub-01/ses-1/{folder}sub-01_ses-1{space}'
    (maps,) = look(dataset('cbf', 'cbv', 'mtt', 'tmax', start=start))
    assert isinstance(maps, PrecomputedMaps)
    assert set(maps.maps) == {'cbf', 'cbv', 'mtt', 'tmax'}
    assert (maps.prefix, maps.participant, maps.session) == ('sub-01_ses-1', '01', '1')
    assert maps.out_subdir == 'sub-01/ses-1/ct'
    assert maps.maps['tmax'].uri == f'bids:raw:{start}_tmax.nii.gz'


def test_relative_flow_is_enough(dataset):
    (maps,) = look(dataset('rcbf', 'tmax'))
    assert maps.relative
    assert maps.flow == 'rcbf'


def test_flow_goes_before_relative_flow(dataset):
    (maps,) = look(dataset('cbf', 'rcbf', 'tmax'))
    assert set(maps.maps) == {'cbf', 'tmax'}


def test_our_own_relative_and_true_maps_are_no_maps(dataset):
    root = dataset('cbf', 'tmax', 'desc-global_rcbf', 'desc-truth_tmax', 'label-core_tmax')
    (maps,) = look(root)
    assert set(maps.maps) == {'cbf', 'tmax'}


def test_maps_without_a_space_go_before_those_with_one(dataset):
    root = dataset('cbf', 'tmax')
    dataset('cbf', 'tmax', start='sub-01/ct/sub-01_space-ncct')
    (maps,) = look(root)
    assert maps.space == ''


def test_a_complete_set_goes_before_a_part(dataset):
    root = dataset('cbf')
    dataset('cbf', 'tmax', start='sub-01/ct/sub-01_space-ncct')
    (maps,) = look(root)
    assert maps.space == 'ncct'


def test_units_are_those_of_the_sidecars(dataset):
    root = dataset('cbf')
    dataset('tmax', sidecar={'Units': 'ms'})
    (maps,) = look(root)
    assert maps.units == {'cbf': '', 'tmax': 'ms'}


# -- series or maps


@pytest.fixture
def both(dataset):
    """Make a dataset with maps in two sessions and a series in the first."""
    for session in ('1', '2'):
        root = dataset('cbf', 'tmax', start=f'sub-01/ses-{session}/ct/sub-01_ses-{session}')
    path = root / 'sub-01/ses-1/ct/sub-01_ses-1_ctp.nii.gz'
    write(path, (*SHAPE, 12), sidecar={'RepetitionTime': 1.5})
    return root


@pytest.mark.parametrize(
    ('entry', 'kinds'),
    [
        ('auto', {'sub-01_ses-1': CTPSeries, 'sub-01_ses-2': PrecomputedMaps}),
        ('series', {'sub-01_ses-1': CTPSeries}),
        ('maps', {'sub-01_ses-1': PrecomputedMaps, 'sub-01_ses-2': PrecomputedMaps}),
    ],
)
def test_a_series_goes_before_maps_unless_asked_for(both, entry, kinds):
    assert {each.prefix: type(each) for each in look(both, entry=entry)} == kinds


def test_the_choice_is_told(both, caplog):
    with caplog.at_level('INFO'):
        look(both)
    assert 'sub-01/ses-1 has a series and perfusion maps' in caplog.text


def test_sessions_are_selected(both):
    (maps,) = look(both, session_label=('2',))
    assert maps.session == '2'


@pytest.mark.parametrize(('entry', 'lost'), [('auto', []), ('maps', ['sub-02'])])
def test_flow_of_another_modality_is_left_out_beside_series(both, dataset, entry, lost, caplog):
    dataset('cbf', start='sub-02/perf/sub-02')
    with caplog.at_level('INFO'):
        found = look(both, entry=entry)
    assert [each.prefix for each in found if isinstance(each, FailedSeries)] == lost
    assert ('sub-02/perf/sub-02_cbf.nii.gz and is left out' in caplog.text) == (not lost)


def test_maps_of_a_bolus_fail_without_tmax_also_beside_series(both, dataset):
    dataset('cbf', 'mtt', start='sub-02/perf/sub-02')
    (failed,) = [each for each in look(both) if isinstance(each, FailedSeries)]
    assert 'no map of Tmax' in failed.reason


def test_a_participant_asked_for_fails_without_tmax(both, dataset):
    dataset('cbf', start='sub-02/perf/sub-02')
    found = look(both, participant_label=('01', '02'))
    assert [each.prefix for each in found if isinstance(each, FailedSeries)] == ['sub-02']


# -- refused


def refuse(root, **options):
    """Look at maps that cannot be used; give the sentence."""
    (failed,) = look(root, **options)
    assert isinstance(failed, FailedSeries)
    assert '\n' not in failed.reason
    return failed.reason


def test_missing_tmax_is_named(dataset):
    reason = refuse(dataset('cbf', 'cbv'))
    assert 'no map of Tmax (sub-01_tmax.nii.gz)' in reason
    assert 'sub-01/ct/sub-01_cbf.nii.gz' in reason


def test_missing_flow_is_named(dataset):
    assert 'no map of CBF (sub-01_cbf.nii.gz or sub-01_rcbf.nii.gz)' in refuse(dataset('tmax'))


def test_both_grids_are_named(dataset):
    root = dataset('tmax')
    dataset('cbf', shape=(6, 5, 3), affine=np.diag([-2.0, 2.0, 6.0, 1.0]))
    reason = refuse(root)
    assert '6 x 5 x 3 voxels of 2 x 2 x 6 mm' in reason
    assert '6 x 5 x 4 voxels of 2 x 2 x 5 mm' in reason


def test_the_same_grid_in_another_voxel_order_is_the_same(dataset):
    root = dataset('tmax')
    flipped = LAS @ np.array([[-1, 0, 0, 5], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    dataset('cbf', affine=flipped)
    assert isinstance(look(root)[0], PrecomputedMaps)


def test_a_shift_of_half_a_voxel_is_another_grid(dataset):
    root = dataset('tmax')
    shifted = LAS.copy()
    shifted[0, 3] = 1.0
    dataset('cbf', affine=shifted)
    assert 'has another grid' in refuse(root)


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ({'shape': (*SHAPE, 3)}, '4D'),
        ({'dtype': np.dtype([('R', 'u1'), ('G', 'u1'), ('B', 'u1')])}, 'picture in colours'),
        ({'dtype': np.uint8}, 'grey levels of 8 bits'),
        ({'dtype': np.complex64}, 'real numbers'),
        ({'affine': LAS @ [[1, 0, 0.5, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]}, 'sheared'),
        ({'affine': [[2, 0, 0, 0], [0, 0, 2, 0], [0, 5, 0, 0], [0, 0, 0, 1]]}, 'third voxel axis'),
    ],
)
def test_what_is_no_map_is_refused(dataset, options, words):
    root = dataset('cbf')
    dataset('tmax', **options)
    reason = refuse(root)
    assert words in reason
    assert 'sub-01_tmax.nii.gz' in reason


def test_grey_levels_with_a_unit_are_numbers(dataset):
    root = dataset('cbf')
    dataset('tmax', dtype=np.uint8, sidecar={'Units': 's'})
    assert isinstance(look(root)[0], PrecomputedMaps)


def test_maps_in_the_space_of_a_template_are_refused(dataset):
    reason = refuse(dataset('cbf', 'tmax', start='sub-01/ct/sub-01_space-MNI152NLin6Asym'))
    assert 'space of a template' in reason


def test_two_files_of_one_map_are_refused(dataset):
    root = dataset('cbf', 'tmax')
    dataset('tmax', start='sub-01/perf/sub-01')
    assert 'would write the same outputs' in refuse(root)


def test_one_bad_set_does_not_stop_the_others(dataset):
    root = dataset('cbf')
    dataset('cbf', 'tmax', start='sub-02/ct/sub-02')
    assert [type(each) for each in look(root)] == [FailedSeries, PrecomputedMaps]


def test_a_lone_cbv_is_something_else(dataset):
    with pytest.raises(UsageError, match='no CT perfusion series'):
        look(dataset('cbv'))


def test_an_aif_needs_a_series(dataset, tmp_path):
    aif = tmp_path / 'aif.tsv'
    aif.write_text('time\taif\n')
    assert '--aif-file needs a series' in refuse(dataset('cbf', 'tmax'), aif_file=aif)


# -- what goes with the maps


def test_masks_and_reference_of_the_dataset_are_taken(dataset):
    root = dataset('cbf', 'tmax', 'desc-hmc_ctpref', 'ncct')
    dataset('desc-brain_mask', 'desc-tissue_mask', dtype=np.uint8)
    (maps,) = look(root)
    assert set(maps.masks) == {'brain_mask', 'tissue_mask'}
    assert maps.reference_kind == 'ctpref'
    assert maps.reference.uri == 'bids:raw:sub-01/ct/sub-01_desc-hmc_ctpref.nii.gz'


def test_the_raw_data_beside_derivatives_give_the_ncct(tmp_path):
    """ISLES'24: maps in derivatives/, on the grid of the NCCT in raw_data/."""
    start = 'sub-stroke0001/ses-01'
    root = tmp_path / 'derivatives'
    for name in ('cbf', 'tmax'):
        write(root / start / f'perfusion-maps/sub-stroke0001_ses-01_space-ncct_{name}.nii.gz')
    write(tmp_path / 'raw_data' / start / 'sub-stroke0001_ses-01_ncct.nii.gz', dtype=np.int16)
    (maps,) = look(root)
    assert maps.reference_kind == 'ncct'
    assert maps.reference.uri == f'bids:rawdata:{start}/sub-stroke0001_ses-01_ncct.nii.gz'
    run = RunSettings(root, tmp_path / 'out', tmp_path / 'work')
    assert dataset_links(run, [maps]) == {'rawdata': tmp_path / 'raw_data'}


def test_a_named_dataset_goes_before_the_maps_own(dataset, tmp_path):
    root = dataset('cbf', 'tmax', 'ncct')
    dataset('desc-brain_mask', dtype=np.uint8)
    manual = tmp_path / 'manual'
    write(manual / 'sub-01/ct/sub-01_desc-brain_mask.nii.gz', dtype=np.uint8)
    (maps,) = look(root, derivatives=(('manual', manual),))
    assert maps.masks['brain_mask'].uri.startswith('bids:manual:')
    assert maps.reference.uri.startswith('bids:raw:')


def test_an_ncct_of_another_space_is_not_taken(dataset):
    root = dataset('cbf', 'tmax', start='sub-01/ct/sub-01_space-orig')
    dataset('ncct')
    assert look(root)[0].reference is None


def test_our_substitute_for_a_ct_is_not_read_as_one(dataset):
    root = dataset('cbf', 'tmax')
    dataset('desc-baseline_ctpref', sidecar={'Units': '1'})
    assert look(root)[0].reference is None
    dataset('desc-baseline_ctpref', sidecar={'Units': 'HU'})
    assert look(root)[0].reference_kind == 'ncct'


def test_a_damaged_mask_fails_the_set(dataset):
    root = dataset('cbf', 'tmax')
    dataset('desc-brain_mask', shape=(*SHAPE, 2), dtype=np.uint8)
    assert 'a 3D mask is needed' in refuse(root)
