# SPDX-License-Identifier: Apache-2.0
"""Every default of ctpprep, declared once.

`MethodSettings` is a tree with one branch per stage. It contains every setting that changes a number
in an output, and is recorded in the methods text, the sidecars and the node hashes. Each stage uses
its own branch. `RunSettings` contains the rest: paths, processes, and user overrides of acquisition
times or steps. Each field has a unit, a meaning, a source and a range, from which the command-line
options and the keys of the config file are generated.

Examples
--------
>>> MethodSettings().lesion.core_rcbf
0.3
>>> MethodSettings.of(core_rcbf=0.25).lesion.core_rcbf
0.25
>>> declared(MethodSettings)['core_rcbf'].about.unit
'fraction'
"""

import dataclasses
import functools
import re
import types
import typing
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from ctpprep.exceptions import UsageError

RAU = 'Rau et al. 2024, doi:10.3174/ajnr.A8111'
FIESELMANN = 'Fieselmann et al. 2011, doi:10.1155/2011/467563'
CALAMANTE = 'Calamante et al. 2003, doi:10.1002/mrm.10643'
BOUTELIER = 'Boutelier et al. 2012, doi:10.1109/TMI.2012.2189890'
AMUKOTUWA = 'Amukotuwa et al., Stroke 2019;50:2783'
ALBERS = 'Albers et al. 2018, doi:10.1056/NEJMoa1713973'
OLIVOT = 'Olivot et al. 2014, doi:10.1161/STROKEAHA.113.003857'
WACK = 'Wack et al. 2014, doi:10.1186/1471-2342-14-28'
MENDRIK = 'Mendrik et al., Phys Med Biol 2011;56:3857'
CEREDA = 'Cereda et al. 2016, doi:10.1177/0271678X15610586'
DECARLI = 'DeCarli et al. 2005, doi:10.1161/01.STR.0000150668.58689.f2'
EFRON = 'Efron 1979, doi:10.1214/aos/1176344552'
GOLUB = 'Golub et al. 1979, doi:10.1080/00401706.1979.10489751'
# settings of a published method that differ from the defaults
PRESETS: dict[str, dict[str, Any]] = {
    'rau2024': {
        'deconvolution_method': 'tikhonov', 'tmax_calibration': False, 'tmax_snr': 0.0,
        'cbf_noise_correction': False, 'partial_volume': False, 'least_lesion_ml': 0.0,
        'rim_mm': 0.0, 'aif_scaling': 'none', 'core_joins_hypoperfusion': False,
    },
}  # fmt: skip
# least number of draws for which the 2.5th percentile is defined
LEAST_DRAWS = 40
# a user function, as MODULE:FUNCTION
FUNCTION = re.compile(r'[A-Za-z_][\w.]*:[A-Za-z_]\w*')


@dataclass(frozen=True)
class About:
    """Unit, meaning, source and allowed values of a setting.

    Attributes
    ----------
    unit, meaning, source : str
    stage : str
        Branch of `MethodSettings`, or group of options of `RunSettings`.
    choices : tuple of str, optional
        All allowed values.
    function : bool
        Whether a user function, ``MODULE:FUNCTION``, is allowed in addition to the choices.
    low, high : float, optional
        Range, including both ends.
    options : tuple of str
        Command-line options; by default derived from the name.
    value : str
        Placeholder of the value in ``--help``.
    by_default : str
        Description of the default, if it is determined only at run time.
    """

    unit: str
    meaning: str
    source: str = ''
    stage: str = ''
    choices: tuple[str, ...] | None = None
    function: bool = False
    low: float | None = None
    high: float | None = None
    options: tuple[str, ...] = ()
    value: str = ''
    by_default: str = ''


def _setting(default: Any, *args: Any, **kwargs: Any) -> Any:
    return field(default=default, metadata={'about': About(*args, **kwargs)})


@dataclass(frozen=True)
class Setting:
    """One declared setting.

    Attributes
    ----------
    name : str
    kind : type
        Type of the value; for an optional value, without None.
    default : object
    about : About
    """

    name: str
    kind: Any
    default: Any
    about: About


_DECLARED: dict[Any, dict[str, Setting]] = {}


def declared(settings: Any) -> dict[str, Setting]:
    """List the declared settings of `MethodSettings`, of a branch or of `RunSettings`.

    Parameters
    ----------
    settings : type

    Returns
    -------
    dict of str to Setting
        By name, in the order of the branches. Fields without a description are excluded.
    """
    if settings in _DECLARED:
        return _DECLARED[settings]
    table = _DECLARED[settings] = {}
    types_by_name = typing.get_type_hints(settings)
    for entry in fields(settings):
        kind = types_by_name[entry.name]
        if isinstance(kind, type) and issubclass(kind, StageSettings):
            for name, setting in declared(kind).items():
                about = dataclasses.replace(setting.about, stage=entry.name)
                table[name] = dataclasses.replace(setting, about=about)
        elif 'about' in entry.metadata:
            if isinstance(kind, types.UnionType):
                (kind,) = (part for part in typing.get_args(kind) if part is not type(None))
            table[entry.name] = Setting(entry.name, kind, entry.default, entry.metadata['about'])
    return table


