# SPDX-License-Identifier: Apache-2.0
"""The random heads of the benchmarks, and the judgement of their results."""

import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from ctpprep.phantom.scanner import schedule_frames
from ctpprep.phantom.settings import BolusTraits, HeadTraits, ScanTraits

sys.path.append(str(Path(__file__).parents[1] / 'benchmarks'))

import heads
import outcome
import population
import verdicts

SEEDS = range(1001, 1301)
RIGHT = {
    'aif_r': 0.99, 'aif_offset': 0.01, 'side': 1.0, 'hypoperfusion_true_ml': 80.0,
    'hypoperfusion_ml': 90.0, 'core_true_ml': 30.0, 'core_global_ml': 25.0, 'local_given': True,
    'homologue_median': 2.5,
}  # fmt: skip


def make_record(seed=1001, checks=None, refused=None, **changed):
    checks = {'arrival': (8.0, 'pass'), 'noise_raw': (12.0, 'warn')} | (checks or {})
    return population.as_plain({
        'seed': seed, 'settings': asdict(heads.draw(seed)), 'refused': refused,
        'figures': RIGHT | changed, 'checks': checks, 'seconds': 30.0,
    })  # fmt: skip


# -- heads


def test_a_seed_always_draws_the_same_head():
    assert heads.draw(1007) == heads.draw(1007) != heads.draw(1008)


def test_numbers_are_within_their_ranges():
    for settings in map(heads.draw, SEEDS):
        for name in ('noise_hu', 'tilt_deg', 'asymmetry_mm'):
            low, high = heads.RANGES[name]
            assert low <= getattr(settings, name) <= high
        assert 0 <= settings.motion_mm <= 3
        assert heads.FRAMES[0] <= settings.n_frames <= heads.FRAMES[1]
        assert 1 <= settings.frame_interval <= heads.MOST_INTERVAL_S
        assert settings.orientation == 'RAS'


def test_most_scans_cover_the_bolus_and_begin_before_it():
    drawn = [heads.draw(seed) for seed in SEEDS]
    truncated = np.mean([heads.is_truncated(settings) for settings in drawn])
    assert 0 < truncated < 0.1
    for settings in drawn:
        onset = settings.bolus.peak_time_s - settings.bolus.width_s / 1.404
        assert schedule_frames(settings)[0][2] <= onset + 1e-3


def test_a_quarter_of_the_heads_is_free_of_lesions():
    drawn = [heads.draw(seed) for seed in SEEDS]
    assert np.mean([settings.lesion == 'none' for settings in drawn]) == pytest.approx(
        0.25, abs=0.07
    )
    assert {s.lesion_side for s in drawn if s.lesion != 'none'} == {'left', 'right', 'both'}


def test_a_kind_head_has_default_traits_and_the_same_lesion():
    hard, kind = heads.draw(1002), heads.draw(1002, kind=True)
    assert (kind.head, kind.bolus, kind.scanner) == (HeadTraits(), BolusTraits(), ScanTraits())
    assert (kind.lesion_ml, kind.noise_hu) == (hard.lesion_ml, hard.noise_hu)


def test_real_anatomies_are_used_in_turn_without_traits_of_their_own():
    first, second = (heads.draw(seed, anatomies=('a.nii', 'b.nii')) for seed in (1002, 1003))
    assert (first.anatomy, second.anatomy) == ('a.nii', 'b.nii')
    assert first.head.skull == 'smooth'
    assert first.scanner == heads.draw(1002).scanner


# -- figures


def test_an_offset_of_the_aif_is_measured_although_it_correlates_perfectly():
    fine = np.arange(0, 60, 0.05)
    bolus = 300 * np.exp(-(((fine - 20) / 4) ** 2)) * (fine > 10)
    times = np.arange(0, 60, 1.5)
    figures = outcome.aif_figures(times, np.interp(times - 0.5, fine, bolus) + 60, fine, bolus)
    assert figures['aif_r'] > 0.999
    assert figures['aif_shift'] == pytest.approx(0.5, abs=0.1)
    assert figures['aif_offset'] == pytest.approx(60 / 360, abs=0.01)


# -- judgement


def test_a_right_result_has_no_cause():
    assert verdicts.judge(make_record()).causes == ()


@pytest.mark.parametrize(
    'changed',
    [
        {'aif_r': 0.9}, {'aif_offset': -0.06}, {'side': 0.0}, {'core_global_ml': 46.0},
        {'hypoperfusion_ml': 40.0}, {'homologue_median': 6.5},
    ],
)  # fmt: skip
def test_each_cause_is_silent_unless_a_check_fails(changed):
    silent = verdicts.judge(make_record(**changed))
    flagged = verdicts.judge(make_record(checks={'arrival': (31.0, 'fail')}, **changed))
    assert len(silent.causes) == 1
    assert silent.silent
    assert not flagged.silent
    assert flagged.falsely_failed == ()


