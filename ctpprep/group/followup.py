# SPDX-License-Identifier: Apache-2.0
"""Statistics of the agreement with follow-up lesions. Arrays in, rows out.

Curves over the threshold with bootstrap bands, the best threshold of each normalization, and the
comparison of both on participants that did not choose it (cross-validation). Participants are the
units of every interval and test; no figure treats voxels as independent. Decision 0043 explains the
choices.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.integrate import trapezoid

from ctpprep.group.comparisons import bland_altman, compare_paired
from ctpprep.group.followup_tables import MAPS, REGIONS, Curves, FollowUps, make_sets
from ctpprep.group.resampling import (
    N_BOOTSTRAP,
    N_FOLDS,
    N_REPEATS,
    best_index,
    bootstrap_weights,
    cross_validate,
    interval,
    weighted_means,
)
from ctpprep.group.rows import MIN_SERIES, make_row

#: Columns of the statistics, with their descriptions.
COLUMNS = {
    'set': 'participants that count: all, a group, those who reperfused or not, or both',
    'quantity': 'map that is thresholded or ranked, or what is compared',
    'normalization': 'global, local, local - global, or n/a',
    'figure': 'figure of each participant',
    'statistic': 'what is computed of it over participants',
    'threshold': 'rCBF as a fraction (below) or Tmax in s (above)',
    'value': 'the statistic',
    'ci_low': 'lower limit of its 95 % interval',
    'ci_high': 'upper limit',
    'p': 'two-sided p value, not adjusted for the number of tests',
    'n': 'number of participants',
    'method': 'how it was computed',
    'reason': 'why it is missing, or what speaks against it',
}
CURVE_COLUMNS = {
    **{
        name: COLUMNS[name] for name in ('set', 'quantity', 'normalization', 'figure', 'threshold')
    },
    'value': 'mean over participants',
    'ci_low': 'lower limit of its 95 % interval, by bootstrap of participants',
    'ci_high': COLUMNS['ci_high'],
    'n': COLUMNS['n'],
}
ROC_COLUMNS = {
    **{name: COLUMNS[name] for name in ('set', 'quantity', 'normalization', 'threshold')},
    'sensitivity': 'fraction of the follow-up lesions, in mL, beyond the threshold',
    'false_positive_rate': 'fraction of other tissue of brain, in mL, beyond the threshold',
    'n': COLUMNS['n'],
}
#: Criteria of the best threshold: figure, and whether more is better.
CRITERIA = {'dice': True, 'absolute_difference_ml': False}
#: Figures whose curves are drawn.
DRAWN = ('dice', 'absolute_difference_ml', 'difference_ml', 'sensitivity', 'specificity')
#: Threshold of the reference paper, and that of hypoperfusion, s.
FIXED_RCBF, FIXED_TMAX = 0.3, 6.0
MEAN = f'mean; interval by bootstrap of participants ({N_BOOTSTRAP} draws, percentiles)'
BEST = f'threshold of the best mean; interval by bootstrap of participants ({N_BOOTSTRAP} draws)'
HELD_OUT = (
    'at the threshold that the other participants chose (cross-validation of '
    f'{N_FOLDS} folds, {N_REPEATS} times); interval by bootstrap of participants'
)
TOO_FEW = f'fewer than {MIN_SERIES} participants'
#: With fewer participants, intervals by bootstrap contain the truth less often than in 95 %.
FEW = 10
NARROW = f'fewer than {FEW} participants: the interval is too narrow'
ROC_METHOD = (
    'voxels of all participants pooled by their volume; interval by bootstrap of participants'
)
#: Cereda et al. 2016, doi:10.1177/0271678X15610586: 103 patients, DWI within hours.
ANCHOR = {
    'participants': 103, 'threshold': 0.38, 'difference_ml': (0.3, 19.8),
    'absolute_difference_ml': (14.3, 13.7), 'sensitivity': 0.67, 'specificity': 0.87,
}  # fmt: skip


@dataclass(frozen=True)
class Analysis:
    """Tables of the follow-up statistics.

    Attributes
    ----------
    statistics, curves, roc : DataFrame
        With the columns `COLUMNS`, `CURVE_COLUMNS` and `ROC_COLUMNS`.
    """

    statistics: pd.DataFrame
    curves: pd.DataFrame
    roc: pd.DataFrame


def analyze_followups(
    followups: FollowUps, groups: Sequence[str], oedema_factor: float = 1.0
) -> Analysis:
    """Compute all statistics of the agreement with follow-up lesions.

    Parameters
    ----------
    followups : FollowUps
    groups : sequence of str
        In the order of comparison.
    oedema_factor : float
        Volumes of follow-up lesions are divided by it; overlap is not corrected.

    Returns
    -------
    Analysis
    """
    statistics, curves, roc = [], [], []
    for name, chosen in make_sets(followups.table, groups).items():
        part = _Part(followups, chosen, oedema_factor)
        statistics += [{'set': name} | row for row in part.statistics()]
        curves += [{'set': name} | row for row in part.curve_rows()]
        roc += [{'set': name} | row for row in part.roc_rows()]
    return Analysis(
        pd.DataFrame(statistics, columns=list(COLUMNS)),
        pd.DataFrame(curves, columns=list(CURVE_COLUMNS)),
        pd.DataFrame(roc, columns=list(ROC_COLUMNS)),
    )


class _Part:
    """The participants of one set."""

    def __init__(self, followups: FollowUps, chosen: np.ndarray, oedema_factor: float) -> None:
        self.n = int(chosen.sum())
        self.weights = bootstrap_weights(self.n)
        self.followup_ml = followups.table['followup_ml'].to_numpy(float)[chosen] / oedema_factor
        self.curves = {
            key: self._correct(curves, chosen) for key, curves in followups.curves.items()
        }
        self.voxels = {
            key: Curves(c.thresholds, {name: value[chosen] for name, value in c.values.items()})
            for key, c in followups.voxels.items()
        }
        self.areas = {key: values[chosen] for key, values in followups.areas.items()}
        self.brier = {key: values[chosen] for key, values in followups.brier.items()}
        self.note = (
            '' if oedema_factor == 1
            else f'volumes of follow-up lesions were divided by {oedema_factor:g} for oedema'
        )  # fmt: skip

    def _correct(self, curves: Curves, chosen: np.ndarray) -> Curves:
        """Select participants, and compute differences from the corrected volume."""
        values = {name: value[chosen] for name, value in curves.values.items()}
        difference = values['volume_ml'] - self.followup_ml[:, None]
        values |= {'difference_ml': difference, 'absolute_difference_ml': np.abs(difference)}
        return Curves(curves.thresholds, values)

    def row(self, quantity: str, which: str, figure: str, statistic: str, threshold: float | None = None,
            **cells: Any) -> dict[str, Any]:  # fmt: skip
        row = make_row(statistic, **{'n': self.n} | cells)
        if figure.endswith('_ml') and self.note:
            row['reason'] = '; '.join(filter(None, (row['reason'], self.note)))
        return row | {
            'quantity': quantity, 'normalization': which, 'figure': figure, 'threshold': threshold,
        }  # fmt: skip

    def mean_row(self, values: np.ndarray, *names: Any, method: str = MEAN) -> dict[str, Any]:
        known = values[np.isfinite(values)]
        if len(known) < MIN_SERIES:
            return self.row(*names, n=len(known), method=method, reason=TOO_FEW)
        draws = weighted_means(values[:, None], self.weights)[:, 0]
        reason = NARROW if len(known) < FEW else ''
        cells: dict[str, Any] = {
            'ci': interval(draws),
            'n': len(known),
            'method': method,
            'reason': reason,
        }
        return self.row(*names, value=known.mean(), **cells)

    def statistics(self) -> Iterator[dict[str, Any]]:
        yield self.row(
            'follow-up', 'n/a', 'followup_ml', 'participants', value=self.n, method='count'
        )
        yield self.mean_row(self.followup_ml, 'follow-up', 'n/a', 'followup_ml', 'mean')
        for quantity, which in MAPS:
            yield from self._fixed(quantity, which)
            yield from self._best(quantity, which)
        yield from self._paired()
        yield from self._rankings()
        yield from self._pooled()
        yield from self._brier()

    def _fixed(self, quantity: str, which: str) -> Iterator[dict[str, Any]]:
        """Describe agreement at the fixed threshold, with limits of agreement of the volume."""
        curves = self.curves[quantity, which]
        level = FIXED_RCBF if quantity == 'rcbf' else FIXED_TMAX
        place = np.flatnonzero(np.isclose(curves.thresholds, level))
        if not place.size:
            yield self.row(
                quantity, which, 'dice', 'mean', level, reason='threshold not tabulated'
            )
            return
        for figure in (*DRAWN, 'precision'):
            values = curves.values[figure][:, place[0]]
            yield self.mean_row(values, quantity, which, figure, 'mean', level)
            known = values[np.isfinite(values)]
            if figure.endswith('_ml') and len(known) >= MIN_SERIES:
                yield self.row(
                    quantity, which, figure, 'sd', level, value=known.std(ddof=1), n=len(known)
                )
        volume = curves.values['volume_ml'][:, place[0]]
        known = np.isfinite(volume)
        for row in bland_altman(self.followup_ml[known], volume[known]):
            names = {'quantity': quantity, 'normalization': which, 'figure': 'volume - follow-up',
                     'threshold': level}  # fmt: skip
            row['reason'] = '; '.join(filter(None, (row['reason'], self.note)))
            yield row | names | {'statistic': f'Bland-Altman {row["statistic"]}'}

    def _best(self, quantity: str, which: str) -> Iterator[dict[str, Any]]:
        """Find the best threshold by each criterion, and judge it on held-out participants."""
        curves = self.curves[quantity, which]
        for criterion, more in CRITERIA.items():
            names = quantity, which, criterion
            values = np.array(curves.values[criterion], dtype=float)
            # else each threshold is judged on other participants
            values[~np.isfinite(values).all(axis=1)] = np.nan
            if not curves.thresholds.size or np.isfinite(values).all(axis=1).sum() < MIN_SERIES:
                yield self.row(*names, 'best threshold', method=BEST, reason=TOO_FEW)
                continue
            means = weighted_means(values, np.ones((1, self.n)))[0]
            best = int(best_index(means, more))
            drawn = curves.thresholds[best_index(weighted_means(values, self.weights), more)]
            edge = best in (0, len(curves.thresholds) - 1)
            reason = 'at an end of the thresholds: the best may lie beyond' if edge else ''
            level = float(curves.thresholds[best])
            yield self.row(
                *names, 'best threshold', level, value=level, ci=interval(drawn), method=BEST,
                reason=reason,
            )  # fmt: skip
            yield self.row(
                *names, 'mean at best threshold, optimistic', level, value=means[best],
                method='on the participants that chose it',
            )  # fmt: skip
            (held_out,) = cross_validate(values, more, [values])
            yield self.mean_row(
                held_out, *names, 'held-out mean at best threshold', method=HELD_OUT
            )

    def _paired(self) -> Iterator[dict[str, Any]]:
        """Compare local with global at the fixed threshold and at the best of each."""
        first, second = self.curves['rcbf', 'global'], self.curves['rcbf', 'local']
        place = [np.flatnonzero(np.isclose(c.thresholds, FIXED_RCBF)) for c in (first, second)]
        figures = ('dice', 'absolute_difference_ml', 'sensitivity', 'specificity')
        if all(p.size for p in place):
            for figure in figures:
                x, y = (
                    c.values[figure][:, p[0]] for c, p in zip((first, second), place, strict=True)
                )
                yield from self._compare(x, y, figure, f'at {FIXED_RCBF:.0%}', FIXED_RCBF, MEAN)
        for criterion, more in CRITERIA.items():
            both = [c.values[criterion] for c in (first, second)]
            complete = np.isfinite(np.concatenate(both, axis=1)).all(axis=1)
            if complete.sum() < MIN_SERIES:
                yield self.row(
                    'rcbf', 'local - global', criterion, 'difference at best thresholds',
                    n=int(complete.sum()), reason=TOO_FEW,
                )  # fmt: skip
                continue
            x, y = np.full((2, self.n), np.nan)
            for target, values in zip((x, y), both, strict=True):
                target[complete] = cross_validate(values[complete], more, [values[complete]])[0]
            yield from self._compare(x, y, criterion, 'at best thresholds', None, HELD_OUT)

    def _compare(
        self,
        x: np.ndarray,
        y: np.ndarray,
        figure: str,
        where: str,
        level: float | None,
        method: str,
    ) -> Iterator[dict[str, Any]]:
        """Describe the paired difference y - x of local and global."""
        names = 'rcbf', 'local - global', figure
        yield self.mean_row(y - x, *names, f'difference {where}', level, method=method)
        known = np.isfinite(y - x)
        for row in compare_paired(x[known], y[known]):
            row = row | dict(zip(('quantity', 'normalization', 'figure'), names, strict=True))
            row['reason'] = row['reason'].replace(
                'local and global core', 'local and global figure'
            )
            yield row | {'statistic': f'{row["statistic"]} {where}', 'threshold': level}

    def _rankings(self) -> Iterator[dict[str, Any]]:
        """Describe the areas under the ROC curves of single participants."""
        for region in REGIONS:
            for quantity, which in MAPS:
                values = self.areas[quantity, which, region]
                yield self.mean_row(values, quantity, which, f'auc in {region}', 'mean')
            difference = self.areas['rcbf', 'local', region] - self.areas['rcbf', 'global', region]
            names = 'rcbf', 'local - global', f'auc in {region}'
            yield self.mean_row(difference, *names, 'difference')
            x, y = (self.areas['rcbf', which, region] for which in ('global', 'local'))
            known = np.isfinite(difference)
            for row in compare_paired(x[known], y[known])[:1]:
                yield row | dict(
                    zip(('quantity', 'normalization', 'figure'), names, strict=True),
                    threshold=None,
                )

    def _pooled(self) -> Iterator[dict[str, Any]]:
        """Describe the area under the pooled ROC curve."""
        for quantity, which in MAPS:
            names = quantity, which, 'auc pooled in brain', 'area'
            pooled = self._pool(quantity, which, np.ones((1, self.n)))
            n = self._n_pooled(quantity, which)
            if pooled is None or n < MIN_SERIES:
                reason = 'no voxels of lesion' if pooled is None else TOO_FEW
                yield self.row(*names, n=n, method=ROC_METHOD, reason=reason)
                continue
            drawn = self._pool(quantity, which, self.weights)
            ci = None if drawn is None else interval(_areas(*drawn))
            yield self.row(*names, value=_areas(*pooled)[0], ci=ci, n=n, method=ROC_METHOD)

    def _n_pooled(self, quantity: str, which: str) -> int:
        known = np.isfinite(self.voxels[quantity, which].values['region_ml'])
        return int(known.any(axis=-1).sum())

    def _brier(self) -> Iterator[dict[str, Any]]:
        for which, values in self.brier.items():
            yield self.mean_row(values, 'probability', which, 'brier', 'mean')
        difference = self.brier['local'] - self.brier['global']
        yield self.mean_row(difference, 'probability', 'local - global', 'brier', 'difference')

    def _pool(
        self, quantity: str, which: str, weights: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Pool sensitivity and false-positive rate, (B, K), over participants."""
        values = self.voxels[quantity, which].values
        lesion = np.nan_to_num(values['followup_ml'])
        other = np.nan_to_num(values['region_ml']) - lesion
        if not lesion.size or not lesion.any():
            return None
        # without draws of participants that have no lesion
        weights = weights[(weights @ lesion > 0).all(axis=1)]
        if not len(weights):
            return None
        hit = weights @ (np.nan_to_num(values['sensitivity']) * lesion)
        false = weights @ ((1 - np.nan_to_num(values['specificity'], nan=1.0)) * other)
        return hit / (weights @ lesion), false / (weights @ other)

    def curve_rows(self) -> Iterator[dict[str, Any]]:
        for (quantity, which), curves in self.curves.items():
            for figure in DRAWN if curves.thresholds.size else ():
                values = curves.values[figure]
                means = weighted_means(values, np.ones((1, self.n)))[0]
                drawn = weighted_means(values, self.weights)
                for k, level in enumerate(curves.thresholds):
                    low, high = (
                        interval(drawn[:, k]) if self.n >= MIN_SERIES else (math.nan, math.nan)
                    )
                    yield {
                        'quantity': quantity, 'normalization': which, 'figure': figure,
                        'threshold': level, 'value': means[k], 'ci_low': low, 'ci_high': high,
                        'n': int(np.isfinite(values[:, k]).sum()),
                    }  # fmt: skip

    def roc_rows(self) -> Iterator[dict[str, Any]]:
        for (quantity, which), curves in self.voxels.items():
            points = self._pool(quantity, which, np.ones((1, self.n)))
            if points is None:
                continue
            for level, hit, false in zip(
                curves.thresholds, points[0][0], points[1][0], strict=True
            ):
                yield {
                    'quantity': quantity, 'normalization': which, 'threshold': level,
                    'sensitivity': hit, 'false_positive_rate': false, 'n': self.n,
                }  # fmt: skip


def _areas(hit: np.ndarray, false: np.ndarray) -> np.ndarray:
    """Area under each of (B, K) ROC curves, with their ends at (0, 0) and (1, 1).

    Examples
    --------
    >>> _areas(np.array([[0.5, 1.0]]), np.array([[0.0, 0.5]])).tolist()
    [0.875]
    """
    if hit.shape[1] > 1 and false[0, 0] > false[0, -1]:  # Tmax: a low threshold marks most
        hit, false = hit[:, ::-1], false[:, ::-1]
    ends = [(0, 0), (1, 1)]
    y, x = (np.pad(curve, ends, constant_values=((0, 0), (0, 1))) for curve in (hit, false))
    return np.asarray(trapezoid(y, x, axis=1))
