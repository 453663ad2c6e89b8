# SPDX-License-Identifier: Apache-2.0
"""Lesions of boxes: masks, labels, probabilities, intervals and the table of volumes."""

import numpy as np
import pytest

from ctpprep.perfusion import lesions
from ctpprep.settings import MethodSettings

SHAPE = (24, 20, 8)
SIZE = (2.0, 2.0, 5.0)
ML = 0.02  # a voxel
MASKS = ('core_global', 'core_local', 'hypoperfusion', 'mismatch_global', 'mismatch_local')
RIGHT = np.zeros(SHAPE, bool)
RIGHT[12:] = True
AS_THRESHOLDED = {'opening_mm': 0.0, 'closing_mm': 0.0}  # which round the corners


def box(x, y, z):
    mask = np.zeros(SHAPE, bool)
    mask[slice(*x), slice(*y), slice(*z)] = True
    return mask


SLOW = box((14, 23), (4, 16), (1, 7))  # in the right half
CORE = box((16, 21), (6, 12), (2, 6))
SMALLER = box((16, 21), (6, 12), (2, 4))
OTHER = box((2, 7), (6, 12), (2, 6))  # in the left half
NOWHERE = np.zeros(SHAPE, bool)


def relative_maps(
    rcbf_global=None, rcbf_local=None, tmax=None, tissue=None, unassessable=NOWHERE, side='right'
):
    """Maps of a head with a lesion on each side; maps may be exchanged, False for no local one."""
    rcbf = {'global': np.where(CORE | OTHER, 0.2, 1.0) if rcbf_global is None else rcbf_global}
    if rcbf_local is not False:
        rcbf['local'] = np.where(SMALLER | OTHER, 0.2, 1.0) if rcbf_local is None else rcbf_local
    measured = {
        'affected_side': side, 'tmax_left_s': 1, 'tmax_right_s': 2, 'side_confidence': 0.4,
        'side_rule': 'median', 'cbf_reference': 50.0,
    }  # fmt: skip
    return lesions.RelativeMaps(
        np.where(SLOW | OTHER, 8.0, 1.0) if tmax is None else tmax, rcbf,
        np.ones(SHAPE, bool) if tissue is None else tissue,
        np.where(RIGHT, 2, 1).astype(np.uint8), SIZE, measured, unassessable,
    )  # fmt: skip


def segment(maps=None, **changed):
    return lesions.segment_lesions(maps or relative_maps(), MethodSettings.of(**changed))


# -- masks


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('hypoperfusion', SLOW),
        ('core_global', CORE),
        ('core_local', SMALLER),
        ('mismatch_global', SLOW & ~CORE),
        ('mismatch_local', SLOW & ~SMALLER),
    ],
)
def test_mask_is_what_the_threshold_selects_on_the_affected_side(name, expected):
    np.testing.assert_array_equal(segment(**AS_THRESHOLDED).masks[name], expected)


@pytest.mark.parametrize(
    ('asked', 'measured', 'expected'),
    [
        ('auto', 'right', CORE),
        ('auto', 'left', OTHER),
        ('left', 'left', OTHER),
        ('both', 'right', CORE | OTHER),
    ],
)
def test_side_is_the_measured_one_unless_both_are_asked_for(asked, measured, expected):
    """The side is decided once, where maps are normalized."""
    result = segment(relative_maps(side=measured), affected_side=asked, **AS_THRESHOLDED)
    np.testing.assert_array_equal(result.masks['core_global'], expected)


def test_thresholds_are_those_of_the_settings():
    assert not segment(core_rcbf=0.15).masks['core_global'].any()
    assert not segment(hypoperfusion_tmax=9.0).masks['hypoperfusion'].any()


def test_opening_removes_a_speck_and_closing_fills_a_hole():
    speck, hole = box((13, 14), (18, 19), (4, 5)), box((18, 19), (8, 9), (4, 5))
    rcbf = np.where((CORE & ~hole) | speck, 0.2, 1.0)
    core = segment(relative_maps(rcbf_global=rcbf)).masks['core_global']
    assert not core[speck].any()
    assert core[hole].all()


