# SPDX-License-Identifier: Apache-2.0
"""Write spatial transforms as ITK text files."""

from pathlib import Path

import numpy as np

from ctpprep.io.nifti import LPS


def write_rigid_transforms(transforms, path):
    """Write the rigid transforms of all frames to one ITK text file.

    Parameters
    ----------
    transforms : (T, 4, 4) array
        Patient RAS coordinates of the reference frame to those of each frame, mm.
    path : path-like

    Returns
    -------
    str
        The path, absolute.
    """
    # nitransforms would write six significant digits, as transforms of single precision
    lines = ['#Insight Transform File V1.0']
    for frame, matrix in enumerate(np.asarray(transforms)):
        lps = LPS @ matrix @ LPS
        numbers = [*lps[:3, :3].ravel(), *lps[:3, 3]]
        lines += [
            f'#Transform {frame}',
            'Transform: AffineTransform_double_3_3',
            'Parameters: ' + ' '.join(f'{number:.12g}' for number in numbers),
            'FixedParameters: 0 0 0',
        ]
    Path(path).write_text('\n'.join(lines) + '\n')
    return str(Path(path).absolute())
