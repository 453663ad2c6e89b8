# SPDX-License-Identifier: Apache-2.0
"""User functions that replace a stage: their signatures, checks and digests."""

import hashlib
import importlib
import inspect
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from ctpprep.exceptions import UsageError
from ctpprep.perfusion.kinetics import convolve_input, exponential_residue
from ctpprep.settings import FUNCTION

# known curves for the check of a deconvolution: flow in 1/s, delays and transit time in s
CHECK_FLOW = 0.01
CHECK_DELAYS = (0.0, 4.0)
CHECK_MTT = 4.0
# largest allowed error of a deconvolution: factor of flow, and difference of delay in s
FLOW_FACTOR = 3.0
DELAY_ERROR = 3.0
# a regularized residue function of tissue without delay has its maximum by this time, s
MAX_TIME = 5.0


class Peaks(NamedTuple):
    """The maximum of the flow-scaled residue function of each voxel.

    Attributes
    ----------
    height : (V,) array
        Maximum of k(t), 1/s.
    time : (V,) array
        Time of the maximum since the AIF, s: Tmax.
    """

    height: np.ndarray
    time: np.ndarray


class Denoiser(Protocol):
    """Signature of a user function that replaces the denoising."""

    def __call__(
        self,
        curves: np.ndarray,
        times: np.ndarray,
        tissue_mask: np.ndarray,
        pure_mask: np.ndarray,
        voxel_size_mm: np.ndarray,
    ) -> np.ndarray:
        """Denoise the curves of slices that share their sample times.

        Parameters
        ----------
        curves : (V, T) array of float32
            Enhancement of the voxels of `tissue_mask`, HU above baseline; usable frames.
        times : (T,) array
            s.
        tissue_mask, pure_mask : (X, Y, Z) arrays of bool
            Tissue, and the part of it away from vessels and bone. Slices with other sample times are
            excluded.
        voxel_size_mm : (3,) array

        Returns
        -------
        (V, T) array
        """


class Deconvolver(Protocol):
    """Signature of a user function that replaces the deconvolution."""

    def __call__(
        self, curves: np.ndarray, times: np.ndarray, aif_times: np.ndarray, aif: np.ndarray
    ) -> Peaks:
        """Deconvolve the curves of voxels that share their sample times.

        Parameters
        ----------
        curves : (V, T) array of float32
            Denoised enhancement, HU above baseline; usable frames.
        times : (T,) array
            s.
        aif_times, aif : (M,) arrays
            Times on the same clock, s, and enhancement, HU.

        Returns
        -------
        Peaks
            Or any pair of (V,) arrays: height in 1/s and time in s.
        """


def load_function(name):
    """Import a user function.

    Parameters
    ----------
    name : str
        ``MODULE:FUNCTION``.

    Returns
    -------
    callable

    Raises
    ------
    UsageError
        If it cannot be imported.

    Examples
    --------
    >>> load_function('math:hypot')(3, 4)
    5.0
    """
    module_name, _, function_name = name.partition(':')
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except Exception as error:  # whatever the user's module raises
        reason = f'{type(error).__name__}: {error}'
        raise UsageError(
            f'{name} cannot be imported ({reason}); put its module in the current folder or in a '
            'folder of PYTHONPATH'
        ) from error
    if not callable(function):
        raise UsageError(f'{name} is a {type(function).__name__}, need a function')
    return function


def resolve(choice):
    """Return the function of a setting or argument: a callable, ``MODULE:FUNCTION``, or None.

    Parameters
    ----------
    choice : str or callable

    Returns
    -------
    callable or None
        None if the choice is a built-in method.
    """
    if callable(choice):
        return choice
    return load_function(choice) if FUNCTION.fullmatch(choice) else None


def refuse_unknown(argument):
    """Refuse an argument that is neither a function nor names one: it would be ignored silently.

    Parameters
    ----------
    argument : object

    Raises
    ------
    UsageError
    """
    if argument is None or callable(argument):
        return
    if not (isinstance(argument, str) and FUNCTION.fullmatch(argument)):
        raise UsageError(
            f'{argument!r} is not a function, need a callable or MODULE:FUNCTION; built-in methods '
            'are chosen in the settings'
        )


def checked(stage, values, shape):
    """Return what a user function computed, or refuse it.

    Parameters
    ----------
    stage : str
        For messages.
    values : object
        Result of the function.
    shape : tuple of int

    Returns
    -------
    array of float

    Raises
    ------
    UsageError
        If the shape is another one, or a value is not finite.
    """
    array = np.asarray(values, dtype=float)
    if array.shape != shape or not np.isfinite(array).all():
        raise UsageError(
            f'{stage}: the user function returned values of shape {array.shape}, need finite values '
            f'of shape {shape}'
        )
    return array


