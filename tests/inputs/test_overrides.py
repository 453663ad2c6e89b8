# SPDX-License-Identifier: Apache-2.0
"""Files of the user that replace a step: which are found, preferred and refused."""

import json
import re

import nibabel as nb
import numpy as np
import pytest

from ctpprep.exceptions import UsageError
from ctpprep.inputs.find import find_series
from ctpprep.inputs.overrides import apply_overrides, dataset_links
from ctpprep.io.bids import read_links, resolve_uri
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
    """Write a dataset of sub-01 and sub-02; return the folder of an empty derivatives dataset."""
    for label in ('01', '02'):
        path = tmp_path / 'raw' / f'sub-{label}' / 'ct' / f'sub-{label}_ctp.nii.gz'
        write_image(path, (4, 4, 3, 12), {'RepetitionTime': 1.5})
    (tmp_path / 'manual').mkdir()
    return tmp_path / 'manual'


def find(manual, **options):
    root = manual.parent
    options = {'derivatives': (('manual', manual),)} | options
    run = RunSettings(root / 'raw', root / 'out', root / 'work', **options)
    return apply_overrides(find_series(run), run)


def find_one(manual, **options):
    """Return sub-01 with the files that options supply."""
    return find(manual, derivatives=(), participant_label=('01',), **options)[0]


def curve_file(folder, text=CURVE):
    path = folder / 'my.tsv'
    path.write_text(text)
    return path


# -- datasets


@pytest.mark.parametrize('folder', ['sub-01/ct', 'sub-01'])
@pytest.mark.parametrize('end', ['.nii.gz', '.nii'])
def test_mask_in_a_derivatives_dataset_is_used_for_its_series(manual, folder, end):
    write_image(manual / folder / f'sub-01_desc-brain_mask{end}', (4, 4, 3))
    first, second = find(manual)
    assert set(first.overrides) == {'brain_mask'}
    uri = f'bids:manual:{folder}/sub-01_desc-brain_mask{end}'
    assert first.overrides['brain_mask'].uri == uri
    assert second.overrides == {}


def test_corrected_series_has_its_own_times(manual):
    name = 'sub-01/ct/sub-01_desc-preproc_ctp.nii.gz'
    corrected = write_image(manual / name, (2, 2, 2, 10), {'RepetitionTime': 2.0})
    series = find(manual)[0]
    assert series.source.path == corrected
    assert series.frame_times[1] == 2
    assert np.shape(series.sample_times) == (2, 10)
    assert series.timing_source == 'RepetitionTime of sub-01_desc-preproc_ctp.nii.gz'
    assert series.uri == 'bids:raw:sub-01/ct/sub-01_ctp.nii.gz'


def test_corrected_series_without_times_fails_alone(manual):
    write_image(manual / 'sub-01/ct/sub-01_desc-preproc_ctp.nii.gz', (2, 2, 2, 10))
    first, second = find(manual)
    assert not first.can_run
    assert 'sub-01_desc-preproc_ctp.nii.gz: no acquisition times' in first.reason
    assert second.prefix == 'sub-02'


def test_first_dataset_with_a_file_is_used(manual):
    other = manual.parent / 'other'
    for root in (manual, other):
        write_image(root / 'sub-01/ct/sub-01_desc-brain_mask.nii.gz', (4, 4, 3))
    write_image(other / 'sub-01/ct/sub-01_label-AIF_mask.nii.gz', (4, 4, 3))
    pieces = find(manual, derivatives=(('manual', manual), ('other', other)))[0].overrides
    assert pieces['brain_mask'].uri.startswith('bids:manual:')
    assert pieces['aif_mask'].uri.startswith('bids:other:')


def test_aif_curve_is_preferred_to_its_voxels(manual):
    write_image(manual / 'sub-01/ct/sub-01_label-AIF_mask.nii.gz', (4, 4, 3))
    (manual / 'sub-01/ct/sub-01_desc-vascular_timeseries.tsv').write_text(CURVE)
    assert set(find(manual)[0].overrides) == {'curves'}


def test_option_is_preferred_to_a_dataset(manual):
    (manual / 'sub-01').mkdir()
    (manual / 'sub-01/sub-01_desc-vascular_timeseries.tsv').write_text(CURVE)
    mask = write_image(manual.parent / 'artery.nii.gz', (4, 4, 3))
    write_image(manual / 'sub-01/sub-01_desc-brain_mask.nii.gz', (4, 4, 3))
    series = find(manual, participant_label=('01',), aif_file=mask)[0]
    assert set(series.overrides) == {'brain_mask', 'aif_mask'}
    assert series.overrides['aif_mask'].path == mask


def test_dataset_of_other_participants_is_accepted(manual):
    write_image(manual / 'sub-02/ct/sub-02_desc-brain_mask.nii.gz', (4, 4, 3))
    (series,) = find(manual, participant_label=('01',))
    assert series.overrides == {}


