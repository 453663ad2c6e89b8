# SPDX-License-Identifier: Apache-2.0
"""Precomputed maps: which are found, which masks and images are added, and which fail."""

import json
import re

import nibabel as nb
import numpy as np
import pytest

from ctpprep.exceptions import UsageError
from ctpprep.inputs.find import find_series
from ctpprep.inputs.overrides import apply_overrides, dataset_links
from ctpprep.inputs.series import CTPSeries, FailedSeries, PrecomputedMaps
from ctpprep.settings import RunSettings

LAS = np.diag([-2.0, 2.0, 5.0, 1.0])
SHAPE = (6, 5, 4)


def write(path, shape=SHAPE, affine=LAS, dtype=np.float32, sidecar=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    nb.Nifti1Image(np.ones(shape, dtype), affine).to_filename(path)
    if sidecar is not None:
        path.with_name(path.name.partition('.')[0] + '.json').write_text(json.dumps(sidecar))
    return path


def find(root, **options):
    run = RunSettings(root, root.parent / 'out', root.parent / 'work', **options)
    return apply_overrides(find_series(run), run)


@pytest.fixture
def dataset(tmp_path):
    """Return a function that writes maps of sub-01 and returns the folder of the dataset."""
    root = tmp_path / 'maps'

    def make(*names, start='sub-01/ct/sub-01', **options):
        for name in names:
            write(root / f'{start}_{name}.nii.gz', **options)
        return root

    return make


# -- finding


@pytest.mark.parametrize('folder', ['', 'ct/', 'perf/', 'perfusion-maps/'])
@pytest.mark.parametrize('space', ['', '_space-ncct'])
def test_maps_are_found_in_each_layout(dataset, folder, space):
    start = f'sub-01/ses-1/{folder}sub-01_ses-1{space}'
    (maps,) = find(dataset('cbf', 'cbv', 'mtt', 'tmax', start=start))
    assert isinstance(maps, PrecomputedMaps)
    assert set(maps.maps) == {'cbf', 'cbv', 'mtt', 'tmax'}
    assert (maps.prefix, maps.participant, maps.session) == ('sub-01_ses-1', '01', '1')
    assert maps.out_subdir == 'sub-01/ses-1/ct'
    assert maps.maps['tmax'].uri == f'bids:raw:{start}_tmax.nii.gz'


def test_relative_cbf_is_accepted(dataset):
    (maps,) = find(dataset('rcbf', 'tmax'))
    assert maps.is_relative
    assert maps.flow == 'rcbf'


def test_cbf_is_preferred_to_relative_cbf(dataset):
    (maps,) = find(dataset('cbf', 'rcbf', 'tmax'))
    assert set(maps.maps) == {'cbf', 'tmax'}


def test_maps_with_other_entities_are_not_input(dataset):
    root = dataset('cbf', 'tmax', 'desc-global_rcbf', 'desc-truth_tmax', 'label-core_tmax')
    (maps,) = find(root)
    assert set(maps.maps) == {'cbf', 'tmax'}


def test_maps_without_a_space_entity_are_preferred(dataset):
    root = dataset('cbf', 'tmax')
    dataset('cbf', 'tmax', start='sub-01/ct/sub-01_space-ncct')
    (maps,) = find(root)
    assert maps.space == ''


def test_complete_set_is_preferred(dataset):
    root = dataset('cbf')
    dataset('cbf', 'tmax', start='sub-01/ct/sub-01_space-ncct')
    (maps,) = find(root)
    assert maps.space == 'ncct'


def test_units_come_from_the_sidecars(dataset):
    root = dataset('cbf')
    dataset('tmax', sidecar={'Units': 'ms'})
    (maps,) = find(root)
    assert maps.units == {'cbf': '', 'tmax': 'ms'}


# -- series or maps


@pytest.fixture
def both(dataset):
    """Write a dataset with maps in two sessions and a series in the first."""
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
def test_series_is_preferred_to_maps_unless_maps_are_requested(both, entry, kinds):
    assert {series.prefix: type(series) for series in find(both, entry=entry)} == kinds


def test_choice_is_logged(both, caplog):
    with caplog.at_level('INFO'):
        find(both)
    assert 'sub-01/ses-1 has a series and perfusion maps' in caplog.text


def test_sessions_are_selected(both):
    (maps,) = find(both, session_label=('2',))
    assert maps.session == '2'


@pytest.mark.parametrize(('entry', 'failed'), [('auto', []), ('maps', ['sub-02'])])
def test_cbf_of_another_modality_is_skipped_beside_series(both, dataset, entry, failed, caplog):
    dataset('cbf', start='sub-02/perf/sub-02')
    with caplog.at_level('INFO'):
        all_series = find(both, entry=entry)
    assert [series.prefix for series in all_series if not series.can_run] == failed
    assert ('skipped sub-02/perf/sub-02_cbf.nii.gz' in caplog.text) == (not failed)


def test_bolus_maps_without_tmax_fail_also_beside_series(both, dataset):
    dataset('cbf', 'mtt', start='sub-02/perf/sub-02')
    (failed,) = [series for series in find(both) if not series.can_run]
    assert 'no Tmax map' in failed.reason


def test_requested_participant_without_tmax_fails(both, dataset):
    dataset('cbf', start='sub-02/perf/sub-02')
    all_series = find(both, participant_label=('01', '02'))
    assert [series.prefix for series in all_series if not series.can_run] == ['sub-02']


# -- errors


def refuse(root, **options):
    """Return the reason why maps fail."""
    (failed,) = find(root, **options)
    assert not failed.can_run
    assert '\n' not in failed.reason
    return failed.reason


def test_error_of_a_missing_tmax_lists_files_found_and_needed(dataset):
    reason = refuse(dataset('cbf', 'cbv'))
    assert 'sub-01 has no Tmax map; found sub-01/ct/sub-01_cbf.nii.gz' in reason
    assert 'need also sub-01_tmax.nii.gz' in reason


def test_error_of_a_missing_cbf_lists_files_found_and_needed(dataset):
    reason = refuse(dataset('tmax'))
    assert 'sub-01 has no CBF map; found sub-01/ct/sub-01_tmax.nii.gz' in reason
    assert 'need also sub-01_cbf.nii.gz or sub-01_rcbf.nii.gz' in reason


def test_error_of_different_grids_describes_both(dataset):
    root = dataset('tmax')
    dataset('cbf', shape=(6, 5, 3), affine=np.diag([-2.0, 2.0, 6.0, 1.0]))
    reason = refuse(root)
    assert '6 x 5 x 3 voxels of 2 x 2 x 6 mm' in reason
    assert '6 x 5 x 4 voxels of 2 x 2 x 5 mm' in reason


def test_voxel_order_of_the_maps_may_differ(dataset):
    root = dataset('tmax')
    flipped = LAS @ np.array([[-1, 0, 0, 5], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    dataset('cbf', affine=flipped)
    assert find(root)[0].can_run


def test_grids_shifted_by_half_a_voxel_differ(dataset):
    root = dataset('tmax')
    shifted = LAS.copy()
    shifted[0, 3] = 1.0
    dataset('cbf', affine=shifted)
    assert 'sub-01_cbf.nii.gz and sub-01_tmax.nii.gz have different grids' in refuse(root)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'shape': (*SHAPE, 3)}, '4D'),
        (
            {'dtype': np.dtype([('R', 'u1'), ('G', 'u1'), ('B', 'u1')])},
            'RGB picture, need a map of numbers',
        ),
        ({'dtype': np.uint8}, '8-bit grey levels without units'),
        ({'dtype': np.complex64}, 'real numbers'),
        ({'affine': LAS @ [[1, 0, 0.5, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]}, 'sheared'),
        (
            {'affine': [[2, 0, 0, 0], [0, 0, 2, 0], [0, 5, 0, 0], [0, 0, 0, 1]]},
            'from the axial plane',
        ),
    ],
)
def test_image_that_is_not_a_map_fails(dataset, options, message):
    root = dataset('cbf')
    dataset('tmax', **options)
    reason = refuse(root)
    assert message in reason
    assert 'sub-01_tmax.nii.gz' in reason


