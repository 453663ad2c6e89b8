# SPDX-License-Identifier: Apache-2.0
"""Where lesions lie, in cohorts of small masks whose truth is planted."""

import json
import shutil

import nibabel as nb
import numpy as np
import pytest

from ctpprep.exceptions import UsageError
from ctpprep.group import LOCATIONS
from ctpprep.group.locations import (
    DEEP_NAME,
    SHARES,
    add_up,
    compare_locations,
    enlarge,
    region_shares,
    summarize_tests,
)
from ctpprep.group.templates import find_masks, read_masks
from ctpprep.perfusion.regions import COLUMNS, TISSUES

SHAPE = (24, 16, 16)
AFFINE = np.diag([2.0, 2, 2, 1])
AFFINE[0, 3] = -(SHAPE[0] - 1)
#: Blocks of 4 voxels: one in which microangiopathy adds core that local normalization removes, and one of
#: true core in all.
FALSE_BLOCK, CORE_BLOCK = (4, 1, 1), (1, 2, 2)
GROUPS = ['MA', 'no MA']


def block(place):
    mask = np.zeros(SHAPE, bool)
    mask[tuple(slice(4 * index, 4 * index + 4) for index in place)] = True
    return mask


def make_masks(index):
    """Masks of a series: every second has microangiopathy; core in 3 of 4."""
    core = block(CORE_BLOCK) if index % 4 else np.zeros(SHAPE, bool)
    false = block(FALSE_BLOCK) if index % 2 == 0 and index % 12 else np.zeros(SHAPE, bool)
    brain = np.ones(SHAPE, bool)
    if index == 1:
        brain[..., :4] = False  # a slab that begins higher
    return {
        'brain': brain, 'core_global': core | false, 'core_local': core, 'hypoperfusion': core
    }  # fmt: skip


def cohort(n=24):
    return [(f'sub-{index:02d}', GROUPS[index % 2], make_masks(index)) for index in range(n)]


@pytest.fixture(scope='module')
def locations():
    return add_up(cohort(), GROUPS)


@pytest.fixture(scope='module')
def tests(locations):
    return {
        (test.name, test.lesion, test.group): test
        for test in compare_locations(locations, GROUPS, n_permutations=200)
    }


def at(test, place, locations, what='p'):
    values = enlarge(getattr(test, what), locations.blocks, SHAPE)
    return values[tuple(4 * index for index in place)]


def test_frequencies_are_of_the_participants_whose_slab_contains_the_voxel(locations):
    everyone = locations.sums['all']
    assert (everyone.n, locations.sums['MA'].n) == (24, 12)
    assert everyone.frequency('core_global')[16, 4, 4] == pytest.approx(10 / 24)
    assert locations.sums['MA'].frequency('removed')[16, 4, 4] == pytest.approx(10 / 12)
    assert locations.sums['no MA'].frequency('removed').max() == 0
    assert everyone.covered[0, 0, 0] == 23


def test_maps_add_up(locations):
    for sums in locations.sums.values():
        kept = sums.lesions['core_global'].astype(int) - sums.lesions['removed']
        np.testing.assert_array_equal(kept + sums.lesions['added'], sums.lesions['core_local'])


def test_removed_core_is_found_where_it_was_planted_and_nowhere_else(locations, tests):
    difference = tests['local - global', 'core', 'MA']
    assert at(difference, FALSE_BLOCK, locations) < 0.01
    assert at(difference, FALSE_BLOCK, locations, 'difference') == pytest.approx(-10 / 12)
    assert at(difference, CORE_BLOCK, locations) == 1
    assert tests['local - global', 'core', 'no MA'].p.min() == 1


def test_groups_differ_in_removed_core_alone(locations, tests):
    name = 'MA - no MA'
    assert at(tests[name, 'removed', ''], FALSE_BLOCK, locations) < 0.01
    assert tests[name, 'added', ''].n_tested == 0
    assert at(tests[name, 'removed', ''], FALSE_BLOCK, locations, 'difference') == pytest.approx(
        10 / 12
    )


def compare(series):
    return list(compare_locations(add_up(series, GROUPS), GROUPS, n_permutations=200))


@pytest.mark.parametrize('times', [2, 3])
def test_repeated_series_of_a_participant_change_no_p_value(times):
    once = cohort(8)
    repeated = [item for item in once for _ in range(times)]
    as_participants = [(str(i), group, masks) for i, (_, group, masks) in enumerate(repeated)]
    single, same, shrunk = (compare(series) for series in (once, repeated, as_participants))
    for first, second in zip(single, same, strict=True):
        np.testing.assert_array_equal(first.p, second.p)
        np.testing.assert_allclose(first.difference, second.difference, atol=1e-6)
        assert first.n == second.n
    assert min(test.p.min() for test in shrunk) < 0.5 * min(test.p.min() for test in single)