def test_tissue_that_is_not_assessable_is_not_a_local_core():
    maps = relative_maps(rcbf_local=np.zeros(SHAPE), unassessable=RIGHT)
    assert not segment(maps).masks['core_local'].any()
    assert segment(maps).masks['core_global'].any()


def test_zeros_outside_tissue_are_not_a_core():
    tissue = ~box((14, 24), (0, 20), (0, 3))
    zero = np.where(tissue, 1.0, 0.0)
    masks = segment(relative_maps(zero, zero, tissue=tissue)).masks
    assert not masks['core_global'].any()
    assert not masks['core_local'].any()


def test_labels_distinguish_the_normalizations_that_show_the_core():
    shifted = box((18, 23), (6, 12), (2, 6))
    maps = relative_maps(rcbf_local=np.where(shifted, 0.2, 1.0))
    expected = np.select([CORE & shifted, CORE, shifted, SLOW], [1, 2, 3, 4], 0)
    np.testing.assert_array_equal(segment(maps, **AS_THRESHOLDED).labels, expected)


def joined(rcbf_local=None, **changed):
    """Hypoperfusion of a core in whose middle Tmax is 0, as where no contrast arrives."""
    tmax = np.where((SLOW & ~CORE) | OTHER, 8.0, 0.0)
    # Tmax of the core is open to one side, so that no hole is filled
    tmax[box((16, 24), (6, 12), (1, 7))] = 0.0
    maps = relative_maps(rcbf_local=np.where(CORE, 0.2, 1.0) if rcbf_local is None else rcbf_local,
                         tmax=tmax)  # fmt: skip
    return segment(maps, **AS_THRESHOLDED, **changed).masks['hypoperfusion'], tmax


def test_core_without_a_known_tmax_is_hypoperfusion():
    hypoperfusion, tmax = joined()
    np.testing.assert_array_equal(hypoperfusion, ((tmax > 6) & RIGHT) | CORE)


@pytest.mark.parametrize(
    ('rcbf_local', 'changed'),
    [
        (np.ones(SHAPE), {}),  # the homologues are as low
        (None, {'core_joins_hypoperfusion': False}),
    ],
)
def test_core_by_one_normalization_alone_is_not_hypoperfusion(rcbf_local, changed):
    hypoperfusion, tmax = joined(rcbf_local, **changed)
    np.testing.assert_array_equal(hypoperfusion, (tmax > 6) & RIGHT)


def test_core_joins_hypoperfusion_without_a_local_map():
    hypoperfusion, _ = joined(rcbf_local=False)
    assert hypoperfusion[CORE].all()


def test_core_without_homologue_joins_hypoperfusion():
    maps = relative_maps(
        rcbf_local=np.ones(SHAPE), tmax=np.where(SLOW & ~CORE, 8.0, 0.0), unassessable=CORE
    )
    assert segment(maps, **AS_THRESHOLDED).masks['hypoperfusion'][CORE & RIGHT].all()


def test_part_of_the_core_within_hypoperfusion_is_that_of_tmax():
    tmax = np.where(box((14, 18), (4, 16), (1, 7)), 8.0, 0.0)
    cleaning = segment(relative_maps(tmax=tmax), **AS_THRESHOLDED).cleaning['core_global']
    assert cleaning['within_hypoperfusion'] == pytest.approx((CORE & (tmax > 6)).sum() * ML)


def test_core_away_from_hypoperfusion_does_not_join_it():
    tmax = np.where(box((14, 23), (15, 18), (1, 7)), 8.0, 1.0)
    hypoperfusion = segment(relative_maps(tmax=tmax), **AS_THRESHOLDED).masks['hypoperfusion']
    np.testing.assert_array_equal(hypoperfusion, tmax > 6)


