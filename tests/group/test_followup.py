# SPDX-License-Identifier: Apache-2.0
"""Statistics against follow-up: planted thresholds and advantages are found, and none where none is."""

import math

import numpy as np
import pandas as pd
import pytest

from ctpprep.exceptions import UsageError
from ctpprep.group.followup import analyze_followups
from ctpprep.group.followup_page import PAGE, TABLES
from ctpprep.group.followup_tables import MAPS, REGIONS, Curves, FollowUps, make_sets
from ctpprep.group.participants import read_reperfusion
from ctpprep.group.resampling import best_index, cross_validate
from ctpprep.perfusion.followup import COLUMNS
from ctpprep.settings import RunSettings

RCBF = np.round(np.arange(0.1, 0.601, 0.02), 2)
TMAX = np.arange(4.0, 13.0)
GROUPS = ['microangiopathy', 'no microangiopathy']
N = 60
#: Planted best threshold and best Dice, by group and normalization.
PLANTED = {
    ('microangiopathy', 'global'): (0.22, 0.60), ('microangiopathy', 'local'): (0.34, 0.72),
    ('no microangiopathy', 'global'): (0.34, 0.72), ('no microangiopathy', 'local'): (0.34, 0.72),
}  # fmt: skip


def plant_curves(levels, best, top, lesion, rng, scale):
    """Draw curves of N participants that are best, on average, at the planted threshold."""
    n = len(lesion)
    own = best + scale * 0.15 * rng.normal(size=n)
    height = top + 0.05 * rng.normal(size=n)
    distance = (levels[None] - own[:, None]) / scale
    dice = np.clip(height[:, None] - 0.5 * distance**2, 0.01, 0.99)
    volume = lesion[:, None] * np.exp(distance)
    sensitivity = np.clip(0.7 + 0.3 * distance, 0, 1)
    values = {
        'volume_ml': volume, 'difference_ml': volume - lesion[:, None], 'dice': dice,
        'sensitivity': sensitivity, 'specificity': 1 - 0.1 * sensitivity, 'precision': dice,
        'followup_ml': np.repeat(lesion[:, None], len(levels), 1),
        'region_ml': np.full(dice.shape, 1200.0),
    }  # fmt: skip
    return Curves(levels, values)


