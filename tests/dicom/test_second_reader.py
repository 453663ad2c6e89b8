# SPDX-License-Identifier: Apache-2.0
"""dcm2niix, which keeps left and right of any orientation, places every voxel where we do."""

import os
import shutil
import subprocess
import sys

import nibabel as nb
import numpy as np
import pytest

pytest.importorskip('pydicom', reason='needs the extra ctpprep[dicom]')

from ctpprep.dicom.cli import main
from tests.dicom import generator as g
from tests.dicom.test_series import FEET_FIRST, OBLIQUE, PRONE, TIPPED

FOLDERS = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get('PATH', '')])
DCM2NIIX = shutil.which('dcm2niix', path=FOLDERS)


@pytest.mark.skipif(DCM2NIIX is None, reason='needs dcm2niix')
@pytest.mark.parametrize('orientation', [(1, 0, 0, 0, 1, 0), FEET_FIRST, PRONE, OBLIQUE, TIPPED])
def test_dcm2niix_places_voxels_alike(orientation, tmp_path):
    source = g.write(g.classic(g.Scan('canon', orientation=orientation)), tmp_path / 'src')
    assert main([str(source), str(tmp_path / 'bids')]) == 0
    command = [DCM2NIIX, '-b', 'n', '-z', 'n', '-o', tmp_path, '-f', 'other', source]
    subprocess.run(command, check=True, capture_output=True)
    ours = nb.load(next((tmp_path / 'bids').rglob('*_ctp.nii.gz')))
    other = nb.load(next(tmp_path.glob('other*.nii')))
    assert sorted(other.shape) == sorted(ours.shape)
    voxels, expected = np.asarray(ours.dataobj), np.asarray(other.dataobj)
    to_ours = np.linalg.inv(ours.affine) @ other.affine
    for index in np.ndindex(*other.shape[:3]):
        position = nb.affines.apply_affine(to_ours, index)
        np.testing.assert_allclose(position, np.round(position), atol=1e-2)
        np.testing.assert_array_equal(
            voxels[tuple(np.round(position).astype(int))], expected[index]
        )