def test_without_a_local_map_the_labels_are_those_of_the_global_one():
    result = segment(relative_maps(rcbf_local=False), **AS_THRESHOLDED)
    assert set(result.masks) == {'hypoperfusion', 'core_global', 'mismatch_global'}
    np.testing.assert_array_equal(result.labels, np.select([CORE, SLOW], [2, 4], 0))


# -- hypodense core


def flag(reference, cores=(CORE, SMALLER), **homologue):
    return lesions.find_hypodense_core(
        reference, np.ones(SHAPE, bool), SIZE, cores, MethodSettings(), **homologue
    )


def test_hypodense_tissue_is_flagged_inside_of_the_core_alone():
    hypodense = flag(
        np.where(RIGHT, 15.0, 31.0), homologue=np.full(SHAPE, 31.0),
        homologue_tissue=np.ones(SHAPE),
    )  # fmt: skip
    assert hypodense[18, 8, 3]
    assert not (hypodense & ~CORE).any()


def test_hypodense_tissue_of_either_core_is_flagged():
    hypodense = flag(np.where(SMALLER | OTHER, 15.0, 31.0), cores=(SMALLER, OTHER))
    assert hypodense[18, 8, 3]
    assert hypodense[4, 8, 3]


def test_densities_without_tissue_at_the_homologue_are_not_used():
    """A registration that cannot be trusted still has its image."""
    reference = np.where(CORE, 15.0, 31.0)
    assert flag(reference, homologue=np.zeros(SHAPE))[18, 8, 3]


# -- uncertainty


def estimate(maps, noise=None, **changed):
    """Estimate with noise of CBF in mL/100 g/min; the reference is 50."""
    method = MethodSettings.of(**changed)
    hypoperfusion = lesions.segment_lesions(maps, method).masks['hypoperfusion']
    if noise is not None:
        noise = np.random.default_rng(0).normal(0, noise, (*SHAPE, 12)).astype(np.float32)
    return lesions.estimate_uncertainty(maps, hypoperfusion, method, noise)


def test_probability_grows_as_flow_falls_and_is_half_at_the_threshold():
    steps = np.full(SHAPE, 1.0)
    for x, value in enumerate((0.1, 0.2, 0.3, 0.4, 0.5), start=14):
        steps[x, 4:16] = value
    probability = estimate(relative_maps(steps), 5.0, shared_error=0.0).probability['global']
    row = probability[14:19, 10, 4]
    assert (np.diff(row) < 0).all()
    assert row[2] == pytest.approx(0.5, abs=0.01)
    # noise of 5 in 50 is 0.1
    assert row[1] == pytest.approx(0.84, abs=0.03)
    assert not probability[~RIGHT].any()


def test_local_noise_is_divided_as_the_local_map_is():
    halved = np.where(CORE | OTHER, 0.25, 1.0)
    local = estimate(relative_maps(halved / 2, halved), 2.5).probability['local']
    # noise of 0.05 is doubled: half a standard deviation below the threshold
    assert local[18, 9, 4] == pytest.approx(0.69, abs=0.03)


def test_interval_contains_the_volume_and_widens_with_noise():
    unsure = relative_maps(np.where(CORE | OTHER, 0.27, np.where(SLOW, 0.36, 1.0)))
    volume = segment(unsure).masks['core_global'].sum() * ML
    widths = []
    for noise in (1e-3, 1.0, 2.0):
        low, high = estimate(unsure, noise, shared_error=0.0).intervals['global']
        assert low <= volume <= high
        widths.append(high - low)
    assert widths[0] == 0
    assert widths[1] < widths[2]


def test_error_that_all_voxels_share_widens_interval_and_probability():
    unsure = relative_maps(np.where(CORE | OTHER, 0.27, np.where(SLOW, 0.36, 1.0)))
    sure, shared = (estimate(unsure, 0.5, shared_error=error) for error in (0.0, 0.06))
    assert np.ptp(shared.intervals['global']) > np.ptp(sure.intervals['global'])
    inside = CORE & RIGHT
    assert shared.probability['global'][inside].max() < sure.probability['global'][inside].max()


