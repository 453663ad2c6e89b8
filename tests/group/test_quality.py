# SPDX-License-Identifier: Apache-2.0
"""Series to review: outliers of the cohort, cores that disagree, series without result."""

import math

import numpy as np
import pytest

from ctpprep.group.quality import FIGURES, count_missing, outlier_fence

QUALITY = 'noise\tnoise_status\n{}\t{}\n'


# -- the fence


def test_fence_is_three_interquartile_ranges_beyond_the_quartiles():
    # 0 to 8: quartiles 2 and 6
    assert outlier_fence(np.arange(9.0)) == (2 - 3 * 4, 4, 6 + 3 * 4)
    # quartiles of a skewed sample: 2.5 and 10 by linear interpolation (ranks 2.75 and 6.25)
    skewed = np.array([1.0, 2, 4, 6, 7, 9, 13, 100])
    first, third = 2 + 0.75 * 2, 9 + 0.25 * 4
    width = third - first
    assert outlier_fence(skewed) == (first - 3 * width, 6.5, third + 3 * width)


def test_few_series_have_no_fence():
    low, median, high = outlier_fence(np.arange(7.0))
    assert (low, high) == (-math.inf, math.inf)
    assert math.isnan(median)
    assert outlier_fence(np.arange(8.0))[2] < math.inf


def test_equal_values_have_no_fence():
    assert outlier_fence(np.array([5.0] * 8 + [900.0])) == (-math.inf, 5, math.inf)


@pytest.mark.parametrize(
    ('noise', 'status', 'is_outlier'),
    # the others are 0 to 7: with one value above, quartiles 2 and 6, fence 18
    [(18, 'warn', False), (18.1, 'warn', True), (18.1, 'pass', False), (18, 'fail', True)],
)
def test_warning_beyond_the_fence_is_listed(site, list_outliers, noise, status, is_outlier):
    for value in range(8):
        site.write_series(f'sub-{value:02}', quality=QUALITY.format(value, 'pass'))
    site.write_series('sub-08', quality=QUALITY.format(noise, status))
    outliers = list_outliers(site.run_group())
    assert [name for name, _ in outliers] == (['sub-08'] if is_outlier else [])
    if is_outlier and status == 'warn':
        assert outliers[0][1] == 'noise: 18.1, the median is 4'


def test_warning_below_the_fence_is_listed(site, list_outliers):
    for value in range(8):
        site.write_series(f'sub-{value:02}', quality=QUALITY.format(value, 'pass'))
    # quartiles 1 and 5, fence -11
    site.write_series('sub-08', quality=QUALITY.format(-11.1, 'warn'))
    assert [name for name, _ in list_outliers(site.run_group())] == ['sub-08']


def test_warning_without_a_value_is_not_an_outlier(site):
    site.write_series('sub-01', quality=QUALITY.format('n/a', 'warn'))
    assert 'Series that stand out: 0' in site.run_group(participant_label=('01',))


# -- cores and states


def test_disagreeing_cores_are_listed(site, list_outliers):
    quality = 'core_disagreement\tcore_disagreement_status\n{}\t{}\n'.format
    site.write_series('sub-01', '40.0', '24.3', quality('15.7', 'warn'))
    site.write_series('sub-02', '75.0', '66.0', quality('9', 'pass'))
    site.write_series('sub-03', '75.0', '71.0', quality('4', 'pass'))
    outliers = list_outliers(site.run_group())
    assert [name for name, _ in outliers] == ['sub-01', 'sub-02']
    assert 'warns' in outliers[0][1]
    assert 'different sides of 70 mL (DEFUSE 3): 75.0 and 66.0 mL' in outliers[1][1]


def test_unprocessed_participants_are_counted_not_listed(site, list_outliers):
    site.write_series('sub-01')
    page = site.run_group()
    assert list_outliers(page) == []
    assert 'Series that stand out: 0' in page
    assert '1 participant was not processed' in page


def test_limits_of_all_apply_to_series_of_unknown_group(site):
    rows = ['participant_id\tmicroangiopathy']
    for i in range(20):
        site.write_series(f'sub-{i:02}', '50.0', '1.0' if i == 19 else f'4{i % 5}.0')
        rows.append(f'sub-{i:02}\t{"n/a" if i == 19 else "yes"}')
    site.write_participants('\n'.join(rows) + '\n')
    page = site.run_group()
    assert 'Local - global: -49.0 mL, outside of the limits of agreement of all series' in page


@pytest.mark.parametrize(('changed', 'titles'), [
    ({}, ['All volumes']), ({'core_local': None}, list(FIGURES.values())),
])  # fmt: skip
def test_volumes_with_equal_counts_share_a_row(changed, titles):
    volumes = dict.fromkeys(FIGURES, 1.0)
    rows = [
        {'counts': True, 'state': 'succeeded'} | volumes | changed,
        {'counts': False, 'state': 'failed'} | dict.fromkeys(FIGURES),
    ]
    counts = count_missing(rows)
    assert [title for title, *_ in counts] == titles
    assert counts[0][1:] == (1, [('failed', 1)])
