# SPDX-License-Identifier: Apache-2.0
"""Registration to a template, images in its space, and regions."""

import functools
from pathlib import Path

import numpy as np
import pandas as pd
from nipype.interfaces.base import (
    DynamicTraitedSpec,
    File,
    TraitedSpec,
    traits,
)
from nipype.interfaces.io import add_traits

from ctpprep.exceptions import PerfusionError
from ctpprep.interfaces.base import ImageInputSpec, StageInputSpec, StageInterface, is_density
from ctpprep.io import nifti
from ctpprep.io.templates import find_template, load_atlas, load_template
from ctpprep.perfusion import regions, resampling, template
from ctpprep.registration import TemplateSyN, map_points, read_rigid

MASKED_OUT = ('core_global', 'core_local', 'hypodense_mask')


# The nodes of a series read the templates of all output spaces in turns: with a smaller cache than
# there are spaces, each would be read every time. A template takes up to 80 MB at 1 mm.
@functools.lru_cache(maxsize=4)
def read_template(spec):
    """Read a template.

    Parameters
    ----------
    spec : str
        Space and resolution.

    Returns
    -------
    template.Template
    """
    files = find_template(spec)
    return template.Template(*load_template(files), files.space)


class _TemplateInputSpec(StageInputSpec):
    brain_mask = File(exists=True, mandatory=True)
    hemispheres = File(exists=True, mandatory=True, desc='1 left, 2 right')


class _RegisterTemplateInputSpec(_TemplateInputSpec, ImageInputSpec):
    reference = File(exists=True, mandatory=True, desc='HU, or a perfusion map')
    core_global = File(exists=True)
    core_local = File(exists=True)
    hypodense_mask = File(exists=True)
    ncct = File(exists=True, desc='non-contrast CT of the session, HU')
    reference_to_ncct = File(exists=True, desc='rigid ITK transform, text')
    entry = File(exists=True, desc='for precomputed maps: which image was mirrored, json')


class _RegisterTemplateOutputSpec(TraitedSpec):
    reference_to_template = File(exists=True, desc='composite transform, h5; absent if it failed')
    template_to_reference = File(exists=True, desc='its inverse, h5; absent if it failed')
    template_coordinates = File(exists=True, desc='of each voxel, mm RAS of the template, 4D')
    template_registration = File(exists=True, desc='what was registered, and how well, json')


class RegisterTemplate(StageInterface):
    """Register the template to the NCCT, or without a usable one to the reference image."""

    input_spec = _RegisterTemplateInputSpec
    output_spec = _RegisterTemplateOutputSpec

    def _run_interface(self, runtime):
        method, reference = self.method, nifti.load(self.inputs.reference)
        if not is_density(self.load_json('entry')):
            failure = 'there is no CT on the grid of the maps to register'
            self.save_json(runtime, template_registration={'template_failure': failure})
            return runtime
        atlas = read_template(method.template.output_spaces[0])
        own, head, measured = self._choose_head(*reference)
        aligned = template.register_template(
            head, own, self.load('hemispheres'), atlas, method.template,
            TemplateSyN(runtime.cwd, method.random.random_seed),
        )  # fmt: skip
        self._results |= aligned.transforms
        self.save_json(runtime, template_registration=measured | aligned.measured)
        if aligned.transforms:
            self.save_images(
                runtime, reference[1], self.inputs.reference,
                template_coordinates=aligned.coordinates,
            )  # fmt: skip
        return runtime

    def _choose_head(self, reference, affine):
        """Return the reference image, the NCCT if there is a usable one, and which it is."""
        brain_mask, lesion = self.load_mask('brain_mask'), None
        for mask in filter(lambda mask: mask is not None, map(self.load_mask, MASKED_OUT)):
            lesion = mask if lesion is None else lesion | mask
        lesion = np.zeros_like(brain_mask) if lesion is None else lesion
        own = template.Head(reference, brain_mask, lesion, affine)
        measured = {'template_image': 'reference image'}
        if self.inputs.ncct and self.inputs.reference_to_ncct:
            masks = self.method.masks
            try:
                head = template.head_from_ncct(
                    *self.load_image(self.inputs.ncct, straight=True),
                    read_rigid(self.inputs.reference_to_ncct), lesion, affine, masks.bone_hu,
                    masks.csf_level,
                )  # fmt: skip
                return own, head, {'template_image': 'non-contrast CT'}
            except PerfusionError as error:
                measured['template_image_reason'] = str(error)
        return own, own, measured


class _TransformToTemplateInputSpec(DynamicTraitedSpec, StageInputSpec):
    maps = traits.List(traits.Str, desc='inputs that are interpolated over tissue')
    images = traits.List(traits.Str, desc='inputs that are interpolated linearly')
    masks = traits.List(traits.Str, desc='inputs of which the nearest voxel is taken')
    tissue_mask = File(exists=True, mandatory=True)
    reference_to_template = File(exists=True, desc='h5; without it there is no output')


