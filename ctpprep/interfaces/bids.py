# SPDX-License-Identifier: Apache-2.0
"""Writing derivatives: every file whole, or not at all."""

import contextlib
import fcntl
import json
import os
import shutil
import time
import uuid
from pathlib import Path

import nibabel as nb
import numpy as np
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    DynamicTraitedSpec,
    File,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)
from nipype.interfaces.io import add_traits

from ctpprep.dataset import read_links
from ctpprep.interfaces.preprocessing import AIR_HU

PARTIAL = '.partial-'  # start of the name of a file that is being written
ABANDONED = 3600.0  # s after which nobody is still writing one


def put_in_place(write, path):
    """Write a file under another name and move it to its own in one step.

    Parameters
    ----------
    write : callable
        Takes the temporary path, which keeps the extension.
    path : Path
        Final place; its folder is made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # process ids repeat from host to host
    partial = path.with_name(f'{PARTIAL}{uuid.uuid4().hex}-{path.name}')
    try:
        write(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(content, path):
    """Write a JSON file in one step.

    Parameters
    ----------
    content : dict
    path : Path
    """
    text = json.dumps(content, indent=2) + '\n'
    put_in_place(lambda partial: partial.write_text(text), path)


def _write_image(source, path):
    """Store an image as it travels: compressed, without NaN, a series as scaled integers."""
    image = nb.load(source)
    voxels = np.asanyarray(image.dataobj)
    if voxels.ndim == 4 and voxels.shape[3] > 3:
        filled = np.nan_to_num(voxels, nan=AIR_HU)
        stored = nb.Nifti1Image(filled, image.affine, image.header)
        # a sixteenth of a HU is finer than any noise and halves the file
        stored.set_data_dtype(np.int16)
    else:
        kind = np.uint8 if voxels.dtype.kind in 'bui' else np.float32
        stored = nb.Nifti1Image(np.nan_to_num(voxels).astype(kind), image.affine, image.header)
        stored.set_data_dtype(kind)
    put_in_place(lambda partial: nb.save(stored, partial), path)


class _WriteDerivativesInputSpec(DynamicTraitedSpec, BaseInterfaceInputSpec):
    rows = traits.List(traits.Dict, mandatory=True, desc='one a file, of `derivative_rows`')
    output_dir = traits.Str(mandatory=True)


class _WriteDerivativesOutputSpec(TraitedSpec):
    written = traits.List(File(exists=True))


class WriteDerivatives(SimpleInterface):
    """Write the files of one stage with their sidecars.

    Parameters
    ----------
    names : sequence of str
        Input ports: the file of each row, those it was made from, and the JSON files whose facts
        go into sidecars. A row whose port has no file is not written, and what an earlier run
        wrote of it is removed.
    """

    input_spec = _WriteDerivativesInputSpec
    output_spec = _WriteDerivativesOutputSpec

    def __init__(self, names=(), **inputs):
        super().__init__(**inputs)
        self.names = tuple(names)
        add_traits(self.inputs, list(self.names))

    def _run_interface(self, runtime):
        written = []
        for row in self.inputs.rows:
            source = getattr(self.inputs, row['name'])
            path = Path(self.inputs.output_dir) / row['path']
            if not isdefined(source):
                for stale in with_sidecars(path):
                    stale.unlink(missing_ok=True)
                continue
            if path.name.endswith('.nii.gz'):
                _write_image(source, path)
            else:
                put_in_place(lambda partial, source=source: shutil.copyfile(source, partial), path)
            stem = Path(str(path).removesuffix('.gz')).with_suffix('')
            write_json(self._sidecar(row), stem.with_suffix('.json'))
            if labels := row.get('labels'):
                lines = ['index\tname', *(f'{index}\t{name}' for index, name in labels.items())]
                text = '\n'.join(lines) + '\n'
                put_in_place(
                    lambda partial, text=text: partial.write_text(text), stem.with_suffix('.tsv')
                )
            written.append(str(path))
        self._results['written'] = written
        return runtime

    def _sidecar(self, row):
        """Complete a sidecar with what was measured while running."""
        sidecar = dict(row['sidecar'])
        absent = {
            uri
            for name, uri in row['made_from'].items()
            if not isdefined(getattr(self.inputs, name))
        }
        if absent:
            sidecar['Sources'] = [uri for uri in sidecar['Sources'] if uri not in absent]
        for port, names in row.get('settings_if', {}).items():
            if not isdefined(getattr(self.inputs, port)):
                kept = {k: v for k, v in sidecar['Settings'].items() if k not in names}
                sidecar['Settings'] = kept
        if not sidecar.get('Settings', True):
            del sidecar['Settings']
        measured = {}
        for name in row['facts']:
            if isdefined(path := getattr(self.inputs, name)):
                measured |= json.loads(Path(path).read_text())
        for name in row['fields']:
            if isdefined(path := getattr(self.inputs, name)):
                sidecar |= json.loads(Path(path).read_text())
        return sidecar | ({'Measured': measured} if measured else {})


def with_sidecars(path):
    """List a written file, its JSON sidecar and its table of labels, whether they are there or not.

    Parameters
    ----------
    path : Path

    Returns
    -------
    list of Path

    Examples
    --------
    >>> [each.name for each in with_sidecars(Path('seg-hemisphere_dseg.nii.gz'))]
    ['seg-hemisphere_dseg.nii.gz', 'seg-hemisphere_dseg.json', 'seg-hemisphere_dseg.tsv']
    """
    stem = Path(str(path).removesuffix('.gz')).with_suffix('')
    return list(dict.fromkeys([path, stem.with_suffix('.json'), stem.with_suffix('.tsv')]))


def remove_older(paths, since):
    """Remove files that an earlier run wrote, where a failed run wrote no new ones.

    Parameters
    ----------
    paths : iterable of Path
        What a run of a series writes.
    since : float
        Start of this run, s since the epoch.

    Returns
    -------
    list of Path
        What was removed.
    """
    older = [path for path in paths if path.is_file() and path.stat().st_mtime < since]
    for path in older:
        path.unlink(missing_ok=True)
    return older


def remove_partials(output_dir, participants):
    """Remove the half-written files of killed runs.

    Parameters
    ----------
    output_dir : Path
    participants : iterable of str
        Labels without 'sub-' whose files nobody else is writing. Of what all runs write, only old
        leftovers go: another call may be at work.
    """
    own = [
        path
        for label in participants
        for path in (
            *(output_dir / f'sub-{label}').rglob(f'{PARTIAL}*'),
            *output_dir.glob(f'{PARTIAL}*-sub-{label}.html'),
        )
    ]
    shared = [
        path for inner in ('', 'logs', 'prov') for path in (output_dir / inner).glob(f'{PARTIAL}*')
    ]
    for path in own:
        path.unlink(missing_ok=True)
    remove_older(shared, time.time() - ABANDONED)


class _WriteFiguresInputSpec(BaseInterfaceInputSpec):
    figures = traits.List(File(exists=True), mandatory=True)
    viewer = File(exists=True, desc='what the viewer of the report shows')
    prefix = traits.Str(mandatory=True, desc='of the series, as sub-01_ses-1')
    folder = traits.Str(mandatory=True)


class _WriteFiguresOutputSpec(TraitedSpec):
    written = traits.List(File(exists=True))


class WriteFigures(SimpleInterface):
    """Copy the figures of a series to the participant's folder, in place of earlier ones."""

    input_spec = _WriteFiguresInputSpec
    output_spec = _WriteFiguresOutputSpec

    def _run_interface(self, runtime):
        written = []
        viewer = [self.inputs.viewer] if self.inputs.viewer else []
        for figure in (*self.inputs.figures, *viewer):
            path = Path(self.inputs.folder) / Path(figure).name
            put_in_place(lambda partial, figure=figure: shutil.copyfile(figure, partial), path)
            written.append(str(path))
        for path in Path(self.inputs.folder).glob(f'{self.inputs.prefix}_desc-*_ctp.*'):
            if str(path) not in written:  # of an earlier run
                path.unlink()
        self._results['written'] = written
        return runtime


