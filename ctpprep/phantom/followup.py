# SPDX-License-Identifier: Apache-2.0
"""Follow-up of a phantom: final infarct, MR images in another pose, a non-contrast CT, an ISLES'24 tree.

The final infarct is the planted core (reperfusion), or the core grown into the penumbra, and may be
swollen by oedema. All are made from the truth on the acquired grid, whose slab they share.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nb
import numpy as np
from scipy import ndimage

from ctpprep.phantom.geometry import rotation_matrix
from ctpprep.phantom.simulation import Phantom

# signal of MR-like images: tissue, CSF, outside of the brain, infarct
SIGNALS = {'dwi': (300.0, 90.0, 25.0, 800.0), 'adc': (800.0, 2800.0, 60.0, 450.0)}
SIGNAL_NOISE = 0.04
# background of a non-contrast CT
AIR_HU = -1000


@dataclass(frozen=True)
class FollowUpSettings:
    """Course after the scan, and the images of the follow-up.

    Attributes
    ----------
    reperfused : bool
        The infarct stays the planted core; otherwise it grows.
    growth : float
        Share of the penumbra that becomes infarct without reperfusion, nearest to the core first.
    oedema : float
        Volume of the swollen infarct relative to its own: at least 1.
    tilt_deg, shift_mm : tuple of 3 float
        Pose of the follow-up head against that of the series.
    voxel_size_mm : tuple of 3 float
        Of the MR images.
    ncct_tilt_deg, ncct_shift_mm : tuple of 3 float
        Pose of the head in the non-contrast CT against that of the series.
    ncct_voxel_size_mm : tuple of 3 float
    seed : int
        Of the noise of the images.

    Raises
    ------
    ValueError
        If the growth is not between 0 and 1 or the oedema below 1.
    """

    reperfused: bool = True
    growth: float = 0.8
    oedema: float = 1.0
    tilt_deg: tuple[float, float, float] = (6.0, -4.0, 8.0)
    shift_mm: tuple[float, float, float] = (5.0, -8.0, 4.0)
    voxel_size_mm: tuple[float, float, float] = (1.4, 1.4, 4.0)
    ncct_tilt_deg: tuple[float, float, float] = (2.0, 1.0, -3.0)
    ncct_shift_mm: tuple[float, float, float] = (-3.0, 4.0, 2.0)
    ncct_voxel_size_mm: tuple[float, float, float] = (1.0, 1.0, 3.0)
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.growth <= 1:
            raise ValueError(f'growth must be a fraction between 0 and 1, got {self.growth}')
        if self.oedema < 1:
            raise ValueError(f'oedema must be a ratio of volumes of at least 1, got {self.oedema}')


@dataclass(frozen=True)
class Volume:
    """An image: (X, Y, Z) array and its affine, mm RAS."""

    voxels: np.ndarray
    affine: np.ndarray


@dataclass(frozen=True)
class FollowUp:
    """The follow-up of a phantom.

    Attributes
    ----------
    settings : FollowUpSettings
    infarct : (X, Y, Z) array of bool
        Truth on the grid of the series.
    ncct, dwi, adc, lesion : Volume
        Non-contrast CT, HU; MR images and the infarct in the pose of the MR scanner.
    to_ncct, to_mri : (4, 4) arrays
        From points of the series to points of the NCCT and of the MR images, mm RAS.
    """

    settings: FollowUpSettings
    infarct: np.ndarray
    ncct: Volume
    dwi: Volume
    adc: Volume
    lesion: Volume
    to_ncct: np.ndarray
    to_mri: np.ndarray

    def in_ncct_space(self) -> dict[str, Volume]:
        """Resample MR images and infarct to the NCCT by the true transforms, as ISLES'24 does."""
        matrix = self.to_mri @ np.linalg.inv(self.to_ncct)
        grid = self.ncct.voxels.shape, self.ncct.affine
        images = {
            name: Volume(_resample(volume, matrix, *grid), self.ncct.affine)
            for name, volume in (('dwi', self.dwi), ('adc', self.adc))
        }
        share = _resample(
            Volume(self.lesion.voxels.astype(float), self.lesion.affine), matrix, *grid
        )
        return images | {'lesion': Volume(share >= 0.5, self.ncct.affine)}


