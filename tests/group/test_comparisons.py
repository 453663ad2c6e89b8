# SPDX-License-Identifier: Apache-2.0
"""Samples and comparisons of samples: hand calculation, a second implementation, invariants."""

import numpy as np
import pytest
from statsmodels.graphics.agreement import mean_diff_plot

from ctpprep.group.comparisons import (
    bland_altman,
    compare_paired,
    compare_proportions,
    compare_samples,
    describe,
    describe_proportion,
)

GLOBAL = np.array([10.0, 20.0, 30.0, 40.0])
LOCAL = np.array([6.0, 16.0, 20.0, 30.0])


def by_name(rows):
    return {row['statistic']: row for row in rows}


# -- hand calculation


def test_description_matches_hand_calculation():
    # deviations -3 -2 5, sum of squares 38; t(0.975, 2) = 4.302653
    rows = by_name(describe(np.array([1.0, 2.0, 9.0])))
    assert rows['median']['value'] == 2
    assert rows['sd']['value'] == pytest.approx(19**0.5)
    assert rows['mean']['ci_low'] == pytest.approx(4 - 4.302653 * (19 / 3) ** 0.5)


def test_agreement_matches_hand_calculation():
    # differences -4 -4 -10 -10: mean -7, sum of squares 36, SD sqrt(12)
    rows = by_name(bland_altman(GLOBAL, LOCAL))
    assert rows['mean difference']['value'] == -7
    assert rows['sd']['value'] == pytest.approx(12**0.5)
    assert rows['lower limit 2 SD']['value'] == pytest.approx(-7 - 2 * 12**0.5)
    assert rows['upper limit 1.96 SD']['value'] == pytest.approx(-7 + 1.96 * 12**0.5)


def test_standard_errors_of_agreement_match_hand_calculation():
    # variance of the differences 12, n = 4, t(0.975, 3) = 3.182446:
    # mean 12 / 4 = 3; limit 12 (1/4 + z^2 / (2 x 3)), which is 11 for z = 2
    rows = by_name(bland_altman(GLOBAL, LOCAL))
    for name, center, variance in (
        ('mean difference', -7, 3),
        ('lower limit 2 SD', -7 - 2 * 12**0.5, 11),
        ('upper limit 2 SD', -7 + 2 * 12**0.5, 11),
        ('lower limit 1.96 SD', -7 - 1.96 * 12**0.5, 3 + 2 * 1.96**2),
        ('upper limit 1.96 SD', -7 + 1.96 * 12**0.5, 3 + 2 * 1.96**2),
    ):
        half_width = 3.182446 * variance**0.5
        assert rows[name]['ci_low'] == pytest.approx(center - half_width, rel=1e-6)
        assert rows[name]['ci_high'] == pytest.approx(center + half_width, rel=1e-6)


def test_intervals_of_limits_cover_the_true_limits():
    # -2 SD of standard normal differences is -2: found by a second way, simulation
    rng = np.random.default_rng(8)
    n_covered = 0
    for _ in range(2000):
        differences = rng.normal(size=12)
        lower = by_name(bland_altman(np.zeros(12), differences))['lower limit 2 SD']
        n_covered += lower['ci_low'] <= -2 <= lower['ci_high']
    assert n_covered / 2000 == pytest.approx(0.95, abs=0.02)


def test_wilcoxon_matches_hand_calculation():
    # differences +1 -2 -3 -4: W+ = 1 of 10; two of 16 sign patterns per tail: p = 4 / 16
    rows = by_name(compare_paired(np.zeros(4), np.array([1.0, -2.0, -3.0, -4.0])))
    assert rows['wilcoxon']['value'] == 1
    assert rows['wilcoxon']['p'] == pytest.approx(0.25)
    assert rows['rank-biserial correlation']['value'] == pytest.approx(-0.8)


def test_wilcoxon_excludes_equal_pairs():
    rows = by_name(compare_paired(np.zeros(6), np.array([1.0, -2.0, -3.0, -4.0, 0.0, 0.0])))
    assert rows['wilcoxon']['n'] == rows['rank-biserial correlation']['n'] == 4
    assert rows['wilcoxon']['reason'] == '2 of 6 pairs are equal and left out'


def test_rank_tests_are_exact_with_ties():
    # five differences of one sign: 2 of 32 patterns; 0 0 5 all below 8 9 9: 2 of 20 arrangements
    row = by_name(compare_paired(np.zeros(5), np.array([1.0, 1, 2, 3, 3])))['wilcoxon']
    assert row['p'] == pytest.approx(0.0625)
    row = by_name(compare_samples(np.array([0.0, 0, 5]), np.array([8.0, 9, 9])))['mann-whitney']
    assert row['p'] == pytest.approx(0.1)
    assert row['method'].endswith('exact, also with ties')


def test_samples_match_hand_calculation():
    # 1 2 3 and 4 5 6: U = 0, one of 20 arrangements per tail; variances 1, t = -3 / sqrt(2/3)
    rows = by_name(compare_samples(np.array([1.0, 2, 3]), np.array([4.0, 5, 6])))
    assert rows['mann-whitney']['value'] == 0
    assert rows['mann-whitney']['p'] == pytest.approx(0.1)
    assert rows['rank-biserial correlation']['value'] == -1
    assert rows['difference of means']['value'] == -3
    # df 4, t(0.975, 4) = 2.776445
    assert rows['difference of means']['ci_low'] == pytest.approx(-3 - 2.776445 * (2 / 3) ** 0.5)
    assert rows['hedges g']['value'] == pytest.approx(-3 * (1 - 3 / 15))


