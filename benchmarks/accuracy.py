# SPDX-License-Identifier: Apache-2.0
"""How near to the truth: run ctpprep on a fixed set of digital heads and score every figure.

    python benchmarks/accuracy.py                      # all cases
    python benchmarks/accuracy.py --quick              # three
    python benchmarks/accuracy.py --out DIR -- --lambda-rel 0.2
    python benchmarks/accuracy.py --arrays --cases small-right     # without files, in seconds
    python benchmarks/accuracy.py --anatomy CT.nii.gz --quick      # lesions in the head of a CT

What follows ``--`` goes to ctpprep. With ``--arrays`` the science runs alone, from arrays to arrays
(`ctpprep.compute_maps`): no nipype, no files, no report. The heads are made once and kept
(``--data``). Prints a table per case, the means and the targets. Exit code 1 when a figure is
missing (FAIL); a target that is missed is only reported.
"""

import argparse
import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nb
import numpy as np
from scores import ArrayComparison, read_truth, score, score_series

from ctpprep import phantom
from ctpprep.phantom import PhantomSettings, make_phantom, write_bids
from ctpprep.phantom.dataset import record_settings

SCAN = {'matrix': 128, 'voxel_size_mm': (1.72, 1.72, 5.0), 'n_slices': 20, 'n_frames': 27,
        'frame_interval': 1.5, 'motion_mm': 2.0}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One head; `options` are those a user who knows the patient would give."""

    name: str
    settings: PhantomSettings
    options: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Participant label of the head."""
        return str(self.settings.seed)

    @property
    def microangiopathy(self) -> bool:
        """Whether the head has microangiopathy."""
        return self.settings.microangiopathy

    @property
    def lesion(self) -> bool:
        """Whether the head has an infarct."""
        return self.settings.lesion != 'none'


def _case(name, seed, noise_hu=4.0, options=(), **settings):
    return Case(name, PhantomSettings(seed=seed, noise_hu=noise_hu, **SCAN, **settings), options)


_MA = {'microangiopathy': True}
_BOTH = ('--affected-side', 'both')
# These seeds are for measuring: tune on others.
CASES = (
    _case('ma-large-left', 101, lesion='large', lesion_side='left', **_MA),
    _case('ma-large-right', 102, lesion='large', lesion_side='right', residue='linear', **_MA),
    _case('ma-only', 103, options=_BOTH, **_MA),
    _case('ma-only-plateau', 104, options=_BOTH, residue='plateau', **_MA),
    _case('large-left', 105, lesion='large', lesion_side='left'),
    _case('large-right-plateau', 106, lesion='large', lesion_side='right', residue='plateau'),
    _case('small-left-linear', 107, lesion='small', lesion_side='left', residue='linear'),
    _case('small-right', 108, lesion='small', lesion_side='right'),
    _case('large-right-toggling', 109, lesion='large', lesion_side='right', timing='toggling'),
    _case('large-left-uneven', 110, lesion='large', lesion_side='left', timing='uneven'),
    _case('large-right-6hu', 111, 6.0, lesion='large', lesion_side='right'),
)
QUICK = ('ma-large-left', 'ma-only', 'small-right')


# -- heads on disk


def default_data_dir(anatomy: Path | None = None) -> Path:
    """Folder of the heads: of this version of the phantom and this CT, so that no stale one is scored."""
    modules = sorted(Path(phantom.__file__).parent.glob('*.py'))
    files = modules + ([anatomy] if anatomy else [])
    code = hashlib.sha256(b''.join(file.read_bytes() for file in files)).hexdigest()[:8]
    cache = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(cache) / 'ctpprep-benchmarks' / f'heads-{code}'


def _is_made(bids_dir, label, settings):
    """Tell whether a head was written to its end, with the same settings."""
    stem, last = f'sub-{label}', f'sub-{label}_desc-motion_timeseries.json'
    sidecar = bids_dir / stem / 'ct' / f'{stem}_ctp.json'
    if not (bids_dir / 'derivatives' / 'truth' / stem / 'ct' / last).exists():
        return False
    return json.loads(sidecar.read_text())['PhantomSettings'] == json.loads(
        json.dumps(record_settings(settings))
    )


