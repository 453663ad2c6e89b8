# SPDX-License-Identifier: Apache-2.0
"""The tree of one output, from a graph made by hand; that of a run is in test_end_to_end."""

import hashlib
import json
import os

import pytest

from ctpprep.provenance import query

MASK = 'sub-1/ct/sub-1_mask.nii.gz'


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


def write_graph(root, name, began, mask):
    """Record a run: series -> threshold -> mask, copied to the dataset; and its sidecar."""
    writer = 'ctpprep.interfaces.outputs.WriteDerivatives'
    listed = [
        {'Id': 'run:ctpprep', 'Type': 'Activity', 'StartedAtTime': began},
        {'Id': 'bids:raw:series.nii.gz', 'Type': 'Entity', 'SHA256': sha256('series')},
        {'Id': 'run:wf/threshold', 'Type': 'Activity', 'Label': 'threshold', 'Command': 'a.Threshold',
         'Used': ['bids:raw:series.nii.gz'], 'parameter:core_rcbf': 0.3, 'measured:found': 12.3456789,
         'parameter:times': '[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]'},
        {'Id': 'run:wf/threshold/mask.nii', 'Type': 'Entity', 'GeneratedBy': 'run:wf/threshold',
         'DerivedFrom': ['bids:raw:series.nii.gz'], 'SHA256': sha256('work'), 'Quantity': 'core'},
        {'Id': 'run:wf/write', 'Type': 'Activity', 'Label': 'write', 'Command': writer,
         'Used': ['run:wf/threshold/mask.nii']},
        {'Id': f'bids::{MASK}', 'Type': 'Entity', 'GeneratedBy': 'run:wf/write', 'SHA256': sha256(mask),
         'DerivedFrom': 'run:wf/threshold/mask.nii', 'AlternateOf': 'run:wf/threshold/mask.nii'},
        {'Id': 'bids::sub-1/ct/sub-1_mask.json', 'Type': 'Entity', 'GeneratedBy': 'run:wf/write',
         'SHA256': sha256('{}'), 'DerivedFrom': ['run:wf/threshold/mask.nii']},
    ]  # fmt: skip
    folder = root / 'prov'
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps({'@graph': listed}))


@pytest.fixture
def root(tmp_path):
    root = tmp_path / 'out'
    (root / MASK).parent.mkdir(parents=True)
    (root / 'dataset_description.json').write_text('{"DatasetLinks": {"raw": "../raw"}}')
    (root / MASK).write_text('mask')
    (root / MASK).with_name('sub-1_mask.json').write_text('{}')
    (tmp_path / 'raw').mkdir()
    (tmp_path / 'raw' / 'series.nii.gz').write_text('series')
    write_graph(root, 'run-1_prov.jsonld', '2026-01-01T00:00:00+00:00', 'mask')
    return root


def draw(capsys, path):
    code = query.main([str(path)])
    printed = capsys.readouterr()
    return code, printed.out if code < 2 else printed.err


def test_a_chain_is_a_tree_from_the_output_to_the_input(root, capsys):
    code, tree = draw(capsys, root / MASK)
    assert tree.splitlines() == [
        f'{MASK} (sha256 {sha256("mask")[:12]})',
        '<- threshold(core_rcbf=0.3, times=[0, 1, ..., 5]) -> found=12.3457',
        f'   └─ bids:raw:series.nii.gz (sha256 {sha256("series")[:12]})',
    ]
    assert code == 0


def test_an_edited_output_has_changed_since(root, capsys):
    (root / MASK).write_text('edited')
    code, tree = draw(capsys, root / MASK)
    told = f'(changed since: sha256 was {sha256("mask")[:12]}, is {sha256("edited")[:12]})'
    assert tree.startswith(f'{MASK} {told}')
    assert code == 1


def test_an_input_that_was_replaced_or_removed_is_told(root, capsys):
    series = root.parent / 'raw' / 'series.nii.gz'
    series.write_text('another')
    assert draw(capsys, root / MASK)[0] == 1
    series.unlink()
    code, tree = draw(capsys, root / MASK)
    assert f'series.nii.gz (missing; sha256 was {sha256("series")[:12]})' in tree
    assert code == 1


def test_an_output_that_is_gone_is_explained_all_the_same(root, capsys):
    (root / MASK).unlink()
    code, tree = draw(capsys, root / MASK)
    assert 'missing' in tree
    assert '<- threshold(' in tree
    assert code == 1


def test_of_several_runs_the_one_that_made_the_file_counts(root, capsys):
    write_graph(root, 'run-0_prov.jsonld', '2026-02-01T00:00:00+00:00', 'later')
    assert 'changed' not in draw(capsys, root / MASK)[1]
    (root / MASK).write_text('neither')
    assert f'was {sha256("later")[:12]}' in draw(capsys, root / MASK)[1]


def test_a_sidecar_leads_to_what_its_facts_come_from(root, capsys):
    code, tree = draw(capsys, (root / MASK).with_name('sub-1_mask.json'))
    assert code == 0
    assert '<- write()\n' in tree
    assert f'└─ {MASK}' in tree


def test_links_in_the_path_lead_to_the_dataset(root, capsys):
    link = root.parent / 'far' / 'away' / 'link'  # nothing lies beside it
    link.parent.mkdir(parents=True)
    os.symlink(root, link)
    assert draw(capsys, link / MASK)[0] == 0


def test_dots_in_the_path_lead_to_the_file(root, capsys):
    assert draw(capsys, root / 'sub-1' / 'ct' / '..' / 'ct' / 'sub-1_mask.nii.gz')[0] == 0


@pytest.mark.parametrize(
    ('path', 'sentence'),
    [
        ('out/sub-1.html', 'no provenance record for'),
        ('raw/series.nii.gz', 'is not in a dataset'),
        ('out/prov/../sub-1/ct/x', 'no provenance record for'),
    ],
)
def test_what_is_not_known_is_one_sentence(root, capsys, path, sentence):
    code, said = draw(capsys, root.parent / path)
    assert code == 2
    assert said.startswith('ctpprep-provenance: error: ')
    assert sentence in said
    assert said.count('\n') == 1


@pytest.mark.parametrize('content', ['{', '[]'])
def test_a_damaged_record_is_one_sentence(root, capsys, content):
    (root / 'prov' / 'run-1_prov.jsonld').write_text(content)
    code, said = draw(capsys, root / MASK)
    assert code == 2
    assert 'run-1_prov.jsonld' in said
    assert said.count('\n') == 1


def test_a_dataset_without_records_is_one_sentence(root, capsys):
    (root / 'prov' / 'run-1_prov.jsonld').unlink()
    code, said = draw(capsys, root / MASK)
    assert code == 2
    assert 'contains no provenance records' in said
