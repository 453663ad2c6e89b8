# SPDX-License-Identifier: Apache-2.0
"""One set of curves serves every map; the text tells which method made them."""

from pathlib import Path

import pytest

from ctpprep.inputs.series import CTPSeries, InputFile
from ctpprep.settings import MethodSettings
from ctpprep.workflows.deconvolution import MAPS, init_deconvolution_wf

TIMES = (0.0, 1.5)


def build(overrides=None, **changed):
    series = CTPSeries(
        Path('a.nii'), 'sub-01', '01', None, 'sub-01/ct', '', TIMES, (TIMES,), '', {},
        overrides=overrides or {},
    )  # fmt: skip
    return init_deconvolution_wf(series, MethodSettings.of(**changed), mem_gb=0.5)


def test_the_curves_that_are_shown_are_those_that_are_used():
    workflow = build()
    edges = workflow._graph.get_edge_data(
        workflow.get_node('find_vessels'), workflow.get_node('deconvolve')
    )
    assert edges['connect'] == [('curves', 'curves')]


def test_every_map_is_an_output():
    outputs = build().get_node('outputnode').outputs.copyable_trait_names()
    assert {
        *MAPS,
        'curves',
        'aif_mask',
        'vof_mask',
        'noise',
        'cbf_noise',
        'tmax_repeats',
        'tissue_share',
        'tissue_curves',
        'deconvolution',
    } == set(outputs)


@pytest.mark.parametrize(
    ('changed', 'sentence'),
    [
        ({'denoise': 'none'}, 'used without denoising'),
        ({'denoise': 'lowrank', 'denoise_rank': 3}, 'reduced to 3 temporal components'),
        ({'denoise': 'smooth', 'denoise_sigma_mm': (2.0, 2.0, 5.0)}, 'sigma 2 mm in plane and 5'),
        ({'aif_scaling': 'vof'}, 'area scaled to that of the VOF'),
        ({'tmax_calibration': False}, 'Tmax was not calibrated'),
        ({'penalty_order': '2'}, 'derivative of order 2'),
        ({'lambda_rel': 0.2}, 'lambda 0.2'),
    ],
)
def test_methods_text_follows_the_settings(changed, sentence):
    assert sentence in ' '.join(build(**changed).visit_desc().split())


def test_smoothing_alone_does_not_claim_a_rank():
    assert 'temporal components' not in build(denoise='smooth').visit_desc()


@pytest.mark.parametrize(
    ('piece', 'sentence'),
    [
        ('curves', 'a curve that was supplied'),
        ('aif_mask', 'the mean of voxels that were supplied'),
    ],
)
def test_a_supplied_aif_reaches_the_search_and_the_text(tmp_path, piece, sentence):
    path = tmp_path / 'aif'
    path.touch()
    workflow = build({piece: InputFile(path, 'bids:x:aif')})
    inputs = workflow.get_node('find_vessels').inputs
    assert getattr(inputs, f'supplied_{piece}') == str(path)
    text = ' '.join(workflow.visit_desc().split())
    assert f'arterial input function is {sentence}' in text
    assert 'earliest and narrowest' not in text