def make_followup(phantom: Phantom, settings: FollowUpSettings | None = None) -> FollowUp:
    """Make the follow-up of a phantom.

    Parameters
    ----------
    phantom : Phantom
    settings : FollowUpSettings, optional

    Returns
    -------
    FollowUp
    """
    settings = settings or FollowUpSettings()
    rng = np.random.default_rng([settings.seed, phantom.settings.seed])
    infarct = grow_infarct(phantom, settings)
    centre = (phantom.affine @ [*((np.array(infarct.shape) - 1) / 2), 1])[:3]
    to_ncct = _pose(settings.ncct_tilt_deg, settings.ncct_shift_mm, centre)
    to_mri = _pose(settings.tilt_deg, settings.shift_mm, centre)
    baseline = Volume(phantom.ctp[..., :2].mean(axis=-1), phantom.affine)
    ncct = _move(baseline, to_ncct, settings.ncct_voxel_size_mm, AIR_HU)
    images = {}
    for name, signals in SIGNALS.items():
        bright = _contrast(phantom, infarct, signals)
        moved = _move(Volume(bright, phantom.affine), to_mri, settings.voxel_size_mm, 0.0)
        noise = rng.normal(scale=SIGNAL_NOISE * signals[0], size=moved.voxels.shape)
        images[name] = Volume(np.abs(moved.voxels + noise), moved.affine)
    share = _move(
        Volume(infarct.astype(float), phantom.affine), to_mri, settings.voxel_size_mm, 0.0
    )
    lesion = Volume(share.voxels >= 0.5, share.affine)
    return FollowUp(settings, infarct, ncct, images['dwi'], images['adc'], lesion, to_ncct, to_mri)


def grow_infarct(phantom: Phantom, settings: FollowUpSettings) -> np.ndarray:
    """Return the final infarct on the grid of the series, (X, Y, Z) bool."""
    core, penumbra = phantom.truth['core'], phantom.truth['penumbra']
    sizes = np.linalg.norm(phantom.affine[:3, :3], axis=0)
    infarct = core.copy()
    if not core.any():
        return infarct
    if not settings.reperfused:
        near = ndimage.distance_transform_edt(~core, sampling=sizes)
        infarct |= _nearest(near, penumbra & ~core, settings.growth * np.count_nonzero(penumbra))
    if settings.oedema > 1:
        near = ndimage.distance_transform_edt(~infarct, sampling=sizes)
        more = (settings.oedema - 1) * np.count_nonzero(infarct)
        infarct |= _nearest(near, phantom.truth['brain'] & ~infarct, more)
    return infarct


def _nearest(distance: np.ndarray, candidates: np.ndarray, number: float) -> np.ndarray:
    """Return the candidates at the smallest distance, as many as asked for."""
    order = np.argsort(distance[candidates], kind='stable')[: round(number)]
    chosen = np.zeros(np.count_nonzero(candidates), bool)
    chosen[order] = True
    result = np.zeros(candidates.shape, bool)
    result[candidates] = chosen
    return result


def _contrast(phantom: Phantom, infarct: np.ndarray, signals: tuple[float, ...]) -> np.ndarray:
    """Return an MR-like image: tissue, CSF, little signal outside of the brain, infarct."""
    tissue, csf, outside, lesion = signals
    truth = phantom.truth
    signal = np.where(truth['brain'] | truth['csf'], csf, 0.0)
    head = phantom.ctp[..., 0] > -300
    signal = np.where(head & (signal == 0), outside, signal)
    return signal + truth['tissue'] * (np.where(infarct, lesion, tissue) - signal)


def _pose(
    tilt_deg: tuple[float, float, float], shift_mm: tuple[float, float, float], centre: np.ndarray
) -> np.ndarray:
    """Return the matrix of a head that is turned about its centre and shifted."""
    matrix = np.eye(4)
    matrix[:3, :3] = rotation_matrix(np.radians(tilt_deg))
    matrix[:3, 3] = centre + np.array(shift_mm) - matrix[:3, :3] @ centre
    return matrix


