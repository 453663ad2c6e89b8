# SPDX-License-Identifier: Apache-2.0
"""Volumes, mismatch and the table of them all."""

import numpy as np
import pytest

from ctpprep.perfusion import segmentation, tabulation, volumes
from ctpprep.perfusion.symmetry import AffectedSide

SIZE = (2.0, 2.0, 5.0)
SHAPE = (40, 40, 8)
TISSUE = np.zeros(SHAPE, bool)
TISSUE[4:36, 4:36] = True
SIDE = AffectedSide('left', 5.0, 1.0, 0.8)


BORDER = segmentation.find_border(TISSUE, SIZE, 5.0)


def make_table(core=True, slow=True, severe=True, rcbv=0.9, offsets=None, second=0,
               restrict=False, tmax_thresholds=(4.0, 6.0, 8.0, 10.0), hypodense=None,
               core_rcbf=0.3, hypoperfusion_tmax=6.0):  # fmt: skip
    rcbf, tmax = np.where(TISSUE, 1.0, 0.0), np.where(TISSUE, 1.0, 0.0)
    if slow:
        tmax[6:26, 6:26] = 8.0
    if severe:
        tmax[6:16, 6:26] = 11.0
    if core:
        rcbf[8:14, 8:14] = 0.1
    # a second core, of which the hypoperfusion ends at 26
    rcbf[32 - second : 32, 32 - second : 32, 3:5] = 0.1
    cleaning = {
        'opening_mm': 2.5, 'closing_mm': 2.5, 'least_lesion_ml': 1.0, 'rim_deep_share': 0.1,
        'slab_end_ml': 5.0,
    }  # fmt: skip
    hypoperfusion = segmentation.segment_hypoperfusion(
        tmax, TISSUE, SIZE, BORDER, hypoperfusion_tmax=hypoperfusion_tmax, **cleaning
    )
    found = {'hypoperfusion': hypoperfusion}
    for which in ('global', 'local'):
        found[f'core_{which}'] = segmentation.segment_core(
            rcbf, TISSUE, SIZE, BORDER, core_rcbf=core_rcbf, hypoperfusion=hypoperfusion.mask,
            core_within_hypoperfusion=restrict, **cleaning,
        )  # fmt: skip
    masks = {name: lesion.mask for name, lesion in found.items()}
    for which in ('global', 'local'):
        masks[f'mismatch_{which}'] = segmentation.segment_mismatch(
            masks['hypoperfusion'], masks[f'core_{which}']
        )

    def segment(candidate, within, of_flow):
        return segmentation.segment(
            candidate, within, SIZE, BORDER, fill=not of_flow, hypoperfusion=hypoperfusion.mask,
            restrict=of_flow and restrict, **cleaning,
        )  # fmt: skip

    removed = {
        name: volumes.cleaning_ml(lesion, hypoperfusion.mask, SIZE)
        for name, lesion in found.items()
    }
    rcbv_global = None if rcbv is None else np.full(SHAPE, rcbv)
    rows = tabulation.volume_table(
        masks, removed, tmax, {'global': rcbf, 'local': rcbf}, rcbv_global,
        {'global': TISSUE, 'local': TISSUE}, SIZE, SIDE, 'left', core_rcbf=core_rcbf,
        hypoperfusion_tmax=hypoperfusion_tmax, tmax_thresholds=tmax_thresholds, hypodense=hypodense,
        rcbf_thresholds=(0.2, 0.3, 0.34, 0.38), segment=segment,
        join_cores=lambda hypoperfusion, _: hypoperfusion, tmax_offsets=offsets,
    )  # fmt: skip
    return rows, masks


def pick(rows, region, measure, normalization=None, threshold=None):
    chosen = [
        row for row in rows
        if (row['region'], row['measure'], row['normalization']) == (region, measure, normalization)
        and threshold in (None, row['threshold'])
    ]  # fmt: skip
    assert len(chosen) == 1
    return chosen[0]


def test_volume_counts_voxels_in_ml():
    mask = np.random.default_rng(0).random(SHAPE) > 0.5
    assert volumes.volume_ml(mask, SIZE) == pytest.approx(mask.sum() * 0.02)


@pytest.mark.parametrize(
    ('core', 'slow', 'fits'),
    [
        (69.9, 150.0, True), (70.0, 150.0, False),  # core < 70 mL
        (5.0, 20.0, True), (5.0, 19.9, False),  # mismatch >= 15 mL
        (50.0, 90.0, True), (50.0, 89.0, False),  # ratio >= 1.8
        (0.0, 15.0, True), (0.0, 14.9, False), (0.0, 0.0, False), (30.0, 10.0, False),
    ],
)  # fmt: skip
def test_defuse_3_asks_for_small_core_and_much_mismatch(core, slow, fits):
    assert volumes.mismatch_figures(core, slow)[2] is fits


