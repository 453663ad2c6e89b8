# SPDX-License-Identifier: Apache-2.0
"""What is written: one row a file."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nipype.pipeline import engine as pe

from ctpprep.inputs.dataset import FailedSeries
from ctpprep.inputs.precomputed import PrecomputedMaps
from ctpprep.inputs.series import CTPSeries, Series
from ctpprep.interfaces.outputs import WriteDerivatives
from ctpprep.interfaces.segmentation import LESIONS
from ctpprep.io.bids import bids_uri, with_sidecars
from ctpprep.settings import MethodSettings, RunSettings

PERCENT = 'fraction of the reference: 1 = reference, never percent'
SIDES = {1: 'left', 2: 'right'}
ROI = {'Type': 'ROI'}
LESION = {'Type': 'Lesion'}
HU = {'Units': 'HU'}
BASELINE = 'desc-baseline_ctpref.nii.gz'  # what is mirrored where there is no series


def _columns(**descriptions: tuple[str, str]) -> dict[str, Any]:
    """Describe the columns of a table: unit (or none) and meaning."""
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
        'and rims; hypodense volume; volume by Tmax without its calibration; difference of '
        'hypoperfusion and core; ratio; index; trial criteria',
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
QUALITY = {
    'status': {'Description': 'worst grade of all checks: pass, warn or fail'},
    'caution': {'Description': 'why local normalization is unreliable for want of a healthy side'},
}


@dataclass(frozen=True)
class Derivative:
    """One file of the output.

    Attributes
    ----------
    stage : str
        Stage whose node writes it.
    name : str
        Port that brings it.
    ending : str
        File name after the prefix of the series.
    description : str
    sources : tuple of str
        Ports of the files it was made from; ``ctp`` is the raw series.
    settings : tuple of str
        Stages whose settings shaped it, or single settings.
    metadata : dict
        Further sidecar fields.
    facts : tuple of str
        Ports of JSON files with what was measured.
    labels : dict, optional
        Meaning of the values of a segmentation.
    fields : tuple of str
        Ports of JSON files whose fields the sidecar takes as they are.
    settings_if : dict of str to tuple of str
        Single settings that count only if a port brings a file.
    """

    stage: str
    name: str
    ending: str
    description: str
    sources: tuple[str, ...]
    settings: tuple[str, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)
    facts: tuple[str, ...] = ()
    labels: dict[int, str] | None = None
    fields: tuple[str, ...] = ()
    settings_if: dict[str, tuple[str, ...]] = field(default_factory=dict)


# inputs of which the run tells whether they were used
KNOWN_LATER = ('brain_ct', 'baseline_ct', 'stand_in')
# what a supplied file shaped besides what is made from that
SHAPED = {
    'brain_mask': ('brain_mask', 'tissue_mask', 'vessel_mask', 'csf_mask'),
    'curves': ('curves', 'aif_mask', 'vof_mask'),
    'aif_mask': ('curves', 'aif_mask', 'vof_mask'),
}
_SERIES = ('ctp_corrected',)
_MASKS = ('grid', 'motion', 'masks')
_CURVES = ('grid', 'motion', 'masks', 'vessels')
_MAPS = (*_CURVES, 'denoising', 'deconvolution')
_LOCAL = ('symmetry', 'normalization')
# core, too, is kept or left out by hypoperfusion, tissue and the affected side
_LIMITED = ('tmax', 'tissue_mask', 'hemispheres')
_LESIONS = ('normalization', 'symmetry', 'segmentation')
# names the global reference in the sidecars of what was made by it
_GLOBAL = ('global_reference_fields',)


def _map(name: str, unit: str, description: str) -> Derivative:
    return Derivative(
        'deconvolution', name, f'{name}.nii.gz', description, ('ctp_corrected', 'tissue_mask', 'curves'),
        _MAPS, {'Units': unit}, ('deconvolution',),
    )  # fmt: skip


def _mask(stage: str, name: str, ending: str, description: str, *sources: str) -> Derivative:
    settings = _MASKS if stage == 'preprocessing' else _CURVES
    return Derivative(stage, name, f'{ending}.nii.gz', description, sources, settings, ROI)


def _relative(which: str, quantity: str) -> tuple[Derivative, ...]:
    upper = quantity[1:].upper()
    return (
        Derivative(
            'normalization', f'{quantity}_global', f'desc-global_{quantity}.nii.gz',
            f'{upper} relative to the median of the global reference tissue',
            (quantity[1:], 'tmax', 'tissue_mask'), ('normalization',),
            {'Units': '1', 'Reference': which, 'Scale': PERCENT}, ('normalization',),
            fields=('reference_fields',),
        ),
        Derivative(
            'normalization', f'{quantity}_mirrored', f'desc-contralateral_{quantity}.nii.gz',
            f'globally normalized {upper} at the contralateral homologue of each voxel, before '
            'clip and smoothing', (f'{quantity}_global', 'mirror_to_reference'), _LOCAL,
            {'Units': '1', 'Scale': PERCENT}, ('symmetry',), fields=_GLOBAL,
        ),
        Derivative(
            'normalization', f'{quantity}_local', f'desc-local_{quantity}.nii.gz',
            f'globally normalized {upper} divided by its clipped and smoothed contralateral '
            'homologue; hides the state of the healthy hemisphere',
            (f'{quantity}_global', f'{quantity}_mirrored'), _LOCAL,
            {'Units': '1', 'Reference': 'contralateral homologue', 'Scale': PERCENT}, ('symmetry',),
            fields=_GLOBAL,
        ),
    )  # fmt: skip


def _lesion(name: str, ending: str, description: str, *sources: str) -> Derivative:
    return Derivative(
        'segmentation', name, f'{ending}.nii.gz', description, sources, _LESIONS, LESION,
        ('normalization',), fields=() if name == 'hypoperfusion' else _GLOBAL,
    )  # fmt: skip


def derivatives(global_reference: str) -> tuple[Derivative, ...]:
    """List the files that are written for a series.

    Parameters
    ----------
    global_reference : str
        What the global maps are to be relative to; what was used is written over it.
    """
    return (
        Derivative(
            'preprocessing', 'reference', 'desc-hmc_ctpref.nii.gz',
            'mean of the motion-corrected frames before contrast, pose of the reference frame',
            ('ctp',), _MASKS, HU | {'SpatialReference': 'orig'}, ('bolus', 'motion'),
        ),
        Derivative(
            'preprocessing', 'ctp_corrected', 'desc-preproc_ctp.nii.gz',
            'motion-corrected series on the working grid, not denoised; -1024 HU where a voxel '
            'left the field of view', ('ctp',), ('grid', 'motion'), HU, ('motion',),
            fields=('timing',),
        ),
        Derivative(
            'preprocessing', 'frame_transforms', 'from-orig_to-ctpref_mode-image_desc-hmc_xfm.txt',
            'rigid transforms, one a frame, from points of the reference to points of the frame '
            '(ITK, LPS)', ('ctp',), ('motion',), {}, ('motion',),
        ),
        Derivative(
            'preprocessing', 'confounds', 'desc-confounds_timeseries.tsv',
            'head motion of every frame against the reference frame', ('ctp',), ('motion',),
            CONFOUNDS, ('motion',),
        ),
        replace(
            _mask('preprocessing', 'brain_mask', 'desc-brain_mask',
                  'brain with sulci and ventricles, without the outer rim of CSF', *_SERIES),
            metadata={'Type': 'Brain'},
        ),
        _mask('preprocessing', 'tissue_mask', 'desc-tissue_mask',
              'brain without vessels and CSF, seen in every frame', *_SERIES),
        _mask('preprocessing', 'vessel_mask', 'label-vessel_mask',
              'strongly enhancing voxels', *_SERIES),
        _mask('preprocessing', 'csf_mask', 'label-CSF_mask', 'sulci and ventricles', *_SERIES),
        _mask('deconvolution', 'aif_mask', 'label-AIF_mask',
              'voxels of the arterial input function', *_SERIES),
        _mask('deconvolution', 'vof_mask', 'label-VOF_mask',
              'voxels of the venous output function', *_SERIES),
        Derivative(
            'deconvolution', 'curves', 'desc-vascular_timeseries.tsv',
            'arterial input, venous output and mean tissue enhancement at the acquisition times '
            "of the AIF's slices", _SERIES, _CURVES, CURVES,
        ),
        _map('cbf', 'mL/100 g/min', 'cerebral blood flow'),
        _map('cbv', 'mL/100 g', 'cerebral blood volume'),
        _map('mtt', 's', 'mean transit time'),
        _map('tmax', 's', 'time to the maximum of the residue function'),
        _map('ttp', 's', 'time to peak of the tissue curve since the start of the scan'),
        Derivative(
            'deconvolution', 'noise', 'desc-noise_stat.nii.gz',
            'standard deviation of the denoised curves before contrast', _SERIES,
            _MAPS, HU, ('deconvolution',),
        ),
        Derivative(
            'deconvolution', 'tissue_share', 'label-tissue_probseg.nii.gz',
            'share of tissue, and not CSF, in each voxel, by its density: CBF and CBV are divided by '
            'it', _SERIES, _MAPS, {'Units': '1'}, ('deconvolution',),
        ),
        Derivative(
            'symmetry', 'reference_mirror', 'space-mirror_ctpref.nii.gz',
            'the reference flipped left-right on its own grid', ('reference',), (),
            HU | {'SpatialReference': 'mirror image of the reference on its own grid'},
        ),
        Derivative(
            'symmetry', 'mirror_to_reference', 'from-mirror_to-ctpref_mode-image_xfm.h5',
            'applied with ANTs to space-mirror_ctpref it gives the homologue of each voxel',
            ('reference', 'reference_mirror'), ('symmetry',), {}, ('symmetry',),
        ),
        Derivative(
            'symmetry', 'reference_to_mirror', 'from-ctpref_to-mirror_mode-image_xfm.h5',
            'inverse of from-mirror_to-ctpref', ('reference', 'reference_mirror'), ('symmetry',),
            {}, ('symmetry',),
        ),
        Derivative(
            'symmetry', 'hemispheres', 'seg-hemisphere_dseg.nii.gz',
            'hemispheres by the side of each voxel against its homologue; by a plane where the '
            'mirror registration failed',
            ('reference', 'mirror_to_reference'), ('symmetry',), {}, ('symmetry',), SIDES,
        ),
        Derivative(
            'coregistration', 'reference_to_ncct', 'from-ctpref_to-NCCT_mode-image_xfm.txt',
            'rigid; applied with ANTs to the reference it gives the reference on the '
            'non-contrast CT of the session (ITK, LPS)', ('reference', 'ncct'),
            ('coregistration',),
        ),
        *_relative(global_reference, 'rcbf'),
        *_relative(global_reference, 'rcbv'),
        Derivative(
            'normalization', 'unassessable_mask', 'label-unassessable_mask.nii.gz',
            'tissue without a contralateral homologue to divide by',
            ('rcbf_global', 'rcbf_mirrored'), _LOCAL, ROI, fields=_GLOBAL,
        ),
        _lesion('hypoperfusion', 'label-hypoperfusion_mask', 'Tmax above the threshold', *_LIMITED),
        _lesion('core_global', 'label-core_desc-global_mask',
                'infarct core by global rCBF', 'rcbf_global', *_LIMITED),
        _lesion('core_local', 'label-core_desc-local_mask',
                'infarct core by local rCBF; the threshold is not validated for local maps',
                'rcbf_local', 'unassessable_mask', *_LIMITED),
        *(
            Derivative(
                'segmentation', f'probability_{which}', f'label-core_desc-{which}_probseg.nii.gz',
                f'probability of {which} rCBF, without its noise, to lie below the threshold of core, by '
                'noise of the curves alone and before opening and cleaning; 0 on the other side and where '
                'nothing can be judged',
                (f'rcbf_{which}', 'ctp_corrected', 'curves'),
                (*_MAPS, *(_LOCAL if which == 'local' else ('normalization',)), 'core_rcbf',
                 'affected_side'),
                LESION | {'Units': '1'}, ('normalization',), fields=_GLOBAL,
            )
            for which in ('global', 'local')
        ),
        _lesion('mismatch_global', 'label-mismatch_desc-global_mask',
                'hypoperfusion outside of the global core', 'hypoperfusion', 'core_global'),
        _lesion('mismatch_local', 'label-mismatch_desc-local_mask',
                'hypoperfusion outside of the local core', 'hypoperfusion', 'core_local'),
        Derivative(
            'segmentation', 'lesions', 'seg-perfusion_dseg.nii.gz',
            'core by both normalizations and hypoperfusion as labels',
            ('hypoperfusion', 'core_global', 'core_local'), _LESIONS, {}, ('normalization',),
            LESIONS, _GLOBAL,
        ),
        Derivative(
            'segmentation', 'hypodense_mask', 'label-hypodense_mask.nii.gz',
            'tissue of either core that is far less dense than its homologue, as in old infarcts',
            ('reference', 'mirror_to_reference', 'core_global', 'core_local'),
            (*_LESIONS, 'hypodensity'), ROI, fields=_GLOBAL,
        ),
        Derivative(
            'segmentation', 'volumes', 'seg-perfusion_morph.tsv', 'volumes and their ratios',
            ('hypoperfusion', 'core_global', 'core_local', 'tmax', 'rcbf_global', 'rcbf_local'),
            (*_LESIONS, 'hypodensity', 'uncertainty', 'volumes'), VOLUMES,
            ('normalization', 'deconvolution', 'symmetry'), fields=_GLOBAL,
        ),
        Derivative(
            'quality', 'quality', 'desc-qualitycontrol_ctp.tsv',
            'automated quality control: for every check its figure, grade and sentence',
            ('ctp',), (), QUALITY, fields=('limits',),
        ),
    )  # fmt: skip


def precomputed_derivatives(
    series: PrecomputedMaps, global_reference: str
) -> tuple[Derivative, ...]:
    """List the files that are written for maps made elsewhere.

    Parameters
    ----------
    series : PrecomputedMaps
    global_reference : str
        As for `derivatives`.
    """
    table = [
        row
        for row in derivatives(global_reference)
        if row.stage not in ('preprocessing', 'deconvolution', 'coregistration')
        # whose noise it is, is not known
        and not row.name.startswith('probability')
        and ('cbv' in series.maps or not row.name.startswith('rcbv'))
    ]
    known = {row.name: row for row in derivatives(global_reference)}
    sources = tuple(f'given_{name}' for name in series.maps)
    told: dict[str, Any] = {'facts': ('entry',), 'fields': ('entry_fields',)}
    rows = [
        replace(
            known[name], stage='precomputed', sources=(f'given_{name}', 'tissue_mask'), settings=(),
            description=f'{known[name].description}, made elsewhere', **told,
        )
        for name in series.maps
        if name != 'rcbf'
    ]  # fmt: skip
    # a CT that does not lie on the maps, or shows no brain, is told when it is read
    ct = ('baseline_ct',) if series.reference else ()
    by_density = {'baseline_ct': ('csf_hu',)} if series.reference else {}

    def mask(
        name: str, description: str, made_from: tuple[str, ...], settings: tuple[str, ...] = (),
        settings_if: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
    ) -> Derivative:  # fmt: skip
        if name in series.masks:
            made_from, settings, settings_if = (f'given_{name}',), (), {}
        return replace(
            known[name], stage='precomputed', description=description, sources=made_from,
            settings=settings, settings_if=dict(settings_if), **told,
        )  # fmt: skip

    rows.append(
        mask('brain_mask', known['brain_mask'].description,
             (*sources, *(('brain_ct',) if series.reference else ())),
             settings_if={'brain_ct': ('bone_hu', 'csf_hu')} if series.reference else {})
    )  # fmt: skip
    parts = (*sources, *ct, 'brain_mask')
    rows.append(
        mask('tissue_mask', 'brain without vessels and CSF', parts, ('vessel_ratio',), by_density)
    )
    if 'tissue_mask' not in series.masks:
        rows += [
            mask('vessel_mask', 'far more blood than brain', (*sources, 'brain_mask'),
                 ('vessel_ratio',)),
            mask('csf_mask', known['csf_mask'].description, parts, settings_if=by_density),
        ]  # fmt: skip
    copied = series.reference_kind == 'ctpref'
    rows.append(
        Derivative(
            'precomputed', 'reference',
            known['reference'].ending if copied else BASELINE,
            known['reference'].description if copied else
            'image whose mirror image is registered: the baseline CT on the grid of the maps, or, '
            'without one, CBV or CBF scaled to the window of the registration (Measured says which)',
            ct if copied else (*ct, 'stand_in'), (),
            {'SpatialReference': 'the grid of the maps'}, told['facts'],
            fields=(*told['fields'], 'baseline_fields'),
            settings_if={} if copied else {'stand_in': ('mirror_window_hu',)},
        )
    )  # fmt: skip
    for row in table:
        if row.name == 'reference_mirror':
            row = replace(row, fields=(*row.fields, 'baseline_fields'))
        if row.name == 'volumes':
            row = replace(row, settings=tuple(s for s in row.settings if s != 'uncertainty'))
        if row.name == 'quality':
            row = replace(row, sources=sources)
        if 'symmetry' in row.settings and not copied:
            # the limit that counts, if a map is mirrored
            row = replace(row, settings_if={'stand_in': ('map_least_similarity',)})
        if row.name == 'rcbf_global' and series.relative:
            row = replace(row, sources=('given_rcbf', *row.sources[1:]))
        rows.append(row)
    return tuple(rows)


def outputs_of(series: Series, method: MethodSettings) -> tuple[Derivative, ...]:
    """List the files that are written for a series or for maps made elsewhere.

    Parameters
    ----------
    series : CTPSeries or PrecomputedMaps
    method : MethodSettings

    Returns
    -------
    tuple of Derivative
    """
    if isinstance(series, PrecomputedMaps):
        return precomputed_derivatives(series, method.global_reference)
    return derivatives(method.global_reference)


def input_uris(series: Series) -> dict[str, str]:
    """Name what was read, by the words of `Derivative.sources`.

    Parameters
    ----------
    series : CTPSeries or PrecomputedMaps

    Returns
    -------
    dict of str to str
        BIDS URIs.
    """
    if isinstance(series, PrecomputedMaps):
        given = {f'given_{name}': file.uri for name, file in (series.maps | series.masks).items()}
        given['stand_in'] = series.maps['cbv' if 'cbv' in series.maps else series.flow].uri
        if series.reference is not None:
            given |= dict.fromkeys(('brain_ct', 'baseline_ct'), series.reference.uri)
        return given
    uris = {'ctp': series.source.uri}
    if series.ncct is not None:
        depth = series.uri.count('/')
        uris['ncct'] = bids_uri('raw', series.ncct.relative_to(series.path.parents[depth]))
    return uris


def derivative_rows(series: Series, method: MethodSettings, stage: str) -> list[dict[str, Any]]:
    """Make the rows of one stage for one series: paths and sidecars.

    Parameters
    ----------
    series : CTPSeries or PrecomputedMaps
    method : MethodSettings
    stage : str

    Returns
    -------
    list of dict
        ``name``, ``path`` below the output folder, ``sidecar``, ``made_from`` (URI of each source
        that may be missing, by port), ``settings_if``, ``facts`` and ``labels``.
    """
    table = outputs_of(series, method)
    paths = {row.name: f'{series.out_subdir}/{series.prefix}_{row.ending}' for row in table}
    uris = {name: f'bids::{path}' for name, path in paths.items()} | input_uris(series)
    if 'ctp_corrected' in series.overrides:
        method = replace(method, motion_correction=False)
    rows = []
    for row in table:
        if row.stage != stage:
            continue
        sidecar = {'Description': row.description} | row.metadata
        sidecar['Sources'] = [uris[source] for source in row.sources] + [
            file.uri
            for piece, file in series.overrides.items()
            if isinstance(series, CTPSeries) and row.name in SHAPED.get(piece, ())
        ]
        if isinstance(series, CTPSeries) and {'ctp', 'ctp_corrected'} & set(row.sources):
            sidecar['TimingSource'] = series.timing_source
        wanted = {*row.settings, *(name for names in row.settings_if.values() for name in names)}
        singles = {name: value for name, value in method.as_dict().items() if name in wanted}
        if settings := method.stage(*row.settings) | singles:
            sidecar['Settings'] = settings
        rows.append(
            {
                'name': row.name,
                'path': paths[row.name],
                'sidecar': sidecar,
                'made_from': {
                    source: uris[source]
                    for source in row.sources
                    if source in paths or source in KNOWN_LATER
                },
                'settings_if': {port: list(names) for port, names in row.settings_if.items()},
                'facts': list(row.facts),
                'fields': list(row.fields),
                'labels': row.labels or {},
            }
        )
    return rows


def written_paths(
    series: Series | FailedSeries, method: MethodSettings, output_dir: Path
) -> list[Path]:
    """List everything that runs of a series may write, by either entry: files, sidecars, figures.

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
    figures = output_dir / f'sub-{series.participant}' / 'figures'
    paths += figures.glob(f'{series.prefix}_desc-*_ctp.*')
    return list(dict.fromkeys(paths))


