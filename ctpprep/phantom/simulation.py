# SPDX-License-Identifier: Apache-2.0
"""One phantom from its settings: draw a head, scan it and keep the truth."""

from dataclasses import dataclass, replace

import numpy as np

from ctpprep.phantom.artefacts import draw_metal, place_clip
from ctpprep.phantom.curves import CurveTable, draw_bolus
from ctpprep.phantom.geometry import Grid, draw_shape
from ctpprep.phantom.head import build_head
from ctpprep.phantom.patient import load_patient
from ctpprep.phantom.patient_head import PatientGrid, build_patient_head
from ctpprep.phantom.physiology import draw_lesions, draw_old_infarct, draw_variation
from ctpprep.phantom.scanner import draw_motion, scan, schedule_frames
from ctpprep.phantom.settings import PhantomSettings
from ctpprep.phantom.truth import average_truth, mirror_truth

_STREAMS = (
    'shape', 'physiology', 'lesion', 'bolus', 'motion', 'noise', 'old_infarct', 'metal', 'skull',
)  # fmt: skip


@dataclass(frozen=True)
class Phantom:
    """A scanned head and its truth on the acquired grid, with axes as in `settings.orientation`.

    Attributes
    ----------
    settings : PhantomSettings
    ctp : (X, Y, Z, T) int16 array
        HU.
    affine : (4, 4) array
        Voxel index to patient RAS, mm.
    frame_times : (T,) array
        Start of each frame, s.
    sample_times : (Z, T) array
        Acquisition time of each slice in each frame, s.
    times_fine, aif, vof : (N,) array
        s and HU of enhancement; undiluted curves at 0.05 s.
    truth : dict of arrays
        In the pose of frame 0. ``cbf`` mL/100 g/min, ``cbv`` mL/100 g, ``mtt`` s, ``delay`` s
        relative to the AIF: means over the brain tissue in the voxel, 0 without tissue (the
        amplitude of the voxel's curve is ``tissue * cbf``). ``tissue``, ``vessel``: fractions
        of the voxel. Masks, by majority: ``brain`` (with sulci and ventricles, without the outer
        CSF rim), ``csf`` (with the rim), and, of the tissue in the voxel, ``core``,
        ``penumbra``, ``hypoperfusion`` (delay > 6 s), ``microangiopathy``, and ``old_infarct``,
        which is CSF, if there is one. ``side``: 1 left,
        2 right of the bent midline, 0 outside the brain. ``homologue`` (X, Y, Z, 3): patient
        RAS of the mirror homologue, mm; NaN outside the brain and where the homologue is
        outside the slab.
    motion : (T, 6) array
        Shift along x, y, z (mm) and rotation about x, y, z (rad), see
        :func:`ctpprep.phantom.scanner.frame_affine`.
    frame_affines : (T, 4, 4) array
        Maps the position of a point in frame 0 to that in frame t, patient RAS.
    """

    settings: PhantomSettings
    ctp: np.ndarray
    affine: np.ndarray
    frame_times: np.ndarray
    sample_times: np.ndarray
    times_fine: np.ndarray
    aif: np.ndarray
    vof: np.ndarray
    truth: dict[str, np.ndarray]
    motion: np.ndarray
    frame_affines: np.ndarray


def make_phantom(settings: PhantomSettings) -> Phantom:
    """Draw a head and scan it.

    The result depends on the settings alone. It takes about 10 s and 0.5 GB for
    128 x 128 x 20 x 27 voxels.
    """
    rngs = dict(
        zip(_STREAMS, np.random.default_rng(settings.seed).spawn(len(_STREAMS)), strict=True)
    )
    patient = load_patient(settings.anatomy) if settings.anatomy else None
    grid = PatientGrid(settings, patient) if patient else Grid(settings)
    shape = patient.shape if patient else draw_shape(settings, rngs['shape'])
    variation = draw_variation(settings, rngs['physiology'], rngs['skull'])
    old_infarct = draw_old_infarct(settings, rngs['old_infarct'], grid, shape)
    lesions = draw_lesions(settings, rngs['lesion'], grid, shape, old_infarct)
    metal = None
    if settings.scanner.metal:
        clip = shape.to_patient(place_clip(-settings.slow_sign)[:, None])[:, 0]
        metal = draw_metal(rngs['metal'], clip)
    frame_times, sample_times = schedule_frames(settings)
    bolus = draw_bolus(rngs['bolus'], settings.bolus, sample_times.max())
    motion = draw_motion(settings, rngs['motion'], frame_times, grid.centre)

    planted = variation, lesions, old_infarct, metal
    if patient:
        head = build_patient_head(settings, grid, patient, *planted)
    else:
        head = build_head(settings, grid, shape, *planted)
    table = CurveTable(bolus, settings.residue)
    ctp = scan(head, grid, table, sample_times, motion, settings, rngs['noise'])
    truth = average_truth(head, grid)
    truth |= mirror_truth(truth['brain'], grid, shape)
    phantom = Phantom(
        settings, ctp, grid.affine, frame_times, sample_times, bolus.times, bolus.aif, bolus.vof,
        truth, motion.parameters, motion.affines,
    )  # fmt: skip
    return _reorient(phantom)


def _reorient(phantom: Phantom) -> Phantom:
    """Flip the RAS arrays to the orientation of the settings."""
    settings = phantom.settings
    flips = [axis for axis in range(3) if settings.orientation[axis] != 'RAS'[axis]]
    affine = phantom.affine.copy()
    for axis in flips:
        n = phantom.ctp.shape[axis]
        affine[:3, 3] += affine[:3, axis] * (n - 1)
        affine[:3, axis] *= -1
    times = phantom.sample_times[::-1] if 2 in flips else phantom.sample_times
    truth = {
        name: np.ascontiguousarray(np.flip(value, flips)) for name, value in phantom.truth.items()
    }
    return replace(
        phantom, ctp=np.flip(phantom.ctp, flips), affine=affine, sample_times=times, truth=truth
    )
