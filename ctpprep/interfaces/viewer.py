# SPDX-License-Identifier: Apache-2.0
"""The data of the viewer in the report, as one file."""

import json
from pathlib import Path

import nibabel as nb
import numpy as np
from nipype.interfaces.base import File, TraitedSpec

from ctpprep.figures import packing
from ctpprep.interfaces.base import StageInterface, is_density
from ctpprep.interfaces.figures import SeriesInputSpec, read_columns, with_gaps
from ctpprep.io import nifti
from ctpprep.perfusion.symmetry import LEFT, RIGHT

HEMISPHERES = {'left': LEFT, 'right': RIGHT}


class _PackViewerInputSpec(SeriesInputSpec):
    homologues = File(exists=True, desc='patient coordinates of each homologue, mm RAS, 4D')
    symmetry = File(exists=True, desc='shows whether the registration failed, json')
    tissue_curves = File(exists=True, desc='denoised curves as temporal components, npz')


class _PackViewerOutputSpec(TraitedSpec):
    viewer = File(
        exists=True, desc='maps, masks, homologues and curves, json; absent without brain'
    )


class PackViewer(StageInterface):
    """Pack the existing images and curves of a series into the file that the viewer reads."""

    input_spec = _PackViewerInputSpec
    output_spec = _PackViewerOutputSpec

    def _run_interface(self, runtime):
        images = {}
        for name in (*packing.MAPS, *packing.MASKS):
            path = getattr(self.inputs, name, None)
            if isinstance(path, str) and path:
                images[name], affine = nifti.load(path)
        if not np.any(images.get('brain_mask', 0)):
            return runtime
        if self.inputs.hemispheres:
            sides, _ = nifti.load(self.inputs.hemispheres)
            images |= {side: sides == label for side, label in HEMISPHERES.items()}
        for name in packing.MAPS.keys() & images.keys():
            images[name] = with_gaps(images, name)
        packed = packing.pack_series(
            images,
            affine,
            _file_axes(self.inputs.brain_mask),
            self._homologues(),
            self._read_curves(),
            self._read_vessels(),
            'HU' if is_density(self.load_json('entry')) else '',
        )
        path = Path(runtime.cwd) / f'{self.inputs.prefix}_desc-viewer_ctp.json'
        path.write_text(json.dumps(packed, allow_nan=False), encoding='utf-8')
        self._results['viewer'] = str(path)
        return runtime

    def _homologues(self):
        """Read the homologues, unless their registration failed."""
        if not (self.inputs.homologues and self.inputs.symmetry):
            return None
        if json.loads(Path(self.inputs.symmetry).read_text())['withheld']:
            return None
        return nifti.load(self.inputs.homologues)[0]

    def _read_curves(self):
        if not self.inputs.tissue_curves:
            return None
        with np.load(self.inputs.tissue_curves) as arrays:
            return dict(arrays)

    def _read_vessels(self):
        table = read_columns(self.inputs.curves)
        return {name: table[name] for name in ('time', 'aif') if name in table}


def _file_axes(path):
    """Return, for each axis of a file, the canonical axis and whether it is reversed."""
    order = nb.orientations.io_orientation(nb.load(path).affine)
    return tuple((int(axis), bool(way < 0)) for axis, way in order)