def test_interval_depends_on_the_seed_alone():
    unsure = relative_maps(np.where(CORE | OTHER, 0.27, np.where(SLOW, 0.36, 1.0)))
    first, again, other = (
        estimate(unsure, 2.0, random_seed=seed).intervals['global'] for seed in (1, 1, 2)
    )
    assert first == again != other


def test_maps_without_noise_have_no_probability_and_a_reason():
    result = estimate(relative_maps())
    assert result.probability == {}
    assert result.intervals == {'reason': lesions.NO_NOISE}


def test_without_draws_there_is_a_probability_and_no_interval():
    result = estimate(relative_maps(), 1.0, noise_draws=0)
    assert set(result.probability) == {'global', 'local'}
    assert result.intervals == {'reason': lesions.NOT_ASKED}


def test_withheld_local_map_has_no_probability():
    result = estimate(relative_maps(rcbf_local=False), 1.0)
    assert set(result.probability) == {'global'}
    assert set(result.intervals) == {'global', 'hypoperfusion'}


def test_interval_of_hypoperfusion_is_between_thresholds_of_tmax():
    steps = np.full(SHAPE, 1.0)
    for x, value in enumerate((3.0, 5.0, 7.0, 9.0), start=14):
        steps[x, 4:16] = value
    maps = relative_maps(np.ones(SHAPE), False, steps)
    spread = {'tmax_error': 2.5 / 1.96, **AS_THRESHOLDED}
    low, high = estimate(maps, 1.0, **spread).intervals['hypoperfusion']
    slab = 12 * SHAPE[2] * ML  # one value of x
    assert (low, high) == pytest.approx((slab, 3 * slab))


def test_interval_contains_hypoperfusion_that_a_lower_threshold_merges_with_a_rim():
    tissue = np.zeros(SHAPE, bool)
    tissue[1:-1, 1:-1] = True
    rim = tissue & ~box((3, 21), (3, 17), (0, 8))
    lesion = box((18, 22), (7, 12), (3, 6))
    tmax = np.where(lesion, 9.0, np.where(rim & RIGHT, 4.5, 1.0))
    maps = relative_maps(np.ones(SHAPE), False, tmax, tissue)
    volume = segment(maps, **AS_THRESHOLDED).masks['hypoperfusion'].sum() * ML
    assert volume == pytest.approx(lesion.sum() * ML)
    low, high = estimate(maps, 1.0, **AS_THRESHOLDED).intervals['hypoperfusion']
    assert low < volume == pytest.approx(high)


def test_uncalibrated_hypoperfusion_has_no_interval():
    result = estimate(relative_maps(), 1.0, tmax_calibration=False)
    assert set(result.intervals) == {'global', 'local'}


def test_interval_without_a_core_is_zero():
    result = estimate(relative_maps(np.ones(SHAPE)), 1e-3)
    assert list(result.intervals['global']) == [0, 0]


# -- volumes


def tabulate(maps=None, settings=(), **inputs):
    """Return the rows of the table, and the masks it is made from."""
    maps, method = maps or relative_maps(), MethodSettings.of(**dict(settings))
    result = lesions.segment_lesions(maps, method)
    return lesions.measure_volumes(maps, result, method, **inputs), result.masks


def select(rows, **chosen):
    return [row for row in rows if chosen.items() <= row.items()]


def test_volumes_are_those_of_the_masks():
    rows, masks = tabulate()
    for name in MASKS:
        region, _, which = name.partition('_')
        (row,) = select(rows, region=region, normalization=which or None, measure='volume')
        assert row['volume_ml'] == pytest.approx(masks[name].sum() * ML, abs=1e-4)


def test_rows_name_the_affected_side_and_the_hemisphere_of_the_lesions():
    for asked, hemisphere in (('auto', 'right'), ('both', 'both')):
        for row in tabulate(settings={'affected_side': asked})[0]:
            assert (row['affected_side'], row['hemisphere']) == ('right', hemisphere)
            assert row['side_confidence'] == 0.4


