# SPDX-License-Identifier: Apache-2.0
"""The summary: slices that matter, struck numbers, one page."""

import dataclasses

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.lines import Line2D

from ctpprep import figures
from ctpprep.figures.summary import select_slices

BRAIN = np.zeros((20, 24, 12), bool)
BRAIN[2:18, 2:22, 1:11] = True
LESION = BRAIN & (np.arange(12) > 5) & (np.arange(12) < 8)


def make_panel(doubtful=False):
    lesion = figures.Lesion(LESION, 'Core, global', 'rCBF < 30 %', '12.3 mL', '#ff4d2e', doubtful)
    time = np.arange(10.0)
    curves = {'aif': 100 * np.exp(-((time - 4) ** 2))}
    return figures.Panel(30.0 * BRAIN, BRAIN, [lesion], (4.0, 4.0, 8.0), time, curves)


def make_heading(doubtful=False):
    numbers = [('Core, global', '12.3 mL', '95 % interval 1 to 20 mL', doubtful)]
    return figures.Heading('sub-01', 'look first', 'A reason.', numbers, ['A fact.'])


@pytest.mark.parametrize('n_slices', [1, 2, 6, 10, 40])
def test_selected_slices_contain_the_lesion_and_lie_in_the_brain(n_slices):
    slices = select_slices(LESION, BRAIN, n_slices)
    assert len(slices) == min(n_slices, 10)
    assert set(slices) <= set(range(1, 11))
    assert n_slices < 2 or {6, 7} <= set(slices)


def test_panel_states_lesions_and_scale(tmp_path):
    text = figures.save_svg(figures.plot_summary(make_panel()), tmp_path / 'a.svg').read_text()
    for words in ('Core, global', 'rCBF &lt; 30 %', '12.3 mL', '50 mm', 'AIF'):
        assert words in text


def test_scale_bar_has_its_length_and_is_below_every_head():
    figure = figures.plot_summary(make_panel())
    wide, tall = figure.get_size_inches() * figure.dpi
    slices = figure.axes[0].get_window_extent()
    (bar,) = (one for one in figure.artists if isinstance(one, Line2D))
    left, right = (wide * x for x in bar.get_xdata())
    # six tiles of 20 columns of 4 mm
    tiles = figure.axes[0].get_xlim()
    assert right - left == pytest.approx(50 / 4 * slices.width / (tiles[1] - tiles[0]), rel=1e-6)
    (label,) = (text for text in figure.texts if text.get_text() == '50 mm')
    box = label.get_window_extent(FigureCanvasAgg(figure).get_renderer())
    assert max(box.y1, tall * bar.get_ydata()[0]) < slices.y0
    assert box.x1 < left
    (note,) = (text for text in figure.texts if text.get_text().startswith('Radiological'))
    assert note.get_window_extent().x1 < box.x0


def test_marked_part_has_its_colour_and_a_legend():
    marked = LESION & (np.arange(20) < 5)[:, None, None]
    lesion = figures.Lesion(
        LESION,
        'Core, local',
        'rCBF < 30 %',
        '12.3 mL',
        '#ff4d2e',
        False,
        marked,
        'local only',
        '#0000ff',
    )
    figure = figures.plot_summary(dataclasses.replace(make_panel(), lesions=[lesion]))
    picture = figure.axes[0].images[0].get_array().astype(int)
    blue = picture[..., 2] > picture[..., 0] + 50
    red = picture[..., 0] > picture[..., 2] + 50
    assert 0 < blue.sum() == marked.sum() < red.sum() == (LESION & ~marked).sum()
    assert 'local only' in {text.get_text() for text in figure.texts}


def test_panel_without_a_marked_part_has_no_legend_for_it():
    lesion = dataclasses.replace(make_panel().lesions[0], marked=LESION & False, mark='local only')
    figure = figures.plot_summary(dataclasses.replace(make_panel(), lesions=[lesion]))
    assert 'local only' not in {text.get_text() for text in figure.texts}


def test_words_beside_the_slices_do_not_overlap_them():
    words = (
        'Hypoperfusion',
        'Tmax > 6 s, includes 112.3 mL added by core',
        '1234.5 mL',
        '#3ddc84',
    )
    panel = dataclasses.replace(make_panel(), lesions=[figures.Lesion(LESION, *words)])
    figure = figures.plot_summary(panel)
    left = figure.axes[0].get_window_extent().x0
    texts = [text for text in figure.texts if text.get_text() in ('Tmax > 6 s', *words)]
    assert len(texts) == 3
    renderer = FigureCanvasAgg(figure).get_renderer()
    assert all(text.get_window_extent(renderer).x1 <= left for text in texts)


def test_page_strikes_doubtful_numbers():
    plain, doubtful = (
        len(figures.plot_summary_page(make_panel(doubt), make_heading(doubt)).artists)
        for doubt in (False, True)
    )
    assert doubtful == plain + 2


@pytest.mark.parametrize('suffix', ['.pdf', '.png'])
def test_page_is_reproducible(tmp_path, suffix):
    files = [
        figures.save_page(
            figures.plot_summary_page(make_panel(), make_heading()), tmp_path / f'{name}{suffix}'
        ).read_bytes()
        for name in 'ab'
    ]
    assert files[0] == files[1]


def test_lesions_far_apart_are_all_selected():
    apart = BRAIN & np.isin(np.arange(12), (2, 10))
    assert {2, 10} <= set(select_slices(apart, BRAIN, 4))
