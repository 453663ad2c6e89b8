# SPDX-License-Identifier: Apache-2.0
"""Global and contralateral (local) normalization of perfusion maps.

Source: Rau et al., AJNR 2024;45:277, doi:10.3174/ajnr.A8111. The local map supplements the global
one: it hides the state of the healthy hemisphere and is misleading with old or bilateral infarcts.
"""

from dataclasses import dataclass

import numpy as np
from scipy import fft

from ctpprep.exceptions import PerfusionError
from ctpprep.perfusion.symmetry import OTHER_SIDE, SIDES, affected_side

# least number of voxels of the reference tissue
LEAST_VOXELS = 100
# calibrated Tmax of early tissue: this percentile was 0.6 to 0.8 s in three simulated heads
EARLY_PERCENTILE = 10
EARLY_TMAX = 1.0


@dataclass(frozen=True)
class ReferenceTissue:
    """The tissue whose median is 1 in the global maps, and how it was chosen.

    Attributes
    ----------
    mask : (X, Y, Z) array of bool
    rule : {'normal-tmax', 'contralateral', 'early-contralateral'}
        The last one replaces the first if too little tissue is normally perfused.
    meaning : str
        Description of the tissue.
    tmax_limit : float or None
        Largest Tmax of the tissue, s.
    normal_share : float
        Fraction of all tissue whose Tmax is within the limit of normal perfusion.
    reason : str
        Why the rule differs from the requested one; '' if it does not.
    """

    mask: np.ndarray
    rule: str
    meaning: str
    tmax_limit: float | None
    normal_share: float
    reason: str = ''


@dataclass(frozen=True)
class GlobalNormalization:
    """CBF and CBV relative to the global reference.

    Attributes
    ----------
    relative : dict of str to (X, Y, Z) array of float32
        ``rcbf`` and optionally ``rcbv``, fractions of the reference; 0 outside tissue.
    reference : ReferenceTissue
    measured : dict
        ``affected_side``, ``side_confidence`` (None for a side chosen by the user), ``side_rule``,
        ``tmax_left_s``, ``tmax_right_s``, ``reference``, ``reference_tmax_limit_s``,
        ``reference_share``, ``normal_share``, ``cbf_reference`` and optionally ``cbv_reference``.
    """

    relative: dict
    reference: ReferenceTissue
    measured: dict


@dataclass(frozen=True)
class LocalNormalization:
    """A map relative to the contralateral homologue of each voxel.

    Attributes
    ----------
    local : (X, Y, Z) array of float32
        Fraction of the clipped and smoothed homologue; 0 where it is not assessable.
    homologue : (X, Y, Z) array of float32
        Global map at the homologue of each voxel; 0 where the homologue is not tissue.
    unassessable : (X, Y, Z) array of bool
        Tissue without a usable homologue.
    """

    local: np.ndarray
    homologue: np.ndarray
    unassessable: np.ndarray


def normalize_to_reference(cbf, tmax, tissue_mask, hemispheres, settings, cbv=None):
    """Find the affected side and divide CBF and CBV by their medians over the global reference.

    Parameters
    ----------
    cbf : (X, Y, Z) array
        mL/100 g/min, or relative.
    tmax : (X, Y, Z) array
        s.
    tissue_mask : (X, Y, Z) array of bool
    hemispheres : (X, Y, Z) array
        1 left, 2 right.
    settings : MethodSettings
        Uses the branches ``lesion`` and ``normalization``.
    cbv : (X, Y, Z) array, optional
        mL/100 g.

    Returns
    -------
    GlobalNormalization

    Raises
    ------
    PerfusionError
        If there is no reference tissue, or its median is not above 0.
    """
    lesion, method = settings.lesion, settings.normalization
    side = affected_side(
        tmax, hemispheres, tissue_mask, hypoperfusion_tmax=lesion.hypoperfusion_tmax
    )
    asked = lesion.affected_side if lesion.affected_side in SIDES else None
    affected = asked or side.side
    reference = reference_tissue(
        tmax, hemispheres, tissue_mask, affected, global_reference=method.global_reference,
        normal_tmax=method.normal_tmax, least_normal_share=method.least_normal_share,
    )  # fmt: skip
    measured = {
        'affected_side': affected,
        # a side chosen by the user has no computed confidence
        'side_confidence': None if asked else side.confidence,
        'side_rule': 'asked for' if asked else side.rule,
        'tmax_left_s': side.tmax_left,
        'tmax_right_s': side.tmax_right,
        'reference': reference.rule,
        'reference_tmax_limit_s': reference.tmax_limit,
        'reference_share': float(reference.mask.sum() / tissue_mask.sum()),
        'normal_share': reference.normal_share,
    }
    relative = {}
    for name, values in (('cbf', cbf), ('cbv', cbv)):
        if values is not None:
            relative[f'r{name}'], measured[f'{name}_reference'] = normalize_global(
                values, reference.mask, tissue_mask
            )
    return GlobalNormalization(relative, reference, measured)


