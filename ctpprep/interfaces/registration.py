# SPDX-License-Identifier: Apache-2.0
"""Registration with ANTs (antspyx): the mirrored image to itself, the reference to the NCCT.

The only module that calls antspyx. Every registration runs with a fixed seed on one thread, so
that the same input gives the same voxels whatever runs beside it.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    SimpleInterface,
    TraitedSpec,
    traits,
)

from ctpprep.interfaces import _inputs
from ctpprep.io import nifti
from ctpprep.perfusion import grid, symmetry

# what stands for "outside the slab": ANTs takes no NaN
FAR_MM = 1e6
AIR_HU = -1000.0
# starts of the mirror registration, tried in this order: an affine step before the warp helps where
# the plane is a poor start, and drifts away elsewhere; ANTs' own start sees heads turned beyond the
# search for a plane
ATTEMPTS = {
    'plane': {'type_of_transform': 'SyNOnly'},
    'plane and affine': {'type_of_transform': 'SyN'},
    'centres of mass': {'type_of_transform': 'SyN'},
}


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

    spacing = np.array(nifti.voxel_size_mm(affine))
    lps = nifti.LPS @ affine
    return ants.from_numpy(
        np.ascontiguousarray(array, dtype=np.float32),
        origin=lps[:3, 3].tolist(),
        spacing=spacing.tolist(),
        direction=lps[:3, :3] / spacing,
    )


def _windowed(frame, affine, window, in_plane_mm):
    """Window an image so that its lower end is 0, on a coarser grid in plane."""
    factors = [max(1, round(in_plane_mm / size)) for size in nifti.voxel_size_mm(affine)[:2]]
    shifted = np.clip(np.nan_to_num(frame, nan=window[0]), *window) - window[0]
    coarse = grid.average_blocks(shifted, (*factors, 1))
    return to_ants(coarse, grid.block_affine(affine, (*factors, 1)))


def _register(fixed, moving, seed, folder, **options):
    import ants

    # antspyx takes the seed from here alone (an argument is dropped without a word), and goes to
    # one thread with it, which makes sums independent of the machine
    ants.config.set_ants_deterministic(True, seed)
    prefix = Path(folder) / 'ants_'
    return ants.registration(fixed, moving, outprefix=str(prefix), verbose=False, **options)


def mirror_by_plane(plane, shape, affine):
    """Bring the mirrored image home by a plane of symmetry.

    Parameters
    ----------
    plane : tuple of (3,) arrays
        Point and unit normal, mm RAS.
    shape : (3,) tuple of int
        Grid on which the image was flipped.
    affine : (4, 4) array

    Returns
    -------
    (4, 4) array
        Points of the reference to points of the mirrored image, mm RAS; rigid.
    """
    point, normal = plane
    reflection, flip = np.eye(4), np.diag([-1.0, 1, 1, 1])
    reflection[:3] = np.column_stack(
        [np.eye(3) - 2 * np.outer(normal, normal), 2 * (point @ normal) * normal]
    )
    flip[0, 3] = shape[0] - 1
    return affine @ flip @ np.linalg.inv(affine) @ reflection


def write_affine(matrix, path):
    """Write an affine map as ANTs reads it.

    Parameters
    ----------
    matrix : (4, 4) array
        Points of the fixed to points of the moving image, mm RAS.
    path : path-like
        ``.mat``.
    """
    import ants

    lps = nifti.LPS @ matrix @ nifti.LPS
    transform = ants.create_ants_transform(
        transform_type='AffineTransform', dimension=3, matrix=lps[:3, :3], translation=lps[:3, 3]
    )
    ants.write_transform(transform, str(path))


@dataclass
class _Mirrored:
    """What a mirror registration found, and how good that is."""

    start: str
    transforms: dict
    homologues: np.ndarray
    homologue_reference: np.ndarray
    similarity: float
    folding: float
    score: float


class _RegisterMirrorInputSpec(BaseInterfaceInputSpec):
    reference = File(exists=True, mandatory=True, desc='reference image, HU')
    reference_mirror = File(exists=True, mandatory=True, desc='the same, flipped left-right')
    brain_mask = File(exists=True, mandatory=True)
    mirror_grid_mm = traits.Float(mandatory=True, desc='in-plane voxel size, mm')
    mirror_window_hu = traits.Tuple(traits.Float, traits.Float, mandatory=True)
    mirror_least_similarity = traits.Float(mandatory=True, desc='correlation')
    map_least_similarity = traits.Float(desc='correlation, in its stead if a map is mirrored')
    entry = File(exists=True, desc='of maps made elsewhere: which image was mirrored, json')
    mirror_most_folding = traits.Float(mandatory=True, desc='fraction of the brain')
    mirror_retry_similarity = traits.Float(mandatory=True, desc='correlation')
    random_seed = traits.Int(mandatory=True)


class _RegisterMirrorOutputSpec(TraitedSpec):
    mirror_to_reference = File(exists=True, desc='composite transform, h5; only if it is trusted')
    reference_to_mirror = File(exists=True, desc='its inverse, h5; only if it is trusted')
    homologues = File(exists=True, desc='patient coordinates of each homologue, mm RAS, 4D')
    homologue_reference = File(exists=True, desc='mirrored reference image, brought home')
    reference_reflected = File(
        exists=True, desc='reference reflected at the plane, before the warp'
    )
    symmetry = File(exists=True, desc='similarity, folding, and why maps are withheld, json')


class RegisterMirror(SimpleInterface):
    """Bring the mirrored reference image home by symmetric normalization (SyN), and judge it.

    It starts from the plane of symmetry. If brain and mirrored brain are then less alike than most
    are, other starts are tried and the one with the greatest similarity counts, among those that do
    not fold. Only the brain is seen, at the densities of soft tissue, on a coarse grid: skull and vessels
    cannot drag the warp, and the smoothing that follows makes a finer one pointless. Without a
    registration that can be trusted there are no transforms, and so no local maps downstream;
    homologues and mirrored image show what was found all the same.
    """

    input_spec = _RegisterMirrorInputSpec
    output_spec = _RegisterMirrorOutputSpec

    def _run_interface(self, runtime):
        inputs, cwd = self.inputs, Path(runtime.cwd)
        self._reference, self._affine = nifti.load(inputs.reference)
        self._brain = nifti.load_mask(inputs.brain_mask)
        plane = symmetry.find_symmetry_plane(self._reference, self._affine, self._brain)
        write_affine(mirror_by_plane(plane, self._brain.shape, self._affine), cwd / 'plane.mat')
        images = {
            'reference_reflected': apply_transform(
                symmetry.mirror(self._reference), self._affine, cwd / 'plane.mat', AIR_HU
            )
        }
        best, tried = None, 0
        for start in ATTEMPTS:
            found, tried = self._attempt(start, cwd / 'plane.mat'), tried + 1
            if found is not None and (best is None or found.score > best.score):
                best = found
            if best is not None and best.score >= inputs.mirror_retry_similarity:
                break
        by_density = _inputs.is_density(inputs.entry)
        limits = {
            'least_similarity': inputs.mirror_least_similarity
            if by_density
            else inputs.map_least_similarity,
            'most_folding': inputs.mirror_most_folding,
        }
        facts = {
            'mirror_similarity': best.similarity if best else 0.0,
            'mirror_folding': best.folding if best else 1.0,
            'mirror_start': best.start if best else None,
            'mirror_attempts': tried,
            'withheld': symmetry.withheld_reason(
                best.similarity if best else None, best.folding if best else None, **limits
            ),
            'hemisphere_rule': 'homologues',
        }
        if facts['withheld']:
            point, normal = plane
            facts['hemisphere_rule'] = 'plane of symmetry'
            facts['hemisphere_plane'] = {
                'point_mm': np.round(point, 2).tolist(), 'normal': np.round(normal, 4).tolist()
            }  # fmt: skip
        else:
            self._results |= best.transforms
        path = cwd / 'symmetry.json'
        path.write_text(json.dumps(facts))
        self._results['symmetry'] = str(path)
        if best is not None:
            images |= {
                'homologues': best.homologues, 'homologue_reference': best.homologue_reference,
            }  # fmt: skip
        for name, image in images.items():
            self._results[name] = nifti.save(
                image, self._affine, cwd / f'{name}.nii', like=inputs.reference
            )
        return runtime

    def _attempt(self, start, plane):
        """Register from one start and measure the result; None if ANTs finds nothing.

        `plane` names the file of the transform by the plane of symmetry.
        """
        inputs = self.inputs
        window, affine = inputs.mirror_window_hu, self._affine
        mirrored, _ = nifti.load(inputs.reference_mirror)
        fixed, moving = (
            _windowed(np.where(mask, image, window[0]), affine, window, inputs.mirror_grid_mm)
            for image, mask in (
                (self._reference, self._brain), (mirrored, symmetry.mirror(self._brain)),
            )
        )  # fmt: skip
        folder = Path.cwd() / start.replace(' ', '_')
        folder.mkdir(exist_ok=True)
        options = dict(ATTEMPTS[start])
        if start != 'centres of mass':
            options['initial_transform'] = [str(plane)]
        try:
            result = _register(
                fixed, moving, inputs.random_seed, folder, aff_metric='mattes',
                aff_random_sampling_rate=0.2, syn_metric='mattes', syn_sampling=32,
                reg_iterations=(80, 40, 20), write_composite_transform=True, **options,
            )  # fmt: skip
        except RuntimeError:  # of ITK: no overlap, a singular matrix
            return None
        transforms = {}
        for name, key in (
            ('mirror_to_reference', 'fwdtransforms'),
            ('reference_to_mirror', 'invtransforms'),
        ):
            transforms[name] = str(Path(result[key]).rename(folder / f'{name}.h5'))
        return self._measure(start, transforms)

    def _measure(self, start, transforms):
        """Find homologues by a transform, and how well brain meets mirrored brain."""
        brain, affine, transform = self._brain, self._affine, transforms['mirror_to_reference']

        def home(array, outside=0.0):
            return apply_transform(symmetry.mirror(array), affine, transform, outside)

        # the warped coordinates of the mirrored grid are the homologues' own coordinates
        coordinates = symmetry.world_coordinates(brain.shape, affine)
        homologues = np.stack([home(coordinates[..., i], FAR_MM) for i in range(3)], axis=-1)
        homologues[(homologues > FAR_MM / 2).any(axis=-1)] = np.nan
        homologue_reference = home(self._reference, AIR_HU)
        homologue_brain = home(brain.astype(np.float32)) > 0.5
        similarity = symmetry.mirror_similarity(
            self._reference, homologue_reference, brain, homologue_brain,
            nifti.voxel_size_mm(affine),
        )  # fmt: skip
        if not symmetry.swaps_sides(coordinates, homologues, brain):
            similarity = 0.0
        folding = symmetry.folding(homologues, affine, brain)
        # a map that folds is worth less than any that does not
        score = similarity if folding <= self.inputs.mirror_most_folding else -folding
        return _Mirrored(
            start, transforms, homologues, homologue_reference, similarity, folding, score
        )


class _ApplyMirrorInputSpec(BaseInterfaceInputSpec):
    rcbf_global = File(exists=True, desc='fraction')
    rcbv_global = File(exists=True, desc='fraction')
    transform = File(exists=True, desc='mirror to reference, h5; none if it was withheld')


class _ApplyMirrorOutputSpec(TraitedSpec):
    rcbf_mirrored = File(exists=True, desc='the map at the homologue of each voxel')
    rcbv_mirrored = File(exists=True, desc='the map at the homologue of each voxel')


class ApplyMirror(SimpleInterface):
    """Flip maps left-right and bring them home: every voxel meets its homologue.

    Gives nothing without a transform.
    """

    input_spec = _ApplyMirrorInputSpec
    output_spec = _ApplyMirrorOutputSpec

    def _run_interface(self, runtime):
        for quantity in ('rcbf', 'rcbv'):
            path = getattr(self.inputs, f'{quantity}_global')
            if not (path and self.inputs.transform):
                continue
            array, affine = nifti.load(path)
            home = apply_transform(symmetry.mirror(array), affine, self.inputs.transform)
            name = f'{quantity}_mirrored'
            self._results[name] = nifti.save(
                home, affine, Path(runtime.cwd) / f'{name}.nii', like=path
            )
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
    brain_mask = File(exists=True, mandatory=True)
    tissue_mask = File(exists=True, mandatory=True)
    homologues = File(exists=True, desc='patient coordinates, mm RAS, 4D')
    transform = File(exists=True, desc='mirror to reference, h5; none if it was withheld')
    symmetry = File(exists=True, mandatory=True, desc='holds the plane to use then, json')


class _FindHomologuesOutputSpec(TraitedSpec):
    hemispheres = File(exists=True, desc='1 left, 2 right')
    homologue_tissue = File(exists=True, desc='share of tissue at the homologue, fraction')


class FindHomologues(SimpleInterface):
    """Find each voxel's hemisphere from where its homologue lies, and whether that is tissue.

    Without a transform that can be trusted, a plane divides the hemispheres.
    """

    input_spec = _FindHomologuesInputSpec
    output_spec = _FindHomologuesOutputSpec

    def _run_interface(self, runtime):
        like, cwd = self.inputs.tissue_mask, Path(runtime.cwd)
        tissue = nifti.load_mask(like)
        brain = nifti.load_mask(self.inputs.brain_mask)
        _, affine = nifti.load(like)
        coordinates = symmetry.world_coordinates(brain.shape, affine)
        if self.inputs.transform:
            homologues, _ = nifti.load(self.inputs.homologues)
            share = apply_transform(
                symmetry.mirror(tissue.astype(np.float32)), affine, self.inputs.transform
            )
            images = {
                'hemispheres': symmetry.hemispheres(coordinates, homologues, brain),
                'homologue_tissue': share,
            }
        else:
            plane = json.loads(Path(self.inputs.symmetry).read_text())['hemisphere_plane']
            images = {
                'hemispheres': symmetry.hemispheres_by_plane(
                    coordinates, plane['point_mm'], plane['normal'], brain
                )
            }
        for name, array in images.items():
            self._results[name] = nifti.save(array, affine, cwd / f'{name}.nii', like=like)
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
            _windowed(*nifti.load(path), inputs.ncct_window_hu, inputs.ncct_grid_mm)
            for path in (inputs.ncct, inputs.reference)
        )
        result = _register(
            fixed, moving, inputs.random_seed, runtime.cwd, type_of_transform='Rigid', aff_metric='mattes',
            aff_random_sampling_rate=0.5, aff_iterations=(200, 100, 50, 20),
            aff_shrink_factors=(6, 4, 2, 1), aff_smoothing_sigmas=(3, 2, 1, 0),
        )  # fmt: skip
        path = Path(runtime.cwd) / 'reference_to_ncct.txt'
        ants.write_transform(ants.read_transform(result['fwdtransforms'][0]), str(path))
        self._results['reference_to_ncct'] = str(path)
        return runtime
