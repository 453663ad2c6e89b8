# SPDX-License-Identifier: Apache-2.0
"""Agreement with a follow-up lesion: invariants, figures known beforehand, a second implementation."""

import numpy as np
import pytest
from scipy import ndimage

from ctpprep.exceptions import PerfusionError
from ctpprep.perfusion.followup import (
    COLUMNS,
    FollowUpMaps,
    compare_followup,
    doubt_of_place,
    find_lesion,
    place_lesion,
    surface_distances,
)
from ctpprep.perfusion.lesions import RelativeMaps, segment_lesions
from ctpprep.settings import MethodSettings

SIZE = (2.0, 2.0, 5.0)
AFFINE = np.diag([*SIZE, 1.0])
SHAPE = (40, 48, 8)
METHOD = MethodSettings.of(least_lesion_ml=0.0, rim_mm=0.0, opening_mm=0.0, closing_mm=0.0)


def ball(centre, radius_mm, shape=SHAPE, size=SIZE):
    index = np.indices(shape).reshape(3, -1).T * size
    return (np.linalg.norm(index - centre, axis=1) <= radius_mm).reshape(shape)


@pytest.fixture(scope='module')
def scene():
    """Maps whose left half has rCBF that grows with the distance from a centre, and the lesion."""
    centre = np.array([20.0, 48.0, 20.0])
    distance = np.linalg.norm(np.indices(SHAPE).reshape(3, -1).T * SIZE - centre, axis=1).reshape(
        SHAPE
    )
    rcbf = np.clip(distance / 50, 0, 1).astype(np.float32)  # 0.3 at 15 mm
    tissue = np.ones(SHAPE, bool)
    hemispheres = np.where(np.arange(SHAPE[0])[:, None, None] < 20, 1, 2) * np.ones(SHAPE, int)
    measured = {
        'affected_side': 'left', 'tmax_left_s': 5.0, 'tmax_right_s': 1.0, 'side_confidence': 1.0,
        'side_rule': 'median', 'cbf_reference': 50.0,
    }  # fmt: skip
    maps = RelativeMaps(
        (12 * (1 - rcbf)).astype(np.float32), {'global': rcbf, 'local': np.sqrt(rcbf)}, tissue,
        hemispheres, SIZE, measured, np.zeros(SHAPE, bool),
    )  # fmt: skip
    masks = segment_lesions(maps, METHOD).masks
    lesion = place_lesion(rcbf < 0.4, AFFINE, np.eye(4), SHAPE, AFFINE)
    probability = {'global': (rcbf < 0.4).astype(np.float32)}
    extra = FollowUpMaps(tissue, masks, {'global': rcbf}, probability)
    return maps, extra, lesion


@pytest.fixture(scope='module')
def rows(scene):
    return compare_followup(*scene, METHOD)


def select(rows, **wanted):
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


@pytest.mark.parametrize('scale', [1, 255, 1.0, 255.0])
def test_any_positive_label_is_lesion(scale):
    mask = ball((40, 40, 20), 15)
    values = np.where(mask, np.dtype(type(scale)).type(scale), 0)
    np.testing.assert_array_equal(find_lesion(values)[0], mask)


@pytest.mark.parametrize('scale', [1, 255])
def test_a_mask_that_was_interpolated_keeps_its_volume(scale):
    mask = ball((40, 40, 20), 15)
    blurred = ndimage.uniform_filter(scale * mask.astype(np.float32), (3, 3, 1))
    lesion, facts = find_lesion(blurred)
    assert abs(lesion.sum() / mask.sum() - 1) < 0.03
    assert np.count_nonzero(blurred > 1e-3) > 1.2 * mask.sum()
    assert facts == {'followup_level': scale / 2}


def test_labels_with_rounding_errors_are_labels():
    lesion, facts = find_lesion(np.array([1e-5, 1.0, 2.00001, 3.0, 255.001]))
    assert (lesion.tolist(), facts) == ([False, True, True, True, True], {})
    assert find_lesion(np.zeros(3))[1] == {}
    assert find_lesion(np.array([0, 1e-4]))[0].tolist() == [False, True]


def test_infinite_values_are_refused():
    with pytest.raises(PerfusionError, match='infinite values'):
        find_lesion(np.array([0, 1, np.inf]))


def test_mask_on_the_same_grid_is_unchanged():
    mask = ball((40, 40, 20), 15)
    placed = place_lesion(mask, AFFINE, np.eye(4), SHAPE, AFFINE)
    np.testing.assert_array_equal(placed.mask, mask)
    assert placed.factors == (1, 1, 1)
    assert placed.covered == pytest.approx(1)


def test_tilted_finer_mask_keeps_its_volume_and_place():
    fine = np.diag([0.7, 0.7, 1.5, 1.0])
    mask = ball((45, 50, 22), 12, (120, 140, 30), (0.7, 0.7, 1.5))
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.2), -np.sin(0.2)], [np.sin(0.2), np.cos(0.2)]]
    turn[:3, 3] = np.array([45, 50, 22]) - turn[:3, :3] @ [40, 48, 20]
    placed = place_lesion(mask, fine, turn, SHAPE, AFFINE)
    assert placed.share.sum() * 0.02 == pytest.approx(placed.total_ml, rel=0.01)
    assert placed.covered == pytest.approx(1, abs=0.01)
    centre = np.array(ndimage.center_of_mass(placed.share)) * SIZE
    assert np.linalg.norm(centre - [40, 48, 20]) < 0.5


def test_coverage_is_the_fraction_of_the_lesion_within_the_slab():
    mask = np.zeros(SHAPE, bool)
    mask[10:20, 10:20, :] = True
    placed = place_lesion(mask, AFFINE, np.eye(4), (40, 48, 4), AFFINE)
    assert placed.covered == pytest.approx(0.5, abs=0.01)


