# SPDX-License-Identifier: Apache-2.0
r"""A population, not a dozen heads: draw heads at random, run the science, score and judge them.

    python benchmarks/population.py --heads 100 --seed 1001 --out FILE.jsonl --jobs 2
    python benchmarks/population.py --seeds 1012 1031                # these heads again
    python benchmarks/population.py --heads 100 --out NEW.jsonl --set vessels.aif_voxels=20 \
        --against FILE.jsonl                                         # a variant of the method
    python benchmarks/population.py --heads 20 --offset 8            # does a density offset matter?
    python benchmarks/population.py --heads 20 --anatomy CT.nii.gz   # heads that are real CTs
    python benchmarks/population.py --report FILE.jsonl [--against OTHER.jsonl]

Each head is one line of ``--out``, written when it is finished. A killed run continues where it was
killed: lines of the same head, method and code are not computed again. Heads are drawn by `heads.py`,
measured by `outcome.py` and judged by `verdicts.py`.
"""

import argparse
import ast
import contextlib
import gzip
import hashlib
import json
import os
import pickle
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import heads
import numpy as np
import outcome
import scores
import verdicts
from accuracy import default_data_dir
from threadpoolctl import threadpool_limits

import ctpprep
from ctpprep.exceptions import CtpprepError, UsageError
from ctpprep.perfusion import assess, compute_maps
from ctpprep.perfusion.grid import voxel_size_mm
from ctpprep.phantom import PhantomSettings, make_phantom
from ctpprep.settings import MethodSettings, declared

PACKAGE = Path(ctpprep.__file__).parent
# modules that change a figure; what is drawn is part of the settings, what is judged is not stored
SCIENCE = ('perfusion/**/*.py', 'phantom/**/*.py', 'settings.py', 'registration.py')
MEASURES = (outcome, scores)
# seeds from 1000 are for reporting, once
FIRST_SEED = 1
CACHE_GB = 20.0


@dataclass(frozen=True)
class Job:
    """One head to run.

    Attributes
    ----------
    settings : PhantomSettings
    variant : dict
        Settings of the method that are not at their defaults, by name.
    offset_hu : float
        Added to the simulated series, HU.
    cache_dir : Path or None
        Folder of the simulated heads.
    cache_gb : float
    """

    settings: PhantomSettings
    variant: dict
    offset_hu: float
    cache_dir: Path | None
    cache_gb: float

    @property
    def key(self) -> str:
        """Digest of everything that the figures depend on."""
        parts = [as_plain(asdict(self.settings)), self.variant, self.offset_hu, code_digest()]
        text = json.dumps([*parts, anatomy_digest(self.settings.anatomy)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def code_digest() -> str:
    """Return the digest of the code that changes a figure."""
    paths = sorted(path for pattern in SCIENCE for path in PACKAGE.glob(pattern))
    paths += [Path(module.__file__) for module in MEASURES]
    return hashlib.sha256(b''.join(path.read_bytes() for path in paths)).hexdigest()[:16]


@cache
def anatomy_digest(path) -> str:
    """Return the digest of a head CT; empty without one."""
    return '' if path is None else hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]


def as_plain(value):
    """Return a value as it is read back from JSON."""
    return json.loads(json.dumps(value, default=lambda item: item.item()))


# -- one head


def load_head(job: Job):
    """Simulate a head, or read it from the cache."""
    if job.cache_dir is None:
        return make_phantom(job.settings)
    text = json.dumps([asdict(job.settings), anatomy_digest(job.settings.anatomy)], sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:16]
    path = job.cache_dir / f'{job.settings.seed}-{name}.pkl.gz'
    if path.exists():
        with gzip.open(path) as file:
            return pickle.load(file)
    head = make_phantom(job.settings)
    job.cache_dir.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'{path.name}.{os.getpid()}')
    with gzip.open(part, 'wb', compresslevel=1) as file:
        pickle.dump(head, file)
    part.replace(path)
    limit_cache(job.cache_dir, job.cache_gb)
    return head


def limit_cache(folder: Path, most_gb: float) -> None:
    """Remove the oldest heads until the folder is within its limit."""
    paths = sorted(folder.glob('*.pkl.gz'), key=lambda path: path.stat().st_mtime)
    excess = sum(path.stat().st_size for path in paths) - most_gb * 1e9
    for path in paths:
        if excess <= 0:
            break
        excess -= path.stat().st_size
        path.unlink(missing_ok=True)


def run_head(job: Job) -> dict:
    """Simulate, compute and measure one head."""
    with threadpool_limits(1):
        return as_plain(make_record(job))


