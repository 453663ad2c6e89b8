# SPDX-License-Identifier: Apache-2.0
"""Heads drawn at random: the population of `population.py`.

`draw` turns a seed into one head. All shares and ranges are in the tables at the top. Each trait has
its own random stream, so that a new trait or another range changes no other trait.
"""

import zlib
from dataclasses import dataclass, replace

import numpy as np

from ctpprep.phantom import LESIONS_ML, PhantomSettings
from ctpprep.phantom.scanner import schedule_frames
from ctpprep.phantom.settings import BolusTraits, HeadTraits, ScanTraits


@dataclass(frozen=True)
class Protocol:
    """One family of scan protocols; pairs are ranges.

    Attributes
    ----------
    share : float
        Share of the heads.
    slices : tuple of (int, float)
        Pairs of number and thickness (mm) of the slices; one is drawn.
    interval_s : tuple of 2 float
    timings : tuple of str
        One is drawn, see `PhantomSettings.timing`.
    """

    share: float
    slices: tuple[tuple[int, float], ...]
    interval_s: tuple[float, float]
    timings: tuple[str, ...]


PROTOCOLS = {
    # 320 x 0.5 mm, intermittent rotations: dense in the first pass, then sparse
    'volume': Protocol(0.20, ((16, 8.0), (20, 8.0), (20, 5.0)), (1.6, 2.1), ('uneven', 'even')),
    # a table that shuttles continuously: the direction alternates from frame to frame
    'shuttle': Protocol(0.25, ((10, 10.0), (20, 5.0), (24, 5.0), (16, 6.0)), (1.5, 1.8), ('jog',)),
    # a table that toggles between two positions
    'toggling': Protocol(0.20, ((16, 5.0), (8, 10.0), (14, 6.0)), (2.0, 2.8), ('toggling', 'jog')),
    # a detector of 16 cm without table movement
    'wide': Protocol(0.10, ((24, 5.0), (16, 8.0)), (1.5, 2.8), ('even', 'uneven')),
    # a detector of 4 to 8 cm without table movement
    'fixed': Protocol(0.21, ((8, 5.0), (12, 5.0), (20, 3.0), (16, 5.0)), (1.0, 2.0), ('even',)),
    'thin': Protocol(0.04, ((2, 10.0), (3, 8.0), (4, 5.0), (4, 10.0)), (1.0, 1.5), ('even',)),
}
# matrix and in-plane voxel size, mm: share; most are coarse for speed
MATRICES = {
    (128, 1.72): 0.78,
    (128, 1.8): 0.08,
    (160, 1.38): 0.06,
    (192, 1.15): 0.05,
    (256, 0.9): 0.03,
}
FRAMES = (18, 50)
MOST_INTERVAL_S = 2.8
# end of the scan after the arterial peak, s
SCAN_AFTER_PEAK_S = (25.0, 45.0)
TRUNCATED_AFTER_PEAK_S = (8.0, 20.0)
# latest arterial peak of a head without bolus traits, s
PLAIN_PEAK_S = 16.0
# contrast arrives after at least this time, s, and this many frames
ONSET_S = (4.0, 12.0)
ONSET_FRAMES = 2.2

# share of the heads that have a trait
SHARES = {
    'lesion_free': 0.25, 'no_core': 0.08, 'microangiopathy': 0.45, 'detailed_skull': 0.80,
    'averaged': 0.80, 'photon': 0.70, 'beam_hardening': 0.70, 'metal': 0.04, 'drift': 0.10,
    'calcifications': 0.35, 'old_infarct': 0.15, 'skull_defect': 0.04, 'extracranial_vessels': 0.50,
    'stripped': 0.04, 'slab_shift': 0.40, 'small_head': 0.15, 'truncated': 0.05, 'wide_bolus': 0.10,
    'still': 0.10, 'restless': 0.15, 'side_delay': 0.50,
}  # fmt: skip
SIDES = {'left': 0.485, 'right': 0.485, 'both': 0.03}
RESIDUES = {'exponential': 0.35, 'linear': 0.15, 'plateau': 0.15, 'gamma': 0.20, 'mixed': 0.15}
# uniform ranges unless noted otherwise, in the units of PhantomSettings
RANGES = {
    'noise_hu': (3.0, 9.0), 'motion_mm': (0.2, 2.0), 'restless_mm': (2.0, 3.0),
    'tilt_deg': (0.0, 15.0), 'asymmetry_mm': (2.0, 6.0), 'microangiopathy': (0.3, 1.0),
    'penumbra_ml': (20.0, 120.0), 'width_s': (6.0, 20.0), 'wide_bolus_s': (20.0, 28.0),
    'peak_hu': (180.0, 420.0), 'recirculation': (0.05, 0.25), 'plateau': (0.02, 0.10),
    'side_delay_s': (0.0, 1.5), 'side_dispersion_s': (0.0, 1.5), 'brain_hu': (-8.0, 8.0),
    'offset_hu': (-15.0, 15.0), 'core_hu': (1.0, 6.0), 'beam_hardening_hu': (2.0, 10.0),
    'drift_hu': (1.0, 4.0), 'old_infarct_ml': (3.0, 40.0), 'skull_defect_mm': (30.0, 90.0),
    'slab_shift_mm': (3.0, 25.0), 'size': (0.97, 1.04), 'small_size': (0.85, 0.97),
}  # fmt: skip
CORE_ML = (3.0, 120.0)  # log-uniform
WIDTH_MODE_S = 9.0  # of a triangular distribution over the range of width_s
# core and penumbra together, mL per mm of slab: a thin slab contains little of a large lesion
LESION_ML_PER_MM = 3.0
# the slab is not shifted towards the vertex if it is thicker, mm
MOST_SHIFTED_MM = 100.0
# slabs of real CTs are no higher, mm
REAL_COVERAGE_MM = 130.0
# traits that a real CT brings with it
REAL_TRAITS = (
    'skull', 'size', 'brain_hu', 'calcifications', 'skull_defect_mm', 'extracranial_vessels',
    'stripped',
)  # fmt: skip


