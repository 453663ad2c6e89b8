# SPDX-License-Identifier: Apache-2.0
"""What a phantom looks like and how it is scanned."""

from dataclasses import dataclass

# core and penumbra, mL of tissue
LESIONS_ML = {
    'tiny': (8.0, 40.0), 'small': (20.0, 60.0), 'large': (50.0, 100.0), 'huge': (90.0, 110.0),
}  # fmt: skip


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
    microangiopathy : bool
    lesion : {'none', 'tiny', 'small', 'large', 'huge'}
        Core of about 8, 20, 50 or 90 mL with a penumbra around it.
    lesion_side : {'left', 'right', 'both'}
        'both': one lesion of that size in each hemisphere, so that no healthy side is left.
    residue : {'exponential', 'linear', 'plateau'}
        Family of the residue function; the area of each is MTT.
    orientation : str
        Axes of the voxel array, e.g. 'RAS' or 'LPS'; the third is 'S' or 'I'.

    Raises
    ------
    ValueError
        If a choice or the orientation is unknown.
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
    microangiopathy: bool = False
    lesion: str = 'none'
    lesion_side: str = 'left'
    residue: str = 'exponential'
    orientation: str = 'LPS'

    def __post_init__(self):
        choices = {
            'timing': ('even', 'uneven', 'toggling', 'jog'),
            'lesion': ('none', *LESIONS_ML),
            'lesion_side': ('left', 'right', 'both'),
            'residue': ('exponential', 'linear', 'plateau'),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f'{name} must be one of {allowed}, got {getattr(self, name)!r}')
        letters = self.orientation
        if len(letters) != 3 or any(
            a not in b for a, b in zip(letters, ('RL', 'AP', 'SI'), strict=True)
        ):
            raise ValueError(
                f"orientation must be three letters such as 'RAS' or 'LPS' with slices along the "
                f'third axis, got {letters!r}'
            )

    @property
    def lesion_signs(self) -> tuple[int, ...]:
        """Signs of template x of the sides with a lesion: -1 left, 1 right."""
        if self.lesion == 'none':
            return ()
        return {'left': (-1,), 'right': (1,), 'both': (-1, 1)}[self.lesion_side]
