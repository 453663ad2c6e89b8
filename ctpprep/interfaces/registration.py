# SPDX-License-Identifier: Apache-2.0
"""Registration with ANTs (antspyx): the mirrored image to itself, the reference to the NCCT.

The only module that calls antspyx. Every registration runs with a fixed seed on one thread, so
that the same input gives the same voxels whatever runs beside it.
"""

from pathlib import Path

import numpy as np
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    SimpleInterface,
    TraitedSpec,
    traits,
)

from ctpprep.interfaces import _images
from ctpprep.perfusion import grid, symmetry

# coordinate that stands for "outside the slab": ANTs takes no NaN
FAR_MM = 1e6


def to_ants(array, affine):
    """Make an ANTs image of a canonical array.

    Parameters
    ----------
    array : (X, Y, Z) array
    affine : (4, 4) array
        Voxel to patient RAS, mm, without shear.

    Returns
    -------
    ants.ANTsImage
    """
    import ants

    spacing = np.array(_images.voxel_size_mm(affine))
    lps = _images.LPS @ affine
    return ants.from_numpy(
        np.ascontiguousarray(array, dtype=np.float32),
        origin=lps[:3, 3].tolist(),
        spacing=spacing.tolist(),
        direction=lps[:3, :3] / spacing,
    )


def _windowed(frame, affine, window, in_plane_mm):
    """Window an image so that its lower end is 0, on a coarser grid in plane."""
    factors = [max(1, round(in_plane_mm / size)) for size in _images.voxel_size_mm(affine)[:2]]
    shifted = np.clip(np.nan_to_num(frame, nan=window[0]), *window) - window[0]
    coarse = grid.average_blocks(shifted, (*factors, 1))
    return to_ants(coarse, grid.block_affine(affine, (*factors, 1)))


def _register(fixed, moving, seed, **options):
    import ants

    # antspyx takes the seed from here alone (an argument is dropped without a word), and goes to
    # one thread with it, which makes sums independent of the machine
    ants.config.set_ants_deterministic(True, seed)
    prefix = Path.cwd() / 'ants_'
    return ants.registration(fixed, moving, outprefix=str(prefix), verbose=False, **options)


class _RegisterMirrorInputSpec(BaseInterfaceInputSpec):
    reference = File(exists=True, mandatory=True, desc='reference image, HU')
    reference_mirror = File(exists=True, mandatory=True, desc='the same, flipped left-right')
    brain_mask = File(exists=True, mandatory=True)
    mirror_grid_mm = traits.Float(mandatory=True, desc='in-plane voxel size, mm')
    mirror_window_hu = traits.Tuple(traits.Float, traits.Float, mandatory=True)
    random_seed = traits.Int(mandatory=True)


class _RegisterMirrorOutputSpec(TraitedSpec):
    mirror_to_reference = File(exists=True, desc='composite transform, h5')
    reference_to_mirror = File(exists=True, desc='its inverse, h5')


class RegisterMirror(SimpleInterface):
    """Bring the mirrored reference image home by symmetric normalization (SyN).

    Only the brain is seen, at the densities of soft tissue, on a coarse grid: skull and vessels
    cannot drag the warp, and the smoothing that follows makes a finer one pointless.
    """

    input_spec = _RegisterMirrorInputSpec
    output_spec = _RegisterMirrorOutputSpec

    def _run_interface(self, runtime):
        reference, affine = _images.load(self.inputs.reference)
        mirrored, _ = _images.load(self.inputs.reference_mirror)
        brain = _images.load_mask(self.inputs.brain_mask)
        window = self.inputs.mirror_window_hu
        fixed, moving = (
            _windowed(np.where(mask, image, window[0]), affine, window, self.inputs.mirror_grid_mm)
            for image, mask in ((reference, brain), (mirrored, symmetry.mirror(brain)))
        )
        result = _register(
            fixed, moving, self.inputs.random_seed, type_of_transform='SyN',
            aff_metric='mattes', aff_random_sampling_rate=0.2, syn_metric='mattes',
            syn_sampling=32, reg_iterations=(40, 20, 10), write_composite_transform=True,
        )  # fmt: skip
        for name, key in (
            ('mirror_to_reference', 'fwdtransforms'),
            ('reference_to_mirror', 'invtransforms'),
        ):
            written = Path(result[key])
            self._results[name] = str(written.rename(written.with_name(f'{name}.h5')))
        return runtime


class _ApplyMirrorInputSpec(BaseInterfaceInputSpec):
    images = traits.List(File(exists=True), mandatory=True, desc='images that are flipped')
    transform = File(exists=True, mandatory=True, desc='mirror to reference, h5')


class _ApplyMirrorOutputSpec(TraitedSpec):
    mirrored = traits.List(File(exists=True), desc='each image at the homologue of each voxel')


