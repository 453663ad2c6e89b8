# SPDX-License-Identifier: Apache-2.0
"""What a phantom looks like and how it is scanned."""

from dataclasses import dataclass, field

# core and penumbra, mL of tissue
LESIONS_ML = {
    'tiny': (8.0, 40.0), 'small': (20.0, 60.0), 'large': (50.0, 100.0), 'huge': (90.0, 110.0),
}  # fmt: skip


@dataclass(frozen=True)
class HeadTraits:
    """Anatomy and pathology of the head beyond the plain one.

    Attributes
    ----------
    skull : {'smooth', 'detailed'}
        'detailed': sharp borders of bone, a sloping skull base that cuts slices, petrous bones,
        air cells and sinuses, arteries that run beside bone.
    size : float
        Scale of the head, 1 for an adult.
    slab_shift_mm : float
        Shift of the slab towards the vertex; the plain slab begins below the carotid terminus.
    brain_hu : float
        Density added to brain tissue and blood, HU.
    core_hu : float or None
        Density that the infarct core has lost, HU; None for 2 at its border to 5 deep inside.
    calcifications : bool
        Calcified falx, choroid plexus and pineal gland.
    old_infarct_ml : float
        Volume of an old infarct, of the density of CSF and without flow, mL.
    skull_defect_mm : float
        Diameter of bone that is missing on one side, under closed scalp, mm.
    extracranial_vessels : bool
        Enhancing arteries and veins of the scalp.
    stripped : bool
        Everything outside the brain is set to 0 HU, as in some shared data.
    """

    skull: str = 'smooth'
    size: float = 1.0
    slab_shift_mm: float = 0.0
    brain_hu: float = 0.0
    core_hu: float | None = None
    calcifications: bool = False
    old_infarct_ml: float = 0.0
    skull_defect_mm: float = 0.0
    extracranial_vessels: bool = False
    stripped: bool = False


@dataclass(frozen=True)
class BolusTraits:
    """Arterial curve; None: drawn at random.

    Attributes
    ----------
    peak_hu : float or None
        Peak enhancement of the arteries, HU.
    peak_time_s : float or None
    width_s : float or None
        Full width at half maximum of the first pass, s.
    recirculation : float
        Height of the second pass relative to the first.
    plateau : float
        Height of the plateau at the end of the first pass relative to its peak.
    side_delay_s, side_dispersion_s : float
        Delay and dispersion of the arteries of the affected hemisphere, s; of the left one if
        both or none are affected. The truth `aif` is that of the other side.
    """

    peak_hu: float | None = None
    peak_time_s: float | None = None
    width_s: float | None = None
    recirculation: float = 0.13
    plateau: float = 0.05
    side_delay_s: float = 0.0
    side_dispersion_s: float = 0.0


@dataclass(frozen=True)
class ScanTraits:
    """Imperfections of the scan.

    Attributes
    ----------
    slices : {'interpolated', 'averaged'}
        'averaged': each slice is the average of thin slices of the head, which also moves during
        the exposure of 0.4 s around the time of the slice and between the slabs of a table.
    noise : {'even', 'photon'}
        'photon': noise grows towards the centre and along rays through much bone.
    beam_hardening_hu : float
        Density added next to bone, HU; up to twice as much is taken away between the petrous
        bones of a detailed skull.
    metal : bool
        A clip or coil with streaks.
    drift_hu : float
        Density added to everything by the end of the scan, linearly in time, HU.
    offset_hu : float
        Density added to everything in all frames, HU.
    """

    slices: str = 'interpolated'
    noise: str = 'even'
    beam_hardening_hu: float = 6.0
    metal: bool = False
    drift_hu: float = 0.0
    offset_hu: float = 0.0


