# SPDX-License-Identifier: Apache-2.0
"""The viewer in a browser: it shows the values of the files."""

import json
from pathlib import Path
from types import SimpleNamespace

import matplotlib as mpl
import nibabel as nb
import numpy as np
import pytest

from ctpprep.interfaces.viewer import PackViewer
from ctpprep.reports import build_report

pytestmark = pytest.mark.browser

SHAPE = (24, 30, 6)  # in the files, whose axes run left, posterior and superior
AFFINE = np.array([[-2.0, 0, 0, 23], [0, -2, 0, 29], [0, 0, 5, -10], [0, 0, 0, 1]])
TIMES = np.arange(0, 40, 2.0)
BOLUS, LATE = (np.exp(-(((TIMES - peak) / 5) ** 2)) for peak in (16, 26))
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="10" height="10"><rect width="9" height="9"/></svg>'
VIEW = 'document.querySelector(".view").viewer'


def make_head():
    """Make an asymmetric head with a distinct CBF in every voxel and a lesion on the left."""
    i, j, k = np.indices(SHAPE)
    x, y, _ = (np.indices(SHAPE).reshape(3, -1).T @ AFFINE[:3, :3].T + AFFINE[:3, 3]).T
    x, y = x.reshape(SHAPE), y.reshape(SHAPE)
    brain = (x / 18) ** 2 + (y / 24) ** 2 <= 1
    lesion = brain & (x < -5) & (y > 0)
    cbf = np.where(brain, 1 + i + 24 * (j + 30 * k), 0) / 50
    images = {
        'brain_mask': brain,
        'tissue_mask': brain,
        'hypoperfusion': lesion,
        'core_global': lesion & (y > 8),
        'core_local': lesion & (y > 12),
        'hemispheres': np.where(x < 0, 1, 2) * brain,
        'cbf': cbf,
        'tmax': np.where(lesion, 9.0, 2.0) * brain,
        'rcbf_global': cbf / 60,
        'rcbf_local': cbf / 50,
        'reference': 30 + 10 * brain + i / 10,
        'reference_reflected': 34 + 10 * brain - i / 10,
        'homologue_reference': 35 + 10 * brain - i / 10,
    }
    flat = np.stack([i, j, k], axis=-1) @ AFFINE[:3, :3].T + AFFINE[:3, 3]
    images['homologues'] = flat * (-1, 1, 1)
    return images


def write_head(folder):
    """Write a head as files, with its tissue curves as components; return paths by name."""
    paths = {}
    for name, values in make_head().items():
        stored = values.astype(np.float32 if values.dtype.kind == 'f' else np.uint8)
        paths[name] = str(folder / f'{name}.nii')
        nb.save(nb.Nifti1Image(stored, AFFINE), paths[name])
    tissue = nb.as_closest_canonical(nb.load(paths['tissue_mask'])).get_fdata() > 0
    scores = [
        nb.as_closest_canonical(nb.load(paths[name])).get_fdata()[tissue]
        for name in ('cbf', 'tmax')
    ]
    paths['tissue_curves'] = str(folder / 'tissue_curves.npz')
    np.savez(
        paths['tissue_curves'], scores=np.stack(scores, axis=-1), centres=np.zeros((1, TIMES.size)),
        components=np.stack([BOLUS, LATE], axis=-1)[None], times=TIMES[None],
        slice_pattern=np.zeros(SHAPE[2], int), kept=1.0,
    )  # fmt: skip
    rows = [f'{time:g}\t{300 * height:.4f}' for time, height in zip(TIMES, BOLUS, strict=True)]
    for name, text in (
        ('curves.tsv', '\n'.join(['time\taif', *rows])),
        ('symmetry.json', json.dumps({'withheld': ''})),
    ):
        (folder / name).write_text(text + '\n')
        paths[Path(name).stem] = str(folder / name)
    return paths