def make_heads(bids_dir: Path, wanted: dict[str, PhantomSettings], jobs: int) -> None:
    """Make the heads that are not there yet.

    Parameters
    ----------
    bids_dir : Path
    wanted : dict of str to PhantomSettings
        By participant label.
    jobs : int
        Processes.
    """
    missing = {k: v for k, v in wanted.items() if not _is_made(bids_dir, k, v)}
    if not missing:
        return
    print(f'making {len(missing)} heads in {bids_dir}', flush=True)
    with ProcessPoolExecutor(jobs) as pool:
        for label, made in zip(missing, pool.map(make_phantom, missing.values()), strict=True):
            write_bids(made, bids_dir, label)
            print(f'  sub-{label}', flush=True)


# -- the app


def run_app(bids_dir, out_dir, work_dir, labels, nprocs, options) -> float:
    """Run ctpprep as a user would; return the seconds it took.

    A failed run is told, not raised: the figures that are missing then count as failures.
    """
    command = [sys.executable, '-m', 'ctpprep', bids_dir, out_dir, 'participant',
               '--participant-label', *labels, '-w', work_dir, '--nprocs', nprocs, *options]  # fmt: skip
    command = [str(word) for word in command]
    print('$ ctpprep', *command[3:], flush=True)
    began = time.monotonic()
    code = subprocess.run(command).returncode
    if code:
        print(f'ctpprep ended with exit code {code}')
    return time.monotonic() - began


def run_cases(cases, bids_dir, out_dir, jobs, extra) -> None:
    """Run the app once for each set of options among the cases."""
    for options in dict.fromkeys(case.options for case in cases):
        labels = [case.label for case in cases if case.options == options]
        name = group_name(options)
        seconds = run_app(
            bids_dir, out_dir / name, out_dir / f'{name}_work', labels, jobs, [*options, *extra]
        )
        print(f'{len(labels)} series in {seconds:.0f} s')


def group_name(options) -> str:
    """Folder of the cases with these options.

    Examples
    --------
    >>> group_name(('--affected-side', 'both')), group_name(())
    ('affected-side-both', 'default')
    """
    return '-'.join(options).strip('-') or 'default'


# -- the science alone


def read_method(options):
    """Turn options of the command into settings."""
    from ctpprep.cli.parser import make_parser as make_app_parser
    from ctpprep.cli.resolve import read_settings

    words = ['bids_dir', 'output_dir', 'participant', *options]
    return read_settings(make_app_parser().parse_args(words))[0]


def compute_case(case, bids_dir, extra):
    """Compute and score one head from arrays; return figures, failures and seconds."""
    from ctpprep import compute_maps
    from ctpprep.inputs.timing import read_series_timing

    path = bids_dir / f'sub-{case.label}' / 'ct' / f'sub-{case.label}_ctp.nii.gz'
    image = nb.as_closest_canonical(nb.load(path))
    sidecar = json.loads(path.with_name(path.name.replace('.nii.gz', '.json')).read_text())
    _, sample_times, _ = read_series_timing(path, sidecar, None)
    method = read_method([*case.options, *extra])
    began = time.monotonic()
    result = compute_maps(
        np.asarray(image.dataobj), sample_times, nb.affines.voxel_sizes(image.affine), method,
        image.affine,
    )  # fmt: skip
    seconds = time.monotonic() - began
    truth = read_truth(bids_dir, case.label)
    return *score(ArrayComparison(result, truth)), seconds


def run_arrays(cases, bids_dir, jobs, extra) -> int:
    """Compute, score and print cases from arrays; return the exit code."""
    scores, failed = [], 0
    with ProcessPoolExecutor(jobs) as pool:
        n = len(cases)
        computed = pool.map(compute_case, cases, [bids_dir] * n, [extra] * n)
        for case, (figures, failures, seconds) in zip(cases, computed, strict=True):
            scores.append((case, figures))
            failed += bool(failures)
            print_case(case, figures, failures)
            print(f'  {seconds:.1f} s', flush=True)
    print_means(scores)
    print_targets(scores)
    return 1 if failed else 0


