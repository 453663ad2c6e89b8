# SPDX-License-Identifier: Apache-2.0
"""What every test needs: a quiet, single-threaded, offline environment and the example data."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest

# Set before anything imports the libraries that read them, and inherited by worker processes.
_templateflow = Path(tempfile.mkdtemp(prefix='ctpprep-templateflow-'))
(_templateflow / 'dataset_description.json').write_text(
    '{"Name": "no templates", "BIDSVersion": "1.9.0"}\n'
)
atexit.register(shutil.rmtree, _templateflow, ignore_errors=True)
os.environ.update(
    ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS='1',
    MPLBACKEND='Agg',
    NO_ET='1',
    OMP_NUM_THREADS='1',
    OPENBLAS_NUM_THREADS='1',
    TEMPLATEFLOW_AUTOUPDATE='0',
    TEMPLATEFLOW_HOME=str(_templateflow),
)


@pytest.fixture(scope='session')
def bids_dir() -> Path:
    """Path of the bundled BIDS data set (read it, never write to it)."""
    path = Path(__file__).resolve().parents[1] / 'data' / 'ds-phantom'
    assert path.is_dir(), f'{path} is missing; make it with: python data/make_phantom.py'
    return path
