# SPDX-License-Identifier: Apache-2.0
"""The first screen of a report in a browser: what it shows, at which sizes, on screen and on paper."""

import base64
import re
from types import SimpleNamespace

import numpy as np
import pytest

from ctpprep import figures
from ctpprep.perfusion.tabulation import COLUMNS
from ctpprep.reports import build_report

pytestmark = pytest.mark.browser

WIDTHS = (1400, 800, 390)
ROWS = (
    {'region': 'core', 'normalization': 'global', 'measure': 'volume', 'volume_ml': '60.59',
     'threshold': '0.3', 'ci_low_ml': '15.8', 'ci_high_ml': '99.9'},
    {'region': 'core', 'normalization': 'local', 'measure': 'volume', 'volume_ml': '46.98'},
    {'region': 'hypoperfusion', 'measure': 'volume', 'volume_ml': '114.5', 'threshold': '6.0'},
    {'region': 'hypoperfusion', 'measure': 'joined core', 'volume_ml': '2.86', 'threshold': '6.0'},
    {'region': 'mismatch', 'normalization': 'global', 'measure': 'difference', 'volume_ml': '53.93'},
    {'region': 'mismatch', 'normalization': 'global', 'measure': 'ratio', 'value': '1.89'},
)  # fmt: skip
# grades by participant: each decides on another verdict
CHECKS = {
    'good': {'coverage': 'pass', 'noise_raw': 'pass'},
    'mirror': {'coverage': 'pass', 'mirror_distance': 'fail'},
    'aif': {'coverage': 'pass', 'aif_explained': 'fail'},
}


def write_tsv(path, rows):
    lines = ['\t'.join(rows[0]), *('\t'.join(row.values()) for row in rows)]
    path.write_text('\n'.join(lines) + '\n')


def make_panel():
    """Make a panel of three lesions in a head of the usual size."""
    place = np.indices((80, 96, 16))
    brain = sum(((place[axis] - half) / half) ** 2 for axis, half in ((0, 40), (1, 48))) < 0.8
    lesion = brain & (place[0] > 45) & (abs(place[2] - 8) < 4)
    rows = (
        ('Core, global', 'rCBF < 30 %', '60.6 mL'), ('Core, local', 'rCBF < 30 %', '47.0 mL'),
        ('Hypoperfusion', 'Tmax > 6 s', '114.5 mL'),
    )  # fmt: skip
    lesions = [figures.Lesion(lesion, *texts, '#ff4d2e') for texts in rows]
    time = np.arange(0, 40, 1.5)
    curves = {
        name: 100 * np.exp(-(((time - at) / 5) ** 2)) for name, at in (('aif', 15), ('vof', 21))
    }
    return figures.Panel(35.0 * brain, brain, lesions, (2.0, 2.0, 6.0), time, curves)


def write_series(out, prefix, checks, panel):
    label = prefix.split('_')[0]
    for folder in ('ct', 'figures'):
        (out / label / folder).mkdir(parents=True, exist_ok=True)
    row = dict.fromkeys(COLUMNS, 'n/a') | {'affected_side': 'left'}
    write_tsv(
        out / label / 'ct' / f'{prefix}_seg-perfusion_morph.tsv', [row | cells for cells in ROWS]
    )
    quality = {'coverage': '96', 'mirror_distance': '7'} | {
        f'{name}_status': grade for name, grade in checks.items()
    }
    write_tsv(out / label / 'ct' / f'{prefix}_desc-qualitycontrol_ctp.tsv', [quality])
    path = out / label / 'figures' / f'{prefix}_desc-summary_ctp.svg'
    figures.save_svg(figures.plot_summary(panel), path)
    path.with_suffix('.pdf').write_bytes(b'%PDF-1.4')


@pytest.fixture(scope='module')
def pages(tmp_path_factory):
    out = tmp_path_factory.mktemp('out')
    panel = make_panel()
    for label, checks in CHECKS.items():
        write_series(out, f'sub-{label}', checks, panel)
    write_series(out, 'sub-two_run-2', CHECKS['good'], panel)
    failed = [{'prefix': 'sub-two_run-1', 'reason': 'no brain; supply a mask (--brain-mask)'}]
    built = {label: build_report(out, label, 'Text.', {}) for label in CHECKS}
    built['two'] = build_report(out, 'two', 'Text.', {'failed': failed})
    return SimpleNamespace(**built)


@pytest.fixture
def open_page(browser):
    opened = []

    def open_page(path, **size):
        opened.append(browser.open(path, **size))
        return opened[-1]

    yield open_page
    for page in opened:
        page.check()
        page.close()


def box_of(page, selector):
    """Return top, bottom and width of an element in the window, without scrolling."""
    return page.evaluate(
        f'(() => {{ const r = document.querySelector({selector!r}).getBoundingClientRect();'
        ' return [r.top, r.bottom, r.width]; })()'
    )


