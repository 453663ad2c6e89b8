# SPDX-License-Identifier: Apache-2.0
"""Compare the outputs of one series with the phantom's truth.

`score_series` returns every figure by name. A figure is a number; None where it does not apply (no
lesion, no microangiopathy); NaN where it could not be had although it should: a missing file, a
wrong grid, an empty map. NaN is a failure and is never left out of anything.

Both sides are compared in canonical order (first axis left to right) on the grid of the outputs;
where that is coarser than the phantom's, the truth is averaged to it.
"""

import csv
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nb
import numpy as np

from ctpprep.phantom import Phantom, frame_affine

NORMAL_DELAY = 4.0  # s; as the app's --normal-tmax
NOT_A_POSITION = -3000.0  # mm; homologues on disk below this are missing
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])

# array -> file of derivatives/truth, see ctpprep.phantom.write_bids
TRUTH_FILES = {
    'cbf': 'desc-truth_cbf',
    'cbv': 'desc-truth_cbv',
    'delay': 'desc-truth_delay',
    'tissue': 'label-tissue_desc-truth_probseg',
    'brain': 'label-brain_desc-truth_mask',
    'core': 'label-core_desc-truth_mask',
    'hypoperfusion': 'label-hypoperfusion_desc-truth_mask',
    'microangiopathy': 'label-microangiopathy_desc-truth_mask',
    'side': 'seg-hemisphere_desc-truth_dseg',
    'homologue': 'desc-truth_homologue',
}
MASKS = ('brain', 'core', 'hypoperfusion', 'microangiopathy')


