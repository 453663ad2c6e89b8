# SPDX-License-Identifier: Apache-2.0
"""How long until the first node runs, in a dataset of 1,000 participants of which one is asked for.

    python benchmarks/startup.py
    python benchmarks/startup.py --participants 200 --nprocs 1

The files are tiny and linked to one another: only names, headers and sidecars count here. Time runs from
the start of the command to the start of the first node, as nipype records it; the command is ended then.
Imports are timed on their own, by a process that imports what the command does.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nb
import numpy as np
from speed import machine, read_stages

TARGET = 5.0  # s beyond imports, for one participant
# the modules that the command imports before its first node, in the order in which it does
MODULES = (
    'ctpprep.cli', 'ctpprep.inputs.find', 'bids.layout', 'nibabel', 'ctpprep.interfaces.outputs',
    'ctpprep.workflows.base', 'ctpprep.engine.run',
)  # fmt: skip
ENTRIES = {'series': ('ctp',), 'maps': ('tmax', 'cbf', 'cbv')}


def make_dataset(folder: Path, entry: str, participants: int) -> list[str]:
    """Write a dataset whose files are links to one series, or to one map.

    Parameters
    ----------
    folder : Path
    entry : {'series', 'maps'}
    participants : int

    Returns
    -------
    list of str
        Labels of the participants.
    """
    shape = (4, 4, 4, 12) if entry == 'series' else (4, 4, 4)
    folder.mkdir(parents=True)
    image, sidecar = folder / 'image.nii.gz', folder / 'image.json'
    nb.save(nb.Nifti1Image(np.ones(shape, np.int16), np.diag([2.0, 2, 5, 1])), image)
    sidecar.write_text(json.dumps({'RepetitionTime': 1.5} if entry == 'series' else {}))
    labels = [f'{number:04d}' for number in range(1, participants + 1)]
    for label in labels:
        home = folder / f'sub-{label}' / 'ct'
        home.mkdir(parents=True)
        for suffix in ENTRIES[entry]:
            os.link(image, home / f'sub-{label}_{suffix}.nii.gz')
            os.link(sidecar, home / f'sub-{label}_{suffix}.json')
    image.unlink()
    sidecar.unlink()
    return labels


def time_imports(work: Path) -> float:
    """Time a process that imports what the command imports, s."""
    code = 'from pathlib import Path\nfrom ctpprep.cli.machine import *\n'
    code += f'set_environment(RunSettings(Path(), Path(), Path({str(work)!r})))\n'
    code += ''.join(f'import {name}\n' for name in MODULES)
    templates = work / 'templateflow'
    templates.mkdir(parents=True, exist_ok=True)  # as the command does; templateflow would fill it
    description = {'Name': 'no templates', 'BIDSVersion': '1.9.0'}
    (templates / 'dataset_description.json').write_text(json.dumps(description))
    began = time.time()
    subprocess.run([sys.executable, '-c', code], check=True)
    return time.time() - began


def time_first_node(dataset: Path, nprocs: int, label: str | None) -> float:
    """Start the command, end it at its first node, and tell when that began.

    Parameters
    ----------
    dataset : Path
    nprocs : int
    label : str or None
        The participant asked for, or None for all.

    Returns
    -------
    float
        s since the start of the command.

    Raises
    ------
    RuntimeError
        When the command ends without having begun a node.
    """
    with tempfile.TemporaryDirectory() as folder:
        out, work = Path(folder) / 'out', Path(folder) / 'work'
        command = [sys.executable, '-m', 'ctpprep', str(dataset), str(out), 'participant',
                   '-w', str(work), '--nprocs', str(nprocs)]  # fmt: skip
        command += ['--participant-label', label] if label else []
        began = time.time()
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if line.rstrip().endswith('started'):
                break
        else:
            raise RuntimeError(''.join(said))
        stages = read_stages(work)
        while not stages and process.poll() is None:
            time.sleep(0.2)
            stages = read_stages(work)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        return (stages or read_stages(work))[0].start - began


def main(argv) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('--participants', type=int, default=1000, metavar='N', help='(default: 1000)')
    add('--nprocs', type=int, nargs='*', default=[1, 2], metavar='N', help='(default: 1 2)')
    add('--repeats', type=int, default=3, metavar='N', help='the median counts (default: 3)')
    args = parser.parse_args(argv)
    print(machine())
    met = True
    with tempfile.TemporaryDirectory(prefix='ctpprep-startup-') as folder:
        time_imports(Path(folder) / 'work')  # compiled and cached from here on
        imports = statistics.median(
            time_imports(Path(folder) / 'work') for _ in range(args.repeats)
        )
        print(f'\nimports: {imports:.1f} s\n\n| entry | asked for | processes | first node, s | '
              'beyond imports, s |\n|---|---|---|---|---|')  # fmt: skip
        for entry in ENTRIES:
            dataset = Path(folder) / entry
            labels = make_dataset(dataset, entry, args.participants)
            for label, repeats in ((labels[len(labels) // 2], args.repeats), (None, 1)):
                for nprocs in args.nprocs if label else args.nprocs[:1]:
                    taken = statistics.median(
                        time_first_node(dataset, nprocs, label) for _ in range(repeats)
                    )
                    asked = 'one' if label else f'all {len(labels)}'
                    print(f'| {entry} | {asked} | {nprocs} | {taken:.1f} | {taken - imports:.1f} |',
                          flush=True)  # fmt: skip
                    met &= label is None or taken - imports <= TARGET
    print(f'\none participant within {TARGET:g} s beyond imports: {"met" if met else "missed"}')
    return 0 if met else 1


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