@pytest.mark.parametrize(('label', 'word'), [
    ('good', 'Usable'), ('mirror', 'Look first'), ('aif', 'Do not use'),
])  # fmt: skip
def test_verdict_numbers_and_panel_are_seen_without_scrolling(open_page, pages, label, word):
    page = open_page(getattr(pages, label), width=1400, height=1000)
    assert page.text('.verdict strong') == word
    for selector in ('.verdict', '.number.mismatch', '.first img'):
        top, bottom, width = box_of(page, selector)
        assert 0 <= top < bottom <= 1000
        assert width > 200
    assert page.evaluate('document.querySelector(".first img").naturalWidth') > 1000


def test_verdict_differs_by_color_and_is_announced(open_page, pages):
    colors = set()
    for label in CHECKS:
        page = open_page(getattr(pages, label))
        colors.add(page.evaluate('getComputedStyle(document.querySelector(".verdict")).color'))
        assert page.evaluate('document.querySelector(".verdict").getAttribute("role")') == 'status'
    assert len(colors) == 3


@pytest.mark.parametrize(('label', 'struck'), [
    ('good', []), ('mirror', ['core_local']),
    ('aif', ['core_global', 'core_local', 'hypoperfusion', 'mismatch']),
])  # fmt: skip
def test_numbers_that_a_failed_check_concerns_are_struck_and_grey(open_page, pages, label, struck):
    page = open_page(getattr(pages, label))
    numbers = page.evaluate(
        'Object.fromEntries([...document.querySelectorAll(".number")].map((n) => [n.classList[1], ['
        ' getComputedStyle(n.querySelector("s") ?? n).textDecorationLine,'
        ' getComputedStyle(n.querySelector("strong")).color]]))'
    )
    assert [name for name, (line, _) in numbers.items() if line == 'line-through'] == struck
    grey = page.evaluate('getComputedStyle(document.body).color')
    assert all((color != grey) == (name in struck) for name, (_, color) in numbers.items())


def test_side_slab_and_one_page_summary_are_linked(open_page, pages):
    page = open_page(pages.good)
    assert page.text('.why').startswith('Affected side: Left. Slab: 96 mm.')
    links = page.evaluate(
        '[...document.querySelectorAll(".head a, .first a")]'
        '.map((a) => [a.textContent, a.getAttribute("href")])'
    )
    folder = 'sub-good/figures/sub-good_desc-summary_ctp'
    assert ['One-page PDF', f'{folder}.pdf'] in links
    assert f'{folder}.svg' in [href for _, href in links]
    assert all((pages.good.parent / href).is_file() for _, href in links)


def test_panel_enlarges_by_click_and_by_keyboard(open_page, pages):
    page = open_page(pages.good)
    _, _, before = box_of(page, '.first img')
    page.click('.first img')
    assert box_of(page, '.first img')[2] == pytest.approx(2 * before, rel=0.01)
    page.click('.first img', across=0.2)
    assert box_of(page, '.first img')[2] == before
    page.evaluate('document.querySelector(".first .zoom input").focus()')
    page.send('Input.dispatchKeyEvent', type='keyDown', key=' ', code='Space', text=' ',
              windowsVirtualKeyCode=32)  # fmt: skip
    page.send(
        'Input.dispatchKeyEvent', type='keyUp', key=' ', code='Space', windowsVirtualKeyCode=32
    )
    page.wait_for(f'document.querySelector(".first img").clientWidth > 1.9 * {before}')
    outline = page.evaluate('getComputedStyle(document.querySelector(".first img")).outlineStyle')
    assert outline == 'solid'  # the focus is visible


@pytest.mark.parametrize('width', WIDTHS)
@pytest.mark.parametrize('label', ['aif', 'two'])
def test_nothing_is_wider_than_the_window(open_page, pages, label, width):
    page = open_page(getattr(pages, label), width=width)
    assert page.evaluate('document.documentElement.scrollWidth <= innerWidth')


@pytest.mark.parametrize(
    ('width', 'scrolls'), [(1400, False), (800, False), (700, True), (390, True)]
)
def test_panel_fits_or_scrolls_in_its_own_box_with_a_hint(open_page, pages, width, scrolls):
    page = open_page(pages.good, width=width)
    box = 'document.querySelector(".first .zoom")'
    assert page.evaluate(f'{box}.getBoundingClientRect().right <= innerWidth')
    assert page.evaluate(f'{box}.scrollWidth > {box}.clientWidth') == scrolls
    assert page.evaluate('document.querySelector(".swipe").offsetHeight > 0') == scrolls
    page.evaluate(f'{box}.scrollLeft = 1e4')
    right = page.evaluate('document.querySelector(".first img").getBoundingClientRect().right')
    assert right <= page.evaluate(f'{box}.getBoundingClientRect().right') + 1