@pytest.mark.parametrize('thresholds', [(0.05, 6.0), (0.3, 9.0), (0.05, 12.0)])
def test_defuse_3_keeps_its_own_thresholds(thresholds):
    usual = pick(make_table()[0], 'defuse3', 'criteria', 'global')
    core_rcbf, tmax = thresholds
    row = pick(
        make_table(core_rcbf=core_rcbf, hypoperfusion_tmax=tmax)[0],
        'defuse3',
        'criteria',
        'global',
    )
    assert row['value'] == usual['value']
    assert usual['reason'] is None
    assert 'by their own thresholds: rCBF < 30%' in row['reason']


def test_mismatch_may_be_negative():
    assert volumes.mismatch_figures(30.0, 10.0)[0] == -20


def test_every_row_has_every_column():
    for row in make_table()[0]:
        assert tuple(row) == tabulation.COLUMNS
        assert row['affected_side'] == 'left'
        assert row['side_confidence'] == 0.8


def test_volumes_of_the_rows_are_those_of_the_masks():
    rows, masks = make_table()
    for region, normalization, name in (
        ('hypoperfusion', None, 'hypoperfusion'), ('core', 'global', 'core_global'),
        ('mismatch', 'local', 'mismatch_local'),
    ):  # fmt: skip
        found = pick(rows, region, 'volume', normalization)['volume_ml']
        assert found == pytest.approx(volumes.volume_ml(masks[name], SIZE))


def test_the_table_of_thresholds_agrees_with_the_masks():
    rows, _ = make_table()
    for which in ('global', 'local'):
        row = pick(rows, 'rcbf', 'volume', which, 0.3)
        assert row['volume_ml'] == pick(rows, 'core', 'volume', which)['volume_ml'] > 0
    slow = pick(rows, 'tmax', 'volume', None, 6.0)['volume_ml']
    assert slow == pick(rows, 'hypoperfusion', 'volume')['volume_ml'] > 0


def test_volumes_fall_with_tmax_and_grow_with_flow():
    rows = make_table()[0]
    tmax = [pick(rows, 'tmax', 'volume', None, level)['volume_ml'] for level in (4, 6, 8, 10)]
    rcbf = [
        pick(rows, 'rcbf', 'volume', 'global', level)['volume_ml'] for level in (0.2, 0.3, 0.38)
    ]
    assert tmax == sorted(tmax, reverse=True)
    # 8 s are not more than 8 s
    assert tmax[1] > tmax[2] == tmax[3]
    assert rcbf == sorted(rcbf)


def test_mismatch_is_reported_as_overlap_and_as_difference():
    rows, masks = make_table()
    core, slow = (
        volumes.volume_ml(masks[name], SIZE) for name in ('core_global', 'hypoperfusion')
    )
    difference = pick(rows, 'mismatch', 'difference', 'global')['volume_ml']
    assert difference == pytest.approx(slow - core)
    assert pick(rows, 'mismatch', 'ratio', 'global')['value'] == pytest.approx(
        slow / core, abs=1e-4
    )
    assert pick(rows, 'defuse3', 'criteria', 'global')['value'] in (0.0, 1.0)


def test_intensity_ratio_is_the_severe_share():
    rows = make_table()[0]
    severe, slow = (pick(rows, 'tmax', 'volume', None, t)['volume_ml'] for t in (10.0, 6.0))
    found = pick(rows, 'hypoperfusion', 'intensity ratio')['value']
    assert found == pytest.approx(severe / slow, abs=1e-4)
    assert 0.4 < found < 0.6


def test_cbv_index_is_the_mean_rcbv_of_slow_tissue():
    assert pick(make_table()[0], 'hypoperfusion', 'CBV index', 'global')['value'] == 0.9


def test_without_cbv_there_is_a_reason_and_no_index():
    row = pick(make_table(rcbv=None)[0], 'hypoperfusion', 'CBV index', 'global')
    assert (row['value'], row['reason']) == (None, 'no map of CBV')


def test_intensity_ratio_needs_no_threshold_of_the_table():
    asked, others = make_table()[0], make_table(tmax_thresholds=(5.0,))[0]
    assert pick(others, 'hypoperfusion', 'intensity ratio') == pick(
        asked, 'hypoperfusion', 'intensity ratio'
    )


def test_the_hypodense_part_of_the_core_is_told():
    row = pick(make_table()[0], 'core', 'hypodense', 'global')
    assert (row['volume_ml'], row['reason']) == (None, 'no image of densities')
    dense = np.zeros(SHAPE, bool)
    assert pick(make_table(hypodense=dense)[0], 'core', 'hypodense', 'local')['volume_ml'] == 0
    dense[10:12, 10:12, 3] = True
    found = pick(make_table(hypodense=dense)[0], 'core', 'hypodense', 'local')
    assert (found['volume_ml'], found['reason']) == (0.08, None)


def test_tissue_that_cannot_be_judged_is_counted():
    row = pick(make_table()[0], 'unassessable', 'volume', 'local')
    assert row['volume_ml'] == 0
    assert row['reason']


