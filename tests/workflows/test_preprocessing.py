# SPDX-License-Identifier: Apache-2.0
"""Chunks of frames do not depend on the machine; the text tells what was done."""

from pathlib import Path

import pytest

from ctpprep.series import CTPSeries, SuppliedFile
from ctpprep.settings import MethodSettings
from ctpprep.workflows.preprocessing import CHUNKS, init_preprocessing_wf


def build(tmp_path, n_frames, **changed):
    path = Path(tmp_path / 'sub-01_ctp.nii.gz')
    path.touch()
    times = tuple(float(frame) for frame in range(n_frames))
    series = CTPSeries(path, 'sub-01', '01', None, 'sub-01/ct', '', times, (times,) * 3, '', {})
    return init_preprocessing_wf(series, MethodSettings(**changed), mem_gb=0.5)


@pytest.mark.parametrize('n_frames', [10, 11, 12, 13, 27, 45, 60])
def test_every_frame_is_registered_once_and_in_order(tmp_path, n_frames):
    """Order counts: the matrices of the chunks are put one after the other."""
    node = build(tmp_path, n_frames).get_node('estimate_motion')
    chunks = node.inputs.frames
    assert [frame for chunk in chunks for frame in chunk] == list(range(n_frames))
    assert len(chunks) <= CHUNKS
    assert all(chunks)
    assert node.iterfield == ['frames']


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
        ({}, 'registered rigidly to the first one'),
        ({'motion_correction': False}, 'Head motion was not corrected'),
        ({'working_in_plane_mm': 2.5}, 'within 2.5 mm'),
        ({'bone_hu': 150.0}, '> 150 HU'),
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
        supplied={piece: SuppliedFile(path, f'bids:x:{piece}.nii')},
    )  # fmt: skip
    return path, init_preprocessing_wf(series, MethodSettings(), mem_gb=0.5)


def test_a_supplied_brain_mask_reaches_the_masks_and_the_text(tmp_path):
    path, workflow = supply(tmp_path, 'brain_mask')
    assert workflow.get_node('make_masks').inputs.supplied_brain_mask == str(path)
    text = ' '.join(workflow.visit_desc().split())
    assert 'The brain is a mask that was supplied' in text
    assert 'ring of bone' not in text
    assert '(bids:x:brain_mask.nii)' in text


def test_a_supplied_corrected_series_is_read_and_not_corrected_again(tmp_path):
    path, workflow = supply(tmp_path, 'ctp_corrected')
    assert workflow.get_node('prepare_series').inputs.ctp == str(path)
    assert workflow.get_node('estimate_motion') is None
    text = ' '.join(workflow.visit_desc().split())
    assert 'supplied motion-corrected' in text
    assert 'registered rigidly' not in text
