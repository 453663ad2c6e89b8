# SPDX-License-Identifier: Apache-2.0
"""Agreement of maps, cores and probabilities with the lesion of a follow-up image.

The lesion is resampled to the grid of the maps (`place_lesion`) and compared with what they show
(`compare_followup`). The thresholds are those of the whole curve, so that a group can choose one.
What a follow-up lesion shows besides the core of the first scan (oedema, growth without reperfusion,
haemorrhage) is part of every figure here.
"""

from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from ctpprep.exceptions import PerfusionError
from ctpprep.perfusion.lesions import Region
from ctpprep.perfusion.volumes import volume_ml

COLUMNS = (
    'measure', 'quantity', 'normalization', 'threshold', 'region', 'volume_ml', 'followup_ml',
    'region_ml', 'difference_ml', 'absolute_difference_ml', 'dice', 'sensitivity', 'specificity',
    'precision', 'surface_mm', 'surface_95_mm', 'auc', 'brier', 'predicted', 'observed', 'reason',
)  # fmt: skip
# voxels are divided into at most so many parts along an axis when a mask is averaged in them
MOST_PARTS = 6
# thresholds of the voxel-wise ROC curve: first, last and step
ROC = {'rcbf': (0.0, 2.0, 0.05), 'tmax': (0.0, 20.0, 0.5)}
# quantities that are low where tissue is at risk
LOW = ('rcbf', 'rcbv')
# code of a voxel that is all lesion, in files
FULL = 250
# margin of the box that is segmented, voxels
MARGIN = 4
# least part of a lesion that is in the brain; less is in another space, or another head
LEAST_IN_BRAIN = 0.5


@dataclass(frozen=True)
class PlacedLesion:
    """A follow-up lesion on the grid of the maps.

    Attributes
    ----------
    share : (X, Y, Z) array of float32
        Share of each voxel that is lesion.
    fine : (X', Y', Z') array of float32
        The same on the grid whose voxels divide those of the maps, `factors` along each axis.
    factors : tuple of int
    total_ml : float
        Volume of the lesion on its own grid, mL.
    covered : float
        Fraction of it within the grid of the maps; NaN for an empty mask.
    """

    share: np.ndarray
    fine: np.ndarray
    factors: tuple
    total_ml: float
    covered: float

    @property
    def mask(self):
        """Voxels of the maps of which at least half is lesion."""
        return self.share >= 0.5

    def save(self, path):
        """Write the lesion to an npz file and return its path."""
        np.savez_compressed(
            path, share=self.share, fine=np.uint8(np.rint(self.fine * FULL)), factors=self.factors,
            figures=(self.total_ml, self.covered),
        )  # fmt: skip
        return str(path)

    @classmethod
    def load(cls, path):
        """Read a lesion that `save` wrote."""
        with np.load(path) as stored:
            total, covered = stored['figures'].tolist()
            factors = tuple(stored['factors'].tolist())
            return cls(stored['share'], stored['fine'] / np.float32(FULL), factors, total, covered)

    @property
    def facts(self):
        """Figures for a sidecar."""
        covered = None if np.isnan(self.covered) else round(self.covered, 4)
        return {
            'followup_ml': round(self.total_ml, 4),
            'followup_covered': covered,
            'followup_parts_of_voxel': list(self.factors),
        }


@dataclass(frozen=True)
class FollowUpMaps:
    """What is compared with a follow-up lesion besides `RelativeMaps`.

    Attributes
    ----------
    brain_mask : (X, Y, Z) array of bool
    masks : dict of str to (X, Y, Z) array of bool
        ``hypoperfusion``, ``core_global`` and, unless withheld, ``core_local``.
    rcbv : dict of str to (X, Y, Z) array
        ``global`` and ``local``, as far as they exist; fractions.
    probability : dict of str to (X, Y, Z) array
        Probability of core by normalization, as far as it exists.
    withheld : str
        Why there is no local map.
    """

    brain_mask: np.ndarray
    masks: dict
    rcbv: dict = field(default_factory=dict)
    probability: dict = field(default_factory=dict)
    withheld: str = ''


