# SPDX-License-Identifier: Apache-2.0
"""Defaults are those of the paper, and nothing outside the range passes."""

from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

from ctpprep.exceptions import UsageError
from ctpprep.settings import MethodSettings, RunSettings, declared, flatten

SETTINGS = declared(MethodSettings)
NUMBERS = [name for name, setting in SETTINGS.items() if setting.about.low is not None]
CHOICES = [name for name, setting in SETTINGS.items() if setting.about.choices]


def with_value(name, value):
    """Put a value into every element of a setting."""
    default = SETTINGS[name].default
    return MethodSettings.of(
        **{name: (value,) * len(default) if isinstance(default, tuple) else value}
    )


def test_what_the_paper_fixes():
    settings = MethodSettings()
    assert settings.lesion.core_rcbf == 0.3
    assert settings.lesion.hypoperfusion_tmax == 6
    assert settings.normalization.local_clip == 1.5
    assert settings.normalization.local_sigma_mm == (12, 12, 4)
    assert settings.lesion.affected_side == 'auto'
    assert settings.motion.motion_correction is True


def test_constants_of_the_tracer():
    settings = MethodSettings()
    assert settings.kinetics.hematocrit_factor == pytest.approx((1 - 0.45) / (1 - 0.25), abs=5e-4)
    assert settings.kinetics.tissue_density == 1.04


# -- what is declared


@pytest.mark.parametrize('name', SETTINGS)
def test_every_setting_says_what_it_is(name):
    setting = SETTINGS[name]
    assert setting.about.stage
    assert setting.about.meaning
    of_text = setting.kind in (bool, str, tuple[str, ...])
    if not setting.about.choices and not of_text:
        assert setting.about.low is not None
        assert setting.about.high is not None


@pytest.mark.parametrize('name', SETTINGS)
def test_a_setting_is_declared_for_its_branch_with_its_default(name):
    branch = getattr(MethodSettings(), SETTINGS[name].about.stage)
    assert getattr(branch, name) == SETTINGS[name].default
    assert declared(type(branch))[name].kind == SETTINGS[name].kind


def test_the_type_of_an_optional_value_is_that_of_the_value():
    of_run = declared(RunSettings)
    assert (of_run['aif_file'].kind, of_run['frame_interval'].kind) == (Path, float)


def test_folders_without_a_description_are_no_options():
    assert not {'bids_dir', 'output_dir', 'run_uuid'} & declared(RunSettings).keys()


# -- what is allowed


@pytest.mark.parametrize('name', NUMBERS)
def test_numbers_outside_their_range_are_refused(name):
    about = SETTINGS[name].about
    for value in (about.low - 1e-3, about.high + 1e-3, float('nan')):
        with pytest.raises(UsageError, match=name):
            with_value(name, value)


@pytest.mark.parametrize('name', NUMBERS)
def test_the_ends_of_the_range_are_allowed(name):
    about = SETTINGS[name].about
    with_value(name, about.low)
    with_value(name, about.high)


@pytest.mark.parametrize('name', CHOICES)
def test_unknown_choices_are_refused_and_the_known_listed(name):
    with pytest.raises(
        UsageError, match=f'{name} must be one of {SETTINGS[name].about.choices[0]}'
    ):
        with_value(name, 'nonsense')


def test_a_percentage_is_recognized():
    with pytest.raises(UsageError, match=r'got 30; write 30 % as 0\.3'):
        MethodSettings.of(core_rcbf=30)


def test_one_wrong_element_of_many_is_refused():
    with pytest.raises(UsageError, match='got 99'):
        MethodSettings.of(local_sigma_mm=(12.0, 99.0, 4.0))


def test_a_change_is_checked_like_a_new_value():
    with pytest.raises(UsageError, match='core_rcbf'):
        MethodSettings().change(core_rcbf=30)


def test_too_few_draws_tell_no_interval():
    with pytest.raises(UsageError, match='0 or at least 40, got 10'):
        MethodSettings.of(noise_draws=10)


# -- the tree


@pytest.mark.parametrize('branch', [fields(MethodSettings)[0].name, 'lesion'])
def test_settings_cannot_change_after_they_were_checked(branch):
    settings = MethodSettings()
    with pytest.raises(FrozenInstanceError):
        setattr(settings, branch, None)
    with pytest.raises(FrozenInstanceError):
        getattr(settings, branch).core_rcbf = 0.5


def test_stages_share_no_setting_and_leave_none_out():
    settings = MethodSettings()
    names = [name for branch in settings.as_dict().values() for name in branch]
    assert len(names) == len(set(names))
    assert set(names) == set(SETTINGS) == set(settings.flat())


def test_a_change_leaves_the_original_and_all_else_as_it_was():
    before = MethodSettings.of(lambda_rel=0.1)
    after = before.change(core_rcbf=0.25)
    assert before == MethodSettings.of(lambda_rel=0.1)
    assert after.flat() == before.flat() | {'core_rcbf': 0.25}


def test_a_name_that_is_no_setting_is_refused():
    with pytest.raises(TypeError, match='there is no setting core_rbcf'):
        MethodSettings.of(core_rbcf=0.25)


def test_plain_values_are_those_of_the_stages_asked_for():
    settings = MethodSettings.of(random_seed=5)
    assert settings.as_dict('random', 'hypodensity').keys() == {'random', 'hypodensity'}
    assert settings.as_dict('random') == {'random': {'random_seed': 5}}
    assert [*settings.as_dict()] == [field.name for field in fields(MethodSettings)]


def test_plain_values_make_the_same_settings_again():
    settings = MethodSettings.of(core_rcbf=0.25, local_sigma_mm=(1.0, 2.0, 3.0))
    assert MethodSettings.from_dict(settings.as_dict()) == settings


def test_stages_that_plain_values_lack_keep_their_defaults():
    settings = MethodSettings.of(core_rcbf=0.25, random_seed=5)
    assert MethodSettings.from_dict(settings.as_dict('lesion')) == MethodSettings.of(
        core_rcbf=0.25
    )


def test_recorded_settings_are_read_by_stage_and_as_earlier_versions_wrote_them():
    assert flatten({'lesion': {'core_rcbf': 0.2}, 'random_seed': 5}) == {
        'core_rcbf': 0.2, 'random_seed': 5,
    }  # fmt: skip


def test_preset_is_named_by_its_settings_and_options_count_more():
    preset = MethodSettings.preset('rau2024')
    assert preset.preset_name == 'rau2024'
    assert preset.deconvolution.deconvolution_method == 'tikhonov'
    assert not preset.deconvolution.partial_volume
    assert MethodSettings.preset('rau2024', partial_volume=True).preset_name == 'none'
    assert MethodSettings().preset_name == 'none'


def test_unknown_preset_is_refused():
    with pytest.raises(UsageError, match='preset must be one of none, rau2024'):
        MethodSettings.preset('rau2023')
