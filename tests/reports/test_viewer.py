# SPDX-License-Identifier: Apache-2.0
"""Data of the viewer: values, positions, homologues and curves match the images."""

import base64
import json
import re
import zlib

import numpy as np
import pytest

from ctpprep.figures import viewer
from ctpprep.reports import build_report
from ctpprep.reports.inline import security_policy
from ctpprep.reports.viewer import find_viewers, load_scripts

SHAPE = (20, 24, 6)
AFFINE = np.array([[2.0, 0, 0, -19], [0, 2, 0, -23], [0, 0, 5, 7], [0, 0, 0, 1]])


@pytest.fixture
def images():
    """A brain missing in the lowest slice, a lesion on the left, a map of distinct values."""
    x, y, z = np.indices(SHAPE)
    brain = (((x - 10) / 8) ** 2 + ((y - 12) / 10) ** 2 <= 1) & (z > 0)
    tissue = brain & ((x + y) % 5 > 0)
    cbf = np.where(tissue, 10 + x + 20 * y + 500 * z, np.nan)
    return {
        'brain_mask': brain,
        'tissue_mask': tissue,
        'cbf': cbf,
        'core_global': tissue & (x < 6),
        'reference': x + 30.0,
    }


def unpack(text, dtype, shape):
    raw = zlib.decompress(base64.b64decode(text))
    return np.frombuffer(raw, dtype).reshape(shape, order='F')


def decode_map(packed, name):
    """Values of a map as the viewer computes them."""
    entry = next(entry for entry in packed['maps'] if entry['name'] == name)
    codes = unpack(entry['data'], '<u2', packed['shape']).astype(float)
    return np.where(codes, entry['offset'] + entry['slope'] * (codes - 1), np.nan)


def box_of(packed):
    return tuple(
        slice(start, start + size * step, step)
        for start, size, step in zip(
            packed['origin'], packed['shape'], packed['step'], strict=True
        )
    )


def test_values_match_the_map(images):
    packed = viewer.pack_series(images, AFFINE)
    expected = images['cbf'][box_of(packed)]
    value_range = np.nanmax(expected) - np.nanmin(expected)
    np.testing.assert_allclose(decode_map(packed, 'cbf'), expected, atol=1e-5 * value_range)


def test_slices_without_brain_are_left_out(images):
    packed = viewer.pack_series(images, AFFINE)
    assert (packed['origin'][2], packed['shape'][2]) == (1, 5)


def test_positions_match_patient_coordinates(images):
    packed = viewer.pack_series(images, AFFINE, most_voxels=600)
    assert packed['step'] == [2, 2, 1]
    voxel = np.array([3, 2, 1])
    position = np.array(packed['affine']) @ [*voxel, 1]
    expected = AFFINE @ [*(packed['origin'] + voxel * packed['step']), 1]
    np.testing.assert_allclose(position, expected)


def test_downsampled_series_keeps_its_values(images):
    packed = viewer.pack_series(images, AFFINE, most_voxels=600)
    assert np.prod(packed['shape']) <= 600
    expected = images['cbf'][box_of(packed)]
    np.testing.assert_allclose(decode_map(packed, 'cbf'), expected, atol=0.05)


def test_masks_are_bits_in_the_listed_order(images):
    packed = viewer.pack_series(images, AFFINE)
    bits = unpack(packed['bits'], '<u2', packed['shape'])
    core = bits >> packed['masks'].index('core_global') & 1
    np.testing.assert_array_equal(core, images['core_global'][box_of(packed)])


def test_mismatch_needs_core_and_hypoperfusion(images):
    def overlays():
        return [entry['name'] for entry in viewer.pack_series(images, AFFINE)['overlays']]

    assert 'mismatch_global' not in overlays()
    images['hypoperfusion'] = images['tissue_mask']
    assert 'mismatch_global' in overlays()
    assert 'mismatch_local' not in overlays()


