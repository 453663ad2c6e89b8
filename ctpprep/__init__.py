# SPDX-License-Identifier: Apache-2.0
"""CT perfusion of acute stroke with global and contralateral local normalization."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version('ctpprep')
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = '0+unknown'

__all__ = ['__version__']
