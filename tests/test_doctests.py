# SPDX-License-Identifier: Apache-2.0
"""The examples in the docstrings of the science are true."""

import doctest
import importlib
import pkgutil

import pytest

from ctpprep import perfusion

MODULES = [f'ctpprep.perfusion.{each.name}' for each in pkgutil.iter_modules(perfusion.__path__)]


@pytest.mark.parametrize('module', [*MODULES, 'ctpprep.settings'])
def test_examples_are_true(module):
    assert doctest.testmod(importlib.import_module(module)).failed == 0