def check_all(settings: Any) -> None:
    """Check every declared value of a settings object; raise `UsageError` for the first invalid one."""
    for name, setting in declared(type(settings)).items():
        check_setting(name, getattr(settings, name), setting.about)


def check_setting(name: str, value: Any, about: About) -> None:
    """Check one setting against its range or choices.

    Parameters
    ----------
    name : str
        Name of the setting.
    value : object
        Value of the setting; tuples are checked element by element.
    about : About
        Declaration of the setting, with its allowed values.

    Raises
    ------
    UsageError
        If the value is not allowed.

    Examples
    --------
    >>> check_setting('core_rcbf', 30, declared(MethodSettings)['core_rcbf'].about)
    Traceback (most recent call last):
    ctpprep.exceptions.UsageError: core_rcbf is a fraction between 0.01 and 1.0, got 30; write 30 % as 0.3
    """
    for part in value if isinstance(value, tuple) else (value,):
        if about.choices is not None and part not in about.choices:
            if about.function and FUNCTION.fullmatch(str(part)):
                continue
            allowed = ', '.join(about.choices) + (', MODULE:FUNCTION' if about.function else '')
            raise UsageError(f'{name} must be one of {allowed}, got {part}')
        if about.low is not None and not about.low <= part <= about.high:
            what = f'a {about.unit}' if about.unit in ('fraction', 'ratio') else 'a number'
            unit = '' if about.unit in ('fraction', 'ratio', '') else f' {about.unit}'
            hint = '; write 30 % as 0.3' if about.unit == 'fraction' and part > 1 else ''
            raise UsageError(
                f'{name} is {what} between {about.low} and {about.high}{unit}, got {part}{hint}'
            )


@dataclass(frozen=True)
class StageSettings:
    """The settings of one stage: a branch of `MethodSettings`."""

    def __post_init__(self) -> None:
        """Check that all values are within the range or the choices of their setting."""
        check_all(self)


# fmt: off
@dataclass(frozen=True)
class GridSettings(StageSettings):
    """Working grid."""

    working_in_plane_mm: float = _setting(1.8, 'mm',
        'blocks of voxels are averaged in plane while their size stays within; they contain parts of '
        'voxels where whole ones would be less than 75 % as large', low=0.1, high=20.0)
    working_slice_mm: float = _setting(5.0, 'mm',
        'thin slices acquired together are averaged while their thickness stays within', low=0.1,
        high=20.0)


@dataclass(frozen=True)
class MotionSettings(StageSettings):
    """Motion correction and rejection of frames."""

    motion_correction: bool = _setting(True, '',
        'register every frame rigidly to the first usable one', RAU)
    motion_grid_mm: float = _setting(3.5, 'mm',
        'in-plane voxel size of the images that are registered', low=1.0, high=10.0)
    motion_window_hu: tuple[float, float] = _setting((-500.0, 1500.0), 'HU',
        'densities that are registered: bone and air, which do not enhance, outweigh the rest',
        low=-1024.0, high=4000.0)
    motion_smoothing_mm: tuple[float, ...] = _setting((6.0, 3.0), 'mm',
        'sigma in plane of each level of the registration', low=0.5, high=30.0)
    motion_skip_mm: float = _setting(0.05, 'mm',
        'mean displacement of the head that is ignored; if no frame exceeds it, none is resampled',
        low=0.0, high=2.0)
    motion_reject_similarity: float = _setting(0.95, 'ratio',
        "correlation of a corrected frame's skull with the reference frame's below which it "
        'gets weight 0', low=0.0, high=1.0)


@dataclass(frozen=True)
class MaskSettings(StageSettings):
    """Brain, vessels, CSF and tissue."""

    bone_hu: float = _setting(130.0, 'HU',
        'smoothed density above which a voxel is bone', low=80.0, high=600.0)
    csf_level: float = _setting(0.43, 'fraction',
        'time-averaged density below which a brain voxel may be CSF: fraction of the way from '
        'the most frequent density of CSF to that of brain', low=0.1, high=0.9)
    vessel_ratio: float = _setting(2.5, 'ratio',
        'peak enhancement, relative to the median of brain, of a vessel', low=1.0, high=20.0)
    bone_margin_mm: float = _setting(3.0, 'mm',
        'distance from bone within which no AIF or VOF is selected and no curve is used for '
        'denoising, since motion can move bone there', low=0.0, high=10.0)
    bolus_arrival: float = _setting(0.0, 's',
        'time from the start of the scan to the arrival of contrast; 0 finds it automatically',
        low=0.0, high=200.0)


