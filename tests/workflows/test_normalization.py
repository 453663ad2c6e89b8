# SPDX-License-Identifier: Apache-2.0
"""CBF and CBV go the same way and are not mixed up."""

import pytest

from ctpprep.settings import MethodSettings
from ctpprep.workflows.normalization import init_normalization_wf


@pytest.fixture(scope='module')
def workflow():
    return init_normalization_wf(MethodSettings())


def connections(workflow, first, second):
    edge = workflow._graph.get_edge_data(workflow.get_node(first), workflow.get_node(second))
    return dict(edge['connect'])


@pytest.mark.parametrize('quantity', ['rcbf', 'rcbv'])
def test_a_quantity_meets_its_own_mirror_image(workflow, quantity):
    mirror, node = f'apply_mirror_{quantity}', f'normalize_contralateral_{quantity}'
    relative = {f'{quantity}_global': 'relative'}
    assert connections(workflow, 'normalize_global', mirror) == relative
    assert connections(workflow, 'inputnode', mirror) == {'mirror_to_reference': 'transform'}
    assert connections(workflow, mirror, node) == {'mirrored': 'mirrored'}
    assert connections(workflow, 'normalize_global', node) == relative
    outputs = connections(workflow, node, 'outputnode')
    assert outputs['local'] == f'{quantity}_local'
    assert outputs['homologue_map'] == f'{quantity}_mirrored'


def test_unassessable_tissue_is_that_of_flow(workflow):
    assert 'unassessable_mask' in connections(
        workflow, 'normalize_contralateral_rcbf', 'outputnode'
    )
    assert 'unassessable_mask' not in connections(
        workflow, 'normalize_contralateral_rcbv', 'outputnode'
    )


@pytest.mark.parametrize(
    ('changed', 'sentence'),
    [
        ({}, 'tissue with Tmax within 4 s'),
        ({'global_reference': 'contralateral'}, 'median over the contralateral hemisphere'),
        ({}, 'If this was less than 50% of tissue'),
        ({'least_normal_share': 0.3, 'normal_tmax': 5.0}, '30% of tissue'),
        ({'normal_tmax': 5.0}, 'exceeds its 10th percentile there by at most 4 s'),
        ({'local_clip': 2.0}, 'capped at 200%'),
        ({'local_sigma_mm': (6.0, 7.0, 8.0)}, '6 x 7 x 8 mm'),
        ({'local_floor': 0.2}, 'below 20%'),
    ],
)
def test_methods_text_follows_the_settings(changed, sentence):
    text = init_normalization_wf(MethodSettings.of(**changed)).visit_desc()
    assert sentence in ' '.join(text.split())


def test_methods_text_says_that_local_does_not_replace_global(workflow):
    assert 'does not replace it' in ' '.join(workflow.visit_desc().split())


@pytest.mark.parametrize(
    'changed', [{'global_reference': 'contralateral'}, {'least_normal_share': 0.0}]
)
def test_methods_text_tells_of_no_replacement_that_cannot_happen(changed):
    assert 'less than' not in init_normalization_wf(MethodSettings.of(**changed)).visit_desc()
