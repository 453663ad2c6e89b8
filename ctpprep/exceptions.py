# SPDX-License-Identifier: Apache-2.0
"""The errors that ctpprep raises, as a tree.

::

    CtpprepError              one sentence; the command line prints it and exits with 1
    ├── UsageError            the call: an unknown option value, a folder that does not exist;
    │                         exits with 2
    ├── SeriesError           the input: a file or field of one series cannot be used
    │   └── TimingError       the frames have no valid acquisition times
    └── PerfusionError        the data: a stage has no valid result for this series
        ├── BolusError        no contrast bolus
        └── VesselError       no artery-like curve

A message names the file and the field, what was found, what is needed and what to do.
"""


class CtpprepError(Exception):
    """Base class of all errors that ctpprep raises deliberately."""


class UsageError(CtpprepError):
    """The call cannot be executed as written."""


class SeriesError(CtpprepError):
    """A file or field of one series cannot be used."""


class TimingError(SeriesError):
    """The frames of a series have no valid acquisition times."""


class PerfusionError(CtpprepError):
    """A stage has no valid result for this series."""


class BolusError(PerfusionError):
    """The series contains no contrast bolus."""


class VesselError(PerfusionError):
    """The series contains no artery-like (or vein-like) curve."""


def explain(error: BaseException) -> str:
    """Describe an error in one line, for the participant whose files raised it.

    Parameters
    ----------
    error : BaseException
        An error of ctpprep, or any other, of a library or the system.

    Returns
    -------
    str

    Examples
    --------
    >>> explain(SeriesError('the file is truncated'))
    'the file is truncated'
    >>> explain(OverflowError('int too large'))
    'unexpected OverflowError (int too large); please report it with the file'
    """
    if isinstance(error, CtpprepError):
        return str(error)
    if isinstance(error, PermissionError):
        return f'{error.filename} may not be read ({error.strerror}); change its permissions'
    message = ' '.join(str(error).split())[:300]
    return f'unexpected {type(error).__name__} ({message}); please report it with the file'
