# SPDX-License-Identifier: Apache-2.0
"""The ``ctpprep`` command.

The options of the method are made from `MethodSettings`. Whatever is slow to import is imported
when it is needed, after the environment has been set that it reads.
"""

import argparse
import contextlib
import csv
import dataclasses
import difflib
import importlib.metadata
import logging
import os
import pwd
import re
import sys
import time
import traceback
import typing
import uuid
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from ctpprep import __version__
from ctpprep.exceptions import CtpprepError, UsageError
from ctpprep.settings import ENTRIES, About, MethodSettings, RunSettings

if typing.TYPE_CHECKING:
    from ctpprep.workflows.execution import SeriesResult

logger = logging.getLogger('ctpprep')

LEVELS = ('participant', 'group')
# stages that maps made elsewhere do not go through
SERIES_STAGES = ('grid', 'motion', 'vessels', 'denoising', 'deconvolution', 'coregistration')
INTERRUPTED = 130  # as shells report SIGINT


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; those of the process by default.

    Returns
    -------
    int
        0 if every series succeeded, 1 if not, 2 for a command that is not understood.
    """
    parser = make_parser()
    try:
        args = parser.parse_args(sys.argv[1:] if argv is None else argv)
    except SystemExit as stop:
        return int(stop.code or 0)
    try:
        try:
            method, run = read_settings(args)
        except UsageError as error:
            return _complain(error, 2)
        with _console(run.verbosity):
            check_folders(run)
            set_environment(run)
            return run_group(run) if args.level == 'group' else run_participants(method, run)
    except CtpprepError as error:
        return _complain(error, 1)
    except KeyboardInterrupt:
        return _complain('interrupted; the same command takes up the work again', INTERRUPTED)
    except Exception:
        traceback.print_exc()
        return _complain('this should not have happened, please report it with the above', 1)


def _complain(message: object, code: int) -> int:
    print(f'ctpprep: error: {message}', file=sys.stderr)
    return code


# -- what to do


def run_participants(method: MethodSettings, run: RunSettings) -> int:
    """Process every series; return the exit code."""
    from ctpprep.dataset import FailedSeries
    from ctpprep.series import find_series
    from ctpprep.supplied import add_supplied, dataset_links

    found = add_supplied(find_series(run), run)
    series = [each for each in found if not isinstance(each, FailedSeries)]
    for each in found:
        if isinstance(each, FailedSeries):
            _complain(each.reason, 1)
    if not series:
        return 1
    make_folder(run.work_dir, '-w/--work-dir')
    make_folder(run.output_dir, 'output_dir')
    make_folder(run.output_dir / 'logs', 'output_dir')
    templates = Path(os.environ['TEMPLATEFLOW_HOME'])
    if templates.is_relative_to(run.work_dir):  # the file keeps templateflow from filling it
        templates.mkdir(exist_ok=True)
        description = '{"Name": "no templates are needed", "BIDSVersion": "1.9.0"}\n'
        (templates / 'dataset_description.json').write_text(description)
    with _log_file(run.output_dir / 'logs' / f'run-{run.run_uuid}.log'):
        logger.info(
            '%d series, %d processes, %.1f GB of memory, work folder %s',
            len(series), run.nprocs, run.mem_gb, run.work_dir,
        )  # fmt: skip
        from ctpprep.interfaces.bids import write_dataset_description
        from ctpprep.workflows.base import init_ctpprep_wf
        from ctpprep.workflows.execution import SeriesResult, run_workflow, write_graph

        links = {'raw': run.bids_dir, **dataset_links(run, series)}
        write_dataset_description(run.output_dir, links, __version__)
        workflow = init_ctpprep_wf(series, method, run)
        if run.write_graph:
            logger.info('graph: %s', write_graph(workflow, run))
        began = time.time()
        results = run_workflow(workflow, series, run)
        remove_stale(series, results, method, run, began)
        for each in found:
            if isinstance(each, FailedSeries):
                results.append(SeriesResult(each.prefix, False, each.reason))
        results.sort(key=lambda result: result.prefix)
        write_reports(found, results, method, run)
        tell_entries(series, results, run.output_dir)
        told = with_quality(results, run.output_dir)
        logger.info('\n%s\noutputs: %s', tabulate(told), run.output_dir)
    return 0 if all(result.succeeded for result in results) else 1


def remove_stale(
    series: Sequence[typing.Any],
    results: Sequence['SeriesResult'],
    method: MethodSettings,
    run: RunSettings,
    began: float,
) -> None:
    """Remove what an earlier run left of a series that has failed now: no page may mix runs."""
    from ctpprep.interfaces.bids import remove_older
    from ctpprep.workflows.derivatives import written_paths

    failed = {each.prefix for each in results if not each.succeeded}
    for each in series:
        if each.prefix in failed and remove_older(
            written_paths(each, method, run.output_dir), began
        ):
            logger.info('%s failed: the files of an earlier run were removed', each.prefix)


def write_reports(
    found: Sequence[typing.Any],
    results: Sequence['SeriesResult'],
    method: MethodSettings,
    run: RunSettings,
) -> None:
    """Write the page of every participant, also of one whose series failed."""
    from ctpprep.dataset import FailedSeries
    from ctpprep.ready_maps import ReadyMaps
    from ctpprep.reports import build_report
    from ctpprep.workflows.base import init_series_wf

    failed = {each.prefix: each for each in results if not each.succeeded}
    for label in dict.fromkeys(each.participant for each in found):
        mine = [each for each in found if each.participant == label]
        usable = [each for each in mine if not isinstance(each, FailedSeries)]
        texts = {each.prefix: init_series_wf(each, method, run).visit_desc() for each in usable}
        methods = next(iter(texts.values()), '')
        if len(set(texts.values())) > 1:  # what was supplied differs from series to series
            methods = '\n'.join(f'## {prefix}\n{text}' for prefix, text in texts.items())
        maps_only = bool(usable) and all(isinstance(each, ReadyMaps) for each in usable)
        info = describe_run(method, SERIES_STAGES if maps_only else ()) | {
            'Timing': {
                each.prefix: 'maps made elsewhere'
                if isinstance(each, ReadyMaps)
                else each.timing_source
                for each in usable
            },
            'Supplied': {
                each.prefix: ', '.join(file.uri for file in each.supplied.values()) or 'nothing'
                for each in usable
            },
            'failed': [
                {'prefix': each.prefix, 'reason': failed[each.prefix].cause}
                for each in mine
                if each.prefix in failed
            ],
        }
        logger.info('report: %s', build_report(run.output_dir, label, methods, info))


def describe_run(method: MethodSettings, not_run: tuple[str, ...] = ()) -> dict[str, typing.Any]:
    """Tell software and settings; nothing of the machine, since the record travels."""
    stages = dict.fromkeys(
        each.metadata['about'].stage for each in dataclasses.fields(MethodSettings)
    )
    stages = dict.fromkeys(each for each in stages if each not in not_run)
    packages = ('nipype', 'niworkflows', 'antspyx', 'nibabel', 'numpy', 'scipy', 'pybids')
    return {
        'version': __version__,
        'Software': {'ctpprep': __version__}
        | {'Python': '.'.join(map(str, sys.version_info[:3]))}
        | {name: importlib.metadata.version(name) for name in packages},
        'Settings': {stage: method.stage(stage) for stage in stages},
    }


def run_group(run: RunSettings) -> int:
    """Collect the tables of all participants; return the exit code."""
    from ctpprep.group import collect_tables

    written = collect_tables(run)
    logger.info('written: %s', ', '.join(str(path) for path in written))
    return 0


def tell_entries(
    series: Sequence[typing.Any], results: Sequence['SeriesResult'], output_dir: Path
) -> None:
    """Say of maps made elsewhere which units were read or assumed, and whence masks and CT are."""
    from ctpprep.ready_maps import ReadyMaps
    from ctpprep.reports.page import read_notes

    ok = {each.prefix for each in results if each.succeeded}
    for each in series:
        if isinstance(each, ReadyMaps) and each.prefix in ok:
            sidecar = output_dir / each.out_subdir / f'{each.prefix}_tmax.json'
            for note in read_notes(sidecar):
                logger.info('%s: %s', each.prefix, note)


def with_quality(results: Sequence['SeriesResult'], output_dir: Path) -> list['SeriesResult']:
    """Say of each finished series what quality control doubts: its maps may be there and wrong."""
    from ctpprep.perfusion.quality import CHECKS

    titles, told = {check.name: check.title for check in CHECKS}, []
    for result in results:
        tables = sorted(output_dir.rglob(f'{result.prefix}_desc-qualitycontrol_ctp.tsv'))
        if result.succeeded and tables:
            with tables[0].open(newline='') as file:
                row = next(csv.DictReader(file, delimiter='\t'), {})
            grades = {
                name.removesuffix('_status'): grade
                for name, grade in row.items()
                if name.endswith('_status') and grade in ('warn', 'fail')
            }
            doubts = [f'{titles.get(name, name)} ({grade})' for name, grade in grades.items()]
            cause = f'quality: {", ".join(doubts)}' if doubts else ''
            if (caution := row.get('caution') or 'n/a') != 'n/a':
                cause = f'CAUTION: {caution}; {cause}'
            if cause:
                result = dataclasses.replace(result, cause=cause)
        told.append(result)
    return told


def tabulate(results: Sequence['SeriesResult']) -> str:
    """Lay out what became of each series: name, result, cause, crash file."""
    width = max(len(result.prefix) for result in results)
    lines = []
    for result in results:
        state = 'ok' if result.succeeded else 'failed'
        lines.append(f'{result.prefix:{width}}  {state:6}  {result.cause}'.rstrip())
        if result.crash_file is not None:
            lines.append(f'{"":{width}}          crash file: {result.crash_file}')
    return '\n'.join(lines)


# -- options


def make_parser() -> argparse.ArgumentParser:
    """Declare all options."""
    parser = _Parser(
        prog='ctpprep',
        usage='%(prog)s bids_dir output_dir {participant,group} [options]',
        allow_abbrev=False,
        description='Perfusion maps, infarct core and report from CT perfusion series in BIDS.',
        epilog='Exit code: 0 if every series succeeded, 1 if one failed, 2 for a wrong command.',
    )
    add = parser.add_argument
    add('bids_dir', type=_folder, help='root of the BIDS dataset')
    add('output_dir', type=_folder, help='where the derivatives go')
    add(
        'level', type=_choice(LEVELS), metavar='{participant,group}',
        help='process participants, or collect the tables of all of them',
    )  # fmt: skip
    add('--version', action='version', version=f'ctpprep {__version__}')
    add('-v', '--verbose', action='count', default=0, help='say more; -vv for debugging')

    add = parser.add_argument_group('input').add_argument
    add(
        '--participant-label', nargs='+', default=(), metavar='LABEL',
        help='participants to process, with or without sub- (default: all)',
    )  # fmt: skip
    add(
        '--session-label', '--session-id', nargs='+', default=(), metavar='LABEL',
        help='sessions to process, with or without ses- (default: all)',
    )  # fmt: skip
    add(
        '--entry', type=_choice(ENTRIES), default='auto', metavar=f'{{{",".join(ENTRIES)}}}',
        help='what to process: CT perfusion series, maps made elsewhere, or maps where a session '
        'has no series (default: auto)',
    )  # fmt: skip
    add(
        '--frame-interval', type=float, metavar='S',
        help='time between frames in s, instead of what the dataset says',
    )  # fmt: skip
    add(
        '--frame-times', type=_folder, metavar='FILE',
        help='text file with the time of each frame in s, instead of what the dataset says',
    )  # fmt: skip

    add(
        '-d', '--derivatives', type=_dataset, action='append', default=[], metavar='NAME=PATH',
        help='dataset that holds brain masks, motion-corrected series or AIFs in place of steps; '
        'may be repeated, the first that has a file counts',
    )  # fmt: skip
    add(
        '--brain-mask', type=_folder, metavar='FILE',
        help='mask of the brain (NIfTI), in place of ours; for one series',
    )  # fmt: skip
    add(
        '--aif-file', type=_folder, metavar='FILE',
        help='AIF as a table (tsv: time in s, aif and perhaps vof in HU above baseline) or as a '
        'mask of its voxels (NIfTI), in place of ours; for one series',
    )  # fmt: skip

    add = parser.add_argument_group('resources').add_argument
    add(
        '-w', '--work-dir', type=_folder, metavar='DIR',
        help='folder for intermediate files; the same folder lets a stopped run go on '
        '(default: OUTPUT_DIR with _work added to its name, or the same beside BIDS_DIR if '
        'OUTPUT_DIR is inside it)',
    )  # fmt: skip
    add(
        '--nprocs', '--nthreads', type=_count, metavar='N',
        help='processes at a time (default: all cores this process may use)',
    )  # fmt: skip
    add(
        '--omp-nthreads', type=_count, default=1, metavar='N',
        help='threads a process; with more than 1, results may differ in the last digits '
        '(default: 1)',
    )  # fmt: skip
    add(
        '--mem', type=_memory_gb, metavar='SIZE',
        help='memory to plan with: MB, or with G or M added (default: 90 %% of what is available)',
    )  # fmt: skip
    add('--write-graph', action='store_true', help='draw the graph of steps into OUTPUT_DIR/logs')
    _add_method_options(parser)
    return parser


def _add_method_options(parser: argparse.ArgumentParser) -> None:
    """Add one option for each field of `MethodSettings`, grouped by stage."""
    types = typing.get_type_hints(MethodSettings)
    groups: dict[str, argparse._ArgumentGroup] = {}
    for each in dataclasses.fields(MethodSettings):
        about: About = each.metadata['about']
        if about.stage not in groups:
            groups[about.stage] = parser.add_argument_group(f'method: {about.stage}')
        option, default = '--' + each.name.replace('_', '-'), each.default
        shown = ' '.join(f'{v:g}' for v in default) if isinstance(default, tuple) else default
        shown = {True: 'yes', False: 'no'}.get(shown, shown) if type(shown) is bool else shown
        unit = f' {about.unit}' if about.unit else ''
        source = f'; {about.source}' if about.source else ''
        text = f'{about.meaning} (default: {shown}{unit}{source})'
        kind: dict[str, typing.Any] = {'default': argparse.SUPPRESS}
        if isinstance(default, bool):
            kind['action'] = argparse.BooleanOptionalAction
        elif isinstance(default, tuple):
            inner = typing.get_args(types[each.name])
            kind |= {'type': inner[0], 'nargs': '+' if inner[-1] is ... else len(inner)}
        elif about.choices:
            kind |= {'type': _choice(about.choices), 'metavar': f'{{{",".join(about.choices)}}}'}
        else:
            kind['type'] = type(default)
        if 'metavar' not in kind and not isinstance(default, bool):
            kind['metavar'] = (about.unit if about.unit.isalpha() else 'value').upper()
        groups[about.stage].add_argument(option, help=text.replace('%', '%%'), **kind)


class _Parser(argparse.ArgumentParser):
    """A parser that answers mistakes in one line, with the nearest valid spelling."""

    def parse_args(self, args=None, namespace=None):
        """Check the spelling of options first: a misspelt one would shift the positionals."""
        known = self._option_string_actions
        for word in args or ():
            option = word.partition('=')[0] if word.startswith('--') else word[:2]
            if re.match(r'--?[A-Za-z]', option) and option not in known:
                near = difflib.get_close_matches(word.partition('=')[0], known, n=1)
                hint = f'did you mean {near[0]}?' if near else 'see ctpprep --help'
                self.error(f'there is no option {word.partition("=")[0]}; {hint}')
        return super().parse_args(args, namespace)

    def error(self, message):
        """Print one line and exit with 2."""
        self.exit(2, f'{self.prog}: error: {message}\n')


def _choice(allowed: tuple[str, ...]) -> typing.Callable[[str], str]:
    def parse(text: str) -> str:
        if text in allowed:
            return text
        near = difflib.get_close_matches(text, allowed, n=1)
        hint = f'; did you mean {near[0]}?' if near else ''
        raise argparse.ArgumentTypeError(f'{text!r} is not one of {", ".join(allowed)}{hint}')

    return parse


def _folder(text: str) -> Path:
    return Path(text).expanduser().absolute()


def _dataset(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition('=')
    if not equals or not path or not re.fullmatch(r'[A-Za-z0-9]+', name) or name == 'raw':
        raise argparse.ArgumentTypeError(
            f'NAME=PATH is needed, with letters and digits in NAME and not raw, got {text!r}'
        )
    return name, _folder(path)


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'a whole number from 1 on is needed, got {text!r}')
    return int(text)


def _memory_gb(text: str) -> float:
    """Read a size: MB, or with a suffix.

    Examples
    --------
    >>> _memory_gb('8000'), _memory_gb('8G'), _memory_gb('500MB')
    (8.0, 8.0, 0.5)
    """
    match = re.fullmatch(r'(\d+(?:\.\d+)?)\s*([MGT]?)B?', text.strip(), re.IGNORECASE)
    if not match or float(match[1]) <= 0:
        raise argparse.ArgumentTypeError(
            f'a size such as 8000 (MB), 8000M or 8G is needed, got {text!r}'
        )
    return float(match[1]) * {'': 1e-3, 'M': 1e-3, 'G': 1.0, 'T': 1e3}[match[2].upper()]


def read_settings(args: argparse.Namespace) -> tuple[MethodSettings, RunSettings]:
    """Turn parsed options into settings.

    Raises
    ------
    UsageError
        When a value is out of its range.
    """
    if args.frame_interval is not None and args.frame_times is not None:
        raise UsageError('--frame-interval and --frame-times exclude each other')
    names = {each.name for each in dataclasses.fields(MethodSettings)}
    given = {name: value for name, value in vars(args).items() if name in names}
    given = {name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}
    cores = available_cores()
    run = RunSettings(
        bids_dir=args.bids_dir,
        output_dir=args.output_dir,
        work_dir=args.work_dir or default_work_dir(args.bids_dir, args.output_dir),
        participant_label=tuple(args.participant_label),
        session_label=tuple(args.session_label),
        nprocs=min(args.nprocs or cores, cores),
        omp_nthreads=min(args.omp_nthreads, cores),
        mem_gb=args.mem or 0.9 * available_memory_gb(),
        frame_interval=args.frame_interval,
        frame_times=args.frame_times,
        brain_mask=args.brain_mask,
        aif_file=args.aif_file,
        derivatives=tuple(args.derivatives),
        entry=args.entry,
        verbosity=args.verbose,
        run_uuid=f'{time.strftime("%Y%m%d-%H%M%S")}_{uuid.uuid4()}',
        write_graph=args.write_graph,
    )
    return MethodSettings(**given), run


# -- folders, machine, environment


def default_work_dir(bids_dir: Path, output_dir: Path) -> Path:
    """Choose a work folder outside of the dataset, the same for the same command.

    Examples
    --------
    >>> default_work_dir(Path('/data/raw'), Path('/data/out')).as_posix()
    '/data/out_work'
    >>> default_work_dir(Path('/data/raw'), Path('/data/raw/derivatives/ctpprep')).as_posix()
    '/data/ctpprep_work'
    """
    inside = output_dir.resolve().is_relative_to(bids_dir.resolve())
    return (bids_dir if inside else output_dir).parent / f'{output_dir.name}_work'


def check_folders(run: RunSettings) -> None:
    """Refuse folders that would mix inputs, outputs and intermediate files."""
    bids, out, work = (path.resolve() for path in (run.bids_dir, run.output_dir, run.work_dir))
    if not bids.is_dir():
        raise UsageError(f'the dataset {run.bids_dir} is not a folder')
    if out == bids:
        raise UsageError('output_dir is bids_dir; choose e.g. BIDS_DIR/derivatives/ctpprep')
    inside = out.relative_to(bids).parts[:1] if out.is_relative_to(bids) else ()
    # a folder `derivatives` may itself be the dataset: that of maps made elsewhere
    beside = bids.name == 'derivatives' and not ''.join(inside).startswith('sub-')
    if inside and inside != ('derivatives',) and not beside:
        raise UsageError(
            f'output_dir {run.output_dir} is inside the dataset; only its folder derivatives/ may '
            'take outputs'
        )
    if work.is_relative_to(bids) or work == out:
        role = 'output_dir' if work == out else 'inside the dataset'
        raise UsageError(f'the work folder {run.work_dir} is {role}; choose another with -w')


def make_folder(folder: Path, option: str) -> None:
    """Make a folder and try to write to it; the error names the option to change."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f'.probe-{uuid.uuid4()}'
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UsageError(
            f'cannot write to {folder} ({error.strerror}); choose another folder with {option}'
        ) from error


