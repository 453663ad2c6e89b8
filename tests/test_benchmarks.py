# SPDX-License-Identifier: Apache-2.0
"""The scorer of the benchmarks tells right from wrong."""

import math
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import nibabel as nb
import numpy as np
import pytest

from ctpprep.io.transforms import write_rigid_transforms
from ctpprep.perfusion import grid
from ctpprep.phantom import Phantom, PhantomSettings, frame_affine, make_phantom, write_bids

sys.path.append(str(Path(__file__).parents[1] / 'benchmarks'))

import accuracy
import cohort
import scores
import shares
import speed
import uncertainty

PREFIX = 'sub-01'
SHAPE = (32, 40, 8)
XFM = f'{PREFIX}_from-mirror_to-ctpref_mode-image_xfm.h5'


def make_head():
    """A symmetric ellipsoid in LPS order, an infarct and microangiopathy: no time to draw a head."""
    affine = np.diag([-4.0, -4.0, 6.0, 1.0])
    affine[:3, 3] = (62, 78, 3)  # x = 0 and y = 0 between the middle voxels
    x, y, z = nb.affines.apply_affine(affine, np.moveaxis(np.indices(SHAPE), 0, -1)).T
    x, y, z = x.T, y.T, z.T
    brain = (x / 55) ** 2 + (y / 70) ** 2 < 1
    core = ((x + 35) ** 2 + y**2 < 12**2) & brain
    slow = ((x + 35) ** 2 + y**2 < 20**2) & brain
    ma = (np.abs(x) < 20) & (np.abs(y) < 20)
    cbf = np.where(brain, 40 + y / 4, 0) * np.where(core, 0.1, np.where(slow | ma, 0.5, 1))
    delay = np.where(brain, 1 + np.abs(x) / 60, 0) + 6 * slow + 2 * core
    truth = {
        'cbf': cbf, 'cbv': cbf / 15, 'mtt': 4.0 * brain, 'delay': delay, 'tissue': 1.0 * brain,
        'vessel': 0.0 * brain, 'brain': brain, 'csf': ~brain, 'core': core,
        'penumbra': slow & ~core, 'hypoperfusion': slow, 'microangiopathy': ma,
        'side': np.where(brain, np.where(x < 0, 1, 2), 0).astype(np.uint8),
        'homologue': np.where(brain[..., None], np.stack([-x, y, z], -1), np.nan),
    }  # fmt: skip
    motion = np.zeros((6, 6))
    motion[3:] = (1, -0.5, 0.3, 0.01, 0.02, -0.01)
    centre = nb.affines.apply_affine(affine, (np.array(SHAPE) - 1) / 2)
    fine = np.arange(0, 12, 0.05)
    aif = 300 * np.exp(-(((fine - 5) / 3) ** 2))
    times = np.arange(6) * 2.0
    return Phantom(
        PhantomSettings(lesion='large', microangiopathy=True, n_frames=6),
        np.zeros((*SHAPE, 6), np.int16), affine, times, np.tile(times, (SHAPE[2], 1)), fine, aif,
        aif / 2, truth, motion, np.stack([frame_affine(row, centre) for row in motion]),
    )  # fmt: skip


HEAD = make_head()


def write_image(folder, suffix, array, affine=HEAD.affine):
    image = nb.Nifti1Image(np.asarray(array, np.float32), affine)
    nb.save(image, folder / f'{PREFIX}_{suffix}.nii.gz')


def write_mirror_transform(folder, shift_mm=0.0):
    """For a head that is symmetric about x = 0, the flipped image is at home already."""
    import ants

    ants.write_transform(
        ants.create_ants_transform(
            transform_type='AffineTransform', dimension=3, translation=(shift_mm, 0, 0)
        ),
        str(folder / XFM),
    )


