# SPDX-License-Identifier: Apache-2.0
"""The dry run."""

from collections.abc import Sequence
from typing import Any

from ctpprep.settings import MethodSettings, RunSettings


def show_plan(found: Sequence[Any], method: MethodSettings, run: RunSettings) -> int:
    """Print."""
    return 0