@dataclass(frozen=True)
class Truth:
    """What a phantom is made of, in canonical order.

    Attributes
    ----------
    maps : dict of (X, Y, Z[, 3]) arrays
        The keys of `TRUTH_FILES`; see `ctpprep.phantom.Phantom.truth`.
    affine : (4, 4) array
        Voxel to patient RAS, mm.
    times, aif : (N,) arrays
        s, HU of enhancement.
    frame_affines : (T, 4, 4) array
        A point's place in frame 0 to its place in each frame, patient RAS, mm.
    lesion_side : {'left', 'right', None}
        None without a lesion, or with one on each side.
    """

    maps: dict
    affine: np.ndarray
    times: np.ndarray
    aif: np.ndarray
    frame_affines: np.ndarray
    lesion_side: str | None

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel, mL."""
        return abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000

    @property
    def tissue(self) -> np.ndarray:
        """Voxels that are mostly brain tissue."""
        return self.maps['tissue'] > 0.5


def _canonical(array, affine):
    """Turn an array to the order left to right, back to front, feet to head."""
    array = np.asarray(array)
    stored = array.astype(np.uint8) if array.dtype == bool else array
    image = nb.as_closest_canonical(nb.Nifti1Image(stored, affine))
    return np.asarray(image.dataobj), image.affine


def truth_of(phantom: Phantom) -> Truth:
    """Take the truth of a phantom in memory."""
    maps = {}
    for name in TRUTH_FILES:
        maps[name], affine = _canonical(phantom.truth[name], phantom.affine)
    maps |= {name: maps[name] > 0 for name in MASKS}
    return Truth(
        maps, affine, phantom.times_fine, phantom.aif, phantom.frame_affines,
        _lesion_side(phantom.settings.lesion, phantom.settings.lesion_side),
    )  # fmt: skip


def _lesion_side(lesion, side):
    return None if lesion == 'none' or side == 'both' else side


def read_truth(bids_dir, participant) -> Truth:
    """Read the truth that `ctpprep.phantom.write_bids` wrote.

    Parameters
    ----------
    bids_dir : path-like
        Dataset with ``derivatives/truth``.
    participant : str
        Label without ``sub-``.

    Returns
    -------
    Truth
    """
    stem = f'sub-{participant}'
    raw = Path(bids_dir) / stem / 'ct' / f'{stem}_ctp.json'
    folder = Path(bids_dir) / 'derivatives' / 'truth' / stem / 'ct'
    maps = {}
    for name, suffix in TRUTH_FILES.items():
        image = nb.as_closest_canonical(nb.load(folder / f'{stem}_{suffix}.nii.gz'))
        maps[name] = np.asarray(image.dataobj)
    maps |= {name: maps[name] > 0 for name in MASKS}
    homologue = maps['homologue'].astype(float)
    homologue[(homologue < NOT_A_POSITION).any(axis=-1)] = np.nan
    maps['homologue'] = homologue
    curves = read_tsv(folder / f'{stem}_desc-vascular_timeseries.tsv')
    motion = read_tsv(folder / f'{stem}_desc-motion_timeseries.tsv')
    names = ('trans_x', 'trans_y', 'trans_z', 'rot_x', 'rot_y', 'rot_z')
    parameters = np.stack([_numbers(motion, name) for name in names], axis=1)
    # The head turns about the centre of the field of view.
    centre = nb.affines.apply_affine(image.affine, (np.array(image.shape[:3]) - 1) / 2)
    settings = json.loads(raw.read_text())['PhantomSettings']
    return Truth(
        maps, image.affine, _numbers(curves, 'time'), _numbers(curves, 'aif'),
        np.stack([frame_affine(row, centre) for row in parameters]),
        _lesion_side(settings['lesion'], settings['lesion_side']),
    )  # fmt: skip


def read_tsv(path) -> dict[str, list[str]]:
    """Read a table as columns of strings."""
    with open(path, newline='') as file:
        rows = list(csv.DictReader(file, delimiter='\t'))
    return {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}


def _numbers(table, column):
    return np.array([math.nan if v in ('', 'n/a', None) else float(v) for v in table[column]])


def regrid(truth: Truth, shape, affine) -> Truth:
    """Average the truth to another grid.

    Flow and delay are averaged over tissue, as in the phantom itself; masks go by majority.

    Parameters
    ----------
    truth : Truth
    shape : (3,) tuple of int
    affine : (4, 4) array
        Canonical; the same or coarser voxels. Mean over the truth's voxels whose centres lie in
        the voxel; voxels outside the truth's field of view get 0.

    Returns
    -------
    Truth
        `truth` itself if the grid is its own.
    """
    own = truth.tissue.shape
    if tuple(shape) == own and np.allclose(affine, truth.affine, atol=1e-2):
        return truth
    to_grid = np.linalg.inv(affine) @ truth.affine
    index = np.moveaxis(np.indices(own), 0, -1).reshape(-1, 3)
    index = np.round(nb.affines.apply_affine(to_grid, index)).astype(int)
    inside = ((index >= 0) & (index < shape)).all(axis=1)
    cell = np.ravel_multi_index(index[inside].T, shape)
    size = int(np.prod(shape))

    def mean(values, weights):
        """Weighted mean of each cell; 0 where the weights are 0."""
        weights = np.asarray(weights, float).ravel()[inside]
        values = np.where(weights > 0, np.asarray(values, float).ravel()[inside], 0.0)
        sums = np.bincount(cell, values * weights, size)
        counts = np.bincount(cell, weights, size)
        return np.divide(sums, counts, out=np.zeros(size), where=counts > 0).reshape(shape)

    maps, tissue = truth.maps, truth.maps['tissue']
    every = np.ones(own)
    new = {name: mean(maps[name], tissue) for name in ('cbf', 'delay')}
    new['tissue'] = mean(tissue, every)
    new['brain'] = mean(maps['brain'], every) > 0.5
    for name in ('core', 'hypoperfusion', 'microangiopathy'):
        new[name] = (mean(maps[name], tissue) > 0.5) & (new['tissue'] > 0.5)
    new['side'] = np.where(
        new['brain'], np.where(mean(maps['side'], maps['side'] > 0) < 1.5, 1, 2), 0
    )
    known = np.isfinite(maps['homologue']).all(axis=-1)
    parts = [mean(maps['homologue'][..., axis], known) for axis in range(3)]
    homologue = np.stack(parts, axis=-1)
    homologue[mean(known, every) < 0.5] = np.nan
    new['homologue'] = homologue
    return replace(truth, maps=new, affine=np.asarray(affine, float))


# -- figures


def dice(first, second) -> float:
    """Overlap of two masks; NaN if both are empty.

    Examples
    --------
    >>> dice(np.array([1, 1, 0], bool), np.array([0, 1, 1], bool))
    0.5
    """
    total = np.count_nonzero(first) + np.count_nonzero(second)
    return float(2 * np.count_nonzero(first & second) / total) if total else math.nan


def correlation(first, second) -> float:
    """Pearson's r; NaN if either does not vary."""
    first, second = np.asarray(first, float), np.asarray(second, float)
    if first.size < 3 or not (np.ptp(first) > 0 and np.ptp(second) > 0):
        return math.nan
    return float(np.corrcoef(first, second)[0, 1])


