# SPDX-License-Identifier: Apache-2.0
"""What every test needs: a quiet, single-threaded, offline environment and the example data."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

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


# A worker takes whole files in this order and then the others: what is long must not come last.
LONGEST_FILES = (
    'tests/test_end_to_end.py',
    'tests/test_interruption.py',
    'tests/phantom/test_phantom.py',
    'tests/cli/test_display.py',
    'tests/workflows/test_node_settings.py',
    'tests/test_registration.py',
    'tests/test_offline.py',
    'tests/perfusion/test_estimation.py',
    'ctpprep/perfusion/chain.py',
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let the workers of pytest-xdist begin with the longest files."""
    if hasattr(config, 'workerinput'):
        rank = {name: place for place, name in enumerate(LONGEST_FILES)}
        items.sort(key=lambda item: rank.get(item.nodeid.partition('::')[0], len(rank)))


@pytest.fixture(scope='session')
def bids_dir() -> Path:
    """Path of the bundled BIDS data set (read it, never write to it)."""
    path = Path(__file__).resolve().parents[1] / 'data' / 'ds-phantom'
    assert path.is_dir(), f'{path} is missing; make it with: python data/make_phantom.py'
    return path


def _toy_head() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw a skull of 160 x 190 mm with a slow right hemisphere; voxels run right, front, up."""
    shape, size = (44, 52, 6), np.array([4.0, 4.0, 8.0])
    affine = np.diag([*size, 1.0])
    affine[:3, 3] = -(np.array(shape) - 1) / 2 * size
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing='ij'), axis=-1)
    x, y, z = np.moveaxis(index * size + affine[:3, 3], -1, 0)
    radius = np.hypot(x / 80, y / 95)
    times = 2.0 * np.arange(18)
    noise = np.random.default_rng(0).normal(size=(*shape, len(times)))

    def bolus(arrival, rise):
        s = np.clip((times - arrival) / rise, 0, None)
        return (s * np.exp(1 - s)) ** 2

    still = np.select([radius < 0.88, radius < 1], [34.0, 900.0], -1000.0)
    still[(np.abs(x) < 16) & (np.abs(x) > 4) & (np.abs(y) < 30)] = 7.0  # ventricles
    ctp = np.repeat(still[..., None], len(times), axis=-1)
    brain = still == 34
    ctp[brain & (x < 0)] += 8 * bolus(7, 6)
    ctp[brain & (x > 0)] += 3 * bolus(11, 8)
    ctp[(np.abs(np.abs(x) - 30) < 6) & (np.abs(y - 30) < 6) & (z < 0)] += 250 * bolus(5, 5)
    ctp[(np.abs(x) < 4) & (np.abs(y + 70) < 6)] += 300 * bolus(9, 6)  # sagittal sinus
    ctp += np.where(radius < 1, 1.0, 0.0)[..., None] * noise
    return np.round(ctp).astype(np.int16), affine, times


@pytest.fixture(scope='session')
def toy_head() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Canonical (X, Y, Z, T) series in HU, its affine, and its frame times in s."""
    return _toy_head()


@pytest.fixture(scope='session')
def coarse_head():
    """Phantom for tests of the command: every stage gets through, in seconds."""
    from ctpprep.phantom import PhantomSettings, make_phantom

    return make_phantom(
        PhantomSettings(
            seed=11, matrix=40, voxel_size_mm=(5.0, 5.0, 10.0), n_slices=7, n_frames=16,
            frame_interval=2.0, motion_mm=1.0, lesion='large', lesion_side='left',
        )
    )  # fmt: skip


@pytest.fixture(scope='session')
def mapped_head() -> dict[str, np.ndarray]:
    """Maps of a brain with ventricles and a vessel, and the CT of its head, 3 x 3 x 8 mm."""
    shape = (60, 72, 8)
    x, y, _ = (axis - (n - 1) / 2 for axis, n in zip(np.indices(shape), shape, strict=True))
    radius = np.hypot(x / 22, y / 28)
    ventricles = (np.abs(x) < 4) & (np.abs(y) < 8)
    tissue = (radius < 1) & ~ventricles
    vessel = np.zeros(shape, bool)
    vessel[30:32, 14:16] = True
    grey = np.where(radius > 0.8, 60.0, 30.0)
    flow = np.where(vessel, 300.0, np.where(tissue, grey, 0.0)).astype(np.float32)
    density = np.select(
        [tissue, radius < 1, radius < 1.1, radius < 1.25], [34, 6, 20, 900], -1000.0
    )
    return {
        'cbf': flow, 'cbv': flow / 12, 'tmax': np.where(tissue, 1.5, 0).astype(np.float32),
        'density': density.astype(np.float32), 'tissue': tissue & ~vessel, 'brain': radius < 1,
        'vessel': vessel, 'ventricles': ventricles,
    }  # fmt: skip


class SymmetricHead:
    """A head with the same texture left and right, which can be drawn in any pose."""

    shape = (60, 70, 12)
    affine = np.diag([3.0, 3.0, 6.0, 1.0])
    affine[:3, 3] = -(np.array(shape) - 1) / 2 * (3.0, 3.0, 6.0)

    def __init__(self) -> None:
        noise = np.random.default_rng(0).normal(size=(181, 211, 81))  # on a grid of 1 mm
        field = ndimage.gaussian_filter(noise + noise[::-1], (6, 6, 6))
        self._texture = field / field.std()

    def draw(self, pose=None, affine=None) -> tuple[np.ndarray, np.ndarray]:
        """Return densities in HU and the brain; point p of the head is at pose(p), mm RAS."""
        to_head = np.eye(4) if pose is None else np.linalg.inv(pose)
        to_head = to_head @ (self.affine if affine is None else affine)
        index = np.stack(np.meshgrid(*map(np.arange, self.shape), indexing='ij'), axis=-1)
        x, y, z = np.moveaxis(index @ to_head[:3, :3].T + to_head[:3, 3], -1, 0)
        radius = np.sqrt((x / 65) ** 2 + (y / 80) ** 2 + (z / 90) ** 2)
        at = np.stack([x + 90, y + 105, z + 40])
        soft = 33 + 5 * ndimage.map_coordinates(self._texture, at, order=1, mode='nearest')
        soft = np.where((np.abs(x) < 22) & (np.abs(x) > 5) & (np.abs(y + 8) < 24), 8, soft)
        outside = np.select([radius < 1.08, radius < 1.15], [900.0, 40.0], -1000.0)
        head = np.where(radius < 1, soft, outside)
        return ndimage.gaussian_filter(head, (0.4, 0.4, 0)).astype(np.float32), radius < 0.98


@pytest.fixture(scope='session')
def symmetric_head() -> SymmetricHead:
    """Head on a grid of 3 x 3 x 6 mm."""
    return SymmetricHead()
