# SPDX-License-Identifier: Apache-2.0
"""Write the outputs of a stage and its figures."""

import json
import shutil
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

from ctpprep.io.bids import with_sidecars
from ctpprep.io.compression import save_compressed
from ctpprep.io.files import write_atomically, write_json
from ctpprep.perfusion.preprocessing import AIR_HU


def _write_image(source, path):
    """Write a compressed image without NaN; a series is stored as scaled integers."""
    image = nb.load(source)
    voxels = np.asanyarray(image.dataobj)
    if voxels.ndim == 4 and voxels.shape[3] > 3:
        filled = np.nan_to_num(voxels, nan=AIR_HU)
        stored = nb.Nifti1Image(filled, image.affine, image.header)
        # a step of 1/16 HU is far below the noise and halves the file size
        stored.set_data_dtype(np.int16)
    else:
        kind = np.uint8 if voxels.dtype.kind in 'bui' else np.float32
        stored = nb.Nifti1Image(np.nan_to_num(voxels).astype(kind), image.affine, image.header)
        stored.set_data_dtype(kind)
    write_atomically(lambda partial: save_compressed(stored, partial), path)


class _WriteDerivativesInputSpec(DynamicTraitedSpec, BaseInterfaceInputSpec):
    rows = traits.List(traits.Dict, mandatory=True, desc='one per file, from `derivative_rows`')
    output_dir = traits.Str(mandatory=True)


class _WriteDerivativesOutputSpec(TraitedSpec):
    written = traits.List(File(exists=True))


class WriteDerivatives(SimpleInterface):
    """Write the files of one stage with their sidecars.

    Parameters
    ----------
    names : sequence of str
        Input ports: the file of each row, the files it was made from, and the JSON files whose
        values are added to sidecars. A row whose port has no file is not written, and its files from
        an earlier run are removed.
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
                write_atomically(
                    lambda partial, source=source: shutil.copyfile(source, partial), path
                )
            stem = Path(str(path).removesuffix('.gz')).with_suffix('')
            write_json(self._sidecar(row), stem.with_suffix('.json'))
            if labels := row.get('labels'):
                lines = ['index\tname', *(f'{index}\t{name}' for index, name in labels.items())]
                text = '\n'.join(lines) + '\n'
                write_atomically(
                    lambda partial, text=text: partial.write_text(text), stem.with_suffix('.tsv')
                )
            written.append(str(path))
        self._results['written'] = written
        return runtime

    def _sidecar(self, row):
        """Add the values measured during the run to a sidecar."""
        sidecar = dict(row['sidecar'])
        absent = {
            uri
            for name, uri in row['made_from'].items()
            if not isdefined(getattr(self.inputs, name))
        }
        if absent:
            sidecar['Sources'] = [uri for uri in sidecar['Sources'] if uri not in absent]
        measured = {}
        for name in row['facts']:
            if isdefined(path := getattr(self.inputs, name)):
                measured |= json.loads(Path(path).read_text())
        for name in row['fields']:
            if isdefined(path := getattr(self.inputs, name)):
                sidecar |= json.loads(Path(path).read_text())
        return sidecar | ({'Measured': measured} if measured else {})


class _WriteFiguresInputSpec(BaseInterfaceInputSpec):
    figures = traits.List(File(exists=True), mandatory=True)
    viewer = File(exists=True, desc='data of the viewer in the report')
    prefix = traits.Str(mandatory=True, desc='prefix of the series, such as sub-01_ses-1')
    folder = traits.Str(mandatory=True)


class _WriteFiguresOutputSpec(TraitedSpec):
    written = traits.List(File(exists=True))


class WriteFigures(SimpleInterface):
    """Copy the figures of a series to the folder of the participant and remove earlier ones."""

    input_spec = _WriteFiguresInputSpec
    output_spec = _WriteFiguresOutputSpec

    def _run_interface(self, runtime):
        written = []
        viewer = [self.inputs.viewer] if self.inputs.viewer else []
        for figure in (*self.inputs.figures, *viewer):
            path = Path(self.inputs.folder) / Path(figure).name
            write_atomically(lambda partial, figure=figure: shutil.copyfile(figure, partial), path)
            written.append(str(path))
        for path in Path(self.inputs.folder).glob(f'{self.inputs.prefix}_desc-*_ctp.*'):
            if str(path) not in written:  # from an earlier run
                path.unlink()
        self._results['written'] = written
        return runtime
