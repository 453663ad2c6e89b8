# SPDX-License-Identifier: Apache-2.0
"""Defaults are those of the paper, and nothing outside the range passes."""

from dataclasses import FrozenInstanceError, fields

import pytest

from ctpprep.exceptions import UsageError
from ctpprep.settings import MethodSettings, describe

FIELDS = fields(MethodSettings)
NUMBERS = [each for each in FIELDS if each.metadata['about'].low is not None]
CHOICES = [each for each in FIELDS if each.metadata['about'].choices]


def name(each):
    return each.name


def with_value(each, value):
    """Put a value into every element of a setting."""
    if isinstance(each.default, tuple):
        value = (value,) * len(each.default)
    return MethodSettings.of(**{each.name: value})


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


@pytest.mark.parametrize('each', FIELDS, ids=name)
def test_every_setting_says_what_it_is(each):
    about = describe(MethodSettings, each.name)
    assert about.stage
    assert about.meaning
    if not about.choices and not isinstance(each.default, bool):
        assert about.low is not None
        assert about.high is not None


@pytest.mark.parametrize('each', NUMBERS, ids=name)
def test_numbers_outside_their_range_are_refused(each):
    about = each.metadata['about']
    for value in (about.low - 1e-3, about.high + 1e-3, float('nan')):
        with pytest.raises(UsageError, match=each.name):
            with_value(each, value)


@pytest.mark.parametrize('each', NUMBERS, ids=name)
def test_the_ends_of_the_range_are_allowed(each):
    about = each.metadata['about']
    with_value(each, about.low)
    with_value(each, about.high)


@pytest.mark.parametrize('each', CHOICES, ids=name)
def test_unknown_choices_are_refused_and_the_known_told(each):
    with pytest.raises(
        UsageError, match=f'{each.name} is one of {each.metadata["about"].choices[0]}'
    ):
        with_value(each, 'nonsense')


def test_a_percentage_is_recognized():
    with pytest.raises(UsageError, match=r'got 30; write 30 % as 0\.3'):
        MethodSettings.of(core_rcbf=30)


def test_one_wrong_element_of_many_is_refused():
    with pytest.raises(UsageError, match='got 99'):
        MethodSettings.of(local_sigma_mm=(12.0, 99.0, 4.0))


def test_settings_cannot_change_after_they_were_checked():
    with pytest.raises(FrozenInstanceError):
        MethodSettings().core_rcbf = 0.5


def test_stages_share_no_setting_and_leave_none_out():
    settings = MethodSettings()
    stages = {each.metadata['about'].stage for each in FIELDS}
    found = [key for stage in stages for key in settings.stage(stage)]
    assert sorted(found) == sorted(each.name for each in FIELDS)
    assert settings.stage(*stages) == settings.as_dict()


def test_too_few_draws_tell_no_interval():
    with pytest.raises(UsageError, match='0 or at least 40, got 10'):
        MethodSettings.of(noise_draws=10)