def test_8_bit_maps_with_units_are_accepted(dataset):
    root = dataset('cbf')
    dataset('tmax', dtype=np.uint8, sidecar={'Units': 's'})
    assert find(root)[0].can_run


def test_maps_in_a_template_space_fail(dataset):
    reason = refuse(dataset('cbf', 'tmax', start='sub-01/ct/sub-01_space-MNI152NLin6Asym'))
    assert 'template space MNI152NLin6Asym' in reason


def test_two_files_of_one_map_fail(dataset):
    root = dataset('cbf', 'tmax')
    dataset('tmax', start='sub-01/perf/sub-01')
    assert 'would write the same outputs' in refuse(root)


def test_failed_set_does_not_stop_the_others(dataset):
    root = dataset('cbf')
    dataset('cbf', 'tmax', start='sub-02/ct/sub-02')
    assert [type(maps) for maps in find(root)] == [FailedSeries, PrecomputedMaps]


def test_cbv_alone_is_not_input(dataset):
    with pytest.raises(UsageError, match='no CT perfusion series'):
        find(dataset('cbv'))


def test_aif_needs_a_series(dataset, tmp_path):
    aif = tmp_path / 'aif.tsv'
    aif.write_text('time\taif\n')
    assert '--aif-file needs a CT perfusion series' in refuse(dataset('cbf', 'tmax'), aif_file=aif)


