# SPDX-License-Identifier: Apache-2.0
"""How fast, and how much memory: run ctpprep on one head per size and watch its processes.

    python benchmarks/speed.py
    python benchmarks/speed.py --sizes 256 --nprocs 1
    python benchmarks/speed.py --sizes 512x70 512x320    # 2 to 4 GB on disk, some minutes each

The series of 512 x 512 are not in the default: a head of 128 x 128 with thick slices whose voxels are
repeated and given noise of their own.

Memory is the summed proportional set size (PSS) of all processes of the run, read every 0.25 s
(Linux). A stage's peak is the highest sum while the stage ran, whatever else ran beside it.
On a shared machine wall time depends on the others' load: processor time is given beside it.
"""

import argparse
import contextlib
import gzip
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import nibabel as nb
import numpy as np
import psutil
from accuracy import default_data_dir, make_heads

from ctpprep.phantom import PhantomSettings, make_phantom

INTERVAL = 0.25  # s between two looks at the memory
LAST_STAGE_OF_MAPS = 'deconvolve'
_SCAN = {'n_slices': 20, 'frame_interval': 1.5, 'lesion': 'large', 'motion_mm': 2.0}
SIZES = {
    '128': PhantomSettings(
        seed=201, matrix=128, voxel_size_mm=(1.72, 1.72, 5.0), n_frames=27, **_SCAN
    ),
    '256': PhantomSettings(
        seed=202, matrix=256, voxel_size_mm=(0.86, 0.86, 5.0), n_frames=45, **_SCAN
    ),
}


@dataclass(frozen=True)
class Large:
    """A series too large to be simulated voxel by voxel.

    Attributes
    ----------
    head : PhantomSettings
        The coarse head.
    repeats : tuple of 3 int
        How often its voxels are repeated along each axis.
    noise_hu : float
        SD of the noise that each repeated voxel gets, HU.
    """

    head: PhantomSettings
    repeats: tuple[int, int, int]
    noise_hu: float = 10.0

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of the series."""
        head, (x, y, z) = self.head, self.repeats
        return head.matrix * x, head.matrix * y, head.n_slices * z, head.n_frames


_COARSE = {'matrix': 128, 'lesion': 'large', 'motion_mm': 2.0}
LARGE = {
    '512x70': Large(
        PhantomSettings(
            seed=203, voxel_size_mm=(1.72, 1.72, 4.0), n_slices=35, n_frames=60,
            frame_interval=1.0, **_COARSE,
        ),
        (4, 4, 2),
    ),
    '512x320': Large(
        PhantomSettings(
            seed=204, voxel_size_mm=(1.72, 1.72, 5.0), n_slices=32, n_frames=19,
            frame_interval=2.5, **_COARSE,
        ),
        (4, 4, 10),
    ),
}  # fmt: skip
# Measured before on another head phantom (45 frames at both sizes) and another day.
PEERS = """\
Other open programs, measured on another phantom (20 slices, 45 frames at both sizes, 0.5 mm motion)
on a shared machine with 2 cores: compare ratios, not seconds.

| program | 128 x 128 | 256 x 256 | what it does |
|---|---|---|---|
| PyPeT | 23 s, 1.25 GB | 72 s, 3.5 GB | raw series to maps |
| ctp_csvd | 156 s, 1.3 GB | 287 s, 4.2 GB | raw series to maps, no motion correction |
"""
PEERS_DECONVOLUTION = """\
Other programs: 179k voxels x 45 frames, AIF given; CPU s, and the same by voxels for 717k.

