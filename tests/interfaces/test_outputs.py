# SPDX-License-Identifier: Apache-2.0
"""Files are written completely, with their sidecars, or not at all."""

import json
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest

from ctpprep.interfaces.outputs import WriteDerivatives, WriteFigures


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def row(name, ending, **changed):
    return {
        'name': name, 'path': f'sub-1/ct/sub-1_{ending}', 'sidecar': {'Description': name},
        'made_from': {}, 'facts': [], 'fields': [], 'labels': {},
    } | changed  # fmt: skip


def write(rows, **sources):
    """Run the writer; give the folder of its files."""
    names = {row['name'] for row in rows}
    names |= {
        port for row in rows for kind in ('facts', 'fields', 'made_from') for port in row[kind]
    }
    writer = WriteDerivatives(
        names=sorted(names), rows=rows, output_dir=str(Path('out').absolute())
    )
    for name, source in sources.items():
        setattr(writer.inputs, name, str(Path(source).absolute()))
    writer.run()
    return Path('out/sub-1/ct')


def image(voxels, path):
    nb.save(nb.Nifti1Image(voxels, np.diag([-2.0, -2, 5, 1])), path)
    return path


def stored(path):
    image = nb.load(path)
    return image, np.asarray(image.dataobj)


def read_sidecar(folder, name):
    return json.loads((folder / f'sub-1_{name}.json').read_text())


# -- images


def test_maps_are_compressed_single_floats_without_nan():
    voxels = np.full((3, 3, 3), 2.5, np.float64)
    voxels[0] = np.nan
    folder = write([row('cbf', 'cbf.nii.gz')], cbf=image(voxels, 'cbf.nii'))
    written, values = stored(folder / 'sub-1_cbf.nii.gz')
    assert written.get_data_dtype() == np.float32
    assert not values[0].any()
    assert (values[1:] == 2.5).all()
    np.testing.assert_allclose(written.affine, np.diag([-2.0, -2, 5, 1]))


def test_masks_are_bytes():
    source = image(np.ones((2, 2, 2), np.uint8), 'mask.nii')
    folder = write([row('mask', 'desc-brain_mask.nii.gz')], mask=source)
    written, values = stored(folder / 'sub-1_desc-brain_mask.nii.gz')
    assert written.get_data_dtype() == np.uint8
    assert (values == 1).all()


def test_a_series_keeps_a_sixteenth_of_a_hu_and_its_time():
    rng = np.random.default_rng(0)
    voxels = rng.uniform(-1024, 3000, (4, 4, 4, 12)).astype(np.float32)
    voxels[0, 0, 0, 3] = np.nan
    series = nb.Nifti1Image(voxels, np.eye(4))
    series.header.set_xyzt_units('mm', 'sec')
    series.header['pixdim'][4] = 1.5
    nb.save(series, 'ctp.nii')
    folder = write([row('ctp', 'desc-preproc_ctp.nii.gz')], ctp='ctp.nii')
    written, values = stored(folder / 'sub-1_desc-preproc_ctp.nii.gz')
    assert written.get_data_dtype() == np.int16
    assert np.abs(values - np.nan_to_num(voxels, nan=-1024)).max() <= 1 / 16
    assert written.header['pixdim'][4] == 1.5
    assert written.header.get_xyzt_units() == ('mm', 'sec')


# -- sidecars and tables


def test_every_file_has_a_sidecar_of_its_own_name():
    for name in ('a.txt', 'b.tsv', 'c.h5'):
        Path(name).write_text(name)
    rows = [row('a', 'from-orig_to-x_xfm.txt'), row('b', 'desc-b_ctp.tsv'), row('c', 'xfm.h5')]
    folder = write(rows, a='a.txt', b='b.tsv', c='c.h5')
    for stem in ('sub-1_from-orig_to-x_xfm', 'sub-1_desc-b_ctp', 'sub-1_xfm'):
        assert json.loads((folder / f'{stem}.json').read_text())['Description']
    assert (folder / 'sub-1_xfm.h5').read_text() == 'c.h5'
    assert len(list(folder.iterdir())) == 6