@dataclass(frozen=True)
class DenoisingSettings(StageSettings):
    """Denoising of the tissue curves."""

    denoise: str = _setting('similarity', '',
        'average over voxels of similar density and curve, smoothing over tissue followed by '
        'a low-rank model of the curves, smoothing alone, none, or your own function',
        MENDRIK, choices=('similarity', 'lowrank', 'smooth', 'none'), function=True)
    denoise_sigma_mm: tuple[float, float, float] = _setting((3.5, 3.5, 3.5), 'mm',
        'sigma of the smoothing over tissue (x, y, z); with similarity, of the curves '
        'compared', WACK, low=0.0, high=10.0)
    denoise_rank: int = _setting(6, '',
        'number of temporal components that are kept', low=1, high=50)
    denoise_reach_mm: tuple[float, float, float] = _setting((6.0, 6.0, 6.0), 'mm',
        'similarity: sigma of the average over similar voxels (x, y, z)',
        MENDRIK, low=0.0, high=20.0)
    denoise_density_hu: float = _setting(3.0, 'HU',
        'similarity: difference of density, beyond noise, at which a neighbour has a weight '
        'of 0.6', MENDRIK, low=0.1, high=100.0)
    denoise_curve_tolerance: float = _setting(7.0, 'ratio',
        'similarity: difference of curves, relative to their noise, at which a neighbour has '
        'a weight of 0.6', MENDRIK, low=0.1, high=100.0)


@dataclass(frozen=True)
class VesselSettings(StageSettings):
    """Selection of AIF and VOF."""

    aif_voxels: int = _setting(12, 'voxels',
        'number of voxels averaged to the AIF (and to the VOF)', low=1, high=200)
    aif_scaling: str = _setting('auto', '',
        'scale the area of the AIF up to that of the VOF: auto if the VOF is plausible, vof always, '
        'none never; relative maps and Tmax are unaffected',
        choices=('auto', 'none', 'vof'))
    vessel_smoothing_mm: tuple[float, float, float] = _setting((1.25, 1.25, 3.0), 'mm',
        'sigma of the smoothing before vessels are chosen (x, y, z); their curves are '
        'smoothed in plane only', low=0.0, high=10.0)


@dataclass(frozen=True)
class KineticsSettings(StageSettings):
    """Physical constants of the indicator-dilution model."""

    hematocrit_factor: float = _setting(0.733, '',
        'k_H = (1 - 0.45) / (1 - 0.25)', FIESELMANN, low=0.1, high=1.5)
    tissue_density: float = _setting(1.04, 'g/mL',
        'density rho of brain tissue', FIESELMANN, low=0.5, high=2.0)


@dataclass(frozen=True)
class DeconvolutionSettings(StageSettings):
    """Deconvolution of the tissue curves, and the maps that follow from it."""

    deconvolution_method: str = _setting('bayesian', '',
        'estimate of CBF and CBV: posterior mean over a dictionary of residue functions, Tikhonov '
        'regularization (as in the reference paper, and always for Tmax), or your own function',
        BOUTELIER, choices=('bayesian', 'tikhonov'), options=('--deconvolution',), function=True)
    penalty_order: str = _setting('1', '',
        'order of the derivative that Tikhonov regularization penalizes',
        CALAMANTE, choices=('0', '1', '2'))
    lambda_rel: float = _setting(0.0, '',
        'regularization weight for CBF relative to the largest singular value; 0 lets '
        'generalized cross-validation choose it', GOLUB, low=0.0, high=10.0)
    tmax_lambda_ratio: float = _setting(6.0, 'ratio',
        'regularization weight for Tmax over that for CBF', low=0.1, high=100.0)
    residue_step: float = _setting(0.5, 's',
        'time step of the residue function', low=0.05, high=3.0)
    residue_lead: float = _setting(6.0, 's',
        'time before zero at which the residue function begins', low=0.0, high=15.0)
    tmax_calibration: bool = _setting(True, '',
        "subtract the operator's own Tmax (exponential residue, no delay) from Tmax")
    tmax_snr: float = _setting(1.0, 'ratio',
        'ratio of CBF to its noise at which Tmax comes in equal parts from the voxel and from '
        'surrounding tissue, since Tmax without flow is noise; 0 for never',
        low=0.0, high=50.0)
    calibration_mtt: float = _setting(4.0, 's',
        'mean transit time of the calibrating residue', low=0.5, high=20.0)
    cbf_noise_correction: bool = _setting(True, '',
        'with Tikhonov regularization, subtract from CBF what the noise left by denoising adds to a '
        'maximum', EFRON)
    partial_volume: bool = _setting(True, '',
        'divide CBF and CBV by the tissue fraction of the voxel, estimated from its density: '
        'CSF has no flow')


