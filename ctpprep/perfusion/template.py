# SPDX-License-Identifier: Apache-2.0
"""Registration of a head CT to a template: from where it starts, and whether the result is reliable.

The caller supplies the nonrigid registration (`TemplateRegistration`). The template is drawn as a CT
from its tissue probabilities, because no CT template has the tissue maps that regions need.
"""

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from scipy import ndimage

from ctpprep.exceptions import PerfusionError
from ctpprep.perfusion import brain, grid, resampling, symmetry, template_start

# densities of the drawn template, HU
GREY_HU, WHITE_HU, CSF_HU = 37.0, 29.0, 6.0
# sulci of the template narrower than twice this distance belong to its brain, as in `brain_masks`
SULCUS_MM = 4.0
# sides are compared outside of this distance from the midline of the template, mm
MIDLINE_MM = 5.0
# margin of the brain in the registered image, mm: more than the search for a start uses gains nothing
MARGIN_MM = 14.0
# the metric excludes the lesion and this margin, mm
LESION_MARGIN_MM = 3.0
# an NCCT is averaged to voxels within these sizes, in plane and across, mm
NCCT_MM = (1.8, 5.0)


class TemplateRegistration(Protocol):
    """Interface of the nonrigid registration to the template."""

    def register(
        self, fixed: tuple, moving: tuple, metric_mask: np.ndarray, matrix: np.ndarray
    ) -> dict[str, Any] | None:
        """Register the template (moving) to the head (fixed), each an (array, affine).

        It starts at a (4, 4) matrix from points of the head to points of the template and compares
        the images only within a mask on the grid of the head. Returns the transforms
        ``reference_to_template`` and ``template_to_reference``, or None if it fails.
        """

    def map_points(
        self, shape: tuple, affine: np.ndarray, transform: Any, source: tuple
    ) -> np.ndarray:
        """Return where the voxels of a grid are in the source, (X, Y, Z, 3) mm RAS.

        The source is a (shape, affine); NaN outside it.
        """


@dataclass(frozen=True)
class Template:
    """A template as tissue probabilities.

    Attributes
    ----------
    grey, white : (X, Y, Z) arrays
        Probabilities of grey and white matter, 0 to 1.
    affine : (4, 4) array
        Voxel to template RAS, mm; axes along those of the template.
    name : str
        Name of the space, such as MNI152NLin2009aSym.
    brain : (X, Y, Z) array of bool
        Tissue with sulci and ventricles; found from the probabilities.
    """

    grey: np.ndarray
    white: np.ndarray
    affine: np.ndarray
    name: str
    brain: np.ndarray = field(init=False)

    def __post_init__(self):
        size = grid.voxel_size_mm(self.affine)
        object.__setattr__(self, 'brain', find_brain(self.grey + self.white, size))

    def draw(self):
        """Draw the template as a CT of the brain, HU; 0 outside the brain."""
        csf = np.clip(1 - self.grey - self.white, 0, 1)
        drawn = GREY_HU * self.grey + WHITE_HU * self.white + CSF_HU * csf
        return np.where(self.brain, drawn, 0.0).astype(np.float32)


@dataclass(frozen=True)
class Head:
    """A CT to be registered.

    Attributes
    ----------
    image : (X, Y, Z) array
        HU.
    brain_mask, lesion_mask : (X, Y, Z) arrays of bool
    affine : (4, 4) array
        Voxel to patient RAS, mm.
    """

    image: np.ndarray
    brain_mask: np.ndarray
    lesion_mask: np.ndarray
    affine: np.ndarray


@dataclass(frozen=True)
class TemplateAlignment:
    """Result of the registration to the template.

    Attributes
    ----------
    transforms : dict
        From `TemplateRegistration.register`; empty if the registration failed.
    coordinates : (X, Y, Z, 3) array or None
        Template coordinates of each voxel of the CTP grid, mm RAS; NaN outside the template.
    measured : dict
        ``template_overlap``, ``template_sides``, ``template_similarity``, ``template_folding``, and
        ``template_failure``: why nothing is written in template space; '' if it is.
    """

    transforms: dict
    coordinates: np.ndarray | None
    measured: dict