def test_measured_facts_are_added_to_the_sidecar():
    Path('one.json').write_text('{"lambda": 3}')
    Path('two.json').write_text('{"offset": 1}')
    Path('t.tsv').write_text('x\n')
    rows = [row('t', 't.tsv', facts=['one', 'two']), row('u', 'u.tsv')]
    folder = write(rows, t='t.tsv', u='t.tsv', one='one.json', two='two.json')
    with_facts, without = (read_sidecar(folder, name) for name in 'tu')
    assert with_facts['Measured'] == {'lambda': 3, 'offset': 1}
    assert 'Measured' not in without


def test_labels_become_a_table():
    source = image(np.ones((2, 2, 2), np.uint8), 'seg.nii')
    folder = write([row('seg', 'seg-x_dseg.nii.gz', labels={1: 'left', 2: 'right'})], seg=source)
    assert (folder / 'sub-1_seg-x_dseg.tsv').read_text() == 'index\tname\n1\tleft\n2\tright\n'


def test_missing_source_is_not_written():
    Path('t.tsv').write_text('x\n')
    folder = write([row('t', 't.tsv'), row('absent', 'absent.tsv')], t='t.tsv')
    assert sorted(path.name for path in folder.iterdir()) == ['sub-1_t.json', 'sub-1_t.tsv']


def test_file_of_an_earlier_run_without_a_source_is_removed():
    source = image(np.ones((2, 2, 2), np.uint8), 'seg.nii')
    rows = [row('seg', 'seg-x_dseg.nii.gz', labels={1: 'left'})]
    folder = write(rows, seg=source)
    (folder / 'sub-1_seg-y_dseg.tsv').write_text('of another row')
    write(rows)
    assert [path.name for path in folder.iterdir()] == ['sub-1_seg-y_dseg.tsv']


def test_missing_source_is_not_listed_in_the_sidecar():
    Path('t.tsv').write_text('x\n')
    sources = {'present': 'bids::present', 'absent': 'bids::absent'}
    sidecar = {'Sources': ['bids:raw:a', *sources.values()]}
    rows = [row('t', 't.tsv', sidecar=sidecar, made_from=sources)]
    folder = write(rows, t='t.tsv', present='t.tsv')
    assert read_sidecar(folder, 't')['Sources'] == ['bids:raw:a', 'bids::present']


def test_measured_fields_are_added_to_the_sidecar():
    Path('fields.json').write_text('{"Reference": "tissue"}')
    Path('t.tsv').write_text('x\n')
    rows = [row('t', 't.tsv', fields=['fields', 'absent'], facts=['absent'])]
    folder = write(rows, t='t.tsv', fields='fields.json')
    assert read_sidecar(folder, 't') == {'Description': 't', 'Reference': 'tissue'}


def test_figures_are_copied_to_the_folder_of_the_participant():
    name, folder = 'sub-1_desc-a_ctp.svg', Path('out/sub-1/figures').absolute()
    Path(name).write_text('<svg/>')
    figures = [str(Path(name).absolute())]
    written = WriteFigures(figures=figures, prefix='sub-1', folder=str(folder)).run()
    assert written.outputs.written == [str(folder / name)]
    assert (folder / name).read_text() == '<svg/>'


def test_figures_of_an_earlier_run_are_removed():
    folder = Path('figures').absolute()
    folder.mkdir()
    for name in ('sub-1_desc-b', 'sub-1_run-2_desc-b'):
        (folder / f'{name}_ctp.svg').write_text('old')
    Path('sub-1_desc-a_ctp.svg').write_text('<svg/>')
    figures = [str(Path('sub-1_desc-a_ctp.svg').absolute())]
    WriteFigures(figures=figures, prefix='sub-1', folder=str(folder)).run()
    assert sorted(path.name for path in folder.iterdir()) == [
        'sub-1_desc-a_ctp.svg', 'sub-1_run-2_desc-b_ctp.svg',
    ]  # fmt: skip
