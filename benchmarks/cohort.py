# SPDX-License-Identifier: Apache-2.0
"""Does the local core shrink where the paper says it does: a cohort with and without microangiopathy.

    python benchmarks/cohort.py                        # 28 heads
    python benchmarks/cohort.py --quick                # 8
    python benchmarks/cohort.py --out DIR -- --lambda-rel 0.2

Two groups of digital heads, with (MA) and without microangiopathy (NoMA), alike in lesions, noise and
timing, go through the app from raw series to the group tables. Then the statistics of Rau et al.,
AJNR 2024;45:277, doi:10.3174/ajnr.A8111, beside the paper's figures, and what only a phantom can tell:
how much of each core is false. What follows ``--`` goes to ctpprep. Exit code 1 when a head lacks its
figures; a direction that is missed is only reported.
"""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
from accuracy import (
    SCAN,
    Case,
    default_data_dir,
    make_heads,
    make_parser,
    output_folder,
    parse,
    run_app,
)
from outcome import CORE_RCBF
from scipy import stats
from scores import NORMAL_DELAY, Comparison, ScoringError, dice, read_truth, read_tsv

from ctpprep.group.comparisons import bland_altman, compare_paired, compare_samples, describe
from ctpprep.group.regression import regress
from ctpprep.perfusion.symmetry import SIDES
from ctpprep.phantom import PhantomSettings

# one head of each group: lesion, residue, timing, noise (HU)
PATIENTS = (
    ('none', 'exponential', 'even', 4.0),
    ('none', 'plateau', 'even', 5.0),
    ('none', 'linear', 'toggling', 4.0),
    ('tiny', 'exponential', 'even', 3.0),
    ('tiny', 'linear', 'jog', 4.0),
    ('small', 'exponential', 'even', 4.0),
    ('small', 'plateau', 'even', 6.0),
    ('small', 'linear', 'uneven', 4.0),
    ('large', 'exponential', 'toggling', 4.0),
    ('large', 'exponential', 'even', 6.0),
    ('large', 'plateau', 'jog', 3.0),
    ('large', 'linear', 'even', 5.0),
    ('huge', 'exponential', 'even', 4.0),
    ('huge', 'plateau', 'toggling', 4.0),
)
VERDICTS = {True: 'met', False: 'missed', None: 'not distinguishable'}
GROUPS = {'MA': True, 'NoMA': False}
FIRST_SEED = {'MA': 301, 'NoMA': 351}  # for measuring: tune on others
QUICK = (0, 5, 8, 10)  # of PATIENTS

# what the paper reports; its means are of series with evident stroke, its differences of all
PAPER = {
    'MA': {'global': '60.3', 'local': '33.6', 'difference': '-14.7 (14.6)', 'slope': '0.62'},
    'NoMA': {'global': '41.0', 'local': '31.4', 'difference': '-3.7 (6.7)', 'slope': '0.82'},
}


def make_cases(patients) -> list[Case]:
    """List the heads of both groups: those of `PATIENTS` at these places; sides alternate."""
    cases = []
    for group, microangiopathy in GROUPS.items():
        for i in patients:
            lesion, residue, timing, noise_hu = PATIENTS[i]
            settings = PhantomSettings(
                seed=FIRST_SEED[group] + i, lesion=lesion, lesion_side=('left', 'right')[i % 2],
                residue=residue, timing=timing, noise_hu=noise_hu,
                microangiopathy=microangiopathy, **SCAN,
            )  # fmt: skip
            cases.append(Case(f'{group}-{i + 1}', settings))
    return cases


# -- statistics


def agreement(planted, core_global, core_local) -> dict:
    """Compare the volumes of both cores, head by head, as the group level does.

    Parameters
    ----------
    planted, core_global, core_local : (N,) arrays
        mL.

    Returns
    -------
    dict of dict
        Rows of `ctpprep.group.rows` by name: ``slope``, ...; ``planted``, ``global``
        and ``local`` are means, with the SD as ``sd``.
    """
    x, y = np.asarray(core_global, float), np.asarray(core_local, float)
    found = {}
    for name, values in (('planted', planted), ('global', x), ('local', y)):
        mean, sd, _ = describe(np.asarray(values, float))
        found[name] = mean | {'sd': sd['value']}
    rows = [*regress(x, y), *bland_altman(x, y), *compare_paired(x, y)]
    return found | {row['statistic']: row for row in rows}