@dataclass(frozen=True)
class SymmetrySettings(StageSettings):
    """Registration of the mirrored reference image."""

    mirror_grid_mm: float = _setting(3.4, 'mm',
        'in-plane voxel size of the images in the mirror registration', low=1.0, high=10.0)
    mirror_window_hu: tuple[float, float] = _setting((0.0, 60.0), 'HU',
        'densities used by the mirror registration', low=-100.0, high=300.0)
    mirror_retry_mm: float = _setting(2.5, 'mm',
        'estimated distance between found and true homologues, median over the brain, above '
        'which another start of the mirror registration is tried', low=0.0, high=50.0)
    mirror_most_mm: float = _setting(5.0, 'mm',
        'the same distance above which local maps are withheld', low=0.1, high=50.0)
    mirror_region_mm: float = _setting(8.0, 'mm',
        'estimated distance of a region above which its homologues are not used',
        low=0.1, high=50.0)
    mirror_most_folding: float = _setting(0.01, '',
        'share of the brain in which the mirror registration may fold or change volume '
        'fivefold; above it local maps are withheld', low=0.0, high=1.0)
    map_least_similarity: float = _setting(0.45, '',
        'correlation below which local maps are withheld where a perfusion map is mirrored '
        'because there is no CT (lesions reduce this correlation)', low=-1.0, high=1.0)
    map_retry_similarity: float = _setting(0.68, '',
        'the same correlation below which another start is tried', low=-1.0, high=1.0)


@dataclass(frozen=True)
class CoregistrationSettings(StageSettings):
    """Registration to the non-contrast CT."""

    ncct_grid_mm: float = _setting(2.0, 'mm',
        'in-plane voxel size of the images registered to the NCCT', low=0.5, high=10.0)
    ncct_window_hu: tuple[float, float] = _setting((-200.0, 300.0), 'HU',
        'densities used by the registration to the NCCT', low=-1024.0, high=4000.0)


@dataclass(frozen=True)
class LesionSettings(StageSettings):
    """Thresholds of core and hypoperfusion, and the side they are applied to."""

    core_rcbf: float = _setting(0.3, 'fraction',
        'relative CBF below which tissue is core', RAU, low=0.01, high=1.0)
    hypoperfusion_tmax: float = _setting(6.0, 's',
        'Tmax above which tissue is hypoperfused', RAU, low=0.5, high=60.0)
    affected_side: str = _setting('auto', '',
        'hemisphere that lesions are restricted to; auto is the one with the greater median '
        'Tmax, or, where the medians hardly differ, with far more hypoperfusion',
        RAU, choices=('auto', 'left', 'right', 'both'))


@dataclass(frozen=True)
class NormalizationSettings(StageSettings):
    """Global and contralateral normalization."""

    global_reference: str = _setting('normal-tmax', '',
        'tissue whose median CBF is 1 in the global maps: Tmax within --normal-tmax, or the '
        'contralateral hemisphere', AMUKOTUWA, choices=('normal-tmax', 'contralateral'))
    normal_tmax: float = _setting(4.0, 's',
        'Tmax up to which tissue is considered normally perfused', AMUKOTUWA, low=0.1, high=20.0)
    least_normal_share: float = _setting(0.5, 'fraction',
        'share of tissue within --normal-tmax below which early tissue of the unaffected '
        'hemisphere is the global reference instead; 0 for never', low=0.0, high=1.0)
    local_clip: float = _setting(1.5, 'fraction',
        'cap of the contralateral map', RAU, low=0.1, high=10.0)
    local_sigma_mm: tuple[float, float, float] = _setting((12.0, 12.0, 4.0), 'mm',
        'sigma of the Gaussian over the contralateral map (patient x, y, z)',
        RAU, low=0.0, high=60.0)
    local_floor: float = _setting(0.1, 'fraction',
        'smoothed contralateral value below which a voxel is not assessable', low=0.001, high=1.0)
    local_least_tissue: float = _setting(0.5, 'fraction',
        'tissue fraction at the homologue of a voxel from which its value is used',
        low=0.01, high=1.0)
    local_least_weight: float = _setting(0.1, 'fraction',
        'share of the Gaussian that must overlap such homologues for a voxel to be '
        'assessable; at the corner of a slab an eighth of it lies inside', low=0.001, high=1.0)


@dataclass(frozen=True)
class SegmentationSettings(StageSettings):
    """Morphological cleaning of core and hypoperfusion."""

    opening_mm: float = _setting(2.5, 'mm',
        'radius of the morphological opening', RAU, low=0.0, high=20.0)
    closing_mm: float = _setting(2.5, 'mm',
        'radius of the morphological closing', RAU, low=0.0, high=20.0)
    least_lesion_ml: float = _setting(1.0, 'mL',
        'connected lesions below this are removed as specks; 0 keeps them', low=0.0, high=100.0)
    rim_mm: float = _setting(5.0, 'mm',
        'depth of the border of brain and slab along which a lesion is removed as a rim; 0 '
        'keeps rims', low=0.0, high=20.0)
    rim_deep_share: float = _setting(0.1, 'fraction',
        'share of a lesion deeper than --rim-mm from which it is not removed as a rim',
        low=0.0, high=1.0)
    slab_end_ml: float = _setting(5.0, 'mL',
        'volume from which a lesion confined to the end slices is not removed as a rim',
        low=0.0, high=1000.0)
    core_within_hypoperfusion: bool = _setting(False, '',
        'restrict core to hypoperfusion, unlike the paper', RAU)
    core_joins_hypoperfusion: bool = _setting(True, '',
        'treat core that borders on hypoperfusion as part of it, since Tmax is not determined '
        'where hardly any contrast arrives; without effect with --core-within-hypoperfusion')