@pytest.fixture(scope='module')
def followups():
    """60 participants, half with microangiopathy; all but every fourth reperfused."""
    rng = np.random.default_rng(7)
    group = np.array(GROUPS).repeat(N // 2)
    lesion = rng.uniform(10, 90, N)
    curves = {('tmax', 'n/a'): plant_curves(TMAX, 7.0, 0.5, lesion, rng, 4.0)}
    for which in ('global', 'local'):
        parts = [
            plant_curves(RCBF, *PLANTED[name, which], lesion[group == name], rng, 0.2)
            for name in GROUPS
        ]
        joined = {
            name: np.concatenate([p.values[name] for p in parts]) for name in parts[0].values
        }
        curves['rcbf', which] = Curves(RCBF, joined)
    table = pd.DataFrame(
        {
            'participant_id': [f'sub-{i:02}' for i in range(N)],
            'series': [f'sub-{i:02}' for i in range(N)],
            'group': group,
            'reperfused': [i % 4 > 0 for i in range(N)],
            'followup_ml': lesion,
        }
    )
    areas = {(*key, region): rng.uniform(0.8, 0.9, N) for key in MAPS for region in REGIONS}
    brier = {which: rng.uniform(0.02, 0.05, N) for which in ('global', 'local')}
    return FollowUps(table, {key: curves[key] for key in MAPS}, curves, areas, brier)


@pytest.fixture(scope='module')
def analysis(followups):
    return analyze_followups(followups, GROUPS)


def find(analysis, set_name, which, figure, statistic, quantity='rcbf'):
    table = analysis.statistics
    names = {'set': set_name, 'quantity': quantity, 'normalization': which, 'figure': figure,
             'statistic': statistic}  # fmt: skip
    for column, value in names.items():
        table = table[table[column] == value]
    (row,) = table.to_dict('records')
    return row


@pytest.mark.parametrize(('group', 'which'), PLANTED)
def test_planted_best_threshold_is_found(analysis, group, which):
    planted, top = PLANTED[group, which]
    row = find(analysis, group, which, 'dice', 'best threshold')
    assert row['value'] == pytest.approx(planted, abs=0.021)
    assert row['ci_low'] <= planted <= row['ci_high']
    held_out = find(analysis, group, which, 'dice', 'held-out mean at best threshold')
    assert held_out['value'] == pytest.approx(top, abs=0.05)


def test_planted_advantage_of_local_is_found(analysis):
    for where in ('at 30%', 'at best thresholds'):
        row = find(analysis, 'microangiopathy', 'local - global', 'dice', f'difference {where}')
        assert row['ci_low'] > 0
        test = find(analysis, 'microangiopathy', 'local - global', 'dice', f'wilcoxon {where}')
        assert test['p'] < 0.001


def test_no_advantage_is_found_where_none_is(analysis):
    for where in ('at 30%', 'at best thresholds'):
        row = find(analysis, 'no microangiopathy', 'local - global', 'dice', f'difference {where}')
        assert row['ci_low'] < 0 < row['ci_high']
        test = find(analysis, 'no microangiopathy', 'local - global', 'dice', f'wilcoxon {where}')
        assert test['p'] > 0.05


def test_advantage_at_equal_thresholds_alone_disappears_at_the_best_ones():
    """Curves that differ by a shift of the threshold do not differ at their best thresholds."""
    rng = np.random.default_rng(3)
    first = plant_curves(RCBF, 0.46, 0.7, np.full(40, 30.0), rng, 0.2).values['dice']
    second = plant_curves(RCBF, 0.3, 0.7, np.full(40, 30.0), rng, 0.2).values['dice']
    at_30 = np.flatnonzero(RCBF == 0.3)[0]
    assert (second - first)[:, at_30].mean() > 0.2
    held_out = [cross_validate(values, True, [values])[0] for values in (first, second)]
    assert abs((held_out[1] - held_out[0]).mean()) < 0.03


def test_threshold_is_judged_without_the_patients_that_chose_it():
    """With noise alone, the best of many thresholds looks good on its own patients only."""
    cohorts = np.random.default_rng(0).normal(size=(30, 16, 40))
    optimistic = np.mean([noise.mean(axis=0).max() for noise in cohorts])
    held_out = np.mean([cross_validate(noise, True, [noise])[0].mean() for noise in cohorts])
    assert optimistic > 0.45
    assert abs(held_out) < 0.15


def test_no_participant_chooses_its_own_threshold():
    """A participant whose figure differs from all others gets the threshold of the others."""
    values = np.tile([1.0, 0.0], (12, 1))
    values[5] = [0.0, 100.0]
    (held_out,) = cross_validate(values, True, [values])
    assert held_out[5] == 0


def test_best_of_equal_means_is_the_middle():
    assert best_index(
        np.array([[1.0, 2, 2, 2, 2, 1], [np.nan, 3, 1, 1, 1, 1]]), True
    ).tolist() == [2, 1]


def test_sets_cross_group_and_reperfusion(followups):
    sets = make_sets(followups.table, GROUPS)
    assert list(sets) == [
        'all', *GROUPS, 'reperfused', 'not reperfused', 'microangiopathy, reperfused',
        'microangiopathy, not reperfused', 'no microangiopathy, reperfused',
        'no microangiopathy, not reperfused',
    ]  # fmt: skip
    assert sets['not reperfused'].sum() == N // 4


def test_unknown_reperfusion_is_in_neither_set(followups):
    table = followups.table.assign(reperfused=[math.nan] * N)
    assert list(make_sets(table, GROUPS)) == ['all', *GROUPS]


def test_oedema_shifts_the_bias_but_not_the_overlap(followups, analysis):
    corrected = analyze_followups(followups, GROUPS, 1.25)
    names = 'all', 'global'
    before, after = (
        find(one, *names, 'difference_ml', 'mean')['value'] for one in (analysis, corrected)
    )
    lesion = followups.table['followup_ml'].mean()
    assert after - before == pytest.approx(lesion * 0.2)
    row = find(corrected, *names, 'difference_ml', 'mean')
    assert 'divided by 1.25' in row['reason']
    assert (
        find(corrected, *names, 'dice', 'mean')['value']
        == find(analysis, *names, 'dice', 'mean')['value']
    )


def test_mean_and_bland_altman_are_those_of_plain_arrays(followups, analysis):
    curves = followups.curves['rcbf', 'global']
    volume = curves.values['volume_ml'][:, 10]
    difference = volume - followups.table['followup_ml']
    mean = find(analysis, 'all', 'global', 'difference_ml', 'mean')
    assert mean['threshold'] == 0.3
    assert mean['value'] == pytest.approx(difference.mean())
    limit = find(
        analysis, 'all', 'global', 'volume - follow-up', 'Bland-Altman upper limit 1.96 SD'
    )
    assert limit['value'] == pytest.approx(difference.mean() + 1.96 * difference.std(ddof=1))


def test_band_of_a_curve_contains_its_mean(analysis):
    curves = analysis.curves
    assert (curves['ci_low'] <= curves['value'] + 1e-9).all()
    assert (curves['value'] <= curves['ci_high'] + 1e-9).all()


def test_few_participants_have_means_without_interval_and_a_reason(followups):
    def first_two(curves):
        return {
            key: Curves(curve.thresholds, {name: v[:2] for name, v in curve.values.items()})
            for key, curve in curves.items()
        }

    few = FollowUps(
        followups.table[:2],
        first_two(followups.curves),
        first_two(followups.voxels),
        {k: v[:2] for k, v in followups.areas.items()},
        {k: v[:2] for k, v in followups.brier.items()},
    )  # fmt: skip
    row = find(analyze_followups(few, GROUPS), 'all', 'global', 'dice', 'best threshold')
    assert math.isnan(row['value'])
    assert row['reason'] == 'fewer than 3 participants'


# -- participants.tsv, files and page


@pytest.mark.parametrize(
    ('values', 'reperfused'),
    [
        (['2b', 'TICI 3', '2a', '0', 'n/a'], [True, True, False, False, math.nan]),
        (['yes', 'no', 'yes', 'no', ''], [True, False, True, False, math.nan]),
        (['3', '0', '2c', '1', '2b67'], [True, False, True, False, True]),
    ],
)
def test_grades_and_words_of_reperfusion_are_read(tmp_path, values, reperfused):
    run = RunSettings(tmp_path, tmp_path / 'out', tmp_path / 'work')
    words, column = read_reperfusion(pd.DataFrame({'mTICI': values}), run)
    assert column == 'mTICI'
    np.testing.assert_array_equal(words.astype(float), np.array(reperfused, float))


def test_unknown_word_of_reperfusion_is_refused(tmp_path):
    run = RunSettings(tmp_path, tmp_path / 'out', tmp_path / 'work')
    with pytest.raises(UsageError, match="column mTICI: found 'good', need yes or no, or a grade"):
        read_reperfusion(pd.DataFrame({'mTICI': ['good', '3']}), run)


def write_followup(site, participant, seed):
    """Write a table as the participant level does, with two thresholds of each map."""
    rng = np.random.default_rng(seed)
    rows = []

    def add(measure, quantity, which='n/a', threshold='n/a', region='brain', **cells):
        row = dict.fromkeys(COLUMNS, 'n/a') | {
            'measure': measure, 'quantity': quantity, 'normalization': which,
            'threshold': threshold, 'region': region, 'followup_ml': '40', 'region_ml': '1200',
        } | {name: f'{value:.4f}' for name, value in cells.items()}  # fmt: skip
        rows.append('\t'.join(map(str, row.values())))

    for quantity, which in MAPS:
        for level in ('0.3', '0.4') if quantity == 'rcbf' else ('6.0', '7.0'):
            figures = dict(zip(('volume_ml', 'difference_ml', 'dice', 'sensitivity', 'specificity',
                                'precision'), rng.uniform(0, 1, 6), strict=True))  # fmt: skip
            add('threshold', quantity, which, level, **figures)
            add('voxels', quantity, which, level, sensitivity=0.8, specificity=0.9)
        for region in REGIONS:
            add('ranking', quantity, which, region=region, auc=rng.uniform(0.8, 0.9))
    add('segmentation', 'hypoperfusion')
    add('probability', 'probability', 'global', region='hemisphere', brier=0.05)
    text = '\n'.join(['\t'.join(COLUMNS), *rows]) + '\n'
    site.write(f'{participant}/ct/{participant}_desc-followup_morph.tsv', text)


@pytest.fixture
def with_followups(site):
    site.write_participants(
        'participant_id\tmicroangiopathy\tmTICI\n'
        + ''.join(f'sub-{i:02}\t{"yes" if i % 2 else "no"}\t{i % 4}\n' for i in range(1, 9))
    )
    for i in range(1, 9):
        site.write_series(f'sub-{i:02}')
        if i < 8:
            write_followup(site, f'sub-{i:02}', i)
    return site


def test_group_level_writes_tables_and_page_and_links_them(with_followups):
    page = with_followups.run_group()
    assert f'href="{PAGE}"' in page
    text = (with_followups.out / PAGE).read_text()
    assert 'Cereda et al.' in text
    assert '1 of 8 series have no follow-up lesion' in text
    for name in ('group_followup.tsv', *TABLES):
        assert (with_followups.out / name).is_file()
        assert (with_followups.out / name).with_suffix('.json').is_file()
    statistics = with_followups.read('group_followup_statistics.tsv')
    assert {'all', 'microangiopathy', 'reperfused'} <= set(statistics['set'])


def test_pages_of_an_earlier_call_are_removed_when_follow_ups_are_gone(with_followups):
    with_followups.run_group()
    for path in with_followups.out.rglob('*_desc-followup_morph.tsv'):
        path.unlink()
    assert PAGE not in with_followups.run_group()
    assert not list(with_followups.out.glob('group_followup*'))


def test_lesion_that_was_left_out_is_counted_with_its_reason(with_followups):
    row = dict.fromkeys(COLUMNS, 'n/a') | {'measure': 'left out', 'reason': 'not aligned'}
    text = '\t'.join(COLUMNS) + '\n' + '\t'.join(row.values()) + '\n'
    with_followups.write('sub-01/ct/sub-01_desc-followup_morph.tsv', text)
    with_followups.run_group()
    page = (with_followups.out / PAGE).read_text()
    assert '1 follow-up lesions were left out, such as that of sub-01: not aligned' in page