def find_lesion(values):
    """Find the lesion in the values of a mask, which may be labels or interpolated.

    Parameters
    ----------
    values : (A, B, C) array
        Whole numbers, of which those above 0 are lesion, or fractions, of which at least half of the
        largest is: a mask that was resampled linearly would grow by its edge. NaN is outside.

    Returns
    -------
    mask : (A, B, C) array of bool
    facts : dict
        ``followup_level``: the least value of a lesion, if there are fractions; for a sidecar.

    Raises
    ------
    PerfusionError
        When a value is infinite.

    Examples
    --------
    >>> find_lesion(np.array([0, 255, np.nan]))
    (array([False,  True, False]), {})
    >>> find_lesion(np.array([0.1, 0.4, 0.8]))
    (array([False,  True,  True]), {'followup_level': 0.4})
    """
    values = np.asarray(values)
    if values.dtype.kind != 'f':
        return values > 0, {}
    if np.isinf(values).any():
        raise PerfusionError(
            'the lesion mask contains infinite values; write 0 outside the lesion'
        )
    values = np.nan_to_num(values, nan=0.0)
    labels = np.rint(values)
    # labels scaled in a header are not exact; fractions all close to 0 are not labels
    if np.allclose(values, labels, rtol=1e-5, atol=1e-3) and (labels.any() or not values.any()):
        return labels > 0, {}
    level = float(values.max()) / 2
    return (values >= level) & (values > 0), {'followup_level': round(level, 4)}


def place_lesion(mask, mask_affine, matrix, shape, affine):
    """Resample a mask to another grid, as the share of each voxel that is lesion.

    Voxels of the grid are divided to about the size of those of the mask, the mask is interpolated
    linearly at the parts, and the parts are averaged.

    Parameters
    ----------
    mask : (A, B, C) array of bool
    mask_affine : (4, 4) array
        mm RAS.
    matrix : (4, 4) array
        From points of the grid to points of the mask, mm RAS.
    shape : tuple of int
        (X, Y, Z) of the grid.
    affine : (4, 4) array
        Of the grid, mm RAS.

    Returns
    -------
    PlacedLesion
    """
    mask = np.asarray(mask, bool)
    sizes, own = (
        np.linalg.norm(np.asarray(a, float)[:3, :3], axis=0) for a in (affine, mask_affine)
    )
    # axes of the mask may be in another order: compare with the nearest axis
    step = np.asarray(affine, float)[:3, :3] / sizes
    along = np.abs(np.linalg.inv(np.asarray(mask_affine, float)[:3, :3]) @ (matrix[:3, :3] @ step))
    parts = sizes * along.max(axis=0)
    factors = tuple(int(n) for n in np.clip(np.rint(parts), 1, MOST_PARTS))
    fine_affine = np.array(affine, float)
    fine_affine[:3, :3] = fine_affine[:3, :3] / factors
    fine_affine[:3, 3] -= affine[:3, :3] @ ((1 - 1 / np.array(factors)) / 2)
    to_voxel = np.linalg.inv(mask_affine) @ matrix @ fine_affine
    fine_shape = tuple(n * f for n, f in zip(shape, factors, strict=True))
    fine = np.zeros(fine_shape, np.float32)
    if mask.any():
        box = _image_of_mask(mask, to_voxel, fine_shape)
        start = [axis.start for axis in box]
        offset = to_voxel[:3, :3] @ start + to_voxel[:3, 3]
        fine[box] = ndimage.affine_transform(
            mask.astype(np.float32), to_voxel[:3, :3], offset, fine[box].shape, order=1,
            mode='grid-constant',
        )  # fmt: skip
    blocks = fine.reshape([n for pair in zip(shape, factors, strict=True) for n in pair])
    total = volume_ml(mask, own)
    part_ml = abs(np.linalg.det(fine_affine[:3, :3])) / 1000
    # an affine transform changes the volume of what it maps
    scale = abs(np.linalg.det(np.asarray(matrix)[:3, :3]))
    covered = float(fine.sum()) * part_ml * scale / total if total else float('nan')
    return PlacedLesion(
        blocks.mean(axis=(1, 3, 5)), fine, factors, total, min(covered, 1.0) if total else covered
    )


