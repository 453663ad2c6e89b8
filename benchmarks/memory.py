# SPDX-License-Identifier: Apache-2.0
"""How much memory each node takes, beside the estimate by which nodes are started side by side.

    python benchmarks/memory.py
    python benchmarks/memory.py --sizes 256

Each node runs in a process of its own, forked from one that has imported the graph, as workers are; the
system tells its peak resident set. That counts what is shared with the other processes, too. Maps are
those of the first size, their voxels repeated 4 x 4 times, to 512 x 512 x 20 voxels or so.
"""

import argparse
import multiprocessing
import os
import resource
import sys
import tempfile
import warnings
from pathlib import Path

import nibabel as nb
import numpy as np
from accuracy import default_data_dir, make_heads
from nipype.pipeline.engine.utils import topological_sort
from nipype.pipeline.plugins.base import PluginBase
from speed import LARGE, SIZES, machine, make_large

from ctpprep.cli.machine import set_environment
from ctpprep.engine import run as engine_run
from ctpprep.inputs.find import find_series
from ctpprep.settings import MethodSettings, RunSettings
from ctpprep.workflows.base import init_ctpprep_wf

MAPS = ('cbf', 'cbv', 'mtt', 'tmax')


class ForkPlugin(PluginBase):
    """Run nodes one after the other, each in a fork, and note the peaks of their memory.

    Attributes
    ----------
    peaks : list of (str, float, float)
        Name, estimate in GB, peak resident set in GB.
    """

    def __init__(self):
        super().__init__()
        self.peaks = []

    def run(self, graph, config, updatehash=False):
        """Run the graph; nipype's interface."""
        for node in topological_sort(graph)[0]:
            child = os.fork()
            if child == 0:
                try:
                    node.run()
                except BaseException as error:  # the fork must never leave this block
                    print(f'FAIL: {node.fullname}: {error}', file=sys.stderr, flush=True)
                    os._exit(1)
                os._exit(0)
            _, status, used = os.wait4(child, 0)
            peak = used.ru_maxrss * 1024 / 1e9 if status == 0 else np.nan
            self.peaks.append((node.name, node.mem_gb, peak))


def measure(bids_dir: Path, label: str, folder: Path, entry: str = 'series'):
    """Run the graph of one participant.

    Returns
    -------
    list of (str, float, float)
        As of `ForkPlugin`.
    """
    run = RunSettings(
        bids_dir, folder / 'out', folder / 'work', participant_label=(label,), nprocs=2,
        entry=entry, run_uuid='memory',
    )  # fmt: skip
    series = [each for each in find_series(run) if each.can_run]
    run.work_dir.mkdir(parents=True)
    workflow = init_ctpprep_wf(series, MethodSettings(), run)
    engine_run.configure(workflow, series, run)
    plugin = ForkPlugin()
    workflow.run(plugin=plugin)
    return plugin.peaks


def enlarge_maps(out: Path, label: str, folder: Path) -> None:
    """Write the maps of a run with 4 x 4 voxels in place of each."""
    home = folder / f'sub-{label}' / 'ct'
    home.mkdir(parents=True)
    for name in (*MAPS, 'desc-hmc_ctpref'):
        image = nb.load(out / f'sub-{label}' / 'ct' / f'sub-{label}_{name}.nii.gz')
        voxels = np.asarray(image.dataobj).repeat(4, axis=0).repeat(4, axis=1)
        affine = image.affine @ np.diag([0.25, 0.25, 1, 1])
        affine[:3, 3] -= image.affine[:3, :2].sum(axis=1) * 0.375
        nb.save(nb.Nifti1Image(voxels, affine), home / f'sub-{label}_{name}.nii.gz')


def apart(function, *args) -> None:
    """Call a function in another process: forks inherit what this one ever held."""
    process = multiprocessing.get_context('spawn').Process(target=function, args=args)
    process.start()
    process.join()


def report(title: str, peaks) -> bool:
    """Print the table of one run; return whether every estimate holds."""
    print(f'\n### {title}\n\n| node | estimate, GB | peak, GB | |\n|---|---|---|---|')
    for name, estimate, peak in peaks:
        held = 'FAIL' if np.isnan(peak) else '' if peak <= estimate else 'above'
        print(f'| {name} | {estimate:.2f} | {peak:.2f} | {held} |')
    sys.stdout.flush()
    return all(peak <= estimate for _, estimate, peak in peaks)


def main(argv) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    choices = [*SIZES, *LARGE]
    parser.add_argument('--sizes', nargs='*', choices=choices, default=choices)
    args = parser.parse_args(argv)
    warnings.simplefilter('ignore')
    print(machine())
    bids_dir = default_data_dir().absolute()
    held = True
    with tempfile.TemporaryDirectory(prefix='ctpprep-memory-') as temporary:
        top = Path(temporary)
        set_environment(RunSettings(top, top, top))
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
        print(f'a process that has imported the graph: {own:.2f} GB')
        for size in args.sizes:
            if size in SIZES:
                head = SIZES[size]
                label, data = str(head.seed), bids_dir
                apart(make_heads, data, {label: head}, 1)
                shape = (head.matrix, head.matrix, head.n_slices, head.n_frames)
            else:
                label = str(LARGE[size].head.seed)
                data = bids_dir.with_name(f'{bids_dir.name}-large')
                apart(make_large, data, label, LARGE[size])
                shape = LARGE[size].shape
            held &= report(' x '.join(map(str, shape)), measure(data, label, top / size))
            if size == args.sizes[0]:
                apart(enlarge_maps, top / size / 'out', label, top / 'maps')
                peaks = measure(top / 'maps', label, top / 'of-maps', entry='maps')
                held &= report('maps made elsewhere, their voxels repeated 4 x 4 times', peaks)
    print(f'\nevery node within its estimate: {"yes" if held else "no"}')
    return 0 if held else 1


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
