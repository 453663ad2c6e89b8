# SPDX-License-Identifier: Apache-2.0
"""CT perfusion of acute stroke with global and contralateral local normalization.

From arrays: ``ctpprep.compute_maps``, and the functions of ``ctpprep.perfusion``.
"""

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import Any

try:
    __version__ = version('ctpprep')
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = '0+unknown'

__all__ = ['MethodSettings', '__version__', 'compute_maps', 'perfusion', 'phantom']

# imported when they are asked for: the command line must not wait for scipy
_LAZY = {
    'compute_maps': ('ctpprep.perfusion', 'compute_maps'),
    'MethodSettings': ('ctpprep.settings', 'MethodSettings'),
    'perfusion': ('ctpprep.perfusion', ''),
    'phantom': ('ctpprep.phantom', ''),
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _LAZY:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    module_name, attribute = _LAZY[name]
    module = importlib.import_module(module_name)
    return getattr(module, attribute) if attribute else module