# -- tables

# figure -> heading in the table of all cases, heading on a case's line, format, factor
FIGURES = {
    'brain_dice': ('Dice brain', 'Dice brain', '.3f', 1),
    'cbf_r': ('r(CBF, truth)', 'r(CBF)', '.3f', 1),
    'cbf_share': ('tissue with a CBF, %', 'of tissue, %', '.1f', 100),
    'rcbf_rmse': ('RMSE rCBF', 'RMSE rCBF', '.3f', 1),
    'tmax_r': ('r(Tmax, delay)', 'r(Tmax)', '.3f', 1),
    'tmax_bias': ('bias Tmax, s', 'bias Tmax, s', '+.2f', 1),
    'aif_r': ('r(AIF)', 'r(AIF)', '.4f', 1),
    'side': ('side right', 'side right', '.0f', 1),
    'hypoperfusion_dice': ('Dice hypoperfusion', 'Dice hypoperfusion', '.3f', 1),
    'hypoperfusion_true_ml': ('hypoperfusion true, mL', 'mL: true', '.1f', 1),
    'hypoperfusion_ml': ('hypoperfusion found, mL', 'found', '.1f', 1),
    'core_true_ml': ('core planted, mL', 'core, mL: planted', '.1f', 1),
    'core_global_ml': ('core global, mL', 'global', '.1f', 1),
    'core_local_ml': ('core local, mL', 'local', '.1f', 1),
    'core_global_error': ('core global, volume error, %', 'volume error, %: global', '+.0f', 100),
    'core_local_error': ('core local, volume error, %', 'local', '+.0f', 100),
    'core_global_dice': ('Dice core global', 'Dice core: global', '.3f', 1),
    'core_local_dice': ('Dice core local', 'local', '.3f', 1),
    'false_global_ml': ('false core in MA global, mL', 'false core in MA, mL: global', '.2f', 1),
    'false_local_ml': ('false core in MA local, mL', 'local', '.2f', 1),
    'homologue_median': ('homologue off, median, mm', 'homologue off, mm: median', '.2f', 1),
    'homologue_p90': ('homologue off, 90th percentile, mm', '90th percentile', '.2f', 1),
    'hemisphere_share': ('tissue on its side, %', 'tissue on its side, %', '.1f', 100),
    'motion_median': ('motion left, median frame, mm', 'motion left, mm: median frame', '.2f', 1),
    'motion_worst': ('motion left, worst frame, mm', 'worst', '.2f', 1),
}
# figures on one line of a case's table
LINES = (
    ('brain_dice', 'hemisphere_share'),
    ('cbf_r', 'cbf_share', 'rcbf_rmse'),
    ('tmax_r', 'tmax_bias', 'aif_r'),
    ('hypoperfusion_dice', 'hypoperfusion_true_ml', 'hypoperfusion_ml', 'side'),
    ('core_true_ml', 'core_global_ml', 'core_local_ml'),
    ('core_global_error', 'core_local_error'),
    ('core_global_dice', 'core_local_dice'),
    ('false_global_ml', 'false_local_ml'),
    ('homologue_median', 'homologue_p90'),
    ('motion_median', 'motion_worst'),
)


def show(figure: str, value: float | None) -> str:
    """Write one figure: n/a where it does not apply, FAIL where it is missing.

    Examples
    --------
    >>> show('cbf_share', 0.987), show('cbf_r', None), show('cbf_r', math.nan)
    ('98.7', 'n/a', 'FAIL')
    """
    if value is None:
        return 'n/a'
    if not math.isfinite(value):
        return 'FAIL'
    if figure == 'side':
        return 'yes' if value else 'WRONG'
    _, _, form, factor = FIGURES[figure]
    return format(value * factor, form)


