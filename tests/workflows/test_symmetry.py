# SPDX-License-Identifier: Apache-2.0
"""The mirrored image is registered to its origin, not the other way round."""

from ctpprep.settings import MethodSettings
from ctpprep.workflows.symmetry import init_symmetry_wf


def connections(workflow, first, second):
    edge = workflow._graph.get_edge_data(workflow.get_node(first), workflow.get_node(second))
    return dict(edge['connect'])


def test_what_was_flipped_is_what_is_registered():
    workflow = init_symmetry_wf(MethodSettings())
    assert connections(workflow, 'inputnode', 'mirror_image') == {'reference': 'reference'}
    assert connections(workflow, 'inputnode', 'register_mirror')['reference'] == 'reference'


def test_homologues_come_from_the_transform_that_brings_the_mirror_home():
    workflow = init_symmetry_wf(MethodSettings())
    edge = connections(workflow, 'register_mirror', 'find_homologues')
    assert edge['mirror_to_reference'] == 'transform'


def test_methods_text_follows_the_settings():
    method = MethodSettings.of(mirror_grid_mm=5.0, mirror_window_hu=(-5.0, 80.0))
    text = ' '.join(init_symmetry_wf(method).visit_desc().split())
    assert '-5 to 80 HU on a grid of 5 mm' in text


def test_methods_text_tells_when_local_maps_are_withheld():
    method = MethodSettings.of(mirror_most_mm=4.5, mirror_region_mm=7.5, mirror_most_folding=0.023)
    text = ' '.join(init_symmetry_wf(method).visit_desc().split())
    assert 'off by more than 4.5 mm' in text
    assert 'off by more than 7.5 mm were not used' in text
    assert 'more than 2.3%' in text
