# SPDX-License-Identifier: Apache-2.0
"""Reading of raw series, averaged over blocks of voxels, a few slices at a time."""

import math

import nibabel as nb
import numpy as np

from ctpprep.io import nifti
from ctpprep.perfusion import grid
from ctpprep.perfusion.preprocessing import AIR_HU

# voxels of the raw series read at once: 16 MB as float32
SLAB_VOXELS = 2**22


class RawSeries:
    """A 4D series on disk, in canonical order.

    Parameters
    ----------
    path : path-like
        NIfTI file, HU.

    Attributes
    ----------
    affine : (4, 4) array
        Affine of the canonical array, mm RAS.
    voxel_size_mm : (3,) tuple of float
    upwards : bool
        Whether the slices of the file run from feet to head.
    """

    def __init__(self, path):
        # with an open handle, a compressed file is read on instead of again from its start
        self._image = nb.load(path, keep_file_open=True)
        self._orientation = nb.io_orientation(self._image.affine)
        self.affine = self._image.affine @ nb.orientations.inv_ornt_aff(
            self._orientation, self._image.shape[:3]
        )
        self.voxel_size_mm = nifti.voxel_size_mm(self.affine)
        self.upwards = nb.aff2axcodes(self._image.affine)[2] != 'I'

    def average_blocks(self, factors):
        """Average blocks of voxels.

        Parameters
        ----------
        factors : (3,) sequence of float
            Block size along the canonical axes, voxels.

        Returns
        -------
        (X, Y, Z, T) array of float32
            Canonical, HU, at least `AIR_HU`; stored frame by frame.
        """
        return read_blocks(self._image, self._orientation, factors)


def read_blocks(image, orientation, factors):
    """Read a series in file order and average blocks of voxels.

    A few slices are read at a time; neither the whole series nor a whole frame is in memory.

    Parameters
    ----------
    image : nibabel image
        Raw 4D series, HU.
    orientation : (3, 2) array
        Orientation of the stored axes, from nibabel.
    factors : (3,) sequence of float
        Block size along the canonical axes, voxels.

    Returns
    -------
    (X, Y, Z, T) array of float32
        Canonical, HU, at least `AIR_HU`; stored frame by frame.
    """
    shape = [0, 0, 0]
    for stored, (axis, _) in enumerate(orientation.astype(int)):
        shape[axis] = grid.count_blocks(image.shape[stored], factors[axis])
    working = np.empty((*shape, image.shape[3]), dtype=np.float32, order='F')
    # slices are read in stored order; on a flipped axis the last canonical block is stored first
    axis, flipped = int(orientation[2, 0]), orientation[2, 1] < 0
    through, n_slices = factors[axis], image.shape[2]
    step = max(1, int(SLAB_VOXELS / (image.shape[0] * image.shape[1] * through)))
    if not float(through).is_integer():  # blocks share voxels, so none can be read alone
        step = shape[axis]
    starts = range(0, shape[axis], step)
    for frame in range(image.shape[3]):
        for start in reversed(starts) if flipped else starts:
            end = min(start + step, shape[axis])
            first, last = math.floor(start * through), math.ceil(end * through - 1e-6)
            if flipped:
                first, last = n_slices - last, n_slices - first
            slab = np.asarray(image.dataobj[:, :, first:last, frame], dtype=np.float32)
            # fmax replaces NaN
            slab = np.fmax(slab, np.float32(AIR_HU), out=slab if slab.flags.writeable else None)
            slab = nb.apply_orientation(slab, orientation)
            place = (slice(None),) * axis + (slice(start, end),)
            working[..., frame][place] = grid.average_blocks(slab, factors)
    return working


def timing_fields(sample_times, upwards=True):
    """Return the sidecar fields that state when the slices of a series were acquired.

    Parameters
    ----------
    sample_times : (Z, T) array
        s; slices run from feet to head.
    upwards : bool
        Whether the slices of the file run from feet to head.

    Returns
    -------
    dict
        ``VolumeTiming`` if all slices of a frame share their time, else ``SliceAcquisitionTimes``
        (frames x slices, in file order); s on the clock of the series, as in the table of the curves,
        so that both can be supplied together to another run.
    """
    times = np.round(sample_times if upwards else sample_times[::-1], 4)
    if np.ptp(times, axis=0).max() == 0:
        return {'VolumeTiming': times[0].tolist()}
    return {'SliceAcquisitionTimes': times.T.tolist()}