def doubt_of_place(share, brain_mask):
    """Return why a placed lesion cannot be one of this brain; '' if it can.

    Parameters
    ----------
    share : (X, Y, Z) array
        Share of each voxel that is lesion, `PlacedLesion.share`; slices without brain are
        ignored.
    brain_mask : (X, Y, Z) array of bool

    Returns
    -------
    str

    Examples
    --------
    >>> lesion, brain_mask = np.zeros((2, 1, 1)), np.zeros((2, 1, 1), bool)
    >>> lesion[0], brain_mask[0] = 1, True
    >>> doubt_of_place(lesion, brain_mask), doubt_of_place(lesion, ~brain_mask)
    ('', '0% of the lesion is in the brain of the series, need at least 50%; is it of this participant?')
    """
    # slices without brain are not covered by perfusion
    share = share * brain_mask.any(axis=(0, 1))
    total = float(share.sum())
    inside = float(share[brain_mask].sum()) / total if total else 1.0
    if inside >= LEAST_IN_BRAIN:
        return ''
    return (
        f'{inside:.0%} of the lesion is in the brain of the series, need at least '
        f'{LEAST_IN_BRAIN:.0%}; is it of this participant?'
    )


def describe_alignment(space, left_out, alignment):
    """Describe how a mask was brought to the grid of the maps, for a sidecar.

    Parameters
    ----------
    space : {'ncct', 'image', 'series', ''}
    left_out : str
        Why it could not be aligned.
    alignment : dict
        As returned by `followup_alignment.align_image`, if an image was registered.

    Returns
    -------
    dict
    """
    words = {
        'ncct': 'inverse of the rigid transform from the reference to the NCCT',
        'image': 'registration of its MR image to the CT, rigid, then affine',
        'series': 'patient coordinates of its header',
    }
    facts = {'followup_aligned_by': words.get(space, 'n/a'), 'followup_left_out': left_out}
    if alignment:
        facts |= {f'followup_{name}': alignment[name] for name in ('overlap', 'similarity')}
    return facts


def to_mask(space, ncct, alignment):
    """Return the matrix from points of the maps to points of a mask in a space, mm RAS.

    Parameters
    ----------
    space : {'ncct', 'image', 'series'}
    ncct, alignment : dict
        ``matrix`` from points of the NCCT to points of the reference, and from those of the
        reference to those of the MR image.

    Returns
    -------
    (4, 4) array
    """
    if space == 'ncct':
        return np.linalg.inv(ncct['matrix'])
    return np.array(alignment['matrix']) if space == 'image' else np.eye(4)


def left_out_row(reason):
    """Return the row of a table whose lesion could not be aligned."""
    return dict.fromkeys(COLUMNS) | {'measure': 'left out', 'reason': reason}


def _image_of_mask(mask, to_voxel, shape):
    """Return the box of a grid that contains a mask, with a margin of two voxels."""
    low, high = (
        np.array([[axis.min(), axis.max()][end] for axis in np.nonzero(mask)]) for end in (0, 1)
    )
    corners = np.stack(np.meshgrid(*zip(low - 1, high + 1, strict=True), indexing='ij')).reshape(
        3, -1
    )
    back = np.linalg.inv(to_voxel)
    points = back[:3, :3] @ corners + back[:3, 3:]
    first = np.clip(np.floor(points.min(axis=1)) - 2, 0, shape).astype(int)
    last = np.clip(np.ceil(points.max(axis=1)) + 3, 0, shape).astype(int)
    return tuple(slice(a, max(a, b)) for a, b in zip(first.tolist(), last.tolist(), strict=True))


def threshold_range(first, last, step):
    """Return thresholds from first to last, both included.

    Examples
    --------
    >>> threshold_range(0.1, 0.2, 0.05)
    [0.1, 0.15, 0.2]
    """
    count = int(np.floor((last - first) / step + 1e-6)) + 1
    return [round(first + i * step, 6) for i in range(count)]


