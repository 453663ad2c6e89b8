# SPDX-License-Identifier: Apache-2.0
"""Template space: registration, images in it, and regions."""

from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from ctpprep.inputs.series import Series
from ctpprep.interfaces.template import MeasureRegions, RegisterTemplate, TransformToTemplate
from ctpprep.io.templates import OutputSpace, atlas_space, find_spaces
from ctpprep.perfusion.regions import MAP_COLUMNS
from ctpprep.settings import MethodSettings, RunSettings

REGISTERED = (
    'reference', 'brain_mask', 'hemispheres', 'core_global', 'core_local', 'hypodense_mask',
    'reference_to_ncct', 'entry',
)  # fmt: skip
# interpolated over tissue, linearly, and by the nearest voxel; a quantity that is added here is written in
# template space as well, if the table of outputs has it
MAPS = (
    'cbf', 'cbv', 'mtt', 'tmax', 'ttp', 'rcbf_global', 'rcbf_local', 'rcbv_global', 'rcbv_local',
    'probability_global', 'probability_local',
)  # fmt: skip
IMAGES = ('reference',)
MASKS = (
    'brain_mask', 'tissue_mask', 'unassessable_mask', 'core_global', 'core_local', 'hypoperfusion',
    'mismatch_global', 'mismatch_local',
)  # fmt: skip
# only of a series with a follow-up lesion
FOLLOWUP_MASKS = ('followup_mask',)
MEASURED = (
    'tissue_mask', 'unassessable_mask', 'hemispheres', 'core_global', 'core_local', 'hypoperfusion',
    *MAP_COLUMNS,
)  # fmt: skip
TRANSFORMS = ('reference_to_template', 'template_to_reference')
REGIONS = ('regions', 'region_labels', 'region_names')


def init_template_wf(
    series: Series, method: MethodSettings, run: RunSettings, space: OutputSpace
) -> LiterateWorkflow:
    """Register a series to a template, write its images there, and measure regions.

    Parameters
    ----------
    series : CTPSeries or PrecomputedMaps
    method : MethodSettings
    run : RunSettings
        With the atlas.
    space : OutputSpace
        The template. Its nodes get no setting of other templates, so that one more template leaves them
        as they are.

    Returns
    -------
    LiterateWorkflow
        Inputs: those of `REGISTERED`, `MAPS`, `IMAGES` and `MASKS`. Outputs, by `OutputSpace.port`: those
        of `TRANSFORMS` and `REGIONS`, ``template_registration``, and the images with ``_template`` added
        to their names, on each grid. If the registration fails, there are only
        ``template_registration`` and ``regions``.
    """
    workflow = LiterateWorkflow(name=f'{space.stage}_wf')
    own = method.change(output_spaces=(space.grids[0].spec,))
    relative = series.is_relative
    maps = [port for port in MAPS if not (relative and port == 'cbf')]
    measured = [port for port in MEASURED if not (relative and port == 'cbf')]
    masks = [*MASKS, *(FOLLOWUP_MASKS if series.lesion else ())]
    images = [*maps, *IMAGES, *masks]
    inputnode = pe.Node(
        IdentityInterface(list(dict.fromkeys((*REGISTERED, *images, *measured)))),
        name='inputnode',
    )
    register_template = pe.Node(
        RegisterTemplate(
            settings=own.as_dict('template', 'masks', 'random'), affine_from=series.affine_from
        ),
        name='register_template',
        mem_gb=1.0,
    )
    if series.ncct is not None:
        register_template.inputs.ncct = str(series.ncct)
    measure_regions = pe.Node(
        MeasureRegions(settings=own.as_dict('template')),
        name='measure_regions',
        mem_gb=0.5,
    )
    if run.atlas is not None and atlas_space(run.atlas, _spaces(method)) == space:
        measure_regions.inputs.atlas = str(run.atlas)
        measure_regions.inputs.atlas_labels = str(run.atlas_labels)
    resampled = [f'{port}_template' for port in images]
    registered = (*TRANSFORMS, 'template_registration')
    outputs = [space.port(port) for port in (*registered, *REGIONS)]
    outputs += [space.port(port, grid) for grid in space.grids for port in resampled]
    outputnode = pe.Node(IdentityInterface(outputs), name='outputnode')
    workflow.connect([
        (inputnode, register_template, [(port, port) for port in REGISTERED]),
        (inputnode, measure_regions, [(port, port) for port in measured]),
        (register_template, measure_regions, [
            (port, port) for port in ('template_coordinates', 'template_registration')
        ]),
        (register_template, outputnode, [(port, space.port(port)) for port in registered]),
        (measure_regions, outputnode, [(port, space.port(port)) for port in REGIONS]),
    ])  # fmt: skip
    for grid in space.grids:
        own = method.change(output_spaces=(grid.spec,))
        is_registered = grid == space.grids[0]
        transform_to_template = pe.Node(
            TransformToTemplate(
                maps=maps, images=IMAGES, masks=masks, settings=own.as_dict('template')
            ),
            name='transform_to_template' + ('' if is_registered else f'_res{grid.resolution}'),
            mem_gb=1.0,
        )
        workflow.connect([
            (inputnode, transform_to_template, [(port, port) for port in images]),
            (register_template, transform_to_template, [
                ('reference_to_template', 'reference_to_template')
            ]),
            (transform_to_template, outputnode, [
                (port, space.port(port, grid)) for port in resampled
            ]),
        ])  # fmt: skip
    if space.is_first:  # describes the others as well
        workflow.__desc__ = _describe(series, method, run)
    return workflow


def _spaces(method: MethodSettings) -> tuple[OutputSpace, ...]:
    return find_spaces(method.template.output_spaces)


def _describe(series: Series, method: MethodSettings, run: RunSettings) -> str:
    settings = method.template
    low, high = settings.template_window_hu
    image = 'non-contrast CT' if series.ncct is not None else 'reference image'
    spaces = _spaces(method)
    templates = ' and '.join(space.space for space in spaces)
    separately = ' separately' if len(spaces) > 1 else ''
    drawn = (
        'cortex, deep grey matter and white matter, which was superficial within '
        f'{settings.superficial_mm:g} mm of cortex, periventricular within '
        f'{settings.periventricular_mm:g} mm of a lateral ventricle [@decarli2005], and else deep'
    )
    atlas = drawn
    if run.atlas is not None:
        with_atlas = atlas_space(run.atlas, spaces)
        atlas = f'the regions of {run.atlas.name}, in {with_atlas.space}'
        if len(spaces) > 1:
            atlas += f', and by the other templates in {drawn}'
    return f"""
### Template space

The brain in the {image}, at {low:g} to {high:g} HU and without the lesion and its surroundings, was
registered to {templates} [@fonov2011]{separately}, drawn as a CT from its probabilities of grey and white
matter, by a search for the most similar affine transform and by symmetric diffeomorphic
registration (ANTs SyN, mutual information [@avants2008; @tustison2021]). Nothing was written in template
space where brain and template overlapped by a Dice coefficient of less than
{settings.template_least_overlap:g}, less than {settings.template_least_sides:.0%} of the brain was on the
same side, density above its local mean correlated by less than {settings.template_least_similarity:g}, or the
transform folded in more than {settings.template_most_folding:.1%} of the brain. Maps were
interpolated linearly over tissue, masks by the nearest voxel. Volumes and means were measured on the grid
of the maps, in {atlas}.
"""
