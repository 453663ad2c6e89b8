# SPDX-License-Identifier: Apache-2.0
"""What a user supplies in place of a step: found, chosen, or refused in one sentence."""

import json

import nibabel as nb
import numpy as np
import pytest

from ctpprep.exceptions import SeriesError, UsageError
from ctpprep.inputs.dataset import FailedSeries
from ctpprep.inputs.find import find_series
from ctpprep.inputs.overrides import apply_overrides, dataset_links
from ctpprep.io.bids import read_links, resolve_uri
from ctpprep.io.curves import read_curves
from ctpprep.io.description import write_dataset_description
from ctpprep.settings import RunSettings

LAS = np.diag([-2.0, 2.0, 5.0, 1.0])
CURVE = 'time\taif\n' + ''.join(f'{1.5 * i}\t{200 if i == 4 else 0}\n' for i in range(12))


def write_image(path, shape, sidecar=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    nb.Nifti1Image(np.ones(shape, np.uint8), LAS).to_filename(path)
    if sidecar:
        path.with_name(path.name.partition('.')[0] + '.json').write_text(json.dumps(sidecar))
    return path


@pytest.fixture
def manual(tmp_path):
    """Make a dataset of sub-01 and sub-02; give the folder of an empty derivatives dataset."""
    for label in ('01', '02'):
        path = tmp_path / 'raw' / f'sub-{label}' / 'ct' / f'sub-{label}_ctp.nii.gz'
        write_image(path, (4, 4, 3, 12), {'RepetitionTime': 1.5})
    (tmp_path / 'manual').mkdir()
    return tmp_path / 'manual'


def look(manual, **options):
    root = manual.parent
    options = {'derivatives': (('manual', manual),)} | options
    run = RunSettings(root / 'raw', root / 'out', root / 'work', **options)
    return apply_overrides(find_series(run), run)


def one(manual, **options):
    """Look for what is supplied by options for sub-01 alone."""
    return look(manual, derivatives=(), participant_label=('01',), **options)[0]


def curve_file(folder, text=CURVE):
    path = folder / 'my.tsv'
    path.write_text(text)
    return path


# -- datasets


@pytest.mark.parametrize('folder', ['sub-01/ct', 'sub-01'])
@pytest.mark.parametrize('end', ['.nii.gz', '.nii'])
def test_a_mask_in_a_derivatives_dataset_replaces_that_of_its_series(manual, folder, end):
    write_image(manual / folder / f'sub-01_desc-brain_mask{end}', (4, 4, 3))
    first, second = look(manual)
    assert set(first.overrides) == {'brain_mask'}
    uri = f'bids:manual:{folder}/sub-01_desc-brain_mask{end}'
    assert first.overrides['brain_mask'].uri == uri
    assert second.overrides == {}


def test_a_corrected_series_brings_its_own_times(manual):
    name = 'sub-01/ct/sub-01_desc-preproc_ctp.nii.gz'
    corrected = write_image(manual / name, (2, 2, 2, 10), {'RepetitionTime': 2.0})
    series = look(manual)[0]
    assert series.source.path == corrected
    assert series.frame_times[1] == 2
    assert np.shape(series.sample_times) == (2, 10)
    assert series.timing_source == 'RepetitionTime of sub-01_desc-preproc_ctp.nii.gz'
    assert series.uri == 'bids:raw:sub-01/ct/sub-01_ctp.nii.gz'


def test_a_corrected_series_without_times_fails_alone(manual):
    write_image(manual / 'sub-01/ct/sub-01_desc-preproc_ctp.nii.gz', (2, 2, 2, 10))
    first, second = look(manual)
    assert isinstance(first, FailedSeries)
    assert 'sub-01_desc-preproc_ctp.nii.gz: no acquisition times' in first.reason
    assert second.prefix == 'sub-02'


def test_the_first_dataset_that_has_a_file_counts(manual):
    other = manual.parent / 'other'
    for root in (manual, other):
        write_image(root / 'sub-01/ct/sub-01_desc-brain_mask.nii.gz', (4, 4, 3))
    write_image(other / 'sub-01/ct/sub-01_label-AIF_mask.nii.gz', (4, 4, 3))
    pieces = look(manual, derivatives=(('manual', manual), ('other', other)))[0].overrides
    assert pieces['brain_mask'].uri.startswith('bids:manual:')
    assert pieces['aif_mask'].uri.startswith('bids:other:')


def test_the_curve_counts_where_its_voxels_are_there_too(manual):
    write_image(manual / 'sub-01/ct/sub-01_label-AIF_mask.nii.gz', (4, 4, 3))
    (manual / 'sub-01/ct/sub-01_desc-vascular_timeseries.tsv').write_text(CURVE)
    assert set(look(manual)[0].overrides) == {'curves'}


def test_an_option_goes_before_a_dataset(manual):
    (manual / 'sub-01').mkdir()
    (manual / 'sub-01/sub-01_desc-vascular_timeseries.tsv').write_text(CURVE)
    mask = write_image(manual.parent / 'artery.nii.gz', (4, 4, 3))
    write_image(manual / 'sub-01/sub-01_desc-brain_mask.nii.gz', (4, 4, 3))
    series = look(manual, participant_label=('01',), aif_file=mask)[0]
    assert set(series.overrides) == {'brain_mask', 'aif_mask'}
    assert series.overrides['aif_mask'].path == mask


def test_a_dataset_of_other_participants_is_no_mistake(manual):
    write_image(manual / 'sub-02/ct/sub-02_desc-brain_mask.nii.gz', (4, 4, 3))
    (series,) = look(manual, participant_label=('01',))
    assert series.overrides == {}


# -- options


def test_a_table_is_a_curve_and_an_image_a_mask(manual):
    assert set(one(manual, aif_file=curve_file(manual)).overrides) == {'curves'}
    image = write_image(manual / 'aif.nii', (4, 4, 3))
    assert set(one(manual, aif_file=image).overrides) == {'aif_mask'}


@pytest.mark.parametrize(('home', 'uri'), [
    ('manual', 'bids:brainmasksub01:m%C3%A4sk%201.nii.gz'),
    ('raw', 'bids:raw:m%C3%A4sk%201.nii.gz'),
])  # fmt: skip
def test_links_lead_to_every_supplied_file(manual, home, uri):
    root = manual.parent
    mask = write_image(root / home / 'mäsk 1.nii.gz', (4, 4, 3))
    series = one(manual, brain_mask=mask)
    assert series.overrides['brain_mask'].uri == uri
    run = RunSettings(root / 'raw', root / 'out', root / 'work', brain_mask=mask)
    links = {'raw': run.bids_dir, **dataset_links(run, [series])}
    write_dataset_description(root / 'out', links, '1')
    assert resolve_uri(uri, root / 'out', read_links(root / 'out')).samefile(mask)


def test_a_name_that_stands_for_another_dataset_is_refused(manual):
    write_image(manual / 'sub-01/ct/sub-01_desc-brain_mask.nii.gz', (4, 4, 3))
    links = {'raw': manual.parent / 'raw', 'manual': manual}
    write_dataset_description(manual.parent / 'out', links, '1')
    look(manual)
    with pytest.raises(UsageError, match=r'output_dir call \.\./manual so; choose another name'):
        look(manual, derivatives=(('manual', manual.parent / 'raw'),))


def test_an_option_for_one_series_refuses_several(manual):
    with pytest.raises(UsageError, match=r'--aif-file is for one series, but 2 are selected'):
        look(manual, derivatives=(), aif_file=curve_file(manual))


@pytest.mark.parametrize(('changed', 'sentence'), [
    ({'brain_mask': 'nothing.nii'}, 'nothing.nii is not a file'),
    ({'brain_mask': 'out/sub-01/mask.nii'}, 'is in output_dir'),
    ({'derivatives': 'nothing'}, 'nothing is not a folder'),
    ({'derivatives': 'out'}, 'is output_dir'),
    ({'derivatives': 'manual'}, 'holds nothing that can be supplied'),
])  # fmt: skip
def test_options_that_cannot_be_meant_are_refused(manual, changed, sentence):
    root = manual.parent
    write_image(root / 'out/sub-01/mask.nii', (4, 4, 3))
    options = {
        name: (('x', root / value),) if name == 'derivatives' else root / value
        for name, value in changed.items()
    }
    with pytest.raises(UsageError, match=sentence):
        look(manual, **{'derivatives': (), 'participant_label': ('01',)} | options)


# -- files


@pytest.mark.parametrize(('shape', 'sentence'), [
    ((4, 4), r'mask.nii.gz: 2D \(4 x 4\); a 3D mask is needed'),
    ((4, 4, 3, 2), '4D'),
])  # fmt: skip
def test_a_mask_that_is_not_3d_fails_its_series(manual, shape, sentence):
    mask = write_image(manual / 'mask.nii.gz', shape)
    failed = one(manual, brain_mask=mask)
    with pytest.raises(SeriesError, match=sentence):
        raise SeriesError(failed.reason)


def test_a_mask_without_orientation_fails_its_series(manual):
    image = nb.Nifti1Image(np.ones((4, 4, 3), np.uint8), None)
    image.to_filename(manual / 'mask.nii.gz')
    assert (
        'mask.nii.gz: the header gives no orientation'
        in one(manual, brain_mask=manual / 'mask.nii.gz').reason
    )


def test_curves_are_read_with_or_without_a_vof(tmp_path):
    assert set(read_curves(curve_file(tmp_path))) == {'time', 'aif'}
    with_vof = CURVE.replace('aif', 'aif\tvof').replace('0\n', '0\t1\n')
    found = read_curves(curve_file(tmp_path, with_vof))
    assert set(found) == {'time', 'aif', 'vof'}
    assert found['time'][:2] == [0, 1.5]
    assert found['aif'][4] == 200


def test_a_vof_of_nothing_but_missing_values_is_none(tmp_path):
    text = CURVE.replace('aif', 'aif\tvof').replace('0\n', '0\tn/a\n')
    assert set(read_curves(curve_file(tmp_path, text))) == {'time', 'aif'}


@pytest.mark.parametrize(('old', 'new', 'sentence'), [
    ('time', 'seconds', r'my.tsv has no column time \(found: seconds, aif\)'),
    ('\t', ',', r'no column time \(found: time,aif\)'),
    ('3.0\t', '1.5\t', r'time must increase .* line 4 has 1.5 s after 1.5 s'),
    ('6.0\t200', '6.0\tn/a', "aif in line 6 is 'n/a'; a number is needed"),
    (CURVE[27:], '', 'at least 5 samples'),
    (CURVE, '', r'no column time \(found: none\)'),
])  # fmt: skip
def test_a_table_that_is_no_aif_is_refused_with_file_field_found_and_needed(
    manual, old, new, sentence
):
    path = curve_file(manual, CURVE.replace(old, new))
    with pytest.raises(SeriesError, match=sentence):
        read_curves(path)
    assert isinstance(one(manual, aif_file=path), FailedSeries)
