# SPDX-License-Identifier: Apache-2.0
"""The image: what is in it, how little it needs to run, and that its maps are those of a run outside.

`make test-container` builds the image and the environment outside from the same lock file. With the same
wheels on the same processor every voxel is equal; a host whose C library is newer than that of the image
may round some differently.
"""

import json
import os
import shutil
import subprocess
import time
from configparser import ConfigParser
from pathlib import Path
from types import SimpleNamespace

import h5py
import nibabel as nb
import numpy as np
import pytest

pytestmark = pytest.mark.container

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / 'data' / 'ds-phantom'
FOLDER = Path(os.environ.get('CONTAINER_DIR', ROOT / '.container')).resolve()
IMAGE = 'ctpprep:test'
LARGEST = 1.2e9  # bytes, unpacked
PYTHON = '/opt/ctpprep/bin/python'
STRANGER = 54321  # has no passwd entry in the image


def podman(*words):
    """Ask podman about the images of this clone."""
    storage = os.environ | {'CONTAINERS_STORAGE_CONF': str(FOLDER / 'storage.conf')}
    return subprocess.run(['podman', *words], env=storage, capture_output=True, text=True,
                          check=True).stdout  # fmt: skip


def run_image(folder, user, *words, image=IMAGE):
    """Run the image in its narrow confinement; output and work folder lie in `folder`."""
    script = ROOT / 'tests' / 'tools' / 'run_image.sh'
    command = [script, image, user, DATA, folder / 'out', folder / 'work', *words]
    return subprocess.run([str(word) for word in command], capture_output=True, text=True,
                          check=False)  # fmt: skip


def run_python(folder, user, code):
    """Run Python inside, under the same confinement; give what it prints, read as JSON."""
    run = run_image(folder, user, '-c', code, image='ctpprep:test-python')
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def measure(what, seconds):
    with (FOLDER / 'measured.txt').open('a') as file:
        file.write(f'{what:<40} {seconds:6.0f} s\n')


@pytest.fixture(scope='module', autouse=True)
def image_of_python(tmp_path_factory):
    """Name a copy of the image whose entry point is its Python; nothing else differs."""
    recipe = tmp_path_factory.mktemp('recipe') / 'Dockerfile'
    recipe.write_text(f'FROM localhost/{IMAGE}\nENTRYPOINT ["{PYTHON}"]\n')
    podman('build', '--quiet', '--pull-never', '--tag', 'localhost/ctpprep:test-python',
           '--file', str(recipe), str(recipe.parent))  # fmt: skip


@pytest.fixture(scope='module')
def image():
    return json.loads(podman('image', 'inspect', f'localhost/{IMAGE}'))[0]


@pytest.fixture(scope='module')
def version(image):
    return image['Labels']['org.opencontainers.image.version']


@pytest.fixture(scope='module')
def outside(tmp_path_factory):
    """Run both heads of the example outside, with the locked versions and nothing of this shell."""
    folder = tmp_path_factory.mktemp('outside')
    kernels = {k: v for k, v in os.environ.items() if k.startswith('OPENBLAS_')}
    environment = {'PATH': os.defpath, 'HOME': str(folder), 'LANG': 'C.UTF-8'} | kernels
    command = [Path(os.environ['CTPPREP_LOCKED']).absolute() / 'bin' / 'ctpprep', DATA]
    command += [folder / 'out', 'participant', '-w', folder / 'work', '--nprocs', '2']
    started = time.monotonic()
    run = subprocess.run([str(word) for word in command], capture_output=True, text=True,
                         env=environment, cwd=folder, check=False)  # fmt: skip
    measure('both heads outside, two processes', time.monotonic() - started)
    assert run.returncode == 0, run.stderr
    return folder / 'out'


