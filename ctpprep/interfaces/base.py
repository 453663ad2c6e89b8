# SPDX-License-Identifier: Apache-2.0
"""Base classes and functions of the interfaces: settings, reading of inputs, writing of results."""

import functools
import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
from nipype.interfaces.base import BaseInterfaceInputSpec, SimpleInterface, isdefined, traits

import ctpprep
from ctpprep.io import nifti
from ctpprep.io.curves import read_curves
from ctpprep.perfusion.overrides import SuppliedCurves, SuppliedMask
from ctpprep.perfusion.precomputed import MIRRORED
from ctpprep.settings import MethodSettings

# modules that compute results; if any of them changes, no result is reused
COMPUTING = (
    'exceptions', 'settings', 'registration', 'agreement', 'io', 'perfusion', 'figures', 'interfaces',
)  # fmt: skip


class StageInputSpec(BaseInterfaceInputSpec):
    """Settings of a stage and digest of the code, both of which are part of the node hash."""

    settings = traits.Dict(traits.Str, traits.Dict, desc='settings by stage')
    code = traits.Str(desc='digest of the source files of the package')


class ImageInputSpec(StageInputSpec):
    """Inputs of a stage that reads images of the user."""

    affine_from = traits.Enum(
        'agree', 'sform', 'qform', usedefault=True, desc='affine of the headers that is used'
    )


class StageInterface(SimpleInterface):
    """Base class of interfaces that read files, call one function and write its results."""

    def __init__(self, **inputs):
        super().__init__(**inputs)
        self.inputs.code = package_digest()

    @property
    def method(self):
        """Settings of the stages of this interface; other stages have their defaults."""
        return MethodSettings.from_dict(self.inputs.settings or {})

    def load(self, name):
        """Read an input image; None if it is not connected."""
        path = getattr(self.inputs, name)
        return nifti.load(path)[0] if isdefined(path) and path else None

    def load_image(self, path, **options):
        """Read an image of the user with its affine, in the place that its header gives it."""
        return nifti.load(path, affine_from=self.inputs.affine_from, **options)

    def load_supplied(self, name):
        """Read a mask of the user with its affine; None if it is not connected."""
        path = getattr(self.inputs, name)
        if not (isdefined(path) and path):
            return None
        voxels, affine = self.load_image(path, dtype=None)
        return SuppliedMask(voxels > 0, affine, Path(path).name)

    def load_aif(self):
        """Read the AIF of the user, as curves or as the mask of its voxels; None without one."""
        path = self.inputs.supplied_curves
        if not (isdefined(path) and path):
            return self.load_supplied('supplied_aif_mask')
        curves = {name: np.array(values) for name, values in read_curves(Path(path)).items()}
        return SuppliedCurves(curves['time'], curves['aif'], curves.get('vof'), Path(path).name)

    def load_mask(self, name):
        """Read an input mask; None if it is not connected."""
        path = getattr(self.inputs, name)
        return nifti.load_mask(path) if isdefined(path) and path else None

    def load_json(self, name):
        """Read an input JSON file; an empty dict if it is not connected."""
        path = getattr(self.inputs, name)
        return json.loads(Path(path).read_text()) if isdefined(path) and path else {}

    def load_table(self, name):
        """Read an input table; an empty one if it is not connected."""
        path = getattr(self.inputs, name)
        return pd.read_csv(path, sep='\t') if isdefined(path) and path else pd.DataFrame()

    def save_images(self, runtime, affine, like, **images):
        """Write output images in the voxel order of another image, except those that are None."""
        for name, array in images.items():
            if array is not None:
                path = Path(runtime.cwd) / f'{name}.nii'
                self._results[name] = nifti.save(array, affine, path, like=like)

    def save_json(self, runtime, **contents):
        """Write output JSON files."""
        for name, content in contents.items():
            path = Path(runtime.cwd) / f'{name}.json'
            path.write_text(json.dumps(content))
            self._results[name] = str(path)

    def save_table(self, runtime, name, table, **options):
        """Write an output table."""
        path = Path(runtime.cwd) / f'{name}.tsv'
        table.to_csv(path, sep='\t', index=False, na_rep='n/a', **options)
        self._results[name] = str(path)


@functools.cache
def package_digest():
    """Return the SHA-256 of the source files in `COMPUTING`.

    Returns
    -------
    str
    """
    root, digest = Path(ctpprep.__file__).parent, hashlib.sha256()
    for path in sorted(root.rglob('*.py')):
        name = path.relative_to(root)
        if name.parts[0].removesuffix('.py') in COMPUTING:
            digest.update(f'{name.as_posix()}\n'.encode() + path.read_bytes())
    return digest.hexdigest()


def is_density(entry):
    """Return whether the reference image is in HU, rather than a perfusion map.

    Parameters
    ----------
    entry : dict
        JSON of `StandardizeMaps`; empty for a series.

    Returns
    -------
    bool
    """
    return not entry or entry['reference_image_from'] in MIRRORED
