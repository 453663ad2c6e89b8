# SPDX-License-Identifier: Apache-2.0
"""Threads change no result; the text tells what was done."""

from pathlib import Path

import pytest

from ctpprep.inputs.series import CTPSeries, InputFile
from ctpprep.settings import MethodSettings
from ctpprep.workflows.preprocessing import init_preprocessing_wf


def build(tmp_path, n_frames, threads=1, **changed):
    path = Path(tmp_path / 'sub-01_ctp.nii.gz')
    path.touch()
    times = tuple(float(frame) for frame in range(n_frames))
    series = CTPSeries(path, 'sub-01', '01', None, 'sub-01/ct', '', times, (times,) * 3, '', {})
    return init_preprocessing_wf(series, MethodSettings.of(**changed), mem_gb=0.5, threads=threads)


@pytest.mark.parametrize('name', ['estimate_motion', 'correct_motion'])
def test_processes_are_reserved_for_threads(tmp_path, name):
    node = build(tmp_path, 12, threads=3).get_node(name)
    assert node.inputs.num_threads == node.n_procs == 3


def test_threads_leave_finished_nodes_valid(tmp_path):
    """The same work folder serves any number of processes."""
    hashes = {
        build(tmp_path, 12, threads=threads)
        .get_node('correct_motion')
        .inputs.get_hashval(hash_method='content')[1]
        for threads in (1, 2)
    }
    assert len(hashes) == 1


def test_sample_times_of_the_series_reach_the_working_grid(tmp_path):
    node = build(tmp_path, 12).get_node('prepare_series')
    assert node.inputs.sample_times == [[float(frame) for frame in range(12)]] * 3


def test_memory_is_planned_by_the_size_of_the_series(tmp_path):
    workflow = build(tmp_path, 12)
    for name in ('prepare_series', 'correct_motion', 'make_masks'):
        assert workflow.get_node(name).mem_gb >= 0.5


@pytest.mark.parametrize(
    ('changed', 'sentence'),
    [
        ({}, 'least squares (inverse compositional [@baker2004]) to the first frame'),
        ({'motion_skip_mm': 0.2}, 'moved by more than 0.2 mm was not resampled'),
        ({'motion_correction': False}, 'Head motion was not corrected'),
        ({'working_in_plane_mm': 2.5}, 'in plane to at most 2.5 mm'),
        ({'bone_hu': 150.0}, '> 150 HU'),
        ({'csf_level': 0.3}, 'less than 30% of the way from CSF to brain'),
        ({}, 'arrival of contrast was found in the earliest curves'),
        ({'bolus_arrival': 9.5}, 'set by the user: 9.5 s after the start of the scan'),
        ({}, 'linear drift of density over the scan was subtracted'),
    ],
)
def test_methods_text_follows_the_settings(tmp_path, changed, sentence):
    assert sentence in ' '.join(build(tmp_path, 12, **changed).visit_desc().split())


def supply(tmp_path, piece):
    path, raw = tmp_path / f'{piece}.nii', tmp_path / 'raw.nii'
    path.touch()
    raw.touch()
    times = tuple(float(frame) for frame in range(12))
    series = CTPSeries(
        raw, 'sub-01', '01', None, 'sub-01/ct', '', times, (times,) * 3, '', {},
        overrides={piece: InputFile(path, f'bids:x:{piece}.nii')},
    )  # fmt: skip
    return path, init_preprocessing_wf(series, MethodSettings(), mem_gb=0.5)


def test_a_supplied_brain_mask_reaches_the_masks_and_the_text(tmp_path):
    path, workflow = supply(tmp_path, 'brain_mask')
    assert workflow.get_node('make_masks').inputs.supplied_brain_mask == str(path)
    text = ' '.join(workflow.visit_desc().split())
    assert 'The brain is a mask that was supplied' in text
    assert 'ring of bone' not in text
    assert '(bids:x:brain_mask.nii)' in text


def test_a_mask_of_excluded_tissue_reaches_the_masks_and_the_text(tmp_path):
    path, workflow = supply(tmp_path, 'exclude_mask')
    assert workflow.get_node('make_masks').inputs.supplied_exclude_mask == str(path)
    text = ' '.join(workflow.visit_desc().split())
    assert 'Tissue in a supplied mask of old lesions or surgery was excluded.' in text
    assert '(bids:x:exclude_mask.nii)' in text


def test_a_corrected_series_is_compared_with_the_raw_one(tmp_path):
    path, workflow = supply(tmp_path, 'ctp_corrected')
    inputs = workflow.get_node('prepare_series').inputs
    assert inputs.ctp == str(path)
    assert inputs.raw != str(path)
    assert 'motion' in inputs.settings


@pytest.mark.parametrize('piece', ['curves', 'aif_mask'])
def test_a_supplied_aif_reaches_the_arrival_and_the_text(tmp_path, piece):
    path, workflow = supply(tmp_path, piece)
    assert getattr(workflow.get_node('make_masks').inputs, f'supplied_{piece}') == str(path)
    assert 'arrival of contrast is that of the supplied AIF' in ' '.join(
        workflow.visit_desc().split()
    )


def test_a_supplied_corrected_series_is_read_and_not_corrected_again(tmp_path):
    path, workflow = supply(tmp_path, 'ctp_corrected')
    assert workflow.get_node('prepare_series').inputs.ctp == str(path)
    assert workflow.get_node('estimate_motion') is None
    text = ' '.join(workflow.visit_desc().split())
    assert 'supplied motion-corrected' in text
    assert 'registered rigidly' not in text