def _cgroup_numbers(*names: str) -> list[list[str]]:
    """Read the limit files of the control group this process sees."""
    found = []
    for name in names:
        with contextlib.suppress(OSError):
            found.append(Path('/sys/fs/cgroup', name).read_text().split())
    return found


def available_cores() -> int:
    """Count the cores this process may use, by its affinity and its control group."""
    has_affinity = hasattr(os, 'sched_getaffinity')  # Linux
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    for numbers in _cgroup_numbers('cpu.max'):
        if numbers[0].isdigit():
            cores = min(cores, max(1, int(numbers[0]) // int(numbers[1])))
    return cores


def available_memory_gb() -> float:
    """Memory this process may use: the least of machine, control group and SLURM's grant."""
    limits = [os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9]
    for numbers in _cgroup_numbers('memory.max', 'memory/memory.limit_in_bytes'):
        if numbers[0].isdigit():
            limits.append(int(numbers[0]) / 1e9)
    granted = os.environ.get('SLURM_MEM_PER_NODE', '')
    if granted.isdigit() and int(granted) > 0:  # 0 stands for all
        limits.append(int(granted) / 1e3)
    return min(limits)


def set_environment(run: RunSettings) -> None:
    """Set what libraries read when they are imported; workers inherit it.

    Caches go to the work folder since a home may be read-only; nothing asks the network.
    """
    with_threads = ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS')
    for name in (*with_threads, 'ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS'):
        os.environ[name] = str(run.omp_nthreads)
    defaults = {
        'MPLBACKEND': 'Agg',
        'MPLCONFIGDIR': str(run.work_dir / 'matplotlib'),
        'NIPYPE_CONFIG_DIR': str(run.work_dir / 'nipype'),
        'NIPYPE_NO_ET': '1',
        'NO_ET': '1',
        'TEMPLATEFLOW_AUTOUPDATE': '0',
        'TEMPLATEFLOW_HOME': str(run.work_dir / 'templateflow'),
    }
    if run.verbosity == 0:
        defaults['PYTHONWARNINGS'] = 'ignore'
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:  # a container run as any user: getpass.getuser() would fail
        defaults['LOGNAME'] = 'ctpprep'
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


@contextlib.contextmanager
def _console(verbosity: int) -> Iterator[None]:
    """Send messages to the terminal as plain lines."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter('%(message)s'))
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if verbosity else logging.INFO)
    try:
        with warnings.catch_warnings():
            if not verbosity:
                warnings.simplefilter('ignore')
            yield
    finally:
        logger.removeHandler(handler)


@contextlib.contextmanager
def _log_file(path: Path) -> Iterator[None]:
    """Write messages to the run's log file, too."""
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter('%(asctime)s %(levelname)s %(message)s'))
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