def read_container():
    """Tell the container this runs in, as BIDS describes it, or None.

    The recipe of the image sets ``CTPPREP_CONTAINER``; Apptainer runs the same image.
    """
    if not (tag := os.environ.get('CTPPREP_CONTAINER')):
        return None
    names = ('APPTAINER_NAME', 'SINGULARITY_NAME')
    kind = 'singularity' if any(name in os.environ for name in names) else 'docker'
    return {'Type': kind, 'Tag': tag}


def write_dataset_description(output_dir, links, version):
    """Describe the derivatives dataset.

    Calls share an output folder: links of earlier ones stay, since sidecars of other participants
    need them.

    Parameters
    ----------
    output_dir : Path
    links : dict of str to Path
        Folders that BIDS URIs point into, by name: ``raw`` and those of supplied files.
    version : str
        Of ctpprep.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    with alone_in(output_dir, 'dataset_description'):
        _write_description(output_dir, links, version)
    ignore = '**/ct\n*.html\ngroup_*\nlogs\nprov\n**/figures\n**/log\n'
    put_in_place(lambda partial: partial.write_text(ignore), output_dir / '.bidsignore')


@contextlib.contextmanager
def alone_in(folder, name):
    """Keep other calls waiting, where the file system knows locks.

    NFS locks only what is open for writing, so no folder. The file stays: one that waits holds it.

    Parameters
    ----------
    folder : Path
        Of the output.
    name : str
        What is locked: ``logs/<name>.lock`` is.
    """
    logs = folder / 'logs'
    logs.mkdir(exist_ok=True)
    lock = logs / f'{name}.lock'
    try:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError:  # another user's: local file systems lock it all the same
        if not lock.exists():
            raise
        handle = os.open(lock, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _write_description(output_dir, links, version):
    linked = read_links(output_dir) | {
        name: _way(folder, output_dir) for name, folder in links.items()
    }
    told = {name: _describe(output_dir / way) for name, way in linked.items()}
    generated = {'Name': 'ctpprep', 'Version': version}
    if container := read_container():
        generated['Container'] = container
    sources = [
        {'URL': f'bids:{name}:'} | ({'DOI': each['DatasetDOI']} if 'DatasetDOI' in each else {})
        for name, each in told.items()
    ]
    start = 'ctpprep derivatives of '
    name = told['raw'].get('Name', 'a CT perfusion dataset')
    description = {
        # maps made by ctpprep may be the input: the name does not grow from run to run
        'Name': start + name.removeprefix(start),
        'BIDSVersion': '1.10.0',
        'DatasetType': 'derivative',
        'GeneratedBy': [generated],
        'SourceDatasets': sources,
        'DatasetLinks': linked,
        'HowToAcknowledge': 'Please cite doi:10.3174/ajnr.A8111 and ctpprep. Research use only.',
    }
    write_json(description, output_dir / 'dataset_description.json')


def _way(folder, output_dir):
    """Name a folder as seen from the output folder, which may be a link to elsewhere.

    A dataset beside it or around it keeps its link when both are moved, and nothing further up is
    told. Of one that lies elsewhere the names on the way there are, since sources are found by it.
    """
    ways = [os.path.relpath(each, output_dir.resolve()) for each in (folder, folder.resolve())]
    return min(ways, key=lambda way: way.count('..'))


def _describe(folder):
    """Read what a dataset says of itself; nothing if it has no readable description."""
    try:
        told = json.loads((folder / 'dataset_description.json').read_text(encoding='utf-8-sig'))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}