@pytest.fixture
def outputs(tmp_path):
    """What a perfect app would find."""
    truth = HEAD.truth
    normal = np.median(truth['cbf'][truth['brain'] & (truth['delay'] <= 4)])
    images = {
        'desc-brain_mask': truth['brain'],
        'cbf': truth['cbf'],
        'tmax': truth['delay'],
        'desc-global_rcbf': truth['cbf'] / normal,
        'label-hypoperfusion_mask': truth['hypoperfusion'],
        'label-core_desc-global_mask': truth['core'],
        'label-core_desc-local_mask': truth['core'],
        'seg-hemisphere_dseg': truth['side'],
    }
    for suffix, array in images.items():
        write_image(tmp_path, suffix, array)
    aif = np.interp(HEAD.frame_times, HEAD.times_fine, HEAD.aif)
    rows = [f'{t}\t{a}' for t, a in zip(HEAD.frame_times, aif, strict=True)]
    write_table(tmp_path, 'desc-vascular_timeseries', 'time\taif', *rows)
    write_table(tmp_path, 'seg-perfusion_morph', 'region\taffected_side', 'core\tleft')
    write_rigid_transforms(
        HEAD.frame_affines, tmp_path / f'{PREFIX}_from-orig_to-ctpref_mode-image_desc-hmc_xfm.txt'
    )
    write_mirror_transform(tmp_path)
    return tmp_path


def write_table(folder, suffix, *lines):
    (folder / f'{PREFIX}_{suffix}.tsv').write_text('\n'.join(lines) + '\n')


def score(folder, head=HEAD):
    return scores.score_series(folder, PREFIX, scores.truth_of(head))


PERFECT = {
    'brain_dice': 1, 'cbf_r': 1, 'cbf_share': 1, 'rcbf_rmse': 0, 'tmax_r': 1, 'tmax_bias': 0,
    'hypoperfusion_dice': 1, 'core_global_dice': 1, 'core_local_dice': 1, 'core_global_error': 0,
    'core_local_error': 0, 'false_global_ml': 0, 'false_local_ml': 0, 'side': 1,
    'homologue_median': 0, 'homologue_p90': 0, 'hemisphere_share': 1, 'aif_r': 1,
    'motion_median': 0, 'motion_worst': 0,
}  # fmt: skip


def test_the_truth_itself_is_perfect(outputs):
    figures, failures = score(outputs)
    assert not failures
    found = {name: figures[name] for name in PERFECT}
    assert found == pytest.approx(PERFECT, abs=1e-3)


def test_every_figure_is_printed(outputs):
    figures, _ = score(outputs)
    assert set(figures) == set(accuracy.FIGURES)
    assert set(figures) == {name for line in accuracy.LINES for name in line}


def test_truth_read_from_disk_is_the_truth_in_memory(tmp_path):
    write_bids(HEAD, tmp_path, '01')
    memory, disk = scores.truth_of(HEAD), scores.read_truth(tmp_path, '01')
    for name, array in memory.maps.items():
        np.testing.assert_allclose(disk.maps[name], array, atol=0.051, err_msg=name)
    np.testing.assert_allclose(disk.frame_affines, memory.frame_affines, atol=1e-3)
    np.testing.assert_allclose(disk.affine, memory.affine, atol=1e-4)
    assert disk.lesion_side == memory.lesion_side == 'left'


def test_outputs_in_another_voxel_order_score_the_same(outputs):
    for path in outputs.glob('*.nii.gz'):
        nb.save(nb.as_closest_canonical(nb.load(path)), path)
    figures, failures = score(outputs)
    assert not failures
    assert {name: figures[name] for name in PERFECT} == pytest.approx(PERFECT, abs=1e-3)


def test_maps_flipped_left_to_right_are_found_out(outputs):
    for name in ('core', 'hypoperfusion'):
        suffix = f'label-{name}_desc-global_mask' if name == 'core' else f'label-{name}_mask'
        write_image(outputs, suffix, np.flip(HEAD.truth[name], 0))
    write_image(outputs, 'tmax', np.flip(HEAD.truth['delay'], 0))
    write_image(outputs, 'seg-hemisphere_dseg', np.flip(HEAD.truth['side'], 0))
    write_table(outputs, 'seg-perfusion_morph', 'region\taffected_side', 'core\tright')
    figures, failures = score(outputs)
    assert not failures
    assert figures['core_global_dice'] == figures['hypoperfusion_dice'] == figures['side'] == 0
    assert figures['core_local_dice'] == 1
    assert figures['hemisphere_share'] == 0
    assert figures['tmax_r'] < 0.6