def test_regions_of_the_thresholds_are_opened_and_closed_like_the_masks():
    rows, masks = tabulate(settings={'tmax_thresholds': (6.0, 7.5, 12.0)})
    volume = pytest.approx(masks['hypoperfusion'].sum() * ML, abs=1e-4)
    volumes = {
        row['threshold']: row['volume_ml'] for row in select(rows, region='tmax', measure='volume')
    }
    assert volumes == {6.0: volume, 7.5: volume, 12.0: 0}


def test_core_and_region_of_the_same_threshold_are_equal():
    rows, masks = tabulate()
    (row,) = select(rows, region='rcbf', normalization='local', threshold=0.3)
    assert row['volume_ml'] == pytest.approx(masks['core_local'].sum() * ML, abs=1e-4)


def test_no_lesion_is_a_volume_of_zero_with_a_reason():
    rows, masks = tabulate(relative_maps(RIGHT + 1.0, RIGHT + 1.0, np.ones(SHAPE)))
    assert not any(mask.any() for mask in masks.values())
    for row in select(rows, measure='volume'):
        assert row['volume_ml'] == 0
        assert row['reason'].startswith('no tissue')
    (ratio,) = select(rows, region='mismatch', measure='ratio', normalization='global')
    assert ratio['reason'] == 'no core to divide by'


def test_rows_of_a_withheld_local_map_have_the_reason_and_no_figure():
    rows, _ = tabulate(relative_maps(rcbf_local=False), withheld='withheld: not similar')
    complete, _ = tabulate()
    key = ('region', 'normalization', 'measure', 'threshold')
    assert [[row[k] for k in key] for row in rows] == [[row[k] for k in key] for row in complete]
    local = select(rows, normalization='local')
    assert {row['reason'] for row in local} == {'withheld: not similar'}
    assert {row[figure] for row in local for figure in ('volume_ml', 'value')} == {None}
    rest = [row for row in rows if row['normalization'] != 'local']
    assert rest == [row for row in complete if row['normalization'] != 'local']


def test_cbv_index_is_the_mean_in_hypoperfusion():
    hypoperfusion = segment().masks['hypoperfusion']
    rows, _ = tabulate(rcbv_global=np.where(hypoperfusion, 0.7, 1.0))
    (row,) = select(rows, measure='CBV index')
    assert row['value'] == pytest.approx(0.7)


@pytest.mark.parametrize('calibrated', [True, False])
def test_volumes_of_tmax_before_calibration_need_offsets_and_a_calibration(calibrated):
    settings = {'tmax_thresholds': (1.0, 6.0, 9.0), 'tmax_calibration': calibrated}
    rows, _ = tabulate(settings=settings, tmax_offsets=[None] + [2.5] * 7)
    rows = select(rows, region='tmax', measure='volume uncalibrated')
    figures = {row['threshold']: row['volume_ml'] for row in rows}
    # 1 s is below the offset; 8 s were 10.5 s before calibration
    volume = pytest.approx(SLOW.sum() * ML, rel=0.1)
    assert figures == ({1.0: None, 6.0: volume, 9.0: volume} if calibrated else {})


def test_deconvolution_without_offsets_has_no_volumes_before_calibration():
    rows, _ = tabulate(tmax_offsets=8 * [None])
    assert not select(rows, measure='volume uncalibrated')


def test_interval_is_beside_its_volume():
    rows, _ = tabulate(intervals={'global': [2.0, 3.0], 'hypoperfusion': [4.0, 5.0]})
    limits = {row['region']: (row['ci_low_ml'], row['ci_high_ml'])
              for row in rows if row['ci_low_ml'] is not None}  # fmt: skip
    assert limits == {'core': (2.0, 3.0), 'hypoperfusion': (4.0, 5.0)}
    assert select(rows, ci_low_ml=4.0)[0]['measure'] == 'volume'


def test_missing_interval_has_its_reason_in_the_table():
    rows, _ = tabulate(intervals={'reason': 'no interval: no noise'})
    (row,) = select(rows, region='core', normalization='global', measure='volume')
    assert row['reason'] == 'no interval: no noise'