def test_homologues_are_indices_into_the_box(images):
    """After a pure flip, the homologue of a voxel is at the opposite x, wherever the box begins."""
    x, y, z = np.indices(SHAPE)
    homologues = np.stack([19 - x, y, z, np.ones(SHAPE)], axis=-1) @ AFFINE.T
    homologues[4, 12, 3] = np.nan
    packed = viewer.pack_series(images, AFFINE, homologues=homologues[..., :3])
    indices = unpack(packed['homologues'], '<i4', packed['shape'])
    i, j, k = np.unravel_index(indices[6, 5, 2], packed['shape'], order='F')
    assert packed['origin'][0] + i == 19 - (packed['origin'][0] + 6)
    assert (j, k) == (5, 2)
    gap = np.array([4, 12, 3]) - packed['origin']
    assert indices[tuple(gap)] == viewer.NOWHERE


def test_curves_are_reconstructed_from_scores(images):
    rng = np.random.default_rng(3)
    tissue = images['tissue_mask']
    components = np.linalg.qr(rng.normal(size=(8, 3)))[0]
    scores = rng.normal(size=(np.count_nonzero(tissue), 3)) * (50, 10, 1)
    centre = np.arange(8.0)
    curves = {
        'scores': scores, 'centres': centre[None], 'components': components[None],
        'times': np.arange(8)[None] * 1.5, 'slice_pattern': np.zeros(SHAPE[2], int), 'kept': 1.0,
    }  # fmt: skip
    packed = viewer.pack_series(images, AFFINE, curves=curves, most_voxels=600)
    packed_curves = packed['curves']
    expected = np.full((*SHAPE, 8), np.nan)
    expected[tissue] = scores @ components.T + centre
    expected = expected[box_of(packed)]
    in_tissue = tissue[box_of(packed)].ravel(order='F')
    unpacked = unpack(packed_curves['scores'], '<i2', (3, -1)).T * packed_curves['scale']
    np.testing.assert_allclose(
        unpacked @ np.array(packed_curves['components'][0]).T + packed_curves['centres'][0],
        expected.reshape(-1, 8, order='F')[in_tissue],
        atol=0.01,
    )


def test_constant_map_is_preserved():
    packed = viewer.pack_values(np.full((2, 2, 1), 7.0))
    assert packed['offset'] == 7
    assert unpack(packed['data'], '<u2', -1).tolist() == [1, 1, 1, 1]


def test_empty_brain_mask_is_refused(images):
    images['brain_mask'][:] = False
    with pytest.raises(ValueError, match='brain_mask is empty'):
        viewer.pack_series(images, AFFINE)


# -- in the page


@pytest.fixture
def output_dir(tmp_path, images):
    folder = tmp_path / 'sub-01' / 'figures'
    folder.mkdir(parents=True)
    packed = viewer.pack_series(images, AFFINE) | {'bad': '</script><b onclick=x>'}
    (folder / 'sub-01_desc-viewer_ctp.json').write_text(json.dumps(packed))
    return tmp_path


def test_policy_allows_exactly_the_scripts_of_the_page(output_dir):
    page = build_report(output_dir, '01', '', {}).read_text(encoding='utf-8')
    scripts = load_scripts(has_viewer=True)
    assert str(scripts.viewer) in page
    assert page.count('<script') == 3  # data, plotly deflated, the viewer
    assert scripts.policy in page
    assert scripts.policy.count('sha256-') == 2


def test_viewer_data_cannot_end_their_element(output_dir):
    page = build_report(output_dir, '01', '', {}).read_text(encoding='utf-8')
    assert '</script><b' not in page
    ((prefix, element),) = find_viewers(output_dir / 'sub-01' / 'figures')
    assert prefix == 'sub-01'
    text = re.fullmatch(r'<script [^>]*>(.*)</script>', element)[1]
    assert json.loads(text)['bad'] == '</script><b onclick=x>'


def test_page_without_viewer_has_no_script(tmp_path):
    page = build_report(tmp_path, '01', '', {}).read_text(encoding='utf-8')
    assert '<script' not in page
    assert security_policy([]) in page