def test_core_in_microangiopathy_is_false_core(outputs):
    ma = HEAD.truth['microangiopathy']
    write_image(outputs, 'label-core_desc-global_mask', HEAD.truth['core'] | ma)
    figures, _ = score(outputs)
    assert figures['false_global_ml'] == pytest.approx(ma.sum() * 4 * 4 * 6 / 1000)
    assert figures['core_global_error'] == pytest.approx(ma.sum() / HEAD.truth['core'].sum())
    assert figures['false_local_ml'] == 0


def test_shifted_homologues_and_uncorrected_motion_are_measured(outputs):
    write_mirror_transform(outputs, shift_mm=3.0)
    still = np.tile(np.eye(4), (6, 1, 1))
    write_rigid_transforms(
        still, outputs / f'{PREFIX}_from-orig_to-ctpref_mode-image_desc-hmc_xfm.txt'
    )
    figures, _ = score(outputs)
    assert figures['homologue_median'] == pytest.approx(3.0, abs=1e-3)
    assert 1.0 < figures['motion_worst'] < 3.0


def test_a_late_curve_is_not_the_aif(outputs):
    late = np.interp(HEAD.frame_times - 4, HEAD.times_fine, HEAD.aif)
    rows = [f'{t}\t{a}' for t, a in zip(HEAD.frame_times, late, strict=True)]
    write_table(outputs, 'desc-vascular_timeseries', 'time\taif', *rows)
    assert score(outputs)[0]['aif_r'] < 0.7


@pytest.mark.parametrize('suffix', ['cbf.nii.gz', 'seg-perfusion_morph.tsv', XFM[7:]])
def test_a_missing_file_fails(outputs, suffix):
    (outputs / f'{PREFIX}_{suffix}').unlink()
    figures, failures = score(outputs)
    assert any('missing' in failure for failure in failures)
    failed = {name for name, value in figures.items() if value is not None and math.isnan(value)}
    assert failed
    assert all(accuracy.show(name, math.nan) == 'FAIL' for name in failed)


def test_an_empty_map_and_a_wrong_grid_fail(outputs):
    write_image(outputs, 'cbf', np.zeros(SHAPE))
    wrong = HEAD.affine @ np.diag([1, 1, 2, 1])
    write_image(outputs, 'label-hypoperfusion_mask', HEAD.truth['hypoperfusion'], wrong)
    figures, failures = score(outputs)
    assert math.isnan(figures['cbf_r'])
    assert any('no tissue' in failure for failure in failures)
    assert any('affine' in failure for failure in failures)


def test_a_failed_case_fails_the_mean():
    cases = [(accuracy.CASES[0], {'cbf_r': 0.9}), (accuracy.CASES[1], {'cbf_r': math.nan})]
    assert math.isnan(accuracy.mean_of(cases, 'cbf_r'))
    cases[1][1]['cbf_r'] = None
    assert accuracy.mean_of(cases, 'cbf_r') == 0.9


def test_agreement_of_cores_that_can_be_worked_out_by_hand():
    found = cohort.agreement([10, 20, 30], [10, 20, 60], [7, 12, 32])
    means = {
        name: found[name]['value'] for name in ('planted', 'global', 'local', 'mean difference')
    }
    assert means == {'planted': 20, 'global': 30, 'local': 17, 'mean difference': -13}
    assert found['sd']['value'] == pytest.approx(math.sqrt((100 + 25 + 225) / 2))
    assert found['lower limit 2 SD']['value'] == pytest.approx(-13 - 2 * math.sqrt(175))
    assert found['intercept']['value'] == pytest.approx(2)
    assert found['slope through origin']['value'] == pytest.approx((70 + 240 + 1920) / 4100)
    # residues 0, 0, 0 of (10, 7), (20, 12), (60, 32)
    assert cohort.slope_error(found['slope']) == pytest.approx(0, abs=1e-9)


