# SPDX-License-Identifier: Apache-2.0
"""A generated series, converted, with results drawn at random, and its export."""

import os
import shutil
import sys

import nibabel as nb
import numpy as np
from PIL import Image

from ctpprep.dicom import cli, export
from ctpprep.dicom.findings import ROWS
from ctpprep.dicom.objects import MAPS, SEGMENTS
from tests.dicom import generator as g

PREFIX = 'sub-001_ses-01'
SHAPE = (9, 7, 4)
AFFINE = np.array([[-1.8, 0, 0, 4], [0, -1.7, 0, 6], [0, 0, 5.0, -20], [0, 0, 0, 1]])
SYSTEM = os.pathsep.join([os.environ.get('PATH', ''), '/usr/bin', '/usr/sbin'])
COLUMNS = 'region hemisphere normalization measure volume_ml ci_low_ml ci_high_ml value affected_side reason'


def find_program(name):
    """Find a program of the environment or of the system."""
    return shutil.which(name, path=os.path.dirname(sys.executable)) or shutil.which(
        name, path=SYSTEM
    )


def volume_ml(mask):
    return round(float(mask.sum() * np.prod(nb.affines.voxel_sizes(AFFINE)) / 1000), 4)


def convert(folder, make=g.classic, status='pass', empty=()):
    """Convert a generated series and write results of it, with values drawn at random."""
    g.write(make(g.Scan()), folder / 'src')
    assert cli.main([str(folder / 'src'), str(folder / 'bids')]) == 0
    results = folder / 'out' / 'sub-001' / 'ses-01' / 'ct'
    results.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for ending in MAPS:
        voxels = rng.gamma(2, 3, SHAPE).astype(np.float32)
        voxels[0, 0] = np.nan if ending == 'tmax' else 0
        nb.save(nb.Nifti1Image(voxels, AFFINE), results / f'{PREFIX}_{ending}.nii.gz')
    rows = [COLUMNS.split()]
    for ending in SEGMENTS:
        mask = ((rng.random(SHAPE) < 0.3) & (ending not in empty)).astype(np.uint8)
        nb.save(nb.Nifti1Image(mask, AFFINE), results / f'{PREFIX}_{ending}.nii.gz')
        region, which = ROWS[ending]
        which = which or 'n/a'
        volume, side = volume_ml(mask), ['right', 'no voxels' if ending in empty else 'n/a']
        limits = [volume / 2, volume * 2] if region == 'core' and volume else ['n/a', 'n/a']
        rows.append([region, 'right', which, 'volume', volume, *limits, 'n/a', *side])
        if region == 'mismatch':
            none = ['n/a', 'n/a']
            rows.append([region, 'right', which, 'difference', 12.5, *none, 'n/a', *side])
            rows.append([region, 'right', which, 'ratio', 'n/a', *none, 1.75, *side])
    write_table(results / f'{PREFIX}_seg-perfusion_morph.tsv', rows)
    write_quality(results, status)
    return results


def write_quality(results, status):
    columns = ['status', 'caution', 'drift_status', 'drift_sentence', 'noise_raw_status',
               'noise_raw_sentence']  # fmt: skip
    grades = [
        status,
        'n/a',
        'pass',
        'density drifts by 0.1 HU',
        status,
        'noise is 40 HU',
    ]
    write_table(results / f'{PREFIX}_desc-qualitycontrol_ctp.tsv', [columns, grades])


def write_table(path, rows):
    path.write_text(''.join('\t'.join(map(str, row)) + '\n' for row in rows))


def draw_summary(folder):
    """Write a summary of one page, as PNG and PDF."""
    figures = folder / 'out' / 'sub-001' / 'figures'
    figures.mkdir()
    colours = np.random.default_rng(0).integers(0, 256, (60, 80, 3)).astype(np.uint8)
    picture = Image.fromarray(colours)
    for suffix in ('png', 'pdf'):
        picture.save(figures / f'{PREFIX}_desc-summary_ctp.{suffix}')
    return figures / f'{PREFIX}_desc-summary_ctp.pdf', colours


def run(folder, *options):
    links = str(folder / 'bids_links.json')
    source = ['--source', str(folder / 'src'), '--links', links]
    return export.main([str(folder / 'out'), str(folder / 'dicom'), *source, *options])


def voxels_of(folder, ending):
    path = folder / 'out' / 'sub-001' / 'ses-01' / 'ct' / f'{PREFIX}_{ending}.nii.gz'
    return np.asarray(nb.load(path).dataobj)
