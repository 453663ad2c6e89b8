# SPDX-License-Identifier: Apache-2.0
"""Faults that are planted between the stages of `compute_maps`, as a table.

A fault changes what one stage returns; the later stages compute from it. `plant` patches the stages of
`chain`: those before the fault return what they returned for the head without a fault.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
from scipy import ndimage

from ctpprep.exceptions import CtpprepError
from ctpprep.perfusion import assess, chain, compute_maps, grid, preprocessing
from ctpprep.perfusion.symmetry import OTHER_SIDE, SIDES
from ctpprep.settings import MethodSettings

# stage: where `chain` finds its function
STAGES = {
    'corrected': (preprocessing, 'correct_motion'),
    'masks': (preprocessing, 'make_masks'),
    'vessels': (chain, 'find_vessels'),
    'maps': (chain, 'estimate_maps'),
    'mirror': (chain, 'find_mirror'),
    'relative': (chain, 'normalize'),
    'lesions': (chain, 'segment'),
}


# the mirror does not depend on curves and maps, and takes longest
INDEPENDENT = {'vessels': ('mirror',), 'maps': ('mirror',)}


@dataclass(frozen=True)
class Head:
    """A head, its settings, and what the stages return for it without a fault."""

    ctp: np.ndarray
    times: np.ndarray
    affine: np.ndarray
    settings: MethodSettings
    result: Any
    registration: Any = None


@dataclass(frozen=True)
class Fault:
    """A fault: its name, the stage whose results it changes, and the change."""

    name: str
    stage: str
    change: Callable[[Any, Head], Any]


def prepare(phantom, settings, registration=None) -> Head:
    """Compute a head without a fault."""
    affine, times = np.asarray(phantom.affine), np.asarray(phantom.sample_times)
    size = grid.voxel_size_mm(affine)
    result = compute_maps(phantom.ctp, times, size, settings, affine, registration=registration)
    return Head(phantom.ctp, times, affine, settings, result, registration)


def plant(head: Head, fault: Fault):
    """Compute a head with a fault; raises what `compute_maps` raises."""
    names = list(STAGES)
    kept = (*names[: names.index(fault.stage)], *INDEPENDENT.get(fault.stage, ()))
    patches = [mock.patch.object(preprocessing, 'estimate_motion', return_value=(None, 0))]
    for name in (*kept, fault.stage):
        value = getattr(head.result, name)
        if name == fault.stage:
            value = fault.change(value, head)
        patches.append(mock.patch.object(*STAGES[name], return_value=value))
    for patch in patches:
        patch.start()
    try:
        return compute_maps(
            head.ctp, head.times, grid.voxel_size_mm(head.affine), head.settings, head.affine,
            registration=head.registration,
        )  # fmt: skip
    finally:
        mock.patch.stopall()


def caught_by(head: Head, fault: Fault) -> dict[str, Any]:
    """Return the checks that fail, with their figures, or the refusal; empty if the fault passes."""
    try:
        result = plant(head, fault)
    except CtpprepError as error:
        return {'refused': str(error)}
    grades = assess(result, head.settings)
    return {name: graded.figure for name, graded in grades.items() if graded.grade == 'fail'}


# -- helpers of the changes


def _affected(head):
    return head.result.relative.measured['affected_side']


def _side(head, which):
    side = _affected(head) if which == 'affected' else OTHER_SIDE[_affected(head)]
    return head.result.mirror.hemispheres == SIDES[side]


def _shift(volume, head, millimetres, axis=1):
    steps = round(millimetres / grid.voxel_size_mm(head.result.affine)[axis])
    return np.roll(volume, steps, axis=axis)


def _smooth(volume, head, fwhm=20.0):
    tissue = head.result.masks.tissue
    sigma = fwhm / 2.355 / np.asarray(grid.voxel_size_mm(head.result.affine))
    weight = ndimage.gaussian_filter(tissue.astype(np.float32), sigma)
    smooth = ndimage.gaussian_filter(np.where(tissue, volume, 0), sigma)
    return np.where(tissue, smooth / np.maximum(weight, 1e-6), 0).astype(np.float32)


def _with_nan(volume, share=0.2):
    holes = np.random.default_rng(0).random(volume.shape) < share
    return np.where(holes & (volume != 0), np.nan, volume)


def _maps(**changes):
    def change(maps, head):
        return replace(maps, **{name: f(maps, head) for name, f in changes.items()})

    return change


def _each(names, function):
    return _maps(
        **{name: lambda maps, head, n=name: function(getattr(maps, n), head) for name in names}
    )


def _relative(**changes):
    def change(relative, head):
        return replace(relative, **{name: f(relative, head) for name, f in changes.items()})

    return change


def _masks(function, names=('brain', 'tissue', 'pure', 'csf', 'vessels')):
    def change(masks, head):
        kept = function(masks, head)
        return replace(masks, **{name: getattr(masks, name) & kept for name in names})

    return change


def _frames(order):
    """Exchange frames of the series."""

    def change(corrected, head):
        ctp = corrected.ctp
        return replace(corrected, ctp=ctp[..., order(head, ctp.shape[-1])])

    return change


def _reversed_at(peak_of, count=4):
    def order(head, n_frames):
        frames = np.arange(n_frames)
        top = int(np.argmax(getattr(head.result.vessels, peak_of)))
        part = slice(top - count // 2, top - count // 2 + count)
        frames[part] = frames[part][::-1]
        return frames

    return order


def _swapped_upslope(head, n_frames):
    frames = np.arange(n_frames)
    top = int(np.argmax(head.result.vessels.aif))
    frames[[top - 1, top - 2]] = frames[[top - 2, top - 1]]
    return frames


def _late_slices(corrected, head, seconds=4.0):
    times = head.times if head.times.ndim == 1 else head.times.mean(axis=0)
    ctp = corrected.ctp.copy()
    upper = slice(ctp.shape[2] // 2, None)
    index = np.clip(np.searchsorted(times, times - seconds), 0, len(times) - 1)
    ctp[:, :, upper] = ctp[:, :, upper][..., index]
    return replace(corrected, ctp=ctp)


def _scaled_side(corrected, head, factor=0.6):
    ctp, side = corrected.ctp.copy(), _side(head, 'other')
    before = ctp[side][:, : head.result.masks.n_baseline].mean(axis=1, keepdims=True)
    ctp[side] = before + factor * (ctp[side] - before)
    return replace(corrected, ctp=ctp)


def _repeated_frames(head, n_frames):
    frames = np.arange(n_frames)
    top = int(np.argmax(head.result.vessels.aif))
    frames[top - 1 : top + 4] = top - 1
    return frames


def _eroded(masks, head, millimetres=15.0):
    size = grid.voxel_size_mm(head.result.affine)
    kept = np.zeros(masks.brain.shape, bool)
    for z in range(kept.shape[2]):
        kept[..., z] = ndimage.distance_transform_edt(masks.brain[..., z], size[:2]) > millimetres
    return kept


def _without_back(masks, head):
    where = np.nonzero(masks.brain)[1]
    return np.broadcast_to(
        (np.arange(masks.brain.shape[1]) > np.percentile(where, 25))[None, :, None],
        masks.brain.shape,
    )


def _curves(function, which='aif'):
    """Change a curve of the vessels."""

    def change(vessels, head):
        return replace(vessels, **{which: function(vessels)})

    return change


def _stretch(about):
    def function(vessels):
        times, aif = vessels.times, vessels.aif
        start = (
            times[np.argmax(aif)] if about == 'peak' else times[np.argmax(aif > 0.05 * aif.max())]
        )
        return np.interp(start + (times - start) / 2, times, aif)

    return function


def _moved(seconds):
    return lambda v: np.interp(v.times - seconds, v.times, v.aif)


def _mirror(function):
    """Change the hemispheres."""
    return lambda mirror, head: replace(mirror, hemispheres=function(mirror.hemispheres, head))


def _homologues(function):
    """Change the homologues as they are stored."""

    def change(mirror, head):
        found = mirror.registration
        best = SimpleNamespace(
            **vars(found.best) | {'homologues': function(found.best.homologues, head)}
        )
        return replace(mirror, registration=SimpleNamespace(**vars(found) | {'best': best}))

    return change


def _swap_upper(sides, head):
    swapped = sides.copy()
    upper = slice(sides.shape[2] // 2, None)
    swapped[..., upper] = np.where(sides[..., upper] > 0, 3 - sides[..., upper], 0)
    return swapped


def _lesions(function):
    """Change the masks of the lesions."""
    return lambda lesions, head: replace(
        lesions, masks=lesions.masks | function(lesions.masks, head)
    )


def _measured(**changes):
    def change(relative, head):
        facts = {name: f(relative.measured) for name, f in changes.items()}
        return replace(relative, measured=relative.measured | facts)

    return change


def _threshold(name, other):
    """Segment with another threshold."""

    def function(masks, head):
        settings = head.settings.change(**{name: other})
        result = head.result
        return chain.segment(
            result.maps.tmax, result.relative, result.masks.tissue, result.mirror.hemispheres,
            grid.voxel_size_mm(result.affine), settings,
        ).masks  # fmt: skip

    return function


FLOW = ('cbf', 'cbv', 'mtt', 'tmax', 'ttp')
FAULTS = (
    # -- series
    Fault('four frames reversed at the peak of tissue', 'corrected', _frames(_reversed_at('tissue'))),
    Fault('four frames reversed at the peak of the AIF', 'corrected', _frames(_reversed_at('aif'))),
    Fault('two frames of the upslope exchanged', 'corrected', _frames(_swapped_upslope)),
    Fault('all frames reversed', 'corrected', _frames(lambda head, n: np.arange(n)[::-1])),
    Fault('the upslope four times at the peak', 'corrected', _frames(_repeated_frames)),
    Fault('upper slices late by 4 s', 'corrected', _late_slices),
    Fault('enhancement of the unaffected side x 0.6', 'corrected', _scaled_side),
    Fault('enhancement of the series inverted', 'corrected', lambda c, h: replace(
        c, ctp=2 * c.ctp[..., :1] - c.ctp)),
    # -- masks
    Fault('brain eroded by 15 mm', 'masks', _masks(_eroded)),
    Fault('brain without its back', 'masks', _masks(_without_back)),
    Fault('brain without the unaffected side', 'masks', _masks(lambda m, h: _side(h, 'affected'))),
    Fault('brain without the affected side', 'masks', _masks(lambda m, h: _side(h, 'other'))),
    Fault('half of the tissue at random', 'masks', _masks(
        lambda m, h: np.random.default_rng(0).random(m.tissue.shape) < 0.5, ('tissue', 'pure'))),
    Fault('tissue shifted by 12 mm', 'masks', lambda m, h: replace(
        m, tissue=_shift(m.tissue, h, 12), pure=_shift(m.pure, h, 12))),
    Fault('CSF in place of tissue', 'masks', lambda m, h: replace(
        m, tissue=m.csf, pure=m.csf & m.brain)),
    # -- curves
    Fault('AIF widened by 2 about its peak', 'vessels', _curves(_stretch('peak'))),
    Fault('AIF widened by 2 about its arrival', 'vessels', _curves(_stretch('arrival'))),
    Fault('AIF late by 6 s', 'vessels', _curves(_moved(6.0))),
    Fault('AIF early by 8 s', 'vessels', _curves(_moved(-8.0))),
    Fault('AIF is ten times tissue', 'vessels', _curves(lambda v: 10 * v.tissue)),
    Fault('AIF is the VOF', 'vessels', _curves(lambda v: v.vof)),
    Fault('AIF reversed in time', 'vessels', _curves(lambda v: v.aif[::-1].copy())),
    Fault('AIF with 30 % of its peak before contrast', 'vessels', _curves(
        lambda v: v.aif + 0.3 * v.aif.max())),
    Fault('AIF x 0.1', 'vessels', _curves(lambda v: 0.1 * v.aif)),
    Fault('AIF of noise', 'vessels', _curves(
        lambda v: 50 * np.random.default_rng(0).standard_normal(v.aif.size))),
    # -- maps
    Fault('CBF constant', 'maps', _maps(cbf=lambda m, h: np.where(m.cbf > 0, 50.0, 0))),
    Fault('CBF, CBV and MTT constant', 'maps', _maps(
        cbf=lambda m, h: np.where(m.cbf > 0, 60.0, 0), cbv=lambda m, h: np.where(m.cbf > 0, 4.0, 0),
        mtt=lambda m, h: np.where(m.cbf > 0, 4.0, 0))),
    Fault('root of CBF', 'maps', _maps(cbf=lambda m, h: np.sqrt(m.cbf))),
    Fault('root of CBF and CBV, MTT from both', 'maps', _maps(
        cbf=lambda m, h: 7 * np.sqrt(m.cbf), cbv=lambda m, h: 2 * np.sqrt(m.cbv),
        mtt=lambda m, h: np.divide(120 * np.sqrt(m.cbv), 7 * np.sqrt(m.cbf), out=0 * m.cbf,
                                   where=m.cbf > 0))),
    Fault('CBV in place of CBF', 'maps', _maps(cbf=lambda m, h: m.cbv)),
    Fault('CBV in place of CBF, MTT from both', 'maps', _maps(
        cbf=lambda m, h: m.cbv, mtt=lambda m, h: np.where(m.cbv > 0, 60.0, 0))),
    Fault('all maps smoothed by 20 mm', 'maps', _each(FLOW, _smooth)),
    Fault('CBF smoothed by 20 mm', 'maps', _each(('cbf',), _smooth)),
    Fault('Tmax smoothed by 20 mm', 'maps', _each(('tmax',), _smooth)),
    Fault('CBF of the affected side x 0.6', 'maps', _maps(
        cbf=lambda m, h: np.where(_side(h, 'affected'), 0.6 * m.cbf, m.cbf))),
    Fault('CBF of the unaffected side x 0.6', 'maps', _maps(
        cbf=lambda m, h: np.where(_side(h, 'other'), 0.6 * m.cbf, m.cbf))),
    Fault('CBF and CBV of the unaffected side x 0.6', 'maps', _each(
        ('cbf', 'cbv'), lambda v, h: np.where(_side(h, 'other'), 0.6 * v, v))),
    Fault('20 % NaN in CBF', 'maps', _each(('cbf',), lambda v, h: _with_nan(v))),
    Fault('20 % NaN in Tmax', 'maps', _each(('tmax',), lambda v, h: _with_nan(v))),
    Fault('infinite MTT where flow is low', 'maps', _maps(
        mtt=lambda m, h: np.where(m.cbf < 0.5 * np.median(m.cbf[m.cbf > 0]), np.inf, m.mtt))),
    Fault('Tmax constant', 'maps', _maps(tmax=lambda m, h: np.where(m.cbf > 0, 2.0, 0))),
    Fault('Tmax in ms', 'maps', _maps(tmax=lambda m, h: 1000 * m.tmax)),
    Fault('Tmax in tenths of a second', 'maps', _maps(tmax=lambda m, h: 10 * m.tmax)),
    Fault('Tmax x 2', 'maps', _maps(tmax=lambda m, h: 2 * m.tmax)),
    Fault('Tmax x 0.5', 'maps', _maps(tmax=lambda m, h: 0.5 * m.tmax)),
    Fault('Tmax + 4 s', 'maps', _maps(tmax=lambda m, h: m.tmax + 4 * (m.cbf > 0))),
    Fault('TTP in place of Tmax', 'maps', _maps(tmax=lambda m, h: m.ttp)),
    Fault('MTT in place of Tmax', 'maps', _maps(tmax=lambda m, h: m.mtt)),
    Fault('MTT in minutes', 'maps', _maps(mtt=lambda m, h: m.mtt / 60)),
    Fault('all maps mirrored', 'maps', _each(FLOW, lambda v, h: v[::-1].copy())),
    Fault('Tmax mirrored', 'maps', _each(('tmax',), lambda v, h: v[::-1].copy())),
    Fault('CBF shifted by 12 mm', 'maps', _each(('cbf',), lambda v, h: _shift(v, h, 12))),
    Fault('slices of all maps in reverse order', 'maps', _each(FLOW, lambda v, h: v[..., ::-1].copy())),
    # -- hemispheres and homologues
    Fault('hemispheres exchanged', 'mirror', _mirror(lambda s, h: np.where(s > 0, 3 - s, 0))),
    Fault('hemispheres of the upper slices exchanged', 'mirror', _mirror(_swap_upper)),
    Fault('front and back in place of left and right', 'mirror', _mirror(
        lambda s, h: np.where(s > 0, 1 + (np.indices(s.shape)[1] > s.shape[1] / 2), 0))),
    Fault('homologues shifted by 15 mm', 'mirror', _homologues(lambda p, h: p + [0, 15.0, 0])),
    Fault('homologues on the same side', 'mirror', _homologues(
        lambda p, h: chain.homologues.symmetry.world_coordinates(p.shape[:3], h.result.affine))),
    # -- relative maps
    Fault('global map in percent', 'relative', _relative(rcbf_global=lambda r, h: 100 * r.rcbf_global)),
    Fault('local map in percent', 'relative', _relative(rcbf_local=lambda r, h: 100 * r.rcbf_local)),
    Fault('reference x 1.5', 'relative', _relative(
        rcbf_global=lambda r, h: r.rcbf_global / 1.5, rcbf_local=lambda r, h: r.rcbf_local / 1.5,
        measured=lambda r, h: r.measured | {'cbf_reference': 1.5 * r.measured['cbf_reference']})),
    Fault('global map in place of the local one', 'relative', _relative(
        rcbf_local=lambda r, h: r.rcbf_global)),
    Fault('global and local map exchanged', 'relative', _relative(
        rcbf_local=lambda r, h: r.rcbf_global, rcbf_global=lambda r, h: r.rcbf_local)),
    Fault('relative CBV in place of relative CBF', 'relative', _relative(
        rcbf_global=lambda r, h: r.rcbv_global, rcbf_local=lambda r, h: r.rcbv_local)),
    Fault('root of the global map', 'relative', _relative(
        rcbf_global=lambda r, h: np.sqrt(r.rcbf_global))),
    Fault('global map mirrored', 'relative', _relative(
        rcbf_global=lambda r, h: r.rcbf_global[::-1].copy())),
    Fault('affected side exchanged', 'relative', _measured(
        affected_side=lambda m: OTHER_SIDE[m['affected_side']])),
    Fault('local map x 0.6', 'relative', _relative(rcbf_local=lambda r, h: 0.6 * r.rcbf_local)),
    # -- lesions
    Fault('cores exchanged', 'lesions', _lesions(lambda m, h: {
        'core_global': m['core_local'], 'core_local': m['core_global']})),
    Fault('lesions shifted by 12 mm', 'lesions', _lesions(lambda m, h: {
        name: _shift(mask, h, 12) for name, mask in m.items()})),
    Fault('lesions mirrored', 'lesions', _lesions(lambda m, h: {
        name: mask[::-1].copy() for name, mask in m.items()})),
    Fault('core empty', 'lesions', _lesions(lambda m, h: {'core_global': m['core_global'] & False})),
    Fault('mismatch is hypoperfusion', 'lesions', _lesions(lambda m, h: {
        'mismatch_global': m['hypoperfusion']})),
    Fault('core below 45 %', 'lesions', _lesions(_threshold('core_rcbf', 0.45))),
    Fault('hypoperfusion above 4 s', 'lesions', _lesions(_threshold('hypoperfusion_tmax', 4.0))),
    Fault('hypoperfusion dilated by 5 mm', 'lesions', _lesions(lambda m, h: {
        'hypoperfusion': ndimage.binary_dilation(m['hypoperfusion'], iterations=2)})),
)  # fmt: skip