# -- masks and reference image


def test_masks_and_reference_of_the_dataset_are_used(dataset):
    root = dataset('cbf', 'tmax', 'desc-hmc_ctpref', 'ncct')
    dataset('desc-brain_mask', 'desc-tissue_mask', dtype=np.uint8)
    (maps,) = find(root)
    assert set(maps.masks) == {'brain_mask', 'tissue_mask'}
    assert maps.reference_kind == 'ctpref'
    assert maps.reference.uri == 'bids:raw:sub-01/ct/sub-01_desc-hmc_ctpref.nii.gz'


def test_ncct_is_found_in_the_raw_data_beside_derivatives(tmp_path):
    """ISLES'24: maps in derivatives/, on the grid of the NCCT in raw_data/."""
    start = 'sub-stroke0001/ses-01'
    root = tmp_path / 'derivatives'
    for name in ('cbf', 'tmax'):
        write(root / start / f'perfusion-maps/sub-stroke0001_ses-01_space-ncct_{name}.nii.gz')
    write(tmp_path / 'raw_data' / start / 'sub-stroke0001_ses-01_ncct.nii.gz', dtype=np.int16)
    (maps,) = find(root)
    assert maps.reference_kind == 'ncct'
    assert maps.reference.uri == f'bids:rawdata:{start}/sub-stroke0001_ses-01_ncct.nii.gz'
    run = RunSettings(root, tmp_path / 'out', tmp_path / 'work')
    assert dataset_links(run, [maps]) == {'rawdata': tmp_path / 'raw_data'}


def test_derivatives_dataset_is_preferred_to_that_of_the_maps(dataset, tmp_path):
    root = dataset('cbf', 'tmax', 'ncct')
    dataset('desc-brain_mask', dtype=np.uint8)
    manual = tmp_path / 'manual'
    write(manual / 'sub-01/ct/sub-01_desc-brain_mask.nii.gz', dtype=np.uint8)
    (maps,) = find(root, derivatives=(('manual', manual),))
    assert maps.masks['brain_mask'].uri.startswith('bids:manual:')
    assert maps.reference.uri.startswith('bids:raw:')


def test_ncct_in_another_space_is_not_used(dataset):
    root = dataset('cbf', 'tmax', start='sub-01/ct/sub-01_space-orig')
    dataset('ncct')
    assert find(root)[0].reference is None


def test_scaled_map_is_not_used_as_a_ct(dataset):
    root = dataset('cbf', 'tmax')
    dataset('desc-baseline_ctpref', sidecar={'Units': '1'})
    assert find(root)[0].reference is None
    dataset('desc-baseline_ctpref', sidecar={'Units': 'HU'})
    assert find(root)[0].reference_kind == 'ncct'


@pytest.mark.parametrize('name', ['tmax', 'desc-brain_mask', 'ncct'])
def test_chosen_affine_is_that_of_maps_and_companions(dataset, name):
    root = dataset('cbf', 'tmax', 'desc-brain_mask', 'ncct')
    path = root / f'sub-01/ct/sub-01_{name}.nii.gz'
    image = nb.load(path)
    image.set_qform(np.diag([-1.0, 1, 1, 1]) @ LAS, 1)
    nb.Nifti1Image(np.ones(SHAPE, np.float32), None, image.header).to_filename(path)
    assert re.search(f'{name}.nii.gz: sform and qform .*--affine-from', refuse(root))
    assert find(root, affine_from='sform')[0].affine_from == 'sform'


def test_invalid_mask_fails_its_set(dataset):
    root = dataset('cbf', 'tmax')
    dataset('desc-brain_mask', shape=(*SHAPE, 2), dtype=np.uint8)
    assert 'need a 3D mask' in refuse(root)
