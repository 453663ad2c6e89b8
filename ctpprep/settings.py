# SPDX-License-Identifier: Apache-2.0
"""Every default of ctpprep, once.

`MethodSettings` holds what changes a number in an output: it goes into the methods text, the
sidecars and the node hashes. `RunSettings` holds the rest: paths, processes, and what a user
gives in place of the dataset's times or of a step. Each field
carries its stage, unit, meaning and source; the command line is made from them.

Examples
--------
>>> MethodSettings().core_rcbf
0.3
>>> describe(MethodSettings, 'core_rcbf').unit
'fraction'
"""

import dataclasses
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ctpprep.exceptions import UsageError

RAU = 'Rau et al. 2024, doi:10.3174/ajnr.A8111'
FIESELMANN = 'Fieselmann et al. 2011, doi:10.1155/2011/467563'
CALAMANTE = 'Calamante et al. 2003, doi:10.1002/mrm.10643'
AMUKOTUWA = 'Amukotuwa et al., Stroke 2019;50:2783'
ALBERS = 'Albers et al. 2018, doi:10.1056/NEJMoa1713973'
OLIVOT = 'Olivot et al. 2014, doi:10.1161/STROKEAHA.113.003857'
WACK = 'Wack et al. 2014, doi:10.1186/1471-2342-14-28'
MENDRIK = 'Mendrik et al., Phys Med Biol 2011;56:3857'
# the 2.5th percentile lies within this many
LEAST_DRAWS = 40
EFRON = 'Efron 1979, doi:10.1214/aos/1176344552'
GOLUB = 'Golub et al. 1979, doi:10.1080/00401706.1979.10489751'


@dataclass(frozen=True)
class About:
    """What a setting is: its stage, unit, meaning, source and allowed range or values.

    Attributes
    ----------
    stage, unit, meaning, source : str
    choices : tuple of str, optional
        All values it may have.
    low, high : float, optional
        Its range, ends included.
    options : tuple of str
        Spellings on the command line; that of the name if there are none.
    value : str
        What stands for the value in ``--help``.
    by_default : str
        The default in words, where it is found only when the command runs.
    """

    stage: str
    unit: str
    meaning: str
    source: str = ''
    choices: tuple[str, ...] | None = None
    low: float | None = None
    high: float | None = None
    options: tuple[str, ...] = ()
    value: str = ''
    by_default: str = ''


def _setting(default: Any, *args: Any, **kwargs: Any) -> Any:
    return field(default=default, metadata={'about': About(*args, **kwargs)})


def describe(settings: type, name: str) -> About:
    """Look up what a setting means.

    Parameters
    ----------
    settings : type
        `MethodSettings` or `RunSettings`.
    name : str
        Name of the field.

    Returns
    -------
    About
    """
    return {each.name: each for each in fields(settings)}[name].metadata['about']