def _move(
    volume: Volume, matrix: np.ndarray, voxel_size_mm: tuple[float, float, float], outside: float
) -> Volume:
    """Resample an image that has moved to a grid of its own, which contains all of it."""
    n = volume.voxels.shape
    corners = np.array([[i, j, k, 1] for i in (0, n[0]) for j in (0, n[1]) for k in (0, n[2])])
    points = (matrix @ volume.affine @ (corners - [0.5, 0.5, 0.5, 0]).T)[:3]
    low, high = points.min(axis=1), points.max(axis=1)
    size = np.array(voxel_size_mm)
    shape = tuple(int(number) for number in np.ceil((high - low) / size))
    affine = np.diag([*size, 1.0])
    affine[:3, 3] = low + size / 2
    return Volume(_resample(volume, np.linalg.inv(matrix), shape, affine, outside), affine)


def _resample(
    volume: Volume, matrix: np.ndarray, shape: Any, affine: np.ndarray, outside: float = 0.0
) -> np.ndarray:
    """Interpolate an image linearly on a grid; the matrix maps points of the grid to its points."""
    to_voxel = np.linalg.inv(volume.affine) @ matrix @ affine
    return ndimage.affine_transform(
        volume.voxels, to_voxel[:3, :3], to_voxel[:3, 3], shape, order=1, cval=outside
    )


def write_isles(
    phantom: Phantom, followup: FollowUp, root: Path | str, participant: str, space: str = 'ncct'
) -> Path:
    """Add one participant to a tree of the shape of ISLES'24.

    Parameters
    ----------
    phantom : Phantom
    followup : FollowUp
    root : path
        Folder with ``raw_data``, ``derivatives`` and ``phenotype``; created if missing.
    participant : str
        Label without ``sub-``, such as ``stroke0001``.
    space : {'ncct', 'mri'}
        Space of the MR images and the lesion: that of the current releases, or that of the scanner
        with the names of the first challenge batch.

    Returns
    -------
    Path
        The series, without sidecar and frame time.
    """
    root, sub = Path(root), f'sub-{participant}'
    raw = root / 'raw_data' / sub / 'ses-01'
    later = root / 'derivatives' / sub / 'ses-02'
    phenotype = root / 'phenotype' / sub
    for folder in (raw, later, phenotype / 'ses-01', phenotype / 'ses-02'):
        folder.mkdir(parents=True, exist_ok=True)
    path = raw / f'{sub}_ses-01_ctp.nii.gz'
    _save(path, phantom.ctp, phantom.affine)
    _save(raw / f'{sub}_ses-01_ncct.nii.gz', np.rint(followup.ncct.voxels).astype(np.int16),
          followup.ncct.affine)  # fmt: skip
    images = {'dwi': followup.dwi, 'adc': followup.adc, 'lesion': followup.lesion}
    stem = f'{sub}_ses-02'
    if space == 'ncct':
        images, stem = followup.in_ncct_space(), f'{stem}_space-ncct'
    for name, volume in images.items():
        suffix = 'lesion-msk' if name == 'lesion' else name
        dtype = np.uint8 if name == 'lesion' else np.float32
        _save(later / f'{stem}_{suffix}.nii.gz', volume.voxels.astype(dtype), volume.affine)
    _write_phenotype(phenotype, sub, phantom, followup)
    return path


def _save(path: Path, voxels: np.ndarray, affine: np.ndarray) -> None:
    image = nb.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units('mm', 'unknown')
    for set_affine in (image.set_sform, image.set_qform):
        set_affine(affine, 1)
    if voxels.ndim == 4:
        image.header['pixdim'][4] = 0
    nb.save(image, path)


def _write_phenotype(folder: Path, sub: str, phantom: Phantom, followup: FollowUp) -> None:
    """Write the two tables of one row; the second has ses-01 in its name, as some of ISLES'24 do."""
    age = 55 + phantom.settings.seed % 35
    (folder / 'ses-01' / f'{sub}_ses-01_demographic_baseline.csv').write_text(
        f'Age,Sex,Microangiopathy\n{age},F,{int(phantom.settings.microangiopathy > 0)}\n'
    )
    (folder / 'ses-02' / f'{sub}_ses-01_outcome.csv').write_text(
        f'mTICI postinterventional\n{"3" if followup.settings.reperfused else "0"}\n'
    )