@pytest.fixture(scope='module', params=['user of the image', 'stranger'])
def inside(request, tmp_path_factory):
    """Run both heads in the image, as its own user and as one it does not know."""
    user, processes = ('-', 2) if request.param == 'user of the image' else (STRANGER, 1)
    folder = tmp_path_factory.mktemp('inside')
    started = time.monotonic()
    run = run_image(folder, user, '/data', '/out', 'participant', '-w', '/work',
                    '--nprocs', processes)  # fmt: skip
    measure(
        f'both heads inside, {request.param}, --nprocs {processes}', time.monotonic() - started
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr == ''
    return SimpleNamespace(out=folder / 'out', user=1000 if user == '-' else user)


def results(out):
    """List the files that hold numbers: maps, masks, tables and transforms."""
    endings = ('.nii.gz', '.tsv', '.txt', '.h5')
    return sorted(
        path.relative_to(out) for path in out.glob('sub-*/**/*')
        if path.name.endswith(endings) and 'log' not in path.parts
    )  # fmt: skip


def read_numbers(path):
    """Read what must be equal: voxels as stored and affine, arrays of a transform, or text."""
    if path.name.endswith('.nii.gz'):
        image = nb.load(path)
        return [np.asanyarray(image.dataobj), image.affine]
    if path.suffix == '.h5':  # it holds the time of writing, too
        numbers = []
        with h5py.File(path) as file:
            file['TransformGroup'].visititems(
                lambda _, item: numbers.append(np.array(item)) if hasattr(item, 'shape') else None
            )
        return numbers
    return [np.frombuffer(path.read_bytes(), np.uint8)]


def differences(first, second):
    """Name the results that differ, or that only one of two output folders has."""
    found = {str(path) for path in set(results(first)) ^ set(results(second))}
    for path in set(results(first)) & set(results(second)):
        ours, theirs = read_numbers(first / path), read_numbers(second / path)
        same = len(ours) == len(theirs) and all(
            a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True)
        )
        if not same:
            found.add(str(path))
    return sorted(found)


def test_results_are_those_of_a_run_outside(inside, outside):
    assert sum(path.name.endswith('.nii.gz') for path in results(outside)) > 60
    assert differences(inside.out, outside) == []


def test_one_other_voxel_would_be_told(outside, tmp_path):
    shutil.copytree(outside / 'sub-02', tmp_path / 'sub-02')
    path = tmp_path / 'sub-02' / 'ct' / 'sub-02_cbf.nii.gz'
    image = nb.load(path)
    voxels = np.asanyarray(image.dataobj).copy()
    voxels.flat[voxels.argmax()] = np.nextafter(voxels.max(), np.inf)
    nb.save(nb.Nifti1Image(voxels, image.affine, image.header), path)
    told = [name for name in differences(tmp_path, outside) if name.startswith('sub-02')]
    assert told == ['sub-02/ct/sub-02_cbf.nii.gz']


def test_outputs_name_the_container_and_belong_to_its_user(inside, version):
    description = inside.out / 'dataset_description.json'
    (generated,) = json.loads(description.read_text())['GeneratedBy']
    assert generated['Container'] == {'Type': 'docker', 'Tag': f'ctpprep:{version}'}
    assert generated['Version'] == version
    assert {path.stat().st_uid for path in inside.out.rglob('*')} == {inside.user}


def test_the_confinement_is_what_the_runs_claim(tmp_path):
    code = """
import json, os, pwd
status = dict(line.rstrip().split(':\\t', 1) for line in open('/proc/self/status') if ':\\t' in line)
mounts = [line.split()[1:4] for line in open('/proc/mounts')]
try:
    name = pwd.getpwuid(os.getuid()).pw_name
except KeyError:
    name = None
print(json.dumps({
    'uid': os.getuid(), 'name': name, 'capabilities': int(status['CapEff'], 16),
    'gains': status['NoNewPrivs'] == '0', 'interfaces': os.listdir('/sys/class/net'),
    'writable': sorted(place for place, _, options in mounts if options.startswith('rw')
                       and os.path.isdir(place) and os.access(place, os.W_OK)),
}))
"""
    found = run_python(tmp_path, STRANGER, code)
    places = set(found.pop('writable')) - {'/dev/shm', '/dev/mqueue'}
    assert places == {'/out', '/tmp', '/work'}
    assert found == {
        'uid': STRANGER, 'name': None, 'capabilities': 0, 'gains': False, 'interfaces': ['lo'],
    }  # fmt: skip


