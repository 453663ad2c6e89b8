# SPDX-License-Identifier: Apache-2.0
"""The table of outputs: one row per file, with its port, unit and description.

`Sources` and `Settings` of a sidecar are not declared in the table; they follow from the graph
(`ctpprep.workflows.lineage`).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nipype.pipeline import engine as pe

from ctpprep.inputs.series import FailedSeries, PrecomputedMaps, Series
from ctpprep.interfaces.outputs import WriteDerivatives
from ctpprep.io.bids import with_sidecars
from ctpprep.io.templates import OutputSpace, TemplateFiles, find_spaces
from ctpprep.perfusion.lesions import LESIONS
from ctpprep.settings import MethodSettings, RunSettings
from ctpprep.workflows import template
from ctpprep.workflows.lineage import Graph

PERCENT = 'fraction of the reference: 1 = reference, never percent'
SIDES = {1: 'left', 2: 'right'}
ROI = {'Type': 'ROI'}
LESION = {'Type': 'Lesion'}
HU = {'Units': 'HU'}
UNITLESS = {'Units': '1'}
BASELINE = 'desc-baseline_ctpref.nii.gz'  # mirrored image of precomputed maps


def _columns(**descriptions: tuple[str, str]) -> dict[str, Any]:
    """Describe the columns of a table by unit (empty for none) and meaning."""
    return {
        name: {'Description': meaning} | ({'Units': unit} if unit else {})
        for name, (unit, meaning) in descriptions.items()
    }


CONFOUNDS = _columns(
    trans_x=('mm', "shift of the head's centre to the right"),
    trans_y=('mm', "shift of the head's centre to the front"),
    trans_z=('mm', "shift of the head's centre upwards"),
    rot_x=('rad', 'rotation about the left-right axis'),
    rot_y=('rad', 'rotation about the back-front axis'),
    rot_z=('rad', 'rotation about the feet-head axis'),
    framewise_displacement=('mm', 'mean displacement of the head since the frame before'),
    displacement=('mm', 'mean displacement of the head against the reference frame'),
    skull_similarity=('', 'correlation of the corrected skull with that of the reference frame'),
    weight=('', 'weight of the frame; 0 is rejected'),
)
CURVES = _columns(
    time=('s', "acquisition time of the AIF's slices"),
    aif=('HU', 'arterial input function above its baseline'),
    vof=('HU', 'venous output function above its baseline'),
    tissue=('HU', 'mean enhancement of tissue'),
    aif_automatic=('HU', 'only beside a supplied AIF: the one that is found without it'),
    weight=('', 'weight of the frame; the curves of rejected frames are interpolated'),
)
VOLUMES = _columns(
    region=(
        '',
        'core, hypoperfusion, mismatch, unassessable, or the quantity that is thresholded',
    ),
    hemisphere=('', 'hemisphere the region is restricted to'),
    normalization=('', 'normalization of CBF or CBV'),
    measure=(
        '',
        'volume; volume before restriction to hypoperfusion, and within it; volume removed as specks '
        'and rims; core that is joined to hypoperfusion; hypodense volume; volume by Tmax without its '
        'calibration; difference of hypoperfusion and core; ratio; index; trial criteria',
    ),
    threshold=('', 'rCBF as a fraction, or Tmax in s'),
    volume_ml=('mL', 'volume'),
    ci_low_ml=('mL', 'lower limit of the 95 % interval of the volume'),
    ci_high_ml=('mL', 'upper limit of the 95 % interval of the volume'),
    value=('', 'figure of measures that are no volume; criteria: 1 met, 0 not met'),
    affected_side=('', 'hemisphere that lesions are looked for in, unless both were asked for'),
    side_confidence=(
        '',
        'by the median: 0 chance, 1 every voxel of the affected side has the longer Tmax; by '
        'hypoperfusion: difference of its volumes in the two hemispheres over their sum; n/a if asked for',
    ),
    side_rule=('', 'what named the side: median (of Tmax), hypoperfusion or asked for'),
    reason=('', 'why a volume is 0 or a figure is missing'),
)
AGREEMENT = _columns(
    measure=(
        '',
        'segmentation: a mask as written; threshold: a lesion segmented at another threshold; voxels: '
        'tissue beyond a threshold, not cleaned; ranking: area under the ROC curve; probability, '
        'reliability: of the probability of core; left out: the lesion could not be aligned',
    ),
    quantity=('', 'core, hypoperfusion, probability, or the map that is thresholded or ranked'),
    normalization=('', 'normalization of CBF or CBV'),
    threshold=('', 'rCBF or rCBV as a fraction (below), or Tmax in s (above)'),
    region=(
        '',
        'brain, with CSF for masks and thresholds, tissue alone for voxels and ranking; tissue of the '
        'affected hemisphere; or hypoperfusion',
    ),
    volume_ml=('mL', 'volume of what is compared'),
    followup_ml=('mL', 'volume of the follow-up lesion in the region'),
    region_ml=('mL', 'volume of the region, or of a bin of reliability'),
    difference_ml=('mL', 'volume - volume of the follow-up lesion'),
    absolute_difference_ml=('mL', 'its absolute value'),
    dice=('', 'Dice coefficient'),
    sensitivity=('', 'fraction of the follow-up lesion that is segmented'),
    specificity=('', 'fraction of the rest of the region that is not segmented'),
    precision=('', 'fraction of what is segmented that is follow-up lesion'),
    surface_mm=('mm', 'mean distance of the surfaces, both directions'),
    surface_95_mm=('mm', '95th percentile of these distances'),
    auc=('', 'area under the ROC curve of the voxels of the region'),
    brier=('', 'mean squared difference of probability and follow-up lesion'),
    predicted=('', 'mean probability of core'),
    observed=('', 'fraction that is follow-up lesion'),
    reason=('', 'why a figure is missing'),
)
REGIONS = _columns(
    region=('', 'region of the atlas, or tissue class and depth of white matter'),
    label=('', 'value of the region in the atlas, and in seg-regions_dseg'),
    hemisphere=('', 'left, right, both, or the ratio left/right of all figures'),
    tissue_ml=('mL', 'tissue of the region in the slab'),
    core_global_ml=('mL', 'core by global rCBF'),
    core_local_ml=('mL', 'core by local rCBF'),
    removed_ml=('mL', 'global core that is not local core'),
    added_ml=('mL', 'local core that is not global core'),
    kept_ml=('mL', 'core by both'),
    hypoperfusion_ml=('mL', 'Tmax above the threshold, and core that borders on it'),
    cbf=('mL/100 g/min', 'mean CBF of tissue'),
    tmax=('s', 'mean Tmax of tissue'),
    rcbf_global=('', 'mean CBF relative to the global reference, as a fraction'),
    rcbf_local=('', 'mean CBF relative to the homologue, as a fraction, where it is assessable'),
    reason=('', 'why figures are missing'),
)
QUALITY = {
    'status': {'Description': 'worst grade of all checks: pass, warn or fail'},
    'caution': {'Description': 'why local normalization is unreliable for want of a healthy side'},
}


@dataclass(frozen=True)
class Derivative:
    """One output file.

    Attributes
    ----------
    stage : str
        Stage whose node writes the file.
    name : str
        Port of the file.
    ending : str
        File name after the prefix of the series.
    description : str
    metadata : dict
        Additional sidecar fields.
    facts : tuple of str
        Ports of JSON files with measured values.
    fields : tuple of str
        Ports of JSON files whose fields are copied to the sidecar.
    labels : dict
        Meaning of the values of a segmentation.
    sources : tuple of str
        Ports of the files it was made from; by default those that the graph shows.
    """

    stage: str
    name: str
    ending: str
    description: str
    metadata: dict[str, Any] = field(default_factory=dict)
    facts: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    labels: dict[int, str] = field(default_factory=dict)
    sources: tuple[str, ...] = ()


# fields that describe the global reference, for sidecars of files derived with it
_GLOBAL = ('global_reference_fields',)
# inputs that may turn out to be unusable, and the port that has a file only if they were used
EVIDENCE = {'density': 'baseline_ct'}


def _map(name: str, unit: str, description: str) -> Derivative:
    return Derivative(
        'deconvolution', name, f'{name}.nii.gz', description, {'Units': unit}, ('deconvolution',)
    )


def _mask(stage: str, name: str, ending: str, description: str) -> Derivative:
    return Derivative(stage, name, f'{ending}.nii.gz', description, ROI)


def _relative(reference: str, quantity: str) -> tuple[Derivative, ...]:
    upper = quantity[1:].upper()
    unit = UNITLESS | {'Scale': PERCENT}
    return (
        Derivative(
            'normalization', f'{quantity}_global', f'desc-global_{quantity}.nii.gz',
            f'{upper} relative to the median of the global reference tissue',
            {'Units': '1', 'Reference': reference, 'Scale': PERCENT}, ('normalization',),
            ('reference_fields',),
        ),
        Derivative(
            'normalization', f'{quantity}_mirrored', f'desc-contralateral_{quantity}.nii.gz',
            f'globally normalized {upper} at the contralateral homologue of each voxel, before '
            'clip and smoothing', unit, ('symmetry',), _GLOBAL,
        ),
        Derivative(
            'normalization', f'{quantity}_local', f'desc-local_{quantity}.nii.gz',
            f'globally normalized {upper} divided by its clipped and smoothed contralateral '
            'homologue; hides the state of the healthy hemisphere',
            {'Units': '1', 'Reference': 'contralateral homologue', 'Scale': PERCENT},
            ('symmetry',), _GLOBAL,
        ),
    )  # fmt: skip


def _lesion(name: str, ending: str, description: str) -> Derivative:
    return Derivative(
        'segmentation', name, f'{ending}.nii.gz', description, LESION, ('normalization',),
        _GLOBAL,
    )  # fmt: skip


def derivatives(global_reference: str) -> tuple[Derivative, ...]:
    """List the files that are written for a series.

    Parameters
    ----------
    global_reference : str
        The requested reference; the sidecars contain the one that was used instead.
    """
    return (
        Derivative(
            'preprocessing', 'reference', 'desc-hmc_ctpref.nii.gz',
            'mean of the motion-corrected frames before contrast, pose of the reference frame',
            HU | {'SpatialReference': 'orig'}, ('bolus', 'motion'),
        ),
        Derivative(
            'preprocessing', 'ctp_corrected', 'desc-preproc_ctp.nii.gz',
            'motion-corrected series on the working grid, not denoised; -1024 HU where a voxel '
            'left the field of view', HU, ('motion',), ('timing',),
        ),
        Derivative(
            'preprocessing', 'frame_transforms', 'from-orig_to-ctpref_mode-image_desc-hmc_xfm.txt',
            'rigid transforms, one a frame, from points of the reference to points of the frame '
            '(ITK, LPS)', {}, ('motion',),
        ),
        Derivative(
            'preprocessing', 'confounds', 'desc-confounds_timeseries.tsv',
            'head motion of every frame against the reference frame', CONFOUNDS, ('motion',),
        ),
        replace(
            _mask('preprocessing', 'brain_mask', 'desc-brain_mask',
                  'brain with sulci and ventricles, without the outer rim of CSF'),
            metadata={'Type': 'Brain'},
        ),
        _mask('preprocessing', 'tissue_mask', 'desc-tissue_mask',
              'brain without vessels and CSF, seen in every frame'),
        _mask('preprocessing', 'vessel_mask', 'label-vessel_mask', 'strongly enhancing voxels'),
        _mask('preprocessing', 'csf_mask', 'label-CSF_mask', 'sulci and ventricles'),
        _mask('deconvolution', 'aif_mask', 'label-AIF_mask',
              'voxels of the arterial input function'),
        _mask('deconvolution', 'vof_mask', 'label-VOF_mask',
              'voxels of the venous output function'),
        Derivative(
            'deconvolution', 'curves', 'desc-vascular_timeseries.tsv',
            'arterial input, venous output and mean tissue enhancement at the acquisition times '
            "of the AIF's slices", CURVES,
        ),
        _map('cbf', 'mL/100 g/min', 'cerebral blood flow'),
        _map('cbv', 'mL/100 g', 'cerebral blood volume'),
        _map('mtt', 's', 'mean transit time'),
        _map('tmax', 's', 'time to the maximum of the residue function'),
        _map('ttp', 's', 'time to peak of the tissue curve since the start of the scan'),
        Derivative(
            'deconvolution', 'noise', 'desc-noise_stat.nii.gz',
            'standard deviation of the denoised curves before contrast', HU, ('deconvolution',),
        ),
        Derivative(
            'deconvolution', 'tissue_share', 'label-tissue_probseg.nii.gz',
            'share of tissue, and not CSF, in each voxel, by its density: CBF and CBV are divided by '
            'it', UNITLESS, ('deconvolution',),
        ),
        Derivative(
            'symmetry', 'reference_mirror', 'space-mirror_ctpref.nii.gz',
            'the reference flipped left-right on its own grid',
            HU | {'SpatialReference': 'mirror image of the reference on its own grid'},
        ),
        Derivative(
            'symmetry', 'mirror_to_reference', 'from-mirror_to-ctpref_mode-image_xfm.h5',
            'applied with ANTs to space-mirror_ctpref it gives the homologue of each voxel',
            {}, ('symmetry',),
        ),
        Derivative(
            'symmetry', 'reference_to_mirror', 'from-ctpref_to-mirror_mode-image_xfm.h5',
            'inverse of from-mirror_to-ctpref', {}, ('symmetry',),
        ),
        Derivative(
            'symmetry', 'hemispheres', 'seg-hemisphere_dseg.nii.gz',
            'hemispheres by the side of each voxel against its homologue; by a plane where the '
            'mirror registration failed', {}, ('symmetry',), labels=SIDES,
        ),
        Derivative(
            'coregistration', 'reference_to_ncct', 'from-ctpref_to-NCCT_mode-image_xfm.txt',
            'rigid; applied with ANTs to the reference it gives the reference on the '
            'non-contrast CT of the session (ITK, LPS)',
        ),
        *_relative(global_reference, 'rcbf'),
        *_relative(global_reference, 'rcbv'),
        Derivative(
            'normalization', 'unassessable_mask', 'label-unassessable_mask.nii.gz',
            'tissue without a contralateral homologue to divide by', ROI, fields=_GLOBAL,
        ),
        _lesion('hypoperfusion', 'label-hypoperfusion_mask',
                'Tmax above the threshold, and core that borders on it'),
        _lesion('core_global', 'label-core_desc-global_mask', 'infarct core by global rCBF'),
        _lesion('core_local', 'label-core_desc-local_mask',
                'infarct core by local rCBF; the threshold is not validated for local maps'),
        *(
            Derivative(
                'segmentation', f'probability_{which}', f'label-core_desc-{which}_probseg.nii.gz',
                f'probability of {which} rCBF, without its noise, to be below the threshold of core, by '
                'noise of the curves alone and before opening and cleaning; 0 on the other side and where '
                'nothing can be judged', LESION | UNITLESS, ('normalization',), _GLOBAL,
            )
            for which in ('global', 'local')
        ),
        _lesion('mismatch_global', 'label-mismatch_desc-global_mask',
                'hypoperfusion outside the global core'),
        _lesion('mismatch_local', 'label-mismatch_desc-local_mask',
                'hypoperfusion outside the local core'),
        Derivative(
            'segmentation', 'lesions', 'seg-perfusion_dseg.nii.gz',
            'core by both normalizations and hypoperfusion as labels', {}, ('normalization',),
            _GLOBAL, LESIONS,
        ),
        Derivative(
            'segmentation', 'hypodense_mask', 'label-hypodense_mask.nii.gz',
            'tissue of either core that is far less dense than its homologue, as in old infarcts',
            ROI, fields=_GLOBAL,
        ),
        Derivative(
            'segmentation', 'volumes', 'seg-perfusion_morph.tsv', 'volumes and their ratios',
            VOLUMES, ('normalization', 'deconvolution', 'symmetry'), _GLOBAL,
        ),
        Derivative(
            'followup', 'followup_mask', 'label-lesion_desc-followup_mask.nii.gz',
            'lesion of a later session on the grid of the maps: voxels of which at least half is lesion',
            LESION, ('followup',),
        ),
        Derivative(
            'followup', 'followup_agreement', 'desc-followup_morph.tsv',
            'agreement of maps, lesions and probabilities with the lesion of a later session',
            AGREEMENT, ('followup',), _GLOBAL,
        ),
        Derivative(
            'quality', 'quality', 'desc-qualitycontrol_ctp.tsv',
            'automated quality control: for every check its figure, grade and sentence',
            QUALITY, fields=('limits',),
        ),
    )  # fmt: skip


def precomputed_derivatives(
    series: PrecomputedMaps, global_reference: str
) -> tuple[Derivative, ...]:
    """List the files that are written for precomputed maps.

    Parameters
    ----------
    series : PrecomputedMaps
    global_reference : str
        As for `derivatives`.
    """
    table = {row.name: row for row in derivatives(global_reference)}
    entry: dict[str, Any] = {
        'stage': 'precomputed', 'facts': ('entry',), 'fields': ('entry_fields',)
    }  # fmt: skip
    rows = [
        replace(table[name], description=f'{table[name].description}, made elsewhere', **entry)
        for name in series.maps
        if name != 'rcbf'
    ]
    masks = {'brain_mask': '', 'tissue_mask': 'brain without vessels and CSF'}
    if 'tissue_mask' not in series.masks:
        masks |= {'vessel_mask': 'far more blood than brain', 'csf_mask': ''}
    rows += [
        replace(table[name], description=description or table[name].description, **entry)
        for name, description in masks.items()
    ]
    copied = series.reference_kind == 'ctpref'
    rows.append(
        Derivative(
            'precomputed', 'reference', table['reference'].ending if copied else BASELINE,
            table['reference'].description if copied else
            'image whose mirror image is registered: the baseline CT on the grid of the maps, or, '
            'without one, CBV or CBF scaled to the window of the registration (Measured says which)',
            {'SpatialReference': 'the grid of the maps'}, ('entry',),
            ('entry_fields', 'baseline_fields'),
        )
    )  # fmt: skip
    mirror = table['reference_mirror']
    table['reference_mirror'] = replace(mirror, fields=(*mirror.fields, 'baseline_fields'))
    absent = {'preprocessing', 'deconvolution', 'coregistration'}
    return (
        *rows,
        *(
            row
            for row in table.values()
            if row.stage not in absent
            # the noise of precomputed maps is unknown
            and not row.name.startswith('probability')
            and ('cbv' in series.maps or not row.name.startswith('rcbv'))
        ),
    )


def template_derivatives(
    table: Iterable[Derivative], output_space: OutputSpace
) -> tuple[Derivative, ...]:
    """List the files of the registration to a template and in its space.

    Parameters
    ----------
    table : iterable of Derivative
        Files on the grid of the series, some of which are also written in template space.
    output_space : OutputSpace
        The template. Only of templates after the first, the names of the files of regions contain the
        space.

    Returns
    -------
    tuple of Derivative
    """
    space, stage, port = output_space.space, output_space.stage, output_space.port
    facts, names = (port('template_registration'),), (port('region_names'),)
    to_template, label = port('reference_to_template'), '' if output_space.is_first else space
    resampled = {
        **dict.fromkeys(template.MAPS, 'linear, over tissue'),
        **dict.fromkeys(template.IMAGES, 'linear'),
        **dict.fromkeys((*template.MASKS, *template.FOLLOWUP_MASKS), 'nearest voxel'),
    }
    return (
        Derivative(
            stage, to_template, f'from-ctpref_to-{space}_mode-image_xfm.h5',
            f'applied with ANTs to images on the grid of the reference it gives them in {space}',
            {}, facts,
        ),
        Derivative(
            stage, port('template_to_reference'), f'from-{space}_to-ctpref_mode-image_xfm.h5',
            f'inverse of from-ctpref_to-{space}', {}, facts,
        ),
        Derivative(
            stage, port('regions'), f'desc-regions{label}_morph.tsv',
            'volumes of lesions and means of maps by region and hemisphere, on the grid of the maps; '
            f'regions registered from {space}', REGIONS, facts, (*_GLOBAL, *names),
        ),
        Derivative(
            stage, port('region_labels'), f'seg-regions{label}_dseg.nii.gz',
            f'region of each voxel of tissue, registered from {space}', {}, facts, names,
            sources=('tissue_mask', port('template_to_reference')),
        ),
        *(
            replace(
                row, stage=stage, name=port(f'{row.name}_template', files),
                ending=_in_space(row.ending, files),
                description=f'{row.description}; in {space}, interpolation: {resampled[row.name]}',
                metadata={key: value for key, value in row.metadata.items() if key != 'SpatialReference'}
                | {'Resolution': f'res-{files.resolution} of {space}'},
                facts=facts, sources=(row.name, to_template),
            )
            for files in output_space.grids
            for row in table
            if row.name in resampled
        ),
    )  # fmt: skip


def _in_space(ending: str, files: TemplateFiles) -> str:
    """Add the entities of a template to the ending of a file name, in the order of BIDS."""
    first, _, rest = ending.rpartition('_') if ending.startswith('seg-') else ('', '', ending)
    parts = (f'space-{files.space}', first, f'res-{files.resolution}', rest)
    return '_'.join(filter(None, parts))


def outputs_of(series: Series, method: MethodSettings) -> tuple[Derivative, ...]:
    """List the files that are written for a series or for precomputed maps.

    Parameters
    ----------
    series : CTPSeries or PrecomputedMaps
    method : MethodSettings

    Returns
    -------
    tuple of Derivative
    """
    reference = method.normalization.global_reference
    table = (
        derivatives(reference) if series.has_frames else precomputed_derivatives(series, reference)
    )
    return table + _template_rows(table, method)


def _template_rows(
    table: tuple[Derivative, ...], method: MethodSettings
) -> tuple[Derivative, ...]:
    """List the files in template space; none unless it was asked for."""
    spaces = find_spaces(method.template.output_spaces)
    return tuple(row for space in spaces for row in template_derivatives(table, space))


def derivative_rows(
    series: Series, method: MethodSettings, stage: str, graph: Graph
) -> list[dict[str, Any]]:
    """Build the rows of one stage for one series, with paths and sidecars.

    Parameters
    ----------
    series : CTPSeries or PrecomputedMaps
    method : MethodSettings
    stage : str
    graph : Graph
        The connected stages of the series.

    Returns
    -------
    list of dict
        ``name``, ``path`` relative to the output folder, ``sidecar``, ``made_from`` (URIs of sources
        that may be missing, by port), ``facts``, ``fields`` and ``labels``.
    """
    table = [row for row in outputs_of(series, method) if row.name in graph.makers]
    paths = {row.name: f'{series.out_subdir}/{series.prefix}_{row.ending}' for row in table}
    rows = []
    uris = {str(file.path): file.uri for file in series.files.values()}
    for row in table:
        if row.stage != stage:
            continue
        lineage = graph.trace(row.name, paths)
        sources = [port for port in row.sources if port in paths] or lineage.ports
        made_from = {port: f'bids::{paths[port]}' for port in sources}
        read = {uris[path]: port for path, (_, port) in lineage.files.items() if path in uris}
        made_from |= {EVIDENCE[port]: uri for uri, port in read.items() if port in EVIDENCE}
        sidecar = {'Description': row.description} | row.metadata
        sidecar['Sources'] = [*read, *(uri for uri in made_from.values() if uri not in read)]
        if series.has_frames and (series.source.uri in read or 'ctp_corrected' in lineage.ports):
            sidecar['TimingSource'] = series.timing_source
        if lineage.settings:
            sidecar['Settings'] = {
                branch: lineage.settings[branch]
                for branch in method.as_dict()
                if branch in lineage.settings
            }
        rows.append(
            {
                'name': row.name,
                'path': paths[row.name],
                'sidecar': sidecar,
                'made_from': made_from,
                'facts': list(row.facts),
                'fields': list(row.fields),
                'labels': row.labels,
            }
        )
    return rows


def written_paths(
    series: Series | FailedSeries, method: MethodSettings, output_dir: Path
) -> list[Path]:
    """List all files, sidecars and figures that any run of a series may write.

    Parameters
    ----------
    series : CTPSeries, PrecomputedMaps or FailedSeries
    method : MethodSettings
    output_dir : Path

    Returns
    -------
    list of Path
    """
    paths = _paths(series, output_dir, _endings(method))
    paths += _in_any_space(series, output_dir)
    figures = output_dir / f'sub-{series.participant}' / 'figures'
    paths += figures.glob(f'{series.prefix}_desc-*_ctp.*')
    return list(dict.fromkeys(paths))


def foreign_paths(series: Series, method: MethodSettings, output_dir: Path) -> list[Path]:
    """List the files that this run of a series does not write but other runs may have written.

    An example are the files of a raw series if precomputed maps are now processed.

    Parameters
    ----------
    series : CTPSeries or PrecomputedMaps
    method : MethodSettings
    output_dir : Path

    Returns
    -------
    list of Path
        Files and sidecars, whether they exist or not.
    """
    skipped = [] if series.ncct else ['coregistration']
    skipped += [] if series.lesion else ['followup']
    own = {row.ending for row in outputs_of(series, method) if row.stage not in skipped}
    kept = set(_paths(series, output_dir, own))
    paths = _paths(series, output_dir, _endings(method)) + _in_any_space(series, output_dir)
    return [path for path in dict.fromkeys(paths) if path not in kept]


def _endings(method: MethodSettings) -> list[str]:
    """List the endings of all files, from raw series and from precomputed maps."""
    table = derivatives(method.normalization.global_reference)
    return [*(row.ending for row in table + _template_rows(table, method)), BASELINE]


def _in_any_space(series: Series | FailedSeries, output_dir: Path) -> list[Path]:
    """List the files in template space, of any template, that earlier runs have written."""
    folder, prefix = output_dir / series.out_subdir, series.prefix
    written = (
        f'{prefix}_space-*_res-*', f'{prefix}_from-ctpref_to-*_xfm.h5', f'{prefix}_from-*_to-ctpref_*_xfm.h5',
        f'{prefix}_desc-regions*_morph.*', f'{prefix}_seg-regions*_dseg.*',
        f'{prefix}_from-ctpref_to-*_xfm.json', f'{prefix}_from-*_to-ctpref_*_xfm.json',
    )  # fmt: skip
    return [path for pattern in written for path in sorted(folder.glob(pattern))]


def _paths(series: Series | FailedSeries, output_dir: Path, endings: Iterable[str]) -> list[Path]:
    stems = (output_dir / f'{series.out_subdir}/{series.prefix}_{ending}' for ending in endings)
    return [path for stem in stems for path in with_sidecars(stem)]


def init_writer(
    series: Series,
    method: MethodSettings,
    run: RunSettings,
    stage: str,
    graph: Graph,
    mem_gb: float = 0.3,
) -> pe.Node:
    """Build the node that writes the files of a stage.

    Its input ports are the names of the rows, of their sources, and of the JSON files for their
    sidecars.
    """
    rows = derivative_rows(series, method, stage, graph)
    names = [row['name'] for row in rows]
    for row in rows:
        names += [*row['made_from'], *row['facts'], *row['fields']]
    writer = WriteDerivatives(
        names=list(dict.fromkeys(names)), rows=rows, output_dir=str(run.output_dir)
    )
    # always run, so that outputs which the user removed are written again from the work folder
    return pe.Node(writer, name=f'write_{stage}', mem_gb=mem_gb, overwrite=True)