def source_digest(name):
    """Return the SHA-256 of the source file of a user function.

    Parameters
    ----------
    name : str
        ``MODULE:FUNCTION``.

    Returns
    -------
    str
    """
    function = inspect.unwrap(load_function(name))
    try:
        source = Path(inspect.getsourcefile(function)).read_bytes()
    except (OSError, TypeError) as error:
        raise UsageError(
            f'{name} has no source file, need a function in a Python file, whose changes ctpprep '
            'can detect'
        ) from error
    return hashlib.sha256(source).hexdigest()


def digests(settings):
    """Return the digests of the user functions in the settings.

    Parameters
    ----------
    settings : MethodSettings

    Returns
    -------
    dict of str to str
        By ``MODULE:FUNCTION``; empty for built-in methods.
    """
    names = (settings.denoising.denoise, settings.deconvolution.deconvolution_method)
    return {name: source_digest(name) for name in names if FUNCTION.fullmatch(name)}


def check_functions(settings):
    """Check the user functions in the settings on small known curves.

    Parameters
    ----------
    settings : MethodSettings

    Raises
    ------
    UsageError
        If a function cannot be imported, raises an error, or does not return what its protocol
        requires.
    """
    for name, check in (
        (settings.denoising.denoise, check_denoiser),
        (settings.deconvolution.deconvolution_method, check_deconvolver),
    ):
        if FUNCTION.fullmatch(name):
            check(load_function(name), name)


def check_deconvolver(function, name='the deconvolution'):
    """Check a user deconvolution on two curves of known flow and delay.

    Parameters
    ----------
    function : Deconvolver
    name : str
        For messages.

    Raises
    ------
    UsageError
        If it raises an error, or if shapes, flow or delay are wrong.
    """
    times, aif = _known_input()
    curves = [_known_curve(times, aif, delay) for delay in CHECK_DELAYS]
    peaks = _call(function, name, np.array(curves, np.float32), times, times, aif)
    try:
        height, time = (np.asarray(part, dtype=float) for part in peaks)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f'{name} returned {type(peaks).__name__}, need a pair of arrays: height (1/s) and time '
            '(s) of the maximum of k(t)'
        ) from error
    for part, array in (('height', height), ('time', time)):
        if array.shape != (len(curves),) or not np.isfinite(array).all():
            raise UsageError(
                f'{name} returned a {part} of shape {array.shape}, need finite values of shape '
                f'({len(curves)},)'
            )
    wrong = (height > CHECK_FLOW * FLOW_FACTOR) | (height < CHECK_FLOW / FLOW_FACTOR)
    if wrong.any():
        raise UsageError(
            f'{name} returned a flow of {height[wrong][0]:.3g} 1/s for a noise-free curve of '
            f'{CHECK_FLOW:g} 1/s, need at most {FLOW_FACTOR:g} times more or less; check the units'
        )
    if abs(time[0]) > MAX_TIME:
        raise UsageError(
            f'{name} returned a time of {time[0]:.3g} s for tissue without delay, need at most '
            f'{MAX_TIME:g} s; return the time of the maximum in s since the AIF'
        )
    difference = float(time[1] - time[0])
    if abs(difference - (CHECK_DELAYS[1] - CHECK_DELAYS[0])) > DELAY_ERROR:
        raise UsageError(
            f'{name} returned times {difference:.3g} s apart for curves {CHECK_DELAYS[1]:g} s apart, '
            f'need an error of at most {DELAY_ERROR:g} s; return the time of the maximum in s since '
            'the AIF'
        )


def check_denoiser(function, name='the denoising'):
    """Check that a user denoising returns finite curves of the same shape.

    Parameters
    ----------
    function : Denoiser
    name : str
        For messages.

    Raises
    ------
    UsageError
        If it raises an error, or if its result has another shape or is not finite.
    """
    times, aif = _known_input()
    mask = np.ones((6, 6, 2), dtype=bool)
    curves = np.tile(0.05 * aif, (mask.sum(), 1)).astype(np.float32)
    curves += np.random.default_rng(0).normal(size=curves.shape).astype(np.float32)
    denoised = _call(function, name, curves.copy(), times, mask, mask, np.array([2.0, 2.0, 5.0]))
    denoised = np.asarray(denoised)
    if denoised.shape != curves.shape or not np.isfinite(denoised).all():
        raise UsageError(
            f'{name} returned curves of shape {denoised.shape}, need finite values of shape '
            f'{curves.shape}'
        )


def _known_input():
    """Return times (s) and an arterial curve (HU)."""
    times = np.arange(0.0, 45.0, 1.5)
    since = np.clip((times - 6.0) / 4.0, 0, None)
    return times, 250.0 * (since * np.exp(1 - since)) ** 2


def _known_curve(times, aif, delay):
    """Return the curve of tissue with a known flow, transit time and delay, HU."""

    def residue(tau):
        return CHECK_FLOW * exponential_residue(tau - delay, CHECK_MTT)

    return convolve_input(times, aif, residue, times)


def _call(function, name, *arguments):
    try:
        return function(*arguments)
    except Exception as error:
        reason = f'{type(error).__name__}: {error}'
        raise UsageError(
            f'{name} failed on a small known curve ({reason}); correct the function'
        ) from error
