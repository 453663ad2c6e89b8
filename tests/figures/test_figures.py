# SPDX-License-Identifier: Apache-2.0
"""Figures: orientation, windows, outlines and labels."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from ctpprep import figures

SHAPE = (24, 30, 10)


@pytest.fixture
def brain():
    """An ellipsoid in slices 2 to 8 of a small volume."""
    x, y, z = np.indices(SHAPE)
    return ((x - 12) / 9) ** 2 + ((y - 15) / 12) ** 2 + ((z - 5) / 3.5) ** 2 <= 1


@pytest.fixture
def left(brain):
    """A lesion in the patient's left hemisphere: low x in canonical arrays."""
    mask = np.zeros(SHAPE, bool)
    mask[6:9, 13:18, 4:7] = True
    return mask & brain


def strips(figure):
    """Return the axes that show a strip of slices."""
    return [axes for axes in figure.axes if axes.images and axes.get_label() != 'scales']


def rcbf_figure(brain, left):
    rcbf = {'global': np.full(SHAPE, 0.6), 'local': np.full(SHAPE, 0.6)}
    core = {'global': left, 'local': left}
    mosaic = figures.lay_out(brain)
    return mosaic, figures.plot_rcbf(mosaic, rcbf, core, None, np.zeros(SHAPE), brain, 0.3, 6.0)


def test_left_of_the_patient_is_on_the_right_of_the_picture(brain, left):
    mosaic = figures.lay_out(brain, max_columns=1)
    middle = next(line for line, (index,) in enumerate(mosaic.lines) if index == 5)
    columns = np.nonzero(mosaic.picture(left, middle))[1]
    assert columns.min() > mosaic.tile_shape[1] / 2


def test_anterior_is_on_top(brain):
    front = np.zeros(SHAPE, bool)
    front[:, 20:] = True
    mosaic = figures.lay_out(brain, max_columns=1)
    shown = mosaic.picture(front, 0)
    assert shown[0].all()
    assert not shown[-1].any()


def test_core_is_outlined_on_the_side_of_the_core(brain, left):
    mosaic, figure = rcbf_figure(brain, left)
    outline = strips(figure)[0].collections[0]
    across = np.concatenate([path.vertices[:, 0] for path in outline.get_paths()])
    within_tile = (across + 0.5) % mosaic.tile_shape[1]
    assert within_tile.min() > mosaic.tile_shape[1] / 2


def test_global_and_local_share_window_and_colours(brain, left):
    _, figure = rcbf_figure(brain, left)
    first, second = (axes.images[0].get_array() for axes in strips(figure)[:2])
    np.testing.assert_array_equal(first, second)
    ends = [figures.WINDOWS[f'rcbf_{name}'] for name in ('global', 'local')]
    assert (ends[0].low, ends[0].high) == (ends[1].low, ends[1].high) == (0, 150)


def test_windows_do_not_depend_on_the_values(brain):
    mosaic = figures.lay_out(brain)
    maps = {'cbf': np.full(SHAPE, 400.0), 'tmax': np.full(SHAPE, -3.0)}
    figure = figures.plot_maps(mosaic, maps, brain)
    (scales,) = (axes for axes in figure.axes if axes.get_label() == 'scales')
    numbers = [text.get_text() for text in scales.texts if text.get_text().isdecimal()]
    assert numbers == ['0', '50', '100', '0', '6', '12']


def test_outside_the_mask_is_black_and_zero_inside_is_not(brain):
    rgb = figures.WINDOWS['cbf'].paint(np.zeros((1, 2)), np.array([[True, False]]))
    assert rgb[0, 0].sum() > 0
    assert rgb[0, 1].sum() == 0


def test_slices_without_brain_are_not_shown(brain):
    shown = [index for line in figures.lay_out(brain).lines for index in line]
    assert shown == list(range(2, 9))


def test_number_of_slices_is_limited_and_includes_the_outermost():
    mosaic = figures.lay_out(np.ones((4, 4, 300), bool), max_slices=16)
    shown = [index for line in mosaic.lines for index in line]
    assert len(shown) == 16
    assert (shown[0], shown[-1]) == (0, 299)


def test_empty_mask_is_an_error():
    with pytest.raises(ValueError, match='brain_mask is empty, needs at least one voxel'):
        figures.lay_out(np.zeros(SHAPE, bool))


def test_cores_split_into_kept_removed_and_added_without_overlap(left):
    moved = np.roll(left, 1, axis=0)
    parts = figures.compare_cores(left, moved)
    assert (parts['kept'] | parts['removed']).sum() == left.sum()
    assert (sum(mask.astype(int) for mask in parts.values()) <= 1).all()


def test_rejected_frames_are_shaded_and_counted():
    weight = np.ones(10)
    weight[[3, 4]] = 0
    figure = figures.plot_motion({'trans_x': np.zeros(10), 'weight': weight})
    assert '2 of 10 frames rejected' in figure.get_suptitle()
    assert len(figure.axes[0].patches) == 2