@dataclass(frozen=True)
class MethodSettings:
    """What changes a number: one field per choice of the method, grouped by stage."""

    # -- working grid
    working_in_plane_mm: float = _setting(
        1.8,
        'grid',
        'mm',
        'blocks of voxels are averaged in plane while their size stays within',
        low=0.1,
        high=20.0,
    )
    working_slice_mm: float = _setting(
        5.0, 'grid', 'mm', 'thin slices acquired together are averaged to about', low=0.1, high=20.0
    )  # fmt: skip
    # -- motion
    motion_correction: bool = _setting(
        True, 'motion', '', 'register every frame rigidly to the first usable one', RAU
    )
    motion_grid_mm: float = _setting(
        3.5,
        'motion',
        'mm',
        'in-plane voxel size of the images that are registered',
        low=1.0,
        high=10.0,
    )
    motion_window_hu: tuple[float, float] = _setting(
        (-500.0, 1500.0),
        'motion',
        'HU',
        'densities that are registered: bone and air, which do not enhance, outweigh the rest',
        low=-1024.0,
        high=4000.0,
    )
    motion_smoothing_mm: tuple[float, ...] = _setting(
        (6.0, 3.0),
        'motion',
        'mm',
        'sigma in plane of each level of the registration',
        low=0.5,
        high=30.0,
    )
    motion_skip_mm: float = _setting(
        0.05,
        'motion',
        'mm',
        'mean displacement of the head up to which it has not moved: if it has moved in no frame, '
        'none is resampled',
        low=0.0,
        high=2.0,
    )
    motion_reject_similarity: float = _setting(
        0.95,
        'motion',
        'ratio',
        "correlation of a corrected frame's skull with the reference frame's below which it gets "
        'weight 0',
        low=0.0,
        high=1.0,
    )
    # -- masks
    bone_hu: float = _setting(
        130.0, 'masks', 'HU', 'smoothed density above which a voxel is bone', low=80.0, high=600.0
    )
    csf_hu: float = _setting(
        17.0,
        'masks',
        'HU',
        'time-averaged density below which a brain voxel may be CSF',
        low=0.0,
        high=25.0,
    )
    vessel_ratio: float = _setting(
        2.5,
        'masks',
        'ratio',
        'peak enhancement, relative to the median of brain, of a vessel',
        low=1.0,
        high=20.0,
    )
    bone_margin_mm: float = _setting(
        3.0,
        'masks',
        'mm',
        'distance from bone within which no AIF or VOF is looked for and no curve '
        'feeds the denoising: motion brings bone there',
        low=0.0,
        high=10.0,
    )
    # -- denoising
    denoise: str = _setting(
        'similarity',
        'denoising',
        '',
        'average over voxels of similar density and curve, smoothing over tissue followed by a low-rank '
        'model of the curves, smoothing alone, or none',
        MENDRIK,
        choices=('similarity', 'lowrank', 'smooth', 'none'),
    )
    denoise_sigma_mm: tuple[float, float, float] = _setting(
        (3.5, 3.5, 3.5),
        'denoising',
        'mm',
        'sigma of the smoothing over tissue (x, y, z); with similarity, of the curves compared',
        WACK,
        low=0.0,
        high=10.0,
    )
    denoise_rank: int = _setting(
        6, 'denoising', '', 'number of temporal components that are kept', low=1, high=50
    )
    denoise_reach_mm: tuple[float, float, float] = _setting(
        (6.0, 6.0, 6.0),
        'denoising',
        'mm',
        'similarity: sigma of the average over similar voxels (x, y, z)',
        MENDRIK,
        low=0.0,
        high=20.0,
    )
    denoise_density_hu: float = _setting(
        3.0,
        'denoising',
        'HU',
        'similarity: difference of density at which a neighbour counts 0.6, beside noise',
        MENDRIK,
        low=0.1,
        high=100.0,
    )
    denoise_curve_tolerance: float = _setting(
        7.0,
        'denoising',
        'ratio',
        'similarity: difference of curves at which a neighbour counts 0.6, over their noise',
        MENDRIK,
        low=0.1,
        high=100.0,
    )
    # -- vessels
    aif_voxels: int = _setting(
        12,
        'vessels',
        'voxels',
        'number of voxels averaged to the AIF (and to the VOF)',
        low=1,
        high=200,
    )
    aif_scaling: str = _setting(
        'none',
        'vessels',
        '',
        'scale the area of the AIF to that of the VOF against partial volume (disputed), or not',
        choices=('none', 'vof'),
    )
    vessel_smoothing_mm: tuple[float, float, float] = _setting(
        (1.25, 1.25, 3.0),
        'vessels',
        'mm',
        'sigma of the smoothing before vessels are chosen (x, y, z); their curves are smoothed in '
        'plane only',
        low=0.0,
        high=10.0,
    )
    # -- deconvolution
    hematocrit_factor: float = _setting(
        0.733, 'deconvolution', '', 'k_H = (1 - 0.45) / (1 - 0.25)', FIESELMANN, low=0.1, high=1.5
    )
    tissue_density: float = _setting(
        1.04, 'deconvolution', 'g/mL', 'density rho of brain tissue', FIESELMANN, low=0.5, high=2.0
    )
    penalty_order: str = _setting(
        '1',
        'deconvolution',
        '',
        'order of the derivative that Tikhonov regularization penalizes',
        CALAMANTE,
        choices=('0', '1', '2'),
    )
    lambda_rel: float = _setting(
        0.0,
        'deconvolution',
        '',
        'regularization weight for CBF relative to the largest singular value; 0 lets '
        'generalized cross-validation choose it',
        GOLUB,
        low=0.0,
        high=10.0,
    )
    tmax_lambda_ratio: float = _setting(
        6.0,
        'deconvolution',
        'ratio',
        'regularization weight for Tmax over that for CBF',
        low=0.1,
        high=100.0,
    )
    residue_step: float = _setting(
        0.5, 'deconvolution', 's', 'time step of the residue function', low=0.05, high=3.0
    )
    residue_lead: float = _setting(
        6.0,
        'deconvolution',
        's',
        'how far before zero the residue function begins',
        low=0.0,
        high=15.0,
    )
    tmax_calibration: bool = _setting(
        True,
        'deconvolution',
        '',
        "subtract the operator's own Tmax (exponential residue, no delay) from Tmax",
    )
    calibration_mtt: float = _setting(
        4.0,
        'deconvolution',
        's',
        'mean transit time of the calibrating residue',
        low=0.5,
        high=20.0,
    )
    cbf_noise_correction: bool = _setting(
        True,
        'deconvolution',
        '',
        'subtract from CBF what the noise left by denoising adds to a maximum',
        EFRON,
    )
    partial_volume: bool = _setting(
        True,
        'deconvolution',
        '',
        'divide CBF and CBV by the share of tissue in the voxel, by its density: CSF has no flow',
    )
    # -- normalization
    global_reference: str = _setting(
        'normal-tmax',
        'normalization',
        '',
        'tissue whose median CBF is 1 in the global maps: Tmax within --normal-tmax, or the '
        'contralateral hemisphere',
        AMUKOTUWA,
        choices=('normal-tmax', 'contralateral'),
    )
    normal_tmax: float = _setting(
        4.0,
        'normalization',
        's',
        'Tmax up to which tissue counts as normally perfused',
        AMUKOTUWA,
        low=0.1,
        high=20.0,
    )
    least_normal_share: float = _setting(
        0.5,
        'normalization',
        'fraction',
        'share of tissue within --normal-tmax below which early tissue of the unaffected '
        'hemisphere is the global reference instead; 0 for never',
        low=0.0,
        high=1.0,
    )
    local_clip: float = _setting(
        1.5, 'normalization', 'fraction', 'cap of the contralateral map', RAU, low=0.1, high=10.0
    )
    local_sigma_mm: tuple[float, float, float] = _setting(
        (12.0, 12.0, 4.0),
        'normalization',
        'mm',
        'sigma of the Gaussian over the contralateral map (patient x, y, z)',
        RAU,
        low=0.0,
        high=60.0,
    )
    local_floor: float = _setting(
        0.1,
        'normalization',
        'fraction',
        'smoothed contralateral value below which a voxel is not assessable',
        low=0.001,
        high=1.0,
    )
    local_least_tissue: float = _setting(
        0.5,
        'normalization',
        'fraction',
        'share of tissue at the homologue of a voxel from which its value counts',
        low=0.01,
        high=1.0,
    )
    local_least_weight: float = _setting(
        0.1,
        'normalization',
        'fraction',
        'share of the Gaussian that must meet such homologues, or a voxel is not assessable; at the '
        'corner of a slab an eighth of it lies inside',
        low=0.001,
        high=1.0,
    )
    # -- symmetry
    mirror_grid_mm: float = _setting(
        3.4,
        'symmetry',
        'mm',
        'in-plane voxel size of the images in the mirror registration',
        low=1.0,
        high=10.0,
    )
    mirror_window_hu: tuple[float, float] = _setting(
        (0.0, 60.0),
        'symmetry',
        'HU',
        'densities seen by the mirror registration',
        low=-100.0,
        high=300.0,
    )
    mirror_retry_similarity: float = _setting(
        0.68,
        'symmetry',
        '',
        'correlation of brain and mirrored brain below which other starts of the mirror registration '
        'are tried',
        low=-1.0,
        high=1.0,
    )
    mirror_least_similarity: float = _setting(
        0.56,
        'symmetry',
        '',
        'correlation of brain and mirrored brain below which the mirror registration has failed '
        'and local maps are withheld',
        low=-1.0,
        high=1.0,
    )
    mirror_most_folding: float = _setting(
        0.01,
        'symmetry',
        '',
        'share of the brain in which the mirror registration may fold or change volume fivefold; '
        'above it local maps are withheld',
        low=0.0,
        high=1.0,
    )
    random_seed: int = _setting(
        20240277,
        'symmetry',
        '',
        'seed of the registrations and of the draws of noise',
        low=0,
        high=2**31 - 1,
    )
    # -- maps made elsewhere
    map_least_similarity: float = _setting(
        0.45,
        'precomputed',
        '',
        'the same as --mirror-least-similarity where a perfusion map is mirrored for want of a CT: '
        'its lesions make it less alike',
        low=-1.0,
        high=1.0,
    )
    # -- coregistration
    ncct_grid_mm: float = _setting(
        2.0,
        'coregistration',
        'mm',
        'in-plane voxel size of the images registered to the NCCT',
        low=0.5,
        high=10.0,
    )
    ncct_window_hu: tuple[float, float] = _setting(
        (-200.0, 300.0),
        'coregistration',
        'HU',
        'densities seen by the registration to the NCCT',
        low=-1024.0,
        high=4000.0,
    )
    # -- segmentation
    core_rcbf: float = _setting(
        0.30,
        'segmentation',
        'fraction',
        'relative CBF below which tissue is core',
        RAU,
        low=0.01,
        high=1.0,
    )
    hypoperfusion_tmax: float = _setting(
        6.0,
        'segmentation',
        's',
        'Tmax above which tissue is hypoperfused',
        RAU,
        low=0.5,
        high=60.0,
    )
    opening_mm: float = _setting(
        2.5, 'segmentation', 'mm', 'radius of the morphological opening', RAU, low=0.0, high=20.0
    )
    closing_mm: float = _setting(
        2.5, 'segmentation', 'mm', 'radius of the morphological closing', RAU, low=0.0, high=20.0
    )
    least_lesion_ml: float = _setting(
        1.0,
        'segmentation',
        'mL',
        'connected lesions below this are removed as specks; 0 keeps them',
        low=0.0,
        high=100.0,
    )
    rim_mm: float = _setting(
        5.0,
        'segmentation',
        'mm',
        'depth of the border of brain and slab along which a lesion is removed as a rim; 0 keeps '
        'rims',
        low=0.0,
        high=20.0,
    )
    rim_deep_share: float = _setting(
        0.1,
        'segmentation',
        'fraction',
        'share of a lesion deeper than --rim-mm from which it is no rim',
        low=0.0,
        high=1.0,
    )
    slab_end_ml: float = _setting(
        5.0,
        'segmentation',
        'mL',
        'volume from which a lesion of the end slices alone is no rim',
        low=0.0,
        high=1000.0,
    )
    core_within_hypoperfusion: bool = _setting(
        False, 'segmentation', '', 'restrict core to hypoperfusion; not so in the paper', RAU
    )
    affected_side: str = _setting(
        'auto',
        'segmentation',
        '',
        'hemisphere that lesions are restricted to; auto is the one with the greater median Tmax, or, where '
        'the medians hardly differ, with far more hypoperfusion',
        RAU,
        choices=('auto', 'left', 'right', 'both'),
    )
    # -- hypodensity
    hypodense_hu: float = _setting(
        8.0,
        'hypodensity',
        'HU',
        'density below that of the homologue from which core is flagged as hypodense (an old infarct?)',
        low=1.0,
        high=100.0,
    )
    hypodense_sigma_mm: float = _setting(
        2.0,
        'hypodensity',
        'mm',
        'sigma in plane of the smoothing of the reference image before densities are compared',
        low=0.0,
        high=10.0,
    )
    # -- uncertainty
    noise_draws: int = _setting(
        100,
        'uncertainty',
        '',
        'segmentations with more noise from which the interval of a core volume is taken, at least 40; '
        '0 for no interval',
        low=0,
        high=10000,
    )
    interval_widening: float = _setting(
        2.0,
        'uncertainty',
        'ratio',
        'factor on the spread of these volumes, by simulated scans: alone it is too narrow',
        low=0.1,
        high=10.0,
    )
    # -- volumes
    tmax_thresholds: tuple[float, ...] = _setting(
        (4.0, 6.0, 8.0, 10.0),
        'volumes',
        's',
        'Tmax thresholds whose volumes are tabulated',
        OLIVOT,
        low=0.1,
        high=60.0,
    )
    rcbf_thresholds: tuple[float, ...] = _setting(
        (0.20, 0.30, 0.34, 0.38),
        'volumes',
        'fraction',
        'relative CBF thresholds whose volumes are tabulated',
        ALBERS,
        low=0.01,
        high=1.0,
    )

    def __post_init__(self) -> None:
        """Refuse values outside the range or the choices of their setting."""
        for each in fields(self):
            check_setting(each.name, getattr(self, each.name), each.metadata['about'])
        if 0 < self.noise_draws < LEAST_DRAWS:
            raise UsageError(
                f'noise_draws is 0 or at least {LEAST_DRAWS}, got {self.noise_draws}: fewer tell no '
                '95 % interval'
            )

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as plain values, for sidecars and node inputs."""
        return dataclasses.asdict(self)

    def stage(self, *stages: str) -> dict[str, Any]:
        """Return the settings of some stages by name.

        Parameters
        ----------
        *stages : str
            Names of stages, such as 'deconvolution'.

        Returns
        -------
        dict

        Examples
        --------
        >>> sorted(MethodSettings().stage('grid'))
        ['working_in_plane_mm', 'working_slice_mm']
        """
        return {
            each.name: getattr(self, each.name)
            for each in fields(self)
            if each.metadata['about'].stage in stages
        }


# what a process takes that has imported the graph, and some for small maps; benchmarks/memory.py
LEAST_GB = 0.3

# what is taken of a dataset: series where there are some and else maps, or one of both alone
ENTRIES = ('auto', 'series', 'maps')
# of each of these, one at most
EXCLUSIVE = (
    ('frame_interval', 'frame_times'),
    ('reports_only', 'boilerplate_only', 'dry_run'),
)


@dataclass(frozen=True)
class RunSettings:
    """Where and how to run, and what a user gives in place of the dataset's times or of a step."""

    bids_dir: Path
    output_dir: Path
    work_dir: Path = _setting(
        Path('work'),
        'resources',
        '',
        'folder for intermediate files; the same folder lets a stopped run go on',
        options=('-w', '--work-dir'),
        value='DIR',
        by_default='OUTPUT_DIR with _work added to its name; if it is inside BIDS_DIR, beside that '
        'and with its name in front',
    )
    # -- input
    participant_label: tuple[str, ...] = _setting(
        (),
        'input',
        '',
        'participants to process, with or without sub-',
        value='LABEL',
        by_default='all',
    )
    session_label: tuple[str, ...] = _setting(
        (),
        'input',
        '',
        'sessions to process, with or without ses-',
        options=('--session-label', '--session-id'),
        value='LABEL',
        by_default='all',
    )
    run_label: tuple[str, ...] = _setting(
        (), 'input', '', 'runs to process, with or without run-', value='LABEL', by_default='all'
    )
    bids_filter_file: Path | None = _setting(
        None,
        'input',
        '',
        'JSON file with the entities that series (ctp), non-contrast CT (ncct) and maps made elsewhere '
        '(maps) must have, by their names in pybids',
        value='FILE',
    )
    skip_bids_validation: bool = _setting(
        False,
        'input',
        '',
        'leave out the quick look at names and description of the dataset, which only warns; the '
        'checks of what is read stay, and the BIDS validator is never run',
    )
    bids_database_dir: Path | None = _setting(
        None,
        'input',
        '',
        'folder of a pybids database of the whole dataset: made if it is not there, else used as it '
        'is, even if the dataset has changed',
        value='DIR',
    )
    entry: str = _setting(
        'auto',
        'input',
        '',
        'what to process: CT perfusion series, maps made elsewhere, or maps where a session has no '
        'series',
        choices=ENTRIES,
    )
    frame_interval: float | None = _setting(
        None,
        'input',
        's',
        'time between frames, instead of what the dataset says',
        by_default='by the dataset',
    )
    frame_times: Path | None = _setting(
        None,
        'input',
        's',
        'text file with the time of each frame, instead of what the dataset says',
        value='FILE',
        by_default='by the dataset',
    )
    derivatives: tuple[tuple[str, Path], ...] = _setting(
        (),
        'input',
        '',
        'dataset that holds brain masks, motion-corrected series or AIFs in place of steps; may be '
        'repeated, the first that has a file counts',
        options=('-d', '--derivatives'),
        value='NAME=PATH',
    )
    brain_mask: Path | None = _setting(
        None,
        'input',
        '',
        'mask of the brain (NIfTI), in place of ours; for one series',
        value='FILE',
    )
    aif_file: Path | None = _setting(
        None,
        'input',
        '',
        'AIF as a table (tsv: time in s, aif and perhaps vof in HU above baseline) or as a mask of '
        'its voxels (NIfTI), in place of ours; for one series',
        value='FILE',
    )
    # -- group level
    group_column: str | None = _setting(
        None,
        'group level',
        '',
        'column of participants.tsv whose values are the groups to compare',
        value='COLUMN',
        by_default='microangiopathy if there is one, else one group',
    )
    stroke_column: str | None = _setting(
        None,
        'group level',
        '',
        'column of participants.tsv that tells whether stroke is evident (yes or no)',
        value='COLUMN',
        by_default='stroke_evident if there is one, else a global core above 0 mL',
    )
    exclude_column: str | None = _setting(
        None,
        'group level',
        '',
        'column of participants.tsv: participants with yes, true or 1 there are left out of the statistics',
        value='COLUMN',
    )
    # -- resources
    nprocs: int = _setting(
        1,
        'resources',
        '',
        'processes at a time',
        options=('--nprocs', '--nthreads', '--n-cpus'),
        value='N',
        by_default='all cores this process may use',
    )
    omp_nthreads: int = _setting(
        1,
        'resources',
        '',
        'threads of one call of a numerical library (BLAS, ITK); with more than 1, results may differ '
        'in the last digits. Frames are computed side by side beyond that, where there are fewer '
        'series than processes',
        value='N',
    )
    mem_gb: float = _setting(
        4.0,
        'resources',
        '',
        'memory to plan with: MB, or with G or M added',
        options=('--mem', '--mem-mb'),
        value='SIZE',
        by_default='90 % of what is available',
    )
    use_plugin: Path | None = _setting(
        None,
        'resources',
        '',
        'YAML file with plugin and plugin_args of nipype, such as SLURM',
        options=('--use-plugin', '--nipype-plugin-file'),
        value='FILE',
        by_default='processes on this machine',
    )
    clean_workdir: bool = _setting(
        False,
        'resources',
        '',
        'remove the intermediate files of the selected participants first: nothing is taken up again',
    )
    clean_workdir_on_success: bool = _setting(
        False,
        'resources',
        '',
        'remove the intermediate files of a participant when all of its series have succeeded',
    )
    stop_on_first_crash: bool = _setting(
        False, 'resources', '', 'stop when a step fails; otherwise the other series go on'
    )
    # -- what to do
    reports_only: bool = _setting(
        False,
        'what to do',
        '',
        'write the reports again from the files in OUTPUT_DIR, and no more',
    )
    boilerplate_only: bool = _setting(
        False, 'what to do', '', 'write the methods text into OUTPUT_DIR/logs, and no more'
    )
    dry_run: bool = _setting(
        False,
        'what to do',
        '',
        'print the tree of nodes with what each would read and write, and write nothing',
    )
    write_graph: bool = _setting(
        False, 'what to do', '', 'draw the stages and the nodes of the graph into OUTPUT_DIR/logs'
    )
    # -- messages
    verbosity: int = _setting(
        0, 'messages', '', 'say more; -vv for debugging', options=('-v', '--verbose')
    )
    debug: bool = _setting(
        False,
        'messages',
        '',
        'show warnings, debug messages of nipype and where an error came from; keep all files of a '
        'node',
    )
    run_uuid: str = ''

    def __post_init__(self) -> None:
        """Refuse values outside the choices of their setting, and options that exclude others."""
        for each in fields(self):
            if 'about' in each.metadata:
                check_setting(each.name, getattr(self, each.name), each.metadata['about'])
        for names in EXCLUSIVE:
            given = [name for name in names if getattr(self, name) not in (None, False)]
            if len(given) > 1:
                one, two = ('--' + name.replace('_', '-') for name in given[:2])
                raise UsageError(f'{one} and {two} exclude each other')


def check_setting(name: str, value: Any, about: About) -> None:
    """Check one setting against its range or choices.

    Parameters
    ----------
    name : str
        Name of the setting.
    value : object
        Its value; tuples are checked element by element.
    about : About
        What the setting allows.

    Raises
    ------
    UsageError
        With the value found and the values allowed.

    Examples
    --------
    >>> check_setting('core_rcbf', 30, describe(MethodSettings, 'core_rcbf'))
    Traceback (most recent call last):
    ctpprep.exceptions.UsageError: core_rcbf is a fraction between 0.01 and 1.0, got 30; write 30 % as 0.3
    """
    for each in value if isinstance(value, tuple) else (value,):
        if about.choices is not None and each not in about.choices:
            raise UsageError(f'{name} is one of {", ".join(about.choices)}, got {each}')
        if about.low is not None and not about.low <= each <= about.high:
            what = f'a {about.unit}' if about.unit in ('fraction', 'ratio') else 'a number'
            unit = '' if about.unit in ('fraction', 'ratio', '') else f' {about.unit}'
            hint = '; write 30 % as 0.3' if about.unit == 'fraction' and each > 1 else ''
            raise UsageError(
                f'{name} is {what} between {about.low} and {about.high}{unit}, got {each}{hint}'
            )
