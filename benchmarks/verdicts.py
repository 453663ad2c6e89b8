# SPDX-License-Identifier: Apache-2.0
"""Judge the records of `population.py`: what is wrong, what is silent, and what was aimed at.

A record is a dict with ``seed``, ``settings`` (of the phantom), ``refused`` (sentence or None),
``figures`` and ``checks``; see `population.make_record`. All limits are in the tables at the top.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# a side is wrong only if one side has at least this much hypoperfusion, mL
LEAST_SIDED_ML = 10.0
# Dice of smaller cores, and their errors in percent, mean little, mL
LEAST_CORE_ML = 5.0
# a local map should be given below the first error of the homologues and withheld above the second
GIVE_BELOW_MM, WITHHOLD_ABOVE_MM = 3.5, 5.0
# heads of the targets for flow
MOST_NOISE_HU, MOST_MOTION_MM = 6.0, 2.0


def _above(figures, name, limit):
    value = figures.get(name)
    return value is not None and value > limit


def _below(figures, name, limit):
    value = figures.get(name)
    return value is not None and value < limit


def _volume_off(figures, measured, planted, least_ml, share):
    """Whether a volume is off by more than the greater of a volume and a share of the truth."""
    if figures.get(measured) is None or figures.get(planted) is None:
        return False
    error = abs(figures[measured] - figures[planted])
    return error > max(least_ml, share * figures[planted])


def _wrong_side(figures):
    return figures.get('side') == 0 and _above(
        figures, 'hypoperfusion_true_ml', LEAST_SIDED_ML - 1e-9
    )


# cause -> whether the figures of a head show it
WRONG: dict[str, Callable[[dict], bool]] = {
    'AIF r < 0.95': lambda f: _below(f, 'aif_r', 0.95),
    'AIF offset before the bolus > 5 %': lambda f: (
        f.get('aif_offset') is not None and abs(f['aif_offset']) > 0.05
    ),
    'wrong side': _wrong_side,
    # also off what the rule finds in the true maps: it is wrong itself in microangiopathy
    'global core off by > 10 mL and > 50 %': lambda f: (
        _volume_off(f, 'core_global_ml', 'core_true_ml', 10.0, 0.5)
        and (
            f.get('core_rule_ml') is None
            or _volume_off(f, 'core_global_ml', 'core_rule_ml', 10.0, 0.5)
        )
    ),
    'hypoperfusion off by > 20 mL and > 40 %': lambda f: _volume_off(
        f, 'hypoperfusion_ml', 'hypoperfusion_true_ml', 20.0, 0.4
    ),
    'local map with homologues off by > 6 mm': lambda f: (
        bool(f.get('local_given')) and _above(f, 'homologue_median', 6.0)
    ),
}


def _slab_mm(settings):
    return settings['n_slices'] * settings['voxel_size_mm'][2]


def _short(record):
    return bool(record.get('truncated'))


def _wide(record):
    return (record['settings']['bolus']['width_s'] or 0) > 14


def _bilateral(record):
    settings = record['settings']
    return settings['lesion'] != 'none' and settings['lesion_side'] == 'both'


def _old_infarct(record):
    return record['settings']['head']['old_infarct_ml'] > 0


# checks that fail for a reason that the head or the scan really has, although the result is right
DESERVED: dict[str, Callable[[dict], bool]] = {
    'coverage': lambda record: _slab_mm(record['settings']) <= 20,
    'scan_after_peak': _short,
    'scan_reserve': lambda record: _short(record) or _wide(record),
    'vof_end': _short,
    'aif_width': _wide,
    'vof_width': _wide,
    'noise_raw': lambda record: record['settings']['noise_hu'] > 8,
    'healthy_side_tmax': _bilateral,
    'healthy_side_hypoperfusion': lambda r: _bilateral(r) or _old_infarct(r),
    'healthy_side_low_flow': lambda r: _bilateral(r) or _old_infarct(r),
    'normal_tissue': _bilateral,
    'core_hypodense': _old_infarct,
}  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """Judgement of one record.

    Attributes
    ----------
    causes : tuple of str
        Keys of `WRONG`; empty if the result is right.
    failing : tuple of str
        Checks that fail.
    silent : bool
        Wrong, and no check fails.
    falsely_failed : tuple of str
        Failing checks of a right result.
    undeserved : tuple of str
        Those of `falsely_failed` without a reason in `DESERVED`.
    falsely_withheld, wrongly_given : bool
    """

    causes: tuple[str, ...]
    failing: tuple[str, ...]
    silent: bool
    falsely_failed: tuple[str, ...]
    undeserved: tuple[str, ...]
    falsely_withheld: bool
    wrongly_given: bool


def judge(record: dict) -> Verdict:
    """Judge a record that was not refused.

    Examples
    --------
    >>> figures = {'aif_r': 0.90, 'local_given': True, 'homologue_median': 3.0}
    >>> verdict = judge({'figures': figures, 'checks': {'arrival': [8.0, 'pass']}})
    >>> verdict.causes, verdict.silent
    (('AIF r < 0.95',), True)
    """
    figures = record['figures']
    causes = tuple(cause for cause, applies in WRONG.items() if applies(figures))
    failing = tuple(name for name, (_, grade) in record['checks'].items() if grade == 'fail')
    falsely = () if causes else failing
    undeserved = tuple(n for n in falsely if not (n in DESERVED and DESERVED[n](record)))
    has_local = figures.get('local_given')
    return Verdict(
        causes, failing, bool(causes) and not failing, falsely, undeserved,
        has_local is False and _below(figures, 'homologue_median', GIVE_BELOW_MM),
        has_local is True and _above(figures, 'homologue_median', WITHHOLD_ABOVE_MM),
    )  # fmt: skip


# -- distributions

# figure -> heading, format, factor, what is better: 'high', 'low', 'zero' for signed
# errors, 'one' for ratios
FIGURES = {
    'aif_r': ('AIF r', '.4f', 1, 'high'),
    'aif_before': ('AIF before arrival, mean / peak', '.3f', 1, 'low'),
    'aif_before_max': ('AIF before arrival, max / peak', '.3f', 1, 'low'),
    'aif_offset': ('AIF offset before arrival / peak', '+.3f', 1, 'zero'),
    'aif_height': ('AIF height / true height', '.2f', 1, 'one'),
    'aif_shift': ('AIF delay, s', '.2f', 1, 'low'),
    'brain_dice': ('Dice brain', '.3f', 1, 'high'),
    'cbf_r': ('r(CBF)', '.3f', 1, 'high'),
    'cbf_share': ('tissue with a CBF, %', '.1f', 100, 'high'),
    'rcbf_rmse': ('RMSE rCBF', '.3f', 1, 'low'),
    'cbf_ratio': ('CBF found / true, normal tissue', '.2f', 1, 'one'),
    'cbv_ratio': ('CBV found / true, normal tissue', '.2f', 1, 'one'),
    'tmax_r': ('r(Tmax)', '.3f', 1, 'high'),
    'tmax_bias': ('bias Tmax, s', '+.2f', 1, 'zero'),
    'hypoperfusion_dice': ('Dice hypoperfusion', '.3f', 1, 'high'),
    'hypoperfusion_difference': ('hypoperfusion found - true, mL', '+.1f', 1, 'zero'),
    'core_global_dice': (f'Dice core global, >= {LEAST_CORE_ML:g} mL', '.3f', 1, 'high'),
    'core_local_dice': (f'Dice core local, >= {LEAST_CORE_ML:g} mL', '.3f', 1, 'high'),
    'core_global_difference': ('core global - planted, mL', '+.1f', 1, 'zero'),
    'core_local_difference': ('core local - planted, mL', '+.1f', 1, 'zero'),
    'core_global_error': (f'core global, error, >= {LEAST_CORE_ML:g} mL, %', '+.0f', 100, 'zero'),
    'core_local_error': (f'core local, error, >= {LEAST_CORE_ML:g} mL, %', '+.0f', 100, 'zero'),
    'false_global_ml': ('false core in MA global, mL', '.1f', 1, 'low'),
    'false_local_ml': ('false core in MA local, mL', '.1f', 1, 'low'),
    'homologue_median': ('homologues off, median, mm', '.2f', 1, 'low'),
    'homologue_p90': ('homologues off, 90th percentile, mm', '.2f', 1, 'low'),
    'hemisphere_share': ('tissue on its side, %', '.1f', 100, 'high'),
    'motion_worst': ('motion left, worst frame, mm', '.2f', 1, 'low'),
    'seconds': ('seconds', '.0f', 1, 'low'),
}  # fmt: skip
VOLUMES = ('core_global_ml', 'core_local_ml', 'hypoperfusion_ml')


def figure_of(record: dict, name: str) -> float | None:
    """Return a figure of a record; None if it does not apply."""
    figures = record['figures']
    if name == 'seconds':
        return record.get('seconds')
    if name.endswith('_difference'):
        part = name.removesuffix('_difference')
        volume = figures.get(f'{part}_ml')
        planted = figures.get('core_true_ml' if 'core' in part else 'hypoperfusion_true_ml')
        return None if volume is None or planted is None else volume - planted
    relative = name.startswith('core_') and name.endswith(('_dice', '_error'))
    if relative and (figures.get('core_true_ml') or 0) < LEAST_CORE_ML:
        return None
    return figures.get(name)


def badness(name: str, value: float) -> float:
    """Return a number that grows as a figure gets worse."""
    better = FIGURES[name][3] if name in FIGURES else 'zero'
    if better == 'one':
        return abs(math.log(max(value, 1e-6)))
    return {'high': -value, 'low': value, 'zero': abs(value)}[better]


def show(name: str, value: float | None) -> str:
    """Format a figure in the unit of its heading."""
    if value is None or not math.isfinite(value):
        return 'n/a'
    _, form, factor, _ = FIGURES[name]
    return format(value * factor, form)


def collect(records, name):
    """List the (value, seed) of a figure over the records that it applies to, worst first."""
    values = [(figure_of(record, name), record['seed']) for record in records]
    known = [(value, seed) for value, seed in values if value is not None]
    return sorted(known, key=lambda pair: -badness(name, pair[0]))


def worst_decile(name, values) -> float:
    """Return the value that a tenth of the heads exceeds on the bad side."""
    bad = np.array([badness(name, value) for value in values])
    decile = np.quantile(bad, 0.9, method='higher')
    return float(np.asarray(values)[np.flatnonzero(bad == decile)[0]])


# -- targets


def _every(record):
    return True


def _clean(record):
    settings = record['settings']
    return settings['noise_hu'] <= MOST_NOISE_HU and settings['motion_mm'] <= MOST_MOTION_MM


def _lesion(record):
    return record['settings']['lesion'] != 'none'


def _real(record):
    return record['settings']['anatomy'] is not None


def _decile(values):
    return np.quantile(values, 0.1, method='lower')


def _median_size(values):
    return np.median(np.abs(values))


# what, figure, records, statistic, goal, whether more is better
TARGETS = (
    ('AIF r, worst', 'aif_r', _every, np.min, 0.985, True),
    ('AIF before arrival / peak, worst', 'aif_before', _every, np.max, 0.03, False),
    ('r(CBF), mean; noise <= 6 HU, motion <= 2 mm', 'cbf_r', _clean, np.mean, 0.83, True),
    ('r(CBF), worst; the same heads', 'cbf_r', _clean, np.min, 0.72, True),
    ('r(Tmax) with a lesion, mean', 'tmax_r', _lesion, np.mean, 0.97, True),
    ('Dice hypoperfusion, mean', 'hypoperfusion_dice', _lesion, np.mean, 0.92, True),
    ('Dice hypoperfusion, worst decile', 'hypoperfusion_dice', _lesion, _decile, 0.85, True),
    ('real anatomy: error of the global core, median', 'core_global_error', _real, _median_size, 0.2, False),
    ('real anatomy: Dice of the global core, mean', 'core_global_dice', _real, np.mean, 0.75, True),
)  # fmt: skip


def core_free(record):
    """Whether a lesion-free head has no core, global without and local with microangiopathy.

    Returns
    -------
    bool or None
        None if the head has a lesion or its local map is withheld.
    """
    if _lesion(record):
        return None
    which = 'local' if record['settings']['microangiopathy'] else 'global'
    volume = record['figures'].get(f'core_{which}_ml')
    return None if volume is None else volume == 0


def targets_of(records) -> list[tuple[str, str, str, bool]]:
    """List the targets: what, goal, measured, met. Targets without a head are left out."""
    done = [record for record in records if record['refused'] is None]
    verdicts = [judge(record) for record in done]
    right = [verdict for verdict in verdicts if not verdict.causes]
    rows = [
        _counted('refused', len(records) - len(done), len(records)),
        _counted('silently wrong', sum(v.silent for v in verdicts), len(done)),
    ]
    if right:
        for what, part in (
            ('right results that fail a check', 'falsely_failed'),
            ('the same without fails that head or scan deserve', 'undeserved'),
        ):
            share = np.mean([bool(getattr(verdict, part)) for verdict in right])
            rows.append((what, '<= 5 %', f'{share:.1%} of {len(right)}', bool(share <= 0.05)))
    for what, name, choose, statistic, goal, more in TARGETS:
        values = [figure_of(record, name) for record in done if choose(record)]
        values = [value for value in values if value is not None]
        if values:
            value = float(statistic(values))
            met = value >= goal if more else value <= goal
            sign = '>=' if more else '<='
            rows.append((what, f'{sign} {goal:g}', f'{value:.3f} of {len(values)}', bool(met)))
    withheld = sum(v.falsely_withheld for v in verdicts)
    wrongly = sum(v.wrongly_given for v in verdicts)
    rows.append(_counted(f'local map withheld below {GIVE_BELOW_MM:g} mm', withheld, len(done)))
    rows.append(_counted(f'local map given above {WITHHOLD_ABOVE_MM:g} mm', wrongly, len(done)))
    free = [value for record in done if (value := core_free(record)) is not None]
    if free:
        share = np.mean(free)
        rows.append(
            ('lesion-free heads without core (local with MA, else global)', '>= 95 %',
             f'{share:.1%} of {len(free)}', bool(share >= 0.95))
        )  # fmt: skip
    return rows


def _counted(what, n, total):
    return (what, '0', f'{n} of {total}', n == 0)


# -- printing


def print_summary(records, n_worst: int = 5) -> None:
    """Print refusals, verdicts, distributions, worst cases and targets."""
    done = [record for record in records if record['refused'] is None]
    print(f'\n{len(records)} heads')
    print_groups('Refused', _by(records, lambda record: [record['refused']]))
    verdicts = {record['seed']: judge(record) for record in done}
    wrong = sum(bool(verdict.causes) for verdict in verdicts.values())
    print(f'\n{wrong} of {len(done)} results are wrong')
    for heading, choose in (
        ('Silently wrong, by cause', lambda v: v.causes if v.silent else ()),
        ('Wrong, but a check fails, by cause', lambda v: () if v.silent else v.causes),
        ('Falsely failed, by check', lambda v: v.falsely_failed),
        ('Falsely failed and not deserved, by check', lambda v: v.undeserved),
        ('Local map falsely withheld', lambda v: _mark(v.falsely_withheld)),
        ('Local map wrongly given', lambda v: _mark(v.wrongly_given)),
    ):
        print_groups(heading, _by(done, lambda r, choose=choose: choose(verdicts[r['seed']])))
    print_groups('Figures that failed', _by(done, lambda r: r.get('failures', ())))
    print_distributions(done)
    print_worst(done, n_worst)
    print('\nTargets\n\n| target | goal | measured | |\n|---|---|---|---|')
    for what, goal, measured, met in targets_of(records):
        print(f'| {what} | {goal} | {measured} | {"met" if met else "missed"} |')


def _mark(applies):
    return ('heads',) if applies else ()


def _by(records, keys):
    """Group seeds by the keys of their records; None is not a key."""
    groups = defaultdict(list)
    for record in records:
        for key in keys(record):
            if key is not None:
                groups[key].append(record['seed'])
    return groups


def print_groups(heading, groups) -> None:
    """Print seeds by key, the largest group first."""
    heads = {seed for seeds in groups.values() for seed in seeds}
    print(f'\n{heading}: {len(heads)}')
    for key, seeds in sorted(groups.items(), key=lambda item: -len(item[1])):
        print(f'  {len(seeds):4d}  {key}: seeds {" ".join(map(str, seeds))}')


def print_distributions(records) -> None:
    """Print mean, median, worst decile and worst of every figure."""
    print('\n| figure | n | mean | median | worst decile | worst | seed |')
    print('|---|---|---|---|---|---|---|')
    for name, (heading, *_) in FIGURES.items():
        pairs = collect(records, name)
        if not pairs:
            continue
        values = [value for value, _ in pairs]
        cells = [np.mean(values), np.median(values), worst_decile(name, values), values[0]]
        shown = ' | '.join(show(name, float(cell)) for cell in cells)
        print(f'| {heading} | {len(values)} | {shown} | {pairs[0][1]} |')


def print_worst(records, n) -> None:
    """Print the worst heads of each figure; ``--seeds`` runs them again."""
    print(f'\nThe {n} worst heads of each figure, worst first (seed: value)\n')
    often = Counter()
    for name, (heading, *_) in FIGURES.items():
        pairs = collect(records, name)[:n]
        often.update(seed for _, seed in pairs if name != 'seconds')
        if pairs:
            cells = (f'{seed}: {show(name, value)}' for value, seed in pairs)
            print(f'  {heading}: {", ".join(cells)}')
    print(f'\nMost often among them: --seeds {" ".join(str(s) for s, _ in often.most_common(n))}')


# -- two runs

# changes below this are ties, in the unit of the figure
TIE = 1e-3


def compare_figure(pairs, name) -> dict | None:
    """Compare one figure over pairs of records.

    Parameters
    ----------
    pairs : list of (dict, dict)
        Records of the same head, before and after.
    name : str
        Key of `FIGURES`.

    Returns
    -------
    dict or None
        ``n``, ``before`` and ``after`` (means), ``wins`` and ``losses`` of the second, and the seeds
        of the greatest ones as ``best`` and ``worst``; None if no pair has the figure.
    """
    rows = []
    for first, second in pairs:
        before, after = figure_of(first, name), figure_of(second, name)
        if before is not None and after is not None:
            rows.append(
                (before, after, badness(name, before) - badness(name, after), first['seed'])
            )
    if not rows:
        return None
    gains = np.array([row[2] for row in rows])
    return {
        'n': len(rows),
        'before': float(np.mean([row[0] for row in rows])),
        'after': float(np.mean([row[1] for row in rows])),
        'wins': int((gains > TIE).sum()),
        'losses': int((gains < -TIE).sum()),
        'best': rows[int(gains.argmax())][3],
        'worst': rows[int(gains.argmin())][3],
    }


def print_comparison(first, second) -> None:
    """Print what changed from one run to another, paired by seed."""
    seconds = {record['seed']: record for record in second}
    pairs = [(record, seconds[record['seed']]) for record in first if record['seed'] in seconds]
    other = [a['seed'] for a, b in pairs if a['settings'] != b['settings']]
    print(f'\n{len(pairs)} heads in both runs')
    if other:
        print(f'  left out, because they are other heads: seeds {" ".join(map(str, other))}')
    pairs = [pair for pair in pairs if pair[0]['seed'] not in other]
    if any(a.get('phantom') != b.get('phantom') for a, b in pairs):
        print('Warning: the phantom changed between the runs, so the same seed is another head')
    _print_states(pairs)
    both = [pair for pair in pairs if all(record['refused'] is None for record in pair)]
    print('\n| figure | n | before | after | better | worse | most better | most worse |')
    print('|---|---|---|---|---|---|---|---|')
    for name, (heading, *_) in FIGURES.items():
        row = compare_figure(both, name)
        if row:
            means = f'{show(name, row["before"])} | {show(name, row["after"])}'
            best = row['best'] if row['wins'] else ''
            worst = row['worst'] if row['losses'] else ''
            print(
                f'| {heading} | {row["n"]} | {means} | {row["wins"]} | {row["losses"]} | {best} | '
                f'{worst} |'
            )
    print_volume_changes(both)


def _states(record):
    """List the verdicts of a record by name."""
    if record['refused'] is not None:
        return {'refused'}
    verdict = judge(record)
    states = {
        'wrong': verdict.causes, 'silently wrong': verdict.silent,
        'falsely failed': verdict.falsely_failed, 'falsely withheld': verdict.falsely_withheld,
        'wrongly given': verdict.wrongly_given,
        'local map withheld': not record['figures'].get('local_given'),
    }  # fmt: skip
    return {name for name, applies in states.items() if applies}


def _print_states(pairs):
    print('\n| heads | before | after | gone | new |\n|---|---|---|---|---|')
    states = [(a['seed'], _states(a), _states(b)) for a, b in pairs]
    for name in ('refused', 'wrong', 'silently wrong', 'falsely failed', 'local map withheld',
                 'falsely withheld', 'wrongly given'):  # fmt: skip
        before = {seed for seed, first, _ in states if name in first}
        after = {seed for seed, _, second in states if name in second}
        gone, new = (
            ' '.join(map(str, sorted(seeds))) for seeds in (before - after, after - before)
        )
        print(f'| {name} | {len(before)} | {len(after)} | {gone} | {new} |')


def print_volume_changes(pairs) -> None:
    """Print how much the volumes change from one run to another."""
    print(
        '\n| volume | n | mean change, mL | mean size | greatest | seed |\n|---|---|---|---|---|---|'
    )
    for name in VOLUMES:
        changes = [
            (b['figures'][name] - a['figures'][name], a['seed'])
            for a, b in pairs
            if a['figures'].get(name) is not None and b['figures'].get(name) is not None
        ]
        if changes:
            values = np.array([change for change, _ in changes])
            greatest, seed = max(changes, key=lambda pair: abs(pair[0]))
            print(
                f'| {name} | {len(values)} | {values.mean():+.2f} | {np.abs(values).mean():.2f} | '
                f'{greatest:+.1f} | {seed} |'
            )
