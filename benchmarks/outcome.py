# SPDX-License-Identifier: Apache-2.0
"""Figures of one result of `ctpprep.compute_maps` beside the truth, for `population.py`.

What is right or wrong is judged later, from the stored figures, by `verdicts.py`.
"""

import math
from dataclasses import replace

import numpy as np
import scores

from ctpprep.perfusion.symmetry import SIDES

# contrast reaches the voxels of the AIF up to this much after the true AIF, s
MOST_SHIFT_S, SHIFT_STEP_S = 1.5, 0.05
# the true bolus has arrived at this fraction of its peak
ARRIVED = 0.005
# the rule of the core, fraction of normal CBF
CORE_RCBF = 0.3
SCORES = (
    scores.score_brain, scores.score_flow, scores.score_relative_flow, scores.score_tmax,
    scores.score_hypoperfusion, scores.score_core_global, scores.score_core_local,
    scores.score_side, scores.score_hemispheres, scores.score_motion,
)  # fmt: skip


def measure(result, truth, settings) -> tuple[dict, list[str]]:
    """Measure all figures of a result.

    Parameters
    ----------
    result : ctpprep.perfusion.Result
    truth : scores.Truth
    settings : PhantomSettings

    Returns
    -------
    figures : dict of str to float, str, bool or None
        None where a figure does not apply.
    failures : list of str
        Figures that could not be computed, and why.
    """
    comparison = scores.ArrayComparison(result, truth)
    if settings.lesion != 'none' and settings.lesion_side == 'both':
        comparison.truth = _within_side(comparison.truth, result)
    has_local = result.relative.rcbf_local is not None
    figures = {
        'affected_side': result.relative.measured['affected_side'],
        'local_given': has_local,
        'withheld': result.mirror.registration.measured['withheld'],
    }
    failures = []
    functions = [f for f in SCORES if has_local or f is not scores.score_core_local]
    for function in (*functions, score_homologues, score_aif, score_heights, score_rule):
        try:
            scored = function(comparison)
        except Exception as error:  # a broken result must not end the run
            failures.append(f'{function.__name__}: {type(error).__name__}: {error}')
            continue
        for name, value in scored.items():
            bad = isinstance(value, float) and not math.isfinite(value)
            if bad:
                failures.append(f'{name}: no figure')
            figures[name] = None if bad else value
    return figures, failures


def _within_side(truth, result):
    """Restrict lesions of both hemispheres to the hemisphere that was segmented."""
    side = truth.maps['side'] == SIDES[result.relative.measured['affected_side']]
    names = ('core', 'hypoperfusion')
    return replace(truth, maps=truth.maps | {name: truth.maps[name] & side for name in names})


def score_homologues(comparison):
    """Distance from the found to the true homologues, also if the local map is withheld."""
    best, maps = comparison.result.mirror.registration.best, comparison.truth.maps
    known = comparison.truth.tissue & np.isfinite(maps['homologue']).all(axis=-1)
    nothing = dict.fromkeys(('homologue_median', 'homologue_p90', 'homologue_lost'))
    if best is None or not known.any():
        return nothing
    distance = np.linalg.norm(best.homologues[known] - maps['homologue'][known], axis=-1)
    inside = np.isfinite(distance)
    lost = {'homologue_lost': float(1 - inside.mean())}
    if not inside.any():
        return nothing | lost
    median, p90 = np.percentile(distance[inside], (50, 90))
    return {'homologue_median': float(median), 'homologue_p90': float(p90)} | lost


def score_heights(comparison):
    """Compare absolute CBF and CBV of normal tissue with the truth, as ratios of medians."""
    truth, result = comparison.truth, comparison.result
    normal = result.masks.tissue & truth.tissue & (truth.maps['delay'] < scores.NORMAL_DELAY)
    pairs = {'cbf_ratio': (result.maps.cbf, 'cbf'), 'cbv_ratio': (result.maps.cbv, 'cbv')}
    return {
        name: float(np.median(found[normal]) / np.median(truth.maps[true][normal]))
        for name, (found, true) in pairs.items()
        if true in truth.maps and normal.any()
    }


def score_rule(comparison):
    """Volume that the rule of the core finds in the true maps, in the side that was segmented, mL.

    In microangiopathy and in severe penumbra, tissue outside the planted core also has less than 30 %
    of normal flow: there, the rule is wrong, not the measurement.
    """
    maps, result = comparison.truth.maps, comparison.result
    tissue = comparison.truth.tissue
    reference = np.median(maps['cbf'][tissue & (maps['delay'] <= scores.NORMAL_DELAY)])
    side = maps['side'] == SIDES[result.relative.measured['affected_side']]
    core = tissue & side & (maps['cbf'] < CORE_RCBF * reference)
    return {'core_rule_ml': float(core.sum() * comparison.truth.voxel_ml)}


def score_aif(comparison):
    """Compare the AIF with the true one, at the shift in time that fits best."""
    vessels, truth = comparison.result.vessels, comparison.truth
    usable = np.asarray(vessels.weights) > 0
    return aif_figures(vessels.times[usable], vessels.aif[usable], truth.times, truth.aif)


def aif_figures(times, aif, true_times, true_aif):
    """Compute the figures of an AIF.

    Parameters
    ----------
    times, aif : (T,) arrays
        s, HU.
    true_times, true_aif : (N,) arrays
        s, HU; undiluted, finely sampled.

    Returns
    -------
    dict
        ``aif_r``, ``aif_shift`` (s), ``aif_height`` (ratio of peaks), and, of the samples before the
        true arrival, as fractions of the peak: ``aif_before`` (mean of the absolute values),
        ``aif_before_max`` and ``aif_offset`` (mean).

    Examples
    --------
    >>> fine = np.arange(0, 40, 0.05)
    >>> bolus = 300 * np.exp(-(((fine - 15) / 4) ** 2)) * (fine > 8)
    >>> times = np.arange(0, 40, 2.0)
    >>> shape = aif_figures(times, np.interp(times - 1, fine, bolus) + 30, fine, bolus)
    >>> round(shape['aif_r'], 3), round(shape['aif_shift'], 2), round(shape['aif_offset'], 2)
    (1.0, 1.0, 0.09)
    """
    shifts = np.arange(0, MOST_SHIFT_S + SHIFT_STEP_S / 2, SHIFT_STEP_S)
    expected = [np.interp(times - shift, true_times, true_aif) for shift in shifts]
    fits = [scores.correlation(aif, curve) for curve in expected]
    best = int(np.nanargmax(fits))
    peak = float(np.max(aif))
    onset = true_times[np.argmax(true_aif > ARRIVED * true_aif.max())]
    before = aif[times < onset + shifts[best]] / peak
    return {
        'aif_r': fits[best],
        'aif_shift': float(shifts[best]),
        'aif_height': peak / float(expected[best].max()),
        'aif_before': float(np.abs(before).mean()) if before.size else None,
        'aif_before_max': float(np.abs(before).max()) if before.size else None,
        'aif_offset': float(before.mean()) if before.size else None,
    }