class ApplyMirror(SimpleInterface):
    """Flip images left-right and bring them home: every voxel meets its homologue."""

    input_spec = _ApplyMirrorInputSpec
    output_spec = _ApplyMirrorOutputSpec

    def _run_interface(self, runtime):
        mirrored = []
        for path in self.inputs.images:
            array, affine = _images.load(path)
            home = apply_transform(symmetry.mirror(array), affine, self.inputs.transform)
            name = Path(path).name.split('.')[0]
            mirrored.append(
                _images.save(home, affine, Path(runtime.cwd) / f'{name}_mirrored.nii', like=path)
            )
        self._results['mirrored'] = mirrored
        return runtime


def apply_transform(array, affine, transform, outside=0.0):
    """Resample an image through a composite transform onto its own grid.

    Parameters
    ----------
    array : (X, Y, Z) array
    affine : (4, 4) array
    transform : path-like
        Composite ITK transform, h5.
    outside : float
        Value of points outside the image.

    Returns
    -------
    (X, Y, Z) array of float32
        Linear interpolation.
    """
    import ants

    image = to_ants(array, affine)
    home = ants.apply_transforms(
        image, image, [str(transform)], interpolator='linear', defaultvalue=outside
    )
    return home.numpy().astype(np.float32)


class _FindHomologuesInputSpec(BaseInterfaceInputSpec):
    reference = File(exists=True, mandatory=True)
    brain_mask = File(exists=True, mandatory=True)
    tissue_mask = File(exists=True, mandatory=True)
    transform = File(exists=True, mandatory=True, desc='mirror to reference, h5')


class _FindHomologuesOutputSpec(TraitedSpec):
    hemispheres = File(exists=True, desc='1 left, 2 right')
    homologues = File(exists=True, desc='patient coordinates of each homologue, mm RAS, 4D')
    homologue_tissue = File(exists=True, desc='share of tissue at the homologue, fraction')
    homologue_reference = File(exists=True, desc='mirrored reference image, brought home')
    similarity = traits.Float(desc='of brain with its mirrored self, correlation')


class FindHomologues(SimpleInterface):
    """Find where each voxel's homologue lies, and from that its hemisphere."""

    input_spec = _FindHomologuesInputSpec
    output_spec = _FindHomologuesOutputSpec

    def _run_interface(self, runtime):
        like, cwd = self.inputs.reference, Path(runtime.cwd)
        reference, affine = _images.load(like)
        tissue = _images.load_mask(self.inputs.tissue_mask)
        brain = _images.load_mask(self.inputs.brain_mask)
        coordinates = symmetry.world_coordinates(reference.shape, affine)

        def home(array, outside):
            return apply_transform(symmetry.mirror(array), affine, self.inputs.transform, outside)

        # the warped coordinates of the mirrored grid are the homologues' own coordinates
        homologues = np.stack([home(coordinates[..., i], FAR_MM) for i in range(3)], axis=-1)
        homologues[(homologues > FAR_MM / 2).any(axis=-1)] = np.nan
        images = {
            'hemispheres': symmetry.hemispheres(coordinates, homologues, brain),
            'homologues': homologues,
            'homologue_tissue': home(tissue.astype(np.float32), 0.0),
            'homologue_reference': home(reference, -1000.0),
        }
        for name, array in images.items():
            self._results[name] = _images.save(array, affine, cwd / f'{name}.nii', like=like)
        both = brain & (home(brain.astype(np.float32), 0.0) > 0.5)
        self._results['similarity'] = symmetry.mirror_similarity(
            reference, images['homologue_reference'], both, _images.voxel_size_mm(affine)
        )
        return runtime


class _RegisterNCCTInputSpec(BaseInterfaceInputSpec):
    reference = File(exists=True, mandatory=True, desc='reference image, HU')
    ncct = File(exists=True, mandatory=True, desc='non-contrast CT of the session, HU')
    ncct_grid_mm = traits.Float(mandatory=True, desc='in-plane voxel size, mm')
    ncct_window_hu = traits.Tuple(traits.Float, traits.Float, mandatory=True)
    random_seed = traits.Int(mandatory=True)


class _RegisterNCCTOutputSpec(TraitedSpec):
    reference_to_ncct = File(exists=True, desc='rigid ITK transform, text')


class RegisterNCCT(SimpleInterface):
    """Register the reference image rigidly to the non-contrast CT of its session."""

    input_spec = _RegisterNCCTInputSpec
    output_spec = _RegisterNCCTOutputSpec

    def _run_interface(self, runtime):
        import ants

        inputs = self.inputs
        fixed, moving = (
            _windowed(*_images.load(path), inputs.ncct_window_hu, inputs.ncct_grid_mm)
            for path in (inputs.ncct, inputs.reference)
        )
        result = _register(
            fixed, moving, inputs.random_seed, type_of_transform='Rigid', aff_metric='mattes',
            aff_random_sampling_rate=0.5, aff_iterations=(200, 100, 50, 20),
            aff_shrink_factors=(6, 4, 2, 1), aff_smoothing_sigmas=(3, 2, 1, 0),
        )  # fmt: skip
        path = Path(runtime.cwd) / 'reference_to_ncct.txt'
        ants.write_transform(ants.read_transform(result['fwdtransforms'][0]), str(path))
        self._results['reference_to_ncct'] = str(path)
        return runtime
