# SPDX-License-Identifier: Apache-2.0
"""Measure how many slices ``ctpprep-bids`` converts per second, and in how much memory.

Run ``python benchmarks/dicom.py --studies 6 --frames 30 --slices 100 --size 512 --nprocs 1 2``. Studies,
at most 300, are written to a temporary folder (1.6 GB per study of 3000 slices of 512 x 512). Files are
read once before the clock starts, so that times do not depend on the disk.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
from pydicom.uid import PYDICOM_ROOT_UID

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.dicom import generator as g  # noqa: E402


def draw_head(size, n_slices, n_frames, rng):
    """Draw noise of 8 HU in a head that fills two thirds of the picture and tapers to the vertex."""
    x, y = np.meshgrid(*2 * [np.linspace(-1.5, 1.5, size)], indexing='ij')
    noise = rng.normal(0, 8, (8, size, size)).astype(np.int16)
    hu = np.empty((size, size, n_slices, n_frames), np.int16)
    for z in range(n_slices):
        radius = np.hypot(x, y / 1.15) * (1 + 0.3 * z / n_slices)
        still = np.select([radius < 0.9, radius < 1], [35, 900], -1024).astype(np.int16)
        for frame in range(n_frames):
            hu[..., z, frame] = np.where(radius < 1, still + noise[(frame + z) % 8], still)
    return hu


def write_studies(folder, args):
    """Write one head as many studies, which differ in their UIDs and in the patient."""
    hu = draw_head(args.size, args.slices, args.frames, np.random.default_rng(0))
    scan = g.Scan(
        n_frames=args.frames, n_slices=args.slices, size=args.size, distance=1.5,
        pixel=240 / args.size, hu=hu, slice_times='shuttle', name='study', patient='patient 000',
        interval=1.5,
    )  # fmt: skip
    first = folder / 'study0'
    g.write(g.classic(scan), first)
    root = PYDICOM_ROOT_UID.encode()
    for study in range(1, args.studies):
        copies = folder / f'study{study}'
        copies.mkdir()
        # of the same length, so that the length of no element changes
        changes = {
            root: root.replace(b'.498.', f'.{100 + study}.'.encode()),
            b'patient 000': f'patient {study:03}'.encode(),
        }
        for path in first.iterdir():
            content = path.read_bytes()
            for before, after in changes.items():
                content = content.replace(before, after)
            (copies / path.name).write_bytes(content)


def memory_of(process):
    """Sum what the process and its children hold alone, and once what they share, GB."""
    total = 0
    for part in (process, *process.children(recursive=True)):
        try:
            total += part.memory_full_info().pss
        except psutil.Error:
            continue
    return total / 1e9


def convert(source, target, nprocs):
    """Convert; return seconds, seconds of all processors, and the most memory."""
    command = [sys.executable, '-c', 'import sys; from ctpprep.dicom.cli import main; sys.exit(main())',
               str(source), str(target), '--nprocs', str(nprocs)]  # fmt: skip
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started, peak, done = time.perf_counter(), [0.0], threading.Event()
    run = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)

    def watch():
        process = psutil.Process(run.pid)
        while not done.wait(0.5):
            peak[0] = max(peak[0], memory_of(process))

    watcher = threading.Thread(target=watch)
    watcher.start()
    assert run.wait() == 0
    elapsed = time.perf_counter() - started
    done.set()
    watcher.join()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return elapsed, cpu, peak[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    for name, default in (('studies', 6), ('frames', 30), ('slices', 100), ('size', 512)):
        parser.add_argument(f'--{name}', type=int, default=default)
    parser.add_argument('--nprocs', type=int, nargs='+', default=[1, 2])
    args = parser.parse_args()
    n_images = args.studies * args.frames * args.slices
    print('| studies x slices | pixels | processes | slices/s | slices per CPU s | memory (GB) |')
    print('|---|---|---|---|---|---|')
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / 'source'
        write_studies(source, args)
        for nprocs in args.nprocs:
            for path in source.rglob('IM*'):
                path.read_bytes()
            elapsed, cpu, memory = convert(source, Path(folder) / f'bids{nprocs}', nprocs)
            print(
                f'| {args.studies} x {args.frames * args.slices} | {args.size} x {args.size} | {nprocs} '
                f'| {n_images / elapsed:.0f} | {n_images / cpu:.0f} | {memory:.2f} |',
                flush=True,
            )


if __name__ == '__main__':
    main()
