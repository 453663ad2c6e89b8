# SPDX-License-Identifier: Apache-2.0
"""What can go wrong, as a tree.

::

    CtpprepError              one clear sentence; the command line prints it and exits with 1
    ├── UsageError            the call: an unknown option value, a folder that is not there; exits
    │                         with 2
    ├── SeriesError           the input: a file or field of one series cannot be used
    │   └── TimingError       no acquisition time can be had for the frames
    └── PerfusionError        the data: a stage has no sound result for this series
        ├── BolusError        no contrast arrives
        └── VesselError       no artery-like curve

A message says what was wrong, what was found, what is needed and what to do.
"""


class CtpprepError(Exception):
    """Root of all errors that ctpprep raises on purpose."""


class UsageError(CtpprepError):
    """The call cannot be carried out as given."""


class SeriesError(CtpprepError):
    """A file or field of one series cannot be used."""


class TimingError(SeriesError):
    """No acquisition time can be had for the frames of a series."""


class PerfusionError(CtpprepError):
    """A stage has no sound result for this series."""


class BolusError(PerfusionError):
    """No arrival of contrast is seen in the series."""


class VesselError(PerfusionError):
    """No artery-like (or vein-like) curve exists in the series."""
