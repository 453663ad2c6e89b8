# SPDX-License-Identifier: Apache-2.0
"""Faults planted between the stages end as a failed check or as a refusal."""

from pathlib import Path

import pytest

from ctpprep.perfusion import assess
from ctpprep.phantom import PhantomSettings, make_phantom
from ctpprep.settings import MethodSettings
from tests.faults import planted

# planted into a small head after the mirror registration, in seconds
QUICK = (
    'CBF, CBV and MTT constant', 'CBV in place of CBF, MTT from both',
    'CBF and CBV of the unaffected side x 0.6', 'all maps smoothed by 20 mm', 'Tmax in ms',
    'hemispheres exchanged', 'homologues shifted by 15 mm', 'global map in percent',
    'reference x 1.5', 'cores exchanged',
)  # fmt: skip
BY_NAME = {fault.name: fault for fault in planted.FAULTS}


@pytest.fixture(scope='module')
def small():
    phantom = make_phantom(
        PhantomSettings(
            seed=5, matrix=64, voxel_size_mm=(3.4, 3.4, 7.0), n_slices=8, n_frames=26,
            frame_interval=2.0, noise_hu=3.0, motion_mm=0.0, lesion='large', orientation='RAS',
        )
    )  # fmt: skip
    return planted.prepare(phantom, MethodSettings.of(motion_correction=False))


@pytest.fixture(scope='module')
def whole():
    """The head of `docs/robustness.md`."""
    phantom = make_phantom(
        PhantomSettings(
            seed=5, matrix=80, voxel_size_mm=(2.7, 2.7, 7.0), n_slices=14, n_frames=38,
            frame_interval=1.7, lesion='large', lesion_side='left', orientation='RAS',
        )
    )  # fmt: skip
    return planted.prepare(phantom, MethodSettings())


def failing(head):
    grades = assess(head.result, head.settings)
    return {name: graded for name, graded in grades.items() if graded.grade == 'fail'}


def test_head_without_a_fault_fails_nothing(small):
    assert failing(small) == {}


@pytest.mark.parametrize('name', QUICK)
def test_fault_fails_a_check(small, name):
    assert planted.caught_by(small, BY_NAME[name]) != {}


def test_faults_are_many_and_of_every_stage():
    assert len(BY_NAME) == len(planted.FAULTS) >= 40
    assert {fault.stage for fault in planted.FAULTS} == set(planted.STAGES)


@pytest.mark.robustness
def test_whole_head_without_a_fault_fails_nothing(whole):
    assert failing(whole) == {}


@pytest.mark.robustness
@pytest.mark.parametrize('name', BY_NAME)
@pytest.mark.filterwarnings('ignore::RuntimeWarning')
def test_planted_fault_fails_a_check_or_is_refused(whole, name):
    assert planted.caught_by(whole, BY_NAME[name]) != {}, name


def cells_of(line):
    return [cell.strip() for cell in line.strip().strip('|').split('|')]


def test_page_lists_every_fault():
    page = (Path(__file__).parents[2] / 'docs' / 'robustness.md').read_text(encoding='utf-8')
    listed = {cells_of(line)[0] for line in page.splitlines() if line.startswith('|')}
    assert set(BY_NAME) <= listed