def test_series_of_a_participant_are_averaged():
    with_core, without = make_masks(1), make_masks(4)
    partly = [('a', 'MA', with_core), ('a', 'MA', without), ('b', 'MA', with_core)]
    sums = add_up(partly, GROUPS).sums['all']
    assert (sums.n, sums.n_series) == (2, 3)
    assert sums.frequency('core_local')[4, 8, 8] == pytest.approx(0.75)
    assert add_up(partly, GROUPS).thumbnails['core_local'].max(axis=1).tolist() == [128, 255]


def test_the_family_wise_error_holds_where_nothing_differs():
    """Of 40 comparisons of random masks without a difference, few are significant anywhere."""
    significant = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        series = []
        for index in range(16):
            core = rng.random(SHAPE) < 0.05
            brain = np.ones(SHAPE, bool)
            masks = {
                'brain': brain,
                'core_global': core,
                'core_local': core,
                'hypoperfusion': core,
            }
            series.append((str(index), GROUPS[index % 2], masks))
        one = add_up(series, GROUPS)
        found = [
            test.p.min() for test in compare_locations(one, GROUPS, 100)
            if test.lesion == 'core_global'
        ]  # fmt: skip
        significant += found[0] < 0.05
    assert significant <= 6  # 95 % of binomial draws of 40 at 5 %


def volumes(**given):
    """Volumes of one region of every kind, mL; others are 0."""
    regions = list(TISSUES.values())
    first = next(iter(given.values()))
    empty = np.zeros((len(next(iter(first.values()))), len(regions)))
    table = {name: empty.copy() for name in SHARES}
    for name, of_regions in given.items():
        for region, values in of_regions.items():
            table[name][:, regions.index(region)] = values
    return table, regions


def shares(table, regions, participants):
    return {
        (row['comparison'], row['statistic']): row
        for row in region_shares(table, regions, participants)
    }


def test_shares_are_of_the_summed_volume_with_an_interval():
    rng = np.random.default_rng(1)
    deep, cortex = rng.uniform(6, 10, 50), rng.uniform(1, 3, 50)
    table, regions = volumes(
        removed={'deep white matter': deep, 'cortex': cortex},
        kept={'cortex': 3 * cortex, 'periventricular white matter': cortex},
    )
    rows = shares(table, regions, [f'sub-{i}' for i in range(50)])
    removed = rows['removed', f'share in {DEEP_NAME}']
    assert removed['value'] == pytest.approx(deep.sum() / (deep + cortex).sum(), rel=1e-5)
    assert removed['ci_low'] < removed['value'] < removed['ci_high']
    assert removed['ci_high'] - removed['ci_low'] < 0.1
    difference = rows['removed - kept', f'share in {DEEP_NAME}']
    assert difference['value'] == pytest.approx(removed['value'] - 0.25, rel=1e-5)
    assert difference['ci_low'] > 0


def test_the_bootstrap_draws_participants_not_series():
    table, regions = volumes(removed={'cortex': np.tile([9.0, 1, 1, 1], 5),
                                      'deep white matter': np.tile([1.0, 9, 9, 9], 5)})  # fmt: skip
    as_series = shares(table, regions, list(range(20)))
    as_four = shares(table, regions, [i % 4 for i in range(20)])
    widths = [
        one['removed', 'share in cortex']['ci_high'] - one['removed', 'share in cortex']['ci_low']
        for one in (as_series, as_four)
    ]
    assert widths[1] > 1.5 * widths[0]


def test_repeated_series_change_no_share():
    rng = np.random.default_rng(2)
    table, regions = volumes(removed={'cortex': rng.random(9), 'deep white matter': rng.random(9)})
    repeated = {name: np.repeat(values, 2, axis=0) for name, values in table.items()}
    assert shares(table, regions, list('abcdefghi')) == shares(
        repeated, regions, [name for name in 'abcdefghi' for _ in range(2)]
    )


def test_too_few_participants_have_a_reason():
    table, regions = volumes(removed={'cortex': np.ones(2)})
    (row,) = region_shares(table, regions, ['a', 'b'])
    assert row['value'] is None
    assert 'fewer than 3' in row['reason']


# -- from files