def test_small_errors_and_sides_without_a_lesion_are_not_wrong():
    assert not verdicts.judge(make_record(core_true_ml=5.0, core_global_ml=14.0)).causes
    assert not verdicts.judge(
        make_record(hypoperfusion_true_ml=0.0, hypoperfusion_ml=5.0, side=None)
    ).causes


def test_a_right_result_that_fails_a_check_is_falsely_failed():
    verdict = verdicts.judge(make_record(checks={'mirror_folding': (0.02, 'fail')}))
    assert verdict.falsely_failed == verdict.undeserved == ('mirror_folding',)


def test_a_thin_slab_deserves_to_fail_coverage():
    record = make_record(checks={'coverage': (10.0, 'fail')})
    record['settings'] |= {'n_slices': 2, 'voxel_size_mm': [1.72, 1.72, 5.0]}
    verdict = verdicts.judge(record)
    assert verdict.falsely_failed == ('coverage',)
    assert verdict.undeserved == ()


def test_local_maps_are_withheld_and_given_wrongly():
    withheld = {'local_given': False, 'core_local_ml': None}
    assert verdicts.judge(make_record(**withheld)).falsely_withheld
    assert not verdicts.judge(make_record(**withheld, homologue_median=5.5)).falsely_withheld
    assert verdicts.judge(make_record(homologue_median=5.5)).wrongly_given


def test_refused_and_silently_wrong_heads_miss_their_targets():
    records = [
        make_record(1001),
        make_record(1002, aif_r=0.9),
        make_record(1003, refused='no bolus'),
    ]
    rows = {what: (measured, met) for what, _, measured, met in verdicts.targets_of(records)}
    assert rows['refused'] == ('1 of 3', False)
    assert rows['silently wrong'] == ('1 of 2', False)
    assert rows['AIF r, worst'] == ('0.900 of 2', False)


def test_worst_heads_and_decile_are_on_the_bad_side():
    values = np.arange(-10.0, 1.0)
    assert verdicts.worst_decile('tmax_bias', values) == -9
    assert verdicts.worst_decile('aif_r', values) == -9
    assert verdicts.worst_decile('homologue_p90', values) == -1


def test_two_runs_are_paired_by_head(capsys):
    first = [make_record(seed) for seed in (1001, 1002, 1003)]
    second = [make_record(1001, aif_r=0.97), make_record(1002, aif_r=0.999, core_global_ml=29.0)]
    verdicts.print_comparison(first, second)
    printed = capsys.readouterr().out
    assert '2 heads in both runs' in printed
    assert '| AIF r | 2 | 0.9900 | 0.9845 | 1 | 1 | 1002 | 1001 |' in printed
    assert '| core_global_ml | 2 | +2.00 | 2.00 | +4.0 | 1002 |' in printed


def test_the_summary_is_printed(capsys):
    records = [
        make_record(1001),
        make_record(1002, aif_r=0.9),
        make_record(1003, refused='no bolus'),
    ]
    verdicts.print_summary(records)
    printed = capsys.readouterr().out
    assert '1  no bolus: seeds 1003' in printed
    assert '1  AIF r < 0.95: seeds 1002' in printed


# -- records


def test_an_incomplete_line_is_skipped_and_done_again(tmp_path):
    path = tmp_path / 'records.jsonl'
    population.append_record(path, {'seed': 1})
    with open(path, 'a') as file:
        file.write('{"seed": 2, "fig')
    population.append_record(path, {'seed': 3})
    assert [record['seed'] for record in population.read_records(path)] == [1, 3]


def test_finished_heads_are_not_run_again(tmp_path, monkeypatch):
    ran = []

    def run(job):
        ran.append(job.settings.seed)
        return make_record(job.settings.seed) | {
            'key': job.key, 'protocol': 'wide', 'truncated': False, 'offset_hu': 0.0,
        }  # fmt: skip

    monkeypatch.setattr(population, 'run_head', run)
    jobs = [population.Job(heads.draw(seed), {}, 0.0, None, 1.0) for seed in (1001, 1002)]
    population.run_jobs(jobs[:1], 1, tmp_path / 'records.jsonl')
    done = population.run_jobs(jobs, 1, tmp_path / 'records.jsonl')
    assert ran == [1001, 1002]
    assert len(done) == 2
    other = replace(jobs[0], variant={'aif_voxels': 20})
    assert other.key not in done


def test_a_variant_is_checked():
    assert population.parse_setting('masks.csf_level=0.3') == ('csf_level', 0.3)
    with pytest.raises(population.argparse.ArgumentTypeError, match='is not stage'):
        population.parse_setting('vessels.csf_level=0.3')
