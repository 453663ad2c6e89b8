# SPDX-License-Identifier: Apache-2.0
"""temporary"""

from pathlib import Path

import numpy as np

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def write_rigid_transforms(transforms, path):
    """Write."""
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