def test_a_healthy_brain_gives_rows_of_0_with_a_reason():
    rows = make_table(core=False, slow=False, severe=False)[0]
    empty = [row for row in rows if row['measure'] == 'volume']
    assert len(empty) == 1 + 2 + 2 + 4 + 8 + 1
    for row in empty:
        assert row['volume_ml'] == 0
        assert row['reason'].startswith('no tissue')


def test_what_cannot_be_divided_is_empty_with_a_reason():
    rows = make_table(core=False, slow=False, severe=False)[0]
    for region, measure, normalization in (
        ('mismatch', 'ratio', 'global'), ('hypoperfusion', 'intensity ratio', None),
        ('hypoperfusion', 'CBV index', 'global'),
    ):  # fmt: skip
        row = pick(rows, region, measure, normalization)
        assert row['value'] is None
        assert row['reason']


def test_what_is_there_needs_no_reason():
    assert pick(make_table()[0], 'core', 'volume', 'global')['reason'] is None


# -- what was removed, and what is restricted


def test_what_was_removed_stands_in_the_table():
    rows = make_table(core=False, second=4)[0]
    row = pick(rows, 'core', 'removed specks', 'global')
    assert row['volume_ml'] == pytest.approx(0.48)
    assert row['reason'] is None
    for region in ('core', 'rcbf'):
        empty = pick(rows, region, 'volume', 'global', 0.3)
        assert empty['volume_ml'] == 0
        assert '0.5 mL of specks' in empty['reason']
    assert pick(rows, 'core', 'removed rims', 'global')['reason'].startswith('no rims')


@pytest.mark.parametrize('restrict', [False, True])
def test_core_is_tabulated_with_and_without_restriction(restrict):
    rows, masks = make_table(restrict=restrict, second=10)
    whole = pick(rows, 'core', 'volume unrestricted', 'global')['volume_ml']
    inside = pick(rows, 'core', 'volume within hypoperfusion', 'global')['volume_ml']
    assert 0 < inside < whole
    written = pick(rows, 'core', 'volume', 'global')['volume_ml']
    assert written == (inside if restrict else whole)
    assert written == pytest.approx(volumes.volume_ml(masks['core_global'], SIZE))
    assert pick(rows, 'rcbf', 'volume', 'global', 0.3)['volume_ml'] == written


def test_core_that_restriction_takes_away_says_so():
    row = pick(make_table(restrict=True, slow=False, severe=False)[0], 'core', 'volume', 'local')
    assert row['volume_ml'] == 0
    assert 'within hypoperfusion' in row['reason']


# -- without calibration


def test_uncalibrated_volume_adds_the_offset_of_each_slice():
    """8 s pass 10 s only in the slices whose offset is above 2 s."""
    rows = make_table(severe=False, offsets=[1.0] * 4 + [3.0] * 4)[0]
    calibrated = pick(rows, 'tmax', 'volume', None, 6.0)['volume_ml']
    assert pick(rows, 'tmax', 'volume uncalibrated', None, 6.0)['volume_ml'] == calibrated
    assert pick(rows, 'tmax', 'volume uncalibrated', None, 8.0)['volume_ml'] == calibrated
    half = pick(rows, 'tmax', 'volume uncalibrated', None, 10.0)['volume_ml']
    assert half == pytest.approx(calibrated / 2)


def test_uncalibrated_hypoperfusion_is_that_of_its_threshold():
    rows = make_table(offsets=[2.0] * 8)[0]
    mask = pick(rows, 'hypoperfusion', 'volume uncalibrated')
    assert mask['threshold'] == 6.0
    assert mask['volume_ml'] == pick(rows, 'tmax', 'volume uncalibrated', None, 6.0)['volume_ml']


def test_below_the_offset_there_is_no_uncalibrated_volume_but_a_reason():
    row = pick(make_table(offsets=[5.0] * 8)[0], 'tmax', 'volume uncalibrated', None, 4.0)
    assert row['volume_ml'] is None
    assert 'offset of 5.0 s' in row['reason']


def test_uncalibrated_tmax_has_no_rows_of_its_own():
    assert not [row for row in make_table()[0] if 'uncalibrated' in row['measure']]


def test_difference_of_the_cores_is_measured_with_its_homologues():
    rcbf = {'global': np.where(TISSUE, 0.2, 0.0), 'local': np.where(TISSUE, 0.5, 0.0)}
    core = np.zeros(SHAPE, bool)
    core[8:18, 8:18, 2] = True
    table = tabulation._Table(
        {'core_global': core, 'core_local': ~TISSUE},
        {},
        {'local': TISSUE},
        SIZE,
        SIDE,
        'left',
        None,
        None,
    )
    table.add_difference(rcbf, 0.3, '')
    removed = next(row for row in table.rows if row['measure'] == 'removed by local')
    homologues = next(
        row for row in table.rows if row['measure'] == 'homologues of removed by local'
    )
    assert removed['volume_ml'] == 2.0
    assert homologues['value'] == pytest.approx(0.4)
