# SPDX-License-Identifier: Apache-2.0
"""A generated series, converted, with results drawn at random, and its export."""

import json
import os
import shutil
import sys

import nibabel as nb
import numpy as np
from PIL import Image

from ctpprep.dicom import cli, export
from ctpprep.dicom.findings import ROWS
from ctpprep.dicom.objects import MAPS, SEGMENTS
from ctpprep.io.records import status_path
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
    tissue = rng.random(SHAPE) < 0.7
    for name, mask in (('desc-tissue', tissue), ('label-unassessable', rng.random(SHAPE) < 0.2)):
        image = nb.Nifti1Image(mask.astype(np.uint8), AFFINE)
        nb.save(image, results / f'{PREFIX}_{name}_mask.nii.gz')
    for ending in MAPS:
        voxels = rng.gamma(2, 3, SHAPE).astype(np.float32)
        voxels[~tissue] = 0
        if ending == 'tmax':
            voxels[0, 0] = np.nan
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


def map_of(folder, ending):
    """Voxels of a map, with the padding value where there is no value."""
    voxels = voxels_of(folder, ending)
    valid = np.isfinite(voxels) & (voxels_of(folder, 'desc-tissue_mask') == 1)
    if ending == 'desc-local_rcbf':
        valid &= voxels_of(folder, 'label-unassessable_mask') == 0
    return np.where(valid, voxels, np.float32(-1))


def write_status(folder, **entry):
    """Write the status of the series, as ctpprep does."""
    path = status_path(folder / 'out', '001')
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({'Series': [{'Series': PREFIX, **entry}]}))