class _Dice:
    """The random streams of one head, by the name of the trait."""

    def __init__(self, seed):
        self.seed = seed

    def rng(self, name):
        return np.random.default_rng([self.seed, zlib.crc32(name.encode())])

    def has(self, name):
        return bool(self.rng(name).random() < SHARES[name])

    def uniform(self, name, limits=None):
        return round(float(self.rng(f'{name} value').uniform(*(limits or RANGES[name]))), 3)

    def log_uniform(self, name, limits):
        return round(float(np.exp(self.rng(name).uniform(*np.log(limits)))), 2)

    def triangular(self, name, mode):
        low, high = RANGES[name]
        return round(float(self.rng(name).triangular(low, mode, high)), 3)

    def pick(self, name, choices):
        """Draw a key of a dict of shares, or an item of a sequence."""
        keys = list(choices)
        shares = np.array([choices[key] for key in keys]) if isinstance(choices, dict) else None
        p = None if shares is None else shares / shares.sum()
        return keys[int(self.rng(name).choice(len(keys), p=p))]

    def ranged(self, name, special, special_range):
        """Draw from `special_range` for heads that have the trait `special`."""
        return self.uniform(name, RANGES[special_range] if self.has(special) else None)


def draw(seed: int, kind: bool = False, anatomies: tuple[str, ...] = ()) -> PhantomSettings:
    """Draw one head.

    Parameters
    ----------
    seed : int
        The same seed gives the same head, whatever other heads are drawn.
    kind : bool
        Leave `HeadTraits`, `BolusTraits` and `ScanTraits` at their defaults.
    anatomies : tuple of str
        Paths of head CTs, used in turn; traits that a real CT brings with it keep their defaults.

    Returns
    -------
    PhantomSettings
    """
    dice = _Dice(seed)
    name = dice.pick('protocol', {key: protocol.share for key, protocol in PROTOCOLS.items()})
    protocol = PROTOCOLS[name]
    n_slices, thickness = dice.pick('slices', protocol.slices)
    matrix, in_plane = dice.pick('matrix', MATRICES)
    interval = dice.uniform('interval', protocol.interval_s)
    bolus = _draw_bolus(dice, interval)
    settings = PhantomSettings(
        seed=seed, matrix=matrix, voxel_size_mm=(in_plane, in_plane, thickness),
        n_slices=n_slices, frame_interval=interval, timing=dice.pick('timing', protocol.timings),
        noise_hu=dice.uniform('noise_hu'), motion_mm=_draw_motion(dice),
        tilt_deg=dice.uniform('tilt_deg'), asymmetry_mm=dice.uniform('asymmetry_mm'),
        microangiopathy=dice.uniform('microangiopathy') if dice.has('microangiopathy') else 0.0,
        residue=dice.pick('residue', RESIDUES), orientation='RAS',
        **_draw_lesion(dice, n_slices * thickness),
    )  # fmt: skip
    settings = _fit_scan(settings, dice, PLAIN_PEAK_S if kind else bolus.peak_time_s)
    if not kind:
        head = _draw_head(dice, n_slices * thickness)
        settings = replace(settings, head=head, bolus=bolus, scanner=_draw_scanner(dice))
    if anatomies:
        plain = HeadTraits()
        kept = {trait: getattr(plain, trait) for trait in REAL_TRAITS}
        path = str(anatomies[seed % len(anatomies)])
        n_slices = min(n_slices, int(REAL_COVERAGE_MM / thickness))
        settings = replace(settings, n_slices=n_slices)
        settings = replace(settings, anatomy=path, head=replace(settings.head, **kept))
    return settings