def describe(case: Case) -> str:
    settings = case.settings
    lesion = f'{settings.lesion} core {settings.lesion_side}' if case.lesion else 'no lesion'
    ma = 'microangiopathy' if case.microangiopathy else 'no microangiopathy'
    return (
        f'{case.name} (sub-{case.label}: {ma}, {lesion}, {settings.residue}, '
        f'{settings.timing}, {settings.noise_hu:g} HU)'
    )


def print_case(case, figures, failures) -> None:
    print(f'\n{describe(case)}')
    for line in LINES:
        if any(figures[name] is not None for name in line):
            cells = (f'{FIGURES[name][1]} {show(name, figures[name])}' for name in line)
            print('  ' + '   '.join(cells))
    for failure in failures:
        print(f'  FAIL {failure}')


def mean_of(scores, figure, choose=lambda case: True, statistic=np.mean):
    """Take a statistic over the cases that a figure applies to; NaN if one failed or none is left.

    Parameters
    ----------
    scores : list of (Case, dict)
    figure : str
    choose : callable
        ``choose(case)`` tells whether a case counts.
    statistic : callable

    Returns
    -------
    float
    """
    values = [figures[figure] for case, figures in scores if choose(case)]
    values = [value for value in values if value is not None]
    return float(statistic(values)) if values else math.nan


def print_means(scores) -> None:
    """Print figure by figure: every case, and the mean over those it applies to."""
    print('\nAll cases, and the mean over those that a figure applies to\n')
    for i, (case, _) in enumerate(scores):
        print(f'{i + 1}. {describe(case)}')
    numbers = ' | '.join(str(i + 1) for i in range(len(scores)))
    print(f'\n| {"":34} | {numbers} | mean |')
    print('|---' * (len(scores) + 2) + '|')
    for figure, (heading, *_) in FIGURES.items():
        cells = [show(figure, figures[figure]) for _, figures in scores]
        cells.append(show_mean(scores, figure))
        print(f'| {heading:34} | ' + ' | '.join(cells) + ' |')


def show_mean(scores, figure) -> str:
    """Write the mean of a figure; the share of right sides is a fraction."""
    if all(figures[figure] is None for _, figures in scores):
        return 'n/a'
    mean = mean_of(scores, figure)
    return f'{mean:.2f}' if figure == 'side' and math.isfinite(mean) else show(figure, mean)


# -- targets


def _with_lesion(case):
    return case.lesion


def _without_ma(case):
    return case.lesion and not case.microangiopathy


def _ma_and_core(case):
    return case.lesion and case.microangiopathy


def _ma_only(case):
    return case.microangiopathy and not case.lesion


def _every(case):
    return True


def _median_size(values):
    return np.median(np.abs(values))


# issue, what, figure, cases, statistic, floor, stretch, whether more is better
TARGETS = (
    ('2', 'side right in every case with a lesion', 'side', _with_lesion, np.min, 1, None, True),
    ('2', 'Dice hypoperfusion, worst', 'hypoperfusion_dice', _with_lesion, np.min, 0.75, None, True),
    ('2', 'r(CBF, truth), worst', 'cbf_r', _every, np.min, 0.65, None, True),
    ('3', 'r(CBF, truth), mean', 'cbf_r', _every, np.mean, 0.78, 0.85, True),
    ('3', 'tissue with a CBF, mean', 'cbf_share', _every, np.mean, 0.95, None, True),
    ('3', 'r(Tmax, delay), mean', 'tmax_r', _every, np.mean, 0.90, 0.95, True),
    ('3', 'Dice hypoperfusion, mean', 'hypoperfusion_dice', _with_lesion, np.mean, 0.88, 0.93, True),
    ('3', 'Dice core global without MA, mean', 'core_global_dice', _without_ma, np.mean, 0.70, 0.80, True),
    ('3', 'core volume error global without MA, median', 'core_global_error', _without_ma,
     _median_size, 0.25, 0.12, False),
    ('3', 'Dice brain, worst', 'brain_dice', _every, np.min, 0.95, None, True),
    ('3', 'r(AIF), worst', 'aif_r', _every, np.min, 0.98, None, True),
    ('3', 'motion left, median frame, worst case, mm', 'motion_median', _every, np.max, 0.3, None, False),
    ('3', 'motion left, worst frame, worst case, mm', 'motion_worst', _every, np.max, 0.8, None, False),
    ('4', 'homologue off, mean of medians, mm', 'homologue_median', _every, np.mean, 3.5, 2.5, False),
    ('4', 'homologue off, mean of 90th percentiles, mm', 'homologue_p90', _every, np.mean, 7.5, 6.0, False),
    ('4', 'tissue on its side, worst', 'hemisphere_share', _every, np.min, 0.97, None, True),
    ('4', 'Dice core local, MA and core, mean', 'core_local_dice', _ma_and_core, np.mean, 0.70, None, True),
    ('4', 'Dice core local without MA, mean', 'core_local_dice', _without_ma, np.mean, 0.75, None, True),
)  # fmt: skip