def test_the_image_is_small(image):
    with (FOLDER / 'measured.txt').open('a') as file:
        file.write(f'{"size of the image":<40} {image["Size"] / 1e6:6.0f} MB\n')
    assert image['Size'] <= LARGEST


def test_the_image_is_labelled(image, version):
    settings = ConfigParser()
    settings.read(ROOT / 'setup.cfg')
    labels = {
        name.removeprefix('org.opencontainers.image.'): text
        for name, text in image['Labels'].items()
        if name.startswith('org.opencontainers.image.')
    }
    assert set(labels) == {'title', 'description', 'licenses', 'version', 'revision'}
    assert labels['title'] == settings['metadata']['name']
    assert labels['licenses'] == settings['metadata']['license_expression']
    assert version not in ('', '0')
    assert len(labels['revision']) == 40 or labels['revision'] == 'unknown'


def test_the_entry_point_is_one_absolute_word_and_no_shell(image):
    assert image['Config']['Entrypoint'] == ['/opt/ctpprep/bin/ctpprep']
    assert image['Config']['Cmd'] == ['--help']
    assert image['Config']['User'] == '1000:1000'


def test_the_command_tells_the_version_of_the_label(tmp_path, version):
    run = run_image(tmp_path, STRANGER, '--version')
    assert run.stdout == f'ctpprep {version}\n'
    assert (run.returncode, run.stderr) == (0, '')


def test_an_error_is_that_of_the_command(tmp_path):
    run = run_image(tmp_path, STRANGER, '/nowhere', '/out', 'participant')
    assert run.returncode == 2
    assert '/nowhere' in run.stderr


def test_the_packages_are_the_locked_ones(tmp_path):
    code = """
import importlib.metadata as metadata, json, re, sys
print(json.dumps({re.sub('[-_.]+', '-', each.name).lower(): each.version
                  for each in metadata.distributions()}))
"""
    installed = run_python(tmp_path, STRANGER, code)
    python = Path(os.environ['CTPPREP_LOCKED']) / 'bin' / 'python'
    run = subprocess.run([python, '-c', code], capture_output=True, text=True, check=True)
    locked = json.loads(run.stdout)
    tools = {'pip', 'setuptools', 'setuptools-scm', 'vcs-versioning', 'packaging'}
    del installed['ctpprep']
    assert installed.keys() & tools <= {'packaging'}
    assert all(locked[name] == version for name, version in installed.items())
    assert locked.keys() - tools - {'ctpprep'} <= installed.keys()


def test_nothing_of_the_build_is_left(tmp_path):
    code = """
import json, os
print(json.dumps([sorted(os.listdir('/opt')), sorted(os.listdir('/tmp')),
                  [name for name in os.listdir('/etc') if name.startswith('pip')],
                  [name for name in ('/src', '/build', '/wheels') if os.path.exists(name)]]))
"""
    assert run_python(tmp_path, STRANGER, code) == [['ctpprep', 'templateflow'], [], [], []]


def test_the_image_lists_its_packages(tmp_path):
    code = (
        'import json, importlib.metadata as m; sbom = json.load(open("/opt/ctpprep/sbom.cdx.json")); '
        'print(json.dumps([sbom["bomFormat"], sorted(c["name"] for c in sbom["components"]), '
        'sorted(d.metadata["Name"] for d in m.distributions())]))'
    )
    kind, listed, installed = run_python(tmp_path, '-', code)
    assert kind == 'CycloneDX'
    assert listed == installed