def write_cohort(site, n=8, sides=('left', 'right')):
    """Masks and regions in template space; core on the left in all of the voxels."""
    rows = ['participant_id\tmicroangiopathy']
    for index in range(n):
        name, side = f'sub-{index:02d}', sides[index % len(sides)]
        site.write_series(name)
        morph = site.out / name / 'ct' / f'{name}_seg-perfusion_morph.tsv'
        header, *lines = morph.read_text().splitlines()
        lines = [f'{header}\taffected_side', *(f'{line}\t{side}' for line in lines)]
        morph.write_text('\n'.join(lines) + '\n')
        masks = make_masks(index)
        if side == 'left':
            masks = {key: mask[::-1] for key, mask in masks.items()}
        for key, ending in (
            ('brain', 'desc-brain_mask'), ('core_global', 'label-core_desc-global_mask'),
            ('core_local', 'label-core_desc-local_mask'), ('hypoperfusion', 'label-hypoperfusion_mask'),
        ):  # fmt: skip
            image = nb.Nifti1Image(masks[key].astype(np.uint8), AFFINE)
            path = f'{name}_space-MNI152NLin2009aSym_res-2_{ending}.nii.gz'
            nb.save(image, site.out / name / 'ct' / path)
        cells = dict.fromkeys(COLUMNS, '1.0') | {'hemisphere': 'both', 'reason': 'n/a'}
        table = ['\t'.join(COLUMNS)]
        for label, region in TISSUES.items():
            table.append('\t'.join((cells | {'region': region, 'label': str(label)}).values()))
        site.write(f'{name}/ct/{name}_desc-regions_morph.tsv', '\n'.join(table) + '\n')
        rows.append(f'{name}\t{"yes" if index % 2 == 0 else "no"}')
    site.write_participants('\n'.join(rows) + '\n')


def load(site, name):
    folder = site.out / 'group_maps'
    return nb.load(folder / f'{name}.nii.gz').get_fdata(), json.loads(
        (folder / f'{name}.json').read_text()
    )


@pytest.mark.parametrize('flip_left', [False, True])
def test_left_lesions_are_flipped_on_request(site, flip_left):
    write_cohort(site, 4)
    sides = {f'sub-{index:02d}': ('left', 'right')[index % 2] for index in range(4)}
    masks = find_masks(site.out, site.make_cohort().included, sides)
    for index, (*_, arrays) in enumerate(read_masks(masks, flip_left)):
        expected = make_masks(index)['core_global']
        seen = expected if flip_left or index % 2 else expected[::-1]
        np.testing.assert_array_equal(arrays['core_global'], seen)


def test_table_and_page_show_shares_and_maps(site):
    write_cohort(site)
    site.write_series('sub-99')
    page = site.run_group(flip_left=True)
    name = 'group-all_space-MNI152NLin2009aSym_res-2_label-core_desc-local_frequency'
    flipped, sidecar = load(site, name)
    assert (flipped.max(), sidecar['N']) == (0.75, 8)
    assert '4 series whose affected side is the left are flipped to the right' in page
    table = site.read(LOCATIONS)
    share = table[(table['comparison'] == 'removed') & (table['group'] == 'all')]
    assert share[share['statistic'] == f'share in {DEEP_NAME}']['value'].tolist() == ['0.4']
    assert 'removed core, microangiopathy (n = 4)' in page
    assert page.count('data:image/png') >= 15
    assert '8 of 9 series have cores by both normalizations in space-MNI152NLin2009aSym' in page


@pytest.mark.parametrize('first', ['MNI152NLin2009aSym', 'MNI152NLin2009zAsym'])
def test_of_several_spaces_the_first_of_the_participant_level_is_shown(site, first):
    write_cohort(site, 4)
    for path in site.out.rglob('*_space-MNI152NLin2009aSym_*'):
        shutil.copy(path, path.with_name(path.name.replace('2009aSym', '2009zAsym')))
    for path in site.out.rglob('*_desc-regions_morph.tsv'):
        settings = {'template': {'output_spaces': [f'{first}:res-2']}}
        path.with_suffix('.json').write_text(json.dumps({'Settings': settings}))
    masks = find_masks(site.out, site.make_cohort().included, {})
    assert masks.space == f'space-{first}_res-2'
    assert any('4 series in space-' in note and 'are not shown' in note for note in masks.notes)


def test_a_damaged_mask_is_skipped(site, caplog):
    write_cohort(site, 4)
    folder = site.out / 'sub-03' / 'ct'
    (folder / 'sub-03_space-MNI152NLin2009aSym_res-2_desc-brain_mask.nii.gz').write_bytes(b'x')
    masks = find_masks(site.out, site.make_cohort().included, {})
    assert len(list(read_masks(masks, flip_left=False))) == 3
    assert 'sub-03: its masks in template space cannot be read' in caplog.text


def test_flipping_without_template_space_is_refused(three):
    with pytest.raises(UsageError, match='--flip-left needs masks in template space'):
        three.run_group(flip_left=True)


def test_without_template_space_nothing_is_added(three):
    page = three.run_group()
    assert not (three.out / LOCATIONS).exists()
    assert 'Where lesions lie' not in page


def test_slabs_without_a_common_block_have_a_reason():
    series = []
    for index in range(3):
        masks = make_masks(4 * index + 1)
        masks['brain'] = np.zeros(SHAPE, bool)
        masks['brain'][..., 4 * index : 4 * index + 4] = True
        series.append((str(index), 'MA', masks))
    apart = add_up(series, ['MA'])
    rows = summarize_tests(compare_locations(apart, ['MA']))
    assert {row['reason'] for row in rows} == {
        'no block is within the slabs of enough participants'
    }
