# SPDX-License-Identifier: Apache-2.0
"""One planted difference of each kind is reported; what differs between any two runs is not."""

import json
import shutil
from pathlib import Path

import h5py
import nibabel as nb
import numpy as np
import pytest

from compare_outputs import main

STEM = 'sub-1/ct/sub-1'
IMAGE, TABLE = f'{STEM}_cbf.nii.gz', f'{STEM}_seg-perfusion_morph.tsv'
SIDECAR, TRANSFORM = f'{STEM}_cbf.json', f'{STEM}_from-ctpref_to-mirror_mode-image_xfm.h5'
MOTION = f'{STEM}_from-orig_to-ctpref_mode-image_desc-hmc_xfm.txt'
FIGURE, VIEWER = (
    'sub-1/figures/sub-1_desc-maps_ctp.svg',
    'sub-1/figures/sub-1_desc-viewer_ctp.json',
)
DESCRIPTION = 'dataset_description.json'
SETTINGS = {'lambda_rel': 0, 'denoise_sigma_mm': [3.5, 3.5]}
SVG = (
    '<svg><dc:date>2026-01-01</dc:date><clipPath id="p{0}a1b2c3d4e"/>'
    '<path clip-path="url(#p{0}a1b2c3d4e)" d="M {1} 0"/></svg>'
)


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def edit_json(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def write_transform(path, parameters, os_version):
    with h5py.File(path, 'w') as file:
        file['OSVersion'] = [os_version]
        file['TransformGroup/0/TransformParameters'] = np.float32(parameters)


def edit_image(path, voxel=None, dtype=None, affine=None, shape=None, sform_code=1):
    image = nb.load(path)
    values = np.asarray(image.dataobj).astype(dtype or np.float32)
    if voxel is not None:
        values[0, 0, 0] = voxel
    if shape:
        values = values.reshape(shape)
    edited = nb.Nifti1Image(values, image.affine if affine is None else affine)
    edited.set_sform(edited.affine, sform_code)
    nb.save(edited, path)


@pytest.fixture
def old(tmp_path):
    """Return a small output folder with one file of each kind."""
    folder = tmp_path / 'old'
    write_json(
        folder / DESCRIPTION,
        {
            'Name': 'ctpprep',
            'GeneratedBy': [{'Name': 'ctpprep', 'Version': '1'}],
            'DatasetLinks': {'raw': '../raw'},
        },
    )
    write_json(folder / SIDECAR, {'Units': 's', 'Settings': SETTINGS, 'Measured': [1.0, 2.0]})
    write_json(folder / VIEWER, {'maps': [{'name': 'cbf', 'data': 'eNq' + 'x' * 500}]})
    (folder / TABLE).write_text('name\tvolume\ncore\t12.5\n')
    (folder / MOTION).write_text('#Insight Transform File V1.0\nParameters: 1 0 0\n')
    (folder / FIGURE).write_text(SVG.format('0', 1))
    (folder / 'sub-1.html').write_text('<p>page</p>')
    (folder / '.bidsignore').write_text('**/ct\n')
    values = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
    values[1, 1, 1] = np.nan
    nb.save(nb.Nifti1Image(values, np.eye(4)), folder / IMAGE)
    edit_image(folder / IMAGE)
    write_transform(folder / TRANSFORM, [1, 0, 0], 'kernel 1')
    write_json(folder / 'logs/sub-1_status.json', {'Run': 'a'})
    return folder


@pytest.fixture
def new(old, tmp_path):
    return shutil.copytree(old, tmp_path / 'new')


def test_equal_folders_pass(old, new, capsys):
    assert main([str(old), str(new)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ['kind', 'compared', 'different']
    assert {line.split()[0] for line in lines[1:]} == {
        'figure', 'image', 'other', 'page', 'sidecar', 'table', 'total', 'transform', 'viewer',
    }  # fmt: skip
    assert lines[-1].split() == ['total', '10', '0']


@pytest.mark.parametrize(
    ('path', 'change', 'message'),
    [
        (IMAGE, lambda p: edit_image(p, voxel=3), 'voxels: 1 of 8 values differ, by 3 at most'),
        (IMAGE, lambda p: edit_image(p, voxel=np.nan), 'voxels: 1 of 8 values differ'),
        (IMAGE, lambda p: edit_image(p, affine=np.diag([1, 1, 2, 1])), 'header field srow_z'),
        (IMAGE, lambda p: edit_image(p, dtype=np.float64), 'header field datatype: 16 -> 64'),
        (IMAGE, lambda p: edit_image(p, shape=(4, 2, 1)), 'voxels: shape: (2, 2, 2) -> (4, 2, 1)'),
        (IMAGE, lambda p: edit_image(p, sform_code=2), 'header field sform_code: 1 -> 2'),
        (IMAGE, lambda p: p.write_bytes(b'broken'), 'cannot be read'),
        (MOTION, lambda p: p.write_text('Parameters: 1 0 1\n'), 'content differs'),
        (TRANSFORM, lambda p: write_transform(p, [1, 0, 2], ''), '1 of 3 values differ'),
        (TRANSFORM, lambda p: write_transform(p, [1, 0], ''), 'shape: (3,) -> (2,)'),
        (TABLE, lambda p: p.write_text('name\tvolume\ncore\t12.50\n'), "line 2, volume: '12.5'"),
        (TABLE, lambda p: p.write_text('name\tvolume\n'), 'line 2'),
        (TABLE, lambda p: p.write_text('name\tsize\ncore\t12.5\n'), "'volume' -> 'size'"),
        (SIDECAR, lambda p: edit_json(p, Units='ms'), "Units: 's' -> 'ms'"),
        (SIDECAR, lambda p: edit_json(p, Extra=None), "Extra: '(missing)' -> None"),
        (SIDECAR, lambda p: edit_json(p, Measured=[1.0, 2.5]), 'Measured: 1 of 2 values differ'),
        (SIDECAR, lambda p: edit_json(p, Measured=[1.0, True]), 'Measured[1]: 2.0 -> True'),
        (SIDECAR, lambda p: edit_json(p, Settings=SETTINGS | {'lambda_rel': 0.1}), 'lambda_rel'),
        (SIDECAR, lambda p: p.write_text('{'), 'cannot be read'),
        (VIEWER, lambda p: p.write_text(p.read_text().replace('x"', 'y"')), 'maps[0].data: ...'),
        (DESCRIPTION, lambda p: edit_json(p, DatasetLinks={'own': '../raw'}), 'DatasetLinks.raw'),
        (FIGURE, lambda p: p.write_text(SVG.format('0', 2)), '1 lines differ, first at line 1'),
        ('.bidsignore', lambda p: p.write_text('ct\n'), 'content differs'),
        ('sub-1.html', Path.unlink, 'only in OLD'),
        ('sub-2.html', Path.touch, 'only in NEW'),
    ],
)  # fmt: skip
def test_planted_difference_is_reported(path, change, message, old, new, capsys):
    change(new / path)
    assert main([str(old), str(new)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith(f'{path}: ') and message in line for line in lines), lines
    assert all(len(line) < 300 for line in lines)
    assert lines[-1].split()[-1] == '1'


@pytest.mark.parametrize(
    ('path', 'change'),
    [
        ('logs/sub-1_status.json', lambda p: write_json(p, {'Run': 'b'})),
        ('prov/run_prov.jsonld', lambda p: write_json(p, {})),
        ('sub-1/log/run/crash.txt', lambda p: write_json(p, {})),
        ('sub-1.html', lambda p: p.write_text('<p>another page</p>')),
        (FIGURE, lambda p: p.write_text(SVG.format('f', 1).replace('2026', '2027'))),
        (TRANSFORM, lambda p: write_transform(p, [1, 0, 0], 'kernel 2')),
        (DESCRIPTION, lambda p: edit_json(p, DatasetLinks={'raw': '/data'})),
        (DESCRIPTION, lambda p: edit_json(p, GeneratedBy=[{'Name': 'ctpprep', 'Version': '2'}])),
    ],
)
def test_difference_between_any_two_runs_is_ignored(path, change, old, new):
    (new / path).parent.mkdir(parents=True, exist_ok=True)
    change(new / path)
    assert main([str(old), str(new)]) == 0


def test_times_and_identifiers_of_runs_are_ignored(old, new):
    run = '2026{}-062947_{}fb76d5f-1dd9-4b3e-bad6-e71a1392f9d4 2026-11-2{}T06:30:23Z'
    edit_json(old / SIDECAR, Run=run.format(1127, 3, 7))
    edit_json(new / SIDECAR, Run=run.format(1128, 4, 8))
    assert main([str(old), str(new)]) == 0


@pytest.mark.parametrize(
    ('settings', 'code'),
    [
        ({'deconvolution': {'lambda_rel': 0}, 'denoising': {'denoise_sigma_mm': [3.5, 3.5]}}, 0),
        ({'deconvolution': {'lambda_rel': 0.1}, 'denoise_sigma_mm': [3.5, 3.5]}, 1),
        ({'deconvolution': {'lambda_rel': 0}}, 1),
        (SETTINGS | {'deconvolution': {'lambda_rel': 1}}, 1),
    ],
)
def test_nesting_of_settings_is_ignored_on_request(settings, code, old, new):
    edit_json(new / SIDECAR, Settings=settings)
    assert main([str(old), str(new), '--ignore-settings']) == code
    assert main([str(old), str(new)]) == 1


def test_missing_or_empty_folder_is_an_error(old, tmp_path, capsys):
    (tmp_path / 'empty' / 'logs').mkdir(parents=True)
    assert main([str(old), str(tmp_path / 'nowhere')]) == 2
    assert main([str(tmp_path / 'empty'), str(old)]) == 2
    assert capsys.readouterr().err.count('error: ') == 2


def test_a_field_can_be_left_out(old, new):
    edit_json(new / SIDECAR, Sources=['bids:raw:a'])
    assert main([str(old), str(new)]) == 1
    assert main([str(old), str(new), '--ignore-field', 'Sources']) == 0