def test_legends_of_motion_do_not_cover_labels():
    figure = figures.plot_motion({f'{kind}_{axis}': np.zeros(27) for kind in ('trans', 'rot')
                                  for axis in 'xyz'})  # fmt: skip
    FigureCanvasAgg(figure).draw()
    legends = [axes.get_legend().get_window_extent() for axes in figure.axes[:2]]
    for axes in figure.axes:
        for label in axes.get_xticklabels() + axes.get_yticklabels():
            hidden = not label.get_text() or not label.get_visible()
            assert hidden or not any(
                legend.overlaps(label.get_window_extent()) for legend in legends
            )


def test_rotations_are_drawn_in_degrees():
    figure = figures.plot_motion({'rot_z': np.full(5, np.pi / 180)})
    np.testing.assert_allclose(figure.axes[1].lines[0].get_ydata(), 1.0)


def test_histogram_names_medians_and_the_affected_side(brain):
    x = np.indices(SHAPE)[0]
    sides = np.where(x < 12, 1, 2)
    tmax = np.where(sides == 1, 7.0, 1.0)
    figure = figures.plot_tmax_histogram(tmax, sides, brain, 6.0, 'left')
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert 'left hemisphere, median 7.0 s (affected side)' in labels
    assert 'right hemisphere, median 1.0 s' in labels


def test_tissue_curve_has_its_own_axis(brain):
    time = np.arange(5.0)
    curves = {'aif': 300 * time, 'vof': 200 * time, 'tissue': time}
    figure = figures.plot_curves(time, curves, {}, None, None)
    assert [len(axes.lines) for axes in figure.axes] == [2, 1]


def test_places_of_the_curves_are_marked_on_their_side(brain, left):
    curves = {'aif': np.arange(5.0)}
    figure = figures.plot_curves(np.arange(5.0), curves, {'aif': left}, np.zeros(SHAPE), brain)
    picture = strips(figure)[0]
    spots = picture.collections[0].get_offsets()[:, 0]
    assert spots.min() > np.mean(picture.get_xlim())
    assert f'{left.sum()} voxels' in picture.get_title()


def test_saving_twice_writes_identical_files(brain, left, tmp_path):
    paths = []
    for name in ('a', 'b'):
        (tmp_path / name).mkdir()
        _, figure = rcbf_figure(brain, left)
        paths.append(figures.save_svg(figure, tmp_path / name / 'x.svg'))
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_mirror_figure_alternates_in_valid_svg(brain, tmp_path):
    mosaic = figures.lay_out(brain)
    figure = figures.plot_mirror(mosaic, *(np.full(SHAPE, n) for n in range(3)), brain)
    root = ET.parse(figures.save_svg(figure, tmp_path / 'x.svg')).getroot()
    ids = {element.get('id') for element in root.iter()}
    assert {'blinking-before-0', 'blinking-after-0'} <= ids
    assert any(element.tag.endswith('style') for element in root.iter())


def test_height_of_the_curves_at_the_end_is_labelled():
    curves = {'vof': np.array([0.0, 100.0, 50.0, 30.0])}
    figure = figures.plot_curves(np.arange(4.0), curves, {}, None, None)
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ['VOF, ends at 40 % of its peak']


def test_missing_value_is_grey_and_not_the_colour_of_zero():
    window = figures.WINDOWS['cbf']
    missing, zero = window.paint(np.array([[np.nan, 0.0]]))[0]
    assert missing.min() == missing.max()
    assert not np.allclose(missing, zero)


def test_bands_of_probability_have_colours_and_below_5_percent_has_none(brain):
    across = np.broadcast_to(np.arange(SHAPE[0])[:, None, None], SHAPE)
    probability = np.select([across < 9, across < 12, across < 15], [0.99, 0.6, 0.2], 0.04)
    figure = figures.plot_probability(
        figures.lay_out(brain), {'global': probability}, {}, np.full(SHAPE, 30.0), brain, 0.3
    )
    shown = np.asarray(strips(figure)[0].images[0].get_array())[..., :3].reshape(-1, 3)
    colours = {tuple(row) for row in shown.tolist()}
    # three bands, each with its edge
    assert len([rgb for rgb in colours if len(set(rgb)) > 1]) == 6
    assert len([rgb for rgb in colours if len(set(rgb)) == 1 and sum(rgb)]) == 1
    texts = {text.get_text() for text in figure.legends[0].get_texts()}
    assert {'at least 95 %', 'at least 50 %', 'at least 5 %'} < texts


def test_agreement_with_a_follow_up_lesion_has_a_row_for_each_core(brain, left):
    lesion = np.roll(left, 1, axis=0)
    core = {'global': left, 'local': lesion}
    mosaic = figures.lay_out(brain)
    figure = figures.plot_followup(mosaic, np.zeros(SHAPE), core, left, lesion, brain, 0.3)
    rows = mosaic.lines
    assert len(strips(figure)) == 2 * len(rows)
    words = {text.get_text() for legend in figure.legends for text in legend.get_texts()}
    assert {
        'hit: lesion and core (rCBF < 30 %)',
        'missed: lesion only',
        'false: core only',
    } <= words