def find_brain(tissue, voxel_size_mm):
    """Find the brain of a template: tissue with sulci and ventricles.

    Parameters
    ----------
    tissue : (X, Y, Z) array
        Probability of tissue.
    voxel_size_mm : (3,) sequence of float

    Returns
    -------
    (X, Y, Z) array of bool
    """
    margin = [(int(np.ceil(SULCUS_MM / size)) + 1,) * 2 for size in voxel_size_mm]
    inside = np.pad(tissue > 0.5, margin)
    grown = ndimage.distance_transform_edt(~inside, voxel_size_mm) <= SULCUS_MM
    closed = ndimage.distance_transform_edt(grown, voxel_size_mm) > SULCUS_MM
    inner = tuple(slice(low, -high) for low, high in margin)
    return ndimage.binary_fill_holes(closed)[inner]


def head_from_ncct(ncct, affine, to_reference, lesion_mask, reference_affine, bone_hu, csf_level):
    """Prepare a non-contrast CT for the registration, in the coordinates of the CTP series.

    Parameters
    ----------
    ncct : (X, Y, Z) array
        HU.
    affine : (4, 4) array
        Voxel of the NCCT to its own RAS, mm.
    to_reference : (4, 4) array
        Rigid transform from points of the NCCT to points of the CTP series, mm RAS.
    lesion_mask : (X', Y', Z') array of bool
        Lesion on the CTP grid.
    reference_affine : (4, 4) array
        Of the CTP grid.
    bone_hu, csf_level : float
        As in `brain.brain_masks`.

    Returns
    -------
    Head

    Raises
    ------
    PerfusionError
        If no brain is found.
    """
    size = np.array(grid.voxel_size_mm(affine))
    most = np.array([NCCT_MM[0], NCCT_MM[0], NCCT_MM[1]])
    factors = tuple(np.maximum(1, np.floor(1.001 * most / size)).astype(int).tolist())
    image = grid.average_blocks(np.asarray(ncct, dtype=np.float32), factors)
    affine = np.asarray(to_reference) @ grid.block_affine(affine, factors)
    brain_mask, _ = brain.brain_masks(
        image, image, grid.voxel_size_mm(affine), bone_hu=bone_hu, csf_level=csf_level
    )
    if not brain_mask.any():
        raise PerfusionError('no brain was found in the non-contrast CT')
    to_voxel = np.linalg.inv(reference_affine) @ affine
    lesion = ndimage.affine_transform(
        lesion_mask.astype(np.uint8), to_voxel[:3, :3], to_voxel[:3, 3], image.shape, order=0
    )
    return Head(image, brain_mask, lesion > 0, affine)


def register_template(head, reference, hemispheres, template, settings, registration):
    """Register a head to a template and assess the result.

    An affine transform is found by a search (`template_start`), then refined by the nonrigid registration.
    Only the brain is registered: template and CT share its densities, but not those of skull and
    scalp. The metric is computed within a few mm of the brain and outside the lesion.

    Parameters
    ----------
    head : Head
        The CT that is registered: reference image or NCCT.
    reference : Head
        The reference image of the series, on which the result is judged.
    hemispheres : (X, Y, Z) array
        Of the series; 1 left, 2 right.
    template : Template
    settings : settings.TemplateSettings
    registration : TemplateRegistration

    Returns
    -------
    TemplateAlignment

    Notes
    -----
    About 5 s for 20 slices on one core: 1.5 s for the start and 3 s for SyN.
    """
    fixed, usable = _prepare(head, settings)
    start = template_start.find_start(*fixed, usable, template)
    moving = (template.draw(), template.affine)
    metric = usable & (
        template_start.distance_outside(fixed[0] > 0, fixed[1]) <= settings.template_metric_mm
    )
    transforms = registration.register(fixed, moving, metric, start)
    if transforms is None:
        return TemplateAlignment(
            {}, None, {'template_failure': 'the registration to the template failed'}
        )
    coordinates = registration.map_points(
        reference.image.shape, reference.affine, transforms['template_to_reference'],
        (template.brain.shape, template.affine),
    )  # fmt: skip
    measured = judge(coordinates, reference, hemispheres, template)
    measured['template_failure'] = _failure(measured, settings)
    return TemplateAlignment(
        {} if measured['template_failure'] else transforms, coordinates, measured
    )