def compare_cores(scores):
    """Targets that set the local core against the global one: (issue, what, measured, met)."""

    def mean(figure, choose):
        return mean_of(scores, figure, choose)

    pairs = [(f['false_global_ml'], f['false_local_ml']) for c, f in scores if c.microangiopathy]
    text = ', '.join(f'{g:.2f} -> {x:.2f}' for g, x in pairs) + ' mL'
    rows = []
    if pairs:
        g, x = np.mean(pairs, axis=0)
        good = bool(x < g)
        rows.append(
            ('2', 'false core in MA, mean: local < global', f'{g:.2f} -> {x:.2f} mL', good)
        )
        good = all(x < g for g, x in pairs)
        rows.append(('2', 'the same in every head, global > 0', text, good))
    only = [(f['false_global_ml'], f['false_local_ml']) for c, f in scores if _ma_only(c)]
    if only:
        told = [pair for pair in only if not pair[0] <= 2]
        g, x = np.mean(told, axis=0) if told else (math.nan, math.nan)
        rows.append(
            ('4', 'MA only (global > 2 mL): local <= 1 mL and <= 1/5', f'{g:.2f} -> {x:.2f} mL, '
             f'{len(told)} of {len(only)} heads', bool(x <= 1 and x <= g / 5))
        )  # fmt: skip
    g, x = (mean(f'false_{which}_ml', _ma_and_core) for which in ('global', 'local'))
    if any(_ma_and_core(case) for case, _ in scores):
        rows.append(('4', 'MA and core: false core halved', f'{g:.2f} -> {x:.2f} mL', x <= g / 2))
        g, x = (mean(f'core_{which}_dice', _ma_and_core) for which in ('global', 'local'))
        rows.append(('4', 'MA and core: Dice local > global', f'{g:.3f} -> {x:.3f}', x > g))
    if any(_without_ma(case) for case, _ in scores):
        g, x = (mean(f'core_{which}_dice', _without_ma) for which in ('global', 'local'))
        rows.append(
            ('4', 'no MA: Dice local >= global - 0.03', f'{g:.3f} -> {x:.3f}', x >= g - 0.03)
        )
    return rows


def judge(value, floor, stretch, more) -> str:
    """Say whether a target is met.

    Examples
    --------
    >>> judge(0.9, 0.8, 0.95, True), judge(0.1, 0.25, 0.12, False), judge(math.nan, 1, None, True)
    ('met', 'stretch met', 'missed')
    """

    def reached(goal):
        return value >= goal if more else value <= goal

    if stretch is not None and reached(stretch):
        return 'stretch met'
    return 'met' if reached(floor) else 'missed'


