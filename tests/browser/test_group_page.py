# SPDX-License-Identifier: Apache-2.0
"""The group page in a browser: plots, sets of series, sorting and filtering, links."""

import json
import shutil

import pytest

from ctpprep.figures.palette import GRADES
from ctpprep.group import run_group_level
from ctpprep.settings import RunSettings

pytestmark = pytest.mark.browser

CORES = {'sub-1': (10, 4), 'sub-2': (60, 40), 'sub-3': (110, 70), 'sub-4': (0, 0), 'sub-5': (9, 8),
         'sub-6': (30, 27), 'sub-7': (80, 71)}  # fmt: skip
WITHHELD = {'sub-9': (50, 'n/a')}


@pytest.fixture(scope='module')
def group_page(tmp_path_factory):
    folder = tmp_path_factory.mktemp('cohort')
    raw, out = folder / 'raw', folder / 'out'
    raw.mkdir()
    rows = ['participant_id\tmicroangiopathy\tstroke_evident']
    for index, (participant, (core_global, core_local)) in enumerate((CORES | WITHHELD).items()):
        (out / participant / 'ct').mkdir(parents=True)
        (out / participant / 'ct' / f'{participant}_seg-perfusion_morph.tsv').write_text(
            'region\tnormalization\tmeasure\tthreshold\tvolume_ml\treason\n'
            f'core\tglobal\tvolume\t0.3\t{core_global}\tn/a\n'
            f'core\tlocal\tvolume\t0.3\t{core_local}\t'
            f'{"withheld: it folds" if core_local == "n/a" else "n/a"}\n'
            f'hypoperfusion\tn/a\tvolume\t6.0\t{core_global + 20}\tn/a\n'
        )
        status = ('pass', 'warn', 'fail')[index % 3]
        (out / participant / 'ct' / f'{participant}_desc-qualitycontrol_ctp.tsv').write_text(
            f'status\tcaution\tnoise\tnoise_status\n{status}\tn/a\t{index}\t{status}\n'
        )
        (out / f'{participant}.html').write_text(f'<title>{participant}</title>')
        rows.append(
            f'{participant}\t{("yes", "no")[index > 2]}\t{("yes", "no")[core_global == 0]}'
        )
    (raw / 'sub-8').mkdir()
    (raw / 'participants.tsv').write_text('\n'.join(rows) + '\n')
    run_group_level(RunSettings(raw, out, folder / 'work'))
    return out / 'group.html'


@pytest.fixture
def page(browser, group_page):
    page = browser.open(group_page)
    yield page
    page.check()
    page.close()


def visible_cells(page, column):
    return page.evaluate(
        '[...document.querySelectorAll("#table tbody tr")].filter((r) => !r.hidden)'
        f'.map((r) => r.cells[{column}].textContent)'
    )


def points(page, plot):
    """Return the points of a plot: [x, y] by name."""
    return page.evaluate(
        f'Object.fromEntries(document.getElementById("{plot}").data.filter((t) => t.mode === "markers")'
        '.flatMap((t) => t.text.map((name, i) => [name, [t.x[i], t.y[i]]])))'
    )


def test_plots_show_the_cores(page):
    # a series without a local core is not drawn
    assert points(page, 'scatter') == {name: list(cores) for name, cores in CORES.items()}
    agreement = points(page, 'bland-altman')
    assert agreement['sub-3'] == [90, -40]
    drawn = page.evaluate('document.querySelectorAll("#scatter .scatterlayer .point").length')
    assert drawn == len(CORES)


def test_checks_have_the_colours_of_grades(page):
    assert page.text('#all-passed') == '0 of 1 checks pass wherever they apply; the others:'
    colours = 'document.getElementById("checks").data.map((t) => t.marker.color)'
    assert page.evaluate(colours) == list(GRADES.values())


def test_cohort_without_graded_series_has_no_count_of_checks(browser, group_page, tmp_path):
    out = shutil.copytree(group_page.parent, tmp_path / 'out')
    for path in out.glob('sub-*/ct/*_desc-qualitycontrol_ctp.tsv'):
        path.unlink()
    run_group_level(RunSettings(group_page.parent.parent / 'raw', out, tmp_path / 'work'))
    bare = browser.open(out / 'group.html')
    assert bare.text('#all-passed') == ''
    assert bare.evaluate('document.getElementById("checks").hidden')
    bare.close()


def test_counts_of_checks_are_on_round_ticks(page):
    ticks = page.evaluate(
        '[...document.querySelectorAll("#checks .xtick text")].map((t) => Number(t.textContent))'
    )
    assert ticks[:3] == [0, 1, 2]


@pytest.mark.parametrize('width', [1400, 800, 390])
def test_verdicts_of_the_cohort_are_seen_without_scrolling(browser, group_page, width):
    page = browser.open(group_page, width=width, height=1000 if width > 500 else 844)
    tiles = page.evaluate(
        '[...document.querySelectorAll(".tile")].map((t) => [t.innerText.replace(/\\s+/, " "),'
        ' t.getBoundingClientRect().bottom <= innerHeight])'
    )
    assert [text.partition(' ')[2] for text, _ in tiles] == [
        'usable', 'look first', 'do not use', 'no finished run',
    ]  # fmt: skip
    assert all(seen for _, seen in tiles)
    page.check()
    page.close()