def judge(coordinates, reference, hemispheres, template):
    """Measure whether a registration to the template can be right.

    Parameters
    ----------
    coordinates : (X, Y, Z, 3) array
        Template coordinates of each voxel, mm RAS; NaN outside the template.
    reference : Head
        Of the series.
    hemispheres : (X, Y, Z) array
        1 left, 2 right; found by the mirror registration, independently of the template.
    template : Template

    Returns
    -------
    dict
        ``template_overlap``: Dice coefficient of the brain and the brain of the template within the
        slab. ``template_sides``: share of the brain off the midline whose side in the template is its
        hemisphere. ``template_similarity``: correlation of density above its local mean.
        ``template_folding``: share of the brain where the transform folds.
    """
    brain_mask, affine = reference.brain_mask, reference.affine
    density = brain.at_usual_level(reference.image, brain_mask)
    drawn = resampling.sample(template.draw(), template.affine, coordinates, order=1)
    covered = resampling.sample(template.brain, template.affine, coordinates, order=1) > 0.5
    known = brain_mask & (np.abs(coordinates[..., 0]) > MIDLINE_MM) & (hemispheres > 0)
    right = np.where(coordinates[..., 0] > 0, symmetry.RIGHT, symmetry.LEFT)
    both = int(covered.sum()) + int(brain_mask.sum())
    return {
        'template_overlap': 2 * int((covered & brain_mask).sum()) / max(both, 1),
        'template_sides': float(np.mean((right == hemispheres)[known])) if known.any() else 0.0,
        'template_similarity': symmetry.mirror_similarity(
            np.nan_to_num(density), drawn, brain_mask, covered, grid.voxel_size_mm(affine)
        ),
        # mirrored, because `folding` assesses mirror registrations
        'template_folding': symmetry.folding(
            coordinates * np.array([-1, 1, 1]), affine, brain_mask
        ),
    }


def _failure(measured, settings):
    """Return why a registration is not used; '' if it is."""
    if measured['template_overlap'] < settings.template_least_overlap:
        return (
            f'brain and template overlap by a Dice coefficient of {measured["template_overlap"]:.2f}, '
            f'at least {settings.template_least_overlap:g} is needed'
        )
    if measured['template_sides'] < settings.template_least_sides:
        return (
            f'{measured["template_sides"]:.0%} of the brain is on the same side as in the template, at '
            f'least {settings.template_least_sides:.0%} is needed'
        )
    if measured['template_similarity'] < settings.template_least_similarity:
        return (
            f'density and template correlate by {measured["template_similarity"]:.2f}, at least '
            f'{settings.template_least_similarity:g} is needed'
        )
    if measured['template_folding'] > settings.template_most_folding:
        return (
            f'the transform folds in {measured["template_folding"]:.1%} of the brain, at most '
            f'{settings.template_most_folding:.1%} is allowed'
        )
    return ''


def _prepare(head, settings):
    """Window the brain and average it in plane; return it, and the voxels outside the lesion."""
    low, high = settings.template_window_hu
    size = grid.voxel_size_mm(head.affine)
    factors = [max(1, round(settings.template_grid_mm / step)) for step in size[:2]]
    level = brain.at_usual_level(head.image, head.brain_mask)
    density = np.clip(np.nan_to_num(level, nan=low), low, high) - low
    # CSF at the lower end of the window still belongs to the brain
    inside = np.where(head.brain_mask, np.maximum(density, 1.0), 0.0)
    image = grid.average_blocks(inside, (*factors, 1))
    affine = grid.block_affine(head.affine, (*factors, 1))
    near_lesion = (
        ndimage.distance_transform_edt(~head.lesion_mask, size) <= LESION_MARGIN_MM
        if head.lesion_mask.any()
        else head.lesion_mask
    )
    usable = grid.average_blocks((~near_lesion).astype(np.float32), (*factors, 1)) > 0.5
    cropped, cropped_affine = grid.crop_in_plane(image.astype(np.float32), affine, MARGIN_MM)
    corner = np.linalg.inv(affine) @ cropped_affine[:, 3]
    first = np.round(corner[:3]).astype(int)
    box = tuple(slice(a, a + n) for a, n in zip(first, cropped.shape, strict=True))
    return (cropped, cropped_affine), usable[box]