def test_cores_without_a_slope_are_told_by_nan():
    nothing = cohort.agreement([0] * 3, [0] * 3, [0] * 3)
    assert math.isnan(cohort.value(nothing['slope']))
    assert math.isnan(cohort.value(nothing['wilcoxon'], 'p'))


def test_false_core_is_split_by_where_it_lies(outputs):
    ma, core, voxel_ml = HEAD.truth['microangiopathy'], HEAD.truth['core'], 4 * 4 * 6 / 1000
    elsewhere = np.zeros_like(core)
    elsewhere[20, 30, 4] = True
    assert not (core | ma)[20, 30, 4]
    write_image(outputs, 'label-core_desc-global_mask', ma | elsewhere)
    errors = cohort.core_errors(
        scores.Comparison(outputs, PREFIX, scores.truth_of(HEAD)), 'global'
    )
    expected = {
        'false_ma': (ma & ~core).sum() * voxel_ml, 'false_elsewhere': voxel_ml,
        'missed': (core & ~ma).sum() * voxel_ml,
    }  # fmt: skip
    assert {name: errors[name] for name in expected} == pytest.approx(expected)


def test_global_core_is_compared_with_the_rule_on_the_true_maps(outputs):
    truth = scores.truth_of(HEAD)
    rule = cohort.rule_of_core(truth)
    write_image(outputs, 'label-core_desc-global_mask', rule, truth.affine)
    found = scores.Comparison(outputs, PREFIX, truth)
    assert cohort.core_errors(found, 'global')['dice_rule'] == 1.0


def head(planted, core_global, core_local, false_ma=0.0, dice=0.8):
    errors = {'false_ma': false_ma, 'false_elsewhere': 0.0, 'missed': 0.0, 'dice': dice}
    return {
        'planted': planted,
        'volume': {'global': core_global, 'local': core_local},
        'global': errors,
        'local': errors | {'false_ma': false_ma / 4},
    }


def test_direction_of_the_paper_is_told_met_or_missed():
    figures = {
        'MA': [
            head(0, 10, 6, 10.0),
            head(20, 35, 21, 9.0),
            head(50, 70, 42, 12.0),
            head(50, 75, 45, 12.0),
        ],
        'NoMA': [head(0, 1, 1), head(20, 20, 18), head(50, 50, 45), head(50, 60, 54)],
    }
    cases = cohort.make_cases(cohort.QUICK)
    assert [case.lesion for case in cases] == 2 * [False, True, True, True]
    right = list(zip(cases, figures['MA'] + figures['NoMA'], strict=True))
    wrong = list(zip(cases, figures['NoMA'] + figures['MA'], strict=True))
    shrinking = [
        what for what, *_ in cohort.directions(right) if 'shrink' in what or 'slope' in what
    ]
    assert len(shrinking) == 8
    for scored, expected in ((right, True), (wrong, False)):
        met = {what: good for what, _, good in cohort.directions(scored)}
        assert {met[what] for what in shrinking} == {expected}


def test_groups_of_the_cohort_are_alike_and_have_heads_of_their_own():
    cases = cohort.make_cases(range(len(cohort.PATIENTS)))
    groups = [[case for case in cases if case.microangiopathy is which] for which in (True, False)]
    assert len(groups[0]) == len(groups[1]) >= 12
    for first, second in zip(*groups, strict=True):
        assert replace(first.settings, seed=0, microangiopathy=False) == replace(
            second.settings, seed=0
        )
    seeds = {case.settings.seed for case in cases}
    others = {case.settings.seed for case in accuracy.CASES} | {201, 202, 203, 204}
    assert len(seeds) == len(cases)
    assert not seeds & (others | set(range(100)))  # below 100: tuning