def value(row, kind='value') -> float:
    """Take a figure of a row; NaN if it is missing."""
    return math.nan if row[kind] is None else row[kind]


def slope_error(row) -> float:
    """Standard error of a slope (HC3), from its interval."""
    half = (value(row, 'ci_high') - value(row, 'ci_low')) / 2
    return half / stats.t.ppf(0.975, row['n'] - 2)


# -- truth


def core_errors(found: Comparison, which: str) -> dict:
    """Measure what of a core is false, and what it misses.

    Returns
    -------
    dict
        ``false_ma``, ``false_elsewhere``, ``missed``, mL, and ``dice``; None where there is no core.
        ``dice_rule`` is that with the rule of the global core applied to the true maps, whose core is
        not the planted one: penumbra in white matter and microangiopathy are below 30 %, too.
    """
    maps, mask = found.truth.maps, found.mask(f'label-core_desc-{which}_mask')
    planted, false = maps['core'], mask & ~maps['core']
    parts = {
        'false_ma': false & maps['microangiopathy'],
        'false_elsewhere': false & ~maps['microangiopathy'],
        'missed': planted & ~mask,
    }
    sizes = {name: np.count_nonzero(part) * found.truth.voxel_ml for name, part in parts.items()}
    rule = rule_of_core(found.truth) if planted.any() and which == 'global' else None
    return sizes | {
        'dice': dice(mask, planted) if planted.any() else None,
        'dice_rule': None if rule is None else dice(mask, rule),
    }


def rule_of_core(truth) -> np.ndarray:
    """Apply the rule of the global core to the true maps, on the side of the lesion."""
    maps, tissue = truth.maps, truth.tissue
    reference = np.median(maps['cbf'][tissue & (maps['delay'] <= NORMAL_DELAY)])
    side = maps['side'] == SIDES[truth.lesion_side]
    return tissue & side & (maps['cbf'] < CORE_RCBF * reference)


def read_group(out_dir: Path) -> tuple[dict, dict]:
    """Read the tables of the group level: core volumes and doubts of each series.

    Returns
    -------
    volumes : dict of dict
        ``{'sub-1': {'global': 20.0, 'local': 15.0}}``, mL; NaN for a volume that was withheld.
    doubts : dict of dict
        ``{'sub-1': {'noise_raw': 'warn', 'caution': '...'}}``: checks that do not pass.
    """
    table = read_tsv(out_dir / 'group_volumes.tsv')
    volumes: dict = {}
    for series, region, which, measure, ml in zip(
        *(table[name] for name in ('series', 'region', 'normalization', 'measure', 'volume_ml')),
        strict=True,
    ):
        if (region, measure) == ('core', 'volume'):
            volumes.setdefault(series, {})[which] = math.nan if ml == 'n/a' else float(ml)
    table, doubts = read_tsv(out_dir / 'group_quality.tsv'), {}
    for i, series in enumerate(table['series']):
        doubts[series] = {
            name.removesuffix('_status'): column[i]
            for name, column in table.items()
            if name.endswith('_status') and column[i] in ('warn', 'fail')
        }
        if table['caution'][i] != 'n/a':
            doubts[series]['caution'] = table['caution'][i]
    return volumes, doubts


def score(case, out_dir, bids_dir, volumes) -> dict:
    """Collect all figures of a head; empty, and told, if one is missing."""
    stem = f'sub-{case.label}'
    truth = read_truth(bids_dir, case.label)
    found = Comparison(out_dir / stem / 'ct', stem, truth)
    planted = np.count_nonzero(found.truth.maps['core']) * found.truth.voxel_ml
    try:
        if not all(math.isfinite(volumes[stem][which]) for which in ('global', 'local')):
            raise ScoringError('no local core')
        figures = {which: core_errors(found, which) for which in ('global', 'local')}
    except (KeyError, ScoringError) as error:
        print(f'  FAIL {case.name} ({stem}): {error}')
        return {}
    return {
        'planted': planted,
        'volume': volumes[stem],
        **figures,
    }


# -- tables


def columns(scores, lesion_only):
    """Split the heads by group: ``{'MA': [figures, ...], 'NoMA': [...]}``."""
    return {
        group: [
            figures
            for case, figures in scores
            if case.microangiopathy is microangiopathy and (case.lesion or not lesion_only)
        ]
        for group, microangiopathy in GROUPS.items()
    }