def test_threshold_of_the_planted_lesion_agrees_perfectly(rows):
    (best,) = select(
        rows, measure='threshold', quantity='rcbf', normalization='global', threshold=0.4
    )
    assert (best['dice'], best['sensitivity'], best['precision']) == (1, 1, 1)
    assert (best['difference_ml'], best['surface_95_mm']) == (0, 0)
    dices = [
        row['dice']
        for row in select(rows, measure='threshold', quantity='rcbf', normalization='global')
    ]
    assert dices.index(max(dices)) == 15  # of 10, 12, ... %


def test_threshold_of_the_core_gives_the_figures_of_the_core(rows):
    (core,) = select(rows, measure='segmentation', quantity='core', normalization='local')
    (same,) = select(
        rows, measure='threshold', quantity='rcbf', normalization='local', threshold=0.3
    )
    assert {**core, 'measure': '', 'quantity': ''} == {**same, 'measure': '', 'quantity': ''}


def test_figures_match_those_of_plain_arrays(scene, rows):
    _, extra, lesion = scene
    core, truth = extra.masks['core_global'], lesion.mask
    (row,) = select(rows, measure='segmentation', quantity='core', normalization='global')
    both = (core & truth).sum()
    assert row['dice'] == pytest.approx(2 * both / (core.sum() + truth.sum()), abs=1e-4)
    assert row['specificity'] == pytest.approx((~core & ~truth).sum() / (~truth).sum(), abs=1e-4)
    assert row['difference_ml'] == pytest.approx((core.sum() - truth.sum()) * 0.02, abs=1e-4)


def test_map_that_ranks_like_the_truth_has_an_area_of_one(rows):
    areas = select(rows, measure='ranking', quantity='rcbf', region='hemisphere')
    assert [row['auc'] for row in areas] == [1, 1]


def test_probability_equal_to_the_truth_has_no_brier_score(rows):
    (row,) = select(rows, measure='probability')
    assert row['brier'] == 0
    bins = select(rows, measure='reliability')
    assert [(row['predicted'], row['observed']) for row in bins] == [(0, 0), (1, 1)]


def test_surface_distance_is_that_of_a_distance_transform():
    first, second = ball((40, 40, 20), 14), ball((46, 44, 20), 12)
    edges = [mask & ~ndimage.binary_erosion(mask) for mask in (first, second)]
    fields = [ndimage.distance_transform_edt(~edge, sampling=SIZE) for edge in edges]
    distances = np.concatenate([fields[1][edges[0]], fields[0][edges[1]]])
    mean, high = surface_distances(first, second, SIZE)
    assert mean == pytest.approx(distances.mean())
    assert high == pytest.approx(np.percentile(distances, 95))


def test_finer_grid_gives_the_volume_of_the_finer_mask(scene):
    maps, extra, _ = scene
    half = np.diag([1.0, 1.0, 2.5, 1.0])
    half[:3, 3] = [-0.5, -0.5, -1.25]
    shape = tuple(2 * n for n in SHAPE)
    fine = np.zeros(shape, bool)
    fine[20:31, 40:51, 4:9] = True  # 605 of 2.5 mm3
    placed = place_lesion(fine, half, np.eye(4), SHAPE, AFFINE)
    rows = compare_followup(maps, extra, placed, METHOD.change(followup_grid='finer'))
    assert rows[0]['followup_ml'] == pytest.approx(605 * 0.0025, abs=1e-4)


def test_empty_lesion_has_reasons_and_no_ratios(scene):
    maps, extra, _ = scene
    nothing = place_lesion(np.zeros(SHAPE, bool), AFFINE, np.eye(4), SHAPE, AFFINE)
    rows = compare_followup(maps, extra, nothing, METHOD)
    assert rows[0]['sensitivity'] is None
    assert rows[0]['reason'] == 'no follow-up lesion in the brain of the series'
    assert all(set(row) == set(COLUMNS) for row in rows)


def test_withheld_local_map_has_a_row_with_the_reason(scene):
    maps, extra, lesion = scene
    alone = RelativeMaps(
        maps.tmax, {'global': maps.rcbf['global']}, maps.tissue_mask, maps.hemispheres, SIZE,
        maps.measured,
    )  # fmt: skip
    masks = {name: mask for name, mask in extra.masks.items() if 'local' not in name}
    rows = compare_followup(
        alone, FollowUpMaps(extra.brain_mask, masks, withheld='folded'), lesion, METHOD
    )
    (row,) = select(rows, measure='segmentation', normalization='local')
    assert row['reason'] == 'folded'


def test_mask_that_ends_with_its_grid_keeps_its_volume():
    mask = np.zeros((6, 6, 4), bool)
    mask[2:4, 2:4, 3] = True
    affine = np.diag([2.0, 2, 5, 1])
    grid = np.diag([2.0, 2, 2.5, 1])
    grid[2, 3] = -10
    placed = place_lesion(mask, affine, np.eye(4), (6, 6, 16), grid)
    assert placed.covered == pytest.approx(1, abs=0.01)


def test_lesion_beside_the_brain_is_left_out_with_the_part_inside():
    brain_mask = np.zeros((20, 20, 4), bool)
    brain_mask[:10] = True
    lesion = np.zeros(brain_mask.shape)
    lesion[8:13, 5:10, 1] = 1
    assert doubt_of_place(lesion, brain_mask).startswith('40% of the lesion is in the brain')
    assert doubt_of_place(np.roll(lesion, -1, axis=0), brain_mask) == ''