def foreign_paths(series: Series, method: MethodSettings, output_dir: Path) -> list[Path]:
    """List what only other runs of a series write, such as those by the other entry.

    Parameters
    ----------
    series : CTPSeries or PrecomputedMaps
    method : MethodSettings
    output_dir : Path

    Returns
    -------
    list of Path
        Files and sidecars, whether they are there or not.
    """
    skipped = () if getattr(series, 'ncct', None) else ('coregistration',)
    own = {row.ending for row in outputs_of(series, method) if row.stage not in skipped}
    kept = set(_paths(series, output_dir, own))
    return [path for path in _paths(series, output_dir, _endings(method)) if path not in kept]


def _endings(method: MethodSettings) -> list[str]:
    """List the ends of the names of all files that either entry writes."""
    return [*(row.ending for row in derivatives(method.global_reference)), BASELINE]


def _paths(series: Series | FailedSeries, output_dir: Path, endings: Iterable[str]) -> list[Path]:
    stems = (output_dir / f'{series.out_subdir}/{series.prefix}_{each}' for each in endings)
    return [path for stem in stems for path in with_sidecars(stem)]


def init_writer(
    series: Series, method: MethodSettings, run: RunSettings, stage: str, mem_gb: float = 0.3
) -> pe.Node:
    """Make the node that writes the files of a stage.

    Its input ports are the names of the rows, of what they were made from, and of the facts that
    their sidecars take.
    """
    rows = derivative_rows(series, method, stage)
    names = list(
        dict.fromkeys(
            [row['name'] for row in rows]
            + [
                port
                for row in rows
                for port in (*row['made_from'], *row['facts'], *row['fields'], *row['settings_if'])
            ]
        )
    )
    writer = WriteDerivatives(names=names, rows=rows, output_dir=str(run.output_dir))
    # a kept work folder must not make up for outputs that somebody removed
    return pe.Node(writer, name=f'write_{stage}', mem_gb=mem_gb, overwrite=True)