| method | CPU s | for 717k voxels |
|---|---|---|
| one matrix product (attainable bound) | 0.07-0.3 | 0.2-0.35 (measured) |
| ctp_csvd, block-circulant SVD | 3.7 | 15 |
| PyPeT, block-circulant SVD | 3.9 | 16 |
| osipy, oSVD | 3.0 | 12 |
| dsc-mri-toolbox, cSVD (Octave) | 17.5 | 70 |
"""


# -- large series on disk


def make_large(bids_dir, label, large: Large) -> None:
    """Write a large series frame by frame, unless it is there; without truth.

    Parameters
    ----------
    bids_dir : Path
        Dataset; made if missing.
    label : str
        Participant.
    large : Large
    """
    folder = bids_dir / f'sub-{label}' / 'ct'
    path = folder / f'sub-{label}_ctp.nii.gz'
    sidecar = path.with_name(f'sub-{label}_ctp.json')
    if sidecar.exists():  # written last
        return
    print(f'making sub-{label} in {bids_dir}', flush=True)
    head = make_phantom(large.head)
    folder.mkdir(parents=True, exist_ok=True)
    description = {'Name': 'Large simulated heads', 'BIDSVersion': '1.10.0'}
    (bids_dir / 'dataset_description.json').write_text(json.dumps(description))
    repeats = np.array(large.repeats)
    affine = head.affine @ np.diag([*(1 / repeats), 1.0])
    affine[:3, 3] += head.affine[:3, :3] @ ((1 / repeats - 1) / 2)
    header = nb.Nifti1Header()
    header.set_data_shape(large.shape)
    header.set_data_dtype(np.int16)
    header.set_xyzt_units('mm', 'sec')
    header.set_sform(affine, 1)
    header.set_qform(affine, 1)
    header['pixdim'][4] = large.head.frame_interval
    header['vox_offset'] = 352
    rng = np.random.default_rng(large.head.seed)
    with gzip.open(path, 'wb', compresslevel=1) as stream:
        header.write_to(stream)
        for frame in np.moveaxis(head.ctp, -1, 0):
            for coarse in np.moveaxis(frame, -1, 0):
                plane = coarse.repeat(repeats[0], axis=0).repeat(repeats[1], axis=1)
                for _ in range(repeats[2]):
                    noise = large.noise_hu * rng.standard_normal(plane.shape, dtype=np.float32)
                    stream.write(np.rint(plane + noise).astype(np.int16).tobytes(order='F'))
    timing = {'RepetitionTime': large.head.frame_interval, 'Units': 'HU'}
    sidecar.write_text(json.dumps(timing))


def make_series(sizes: Sequence[str], bids_dir: Path) -> dict[str, tuple[Path, tuple[int, ...]]]:
    """Write the series of some sizes that are not there yet.

    Parameters
    ----------
    sizes : sequence of str
        Keys of `SIZES` and `LARGE`.
    bids_dir : Path
        Dataset of the former; that of the latter lies beside it.

    Returns
    -------
    dict of str to (Path, tuple of int)
        Dataset and shape by participant.
    """
    heads = {str(SIZES[name].seed): SIZES[name] for name in sizes if name in SIZES}
    make_heads(bids_dir, heads, 1)
    made = {
        label: (bids_dir, (each.matrix, each.matrix, each.n_slices, each.n_frames))
        for label, each in heads.items()
    }
    for large in (LARGE[name] for name in sizes if name in LARGE):
        label, folder = str(large.head.seed), bids_dir.with_name(f'{bids_dir.name}-large')
        make_large(folder, label, large)
        made[label] = folder, large.shape
    return made


# -- memory


def pss_bytes(process: psutil.Process) -> int:
    """Proportional set size of one process: shared pages are divided among those who share them."""
    try:
        for line in Path(f'/proc/{process.pid}/smaps_rollup').read_text().splitlines():
            if line.startswith('Pss:'):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return getattr(process.memory_full_info(), 'pss', 0)
    except psutil.Error:  # it has ended
        return 0


class MemoryWatch(threading.Thread):
    """Sum memory and processor time of a process and its descendants until it ends.

    Attributes
    ----------
    samples : list of (float, int, float)
        Time since the epoch, s; bytes; processor time until then, s.
    peak_rss : int
        Highest sum of resident sets, bytes: what processes share counts in each.
    """

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.process = psutil.Process(pid)
        self.samples = []
        self.cpu = {}
        self.peak_rss = 0
        self.ended = threading.Event()

    def run(self):
        """Look every `INTERVAL`."""
        while not self.ended.wait(INTERVAL):
            try:
                family = [self.process, *self.process.children(recursive=True)]
            except psutil.Error:
                return
            resident = 0
            for each in family:
                with contextlib.suppress(psutil.Error):
                    used = each.cpu_times()
                    self.cpu[each.pid] = used.user + used.system
                    resident += each.memory_info().rss
            self.peak_rss = max(self.peak_rss, resident)
            memory = sum(pss_bytes(each) for each in family)
            self.samples.append((time.time(), memory, sum(self.cpu.values())))

    def peak_gb(self, start=-np.inf, end=np.inf) -> float:
        """Highest sum between two times; NaN when no look fell between them."""
        return max((b for t, b, _ in self.samples if start <= t <= end), default=np.nan) / 1e9

    def cpu_s(self, end=np.inf) -> float:
        """Processor time of all processes until a time, s."""
        return max((cpu for t, _, cpu in self.samples if t <= end), default=np.nan)


# -- one run


@dataclass(frozen=True)
class Stage:
    """When a node of the graph ran; seconds since the epoch."""

    name: str
    start: float
    end: float


def read_stages(work_dir) -> list[Stage]:
    """Read from nipype's work folder when each node ran; the parts of a MapNode are one stage.

    Parameters
    ----------
    work_dir : path-like

    Returns
    -------
    list of Stage
        In the order of their start.
    """
    from nipype.utils.filemanip import loadpkl

    spans = {}
    for path in Path(work_dir).rglob('result_*.pklz'):
        name = path.parent.name
        if path.parent.parent.name == 'mapflow':
            name = path.parents[2].name
        runtime = getattr(loadpkl(path), 'runtime', None)
        if getattr(runtime, 'startTime', None) and getattr(runtime, 'endTime', None):
            start, end = (
                datetime.fromisoformat(t).timestamp() for t in (runtime.startTime, runtime.endTime)
            )
            known = spans.get(name, (start, end))
            spans[name] = (min(start, known[0]), max(end, known[1]))
    stages = [Stage(name, *span) for name, span in spans.items()]
    return sorted(stages, key=lambda stage: stage.start)


def run_watched(command, log, **options):
    """Run a command to its end and watch its memory and processor time.

    Parameters
    ----------
    command : sequence of str
    log : file
        What it prints.
    options : dict
        Of `subprocess.Popen`.

    Returns
    -------
    code : int
        Exit code.
    wall : float
        s.
    watch : MemoryWatch
    """
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, **options)
    watch = MemoryWatch(process.pid)
    watch.start()
    code = process.wait()
    wall = time.perf_counter() - began
    watch.ended.set()
    watch.join()
    return code, wall, watch


def measure_run(bids_dir, label, nprocs, extra: Sequence[str]):
    """Run the app on one series.

    Returns
    -------
    code : int
        Exit code.
    began, ended : float
        s since the epoch.
    watch : MemoryWatch
    stages : list of Stage
    """
    with tempfile.TemporaryDirectory(prefix='ctpprep-speed-') as folder:
        work = Path(folder) / 'work'
        command = [sys.executable, '-m', 'ctpprep', str(bids_dir), str(Path(folder) / 'out'),
                   'participant', '--participant-label', label, '-w', str(work),
                   '--nprocs', str(nprocs), *extra]  # fmt: skip
        began = time.time()
        with open(Path(folder) / 'log', 'w+') as log:
            code, wall, watch = run_watched(command, log)
            if code:
                log.seek(0)
                print(log.read())
        return code, began, began + wall, watch, read_stages(work)


def report_run(name, shape, code, began, ended, watch, stages) -> bool:
    """Print the tables of one run; return whether all figures are there."""
    print(f'\n{" x ".join(map(str, shape))}\n\n| stage | s | peak memory, GB |\n|---|---|---|')
    for stage in stages:
        peak = watch.peak_gb(stage.start, stage.end)
        shown = '-' if np.isnan(peak) else f'{peak:.2f}'  # shorter than the interval
        print(f'| {stage.name} | {stage.end - stage.start:.1f} | {shown} |')
    ready = [stage.end for stage in stages if stage.name == LAST_STAGE_OF_MAPS]
    if ready:
        peak, cpu = watch.peak_gb(began, ready[0]), watch.cpu_s(ready[0])
        what = f'start of the command to maps ({cpu:.0f} CPU s)'
        print(f'| **{what}** | **{ready[0] - began:.1f}** | **{peak:.2f}** |')
        print(f'| the same without start-up | {ready[0] - stages[0].start:.1f} | {peak:.2f} |')
    else:
        print('| start of the command to maps | FAIL | FAIL |')
    peak, cpu = watch.peak_gb(), watch.cpu_s()
    print(f'| **whole command ({cpu:.0f} CPU s)** | **{ended - began:.1f}** | **{peak:.2f}** |')
    if code:
        print(f'\nFAIL: {name} ended with exit code {code}')
    return code == 0 and bool(ready) and bool(watch.samples)


# -- deconvolution alone


def time_deconvolution(n_voxels=717_000, n_frames=45, repeats=3):
    """Time the deconvolution of noisy curves, on one thread.

    Parameters
    ----------
    n_voxels, n_frames, repeats : int
        The best of the repeats counts.

    Returns
    -------
    dict of str to float
        s: ``operator`` (made once per sampling pattern), ``product`` (the residue functions
        alone, in blocks as the maps do it), ``maps`` (CBF, CBV, MTT, Tmax and TTP).
    """
    from threadpoolctl import threadpool_limits

    from ctpprep.perfusion import deconvolution, maps
    from ctpprep.settings import MethodSettings

    settings = MethodSettings().as_dict()
    given, constants = settings['deconvolution'], settings['kinetics']
    keys = ('penalty_order', 'residue_step', 'residue_lead', 'calibration_mtt')
    times = 1.5 * np.arange(n_frames)
    aif = 300 * np.exp(-(((times - 15) / 4.5) ** 2))
    rng = np.random.default_rng(0)
    curves = rng.standard_normal((n_voxels, n_frames), dtype=np.float32)
    curves += 8 * np.exp(-(((times - 20) / 6) ** 2)).astype(np.float32)
    weights = np.ones(n_frames)
    area = float(np.trapezoid(aif, times))

    def make_operator(lambda_rel=0.12):
        return deconvolution.deconvolution_operator(
            times, aif, times, weights, lambda_rel=lambda_rel, **{key: given[key] for key in keys}
        )

    operator = make_operator()
    smoother = make_operator(0.12 * given['tmax_lambda_ratio'])
    share = np.ones(n_voxels, dtype=np.float32)
    matrix = operator.matrix.T.astype(np.float32)

    def multiply():
        for start in range(0, n_voxels, maps.CHUNK):
            curves[start : start + maps.CHUNK] @ matrix

    def make_maps():
        maps.perfusion_maps(
            curves, times, weights, operator, smoother, area, share,
            scan_start=0.0, tmax_offset=smoother.tmax_offset, **constants,
        )  # fmt: skip

    with threadpool_limits(1):
        tasks = {'operator': make_operator, 'product': multiply, 'maps': make_maps}
        return {name: _best(task, repeats) for name, task in tasks.items()}


def _best(task, repeats):
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        task()
        taken.append(time.perf_counter() - began)
    return min(taken)


def report_deconvolution(taken) -> None:
    print('\nDeconvolution alone, 717k voxels x 45 frames, one thread\n\n| step | s |\n|---|---|')
    print(f'| operator, once per sampling pattern | {taken["operator"]:.3f} |')
    print(f'| residue functions (matrix product) | {taken["product"]:.2f} |')
    print(f'| all five maps | {taken["maps"]:.2f} |')
    print(f'\n{PEERS_DECONVOLUTION}')


# -- command line


def machine() -> str:
    memory = psutil.virtual_memory().total / 1e9
    load = os.getloadavg()[0]
    return (
        f'{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GB, '
        f'Python {platform.python_version()}, load before the start {load:.1f}'
    )


def main(argv) -> int:
    own, extra = argv, []
    if '--' in argv:
        own, extra = argv[: argv.index('--')], argv[argv.index('--') + 1 :]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        '--sizes',
        nargs='*',
        choices=[*SIZES, *LARGE],
        default=list(SIZES),
        help=f'matrix, or matrix x slices (default: {" ".join(SIZES)})',
    )
    add('--nprocs', type=int, default=2, metavar='N', help="the app's processes (default: 2)")
    add('--data', type=Path, metavar='DIR', help='folder of the heads (default: in the cache)')
    add('--no-deconvolution', action='store_true', help='leave out deconvolution alone')
    args = parser.parse_args(own)
    print(machine())
    wanted = make_series(args.sizes, (args.data or default_data_dir()).absolute())
    complete = True
    for label, (folder, shape) in wanted.items():
        measured = measure_run(folder, label, args.nprocs, extra)
        complete &= report_run(f'sub-{label}', shape, *measured)
        sys.stdout.flush()
    print(f'\n{PEERS}')
    if not args.no_deconvolution:
        report_deconvolution(time_deconvolution())
    return 0 if complete else 1


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
