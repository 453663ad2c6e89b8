# SPDX-License-Identifier: Apache-2.0
"""Registration of the mirrored image to the original, and of the reference image to the NCCT."""

import functools
from pathlib import Path

import numpy as np
from nipype.interfaces.base import File, TraitedSpec

from ctpprep.interfaces.base import ImageInputSpec, StageInputSpec, StageInterface, is_density
from ctpprep.io import nifti
from ctpprep.perfusion import followup_alignment, homologues
from ctpprep.perfusion.coregistration import (
    check_ncct,
    check_side,
    fits_clearly_better,
    likeness,
)
from ctpprep.registration import (
    MirrorSyN,
    apply_transform,
    read_points,
    register_linear,
    register_rigid,
)


class _RegisterMirrorInputSpec(StageInputSpec):
    reference = File(exists=True, mandatory=True, desc='reference image, HU')
    brain_mask = File(exists=True, mandatory=True)
    entry = File(exists=True, desc='for precomputed maps: which image was mirrored, json')


class _RegisterMirrorOutputSpec(TraitedSpec):
    mirror_to_reference = File(
        exists=True, desc='composite transform, h5; absent if maps are withheld'
    )
    reference_to_mirror = File(exists=True, desc='its inverse, h5; absent if maps are withheld')
    homologues = File(exists=True, desc='patient coordinates of each homologue, mm RAS, 4D')
    homologue_reference = File(exists=True, desc='mirrored reference image, registered')
    reference_reflected = File(
        exists=True, desc='reference reflected across the plane, before the warp'
    )
    misaligned_mask = File(exists=True, desc='voxels whose homologues are too far off to be used')
    symmetry = File(exists=True, desc='distance, folding, and reason of withholding, json')


class RegisterMirror(StageInterface):
    """Register the mirrored reference image by symmetric normalization (SyN) and assess the result.

    If the registration fails, there are no transforms and therefore no local maps downstream;
    homologues and mirrored image still show the result.
    """

    input_spec = _RegisterMirrorInputSpec
    output_spec = _RegisterMirrorOutputSpec

    def _run_interface(self, runtime):
        reference, affine = nifti.load(self.inputs.reference)
        mirror = homologues.register_mirror(
            reference, self.load_mask('brain_mask'), affine, self.method,
            MirrorSyN(runtime.cwd, self.method.random.random_seed),
            is_density(self.load_json('entry')),
        )  # fmt: skip
        self._results |= mirror.transforms
        self.save_json(runtime, symmetry=mirror.measured)
        best = mirror.best
        self.save_images(
            runtime, affine, self.inputs.reference, reference_reflected=mirror.reflected,
            homologues=best and best.homologues,
            homologue_reference=best and best.homologue_reference,
            misaligned_mask=mirror.misaligned(self.method.symmetry.mirror_region_mm),
        )  # fmt: skip
        return runtime


class _ApplyMirrorInputSpec(StageInputSpec):
    relative = File(exists=True, mandatory=True, desc='globally normalized map, fraction')
    transform = File(exists=True, desc='mirror to reference, h5; absent if maps are withheld')


class _ApplyMirrorOutputSpec(TraitedSpec):
    mirrored = File(exists=True, desc='the map at the homologue of each voxel')


class ApplyMirror(StageInterface):
    """Flip a map left-right and resample it, to get the value at the homologue of each voxel.

    Without a transform there is no output.
    """

    input_spec = _ApplyMirrorInputSpec
    output_spec = _ApplyMirrorOutputSpec

    def _run_interface(self, runtime):
        if not self.inputs.transform:
            return runtime
        relative, affine = nifti.load(self.inputs.relative)
        mirrored = homologues.mirror_map(
            relative, affine, MirrorSyN(runtime.cwd, None), self.inputs.transform
        )
        self.save_images(runtime, affine, self.inputs.relative, mirrored=mirrored)
        return runtime


class _FindHomologuesInputSpec(StageInputSpec):
    brain_mask = File(exists=True, mandatory=True)
    tissue_mask = File(exists=True, mandatory=True)
    homologues = File(exists=True, desc='patient coordinates, mm RAS, 4D')
    transform = File(exists=True, desc='mirror to reference, h5; absent if maps are withheld')
    misaligned_mask = File(exists=True, desc='voxels whose homologues are not used')
    symmetry = File(exists=True, mandatory=True, desc='contains the plane to use instead, json')


class _FindHomologuesOutputSpec(TraitedSpec):
    hemispheres = File(exists=True, desc='1 left, 2 right')
    homologue_tissue = File(exists=True, desc='tissue fraction at the homologue')