# -- options


def test_aif_file_is_a_curve_or_a_mask_by_its_extension(manual):
    assert set(find_one(manual, aif_file=curve_file(manual)).overrides) == {'curves'}
    image = write_image(manual / 'aif.nii', (4, 4, 3))
    assert set(find_one(manual, aif_file=image).overrides) == {'aif_mask'}


@pytest.mark.parametrize(('home', 'uri'), [
    ('manual', 'bids:brainmasksub01:m%C3%A4sk%201.nii.gz'),
    ('raw', 'bids:raw:m%C3%A4sk%201.nii.gz'),
])  # fmt: skip
def test_links_resolve_every_supplied_file(manual, home, uri):
    root = manual.parent
    mask = write_image(root / home / 'mäsk 1.nii.gz', (4, 4, 3))
    series = find_one(manual, brain_mask=mask)
    assert series.overrides['brain_mask'].uri == uri
    run = RunSettings(root / 'raw', root / 'out', root / 'work', brain_mask=mask)
    links = {'raw': run.bids_dir, **dataset_links(run, [series])}
    write_dataset_description(root / 'out', links, '1')
    assert resolve_uri(uri, root / 'out', read_links(root / 'out')).samefile(mask)


def test_name_of_another_linked_dataset_is_refused(manual):
    write_image(manual / 'sub-01/ct/sub-01_desc-brain_mask.nii.gz', (4, 4, 3))
    links = {'raw': manual.parent / 'raw', 'manual': manual}
    write_dataset_description(manual.parent / 'out', links, '1')
    find(manual)
    with pytest.raises(UsageError, match=r'manual already refers to \.\./manual; choose another'):
        find(manual, derivatives=(('manual', manual.parent / 'raw'),))


def test_option_for_one_series_is_refused_for_several(manual):
    with pytest.raises(UsageError, match='--aif-file needs a single series, but 2 are selected'):
        find(manual, derivatives=(), aif_file=curve_file(manual))


@pytest.mark.parametrize(('changed', 'message'), [
    ({'brain_mask': 'nothing.nii'}, '--brain-mask: .*nothing.nii is not a file'),
    ({'brain_mask': 'out/sub-01/mask.nii'}, 'is in output_dir'),
    ({'derivatives': 'nothing'}, '--derivatives x=.*nothing is not a folder'),
    ({'derivatives': 'out'}, 'is also output_dir.*choose another'),
    ({'derivatives': 'manual'}, 'has no file that ctpprep can use; it needs'),
])  # fmt: skip
def test_invalid_options_are_refused(manual, changed, message):
    root = manual.parent
    write_image(root / 'out/sub-01/mask.nii', (4, 4, 3))
    options = {
        name: (('x', root / value),) if name == 'derivatives' else root / value
        for name, value in changed.items()
    }
    with pytest.raises(UsageError, match=message):
        find(manual, **{'derivatives': (), 'participant_label': ('01',)} | options)


# -- files


@pytest.mark.parametrize(('shape', 'message'), [
    ((4, 4), r'mask.nii.gz: the image is 2D \(4 x 4\), need a 3D mask'),
    ((4, 4, 3, 2), '4D'),
])  # fmt: skip
def test_mask_that_is_not_3d_fails_its_series(manual, shape, message):
    mask = write_image(manual / 'mask.nii.gz', shape)
    assert re.search(message, find_one(manual, brain_mask=mask).reason)


def test_mask_without_orientation_fails_its_series(manual):
    image = nb.Nifti1Image(np.ones((4, 4, 3), np.uint8), None)
    image.to_filename(manual / 'mask.nii.gz')
    reason = find_one(manual, brain_mask=manual / 'mask.nii.gz').reason
    assert 'mask.nii.gz: the header has no orientation' in reason


@pytest.mark.parametrize('option', ['brain_mask', 'exclude_mask', 'aif_file', 'lesion_mask'])
def test_chosen_affine_is_that_of_masks_as_well(manual, option):
    mask = write_image(manual / 'mask.nii.gz', (4, 4, 3))
    image = nb.load(mask)
    image.set_qform(np.diag([-1.0, 1, 1, 1]) @ LAS, 1)
    nb.Nifti1Image(np.ones((4, 4, 3), np.uint8), None, image.header).to_filename(mask)
    failed = find_one(manual, **{option: mask})
    assert re.search('mask.nii.gz: sform and qform .*--affine-from', failed.reason)
    assert find_one(manual, affine_from='qform', **{option: mask}).can_run


def test_invalid_curve_fails_its_series(manual):
    failed = find_one(manual, aif_file=curve_file(manual, 'time\tflow\n0\t1\n'))
    assert not failed.can_run
    assert 'my.tsv has no column aif' in failed.reason
