# SPDX-License-Identifier: Apache-2.0
"""Digital heads with known perfusion, and BIDS data sets made of them.

One call, :func:`~ctpprep.phantom.simulation.make_phantom`, draws a head, scans it and keeps the
truth. The steps:

1. **Anatomy.** Grey- and white-matter maps of the symmetric ICBM152 template [1]_, as shipped
   inside nilearn (no download), with skull, scalp, CSF, arteries and sinuses added. A smooth
   asymmetric deformation and a random pose make the midline bent and oblique.
2. **Physiology.** CBF, CBV and delay of each tissue, with a smooth variation; optionally
   microangiopathy (both sides, deep white matter) and an infarct in one MCA territory or in both.
3. **Curves.** ``c = rho/k_H * CBF/6000 * (AIF (x) R)(t - delay)``, integrated at 0.05 s [2]_.
4. **Scan.** Each slice of each frame at its own time, in the pose of that frame; averaged over
   the voxel from a finer grid, blurred in plane, plus correlated noise, rounded to int16.

The phantom tests the deconvolution, so it shares no code with it. Positions in this package are
``(3, N)`` arrays in mm. *Template* positions are MNI coordinates of the symmetric template;
*patient* positions are RAS coordinates of the scanner, head in the pose of frame 0.

::

    settings     what is drawn and how it is scanned
    simulation   the steps in their order; the finished phantom
    fields       scalar fields on regular grids
    geometry     voxels, pose and bending
    anatomy      the template: tissue, skull, ventricles
    vessels      arteries, veins, sinuses, clot
    physiology   flow, volume, delay; microangiopathy and infarct
    skull        bone and soft tissue around the brain
    head         all of them on the fine grid, in HU
    patient      a head CT as anatomy instead: its parts, and its place in the template
    curves       bolus and tissue curves
    scanner      timing, movement, sampling
    artefacts    photon noise, streaks of metal, skull stripping
    truth        maps and masks on the acquired voxels
    dataset      BIDS files

References
----------
.. [1] Fonov V, et al. NeuroImage 2011;54:313-327, doi:10.1016/j.neuroimage.2010.07.033
.. [2] Fieselmann A, et al. Int J Biomed Imaging 2011:467563, doi:10.1155/2011/467563
"""

from ctpprep.phantom.curves import TIME_STEP
from ctpprep.phantom.dataset import TEMPLATE_NOTICE, write_bids
from ctpprep.phantom.physiology import GREY, MICROANGIOPATHY, WHITE
from ctpprep.phantom.scanner import K_H, RHO, frame_affine, scanner_noise
from ctpprep.phantom.settings import (
    LESIONS_ML,
    BolusTraits,
    HeadTraits,
    PhantomSettings,
    ScanTraits,
)
from ctpprep.phantom.simulation import Phantom, make_phantom

__all__ = [
    'GREY',
    'K_H',
    'LESIONS_ML',
    'MICROANGIOPATHY',
    'RHO',
    'TEMPLATE_NOTICE',
    'TIME_STEP',
    'WHITE',
    'BolusTraits',
    'HeadTraits',
    'Phantom',
    'PhantomSettings',
    'ScanTraits',
    'frame_affine',
    'make_phantom',
    'scanner_noise',
    'write_bids',
]