def test_proportions_match_hand_calculation():
    rows = by_name(compare_proportions(np.array([True] * 3), np.array([False] * 3), 'female'))
    assert rows['female, odds ratio']['p'] == pytest.approx(0.1)  # 2 of 20 tables
    assert rows['female, odds ratio']['reason'] == 'a cell of the table is empty'
    # 0.025 = P(3 of the first) at the lower limit w: w^3 / (1 + 9 w + 9 w^2 + w^3)
    w = rows['female, odds ratio']['ci_low']
    assert w**3 / (1 + 9 * w + 9 * w**2 + w**3) == pytest.approx(0.025)
    assert rows['female, odds ratio']['ci_high'] is None
    # Wilson, 0 of 4: upper limit z^2 / (n + z^2)
    row = by_name(describe_proportion(np.zeros(4, bool), 'female'))['female, share']
    assert row['ci_high'] == pytest.approx(1.959964**2 / (4 + 1.959964**2))


# -- a second implementation


def test_limits_match_those_drawn_by_statsmodels():
    import matplotlib.pyplot as plt

    rng = np.random.default_rng(5)
    x = rng.gamma(2, 20, 40)
    y = 0.7 * x + rng.normal(0, 4, 40)
    figure = mean_diff_plot(y, x, sd_limit=1.96)
    expected = sorted(line.get_ydata()[0] for line in figure.axes[0].lines)
    plt.close(figure)
    rows = by_name(bland_altman(x, y))
    mean = rows['mean difference']['value']
    names = ('lower limit 1.96 SD', 'mean difference', 'upper limit 1.96 SD')
    # statsmodels divides by n, ctpprep by n - 1
    scale = (39 / 40) ** 0.5
    assert [mean + scale * (rows[name]['value'] - mean) for name in names] == pytest.approx(
        expected
    )


def test_intervals_of_limits_match_bland_and_altman():
    # their worked example of peak flow meters (Lancet 1986;327:307): n 17, mean difference -2.1, SD 38.8;
    # limits -79.7 and 75.5 (2 SD), interval of the lower -114.3 to -45.1, of the mean -22.0 to 17.8
    wright = [494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427]
    mini = [512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451]
    rows = by_name(bland_altman(np.array(mini, float), np.array(wright, float)))
    assert rows['mean difference']['value'] == pytest.approx(-2.1, abs=0.05)
    assert rows['mean difference']['ci_low'] == pytest.approx(-22.0, abs=0.1)
    assert rows['mean difference']['ci_high'] == pytest.approx(17.8, abs=0.1)
    assert rows['sd']['value'] == pytest.approx(38.8, abs=0.05)
    lower = rows['lower limit 2 SD']
    assert lower['value'] == pytest.approx(-79.7, abs=0.1)
    # they take 3 SD^2 / n as the variance of a limit, which is slightly more
    assert lower['ci_low'] == pytest.approx(-114.3, abs=1.0)
    assert lower['ci_high'] == pytest.approx(-45.1, abs=1.0)


def test_exact_p_values_match_all_permutations():
    from scipy.stats import PermutationMethod, mannwhitneyu, wilcoxon

    rng = np.random.default_rng(4)
    permutations = PermutationMethod(n_resamples=5000)
    for _ in range(3):
        first, second = rng.integers(0, 4, 5).astype(float), rng.integers(1, 6, 7).astype(float)
        expected = mannwhitneyu(first, second, method=permutations).pvalue
        row = by_name(compare_samples(first, second))['mann-whitney']
        assert row['p'] == pytest.approx(expected)
        differences = rng.choice([-2.0, -1, 1, 2, 3, 4], 9)
        expected = wilcoxon(differences, method=permutations).pvalue
        row = by_name(compare_paired(np.zeros(9), differences))['wilcoxon']
        assert row['p'] == pytest.approx(expected)


# -- invariants


def test_swapping_groups_only_changes_signs():
    rng = np.random.default_rng(2)
    first, second = rng.gamma(2, 20, 12), rng.gamma(2, 30, 9)
    rows, swapped = (
        by_name(compare_samples(first, second)),
        by_name(compare_samples(second, first)),
    )
    for name in ('rank-biserial correlation', 'difference of means', 'hedges g'):
        high = swapped[name]['ci_high']
        assert rows[name]['value'] == pytest.approx(-swapped[name]['value'])
        assert rows[name]['ci_low'] == pytest.approx(None if high is None else -high)
        assert rows[name]['p'] == pytest.approx(swapped[name]['p'])


def test_agreement_scales_with_the_unit():
    rows = by_name(bland_altman(GLOBAL, LOCAL))
    scaled = by_name(bland_altman(10 * GLOBAL, 10 * LOCAL))
    assert scaled['sd']['value'] == pytest.approx(10 * rows['sd']['value'])


def test_constant_difference_has_no_spread():
    rows = by_name(bland_altman(GLOBAL, GLOBAL - 3))
    assert rows['sd']['value'] == 0
    assert rows['lower limit 2 SD']['value'] == rows['upper limit 2 SD']['value'] == -3


def test_rounding_errors_are_not_differences():
    x = np.array([0.1 + 0.2, 1.0, 2.0])
    rows = by_name(compare_paired(x, np.array([0.3, 1.0, 2.0])))
    assert rows['wilcoxon']['reason'] == 'local and global core are equal in every series'