def agree(heads) -> dict:
    return agreement(
        [head['planted'] for head in heads],
        *([head['volume'][which] for head in heads] for which in ('global', 'local')),
    )


def show(mean, sd, digits=1) -> str:
    return f'{mean:.{digits}f} ({sd:.{digits}f})'


def show_p(p) -> str:
    """Write a p value.

    Examples
    --------
    >>> show_p(0.00002), show_p(0.0312)
    ('< 0.001', '0.031')
    """
    return '< 0.001' if p < 0.001 else f'{p:.3f}'


def print_agreement(heads, title, paper) -> None:
    """Print one set of heads; `paper` names the figures that the paper has for such a set."""
    found = {group: agree(each) for group, each in heads.items()}
    print(f'\n| {title} | MA | paper, MA | NoMA | paper, NoMA |\n|---|---|---|---|---|')

    def row(what, write, key=None):
        cells = []
        for group, each in found.items():
            cells += [write(each), PAPER[group][key] if key in paper else '']
        print(f'| {what} | ' + ' | '.join(cells) + ' |')

    def mean_sd(name):
        return lambda a: show(value(a[name]), a[name]['sd'])

    row('heads', lambda a: str(a['global']['n']))
    row('core planted, mL: mean (SD)', mean_sd('planted'))
    row('core global, mL', mean_sd('global'), 'global')
    row('core local, mL', mean_sd('local'), 'local')
    row('local - global, mL', lambda a: show(value(a['mean difference']), value(a['sd'])),
        'difference')  # fmt: skip
    row('limits of agreement (2 SD), mL', lambda a:
        f'{value(a["lower limit 2 SD"]):.1f} to {value(a["upper limit 2 SD"]):.1f}')  # fmt: skip
    row('p (Wilcoxon, paired)', lambda a: show_p(value(a['wilcoxon'], 'p')))
    row('slope of local on global (SE by HC3)',
        lambda a: show(value(a['slope']), slope_error(a['slope']), 2), 'slope')  # fmt: skip
    row('its intercept, mL', lambda a: f'{value(a["intercept"]):+.1f}')
    row('slope through the origin', lambda a: f'{value(a["slope through origin"]):.2f}')


def mean_of(heads, which, figure) -> float:
    """Mean of a figure over the heads that have it; NaN if none has."""
    values = [head[which][figure] for head in heads if head[which][figure] is not None]
    return float(np.mean(values)) if values else math.nan


def print_errors(heads, title) -> None:
    names = [(group, which) for group in heads for which in ('global', 'local')]
    print(f'\n| {title} | ' + ' | '.join(f'{group}, {which}' for group, which in names) + ' |')
    print('|---' * (len(names) + 1) + '|')
    for figure, what in (
        ('false_ma', 'false core in MA, mL'),
        ('false_elsewhere', 'false core elsewhere, mL'),
        ('missed', 'planted core that was missed, mL'),
        ('dice', 'Dice'),
        ('dice_rule', 'Dice with the rule on the true maps'),
    ):
        values = [mean_of(heads[group], which, figure) for group, which in names]
        if all(math.isnan(value) for value in values):
            continue
        digits = 3 if figure.startswith('dice') else 1
        cells = ('' if math.isnan(value) else f'{value:.{digits}f}' for value in values)
        print(f'| {what} | ' + ' | '.join(cells) + ' |')