class ScoringError(Exception):
    """An output is missing or is not what it should be."""


class Comparison:
    """Outputs of one series beside the truth on their grid.

    Parameters
    ----------
    folder : path-like
        ``OUT/sub-X/ct``.
    prefix : str
        ``sub-X``, with the other entities if there are any.
    truth : Truth
    """

    def __init__(self, folder, prefix, truth):
        self.folder, self.prefix = Path(folder), prefix
        self.truth = truth
        brain = self.folder / f'{prefix}_desc-brain_mask.nii.gz'
        if brain.exists():
            image = nb.as_closest_canonical(nb.load(brain))
            self.truth = regrid(truth, image.shape[:3], image.affine)

    def path(self, suffix):
        """Path of an output, which must be there."""
        path = self.folder / f'{self.prefix}_{suffix}'
        if not path.exists():
            raise ScoringError(f'{path.name} is missing')
        return path

    def image(self, suffix):
        """Read a 3D output in canonical order, on the common grid."""
        image = nb.as_closest_canonical(nb.load(self.path(f'{suffix}.nii.gz')))
        same = np.allclose(image.affine, self.truth.affine, atol=1e-2)
        if image.shape != self.truth.tissue.shape or not same:
            raise ScoringError(f'{suffix} has shape {image.shape} or an affine unlike the others')
        values = np.asarray(image.dataobj, dtype=np.float32)
        if not np.isfinite(values).all():
            raise ScoringError(f'{suffix} has values that are not finite')
        return values

    def mask(self, suffix):
        """Read a mask."""
        return self.image(suffix) > 0

    def table(self, suffix):
        """Read a table as columns of strings."""
        return read_tsv(self.path(f'{suffix}.tsv'))

    def valued(self):
        """Truth tissue whose CBF the app states: not 0."""
        valued = self.truth.tissue & (self.image('cbf') != 0)
        if not valued.any():
            raise ScoringError('no tissue has a CBF')
        return valued

    def frame_transforms(self):
        """Points of the reference to points of each frame, (T, 4, 4) matrices, patient RAS, mm."""
        return read_frame_transforms(self.path('from-orig_to-ctpref_mode-image_desc-hmc_xfm.txt'))


class ArrayComparison(Comparison):
    """A `ctpprep.perfusion.Result` beside the truth on its grid.

    Parameters
    ----------
    result : ctpprep.perfusion.Result
    truth : Truth
    """

    def __init__(self, result, truth):
        self.result = result
        self.truth = regrid(truth, result.masks.brain.shape, result.affine)

    def path(self, suffix):
        """Path of the mirror transform, the only output that is a file."""
        transform = self.result.mirror.transform
        if 'from-mirror' not in suffix or transform is None:
            raise ScoringError(f'{suffix} is missing')
        return transform

    def image(self, suffix):
        """Return an array by the name that its file would have."""
        result, masks = self.result, self.result.lesions.masks
        arrays = {
            'desc-brain_mask': result.masks.brain,
            'cbf': result.maps.cbf,
            'tmax': result.maps.tmax,
            'desc-global_rcbf': result.relative.rcbf_global,
            'label-hypoperfusion_mask': masks['hypoperfusion'],
            'label-core_desc-global_mask': masks['core_global'],
            'label-core_desc-local_mask': masks.get('core_local'),
            'seg-hemisphere_dseg': result.mirror.hemispheres,
        }
        if arrays[suffix] is None:
            raise ScoringError(f'{suffix} is missing')
        return np.asarray(arrays[suffix], dtype=np.float32)

    def table(self, suffix):
        """Return the columns that are scored of a table."""
        if suffix == 'seg-perfusion_morph':
            return {'affected_side': [self.result.relative.measured['affected_side']]}
        vessels = self.result.vessels
        columns = {'time': vessels.times, 'aif': vessels.aif}
        return {name: [str(value) for value in values] for name, values in columns.items()}

    def frame_transforms(self):
        """Points of the reference to points of each frame, (T, 4, 4) matrices, patient RAS, mm."""
        return self.result.corrected.transforms


def score_brain(found: Comparison):
    return {'brain_dice': dice(found.mask('desc-brain_mask'), found.truth.maps['brain'])}


