# SPDX-License-Identifier: Apache-2.0
"""Write a head of `data/ds-phantom` as DICOM files, as a scanner with a toggling table would send it.

Run ``python data/make_dicom.py FOLDER``; it needs ``ctpprep[dicom]``.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.dicom import generator  # noqa: E402


def main(folder):
    series = ROOT / 'data' / 'ds-phantom' / 'sub-02' / 'ct' / 'sub-02_ctp.nii.gz'
    scan = generator.scan_of(series, description='CTP 4D shuttle')
    generator.write(generator.classic(scan), folder)
    print(f'{folder}: {scan.n_frames * scan.n_slices} files')


if __name__ == '__main__':
    main(Path(sys.argv[1]))