def test_regression_lines_match_the_statistics(page):
    # x 10, 60, 110 and y 4, 40, 70: slope 0.66 through (60, 38)
    x, y = page.evaluate(
        '(() => { const t = document.getElementById("scatter").data'
        '.find((t) => t.name === "regression" && t.x[1] === 110); return [t.x, t.y]; })()'
    )
    assert x == [10, 110]
    assert y == pytest.approx([38 - 0.66 * 50, 38 + 0.66 * 50])


def test_limits_of_many_groups_are_not_labeled(browser, page, group_page, tmp_path):
    labels = 'document.getElementById("bland-altman").layout.annotations.length'
    assert page.evaluate(labels) == 6
    out = shutil.copytree(group_page.parent, tmp_path / 'out')
    # three series per site: the minimum for limits of agreement
    raw = tmp_path / 'raw'
    raw.mkdir()
    rows = ['participant_id\tsite']
    for name in CORES:
        for copy in 'abc':
            shutil.copytree(out / name, out / f'{name}{copy}')
            for path in (out / f'{name}{copy}' / 'ct').iterdir():
                path.rename(path.with_name(path.name.replace(name, f'{name}{copy}')))
            rows.append(f'{name}{copy}\t{name}')
    (raw / 'participants.tsv').write_text('\n'.join(rows) + '\n')
    run_group_level(RunSettings(raw, out, tmp_path / 'work', group_column='site'))
    many = browser.open(out / 'group.html')
    drawn = 'document.getElementById("bland-altman").data.filter((t) => t.name === "+2 SD").length'
    assert many.evaluate(drawn) == 7
    assert many.evaluate(labels) == 0
    many.close()


def test_set_with_evident_stroke_excludes_other_series(page):
    page.click('button[data-set="evident stroke"]')
    assert set(points(page, 'scatter')) == set(CORES) - {'sub-4'}
    assert (
        page.evaluate('document.querySelector("[aria-pressed=true]").textContent')
        == 'evident stroke'
    )


def test_table_sorts_both_ways_with_missing_values_last(page):
    page.click('th[data-column="core_global"] button')
    volumes = ['0.0', '9.0', '10.0', '30.0', '50.0', '60.0', '80.0', '110.0']
    assert visible_cells(page, 5) == [*volumes, '']
    page.click('th[data-column="core_global"] button')
    assert visible_cells(page, 5) == [*reversed(volumes), '']
    page.click('th[data-column="verdict"] button')
    verdicts = ['usable'] * 3 + ['look first'] * 3 + ['do not use'] * 2
    assert visible_cells(page, 1) == [*verdicts, '']


def test_table_filters_by_words_volumes_and_grades(page):
    page.type_text('#filter', 'not processed')
    assert visible_cells(page, 0) == ['sub-8']
    page.type_text('#filter', 'core global >= 60')
    assert visible_cells(page, 0) == ['sub-2', 'sub-3', 'sub-7']
    assert page.text('#count') == '3 of 9 series'
    page.type_text('#filter', '')
    page.evaluate(
        '(() => { const s = document.getElementById("only-verdict"); s.value = "do not use";'
        ' s.dispatchEvent(new Event("input")); })()'
    )
    assert visible_cells(page, 0) == ['sub-3', 'sub-6']


@pytest.mark.parametrize(('link', 'expected', 'reason'), [
    ('[data-verdict="do not use"]', ['sub-3', 'sub-6'], 'The check noise fails'),
    ('[data-verdict="none"]', ['sub-8'], 'not processed'),
    ('[data-state="local map withheld"]', ['sub-9'], 'local map withheld: it folds'),
])  # fmt: skip
def test_click_on_a_count_lists_its_series_and_why(page, link, expected, reason):
    # not typed: the page would still scroll to the focused field while the link is clicked
    page.evaluate(
        '(() => { const f = document.getElementById("filter"); f.value = "sub-1";'
        ' f.dispatchEvent(new Event("input")); })()'
    )
    count = page.text(f'#included {link}').split()[0]
    page.click(f'#included {link}')
    page.wait_for(
        f'document.getElementById("count").textContent.startsWith("{count} of")'
        ' && !document.getElementById("filter").value'
    )
    assert visible_cells(page, 0) == expected
    assert int(count) == len(expected)
    assert all(reason in text for text in visible_cells(page, 11))
    page.wait_for('document.getElementById("series").getBoundingClientRect().top < innerHeight')


def test_boxes_show_every_volume_of_all_series_that_have_it(page):
    shown = page.evaluate(
        'document.getElementById("boxes").data.flatMap((t) => [...t.x])'
        '.reduce((counts, x) => ({ ...counts, [x]: (counts[x] ?? 0) + 1 }), {})'
    )
    assert shown == {'core global': 8, 'core local': 7, 'hypoperfusion': 8}