def make_record(job: Job) -> dict:
    """Return the record of one head: everything that `verdicts` needs.

    A result that is refused has the sentence as ``refused``; an unexpected error also, as a crash.
    """
    settings = job.settings
    record = {
        'seed': settings.seed, 'key': job.key, 'code': code_digest(), 'phantom': default_data_dir().name,
        'variant': job.variant,
        'offset_hu': job.offset_hu, 'protocol': heads.protocol_of(settings.seed),
        'truncated': heads.is_truncated(settings), 'settings': asdict(settings),
        'refused': None, 'figures': {}, 'failures': [], 'checks': {},
    }  # fmt: skip
    method = MethodSettings().change(**job.variant)
    began = time.monotonic()
    try:
        head = load_head(job)
        made = time.monotonic()
        series = head.ctp + np.float32(job.offset_hu) if job.offset_hu else head.ctp
        result = compute_maps(
            series, head.sample_times, voxel_size_mm(head.affine), method, head.affine
        )
        record |= {
            'making_s': round(made - began, 1),
            'seconds': round(time.monotonic() - made, 1),
        }
        truth = scores.truth_of(head)
        figures, failures = outcome.measure(result, truth, settings)
        checks = assess(result, method)
    except CtpprepError as error:
        return record | {'refused': str(error)}
    except (OSError, MemoryError):  # of the machine, not of the head
        raise
    except Exception as error:  # one broken head must not end the run
        return record | {'refused': f'crash: {type(error).__name__}: {error}'}
    return record | {'figures': figures, 'failures': failures, 'checks': checks}


def describe(record: dict) -> str:
    """Describe a head and its outcome in one line."""
    settings, figures = record['settings'], record['figures']
    thickness = settings['voxel_size_mm'][2]
    traits = [
        f'{record["protocol"]} {settings["n_slices"]}x{thickness:g} mm',
        f'{settings["n_frames"]}x{settings["frame_interval"]:g} s {settings["timing"]}',
        f'{settings["noise_hu"]:.1f} HU', f'motion {settings["motion_mm"]:.1f}',
        f'tilt {settings["tilt_deg"]:.0f}', settings['residue'],
        *(['MA'] if settings['microangiopathy'] else []),
        *(['truncated'] if record['truncated'] else []),
        *(f'{name}' for name in ('metal',) if settings['scanner'][name]),
        *(name for name in ('stripped', 'calcifications') if settings['head'][name]),
        *(name for name in ('old_infarct_ml', 'skull_defect_mm') if settings['head'][name] > 0),
        *([f'offset {record["offset_hu"]:+g} HU'] if record['offset_hu'] else []),
    ]  # fmt: skip
    text = f'seed {record["seed"]}  {", ".join(traits)}'
    if record['refused'] is not None:
        return f'{text} | REFUSED {record["refused"]}'
    verdict = verdicts.judge(record)
    side = settings['lesion_side'] if settings['lesion'] != 'none' else 'no lesion'
    local = figures.get('core_local_ml')
    core = [figures.get('core_global_ml'), figures.get('core_true_ml')]
    core = '/'.join('n/a' if volume is None else f'{volume:.0f}' for volume in core)
    parts = [
        f'{side}, core {core} mL, local {"withheld" if local is None else f"{local:.0f}"}',
        *(f'WRONG {cause}' for cause in verdict.causes),
        *(f'fails {name}' for name in verdict.failing),
        f'{record["seconds"]:.0f} s',
    ]
    return f'{text} | {" | ".join(parts)}'


# -- records


def read_records(path) -> list[dict]:
    """Read all complete lines of a file of records; none if it is missing."""
    records = []
    if Path(path).exists():
        for line in Path(path).read_text().splitlines():
            # the last line of a killed run may be incomplete
            with contextlib.suppress(json.JSONDecodeError):
                records.append(json.loads(line))
    return records