def normalize_to_homologue(relative, mirrored, homologue_tissue, tissue_mask, affine, settings):
    """Divide a globally normalized map by its clipped and smoothed contralateral homologue.

    Parameters
    ----------
    relative : (X, Y, Z) array
        Globally normalized map, fraction; 0 outside tissue.
    mirrored : (X, Y, Z) array
        The same map at the homologue of each voxel, interpolated.
    homologue_tissue : (X, Y, Z) array
        Tissue fraction at the homologue, interpolated in the same way.
    tissue_mask : (X, Y, Z) array of bool
    affine : (4, 4) array
        Voxel to patient RAS, mm.
    settings : MethodSettings
        Uses the branch ``normalization``.

    Returns
    -------
    LocalNormalization
    """
    method = settings.normalization
    # maps are 0 outside tissue: dividing by the tissue fraction undoes the mixing by interpolation
    assessable = homologue_tissue > method.local_least_tissue
    homologue = np.divide(
        mirrored, homologue_tissue, out=np.zeros_like(mirrored), where=assessable
    )
    local, unassessable = normalize_contralateral(
        relative, homologue, assessable, tissue_mask, affine, clip=method.local_clip,
        sigma_mm=method.local_sigma_mm, floor=method.local_floor,
        least_weight=method.local_least_weight,
    )  # fmt: skip
    return LocalNormalization(local, homologue, unassessable)


def reference_tissue(
    tmax, hemisphere, tissue_mask, affected, *, global_reference, normal_tmax, least_normal_share
):
    """Choose the tissue whose median is 1 in the global maps.

    Normal tissue has a short Tmax relative to the AIF. If all tissue is late (heart failure,
    bilateral carotid stenosis, an AIF from an early artery), little or no tissue qualifies, and only
    the best perfused. In that case Tmax is measured relative to early tissue of the unaffected
    hemisphere instead: its 10th percentile, which is about 1 s in a healthy brain, so that the limit
    is unchanged in a brain without delay. This fails if the whole hemisphere is diseased.

    Parameters
    ----------
    tmax : (X, Y, Z) array
        s.
    hemisphere : (X, Y, Z) array
        1 left, 2 right.
    tissue_mask : (X, Y, Z) array of bool
    affected : {'left', 'right'}
        Affected side; used only for references in the other hemisphere.
    global_reference : {'normal-tmax', 'contralateral'}
    normal_tmax : float
        Tmax up to which tissue is considered normally perfused, s.
    least_normal_share : float
        Fraction of tissue below which normally perfused tissue is not used as the reference; 0 for
        always.

    Returns
    -------
    ReferenceTissue

    Raises
    ------
    PerfusionError
        If fewer than 100 voxels qualify.
    """
    other = OTHER_SIDE[affected]
    healthy = tissue_mask & (hemisphere == SIDES[other])
    normal = tissue_mask & (tmax <= normal_tmax)
    share = float(normal.sum() / max(tissue_mask.sum(), 1))
    if global_reference == 'contralateral':
        chosen = ReferenceTissue(
            healthy, 'contralateral', f'tissue of the {other} hemisphere', None, share
        )
    elif share >= least_normal_share or not healthy.any():
        chosen = ReferenceTissue(
            normal, 'normal-tmax', f'tissue with Tmax <= {normal_tmax:g} s', normal_tmax, share
        )
    else:
        early = float(np.percentile(tmax[healthy], EARLY_PERCENTILE))
        limit = early + max(normal_tmax - EARLY_TMAX, 0.0)
        chosen = ReferenceTissue(
            healthy & (tmax <= limit),
            'early-contralateral',
            f'tissue of the {other} hemisphere with Tmax <= {limit:.1f} s',
            limit,
            share,
            f'only {share:.0%} of tissue has a Tmax within {normal_tmax:g} s, at least '
            f'{least_normal_share:.0%} are needed for a reference; Tmax of the unaffected '
            f'hemisphere begins at {early:.1f} s instead of about {EARLY_TMAX:g} s',
        )
    if chosen.mask.sum() < LEAST_VOXELS:
        raise PerfusionError(
            f'global normalization: only {chosen.mask.sum()} voxels of {chosen.meaning}, need at '
            f'least {LEAST_VOXELS}; check the AIF'
        )
    return chosen


