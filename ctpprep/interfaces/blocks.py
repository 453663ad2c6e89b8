# SPDX-License-Identifier: Apache-2.0
"""Reading of raw series, averaged over blocks of voxels, a few slices at a time."""

import math
from pathlib import Path

import nibabel as nb
import numpy as np
from scipy import ndimage

from ctpprep.exceptions import SeriesError
from ctpprep.io import nifti
from ctpprep.io.compression import damage, keep_open
from ctpprep.io.headers import place_image
from ctpprep.io.shear import describe_shear, straighten
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
    affine_from : {'agree', 'sform', 'qform'}
        Affine of the header that places the voxels.

    Attributes
    ----------
    image : nibabel.Nifti1Pair
    affine : (4, 4) array
        Affine of the canonical array, mm RAS.
    voxel_size_mm : (3,) tuple of float
    upwards : bool
        Whether the slices of the file run from feet to head.
    notes : dict
        Sidecar field that states how sheared slices were straightened; mostly empty.
    """

    def __init__(self, path, affine_from='agree'):
        self._path = Path(path)
        self.image, self._stream = keep_open(nb.load(path, keep_file_open=True), self._path)
        place_image(self.image, affine_from)
        self.notes = describe_shear(self.image.affine)
        self.image = straighten(self.image)
        self._orientation = nb.io_orientation(self.image.affine)
        self.affine = self.image.affine @ nb.orientations.inv_ornt_aff(
            self._orientation, self.image.shape[:3]
        )
        self.voxel_size_mm = nifti.voxel_size_mm(self.affine)
        self.upwards = nb.aff2axcodes(self.image.affine)[2] != 'I'

    def first_frames(self, count):
        """Read a few frames, (X, Y, Z, T) array of float32, canonical, HU."""
        frames = np.asarray(self.image.dataobj[..., :count], dtype=np.float32)
        return nb.apply_orientation(frames, self._orientation)

    def average_blocks(self, factors):
        """Average blocks of voxels.

        Parameters
        ----------
        factors : (3,) sequence of float
            Block size along the canonical axes, voxels.

        Returns
        -------
        working : (X, Y, Z, T) array of float32
            Canonical, HU, at least `AIR_HU`; stored frame by frame.
        empty_slices : list of int
            Slices that contained a single value and are interpolated; none if the series is stored in
        another direction.
        """
        try:
            working, empty_slices = read_blocks(self.image, self._orientation, factors)
            while self._stream is not None and self._stream.read(2**22):
                pass  # the checksum is in the trailer
        except damage() as error:
            raise SeriesError(
                f'{self._path.name}: the file is damaged ({error}); copy or convert it again'
            ) from error
        return working, empty_slices


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
    working : (X, Y, Z, T) array of float32
        Canonical, HU, at least `AIR_HU`; stored frame by frame.
    empty_slices : list of int
        Slices that contained a single value and are interpolated.
    """
    shape = [0, 0, 0]
    for stored, (axis, _) in enumerate(orientation.astype(int)):
        shape[axis] = grid.count_blocks(image.shape[stored], factors[axis])
    working = np.empty((*shape, image.shape[3]), dtype=np.float32, order='F')
    empty = np.zeros((shape[2], image.shape[3]), dtype=bool)
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
            stored = np.asarray(image.dataobj[:, :, first:last, frame])
            slab = stored.reshape(stored.shape[:3]).astype(np.float32)  # a fifth dimension is 1
            if stored.dtype.kind == 'f' and not np.isfinite(slab).all():
                slab = fill_isolated(slab)
            # fmax replaces NaN
            slab = np.fmax(slab, np.float32(AIR_HU), out=slab)
            slab = nb.apply_orientation(slab, orientation)
            if axis == 2:
                # all voxels of a slice are compared only if those of its middle row are alike
                constant = np.ptp(slab[:, slab.shape[1] // 2], axis=0) == 0
                constant[constant] = np.ptp(slab[..., constant], axis=(0, 1)) == 0
                empty[start:end, frame] = constant.reshape(-1, int(through)).any(axis=1)
            place = (slice(None),) * axis + (slice(start, end),)
            working[..., frame][place] = grid.average_blocks(slab, factors)
    return working, fill_empty(working, empty)


def fill_empty(working, empty):
    """Interpolate slices that contain a single value, in place, so that what is around them is found.

    Empty slices below the lowest or above the highest other slice are padding, and are left as they
    are.

    Parameters
    ----------
    working : (X, Y, Z, T) array
    empty : (Z, T) array of bool
        Slices to replace, by frame.

    Returns
    -------
    list of int
        Slices that were interpolated in any frame.

    Examples
    --------
    >>> working = np.array([10.0, 0.0, 30.0, 0.0]).reshape(1, 1, 4, 1)
    >>> fill_empty(working, np.array([[False], [True], [False], [True]]))
    [1]
    >>> working.ravel()
    array([10., 20., 30., 0.])
    """
    filled = set()
    for frame in np.flatnonzero(empty.any(axis=0)):
        kept = np.flatnonzero(~empty[:, frame])
        for z in np.flatnonzero(empty[:, frame]):
            if not kept.size or not kept[0] < z < kept[-1]:
                continue
            below, above = kept[kept < z][-1], kept[kept > z][0]
            share = (z - below) / (above - below)
            volume = working[..., frame]
            volume[..., z] = (1 - share) * volume[..., below] + share * volume[..., above]
            filled.add(int(z))
    return sorted(filled)


def fill_isolated(slab):
    """Replace voxels that are NaN or infinite by the mean of their finite neighbours in the slice.

    Parameters
    ----------
    slab : (X, Y, Z) array of float32

    Returns
    -------
    (X, Y, Z) array of float32
        A voxel without a finite neighbour, as in padding around the head, is NaN.

    Examples
    --------
    >>> slab = np.full((3, 3, 1), 30.0); slab[1, 1] = np.inf
    >>> float(fill_isolated(slab)[1, 1, 0])
    30.0
    """
    finite = np.isfinite(slab)
    total = ndimage.uniform_filter(np.where(finite, slab, 0.0), (3, 3, 1), mode='constant')
    share = ndimage.uniform_filter(finite.astype(np.float32), (3, 3, 1), mode='constant')
    with np.errstate(invalid='ignore', divide='ignore'):
        mean = np.where(share > 0.05, total / share, np.nan)
    return np.where(finite, slab, mean).astype(np.float32)


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