class FindHomologues(StageInterface):
    """Find the hemisphere of each voxel and the tissue fraction at its homologue.

    Without a transform, a plane divides the hemispheres.
    """

    input_spec = _FindHomologuesInputSpec
    output_spec = _FindHomologuesOutputSpec

    def _run_interface(self, runtime):
        inputs = self.inputs
        plane = self.load_json('symmetry').get('hemisphere_plane')
        _, affine = nifti.load(inputs.tissue_mask)
        sides = homologues.find_homologues(
            self.load_mask('brain_mask'), self.load_mask('tissue_mask'), affine,
            MirrorSyN(runtime.cwd, None), self.load('homologues'), inputs.transform or None,
            plane and (plane['point_mm'], plane['normal']), self.load_mask('misaligned_mask'),
        )  # fmt: skip
        self.save_images(
            runtime, affine, inputs.tissue_mask, hemispheres=sides.hemispheres,
            homologue_tissue=sides.tissue_share,
        )  # fmt: skip
        return runtime


class _RegisterNCCTInputSpec(ImageInputSpec):
    reference = File(exists=True, mandatory=True, desc='reference image, HU')
    ncct = File(exists=True, mandatory=True, desc='non-contrast CT of the session, HU')


class _RegisterNCCTOutputSpec(TraitedSpec):
    reference_to_ncct = File(exists=True, desc='rigid ITK transform, text')
    ncct_matrix = File(exists=True, desc='the same from points of the NCCT, mm RAS, json')


class RegisterNCCT(StageInterface):
    """Register the reference image rigidly to the non-contrast CT of its session, and compare the sides."""

    input_spec = _RegisterNCCTInputSpec
    output_spec = _RegisterNCCTOutputSpec

    def _run_interface(self, runtime):
        method = self.method.coregistration
        images = (
            self.load_image(self.inputs.ncct, straight=True),
            nifti.load(self.inputs.reference, straight=True),
        )
        check_ncct(images[0][0], Path(self.inputs.ncct).name)
        fixed, moving = (
            homologues.window_image(*image, method.ncct_window_hu, method.ncct_grid_mm)
            for image in images
        )
        path = Path(runtime.cwd) / 'reference_to_ncct.txt'
        mirror_path = path.with_name('mirror_to_ncct.txt')
        own = self._register(fixed, moving, path)
        mirrored = self._register(fixed, (moving[0][::-1], moving[1]), mirror_path)
        if fits_clearly_better(mirrored, own):  # unless the registration of the series has failed
            second = path.with_name('second_to_ncct.txt')
            again = self._register(fixed, moving, second, start=mirror_path)
            if again > own:
                own, path = again, second
        check_side(own, mirrored, Path(self.inputs.ncct).name)
        self._results['reference_to_ncct'] = str(path)
        self.save_json(runtime, ncct_matrix={'matrix': read_points(path).tolist()})
        return runtime

    def _register(self, fixed, moving, path, start=None):
        """Write the transform from an image to the NCCT; return how alike they then are."""
        register_rigid(
            fixed, moving, self.method.random.random_seed, path.parent, path, start=start
        )
        placed = apply_transform(*moving, path, outside=-1.0, fixed=fixed)
        return likeness(np.where(placed < 0, np.nan, placed), fixed[0], fixed[0] > 0)


class _RegisterFollowUpInputSpec(ImageInputSpec):
    lesion_image = File(exists=True, mandatory=True, desc='DWI, ADC or FLAIR image')
    ncct = File(exists=True, desc='non-contrast CT, HU; the reference without one')
    reference = File(exists=True, mandatory=True, desc='reference image, HU')
    ncct_matrix = File(exists=True, desc='from points of the NCCT to the reference, json')
    brain_mask = File(exists=True, mandatory=True)
    entry = File(exists=True, desc='for precomputed maps: kind of the reference image, json')


class _RegisterFollowUpOutputSpec(TraitedSpec):
    followup_matrix = File(
        exists=True, desc='from points of the reference to the image, and its assessment, json'
    )


class RegisterFollowUp(StageInterface):
    """Register the MR image of a follow-up lesion to the CT and assess the result."""

    input_spec = _RegisterFollowUpInputSpec
    output_spec = _RegisterFollowUpOutputSpec

    def _run_interface(self, runtime):
        inputs = self.inputs
        reference = nifti.load(inputs.reference)
        fixed = self.load_image(inputs.ncct, straight=True) if inputs.ncct else reference
        aligned = followup_alignment.align_image(
            fixed, self.load_image(inputs.lesion_image), reference,
            self.load_mask('brain_mask'), self.load_json('ncct_matrix').get('matrix'),
            functools.partial(
                register_linear, seed=self.method.random.random_seed, folder=runtime.cwd
            ),
            self.method, is_density(self.load_json('entry')),
        )  # fmt: skip
        self.save_json(runtime, followup_matrix=aligned)
        return runtime