def protocol_of(seed: int) -> str:
    """Return the name of the protocol of a head, a key of `PROTOCOLS`."""
    shares = {key: protocol.share for key, protocol in PROTOCOLS.items()}
    return _Dice(seed).pick('protocol', shares)


def is_truncated(settings: PhantomSettings) -> bool:
    """Return whether the scan ends before the bolus has passed."""
    peak = settings.bolus.peak_time_s
    end = schedule_frames(settings)[0][-1]
    return bool(end < (PLAIN_PEAK_S if peak is None else peak) + SCAN_AFTER_PEAK_S[0])


def _draw_motion(dice):
    if dice.has('still'):
        return 0.0
    return dice.ranged('motion_mm', 'restless', 'restless_mm')


def _draw_lesion(dice, slab_mm):
    if dice.has('lesion_free'):
        return {'lesion': 'none'}
    core = 0.0 if dice.has('no_core') else dice.log_uniform('core_ml', CORE_ML)
    penumbra = dice.uniform('penumbra_ml')
    share = min(1.0, LESION_ML_PER_MM * slab_mm / (core + penumbra))
    core, penumbra = round(core * share, 2), round(penumbra * share, 2)
    nearest = min(LESIONS_ML, key=lambda name: abs(LESIONS_ML[name][0] - core))
    side = dice.pick('side', SIDES)
    return {'lesion': nearest, 'lesion_ml': (core, penumbra), 'lesion_side': side}


def _draw_bolus(dice, interval):
    width = dice.triangular('width_s', WIDTH_MODE_S)
    if dice.has('wide_bolus'):
        width = dice.uniform('wide_bolus_s')
    onset = max(dice.uniform('onset', ONSET_S), ONSET_FRAMES * interval)
    delayed = dice.has('side_delay')
    return BolusTraits(
        peak_hu=dice.uniform('peak_hu'),
        # a gamma variate of the third power rises for 1 / 1.404 of its width
        peak_time_s=round(onset + width / 1.404, 3), width_s=width,
        recirculation=dice.uniform('recirculation'), plateau=dice.uniform('plateau'),
        side_delay_s=dice.uniform('side_delay_s') if delayed else 0.0,
        side_dispersion_s=dice.uniform('side_dispersion_s') if delayed else 0.0,
    )  # fmt: skip


def _fit_scan(settings, dice, peak_time_s):
    """Choose the number of frames, and if need be the interval, so that the scan covers the bolus."""
    truncated = dice.has('truncated')
    after = dice.uniform('after peak', TRUNCATED_AFTER_PEAK_S if truncated else SCAN_AFTER_PEAK_S)
    wanted = peak_time_s + after

    def end(candidate):
        return float(schedule_frames(candidate)[0][-1])

    least, most = FRAMES
    for n_frames in range(least, most + 1):
        fitted = replace(settings, n_frames=n_frames)
        if end(fitted) >= wanted:
            return fitted
    longer = settings.frame_interval * wanted / end(fitted)
    return replace(fitted, frame_interval=min(round(longer + 5e-4, 3), MOST_INTERVAL_S))


def _draw_head(dice, slab_mm):
    def some(name, trait, nothing=0.0):
        return dice.uniform(name) if dice.has(trait) else nothing

    shifted = slab_mm <= MOST_SHIFTED_MM
    return HeadTraits(
        skull='detailed' if dice.has('detailed_skull') else 'smooth',
        size=dice.ranged('size', 'small_head', 'small_size'),
        slab_shift_mm=some('slab_shift_mm', 'slab_shift') if shifted else 0.0,
        brain_hu=dice.uniform('brain_hu'), core_hu=dice.uniform('core_hu'),
        calcifications=dice.has('calcifications'),
        old_infarct_ml=some('old_infarct_ml', 'old_infarct'),
        skull_defect_mm=some('skull_defect_mm', 'skull_defect'),
        extracranial_vessels=dice.has('extracranial_vessels'), stripped=dice.has('stripped'),
    )  # fmt: skip


def _draw_scanner(dice):
    drift = dice.uniform('drift_hu') * (1 if dice.rng('drift sign').random() < 0.5 else -1)
    return ScanTraits(
        slices='averaged' if dice.has('averaged') else 'interpolated',
        noise='photon' if dice.has('photon') else 'even',
        beam_hardening_hu=dice.uniform('beam_hardening_hu') if dice.has('beam_hardening') else 0.0,
        metal=dice.has('metal'), drift_hu=drift if dice.has('drift') else 0.0,
        offset_hu=dice.uniform('offset_hu'),
    )  # fmt: skip
