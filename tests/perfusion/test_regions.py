# SPDX-License-Identifier: Apache-2.0
"""Regions: what is drawn from the template, and the figures of each."""

import numpy as np
import pytest

from ctpprep.io.templates import find_template, load_template
from ctpprep.perfusion import regions, template

SHAPE, SIZE = (4, 2, 2), (5.0, 5.0, 40.0)  # voxels of 1 mL
LABELS = np.ones(SHAPE, int)
LABELS[:, 1] = 2
SIDES = np.repeat([1, 2], 2)[:, None, None] * np.ones(SHAPE, int)
NAMES = {1: 'front', 2: 'back', 7: 'elsewhere'}


def measure(lesions=None, maps=None, tissue=None):
    none = np.zeros(SHAPE, bool)
    rows = regions.measure_regions(
        LABELS, NAMES, SIDES, np.ones(SHAPE, bool) if tissue is None else tissue,
        lesions or {'core_global': none, 'core_local': none, 'hypoperfusion': none}, maps or {}, SIZE,
    )  # fmt: skip
    return {(row['region'], row['hemisphere']): row for row in rows}


@pytest.fixture(scope='module')
def atlas():
    grey, white, affine = load_template(find_template('MNI152NLin2009aSym'))
    brain = template.Template(grey, white, affine, '').brain
    return regions.draw_tissues(grey, white, brain, affine, 5.0, 10.0)


def test_removed_added_and_kept_core_add_up():
    core_global, core_local = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    core_global[:2, 0], core_local[1:3, 0] = True, True
    row = measure({'core_global': core_global, 'core_local': core_local})['front', 'both']
    assert (row['core_global_ml'], row['core_local_ml']) == (4, 4)
    assert (row['removed_ml'], row['kept_ml'], row['added_ml']) == (2, 2, 2)


def test_volumes_of_all_regions_are_that_of_the_lesion():
    lesion = np.random.default_rng(0).random(SHAPE) < 0.5
    rows = measure({'core_global': lesion, 'hypoperfusion': lesion})
    sides = [
        rows[name, side]['core_global_ml'] for name in NAMES.values() for side in ('left', 'right')
    ]
    assert sum(sides) == lesion.sum()


def test_means_are_of_assessable_tissue():
    rcbf = np.where(SIDES == 1, 0.5, 1.0)
    rcbf[0, 0] = np.nan
    rows = measure(maps={'rcbf_local': rcbf})
    assert rows['front', 'left']['rcbf_local'] == 0.5
    assert rows['front', 'left/right']['rcbf_local'] == 0.5


def test_a_region_outside_the_slab_has_a_reason():
    row = measure()['elsewhere', 'both']
    assert (row['tissue_ml'], row['cbf']) == (0, None)
    assert row['reason'] == 'no tissue of this region in the slab'


def test_without_local_core_its_figures_are_missing():
    row = measure({'core_global': np.ones(SHAPE, bool)})['front', 'both']
    assert row['core_global_ml'] == 8
    assert [row[f'{name}_ml'] for name in ('core_local', 'removed', 'kept')] == [None] * 3


@pytest.mark.parametrize(
    ('place', 'name'),
    [
        ((26, 4, 2), 'deep grey matter'),  # putamen
        ((-12, -20, 8), 'deep grey matter'),  # thalamus
        ((-38, 4, 2), 'cortex'),  # insula
        ((22, -8, 14), 'deep white matter'),  # internal capsule
        ((0, -30, 20), 'periventricular white matter'),  # splenium
        ((-40, -30, 50), 'superficial white matter'),  # postcentral gyrus
    ],
)
def test_structures_of_the_template_are_in_their_class(atlas, place, name):
    voxel = np.rint(np.linalg.inv(atlas.affine) @ [*place, 1])[:3].astype(int)
    assert atlas.names[int(atlas.labels[tuple(voxel)])] == name


def test_classes_of_a_symmetric_template_are_symmetric(atlas):
    np.testing.assert_array_equal(atlas.labels, atlas.labels[::-1])


def test_depths_of_white_matter_are_by_distance():
    """A block of white matter under a sheet of cortex, 1 mm voxels, without ventricles."""
    white, grey = np.ones((30, 30, 30)), np.zeros((30, 30, 30))
    white[:, :2], grey[:, :2] = 0, 1
    affine = np.eye(4)
    affine[:3, 3] = 40, 40, 40  # outside the boxes of deep grey matter and ventricles
    labels = regions.draw_tissues(grey, white, white + grey > 0, affine, 4.0, 10.0).labels
    assert [regions.TISSUES[label] for label in labels[15, [1, 5, 6], 15]] == [
        'cortex', 'superficial white matter', 'deep white matter',
    ]  # fmt: skip
