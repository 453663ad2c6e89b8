# SPDX-License-Identifier: Apache-2.0
"""CITATION.md and CITATION.bib: methods, equations and references of a run."""

import re

import pytest

from ctpprep.reports.citation import write_citation, write_equations
from ctpprep.settings import MethodSettings

METHOD = MethodSettings()


def write(folder, methods, **options):
    paths = write_citation(folder, methods, METHOD, **options)
    text, entries = (path.read_text() for path in paths)
    return text, entries


def test_exactly_the_cited_keys_are_in_both_lists(tmp_path):
    text, entries = write(tmp_path, {'sub-1': 'Smoothed [@wack2014; @mendrik2011].'})
    keys = set(re.findall(r'@article\{(\w+),', entries))
    assert {'wack2014', 'mendrik2011', 'rau2024', 'fieselmann2011'} <= keys
    assert 'albers2018' not in keys
    body, references = text.split('# References')
    assert set(re.findall(r'@(\w+)', body)) == keys == set(re.findall(r'\* @(\w+):', references))


def test_entries_are_complete(tmp_path):
    _, entries = write(tmp_path, {'sub-1': 'x'})
    assert entries.count('@article{') == len(re.findall(r'^\}$', entries, flags=re.MULTILINE))


def test_identical_texts_are_written_once(tmp_path):
    text, _ = write(tmp_path, {'sub-1': 'Alike.', 'sub-2': 'Alike.'})
    assert text.count('Alike.') == 1
    assert 'sub-1' not in text


def test_different_texts_name_their_series(tmp_path):
    text, _ = write(tmp_path, {'sub-1': 'Ours.', 'sub-2': 'Supplied.', 'sub-3': 'Ours.'})
    assert text.index('# sub-1 and those like it') < text.index('Ours.')
    assert text.index('Ours.') < text.index('# sub-2 and those like it')


def test_equations_contain_the_values_of_the_run():
    text = write_equations(METHOD.change(core_rcbf=0.25, tissue_density=1.05))
    assert 'rCBF < 0.25' in text
    assert 'rho = 1.05 g/mL' in text
    assert '12 x 12 x 4 mm' in text


def test_equations_are_written_whatever_the_settings():
    assert write_equations(METHOD.change(output_spaces=('MNI152NLin2009aSym',)))


def test_equations_of_precomputed_maps_leave_out_the_deconvolution():
    text = write_equations(METHOD, maps_only=True)
    assert 'Tikhonov' not in text
    assert 'local  = global / S' in text


@pytest.mark.parametrize('methods', [{}, {'sub-1': ''}])
def test_run_without_usable_series_has_equations(tmp_path, methods):
    text, _ = write(tmp_path, methods)
    assert 'hypoperfusion = Tmax > 6 s' in text
