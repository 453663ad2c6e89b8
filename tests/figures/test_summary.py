# SPDX-License-Identifier: Apache-2.0
"""The summary: slices that matter, struck numbers, one page."""

import dataclasses

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

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


def test_words_beside_the_slices_do_not_overlap_them():
    words = ('Hypoperfusion', 'Tmax > 6 s, 112.3 mL of it by core alone', '1234.5 mL', '#3ddc84')
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