@pytest.fixture(scope='module')
def head(tmp_path_factory):
    """Files and page of a head, and the position of voxels of the files in the picture."""
    folder = tmp_path_factory.mktemp('head')
    figures = folder / 'out' / 'sub-01' / 'figures'
    figures.mkdir(parents=True)
    paths = write_head(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        packed = Path(PackViewer(prefix='sub-01', **paths).run().outputs.viewer)
    (figures / packed.name).write_text(packed.read_text())
    (figures / 'sub-01_desc-maps_ctp.svg').write_text(SVG)
    content = json.loads(packed.read_text())

    def value(name, voxel):
        return float(np.asarray(nb.load(paths[name]).dataobj)[voxel])

    def place(voxel, radiological=True):
        """Return the fractions of width and height at which the center of a voxel is drawn."""
        # the axes of the files run left and posterior, as in the radiological convention
        first = [SHAPE[axis] - content['origin'][axis] - content['shape'][axis] for axis in (0, 1)]
        across, down = (
            (voxel[axis] - first[axis] + 0.5) / content['shape'][axis] for axis in (0, 1)
        )
        return (across if radiological else 1 - across), down

    page = build_report(folder / 'out', '01', '', {})
    return SimpleNamespace(page=page, paths=paths, value=value, place=place, packed=packed)


@pytest.fixture
def page(browser, head):
    opened = browser.open(head.page)
    opened.box('figure.viewer')
    opened.wait_for('document.querySelector(".view[data-ready]") !== null')
    yield opened
    opened.check()
    opened.close()


def go_to(page, slice_number):
    page.evaluate(f'{VIEW}.goTo({slice_number})')


def read(page, what, of='voxel'):
    return page.evaluate(
        f'document.querySelector(\'[data-of="{of}"][data-what="{what}"]\').textContent'
    )


def stored(page, what, of='voxel'):
    return float(
        page.evaluate(
            f'document.querySelector(\'[data-of="{of}"][data-what="{what}"]\').dataset.value'
        )
    )


def colour(page, pane, place):
    """Return the color of the picture at a position on the screen."""
    return page.evaluate(
        f'(() => {{ const c = document.querySelector(\'[data-pane="{pane}"] canvas\');'
        f' return [...c.getContext("2d").getImageData(c.width * {place[0]}, c.height * {place[1]}, 1, 1)'
        '.data].slice(0, 3); })()'
    )


LESION, HEALTHY, SLICE = (18, 8, 2), (5, 8, 2), 2
SLIDER = 'input[aria-label="Slice"]'


@pytest.mark.parametrize('way', ['radiological', 'neurological'])
@pytest.mark.parametrize('voxel', [LESION, HEALTHY, (11, 22, 2)])
def test_value_under_the_pointer_matches_the_file(page, head, way, voxel):
    go_to(page, SLICE)
    page.click(f'input[value="{way}"]')
    page.hover('[data-pane="1"] canvas', *head.place(voxel, way == 'radiological'))
    assert read(page, 'files') == ', '.join(map(str, voxel))
    for name, scale in (('cbf', 1), ('tmax', 1), ('rcbf_local', 100), ('reference', 1)):
        expected = scale * head.value(name, voxel)
        assert stored(page, name) == pytest.approx(expected, rel=1e-3)
        assert float(read(page, name)) == pytest.approx(expected, rel=5e-3)


def test_left_is_on_the_right_unless_the_convention_is_changed(page, head):
    go_to(page, SLICE)
    right_half, left_half = head.place(LESION), head.place(LESION, radiological=False)
    assert right_half[0] > 0.5 > left_half[0]
    for way, place in (('radiological', right_half), ('neurological', left_half)):
        page.click(f'input[value="{way}"]')
        page.hover('[data-pane="0"] canvas', *place)
        assert read(page, 'inside').startswith('left')
        assert read(page, 'position').startswith('L ')


@pytest.mark.parametrize('way', ['radiological', 'neurological'])
def test_picture_shows_the_color_of_the_value(page, head, way):
    go_to(page, SLICE)
    page.click(f'input[value="{way}"]')
    page.evaluate(
        "document.querySelectorAll('input[type=checkbox]:checked').forEach((box) => box.click())"
    )
    page.evaluate(f'{VIEW}.choose({VIEW}.panes[0], "cbf")')
    voxel = (20, 12, 2)
    place = head.place(voxel, way == 'radiological')
    expected = mpl.colormaps['viridis'](head.value('cbf', voxel) / 100)[:3]
    assert colour(page, 0, place) == pytest.approx(255 * np.array(expected), abs=3)


def test_value_of_the_homologue_matches_the_file(page, head):
    go_to(page, SLICE)
    page.hover('[data-pane="0"] canvas', *head.place(LESION))
    assert read(page, 'files', 'homologue') == ', '.join(map(str, HEALTHY))
    assert stored(page, 'cbf', 'homologue') == pytest.approx(head.value('cbf', HEALTHY), rel=1e-3)
    assert read(page, 'inside', 'homologue') == 'right'


def test_wheel_slider_and_keys_change_the_slice_of_both_panes(page, head):
    go_to(page, SLICE)
    seen = 'document.querySelector(".view").dataset.slice'
    page.wheel('[data-pane="0"] canvas', -120)
    page.wait_for(f'{seen} === "3"')
    page.evaluate(f"document.querySelector('{SLIDER}').focus()")
    page.evaluate(
        f"(() => {{ const s = document.querySelector('{SLIDER}'); s.value = 1;"
        ' s.dispatchEvent(new Event("input")); })()'
    )
    assert page.evaluate(seen) == '1'
    page.evaluate('document.querySelector(\'[data-pane="0"] canvas\').focus()')
    page.press('PageUp')
    assert page.evaluate(seen) == '2'
    for pane in (0, 1):
        page.hover(f'[data-pane="{pane}"] canvas', *head.place(LESION))
        assert read(page, 'files').endswith(', 2')


def test_panes_that_both_show_rcbf_share_their_window(page):
    upper = [f'[data-pane="{pane}"] input[data-end="upper"]' for pane in (0, 1)]
    assert [page.evaluate(f"document.querySelector('{selector}').value") for selector in upper] == [
        '150', '150',
    ]  # fmt: skip
    page.type_text(upper[0], '60')
    page.evaluate('document.activeElement.blur()')
    assert page.evaluate(f"document.querySelector('{upper[1]}').value") == '60'
    page.click('[data-pane="1"] button')
    assert page.evaluate(f"document.querySelector('{upper[0]}').value") == '150'


def test_reversed_window_is_restored(page):
    lower = '[data-pane="0"] input[data-end="lower"]'
    page.type_text(lower, '500')
    page.evaluate('document.activeElement.blur()')
    assert page.evaluate(f"document.querySelector('{lower}').value") == '0'


def show_plane(page, plane, way='radiological'):
    page.click(f'.planes button[data-plane="{plane}"]')
    page.click(f'input[value="{way}"]')


def place_in(head, voxel, plane, way='radiological'):
    """Return fractions of width and height at which a voxel of the files is drawn in a plane."""
    # the third axis of the files runs up, the others left and posterior: as pictures of R and A on the left
    content = json.loads(head.packed.read_text())
    across, down = {'coronal': (0, 2), 'sagittal': (1, 2)}[plane]
    first = [SHAPE[axis] - content['origin'][axis] - content['shape'][axis] for axis in (0, 1)]
    first.append(content['origin'][2])
    columns, rows = content['shape'][across], content['shape'][down]
    column = (voxel[across] - first[across] + 0.5) / columns
    if plane == 'coronal' and way == 'neurological':
        column = 1 - column
    return column, 1 - (voxel[down] - first[down] + 0.5) / rows


def test_letters_name_the_sides_of_every_plane(page):
    for plane, way, letters in (
        ('axial', 'radiological', 'RLAP'), ('axial', 'neurological', 'LRAP'),
        ('coronal', 'radiological', 'RLSI'), ('coronal', 'neurological', 'LRSI'),
        ('sagittal', 'radiological', 'APSI'), ('sagittal', 'neurological', 'APSI'),
    ):  # fmt: skip
        show_plane(page, plane, way)
        assert page.evaluate('document.querySelector(".view").dataset.letters') == letters


@pytest.mark.parametrize('plane', ['coronal', 'sagittal'])
def test_value_under_the_pointer_matches_the_file_in_every_plane(page, head, plane):
    for voxel in (LESION, HEALTHY):
        show_plane(page, 'axial')
        go_to(page, SLICE)
        page.hover('[data-pane="0"] canvas', *head.place(voxel))
        other = (11, voxel[1], 1) if plane == 'coronal' else (voxel[0], 11, 1)
        for way in ('radiological', 'neurological'):
            show_plane(page, plane, way)
            page.hover('[data-pane="1"] canvas', *place_in(head, voxel, plane, way))
            assert read(page, 'files') == ', '.join(map(str, voxel))
            page.hover('[data-pane="1"] canvas', *place_in(head, other, plane, way))
            assert read(page, 'files') == ', '.join(map(str, other))
            assert stored(page, 'cbf') == pytest.approx(head.value('cbf', other), rel=1e-3)


def test_planes_run_through_the_marked_voxel(page, head):
    go_to(page, SLICE)
    page.hover('[data-pane="0"] canvas', *head.place(LESION))
    for plane in ('coronal', 'sagittal', 'axial'):
        page.click(f'.planes button[data-plane="{plane}"]')
        assert read(page, 'files') == ', '.join(map(str, LESION))
        slice_of_voxel = page.evaluate(f'{VIEW}.onScreen({VIEW}.cursor)[2] === {VIEW}.slice')
        assert slice_of_voxel


@pytest.mark.parametrize('plane', ['coronal', 'sagittal'])
def test_reformat_shows_the_color_of_the_value(page, head, plane):
    go_to(page, SLICE)
    page.evaluate(
        "document.querySelectorAll('input[type=checkbox]:checked').forEach((box) => box.click())"
    )
    page.evaluate(f'{VIEW}.choose({VIEW}.panes[0], "cbf")')
    page.hover('[data-pane="0"] canvas', *head.place(HEALTHY))
    page.evaluate(f'{VIEW}.turnTo("{plane}")')
    voxel = (*HEALTHY[:2], 4)
    expected = mpl.colormaps['viridis'](head.value('cbf', voxel) / 100)[:3]
    shown = colour(page, 0, place_in(head, voxel, plane))
    assert shown == pytest.approx(255 * np.array(expected), abs=3)


def test_pictures_keep_the_proportions_of_the_head(page, head):
    shape = json.loads(head.packed.read_text())['shape']
    for plane, (across, up) in {'axial': (0, 1), 'coronal': (0, 2), 'sagittal': (1, 2)}.items():
        show_plane(page, plane)
        ratio = page.evaluate(
            '(() => { const r = document.querySelector("[data-pane=\\"0\\"] canvas").getBoundingClientRect();'
            ' return r.width / r.height; })()'
        )
        size = (2, 2, 5)
        assert ratio == pytest.approx(
            shape[across] * size[across] / (shape[up] * size[up]), rel=0.02
        )


def test_scale_bar_has_the_length_it_names(page, head):
    shape = json.loads(head.packed.read_text())['shape']
    wide, white = page.evaluate("""(() => {
        const c = document.querySelector('[data-pane="0"] canvas');
        const row = c.getContext('2d').getImageData(0, c.height - 8 * devicePixelRatio, c.width, 1).data;
        let white = 0;
        for (let x = c.width / 2; x < c.width; x += 1) white += row[4 * x] > 250;
        return [c.width, white]; })()""")
    bar = float(page.evaluate('document.querySelector(".view").dataset.bar'))
    assert white == pytest.approx(bar / (2 * shape[0]) * wide, abs=3)


def test_keys_move_in_the_plane_that_is_shown(page, head):
    go_to(page, SLICE)
    page.hover('[data-pane="0"] canvas', *head.place(LESION))
    show_plane(page, 'sagittal')
    page.evaluate('document.querySelector(\'[data-pane="0"] canvas\').focus()')
    page.press('ArrowUp')  # superior
    page.press('ArrowRight')  # posterior, since A is on the left
    page.press('PageUp')  # right, against the first axis of the files
    assert read(page, 'files') == f'{LESION[0] - 1}, {LESION[1] + 1}, {LESION[2] + 1}'


def test_rainbow_colors_are_optional_and_leave_ct_grey(page, head):
    go_to(page, SLICE)
    page.evaluate(
        "document.querySelectorAll('input[type=checkbox]:checked').forEach((box) => box.click())"
    )
    page.evaluate(f'{VIEW}.choose({VIEW}.panes[0], "cbf")')
    page.evaluate(f'{VIEW}.choose({VIEW}.panes[1], "reference")')
    voxel = (20, 12, 2)
    grey = colour(page, 1, head.place(voxel))
    page.evaluate(
        '(() => { const s = document.querySelector("[aria-label=Colours]"); s.value = "rainbow";'
        ' s.dispatchEvent(new Event("change")); })()'
    )
    expected = mpl.colormaps['turbo'](head.value('cbf', voxel) / 100)[:3]
    assert colour(page, 0, head.place(voxel)) == pytest.approx(255 * np.array(expected), abs=3)
    assert colour(page, 1, head.place(voxel)) == grey


def test_crosshair_runs_through_the_voxel(page, head):
    go_to(page, SLICE)
    page.hover('[data-pane="0"] canvas', *head.place(LESION))
    place = (0.02, head.place(LESION)[1])  # in air
    assert colour(page, 0, place) == [0, 0, 0]
    page.click('input[value="crosshair"]')
    assert min(colour(page, 0, place)) > 50


def test_list_selects_the_map_of_a_pane(page, head):
    go_to(page, SLICE)
    before = colour(page, 1, head.place((11, 22, 2)))
    page.evaluate(
        '(() => { const s = document.querySelectorAll(".pane select")[1]; s.value = "tmax";'
        ' s.dispatchEvent(new Event("change")); })()'
    )
    assert page.text('[data-pane="1"] .unit') == 's'
    expected = mpl.colormaps['plasma'](2 / 12)[:3]
    after = colour(page, 1, head.place((11, 22, 2)))
    assert after == pytest.approx(255 * np.array(expected), abs=3)
    assert after != before


def test_mismatch_is_filled_when_checked(page, head):
    go_to(page, SLICE)
    mismatch, core = head.place((18, 12, 2)), head.place((16, 5, 2))
    before = [colour(page, 0, place) for place in (mismatch, core)]
    page.click('input[value="mismatch_global"]')
    after = [colour(page, 0, place) for place in (mismatch, core)]
    assert after[0] != before[0]
    assert after[1] == before[1]


def test_click_draws_the_curves_of_voxel_and_homologue(page, head):
    go_to(page, SLICE)
    page.click('[data-pane="0"] canvas', *head.place(LESION))
    page.wait_for('document.querySelector(".view").dataset.curves === "3"')
    drawn = page.evaluate('document.querySelector(".plot").data.map((t) => [t.name, [...t.y]])')
    assert [name.split()[0] for name, _ in drawn] == ['Voxel', 'Homologue', 'AIF']
    for (_, heights), voxel in zip(drawn, (LESION, HEALTHY), strict=False):
        expected = head.value('cbf', voxel) * BOLUS + head.value('tmax', voxel) * LATE
        np.testing.assert_allclose(heights, expected, rtol=1e-2, atol=0.02)


def test_flicker_alternates_reference_and_mirror_image(page):
    chosen = 'document.querySelectorAll(".pane select")[1].value'
    before = page.evaluate(chosen)
    for name in ('reference_reflected', 'homologue_reference'):
        page.click(f'.flicker[data-of="{name}"]')
        page.wait_for(f'{chosen} === "{name}"')
        page.wait_for(f'{chosen} === "reference"')
    page.click('.flicker[data-of="homologue_reference"]')
    pressed = '[...document.querySelectorAll(".flicker")].map((button) => button.ariaPressed)'
    assert page.evaluate(pressed) == ['false', 'false']
    assert page.evaluate(chosen) == before


def test_emptied_limit_of_the_window_is_restored(page):
    end = '[data-pane="0"] input[data-end="lower"]'
    page.type_text(end, '20')
    page.press('Tab')
    page.evaluate(f"""(() => {{ const e = document.querySelector('{end}');
        e.value = ''; e.dispatchEvent(new Event('change')); }})()""")
    assert page.evaluate(f"document.querySelector('{end}').value") == '20'


def test_values_reached_by_keys_are_announced(page):
    page.evaluate('document.querySelector("[data-pane=\\"0\\"] canvas").focus()')
    page.press('ArrowUp')
    assert 'homologue' in page.evaluate('document.querySelector(".spoken[aria-live]").textContent')


def test_pictures_remain_without_scripts(browser, head):
    page = browser.open(head.page, scripts=False)
    document = page.send('DOM.getDocument', depth=0)['root']
    node = page.send('DOM.querySelector', nodeId=document['nodeId'], selector='.view')
    with pytest.raises(AssertionError):  # the element has no layout
        page.send('DOM.getBoxModel', nodeId=node['nodeId'])
    node = page.send('DOM.querySelector', nodeId=document['nodeId'], selector='noscript p')
    assert page.send('DOM.getBoxModel', nodeId=node['nodeId'])['model']['height'] > 0
    node = page.send('DOM.querySelector', nodeId=document['nodeId'], selector='figure img')
    assert page.send('DOM.getBoxModel', nodeId=node['nodeId'])['model']['height'] > 0
    page.check()
    page.close()


def test_markup_in_a_label_is_shown_as_text(browser, head, tmp_path):
    label = '<img src=x onerror="document.title = 1">'
    figures = tmp_path / f'sub-{label}' / 'figures'
    figures.mkdir(parents=True)
    (figures / f'sub-{label}_desc-viewer_ctp.json').write_text(head.packed.read_text())
    page = browser.open(build_report(tmp_path, label, '', {}))
    page.box('figure.viewer')
    page.wait_for('document.querySelector(".view[data-ready]") !== null')
    assert page.text('section.series h2') == f'sub-{label}'
    assert page.evaluate('document.title') == f'CT perfusion report: sub-{label}'
    page.check()
    page.close()


def test_script_outside_the_policy_does_not_run(page):
    page.evaluate(
        '(() => { const s = document.createElement("script"); s.textContent = "window.ran = 1";'
        ' document.body.append(s); })()'
    )
    assert page.evaluate('window.ran') is None
    assert any('Content Security Policy' in error for error in page.errors)
    page.errors.clear()
