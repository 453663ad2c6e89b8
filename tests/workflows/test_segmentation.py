# SPDX-License-Identifier: Apache-2.0
"""Volumes are measured on the masks that are written."""

import pytest

from ctpprep.settings import MethodSettings
from ctpprep.workflows.segmentation import MASKS, init_segmentation_wf


def test_masks_that_are_measured_are_those_that_are_written():
    workflow = init_segmentation_wf(MethodSettings())
    segment, measure, output = map(
        workflow.get_node, ('segment_lesions', 'measure_volumes', 'outputnode')
    )
    same = [(name, name) for name in MASKS]
    assert workflow._graph.get_edge_data(segment, measure)['connect'] == [
        *same,
        ('cleaning', 'cleaning'),
    ]
    assert workflow._graph.get_edge_data(segment, output)['connect'] == [
        *same,
        ('lesions', 'lesions'),
    ]


@pytest.mark.parametrize(
    ('changed', 'sentence'),
    [
        ({}, 'restricted to the affected hemisphere (the one with the greater median Tmax or,'),
        ({'affected_side': 'both'}, 'restricted to both hemispheres'),
        ({'affected_side': 'left'}, 'the left hemisphere, as requested'),
        ({'core_rcbf': 0.38}, 'below 38%'),
        ({'hypoperfusion_tmax': 4.0}, 'Tmax above 4 s'),
        ({'opening_mm': 1.0, 'closing_mm': 3.0}, 'opening (1 mm) and closing (3 mm)'),
        ({'least_lesion_ml': 2.0}, 'lesions below 2 mL were removed'),
        ({'rim_mm': 4.0}, 'deeper than 4 mm'),
        ({'hypodense_hu': 9.0}, 'more than 9 HU less dense'),
        ({'core_within_hypoperfusion': True}, 'core is then restricted to hypoperfusion'),
    ],
)
def test_methods_text_follows_the_settings(changed, sentence):
    text = init_segmentation_wf(MethodSettings.of(**changed)).visit_desc()
    assert sentence in ' '.join(text.split())


@pytest.mark.parametrize(
    ('changed', 'sentence', 'written'),
    [
        ({}, 'that of the hypoperfusion is its volume', True),
        ({'tmax_calibration': False}, 'that of the hypoperfusion is its volume', False),
        ({'noise_draws': 0}, '95 % interval', False),
        ({}, 'that borders on hypoperfusion is therefore part of it', True),
        ({'core_joins_hypoperfusion': False}, 'is therefore part of it', False),
        ({'core_within_hypoperfusion': True}, 'is therefore part of it', False),
    ],
)
def test_methods_text_names_only_what_was_computed(changed, sentence, written):
    text = init_segmentation_wf(MethodSettings.of(**changed)).visit_desc()
    assert (sentence in ' '.join(text.split())) is written
