# SPDX-License-Identifier: Apache-2.0
"""ctpprep and PyPeT on the same heads in one run: raw series to maps, one after the other.

    git clone https://github.com/Marijn311/CT-and-MR-Perfusion-Tool pypet
    python benchmarks/peers.py pypet --python PYTHON_WITH_ITS_REQUIREMENTS
    python benchmarks/peers.py pypet --python PYTHON --anatomy CT.nii.gz    # one more head, in a real CT

ctpprep is `ctpprep.compute_maps` with one process, from the file to all maps, masks and volumes in
memory; PyPeT is its function ``core``, from the same file to its five maps on disk. Both include the
start of Python and the imports. Memory is the greatest sum of the proportional sets of the processes.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from accuracy import default_data_dir, make_heads
from speed import SIZES, machine, run_watched

from ctpprep.phantom import PhantomSettings

OWN = """
import sys
import nibabel as nb
import numpy as np
import ctpprep
image = nb.as_closest_canonical(nb.load(sys.argv[1]))
frame_times = float(sys.argv[2]) * np.arange(image.shape[3])
ctp = np.asanyarray(image.dataobj)
ctpprep.compute_maps(ctp, frame_times, image.header.get_zooms()[:3], affine=image.affine)
"""
PYPET = """
import sys
import config
config.SCAN_INTERVAL = float(sys.argv[2])
import core
core.core(sys.argv[1])
"""
REAL_CT = PhantomSettings(
    seed=205, matrix=256, voxel_size_mm=(0.96, 0.96, 5.0), n_slices=20, n_frames=40,
    frame_interval=1.5, lesion='large', motion_mm=2.0,
)  # fmt: skip


def run(command, folder) -> tuple[float, float, float]:
    """Run one program.

    Returns
    -------
    wall, cpu : float
        s.
    memory : float
        GB.

    Raises
    ------
    RuntimeError
        When the command fails.
    """
    # PyPeT prints characters that not every terminal has
    environment = os.environ | {'MPLBACKEND': 'Agg', 'PYTHONIOENCODING': 'utf-8'}
    with tempfile.TemporaryFile('w+') as log:
        command = [str(part) for part in command]
        code, wall, watch = run_watched(command, log, cwd=folder, env=environment)
        if code:
            log.seek(0)
            raise RuntimeError(f'exit code {code}: {log.read()[-2000:]}')
    return wall, watch.cpu_s(), watch.peak_gb()


def compare(bids_dir: Path, label: str, head: PhantomSettings, checkout: Path, python) -> None:
    """Print the row of one head."""
    with tempfile.TemporaryDirectory(prefix='ctpprep-peers-') as folder:
        series = Path(folder) / f'sub-{label}' / 'ses-01' / f'sub-{label}_ses-01_ctp.nii.gz'
        (series.parent / 'perfusion-maps').mkdir(parents=True)
        [source] = (bids_dir / f'sub-{label}').rglob('*_ctp.nii.gz')
        series.symlink_to(source)
        arguments = (series, head.frame_interval)
        own = run([sys.executable, '-c', OWN, *arguments], folder)
        peer = run([python, '-c', PYPET, *arguments], checkout)
    x = head.voxel_size_mm[0]
    size = f'{head.matrix} x {head.matrix} x {head.n_slices} x {head.n_frames}, {x:g} mm'
    cells = [f'{wall:.1f} s, {cpu:.1f}, {memory:.2f} GB' for wall, cpu, memory in (own, peer)]
    print(f'| {size} | {cells[0]} | {cells[1]} | {own[0] / peer[0]:.2f} |', flush=True)


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('checkout', type=Path, help='of PyPeT')
    parser.add_argument('--python', default=sys.executable, help='with the requirements of PyPeT')
    parser.add_argument('--anatomy', type=Path, metavar='CT', help='head CT (NIfTI, HU)')
    args = parser.parse_args()
    print(f'{machine()}\n')
    print('| head | ctpprep: wall, processor s, memory | PyPeT | ratio of wall times |')
    print('|---|---|---|---|')
    heads = [(default_data_dir(), str(head.seed), head) for head in SIZES.values()]
    if args.anatomy:
        path = args.anatomy.absolute()
        head = PhantomSettings(**{**vars(REAL_CT), 'anatomy': str(path)})
        heads.append((default_data_dir(path), str(head.seed), head))
    for bids_dir, label, head in heads:
        make_heads(bids_dir, {label: head}, 1)
        compare(bids_dir, label, head, args.checkout.absolute(), args.python)


if __name__ == '__main__':
    main()