def directions(scores) -> list[tuple[str, str, bool | None]]:
    """Compare with the direction of the paper: what, measured, met (None if noise may be all)."""
    rows = []
    for lesion_only, where in ((False, 'all heads'), (True, 'heads with a lesion')):
        heads = columns(scores, lesion_only)
        ma, no = (agree(heads[group]) for group in ('MA', 'NoMA'))
        for what, first, second in (
            ('core shrinks more in MA, mL', *(-value(a['mean difference']) for a in (ma, no))),
            ('relative shrinking greater in MA', *(1 - value(a['ratio of means']) for a in (ma, no))),
            ('slope smaller in MA', *(value(a['slope']) for a in (no, ma))),
            ('slope through the origin smaller in MA',
             *(value(a['slope through origin']) for a in (no, ma))),
        ):  # fmt: skip
            told = (
                f'{second:.2f} -> {first:.2f}'
                if 'slope' in what
                else f'{first:.2f} against {second:.2f}'
            )
            met = None if math.isnan(first - second) else first > second
            if what == 'slope smaller in MA':
                errors = slope_error(no['slope']), slope_error(ma['slope'])
                told += f' (standard errors by HC3 {errors[0]:.2f}, {errors[1]:.2f})'
                # nearer than their standard error, slopes are not distinguishable
                if abs(first - second) < math.hypot(*errors):
                    met = None
            rows.append((f'{what}; {where}', told, met))
    heads = columns(scores, False)
    shrunk = [
        [h['volume']['local'] - h['volume']['global'] for h in each] for each in heads.values()
    ]
    p = value(compare_samples(*map(np.array, shrunk))[0], 'p')
    rows.append(
        (
            'the groups differ in local - global (Mann-Whitney); all heads',
            f'p {show_p(p)}',
            p < 0.05,
        )
    )
    before, after = (mean_of(heads['MA'], which, 'false_ma') for which in ('global', 'local'))
    rows.append(
        (
            'false core in MA halved; all heads',
            f'{before:.1f} -> {after:.1f} mL',
            after <= before / 2,
        )
    )
    heads = columns(scores, True)
    for group, limit in (('MA', 0.0), ('NoMA', -0.03)):
        before, after = (mean_of(heads[group], which, 'dice') for which in ('global', 'local'))
        what = 'Dice rises in MA' if group == 'MA' else 'Dice falls by at most 0.03 without MA'
        rows.append((what, f'{before:.3f} -> {after:.3f}', after - before >= limit))
    return rows


def print_doubts(cases, doubts) -> None:
    """Print how often each check of quality did not pass."""
    counts: dict = {}
    for case in cases:
        for name, grade in doubts.get(f'sub-{case.label}', {}).items():
            kind = 'caution' if name == 'caution' else f'{name} {grade}'
            counts[kind] = counts.get(kind, 0) + 1
    told = ', '.join(f'{kind} {n}' for kind, n in sorted(counts.items())) or 'none'
    print(f'\nQuality, heads of {len(cases)}: {told}')


# -- command line


def collect(bids_dir, out_dir) -> None:
    """Run the group level."""
    command = [sys.executable, '-m', 'ctpprep', str(bids_dir), str(out_dir), 'group']
    print('$ ctpprep', *command[3:], flush=True)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def main(argv) -> int:
    parser = make_parser(__doc__)
    parser.add_argument('--quick', action='store_true', help='four heads of each group')
    args, extra = parse(parser, argv)
    cases = make_cases(QUICK if args.quick else range(len(PATIENTS)))
    bids_dir = (args.data or default_data_dir()).absolute()
    make_heads(bids_dir, {case.label: case.settings for case in cases}, args.jobs)
    with output_folder(args, 'cohort') as folder:
        out_dir = folder / 'out'
        if not args.score_only:
            labels = [case.label for case in cases]
            run_app(bids_dir, out_dir, folder / 'work', labels, args.jobs, extra)
        collect(bids_dir, out_dir)
        return report(cases, bids_dir, out_dir)


def report(cases, bids_dir, out_dir) -> int:
    """Score and print; return the exit code."""
    volumes, doubts = read_group(out_dir)
    found = [(case, score(case, out_dir, bids_dir, volumes)) for case in cases]
    scores = [(case, figures) for case, figures in found if figures]
    for lesion_only, title, paper in (
        (False, 'All heads', ('difference', 'slope')),
        (True, 'Heads with a lesion', ('global', 'local')),
    ):
        heads = columns(scores, lesion_only)
        print_agreement(heads, title, paper)
        print_errors(heads, f'{title}, against truth (means)')
    print('\n| direction expected | measured | |\n|---|---|---|')
    for what, measured, met in directions(scores):
        print(f'| {what} | {measured} | {VERDICTS[met]} |')
    print_doubts(cases, doubts)
    record = {case.name: figures for case, figures in scores}
    (out_dir.parent / 'cohort.json').write_text(json.dumps(record, indent=2) + '\n')
    if failed := len(cases) - len(scores):
        print(f'\nFAIL: {failed} of {len(cases)} heads lack figures')
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
