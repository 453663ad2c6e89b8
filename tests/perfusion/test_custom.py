# SPDX-License-Identifier: Apache-2.0
"""Functions of the user that replace a stage."""

import sys
from pathlib import Path

import numpy as np
import pytest

from ctpprep import MethodSettings
from ctpprep.exceptions import UsageError
from ctpprep.perfusion import custom

EXAMPLES = Path(__file__).parents[2] / 'docs' / 'examples'


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Return a function that writes a module of the user and names a function in it."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(text, name='own_stage'):
        (tmp_path / f'{name}.py').write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
        return f'{name}:run'

    return write


def flat(height=0.01, delay=0.0):
    """Make a deconvolution with a fixed result; the second curve lags by `delay`."""
    return lambda curves, times, aif_times, aif: (
        np.full(len(curves), height), np.arange(len(curves)) * delay,
    )  # fmt: skip


def test_the_documented_example_passes_the_check(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    custom.check_functions(MethodSettings.of(deconvolution_method='own_deconvolution:deconvolve'))


def test_the_documented_example_has_30_lines_at_most():
    assert len((EXAMPLES / 'own_deconvolution.py').read_text().splitlines()) <= 30


def test_a_sound_deconvolution_passes():
    custom.check_deconvolver(flat(delay=4.0))


@pytest.mark.parametrize(
    ('function', 'message'),
    [
        (flat(height=0.6, delay=4.0), 'flow of 0.6 1/s .* of 0.01 1/s, need .*check the units'),
        (flat(delay=-4.0), 'times -4 s apart for curves 4 s apart, need .* at most 3 s'),
        (
            lambda c, *_: (np.full(2, 0.01), np.array([10.0, 14.0])),
            'a time of 10 s for tissue without',
        ),
        (lambda *_: 1.0, 'returned float, need a pair of arrays'),
        (lambda *_: (np.zeros(3), np.zeros(2)), r'height of shape \(3,\), need .* shape \(2,\)'),
        (lambda *_: (np.full(2, np.nan), np.zeros(2)), 'finite values'),
        (lambda *_: 1 / 0, 'failed on a small known curve .*ZeroDivisionError'),
    ],
)
def test_a_wrong_deconvolution_is_refused(function, message):
    with pytest.raises(UsageError, match=message):
        custom.check_deconvolver(function)


@pytest.mark.parametrize(
    'function', [lambda curves, *_: curves[:, 1:], lambda curves, *_: np.nan * curves]
)
def test_a_wrong_denoising_is_refused(function):
    with pytest.raises(UsageError, match='finite values of shape'):
        custom.check_denoiser(function)


def test_a_sound_denoising_passes():
    custom.check_denoiser(lambda curves, *_: curves)


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('nowhere_at_all:run', 'cannot be imported .*ModuleNotFoundError'),
        ('math:nothing', 'cannot be imported'),
        ('math:pi', 'is a float, need a function'),
    ],
)
def test_a_function_that_cannot_be_used_is_refused(name, message):
    with pytest.raises(UsageError, match=message):
        custom.load_function(name)


def test_the_digest_changes_with_the_source(own):
    name = own('def run(curves, *rest):\n    return curves\n')
    settings = MethodSettings.of(denoise=name)
    first = custom.digests(settings)
    own('def run(curves, *rest):\n    return 2 * curves\n')
    assert custom.digests(settings).keys() == first.keys() == {name}
    assert custom.digests(settings) != first


def test_built_in_methods_have_no_digest():
    assert custom.digests(MethodSettings()) == {}


def test_a_function_without_a_source_file_is_refused():
    with pytest.raises(UsageError, match='has no source file'):
        custom.source_digest('math:hypot')