class TransformToTemplate(StageInterface):
    """Resample the images of a series to the grid of the template.

    Parameters
    ----------
    maps, images, masks : sequence of str
        Input ports by how they are interpolated; the outputs have ``_template`` added to their names.
        An input without a file has no output.
    """

    input_spec = _TransformToTemplateInputSpec
    output_spec = DynamicTraitedSpec

    def __init__(self, maps=(), images=(), masks=(), **inputs):
        super().__init__(maps=list(maps), images=list(images), masks=list(masks), **inputs)
        self.names = (*maps, *images, *masks)
        add_traits(self.inputs, [name for name in self.names if name != 'tissue_mask'])

    def _outputs(self):
        return add_traits(super()._outputs(), [f'{name}_template' for name in self.names])

    def _run_interface(self, runtime):
        if not self.inputs.reference_to_template:
            return runtime
        target = read_template(self.method.template.output_spaces[0])
        tissue, affine = nifti.load(self.inputs.tissue_mask)
        places = resampling.brain_places(
            target, map_points, self.inputs.reference_to_template, (tissue.shape, affine)
        )
        like = nifti.straight_image(target.grey.shape, target.affine)
        images = dict(self._resample(tissue > 0, affine, places))
        self.save_images(runtime, target.affine, like, **images)
        return runtime

    def _resample(self, tissue, affine, places):
        """Resample every image that exists; yield the name of its output and the result."""
        unassessable = (
            self.load_mask('unassessable_mask') if 'unassessable_mask' in self.names else None
        )
        for name in self.names:
            if (image := self.load(name)) is not None:
                masks, maps = self.inputs.masks, self.inputs.maps
                kind = 'mask' if name in masks else 'map' if name in maps else ''
                within = tissue
                if name.endswith('_local') and unassessable is not None:
                    within = tissue & ~unassessable
                resampled = resampling.to_template(image, within, affine, places, kind)
                yield f'{name}_template', resampled


class _MeasureRegionsInputSpec(ImageInputSpec):
    atlas = File(exists=True, desc='labels in template space; by default drawn from the template')
    atlas_labels = File(exists=True, desc='table with index and name')
    template_coordinates = File(exists=True, desc='mm RAS, 4D; absent if the registration failed')
    template_registration = File(exists=True, mandatory=True, desc='json')
    tissue_mask = File(exists=True, mandatory=True)
    unassessable_mask = File(exists=True)
    hemispheres = File(exists=True, mandatory=True, desc='1 left, 2 right')
    core_global = File(exists=True, mandatory=True)
    core_local = File(exists=True)
    hypoperfusion = File(exists=True, mandatory=True)
    cbf = File(exists=True, desc='mL/100 g/min')
    tmax = File(exists=True, mandatory=True, desc='s')
    rcbf_global = File(exists=True, mandatory=True, desc='fraction')
    rcbf_local = File(exists=True, desc='fraction')


class _MeasureRegionsOutputSpec(TraitedSpec):
    regions = File(exists=True, desc='volumes and means by region and hemisphere, tsv')
    region_labels = File(exists=True, desc='region of each voxel; absent if there are none')
    region_names = File(exists=True, desc='names and origin of the labels, for sidecars, json')


class MeasureRegions(StageInterface):
    """Bring the regions of an atlas to the patient and measure lesions and maps in them."""

    input_spec = _MeasureRegionsInputSpec
    output_spec = _MeasureRegionsOutputSpec

    def _run_interface(self, runtime):
        atlas = self._load_atlas()
        names = {str(label): name for label, name in atlas.names.items()}
        origin = {'Regions': names, 'RegionsFrom': self._describe_atlas()}
        self.save_json(runtime, region_names=origin)
        coordinates, tissue = self.load('template_coordinates'), self.load_mask('tissue_mask')
        if coordinates is None:
            reason = self.load_json('template_registration')['template_failure']
            rows = regions.without_regions(atlas.names, reason)
        else:
            _, affine = nifti.load(self.inputs.tissue_mask)
            labels = resampling.sample(atlas.labels, atlas.affine, coordinates)
            rows = regions.measure_regions(
                labels, atlas.names, self.load('hemispheres'), tissue, self._load(LESIONS, mask=True),
                self._load(regions.MAP_COLUMNS), nifti.voxel_size_mm(affine),
            )  # fmt: skip
            self.save_images(
                runtime, affine, self.inputs.tissue_mask, region_labels=labels * tissue
            )
        table = pd.DataFrame(rows, columns=list(regions.COLUMNS))
        self.save_table(runtime, 'regions', table, float_format='%.6g')
        return runtime

    def _load_atlas(self):
        if self.inputs.atlas:
            return regions.Atlas(*load_atlas(self.inputs.atlas, self.inputs.atlas_labels))
        method = self.method.template
        drawn = read_template(method.output_spaces[0])
        return regions.draw_tissues(
            drawn.grey, drawn.white, drawn.brain, drawn.affine, method.superficial_mm,
            method.periventricular_mm,
        )  # fmt: skip

    def _describe_atlas(self):
        """Describe where the regions are from, and by which template."""
        space = find_template(self.method.template.output_spaces[0]).space
        if self.inputs.atlas:
            return f'{Path(self.inputs.atlas).name}, in {space}'
        return f'tissue probabilities of {space}'

    def _load(self, names, mask=False):
        """Read the connected images; local rCBF is NaN where it is not assessable."""
        load = self.load_mask if mask else self.load
        images = {name: image for name in names if (image := load(name)) is not None}
        if 'rcbf_local' in images and (none := self.load_mask('unassessable_mask')) is not None:
            images['rcbf_local'][none] = np.nan
        return images


LESIONS = ('core_global', 'core_local', 'hypoperfusion')
