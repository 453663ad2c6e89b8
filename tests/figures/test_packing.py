# SPDX-License-Identifier: Apache-2.0
"""What the viewer gets of a follow-up lesion."""

import base64
import zlib

import numpy as np
from matplotlib.colors import to_hex

from ctpprep.figures import COLOURS, lay_out, plot_rcbf
from ctpprep.figures.packing import find_start, pack_series
from ctpprep.reports.template import environment


def test_lesion_of_a_follow_up_is_an_outline_with_its_own_bit():
    brain = np.ones((6, 5, 3), bool)
    lesion = np.zeros(brain.shape, bool)
    lesion[2:4, 1:3, 1] = True
    packed = pack_series({'brain_mask': brain, 'followup_mask': lesion}, np.eye(4))
    bits = np.frombuffer(zlib.decompress(base64.b64decode(packed['bits'])), '<u2')
    place = packed['masks'].index('followup_mask')
    np.testing.assert_array_equal(bits.reshape(brain.shape, order='F') >> place & 1, lesion)
    (overlay,) = (o for o in packed['overlays'] if o['name'] == 'followup_mask')
    assert (overlay['style'], overlay['on']) == ('line', True)


WHOLE = (slice(None), slice(None), slice(None))


def make_head():
    """Make a core of a large and a small piece, with the lowest flow in the small one."""
    core = np.zeros((8, 7, 3), bool)
    core[1:5, 1:5, 1] = core[7, 6, 2] = True
    rcbf = np.ones(core.shape)
    rcbf[core] = 0.25
    rcbf[3, 2, 1], rcbf[7, 6, 2] = 0.12, 0.05
    return {'brain_mask': core | True, 'core_global': core, 'rcbf_global': rcbf}


def test_viewer_starts_at_the_lowest_flow_of_the_largest_piece_of_the_core():
    images = make_head()
    place = np.unravel_index(find_start(images, WHOLE), (8, 7, 3), order='F')
    assert place == (3, 2, 1)
    assert pack_series(images, np.eye(4))['start'] == find_start(images, WHOLE)


def test_viewer_never_starts_in_a_hole_or_where_a_value_is_missing():
    images = make_head()
    images['rcbf_global'][3, 2, 1] = np.nan  # filled: a vessel without a value
    images['rcbf_global'][2, 3, 1] = 0.9  # filled: normal flow
    images['tissue_mask'] = images['brain_mask'].copy()
    images['rcbf_global'][1, 1, 1], images['tissue_mask'][1, 1, 1] = 0.0, False  # CSF
    images['rcbf_global'][4, 4, 1] = 0.2
    place = np.unravel_index(find_start(images, WHOLE), (8, 7, 3), order='F')
    assert place == (4, 4, 1)


def test_viewer_without_a_core_starts_in_the_hypoperfusion_else_in_the_middle_of_the_brain():
    images = make_head()
    images['core_global'] = np.zeros((8, 7, 3), bool)
    middle = np.unravel_index(find_start(images, WHOLE), (8, 7, 3), order='F')
    assert np.abs(np.subtract(middle, (3.5, 3, 1))).max() < 1
    images['hypoperfusion'], images['tmax'] = images['rcbf_global'] < 0.5, np.full((8, 7, 3), 7.0)
    images['tmax'][4, 1, 1] = 9.0
    place = np.unravel_index(find_start(images, WHOLE), (8, 7, 3), order='F')
    assert place == (4, 1, 1)


def test_hypoperfusion_has_one_colour_in_panel_mosaics_viewer_and_page():
    images = make_head()
    images['hypoperfusion'] = images['core_global']
    packed = pack_series(images, np.eye(4))
    (overlay,) = (o for o in packed['overlays'] if o['name'] == 'hypoperfusion')
    colour = COLOURS['hypoperfusion']
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    assert green > max(red, blue)
    assert overlay['colour'] == colour
    style = environment().get_template('report.css').render()
    assert f'--hypoperfusion: {colour};' in style
    mosaic = lay_out(images['brain_mask'], (2, 2, 5))
    rcbf = {'global': images['rcbf_global']}
    lesion = images['hypoperfusion']
    figure = plot_rcbf(mosaic, rcbf, {}, lesion, lesion * 30.0, images['brain_mask'], 0.3, 6)
    drawn = {to_hex(c) for axes in figure.axes for c in (
        edge for part in axes.collections for edge in part.get_edgecolor()
    )}  # fmt: skip
    assert colour in drawn
