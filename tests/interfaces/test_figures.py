# SPDX-License-Identifier: Apache-2.0
"""PlotSeries: which files lead to which figures."""

from pathlib import Path

import nibabel as nb
import numpy as np
import pytest

from ctpprep.figures import save_svg
from ctpprep.interfaces.figures import PlotSeries

SHAPE = (20, 24, 6)
AFFINE = np.diag([-2.0, -2.0, 5.0, 1.0])  # LPS, as scanners store it


@pytest.fixture
def series(tmp_path, monkeypatch):
    """Files of a small series, by input name, in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    x, y, _ = np.indices(SHAPE)
    brain = ((x - 10) / 8) ** 2 + ((y - 12) / 10) ** 2 <= 1
    core = brain & (x > 14)
    images = {
        'brain_mask': brain,
        'tissue_mask': brain,
        'core_global': core,
        'core_local': core,
        'hypoperfusion': brain & (x > 12),
        'aif_mask': core & (y == 12),
        'hemispheres': np.where(x < 10, 2, 1) * brain,
    }
    greys = ('reference', 'reference_reflected', 'homologue_reference')
    images |= dict.fromkeys((*greys, 'cbf', 'cbv'), brain * 30.0)
    images |= dict.fromkeys(('mtt', 'tmax', 'rcbf_global', 'rcbf_local'), brain * 1.0)
    paths = {}
    for name, values in images.items():
        stored = values.astype(np.float32 if values.dtype.kind == 'f' else np.uint8)
        paths[name] = str(tmp_path / f'{name}.nii.gz')
        nb.save(nb.Nifti1Image(stored, AFFINE), paths[name])
    tables = {
        'curves': 'time\taif\tvof\n0\t0\t0\n1.5\t200\t150\n',
        'confounds': 'trans_x\tframewise_displacement\tweight\n0\tn/a\t1\n0.5\t0.5\t0\n',
        'volumes': 'region\taffected_side\ncore\tleft\n',
    }
    for name, text in tables.items():
        paths[name] = str(tmp_path / f'{name}.tsv')
        Path(paths[name]).write_text(text)
    return paths


@pytest.fixture
def render_only(monkeypatch):
    """Function that leaves all files of figures but one empty: rendering is slow."""

    def render_only(name=None):
        def save(figure, path):
            if f'desc-{name}_' in path.name:
                return save_svg(figure, path)
            path.touch()
            return path

        monkeypatch.setattr('ctpprep.figures.save_svg', save)

    return render_only


def draw(**inputs):
    """Run the interface; what was drawn, by name."""
    paths = PlotSeries(prefix='sub-01', **inputs).run().outputs.figures
    return {Path(path).name.split('_')[1].removeprefix('desc-'): Path(path) for path in paths}


def test_every_figure_is_drawn_from_its_files(series):
    drawn = draw(**series)
    expected = {'maps', 'rcbf', 'lesions', 'curves', 'motion', 'masks', 'mirror', 'tmaxhist'}
    assert drawn.keys() == expected
    assert drawn['maps'].name == 'sub-01_desc-maps_ctp.svg'


@pytest.mark.parametrize(
    ('missing', 'figure'),
    [
        ('curves', 'curves'),
        ('confounds', 'motion'),
        ('homologue_reference', 'mirror'),
        ('rcbf_global', 'rcbf'),
        ('hypoperfusion', 'lesions'),
        ('hemispheres', 'tmaxhist'),
    ],
)
def test_missing_file_leaves_out_its_figure_alone(series, missing, figure, render_only):
    render_only()
    del series[missing]
    drawn = draw(**series)
    assert figure not in drawn
    assert 'masks' in drawn


def test_withheld_local_map_is_not_drawn(series, render_only):
    render_only('rcbf')
    for name in ('rcbf_local', 'core_local', 'unassessable_mask'):
        series.pop(name, None)
    drawn = draw(**series)
    assert drawn.keys() == {
        'maps', 'rcbf', 'lesions', 'curves', 'motion', 'masks', 'mirror', 'tmaxhist',
    }  # fmt: skip
    assert 'local' not in drawn['rcbf'].read_text()


def test_empty_brain_mask_leaves_out_the_mosaics(series):
    empty = nb.Nifti1Image(np.zeros(SHAPE, np.uint8), AFFINE)
    nb.save(empty, series['brain_mask'])
    assert draw(**series).keys() == {'curves', 'motion', 'tmaxhist'}


def test_affected_side_comes_from_the_table_of_volumes(series):
    names = ('tmax', 'hemispheres', 'tissue_mask', 'volumes')
    drawn = draw(**{name: series[name] for name in names})
    assert 'left hemisphere, median 1.0 s (affected side)' in drawn['tmaxhist'].read_text()


def test_absent_vof_is_not_in_the_legend(series):
    Path(series['curves']).write_text('time\taif\tvof\n0\t0\tn/a\n1.5\t200\tn/a\n')
    text = draw(curves=series['curves'])['curves'].read_text()
    assert 'AIF, ends at' in text
    assert 'VOF' not in text.replace('AIF, VOF: enhancement', '')


def test_map_in_place_of_a_ct_has_no_hu(series, tmp_path, render_only):
    render_only('masks')

    def scales(**inputs):
        return draw(**series, **inputs)['masks'].read_text().count('HU')

    entry = tmp_path / 'entry.json'
    entry.write_text('{"reference_image_from": "ncct"}')
    assert scales() == scales(entry=str(entry)) > 0
    entry.write_text('{"reference_image_from": "cbv"}')
    assert scales(entry=str(entry)) == 0


def test_fine_voxels_do_not_enlarge_the_pictures(series, render_only):
    render_only('maps')
    coarse = draw(**series)['maps'].stat().st_size
    for path in series.values():
        if path.endswith('.nii.gz'):
            image = nb.load(path)
            fine = np.repeat(np.repeat(np.asarray(image.dataobj), 5, axis=0), 5, axis=1)
            nb.save(nb.Nifti1Image(fine, AFFINE @ np.diag([0.2, 0.2, 1, 1])), path)
    assert draw(**series)['maps'].stat().st_size < 6 * coarse


def test_figures_are_the_same_for_any_number_of_processes(series):
    one, three = (
        {name: path.read_bytes() for name, path in draw(**series, num_threads=n).items()}
        for n in (1, 3)
    )
    assert one == three


@pytest.mark.parametrize('local_only', [True, False])
def test_summary_is_a_figure_and_a_page_that_mark_core_of_the_local_map(
    series, render_only, local_only
):
    render_only('summary')
    if local_only:
        series['core_local'] = series['hypoperfusion']
    columns = (
        'region\themisphere\tnormalization\tmeasure\tthreshold\tvolume_ml\taffected_side\treason\n'
    )
    Path(series['volumes']).write_text(
        columns
        + 'core\tleft\tglobal\tvolume\t0.3\t12.5\tleft\tn/a\n'
        + 'core\tleft\tlocal\tvolume\t0.3\t12.5\tleft\tn/a\n'
    )
    quality = Path(series['volumes']).with_name('quality.tsv')
    quality.write_text('coverage\tcoverage_status\n80\tpass\n')
    paths = PlotSeries(prefix='sub-01', quality=str(quality), **series).run().outputs.figures
    found = {Path(path).suffix: Path(path) for path in paths if 'desc-summary' in path}
    assert found.keys() == {'.pdf', '.png', '.svg'}
    assert ('local only' in found['.svg'].read_text()) == local_only
