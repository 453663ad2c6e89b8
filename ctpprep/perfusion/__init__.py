# SPDX-License-Identifier: Apache-2.0
"""The science: arrays in, maps out.

`compute_maps` runs the whole chain with default settings. Its steps are `estimate_motion`,
`correct_motion`, `make_masks`, `find_vessels`, `estimate_maps`, `find_mirror`, `normalize` and
`segment`; `assess` grades the result. All take a `MethodSettings`. Arrays are canonical: the first
axis runs from left to right, the second from back to front, the third from feet to head, and time is
last.
"""

from ctpprep.perfusion.assessment import Graded, assess
from ctpprep.perfusion.chain import (
    Mirror,
    Relative,
    Result,
    compute_maps,
    find_mirror,
    normalize,
    segment,
)
from ctpprep.perfusion.custom import Deconvolver, Denoiser, Peaks
from ctpprep.perfusion.estimation import Maps, estimate_maps
from ctpprep.perfusion.input_functions import InputFunctions, find_vessels
from ctpprep.perfusion.lesions import Lesions
from ctpprep.perfusion.overrides import SuppliedCurves, SuppliedMask
from ctpprep.perfusion.preprocessing import (
    Corrected,
    Masks,
    correct_motion,
    estimate_motion,
    make_masks,
)

__all__ = [
    'Corrected',
    'Deconvolver',
    'Denoiser',
    'Graded',
    'InputFunctions',
    'Lesions',
    'Maps',
    'Masks',
    'Mirror',
    'Peaks',
    'Relative',
    'Result',
    'SuppliedCurves',
    'SuppliedMask',
    'assess',
    'compute_maps',
    'correct_motion',
    'estimate_maps',
    'estimate_motion',
    'find_mirror',
    'find_vessels',
    'make_masks',
    'normalize',
    'segment',
]