@dataclass(frozen=True)
class HypodensitySettings(StageSettings):
    """Hypodense tissue in the core."""

    hypodense_hu: float = _setting(8.0, 'HU',
        'density below that of the homologue from which core is flagged as hypodense (an old '
        'infarct?)', low=1.0, high=100.0)
    hypodense_sigma_mm: float = _setting(2.0, 'mm',
        'sigma in plane of the smoothing of the reference image before densities are compared',
        low=0.0, high=10.0)


@dataclass(frozen=True)
class UncertaintySettings(StageSettings):
    """Intervals of volumes."""

    noise_draws: int = _setting(100, '',
        'number of segmentations with added noise from which the interval of a core volume is '
        'computed, at least 40; 0 for no intervals', low=0, high=10000)
    shared_error: float = _setting(0.06, 'fraction',
        'standard deviation of the error of relative CBF that all voxels of a head share, from '
        'simulated heads', low=0.0, high=0.5)
    tmax_error: float = _setting(1.2, 's',
        'standard deviation of the error of Tmax that all voxels of a head share, from simulated '
        'heads', low=0.0, high=10.0)

    def __post_init__(self) -> None:
        """Check that there are enough draws for an interval."""
        super().__post_init__()
        if 0 < self.noise_draws < LEAST_DRAWS:
            raise UsageError(
                f'noise_draws must be 0 or at least {LEAST_DRAWS}, got {self.noise_draws}: a 95 % '
                f'interval needs at least {LEAST_DRAWS} draws'
            )


@dataclass(frozen=True)
class VolumeSettings(StageSettings):
    """Tabulated thresholds."""

    tmax_thresholds: tuple[float, ...] = _setting((4.0, 6.0, 8.0, 10.0), 's',
        'Tmax thresholds whose volumes are tabulated', OLIVOT, low=0.1, high=60.0)
    rcbf_thresholds: tuple[float, ...] = _setting((0.2, 0.3, 0.34, 0.38), 'fraction',
        'relative CBF thresholds whose volumes are tabulated', ALBERS, low=0.01, high=1.0)


@dataclass(frozen=True)
class FollowUpSettings(StageSettings):
    """Comparison with the lesion of a later session."""

    followup_rcbf: tuple[float, float, float] = _setting((0.1, 0.6, 0.02), 'fraction',
        'first, last and step of the thresholds of relative CBF that are compared with the follow-up '
        'lesion', CEREDA, low=0.001, high=2.0)
    followup_rcbv: tuple[float, float, float] = _setting((0.2, 0.6, 0.05), 'fraction',
        'the same, of relative CBV', low=0.001, high=2.0)
    followup_tmax: tuple[float, float, float] = _setting((4.0, 12.0, 1.0), 's',
        'the same, of Tmax', low=0.1, high=60.0)
    followup_grid: str = _setting('series', '',
        'grid of the comparison: that of the maps, or one that divides their voxels to the size of '
        'those of the lesion mask', choices=('series', 'finer'))
    followup_mm: float = _setting(3.4, 'mm',
        'in-plane voxel size at which an MR image is registered', low=0.5, high=10.0)
    followup_least_overlap: float = _setting(0.85, 'fraction',
        'Dice coefficient of the brain in the CT and in the registered MR image below which the '
        'lesion is left out', low=0.0, high=1.0)
    followup_least_similarity: float = _setting(0.9, 'ratio',
        'mutual information of CT and registered MR image, relative to the greatest after a shift or '
        'turn of the latter, below which the lesion is left out', low=0.0, high=1.0)