def surface_distances(first, second, voxel_size_mm):
    """Distances between the surfaces of two masks, in both directions.

    Parameters
    ----------
    first, second : (X, Y, Z) arrays of bool
    voxel_size_mm : (3,) sequence of float

    Returns
    -------
    mean, percentile_95 : float
        Of the distances of all surface voxels to the nearest of the other surface, mm; NaN if a mask
        is empty.

    Examples
    --------
    >>> one, other = np.zeros((2, 5, 5, 5), bool)
    >>> one[1, 2, 2], other[4, 2, 2] = True, True
    >>> surface_distances(one, other, (2.0, 1.0, 1.0))
    (6.0, 6.0)
    """
    surface = _Surface(second, voxel_size_mm)
    return surface.distances(first, _box(first))


class _Surface:
    """Surface of a mask, to which those of many others are compared."""

    def __init__(self, mask, voxel_size_mm):
        self.size = np.asarray(voxel_size_mm, float)
        indices = self._find(mask, _box(mask))
        self.points = indices * self.size
        if len(indices):
            outside = np.ones(mask.shape, bool)
            outside[tuple(indices.T)] = False
            self.distance = ndimage.distance_transform_edt(outside, self.size)

    @staticmethod
    def _find(mask, box):
        """Return the indices of the voxels of a mask that touch its outside; the box contains it."""
        cropped = mask[box]
        surface = cropped & ~ndimage.binary_erosion(cropped, border_value=0)
        return np.argwhere(surface) + [axis.start for axis in box]

    def distances(self, mask, box):
        """Mean and 95th percentile of the distances in both directions; NaN if a mask is empty."""
        indices = self._find(mask, box)
        if not (len(indices) and len(self.points)):
            return float('nan'), float('nan')
        # one direction is looked up; in the other, surfaces are near and the search ends early
        tree = cKDTree(indices * self.size, compact_nodes=False, balanced_tree=False)
        distances = np.concatenate([
            self.distance[tuple(indices.T)], tree.query(self.points)[0]
        ])  # fmt: skip
        return float(distances.mean()), float(np.percentile(distances, 95))


def compare_followup(maps, extra, lesion, settings):
    """Compare maps, lesions and probabilities with a follow-up lesion.

    Parameters
    ----------
    maps : RelativeMaps
    extra : FollowUpMaps
    lesion : PlacedLesion
    settings : MethodSettings
        Uses the branches ``followup``, ``lesion`` and ``segmentation``.

    Returns
    -------
    list of dict
        Rows with the keys of `COLUMNS`; values that do not apply are None. ``measure`` is

        * ``segmentation``: a mask as it is written;
        * ``threshold``: the lesion segmented in the same way at another threshold;
        * ``voxels``: voxels of tissue beyond a threshold, not cleaned, for ROC curves;
        * ``ranking``: area under the ROC curve of a map, in a region;
        * ``probability``, ``reliability``: of the probability of core, in the affected hemisphere.

    Notes
    -----
    Sensitivity and specificity are those of voxels of brain. Areas under the curve of both
    normalizations are of the same voxels: tissue with a local value, if there are any.
    """
    region = Region(maps, settings)
    table = _Table(maps, extra, lesion, region, settings)
    table.add_segmentations()
    table.add_thresholds()
    table.add_voxels()
    table.add_rankings()
    table.add_probabilities()
    return table.rows