@pytest.mark.parametrize('width', WIDTHS)
def test_intended_use_limits_and_verdict_are_seen_without_scrolling(open_page, pages, width):
    page = open_page(pages.mirror, width=width, height=1000 if width > 500 else 844)
    for selector, words in (('.research', 'Research use only'), ('.cautions', 'not validated'),
                            ('.verdict', 'Look first'), ('.number.mismatch', '53.9 mL')):  # fmt: skip
        top, bottom, _ = box_of(page, selector)
        assert 0 <= top < bottom <= (1000 if width > 500 else 844), selector
        assert words in page.text(selector)


def test_intervals_and_ratio_are_below_their_numbers(open_page, pages):
    page = open_page(pages.good)
    details = {
        name: page.text(f'.number.{name} dd').replace('\xa0', ' ').split('\n')[1:]
        for name in ('core_global', 'hypoperfusion', 'mismatch')
    }
    assert details == {
        'core_global': ['95 % interval 15.8 to 99.9 mL'],
        'hypoperfusion': ['includes 2.9 mL added by core'],
        'mismatch': ['ratio 1.89'],
    }


def test_verdict_links_to_what_to_look_at(open_page, pages):
    page = open_page(pages.mirror)
    assert page.evaluate('document.querySelector(".verdict a").hash') == '#sub-mirror-quality'
    page.click('.verdict a')
    page.wait_for(
        'document.getElementById("sub-mirror-quality").getBoundingClientRect().top < 200'
    )
    assert page.text('#sub-mirror-quality') == 'Quality ✕ 1 check fails'


def test_verdict_states_the_finding_with_its_figure(open_page, pages):
    page = open_page(pages.mirror)
    assert page.text('.verdict span').startswith(
        'Homologues are off by about 7\xa0mm: read the global map. Do not use the local core.'
    )


@pytest.mark.parametrize('width', WIDTHS)
def test_labels_of_the_panel_are_legible(open_page, pages, width):
    page = open_page(pages.good, width=width)
    svg = (
        pages.good.parent / 'sub-good' / 'figures' / 'sub-good_desc-summary_ctp.svg'
    ).read_text()
    drawn = float(re.search(r'<svg [^>]*width="([\d.]+)pt"', svg)[1])
    # sizes are in units of the view box, points
    smallest = min(float(size) for size in re.findall(r'font(?:-size)?: (?:\w+ )?([\d.]+)px', svg))
    shown = smallest * box_of(page, '.first img')[2] / drawn
    assert shown >= 7.5
    text = page.evaluate(
        'Math.min(...[...document.querySelectorAll(".first :is(dt, dd, small, p, span)")]'
        '.map((e) => parseFloat(getComputedStyle(e).fontSize)))'
    )
    assert text >= 11


def test_failed_series_beside_a_good_one_is_clear_at_first_sight(open_page, pages):
    page = open_page(pages.two, width=1400, height=1000)
    assert box_of(page, '.overview')[1] < 1000
    rows = page.evaluate(
        '[...document.querySelectorAll(".overview tbody tr")]'
        '.map((r) => [...r.cells].map((c) => c.innerText))'
    )
    assert rows == [
        ['sub-two_run-1', 'do not use', 'failed: no brain; supply a mask (--brain-mask)'],
        ['sub-two_run-2', 'usable', '60.6 mL', '47.0 mL', '114.5 mL', '53.9 mL'],
    ]
    assert page.text('#sub-two_run-1 .verdict strong') == 'Do not use'
    assert page.text('#sub-two_run-2 .verdict strong') == 'Usable'
    page.click('.overview a[href="#sub-two_run-2"]')
    page.wait_for('document.getElementById("sub-two_run-2").getBoundingClientRect().top < 200')


def test_printed_first_screen_is_whole_and_keeps_its_colors(open_page, pages):
    page = open_page(pages.aif, width=720, height=1000)
    page.send('Emulation.setEmulatedMedia', media='print')
    top, bottom, _ = box_of(page, '.first')
    assert bottom - top < 900  # fits on a page, below the heading
    assert (
        page.evaluate('getComputedStyle(document.querySelector(".first")).breakInside') == 'avoid'
    )
    style = page.evaluate(
        '(() => { const s = getComputedStyle(document.querySelector(".verdict"));'
        ' return [s.backgroundColor, s.printColorAdjust]; })()'
    )
    assert style == ['rgb(253, 238, 237)', 'exact']
    assert page.evaluate('getComputedStyle(document.querySelector("nav")).display') == 'none'
    printed = base64.b64decode(page.send('Page.printToPDF', printBackground=True)['data'])
    assert len(re.findall(rb'/Type\s*/Page\b', printed)) <= 4