@dataclass(frozen=True)
class TemplateSettings(StageSettings):
    """Template space."""

    output_spaces: tuple[str, ...] = _setting((), '',
        'templates in whose spaces results are also written: MNI152NLin2009aSym, '
        'and those in TEMPLATEFLOW_HOME such as MNI152NLin2009cAsym:res-2; the page and the group level '
        'show the first; nothing is downloaded', value='SPACE')
    template_window_hu: tuple[float, float] = _setting((0.0, 60.0), 'HU',
        'densities that are registered to the template', low=-1024.0, high=4000.0)
    template_grid_mm: float = _setting(3.4, 'mm',
        'in-plane voxel size of the registration to the template', low=1.0, high=10.0)
    template_metric_mm: float = _setting(6.0, 'mm',
        'distance from the brain within which CT and template are compared', low=0.0, high=50.0)
    template_least_overlap: float = _setting(0.9, 'ratio',
        'Dice coefficient of brain and template below which nothing is written in template space',
        low=0.0, high=1.0)
    template_least_sides: float = _setting(0.9, 'fraction',
        'share of the brain on the same side in the template below which nothing is written in '
        'template space', low=0.0, high=1.0)
    template_least_similarity: float = _setting(0.1, 'correlation',
        'correlation of density above its local mean, in brain and template, below which nothing is '
        'written in template space', low=-1.0, high=1.0)
    template_most_folding: float = _setting(0.01, 'fraction',
        'share of the brain where the transform folds above which nothing is written in template '
        'space', low=0.0, high=1.0)
    superficial_mm: float = _setting(5.0, 'mm',
        'white matter this close to cortex is superficial, unless it is periventricular', low=0.0,
        high=30.0)
    periventricular_mm: float = _setting(10.0, 'mm',
        'white matter this close to a lateral ventricle is periventricular', DECARLI, low=0.0,
        high=40.0)

    def __post_init__(self) -> None:
        """Check all values; the word none, in config files of version 0.1.0, means none."""
        if self.output_spaces == ('none',):
            object.__setattr__(self, 'output_spaces', ())
        super().__post_init__()

    @property
    def wanted(self) -> bool:
        """Whether anything is written in template space."""
        return bool(self.output_spaces)


@dataclass(frozen=True)
class RandomSettings(StageSettings):
    """Random numbers."""

    random_seed: int = _setting(20240277, '',
        'seed of the registrations and of the draws of noise', low=0, high=2**31 - 1)
# fmt: on


@dataclass(frozen=True)
class MethodSettings:
    """Settings that change a number in an output: one branch per stage.

    Examples
    --------
    >>> MethodSettings().as_dict()['random']
    {'random_seed': 20240277}
    """

    grid: GridSettings = GridSettings()
    motion: MotionSettings = MotionSettings()
    masks: MaskSettings = MaskSettings()
    denoising: DenoisingSettings = DenoisingSettings()
    vessels: VesselSettings = VesselSettings()
    kinetics: KineticsSettings = KineticsSettings()
    deconvolution: DeconvolutionSettings = DeconvolutionSettings()
    symmetry: SymmetrySettings = SymmetrySettings()
    coregistration: CoregistrationSettings = CoregistrationSettings()
    lesion: LesionSettings = LesionSettings()
    normalization: NormalizationSettings = NormalizationSettings()
    segmentation: SegmentationSettings = SegmentationSettings()
    hypodensity: HypodensitySettings = HypodensitySettings()
    uncertainty: UncertaintySettings = UncertaintySettings()
    volumes: VolumeSettings = VolumeSettings()
    followup: FollowUpSettings = FollowUpSettings()
    template: TemplateSettings = TemplateSettings()
    random: RandomSettings = RandomSettings()

    @classmethod
    def of(cls, **values: Any) -> Self:
        """Create settings that differ from the defaults.

        Parameters
        ----------
        **values
            Settings by name, without their branch.

        Raises
        ------
        UsageError
            If a value is outside the range or the choices of its setting.
        TypeError
            If a name is not a setting.

        Examples
        --------
        >>> MethodSettings.of(lambda_rel=0.2).deconvolution.lambda_rel
        0.2
        """
        return cls().change(**values)

    @classmethod
    def preset(cls, name: str, **values: Any) -> Self:
        """Create the settings of a published method.

        Parameters
        ----------
        name : {'none', 'rau2024'}
            ``rau2024`` omits what Rau et al. 2024 (doi:10.3174/ajnr.A8111) do not describe: Bayesian
            estimation, calibration of Tmax, scaling of the AIF, corrections for noise and partial
            volume, removal of specks and rims, and core as part of hypoperfusion.
        **values
            Settings that differ from it.

        Examples
        --------
        >>> MethodSettings.preset('rau2024').deconvolution.deconvolution_method
        'tikhonov'
        """
        if name != 'none' and name not in PRESETS:
            raise UsageError(f'preset must be one of none, {", ".join(PRESETS)}, got {name}')
        return cls.of(**PRESETS.get(name, {}) | values)

    @property
    def preset_name(self) -> str:
        """Name of the preset that all its settings agree with; 'none' if there is none."""
        flat = self.flat()
        for name, values in PRESETS.items():
            if all(flat[setting] == value for setting, value in values.items()):
                return name
        return 'none'

    def change(self, **values: Any) -> Self:
        """Return a copy with some settings changed, by name without their branch."""
        known = declared(type(self))
        branches: dict[str, dict[str, Any]] = {}
        for name, value in values.items():
            if name not in known:
                raise TypeError(f'there is no setting {name}')
            branches.setdefault(known[name].about.stage, {})[name] = value
        return dataclasses.replace(
            self,
            **{
                stage: dataclasses.replace(getattr(self, stage), **changed)
                for stage, changed in branches.items()
            },
        )

    def as_dict(self, *stages: str) -> dict[str, dict[str, Any]]:
        """Return the settings as plain values, by stage and name.

        Parameters
        ----------
        *stages : str
            Names of the branches; all by default.

        Examples
        --------
        >>> MethodSettings().as_dict('random')
        {'random': {'random_seed': 20240277}}
        """
        branches = dataclasses.asdict(self)
        return {stage: branches[stage] for stage in stages or branches}

    @classmethod
    def from_dict(cls, branches: dict[str, dict[str, Any]]) -> Self:
        """Create settings from the result of `as_dict`; missing branches have their defaults."""
        values = {name: value for branch in branches.values() for name, value in branch.items()}
        return cls.of(**values)

    @property
    def uses_functions(self) -> bool:
        """Whether a function of the user replaces denoising or deconvolution."""
        names = (self.denoising.denoise, self.deconvolution.deconvolution_method)
        return any(FUNCTION.fullmatch(name) for name in names)

    def flat(self) -> dict[str, Any]:
        """Return all settings by name, without their branches."""
        return {k: v for branch in self.as_dict().values() for k, v in branch.items()}


