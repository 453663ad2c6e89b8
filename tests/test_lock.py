# SPDX-License-Identifier: Apache-2.0
"""The lock files, from which the image is built, hold every requirement, with hashes and without hosts."""

import re
import tomllib
from configparser import ConfigParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
METADATA = ConfigParser()
METADATA.read(ROOT / 'setup.cfg')
PYTHONS = re.findall(r'Python :: (3\.\d+)', METADATA['metadata']['classifiers'])


def direct_requirements(lock):
    """List what the metadata ask for, in order to run or to build the package."""
    if lock == 'requirements.lock':
        lines = METADATA['options']['install_requires'].splitlines()
    else:
        lines = tomllib.loads((ROOT / 'pyproject.toml').read_text())['build-system']['requires']
    return [Requirement(line) for line in lines if line and not line.startswith('#')]


def read_lock(lock):
    """List the pinned requirements of a lock file, each with the number of its hashes."""
    text = (ROOT / lock).read_text().replace('\\\n', ' ')
    lines = [line for line in text.splitlines() if line and not line.lstrip().startswith('#')]
    return [(Requirement(line.split('--hash')[0]), line.count('--hash=sha256:')) for line in lines]


def name(requirement):
    return requirement.name.lower().replace('_', '-')


each_lock = pytest.mark.parametrize('lock', ['requirements.lock', 'requirements-build.lock'])
any_lock = pytest.mark.parametrize(
    'lock', ['requirements.lock', 'requirements-build.lock', 'requirements-sbom.lock']
)


@each_lock
@pytest.mark.parametrize('python', PYTHONS)
def test_direct_requirements_are_satisfied(lock, python):
    environment = {'python_version': python, 'python_full_version': f'{python}.0',
                   'sys_platform': 'linux'}  # fmt: skip
    pinned = {
        name(each): each for each, _ in read_lock(lock)
        if each.marker is None or each.marker.evaluate(environment)
    }  # fmt: skip
    for wanted in direct_requirements(lock):
        (pin,) = pinned[name(wanted)].specifier
        assert pin.operator == '=='
        assert wanted.specifier.contains(pin.version), wanted


@any_lock
def test_every_requirement_has_hashes(lock):
    assert all(hashes for _, hashes in read_lock(lock))


@any_lock
def test_no_host_is_named(lock):
    text = (ROOT / lock).read_text()
    assert '://' not in text
    assert '--index-url' not in text
    assert '--find-links' not in text


def test_the_pythons_of_the_metadata_are_looked_at():
    assert len(PYTHONS) >= 3