@dataclass(frozen=True)
class PhantomSettings:
    """Head and scan of one phantom.

    Attributes
    ----------
    seed : int
        Anatomy, physiology, lesion, bolus, motion and noise each have their own random stream:
        the same seed with other scan settings gives the same head, scanned differently.
    matrix : int
        Voxels along each in-plane axis.
    voxel_size_mm : tuple of 3 float
        In plane, in plane, slice thickness.
    n_slices, n_frames : int
    frame_interval : float
        Seconds between frames (in the first pass, if `timing` is 'uneven').
    timing : {'even', 'uneven', 'toggling', 'jog'}
        'uneven': twice the interval after the first 2/3 of the frames. 'toggling': the upper
        half of the slices is scanned half an interval after the lower half. 'jog': the same, but
        every other frame begins with the upper half.
    noise_hu : float
        SD of the noise of one acquired voxel, HU.
    motion_mm : float
        Size of one sudden movement (mm and degrees), on top of a slow drift. 0: no motion.
    tilt_deg : float
        Largest rotation of the head about each patient axis.
    asymmetry_mm : float
        Peak of the asymmetric deformation.
    microangiopathy : float
        Severity, 0 to 1.
    lesion : {'none', 'tiny', 'small', 'large', 'huge'}
        Core of about 8, 20, 50 or 90 mL with a penumbra around it.
    lesion_ml : tuple of 2 float, optional
        Core and penumbra, mL; replaces the volumes of `lesion`.
    lesion_side : {'left', 'right', 'both'}
        'both': one lesion of that size in each hemisphere, so that no healthy side is left.
    residue : {'exponential', 'linear', 'plateau', 'gamma', 'mixed'}
        Family of the residue function; the area of each is MTT. 'mixed': each voxel averages the
        exponential and the plateau, in a proportion that varies over the brain.
    orientation : str
        Axes of the voxel array, e.g. 'RAS' or 'LPS'; the third is 'S' or 'I'.
    anatomy : str, optional
        Path of a head CT without contrast (NIfTI, HU). Its skull, tissue, density and holder
        replace the template's, which gives territories, vessels and homologues by registration and
        is as accurate as that;
        the grid is in the CT's coordinates. Ignored with it: `tilt_deg`, `asymmetry_mm`,
        `scanner.beam_hardening_hu` and, of the head, `skull`, `size`, `calcifications`,
        `skull_defect_mm` and `extracranial_vessels`.
    head : HeadTraits
    bolus : BolusTraits
    scanner : ScanTraits

    Raises
    ------
    ValueError
        If a choice or the orientation is unknown, the severity is not between 0 and 1, or
        volumes are given for no lesion.
    """

    seed: int = 0
    matrix: int = 128
    voxel_size_mm: tuple[float, float, float] = (1.72, 1.72, 5.0)
    n_slices: int = 20
    n_frames: int = 27
    frame_interval: float = 1.5
    timing: str = 'even'
    noise_hu: float = 4.0
    motion_mm: float = 2.0
    tilt_deg: float = 8.0
    asymmetry_mm: float = 5.0
    microangiopathy: float = 0.0
    lesion: str = 'none'
    lesion_ml: tuple[float, float] | None = None
    lesion_side: str = 'left'
    residue: str = 'exponential'
    orientation: str = 'LPS'
    anatomy: str | None = None
    head: HeadTraits = field(default_factory=HeadTraits)
    bolus: BolusTraits = field(default_factory=BolusTraits)
    scanner: ScanTraits = field(default_factory=ScanTraits)

    def __post_init__(self):
        choices = {
            'timing': ('even', 'uneven', 'toggling', 'jog'),
            'lesion': ('none', *LESIONS_ML),
            'lesion_side': ('left', 'right', 'both'),
            'residue': ('exponential', 'linear', 'plateau', 'gamma', 'mixed'),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f'{name} must be one of {allowed}, got {getattr(self, name)!r}')
        for trait, value, allowed in (
            ('head.skull', self.head.skull, ('smooth', 'detailed')),
            ('scanner.slices', self.scanner.slices, ('interpolated', 'averaged')),
            ('scanner.noise', self.scanner.noise, ('even', 'photon')),
        ):
            if value not in allowed:
                raise ValueError(f'{trait} must be one of {allowed}, got {value!r}')
        if not 0 <= self.microangiopathy <= 1:
            raise ValueError(
                f'microangiopathy must be a severity between 0 and 1, got {self.microangiopathy}'
            )
        if self.lesion_ml is not None and self.lesion == 'none':
            raise ValueError(
                "lesion_ml replaces the volumes of a lesion, but lesion is 'none'; "
                "set lesion to 'large', for example"
            )
        letters = self.orientation
        if len(letters) != 3 or any(
            a not in b for a, b in zip(letters, ('RL', 'AP', 'SI'), strict=True)
        ):
            raise ValueError(
                f"orientation must be three letters such as 'RAS' or 'LPS' with slices along the "
                f'third axis, got {letters!r}'
            )

    @property
    def lesion_volumes_ml(self) -> tuple[float, float]:
        """Volumes of core and penumbra of each lesion, mL."""
        if self.lesion == 'none':
            return 0.0, 0.0
        core_ml, penumbra_ml = self.lesion_ml or LESIONS_ML[self.lesion]
        return core_ml, penumbra_ml

    @property
    def slow_sign(self) -> int:
        """Sign of template x of the side whose arteries `bolus` delays and disperses."""
        return (*self.lesion_signs, -1)[0]

    @property
    def lesion_signs(self) -> tuple[int, ...]:
        """Signs of template x of the sides with a lesion: -1 left, 1 right."""
        if self.lesion == 'none':
            return ()
        return {'left': (-1,), 'right': (1,), 'both': (-1, 1)}[self.lesion_side]