class _Table:
    """The rows of a series, and the arrays they are computed from, in a box around the brain."""

    def __init__(self, maps, extra, lesion, region, settings):
        self.method, self.region, self.withheld = settings.followup, region, extra.withheld
        self.core_rcbf = settings.lesion.core_rcbf
        self.hypoperfusion_tmax = settings.lesion.hypoperfusion_tmax
        self.factors = lesion.factors if self.method.followup_grid == 'finer' else (1, 1, 1)
        truth = lesion.fine >= 0.5 if self.factors != (1, 1, 1) else lesion.mask
        self.box = _box(extra.brain_mask | (lesion.share > 0))
        fine_box = tuple(
            slice(axis.start * f, axis.stop * f)
            for axis, f in zip(self.box, self.factors, strict=True)
        )
        self.truth = truth[fine_box]
        self.size = tuple(s / f for s, f in zip(region.size, self.factors, strict=True))
        self.brain = self.expand(extra.brain_mask)
        self.inside = self.truth & self.brain
        self.n_brain, self.n_inside = map(np.count_nonzero, (self.brain, self.inside))
        self.surface = _Surface(self.inside, self.size)
        self.masks, self.maps = extra.masks, maps
        self.probability = extra.probability
        self.quantities = {('rcbf', which): values for which, values in maps.rcbf.items()}
        self.quantities[('tmax', None)] = maps.tmax
        self.quantities |= {('rcbv', which): values for which, values in extra.rcbv.items()}
        self.followup_ml = self.ml(self.n_inside)
        self.rows = []

    def ml(self, n_voxels):
        return float(n_voxels * np.prod(self.size) / 1000)

    def expand(self, array):
        """Crop an array of the maps to the box and repeat its voxels on the grid of the comparison."""
        array = array[self.box]
        for axis, factor in enumerate(self.factors):
            array = np.repeat(array, factor, axis) if factor > 1 else array
        return array

    def add(self, measure, quantity, which, threshold, region='brain', reason=None, **values):
        rounded = {
            name: None if value is None or np.isnan(value) else round(float(value), 4)
            for name, value in values.items()
        }
        self.rows.append(
            dict.fromkeys(COLUMNS)
            | {
                'measure': measure, 'quantity': quantity, 'normalization': which,
                'threshold': threshold, 'region': region, 'reason': reason,
            }
            | rounded
        )  # fmt: skip

    def add_mask(self, measure, quantity, which, threshold, mask):
        """Add the figures of a mask on the grid of the maps."""
        mask = self.expand(mask) & self.brain
        box = _box(mask)
        counts = _counts(mask[box], self.inside[box], self.n_inside, self.n_brain)
        mean, high = self.surface.distances(mask, box)
        volume = self.ml(counts['hit'] + counts['false'])
        self.add(
            measure, quantity, which, threshold, reason=self.why_missing(volume),
            volume_ml=volume, followup_ml=self.followup_ml, region_ml=self.ml(self.n_brain),
            difference_ml=volume - self.followup_ml,
            absolute_difference_ml=abs(volume - self.followup_ml), **_ratios(counts),
            surface_mm=mean, surface_95_mm=high,
        )  # fmt: skip

    def why_missing(self, volume):
        if not self.followup_ml:
            return 'no follow-up lesion in the brain of the series'
        return None if volume else 'nothing is segmented'

    def add_segmentations(self):
        for which in ('global', 'local'):
            name = f'core_{which}'
            if name in self.masks:
                self.add_mask('segmentation', 'core', which, self.core_rcbf, self.masks[name])
            else:
                self.add('segmentation', 'core', which, self.core_rcbf, reason=self.withheld)
        self.add_mask(
            'segmentation', 'hypoperfusion', None, self.hypoperfusion_tmax,
            self.masks['hypoperfusion'],
        )  # fmt: skip

    def add_thresholds(self):
        """Add the figures of lesions segmented at every threshold."""
        for (quantity, which), values in self.quantities.items():
            of_flow, within = quantity in LOW, self.region.within[which or 'global']
            for level in threshold_range(*getattr(self.method, f'followup_{quantity}')):
                candidate = (values < level if of_flow else values > level) & within
                mask = np.zeros(values.shape, bool)
                if candidate.any():
                    box = _box(candidate, MARGIN)  # small, for speed
                    region = self.region.crop(box)
                    mask[box] = region.segment(
                        candidate[box], region.within[which or 'global'], of_flow,
                        self.masks['hypoperfusion'][box],
                    ).mask  # fmt: skip
                self.add_mask('threshold', quantity, which, level, mask)

    def assessable(self, region='brain'):
        """Return the tissue in which maps are ranked: with a value by both normalizations."""
        tissue = self.maps.tissue_mask
        if 'local' in self.maps.rcbf:
            tissue = tissue & ~self.maps.unassessable
        if region == 'hemisphere':
            tissue = tissue & self.region.within['global']
        if region == 'hypoperfusion':
            tissue = tissue & self.masks['hypoperfusion']
        return self.expand(tissue)

    def add_voxels(self):
        tissue = self.assessable()
        truth = self.truth[tissue]
        total = np.count_nonzero(truth)
        for (quantity, which), values in self.quantities.items():
            if quantity not in ROC:
                continue
            levels = threshold_range(*ROC[quantity])
            score = self.expand(values)[tissue]
            # of the sorted values, so many are below (or above) each level
            counts = [
                np.searchsorted(np.sort(part), levels, 'left' if quantity in LOW else 'right')
                for part in (score[truth], score[~truth])
            ]
            for level, hit, false in zip(levels, *counts, strict=True):
                if quantity not in LOW:
                    hit, false = total - hit, score.size - total - false
                tally = {
                    'hit': hit, 'missed': total - hit, 'false': false,
                    'rejected': score.size - total - false,
                }  # fmt: skip
                ratios = _ratios(tally)
                self.add(
                    'voxels', quantity, which, level, volume_ml=self.ml(hit + false),
                    followup_ml=self.ml(total), region_ml=self.ml(score.size),
                    sensitivity=ratios['sensitivity'], specificity=ratios['specificity'],
                )  # fmt: skip

    def add_rankings(self):
        from ctpprep.agreement import area_under_curve

        scores = self.quantities | {('probability', w): p for w, p in self.probability.items()}
        for region in ('brain', 'hemisphere', 'hypoperfusion'):
            tissue = self.assessable(region)
            truth = self.truth[tissue]
            sizes = {
                'followup_ml': self.ml(np.count_nonzero(truth)),
                'region_ml': self.ml(truth.size),
            }
            for (quantity, which), values in scores.items():
                score = self.expand(values)[tissue]
                auc = area_under_curve(truth, -score if quantity in LOW else score)
                reason = 'the lesion fills nothing or all of the region' if np.isnan(auc) else None
                self.add('ranking', quantity, which, None, region, reason, auc=auc, **sizes)

    def add_probabilities(self):
        from ctpprep.agreement import brier_score, reliability

        tissue = self.assessable('hemisphere')
        truth = self.truth[tissue]
        sizes = {'followup_ml': self.ml(np.count_nonzero(truth)), 'region_ml': self.ml(truth.size)}
        for which, values in self.probability.items():
            score = np.clip(self.expand(values)[tissue], 0, 1)
            self.add(
                'probability', 'probability', which, None, 'hemisphere',
                brier=brier_score(truth, score), predicted=score.mean() if score.size else None,
                observed=truth.mean() if truth.size else None, **sizes,
            )  # fmt: skip
            for mean, share, n in reliability(truth, score):
                self.add(
                    'reliability', 'probability', which, None, 'hemisphere', predicted=mean,
                    observed=share, region_ml=self.ml(n),
                )  # fmt: skip