def test_group_selector_matches_whole_names(page):
    page.evaluate(
        '(() => { const s = document.getElementById("only-group"); s.value = "microangiopathy";'
        ' s.dispatchEvent(new Event("input")); })()'
    )
    assert visible_cells(page, 0) == ['sub-1', 'sub-2', 'sub-3']
    options = page.evaluate(
        '[...document.getElementById("only-group").options].map((o) => o.textContent)'
    )
    assert options == ['any', 'microangiopathy', 'no microangiopathy', 'not known']


@pytest.mark.parametrize(('text', 'expected'), [
    ('core global, mL >= 60', ['sub-2', 'sub-3', 'sub-7']),
    ('Core global >= 60,5', ['sub-3', 'sub-7']),
    ('core global > 20 and core local < 50', ['sub-2', 'sub-6']),
    ('verdict = look first', ['sub-2', 'sub-5', 'sub-9']),
    ('sub-2 local - global <= -5', ['sub-2']),
    ('group = microangiopathy core global > 50', ['sub-2', 'sub-3']),
    ('state = not processed', ['sub-8']),
    ('stroke = no', ['sub-4']),
    ('stroke = "not known"', ['sub-8']),
])  # fmt: skip
def test_conditions_accept_headings_words_and_decimal_commas(page, text, expected):
    page.type_text('#filter', text)
    assert visible_cells(page, 0) == expected
    assert page.text('#filter-message') == ''


@pytest.mark.parametrize(
    'text', ['core global > many', 'core > 70', 'core global > 1.2.3', 'sub-2 tmax=6']
)
def test_unclear_filter_shows_a_message(page, text):
    page.type_text('#filter', text)
    assert page.text('#filter-message').startswith('Not understood, and not used: ')
    assert len(visible_cells(page, 0)) == 9
    page.type_text('#filter', 'sub-2')
    assert page.text('#filter-message') == ''


def test_plots_have_labels_and_the_count_is_a_status(page):
    assert page.evaluate(
        '[...document.querySelectorAll(".plot")].every((p) => p.getAttribute("role") === "img"'
        ' && p.getAttribute("aria-label"))'
    )
    assert page.evaluate('document.getElementById("count").getAttribute("role")') == 'status'


def test_click_on_a_point_opens_the_report(browser, group_page):
    page = browser.open(group_page)
    page.point('#scatter')
    index = list(points(page, 'scatter')).index('sub-2')
    x, y = page.evaluate(
        '(() => { const all = [...document.querySelectorAll("#scatter .point")];'
        f' const r = all[{index}].getBoundingClientRect();'
        ' return [r.x + r.width / 2, r.y + r.height / 2]; })()'
    )
    for kind, more in (('mouseMoved', {}), ('mousePressed', {'button': 'left', 'clickCount': 1}),
                       ('mouseReleased', {'button': 'left', 'clickCount': 1})):  # fmt: skip
        page.send('Input.dispatchMouseEvent', type=kind, x=x, y=y, **more)
    page.wait_for('document.title === "sub-2"')
    assert page.evaluate('location.hash') == '#sub-2'


def test_series_to_review_link_to_their_reports(page):
    links = page.evaluate(
        '[...document.querySelectorAll(".outliers a")].map((a) => a.getAttribute("href"))'
    )
    assert {'sub-3.html#sub-3', 'sub-6.html#sub-6'} <= set(links)
    assert page.text('.research').startswith('Research use only')
    assert 'not validated for local maps' in page.text('.cautions')


def test_picture_and_tables_remain_without_scripts(browser, group_page):
    page = browser.open(group_page, scripts=False)
    assert page.evaluate('document.querySelector(".picture").naturalWidth') > 500
    assert len(visible_cells(page, 0)) == len(CORES | WITHHELD) + 1
    selectors = ('.filters', '#distributions', 'nav [href="#distributions"]')
    for selector in selectors:
        style = page.evaluate(f'getComputedStyle(document.querySelector({selector!r})).display')
        assert style == 'none'
    assert page.evaluate('document.querySelectorAll("button:not(.scripted *)").length') == 0
    assert page.evaluate('document.querySelector("#table th").textContent') == 'series'
    page.check()


def test_printed_plots_are_as_wide_as_the_paper(browser, group_page):
    page = browser.open(group_page, width=1400)
    widths = '[...document.querySelectorAll(".plot .main-svg")].map((s) => s.clientWidth)'
    before = page.evaluate(widths)
    page.send('Emulation.setEmulatedMedia', media='print')
    page.evaluate('window.dispatchEvent(new Event("beforeprint"))')
    page.wait_for(f'{widths}.every((width) => width <= 700)')
    assert page.evaluate('getComputedStyle(document.querySelector(".filters")).display') == 'none'
    page.send('Emulation.setEmulatedMedia', media='')
    page.evaluate('window.dispatchEvent(new Event("afterprint"))')
    page.wait_for(
        f'JSON.stringify({widths}) === {json.dumps(json.dumps(before, separators=(",", ":")))}'
    )
    page.check()
    page.close()


@pytest.mark.parametrize('width', [1400, 800, 390])
def test_page_is_not_wider_than_the_window(browser, group_page, width):
    page = browser.open(group_page, width=width)
    assert page.evaluate('document.documentElement.scrollWidth') <= width