def score_flow(found):
    truth, valued = found.truth, found.valued()
    return {
        'cbf_r': correlation(found.image('cbf')[valued], truth.maps['cbf'][valued]),
        'cbf_share': np.count_nonzero(valued) / np.count_nonzero(truth.tissue),
    }


def score_relative_flow(found):
    maps, valued = found.truth.maps, found.valued()
    reference = np.median(maps['cbf'][found.truth.tissue & (maps['delay'] <= NORMAL_DELAY)])
    error = found.image('desc-global_rcbf')[valued] - maps['cbf'][valued] / reference
    return {'rcbf_rmse': float(np.sqrt(np.mean(error**2)))}


def score_tmax(found):
    valued = found.valued()
    tmax, delay = found.image('tmax')[valued], found.truth.maps['delay'][valued]
    return {'tmax_r': correlation(tmax, delay), 'tmax_bias': float(np.mean(tmax - delay))}


def score_hypoperfusion(found):
    planted, mask = found.truth.maps['hypoperfusion'], found.mask('label-hypoperfusion_mask')
    return {
        'hypoperfusion_dice': dice(mask, planted) if planted.any() else None,
        'hypoperfusion_ml': np.count_nonzero(mask) * found.truth.voxel_ml,
        'hypoperfusion_true_ml': np.count_nonzero(planted) * found.truth.voxel_ml,
    }


def _score_core(found, which):
    truth = found.truth
    planted, mask = truth.maps['core'], found.mask(f'label-core_desc-{which}_mask')
    volume, true_volume = (np.count_nonzero(m) * truth.voxel_ml for m in (mask, planted))
    false = mask & truth.maps['microangiopathy'] & ~planted
    has_ma = truth.maps['microangiopathy'].any()
    return {
        f'core_{which}_dice': dice(mask, planted) if planted.any() else None,
        f'core_{which}_ml': volume,
        f'core_{which}_error': volume / true_volume - 1 if planted.any() else None,
        f'false_{which}_ml': np.count_nonzero(false) * truth.voxel_ml if has_ma else None,
        'core_true_ml': true_volume,
    }


def score_core_global(found):
    return _score_core(found, 'global')


def score_core_local(found):
    return _score_core(found, 'local')


def score_side(found):
    """1 if every row of the volume table names the side of the lesion, else 0."""
    named = set(found.table('seg-perfusion_morph')['affected_side'])
    if not named:
        raise ScoringError('seg-perfusion_morph.tsv has no rows')
    if found.truth.lesion_side is None:
        return {'side': None}
    return {'side': float(named == {found.truth.lesion_side})}


def score_hemispheres(found):
    """Share of labelled tissue on its true side."""
    labels, side = found.image('seg-hemisphere_dseg'), found.truth.maps['side']
    both = found.truth.tissue & (side > 0) & (labels > 0)
    return {
        'hemisphere_share': float(np.mean(labels[both] == side[both])) if both.any() else math.nan
    }


def find_homologues(transform, points, shape, affine):
    """Place of the counterpart of each point by the app's mirror transform.

    The transform brings the mirrored reference home, so it takes a point to a place on the mirrored
    image; that image is the reference flipped on its own grid. Points need no image to be resampled
    on, so nothing is lost at the slab's edge.

    Parameters
    ----------
    transform : path-like
        Composite ITK transform, mirror to reference.
    points : (N, 3) array
        Patient RAS, mm.
    shape, affine : (3,) tuple of int, (4, 4) array
        Grid of the reference, canonical.

    Returns
    -------
    (N, 3) array
        Patient RAS, mm.
    """
    import ants
    import pandas as pd

    lps = pd.DataFrame(points @ LPS[:3, :3], columns=list('xyz'), dtype=float)
    moved = ants.apply_transforms_to_points(3, lps, [str(transform)], whichtoinvert=[False])
    moved = moved[list('xyz')].to_numpy() @ LPS[:3, :3]
    index = nb.affines.apply_affine(np.linalg.inv(affine), moved)
    index[:, 0] = shape[0] - 1 - index[:, 0]
    return nb.affines.apply_affine(affine, index)


def score_homologues(found):
    """Distance of the found from the true homologue, over tissue whose homologue is in the slab."""
    truth = found.truth
    known = truth.tissue & np.isfinite(truth.maps['homologue']).all(axis=-1)
    points = nb.affines.apply_affine(truth.affine, np.argwhere(known))
    transform = found.path('from-mirror_to-ctpref_mode-image_xfm.h5')
    placed = find_homologues(transform, points, known.shape, truth.affine)
    distance = np.linalg.norm(placed - truth.maps['homologue'][known], axis=1)
    median, p90 = np.percentile(distance, (50, 90))
    return {'homologue_median': float(median), 'homologue_p90': float(p90)}