def append_record(path: Path, record: dict) -> None:
    """Append one line, after the incomplete line of a killed run if there is one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, 'ab+') as file:
        file.seek(0, os.SEEK_END)
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b'\n':
                file.write(b'\n')
        file.write(json.dumps(record).encode() + b'\n')
        file.flush()
        os.fsync(file.fileno())


def latest(records, offset_hu: float | None = None) -> list[dict]:
    """Return the last record of each seed, without offset or with any one but 0.

    Parameters
    ----------
    records : list of dict
    offset_hu : float, optional
        Only records with this offset; all by default.
    """
    chosen = [r for r in records if offset_hu is None or r['offset_hu'] == offset_hu]
    by_seed = {record['seed']: record for record in chosen}
    return [by_seed[seed] for seed in sorted(by_seed)]


def run_jobs(jobs, n_processes: int, out: Path | None) -> dict[str, dict]:
    """Run the heads that are not in `out` yet.

    Returns
    -------
    dict of str to dict
        Records by key.
    """
    wanted = {job.key: job for job in jobs}
    stored = read_records(out) if out else []
    done = {record['key']: record for record in stored if record['key'] in wanted}
    missing = [job for key, job in wanted.items() if key not in done]
    log(f'{len(wanted)} heads, {len(done)} of them done; {len(stored)} lines in {out}')
    for n, record in enumerate(_run(missing, n_processes), 1):
        if out:
            append_record(out, record)
        done[record['key']] = record
        log(f'{n}/{len(missing)}  {describe(record)}')
    return done


def _run(jobs, n_processes):
    """Yield records as they are finished."""
    if n_processes == 1:
        yield from map(run_head, jobs)
        return
    with ProcessPoolExecutor(n_processes) as pool:
        for future in as_completed([pool.submit(run_head, job) for job in jobs]):
            yield future.result()


def log(message: str) -> None:
    """Write a line of progress."""
    print(message, file=sys.stderr, flush=True)


# -- command line


def parse_setting(text: str) -> tuple[str, object]:
    """Parse ``stage.name=value``; the stage may be left out.

    Examples
    --------
    >>> parse_setting('vessels.aif_voxels=20'), parse_setting('penalty_order=1')
    (('aif_voxels', 20), ('penalty_order', '1'))
    """
    path, equals, value = text.partition('=')
    stage, _, name = path.rpartition('.')
    known = declared(MethodSettings)
    if not equals or name not in known or (stage and known[name].about.stage != stage):
        raise argparse.ArgumentTypeError(f'{text} is not stage.name=value of a method setting')
    try:
        parsed = ast.literal_eval(value)
    except (SyntaxError, ValueError):
        parsed = value
    default = known[name].default
    if isinstance(default, str):
        parsed = value
    elif isinstance(default, float):
        parsed = float(parsed)
    try:
        MethodSettings().change(**{name: parsed})
    except (TypeError, UsageError) as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return name, parsed


def make_parser():
    """Declare the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('--heads', type=int, default=20, metavar='N', help='number of heads (default: 20)')
    add('--seed', type=int, default=FIRST_SEED, metavar='S', help='seed of the first head')
    add('--seeds', type=int, nargs='+', metavar='S', help='these heads instead')
    add(
        '--kind',
        action='store_true',
        help='leave head, bolus and scanner traits at their defaults',
    )
    add(
        '--anatomy', nargs='+', default=(), metavar='CT', help='head CTs, used in turn (NIfTI, HU)'
    )
    add('--out', type=Path, metavar='FILE', help='records, one line of JSON per head')
    add('--jobs', type=int, default=1, metavar='N', help='processes (default: 1)')
    add('--set', type=parse_setting, action='append', default=[], dest='variant',
        metavar='STAGE.NAME=VALUE', help='change a setting of the method; repeatable')  # fmt: skip
    add('--offset', type=float, metavar='HU',
        help='also run all heads with this added to the series, and compare')  # fmt: skip
    add('--data', type=Path, metavar='DIR', help='folder of the heads (default: in the cache)')
    add('--no-cache', action='store_true', help='do not keep the simulated heads')
    add('--cache-gb', type=float, default=CACHE_GB, metavar='GB',
        help=f'limit of the kept heads (default: {CACHE_GB:g})')  # fmt: skip
    add('--report', type=Path, metavar='FILE', help='only print the summary of these records')
    add('--against', type=Path, metavar='FILE', help='compare with these records, as before')
    add('--worst', type=int, default=5, metavar='N', help='worst heads listed per figure')
    return parser


def make_jobs(args) -> list[Job]:
    """List the heads to run, with every offset."""
    seeds = args.seeds or range(args.seed, args.seed + args.heads)
    folder = None if args.no_cache else (args.data or default_data_dir()) / 'population'
    anatomies = tuple(str(Path(path).absolute()) for path in args.anatomy)
    offsets = (0.0, args.offset) if args.offset else (0.0,)
    return [
        Job(heads.draw(seed, args.kind, anatomies), dict(args.variant), offset, folder, args.cache_gb)
        for seed in seeds
        for offset in offsets
    ]  # fmt: skip


def report(records, args) -> None:
    """Print the summary, the effect of an offset, and the comparison with another run."""
    if len({record['code'] for record in records}) > 1:
        print('Warning: these records are from several versions of the code; run the heads again')
    plain = latest(records, 0.0)
    verdicts.print_summary(plain, args.worst)
    for offset in sorted({record['offset_hu'] for record in records} - {0.0}):
        print(f'\nWith {offset:+g} HU added to the series (after) against without (before)')
        verdicts.print_comparison(plain, latest(records, offset))
    if args.against:
        print(f'\n{args.against} (before) against this run (after)')
        verdicts.print_comparison(latest(read_records(args.against), 0.0), plain)


def main(argv) -> int:
    """Run the command line and return the exit code."""
    parser = make_parser()
    args = parser.parse_args(argv)
    if args.report:
        records = read_records(args.report)
        if not records:
            parser.error(f'{args.report} contains no records')
        by_head = {(record['seed'], record['offset_hu']): record for record in records}
        report(list(by_head.values()), args)
        return 0
    jobs = make_jobs(args)
    done = run_jobs(jobs, args.jobs, args.out)
    report([done[key] for key in dict.fromkeys(job.key for job in jobs)], args)
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
