# SPDX-License-Identifier: Apache-2.0
"""Images to the template and regions to the patient, from files to files."""

import json
from pathlib import Path
from types import SimpleNamespace

import nibabel as nb
import numpy as np
import pandas as pd
import pytest
from nipype.interfaces.base import isdefined

from ctpprep.interfaces import template
from ctpprep.interfaces.template import MeasureRegions, RegisterTemplate, TransformToTemplate
from ctpprep.perfusion.symmetry import world_coordinates
from ctpprep.registration import write_affine
from ctpprep.settings import MethodSettings

SPACE = 'MNI152NLin2009aSym'
SETTINGS = MethodSettings.of(output_spaces=(SPACE,))
# the patient is the template, 20 mm further to the right, in slices of 5 mm
SHAPE, SHIFT = (40, 50, 12), np.array([20.0, 0, 0])
AFFINE = np.diag([4.0, 4, 5, 1])
AFFINE[:3, 3] = [-80 + SHIFT[0], -110, -10]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(array, name):
    nb.save(nb.Nifti1Image(np.asarray(array), AFFINE), f'{name}.nii')
    return str(Path(f'{name}.nii').absolute())


def write_json(content, name):
    Path(name).write_text(json.dumps(content))
    return str(Path(name).absolute())


@pytest.fixture
def images():
    x = world_coordinates(SHAPE, AFFINE)[..., 0] - SHIFT[0]
    tissue = np.ones(SHAPE, np.uint8)
    return {
        'tissue_mask': write(tissue, 'tissue'),
        'hemispheres': write(np.where(x < 0, 1, 2).astype(np.uint8), 'sides'),
        'core_global': write((x < -30).astype(np.uint8), 'core_global'),
        'core_local': write((x < -50).astype(np.uint8), 'core_local'),
        'hypoperfusion': write((x < 0).astype(np.uint8), 'hypoperfusion'),
        'cbf': write(np.where(x < 0, 20, 40).astype(np.float32), 'cbf'),
        'tmax': write(np.where(x < 0, 8, 1).astype(np.float32), 'tmax'),
        'rcbf_global': write(np.where(x < 0, 0.4, 1).astype(np.float32), 'rcbf_global'),
    }


def transform(images):
    """Resample by the shift, which maps points of the template to points of the patient."""
    matrix = np.eye(4)
    matrix[:3, 3] = SHIFT
    write_affine(matrix, 'shift.mat')
    node = TransformToTemplate(
        maps=['cbf'], masks=['tissue_mask', 'core_global'], settings=SETTINGS.as_dict('template'),
        reference_to_template=str(Path('shift.mat').absolute()),
    )  # fmt: skip
    for name in ('cbf', 'tissue_mask', 'core_global'):
        setattr(node.inputs, name, images[name])
    return node.run().outputs


def test_images_are_placed_on_the_grid_of_the_template(images):
    outputs = transform(images)
    cbf, core = (nb.load(path) for path in (outputs.cbf_template, outputs.core_global_template))
    assert (cbf.shape, np.diag(cbf.affine)[:3].tolist()) == ((99, 117, 95), [2, 2, 2])
    assert int(cbf.header['sform_code']) == 4  # MNI152 coordinates
    assert core.get_data_dtype() == np.uint8
    x = world_coordinates(cbf.shape, cbf.affine)[..., 0]
    values, inside = cbf.get_fdata(), core.get_fdata() > 0
    assert set(np.unique(values[(x < -6) & (values > 0)])) == {20}
    assert set(np.unique(values[(x > 6) & (values > 0)])) == {40}
    assert x[inside].max() < -27


def test_maps_end_with_the_slab(images):
    outputs = transform(images)
    image = nb.load(outputs.cbf_template)
    z = world_coordinates(image.shape, image.affine)[..., 2][image.get_fdata() > 0]
    assert (z.min(), z.max()) == (-12, 46)  # slices of 5 mm from -10 to 45


def test_without_transform_there_are_no_images(images):
    node = TransformToTemplate(
        maps=['cbf'], masks=['tissue_mask'], settings=SETTINGS.as_dict('template'),
        tissue_mask=images['tissue_mask'],
    )  # fmt: skip
    node.inputs.cbf = images['cbf']
    assert not isdefined(node.run().outputs.cbf_template)


def measure(images, **inputs):
    node = MeasureRegions(
        settings=SETTINGS.as_dict('template'), **images,
        **{'template_registration': write_json({'template_failure': 'no overlap'}, 'r.json')} | inputs,
    )  # fmt: skip
    outputs = node.run().outputs
    return outputs, pd.read_csv(outputs.regions, sep='\t')


def test_regions_of_an_atlas_are_measured_on_the_grid_of_the_patient(images):
    atlas = np.ones((2, 1, 1), np.uint8)
    atlas[1] = 2
    affine = np.diag([200.0, 400, 400, 1])
    affine[0, 3] = -100
    nb.save(nb.Nifti1Image(atlas, affine), 'atlas.nii')
    Path('atlas.tsv').write_text('index\tname\n1\tthe left\n2\tthe right\n')
    coordinates = world_coordinates(SHAPE, AFFINE) - SHIFT.astype(np.float32)
    outputs, table = measure(
        images,
        template_coordinates=write(coordinates, 'coordinates'),
        atlas=str(Path('atlas.nii').absolute()),
        atlas_labels=str(Path('atlas.tsv').absolute()),
    )
    left = table[(table['region'] == 'the left') & (table['hemisphere'] == 'both')].iloc[0]
    core = nb.load(images['core_global']).get_fdata()
    assert left['core_global_ml'] == pytest.approx(core.sum() * 0.08, rel=1e-5)
    assert left['removed_ml'] + left['kept_ml'] == pytest.approx(left['core_global_ml'], rel=1e-5)
    assert (left['cbf'], left['tmax']) == (20, 8)
    labels = nb.load(outputs.region_labels).get_fdata()
    np.testing.assert_array_equal(labels, nb.load(images['hemispheres']).get_fdata())


def test_a_failed_registration_leaves_the_reason_in_the_table(images):
    outputs, table = measure(images)
    assert not isdefined(outputs.region_labels)
    assert set(table['reason']) == {'no overlap'}
    assert table['core_global_ml'].isna().all()
    assert 'deep white matter' in set(table['region'])


def test_maps_without_a_ct_are_not_registered(images):
    entry = write_json({'reference_image_from': 'cbv'}, 'entry.json')
    outputs = RegisterTemplate(
        reference=images['cbf'], brain_mask=images['tissue_mask'], hemispheres=images['hemispheres'],
        entry=entry, settings=SETTINGS.as_dict('template', 'masks', 'random'),
    ).run().outputs  # fmt: skip
    assert not isdefined(outputs.reference_to_template)
    measured = json.loads(Path(outputs.template_registration).read_text())
    assert 'no CT' in measured['template_failure']


def test_four_templates_are_read_once(monkeypatch):
    read = []
    files = SimpleNamespace(space='x')
    monkeypatch.setattr(template, 'find_template', lambda spec: read.append(spec) or files)
    monkeypatch.setattr(template, 'load_template', lambda files: (1, 2, 3))
    monkeypatch.setattr(template, 'template', SimpleNamespace(Template=lambda *parts: parts))
    template.read_template.cache_clear()
    for spec in 'abcd' * 3:
        template.read_template(spec)
    template.read_template.cache_clear()
    assert read == list('abcd')