def normalize_global(values, chosen, tissue_mask):
    """Divide a map by its median over the reference tissue.

    Parameters
    ----------
    values : (X, Y, Z) array
        CBF or CBV.
    chosen : (X, Y, Z) array of bool
        Reference tissue.
    tissue_mask : (X, Y, Z) array of bool
        Voxels of the result.

    Returns
    -------
    relative : (X, Y, Z) array of float32
        Fraction of the reference; 0 outside tissue.
    reference : float
        The median, in the unit of `values`.

    Raises
    ------
    PerfusionError
        If the median is not above 0.

    Examples
    --------
    >>> mask = np.ones(3, bool)
    >>> normalize_global(np.array([10.0, 20, 60]), mask, mask)
    (array([0.5, 1. , 3. ], dtype=float32), 20.0)
    """
    reference = float(np.median(values[chosen]))
    if not reference > 0:
        raise PerfusionError(
            f'global normalization: the median of the reference tissue is {reference:g}, must be '
            'above 0; check the map'
        )
    return np.where(tissue_mask, values / reference, 0).astype(np.float32), reference


def gaussian_in_patient_axes(volume, affine, sigma_mm):
    """Smooth with a Gaussian aligned with patient x, y, z, for any voxel axes.

    The transfer function of a Gaussian is a Gaussian defined by the covariance, which is rotated
    exactly from patient to voxel axes. The volume is padded with zeros by three sigma.

    Parameters
    ----------
    volume : (X, Y, Z) array
    affine : (4, 4) array
        Voxel to patient coordinates, mm.
    sigma_mm : (3,) sequence of float
        Sigma (not FWHM) along patient x, y, z, mm.

    Returns
    -------
    (X, Y, Z) array of float64
    """
    to_voxel = np.linalg.inv(np.asarray(affine, dtype=float)[:3, :3])
    covariance = to_voxel @ np.diag(np.square(np.asarray(sigma_mm, dtype=float))) @ to_voxel.T
    reach = np.ceil(3 * np.sqrt(np.diag(covariance))).astype(int)
    padded = [
        fft.next_fast_len(int(size + margin), real=True)
        for size, margin in zip(volume.shape, reach, strict=True)
    ]
    frequencies = np.meshgrid(
        *(fft.fftfreq(size) for size in padded[:2]), fft.rfftfreq(padded[2]), indexing='ij',
        sparse=True,
    )  # fmt: skip
    exponent = sum(
        covariance[i, j] * frequencies[i] * frequencies[j] for i in range(3) for j in range(3)
    )
    spectrum = fft.rfftn(np.asarray(volume, dtype=float), padded)
    smooth = fft.irfftn(spectrum * np.exp(-2 * np.pi**2 * exponent), padded)
    return smooth[tuple(slice(size) for size in volume.shape)]


def normalize_contralateral(
    relative, mirrored, assessable, tissue_mask, affine, *, clip, sigma_mm, floor, least_weight
):
    """Divide a map by its clipped and smoothed contralateral homologue.

    Parameters
    ----------
    relative : (X, Y, Z) array
        Globally normalized map (not smoothed), fraction.
    mirrored : (X, Y, Z) array
        The same map at each voxel's homologue, fraction.
    assessable : (X, Y, Z) array of bool
        Where `mirrored` is tissue; other voxels are excluded from the smoothing.
    tissue_mask : (X, Y, Z) array of bool
        Voxels of the result.
    affine : (4, 4) array
    clip : float
        Cap of the mirrored map, fraction, so that a vessel does not cause low values at its homologue.
    sigma_mm : (3,) sequence of float
        Sigma of the Gaussian along patient x, y, z, mm.
    floor : float
        Least smoothed value of the homologue, fraction; below it a voxel is not assessable.
    least_weight : float
        Least fraction of the Gaussian that must overlap assessable voxels.

    Returns
    -------
    local : (X, Y, Z) array of float32
        Fraction of the homologue; 0 where a voxel is not assessable.
    unassessable : (X, Y, Z) array of bool
        Tissue without a usable homologue.

    Examples
    --------
    A symmetric map normalizes to 1:

    >>> ones = np.ones((4, 4, 4)); mask = ones > 0
    >>> local, unassessable = normalize_contralateral(
    ...     0.5 * ones, 0.5 * ones, mask, mask, np.eye(4), clip=1.5, sigma_mm=(1, 1, 0), floor=0.1,
    ...     least_weight=0.1)
    >>> bool(np.allclose(local, 1)), int(unassessable.sum())
    (True, 0)
    """
    capped = np.where(assessable, np.minimum(mirrored, clip), 0.0)
    weight = gaussian_in_patient_axes(assessable, affine, sigma_mm)
    total = gaussian_in_patient_axes(capped, affine, sigma_mm)
    seen = weight > least_weight
    smooth = np.divide(total, weight, out=np.zeros_like(total), where=seen)
    unassessable = tissue_mask & (~seen | (smooth < floor))
    usable = tissue_mask & ~unassessable
    local = np.divide(relative, smooth, out=np.zeros_like(smooth), where=usable)
    return local.astype(np.float32), unassessable
