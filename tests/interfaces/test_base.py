# SPDX-License-Identifier: Apache-2.0
"""What the interfaces share: the digest of the code, settings by stage, optional inputs."""

import re
import shutil
from pathlib import Path

import nibabel as nb
import numpy as np
import pytest
from nipype.interfaces.base import isdefined
from nipype.pipeline.engine import Node

import ctpprep
from ctpprep.interfaces import base
from ctpprep.interfaces.deconvolution import Deconvolve
from ctpprep.interfaces.normalization import MirrorImage, NormalizeGlobal
from ctpprep.interfaces.preprocessing import CorrectMotion, EstimateMotion, MakeMasks
from ctpprep.settings import MethodSettings

AFFINE = np.diag([2.0, 2.0, 5.0, 1.0])
MOVED = AFFINE + np.array([[0, 0, 0, 40.0], *[[0] * 4] * 3])


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Copy of the package whose files are digested; they may be changed."""
    source, copy = Path(ctpprep.__file__).parent, tmp_path / 'ctpprep'
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns('__pycache__'))
    monkeypatch.setattr(ctpprep, '__file__', str(copy / '__init__.py'))
    monkeypatch.setattr(base, 'package_digest', base.package_digest.__wrapped__)  # no cache
    return copy


@pytest.fixture
def reference(tmp_path):
    path = tmp_path / 'reference.nii'
    nb.save(nb.Nifti1Image(np.ones((4, 4, 4), np.float32), AFFINE), path)
    return str(path)


def change(path):
    path.write_text(path.read_text() + '\n# changed\n')


# -- code


@pytest.mark.parametrize(
    'name',
    [
        'perfusion/vessels.py',
        'interfaces/normalization.py',
        'io/nifti.py',
        'registration.py',
        'settings.py',
    ],
)
def test_digest_changes_with_the_text_of_a_file_that_computes(package, name):
    before = base.package_digest()
    change(package / name)
    assert base.package_digest() != before


def test_digest_changes_with_the_name_of_a_file(package):
    before = base.package_digest()
    (package / 'perfusion' / 'vessels.py').rename(package / 'perfusion' / 'arteries.py')
    assert base.package_digest() != before


@pytest.mark.parametrize('name', ['cli/parser.py', 'reports/page.py'])
def test_digest_ignores_files_that_compute_nothing(package, name):
    before = base.package_digest()
    change(package / name)
    assert base.package_digest() == before


def test_digest_does_not_depend_on_the_place_of_the_package(package, monkeypatch):
    before = base.package_digest()
    moved = package.rename(package.with_name('moved'))
    monkeypatch.setattr(ctpprep, '__file__', str(moved / '__init__.py'))
    assert base.package_digest() == before


def test_digest_covers_all_that_the_digested_files_import():
    root, imported = Path(ctpprep.__file__).parent, set()
    for path in root.rglob('*.py'):
        if path.relative_to(root).parts[0].removesuffix('.py') in base.COMPUTING:
            lines = re.findall(
                r'^ *(?:from|import) ctpprep(?:\.| import )(\w+)', path.read_text(), re.M
            )
            imported |= set(lines)
    assert 'perfusion' in imported
    assert imported <= set(base.COMPUTING)


def test_node_hash_changes_with_the_code(package, reference):
    _, before = MirrorImage(reference=reference).inputs.get_hashval()
    assert MirrorImage(reference=reference).inputs.get_hashval()[1] == before
    change(package / 'perfusion' / 'symmetry.py')
    assert MirrorImage(reference=reference).inputs.get_hashval()[1] != before


def test_result_of_other_code_is_not_reused_from_a_work_folder(
    package, reference, tmp_path, monkeypatch
):
    def run():
        Node(MirrorImage(reference=reference), name='mirror', base_dir=str(tmp_path)).run()

    computed, compute = [], MirrorImage._run_interface
    monkeypatch.setattr(
        MirrorImage, '_run_interface', lambda *args: computed.append(1) or compute(*args)
    )
    run()
    run()
    assert len(computed) == 1
    change(package / 'perfusion' / 'symmetry.py')
    run()
    assert len(computed) == 2


# -- settings


def test_node_hash_changes_with_a_setting():
    one, other = (
        NormalizeGlobal(settings=MethodSettings.of(normal_tmax=limit).as_dict('normalization'))
        for limit in (4.0, 5.0)
    )
    assert one.inputs.get_hashval()[1] != other.inputs.get_hashval()[1]


@pytest.mark.parametrize('interface', [EstimateMotion, CorrectMotion, Deconvolve])
def test_node_hash_does_not_depend_on_the_number_of_threads(interface):
    one, four = (interface(num_threads=threads).inputs.get_hashval()[1] for threads in (1, 4))
    assert one == four


def test_settings_of_other_stages_are_the_defaults():
    interface = NormalizeGlobal(
        settings=MethodSettings.of(normal_tmax=5.0, core_rcbf=0.2).as_dict('normalization')
    )
    assert interface.method == MethodSettings.of(normal_tmax=5.0)


def test_without_settings_all_are_the_defaults():
    assert MirrorImage().method == MethodSettings()


# -- inputs


def test_inputs_that_are_not_connected_are_empty():
    interface = NormalizeGlobal()
    assert not isdefined(interface.inputs.cbv)
    assert interface.load('cbv') is None
    assert interface.load_mask('tissue_mask') is None
    assert interface.load_json('cbf') == {}
    assert interface.load_table('cbf').empty


def test_supplied_mask_has_its_grid_and_the_name_of_its_file(reference):
    interface = MakeMasks(supplied_brain_mask=reference)
    mask = interface.load_supplied('supplied_brain_mask')
    assert mask.voxels.all()
    assert mask.name == 'reference.nii'
    np.testing.assert_array_equal(mask.affine, AFFINE)
    assert interface.load_supplied('supplied_exclude_mask') is None


def test_supplied_mask_is_where_the_chosen_affine_places_it(tmp_path):
    image = nb.Nifti1Image(np.ones((4, 4, 4), np.uint8), AFFINE)
    image.set_qform(MOVED, 1)
    image.to_filename(tmp_path / 'mask.nii')
    for name, affine in (('sform', AFFINE), ('qform', MOVED)):
        interface = MakeMasks(supplied_brain_mask=tmp_path / 'mask.nii', affine_from=name)
        mask = interface.load_supplied('supplied_brain_mask')
        np.testing.assert_array_equal(mask.affine, affine)


@pytest.mark.parametrize(
    ('entry', 'density'),
    [
        ({}, True),
        ({'reference_image_from': 'ncct'}, True),
        ({'reference_image_from': 'ctpref'}, True),
        ({'reference_image_from': 'cbv'}, False),
    ],
)
def test_reference_is_one_of_densities_unless_a_map_replaces_it(entry, density):
    assert base.is_density(entry) is density