def flatten(recorded: dict[str, Any]) -> dict[str, Any]:
    """Return recorded settings by name, without their branches.

    Parameters
    ----------
    recorded : dict
        ``Settings`` of a sidecar: by stage and name, or by name as in earlier versions.

    Returns
    -------
    dict

    Examples
    --------
    >>> flatten({'lesion': {'core_rcbf': 0.3}, 'lambda_rel': 0.2})
    {'core_rcbf': 0.3, 'lambda_rel': 0.2}
    """
    flat: dict[str, Any] = {}
    for name, value in recorded.items():
        flat |= value if isinstance(value, dict) else {name: value}
    return flat


# memory of a process that has imported the graph and processes small maps (benchmarks/memory.py)
LEAST_GB = 0.3

# variable that keeps the user's TEMPLATEFLOW_HOME, which is replaced before libraries read it
USERS_TEMPLATES = 'CTPPREP_TEMPLATEFLOW_HOME'

# input to process: series and, in sessions without one, precomputed maps; or only one of the two
ENTRIES = ('auto', 'series', 'maps')
# options that exclude each other, by group
EXCLUSIVE = (
    ('frame_interval', 'frame_times'),
    ('reports_only', 'boilerplate_only', 'dry_run'),
)
_input = functools.partial(_setting, stage='input')
_group = functools.partial(_setting, stage='group level')
_resource = functools.partial(_setting, stage='resources')
_task = functools.partial(_setting, stage='what to do')
_message = functools.partial(_setting, stage='messages')