def _box(mask, margin=0):
    """Return the box around a mask; the whole grid if the mask is empty."""
    box = []
    for axis in range(mask.ndim):
        # in the part that the axes before have left
        others = tuple(other for other in range(mask.ndim) if other != axis)
        filled = np.flatnonzero(mask[tuple(box)].any(axis=others))
        if not filled.size:
            return tuple(slice(0, size) for size in mask.shape)
        box.append(slice(int(filled[0]), int(filled[-1]) + 1))
    return tuple(
        slice(max(0, axis.start - margin), min(n, axis.stop + margin))
        for axis, n in zip(box, mask.shape, strict=True)
    )


def _counts(mask, truth, true, n_voxels):
    """Count the voxels of a region by mask and truth, which are within it, `true` voxels of truth in all."""
    hit, marked = np.count_nonzero(mask & truth), np.count_nonzero(mask)
    return {
        'hit': hit, 'missed': true - hit, 'false': marked - hit,
        'rejected': n_voxels - marked - true + hit,
    }  # fmt: skip


def _ratios(counts):
    """Compute Dice coefficient, sensitivity, specificity and precision; NaN for 0 / 0.

    Examples
    --------
    >>> figures = _ratios({'hit': 2, 'missed': 2, 'false': 2, 'rejected': 8})
    >>> [float(figures[name]) for name in ('dice', 'sensitivity', 'specificity', 'precision')]
    [0.5, 0.5, 0.8, 0.5]
    """
    hit, missed, false, rejected = counts.values()

    def ratio(part, whole):
        return part / whole if whole else float('nan')

    return {
        'dice': ratio(2 * hit, 2 * hit + missed + false),
        'sensitivity': ratio(hit, hit + missed),
        'specificity': ratio(rejected, rejected + false),
        'precision': ratio(hit, hit + false),
    }
