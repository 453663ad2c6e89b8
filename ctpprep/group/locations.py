# SPDX-License-Identifier: Apache-2.0
"""Where lesions lie: frequency maps, their differences, and the regions of removed and kept core.

Masks in template space are read series by series and added up, so that memory does not grow with the
cohort: only thumbnails of 8 mm are kept, for the tests. Arrays in, arrays and rows out.

Participants are the units of frequencies, tests and intervals: the series of a participant are averaged
first, so that repeated scans are not further patients.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ctpprep.group.rows import LEVEL, MIN_SERIES, TOO_FEW, make_row
from ctpprep.perfusion.regions import split_cores

#: Maps of the group level, from the masks of a series.
LESIONS = ('core_global', 'core_local', 'removed', 'added', 'hypoperfusion')
#: Voxels of thumbnails contain so many voxels of the template along each axis: 8 mm at res-2.
BLOCK = 4
#: A voxel is tested if the slab contains it in this share of the participants, and a lesion reaches it in
#: at least so many: fewer cannot be significant and only lower the power of the others.
LEAST_COVERED, LEAST_LESIONS = 0.9, 3
N_PERMUTATIONS, N_BOOTSTRAPS, SEED = 1000, 2000, 20240277
#: White matter in which Rau et al. 2024 (doi:10.3174/ajnr.A8111) see the removed core.
DEEP = ('deep white matter', 'periventricular white matter')
DEEP_NAME = 'deep and periventricular white matter'
#: Core that local normalization keeps and removes, and others whose regions are tabulated.
SHARES = ('removed', 'kept', 'added', 'core_global', 'core_local', 'hypoperfusion')


@dataclass
class Sums:
    """How many participants of a group have a lesion in each voxel.

    Attributes
    ----------
    n, n_series : int
        Number of participants and of series.
    lesions : dict of str to (X, Y, Z) array
        Number of participants with each of `LESIONS`; one with several series counts by the fraction of
        them.
    covered : (X, Y, Z) array
        Number of participants whose slab contains the voxel.
    """

    n: int
    n_series: int
    lesions: dict[str, np.ndarray]
    covered: np.ndarray

    def frequency(self, lesion: str) -> np.ndarray:
        """Return the share of the participants whose slab contains a voxel that have a lesion there."""
        return np.divide(
            self.lesions[lesion], self.covered, out=np.zeros(self.covered.shape, np.float32),
            where=self.covered > 0,
        )  # fmt: skip


@dataclass
class Locations:
    """Sums of each group, and thumbnails of every participant.

    Attributes
    ----------
    sums : dict of str to Sums
        By group; ``all`` are all participants.
    thumbnails : dict of str to (N, V) array of uint8
        Share of each block with a lesion, in 1/255, of every participant; blocks of the covered brain.
    blocks : (X', Y', Z') array of bool
        The blocks of the thumbnails.
    groups : list of str
        Group of each participant.
    """

    sums: dict[str, Sums]
    thumbnails: dict[str, np.ndarray]
    blocks: np.ndarray
    groups: list[str] = field(default_factory=list)


def add_up(
    series: Iterable[tuple[str, str, Mapping[str, np.ndarray]]], groups: Sequence[str]
) -> Locations | None:
    """Add up the masks of a cohort, series by series.

    Parameters
    ----------
    series : iterable of (str, str, mapping of str to (X, Y, Z) array of bool)
        Participant, group, and the masks ``brain``, ``core_global``, ``core_local`` and
        ``hypoperfusion`` in template space, all of one grid. Series of a participant follow each other.
    groups : sequence of str

    Returns
    -------
    Locations or None
        None without series.
    """
    sums: dict[str, Sums] = {}
    thumbnails: dict[str, list[np.ndarray]] = {lesion: [] for lesion in LESIONS}
    order: list[str] = []
    for group, parts, n_series in _average(series):
        # lesions are small: most of the template is skipped
        boxes = {lesion: _box(parts[lesion]) for lesion in LESIONS}
        for name in dict.fromkeys(('all', *([group] if group in groups else []))):
            if name not in sums:
                zeros = np.zeros(parts['brain'].shape, np.float32)
                sums[name] = Sums(0, 0, {lesion: zeros.copy() for lesion in LESIONS}, zeros.copy())
            sums[name].n += 1
            sums[name].n_series += n_series
            sums[name].covered += parts['brain']
            for lesion, box in boxes.items():
                sums[name].lesions[lesion][box] += parts[lesion][box]
        for lesion, box in boxes.items():
            thumbnails[lesion].append(_shrink(parts[lesion], box))
        order.append(group)
    if not order:
        return None
    # thirds of several series do not add up to 1 exactly
    least = math.ceil(LEAST_COVERED * sums['all'].n - 1e-9) - 0.01
    covered = _shrink(sums['all'].covered >= least) > 127
    return Locations(
        sums, {name: np.stack(rows)[:, covered] for name, rows in thumbnails.items()},
        covered, order,
    )  # fmt: skip


def _average(
    series: Iterable[tuple[str, str, Mapping[str, np.ndarray]]],
) -> Iterator[tuple[str, dict[str, np.ndarray], int]]:
    """Average the masks of each participant; yield group, masks, and number of series."""
    for _, own in itertools.groupby(series, key=lambda item: item[0]):
        (_, group, masks), *others = own
        parts = _parts(masks)
        for _, _, other in others:
            parts = {name: parts[name] + np.float32(mask) for name, mask in _parts(other).items()}
        if n_others := len(others):
            parts = {name: total / np.float32(1 + n_others) for name, total in parts.items()}
        yield group, parts, 1 + n_others


def _parts(masks: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the masks of `LESIONS`, and the brain."""
    parts = {name: masks[name] for name in ('brain', 'core_global', 'core_local', 'hypoperfusion')}
    return parts | split_cores(masks['core_global'], masks['core_local'])


def _box(mask: np.ndarray) -> tuple[slice, ...]:
    """Return the box of whole blocks that contains a mask; empty for an empty mask."""
    box: list[slice] = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        filled = np.flatnonzero(mask[tuple(box)].any(axis=others))
        if not filled.size:
            return (slice(0, 0),) * 3
        box.append(slice(filled[0] // BLOCK * BLOCK, (filled[-1] // BLOCK + 1) * BLOCK))
    return tuple(box)


def _shrink(mask: np.ndarray, box: tuple[slice, ...] | None = None) -> np.ndarray:
    """Average a mask, or the average of several, in blocks, in 1/255; it is empty outside the box."""
    shape = [-(-size // BLOCK) for size in mask.shape]
    if box is not None:
        coarse = np.zeros(shape, np.uint8)
        coarse[tuple(slice(axis.start // BLOCK, axis.stop // BLOCK) for axis in box)] = _shrink(
            mask[box]
        )
        return coarse
    kind = np.uint16 if mask.dtype == bool else np.float32
    padded = np.zeros([size * BLOCK for size in shape], kind)
    padded[tuple(map(slice, mask.shape))] = mask
    blocks = padded.reshape(shape[0], BLOCK, shape[1], BLOCK, shape[2], BLOCK).sum(axis=(1, 3, 5))
    return np.rint(blocks * (255 / BLOCK**3)).astype(np.uint8)


def enlarge(values: np.ndarray, blocks: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Put the values of blocks back on the grid of the template; 0 outside the blocks.

    Parameters
    ----------
    values : (V,) array
    blocks : (X', Y', Z') array of bool
    shape : sequence of int
        Of the template.

    Returns
    -------
    (X, Y, Z) array of float32
    """
    coarse = np.zeros(blocks.shape, np.float32)
    coarse[blocks] = values
    for axis in range(3):
        coarse = coarse.repeat(BLOCK, axis=axis)
    return coarse[tuple(map(slice, shape))]


@dataclass(frozen=True)
class Test:
    """A comparison of maps, voxel by voxel, with control of the family-wise error.

    Attributes
    ----------
    name : str
        ``local - global``, or two groups.
    lesion : str
    group : str
        The participants that are compared; '' for two groups.
    difference : (V,) array
        Difference of the frequencies.
    p : (V,) array
        Two-sided, corrected for all voxels by the distribution of the largest t under permutation; 1
        where a voxel was not tested.
    n : int
        Number of participants.
    n_tested : int
        Number of blocks that were tested.
    """

    name: str
    lesion: str
    group: str
    difference: np.ndarray
    p: np.ndarray
    n: int
    n_tested: int


def compare_locations(
    locations: Locations, groups: Sequence[str], n_permutations: int = N_PERMUTATIONS
) -> Iterator[Test]:
    """Test the difference of two normalizations and of groups of participants, on thumbnails.

    Parameters
    ----------
    locations : Locations
    groups : sequence of str
        In the order of comparison.
    n_permutations : int

    Yields
    ------
    Test
        Local - global core of all participants and of each group, by flipping the sign of the
        differences; first - second group of every map and pair of groups, by exchanging the groups.
        Groups with fewer than three participants are not compared.
    """
    thumbnails, order = locations.thumbnails, np.array(locations.groups)
    difference = thumbnails['core_local'].astype(np.float32) - thumbnails['core_global']
    for group in dict.fromkeys(('all', *groups)):
        rows = np.full(order.shape, True) if group == 'all' else order == group
        if rows.sum() >= MIN_SERIES:
            yield _test('local - global', 'core', group, difference[rows], None, n_permutations)
    for first, second in itertools.combinations(groups, 2):
        rows = (order == first) | (order == second)
        if min((order == first).sum(), (order == second).sum()) < MIN_SERIES:
            continue
        for lesion in LESIONS:
            values = thumbnails[lesion][rows].astype(np.float32)
            is_first = order[rows] == first
            yield _test(f'{first} - {second}', lesion, '', values, is_first, n_permutations)


def _test(
    name: str,
    lesion: str,
    group: str,
    values: np.ndarray,
    is_first: np.ndarray | None,
    n_permutations: int,
) -> Test:
    """Test the mean of (N, V) values, or its difference between two groups."""
    from nilearn.mass_univariate import permuted_ols

    values = values / np.float32(255)
    n, n_voxels = values.shape
    tested = np.count_nonzero(values, axis=0) >= LEAST_LESIONS
    mean = (
        values.mean(axis=0)
        if is_first is None
        else values[is_first].mean(axis=0) - values[~is_first].mean(axis=0)
    )
    p = np.ones(n_voxels)
    if tested.any():
        # constant values would divide by 0
        regressor = np.ones((n, 1)) if is_first is None else is_first[:, None].astype(float)
        # a block that separates the groups without error has an infinite t
        with np.errstate(divide='ignore', invalid='ignore'):
            result = permuted_ols(
                regressor, np.asfortranarray(values[:, tested]), n_perm=n_permutations,
                model_intercept=is_first is not None, two_sided_test=True, random_state=SEED,
                n_jobs=1, output_type='dict',
            )  # fmt: skip
        p[tested] = 10.0 ** -result['logp_max_t'][0]
    return Test(name, lesion, group, mean.astype(np.float32), p, n, int(tested.sum()))


def summarize_tests(tests: Iterable[Test]) -> list[dict[str, Any]]:
    """Make a row of the statistics for each test: its least p value and largest difference."""
    rows = []
    for test in tests:
        if not test.p.size:
            row = make_row(
                f'{test.lesion}, difference where p is least', math.nan, n=test.n,
                reason='no block is within the slabs of enough participants',
            )  # fmt: skip
            rows.append({'group': test.group or test.name, 'comparison': test.name} | row)
            continue
        where = int(np.argmin(test.p))
        row = make_row(
            f'{test.lesion}, difference where p is least', float(test.difference[where]),
            p=float(test.p.min()), n=test.n,
            method=f'{N_PERMUTATIONS} permutations of {test.n_tested} blocks of {BLOCK}^3 template voxels; '
            'participants are exchanged, their series averaged; two-sided, family-wise error '
            'controlled by the largest t',
            reason='' if test.n_tested else 'no block has a lesion in enough participants',
        )  # fmt: skip
        rows.append({'group': test.group or test.name, 'comparison': test.name} | row)
    return rows


def region_shares(
    volumes: Mapping[str, np.ndarray], regions: Sequence[str], participants: Sequence[str]
) -> list[dict[str, Any]]:
    """Compute what share of the volume of each lesion lies in each region, with an interval.

    Parameters
    ----------
    volumes : mapping of str to (N, R) array
        Volume of each of `SHARES` in every series and region, mL; NaN if it is not known.
    regions : sequence of str
    participants : sequence of str
        Of every series: series of a participant are averaged, and the bootstrap draws participants.

    Returns
    -------
    list of dict
        Rows with the keys of `make_row` and ``comparison``. Shares are of the summed volume, after the
        series of a participant are averaged: a large lesion counts more than a small one. With the
        regions drawn from the template, the last rows compare removed and kept core in deep and
        periventricular white matter.
    """
    complete = np.isfinite(np.concatenate([volumes[name] for name in SHARES], axis=1)).all(axis=1)
    _, owner = np.unique(np.asarray(participants)[complete], return_inverse=True)
    n = int(owner.max()) + 1 if owner.size else 0
    if n < MIN_SERIES:
        return [{'comparison': 'regions'} | make_row('share', n=n, reason=TOO_FEW)]
    means = {name: _average_by(owner, volumes[name][complete], n) for name in SHARES}
    draws = np.random.default_rng(SEED).multinomial(n, np.full(n, 1 / n), size=N_BOOTSTRAPS)
    columns = {region: [index] for index, region in enumerate(regions)}
    if set(DEEP) <= set(regions):
        columns[DEEP_NAME] = [regions.index(region) for region in DEEP]
    rows, shares = [], {}
    for name in SHARES:
        for region, chosen in columns.items():
            shares[name, region] = _share(means[name], chosen, draws)
            rows.append({'comparison': name} | _share_row(region, *shares[name, region], n))
    if DEEP_NAME in columns:
        removed, kept = (shares[name, DEEP_NAME] for name in ('removed', 'kept'))
        difference = removed[0] - kept[0], removed[1] - kept[1]
        row = _share_row(DEEP_NAME, *difference, n)
        rows.append({'comparison': 'removed - kept'} | row)
    return rows


def _average_by(owner: np.ndarray, values: np.ndarray, n: int) -> np.ndarray:
    """Average the rows of each participant."""
    total = np.zeros((n, values.shape[1]))
    np.add.at(total, owner, values)
    return total / np.bincount(owner, minlength=n)[:, None]


def _share(
    means: np.ndarray, chosen: Sequence[int], draws: np.ndarray
) -> tuple[float, np.ndarray]:
    """Return the share of the summed volume in some regions, and its bootstrap distribution."""
    part, whole = means[:, chosen].sum(axis=1), means.sum(axis=1)
    with np.errstate(divide='ignore', invalid='ignore'):
        value = part.sum() / whole.sum() if whole.sum() else math.nan
        return float(value), (draws @ part) / (draws @ whole)


def _share_row(region: str, value: float, drawn: np.ndarray, n: int) -> dict[str, Any]:
    drawn = drawn[np.isfinite(drawn)]
    outside = 100 * (1 - LEVEL) / 2
    ci = np.percentile(drawn, [outside, 100 - outside]) if drawn.size else (math.nan, math.nan)
    return make_row(
        f'share in {region}', value, (float(ci[0]), float(ci[1])), n=n,
        method='of the summed volume within all regions, series of a participant averaged; bootstrap of '
        f'participants, {N_BOOTSTRAPS} draws',
        reason='' if math.isfinite(value) else 'no participant has such core',
    )  # fmt: skip