def print_targets(scores) -> None:
    """Print the targets of the project's issues beside what was measured."""
    print(
        '\nTargets\n\n| issue | target | floor | stretch | measured | |\n|---|---|---|---|---|---|'
    )
    for issue, what, figure, choose, statistic, floor, stretch, more in TARGETS:
        if not any(choose(case) for case, _ in scores):
            continue
        value = mean_of(scores, figure, choose, statistic)
        sign = '>=' if more else '<='
        goal = '' if stretch is None else f'{sign} {stretch:g}'
        print(
            f'| {issue} | {what} | {sign} {floor:g} | {goal} | {value:.3f} | '
            f'{judge(value, floor, stretch, more)} |'
        )
    for issue, what, measured, met in compare_cores(scores):
        print(f'| {issue} | {what} | | | {measured} | {"met" if met else "missed"} |')


# -- command line


def make_parser(description):
    """Declare the options that this script shares with cohort.py."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('--out', type=Path, metavar='DIR', help='outputs, work folders and figures; kept')
    add('--keep', action='store_true', help='keep the outputs when they are in a temporary folder')
    add('--data', type=Path, metavar='DIR', help='folder of the heads (default: in the cache)')
    add('--jobs', type=int, default=2, metavar='N', help='processes (default: 2)')
    add('--score-only', action='store_true', help='score what an earlier run left in --out')
    return parser


def parse(parser, argv):
    """Parse own options, and split off what follows ``--``."""
    own, extra = argv, []
    if '--' in argv:
        at = argv.index('--')
        own, extra = argv[:at], argv[at + 1 :]
    args = parser.parse_args(own)
    if args.score_only and args.out is None:
        parser.error('--score-only needs --out')
    return args, extra


@contextmanager
def output_folder(args, name):
    """Give the folder of the outputs; a temporary one is removed unless it shall be kept."""
    out_dir = (args.out or Path(tempfile.mkdtemp(prefix=f'ctpprep-{name}-'))).absolute()
    try:
        yield out_dir
    finally:
        if args.out is None and not args.keep:
            shutil.rmtree(out_dir, ignore_errors=True)
        else:
            print(f'\noutputs: {out_dir}')


def main(argv) -> int:
    parser, names = make_parser(__doc__), [case.name for case in CASES]
    parser.add_argument('--cases', nargs='+', choices=names, metavar='NAME', help=', '.join(names))
    parser.add_argument('--quick', action='store_true', help=f'only {", ".join(QUICK)}')
    parser.add_argument('--arrays', action='store_true', help='the science alone, without files')
    parser.add_argument('--anatomy', type=Path, metavar='CT',
                        help='head CT (NIfTI, HU) that is the anatomy of all heads')  # fmt: skip
    args, extra = parse(parser, argv)
    wanted = args.cases or (QUICK if args.quick else [case.name for case in CASES])
    cases = [case for case in CASES if case.name in wanted]
    bids_dir = (args.data or default_data_dir(args.anatomy)).absolute()
    if args.anatomy:
        ct = str(args.anatomy.absolute())
        cases = [replace(c, settings=replace(c.settings, anatomy=ct)) for c in cases]
    make_heads(bids_dir, {case.label: case.settings for case in cases}, args.jobs)
    if args.arrays:
        return run_arrays(cases, bids_dir, args.jobs, extra)
    with output_folder(args, 'accuracy') as out_dir:
        if not args.score_only:
            run_cases(cases, bids_dir, out_dir, args.jobs, extra)
        return report(cases, bids_dir, out_dir)


def report(cases, bids_dir, out_dir) -> int:
    """Score and print; return the exit code."""
    scores, failed = [], 0
    for case in cases:
        stem = f'sub-{case.label}'
        folder = out_dir / group_name(case.options) / stem / 'ct'
        figures, failures = score_series(folder, stem, read_truth(bids_dir, case.label))
        scores.append((case, figures))
        failed += bool(failures)
        print_case(case, figures, failures)
    print_means(scores)
    print_targets(scores)
    record = {case.name: figures for case, figures in scores}
    (out_dir / 'scores.json').write_text(json.dumps(record, indent=2) + '\n')
    if failed:
        print(f'\nFAIL: {failed} of {len(cases)} cases lack figures')
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
