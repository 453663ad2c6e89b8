# SPDX-License-Identifier: Apache-2.0
"""Scans without content: their headers and names are all that a graph is built from."""

import nibabel as nb
import numpy as np
import pytest

from ctpprep.inputs.series import CTPSeries, FollowUpLesion, InputFile, PrecomputedMaps
from ctpprep.settings import MethodSettings, RunSettings
from ctpprep.workflows.base import init_series_wf

N_FRAMES, N_SLICES = 14, 4


@pytest.fixture(scope='session')
def run(tmp_path_factory):
    """Folders of a run, which need not exist."""
    folder = tmp_path_factory.mktemp('run')
    return RunSettings(folder / 'raw', folder / 'out', folder / 'work')


@pytest.fixture(scope='session')
def make_series(tmp_path_factory):
    """Make a series of a participant and session whose voxels are all 0, perhaps with an NCCT or a lesion."""
    bids_dir = tmp_path_factory.mktemp('series')

    def make(participant='01', session=None, ncct=False, overrides=None, lesion=False):
        labels = [f'sub-{participant}'] + ([f'ses-{session}'] if session else [])
        subdir, prefix = '/'.join([*labels, 'ct']), '_'.join(labels)
        path = bids_dir / subdir / f'{prefix}_ctp.nii.gz'
        path.parent.mkdir(parents=True, exist_ok=True)
        voxels = np.zeros((2, 2, N_SLICES, N_FRAMES), np.int16)
        nb.save(nb.Nifti1Image(voxels, np.eye(4)), path)
        head = path.with_name(f'{prefix}_ncct.nii.gz')
        if ncct:
            nb.save(nb.Nifti1Image(voxels[..., 0], np.eye(4)), head)
        files = []
        for name in ('lesion-msk', 'dwi') if lesion else ():
            later = path.with_name(f'sub-{participant}_ses-later_{name}.nii.gz')
            nb.save(nb.Nifti1Image(voxels[..., 0], np.eye(4)), later)
            files.append(InputFile(later, f'bids:raw:{subdir}/{later.name}'))
        followup = FollowUpLesion(files[0], 'later', 'image', files[1]) if lesion else None
        times = tuple(2.0 * frame for frame in range(N_FRAMES))
        return CTPSeries(
            path, prefix, participant, session, subdir, f'bids:raw:{subdir}/{path.name}', times,
            (times,) * N_SLICES, 'RepetitionTime', {}, head if ncct else None, overrides or {},
            (2, 2, N_SLICES), (1.0, 1.0, 5.0), lesion=followup,
        )  # fmt: skip

    return make


@pytest.fixture(scope='session')
def make_maps(tmp_path_factory):
    """Make a set of maps whose voxels are all 0, perhaps with masks and a baseline CT."""
    folder = tmp_path_factory.mktemp('maps')

    def make(names=('cbf', 'cbv', 'mtt', 'tmax'), masks=False, density=False):
        def write(name):
            path = folder / f'sub-01_{name}.nii.gz'
            voxels = np.zeros((2, 2, N_SLICES), np.float32)
            nb.save(nb.Nifti1Image(voxels, np.eye(4)), path)
            return InputFile(path, f'bids:raw:sub-01/ct/{path.name}')

        return PrecomputedMaps(
            'sub-01', '01', None, 'sub-01/ct', '', {name: write(name) for name in names},
            dict.fromkeys(names, ''), write('ncct') if density else None,
            'ncct' if density else '',
            {f'{name}_mask': write(f'desc-{name}_mask') for name in ('brain', 'tissue') if masks},
        )  # fmt: skip

    return make


@pytest.fixture
def supplied(tmp_path):
    """Make a file of the user that replaces a step."""

    def make(name):
        path = tmp_path / name
        path.touch()
        return InputFile(path, f'bids:manual:{name}')

    return make


@pytest.fixture(scope='session')
def rows_of(run):
    """Make the rows of all writers of a series, by the quantity that each writes."""

    def rows(series, method=None):
        workflow = init_series_wf(series, method or MethodSettings(), run)
        writers = [name for name in workflow.list_node_names() if name.startswith('write_')]
        return {
            row['name']: row for name in writers for row in workflow.get_node(name).inputs.rows
        }

    return rows