def test_truth_is_averaged_to_a_coarser_grid():
    truth = scores.truth_of(HEAD)
    affine = truth.affine @ np.diag([2, 2, 1, 1])
    affine[:3, 3] = nb.affines.apply_affine(truth.affine, (0.5, 0.5, 0))
    coarse = scores.regrid(truth, (16, 20, 8), affine)
    flow = [(t.maps['cbf'] * t.maps['tissue']).sum() for t in (coarse, truth)]
    assert 4 * flow[0] == pytest.approx(flow[1])
    assert scores.dice(coarse.maps['core'].repeat(2, 0).repeat(2, 1), truth.maps['core']) > 0.8
    points = nb.affines.apply_affine(affine, np.argwhere(coarse.maps['brain']))
    homologue = coarse.maps['homologue'][coarse.maps['brain']]
    np.testing.assert_allclose(homologue, points * (-1, 1, 1), atol=2.1)


def test_lesion_free_heads_have_no_lesion_scores(outputs):
    none = {name: np.zeros(SHAPE, bool) for name in ('core', 'hypoperfusion', 'penumbra')}
    settings = replace(HEAD.settings, lesion='none')
    figures, failures = score(outputs, replace(HEAD, truth=HEAD.truth | none, settings=settings))
    assert not failures
    assert figures['side'] is figures['core_local_dice'] is figures['hypoperfusion_dice'] is None
    assert figures['core_global_ml'] > 0


def test_cases_are_heads_of_their_own():
    labels = [case.label for case in accuracy.CASES]
    assert len(set(labels)) == len(labels) >= 8
    assert set(accuracy.QUICK) < {case.name for case in accuracy.CASES}


def test_a_large_series_is_its_coarse_head_repeated(tmp_path):
    coarse = PhantomSettings(
        seed=5, matrix=32, voxel_size_mm=(7.0, 7.0, 20.0), n_slices=4, n_frames=2, motion_mm=0
    )
    speed.make_large(tmp_path, '01', speed.Large(coarse, (2, 2, 3), noise_hu=0.0))
    image = nb.load(tmp_path / 'sub-01' / 'ct' / 'sub-01_ctp.nii.gz')
    head = make_phantom(coarse)
    blocks = np.asarray(image.dataobj).reshape(32, 2, 32, 2, 4, 3, 2)
    np.testing.assert_array_equal(blocks.mean(axis=(1, 3, 5)), head.ctp)
    np.testing.assert_allclose(grid.block_affine(image.affine, (2, 2, 3)), head.affine, atol=1e-4)


def test_an_interval_that_misses_the_volume_is_told(capsys):
    scored = {
        which: {
            'truth': 10.0, 'volumes': [9.0, 11.0, 15.0, 10.0], 'low': [8.0, 9.0, 12.0, 9.5],
            'high': [10.0, 13.0, 18.0, 10.5], 'expected': [4, 4, 4, 4, 4], 'found': [0, 1, 2, 3, 4],
        }
        for which in ('global', 'local')
    }  # fmt: skip
    uncertainty.report({'401': scored}, 4)
    printed = capsys.readouterr().out
    assert '| 401 | local | 10.0 | 11.2 (2.6) | 75% | 30% |' in printed
    assert 'all: held 75.0%' in printed
    assert '0.00 | 0.25 | 0.50 | 0.75 | 1.00' in printed


# -- shares of time


def test_time_belongs_to_the_innermost_share():
    clock = shares.Clock()
    with clock.share('numerical'):
        time.sleep(0.02)
        with clock.share('reading'):
            time.sleep(0.04)
    clock.turn('other')
    wall = {name: spent[0] for name, spent in clock.spent.items()}
    assert 0.02 <= wall['numerical'] < 0.04 <= wall['reading']
    assert wall['other'] < 0.02


def test_functions_and_methods_are_timed_wherever_they_were_imported(monkeypatch):
    science, user = ModuleType('ctpprep.science'), ModuleType('ctpprep.user')
    code = 'def f():\n    return 1\nclass C:\n    def g(self):\n        return 2\n'
    exec(code, vars(science))
    user.f = science.f
    for module in (science, user):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    clock = shares.Clock()
    shares.wrap_module(clock, science, 'numerical')
    assert (user.f(), science.C().g()) == (1, 2)
    assert user.f is science.f
    assert clock.spent['numerical'][0] > 0
