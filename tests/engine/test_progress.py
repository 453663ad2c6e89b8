# SPDX-License-Identifier: Apache-2.0
"""The time left, on a clock that is set by hand; what series are told of is tested with execution."""

import pytest

from ctpprep.engine.progress import STEPS, Forecast, SeriesState

SERIES = ['PrepareSeries', 'RegisterMirror', 'PlotSeries']


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def run(forecast, clock, label, *times):
    """Run steps of a series one after another, each for its time in s."""
    for kind, seconds in zip(SERIES, times, strict=False):
        forecast.start(f'{label} {kind}', kind)
        clock.now += seconds
        forecast.end(f'{label} {kind}', kind, ran=True)


@pytest.fixture
def clock():
    return Clock()


def test_the_next_series_take_as_long_as_the_first(clock):
    forecast = Forecast(3 * SERIES, clock)
    run(forecast, clock, 'a', 2, 20, 8)
    assert forecast.seconds(2) == pytest.approx(60)


def test_nothing_is_told_without_ground(clock):
    forecast = Forecast(3 * SERIES, clock)
    assert forecast.seconds(3) is None
    for label in 'abc':
        run(forecast, clock, label, 2)  # no registration has been seen
    assert forecast.seconds(3) is None


def test_a_single_series_is_told_by_the_table_once_half_of_it_has_run(clock):
    forecast = Forecast(SERIES, clock)
    run(forecast, clock, 'a', *(10 * STEPS[kind][1] for kind in SERIES[:2]))
    assert forecast.seconds(1) == pytest.approx(10 * STEPS['PlotSeries'][1])


def test_what_was_found_done_takes_no_time_and_teaches_nothing(clock):
    forecast = Forecast(4 * SERIES, clock)
    for label in 'ab':
        for kind in SERIES:
            forecast.end(f'{label} {kind}', kind, ran=False)
    assert forecast.seconds(2) is None
    run(forecast, clock, 'c', 2, 20, 8)
    assert forecast.seconds(1) == pytest.approx(30)


def test_two_at_a_time_halve_the_time_until_one_is_left(clock):
    forecast = Forecast(4 * SERIES, clock)
    for kind, seconds in zip(SERIES, (2, 20, 8), strict=True):
        for label in 'ab':
            forecast.start(f'{label} {kind}', kind)
        clock.now += seconds
        for label in 'ab':
            forecast.end(f'{label} {kind}', kind, ran=True)
    assert forecast.seconds(2) == pytest.approx(30)
    assert forecast.seconds(1) == pytest.approx(60)


def test_time_left_falls_while_a_step_runs(clock):
    forecast = Forecast(2 * SERIES, clock)
    run(forecast, clock, 'a', 2, 20, 8)
    forecast.start('b PrepareSeries', 'PrepareSeries')
    clock.now += 1
    assert forecast.seconds(1) == pytest.approx(29)


def test_the_stage_is_that_of_a_step_that_runs():
    state = SeriesState(
        'sub-01', running={'deconvolve': 'deconvolution', 'write': 'files'}, last='files'
    )
    assert state.stage == 'files'
    state.running.pop('write')
    assert state.stage == 'deconvolution'
    state.running.clear()
    assert state.stage == 'files'