def score_aif(found):
    curves = found.table('desc-vascular_timeseries')
    time, aif = _numbers(curves, 'time'), _numbers(curves, 'aif')
    expected = np.interp(time, found.truth.times, found.truth.aif)
    return {'aif_r': correlation(aif, expected)}


def read_frame_transforms(path):
    """Read the affine transforms of an ITK text file.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    (T, 4, 4) array
        Patient RAS, mm.
    """
    matrices, parameters = [], None
    for line in Path(path).read_text().splitlines():
        key, _, numbers = line.partition(':')
        if key == 'Parameters':
            parameters = np.array(numbers.split(), float)
        elif key == 'FixedParameters' and parameters is not None:
            centre, matrix = np.array(numbers.split(), float), np.eye(4)
            matrix[:3, :3] = parameters[:9].reshape(3, 3)
            matrix[:3, 3] = parameters[9:] + centre - matrix[:3, :3] @ centre
            matrices.append(LPS @ matrix @ LPS)
    return np.array(matrices)


def score_motion(found):
    """Displacement that correction leaves, mean over the brain of each frame after the first."""
    truth = found.truth
    matrices = found.frame_transforms()
    if matrices.shape != truth.frame_affines.shape:
        raise ScoringError(f'{len(matrices)} transforms for {len(truth.frame_affines)} frames')
    points = nb.affines.apply_affine(truth.affine, np.argwhere(truth.maps['brain'])[::7])
    left = [
        np.linalg.norm(
            nb.affines.apply_affine(ours, points) - nb.affines.apply_affine(true, points), axis=1
        ).mean()
        for ours, true in zip(matrices[1:], truth.frame_affines[1:], strict=True)
    ]
    return {'motion_median': float(np.median(left)), 'motion_worst': float(np.max(left))}


# Each function with the figures it gives; all of them fail together.
SCORES: tuple[tuple[Callable, tuple[str, ...]], ...] = (
    (score_brain, ('brain_dice',)),
    (score_flow, ('cbf_r', 'cbf_share')),
    (score_relative_flow, ('rcbf_rmse',)),
    (score_tmax, ('tmax_r', 'tmax_bias')),
    (score_hypoperfusion, ('hypoperfusion_dice', 'hypoperfusion_ml', 'hypoperfusion_true_ml')),
    (
        score_core_global,
        (
            'core_global_dice',
            'core_global_ml',
            'core_global_error',
            'false_global_ml',
            'core_true_ml',
        ),
    ),
    (
        score_core_local,
        ('core_local_dice', 'core_local_ml', 'core_local_error', 'false_local_ml', 'core_true_ml'),
    ),
    (score_side, ('side',)),
    (score_hemispheres, ('hemisphere_share',)),
    (score_homologues, ('homologue_median', 'homologue_p90')),
    (score_aif, ('aif_r',)),
    (score_motion, ('motion_median', 'motion_worst')),
)


def score_series(folder, prefix, truth) -> tuple[dict, list[str]]:
    """Compute every figure of one series.

    Parameters
    ----------
    folder : path-like
        Outputs of the series, ``OUT/sub-X/ct``.
    prefix : str
        Begin of their names, ``sub-X``.
    truth : Truth

    Returns
    -------
    figures : dict of str to float or None
        None: does not apply. NaN: failed.
    failures : list of str
        What failed and why.
    """
    return score(Comparison(folder, prefix, truth))


def score(found: Comparison) -> tuple[dict, list[str]]:
    """Compute every figure of a comparison; figures and failures as of `score_series`."""
    figures, failures = {}, []
    for function, names in SCORES:
        try:
            scored = function(found)
        except Exception as error:  # whatever a broken output raises is a failure of that output
            failures.append(f'{", ".join(names)}: {type(error).__name__}: {error}')
            scored = {name: figures.get(name, math.nan) for name in names}
        else:
            bad = [n for n, v in scored.items() if v is not None and not math.isfinite(v)]
            failures += [f'{name}: no figure' for name in bad]
        for name in names:
            figures[name] = scored[name]
    return figures, failures