# fmt: off
@dataclass(frozen=True)
class RunSettings:
    """Paths, processes, and user overrides of acquisition times or steps."""

    bids_dir: Path
    output_dir: Path
    work_dir: Path = _resource(Path('work'), '',
        'folder for intermediate files; a stopped run resumes with the same folder',
        options=('-w', '--work-dir'), value='DIR',
        by_default='OUTPUT_DIR with _work appended; beside BIDS_DIR if OUTPUT_DIR is inside it')
    participant_label: tuple[str, ...] = _input((), '',
        'participants to process, with or without sub-', value='LABEL', by_default='all')
    session_label: tuple[str, ...] = _input((), '',
        'sessions to process, with or without ses-',
        options=('--session-label', '--session-id'), value='LABEL', by_default='all')
    run_label: tuple[str, ...] = _input((), '',
        'runs to process, with or without run-', value='LABEL', by_default='all')
    bids_filter_file: Path | None = _input(None, '',
        'JSON file with the entities that series (ctp), non-contrast CT (ncct), '
        'precomputed maps (maps) and follow-up lesions (lesion) must have, by their pybids names',
        value='FILE')
    skip_bids_validation: bool = _input(False, '',
        'skip the quick check of file names and dataset description, which only warns; the files '
        'that are read are always checked, and the BIDS validator is never run')
    bids_database_dir: Path | None = _input(None, '',
        'folder of a pybids database of the whole dataset: created if missing, otherwise used '
        'unchanged, even if the dataset has changed', value='DIR')
    preset: str = _input('none', '',
        'settings of a published method; explicit options take precedence. rau2024 omits what the '
        'reference paper does not describe', RAU, choices=('none', *PRESETS))
    entry: str = _input('auto', '',
        'what to process: CT perfusion series, precomputed maps, or maps where a session has '
        'no series', choices=ENTRIES)
    frame_interval: float | None = _input(None, 's',
        'time between frames, instead of the times in the dataset', by_default='by the dataset')
    frame_times: Path | None = _input(None, 's',
        'text file with the time of each frame, instead of the times in the dataset',
        value='FILE', by_default='by the dataset')
    affine_from: str = _input('agree', '',
        'affine of the header that places the voxels of all images that are read; agree refuses an '
        'image whose two affines place them more than a voxel apart', choices=('agree', 'sform', 'qform'))
    derivatives: tuple[tuple[str, Path], ...] = _input((), '',
        'dataset with brain masks, motion-corrected series or AIFs that replace steps; may be '
        'repeated, the first that has a file is used',
        options=('-d', '--derivatives'), value='NAME=PATH')
    brain_mask: Path | None = _input(None, '',
        'brain mask (NIfTI) that replaces the automatic one; for one series', value='FILE')
    exclude_mask: Path | None = _input(None, '',
        'mask (NIfTI) of old lesions or surgery, whose voxels are not treated as tissue; for one '
        'series', value='FILE')
    aif_file: Path | None = _input(None, '',
        'AIF that replaces the automatic one, as a table (tsv: time in s, aif and optionally vof '
        'in HU above baseline) or as a mask of its voxels (NIfTI); for one series', value='FILE')
    lesion_mask: Path | None = _input(None, '',
        'lesion mask (NIfTI) of a later session, with which maps and lesions are compared; for one '
        'series', value='FILE', by_default='that of a later session in the dataset, in those of '
        '--derivatives, or in derivatives beside raw_data')
    atlas: Path | None = _input(None, '',
        'regions (NIfTI of whole numbers) in which lesions and maps are measured, in place of tissue '
        'classes and depths of white matter; in the space that tpl- or space- in its name states, else '
        'in the first of --output-spaces', value='FILE')
    atlas_labels: Path | None = _input(None, '',
        'names of the regions of --atlas: a table (tsv) with index and name', value='FILE')
    group_column: str | None = _group(None, '',
        'column of participants.tsv whose values are the groups to compare',
        value='COLUMN', by_default='microangiopathy if there is one, else one group')
    stroke_column: str | None = _group(None, '',
        'column of participants.tsv that states whether stroke is evident (yes or no)',
        value='COLUMN', by_default='stroke_evident if there is one, else a global core above 0 mL')
    exclude_column: str | None = _group(None, '',
        'column of participants.tsv: participants with yes, true or 1 there are excluded from '
        'the statistics', value='COLUMN')
    reperfusion_column: str | None = _group(None, '',
        'column of participants.tsv with the result of treatment, for the comparison with follow-up '
        'lesions: yes or no, or a (m)TICI grade, of which 2b, 2c and 3 are reperfusion',
        value='COLUMN', by_default='reperfused or mTICI if there is one')
    oedema_factor: float = _group(1.0, 'ratio',
        'swelling of follow-up lesions, by which their volumes are divided before they are compared; '
        'overlap is not corrected', low=1.0, high=3.0)
    flip_left: bool = _group(False, '',
        'flip masks in template space left-right where the left side is affected, so that maps of '
        'frequency show all lesions on the right')
    nprocs: int = _resource(1, '',
        'simultaneous processes, at most one per core that the command may use',
        options=('--nprocs', '--nthreads', '--n-cpus'), value='N',
        by_default='all these cores')
    omp_nthreads: int = _resource(1, '',
        'threads of one call of a numerical library (BLAS, ITK); with more than 1, results '
        'may differ in the last digits. Steps, frames and figures of a series are also computed '
        'in parallel where there are fewer series than processes', value='N')
    mem_gb: float = _resource(4.0, '',
        'memory to use, in MB, or with G or M appended',
        options=('--mem', '--mem-mb'), value='SIZE', by_default='90 % of what is available')
    use_plugin: Path | None = _resource(None, '',
        'YAML file with plugin and plugin_args of nipype, such as SLURM',
        options=('--use-plugin', '--nipype-plugin-file'), value='FILE',
        by_default='processes on this machine')
    clean_workdir: bool = _resource(False, '',
        'remove the intermediate files of the selected participants first: nothing is reused')
    clean_workdir_on_success: bool = _resource(False, '',
        'remove the intermediate files of a participant when all of its series have succeeded')
    stop_on_first_crash: bool = _resource(False, '',
        'stop when a step fails; otherwise the other series continue')
    reports_only: bool = _task(False, '',
        'only write the reports again, from the files in OUTPUT_DIR')
    boilerplate_only: bool = _task(False, '',
        'only write the methods text, to OUTPUT_DIR/logs')
    dry_run: bool = _task(False, '',
        'check all inputs and print one line per series, with -v also the nodes and their files; '
        'write nothing')
    write_graph: bool = _task(False, '',
        'draw the stages and the nodes of the graph into OUTPUT_DIR/logs')
    verbosity: int = _message(0, '',
        'more messages; -vv for debugging', options=('-v', '--verbose'))
    debug: bool = _message(False, '',
        'show warnings, debug messages of nipype and the traceback of an error; keep all '
        'files of a node')
    run_uuid: str = ''
    # fmt: on

    def __post_init__(self) -> None:
        """Check that values are allowed and that no options exclude each other."""
        check_all(self)
        for names in EXCLUSIVE:
            chosen = [name for name in names if getattr(self, name) not in (None, False)]
            if len(chosen) > 1:
                one, two = ('--' + name.replace('_', '-') for name in chosen[:2])
                raise UsageError(f'{one} and {two} exclude each other; remove one of them')
