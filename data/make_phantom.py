# SPDX-License-Identifier: Apache-2.0
"""Make `data/ds-phantom`: two digital heads with known truth.

Run ``python data/make_phantom.py [FOLDER]``; results on different machines agree within 1 HU.
"""

import sys
from pathlib import Path

from ctpprep.phantom import PhantomSettings, make_phantom, write_bids

GRID = {'matrix': 96, 'voxel_size_mm': (2.3, 2.3, 6.0), 'n_slices': 16, 'n_frames': 27}
PARTICIPANTS = {
    '01': PhantomSettings(
        seed=1, microangiopathy=True, lesion='large', lesion_side='left', **GRID
    ),
    # A toggling table, so that slice times matter in one series of the demo.
    '02': PhantomSettings(
        seed=2, lesion='small', lesion_side='right', timing='toggling', **GRID
    ),
}  # fmt: skip


def main(bids_dir):
    for participant, settings in PARTICIPANTS.items():
        print(write_bids(make_phantom(settings), bids_dir, participant))


if __name__ == '__main__':
    main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / 'ds-phantom'))
